//! Traffic of which packets were lost, before the capture, so that TCP repaired it, or after, so that only the capture misses them;
//! and what could be made of the rest.

use std::collections::HashMap;

use shadowtap::exchange::{Event, Exchange, Joiner};
use shadowtap::tap::{Tap, TapConfig};
use shadowtap::time::Timestamp;
use shadowtap::wire::{LinkType, Packet};

use super::net::{Conversation, FIN, SYN, Side, Tcp};
use super::rng::Rng;

/// Where packets are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lost {
    /// On the way: they come again later.
    BeforeCapture,
    /// By the capture alone.
    AfterCapture,
}

/// What was found of traffic with losses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Recovered {
    /// Exchanges that were sent.
    pub(crate) sent: usize,
    /// Packets that were lost.
    pub(crate) lost: usize,
    /// Requests of which every byte was captured: nobody can find more.
    pub(crate) best: usize,
    /// Requests that would be replayed: seen whole, and without a doubt.
    pub(crate) replayed: usize,
    /// Requests that were found whole behind a hole, where nothing proves that they are not part of a body: they are left aside.
    pub(crate) unproven: usize,
    /// Exchanges of which every byte was captured.
    pub(crate) best_judged: usize,
    /// Exchanges that would be judged: both messages seen whole, and without a doubt.
    pub(crate) judged: usize,
    /// Exchanges that were found whole, one message of them behind such a hole.
    pub(crate) unproven_judged: usize,
    /// Requests that would be replayed and were never sent like that, or twice, or of which a byte was not captured.
    pub(crate) false_requests: usize,
    /// Answers that would be judged and were not given like that to that request.
    pub(crate) false_answers: usize,
}

/// Sends 100 connections of 25 exchanges each, and loses one packet in `one_in`.
pub(crate) fn lose(lost: Lost, one_in: usize, seed: u64) -> Recovered {
    let mut rng = Rng::new(seed);
    let mut traffic = Traffic::default();
    for n in 0..100 {
        traffic.conversation(n, &mut rng);
    }
    traffic.capture(lost, one_in, &mut rng)
}

#[derive(Default)]
struct Traffic {
    packets: Vec<Sent>,
    exchanges: Vec<Exchanged>,
}

/// A packet on its way.
struct Sent {
    at: u64,
    ip: Vec<u8>,
    /// Whose bytes it carries, of which side, from where to where.
    bytes: Option<(u16, Side, usize, usize)>,
    /// The time at which it comes again if it is lost.
    again: u64,
    /// Whether everything behind it waits for it when it is lost on the way.
    opens_or_closes: bool,
}

/// An exchange, and where its messages are in their streams.
struct Exchanged {
    connection: u16,
    request: Vec<u8>,
    response: Vec<u8>,
    at: [(usize, usize); 2],
}

impl Traffic {
    fn conversation(&mut self, n: u16, rng: &mut Rng) {
        let mut conversation = Conversation::new(n).with_isn(rng.next() as u32, rng.next() as u32);
        conversation.now += rng.next() % 2_000_000_000;
        conversation.open();
        self.take(&mut conversation, n, None);
        for i in 0..25 {
            let length = if rng.one_in(3) { rng.range(1, 9000) } else { 0 };
            let body = rng.text(length);
            let request = match length {
                0 => format!("GET /c{n}/{i} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
                _ => {
                    let head = format!(
                        "POST /c{n}/{i} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
                    );
                    [head.as_bytes(), &body].concat()
                }
            };
            let length = rng.range(0, 6000);
            let head =
                format!("HTTP/1.1 200 OK\r\nX-Of: /c{n}/{i}\r\nContent-Length: {length}\r\n\r\n");
            let response = [head.as_bytes(), &rng.text(length)].concat();
            let at = [Side::Client, Side::Server].map(|side| conversation.offset(side));
            self.flight(&mut conversation, n, Side::Client, &request);
            self.flight(&mut conversation, n, Side::Server, &response);
            self.exchanges.push(Exchanged {
                connection: n,
                at: [
                    (at[0], at[0] + request.len()),
                    (at[1], at[1] + response.len()),
                ],
                request,
                response,
            });
        }
        conversation.close(Side::Client);
        self.take(&mut conversation, n, None);
    }

    /// All segments of a message, and the acknowledgement behind them, with time for what was lost to come again.
    fn flight(&mut self, conversation: &mut Conversation, n: u16, side: Side, bytes: &[u8]) {
        for piece in bytes.chunks(1400) {
            conversation.data(side, piece);
        }
        let again = conversation.now + 20_000_000;
        self.take(conversation, n, Some((side, bytes.len(), again)));
        conversation.now = again + 1_000_000;
        conversation.ack(side.peer());
        self.take(conversation, n, None);
    }

    fn take(&mut self, conversation: &mut Conversation, n: u16, data: Option<(Side, usize, u64)>) {
        let packets: Vec<Tcp> = conversation.packets.drain(..).collect();
        let mut at = data.map_or(0, |(side, length, _)| conversation.offset(side) - length);
        for tcp in packets {
            let end = at + tcp.payload.len();
            self.packets.push(Sent {
                at: tcp.at,
                ip: conversation.ip(&tcp),
                bytes: data.map(|(side, ..)| (n, side, at, end)),
                again: data.map_or(tcp.at, |(.., again)| again),
                opens_or_closes: tcp.flags & (SYN | FIN) != 0,
            });
            at = end;
        }
    }

    fn capture(mut self, lost: Lost, one_in: usize, rng: &mut Rng) -> Recovered {
        let mut result = Recovered {
            sent: self.exchanges.len(),
            ..Recovered::default()
        };
        let mut missing: HashMap<(u16, bool), Vec<(usize, usize)>> = HashMap::new();
        self.packets.retain_mut(|packet| {
            if !rng.one_in(one_in) {
                return true;
            }
            result.lost += 1;
            let Some((n, side, from, to)) = packet.bytes else {
                return lost == Lost::BeforeCapture && packet.opens_or_closes;
            };
            if lost == Lost::BeforeCapture {
                packet.at = packet.again;
                return true;
            }
            missing
                .entry((n, side == Side::Client))
                .or_default()
                .push((from, to));
            false
        });
        self.packets.sort_by_key(|packet| packet.at);
        let is_there = |it: &Exchanged, side: usize| {
            let holes = missing.get(&(it.connection, side == 0));
            let (from, to) = it.at[side];
            holes.is_none_or(|holes| holes.iter().all(|&(a, b)| b <= from || a >= to))
        };
        let mut sent: HashMap<&[u8], &Exchanged> = self
            .exchanges
            .iter()
            .map(|it| (&it.request[..], it))
            .collect();
        for it in &self.exchanges {
            result.best += usize::from(is_there(it, 0));
            result.best_judged += usize::from(is_there(it, 0) && is_there(it, 1));
        }
        for exchange in found(&self.packets) {
            let Some(request) = &exchange.request else {
                continue;
            };
            if !request.completeness.is_whole() {
                continue;
            }
            let bytes = [&request.head.bytes()[..], &request.body.wire].concat();
            let truth = sent.remove(&bytes[..]).filter(|it| is_there(it, 0));
            let is_sure = !request.doubts.any();
            match (is_sure, truth) {
                (true, Some(_)) => result.replayed += 1,
                (true, None) => result.false_requests += 1,
                (false, Some(_)) if request.doubts.unproven => result.unproven += 1,
                (false, _) => {}
            }
            let Some(response) = exchange.response.filter(|it| it.completeness.is_whole()) else {
                continue;
            };
            let bytes = [&response.head.bytes()[..], &response.body.wire].concat();
            let right = truth.is_some_and(|it| it.response == bytes);
            match (is_sure && !response.doubts.any(), right) {
                (true, true) => result.judged += 1,
                (true, false) => result.false_answers += 1,
                (false, true) => result.unproven_judged += 1,
                (false, false) => {}
            }
        }
        result
    }
}

fn found(packets: &[Sent]) -> Vec<Exchange> {
    let mut tap = Tap::new(TapConfig::default());
    let mut joiner = Joiner::new(1 << 16);
    let mut found = Vec::new();
    for packet in packets {
        tap.packet(&Packet {
            time: Timestamp::from_nanos(packet.at),
            link: LinkType(101),
            wire_len: packet.ip.len() as u32,
            data: &packet.ip,
        });
        found.extend(events(&mut tap).filter_map(|event| joiner.push(event)));
    }
    tap.finish();
    found.extend(events(&mut tap).filter_map(|event| joiner.push(event)));
    found.extend(joiner.finish());
    assert_eq!(tap.account().check(), Ok(()), "{:?}", tap.account());
    found
}

fn events(tap: &mut Tap) -> impl Iterator<Item = Event> {
    std::iter::from_fn(|| tap.poll())
}
