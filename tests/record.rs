//! Recordings, written and read back: nothing lost, nothing invented, and every damage said.

use std::fs;
use std::io::{Cursor, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tempfile::TempDir;

use shadowtap::account::{Account, Counter, Reason};
use shadowtap::capture::PacketSource as _;
use shadowtap::capture::file::FileSource;
use shadowtap::exchange::{
    Completeness, ConnectionId, Doubts, Endpoints, Event, Exchange, ExchangeId, Joiner, Request,
    Response,
};
use shadowtap::http1::{Body, Framing, RequestHead, ResponseHead, unfold};
use shadowtap::record::gor::{Kind, Records, SEPARATOR};
use shadowtap::record::jsonl::{self, Detail};
use shadowtap::record::{Format, Input, Options, Reader, RecordError, Writer, detect};
use shadowtap::tap::{Tap, TapConfig};
use shadowtap::time::Timestamp;
use shadowtap::wire::{LinkType, Packet};

/// Writes exchanges to a new file of that name and gives its path with the account.
fn write(folder: &TempDir, name: &str, exchanges: &[Exchange]) -> (PathBuf, Account) {
    let path = folder.path().join(name);
    let mut writer = Writer::create(&path, Options::default()).unwrap();
    for exchange in exchanges {
        writer.exchange(exchange).unwrap();
    }
    let (account, result) = writer.finish();
    result.unwrap();
    account.check().unwrap();
    (path, account)
}

/// Reads recordings back, as exchanges; asserts that nothing was damaged.
fn read(paths: &[PathBuf]) -> Vec<Exchange> {
    let mut reader = Reader::open(paths).unwrap();
    let exchanges = join(&mut reader);
    assert_eq!(reader.damage(), &[], "{paths:?}");
    reader.account().check().unwrap();
    let (read, size) = reader.progress();
    assert_eq!(Some(read), size, "{paths:?} is read to its end");
    exchanges
}

fn join(events: impl Iterator<Item = Event>) -> Vec<Exchange> {
    let mut joiner = Joiner::new(usize::MAX);
    let mut exchanges: Vec<_> = events.filter_map(|event| joiner.push(event)).collect();
    exchanges.extend(joiner.finish());
    exchanges.sort_by_key(|exchange| match (&exchange.request, &exchange.response) {
        (Some(request), _) => (request.first_byte, request.id.0),
        (None, Some(response)) => (response.first_byte, u64::MAX),
        (None, None) => (Timestamp::ZERO, 0),
    });
    exchanges
}

/// Reads bytes as one recording; gives its exchanges and what was damaged.
fn read_bytes(name: &str, bytes: &[u8]) -> (Vec<Exchange>, Vec<String>) {
    let input = Input::from_reader(Box::new(Cursor::new(bytes.to_vec())), Path::new(name)).unwrap();
    let mut reader = Reader::new(vec![input]).unwrap();
    let exchanges = join(&mut reader);
    let damage = reader
        .damage()
        .iter()
        .map(|(_, it)| it.to_string())
        .collect();
    (exchanges, damage)
}

fn get(number: u64, target: &str) -> Exchange {
    exchange(
        number,
        &format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        b"",
        Framing::None,
        Some((
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            b"ok",
            Framing::Length(2),
        )),
    )
}

fn exchange(
    number: u64,
    head: &str,
    body: &[u8],
    framing: Framing,
    answer: Option<(&str, &[u8], Framing)>,
) -> Exchange {
    let endpoints = Endpoints {
        client: SocketAddr::from(([10, 1, 2, 3], 40_000 + (number % 7) as u16)),
        server: SocketAddr::from(([10, 9, 8, 7], 8080)),
    };
    let time = |step: u64| Timestamp::from_nanos(START + number * 10_000_000 + step * 1_000_003);
    let connection = ConnectionId(number % 7);
    let body_of = |wire: &[u8], framing| Body {
        framing,
        wire: Bytes::copy_from_slice(wire),
        missing: 0,
    };
    Exchange {
        connection,
        endpoints,
        request: Some(Arc::new(Request {
            id: ExchangeId(number),
            connection,
            endpoints,
            first_byte: time(0),
            last_byte: time(1),
            head: RequestHead::parse(Bytes::copy_from_slice(head.as_bytes())).unwrap(),
            body: body_of(body, framing),
            doubts: Doubts::default(),
            completeness: Completeness::Whole,
        })),
        response: answer.map(|(head, body, framing)| Response {
            first_byte: time(2),
            last_byte: time(3),
            interim: Vec::new(),
            head: ResponseHead::parse(Bytes::copy_from_slice(head.as_bytes())).unwrap(),
            body: body_of(body, framing),
            doubts: Doubts::default(),
            completeness: Completeness::Whole,
        }),
    }
}

fn orphan(mut exchange: Exchange) -> Exchange {
    exchange.request = None;
    exchange
}

/// 2026-11-22.
const START: u64 = 1_795_381_446_000_000_000;

// ── what must be equal ──

/// Everything about a message that a lossless recording keeps.
fn facts(exchange: &Exchange) -> String {
    let request = exchange.request.as_ref().map(|it| {
        (
            it.head.bytes().clone(),
            it.body.clone(),
            it.completeness,
            it.doubts,
            it.first_byte,
            it.last_byte,
        )
    });
    let response = exchange.response.as_ref().map(|it| {
        (
            it.head.bytes().clone(),
            it.body.clone(),
            it.completeness,
            it.doubts,
            (it.first_byte, it.last_byte),
            it.interim.clone(),
        )
    });
    format!("{:?} {request:?} {response:?}", exchange.endpoints)
}

/// What `.gor` keeps: the bytes, the times, the client.
fn gor_facts(exchange: &Exchange) -> String {
    let ends = exchange.endpoints;
    let request = exchange.request.as_ref().map(|it| {
        let times = (it.first_byte, it.last_byte);
        (it.head.bytes().clone(), it.body.wire.clone(), times)
    });
    let response = exchange.response.as_ref().map(|it| {
        let times = (it.first_byte, it.last_byte);
        (it.head.bytes().clone(), it.body.wire.clone(), times)
    });
    format!(
        "{} {} {request:?} {response:?}",
        ends.client,
        ends.server.port()
    )
}

/// What `.har` keeps: start lines, fields, content.
fn har_facts(exchange: &Exchange) -> String {
    let list = |fields: shadowtap::http1::Fields<'_>| -> Vec<(Vec<u8>, Vec<u8>)> {
        let pairs = fields.iter();
        pairs
            .map(|(name, value)| (name.to_vec(), unfold(value).into_owned()))
            .collect()
    };
    let request = exchange.request.as_ref().map(|it| {
        let head = &it.head;
        let line = [head.method(), head.target(), head.version()].join(&b'|');
        let content = it.body.content().into_owned();
        (line, list(head.fields()), content, it.first_byte)
    });
    let response = exchange.response.as_ref().map(|it| {
        let head = &it.head;
        let line = (
            head.status(),
            head.version().to_vec(),
            head.reason().to_vec(),
        );
        (line, list(head.fields()), it.body.content().into_owned())
    });
    format!("{:?} {request:?} {response:?}", exchange.endpoints)
}

fn all(exchanges: &[Exchange], facts: fn(&Exchange) -> String) -> Vec<String> {
    exchanges.iter().map(facts).collect()
}

// ── every message survives ──

/// A body with its framing and the field that announces it.
fn any_body(response: bool) -> impl Strategy<Value = (String, Vec<u8>, Framing)> {
    let content = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..60),
        1 => "[ -~]{0,40}".prop_map(String::into_bytes),
        1 => Just([b"before".to_vec(), SEPARATOR.to_vec(), b"behind".to_vec()].concat()),
    ];
    (content, 0..if response { 4 } else { 3 }).prop_map(move |(content, kind)| match kind {
        0 if !response => (String::new(), Vec::new(), Framing::None),
        0 | 1 => (
            format!("Content-Length: {}\r\n", content.len()),
            content.clone(),
            Framing::Length(content.len() as u64),
        ),
        2 => {
            let mut wire = Vec::new();
            for chunk in content.chunks(17) {
                wire.extend_from_slice(format!("{:x};x=y\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            (
                "Transfer-Encoding: chunked\r\n".to_owned(),
                wire,
                Framing::Chunked,
            )
        }
        _ => (String::new(), content, Framing::UntilClose),
    })
}

fn any_fields() -> impl Strategy<Value = Vec<u8>> {
    let value = prop::collection::vec(prop_oneof![0x21..0x7fu8, 0x80..=0xffu8], 0..12);
    let field = ("[A-Za-z][A-Za-z-]{0,9}x", value)
        .prop_map(|(name, value)| [name.as_bytes(), b": ", &value, b"\r\n"].concat());
    prop::collection::vec(field, 0..5).prop_map(|fields| fields.concat())
}

prop_compose! {
    fn any_exchange()(
        number in 0..1000u64,
        method in "[A-Z]{3,7}",
        target in prop::collection::vec(prop_oneof![0x21..0x7fu8, 0x80..=0xffu8], 0..20),
        fields in any_fields(),
        (told, body, framing) in any_body(false),
        status in prop_oneof![Just(200u16), 205..304u16, 400..600u16],
        reason in "[A-Za-z ]{0,12}",
        answer_fields in any_fields(),
        (answer_told, answer_body, answer_framing) in any_body(true),
        answered in prop::bool::weighted(0.9),
    ) -> Exchange {
        let mut exchange = exchange(number, "GET / HTTP/1.1\r\n\r\n", &body, framing, Some((
            "HTTP/1.1 200 OK\r\n\r\n", &answer_body, answer_framing,
        )));
        let head = [method.as_bytes(), b" /", &target, b" HTTP/1.1\r\n", &fields, told.as_bytes(), b"\r\n"].concat();
        let request = Arc::make_mut(exchange.request.as_mut().unwrap());
        request.head = RequestHead::parse(head.into()).unwrap();
        let line = format!("HTTP/1.1 {status:03} {}\r\n", reason.trim());
        let head = [line.as_bytes(), &answer_fields, answer_told.as_bytes(), b"\r\n"].concat();
        exchange.response.as_mut().unwrap().head = ResponseHead::parse(head.into()).unwrap();
        if !answered || method == "HEAD" || method == "CONNECT" {
            exchange.response = None;
        }
        exchange
    }
}

prop_compose! {
    /// Exchanges of ascending numbers, and so of ascending times.
    fn any_exchanges()(mut list in prop::collection::vec(any_exchange(), 0..6)) -> Vec<Exchange> {
        list.sort_by_key(|it| it.id());
        list.dedup_by_key(|it| it.id());
        list
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gor_keeps_bytes_and_times(list in any_exchanges(), gzip in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = write(&folder, if gzip { "a.gor.gz" } else { "a.gor" }, &list);
        prop_assert_eq!(all(&read(&[path]), gor_facts), all(&list, gor_facts));
    }

    #[test]
    fn jsonl_keeps_everything(
        list in any_exchanges(),
        gzip in any::<bool>(),
        doubts in any::<(bool, bool, bool, bool)>(),
        missing in 0..3u64,
        interim in prop::collection::vec(100..104u16, 0..3),
        orphans in any::<bool>(),
    ) {
        let mut list = list;
        for exchange in &mut list {
            let request = Arc::make_mut(exchange.request.as_mut().unwrap());
            request.doubts = Doubts { transfer_encoding: doubts.0, content_length: doubts.1, head: doubts.2, retransmission: doubts.3 };
            request.body.missing = missing;
            if missing > 0 {
                request.completeness = Completeness::Incomplete(Reason::RequestGap);
            }
            if let Some(response) = &mut exchange.response {
                response.interim = interim.clone();
                response.body.missing = missing;
                if missing > 0 {
                    response.completeness = Completeness::Incomplete(Reason::ResponseCutByClose);
                }
                if orphans {
                    exchange.request = None;
                }
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = write(&folder, if gzip { "a.jsonl.gz" } else { "a.jsonl" }, &list);
        prop_assert_eq!(all(&read(&[path]), facts), all(&list, facts));
    }

    #[test]
    fn har_keeps_lines_fields_and_content(list in any_exchanges(), gzip in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = write(&folder, if gzip { "a.har.gz" } else { "a.har" }, &list);
        prop_assert_eq!(all(&read(&[path]), har_facts), all(&list, har_facts));
    }

    #[test]
    fn made_up_packets_give_the_same_exchanges(list in any_exchanges(), gzip in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = write(&folder, if gzip { "a.pcap.gz" } else { "a.pcap" }, &list);
        let wire = |it: &Exchange| {
            let request = it.request.as_ref().map(|it| (it.head.bytes().clone(), it.body.wire.clone(), it.completeness));
            let response = it.response.as_ref().map(|it| (it.head.bytes().clone(), it.body.wire.clone(), it.completeness));
            format!("{:?} {request:?} {response:?}", it.endpoints)
        };
        let seen: Vec<_> = capture(&path).iter().map(wire).collect();
        prop_assert_eq!(seen, list.iter().map(wire).collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), start in 0..3usize) {
        let (name, start): (&str, &[u8]) = [
            ("a.gor", &b"1 a 1 1\n"[..]),
            ("a.jsonl", b"{\"method\":"),
            ("a.har", b"{\"log\":{\"entries\":[{"),
        ][start];
        read_bytes(name, &[start, &bytes].concat());
    }
}

/// What the pipeline sees in a capture file.
fn capture(path: &Path) -> Vec<Exchange> {
    let mut source = FileSource::open(path).unwrap();
    let mut tap = Tap::new(TapConfig::default());
    while let Some(packet) = source.next_packet().unwrap() {
        tap.packet(&packet);
    }
    tap.finish();
    tap.account().check().unwrap();
    join(std::iter::from_fn(|| tap.poll()))
}

// ── the .gor format ──

/// A record as GoReplay writes it.
fn gor(kind: u8, id: &str, time: u64, payload: &str) -> Vec<u8> {
    let header = format!("{kind} {id} {time} 0\n");
    [header.as_bytes(), payload.as_bytes(), SEPARATOR].concat()
}

const ID: &str = "d7921c0c7f000001388709f8";
const GET: &str = "GET /q/1 HTTP/1.1\r\nHost: 127.0.0.1:7180\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_record_of_goreplay_is_read_to_the_byte() {
    let file = gor(1, ID, 1_795_381_446_370_345_171, GET);
    assert_eq!(
        &file[..52],
        b"1 d7921c0c7f000001388709f8 1795381446370345171 0\nGET"
    );
    let mut records = Records::new(&file[..]);
    let record = records.next_record().unwrap().unwrap();
    assert_eq!(record.kind, Kind::Request);
    assert_eq!(record.id, ID);
    assert_eq!(record.time.as_nanos(), 1_795_381_446_370_345_171);
    assert_eq!(record.payload, GET);
    assert!(records.next_record().is_none());

    let (exchanges, _) = read_bytes("x", &file);
    assert_eq!(exchanges[0].endpoints.client.to_string(), "127.0.0.1:55186");
    assert_eq!(exchanges[0].endpoints.server.port(), 7180);
}

#[test]
fn our_records_look_like_those_of_goreplay() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(&folder, "a.gor", &[get(0x2a, "/")]);
    let text = String::from_utf8(fs::read(path).unwrap()).unwrap();
    assert_eq!(
        text,
        "1 9c401f900a0102030000002a 1795381446420000000 1000003\n\
         GET / HTTP/1.1\r\nHost: a.example\r\n\r\n\n🐵🙈🙉\n\
         2 9c401f900a0102030000002a 1795381446422000006 1000003\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\n🐵🙈🙉\n"
    );
}

#[test]
fn sizes_and_order_survive() {
    let big = vec![b'x'; 100_000];
    let head = "POST /big HTTP/1.1\r\nContent-Length: 100000\r\n\r\n";
    let list = [
        get(1, "/"),
        exchange(
            2,
            "POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\n",
            b"a=1&b=2",
            Framing::Length(7),
            None,
        ),
        exchange(3, head, &big, Framing::Length(100_000), None),
    ];
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.gor", "a.gor.gz", "a.jsonl", "a.jsonl.gz"] {
        let (path, account) = write(&folder, name, &list);
        assert_eq!(all(&read(&[path]), gor_facts), all(&list, gor_facts));
        let expected = if name.starts_with("a.gor") { 4 } else { 3 };
        assert_eq!(account.get(Counter::RecordsWritten), expected);
    }
}

#[test]
fn an_answer_belongs_to_the_latest_request_of_its_id() {
    let file = [
        gor(1, ID, 1, "GET /first HTTP/1.1\r\n\r\n"),
        gor(1, ID, 2, "GET /second HTTP/1.1\r\n\r\n"),
        gor(2, ID, 3, OK),
        gor(3, ID, 4, OK),
    ]
    .concat();
    let (exchanges, damage) = read_bytes("a.gor", &file);
    let shown: Vec<_> = exchanges
        .iter()
        .map(|it| {
            (
                it.request.as_ref().unwrap().head.target(),
                it.response.is_some(),
            )
        })
        .collect();
    assert_eq!(shown, [(&b"/first"[..], false), (b"/second", true)]);
    assert!(damage.is_empty());
}

#[test]
fn connections_are_told_by_the_first_sixteen_digits() {
    let file = [
        gor(1, "d7921c0c7f00000100000001", 1, GET),
        gor(1, "d7921c0c7f00000100000002", 2, GET),
        gor(1, "d7931c0c7f00000100000003", 3, GET),
        gor(1, "not-hex", 4, GET),
    ]
    .concat();
    let (exchanges, _) = read_bytes("a.gor", &file);
    let ids: Vec<_> = exchanges.iter().map(|it| it.connection).collect();
    assert_eq!(ids[0], ids[1]);
    assert!(ids[1] != ids[2] && ids[2] != ids[3] && ids[1] != ids[3]);
}

#[test]
fn connections_end_when_idle_and_at_the_end() {
    let minute = 60_000_000_000;
    let file: Vec<_> = [
        ("aaaaaaaaaaaaaaaa00", 1),
        ("bbbbbbbbbbbbbbbb00", 2),
        ("aaaaaaaaaaaaaaaa00", 4),
        ("aaaaaaaaaaaaaaaa00", 8),
    ]
    .iter()
    .flat_map(|&(id, time)| gor(1, id, time * minute, GET))
    .collect();
    let input = Input::from_reader(Box::new(Cursor::new(file)), Path::new("a.gor")).unwrap();
    let seen: Vec<_> = Reader::new(vec![input])
        .unwrap()
        .filter_map(|event| match event {
            Event::Request(request) => Some(format!("request {}", request.connection.0)),
            Event::Closed { connection } => Some(format!("closed {}", connection.0)),
            _ => None,
        })
        .collect();
    assert_eq!(
        seen,
        [
            "request 1",
            "request 2",
            "request 1",
            "closed 2",
            "request 1",
            "closed 1"
        ]
    );
}

#[test]
fn several_files_are_read_in_the_order_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("test_requests_0.gor");
    let even = folder.path().join("test_requests_1.gor");
    let target = |name: &str| format!("GET /{name} HTTP/1.1\r\n\r\n");
    fs::write(
        &odd,
        [
            gor(1, "a1", 1, &target("1")),
            gor(2, "a2", 3, OK),
            gor(1, "a3", 3, &target("3")),
        ]
        .concat(),
    )
    .unwrap();
    fs::write(
        &even,
        [
            gor(1, "a2", 2, &target("2")),
            gor(2, "a3", 3, OK),
            gor(1, "a4", 4, &target("4")),
        ]
        .concat(),
    )
    .unwrap();
    let mut reader = Reader::open(&[odd, even]).unwrap();
    let order: Vec<_> = (&mut reader)
        .filter_map(|event| match event {
            Event::Request(it) => Some(String::from_utf8_lossy(it.head.target()).into_owned()),
            Event::Response { id, .. } => Some(format!("answer to {}", id.0)),
            _ => None,
        })
        .collect();
    // A request comes before an answer of the same time, whichever file holds it.
    assert_eq!(
        order,
        ["/1", "/2", "/3", "answer to 2", "answer to 3", "/4"]
    );
}

#[test]
fn three_fields_and_negative_latencies_are_read() {
    let file = format!("1 2 3\n{GET}\n🐵🙈🙉\n2 2 4 -1\n{OK}\n🐵🙈🙉\n");
    let (exchanges, damage) = read_bytes("a.gor", file.as_bytes());
    assert_eq!((exchanges.len(), damage.len()), (1, 0));
    assert!(exchanges[0].response.is_some());
}

#[test]
fn malformed_headers_are_skipped_and_said() {
    let file = [
        gor(1, "a", 1, GET),
        b"4 b 2 0\nwhatever\n".to_vec(),
        "\n🐵🙈🙉\n".into(),
        b"garbage".to_vec(),
        "\n🐵🙈🙉\n".into(),
        gor(1, "c", 3, "no http"),
        gor(1, "d", 4, GET),
    ]
    .concat();
    let (exchanges, damage) = read_bytes("a.gor", &file);
    assert_eq!(exchanges.len(), 2);
    assert_eq!(damage.len(), 3, "{damage:?}");
    assert!(
        damage[0].starts_with("at byte 65: not a record header: \"4 b 2 0\""),
        "{damage:?}"
    );
}

#[test]
fn a_body_may_hold_the_separator() {
    let body = "x\n🐵🙈🙉\ny";
    let post = format!(
        "POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let file = [gor(1, "a", 1, &post), gor(1, "b", 2, GET)].concat();
    let (exchanges, damage) = read_bytes("a.gor", &file);
    assert_eq!((exchanges.len(), damage.len()), (2, 0), "{damage:?}");
    assert_eq!(exchanges[0].request.as_ref().unwrap().body.wire, body);
}

#[test]
fn a_body_that_holds_a_whole_record_is_not_written() {
    let inner = [SEPARATOR, &gor(1, "a", 1, "DELETE / HTTP/1.1\r\n\r\n")].concat();
    let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", inner.len());
    let smuggled = exchange(1, &head, &inner, Framing::Length(inner.len() as u64), None);
    let folder = tempfile::tempdir().unwrap();
    let (path, account) = write(&folder, "a.gor", &[smuggled.clone(), get(2, "/")]);
    assert_eq!(account.dropped(Reason::RecordIncomplete), 1);
    assert_eq!(read(&[path]).len(), 1);
    // When somebody else wrote it, neither part is replayed as what it is not.
    let request = smuggled.request.unwrap();
    let payload = [&request.head.bytes()[..], &inner].concat();
    let (exchanges, _) = read_bytes("a.gor", &gor(1, "b", 1, str::from_utf8(&payload).unwrap()));
    let outer = exchanges.iter().filter_map(|it| it.request.as_ref());
    let outer: Vec<_> = outer.filter(|it| it.head.method() == b"POST").collect();
    assert!(!outer[0].completeness.is_whole());
}

#[test]
fn requests_shorter_than_they_say_are_incomplete() {
    for payload in [
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let (exchanges, _) = read_bytes("a.gor", &gor(1, ID, 1, payload));
        let request = exchanges[0].request.as_ref().unwrap();
        assert!(!request.completeness.is_whole(), "{payload}");
    }
}

#[test]
fn incomplete_messages_are_counted_not_written() {
    let mut cut = exchange(
        1,
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"abc",
        Framing::Length(5),
        Some((
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            b"ok",
            Framing::Length(2),
        )),
    );
    let request = Arc::make_mut(cut.request.as_mut().unwrap());
    request.completeness = Completeness::Incomplete(Reason::RequestGap);
    request.body.missing = 2;
    let folder = tempfile::tempdir().unwrap();
    for (name, left) in [("a.gor", 1), ("a.har", 0), ("a.pcap", 0)] {
        let (path, account) = write(&folder, name, std::slice::from_ref(&cut));
        assert!(account.dropped(Reason::RecordIncomplete) > 0);
        if name != "a.pcap" {
            let read = read(&[path]);
            assert_eq!(read.len(), left, "{name}");
            assert!(read.iter().all(|it| it.request.is_none()));
        }
    }
}

#[test]
fn orphans_never_find_a_request_of_another_exchange() {
    let list = [get(0, "/a"), orphan(get(7, "/b")), get(14, "/c")];
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(&folder, "a.gor", &list);
    assert_eq!(all(&read(&[path]), gor_facts), all(&list, gor_facts));
}

#[test]
fn every_truncation_gives_what_was_whole_and_says_that_it_is_cut() {
    let files: Vec<_> = [(1, GET), (2, OK), (1, GET)]
        .iter()
        .zip(1..)
        .map(|(&(kind, payload), time)| gor(kind, ID, time, payload))
        .collect();
    let file = files.concat();
    for end in 1..file.len() {
        let mut ends = files.iter().scan(0, |at, record| {
            *at += record.len();
            Some(*at)
        });
        // The last line feed of a separator may be missing.
        let whole = ends.by_ref().take_while(|&at| at <= end + 1).count();
        let input = Input::from_reader(
            Box::new(Cursor::new(file[..end].to_vec())),
            Path::new("a.gor"),
        );
        let mut records = Records::new(input.unwrap().into_content());
        let mut good = 0;
        let mut cut = 0;
        while let Some(record) = records.next_record() {
            match record {
                Ok(_) => good += 1,
                Err(damage) => {
                    cut += 1;
                    assert!(damage.to_string().contains("cut"), "{damage}");
                }
            }
        }
        assert_eq!(good, whole, "cut at {end}");
        let at_end = files
            .iter()
            .scan(0, |at, it| {
                *at += it.len();
                Some(*at)
            })
            .any(|at| at == end || at == end + 1);
        assert_eq!(cut, usize::from(!at_end), "cut at {end}");
    }
}

// ── gzip ──

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_of_several_members_is_read_whole() {
    let file = [gzip(&gor(1, "a", 1, GET)), gzip(&gor(1, "b", 2, GET))].concat();
    let (exchanges, damage) = read_bytes("whatever", &file);
    assert_eq!((exchanges.len(), damage.len()), (2, 0));
}

#[test]
fn a_gzip_file_is_readable_up_to_the_last_flush() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.gor.gz", "a.jsonl.gz", "a.har.gz"] {
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path, Options::default()).unwrap();
        writer.exchange(&get(1, "/1")).unwrap();
        writer.flush().unwrap();
        writer.exchange(&get(2, "/2")).unwrap();
        let bytes = fs::read(&path).unwrap();
        let (exchanges, damage) = read_bytes(name, &bytes);
        assert_eq!(exchanges.len(), 1, "{name}: {damage:?}");
        assert_eq!(damage.len(), 1, "{name}: {damage:?}");
        writer.finish().1.unwrap();
        assert_eq!(read(&[path]).len(), 2);
    }
}

// ── files ──

#[test]
fn a_flushed_file_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.gor", "a.jsonl", "a.har"] {
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path, Options::default()).unwrap();
        for number in 1..5 {
            writer.exchange(&get(number, "/")).unwrap();
            writer.flush().unwrap();
            let bytes = fs::read(&path).unwrap();
            let (exchanges, damage) = read_bytes(name, &bytes);
            assert_eq!(exchanges.len() as u64, number, "{name}");
            assert!(damage.is_empty(), "{name}: {damage:?}");
        }
        writer.finish().1.unwrap();
    }
    let har: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("a.har")).unwrap()).unwrap();
    assert_eq!(har["log"]["entries"].as_array().unwrap().len(), 4);
    assert_eq!(har["log"]["version"], "1.2");
}

#[test]
fn recordings_without_records_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "a.gor",
        "a.jsonl",
        "a.har",
        "a.gor.gz",
        "a.jsonl.gz",
        "a.har.gz",
    ] {
        let (path, _) = write(&folder, name, &[]);
        assert!(read(&[path]).is_empty(), "{name}");
    }
    let (path, _) = write(&folder, "a.pcap", &[]);
    assert!(capture(&path).is_empty());
}

#[test]
fn an_existing_file_is_refused_without_force_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gor");
    fs::write(&path, "precious").unwrap();
    let refused = Writer::create(&path, Options::default()).err().unwrap();
    assert!(matches!(refused, RecordError::Exists { .. }));
    assert!(refused.to_string().contains("--force"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");

    let force = Options {
        force: true,
        ..Options::default()
    };
    let mut writer = Writer::create(&path, force).unwrap();
    assert_eq!(
        fs::read(&path).unwrap(),
        b"precious",
        "until the first write"
    );
    writer.exchange(&get(1, "/")).unwrap();
    writer.finish().1.unwrap();
    assert_eq!(read(&[path]).len(), 1);
}

#[test]
fn names_that_say_no_format_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["out", "out.txt", "out.gz", "out.pcapng"] {
        let path = folder.path().join(name);
        let refused = Writer::create(&path, Options::default()).err().unwrap();
        assert!(matches!(refused, RecordError::NoFormat { .. }), "{name}");
        assert!(!path.exists());
    }
    let missing = folder.path().join("no/such/folder/a.gor");
    let refused = Writer::create(&missing, Options::default()).err().unwrap();
    assert!(
        refused.to_string().contains("no/such/folder/a.gor"),
        "{refused}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "a.gor",
        "a.jsonl",
        "a.har",
        "a.pcap",
        "a.gor.gz",
        "a.jsonl.gz",
    ] {
        let path = folder.path().join(name);
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut writer = Writer::create(&path, Options::default()).unwrap();
        let written = writer.exchange(&get(1, "/"));
        let flushed = writer.flush();
        let error = written.and(flushed).unwrap_err();
        assert!(matches!(error, RecordError::Write { .. }), "{name}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(writer.exchange(&get(2, "/")).is_err());
        let (account, result) = writer.finish();
        assert!(result.is_err());
        if !name.contains(".gz") && name != "a.pcap" {
            assert_eq!(account.get(Counter::RecordsWritten), 0, "{name}");
            account.check().unwrap();
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_fitted_on_a_full_disk_is_readable() {
    let folder = tempfile::tempdir().unwrap();
    // Bodies that do not compress, 400 KB in all.
    let mut noise = 1u32;
    let list: Vec<_> = (0..40)
        .map(|number| {
            let body: Vec<u8> = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .take(10_000)
            .collect();
            let head = "POST / HTTP/1.1\r\nContent-Length: 10000\r\n\r\n";
            exchange(number, head, &body, Framing::Length(10_000), None)
        })
        .collect();
    let (input, _) = write(&folder, "all.gor", &list);
    for name in ["a.gor", "a.jsonl", "a.har", "a.pcap", "a.gor.gz"] {
        let kept = folder.path().join(name);
        let script = "mount -t tmpfs -o size=128k none /mnt || exit 99; \
                      \"$0\" convert \"$1\" --out /mnt/\"$3\"; code=$?; cp /mnt/\"$3\" \"$2\"; exit $code";
        let output = Command::new("unshare")
            .args(["-Urm", "sh", "-c", script, env!("CARGO_BIN_EXE_shadowtap")])
            .args([&input, &kept])
            .arg(name)
            .output();
        let output = match output {
            Ok(output) if output.status.code() != Some(99) && kept.exists() => output,
            cannot => {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "cannot run here: {cannot:?}"
                );
                eprintln!("skipped: no mount namespace of our own: {cannot:?}");
                return;
            }
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(name) && said.contains("writing failed"),
            "{said}"
        );
        let exchanges = if name == "a.pcap" {
            capture(&kept)
        } else {
            let mut reader = Reader::open(std::slice::from_ref(&kept)).unwrap();
            let exchanges = join(&mut reader);
            // Only a compressed file keeps its torn end.
            assert!(
                name.ends_with(".gz") || reader.damaged() == 0,
                "{name}: {:?}",
                reader.damage()
            );
            exchanges
        };
        assert!(
            (5..40).contains(&exchanges.len()),
            "{name}: {} read",
            exchanges.len()
        );
        let body = |it: &Exchange| it.request.as_ref().unwrap().body.wire.clone();
        let kept = exchanges.iter().map(body);
        assert!(
            kept.eq(list.iter().take(exchanges.len()).map(body)),
            "{name}"
        );
    }
}

#[test]
fn a_file_is_not_written_while_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(&folder, "a.gor", &[get(1, "/")]);
    let before = fs::read(&path).unwrap();
    let roundabout = folder.path().join(".").join("a.gor");
    let output = Command::new(env!("CARGO_BIN_EXE_shadowtap"))
        .args(["convert", "--force", "--out"])
        .args([&roundabout, &path])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("give another name"),
        "{said}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn content_tells_the_format_before_the_name_does() {
    let path = |name: &'static str| Path::new(name);
    for (first, name, format) in [
        (&b"\xa1\xb2\x3c\x4d rest"[..], "a.gor", Some(Format::Pcap)),
        (b"\xd4\xc3\xb2\xa1", "-", Some(Format::Pcap)),
        (b"\x0a\x0d\x0d\x0a", "-", Some(Format::PcapNg)),
        (b"1 d792 179 0\nGET", "a.har", Some(Format::Gor)),
        (b"{\"log\": {", "a.jsonl", Some(Format::Har)),
        (b"{\"client\":\"x\"", "-", Some(Format::Jsonl)),
        (b"", "a.jsonl", Some(Format::Jsonl)),
        (b"", "a.txt", None),
        (b"GET / HTTP/1.1", "-", None),
    ] {
        assert_eq!(detect(first, path(name)), format, "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let readme = folder.path().join("README.md");
    fs::write(&readme, "# Something else").unwrap();
    let refused = Reader::open(std::slice::from_ref(&readme)).err().unwrap();
    assert!(
        refused.to_string().contains("README.md: not a recording"),
        "{refused}"
    );
    let refused = Reader::open(&[folder.path().join("gone.gor")])
        .err()
        .unwrap();
    assert!(refused.to_string().contains("gone.gor"), "{refused}");
}

#[test]
fn packets_are_written_as_they_came() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcap");
    let options = Options {
        snap_length: 1000,
        ..Options::default()
    };
    let mut writer = Writer::create(&path, options).unwrap();
    let packet = |time, wire_len, data| Packet {
        time: Timestamp::from_nanos(time),
        link: LinkType(113),
        wire_len,
        data,
    };
    let packets = [
        packet(START + 1, 4, &b"abcd"[..]),
        packet(START, 100, b"cut"),
    ];
    for packet in &packets {
        writer.packet(packet).unwrap();
    }
    let other = Packet {
        link: LinkType(1),
        ..packets[0]
    };
    let refused = writer.packet(&other).unwrap_err();
    assert!(refused.to_string().contains("one link type"), "{refused}");
    writer.finish().1.unwrap();

    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes[16..20], 1000u32.to_le_bytes());
    let mut source = FileSource::open(&path).unwrap();
    for expected in &packets {
        let got = source.next_packet().unwrap().unwrap();
        assert_eq!(format!("{got:?}"), format!("{expected:?}"));
    }
    assert!(source.next_packet().unwrap().is_none());
}

// ── exchange lines ──

#[test]
fn lines_keep_to_their_schema() {
    let schema = fs::read_to_string(root("docs/exchange.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut unanswered = get(1, "/unanswered");
    unanswered.response = None;
    let mut cut = get(2, "/cut");
    let response = cut.response.as_mut().unwrap();
    response.completeness = Completeness::Incomplete(Reason::ResponseGap);
    response.body.missing = 1;
    response.doubts.content_length = true;
    response.interim = vec![100, 103];
    let odd = exchange(
        3,
        "G\u{e9}T HTTP/1.1\r\n folded\r\nX: a\r\n  b\r\n\r\n"
            .replace('\u{e9}', "E")
            .as_str(),
        b"",
        Framing::None,
        None,
    );
    for exchange in [get(0, "/"), unanswered, cut, odd, orphan(get(4, "/"))] {
        for detail in [Detail::Inspect, Detail::Recording] {
            let mut line = Vec::new();
            jsonl::write_exchange(&exchange, &mut line, detail).unwrap();
            let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
            let errors: Vec<_> = validator
                .iter_errors(&line)
                .map(|it| it.to_string())
                .collect();
            assert!(errors.is_empty(), "{errors:?}\n{line}");
        }
    }
    let wrong = serde_json::json!({"client": 5, "status": "ok"});
    assert!(!validator.is_valid(&wrong));
}

#[test]
fn lines_of_others_are_read() {
    let file = r#"
{"client":"[::1]:5000","server":"10.0.0.1:80","method":"POST","target":"/a?b","request_headers":[["Host","x"],["X","caf\u00e9"]],"request_body_b64":"aGVsbG8=","status":201,"reason":"Created","response_headers":[["Transfer-Encoding","chunked"]],"response_body_b64":"b2s="}
{"method":"GET","target":"/"}
{"method":"POST","target":"/","request_headers":[["Content-Length","4"]],"request_body_len":4,"request_body_sha256":"x"}
{"method":"GET /evil HTTP/1.1\r\nX:","target":"/"}
nonsense
{"method":null,"status":200,"response_headers":[]}
{"method":"GET","ta"#;
    let (exchanges, damage) = read_bytes("a.jsonl", file.as_bytes());
    let request = |at: usize| exchanges[at].request.as_ref().unwrap();
    let post = exchanges
        .iter()
        .find(|it| {
            it.response
                .as_ref()
                .is_some_and(|it| it.head.status() == 201)
        })
        .unwrap();
    let posted = post.request.as_ref().unwrap();
    assert_eq!(
        &posted.head.bytes()[..],
        b"POST /a?b HTTP/1.1\r\nHost: x\r\nX: caf\xe9\r\nContent-Length: 5\r\n\r\n"
    );
    assert_eq!(posted.body.wire, "hello");
    assert_eq!(post.endpoints.client.to_string(), "[::1]:5000");
    let answer = post.response.as_ref().unwrap();
    assert_eq!(answer.body.wire, "2\r\nok\r\n0\r\n\r\n");
    assert!(answer.completeness.is_whole());
    // A body that only its hash tells of is not there.
    assert!(!request(2).completeness.is_whole());
    assert_eq!(exchanges.len(), 4);
    assert_eq!(damage.len(), 3, "{damage:?}");
    assert!(damage[0].starts_with("line 5: "), "{damage:?}");
    assert!(
        damage[1].starts_with("line 6: not an exchange"),
        "{damage:?}"
    );
    assert_eq!(damage[2], "line 8: the last line is cut; it is left out");
}

// ── HTTP archives ──

#[test]
fn an_archive_of_a_browser_is_read() {
    let (exchanges, damage) = read_bytes(
        "a.har",
        &fs::read(root("fixtures/record/browser.har")).unwrap(),
    );
    assert!(damage.is_empty(), "{damage:?}");
    let [page, form, aborted] = &exchanges[..] else {
        panic!("{} exchanges", exchanges.len());
    };
    let request = page.request.as_ref().unwrap();
    assert_eq!(
        &request.head.bytes()[..],
        b"GET /path?q=1 HTTP/1.1\r\nHost: shop.example:8443\r\naccept: */*\r\n\r\n"
    );
    assert_eq!(page.endpoints.server.to_string(), "192.0.2.7:8443");
    let answer = page.response.as_ref().unwrap();
    assert_eq!(answer.head.fields().get("content-encoding"), None);
    assert_eq!(answer.head.fields().get("content-length"), Some(&b"16"[..]));
    assert_eq!(answer.body.wire, "<h1>Grüße</h1>");
    let request = form.request.as_ref().unwrap();
    assert_eq!(request.body.wire, "a=1&b=%20");
    assert!(request.completeness.is_whole());
    assert!(aborted.response.is_none());
}

#[test]
fn every_truncation_of_an_archive_gives_the_entries_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(&folder, "a.har", &[get(1, "/1"), get(2, "/2")]);
    let file = fs::read(path).unwrap();
    let second = file
        .windows(20)
        .rposition(|it| it == b"\n{\"startedDateTime\":")
        .unwrap();
    for end in (20..file.trim_ascii_end().len()).step_by(7) {
        let (exchanges, damage) = read_bytes("a.har", &file[..end]);
        let whole = usize::from(end >= second - 1) + usize::from(end >= file.len() - 5);
        assert_eq!(exchanges.len(), whole, "cut at {end}");
        assert_eq!(damage.len(), 1);
        assert!(damage[0].contains("cut"), "{damage:?}");
    }
}

// ── golden files ──

#[test]
fn recordings_are_the_golden_ones() {
    let mut gap = get(4, "/gap");
    let response = gap.response.as_mut().unwrap();
    response.completeness = Completeness::Incomplete(Reason::ResponseGap);
    response.body.missing = 1;
    response.body.wire = Bytes::from_static(b"o");
    let list = [
        get(1, "/caf\u{e9}?a=1&b=%20"),
        exchange(
            2,
            "POST /upload HTTP/1.1\r\nHost: a.example\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            Framing::Chunked,
            Some((
                "HTTP/1.1 303 See Other\r\nLocation: /there\r\nContent-Type: image/gif\r\nContent-Length: 3\r\n\r\n",
                b"\xff\x00\xfe",
                Framing::Length(3),
            )),
        ),
        exchange(3, "GET /lost HTTP/1.0\r\n\r\n", b"", Framing::None, None),
        gap,
        orphan(get(5, "/")),
    ];
    let folder = tempfile::tempdir().unwrap();
    let regenerate = std::env::var_os("SHADOWTAP_REGENERATE").is_some();
    for name in [
        "exchanges.gor",
        "exchanges.jsonl",
        "exchanges.har",
        "exchanges.pcap",
    ] {
        let (path, _) = write(&folder, name, &list);
        let mut written = fs::read(path).unwrap();
        if name.ends_with(".har") {
            // The version of the program is no property of the format.
            let text = String::from_utf8(written).unwrap();
            let version = format!(
                "\"version\":\"{}\"}},\"entries\"",
                env!("CARGO_PKG_VERSION")
            );
            written = text
                .replace(&version, "\"version\":\"0\"},\"entries\"")
                .into_bytes();
        }
        let golden = root("fixtures/record").join(name);
        if regenerate {
            fs::create_dir_all(golden.parent().unwrap()).unwrap();
            fs::write(&golden, &written).unwrap();
        }
        assert!(
            fs::read(&golden).unwrap_or_default() == written,
            "{name} is not the golden one; if it should be, set SHADOWTAP_REGENERATE"
        );
    }
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
