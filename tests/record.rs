//! Recordings, written and read back: nothing lost, nothing invented, and every damage said.

mod files;
mod gor;
mod rotate;
mod secrets;
mod survives;
mod texts;

use std::fs;
use std::io::{Cursor, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

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

/// A record as GoReplay writes it.
fn gor(kind: u8, id: &str, time: u64, payload: &str) -> Vec<u8> {
    let header = format!("{kind} {id} {time} 0\n");
    [header.as_bytes(), payload.as_bytes(), SEPARATOR].concat()
}

const ID: &str = "d7921c0c7f000001388709f8";
const GET: &str = "GET /q/1 HTTP/1.1\r\nHost: 127.0.0.1:7180\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
