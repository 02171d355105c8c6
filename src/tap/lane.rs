//! One direction of a dialogue: its reader, and what it was before there was one.

use std::ops::Range;

use bytes::Bytes;

use super::receipts::Receipts;
use crate::http1::recognise::{self, ProxyHeader, Recognised};
use crate::http1::{MessageLimits, MessageReader, Side};
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
///
/// There may be very many, and nearly all are between two messages: then there is nothing to know but whose messages they are.
#[derive(Default)]
pub(super) struct Lane {
    /// What is not over; none between messages.
    work: Option<Box<Work>>,
    /// Whose messages they are, once that is known.
    side: Option<Side>,
    /// The capture began inside the stream: only a message at the start of a segment is believed.
    pub(super) midstream: bool,
    /// An answer was found by its looks alone, behind bytes that were not read.
    pub(super) resynchronised: bool,
    /// Client side: bytes were passed over unread since the last request.
    pub(super) passed_over: bool,
    /// The stream's first bytes were not HTTP: a message found later needs the other side's confirmation.
    pub(super) foreign: bool,
}

/// What a direction needs while something of it is unclear, unfinished or in doubt.
#[derive(Default)]
pub(super) struct Work {
    /// Reads messages that are not whole in one piece.
    reader: Option<MessageReader>,
    /// First bytes, while it is not clear what they are.
    probe: Vec<u8>,
    /// How long the probe has to be before it is worth another look.
    look_again: usize,
    /// What is being read began here.
    pub(super) first: Start,
    pub(super) last: Mark,
    /// The stream offset behind what the reader was given.
    pub(super) given: u64,
    /// Where a retransmission differed from what it repeats.
    doubtful: Option<Range<u64>>,
    /// Client side: bytes that wait until it is known whether a tunnel begins.
    paused: Option<Vec<OwnedChunk>>,
    /// Bytes that wait, bookkeeping included.
    paused_bytes: usize,
    /// What was acknowledged where, while it is not known whose stream it is.
    pub(super) receipts: Receipts,
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

/// Bytes that wait for the answer to CONNECT or Upgrade; more of them is no handshake.
const MAX_PAUSED: usize = 256 << 10;

impl Lane {
    /// Whether it is known whose messages they are.
    #[inline]
    pub(super) fn side(&self) -> Option<Side> {
        self.side
    }

    /// Reads it as the messages of that side from here on.
    pub(super) fn read_as(&mut self, side: Side) {
        self.side = Some(side);
    }

    /// The reader of a message that is not whole in one piece; none before it is known whose messages they are.
    pub(super) fn reader(&mut self, limits: MessageLimits) -> Option<&mut MessageReader> {
        let side = self.side?;
        let reader = &mut self.work().reader;
        Some(reader.get_or_insert_with(|| MessageReader::new(side, limits)))
    }

    /// The same, if there is one.
    #[inline]
    pub(super) fn reading(&self) -> Option<&MessageReader> {
        self.work.as_ref()?.reader.as_ref()
    }

    pub(super) fn reading_mut(&mut self) -> Option<&mut MessageReader> {
        self.work.as_mut()?.reader.as_mut()
    }

    /// Whether the next byte begins a message.
    #[inline]
    pub(super) fn is_between_messages(&self) -> bool {
        self.reading()
            .is_none_or(MessageReader::is_between_messages)
    }

    /// Whether bytes are skipped because the framing was lost.
    pub(super) fn is_lost(&self) -> bool {
        self.reading().is_some_and(MessageReader::is_lost)
    }

    /// What is not over.
    pub(super) fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_default()
    }

    /// Takes what was acknowledged where, because it is known now whose stream it is.
    pub(super) fn take_receipts(&mut self) -> Receipts {
        let receipts = self.work.as_mut().map(|work| &mut work.receipts);
        receipts.map(std::mem::take).unwrap_or_default()
    }

    /// Lets go of the work when it is over.
    pub(super) fn tidy(&mut self) {
        let is_over = |work: &Work| {
            work.probe.is_empty()
                && work.doubtful.is_none()
                && work.paused.is_none()
                && work
                    .reader
                    .as_ref()
                    .is_none_or(MessageReader::is_between_messages)
        };
        if self.side.is_some() && self.work.as_deref().is_some_and(is_over) {
            self.work = None;
        }
    }

    /// Looks at the first bytes; `possible` tells which side they may be of, when that is known.
    pub(super) fn probe(&mut self, chunk: Chunk<'_>, possible: Option<Side>) -> Probed {
        let midstream = self.midstream;
        if self.foreign {
            // The stream did not begin with HTTP; a message may still begin with a segment.
            if !chunk.boundary {
                return Probed::Skipped;
            }
            let work = self.work();
            work.probe.clear();
            work.look_again = 0;
        }
        let work = self.work();
        if midstream && work.probe.is_empty() {
            let begins = recognise::request_in_midstream(chunk.bytes)
                || recognise::response(chunk.bytes) == Recognised::Http
                || is_encrypted(chunk.bytes);
            if !chunk.boundary || !begins {
                return Probed::Skipped;
            }
        }
        let waited = work.probe.len();
        work.hold(chunk);
        let header = match possible {
            Some(Side::Responses) => ProxyHeader::Absent,
            _ => recognise::proxy_header(&work.probe),
        };
        match header {
            ProxyHeader::Unsure => return Probed::Unsure,
            ProxyHeader::Whole(length) => {
                // It is no message: the stream begins behind it.
                work.probe.drain(..length);
                work.first.offset += length as u64;
                if work.probe.is_empty() {
                    return Probed::Unsure;
                }
            }
            // RFC 9112 §2.2: empty lines before a request line are ignored.
            ProxyHeader::Absent if is_empty_line(&work.probe) => {
                work.probe.clear();
                return Probed::Unsure;
            }
            ProxyHeader::Absent if is_empty_line(&work.probe[..waited]) => {
                work.probe.drain(..waited);
                work.first = Start {
                    mark: chunk.mark,
                    offset: chunk.offset,
                };
            }
            ProxyHeader::Absent => {}
        }
        // While no line has ended, more of the same is looked at only when there is twice as much.
        if work.probe.len() < work.look_again && !chunk.bytes.contains(&b'\n') {
            return Probed::Unsure;
        }
        work.look_again = work.probe.len() * 2;
        let request = match possible {
            Some(Side::Responses) => Recognised::Other,
            _ => recognise::request(&work.probe),
        };
        let response = match possible {
            Some(Side::Requests) => Recognised::Other,
            _ => recognise::response(&work.probe),
        };
        match (request, response) {
            (Recognised::Http, _) => Probed::Side(Side::Requests),
            (_, Recognised::Http) => Probed::Side(Side::Responses),
            (Recognised::Tls, _) | (_, Recognised::Tls) => Probed::Other(Recognised::Tls),
            (Recognised::Http2, _) | (_, Recognised::Http2) => Probed::Other(Recognised::Http2),
            (Recognised::Unsure, _) | (_, Recognised::Unsure)
                if work.probe.len() < recognise::MAX_UNSURE =>
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

    /// Whether the first bytes, of which it is not clear yet what they are, begin as a request does.
    pub(super) fn begins_request(&self) -> bool {
        let work = self.work.as_deref().filter(|_| !self.foreign);
        work.is_some_and(|work| recognise::begins_request(&work.probe))
    }

    /// Notes that a retransmission differed from what it repeats.
    pub(super) fn doubt(&mut self, range: Range<u64>) {
        let doubtful = &mut self.work().doubtful;
        *doubtful = Some(match doubtful.take() {
            Some(known) => known.start.min(range.start)..known.end.max(range.end),
            None => range,
        });
    }

    /// Whether a retransmission differed in what is still to be read, or in what was read last.
    #[inline]
    pub(super) fn is_doubtful(&self) -> bool {
        self.work
            .as_ref()
            .is_some_and(|work| work.doubtful.is_some())
    }

    /// Whether a retransmission differed in the message that began at that offset and has just been read.
    pub(super) fn take_doubt(&mut self, begins: u64) -> bool {
        let Some(work) = &mut self.work else {
            return false;
        };
        let rest = work.reader.as_ref().map_or(0, MessageReader::buffered);
        let ends = work.given.saturating_sub(rest as u64);
        let doubted = work
            .doubtful
            .as_ref()
            .is_some_and(|range| range.start < ends && range.end > begins);
        work.doubtful.take_if(|range| range.end <= ends);
        doubted
    }

    /// Takes the bytes that were probed, as the chunk they were.
    pub(super) fn take_probe(&mut self) -> Option<OwnedChunk> {
        let work = self.work.as_mut()?;
        work.look_again = 0;
        let bytes = Bytes::from(std::mem::take(&mut work.probe));
        let Start { mark, offset } = work.first;
        (!bytes.is_empty()).then_some(OwnedChunk {
            bytes,
            offset,
            mark,
            boundary: true,
        })
    }

    /// Whether bytes wait until it is known whether a tunnel begins.
    #[inline]
    pub(super) fn is_paused(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.paused.is_some())
    }

    /// Takes what waited.
    pub(super) fn take_paused(&mut self) -> Vec<OwnedChunk> {
        let Some(work) = &mut self.work else {
            return Vec::new();
        };
        work.paused_bytes = 0;
        work.paused.take().unwrap_or_default()
    }

    /// Moves what the reader has not used behind the pause. `end` is the stream offset behind it.
    pub(super) fn pause_rest(&mut self, end: u64) -> bool {
        let Some(Work {
            paused: Some(paused),
            reader: Some(reader),
            last,
            ..
        }) = self.work.as_deref_mut()
        else {
            return false;
        };
        let bytes = reader.take_buffered();
        let offset = end - bytes.len() as u64;
        paused.push(OwnedChunk {
            bytes,
            offset,
            mark: *last,
            boundary: false,
        });
        true
    }

    /// Reads nothing more of this direction, and forgets what waits; what was read last is still known.
    pub(super) fn clear(&mut self) {
        self.side = None;
        self.take_paused();
        if let Some(work) = &mut self.work {
            work.reader = None;
            work.probe = Vec::new();
        }
    }

    /// Forgets everything.
    pub(super) fn finish(&mut self) {
        self.side = None;
        self.work = None;
    }

    /// Bytes of memory held.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        self.work.as_deref().map_or(0, Work::memory)
    }
}

impl Work {
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

    /// Keeps what follows back until the answer is known.
    pub(super) fn begin_pause(&mut self) {
        self.paused.get_or_insert_default();
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

    fn memory(&self) -> usize {
        std::mem::size_of::<Self>()
            + self.reader.as_ref().map_or(0, MessageReader::memory)
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

/// Whether there is nothing but ends of lines.
pub(super) fn is_empty_line(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// Whether bytes are recognised as something that is never read.
fn is_encrypted(bytes: &[u8]) -> bool {
    matches!(
        recognise::request(bytes),
        Recognised::Tls | Recognised::Http2
    )
}
