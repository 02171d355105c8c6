//! What the door, the workers and the handles of one engine have in common.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};

use super::breaker::{Breaker, Permission};
use super::budget::Budget;
use super::outcome::Stats;
use super::{BreakerState, Condition, Gate, Replay, ReplayConfig, Snapshot, TargetState};
use crate::account::{Account, Reason};
use crate::time::Timestamp;
use crate::traffic::TokenBucket;

/// Where each outcome goes; called on the thread that decided it.
pub(super) type Sink = Box<dyn Fn(Replay) + Send + Sync>;

/// The state of one engine that several of its threads touch; every lock is held for a few instructions only.
pub(super) struct Shared {
    pub(super) config: ReplayConfig,
    pub(super) sink: Sink,
    pub(super) budget: Arc<Budget>,
    pub(super) clock: Clock,
    /// What the resolver last said.
    pub(super) target: watch::Sender<TargetState>,
    /// Whether requests go to it.
    pub(super) gate: watch::Sender<Gate>,
    /// Somebody could not connect: the resolver should be asked again.
    pub(super) ask_again: Notify,
    /// `None` while running, then when to give up.
    pub(super) stop: watch::Sender<Option<Instant>>,
    pub(super) connections: AtomicUsize,
    /// Bytes held for answers that are not whole yet.
    pub(super) answer_bytes: AtomicUsize,
    /// The system once had no local port left for a connection to the target.
    pub(super) out_of_ports: AtomicBool,
    limit: Option<Mutex<TokenBucket>>,
    bandwidth: Option<Mutex<TokenBucket>>,
    started: Instant,
    breaker: Mutex<Breaker>,
    /// Why there was no connection, or no answer in time, the last time; for a person to read.
    trouble: Mutex<String>,
    stats: Mutex<Stats>,
}

impl Shared {
    pub(super) fn new(config: ReplayConfig, sink: Sink) -> Self {
        let clock = Clock::now();
        Self {
            budget: Budget::new(config.queue_items, config.queue_bytes),
            target: watch::Sender::new(TargetState::Asking),
            gate: watch::Sender::new(if config.hold_new_addresses {
                Gate::Hold
            } else {
                Gate::Open
            }),
            ask_again: Notify::new(),
            stop: watch::Sender::new(None),
            connections: AtomicUsize::new(0),
            answer_bytes: AtomicUsize::new(0),
            out_of_ports: AtomicBool::new(false),
            limit: config.limit.map(|rate| Mutex::new(TokenBucket::new(rate))),
            bandwidth: config
                .bandwidth
                .map(|bandwidth| Mutex::new(TokenBucket::of_bytes(bandwidth))),
            started: Instant::now(),
            breaker: Mutex::new(Breaker::new(config.breaker, clock.wall.as_nanos())),
            trouble: Mutex::new(String::new()),
            stats: Mutex::new(Stats::new()),
            clock,
            config,
            sink,
        }
    }

    pub(super) fn stats(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut lock(&self.stats));
    }

    /// Whether the limit on requests a second lets one more through at `now`.
    pub(super) fn is_within_limit(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.started);
        self.limit
            .as_ref()
            .is_none_or(|bucket| lock(bucket).take(passed))
    }

    /// Whether the limit on bytes a second lets so many more through at `now`; if not, when it will.
    pub(super) fn is_within_bandwidth(&self, now: Instant, bytes: usize) -> Result<(), Instant> {
        let Some(bucket) = &self.bandwidth else {
            return Ok(());
        };
        let passed = now.saturating_duration_since(self.started);
        let taken = lock(bucket).take_many(passed, bytes as u64);
        taken.map_err(|wait| now.checked_add(wait).unwrap_or(now))
    }

    pub(super) fn may_send(&self) -> Permission {
        if lock(&self.breaker).state() == BreakerState::Closed {
            return Permission::Go;
        }
        self.with_breaker(|breaker| breaker.ask(Instant::now()))
    }

    /// Changes the breaker, and says so in the log when that opened or closed it.
    pub(super) fn with_breaker<T>(&self, change: impl FnOnce(&mut Breaker) -> T) -> T {
        let (before, after, result) = {
            let mut breaker = lock(&self.breaker);
            let before = breaker.state();
            let result = change(&mut breaker);
            (before, breaker.state(), result)
        };
        if before != after {
            let target = &self.config.target;
            match (before, after) {
                (BreakerState::Closed, _) => {
                    let trouble = lock(&self.trouble).clone();
                    tracing::warn!(%target, trouble, "the target keeps failing; leaving it alone for a while");
                }
                (_, BreakerState::Closed) => tracing::info!(%target, "the target is back"),
                (_, state) => tracing::debug!(%target, state = state.name(), "breaker"),
            }
        }
        result
    }

    pub(super) fn set_gate(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }

    /// Keeps that an answer did not come in time.
    pub(super) fn note_late(&self, reason: Reason) {
        *lock(&self.trouble) = reason.meaning().trim_end_matches('.').to_owned();
    }

    /// Keeps why there was no connection, and has the resolver asked again.
    pub(super) fn note_trouble(&self, trouble: String) {
        let mut last = lock(&self.trouble);
        // The first one tells people what is wrong; the breaker tells the rest.
        if last.is_empty() {
            tracing::warn!(target = %self.config.target, trouble, "no connection");
        } else {
            tracing::debug!(target = %self.config.target, trouble, "no connection");
        }
        *last = trouble;
        drop(last);
        self.ask_again.notify_one();
    }

    /// Every closed connection keeps its local port for a minute (RFC 9293 §3.6.1), and all of them go to one address:
    /// some 470 short connections a second use up the ports. From then on idle connections are closed by RST, which
    /// frees the port at once; their answers have been read by then.
    pub(super) fn note_out_of_ports(&self) {
        if !self.out_of_ports.swap(true, Ordering::Relaxed) {
            let target = &self.config.target;
            tracing::warn!(%target, "no local port left; closing connections by RST from now on");
        }
    }

    /// Stops taking requests; gives up on those under way at `deadline`, or earlier if that was said before.
    pub(super) fn stop_by(&self, deadline: Instant) {
        self.budget.close();
        self.stop.send_modify(|stop| {
            *stop = Some(stop.map_or(deadline, |earlier| earlier.min(deadline)));
        });
    }

    pub(super) fn account(&self) -> Account {
        lock(&self.stats).account.clone()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let stats = lock(&self.stats).clone();
        let now = self.condition();
        Snapshot {
            account: stats.account,
            by_class: stats.by_class,
            duration: stats.duration,
            lateness: stats.lateness,
            queued_items: now.queued_items,
            queued_bytes: now.queued_bytes,
            connections: now.connections,
            breaker: now.breaker,
            target: now.target,
        }
    }

    pub(super) fn condition(&self) -> Condition {
        let (queued_items, queued_bytes) = self.budget.used();
        Condition {
            queued_items,
            queued_bytes,
            connections: self.connections.load(Ordering::Relaxed),
            breaker: lock(&self.breaker).state(),
            target: self.target.borrow().clone(),
        }
    }
}

/// The wall clock at one moment, and the steady clock from there on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    wall: Timestamp,
    steady: Instant,
}

impl Clock {
    fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self {
            wall: Timestamp::ZERO.after(since),
            steady: Instant::now(),
        }
    }

    /// The wall-clock time of `moment`.
    pub(super) fn wall(&self, moment: Instant) -> Timestamp {
        self.wall
            .after(moment.saturating_duration_since(self.steady))
    }
}

/// The moment `by` after `from`; one that can not be reached is as good as never.
pub(super) fn later(from: Instant, by: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    from.checked_add(by)
        .or_else(|| from.checked_add(NEVER))
        .unwrap_or(from)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves counters at worst one short, never unreadable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
