//! Every connection that is known, and which one a segment belongs to.

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use smallvec::SmallVec;

use super::connection::{Connection, STALL, Timer};
use super::table::{Table, Upcoming};
use super::{Answers, Ending, Limits, Sink, Watch};
use crate::account::{Account, Counter, Reason};
use crate::exchange::{ConnectionId, Event};
use crate::restraint::Share;
use crate::tcp::{PROOF_GRACE, Spare};
use crate::time::Timestamp;
use crate::wire::{Segment, TcpFlags};

/// The connection table of one worker.
pub(super) struct Connections {
    pub(super) watch: Watch,
    pub(super) answers: Answers,
    limits: Limits,
    /// The connections that are followed, by the hash that the table uses too: its key is another one in each run.
    share: Share,
    pub(super) account: Account,
    pub(super) events: VecDeque<Event>,
    next_exchange: u64,
    next_connection: u64,
    table: Table,
    upcoming: Upcoming,
    spare: Spare,
    /// Connections that wait at a hole, by when to look again; one queue for each length of wait, so each is sorted.
    proof_timers: VecDeque<(Timestamp, u32, ConnectionId)>,
    stall_timers: VecDeque<(Timestamp, u32, ConnectionId)>,
    now: Timestamp,
    swept: Timestamp,
    pub(super) memory: usize,
}

/// Where a segment goes.
enum Route {
    /// To the connection in that place.
    To(u32),
    /// To none, because none of its ends is watched.
    NotWatched,
    /// To none, and it begins none.
    Nowhere,
}

/// Lives of one 4-tuple that are kept side by side.
const MAX_LIVES: usize = 8;

/// A segment further than this from what a connection expects is not believed to be the same one seen through
/// another VLAN or tunnel.
const NEAR: u64 = 1 << 20;

/// Bytes above which a connection holds data, rather than only the knowledge of where it stands.
const HOLDS_DATA: usize = 8 << 10;

/// Connections above which it pays to ask the memory for the one that is needed next: with less, one of the caches holds them.
const MANY: usize = 2048;

/// How long a closed or half-open connection is remembered, so that stragglers find it.
const LINGER: Duration = Duration::from_secs(60);

/// How often, in packet time, idle connections are looked for.
const SWEEP: Duration = Duration::from_secs(10);

impl Connections {
    pub(super) fn new(watch: Watch, limits: Limits) -> Self {
        Self {
            watch,
            answers: Answers::default(),
            limits,
            share: Share::ALL,
            account: Account::new(),
            events: VecDeque::new(),
            next_exchange: 0,
            next_connection: 0,
            table: Table::new(),
            upcoming: Upcoming::default(),
            spare: Spare::default(),
            proof_timers: VecDeque::new(),
            stall_timers: VecDeque::new(),
            now: Timestamp::ZERO,
            swept: Timestamp::ZERO,
            memory: 0,
        }
    }

    /// Gives the next exchange and the next connection this number.
    pub(super) fn number_from(&mut self, first: u64) {
        self.next_exchange = first;
        self.next_connection = first;
    }

    /// Moves packet time on.
    pub(super) fn idle(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some(&(due, index, id)) = self.proof_timers.front()
            && due <= self.now
        {
            self.proof_timers.pop_front();
            self.expire(index, id);
        }
        while let Some(&(due, index, id)) = self.stall_timers.front()
            && due <= self.now
        {
            self.stall_timers.pop_front();
            self.expire(index, id);
        }
        if self.now.since(self.swept) >= SWEEP {
            self.swept = self.now;
            self.sweep();
        }
    }

    /// Ends every connection, in the order in which they began.
    pub(super) fn finish(&mut self) {
        let open = self.table.iter();
        let mut open: Vec<(ConnectionId, u32)> = open.map(|(index, it)| (it.id(), index)).collect();
        open.sort_unstable();
        for (_, index) in open {
            self.remove(index, Ending::CaptureEnded);
        }
        self.proof_timers.clear();
        self.stall_timers.clear();
    }

    /// Follows only this share of the connections from now on.
    pub(super) fn keep(&mut self, share: Share) {
        let shrinks = share < self.share;
        self.share = share;
        if shrinks {
            let keys = self.table.keys();
            self.remove_where(Ending::OverLimit, |connection| {
                !share.takes(keys.hash(connection.ends().get().each_ref()))
            });
        }
    }

    /// Whether a segment between these ends is of a connection that is left out; that is counted.
    fn is_left_out(&mut self, ends: [&SocketAddr; 2], segment: &Segment<'_>) -> bool {
        let hash = self.table.keys().hash(ends);
        if self.share.takes(hash) || !self.watch.covers(ends.map(|&end| end)) {
            return false;
        }
        self.account.drop(Reason::SegmentOverLimit);
        if segment.flags.has(TcpFlags::SYN) && !segment.flags.has(TcpFlags::ACK) {
            self.account.count(Counter::Connections);
            self.account.drop(Reason::ConnectionOverLimit);
        }
        true
    }

    /// Whether there are more connections than a cache holds.
    #[inline]
    pub(super) fn are_many(&self) -> bool {
        self.table.len() > MANY
    }

    /// Asks the memory for the connection with these ends.
    pub(super) fn fetch(&mut self, (source, destination): (SocketAddr, SocketAddr)) {
        let (_, ends) = in_order(&source, &destination);
        self.table.fetch(ends, &mut self.upcoming);
    }

    /// Takes one segment, and counts it.
    pub(super) fn segment(&mut self, segment: &Segment<'_>) {
        let (direction, ends) = in_order(&segment.source, &segment.destination);
        if !self.share.is_all() && self.is_left_out(ends, segment) {
            return;
        }
        let index = match self.route(direction, ends, segment) {
            Route::To(index) => index,
            Route::NotWatched => {
                self.account.drop(Reason::NotWatched);
                return;
            }
            // Nothing known, and nothing that could begin something.
            Route::Nowhere if segment.payload.is_empty() && segment.cut == 0 => {
                self.account.count(Counter::SegmentsControl);
                return;
            }
            Route::Nowhere => {
                self.account.drop(Reason::AfterClose);
                return;
            }
        };
        let Some(connection) = self.table.get_mut(index) else {
            return;
        };
        let mut sink = Sink {
            limits: &self.limits,
            spare: &mut self.spare,
            events: &mut self.events,
            account: &mut self.account,
            next_exchange: &mut self.next_exchange,
            answers: self.answers,
        };
        let before = connection.counted;
        let was_confirmed = connection.confirmed;
        let timer = connection.segment(direction, segment, self.now, &mut sink);
        let after = connection.memory();
        connection.counted = after;
        let id = connection.id();
        let newly_confirmed = connection.confirmed && !was_confirmed;
        self.memory = (self.memory + after).saturating_sub(before);
        if newly_confirmed {
            self.retire_older(ends, index);
        }
        if let Some(timer) = timer {
            self.set_timer(timer, index, id);
        }
        if self.memory > self.limits.memory {
            self.shed_memory(index);
        }
    }

    /// The place of the connection that a segment belongs to, made when it begins one.
    fn route(&mut self, direction: usize, ends: [&SocketAddr; 2], segment: &Segment<'_>) -> Route {
        let is_syn = segment.flags.has(TcpFlags::SYN);
        if let Some(only) = self.table.only(ends)
            && !is_syn
            && let Some(connection) = self.table.get(only)
            && connection.uses(segment.path)
            && !connection.closed
        {
            return Route::To(only);
        }
        self.route_among_lives(direction, ends, segment)
    }

    /// The same, where a SYN, a second life, an unknown path or nothing known asks for a closer look.
    fn route_among_lives(
        &mut self,
        direction: usize,
        ends: [&SocketAddr; 2],
        segment: &Segment<'_>,
    ) -> Route {
        let is_syn = segment.flags.has(TcpFlags::SYN);
        let lives = self.table.lives(ends);
        let life = |index: u32| self.table.get(index);
        if lives.is_empty() && !self.watch.covers(ends.map(|&end| end)) {
            return Route::NotWatched;
        }
        let found = if is_syn && segment.flags.has(TcpFlags::ACK) {
            lives.iter().rev().copied().find(|&index| {
                life(index).is_some_and(|connection| {
                    !connection.closed
                        && connection.accepts_syn_ack(direction, segment.seq, segment.ack)
                })
            })
        } else if is_syn {
            lives.iter().rev().copied().find(|&index| {
                life(index).is_some_and(|connection| connection.accepts_syn(direction, segment.seq))
            })
        } else {
            let nearest = |same_path: bool| {
                lives
                    .iter()
                    .rev()
                    .copied()
                    .filter_map(|index| {
                        let connection = life(index)?;
                        let distance = connection.distance(direction, segment)?;
                        let fits = if same_path {
                            connection.uses(segment.path)
                        } else {
                            distance <= NEAR
                        };
                        fits.then_some((distance, index))
                    })
                    .min_by_key(|&(distance, _)| distance)
            };
            let found = nearest(true);
            let begins_anew = |&(distance, index): &(u64, u32)| {
                // Ports used again without a captured handshake.
                distance > NEAR
                    && !segment.payload.is_empty()
                    && life(index).is_some_and(|connection| connection.closed)
            };
            match found
                .filter(|found| !begins_anew(found))
                .or_else(|| nearest(false))
            {
                Some((_, index)) => Some(index),
                // Data far outside of everything known is noise, unless nothing is known.
                None if lives.iter().any(|&index| {
                    life(index).is_some_and(|c| c.uses(segment.path) && !c.closed)
                }) =>
                {
                    lives.last().copied()
                }
                None => None,
            }
        };
        if let Some(index) = found {
            if let Some(connection) = self.table.get_mut(index) {
                connection.also_uses(segment.path);
            }
            return Route::To(index);
        }
        if !self.watch.covers(ends.map(|&end| end)) {
            return Route::NotWatched; // any more: the local addresses may change
        }
        let begins = is_syn || (!segment.payload.is_empty() && !segment.flags.has(TcpFlags::RST));
        if !begins {
            return Route::Nowhere;
        }
        Route::To(self.open(ends, segment))
    }

    fn open(&mut self, ends: [&SocketAddr; 2], segment: &Segment<'_>) -> u32 {
        if self.table.len() >= self.limits.connections {
            self.evict_idlest();
        }
        let mut lives = self.table.lives(ends);
        if lives.len() >= MAX_LIVES {
            self.remove(lives.remove(0), Ending::Replaced);
        }
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.account.count(Counter::Connections);
        let alone = lives.is_empty();
        let ends = ends.map(|&end| end);
        let client = self.watch.client(ends);
        let mut connection = Connection::new(id, ends, segment.path, client, alone, &self.limits);
        connection.last_seen = self.now;
        connection.counted = connection.memory();
        self.memory += connection.counted;
        self.table.insert(Box::new(connection))
    }

    /// A new life of a 4-tuple has proved real: the older ones through the same path are over.
    fn retire_older(&mut self, ends: [&SocketAddr; 2], index: u32) {
        let lives = self.table.lives(ends);
        if lives.len() < 2 {
            return;
        }
        let Some(newest) = self.table.get(index) else {
            return;
        };
        let older: SmallVec<[u32; MAX_LIVES]> = lives
            .iter()
            .copied()
            .take_while(|&life| life != index)
            .filter(|&life| {
                let older = self.table.get(life);
                older.is_some_and(|older| newest.shares_path(older))
            })
            .collect();
        for life in older {
            self.remove(life, Ending::Replaced);
        }
    }

    fn set_timer(&mut self, timer: Timer, index: u32, id: ConnectionId) {
        let (queue, wait) = match timer {
            Timer::ProofGrace => (&mut self.proof_timers, PROOF_GRACE),
            Timer::Stall => (&mut self.stall_timers, STALL),
        };
        let due = self.now.after(wait);
        // One entry for a connection and moment is enough; a burst of segments would add thousands.
        if queue
            .back()
            .is_none_or(|&(last, _, last_id)| last_id != id || last != due)
        {
            queue.push_back((due, index, id));
        }
    }

    fn expire(&mut self, index: u32, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(index) else {
            return;
        };
        if connection.id() != id {
            return;
        }
        let mut sink = Sink {
            limits: &self.limits,
            spare: &mut self.spare,
            events: &mut self.events,
            account: &mut self.account,
            next_exchange: &mut self.next_exchange,
            answers: self.answers,
        };
        let before = connection.counted;
        connection.expire(self.now, &mut sink);
        connection.counted = connection.memory();
        self.memory = (self.memory + connection.counted).saturating_sub(before);
    }

    fn remove(&mut self, index: u32, ending: Ending) {
        let Some(mut connection) = self.table.remove(index) else {
            return;
        };
        self.memory = self.memory.saturating_sub(connection.counted);
        let mut sink = Sink {
            limits: &self.limits,
            spare: &mut self.spare,
            events: &mut self.events,
            account: &mut self.account,
            next_exchange: &mut self.next_exchange,
            answers: self.answers,
        };
        connection.close(ending, &mut sink);
    }

    fn sweep(&mut self) {
        let now = self.now;
        let idle = self.limits.idle;
        self.remove_where(Ending::Idle, |connection| {
            let short_lived = connection.closed || !connection.confirmed;
            now.since(connection.last_seen) > if short_lived { LINGER } else { idle }
        });
    }

    /// Makes room by an eighth, so that the search is paid rarely.
    fn evict_idlest(&mut self) {
        let mut seen: Vec<Timestamp> = self
            .table
            .iter()
            .map(|(_, connection)| connection.last_seen)
            .collect();
        if seen.is_empty() {
            return;
        }
        let nth = seen.len() / 8;
        let (_, &mut oldest, _) = seen.select_nth_unstable(nth);
        self.remove_where(Ending::Evicted, |connection| connection.last_seen <= oldest);
    }

    /// Lets the idlest of the connections that hold data go until an eighth of the memory is free; then the others.
    fn shed_memory(&mut self, spare: u32) {
        let enough = self.limits.memory / 8 * 7;
        let mut by_age: Vec<(bool, Timestamp, u32)> = self
            .table
            .iter()
            .filter(|&(index, _)| index != spare)
            .map(|(index, connection)| {
                let holds_little = connection.memory() < HOLDS_DATA;
                (holds_little, connection.last_seen, index)
            })
            .collect();
        by_age.sort_unstable();
        for (_, _, index) in by_age {
            if self.memory <= enough {
                return;
            }
            self.remove(index, Ending::Evicted);
        }
        if self.memory > self.limits.memory {
            self.remove(spare, Ending::Evicted);
        }
    }

    fn remove_where(&mut self, ending: Ending, condition: impl Fn(&Connection) -> bool) {
        let mut gone: Vec<(ConnectionId, u32)> = self
            .table
            .iter()
            .filter(|(_, connection)| condition(connection))
            .map(|(index, connection)| (connection.id(), index))
            .collect();
        gone.sort_unstable();
        for (_, index) in gone {
            self.remove(index, ending);
        }
    }
}

/// The direction of what flows from `source`, and both ends in their order as values: the same for both directions.
#[inline]
fn in_order<'a>(
    source: &'a SocketAddr,
    destination: &'a SocketAddr,
) -> (usize, [&'a SocketAddr; 2]) {
    let is_behind = match (source, destination) {
        // As the other comparison does it, in one step.
        (SocketAddr::V4(a), SocketAddr::V4(b)) => {
            let rank =
                |end: &SocketAddrV4| u64::from(end.ip().to_bits()) << 16 | u64::from(end.port());
            rank(a) > rank(b)
        }
        _ => source > destination,
    };
    if is_behind {
        (1, [destination, source])
    } else {
        (0, [source, destination])
    }
}
