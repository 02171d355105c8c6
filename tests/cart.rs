//! A cart in two versions, its payment provider and a mock, live in network namespaces: nobody pays twice.

use crate::support::stage::cart::{CartStage, Version2};
use crate::support::stage::wait_for;

const ORDERS: usize = 120;

#[test]
fn the_provider_is_charged_once_for_each_order_and_version_2_answers_all() {
    for traced in [true, false] {
        let Some(stage) = CartStage::build() else {
            return;
        };
        let play = stage.play(Version2::Right, &[]);
        stage.buy(1..ORDERS as u64 + 1, traced);
        play.wait_for_v2(ORDERS);
        let [mirror, mock] = play.stop();
        let wanted: Vec<u64> = (1..=ORDERS as u64).collect();
        assert_eq!(stage.charged(), wanted, "{mirror}{mock}");
        // Each with the receipt that version 1 got for the very same order.
        let answered = stage.answered("v1");
        assert_eq!(answered.len(), ORDERS);
        assert_eq!(stage.answered("v2"), answered, "{mirror}{mock}");
        // It has waited at the mock for version 1, which is no fault of its own.
        assert!(mirror.contains("how long version 2 takes is not judged"));
        assert!(!mirror.contains("verdict: reject"), "{mirror}");
        for (said, line) in [
            (
                &mirror,
                format!(
                    "called {ORDERS:>17}   outgoing calls of version 1, {ORDERS} told to the mock"
                ),
            ),
            (
                &mirror,
                format!(
                    "side effects           0   of version 2 differ: 0 missing, 0 extra, 0 changed; {ORDERS} are the same"
                ),
            ),
            (
                &mock,
                format!("mocked {ORDERS:>17}   of {ORDERS} calls of version 2"),
            ),
        ] {
            assert!(said.contains(&line), "{line}\n{mirror}{mock}");
        }
    }
}

#[test]
fn without_the_mock_the_provider_is_charged_twice() {
    let Some(stage) = CartStage::build() else {
        return;
    };
    let play = stage.play(Version2::WithoutMock, &[]);
    stage.buy(1..11, true);
    play.wait_for_v2(10);
    play.stop();
    assert_eq!(
        stage.charged().len(),
        20,
        "the stage would not show a double charge"
    );
}

#[test]
fn a_version_2_that_charges_twice_is_caught() {
    let Some(stage) = CartStage::build() else {
        return;
    };
    let play = stage.play(Version2::ChargesTwice, &[]);
    stage.buy(1..ORDERS as u64 + 1, true);
    play.wait_for_v2(ORDERS);
    wait_for("the mock to settle every order", || {
        play.ask_mock("/mock/api/side-effects")["exchanges"] == ORDERS
    });
    let effects = play.ask_mock("/mock/api/side-effects");
    assert_eq!(effects["differing"], ORDERS, "{effects}");
    let example = &effects["examples"][0];
    assert_eq!(example["endpoint"], "POST /orders");
    let call = &example["calls"][0];
    assert_eq!(call["call"], "POST 10.81.0.2:9000 /charges");
    assert_eq!((&call["same"], &call["extra"]), (&1.into(), &1.into()));
    // What /verdict says, and the dashboard shows.
    wait_for("the sidecar to judge them", || {
        play.ask_mirror("/verdict")["data"]["verdict"] == "reject"
    });
    let verdict = play.ask_mirror("/verdict");
    let endpoints = verdict["data"]["endpoints"].as_array().expect("a list");
    let worse: Vec<_> = endpoints
        .iter()
        .filter(|endpoint| endpoint["standing"] == "worse")
        .collect();
    assert_eq!(worse.len(), 1, "{verdict}");
    assert_eq!(worse[0]["endpoint"], "POST /orders, its calls");
    let field = &worse[0]["fields"][0];
    assert_eq!(field["field"], "call POST 10.81.0.2:9000 /charges");
    assert_eq!(field["kind"], "extra");
    let [mirror, mock] = play.stop();
    let wanted: Vec<u64> = (1..=ORDERS as u64).collect();
    assert_eq!(stage.charged(), wanted, "{mirror}{mock}");
    let line = format!("0 missing, {ORDERS} extra, 0 changed; {ORDERS} are the same");
    assert!(mirror.contains(&line), "{mirror}{mock}");
    let reason = format!(
        "calls POST 10.81.0.2:9000 /charges more often than version 1 in {ORDERS} of {ORDERS} requests"
    );
    for said in [
        "is rejected for its side effects",
        "verdict=reject",
        &reason,
    ] {
        assert!(mirror.contains(said), "{said}\n{mirror}");
    }
}
