//! Differences between two JSON trees.
//!
//! Positions of arrays and keys of dictionaries are folded, so that a thousand items with a wrong price are one field. Objects
//! have no order. Arrays have: the same elements in another order are one difference of the kind `order`. Arrays of
//! different lengths differ in `length`, and their elements are not compared, since nothing says which belongs to which.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use ahash::RandomState;

use super::endpoint::{is_drawn, is_numbered};
use super::field::{Mark, Path};
use super::found::Found;
use super::json::{Decimal, Tree, is_same_number};
use super::noise::{self, Noise};
use super::{DifferenceKind, Rules};

/// Finds out how `v2` differs from `v1`, both of them bodies.
pub(super) fn differences(
    v1: &Tree<'_>,
    v2: &Tree<'_>,
    noise: &Noise<'_>,
    rules: &Rules,
    found: &mut Found,
) {
    let mut walk = Walk {
        path: Path::new("body"),
        named: None,
        noise,
        rules,
        found,
        hashes: RandomState::new(),
    };
    walk.values(v1, v2);
}

struct Walk<'a> {
    path: Path,
    /// The same with the names of members, below a dictionary, whose keys are not in `path`: names are what noise is told by, and
    /// what somebody wants ignored or hidden.
    named: Option<Path>,
    noise: &'a Noise<'a>,
    rules: &'a Rules,
    found: &'a mut Found,
    hashes: RandomState,
}

type Member<'t> = (Cow<'t, str>, Tree<'t>);

impl Walk<'_> {
    fn values(&mut self, v1: &Tree<'_>, v2: &Tree<'_>) {
        match (v1, v2) {
            (Tree::Null, Tree::Null) => {}
            (Tree::Bool(one), Tree::Bool(two)) if one == two => {}
            (Tree::Number(one), Tree::Number(two)) if is_same_number(one, two) => {}
            (Tree::Text(one), Tree::Text(two)) if one == two => {}
            (Tree::Number(one), Tree::Number(two)) => {
                if !self.noise.numbers(self.named().last_name(), one, two) {
                    self.add(DifferenceKind::Value, Some(v1), Some(v2));
                }
            }
            (Tree::Text(one), Tree::Text(two)) => {
                if !self.noise.texts(self.named().last_name(), one, two) {
                    self.add(DifferenceKind::Value, Some(v1), Some(v2));
                }
            }
            (Tree::Bool(_), Tree::Bool(_)) => self.add(DifferenceKind::Value, Some(v1), Some(v2)),
            (Tree::Array(ones), Tree::Array(twos)) => self.arrays(ones, twos, v1, v2),
            (Tree::Object(ones), Tree::Object(twos)) => self.objects(ones, twos),
            _ => self.add(DifferenceKind::Type, Some(v1), Some(v2)),
        }
    }

    fn arrays(&mut self, ones: &[Tree<'_>], twos: &[Tree<'_>], v1: &Tree<'_>, v2: &Tree<'_>) {
        if ones.len() != twos.len() {
            return self.add(DifferenceKind::Length, Some(v1), Some(v2));
        }
        if ones == twos {
            return;
        }
        let mark = self.mark();
        self.elements();
        let mut one_forms: Vec<u64> = ones.iter().map(|tree| self.form(tree)).collect();
        let mut two_forms: Vec<u64> = twos.iter().map(|tree| self.form(tree)).collect();
        let mut is_reordered = false;
        if one_forms != two_forms {
            one_forms.sort_unstable();
            two_forms.sort_unstable();
            is_reordered = one_forms == two_forms;
        }
        if is_reordered {
            self.back_to(mark);
            return self.add(DifferenceKind::Order, Some(v1), Some(v2));
        }
        for (one, two) in ones.iter().zip(twos) {
            self.values(one, two);
        }
        self.back_to(mark);
    }

    fn objects(&mut self, ones: &[Member<'_>], twos: &[Member<'_>]) {
        let is_large = is_dictionary(ones.len().max(twos.len()));
        let mut only_one = Vec::new();
        let mut only_two = Vec::new();
        let (mut ones, mut twos) = (ones.iter().peekable(), twos.iter().peekable());
        loop {
            match (ones.peek(), twos.peek()) {
                (Some((one_name, one)), Some((two_name, two))) if one_name == two_name => {
                    // Most members of a large object are the same, and need no path.
                    if !is_large || one != two {
                        self.at_member(one_name, is_large, |walk| walk.values(one, two));
                    }
                    ones.next();
                    twos.next();
                }
                (Some((one_name, _)), Some((two_name, _))) if one_name > two_name => {
                    only_two.extend(twos.next());
                }
                (Some(_), _) => only_one.extend(ones.next()),
                (None, Some(_)) => only_two.extend(twos.next()),
                (None, None) => break,
            }
        }
        if only_one.is_empty() && only_two.is_empty() {
            return;
        }
        // Keys that each version makes up itself stand for each other in the order of their names.
        let mut one_noise = Vec::new();
        let mut two_noise = Vec::new();
        only_one.retain(|member| !move_noise(member, &mut one_noise));
        only_two.retain(|member| !move_noise(member, &mut two_noise));
        if one_noise.len() == two_noise.len() {
            for ((name, one), (_, two)) in one_noise.iter().zip(&two_noise) {
                self.at_member(name, is_large, |walk| walk.values(one, two));
            }
        } else {
            only_one.append(&mut one_noise);
            only_two.append(&mut two_noise);
        }
        for (name, value) in only_one {
            self.at_member(name, is_large, |walk| {
                walk.add(DifferenceKind::Missing, Some(value), None);
            });
        }
        for (name, value) in only_two {
            self.at_member(name, is_large, |walk| {
                walk.add(DifferenceKind::Extra, None, Some(value));
            });
        }
    }

    fn at_member<T>(&mut self, name: &str, is_large: bool, work: impl FnOnce(&mut Self) -> T) -> T {
        let mark = self.mark();
        if is_large || is_key(name) {
            let mut named = self.named().clone();
            named.member(name);
            self.named = Some(named);
            self.path.values();
        } else {
            self.path.member(name);
            if let Some(named) = &mut self.named {
                named.member(name);
            }
        }
        let result = work(self);
        self.back_to(mark);
        result
    }

    fn elements(&mut self) {
        self.path.elements();
        if let Some(named) = &mut self.named {
            named.elements();
        }
    }

    fn named(&self) -> &Path {
        self.named.as_ref().unwrap_or(&self.path)
    }

    fn mark(&self) -> (Mark, Option<Mark>) {
        (self.path.mark(), self.named.as_ref().map(Path::mark))
    }

    fn back_to(&mut self, (mark, named): (Mark, Option<Mark>)) {
        self.path.back_to(mark);
        match (&mut self.named, named) {
            (Some(path), Some(mark)) => path.back_to(mark),
            (path, _) => *path = None,
        }
    }

    fn add(&mut self, kind: DifferenceKind, v1: Option<&Tree<'_>>, v2: Option<&Tree<'_>>) {
        let named = self.named.as_ref().map(Path::as_str);
        self.found
            .add_at(self.path.as_str(), named, kind, self.rules, || {
                (v1.map(shown), v2.map(shown))
            });
    }

    /// A number that two trees share when they are equal but for noise and for what is ignored; the other way round, only
    /// very nearly.
    fn form(&mut self, tree: &Tree<'_>) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        if !self.rules.ignore.is_empty()
            && (self.rules.ignores_all(self.path.as_str())
                || self.rules.ignores_all(self.named().as_str()))
        {
            return 0;
        }
        std::mem::discriminant(tree).hash(&mut hasher);
        match tree {
            Tree::Null => {}
            Tree::Bool(it) => it.hash(&mut hasher),
            Tree::Number(it) => Decimal::of(it).hash(&mut hasher),
            Tree::Text(it) => match noise::class(it) {
                Some(class) => class.hash(&mut hasher),
                None => it.hash(&mut hasher),
            },
            Tree::Array(it) => {
                let has_order = !self
                    .rules
                    .ignores(self.path.as_str(), DifferenceKind::Order);
                let mark = self.mark();
                self.elements();
                let mut sum: u64 = 0;
                for element in it {
                    let form = self.form(element);
                    sum = sum.wrapping_add(form);
                    if has_order {
                        form.hash(&mut hasher);
                    }
                }
                sum.hash(&mut hasher);
                self.back_to(mark);
            }
            Tree::Object(it) => {
                for (name, value) in it {
                    match noise::class(name) {
                        Some(class) => class.hash(&mut hasher),
                        None => name.hash(&mut hasher),
                    }
                    let form = if self.rules.ignore.is_empty() {
                        // Nobody asks where it is.
                        self.form(value)
                    } else {
                        let is_large = is_dictionary(it.len());
                        self.at_member(name, is_large, |walk| walk.form(value))
                    };
                    form.hash(&mut hasher);
                }
            }
        }
        hasher.finish()
    }
}

/// Whether an object has so many members that their names are taken for keys.
pub(crate) const fn is_dictionary(members: usize) -> bool {
    members > LARGEST_RECORD
}

/// Whether a member's name is a key of a dictionary rather than the name of a field.
pub(crate) fn is_key(name: &str) -> bool {
    // In JSON-LD, and where XML was made JSON, names begin with it.
    let is_address = |name: &str| name.find('@').is_some_and(|at| at > 0);
    name.len() > LONGEST_NAME
        || is_address(name)
        || noise::is_identifier(name)
        || is_numbered(name, &['-'])
        || is_drawn(name)
        || noise::is_date(name)
}

fn move_noise<'m, 't>(member: &&'m Member<'t>, to: &mut Vec<&'m Member<'t>>) -> bool {
    let is_noise = noise::class(&member.0).is_some();
    if is_noise {
        to.push(member);
    }
    is_noise
}

/// A value in short.
fn shown(tree: &Tree<'_>) -> String {
    match tree {
        Tree::Null => "null".to_owned(),
        Tree::Bool(it) => it.to_string(),
        Tree::Number(it) => (*it).to_owned(),
        Tree::Text(it) => format!("\"{it}\""),
        Tree::Array(it) => match it.len() {
            1 => "[1 element]".to_owned(),
            length => format!("[{length} elements]"),
        },
        Tree::Object(it) => match it.len() {
            1 => "{1 member}".to_owned(),
            length => format!("{{{length} members}}"),
        },
    }
}

/// Objects with more members are dictionaries.
const LARGEST_RECORD: usize = 64;

/// Longer names are keys.
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::Difference;
    use super::super::tests::{answer_at, request};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn diff_with(rules: &Rules, v1: &Value, v2: &Value) -> Vec<Difference> {
        let (one, two) = (v1.to_string(), v2.to_string());
        let request = request("GET /a HTTP/1.1\r\n\r\n", "");
        let at = 1_795_381_446_000_000_000;
        let (ones, twos) = (answer_at(at, ""), answer_at(at, ""));
        let mut found = Found::default();
        differences(
            &Tree::parse(one.as_bytes()).unwrap(),
            &Tree::parse(two.as_bytes()).unwrap(),
            &Noise::new(&request, &ones, &twos),
            rules,
            &mut found,
        );
        found.into_differences()
    }

    fn names(differences: &[Difference]) -> Vec<String> {
        differences
            .iter()
            .map(|it| format!("{} {}", it.field, it.kind))
            .collect()
    }

    fn diff(v1: Value, v2: Value) -> Vec<String> {
        names(&diff_with(&Rules::default(), &v1, &v2))
    }

    #[test]
    fn every_kind() {
        assert_eq!(diff(json!({"a": 1}), json!({})), ["body.a missing"]);
        assert_eq!(diff(json!({}), json!({"a": {"b": 1}})), ["body.a extra"]);
        assert_eq!(diff(json!({"a": 1}), json!({"a": "1"})), ["body.a type"]);
        assert_eq!(diff(json!({"a": null}), json!({"a": 0})), ["body.a type"]);
        assert_eq!(diff(json!({"a": 1}), json!({"a": 2})), ["body.a value"]);
        assert_eq!(diff(json!([1, 2, 3]), json!([3, 1, 2])), ["body order"]);
        assert_eq!(diff(json!([1, 2, 3]), json!([1, 2])), ["body length"]);
        assert_eq!(diff(json!(true), json!(false)), ["body value"]);
        assert_eq!(diff(json!({"a": 1}), json!([1])), ["body type"]);
    }

    #[test]
    fn positions_are_folded() {
        let items = |cents: [u32; 3]| json!({"items": cents.map(|cents| json!({"cents": cents, "name": "tea"}))});
        assert_eq!(
            diff(items([1, 2, 3]), items([7, 8, 9])),
            ["body.items[].cents value"]
        );
        assert_eq!(
            diff(json!([[1], [2]]), json!([[1], [3]])),
            ["body[][] value"]
        );
    }

    #[test]
    fn keys_that_are_identifiers_are_folded() {
        assert_eq!(
            diff(
                json!({"users": {"17": {"name": "a"}, "18": {"name": "b"}}}),
                json!({"users": {"17": {"name": "x"}, "18": {"name": "y"}}}),
            ),
            ["body.users{}.name value"]
        );
        assert_eq!(
            diff(
                json!({"2026-11-22": 1, "6b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1": 1, "a@example.com": 1}),
                json!({"2026-11-22": 2, "6b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1": 2, "a@example.com": 2}),
            ),
            ["body{} value"]
        );
        let many = |value: u32| -> Value {
            (0..100)
                .map(|i| (format!("k{i}x"), json!(value)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        assert_eq!(diff(many(1), many(2)), ["body{} value"]);
        assert_eq!(
            diff(
                json!({"ORD-1001": 1, "cus_NffrFeUfNV2Hib": 1}),
                json!({"ORD-1001": 2, "cus_NffrFeUfNV2Hib": 2})
            ),
            ["body{} value"]
        );
        assert_eq!(
            diff(json!({"@type": "a"}), json!({"@type": "b"})),
            ["body.@type value"]
        );
        assert_eq!(
            diff(json!({"price_100": 1}), json!({"price_100": 2})),
            ["body.price_100 value"]
        );
        assert_eq!(
            diff(json!({"7": 1}), json!({"8": 1})),
            ["body{} missing", "body{} extra"]
        );
    }

    #[test]
    fn names_in_a_large_object_are_still_names() {
        let large = |more: Value| -> Value {
            let mut members: serde_json::Map<_, _> =
                (0..100).map(|i| (format!("k{i}x"), json!(1))).collect();
            members.insert("more".to_owned(), more);
            members.into()
        };
        // Noise by the name of its field.
        assert!(
            diff(
                large(json!({"requestId": "a1"})),
                large(json!({"requestId": "b2"}))
            )
            .is_empty()
        );
        let mut rules = Rules::default();
        let differ = |rules: &Rules| {
            let price = |cents| large(json!([{"price": cents}, {"price": 1}]));
            names(&diff_with(rules, &price(2), &price(3)))
        };
        assert_eq!(differ(&rules), ["body{}[].price value"]);
        for ignored in [
            "more",
            "price",
            "body.more",
            "body{}[].price",
            "body.more[].price",
        ] {
            rules.ignore = vec![ignored.parse().unwrap()];
            assert!(differ(&rules).is_empty(), "{ignored}");
        }
        rules.ignore = vec!["k1x".parse().unwrap()];
        assert_eq!(differ(&rules), ["body{}[].price value"]);
        // Which member it is, for whoever has to hide it.
        let found = diff_with(&Rules::default(), &large(json!("a")), &large(json!("b")));
        assert_eq!(found[0].named.as_deref(), Some("body.more"));
        let found = diff_with(&Rules::default(), &json!({"a": 1}), &json!({"a": 2}));
        assert_eq!(found[0].named, None);
    }

    #[test]
    fn keys_made_up_for_each_answer_stand_for_each_other() {
        assert_eq!(
            diff(
                json!({"6b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1": {"a": 1}}),
                json!({"0fd4cbf0-1111-4a4e-8b8e-8b1bc1d9d9a2": {"a": 2}}),
            ),
            ["body{}.a value"]
        );
    }

    #[test]
    fn noise_inside_elements_does_not_hide_order() {
        let item = |id: &str, name: &str| json!({"id": id, "name": name});
        let (a, b) = (
            "6b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1",
            "0fd4cbf0-1111-4a4e-8b8e-8b1bc1d9d9a2",
        );
        assert_eq!(
            diff(
                json!([item(a, "tea"), item(a, "mug")]),
                json!([item(b, "mug"), item(b, "tea")])
            ),
            ["body order"]
        );
        assert!(diff(json!([item(a, "tea")]), json!([item(b, "tea")])).is_empty());
        // A moment that noise does not explain, in place.
        assert_eq!(
            diff(json!(["1980-05-01"]), json!(["1981-05-01"])),
            ["body[] value"]
        );
    }

    #[test]
    fn an_order_that_is_ignored() {
        let rules = Rules {
            ignore: vec!["tags (order)".parse().unwrap()],
            ..Rules::default()
        };
        let item = |tags: &[u32]| json!({"tags": tags});
        let differ = |one, two| names(&diff_with(&rules, &one, &two));
        assert!(differ(item(&[1, 2, 3]), item(&[3, 2, 1])).is_empty());
        assert_eq!(
            differ(item(&[1, 2]), item(&[2, 3])),
            diff(item(&[1, 2]), item(&[2, 3]))
        );
        let one = json!([item(&[1, 2]), item(&[3, 4])]);
        let two = json!([item(&[4, 3]), item(&[2, 1])]);
        assert_eq!(differ(one, two), ["body order"]);
    }

    #[test]
    fn ignored_fields_are_left_out() {
        let rules = Rules {
            ignore: vec![
                "body.items[].stock".parse().unwrap(),
                "took".parse().unwrap(),
            ],
            ..Rules::default()
        };
        let items = |stock: u32, took: u32| json!({"items": [{"stock": stock, "name": "tea"}], "took": took, "n": stock});
        assert_eq!(
            names(&diff_with(&rules, &items(1, 2), &items(3, 4))),
            ["body.n value"]
        );
        let reordered = diff_with(
            &rules,
            &json!({"items": [{"stock": 1, "name": "tea"}, {"stock": 2, "name": "mug"}]}),
            &json!({"items": [{"stock": 3, "name": "mug"}, {"stock": 4, "name": "tea"}]}),
        );
        assert_eq!(names(&reordered), ["body.items order"]);
    }

    #[test]
    fn the_first_place_is_the_example() {
        let found = diff_with(&Rules::default(), &json!([1, 2]), &json!([1, 5]));
        assert_eq!(found[0].v1.as_deref(), Some("2"));
        assert_eq!(found[0].v2.as_deref(), Some("5"));
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-50i64..50).prop_map(Value::from),
            "[a-z]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,4}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Every scalar of a tree: its folded path, and a way to it.
    fn scalars(tree: &Value, path: &str, pointer: &str, all: &mut Vec<(String, String)>) {
        match tree {
            Value::Array(it) => {
                for (at, value) in it.iter().enumerate() {
                    scalars(value, &format!("{path}[]"), &format!("{pointer}/{at}"), all);
                }
            }
            Value::Object(it) => {
                for (name, value) in it {
                    scalars(
                        value,
                        &format!("{path}.{name}"),
                        &format!("{pointer}/{name}"),
                        all,
                    );
                }
            }
            _ => all.push((path.to_owned(), pointer.to_owned())),
        }
    }

    proptest! {
        #[test]
        fn nothing_differs_from_itself(value in tree()) {
            prop_assert!(diff(value.clone(), value).is_empty());
        }

        #[test]
        fn missing_and_extra_are_one_seen_from_two_sides(v1 in tree(), v2 in tree()) {
            let mut there = diff(v1.clone(), v2.clone());
            let mut back: Vec<_> = diff(v2, v1)
                .into_iter()
                .map(|it| match it.rsplit_once(' ') {
                    Some((field, "missing")) => format!("{field} extra"),
                    Some((field, "extra")) => format!("{field} missing"),
                    _ => it,
                })
                .collect();
            there.sort();
            back.sort();
            prop_assert_eq!(there, back);
        }

        #[test]
        fn a_changed_value_is_found_where_it_is(value in tree(), which in any::<prop::sample::Index>()) {
            let mut all = Vec::new();
            scalars(&value, "body", "", &mut all);
            prop_assume!(!all.is_empty());
            let (path, pointer) = which.get(&all);
            let mut changed = value.clone();
            *changed.pointer_mut(pointer).unwrap() = json!("something that was not there");
            let found = diff(value, changed);
            prop_assert_eq!(found.len(), 1, "{:?}", &found);
            prop_assert!(found[0] == format!("{path} value") || found[0] == format!("{path} type"), "{:?}", found);
        }

        #[test]
        fn a_removed_member_is_found_where_it_is(value in tree(), which in any::<prop::sample::Index>()) {
            let mut all = Vec::new();
            scalars(&value, "body", "", &mut all);
            let members: Vec<_> = all.iter().filter(|(path, _)| !path.ends_with(']') && path.contains('.')).collect();
            prop_assume!(!members.is_empty());
            let (path, pointer) = which.get(&members);
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            let mut changed = value.clone();
            changed.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
            prop_assert_eq!(diff(value, changed), [format!("{path} missing")]);
        }

        #[test]
        fn another_order_is_no_change_of_values(mut values in prop::collection::vec(0u32..1000, 2..10), by in 1usize..9) {
            let before = values.clone();
            let by = by % values.len();
            values.rotate_left(by);
            let found = diff(json!({"a": before.clone()}), json!({"a": values.clone()}));
            if before == values {
                prop_assert!(found.is_empty());
            } else {
                prop_assert_eq!(found, ["body.a order"]);
            }
        }
    }
}
