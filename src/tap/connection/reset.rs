//! What a reset means: the end, unless the receiver shows that it refused it.

use super::kept::Kept;
use super::{Connection, Timer, count_unread};
use crate::account::Reason;
use crate::tap::{Ending, Sink};
use crate::time::Timestamp;
use crate::wire::{Segment, TcpFlags};

/// A connection after a reset. Its receiver may have refused it (a wrong checksum, a TTL that ran out): then it goes on
/// to acknowledge what comes after. What comes is kept until that is known.
pub(super) struct Suspended {
    /// The direction of the reset, and where in that stream it was.
    pub(super) direction: usize,
    pub(super) at: u64,
    /// How far its sender had received the opposite stream, where it says so.
    pub(super) received: Option<u64>,
    pub(super) since: Timestamp,
    pub(super) segments: Vec<(usize, Kept)>,
    pub(super) bytes: usize,
}

/// Payload kept after a reset until it is known whether the receiver took it.
const MAX_SUSPENDED: usize = 256 << 10;

impl Connection {
    pub(super) fn reset(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        now: Timestamp,
        sink: &mut Sink<'_>,
    ) -> Option<Timer> {
        count_unread(segment, Reason::AfterClose, sink);
        let stream = &mut self.streams[direction];
        let Some(at) = stream.offset_of(segment.seq) else {
            // The answer to a SYN that nobody listens for (RFC 9293 §3.10.7.3).
            if segment.flags.has(TcpFlags::ACK) {
                self.close(Ending::Reset, sink);
            }
            return None;
        };
        if !stream.reset_at(at) {
            return None;
        }
        let acknowledged = self.streams[1 - direction].offset_of(segment.ack);
        let received = acknowledged.filter(|_| segment.flags.has(TcpFlags::ACK));
        Some(self.suspend(direction, at, received, now))
    }

    /// Reads nothing more until it is known whether the receiver took the reset.
    pub(super) fn suspend(
        &mut self,
        direction: usize,
        at: u64,
        received: Option<u64>,
        now: Timestamp,
    ) -> Timer {
        self.undecided().suspended = Some(Suspended {
            direction,
            at,
            received,
            since: now,
            segments: Vec::new(),
            bytes: 0,
        });
        Timer::Stall
    }

    /// The reset counts. What its sender acknowledges with it had come before, although the capture shows it behind; the rest is read
    /// by nobody.
    pub(super) fn end_by_reset(&mut self, suspended: &Suspended, sink: &mut Sink<'_>) {
        for (sender, kept) in &suspended.segments {
            let segment = kept.as_segment();
            let ends = self.streams[*sender]
                .offset_of(segment.seq)
                .map(|start| start + segment.payload.len() as u64 + u64::from(segment.cut));
            let had_come = *sender != suspended.direction
                && suspended
                    .received
                    .zip(ends)
                    .is_some_and(|(received, ends)| ends <= received)
                && self.refuses(*sender, &segment).is_none();
            if had_come {
                self.accept(*sender, &segment, self.last_seen, sink);
            } else {
                count_unread(&segment, Reason::AfterClose, sink);
            }
        }
        self.dialogue.was_reset(suspended.direction);
    }

    /// Keeps what comes after a reset, until the receiver shows that it did not take it.
    pub(super) fn while_suspended(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        now: Timestamp,
        sink: &mut Sink<'_>,
    ) {
        let Some(suspended) = self.undecided.as_mut().and_then(|it| it.suspended.as_mut()) else {
            return;
        };
        let went_on = direction != suspended.direction
            && segment.flags.has(TcpFlags::ACK)
            && !segment.flags.has(TcpFlags::RST)
            && self.streams[suspended.direction]
                .offset_of(segment.ack)
                .is_some_and(|acknowledged| acknowledged > suspended.at + 1);
        if went_on {
            let kept = std::mem::take(&mut suspended.segments);
            self.undecided().suspended = None;
            for (direction, kept) in &kept {
                self.segment(*direction, &kept.as_segment(), now, sink);
            }
            self.segment(direction, segment, now, sink);
        } else if suspended.bytes + segment.payload.len() > MAX_SUSPENDED
            || segment.flags.has(TcpFlags::RST)
            || segment.flags.has(TcpFlags::SYN)
        {
            count_unread(segment, Reason::AfterClose, sink);
        } else {
            let kept = Kept::of(segment);
            suspended.bytes += kept.memory();
            suspended.segments.push((direction, kept));
        }
    }
}
