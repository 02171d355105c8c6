//! Self-restraint: how much of the traffic may be followed, so that the program stays within its part of the machine.
//!
//! Above a limit whole connections are left out, before the kernel drops packets at random or ends the container: a
//! random loss spoils a share of all exchanges, a connection that is left out spoils only its own. A [`Governor`] decides
//! the [`Share`] of the connections, by a key that no client knows; a connection that is in a smaller share is in every
//! larger one, so that those that stay, stay whole.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A part of all hashes: connections whose hash is in it are followed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Share(u64);

impl Share {
    /// Every connection.
    pub const ALL: Self = Self(u64::MAX);

    /// So much of them, from 0 to 1.
    #[must_use]
    pub fn of(part: f64) -> Self {
        if part >= 1.0 {
            return Self::ALL;
        }
        // Conversions to integers saturate.
        Self((part * 2f64.powi(64)) as u64)
    }

    /// Whether that is every connection.
    #[must_use]
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Whether what has this hash is in it.
    #[must_use]
    pub const fn takes(self, hash: u64) -> bool {
        hash <= self.0
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} %", self.0 as f64 / 2f64.powi(64) * 100.0)
    }
}

/// Processor time in each second: 1 is one core.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Cores(f64);

impl Cores {
    /// So many, if that is a number above zero.
    #[must_use]
    pub fn new(cores: f64) -> Option<Self> {
        (cores.is_finite() && cores > 0.0).then_some(Self(cores))
    }

    /// How many.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} %", self.0 * 100.0)
    }
}

impl FromStr for Cores {
    type Err = String;

    /// `50%`, `500m` or `0.5`, which are the same.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, scale) = match text.strip_suffix('%') {
            Some(number) => (number, 100.0),
            None => match text.strip_suffix('m') {
                Some(number) => (number, 1000.0),
                None => (text, 1.0),
            },
        };
        let cores = number.trim().parse::<f64>().ok();
        cores
            .and_then(|number| Self::new(number / scale))
            .ok_or_else(|| format!("'{text}' is not a share of a core such as 50%, 500m or 1.5"))
    }
}

/// What the program may use.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Limits {
    /// Processor time.
    pub cpu: Option<Cores>,
    /// Bytes of memory.
    pub memory: Option<u64>,
}

/// What it uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// When this was read, since any fixed moment.
    pub at: Duration,
    /// Processor time of all threads so far.
    pub cpu: Duration,
    /// Bytes of memory.
    pub memory: u64,
}

/// Decides the share from what the program uses: to be asked about once a second.
///
/// It goes down in proportion as soon as a limit is passed, and up slowly: a share that swings would cut connections for
/// nothing.
#[derive(Clone, Debug)]
pub struct Governor {
    limits: Limits,
    /// Invariant: from [`LEAST`] to 1.
    part: f64,
    last: Option<Reading>,
    /// How often in a row memory did not grow.
    calm: u32,
}

impl Governor {
    /// One that keeps everything until it is told more.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            part: 1.0,
            last: None,
            calm: 0,
        }
    }

    /// The limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The share to follow from now on.
    pub fn look(&mut self, now: Reading) -> Share {
        let last = self.last.replace(now);
        let passed = last.map_or(Duration::ZERO, |last| now.at.saturating_sub(last.at));
        let (Some(last), false) = (last, passed.is_zero()) else {
            return self.share();
        };
        let used = now.cpu.saturating_sub(last.cpu).as_secs_f64() / passed.as_secs_f64();
        // 1 is at the limit.
        let cpu = self.limits.cpu.map_or(0.0, |limit| used / limit.0);
        let memory = self
            .limits
            .memory
            .map_or(0.0, |limit| now.memory as f64 / limit.max(1) as f64);
        let grew = now.memory > last.memory;
        self.calm = if grew { 0 } else { self.calm.saturating_add(1) };
        let mut factor = 1.0_f64;
        if cpu > 1.0 {
            factor = (AIM / cpu).max(FASTEST);
        }
        if memory > FULL && grew {
            factor = factor.min(FASTEST * 2.0);
        }
        if factor < 1.0 {
            self.part = (self.part * factor).max(LEAST);
        } else if self.part < 1.0 {
            // An allocator may keep what is free: memory that has long not grown is no reason to wait.
            let has_room = memory < ROOMY || (memory < 1.0 && self.calm >= LONG);
            if cpu < ROOMY && has_room {
                self.part = (self.part * GROWTH + LEAST).min(1.0);
            }
        }
        debug_assert!((LEAST..=1.0).contains(&self.part));
        self.share()
    }

    /// The share as it is.
    #[must_use]
    pub fn share(&self) -> Share {
        Share::of(self.part)
    }
}

/// Something is always followed: a verdict needs some traffic, and the way back up as well.
const LEAST: f64 = 0.01;

/// Where the processor time should come to lie, as a part of the limit.
const AIM: f64 = 0.9;

/// The least that one look leaves of the share.
const FASTEST: f64 = 0.25;

/// Memory above this part of the limit is too much, if it still grows.
const FULL: f64 = 0.95;

/// Below this part of the limits there is room for more.
const ROOMY: f64 = 0.8;

/// How much more of the share there is after a look with room.
const GROWTH: f64 = 1.05;

/// Looks without growth after which memory is taken to be what it stays.
const LONG: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program that uses `fixed` cores, and `rest` more for the whole traffic, for so many seconds.
    fn run(governor: &mut Governor, seconds: u64, fixed: f64, rest: f64) -> f64 {
        let mut reading = governor.last.unwrap_or(Reading {
            at: Duration::ZERO,
            cpu: Duration::ZERO,
            memory: 0,
        });
        for _ in 0..seconds {
            governor.look(reading);
            reading.at += Duration::from_secs(1);
            reading.cpu += Duration::from_secs_f64(fixed + rest * governor.part);
        }
        governor.look(reading);
        fixed + rest * governor.part
    }

    fn cpu(limit: &str) -> Governor {
        Governor::new(Limits {
            cpu: Some(limit.parse().expect("cores")),
            memory: None,
        })
    }

    #[test]
    fn cores() {
        for text in ["50%", "500m", "0.5", "50.0 %"] {
            assert_eq!(text.parse(), Ok(Cores(0.5)), "{text}");
        }
        for wrong in ["", "0", "-1", "0%", "NaN", "inf", "1k", "%", "m"] {
            assert!(wrong.parse::<Cores>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares() {
        assert!(Share::of(1.0).is_all() && Share::of(1.0).takes(u64::MAX));
        assert!(!Share::of(0.999_999).is_all());
        assert!(Share::of(0.5).takes(1 << 62) && !Share::of(0.5).takes(3 << 62));
        assert_eq!(Share::of(0.25).to_string(), "25 %");
        assert_eq!(Share::ALL.to_string(), "100 %");
    }

    #[test]
    fn within_the_limits_everything_is_kept() {
        let mut governor = cpu("50%");
        assert!(run(&mut governor, 100, 0.1, 0.39) < 0.5);
        assert!(governor.share().is_all());
        let mut unlimited = Governor::new(Limits::default());
        run(&mut unlimited, 10, 5.0, 100.0);
        assert!(unlimited.share().is_all());
    }

    #[test]
    fn above_the_limit_the_load_comes_below_it_and_stays_near() {
        for (fixed, rest) in [(0.05, 1.0), (0.2, 4.0), (0.0, 30.0)] {
            let mut governor = cpu("500m");
            let used = run(&mut governor, 20, fixed, rest);
            assert!(used <= 0.5 * 1.06, "{used} of {fixed} + {rest}");
            // It does not give up more than it has to.
            let mut most = 0.0_f64;
            for _ in 0..60 {
                most = most.max(run(&mut governor, 1, fixed, rest));
            }
            assert!((0.35..=0.5 * 1.06).contains(&most), "{most}");
        }
    }

    #[test]
    fn when_the_load_has_gone_everything_comes_back() {
        let mut governor = cpu("50%");
        run(&mut governor, 20, 0.1, 20.0);
        assert!(governor.part < 0.1);
        run(&mut governor, 120, 0.1, 0.1);
        assert!(governor.share().is_all(), "{}", governor.part);
    }

    #[test]
    fn something_is_always_kept() {
        let mut governor = cpu("1%");
        run(&mut governor, 100, 1.0, 1.0);
        assert_eq!(governor.part, LEAST);
    }

    fn memory(governor: &mut Governor, seconds: u64, mut bytes: impl FnMut(u64) -> u64) {
        let start = governor.last.map_or(0, |last| last.at.as_secs() + 1);
        for second in start..start + seconds {
            governor.look(Reading {
                at: Duration::from_secs(second),
                cpu: Duration::ZERO,
                memory: bytes(second - start),
            });
        }
    }

    #[test]
    fn memory_that_grows_into_the_limit_sheds_and_memory_that_stays_does_not() {
        let limits = Limits {
            cpu: None,
            memory: Some(1000),
        };
        let mut governor = Governor::new(limits);
        memory(&mut governor, 100, |_| 940);
        assert!(governor.share().is_all());
        memory(&mut governor, 10, |second| 951 + second);
        assert!(governor.part < 0.1, "{}", governor.part);
        // The allocator does not give it back, but no more is needed.
        memory(&mut governor, 20, |_| 960);
        assert!(governor.part < 0.1, "{}", governor.part);
        memory(&mut governor, 200, |_| 960);
        assert!(governor.share().is_all(), "{}", governor.part);
    }

    #[test]
    fn a_reading_at_the_same_time_changes_nothing() {
        let mut governor = cpu("10%");
        let reading = |cpu| Reading {
            at: Duration::from_secs(1),
            cpu: Duration::from_secs(cpu),
            memory: 0,
        };
        governor.look(reading(0));
        assert!(governor.look(reading(50)).is_all());
    }
}
