//! `--middleware`: scripts of GoReplay's users beside the program, and programs that behave badly.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::peers::middleware_libraries;
use crate::support::run::{PROGRAM, in_root};
use crate::support::target::Target;

/// A recording of these requests, `pause` milliseconds apart, each answered by 200 and, as its body, `original`.
fn recording(folder: &TempDir, requests: &[&str], pause: u64) -> String {
    let mut text = String::new();
    for (number, request) in requests.iter().enumerate() {
        let id = format!("9c40{:04x}0a010203{number:08x}", 80);
        let time = 1_795_381_446_000_000_000 + number as u64 * pause * 1_000_000;
        let answer = time + 1_000_000;
        write!(
            text,
            "1 {id} {time} 0\n{request}\n🐵🙈🙉\n2 {id} {answer} 0\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\noriginal\n🐵🙈🙉\n"
        )
        .expect("a string");
    }
    let path = folder.path().join("traffic.gor");
    fs::write(&path, text).expect("written");
    path.to_str().expect("a plain path").to_owned()
}

/// Replays a recording through a middleware; what the program said.
fn replay(file: &str, target: &Target, middleware: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    let output = command
        .args(["replay", file, "--to", &target.url()])
        .args(["--middleware", middleware])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("bug in shadowtap"), "{said}");
    (output.status.code(), said)
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

/// An executable script; it gets the folder for its files as its argument.
fn script(folder: &TempDir, text: &str) -> String {
    let path = folder.path().join("middleware.sh");
    fs::write(&path, text).expect("written");
    format!("sh {} {}", path.display(), folder.path().display())
}

const GETS: [&str; 4] = [
    "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /drop HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\na=1&b=2",
    "GET /c HTTP/1.1\r\nHost: x\r\n\r\n",
];

const FAST: [&str; 2] = ["--speed", "max"];

fn log_of(folder: &TempDir) -> (String, String) {
    let path = folder.path().join("middleware.log");
    (
        path.to_str().expect("a plain path").to_owned(),
        fs::read_to_string(&path).unwrap_or_default(),
    )
}

#[test]
fn the_python_library_maps_tokens() {
    let Some(libraries) = middleware_libraries() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = log_of(&folder);
    let requests = [
        "GET /login HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /use?token=original HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /use?token=other HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    // Version 2 gives another token than version 1, long before it is used.
    let file = recording(&folder, &requests, 3000);
    let target =
        Target::answering(|_| "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nreplayed".to_owned());
    let script = in_root("tests/middleware/tokens.py");
    let middleware = format!(
        "env PYTHONPATH={} python3 {} {log}",
        libraries.join("python").display(),
        script.display()
    );
    let (code, said) = replay(&file, &target, &middleware, &[]);
    assert_eq!(code, Some(0), "{said}");
    let lines = target.lines();
    let expected = [
        "GET /login",
        "GET /use?token=replayed",
        "GET /use?token=other",
    ];
    assert_eq!(lines, expected, "{said}");
    for seen in target.seen() {
        assert_eq!(seen.field("x-python"), Some("yes"), "{}", seen.head);
    }
    let (_, log) = log_of(&folder);
    for kind in ["1 ", "2 ", "3 "] {
        let count = log.lines().filter(|line| line.starts_with(kind)).count();
        assert_eq!(count, 3, "{log}\n{said}");
    }
    assert!(
        said.contains("middleware             9   returned of 9 given"),
        "{said}"
    );
}

#[test]
fn the_node_library_drops_and_changes() {
    let Some(libraries) = middleware_libraries() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = log_of(&folder);
    let file = recording(&folder, &GETS, 10);
    let target = Target::new();
    let middleware = format!(
        "env NODE_PATH={} node {} {log}",
        libraries.join("node_modules").display(),
        in_root("tests/middleware/drop.js").display()
    );
    let (code, said) = replay(&file, &target, &middleware, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        target.lines(),
        ["GET /node/a", "POST /node/b", "GET /node/c"],
        "{said}"
    );
    assert_eq!(target.seen()[1].body, b"changed by node", "{said}");
    assert!(dropped(&said, "middleware_filtered") >= 1, "{said}");
    let (_, log) = log_of(&folder);
    assert_eq!(
        log.lines().filter(|it| it.starts_with("1 ")).count(),
        4,
        "{log}"
    );
    assert_eq!(
        log.lines().filter(|it| it.starts_with("3 ")).count(),
        3,
        "{log}"
    );
}

#[test]
fn what_is_echoed_is_sent_to_the_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = format!(
        "POST /long HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n{}",
        "x".repeat(300_000)
    );
    let requests = [GETS[0], GETS[1], GETS[2], &long];
    let file = recording(&folder, &requests, 0);
    let (plain, echoed) = (Target::new(), Target::new());
    let (code, said) = replay(&file, &plain, "cat", &FAST);
    assert_eq!(code, Some(0), "{said}");
    let output = Command::new(PROGRAM)
        .args(["replay", &file, "--to", &echoed.url(), "--speed", "max"])
        .output()
        .expect("started");
    assert!(output.status.success());
    // Each came on a connection of its own, so they may arrive in any order.
    let all = |target: &Target| -> Vec<_> {
        let seen = target.seen().into_iter();
        let mut all: Vec<_> = seen
            .map(|it| (it.head.replace(&target.address.to_string(), ""), it.body))
            .collect();
        all.sort();
        all
    };
    assert!(all(&plain) == all(&echoed), "the bytes differ");
    assert_eq!(all(&plain).len(), 4);
    // Nothing is left in it: 4 requests, their answers, and the target's.
    assert!(
        said.contains("middleware            12   returned of 12 given; started 1 times"),
        "{said}"
    );
}

#[test]
fn one_that_dies_is_started_again_and_what_was_in_it_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let requests: Vec<String> = (0..40)
        .map(|number| format!("GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n"))
        .collect();
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    let file = recording(&folder, &requests, 20);
    let target = Target::new();
    // Returns five lines, takes one more with it, and ends.
    let middleware = script(&folder, "head -n 5; read line; exit 3\n");
    let (code, said) = replay(&file, &target, &middleware, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("ended (exit status: 3)") || said.contains("starting it again"),
        "{said}"
    );
    let sent = target.seen().len();
    assert!(sent > 0 && sent < 40, "{sent}: {said}");
    assert!(dropped(&said, "middleware_died") > 0, "{said}");
}

#[test]
fn nonsense_is_counted_and_not_sent_and_what_it_makes_itself_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = recording(&folder, &GETS, 0);
    let target = Target::new();
    // For each line: itself, garbage, and itself without its last byte; of what is no request nobody cares.
    let middleware = script(
        &folder,
        "while read -r line; do echo \"$line\"; case $line in 31*) echo nonsense; echo \"${line%??}\";; esac; done\n",
    );
    let (code, said) = replay(&file, &target, &middleware, &FAST);
    assert_eq!(code, Some(0), "{said}");
    let lines = target.lines();
    assert_eq!(
        lines,
        ["GET /a", "GET /drop", "POST /b", "GET /c"],
        "{said}"
    );
    assert_eq!(dropped(&said, "middleware_malformed"), 8, "{said}");
    let twice = Target::new();
    let middleware = script(
        &folder,
        "while read -r line; do echo \"$line\"; echo \"$line\"; done\n",
    );
    let (code, said) = replay(&file, &twice, &middleware, &FAST);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(twice.lines().len(), 8, "{said}");
}

#[test]
fn filters_come_behind_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = recording(&folder, &GETS, 0);
    let target = Target::new();
    let more = [
        &FAST[..],
        &["--only", "method:GET", "--except", "path:/drop"],
    ]
    .concat();
    let (code, said) = replay(&file, &target, "cat", &more);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(target.lines(), ["GET /a", "GET /c"]);
    assert_eq!(dropped(&said, "filtered"), 2, "{said}");
    assert_eq!(dropped(&said, "middleware_filtered"), 0, "{said}");
}

#[test]
fn one_that_cannot_be_started_is_said_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = recording(&folder, &GETS, 0);
    let target = Target::new();
    let (code, said) = replay(&file, &target, "/no/such/program --flag", &FAST);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("--middleware: '/no/such/program --flag'"),
        "{said}"
    );
    let (code, said) = replay(&file, &target, " ", &FAST);
    assert_eq!(code, Some(2), "{said}");
    // One that always ends at once is given up: a file does not wait for ever.
    let (code, said) = replay(&file, &target, "false", &FAST);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--middleware: "), "{said}");
    assert!(target.seen().is_empty());
    assert!(Path::new(&file).exists());
}
