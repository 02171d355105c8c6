//! `shadowtap gor`: the black-box cases of GoReplay, and what its documentation promises where the program does not keep it.

mod captures;
mod files;
mod flags;
#[cfg(target_os = "linux")]
mod live;
mod sending;
mod streams;

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use shadowtap::record::gor::{Kind, Record, Records};
use tempfile::TempDir;

use crate::support::run::PROGRAM;

/// A command for `shadowtap gor`, without anything from the environment.
fn gor(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHADOWTAP_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.arg("gor").args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to its end.
fn run(arguments: &[&str]) -> Output {
    let output = gor(arguments).output().expect("started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("bug in shadowtap"), "{arguments:?}: {said}");
    output
}

/// Runs it to a good end; what it said.
fn run_well(arguments: &[&str]) -> String {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    said
}

/// A record as GoReplay writes it.
fn record(kind: u8, id: &str, millis: u64, payload: &str) -> String {
    let time = 1_795_381_446_000_000_000 + millis * 1_000_000;
    format!("{kind} {id} {time} 0\n{payload}\n🐵🙈🙉\n")
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: www.w3.org\r\n\r\n")
}

const POST: &str = "POST /post HTTP/1.1\r\nContent-Length: 7\r\nHost: www.w3.org\r\n\r\na=1&b=2";

/// A file in the folder; its path.
fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).expect("written");
    path.to_str().expect("a plain path").to_owned()
}

/// A path in the folder.
fn path(folder: &TempDir, name: &str) -> String {
    let path = folder.path().join(name);
    path.to_str().expect("a plain path").to_owned()
}

/// `count` requests, `pause` milliseconds apart, of `/0`, `/1` …, each on a connection of its own.
fn requests(count: usize, pause: u64) -> String {
    let mut text = String::new();
    for number in 0..count {
        let id = format!("{number:04x}00500a01020300000001");
        let request = get(&format!("/{number}"));
        text += &record(1, &id, number as u64 * pause, &request);
    }
    text
}

/// The records of bytes in GoReplay's format.
fn records(bytes: &[u8]) -> Vec<Record> {
    let mut records = Records::new(Cursor::new(bytes));
    std::iter::from_fn(|| records.next_record())
        .map(|it| it.expect("whole records"))
        .collect()
}

fn records_of(path: impl AsRef<Path>) -> Vec<Record> {
    records(
        &fs::read(path.as_ref())
            .unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display())),
    )
}

/// Kinds and first lines.
fn shown(records: &[Record]) -> Vec<String> {
    let show = |record: &Record| {
        let kind = match record.kind {
            Kind::Request => 1,
            Kind::Response => 2,
            Kind::Replayed => 3,
        };
        let text = String::from_utf8_lossy(&record.payload).into_owned();
        format!("{kind} {}", text.lines().next().unwrap_or_default())
    };
    records.iter().map(show).collect()
}

/// How many the account says left for `reason`.
fn dropped(said: &str, reason: &str) -> usize {
    let line = said
        .lines()
        .find(|line| line.contains(&format!("  {reason}: ")));
    line.map_or(0, |line| {
        let count = line.split_whitespace().nth(1).expect("a number");
        count.replace(',', "").parse().expect("a number")
    })
}

/// The modified records that a file of `records` gives with these flags.
fn through(text: &str, flags: &[&str]) -> Vec<Record> {
    let folder = tempfile::tempdir().expect("a folder");
    let input = file(&folder, "in.gor", text);
    let output = run(&[&["--input-file", &input, "--output-stdout"], flags].concat());
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    records(&output.stdout)
}
