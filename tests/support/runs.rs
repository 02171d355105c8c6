//! Simulated runs of two versions before the judge: what the answers would be is drawn, the judge is the real one.

use std::sync::Arc;
use std::time::Duration;

use shadowtap::compare::DifferenceKind;
use shadowtap::judge::{
    Completeness, Decider, Decision, Judge, Latency, LatencyMargin, Reference, ReferenceKind,
    Tolerances, Trial,
};

use shadowtap::time::Timestamp;

use super::rng::Rng;

/// What is wrong with version 2.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Fault {
    /// Nothing: it is version 1.
    None,
    /// At one endpoint, a field is wrong in this share of the answers.
    Field(f64),
    /// Likewise, and only in those that are not repeated within seconds.
    RareField(f64),
    /// It fails so much more often.
    Errors(f64),
    /// The slowest twentieth of its answers take so many times as long: p99 grows by that, p50 and p90 stay.
    Tail(f64),
}

/// Two versions, a control, and the traffic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    /// What is wrong with version 2.
    pub(crate) fault: Fault,
    /// How often each of the noisy fields changes from one answer to the next; the number of them is the length.
    pub(crate) noise: &'static [f64],
    /// How often each version fails by nature.
    pub(crate) errors: f64,
    /// With what noise is measured.
    pub(crate) noise_by: NoiseBy,
    /// Requests in a second.
    pub(crate) rate: f64,
    /// So often in a second each copy stands still, for up to a second: what is sent to it meanwhile waits.
    pub(crate) stalls: f64,
}

/// With what noise is measured.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum NoiseBy {
    /// A control.
    Control,
    /// So large a share of the requests was sent before, within seconds.
    Repeats(f64),
    Nothing,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    /// What was decided first; continue when the run ended before.
    pub(crate) decision: Decision,
    /// After so many requests.
    pub(crate) requests: u64,
}

/// The endpoints, and each one's part of the traffic in percent.
const ENDPOINTS: [(&str, usize); 4] = [
    ("GET /items", 40),
    ("GET /items/{id}", 30),
    ("POST /orders", 20),
    ("GET /search", 10),
];

/// The endpoint with the wrong field.
const WRONG: usize = 1;

/// Runs until the judge, asked after every request, decides one of `ends`, or `most` requests were judged.
pub(crate) fn run(scene: &Scene, seed: u64, most: u64, ends: &[Decision]) -> End {
    let mut rng = Rng::new(seed);
    let fields: Vec<Vec<(Arc<str>, DifferenceKind)>> = (0..ENDPOINTS.len())
        .map(|_| {
            let name = |index| {
                (
                    Arc::from(format!("body.noisy{index}")),
                    DifferenceKind::Value,
                )
            };
            (0..scene.noise.len()).map(name).collect()
        })
        .collect();
    let wrong: (Arc<str>, DifferenceKind) = (Arc::from("body.price"), DifferenceKind::Value);
    let mut judge = Judge::new(LatencyMargin::default());
    let decider = Decider::new(&Tolerances::default());
    let completeness = Completeness::default();
    // The load goes up and down for all of them together, and some noise comes in bursts.
    let (mut load, mut is_burst) = (0.0, false);
    // In seconds; until when version 1, version 2 and the control stand still.
    let (mut now, mut still_until) = (1.0, [0.0f64; 3]);
    for requests in 1..=most {
        load = 0.98 * load + 0.02 * normal(&mut rng);
        if rng.one_in(50) {
            is_burst = !is_burst;
        }
        let index = endpoint(&mut rng);
        let own_cost = normal(&mut rng);
        let passed = -(1.0 - uniform(&mut rng)).ln() / scene.rate;
        now += passed;
        if scene.stalls > 0.0 {
            for until in &mut still_until {
                if chance(&mut rng, scene.stalls * passed) {
                    *until = now + uniform(&mut rng);
                }
            }
        }
        let waits = still_until.map(|until| (until - now).max(0.0));
        let is_now = |index: usize| index.is_multiple_of(2) || is_burst;
        let changes = |rng: &mut Rng| -> Vec<bool> {
            let noise = scene.noise.iter().enumerate();
            noise
                .map(|(index, &p)| is_now(index) && chance(rng, p))
                .collect()
        };
        // Whether each field of an answer is the ordinary one: version 1's own answer may be the odd one.
        let odd = changes(&mut rng);
        let differing = |rng: &mut Rng| -> Vec<(Arc<str>, DifferenceKind)> {
            let mine = changes(rng);
            let differs = |&at: &usize| mine[at] || odd[at];
            (0..mine.len())
                .filter(differs)
                .map(|at| fields[index][at].clone())
                .collect()
        };
        let (mut v2, control) = (differing(&mut rng), differing(&mut rng));
        let is_repeat = match scene.noise_by {
            NoiseBy::Repeats(share) => chance(&mut rng, share),
            NoiseBy::Control | NoiseBy::Nothing => false,
        };
        let share = match scene.fault {
            Fault::Field(share) => share,
            Fault::RareField(share) if !is_repeat => share,
            _ => 0.0,
        };
        if share > 0.0 && index == WRONG && chance(&mut rng, share) {
            v2.push(wrong.clone());
        }
        let more = if let Fault::Errors(more) = scene.fault {
            more
        } else {
            0.0
        };
        let failed = [
            chance(&mut rng, scene.errors),
            chance(&mut rng, scene.errors + more),
            chance(&mut rng, scene.errors),
        ];
        let mut took = |waits: f64, tail: f64| {
            let own = normal(&mut rng);
            let z = (own_cost + own) * std::f64::consts::FRAC_1_SQRT_2;
            let millis = 20.0 * (0.5 * z + load).exp();
            Duration::from_secs_f64(waits + millis / 1000.0 * if z > 1.645 { tail } else { 1.0 })
        };
        let tail = if let Fault::Tail(tail) = scene.fault {
            tail
        } else {
            1.0
        };
        let latency = Latency {
            v1: took(waits[0], 1.0),
            v2: took(waits[1], tail),
            sent: Timestamp::ZERO.after(Duration::from_secs_f64(now)),
        };
        let control_took = took(waits[2], 1.0);
        let reference = match scene.noise_by {
            NoiseBy::Control => Some(Reference {
                kind: ReferenceKind::Control,
                differing: &control,
                failed: failed[2],
                latency: (!failed[2]).then_some(control_took),
            }),
            NoiseBy::Repeats(_) if is_repeat => Some(Reference {
                kind: ReferenceKind::Repeat,
                differing: &control,
                failed: failed[2],
                latency: None,
            }),
            NoiseBy::Repeats(_) | NoiseBy::Nothing => None,
        };
        judge.add(&Trial {
            endpoint: ENDPOINTS[index].0,
            differing: &v2,
            v1_failed: failed[0],
            v2_failed: failed[1],
            latency: (!failed[0] && !failed[1]).then_some(latency),
            reference,
        });
        let decision = decider.decision(judge.tally(), &completeness);
        if ends.contains(&decision) {
            return End { decision, requests };
        }
    }
    End {
        decision: Decision::Continue,
        requests: most,
    }
}

fn endpoint(rng: &mut Rng) -> usize {
    let mut left = rng.range(0, 100);
    for (index, (_, percent)) in ENDPOINTS.iter().enumerate() {
        if left < *percent {
            return index;
        }
        left -= percent;
    }
    unreachable!("they are a hundred together")
}

/// A number from 0 to 1, without 1.
fn uniform(rng: &mut Rng) -> f64 {
    (rng.next() >> 11) as f64 / (1u64 << 53) as f64
}

fn chance(rng: &mut Rng, p: f64) -> bool {
    uniform(rng) < p
}

/// A number of the standard normal distribution.
fn normal(rng: &mut Rng) -> f64 {
    let (radius, angle) = (1.0 - uniform(rng), uniform(rng));
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}
