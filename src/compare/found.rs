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
        let is_known = |it: &Difference| it.kind == kind && *it.field == *field;
        if self.differences.iter().any(is_known) || rules.ignores(field) {
            return;
        }
        let (v1, v2) = example();
        self.push(field, kind, v1.map(short), v2.map(short));
    }

    pub(super) fn into_differences(self) -> Vec<Difference> {
        self.differences
    }

    fn push(&mut self, field: &str, kind: DifferenceKind, v1: Option<String>, v2: Option<String>) {
        let is_full = self.differences.len() >= MOST;
        // What goes beyond the bound is still a difference of this request.
        let field = if is_full { OTHER } else { field };
        let is_known = |it: &Difference| it.kind == kind && *it.field == *field;
        if is_full && self.differences.iter().any(is_known) {
            return;
        }
        self.differences.push(Difference {
            field: field.into(),
            kind,
            v1,
            v2,
        });
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
        assert_eq!(&*all[MOST].field, OTHER);
        assert!(
            all.iter()
                .all(|it| it.v1.as_ref().unwrap().len() <= LONGEST + 3)
        );
    }
}
