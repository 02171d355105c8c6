//! How many requests a second, and no more.

use std::str::FromStr;
use std::time::Duration;

use super::pattern::RuleError;
use super::values::byte_size;

/// So many a second; finite, and above zero.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rate(f64);

impl Rate {
    /// How many a second.
    #[must_use]
    pub const fn per_second(self) -> f64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = RuleError;

    /// `200/s`, `30/m`, `1000/h`; a number alone is per second.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let seconds = match unit {
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => f64::NAN,
        };
        match number.parse::<f64>() {
            Ok(number) if number > 0.0 && (number / seconds).is_normal() => {
                Ok(Self(number / seconds))
            }
            _ => Err(RuleError::new(
                "expected a rate above 0 such as 200/s or 30/m",
            )),
        }
    }
}

/// So many bytes a second; above zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bandwidth(u64);

impl Bandwidth {
    /// How many bytes a second.
    #[must_use]
    pub const fn bytes_per_second(self) -> u64 {
        self.0
    }
}

impl FromStr for Bandwidth {
    type Err = RuleError;

    /// `10MB/s`, `512KiB/s`; a size alone is per second.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match byte_size(text.trim().trim_end_matches("/s")) {
            Ok(bytes @ 1..) => Ok(Self(bytes)),
            _ => Err(RuleError::new(
                "expected bytes a second, above 0, such as 10MB/s or 512KiB/s",
            )),
        }
    }
}

/// Lets so many a second through: as many as one second's worth at once after a pause, and at least one. What is larger than
/// one second's worth goes when that is there, and what follows waits until it is paid for.
///
/// Invariant: `tokens <= capacity`.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: Rate,
    capacity: f64,
    tokens: f64,
    last: Duration,
}

impl TokenBucket {
    /// A full one, of bytes.
    #[must_use]
    pub fn of_bytes(bandwidth: Bandwidth) -> Self {
        Self::new(Rate(bandwidth.0 as f64))
    }

    /// A full one.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let capacity = rate.0.max(1.0);
        Self {
            rate,
            capacity,
            tokens: capacity,
            last: Duration::ZERO,
        }
    }

    /// Whether one more may go at `now`, a time since any fixed moment; a time before the last one counts as the last.
    pub fn take(&mut self, now: Duration) -> bool {
        self.take_many(now, 1).is_ok()
    }

    /// Takes so many at once at `now`, or says how long it will be until they may go.
    ///
    /// # Errors
    /// The time from `now` until there will be enough, if nobody else takes any.
    pub fn take_many(&mut self, now: Duration, many: u64) -> Result<(), Duration> {
        let passed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.tokens = (self.tokens + passed * self.rate.0).min(self.capacity);
        debug_assert!(self.tokens <= self.capacity);
        let many = many as f64;
        let missing = many.min(self.capacity) - self.tokens;
        if missing <= 0.0 {
            self.tokens -= many;
            return Ok(());
        }
        Err(Duration::try_from_secs_f64(missing / self.rate.0).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &str, millis: impl Iterator<Item = u64>) -> usize {
        let mut bucket = TokenBucket::new(rate.parse().expect("a rate"));
        millis
            .filter(|&at| bucket.take(Duration::from_millis(at)))
            .count()
    }

    #[test]
    fn rates() {
        for (text, per_second) in [("200/s", 200.0), ("30/m", 0.5), ("7", 7.0), ("36/h", 0.01)] {
            assert_eq!(text.parse(), Ok(Rate(per_second)), "{text}");
        }
        for wrong in [
            "", "0", "-1/s", "1/d", "NaN", "inf/s", "/s", "1/s/s", "1e-320",
        ] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_more_than_the_rate_and_one_seconds_worth_goes() {
        // Ten seconds of a thousand a second.
        assert_eq!(taken("100/s", 0..10_000), 100 + 999);
        // What stays below the rate is not touched.
        assert_eq!(taken("100/s", (0..10_000).step_by(20)), 500);
        // A pause saves no more than one second's worth.
        assert_eq!(taken("10/s", (0..50).chain(3_600_000..3_600_050)), 20);
        // Slower than one a second, one goes at once.
        assert_eq!(taken("6/m", 0..60_000), 6);
    }

    #[test]
    fn bandwidths() {
        for (text, bytes) in [("10MB/s", 10 << 20), ("512KiB/s", 512 << 10), ("7", 7)] {
            assert_eq!(text.parse(), Ok(Bandwidth(bytes)), "{text}");
        }
        for wrong in ["", "0", "/s", "-1MB/s", "1MB/m", "fast"] {
            assert!(wrong.parse::<Bandwidth>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_go_by_their_number_and_the_largest_go_too() {
        let mut bucket = TokenBucket::of_bytes(Bandwidth(1000));
        let at = Duration::from_millis;
        assert_eq!(bucket.take_many(at(0), 400), Ok(()));
        assert_eq!(bucket.take_many(at(0), 600), Ok(()));
        assert_eq!(bucket.take_many(at(0), 250), Err(at(250)));
        assert_eq!(bucket.take_many(at(250), 250), Ok(()));
        // Ten seconds' worth goes when one second's is there, and is paid for afterwards.
        assert_eq!(bucket.take_many(at(250), 10_000), Err(at(1000)));
        assert_eq!(bucket.take_many(at(1250), 10_000), Ok(()));
        assert_eq!(bucket.take_many(at(1250), 1), Err(at(9001)));
        assert_eq!(bucket.take_many(at(10_251), 1), Ok(()));
    }

    #[test]
    fn time_that_goes_back_earns_nothing() {
        assert_eq!(
            taken("1/s", [5000, 0, 1000, 2000, 4000, 5999, 6000].into_iter()),
            2
        );
    }
}
