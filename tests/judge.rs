//! The judge: what it says of runs that were made up, and of simulated ones.

use std::sync::Arc;
use std::time::Duration;

use shadowtap::compare::DifferenceKind;
use shadowtap::judge::{
    Absence, Completeness, Decider, Decision, Docket, Judge, Latency, LatencyMargin, MomentTally,
    Presence, Reference, ReferenceKind, Standing, Tally, Tolerances, Trial, Verdict, verdict,
};
use shadowtap::time::Timestamp;

use crate::support::rng::Rng;
use crate::support::runs::{Fault, NoiseBy, Scene, run};

type Fields = Vec<(Arc<str>, DifferenceKind)>;

fn fields(names: &[&str]) -> Fields {
    names
        .iter()
        .map(|&name| (Arc::from(name), DifferenceKind::Value))
        .collect()
}

/// A request in which nothing happened.
fn plain(endpoint: &str) -> Trial<'_> {
    Trial {
        endpoint,
        differing: &[],
        v1_failed: false,
        v2_failed: false,
        latency: None,
        reference: None,
    }
}

/// What a control says that differs from version 1 in `differing`.
const fn control(differing: &[(Arc<str>, DifferenceKind)]) -> Option<Reference<'_>> {
    Some(Reference {
        kind: ReferenceKind::Control,
        differing,
        failed: false,
        latency: None,
    })
}

fn judged(trials: impl IntoIterator<Item = (usize, Trial<'static>)>) -> Tally {
    let mut judge = Judge::new(LatencyMargin::default());
    let mut sent = Timestamp::from_secs_nanos(1_700_000_000, 0);
    for (times, mut trial) in trials {
        for _ in 0..times {
            sent = sent.after(Duration::from_millis(50));
            if let Some(latency) = &mut trial.latency {
                latency.sent = sent;
            }
            judge.add(&trial);
        }
    }
    judge.finish();
    judge.tally().clone()
}

fn weighed(tally: &Tally) -> Verdict {
    let (tolerances, completeness) = (Tolerances::default(), Completeness::default());
    let verdict = verdict(tally, &tolerances, &completeness);
    assert_eq!(
        verdict.verdict,
        Decider::new(&tolerances).decision(tally, &completeness)
    );
    verdict
}

#[test]
fn nothing_yet_is_continue_with_a_number() {
    let verdict = weighed(&Tally::default());
    assert_eq!(verdict.verdict, Decision::Continue);
    assert_eq!(verdict.needs, Some(1817));
    assert_eq!(verdict.reasons, ["nothing was judged yet"]);
}

#[test]
fn enough_equal_answers_are_promoted_at_exactly_the_promised_number() {
    for (requests, decision, needs) in [
        (1000, Decision::Continue, Some(817)),
        (1816, Decision::Continue, Some(1)),
        (1817, Decision::Promote, Some(0)),
    ] {
        let verdict = weighed(&judged([(requests, plain("GET /"))]));
        assert_eq!(
            verdict.verdict, decision,
            "{requests}: {:?}",
            verdict.reasons
        );
        assert_eq!(verdict.needs, needs, "{requests}");
    }
}

#[test]
fn a_wrong_field_is_named_with_its_endpoint_and_numbers() {
    let wrong = fields(&["body.total_cents"]).leak();
    let bad = Trial {
        differing: wrong,
        reference: control(&[]),
        ..plain("POST /orders")
    };
    let good = Trial {
        reference: control(&[]),
        ..plain("GET /items")
    };
    let verdict = weighed(&judged([(400, bad), (2000, good)]));
    assert_eq!(verdict.verdict, Decision::Reject);
    assert_eq!(
        verdict.reasons[0],
        "POST /orders: body.total_cents (value) differs in 400 of 400 answers of version 2 alone, and in 0 of the control alone"
    );
    let standings: Vec<_> = verdict
        .endpoints
        .iter()
        .map(|it| (&*it.endpoint, it.standing))
        .collect();
    assert_eq!(
        standings,
        [
            ("POST /orders", Standing::Worse),
            ("GET /items", Standing::Good)
        ]
    );
    assert!(verdict.endpoints[0].fields[0].real);
    assert_eq!(verdict.noise, [ReferenceKind::Control]);
}

#[test]
fn a_field_that_version_1_changes_as_often_is_noise_and_a_control_shows_it() {
    let noisy = fields(&["body.now"]).leak();
    let both = |v2: &'static Fields, other: &'static Fields| Trial {
        differing: v2,
        reference: control(other),
        ..plain("GET /")
    };
    let none: &'static Fields = Box::leak(Box::default());
    let noisy: &'static Fields = Box::leak(Box::new(noisy.to_vec()));
    let tally = judged([
        (300, both(noisy, noisy)),
        (150, both(noisy, none)),
        (150, both(none, noisy)),
    ]);
    let with = weighed(&tally);
    assert_eq!(with.verdict, Decision::Continue, "{:?}", with.reasons);
    assert!(!with.endpoints[0].fields[0].real);

    let alone = Trial {
        differing: noisy,
        ..plain("GET /")
    };
    let without = weighed(&judged([(450, alone), (150, plain("GET /"))]));
    assert_eq!(without.verdict, Decision::Reject);
    assert!(without.noise.is_empty());
    assert!(
        without.reasons.iter().any(|it| it.contains("no control")),
        "{:?}",
        without.reasons
    );
}

#[test]
fn where_repeats_are_few_a_field_that_they_show_to_be_noisy_is_left_out() {
    let noisy = fields(&["body.now"]).leak();
    let wrong = fields(&["body.price"]).leak();
    let repeat = Trial {
        reference: Some(Reference {
            kind: ReferenceKind::Repeat,
            differing: noisy,
            failed: false,
            latency: None,
        }),
        ..plain("GET /")
    };
    let changed = Trial {
        differing: noisy,
        ..plain("GET /")
    };
    let verdict = weighed(&judged([(5, repeat), (200, changed)]));
    assert_eq!(verdict.verdict, Decision::Continue);
    assert!(verdict.endpoints[0].fields[0].noisy);
    let also_wrong = Trial {
        differing: wrong,
        ..plain("GET /")
    };
    let verdict = weighed(&judged([(5, repeat), (200, changed), (30, also_wrong)]));
    assert_eq!(verdict.verdict, Decision::Reject);
    assert!(
        verdict.reasons[0].contains("body.price"),
        "{:?}",
        verdict.reasons
    );
}

#[test]
fn what_is_never_repeated_is_judged_where_other_requests_are() {
    let wrong: &'static Fields = Box::leak(Box::new(fields(&["body.price"])));
    let same = |differing: &'static Fields| Trial {
        reference: Some(Reference {
            kind: ReferenceKind::Repeat,
            differing,
            failed: false,
            latency: None,
        }),
        ..plain("GET /items/{id}")
    };
    let none: &'static Fields = Box::leak(Box::default());
    // Version 2 is right about what many ask for, and wrong about the rest.
    let rare = Trial {
        differing: wrong,
        ..plain("GET /items/{id}")
    };
    let verdict = weighed(&judged([
        (4000, same(none)),
        (200, rare),
        (1000, plain("GET /items/{id}")),
    ]));
    assert_eq!(verdict.verdict, Decision::Reject, "{:?}", verdict.reasons);
    assert_eq!(
        verdict.reasons[0],
        "GET /items/{id}: body.price (value) differs in 0 of 4,000 answers of version 2 alone, and in 0 of version 1's own repeats \
         alone; where there is none of these, in 200 of 1,200"
    );
    // As often as version 1 differs from itself: nothing is wrong, and nothing holds the promotion.
    let noisy = Trial {
        reference: same(wrong).reference,
        ..plain("GET /items/{id}")
    };
    let both = Trial {
        differing: wrong,
        ..noisy
    };
    let verdict = weighed(&judged([
        (39_000, same(none)),
        (1_000, both),
        (1_000, rare),
        (39_000, plain("GET /items/{id}")),
    ]));
    assert_eq!(verdict.verdict, Decision::Promote, "{:?}", verdict.reasons);
    // No noise at all: little more is needed than with a reference to each.
    let verdict = weighed(&judged([
        (1000, same(none)),
        (1000, plain("GET /items/{id}")),
    ]));
    assert_eq!(verdict.verdict, Decision::Promote, "{:?}", verdict.reasons);
}

#[test]
fn a_field_that_a_few_repeats_show_to_be_noisy_is_not_beyond_all_judgement() {
    let noisy: &'static Fields = Box::leak(Box::new(fields(&["body.stock"])));
    let repeat = |differing: &'static [(Arc<str>, DifferenceKind)]| Trial {
        reference: Some(Reference {
            kind: ReferenceKind::Repeat,
            differing,
            failed: false,
            latency: None,
        }),
        ..plain("GET /items")
    };
    let wrong = Trial {
        differing: noisy,
        ..plain("GET /items")
    };
    let verdict = weighed(&judged([
        (1, repeat(noisy)),
        (99, repeat(&[])),
        (2000, wrong),
    ]));
    assert_eq!(verdict.verdict, Decision::Reject, "{:?}", verdict.reasons);
    assert_eq!(
        verdict.reasons[0],
        "GET /items: body.stock (value) differs in 2,000 of 2,000 answers, and version 1 from itself in 1 of 100 repeats"
    );
}

#[test]
fn what_was_not_sent_because_version_2_is_down_keeps_it_from_promotion_alone() {
    let fails = Trial {
        v2_failed: true,
        ..plain("GET /")
    };
    let mut completeness = Completeness {
        judged: 30,
        ..Completeness::default()
    };
    let breaker = shadowtap::account::Reason::BreakerOpen.name();
    completeness.lost.insert(breaker.to_owned(), 970);
    let tolerances = Tolerances::default();
    let down = verdict(&judged([(30, fails)]), &tolerances, &completeness);
    assert_eq!(down.verdict, Decision::Reject, "{:?}", down.reasons);
    assert!(
        down.reasons[0].starts_with("GET /: version 2 failed 30 of 30"),
        "{:?}",
        down.reasons
    );
    completeness.judged = 5000;
    let back = verdict(
        &judged([(5000, plain("GET /"))]),
        &tolerances,
        &completeness,
    );
    assert_eq!(back.verdict, Decision::Continue, "{:?}", back.reasons);
    completeness.lost.insert("queue_full".to_owned(), 1000);
    let lossy = verdict(&judged([(5000, fails)]), &tolerances, &completeness);
    assert_eq!(lossy.verdict, Decision::Continue, "{:?}", lossy.reasons);
}

#[test]
fn errors_and_slow_answers_are_found_and_told() {
    let fails = Trial {
        v2_failed: true,
        reference: control(&[]),
        ..plain("GET /pay")
    };
    let fine = Trial {
        reference: control(&[]),
        ..plain("GET /pay")
    };
    let verdict = weighed(&judged([(40, fails), (400, fine)]));
    assert_eq!(verdict.verdict, Decision::Reject);
    assert_eq!(
        verdict.reasons[0],
        "GET /pay: version 2 failed 40 of 440 requests, version 1 0, the control 0"
    );
    let slow = Trial {
        latency: Some(Latency {
            v1: Duration::from_millis(10),
            v2: Duration::from_millis(17),
            sent: Timestamp::ZERO,
        }),
        ..plain("GET /search")
    };
    let verdict = weighed(&judged([(100, slow)]));
    assert_eq!(verdict.verdict, Decision::Reject);
    let reason = &verdict.reasons[0];
    assert!(
        reason.starts_with("GET /search: version 2 is slower"),
        "{reason}"
    );
    let within_the_margin = Trial {
        latency: Some(Latency {
            v1: Duration::from_millis(10),
            v2: Duration::from_millis(16),
            sent: Timestamp::ZERO,
        }),
        ..plain("GET /search")
    };
    let verdict = weighed(&judged([(2000, within_the_margin)]));
    assert_eq!(verdict.verdict, Decision::Promote, "{:?}", verdict.reasons);
}

#[test]
fn too_few_requests_hold_the_promotion_unless_allowed() {
    let tally = judged([(2500, plain("GET /often")), (12, plain("GET /rare"))]);
    let strict = weighed(&tally);
    assert_eq!(strict.verdict, Decision::Continue);
    let rare = strict
        .endpoints
        .iter()
        .find(|it| &*it.endpoint == "GET /rare");
    assert_eq!(rare.expect("judged").standing, Standing::Uncovered);
    assert!(
        strict
            .reasons
            .iter()
            .any(|it| it.contains("GET /rare (12)")),
        "{:?}",
        strict.reasons
    );
    // 350 more at a place that gets 12 of 2,512.
    assert_eq!(strict.needs, Some(73_267));
    let lax = Tolerances {
        allow_uncovered: true,
        ..Tolerances::default()
    };
    let lax = verdict(&tally, &lax, &Completeness::default());
    assert_eq!(lax.verdict, Decision::Promote, "{:?}", lax.reasons);
}

#[test]
fn what_was_not_judged_holds_everything() {
    let fails = Trial {
        v2_failed: true,
        ..plain("GET /")
    };
    for tally in [judged([(500, fails)]), judged([(5000, plain("GET /"))])] {
        let decided = weighed(&tally).verdict;
        assert_ne!(decided, Decision::Continue);
        let mut completeness = Completeness {
            judged: 990,
            packets: 100,
            ..Completeness::default()
        };
        completeness.lost.insert("queue_full".to_owned(), 10);
        let enough = verdict(&tally, &Tolerances::default(), &completeness);
        assert_eq!(enough.verdict, decided);
        completeness.lost.insert("queue_full".to_owned(), 11);
        let held = verdict(&tally, &Tolerances::default(), &completeness);
        assert_eq!(held.verdict, Decision::Continue);
        assert!(
            held.reasons[0].contains("11 queue_full"),
            "{:?}",
            held.reasons
        );
        completeness.lost.clear();
        completeness.packets_lost = 5;
        let held = verdict(&tally, &Tolerances::default(), &completeness);
        assert_eq!(held.verdict, Decision::Continue);
    }
}

/// Of a version 2 that came back.
const BACK: Presence = Presence {
    absence: None,
    gone_after: 2_500,
    missing: 7_000,
    pods: 1,
};

#[test]
fn one_that_came_back_is_held_until_it_has_stayed_and_may_be_rejected() {
    let with = |presence: Presence, tally: Tally| weighed(&Tally { presence, ..tally });
    let good = || judged([(3000, plain("GET /"))]);
    assert_eq!(with(Presence::default(), good()).needs, Some(0));
    let held = with(BACK, good());
    assert_eq!((held.verdict, held.needs), (Decision::Continue, Some(7000)));
    assert_eq!(held.presence, BACK);
    assert_eq!(
        held.reasons[0],
        "version 2 was gone after 2,500 requests; 7,000 more without that until it counts as one that stays"
    );
    // The other requests that are needed come beside these.
    let missing = 100;
    let few = with(
        Presence { missing, ..BACK },
        judged([(1000, plain("GET /"))]),
    );
    assert_eq!((few.verdict, few.needs), (Decision::Continue, Some(817)));
    let stayed = with(Presence { missing: 0, ..BACK }, good());
    assert_eq!(stayed.verdict, Decision::Promote, "{:?}", stayed.reasons);

    let failing = Trial {
        v2_failed: true,
        ..plain("GET /")
    };
    let bad = with(BACK, judged([(300, failing)]));
    assert_eq!(bad.verdict, Decision::Reject);
    assert!(
        bad.reasons[0].contains("failed 300 of 300"),
        "{:?}",
        bad.reasons
    );
    assert!(bad.reasons.iter().any(|it| it.contains("gone after 2,500")));
}

#[test]
fn one_that_does_not_answer_is_told_with_the_time_and_is_not_promoted() {
    let absence = Absence {
        since_millis: 1_700_000_000_999,
        refused: 1_234,
        had_answered: true,
        pods: 1,
    };
    let with = |absence, tally: Tally| {
        let presence = Presence {
            absence: Some(absence),
            ..Presence::default()
        };
        weighed(&Tally { presence, ..tally })
    };
    let gone = with(absence, Tally::default());
    assert_eq!(
        gone.reasons,
        [
            "version 2 has not answered since 2023-11-14 22:13:20 UTC: 1,234 connections could not be made; counts begin anew when \
             one answers",
            "nothing was judged yet"
        ]
    );
    let never = Absence {
        had_answered: false,
        refused: 1,
        ..absence
    };
    assert_eq!(
        with(never, Tally::default()).reasons[0],
        "version 2 has not answered yet: a connection could not be made since 2023-11-14 22:13:20 UTC"
    );
    let paused = Absence {
        refused: 0,
        ..absence
    };
    let paused = with(paused, Tally::default());
    assert!(
        paused.reasons[0].contains("UTC: its name leads to version 1;"),
        "{:?}",
        paused.reasons
    );
    let late = with(absence, judged([(3000, plain("GET /"))]));
    assert_eq!(late.verdict, Decision::Continue, "{:?}", late.reasons);
}

#[test]
fn what_sidecars_know_of_its_being_there_adds_up() {
    let of = |presence| Tally {
        presence,
        ..judged([(2000, plain("GET /"))])
    };
    let absence = |since_millis, had_answered| Absence {
        since_millis,
        refused: 20,
        had_answered,
        pods: 1,
    };
    let gone = Presence {
        absence: Some(absence(2_000, true)),
        pods: 1,
        ..Presence::default()
    };
    let never = Presence {
        absence: Some(absence(1_000, false)),
        pods: 1,
        ..Presence::default()
    };
    let mut sum = of(BACK);
    for presence in [BACK, gone, never, Presence::default()] {
        sum.merge(&of(presence)).expect("the same margins");
    }
    assert_eq!(
        sum.presence,
        Presence {
            absence: Some(Absence {
                since_millis: 1_000,
                refused: 40,
                had_answered: true,
                pods: 2,
            }),
            gone_after: 5_000,
            missing: 14_000,
            pods: 4,
        }
    );
    let verdict = weighed(&sum);
    assert_eq!(verdict.verdict, Decision::Continue);
    assert!(
        verdict.reasons[0].starts_with("version 2 has not answered 2 of 4 sidecars since 1970-01-01 00:00:01 UTC: 40 connections"),
        "{:?}",
        verdict.reasons
    );
    assert!(verdict.reasons[1].contains("gone after 5,000 requests; 14,000 more"));
    // One is enough to hold it.
    let mut sum = of(Presence::default());
    sum.merge(&of(gone)).expect("the same margins");
    assert_eq!(weighed(&sum).verdict, Decision::Continue);
    let mut sum = of(Presence::default());
    sum.merge(&of(Presence::default()))
        .expect("the same margins");
    assert_eq!(weighed(&sum).verdict, Decision::Promote);
}

#[test]
fn what_an_older_sidecar_tells_is_read() {
    let mut docket = Docket {
        tally: judged([(2000, plain("GET /"))]),
        ..Docket::default()
    };
    docket.tally.presence = BACK;
    let mut older = serde_json::to_value(&docket).expect("JSON");
    let tally = older["tally"].as_object_mut().expect("an object");
    assert!(tally.remove("presence").is_some());
    let older: Docket = serde_json::from_value(older).expect("a docket");
    assert_eq!(older.verdict().verdict, Decision::Promote);
    docket.merge(&older).expect("the same margins");
    assert_eq!(docket.tally.presence, BACK);
}

#[test]
fn tallies_of_several_pods_are_the_tally_of_one_judge() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let mut pods: Vec<_> = (0..3)
            .map(|_| Judge::new(LatencyMargin::default()))
            .collect();
        let mut one = Judge::new(LatencyMargin::default());
        for number in 0..400 {
            let some = |rng: &mut Rng| {
                let names = ["a", "b", "c", "d"];
                fields(
                    &names
                        .iter()
                        .copied()
                        .filter(|_| rng.one_in(4))
                        .collect::<Vec<_>>(),
                )
            };
            let (differing, other) = (some(&mut rng), some(&mut rng));
            let micros = |rng: &mut Rng| Duration::from_micros(rng.next() % 100_000);
            let kind = *rng.pick(&[ReferenceKind::Control, ReferenceKind::Repeat]);
            let is_control = kind == ReferenceKind::Control;
            let trial = Trial {
                endpoint: ["GET /a", "GET /b", "POST /c"][rng.range(0, 3)],
                differing: &differing,
                v1_failed: rng.one_in(10),
                v2_failed: rng.one_in(10),
                latency: rng.one_in(2).then(|| Latency {
                    v1: micros(&mut rng),
                    v2: micros(&mut rng),
                    sent: Timestamp::from_secs_nanos(number, 0),
                }),
                reference: rng.one_in(2).then(|| Reference {
                    kind,
                    differing: &other,
                    failed: rng.one_in(10),
                    latency: is_control.then(|| micros(&mut rng)),
                }),
            };
            one.add(&trial);
            let pod = rng.range(0, 3);
            pods[pod].add(&trial);
        }
        let mut sum = Tally::default();
        for pod in &pods {
            sum.merge(pod.tally()).expect("the same margins");
        }
        let mut one = one.tally().clone();
        // Each pod holds latencies against its own past, and has its own moments: as fair, and not the same.
        for tally in [&mut one, &mut sum] {
            tally.presence = Presence::default();
            tally.moments = MomentTally::default();
            for endpoint in tally.endpoints.values_mut() {
                endpoint.latency.beyond = Default::default();
                endpoint.latency.beyond_tested = 0;
                endpoint.latency.moments = MomentTally::default();
            }
        }
        assert_eq!(one, sum, "seed {seed}");
    }
}

#[test]
fn an_equal_version_is_hardly_ever_rejected_and_a_worse_one_is() {
    // The same with a thousand runs, and with the medians, is `cargo bench --bench judge`.
    let equal = Scene {
        fault: Fault::None,
        noise: &[0.001, 0.01, 0.1, 0.5],
        errors: 0.005,
        noise_by: NoiseBy::Control,
        rate: 100.0,
        stalls: 0.0,
    };
    let rejected = |scene: &Scene, runs: u64, most: u64| {
        (0..runs)
            .filter(|&seed| {
                run(scene, seed, most, &[Decision::Reject]).decision == Decision::Reject
            })
            .count()
    };
    assert!(rejected(&equal, 40, 300) <= 2);
    let repeats = Scene {
        noise_by: NoiseBy::Repeats(0.6),
        ..equal
    };
    assert!(rejected(&repeats, 8, 200) <= 1);
    let rarely_wrong = Scene {
        fault: Fault::RareField(0.5),
        ..repeats
    };
    assert_eq!(rejected(&rarely_wrong, 2, 3_000), 2);
    let alone = Scene {
        fault: Fault::Field(0.5),
        noise: &[],
        noise_by: NoiseBy::Nothing,
        ..equal
    };
    assert_eq!(rejected(&alone, 2, 3_000), 2);
    for fault in [Fault::Field(0.5), Fault::Errors(0.3), Fault::Tail(4.0)] {
        let worse = Scene { fault, ..equal };
        assert_eq!(rejected(&worse, 3, 3_000), 3, "{fault:?}");
    }
}

#[test]
fn a_stall_hits_many_requests_and_is_no_evidence_but_for_one() {
    // Each copy stands still now and then, for up to a second, whatever was sent to it meanwhile.
    let stalls = Scene {
        fault: Fault::None,
        noise: &[],
        errors: 0.0,
        noise_by: NoiseBy::Control,
        rate: 500.0,
        stalls: 0.5,
    };
    for seed in 0..3 {
        let end = run(&stalls, seed, 1_000, &[Decision::Reject]);
        assert_eq!(end.decision, Decision::Continue, "seed {seed}: {end:?}");
    }
    // A few stalls are not taken for less than they are either: a slower tail is still found among them.
    let slower = Scene {
        fault: Fault::Tail(10.0),
        rate: 100.0,
        stalls: 0.2,
        ..stalls
    };
    let end = run(&slower, 0, 3_000, &[Decision::Reject]);
    assert_eq!(end.decision, Decision::Reject, "{end:?}");
}
