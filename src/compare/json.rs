//! JSON (RFC 8259) as a tree that borrows from its text.
//!
//! It accepts what serde_json accepts, and numbers of any size besides. Unlike there a number stays the text that it was, so
//! that no digit is lost before it is compared.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// A JSON value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Tree<'a> {
    Null,
    Bool(bool),
    /// As it was written; the grammar was checked.
    Number(&'a str),
    Text(Cow<'a, str>),
    Array(Vec<Self>),
    /// By name; of members with the same name the last one (RFC 8259 §4 leaves that open, most parsers do so).
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl<'a> Tree<'a> {
    /// Parses a whole text; `None` for what is not JSON, and for what is nested deeper or has more values than anybody reads.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let mut parser = Parser::new(text)?;
        let tree = parser.value(0)?;
        parser.blanks();
        parser.is_at_end().then_some(tree)
    }

    /// The same for a text of several objects or arrays behind each other, mostly with a line for each: an array of them.
    pub(crate) fn parse_lines(text: &'a [u8]) -> Option<Self> {
        let mut parser = Parser::new(text)?;
        let mut values = Vec::new();
        loop {
            parser.blanks();
            if parser.is_at_end() {
                return (!values.is_empty()).then_some(Self::Array(values));
            }
            if !matches!(parser.peek(), Some(b'{' | b'[')) {
                return None;
            }
            values.push(parser.value(1)?);
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    values: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a [u8]) -> Option<Self> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Some(Self {
            text: std::str::from_utf8(text).ok()?,
            at: 0,
            values: 0,
        })
    }

    fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Option<Tree<'a>> {
        self.values += 1;
        if depth > DEEPEST || self.values > MOST_VALUES {
            return None;
        }
        self.blanks();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Tree::Text),
            b't' => self.word("true", Tree::Bool(true)),
            b'f' => self.word("false", Tree::Bool(false)),
            b'n' => self.word("null", Tree::Null),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str, tree: Tree<'a>) -> Option<Tree<'a>> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            tree
        })
    }

    fn object(&mut self, depth: usize) -> Option<Tree<'a>> {
        self.take(b'{')?;
        let mut members: Vec<(Cow<'a, str>, Tree<'a>)> = Vec::new();
        let mut is_sorted = true;
        self.blanks();
        if self.take(b'}').is_some() {
            return Some(Tree::Object(members));
        }
        loop {
            self.blanks();
            let name = self.string()?;
            self.blanks();
            self.take(b':')?;
            let value = self.value(depth + 1)?;
            is_sorted &= members.last().is_none_or(|(before, _)| *before < name);
            members.push((name, value));
            self.blanks();
            if self.take(b'}').is_some() {
                break;
            }
            self.take(b',')?;
        }
        if !is_sorted {
            // Stable, so that of equal names the last one comes first when read backwards.
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            members.reverse();
            members.dedup_by(|(a, _), (b, _)| a == b);
            members.reverse();
        }
        Some(Tree::Object(members))
    }

    fn array(&mut self, depth: usize) -> Option<Tree<'a>> {
        self.take(b'[')?;
        let mut elements = Vec::new();
        self.blanks();
        if self.take(b']').is_some() {
            return Some(Tree::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            self.blanks();
            if self.take(b']').is_some() {
                return Some(Tree::Array(elements));
            }
            self.take(b',')?;
        }
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.take(b'"')?;
        let begin = self.at;
        let mut owned: Option<String> = None;
        let mut run = begin;
        loop {
            match self.peek()? {
                b'"' => {
                    let rest = &self.text[run..self.at];
                    self.at += 1;
                    return Some(match owned {
                        None => Cow::Borrowed(rest),
                        Some(mut text) => {
                            text.push_str(rest);
                            Cow::Owned(text)
                        }
                    });
                }
                b'\\' => {
                    let text = owned.get_or_insert_default();
                    text.push_str(&self.text[run..self.at]);
                    self.at += 1;
                    let escaped = self.escape()?;
                    owned.get_or_insert_default().push(escaped);
                    run = self.at;
                }
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let byte = self.peek()?;
        self.at += 1;
        Some(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex4()?;
                let code = match unit {
                    0xd800..0xdc00 => {
                        self.take(b'\\')?;
                        self.take(b'u')?;
                        let low = self.hex4()?;
                        if !(0xdc00..0xe000).contains(&low) {
                            return None;
                        }
                        0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                    }
                    unit => unit,
                };
                char::from_u32(code)?
            }
            _ => return None,
        })
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |code, &digit| {
            Some(code * 16 + char::from(digit).to_digit(16)?)
        })
    }

    fn number(&mut self) -> Option<Tree<'a>> {
        let begin = self.at;
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(Tree::Number(&self.text[begin..self.at]))
    }

    fn digits(&mut self) -> Option<()> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > begin).then_some(())
    }
}

/// Whether two JSON numbers are the same number: `1`, `1.0` and `10e-1` are, and no digit is rounded away.
pub(crate) fn is_same_number(a: &str, b: &str) -> bool {
    a == b || Decimal::of(a) == Decimal::of(b)
}

/// A decimal number without zeros at its ends: ±0.DIGITS × 10^scale. Zero has no digits, no sign and scale 0.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    scale: i128,
}

impl Decimal {
    /// The value of a number that keeps the grammar of JSON.
    pub(crate) fn of(number: &str) -> Self {
        let (is_negative, number) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number),
        };
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        // An exponent that does not fit in 64 bits means nothing to anybody.
        let exponent = exponent.parse::<i64>().unwrap_or({
            match exponent.as_bytes().first().cmp(&Some(&b'-')) {
                Ordering::Equal => i64::MIN,
                _ => i64::MAX,
            }
        });
        let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let leading = all.iter().take_while(|&&digit| digit == b'0').count();
        let trailing = all.iter().rev().take_while(|&&digit| digit == b'0').count();
        if leading == all.len() {
            return Self {
                is_negative: false,
                digits: Vec::new(),
                scale: 0,
            };
        }
        Self {
            is_negative,
            digits: all[leading..all.len() - trailing].to_vec(),
            scale: i128::from(exponent) + whole.len() as i128 - leading as i128,
        }
    }
}

/// Equal numbers give equal texts; whole ones without a point, up to 20 digits.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("0");
        }
        if self.is_negative {
            f.write_str("-")?;
        }
        let digits = String::from_utf8_lossy(&self.digits);
        match usize::try_from(self.scale) {
            Ok(scale @ 1..=20) if scale >= digits.len() => {
                write!(f, "{digits}{}", "0".repeat(scale - digits.len()))
            }
            Ok(scale @ 1..=20) => write!(f, "{}.{}", &digits[..scale], &digits[scale..]),
            _ => write!(f, "0.{digits}e{}", self.scale),
        }
    }
}

/// How deep values may be nested; serde_json has the same bound.
const DEEPEST: usize = 127;

/// How many values there may be: bounds the memory that a small text of many brackets takes.
const MOST_VALUES: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn as_value(tree: &Tree<'_>) -> Value {
        match tree {
            Tree::Null => Value::Null,
            Tree::Bool(it) => Value::Bool(*it),
            Tree::Number(it) => serde_json::from_str(it).expect("a number in range"),
            Tree::Text(it) => Value::String(it.to_string()),
            Tree::Array(it) => it.iter().map(as_value).collect(),
            Tree::Object(it) => it
                .iter()
                .map(|(name, value)| (name.to_string(), as_value(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    fn agrees(text: &str) {
        let theirs: Option<Value> = serde_json::from_str(text).ok();
        let ours = Tree::parse(text.as_bytes());
        assert_eq!(ours.as_ref().map(as_value), theirs, "{text:?}");
    }

    #[test]
    fn agrees_with_serde_json() {
        for text in [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "1.5e3",
            "01",
            "1.",
            ".5",
            "-",
            "+1",
            "1e",
            "nul",
            "truee",
            "\"\"",
            "\"a\\n\\u00e9\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\udc00\"",
            "\"\\ud83d\\u0041\"",
            "\"\\x\"",
            "\"\u{7f}\"",
            "\"\n\"",
            "\"",
            "[]",
            "[1,]",
            "[,]",
            "[1 2]",
            "{}",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\" 1}",
            "{\"b\":1,\"a\":2,\"b\":3}",
            "{\"a\":1,\"a\":{\"x\":2}}",
            " [ 1 , 2 ] ",
            "[1] x",
            "",
            " ",
            "[[[[]]]]",
            "\"\\u12\"",
            "\"\\u00zz\"",
            "\u{feff}1x",
        ] {
            agrees(text);
        }
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        agrees(&nested(127));
        assert!(Tree::parse(nested(200).as_bytes()).is_none());
        assert!(Tree::parse(&[b'['; 1 << 20]).is_none());
        assert!(Tree::parse(b"\"\xff\"").is_none());
        assert!(Tree::parse(format!("[{}1]", "1,".repeat(MOST_VALUES)).as_bytes()).is_none());
    }

    #[test]
    fn numbers_are_equal_by_value() {
        for (a, b) in [
            ("1", "1.0"),
            ("1", "10e-1"),
            ("0", "-0.0"),
            ("0", "0e999999999999999999999"),
            ("1200", "1.2e3"),
            ("0.001", "1E-3"),
            ("-5", "-5.00"),
        ] {
            assert!(is_same_number(a, b), "{a} {b}");
            assert_eq!(Decimal::of(a).to_string(), Decimal::of(b).to_string());
        }
        for (a, b) in [
            ("1", "-1"),
            ("1", "10"),
            ("0.1", "0.01"),
            ("0.1", "0.10000000000000000001"),
            ("12345678901234567890123", "12345678901234567890124"),
            ("1e400", "1e401"),
        ] {
            assert!(!is_same_number(a, b), "{a} {b}");
            assert_ne!(Decimal::of(a).to_string(), Decimal::of(b).to_string());
        }
        for (number, text) in [
            ("1.50e2", "150"),
            ("-0.10", "-0.1e0"),
            ("12.5", "12.5"),
            ("1e30", "0.1e31"),
        ] {
            assert_eq!(Decimal::of(number).to_string(), text);
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_serde_json_writes(value in json()) {
            agrees(&value.to_string());
            agrees(&serde_json::to_string_pretty(&value).unwrap());
        }

        #[test]
        fn whatever_anybody_writes(text in "[\\[\\]{}\",:0-9eE.+\\-tfnrualse\\\\ ]{0,40}") {
            // Only there a number may be out of range.
            if serde_json::from_str::<Value>(&text).is_ok() || Tree::parse(text.as_bytes()).is_none() {
                agrees(&text);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Tree::parse(&bytes);
        }

        #[test]
        fn doubles_agree(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(a.is_finite() && b.is_finite());
            prop_assert_eq!(is_same_number(&a.to_string(), &b.to_string()), a == b);
            let scientific = format!("{a:e}");
            prop_assert!(is_same_number(&scientific, &a.to_string()));
        }
    }
}
