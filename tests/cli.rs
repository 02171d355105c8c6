//! The command line as a user meets it: exit codes, what errors say, which way output goes.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::cannot_run;
use crate::support::files::{PCAP, Record};
use crate::support::net::{Conversation, Side};
use crate::support::run::{PROGRAM, in_root};

/// Runs the program without any variable of its own in the environment.
fn run(arguments: &[&str]) -> Output {
    command(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program can be started")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHADOWTAP_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Holds the exit code and that standard error says each of `words`.
#[track_caller]
fn assert_fails(output: &Output, expected: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(code(output), expected, "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

/// A capture of `count` exchanges on one connection, the second request with a target full of terminal controls.
fn capture(directory: &Path, count: usize) -> PathBuf {
    let mut talk = Conversation::new(1);
    talk.open();
    for number in 0..count {
        let target = if number == 1 {
            "/\u{1b}[31mred\u{7}".to_owned()
        } else {
            format!("/{number}")
        };
        talk.send(
            Side::Client,
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        );
        talk.send(
            Side::Server,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        );
    }
    talk.close(Side::Client);
    let records: Vec<Record> = talk
        .packets
        .iter()
        .map(|tcp| Record {
            at: tcp.at,
            frame: talk.ip(tcp),
        })
        .collect();
    let path = directory.join("traffic.pcap");
    fs::write(&path, PCAP.write(RAW_IP, 262_144, &records)).expect("the file can be written");
    path
}

/// `LINKTYPE_RAW`.
const RAW_IP: u16 = 101;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("plain letters")
}

/// Runs the program with this standard input.
fn piped(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut pipe = child.stdin.take().expect("piped");
    pipe.write_all(input).expect("less than a pipe holds");
    drop(pipe);
    child.wait_with_output().expect("ended")
}

#[test]
fn wrong_usage_is_code_2_and_names_the_flag() {
    assert_fails(&run(&[]), 2, &["Usage"]);
    assert_fails(&run(&["mirror", "--port", "80"]), 2, &["--to"]);
    assert_fails(&run(&["mirror", "--to", "http://v2"]), 2, &["--port"]);
    let mirror = |port: &str, to: &str| run(&["mirror", "--port", port, "--to", to]);
    assert_fails(&mirror("http", "http://v2"), 2, &["--port", "ADDRESS:PORT"]);
    assert_fails(&mirror("80", "v2"), 2, &["--to", "http://v2"]);
    assert_fails(&mirror("80", "ftp://v2"), 2, &["--to", "ftp"]);
    assert_fails(
        &run(&["replay", "x.pcap", "--to", "http://v2", "--speed", "fast"]),
        2,
        &["--speed", "max"],
    );
    assert_fails(
        &run(&["convert", "x.pcap", "--out", "x.txt"]),
        2,
        &["--out", ".gor"],
    );
    assert_fails(
        &run(&["record", "--port", "80", "--out", "x.pcapng"]),
        2,
        &["--out", ".pcap"],
    );
    let twice = ["replay", "/dev/stdin", "--to", "http://v2", "--loop", "2"];
    assert_fails(&run(&twice), 2, &["--loop", "/dev/stdin", "once"]);
    assert_fails(&run(&["inspect"]), 2, &["FILE"]);
    for (flag, value, words) in [
        ("--max-followed", "0", "'0' is not a whole number from 1"),
        ("--vxlan-port", "vx", "'vx' is not a port from 1 to 65535"),
    ] {
        assert_fails(&run(&["inspect", flag, value, "a.pcap"]), 2, &[flag, words]);
    }
    assert_fails(
        &run(&["inspect", "x.pcap", "--log-level", "a=b=c"]),
        2,
        &["--log-level"],
    );
    for (level, word) in [("warning", "warning"), ("info,hyper", "hyper")] {
        let said = run(&["inspect", "x.pcap", "--log-level", level]);
        let level = format!("'{word}' is no level");
        assert_fails(&said, 2, &["--log-level", &level, "warn"]);
    }
    for level in [
        "WARN",
        "off",
        "shadowtap=debug",
        "warn,shadowtap::app=trace",
    ] {
        let said = run(&["inspect", "fixtures/keep_alive.pcap", "--log-level", level]);
        assert_eq!(code(&said), 0, "{level}");
    }
}

#[test]
fn help_and_version_are_data() {
    for verb in ["mirror", "record", "replay", "inspect", "convert", "demo"] {
        let help = run(&[verb, "--help"]);
        assert_eq!(code(&help), 0);
        assert!(stdout(&help).contains("Examples:"), "{verb}");
    }
    let version = run(&["--version"]);
    assert_eq!(code(&version), 0);
    let expected = concat!("shadowtap ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(stdout(&version), expected);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = directory();
    let missing = directory.path().join("missing.pcap");
    assert_fails(&run(&["inspect", text(&missing)]), 1, &["missing.pcap"]);
    let empty = directory.path().join("empty.pcap");
    fs::write(&empty, "").expect("written");
    assert_fails(
        &run(&["inspect", text(&empty)]),
        1,
        &["empty.pcap", "is empty"],
    );
    let other = directory.path().join("other.pcap");
    fs::write(&other, "hello, this is no capture file at all").expect("written");
    assert_fails(
        &run(&["inspect", text(&other)]),
        1,
        &["other.pcap", "not a capture"],
    );
    assert_fails(&run(&["inspect", "-", "-"]), 1, &["'-'"]);
    let folder = text(directory.path());
    let files = format!("{folder}/*.pcap");
    assert_fails(&run(&["inspect", folder]), 1, &["folder", &files]);
}

#[test]
fn a_table_for_people_and_lines_for_programs() {
    let directory = directory();
    let file = capture(directory.path(), 3);
    let table = run(&["inspect", text(&file)]);
    assert_eq!(code(&table), 0);
    let shown = stdout(&table);
    assert!(shown.contains("/0\n"), "{shown}");
    assert!(shown.contains("Lost: nothing"), "{shown}");
    assert!(stderr(&table).is_empty(), "{}", stderr(&table));
    let controls = |c: char| c.is_control() && c != '\n';
    assert!(!shown.contains(controls), "{shown:?}");
    assert!(shown.contains("/\\x1b[31mred\\x07"), "{shown}");

    let lines = run(&["inspect", "--json", text(&file)]);
    assert_eq!(code(&lines), 0);
    assert_eq!(stdout(&lines).lines().count(), 3);
    assert!(stderr(&lines).contains("Lost: nothing"));
    let by_environment = command(&["inspect", text(&file)])
        .env("SHADOWTAP_JSON", "yes")
        .output()
        .expect("started");
    assert_eq!(by_environment.stdout, lines.stdout);

    let empty_variables = command(&["inspect", "--json", text(&file)])
        .env("SHADOWTAP_PORT", "")
        .env("SHADOWTAP_JSON", "")
        .env("SHADOWTAP_LOG_LEVEL", "")
        .output()
        .expect("started");
    assert_eq!(empty_variables.stdout, lines.stdout);
    assert_eq!(code(&empty_variables), 0);

    // As a block of YAML or a file gives them.
    let blocks = command(&["inspect", text(&file), "--sample-by", "client"])
        .env("SHADOWTAP_JSON", "true\n")
        .env("SHADOWTAP_ONLY", "method:GET\npath:/**\n")
        .env("SHADOWTAP_SAMPLE_BY", "nonsense\n")
        .env("SHADOWTAP_LOG_LEVEL", "info\n")
        .env("SHADOWTAP_EXCEPT", "\n")
        .output()
        .expect("started");
    assert_eq!(blocks.stdout, lines.stdout, "{}", stderr(&blocks));
    let wrong = command(&["inspect", text(&file)])
        .env("SHADOWTAP_SAMPLE_BY", "nonsense\n")
        .output()
        .expect("started");
    assert_eq!(code(&wrong), 2);

    let elsewhere = run(&["inspect", "--json", "--port", "81", text(&file)]);
    assert_eq!(code(&elsewhere), 0);
    assert_eq!(stdout(&elsewhere), "");
}

#[cfg(target_os = "linux")]
#[test]
fn standard_output_that_takes_nothing_is_named() {
    let fixture = in_root("fixtures/keep_alive.pcap");
    for arguments in [
        &["inspect", "--json", text(&fixture)][..],
        &["inspect", text(&fixture)],
        &["convert", text(&fixture), "--out", "-"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full");
        let output = command(arguments)
            .stdout(full.expect("it is there"))
            .output()
            .expect("started");
        assert_fails(&output, 1, &["standard output", "No space left"]);
    }
}

#[test]
fn the_readme_shows_what_is_printed() {
    let fixture = in_root("fixtures/keep_alive.pcap");
    let shown = stdout(&run(&["inspect", text(&fixture)]));
    let readme = fs::read_to_string(in_root("README.md")).expect("it is there");
    assert!(readme.contains(&shown), "not in README.md:\n{shown}");
}

#[test]
fn what_comes_before_the_damage_is_used() {
    let directory = directory();
    let file = capture(directory.path(), 3);
    let whole = fs::read(&file).expect("written above");
    fs::write(&file, &whole[..whole.len() - 7]).expect("written");
    let output = run(&["inspect", "--json", text(&file)]);
    assert_fails(&output, 1, &["traffic.pcap", "cut off"]);
    assert_eq!(stdout(&output).lines().count(), 3);
}

#[test]
fn a_replay_that_nobody_answers_has_failed() {
    let directory = directory();
    let capture = capture(directory.path(), 3);
    // A port that was free a moment ago, and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let target = format!("http://127.0.0.1:{port}");
    let output = run(&["replay", text(&capture), "--to", &target, "--speed", "max"]);
    assert_fails(
        &output,
        1,
        &["none of the 3 requests was answered", "connect_failed"],
    );
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let directory = directory();
    let file = capture(directory.path(), 2000);
    let mut child = command(&["inspect", "--json", text(&file)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ended");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn json_logs_are_json() {
    let output = run(&["inspect", "--log-format", "json", "/does/not/exist.pcap"]);
    assert_eq!(code(&output), 1);
    for line in stderr(&output).lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(line["message"].is_string(), "{line}");
    }
}

#[test]
fn files_become_other_files_and_none_is_overwritten() {
    let directory = directory();
    let file = capture(directory.path(), 3);
    let lines = stdout(&run(&["inspect", "--json", text(&file)]));
    for name in ["a.gor", "a.jsonl", "a.pcap", "a.gor.gz", "a.har"] {
        let out = directory.path().join(name);
        let convert = ["convert", text(&file), "--out", text(&out)];
        let output = run(&convert);
        assert_eq!(code(&output), 0, "{name}: {}", stderr(&output));
        assert_fails(&run(&convert), 1, &[name, "--force"]);
        let forced = run(&[&convert[..], &["--force"]].concat());
        assert_eq!(code(&forced), 0, "{}", stderr(&forced));
        let again = run(&["inspect", "--json", text(&out)]);
        assert_eq!(code(&again), 0, "{name}: {}", stderr(&again));
        assert_eq!(stdout(&again).lines().count(), 3, "{name}");
        if name != "a.har" && !name.contains("gor") {
            assert_eq!(stdout(&again), lines, "{name}");
        }
    }
    let whole = fs::read(&file).expect("written above");
    let output = piped(&["convert", "-", "--out", "-"], &whole);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 3);
}

/// A shell's `<(…)`, for example: whoever opens it twice finds the second time what the first has left.
#[test]
fn a_pipe_with_a_name_is_read_like_a_file() {
    let directory = directory();
    let file = capture(directory.path(), 3);
    let lines = stdout(&run(&["inspect", "--json", text(&file)]));
    let recording = directory.path().join("a.jsonl");
    run(&["convert", text(&file), "--out", text(&recording)]);
    for file in [&file, &recording] {
        let whole = fs::read(file).expect("written above");
        let output = piped(&["inspect", "--json", "/dev/stdin"], &whole);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(stdout(&output), lines);
    }
    let inspect = |file: &str, content: &[u8]| piped(&["inspect", file], content);
    assert_fails(
        &inspect("/dev/stdin", b"hello"),
        1,
        &["/dev/stdin", "hello"],
    );
    assert_fails(&inspect("-", b"hello"), 1, &["standard input", "hello"]);
    assert_fails(&inspect("-", b""), 1, &["standard input", "it is empty"]);
}

#[test]
fn what_is_wrong_with_a_whole_capture_is_said_once() {
    let directory = directory();
    let file = capture(directory.path(), 3);
    let whole = fs::read(&file).expect("written above");
    let changed = |at: usize, with: [u8; 4]| {
        let mut changed = whole.clone();
        changed[at..at + 4].copy_from_slice(&with);
        fs::write(&file, changed).expect("written");
        let output = run(&["inspect", text(&file)]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        stderr(&output)
    };
    let said = changed(20, 147_u32.to_le_bytes());
    assert_eq!(said.matches("link type 147 cannot be read").count(), 1);
    // The first packet was longer on the wire.
    let said = changed(36, 1514_u32.to_le_bytes());
    assert_eq!(said.matches("1 of the packets were cut short").count(), 1);
}

#[test]
fn live_capture_says_what_is_wrong_and_what_helps() {
    let mirror = |more: &[&str]| {
        let plain = ["mirror", "--port", "80", "--to", "http://127.0.0.1:1"];
        run(&[&plain[..], more].concat())
    };
    // Without the right to capture, that is the first thing wrong.
    let or_permission = |output: &Output, words: &[&str]| {
        if stderr(output).contains("no permission") {
            assert_fails(output, 1, &["CAP_NET_RAW", "setcap", "NET_RAW"]);
        } else {
            assert_fails(output, 1, words);
        }
    };
    let output = mirror(&["--interface", "nowhere0"]);
    or_permission(&output, &["--interface", "nowhere0", "there are:"]);
    let output = mirror(&["--filter", "utter nonsense"]);
    or_permission(&output, &["--filter", "utter nonsense"]);
    let output = mirror(&["--admin", "192.0.2.1:9100"]);
    assert_fails(&output, 1, &["--admin", "192.0.2.1:9100"]);
    let output = mirror(&["--port", "81", "--to", "http://127.0.0.1:81"]);
    or_permission(&output, &["--to http://127.0.0.1:81", "version 1 itself"]);
}

#[test]
fn the_demonstration_loses_nothing_and_rejects_what_is_wrong_and_what_is_slow() {
    let Some(shown) = demonstrate(&["--requests", "1000"]) else {
        return;
    };
    assert!(shown.contains("nothing lost"), "{shown}");
    assert!(shown.contains("body.total_cents (value)"), "{shown}");
    for part in [
        "200 charges for 200 orders, by its own books",
        "200 that version 1 made too, 0 missing, 200 extra, 0 changed",
        "The verdict on the cart: reject",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let verdict = verdict_in(&shown);
    assert!(
        matches!(
            verdict,
            "The verdict is reject, for GET /search and POST /orders."
                | "The verdict is reject, for POST /orders and GET /search."
        ),
        "{shown}"
    );
}

#[test]
fn the_demonstration_promotes_an_equal_version() {
    if let Some(shown) = demonstrate(&["--equal"]) {
        assert_eq!(verdict_in(&shown), "The verdict is promote.", "{shown}");
        assert!(shown.contains("0 missing, 0 extra, 0 changed"), "{shown}");
        assert!(
            shown.contains("The verdict on the cart: promote"),
            "{shown}"
        );
    }
}

fn verdict_in(shown: &str) -> &str {
    let mut lines = shown.lines();
    lines
        .find(|line| line.starts_with("The verdict is "))
        .unwrap_or_default()
}

/// What the demonstration prints; `None` where this machine does not let it capture.
fn demonstrate(flags: &[&str]) -> Option<String> {
    let output = run(&[&["demo"], flags].concat());
    if stderr(&output).contains("may not do that here") {
        cannot_run(stderr(&output));
        return None;
    }
    let shown = stdout(&output);
    assert_eq!(code(&output), 0, "{shown}{}", stderr(&output));
    Some(shown)
}
