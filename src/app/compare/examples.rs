//! The latest answers that differed, kept for whoever wants to see what a difference looks like.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use serde::{Deserialize, Serialize};

use crate::compare::{Difference, DifferenceKind};
use crate::exchange::{Request, Response};
use crate::report::printable;
use crate::traffic::Redactor;

/// A request and the answers of both versions.
pub(super) struct Pair {
    pub(super) request: Arc<Request>,
    pub(super) v1: Arc<Response>,
    /// `None` when version 2 gave no whole answer.
    pub(super) v2: Option<Arc<Response>>,
    pub(super) differences: Vec<Difference>,
}

impl Pair {
    fn size(&self) -> usize {
        let response = |response: &Response| response.head.bytes().len() + response.body.wire.len();
        self.request.head.bytes().len()
            + self.request.body.wire.len()
            + response(&self.v1)
            + self.v2.as_deref().map_or(0, response)
            + size_of::<Self>()
    }
}

/// The latest pairs for each endpoint, field and kind, as many as the bounds let it keep.
#[derive(Default)]
pub(super) struct Examples {
    by_field: AHashMap<Key, VecDeque<Arc<Pair>>>,
    /// In the order in which they came, with how much memory each takes.
    order: VecDeque<(Key, usize)>,
    bytes: usize,
}

type Key = (Arc<str>, Arc<str>, DifferenceKind);

impl Examples {
    /// Keeps `pair` as an example of each of its differences.
    pub(super) fn keep(&mut self, endpoint: &Arc<str>, pair: Pair) {
        let size = pair.size();
        if size > LARGEST {
            return;
        }
        let pair = Arc::new(pair);
        for difference in &pair.differences {
            let key = (
                Arc::clone(endpoint),
                Arc::clone(&difference.field),
                difference.kind,
            );
            if !self.by_field.contains_key(&key) && self.by_field.len() >= MOST_FIELDS {
                continue;
            }
            self.by_field
                .entry(key.clone())
                .or_default()
                .push_back(Arc::clone(&pair));
            self.order.push_back((key.clone(), size));
            self.bytes += size;
            if self.by_field[&key].len() > EACH {
                self.forget(|(other, _)| *other == key);
            }
        }
        while self.bytes > MOST_BYTES {
            self.forget(|_| true);
        }
    }

    /// Forgets the oldest that is meant.
    fn forget(&mut self, is_meant: impl FnMut(&(Key, usize)) -> bool) {
        let Some(at) = self.order.iter().position(is_meant) else {
            return;
        };
        if let Some((key, size)) = self.order.remove(at) {
            self.bytes -= size;
            if let Some(pairs) = self.by_field.get_mut(&key) {
                pairs.pop_front();
                if pairs.is_empty() {
                    self.by_field.remove(&key);
                }
            }
        }
    }

    /// How many there are of each.
    #[cfg(test)]
    pub(super) fn counts(&self) -> std::collections::BTreeMap<Key, usize> {
        let by_field = self.by_field.iter();
        by_field
            .map(|(key, pairs)| (key.clone(), pairs.len()))
            .collect()
    }

    /// The latest first.
    pub(super) fn of(&self, endpoint: &str, field: &str, kind: DifferenceKind) -> Vec<Arc<Pair>> {
        let key = (endpoint.into(), field.into(), kind);
        let pairs = self.by_field.get(&key).into_iter().flatten();
        pairs.rev().map(Arc::clone).collect()
    }
}

/// An exchange with both answers as it may be shown: secrets are tokens.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// The name of the exchange, 16 hexadecimal digits.
    pub id: String,
    /// When version 1 had all of the request, as RFC 3339 has it.
    pub time: String,
    /// The request line's parts, fields and body.
    pub request: ShownRequest,
    /// Version 1's answer.
    pub v1: ShownResponse,
    /// Version 2's, if there was a whole one.
    pub v2: Option<ShownResponse>,
    /// All that differs between them.
    pub differences: Vec<ShownDifference>,
}

/// A request as it may be shown.
#[derive(Clone, Debug, Serialize)]
pub struct ShownRequest {
    /// `GET`.
    pub method: String,
    /// As it was sent, with the query.
    pub target: String,
    /// Names and values in the order in which they were sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: ShownBody,
}

/// An answer as it may be shown.
#[derive(Clone, Debug, Serialize)]
pub struct ShownResponse {
    /// The status code.
    pub status: u16,
    /// Names and values in the order in which they were sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: ShownBody,
}

/// A body as it may be shown: text, or bytes in base64, its content codings taken off.
#[derive(Clone, Debug, Serialize)]
pub struct ShownBody {
    /// The beginning of it, if it is text.
    pub text: Option<String>,
    /// The beginning of it in base64, if it is not.
    pub base64: Option<String>,
    /// How many bytes there are in all.
    pub length: usize,
    /// Whether the beginning is all.
    pub is_whole: bool,
}

/// A difference as it may be shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownDifference {
    /// `body.items[].price`.
    pub field: String,
    /// In which way.
    pub kind: DifferenceKind,
    /// What version 1 has there, in short.
    pub v1: Option<String>,
    /// What version 2 has there, in short.
    pub v2: Option<String>,
}

impl Example {
    pub(super) fn of(pair: &Pair, redactor: &Redactor) -> Self {
        let request = redactor.request(&pair.request);
        let differences = pair.differences.iter().map(|difference| {
            let shown = redactor.difference(difference);
            ShownDifference {
                field: shown.field.to_string(),
                kind: shown.kind,
                v1: shown.v1,
                v2: shown.v2,
            }
        });
        Self {
            id: request.id.to_string(),
            time: crate::time::rfc3339::format(request.last_byte),
            request: ShownRequest {
                method: printable(request.head.method()),
                target: printable(request.head.target()),
                headers: headers(request.head.fields()),
                body: body(request.head.fields(), &request.body),
            },
            v1: shown(&redactor.response(&pair.v1)),
            v2: pair
                .v2
                .as_ref()
                .map(|response| shown(&redactor.response(response))),
            differences: differences.collect(),
        }
    }
}

fn shown(response: &Response) -> ShownResponse {
    ShownResponse {
        status: response.head.status(),
        headers: headers(response.head.fields()),
        body: body(response.head.fields(), &response.body),
    }
}

fn headers(fields: crate::http1::Fields<'_>) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields
        .iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

fn body(fields: crate::http1::Fields<'_>, body: &crate::http1::Body) -> ShownBody {
    use crate::compare::decode::{Content, content};
    use base64::Engine as _;

    let content = match content(fields, body, LARGEST) {
        Content::Plain(content) | Content::Coded(content) => content,
        Content::TooLarge => body.content(),
    };
    let beginning = &content[..content.len().min(SHOWN)];
    let text = match std::str::from_utf8(beginning) {
        Ok(text) => Some(text.to_owned()),
        // The bound may have cut a character.
        Err(error) if error.error_len().is_none() && beginning.len() < content.len() => {
            Some(String::from_utf8_lossy(&beginning[..error.valid_up_to()]).into_owned())
        }
        Err(_) => None,
    };
    ShownBody {
        base64: text
            .is_none()
            .then(|| base64::engine::general_purpose::STANDARD.encode(beginning)),
        text,
        length: content.len(),
        is_whole: beginning.len() == content.len(),
    }
}

/// So many pairs of each endpoint, field and kind are kept.
const EACH: usize = 3;

/// So many of these there may be.
const MOST_FIELDS: usize = 1000;

/// Larger pairs are not kept.
const LARGEST: usize = 512 << 10;

/// So much memory all of them take; a pair that shows several differences counts once for each.
const MOST_BYTES: usize = 32 << 20;

/// So much of a body is shown.
const SHOWN: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::{answer, request};

    fn pair(fields: &[&str], body: &[u8]) -> Pair {
        let head = "GET /a HTTP/1.1\r\nAuthorization: hunter2\r\n\r\n";
        Pair {
            request: Arc::new(request(head, "")),
            v1: Arc::new(answer(200, "Set-Cookie: a=hunter2\r\n", body)),
            v2: Some(Arc::new(answer(200, "", body))),
            differences: fields
                .iter()
                .map(|field| Difference {
                    field: (*field).into(),
                    named: None,
                    kind: DifferenceKind::Value,
                    v1: Some("1".to_owned()),
                    v2: Some("2".to_owned()),
                })
                .collect(),
        }
    }

    #[test]
    fn the_latest_of_each_field_and_no_secrets() {
        let mut examples = Examples::default();
        let endpoint: Arc<str> = "GET /a".into();
        for index in 0..10u8 {
            examples.keep(&endpoint, pair(&["body.a", "body.b"], &[b'0' + index]));
        }
        let kept = examples.of("GET /a", "body.a", DifferenceKind::Value);
        let bodies: Vec<_> = kept.iter().map(|pair| pair.v1.body.wire[0]).collect();
        assert_eq!(bodies, *b"987");
        assert!(
            examples
                .of("GET /a", "body.a", DifferenceKind::Type)
                .is_empty()
        );
        assert_eq!(examples.order.len(), 6);
        let redactor = Redactor::new([1; 32], Vec::new());
        let json = serde_json::to_string(&Example::of(&kept[0], &redactor)).unwrap();
        assert!(
            !json.contains("hunter2") && json.contains("redacted-"),
            "{json}"
        );
    }

    #[test]
    fn bounded() {
        let mut examples = Examples::default();
        let endpoint: Arc<str> = "GET /a".into();
        for index in 0..3 * MOST_FIELDS {
            examples.keep(
                &endpoint,
                pair(&[&format!("body.f{index}")], &[b'x'; 40_000]),
            );
        }
        assert!(examples.bytes <= MOST_BYTES);
        assert!(examples.by_field.len() <= MOST_FIELDS);
        let kept: usize = examples.by_field.values().map(VecDeque::len).sum();
        assert_eq!(kept, examples.order.len());
        let before = kept;
        examples.keep(&endpoint, pair(&["body.large"], &vec![b'x'; LARGEST]));
        assert_eq!(examples.order.len(), before);
    }

    #[test]
    fn bodies_are_text_or_base64() {
        let shown = |bytes: &[u8]| shown(&answer(200, "", bytes)).body;
        assert_eq!(shown(b"tea").text.as_deref(), Some("tea"));
        assert_eq!(shown(b"\xff\0").base64.as_deref(), Some("/wA="));
        let long = "ü".repeat(SHOWN);
        let cut = shown(long.as_bytes());
        assert!(!cut.is_whole && cut.length == 2 * SHOWN);
        assert!(long.starts_with(cut.text.as_deref().unwrap()));
    }
}
