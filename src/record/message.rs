//! One message out of one piece of bytes, as recordings hold them.

use bytes::Bytes;
use memchr::memchr;

use crate::account::Reason;
use crate::exchange::{Completeness, Doubts};
use crate::http1::framing::{self, Length};
use crate::http1::{
    Body, Framing, HeadError, RequestHead, ResponseHead, chunk_size, chunk_size_loose, head_length,
};

/// A message, and what lay behind its end.
#[derive(Debug)]
pub(super) struct Parsed<H> {
    pub(super) head: H,
    pub(super) body: Body,
    pub(super) doubts: Doubts,
    pub(super) completeness: Completeness,
    /// Bytes behind the end of the message.
    pub(super) excess: usize,
}

/// Reads a request.
///
/// # Errors
/// When there is no whole head. A body that is shorter than its framing says makes the request incomplete instead.
pub(super) fn request(payload: Bytes) -> Result<Parsed<RequestHead>, HeadError> {
    let (head, rest) = split_head(payload)?;
    let head = RequestHead::parse(head)?;
    let (length, doubts) = framing::of_request(&head);
    Ok(match length {
        Length::Framed(framing) => {
            let mut request = parsed(head, rest, framing, doubts, REQUEST);
            request.doubts.transfer_encoding |= request.body.has_odd_chunks();
            request
        }
        Length::Tunnel => parsed(head, rest, Framing::None, doubts, REQUEST),
        Length::Invalid => Parsed {
            head,
            body: Body {
                framing: Framing::UntilClose,
                wire: rest,
                missing: 0,
            },
            doubts,
            completeness: Completeness::Incomplete(Reason::RequestMalformed),
            excess: 0,
        },
    })
}

/// Reads a response to a request with that method (`None`: unknown), and the status codes of interim ones before it.
///
/// # Errors
/// When there is no whole head of a final response.
pub(super) fn response(
    mut payload: Bytes,
    method: Option<&[u8]>,
) -> Result<(Vec<u16>, Parsed<ResponseHead>), HeadError> {
    let mut interim = Vec::new();
    loop {
        let (head, rest) = split_head(payload)?;
        let head = ResponseHead::parse(head)?;
        if head.is_interim() {
            interim.push(head.status());
            payload = rest;
            continue;
        }
        let (length, doubts) = framing::of_response(&head, method);
        let framing = match length {
            Length::Framed(framing) => framing,
            Length::Tunnel | Length::Invalid => Framing::None,
        };
        return Ok((interim, parsed(head, rest, framing, doubts, RESPONSE)));
    }
}

/// Tells, as a request or a response grows, whether it needs more bytes to be whole. No byte is looked at twice.
#[derive(Debug)]
pub(super) struct Growing {
    is_request: bool,
    /// Where the head, then the body begins.
    at: usize,
    part: Part,
}

#[derive(Debug)]
enum Part {
    /// `from` is for [`head_length`].
    Head {
        from: usize,
    },
    /// The end of the body is known.
    Until(usize),
    Chunks(Chunks),
    /// Everything that comes belongs to it.
    Endless,
    /// Its bytes say that it is no message, or not how long it is.
    Broken,
}

impl Growing {
    pub(super) const fn new(is_request: bool) -> Self {
        Self {
            is_request,
            at: 0,
            part: Part::Head { from: 0 },
        }
    }

    /// Whether `payload`, which begins with that of the call before, needs more bytes. An unfinished head does.
    pub(super) fn needs_more(&mut self, payload: &[u8]) -> bool {
        loop {
            match &mut self.part {
                Part::Head { from } => {
                    self.at += empty_lines(&payload[self.at..]);
                    let Some(length) = head_length(&payload[self.at..], from) else {
                        return true;
                    };
                    let end = self.at + length;
                    let head = Bytes::copy_from_slice(&payload[self.at..end]);
                    self.at = end;
                    self.part = if self.is_request {
                        Self::behind_request_head(head, end)
                    } else {
                        Self::behind_response_head(head, end)
                    };
                }
                Part::Until(end) => return payload.len() < *end,
                Part::Chunks(chunks) => {
                    return matches!(chunks.end(&payload[self.at..]), ChunkedEnd::Cut);
                }
                Part::Endless => return true,
                Part::Broken => return false,
            }
        }
    }

    fn behind_request_head(head: Bytes, at: usize) -> Part {
        match RequestHead::parse(head).map(|head| framing::of_request(&head).0) {
            Ok(Length::Framed(framing)) => Self::body(framing, at, REQUEST),
            Ok(Length::Tunnel) => Part::Until(at),
            Ok(Length::Invalid) | Err(_) => Part::Broken,
        }
    }

    fn behind_response_head(head: Bytes, at: usize) -> Part {
        let Ok(head) = ResponseHead::parse(head) else {
            return Part::Broken;
        };
        if head.is_interim() {
            return Part::Head { from: 0 };
        }
        match framing::of_response(&head, None).0 {
            Length::Framed(framing) => Self::body(framing, at, RESPONSE),
            Length::Tunnel | Length::Invalid => Part::Until(at),
        }
    }

    fn body(framing: Framing, at: usize, rules: Rules) -> Part {
        match framing {
            Framing::None => Part::Until(at),
            Framing::UntilClose => Part::Endless,
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                Part::Until(at.saturating_add(length))
            }
            Framing::Chunked => Part::Chunks(Chunks::new(rules.chunk_size)),
        }
    }
}

/// Splits a message into its head and what follows. Empty lines before it are dropped (RFC 9112 §2.2).
pub(super) fn split_head(mut payload: Bytes) -> Result<(Bytes, Bytes), HeadError> {
    let mut message = payload.split_off(empty_lines(&payload));
    let length = head_length(&message, &mut 0).ok_or(HeadError::Unfinished)?;
    let rest = message.split_off(length);
    Ok((message, rest))
}

fn empty_lines(bytes: &[u8]) -> usize {
    let breaks = bytes.iter();
    breaks
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count()
}

/// What differs between the sides: the reasons for an incomplete message, and how chunk sizes are read.
struct Rules {
    chunk_size: fn(&[u8]) -> Option<u64>,
    cut: Reason,
    malformed: Reason,
}

const REQUEST: Rules = Rules {
    chunk_size,
    cut: Reason::RequestCutByCaptureEnd,
    malformed: Reason::RequestMalformed,
};

const RESPONSE: Rules = Rules {
    chunk_size: chunk_size_loose,
    cut: Reason::ResponseCutByCaptureEnd,
    malformed: Reason::ResponseMalformed,
};

fn parsed<H>(
    head: H,
    mut rest: Bytes,
    framing: Framing,
    doubts: Doubts,
    rules: Rules,
) -> Parsed<H> {
    let here = rest.len();
    let (length, missing, completeness) = match framing {
        Framing::None => (0, 0, Completeness::Whole),
        Framing::UntilClose => (here, 0, Completeness::Whole),
        Framing::Length(wanted) => match usize::try_from(wanted) {
            Ok(wanted) if wanted <= here => (wanted, 0, Completeness::Whole),
            _ => (
                here,
                wanted - here as u64,
                Completeness::Incomplete(rules.cut),
            ),
        },
        Framing::Chunked => match Chunks::new(rules.chunk_size).end(&rest) {
            ChunkedEnd::At(end) => (end, 0, Completeness::Whole),
            ChunkedEnd::Cut => (here, 0, Completeness::Incomplete(rules.cut)),
            ChunkedEnd::Malformed => (here, 0, Completeness::Incomplete(rules.malformed)),
        },
    };
    let excess = rest.split_off(length).len();
    Parsed {
        head,
        body: Body {
            framing,
            wire: rest,
            missing,
        },
        doubts,
        completeness,
        excess,
    }
}

enum ChunkedEnd {
    At(usize),
    Cut,
    Malformed,
}

/// Looks for the end of a chunked body, trailers included (RFC 9112 §7.1).
#[derive(Debug)]
struct Chunks {
    chunk_size: fn(&[u8]) -> Option<u64>,
    at: usize,
    next: Next,
}

/// What lies at [`Chunks::at`].
#[derive(Clone, Copy, Debug)]
enum Next {
    Size,
    /// The line break behind a chunk's data.
    DataEnd,
    Trailer,
}

impl Chunks {
    fn new(chunk_size: fn(&[u8]) -> Option<u64>) -> Self {
        Self {
            chunk_size,
            at: 0,
            next: Next::Size,
        }
    }

    /// Where `body`, which begins with that of the call before, ends.
    fn end(&mut self, body: &[u8]) -> ChunkedEnd {
        loop {
            let Some(left) = body.get(self.at..) else {
                return ChunkedEnd::Cut;
            };
            if matches!(self.next, Next::DataEnd) {
                self.at += match left {
                    [b'\r', b'\n', ..] => 2,
                    [b'\n', ..] => 1,
                    [] | [b'\r'] => return ChunkedEnd::Cut,
                    _ => return ChunkedEnd::Malformed,
                };
                self.next = Next::Size;
                continue;
            }
            let Some(line_feed) = memchr(b'\n', left) else {
                return ChunkedEnd::Cut;
            };
            let line = &left[..line_feed];
            let behind = self.at + line_feed + 1;
            if matches!(self.next, Next::Trailer) {
                self.at = behind;
                if line.iter().all(|&byte| byte == b'\r') {
                    return ChunkedEnd::At(behind);
                }
                continue;
            }
            match (self.chunk_size)(line) {
                None => return ChunkedEnd::Malformed,
                Some(0) => {
                    self.at = behind;
                    self.next = Next::Trailer;
                }
                Some(size) => {
                    let size = usize::try_from(size).unwrap_or(usize::MAX);
                    self.at = behind.saturating_add(size);
                    self.next = Next::DataEnd;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_of_a_request_is_cut_or_has_no_head() {
        for message in [
            &b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
        ] {
            for end in 0..message.len() {
                if let Ok(parsed) = request(Bytes::copy_from_slice(&message[..end])) {
                    assert_eq!(
                        parsed.completeness,
                        Completeness::Incomplete(Reason::RequestCutByCaptureEnd),
                        "{end}"
                    );
                }
            }
            let parsed = request(Bytes::copy_from_slice(message)).unwrap();
            assert!(parsed.completeness.is_whole());
            assert_eq!(parsed.excess, 0);
        }
    }

    #[test]
    fn interim_answers_come_before_the_final_one() {
        let payload =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!";
        let (interim, parsed) = response(Bytes::from_static(payload), Some(b"GET")).unwrap();
        assert_eq!(interim, [100, 103]);
        assert_eq!(parsed.body.wire, "hi");
        assert_eq!(parsed.excess, 1);
    }

    #[test]
    fn the_answer_to_head_has_no_body() {
        let payload = Bytes::from_static(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
        let (_, parsed) = response(payload, Some(b"HEAD")).unwrap();
        assert!(parsed.completeness.is_whole());
    }
}
