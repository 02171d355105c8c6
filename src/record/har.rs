//! HTTP Archive 1.2, the format of browsers' developer tools (<http://www.softwareishard.com/blog/har-12-spec/>).
//!
//! A file is one JSON object whose `log.entries` grows; [`FOOTER`] closes it at any time. Members that the format does
//! not know begin with an underscore, as it asks.

mod read;

use crate::exchange::{Completeness, Doubts, Exchange, Request, Response};
use crate::http1::{Body, Fields, unfold};
use crate::time::Timestamp;

use super::json::{push_base64, push_latin1, push_number, push_text};
use super::rfc3339;

pub(super) use self::read::{MAX_ARCHIVE, read_entries};

/// What begins a file.
pub(super) fn header() -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    format!("{{\"log\":{{\"version\":\"1.2\",\"creator\":{{\"name\":\"{CREATOR}\",\"version\":\"{version}\"}},\"entries\":[")
        .into_bytes()
}

/// What makes a whole file of what was written so far.
pub(super) const FOOTER: &[u8] = b"\n]}}\n";

/// The creator by which our own files are known: their bodies keep the content coding that the fields name.
const CREATOR: &str = "shadowtap";

/// Appends one entry, without the comma that parts it from the one before.
///
/// Gives `false`, and appends nothing, for what an entry cannot say: an answer without its request, and a request that is not
/// whole. An answer that is missing has status 0, as in browsers; one that is not whole has `_error` and no content.
#[must_use]
pub(super) fn append_entry(out: &mut Vec<u8>, exchange: &Exchange) -> bool {
    let Some(request) = &exchange.request else {
        return false;
    };
    if !request.completeness.is_whole() {
        return false;
    }
    let response = exchange.response.as_ref();
    let timing = Timing::of(request, response);
    out.extend_from_slice(b"\n{\"startedDateTime\":");
    push_text(out, &rfc3339::format(request.first_byte));
    out.extend_from_slice(b",\"time\":");
    push_millis(out, timing.send + timing.wait + timing.receive);
    out.extend_from_slice(b",\"request\":");
    append_request(out, request);
    out.extend_from_slice(b",\"response\":");
    append_response(out, response);
    out.extend_from_slice(b",\"cache\":{},\"timings\":{\"send\":");
    push_millis(out, timing.send);
    out.extend_from_slice(b",\"wait\":");
    push_millis(out, timing.wait);
    out.extend_from_slice(b",\"receive\":");
    push_millis(out, timing.receive);
    out.extend_from_slice(b"},\"serverIPAddress\":");
    push_text(out, &exchange.endpoints.server.ip().to_string());
    out.extend_from_slice(b",\"connection\":\"");
    push_number(out, exchange.connection.0);
    out.extend_from_slice(b"\",\"_client\":");
    push_text(out, &exchange.endpoints.client.to_string());
    out.extend_from_slice(b",\"_server\":");
    push_text(out, &exchange.endpoints.server.to_string());
    if let Some(response) = response.filter(|response| !response.interim.is_empty()) {
        out.extend_from_slice(b",\"_interim\":[");
        for (at, &status) in response.interim.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            push_number(out, status);
        }
        out.push(b']');
    }
    out.push(b'}');
    true
}

fn append_request(out: &mut Vec<u8>, request: &Request) {
    let head = &request.head;
    let url = url_of(request);
    out.extend_from_slice(b"{\"method\":");
    push_latin1(out, head.method());
    out.extend_from_slice(b",\"url\":");
    push_latin1(out, &url);
    let told = head.method() != b"CONNECT" && !head.target().contains(&b'#');
    if !told || target_in(&url) != head.target() {
        out.extend_from_slice(b",\"_target\":");
        push_latin1(out, head.target());
    }
    append_exact(out, head.bytes(), &request.body, request.doubts);
    append_head(out, head.version(), head.fields());
    out.extend_from_slice(b",\"queryString\":[");
    let query = head.target().splitn(2, |&byte| byte == b'?').nth(1);
    let pairs = query.into_iter().flat_map(|it| it.split(|&b| b == b'&'));
    for (at, pair) in pairs.enumerate() {
        let mut halves = pair.splitn(2, |&byte| byte == b'=');
        append_pair(
            out,
            at,
            halves.next().unwrap_or_default(),
            halves.next().unwrap_or_default(),
        );
    }
    out.push(b']');
    append_sizes(out, head.bytes().len(), &request.body);
    let content = request.body.content();
    if !content.is_empty() {
        out.extend_from_slice(b",\"postData\":{\"mimeType\":");
        push_latin1(out, &mime_type(head.fields()));
        append_text(out, &content);
        out.extend_from_slice(b",\"params\":[]}");
    }
    out.push(b'}');
}

fn append_response(out: &mut Vec<u8>, response: Option<&Response>) {
    let Some(response) = response else {
        out.extend_from_slice(
            b"{\"status\":0,\"statusText\":\"\",\"httpVersion\":\"\",\"cookies\":[],\"headers\":[],\
              \"content\":{\"size\":0,\"mimeType\":\"x-unknown\"},\"redirectURL\":\"\",\
              \"headersSize\":-1,\"bodySize\":-1,\"_error\":\"no answer seen\"}",
        );
        return;
    };
    let head = &response.head;
    out.extend_from_slice(b"{\"status\":");
    push_number(out, head.status());
    out.extend_from_slice(b",\"statusText\":");
    push_latin1(out, head.reason());
    if response.completeness.is_whole() {
        append_exact(out, head.bytes(), &response.body, response.doubts);
    }
    append_head(out, head.version(), head.fields());
    let content = response.body.content();
    out.extend_from_slice(b",\"content\":{\"size\":");
    push_number(out, content.len() as u64);
    out.extend_from_slice(b",\"mimeType\":");
    push_latin1(out, &mime_type(head.fields()));
    if response.completeness.is_whole() {
        append_text(out, &content);
    }
    out.extend_from_slice(b"},\"redirectURL\":");
    push_latin1(out, head.fields().get("location").unwrap_or_default());
    append_sizes(out, head.bytes().len(), &response.body);
    if let Completeness::Incomplete(reason) = response.completeness {
        out.extend_from_slice(b",\"_error\":");
        push_text(out, reason.name());
    }
    out.push(b'}');
}

fn append_head(out: &mut Vec<u8>, version: &[u8], fields: Fields<'_>) {
    out.extend_from_slice(b",\"httpVersion\":");
    push_latin1(out, version);
    out.extend_from_slice(b",\"cookies\":[],\"headers\":[");
    for (at, (name, value)) in fields.iter().enumerate() {
        append_pair(out, at, name, &unfold(value));
    }
    out.push(b']');
}

/// What the members of the format cannot say: why a message is ambiguous, and its bytes where they are more than a list of fields
/// and a content.
fn append_exact(out: &mut Vec<u8>, head: &[u8], body: &Body, doubts: Doubts) {
    if doubts.any() {
        out.extend_from_slice(b",\"_doubts\":[");
        for (at, name) in doubts.names().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            push_text(out, name);
        }
        out.push(b']');
    }
    if doubts.any() || body.says_more_than_content() {
        out.extend_from_slice(b",\"_bytes\":");
        push_base64(out, [head, &body.wire]);
    }
}

fn append_pair(out: &mut Vec<u8>, at: usize, name: &[u8], value: &[u8]) {
    if at > 0 {
        out.push(b',');
    }
    out.extend_from_slice(b"{\"name\":");
    push_latin1(out, name);
    out.extend_from_slice(b",\"value\":");
    push_latin1(out, value);
    out.push(b'}');
}

fn append_sizes(out: &mut Vec<u8>, head: usize, body: &Body) {
    out.extend_from_slice(b",\"headersSize\":");
    push_number(out, head as u64);
    out.extend_from_slice(b",\"bodySize\":");
    push_number(out, body.wire.len() as u64 + body.missing);
}

/// The text of a body: as it is when it is UTF-8, in base64 otherwise.
fn append_text(out: &mut Vec<u8>, content: &[u8]) {
    out.extend_from_slice(b",\"text\":");
    match str::from_utf8(content) {
        Ok(text) => push_text(out, text),
        Err(_) => {
            push_base64(out, [content, &[]]);
            out.extend_from_slice(b",\"encoding\":\"base64\"");
        }
    }
}

fn mime_type(fields: Fields<'_>) -> Vec<u8> {
    fields
        .get("content-type")
        .unwrap_or(b"application/octet-stream")
        .to_vec()
}

/// The absolute URL of a request, as far as its target and `Host` tell it.
fn url_of(request: &Request) -> Vec<u8> {
    let target = request.head.target();
    if !target.starts_with(b"/") && memchr::memmem::find(target, b"://").is_some() {
        return target.to_vec();
    }
    let server = request.endpoints.server.to_string();
    let host = request.head.fields().get("host");
    let host = host
        .filter(|host| !host.is_empty() && !host.contains(&b'/'))
        .unwrap_or(server.as_bytes());
    let path = if target.starts_with(b"/") {
        target
    } else {
        b"/"
    };
    [b"http://", host, path].concat()
}

/// The target that a URL stands for: what follows its authority.
fn target_in(url: &[u8]) -> &[u8] {
    let Some(scheme) = memchr::memmem::find(url, b"://") else {
        return url;
    };
    let rest = &url[scheme + 3..];
    match rest.iter().position(|byte| matches!(byte, b'/' | b'?')) {
        Some(at) if rest[at] == b'/' => &rest[at..],
        _ => b"/",
    }
}

/// The phases of an exchange, in nanoseconds.
struct Timing {
    send: u64,
    wait: u64,
    receive: u64,
}

impl Timing {
    fn of(request: &Request, response: Option<&Response>) -> Self {
        let nanos = |from: Timestamp, to: Timestamp| to.as_nanos().saturating_sub(from.as_nanos());
        Self {
            send: nanos(request.first_byte, request.last_byte),
            wait: response.map_or(0, |it| nanos(request.last_byte, it.first_byte)),
            receive: response.map_or(0, |it| nanos(it.first_byte, it.last_byte)),
        }
    }
}

/// Appends nanoseconds as milliseconds.
fn push_millis(out: &mut Vec<u8>, nanos: u64) {
    push_number(out, nanos / 1_000_000);
    let fraction = nanos % 1_000_000;
    if fraction > 0 {
        out.extend_from_slice(format!(".{fraction:06}").trim_end_matches('0').as_bytes());
    }
}
