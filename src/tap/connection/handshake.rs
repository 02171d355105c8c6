//! Where a connection begins: SYN, SYN-ACK, data on them, and captures that lack them.

use bytes::Bytes;

use super::undecided::SynPayload;
use super::{Connection, count_unread};
use crate::account::{Counter, Reason};
use crate::http1::recognise::{self, Recognised};
use crate::tap::Sink;
use crate::tcp::{Mark, Stream};
use crate::time::Timestamp;
use crate::wire::{Segment, TcpFlags};

/// How far before its first segment a stream is believed to begin, where the capture began in the middle of it and
/// shows segments out of order.
pub(super) const MAX_BEFORE: u64 = 1 << 20;

impl Connection {
    /// Whether a SYN of that direction and sequence number belongs to this life of the 4-tuple.
    pub(in crate::tap) fn accepts_syn(&self, direction: usize, seq: u32) -> bool {
        let stream = &self.streams[direction];
        match self.sides[direction].isn() {
            // Behind a reset it begins another one, even where its sender always begins with the same number.
            Some(isn) => isn == seq && self.suspended().is_none(),
            // Adopted from its data before the SYN was captured.
            None if stream.is_anchored() => {
                stream.offset_of(seq.wrapping_add(1)) == Some(Stream::ORIGIN)
            }
            // Only the other end's SYN was seen, or nothing at all.
            None => !self.confirmed,
        }
    }

    /// Whether a SYN-ACK of that direction answers this life's SYN.
    pub(in crate::tap) fn accepts_syn_ack(&self, direction: usize, seq: u32, ack: u32) -> bool {
        let acknowledges = match self.sides[1 - direction].isn() {
            Some(isn) => {
                let taken = ack.wrapping_sub(isn.wrapping_add(1));
                let syn = self
                    .undecided
                    .as_ref()
                    .and_then(|it| it.syn_payload.as_ref());
                let offered = match syn {
                    Some(syn) => syn.bytes.len() as u32,
                    None => (self.streams[1 - direction].next() - Stream::ORIGIN).min(65536) as u32,
                };
                taken <= offered
            }
            None => {
                let stream = &self.streams[1 - direction];
                !stream.is_anchored() || stream.offset_of(ack) == Some(Stream::ORIGIN)
            }
        };
        let stream = &self.streams[direction];
        // While nothing was sent, a server (or what stands in for it) may change its mind about where it begins.
        let same_start = self.sides[direction].isn() == Some(seq)
            || (stream.is_untouched() && self.initiator != Some(direction as u8))
            || stream.offset_of(seq.wrapping_add(1)) == Some(Stream::ORIGIN);
        acknowledges && same_start
    }

    pub(super) fn syn(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        now: Timestamp,
        sink: &mut Sink<'_>,
    ) {
        let first = segment.seq.wrapping_add(1);
        let belongs = if segment.flags.has(TcpFlags::ACK) {
            self.accepts_syn_ack(direction, segment.seq, segment.ack)
        } else {
            self.accepts_syn(direction, segment.seq)
        };
        if !belongs {
            // A SYN inside an established connection: the receiver answers with a challenge ACK (RFC 5961 §4).
            count_unread(segment, Reason::UnexpectedSyn, sink);
            return;
        }
        if self.streams[direction].is_untouched() {
            self.streams[direction].anchor(first);
            self.sides[direction].set_isn(segment.seq);
            self.sides[direction].signed = Some(segment.signed);
        }
        self.note_timestamp(direction, segment, true);
        if segment.flags.has(TcpFlags::ACK) {
            if !self.streams[1 - direction].is_anchored() {
                self.streams[1 - direction].anchor(segment.ack);
            }
            self.acknowledge(direction, segment, now, sink);
            // An answer to a SYN that nobody sent proves nothing.
            self.confirmed |= self.sides[1 - direction].isn().is_some();
            self.initiator.get_or_insert(1 - direction as u8);
        } else {
            self.initiator.get_or_insert(direction as u8);
        }
        let mark = Mark {
            time: segment.time,
            peer: Stream::ORIGIN,
        };
        if segment.payload.is_empty() {
            sink.account.count(Counter::SegmentsControl);
        } else if self.streams[direction].next() != Stream::ORIGIN {
            sink.account.drop(Reason::Duplicate);
        } else if segment.flags.has(TcpFlags::ACK) && !self.alone && !self.confirmed {
            // Beside a living connection, and no answer to a SYN: its receiver drops it (RFC 5961 §4).
            sink.account.drop(Reason::UnexpectedSyn);
        } else if segment.flags.has(TcpFlags::ACK) {
            let peer = self.streams[1 - direction].next();
            self.place(direction, first, segment, Mark { peer, ..mark }, sink);
            self.read(direction, sink);
        } else {
            // TCP Fast Open (RFC 7413) or a stray: the server's SYN-ACK will tell.
            self.settle_syn_payload(false, sink);
            self.undecided().syn_payload = Some(SynPayload {
                sender: direction,
                seq: first,
                bytes: Bytes::copy_from_slice(segment.payload),
                mark,
            });
        }
    }

    /// Decides about the payload of a SYN: taken when the server acknowledged it, or, when the server's side is not
    /// in the capture at all, when the connection ends without the client having sent it again.
    pub(super) fn settle_syn_payload(&mut self, at_close: bool, sink: &mut Sink<'_>) {
        let Some(syn) = self.take_syn_payload() else {
            return;
        };
        let direction = syn.sender;
        let stream = &mut self.streams[direction];
        let unanswered = self.alone && !self.sides[1 - direction].seen;
        let taken = at_close && unanswered && stream.next() == Stream::ORIGIN;
        if !taken {
            sink.account.drop(Reason::SynDataRefused);
            return;
        }
        self.place_bytes(direction, syn.seq, &syn.bytes, 0, syn.mark, sink);
    }

    /// In the middle of a connection whose handshake was not captured, the first segment tells where both streams are.
    pub(super) fn anchor(&mut self, direction: usize, segment: &Segment<'_>) {
        if !self.streams[direction].is_anchored() {
            self.streams[direction].anchor(segment.seq);
            self.dialogue.mark_midstream(direction);
        }
        if !self.streams[1 - direction].is_anchored() {
            self.streams[1 - direction].anchor(segment.ack);
            self.dialogue.mark_midstream(1 - direction);
        }
        self.anchor_elsewhere(direction, segment);
        if self.sides[direction].signed.is_none() {
            self.sides[direction].signed = Some(segment.signed);
        }
        self.note_timestamp(direction, segment, false);
    }

    /// Moves the anchor of a stream of which nothing was read when its first data shows that it begins elsewhere.
    pub(super) fn anchor_elsewhere(&mut self, direction: usize, segment: &Segment<'_>) {
        let stream = &mut self.streams[direction];
        if segment.payload.is_empty() || !stream.is_untouched() {
            return;
        }
        let Some(offset) = stream.offset_of(segment.seq) else {
            return;
        };
        // Known so far only from the peer's acknowledgement, which the capture shows first.
        let earlier = self.sides[direction].isn().is_none()
            && offset < Stream::ORIGIN
            && Stream::ORIGIN - offset <= MAX_BEFORE
            && (recognise::request_in_midstream(segment.payload)
                || recognise::response(segment.payload) == Recognised::Http);
        // A proxy on the way answered the SYN; the peer has acknowledged what the real end sends.
        let elsewhere = offset.abs_diff(Stream::ORIGIN) > MAX_BEFORE
            && self.sides[1 - direction].last_ack() == Some(segment.seq);
        if earlier || elsewhere {
            stream.anchor(segment.seq);
        }
    }
}
