//! `shadowtap gor`: the black-box cases of GoReplay, and what its documentation promises where the program does not keep it.
//!
//! | case | what | test |
//! |---|---|---|
//! | 1 | two exchanges, four records, two ids | `captures::two_exchanges_of_one_connection_have_their_own_ids` |
//! | 2, 3 | messages in several segments, in any order | `captures::messages_in_several_segments_in_any_order` |
//! | 4 | the binary protocol (refused) | `captures::the_binary_protocol_is_refused` |
//! | 5 | live, IPv4, IPv6, answers, the client's address | `live::the_classic_sidecar_works`, `…_over_ipv6`, `captures::the_clients_address_is_set` |
//! | 6 | live, a chunked upload reaches the target | `live::the_classic_sidecar_works` |
//! | 7 | what is a request line or a status line | `captures::first_lines_tell_requests_and_answers` |
//! | 8 | where chunks end | `captures::chunks_end_where_they_say`, `…::chunks_are_followed` |
//! | 9 | what is complete | `captures::what_is_complete_is_known` |
//! | 10 | captures with their truth | `captures::captures_with_a_truth_give_their_requests` |
//! | 11 | a capture file ends, two runs are the same | `captures::a_capture_file_ends_and_gives_the_same_each_time` |
//! | 12, 13, 14, 17, 20 | filters and limiters | `sending::filters_choose`, `…::a_quarter_by_the_hash_is_seventy_eight` |
//! | 15, 16, 18, 19, 22 | rewrites, the lookup of fields | `sending::rewrites_change` |
//! | 21 | a filtered request's answer goes with it | `sending::the_answer_to_a_filtered_request_goes_with_it` |
//! | 23 | prettify | `sending::prettify_takes_framing_and_compression_off` |
//! | 24, 25 | to the byte, written and read back | `files::what_is_written_reads_back_to_the_byte` |
//! | 26 | files of a pattern, merged | `files::files_of_a_pattern_are_merged_by_time` |
//! | 27 | pauses and speeds | `files::pauses_are_divided_and_cut` |
//! | 28 | loops, packed files | `files::a_loop_begins_again` |
//! | 29 | names | `files::chunks_are_numbered_and_bounded`, `…::a_name_may_be_the_requests`, `goreplay::names` |
//! | 30 | chunks | `files::chunks_are_numbered_and_bounded` |
//! | 31 | append, a torn record, the end | `files::appending_appends_and_a_torn_record_costs_itself_alone` |
//! | 32 | sizes | `files::sizes_are_gos` |
//! | 33 | dealing out | `streams::messages_are_dealt_out` |
//! | 34 | limits | `streams::limits_hold_on_inputs_and_outputs` |
//! | 35 | between instances, TLS, sticky | `streams::twenty_thousand_records_arrive_to_the_byte`, `…::records_arrive_over_tls`, `…::records_are_dealt_to_connections` |
//! | 36 | what a target gets | `sending::a_target_gets_what_was_sent`, `…::a_base_path_does_not_swallow_the_path`, `…::connections_are_kept`, `…::any_certificate_is_taken_when_asked`, `…::answers_are_tracked_and_counted` |
//! | 37 | what is too large | `streams::requests_are_received_over_http` |
//! | 38 | middleware | `streams::an_echo_changes_nothing_and_what_it_keeps_is_gone`, `…::a_middleware_that_ends_early_hangs_nobody`, `…::a_middleware_maps_the_tokens_of_one_version_to_those_of_the_other` |
//! | 39 | Kafka (refused) | `flags::kafka_is_refused_with_another_way` |

mod bounds;
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
