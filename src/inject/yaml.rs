//! YAML as nodes that know where they are in the text.

use std::collections::HashSet;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::InjectError;

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where it is, in bytes, without the white space around it. A list or mapping in block style begins where its first
    /// entry does, behind the dash if it is one of a list.
    pub(super) place: Range<usize>,
    /// Whether it is in flow style, as JSON is.
    pub(super) is_flow: bool,
    pub(super) value: Value,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Text, and whether it stands without quotes.
    Scalar(String, bool),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// A reference to another node.
    Alias,
}

impl Node {
    /// The value of a mapping's key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The key and value of a mapping's entry.
    pub(super) fn entry(&self, key: &str) -> Option<&(Self, Self)> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        entries.iter().find(|(name, _)| name.text() == Some(key))
    }

    /// The node at the end of a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; none if it is something else.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The item of that name in a list of a mapping.
    pub(super) fn item(&self, list: &str, name: &str) -> Option<(usize, &Self)> {
        let is_it = |item: &Self| item.get("name").and_then(Self::text) == Some(name);
        let items = self.get(list)?.items();
        let index = items.iter().position(is_it)?;
        Some((index, &items[index]))
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(text, true) if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Whether it says yes, in any of the words that Kubernetes takes for that.
    pub(super) fn is_true(&self) -> bool {
        let words = ["true", "yes", "on", "y"];
        self.text()
            .is_some_and(|text| words.contains(&&*text.to_ascii_lowercase()))
    }

    /// What it is, for a person.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            _ if self.is_null() => "null",
            Value::Scalar(..) => "text",
            Value::List(ref items) if items.is_empty() => "an empty list",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Alias => "an alias, which stands for a node elsewhere",
        }
    }
}

/// The root nodes of the documents in `text`.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, InjectError> {
    let mut reader = Reader {
        text,
        parser: Parser::new_from_str(text),
        bytes: text.char_indices().map(|(at, _)| at).collect(),
        depth: 0,
    };
    reader.bytes.push(text.len());
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::DocumentStart(_), _) => {
                let (event, span) = reader.next()?;
                if let Some(node) = reader.node(event, span)? {
                    documents.push(node);
                }
            }
            (Event::StreamEnd, _) => return Ok(documents),
            _ => {}
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// The byte at which each character begins: the parser counts characters.
    bytes: Vec<usize>,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), InjectError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(InjectError::NotYaml {
                line: error.marker().line(),
                detail: error.info().to_owned(),
            }),
            None => Err(InjectError::NotYaml {
                line: self.text.lines().count(),
                detail: "it ends too early".to_owned(),
            }),
        }
    }

    /// The node that begins with `event`; none where a document is empty.
    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Option<Node>, InjectError> {
        let place = self.place(&span);
        if self.depth > DEEPEST {
            return Err(InjectError::NotYaml {
                line: span.start.line(),
                detail: "nodes in nodes in nodes, deeper than any manifest".to_owned(),
            });
        }
        self.depth += 1;
        let node = match event {
            Event::Scalar(text, style, _, _) => Node {
                place: self.trimmed(place),
                is_flow: false,
                value: Value::Scalar(text.into_owned(), style == ScalarStyle::Plain),
            },
            Event::Alias(_) => Node {
                place,
                is_flow: false,
                value: Value::Alias,
            },
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, span) => break self.place(&span).end,
                        (event, span) => items.extend(self.node(event, span)?),
                    }
                };
                let bounds = items.first().zip(items.last());
                let bounds = bounds.map(|(first, last)| first.place.start..last.place.end);
                self.collection(place, end, '[', bounds, Value::List(items))
            }
            Event::MappingStart(..) => {
                let mut entries = Vec::new();
                let mut names = HashSet::new();
                let end = loop {
                    match self.next()? {
                        (Event::MappingEnd, span) => break self.place(&span).end,
                        (event, span) => {
                            let line = span.start.line();
                            let key = self.node(event, span)?;
                            // YAML forbids it, and a cluster would take the last one.
                            if let Some(name) = key.as_ref().and_then(Node::text)
                                && !names.insert(name.to_owned())
                            {
                                return Err(InjectError::NotYaml {
                                    line,
                                    detail: format!(
                                        "the key '{name}' is there twice in one mapping"
                                    ),
                                });
                            }
                            let (event, span) = self.next()?;
                            entries.extend(key.zip(self.node(event, span)?));
                        }
                    }
                };
                let bounds = entries.first().zip(entries.last());
                let bounds = bounds.map(|((first, _), (key, value))| {
                    // Where a value is left out, its place is that of the next token.
                    let last = if value.place.is_empty() { key } else { value };
                    first.place.start..last.place.end
                });
                self.collection(place, end, '{', bounds, Value::Map(entries))
            }
            _ => {
                self.depth -= 1;
                return Ok(None);
            }
        };
        self.depth -= 1;
        Ok(Some(node))
    }

    /// A list or mapping that begins at `place` and ends at `end` if it is in flow style, and has `bounds` if not.
    fn collection(
        &self,
        place: Range<usize>,
        end: usize,
        bracket: char,
        bounds: Option<Range<usize>>,
        value: Value,
    ) -> Node {
        let is_flow = !place.is_empty() && self.text[place.clone()].starts_with(bracket);
        Node {
            place: match bounds {
                Some(bounds) if !is_flow => bounds,
                _ => self.trimmed(place.start..end.max(place.start)),
            },
            is_flow,
            value,
        }
    }

    fn place(&self, span: &Span) -> Range<usize> {
        let byte = |character: usize| {
            let last = self.text.len();
            self.bytes.get(character).copied().unwrap_or(last)
        };
        let start = byte(span.start.index());
        start..byte(span.end.index()).max(start)
    }

    /// Without the white space at its end: a block of text ends where the next token begins.
    fn trimmed(&self, place: Range<usize>) -> Range<usize> {
        let length = self.text[place.clone()].trim_end().len();
        place.start..place.start + length
    }
}

/// Nodes may be nested so deeply.
const DEEPEST: usize = 200;
