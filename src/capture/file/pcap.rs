//! The pcap format (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-06.html>), and how old programs wrote it.

use super::{Fault, Input, MAX_RECORD, Record, u16_at, u32_at};
use crate::time::Timestamp;
use crate::wire::LinkType;

/// How the packets of one pcap file are to be read.
pub(super) struct Pcap {
    big_endian: bool,
    /// How many nanoseconds a unit of the fraction is.
    fraction: u64,
    /// How long the header of a record is.
    header_len: usize,
    link: LinkType,
    lengths: Lengths,
    /// The longest packet that is believed.
    max_len: usize,
}

/// In which order the two lengths of a record stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lengths {
    CapturedFirst,
    WireFirst,
    /// Some programs that said version 2.3 wrote them in one order, some in the other; the captured one is the smaller.
    SmallerIsCaptured,
}

impl Pcap {
    /// Whether the magic number is one of pcap's.
    pub(super) fn recognise(first: &[u8]) -> Option<Self> {
        let magic = first.first_chunk()?;
        let (big_endian, magic) = match (u32::from_be_bytes(*magic), u32::from_le_bytes(*magic)) {
            (be @ (MICROSECONDS | NANOSECONDS | MODIFIED), _) => (true, be),
            (_, le @ (MICROSECONDS | NANOSECONDS | MODIFIED)) => (false, le),
            _ => return None,
        };
        Some(Self {
            big_endian,
            fraction: if magic == NANOSECONDS { 1 } else { 1_000 },
            header_len: if magic == MODIFIED {
                24
            } else {
                USUAL_HEADER_LEN
            },
            link: LinkType(0),
            lengths: Lengths::CapturedFirst,
            max_len: USUAL_MAX_LEN,
        })
    }

    /// Reads the file header.
    pub(super) fn read_header(&mut self, input: &mut Input) -> Result<(), Fault> {
        let header = input.fill(HEADER_LEN)?;
        if header.len() < HEADER_LEN {
            return Err(Fault::Ends("the file header"));
        }
        let major = u16_at(header, 4, self.big_endian);
        let minor = u16_at(header, 6, self.big_endian);
        self.lengths = match (major, minor) {
            (2, ..=2) | (543, _) => Lengths::WireFirst,
            (2, 3) => Lengths::SmallerIsCaptured,
            _ => Lengths::CapturedFirst,
        };
        // Some programs wrote longer packets than they promised, but none longer than libpcap reads.
        self.max_len =
            (u32_at(header, 16, self.big_endian) as usize).clamp(USUAL_MAX_LEN, MAX_RECORD);
        // The upper half says how long the frame check sequence is; it lies beyond what IP announces.
        self.link = LinkType(u32_at(header, 20, self.big_endian) as u16);
        input.take(HEADER_LEN);
        Ok(())
    }

    /// The next record, if it is one as most are and all of it is in the buffer.
    #[inline]
    pub(super) fn buffered(&self, bytes: &[u8]) -> Option<Record> {
        if self.lengths != Lengths::CapturedFirst || self.header_len != USUAL_HEADER_LEN {
            return None;
        }
        let (header, rest) = bytes.split_first_chunk::<USUAL_HEADER_LEN>()?;
        let words = header.as_chunks::<4>().0;
        let word = |n: usize| match self.big_endian {
            false => u32::from_le_bytes(words[n]),
            true => u32::from_be_bytes(words[n]),
        };
        let (captured, wire) = (word(2), word(3));
        let len = captured as usize;
        (len <= self.max_len && len <= rest.len()).then(|| Record {
            time: Timestamp::from_secs_nanos(
                u64::from(word(0)),
                u64::from(word(1)) * self.fraction,
            ),
            link: self.link,
            wire_len: wire.max(captured),
            at: USUAL_HEADER_LEN,
            len,
            record_len: USUAL_HEADER_LEN + len,
        })
    }

    /// The next record.
    #[inline]
    pub(super) fn next(&mut self, input: &mut Input) -> Result<Option<Record>, Fault> {
        if let Some(record) = self.buffered(input.buffered()) {
            return Ok(Some(record));
        }
        let header = input.fill(self.header_len)?;
        if header.len() < self.header_len {
            return if header.is_empty() {
                Ok(None)
            } else {
                Err(Fault::Ends("the header of a packet"))
            };
        }
        let word = |at| u32_at(header, at, self.big_endian);
        let (secs, fraction) = (word(0), word(4));
        let (captured, wire) = match (self.lengths, word(8), word(12)) {
            (Lengths::WireFirst, wire, captured) => (captured, wire),
            (Lengths::SmallerIsCaptured, a, b) if a > b => (b, a),
            (_, captured, wire) => (captured, wire),
        };
        let len = captured as usize;
        if len > self.max_len {
            return Err(Fault::Wrong(format!("a packet of {len} bytes cannot be")));
        }
        let record_len = self.header_len + len;
        if input.fill(record_len)?.len() < record_len {
            return Err(Fault::Ends("a packet"));
        }
        Ok(Some(Record {
            time: Timestamp::from_secs_nanos(u64::from(secs), u64::from(fraction) * self.fraction),
            link: self.link,
            // Some programs wrote a wire length below the captured one.
            wire_len: wire.max(captured),
            at: self.header_len,
            len,
            record_len,
        }))
    }
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// Alexey Kuznetzov's patch of libpcap: records have 8 more bytes (interface, protocol, packet type).
const MODIFIED: u32 = 0xa1b2_cd34;

/// The longest packet that libpcap reads of most link types, whatever the file's snap length.
const USUAL_MAX_LEN: usize = 262_144;

const HEADER_LEN: usize = 24;

/// How long the header of a record is, but for [`MODIFIED`].
const USUAL_HEADER_LEN: usize = 16;
