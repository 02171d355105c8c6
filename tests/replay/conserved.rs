//! The law of conservation, over random traffic, faults and settings: whatever enters a stage leaves it through one counted
//! exit, from the packets to the target's own log.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use shadowtap::account::{Account, Counter};
use shadowtap::exchange::{Event, Exchange, Joiner, Request};
use shadowtap::http1::MessageLimits;
use shadowtap::record::{Options, Writer};
use shadowtap::replay::{ReplayConfig, WhenFull};
use shadowtap::restraint::Share;
use shadowtap::tap::{Limits, Tap, TapConfig};
use shadowtap::time::Timestamp;
use shadowtap::wire::{LinkType, Packet};

use super::bench::{Act, Bench, OK, Target};
use crate::support::rng::Rng;
use crate::support::scenario::{Weather, scenario};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_comes_in_goes_out_once(seed: u64) {
        let mut rng = Rng::new(seed);
        let (mut account, exchanges, requests) = captured(&mut rng);
        prop_assert_eq!(account.check(), Ok(()));
        let whole = requests.iter().filter(|it| it.completeness.is_whole()).count() as u64;
        prop_assert_eq!(account.get(Counter::RequestsWhole), whole);

        account.merge(&recorded(&mut rng, &exchanges));
        prop_assert_eq!(account.check(), Ok(()));
        // Some formats hold messages rather than exchanges.
        prop_assert!(account.get(Counter::RecordsOffered) >= exchanges.len() as u64);

        let target = moody(&mut rng);
        let config = settings(&mut rng, target.config());
        let mut bench = Bench::start(config, |_| {});
        for request in &requests {
            bench.feeder.offer(Arc::clone(request));
        }
        bench.feeder.flush();
        let end = bench.drain(Duration::from_millis(rng.range(0, 300) as u64));
        let replays = &end.snapshot.account;
        prop_assert_eq!(replays.get(Counter::ReplaysOffered), whole);
        prop_assert_eq!(end.outcomes.len() as u64, whole);
        account.merge(replays);
        prop_assert_eq!(account.check(), Ok(()));

        // The other end's own log: nothing that was not offered, nothing twice, and everything that was answered.
        let mut offered: HashMap<Vec<u8>, u64> = HashMap::new();
        for request in &requests {
            *offered.entry(request.head.target().to_vec()).or_default() += 1;
        }
        let mut seen = 0;
        for served in target.targets().into_iter().flatten() {
            seen += 1;
            let left = offered.get_mut(served.as_bytes());
            prop_assert!(left.is_some(), "{served} was never captured");
            if let Some(left) = left {
                prop_assert!(*left > 0, "{served} came more often than it was captured");
                *left -= 1;
            }
        }
        prop_assert!(seen >= end.answered, "{seen} came, {} were answered", end.answered);
    }
}

/// What a tap with random bounds makes of random traffic of which some is lost, cut or seen twice.
fn captured(rng: &mut Rng) -> (Account, Vec<Exchange>, Vec<Arc<Request>>) {
    let weather = if rng.one_in(2) {
        Weather::Calm
    } else {
        Weather::Rough
    };
    let v6 = rng.one_in(2);
    let scenario = scenario(rng, weather, v6);
    let mut tap = Tap::new(TapConfig {
        limits: Limits {
            message: MessageLimits {
                body: *rng.pick(&[64, 4096, 1 << 20]),
                ..MessageLimits::default()
            },
            connections: *rng.pick(&[1, 3, 1 << 10]),
            memory: *rng.pick(&[32 << 10, 1 << 20, 64 << 20]),
            ..Limits::default()
        },
        ..TapConfig::default()
    });
    let lost = *rng.pick(&[1000, 50, 5]);
    let sheds = rng.one_in(2);
    let mut joiner = Joiner::new(1 << 10);
    let (mut exchanges, mut requests) = (Vec::new(), Vec::new());
    let mut take = |tap: &mut Tap, joiner: &mut Joiner| {
        while let Some(event) = tap.poll() {
            if let Event::Request(request) = &event {
                requests.push(Arc::clone(request));
            }
            exchanges.extend(joiner.push(event));
        }
    };
    for (conversation, tcp) in scenario.packets() {
        if rng.one_in(lost) {
            continue;
        }
        if sheds && rng.one_in(20) {
            tap.keep(Share::of(rng.range(0, 120) as f64 / 100.0));
        }
        let frame = conversation.ip(tcp);
        let end = if rng.one_in(100) {
            rng.range(0, frame.len())
        } else {
            frame.len()
        };
        for _ in 0..1 + usize::from(rng.one_in(30)) {
            tap.packet(&Packet {
                time: Timestamp::from_nanos(tcp.at),
                link: LinkType(101),
                wire_len: frame.len() as u32,
                data: &frame[..end],
            });
        }
        take(&mut tap, &mut joiner);
    }
    tap.finish();
    take(&mut tap, &mut joiner);
    exchanges.extend(joiner.finish());
    (tap.account().clone(), exchanges, requests)
}

/// What a recording in a random format makes of them.
fn recorded(rng: &mut Rng, exchanges: &[Exchange]) -> Account {
    let folder = tempfile::tempdir().expect("a folder");
    let name = *rng.pick(&["a.gor", "a.jsonl", "a.har", "a.pcap", "a.gor.gz"]);
    let mut writer =
        Writer::create(&folder.path().join(name), Options::default()).expect("created");
    for exchange in exchanges {
        writer.exchange(exchange).expect("written");
    }
    let (account, written) = writer.finish();
    written.expect("written");
    account
}

/// A target of many moods.
fn moody(rng: &mut Rng) -> Target {
    let seed = rng.next();
    let asked = AtomicU64::new(0);
    let moods = rng.range(1, 8);
    Target::start(move |_| {
        let turn = asked.fetch_add(1, Ordering::Relaxed);
        let mut rng = Rng::new(seed ^ turn.wrapping_mul(0x9e37_79b9));
        match rng.range(0, moods) {
            0..=2 => Act::Answer(OK.to_vec()),
            3 => Act::AnswerAndClose(OK.to_vec()),
            4 => Act::Reset,
            5 => Act::Answer(b"what?\r\n\r\n".to_vec()),
            6 => Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut".to_vec()),
            _ => Act::Hang,
        }
    })
}

fn settings(rng: &mut Rng, config: ReplayConfig) -> ReplayConfig {
    let mut config = ReplayConfig {
        when_full: *rng.pick(&[WhenFull::Block, WhenFull::DropNewest]),
        queue_items: *rng.pick(&[1, 8, 10_000]),
        queue_bytes: *rng.pick(&[4 << 10, 64 << 20]),
        max_body: *rng.pick(&[10, 1 << 20]),
        max_connections: (*rng.pick(&[1, 4, 256])).try_into().expect("above zero"),
        replay_ambiguous: rng.one_in(2),
        patience: Duration::from_millis(50),
        ..config
    };
    config.deadlines.first_byte = Duration::from_millis(30);
    config.deadlines.answer = Duration::from_millis(60);
    if rng.one_in(4) {
        config.bandwidth = Some("64KiB/s".parse().expect("a bandwidth"));
    }
    if rng.one_in(4) {
        config.limit = Some("100/s".parse().expect("a rate"));
    }
    config
}

/// The same cases every time; others, and as many as it says, when `PROPTEST_CASES` is set.
fn config() -> ProptestConfig {
    let default = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return default;
    }
    ProptestConfig {
        cases: 48,
        rng_seed: RngSeed::Fixed(906),
        ..default
    }
}
