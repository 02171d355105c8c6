//! Queues, the schedule, and stopping: nothing grows without bound, nothing hangs, everything is accounted for.

use std::io::Read;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use shadowtap::account::{Account, Counter, Reason};
use shadowtap::exchange::Completeness;
use shadowtap::replay::{Outcome, Pacer, Replay, Schedule, WhenFull};
use shadowtap::time::Timestamp;

use super::bench::{
    Act, Bench, LONG, OK, Target, answered, failed, get, listener, live, request, skipped, until,
};
use crate::support::rng::Rng;

#[test]
fn some_requests_are_refused_at_the_door() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |config| config.max_body = 3);
    let cases: &[(&[u8], Reason)] = &[
        (b"GET / HTTP/1.1\r\nsHADOWTAP: 1\r\n\r\n", Reason::Marked),
        (b"CONNECT a:443 HTTP/1.1\r\n\r\n", Reason::TunnelRequest),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody",
            Reason::BodyTooLarge,
        ),
    ];
    for (message, reason) in cases {
        bench.offer(1, message);
        assert_eq!(skipped(&bench.next()), *reason);
    }
    bench.offer_as(1, &get("/"), |request| request.doubts.head = true);
    assert_eq!(skipped(&bench.next()), Reason::Ambiguous);
    bench.offer_as(1, &get("/"), |request| {
        request.completeness = Completeness::Incomplete(Reason::RequestGap);
    });
    let end = bench.finish();
    assert_eq!(end.snapshot.account.get(Counter::ReplaysOffered), 4);
    assert!(end.outcomes.is_empty() && target.connections().is_empty());
}

#[test]
fn live_a_full_queue_drops_the_newest_within_its_bounds() {
    let target = Target::start(|_| Act::Hang);
    let mut bench = Bench::start(target.config(), |config| {
        config.queue_bytes = 1 << 20;
        config.deadlines.first_byte = LONG;
        config.deadlines.answer = LONG;
    });
    let mut message = b"POST / HTTP/1.1\r\nContent-Length: 10000\r\n\r\n".to_vec();
    message.resize(message.len() + 10_000, b'x');
    for connection in 0..10_000 {
        bench.offer(connection, &message);
    }
    let snapshot = bench.engine.handle().snapshot();
    assert!(snapshot.queued_bytes <= 1 << 20);
    assert!(snapshot.connections <= 256);
    assert_eq!(snapshot.in_flight(), snapshot.queued_items as u64);
    let full = snapshot.account.dropped(Reason::QueueFull)
        + snapshot.account.dropped(Reason::ConnectionShed);
    assert!(full > 9_800, "{snapshot:?}");
    let end = bench.drain(Duration::ZERO);
    assert_eq!(stopped(&end.snapshot.account), 10_000 - full);
}

#[test]
fn live_a_connection_that_lost_a_request_is_left_out_until_it_ends() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let target = Target::start(move |_| {
        let _ = gate.lock().expect("no panic").recv_timeout(LONG);
        Act::Answer(OK.to_vec())
    });
    let mut bench = Bench::start(target.config(), |config| {
        config.queue_items = 3;
        config.deadlines.first_byte = LONG;
        config.deadlines.answer = LONG;
    });
    for connection in [1, 1, 2, 2, 1] {
        bench.offer(connection, &get("/"));
    }
    assert_eq!(skipped(&bench.next()), Reason::QueueFull);
    assert_eq!(skipped(&bench.next()), Reason::QueueFull);
    drop(go);
    for _ in 0..3 {
        answered(bench.next());
    }
    // There is room again, and a connection that has lost nothing gets it.
    for connection in [1, 2] {
        bench.offer(connection, &get("/"));
        assert_eq!(skipped(&bench.next()), Reason::ConnectionShed);
        bench.closed(connection);
    }
    for connection in [3, 1, 2] {
        bench.offer(connection, &get("/"));
        answered(bench.next());
    }
    bench.finish();
}

#[test]
fn live_what_reaches_the_target_are_whole_beginnings_of_connections() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let (mut shed, mut sent) = (0, 0);
    for seed in 0..6 {
        let mut rng = Rng::new(seed);
        let mut bench = Bench::start(target.config(), |config| {
            config.queue_items = rng.range(8, 60);
            config.max_connections = 4.try_into().expect("not zero");
        });
        for _ in 0..3000 {
            let connection = rng.range(0, 40) as u64;
            if rng.one_in(50) {
                bench.closed(connection);
            } else {
                bench.offer(connection, &get("/"));
            }
        }
        let closed = bench.closings.clone();
        let end = bench.finish();
        let mut outcomes = end.outcomes;
        outcomes.sort_unstable_by_key(|replay| replay.request.id.0);
        let mut left_out = std::collections::HashSet::new();
        let mut closed = closed.iter().peekable();
        for replay in outcomes {
            while let Some((_, connection)) = closed.next_if(|&&(at, _)| at < replay.request.id.0) {
                left_out.remove(connection);
            }
            let connection = replay.request.connection.0;
            match &replay.outcome {
                Outcome::Skipped(Reason::QueueFull | Reason::ConnectionShed) => {
                    left_out.insert(connection);
                    shed += 1;
                }
                Outcome::Answered(_) => {
                    assert!(!left_out.contains(&connection), "seed {seed}");
                    sent += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(shed > 0 && sent > 0, "{shed} {sent}");
}

#[test]
fn from_a_file_a_full_queue_makes_the_reader_wait() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |config| {
        config.when_full = WhenFull::Block;
        config.queue_items = 2;
    });
    for n in 0..200 {
        bench.offer(n % 7, &get("/"));
    }
    bench.finish().all_answered(200);
}

#[test]
fn live_what_is_beyond_the_bandwidth_is_dropped() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |config| {
        config.bandwidth = Some("1B/s".parse().expect("a bandwidth"));
    });
    // The first goes on credit, which takes longer to pay back than anybody waits here.
    let mut message = b"POST / HTTP/1.1\r\nContent-Length: 10000\r\n\r\n".to_vec();
    message.resize(message.len() + 10_000, b'x');
    for connection in 0..10 {
        bench.offer(connection, &message);
    }
    let end = bench.finish();
    let account = &end.snapshot.account;
    assert_eq!(account.get(Counter::ReplaysAnswered), 1);
    assert_eq!(account.dropped(Reason::BandwidthLimited), 9);
    assert_eq!(account.check(), Ok(()));
}

#[test]
fn from_a_file_the_bandwidth_makes_the_reader_wait() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |config| {
        config.when_full = WhenFull::Block;
        config.bandwidth = Some("1KiB/s".parse().expect("a bandwidth"));
    });
    for _ in 0..100 {
        bench.offer(1, &get("/"));
    }
    bench.finish().all_answered(100);
}

#[test]
fn nobody_waits_for_bandwidth_beyond_the_end() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |config| {
        config.when_full = WhenFull::Block;
        config.bandwidth = Some("1B/s".parse().expect("a bandwidth"));
    });
    bench.offer(1, &get("/first"));
    let handle = bench.engine.handle();
    thread::scope(|scope| {
        scope.spawn(|| bench.offer(1, &get("/second")));
        handle.stop(Duration::ZERO);
    });
    let end = bench.drain(Duration::ZERO);
    assert_eq!(end.snapshot.account.get(Counter::ReplaysOffered), 2);
    assert_eq!(end.snapshot.account.check(), Ok(()));
}

#[test]
fn a_slow_connection_does_not_delay_the_others() {
    let (go, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let target = Target::start(move |seen| {
        if seen.target == "/slow" {
            let _ = gate.lock().expect("no panic").recv_timeout(LONG);
        }
        Act::Answer(OK.to_vec())
    });
    let mut bench = Bench::start(target.config(), |config| {
        config.when_full = WhenFull::Block;
        config.deadlines.first_byte = LONG;
        config.deadlines.answer = LONG;
    });
    bench.pacer = Pacer::new(Schedule::Original {
        speed: 10.0,
        skip_idle: None,
    });
    for n in 0..20 {
        let (connection, path) = match n {
            0 => (1, "/slow"),
            10 => (1, "/behind"),
            _ => (2, "/fast"),
        };
        bench.offer_as(connection, &get(path), |request| {
            request.last_byte = Timestamp::from_nanos(n * 10_000_000);
        });
    }
    for _ in 0..18 {
        assert_eq!(bench.next().request.head.target(), b"/fast");
    }
    go.send(()).expect("the target waits");
    let end = bench.finish();
    assert_eq!(end.answered, 20);
    let behind = end.outcomes.last().expect("the last one");
    assert_eq!(behind.request.head.target(), b"/behind");
    assert_eq!(end.snapshot.lateness.len(), 20);
}

#[test]
fn stopping_hangs_on_nothing() {
    let target = Target::start(|_| Act::Hang);
    let mut bench = Bench::start(target.config(), |config| {
        config.when_full = WhenFull::Block;
        config.queue_items = 3;
        config.deadlines.first_byte = LONG;
        config.deadlines.answer = LONG;
    });
    let handle = bench.engine.handle();
    let stopper = thread::spawn(move || {
        until(|| handle.snapshot().queued_items == 3);
        handle.stop(Duration::ZERO);
    });
    // The fourth waits for room until the stop.
    for _ in 0..6 {
        bench.offer(1, &get("/"));
    }
    stopper.join().expect("no panic");
    let end = bench.finish();
    assert_eq!(stopped(&end.snapshot.account), 6);
}

/// All that the end of the grace period cost, sent or not.
fn stopped(account: &Account) -> u64 {
    account.dropped(Reason::Stopped) + account.dropped(Reason::StoppedUnanswered)
}

#[test]
fn what_was_sent_before_the_grace_period_ended_is_not_said_to_be_untried() {
    // Whoever sends the skipped ones again must not send these twice.
    let (arrived, arrivals) = mpsc::channel();
    let target = Target::start(move |_| {
        let _ = arrived.send(());
        Act::Hang
    });
    let mut bench = Bench::start(target.config(), |config| {
        config.deadlines.first_byte = LONG;
    });
    bench.offer(1, b"POST /sent HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
    bench.offer(1, &get("/behind"));
    arrivals.recv_timeout(LONG).expect("a request");
    let end = bench.drain(Duration::ZERO);
    assert_eq!(end.snapshot.account.dropped(Reason::StoppedUnanswered), 1);
    assert_eq!(end.snapshot.account.dropped(Reason::Stopped), 1);
    for replay in &end.outcomes {
        match replay.request.head.target() {
            b"/sent" => assert_eq!(failed(replay), Reason::StoppedUnanswered),
            _ => assert_eq!(skipped(replay), Reason::Stopped),
        }
    }
}

#[test]
fn what_was_sent_in_part_when_the_grace_period_ended_is_not_said_to_be_untried() {
    let listener = listener();
    let address = listener.local_addr().expect("an address");
    let mut bench = Bench::start(live(address), |config| {
        config.deadlines.first_byte = LONG;
    });
    let body = vec![b'x'; 12 << 20];
    let head = format!("PUT / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    bench.offer(1, &[head.as_bytes(), &body].concat());
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.read_exact(&mut [0]).expect("its first byte");
    let end = bench.drain(Duration::ZERO);
    assert_eq!(failed(&end.outcomes[0]), Reason::StoppedUnanswered);
}

#[test]
fn stopping_wakes_a_schedule_that_waits() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |_| {});
    bench.pacer = Pacer::new(Schedule::Original {
        speed: 1.0,
        skip_idle: None,
    });
    let handle = bench.engine.handle();
    let stopper = thread::spawn(move || {
        until(|| handle.snapshot().account.get(Counter::ReplaysAnswered) == 1);
        handle.stop(LONG);
    });
    for hours in 0..3 {
        bench.offer_as(1, &get("/"), |request| {
            request.last_byte = Timestamp::ZERO.after(Duration::from_secs(hours * 3600));
        });
    }
    stopper.join().expect("no panic");
    let end = bench.finish();
    assert_eq!(end.answered, 1);
    assert_eq!(end.snapshot.account.dropped(Reason::Stopped), 2);
}

#[test]
fn dropping_an_engine_settles_everything() {
    let target = Target::start(|_| Act::Hang);
    let Bench {
        engine,
        mut feeder,
        outcomes,
        ..
    } = Bench::start(target.config(), |_| {});
    feeder.offer(Arc::new(request(1, 1, &get("/1"))));
    feeder.flush();
    until(|| target.targets() == [["/1"]]);
    drop(engine);
    feeder.offer(Arc::new(request(2, 1, &get("/2"))));
    drop(feeder);
    let outcomes: Vec<Replay> = outcomes.iter().collect();
    assert_eq!(outcomes.len(), 2);
    assert_eq!(failed(&outcomes[0]), Reason::StoppedUnanswered);
    assert_eq!(skipped(&outcomes[1]), Reason::Stopped);
}

#[test]
fn whatever_happens_each_request_is_settled_once() {
    let mut answered = 0;
    for seed in 0..8 {
        let mut rng = Rng::new(seed);
        let moods = Mutex::new(Rng::new(seed + 100));
        let target = Target::start(move |_| match moods.lock().expect("no panic").range(0, 9) {
            0 => Act::Reset,
            1 => Act::AnswerAndClose(Vec::new()),
            2 => Act::AnswerAndClose(OK.to_vec()),
            3 => Act::AnswerAndClose(OK[..20].to_vec()),
            4 => Act::Answer(b"no HTTP\r\n\r\n".to_vec()),
            5 => Act::Hang,
            _ => Act::Answer(OK.to_vec()),
        });
        let mut bench = Bench::start(target.config(), |config| {
            config.threads = rng.range(1, 3).try_into().expect("not zero");
            config.max_connections = rng.range(1, 9).try_into().expect("not zero");
            config.queue_items = rng.range(1, 50);
            config.deadlines.first_byte = Duration::from_millis(5);
            config.retry_safe = u32::from(rng.one_in(2));
            config.patience = Duration::from_millis(50);
            config.idle = Duration::from_millis(10);
            if rng.one_in(2) {
                config.when_full = WhenFull::Block;
            }
        });
        for _ in 0..300 {
            let connection = rng.range(0, 12) as u64;
            if rng.one_in(10) {
                bench.closed(connection);
            } else {
                bench.offer(connection, &get("/"));
            }
        }
        let offered = bench.offered;
        let grace = Duration::from_millis(rng.range(0, 200) as u64);
        let end = bench.drain(grace);
        let mut settled: Vec<u64> = end
            .outcomes
            .iter()
            .map(|replay| replay.request.id.0)
            .collect();
        settled.sort_unstable();
        assert!(settled.into_iter().eq(1..=offered), "seed {seed}");
        let account = &end.snapshot.account;
        assert_eq!(account.get(Counter::ReplaysOffered), offered, "seed {seed}");
        answered += end.answered;
    }
    assert!(answered > 0);
}
