//! A histogram with fixed bounds, so that two of them can be added.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Counts of numbers in buckets that are at most 1/16 wide of their value. As JSON: an object of counts by bucket.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<u16, u64>", into = "BTreeMap<u16, u64>")]
pub struct Buckets(
    /// Buckets in order, with their counts.
    Vec<(u16, u64)>,
);

impl From<BTreeMap<u16, u64>> for Buckets {
    fn from(counts: BTreeMap<u16, u64>) -> Self {
        Self(counts.into_iter().collect())
    }
}

impl From<Buckets> for BTreeMap<u16, u64> {
    fn from(Buckets(counts): Buckets) -> Self {
        counts.into_iter().collect()
    }
}

impl Buckets {
    /// Counts `value`.
    pub fn add(&mut self, value: u64) {
        let count = self.count_mut(bucket(value));
        *count = count.saturating_add(1);
    }

    fn count_mut(&mut self, bucket: u16) -> &mut u64 {
        let at = match self.0.binary_search_by_key(&bucket, |&(known, _)| known) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (bucket, 0));
                at
            }
        };
        &mut self.0[at].1
    }

    /// Counts a duration, in microseconds.
    pub fn add_duration(&mut self, duration: Duration) {
        self.add(micros(duration));
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for &(bucket, count) in &other.0 {
            let mine = self.count_mut(bucket);
            *mine = mine.saturating_add(count);
        }
    }

    /// How many numbers were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum, &(_, n)| sum.saturating_add(n))
    }

    /// The upper end of the bucket that holds the quantile `q`; `None` when nothing was counted.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        // Counts are far below 2^52.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let rank = ((count as f64 * q).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0u64;
        for &(bucket, n) in &self.0 {
            below = below.saturating_add(n);
            if below >= rank {
                return Some(last(bucket));
            }
        }
        None
    }

    /// Each bucket's largest number and count, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|&(bucket, count)| (last(bucket), count))
    }
}

/// A duration in whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Each power of two has so many buckets.
const STEPS: u64 = 16;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// The bucket of `value`: below 16 each number has its own, above them the four bits behind the leading one decide.
fn bucket(value: u64) -> u16 {
    if value < STEPS {
        return value as u16;
    }
    let power = value.ilog2() - STEP_BITS;
    // At most 16 × 61.
    (u64::from(power) * STEPS + (value >> power)) as u16
}

/// The largest number in `bucket`.
fn last(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    if bucket < 2 * STEPS {
        return bucket;
    }
    let power = (bucket / STEPS - 1).min(u64::from(63 - STEP_BITS));
    let lead = bucket % STEPS + STEPS;
    (lead << power) | ((1 << power) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_a_bucket_that_is_narrow_and_ends_behind_it() {
        let mut before = 0;
        let near_powers =
            (0..64).flat_map(|power| [(1u64 << power) - 1, 1 << power, (1 << power) + 1]);
        let mut numbers: Vec<u64> = (0..5_000).chain(near_powers).chain([u64::MAX]).collect();
        numbers.sort_unstable();
        for value in numbers {
            let index = bucket(value);
            assert!(index >= before, "{value}");
            before = index;
            let end = last(index);
            assert!(end >= value && bucket(end) == index, "{value}: {end}");
            assert!(end - value <= value / STEPS, "{value}: {end}");
            assert!(end == u64::MAX || bucket(end + 1) == index + 1, "{value}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_numbers() {
        let mut buckets = Buckets::default();
        assert_eq!(buckets.quantile(0.5), None);
        for value in (1..=1000).rev() {
            buckets.add(value);
        }
        for (q, exact) in [
            (0.0, 1),
            (0.001, 1),
            (0.5, 500),
            (0.9, 900),
            (0.99, 990),
            (1.0, 1000),
        ] {
            assert_eq!(buckets.quantile(q), Some(last(bucket(exact))), "{q}");
        }
    }
}
