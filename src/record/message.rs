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
        Length::Framed(framing) => parsed(head, rest, framing, doubts, REQUEST),
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

/// Whether bytes that hold a request or a response need more bytes to be whole.
pub(super) fn needs_more(payload: &Bytes, is_request: bool) -> bool {
    let cut = |completeness| {
        matches!(
            completeness,
            Completeness::Incomplete(
                Reason::RequestCutByCaptureEnd | Reason::ResponseCutByCaptureEnd
            )
        )
    };
    if is_request {
        request(payload.clone()).is_ok_and(|parsed| cut(parsed.completeness))
    } else {
        response(payload.clone(), None).is_ok_and(|(_, parsed)| {
            cut(parsed.completeness) || parsed.body.framing == Framing::UntilClose
        })
    }
}

/// Splits a message into its head and what follows. Empty lines before it are dropped (RFC 9112 §2.2).
pub(super) fn split_head(mut payload: Bytes) -> Result<(Bytes, Bytes), HeadError> {
    let empty = payload
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let mut message = payload.split_off(empty);
    let length = head_length(&message, &mut 0).ok_or(HeadError::Unfinished)?;
    let rest = message.split_off(length);
    Ok((message, rest))
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
        Framing::Chunked => match chunked_end(&rest, rules.chunk_size) {
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

/// Where a chunked body ends, trailers included (RFC 9112 §7.1).
fn chunked_end(body: &[u8], chunk_size: fn(&[u8]) -> Option<u64>) -> ChunkedEnd {
    let mut at = 0;
    loop {
        let Some(line_feed) = memchr(b'\n', &body[at..]) else {
            return ChunkedEnd::Cut;
        };
        let Some(size) = chunk_size(&body[at..at + line_feed]) else {
            return ChunkedEnd::Malformed;
        };
        at += line_feed + 1;
        if size == 0 {
            break;
        }
        let left = body.len() - at;
        match usize::try_from(size) {
            Ok(size) if size <= left => at += size,
            _ => return ChunkedEnd::Cut,
        }
        match &body[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [b'\n', ..] => at += 1,
            [] | [b'\r'] => return ChunkedEnd::Cut,
            _ => return ChunkedEnd::Malformed,
        }
    }
    loop {
        let Some(line_feed) = memchr(b'\n', &body[at..]) else {
            return ChunkedEnd::Cut;
        };
        let is_empty = body[at..at + line_feed].iter().all(|&byte| byte == b'\r');
        at += line_feed + 1;
        if is_empty {
            return ChunkedEnd::At(at);
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
