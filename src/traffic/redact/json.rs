//! Secrets in JSON: their places in the text, every other byte of which stays.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Edits, Redactor};
use crate::compare::field::Path;
use crate::compare::json::Tree;
use crate::compare::tree;

/// What is to be changed in `content`; `None` for what is not one JSON text, or more than anybody reads.
pub(super) fn edits(redactor: &Redactor, content: &[u8]) -> Option<Edits> {
    Tree::parse(content)?;
    let text = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut walk = Walk {
        redactor,
        begin: content.as_ptr().addr(),
        path: Path::new("body"),
        named: Path::new("body"),
        edits: Edits::default(),
    };
    walk.value(serde_json::from_slice(text).ok()?)?;
    Some(walk.edits)
}

struct Walk<'a> {
    redactor: &'a Redactor,
    /// Where the content begins in memory: its pieces are places in it.
    begin: usize,
    path: Path,
    /// The same with the keys of dictionaries.
    named: Path,
    edits: Edits,
}

impl Walk<'_> {
    /// `None` for what cannot be read.
    fn value(&mut self, value: &RawValue) -> Option<()> {
        let text = value.get();
        let is_covered = |path: &Path| self.redactor.covers(path.as_str());
        if text != "null" && (is_covered(&self.path) || is_covered(&self.named)) {
            let token = self.token(text)?;
            self.replace(text, token);
            return Some(());
        }
        if text.starts_with('[') {
            let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let marks = (self.path.mark(), self.named.mark());
            self.path.elements();
            self.named.elements();
            for element in elements {
                self.value(element)?;
            }
            self.path.back_to(marks.0);
            self.named.back_to(marks.1);
        } else if text.starts_with('{') {
            let Members(members) = serde_json::from_str(text).ok()?;
            let names: BTreeSet<&str> = members.iter().map(|(name, _)| &**name).collect();
            let is_dictionary = tree::is_dictionary(names.len());
            for (name, member) in &members {
                let marks = (self.path.mark(), self.named.mark());
                self.named.member(name);
                if is_dictionary || tree::is_key(name) {
                    self.path.values();
                } else {
                    self.path.member(name);
                }
                self.value(member)?;
                self.path.back_to(marks.0);
                self.named.back_to(marks.1);
            }
        } else if text.starts_with('"')
            && let Tree::Text(content) = Tree::parse(text.as_bytes())?
        {
            if self.redactor.is_text_with_names(&content) {
                self.replace(text, self.redactor.token(content.as_bytes()));
            } else if let Some(link) = self.redactor.link(content.as_bytes()) {
                // Such as that of the next page.
                self.replace(text, link);
            }
        }
        Some(())
    }

    /// Puts `by` in the place of the value that is `text`.
    fn replace(&mut self, text: &str, by: String) {
        let at = text.as_ptr().addr() - self.begin;
        let by = serde_json::Value::from(by).to_string();
        self.edits.replace(at..at + text.len(), by);
    }

    /// A text's token is that of the text itself, as in a header; any other value's is that of the value, however it is spelled.
    fn token(&self, text: &str) -> Option<String> {
        Some(match Tree::parse(text.as_bytes())? {
            Tree::Text(text) => self.redactor.token(text.as_bytes()),
            tree => {
                let mut text = String::new();
                write(&tree, &mut text);
                self.redactor.token(text.as_bytes())
            }
        })
    }
}

/// The members of an object in the order in which they stand there, those of the same name too.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Each)
    }
}

/// Appends a tree as JSON text.
fn write(tree: &Tree<'_>, out: &mut String) {
    match tree {
        Tree::Null => out.push_str("null"),
        Tree::Bool(it) => out.push_str(if *it { "true" } else { "false" }),
        Tree::Number(it) => out.push_str(it),
        Tree::Text(it) => out.push_str(&serde_json::Value::from(it.as_ref()).to_string()),
        Tree::Array(it) => {
            out.push('[');
            for (index, element) in it.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(element, out);
            }
            out.push(']');
        }
        Tree::Object(it) => {
            out.push('{');
            for (index, (name, value)) in it.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::Value::from(name.as_ref()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}
