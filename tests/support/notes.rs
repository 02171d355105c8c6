//! The explanations of what is left: one line for each capture whose truth is wrong or open, in `docs/conformance-notes.tsv`.

use std::collections::BTreeMap;
use std::fs;

use super::run::in_root;

/// The explanation of each capture that has one.
pub(crate) fn all() -> BTreeMap<String, String> {
    fs::read_to_string(in_root("docs/conformance-notes.tsv"))
        .expect("the notes are there")
        .lines()
        .map(|line| match line.split_once('\t') {
            Some((capture, why)) => (capture.to_owned(), why.to_owned()),
            None => panic!("not a capture, a tab and an explanation: {line}"),
        })
        .collect()
}
