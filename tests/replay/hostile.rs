//! Targets that are absent, slow, wrong or endless: each request lost to them has a name.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use shadowtap::account::{Counter, Reason};
use shadowtap::exchange::Completeness;
use shadowtap::replay::{Outcome, ReplayConfig, WhenFull};

use super::bench::{
    Act, Bench, LONG, OK, Target, answered, closed_port, failed, get, listener, live, skipped,
    until,
};
use crate::support::run::PROGRAM;

#[test]
fn what_a_target_does_wrong_has_a_name() {
    let cases: [(fn() -> Act, Reason); 10] = [
        (|| Act::Reset, Reason::ConnectionLost),
        (|| Act::AnswerAndClose(Vec::new()), Reason::ConnectionLost),
        (
            || Act::AnswerAndClose(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
            Reason::ConnectionLost,
        ),
        (
            || Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\nCont".to_vec()),
            Reason::AnswerCut,
        ),
        (
            || Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab".to_vec()),
            Reason::AnswerCut,
        ),
        (
            || Act::Answer(b"\0\x01\x02 rubbish of all kinds\r\n\r\n".to_vec()),
            Reason::AnswerMalformed,
        ),
        (
            || {
                Act::Answer(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".to_vec(),
                )
            },
            Reason::AnswerMalformed,
        ),
        (
            || Act::Answer(b"HTTP/1.1 102 Processing\r\n\r\n".repeat(500)),
            Reason::AnswerMalformed,
        ),
        (|| Act::Hang, Reason::FirstByteTimeout),
        (|| Act::Endless, Reason::AnswerTimeout),
    ];
    for (act, reason) in cases {
        let target = Target::start(move |_| act());
        let mut bench = Bench::start(target.config(), |config| {
            if reason == Reason::FirstByteTimeout {
                config.deadlines.first_byte = Duration::from_millis(50);
            }
            if reason == Reason::AnswerTimeout {
                config.deadlines.answer = Duration::from_secs(1);
            }
        });
        bench.offer(1, &get("/"));
        assert_eq!(failed(&bench.next()), reason);
        // The next one is not hurt by it.
        bench.offer(1, &get("/"));
        assert_eq!(failed(&bench.next()), reason);
        let end = bench.finish();
        assert_eq!(end.snapshot.account.dropped(reason), 2);
    }
}

#[test]
fn a_target_that_cannot_be_reached_has_a_name() {
    let (_closed_port, address) = closed_port();
    let mut bench = Bench::start(live(address), |_| {});
    bench.offer(1, &get("/"));
    assert_eq!(failed(&bench.next()), Reason::ConnectFailed);
    bench.finish();

    let config = ReplayConfig::live("http://no-such-host.invalid".parse().expect("a target"));
    let mut bench = Bench::start(config, |config| {
        config.deadlines.connect = Duration::from_secs(10);
    });
    for _ in 0..10 {
        bench.offer(1, &get("/"));
        assert_eq!(failed(&bench.next()), Reason::ResolveFailed);
    }
    assert!(!bench.engine.handle().target_state().is_resolved());
    bench.finish();
}

#[test]
fn a_name_is_resolved_to_every_address() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    // `localhost` may be ::1 first, where nobody listens.
    let config = ReplayConfig::live(
        format!("http://localhost:{}", target.address.port())
            .parse()
            .expect("a target"),
    );
    let mut bench = Bench::start(config, |_| {});
    bench.offer(1, &get("/"));
    answered(bench.next());
    assert!(bench.engine.handle().target_state().is_resolved());
    bench.finish();
}

#[test]
fn an_answer_before_the_end_of_a_large_body_is_taken() {
    // One target closes after its early answer, the other keeps the connection and never reads on.
    for closes in [true, false] {
        let listener = listener();
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a stream");
                let mut some = [0; 1000];
                stream.read_exact(&mut some).expect("the head");
                stream
                    .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!")
                    .expect("the answer");
                if closes {
                    stream.shutdown(std::net::Shutdown::Write).expect("open");
                }
                let _ = stream.peek(&mut some);
                thread::spawn(move || {
                    // Held open until the other end goes away.
                    let mut byte = [0];
                    while stream.write(&byte).is_ok() {
                        thread::park_timeout(Duration::from_millis(20));
                        byte = [0];
                    }
                });
            }
        });
        let mut bench = Bench::start(live(address), |_| {});
        let body = vec![b'x'; 12 << 20];
        let mut message =
            format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        message.extend_from_slice(&body);
        bench.offer(1, &message);
        let answer = answered(bench.next());
        assert_eq!(answer.response.head.status(), 413);
        assert_eq!(answer.response.body.content(), b"no!" as &[u8]);
        bench.finish();
    }
}

#[test]
fn a_target_that_stops_reading_is_given_up() {
    // The kernel accepts for it, until its buffers are full.
    let listener = listener();
    let address = listener.local_addr().expect("an address");
    let mut bench = Bench::start(live(address), |config| {
        config.deadlines.first_byte = Duration::from_millis(50);
    });
    let body = vec![b'x'; 12 << 20];
    let head = format!("PUT / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    bench.offer(1, &[head.as_bytes(), &body].concat());
    assert_eq!(failed(&bench.next()), Reason::FirstByteTimeout);
    bench.finish();
}

#[test]
fn a_dead_target_is_left_alone_and_found_again() {
    let (closed_port, address) = closed_port();
    let mut bench = Bench::start(live(address), |_| {});
    for n in 0..5 {
        bench.offer(n, &get("/"));
        assert_eq!(failed(&bench.next()), Reason::ConnectFailed);
    }
    bench.offer(5, &get("/"));
    assert_eq!(skipped(&bench.next()), Reason::BreakerOpen);
    closed_port.listen(128).expect("a port");
    let _target = Target::on(closed_port.into(), |_| Act::Answer(OK.to_vec()));
    until(|| {
        bench.offer(6, &get("/"));
        matches!(bench.next().outcome, Outcome::Answered(_))
    });
    bench.offer(7, &get("/"));
    answered(bench.next());
    bench.finish();
}

#[test]
fn why_a_target_is_left_alone_is_said() {
    let target = Target::start(|_| Act::Hang);
    // As many as it takes.
    let mut recording = tempfile::Builder::new()
        .suffix(".gor")
        .tempfile()
        .expect("a temporary file");
    for n in 0..5 {
        write!(
            recording,
            "1 {n:024} {n}\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\n🐵🙈🙉\n"
        )
        .expect("a temporary file");
    }
    let output = Command::new(PROGRAM)
        .arg("replay")
        .arg(recording.path())
        .args(["--to", &format!("http://{}", target.address)])
        .args(["--speed", "max", "--first-byte-timeout", "50ms"])
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("the program can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said
        .lines()
        .find(|line| line.contains("the target keeps failing"))
        .unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("did not begin to answer in time"), "{line}");
}

#[test]
fn a_file_waits_for_a_target_that_comes_late() {
    let (closed_port, address) = closed_port();
    let mut bench = Bench::start(live(address), |config| config.when_full = WhenFull::Block);
    for n in 0..50 {
        bench.offer(n % 3, &get("/"));
    }
    for _ in 0..5 {
        assert_eq!(failed(&bench.next()), Reason::ConnectFailed);
    }
    closed_port.listen(128).expect("a port");
    let _target = Target::on(closed_port.into(), |_| Act::Answer(OK.to_vec()));
    let end = bench.finish();
    let account = &end.snapshot.account;
    assert_eq!(account.dropped(Reason::BreakerOpen), 0);
    assert_eq!(
        account.get(Counter::ReplaysAnswered) + account.dropped(Reason::ConnectFailed),
        50
    );
    assert!(end.answered >= 30, "{account:?}");
}

#[test]
fn a_file_does_not_wait_for_ever() {
    let (_closed_port, address) = closed_port();
    let mut bench = Bench::start(live(address), |config| {
        config.when_full = WhenFull::Block;
        config.patience = Duration::from_millis(300);
    });
    for _ in 0..50 {
        bench.offer(1, &get("/"));
    }
    let end = bench.finish();
    assert!(end.snapshot.account.dropped(Reason::BreakerOpen) > 0);
}

#[test]
fn a_kept_connection_that_the_target_closed_is_noticed() {
    let target = Target::start(|_| Act::AnswerAndClose(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |_| {});
    let handle = bench.engine.handle();
    for _ in 0..3 {
        bench.offer(1, b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        answered(bench.next());
        until(|| handle.snapshot().connections == 0);
    }
    bench.finish();
}

#[test]
fn nothing_is_sent_twice_unless_asked_and_safe() {
    for (method, retries, expected) in [("GET", 0, 1), ("GET", 1, 2), ("POST", 1, 1)] {
        let target = Target::start(|_| Act::Reset);
        let mut bench = Bench::start(target.config(), |config| config.retry_safe = retries);
        let message = format!("{method} / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        bench.offer(1, message.as_bytes());
        assert_eq!(failed(&bench.next()), Reason::ConnectionLost);
        bench.finish();
        assert_eq!(target.connections().len(), expected, "{method} {retries}");
    }
}

#[test]
fn an_answer_over_the_bound_is_not_kept() {
    let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
    bytes.resize(bytes.len() + 100_000, b'x');
    let target = Target::start(move |_| Act::Answer(bytes.clone()));
    let mut bench = Bench::start(target.config(), |config| config.max_answer = 1000);
    for reused in [false, true] {
        bench.offer(1, &get("/"));
        let answer = answered(bench.next());
        let response = answer.response;
        assert_eq!(
            response.completeness,
            Completeness::Incomplete(Reason::ResponseTooLarge)
        );
        assert_eq!(
            response.body.missing + response.body.wire.len() as u64,
            100_000
        );
        assert_eq!(answer.timings.reused, reused);
    }
    bench.finish();
}

#[test]
fn many_large_answers_at_a_time_are_not_all_kept() {
    const PART: usize = 300_000;
    let (arrived, arrivals) = mpsc::channel();
    let gate = Arc::new(std::sync::Barrier::new(11));
    let open = Arc::clone(&gate);
    let target = Target::start(move |_| {
        let (arrived, open) = (arrived.clone(), Arc::clone(&open));
        Act::Drive(Box::new(move |stream| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * PART);
            stream.write_all(head.as_bytes()).expect("open");
            stream.write_all(&vec![b'x'; PART]).expect("open");
            arrived.send(()).expect("the test waits");
            open.wait();
            stream.write_all(&vec![b'x'; PART]).expect("open");
        }))
    });
    let mut bench = Bench::start(target.config(), |config| config.answer_bytes = 1 << 20);
    for connection in 0..10 {
        bench.offer(connection, &get("/"));
    }
    for _ in 0..10 {
        arrivals.recv_timeout(LONG).expect("half an answer");
    }
    gate.wait();
    let mut kept = 0;
    for _ in 0..10 {
        let body = answered(bench.next()).response.body;
        assert_eq!(
            body.wire.len() + usize::try_from(body.missing).expect("small"),
            2 * PART
        );
        kept += body.wire.len();
    }
    assert!(kept < 10 * PART, "{kept}");
    // What is over does not outlast them.
    bench.offer(1, &get("/"));
    arrivals.recv_timeout(LONG).expect("half an answer");
    for _ in 0..10 {
        let gate = Arc::clone(&gate);
        thread::spawn(move || gate.wait());
    }
    assert_eq!(answered(bench.next()).response.body.missing, 0);
    bench.finish();
}
