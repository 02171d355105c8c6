//! One direction of one TCP connection, put back in order.
//!
//! The receiver's kernel decides what the application reads; a passive observer has to decide the same. Where
//! retransmissions differ from what they repeat, this follows Linux (`tcp_data_queue_ofo`, `tcp_ofo_queue` in
//! `net/ipv4/tcp_input.c`), since version 1 is what was served: bytes that were delivered stay, a queued piece stays
//! unless a new one begins no later and ends later, and where pieces overlap the one that begins first wins.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

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
    pub held: usize,
    /// How far ahead of the expected byte data is believed; no receive window is larger.
    pub window: u64,
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
/// Invariant on `held`: both the starts and the ends of the pieces increase strictly.
#[derive(Debug)]
pub struct Stream {
    limits: StreamLimits,
    /// Sequence number of `next`; `None` until the stream is anchored.
    next_seq: Option<u32>,
    next: u64,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    /// The segment delivered last was cut by the snap length; that many bytes of it are a gap.
    cut: u64,
    /// Highest offset that the peer acknowledged.
    acked: u64,
    proved_since: Option<Timestamp>,
    held_since: Option<Timestamp>,
    fin: Option<u64>,
    reset: Option<u64>,
    ended: bool,
    /// The last bytes delivered, up to `next`, while the peer has not acknowledged all of them: what is sent again is
    /// compared with them.
    tail: Vec<u8>,
    /// Where a retransmission differed from what it repeats, until somebody asks.
    conflict: Option<Range<u64>>,
}

#[derive(Debug)]
struct Held {
    bytes: Bytes,
    cut: u32,
    mark: Mark,
}

impl Held {
    fn end(&self, start: u64) -> u64 {
        start + self.bytes.len() as u64 + u64::from(self.cut)
    }
}

/// What a held piece costs beside its bytes: map node, reference-counted buffer, allocator.
const BOOKKEEPING: usize = 160;

/// How many delivered bytes are kept to compare with: a full segment and some.
const TAIL: usize = 2048;

impl Stream {
    /// The offset of the first byte expected when a stream is anchored.
    pub const ORIGIN: u64 = 1 << 40;

    /// A stream that is not anchored yet.
    #[must_use]
    pub fn new(limits: StreamLimits) -> Self {
        Self {
            limits,
            next_seq: None,
            next: Self::ORIGIN,
            held: BTreeMap::new(),
            held_bytes: 0,
            cut: 0,
            acked: 0,
            proved_since: None,
            held_since: None,
            fin: None,
            reset: None,
            ended: false,
            tail: Vec::new(),
            conflict: None,
        }
    }

    /// Fixes the sequence number of the first byte expected; only while nothing was read.
    pub fn anchor(&mut self, seq: u32) {
        debug_assert!(self.is_untouched());
        self.next_seq = Some(seq);
    }

    /// Whether it is known which sequence number comes next.
    #[must_use]
    pub fn is_anchored(&self) -> bool {
        self.next_seq.is_some()
    }

    /// Whether nothing has been seen of it yet but, perhaps, where it begins.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.next == Self::ORIGIN && self.held.is_empty() && !self.ended && self.fin.is_none()
    }

    /// The stream offset of a sequence number: the one place where 32 bits become 64. `None` before the anchor.
    #[must_use]
    pub fn offset_of(&self, seq: u32) -> Option<u64> {
        let delta = seq.wrapping_sub(self.next_seq?).cast_signed();
        Some(self.next.wrapping_add_signed(i64::from(delta)))
    }

    /// The offset of the next byte to be read.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The highest offset known to be sent: read, held, or closed at.
    #[must_use]
    pub fn highest(&self) -> u64 {
        let held = self
            .held
            .last_key_value()
            .map_or(0, |(&start, piece)| piece.end(start));
        self.next.max(held).max(self.fin.unwrap_or(0))
    }

    /// Whether the receiver could take bytes up to that offset.
    #[must_use]
    pub fn is_in_window(&self, end: u64) -> bool {
        end <= self.next + self.limits.window
    }

    /// Whether the end was handed out.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Bytes held, bookkeeping included.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.held_bytes + self.tail.capacity()
    }

    /// Takes the range in which the piece inserted last differed from what it repeats: bytes that are held, or were
    /// delivered not long ago.
    pub fn take_conflict(&mut self) -> Option<Range<u64>> {
        self.conflict.take()
    }

    /// Whether nothing is held, missing, closed or reset: what comes next can be read as soon as it is here.
    #[must_use]
    #[inline]
    pub fn is_smooth(&self) -> bool {
        debug_assert_eq!(self.cut, 0, "taken by the poll behind each piece");
        self.held.is_empty() && self.fin.is_none() && self.reset.is_none() && !self.ended
    }

    /// Places a payload that is exactly what comes next of a stream that [is smooth](Self::is_smooth); all of it is to be
    /// read now.
    #[inline]
    pub fn append(&mut self, payload: &[u8]) {
        debug_assert!(self.is_smooth());
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
        if self.ended || self.fin == Some(self.next) {
            return Err(Rejected::AfterEnd);
        }
        if !self.is_in_window(end) {
            return Err(Rejected::OutOfWindow);
        }
        if start <= self.next {
            self.forget_end_before(end);
            self.compare_with_held(start, payload);
            let known = ((self.next - start) as usize).min(payload.len());
            self.cut = end - self.next.max(start + payload.len() as u64);
            self.deliver(&payload[known..]);
            return Ok(Accepted::InOrder(known..payload.len()));
        }
        self.hold(piece, end)?;
        self.forget_end_before(end);
        self.held_since.get_or_insert(mark.time);
        Ok(Accepted::Held)
    }

    /// Notes that the sender closed its direction at that offset.
    pub fn close_at(&mut self, offset: u64) {
        let in_window = offset >= self.next && self.is_in_window(offset);
        if in_window && self.highest() <= offset && !self.ended {
            self.fin = Some(offset);
        }
    }

    /// Notes a reset at that offset; true when it is exactly where the receiver stands, so that it counts at once
    /// (RFC 5961 §3.2). A reset further on is remembered: the capture may lack, or show late, what comes before it.
    pub fn reset_at(&mut self, offset: u64) -> bool {
        if offset == self.next && self.held.is_empty() {
            return true;
        }
        if offset > self.next && self.is_in_window(offset) && offset >= self.highest() {
            self.reset = Some(offset);
        }
        false
    }

    /// Takes a remembered reset that has come due: where it is.
    pub fn take_due_reset(&mut self) -> Option<u64> {
        self.reset.take_if(|reset| *reset == self.next)
    }

    /// Notes how far the peer has acknowledged this stream.
    pub fn acknowledge(&mut self, offset: u64, now: Timestamp) {
        if offset > self.acked && self.is_in_window(offset) {
            self.acked = offset;
        }
        // What the receiver has, it has: a later copy of it decides nothing.
        if offset >= self.next {
            self.forget_tail();
        }
        // An acknowledged FIN counts one sequence number beyond the last byte.
        let last_byte = self.fin.unwrap_or(u64::MAX);
        if !self.ended && self.acked.min(last_byte) > self.next {
            self.proved_since.get_or_insert(now);
        }
    }

    /// What the stream waits for, if it waits.
    #[must_use]
    pub fn hole(&self) -> Option<Hole> {
        if self.ended {
            return None;
        }
        if let Some(since) = self.proved_since {
            return Some(Hole::ProvedLost { since });
        }
        self.held_since
            .filter(|_| !self.held.is_empty())
            .map(|since| Hole::Open { since })
    }

    /// What can be read beyond the piece that [`Self::insert`] gave back, in order.
    pub fn poll(&mut self) -> Option<Out> {
        loop {
            if self.cut > 0 {
                let cut = std::mem::take(&mut self.cut);
                self.skip(cut);
                return Some(Out::Gap(cut));
            }
            let Some(first) = self.held.first_entry() else {
                break;
            };
            let start = *first.key();
            if start > self.next {
                break;
            }
            let piece = first.remove();
            self.held_bytes -= piece.bytes.len() + BOOKKEEPING;
            let end = piece.end(start);
            if end <= self.next {
                continue; // superseded by a piece that began earlier
            }
            let known = ((self.next - start) as usize).min(piece.bytes.len());
            self.cut = end - self.next.max(start + piece.bytes.len() as u64);
            let bytes = piece.bytes.slice(known..);
            if !bytes.is_empty() {
                self.deliver(&bytes);
                return Some(Out::Data(bytes, piece.mark, known == 0));
            }
        }
        if self.held.is_empty() {
            self.held_since = None;
        }
        if self.fin == Some(self.next) && !self.ended {
            self.ended = true;
            self.proved_since = None;
            return Some(Out::End);
        }
        if self.held_bytes > self.limits.held {
            return self.give_up_hole();
        }
        None
    }

    /// Gives up waiting at the hole: its length becomes a gap, and what is held behind it can be polled.
    ///
    /// A hole reaches to the first byte held, to the close or reset, or, with none of these behind it, to the
    /// highest acknowledgement.
    pub fn give_up_hole(&mut self) -> Option<Out> {
        let held = self.held.first_key_value().map(|(&start, _)| start);
        let closed = self.fin.or(self.reset);
        let end = held
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
        self.held.clear();
        self.held_bytes = 0;
        self.tail = Vec::new();
        self.cut = 0;
        self.proved_since = None;
        self.held_since = None;
    }

    fn deliver(&mut self, bytes: &[u8]) {
        self.advance(bytes.len() as u64);
        let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
        if self.tail.is_empty() {
            self.tail = bytes.to_vec();
            return;
        }
        let surplus = (self.tail.len() + bytes.len()).saturating_sub(TAIL);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(bytes);
    }

    fn skip(&mut self, missing: u64) {
        self.advance(missing);
        self.forget_tail();
    }

    /// Keeps no room either. There may be many connections, and what the allocator hands out next is in the cache, which the room
    /// of a connection that was idle is not.
    fn forget_tail(&mut self) {
        if self.tail.capacity() > 0 {
            self.tail = Vec::new();
        }
    }

    fn advance(&mut self, by: u64) {
        self.next += by;
        self.next_seq = self.next_seq.map(|seq| seq.wrapping_add(by as u32));
        if self.acked <= self.next {
            self.proved_since = None;
        }
    }

    /// Linux: data that reaches beyond a FIN still in the queue replaces it, and a reset that was not exactly where the
    /// receiver stood was refused (RFC 5961 §3.2): its sender goes on.
    fn forget_end_before(&mut self, end: u64) {
        self.fin = self.fin.filter(|&fin| fin >= end);
        self.reset = self.reset.filter(|&reset| reset >= end);
    }

    /// `tcp_data_queue_ofo`.
    fn hold(&mut self, piece: Piece<'_>, end: u64) -> Result<(), Rejected> {
        let Piece {
            start,
            payload,
            cut,
            mark,
        } = piece;
        self.compare_with_held(start, payload);
        if let Some((&before, held)) = self.held.range(..=start).next_back()
            && end <= held.end(before)
        {
            return Err(Rejected::Duplicate);
        }
        // What the new piece covers goes.
        while let Some((&covered, held)) = self.held.range(start..).next()
            && held.end(covered) <= end
        {
            if let Some(gone) = self.held.remove(&covered) {
                self.held_bytes -= gone.bytes.len() + BOOKKEEPING;
            }
        }
        self.held_bytes += payload.len() + BOOKKEEPING;
        self.held.insert(
            start,
            Held {
                bytes: Bytes::copy_from_slice(payload),
                cut,
                mark,
            },
        );
        debug_assert!(self.is_sorted());
        Ok(())
    }

    /// Notes a conflict when `payload` differs from what is held at the same offsets.
    fn compare_with_held(&mut self, start: u64, payload: &[u8]) {
        if self.held.is_empty() {
            return;
        }
        let end = start + payload.len() as u64;
        let from = self
            .held
            .range(..start)
            .next_back()
            .map_or(start, |(&before, _)| before);
        let differs = self
            .held
            .range(from..end)
            .any(|(&at, held)| differ((at, &held.bytes), (start, payload)));
        if differs {
            self.note_conflict(start..end);
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
            self.note_conflict(start..self.next.min(start + payload.len() as u64));
        }
    }

    fn note_conflict(&mut self, range: Range<u64>) {
        self.conflict = Some(match self.conflict.take() {
            Some(known) => known.start.min(range.start)..known.end.max(range.end),
            None => range,
        });
    }

    fn is_sorted(&self) -> bool {
        let ends = self.held.iter().map(|(&start, piece)| piece.end(start));
        ends.clone().zip(ends.skip(1)).all(|(a, b)| a < b)
    }
}

/// Whether two runs of bytes, each behind its offset, differ where both have bytes.
fn differ(a: (u64, &[u8]), b: (u64, &[u8])) -> bool {
    let low = a.0.max(b.0);
    let high = (a.0 + a.1.len() as u64).min(b.0 + b.1.len() as u64);
    let within = |start: u64| (low - start) as usize..(high - start) as usize;
    low < high && a.1[within(a.0)] != b.1[within(b.0)]
}

#[cfg(test)]
mod tests {
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
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
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
        stream.acknowledge(Stream::ORIGIN + 23, since);
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
        stream.acknowledge(Stream::ORIGIN + 14, now);
        assert_eq!(stream.hole(), Some(Hole::ProvedLost { since: now }));
        assert_eq!(stream.give_up_hole(), Some(Out::Gap(10)));
        assert!(matches!(stream.poll(), Some(Out::Data(..))));
        assert_eq!(stream.poll(), Some(Out::End));
        assert_eq!(stream.hole(), None);
    }
}
