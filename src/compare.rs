//! How two answers to the same request differ, and at which endpoint.
//!
//! ```text
//!  equal bytes? ─► nothing differs
//!  else: status ─► headers ─► content codings off ─► JSON tree | lines of text | length and digest ─► noise out
//! ```
//!
//! A difference is a field and a kind: `body.items[].price`, `value`. `docs/compare.md` describes what is compared and what
//! is taken for noise.

mod conditional;
pub(crate) mod decode;
mod endpoint;
pub(crate) mod field;
mod found;
mod headers;
pub(crate) mod json;
mod markup;
mod noise;
mod text;
pub(crate) mod tree;

use std::borrow::Cow;
use std::sync::Arc;

use memchr::memmem;
use serde::{Deserialize, Serialize};

pub use endpoint::{Endpoints, Route, RouteError};
pub use field::{FieldPattern, FieldPatternError, Ignore};
pub use headers::Headers;

use self::decode::Content;
use self::found::Found;
use self::json::Tree;
use self::noise::Noise;
use crate::account::Reason;
use crate::exchange::{Request, Response};
use crate::http1::Body;
use crate::traffic::body::is_json;

/// What is compared.
#[derive(Clone, Debug)]
pub struct Rules {
    /// These header fields.
    pub headers: Headers,
    /// Not these fields, nor what is below them.
    pub ignore: Vec<Ignore>,
    /// Bodies of so many bytes at most, their codings taken off.
    pub most_content: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            headers: Headers::default(),
            ignore: Vec::new(),
            most_content: 8 << 20,
        }
    }
}

impl Rules {
    /// Whether nothing in the field is compared.
    fn ignores_all(&self, field: &str) -> bool {
        self.ignore.iter().any(|it| it.is_of_all(field))
    }

    fn ignores(&self, field: &str, kind: DifferenceKind) -> bool {
        self.ignore.iter().any(|it| it.is_of(field, kind))
    }
}

/// In which way a field differs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DifferenceKind {
    /// Version 1 has it, version 2 does not.
    Missing,
    /// Version 2 has it, version 1 does not.
    Extra,
    /// Both have it, as values of different types.
    Type,
    /// Both have it, with different values.
    Value,
    /// Both have the same elements, in a different order.
    Order,
    /// Both have it, with different numbers of elements, lines or bytes.
    Length,
}

impl DifferenceKind {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 6] = [
        Self::Missing,
        Self::Extra,
        Self::Type,
        Self::Value,
        Self::Order,
        Self::Length,
    ];

    /// The stable name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Type => "type",
            Self::Value => "value",
            Self::Order => "order",
            Self::Length => "length",
        }
    }
}

impl std::fmt::Display for DifferenceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A field in which two answers differ, and how. Of one request each pair of field and kind is told once, whatever the
/// number of places in which it occurs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// `status`, `header.content-type`, `body.items[].price`, `body`.
    pub field: Arc<str>,
    /// Where `field` has `{}` for the key of a dictionary: the same field with the keys of the first such place.
    pub named: Option<Box<str>>,
    /// In which way.
    pub kind: DifferenceKind,
    /// What version 1 has at the first such place, cut short; `None` where it has nothing.
    pub v1: Option<String>,
    /// What version 2 has there.
    pub v2: Option<String>,
}

/// How version 2's answer to `request` differs from version 1's, noise taken out.
///
/// Answers whose status codes are of different classes differ in `status` alone: the page that says what went wrong is not
/// another form of what was asked for.
/// Where version 2 answers a conditional request in full because the client has its validators from version 1, nothing is compared.
///
/// # Errors
/// [`Reason::ContentTooLarge`] when a body is too large to be compared.
pub fn differences(
    request: &Request,
    v1: &Response,
    v2: &Response,
    rules: &Rules,
) -> Result<Vec<Difference>, Reason> {
    if are_same_bytes(v1, v2) {
        return Ok(Vec::new());
    }
    differences_by_parts(request, v1, v2, rules)
}

fn differences_by_parts(
    request: &Request,
    v1: &Response,
    v2: &Response,
    rules: &Rules,
) -> Result<Vec<Difference>, Reason> {
    let (one, two) = (v1.head.status(), v2.head.status());
    let mut found = Found::default();
    if one != two && conditional::is_answered_in_full(request, v1, v2) {
        return Ok(Vec::new());
    }
    if one != two {
        found.add("status", DifferenceKind::Value, rules, || {
            (Some(one.to_string()), Some(two.to_string()))
        });
        if one / 100 != two / 100 {
            return Ok(found.into_differences());
        }
    }
    let noise = Noise::new(request, v1, v2);
    headers::differences(v1, v2, &noise, rules, &mut found);
    if !are_same_bodies(v1, v2) {
        bodies(v1, v2, &noise, rules, &mut found)?;
    }
    Ok(found.into_differences())
}

/// Whether two answers are the same, byte for byte: then nothing differs, whatever is compared.
fn are_same_bytes(v1: &Response, v2: &Response) -> bool {
    v1.head.bytes() == v2.head.bytes() && are_framed_alike(&v1.body, &v2.body)
}

fn are_framed_alike(one: &Body, two: &Body) -> bool {
    one.framing == two.framing && one.wire == two.wire
}

/// Whether two answers have the same body, byte for byte and in the same codings: then nothing has to be decoded or parsed
/// to compare them.
#[must_use]
pub fn are_same_bodies(v1: &Response, v2: &Response) -> bool {
    fn codings(response: &Response) -> Option<&[u8]> {
        response.head.fields().get("content-encoding")
    }
    (v1.head.bytes() == v2.head.bytes() || codings(v1) == codings(v2))
        && (are_framed_alike(&v1.body, &v2.body) || v1.body.content() == v2.body.content())
}

fn bodies<'a>(
    v1: &'a Response,
    v2: &'a Response,
    noise: &Noise<'_>,
    rules: &Rules,
    found: &mut Found,
) -> Result<(), Reason> {
    let content = |response: &'a Response| {
        decode::content(response.head.fields(), &response.body, rules.most_content)
    };
    let (one, two) = match (content(v1), content(v2)) {
        (Content::TooLarge, _) | (_, Content::TooLarge) => return Err(Reason::ContentTooLarge),
        (Content::Plain(one), Content::Plain(two)) | (Content::Coded(one), Content::Coded(two)) => {
            (one, two)
        }
        // One of them is damaged, or coded in a way that is not read here.
        (Content::Plain(one) | Content::Coded(one), Content::Plain(two) | Content::Coded(two)) => {
            found.add("body", DifferenceKind::Type, rules, || {
                (Some(text::digest(&one)), Some(text::digest(&two)))
            });
            return Ok(());
        }
    };
    if one == two {
        return Ok(());
    }
    let first_line = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => text.lines().next().unwrap_or_default().to_owned(),
        Err(_) => text::digest(bytes),
    };
    if one.is_empty() || two.is_empty() {
        let (kind, one, two) = if two.is_empty() {
            (DifferenceKind::Missing, Some(first_line(&one)), None)
        } else {
            (DifferenceKind::Extra, None, Some(first_line(&two)))
        };
        found.add("body", kind, rules, || (one, two));
        return Ok(());
    }
    let (one, two) = (without_boundary(v1, one), without_boundary(v2, two));
    match trees((v1, &one), (v2, &two)) {
        (Some(one), Some(two)) => tree::differences(&one, &two, noise, rules, found),
        (None, None) => match (readable(&one), readable(&two)) {
            (Some(one), Some(two)) => text::lines(one, two, noise, rules, found),
            _ => text::bytes(&one, &two, rules, found),
        },
        _ => found.add("body", DifferenceKind::Type, rules, || {
            (Some(first_line(&one)), Some(first_line(&two)))
        }),
    }
    Ok(())
}

/// The trees of two bodies that are JSON. One with a line for each value is a list of these; beside one, another of a single line
/// is too.
fn trees<'a>(
    (v1, one): (&Response, &'a [u8]),
    (v2, two): (&Response, &'a [u8]),
) -> (Option<Tree<'a>>, Option<Tree<'a>>) {
    match (structured(v1, one), structured(v2, two)) {
        (Some(one), None) => match Tree::parse_lines(two) {
            Some(two) => (Some(Tree::Array(vec![one])), Some(two)),
            None => (Some(one), None),
        },
        (None, Some(two)) => match Tree::parse_lines(one) {
            Some(one) => (Some(one), Some(Tree::Array(vec![two]))),
            None => (None, Some(two)),
        },
        (None, None) => match Tree::parse_lines(one).zip(Tree::parse_lines(two)) {
            Some((one, two)) => (Some(one), Some(two)),
            None => (None, None),
        },
        both => both,
    }
}

/// The tree of a JSON text. A text, number or word alone is only taken for one where that is said.
fn structured<'a>(response: &Response, bytes: &'a [u8]) -> Option<Tree<'a>> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace())?;
    // The first byte of a byte order mark.
    if matches!(first, b'{' | b'[' | 0xef) || is_json(response.head.fields()) {
        Tree::parse(bytes)
    } else {
        None
    }
}

/// The parts of a `multipart/` body without the text between them: each answer draws its own.
fn without_boundary<'a>(response: &Response, body: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
    let Some(boundary) = headers::boundary(response.head.fields()) else {
        return body;
    };
    let finder = memmem::Finder::new(&boundary);
    let mut rest = &*body;
    let mut out = Vec::new();
    while let Some(at) = finder.find(rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(b"--");
        rest = &rest[at + boundary.len()..];
    }
    if rest.len() == body.len() {
        return body;
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

fn readable(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!bytes.contains(&0)).then_some(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::exchange::{Completeness, Doubts};
    use crate::http1::{Framing, ResponseHead};
    use crate::time::Timestamp;
    pub(crate) use crate::traffic::tests::request;

    /// A whole answer.
    pub(crate) fn answer(status: u16, fields: &str, body: &[u8]) -> Response {
        let head = format!(
            "HTTP/1.1 {status} X\r\n{fields}Content-Length: {}\r\n\r\n",
            body.len()
        );
        Response {
            first_byte: Timestamp::ZERO,
            last_byte: Timestamp::ZERO,
            interim: Vec::new(),
            head: ResponseHead::parse(Bytes::from(head)).expect("a head"),
            body: Body {
                framing: Framing::Length(body.len() as u64),
                wire: Bytes::copy_from_slice(body),
                missing: 0,
            },
            doubts: Doubts::default(),
            completeness: Completeness::Whole,
        }
    }

    /// An answer that came then.
    pub(crate) fn answer_at(nanos: u64, body: &str) -> Response {
        Response {
            first_byte: Timestamp::from_nanos(nanos),
            last_byte: Timestamp::from_nanos(nanos),
            ..answer(200, "", body.as_bytes())
        }
    }

    fn diff(v1: &Response, v2: &Response) -> Vec<String> {
        let request = request("GET /a HTTP/1.1\r\n\r\n", "");
        differences(&request, v1, v2, &Rules::default())
            .expect("small enough")
            .into_iter()
            .map(|it| format!("{} {}", it.field, it.kind))
            .collect()
    }

    fn bodies(v1: &[u8], v2: &[u8]) -> Vec<String> {
        diff(&answer(200, "", v1), &answer(200, "", v2))
    }

    #[test]
    fn kinds_have_stable_names() {
        for kind in DifferenceKind::ALL {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{}\"", kind.name()));
            assert_eq!(serde_json::from_str::<DifferenceKind>(&json).unwrap(), kind);
        }
    }

    #[test]
    fn status_codes() {
        let html = |status| answer(status, "Content-Type: text/html\r\n", b"<h1>sorry</h1>");
        let json = |status| answer(status, "Content-Type: application/json\r\n", b"{}");
        assert_eq!(diff(&json(200), &html(500)), ["status value"]);
        assert_eq!(diff(&json(200), &json(201)), ["status value"]);
        assert_eq!(
            diff(&json(200), &html(201)),
            ["status value", "header.content-type value", "body type"]
        );
        assert!(diff(&html(500), &html(500)).is_empty());
    }

    #[test]
    fn bodies_of_every_sort() {
        assert!(bodies(b"{\"a\": 1, \"b\": 2}", b"{\"b\":2.0,\"a\":1}").is_empty());
        assert_eq!(bodies(b"{\"a\":1}", b"{\"a\":2}"), ["body.a value"]);
        assert_eq!(bodies(b"{\"a\":1}", b"oops"), ["body type"]);
        assert_eq!(bodies(b"{\"a\":1", b"{\"a\":2"), ["body value"]);
        assert_eq!(bodies(b"one\ntwo", b"one\n2"), ["body value"]);
        assert_eq!(bodies(b"17", b"18"), ["body value"]);
        assert_eq!(bodies(b"17", b"17.0"), ["body value"]);
        assert_eq!(bodies(b"\0\xff", b"\0\xfe"), ["body value"]);
        assert_eq!(bodies(b"\0\xff", b"\0"), ["body length"]);
        assert_eq!(bodies(b"x", b""), ["body missing"]);
        assert_eq!(bodies(b"", b"x"), ["body extra"]);
    }

    #[test]
    fn json_of_one_value_and_of_many() {
        let json = |body: &str| {
            answer(
                200,
                "Content-Type: application/problem+json\r\n",
                body.as_bytes(),
            )
        };
        assert!(diff(&json("17"), &json(" 17.0")).is_empty());
        assert!(diff(&json("\"a\\u00e9\""), &json("\"aé\"")).is_empty());
        assert_eq!(diff(&json("17"), &json("18")), ["body value"]);
        assert_eq!(diff(&json("null"), &json("{}")), ["body type"]);
        assert_eq!(diff(&json("not json"), &json("no json")), ["body value"]);
        assert_eq!(diff(&json("17"), &json("oops")), ["body type"]);
        let lines = |one: &str, two: &str| bodies(one.as_bytes(), two.as_bytes());
        let two = "{\"a\":1,\"b\":2}\n{\"a\":3,\"b\":4}\n";
        assert!(lines(two, "{\"b\":2,\"a\":1}\r\n{\"b\":4,\"a\":3.0}").is_empty());
        assert_eq!(
            lines(two, "{\"a\":1,\"b\":2}\n{\"a\":3,\"b\":5}\n"),
            ["body[].b value"]
        );
        assert_eq!(
            lines(two, "{\"a\":3,\"b\":4}\n{\"a\":1,\"b\":2}\n"),
            ["body order"]
        );
        assert_eq!(lines(two, "{\"a\":1,\"b\":2}\n"), ["body length"]);
        assert_eq!(lines("[1]", "[1]\n[2]\n[3]"), ["body length"]);
        assert_eq!(lines(two, "{\"a\":1,\"b\":2}\noops\n"), ["body value"]);
        assert_eq!(lines("{\"a\":1}", "{\"a\":1}\noops\n"), ["body type"]);
    }

    #[test]
    fn boundaries_are_no_difference() {
        let parts = |boundary: &str, text: &str| {
            let head = format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"; x=1\r\n");
            let body = format!("--{boundary}\r\nX: 1\r\n\r\n{text}\r\n--{boundary}--\r\n");
            answer(200, &head, body.as_bytes())
        };
        assert!(diff(&parts("abc", "hi"), &parts("0123456789", "hi")).is_empty());
        assert_eq!(
            diff(&parts("abc", "hi"), &parts("def", "ho")),
            ["body value"]
        );
        let binary = |boundary| diff(&parts("abc", "\0"), &parts(boundary, "\0\0"));
        assert_eq!(binary("abcdef"), ["body length"]);
    }

    #[test]
    fn codings_are_no_difference() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"{\"a\":1}").unwrap();
        let gzipped = answer(
            200,
            "Content-Encoding: gzip\r\n",
            &encoder.finish().unwrap(),
        );
        let plain = answer(200, "", b"{\"a\":1}");
        assert!(diff(&gzipped, &plain).is_empty());
        assert!(diff(&gzipped, &gzipped).is_empty());
        assert_eq!(
            diff(&gzipped, &answer(200, "", b"{\"a\":2}")),
            ["body.a value"]
        );
        let damaged = answer(200, "Content-Encoding: gzip\r\n", b"{\"a\":1}");
        assert_eq!(diff(&plain, &damaged), ["body type"]);
    }

    #[test]
    fn chunks_are_no_difference() {
        let plain = answer(200, "", b"{\"a\":1}");
        let mut chunked = answer(200, "", b"3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n");
        chunked.body.framing = Framing::Chunked;
        assert!(diff(&plain, &chunked).is_empty());
    }

    #[test]
    fn a_bomb_is_counted_and_not_judged() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..64 {
            encoder.write_all(&[b' '; 1 << 20]).unwrap();
        }
        let bomb = answer(
            200,
            "Content-Encoding: gzip\r\n",
            &encoder.finish().unwrap(),
        );
        let request = request("GET /a HTTP/1.1\r\n\r\n", "");
        let plain = answer(200, "", b"{}");
        let rules = Rules::default();
        for (v1, v2) in [(&bomb, &plain), (&plain, &bomb)] {
            assert_eq!(
                differences(&request, v1, v2, &rules),
                Err(Reason::ContentTooLarge)
            );
        }
    }

    fn anything() -> impl Strategy<Value = Response> {
        let codings = prop_oneof![
            3 => Just(""),
            1 => prop::sample::select(vec![
                "Content-Encoding: gzip\r\n",
                "Content-Encoding: br\r\n",
                "Content-Encoding: zstd\r\n",
                "Content-Encoding: deflate\r\n",
            ]),
        ];
        let body = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[\\[\\]{}\",:0-9a-z ]{0,80}".prop_map(String::into_bytes),
            "([a-c]{0,3}\n){0,6}".prop_map(String::into_bytes),
        ];
        (100u16..600, codings, body)
            .prop_map(|(status, codings, body)| answer(status, codings, &body))
    }

    proptest! {
        #[test]
        fn nothing_differs_from_itself(one in anything()) {
            prop_assert!(diff(&one, &one).is_empty());
        }

        #[test]
        fn the_short_way_finds_what_the_long_way_finds(one in anything(), two in anything(), more in "[ -~]{0,20}") {
            let request = request("GET /a HTTP/1.1\r\n\r\n", "");
            let all = Rules { headers: Headers::new([], true), ..Rules::default() };
            let with_more = answer(one.head.status(), &format!("X-More: {more}\r\n"), &one.body.wire);
            for rules in [Rules::default(), all] {
                for other in [&one, &two, &with_more] {
                    prop_assert_eq!(
                        differences(&request, &one, other, &rules),
                        differences_by_parts(&request, &one, other, &rules)
                    );
                }
            }
        }

        #[test]
        fn nothing_panics_and_each_pair_is_told_once(one in anything(), two in anything()) {
            let found = diff(&one, &two);
            let mut unique = found.clone();
            unique.sort();
            unique.dedup();
            prop_assert_eq!(unique.len(), found.len());
        }

        #[test]
        fn other_bytes_of_text_are_always_found(one in "[a-z]{1,20}(\n[a-z]{1,20}){0,5}", two in "[a-z]{1,20}(\n[a-z]{1,20}){0,5}") {
            prop_assert_eq!(bodies(one.as_bytes(), two.as_bytes()).is_empty(), one == two);
        }
    }
}
