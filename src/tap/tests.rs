//! What a [`Tap`] believes, where a capture file would say less clearly what is meant.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::Limits;
use super::connections::Connections;
use crate::account::Reason;
use crate::exchange::{Event, Request};
use crate::tap::Watch;
use crate::time::Timestamp;
use crate::wire::{Path, Segment, TcpFlags};

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 40000);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80);
const DATA: TcpFlags = TcpFlags(0x18);

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

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

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
fn empty_lines_before_anything_else_cost_nothing() {
    let mut connections = connected();
    for offset in 0..50_000 {
        connections.segment(&sent(1 + offset, 1001, DATA, b"\n"));
    }
    assert!(connections.memory < 10_000);
    connections.segment(&sent(50_001, 1001, DATA, b"GET /last HTTP/1.1\r\n\r\n"));
    assert_eq!(targets(&requests(&mut connections)), [b"/last"]);
}
