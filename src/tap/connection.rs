//! One TCP connection: what its receivers accept, in which order, and when it is over.

mod claim;
mod damaged;
mod handshake;
mod kept;
mod ordinary;
mod reset;
mod side;
mod undecided;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use self::handshake::MAX_BEFORE;
use self::side::SideState;
use self::undecided::{SynPayload, Undecided};
use super::dialogue::Dialogue;
use super::ends::Ends;
use super::lane::Chunk;
use super::{Ending, Limits, Sink};
use crate::account::{Counter, Reason};
use crate::exchange::ConnectionId;
use crate::tcp::{Accepted, Hole, Mark, Out, PROOF_GRACE, Piece, Rejected, Stream};
use crate::time::Timestamp;
use crate::wire::{Path, Segment, TcpFlags};

/// One connection: two streams and the dialogue that they carry. Directions are numbered: 0 flows from `ends[0]`.
///
/// There may be very many, of which no cache holds the next one: what a segment in good order needs is kept small and together,
/// and the rest is behind pointers that are nearly always empty.
pub(super) struct Connection {
    streams: [Stream; 2],
    sides: [SideState; 2],
    dialogue: Dialogue,
    /// The VLANs and tunnels that its segments come through.
    path: Path,
    /// The other ways, where the same packets are seen in several.
    other_paths: Option<Box<SmallVec<[Path; MAX_PATHS - 1]>>>,
    undecided: Option<Box<Undecided>>,
    /// What [`Self::memory`] was when it was added up last.
    pub(super) counted: usize,
    pub(super) last_seen: Timestamp,
    /// The end that sent the first SYN.
    initiator: Option<u8>,
    /// Whether the 4-tuple was unknown when this life of it began.
    alone: bool,
    /// A handshake or data has shown that this life of the 4-tuple is real.
    pub(super) confirmed: bool,
    pub(super) closed: bool,
}

/// A hole that has to be looked at again when that moment has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timer {
    ProofGrace,
    Stall,
}

/// How long a hole is waited at when the peer's packets are not in the capture, so that nothing can ever prove it.
pub(super) const STALL: Duration = Duration::from_secs(1);

/// A segment whose timestamp is older than the newest by more than this is refused. The receiver refuses any older one
/// (RFC 7323 §5.3); the margin allows for capture that shows segments in another order than they were processed.
const PAWS_MARGIN: i32 = 200;

/// Ways on which one connection is known to be seen.
const MAX_PATHS: usize = 4;

impl Connection {
    pub(super) fn new(
        id: ConnectionId,
        ends: [SocketAddr; 2],
        path: Path,
        client: Option<usize>,
        alone: bool,
        limits: &Limits,
    ) -> Self {
        Self {
            streams: [Stream::new(limits.stream), Stream::new(limits.stream)],
            sides: Default::default(),
            dialogue: Dialogue::new(id, ends, client),
            path,
            other_paths: None,
            undecided: None,
            counted: 0,
            last_seen: Timestamp::ZERO,
            initiator: None,
            alone,
            confirmed: false,
            closed: false,
        }
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.dialogue.connection()
    }

    #[inline]
    pub(super) fn ends(&self) -> &Ends {
        self.dialogue.ends()
    }

    /// Whether its segments are known to come through `path`.
    #[inline]
    pub(super) fn uses(&self, path: Path) -> bool {
        self.path == path || self.paths().any(|known| known == path)
    }

    /// Whether segments of both come through the same VLANs and tunnels.
    pub(super) fn shares_path(&self, other: &Self) -> bool {
        self.paths().any(|path| other.uses(path))
    }

    /// Remembers that the same packets are seen through another path too.
    pub(super) fn also_uses(&mut self, path: Path) {
        if !self.uses(path) && self.paths().count() < MAX_PATHS {
            self.other_paths.get_or_insert_default().push(path);
        }
    }

    fn paths(&self) -> impl Iterator<Item = Path> {
        let others = self.other_paths.iter().flat_map(|others| others.iter());
        std::iter::once(self.path).chain(others.copied())
    }

    /// Bytes of memory held for it.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        std::mem::size_of::<Self>()
            + self.streams[0].memory()
            + self.streams[1].memory()
            + self.dialogue.memory()
            + self.undecided.as_ref().map_or(0, |it| it.memory())
    }

    /// How far a segment lies from what this life expects next, in bytes of both streams; `None`: out of the question.
    pub(super) fn distance(&self, direction: usize, segment: &Segment<'_>) -> Option<u64> {
        let sent = match self.streams[direction].offset_of(segment.seq) {
            Some(offset) => offset.abs_diff(self.streams[direction].next()),
            None => 0,
        };
        let acknowledged = match self.streams[1 - direction].offset_of(segment.ack) {
            Some(offset) if segment.flags.has(TcpFlags::ACK) => {
                offset.abs_diff(self.streams[1 - direction].next())
            }
            _ => 0,
        };
        (sent.max(acknowledged) <= 1 << 30).then_some(sent + acknowledged)
    }

    /// Takes one segment that belongs to this connection, and counts it. Returns a timer to set.
    pub(super) fn segment(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        now: Timestamp,
        sink: &mut Sink<'_>,
    ) -> Option<Timer> {
        self.last_seen = now;
        self.sides[direction].seen = true;
        if self.may_be_damaged(direction, segment) && self.keep_damaged(direction, segment, sink) {
            self.tidy();
            return None;
        }
        let mut settled = None;
        if self.has_damaged() {
            settled = self.settle_damaged(direction, segment, now, sink);
            self.tidy();
        }
        if let Some(ordinary) = self.as_ordinary(direction, segment) {
            self.ordinary(direction, segment, ordinary, now, sink);
            return self.timer_needed(direction).or(settled);
        }
        let timer = self.careful(direction, segment, now, sink);
        self.tidy();
        timer.or(settled)
    }

    /// Takes a segment that may be anything.
    fn careful(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        now: Timestamp,
        sink: &mut Sink<'_>,
    ) -> Option<Timer> {
        if self.closed {
            count_unread(segment, Reason::AfterClose, sink);
            return None;
        }
        if self.dialogue.is_opaque() {
            return self.opaque_segment(direction, segment, sink);
        }
        if self.suspended().is_some() {
            self.while_suspended(direction, segment, now, sink);
            return None;
        }
        if segment.flags.has(TcpFlags::RST) {
            return self.reset(direction, segment, now, sink);
        }
        if segment.flags.has(TcpFlags::SYN) {
            self.syn(direction, segment, now, sink);
            return None;
        }
        if let Some(reason) = self.refuses(direction, segment) {
            count_unread(segment, reason, sink);
            return None;
        }
        if !self.believes(direction, segment, now, sink) {
            return None;
        }
        self.accept(direction, segment, now, sink);
        self.settle_claims(now, sink);
        for sender in [direction, 1 - direction] {
            if let Some(at) = self.streams[sender].take_due_reset() {
                return Some(self.suspend(sender, at, None, now));
            }
        }
        if self.streams[0].has_ended() && self.streams[1].has_ended() {
            self.close(Ending::Fin, sink);
            return None;
        }
        self.timer_needed(direction)
    }

    /// Reads a segment that its receiver takes.
    fn accept(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        now: Timestamp,
        sink: &mut Sink<'_>,
    ) {
        self.anchor(direction, segment);
        let peer = self.acknowledge(direction, segment, now, sink);
        self.payload(direction, segment, peer, sink);
        if let Some(start) = self.streams[direction].offset_of(segment.seq) {
            // `payload` has moved the stream on, not the meaning of sequence numbers.
            let end = start + segment.payload.len() as u64 + u64::from(segment.cut);
            let fin = segment.flags.has(TcpFlags::FIN);
            if fin {
                self.streams[direction].close_at(end);
            }
            let side = &mut self.sides[direction];
            if self.streams[direction].is_in_window(end) {
                side.sent = side.sent.max(end + u64::from(fin));
            }
        }
        self.read(direction, sink);
        self.read_waiting(sink);
    }

    /// Looks at the holes again after a timer; returns whether there is still one to wait at.
    pub(super) fn expire(&mut self, now: Timestamp, sink: &mut Sink<'_>) -> Option<Timer> {
        let timer = self.look_again(now, sink);
        self.tidy();
        timer
    }

    fn look_again(&mut self, now: Timestamp, sink: &mut Sink<'_>) -> Option<Timer> {
        if self.closed {
            return None;
        }
        if let Some(suspended) = self.suspended() {
            if suspended.since.after(STALL) <= now {
                self.close(Ending::Reset, sink);
                return None;
            }
            return Some(Timer::Stall);
        }
        // The client's side first: its holes hold up the server's bytes.
        let client = self.dialogue.client().unwrap_or(0);
        for direction in [client, 1 - client] {
            loop {
                let due = match self.streams[direction].hole() {
                    Some(Hole::ProvedLost { since }) => since.after(PROOF_GRACE) <= now,
                    Some(Hole::Open { since }) => {
                        !self.sides[1 - direction].seen && since.after(STALL) <= now
                    }
                    None => false,
                };
                if !due || !self.give_up_hole(direction, sink) {
                    break;
                }
            }
            self.read_waiting(sink);
        }
        if self.streams[0].has_ended() && self.streams[1].has_ended() {
            self.close(Ending::Fin, sink);
            return None;
        }
        self.timer_needed(client)
            .or_else(|| self.timer_needed(1 - client))
    }

    /// Ends the connection: whatever is held is read as far as it goes.
    pub(super) fn close(&mut self, ending: Ending, sink: &mut Sink<'_>) {
        if self.closed {
            return;
        }
        self.refuse_damaged(sink);
        self.believe_claims(sink);
        self.closed = true;
        let suspended = self.undecided.as_mut().and_then(|it| it.suspended.take());
        let ending = match suspended {
            Some(suspended) => {
                self.end_by_reset(&suspended, sink);
                Ending::Reset
            }
            None => ending,
        };
        self.settle_syn_payload(true, sink);
        let client = self.dialogue.client().unwrap_or(0);
        for direction in [client, 1 - client] {
            self.read(direction, sink);
            self.force_waiting(sink);
            while !self.streams[direction].has_ended() && self.give_up_hole(direction, sink) {}
            self.force_waiting(sink);
        }
        self.dialogue.close(ending, sink);
        for stream in &mut self.streams {
            stream.finish();
        }
        self.undecided = None;
        sink.account.drop(match ending {
            Ending::Fin => Reason::Finished,
            Ending::Reset => Reason::Reset,
            Ending::Replaced => Reason::Replaced,
            Ending::Idle => Reason::Idle,
            Ending::Evicted => Reason::Evicted,
            Ending::OverLimit => Reason::ConnectionOverLimit,
            Ending::CaptureEnded => Reason::CaptureEnded,
        });
    }

    /// A connection of which nothing is read any more: only its end matters.
    fn opaque_segment(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        sink: &mut Sink<'_>,
    ) -> Option<Timer> {
        count_unread(segment, Reason::NotHttp, sink);
        for stream in &mut self.streams {
            // Of one that carried something, so that the first FIN ends the connection.
            if !stream.is_untouched() && !stream.has_ended() {
                stream.finish();
            }
        }
        if segment.flags.has(TcpFlags::RST) {
            self.close(Ending::Reset, sink);
        } else if segment.flags.has(TcpFlags::FIN) {
            self.streams[direction].finish();
            if self.streams[0].has_ended() && self.streams[1].has_ended() {
                self.close(Ending::Fin, sink);
            }
        }
        None
    }

    /// Why the receiver drops the segment before it looks at the data (RFC 9293 §3.10.7.4, RFC 7323 §5.3, RFC 2385).
    fn refuses(&self, direction: usize, segment: &Segment<'_>) -> Option<Reason> {
        if !segment.flags.has(TcpFlags::ACK) {
            return Some(Reason::NoAckFlag);
        }
        let side = &self.sides[direction];
        if segment.signed && side.signed == Some(false) {
            return Some(Reason::UnexpectedMd5);
        }
        if let Some((value, _)) = segment.timestamps
            && side.newer_by(value).is_some_and(|by| by < -PAWS_MARGIN)
        {
            return Some(Reason::OldTimestamp);
        }
        None
    }

    fn note_timestamp(&mut self, direction: usize, segment: &Segment<'_>, first: bool) {
        let Some((value, _)) = segment.timestamps else {
            return;
        };
        let in_order = self.streams[direction]
            .offset_of(segment.seq)
            .is_some_and(|offset| offset <= self.streams[direction].next());
        let side = &mut self.sides[direction];
        let newer = side.newer_by(value).is_none_or(|by| by > 0);
        if first || (in_order && newer) {
            side.set_timestamp(value);
        }
    }

    /// Takes the acknowledgement; returns where the sender stands in the opposite stream.
    fn acknowledge(
        &mut self,
        direction: usize,
        segment: &Segment<'_>,
        now: Timestamp,
        sink: &mut Sink<'_>,
    ) -> u64 {
        let opposite = 1 - direction;
        if let Some(syn) = self.syn_payload(opposite) {
            let taken = segment.ack.wrapping_sub(syn.seq) as usize;
            if taken > 0 && taken <= syn.bytes.len() {
                if let Some(SynPayload {
                    seq, bytes, mark, ..
                }) = self.take_syn_payload()
                {
                    self.place_bytes(opposite, seq, &bytes[..taken], 0, mark, sink);
                    self.read(opposite, sink);
                }
            } else {
                self.settle_syn_payload(false, sink);
            }
        }
        self.sides[direction].acknowledges(segment.ack);
        let stream = &self.streams[opposite];
        let Some(offset) = stream.offset_of(segment.ack) else {
            return Stream::ORIGIN;
        };
        if stream.is_untouched() && offset.abs_diff(Stream::ORIGIN) > MAX_BEFORE {
            return Stream::ORIGIN; // it begins elsewhere than the captured SYN says
        }
        self.streams[opposite].acknowledge(offset, now, sink.spare);
        offset
    }

    fn payload(&mut self, direction: usize, segment: &Segment<'_>, peer: u64, sink: &mut Sink<'_>) {
        if segment.payload.is_empty() && segment.cut == 0 {
            sink.account.count(Counter::SegmentsControl);
            return;
        }
        if let Some(syn) = self.syn_payload(direction) {
            // Sent again, or continued: the second shows that the server took it.
            let continues = segment.seq != syn.seq;
            if continues && let Some(syn) = self.take_syn_payload() {
                self.place_bytes(direction, syn.seq, &syn.bytes, 0, syn.mark, sink);
                self.read(direction, sink);
            } else {
                self.settle_syn_payload(false, sink);
            }
        }
        if let Some(pointer) = segment.urgent
            && pointer > 0
            && let Some(offset) = self.streams[direction].offset_of(segment.seq)
        {
            self.undecided().urgent[direction] = Some(offset + u64::from(pointer) - 1);
        }
        let mark = Mark {
            time: segment.time,
            peer,
        };
        self.place(direction, segment.seq, segment, mark, sink);
    }

    fn place(
        &mut self,
        direction: usize,
        seq: u32,
        segment: &Segment<'_>,
        mark: Mark,
        sink: &mut Sink<'_>,
    ) {
        self.place_bytes(direction, seq, segment.payload, segment.cut, mark, sink);
    }

    fn place_bytes(
        &mut self,
        direction: usize,
        seq: u32,
        payload: &[u8],
        cut: u32,
        mark: Mark,
        sink: &mut Sink<'_>,
    ) {
        let Some(start) = self.streams[direction].offset_of(seq) else {
            return;
        };
        let accepted = self.streams[direction].insert(Piece {
            start,
            payload,
            cut,
            mark,
        });
        if let Some(range) = self.streams[direction].take_conflict() {
            sink.account.count(Counter::Conflicts);
            self.dialogue.doubt(direction, range);
        }
        match accepted {
            Ok(Accepted::InOrder(range)) => {
                sink.account.count(Counter::SegmentsData);
                self.confirmed = true;
                let chunk = Chunk {
                    offset: start + range.start as u64,
                    boundary: range.start == 0,
                    bytes: &payload[range],
                    mark,
                };
                self.deliver(direction, chunk, sink);
            }
            Ok(Accepted::Held) => sink.account.count(Counter::SegmentsData),
            Err(rejected) => sink.account.drop(match rejected {
                Rejected::Duplicate => Reason::Duplicate,
                Rejected::OutOfWindow => Reason::OutOfWindow,
                Rejected::AfterEnd => Reason::AfterClose,
            }),
        }
    }

    /// Reads everything that a stream has ready behind what was delivered directly.
    fn read(&mut self, direction: usize, sink: &mut Sink<'_>) {
        loop {
            let offset = self.streams[direction].next();
            let Some(out) = self.streams[direction].poll() else {
                return;
            };
            self.hand_over(direction, out, offset, sink);
        }
    }

    fn hand_over(&mut self, direction: usize, out: Out, offset: u64, sink: &mut Sink<'_>) {
        let is_early = matches!(&out, Out::Data(_, mark, _) if self.is_early(direction, *mark));
        if self.is_server(direction) && (self.has_waiting() || is_early) {
            self.wait(out, offset);
        } else {
            self.hand_over_now(direction, out, offset, sink);
        }
    }

    fn hand_over_now(&mut self, direction: usize, out: Out, offset: u64, sink: &mut Sink<'_>) {
        match out {
            Out::Data(bytes, mark, boundary) => {
                let chunk = Chunk {
                    bytes: &bytes,
                    offset,
                    mark,
                    boundary,
                };
                self.deliver_now(direction, chunk, sink);
            }
            Out::Gap(length) => self.dialogue.gap(direction, length, sink),
            Out::End => self.dialogue.end(direction, Ending::Fin, sink),
        }
    }

    /// Gives bytes to the dialogue, or keeps them while they answer something that is still to be read.
    fn deliver(&mut self, direction: usize, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        if self.is_server(direction) && (self.has_waiting() || self.is_early(direction, chunk.mark))
        {
            let bytes = Bytes::copy_from_slice(chunk.bytes);
            self.wait(Out::Data(bytes, chunk.mark, chunk.boundary), chunk.offset);
            return;
        }
        self.deliver_now(direction, chunk, sink);
    }

    /// Takes the urgent byte out, as a receiver without `SO_OOBINLINE` does (Linux `tcp_recvmsg`).
    fn deliver_now(&mut self, direction: usize, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        let end = chunk.offset + chunk.bytes.len() as u64;
        match self
            .urgent(direction)
            .filter(|&at| at >= chunk.offset && at < end)
        {
            None => self.dialogue.data(direction, chunk, sink),
            Some(at) => {
                let (before, after) = chunk.bytes.split_at((at - chunk.offset) as usize);
                self.dialogue.data(
                    direction,
                    Chunk {
                        bytes: before,
                        ..chunk
                    },
                    sink,
                );
                let boundary = chunk.boundary && before.is_empty();
                let rest = Chunk {
                    bytes: &after[1..],
                    offset: at + 1,
                    boundary,
                    ..chunk
                };
                self.dialogue.data(direction, rest, sink);
            }
        }
    }

    fn is_server(&self, direction: usize) -> bool {
        self.client() == Some(1 - direction)
    }

    /// The client's direction: as the dialogue knows it, or as the handshake suggests.
    fn client(&self) -> Option<usize> {
        let initiator = self.initiator.map(usize::from);
        self.dialogue.client().or(initiator)
    }

    /// Whether server bytes acknowledge client bytes that have not been read yet.
    fn is_early(&self, direction: usize, mark: Mark) -> bool {
        let client = &self.streams[1 - direction];
        self.sides[1 - direction].seen
            && !client.has_ended()
            && mark.peer > client.next()
            && client.hole().is_some()
    }

    /// Turns the hole that a stream waits at into a gap and reads on; false when there is none.
    fn give_up_hole(&mut self, direction: usize, sink: &mut Sink<'_>) -> bool {
        let offset = self.streams[direction].next();
        let Some(out) = self.streams[direction].give_up_hole() else {
            return false;
        };
        self.hand_over(direction, out, offset, sink);
        self.read(direction, sink);
        true
    }

    fn timer_needed(&self, direction: usize) -> Option<Timer> {
        let needed = |direction: usize| match self.streams[direction].hole()? {
            Hole::ProvedLost { .. } => Some(Timer::ProofGrace),
            Hole::Open { .. } if !self.sides[1 - direction].seen => Some(Timer::Stall),
            Hole::Open { .. } => None,
        };
        needed(1 - direction).or_else(|| needed(direction))
    }
}

/// Counts a segment of which nothing is read: as control when it carries nothing.
fn count_unread(segment: &Segment<'_>, reason: Reason, sink: &mut Sink<'_>) {
    if segment.payload.is_empty() && segment.cut == 0 {
        sink.account.count(Counter::SegmentsControl);
    } else {
        sink.account.drop(reason);
    }
}
