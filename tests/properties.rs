//! What holds for any traffic: cut elsewhere it is the same, with losses none of it becomes wrong, and nothing stops the pipeline.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use shadowtap::capture::PacketSource;
use shadowtap::capture::file::FileSource;
use shadowtap::wire::{Decoder, DecoderConfig, Segment};

use crate::support::cases::Case;
use crate::support::corpus;
use crate::support::files::{PCAP, Record};
use crate::support::inside::{read, read_byte_by_byte};
use crate::support::net::{FIN, RST, SYN, Side, packet};
use crate::support::rng::Rng;
use crate::support::scenario::{self, Weather, scenario};
use crate::support::score::Line;

proptest! {
    #![proptest_config(config())]

    /// Other cuts, other orders, duplicates: the same exchanges.
    #[test]
    fn streams_cut_elsewhere_hold_the_same_exchanges(seed: u64) {
        let mut rng = Rng::new(seed);
        let cases = plain_cases();
        let case = rng.pick(&cases);
        let packets = decode(&case.file);
        let before = read(&PCAP.write(RAW, 262_144, &records(&packets)));
        let after = read(&PCAP.write(RAW, 262_144, &records(&recut(&packets, &mut rng))));
        let (before, after) = (before.sorted(), after.sorted());
        let lost: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
        let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        prop_assert!(before == after, "{} ({}):
lost {lost:#?}
new {new:#?}", case.name, case.what);
    }

    /// Packets that were not captured touch only the exchanges that they belong to, and make none of them wrong.
    #[test]
    fn lost_packets_make_no_exchange_wrong(seed: u64, percent in 1_usize..30) {
        let mut rng = Rng::new(seed);
        let scenario = scenario(&mut rng, Weather::Calm, false);
        let packets = scenario.packets();
        let whole: Vec<_> = packets.iter().map(|(conversation, tcp)| Record { at: tcp.at, frame: conversation.ip(tcp) }).collect();
        let kept: Vec<_> = whole.iter().filter(|_| rng.range(0, 100) >= percent).cloned().collect();
        let truth: HashMap<Who, &Line> = scenario.truth.iter().map(|line| (who(line), line)).collect();
        let found = read(&PCAP.write(RAW, 262_144, &kept));
        let mut seen = HashSet::new();
        for line in found.lines() {
            if line["method"].is_null() {
                continue;
            }
            let Some(truth) = truth.get(&who(&line)) else {
                prop_assert!(line["request_complete"] == false, "never sent: {:?}", line);
                continue;
            };
            prop_assert!(seen.insert(who(&line)), "reported twice: {:?}", line);
            if line["request_complete"] == true {
                for field in ["request_headers", "request_body_len", "request_body_sha256", "version"] {
                    prop_assert_eq!(&line[field], &truth[field], "{} of {:?}", field, line);
                }
            }
            if line["response_complete"] == true {
                for field in ["status", "response_headers", "response_body_len", "response_body_sha256"] {
                    prop_assert_eq!(&line[field], &truth[field], "{} of {:?}", field, line);
                }
            }
        }
    }

    /// Answers that were not captured take no request away.
    #[test]
    fn lost_answers_take_no_request_away(seed: u64) {
        let mut rng = Rng::new(seed);
        let scenario = scenario(&mut rng, Weather::Calm, false);
        let mut untouched: HashMap<Who, &Line> = scenario.truth.iter().map(|line| (who(line), line)).collect();
        let mut kept = Vec::new();
        for (conversation, tcp) in scenario.packets() {
            let is_answer = tcp.from == Side::Server && !tcp.payload.is_empty();
            if !is_answer || !rng.one_in(5) {
                kept.push(Record { at: tcp.at, frame: conversation.ip(tcp) });
            }
        }
        let found = read(&PCAP.write(RAW, 262_144, &kept));
        for line in found.lines().iter().filter(|line| !line["method"].is_null()) {
            let truth = untouched.remove(&who(line));
            prop_assert!(truth.is_some(), "never sent, or reported twice: {line:?}");
            prop_assert!(line["request_complete"] == true, "not whole: {line:?}");
        }
        prop_assert!(untouched.is_empty(), "not found: {:#?}", untouched);
    }

    /// A loss touches nothing on other connections.
    #[test]
    fn lost_packets_leave_other_connections_alone(seed: u64) {
        let mut rng = Rng::new(seed);
        let scenario = scenario(&mut rng, Weather::Rough, true);
        let hurt = scenario.conversations[0].client;
        let kept: Vec<_> = scenario
            .packets()
            .into_iter()
            .filter(|(conversation, _)| conversation.client != hurt || rng.one_in(2))
            .map(|(conversation, tcp)| Record { at: tcp.at, frame: conversation.ip(tcp) })
            .collect();
        let found = read(&PCAP.write(RAW, 262_144, &kept));
        let hurt = hurt.to_string();
        let is_other = |line: &Line| line["client"] != hurt && line["server"] != hurt;
        let others: Vec<Line> = scenario.truth.into_iter().filter(is_other).collect();
        let lines: Vec<Line> = found.lines().into_iter().filter(is_other).collect();
        let score = crate::support::score::score(&others, &lines);
        prop_assert!(score.perfect(), "{:?}", score.faults);
    }

    /// Broken captures end somewhere, with an account that adds up, the same however they are read.
    #[test]
    fn damage_stops_nothing_but_the_file(seed: u64, changes in 1_usize..40) {
        let mut rng = Rng::new(seed);
        let cases = small_cases();
        let mut file = rng.pick(&cases).file.clone();
        for _ in 0..changes {
            let at = rng.range(24, file.len());
            match rng.range(0, 4) {
                0 => file.truncate(at.max(file.len() - file.len() / 8)),
                1 => file[at] = rng.next() as u8,
                2 => file[at] ^= 1 << rng.range(0, 8),
                _ => file[at] = *rng.pick(b"\0\xff\r\n \t:0123456789;G"),
            }
        }
        let found = read(&file);
        let again = read_byte_by_byte(&file);
        prop_assert_eq!(found.text, again.text);
        prop_assert_eq!(found.account, again.account);
        prop_assert_eq!(found.damage, again.damage);
    }
}

/// The same cases every time; others, and as many as it says, when `PROPTEST_CASES` is set.
fn config() -> ProptestConfig {
    let default = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return default;
    }
    ProptestConfig {
        cases: 64,
        rng_seed: RngSeed::Fixed(9112),
        ..default
    }
}

/// Which exchange a line speaks of.
type Who = (String, String, String);

fn who(line: &Line) -> Who {
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    (text("client"), text("method"), text("target"))
}

/// Raw IP: what is left of a capture here.
const RAW: u16 = 101;

/// One TCP packet of a capture.
#[derive(Clone, Debug)]
struct Piece {
    at: u64,
    ends: (std::net::SocketAddr, std::net::SocketAddr),
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    payload: Vec<u8>,
}

/// The captures in which the order of bytes alone decides what is in them: whole conversations without tricks in TCP.
fn plain_cases() -> Vec<Case> {
    let mut cases = small_cases();
    cases.retain(|case| {
        matches!(
            case.class.as_str(),
            "http" | "http-odd" | "http-smuggling" | "link" | "ip" | "random"
        )
    });
    // One address and port in two networks at once is more than raw IP can tell.
    cases.retain(|case| !case.what.contains("twice"));
    cases
}

fn small_cases() -> Vec<Case> {
    let mut cases = corpus::all();
    cases.extend((0..40).map(scenario::case));
    cases.retain(|case| case.file.len() < 60_000);
    cases
}

fn decode(file: &[u8]) -> Vec<Piece> {
    let mut source =
        FileSource::from_reader(Box::new(std::io::Cursor::new(file.to_vec())), "memory")
            .expect("a capture file");
    let mut decoder = Decoder::new(DecoderConfig::default());
    let mut account = shadowtap::account::Account::new();
    let mut pieces = Vec::new();
    while let Some(packet) = source.next_packet().expect("a whole file") {
        if let Some(segment) = decoder.decode(&packet, &mut account) {
            pieces.push(piece(&segment));
        }
    }
    pieces
}

fn piece(segment: &Segment<'_>) -> Piece {
    Piece {
        at: segment.time.as_nanos(),
        ends: (segment.source, segment.destination),
        seq: segment.seq,
        ack: segment.ack,
        flags: segment.flags.0,
        window: segment.window,
        payload: segment.payload.to_vec(),
    }
}

/// The same packets, their payloads cut and repeated, and each run of data in one direction in another order.
///
/// A connection whose handshake is not there stays as it is: it is recognised by a request that begins a segment.
fn recut(pieces: &[Piece], rng: &mut Rng) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::new();
    let mut run: Vec<Piece> = Vec::new();
    let mut opened = HashSet::new();
    for piece in pieces {
        if piece.flags & SYN != 0 {
            opened.insert(piece.ends);
            opened.insert((piece.ends.1, piece.ends.0));
        }
        let plain = !piece.payload.is_empty()
            && piece.flags & (SYN | RST) == 0
            && opened.contains(&piece.ends);
        if !plain || run.first().is_some_and(|first| first.ends != piece.ends) {
            rng.shuffle(&mut run);
            out.append(&mut run);
        }
        if !plain {
            out.push(piece.clone());
            continue;
        }
        let mut from = 0;
        while from < piece.payload.len() {
            let to = (from + rng.range(1, 400)).min(piece.payload.len());
            let last = to == piece.payload.len();
            let part = Piece {
                seq: piece
                    .seq
                    .wrapping_add(u32::try_from(from).expect("in a packet")),
                flags: if last {
                    piece.flags
                } else {
                    piece.flags & !FIN
                },
                payload: piece.payload[from..to].to_vec(),
                ..piece.clone()
            };
            if rng.one_in(4) {
                run.push(part.clone());
            }
            run.push(part);
            from = to;
        }
    }
    rng.shuffle(&mut run);
    out.append(&mut run);
    // Packets keep the times of their places.
    out
}

fn records(pieces: &[Piece]) -> Vec<Record> {
    pieces
        .iter()
        .map(|piece| {
            let (source, destination) = piece.ends;
            let mut tcp = Vec::with_capacity(20 + piece.payload.len());
            tcp.extend_from_slice(&source.port().to_be_bytes());
            tcp.extend_from_slice(&destination.port().to_be_bytes());
            tcp.extend_from_slice(&piece.seq.to_be_bytes());
            tcp.extend_from_slice(&piece.ack.to_be_bytes());
            tcp.extend_from_slice(&[0x50, piece.flags]);
            tcp.extend_from_slice(&piece.window.to_be_bytes());
            tcp.extend_from_slice(&[0, 0, 0, 0]);
            tcp.extend_from_slice(&piece.payload);
            Record {
                at: piece.at,
                frame: packet(source.ip(), destination.ip(), 6, &tcp),
            }
        })
        .collect()
}
