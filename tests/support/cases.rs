//! Captures that are generated: the ones too large to keep, and some with a shape that only code can say clearly.

use super::files::{Flavour, PCAP, Record};
use super::frames::ethernet;
use super::http::{
    Content, Message, exchange, forbidden, get, incomplete, ok, optional, post, request, response,
};
use super::net::{Conversation, FIN, RST, START, SYN, Side, Tcp};
use super::rng::Rng;
use super::scenario;
use super::score::Line;

/// A capture and what must be found in it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The name of the file.
    pub(crate) name: String,
    /// The class that it belongs to.
    pub(crate) class: String,
    /// What is special about it.
    pub(crate) what: String,
    /// The capture file.
    pub(crate) file: Vec<u8>,
    /// What must, may and must not be found.
    pub(crate) truth: Vec<Line>,
}

/// How many scenarios are made up at random, unless `SHADOWTAP_RANDOM` says more.
const RANDOM: u64 = 250;

/// Every generated capture.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = tcp();
    cases.extend(offload());
    cases.extend(http());
    cases.extend(stress());
    let random = std::env::var("SHADOWTAP_RANDOM").ok();
    let random = random.map_or(RANDOM, |count| count.parse().expect("a number"));
    cases.extend((0..random).map(scenario::case));
    cases
}

/// Orders, sizes, many at once.
fn tcp() -> Vec<Case> {
    let mut rng = Rng::new(1);
    let mut orders = Book::new(
        "tcp",
        "tcp_every_order_of_five",
        "every one of the 120 orders of a request in five segments",
    );
    for (n, order) in permutations(5).into_iter().enumerate() {
        let mut conversation = Conversation::new(u16::try_from(n).expect("120"));
        conversation.now = START + n as u64 * 500_000_000;
        let (request, answer) = (
            post(&format!("/order/{n}"), &rng.text(60)),
            ok(&rng.text(80)),
        );
        let cut = |i: usize| request.wire.len() * i / 5;
        let pieces: Vec<_> = order.iter().map(|&i| (cut(i), cut(i + 1))).collect();
        conversation
            .open()
            .send_pieces(Side::Client, &request.wire, &pieces)
            .send(Side::Server, &answer.wire)
            .close(Side::Client);
        orders.add(conversation, &[(request, answer)]);
    }

    let mut damaged = Book::new(
        "tcp",
        "tcp_damaged_on_the_way",
        "every second segment comes first with a bit turned, which its checksum shows",
    );
    for n in 0..30 {
        let mut conversation = Conversation::new(n);
        conversation.now = START + u64::from(n) * 500_000_000;
        conversation.mss = 100;
        let (request, answer) = (
            post(
                &format!("/damaged/{n}"),
                &rng.text(40 + usize::from(n) * 20),
            ),
            ok(&rng.text(900 - usize::from(n) * 20)),
        );
        conversation
            .open()
            .send(Side::Client, &request.wire)
            .send(Side::Server, &answer.wire)
            .close(Side::Client);
        let packets = std::mem::take(&mut conversation.packets);
        for (at, packet) in packets.into_iter().enumerate() {
            if !packet.payload.is_empty() && (at / 2 + usize::from(n)).is_multiple_of(2) {
                let mut first = packet.clone();
                first.damaged = true;
                first.at -= 500_000;
                conversation.packets.push(first);
            }
            conversation.packets.push(packet);
        }
        damaged.add(conversation, &[(request, answer)]);
    }

    let mut late = Book::new(
        "tcp",
        "tcp_first_of_500_segments_last",
        "500 segments wait for the first one",
    );
    let mut conversation = Conversation::new(0);
    let (request, answer) = (get("/late"), ok(&rng.bytes(700_000)));
    let mut pieces = cuts(answer.wire.len(), 1400);
    pieces.rotate_left(1);
    conversation
        .open()
        .send(Side::Client, &request.wire)
        .send_pieces(Side::Server, &answer.wire, &pieces)
        .close(Side::Client);
    late.add(conversation, &[(request, answer)]);

    let mut many = Book::new(
        "tcp",
        "tcp_200_connections_interleaved",
        "200 connections at the same time",
    );
    for n in 0..200 {
        let mut conversation = Conversation::new(n);
        conversation.now = START + u64::from(n) * 170_001;
        conversation.open();
        let exchanges: Vec<_> = (0..rng.range(1, 3))
            .map(|i| {
                let (up, down) = (rng.range(0, 3000), rng.range(0, 5000));
                (
                    post(&format!("/many/{n}/{i}"), &rng.text(up)),
                    ok(&rng.text(down)),
                )
            })
            .collect();
        for (request, answer) in &exchanges {
            conversation
                .send(Side::Client, &request.wire)
                .send(Side::Server, &answer.wire);
        }
        conversation.close(Side::Client);
        many.add(conversation, &exchanges);
    }

    let mut reuse = Book::new(
        "tcp-reuse",
        "tcp_port_reused_ten_times",
        "one pair of ports, ten connections, ended in every way or not at all",
    );
    let mut now = START;
    for n in 0..10_u32 {
        let mut conversation = Conversation::new(7).with_isn(rng.next() as u32, rng.next() as u32);
        conversation.now = now;
        let (request, answer) = (
            post(&format!("/life/{n}"), &rng.text(3000)),
            ok(&rng.text(3000)),
        );
        conversation
            .open()
            .send(Side::Client, &request.wire)
            .send(Side::Server, &answer.wire);
        match n % 4 {
            0 => drop(conversation.close(Side::Client)),
            1 => drop(conversation.close(Side::Server)),
            2 => drop(conversation.reset(Side::Server)),
            _ => {}
        }
        now = conversation.now + 1_000_000;
        reuse.add(conversation, &[(request, answer)]);
    }

    let mut after = Book::new(
        "tcp-close",
        "tcp_requests_behind_every_end",
        "request-shaped data behind FIN and behind RST, which nobody reads",
    );
    for (n, flags) in [FIN, RST].into_iter().enumerate() {
        let mut conversation = Conversation::new(n as u16);
        let (request, answer) = (get(&format!("/before/{n}")), ok(b"ok"));
        conversation
            .open()
            .send(Side::Client, &request.wire)
            .send(Side::Server, &answer.wire);
        let template = conversation.template(Side::Client);
        conversation.packets.push(Tcp {
            flags: flags | super::net::ACK,
            ..template
        });
        conversation.set_offset(Side::Client, conversation.offset(Side::Client) + 1);
        let ghost = get(&format!("/behind/{n}"));
        conversation.data(Side::Client, &ghost.wire);
        after
            .truth
            .push(forbidden(exchange(&conversation, &ghost, None)));
        after.add(conversation, &[(request, answer)]);
    }

    let mut holes = Book::new(
        "tcp-gap",
        "tcp_hole_in_each_place",
        "one segment of a request body, a response body and a chunked body was not captured",
    );
    for (n, (request, answer, side)) in [
        (post("/hole/request", &rng.text(6000)), ok(b"ok"), "request"),
        (get("/hole/response"), ok(&rng.text(6000)), "response"),
        (
            get("/hole/chunked"),
            response(
                200,
                &[],
                &Content::Chunked(vec![rng.text(3000), rng.text(3000)], Vec::new()),
            ),
            "response",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut conversation = Conversation::new(n as u16);
        conversation
            .open()
            .send(Side::Client, &request.wire)
            .send(Side::Server, &answer.wire);
        let from = if side == "request" {
            Side::Client
        } else {
            Side::Server
        };
        let third = conversation
            .packets
            .iter()
            .enumerate()
            .filter(|(_, tcp)| tcp.from == from && tcp.payload.len() == 1460)
            .nth(1)
            .map(|(i, _)| i)
            .expect("long enough");
        conversation.packets.remove(third);
        let (next, next_answer) = (get(&format!("/hole/next/{n}")), ok(b"next"));
        conversation
            .send(Side::Client, &next.wire)
            .send(Side::Server, &next_answer.wire)
            .close(Side::Client);
        holes.truth.push(incomplete(
            exchange(&conversation, &request, Some(&answer)),
            side,
        ));
        holes.add(conversation, &[(next, next_answer)]);
    }
    vec![
        orders.close(),
        damaged.close(),
        late.close(),
        many.close(),
        reuse.close(),
        after.close(),
        holes.close(),
    ]
}

/// Segments larger than any wire carries, as the kernel shows them before the network card cuts them.
fn offload() -> Vec<Case> {
    let mut rng = Rng::new(2);
    let mut large = Book::new(
        "offload",
        "offload_60000_byte_segments",
        "segments of 60,000 bytes",
    );
    let mut conversation = Conversation::new(0);
    conversation.mss = 60_000;
    let (request, answer) = (post("/large", &rng.bytes(150_000)), ok(&rng.bytes(200_000)));
    conversation
        .open()
        .send(Side::Client, &request.wire)
        .send(Side::Server, &answer.wire)
        .close(Side::Client);
    large.add(conversation, &[(request, answer)]);

    let mut zero = Book::new(
        "offload",
        "offload_ip_total_length_zero",
        "IPv4 segments of 131,070 bytes whose total length is 0",
    );
    let mut conversation = Conversation::new(0);
    conversation.mss = 131_070;
    let (request, answer) = (get("/zero"), ok(&rng.bytes(300_000)));
    conversation
        .open()
        .send(Side::Client, &request.wire)
        .send(Side::Server, &answer.wire)
        .close(Side::Client);
    zero.add(conversation, &[(request, answer)]);

    let mut jumbo = Book::new(
        "offload",
        "offload_ipv6_jumbo",
        "IPv6 segments of 100,000 bytes with the jumbo payload option",
    );
    let mut conversation = Conversation::new_v6(0);
    let (request, answer) = (get("/jumbo"), ok(&rng.bytes(250_000)));
    conversation.open().send(Side::Client, &request.wire);
    conversation.mss = 100_000;
    conversation
        .send(Side::Server, &answer.wire)
        .close(Side::Client);
    jumbo.add(conversation, &[(request, answer)]);
    vec![large.close(), zero.close(), jumbo.close()]
}

/// Long heads, long bodies, long pipelines, and what only looks like HTTP.
fn http() -> Vec<Case> {
    let mut rng = Rng::new(3);
    let book = |name: &str, what: &str, exchanges: Vec<(Message, Message)>| {
        let mut book = Book::new("http", name, what);
        let mut conversation = Conversation::new(0);
        conversation.open();
        for (request, answer) in &exchanges {
            conversation
                .send(Side::Client, &request.wire)
                .send(Side::Server, &answer.wire);
        }
        conversation.close(Side::Client);
        book.add(conversation, &exchanges);
        book.close()
    };
    let long = String::from_utf8(rng.text(100_000))
        .expect("letters")
        .trim()
        .to_owned();
    let fields: Vec<(String, String)> = (0..5000)
        .map(|n| (format!("X-{n}"), format!("v{n}")))
        .collect();
    let fields: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let target = format!("/{}", "a".repeat(65_536));
    let big = (
        post("/3mb", &rng.bytes(3_000_000)),
        ok(&rng.bytes(3_000_000)),
    );
    let mut cases = vec![
        book(
            "http_head_of_100_kb",
            "heads of 100 kB, then another exchange",
            vec![
                (
                    request("GET", "/head", &[("X-Long", &long)], &Content::None),
                    response(200, &[("X-Long", &long)], &Content::Length(b"x".to_vec())),
                ),
                (get("/after"), ok(b"after")),
            ],
        ),
        book(
            "http_5000_fields",
            "5,000 header fields, then another exchange",
            vec![
                (
                    request("GET", "/fields", &fields, &Content::None),
                    response(200, &fields, &Content::Length(b"x".to_vec())),
                ),
                (get("/after"), ok(b"after")),
            ],
        ),
        book(
            "http_target_of_64_kb",
            "a target of 64 kB, then another exchange",
            vec![(get(&target), ok(b"x")), (get("/after"), ok(b"after"))],
        ),
        book("http_bodies_of_3_mb", "bodies of 3 MB both ways", vec![big]),
    ];

    let mut pipeline = Book::new(
        "http",
        "http_3000_pipelined",
        "3,000 requests before the first answer",
    );
    let mut conversation = Conversation::new(0);
    let exchanges: Vec<_> = (0..3000)
        .map(|n| {
            (
                get(&format!("/p/{n}")),
                ok(format!("answer {n}").as_bytes()),
            )
        })
        .collect();
    let all: Vec<u8> = exchanges
        .iter()
        .flat_map(|(request, _)| request.wire.clone())
        .collect();
    let answers: Vec<u8> = exchanges
        .iter()
        .flat_map(|(_, answer)| answer.wire.clone())
        .collect();
    conversation
        .open()
        .send(Side::Client, &all)
        .send(Side::Server, &answers)
        .close(Side::Client);
    pipeline.add(conversation, &exchanges);
    cases.push(pipeline.close());

    let mut noise = Book::new(
        "not-http",
        "not_random_bytes_on_port_80",
        "random bytes both ways, and an exchange beside them",
    );
    let mut conversation = Conversation::new(0);
    conversation
        .open()
        .send(Side::Client, &rng.bytes(20_000))
        .send(Side::Server, &rng.bytes(20_000))
        .close(Side::Client);
    noise.add(conversation, &[]);
    let mut conversation = Conversation::new(1);
    let (request, answer) = (get("/beside"), ok(b"noise"));
    conversation
        .open()
        .send(Side::Client, &request.wire)
        .send(Side::Server, &answer.wire)
        .close(Side::Client);
    noise.add(conversation, &[(request, answer)]);
    cases.push(noise.close());
    cases
}

/// What an attacker, or a broken client, sends to a program that keeps state.
fn stress() -> Vec<Case> {
    let mut rng = Rng::new(4);
    let last = |book: &mut Book, now: u64| {
        let mut conversation = Conversation::new(40_000);
        conversation.now = now;
        let (request, answer) = (get("/last"), ok(b"still here"));
        conversation
            .open()
            .send(Side::Client, &request.wire)
            .send(Side::Server, &answer.wire)
            .close(Side::Client);
        book.add(conversation, &[(request, answer)]);
    };

    let mut syns = Book::new(
        "stress",
        "stress_20000_half_open",
        "20,000 connections that are never opened, then one exchange",
    );
    for n in 0..20_000_u16 {
        let mut conversation = Conversation::new(n);
        conversation.now = START + u64::from(n) * 10_000;
        let template = conversation.template(Side::Client);
        conversation.packets.push(Tcp {
            flags: SYN,
            ..template
        });
        syns.add(conversation, &[]);
    }
    last(&mut syns, START + 1_000_000_000);

    let mut holes = Book::new(
        "stress",
        "stress_400_holes",
        "400 connections with a hole that is never filled, then one exchange",
    );
    for n in 0..400_u16 {
        let mut conversation = Conversation::new(n);
        conversation.now = START + u64::from(n) * 100_000;
        let upload = post("/hole", &rng.text(200_000));
        conversation.open().data(Side::Client, &upload.wire[..300]);
        for at in [10_000, 12_000, 15_000] {
            conversation.data_at(Side::Client, at, &upload.wire[at..at + 1400]);
        }
        holes.truth.push(optional(incomplete(
            exchange(&conversation, &upload, None),
            "request",
        )));
        holes.add(conversation, &[]);
    }
    last(&mut holes, START + 1_000_000_000);

    let mut endless = Book::new(
        "stress",
        "stress_endless_head",
        "2.5 MB of header fields that never end, then one exchange",
    );
    let mut conversation = Conversation::new(0);
    conversation
        .open()
        .send(Side::Client, b"GET /endless HTTP/1.1\r\nHost: x\r\n");
    for n in 0..1800 {
        let line = format!("X-{n}: {}\r\n", "a".repeat(1380));
        conversation.send(Side::Client, line.as_bytes());
    }
    let now = conversation.now;
    let partial = optional(incomplete(
        exchange(
            &conversation,
            &request("GET", "/endless", &[], &Content::None),
            None,
        ),
        "request",
    ));
    let mut partial = partial;
    partial.remove("request_headers");
    endless.truth.push(partial);
    endless.add(conversation, &[]);
    last(&mut endless, now);

    let mut chunks = Book::new(
        "stress",
        "stress_200000_chunks_of_one_byte",
        "a body of 200,000 chunks of one byte",
    );
    let mut conversation = Conversation::new(0);
    let (request, answer) = (
        get("/chunks"),
        response(
            200,
            &[],
            &Content::Chunked(vec![b"x".to_vec(); 200_000], Vec::new()),
        ),
    );
    conversation
        .open()
        .send(Side::Client, &request.wire)
        .send(Side::Server, &answer.wire)
        .close(Side::Client);
    chunks.add(conversation, &[(request, answer)]);
    vec![syns.close(), holes.close(), endless.close(), chunks.close()]
}

/// A case being written.
struct Book {
    class: &'static str,
    name: String,
    what: String,
    conversations: Vec<Conversation>,
    truth: Vec<Line>,
}

impl Book {
    fn new(class: &'static str, name: &str, what: &str) -> Self {
        Self {
            class,
            name: format!("{name}.pcap"),
            what: what.to_owned(),
            conversations: Vec::new(),
            truth: Vec::new(),
        }
    }

    /// A conversation on which these exchanges must be found.
    fn add(&mut self, conversation: Conversation, exchanges: &[(Message, Message)]) {
        for (request, answer) in exchanges {
            self.truth
                .push(exchange(&conversation, request, Some(answer)));
        }
        self.conversations.push(conversation);
    }

    /// The case, its packets sorted by time, on Ethernet.
    fn close(self) -> Case {
        let mut packets: Vec<_> = self
            .conversations
            .iter()
            .flat_map(|conversation| {
                conversation
                    .packets
                    .iter()
                    .map(move |tcp| (conversation, tcp))
            })
            .collect();
        packets.sort_by_key(|(_, tcp)| tcp.at);
        let records: Vec<Record> = packets
            .into_iter()
            .map(|(conversation, tcp)| {
                let ether_type = if conversation.client.is_ipv6() {
                    0x86dd
                } else {
                    0x0800
                };
                Record {
                    at: tcp.at,
                    frame: ethernet(tcp.from, ether_type, &conversation.ip(tcp)),
                }
            })
            .collect();
        let flavour: Flavour = PCAP;
        Case {
            name: self.name,
            class: self.class.to_owned(),
            what: self.what,
            file: flavour.write(1, 262_144, &records),
            truth: self.truth,
        }
    }
}

/// The pieces of `len` bytes cut every `size` bytes.
fn cuts(len: usize, size: usize) -> Vec<(usize, usize)> {
    (0..len)
        .step_by(size)
        .map(|from| (from, (from + size).min(len)))
        .collect()
}

/// Every order of `0..n`.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    permutations(n - 1)
        .into_iter()
        .flat_map(|order| {
            (0..n).map(move |at| {
                let mut order = order.clone();
                order.insert(at, n - 1);
                order
            })
        })
        .collect()
}
