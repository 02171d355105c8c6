//! Where things are in the bytes of a message, and how they are changed there. Bytes that are not asked about stay as they are.

use std::ops::Range;

use bytes::Bytes;

/// Where the parts of a request line are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RequestLine {
    pub(super) method: Range<usize>,
    pub(super) target: Range<usize>,
    /// Behind its line break.
    pub(super) end: usize,
}

/// The request line of HTTP/1.0 or 1.1 that `bytes` begin with, with any method that is a token.
pub(super) fn request_line(bytes: &[u8]) -> Option<RequestLine> {
    let line = first_line(bytes)?;
    let first = memchr::memchr(b' ', line)?;
    let last = memchr::memrchr(b' ', line)?;
    let is_token = |byte: &u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(byte);
    let is_version = matches!(&line[last + 1..], b"HTTP/1.0" | b"HTTP/1.1");
    (first > 0 && first + 1 < last && is_version && line[..first].iter().all(is_token)).then(|| {
        RequestLine {
            method: 0..first,
            target: first + 1..last,
            end: line.len() + 2,
        }
    })
}

/// The first line, which ends in CR LF, without that.
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let line_feed = memchr::memchr(b'\n', bytes)?;
    bytes[..line_feed].strip_suffix(b"\r")
}

/// Where the head ends, behind the empty line; all of it when there is none.
pub(super) fn head_end(bytes: &[u8]) -> usize {
    memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at + 4)
}

/// Where the first field of that name is: its whole line, and its value without the blanks around it.
pub(super) fn field(bytes: &[u8], name: &str) -> Option<(Range<usize>, Range<usize>)> {
    let end = head_end(bytes);
    let mut at = memchr::memchr(b'\n', &bytes[..end])? + 1;
    while at < end {
        let line_end = memchr::memchr(b'\n', &bytes[at..end]).map_or(end, |feed| at + feed + 1);
        let line = &bytes[at..line_end];
        if let Some(colon) = memchr::memchr(b':', line)
            && line[..colon].eq_ignore_ascii_case(name.as_bytes())
        {
            let value = &line[colon + 1..];
            let front = value.len() - value.trim_ascii_start().len();
            let length = value.trim_ascii().len();
            let start = at
                + colon
                + 1
                + if length == 0 {
                    value.len().min(front)
                } else {
                    front
                };
            let start = if length == 0 { at + colon + 1 } else { start };
            return Some((at..line_end, start..start + length));
        }
        at = line_end;
    }
    None
}

/// The value of the first field of that name.
pub(super) fn value<'a>(bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    field(bytes, name).map(|(_, value)| &bytes[value])
}

/// Sets a field: the first of that name keeps its place, a new one comes right behind the first line. A message whose first
/// line is cut stays as it is.
pub(super) fn set_field(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    match field(bytes, name) {
        Some((_, place)) => {
            let is_bare = place.is_empty() && bytes[place.start - 1] == b':';
            let front: &[u8] = if is_bare { b" " } else { b"" };
            bytes.splice(place, [front, value].concat());
        }
        None => {
            let Some(line_feed) = memchr::memchr(b'\n', bytes) else {
                return;
            };
            let line = [name.as_bytes(), b": ", value, b"\r\n"].concat();
            bytes.splice(line_feed + 1..=line_feed, line);
        }
    }
}

/// Takes the first field of that name out.
pub(super) fn delete_field(bytes: &mut Vec<u8>, name: &str) {
    if let Some((line, _)) = field(bytes, name) {
        bytes.drain(line);
    }
}

/// The message with a field set: the first of that name keeps its place, a new one comes right behind the first line.
#[must_use]
pub fn with_field(message: &Bytes, name: &str, value: &str) -> Bytes {
    let mut bytes = message.to_vec();
    set_field(&mut bytes, name, value.as_bytes());
    bytes.into()
}

/// Replaces the host of a target in absolute form, and the `Host` field.
pub fn set_host(bytes: &mut Vec<u8>, host: &str) {
    set_authority(bytes, host);
    if value(bytes, "Host").is_some() {
        set_field(bytes, "Host", host.as_bytes());
    }
}

/// Replaces the host of a target in absolute form.
fn set_authority(bytes: &mut Vec<u8>, host: &str) {
    let Some(line) = request_line(bytes) else {
        return;
    };
    let target = &bytes[line.target.clone()];
    if let Some(scheme) = memchr::memmem::find(target, b"://")
        && !target.starts_with(b"/")
    {
        let from = scheme + 3;
        let length = target[from..]
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?'))
            .unwrap_or(target.len() - from);
        let place = line.target.start + from;
        bytes.splice(place..place + length, host.bytes());
    }
}

/// Where the value of the first query parameter of that name is in a target.
pub(super) fn parameter(target: &[u8], name: &str) -> Option<Range<usize>> {
    let mut at = memchr::memchr(b'?', target)? + 1;
    loop {
        let end = memchr::memchr(b'&', &target[at..]).map_or(target.len(), |it| at + it);
        if let Some(value) = target[at..end]
            .strip_prefix(name.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
        {
            return Some(end - value.len()..end);
        }
        if end == target.len() {
            return None;
        }
        at = end + 1;
    }
}

/// Sets a query parameter: the first of that name keeps its place, a new one comes last.
pub(super) fn set_parameter(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let Some(line) = request_line(bytes) else {
        return;
    };
    let target = &bytes[line.target.clone()];
    match parameter(target, name) {
        Some(place) => {
            let start = line.target.start;
            bytes.splice(start + place.start..start + place.end, value.bytes());
        }
        None => {
            let sign = if target.contains(&b'?') { '&' } else { '?' };
            let end = line.target.end;
            bytes.splice(end..end, format!("{sign}{name}={value}").into_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines() {
        for title in [
            "POST /post HTTP/1.0\r\n",
            "GET / HTTP/1.1\r\n",
            "PROPFIND /x HTTP/1.1\r\n",
        ] {
            assert!(request_line(title.as_bytes()).is_some(), "{title:?}");
        }
        for title in [
            "",
            "POST /post HTTP/1.\r\n",
            "GET / HTTP/1.1\r",
            "GET / HTTP/1.400\r\n",
            "GET HTTP/1.1\r\n",
            " / HTTP/1.1\r\n",
        ] {
            assert!(request_line(title.as_bytes()).is_none(), "{title:?}");
        }
    }

    #[test]
    fn fields_are_found() {
        let message = b"POST /post HTTP/1.1\r\nContent-Length: 7\r\nHost:www.w3.org\r\nEmpty:\r\nBlank:  \r\ntrail: x \r\n\r\nHost: body";
        for (name, expected) in [
            ("Content-Length", Some("7")),
            ("content-length", Some("7")),
            ("host", Some("www.w3.org")),
            ("Empty", Some("")),
            ("Blank", Some("")),
            ("Trail", Some("x")),
            ("Absent", None),
            ("Hos", None),
        ] {
            assert_eq!(value(message, name), expected.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn fields_are_set_and_deleted() {
        let cases = [
            (
                "POST /post HTTP/1.1\r\nHost: a\r\n\r\nx",
                "Host",
                "b",
                "POST /post HTTP/1.1\r\nHost: b\r\n\r\nx",
            ),
            (
                "POST /post HTTP/1.1\r\nHost: a\r\n\r\nx",
                "User-Agent",
                "Gor",
                "POST /post HTTP/1.1\r\nUser-Agent: Gor\r\nHost: a\r\n\r\nx",
            ),
            (
                "GET / HTTP/1.1\r\nX:\r\n\r\n",
                "x",
                "1",
                "GET / HTTP/1.1\r\nX: 1\r\n\r\n",
            ),
            ("POST /post HTTP/1.1", "X", "1", "POST /post HTTP/1.1"),
        ];
        for (before, name, value, after) in cases {
            let mut bytes = before.as_bytes().to_vec();
            set_field(&mut bytes, name, value.as_bytes());
            assert_eq!(String::from_utf8_lossy(&bytes), after);
        }
        let mut bytes = b"GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\n\r\n".to_vec();
        delete_field(&mut bytes, "a");
        delete_field(&mut bytes, "absent");
        assert_eq!(bytes, b"GET / HTTP/1.1\r\nB: 2\r\n\r\n");
    }

    #[test]
    fn hosts_are_set() {
        let mut bytes =
            b"POST http://example.com/post HTTP/1.0\r\nHost: example.com\r\n\r\n".to_vec();
        set_host(&mut bytes, "new.com");
        assert_eq!(
            bytes,
            b"POST http://new.com/post HTTP/1.0\r\nHost: new.com\r\n\r\n"
        );
        let mut bytes = b"GET /?u=http://x/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        set_host(&mut bytes, "b");
        assert_eq!(bytes, b"GET /?u=http://x/ HTTP/1.1\r\nHost: b\r\n\r\n");
    }

    #[test]
    fn parameters_are_set() {
        for (before, name, value, after) in [
            ("/post?api_key=1234", "api_key", "1", "/post?api_key=1"),
            ("/post", "api_key", "1", "/post?api_key=1"),
            ("/post?a=b", "api_key", "1", "/post?a=b&api_key=1"),
            ("/?d_type=x&type=1", "type", "2", "/?d_type=x&type=2"),
            ("/?a=1&a=2", "a", "3", "/?a=3&a=2"),
            ("/?a=&b=2", "a", "3", "/?a=3&b=2"),
        ] {
            let mut bytes = format!("GET {before} HTTP/1.1\r\n\r\n").into_bytes();
            set_parameter(&mut bytes, name, value);
            assert_eq!(
                String::from_utf8_lossy(&bytes),
                format!("GET {after} HTTP/1.1\r\n\r\n")
            );
        }
    }
}
