//! Traffic made up at random, with the truth about it: HTTP of every shape on TCP of every kind in frames of every sort.

use super::cases::Case;
use super::files::{FLAVOURS, Flavour, Record};
use super::frames::{WRAPS, Wrap};
use super::http::{Content, Message, exchange, request, response};
use super::net::{ACK, Conversation, RST, START, Side, Tcp};
use super::rng::Rng;
use super::score::Line;

/// What may happen to the packets of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weather {
    /// Nothing: segments of full size, in order, each once. No body looks like HTTP, so that whoever loses the thread can find it again.
    Calm,
    /// Everything that TCP repairs: other cuts, other orders, duplicates, overlaps, probes, parts of the handshake not captured.
    Rough,
}

/// Conversations and what must be found in them.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// The conversations; their packets have times.
    pub(crate) conversations: Vec<Conversation>,
    /// What must be found.
    pub(crate) truth: Vec<Line>,
}

/// The case that `seed` stands for.
pub(crate) fn case(seed: u64) -> Case {
    let mut rng = Rng::new(seed);
    let wrap = *rng.pick(WRAPS);
    let flavour = *rng.pick(FLAVOURS);
    let v6 = rng.one_in(3);
    let twice = rng.one_in(6);
    let scenario = scenario(&mut rng, Weather::Rough, v6);
    let packets = scenario.packets();
    let file = render(&packets, wrap, flavour, v6, twice, &mut rng);
    Case {
        name: format!("random_{seed}.{}", flavour.extension()),
        class: "random".to_owned(),
        what: format!(
            "{wrap:?}, {flavour:?}{}",
            if twice { ", every packet twice" } else { "" }
        ),
        file,
        truth: scenario.truth,
    }
}

/// A few conversations of a few exchanges each.
pub(crate) fn scenario(rng: &mut Rng, weather: Weather, v6: bool) -> Scenario {
    let mut conversations = Vec::new();
    let mut truth = Vec::new();
    for n in 0..rng.range(1, 5) {
        let number = u16::try_from(n).expect("a few");
        let mut conversation = if v6 {
            Conversation::new_v6(number)
        } else {
            Conversation::new(number)
        }
        .with_isn(rng.next() as u32, rng.next() as u32);
        if rng.one_in(4) {
            // The sequence numbers wrap somewhere in the first bytes.
            let near = |rng: &mut Rng| u32::MAX - rng.next() as u32 % 3000;
            conversation = conversation.with_isn(near(rng), near(rng));
        }
        conversation.now = START + rng.next() % 50_000_000;
        conversation.mss = *rng.pick(&[1400, 1400, 536, 100]);
        Talk {
            rng,
            weather,
            conversation: &mut conversation,
            truth: &mut truth,
        }
        .run(n);
        conversations.push(conversation);
    }
    Scenario {
        conversations,
        truth,
    }
}

impl Scenario {
    /// Every packet in the order of the capture, with its conversation.
    pub(crate) fn packets(&self) -> Vec<(&Conversation, &Tcp)> {
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
        packets
    }
}

/// The capture file with these packets.
pub(crate) fn render(
    packets: &[(&Conversation, &Tcp)],
    wrap: Wrap,
    flavour: Flavour,
    v6: bool,
    twice: bool,
    rng: &mut Rng,
) -> Vec<u8> {
    let mut records = Vec::new();
    let mut id = 0_u16;
    for (conversation, tcp) in packets {
        let ip = conversation.ip(tcp);
        for _ in 0..=usize::from(twice) {
            let frames = wrap.frames(&ip, tcp.from, id, rng);
            id = id.wrapping_add(1);
            records.extend(frames.into_iter().map(|frame| Record { at: tcp.at, frame }));
        }
    }
    flavour.write(wrap.link_type(v6), 262_144, &records)
}

/// How much of a connection's handshake was captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    /// All three packets.
    Seen,
    /// Not the first or not the second.
    PartlySeen,
    /// None.
    Unseen,
}

/// One conversation being made up.
struct Talk<'a> {
    rng: &'a mut Rng,
    weather: Weather,
    conversation: &'a mut Conversation,
    truth: &'a mut Vec<Line>,
}

impl Talk<'_> {
    fn run(&mut self, n: usize) {
        let rough = self.weather == Weather::Rough;
        self.conversation.open();
        // Without the whole handshake a connection is recognised by its first request, so that one must come in order; without
        // any of it, at once and with a method that everybody knows.
        let mut start = Start::Seen;
        if rough && self.rng.one_in(4) {
            start = *self
                .rng
                .pick(&[Start::PartlySeen, Start::PartlySeen, Start::Unseen]);
            if start == Start::Unseen {
                self.conversation.packets.clear();
            } else {
                let lost = self.rng.range(0, 2);
                self.conversation.packets.remove(lost);
            }
        }
        let exchanges = self.rng.range(1, 7);
        let pipelined = self.rng.one_in(4);
        let mut requests = Vec::new();
        let mut responses = Vec::new();
        for i in 0..exchanges {
            let last = i + 1 == exchanges;
            let plain = i == 0 && start == Start::Unseen;
            let (request, interim, response) = self.exchange(&format!("/c{n}/{i}"), plain, last);
            self.truth
                .push(exchange(self.conversation, &request, Some(&response)));
            requests.push(request);
            responses.push((interim, response));
        }
        let until_close = responses.last().is_some_and(|(_, response)| {
            !response.truth["response_headers"]
                .to_string()
                .contains("Content-Length")
                && !response.truth["response_headers"]
                    .to_string()
                    .contains("chunked")
                && !matches!(response.truth["status"].as_u64(), Some(204 | 304))
        });
        if pipelined {
            let all: Vec<u8> = requests
                .iter()
                .flat_map(|request| request.wire.clone())
                .collect();
            let answers: Vec<u8> = responses
                .iter()
                .flat_map(|(interim, response)| [interim.clone(), response.wire.clone()].concat())
                .collect();
            self.flight(Side::Client, &all, start);
            self.flight(Side::Server, &answers, Start::Seen);
        } else {
            for (i, (request, (interim, response))) in requests.iter().zip(&responses).enumerate() {
                let start = if i > 0 { Start::Seen } else { start };
                self.flight(Side::Client, &request.wire, start);
                self.noise();
                if !interim.is_empty() && self.rng.one_in(2) {
                    self.flight(Side::Server, interim, Start::Seen);
                    self.flight(Side::Server, &response.wire, Start::Seen);
                } else {
                    self.flight(
                        Side::Server,
                        &[interim.clone(), response.wire.clone()].concat(),
                        Start::Seen,
                    );
                }
                self.noise();
            }
        }
        let end = if until_close { 1 } else { self.rng.range(0, 4) };
        match end {
            0 => drop(self.conversation.close(Side::Client)),
            1 => drop(self.conversation.close(Side::Server)),
            2 => drop(self.conversation.reset(Side::Client)),
            _ => {}
        }
        if rough && start == Start::Seen && self.rng.one_in(3) {
            self.swap_acknowledgements();
        }
    }

    /// A request, the bytes of interim answers, and the final answer.
    fn exchange(&mut self, target: &str, plain: bool, last: bool) -> (Message, Vec<u8>, Message) {
        let rng = &mut *self.rng;
        let method = *rng.pick(&[
            "GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "PURGE",
            "x-own",
        ]);
        let method = if plain { "GET" } else { method };
        let body = Self::body(rng, self.weather);
        let content = match (method, rng.range(0, 3)) {
            ("GET" | "HEAD", 1..) => Content::None,
            (_, 0) => Content::None,
            (_, 1) => Content::Length(body),
            _ => Content::Chunked(Self::pieces(rng, &body), Self::trailers(rng)),
        };
        let fields: &[(&str, &str)] = rng.pick::<&[(&str, &str)]>(&[
            &[],
            &[("X-A", "1"), ("X-a", "2"), ("Cookie", "k=v; l=w")],
            &[("Accept", "*/*"), ("X-Empty", "")],
            // An offer that no server of these takes.
            &[("Connection", "Upgrade"), ("Upgrade", "h2c")],
        ]);
        let request = request(method, target, fields, &content);

        let body = Self::body(rng, self.weather);
        let (status, content) = match rng.range(0, 8) {
            _ if method == "HEAD" => (200, Content::HeadOf(vec![b'-'; 5000])),
            0 => (204, Content::None),
            1 => (304, Content::HeadOf(vec![b'-'; 700])),
            2 | 3 => (
                200,
                Content::Chunked(Self::pieces(rng, &body), Self::trailers(rng)),
            ),
            4 if last => (200, Content::UntilClose(body)),
            5 => (404, Content::Length(body)),
            _ => (200, Content::Length(body)),
        };
        let mut response = response(
            status,
            &[
                ("Server", "test"),
                ("Set-Cookie", "a=1"),
                ("Set-Cookie", "b=2"),
            ],
            &content,
        );
        let interim: &[u16] = rng.pick::<&[u16]>(&[&[], &[], &[], &[], &[100], &[102, 103]]);
        let mut bytes = Vec::new();
        for status in interim {
            bytes.extend_from_slice(
                format!("HTTP/1.1 {status} Interim\r\nX-I: 1\r\n\r\n").as_bytes(),
            );
        }
        response.truth.insert("interim".to_owned(), interim.into());
        (request, bytes, response)
    }

    fn body(rng: &mut Rng, weather: Weather) -> Vec<u8> {
        let kind = if weather == Weather::Calm {
            rng.range(3, 6)
        } else {
            rng.range(0, 6)
        };
        match kind {
            0 => Vec::new(),
            1 => b"GET /lure HTTP/1.1\r\nHost: lure\r\n\r\n".repeat(rng.range(1, 9)),
            2 => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n0\r\n\r\n".repeat(rng.range(1, 9)),
            3 => {
                let len = rng.range(1, 9000);
                rng.bytes(len)
            }
            _ => {
                let len = rng.range(1, 300);
                rng.text(len)
            }
        }
    }

    fn pieces(rng: &mut Rng, body: &[u8]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(rng.range(1, 2000).min(rest.len()));
            pieces.push(piece.to_vec());
            rest = tail;
        }
        pieces
    }

    fn trailers(rng: &mut Rng) -> Vec<(String, String)> {
        if rng.one_in(3) {
            vec![("X-Sum".to_owned(), "abc".to_owned())]
        } else {
            Vec::new()
        }
    }

    /// Sends `bytes`, as the weather has it and as far as the start of the connection allows.
    fn flight(&mut self, side: Side, bytes: &[u8], start: Start) {
        let any_order = start == Start::Seen;
        if self.weather == Weather::Calm || start == Start::Unseen {
            self.conversation.send(side, bytes);
            return;
        }
        let most = if bytes.len() < 200 && self.rng.one_in(4) {
            2
        } else {
            700
        };
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let to = (at + self.rng.range(1, most)).min(bytes.len());
            pieces.push((at, to));
            at = to;
        }
        match self.rng.range(0, 6) {
            0 => drop(self.conversation.send(side, bytes)),
            1 => drop(self.conversation.send_pieces(side, bytes, &pieces)),
            2 if any_order => {
                self.rng.shuffle(&mut pieces);
                self.conversation.send_pieces(side, bytes, &pieces);
            }
            3 if any_order => {
                self.overlaps(bytes.len(), &mut pieces);
                self.rng.shuffle(&mut pieces);
                self.conversation.send_pieces(side, bytes, &pieces);
            }
            4 => {
                // Each piece again after it, and the whole again at the end, cut elsewhere.
                let mut all: Vec<_> = pieces.iter().flat_map(|&piece| [piece, piece]).collect();
                self.overlaps(bytes.len(), &mut all);
                self.conversation.send_pieces(side, bytes, &all);
            }
            _ => {
                // One is lost, and what fills the hole covers more than it.
                let lost = self.rng.range(0, pieces.len());
                let (from, _) = pieces.remove(lost);
                pieces.push((from, (from + 1400).min(bytes.len())));
                if lost == 0 && !any_order {
                    pieces.insert(0, (0, 1.max(bytes.len() / 2)));
                }
                self.conversation.send_pieces(side, bytes, &pieces);
            }
        }
    }

    /// Captures that several queues fill show some acknowledgements before the data that they are for.
    fn swap_acknowledgements(&mut self) {
        let packets = &mut self.conversation.packets;
        for i in 3..packets.len().saturating_sub(1) {
            let (data, ack) = (&packets[i], &packets[i + 1]);
            let swaps = !data.payload.is_empty()
                && ack.payload.is_empty()
                && ack.flags == ACK
                && data.from != ack.from;
            if swaps && self.rng.one_in(3) {
                let (first, second) = (data.at, ack.at);
                packets.swap(i, i + 1);
                packets[i].at = first;
                packets[i + 1].at = second;
            }
        }
    }

    fn overlaps(&mut self, len: usize, pieces: &mut Vec<(usize, usize)>) {
        for _ in 0..pieces.len() / 2 {
            let from = self.rng.range(0, len);
            pieces.push((from, (from + self.rng.range(1, 900)).min(len)));
        }
    }

    /// What a connection says without saying anything.
    fn noise(&mut self) {
        if self.weather == Weather::Calm || !self.rng.one_in(3) {
            return;
        }
        let side = *self.rng.pick(&[Side::Client, Side::Server]);
        let template = self.conversation.template(side);
        let packet = match self.rng.range(0, 7) {
            // A window update.
            0 => Tcp {
                window: 100,
                ..template
            },
            // A keep-alive probe with a byte of rubbish.
            1 => Tcp {
                seq: template.seq.wrapping_sub(1),
                payload: vec![0],
                ..template
            },
            // One without.
            2 => Tcp {
                seq: template.seq.wrapping_sub(1),
                ..template
            },
            // Far outside the window.
            3 => Tcp {
                seq: template.seq.wrapping_add(900_000_000),
                payload: b"GET /far HTTP/1.1\r\nHost: far\r\n\r\n".to_vec(),
                ..template
            },
            // A reset far outside the window.
            4 => Tcp {
                seq: template.seq.wrapping_add(900_000_000),
                flags: RST,
                ..template
            },
            // A reset in the window, but not at its start, which Linux only answers (RFC 5961).
            5 => Tcp {
                seq: template.seq.wrapping_add(7),
                flags: RST,
                ..template
            },
            // No acknowledgement: no receiver takes it.
            _ => Tcp {
                flags: template.flags & !ACK,
                payload: b"GET /bare HTTP/1.1\r\n\r\n".to_vec(),
                ..template
            },
        };
        self.conversation.packets.push(packet);
    }
}
