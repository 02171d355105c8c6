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
mod moments;
mod presence;
mod tally;
mod tolerances;
mod trial;
mod verdict;
mod weigh;
mod words;

use std::sync::Arc;

use ahash::AHashMap;

pub use buckets::Buckets;
pub use completeness::{Completeness, Recent};
pub use docket::Docket;
pub use presence::{Absence, Presence};
pub use tally::{
    EndpointTally, Field, FieldTally, LatencyTally, Mismatch, MomentTally, Pairs, Tally,
};
pub use tolerances::{LatencyMargin, Tolerances};
pub use trial::{Latency, Reference, ReferenceKind, Trial};
pub use verdict::{
    Decision, EndpointVerdict, Excess, Failed, FieldVerdict, InMoments, LatencyVerdict, Standing,
    Unreferenced, Verdict,
};
pub use weigh::{Decider, verdict};

use self::moments::Moments;
use self::tally::Thresholds;

/// Takes trials one after the other and counts what they say.
#[derive(Clone, Debug)]
pub struct Judge {
    tally: Tally,
    timings: AHashMap<Arc<str>, Timing>,
    /// Of all endpoints together.
    moments: Moments,
    /// The tick in which the latest request was sent.
    newest: u64,
}

/// What the judge keeps of an endpoint's latencies beside the counts.
#[derive(Clone, Debug, Default)]
struct Timing {
    thresholds: Thresholds,
    moments: Moments,
}

impl Judge {
    /// A judge who has seen nothing, and takes version 2 for slower only beyond `margin`.
    #[must_use]
    pub fn new(margin: LatencyMargin) -> Self {
        Self {
            tally: Tally::new(margin),
            timings: AHashMap::new(),
            moments: Moments::default(),
            newest: 0,
        }
    }

    /// Takes in one request.
    pub fn add(&mut self, trial: &Trial<'_>) {
        let margin = self.tally.margin;
        let name = self.tally.counted_as(trial.endpoint);
        let endpoint = match self.tally.endpoints.get_mut(name) {
            Some(known) => known,
            None => self.tally.endpoints.entry(Arc::from(name)).or_default(),
        };
        endpoint.count(trial);
        if let Some(latency) = trial.latency {
            let control = trial.reference.as_ref().and_then(|it| it.latency);
            let timing = match self.timings.get_mut(name) {
                Some(known) => known,
                None => self.timings.entry(Arc::from(name)).or_default(),
            };
            let thresholds = &mut timing.thresholds;
            let nets = endpoint
                .latency
                .count(latency, control, thresholds, &margin);
            let slowest = latency.v2.max(control.unwrap_or(latency.v1));
            let sent = moments::tick(latency.sent);
            let lasted = moments::ticks(latency.sent, slowest);
            timing.moments.add(sent, lasted, nets);
            self.moments.add(sent, lasted, nets);
            if sent > self.newest {
                self.newest = sent;
                self.close(sent);
            }
        }
    }

    /// Nothing more comes: what was sent last counts as well.
    pub fn finish(&mut self) {
        self.close(u64::MAX);
    }

    fn close(&mut self, newest: u64) {
        self.moments.close(newest, &mut self.tally.moments);
        for (name, timing) in &mut self.timings {
            if let Some(endpoint) = self.tally.endpoints.get_mut(name) {
                timing.moments.close(newest, &mut endpoint.latency.moments);
            }
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
