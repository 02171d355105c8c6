//! Message bodies: the bytes as they were on the wire, and the content in them.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memchr;

/// How the length of a body was told (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is none.
    None,
    /// By `Content-Length`, in bytes.
    Length(u64),
    /// By `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// A message body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    /// How its length was told.
    pub framing: Framing,
    /// The bytes as they were on the wire, chunk framing and trailers included; without the ones that are missing.
    pub wire: Bytes,
    /// Bytes that are known to be missing: not captured, or over the bound.
    pub missing: u64,
}

impl Body {
    /// No body at all.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            framing: Framing::None,
            wire: Bytes::new(),
            missing: 0,
        }
    }

    /// The content: the wire bytes with the chunk framing taken off, content codings left on.
    ///
    /// Of a damaged chunked body it is what the chunks hold up to the damage.
    #[must_use]
    pub fn content(&self) -> Cow<'_, [u8]> {
        if self.framing != Framing::Chunked {
            return Cow::Borrowed(&self.wire);
        }
        let mut content = Vec::with_capacity(self.wire.len());
        let mut chunks = Chunks::of(&self.wire);
        while let Some(chunk) = chunks.next_chunk() {
            content.extend_from_slice(chunk);
        }
        Cow::Owned(content)
    }

    /// The trailer section as sent, from behind the last chunk to the empty line; empty when there is none.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        if self.framing != Framing::Chunked {
            return &[];
        }
        let mut chunks = Chunks::of(&self.wire);
        while chunks.next_chunk().is_some() {}
        chunks.rest
    }

    /// Whether a line of its chunk framing or of its trailers ends in anything but one CRLF: servers differ in what they take for
    /// the end of such a line (RFC 9112 §2.2, §7.1), and so in where the body ends.
    #[must_use]
    pub fn has_odd_chunks(&self) -> bool {
        if self.framing != Framing::Chunked {
            return false;
        }
        let mut chunks = Chunks::of(&self.wire);
        while chunks.next_chunk().is_some() {}
        chunks.odd
            || chunks
                .rest
                .split_inclusive(|&byte| byte == b'\n')
                .any(is_odd)
    }

    /// Whether its chunk framing says more than where the chunks end: extensions, trailers, or odd lines.
    #[must_use]
    pub fn says_more_than_content(&self) -> bool {
        if self.framing != Framing::Chunked {
            return false;
        }
        let mut chunks = Chunks::of(&self.wire);
        while chunks.next_chunk().is_some() {}
        chunks.odd || chunks.extended || !matches!(chunks.rest, b"\r\n" | b"")
    }
}

/// Walks the chunks of a body whose framing was already found good.
struct Chunks<'a> {
    rest: &'a [u8],
    /// Whether a line has ended in anything but CRLF.
    odd: bool,
    /// Whether something stood behind a size.
    extended: bool,
}

impl<'a> Chunks<'a> {
    const fn of(wire: &'a [u8]) -> Self {
        Self {
            rest: wire,
            odd: false,
            extended: false,
        }
    }

    fn next_chunk(&mut self) -> Option<&'a [u8]> {
        let line_feed = memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at(line_feed + 1);
        let size = chunk_size_loose(line)?;
        self.odd |= is_odd(line);
        self.extended |= line.contains(&b';');
        self.rest = rest;
        if size == 0 {
            return None;
        }
        let take = usize::try_from(size)
            .unwrap_or(usize::MAX)
            .min(self.rest.len());
        let (chunk, rest) = self.rest.split_at(take);
        self.odd |= rest.starts_with(b"\n");
        self.rest = rest
            .strip_prefix(b"\r\n")
            .or_else(|| rest.strip_prefix(b"\n"))
            .unwrap_or(rest);
        Some(chunk)
    }
}

/// Whether a line, its LF included, ends in anything but one CRLF.
fn is_odd(line: &[u8]) -> bool {
    line.strip_suffix(b"\r\n")
        .is_none_or(|line| line.contains(&b'\r'))
}

/// The size in a chunk's first line, without its LF; `None` when a careful server refuses it (RFC 9112 §7.1).
///
/// Blanks before the extension or the line's end are taken, as every common server does.
#[must_use]
pub fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (size, rest) = leading_size(line)?;
    let rest = rest.trim_ascii_start();
    let is_clean = (rest.is_empty() || rest[0] == b';') && memchr(b'\r', rest).is_none();
    is_clean.then_some(size)
}

/// The size in the first line of a chunk of a response: user agents take whatever begins with a number, as `strtoul` does.
#[must_use]
pub(crate) fn chunk_size_loose(line: &[u8]) -> Option<u64> {
    let line = line.trim_ascii_start();
    let line = line.strip_prefix(b"+").unwrap_or(line);
    let (size, rest) = leading_size(line)?;
    match (line, rest) {
        ([b'0', b'x' | b'X', ..], [_, rest @ ..]) => {
            Some(leading_size(rest).map_or(size, |(size, _)| size))
        }
        _ => Some(size),
    }
}

fn leading_size(line: &[u8]) -> Option<(u64, &[u8])> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    if digits == 0 {
        return None;
    }
    let size = line[..digits].iter().try_fold(0u64, |size, &digit| {
        let value = char::from(digit).to_digit(16)?;
        size.checked_mul(16)?.checked_add(u64::from(value))
    })?;
    Some((size, &line[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_chunks_are_read_as_their_receivers_read_them() {
        // The line, what a server makes of it, and what a user agent makes of it.
        let cases: [(&[u8], Option<u64>, Option<u64>); 14] = [
            (b"1f\r", Some(31), Some(31)),
            (b"001F", Some(31), Some(31)),
            (b"5 ;x=y\r", Some(5), Some(5)),
            (b" 5", None, Some(5)),
            (b"5 x", None, Some(5)),
            (b"5g", None, Some(5)),
            (b"+5", None, Some(5)),
            (b"0x14\r", None, Some(20)),
            (b"0X14\r", None, Some(20)),
            (b"0x\r", None, Some(0)),
            (b"00x14", None, Some(0)),
            (b"-5", None, None),
            (b"x14", None, None),
            (b"10000000000000000", None, None),
        ];
        for (line, server, user_agent) in cases {
            let shown = line.escape_ascii();
            assert_eq!(chunk_size(line), server, "{shown}");
            assert_eq!(chunk_size_loose(line), user_agent, "{shown}");
        }
    }

    #[test]
    fn lines_of_chunks_that_end_oddly_are_told() {
        // The wire, whether its lines are odd, and whether it says more than its content.
        let cases: [(&[u8], bool, bool); 12] = [
            (b"3\r\nabc\r\n0\r\n\r\n", false, false),
            (b"0\r\n\r\n", false, false),
            (b"4\r\na\nb\r\r\n0\r\n\r\n", false, false),
            (b"3;x=y\r\nabc\r\n0\r\n\r\n", false, true),
            (b"3\r\nabc\r\n0;last\r\n\r\n", false, true),
            (b"3\r\nabc\r\n0\r\nA: b\r\nC: d\r\n\r\n", false, true),
            (b"3\nabc\r\n0\r\n\r\n", true, true),
            (b"3\r\nabc\n0\r\n\r\n", true, true),
            (b"3\r\nabc\r\n0\n\r\n", true, true),
            (b"3\r\nabc\r\n0\r\n\n", true, true),
            (b"3\r\nabc\r\n0\r\nA: b\n\r\n", true, true),
            (b"3\r\r\nabc\r\n0\r\n\r\n", true, true),
        ];
        for (wire, odd, more) in cases {
            let body = Body {
                framing: Framing::Chunked,
                wire: Bytes::from_static(wire),
                missing: 0,
            };
            let shown = wire.escape_ascii();
            assert_eq!(body.has_odd_chunks(), odd, "{shown}");
            assert_eq!(body.says_more_than_content(), more, "{shown}");
        }
    }
}
