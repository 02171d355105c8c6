//! What answers cost that unpack to far more than they are.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use shadowtap::account::Reason;
use shadowtap::compare::{Rules, differences};
use shadowtap::exchange::{
    Completeness, ConnectionId, Doubts, Endpoints, ExchangeId, Request, Response,
};
use shadowtap::http1::{Body, Framing, RequestHead, ResponseHead};
use shadowtap::time::Timestamp;

use super::offline::{cpu, peak};

/// So many zeros are in each.
const ZEROS: u64 = 1 << 30;

/// How each is made: the name in the table, the value of `Content-Encoding`, and the encoder.
type Encode = fn(&mut dyn Read, File) -> io::Result<()>;
const BOMBS: [(&str, &str, Encode); 6] = [
    ("gzip", "gzip", |zeros, file| {
        let mut encoder = GzEncoder::new(file, Compression::best());
        io::copy(zeros, &mut encoder)?;
        encoder.finish().map(drop)
    }),
    ("deflate", "deflate", |zeros, file| {
        let mut encoder = ZlibEncoder::new(file, Compression::best());
        io::copy(zeros, &mut encoder)?;
        encoder.finish().map(drop)
    }),
    ("deflate without zlib's head", "deflate", |zeros, file| {
        let mut encoder = DeflateEncoder::new(file, Compression::best());
        io::copy(zeros, &mut encoder)?;
        encoder.finish().map(drop)
    }),
    ("br", "br", |zeros, file| {
        let mut encoder = brotli::CompressorWriter::new(file, 1 << 16, 5, 22);
        io::copy(zeros, &mut encoder)?;
        encoder.flush()
    }),
    ("zstd", "zstd", |zeros, file| {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress(zeros, file, level);
        Ok(())
    }),
    ("gzip in gzip", "gzip, gzip", |zeros, file| {
        let outer = GzEncoder::new(file, Compression::best());
        let mut inner = GzEncoder::new(outer, Compression::best());
        io::copy(zeros, &mut inner)?;
        inner.finish()?.finish().map(drop)
    }),
];

/// The table; each bomb in a process of its own.
pub(super) fn all() -> io::Result<String> {
    let mut text = "| coding | each answer, bytes | memory, MiB | CPU of the comparison, ms |\n\
                    |---|---:|---:|---:|\n"
        .to_owned();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bomb");
    for (name, codings, encode) in BOMBS {
        encode(&mut io::repeat(0).take(ZEROS), File::create(&file)?)?;
        let said = Command::new(std::env::current_exe()?)
            .args(["bomb", codings])
            .arg(&file)
            .output()?;
        if !said.status.success() {
            let why = String::from_utf8_lossy(&said.stderr).into_owned();
            return Err(io::Error::other(format!("{name}: {why}")));
        }
        let figures = String::from_utf8_lossy(&said.stdout).into_owned();
        let line = format!("| {name} | {} |", figures.trim());
        println!("{line}");
        let _ = writeln!(text, "{line}");
    }
    Ok(text)
}

/// Compares two answers that hold what is in `file`, and prints what that took.
pub(super) fn one(codings: &str, file: &Path) -> io::Result<()> {
    let bytes = Bytes::from(std::fs::read(file)?);
    // Equal bytes in equal codings are not even unpacked.
    let again = format!("{codings}, identity");
    let answers = [answer(codings, &bytes), answer(&again, &bytes)];
    let request = request();
    let (memory, time) = (peak(), cpu());
    let found = differences(&request, &answers[0], &answers[1], &Rules::default());
    let (memory, time) = (peak() - memory, cpu() - time);
    if found != Err(Reason::ContentTooLarge) {
        return Err(io::Error::other(format!("not too large: {found:?}")));
    }
    println!("{} | {memory:.1} | {:.1}", bytes.len(), time * 1e3);
    Ok(())
}

fn request() -> Request {
    let address = SocketAddr::from(([127, 0, 0, 1], 80));
    let head = Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n");
    Request {
        id: ExchangeId(0),
        connection: ConnectionId(0),
        endpoints: Endpoints {
            client: address,
            server: address,
        },
        first_byte: Timestamp::ZERO,
        last_byte: Timestamp::ZERO,
        head: RequestHead::parse(head).expect("a head"),
        body: Body::none(),
        doubts: Doubts::default(),
        completeness: Completeness::Whole,
    }
}

/// An answer with this content.
fn answer(codings: &str, content: &Bytes) -> Response {
    let wire = content.clone();
    let length = wire.len() as u64;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: {codings}\r\nContent-Length: {length}\r\n\r\n"
    );
    Response {
        first_byte: Timestamp::ZERO,
        last_byte: Timestamp::ZERO,
        interim: Vec::new(),
        head: ResponseHead::parse(Bytes::from(head)).expect("a head"),
        body: Body {
            framing: Framing::Length(length),
            wire,
            missing: 0,
        },
        doubts: Doubts::default(),
        completeness: Completeness::Whole,
    }
}
