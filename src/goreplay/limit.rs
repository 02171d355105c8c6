//! `|10` and `|10%` behind an address: how many messages a second, or which share of them, or how fast.

use std::time::Duration;

/// What stands behind the last `|` of an address.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Limit {
    /// So many a second.
    PerSecond(u64),
    /// So many percent: a random share, or of a file its speed.
    Percent(f64),
}

/// What is wrong with a limit as written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' behind '|' is neither a number of messages a second nor a percentage such as 10%")]
pub struct WrongLimit(String);

impl Limit {
    /// Splits an address from its limit.
    ///
    /// # Errors
    /// What is expected behind the `|`.
    pub fn split(text: &str) -> Result<(&str, Option<Self>), WrongLimit> {
        let Some((address, limit)) = text.rsplit_once('|') else {
            return Ok((text, None));
        };
        let wrong = || WrongLimit(limit.to_owned());
        let limit = match limit.trim().strip_suffix('%') {
            Some(percent) => match percent.parse::<f64>() {
                Ok(percent) if percent.is_finite() && percent >= 0.0 => Self::Percent(percent),
                _ => return Err(wrong()),
            },
            None => Self::PerSecond(limit.trim().parse().map_err(|_| wrong())?),
        };
        Ok((address.trim_end(), Some(limit)))
    }
}

/// Holds messages to a [`Limit`].
///
/// As in GoReplay, a second begins with the first message after the one before has ended.
#[derive(Clone, Debug)]
pub struct Limiter {
    limit: Limit,
    /// When the second in hand began, and how many it had.
    second: Option<Duration>,
    count: u64,
    /// The state of a generator of numbers (SplitMix64).
    random: u64,
}

impl Limiter {
    /// One that begins with `seed`.
    #[must_use]
    pub const fn new(limit: Limit, seed: u64) -> Self {
        Self {
            limit,
            second: None,
            count: 0,
            random: seed,
        }
    }

    /// Whether one more may pass at `now`, a time since any fixed moment.
    pub fn takes(&mut self, now: Duration) -> bool {
        match self.limit {
            Limit::PerSecond(most) => {
                let is_over = |began: Duration| now.saturating_sub(began) >= Duration::from_secs(1);
                if self.second.is_none_or(is_over) {
                    self.second = Some(now);
                    self.count = 0;
                }
                self.count += 1;
                self.count <= most
            }
            Limit::Percent(percent) => self.fraction() * 100.0 < percent,
        }
    }

    /// A number from 0 up to, and not including, 1.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / 2f64.powi(53)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_split_off() {
        for (text, address, limit) in [
            ("http://a", "http://a", None),
            ("http://a|10", "http://a", Some(Limit::PerSecond(10))),
            ("http://a|10%", "http://a", Some(Limit::Percent(10.0))),
            ("x.gor|200%", "x.gor", Some(Limit::Percent(200.0))),
            ("a|b|5", "a|b", Some(Limit::PerSecond(5))),
        ] {
            assert_eq!(Limit::split(text), Ok((address, limit)), "{text}");
        }
        for wrong in ["a|", "a|x", "a|-1", "a|1.5", "a|x%", "a|-1%", "a|NaN%"] {
            assert!(Limit::split(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_a_second_holds() {
        let mut limiter = Limiter::new(Limit::PerSecond(20), 1);
        // 300 messages over three seconds: four seconds begin when the last one falls into a new one.
        let taken = |limiter: &mut Limiter, from: u64| {
            (0..300)
                .filter(|it| limiter.takes(Duration::from_millis(from + it * 10)))
                .count()
        };
        assert_eq!(taken(&mut limiter, 0), 60);
        assert_eq!(taken(&mut limiter, 60_000), 60);
        let mut at_once = Limiter::new(Limit::PerSecond(10), 1);
        assert_eq!(
            (0..100).filter(|_| at_once.takes(Duration::ZERO)).count(),
            10
        );
        let mut none = Limiter::new(Limit::PerSecond(0), 1);
        assert!(!none.takes(Duration::ZERO));
    }

    #[test]
    fn a_share_is_about_as_asked() {
        for (percent, low, high) in [(0.0, 0, 0), (100.0, 10_000, 10_000), (50.0, 4700, 5300)] {
            let mut limiter = Limiter::new(Limit::Percent(percent), 42);
            let taken = (0..10_000)
                .filter(|_| limiter.takes(Duration::ZERO))
                .count();
            assert!((low..=high).contains(&taken), "{percent}: {taken}");
        }
    }
}
