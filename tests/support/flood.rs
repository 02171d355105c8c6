//! Hostile traffic, made up packet by packet and the same every time, with an honest connection in the middle of it.

use std::net::{Ipv4Addr, SocketAddr};

use shadowtap::account::Account;
use shadowtap::exchange::Event;
use shadowtap::tap::{Tap, TapConfig};
use shadowtap::time::Timestamp;
use shadowtap::wire::{LinkType, Packet};

use super::net::{ACK, PSH, START, SYN};
use super::rng::Rng;

/// A kind of flood: its name and what sends so many units of it.
pub(crate) type Kind = (&'static str, u32, fn(&mut Flood, u32));

/// Every kind, with how much of it is a whole one.
pub(crate) const KINDS: [Kind; 8] = [
    ("SYNs from random addresses", 1_000_000, syns),
    ("half-open connections", 1_000_000, half_open),
    ("segments of one byte", 1_000_000, one_byte),
    (
        "a thousand holes in each of a thousand connections",
        1000,
        holes,
    ),
    ("header fields without end", 64 << 20, endless_head),
    ("chunk extensions without end", 64 << 20, endless_extension),
    (
        "a pipeline of requests, and then their answers",
        1_000_000,
        pipeline,
    ),
    ("answers without a request", 1_000_000, orphans),
];

/// What became of one.
#[derive(Debug)]
pub(crate) struct Flooded {
    /// Packets in all.
    pub(crate) packets: u64,
    /// The most bytes that the tap held at a time.
    pub(crate) held: usize,
    /// Honest exchanges that were sent.
    pub(crate) honest: u64,
    /// Of those, requests and answers that were found whole, in order.
    pub(crate) found: [u64; 2],
    /// The account.
    pub(crate) account: Account,
}

/// A flood under way.
pub(crate) struct Flood {
    tap: Tap,
    rng: Rng,
    time: u64,
    packets: u64,
    held: usize,
    honest: u64,
    /// Sequence numbers of the honest client and its server.
    numbers: [u32; 2],
    found: [u64; 2],
    frame: Vec<u8>,
}

/// Plays `amount` of a kind.
pub(crate) fn play(kind: fn(&mut Flood, u32), amount: u32, config: TapConfig) -> Flooded {
    let mut flood = Flood {
        tap: Tap::new(config),
        rng: Rng::new(9),
        time: START,
        packets: 0,
        held: 0,
        honest: 0,
        numbers: [u32::MAX - 2000, 77],
        found: [0, 0],
        frame: Vec::new(),
    };
    flood.packet(
        HONEST,
        SERVER,
        flood.numbers[0].wrapping_sub(1),
        0,
        SYN,
        &[],
    );
    let [client, server] = flood.numbers;
    flood.packet(
        SERVER,
        HONEST,
        server.wrapping_sub(1),
        client,
        SYN | ACK,
        &[],
    );
    flood.packet(HONEST, SERVER, client, server, ACK, &[]);
    kind(&mut flood, amount);
    flood.honest_exchange();
    flood.tap.finish();
    flood.drain();
    Flooded {
        packets: flood.packets,
        held: flood.held,
        honest: flood.honest,
        found: flood.found,
        account: flood.tap.account().clone(),
    }
}

/// Keep-alive exchanges on so many connections in turn, and nothing hostile.
pub(crate) fn peaceful(flood: &mut Flood, connections: u32, packets: u32) {
    let request = b"GET /api/items/7?page=4 HTTP/1.1\r\nHost: shop.example.com\r\nAccept: application/json\r\n\r\n";
    let answer =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    for n in 0..connections {
        flood.open(client(n));
    }
    let (mut sent, mut answered) = (0_u32, 0_u32);
    let mut left = packets;
    while left > 0 {
        for n in 0..connections {
            let end = client(n);
            flood.data(end, SERVER, 1000 + sent, 5000 + answered, request);
            flood.data(
                SERVER,
                end,
                5000 + answered,
                1000 + sent + request.len() as u32,
                answer,
            );
            left = left.saturating_sub(2);
            if left == 0 {
                return;
            }
        }
        sent += request.len() as u32;
        answered += answer.len() as u32;
    }
}

fn syns(flood: &mut Flood, amount: u32) {
    for _ in 0..amount {
        let random = flood.rng.next();
        let end = (random as u32, (random >> 32) as u16);
        flood.packet(end, SERVER, (random >> 16) as u32, 0, SYN, &[]);
    }
}

fn half_open(flood: &mut Flood, amount: u32) {
    for n in 0..amount {
        let end = client(n);
        flood.packet(end, SERVER, 999, 0, SYN, &[]);
        flood.packet(SERVER, end, 4999, 1000, SYN | ACK, &[]);
    }
}

fn one_byte(flood: &mut Flood, amount: u32) {
    let end = client(0);
    flood.open(end);
    let head = format!("POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: {amount}\r\n\r\n");
    flood.data(end, SERVER, 1000, 5000, head.as_bytes());
    let begin = 1000 + head.len() as u32;
    for n in 0..amount {
        flood.data(end, SERVER, begin.wrapping_add(n), 5000, b"x");
    }
}

fn holes(flood: &mut Flood, amount: u32) {
    for n in 0..amount {
        flood.open(client(n));
    }
    for hole in 0..1000 {
        for n in 0..amount {
            flood.data(client(n), SERVER, 1001 + 2 * hole, 5000, b"x");
        }
    }
}

fn endless_head(flood: &mut Flood, amount: u32) {
    endless(
        flood,
        amount,
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"X-Field: some value\r\n",
    );
}

fn endless_extension(flood: &mut Flood, amount: u32) {
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1";
    endless(flood, amount, head, b";name=value");
}

/// `amount` bytes of `more` behind `head`, on sixteen connections at a time.
fn endless(flood: &mut Flood, amount: u32, head: &[u8], more: &[u8]) {
    let piece: Vec<u8> = more.iter().copied().cycle().take(1400).collect();
    for n in 0..16 {
        flood.open(client(n));
        flood.data(client(n), SERVER, 1000, 5000, head);
    }
    let mut at = 1000 + head.len() as u32;
    for _ in 0..amount / 16 / 1400 {
        for n in 0..16 {
            flood.data(client(n), SERVER, at, 5000, &piece);
        }
        at += 1400;
    }
}

fn pipeline(flood: &mut Flood, amount: u32) {
    let end = client(0);
    flood.open(end);
    let request = b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n".repeat(40);
    let answer = b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n".repeat(40);
    let (mut sent, mut answered) = (1000_u32, 5000_u32);
    for _ in 0..amount / 40 {
        flood.data(end, SERVER, sent, answered, &request);
        sent = sent.wrapping_add(request.len() as u32);
    }
    for _ in 0..amount / 40 {
        flood.data(SERVER, end, answered, sent, &answer);
        answered = answered.wrapping_add(answer.len() as u32);
    }
}

fn orphans(flood: &mut Flood, amount: u32) {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlost";
    for n in 0..amount {
        // A thousand connections whose beginning was not captured.
        let (end, turn) = (client(n % 1000), n / 1000);
        flood.data(SERVER, end, 5000 + turn * answer.len() as u32, 1000, answer);
    }
}

type End = (u32, u16);

const SERVER: End = (0x0a00_0001, 80);
const HONEST: End = (0x0a09_0909, 5555);

const fn client(n: u32) -> End {
    (0x0b00_0000 + n / 50_000, 10_000 + (n % 50_000) as u16)
}

/// How many packets of the flood are between two honest exchanges.
const BETWEEN: u64 = 1000;

impl Flood {
    /// A handshake: the client's first byte has number 1000, the server's 5000.
    fn open(&mut self, end: End) {
        self.packet(end, SERVER, 999, 0, SYN, &[]);
        self.packet(SERVER, end, 4999, 1000, SYN | ACK, &[]);
        self.packet(end, SERVER, 1000, 5000, ACK, &[]);
    }

    fn data(&mut self, from: End, to: End, seq: u32, ack: u32, payload: &[u8]) {
        self.packet(from, to, seq, ack, ACK | PSH, payload);
    }

    fn packet(&mut self, from: End, to: End, seq: u32, ack: u32, flags: u8, payload: &[u8]) {
        self.give(from, to, seq, ack, flags, payload);
        if self.packets.is_multiple_of(BETWEEN) {
            self.honest_exchange();
        }
    }

    fn honest_exchange(&mut self) {
        let request = format!(
            "GET /honest/{} HTTP/1.1\r\nHost: honest\r\n\r\n",
            self.honest
        );
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhonest";
        self.honest += 1;
        let [client, server] = self.numbers;
        let after = client.wrapping_add(request.len() as u32);
        self.give(
            HONEST,
            SERVER,
            client,
            server,
            ACK | PSH,
            request.as_bytes(),
        );
        self.give(SERVER, HONEST, server, after, ACK | PSH, answer.as_bytes());
        self.numbers = [after, server.wrapping_add(answer.len() as u32)];
    }

    fn give(&mut self, from: End, to: End, seq: u32, ack: u32, flags: u8, payload: &[u8]) {
        self.packets += 1;
        self.time += 1000;
        let frame = &mut self.frame;
        frame.clear();
        frame.extend_from_slice(&[0x45, 0]);
        frame.extend_from_slice(&((40 + payload.len()) as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend_from_slice(&from.0.to_be_bytes());
        frame.extend_from_slice(&to.0.to_be_bytes());
        frame.extend_from_slice(&from.1.to_be_bytes());
        frame.extend_from_slice(&to.1.to_be_bytes());
        frame.extend_from_slice(&seq.to_be_bytes());
        frame.extend_from_slice(&ack.to_be_bytes());
        frame.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend_from_slice(payload);
        self.tap.packet(&Packet {
            time: Timestamp::from_nanos(self.time),
            link: LinkType(101),
            wire_len: frame.len() as u32,
            data: frame,
        });
        self.held = self.held.max(self.tap.memory());
        self.drain();
    }

    fn drain(&mut self) {
        let honest = SocketAddr::from((Ipv4Addr::from(HONEST.0), HONEST.1));
        while let Some(event) = self.tap.poll() {
            match event {
                Event::Request(request) if request.endpoints.client == honest => {
                    let target = format!("/honest/{}", self.found[0]);
                    let right = request.head.target() == target.as_bytes();
                    self.found[0] += u64::from(right && request.completeness.is_whole());
                }
                Event::Response { response, .. } => {
                    let right = &response.body.wire[..] == b"honest";
                    self.found[1] += u64::from(right && response.completeness.is_whole());
                }
                _ => {}
            }
        }
    }
}
