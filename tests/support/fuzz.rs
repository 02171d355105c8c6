//! What the fuzz targets do with their bytes; the tests do the same with what the fuzzer found.

use std::io::{Cursor, Read};
use std::path::Path;

use shadowtap::account::{Account, Counter, Stage};
use shadowtap::capture::PacketSource;
use shadowtap::capture::file::FileSource;
use shadowtap::exchange::{Exchange, Joiner};
use shadowtap::http1::{Framing, MessageLimits, MessageReader, Side, Step};
use shadowtap::inject::sidecar::User;
use shadowtap::inject::{Change, Done, Kind, Sidecar, inject};
use shadowtap::middleware::protocol;
use shadowtap::record::gor::Records;
use shadowtap::record::jsonl::{Detail, append_exchange};
use shadowtap::record::{Input, Reader, har_archive};
use shadowtap::tap::{Tap, TapConfig};
use shadowtap::time::Timestamp;
use shadowtap::traffic::Rule;
use shadowtap::wire::{Decoder, DecoderConfig, LinkType, Packet};

/// Frames, each behind two bytes of its length, all of the link type that the first two bytes tell.
pub(crate) fn decode_frame(data: &[u8]) {
    let Some((link, mut rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let mut decoder = Decoder::new(DecoderConfig::default());
    let mut account = Account::new();
    let mut time = 0;
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let (frame, tail) = tail.split_at(usize::from(u16::from_le_bytes(*length)).min(tail.len()));
        rest = tail;
        time += 1;
        let packet = Packet {
            time: Timestamp::from_nanos(time),
            link: LinkType(u16::from_le_bytes(*link)),
            wire_len: frame.len() as u32,
            data: frame,
        };
        if let Some(segment) = decoder.decode(&packet, &mut account) {
            assert!(
                segment.payload.len() <= 1 << 17,
                "more payload than any packet has"
            );
        }
    }
    decoder.finish(&mut account);
    let (packets, segments) = (
        account.get(Counter::Packets),
        account.get(Counter::Segments),
    );
    assert_eq!(
        packets,
        segments + account.dropped_at(Stage::Packet),
        "{account:?}"
    );
}

/// Operations on one connection, eight bytes each and then the payload: who sends, flags, where in the stream, how much, how much
/// is acknowledged, how much time passes.
pub(crate) fn reassemble(data: &[u8]) {
    let mut tap = Tap::new(TapConfig::default());
    let mut rest = data;
    let mut time = 1_000_000_000_u64;
    while let Some((&[who, flags, seq0, seq1, ack0, ack1, length, later], tail)) =
        rest.split_first_chunk::<8>()
    {
        let (payload, tail) = tail.split_at(usize::from(length).min(tail.len()));
        rest = tail;
        time += u64::from(later).pow(4);
        let client = who & 1 == 0;
        // Both streams begin just before the wrap.
        let number =
            |low, high| 0xffff_ff00_u32.wrapping_add(u32::from(u16::from_le_bytes([low, high])));
        let (source, destination) = if client { (2, 1) } else { (1, 2) };
        let (from, to) = if client {
            (4000_u16, 80_u16)
        } else {
            (80, 4000)
        };
        let total = (40 + payload.len()) as u16;
        let mut ip = vec![
            0x45,
            0,
            (total >> 8) as u8,
            total as u8,
            0,
            0,
            0x40,
            0,
            64,
            6,
            0,
            0,
        ];
        ip.extend_from_slice(&[10, 0, 0, source, 10, 0, 0, destination]);
        ip.extend_from_slice(&from.to_be_bytes());
        ip.extend_from_slice(&to.to_be_bytes());
        ip.extend_from_slice(&number(seq0, seq1).to_be_bytes());
        ip.extend_from_slice(&number(ack0, ack1).to_be_bytes());
        ip.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, who >> 1]);
        ip.extend_from_slice(payload);
        tap.packet(&Packet {
            time: Timestamp::from_nanos(time),
            link: LinkType(101),
            wire_len: ip.len() as u32,
            data: &ip,
        });
    }
    finish(tap);
}

/// A stream of requests (first byte even) or responses (odd), in pieces of the length that the second byte tells.
pub(crate) fn parse_http(data: &[u8]) {
    let Some((&[side, size], bytes)) = data.split_first_chunk::<2>() else {
        return;
    };
    let side = if side & 1 == 0 {
        Side::Requests
    } else {
        Side::Responses
    };
    let whole = messages(side, bytes, bytes.len().max(1));
    let pieces = messages(side, bytes, usize::from(size).max(1));
    assert_eq!(whole, pieces, "the cuts make a difference");
}

/// The bytes of a capture file.
pub(crate) fn read_capture(data: &[u8]) {
    let mut tap = Tap::new(TapConfig::default());
    if let Ok(mut source) =
        FileSource::from_reader(Box::new(std::io::Cursor::new(data.to_vec())), "fuzz")
    {
        while let Ok(Some(packet)) = source.next_packet() {
            tap.packet(&packet);
        }
    }
    finish(tap);
}

fn finish(mut tap: Tap) {
    tap.finish();
    let mut joiner = Joiner::new(1 << 16);
    let mut text = Vec::new();
    while let Some(event) = tap.poll() {
        if let Some(exchange) = joiner.push(event) {
            append_exchange(&mut text, &exchange, Detail::Recording);
        }
    }
    for exchange in joiner.finish() {
        append_exchange(&mut text, &exchange, Detail::Recording);
    }
    assert!(std::str::from_utf8(&text).is_ok(), "JSON is UTF-8");
    assert_eq!(tap.account().check(), Ok(()), "{:?}", tap.account());
}

fn messages(side: Side, bytes: &[u8], size: usize) -> Vec<Step> {
    let limits = MessageLimits {
        head: 4096,
        body: 4096,
    };
    let mut reader = MessageReader::new(side, limits);
    let mut steps = Vec::new();
    for piece in bytes.chunks(size) {
        reader.push(piece);
        let step = reader.poll();
        drain(&mut reader, step, &mut steps);
    }
    let step = reader.end(true);
    drain(&mut reader, step, &mut steps);
    steps
}

/// Polls until more bytes are needed; the length of each head tells the framing of its body, so that every one comes up.
fn drain(reader: &mut MessageReader, mut step: Step, steps: &mut Vec<Step>) {
    loop {
        let head = match &step {
            Step::NeedInput => return,
            Step::RequestHead(head) => Some(head.bytes().len()),
            Step::ResponseHead(head) => Some(head.bytes().len()),
            _ => None,
        };
        if let Some(length) = head {
            reader.frame(match length % 4 {
                0 => Framing::None,
                1 => Framing::Length(length as u64),
                2 => Framing::Chunked,
                _ => Framing::UntilClose,
            });
        }
        steps.push(step);
        step = reader.poll();
    }
}

/// A recording in GoReplay's format.
pub(crate) fn read_gor(data: &[u8]) {
    let whole = records(data);
    let slow = records(OneByte(data));
    assert_eq!(whole, slow, "the way of reading makes a difference");
}

fn records(input: impl Read) -> Vec<String> {
    let mut records = Records::new(input);
    let mut found = Vec::new();
    while let Some(record) = records.next_record() {
        found.push(format!("{record:?}"));
    }
    found
}

/// Gives one byte at a time.
struct OneByte<'a>(&'a [u8]);

impl Read for OneByte<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let one = buffer.len().min(1);
        self.0.read(&mut buffer[..one])
    }
}

/// An HTTP archive.
pub(crate) fn read_har(data: &[u8]) {
    let whole = exchanges("fuzz.har", Box::new(Cursor::new(data.to_vec())));
    let slow = exchanges("fuzz.har", Box::new(Slow(Cursor::new(data.to_vec()))));
    assert_eq!(
        lines(&whole),
        lines(&slow),
        "the way of reading makes a difference"
    );
    // What is written of it is an archive again.
    let archive = har_archive(whole.iter());
    assert!(std::str::from_utf8(&archive).is_ok(), "JSON is UTF-8");
    let again = exchanges("fuzz.har", Box::new(Cursor::new(archive)));
    assert!(again.len() <= whole.len(), "nothing is added");
}

/// A recording in JSON lines.
pub(crate) fn read_jsonl(data: &[u8]) {
    let whole = exchanges("fuzz.jsonl", Box::new(Cursor::new(data.to_vec())));
    let slow = exchanges("fuzz.jsonl", Box::new(Slow(Cursor::new(data.to_vec()))));
    let written = lines(&whole);
    assert_eq!(
        written,
        lines(&slow),
        "the way of reading makes a difference"
    );
    // What is written of it is read as the same.
    let again = exchanges(
        "fuzz.jsonl",
        Box::new(Cursor::new(written.clone().into_bytes())),
    );
    assert_eq!(sorted(&written), sorted(&lines(&again)));
}

/// A filter, on the first line, and requests that it is asked about, on a connection behind that.
pub(crate) fn parse_filter(data: &[u8]) {
    let at = data.iter().position(|&byte| byte == b'\n');
    let (rule, stream) = data.split_at(at.unwrap_or(data.len()));
    let Ok(rule) = std::str::from_utf8(rule) else {
        return;
    };
    let Ok(parsed) = rule.parse::<Rule>() else {
        return;
    };
    assert_eq!(parsed.text(), rule, "a rule is shown as it was written");
    let gor = [b"1 a 1 0\n", stream].concat();
    for exchange in exchanges("fuzz.gor", Box::new(Cursor::new(gor))) {
        if let Some(request) = &exchange.request {
            let before = parsed.matches(request, Some(200));
            assert_eq!(before, parsed.matches(request, Some(200)));
        }
    }
}

/// Lines of a middleware.
pub(crate) fn read_middleware(data: &[u8]) {
    for line in data.split(|&byte| byte == b'\n') {
        let Ok(record) = protocol::decode(line) else {
            continue;
        };
        let mut again = Vec::new();
        protocol::encode(&record, &mut again);
        // A latency that was not there is written as 0.
        let back = protocol::decode(&again).expect("what was written is read");
        assert_eq!(back.payload, record.payload);
        let mut once_more = Vec::new();
        protocol::encode(&back, &mut once_more);
        assert_eq!(once_more, again, "a record comes back");
    }
}

/// A manifest: what is put into it is there, once, and can be taken out.
pub(crate) fn inject_manifest(data: &[u8]) {
    let Ok(manifest) = std::str::from_utf8(data) else {
        return;
    };
    let add = |kind| {
        Change::Add(Sidecar {
            kind,
            user: User::Root,
            image: "image".to_owned(),
            watched: Vec::new(),
            targets: vec!["http://v2".parse().expect("a target")],
            admin: 9471,
            more: Vec::new(),
        })
    };
    for kind in [Kind::Native, Kind::Classic] {
        let Ok(added) = inject(manifest, &add(kind), &[]) else {
            continue;
        };
        let again = inject(&added.text, &add(kind), &[]).expect("what was written is read");
        assert_eq!(again.text, added.text, "the second time changes nothing");
        let unchanged = again
            .workloads
            .iter()
            .all(|(_, done)| *done == Done::Unchanged);
        assert!(unchanged, "{:?}", again.workloads);
        let removed = inject(&added.text, &Change::Remove, &[]).expect("what was written is read");
        assert_eq!(removed.workloads.len(), added.workloads.len());
    }
}

/// All exchanges of a recording, in the order of their ids.
fn exchanges(name: &str, input: Box<dyn Read + Send>) -> Vec<Exchange> {
    let Ok(input) = Input::from_reader(input, Path::new(name)) else {
        return Vec::new();
    };
    // Its content may be of another format than its name says, packets too.
    let Ok(mut reader) = Reader::new(vec![input]) else {
        return Vec::new();
    };
    let mut joiner = Joiner::new(1 << 16);
    let mut found: Vec<_> = reader
        .by_ref()
        .filter_map(|event| joiner.push(event))
        .collect();
    found.extend(joiner.finish());
    assert_eq!(reader.account().check(), Ok(()), "{:?}", reader.account());
    found
}

fn lines(exchanges: &[Exchange]) -> String {
    let mut text = Vec::new();
    for exchange in exchanges {
        append_exchange(&mut text, exchange, Detail::Recording);
    }
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// The lines without what numbers them, in order.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(without_numbers).collect();
    lines.sort_unstable();
    lines
}

/// A line without the number of its connection, which is of the reader's making.
fn without_numbers(line: &str) -> String {
    match line.split_once("\"connection\":") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|it: char| it.is_ascii_digit());
            format!("{before}{after}")
        }
        None => line.to_owned(),
    }
}

/// Gives one byte at a time, and owns what it reads.
struct Slow(Cursor<Vec<u8>>);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let one = buffer.len().min(1);
        self.0.read(&mut buffer[..one])
    }
}
