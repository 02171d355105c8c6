//! The circuit breaker: a target that fails again and again is left alone for a while.

use std::time::{Duration, Instant};

use super::shared::later;

/// What the breaker of a target lets through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// Nothing until its back-off is over.
    Open,
    /// One request, to see whether the target is back.
    HalfOpen,
}

impl BreakerState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The stable name that logs and metrics use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// When a breaker opens and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerConfig {
    /// So many failures in a row open it.
    pub failures: u32,
    /// How long it stays open the first time; twice as long after each probe that fails.
    pub backoff: Duration,
    /// The longest that it stays open at a time.
    pub max_backoff: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
        }
    }
}

/// The breaker of one target: a state machine that is told the time.
///
/// Invariant: while half-open, exactly one permission is out.
#[derive(Debug)]
pub(super) struct Breaker {
    config: BreakerConfig,
    state: State,
    /// Failures in a row.
    failures: u32,
    /// The back-off to take when it opens next.
    backoff: Duration,
    /// Since when it has not been closed.
    open_since: Option<Instant>,
    /// Whether the target has ever answered.
    answered: bool,
    jitter: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// The answer to whether a request may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Permission {
    /// Send it, and tell the breaker how it went.
    Go,
    /// Not now. It is worth asking again at `retry`; the target has been failing since `since`, and had answered before
    /// that or had not.
    Refused {
        retry: Instant,
        since: Instant,
        answered: bool,
    },
}

impl Breaker {
    pub(super) fn new(config: BreakerConfig, seed: u64) -> Self {
        Self {
            config,
            state: State::Closed,
            failures: 0,
            backoff: config.backoff,
            open_since: None,
            answered: false,
            jitter: seed | 1,
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen => BreakerState::HalfOpen,
        }
    }

    /// Whether a request may be sent now. A permission out of half-open is the one probe.
    pub(super) fn ask(&mut self, now: Instant) -> Permission {
        let since = self.open_since.unwrap_or(now);
        let answered = self.answered;
        match self.state {
            State::Closed => Permission::Go,
            State::Open { until } if now >= until => {
                self.state = State::HalfOpen;
                Permission::Go
            }
            State::Open { until } => Permission::Refused {
                retry: until,
                since,
                answered,
            },
            State::HalfOpen => Permission::Refused {
                retry: later(now, self.config.backoff),
                since,
                answered,
            },
        }
    }

    /// The target answered.
    pub(super) fn succeeded(&mut self) {
        self.answered = true;
        self.close();
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.failures = 0;
        self.backoff = self.config.backoff;
        self.open_since = None;
    }

    /// The target was not reachable or did not answer in time.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            State::Closed => self.failures >= self.config.failures,
            State::HalfOpen => true,
            // Requests that were under way when it opened say nothing new.
            State::Open { .. } => false,
        };
        if !opens {
            return;
        }
        let backoff = self.with_jitter(self.backoff);
        self.state = State::Open {
            until: later(now, backoff),
        };
        self.open_since.get_or_insert(now);
        self.backoff = self.backoff.saturating_mul(2).min(self.config.max_backoff);
    }

    /// The request ended in a way that is no reason to leave the target alone: an answer that broke off came from
    /// somebody who is there, and where there is no address nobody is disturbed.
    pub(super) fn undecided(&mut self) {
        if self.state == State::HalfOpen {
            self.close();
        }
    }

    /// Three quarters to five quarters of `base`, never above the longest, so that many breakers do not probe in step.
    fn with_jitter(&mut self, base: Duration) -> Duration {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let quarters = base / 4;
        let part = self.jitter % 1024;
        (base - quarters + (quarters * 2 * u32::try_from(part).unwrap_or(0)) / 1024)
            .min(self.config.max_backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerConfig::default(), 7)
    }

    fn retry(permission: Permission) -> Instant {
        match permission {
            Permission::Refused { retry, .. } => retry,
            Permission::Go => panic!("let through"),
        }
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let now = Instant::now();
        let mut breaker = breaker();
        for _ in 0..4 {
            breaker.failed(now);
        }
        breaker.succeeded();
        for _ in 0..4 {
            breaker.failed(now);
        }
        assert_eq!(breaker.ask(now), Permission::Go);
        breaker.failed(now);
        assert_eq!(breaker.state(), BreakerState::Open);
        let until = retry(breaker.ask(now)) - now;
        assert!(until >= Duration::from_millis(75) && until <= Duration::from_millis(125));
    }

    #[test]
    fn one_probe_at_a_time_and_back_off_doubles_to_a_limit() {
        let mut now = Instant::now();
        let mut breaker = breaker();
        for _ in 0..5 {
            breaker.failed(now);
        }
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            let until = retry(breaker.ask(now));
            last = until - now;
            now = until;
            assert_eq!(breaker.ask(now), Permission::Go);
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            assert!(matches!(breaker.ask(now), Permission::Refused { .. }));
            breaker.failed(now);
        }
        assert!(last >= Duration::from_millis(7500) && last <= Duration::from_secs(10));
        now = retry(breaker.ask(now));
        assert_eq!(breaker.ask(now), Permission::Go);
        breaker.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.ask(now), Permission::Go);
    }

    #[test]
    fn failures_under_way_do_not_lengthen_the_back_off() {
        let now = Instant::now();
        let mut breaker = breaker();
        for _ in 0..5 {
            breaker.failed(now);
        }
        let until = retry(breaker.ask(now));
        for _ in 0..50 {
            breaker.failed(now + Duration::from_millis(1));
        }
        assert_eq!(retry(breaker.ask(now)), until);
    }
}
