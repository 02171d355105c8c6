//! What a stream needs only while it is not in good order: pieces that wait for others, and ends that are not reached.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::stream::{Hole, Mark, Piece, Rejected};
use crate::time::Timestamp;

/// What is held, missing, closed or contradicted of one stream.
///
/// Invariant on `held`: both the starts and the ends of the pieces increase strictly.
#[derive(Debug, Default)]
pub(super) struct Disorder {
    pub(super) held: BTreeMap<u64, Held>,
    pub(super) held_bytes: usize,
    pub(super) held_since: Option<Timestamp>,
    /// The segment delivered last was cut by the snap length; that many bytes of it are a gap.
    pub(super) cut: u64,
    /// Since when bytes are known to be delivered that were not captured.
    pub(super) proved_since: Option<Timestamp>,
    pub(super) fin: Option<u64>,
    pub(super) reset: Option<u64>,
    /// Where a retransmission differed from what it repeats, until somebody asks.
    pub(super) conflict: Option<Range<u64>>,
}

/// A piece that waits for what comes before it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    cut: u32,
    pub(super) mark: Mark,
}

impl Held {
    pub(super) fn end(&self, start: u64) -> u64 {
        start + self.bytes.len() as u64 + u64::from(self.cut)
    }
}

/// What a held piece costs beside its bytes: map node, reference-counted buffer, allocator.
const BOOKKEEPING: usize = 160;

impl Disorder {
    /// Whether nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        self.held.is_empty()
            && self.cut == 0
            && self.proved_since.is_none()
            && self.fin.is_none()
            && self.reset.is_none()
            && self.conflict.is_none()
    }

    /// Bytes held, bookkeeping included.
    pub(super) fn memory(&self) -> usize {
        std::mem::size_of::<Self>() + self.held_bytes
    }

    /// The highest offset that was seen: held, or closed at.
    pub(super) fn highest(&self) -> u64 {
        let held = self
            .held
            .last_key_value()
            .map_or(0, |(&start, piece)| piece.end(start));
        held.max(self.fin.unwrap_or(0))
    }

    /// What the stream waits for.
    pub(super) fn hole(&self) -> Option<Hole> {
        if let Some(since) = self.proved_since {
            return Some(Hole::ProvedLost { since });
        }
        self.held_since
            .filter(|_| !self.held.is_empty())
            .map(|since| Hole::Open { since })
    }

    /// Takes the first piece, and where it begins, if that is not behind `next`.
    pub(super) fn take_first(&mut self, next: u64) -> Option<(u64, Held)> {
        let first = self.held.first_entry()?;
        let start = *first.key();
        if start > next {
            return None;
        }
        let piece = first.remove();
        self.held_bytes -= piece.bytes.len() + BOOKKEEPING;
        Some((start, piece))
    }

    /// Linux: data that reaches beyond a FIN still in the queue replaces it, and a reset that was not exactly where the
    /// receiver stood was refused (RFC 5961 §3.2): its sender goes on.
    pub(super) fn forget_end_before(&mut self, end: u64) {
        self.fin = self.fin.filter(|&fin| fin >= end);
        self.reset = self.reset.filter(|&reset| reset >= end);
    }

    /// `tcp_data_queue_ofo`.
    pub(super) fn hold(&mut self, piece: Piece<'_>, end: u64) -> Result<(), Rejected> {
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
    pub(super) fn compare_with_held(&mut self, start: u64, payload: &[u8]) {
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

    /// Notes that a retransmission differed there from what it repeats.
    pub(super) fn note_conflict(&mut self, range: Range<u64>) {
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
pub(super) fn differ(a: (u64, &[u8]), b: (u64, &[u8])) -> bool {
    let low = a.0.max(b.0);
    let high = (a.0 + a.1.len() as u64).min(b.0 + b.1.len() as u64);
    let within = |start: u64| (low - start) as usize..(high - start) as usize;
    low < high && a.1[within(a.0)] != b.1[within(b.0)]
}
