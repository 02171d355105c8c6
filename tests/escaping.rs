//! What was captured is text to everything that shows it or sends it on: it cannot begin another request, another line of the
//! log, another label of a metric or another element of a page.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::support::run::PROGRAM;

/// What should not come out anywhere as it is: a terminal's commands, a tag, the end of a label, of a string, of an event.
const EVIL: &str =
    "<img/src=x/onerror=alert(1)>\"},'`\\\x1b[2J\x1b]0;owned\x07\u{85}\u{2028}\u{202e}";

/// So many requests with that in every place where bytes of the client's or of a server's own choice can be.
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
    ]
}

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
fn target() -> (SocketAddr, crossbeam_channel::Receiver<Vec<u8>>) {
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
                        "HTTP/1.1 500 {EVIL}\r\nX-Evil: {EVIL}\r\nContent-Length: {}\r\n\r\n{body}",
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
    let request = format!("GET {page} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// Runs a replay of all of it with log lines of this format until everything was compared; what it logged, and what the target got.
fn run(format: &str, look: impl FnOnce(SocketAddr)) -> (String, Vec<Vec<u8>>) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("evil.gor");
    fs::write(&file, recording()).expect("written");
    let (address, notes) = target();
    let mut child = Command::new(PROGRAM)
        .args(["replay", "--compare", "--admin", "127.0.0.1:0"])
        .args(["--log-level", "debug", "--log-format", format])
        .args(["--replay-ambiguous", "--to", &format!("http://{address}")])
        .arg(&file)
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
    // Every request is either judged or left for a reason.
    loop {
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
    let said = reader.join().expect("read");
    (said, notes.try_iter().collect())
}

#[test]
fn nothing_captured_becomes_more_than_text() {
    let (said, seen) = run("text", |admin| {
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
            .write_all(b"GET /api/events HTTP/1.0\r\nHost: a\r\n\r\n")
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
    for line in said.lines() {
        let control = line.chars().find(|it| it.is_control() && *it != '\t');
        assert_eq!(control, None, "{line:?}");
        assert!(!line.contains(['\u{2028}', '\u{202e}']), "{line:?}");
        assert!(
            !line.starts_with("GET ") && !line.starts_with('<'),
            "{line:?}"
        );
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
    let (said, _) = run("json", |_| {});
    for line in said.lines() {
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{error}: {line:?}");
        });
        assert!(parsed["level"].is_string(), "{line}");
    }
}
