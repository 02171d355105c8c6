//! How long a body is, and how it ends: RFC 9112 §6.3, in the clause order of the text.

use crate::exchange::Doubts;
use crate::http1::head::trim_blanks;
use crate::http1::{Fields, Framing, RequestHead, ResponseHead};

/// What a head says about the body behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    /// A body of that framing follows (or none).
    Framed(Framing),
    /// No more HTTP follows on this connection: a tunnel, or another protocol.
    Tunnel,
    /// The head contradicts itself; a server answers 400 and closes.
    Invalid,
}

/// The body of a request, and what makes its length doubtful.
#[must_use]
pub fn of_request(head: &RequestHead) -> (Length, Doubts) {
    let fields = head.fields();
    let mut doubts = Doubts {
        head: head.is_odd(),
        ..Doubts::default()
    };
    doubts.head |= fields.all("Host").count() > 1; // RFC 9112 §3.2: 400
    // Clauses 1 and 2 are about responses.
    let coding = TransferCoding::of(fields, &mut doubts);
    let content_length = ContentLength::of(fields, &mut doubts);
    // Clause 3: Transfer-Encoding overrides Content-Length, and the message is suspicious.
    if coding != TransferCoding::None && content_length != ContentLength::None {
        doubts.transfer_encoding = true;
    }
    if coding != TransferCoding::None && head.is_http10() {
        doubts.transfer_encoding = true; // RFC 9112 §6.1: faulty framing
    }
    let length = match (coding, content_length) {
        // Clause 4.
        (TransferCoding::Chunked, _) => Length::Framed(Framing::Chunked),
        // Clause 4 for a request without chunks: 400. Where a length is given too, servers that do not know the
        // coding go by that.
        (TransferCoding::Other, ContentLength::Valid(length)) => {
            Length::Framed(Framing::Length(length))
        }
        (TransferCoding::Other, _) => Length::Invalid,
        // Clause 5.
        (TransferCoding::None, ContentLength::Invalid | ContentLength::Conflicting(_)) => {
            Length::Invalid
        }
        // Clause 6.
        (TransferCoding::None, ContentLength::Valid(0)) => Length::Framed(Framing::Length(0)),
        (TransferCoding::None, ContentLength::Valid(length)) => {
            Length::Framed(Framing::Length(length))
        }
        // Clause 7.
        (TransferCoding::None, ContentLength::None) => Length::Framed(Framing::None),
    };
    (length, doubts)
}

/// The body of a response to a request with that method (`None`: unknown), and what makes its length doubtful.
#[must_use]
pub fn of_response(head: &ResponseHead, request_method: Option<&[u8]>) -> (Length, Doubts) {
    let fields = head.fields();
    let mut doubts = Doubts {
        head: head.is_odd(),
        ..Doubts::default()
    };
    let status = head.status();
    // Clause 1.
    if status == 101 {
        return (Length::Tunnel, doubts);
    }
    if request_method == Some(b"HEAD") || matches!(status, 100..200 | 204 | 304) {
        return (Length::Framed(Framing::None), doubts);
    }
    // Clause 2.
    if request_method == Some(b"CONNECT") && (200..300).contains(&status) {
        return (Length::Tunnel, doubts);
    }
    let coding = TransferCoding::of(fields, &mut doubts);
    let content_length = ContentLength::of(fields, &mut doubts);
    // Clause 3.
    if coding != TransferCoding::None && content_length != ContentLength::None {
        doubts.transfer_encoding = true;
    }
    let framing = match (coding, content_length) {
        // Clause 4.
        (TransferCoding::Chunked, _) => Framing::Chunked,
        (TransferCoding::Other, _) => Framing::UntilClose,
        // Clause 5: a user agent gives up; the first value is what most of them would have gone by.
        (TransferCoding::None, ContentLength::Conflicting(first)) => Framing::Length(first),
        (TransferCoding::None, ContentLength::Invalid) => Framing::UntilClose,
        // Clause 6.
        (TransferCoding::None, ContentLength::Valid(length)) => Framing::Length(length),
        // Clause 7 is about requests; clause 8.
        (TransferCoding::None, ContentLength::None) => Framing::UntilClose,
    };
    (Length::Framed(framing), doubts)
}

/// What `Transfer-Encoding` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TransferCoding {
    None,
    /// There are chunks; in doubt unless chunked is the last coding and there once.
    Chunked,
    /// There is one, but not chunked.
    Other,
}

impl TransferCoding {
    #[inline]
    fn of(fields: Fields<'_>, doubts: &mut Doubts) -> Self {
        match fields.lack(TRANSFER_ENCODING) {
            true => Self::None,
            false => Self::of_lines(fields, doubts),
        }
    }

    fn of_lines(fields: Fields<'_>, doubts: &mut Doubts) -> Self {
        let mut codings = 0;
        let mut chunked = 0;
        let mut last_is_chunked = false;
        let mut lines = 0;
        for value in fields.framing(TRANSFER_ENCODING) {
            lines += 1;
            doubts.transfer_encoding |= memchr::memchr2(b'\r', b'\n', value).is_some();
            for coding in value.split(|&byte| byte == b',').map(trim_blanks) {
                if coding.is_empty() {
                    continue;
                }
                codings += 1;
                last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
                chunked += usize::from(last_is_chunked);
                let is_token = coding.iter().all(|&byte| super::head::is_token_byte(byte));
                doubts.transfer_encoding |= !is_token;
            }
        }
        if lines == 0 {
            return Self::None;
        }
        doubts.transfer_encoding |= !last_is_chunked || chunked > 1 || lines > 1;
        // Chunked, but not last: a server answers 400. Those that do not, read chunks.
        if chunked > 0 && codings > 0 {
            Self::Chunked
        } else {
            Self::Other
        }
    }
}

/// What `Content-Length` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ContentLength {
    None,
    Valid(u64),
    /// Several different ones; the first.
    Conflicting(u64),
    Invalid,
}

impl ContentLength {
    #[inline]
    fn of(fields: Fields<'_>, doubts: &mut Doubts) -> Self {
        match fields.lack(CONTENT_LENGTH) {
            true => Self::None,
            false => Self::of_lines(fields, doubts),
        }
    }

    fn of_lines(fields: Fields<'_>, doubts: &mut Doubts) -> Self {
        let mut found = Self::None;
        for value in fields.framing(CONTENT_LENGTH) {
            // As nearly always: one field line, with one number.
            if found == Self::None
                && let Some(length) = decimal(value)
            {
                found = Self::Valid(length);
                continue;
            }
            doubts.content_length |= memchr::memchr2(b'\r', b'\n', value).is_some();
            // A list of equal values is what a proxy made of several lines (RFC 9110 §8.6).
            for element in value.split(|&byte| byte == b',').map(trim_blanks) {
                let Some(length) = decimal(element) else {
                    doubts.content_length = true;
                    return Self::Invalid;
                };
                found = match found {
                    Self::None => Self::Valid(length),
                    Self::Valid(first) if first == length => {
                        doubts.content_length = true;
                        found
                    }
                    Self::Valid(first) | Self::Conflicting(first) => {
                        doubts.content_length = true;
                        Self::Conflicting(first)
                    }
                    Self::Invalid => found,
                };
            }
        }
        found
    }
}

const TRANSFER_ENCODING: &str = "Transfer-Encoding";
const CONTENT_LENGTH: &str = "Content-Length";

/// `1*DIGIT` that fits.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    if digits.len() < 19 {
        // Fits, whatever the digits are.
        return digits.iter().try_fold(0u64, |number, &digit| {
            let value = digit.wrapping_sub(b'0');
            (value < 10).then(|| number * 10 + u64::from(value))
        });
    }
    digits.iter().try_fold(0u64, |number, &digit| {
        let value = char::from(digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn only_blanks_are_taken_off_what_frames_a_body() {
        let cases: [(&[u8], Framing); 6] = [
            (b"Transfer-Encoding: \tchunked \t", Framing::Chunked),
            (b"Transfer-Encoding: gzip,\t chunked", Framing::Chunked),
            (b"Transfer-Encoding:\r\n chunked", Framing::Chunked),
            (b"Transfer-Encoding: \x0cchunked", Framing::UntilClose),
            (b"Transfer-Encoding: chunked\x0b", Framing::UntilClose),
            (b"Content-Length: 5\x0c", Framing::UntilClose),
        ];
        for (field, framing) in cases {
            let head = [b"HTTP/1.1 200 OK\r\n", field, b"\r\n\r\n"].concat();
            let head = ResponseHead::parse(Bytes::from(head)).expect("a head");
            let (length, _) = of_response(&head, None);
            assert_eq!(length, Length::Framed(framing), "{}", field.escape_ascii());
        }
    }
}
