//! One direction of one TCP connection, put back in order.
//!
//! The receiver's kernel decides what the application reads; a passive observer has to decide the same. Where
//! retransmissions differ from what they repeat, this follows Linux (`tcp_data_queue_ofo`, `tcp_ofo_queue` in
//! `net/ipv4/tcp_input.c`), since version 1 is what was served: bytes that were delivered stay, a queued piece stays
//! unless a new one begins no later and ends later, and where pieces overlap the one that begins first wins.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::disorder::{Disorder, differ};
use crate::time::Timestamp;

/// Where and when bytes of a stream were captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// Capture time of the segment that brought them.
    pub time: Timestamp,
    /// How far the sender had acknowledged the opposite stream then, as an offset in that stream.
    pub peer: u64,
}

/// One segment's payload, placed in its stream.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Stream offset of the first byte.
    pub start: u64,
    /// The bytes that were captured.
    pub payload: &'a [u8],
    /// How many more bytes the segment had, which the snap length cut off.
    pub cut: u32,
    /// Where and when.
    pub mark: Mark,
}

/// What became of a segment's payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// This part of the payload continues the stream: read it now, then poll.
    InOrder(Range<usize>),
    /// Held until what comes before it is here, or known to be lost.
    Held,
}

/// Why a segment's payload brought nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// Every byte was known.
    Duplicate,
    /// Beyond anything that the receiver could take.
    OutOfWindow,
    /// Behind the end of the stream.
    AfterEnd,
}

/// What [`Stream::poll`] hands out, in stream order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Out {
    /// Bytes that were held. The flag tells whether the first of them began a segment.
    Data(Bytes, Mark, bool),
    /// Bytes that were never captured.
    Gap(u64),
    /// The sender closed its direction; nothing follows.
    End,
}

/// The hole that a stream waits at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hole {
    /// The peer has acknowledged bytes in it: they were delivered, and the capture lacks them.
    ProvedLost {
        /// Since when that is known.
        since: Timestamp,
    },
    /// Nothing proves it yet; something is held behind it.
    Open {
        /// Since when something has been held.
        since: Timestamp,
    },
}

/// Bounds of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamLimits {
    /// Bytes held behind a hole, bookkeeping included. Beyond it the hole is given up.
    pub held: u32,
    /// How far ahead of the expected byte data is believed; no receive window is larger.
    pub window: u32,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            held: 16 << 20,
            window: 64 << 20,
        }
    }
}

/// How long after its proof a hole is given up: capture on several queues may show an acknowledgement before the data
/// that it acknowledges.
pub const PROOF_GRACE: Duration = Duration::from_millis(100);

/// One direction of one connection.
///
/// Offsets count from [`Stream::ORIGIN`], the first byte expected when the stream was anchored, so that earlier bytes
/// have offsets too.
///
/// There may be very many, and each segment needs two of them: what a stream in good order needs is one line of the cache, and
/// the rest is elsewhere.
///
/// Invariant: `disorder` is there while there is something in it.
#[derive(Debug)]
pub struct Stream {
    next: u64,
    /// Highest offset that the peer acknowledged.
    acked: u64,
    /// The last bytes delivered, up to `next`, while the peer has not acknowledged all of them: what is sent again is
    /// compared with them.
    tail: Vec<u8>,
    /// What is held, missing, closed or contradicted.
    disorder: Option<Box<Disorder>>,
    /// Sequence number of `next`, once the stream is anchored.
    next_seq: u32,
    limits: StreamLimits,
    anchored: bool,
    ended: bool,
}

/// How many delivered bytes are kept to compare with: a full segment and some.
const TAIL: usize = 2048;

/// Room for delivered bytes that streams share: what one needs no more is taken by the next, and is in the cache, which the room of
/// a connection that was idle would not be.
#[derive(Debug, Default)]
pub struct Spare(Vec<Vec<u8>>);

impl Spare {
    #[inline]
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    #[inline]
    fn give(&mut self, mut room: Vec<u8>) {
        if self.0.len() < MAX_SPARE {
            room.clear();
            self.0.push(room);
        }
    }
}

/// As many as there are connections between a message and its acknowledgement, where they are in the cache.
const MAX_SPARE: usize = 32;

impl Stream {
    /// The offset of the first byte expected when a stream is anchored.
    pub const ORIGIN: u64 = 1 << 40;

    /// A stream that is not anchored yet.
    #[must_use]
    pub fn new(limits: StreamLimits) -> Self {
        Self {
            next: Self::ORIGIN,
            acked: 0,
            tail: Vec::new(),
            disorder: None,
            next_seq: 0,
            limits,
            anchored: false,
            ended: false,
        }
    }

    /// Fixes the sequence number of the first byte expected; only while nothing was read.
    pub fn anchor(&mut self, seq: u32) {
        debug_assert!(self.is_untouched());
        self.next_seq = seq;
        self.anchored = true;
    }

    /// Whether it is known which sequence number comes next.
    #[must_use]
    pub fn is_anchored(&self) -> bool {
        self.anchored
    }

    /// Whether nothing has been seen of it yet but, perhaps, where it begins.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        let disorder = self.disorder.as_deref();
        self.next == Self::ORIGIN
            && !self.ended
            && disorder.is_none_or(|it| it.held.is_empty() && it.fin.is_none())
    }

    /// The stream offset of a sequence number: the one place where 32 bits become 64. `None` before the anchor.
    #[must_use]
    #[inline]
    pub fn offset_of(&self, seq: u32) -> Option<u64> {
        let delta = seq.wrapping_sub(self.next_seq).cast_signed();
        let offset = self.next.wrapping_add_signed(i64::from(delta));
        self.anchored.then_some(offset)
    }

    /// The offset of the next byte to be read.
    #[must_use]
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The highest offset known to be sent: read, held, or closed at.
    #[must_use]
    #[inline]
    pub fn highest(&self) -> u64 {
        match &self.disorder {
            None => self.next,
            Some(disorder) => self.next.max(disorder.highest()),
        }
    }

    /// Whether the receiver could take bytes up to that offset.
    #[must_use]
    #[inline]
    pub fn is_in_window(&self, end: u64) -> bool {
        end <= self.next + u64::from(self.limits.window)
    }

    /// Whether the end was handed out.
    #[must_use]
    #[inline]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Bytes held, bookkeeping included.
    #[must_use]
    #[inline]
    pub fn memory(&self) -> usize {
        let disorder = self.disorder.as_deref();
        self.tail.capacity() + disorder.map_or(0, Disorder::memory)
    }

    /// Takes the range in which the piece inserted last differed from what it repeats: bytes that are held, or were
    /// delivered not long ago.
    pub fn take_conflict(&mut self) -> Option<Range<u64>> {
        let conflict = self.disorder.as_mut()?.conflict.take();
        self.tidy();
        conflict
    }

    /// Whether nothing is held, missing, closed or reset: what comes next can be read as soon as it is here.
    #[must_use]
    #[inline]
    pub fn is_smooth(&self) -> bool {
        self.disorder.is_none() && !self.ended
    }

    /// Places a payload that is exactly what comes next of a stream that [is smooth](Self::is_smooth); all of it is to be
    /// read now.
    #[inline]
    pub fn append(&mut self, payload: &[u8], spare: &mut Spare) {
        debug_assert!(self.is_smooth());
        if self.tail.capacity() == 0 {
            self.tail = spare.take();
        }
        self.deliver(payload);
    }

    /// Places a segment's payload.
    ///
    /// # Errors
    /// When it brings nothing; the stream is then as it was, but for [`Self::take_conflict`].
    pub fn insert(&mut self, piece: Piece<'_>) -> Result<Accepted, Rejected> {
        let Piece {
            start,
            payload,
            cut,
            mark,
        } = piece;
        let end = start + payload.len() as u64 + u64::from(cut);
        self.compare_with_delivered(start, payload);
        if end <= self.next {
            return Err(Rejected::Duplicate);
        }
        if self.ended || self.fin() == Some(self.next) {
            return Err(Rejected::AfterEnd);
        }
        if !self.is_in_window(end) {
            return Err(Rejected::OutOfWindow);
        }
        if start <= self.next {
            let known = ((self.next - start) as usize).min(payload.len());
            let cut = end - self.next.max(start + payload.len() as u64);
            if let Some(disorder) = &mut self.disorder {
                disorder.forget_end_before(end);
                disorder.compare_with_held(start, payload);
            }
            if cut > 0 {
                self.disorder().cut = cut;
            }
            self.deliver(&payload[known..]);
            self.tidy();
            return Ok(Accepted::InOrder(known..payload.len()));
        }
        let disorder = self.disorder();
        disorder.hold(piece, end)?;
        disorder.forget_end_before(end);
        disorder.held_since.get_or_insert(mark.time);
        Ok(Accepted::Held)
    }

    /// Notes that the sender closed its direction at that offset.
    pub fn close_at(&mut self, offset: u64) {
        let in_window = offset >= self.next && self.is_in_window(offset);
        if in_window && self.highest() <= offset && !self.ended {
            self.disorder().fin = Some(offset);
        }
    }

    /// Notes a reset at that offset; true when it is exactly where the receiver stands, so that it counts at once
    /// (RFC 5961 §3.2). A reset further on is remembered: the capture may lack, or show late, what comes before it.
    pub fn reset_at(&mut self, offset: u64) -> bool {
        // The FIN has a number of its own: one who has gone after it resets behind it.
        let is_next = offset == self.next || (self.ended && offset == self.next + 1);
        let disorder = self.disorder.as_deref();
        if is_next && disorder.is_none_or(|it| it.held.is_empty()) {
            return true;
        }
        if offset > self.next && self.is_in_window(offset) && offset >= self.highest() {
            self.disorder().reset = Some(offset);
        }
        false
    }

    /// Takes a remembered reset that has come due: where it is.
    pub fn take_due_reset(&mut self) -> Option<u64> {
        let disorder = self.disorder.as_mut()?;
        let due = disorder.reset.take_if(|reset| *reset == self.next);
        self.tidy();
        due
    }

    /// Notes how far the peer has acknowledged this stream.
    #[inline]
    pub fn acknowledge(&mut self, offset: u64, now: Timestamp, spare: &mut Spare) {
        if offset > self.acked && self.is_in_window(offset) {
            self.acked = offset;
        }
        // What the receiver has, it has: a later copy of it decides nothing.
        if offset >= self.next && self.tail.capacity() > 0 {
            spare.give(std::mem::take(&mut self.tail));
        }
        if self.acked > self.next && !self.ended {
            // An acknowledged FIN counts one sequence number beyond the last byte.
            let last_byte = self.fin().unwrap_or(u64::MAX);
            if self.acked.min(last_byte) > self.next {
                self.disorder().proved_since.get_or_insert(now);
            }
        }
    }

    /// What the stream waits for, if it waits.
    #[must_use]
    #[inline]
    pub fn hole(&self) -> Option<Hole> {
        let disorder = self.disorder.as_deref()?;
        if self.ended {
            return None;
        }
        disorder.hole()
    }

    /// What can be read beyond the piece that [`Self::insert`] gave back, in order.
    #[inline]
    pub fn poll(&mut self) -> Option<Out> {
        self.disorder.is_some().then(|| self.poll_disorder())?
    }

    fn poll_disorder(&mut self) -> Option<Out> {
        while let Some(disorder) = &mut self.disorder {
            if disorder.cut > 0 {
                let cut = std::mem::take(&mut disorder.cut);
                self.skip(cut);
                return Some(Out::Gap(cut));
            }
            let Some((start, piece)) = disorder.take_first(self.next) else {
                break;
            };
            let end = piece.end(start);
            if end <= self.next {
                continue; // superseded by a piece that began earlier
            }
            let known = ((self.next - start) as usize).min(piece.bytes.len());
            disorder.cut = end - self.next.max(start + piece.bytes.len() as u64);
            let bytes = piece.bytes.slice(known..);
            if !bytes.is_empty() {
                self.deliver(&bytes);
                return Some(Out::Data(bytes, piece.mark, known == 0));
            }
        }
        let disorder = self.disorder.as_mut()?;
        if disorder.held.is_empty() {
            disorder.held_since = None;
        }
        if disorder.fin == Some(self.next) && !self.ended {
            self.ended = true;
            disorder.proved_since = None;
            disorder.fin = None;
            self.tidy();
            return Some(Out::End);
        }
        if disorder.held_bytes > self.limits.held as usize {
            return self.give_up_hole();
        }
        self.tidy();
        None
    }

    /// Gives up waiting at the hole: its length becomes a gap, and what is held behind it can be polled.
    ///
    /// A hole reaches to the first byte held, to the close or reset, or, with none of these behind it, to the
    /// highest acknowledgement.
    pub fn give_up_hole(&mut self) -> Option<Out> {
        let disorder = self.disorder.as_deref();
        let held = disorder.and_then(|it| it.held.first_key_value());
        let closed = disorder.and_then(|it| it.fin.or(it.reset));
        let end = held
            .map(|(&start, _)| start)
            .into_iter()
            .chain(closed)
            .filter(|&end| end > self.next)
            .min();
        let end = end.or(Some(self.acked).filter(|&acked| acked > self.next))?;
        let missing = end - self.next;
        self.skip(missing);
        Some(Out::Gap(missing))
    }

    /// Ends the stream where it stands, dropping what is held.
    pub fn finish(&mut self) {
        self.ended = true;
        self.disorder = None;
        self.tail = Vec::new();
    }

    fn deliver(&mut self, bytes: &[u8]) {
        self.advance(bytes.len() as u64);
        let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
        let surplus = (self.tail.len() + bytes.len()).saturating_sub(TAIL);
        if surplus > 0 {
            self.tail.drain(..surplus);
        }
        self.tail.extend_from_slice(bytes);
    }

    fn skip(&mut self, missing: u64) {
        self.advance(missing);
        self.tail = Vec::new();
        self.tidy();
    }

    #[inline]
    fn advance(&mut self, by: u64) {
        self.next += by;
        self.next_seq = self.next_seq.wrapping_add(by as u32);
        if let Some(disorder) = &mut self.disorder
            && self.acked <= self.next
        {
            disorder.proved_since = None;
        }
    }

    /// Notes a conflict when `payload` differs from what was delivered at the same offsets.
    fn compare_with_delivered(&mut self, start: u64, payload: &[u8]) {
        // A keep-alive probe may repeat the last byte as any byte (RFC 9293 §3.8.4).
        if start >= self.next || payload.len() == 1 {
            return;
        }
        let tail = self.next - self.tail.len() as u64;
        if differ((tail, &self.tail), (start, payload)) {
            let end = self.next.min(start + payload.len() as u64);
            self.disorder().note_conflict(start..end);
        }
    }

    fn fin(&self) -> Option<u64> {
        self.disorder.as_ref()?.fin
    }

    fn disorder(&mut self) -> &mut Disorder {
        self.disorder.get_or_insert_default()
    }

    /// Lets go of the disorder when it is over.
    #[inline]
    fn tidy(&mut self) {
        let disorder = self.disorder.as_deref();
        if disorder.is_some_and(Disorder::is_over) {
            self.disorder = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Pushes `(start, bytes)` pieces at offsets from the origin and returns what comes out.
    fn run(pieces: &[(u64, &[u8])]) -> Vec<u8> {
        let mut stream = Stream::new(StreamLimits::default());
        stream.anchor(7);
        let mut out = Vec::new();
        for &(start, payload) in pieces {
            let start = Stream::ORIGIN + start;
            let piece = Piece {
                start,
                payload,
                cut: 0,
                mark: Mark::default(),
            };
            if let Ok(Accepted::InOrder(range)) = stream.insert(piece) {
                out.extend_from_slice(&payload[range]);
            }
            while let Some(Out::Data(bytes, ..)) = stream.poll() {
                out.extend_from_slice(&bytes);
            }
        }
        out
    }

    /// Each case with what Linux 6.18 delivered to the application, observed on a raw socket pair.
    #[test]
    #[expect(
        clippy::type_complexity,
        reason = "a table: segments, and what was read"
    )]
    fn overlaps_end_as_on_linux() {
        let x5: &[u8] = b"xxxxx";
        let x10: &[u8] = b"xxxxxxxxxx";
        let a5: &[u8] = b"AAAAA";
        let a10: &[u8] = b"AAAAAAAAAA";
        let a20: &[u8] = b"AAAAAAAAAAAAAAAAAAAA";
        let b5: &[u8] = b"BBBBB";
        let b10: &[u8] = b"BBBBBBBBBB";
        let b15: &[u8] = b"BBBBBBBBBBBBBBB";
        let b20: &[u8] = b"BBBBBBBBBBBBBBBBBBBB";
        let cases: &[(&[(u64, &[u8])], &str)] = &[
            (&[(0, a10), (0, b10)], "AAAAAAAAAA"),
            (&[(10, a10), (10, b10), (0, x10)], "xxxxxxxxxxAAAAAAAAAA"),
            (
                &[(10, a10), (10, b15), (0, x10)],
                "xxxxxxxxxxBBBBBBBBBBBBBBB",
            ),
            (&[(10, a10), (10, b5), (0, x10)], "xxxxxxxxxxAAAAAAAAAA"),
            (&[(10, a10), (5, b10), (0, x5)], "xxxxxBBBBBBBBBBAAAAA"),
            (&[(10, a10), (5, b20), (0, x5)], "xxxxxBBBBBBBBBBBBBBBBBBBB"),
            (
                &[(10, a10), (15, b10), (0, x10)],
                "xxxxxxxxxxAAAAAAAAAABBBBB",
            ),
            (
                &[(10, a20), (15, b5), (0, x10)],
                "xxxxxxxxxxAAAAAAAAAAAAAAAAAAAA",
            ),
            (
                &[(10, a10), (0, b"xxxxxxxxxxBBBBB")],
                "xxxxxxxxxxBBBBBAAAAA",
            ),
            (
                &[(10, a10), (0, b"xxxxxxxxxxBBBBBBBBBB")],
                "xxxxxxxxxxBBBBBBBBBB",
            ),
            (
                &[(10, a10), (0, b"xxxxxxxxxxBBBBBBBBBBBBBBB")],
                "xxxxxxxxxxBBBBBBBBBBBBBBB",
            ),
            (&[(0, a10), (5, b10)], "AAAAAAAAAABBBBB"),
            (&[(0, x5), (4, b"Z"), (5, a5)], "xxxxxAAAAA"),
            (&[(0, x5), (5, b"Z"), (5, a5)], "xxxxxZAAAA"),
        ];
        for (pieces, expected) in cases {
            assert_eq!(
                String::from_utf8(run(pieces)).unwrap(),
                *expected,
                "{pieces:?}"
            );
        }
    }

    /// Random pieces of one stream in random order, against a map from offset to byte, half near the 2³² wrap.
    #[test]
    fn random_segments_give_the_bytes_that_were_sent() {
        let mut random = crate::random::below();
        for round in 0..2000 {
            let sent: Vec<u8> = (0..200).map(|_| random(256) as u8).collect();
            let near_wrap = round % 2 == 0;
            let isn = if near_wrap {
                u32::MAX - random(200) as u32
            } else {
                random(1 << 32) as u32
            };
            let mut stream = Stream::new(StreamLimits::default());
            stream.anchor(isn);
            let mut oracle: BTreeMap<u64, u8> = BTreeMap::new();
            let mut read: Vec<u8> = Vec::new();
            for _ in 0..60 {
                let from = random(200);
                let length = (random(30) + 1).min(200 - from);
                let payload = &sent[from as usize..(from + length) as usize];
                let start = stream.offset_of(isn.wrapping_add(from as u32)).unwrap();
                assert_eq!(start, Stream::ORIGIN + from);
                let piece = Piece {
                    start,
                    payload,
                    cut: 0,
                    mark: Mark::default(),
                };
                let known = (from..from + length).all(|at| oracle.contains_key(&at));
                match stream.insert(piece) {
                    Ok(Accepted::InOrder(range)) => read.extend_from_slice(&payload[range]),
                    Ok(Accepted::Held) => {}
                    Err(rejected) => {
                        assert_eq!(rejected, Rejected::Duplicate);
                        assert!(known, "a piece with new bytes was refused");
                    }
                }
                oracle.extend((from..from + length).map(|at| (at, sent[at as usize])));
                while let Some(out) = stream.poll() {
                    let Out::Data(bytes, ..) = out else {
                        panic!("{out:?}")
                    };
                    read.extend_from_slice(&bytes);
                }
                let expected: Vec<u8> = (0u64..).map_while(|at| oracle.get(&at).copied()).collect();
                assert_eq!(read, expected);
                assert_eq!(stream.next(), Stream::ORIGIN + read.len() as u64);
            }
            assert_eq!(stream.take_conflict(), None);
        }
    }

    #[test]
    fn a_rejected_piece_changes_nothing() {
        let mut stream = Stream::new(StreamLimits {
            held: 1 << 20,
            window: 100,
        });
        stream.anchor(0);
        let place = |start: u64, payload: &'static [u8]| Piece {
            start: Stream::ORIGIN + start,
            payload,
            cut: 0,
            mark: Mark::default(),
        };
        assert_eq!(stream.insert(place(0, b"abc")), Ok(Accepted::InOrder(0..3)));
        assert_eq!(stream.insert(place(10, b"xyz")), Ok(Accepted::Held));
        let before = format!("{stream:?}");
        assert_eq!(stream.insert(place(0, b"ab")), Err(Rejected::Duplicate));
        assert_eq!(stream.insert(place(10, b"xy")), Err(Rejected::Duplicate));
        assert_eq!(
            stream.insert(place(200, b"far")),
            Err(Rejected::OutOfWindow)
        );
        assert_eq!(format!("{stream:?}"), before);
    }

    #[test]
    fn a_cut_segment_is_a_gap_at_once() {
        let mut stream = Stream::new(StreamLimits::default());
        stream.anchor(0);
        let piece = Piece {
            start: Stream::ORIGIN,
            payload: b"abc",
            cut: 5,
            mark: Mark::default(),
        };
        assert_eq!(stream.insert(piece), Ok(Accepted::InOrder(0..3)));
        assert_eq!(stream.poll(), Some(Out::Gap(5)));
        assert_eq!(stream.next(), Stream::ORIGIN + 8);
    }

    #[test]
    fn one_acknowledgement_proves_every_hole_before_it() {
        let mut stream = Stream::new(StreamLimits::default());
        stream.anchor(0);
        for start in [10, 20] {
            let start = Stream::ORIGIN + start;
            let piece = Piece {
                start,
                payload: b"abc",
                cut: 0,
                mark: Mark::default(),
            };
            assert_eq!(stream.insert(piece), Ok(Accepted::Held));
        }
        let since = Timestamp::from_nanos(5);
        stream.acknowledge(Stream::ORIGIN + 23, since, &mut Spare::default());
        for gap in [10, 7] {
            assert_eq!(stream.hole(), Some(Hole::ProvedLost { since }));
            assert_eq!(stream.give_up_hole(), Some(Out::Gap(gap)));
            assert!(matches!(stream.poll(), Some(Out::Data(..))));
        }
        assert_eq!(stream.hole(), None);
    }

    #[test]
    fn a_proved_hole_ends_where_the_held_data_begins() {
        let mut stream = Stream::new(StreamLimits::default());
        stream.anchor(0);
        let now = Timestamp::from_nanos(5);
        let start = Stream::ORIGIN + 10;
        let piece = Piece {
            start,
            payload: b"abc",
            cut: 0,
            mark: Mark::default(),
        };
        assert_eq!(stream.insert(piece), Ok(Accepted::Held));
        stream.close_at(Stream::ORIGIN + 13);
        assert_eq!(stream.poll(), None);
        stream.acknowledge(Stream::ORIGIN + 14, now, &mut Spare::default());
        assert_eq!(stream.hole(), Some(Hole::ProvedLost { since: now }));
        assert_eq!(stream.give_up_hole(), Some(Out::Gap(10)));
        assert!(matches!(stream.poll(), Some(Out::Data(..))));
        assert_eq!(stream.poll(), Some(Out::End));
        assert_eq!(stream.hole(), None);
    }
}
