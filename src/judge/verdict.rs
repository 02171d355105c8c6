//! What the judge says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::presence::Presence;
use super::tolerances::Tolerances;
use super::trial::ReferenceKind;
use crate::compare::DifferenceKind;

/// What is to be done with version 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It is ready: everything that was asked of it is shown.
    Promote,
    /// It is worse than version 1 in something.
    Reject,
    /// Neither is shown yet.
    Continue,
}

impl Decision {
    /// The stable name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Reject => "reject",
            Self::Continue => "continue",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The verdict, with everything that it rests on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Always true: there is a verdict. What asks for it needs something to test before it looks at the rest.
    pub ok: bool,
    /// What is to be done.
    pub verdict: Decision,
    /// The share of the traffic that was judged, from 0 to 1; of a run that goes on, of the latest half of the traffic.
    pub completeness: f64,
    /// Requests that should have been judged before that half began, which [`Self::completeness`] says nothing about.
    #[serde(default)]
    pub earlier: u64,
    /// Requests that were judged.
    pub requests: u64,
    /// How many more requests it takes until version 2 can be promoted, if they are spread over the endpoints and go like
    /// those so far. `None` when that will never be; 0 when nothing more is needed.
    pub needs: Option<u64>,
    /// Why, in plain words, the most important first.
    pub reasons: Vec<String>,
    /// What noise was measured with, at one endpoint at least. Empty: with nothing, so that noise beyond the tolerances cannot
    /// be told from a difference.
    pub noise: Vec<ReferenceKind>,
    /// Requests that should have been judged and were not, by reason.
    pub lost: BTreeMap<String, u64>,
    /// Whether version 2 is there, and whether one that came back has stayed.
    #[serde(default)]
    pub presence: Presence,
    /// How much worse version 2 may be.
    pub tolerances: Tolerances,
    /// Over all endpoints: how much more often version 2 failed.
    pub errors: Excess,
    /// Over all endpoints: how much more often version 2 was beyond its reference's p99 with the margin added.
    pub slow: Option<Excess>,
    /// By endpoint, the most worrying first.
    pub endpoints: Vec<EndpointVerdict>,
}

/// How an endpoint stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Version 2 is worse in something.
    Worse,
    /// Not shown to be good enough yet.
    Open,
    /// Too few requests, so that even without any difference nothing would be shown.
    Uncovered,
    /// Good enough.
    Good,
}

/// One endpoint.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EndpointVerdict {
    /// Such as `GET /orders/{id}`.
    pub endpoint: Arc<str>,
    /// How it stands.
    pub standing: Standing,
    /// Requests that were judged.
    pub requests: u64,
    /// How many more it takes until it is good enough; `None` when that will never be.
    pub needs: Option<u64>,
    /// What noise was measured with; `None`: with nothing.
    pub noise: Option<ReferenceKind>,
    /// Requests that version 1, version 2 and the control failed.
    pub failed: Failed,
    /// How much more often version 2 failed.
    pub errors: Excess,
    /// How much more often version 2's answers differed in something.
    pub differences: Excess,
    /// The requests without a reference, which are not in [`Self::differences`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreferenced: Option<Unreferenced>,
    /// The fields that differ, those with the most evidence first.
    pub fields: Vec<FieldVerdict>,
    /// How long answers took, where that was measured.
    pub latency: Option<LatencyVerdict>,
    /// What is wrong, or missing, in plain words.
    pub reasons: Vec<String>,
}

/// Requests that were failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failed {
    /// By version 1.
    pub v1: u64,
    /// By version 2.
    pub v2: u64,
    /// By the control, where there is one.
    pub control: Option<u64>,
}

/// How much more often something happened to version 2 than to its reference, as a share of the requests.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Excess {
    /// Requests in which it happened to version 2 only.
    pub v2: u64,
    /// Requests in which it happened to the reference only.
    pub reference: u64,
    /// Of so many requests.
    pub of: u64,
    /// The difference of the two, as a share.
    pub rate: f64,
    /// It is more than this,
    pub low: f64,
    /// and less than that, at all looks together, but for a chance of alpha at either end.
    pub high: f64,
    /// How much speaks for more than is allowed: the decimal logarithm of the evidence.
    pub evidence: f64,
    /// Whether it is shown to be more than is allowed.
    pub beyond: bool,
    /// Of latencies, what the evidence is made of: requests of one moment are one observation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moments: Option<InMoments>,
}

/// Moments in which something happened to more of the requests to the one than of those to the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InMoments {
    /// To version 2.
    pub v2: u64,
    /// To the reference.
    pub reference: u64,
    /// Of so many.
    pub of: u64,
}

/// Requests without a reference, held against those with one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unreferenced {
    /// Requests without a reference in which version 2 differed.
    pub v2: u64,
    /// Of so many.
    pub of: u64,
    /// Requests with a reference in which that differed.
    pub reference: u64,
    /// Of so many.
    pub reference_of: u64,
}

/// A field that differs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FieldVerdict {
    /// Such as `body.items[].price`.
    pub field: Arc<str>,
    /// In which way.
    pub kind: DifferenceKind,
    /// How much more often it differed.
    pub excess: Excess,
    /// The requests without a reference, which are not in [`Self::excess`]. Where there are too few references for the other
    /// requests to speak for all, and the field is noisy, they are in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreferenced: Option<Unreferenced>,
    /// Whether noise alone is refuted; a difference may be real and within what is allowed.
    pub real: bool,
    /// Whether it does not hold the promotion, since version 1 differs from itself there, and there are too few references to say
    /// how often.
    pub noisy: bool,
}

/// How long answers took at an endpoint. Times are in microseconds, at p50, p90 and p99.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LatencyVerdict {
    /// Version 1.
    pub v1: [u64; 3],
    /// Version 2.
    pub v2: [u64; 3],
    /// The control, where there is one.
    pub control: Option<[u64; 3]>,
    /// The median of version 2's latency as a multiple of the reference's to the same request.
    pub ratio: f64,
    /// Between which ends this median is, at all looks together, but for a chance of alpha at either; the buckets' width is
    /// in it. `None`: nobody knows how large it may be.
    pub ratio_low: f64,
    /// See [`Self::ratio_low`].
    pub ratio_high: Option<f64>,
    /// How much more often version 2 was beyond the reference's p50, p90 and p99 with the margin added.
    pub beyond: [Excess; 3],
    /// How much more often version 2 was slower than the reference to the same request, with the margin added, than not.
    pub slower: Excess,
}
