//! Heads that follow the grammar of RFC 9112 to the letter: most do. httparse finds their parts; here it is seen to that nothing
//! but what the grammar allows stands between them, and where each line ends.
//!
//! Whatever is not to the letter is left to the careful way of [`super::head`]; what both take, they read alike.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Request, Response, Status};
use memchr::memchr2;

use super::head::{FieldSpan, FieldSpans, NameMarks, Span, narrow};

/// Where the parts of a request head are.
pub(super) struct StrictRequest {
    /// How long the head is.
    pub(super) length: usize,
    pub(super) method: Span,
    pub(super) target: Span,
    pub(super) version: Span,
    pub(super) fields: FieldSpans,
}

/// Where the parts of a response head are.
pub(super) struct StrictResponse {
    /// How long the head is.
    pub(super) length: usize,
    pub(super) version: Span,
    pub(super) status: u16,
    pub(super) reason: Span,
    pub(super) fields: FieldSpans,
}

/// The request head that `bytes` begins with, if it is whole and strict.
pub(super) fn request(bytes: &[u8]) -> Option<StrictRequest> {
    let mut storage = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = Request::new(&mut []);
    let Ok(Status::Complete(length)) = parsed.parse_with_uninit_headers(bytes, &mut storage) else {
        return None;
    };
    let (method, target) = (parsed.method?, parsed.path?);
    // It skips empty lines.
    if offset(bytes, method.as_bytes()) != 0 {
        return None;
    }
    // One blank each: it takes no more.
    let target_end = method.len() + 1 + target.len();
    let version = target_end + 1;
    let line_end = version + VERSION;
    let fields = fields(bytes, parsed.headers, line_end, length)?;
    Some(StrictRequest {
        length,
        method: Span::new(0, method.len()),
        target: Span::new(method.len() + 1, target_end),
        version: Span::new(version, line_end),
        fields,
    })
}

/// The response head that `bytes` begins with, if it is whole and strict.
pub(super) fn response(bytes: &[u8]) -> Option<StrictResponse> {
    // It skips empty lines.
    if bytes.first() != Some(&b'H') {
        return None;
    }
    let mut storage = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = Response::new(&mut []);
    let status = ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        bytes,
        &mut storage,
    );
    let Ok(Status::Complete(length)) = status else {
        return None;
    };
    let code_end = VERSION + 4;
    // The blank before the reason may be missing where there is none.
    let reason = code_end + usize::from(bytes.get(code_end) == Some(&b' '));
    let line_end = match parsed.reason? {
        // So it calls a reason with bytes above 0x7f too.
        "" => reason + memchr2(b'\r', b'\n', &bytes[reason..length])?,
        phrase => reason + phrase.len(),
    };
    let fields = fields(bytes, parsed.headers, line_end, length)?;
    Some(StrictResponse {
        length,
        version: Span::new(0, VERSION),
        status: parsed.code?,
        reason: Span::new(reason, line_end),
        fields,
    })
}

/// The places of the field lines of a head, if each of its lines ends in CRLF; the first line does at `first_end`.
#[inline]
fn fields(
    bytes: &[u8],
    headers: &[Header<'_>],
    first_end: usize,
    length: usize,
) -> Option<FieldSpans> {
    if !ends_line(bytes, first_end) {
        return None;
    }
    let mut at = first_end + 2;
    let mut marks = NameMarks::default();
    let mut spans = Vec::with_capacity(headers.len());
    for header in headers {
        let name = Span::new(at, at + header.name.len());
        marks = marks.with(header.name.as_bytes());
        // An empty value is where it could begin first.
        let behind_colon = at + header.name.len() + 1;
        let value = match header.value {
            [] => behind_colon,
            value => offset(bytes, value),
        };
        let value_end = value + header.value.len();
        let mut line_end = value_end;
        if !ends_line(bytes, line_end) {
            // Blanks behind a value are not part of it.
            let rest = bytes[line_end..].iter();
            line_end += rest.take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            // From here on places would be wrong.
            if !ends_line(bytes, line_end) {
                return None;
            }
        }
        at = line_end + 2;
        spans.push(FieldSpan {
            name,
            value: Span::new(value, value_end),
            line_end: narrow(at),
            exact: true,
        });
    }
    let spans = spans.into_boxed_slice();
    (at + 2 == length).then_some(FieldSpans { spans, marks })
}

#[inline]
fn ends_line(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..at + 2) == Some(b"\r\n")
}

/// Where `part`, a slice of `whole`, begins in it.
#[inline]
fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
}

/// How long a version is.
const VERSION: usize = 8;

/// Field lines that are read this way; a head with more is read the careful way.
const MAX_FIELDS: usize = 64;

#[cfg(test)]
mod tests {
    use std::str;

    use regex::bytes::Regex;

    use super::*;

    /// Heads with any byte changed for any of the bytes that matter, cut anywhere, against the grammar as a regular expression.
    #[test]
    fn what_is_read_is_what_the_grammar_says() {
        let requests: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"PATCH-X /a?b=c%20d HTTP/1.0\r\nHost: example.com\r\nX-1_2: \t a b \t\r\nE:\r\nF: \r\n\r\nrest",
            b"POST /\xc3\xa9/long/long/long HTTP/1.1\r\nContent-Length: 12345678\r\nx!#$%&'*+.^_`|~9: \xff\t\x80\r\n\r\n",
            b"G http://a/ HTTP/1.1\r\nA:b\r\n\r\n",
            b"\r\nGET / HTTP/1.1\r\n\r\n",
        ];
        let responses: [&[u8]; 5] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: x\r\n\r\n",
            b"HTTP/1.0 404\r\nAccess-Control-Allow-Origin: *\r\n\r\nbody",
            b"HTTP/1.1 599 \r\n\r\n",
            b"HTTP/1.1 200 a \xe9\tb \r\nA: b\r\n\r\n",
            b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        ];
        let grammar = Grammar::new();
        for original in requests {
            for bytes in changed(original) {
                grammar.check_request(&bytes);
            }
        }
        for original in responses {
            for bytes in changed(original) {
                grammar.check_response(&bytes);
            }
        }
    }

    /// Places are counted from line to line, two bytes for the end of each.
    #[test]
    fn many_lines_that_end_in_a_bare_line_feed() {
        for lines in 0..64 {
            for line in ["a:\n", "a: \n", "a:b\n", "a:\r\n"] {
                for begin in ["GET / HTTP/1.1", "HTTP/1.1 200", "HTTP/1.1 200 OK"] {
                    let head = format!("{begin}\n{}\n", line.repeat(lines));
                    assert!(request(head.as_bytes()).is_none(), "{head}");
                    assert!(response(head.as_bytes()).is_none(), "{head}");
                }
            }
        }
    }

    fn changed(original: &[u8]) -> Vec<Vec<u8>> {
        let mut all = vec![original.to_vec()];
        for at in 0..original.len() {
            all.push(original[..at].to_vec());
            for &change in b"\r\n \t:\x00\x1f\x7f\x80\xffaZ-09/@[`{(" {
                let mut bytes = original.to_vec();
                bytes[at] = change;
                all.push(bytes.clone());
                bytes.insert(at, original[at]);
                all.push(bytes);
            }
        }
        all
    }

    /// RFC 9112 §3, §4 and §5, with targets as loose as servers take them: any text without blanks.
    struct Grammar {
        request: Regex,
        response: Regex,
        field: Regex,
    }

    impl Grammar {
        fn new() -> Self {
            let token = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+";
            let text = r"[\t\x20-\x7e\x80-\xff]*";
            let fields = format!(r"(?<fields>(?:{token}:{text}\r\n)*)\r\n");
            let version = r"(?<version>HTTP/1\.[01])";
            let regex =
                |pattern: String| Regex::new(&format!("(?-u){pattern}")).expect("a pattern");
            Self {
                request: regex(format!(
                    r"\A(?<method>{token}) (?<target>[\x21-\x7e\x80-\xff]+) {version}\r\n{fields}"
                )),
                response: regex(format!(
                    r"\A{version} (?<status>[0-9]{{3}})(?: (?<reason>{text}))?\r\n{fields}"
                )),
                field: regex(format!(
                    r"(?<name>{token}):[\t ]*(?<value>{text}?)[\t ]*\r\n"
                )),
            }
        }

        fn check_request(&self, bytes: &[u8]) {
            let shown = bytes.escape_ascii();
            let expected = self.request.captures(bytes);
            let expected = expected.filter(|parts| str::from_utf8(&parts["target"]).is_ok());
            let (Some(parts), Some(found)) = (&expected, request(bytes)) else {
                assert!(expected.is_none() && request(bytes).is_none(), "{shown}");
                return;
            };
            assert_eq!(found.length, parts[0].len(), "{shown}");
            assert_eq!(found.method.of_bytes(bytes), &parts["method"], "{shown}");
            assert_eq!(found.target.of_bytes(bytes), &parts["target"], "{shown}");
            assert_eq!(found.version.of_bytes(bytes), &parts["version"], "{shown}");
            self.check_fields(&parts["fields"], &found.fields, bytes);
        }

        fn check_response(&self, bytes: &[u8]) {
            let shown = bytes.escape_ascii();
            let (expected, found) = (self.response.captures(bytes), response(bytes));
            let (Some(parts), Some(found)) = (&expected, &found) else {
                assert!(expected.is_none() && found.is_none(), "{shown}");
                return;
            };
            assert_eq!(found.length, parts[0].len(), "{shown}");
            assert_eq!(found.version.of_bytes(bytes), &parts["version"], "{shown}");
            let status = found.status.to_string();
            assert_eq!(
                format!("{status:0>3}").as_bytes(),
                &parts["status"],
                "{shown}"
            );
            let reason = parts
                .name("reason")
                .map_or(&b""[..], |part| part.as_bytes());
            assert_eq!(found.reason.of_bytes(bytes), reason, "{shown}");
            self.check_fields(&parts["fields"], &found.fields, bytes);
        }

        fn check_fields(&self, lines: &[u8], found: &FieldSpans, bytes: &[u8]) {
            let shown = bytes.escape_ascii();
            let expected: Vec<_> = self.field.captures_iter(lines).collect();
            assert_eq!(found.spans.len(), expected.len(), "{shown}");
            for (found, parts) in found.spans.iter().zip(expected) {
                assert_eq!(found.name.of_bytes(bytes), &parts["name"], "{shown}");
                assert_eq!(found.value.of_bytes(bytes), &parts["value"], "{shown}");
                assert!(
                    bytes[..found.line_end as usize].ends_with(&parts[0]),
                    "{shown}"
                );
            }
        }
    }
}
