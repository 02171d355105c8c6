//! What was captured is text to everything that shows it or sends it on: it cannot begin another request, another line of the
//! log, another label of a metric or another element of a page.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::support::peers::browse;
use crate::support::run::PROGRAM;

/// What should not come out anywhere as it is: a terminal's commands, a tag, the end of a label, of a string, of an event.
const EVIL: &str =
    "<img/src=x/onerror=alert(1)>\"},'`\\\x1b[2J\x1b]0;owned\x07\u{85}\u{2028}\u{202e}";

/// So many requests with that in every place where bytes of the client's or of a server's own choice can be.
///
/// What is good grammar is in some of them too: a page and a shell have other rules.
fn exchanges() -> Vec<(String, String)> {
    let get =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: shop\r\n{fields}\r\n");
    let answer = |fields: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 200 {EVIL}\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
    };
    let second = "\\r\\n\\r\\nGET /second HTTP/1.1\\r\\nHost: b\\r\\n\\r\\n";
    let json = serde_json::json!({ "name": EVIL, EVIL: second }).to_string();
    let form = format!(
        "POST /form HTTP/1.1\r\nHost: shop\r\nContent-Type: {EVIL}\r\nContent-Length: {}\r\n\r\n{json}",
        json.len()
    );
    vec![
        (get(&format!("/{EVIL}"), ""), answer("", "ok")),
        (get(&format!("/a?{EVIL}={EVIL}"), ""), answer("", "ok")),
        (get("/b", &format!("X-Evil: {EVIL}\r\n")), answer("", &json)),
        (get("/c", &format!("{EVIL}: 1\r\n")), answer("", "ok")),
        (
            get("/d%0d%0aGET%20/second%20HTTP/1.1", ""),
            answer("", "ok"),
        ),
        (
            get("/e", "X-A: 1\rGET /second HTTP/1.1\r\n"),
            answer("", "ok"),
        ),
        (
            get("/f", "X-A: 1\r\n GET /second HTTP/1.1\r\n"),
            answer("", "ok"),
        ),
        (form, answer(&format!("X-Evil: {EVIL}\r\n"), &json)),
        (
            get(&format!("/{SHELL}"), &format!("X-Shell: {SHELL}\r\n")),
            answer("", "{}"),
        ),
        (
            format!(
                "POST /paste HTTP/1.1\r\nHost: shop\r\nX-Paste: a\tb\r\nContent-Length: {}\r\n\r\n{PASTE}",
                PASTE.len()
            ),
            answer(
                "",
                &format!("{{\"{}\": 1}}", "</script><script>alert(1)</script>"),
            ),
        ),
        (
            get(&format!("/{}", "long/".repeat(1500)), ""),
            answer("", &format!("{{\"{}\": 1}}", "k".repeat(9000))),
        ),
    ]
}

/// A target that a parser takes, and a shell would run.
const SHELL: &str =
    "'$(touch${IFS}injected)'`touch${IFS}injected`';touch${IFS}injected;'\"|touch\\tinjected&!!";

/// What a terminal takes for Ctrl-C, and for the end of what is pasted.
const PASTE: &str = "{\"a\": \"\x03\x1b[201~\ntouch injected\n';touch injected;'\"}\0";

fn recording() -> String {
    let mut text = String::new();
    let mut put = |id: usize, at: u64, request: &str, answer: &str| {
        text += &format!("1 {id:024x} {at} 0\n{request}\n🐵🙈🙉\n");
        text += &format!("2 {id:024x} {} 1000\n{answer}\n🐵🙈🙉\n", at + 1000);
    };
    let start = 1_700_000_000_000_000_000;
    for (index, (request, answer)) in exchanges().iter().enumerate() {
        put(index, start + index as u64 * 1_000_000, request, answer);
    }
    // So that the program goes on.
    let (request, answer) = &exchanges()[4];
    put(99, start + 3_600_000_000_000, request, answer);
    text
}

/// A target that notes the bytes of each connection, and answers each request with what should not come out.
fn target(status: u16) -> (SocketAddr, crossbeam_channel::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (noted, notes) = crossbeam_channel::unbounded();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, noted) = (stream.expect("accepted"), noted.clone());
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
                loop {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        if reader.read_until(b'\n', &mut head).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let text = String::from_utf8_lossy(&head).into_owned();
                    let length = text
                        .lines()
                        .find_map(|line| line.strip_prefix("Content-Length: "));
                    let mut body = vec![0; length.map_or(0, |it| it.parse().expect("a number"))];
                    reader.read_exact(&mut body).expect("a body");
                    head.extend(body);
                    let _ = noted.send(head);
                    let body = format!("{{\"other\": \"<b>{}\"}}", "x".repeat(9));
                    let answer = format!(
                        "HTTP/1.1 {status} {EVIL}\r\nX-Evil: {EVIL}\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if (&stream).write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, notes)
}

fn get(admin: SocketAddr, page: &str) -> (String, String) {
    let mut stream = TcpStream::connect(admin).expect("it listens");
    let request = format!("GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// Runs a replay of all of it with log lines of this format until everything was compared; what it logged, what the target
/// got, and the report for JUnit.
fn run(format: &str, look: impl FnOnce(SocketAddr)) -> (String, Vec<Vec<u8>>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("evil.gor");
    fs::write(&file, recording()).expect("written");
    let junit = directory.path().join("junit.xml");
    let (address, notes) = target(500);
    let mut command = Command::new(PROGRAM);
    command
        .args(["replay", "--compare", "--log-format", format])
        .args(["--replay-ambiguous", "--to", &format!("http://{address}")])
        .arg("--junit")
        .arg(&junit)
        .arg(&file);
    let said = until_settled(command, || (), look);
    let junit = fs::read_to_string(junit).expect("written at the end");
    (said, notes.try_iter().collect(), junit)
}

/// Runs that with an admin server until every request is either judged or left for a reason, which takes `again` and again.
/// What it logged.
fn until_settled(
    mut command: Command,
    mut again: impl FnMut(),
    look: impl FnOnce(SocketAddr),
) -> String {
    let mut child = command
        .args(["--log-level", "debug", "--admin", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    let admin: SocketAddr = loop {
        let begun = said.len();
        assert_ne!(log.read_line(&mut said).expect("read"), 0, "ended: {said}");
        let line = &said[begun..];
        if let Some((_, rest)) = line.split_once("127.0.0.1:") {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            break format!("127.0.0.1:{port}").parse().expect("an address");
        }
    };
    let reader = thread::spawn(move || {
        log.read_to_string(&mut said).expect("text");
        said
    });
    loop {
        again();
        let verdict: Value = serde_json::from_str(&get(admin, "/verdict").1).expect("JSON");
        let settled = |data: &Value| {
            let lost = data["lost"].as_object().expect("reasons");
            let lost: u64 = lost.values().filter_map(Value::as_u64).sum();
            data["requests"].as_u64().unwrap_or(0) + lost
        };
        if settled(&verdict["data"]) >= exchanges().len() as u64 {
            break;
        }
        thread::yield_now();
    }
    look(admin);
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.expect("kill is there").success());
    child.wait().expect("ended");
    reader.join().expect("read")
}

/// Holds what a person reads in a terminal to lines of printable characters.
fn is_plain_text(said: &str) {
    for line in said.lines() {
        let control = line.chars().find(|it| it.is_control() && *it != '\t');
        assert_eq!(control, None, "{line:?}");
        assert!(!line.contains(['\u{2028}', '\u{202e}']), "{line:?}");
        assert!(!line.starts_with('<'), "{line:?}");
    }
}

#[test]
fn nothing_captured_becomes_more_than_text() {
    let (said, seen, junit) = run("text", |admin| {
        let metrics = get(admin, "/metrics").1;
        for line in metrics.lines() {
            let is_plain = line.starts_with("# ") || line.starts_with("shadowtap_");
            assert!(is_plain, "{line:?}");
        }
        assert!(!metrics.contains("img"), "{metrics}");
        for page in ["/verdict", "/api/tally"] {
            let (head, body) = get(admin, page);
            assert!(head.contains("application/json"), "{head}");
            let _: Value = serde_json::from_str(&body).expect("JSON");
        }
        let mut stream = TcpStream::connect(admin).expect("it listens");
        stream
            .write_all(b"GET /api/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
            .expect("sent");
        let lines = BufReader::new(stream)
            .lines()
            .map(|line| line.expect("text"));
        let mut body = lines.skip_while(|line| !line.is_empty()).skip(1);
        let data = body.next().expect("an event");
        let data = data.strip_prefix("data: ").expect("data");
        let _: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(body.next().as_deref(), Some(""));
    });
    is_plain_text(&said);
    assert!(!said.lines().any(|it| it.starts_with("GET ")), "{said}");
    // The document has the elements of a report, and what was captured is in none of their names.
    let parse = "import sys, xml.etree.ElementTree as t; print(*sorted({e.tag for e in t.fromstring(sys.stdin.buffer.read()).iter()}))";
    let mut parser = Command::new("python3")
        .args(["-c", parse])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("installed by `make setup`");
    let mut input = parser.stdin.take().expect("piped");
    input.write_all(junit.as_bytes()).expect("read");
    drop(input);
    let output = parser.wait_with_output().expect("ended");
    assert!(output.status.success(), "{junit}");
    for tag in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        let known = [
            "testsuites",
            "testsuite",
            "testcase",
            "failure",
            "skipped",
            "system-out",
            "properties",
            "property",
        ];
        assert!(known.contains(&tag), "{tag}: {junit}");
    }
    // The target got requests as they were captured, framed once.
    let sent = exchanges();
    for request in &seen {
        let text = String::from_utf8_lossy(request);
        let mark = text.lines().find(|line| line.starts_with("Shadowtap: "));
        let as_captured = match mark {
            Some(mark) => text.replacen(&format!("{mark}\r\n"), "", 1),
            None => text.into_owned(),
        };
        let known = sent.iter().any(|(request, _)| *request == as_captured);
        assert!(
            known || as_captured.starts_with("OPTIONS *"),
            "{as_captured:?}"
        );
    }
    assert!(seen.len() >= 5, "{}", seen.len());
}

#[test]
fn a_log_line_of_json_is_one_of_json() {
    let (said, ..) = run("json", |_| {});
    for line in said.lines() {
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{error}: {line:?}");
        });
        assert!(parsed["level"].is_string(), "{line}");
    }
}

#[test]
fn what_is_shown_of_a_file_is_text() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("evil.gor");
    fs::write(&file, recording()).expect("written");
    let output = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).arg(&file).output();
        let output = output.expect("started");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    is_plain_text(&output(&["inspect"]));
    let lines = output(&["inspect", "--json"]);
    for line in lines.lines() {
        let _: Value = serde_json::from_str(line).expect("JSON");
    }
    assert_eq!(lines.lines().count(), exchanges().len() + 1);
    let out = directory.path().join("evil.har");
    output(&["convert", "--out", out.to_str().expect("a plain path")]);
    let har = fs::read_to_string(out).expect("written");
    let har: Value = serde_json::from_str(&har).expect("JSON");
    let entries = har["log"]["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), exchanges().len() + 1);
}

/// Version 1, which gives each of the requests its answer.
fn version_1() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            let mut got = Vec::new();
            let exchanges = exchanges();
            let answer = loop {
                let mut some = [0; 4096];
                match stream.read(&mut some) {
                    Ok(read) if read > 0 => got.extend_from_slice(&some[..read]),
                    _ => break None,
                }
                let is_it = |(request, _): &&(String, String)| request.as_bytes() == got;
                if let Some((_, answer)) = exchanges.iter().find(is_it) {
                    break Some(answer);
                }
            };
            if let Some(answer) = answer {
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    address
}

#[test]
fn what_was_mirrored_is_text_to_a_browser_and_to_a_shell() {
    let version_1 = version_1();
    let (version_2, _notes) = target(200);
    let mut command = Command::new(PROGRAM);
    command
        .args(["mirror", "--replay-ambiguous", "--interface", "lo"])
        .args(["--port", &format!("127.0.0.1:{}", version_1.port())])
        .args(["--to", &format!("http://{version_2}")]);
    // Sent again and again: nothing may depend on a capture that was open in time, or lost nothing.
    let requests = exchanges();
    let mut rounds = requests.iter().map(|(request, _)| request).cycle();
    let send = || {
        let request = rounds.next().expect("endless");
        let mut stream = TcpStream::connect(version_1).expect("it listens");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = [0; 4096];
        while stream.read(&mut answer).is_ok_and(|read| read > 0) {}
    };
    let mut copied = None;
    let said = until_settled(command, send, |admin| {
        copied = browse("escape.mjs", admin, None);
    });
    is_plain_text(&said);
    let Some(copied) = copied else {
        return;
    };
    let copied: Vec<Value> = serde_json::from_str(&copied).expect("JSON");
    assert!(!copied.is_empty());
    let directory = tempfile::tempdir().expect("a directory");
    let stub = directory.path().join("curl");
    let script = "#!/bin/sh\nprintf 'curl\\0'\nprintf '%s\\0' \"$@\"\n";
    fs::write(&stub, script).expect("written");
    let mut mode = fs::metadata(&stub).expect("written").permissions();
    mode.set_mode(0o755);
    fs::set_permissions(&stub, mode).expect("ours");
    let path = std::env::var("PATH").expect("there is one");
    for example in &copied {
        let command = example["curl"].as_str().expect("text");
        let keys = command.chars().find(|it| it.is_control() && *it != '\n');
        assert_eq!(keys, None, "{command:?}");
        let output = Command::new("sh")
            .args(["-c", command])
            .env("PATH", format!("{}:{path}", directory.path().display()))
            .current_dir(directory.path())
            .output()
            .expect("there is a shell");
        let ran = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && ran.starts_with("curl\0"),
            "{command}"
        );
        let words: Vec<&str> = ran.trim_end_matches('\0').split('\0').collect();
        assert_eq!(words.iter().filter(|it| **it == "curl").count(), 1);
        let target = example["request"]["target"].as_str().expect("text");
        let url = words.last().expect("a URL");
        assert!(url.ends_with(target), "{url}: {target}");
        for field in example["request"]["headers"].as_array().expect("fields") {
            let (name, value) = (field[0].as_str(), field[1].as_str());
            let (name, value) = name.zip(value).expect("text");
            if name.starts_with("X-") {
                assert!(words.contains(&&*format!("{name}: {value}")), "{words:?}");
            }
        }
    }
    let left: Vec<_> = fs::read_dir(directory.path())
        .expect("ours")
        .map(|file| file.expect("ours").file_name())
        .collect();
    assert_eq!(left, ["curl"], "something was run");
    let commands = copied.iter().map(|it| it["curl"].as_str().expect("text"));
    let commands: Vec<&str> = commands.collect();
    assert!(
        commands.iter().any(|it| it.contains("injected)'")),
        "{commands:#?}"
    );
}
