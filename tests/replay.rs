//! The replay engine against real sockets: what the target gets to the byte, and what becomes of each request.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shadowtap::account::{Counter, Reason};
use shadowtap::capture::PacketSource;
use shadowtap::capture::file::FileSource;
use shadowtap::exchange::{
    Completeness, ConnectionId, Doubts, Endpoints, Event, ExchangeId, Request,
};
use shadowtap::http1::{Body, Framing, RequestHead, framing, head_length};
use shadowtap::replay::{
    Answer, Engine, Feeder, Outcome, Replay, ReplayConfig, Schedule, Snapshot, Tls, WhenFull,
};
use shadowtap::tap::{Tap, TapConfig};
use shadowtap::time::Timestamp;

use crate::support::corpus;
use crate::support::run::in_root;

#[test]
fn the_target_gets_the_captured_bytes() {
    let messages: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"gEt /a/../b%2f?x=|\"' HTTP/1.1\r\nhOsT:a\r\nX-A:  1 \r\nx-a: 2\r\nAccept-Encoding: br\r\n\r\n",
        b"GET http://other.example/x HTTP/1.1\r\nHost: other.example\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /lf HTTP/1.1\nHost: a\nX: 1\n\n",
        b"GET /fold HTTP/1.1\r\nHost: a\r\nX: 1\r\n  2\r\n\t3\r\n\r\n",
        b"GET /high HTTP/1.1\r\nHost: a\r\nX: \xe4\xff\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na\0\r\nb",
        b"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=\"1\"\r\nhello\r\n00A \r\n0123456789\r\n0\r\nTrailer: v\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n\r\n",
        b"GET /old HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |config| config.marker = None);
    for message in messages {
        bench.offer(1, message);
    }
    let end = bench.finish();
    end.all_answered(messages.len());
    let connections = target.connections();
    assert_eq!(connections.len(), 2, "kept, but for the HTTP/1.0 answer's");
    assert_eq!(text(&connections.concat()), text(&messages.concat()),);
}

#[test]
fn every_captured_request_reaches_the_target_as_it_was() {
    let mut captures: Vec<(String, Vec<u8>)> = corpus::all()
        .into_iter()
        .map(|case| (case.name, case.file))
        .collect();
    // Captures of other projects, where they lie beside the repository.
    if let Ok(public) = fs::read_dir(in_root("../shared/corpus/public")) {
        for path in public.map(|entry| entry.expect("an entry").path()) {
            if let Ok(file) = fs::read(&path) {
                captures.push((path.display().to_string(), file));
            }
        }
    }
    let listener = listener();
    let mut config = live(listener.local_addr().expect("an address"));
    config.deadlines.body_asked = Duration::from_millis(1);
    config.max_body = usize::MAX;
    config.when_full = WhenFull::Block;
    config.marker = None;
    config.replay_ambiguous = true;
    let (lengths, due) = mpsc::channel();
    let (sender, seen) = mpsc::channel();
    thread::spawn(move || {
        let mut stream: Option<TcpStream> = None;
        for length in due {
            let mut message = vec![0; length];
            let mut read = 0;
            while read < length {
                let open = stream.get_or_insert_with(|| listener.accept().expect("a stream").0);
                match open.read(&mut message[read..]) {
                    Ok(len) if len > 0 => read += len,
                    _ if read == 0 => stream = None,
                    _ => break,
                }
            }
            sender.send(message).expect("the test waits");
            if let Some(open) = &mut stream {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                open.write_all(answer).expect("the engine waits");
            }
        }
    });
    let mut bench = Bench::start(config, |_| {});
    let mut count = 0;
    for (name, file) in captures {
        for request in whole_requests(&name, file) {
            let expected = [&request.head.bytes()[..], &request.body.wire].concat();
            lengths.send(expected.len()).expect("the server waits");
            bench.feeder.offer(Arc::new(request));
            bench.feeder.flush();
            let got = seen.recv_timeout(LONG).expect("a request");
            assert_eq!(text(&got), text(&expected), "{name}");
            let answer = answered(bench.next());
            assert_eq!(answer.response.head.status(), 200, "{name}");
            count += 1;
        }
    }
    assert!(count > 1000, "{count}");
    bench.finish();
}

/// The whole requests in a capture, but for tunnels; as far as the file can be read.
fn whole_requests(name: &str, file: Vec<u8>) -> Vec<Request> {
    let mut tap = Tap::new(TapConfig::default());
    let mut events = Vec::new();
    if let Ok(mut source) = FileSource::from_reader(Box::new(io::Cursor::new(file)), name) {
        while let Ok(Some(packet)) = source.next_packet() {
            tap.packet(&packet);
            events.extend(std::iter::from_fn(|| tap.poll()));
        }
    }
    tap.finish();
    events.extend(std::iter::from_fn(|| tap.poll()));
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::Request(request) => Some((*request).clone()),
            _ => None,
        })
        .filter(|request| request.completeness.is_whole() && request.head.method() != b"CONNECT")
        .map(|request| Request {
            connection: ConnectionId(1),
            ..request
        })
        .collect()
}

#[test]
fn only_what_was_asked_for_is_changed() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut config = ReplayConfig::live(
        format!("http://{}/base/", target.address)
            .parse()
            .expect("a target"),
    );
    config.host = "v2.example".parse().expect("a host");
    let mut bench = Bench::start(config, |_| {});
    bench.offer(
        1,
        b"POST /p?q HTTP/1.1\r\nhOST: a\r\nContent-Length: 2\r\n\r\nhi",
    );
    bench.finish().all_answered(1);
    assert_eq!(
        text(&target.connections().concat()),
        text(b"POST /base/p?q HTTP/1.1\r\nhOST: v2.example\r\nContent-Length: 2\r\nShadowtap: 1\r\n\r\nhi")
    );
}

#[test]
fn each_captured_connection_has_a_target_connection() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |_| {});
    for round in 0..4 {
        for connection in 0..10 {
            bench.offer(connection, &get(&format!("/{connection}/{round}")));
        }
    }
    bench.finish().all_answered(40);
    let seen = target.targets();
    assert_eq!(seen.len(), 10);
    for targets in seen {
        let connection = targets[0].split('/').nth(1).expect("a number");
        let expected: Vec<String> = (0..4)
            .map(|round| format!("/{connection}/{round}"))
            .collect();
        assert_eq!(targets, expected, "in order, and nobody else's");
    }
}

#[test]
fn beyond_the_bound_connections_are_shared_and_order_is_kept() {
    for threads in [1, 2] {
        let target = Target::start(|_| Act::Answer(OK.to_vec()));
        let mut bench = Bench::start(target.config(), |config| {
            config.max_connections = 3.try_into().expect("not zero");
            config.threads = threads.try_into().expect("not zero");
        });
        for round in 0..4 {
            for connection in 0..20 {
                bench.offer(connection, &get(&format!("/{connection}/{round}")));
            }
        }
        bench.finish().all_answered(80);
        let seen = target.targets();
        assert!(seen.len() <= 3);
        let mut next: HashMap<String, usize> = HashMap::new();
        for targets in seen {
            for target in targets {
                let mut parts = target.split('/').skip(1).map(str::to_owned);
                let connection = parts.next().expect("a connection");
                let round = parts.next().expect("a round");
                let due = next.entry(connection).or_default();
                assert_eq!(round, due.to_string(), "{target}");
                *due += 1;
            }
        }
        assert!(next.len() == 20 && next.values().all(|&rounds| rounds == 4));
    }
}

#[test]
fn the_target_connection_closes_with_the_captured_one() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |config| {
        config.max_connections = 1.try_into().expect("not zero");
    });
    bench.offer(1, &get("/1"));
    bench.offer(1, &get("/2"));
    bench.closed(1);
    bench.offer(2, &get("/3"));
    bench.closed(2);
    bench.closed(99);
    let handle = bench.engine.handle();
    for _ in 0..3 {
        bench.next();
    }
    until(|| handle.snapshot().connections == 0);
    let end = bench.finish();
    assert_eq!(end.answered, 3);
    assert_eq!(target.targets(), [vec!["/1", "/2"], vec!["/3"]]);
}

#[test]
fn silent_connections_are_given_up() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |config| {
        config.idle = Duration::from_millis(20);
    });
    bench.offer(1, &get("/1"));
    bench.next();
    let handle = bench.engine.handle();
    until(|| handle.snapshot().connections == 0);
    bench.offer(1, &get("/2"));
    assert_eq!(bench.finish().answered, 2);
    assert_eq!(target.targets(), [["/1"], ["/2"]]);
}

#[test]
fn answers_of_every_legal_form_are_read() {
    #[expect(clippy::type_complexity, reason = "a table: method, answer, status, content, kept")]
    let cases: &[(&str, &[u8], u16, &[u8], bool)] = &[
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", true),
        ("GET", b"HTTP/1.1 200\nTransfer-Encoding: chunked\n\n3;x\r\nabc\r\n0\r\nT: v\r\n\r\n", 200, b"abc", true),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 200, b"", true),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", true),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", true),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, b"x", true),
        ("GET", b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n", 599, b"", true),
        ("GET", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", 200, b"x", false),
        ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, b"x", false),
        ("GET", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", 200, b"x", true),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n", 200, b"x", false),
        ("GET", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x01\x02", 101, b"", false),
    ];
    for (method, answer, status, content, keeps) in cases {
        let bytes = answer.to_vec();
        let target = Target::start(move |_| Act::Answer(bytes.clone()));
        let mut bench = Bench::start(target.config(), |_| {});
        let message = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        for reused in [false, *keeps] {
            bench.offer(1, message.as_bytes());
            let answer = answered(bench.next());
            assert_eq!(answer.response.head.status(), *status);
            assert_eq!(
                answer.response.body.content(),
                *content,
                "{}",
                text(content)
            );
            assert!(answer.response.completeness.is_whole());
            assert_eq!(answer.timings.reused, reused, "{status} {}", text(content));
        }
        assert_eq!(bench.finish().answered, 2);
    }
}

#[test]
fn a_body_that_ends_with_the_connection_is_whole() {
    let target =
        Target::start(|_| Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\n\r\nuntil the end".to_vec()));
    let mut bench = Bench::start(target.config(), |_| {});
    for _ in 0..2 {
        bench.offer(1, &get("/"));
        let answer = answered(bench.next());
        assert_eq!(answer.response.body.content(), b"until the end" as &[u8]);
    }
    bench.finish();
}

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
    bench.offer(1, &get("/"));
    assert_eq!(failed(&bench.next()), Reason::ResolveFailed);
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
fn a_body_waits_for_the_target_to_ask_for_it() {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    for (asks, status) in [(true, 200), (false, 417)] {
        let listener = listener();
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a stream");
            let mut head = vec![0; HEAD.len()];
            stream.read_exact(&mut head).expect("a head");
            assert_eq!(text(&head), text(HEAD));
            stream.set_nonblocking(true).expect("a socket");
            let early = stream.read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(early, Err(io::ErrorKind::WouldBlock), "the body waits");
            stream.set_nonblocking(false).expect("a socket");
            if asks {
                stream
                    .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                    .expect("open");
                let mut body = [0; 4];
                stream.read_exact(&mut body).expect("a body");
                assert_eq!(&body, b"body");
                stream.write_all(OK).expect("open");
            } else {
                stream
                    .write_all(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
                    .expect("open");
            }
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert_eq!(text(&rest), "");
        });
        let mut bench = Bench::start(live(address), |config| {
            config.marker = None;
            config.deadlines.body_asked = LONG;
        });
        bench.offer(1, &[HEAD, b"body"].concat());
        let answer = answered(bench.next());
        assert_eq!(answer.response.head.status(), status);
        bench.finish();
        server.join().expect("the server saw what it should");
    }
}

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
    let full = snapshot.account.dropped(Reason::QueueFull);
    assert!(full > 9_800, "{snapshot:?}");
    let end = bench.drain(Duration::ZERO);
    assert_eq!(end.snapshot.account.dropped(Reason::Stopped), 10_000 - full);
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
        config.schedule = Schedule::Original {
            speed: 10.0,
            skip_idle: None,
        };
        config.when_full = WhenFull::Block;
        config.deadlines.first_byte = LONG;
        config.deadlines.answer = LONG;
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
    assert_eq!(end.snapshot.account.dropped(Reason::Stopped), 6);
}

#[test]
fn stopping_wakes_a_schedule_that_waits() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |config| {
        config.schedule = Schedule::Original {
            speed: 1.0,
            skip_idle: None,
        };
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
    drop(engine);
    feeder.offer(Arc::new(request(2, 1, &get("/2"))));
    drop(feeder);
    let reasons: Vec<Reason> = outcomes.iter().map(|replay| skipped(&replay)).collect();
    assert_eq!(reasons, [Reason::Stopped, Reason::Stopped]);
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

#[test]
fn an_https_target_is_sent_to() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
    let pem = certified.cert.pem().into_bytes();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certified.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der())
                .expect("a key"),
        )
        .expect("a certificate");
    let server = Arc::new(server);
    let listener = listener();
    let port = listener.local_addr().expect("an address").port();
    let (sender, seen) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&server)).expect("TLS");
            let mut stream = rustls::StreamOwned::new(connection, stream.expect("a stream"));
            let mut bytes = Vec::new();
            loop {
                let mut chunk = [0; 4096];
                match stream.read(&mut chunk) {
                    Ok(0) | Err(_) => break,
                    Ok(len) => bytes.extend_from_slice(&chunk[..len]),
                }
                if let Some(length) = request_length(&bytes) {
                    let message: Vec<u8> = bytes.drain(..length).collect();
                    let _ = sender.send(message);
                    if stream.write_all(OK).is_err() {
                        break;
                    }
                }
            }
        }
    });
    let target = format!("https://localhost:{port}/base");
    let config = ReplayConfig::live(target.parse().expect("a target"));
    let mut bench = Bench::start(config.clone(), |config| {
        config.tls = Tls::Authorities(pem);
        config.deadlines.connect = LONG;
    });
    bench.offer(
        1,
        b"POST /p//q?x=%2f&y HTTP/1.1\r\nHost: a.example\r\nX-B: 1\r\nConnection: X-Hop\r\nX-Hop: 1\r\nAccept: x\r\nX-A: \xe4\r\nContent-Length: 2\r\n\r\nhi",
    );
    let answer = answered(bench.next());
    assert_eq!(answer.response.head.status(), 200);
    assert_eq!(answer.response.body.content(), b"ok" as &[u8]);
    assert_eq!(
        text(&seen.recv_timeout(LONG).expect("a request")),
        text(b"POST /base/p//q?x=%2f&y HTTP/1.1\r\nhost: a.example\r\nx-b: 1\r\naccept: x\r\nx-a: \xe4\r\nshadowtap: 1\r\ncontent-length: 2\r\n\r\nhi")
    );
    bench.finish();

    // The system's authorities do not know that certificate.
    let mut bench = Bench::start(config, |config| config.deadlines.connect = LONG);
    bench.offer(1, &get("/"));
    assert_eq!(failed(&bench.next()), Reason::ConnectFailed);
    bench.finish();
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

fn answered(replay: Replay) -> Answer {
    match replay.outcome {
        Outcome::Answered(answer) => *answer,
        other => panic!("{other:?}"),
    }
}

fn failed(replay: &Replay) -> Reason {
    match replay.outcome {
        Outcome::Failed(reason) => reason,
        ref other => panic!("{other:?}"),
    }
}

fn skipped(replay: &Replay) -> Reason {
    match replay.outcome {
        Outcome::Skipped(reason) => reason,
        ref other => panic!("{other:?}"),
    }
}

/// Waits until `condition` holds, looking again and again.
fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "it never came to be");
        thread::park_timeout(Duration::from_millis(1));
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a [`Target`] does once it has read a request.
enum Act {
    /// Writes these bytes.
    Answer(Vec<u8>),
    /// Writes these bytes, then closes.
    AnswerAndClose(Vec<u8>),
    /// Closes with RST.
    Reset,
    /// Leaves the rest of the exchange to this.
    Drive(Box<dyn FnOnce(&mut TcpStream) + Send>),
    /// Says nothing until the client is gone.
    Hang,
    /// Answers without end.
    Endless,
}

/// A request as a target read it.
struct Seen<'a> {
    target: &'a str,
}

/// A raw TCP server that keeps the exact bytes of each connection.
struct Target {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Target {
    fn start(act: impl Fn(&Seen<'_>) -> Act + Send + Sync + 'static) -> Self {
        Self::on(listener(), act)
    }

    fn on(listener: TcpListener, act: impl Fn(&Seen<'_>) -> Act + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let (all, act) = (Arc::clone(&seen), Arc::new(act));
        thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                all.lock().expect("no panic").push(Vec::new());
                let (all, act, stream) = (
                    Arc::clone(&all),
                    Arc::clone(&act),
                    stream.expect("a stream"),
                );
                thread::spawn(move || serve(index, stream, &all, &*act));
            }
        });
        Self { address, seen }
    }

    fn config(&self) -> ReplayConfig {
        live(self.address)
    }

    /// The request targets on each connection that carried any.
    fn targets(&self) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for bytes in self.connections() {
            let mut rest = &bytes[..];
            let mut targets = Vec::new();
            while let Some(length) = request_length(rest) {
                let line = String::from_utf8_lossy(&rest[..length]).into_owned();
                targets.push(line.split_whitespace().nth(1).expect("a target").to_owned());
                rest = &rest[length..];
            }
            all.push(targets);
        }
        all
    }

    /// What came on each connection, in the order in which they were opened.
    fn connections(&self) -> Vec<Vec<u8>> {
        self.seen.lock().expect("no panic").clone()
    }
}

fn serve(
    index: usize,
    mut stream: TcpStream,
    all: &Mutex<Vec<Vec<u8>>>,
    act: &(dyn Fn(&Seen<'_>) -> Act + Send + Sync),
) {
    let mut unread = Vec::new();
    loop {
        let length = loop {
            if let Some(length) = request_length(&unread) {
                break length;
            }
            let mut chunk = [0; 65536];
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(len) => {
                    unread.extend_from_slice(&chunk[..len]);
                    all.lock().expect("no panic")[index].extend_from_slice(&chunk[..len]);
                }
            }
        };
        let message: Vec<u8> = unread.drain(..length).collect();
        let line = String::from_utf8_lossy(&message).into_owned();
        let seen = Seen {
            target: line.split_whitespace().nth(1).unwrap_or_default(),
        };
        match act(&seen) {
            Act::Answer(bytes) => {
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
            Act::AnswerAndClose(bytes) => {
                let _ = stream.write_all(&bytes);
                return;
            }
            Act::Reset => {
                let socket = socket2::Socket::from(stream);
                let _ = socket.set_linger(Some(Duration::ZERO));
                return;
            }
            Act::Drive(drive) => drive(&mut stream),
            Act::Endless => {
                let mut bytes: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
                while stream.write_all(bytes).is_ok() {
                    bytes = &[b'x'; 1000];
                }
                return;
            }
            Act::Hang => {
                let _ = io::copy(&mut stream, &mut io::sink());
                return;
            }
        }
    }
}

/// The length of the request that `bytes` begins with, once it is whole.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head_len = head_length(bytes, &mut 0)?;
    let head = RequestHead::parse(Bytes::copy_from_slice(&bytes[..head_len])).expect("a head");
    let body = &bytes[head_len..];
    let body_len = match framing::of_request(&head).0 {
        framing::Length::Framed(Framing::Length(length)) => usize::try_from(length).expect("small"),
        framing::Length::Framed(Framing::Chunked) => {
            let end = body
                .windows(5)
                .position(|window| window == b"\n0\r\n" as &[u8] || window == b"\n0\r\nT")?;
            end + body[end..]
                .windows(4)
                .position(|window| window == b"\r\n\r\n")?
                + 4
        }
        _ => 0,
    };
    (body.len() >= body_len).then_some(head_len + body_len)
}

/// An engine, and what came of each request that it was offered.
struct Bench {
    engine: Engine,
    feeder: Feeder,
    outcomes: mpsc::Receiver<Replay>,
    offered: u64,
}

impl Bench {
    fn start(mut config: ReplayConfig, change: impl FnOnce(&mut ReplayConfig)) -> Self {
        change(&mut config);
        let (sender, outcomes) = mpsc::channel();
        let engine = Engine::start(config, move |replay| {
            let _ = sender.send(replay);
        })
        .expect("an engine");
        Self {
            feeder: engine.feeder(),
            engine,
            outcomes,
            offered: 0,
        }
    }

    fn offer(&mut self, connection: u64, message: &[u8]) {
        self.offer_as(connection, message, |_| {});
    }

    fn offer_as(&mut self, connection: u64, message: &[u8], change: impl FnOnce(&mut Request)) {
        self.offered += 1;
        let mut request = request(self.offered, connection, message);
        change(&mut request);
        self.feeder.offer(Arc::new(request));
        self.feeder.flush();
    }

    fn closed(&mut self, connection: u64) {
        self.feeder.closed(ConnectionId(connection));
        self.feeder.flush();
    }

    /// The next outcome.
    fn next(&self) -> Replay {
        self.outcomes.recv_timeout(LONG).expect("an outcome")
    }

    fn finish(self) -> End {
        let snapshot = self.engine.finish();
        End::of(snapshot, &self.outcomes)
    }

    fn drain(self, grace: Duration) -> End {
        let snapshot = self.engine.drain(grace);
        End::of(snapshot, &self.outcomes)
    }
}

/// How a bench ended.
struct End {
    snapshot: Snapshot,
    answered: u64,
    /// Those that nobody asked for yet.
    outcomes: Vec<Replay>,
}

impl End {
    fn of(snapshot: Snapshot, outcomes: &mpsc::Receiver<Replay>) -> Self {
        snapshot.account.check().expect("a balanced account");
        assert_eq!(snapshot.in_flight(), 0);
        assert_eq!((snapshot.queued_items, snapshot.queued_bytes), (0, 0));
        assert_eq!(snapshot.connections, 0);
        let outcomes: Vec<Replay> = outcomes.try_iter().collect();
        Self {
            answered: snapshot.account.get(Counter::ReplaysAnswered),
            snapshot,
            outcomes,
        }
    }

    fn all_answered(&self, expected: usize) {
        let not: Vec<String> = self
            .outcomes
            .iter()
            .filter(|replay| !matches!(replay.outcome, Outcome::Answered(_)))
            .map(|replay| {
                format!(
                    "{:?}: {:?}",
                    text(replay.request.head.target()),
                    replay.outcome
                )
            })
            .collect();
        assert_eq!(not.len(), 0, "{not:?}");
        assert_eq!(self.answered, expected as u64);
    }
}

fn live(address: SocketAddr) -> ReplayConfig {
    ReplayConfig::live(format!("http://{address}").parse().expect("a target"))
}

/// A port that nobody else gets and that refuses connections until it is told to listen.
fn closed_port() -> (socket2::Socket, SocketAddr) {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address.as_socket().expect("IPv4"))
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port")
}

fn request(id: u64, connection: u64, message: &[u8]) -> Request {
    let head_len = head_length(message, &mut 0).expect("a head");
    let message = Bytes::copy_from_slice(message);
    let head = RequestHead::parse(message.slice(..head_len)).expect("a head");
    let framing = match framing::of_request(&head).0 {
        framing::Length::Framed(framing) => framing,
        other => panic!("{other:?}"),
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    Request {
        id: ExchangeId(id),
        connection: ConnectionId(connection),
        endpoints: Endpoints {
            client: address,
            server: address,
        },
        first_byte: Timestamp::ZERO,
        last_byte: Timestamp::ZERO,
        body: Body {
            framing,
            wire: message.slice(head_len..),
            missing: 0,
        },
        head,
        doubts: Doubts::default(),
        completeness: Completeness::Whole,
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Longer than anything here takes; a test that waits so long has failed.
const LONG: Duration = Duration::from_secs(60);
