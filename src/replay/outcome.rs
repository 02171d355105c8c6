//! What becomes of each request, and the sums over all of them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::budget::Permit;
use super::shared::Shared;
use super::{BreakerState, TargetState};
use crate::account::{Account, Counter, Reason, Stage};
use crate::exchange::{Request, Response};

/// A request and what became of it at one target.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The request as it was offered.
    pub request: Arc<Request>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a request at a target.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The target answered.
    Answered(Box<Answer>),
    /// It was tried, and no whole answer came.
    Failed(Reason),
    /// It was not tried.
    Skipped(Reason),
}

/// A target's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The answer; its times are wall-clock times. Of a body over the bound the first part is kept, and it is not whole.
    pub response: Response,
    /// How long things took.
    pub timings: Timings,
}

/// How long a replay took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timings {
    /// From when the request was due to its first byte written.
    pub lateness: Duration,
    /// From the first byte written to the last byte written.
    pub writing: Duration,
    /// From the first byte written to the first byte of the answer.
    pub first_byte: Duration,
    /// From the first byte written to the last byte of the answer.
    pub total: Duration,
    /// Whether the connection had carried a replay before.
    pub reused: bool,
    /// The network's share in it: the round trip of the connection, where the system tells.
    pub round_trip: Option<Duration>,
    /// This program's share in it: how long the whole answer had lain with the kernel before it was read; zero where the
    /// system does not tell, or was not asked.
    pub unread: Duration,
}

impl Timings {
    /// What the target itself took: from the last byte of the request to the last byte of the answer, without the network's
    /// share and this program's own.
    #[must_use]
    pub fn service(&self) -> Duration {
        self.total
            .saturating_sub(self.writing)
            .saturating_sub(self.unread)
            .saturating_sub(self.round_trip.unwrap_or_default())
    }
}

/// What an engine has done so far.
#[derive(Clone)]
pub struct Snapshot {
    /// Offered, answered, and every reason for the rest. Balanced once the engine has drained; before it,
    /// [`Self::in_flight`] makes up the difference.
    pub account: Account,
    /// Answers by the first digit of their status: index 2 counts 200 to 299; index 0 anything outside 100 to 599.
    pub by_class: [u64; 6],
    /// [`Timings::total`] of the answered replays, in microseconds.
    pub duration: Histogram<u64>,
    /// [`Timings::lateness`] of all replays that are over and of which at least a byte was written, in microseconds.
    pub lateness: Histogram<u64>,
    /// Requests that wait or are under way.
    pub queued_items: usize,
    /// Their bytes, bookkeeping included.
    pub queued_bytes: usize,
    /// Open connections to the target; for an `https` target 0, since reqwest keeps them to itself.
    pub connections: usize,
    /// What the breaker lets through.
    pub breaker: BreakerState,
    /// What is known of the target's addresses.
    pub target: TargetState,
}

/// How an engine is at the moment: what of a [`Snapshot`] costs little.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Requests that wait or are under way.
    pub queued_items: usize,
    /// Their bytes, bookkeeping included.
    pub queued_bytes: usize,
    /// Open connections to the target, as in [`Snapshot::connections`].
    pub connections: usize,
    /// What the breaker lets through.
    pub breaker: BreakerState,
    /// What is known of the target's addresses.
    pub target: TargetState,
}

impl Snapshot {
    /// Replays offered and not yet answered, failed or skipped.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.account
            .get(Counter::ReplaysOffered)
            .saturating_sub(self.account.get(Counter::ReplaysAnswered))
            .saturating_sub(self.account.dropped_at(Stage::Replay))
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("account", &self.account)
            .field("by_class", &self.by_class)
            .field("queued_items", &self.queued_items)
            .field("queued_bytes", &self.queued_bytes)
            .field("connections", &self.connections)
            .field("breaker", &self.breaker)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// The sums.
#[derive(Clone)]
pub(super) struct Stats {
    pub(super) account: Account,
    pub(super) by_class: [u64; 6],
    pub(super) duration: Histogram<u64>,
    pub(super) lateness: Histogram<u64>,
}

impl Stats {
    pub(super) fn new() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LONGEST_MICROS, 3)
                .unwrap_or_else(|_| unreachable!("constant bounds"))
        };
        Self {
            account: Account::new(),
            by_class: [0; 6],
            duration: histogram(),
            lateness: histogram(),
        }
    }

    fn add(&mut self, outcome: &Outcome, lateness: Option<Duration>) {
        if let Some(lateness) = lateness {
            self.lateness.saturating_record(micros(lateness));
        }
        match outcome {
            Outcome::Answered(answer) => {
                self.account.count(Counter::ReplaysAnswered);
                let class = usize::from(answer.response.head.status() / 100);
                self.by_class[if class < 6 { class } else { 0 }] += 1;
                self.duration
                    .saturating_record(micros(answer.timings.total));
            }
            Outcome::Failed(reason) | Outcome::Skipped(reason) => {
                debug_assert_eq!(reason.stage(), Stage::Replay);
                self.account.drop(*reason);
            }
        }
    }
}

/// One offered request on its way. Whatever happens to it, it is settled exactly once: whoever drops it unsettled has
/// stopped. What the target may have by then is not said to be untried, lest somebody send it again.
pub(super) struct Ticket {
    pub(super) request: Arc<Request>,
    pub(super) due: Instant,
    /// Whether its client did not wait for the answer to the request before.
    pub(super) is_pipelined: bool,
    shared: Arc<Shared>,
    /// `None` once settled, and for those that never got in.
    permit: Option<Permit>,
    /// How late its first byte was written; from then on the target may have some of it.
    lateness: Option<Duration>,
    settled: bool,
}

impl Ticket {
    /// Counts `request` as offered.
    pub(super) fn offered(request: Arc<Request>, due: Instant, shared: Arc<Shared>) -> Self {
        shared.stats(|stats| stats.account.count(Counter::ReplaysOffered));
        Self {
            request,
            due,
            is_pipelined: false,
            shared,
            permit: None,
            lateness: None,
            settled: false,
        }
    }

    /// Gives it a place in the queue.
    pub(super) fn admit(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Its first byte has just been written, the first time or again.
    pub(super) fn note_sent(&mut self, lateness: Duration) {
        self.lateness.get_or_insert(lateness);
    }

    /// Ends it.
    pub(super) fn settle(mut self, outcome: Outcome) {
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        self.permit = None;
        self.shared
            .stats(|stats| stats.add(&outcome, self.lateness));
        (self.shared.sink)(Replay {
            request: Arc::clone(&self.request),
            outcome,
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.finish(if self.lateness.is_some() {
            Outcome::Failed(Reason::StoppedUnanswered)
        } else {
            Outcome::Skipped(Reason::Stopped)
        });
    }
}

/// Durations beyond an hour count as an hour.
const LONGEST_MICROS: u64 = 3_600_000_000;

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
