//! GoReplay's middleware protocol: one message a line, in hexadecimal digits.
//!
//! The bytes behind the digits are those of a [`Record`] without the separator: `TYPE ID TIMESTAMP_NS LATENCY_NS`, a line
//! feed, and the HTTP message as it was on the wire. Type 1 is a request, 2 version 1's answer to it, 3 a target's. The
//! same form goes both ways; what does not come back is filtered out.

use bytes::Bytes;

use crate::record::gor::Record;

/// Appends the line of `record`, line feed included.
pub fn encode(record: &Record, line: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let header = record.header();
    line.reserve(2 * (header.len() + record.payload.len()) + 1);
    for byte in header.iter().chain(&record.payload) {
        line.push(DIGITS[usize::from(byte >> 4)]);
        line.push(DIGITS[usize::from(byte & 15)]);
    }
    line.push(b'\n');
}

/// Reads a line, with or without its line feed.
///
/// # Errors
/// Why it is none of the protocol.
pub fn decode(line: &[u8]) -> Result<Record, ProtocolError> {
    let digits = line.trim_ascii();
    if !digits.len().is_multiple_of(2) {
        return Err(ProtocolError::NotHex);
    }
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        let (Some(high), Some(low)) = (value(pair[0]), value(pair[1])) else {
            return Err(ProtocolError::NotHex);
        };
        bytes.push(high << 4 | low);
    }
    Record::parse(&Bytes::from(bytes)).ok_or(ProtocolError::NoHeader)
}

const fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Why a line is not of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// There is something else than pairs of hexadecimal digits.
    #[error("the line is not in hexadecimal digits")]
    NotHex,
    /// It does not begin with a header.
    #[error("the line does not begin with 'TYPE ID TIMESTAMP' and a line feed")]
    NoHeader,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::gor::Kind;
    use crate::time::Timestamp;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_line_of_goreplay_is_read_and_written() {
        let text = b"1 d7921c0c7f000001388709f8 1795381446370345171 0\nGET / HTTP/1.1\r\n\r\n";
        let line: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
        let record = decode(line.as_bytes()).expect("a line");
        assert_eq!(record.kind, Kind::Request);
        assert_eq!(&record.id[..], b"d7921c0c7f000001388709f8");
        assert_eq!(&record.payload[..], b"GET / HTTP/1.1\r\n\r\n");
        let mut again = Vec::new();
        encode(&record, &mut again);
        assert_eq!(again, [line.as_bytes(), b"\n"].concat());
        assert_eq!(decode(&again.to_ascii_uppercase()), Ok(record));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for (line, error) in [
            (&b"abc"[..], ProtocolError::NotHex),
            (b"zz", ProtocolError::NotHex),
            ("\u{e9}".as_bytes(), ProtocolError::NotHex),
            (b"", ProtocolError::NoHeader),
            (b"31203120310d", ProtocolError::NoHeader), // no line feed
            (b"3420612031200a", ProtocolError::NoHeader), // type 4
            (b"3120610a", ProtocolError::NoHeader),     // no time
        ] {
            assert_eq!(decode(line), Err(error), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn every_record_comes_back(
            kind in 0usize..3,
            id in "[0-9a-f]{1,24}",
            time in any::<u64>(),
            latency in any::<u64>(),
            payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let record = Record {
                kind: [Kind::Request, Kind::Response, Kind::Replayed][kind],
                id: Bytes::from(id),
                time: Timestamp::from_nanos(time),
                latency: Some(Duration::from_nanos(latency)),
                payload: Bytes::from(payload),
                offset: 0,
            };
            let mut line = Vec::new();
            encode(&record, &mut line);
            prop_assert_eq!(decode(&line), Ok(record));
        }

        #[test]
        fn any_line_is_read_or_refused(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&line);
        }
    }
}
