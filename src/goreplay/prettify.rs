//! `--prettify-http`: bodies without chunk framing and compression.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::place;
use crate::http1::{Body, Framing};

/// The message with its body decoded and `Content-Length` set to what that has; one that needs no decoding, or whose body
/// cannot be decoded, stays as it is.
#[must_use]
pub fn prettify(payload: &Bytes) -> Bytes {
    let is = |name, token: &[u8]| {
        place::value(payload, name).is_some_and(|value| value.eq_ignore_ascii_case(token))
    };
    let (is_chunked, is_gzipped) = (
        is("Transfer-Encoding", b"chunked"),
        is("Content-Encoding", b"gzip"),
    );
    if !is_chunked && !is_gzipped {
        return payload.clone();
    }
    let head = place::head_end(payload);
    let mut body = payload.slice(head..);
    if is_chunked {
        let framed = Body {
            framing: Framing::Chunked,
            wire: body.clone(),
            missing: 0,
        };
        body = framed.content().into_owned().into();
    }
    if is_gzipped {
        let mut unpacked = Vec::new();
        let decoder = MultiGzDecoder::new(&body[..]);
        let read = decoder.take(MOST + 1).read_to_end(&mut unpacked);
        if read.is_err() || unpacked.len() as u64 > MOST {
            return payload.clone();
        }
        body = unpacked.into();
    }
    let mut message = payload[..head].to_vec();
    if is_chunked {
        place::delete_field(&mut message, "Transfer-Encoding");
        place::delete_field(&mut message, "Trailer");
    }
    if is_gzipped {
        place::delete_field(&mut message, "Content-Encoding");
    }
    place::set_field(
        &mut message,
        "Content-Length",
        body.len().to_string().as_bytes(),
    );
    message.extend_from_slice(&body);
    message.into()
}

/// The largest body that is unpacked.
const MOST: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    fn text(payload: &[u8]) -> String {
        String::from_utf8_lossy(&prettify(&Bytes::copy_from_slice(payload))).into_owned()
    }

    #[test]
    fn chunks_go() {
        let wikipedia = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n5\r\npedia\r\nE\r\n in\r\n\r\nchunks.\r\n0\r\n\r\n";
        assert_eq!(
            text(wikipedia),
            "POST / HTTP/1.1\r\nContent-Length: 23\r\nHost: x\r\n\r\nWikipedia in\r\n\r\nchunks."
        );
    }

    #[test]
    fn compression_goes() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"test").expect("memory");
        let packed = encoder.finish().expect("memory");
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Encoding: gzip\r\n\r\n",
            packed.len()
        );
        let whole = [head.as_bytes(), &packed].concat();
        assert_eq!(
            text(&whole),
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntest"
        );
        let chunk = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            packed.len()
        );
        let both = [chunk.as_bytes(), &packed, b"\r\n0\r\n\r\n"].concat();
        assert_eq!(
            text(&both),
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntest"
        );
    }

    #[test]
    fn what_needs_nothing_or_cannot_be_unpacked_stays() {
        for plain in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\ntest",
            b"no http",
            b"",
        ] {
            assert_eq!(prettify(&Bytes::copy_from_slice(plain)), plain);
        }
    }
}
