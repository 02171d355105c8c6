//! Names of fields, and patterns over them.

use std::fmt;
use std::str::FromStr;

use memchr::memmem;

use super::DifferenceKind;

/// A field or a group of fields, as `--ignore` and `--redact` take it.
///
/// `body.items[].updatedAt` is that field and whatever is below it. `*` stands for any part of one name, `**` for any
/// number of names. A pattern without a dot, such as `updatedAt`, is any field of that name, at any depth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldPattern {
    text: String,
    /// The same with names in quotes that paths write so.
    quoted: Option<String>,
    /// Lower case, in which header names are compared.
    lower: String,
}

/// What is wrong with a pattern.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FieldPatternError {
    /// There is nothing.
    #[error(
        "the name of a field is missing; write body.items[].updatedAt, header.etag or updatedAt"
    )]
    Empty,
    /// It does not begin with what fields begin with.
    #[error(
        "'{0}' is not a field: they begin with body, header. or query., or are a name alone such as updatedAt"
    )]
    Beginning(String),
    /// There are several.
    #[error(
        "'{0}' is one name with a comma in it; give the flag once for each field (in its environment variable, one a line), and write \
         such a name as in body[\"a,b\"]"
    )]
    Several(String),
}

impl FromStr for FieldPattern {
    type Err = FieldPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err(FieldPatternError::Empty);
        }
        let outside = text.split("[\"").map(|it| it.rsplit("\"]").next());
        if outside.flatten().any(|it| it.contains(',')) {
            return Err(FieldPatternError::Several(text.to_owned()));
        }
        let begins = |with: &str| text.strip_prefix(with).is_some_and(|rest| !rest.is_empty());
        let is_field = ["body.", "body[", "body{", "header.", "query.", "**"]
            .into_iter()
            .any(begins)
            || matches!(text, "body" | "status");
        let is_name = !text.contains(['.', '[', '{']);
        if !is_field && !is_name {
            return Err(FieldPatternError::Beginning(text.to_owned()));
        }
        let (text, quoted) = if is_name && !is_field {
            let quoted = in_quotes(text).map(|name| format!("**{name}"));
            (format!("**.{text}"), quoted)
        } else {
            let quoted = with_quotes(text);
            (text.to_owned(), (quoted != text).then_some(quoted))
        };
        Ok(Self {
            lower: text.to_ascii_lowercase(),
            text,
            quoted,
        })
    }
}

impl fmt::Display for FieldPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.strip_prefix("**.").unwrap_or(&self.text))
    }
}

impl FieldPattern {
    /// Whether `field` is what is meant, or below it.
    #[must_use]
    pub fn covers(&self, field: &str) -> bool {
        let is_header = field.starts_with("header.");
        let pattern = if is_header { &self.lower } else { &self.text };
        let mut patterns = std::iter::once(pattern).chain(&self.quoted);
        patterns.any(|pattern| matches(pattern.as_bytes(), field.as_bytes()))
    }

    /// The same whatever the case of letters is: who hides `password` means `Password` too.
    pub(crate) fn covers_in_any_case(&self, field: &str) -> bool {
        let field = field.to_ascii_lowercase();
        let quoted = self.quoted.as_ref().map(|it| it.to_ascii_lowercase());
        let mut patterns = std::iter::once(&self.lower).chain(&quoted);
        patterns.any(|pattern| matches(pattern.as_bytes(), field.as_bytes()))
    }

    /// Whether a text may hold such a field, though nobody knows where: its name is in it. The text is in lower case.
    pub(crate) fn may_be_in(&self, lower: &[u8]) -> bool {
        let mut names = self.lower.split(['.', '[', ']', '{', '}', '"']);
        let last = names.rfind(|name| !name.is_empty());
        let longest = last
            .into_iter()
            .flat_map(|name| name.split('*'))
            .max_by_key(|piece| piece.len());
        self.is_of_bodies()
            && longest.is_some_and(|piece| memmem::find(lower, piece.as_bytes()).is_some())
    }

    /// Whether it may cover a body or something in one.
    pub(crate) fn is_of_bodies(&self) -> bool {
        ["body", "*"]
            .into_iter()
            .any(|begin| self.text.starts_with(begin))
    }

    /// Whether it may cover a parameter of a query.
    pub(crate) fn is_of_queries(&self) -> bool {
        ["query", "*"]
            .into_iter()
            .any(|begin| self.text.starts_with(begin))
    }
}

/// What `--ignore` takes: a field and what is below it, or one kind of difference there, written as reports print it:
/// `body.items (order)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ignore {
    field: FieldPattern,
    /// `None` is any.
    kind: Option<DifferenceKind>,
}

impl FromStr for Ignore {
    type Err = FieldPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let with_kind = text.strip_suffix(')').and_then(|text| {
            let (field, name) = text.rsplit_once(" (")?;
            let kind = DifferenceKind::ALL
                .into_iter()
                .find(|kind| kind.name() == name)?;
            Some((field, kind))
        });
        let (field, kind) = match with_kind {
            Some((field, kind)) => (field, Some(kind)),
            None => (text, None),
        };
        Ok(Self {
            field: field.parse()?,
            kind,
        })
    }
}

impl Ignore {
    /// Whether the field is left out, whatever is different there.
    pub(super) fn is_of_all(&self, field: &str) -> bool {
        self.kind.is_none() && self.field.covers(field)
    }

    /// Whether this kind of difference in the field is left out.
    pub(super) fn is_of(&self, field: &str, kind: DifferenceKind) -> bool {
        self.kind.is_none_or(|it| it == kind) && self.field.covers(field)
    }
}

/// A name as paths write it, if that is in quotes. A name with a `*` in it may stand for names of either kind.
fn in_quotes(name: &str) -> Option<String> {
    let mut path = Path::new("");
    path.member(name);
    path.text.starts_with('[').then_some(path.text)
}

/// A pattern with each name that paths write in quotes, such as one with a blank in it, written like that.
fn with_quotes(pattern: &str) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(begin) = rest.chars().next() {
        let end = if rest.starts_with("[\"") {
            rest.find("\"]").map(|end| end + 2)
        } else {
            let begin = begin.len_utf8();
            let end = rest[begin..].find(['.', '[', '{']);
            end.map(|end| begin + end)
        };
        let (piece, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let name = piece.strip_prefix('.').filter(|name| !name.contains('*'));
        match name.and_then(in_quotes) {
            Some(name) => {
                // Any number of names, none of them too.
                if out.ends_with(".**") {
                    out.replace_range(out.len() - 3.., "**");
                }
                out.push_str(&name);
            }
            None => out.push_str(piece),
        }
        rest = behind;
    }
    out
}

/// Whether `pattern` matches `field` up to the end of one of its names.
fn matches(pattern: &[u8], field: &[u8]) -> bool {
    match pattern {
        [] => matches!(field, [] | [b'.' | b'[' | b'{', ..]),
        [b'*', b'*', b'.', rest @ ..] => {
            // At the beginning of any name.
            matches(rest, field)
                || (0..field.len()).any(|at| field[at] == b'.' && matches(rest, &field[at + 1..]))
        }
        [b'*', b'*', rest @ ..] => (0..=field.len()).any(|at| matches(rest, &field[at..])),
        [b'*', rest @ ..] => {
            let name = field
                .iter()
                .position(|byte| matches!(byte, b'.' | b'[' | b'{'))
                .unwrap_or(field.len());
            (0..=name).any(|at| matches(rest, &field[at..]))
        }
        [byte, rest @ ..] => field
            .split_first()
            .is_some_and(|(first, field)| first == byte && matches(rest, field)),
    }
}

/// The path of a field while a tree is walked.
#[derive(Clone, Default)]
pub(crate) struct Path {
    text: String,
    /// Where the last name of each enclosing value began.
    names: Vec<usize>,
}

/// Where a path was, to go back there.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    text: usize,
    names: usize,
}

impl Path {
    pub(crate) fn new(root: &str) -> Self {
        Self {
            text: root.to_owned(),
            names: vec![0],
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The last name in it.
    pub(crate) fn last_name(&self) -> &str {
        let begin = self.names.last().copied().unwrap_or(0);
        self.text[begin..].trim_end_matches(['[', ']', '{', '}'])
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            text: self.text.len(),
            names: self.names.len(),
        }
    }

    pub(crate) fn back_to(&mut self, mark: Mark) {
        self.text.truncate(mark.text);
        self.names.truncate(mark.names);
    }

    /// Goes to the member called `name`.
    pub(crate) fn member(&mut self, name: &str) {
        let is_plain = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$' | b'@' | b':')
        };
        if !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(is_plain) {
            self.text.push('.');
            self.names.push(self.text.len());
            self.text.push_str(name);
            return;
        }
        // Written so that it can neither be taken for several names nor act on a terminal.
        self.text.push_str("[\"");
        self.names.push(self.text.len());
        for (index, c) in name.chars().enumerate() {
            if index == LONGEST_NAME {
                self.text.push('…');
                break;
            }
            if c == '"' || c == '\\' || c.is_control() {
                self.text.extend(c.escape_default());
            } else {
                self.text.push(c);
            }
        }
        self.text.push_str("\"]");
    }

    /// Goes to the elements of an array.
    pub(crate) fn elements(&mut self) {
        self.text.push_str("[]");
    }

    /// Goes to the values of a dictionary.
    pub(crate) fn values(&mut self) {
        self.text.push_str("{}");
    }
}

/// Longer names are cut.
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covers(pattern: &str, field: &str) -> bool {
        pattern.parse::<FieldPattern>().unwrap().covers(field)
    }

    #[test]
    fn patterns() {
        for (pattern, field) in [
            ("body.items[].updatedAt", "body.items[].updatedAt"),
            ("body.meta", "body.meta.took"),
            ("body.items", "body.items[].price"),
            ("body.users", "body.users{}.name"),
            ("body.*.price", "body.tea.price"),
            ("body.*At", "body.updatedAt"),
            ("body.**.price", "body.a.b[].c.price"),
            ("body.**.price", "body.price"),
            ("updatedAt", "body.items[].updatedAt"),
            ("updatedAt", "body.updatedAt.zone"),
            ("etag", "header.etag"),
            ("ETag", "header.etag"),
            ("header.X-Powered-By", "header.x-powered-by"),
            ("header.set-cookie", "header.set-cookie.session"),
            ("body", "body"),
            ("body", "body.a"),
            ("status", "status"),
            ("*At", "body.items[].updatedAt"),
            ("größe", "body.items[][\"größe\"]"),
            ("größe", "query.größe"),
            ("e mail", "body[\"e mail\"].home"),
            ("*mail", "body[\"e mail\"]"),
            ("body.größe.e mail", "body[\"größe\"][\"e mail\"]"),
            ("body.items[].größe", "body.items[][\"größe\"]"),
            (
                "body[\"user.name\"].größe",
                "body[\"user.name\"][\"größe\"]",
            ),
            ("body.**.größe", "body.a[\"größe\"]"),
            ("body.**.größe", "body[\"größe\"]"),
            ("**.größe", "body[\"größe\"]"),
        ] {
            assert!(covers(pattern, field), "{pattern} {field}");
        }
        for (pattern, field) in [
            ("body.items[].updatedAt", "body.items[].updatedAtAll"),
            ("body.items[].updatedAt", "body.items"),
            ("body.*.price", "body.a.b.price"),
            ("body.*", "status"),
            ("updatedAt", "body.items[].lastUpdatedAt"),
            ("updatedat", "body.updatedAt"),
            ("body", "bodyguard"),
            ("header.etag", "body.etag"),
            ("größe", "body[\"größer\"]"),
            ("body.größe", "body.größer"),
        ] {
            assert!(!covers(pattern, field), "{pattern} {field}");
        }
        assert!(covers("body[\"a,b\"].c", "body[\"a,b\"].c"));
        for wrong in ["a,b", "body.a,b", "a, body[\"b\"]", "body[\"b\"],c"] {
            let wrong = wrong.parse::<FieldPattern>();
            assert!(matches!(wrong, Err(FieldPatternError::Several(_))));
        }
        for wrong in ["", "  ", "items[].price", "head.etag", "header.", "a.b"] {
            assert!(wrong.parse::<FieldPattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_ignored() {
        let is_of = |text: &str, field: &str, kind| {
            let ignore: Ignore = text.parse().unwrap();
            (ignore.is_of(field, kind), ignore.is_of_all(field))
        };
        for kind in DifferenceKind::ALL {
            let told = format!("body.items ({kind})");
            assert_eq!(is_of(&told, "body.items", kind), (true, false));
            assert_eq!(is_of(&told, "body.items[].tags", kind), (true, false));
            assert_eq!(is_of(&told, "body.item", kind), (false, false));
            assert_eq!(is_of("body.items", "body.items", kind), (true, true));
        }
        let value = DifferenceKind::Value;
        assert_eq!(is_of("tags (order)", "body.tags", value), (false, false));
        assert_eq!(
            is_of("a (b)", "body[\"a (b)\"]", value),
            (true, true),
            "a name"
        );
        assert!("items[].price (value)".parse::<Ignore>().is_err());
    }

    #[test]
    fn paths() {
        let mut path = Path::new("body");
        path.member("items");
        path.elements();
        let mark = path.mark();
        path.member("price");
        assert_eq!(
            (path.as_str(), path.last_name()),
            ("body.items[].price", "price")
        );
        path.back_to(mark);
        assert_eq!((path.as_str(), path.last_name()), ("body.items[]", "items"));
        path.values();
        path.member("a.b\n\u{1b}");
        assert_eq!(path.as_str(), "body.items[]{}[\"a.b\\n\\u{1b}\"]");
        path.member("");
        assert!(path.as_str().ends_with("[\"\"]"));
    }

    proptest! {
        #[test]
        fn every_field_covers_itself(field in "body(\\.[a-z]{1,4}|\\[\\]){0,6}") {
            prop_assert!(covers(&field, &field));
        }

        #[test]
        fn no_pattern_panics(pattern in any::<String>(), field in any::<String>()) {
            if let Ok(pattern) = pattern.parse::<FieldPattern>() {
                let _ = pattern.covers(&field);
            }
        }
    }
}
