//! What is counted. Counts only: tallies of several pods add up.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::buckets::{Buckets, micros};
use super::moments::Nets;
use super::presence::Presence;
use super::tolerances::LatencyMargin;
use super::trial::{Latency, ReferenceKind, Trial};
use crate::compare::DifferenceKind;

/// Everything that was counted, by endpoint.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Up to where version 2 did not count as slower.
    pub margin: LatencyMargin,
    /// By endpoint; those for which there was no room are in `other` together.
    pub endpoints: BTreeMap<Arc<str>, EndpointTally>,
    /// How long all of them took, by moments.
    pub moments: MomentTally,
    /// Whether version 2 is there, and whether one has stayed; unknown to older sidecars.
    #[serde(default)]
    pub presence: Presence,
}

/// What was counted at one endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndpointTally {
    /// Requests that were judged.
    pub requests: u64,
    /// Those that version 1 failed.
    pub v1_failed: u64,
    /// Those that version 2 failed.
    pub v2_failed: u64,
    /// Those that the control was asked as well.
    pub controlled: u64,
    /// Of these, those that the control failed.
    pub control_failed: u64,
    /// Which of both failed: version 2 or the control; where there is no control, version 2 or version 1.
    pub errors: Pairs,
    /// Requests whose answers were compared: neither version had failed, nor the reference where there is one.
    pub compared: u64,
    /// Of these, those with a reference, be it a control or a repeat.
    pub referenced: u64,
    /// Of these, those whose reference is a repeat.
    pub repeated: u64,
    /// Which differed in a field in which the other did not; only requests with a reference.
    pub any: Pairs,
    /// Requests with a reference that differed in some field.
    #[serde(default)]
    pub any_reference: u64,
    /// Requests without a reference in which version 2 differed in some field.
    #[serde(default)]
    pub any_alone: u64,
    /// By field and kind; those for which there was no room are in `other` together.
    #[serde(with = "fields")]
    pub fields: BTreeMap<Field, FieldTally>,
    /// How long they took.
    pub latency: LatencyTally,
}

/// A field, and how it differs.
pub type Field = (Arc<str>, DifferenceKind);

/// What was counted of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FieldTally {
    /// Requests with a reference: which of version 2 and the reference differed from version 1 there.
    pub pairs: Pairs,
    /// Requests without one in which version 2 differed there.
    pub alone: u64,
}

/// Of pairs that were treated alike, which one something happened to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Pairs {
    /// To version 2 only.
    pub v2: u64,
    /// To the reference only.
    pub reference: u64,
    /// To both.
    pub both: u64,
}

/// How long the answers took.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LatencyTally {
    /// Version 1, in microseconds.
    pub v1: Buckets,
    /// Version 2, in microseconds.
    pub v2: Buckets,
    /// The control, in microseconds.
    pub control: Buckets,
    /// Version 2's latency as a multiple of the reference's to the same request, in thousandths.
    pub ratio: Buckets,
    /// Requests in which version 2 was slower than the reference to the same request with the margin added (`v2`), and those
    /// in which it was not (`reference`).
    pub slower: Pairs,
    /// For p50, p90 and p99 of the reference's latencies so far: which of the two was beyond, version 2 with the margin added.
    pub beyond: [Pairs; 3],
    /// How many requests were held against these.
    pub beyond_tested: u64,
    /// The same by moments.
    pub moments: MomentTally,
}

/// What [`LatencyTally`] counts by requests, by moments: which of the two it happened to more often among all requests that were
/// sent then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MomentTally {
    /// Moments that are over.
    pub over: u64,
    /// See [`LatencyTally::slower`].
    pub slower: Pairs,
    /// See [`LatencyTally::beyond`].
    pub beyond: [Pairs; 3],
    /// How many pods have counted moments: what hits version 2 in one of them may hit it in all.
    pub pods: u64,
}

/// The quantiles of [`LatencyTally::beyond`].
pub(super) const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// The endpoint, and the field, in which everything is counted that found no room.
pub(super) const OTHER: &str = "other";

/// So many endpoints are counted apart.
pub(super) const MOST_ENDPOINTS: usize = 128;

/// So many fields are counted apart at each endpoint.
pub(super) const MOST_FIELDS: usize = 128;

/// Tallies that do not add up.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[error(
    "they were counted with different latency margins ({:?} and {:?}): start every pod with the same --max-slower and \
     --slower-floor", .0, .1
)]
pub struct Mismatch(LatencyMargin, LatencyMargin);

impl Tally {
    /// A tally of nothing.
    #[must_use]
    pub fn new(margin: LatencyMargin) -> Self {
        Self {
            margin,
            endpoints: BTreeMap::new(),
            moments: MomentTally::default(),
            presence: Presence::default(),
        }
    }

    /// Requests that were judged.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.endpoints
            .values()
            .map(|endpoint| endpoint.requests)
            .sum()
    }

    /// Adds what `other` counted. Nothing is bounded here: there are only so many pods.
    ///
    /// # Errors
    /// When the margins differ; then nothing is added.
    pub fn merge(&mut self, other: &Self) -> Result<(), Mismatch> {
        if self.endpoints.is_empty() {
            self.margin = other.margin;
        }
        if self.margin != other.margin && !other.endpoints.is_empty() {
            return Err(Mismatch(self.margin, other.margin));
        }
        for (name, theirs) in &other.endpoints {
            let mine = self.endpoints.entry(Arc::clone(name)).or_default();
            mine.merge(theirs);
        }
        self.moments.merge(&other.moments);
        self.presence.merge(&other.presence);
        Ok(())
    }

    /// The name under which an endpoint is counted: its own, or while there is no room for it that of all the others.
    pub(super) fn counted_as<'a>(&self, name: &'a str) -> &'a str {
        if self.endpoints.len() < MOST_ENDPOINTS || self.endpoints.contains_key(name) {
            name
        } else {
            OTHER
        }
    }
}

impl EndpointTally {
    /// Counts all of a trial but its latency.
    pub(super) fn count(&mut self, trial: &Trial<'_>) {
        self.requests += 1;
        self.v1_failed += u64::from(trial.v1_failed);
        self.v2_failed += u64::from(trial.v2_failed);
        let control = trial
            .reference
            .filter(|reference| reference.kind == ReferenceKind::Control);
        if let Some(control) = control {
            self.controlled += 1;
            self.control_failed += u64::from(control.failed);
        }
        let reference_failed = control.map_or(trial.v1_failed, |control| control.failed);
        self.errors.count(trial.v2_failed, reference_failed);

        // What failed has no answer to compare. That leaves version 2 and its reference exchangeable: they are treated alike.
        if trial.v1_failed || trial.v2_failed || control.is_some_and(|control| control.failed) {
            return;
        }
        self.compared += 1;
        let reference = trial.reference.filter(|reference| !reference.failed);
        let Some(reference) = reference else {
            self.any_alone += u64::from(!trial.differing.is_empty());
            self.count_alone(trial.differing);
            return;
        };
        self.referenced += 1;
        self.any_reference += u64::from(!reference.differing.is_empty());
        self.repeated += u64::from(reference.kind == ReferenceKind::Repeat);
        if !trial.differing.is_empty() || !reference.differing.is_empty() {
            self.count_pairs(trial.differing, reference.differing);
        }
    }

    fn count_alone(&mut self, differing: &[Field]) {
        let mut others = false;
        for field in differing {
            match self.field_mut(field) {
                Some(tally) => tally.alone += 1,
                None => others = true,
            }
        }
        if others {
            self.others_mut().alone += 1;
        }
    }

    fn count_pairs(&mut self, v2: &[Field], reference: &[Field]) {
        let mut v2: Vec<&Field> = v2.iter().collect();
        let mut reference: Vec<&Field> = reference.iter().collect();
        v2.sort_unstable();
        reference.sort_unstable();
        let (mut any, mut others) = ([false; 2], [false; 2]);
        let mut note = |field: &Field, of_v2: bool, of_reference: bool| {
            any[0] |= of_v2 && !of_reference;
            any[1] |= of_reference && !of_v2;
            if let Some(tally) = self.field_mut(field) {
                tally.pairs.count(of_v2, of_reference);
            } else {
                others[0] |= of_v2;
                others[1] |= of_reference;
            }
        };
        for field in &v2 {
            note(field, true, reference.binary_search(field).is_ok());
        }
        for field in &reference {
            if v2.binary_search(field).is_err() {
                note(field, false, true);
            }
        }
        self.any.count(any[0], any[1]);
        if others != [false; 2] {
            self.others_mut().pairs.count(others[0], others[1]);
        }
    }

    /// `None` when there is no room.
    fn field_mut(&mut self, field: &Field) -> Option<&mut FieldTally> {
        if !self.fields.contains_key(field) && self.fields.len() >= MOST_FIELDS {
            return None;
        }
        Some(self.fields.entry(field.clone()).or_default())
    }

    fn others_mut(&mut self) -> &mut FieldTally {
        let other = (Arc::from(OTHER), DifferenceKind::Value);
        self.fields.entry(other).or_default()
    }

    fn merge(&mut self, other: &Self) {
        let Self {
            requests,
            v1_failed,
            v2_failed,
            controlled,
            control_failed,
            errors,
            compared,
            referenced,
            repeated,
            any,
            any_reference,
            any_alone,
            fields,
            latency,
        } = self;
        *requests += other.requests;
        *v1_failed += other.v1_failed;
        *v2_failed += other.v2_failed;
        *controlled += other.controlled;
        *control_failed += other.control_failed;
        errors.merge(&other.errors);
        *compared += other.compared;
        *referenced += other.referenced;
        *repeated += other.repeated;
        any.merge(&other.any);
        *any_reference += other.any_reference;
        *any_alone += other.any_alone;
        for (field, theirs) in &other.fields {
            let mine = fields.entry(field.clone()).or_default();
            mine.pairs.merge(&theirs.pairs);
            mine.alone += theirs.alone;
        }
        latency.merge(&other.latency);
    }
}

impl Pairs {
    pub(super) const fn count(&mut self, to_v2: bool, to_reference: bool) {
        match (to_v2, to_reference) {
            (true, true) => self.both += 1,
            (true, false) => self.v2 += 1,
            (false, true) => self.reference += 1,
            (false, false) => {}
        }
    }

    const fn merge(&mut self, other: &Self) {
        self.v2 += other.v2;
        self.reference += other.reference;
        self.both += other.both;
    }
}

impl MomentTally {
    /// Counts a moment that is over; the first of `nets` says who was slower, the others who was beyond.
    pub(super) fn count(&mut self, nets: Nets) {
        self.over += 1;
        self.pods = self.pods.max(1);
        let all = [&mut self.slower].into_iter().chain(&mut self.beyond);
        for (pairs, net) in all.zip(nets) {
            pairs.count(net > 0, net < 0);
        }
    }

    const fn merge(&mut self, other: &Self) {
        let Self {
            over,
            slower,
            beyond: [half, tenth, hundredth],
            pods,
        } = self;
        *over += other.over;
        slower.merge(&other.slower);
        half.merge(&other.beyond[0]);
        tenth.merge(&other.beyond[1]);
        hundredth.merge(&other.beyond[2]);
        *pods += other.pods;
    }
}

impl LatencyTally {
    /// Counts it, all but the moment; what it adds to this is the result.
    pub(super) fn count(
        &mut self,
        latency: Latency,
        control: Option<std::time::Duration>,
        thresholds: &mut Thresholds,
        margin: &LatencyMargin,
    ) -> Nets {
        let net = |v2: bool, reference: bool| i32::from(v2) - i32::from(reference);
        let mut nets = Nets::default();
        let v1 = micros(latency.v1);
        let v2 = micros(latency.v2);
        // The control takes the same way as version 2 and is measured like it.
        let reference = control.map_or(v1, micros);
        let margin = match control {
            Some(_) => *margin,
            None => margin.without_control(),
        };
        if let Some(limits) = thresholds.limits {
            self.beyond_tested += 1;
            for (at, (pairs, limit)) in self.beyond.iter_mut().zip(limits).enumerate() {
                let beyond = (v2 > margin.beyond(limit), reference > limit);
                pairs.count(beyond.0, beyond.1);
                nets[at + 1] = net(beyond.0, beyond.1);
            }
        }
        thresholds.add(reference);
        self.v1.add(v1);
        self.v2.add(v2);
        if control.is_some() {
            self.control.add(reference);
        }
        self.ratio.add(v2.saturating_mul(1000) / reference.max(1));
        let slower = v2 > margin.beyond(reference);
        self.slower.count(slower, !slower);
        nets[0] = net(slower, !slower);
        nets
    }

    fn merge(&mut self, other: &Self) {
        self.v1.merge(&other.v1);
        self.v2.merge(&other.v2);
        self.control.merge(&other.control);
        self.ratio.merge(&other.ratio);
        self.slower.merge(&other.slower);
        for (mine, theirs) in self.beyond.iter_mut().zip(&other.beyond) {
            mine.merge(theirs);
        }
        self.beyond_tested += other.beyond_tested;
        self.moments.merge(&other.moments);
    }
}

/// The quantiles of the reference's latencies so far. They come from the past alone, so the request that is held against
/// them has had no say in them.
#[derive(Clone, Debug, Default)]
pub(super) struct Thresholds {
    seen: Buckets,
    count: u64,
    /// For the next request; none while too little was seen.
    limits: Option<[u64; 3]>,
    renew_at: u64,
}

impl Thresholds {
    fn add(&mut self, micros: u64) {
        self.seen.add(micros);
        self.count += 1;
        if self.count >= self.renew_at.max(FIRST_LIMITS) {
            let quantile = |q| self.seen.quantile(q).unwrap_or(u64::MAX);
            self.limits = Some(QUANTILES.map(quantile));
            // Each time that a twentieth more was seen.
            self.renew_at = self.count + self.count.div_ceil(20);
        }
    }
}

/// Limits are known from so many requests on. Any limit is a fair one; this is for their use, not for their validity.
const FIRST_LIMITS: u64 = 20;

/// Fields as a list, since JSON has texts alone for keys.
mod fields {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{DifferenceKind, Field, FieldTally};

    #[derive(Serialize, Deserialize)]
    struct Entry {
        field: Arc<str>,
        kind: DifferenceKind,
        #[serde(flatten)]
        tally: FieldTally,
    }

    pub(super) fn serialize<S: Serializer>(
        fields: &BTreeMap<Field, FieldTally>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(fields.iter().map(|((field, kind), &tally)| Entry {
            field: Arc::clone(field),
            kind: *kind,
            tally,
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Field, FieldTally>, D::Error> {
        let entries = Vec::<Entry>::deserialize(deserializer)?;
        Ok(entries
            .into_iter()
            .map(|entry| ((entry.field, entry.kind), entry.tally))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Judge, Reference};
    use crate::time::Timestamp;

    fn field(name: &str) -> Field {
        (Arc::from(name), DifferenceKind::Value)
    }

    #[test]
    fn each_field_of_a_request_is_counted_by_who_differs_there() {
        let mut judge = Judge::new(LatencyMargin::default());
        let trial = Trial {
            endpoint: "GET /",
            differing: &[field("c"), field("a")],
            v1_failed: false,
            v2_failed: false,
            latency: None,
            reference: Some(Reference {
                kind: ReferenceKind::Control,
                differing: &[field("b"), field("a")],
                failed: false,
                latency: None,
            }),
        };
        judge.add(&trial);
        judge.add(&Trial {
            reference: None,
            ..trial
        });
        let endpoint = &judge.tally().endpoints["GET /"];
        let pairs = |v2, reference, both| Pairs {
            v2,
            reference,
            both,
        };
        let counted: Vec<_> = endpoint
            .fields
            .iter()
            .map(|((name, _), it)| (&**name, it.pairs, it.alone))
            .collect();
        assert_eq!(
            counted,
            [
                ("a", pairs(0, 0, 1), 1),
                ("b", pairs(0, 1, 0), 0),
                ("c", pairs(1, 0, 0), 1)
            ]
        );
        assert_eq!(endpoint.any, pairs(0, 0, 1));
        assert_eq!((endpoint.requests, endpoint.compared), (2, 2));
        assert_eq!((endpoint.referenced, endpoint.repeated), (1, 0));
        assert_eq!((endpoint.any_reference, endpoint.any_alone), (1, 1));
    }

    #[test]
    fn what_failed_is_an_error_and_not_a_difference() {
        let failures = [
            (
                (false, true, Some(false)),
                Pairs {
                    v2: 1,
                    reference: 0,
                    both: 0,
                },
            ),
            (
                (false, true, Some(true)),
                Pairs {
                    v2: 0,
                    reference: 0,
                    both: 1,
                },
            ),
            (
                (false, false, Some(true)),
                Pairs {
                    v2: 0,
                    reference: 1,
                    both: 0,
                },
            ),
            ((true, false, Some(false)), Pairs::default()),
            (
                (true, false, None),
                Pairs {
                    v2: 0,
                    reference: 1,
                    both: 0,
                },
            ),
            (
                (false, true, None),
                Pairs {
                    v2: 1,
                    reference: 0,
                    both: 0,
                },
            ),
        ];
        for ((v1_failed, v2_failed, control_failed), errors) in failures {
            let differing = [field("status")];
            let mut endpoint = EndpointTally::default();
            endpoint.count(&Trial {
                endpoint: "GET /",
                differing: &differing,
                v1_failed,
                v2_failed,
                latency: None,
                reference: control_failed.map(|failed| Reference {
                    kind: ReferenceKind::Control,
                    differing: &[],
                    failed,
                    latency: None,
                }),
            });
            let case = (v1_failed, v2_failed, control_failed);
            assert_eq!(endpoint.errors, errors, "{case:?}");
            assert_eq!(endpoint.compared, 0, "{case:?}");
            assert_eq!(endpoint.fields.len(), 0, "{case:?}");
        }
    }

    #[test]
    fn endpoints_and_fields_are_bounded() {
        let mut judge = Judge::new(LatencyMargin::default());
        for number in 0..300 {
            let endpoint = format!("GET /{number}");
            let differing = [field("status"), field(&endpoint)];
            for endpoint in ["GET /", &*endpoint] {
                judge.add(&Trial {
                    endpoint,
                    differing: &differing,
                    v1_failed: false,
                    v2_failed: false,
                    latency: None,
                    reference: None,
                });
            }
        }
        let endpoints = &judge.tally().endpoints;
        assert_eq!(endpoints.len(), MOST_ENDPOINTS + 1);
        assert_eq!(judge.tally().requests(), 600);
        assert_eq!(endpoints[OTHER].requests, 600 - 300 - 127);
        let fields = &endpoints["GET /"].fields;
        assert_eq!(fields.len(), MOST_FIELDS + 1);
        assert_eq!(fields[&field(OTHER)].alone, 300 - 127);
        assert_eq!(fields[&field("status")].alone, 300);
    }

    #[test]
    fn a_tally_survives_json() {
        let mut judge = Judge::new(LatencyMargin::default());
        let millis = std::time::Duration::from_millis;
        for number in 0..50 {
            judge.add(&Trial {
                endpoint: "GET /",
                differing: &[field("body.price")],
                v1_failed: false,
                v2_failed: number % 7 == 0,
                latency: Some(Latency {
                    v1: millis(number),
                    v2: millis(2 * number),
                    sent: Timestamp::from_secs_nanos(number, 0),
                }),
                reference: None,
            });
        }
        let text = serde_json::to_string(judge.tally()).expect("serialised");
        let back: Tally = serde_json::from_str(&text).expect("parsed");
        assert_eq!(&back, judge.tally(), "{text}");
    }

    #[test]
    fn different_margins_do_not_add_up() {
        let mut judge = Judge::new(LatencyMargin {
            stretch: 0.5,
            ..LatencyMargin::default()
        });
        judge.add(&Trial {
            endpoint: "GET /",
            differing: &[],
            v1_failed: false,
            v2_failed: false,
            latency: None,
            reference: None,
        });
        let mut sum = Tally::default();
        assert_eq!(sum.merge(judge.tally()), Ok(()));
        assert_eq!(&sum, judge.tally());
        let other = Judge::new(LatencyMargin::default());
        assert_eq!(sum.merge(other.tally()), Ok(()), "it counted nothing");
        let mut nothing = other.tally().clone();
        nothing
            .endpoints
            .insert(Arc::from("GET /"), EndpointTally::default());
        assert!(sum.merge(&nothing).is_err());
        assert_eq!(&sum, judge.tally());
    }
}
