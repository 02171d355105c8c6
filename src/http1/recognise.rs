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

/// Bytes after which being unsure means no, unless they are a method that servers know and a target.
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
    // A target with blanks is believed only of a method that servers know: other text has many blanks too.
    let is_known = is_known_method(&bytes[..method]);
    let line_feed = memchr(b'\n', bytes);
    let line = bytes[method..line_feed.unwrap_or(bytes.len())].trim_ascii_end();
    let words = || {
        let words = line.split(u8::is_ascii_whitespace);
        words.filter(|word| !word.is_empty()).count()
    };
    if !is_known && words() > 2 {
        return Recognised::Other;
    }
    // Control bytes, too, are believed only behind a method that servers know; whether the line is whole makes no
    // difference, so that the cuts make none.
    let is_printable = |&byte: &u8| byte >= b' ' || byte == b'\t' || byte == b'\r';
    if !is_known && !line.iter().all(is_printable) {
        return Recognised::Other;
    }
    if line_feed.is_none() {
        // Nothing but a very long target looks like this for so long.
        return match bytes.len() >= MAX_UNSURE && is_known && words() == 1 {
            true => Recognised::Http,
            false => Recognised::Unsure,
        };
    }
    // Without a version it is HTTP/0.9, if anything: a method and a path, nothing else.
    let target = line.trim_ascii_start();
    let is_path = || target.starts_with(b"/") && !target.iter().any(u8::is_ascii_whitespace);
    // Without a target it is the end of a request line whose beginning was not captured.
    let has_target = || is_known || words() == 2 || target.starts_with(b"/");
    if (ends_in_version(line) && has_target()) || (is_known && is_path()) {
        Recognised::Http
    } else {
        Recognised::Other
    }
}

/// Whether [`request`] believes a request whose head follows the grammar of HTTP/1 to the letter: all but for the longest
/// methods.
pub(crate) fn believes_strict(bytes: &[u8]) -> bool {
    let believes = memchr(b' ', &bytes[..bytes.len().min(MAX_METHOD + 1)]).is_some();
    debug_assert_eq!(believes, request(bytes) == Recognised::Http);
    believes
}

/// Longest line of the PROXY protocol, version 1, its line end included.
const MAX_PROXY_LINE: usize = 107;

/// How a header of the PROXY protocol, version 2, begins.
const PROXY_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What bytes at the start of a client's stream say of the PROXY protocol
/// (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyHeader {
    /// The first so many bytes are the header in which a proxy says for whom it connects.
    Whole(usize),
    /// Too few bytes to tell.
    Unsure,
    /// They are no such header.
    Absent,
}

/// Whether `bytes` begin with the header of the PROXY protocol that a proxy sends before the first request.
#[must_use]
pub fn proxy_header(bytes: &[u8]) -> ProxyHeader {
    match proxy_block(bytes) {
        ProxyHeader::Absent => proxy_line(bytes),
        block => block,
    }
}

/// Version 2: a signature, version and command, address family, the length of what follows.
fn proxy_block(bytes: &[u8]) -> ProxyHeader {
    let shared = bytes.len().min(PROXY_SIGNATURE.len());
    if bytes[..shared] != PROXY_SIGNATURE[..shared] {
        return ProxyHeader::Absent;
    }
    let Some(&[version, _, len_0, len_1]) = bytes[shared..].first_chunk() else {
        return ProxyHeader::Unsure;
    };
    let len = shared + 4 + usize::from(u16::from_be_bytes([len_0, len_1]));
    match version >> 4 {
        2 if bytes.len() < len => ProxyHeader::Unsure,
        2 => ProxyHeader::Whole(len),
        _ => ProxyHeader::Absent,
    }
}

/// Version 1: a line of text.
fn proxy_line(bytes: &[u8]) -> ProxyHeader {
    let starts = [&b"PROXY TCP4 "[..], b"PROXY TCP6 ", b"PROXY UNKNOWN"];
    let shared = |start: &&[u8]| {
        let shared = bytes.len().min(start.len());
        bytes[..shared] == start[..shared]
    };
    if !starts.iter().any(shared) {
        return ProxyHeader::Absent;
    }
    let Some(line_feed) = memchr(b'\n', bytes) else {
        return match bytes.len() < MAX_PROXY_LINE {
            true => ProxyHeader::Unsure,
            false => ProxyHeader::Absent,
        };
    };
    let Some(line) = bytes[..line_feed].strip_suffix(b"\r") else {
        return ProxyHeader::Absent;
    };
    // A method may be called PROXY; its request line ends in a version.
    let words = line.split(|&byte| byte == b' ').count();
    let is_complete = words == 6 || line.starts_with(starts[2]);
    match line_feed < MAX_PROXY_LINE && is_complete && !ends_in_version(line) {
        true => ProxyHeader::Whole(line_feed + 1),
        false => ProxyHeader::Absent,
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

/// Whether a segment begins a request, in a direction whose framing is not known: with a registered method, and a path
/// or a whole request line of three words. Text in a body often looks like less, and the tail of a method that a lost
/// segment began looks like another method.
#[must_use]
pub fn request_in_midstream(bytes: &[u8]) -> bool {
    let recognised = request(bytes);
    if !matches!(recognised, Recognised::Http | Recognised::Unsure) {
        return false;
    }
    let bytes = without_empty_lines(bytes);
    let method = bytes.iter().position(|&byte| byte == b' ').unwrap_or(0);
    if !is_known_method(&bytes[..method]) && !is_registered_method(&bytes[..method]) {
        return false;
    }
    if bytes[method..].trim_ascii_start().starts_with(b"/") {
        return true;
    }
    let line = &bytes[..memchr(b'\n', bytes).unwrap_or(0)];
    recognised == Recognised::Http && line.iter().filter(|byte| **byte == b' ').count() == 2
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
    KNOWN_METHODS.contains(&method)
}

const KNOWN_METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
];

/// Whether `bytes`, which are not a whole line, begin with a method that servers know.
#[must_use]
pub fn begins_request(bytes: &[u8]) -> bool {
    let bytes = without_empty_lines(bytes);
    let method = bytes.iter().position(|&byte| byte == b' ');
    method.is_some_and(|end| is_known_method(&bytes[..end]))
}

/// Whether `bytes`, which may be the body of the request before them, begin the next one instead. Any word may begin a body:
/// while the line is not whole, only methods that servers know are waited for.
#[must_use]
pub fn request_for_body(bytes: &[u8]) -> Recognised {
    let recognised = request(bytes);
    let bytes = without_empty_lines(bytes);
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let may_become_known = || match bytes.iter().position(is_blank) {
        Some(end) => is_known_method(&bytes[..end]),
        None => KNOWN_METHODS.iter().any(|known| known.starts_with(bytes)),
    };
    match recognised {
        Recognised::Unsure if !may_become_known() => Recognised::Other,
        recognised => recognised,
    }
}

/// Whether a request line ends in a protocol version, be it with or without the blank before it.
fn ends_in_version(line: &[u8]) -> bool {
    let last = line
        .iter()
        .rposition(|byte| matches!(byte, b' ' | b'\t'))
        .map_or(0, |at| at + 1);
    let word = &line[last..];
    let is_version = |word: &[u8]| {
        word.len() >= 6 && word[..5].eq_ignore_ascii_case(b"HTTP/") && word[5].is_ascii_digit()
    };
    is_version(word) || (word.len() > 8 && word[0] == b'/' && is_version(&word[word.len() - 8..]))
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

/// Whether a method is one of the rarer ones: of the IANA registry, UPnP and caches.
fn is_registered_method(method: &[u8]) -> bool {
    matches!(
        method,
        b"ACL"
            | b"BASELINE-CONTROL"
            | b"BIND"
            | b"CHECKIN"
            | b"CHECKOUT"
            | b"COPY"
            | b"LABEL"
            | b"LINK"
            | b"LOCK"
            | b"M-SEARCH"
            | b"MERGE"
            | b"MKACTIVITY"
            | b"MKCALENDAR"
            | b"MKCOL"
            | b"MKREDIRECTREF"
            | b"MKWORKSPACE"
            | b"MOVE"
            | b"NOTIFY"
            | b"ORDERPATCH"
            | b"PROPFIND"
            | b"PROPPATCH"
            | b"PURGE"
            | b"QUERY"
            | b"REBIND"
            | b"REPORT"
            | b"SEARCH"
            | b"SUBSCRIBE"
            | b"UNBIND"
            | b"UNCHECKOUT"
            | b"UNLINK"
            | b"UNLOCK"
            | b"UNSUBSCRIBE"
            | b"UPDATE"
            | b"UPDATEREDIRECTREF"
            | b"VERSION-CONTROL"
    )
}
