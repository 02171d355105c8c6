//! What the door, the workers and the handles of one engine have in common.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};

use super::breaker::{Breaker, Permission};
use super::budget::Budget;
use super::outcome::Stats;
use super::schedule::Pacer;
use super::{BreakerState, Replay, ReplayConfig, Snapshot, TargetState};
use crate::time::Timestamp;

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
    /// Somebody could not connect: the resolver should be asked again.
    pub(super) ask_again: Notify,
    /// `None` while running, then when to give up.
    pub(super) stop: watch::Sender<Option<Instant>>,
    pub(super) connections: AtomicUsize,
    pacer: Mutex<Pacer>,
    breaker: Mutex<Breaker>,
    stats: Mutex<Stats>,
}

impl Shared {
    pub(super) fn new(config: ReplayConfig, sink: Sink) -> Self {
        let clock = Clock::now();
        Self {
            budget: Budget::new(config.queue_items, config.queue_bytes),
            target: watch::Sender::new(TargetState::Asking),
            ask_again: Notify::new(),
            stop: watch::Sender::new(None),
            connections: AtomicUsize::new(0),
            pacer: Mutex::new(Pacer::new(config.schedule)),
            breaker: Mutex::new(Breaker::new(config.breaker, clock.wall.as_nanos())),
            stats: Mutex::new(Stats::new()),
            clock,
            config,
            sink,
        }
    }

    pub(super) fn stats(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut lock(&self.stats));
    }

    pub(super) fn due(&self, captured: Timestamp, now: Instant) -> Instant {
        lock(&self.pacer).due(captured, now)
    }

    pub(super) fn may_send(&self) -> Permission {
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
            match after {
                BreakerState::Open => tracing::warn!(%target, state = after.name(), "breaker"),
                BreakerState::Closed => tracing::info!(%target, state = after.name(), "breaker"),
                BreakerState::HalfOpen => {
                    tracing::debug!(%target, state = after.name(), "breaker");
                }
            }
        }
        result
    }

    /// Stops taking requests; gives up on those under way at `deadline`, or earlier if that was said before.
    pub(super) fn stop_by(&self, deadline: Instant) {
        self.budget.close();
        self.stop.send_modify(|stop| {
            *stop = Some(stop.map_or(deadline, |earlier| earlier.min(deadline)));
        });
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let stats = lock(&self.stats).clone();
        let (queued_items, queued_bytes) = self.budget.used();
        Snapshot {
            account: stats.account,
            by_class: stats.by_class,
            duration: stats.duration,
            lateness: stats.lateness,
            queued_items,
            queued_bytes,
            connections: self.connections.load(std::sync::atomic::Ordering::Relaxed),
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves counters at worst one short, never unreadable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
