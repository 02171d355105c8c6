//! What the first bytes of a stream are: HTTP/1, or something that is left alone.

use memchr::memchr;

use crate::http1::head::is_token_byte;

/// What bytes at the start of a direction, or of a message, look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recognised {
    /// An HTTP/1 message.
    Http,
    /// Too few bytes to tell.
    Unsure,
    /// A TLS record.
    Tls,
    /// The HTTP/2 connection preface (RFC 9113 §3.4).
    Http2,
    /// Something else.
    Other,
}

/// Bytes after which being unsure means no: longer than any start line that servers take.
pub const MAX_UNSURE: usize = 128 << 10;

/// Longest method that is believed; registered ones end at 17 bytes (`UPDATEREDIRECTREF`).
const MAX_METHOD: usize = 32;

/// Whether `bytes` begin a request.
#[must_use]
pub fn request(bytes: &[u8]) -> Recognised {
    if let Some(other) = other_protocol(bytes) {
        return other;
    }
    let bytes = without_empty_lines(bytes);
    let method = bytes
        .iter()
        .take(MAX_METHOD + 1)
        .take_while(|&&byte| is_token_byte(byte))
        .count();
    match bytes.get(method) {
        _ if method > MAX_METHOD => return Recognised::Other,
        None => return Recognised::Unsure,
        Some(b' ' | b'\t') if method > 0 => {}
        Some(_) => return Recognised::Other,
    }
    let Some(line_feed) = memchr(b'\n', bytes) else {
        // A request line has no control bytes; other text protocols end their first line soon.
        let printable = bytes[method..]
            .iter()
            .all(|&byte| byte >= b' ' || byte == b'\t' || byte == b'\r');
        return if printable {
            Recognised::Unsure
        } else {
            Recognised::Other
        };
    };
    let line = bytes[method..line_feed].trim_ascii_end();
    if has_version(line)
        || (is_known_method(&bytes[..method]) && line.trim_ascii_start().starts_with(b"/"))
    {
        Recognised::Http
    } else {
        Recognised::Other
    }
}

/// Whether `bytes` begin a response.
#[must_use]
pub fn response(bytes: &[u8]) -> Recognised {
    if let Some(other) = other_protocol(bytes) {
        return other;
    }
    let bytes = without_empty_lines(bytes);
    // `ICY 200 OK` is how Shoutcast servers begin what is otherwise HTTP/1.0.
    for start in [&b"HTTP/"[..], b"ICY "] {
        let shared = bytes.len().min(start.len());
        if bytes[..shared].eq_ignore_ascii_case(&start[..shared]) {
            return match bytes.get(start.len()) {
                None => Recognised::Unsure,
                Some(digit) if digit.is_ascii_digit() => Recognised::Http,
                Some(_) => Recognised::Other,
            };
        }
    }
    Recognised::Other
}

/// Whether a segment begins a request, in a direction whose framing is not known: with a whole request line, or, where
/// the line goes on in the next segment, with one of the methods that servers know and a path.
#[must_use]
pub fn request_in_midstream(bytes: &[u8]) -> bool {
    match request(bytes) {
        Recognised::Http => true,
        Recognised::Unsure => {
            let bytes = without_empty_lines(bytes);
            let method = bytes.iter().position(|&byte| byte == b' ').unwrap_or(0);
            is_known_method(&bytes[..method]) && bytes.get(method + 1) == Some(&b'/')
        }
        _ => false,
    }
}

/// RFC 9112 §2.2: empty lines before a request line are ignored; some servers send them before a status line.
fn without_empty_lines(bytes: &[u8]) -> &[u8] {
    let empty = bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    &bytes[empty..]
}

/// Whether a method is one of those that servers know; used only where there is nothing better to go by.
#[must_use]
pub fn is_known_method(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET"
            | b"HEAD"
            | b"POST"
            | b"PUT"
            | b"DELETE"
            | b"CONNECT"
            | b"OPTIONS"
            | b"TRACE"
            | b"PATCH"
    )
}

/// Whether the last word of a request line is a protocol version.
fn has_version(line: &[u8]) -> bool {
    let last = line
        .iter()
        .rposition(|byte| matches!(byte, b' ' | b'\t'))
        .map_or(0, |at| at + 1);
    let word = &line[last..];
    word.len() >= 6 && word[..5].eq_ignore_ascii_case(b"HTTP/") && word[5].is_ascii_digit()
}

fn other_protocol(bytes: &[u8]) -> Option<Recognised> {
    const PREFACE: &[u8] = b"PRI * HTTP/2";
    match bytes {
        // TLS record: handshake, alert or application data, version 3.x (RFC 8446 §5.1).
        [0x14..=0x17, 0x03, 0x00..=0x04, ..] => Some(Recognised::Tls),
        [0x14..=0x17] | [0x14..=0x17, 0x03] => Some(Recognised::Unsure),
        [b'P', b'R', b'I', b' ', ..]
            if bytes.len() >= PREFACE.len() && bytes.starts_with(PREFACE) =>
        {
            Some(Recognised::Http2)
        }
        _ => None,
    }
}
