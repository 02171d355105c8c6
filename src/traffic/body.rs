//! What is changed in the body of a request before it is replayed, and how its framing follows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;

use bytes::BytesMut;
use serde_json::value::RawValue;

use super::pattern::RuleError;
use super::rewrite::{Substitution, substitute};
use crate::exchange::Request;
use crate::http1::{Body, Fields, Framing};

/// What is changed, applied in the order of the members.
#[derive(Clone, Debug, Default)]
pub struct BodyRewrite {
    /// In the content, whatever it is.
    pub text: Vec<BodySubstitution>,
    /// In content that is JSON.
    pub json: Vec<JsonMember>,
}

/// It cannot be told what there is to change: the content is encoded, or said to be JSON and is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreadable;

impl BodyRewrite {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.text.is_empty() && self.json.is_empty()
    }

    /// The body as it is to be sent, framed as it was; `None` when it stays as it is. A chunked body that has changed is
    /// one chunk; its trailers stay.
    ///
    /// # Errors
    /// When it has to be left open whether there is something to change.
    pub fn body(&self, request: &Request) -> Result<Option<Body>, Unreadable> {
        let fields = request.head.fields();
        let is_json = is_json(fields);
        if request.body.wire.is_empty()
            || self.text.is_empty() && (self.json.is_empty() || !is_json)
        {
            return Ok(None);
        }
        if is_encoded(fields) {
            return Err(Unreadable);
        }
        let content = request.body.content();
        if content.is_empty() {
            return Ok(None);
        }
        let text = substitute(self.text.iter().map(|it| &it.0), &content);
        let changed = if is_json && !self.json.is_empty() {
            Cow::Owned(
                self.json
                    .iter()
                    .try_fold(text.into_owned(), |json, member| member.set(json))?,
            )
        } else {
            text
        };
        if changed == content {
            return Ok(None);
        }
        let mut wire = BytesMut::with_capacity(changed.len() + 64);
        let framing = match request.body.framing {
            Framing::Chunked => {
                if !changed.is_empty() {
                    wire.extend_from_slice(format!("{:x}\r\n", changed.len()).as_bytes());
                    wire.extend_from_slice(&changed);
                    wire.extend_from_slice(b"\r\n");
                }
                wire.extend_from_slice(b"0\r\n");
                wire.extend_from_slice(request.body.trailers());
                Framing::Chunked
            }
            _ => {
                wire.extend_from_slice(&changed);
                Framing::Length(changed.len() as u64)
            }
        };
        Ok(Some(Body {
            framing,
            wire: wire.freeze(),
            missing: 0,
        }))
    }
}

/// Whether the content is coded in a way that hides it, as by gzip.
fn is_encoded(fields: Fields<'_>) -> bool {
    let is_other = |name: &str, plain: &[u8]| {
        fields
            .elements(name)
            .any(|coding| !coding.eq_ignore_ascii_case(plain))
    };
    is_other("content-encoding", b"identity") || is_other("transfer-encoding", b"chunked")
}

/// Whether the content is said to be JSON: `application/json`, `application/problem+json`, `text/json` …
pub(crate) fn is_json(fields: Fields<'_>) -> bool {
    fields.get("content-type").is_some_and(|value| {
        let end = value.iter().position(|byte| *byte == b';');
        let media = value[..end.unwrap_or(value.len())].trim_ascii();
        let tail = &media[media.len().saturating_sub(4)..];
        tail.eq_ignore_ascii_case(b"json")
    })
}

/// A substitution in a body.
#[derive(Clone, Debug)]
pub struct BodySubstitution(Substitution);

impl FromStr for BodySubstitution {
    type Err = RuleError;

    /// `REGEX=>TEXT`; the text may hold anything.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Substitution::parse(text, |_| true).map(Self)
    }
}

/// A place in a JSON document (RFC 6901) and what is put there.
#[derive(Clone, Debug)]
pub struct JsonMember {
    /// The names on the way; not empty.
    path: Vec<String>,
    /// As it is written into the document.
    value: String,
}

impl FromStr for JsonMember {
    type Err = RuleError;

    /// `/POINTER=JSON`; in the pointer `~1` is a `/` and `~0` a `~`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pointer, value) = text
            .split_once('=')
            .ok_or_else(|| RuleError::new("expected /POINTER=JSON such as /user/id=7"))?;
        let Some(names) = pointer.strip_prefix('/') else {
            return Err(RuleError::new("a pointer begins with '/'"));
        };
        if let Err(error) = serde_json::from_str::<&RawValue>(value) {
            return Err(RuleError(format!(
                "{value:?} is not JSON ({error}); text is written in quotes: {pointer}=\"text\""
            )));
        }
        let unescaped = |name: &str| name.replace("~1", "/").replace("~0", "~");
        Ok(Self {
            path: names.split('/').map(unescaped).collect(),
            value: value.trim().to_owned(),
        })
    }
}

impl JsonMember {
    /// `document` with the value in its place; every other byte stays. An object gets a member that it lacks; where there
    /// is nothing on the way to it, nothing changes.
    fn set(&self, mut document: Vec<u8>) -> Result<Vec<u8>, Unreadable> {
        let (range, text) = match self.place(&document)? {
            Place::There(range) => (range, self.value.clone()),
            Place::Missing { at, is_first } => {
                let name = self.path.last().map_or("", String::as_str);
                let name = serde_json::Value::from(name);
                let comma = if is_first { "" } else { "," };
                (at..at, format!("{comma}{name}:{}", self.value))
            }
            Place::Nowhere => return Ok(document),
        };
        document.splice(range, text.into_bytes());
        Ok(document)
    }

    fn place(&self, document: &[u8]) -> Result<Place, Unreadable> {
        let base = document.as_ptr().addr();
        let range_of = |value: &RawValue| {
            let start = value.get().as_ptr().addr() - base;
            start..start + value.get().len()
        };
        let mut now: &RawValue = serde_json::from_slice(document).map_err(|_| Unreadable)?;
        for (depth, name) in self.path.iter().enumerate() {
            let text = now.get();
            now = if text.starts_with('{') {
                let members: BTreeMap<String, &RawValue> =
                    serde_json::from_str(text).map_err(|_| Unreadable)?;
                match members.get(name) {
                    Some(value) => value,
                    None if depth + 1 == self.path.len() => {
                        let inside = text[..text.len() - 1].trim_end().len();
                        return Ok(Place::Missing {
                            at: range_of(now).start + inside,
                            is_first: members.is_empty(),
                        });
                    }
                    None => return Ok(Place::Nowhere),
                }
            } else if text.starts_with('[') {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Unreadable)?;
                let item = name
                    .parse()
                    .ok()
                    .and_then(|index: usize| items.get(index).copied());
                match item {
                    Some(item) => item,
                    None => return Ok(Place::Nowhere),
                }
            } else {
                return Ok(Place::Nowhere);
            };
        }
        Ok(Place::There(range_of(now)))
    }
}

/// Where a pointer leads to.
enum Place {
    There(Range<usize>),
    /// To no member, but to the object that would have it.
    Missing {
        at: usize,
        is_first: bool,
    },
    Nowhere,
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;

    fn rewrite(text: &[&str], json: &[&str]) -> BodyRewrite {
        BodyRewrite {
            text: text.iter().map(|it| it.parse().expect(it)).collect(),
            json: json.iter().map(|it| it.parse().expect(it)).collect(),
        }
    }

    fn rewritten(
        rewrite: &BodyRewrite,
        fields: &str,
        body: &str,
    ) -> Result<Option<String>, Unreadable> {
        let head = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        let body = rewrite.body(&request(&head, body))?;
        Ok(body.map(|body| String::from_utf8(body.wire.to_vec()).expect("text")))
    }

    const LENGTH: &str = "Content-Length: 1";
    const JSON: &str = "Content-Length: 1\r\nContent-Type: application/vnd.x+JSON; charset=utf-8";

    #[test]
    fn text_is_replaced_with_captures() {
        for (rules, body, expected) in [
            (
                &["(?i)user=(\\w+)=>user=x-$1"][..],
                "USER=a&user=b",
                Some("user=x-a&user=x-b"),
            ),
            (&["a=>b", "b+=>c\n"], "aab", Some("c\n")),
            (&["(?s-u)\\x00.*=>"], "ab\0cd", Some("ab")),
            (&["x=>y"], "ab", None),
            (&["a=>a"], "ab", None),
        ] {
            let found = rewritten(&rewrite(rules, &[]), LENGTH, body);
            assert_eq!(found, Ok(expected.map(str::to_owned)), "{rules:?}");
        }
    }

    #[test]
    fn a_chunked_body_becomes_one_chunk_and_keeps_its_trailers() {
        let rules = rewrite(&["bc=>x", "^d*$=>"], &[]);
        let with = |body| rewritten(&rules, "Transfer-Encoding: chunked", body);
        assert_eq!(
            with("2;e=1\r\nab\r\n1\r\nc\r\n0\r\nX-T: 1\r\n\r\n"),
            Ok(Some("2\r\nax\r\n0\r\nX-T: 1\r\n\r\n".to_owned()))
        );
        assert_eq!(
            with("1\r\nd\r\n0\r\n\r\n"),
            Ok(Some("0\r\n\r\n".to_owned()))
        );
        assert_eq!(with("1\r\ne\r\n0\r\n\r\n"), Ok(None));
        assert_eq!(with("0\r\n\r\n"), Ok(None));
    }

    #[test]
    fn members_are_set_and_the_other_bytes_stay() {
        for (member, body, expected) in [
            (
                "/user/id=7",
                r#"{ "user" : {"id":"a", "x":1.50 } }"#,
                Some(r#"{ "user" : {"id":7, "x":1.50 } }"#),
            ),
            ("/a={\"b\":[]}", r#"{"a":null}"#, Some(r#"{"a":{"b":[]}}"#)),
            ("/a/1=true", "[] ", None),
            (
                "/a/1=true",
                r#"{"a":[1, 2 ,3]}"#,
                Some(r#"{"a":[1, true ,3]}"#),
            ),
            ("/a/3=true", r#"{"a":[1,2,3]}"#, None),
            ("/a/x=true", r#"{"a":[1,2,3]}"#, None),
            ("/0/b=\"é\"", r#"[{"b":"x"}]"#, Some(r#"[{"b":"é"}]"#)),
            ("/b=1", "{\"a\":2 \n}", Some("{\"a\":2,\"b\":1 \n}")),
            ("/b=1", "{ }", Some("{\"b\":1 }")),
            ("/b/c=1", "{}", None),
            ("/b/c=1", r#"{"b":5}"#, None),
            ("/a~1b~0=1", r#"{"a/b~":2}"#, Some(r#"{"a/b~":1}"#)),
            ("/\"=1", "{}", Some(r#"{"\"":1}"#)),
            ("/=1", r#"{"":2}"#, Some(r#"{"":1}"#)),
            ("/a=1", r#"{"\u0061":2}"#, Some(r#"{"\u0061":1}"#)),
            // The last of one name is the one that nearly every reader takes.
            ("/a=1", r#"{"a":2,"a":3}"#, Some(r#"{"a":2,"a":1}"#)),
            (
                "/a=12345678901234567890.10",
                r#"{"a":2}"#,
                Some(r#"{"a":12345678901234567890.10}"#),
            ),
        ] {
            let found = rewritten(&rewrite(&[], &[member]), JSON, body);
            assert_eq!(found, Ok(expected.map(str::to_owned)), "{member} {body}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_sent_as_if_it_had_been() {
        let json = rewrite(&[], &["/a=1"]);
        let text = rewrite(&["a=>b"], &[]);
        for (rules, fields, body, expected) in [
            (&json, JSON, "{\"a\":", Err(Unreadable)),
            (&json, JSON, "{\"a\":2} x", Err(Unreadable)),
            (&json, JSON, "{\"\u{7f}\":2}", Ok(true)),
            (
                &json,
                "Content-Length: 1\r\nContent-Type: text/plain",
                "{\"a\":",
                Ok(false),
            ),
            (
                &json,
                "Content-Length: 1\r\nContent-Type: text/plain\r\nContent-Encoding: gzip",
                "x",
                Ok(false),
            ),
            (
                &json,
                "Content-Length: 0\r\nContent-Type: text/json",
                "",
                Ok(false),
            ),
            (
                &text,
                "Content-Length: 1\r\nContent-Encoding: gzip",
                "x",
                Err(Unreadable),
            ),
            (
                &text,
                "Content-Length: 1\r\nContent-Encoding: Identity",
                "a",
                Ok(true),
            ),
            (
                &text,
                "Transfer-Encoding: gzip, chunked",
                "1\r\na\r\n0\r\n\r\n",
                Err(Unreadable),
            ),
        ] {
            let found = rewritten(rules, fields, body).map(|body| body.is_some());
            assert_eq!(found, expected, "{fields} {body}");
        }
    }

    #[test]
    fn wrong_rules_say_what_is_wrong() {
        for (text, words) in [
            ("/a", "/POINTER=JSON"),
            ("a=1", "begins with '/'"),
            ("=1", "begins with '/'"),
            ("/a=text", "/a=\"text\""),
            ("/a=", "is not JSON"),
        ] {
            let error = text.parse::<JsonMember>().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!("(=>x".parse::<BodySubstitution>().is_err());
        assert!("a=>$1".parse::<BodySubstitution>().is_err());
    }

    #[test]
    fn bytes_that_are_no_text_are_no_json() {
        let mut broken = request(&format!("POST / HTTP/1.1\r\n{JSON}\r\n\r\n"), "{}");
        broken.body.wire = bytes::Bytes::from_static(b"{\"a\":\"\xff\"}");
        let rules = rewrite(&[], &["/a=1"]);
        assert_eq!(rules.body(&broken), Err(Unreadable));
    }
}
