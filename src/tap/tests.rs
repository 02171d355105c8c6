//! What a [`Tap`] believes, where a capture file would say less clearly what is meant.

mod beginnings;
mod damaged;

use std::cell::Cell;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::Limits;
use super::connections::Connections;
use crate::account::{Counter, Reason};
use crate::exchange::{Event, NoAnswer, Request};
use crate::restraint::Share;
use crate::tap::Watch;
use crate::time::Timestamp;
use crate::wire::{Checksum, Path, Segment, TcpFlags};

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 40000);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80);
const DATA: TcpFlags = TcpFlags(0x18);

thread_local! {
    /// Whether no segment is taken the short way.
    pub(super) static ALWAYS_CAREFUL: Cell<bool> = const { Cell::new(false) };
}

/// A segment from the client.
fn sent(seq: u32, ack: u32, flags: TcpFlags, payload: &[u8]) -> Segment<'_> {
    Segment {
        time: Timestamp::from_nanos(1),
        path: Path(0),
        source: CLIENT,
        destination: SERVER,
        seq,
        ack,
        flags,
        window: 1000,
        urgent: None,
        timestamps: None,
        signed: false,
        checksum: Checksum::Right,
        payload,
        cut: 0,
    }
}

/// A segment from the server.
fn answered(seq: u32, ack: u32, flags: TcpFlags, payload: &[u8]) -> Segment<'_> {
    Segment {
        source: SERVER,
        destination: CLIENT,
        ..sent(seq, ack, flags, payload)
    }
}

/// A table that has seen a handshake: the client's next byte is 1, the server's 1001.
fn connected() -> Connections {
    let mut connections = Connections::new(Watch::default(), Limits::default());
    connections.segment(&sent(0, 0, TcpFlags::SYN, b""));
    connections.segment(&answered(1000, 1, TcpFlags::SYN | TcpFlags::ACK, b""));
    connections.segment(&sent(1, 1001, TcpFlags::ACK, b""));
    connections
}

fn requests(connections: &mut Connections) -> Vec<Arc<Request>> {
    connections.finish();
    let requests = connections
        .events
        .drain(..)
        .filter_map(|event| match event {
            Event::Request(request) => Some(request),
            _ => None,
        });
    requests.collect()
}

fn targets(requests: &[Arc<Request>]) -> Vec<&[u8]> {
    requests
        .iter()
        .map(|request| request.head.target())
        .collect()
}

const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A client takes up an idle connection at the moment in which the server gives it up: the server never reads that request, and
/// the client sends it again elsewhere.
#[test]
fn a_request_that_comes_behind_the_server_s_end_is_in_doubt() {
    let get: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    let post: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab";
    let (second, end) = (1 + get.len() as u32, 1001 + OK.len() as u32);
    let fin = TcpFlags::FIN | TcpFlags::ACK;
    for late in [get, post] {
        for size in [late.len(), 9] {
            for is_late in [true, false] {
                let mut connections = connected();
                connections.segment(&sent(1, 1001, DATA, get));
                connections.segment(&answered(1001, second, DATA, OK));
                let close = answered(end, second, fin, b"");
                if is_late {
                    connections.segment(&close);
                }
                let mut seq = second;
                for piece in late.chunks(size) {
                    connections.segment(&sent(seq, end, DATA, piece));
                    seq += piece.len() as u32;
                }
                if !is_late {
                    connections.segment(&close);
                }
                let reset = answered(end + 1, second, TcpFlags::RST, b"");
                connections.segment(&reset);
                let doubts: Vec<bool> = requests(&mut connections)
                    .iter()
                    .map(|request| request.doubts.after_close)
                    .collect();
                assert_eq!(doubts, [false, is_late], "{size}");
            }
        }
    }
}

#[test]
fn a_syn_ack_inside_a_connection_brings_no_data_and_ends_nothing() {
    let mut connections = connected();
    let evil = TcpFlags::SYN | TcpFlags::ACK | TcpFlags::PSH;
    connections.segment(&sent(1, 1001, evil, b"GET /evil HTTP/1.1\r\n\r\n"));
    connections.segment(&sent(1, 1001, DATA, b"GET /good HTTP/1.1\r\n\r\n"));
    connections.segment(&answered(1001, 23, DATA, OK));
    let seen = requests(&mut connections);
    assert_eq!(targets(&seen), [b"/good"]);
    assert_eq!(connections.account.dropped(Reason::UnexpectedSyn), 1);
}

/// Why the only request has no answer.
fn why(segments: &[Segment<'_>]) -> Option<NoAnswer> {
    let mut connections = connected();
    connections.segment(&sent(1, 1001, DATA, b"GET / HTTP/1.1\r\n\r\n"));
    for segment in segments {
        connections.segment(segment);
    }
    connections.finish();
    connections.events.iter().find_map(|event| match event {
        Event::Unanswered { why, .. } => Some(*why),
        _ => None,
    })
}

#[test]
fn a_client_that_leaves_before_the_answer_is_told_from_a_server_that_gives_none() {
    let fin = TcpFlags::FIN | TcpFlags::ACK;
    let rst = TcpFlags::RST | TcpFlags::ACK;
    let client_fin = sent(19, 1001, fin, b"");
    let server_fin = answered(1001, 19, fin, b"");
    let server_fin_later = answered(1001, 20, fin, b"");
    let client_fin_later = sent(19, 1002, fin, b"");
    // What a kernel sends for a client that has closed everything, to whatever still comes.
    let client_gone = sent(20, 0, TcpFlags::RST, b"");
    for (segments, expected) in [
        // A client that has closed its side may wait all the same, unless it says that it does not.
        (vec![client_fin, server_fin_later], NoAnswer::HalfClosed),
        (
            vec![client_fin, answered(1001, 20, rst, b"")],
            NoAnswer::HalfClosed,
        ),
        (vec![client_fin], NoAnswer::Ended),
        (vec![client_fin, client_gone], NoAnswer::ClientLeft),
        (
            vec![client_fin, answered(1001, 20, DATA, HINTS), client_gone],
            NoAnswer::ClientLeft,
        ),
        (vec![sent(19, 1001, rst, b"")], NoAnswer::ClientLeft),
        (vec![server_fin, client_fin_later], NoAnswer::Ended),
        (vec![answered(1001, 19, rst, b"")], NoAnswer::Ended),
        (vec![], NoAnswer::Ended),
    ] {
        assert_eq!(why(&segments), Some(expected), "{segments:?}");
    }
    assert_eq!(why(&[client_fin, answered(1001, 20, DATA, OK)]), None);
}

#[test]
fn what_is_found_behind_a_hole_is_unproven_until_the_client_has_an_answer() {
    let mut connections = connected();
    let first: &[u8] = b"GET /1 HTTP/1.1\r\n\r\n";
    connections.segment(&sent(1, 1001, DATA, first));
    let mut seq = 1 + first.len() as u32;
    let mut ack = 1001 + OK.len() as u32;
    connections.segment(&answered(1001, seq, DATA, OK));
    // The head of a POST is lost; its body looks like a request.
    seq += 100;
    let body: &[u8] = b"DELETE /everything HTTP/1.1\r\n\r\n";
    connections.segment(&sent(seq, ack, DATA, body));
    seq += body.len() as u32;
    connections.segment(&answered(ack, seq, DATA, OK));
    ack += OK.len() as u32;
    let last: &[u8] = b"GET /2 HTTP/1.1\r\n\r\n";
    connections.segment(&sent(seq, ack, DATA, last));
    seq += last.len() as u32;
    connections.segment(&answered(ack, seq, DATA, OK));
    let seen = requests(&mut connections);
    let doubtful: Vec<bool> = seen.iter().map(|request| request.doubts.unproven).collect();
    assert_eq!(targets(&seen), [&b"/1"[..], b"/everything", b"/2"]);
    assert_eq!(doubtful, [false, true, false]);
}

#[test]
fn a_segment_that_acknowledges_what_was_never_sent_is_dropped_as_its_receiver_drops_it() {
    // One byte beyond, far beyond, and before the first byte; with the server's stream untouched and not.
    for answered_before in [false, true] {
        for beyond in [1, 100_000, i32::MAX as u32, 0_u32.wrapping_sub(70_000)] {
            let mut connections = connected();
            let (mut seq, mut ack) = (1, 1001);
            if answered_before {
                let first: &[u8] = b"GET /1 HTTP/1.1\r\n\r\n";
                connections.segment(&sent(seq, ack, DATA, first));
                seq += first.len() as u32;
                connections.segment(&answered(ack, seq, DATA, OK));
                ack += OK.len() as u32;
            }
            let forged = ack.wrapping_add(beyond);
            let evil: &[u8] = b"GET /evil HTTP/1.1\r\n\r\n";
            connections.segment(&sent(seq, forged, DATA, evil));
            let good: &[u8] = b"GET /good HTTP/1.1\r\n\r\n";
            connections.segment(&sent(seq, ack, DATA, good));
            seq += good.len() as u32;
            connections.segment(&answered(ack, seq, DATA, OK));
            connections.segment(&sent(seq, ack + OK.len() as u32, TcpFlags::ACK, b""));
            let seen = requests(&mut connections);
            assert_eq!(targets(&seen).last(), Some(&&b"/good"[..]), "{beyond}");
            assert_eq!(seen.len(), 1 + usize::from(answered_before));
            assert_eq!(connections.account.dropped(Reason::AcksUnsent), 1);
            assert_eq!(connections.account.get(Counter::Gaps), 0);
        }
    }
}

#[test]
fn a_forged_acknowledgement_alone_makes_no_hole() {
    let mut connections = connected();
    let at = |milliseconds: u64, segment: Segment<'static>| Segment {
        time: Timestamp::from_nanos(milliseconds * 1_000_000),
        ..segment
    };
    let first: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\nhalf";
    let seq = 1 + first.len() as u32;
    connections.segment(&at(10, sent(1, 1001, DATA, first)));
    connections.segment(&at(20, answered(1001, seq + 5000, TcpFlags::ACK, b"")));
    // The clock of the packets goes on, long beyond every grace.
    connections.segment(&at(5000, answered(1001, seq, TcpFlags::ACK, b"")));
    connections.segment(&at(5010, sent(seq, 1001, DATA, b"rest")));
    connections.segment(&at(5020, answered(1001, seq + 4, DATA, OK)));
    let seen = requests(&mut connections);
    assert_eq!(seen.len(), 1);
    assert!(seen[0].completeness.is_whole());
    assert_eq!(connections.account.get(Counter::Gaps), 0);
}

#[test]
fn what_the_capture_lost_is_no_forgery() {
    let first: &[u8] = b"GET /1 HTTP/1.1\r\n\r\n";
    let second: &[u8] = b"GET /2 HTTP/1.1\r\n\r\n";
    let (length, answer) = (first.len() as u32, OK.len() as u32);
    // What shows that the first answer was sent: the next one, an empty segment, a second acknowledgement, or nothing.
    let ack = 1001 + answer;
    let witnesses = [
        vec![answered(ack, 1 + 2 * length, DATA, OK)],
        vec![answered(ack, 1 + 2 * length, TcpFlags::ACK, b"")],
        vec![sent(1 + 2 * length, ack, TcpFlags::ACK, b"")],
        vec![],
    ];
    for witness in witnesses {
        let mut connections = connected();
        connections.segment(&sent(1, 1001, DATA, first));
        connections.segment(&sent(1 + length, ack, DATA, second));
        for segment in &witness {
            connections.segment(segment);
        }
        if !witness.is_empty() {
            let requests = |event: &&Event| matches!(event, Event::Request(_));
            assert_eq!(connections.events.iter().filter(requests).count(), 2);
        }
        let seen = requests(&mut connections);
        assert_eq!(targets(&seen), [b"/1", b"/2"]);
        assert_eq!(connections.account.dropped(Reason::AcksUnsent), 0);
    }
}

#[test]
fn an_answer_that_is_captured_before_its_request_waits_for_it() {
    let mut connections = connected();
    let get: &[u8] = b"GET /1 HTTP/1.1\r\n\r\n";
    let seq = 1 + get.len() as u32;
    connections.segment(&answered(1001, seq, DATA, OK));
    connections.segment(&answered(
        1001 + OK.len() as u32,
        seq,
        TcpFlags::FIN | TcpFlags::ACK,
        b"",
    ));
    connections.segment(&sent(1, 1001, DATA, get));
    connections.finish();
    let kinds: Vec<&str> = connections
        .events
        .iter()
        .map(|event| match event {
            Event::Request(_) => "request",
            Event::Response { .. } => "response",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["request", "response", "other"]);
}

#[test]
fn a_retransmission_that_differs_puts_the_message_in_doubt_that_it_falls_into() {
    let get: &[u8] = b"GET /1 HTTP/1.1\r\n\r\n";
    let post: &[u8] = b"POST /2 HTTP/1.1\r\nContent-Length: 8\r\n\r\nhalf";
    let (second, rest) = (1 + get.len() as u32, 1 + (get.len() + post.len()) as u32);
    let third = rest + 4;
    // What is sent besides, after how many of the segments below, and which requests are in doubt then.
    let cases: [(u32, &[u8], usize, [bool; 3]); 7] = [
        // Delivered, while the message is being read.
        (rest - 4, b"HALF", 2, [false, true, false]),
        (rest - 4, b"HALFrest", 2, [false, true, false]),
        (second, b"POST /3", 2, [false, true, false]),
        // Sent again as it was; the probe of a keep-alive; after the message has gone on.
        (second, b"POST /2", 2, [false; 3]),
        (rest - 1, b"\0", 2, [false; 3]),
        (1, b"GET /9", 2, [false; 3]),
        // Held behind a hole, for the message that it belongs to alone.
        (third, b"GET /9 HTTP/1.1\r\n\r\n", 1, [false, false, true]),
    ];
    for (at, bytes, after, doubted) in cases {
        let mut connections = connected();
        let last: &[u8] = b"GET /3 HTTP/1.1\r\n\r\n";
        let mut segments = vec![
            sent(1, 1001, DATA, get),
            sent(second, 1001, DATA, post),
            sent(rest, 1001, DATA, b"rest"),
        ];
        let held = sent(third, 1001, DATA, last);
        segments.insert(if at == third { 1 } else { 3 }, held);
        segments.insert(
            after + usize::from(at == third),
            sent(at, 1001, DATA, bytes),
        );
        for segment in &segments {
            connections.segment(segment);
        }
        let seen = requests(&mut connections);
        assert_eq!(targets(&seen), [b"/1", b"/2", b"/3"]);
        let in_doubt: Vec<bool> = seen
            .iter()
            .map(|request| request.doubts.retransmission)
            .collect();
        assert_eq!(in_doubt, doubted, "{}", bytes.escape_ascii());
        let differs = doubted.contains(&true) || at == 1;
        assert_eq!(
            connections.account.get(Counter::Conflicts),
            u64::from(differs)
        );
    }
}

#[test]
fn a_chunked_request_with_odd_lines_puts_what_follows_in_doubt_too() {
    let mut connections = connected();
    let odd: &[u8] = b"POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n";
    let next: &[u8] = b"GET /2 HTTP/1.1\r\n\r\n";
    connections.segment(&sent(1, 1001, DATA, odd));
    connections.segment(&sent(1 + odd.len() as u32, 1001, DATA, next));
    let seen = requests(&mut connections);
    assert_eq!(targets(&seen), [b"/1", b"/2"]);
    assert!(seen.iter().all(|request| request.doubts.transfer_encoding));
    assert_eq!(*seen[0].body.content(), *b"abc");
}

/// Which answer each request got, by the status of the answer.
fn pairs(connections: &mut Connections) -> Vec<(Vec<u8>, Option<u16>)> {
    connections.finish();
    let mut pairs: Vec<(_, Vec<u8>, Option<u16>)> = Vec::new();
    for event in connections.events.drain(..) {
        match event {
            Event::Request(request) => {
                pairs.push((request.id, request.head.target().to_vec(), None));
            }
            Event::Response { id, response } => {
                let pair = pairs.iter_mut().find(|pair| pair.0 == id);
                pair.expect("the request comes first").2 = Some(response.head.status());
            }
            _ => {}
        }
    }
    let pairs = pairs.into_iter();
    pairs.map(|(_, target, status)| (target, status)).collect()
}

#[test]
fn answers_captured_before_anything_of_their_client_go_to_no_later_request() {
    let answers: Vec<Vec<u8>> = (0..4)
        .map(|i| format!("HTTP/1.1 20{i} OK\r\nContent-Length: 0\r\n\r\n").into_bytes())
        .collect();
    let gets: Vec<Vec<u8>> = (0..4)
        .map(|i| format!("GET /{i} HTTP/1.1\r\n\r\n").into_bytes())
        .collect();
    let (get, answer) = (gets[0].len() as u32, answers[0].len() as u32);
    let request = |i: u32| sent(1 + i * get, 1001 + i * answer, DATA, &gets[i as usize]);
    let reply = |i: u32| {
        let payload = &answers[i as usize];
        answered(1001 + i * answer, 1 + (i + 1) * get, DATA, payload)
    };
    // So many answers were captured before the client's first packet, and so many before its first request.
    for (before, between) in [(0, 0), (1, 0), (2, 0), (4, 0), (1, 1), (2, 1), (0, 2)] {
        let mut connections = Connections::new(Watch::default(), Limits::default());
        let syn_ack = TcpFlags::SYN | TcpFlags::ACK;
        connections.segment(&answered(1000, 1, syn_ack, b""));
        for i in 0..before {
            connections.segment(&reply(i));
        }
        connections.segment(&sent(0, 0, TcpFlags::SYN, b""));
        for i in before..before + between {
            connections.segment(&reply(i));
        }
        connections.segment(&sent(1, 1001, TcpFlags::ACK, b""));
        for i in 0..4 {
            connections.segment(&request(i));
            if i >= before + between {
                connections.segment(&reply(i));
            }
        }
        let context = format!("{before} before, {between} between");
        for (i, (target, status)) in pairs(&mut connections).into_iter().enumerate() {
            assert_eq!(target, format!("/{i}").into_bytes(), "{context}");
            let own = Some(200 + i as u16);
            assert!(
                status.is_none() || status == own,
                "{context}: {i} {status:?}"
            );
            assert!(
                status == own || i < before as usize,
                "{context}: {i} lost its answer"
            );
        }
    }
}

#[test]
fn what_a_reset_acknowledges_had_come_before_it() {
    let get: &[u8] = b"GET /1 HTTP/1.1\r\n\r\n";
    let evil: &[u8] = b"GET /2 HTTP/1.1\r\n\r\n";
    let (end, ack) = (1 + get.len() as u32, 1001 + OK.len() as u32);
    let rst = TcpFlags::RST | TcpFlags::ACK;
    // The server resets, or the client does when it has its answer; the capture shows that first. Nothing that comes later is read.
    let by_server = [
        answered(1001, end, rst, b""),
        sent(1, 1001, DATA, get),
        sent(end, 1001, DATA, evil),
    ];
    let by_client = [
        sent(1, 1001, DATA, get),
        sent(end, ack, rst, b""),
        answered(1001, end, DATA, OK),
        answered(ack, end, DATA, OK),
        sent(end, ack, DATA, evil),
    ];
    let without_a_word = [
        answered(1001, 0, TcpFlags::RST, b""),
        sent(1, 1001, DATA, get),
    ];
    let cases = [
        (&by_server[..], vec![None], 1),
        (&by_client[..], vec![Some(200)], 2),
        (&without_a_word[..], vec![], 1),
    ];
    for (segments, expected, late) in cases {
        let mut connections = connected();
        for segment in segments {
            connections.segment(segment);
        }
        let seen = pairs(&mut connections);
        let answers: Vec<_> = seen.into_iter().map(|(_, status)| status).collect();
        assert_eq!(answers, expected);
        assert_eq!(connections.account.dropped(Reason::AfterClose), late);
        assert_eq!(connections.account.dropped(Reason::Reset), 1);
    }
}

#[test]
fn a_connection_begins_anew_behind_a_reset_with_the_same_numbers() {
    let mut connections = connected();
    let rst = TcpFlags::RST | TcpFlags::ACK;
    for target in [b"/1", b"/2", b"/3"] {
        let get = [&b"GET "[..], target, b" HTTP/1.1\r\n\r\n"].concat();
        connections.segment(&sent(0, 0, TcpFlags::SYN, b""));
        connections.segment(&answered(1000, 1, TcpFlags::SYN | TcpFlags::ACK, b""));
        connections.segment(&sent(1, 1001, TcpFlags::ACK, b""));
        connections.segment(&sent(1, 1001, DATA, &get));
        let end = 1 + get.len() as u32;
        connections.segment(&answered(1001, end, DATA, OK));
        connections.segment(&answered(1001 + OK.len() as u32, end, rst, b""));
    }
    assert_eq!(targets(&requests(&mut connections)), [b"/1", b"/2", b"/3"]);
}

const NO: &[u8] = b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n";

/// Four exchanges, the first of which offers another protocol or asks for a tunnel, and gets neither.
fn declined(first: &'static [u8]) -> Vec<Segment<'static>> {
    let mut segments = Vec::new();
    let (mut seq, mut ack) = (1, 1001);
    let next: &'static [u8] = b"GET /2 HTTP/1.1\r\nUpgrade: h2c\r\n\r\n";
    for request in [first, next, next, b"GET /3 HTTP/1.1\r\n\r\n"] {
        segments.push(sent(seq, ack, DATA, request));
        seq += request.len() as u32;
        segments.push(answered(ack, seq, DATA, NO));
        ack += NO.len() as u32;
    }
    segments
}

#[test]
fn what_follows_an_offer_is_read_though_its_answer_is_not_captured() {
    let offers = [
        &b"GET /1 HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"[..],
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    ];
    for offer in offers {
        let segments = declined(offer);
        let from_client = |segment: &&Segment<'_>| segment.source == CLIENT;
        // Nothing of the server's was captured.
        let mut connections = Connections::new(Watch::default(), Limits::default());
        segments
            .iter()
            .filter(from_client)
            .for_each(|segment| connections.segment(segment));
        assert_eq!(pairs(&mut connections).len(), 4, "{}", offer.escape_ascii());
        // All but one of its answers was.
        for lost in [1, 3, 5] {
            let mut connections = connected();
            for (n, segment) in (0..).zip(&segments) {
                if n != lost {
                    let time = Timestamp::from_nanos(n as u64 * 1_000_000_000);
                    connections.idle(time);
                    connections.segment(&Segment { time, ..*segment });
                }
            }
            let answers: Vec<bool> = pairs(&mut connections)
                .into_iter()
                .map(|(_, status)| status.is_some())
                .collect();
            let expected: Vec<bool> = (0..4).map(|n| 2 * n + 1 != lost).collect();
            assert_eq!(answers, expected, "{}, {lost}", offer.escape_ascii());
        }
    }
}

#[test]
fn an_answer_without_its_request_holds_back_none_that_follow() {
    let starts: [&'static [u8]; 4] = [
        // What HEAD may have got: nothing follows.
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        // What follows is less than was announced.
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    ];
    let get: &[u8] = b"GET /1 HTTP/1.1\r\n\r\n";
    for start in starts {
        let mut connections = Connections::new(Watch::default(), Limits::default());
        let (mut seq, mut ack) = (1, 1001);
        connections.segment(&answered(ack, seq, DATA, start));
        ack += start.len() as u32;
        for _ in 0..2 {
            connections.segment(&sent(seq, ack, DATA, get));
            seq += get.len() as u32;
            connections.segment(&answered(ack, seq, DATA, OK));
            ack += OK.len() as u32;
        }
        let seen = pairs(&mut connections);
        let answers: Vec<_> = seen.into_iter().map(|(_, status)| status).collect();
        assert_eq!(answers, [Some(200); 2], "{}", start.escape_ascii());
    }
}

/// A client that pipelines without end, and a capture that lacks every other answer: each of them has to be looked for among
/// all the requests that wait, which must not mean to look at all of them.
#[test]
fn many_requests_that_wait_cost_no_more_than_a_few() {
    const COUNT: u32 = 30_000;
    let mut connections = connected();
    let get: &[u8] = b"GET /1 HTTP/1.1\r\n\r\n";
    let (mut seq, mut ack) = (1, 1001);
    for _ in 0..COUNT {
        connections.segment(&sent(seq, 1001, DATA, get));
        seq += get.len() as u32;
    }
    for n in 0..COUNT {
        if n % 2 == 1 {
            connections.segment(&answered(ack, seq, DATA, OK));
        }
        ack += OK.len() as u32;
        let time = Timestamp::from_nanos(u64::from(n) * 200_000_000);
        connections.idle(time);
        connections.segment(&Segment {
            time,
            ..sent(seq, ack, TcpFlags::ACK, b"")
        });
    }
    let seen = pairs(&mut connections);
    assert_eq!(seen.len(), COUNT as usize);
    assert!(seen.iter().all(|(_, status)| status.is_none()));
}

/// Conversations in pieces, with segments lost, repeated, swapped and damaged: whether each segment is taken the short way when it
/// may be, or never, makes no difference to what is found and counted.
#[test]
fn the_short_way_says_what_the_careful_way_says() {
    let mut random = crate::random::below();
    let mut random = |below: usize| random(below as u64) as usize;
    let messages: [(&[u8], &[u8]); 4] = [
        (b"GET /a HTTP/1.1\r\n\r\n", OK),
        (
            b"POST /b HTTP/1.1\r\nContent-Length: 9\r\n\r\nsome body",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            b"POST /c HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nsorry",
        ),
        (b"BREW /d", b"neither"),
    ];
    for round in 0..3000 {
        let mut segments = vec![
            sent(0, 0, TcpFlags::SYN, b""),
            answered(1000, 1, TcpFlags::SYN | TcpFlags::ACK, b""),
            sent(1, 1001, TcpFlags::ACK, b""),
        ];
        let (mut seq, mut ack) = (1, 1001);
        for _ in 0..1 + random(4) {
            let kinds = if random(9) == 0 { 4 } else { 3 };
            let (request, answer) = messages[random(kinds)];
            for piece in request.chunks(1 + random(60)) {
                segments.push(sent(seq, ack, DATA, piece));
                seq += piece.len() as u32;
            }
            for piece in answer.chunks(1 + random(90)) {
                segments.push(answered(ack, seq, DATA, piece));
                ack += piece.len() as u32;
                if random(2) == 0 {
                    segments.push(sent(seq, ack, TcpFlags::ACK, b""));
                }
            }
        }
        if random(3) == 0 {
            segments.push(sent(seq, ack, TcpFlags::FIN | TcpFlags::ACK, b""));
            segments.push(answered(ack, seq + 1, TcpFlags::FIN | TcpFlags::ACK, b""));
        }
        let stamped = random(2) == 0;
        for (segment, at) in segments.iter_mut().zip(1..) {
            segment.time = Timestamp::from_nanos(at * 50_000_000);
            segment.timestamps = stamped.then_some((at as u32 * 50, 1));
        }
        for _ in 0..random(4) {
            let at = random(segments.len());
            let other = (at + 1 + random(3)).min(segments.len() - 1);
            let segment = &mut segments[at];
            match random(11) {
                0 => drop(segments.remove(at)),
                1 => {
                    let again = *segment;
                    segments.insert(other, again);
                }
                2 => segments.swap(at, other),
                3 => segment.flags = TcpFlags(random(64) as u8),
                4 => segment.seq = segment.seq.wrapping_add(random(60) as u32).wrapping_sub(30),
                5 => segment.ack = segment.ack.wrapping_add(random(60) as u32).wrapping_sub(30),
                6 => segment.cut = random(20) as u32,
                7 => segment.timestamps = Some((random(4000) as u32, 1)),
                8 => segment.signed = true,
                9 => segment.checksum = Checksum::Wrong,
                _ => segment.urgent = Some(random(9) as u16),
            }
            if segments.is_empty() {
                break;
            }
        }
        let [short, careful] = [false, true].map(|careful| {
            ALWAYS_CAREFUL.set(careful);
            let mut connections = Connections::new(Watch::default(), Limits::default());
            let mut said = String::new();
            for segment in &segments {
                connections.idle(segment.time);
                connections.segment(segment);
                let _ = writeln!(said, "{:?}", connections.events);
                connections.events.clear();
            }
            connections.finish();
            let _ = writeln!(said, "{:?} {:?}", connections.events, connections.account);
            said
        });
        ALWAYS_CAREFUL.set(false);
        assert!(
            short == careful,
            "round {round}: {segments:?}\n{short}\n{careful}"
        );
    }
}

/// One request and its answer on each of so many connections, as far as they are followed, each behind those of the rounds before;
/// the requests that were found.
fn play(connections: &mut Connections, clients: u16, round: u32) -> usize {
    for port in 1..=clients {
        let from = |segment| Segment {
            source: SocketAddr::new(CLIENT.ip(), port),
            ..segment
        };
        let to = |segment| Segment {
            destination: SocketAddr::new(CLIENT.ip(), port),
            ..segment
        };
        let request: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
        let seq = 1 + round * request.len() as u32;
        let ack = 1001 + round * OK.len() as u32;
        if round == 0 {
            connections.segment(&from(sent(0, 0, TcpFlags::SYN, b"")));
            connections.segment(&to(answered(1000, 1, TcpFlags::SYN | TcpFlags::ACK, b"")));
        }
        connections.segment(&from(sent(seq, ack, DATA, request)));
        let end = seq + request.len() as u32;
        connections.segment(&to(answered(ack, end, DATA, OK)));
    }
    let is_request = |event: &Event| matches!(event, Event::Request(_));
    connections.events.drain(..).filter(is_request).count()
}

#[test]
fn connections_are_left_out_whole_and_found_again() {
    let mut connections = Connections::new(Watch::default(), Limits::default());
    connections.keep(Share::of(0.5));
    let kept = play(&mut connections, 1000, 0);
    assert!((400..600).contains(&kept), "{kept}");
    let left_out = 1000 - kept as u64;
    let dropped = |connections: &Connections, reason| connections.account.dropped(reason);
    assert_eq!(dropped(&connections, Reason::ConnectionOverLimit), left_out);
    assert_eq!(
        dropped(&connections, Reason::SegmentOverLimit),
        4 * left_out
    );
    assert_eq!(connections.account.get(Counter::Connections), 1000);
    // The same ones again; then fewer of them, which were in the larger share too.
    assert_eq!(play(&mut connections, 1000, 1), kept);
    connections.keep(Share::of(0.1));
    let fewer = play(&mut connections, 1000, 2);
    assert!((50..150).contains(&fewer), "{fewer}");
    let ended = dropped(&connections, Reason::ConnectionOverLimit);
    assert_eq!(ended, 1000 - fewer as u64);
    // Those that come back begin in the middle.
    connections.keep(Share::ALL);
    let all = play(&mut connections, 1000, 3);
    assert!(all >= 1000 - fewer, "{all}");
    connections.finish();
    let account = &connections.account;
    let connections = account.get(Counter::Connections);
    assert_eq!(
        account.dropped_at(crate::account::Stage::Connection),
        connections
    );
}

#[test]
fn a_connection_at_rest_takes_little() {
    let mut connections = connected();
    let request: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    connections.segment(&sent(1, 1001, DATA, request));
    let seq = 1 + request.len() as u32;
    connections.segment(&answered(1001, seq, DATA, OK));
    let ack = 1001 + OK.len() as u32;
    connections.segment(&sent(seq, ack, TcpFlags::ACK, b""));
    assert!(connections.memory <= 512, "{}", connections.memory);
    // The careful way leaves no more behind than the short one.
    let (begin, end) = OK.split_at(20);
    connections.segment(&sent(seq, ack, DATA, request));
    let seq = seq + request.len() as u32;
    connections.segment(&answered(ack, seq, DATA, begin));
    connections.segment(&answered(ack + 20, seq, DATA, end));
    let ack = ack + OK.len() as u32;
    connections.segment(&sent(seq, ack, TcpFlags::ACK, b""));
    assert!(connections.memory <= 512, "{}", connections.memory);
}
