//! Lost packets and hostile traffic: nothing false is found, everything else is, and nothing grows beyond its bound.

use shadowtap::tap::{Limits, TapConfig};

use crate::support::flood::{KINDS, peaceful, play};
use crate::support::lossy::{Lost, lose};

#[test]
fn what_tcp_repairs_is_found_to_the_last_request() {
    for one_in in [1000, 100, 20] {
        for seed in 0..2 {
            let found = lose(Lost::BeforeCapture, one_in, seed);
            assert!(found.lost > 0, "{found:?}");
            assert_eq!(found.false_requests, 0, "{found:?}");
            assert_eq!(found.false_answers, 0, "{found:?}");
            assert_eq!(found.replayed, found.sent, "{found:?}");
            assert_eq!(found.judged, found.sent, "{found:?}");
        }
    }
}

#[test]
fn what_the_capture_misses_costs_the_exchanges_that_it_was_in_and_no_other() {
    for one_in in [1000, 100, 20] {
        for seed in 0..2 {
            let found = lose(Lost::AfterCapture, one_in, seed);
            println!("1/{one_in}: {found:?}");
            assert_eq!(found.false_requests, 0, "{found:?}");
            assert_eq!(found.false_answers, 0, "{found:?}");
            assert!(found.best < found.sent, "{found:?}");
            // Found, but for bytes right behind a hole that may be part of a body, which are marked.
            assert_eq!(found.replayed + found.unproven, found.best, "{found:?}");
            let judged = found.judged + found.unproven_judged;
            // An answer behind a hole may have lost its request: then it is nobody's.
            assert!(judged <= found.best_judged, "{found:?}");
            assert!(found.best_judged - judged <= found.lost / 100, "{found:?}");
            assert!(found.unproven <= found.lost / 2, "{found:?}");
        }
    }
}

/// A twentieth of each, as debug builds are slow; `make trust` plays all of it.
#[test]
fn floods_stay_within_the_bounds_and_an_honest_connection_loses_nothing() {
    let limits = Limits {
        memory: 16 << 20,
        connections: 20_000,
        ..Limits::default()
    };
    for (name, whole, kind) in KINDS {
        let config = TapConfig {
            limits,
            ..TapConfig::default()
        };
        let flooded = play(kind, whole / 20, config);
        println!(
            "{name}: {} packets, {} bytes held",
            flooded.packets, flooded.held
        );
        assert_eq!(
            flooded.account.check(),
            Ok(()),
            "{name}: {:?}",
            flooded.account
        );
        assert!(
            flooded.held <= limits.memory,
            "{name}: {} bytes",
            flooded.held
        );
        assert_eq!(flooded.found, [flooded.honest; 2], "{name}");
    }
}

#[test]
fn without_a_flood_an_honest_connection_loses_nothing_either() {
    let flooded = play(|it, n| peaceful(it, 500, n), 20_000, TapConfig::default());
    assert_eq!(flooded.found, [flooded.honest; 2]);
    assert_eq!(flooded.account.check(), Ok(()));
}
