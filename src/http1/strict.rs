//! Heads that follow the grammar of RFC 9112 to the letter, read in one pass: most do.
//!
//! Whatever is not to the letter is left to the careful way of [`super::head`]; what both take, they read alike.

use std::str;

use smallvec::SmallVec;

use super::head::{FieldSpan, FieldSpans, NameMarks, Span, is_token_byte, narrow};

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
    let method_end = token_end(bytes, 0);
    if method_end == 0 || bytes.get(method_end) != Some(&b' ') {
        return None;
    }
    let target = method_end + 1;
    let target_end = graphic_end(bytes, target);
    let is_text = || {
        let target = &bytes[target..target_end];
        target.is_ascii() || str::from_utf8(target).is_ok()
    };
    if target_end == target || bytes.get(target_end) != Some(&b' ') || !is_text() {
        return None;
    }
    let version = target_end + 1;
    let line_end = version + VERSION;
    if !is_version(bytes, version) || !ends_line(bytes, line_end) {
        return None;
    }
    let (fields, length) = fields(bytes, line_end + 2)?;
    Some(StrictRequest {
        length,
        method: Span::new(0, method_end),
        target: Span::new(target, target_end),
        version: Span::new(version, line_end),
        fields,
    })
}

/// The response head that `bytes` begins with, if it is whole and strict.
pub(super) fn response(bytes: &[u8]) -> Option<StrictResponse> {
    if !is_version(bytes, 0) {
        return None;
    }
    let &[
        b' ',
        hundreds @ b'0'..=b'9',
        tens @ b'0'..=b'9',
        ones @ b'0'..=b'9',
    ] = bytes.get(VERSION..)?.first_chunk()?
    else {
        return None;
    };
    let digit = |byte: u8| u16::from(byte - b'0');
    let code_end = VERSION + 4;
    // The blank before the reason may be missing where there is none.
    let reason = code_end + usize::from(bytes.get(code_end) == Some(&b' '));
    let line_end = if reason > code_end {
        value_end(bytes, reason)
    } else {
        code_end
    };
    if !ends_line(bytes, line_end) {
        return None;
    }
    let (fields, length) = fields(bytes, line_end + 2)?;
    Some(StrictResponse {
        length,
        version: Span::new(0, VERSION),
        status: digit(hundreds) * 100 + digit(tens) * 10 + digit(ones),
        reason: Span::new(reason, line_end),
        fields,
    })
}

/// The field lines that begin at `at`, and where the head ends.
fn fields(bytes: &[u8], mut at: usize) -> Option<(FieldSpans, usize)> {
    let mut spans: SmallVec<[FieldSpan; 16]> = SmallVec::new();
    let mut marks = NameMarks::default();
    loop {
        let name = at;
        if bytes.get(name) == Some(&b'\r') {
            let spans = spans.as_slice().into();
            return ends_line(bytes, at).then_some((FieldSpans { spans, marks }, at + 2));
        }
        let name_end = token_end(bytes, name);
        let is_named = name_end > name && bytes.get(name_end) == Some(&b':');
        if !is_named || spans.len() == MAX_FIELDS {
            return None;
        }
        let mut value = name_end + 1;
        while matches!(bytes.get(value), Some(b' ' | b'\t')) {
            value += 1;
        }
        let line_end = value_end(bytes, value);
        if !ends_line(bytes, line_end) {
            return None;
        }
        let mut value_end = line_end;
        while value_end > value && matches!(bytes[value_end - 1], b' ' | b'\t') {
            value_end -= 1;
        }
        // An empty value is where it could begin first.
        let value = if value_end == value {
            Span::new(name_end + 1, name_end + 1)
        } else {
            Span::new(value, value_end)
        };
        at = line_end + 2;
        marks = marks.with(&bytes[name..name_end]);
        spans.push(FieldSpan {
            name: Span::new(name, name_end),
            value,
            line_end: narrow(at),
            exact: true,
        });
    }
}

/// Whether the only versions that are strict stand there.
fn is_version(bytes: &[u8], at: usize) -> bool {
    let version = bytes.get(at..).and_then(<[u8]>::first_chunk::<VERSION>);
    matches!(version, Some(b"HTTP/1.1" | b"HTTP/1.0"))
}

fn ends_line(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at..), Some([b'\r', b'\n', ..]))
}

/// Where the first byte is, at or behind `at`, that no token has (RFC 9110 §5.6.2).
#[inline(always)]
fn token_end(bytes: &[u8], mut at: usize) -> usize {
    // Letters and hyphens, which most names are made of.
    while let Some(block) = block_at(bytes, at) {
        let others = !letters_and_hyphens(block);
        at += others.trailing_zeros() as usize;
        if others & 0xffff != 0 {
            break;
        }
    }
    while bytes
        .get(at)
        .is_some_and(|&byte| byte != b':' && is_token_byte(byte))
    {
        at += 1;
    }
    at
}

/// Where the first byte is, at or behind `at`, that no field value has: a control byte other than a tab.
#[inline(always)]
fn value_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(block) = block_at(bytes, at) {
        let controls = controls(block);
        if controls == 0 {
            at += BLOCK;
            continue;
        }
        at += controls.trailing_zeros() as usize;
        if bytes[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    while bytes
        .get(at)
        .is_some_and(|byte| !byte.is_ascii_control() || *byte == b'\t')
    {
        at += 1;
    }
    at
}

/// Where the first byte is, at or behind `at`, that is a blank or a control byte.
#[inline(always)]
fn graphic_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(block) = block_at(bytes, at) {
        let others = controls_and_blanks(block);
        if others != 0 {
            return at + others.trailing_zeros() as usize;
        }
        at += BLOCK;
    }
    while bytes
        .get(at)
        .is_some_and(|&byte| byte > b' ' && byte != 0x7f)
    {
        at += 1;
    }
    at
}

/// Bytes that are looked at together.
const BLOCK: usize = 16;

#[inline(always)]
fn block_at(bytes: &[u8], at: usize) -> Option<&[u8; BLOCK]> {
    bytes.get(at..)?.first_chunk()
}

/// A bit for each byte, the first lowest: whether it is a letter or a hyphen.
#[inline(always)]
fn letters_and_hyphens(block: &[u8; BLOCK]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return sse2::letters_and_hyphens(block);
    #[cfg(not(target_arch = "x86_64"))]
    return one_by_one(block, |byte| byte.is_ascii_alphabetic() || byte == b'-');
}

/// A bit for each byte, the first lowest: whether it is a control byte, tabs among them.
#[inline(always)]
fn controls(block: &[u8; BLOCK]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return sse2::at_most_or_delete(block, 0x1f);
    #[cfg(not(target_arch = "x86_64"))]
    return one_by_one(block, |byte| byte.is_ascii_control());
}

/// A bit for each byte, the first lowest: whether it is a control byte or a blank.
#[inline(always)]
fn controls_and_blanks(block: &[u8; BLOCK]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return sse2::at_most_or_delete(block, b' ');
    #[cfg(not(target_arch = "x86_64"))]
    return one_by_one(block, |byte| byte.is_ascii_control() || byte == b' ');
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn one_by_one(block: &[u8; BLOCK], is: impl Fn(u8) -> bool) -> u32 {
    let bits = block.iter().rev();
    bits.fold(0, |bits, &byte| bits << 1 | u32::from(is(byte)))
}

/// Instructions that the compiler does not find by itself; they take a quarter off the price of a head.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "every x86-64 processor has SSE2")]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x,
        _mm_set1_epi8, _mm_sub_epi8,
    };

    use super::BLOCK;

    #[inline(always)]
    pub(super) fn letters_and_hyphens(block: &[u8; BLOCK]) -> u32 {
        // SAFETY: every x86-64 processor has SSE2.
        unsafe {
            let bytes = load(block);
            let lower = _mm_or_si128(bytes, each(0x20));
            let letters = at_most(_mm_sub_epi8(lower, each(b'a')), b'z' - b'a');
            let hyphens = _mm_cmpeq_epi8(bytes, each(b'-'));
            _mm_movemask_epi8(_mm_or_si128(letters, hyphens)).cast_unsigned()
        }
    }

    #[inline(always)]
    pub(super) fn at_most_or_delete(block: &[u8; BLOCK], high: u8) -> u32 {
        // SAFETY: every x86-64 processor has SSE2.
        unsafe {
            let bytes = load(block);
            let deletes = _mm_cmpeq_epi8(bytes, each(0x7f));
            _mm_movemask_epi8(_mm_or_si128(at_most(bytes, high), deletes)).cast_unsigned()
        }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(block: &[u8; BLOCK]) -> __m128i {
        let (words, _) = block.as_chunks::<8>();
        let [low, high] = [words[0], words[1]].map(i64::from_le_bytes);
        _mm_set_epi64x(high, low)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn each(byte: u8) -> __m128i {
        _mm_set1_epi8(byte.cast_signed())
    }

    /// Marks the bytes that are at most `high`.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn at_most(bytes: __m128i, high: u8) -> __m128i {
        _mm_cmpeq_epi8(_mm_min_epu8(bytes, each(high)), bytes)
    }
}

/// How long a version is.
const VERSION: usize = 8;

/// Field lines that are read this way; a head with more is read the careful way.
const MAX_FIELDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_each_byte() {
        for first in 0..=u8::MAX {
            let block = std::array::from_fn(|at| first.wrapping_add((at * 7) as u8));
            let plain = one_by_one(&block, |byte| byte.is_ascii_alphabetic() || byte == b'-');
            assert_eq!(letters_and_hyphens(&block), plain);
            let control = one_by_one(&block, |byte| byte.is_ascii_control());
            assert_eq!(controls(&block), control);
            let blank = one_by_one(&block, |byte| byte.is_ascii_control() || byte == b' ');
            assert_eq!(controls_and_blanks(&block), blank);
        }
    }

    /// Heads with any byte changed for any of the bytes that matter, cut anywhere: httparse, which goes by the same grammar but takes
    /// bare line feeds too, says the same of all that is taken here, and takes no more than that with CRLF everywhere.
    #[test]
    fn what_is_read_is_what_httparse_reads() {
        let requests: [&[u8]; 4] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"PATCH-X /a?b=c%20d HTTP/1.0\r\nHost: example.com\r\nX-1_2: \t a b \t\r\nE:\r\nF: \r\n\r\nrest",
            b"POST /\xc3\xa9/long/long/long HTTP/1.1\r\nContent-Length: 12345678\r\nx!#$%&'*+.^_`|~9: \xff\t\x80\r\n\r\n",
            b"G http://a/ HTTP/1.1\r\nA:b\r\n\r\n",
        ];
        let responses: [&[u8]; 4] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: x\r\n\r\n",
            b"HTTP/1.0 404\r\nAccess-Control-Allow-Origin: *\r\n\r\nbody",
            b"HTTP/1.1 599 \r\n\r\n",
            b"HTTP/1.1 200 a \xe9\tb \r\nA: b\r\n\r\n",
        ];
        let changes = b"\r\n \t:\x00\x1f\x7f\x80\xffaZ-09/@[`{(\x20";
        for original in requests {
            check_request(original);
            for at in 0..original.len() {
                check_request(&original[..at]);
                for &change in changes {
                    let mut bytes = original.to_vec();
                    bytes[at] = change;
                    check_request(&bytes);
                    bytes.insert(at, original[at]);
                    check_request(&bytes);
                }
            }
        }
        for original in responses {
            check_response(original);
            for at in 0..original.len() {
                check_response(&original[..at]);
                for &change in changes {
                    let mut bytes = original.to_vec();
                    bytes[at] = change;
                    check_response(&bytes);
                    bytes.insert(at, original[at]);
                    check_response(&bytes);
                }
            }
        }
    }

    fn check_request(bytes: &[u8]) {
        let mut storage = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut storage);
        let status = parsed.parse(bytes);
        let shown = bytes.escape_ascii();
        let Some(found) = request(bytes) else {
            let strict = status.is_ok_and(|status| {
                matches!(status, httparse::Status::Complete(length) if is_strict(&bytes[..length]))
            });
            assert!(!strict, "not read: {shown}");
            return;
        };
        assert_eq!(
            status,
            Ok(httparse::Status::Complete(found.length)),
            "{shown}"
        );
        assert_eq!(
            parsed.method.map(str::as_bytes),
            Some(found.method.of_bytes(bytes)),
            "{shown}"
        );
        assert_eq!(
            parsed.path.map(str::as_bytes),
            Some(found.target.of_bytes(bytes)),
            "{shown}"
        );
        check_fields(parsed.headers, &found.fields, bytes);
    }

    fn check_response(bytes: &[u8]) {
        let mut storage = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut storage);
        let status = parsed.parse(bytes);
        let shown = bytes.escape_ascii();
        let Some(found) = response(bytes) else {
            let strict = status.is_ok_and(|status| {
                matches!(status, httparse::Status::Complete(length) if is_strict(&bytes[..length]))
            });
            assert!(!strict, "not read: {shown}");
            return;
        };
        assert_eq!(
            status,
            Ok(httparse::Status::Complete(found.length)),
            "{shown}"
        );
        assert_eq!(parsed.code, Some(found.status), "{shown}");
        let reason = found.reason.of_bytes(bytes);
        if reason.is_ascii() {
            assert_eq!(parsed.reason.map(str::as_bytes), Some(reason), "{shown}");
        }
        check_fields(parsed.headers, &found.fields, bytes);
    }

    fn check_fields(expected: &[httparse::Header<'_>], found: &FieldSpans, bytes: &[u8]) {
        let shown = bytes.escape_ascii();
        assert_eq!(expected.len(), found.spans.len(), "{shown}");
        for (expected, found) in expected.iter().zip(&found.spans) {
            assert_eq!(
                expected.name.as_bytes(),
                found.name.of_bytes(bytes),
                "{shown}"
            );
            assert_eq!(expected.value, found.value.of_bytes(bytes), "{shown}");
            assert!(
                bytes[..found.line_end as usize].ends_with(b"\r\n"),
                "{shown}"
            );
        }
    }

    /// Whether a head that httparse takes is one to the letter: no bare line feed, and no empty line before it.
    fn is_strict(head: &[u8]) -> bool {
        let all_right = memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r');
        all_right && !head.starts_with(b"\r")
    }
}
