//! Content codings (RFC 9110 §8.4.1) taken off, under a bound on what comes out.

use std::borrow::Cow;
use std::io::Read;

use brotli_decompressor::{BrotliDecoderParameter, Decompressor};
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::StreamingDecoder;

use crate::http1::{Body, Fields};

/// The content of a message as the application wrote it.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Content<'a> {
    /// Chunk framing and content codings are taken off.
    Plain(Cow<'a, [u8]>),
    /// The bytes are not what `Content-Encoding` says, or it says something that is not read here.
    Coded(Cow<'a, [u8]>),
    /// More than the bound would come out.
    TooLarge,
}

/// The content of `body`, of at most `most` bytes.
pub(crate) fn content<'a>(fields: Fields<'_>, body: &'a Body, most: usize) -> Content<'a> {
    let plain = body.content();
    if plain.is_empty() {
        return Content::Plain(plain);
    }
    let codings: Vec<&[u8]> = fields.elements("content-encoding").collect();
    if codings.len() > MOST_CODINGS {
        return Content::Coded(plain);
    }
    let mut decoded: Option<Vec<u8>> = None;
    // The last one that was put on comes off first.
    for coding in codings.iter().rev() {
        match decode(coding, decoded.as_deref().unwrap_or(&plain), most) {
            Decoded::Same => {}
            Decoded::Bytes(bytes) => decoded = Some(bytes),
            Decoded::NotThat => return Content::Coded(plain),
            Decoded::TooLarge => return Content::TooLarge,
        }
    }
    match decoded {
        Some(bytes) => Content::Plain(Cow::Owned(bytes)),
        None if plain.len() > most => Content::TooLarge,
        None => Content::Plain(plain),
    }
}

enum Decoded {
    Same,
    Bytes(Vec<u8>),
    NotThat,
    TooLarge,
}

fn decode(coding: &[u8], bytes: &[u8], most: usize) -> Decoded {
    let is = |name: &str| coding.eq_ignore_ascii_case(name.as_bytes());
    if is("identity") {
        Decoded::Same
    } else if is("gzip") || is("x-gzip") {
        read(MultiGzDecoder::new(bytes), most)
    } else if is("deflate") {
        // "deflate" is zlib's format (RFC 9110 §8.4.1.2); some servers send the bare stream.
        if is_zlib(bytes) {
            read(ZlibDecoder::new(bytes), most)
        } else {
            read(DeflateDecoder::new(bytes), most)
        }
    } else if is("br") {
        let mut decoder = Decompressor::new(bytes, 4096);
        // Windows beyond 16 MiB are not part of the coding (RFC 7932 §9.1).
        let _ = decoder.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
        read(decoder, most)
    } else if is("zstd") {
        zstd(bytes, most)
    } else {
        Decoded::NotThat
    }
}

/// RFC 1950 §2.2: method 8, and a check over the first two bytes.
fn is_zlib(bytes: &[u8]) -> bool {
    matches!(bytes, [first, second, ..]
        if first & 15 == 8 && (u16::from(*first) << 8 | u16::from(*second)).is_multiple_of(31))
}

/// The frames of a zstd body, one after the other. What is skippable is skipped.
fn zstd(mut bytes: &[u8], most: usize) -> Decoded {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        if let Some(rest) = behind_skippable(bytes) {
            bytes = rest;
            continue;
        }
        let Ok(mut decoder) = StreamingDecoder::new_with_max_window_size(&mut bytes, ZSTD_WINDOW)
        else {
            return Decoded::NotThat;
        };
        match read(&mut decoder, most - all.len()) {
            Decoded::Bytes(more) if all.is_empty() => all = more,
            Decoded::Bytes(more) => all.extend_from_slice(&more),
            other => return other,
        }
    }
    Decoded::Bytes(all)
}

/// RFC 8878 §3.1.2.
fn behind_skippable(bytes: &[u8]) -> Option<&[u8]> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*magic) & !15 != 0x184d_2a50 {
        return None;
    }
    let (length, rest) = rest.split_first_chunk::<4>()?;
    rest.get(usize::try_from(u32::from_le_bytes(*length)).ok()?..)
}

/// Everything that `decoder` gives, up to `most` bytes: memory grows with what comes out, never with what a header says.
fn read(decoder: impl Read, most: usize) -> Decoded {
    let mut bytes = Vec::new();
    let limit = (most as u64).saturating_add(1);
    match decoder.take(limit).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() > most => Decoded::TooLarge,
        Ok(_) => Decoded::Bytes(bytes),
        Err(_) => Decoded::NotThat,
    }
}

/// More codings, one around the other, than anybody uses.
const MOST_CODINGS: usize = 4;

/// The window that a zstd decoder for HTTP must have, and none needs more than (RFC 9659 §3).
const ZSTD_WINDOW: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::tests::answer;
    use super::*;
    use crate::exchange::Response;

    fn content(response: &Response, most: usize) -> Content<'_> {
        super::content(response.head.fields(), &response.body, most)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn br(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 9, 22);
        encoder.write_all(bytes).unwrap();
        drop(encoder);
        out
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    type Encode = fn(&[u8]) -> Vec<u8>;

    const ENCODERS: [(&str, Encode); 6] = [
        ("gzip", gzip),
        ("X-GZip", gzip),
        ("deflate", zlib),
        ("deflate", deflate),
        ("br", br),
        ("zstd", zstd),
    ];

    fn coded(coding: &str, bytes: &[u8]) -> Response {
        answer(200, &format!("Content-Encoding: {coding}\r\n"), bytes)
    }

    #[test]
    fn every_coding_comes_off() {
        let text = b"{\"items\":[1,2,3]}".repeat(50);
        for (coding, encode) in ENCODERS {
            let response = coded(coding, &encode(&text));
            assert_eq!(
                content(&response, 1 << 20),
                Content::Plain(Cow::Borrowed(&text)),
                "{coding}"
            );
        }
        let twice = coded("gzip, br", &br(&gzip(&text)));
        assert_eq!(
            content(&twice, 1 << 20),
            Content::Plain(Cow::Borrowed(&text))
        );
        let two_frames = coded("zstd", &[zstd(b"one "), zstd(b"two")].concat());
        assert_eq!(
            content(&two_frames, 1 << 20),
            Content::Plain(Cow::Borrowed(b"one two"))
        );
        let identity = coded("identity", b"as it is");
        assert_eq!(
            content(&identity, 100),
            Content::Plain(Cow::Borrowed(b"as it is"))
        );
    }

    #[test]
    fn a_bomb_is_an_outcome() {
        let zeros = vec![0; 8 << 20];
        for (coding, encode) in ENCODERS {
            let bomb = encode(&zeros);
            assert!(bomb.len() < 1 << 20, "{coding} is no bomb: {}", bomb.len());
            assert_eq!(
                content(&coded(coding, &bomb), 64 << 10),
                Content::TooLarge,
                "{coding}"
            );
        }
        assert_eq!(content(&answer(200, "", b"too long"), 4), Content::TooLarge);
    }

    #[test]
    fn what_is_not_what_it_says_stays_as_it_is() {
        for coding in ["gzip", "deflate", "br", "zstd", "compress", "gzip, gzip"] {
            let response = coded(coding, b"\xff\xff no such thing");
            assert_eq!(
                content(&response, 1 << 20),
                Content::Coded(Cow::Borrowed(b"\xff\xff no such thing")),
                "{coding}"
            );
        }
    }

    #[test]
    fn a_cut_stream_is_not_content() {
        let text = b"some text that is long enough to be cut".repeat(20);
        for (coding, encode) in ENCODERS {
            let whole = encode(&text);
            for cut in 1..whole.len() {
                let response = coded(coding, &whole[..cut]);
                // Some prefixes of a bare stream are streams; none may panic or give more than was put in.
                if let Content::Plain(bytes) = content(&response, 1 << 20) {
                    assert!(text.starts_with(&bytes), "{coding} cut at {cut}");
                    assert_ne!(bytes, &text[..], "{coding} cut at {cut}");
                }
            }
        }
    }
}
