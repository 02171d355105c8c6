//! How late requests leave when a recording of a minute is replayed at its own pace. Prints, asserts nothing.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

/// How long the recording lasts, and how many requests a second it holds.
const SECONDS: u64 = 60;
const PER_SECOND: u64 = 500;

/// On how many connections.
const CONNECTIONS: u64 = 50;

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a stream");
            thread::spawn(move || {
                let mut request = [0; 4096];
                // Requests come one by one and are small: each read is one.
                while let Ok(1..) = stream.read(&mut request) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let mut recording = tempfile::Builder::new()
        .suffix(".jsonl")
        .tempfile()
        .expect("a file");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..SECONDS * PER_SECOND {
        // Anywhere within its share of the second.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let share = 1_000_000_000 / PER_SECOND;
        let nanos = number * share + state % share;
        let port = 10_000 + state % CONNECTIONS;
        let time = 1_767_225_600_000_000_000 + nanos;
        writeln!(
            recording,
            "{{\"request_time_ns\":{time},\"client\":\"10.0.0.1:{port}\",\"server\":\"10.0.0.2:80\",\
             \"method\":\"GET\",\"target\":\"/{number}\",\"version\":\"HTTP/1.1\",\"request_headers\":[[\"Host\",\"a\"]],\
             \"request_body_len\":0,\"request_complete\":true}}"
        )
        .expect("written");
    }
    println!("replaying {SECONDS} s of {PER_SECOND} requests a second at speed 1 …");
    let output = Command::new(env!("CARGO_BIN_EXE_shadowtap"))
        .arg("replay")
        .arg(recording.path())
        .args(["--to", &target, "--log-format", "json", "--progress", "off"])
        .stdin(Stdio::null())
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&output.stderr);
    let account = said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|line| line["message"] == "the account")
        .unwrap_or_else(|| panic!("{said}"));
    let target = &account["account"]["targets"][0];
    let late = |at: usize| target["late_us"][at].as_f64().unwrap_or(f64::NAN) / 1000.0;
    println!(
        "{} of {} answered; left late by {:.3} ms (median), {:.3} ms (p99), {:.3} ms (most); the goal on an idle machine is a p99 \
         under 2 ms",
        target["answered"],
        target["offered"],
        late(0),
        late(1),
        late(2)
    );
}
