//! Filters, samples and limits through the program, against a server that keeps what it gets.

// The same filters where nothing is sent.
mod choose;
// Which part of a recording is played, how often and for how long.
mod play;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::run::PROGRAM;

/// The first lines of all requests so far.
type Seen = Arc<Mutex<Vec<String>>>;

/// A server that keeps each request up to its empty line, and answers.
fn server() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let seen = Seen::default();
    let all = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (all, mut stream) = (Arc::clone(&all), stream.expect("a stream"));
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().expect("a second handle"));
                let mut head = String::new();
                while lines.read_line(&mut head).is_ok_and(|read| read > 0) {
                    if head.ends_with("\r\n\r\n") {
                        all.lock()
                            .expect("no panic")
                            .push(std::mem::take(&mut head));
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (address, seen)
}

/// A recording of GET /0, GET /1 …, the answer to each tenth a 503; each on a connection of its own.
fn recording(directory: &tempfile::TempDir) -> PathBuf {
    const COUNT: usize = 200;
    let mut lines = String::new();
    for number in 0..COUNT {
        let status = if number % 10 == 0 { 503 } else { 200 };
        let port = 1000 + number;
        let head = format!(
            "{{\"client\":\"10.0.0.{}:{port}\",\"server\":\"10.0.1.1:80\",\"method\":\"GET\",\"target\":\"/{number}\",\
             \"version\":\"HTTP/1.1\",\"request_headers\":[[\"Host\",\"a\"],[\"traceparent\",\"{TRACE}\"]],\
             \"request_body_len\":0,\"request_complete\":true,\"status\":{status},",
            number % 4,
        );
        lines.push_str(&head);
        lines.push_str(
            "\"response_headers\":[[\"Content-Length\",\"0\"]],\"response_body_len\":0,\"response_complete\":true}\n",
        );
    }
    let path = directory.path().join("traffic.jsonl");
    fs::write(&path, lines).expect("written");
    path
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The connections come all at once: on a busy machine the kernel's queue for them overflows, and they ask again.
const PATIENT: [&str; 6] = [
    "--connect-timeout",
    "60s",
    "--first-byte-timeout",
    "60s",
    "--max-connections",
    "16",
];

/// The numbers of the requests that arrived, in order.
fn numbers(heads: &[String]) -> Vec<usize> {
    let number = |head: &String| {
        let target = head.split_whitespace().nth(1)?;
        target.strip_prefix('/')?.parse().ok()
    };
    let mut numbers: Vec<usize> = heads.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

struct Replayed {
    heads: Vec<String>,
    account: String,
}

impl Replayed {
    /// The numbers of the requests that arrived, in order.
    fn numbers(&self) -> Vec<usize> {
        numbers(&self.heads)
    }

    /// How many the account says were skipped for `reason`.
    fn skipped(&self, reason: &str) -> usize {
        let line = self
            .account
            .lines()
            .find(|line| line.contains(&format!("  {reason}: ")));
        line.map_or(0, |line| {
            let count = line.split_whitespace().nth(1).expect("a number");
            count.replace(',', "").parse().expect("a number")
        })
    }
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHADOWTAP_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("started")
}

/// Replays the recording as fast as it goes.
fn replay(more: &[&str]) -> Replayed {
    let directory = tempfile::tempdir().expect("a directory");
    let file = recording(&directory);
    let (address, seen) = server();
    let target = format!("http://{address}");
    let plain = ["replay", file.to_str().expect("text"), "--to", &target];
    let plain = [&plain[..], &PATIENT].concat();
    let output = run(&[&plain[..], more].concat());
    let account = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{account}");
    assert!(!account.contains("bug in shadowtap"), "{account}");
    let heads = seen.lock().expect("no panic").clone();
    Replayed { heads, account }
}

const FAST: [&str; 2] = ["--speed", "max"];

#[test]
fn filters_choose_and_are_counted() {
    let all: Vec<usize> = (0..200).collect();
    let with = |more: &[&str]| replay(&[&FAST[..], more].concat());
    assert_eq!(with(&[]).numbers(), all);

    let some = with(&["--only", "path:/1?,/2?", "--except", "path~[05]$"]);
    let expected: Vec<usize> = (10..30).filter(|number| number % 5 != 0).collect();
    assert_eq!(some.numbers(), expected, "{}", some.account);
    assert_eq!(some.skipped("filtered"), 200 - expected.len());

    let some = with(&["--only", "status:5xx", "--only", "client:10.0.0.0/31"]);
    let expected: Vec<usize> = (0..200).step_by(20).collect();
    assert_eq!(some.numbers(), expected, "{}", some.account);

    let none = with(&["--only", "method:POST", "--safe-only"]);
    assert_eq!(none.numbers(), [] as [usize; 0]);
    assert_eq!(none.skipped("filtered"), 200);
}

#[test]
fn a_sample_is_the_same_every_time() {
    let with = |percent: &str, by: &str| {
        replay(&["--speed", "max", "--percent", percent, "--sample-by", by])
    };
    let first = with("30", "connection");
    let count = first.numbers().len();
    assert!((30..90).contains(&count), "{count}");
    assert_eq!(first.skipped("sampled_out"), 200 - count);
    assert_eq!(first.numbers(), with("30%", "connection").numbers());
    let clients = with("50", "client").numbers();
    assert_eq!(clients.len() % 50, 0, "clients stay whole: {clients:?}");
}

#[test]
fn a_limit_holds_and_says_so() {
    let replayed = replay(&["--speed", "max", "--limit", "10/h"]);
    assert_eq!(replayed.numbers(), [0]);
    assert_eq!(replayed.skipped("rate_limited"), 199);
}

#[test]
fn a_rate_sends_everything() {
    assert_eq!(replay(&["--rate", "5000/s"]).numbers().len(), 200);
}

/// Replays the recording to two targets, with what is behind the address of each; what each got.
fn replay_to_two(options: [&str; 2], more: &[&str]) -> [Vec<usize>; 2] {
    let directory = tempfile::tempdir().expect("a directory");
    let file = recording(&directory);
    let servers = [server(), server()];
    let targets = [0, 1].map(|n| format!("http://{}{}", servers[n].0, options[n]));
    let mut flags = vec!["replay", file.to_str().expect("text"), "--speed", "max"];
    flags.extend(["--to", &targets[0], "--to", &targets[1]]);
    flags.extend(PATIENT);
    let output = run(&[&flags[..], more].concat());
    let account = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{account}");
    assert!(!account.contains("bug in shadowtap"), "{account}");
    servers.map(|(_, seen)| numbers(&seen.lock().expect("no panic")))
}

#[test]
fn each_of_several_targets_gets_everything_unless_told_otherwise() {
    let all: Vec<usize> = (0..200).collect();
    let both = replay_to_two(["", ""], &[]);
    assert_eq!(both, [all.clone(), all.clone()]);

    let [whole, part] = replay_to_two(
        [
            " percent=100",
            " only=path:/1?,/2? except=path~[05]$ except=status:5xx",
        ],
        &["--percent", "30", "--except", "path:/7,/11"],
    );
    let expected: Vec<usize> = (0..200).filter(|&n| n != 7 && n != 11).collect();
    assert_eq!(whole, expected);
    let may = |n: &usize| (10..30).contains(n) && !n.is_multiple_of(5) && *n != 11;
    assert!(
        !part.is_empty() && part.len() < 15 && part.iter().all(may),
        "{part:?}"
    );

    let [whole, limited] = replay_to_two(["", " limit=10/h"], &[]);
    assert_eq!((whole, limited), (all, vec![0]));
}

#[test]
fn targets_may_share_the_requests_out() {
    let [one, two] = replay_to_two(["", ""], &["--split"]);
    assert!(one.len() > 60 && two.len() > 60, "{one:?} {two:?}");
    let mut all = [&one[..], &two].concat();
    all.sort_unstable();
    assert_eq!(all, (0..200).collect::<Vec<_>>());
    assert_eq!(
        [one, two],
        replay_to_two(["", ""], &["--split"]),
        "the same every time"
    );
    let clients = replay_to_two(["", ""], &["--split", "--sample-by", "client"]);
    assert!(
        clients.iter().all(|numbers| numbers.len() % 50 == 0),
        "{clients:?}"
    );
}

#[test]
fn traces_are_kept_dropped_or_continued() {
    let with = |policy: &str| replay(&["--speed", "max", "--trace", policy, "--only", "path:/7"]);
    assert!(with("keep").heads[0].contains(TRACE));
    assert!(!with("drop").heads[0].contains("traceparent"));
    let child = with("child").heads.remove(0);
    assert!(
        child.contains(&TRACE[..36]) && !child.contains(TRACE),
        "{child}"
    );
}

#[test]
fn wrong_rules_are_wrong_usage_and_shown() {
    let replay =
        |more: [&str; 2]| run(&[&["replay", "x", "--to", "http://v2"][..], &more].concat());
    for (flags, words) in [
        (
            ["--only", "verb:GET"],
            &["verb:GET", "'verb' is unknown"][..],
        ),
        (
            ["--except", "path~("],
            &["path~(", "not a regular expression"],
        ),
        (["--only", "path:admin"], &["path:admin", "'/'"]),
        (["--percent", "101"], &["101", "0 to 100"]),
        (["--sample-by", "ip"], &["ip", "header:NAME"]),
        (["--limit", "fast"], &["fast", "200/s"]),
        (["--rate", "0/s"], &["0/s", "above 0"]),
        (["--trace", "new"], &["new", "child"]),
        (["--to", "http://v2"], &["http://v2 is there twice"]),
        (["--to", "http://a percnt=5"], &["percnt=5", "percent=P"]),
    ] {
        let output = replay(flags);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        for word in words.iter().chain(&[flags[0]]) {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
    let live = run(&[
        "mirror",
        "--port",
        "80",
        "--to",
        "http://v2",
        "--except",
        "status:5xx",
    ]);
    let said = String::from_utf8_lossy(&live.stderr);
    assert_eq!(live.status.code(), Some(2), "{said}");
    assert!(
        said.contains("status:5xx") && said.contains("before version 1 has answered"),
        "{said}"
    );
    let both = run(&[
        "replay",
        "x",
        "--to",
        "http://v2",
        "--rate",
        "5",
        "--speed",
        "2",
    ]);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn what_is_sent_is_changed_as_asked() {
    let replayed = replay(&[
        "--speed",
        "max",
        "--only",
        "path:/7",
        "--rewrite-path",
        "^/(\\d)$=>/n/$1",
        "--set-query",
        "a=1",
        "--rewrite-host",
        "^a$=>b",
        "--remove-header",
        "traceparent",
        "--add-header",
        "X-Added: yes",
        "--marker",
        "none",
    ]);
    let expected = "GET /n/7?a=1 HTTP/1.1\r\nHost: b\r\nX-Added: yes\r\n\r\n";
    assert_eq!(replayed.heads, [expected]);
    let wrong = |flags: [&str; 2], word: &str| {
        let output = run(&[&["replay", "x", "--to", "http://v2"][..], &flags].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(word), "no {word:?} in: {said}");
    };
    wrong(["--remove-header", "Shadowtap"], "--marker");
    wrong(["--set-header", "Content-Length: 5"], "where the body ends");
    wrong(["--rewrite-path", "/a=>/$1"], "no group '1'");
    wrong(["--rewrite-body", "a=>$1"], "no group '1'");
    wrong(["--set-body-json", "/a=b"], "/a=\"text\"");
    wrong(["--basic-auth", "nobody"], "USER:PASSWORD");
    wrong(["--basic-auth-file", "/nowhere"], "/nowhere");
}

#[test]
fn bodies_are_changed_and_framed_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("traffic.gor");
    let mut recording = String::new();
    for (number, message) in [
        "POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"id\":\"abc\"}",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nse\r\n4\r\ncret\r\n0\r\nX-T: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\nsecret",
        "GET /untouched HTTP/1.1\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        recording.push_str(&format!("1 {number:024} {number}\n{message}\n🐵🙈🙉\n"));
    }
    fs::write(&file, recording).expect("written");
    let password = directory.path().join("password");
    fs::write(&password, "me:too\nsecond line\n").expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = format!("http://{}", listener.local_addr().expect("an address"));
    let got = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&got);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, all) = (stream.expect("a stream"), Arc::clone(&all));
            thread::spawn(move || {
                let mut bytes = Vec::new();
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let mut some = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut some) {
                    bytes.extend_from_slice(&some[..read]);
                    let text = String::from_utf8_lossy(&bytes);
                    let ends = ["\"b\"}", "X-T: 1\r\n\r\n", "marker: 1\r\n\r\n"];
                    if ends.iter().any(|end| text.ends_with(end)) {
                        all.lock().expect("no panic").push(text.into_owned());
                        let _ = stream.write_all(answer);
                        return;
                    }
                }
            });
        }
    });
    let output = run(&[
        "replay",
        file.to_str().expect("text"),
        "--to",
        &target,
        "--speed",
        "max",
        "--marker",
        "none",
        "--rewrite-body",
        "secre(t)=>$1",
        "--set-body-json",
        "/id=\"b\"",
        "--basic-auth-file",
        password.to_str().expect("text"),
        "--add-header",
        "marker: 1",
    ]);
    let account = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{account}");
    assert!(account.contains(" 1   body_not_rewritable: "), "{account}");
    let mut got = got.lock().expect("no panic").clone();
    got.sort_unstable();
    const AUTH: &str = "Authorization: Basic bWU6dG9v\r\nmarker: 1\r\n\r\n";
    assert_eq!(
        got,
        [
            format!("GET /untouched HTTP/1.1\r\n{AUTH}"),
            format!(
                "POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 10\r\n{AUTH}{{\"id\":\"b\"}}"
            ),
            format!(
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{AUTH}1\r\nt\r\n0\r\nX-T: 1\r\n\r\n"
            ),
        ]
    );
}
