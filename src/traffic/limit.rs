//! How many requests a second, and no more.

use std::str::FromStr;
use std::time::Duration;

use super::pattern::RuleError;

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

/// Lets so many a second through: as many as one second's worth at once after a pause, and at least one.
///
/// Invariant: `0 <= tokens <= capacity`.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: Rate,
    capacity: f64,
    tokens: f64,
    last: Duration,
}

impl TokenBucket {
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
        let passed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.tokens = (self.tokens + passed * self.rate.0).min(self.capacity);
        let may = self.tokens >= 1.0;
        if may {
            self.tokens -= 1.0;
        }
        debug_assert!((0.0..=self.capacity).contains(&self.tokens));
        may
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
    fn time_that_goes_back_earns_nothing() {
        assert_eq!(
            taken("1/s", [5000, 0, 1000, 2000, 4000, 5999, 6000].into_iter()),
            2
        );
    }
}
