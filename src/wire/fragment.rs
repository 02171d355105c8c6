//! IP fragments, put together the way the receiving kernel does it.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use ahash::AHashMap;

use super::{Path, View};
use crate::account::Reason;
use crate::time::Timestamp;

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// The identification field: 16 bits of IPv4, 32 of IPv6.
    pub(super) id: u32,
    /// The IPv4 protocol; 0 for IPv6, whose fragments are told apart without it (RFC 8200 §4.5).
    pub(super) protocol: u8,
    pub(super) path: Path,
}

/// One fragment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    pub(super) key: Key,
    /// What the first fragment says the datagram carries; other fragments' word does not count.
    pub(super) protocol: u8,
    /// Where its bytes begin in the datagram's payload.
    pub(super) offset: usize,
    /// Whether others follow behind it.
    pub(super) more: bool,
    /// Its bytes.
    pub(super) view: View<'a>,
    /// How many tunnels it came through.
    pub(super) tunnels: u8,
}

/// A datagram whose last missing fragment came.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) key: Key,
    pub(super) protocol: u8,
    pub(super) tunnels: u8,
    /// The payload up to the first byte that the snap length cut.
    pub(super) payload: Vec<u8>,
    /// The length of the payload on the wire.
    pub(super) len: usize,
    /// How many fragments it came in.
    pub(super) fragments: u64,
}

/// What became of a fragment.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It waits for others.
    Held,
    /// It completed its datagram.
    Whole(Datagram),
    /// It, and those that waited with it, left: so many, for that reason.
    Dropped(u64, Reason),
}

/// Fragments that wait for others.
///
/// A fragment inside a run of bytes that are there already is ignored, as Linux does (`inet_fragment.c`, since 4.19 for
/// IPv4 and IPv6 alike). One that overlaps them in part, with other bytes, ends the whole datagram, as Linux and RFC 5722 do.
/// With the same bytes it counts: a capture may see a datagram on both sides of a hop that cut it anew, and a
/// receiver that did drop it will see the same bytes again.
///
/// Invariant: `held` is what the datagrams in `waiting` cost, and never more than `budget`; each of them has its serial
/// number in `ages`.
#[derive(Debug)]
pub(super) struct Reassembly {
    waiting: AHashMap<Key, Partial>,
    /// Datagrams by age; entries whose serial number is gone are skipped.
    ages: VecDeque<(u64, Key)>,
    serial: u64,
    held: usize,
    budget: usize,
    /// The datagrams that became whole last.
    done: VecDeque<Done>,
}

/// A datagram that became whole, remembered for a moment: a capture may show its last fragment twice, which must not
/// wait for siblings that never come.
#[derive(Debug)]
struct Done {
    key: Key,
    at: Timestamp,
    /// Where each fragment began, and a hash of its bytes.
    pieces: Vec<(usize, u64)>,
}

/// Why and how many fragments left because of their age or the bound.
#[derive(Debug, Default)]
pub(super) struct Evicted {
    pub(super) incomplete: u64,
    pub(super) over_budget: u64,
}

impl Reassembly {
    pub(super) fn new(budget: usize) -> Self {
        Self {
            waiting: AHashMap::new(),
            ages: VecDeque::new(),
            serial: 0,
            held: 0,
            budget,
            done: VecDeque::new(),
        }
    }

    /// Takes one fragment in. Datagrams that waited too long at `now`, or that are the oldest when the bound is
    /// reached, leave through `evicted`.
    pub(super) fn push(
        &mut self,
        fragment: &Fragment<'_>,
        now: Timestamp,
        evicted: &mut Evicted,
    ) -> Outcome {
        self.expire(now, evicted);
        let start = fragment.offset;
        let end = start + fragment.view.len;
        // A middle fragment is a multiple of 8 bytes (RFC 791 §3.2, RFC 8200 §4.5); none may outgrow a datagram.
        if end > MAX_DATAGRAM
            || fragment.view.len == 0
            || (fragment.more && !fragment.view.len.is_multiple_of(8))
        {
            return Outcome::Dropped(1, Reason::MalformedPacket);
        }

        if !self.waiting.contains_key(&fragment.key) && self.is_late(fragment, now) {
            return Outcome::Dropped(1, Reason::FragmentMerged);
        }

        let partial = self.waiting.entry(fragment.key).or_insert_with(|| {
            self.serial += 1;
            self.ages.push_back((self.serial, fragment.key));
            self.held += DATAGRAM_COST;
            Partial::new(self.serial, now)
        });
        partial.fragments += 1;
        let cost = partial.cost;
        match partial.place(start, end, fragment.more) {
            Place::Free => partial.add(start, end, fragment.view.data),
            Place::Known => return Outcome::Held,
            Place::Overlap if partial.agrees(start, fragment.view.data) => {
                for (start_free, end_free) in partial.free_between(start, end) {
                    let bytes = fragment
                        .view
                        .data
                        .get(start_free - start..)
                        .unwrap_or_default();
                    let len = bytes.len().min(end_free - start_free);
                    partial.add(start_free, end_free, &bytes[..len]);
                }
                partial.join_runs(start, end);
            }
            Place::Overlap | Place::OtherEnd => {
                let fragments = partial.fragments;
                self.remove(fragment.key);
                return Outcome::Dropped(fragments, Reason::FragmentOverlap);
            }
        }
        if start == 0 {
            partial.protocol = fragment.protocol;
            partial.tunnels = fragment.tunnels;
        }
        self.held += partial.cost - cost;

        if partial.total != Some(partial.have) {
            return self.shrink(fragment.key, evicted);
        }
        match self.remove(fragment.key) {
            Some(partial) => {
                self.remember(fragment.key, &partial, now);
                Outcome::Whole(partial.join(fragment.key))
            }
            None => Outcome::Held,
        }
    }

    /// Lets everything go. How many fragments waited.
    pub(super) fn finish(&mut self) -> u64 {
        self.ages.clear();
        self.held = 0;
        self.waiting
            .drain()
            .map(|(_, partial)| partial.fragments)
            .sum()
    }

    /// Whether a fragment is a copy of one whose datagram became whole a moment ago.
    fn is_late(&self, fragment: &Fragment<'_>, now: Timestamp) -> bool {
        self.done.iter().any(|done| {
            done.key == fragment.key
                && now.since(done.at) < LATE
                && done
                    .pieces
                    .contains(&(fragment.offset, hash(fragment.view.data)))
        })
    }

    fn remember(&mut self, key: Key, partial: &Partial, now: Timestamp) {
        self.done.retain(|done| done.key != key);
        if self.done.len() >= REMEMBERED {
            self.done.pop_front();
        }
        self.done.push_back(Done {
            key,
            at: now,
            pieces: partial
                .pieces
                .iter()
                .map(|piece| (piece.start, hash(&piece.bytes)))
                .collect(),
        });
    }

    fn expire(&mut self, now: Timestamp, evicted: &mut Evicted) {
        while let Some(&(serial, key)) = self.ages.front() {
            let partial = self
                .waiting
                .get(&key)
                .filter(|partial| partial.serial == serial);
            if partial.is_some_and(|partial| now.since(partial.since) < TIMEOUT) {
                return;
            }
            // First, because removing the datagram may tidy the queue up.
            self.ages.pop_front();
            if let Some(partial) = partial {
                evicted.incomplete += partial.fragments;
                self.remove(key);
            }
        }
    }

    /// Pushes the oldest datagrams out until the bound holds; `newest` may be one of them.
    fn shrink(&mut self, newest: Key, evicted: &mut Evicted) -> Outcome {
        let mut outcome = Outcome::Held;
        while self.held > self.budget {
            let Some((serial, key)) = self.ages.pop_front() else {
                break;
            };
            if self
                .waiting
                .get(&key)
                .is_none_or(|partial| partial.serial != serial)
            {
                continue;
            }
            let Some(partial) = self.remove(key) else {
                continue;
            };
            if key == newest {
                outcome = Outcome::Dropped(partial.fragments, Reason::FragmentOverBudget);
            } else {
                evicted.over_budget += partial.fragments;
            }
        }
        outcome
    }

    fn remove(&mut self, key: Key) -> Option<Partial> {
        let partial = self.waiting.remove(&key)?;
        self.held -= partial.cost;
        if self.ages.len() > 2 * self.waiting.len() + 64 {
            let waiting = &self.waiting;
            self.ages
                .retain(|(serial, key)| waiting.get(key).is_some_and(|p| p.serial == *serial));
        }
        Some(partial)
    }
}

/// A datagram that is not whole yet.
///
/// Invariant: `runs` are sorted and disjoint; `have` is the sum of their lengths and of the pieces' lengths.
#[derive(Debug)]
struct Partial {
    serial: u64,
    since: Timestamp,
    protocol: u8,
    tunnels: u8,
    /// How many fragments came, duplicates among them.
    fragments: u64,
    /// The length of the payload, once the last fragment said it.
    total: Option<usize>,
    have: usize,
    cost: usize,
    /// Stretches `[start, end)` that are there, as the kernel keeps them: a fragment joins the one before it only when
    /// it came last in the order of offsets.
    runs: Vec<(usize, usize)>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    start: usize,
    /// Its length on the wire; `bytes` is shorter when the snap length cut it.
    len: usize,
    bytes: Box<[u8]>,
}

/// How a fragment lies to those that are there.
enum Place {
    /// Beside them.
    Free,
    /// Inside one run of them.
    Known,
    /// Partly over them.
    Overlap,
    /// Beyond the end of the datagram, or with another end.
    OtherEnd,
}

impl Partial {
    fn new(serial: u64, since: Timestamp) -> Self {
        Self {
            serial,
            since,
            protocol: 0,
            tunnels: 0,
            fragments: 0,
            total: None,
            have: 0,
            cost: DATAGRAM_COST,
            runs: Vec::new(),
            pieces: Vec::new(),
        }
    }

    /// Finds the place of `[start, end)` among the runs, and takes it when it is free.
    fn place(&mut self, start: usize, end: usize, more: bool) -> Place {
        let reach = self.runs.last().map_or(0, |&(_, end)| end);
        if more {
            if self.total.is_some_and(|total| end > total) {
                return Place::OtherEnd;
            }
        } else {
            if self.total.is_some_and(|total| end != total) || end < reach {
                return Place::OtherEnd;
            }
            self.total = Some(end);
        }

        let at = self.runs.partition_point(|&(_, run_end)| run_end <= start);
        match self.runs.get(at) {
            Some(&(run_start, run_end)) if run_start < end => {
                if run_start <= start && end <= run_end {
                    Place::Known
                } else {
                    Place::Overlap
                }
            }
            Some(_) => {
                self.runs.insert(at, (start, end));
                Place::Free
            }
            None => {
                match self.runs.last_mut() {
                    Some(last) if last.1 == start => last.1 = end,
                    _ => self.runs.push((start, end)),
                }
                Place::Free
            }
        }
    }

    /// Whether `bytes` at `start` are those that are there already, where both were captured.
    fn agrees(&self, start: usize, bytes: &[u8]) -> bool {
        self.pieces.iter().all(|piece| {
            let from = start.max(piece.start);
            let to = (start + bytes.len()).min(piece.start + piece.bytes.len());
            from >= to
                || bytes[from - start..to - start]
                    == piece.bytes[from - piece.start..to - piece.start]
        })
    }

    /// The parts of `[start, end)` that no run covers.
    fn free_between(&self, start: usize, end: usize) -> Vec<(usize, usize)> {
        let mut free = Vec::new();
        let mut at = start;
        for &(run_start, run_end) in &self.runs {
            if at < run_start.min(end) {
                free.push((at, run_start.min(end)));
            }
            at = at.max(run_end);
        }
        if at < end {
            free.push((at, end));
        }
        free
    }

    /// Makes one run of `[start, end)` and all that it touches.
    fn join_runs(&mut self, start: usize, end: usize) {
        let (mut start, mut end) = (start, end);
        self.runs.retain(|&(run_start, run_end)| {
            let apart = run_end < start || run_start > end;
            if !apart {
                start = start.min(run_start);
                end = end.max(run_end);
            }
            apart
        });
        let at = self.runs.partition_point(|run| run.0 < start);
        self.runs.insert(at, (start, end));
    }

    /// Keeps `bytes`, what was captured of `[start, end)`.
    fn add(&mut self, start: usize, end: usize, bytes: &[u8]) {
        self.have += end - start;
        self.cost += PIECE_COST + bytes.len();
        self.pieces.push(Piece {
            start,
            len: end - start,
            bytes: bytes.into(),
        });
    }

    fn join(mut self, key: Key) -> Datagram {
        debug_assert_eq!(self.total, Some(self.have));
        self.pieces.sort_unstable_by_key(|piece| piece.start);
        let mut payload = Vec::with_capacity(self.have);
        for piece in &self.pieces {
            payload.extend_from_slice(&piece.bytes);
            if piece.bytes.len() < piece.len {
                break;
            }
        }
        Datagram {
            key,
            protocol: self.protocol,
            tunnels: self.tunnels,
            payload,
            len: self.have,
            fragments: self.fragments,
        }
    }
}

/// A hash that is the same in every run.
fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// How many datagrams that became whole are remembered, and for how long.
const REMEMBERED: usize = 16;
const LATE: Duration = Duration::from_secs(1);

/// The longest payload that fragments can make up (RFC 791 §3.1, RFC 8200 §4.5).
const MAX_DATAGRAM: usize = 65_535;

/// How long a datagram waits for its fragments, from the first that came (Linux `ipfrag_time`).
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a datagram costs beside its pieces.
const DATAGRAM_COST: usize = size_of::<Key>() * 2 + size_of::<Partial>() + 64;

/// What a piece costs beside its bytes.
const PIECE_COST: usize = size_of::<Piece>() + 48;
