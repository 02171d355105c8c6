//! One direction of a dialogue: its reader, and what it was before there was one.

use std::ops::Range;

use bytes::Bytes;

use crate::http1::recognise::{self, ProxyHeader, Recognised};
use crate::http1::{MessageReader, Side};
use crate::tcp::Mark;

/// Bytes of one direction, in order.
#[derive(Clone, Copy)]
pub(super) struct Chunk<'a> {
    pub(super) bytes: &'a [u8],
    /// Stream offset of the first byte.
    pub(super) offset: u64,
    pub(super) mark: Mark,
    /// Whether the first byte began a TCP segment.
    pub(super) boundary: bool,
}

/// A chunk that waits.
pub(super) struct OwnedChunk {
    bytes: Bytes,
    offset: u64,
    mark: Mark,
    boundary: bool,
}

/// Where a message began.
#[derive(Clone, Copy, Default)]
pub(super) struct Start {
    pub(super) mark: Mark,
    pub(super) offset: u64,
}

/// One direction.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) reader: Option<MessageReader>,
    /// First bytes, while it is not clear what they are.
    probe: Vec<u8>,
    /// What is being read began here.
    pub(super) first: Start,
    pub(super) last: Mark,
    /// The stream offset behind what the reader was given.
    pub(super) given: u64,
    /// Where a retransmission differed from what it repeats.
    doubtful: Option<Range<u64>>,
    /// Where in this stream its sender acknowledged more of the opposite one, and how much; nobody asks for the client's.
    receipts: Receipts,
    /// The capture began inside the stream: only a message at the start of a segment is believed.
    pub(super) midstream: bool,
    /// An answer was found by its looks alone, behind bytes that were not read.
    pub(super) resynchronised: bool,
    /// Client side: bytes were passed over unread since the last request.
    pub(super) passed_over: bool,
    /// The stream's first bytes were not HTTP: a message found later needs the other side's confirmation.
    pub(super) foreign: bool,
    /// Client side: bytes that wait until it is known whether a tunnel begins.
    pub(super) paused: Option<Vec<OwnedChunk>>,
    /// Bytes that wait, bookkeeping included.
    paused_bytes: usize,
    /// How long the probe has to be before it is worth another look.
    look_again: usize,
}

/// Where in a stream its sender acknowledged more of the opposite one: the latest times, in the connection itself and not on the
/// heap, because each answer notes one.
///
/// Invariant: the `n`th that was noted is at `n % MAX_RECEIPTS`; along them, acknowledgements rise and positions do not fall.
#[derive(Default)]
struct Receipts {
    /// Position in the stream, and how much of the opposite one was acknowledged with it.
    latest: [(u64, u64); MAX_RECEIPTS],
    noted: usize,
}

impl Receipts {
    /// Notes what was acknowledged at a position; less than before is nothing new.
    fn note(&mut self, position: u64, acknowledged: u64) {
        let known = self.back_from_newest().next();
        if known.is_none_or(|(_, known)| acknowledged > known) {
            self.latest[self.noted % MAX_RECEIPTS] = (position, acknowledged);
            self.noted += 1;
        }
    }

    /// What was acknowledged last before a position.
    fn before(&self, position: u64) -> u64 {
        self.back_from_newest()
            .find(|&(at, _)| at < position)
            .map_or(0, |(_, acknowledged)| acknowledged)
    }

    fn back_from_newest(&self) -> impl Iterator<Item = (u64, u64)> {
        let kept = self.noted.saturating_sub(MAX_RECEIPTS)..self.noted;
        kept.rev().map(|n| self.latest[n % MAX_RECEIPTS])
    }
}

/// What the first bytes of a direction turned out to be.
pub(super) enum Probed {
    /// Messages of that side.
    Side(Side),
    /// Not clear yet.
    Unsure,
    /// Passed over: no message can begin here.
    Skipped,
    /// Something that is never read.
    Other(Recognised),
}

/// How many advances of the acknowledgement are remembered; only the latest few are ever asked for.
const MAX_RECEIPTS: usize = 8;

/// Bytes that wait for the answer to CONNECT or Upgrade; more of them is no handshake.
const MAX_PAUSED: usize = 256 << 10;

impl Lane {
    /// Looks at the first bytes; `possible` tells which side they may be of, when that is known.
    pub(super) fn probe(&mut self, chunk: Chunk<'_>, possible: Option<Side>) -> Probed {
        if self.foreign {
            // The stream did not begin with HTTP; a message may still begin with a segment.
            if !chunk.boundary {
                return Probed::Skipped;
            }
            self.probe.clear();
            self.look_again = 0;
        }
        if self.midstream && self.probe.is_empty() {
            let begins = recognise::request_in_midstream(chunk.bytes)
                || recognise::response(chunk.bytes) == Recognised::Http
                || is_encrypted(chunk.bytes);
            if !chunk.boundary || !begins {
                return Probed::Skipped;
            }
        }
        let is_empty_line = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        if self.probe.is_empty() && is_empty_line(chunk.bytes) {
            return Probed::Unsure; // RFC 9112 §2.2: ignored before a request line
        }
        self.hold(chunk);
        if possible != Some(Side::Responses) {
            match recognise::proxy_header(&self.probe) {
                ProxyHeader::Unsure => return Probed::Unsure,
                ProxyHeader::Whole(length) => {
                    // It is no message: the stream begins behind it.
                    self.probe.drain(..length);
                    self.first.offset += length as u64;
                    if self.probe.is_empty() {
                        return Probed::Unsure;
                    }
                }
                ProxyHeader::Absent => {}
            }
        }
        // While no line has ended, more of the same is looked at only when there is twice as much.
        if self.probe.len() < self.look_again && !chunk.bytes.contains(&b'\n') {
            return Probed::Unsure;
        }
        self.look_again = self.probe.len() * 2;
        let request = match possible {
            Some(Side::Responses) => Recognised::Other,
            _ => recognise::request(&self.probe),
        };
        let response = match possible {
            Some(Side::Requests) => Recognised::Other,
            _ => recognise::response(&self.probe),
        };
        match (request, response) {
            (Recognised::Http, _) => Probed::Side(Side::Requests),
            (_, Recognised::Http) => Probed::Side(Side::Responses),
            (Recognised::Tls, _) | (_, Recognised::Tls) => Probed::Other(Recognised::Tls),
            (Recognised::Http2, _) | (_, Recognised::Http2) => Probed::Other(Recognised::Http2),
            (Recognised::Unsure, _) | (_, Recognised::Unsure)
                if self.probe.len() < recognise::MAX_UNSURE =>
            {
                Probed::Unsure
            }
            _ => {
                self.take_probe();
                self.foreign = true;
                Probed::Other(Recognised::Other)
            }
        }
    }

    /// Notes that a retransmission differed from what it repeats.
    pub(super) fn doubt(&mut self, range: Range<u64>) {
        self.doubtful = Some(match self.doubtful.take() {
            Some(known) => known.start.min(range.start)..known.end.max(range.end),
            None => range,
        });
    }

    /// Whether a retransmission differed in what is still to be read, or in what was read last.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful.is_some()
    }

    /// Whether a retransmission differed in the message that began at that offset and has just been read.
    pub(super) fn take_doubt(&mut self, begins: u64) -> bool {
        let rest = self.reader.as_ref().map_or(0, MessageReader::buffered);
        let ends = self.given.saturating_sub(rest as u64);
        let doubted = self
            .doubtful
            .as_ref()
            .is_some_and(|range| range.start < ends && range.end > begins);
        self.doubtful.take_if(|range| range.end <= ends);
        doubted
    }

    /// Adds a chunk to those that are probed, while it is not clear what they are.
    pub(super) fn hold(&mut self, chunk: Chunk<'_>) -> &[u8] {
        if self.probe.is_empty() {
            self.first = Start {
                mark: chunk.mark,
                offset: chunk.offset,
            };
        }
        self.probe.extend_from_slice(chunk.bytes);
        &self.probe
    }

    /// Notes what the sender had received when it sent a chunk.
    pub(super) fn note_receipt(&mut self, chunk: Chunk<'_>) {
        self.receipts.note(chunk.offset, chunk.mark.peer);
    }

    /// How much of the opposite stream the sender had acknowledged with the bytes before `offset`.
    pub(super) fn received_before(&self, offset: u64) -> u64 {
        self.receipts.before(offset)
    }

    /// Takes the bytes that were probed, as the chunk they were.
    pub(super) fn take_probe(&mut self) -> Option<OwnedChunk> {
        self.look_again = 0;
        let bytes = Bytes::from(std::mem::take(&mut self.probe));
        let Start { mark, offset } = self.first;
        (!bytes.is_empty()).then_some(OwnedChunk {
            bytes,
            offset,
            mark,
            boundary: true,
        })
    }

    /// Keeps a chunk until the answer is known; false when there are too many.
    pub(super) fn pause(&mut self, chunk: Chunk<'_>) -> bool {
        let Chunk {
            bytes,
            offset,
            mark,
            boundary,
        } = chunk;
        let bytes = Bytes::copy_from_slice(bytes);
        self.paused_bytes += bytes.len() + std::mem::size_of::<OwnedChunk>();
        let paused = self.paused.get_or_insert_default();
        paused.push(OwnedChunk {
            bytes,
            offset,
            mark,
            boundary,
        });
        self.paused_bytes <= MAX_PAUSED
    }

    /// Takes what waited.
    pub(super) fn take_paused(&mut self) -> Vec<OwnedChunk> {
        self.paused_bytes = 0;
        self.paused.take().unwrap_or_default()
    }

    /// Moves what the reader has not used behind the pause. `end` is the stream offset behind it.
    pub(super) fn pause_rest(&mut self, end: u64) -> bool {
        let (Some(paused), Some(reader)) = (&mut self.paused, &mut self.reader) else {
            return false;
        };
        let bytes = reader.take_buffered();
        let offset = end - bytes.len() as u64;
        paused.push(OwnedChunk {
            bytes,
            offset,
            mark: self.last,
            boundary: false,
        });
        true
    }

    /// Forgets everything: nothing more is read of this direction.
    pub(super) fn clear(&mut self) {
        self.reader = None;
        self.probe = Vec::new();
        self.take_paused();
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.reader.as_ref().map_or(0, MessageReader::memory)
            + self.probe.capacity()
            + self.paused_bytes
    }
}

impl OwnedChunk {
    pub(super) fn as_chunk(&self) -> Chunk<'_> {
        let Self {
            ref bytes,
            offset,
            mark,
            boundary,
        } = *self;
        Chunk {
            bytes,
            offset,
            mark,
            boundary,
        }
    }
}

/// Whether bytes are recognised as something that is never read.
fn is_encrypted(bytes: &[u8]) -> bool {
    matches!(
        recognise::request(bytes),
        Recognised::Tls | Recognised::Http2
    )
}
