//! Puts pieces into a manifest and cuts pieces out.

use std::ops::Range;

use super::sidecar::Piece;
use super::yaml::{Node, Value};

/// Edits of one text, by place.
pub(super) struct Edits<'a> {
    text: &'a str,
    newline: &'static str,
    edits: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            newline: if text.contains("\r\n") { "\r\n" } else { "\n" },
            edits: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.edits.len()
    }

    /// The text with all edits done.
    pub(super) fn apply(mut self) -> String {
        // Stable: of several at one place, the first stays first.
        self.edits.sort_by_key(|(place, _)| place.start);
        let mut text = String::new();
        let mut copied = 0;
        for (place, piece) in &self.edits {
            // Neighbours that are both cut out share the comma between them.
            text += &self.text[copied..place.start.max(copied)];
            text += piece;
            copied = place.end.max(copied);
        }
        text + &self.text[copied..]
    }

    /// Sees to it that `piece`, called `name`, is in a list of the mapping `spec`, at its beginning if it is new.
    pub(super) fn ensure(&mut self, spec: &Node, list: &str, name: &str, piece: &Piece) {
        let Some((key, value)) = spec.entry(list) else {
            return self.add_list(spec, list, piece);
        };
        if let Some((_, item)) = spec.item(list, name) {
            if !piece.is_in(item) {
                let text = if item.is_flow {
                    piece.json()
                } else {
                    self.block(&piece.block(self.column(item.place.start)))
                };
                self.edits.push((item.place.clone(), text));
            }
            return;
        }
        match value.items() {
            [] if value.is_flow => self.put(value.place.start + 1, piece.json()),
            [] => {
                // Nothing behind the key, or a null.
                let start = self.behind_colon(key);
                let place = start..value.place.end.max(start);
                let text = if spec.is_flow {
                    format!(" [{}]", piece.json())
                } else {
                    let indent = self.column(key.place.start);
                    self.block(&format!(
                        "\n{}- {}",
                        blanks(indent),
                        piece.block(indent + 2)
                    ))
                };
                self.edits.push((place, text));
            }
            [first, ..] if value.is_flow => {
                let start = value.place.start + 1;
                let space = &self.text[start..first.place.start];
                self.put(start, format!("{space}{},", piece.json()));
            }
            [first, ..] => {
                let dash = self.dash(key, value, 0).unwrap_or(first.place.start);
                let indent = self.column(dash);
                let lines = format!("{}- {}\n", blanks(indent), piece.block(indent + 2));
                let lines = self.block(&lines);
                self.put(self.line_start(dash), lines);
            }
        }
    }

    /// Takes an item out of each of these lists of the mapping `spec`, by its name, and the list with it if that leaves
    /// nothing.
    pub(super) fn remove(&mut self, spec: &Node, those: &[(&str, &str)]) {
        let goes = |key: &Node| {
            those.iter().any(|(list, name)| {
                key.text() == Some(*list)
                    && spec.get(list).map_or(0, |it| it.items().len()) == 1
                    && spec.item(list, name).is_some()
            })
        };
        for (list, name) in those {
            self.remove_one(spec, list, name, &goes);
        }
    }

    fn remove_one(&mut self, spec: &Node, list: &str, name: &str, goes: &dyn Fn(&Node) -> bool) {
        let (Some((key, value)), Some((index, item))) = (spec.entry(list), spec.item(list, name))
        else {
            return;
        };
        let items = value.items();
        let place = match (value.is_flow, items.len()) {
            (true, 1) if spec.is_flow => entry_place(spec, key, value, goes),
            (true, 1) => {
                let behind = &self.text[item.place.end..];
                let comma = behind.trim_start().starts_with(',');
                let comma = comma.then(|| behind.find(',')).flatten();
                item.place.start..comma.map_or(item.place.end, |comma| item.place.end + comma + 1)
            }
            (true, _) if index == 0 => {
                let comma = self.text[item.place.end..].find(',').unwrap_or(0);
                value.place.start + 1..item.place.end + comma + 1
            }
            (true, _) => items[index - 1].place.end..item.place.end,
            (false, 1) => self.lines(key.place.start..value.place.end),
            (false, _) => {
                let dash = self.dash(key, value, index);
                let dash = dash.unwrap_or(item.place.start);
                self.lines(dash..item.place.end)
            }
        };
        self.edits.push((place, String::new()));
    }

    /// Adds a list with one item before the list of containers.
    fn add_list(&mut self, spec: &Node, list: &str, piece: &Piece) {
        let Some((containers, _)) = spec.entry("containers") else {
            return;
        };
        let at = containers.place.start;
        if spec.is_flow {
            let before = self.text[..at].trim_end().len();
            let space = &self.text[before..at];
            self.put(at, format!("\"{list}\": [{}],{space}", piece.json()));
            return;
        }
        let indent = self.column(at);
        let item = piece.block(indent + 2);
        // Behind the key of an enclosing mapping or a dash, the rest of the line is the first entry's.
        if self.text[self.line_start(at)..at].trim().is_empty() {
            let lines = format!("{0}{list}:\n{0}- {item}\n", blanks(indent));
            let lines = self.block(&lines);
            self.put(self.line_start(at), lines);
        } else {
            let lines = format!("{list}:\n{0}- {item}\n{0}", blanks(indent));
            let lines = self.block(&lines);
            self.put(at, lines);
        }
    }

    fn put(&mut self, at: usize, text: String) {
        self.edits.push((at..at, text));
    }

    fn block(&self, text: &str) -> String {
        text.replace('\n', self.newline)
    }

    /// The dash before an item of a list in block style, which is the value of `key`. Comments, anchors and tags may stand
    /// on either side of it.
    fn dash(&self, key: &Node, list: &Node, index: usize) -> Option<usize> {
        let items = list.items();
        let item = items.get(index)?;
        let mut at = match index.checked_sub(1) {
            None => self.behind_colon(key),
            Some(previous) => items[previous].place.end,
        };
        while at < item.place.start {
            let rest = &self.text[at..item.place.start];
            let next = rest.chars().next()?;
            let ends = |is_end: fn(char) -> bool| rest.find(is_end).unwrap_or(rest.len());
            match next {
                '-' if rest[1..].starts_with(char::is_whitespace) => return Some(at),
                '#' => at += ends(|c| c == '\n'),
                '&' | '!' => at += ends(char::is_whitespace),
                // A colon: the last entry of the item before has no value.
                ':' => at += 1,
                _ if next.is_whitespace() => at += next.len_utf8(),
                _ => return None,
            }
        }
        None
    }

    /// Where the value of a mapping's key may begin.
    fn behind_colon(&self, key: &Node) -> usize {
        let colon = self.text[key.place.end..].find(':');
        colon.map_or(key.place.end, |colon| key.place.end + colon + 1)
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// How many characters are before it in its line.
    fn column(&self, at: usize) -> usize {
        self.text[self.line_start(at)..at].chars().count()
    }

    /// The whole lines of a place.
    fn lines(&self, place: Range<usize>) -> Range<usize> {
        let end = self.text[place.end..].find('\n');
        self.line_start(place.start)..end.map_or(self.text.len(), |end| place.end + end + 1)
    }
}

/// An entry of a mapping in flow style, with the comma that goes with it: the one behind it, or of the last the one before. Of
/// entries beside each other that all go, the places overlap.
fn entry_place(
    spec: &Node,
    key: &Node,
    value: &Node,
    goes: &dyn Fn(&Node) -> bool,
) -> Range<usize> {
    let Value::Map(entries) = &spec.value else {
        return key.place.start..value.place.end;
    };
    let starts = |(other, _): &&(Node, Node)| other.place.start > key.place.start;
    let ends = |(other, _): &&(Node, Node)| other.place.start < key.place.start && !goes(other);
    if let Some((next, _)) = entries.iter().find(starts) {
        key.place.start..next.place.start
    } else if let Some((_, previous)) = entries.iter().rev().find(ends) {
        previous.place.end..value.place.end
    } else {
        key.place.start..value.place.end
    }
}

fn blanks(number: usize) -> String {
    " ".repeat(number)
}
