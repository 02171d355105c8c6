//! A histogram with fixed bounds, so that two of them can be added.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Counts of numbers in buckets that are at most 1/16 wide of their value. As JSON: an object of counts by bucket.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<u16, u64>", into = "BTreeMap<u16, u64>")]
pub struct Buckets {
    /// The bucket of the first count.
    first: u16,
    /// The counts of this bucket and the next ones. Invariant: neither the first nor the last of them is 0.
    counts: Vec<u64>,
}

impl From<BTreeMap<u16, u64>> for Buckets {
    fn from(counts: BTreeMap<u16, u64>) -> Self {
        let mut buckets = Self::default();
        // There are no buckets behind that of the largest number, whatever a file says.
        for (known, count) in counts {
            buckets.add_to(known.min(bucket(u64::MAX)), count);
        }
        buckets
    }
}

impl From<Buckets> for BTreeMap<u16, u64> {
    fn from(buckets: Buckets) -> Self {
        buckets.known().collect()
    }
}

impl Buckets {
    /// Counts `value`.
    pub fn add(&mut self, value: u64) {
        self.add_to(bucket(value), 1);
    }

    fn add_to(&mut self, bucket: u16, more: u64) {
        if more == 0 {
            return;
        }
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let room = usize::from(self.first - bucket);
            self.counts.splice(0..0, std::iter::repeat_n(0, room));
            self.first = bucket;
        }
        let at = usize::from(bucket - self.first);
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] = self.counts[at].saturating_add(more);
    }

    /// The buckets in which something was counted, in order, with their counts.
    fn known(&self) -> impl Iterator<Item = (u16, u64)> {
        let counts = (self.first..).zip(self.counts.iter().copied());
        counts.filter(|&(_, count)| count > 0)
    }

    /// Counts a duration, in microseconds.
    pub fn add_duration(&mut self, duration: Duration) {
        self.add(micros(duration));
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in other.known() {
            self.add_to(bucket, count);
        }
    }

    /// How many numbers were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
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
        for (bucket, n) in self.known() {
            below = below.saturating_add(n);
            if below >= rank {
                return Some(last(bucket));
            }
        }
        None
    }

    /// Each bucket's largest number and count, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.known().map(|(bucket, count)| (last(bucket), count))
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

    #[test]
    fn as_text_and_back_and_in_any_order_they_are_the_same() {
        let values = [700, 3, 1 << 40, 0, 3, u64::MAX, 699];
        let (mut buckets, mut backwards) = (Buckets::default(), Buckets::default());
        for value in values {
            buckets.add(value);
        }
        for &value in values.iter().rev() {
            let mut one = Buckets::default();
            one.add(value);
            backwards.merge(&one);
        }
        assert_eq!(buckets, backwards);
        assert_eq!(buckets.count(), values.len() as u64);
        let text = serde_json::to_string(&buckets).unwrap();
        assert_eq!(serde_json::from_str::<Buckets>(&text).unwrap(), buckets);
        // What another program may send.
        let strange: Buckets = serde_json::from_str(r#"{"9":0,"12":1,"65535":2,"40":0}"#).unwrap();
        assert_eq!(strange.iter().collect::<Vec<_>>(), [(12, 1), (u64::MAX, 2)]);
    }
}
