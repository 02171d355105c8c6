//! What the mock answers with: answers that version 1 got, and ones that a person wrote.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regex::Regex;
use serde_json::Value;

use super::call::Call;
use super::shadow::ExchangeKey;
use crate::compare::json::is_same_number;
use crate::exchange::{Exchange, Response};
use crate::http1::unfold;

/// Names a stub within one mock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StubId(pub u64);

/// A call that version 1 made, and what came back.
#[derive(Clone, Debug)]
pub struct Stub {
    /// The call.
    pub call: Arc<Call>,
    /// The answer; none when version 1 got none, or not a whole one.
    pub answer: Option<Arc<Answer>>,
    /// The exchange of version 1 that the call belongs to, or those that it may belong to.
    pub owners: Vec<ExchangeKey>,
    /// How often it was given.
    pub used: u64,
    /// What it was made of, for exports.
    pub source: Arc<Exchange>,
}

/// An answer to be given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Name and value of each field, without those that concern one connection only and those that frame the body.
    pub fields: Vec<(String, Bytes)>,
    /// The body's content.
    pub body: Bytes,
    /// How long the provider took to begin with it.
    pub took: Duration,
}

impl Answer {
    /// The answer to `exchange`, if there is a whole one.
    #[must_use]
    pub fn of_exchange(exchange: &Exchange) -> Option<Self> {
        let response = exchange.response.as_ref()?;
        if !response.completeness.is_whole() {
            return None;
        }
        let request = exchange.request.as_ref()?;
        let mut fields = fields_of(response);
        if request.head.method() == b"HEAD" {
            // It is of the body that there is not: what the caller wants to know.
            let length = response.head.fields().get("content-length");
            let length = length.map(Bytes::copy_from_slice);
            fields.extend(length.map(|length| ("content-length".to_owned(), length)));
        }
        Some(Self {
            status: response.head.status(),
            fields,
            body: response.body.content().into_owned().into(),
            took: response.first_byte.since(request.last_byte),
        })
    }

    /// About what it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        let fields = self.fields.iter();
        let fields: usize = fields
            .map(|(name, value)| name.len() + value.len() + 64)
            .sum();
        size_of::<Self>() + self.body.len() + fields
    }
}

fn fields_of(response: &Response) -> Vec<(String, Bytes)> {
    let fields = response.head.fields();
    let named: Vec<String> = fields
        .elements("connection")
        .map(|name| String::from_utf8_lossy(name).to_ascii_lowercase())
        .collect();
    fields
        .iter()
        .filter_map(|(name, value)| {
            let name = std::str::from_utf8(name).ok()?;
            let lower = name.to_ascii_lowercase();
            let is_left_out = is_sent_anew(&lower) || named.contains(&lower);
            (!is_left_out).then(|| (name.to_owned(), Bytes::from(unfold(value).into_owned())))
        })
        .collect()
}

/// Whether a field, in lower case, is the connection's (RFC 9110 §7.6.1) or frames the body: whoever sends the answer again
/// writes his own.
pub(super) fn is_sent_anew(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "content-length"
    )
}

/// A stub that a person wrote.
#[derive(Clone, Debug)]
pub struct Written {
    /// What a call must look like.
    pub pattern: Pattern,
    /// What it gets.
    pub answer: Arc<Answer>,
    /// Of several that fit, the one with the lowest number answers, then the one that came last.
    pub priority: u32,
    /// The scenario that it is a step of.
    pub scenario: Option<Scenario>,
    /// How often it was given.
    pub used: u64,
    /// The text that it was made of, for exports.
    pub source: Value,
}

/// A step of a scenario: answers that depend on what was asked before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// The scenario's name.
    pub name: String,
    /// The state in which this stub answers; none is any.
    pub required: Option<String>,
    /// The state that its answer leads to.
    pub next: Option<String>,
}

/// What a call must look like for a written stub.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    /// The method; none is any.
    pub method: Option<String>,
    /// The host.
    pub host: Option<Text>,
    /// The path.
    pub path: Option<Text>,
    /// The path with the query.
    pub url: Option<Text>,
    /// Parameters of the query, as they are without their percent signs.
    pub query: Vec<(String, Text)>,
    /// Whether the query has no others.
    pub is_whole_query: bool,
    /// Fields of the head, names in lower case.
    pub fields: Vec<(String, Text)>,
    /// The body; all must fit.
    pub body: Vec<BodyPattern>,
}

/// What a text must look like.
#[derive(Clone, Debug)]
pub enum Text {
    /// Exactly this.
    Equal(String),
    /// This, in any case.
    EqualIgnoringCase(String),
    /// This is in it.
    Contains(String),
    /// All of it fits.
    Matches(Regex),
    /// It does not fit.
    DoesNotMatch(Regex),
    /// It is not there.
    Absent,
}

/// What a body must look like.
#[derive(Clone, Debug)]
pub enum BodyPattern {
    /// A text.
    Text(Text),
    /// These bytes.
    Bytes(Bytes),
    /// A JSON value.
    Json {
        /// The value.
        value: Value,
        /// Whether arrays may be in another order.
        any_order: bool,
        /// Whether objects may have more members.
        more: bool,
    },
}

impl Text {
    /// Whether `text` looks like it.
    #[must_use]
    pub fn fits(&self, text: Option<&str>) -> bool {
        match (self, text) {
            (Self::Absent, text) => text.is_none(),
            (_, None) => false,
            (Self::Equal(wanted), Some(text)) => wanted == text,
            (Self::EqualIgnoringCase(wanted), Some(text)) => {
                wanted.to_lowercase() == text.to_lowercase()
            }
            (Self::Contains(wanted), Some(text)) => text.contains(wanted.as_str()),
            (Self::Matches(wanted), Some(text)) => wanted.is_match(text),
            (Self::DoesNotMatch(wanted), Some(text)) => !wanted.is_match(text),
        }
    }
}

impl Pattern {
    /// Whether `call`, whose other fields `field` gives by name, looks like it.
    #[must_use]
    pub fn fits(&self, call: &Call, field: &dyn Fn(&str) -> Option<String>) -> bool {
        let of = |wanted: &Option<Text>, text: &dyn Fn() -> String| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.fits(Some(&text())))
        };
        self.method
            .as_ref()
            .is_none_or(|method| *method == call.method)
            && of(&self.host, &|| call.host.clone())
            && of(&self.path, &|| call.path.clone())
            && of(&self.url, &|| url_of(call))
            && self.fits_query(&call.query)
            && self
                .fields
                .iter()
                .all(|(name, wanted)| wanted.fits(field(name).as_deref()))
            && self.body.iter().all(|wanted| wanted.fits(&call.body))
    }
}

impl Pattern {
    fn fits_query(&self, query: &[(String, String)]) -> bool {
        if self.is_whole_query && self.query.len() != query.len() {
            return false;
        }
        if self.query.is_empty() {
            return true;
        }
        let query: Vec<(String, String)> = query.iter().map(decoded).collect();
        self.query.iter().all(|(name, wanted)| {
            let mut values = query.iter().filter(|(it, _)| it == name).peekable();
            if values.peek().is_none() {
                return wanted.fits(None);
            }
            values.any(|(_, value)| wanted.fits(Some(value)))
        })
    }
}

/// A parameter of a query without its percent and plus signs.
pub(super) fn decoded((name, value): &(String, String)) -> (String, String) {
    let pair = format!("{name}={value}");
    let mut pairs = form_urlencoded::parse(pair.as_bytes());
    let pair = pairs
        .next()
        .map(|(name, value)| (name.into_owned(), value.into_owned()));
    pair.unwrap_or_default()
}

/// The path and the query; parameters are in order of their names.
fn url_of(call: &Call) -> String {
    let mut url = call.path.clone();
    for (at, (name, value)) in call.query.iter().enumerate() {
        url.push(if at == 0 { '?' } else { '&' });
        url.push_str(name);
        url.push('=');
        url.push_str(value);
    }
    url
}

impl BodyPattern {
    fn fits(&self, body: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.fits(Some(&String::from_utf8_lossy(body))),
            Self::Bytes(bytes) => bytes == body,
            Self::Json {
                value,
                any_order,
                more,
            } => serde_json::from_slice(body)
                .is_ok_and(|body: Value| json_fits(value, &body, *any_order, *more)),
        }
    }
}

fn json_fits(wanted: &Value, there: &Value, any_order: bool, more: bool) -> bool {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => {
            (more || wanted.len() == there.len())
                && wanted.iter().all(|(name, wanted)| {
                    there
                        .get(name)
                        .is_some_and(|there| json_fits(wanted, there, any_order, more))
                })
        }
        (Value::Array(wanted), Value::Array(there)) => {
            if wanted.len() != there.len() {
                return false;
            }
            if !any_order {
                let mut both = wanted.iter().zip(there);
                return both.all(|(wanted, there)| json_fits(wanted, there, any_order, more));
            }
            let mut left: Vec<&Value> = there.iter().collect();
            wanted.iter().all(|wanted| {
                let at = left
                    .iter()
                    .position(|there| json_fits(wanted, there, any_order, more));
                at.map(|at| left.swap_remove(at)).is_some()
            })
        }
        (Value::Number(wanted), Value::Number(there)) => {
            is_same_number(&wanted.to_string(), &there.to_string())
        }
        (wanted, there) => wanted == there,
    }
}
