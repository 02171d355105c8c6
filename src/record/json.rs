//! JSON written straight into a buffer: what the line and HAR formats share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// Appends `bytes` as a JSON string, each byte as the code point of the same number (ISO 8859-1).
pub(super) fn push_latin1(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let mut rest = bytes;
    // Runs of bytes that stand for themselves are copied at once.
    while let Some(at) = rest.iter().position(|&byte| !is_plain(byte)) {
        out.extend_from_slice(&rest[..at]);
        push_escaped(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Appends `text` as a JSON string.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest
        .iter()
        .position(|&byte| !is_plain(byte) && byte.is_ascii())
    {
        out.extend_from_slice(&rest[..at]);
        push_escaped(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Appends a decimal number.
pub(super) fn push_number(out: &mut Vec<u8>, number: impl Into<u64>) {
    let mut number = number.into();
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends `parts`, one after the other, as one base64 JSON string (RFC 4648 §4, padded).
pub(super) fn push_base64(out: &mut Vec<u8>, parts: [&[u8]; 2]) {
    let [first, second] = parts;
    out.push(b'"');
    // Groups of three bytes become four characters: the group that spans the seam is put together by hand.
    let whole = first.len() - first.len() % 3;
    let borrowed = ((3 - first.len() % 3) % 3).min(second.len());
    let mut seam = [0; 3];
    let seam_len = first.len() - whole + borrowed;
    seam[..first.len() - whole].copy_from_slice(&first[whole..]);
    seam[first.len() - whole..seam_len].copy_from_slice(&second[..borrowed]);
    for part in [&first[..whole], &seam[..seam_len], &second[borrowed..]] {
        let at = out.len();
        out.resize(at + part.len().div_ceil(3) * 4, 0);
        let written = STANDARD.encode_slice(part, &mut out[at..]);
        debug_assert_eq!(written, Ok(out.len() - at));
    }
    out.push(b'"');
}

/// Appends the SHA-256 of `bytes` as a JSON string of 64 hex digits.
pub(super) fn push_sha256(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for byte in Sha256::digest(bytes) {
        out.extend_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
    }
    out.push(b'"');
}

/// The bytes of a latin-1 string as [`push_latin1`] wrote it; code points above U+00FF become their UTF-8 bytes.
pub(super) fn latin1_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for letter in text.chars() {
        match u8::try_from(u32::from(letter)) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'!' | b'#'..=b'[' | b']'..=0x7f)
}

fn push_escaped(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0xa0.. => out.extend_from_slice(&[0xc0 | byte >> 6, 0x80 | byte & 0x3f]),
        // C1 controls are escaped too: many a tool takes U+0085 for the end of a line.
        _ => out.extend_from_slice(&[
            b'\\',
            b'u',
            b'0',
            b'0',
            hex_digit(byte >> 4),
            hex_digit(byte & 15),
        ]),
    }
}

pub(super) const fn hex_digit(value: u8) -> u8 {
    b"0123456789abcdef"[(value & 15) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_byte_string_survives(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            push_latin1(&mut out, &bytes);
            let text: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(text.chars().map(u32::from).collect::<Vec<_>>(),
                bytes.iter().map(|&byte| u32::from(byte)).collect::<Vec<_>>());
            prop_assert_eq!(latin1_bytes(&text), bytes);
        }

        #[test]
        fn every_text_survives(text in any::<String>()) {
            let mut out = Vec::new();
            push_text(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn base64_does_not_show_the_seam(first in prop::collection::vec(any::<u8>(), 0..20), second in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut out = Vec::new();
            push_base64(&mut out, [&first, &second]);
            let text: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(text, STANDARD.encode([first, second].concat()));
        }

        #[test]
        fn numbers_are_as_the_standard_library_prints_them(number in any::<u64>()) {
            let mut out = Vec::new();
            push_number(&mut out, number);
            prop_assert_eq!(out, number.to_string().into_bytes());
        }
    }
}
