//! Secrets replaced by tokens, wherever a message is shown or exported.
//!
//! A token is a keyed digest (HMAC-SHA256) of what it replaces: equal values have equal tokens, so that two answers can still
//! be compared by eye, and nobody who has not the key can tell the value, not even by trying all of them. The key is given
//! by the caller, which makes a new one at each start and keeps it in memory.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::compare::decode::{self, Content};
use crate::compare::field::Path;
use crate::compare::json::Tree;
use crate::compare::{Difference, FieldPattern, tree};
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
        if self.covers(&shown.field) {
            for text in [&mut shown.v1, &mut shown.v2].into_iter().flatten() {
                *text = self.token(text.as_bytes());
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
            || self.fields.iter().any(|pattern| pattern.covers(field))
    }

    /// The values of query parameters.
    fn target(&self, head: &[u8], target: &[u8], edits: &mut Edits) {
        let from = path_begin(target).unwrap_or(target.len());
        let Some(query) = target[from..].iter().position(|&byte| byte == b'?') else {
            return;
        };
        for pair in target[from + query + 1..].split(|&byte| byte == b'&') {
            let Some(equals) = pair.iter().position(|&byte| byte == b'=') else {
                continue;
            };
            let (name, value) = (&pair[..equals], &pair[equals + 1..]);
            if self.covers(&format!("query.{}", String::from_utf8_lossy(name))) {
                edits.replace(range_in(head, value), self.token(value));
            }
        }
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

    /// The body, if there is a secret in it.
    fn body(&self, fields: Fields<'_>, body: &Body) -> Option<Body> {
        let may_cover = |pattern: &FieldPattern| pattern.is_of_bodies();
        let is_asked_for = self.fields.iter().any(may_cover);
        let has_trailers = self.covers_trailers(body);
        if body.wire.is_empty() || !(is_asked_for || has_trailers) {
            return None;
        }
        let whole = |bytes: &[u8]| Some(body_of(self.token(bytes).into_bytes()));
        let content = match decode::content(fields, body, MOST_CONTENT) {
            Content::Plain(content) => content,
            // Nobody can see whether there is a secret in it.
            Content::Coded(_) | Content::TooLarge => return whole(&body.wire),
        };
        // A body with a length has no trailers.
        let without_trailers = || has_trailers.then(|| body_of(content.to_vec()));
        if !is_asked_for {
            return without_trailers();
        }
        if self.covers("body") {
            return whole(&content);
        }
        if let Some(mut tree) = Tree::parse(&content) {
            let mut walk = Walk {
                redactor: self,
                path: Path::new("body"),
                is_changed: false,
            };
            walk.value(&mut tree);
            if !walk.is_changed {
                return without_trailers();
            }
            let mut text = String::new();
            write(&tree, &mut text);
            return Some(body_of(text.into_bytes()));
        }
        let media_type = fields.get("content-type").unwrap_or_default();
        let media_type = String::from_utf8_lossy(media_type).to_ascii_lowercase();
        if media_type.starts_with("application/x-www-form-urlencoded") {
            return self.form(&content).or_else(without_trailers);
        }
        if may_have_fields(&media_type, &content) {
            return whole(&content);
        }
        without_trailers()
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
                if name.len() < pair.len()
                    && self.covers(&format!("body.{}", String::from_utf8_lossy(name)))
                {
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

/// Looks for secrets in a JSON tree.
struct Walk<'a> {
    redactor: &'a Redactor,
    path: Path,
    is_changed: bool,
}

impl Walk<'_> {
    fn value(&mut self, value: &mut Tree<'_>) {
        if !matches!(value, Tree::Null) && self.redactor.covers(self.path.as_str()) {
            self.is_changed = true;
            let mut text = String::new();
            write(value, &mut text);
            // A text's token is that of the text itself, as in a header.
            let token = match value {
                Tree::Text(text) => self.redactor.token(text.as_bytes()),
                _ => self.redactor.token(text.as_bytes()),
            };
            *value = Tree::Text(token.into());
            return;
        }
        match value {
            Tree::Array(elements) => {
                let mark = self.path.mark();
                self.path.elements();
                for element in elements {
                    self.value(element);
                }
                self.path.back_to(mark);
            }
            Tree::Object(members) => {
                for (name, member) in members {
                    let mark = self.path.mark();
                    if tree::is_key(name) {
                        self.path.values();
                    } else {
                        self.path.member(name);
                    }
                    self.value(member);
                    self.path.back_to(mark);
                }
            }
            Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) => {}
        }
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

/// What is to be changed in a head, from its begin to its end.
#[derive(Default)]
struct Edits(Vec<(Range<usize>, String)>);

impl Edits {
    fn replace(&mut self, range: Range<usize>, by: String) {
        self.0.push((range, by));
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn apply(self, head: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(head.len() + 64);
        let mut at = 0;
        for (range, by) in self.0 {
            out.extend_from_slice(&head[at..range.start]);
            out.extend_from_slice(by.as_bytes());
            at = range.end;
        }
        out.extend_from_slice(&head[at..]);
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
mod tests {
    use super::super::tests::request;
    use super::*;
    use crate::compare::tests::answer;
    use proptest::prelude::*;

    fn redactor(fields: &[&str]) -> Redactor {
        let fields = fields.iter().map(|field| field.parse().unwrap()).collect();
        Redactor::new([7; 32], fields)
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn known_digest() {
        // echo -n secret | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…07
        assert_eq!(redactor(&[]).token(b"secret"), "redacted-e8f9acc76498");
    }

    #[test]
    fn what_is_always_secret() {
        let head = "GET /a?token=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer hunter2\r\n\
                    Cookie: s=hunter2; t=hunter2\r\nx-api-key: hunter2\r\nX-Other: seen\r\n\r\n";
        let shown = redactor(&[]).request(&Arc::new(request(head, "")));
        let shown = text(shown.head.bytes());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(
            shown.starts_with("GET /a?token=1 HTTP/1.1\r\nHost: a\r\nAuthorization: redacted-")
        );
        let token = redactor(&[]).token(b"hunter2");
        assert!(
            shown.contains(&format!(
                "Cookie: s={token}; t={token}\r\nx-api-key: {token}\r\nX-Other: seen\r\n\r\n"
            )),
            "{shown}"
        );
        let response = answer(200, "Set-Cookie: s=hunter2; Path=/; Secure\r\n", b"hi");
        let shown = redactor(&[]).response(&response);
        assert_eq!(
            text(shown.head.bytes()),
            format!(
                "HTTP/1.1 200 X\r\nSet-Cookie: s={token}; Path=/; Secure\r\nContent-Length: 2\r\n\r\n"
            )
        );
        assert_eq!(&shown.body.wire[..], b"hi");
    }

    #[test]
    fn what_was_asked_for() {
        let redactor = redactor(&["body.user.email", "token", "header.x-tenant"]);
        let head = "POST /a?x=1&token=hunter2&y=2 HTTP/1.1\r\nX-Tenant: hunter2\r\nContent-Length: 75\r\nContent-Type: application/json\r\n\r\n";
        let body =
            r#"{"user": {"email": "hunter2", "name": "a"}, "list": [{"token": [1, "hunter2"]}]}"#;
        let shown = redactor.request(&Arc::new(request(head, body)));
        let token = redactor.token(b"hunter2");
        let list = redactor.token(br#"[1,"hunter2"]"#);
        let expected =
            format!(r#"{{"list":[{{"token":"{list}"}}],"user":{{"email":"{token}","name":"a"}}}}"#);
        assert_eq!(text(&shown.body.wire), expected);
        assert_eq!(
            text(shown.head.bytes()),
            format!(
                "POST /a?x=1&token={token}&y=2 HTTP/1.1\r\nX-Tenant: {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                expected.len()
            )
        );
        let head = "POST /a HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 17\r\n\r\n";
        let shown = redactor.request(&Arc::new(request(head, "a=1&token=hunter2")));
        assert_eq!(text(&shown.body.wire), format!("a=1&token={token}"));
    }

    #[test]
    fn coded_bodies() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(br#"{"token":"hunter2","a":1}"#).unwrap();
        let response = answer(
            200,
            "Content-Encoding: gzip\r\n",
            &encoder.finish().unwrap(),
        );
        let redactor = redactor(&["token"]);
        let shown = redactor.response(&response);
        let token = redactor.token(b"hunter2");
        assert_eq!(
            text(&shown.body.wire),
            format!(r#"{{"a":1,"token":"{token}"}}"#)
        );
        assert_eq!(shown.head.fields().get("content-encoding"), None);
        // What cannot be looked into is not shown.
        let shown = redactor.response(&answer(200, "Content-Encoding: compress\r\n", b"hunter2"));
        assert_eq!(text(&shown.body.wire), token);
        // Unless nothing in a body was asked to be hidden.
        let shown = super::Redactor::new([7; 32], Vec::new()).response(&answer(
            200,
            "Content-Encoding: compress\r\n",
            b"hunter2",
        ));
        assert_eq!(text(&shown.body.wire), "hunter2");
    }

    #[test]
    fn bodies_that_cannot_be_looked_into() {
        let redactor = redactor(&["password"]);
        let token = |body: &str| redactor.token(body.as_bytes());
        for (media_type, body, is_shown) in [
            ("application/json", r#"{"a":1,"password":"hunt"#, false),
            ("application/json", r#"er2","a":1}"#, false),
            ("text/plain", r#" {"password":"hunter2"}{"a":1}"#, false),
            ("multipart/form-data; boundary=a", "--a\r\n", false),
            (
                "application/soap+xml",
                "<password>hunter2</password>",
                false,
            ),
            ("text/event-stream", "data: {}\n\n", false),
            ("text/plain", "nothing has a name here", true),
            ("image/png", "\u{89}PNG", true),
            ("application/json", r#"{"a":1}"#, true),
        ] {
            let fields = format!("Content-Type: {media_type}\r\n");
            let shown = redactor.response(&answer(200, &fields, body.as_bytes()));
            let expected = if is_shown {
                body.to_owned()
            } else {
                token(body)
            };
            assert_eq!(text(&shown.body.wire), expected, "{media_type}: {body}");
        }
    }

    #[test]
    fn trailers_are_fields_too() {
        let mut response = answer(200, "", b"");
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        response.head = ResponseHead::parse(Bytes::from(head)).unwrap();
        let chunked = |trailer: &str| Body {
            framing: Framing::Chunked,
            wire: Bytes::from(format!("2\r\nhi\r\n0\r\n{trailer}\r\n")),
            missing: 0,
        };
        response.body = chunked("Digest: a\r\n");
        let shown = redactor(&[]).response(&response);
        assert_eq!(shown.body.wire, response.body.wire);
        for (fields, trailer) in [
            (&[][..], "x-API-key: hunter2\r\n"),
            (&["header.digest"], "Digest: hunter2\r\n"),
            (&["email", "header.digest"], "Digest: hunter2\r\n"),
        ] {
            response.body = chunked(trailer);
            let shown = redactor(fields).response(&response);
            assert_eq!(text(&shown.body.wire), "hi", "{trailer}");
            assert_eq!(
                text(shown.head.bytes()),
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
            );
        }
    }

    #[test]
    fn differences_are_shown_as_tokens() {
        let difference = |field: &str| Difference {
            field: field.into(),
            kind: crate::compare::DifferenceKind::Value,
            v1: Some("hunter2".to_owned()),
            v2: Some("hunter3".to_owned()),
        };
        let redactor = redactor(&["body.user"]);
        for field in ["header.x-api-key", "body.user.email", "body.user"] {
            let shown = redactor.difference(&difference(field));
            assert_eq!(shown.v1, Some(redactor.token(b"hunter2")), "{field}");
            assert_eq!(shown.v2, Some(redactor.token(b"hunter3")), "{field}");
        }
        let seen = difference("body.price");
        assert_eq!(redactor.difference(&seen), seen);
    }

    proptest! {
        #[test]
        fn no_secret_survives(secret in "[a-z0-9]{12,20}", other in "[a-z0-9 ]{0,20}") {
            let redactor = redactor(&["password"]);
            let head = format!("POST /?password={secret} HTTP/1.1\r\nauthorization: {secret}\r\nCOOKIE: a={secret}\r\nContent-Length: 1\r\n\r\n");
            let body = serde_json::json!({"a": [{"password": secret, "b": other}]}).to_string();
            let shown = redactor.request(&Arc::new(request(&head, &body)));
            prop_assert!(!text(shown.head.bytes()).contains(&secret));
            prop_assert!(!text(&shown.body.wire).contains(&secret));
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&shown.body.wire).is_ok());
            // Equal stays equal.
            prop_assert_eq!(redactor.token(secret.as_bytes()), redactor.token(secret.as_bytes()));
        }

        #[test]
        fn no_message_panics(fields in "([a-zA-Z-]{1,8}: [ -~]{0,20}\r\n){0,5}", body in any::<Vec<u8>>()) {
            let response = answer(200, &fields, &body);
            let _ = redactor(&["a", "body.b", "header.c"]).response(&response);
        }
    }
}
