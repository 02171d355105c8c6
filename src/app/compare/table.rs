//! The table of requests that wait for an answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use slab::Slab;

use super::presence::{Presence, Seen};
use super::repeats::{Before, Repeats};
use crate::account::{Account, Counter, Reason};
use crate::app::now_minus;
use crate::compare;
use crate::exchange::{ExchangeId, NoAnswer, Request, Response};
use crate::judge;
use crate::replay::{Answer, Outcome, Replay};

/// Joins both versions' answers to each request by its name, whichever comes first. Bounded: what waits for the longest is
/// pushed out.
///
/// Invariant: `bytes` is the sum of the sizes in `halves`; each of these is in `places`, and in `order` with its `turn`.
pub(super) struct Table {
    has_control: bool,
    repeats: Repeats,
    /// Where each request that waits is in `halves`: those are large, and a map of them would be moved each time that it grows.
    places: AHashMap<ExchangeId, usize>,
    halves: Slab<Half>,
    /// In the order in which they came; those that wait no longer are taken out later.
    order: VecDeque<(ExchangeId, u64)>,
    turn: u64,
    /// The turns that were next at some moments, the earliest first.
    moments: VecDeque<(Instant, u64)>,
    bytes: usize,
    pub(super) presence: Presence,
    /// Whether version 2 has come back, and nobody was told.
    is_back: bool,
    /// So many requests were not sent while nobody was there.
    pub(super) unsent: u64,
    /// What was offered, and what was given up here.
    pub(super) account: Account,
}

/// What is known of a request.
pub(super) struct Half {
    pub(super) request: Arc<Request>,
    /// Version 1's answer, or why none will come.
    pub(super) v1: Option<Result<Response, NoAnswer>>,
    pub(super) v2: Option<Outcome>,
    pub(super) control: Option<Outcome>,
    /// What version 1 answered to the same request before. There is none with a control, which says more, and says it of
    /// every request.
    pub(super) before: Option<Before>,
    size: usize,
    turn: u64,
}

impl Half {
    /// About what it takes in memory.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Whether version 1's answer can be compared with another.
    fn is_comparable(&self, v1: &Response) -> bool {
        v1.completeness.is_whole() && !v1.doubts.any() && !self.request.doubts.any()
    }

    /// Whether it can be judged, and all that answered, before as well, gave the same body, of few bytes: there is no tree to
    /// be read.
    pub(super) fn is_plain(&self) -> bool {
        let (Some(Ok(v1)), Some(Outcome::Answered(v2))) = (&self.v1, &self.v2) else {
            return false;
        };
        let is_same =
            |other: &Response| other.completeness.is_whole() && compare::are_same_bodies(v1, other);
        let control = match &self.control {
            Some(Outcome::Answered(control)) => is_same(&control.response),
            _ => true,
        };
        let before = match &self.before {
            Some(Before::Other(before)) => is_same(before),
            Some(Before::Same(_)) | None => true,
        };
        self.size <= FEW_BYTES
            && self.is_comparable(v1)
            && is_same(&v2.response)
            && control
            && before
    }
}

impl Table {
    pub(super) fn new(has_control: bool) -> Self {
        Self {
            has_control,
            repeats: Repeats::new(),
            places: AHashMap::new(),
            halves: Slab::new(),
            order: VecDeque::new(),
            turn: 0,
            moments: VecDeque::new(),
            bytes: 0,
            presence: Presence::default(),
            is_back: false,
            unsent: 0,
            account: Account::new(),
        }
    }

    /// From now on the answers to this request are awaited.
    pub(super) fn expect(&mut self, request: Arc<Request>) {
        let id = request.id;
        // A recording that is played again has the same requests again.
        if let Some(before) = self.remove(id) {
            self.give_up(&before, Reason::Version1NotSeen);
        }
        if self.order.len() > 2 * self.halves.len() + DONE {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|&(id, turn)| self.waiting(id, turn).is_some());
            self.order = order;
        }
        let turn = self.turn;
        self.turn += 1;
        let size = size_of::<Half>() + request.head.bytes().len() + request.body.wire.len();
        self.bytes += size;
        self.order.push_back((id, turn));
        let place = self.halves.insert(Half {
            request,
            v1: None,
            v2: None,
            control: None,
            before: None,
            size,
            turn,
        });
        self.places.insert(id, place);
        self.bound();
    }

    /// Version 1's answer, or why none will come. This and the next two give what is complete with it.
    pub(super) fn version1(
        &mut self,
        id: ExchangeId,
        response: Result<Response, NoAnswer>,
    ) -> Option<Half> {
        let has_control = self.has_control;
        self.note(id, |half, repeats| {
            let mut size = response.as_ref().map_or(0, bytes_of);
            // Now, while the answer is in the caches.
            if !has_control
                && let Ok(v1) = &response
                && half.is_comparable(v1)
            {
                half.before = repeats.exchange(&half.request, v1);
                if let Some(Before::Other(before)) = &half.before {
                    size += size_of::<Response>() + bytes_of(before);
                }
            }
            half.v1 = Some(response);
            size
        })?
    }

    /// What became of the replay to version 2.
    pub(super) fn version2(&mut self, replay: Replay) -> Option<Half> {
        let Replay {
            request,
            mut outcome,
        } = replay;
        let now = || now_minus(Duration::ZERO);
        let seen = self.presence.note(&outcome, now);
        self.is_back |= seen == Seen::Back;
        if let Outcome::Skipped(reason) = outcome {
            let is_unsent = seen == Seen::Absent && reason == Reason::BreakerOpen;
            self.unsent += u64::from(is_unsent);
            // It was never replayed: nothing to judge, and the stage before has counted it.
            self.remove(request.id);
            return None;
        }
        if seen == Seen::Absent {
            // As if its name had led nowhere.
            outcome = Outcome::Failed(Reason::ResolveFailed);
        }
        self.account.count(Counter::ComparesOffered);
        let noted = self.note(request.id, |half, _| {
            let size = size_of_outcome(&outcome);
            half.v2 = Some(outcome);
            size
        });
        if noted.is_none() {
            self.account.drop(Reason::CompareOverBudget);
        }
        noted?
    }

    /// If version 2 has come back after it had gone, what is known of it; told once.
    pub(super) fn take_back(&mut self) -> Option<judge::Presence> {
        std::mem::take(&mut self.is_back).then(|| self.presence.known())
    }

    /// What became of the replay to the control.
    pub(super) fn control(&mut self, replay: Replay) -> Option<Half> {
        let Replay { request, outcome } = replay;
        self.note(request.id, |half, _| {
            let size = size_of_outcome(&outcome);
            half.control = Some(outcome);
            size
        })?
    }

    /// Notes something of a request that waits, of so many bytes as `change` says, and takes it out if nothing is missing;
    /// `None` if there is no such request.
    fn note(
        &mut self,
        id: ExchangeId,
        change: impl FnOnce(&mut Half, &mut Repeats) -> usize,
    ) -> Option<Option<Half>> {
        let half = self.halves.get_mut(*self.places.get(&id)?)?;
        let size = change(half, &mut self.repeats);
        half.size += size;
        self.bytes += size;
        if half.v1.is_some() && half.v2.is_some() && (!self.has_control || half.control.is_some()) {
            return Some(self.remove(id));
        }
        self.bound();
        Some(None)
    }

    fn remove(&mut self, id: ExchangeId) -> Option<Half> {
        let half = self.halves.try_remove(self.places.remove(&id)?)?;
        self.bytes -= half.size;
        Some(half)
    }

    fn waiting(&self, id: ExchangeId, turn: u64) -> Option<&Half> {
        let half = self.halves.get(*self.places.get(&id)?)?;
        Some(half).filter(|half| half.turn == turn)
    }

    /// Pushes the oldest out until the rest keeps the bounds.
    fn bound(&mut self) {
        while self.halves.len() > MOST_WAITING || self.bytes > WAITING_BYTES {
            let Some((id, turn)) = self.order.pop_front() else {
                return;
            };
            if self.waiting(id, turn).is_some()
                && let Some(half) = self.remove(id)
            {
                self.give_up(&half, Reason::CompareOverBudget);
            }
        }
    }

    /// Gives up on what has waited for too long. What is only waited for by the control's answer is complete without it.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Half> {
        if self
            .moments
            .back()
            .is_none_or(|&(then, _)| now >= then + OFTEN)
        {
            self.moments.push_back((now, self.turn));
        }
        let mut over = 0;
        while let Some(&(then, turn)) = self.moments.front()
            && now.saturating_duration_since(then) >= LONGEST_WAIT
        {
            self.moments.pop_front();
            over = turn;
        }
        self.expire_before(over)
    }

    /// Gives up on all.
    pub(super) fn expire_all(&mut self) -> Vec<Half> {
        self.expire_before(u64::MAX)
    }

    fn expire_before(&mut self, over: u64) -> Vec<Half> {
        let mut complete = Vec::new();
        while let Some(&(id, turn)) = self.order.front() {
            let is_waiting = self.waiting(id, turn).is_some();
            if is_waiting && turn >= over {
                break;
            }
            self.order.pop_front();
            if !is_waiting {
                continue;
            }
            let Some(half) = self.remove(id) else {
                continue;
            };
            if half.v1.is_some() && half.v2.is_some() {
                complete.push(half);
            } else {
                self.give_up(&half, Reason::Version1NotSeen);
            }
        }
        complete
    }

    /// Counts a request that will not be judged, if it was ever replayed.
    fn give_up(&mut self, half: &Half, reason: Reason) {
        if half.v2.is_some() {
            self.account.drop(reason);
        }
    }
}

fn bytes_of(response: &Response) -> usize {
    response.head.bytes().len() + response.body.wire.len()
}

fn size_of_outcome(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Answered(answer) => size_of::<Answer>() + bytes_of(&answer.response),
        Outcome::Failed(_) | Outcome::Skipped(_) => 0,
    }
}

/// So many bytes are compared by whoever brings the last answer.
const FEW_BYTES: usize = 64 << 10;

/// So many requests may wait for an answer, of so many bytes in all, and for so long.
const MOST_WAITING: usize = 1 << 16;
const WAITING_BYTES: usize = 64 << 20;
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// So many of which nothing is awaited any more may be in the order, beside as many as are awaited.
const DONE: usize = 1024;

/// How often the time is noted.
const OFTEN: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::compare::tests::{answer, answer_at, request};
    use crate::replay::Timings;
    use crate::time::Timestamp;

    /// A request for one of some pages, and version 1's answer.
    pub(in super::super) fn captured(id: u64, page: u8, body: u8) -> (Arc<Request>, Response) {
        let page = char::from(b'a' + page);
        let mut request = request(&format!("GET /{page} HTTP/1.1\r\n\r\n"), "");
        request.id = ExchangeId(id);
        request.last_byte = Timestamp::from_nanos(1_000_000_000 + id * 10_000_000);
        (Arc::new(request), response(id, body))
    }

    /// What came of the replay.
    pub(in super::super) fn replayed(request: &Arc<Request>, body: u8) -> Replay {
        let timings = Timings {
            lateness: Duration::ZERO,
            writing: Duration::ZERO,
            first_byte: Duration::from_millis(1),
            total: Duration::from_millis(1 + request.id.0 % 7),
            reused: true,
            round_trip: None,
            unread: Duration::ZERO,
        };
        Replay {
            request: Arc::clone(request),
            outcome: Outcome::Answered(Box::new(Answer {
                response: response(request.id.0, body),
                timings,
            })),
        }
    }

    fn response(id: u64, body: u8) -> Response {
        let nanos = 1_002_000_000 + id * 10_000_000;
        answer_at(nanos, &format!("{{\"price\": {body}}}"))
    }

    fn expecting(ids: std::ops::Range<u64>, has_control: bool) -> Table {
        let mut table = Table::new(has_control);
        for id in ids {
            table.expect(captured(id, 0, 0).0);
        }
        table
    }

    fn is_empty(table: &Table) -> bool {
        table.halves.is_empty() && table.places.is_empty() && table.bytes == 0
    }

    #[test]
    fn a_version_2_that_is_not_there_has_not_failed() {
        let with = |outcome| {
            let (request, v1) = captured(7, 0, 0);
            let mut table = expecting(7..8, false);
            assert!(table.version1(request.id, Ok(v1)).is_none());
            (table.version2(Replay { request, outcome }), table.unsent)
        };
        let (refused, _) = with(Outcome::Failed(Reason::ConnectFailed));
        let outcome = refused.and_then(|half| half.v2);
        assert!(matches!(
            outcome,
            Some(Outcome::Failed(Reason::ResolveFailed))
        ));
        let (lost, _) = with(Outcome::Failed(Reason::ConnectionLost));
        let outcome = lost.and_then(|half| half.v2);
        assert!(matches!(
            outcome,
            Some(Outcome::Failed(Reason::ConnectionLost))
        ));
        assert_eq!(with(Outcome::Skipped(Reason::BreakerOpen)).1, 1);
        assert_eq!(with(Outcome::Skipped(Reason::SampledOut)).1, 0);
    }

    #[test]
    fn whichever_comes_first() {
        let (request, v1) = captured(7, 0, 0);
        for has_control in [false, true] {
            for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1]] {
                let mut table = expecting(7..8, has_control);
                let mut complete = Vec::new();
                for who in order {
                    complete.extend(match who {
                        0 => table.version1(request.id, Ok(v1.clone())),
                        1 => table.version2(replayed(&request, 0)),
                        _ if has_control => table.control(replayed(&request, 0)),
                        _ => None,
                    });
                }
                assert_eq!(complete.len(), 1, "{has_control} {order:?}");
                assert!(complete[0].is_plain());
                assert!(is_empty(&table));
                assert_eq!(table.account.get(Counter::ComparesOffered), 1);
            }
        }
    }

    #[test]
    fn what_is_not_the_same_or_not_whole_is_not_plain() {
        let (request, v1) = captured(7, 0, 0);
        let mut cut = v1.clone();
        cut.completeness = crate::exchange::Completeness::Incomplete(Reason::Version2TooLarge);
        let coded = answer(200, "Content-Encoding: gzip\r\n", &v1.body.wire);
        for (v1, body) in [(v1, 1), (cut, 0), (coded, 0)] {
            let mut table = expecting(7..8, false);
            assert!(table.version1(request.id, Ok(v1)).is_none());
            let half = table.version2(replayed(&request, body)).expect("complete");
            assert!(!half.is_plain());
        }
    }

    #[test]
    fn the_oldest_are_pushed_out_and_counted_once_they_were_replayed() {
        let most = MOST_WAITING as u64;
        let mut table = expecting(0..most, false);
        assert!(table.version2(replayed(&captured(1, 0, 0).0, 0)).is_none());
        for id in most..most + 5 {
            table.expect(captured(id, 0, 0).0);
        }
        assert_eq!(table.halves.len(), MOST_WAITING);
        let dropped = |table: &Table| table.account.dropped(Reason::CompareOverBudget);
        assert_eq!(dropped(&table), 1);
        assert!(table.version2(replayed(&captured(0, 0, 0).0, 0)).is_none());
        assert_eq!(dropped(&table), 2);
        assert!(table.expire_all().is_empty());
        assert!(is_empty(&table) && table.order.is_empty());
        assert_eq!(table.account.dropped(Reason::Version1NotSeen), 0);
    }

    #[test]
    fn what_waits_for_too_long_is_given_up_and_the_rest_goes_on() {
        let start = Instant::now();
        let mut table = expecting(0..3, true);
        let request = |id| captured(id, 0, 0).0;
        assert!(table.version2(replayed(&request(0), 0)).is_none());
        assert!(table.version2(replayed(&request(1), 0)).is_none());
        let (request, v1) = captured(1, 0, 0);
        assert!(table.version1(request.id, Ok(v1)).is_none());
        assert!(table.expire(start).is_empty());
        for id in 3..6 {
            table.expect(captured(id, 0, 0).0);
        }
        assert!(table.expire(start + LONGEST_WAIT / 2).is_empty());
        let complete = table.expire(start + LONGEST_WAIT);
        assert_eq!(complete.len(), 1, "only the control has said nothing of it");
        assert_eq!(complete[0].request.id, ExchangeId(1));
        assert_eq!(table.account.dropped(Reason::Version1NotSeen), 1);
        assert_eq!(table.halves.len(), 3);
        assert_eq!(table.order.len(), 3);
    }

    #[test]
    fn a_recording_that_is_played_again() {
        let mut table = expecting(0..2, false);
        table.expect(captured(0, 0, 0).0);
        assert_eq!(table.halves.len(), 2);
        assert!(table.version2(replayed(&captured(0, 0, 0).0, 0)).is_none());
        table.expect(captured(0, 0, 0).0);
        assert_eq!(table.account.dropped(Reason::Version1NotSeen), 1);
        assert!(table.expire_all().is_empty());
        assert!(is_empty(&table));
    }
}
