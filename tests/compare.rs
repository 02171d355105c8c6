//! Comparing and judging through the program: a recording with version 1's answers in, a verdict out.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::run::PROGRAM;

/// What a version answers to `GET /orders/N`, in the second since 1970 in which it does.
type Answers = fn(number: u64, now: u64) -> String;

/// As version 1 has it: with a moment that is another one each time.
fn right(number: u64, now: u64) -> String {
    order(number * 7, 5, now)
}

/// Every second total is wrong.
fn wrong(number: u64, now: u64) -> String {
    order(number * 7 + number % 2, 5, now)
}

/// The stock is never twice the same.
fn unsteady(number: u64, now: u64) -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH);
    let stock = nanos.expect("after 1970").subsec_nanos();
    order(number * 7, stock, now)
}

fn order(total: u64, stock: u32, now: u64) -> String {
    format!("{{\"total\":{total},\"items\":[{{\"stock\":{stock}}}],\"at\":{now}}}")
}

/// A server that answers every `GET /orders/N` as a version does; to an odd N also with another key.
fn server(answers: Answers) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a stream");
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().expect("a second handle"));
                let mut line = String::new();
                let mut number = 0;
                while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if let Some(path) = line.strip_prefix("GET /orders/") {
                        let digits = path.split(' ').next().unwrap_or_default();
                        number = digits.parse().expect("a number");
                    }
                    if line == "\r\n" {
                        let now = SystemTime::now().duration_since(UNIX_EPOCH);
                        let body = answers(number, now.expect("after 1970").as_secs());
                        let key = if number % 2 == 1 { "hunter2" } else { "public" };
                        if stream.write_all(answer(&body, key).as_bytes()).is_err() {
                            return;
                        }
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

fn answer(body: &str, key: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Api-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A recording of `count` requests over 8 connections, with version 1's answers, each 20 ms later, unless it has none.
fn recording(directory: &tempfile::TempDir, count: u64, has_answers: bool) -> PathBuf {
    const BEGAN: u64 = 1_700_000_000_000_000_000;
    let mut text = String::new();
    let mut record = |kind: u64, number: u64, time: u64, message: &str| {
        let connection = number % 8;
        let id = format!("{:04x}00500a000001{number:08x}", 40_000 + connection);
        writeln!(text, "{kind} {id} {time} 0\n{message}\n🐵🙈🙉").expect("text grows");
    };
    for number in 0..count {
        let time = BEGAN + number * 1_000_000;
        let request = format!("GET /orders/{number} HTTP/1.1\r\nHost: shop\r\n\r\n");
        record(1, number, time, &request);
        if has_answers {
            let time = time + 20_000_000;
            let body = right(number, time / 1_000_000_000);
            record(2, number, time, &answer(&body, "public"));
        }
    }
    let path = directory.path().join("traffic.gor");
    fs::write(&path, text).expect("written");
    path
}

/// Replays a recording of `count` requests to version 2.
fn compare(count: u64, version2: SocketAddr, more: &[&str]) -> (Output, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = recording(&directory, count, !more.contains(&"--without-answers"));
    let more = more.iter().filter(|it| **it != "--without-answers");
    let output = Command::new(PROGRAM)
        .arg("replay")
        .arg(&file)
        .args(["--to", &format!("http://{version2}"), "--speed", "max"])
        .args(["--compare", "--connect-timeout", "60s"])
        .args(["--first-byte-timeout", "60s"])
        .args(more)
        .current_dir(&directory)
        .stdin(Stdio::null())
        .output()
        .expect("the program can be started");
    let junit = fs::read_to_string(directory.path().join("out.xml")).unwrap_or_default();
    (output, junit)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wrong_version_is_rejected_by_the_field_that_is_wrong() {
    let flags = ["--junit", "out.xml", "--fail-on", "reject"];
    let (output, junit) = compare(600, server(wrong), &flags);
    let shown = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{shown}");
    assert!(shown.contains("The verdict: reject"), "{shown}");
    assert!(shown.contains("GET /orders/{id}"), "{shown}");
    assert!(
        shown.contains("body.total (value): in 300 of 600 answers"),
        "{shown}"
    );
    for other in ["body.at", "body.items", "header.", "status ("] {
        assert!(!shown.contains(other), "{other} does not differ\n{shown}");
    }
    assert!(
        shown.contains("judged               600   of 600"),
        "{shown}"
    );
    assert!(junit.contains("name=\"GET /orders/{id}\""), "{junit}");
    assert!(junit.contains("<failure message=\""), "{junit}");
}

#[test]
fn an_equal_version_is_promoted_once_there_is_enough() {
    let flags = ["--junit", "out.xml", "--fail-on", "continue"];
    let (output, junit) = compare(50, server(right), &flags);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(junit.contains("<failure message=\""), "{junit}");
    let (output, junit) = compare(6000, server(right), &flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(junit.contains("failures=\"0\" skipped=\"0\""), "{junit}");
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_anything_is_sent() {
    let (output, _) = compare(5, server(right), &["--junit", "nowhere/out.xml"]);
    let shown = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("--junit: cannot write nowhere/out.xml"),
        "{shown}"
    );
    assert!(!shown.contains("The account"), "{shown}");
}

#[test]
fn every_round_of_a_part_of_a_recording_is_judged() {
    let part = ["--from", "100ms", "--until", "200ms", "--loop", "3"];
    let (output, _) = compare(600, server(right), &part);
    let shown = stderr(&output);
    assert!(
        shown.contains("judged               300   of 300"),
        "{shown}"
    );
}

#[test]
fn without_a_flag_a_verdict_is_no_failure() {
    let (output, _) = compare(600, server(wrong), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("The verdict: reject"));
}

#[test]
fn what_differs_between_two_copies_of_version_1_is_noise() {
    let flags = ["--fail-on", "reject"];
    let (output, _) = compare(600, server(unsteady), &flags);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let control = format!("http://{}", server(unsteady));
    let (output, _) = compare(
        600,
        server(unsteady),
        &["--fail-on", "reject", "--control", &control],
    );
    let shown = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(shown.contains("noise measured with the control"), "{shown}");
    let ignoring = ["--fail-on", "reject", "--ignore", "body.items[].stock"];
    let (output, _) = compare(600, server(unsteady), &ignoring);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn an_answer_that_is_not_in_the_recording_is_counted_and_not_judged() {
    let (output, _) = compare(40, server(right), &["--without-answers"]);
    let shown = stderr(&output);
    assert!(
        shown.contains("judged                 0   of 40"),
        "{shown}"
    );
    assert!(shown.contains("The verdict: continue"), "{shown}");
    assert!(shown.contains("version_1_"), "{shown}");
    assert!(!shown.contains("this is a bug"), "{shown}");
}

#[test]
fn secrets_are_shown_as_tokens() {
    let (output, junit) = compare(
        200,
        server(right),
        &["--compare-headers", "X-Api-Key", "--junit", "out.xml"],
    );
    let shown = stderr(&output);
    assert!(shown.contains("header.x-api-key (value)"), "{shown}");
    assert!(shown.contains("redacted-"), "{shown}");
    for text in [&shown, &junit] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn flags_that_do_not_fit_are_explained() {
    let wrong = |flags: &[&str]| {
        let output = Command::new(PROGRAM)
            .args(["replay", "x.gor", "--to", "http://127.0.0.1:1"])
            .args(flags)
            .output()
            .expect("the program can be started");
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    let switched_off = |flags: &[&str]| {
        let output = Command::new(PROGRAM)
            .args(["mirror", "-i", "no-such-0", "--port", "80"])
            .args(["--to", "http://127.0.0.1:1", "--no-compare"])
            .args(flags)
            .output()
            .expect("the program can be started");
        stderr(&output)
    };
    let said = switched_off(&["--ignore", "body.a", "--redact", "b", "--alpha", "1%"]);
    assert!(said.contains("no-such-0"), "it would run: {said}");
    let said = switched_off(&["--control", "http://127.0.0.1:2"]);
    assert!(
        said.contains("--control: nothing is compared with --no-compare"),
        "{said}"
    );
    let useless = "nothing is compared without --compare, so that it would do nothing";
    for flags in [
        &["--control", "http://127.0.0.1:2"][..],
        &["--compare-headers", "X-Price"],
        &["--ignore", "body.a"],
        &["--route", "/a/{b}"],
        &["--redact", "email"],
        &["--reveal"],
        &["--alpha", "1%"],
        &["--max-difference", "2%"],
        &["--max-errors", "2%"],
        &["--max-slow", "2%"],
        &["--min-completeness", "50%"],
        &["--allow-uncovered"],
        &["--max-slower", "20%"],
        &["--slower-floor", "2ms"],
    ] {
        let said = wrong(flags);
        assert!(said.contains(&format!("{}: {useless}", flags[0])), "{said}");
    }
    assert!(wrong(&["--junit", "x.xml"]).contains("--compare"));
    assert!(wrong(&["--compare", "--ignore", "items[].a"]).contains("begin with body"));
    assert!(wrong(&["--compare", "--route", "orders"]).contains("is not a route"));
    assert!(wrong(&["--compare", "--control", "http://127.0.0.1:1"]).contains("--to as well"));
}
