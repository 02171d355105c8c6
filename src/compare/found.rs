//! The differences of one pair of answers while they are being found.

use super::{Difference, DifferenceKind, Rules};

/// Each field and kind once, and no more of them than anybody reads.
#[derive(Default)]
pub(super) struct Found {
    differences: Vec<Difference>,
}

impl Found {
    /// Adds a difference, unless the user ignores the field or it is known; the first example stays.
    pub(super) fn add(
        &mut self,
        field: &str,
        kind: DifferenceKind,
        rules: &Rules,
        example: impl FnOnce() -> (Option<String>, Option<String>),
    ) {
        self.add_at(field, None, kind, rules, example);
    }

    /// The same for a field that has other names, `named`, than are told of it.
    pub(super) fn add_at(
        &mut self,
        field: &str,
        named: Option<&str>,
        kind: DifferenceKind,
        rules: &Rules,
        example: impl FnOnce() -> (Option<String>, Option<String>),
    ) {
        let is_known = |it: &Difference| it.kind == kind && *it.field == *field;
        let is_ignored =
            || rules.ignores(field, kind) || named.is_some_and(|named| rules.ignores(named, kind));
        if self.differences.iter().any(is_known) || is_ignored() {
            return;
        }
        if self.differences.len() >= MOST {
            return self.add_other(kind);
        }
        let (v1, v2) = example();
        self.differences.push(Difference {
            field: field.into(),
            named: named.map(Into::into),
            kind,
            v1: v1.map(short),
            v2: v2.map(short),
        });
    }

    /// What goes beyond the bound is still a difference of this request. An example would not say of what it is one, nor whether
    /// it may be shown.
    fn add_other(&mut self, kind: DifferenceKind) {
        let is_known = |it: &Difference| it.kind == kind && *it.field == *OTHER;
        if !self.differences.iter().any(is_known) {
            self.differences.push(Difference {
                field: OTHER.into(),
                named: None,
                kind,
                v1: None,
                v2: None,
            });
        }
    }

    pub(super) fn into_differences(self) -> Vec<Difference> {
        self.differences
    }
}

/// Cuts a text that is too long to be shown.
fn short(mut text: String) -> String {
    if text.len() > LONGEST {
        let mut end = LONGEST;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The field that stands for all beyond the bound.
pub(super) const OTHER: &str = "body (more fields)";

/// So many fields of one request are told apart.
const MOST: usize = 64;

/// So many bytes of a value are shown.
const LONGEST: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_in_number_and_length() {
        let mut found = Found::default();
        for index in 0..1000 {
            let example = || (Some("ü".repeat(1000)), None);
            found.add(
                &format!("body.f{index}"),
                DifferenceKind::Value,
                &Rules::default(),
                example,
            );
        }
        let all = found.into_differences();
        assert_eq!(all.len(), MOST + 1);
        assert_eq!((&*all[MOST].field, &all[MOST].v1), (OTHER, &None));
        assert!(
            all[..MOST]
                .iter()
                .all(|it| it.v1.as_ref().unwrap().len() <= LONGEST + 3)
        );
    }
}
