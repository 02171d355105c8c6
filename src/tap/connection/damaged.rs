//! Segments whose checksum is wrong, though others of their sender are right.
//!
//! A receiver drops a damaged segment, and its sender sends it again (RFC 9293 §3.1). But a wrong checksum alone proves nothing:
//! of segments that a network card has put together, or of captures whose payload was changed before they were given away, the
//! checksum may not have been made again. So such a segment is kept until its receiver speaks: it acknowledges it, or it is sent
//! again. Where the first of a sender's checksums is wrong, they are left to the network card, and say nothing.

use super::kept::Kept;
use super::{Connection, Timer, count_unread};
use crate::account::Reason;
use crate::tap::Sink;
use crate::time::Timestamp;
use crate::wire::{Checksum, Segment, TcpFlags};

/// How many segments of one direction are kept. A receiver acknowledges the first long before.
const MAX_KEPT: usize = 256;

impl Connection {
    /// Whether the segment's receiver may have dropped it for its checksum.
    #[inline]
    pub(super) fn may_be_damaged(&mut self, direction: usize, segment: &Segment<'_>) -> bool {
        let side = &mut self.sides[direction];
        match segment.checksum {
            Checksum::Right => {
                side.checksums.get_or_insert(true);
                false
            }
            Checksum::Unknown => false,
            // The first one says what the others are worth: that of a SYN is right, unless none is. A right one may be chance.
            Checksum::Wrong => {
                *side.checksums.get_or_insert(false) && self.sides[1 - direction].seen
            }
        }
    }

    /// Keeps a segment that may be damaged; false when it is to be read all the same.
    #[cold]
    pub(super) fn keep_damaged(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        sink: &mut Sink<'_>,
    ) -> bool {
        if self.closed || self.dialogue.is_opaque() || self.suspended().is_some() {
            return false;
        }
        let stream = &self.streams[direction];
        let start = stream.offset_of(segment.seq);
        let carries = !segment.payload.is_empty();
        let Some(start) = start.filter(|_| carries) else {
            count_unread(segment, Reason::BadChecksum, sink);
            return true;
        };
        let acknowledged = self.sides[1 - direction].last_ack();
        let acknowledged = acknowledged.and_then(|ack| stream.offset_of(ack));
        if acknowledged.is_some_and(|offset| offset > start) && stream.next() <= start {
            // The capture shows the acknowledgement first.
            self.sides[direction].checksums = Some(false);
            return false;
        }
        let kept = &mut self.undecided().damaged[direction];
        if kept.len() == MAX_KEPT {
            kept.pop_front();
            sink.account.drop(Reason::BadChecksum);
        }
        kept.push_back(Kept::of(segment));
        true
    }

    /// Lets `segment`, which is whole, say what became of those that are kept: it may be one of them, sent again, or acknowledge them.
    pub(super) fn settle_damaged(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        now: Timestamp,
        sink: &mut Sink<'_>,
    ) -> Option<Timer> {
        let len = segment.payload.len() as u32 + segment.cut;
        self.drop_damaged(direction, sink, |kept| {
            let ahead = segment.seq.wrapping_sub(kept.seq);
            let behind = kept.seq.wrapping_sub(segment.seq);
            len > 0 && (ahead < kept.payload.len() as u32 || behind < len)
        });
        if !segment.flags.has(TcpFlags::ACK) {
            return None;
        }
        let opposite = 1 - direction;
        let mut timer = None;
        loop {
            // In the order of the stream: what is read may be what the next one waits for.
            let stream = &self.streams[opposite];
            let kept = self.undecided.as_mut()?.damaged[opposite]
                .iter()
                .enumerate();
            let first = kept
                .filter_map(|(at, kept)| Some((stream.offset_of(kept.as_segment().seq)?, at)))
                .min();
            let acknowledged = stream.offset_of(segment.ack);
            let Some((start, at)) = first.filter(|it| acknowledged > Some(it.0)) else {
                return timer;
            };
            let next = stream.next();
            let kept = self.undecided().damaged[opposite].remove(at)?;
            if next > start {
                // It was known before, or sent again in other pieces.
                count_unread(&kept.as_segment(), Reason::BadChecksum, sink);
                continue;
            }
            self.sides[opposite].checksums = Some(false);
            let due = self.careful(opposite, &kept.as_segment(), now, sink);
            timer = due.or(timer);
        }
    }

    /// Whether any segment is kept.
    #[inline]
    pub(super) fn has_damaged(&self) -> bool {
        let undecided = self.undecided.as_ref();
        undecided.is_some_and(|it| it.damaged.iter().any(|kept| !kept.is_empty()))
    }

    /// Drops what was neither acknowledged nor sent again when the connection ends: its receiver did not take it.
    pub(super) fn refuse_damaged(&mut self, sink: &mut Sink<'_>) {
        for direction in [0, 1] {
            self.drop_damaged(direction, sink, |_| true);
        }
    }

    fn drop_damaged(
        &mut self,
        direction: usize,
        sink: &mut Sink<'_>,
        condition: impl Fn(&Segment<'_>) -> bool,
    ) {
        if let Some(undecided) = &mut self.undecided {
            undecided.damaged[direction].retain(|kept| {
                let goes = condition(&kept.as_segment());
                if goes {
                    sink.account.drop(Reason::BadChecksum);
                }
                !goes
            });
        }
    }
}
