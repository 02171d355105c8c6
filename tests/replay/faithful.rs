//! What reaches the target: every byte, every order, one connection for each captured one; and every legal answer.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use shadowtap::account::Reason;
use shadowtap::capture::PacketSource;
use shadowtap::capture::file::FileSource;
use shadowtap::exchange::{ConnectionId, Event, Request};
use shadowtap::replay::{ReplayConfig, WhenFull};
use shadowtap::tap::{Tap, TapConfig};

use super::bench::{
    Act, Bench, LONG, OK, Target, answered, get, listener, live, skipped, text, until,
};
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
    let mut least = 500;
    // Captures of other projects, where they lie beside the repository.
    if let Ok(public) = fs::read_dir(in_root("../shared/corpus/public")) {
        least = 1000;
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
    assert!(count > least, "{count}");
    bench.finish();
}

/// Request smuggling: what can be framed in two ways is marked and left aside, everything else goes out byte for byte and can be framed
/// in one way only.
#[test]
fn what_can_be_framed_in_two_ways_is_not_replayed_unless_asked_for() {
    let target = Target::start(|_| Act::Answer(OK.to_vec()));
    let mut bench = Bench::start(target.config(), |config| config.marker = None);
    let (mut sent, mut left_aside) = (Vec::new(), 0);
    for case in corpus::all() {
        if !case.class.contains("smuggling") {
            continue;
        }
        for request in whole_requests(&case.name, case.file) {
            let bytes = [&request.head.bytes()[..], &request.body.wire].concat();
            let is_doubtful = request.doubts.any();
            bench.feeder.offer(Arc::new(request));
            bench.feeder.flush();
            let replay = bench.next();
            if is_doubtful {
                assert_eq!(skipped(&replay), Reason::Ambiguous, "{}", case.name);
                left_aside += 1;
                continue;
            }
            assert_eq!(
                answered(replay).response.head.status(),
                200,
                "{}",
                case.name
            );
            let head = text(&bytes).to_ascii_lowercase();
            let head = head.split("\\r\\n\\r\\n").next().expect("a head");
            let lengths = head.matches("content-length").count();
            let codings = head.matches("transfer-encoding").count();
            assert!(lengths + codings <= 1, "{}: {head}", case.name);
            sent.push(bytes);
        }
    }
    println!("{} sent, {left_aside} left aside", sent.len());
    assert!(!sent.is_empty() && left_aside > 20);
    bench.finish();
    // One after the other, and so in the order of the connections.
    assert_eq!(text(&target.connections().concat()), text(&sent.concat()));
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
