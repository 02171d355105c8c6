//! From counts to the verdict.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::buckets::Buckets;
use super::completeness::Completeness;
use super::evidence::{Apart, Bets, Counts, Growth, family, float, interval, least, mean};
use super::tally::{
    EndpointTally, Field, FieldTally, LatencyTally, MOST_ENDPOINTS, MOST_FIELDS, MomentTally,
    Pairs, QUANTILES, Tally,
};
use super::tolerances::Tolerances;
use super::trial::ReferenceKind;
use super::verdict::{
    Decision, EndpointVerdict, Excess, Failed, FieldVerdict, InMoments, LatencyVerdict, Standing,
    Unreferenced, Verdict,
};
use super::words;

/// What `tally` says, held against `tolerances`.
///
/// Three families of claims share `alpha` evenly: differences, errors, latency. Whatever is refuted in one of them rejects
/// version 2. A promotion needs each claim of its own to be shown, each at `alpha`: whatever version 2 is worse in than
/// is allowed has to get past the test of that very thing.
#[must_use]
pub fn verdict(tally: &Tally, tolerances: &Tolerances, completeness: &Completeness) -> Verdict {
    Scales::new(tolerances, true).verdict(tally, completeness)
}

/// Makes decisions alone, without what explains them: much cheaper.
pub struct Decider(Scales);

impl Decider {
    /// One that allows this.
    #[must_use]
    pub fn new(tolerances: &Tolerances) -> Self {
        Self(Scales::new(tolerances, false))
    }

    /// What [`verdict`] decides.
    #[must_use]
    pub fn decision(&self, tally: &Tally, completeness: &Completeness) -> Decision {
        self.0.verdict(tally, completeness).verdict
    }
}

/// The tests, ready to be used.
struct Scales {
    tolerances: Tolerances,
    /// Whether what only explains is computed as well.
    explains: bool,
    /// Natural logarithm of the evidence that shows a claim at `alpha`.
    target: f64,
    /// Requests that an endpoint needs when nothing ever differs.
    least: u64,
    differs: Test,
    fails: Test,
    /// Any excess beyond the margin is more than nothing: the margin is what is allowed.
    slow: Test,
    slowest: Test,
    endpoint_fails: Test,
    no_noise: Bets,
}

/// Both directions of a test: too bad, and good enough.
struct Test {
    bad: Bets,
    good: Bets,
    /// Less evidence of too bad refutes nothing, so that it need not be known exactly; see [`Growth::least`].
    least: f64,
}

impl Test {
    /// Too bad is more than `most`, good enough is less than `enough`.
    fn new(most: f64, enough: f64, least: f64) -> Self {
        Self {
            bad: Bets::against_at_most(most),
            good: Bets::against_at_least(enough),
            least,
        }
    }

    /// The decimal logarithm of what speaks for too bad.
    fn evidence(&self, counts: &Counts) -> f64 {
        self.bad.log_from(self.least, counts) / std::f64::consts::LN_10
    }
}

/// The three families of claims, and how many claims there may be in each.
const DIFFERING: Growth = Growth::to((MOST_ENDPOINTS + 1) * (MOST_FIELDS + 2));
const FAILING: Growth = Growth::to(MOST_ENDPOINTS + 2);
const SLOWER: Growth = Growth::to(4 * (MOST_ENDPOINTS + 1) + 1);

/// The share of `alpha` that each of them has.
const FAMILIES: f64 = 3.0;

/// What is known of an endpoint's noise.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Basis {
    /// Requests with a reference are enough to go by.
    Pairs(ReferenceKind),
    /// Version 2's differences are all there is.
    Alone,
}

impl Basis {
    const fn is_pairs(self) -> bool {
        matches!(self, Self::Pairs(_))
    }
}

impl Unreferenced {
    /// Without so many of the ups: see [`Counts::without`].
    fn counts(&self, selected: u64) -> Apart {
        Apart {
            v2: Counts::new(self.v2, 0, self.of).without(selected),
            reference: Counts::new(self.reference, 0, self.reference_of),
        }
    }
}

/// The requests of an endpoint without a reference, where there are both sorts: in `alone` of them version 2 differed, and in
/// `of_reference` of the others the reference did.
fn unreferenced(endpoint: &EndpointTally, alone: u64, of_reference: u64) -> Option<Unreferenced> {
    let of = endpoint.compared.saturating_sub(endpoint.referenced);
    (of > 0).then_some(Unreferenced {
        v2: alone,
        of,
        reference: of_reference,
        reference_of: endpoint.referenced,
    })
}

const fn counts(excess: &Excess) -> Counts {
    Counts::new(excess.v2, excess.reference, excess.of)
}

/// So often a field has to differ to be looked at.
const FIRST: u64 = 1;

impl Scales {
    fn new(tolerances: &Tolerances, explains: bool) -> Self {
        let Tolerances {
            alpha,
            max_difference,
            max_errors,
            max_slow,
            ..
        } = *tolerances;
        let target = -alpha.ln();
        let least = |family: Growth| {
            if explains {
                f64::NEG_INFINITY
            } else {
                family.least(alpha / FAMILIES)
            }
        };
        let differs = Test::new(max_difference, max_difference, least(DIFFERING));
        let covered = differs.good.needs(&Counts::default(), target);
        Self {
            tolerances: *tolerances,
            explains,
            target,
            least: covered.unwrap_or(u64::MAX),
            differs,
            fails: Test::new(max_errors, max_errors, least(FAILING)),
            slow: Test::new(0.0, max_slow, least(SLOWER)),
            // One answer in a hundred is beyond p99, so less of an excess is a great deal there.
            slowest: Test::new(0.0, max_slow / 5.0, least(SLOWER)),
            endpoint_fails: Test::new(max_errors, max_errors.max(max_difference), least(FAILING)),
            no_noise: Bets::against_at_most(0.0),
        }
    }

    fn verdict(&self, tally: &Tally, completeness: &Completeness) -> Verdict {
        let mut endpoints: Vec<_> = tally
            .endpoints
            .iter()
            .map(|(name, endpoint)| self.endpoint(name, endpoint))
            .collect();
        let mut errors = self.all_errors(tally);
        let mut slow = self.all_slow(tally);
        self.refute(&mut endpoints, &mut errors, slow.as_mut());
        for endpoint in &mut endpoints {
            let compared = tally.endpoints[&endpoint.endpoint].compared;
            endpoint.standing = self.standing(endpoint, compared);
        }
        let requests = tally.requests();
        let presence = tally.presence;
        let needs = self.needs(tally, &endpoints, &errors, slow.as_ref());
        let needs = at_least(needs, Some(presence.missing));
        let is_bad = endpoints.iter().any(|it| it.standing == Standing::Worse)
            || errors.beyond
            || slow.is_some_and(|it| it.beyond);
        let share = completeness.share();
        let enough = self.tolerances.min_completeness;
        let decision = if is_bad && completeness.share_but_for_version_2() >= enough {
            Decision::Reject
        } else if !is_bad && share >= enough && needs == Some(0) && !presence.holds() {
            Decision::Promote
        } else {
            Decision::Continue
        };
        let noise: BTreeSet<_> = endpoints.iter().filter_map(|it| it.noise).collect();
        let mut verdict = Verdict {
            ok: true,
            verdict: decision,
            completeness: share,
            earlier: completeness.earlier,
            requests,
            needs,
            reasons: Vec::new(),
            noise: noise.into_iter().collect(),
            lost: completeness.lost.clone(),
            presence,
            tolerances: self.tolerances,
            errors,
            slow,
            endpoints,
        };
        if self.explains {
            verdict
                .endpoints
                .sort_by(|a, b| concern(b).total_cmp(&concern(a)));
            words::explain(&mut verdict, self.least);
        }
        verdict
    }

    fn endpoint(&self, name: &Arc<str>, tally: &EndpointTally) -> EndpointVerdict {
        let basis = self.basis(tally);
        let mut fields: Vec<_> = tally
            .fields
            .iter()
            .map(|(field, counts)| self.field(field, counts, tally, basis))
            .collect();
        let unreferenced = basis
            .is_pairs()
            .then(|| unreferenced(tally, tally.any_alone, tally.any_reference))
            .flatten();
        let differences = match basis {
            Basis::Pairs(_) => {
                let mut excess = self.excess(&tally.any, tally.referenced, &self.differs, 0);
                if let Some(unreferenced) = &unreferenced {
                    excess.evidence = self.evidence(Some(counts(&excess)), unreferenced, 0);
                }
                excess
            }
            // Each request is in at least one field's count, so together they are not fewer.
            Basis::Alone => {
                let counted = fields.iter().filter(|field| !field.noisy);
                let sum: u64 = counted.map(|field| field.excess.v2).sum();
                let pairs = Pairs {
                    v2: sum.min(tally.compared),
                    ..Pairs::default()
                };
                self.excess(&pairs, tally.compared, &self.differs, 0)
            }
        };
        let errors = self.excess(&tally.errors, tally.requests, &self.endpoint_fails, 0);
        let latency = (tally.latency.v1.count() > 0).then(|| self.latency(&tally.latency));
        let judged = fields.iter().filter(|field| !field.noisy);
        let mut needs = judged
            .map(|field| self.differs_less(&field.excess, field.unreferenced.as_ref()))
            .chain([
                self.differs_less(&differences, unreferenced.as_ref()),
                self.missing(&self.endpoint_fails, &errors),
            ])
            .fold(Some(0), at_least);
        if let Some(latency) = &latency {
            for beyond in &latency.beyond {
                needs = at_least(needs, self.missing(&self.slow, beyond));
            }
        }
        fields.sort_by(|a, b| b.excess.evidence.total_cmp(&a.excess.evidence));
        EndpointVerdict {
            endpoint: Arc::clone(name),
            standing: Standing::Open,
            requests: tally.requests,
            needs,
            noise: match basis {
                Basis::Pairs(kind) => Some(kind),
                Basis::Alone => None,
            },
            failed: Failed {
                v1: tally.v1_failed,
                v2: tally.v2_failed,
                control: (tally.controlled > 0).then_some(tally.control_failed),
            },
            errors,
            differences,
            unreferenced,
            fields,
            latency,
            reasons: Vec::new(),
        }
    }

    /// The requests with a reference speak for all where they are most of them, or enough by themselves.
    const fn basis(&self, tally: &EndpointTally) -> Basis {
        let referenced = tally.referenced;
        if referenced == 0 || (referenced * 2 < tally.compared && referenced < self.least) {
            return Basis::Alone;
        }
        Basis::Pairs(if tally.repeated * 2 > referenced {
            ReferenceKind::Repeat
        } else {
            ReferenceKind::Control
        })
    }

    fn field(
        &self,
        (field, kind): &Field,
        counts: &FieldTally,
        endpoint: &EndpointTally,
        basis: Basis,
    ) -> FieldVerdict {
        let FieldTally { pairs, alone } = *counts;
        let (pairs, of) = match basis {
            Basis::Pairs(_) => (pairs, endpoint.referenced),
            Basis::Alone => {
                let all = Pairs {
                    v2: alone + pairs.v2 + pairs.both,
                    ..Pairs::default()
                };
                (all, endpoint.compared)
            }
        };
        let of_reference = counts.pairs.reference + counts.pairs.both;
        let noisy = !basis.is_pairs() && of_reference > 0;
        let unreferenced = (basis.is_pairs() || noisy)
            .then(|| unreferenced(endpoint, alone, of_reference))
            .flatten();
        // The first time is why the field is looked at, and no evidence.
        let mut excess = self.excess(&pairs, of, &self.differs, FIRST);
        if let Some(apart) = &unreferenced {
            let pairs = (!noisy).then(|| Counts::new(pairs.v2, pairs.reference, of));
            excess.evidence = self.evidence(pairs, apart, FIRST);
        }
        FieldVerdict {
            field: Arc::clone(field),
            kind: *kind,
            excess,
            unreferenced,
            real: false,
            noisy,
        }
    }

    /// The decimal logarithm of what speaks for more differences than are allowed, with a reference, where that says anything,
    /// and without one.
    fn evidence(&self, pairs: Option<Counts>, unreferenced: &Unreferenced, selected: u64) -> f64 {
        let Test { bad, least, .. } = &self.differs;
        let pairs = pairs.map(|pairs| pairs.without(selected));
        let all = |apart: f64, least: f64| match &pairs {
            Some(pairs) => mean(bad.log_from(least, pairs), apart),
            None => apart,
        };
        let apart = unreferenced.counts(selected);
        let most = self.tolerances.max_difference;
        let bound = all(apart.bound_against_at_most(most), *least);
        let log = if bound < *least {
            bound
        } else {
            all(apart.against_at_most(most), f64::NEG_INFINITY)
        };
        log / std::f64::consts::LN_10
    }

    /// How many more requests show that it differs less than is allowed.
    fn differs_less(&self, excess: &Excess, unreferenced: Option<&Unreferenced>) -> Option<u64> {
        let Some(unreferenced) = unreferenced else {
            return self.missing(&self.differs, excess);
        };
        // Either each sort of requests shows it, or all of them together, with every difference that has no reference taken
        // for a real one. What is staked on both ways is shared out between them.
        let good = &self.differs.good;
        let (pairs, apart) = (counts(excess), unreferenced.counts(0));
        let all = Counts {
            up: pairs.up + apart.v2.up,
            level: pairs.level + apart.v2.level,
            ..pairs
        };
        let is_shown = |times: f64| {
            let shows = |counts: &Counts, target: f64| good.log_from(target, counts) >= target;
            // The first way is the shorter one where there is no noise, so that most is staked on it.
            let (together, each) = (self.target - (15f64 / 16.0).ln(), self.target + 16f64.ln());
            shows(&all.times(times), together)
                || shows(&pairs.times(times), each)
                    && apart
                        .times(times)
                        .shows_less(self.tolerances.max_difference, each)
        };
        if is_shown(1.0) {
            return Some(0);
        }
        let requests = all.requests();
        self.explains
            .then(|| least(|more| is_shown(1.0 + float(more) / requests)))
            .flatten()
    }

    fn latency(&self, tally: &LatencyTally) -> LatencyVerdict {
        let quantiles = |buckets: &Buckets| {
            let quantile = |q| buckets.quantile(q).unwrap_or_default();
            if self.explains {
                QUANTILES.map(quantile)
            } else {
                [0; 3]
            }
        };
        let moments = &tally.moments;
        let slow = |pairs: &Pairs, of: u64, by_moments: &Pairs| {
            let excess = self.excess(pairs, of, &self.slow, 0);
            by_moment(excess, by_moments, moments, &self.slow)
        };
        let compared = tally.slower.v2 + tally.slower.reference;
        let (ratio_low, ratio_high) = if self.explains {
            self.median_between(&tally.ratio)
        } else {
            (0.0, None)
        };
        LatencyVerdict {
            v1: quantiles(&tally.v1),
            v2: quantiles(&tally.v2),
            control: (tally.control.count() > 0).then(|| quantiles(&tally.control)),
            ratio: float(tally.ratio.quantile(0.5).unwrap_or_default()) / 1000.0,
            ratio_low,
            ratio_high,
            beyond: [0, 1, 2].map(|index| {
                slow(
                    &tally.beyond[index],
                    tally.beyond_tested,
                    &moments.beyond[index],
                )
            }),
            slower: slow(&tally.slower, compared, &moments.slower),
        }
    }

    /// Between which ends the median of what is counted in thousandths is: more than half are above the lower one, and fewer
    /// above the upper one.
    fn median_between(&self, thousandths: &Buckets) -> (f64, Option<f64>) {
        let (all, mut below) = (thousandths.count(), 0);
        let (mut low, mut high) = (0, None);
        for (end, count) in thousandths.iter() {
            below += count;
            let above = all - below;
            let shows =
                |more, fewer| self.no_noise.log(&Counts::new(more, fewer, all)) >= self.target;
            if shows(above, below) {
                low = end;
            } else if high.is_none() && shows(below, above) {
                high = Some(end);
            }
        }
        (float(low) / 1000.0, high.map(|end| float(end) / 1000.0))
    }

    /// `selected`: how many of the ups are the reason why it is looked at.
    fn excess(&self, pairs: &Pairs, of: u64, test: &Test, selected: u64) -> Excess {
        let counts = Counts::new(pairs.v2, pairs.reference, of);
        let evidence = counts.without(selected);
        let (low, high) = if self.explains {
            interval(&counts, self.tolerances.alpha)
        } else {
            (-1.0, 1.0)
        };
        Excess {
            v2: pairs.v2,
            reference: pairs.reference,
            of,
            rate: counts.mean(),
            low,
            high,
            evidence: test.evidence(&evidence),
            beyond: false,
            moments: None,
        }
    }

    fn all_errors(&self, tally: &Tally) -> Excess {
        let all = tally
            .endpoints
            .values()
            .fold(Pairs::default(), |sum, it| Pairs {
                v2: sum.v2 + it.errors.v2,
                reference: sum.reference + it.errors.reference,
                both: sum.both + it.errors.both,
            });
        self.excess(&all, tally.requests(), &self.fails, 0)
    }

    /// Each endpoint is held against its own p99, so all of them can be taken together.
    fn all_slow(&self, tally: &Tally) -> Option<Excess> {
        let (mut all, mut tested, mut measured) = (Pairs::default(), 0, 0);
        for LatencyTally {
            beyond: [_, _, last],
            beyond_tested,
            v1,
            ..
        } in tally.endpoints.values().map(|it| &it.latency)
        {
            all.v2 += last.v2;
            all.reference += last.reference;
            all.both += last.both;
            tested += beyond_tested;
            measured += v1.count();
        }
        (measured > 0).then(|| {
            let excess = self.excess(&all, tested, &self.slowest, 0);
            let moments = &tally.moments;
            by_moment(excess, &moments.beyond[2], moments, &self.slowest)
        })
    }

    /// Finds out which claims are refuted.
    fn refute(
        &self,
        endpoints: &mut [EndpointVerdict],
        errors: &mut Excess,
        slow: Option<&mut Excess>,
    ) {
        let (mut differing, mut failing, mut slower) = (Vec::new(), vec![errors], Vec::new());
        slower.extend(slow);
        let (mut real, mut of_noise) = (Vec::new(), Vec::new());
        for endpoint in endpoints {
            if endpoint.noise.is_some() {
                differing.push(&mut endpoint.differences);
            }
            failing.push(&mut endpoint.errors);
            for field in &mut endpoint.fields {
                if self.explains {
                    of_noise.push(self.more_than_noise(field));
                    real.push(&mut field.real);
                }
                differing.push(&mut field.excess);
            }
            if let Some(latency) = &mut endpoint.latency {
                slower.extend(&mut latency.beyond);
                slower.push(&mut latency.slower);
            }
        }
        let alpha = self.tolerances.alpha / FAMILIES;
        flag(&mut differing, alpha, DIFFERING);
        flag(&mut failing, alpha, FAILING);
        flag(&mut slower, alpha, SLOWER);
        let refuted = family(&of_noise, alpha, DIFFERING);
        for (real, refuted) in real.into_iter().zip(refuted) {
            *real = refuted;
        }
    }

    /// What speaks against noise alone.
    fn more_than_noise(&self, field: &FieldVerdict) -> f64 {
        let pairs = || self.no_noise.log(&counts(&field.excess).without(FIRST));
        match &field.unreferenced {
            None => pairs(),
            Some(apart) => {
                let apart = apart.counts(FIRST).against_at_most(0.0);
                if field.noisy {
                    apart
                } else {
                    mean(pairs(), apart)
                }
            }
        }
    }

    fn standing(&self, endpoint: &EndpointVerdict, compared: u64) -> Standing {
        let differs = endpoint.fields.iter().any(|field| field.excess.beyond);
        let is_slow = |it: &LatencyVerdict| {
            it.slower.beyond || it.beyond.iter().any(|quantile| quantile.beyond)
        };
        if differs
            || endpoint.differences.beyond
            || endpoint.errors.beyond
            || endpoint.latency.as_ref().is_some_and(is_slow)
        {
            Standing::Worse
        } else if endpoint.needs == Some(0) {
            Standing::Good
        } else if compared < self.least {
            Standing::Uncovered
        } else {
            Standing::Open
        }
    }

    /// How many more requests show that it is good enough.
    fn missing(&self, test: &Test, excess: &Excess) -> Option<u64> {
        let counts = counts(excess);
        if self.explains {
            test.good.needs(&counts, self.target)
        } else {
            (test.good.log_from(self.target, &counts) >= self.target).then_some(0)
        }
    }

    fn needs(
        &self,
        tally: &Tally,
        endpoints: &[EndpointVerdict],
        errors: &Excess,
        slow: Option<&Excess>,
    ) -> Option<u64> {
        let all = float(tally.requests());
        let mut needs = self.missing(&self.fails, errors);
        if let Some(slow) = slow {
            needs = at_least(needs, self.missing(&self.slowest, slow));
        }
        for endpoint in endpoints {
            let may_be_left = self.tolerances.allow_uncovered;
            if may_be_left && endpoint.standing == Standing::Uncovered {
                continue;
            }
            // An endpoint gets its share of what comes.
            let spread = endpoint.needs.map(|needs| {
                let share = float(endpoint.requests.max(1)) / all.max(1.0);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let requests = (float(needs) / share).ceil() as u64;
                requests
            });
            needs = at_least(needs, spread);
        }
        needs
    }
}

/// The same with the evidence of moments instead of requests.
///
/// Moments of several pods may be the same ones, so that what they say is not independent. The mean of their evidence is
/// valid even then, and the evidence of their mean counts is at most that.
fn by_moment(excess: Excess, pairs: &Pairs, moments: &MomentTally, test: &Test) -> Excess {
    let counts = Counts::new(pairs.v2, pairs.reference, moments.over);
    let counts = counts.times(1.0 / float(moments.pods.max(1)));
    Excess {
        evidence: test.evidence(&counts),
        moments: Some(InMoments {
            v2: pairs.v2,
            reference: pairs.reference,
            of: moments.over,
        }),
        ..excess
    }
}

/// The larger of two needs; never is the largest.
fn at_least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one?.max(other?))
}

fn flag(family_of: &mut [&mut Excess], alpha: f64, growth: Growth) {
    let evidence: Vec<f64> = family_of
        .iter()
        .map(|excess| excess.evidence * std::f64::consts::LN_10)
        .collect();
    let refuted = family(&evidence, alpha, growth);
    for (excess, refuted) in family_of.iter_mut().zip(refuted) {
        excess.beyond = refuted;
    }
}

/// The worse it stands, and the more evidence there is, the larger.
fn concern(endpoint: &EndpointVerdict) -> f64 {
    let latency = endpoint.latency.iter();
    let most = latency
        .flat_map(|it| it.beyond.iter().chain([&it.slower]))
        .chain(endpoint.fields.iter().map(|field| &field.excess))
        .chain([&endpoint.errors, &endpoint.differences])
        .map(|excess| excess.evidence)
        .fold(0.0, f64::max);
    let standing = match endpoint.standing {
        Standing::Worse => 3e9,
        Standing::Open => 2e9,
        Standing::Uncovered => 1e9,
        Standing::Good => 0.0,
    };
    standing + most
}
