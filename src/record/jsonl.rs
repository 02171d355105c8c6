//! Exchanges as JSON, one line each: the stable output of `inspect --json`, and a recording format.
//!
//! `docs/exchange.schema.json` is the contract, `docs/formats.md` describes it. Bytes that are not ASCII appear as the
//! code point of the same number (ISO 8859-1), so that a line is always valid UTF-8 and loses nothing.

mod read;

use std::io::{self, Write};

use crate::exchange::{Completeness, Doubts, Exchange};
use crate::http1::{Body, Fields, Framing, unfold};
use crate::time::Timestamp;

use super::json::{push_base64, push_latin1, push_number, push_sha256, push_text};
use super::rfc3339;

pub use self::read::Lines;
pub(super) use self::read::reason_named;

/// How much a line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// What the exchange was; bodies by length and hash.
    Inspect,
    /// That, and everything needed to read the same exchange back: times, identifiers, the bytes on the wire.
    Recording,
}

/// Writes one exchange and a line feed, in a single write.
///
/// # Errors
/// What `out` reports.
pub fn write_exchange(exchange: &Exchange, out: &mut impl Write, detail: Detail) -> io::Result<()> {
    let mut line = Vec::with_capacity(1024);
    append_exchange(&mut line, exchange, detail);
    out.write_all(&line)
}

/// Appends one exchange and a line feed to a buffer.
pub fn append_exchange(out: &mut Vec<u8>, exchange: &Exchange, detail: Detail) {
    let mut line = Line { out, first: true };
    line.out.push(b'{');
    if detail == Detail::Recording {
        identity(&mut line, exchange);
    }
    line.text("client", &exchange.endpoints.client.to_string());
    line.text("server", &exchange.endpoints.server.to_string());
    request(&mut line, exchange, detail);
    response(&mut line, exchange, detail);
    line.out.extend_from_slice(b"}\n");
}

fn identity(line: &mut Line<'_>, exchange: &Exchange) {
    match exchange.id() {
        Some(id) => line.text("id", &id.to_string()),
        None => line.null("id"),
    }
    line.number("connection", exchange.connection.0);
    let began = match (&exchange.request, &exchange.response) {
        (Some(request), _) => request.first_byte,
        (None, Some(response)) => response.first_byte,
        (None, None) => Timestamp::ZERO,
    };
    line.text("time", &rfc3339::format(began));
}

fn request(line: &mut Line<'_>, exchange: &Exchange, detail: Detail) {
    let Some(request) = &exchange.request else {
        let answered_in = exchange.response.as_ref().map(|it| it.head.version());
        line.null("method");
        line.null("target");
        line.bytes_or_null("version", answered_in);
        for key in REQUEST.absent {
            line.null(key);
        }
        return;
    };
    let head = &request.head;
    line.bytes("method", head.method());
    line.bytes("target", head.target());
    line.bytes("version", head.version());
    let message = Message {
        keys: &REQUEST,
        fields: head.fields(),
        head: head.bytes(),
        body: &request.body,
        completeness: request.completeness,
        doubts: request.doubts,
        times: [request.first_byte, request.last_byte],
    };
    message.write(line, detail);
}

fn response(line: &mut Line<'_>, exchange: &Exchange, detail: Detail) {
    let Some(response) = &exchange.response else {
        line.null("status");
        line.null("reason");
        for key in RESPONSE.absent {
            line.null(key);
        }
        line.key("interim");
        line.out.extend_from_slice(b"[]");
        return;
    };
    let head = &response.head;
    line.number("status", head.status());
    line.bytes("reason", head.reason());
    let message = Message {
        keys: &RESPONSE,
        fields: head.fields(),
        head: head.bytes(),
        body: &response.body,
        completeness: response.completeness,
        doubts: response.doubts,
        times: [response.first_byte, response.last_byte],
    };
    message.write(line, detail);
    line.key("interim");
    line.list(&response.interim, |out, &status| push_number(out, status));
}

/// What requests and responses have in common.
struct Message<'a> {
    keys: &'static Keys,
    fields: Fields<'a>,
    head: &'a [u8],
    body: &'a Body,
    completeness: Completeness,
    doubts: Doubts,
    times: [Timestamp; 2],
}

impl Message<'_> {
    fn write(&self, line: &mut Line<'_>, detail: Detail) {
        let keys = self.keys;
        line.key(keys.headers);
        line.out.push(b'[');
        for (at, (name, value)) in self.fields.iter().enumerate() {
            line.out
                .extend_from_slice(if at == 0 { b"[" } else { b",[" });
            push_latin1(line.out, name);
            line.out.push(b',');
            push_latin1(line.out, &unfold(value));
            line.out.push(b']');
        }
        line.out.push(b']');
        if self.is_body_known() {
            let content = self.body.content();
            line.number(keys.body_len, content.len() as u64);
            line.key(keys.body_sha256);
            push_sha256(line.out, &content);
        } else {
            line.null(keys.body_len);
            line.null(keys.body_sha256);
        }
        line.bool(keys.complete, self.completeness.is_whole());
        if detail == Detail::Recording {
            self.recording(line);
        }
    }

    /// Whether the body is all there. One that the connection's end delimits counts as far as it was seen.
    fn is_body_known(&self) -> bool {
        self.body.missing == 0
            && (self.completeness.is_whole()
                || match self.body.framing {
                    Framing::None | Framing::UntilClose => true,
                    Framing::Length(length) => self.body.wire.len() as u64 == length,
                    Framing::Chunked => false,
                })
    }

    fn recording(&self, line: &mut Line<'_>) {
        let keys = self.keys;
        let [first_byte, last_byte] = self.times;
        line.number(keys.first_ns, first_byte.as_nanos());
        line.number(keys.last_ns, last_byte.as_nanos());
        line.key(keys.wire);
        push_base64(line.out, [self.head, &self.body.wire]);
        line.text(keys.framing, framing_name(self.body.framing));
        if let Framing::Length(length) = self.body.framing {
            line.number(keys.length, length);
        }
        if self.body.missing > 0 {
            line.number(keys.missing, self.body.missing);
        }
        if let Completeness::Incomplete(reason) = self.completeness {
            line.text(keys.incomplete, reason.name());
        }
        if self.doubts.any() {
            let names: Vec<&str> = self.doubts.names().collect();
            line.key(keys.doubts);
            line.list(&names, |out, name| push_text(out, name));
        }
    }
}

/// The keys of one side of a line.
struct Keys {
    headers: &'static str,
    body_len: &'static str,
    body_sha256: &'static str,
    complete: &'static str,
    first_ns: &'static str,
    last_ns: &'static str,
    wire: &'static str,
    framing: &'static str,
    length: &'static str,
    missing: &'static str,
    incomplete: &'static str,
    doubts: &'static str,
    /// Those that are null when the message was not seen.
    absent: [&'static str; 4],
}

macro_rules! keys {
    ($side:literal) => {
        Keys {
            headers: concat!($side, "_headers"),
            body_len: concat!($side, "_body_len"),
            body_sha256: concat!($side, "_body_sha256"),
            complete: concat!($side, "_complete"),
            first_ns: concat!($side, "_time_ns"),
            last_ns: concat!($side, "_end_ns"),
            wire: concat!($side, "_wire_b64"),
            framing: concat!($side, "_framing"),
            length: concat!($side, "_framing_len"),
            missing: concat!($side, "_missing"),
            incomplete: concat!($side, "_incomplete"),
            doubts: concat!($side, "_doubts"),
            absent: [
                concat!($side, "_headers"),
                concat!($side, "_body_len"),
                concat!($side, "_body_sha256"),
                concat!($side, "_complete"),
            ],
        }
    };
}

static REQUEST: Keys = keys!("request");
static RESPONSE: Keys = keys!("response");

const fn framing_name(framing: Framing) -> &'static str {
    match framing {
        Framing::None => "none",
        Framing::Length(_) => "length",
        Framing::Chunked => "chunked",
        Framing::UntilClose => "until_close",
    }
}

/// An object that is being written, member by member.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Line<'_> {
    /// Keys are plain ASCII words.
    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn null(&mut self, key: &str) {
        self.key(key);
        self.out.extend_from_slice(b"null");
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn number(&mut self, key: &str, value: impl Into<u64>) {
        self.key(key);
        push_number(self.out, value);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        push_text(self.out, value);
    }

    fn bytes(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        push_latin1(self.out, value);
    }

    fn bytes_or_null(&mut self, key: &str, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bytes(key, value),
            None => self.null(key),
        }
    }

    fn list<T>(&mut self, items: &[T], push: impl Fn(&mut Vec<u8>, &T)) {
        self.out.push(b'[');
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            push(self.out, item);
        }
        self.out.push(b']');
    }
}
