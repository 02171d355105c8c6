//! How often the judge raises a false alarm, and how soon it finds what is wrong. Run it with `cargo bench --bench judge`;
//! `SHADOWTAP_SEED` takes another seed, `SHADOWTAP_RUNS` another number of runs.

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/support/rng.rs"]
mod rng;
#[path = "../tests/support/runs.rs"]
mod runs;

use shadowtap::judge::Decision;

use runs::{Fault, NoiseBy, Scene, run};

/// The fields that change by themselves, at each endpoint: rarely, often, half the time.
const NOISE: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5];

fn main() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let seed = number("SHADOWTAP_SEED", 1);
    let runs = number("SHADOWTAP_RUNS", 1000);
    println!("seed {seed}, alpha 0.05, 4 endpoints, the judge is asked after every request");
    let equal = Scene {
        fault: Fault::None,
        noise: NOISE,
        errors: 0.001,
        noise_by: NoiseBy::Control,
        rate: 100.0,
        stalls: 0.0,
    };
    false_alarms("equal, 8 noisy fields at each endpoint", &equal, seed, runs);
    let repeats = Scene {
        noise_by: NoiseBy::Repeats(0.6),
        ..equal
    };
    false_alarms(
        "the same, with repeats in 60 % of the requests",
        &repeats,
        seed,
        runs,
    );
    let stalls = Scene {
        stalls: 0.2,
        rate: 500.0,
        ..equal
    };
    false_alarms(
        "the same, 500 a second, each copy stands still every 5 s for up to 1 s",
        &stalls,
        seed,
        runs,
    );
    let quiet = Scene {
        noise: &[],
        ..equal
    };
    power(
        "equal, no noisy field",
        &quiet,
        Decision::Promote,
        seed,
        runs / 10,
    );
    let hum = Scene {
        noise: &[0.001, 0.003, 0.01],
        ..equal
    };
    power(
        "equal, noisy fields up to 1 %",
        &hum,
        Decision::Promote,
        seed,
        runs / 10,
    );
    for (name, fault) in [
        (
            "a field wrong in 10 % of one endpoint's answers",
            Fault::Field(0.1),
        ),
        ("1 point more errors", Fault::Errors(0.01)),
        ("p99 up by 30 %", Fault::Tail(1.3)),
    ] {
        power(
            name,
            &Scene { fault, ..equal },
            Decision::Reject,
            seed,
            runs / 10,
        );
    }
    power(
        "p99 up by 30 %, each copy stands still every 5 s for up to 1 s",
        &Scene {
            fault: Fault::Tail(1.3),
            stalls: 0.2,
            ..equal
        },
        Decision::Reject,
        seed,
        runs / 10,
    );
    let rare = Scene {
        fault: Fault::RareField(0.1),
        ..repeats
    };
    power(
        "a field wrong in 10 % of what is not repeated, repeats in 60 %",
        &rare,
        Decision::Reject,
        seed,
        runs / 10,
    );
    let alone = Scene {
        noise_by: NoiseBy::Nothing,
        fault: Fault::Field(0.1),
        ..quiet
    };
    power(
        "a field wrong in 10 %, no control",
        &alone,
        Decision::Reject,
        seed,
        runs / 10,
    );
}

fn false_alarms(name: &str, scene: &Scene, seed: u64, runs: u64) {
    const MOST: u64 = 3_000;
    let rejected = (0..runs)
        .filter(|index| {
            let end = run(scene, seed ^ (index << 20), MOST, &[Decision::Reject]);
            end.decision == Decision::Reject
        })
        .count();
    println!("{name}: {rejected} of {runs} runs of {MOST} requests were ever rejected");
}

fn power(name: &str, scene: &Scene, wanted: Decision, seed: u64, runs: u64) {
    const MOST: u64 = 40_000;
    let (mut right, mut wrong) = (Vec::new(), 0);
    for index in 0..runs {
        let both = [Decision::Promote, Decision::Reject];
        let end = run(scene, seed ^ (index << 20), MOST, &both);
        if end.decision == wanted {
            right.push(end.requests);
        } else if end.decision != Decision::Continue {
            wrong += 1;
        }
    }
    let found = right.len();
    let median = median(right).map_or("-".to_owned(), |median| median.to_string());
    println!(
        "{name}: {wanted} in {found} of {runs} runs, after {median} requests (median); the opposite in {wrong}"
    );
}

/// The median of the numbers; `None` of none.
fn median(mut numbers: Vec<u64>) -> Option<u64> {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied()
}
