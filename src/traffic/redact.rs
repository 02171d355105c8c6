//! Secrets replaced by tokens, wherever a message is shown or exported.
//!
//! A token is a keyed digest (HMAC-SHA256) of what it replaces: equal values have equal tokens, so that two answers can still
//! be compared by eye, and nobody who has not the key can tell the value, not even by trying all of them. The key is given
//! by the caller, which makes a new one at each start and keeps it in memory.

mod json;

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::compare::decode::{self, Content};
use crate::compare::field::Path;
use crate::compare::{Difference, FieldPattern};
use crate::exchange::{Exchange, Request, Response};
use crate::http1::{
    Body, Fields, Framing, RequestHead, ResponseHead, empty_line_begin, path_begin, range_in,
};

/// Replaces secrets by tokens.
#[derive(Clone)]
pub struct Redactor {
    mac: Hmac<Sha256>,
    fields: Vec<FieldPattern>,
    /// Whether what [`ALWAYS`] names is shown.
    reveals: bool,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor")
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

impl Redactor {
    /// Replaces what [`ALWAYS`] names and what `fields` mean, with tokens that depend on `key`.
    #[must_use]
    pub fn new(key: [u8; 32], fields: Vec<FieldPattern>) -> Self {
        let mac = Hmac::new_from_slice(&key).unwrap_or_else(|_| unreachable!("any length will do"));
        Self {
            mac,
            fields,
            reveals: false,
        }
    }

    /// The same, but what [`ALWAYS`] names is left as it is unless it was named beside that.
    #[must_use]
    pub fn revealing(self) -> Self {
        Self {
            reveals: true,
            ..self
        }
    }

    /// What stands for `value`.
    #[must_use]
    pub fn token(&self, value: &[u8]) -> String {
        let mut mac = self.mac.clone();
        mac.update(value);
        let mut token = String::from("redacted-");
        for byte in mac.finalize().into_bytes().iter().take(6) {
            // Writing to a string cannot fail.
            let _ = write!(token, "{byte:02x}");
        }
        token
    }

    /// `difference` as it may be shown.
    #[must_use]
    pub fn difference(&self, difference: &Difference) -> Difference {
        let mut shown = difference.clone();
        // A piece of a body that was not taken apart: nobody knows what is in it.
        let is_piece = *shown.field == *"body" && self.looks_into_bodies();
        let named = shown.named.as_deref();
        let is_secret =
            is_piece || self.covers(&shown.field) || named.is_some_and(|named| self.covers(named));
        let is_link = match shown.field.strip_prefix("header.") {
            Some(name) => LINKS.contains(&name),
            // A text in a body may be one.
            None => true,
        };
        for text in [&mut shown.v1, &mut shown.v2].into_iter().flatten() {
            if is_secret || self.is_text_with_names(text) {
                *text = self.token(text.as_bytes());
            } else if is_link && let Some(link) = self.link(text.as_bytes()) {
                *text = link;
            }
        }
        shown
    }

    /// `request` as it may be shown.
    #[must_use]
    pub fn request(&self, request: &Arc<Request>) -> Arc<Request> {
        let head = request.head.bytes();
        let mut edits = Edits::default();
        self.target(head, request.head.target(), &mut edits);
        let body = self.body(request.head.fields(), &request.body);
        self.fields(head, request.head.fields(), body.as_ref(), &mut edits);
        if edits.is_empty() {
            return Arc::clone(request);
        }
        // What comes out is a head as long as what went in was one.
        let Ok(head) = RequestHead::parse(edits.apply(head)) else {
            return Arc::clone(request);
        };
        let mut shown = Request::clone(request);
        shown.head = head;
        shown.body = body.unwrap_or(shown.body);
        Arc::new(shown)
    }

    /// `response` as it may be shown.
    #[must_use]
    pub fn response(&self, response: &Response) -> Response {
        let head = response.head.bytes();
        let mut edits = Edits::default();
        let body = self.body(response.head.fields(), &response.body);
        self.fields(head, response.head.fields(), body.as_ref(), &mut edits);
        let mut shown = response.clone();
        if !edits.is_empty()
            && let Ok(head) = ResponseHead::parse(edits.apply(head))
        {
            shown.head = head;
            shown.body = body.unwrap_or(shown.body);
        }
        shown
    }

    /// `exchange` as it may be shown.
    #[must_use]
    pub fn exchange(&self, exchange: &Exchange) -> Exchange {
        Exchange {
            connection: exchange.connection,
            endpoints: exchange.endpoints,
            request: exchange.request.as_ref().map(|it| self.request(it)),
            response: exchange.response.as_ref().map(|it| self.response(it)),
        }
    }

    fn covers(&self, field: &str) -> bool {
        let name = field.strip_prefix("header.").unwrap_or_default();
        (!self.reveals && ALWAYS.contains(&name))
            || self
                .fields
                .iter()
                .any(|pattern| pattern.covers_in_any_case(field))
    }

    /// The values of query parameters.
    fn target(&self, head: &[u8], target: &[u8], edits: &mut Edits) {
        let from = path_begin(target).unwrap_or(target.len());
        for value in self.parameters(&target[from..]) {
            edits.replace(range_in(head, value), self.token(value));
        }
    }

    /// The values of query parameters in the field of a link.
    fn link(&self, link: &[u8]) -> Option<String> {
        let mut edits = Edits::default();
        for value in self.parameters(link) {
            edits.replace(range_in(link, value), self.token(value));
        }
        let is_changed = !edits.is_empty();
        is_changed.then(|| String::from_utf8_lossy(&edits.apply(link)).into_owned())
    }

    /// The values of the parameters in a reference that are not to be seen. Some are behind `#`, where the program in a browser
    /// finds them.
    fn parameters<'a>(&self, reference: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let begins = |byte: &u8| matches!(byte, b'?' | b'#');
        let begin = reference.iter().position(begins);
        let parameters = begin.map_or(&[][..], |begin| &reference[begin + 1..]);
        parameters
            .split(|&byte| matches!(byte, b'&' | b'?' | b'#'))
            .filter_map(|pair| {
                let equals = pair.iter().position(|&byte| byte == b'=')?;
                let (name, value) = (&pair[..equals], &pair[equals + 1..]);
                self.covers_parameter("query", name).then_some(value)
            })
    }

    /// Whether the parameter of a query or the field of a form is covered: as it was sent, or decoded, so that
    /// `user%5Bemail%5D` is `user.email` as well.
    fn covers_parameter(&self, place: &str, name: &[u8]) -> bool {
        if self.covers(&format!("{place}.{}", String::from_utf8_lossy(name))) {
            return true;
        }
        if name.iter().all(u8::is_ascii_alphanumeric) {
            return false;
        }
        let decoded = form_urlencoded::parse(name).next();
        let decoded = decoded.map(|(name, _)| name).unwrap_or_default();
        let mut path = Path::new(place);
        for (index, part) in decoded.split(['[', ']']).enumerate() {
            // Between brackets: `a[b][]`.
            match (index, part) {
                (0, _) => path.member(part),
                (_, "") => {}
                _ => path.member(part),
            }
        }
        self.covers(path.as_str())
    }

    /// The values of fields; with another body also what frames it.
    fn fields(&self, head: &[u8], fields: Fields<'_>, body: Option<&Body>, edits: &mut Edits) {
        for ((name, value), line) in fields.iter().zip(fields.lines()) {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            if body.is_some() && FRAMING.contains(&&*name) {
                edits.replace(line, String::new());
                continue;
            }
            if !self.covers(&format!("header.{name}")) {
                if LINKS.contains(&&*name)
                    && let Some(link) = self.link(value)
                {
                    edits.replace(range_in(head, value), link);
                }
                continue;
            }
            let replacement = match &*name {
                "cookie" => self.cookie(value),
                "set-cookie" => match value.iter().position(|&byte| byte == b';') {
                    Some(end) => self.pair(&value[..end]) + &String::from_utf8_lossy(&value[end..]),
                    None => self.pair(value),
                },
                _ => self.token(value),
            };
            edits.replace(range_in(head, value), replacement);
        }
        if let Some(body) = body {
            let end = empty_line_begin(head);
            edits.replace(end..end, format!("Content-Length: {}\r\n", body.wire.len()));
        }
    }

    /// `name=value; other=value`: who reads it may know which cookies there were.
    fn cookie(&self, value: &[u8]) -> String {
        let pairs: Vec<String> = value
            .split(|&byte| byte == b';')
            .map(|pair| self.pair(pair.trim_ascii()))
            .collect();
        pairs.join("; ")
    }

    fn pair(&self, pair: &[u8]) -> String {
        match pair.iter().position(|&byte| byte == b'=') {
            Some(equals) => {
                let (name, value) = (&pair[..equals], &pair[equals + 1..]);
                format!("{}={}", String::from_utf8_lossy(name), self.token(value))
            }
            None => self.token(pair),
        }
    }

    fn looks_into_bodies(&self) -> bool {
        self.fields.iter().any(FieldPattern::is_of_bodies)
    }

    /// The body, if there is a secret in it.
    fn body(&self, fields: Fields<'_>, body: &Body) -> Option<Body> {
        let has_fields = self.looks_into_bodies();
        let is_asked_for = has_fields || self.fields.iter().any(FieldPattern::is_of_queries);
        let has_trailers = self.covers_trailers(body);
        if body.wire.is_empty() || !(is_asked_for || has_trailers) {
            return None;
        }
        let whole = |bytes: &[u8]| Some(body_of(self.token(bytes).into_bytes()));
        let content = match decode::content(fields, body, MOST_CONTENT) {
            Content::Plain(content) => content,
            // Nobody can see whether there is a secret in it.
            Content::Coded(_) | Content::TooLarge => {
                return (has_fields || has_trailers)
                    .then(|| body_of(self.token(&body.wire).into_bytes()));
            }
        };
        // A body with a length has no trailers.
        let without_trailers = || has_trailers.then(|| body_of(content.to_vec()));
        if !is_asked_for {
            return without_trailers();
        }
        if self.covers("body") {
            return whole(&content);
        }
        if let Some(edits) = json::edits(self, &content) {
            if edits.is_empty() {
                return without_trailers();
            }
            return Some(body_of(edits.apply(&content).into()));
        }
        if !has_fields {
            return without_trailers();
        }
        let media_type = fields.get("content-type").unwrap_or_default();
        let media_type = String::from_utf8_lossy(media_type).to_ascii_lowercase();
        if media_type.starts_with("application/x-www-form-urlencoded") {
            return self.form(&content).or_else(without_trailers);
        }
        if may_have_fields(&media_type, &content) || self.names_are_in(&content) {
            return whole(&content);
        }
        without_trailers()
    }

    /// Whether a text has the name of a field in it that is not to be seen: then what stands beside it may be its value.
    fn names_are_in(&self, content: &[u8]) -> bool {
        // Other than text, names are in there by accident.
        if memchr::memchr(0, content).is_some() {
            return false;
        }
        let lower = content.to_ascii_lowercase();
        self.fields.iter().any(|field| field.may_be_in(&lower))
    }

    /// Whether a text in JSON, or what is shown of a difference, is JSON again, or something like it, with such a name in it.
    fn is_text_with_names(&self, text: &str) -> bool {
        text.contains('{') && self.names_are_in(text.as_bytes())
    }

    fn covers_trailers(&self, body: &Body) -> bool {
        let mut lines = body.trailers().split(|&byte| byte == b'\n');
        lines.any(|line| {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
            self.covers(&format!("header.{name}"))
        })
    }

    fn form(&self, content: &[u8]) -> Option<Body> {
        let mut is_changed = false;
        let pairs: Vec<Vec<u8>> = content
            .split(|&byte| byte == b'&')
            .map(|pair| {
                let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
                if name.len() < pair.len() && self.covers_parameter("body", name) {
                    is_changed = true;
                    self.pair(pair).into_bytes()
                } else {
                    pair.to_vec()
                }
            })
            .collect();
        is_changed.then(|| body_of(pairs.join(&b'&')))
    }
}

/// Whether there may be fields in what is neither whole JSON nor a form: JSON that is cut off, several texts of it, parts, XML.
fn may_have_fields(media_type: &str, content: &[u8]) -> bool {
    let named = ["json", "xml", "multipart/", "event-stream"];
    named.iter().any(|name| media_type.contains(name))
        || matches!(content.trim_ascii_start(), [b'{' | b'[', ..])
}

fn body_of(bytes: Vec<u8>) -> Body {
    Body {
        framing: Framing::Length(bytes.len() as u64),
        wire: Bytes::from(bytes),
        missing: 0,
    }
}

/// What is to be changed in a head or in a body, from its begin to its end.
#[derive(Default)]
struct Edits(Vec<(Range<usize>, String)>);

impl Edits {
    fn replace(&mut self, range: Range<usize>, by: String) {
        self.0.push((range, by));
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn apply(self, bytes: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let mut at = 0;
        for (range, by) in self.0 {
            out.extend_from_slice(&bytes[at..range.start]);
            out.extend_from_slice(by.as_bytes());
            at = range.end;
        }
        out.extend_from_slice(&bytes[at..]);
        Bytes::from(out)
    }
}

/// Header fields whose values are not shown, unless somebody asks for it.
pub const ALWAYS: [&str; 5] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-api-key",
];

/// Header fields that hold a link, with what was a query or is going to be one.
const LINKS: [&str; 5] = ["content-location", "link", "location", "referer", "refresh"];

/// What said how long the body was, or how it was coded.
const FRAMING: [&str; 4] = [
    "content-encoding",
    "content-length",
    "trailer",
    "transfer-encoding",
];

/// Larger bodies are replaced as a whole.
const MOST_CONTENT: usize = 8 << 20;

#[cfg(test)]
mod tests;
