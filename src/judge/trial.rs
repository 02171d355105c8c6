//! What the judge is told of one request.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::compare::DifferenceKind;
use crate::time::Timestamp;

/// One judged request: version 1's answer against version 2's, and against a reference where there is one.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// The endpoint, as in `GET /orders/{id}`.
    pub endpoint: &'a str,
    /// Where version 2's answer differs from version 1's, each field and kind once, in any order. Empty when there is nothing
    /// to compare because one of them failed.
    pub differing: &'a [(Arc<str>, DifferenceKind)],
    /// Whether version 1 failed: a status of 5xx, or no whole answer within its deadline.
    pub v1_failed: bool,
    /// Whether version 2 failed, likewise.
    pub v2_failed: bool,
    /// How long both took; `None` where that was not measured of both, or one of them failed.
    pub latency: Option<Latency>,
    /// How version 1 differs from itself on this very request, if that is known.
    pub reference: Option<Reference<'a>>,
}

/// How long both versions took for one request, the network's share taken off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latency {
    /// Version 1.
    pub v1: Duration,
    /// Version 2.
    pub v2: Duration,
    /// When version 2 was asked: what is asked at the same moment is slow together.
    pub sent: Timestamp,
}

/// How version 1 differs from itself on one request: the measure of noise.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// Where it comes from.
    pub kind: ReferenceKind,
    /// Where its answer differs from version 1's, as in [`Trial::differing`].
    pub differing: &'a [(Arc<str>, DifferenceKind)],
    /// Whether it failed. A control that was asked and did not answer has failed; leaving it out instead would hide that
    /// copies of version 1 fail as well.
    pub failed: bool,
    /// How long the control took, the network's share taken off; `None` for a repeat, which took another way.
    pub latency: Option<Duration>,
}

/// Where a reference comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceKind {
    /// The same safe request that version 1 got again within seconds.
    Repeat,
    /// A second copy of version 1, which gets the same replays as version 2, in random order with it.
    Control,
}
