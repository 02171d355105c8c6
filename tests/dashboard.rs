//! What the admin server says of both versions while the program runs: the verdict for programs, and the dashboard in a
//! browser. A recording is replayed to a version 2 with a wrong field; its last request is an hour away, so that the program
//! goes on.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use shadowtap::cli::Config;

use crate::support::peers::browse;
use crate::support::run::{PROGRAM, in_root};

/// Version 1's answers: 400 orders and 400 looks at the list, all in the first second, and one an hour later.
fn recording() -> String {
    let mut entries = Vec::new();
    // Version 1 takes a second, so that version 2 is faster on any machine.
    let mut put = |id: usize, begin: u64, request: &str, answer: &str| {
        let end = begin + 1_000_000_000;
        entries.push((begin, format!("1 {id:024x} {begin} 0\n{request}\n🐵🙈🙉\n")));
        entries.push((
            end,
            format!("2 {id:024x} {end} 1000000000\n{answer}\n🐵🙈🙉\n"),
        ));
    };
    let order = order();
    for index in 0..800 {
        let begin = 1_700_000_000_000_000_000 + index as u64 * 1_000_000;
        if index % 2 == 0 {
            put(index, begin, &order, &sum(4260));
        } else {
            put(index, begin, &get("/items"), ITEMS);
        }
    }
    put(800, 1_700_003_600_000_000_000, &get("/later"), ITEMS);
    entries.sort_by_key(|(time, _)| *time);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n")
}

fn order() -> String {
    let body = r#"{"item":"mug","quantity":4}"#;
    format!(
        "POST /orders HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer hunter2\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn sum(total: u32) -> String {
    let body = format!(r#"{{"item":"<img src=x onerror=alert(1)>","total_cents":{total}}}"#);
    format!(
        "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const ITEMS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]";

/// Version 2, which adds orders up to `total`.
fn version_2(total: u32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("accepted");
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
                let (mut is_order, mut length) = (false, 0);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                    is_order |= line.starts_with("POST ");
                    if let Some(value) = line.strip_prefix("Content-Length: ") {
                        length = value.trim().parse().expect("a number");
                    }
                    let is_end = line.trim().is_empty();
                    line.clear();
                    if !is_end {
                        continue;
                    }
                    let mut body = vec![0; std::mem::take(&mut length)];
                    reader.read_exact(&mut body).expect("a body");
                    let is_order = std::mem::take(&mut is_order);
                    let answer = if is_order {
                        sum(total)
                    } else {
                        ITEMS.to_owned()
                    };
                    if (&stream).write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A replay that goes on until it is dropped.
struct Running {
    child: Child,
    admin: SocketAddr,
    token: Option<&'static str>,
    log: Option<JoinHandle<String>>,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start(total: u32, flags: &[&str]) -> Self {
        Self::start_behind(total, None, flags)
    }

    /// With an admin server that wants `token`.
    fn start_behind(total: u32, token: Option<&'static str>, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("orders.gor");
        fs::write(&file, recording()).expect("written");
        let to = format!("http://{}", version_2(total));
        let mut command = Command::new(PROGRAM);
        if let Some(token) = token {
            let file = directory.path().join("token");
            fs::write(&file, token).expect("written");
            command.env("SHADOWTAP_ADMIN_TOKEN_FILE", file);
        }
        let mut child = command
            .args(["replay", "--compare", "--admin", "127.0.0.1:0", "--to", &to])
            .args(flags)
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        let admin = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).expect("read"), 0, "ended: {said}");
            if let Some((_, address)) = line.split_once("address=") {
                break address.trim().parse().expect("an address");
            }
            said += &line;
        };
        let log = thread::spawn(move || {
            log.read_to_string(&mut said).expect("text");
            said
        });
        Self {
            child,
            admin,
            token,
            log: Some(log),
            _directory: directory,
        }
    }

    /// Stops it; everything that it said.
    fn end(mut self) -> String {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill is there").success());
        self.child.wait().expect("ended");
        let log = self.log.take().expect("ended once");
        log.join().expect("read")
    }

    /// Status and body.
    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).expect("it listens");
        let token = self
            .token
            .map(|token| format!("Authorization: Bearer {token}\r\n"));
        let token = token.unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        let status = answer[9..12].parse().expect("a status");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        (status, body.to_owned())
    }

    /// What `/verdict` says, which is 200 at all times.
    fn verdict(&self) -> Value {
        let (status, body) = self.ask("GET", "/verdict");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Waits until all but the last request were judged.
    fn wait(&self) -> Value {
        loop {
            let verdict = self.verdict();
            if verdict["data"]["requests"] == 800 {
                return verdict;
            }
            thread::yield_now();
        }
    }

    /// Exit code and output of `shadowtap verdict`.
    fn judge(&self, more: &[&str]) -> (Option<i32>, String) {
        let url = format!("http://{}", self.admin);
        let output = Command::new(PROGRAM)
            .args(["verdict", &url])
            .args(more)
            .output()
            .expect("run");
        let text = String::from_utf8(output.stdout).expect("text");
        (output.status.code(), text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is in the template for Argo, by its key.
fn argo(key: &str) -> String {
    let template = fs::read_to_string(in_root("k8s/argo-analysis.yaml")).expect("it is there");
    let value = template.lines().find_map(|line| {
        let (name, value) = line.trim().split_once(": ")?;
        (name == key).then(|| value.trim_matches('"').to_owned())
    });
    value.unwrap_or_else(|| panic!("no {key} in the template"))
}

/// Evaluates `result.ok && result.FIELD == 'TEXT'`, which is all that the template uses.
fn holds(condition: &str, result: &Value) -> bool {
    condition
        .split(" && ")
        .all(|part| match part.split_once(" == ") {
            Some((path, text)) => {
                let field = path.strip_prefix("result.").expect("of the result");
                result[field].as_str().expect("text") == text.trim_matches('\'')
            }
            None => result[part.strip_prefix("result.").expect("of the result")]
                .as_bool()
                .expect("a truth"),
        })
}

#[test]
fn a_wrong_version_is_rejected_in_every_form_of_the_verdict() {
    let running = Running::start(3980, &[]);
    let verdict = running.wait();
    let path = argo("jsonPath");
    let key = path.strip_prefix("{$.").and_then(|it| it.strip_suffix('}'));
    let result = &verdict[key.expect("a JSONPath of one step")];
    assert!(holds(&argo("failureCondition"), result), "{verdict}");
    assert!(!holds(&argo("successCondition"), result), "{verdict}");
    assert_eq!(result["completeness"], 1.0);
    let reason = result["reasons"][0].as_str().expect("a reason");
    assert!(
        reason.starts_with("POST /orders: body.total_cents (value) differs in 400 of 400"),
        "{reason}"
    );
    let flagger = fs::read_to_string(in_root("k8s/flagger-canary.yaml")).expect("it is there");
    for (path, status) in [
        ("/flagger/confirm-promotion", 409),
        ("/flagger/rollback", 200),
    ] {
        assert!(flagger.contains(path), "{path}");
        let answer = running.ask("POST", path);
        assert_eq!(answer.0, status, "{answer:?}");
        assert!(answer.1.starts_with("reject: POST /orders"), "{answer:?}");
    }
    let (code, text) = running.judge(&[]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.starts_with("The verdict: reject\n"), "{text}");
    assert!(text.contains("POST /orders  worse"), "{text}");
    let (code, text) = running.judge(&["--json"]);
    assert_eq!(code, Some(3));
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["data"]["verdict"], "reject");
    assert_eq!(json["sidecars"][0]["requests"], 800);
}

#[test]
fn an_equal_version_is_promoted_once_enough_is_known() {
    let running = Running::start(4260, &[]);
    let verdict = running.wait();
    let result = &verdict["data"];
    assert_eq!(result["verdict"], "continue", "{verdict}");
    assert!(!holds(&argo("failureCondition"), result));
    assert!(!holds(&argo("successCondition"), result));
    assert!(result["needs"].as_u64().expect("a number") > 0, "{verdict}");
    let (code, text) = running.judge(&[]);
    assert_eq!(code, Some(4), "{text}");
    // The same counts, held against less.
    let (code, text) = running.judge(&["--max-errors", "1%", "--max-slow", "20%"]);
    assert_eq!(code, Some(0), "{text}");
    // Nobody listens at the second address: that is not all of the traffic.
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = format!("http://{}", free.local_addr().expect("bound"));
    drop(free);
    let lax = ["--max-errors", "1%", "--max-slow", "20%", &nobody];
    let (code, text) = running.judge(&lax);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("1 of 2 sidecars are not in this"), "{text}");
}

#[test]
fn the_dashboard_shows_the_regression_in_a_browser() {
    let running = Running::start(3980, &[]);
    browse("look.mjs", running.admin, None);
}

/// The browser asks for the password, and has it for the events as well.
#[test]
fn the_dashboard_behind_a_token_opens_with_the_token_as_password() {
    let token = "correct-horse-battery-staple";
    let running = Running::start_behind(3980, Some(token), &[]);
    browse("look.mjs", running.admin, Some(token));
}

#[test]
fn credentials_are_not_shown_to_whoever_comes_by() {
    let folder = tempfile::tempdir().expect("a directory");
    let token = folder.path().join("token");
    fs::write(&token, "correct-horse").expect("written");
    let token = token.to_str().expect("a plain path");
    for (flags, refused) in [
        (&["--compare"][..], Some("--admin")),
        (&["--admin", "127.0.0.1:0"], Some("nothing is compared")),
        (
            &["--compare", "--admin", "0.0.0.0:0"],
            Some("--admin-token-file"),
        ),
        (
            &["--compare", "--admin", "[::]:0"],
            Some("--admin-token-file"),
        ),
        (
            &[
                "--compare",
                "--admin",
                "0.0.0.0:0",
                "--admin-token-file",
                token,
            ],
            None,
        ),
        (&["--compare", "--admin", "[::1]:0"], None),
    ] {
        let line = [
            "shadowtap",
            "replay",
            "a.gor",
            "--to",
            "http://v2",
            "--reveal",
        ];
        let parsed = Config::parse(line.iter().chain(flags));
        match refused {
            None => assert!(parsed.is_ok(), "{flags:?}: {parsed:?}"),
            Some(word) => {
                let said = parsed.expect_err("refused").to_string();
                assert!(said.contains("--reveal") && said.contains(word), "{said}");
            }
        }
    }
}

#[test]
fn credentials_are_shown_to_whoever_asked_for_that_alone() {
    let examples = "/api/examples?endpoint=POST+%2Forders&field=body.total_cents&kind=value";
    let pages = ["/", "/app.js", "/metrics", "/verdict", "/api/tally"];
    let named = ["--reveal", "--redact", "header.authorization"];
    for (flags, reveals) in [(&[][..], false), (&["--reveal"], true), (&named, false)] {
        let running = Running::start(3980, flags);
        running.wait();
        let (_, shown) = running.ask("GET", examples);
        assert!(shown.contains("total_cents"), "{shown}");
        assert_eq!(
            shown.contains("Bearer hunter2"),
            reveals,
            "{flags:?}: {shown}"
        );
        assert_eq!(shown.contains("redacted-"), !reveals, "{flags:?}: {shown}");
        for page in pages {
            let (_, text) = running.ask("GET", page);
            assert!(!text.contains("hunter2"), "{flags:?}: {page}: {text}");
        }
        let said = running.end();
        let warns = said.contains("WARN --reveal: ");
        assert_eq!(warns, !flags.is_empty(), "{flags:?}: {said}");
        assert!(!said.contains("hunter2"), "{flags:?}: {said}");
    }
}
