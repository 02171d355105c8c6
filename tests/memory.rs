//! One limit holds for the whole program, whatever is open and whatever stalls.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::run::PROGRAM;

const CONNECTIONS: u32 = 10_000;

/// What each open connection has sent of a larger body.
const PART: usize = 16 << 10;

/// Whole requests behind them, each of a megabyte: far more than any queue may hold.
const LARGE: u32 = 400;

#[test]
fn many_open_connections_and_a_stalled_target_stay_within_the_limit() {
    // It accepts, as far as the kernel does, and never says a word.
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut child = Command::new(PROGRAM)
        .args([
            "replay",
            "-",
            "--speed",
            "max",
            "--first-byte-timeout",
            "1h",
        ])
        .args([
            "--answer-timeout",
            "1h",
            "--connect-timeout",
            "1h",
            "--progress",
            "off",
        ])
        .args([
            "--to",
            &format!("http://{}", target.local_addr().expect("an address")),
        ])
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut capture = child.stdin.take().expect("piped");
    let written = Arc::new(AtomicU64::new(0));
    let so_far = Arc::clone(&written);
    let writer = thread::spawn(move || {
        let mut write = |bytes: &[u8]| {
            so_far.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            capture.write_all(bytes).is_ok()
        };
        write(&FILE_HEADER);
        let body = vec![b'x'; PART];
        let open = (0..CONNECTIONS).all(|n| {
            let mut packets = handshake(n);
            packets.extend(data(n, 0, &[head(PART * 8).as_bytes(), &body].concat()));
            write(&packets)
        });
        let _ = open
            && (CONNECTIONS..CONNECTIONS + LARGE).all(|n| {
                let mut packets = handshake(n);
                let head = head(64 * PART);
                packets.extend(data(n, 0, head.as_bytes()));
                for piece in 0..64 {
                    packets.extend(data(n, head.len() + piece * PART, &body));
                }
                write(&packets)
            });
    });
    // Until it takes no more: all that may be held is held.
    let begun = Instant::now();
    let mut last = (0, Instant::now());
    while last.1.elapsed() < Duration::from_secs(3) {
        assert!(
            begun.elapsed() < Duration::from_secs(300),
            "it takes and takes"
        );
        assert!(child.try_wait().expect("a child").is_none(), "it has ended");
        let now = written.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    child.kill().expect("it runs");
    child.wait().expect("a child");
    writer.join().expect("no panic");
    assert!(
        !target
            .local_addr()
            .expect("an address")
            .ip()
            .is_unspecified()
    );

    let open = u64::from(CONNECTIONS) * PART as u64;
    assert!(
        last.0 > open + (16 << 20),
        "only {} bytes were taken",
        last.0
    );
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    let peak: u64 = kilobytes.and_then(|it| it.parse().ok()).expect("the peak");
    println!("peak {} MiB, {} MiB taken", peak >> 10, last.0 >> 20);
    assert!(peak < 128 << 10, "{} MiB", peak >> 10);
    // A peak that shows nothing would be no test.
    assert!(peak > 48 << 10, "{} MiB", peak >> 10);
}

/// pcap, little endian, microseconds, raw IP.
const FILE_HEADER: [u8; 24] = [
    0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0,
];

const SYN: u8 = 2;
const ACK: u8 = 16;

fn head(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

fn handshake(n: u32) -> Vec<u8> {
    let mut packets = packet(n, true, (100, 0), SYN, b"");
    packets.extend(packet(n, false, (500, 101), SYN | ACK, b""));
    packets.extend(packet(n, true, (101, 501), ACK, b""));
    packets
}

fn data(n: u32, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let seq = 101 + u32::try_from(offset).expect("small");
    packet(n, true, (seq, 501), ACK, bytes)
}

/// A record of the file: a segment of connection `n`. Nobody verifies checksums.
fn packet(n: u32, is_client: bool, (seq, ack): (u32, u32), flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(40 + payload.len()).expect("small");
    let mut bytes = Vec::with_capacity(16 + len as usize);
    for word in [1_700_000_000, 0, len, len] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let client = (0x0a00_0000 | n, 40_000_u16);
    let server = (0x0aff_0001_u32, 80);
    let (from, to) = if is_client {
        (client, server)
    } else {
        (server, client)
    };
    let len = u16::try_from(len).expect("small").to_be_bytes();
    bytes.extend_from_slice(&[0x45, 0, len[0], len[1], 0, 1, 0x40, 0, 64, 6, 0, 0]);
    bytes.extend_from_slice(&from.0.to_be_bytes());
    bytes.extend_from_slice(&to.0.to_be_bytes());
    bytes.extend_from_slice(&from.1.to_be_bytes());
    bytes.extend_from_slice(&to.1.to_be_bytes());
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(&ack.to_be_bytes());
    bytes.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}
