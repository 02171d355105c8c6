//! How much worse version 2 may be.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::buckets::micros;

/// How much worse version 2 may be, and how sure the verdict is to be. Shares are from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tolerances {
    /// The chance of rejecting a version 2 that is as good as version 1, over all fields, endpoints and looks together; and
    /// the chance of promoting one that is worse than allowed in any one thing.
    pub alpha: f64,
    /// An endpoint, and each field in it, may differ in this share of the requests more than version 1 from itself.
    pub max_difference: f64,
    /// Version 2 may fail in this share of all requests more than version 1.
    pub max_errors: f64,
    /// So many more of version 2's answers may be slower than version 1's p50, p90 and p99 with the margin added.
    pub max_slow: f64,
    /// Below this share of judged requests the verdict is to continue.
    pub min_completeness: f64,
    /// Whether endpoints with too few requests hold the promotion up.
    pub allow_uncovered: bool,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self {
            alpha: 0.05,
            max_difference: 0.01,
            max_errors: 0.002,
            max_slow: 0.025,
            min_completeness: 0.99,
            allow_uncovered: false,
        }
    }
}

impl Tolerances {
    /// Of each the one that allows less.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        Self {
            alpha: self.alpha.min(other.alpha),
            max_difference: self.max_difference.min(other.max_difference),
            max_errors: self.max_errors.min(other.max_errors),
            max_slow: self.max_slow.min(other.max_slow),
            min_completeness: self.min_completeness.max(other.min_completeness),
            allow_uncovered: self.allow_uncovered && other.allow_uncovered,
        }
    }
}

/// Up to where version 2 does not count as slower than version 1: `latency × (1 + stretch) + floor`.
///
/// It is part of what is counted, so tallies with different margins do not add up.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct LatencyMargin {
    /// A share of version 1's latency.
    pub stretch: f64,
    /// A time beyond that, since short latencies are measured less exactly than long ones.
    pub floor_micros: u64,
}

impl LatencyMargin {
    /// `micros` of version 1, with the margin added.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "latencies are far below 2^52 µs, and a product that is not saturates"
    )]
    pub fn beyond(&self, micros: u64) -> u64 {
        let stretched = micros as f64 * (1.0 + self.stretch);
        (stretched as u64).saturating_add(self.floor_micros)
    }

    /// The margin where there is no control. Version 1's latency comes from packets then, and version 2's from a connection
    /// of this program's, which sends what came within a millisecond at once: on a busy machine version 2 waits for a processor
    /// for longer than version 1 did.
    #[must_use]
    pub fn without_control(self) -> Self {
        Self {
            floor_micros: self.floor_micros.saturating_mul(5),
            ..self
        }
    }

    /// With that floor.
    #[must_use]
    pub fn with_floor(self, floor: Duration) -> Self {
        Self {
            floor_micros: micros(floor),
            ..self
        }
    }
}

impl Default for LatencyMargin {
    fn default() -> Self {
        Self {
            stretch: 0.1,
            floor_micros: 1000,
        }
    }
}
