//! The format of GoReplay: raw HTTP messages between lines of three monkeys.
//!
//! A record is `TYPE ID TIMESTAMP_NS LATENCY_NS`, a line feed, the message as it was on the wire, and [`SEPARATOR`]. Type
//! 1 is a request, 2 version 1's answer, 3 a target's answer; the three share an id. The id is 24 hex digits: client port,
//! server port, client address (its last four bytes), and eight more that tell the requests of a connection apart.
//! Times are of the message's first byte; the latency of types 1 and 2 is the time from there to the last byte, that of
//! type 3 the time that the target took.

mod pairing;
mod read;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;

use super::json::hex_digit;
use super::json::push_number;
use super::message::{self, Growing};
use crate::exchange::{Doubts, Endpoints, ExchangeId};
use crate::http1::{Body, RequestHead};
use crate::time::Timestamp;

pub(super) use self::pairing::Pairing;
pub use self::read::Records;

/// What ends every record.
pub const SEPARATOR: &[u8] = "\n🐵🙈🙉\n".as_bytes();

/// What a record holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Type 1.
    Request,
    /// Type 2: the answer of version 1.
    Response,
    /// Type 3: the answer of a target.
    Replayed,
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// What it holds.
    pub kind: Kind,
    /// Ties a request to its answers. Not unique: GoReplay's ids come again over time.
    pub id: Bytes,
    /// When the message's first byte was captured; of type 3, when the request was sent.
    pub time: Timestamp,
    /// The fourth field, when it is there and not negative.
    pub latency: Option<Duration>,
    /// The message as it was on the wire.
    pub payload: Bytes,
    /// Where in the (unpacked) file the record begins, in bytes; 0 where there is no file.
    pub offset: u64,
}

impl Record {
    /// Reads a header line, its line feed and a payload; `None` when the header is none.
    #[must_use]
    pub fn parse(bytes: &Bytes) -> Option<Self> {
        let line_feed = memchr::memchr(b'\n', bytes)?;
        let header = read::parse_header(&bytes[..line_feed])?;
        Some(Self {
            kind: header.kind,
            id: bytes.slice_ref(header.id),
            time: header.time,
            latency: header.latency,
            payload: bytes.slice(line_feed + 1..),
            offset: 0,
        })
    }

    /// The header line, with its line feed.
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(64);
        append_header(
            &mut line,
            self.kind,
            &self.id,
            self.time,
            self.latency.unwrap_or_default(),
        );
        line
    }

    /// The request that it holds: one, whole, and nothing behind it.
    #[must_use]
    pub fn request(&self) -> Option<(RequestHead, Body, Doubts)> {
        let parsed = message::request(self.payload.clone()).ok()?;
        (parsed.completeness.is_whole() && parsed.excess == 0).then_some((
            parsed.head,
            parsed.body,
            parsed.doubts,
        ))
    }

    /// Appends the record as a file has it.
    ///
    /// Gives `false`, and appends nothing, when no reader would get it back: it is too long, or holds monkeys that must be
    /// taken for its end.
    #[must_use]
    pub fn append(&self, out: &mut Vec<u8>) -> bool {
        let latency = self.latency.unwrap_or_default();
        let parts = [&self.payload[..], b""];
        append_record(out, self.kind, &self.id, self.time, latency, parts)
    }
}

/// The id of an exchange: unique among those of one connection.
#[must_use]
pub fn id(endpoints: Endpoints, exchange: u32) -> [u8; 24] {
    let address = match endpoints.client.ip() {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    };
    let mut bytes = [0; 12];
    bytes[..2].copy_from_slice(&endpoints.client.port().to_be_bytes());
    bytes[2..4].copy_from_slice(&endpoints.server.port().to_be_bytes());
    bytes[4..8].copy_from_slice(&address);
    bytes[8..].copy_from_slice(&exchange.to_be_bytes());
    let mut digits = [0; 24];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte)]);
    }
    digits
}

/// The eight digits by which a written id tells exchanges apart.
#[must_use]
pub const fn exchange_part(id: ExchangeId) -> u32 {
    id.0 as u32
}

/// What an id says about the connection: a number that requests of one connection share, and the connection's ends.
///
/// The server's address is not part of an id, so it is the unspecified one.
#[must_use]
pub fn connection_of(id: &[u8]) -> (u64, Endpoints) {
    let digits = id
        .get(..16)
        .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        .and_then(|digits| str::from_utf8(digits).ok());
    let parsed = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let number = parsed.unwrap_or_else(|| fnv1a(id));
    let known = parsed.unwrap_or(0);
    let endpoints = Endpoints {
        client: SocketAddr::new(
            Ipv4Addr::from_bits(known as u32).into(),
            (known >> 48) as u16,
        ),
        server: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), (known >> 32) as u16),
    };
    (number, endpoints)
}

/// Appends one record whose payload is `parts`, one after the other.
///
/// Gives `false`, and appends nothing, when no reader would get it back: it is longer than [`read::MAX_RECORD`], or holds
/// monkeys that must be taken for its end.
#[must_use]
pub(super) fn append_record(
    out: &mut Vec<u8>,
    kind: Kind,
    id: &[u8],
    time: Timestamp,
    latency: Duration,
    parts: [&[u8]; 2],
) -> bool {
    let start = out.len();
    append_header(out, kind, id, time, latency);
    let payload = out.len();
    for part in parts {
        out.extend_from_slice(part);
    }
    let end = out.len();
    out.extend_from_slice(SEPARATOR);
    let is_too_long = out.len() - start > read::MAX_RECORD;
    if is_too_long || splits_itself(&out[payload..], end - payload, kind) {
        out.truncate(start);
        return false;
    }
    true
}

fn append_header(out: &mut Vec<u8>, kind: Kind, id: &[u8], time: Timestamp, latency: Duration) {
    out.extend_from_slice(match kind {
        Kind::Request => b"1 ",
        Kind::Response => b"2 ",
        Kind::Replayed => b"3 ",
    });
    out.extend_from_slice(id);
    out.push(b' ');
    push_number(out, time.as_nanos());
    out.push(b' ');
    push_number(out, u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    out.push(b'\n');
}

/// Whether a reader would end the record, of which this is the payload and its separator, before that separator at `end`.
fn splits_itself(record: &[u8], end: usize, kind: Kind) -> bool {
    let mut message = Growing::new(kind == Kind::Request);
    memmem::find_iter(record, read::MONKEYS)
        .take_while(|&at| at < end)
        .any(|at| read::is_end(record, at, &mut message))
}

/// FNV-1a, 64 bit: for ids that are not in the usual form.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
