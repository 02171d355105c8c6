//! An outgoing call as the mock compares it: what it says, and the same without what differs from run to run.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::noise::{self, Ignored};
use crate::compare::json::Decimal;
use crate::exchange::Request;
use crate::http1::Fields;

/// Two calls with the same digest say the same.
pub type Digest = [u8; 16];

/// An outgoing call, of version 1 or of version 2.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: String,
    /// The host in lower case, without the port that the scheme means anyway.
    pub host: String,
    /// The path as sent, without the query.
    pub path: String,
    /// Name and value of each parameter of the query, sorted: order means nothing.
    pub query: Vec<(String, String)>,
    /// The body's content.
    pub body: Bytes,
    /// The trace that it belongs to, if it says so.
    pub trace: Option<Arc<str>>,
    /// `POST payment /charges/{id}`.
    pub endpoint: Arc<str>,
    /// What it is found by.
    pub keys: Keys,
    leaves: BTreeMap<String, String>,
}

/// What a call is found by, from the strictest to the loosest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keys {
    /// Every byte, but for the order of the query.
    pub exact: Digest,
    /// JSON and form bodies by their values, without noise.
    pub plain: Digest,
    /// That, without ids.
    pub masked: Digest,
    /// Method, host, and the path without ids.
    pub endpoint: Digest,
}

/// A value in which two calls differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Differing {
    /// `path`, `query.page`, `body.order.amount`, `body`.
    pub place: String,
    /// What the first has there, cut short.
    pub ours: Option<String>,
    /// What the second has there.
    pub theirs: Option<String>,
    /// Whether it means something, rather than being a value that is made anew each time.
    pub matters: bool,
}

impl Call {
    /// A captured request as a call.
    #[must_use]
    pub fn of_request(request: &Request, ignored: &Ignored) -> Self {
        let fields = request.head.fields();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let host = fields.get("host").map(text).unwrap_or_default();
        let body = match request.body.content() {
            std::borrow::Cow::Borrowed(_) => request.body.wire.clone(),
            std::borrow::Cow::Owned(content) => content.into(),
        };
        Self::new(
            &text(request.head.method()),
            &host,
            &text(request.head.target()),
            body,
            trace_id(fields),
            ignored,
        )
    }

    /// A call made of its parts; of a target in absolute form, the host is the one that counts (RFC 9112 §3.2.2).
    #[must_use]
    pub fn new(
        method: &str,
        host: &str,
        target: &str,
        body: Bytes,
        trace: Option<Arc<str>>,
        ignored: &Ignored,
    ) -> Self {
        let (host, target) = match target.split_once("://") {
            Some((_, rest)) if !target.starts_with('/') => {
                let slash = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, target) = rest.split_at(slash);
                (authority, if target.is_empty() { "/" } else { target })
            }
            _ => (host, target),
        };
        let host = plain_host(host);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut query = pairs(query);
        query.sort();
        let leaves = leaves(&body);
        let endpoint = format!("{method} {host} {}", noise::masked_path(path));
        let line = |path: &str| format!("{method}\n{host}\n{path}\n");
        let exact = {
            let mut hash = Hash::of(&line(path));
            for (name, value) in &query {
                hash.pair(name, value);
            }
            hash.bytes(&body);
            hash.end()
        };
        let of_values = |path: &str, keeps: &dyn Fn(&str, &str) -> Option<String>| {
            let mut hash = Hash::of(&line(path));
            for (name, value) in &query {
                if let Some(value) = keeps(name, value) {
                    hash.pair(name, &value);
                }
            }
            match &leaves {
                Some(leaves) => {
                    for (place, value) in leaves {
                        if let Some(value) = keeps(last_name(place), value) {
                            hash.pair(place, &value);
                        }
                    }
                }
                None => hash.bytes(&body),
            }
            hash.end()
        };
        let plain = of_values(path, &|name, value| {
            (!ignored.is_noise(name, value)).then(|| value.to_owned())
        });
        let masked = of_values(&noise::masked_path(path), &|name, value| {
            let is_id = noise::is_id(name, value);
            (!ignored.is_noise(name, value)).then(|| {
                if is_id {
                    String::new()
                } else {
                    value.to_owned()
                }
            })
        });
        Self {
            keys: Keys {
                exact,
                plain,
                masked,
                endpoint: Hash::of(&endpoint).end(),
            },
            method: method.to_owned(),
            host,
            path: path.to_owned(),
            query,
            body,
            trace,
            endpoint: endpoint.into(),
            leaves: leaves.unwrap_or_default(),
        }
    }

    /// Whether the method promises to change nothing (RFC 9110 §9.2.1).
    #[must_use]
    pub fn is_safe(&self) -> bool {
        is_safe(&self.method)
    }

    /// About what it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        let pairs = |(a, b): (&String, &String)| a.len() + b.len() + 2 * size_of::<String>();
        let query: usize = self.query.iter().map(|(a, b)| pairs((a, b))).sum();
        let leaves: usize = self.leaves.iter().map(pairs).sum();
        size_of::<Self>() + self.host.len() + self.path.len() + self.body.len() + query + leaves
    }

    /// The values in which this call differs from `other`, noise left out.
    #[must_use]
    pub fn differences(&self, other: &Self, ignored: &Ignored) -> Vec<Differing> {
        let mut found = Vec::new();
        let mut differ = |place: String, name: &str, ours: Option<&str>, theirs: Option<&str>| {
            if ours == theirs
                || ours
                    .or(theirs)
                    .is_some_and(|value| ignored.is_noise(name, value))
            {
                return;
            }
            let made_anew = |value: Option<&str>| value.is_some_and(noise::is_made_anew);
            found.push(Differing {
                place,
                ours: ours.map(short),
                theirs: theirs.map(short),
                matters: !(made_anew(ours) && made_anew(theirs)),
            });
        };
        let parts = [
            ("method", &self.method, &other.method),
            ("host", &self.host, &other.host),
            ("path", &self.path, &other.path),
        ];
        for (place, ours, theirs) in parts {
            differ(place.to_owned(), "", Some(ours), Some(theirs));
        }
        let query = |call: &Self| {
            let mut map: BTreeMap<String, String> = BTreeMap::new();
            for (name, value) in &call.query {
                let values = map.entry(name.clone()).or_default();
                if !values.is_empty() {
                    values.push(',');
                }
                values.push_str(value);
            }
            map
        };
        for (prefix, ours, theirs) in [
            ("query.", &query(self), &query(other)),
            ("", &self.leaves, &other.leaves),
        ] {
            let both = ours
                .keys()
                .chain(theirs.keys().filter(|key| !ours.contains_key(*key)));
            for place in both {
                differ(
                    format!("{prefix}{place}"),
                    last_name(place),
                    ours.get(place).map(String::as_str),
                    theirs.get(place).map(String::as_str),
                );
            }
        }
        if (self.leaves.is_empty() || other.leaves.is_empty()) && self.body != other.body {
            let text = |body: &Bytes| short(&String::from_utf8_lossy(body));
            found.push(Differing {
                place: "body".to_owned(),
                ours: Some(text(&self.body)),
                theirs: Some(text(&other.body)),
                matters: true,
            });
        }
        found
    }
}

/// Whether a method promises to change nothing.
#[must_use]
pub fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// The id that joins a call to the exchange that caused it: of W3C Trace Context, of B3, or `X-Request-Id`.
#[must_use]
pub fn trace_id(fields: Fields<'_>) -> Option<Arc<str>> {
    let text = |name: &str| {
        let value = std::str::from_utf8(fields.get(name)?.trim_ascii()).ok()?;
        (!value.is_empty() && value.len() <= 128).then_some(value)
    };
    let w3c = || text("traceparent")?.get(3..35);
    let b3 = || text("x-b3-traceid").or_else(|| text("b3")?.split('-').next());
    let request = || text("x-request-id");
    w3c()
        .or_else(b3)
        .or_else(request)
        .map(|id| id.to_ascii_lowercase().into())
}

/// The host as calls are told apart by it.
#[must_use]
pub fn plain_host(host: &str) -> String {
    let host = host.trim().to_ascii_lowercase();
    match host.strip_suffix(":80") {
        Some(name) => name.to_owned(),
        None => host,
    }
}

/// The values in a JSON or form body, by their places; none for another body.
fn leaves(body: &[u8]) -> Option<BTreeMap<String, String>> {
    let trimmed = body.trim_ascii();
    let mut leaves = BTreeMap::new();
    match trimmed.first()? {
        b'{' | b'[' => {
            let value: Value = serde_json::from_slice(trimmed).ok()?;
            collect(&value, "body".to_owned(), &mut leaves);
        }
        _ => {
            let text = std::str::from_utf8(trimmed).ok()?;
            let is_form = text.contains('=') && !text.contains(char::is_whitespace);
            if !is_form || text.contains(['<', '>', '{', '"']) {
                return None;
            }
            for (at, (name, value)) in pairs(text).into_iter().enumerate() {
                leaves
                    .entry(format!("body.{name}"))
                    .and_modify(|held: &mut String| {
                        *held = format!("{held},{at}:{value}");
                    })
                    .or_insert(value);
            }
        }
    }
    Some(leaves)
}

fn collect(value: &Value, place: String, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                collect(member, format!("{place}.{name}"), leaves);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                collect(item, format!("{place}[{at}]"), leaves);
            }
        }
        Value::String(text) => {
            leaves.insert(place, text.clone());
        }
        // A number and the same digits in a string are not the same; a noted type tells them apart.
        Value::Number(number) => {
            let number = Decimal::of(&number.to_string());
            leaves.insert(place, format!("\u{1}{number}"));
        }
        other => {
            leaves.insert(place, format!("\u{1}{other}"));
        }
    }
}

/// The name behind the last dot, without indices: `amount` of `body.items[3].amount`.
fn last_name(place: &str) -> &str {
    let name = place.rsplit('.').next().unwrap_or(place);
    name.split('[').next().unwrap_or(name)
}

fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

/// A value as it is shown: a note about its type taken off, and cut.
fn short(value: &str) -> String {
    let value = value.strip_prefix('\u{1}').unwrap_or(value);
    let mut text: String = value.chars().take(60).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    text
}

struct Hash(Sha256);

impl Hash {
    fn of(text: &str) -> Self {
        let mut hash = Self(Sha256::new());
        hash.bytes(text.as_bytes());
        hash
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // With its length, so that no two lists of pieces make the same stream.
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn pair(&mut self, name: &str, value: &str) {
        self.bytes(name.as_bytes());
        self.bytes(value.as_bytes());
    }

    fn end(self) -> Digest {
        let whole = self.0.finalize();
        let mut digest = Digest::default();
        digest.copy_from_slice(&whole[..16]);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, target: &str, body: &str) -> Call {
        Call::new(
            method,
            "Payment:80",
            target,
            Bytes::copy_from_slice(body.as_bytes()),
            None,
            &Ignored::default(),
        )
    }

    #[test]
    fn keys_tell_apart_what_each_level_should() {
        let base = call(
            "POST",
            "/charges?a=1&b=2",
            r#"{"order_id":17,"amount":100}"#,
        );
        // Whether it has the same exact, plain and masked key.
        for (other, same) in [
            (
                call(
                    "POST",
                    "/charges?b=2&a=1",
                    r#"{"order_id":17,"amount":100}"#,
                ),
                [true, true, true],
            ),
            (
                call(
                    "POST",
                    "http://payment/charges?b=2&a=1",
                    r#"{"order_id":17,"amount":100}"#,
                ),
                [true, true, true],
            ),
            (
                call(
                    "POST",
                    "/charges?a=1&b=2",
                    r#"{ "amount": 100, "order_id": 17 }"#,
                ),
                [false, true, true],
            ),
            (
                call(
                    "POST",
                    "/charges?a=1&b=2",
                    r#"{"order_id":17,"amount":100,"created_at":"2026-01-02T03:04:05Z"}"#,
                ),
                [false, true, true],
            ),
            (
                call(
                    "POST",
                    "/charges?a=1&b=2",
                    r#"{"order_id":17,"amount":1.000e2}"#,
                ),
                [false, true, true],
            ),
            (
                call(
                    "POST",
                    "/charges?a=1&b=2",
                    r#"{"order_id":18,"amount":100}"#,
                ),
                [false, false, true],
            ),
            (
                call(
                    "POST",
                    "/charges?a=1&b=2",
                    r#"{"order_id":17,"amount":101}"#,
                ),
                [false, false, false],
            ),
            (
                call(
                    "POST",
                    "/charges?a=1&b=2",
                    r#"{"order_id":17,"amount":"100"}"#,
                ),
                [false, false, false],
            ),
            (
                call("POST", "/charges?a=1", r#"{"order_id":17,"amount":100}"#),
                [false, false, false],
            ),
            (
                call("PUT", "/charges?a=1&b=2", r#"{"order_id":17,"amount":100}"#),
                [false, false, false],
            ),
            (
                call(
                    "POST",
                    "/refunds?a=1&b=2",
                    r#"{"order_id":17,"amount":100}"#,
                ),
                [false, false, false],
            ),
        ] {
            let (ours, theirs) = (base.keys, other.keys);
            assert_eq!(
                [
                    ours.exact == theirs.exact,
                    ours.plain == theirs.plain,
                    ours.masked == theirs.masked
                ],
                same,
                "{other:?}"
            );
        }
    }

    #[test]
    fn paths_with_ids_are_one_endpoint() {
        let one = call("GET", "/customers/17/cards", "");
        let two = call("GET", "/customers/18/cards", "");
        assert_eq!(&*one.endpoint, "GET payment /customers/{id}/cards");
        assert_eq!(one.keys.endpoint, two.keys.endpoint);
        assert_eq!(one.keys.masked, two.keys.masked);
        assert_ne!(one.keys.plain, two.keys.plain);
    }

    #[test]
    fn forms_are_read_by_their_fields() {
        let one = call("POST", "/pay", "order_id=17&amount=5");
        let two = call("POST", "/pay", "amount=5&order_id=17");
        assert_eq!(one.keys.plain, two.keys.plain);
        assert_ne!(one.keys.exact, two.keys.exact);
    }

    #[test]
    fn differences_say_where_and_whether_it_matters() {
        let one = call(
            "POST",
            "/c",
            r#"{"amount":100,"reference":"1b671a64-40d5-491e-99b0-da01ff1f3341","at":{"created_at":"x"}}"#,
        );
        let two = call(
            "POST",
            "/c",
            r#"{"amount":120,"reference":"7d444840-9dc0-11d1-b245-5ffdce74fad2","at":{"created_at":"y"}}"#,
        );
        let found = one.differences(&two, &Ignored::default());
        let told: Vec<_> = found
            .iter()
            .map(|it| (it.place.as_str(), it.ours.as_deref(), it.matters))
            .collect();
        assert_eq!(
            told,
            [
                ("body.amount", Some("100"), true),
                (
                    "body.reference",
                    Some("1b671a64-40d5-491e-99b0-da01ff1f3341"),
                    false
                ),
            ]
        );
    }

    #[test]
    fn traces_are_read_from_the_common_fields() {
        use crate::http1::RequestHead;
        for (field, id) in [
            (
                "traceparent: 00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                Some("4bf92f3577b34da6a3ce929d0e0e4736"),
            ),
            ("X-B3-TraceId: abc", Some("abc")),
            ("b3: abc-def-1", Some("abc")),
            ("X-Request-Id: r-1", Some("r-1")),
            ("traceparent: short", None),
            ("Accept: x", None),
        ] {
            let head = RequestHead::parse(format!("GET / HTTP/1.1\r\n{field}\r\n\r\n").into());
            let head = head.unwrap();
            assert_eq!(trace_id(head.fields()).as_deref(), id, "{field}");
        }
    }
}
