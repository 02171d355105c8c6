//! Requests that do not wait for the answer to the one before.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use shadowtap::account::Reason;
use shadowtap::replay::Pipelining;

use super::bench::{Bench, OK, answered, failed, get, listener, live, request_length};

/// Takes one connection, reads until `count` requests have come, then writes `answers` at once and lets go.
fn patient(listener: TcpListener, count: usize, answers: Vec<u8>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut bytes = Vec::new();
        let mut some = [0; 65536];
        while requests(&bytes) < count {
            match stream.read(&mut some).expect("open") {
                0 => return bytes,
                read => bytes.extend_from_slice(&some[..read]),
            }
        }
        stream.write_all(&answers).expect("open");
        bytes
    })
}

fn requests(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(length) = request_length(bytes) {
        bytes = &bytes[length..];
        count += 1;
    }
    count
}

#[test]
fn what_was_pipelined_does_not_wait_for_answers() {
    let listener = listener();
    let address = listener.local_addr().expect("an address");
    let post =
        b"POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n";
    let messages = [get("/1"), post.to_vec(), get("/3")];
    // One write with all three, the first of them with an interim answer before it.
    let answers = [b"HTTP/1.1 102 Processing\r\n\r\n", OK, OK, OK].concat();
    // Nobody answers before all of them are there: who waits for the first answer waits for ever.
    let server = patient(listener, 3, answers);
    let mut bench = Bench::start(live(address), |config| {
        config.marker = None;
        config.pipelining = Pipelining::Keep;
    });
    bench.offer(1, &messages[0]);
    bench.offer_pipelined(1, &messages[1]);
    bench.offer_pipelined(1, &messages[2]);
    for number in 1..=3 {
        let replay = bench.next();
        assert_eq!(replay.request.id.0, number, "in order");
        let answer = answered(replay);
        assert_eq!(answer.response.body.content(), b"ok" as &[u8]);
        assert_eq!(answer.timings.reused, number > 1);
    }
    assert_eq!(server.join().expect("no panic"), messages.concat());
    bench.finish();
}

#[test]
fn nothing_is_pipelined_that_was_not_or_unless_asked() {
    for (pipelining, connection, is_pipelined) in [
        (Pipelining::OneByOne, 1, true),
        (Pipelining::Keep, 1, false),
        (Pipelining::Keep, 2, true),
    ] {
        let listener = listener();
        let address = listener.local_addr().expect("an address");
        let mut bench = Bench::start(live(address), |config| {
            config.pipelining = pipelining;
            config.max_connections = 1.try_into().expect("not zero");
        });
        bench.offer(1, &get("/1"));
        if is_pipelined {
            bench.offer_pipelined(connection, &get("/2"));
        } else {
            bench.offer(connection, &get("/2"));
        }
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut bytes = Vec::new();
        let mut some = [0; 65536];
        // Time enough for what must not come.
        for _ in 0..2 {
            let read = stream.read(&mut some).expect("open");
            bytes.extend_from_slice(&some[..read]);
            thread::park_timeout(std::time::Duration::from_millis(50));
            stream.set_nonblocking(true).expect("a socket");
            if let Ok(more) = stream.read(&mut some) {
                bytes.extend_from_slice(&some[..more]);
            }
            stream.set_nonblocking(false).expect("a socket");
            assert_eq!(requests(&bytes), 1, "{pipelining:?} {connection}");
            bytes.clear();
            stream.write_all(OK).expect("open");
        }
        for _ in 0..2 {
            answered(bench.next());
        }
        bench.finish();
    }
}

#[test]
fn a_connection_that_ends_costs_what_was_written_on_it() {
    let close = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (answers, expected) in [
        (
            close.to_vec(),
            [
                None,
                Some(Reason::ConnectionLost),
                Some(Reason::ConnectionLost),
            ],
        ),
        (
            OK.to_vec(),
            [
                None,
                Some(Reason::ConnectionLost),
                Some(Reason::ConnectionLost),
            ],
        ),
        (
            [OK, b"rubbish\r\n\r\n"].concat(),
            [
                None,
                Some(Reason::AnswerMalformed),
                Some(Reason::ConnectionLost),
            ],
        ),
        (
            [OK, &OK[..30]].concat(),
            [None, Some(Reason::AnswerCut), Some(Reason::ConnectionLost)],
        ),
        (Vec::new(), [Some(Reason::ConnectionLost); 3]),
    ] {
        let listener = listener();
        let address = listener.local_addr().expect("an address");
        let again = listener.try_clone().expect("a second handle");
        let server = patient(listener, 3, answers.clone());
        let mut bench = Bench::start(live(address), |config| config.pipelining = Pipelining::Keep);
        bench.offer(1, &get("/1"));
        bench.offer_pipelined(1, &get("/2"));
        bench.offer_pipelined(1, &get("/3"));
        for expected in expected {
            let replay = bench.next();
            match expected {
                None => drop(answered(replay)),
                Some(reason) => assert_eq!(failed(&replay), reason, "{}", answers.escape_ascii()),
            }
        }
        server.join().expect("no panic");
        // The next one finds a connection of its own.
        let server = patient(again, 1, OK.to_vec());
        bench.offer_pipelined(1, &get("/4"));
        answered(bench.next());
        server.join().expect("no panic");
        bench.finish();
    }
}
