//! The short way for what nearly all segments are: the next of an established connection that is in good order.
//!
//! It changes and says what the careful way would; `tap::tests::the_short_way_says_what_the_careful_way_says` holds it to that.

use super::{Connection, PAWS_MARGIN};
use crate::account::Counter;
use crate::tap::Sink;
use crate::tap::lane::Chunk;
use crate::tcp::{Mark, Stream};
use crate::time::Timestamp;
use crate::wire::{Segment, TcpFlags};

/// Where an ordinary segment stands.
pub(super) struct Ordinary {
    /// Its first byte, in its own stream; exactly what comes next there.
    start: u64,
    /// What it acknowledges of the opposite stream; that was sent.
    acknowledged: u64,
}

impl Connection {
    /// Where the segment stands, if nothing about it or the connection asks for care.
    #[inline]
    pub(super) fn as_ordinary(&self, direction: usize, segment: &Segment<'_>) -> Option<Ordinary> {
        #[cfg(test)]
        if crate::tap::tests::ALWAYS_CAREFUL.get() {
            return None;
        }
        const PLAIN: u8 = TcpFlags::ACK.0;
        const SPECIAL: u8 =
            TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0 | TcpFlags::URG.0 | PLAIN;
        let waits = self.closed || self.dialogue.is_opaque() || self.undecided.is_some();
        let is_special = segment.flags.0 & SPECIAL != PLAIN || segment.urgent.is_some();
        if waits || is_special || segment.cut != 0 {
            return None;
        }
        let (stream, side) = (&self.streams[direction], &self.sides[direction]);
        let opposite = &self.streams[1 - direction];
        let start = stream.offset_of(segment.seq)?;
        let end = start + segment.payload.len() as u64;
        if start != stream.next() || !stream.is_smooth() || !stream.is_in_window(end) {
            return None;
        }
        let acknowledged = opposite.offset_of(segment.ack)?;
        let is_known = acknowledged == Stream::ORIGIN
            || (acknowledged > Stream::ORIGIN
                && acknowledged <= self.sent(1 - direction)
                && !opposite.is_untouched());
        let newer_by = segment.timestamps.and_then(|it| side.newer_by(it.0));
        let is_new = newer_by.is_none_or(|by| by >= -PAWS_MARGIN);
        let is_signed_alike = side.signed == Some(segment.signed);
        (is_known && is_new && is_signed_alike && opposite.is_smooth()).then_some(Ordinary {
            start,
            acknowledged,
        })
    }

    /// Takes it.
    #[inline]
    pub(super) fn ordinary(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        at: Ordinary,
        now: Timestamp,
        sink: &mut Sink<'_>,
    ) {
        let side = &mut self.sides[direction];
        side.sent = side.sent.max(at.start + segment.payload.len() as u64);
        side.acknowledges(segment.ack);
        if let Some((value, _)) = segment.timestamps
            && side.newer_by(value).is_none_or(|by| by > 0)
        {
            side.set_timestamp(value);
        }
        self.streams[1 - direction].acknowledge(at.acknowledged, now, sink.spare);
        if segment.payload.is_empty() {
            sink.account.count(Counter::SegmentsControl);
            return;
        }
        self.streams[direction].append(segment.payload, sink.spare);
        sink.account.count(Counter::SegmentsData);
        self.confirmed = true;
        let chunk = Chunk {
            bytes: segment.payload,
            offset: at.start,
            mark: Mark {
                time: segment.time,
                peer: at.acknowledged,
            },
            boundary: true,
        };
        if self.streams[1 - direction].is_smooth() {
            // Nothing waits, no byte is urgent, and all that it acknowledges has been read.
            self.dialogue.data(direction, chunk, sink);
            return;
        }
        self.deliver(direction, chunk, sink);
        if self.undecided.is_some() {
            // It was kept back.
            self.read_waiting(sink);
            self.tidy();
        }
    }
}
