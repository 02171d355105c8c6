//! An acknowledgement of bytes that the capture does not show: it lacks them, or the segment is forged.
//!
//! A receiver knows what it has sent, and drops a segment that acknowledges more (RFC 9293 §3.10.7.4) or less (RFC 5961 §5).
//! An observer cannot tell yet: the capture may have lost the bytes, or show them a moment later. So the segment is kept, with
//! all that it carries, until another one speaks for or against it.

use super::kept::Kept;
use super::{Connection, count_unread};
use crate::account::Reason;
use crate::tap::Sink;
use crate::tcp::Stream;
use crate::time::Timestamp;
use crate::wire::{Segment, TcpFlags};

/// A kept segment that acknowledges bytes of the opposite stream which, as far as is known, were never sent.
pub(super) struct Claim {
    /// How far it acknowledges, as an offset in the opposite stream.
    acknowledged: u64,
    kept: Kept,
}

impl Claim {
    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.kept.memory()
    }

    /// Whether `segment` is the same one, captured again.
    fn is_repeated_by(&self, segment: &Segment<'_>) -> bool {
        let kept = self.kept.as_segment();
        (kept.seq, kept.ack, kept.flags, kept.timestamps)
            == (segment.seq, segment.ack, segment.flags, segment.timestamps)
            && kept.payload == segment.payload
    }

    /// Whether the sender, having sent the kept segment, cannot have sent `segment`, which acknowledges less: it comes behind
    /// it in the stream, or is in its place.
    fn is_contradicted_by(&self, segment: &Segment<'_>) -> bool {
        let ahead = segment.seq.wrapping_sub(self.kept.as_segment().seq);
        let fills = !segment.payload.is_empty() || segment.flags.has(TcpFlags::FIN);
        (ahead == 0 && fills) || ahead.cast_signed() > 0
    }
}

impl Connection {
    /// Judges what a segment acknowledges; false when it is not to be read now.
    pub(super) fn believes(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        now: Timestamp,
        sink: &mut Sink<'_>,
    ) -> bool {
        self.note_sent(direction, segment, now, sink);
        let mut beyond = self.acknowledges_unsent(direction, segment);
        if let Some(claim) = self.claim(direction) {
            match beyond {
                Some(_) if claim.is_repeated_by(segment) => {
                    count_unread(segment, Reason::Duplicate, sink);
                    return false;
                }
                // Two segments agree that so much was sent.
                Some(offset) => {
                    let both = offset.min(claim.acknowledged);
                    let side = &mut self.sides[1 - direction];
                    side.sent = side.sent.max(both);
                    self.settle_claims(now, sink);
                    beyond = self.acknowledges_unsent(direction, segment);
                }
                None => {}
            }
        }
        if let Some(claim) =
            self.take_claim_if(direction, |claim| claim.is_contradicted_by(segment))
        {
            count_unread(&claim.kept.as_segment(), Reason::AcksUnsent, sink);
        }
        let Some(acknowledged) = beyond else {
            return true;
        };
        if acknowledged < Stream::ORIGIN && !self.streams[1 - direction].is_untouched() {
            count_unread(segment, Reason::AcksUnsent, sink);
            return false;
        }
        let kept = Kept::of(segment);
        let older = self.undecided().claims[direction].replace(Claim { acknowledged, kept });
        if let Some(older) = older {
            count_unread(&older.kept.as_segment(), Reason::AcksUnsent, sink);
        }
        false
    }

    /// Takes the kept segments that what was seen since has confirmed.
    pub(super) fn settle_claims(&mut self, now: Timestamp, sink: &mut Sink<'_>) {
        if self.undecided.is_none() {
            return;
        }
        for direction in [0, 1, 0] {
            let sent = self.sent(1 - direction);
            let confirmed = Stream::ORIGIN..=sent;
            let claim =
                self.take_claim_if(direction, |claim| confirmed.contains(&claim.acknowledged));
            if let Some(claim) = claim {
                self.accept(direction, &claim.kept.as_segment(), now, sink);
            }
        }
    }

    /// Takes what is still kept when the connection ends: losses are more common than forgeries.
    pub(super) fn believe_claims(&mut self, sink: &mut Sink<'_>) {
        let client = self.client().unwrap_or(0);
        for direction in [client, 1 - client] {
            if let Some(claim) = self.take_claim_if(direction, |_| true) {
                self.accept(direction, &claim.kept.as_segment(), self.last_seen, sink);
            }
        }
    }

    /// A segment, even an empty one, shows that its sender has sent everything before it.
    fn note_sent(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        now: Timestamp,
        sink: &mut Sink<'_>,
    ) {
        let stream = &self.streams[direction];
        let Some(start) = stream.offset_of(segment.seq) else {
            return;
        };
        if start > self.sides[direction].sent && stream.is_in_window(start) {
            self.sides[direction].sent = start;
        }
        let opposite = 1 - direction;
        if self.claim(opposite).is_none() {
            return;
        }
        // A proxy on the way answered the SYN: the stream begins elsewhere, where the peer says.
        let elsewhere = stream.is_untouched() && !segment.payload.is_empty();
        if elsewhere
            && let Some(claim) = self.take_claim_if(opposite, |claim| claim.acknowledged == start)
        {
            self.accept(opposite, &claim.kept.as_segment(), now, sink);
        }
        self.settle_claims(now, sink);
    }

    /// How far the segment acknowledges, when that was not sent as far as is known. Nothing is known of a direction that the
    /// capture does not show.
    fn acknowledges_unsent(&self, direction: usize, segment: &Segment<'_>) -> Option<u64> {
        let opposite = 1 - direction;
        if !self.sides[opposite].seen {
            return None;
        }
        let offset = self.streams[opposite].offset_of(segment.ack)?;
        let before = offset < Stream::ORIGIN && self.sides[opposite].isn().is_some();
        (before || offset > self.sent(opposite)).then_some(offset)
    }

    /// How far that direction is known to have sent.
    pub(super) fn sent(&self, direction: usize) -> u64 {
        self.sides[direction]
            .sent
            .max(self.streams[direction].highest())
    }
}
