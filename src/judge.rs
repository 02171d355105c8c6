//! Whether version 2 is ready, from pairs of answers to the same request: promote, reject, or continue.
//!
//! ```text
//!  Trial ──► Judge::add ──► Tally (counts; those of several pods add up) ──► verdict(Tally, Tolerances, Completeness)
//! ```
//!
//! The verdict may be asked for after every request, and acted on the first time that it decides: what it promises holds at
//! all looks together. `docs/verdict.md` has the promises and their limits.

mod buckets;
mod completeness;
mod docket;
mod evidence;
mod tally;
mod tolerances;
mod trial;
mod verdict;
mod weigh;
mod words;

use std::sync::Arc;

use ahash::AHashMap;

pub use buckets::Buckets;
pub use completeness::Completeness;
pub use docket::Docket;
pub use tally::{EndpointTally, Field, FieldTally, LatencyTally, Mismatch, Pairs, Tally};
pub use tolerances::{LatencyMargin, Tolerances};
pub use trial::{Latency, Reference, ReferenceKind, Trial};
pub use verdict::{
    Decision, EndpointVerdict, Excess, Failed, FieldVerdict, LatencyVerdict, Standing,
    Unreferenced, Verdict,
};
pub use weigh::{decision, verdict};

use self::tally::Thresholds;

/// Takes trials one after the other and counts what they say.
#[derive(Clone, Debug)]
pub struct Judge {
    tally: Tally,
    thresholds: AHashMap<Arc<str>, Thresholds>,
}

impl Judge {
    /// A judge who has seen nothing, and takes version 2 for slower only beyond `margin`.
    #[must_use]
    pub fn new(margin: LatencyMargin) -> Self {
        Self {
            tally: Tally::new(margin),
            thresholds: AHashMap::new(),
        }
    }

    /// Takes in one request.
    pub fn add(&mut self, trial: &Trial<'_>) {
        let margin = self.tally.margin;
        let (name, endpoint) = self.tally.endpoint_mut(trial.endpoint);
        endpoint.count(trial);
        if let Some(latency) = trial.latency {
            let control = trial.reference.as_ref().and_then(|it| it.latency);
            let thresholds = self.thresholds.entry(name).or_default();
            endpoint
                .latency
                .count(latency, control, thresholds, &margin);
        }
    }

    /// Forgets everything: what was version 2 is another program now.
    pub fn clear(&mut self) {
        *self = Self::new(self.tally.margin);
    }

    /// What was counted so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }
}
