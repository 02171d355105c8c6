//! The mock through the program, with real sockets: what version 2 gets, what sidecars tell, what people ask.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::run::PROGRAM;

/// A running mock.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
    address: SocketAddr,
}

/// What an HTTP server answered.
#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    fn field(&self, name: &str) -> &str {
        let wanted = format!("{name}: ");
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(wanted.as_str()))
            .unwrap_or_default()
    }

    fn level(&self) -> &str {
        self.field("shadowtap-mock")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", arguments)
    }

    fn start_at(listen: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["mock", "--listen", listen])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).expect("read"), 0, "ended: {said}");
            if let Some((_, address)) = line.split_once("answering address=") {
                let address = address.split_whitespace().next().expect("an address");
                break address.parse().expect("an address");
            }
            said += &line;
        };
        Self {
            child,
            log,
            address,
        }
    }

    fn call(&self, line: &str, host: &str, body: &str) -> Got {
        self.call_in("", line, host, body)
    }

    /// A call with more fields, each ended by CRLF.
    fn call_in(&self, fields: &str, line: &str, host: &str, body: &str) -> Got {
        ask(self.address, line, host, fields, body)
    }

    fn api(&self, line: &str, body: &str) -> Got {
        self.call(line, "mock", body)
    }

    fn feed(&self, sidecar: &str, lines: &[Value]) -> Value {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let line = format!("POST /mock/feed?sidecar={sidecar}&after=0");
        let got = self.api(&line, &body);
        assert_eq!(got.status, 200, "{got:?}");
        got.json()
    }

    /// Ends it; what it said. Its account must balance.
    fn stop(mut self) -> String {
        let status = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(status.expect("kill").success());
        let mut said = String::new();
        self.log.read_to_string(&mut said).expect("read");
        let status = self.child.wait().expect("ended");
        assert!(status.success(), "{status}: {said}");
        assert!(!said.contains("does not add up"), "{said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(address: SocketAddr, line: &str, host: &str, fields: &str, body: &str) -> Got {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answered");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    Got {
        status: head[9..12].parse().expect("a status"),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// A call of version 1 as a line of a feed or a recording.
fn call_line(line: &str, body: &str, status: u16, answer: &str) -> Value {
    let (method, target) = line.split_once(' ').expect("METHOD TARGET");
    let wire = format!(
        "{method} {target} HTTP/1.1\r\nHost: payment\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer_wire = format!(
        "HTTP/1.1 {status} Whatever\r\nX-Provider: real\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    );
    json!({
        "client": "10.0.0.1:40000", "server": "10.0.0.7:80", "method": method,
        "request_time_ns": 1_000_000_000_000_000_000u64, "request_end_ns": 1_000_000_000_000_000_000u64,
        "response_time_ns": 1_000_000_000_150_000_000u64, "response_end_ns": 1_000_000_000_150_000_000u64,
        "request_wire_b64": base64(&wire), "status": status, "response_wire_b64": base64(&answer_wire),
    })
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn begin(exchange: u64) -> Value {
    json!({
        "shadowtap": "begin", "exchange": format!("{exchange:x}"), "endpoint": "POST /orders",
        "trace": format!("trace-{exchange}"),
    })
}

fn of(exchange: u64) -> Value {
    json!({ "shadowtap": "call", "of": [format!("{exchange:x}")] })
}

fn done(exchange: u64) -> Value {
    json!({ "shadowtap": "done", "exchange": format!("{exchange:x}") })
}

fn replayed(exchange: u64) -> Value {
    json!({ "shadowtap": "replayed", "exchange": format!("{exchange:x}"), "answered": true })
}

fn trace(exchange: u64) -> String {
    format!("X-Request-Id: trace-{exchange}\r\n")
}

fn recording(folder: &Path) -> String {
    let lines = [
        call_line(
            "POST /charges",
            r#"{"order_id":17,"amount":100}"#,
            201,
            "receipt 17",
        ),
        call_line("GET /status?b=2&a=1", "", 200, "pending"),
        call_line("GET /status?b=2&a=1", "", 200, "done"),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let path = folder.join("calls.jsonl");
    fs::write(&path, text).expect("written");
    path.to_str().expect("a plain path").to_owned()
}

#[test]
fn recordings_of_every_format_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let jsonl = recording(folder.path());
    for name in ["calls.jsonl", "calls.gor", "calls.har", "calls.pcap"] {
        let file = folder.path().join(name);
        if name != "calls.jsonl" {
            let status = Command::new(PROGRAM)
                .args(["convert", &jsonl, "--out"])
                .arg(&file)
                .stderr(Stdio::null())
                .status();
            assert!(status.expect("started").success(), "{name}");
        }
        let mock = Running::start(&["--from", file.to_str().expect("a plain path")]);
        for (line, body, level, answer) in [
            ("GET /status?a=1&b=2", "", "sequence", "pending"),
            (
                "POST /charges",
                r#"{"order_id":17,"amount":100}"#,
                "exact",
                "receipt 17",
            ),
            (
                "POST /charges",
                r#"{"amount":100,"order_id":18}"#,
                "normalised",
                "receipt 17",
            ),
            ("GET /status?a=1&b=2", "", "sequence", "done"),
        ] {
            let got = mock.call(line, "payment", body);
            assert_eq!(
                (got.level(), got.body.as_str()),
                (level, answer),
                "{name}: {got:?}"
            );
            assert_eq!(got.field("x-provider"), "real", "{name}: {got:?}");
            assert!(
                got.field("shadowtap-mock-why").starts_with("stub "),
                "{got:?}"
            );
        }
        mock.stop();
    }
}

#[test]
fn a_forward_proxy_answers_by_the_host_in_the_target() {
    let folder = tempfile::tempdir().expect("a folder");
    let mock = Running::start(&["--from", &recording(folder.path())]);
    let line = "GET http://payment/status?a=1&b=2";
    assert_eq!(mock.call(line, "elsewhere", "").body, "pending");
    let got = mock.call("GET /status?a=1&b=2", "elsewhere", "");
    assert_eq!((got.status, got.level()), (502, "miss"));
    // What is asked of a host by proxy is never the mock's own interface.
    let got = mock.call("GET http://payment/mock/api", "payment", "");
    assert_eq!(got.level(), "miss");
    let got = mock.call("CONNECT payment:443", "payment:443", "");
    assert_eq!(got.status, 501, "{got:?}");
    assert!(got.body.contains("TLS"), "{got:?}");
    let said = mock.stop();
    assert!(said.contains("mock_refused"), "{said}");
}

#[test]
fn a_miss_is_closed_and_says_what_was_nearest() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = recording(folder.path());
    let mock = Running::start(&["--from", &file]);
    let got = mock.call(
        "POST /charges",
        "payment",
        r#"{"order_id":17,"amount":119}"#,
    );
    assert_eq!((got.status, got.level()), (502, "miss"));
    let why = got.json();
    assert_eq!(why["nearest"], "POST payment /charges");
    assert_eq!(
        why["differences"],
        json!([{ "place": "body.amount", "called": "119", "version_1": "100" }])
    );
    let said = mock.stop();
    assert!(said.contains("mock_miss"), "{said}");

    let mock = Running::start(&["--from", &file, "--miss", "404:{\"none\":true}"]);
    let got = mock.call("POST /refunds", "payment", "x");
    assert_eq!((got.status, got.level()), (404, "miss"));
    assert_eq!(got.body, r#"{"none":true}"#);
    mock.stop();
}

#[test]
fn only_what_is_named_is_let_through() {
    let provider = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let host = provider.local_addr().expect("bound").to_string();
    let (asked, calls) = crossbeam_channel::unbounded();
    thread::spawn(move || {
        for stream in provider.incoming() {
            let mut stream = stream.expect("accepted");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let _ = asked.send(String::from_utf8_lossy(&head).into_owned());
            let answer = b"HTTP/1.1 203 Odd\r\nX-Real: 1\r\nContent-Length: 5\r\n\r\nreal!";
            let _ = stream.write_all(answer);
        }
    });
    let through = format!("{host}:GET");
    let mock = Running::start(&["--feed", "--pass-through", &through]);
    let got = mock.call("GET /items?x=1", &host, "");
    assert_eq!((got.status, got.body.as_str()), (203, "real!"));
    assert_eq!((got.level(), got.field("x-real")), ("pass-through", "1"));
    let head = calls.recv().expect("the provider was asked");
    assert!(head.starts_with("GET /items?x=1 HTTP/1.1\r\n"), "{head}");
    for (line, host) in [("POST /items", host.as_str()), ("GET /items", "other")] {
        let got = mock.call(line, host, "x");
        assert_eq!((got.status, got.level()), (502, "miss"));
    }
    // One that comes back is not sent round again.
    let got = mock.call_in("Shadowtap-Mock-Passed: 1\r\n", "GET /items", &host, "");
    assert_eq!(got.status, 508);
    assert!(calls.try_recv().is_err(), "nobody else asked the provider");
    mock.stop();
}

#[test]
fn the_original_latency_is_kept_on_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = recording(folder.path());
    for (latency, at_least) in [("original", 150), ("60ms", 60), ("none", 0)] {
        let mock = Running::start(&["--from", &file, "--latency", latency]);
        let began = std::time::Instant::now();
        assert_eq!(mock.call("GET /status?a=1&b=2", "payment", "").status, 200);
        // How much longer it takes depends on the machine.
        assert!(
            began.elapsed() >= Duration::from_millis(at_least),
            "{latency}"
        );
        mock.stop();
    }
}

#[test]
fn a_call_waits_for_the_feed() {
    let mock = Running::start(&["--wait", "60s"]);
    mock.feed("pod-1", &[begin(17)]);
    thread::scope(|scope| {
        let call = scope.spawn(|| mock.call_in(&trace(17), "POST /charges", "payment", "x"));
        // It has come, and nothing is known that it could get.
        while mock.api("GET /mock/api", "").json()["counted"]["mock_calls"] != 1 {}
        let answer = call_line("POST /charges", "x", 201, "receipt");
        mock.feed("pod-1", &[of(17), answer]);
        let got = call.join().expect("answered");
        assert_eq!((got.level(), got.body.as_str()), ("exact", "receipt"));
        assert!(
            got.field("shadowtap-mock-why").contains("of pod-1"),
            "{got:?}"
        );
    });
    mock.stop();
}

#[test]
fn a_caller_that_goes_away_is_counted() {
    let mock = Running::start(&["--wait", "60s", "--grace", "0s"]);
    {
        let mut stream = TcpStream::connect(mock.address).expect("it listens");
        let request = b"GET /never HTTP/1.1\r\nHost: payment\r\n\r\n";
        stream.write_all(request).expect("sent");
        while mock.api("GET /mock/api", "").json()["counted"]["mock_calls"] != 1 {}
    }
    while mock.api("GET /mock/api", "").json()["dropped"]["mock_caller_gone"] != 1 {}
    mock.stop();
}

#[test]
fn a_thousand_orders_in_flight_from_several_sidecars_get_their_own_receipts() {
    const ORDERS: u64 = 1000;
    const CALLERS: u64 = 50;
    let mock = Running::start(&["--wait", "60s"]);
    let sidecars = ["pod-1", "pod-2", "pod-3"];
    let sidecar_of = |order: u64| usize::try_from(order).expect("small") % sidecars.len();
    // Ids are the same in every sidecar: only the sidecar's name tells them apart.
    let id = |order: u64| order / 3;
    let trace = |order: u64| format!("X-Request-Id: t{}-{}\r\n", sidecar_of(order), id(order));
    for (at, sidecar) in sidecars.iter().enumerate() {
        let news: Vec<Value> = (0..ORDERS)
            .filter(|order| sidecar_of(*order) == at)
            .map(|order| {
                json!({
                    "shadowtap": "begin", "exchange": format!("{:x}", id(order)), "endpoint": "POST /orders",
                    "trace": format!("t{at}-{}", id(order)),
                })
            })
            .collect();
        mock.feed(sidecar, &news);
    }
    let started = Barrier::new(usize::try_from(CALLERS).expect("small") + 1);
    thread::scope(|scope| {
        let (mock, started) = (&mock, &started);
        for caller in 0..CALLERS {
            scope.spawn(move || {
                started.wait();
                let streams: Vec<(u64, TcpStream)> = (caller..ORDERS)
                    .step_by(usize::try_from(CALLERS).expect("small"))
                    .map(|order| {
                        let mut stream = TcpStream::connect(mock.address).expect("it listens");
                        // Every charge looks the same.
                        let request = format!(
                            "POST /charges HTTP/1.1\r\nHost: payment\r\nConnection: close\r\n{}Content-Length: 4\r\n\r\nsame",
                            trace(order)
                        );
                        stream.write_all(request.as_bytes()).expect("sent");
                        (order, stream)
                    })
                    .collect();
                for (order, mut stream) in streams {
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).expect("answered");
                    let receipt = format!("\r\n\r\nreceipt {order}");
                    assert!(answer.ends_with(&receipt), "order {order}: {answer}");
                    assert!(answer.contains("shadowtap-mock: exact"), "{answer}");
                }
            });
        }
        started.wait();
        // All are in flight before version 1's calls are told, in another order.
        while mock.api("GET /mock/api", "").json()["counted"]["mock_calls"] != ORDERS {}
        for (at, sidecar) in sidecars.iter().enumerate() {
            let mut news = Vec::new();
            for order in (0..ORDERS).rev().filter(|order| sidecar_of(*order) == at) {
                news.push(of(id(order)));
                let receipt = format!("receipt {order}");
                news.push(call_line("POST /charges", "same", 201, &receipt));
            }
            for piece in news.chunks(20) {
                mock.feed(sidecar, piece);
            }
        }
    });
    let overview = mock.api("GET /mock/api", "").json();
    assert_eq!(overview["counted"]["mock_exact"], ORDERS, "{overview}");
    mock.stop();
}

#[test]
fn side_effects_are_told_to_the_sidecar_that_saw_the_exchange() {
    let mock = Running::start(&["--wait", "0s"]);
    for (exchange, charges) in [(1, 1), (2, 2), (3, 0)] {
        let answer = call_line("POST /charges", "x", 201, "receipt");
        mock.feed(
            "pod-1",
            &[begin(exchange), of(exchange), answer, done(exchange)],
        );
        for _ in 0..charges {
            let got = mock.call_in(&trace(exchange), "POST /charges", "payment", "x");
            assert_eq!(got.body, "receipt", "{got:?}");
        }
        mock.feed("pod-1", &[replayed(exchange)]);
    }
    let told = mock.feed("pod-1", &[]);
    let counted: Vec<_> = told["settled"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| {
            let call = &it["calls"][0];
            (
                it["exchange"].as_u64(),
                ["same", "missing", "extra", "changed"].map(|name| call[name].as_u64()),
            )
        })
        .collect();
    let some = |all: [u64; 4]| all.map(Some);
    assert_eq!(
        counted,
        [
            (Some(1), some([1, 0, 0, 0])),
            (Some(2), some([1, 0, 1, 0])),
            (Some(3), some([0, 1, 0, 0])),
        ]
    );
    assert_eq!(mock.feed("pod-2", &[])["settled"], json!([]));
    let sums = mock.api("GET /mock/api/side-effects", "").json();
    assert_eq!(sums["exchanges"], 3);
    assert_eq!(sums["differing"], 2);
    assert_eq!(sums["calls"][0]["call"], "POST payment /charges");
    assert_eq!(sums["examples"].as_array().map(Vec::len), Some(2));
    let said = mock.stop();
    assert!(said.contains("1 extra"), "{said}");
}

#[test]
fn after_a_restart_nothing_is_known_and_nothing_is_made_up() {
    let first = Running::start(&["--wait", "0s"]);
    let listen = first.address.to_string();
    let answer = call_line("POST /charges", "x", 201, "receipt");
    let told = first.feed("pod-1", &[begin(1), of(1), answer.clone()]);
    first.stop();
    let second = Running::start_at(&listen, &["--wait", "0s"]);
    // Exchange 1 began before: version 2's call is a miss, and no word is said about its side effects.
    let news = second.feed("pod-1", &[done(1), replayed(1), begin(2)]);
    assert_ne!(news["run"], told["run"]);
    let got = second.call_in(&trace(1), "POST /charges", "payment", "x");
    assert_eq!(got.level(), "miss");
    second.feed("pod-1", &[of(2), answer, done(2)]);
    let got = second.call_in(&trace(2), "POST /charges", "payment", "x");
    assert_eq!((got.level(), got.body.as_str()), ("exact", "receipt"));
    let news = second.feed("pod-1", &[replayed(2)]);
    let settled = news["settled"].as_array().expect("a list");
    assert_eq!(settled.len(), 1, "{news}");
    assert_eq!(settled[0]["exchange"], 2);
    second.stop();
}

#[test]
fn the_interface_lists_adds_and_removes_stubs() {
    let folder = tempfile::tempdir().expect("a folder");
    let mock = Running::start(&["--from", &recording(folder.path())]);
    let mapping = json!({ "request": { "method": "GET", "urlPath": "/hello" }, "response": { "jsonBody": { "hi": 1 } } });
    let added = mock.api("POST /mock/api/stubs", &mapping.to_string());
    assert_eq!(added.status, 200, "{added:?}");
    let id = added.json()["ids"][0].as_u64().expect("a number");
    let got = mock.call("GET /hello", "anybody", "");
    assert_eq!((got.level(), got.body.as_str()), ("exact", r#"{"hi":1}"#));
    let stubs = mock.api("GET /mock/api/stubs", "").json();
    let stubs = stubs.as_array().expect("a list");
    assert_eq!(stubs.len(), 4);
    assert_eq!(stubs[0]["origin"], "written");
    assert_eq!(stubs[0]["given"], 1);
    assert_eq!(stubs[1]["call"], "POST payment /charges");
    let line = format!("DELETE /mock/api/stubs/{id}");
    assert_eq!(mock.api(&line, "").status, 200);
    assert_eq!(mock.api(&line, "").status, 404);
    assert_eq!(mock.api("DELETE /mock/api/stubs/seven", "").status, 400);
    assert_eq!(mock.call("GET /hello", "anybody", "").level(), "miss");
    let wrong = mock.api(
        "POST /mock/api/stubs",
        r#"{"request":{"cookies":{}},"response":{}}"#,
    );
    assert_eq!(wrong.status, 400);
    assert!(
        wrong.body.contains("request.cookies is not supported"),
        "{wrong:?}"
    );
    assert_eq!(mock.api("GET /mock/api/nothing", "").status, 404);
    assert_eq!(mock.api("DELETE /mock/api/stubs", "").json()["removed"], 3);
    mock.stop();
}

#[test]
fn exports_fill_another_mock() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Running::start(&["--from", &recording(folder.path())]);
    for (export, arguments) in [("wiremock", &["--stubs"]), ("har", &["--from"])] {
        let exported = first.api(&format!("GET /mock/api/{export}"), "").body;
        let file = folder.path().join(format!(
            "exported.{}",
            if export == "har" { "har" } else { "json" }
        ));
        fs::write(&file, &exported).expect("written");
        let by_file =
            Running::start(&[&arguments[..], &[file.to_str().expect("a plain path")]].concat());
        let by_import = Running::start(&["--wait", "0s"]);
        let got = by_import.api(&format!("POST /mock/api/{export}"), &exported);
        assert_eq!(got.status, 200, "{got:?}");
        for mock in [by_file, by_import] {
            for answer in ["pending", "done"] {
                let got = mock.call("GET /status?a=1&b=2", "payment", "");
                assert_eq!(got.body, answer, "{export}: {got:?}");
            }
            let got = mock.call(
                "POST /charges",
                "payment",
                r#"{"order_id":17,"amount":100}"#,
            );
            assert_eq!(
                (got.status, got.body.as_str()),
                (201, "receipt 17"),
                "{export}"
            );
            mock.stop();
        }
    }
    let wrong = first.api("POST /mock/api/har", "not an archive");
    assert_eq!(wrong.status, 400, "{wrong:?}");
    first.stop();
}

#[test]
fn an_answer_is_framed_as_it_is_sent_whatever_its_fields_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut line = call_line("HEAD /file", "", 200, "");
    line["response_wire_b64"] = base64("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n").into();
    let file = folder.path().join("head.jsonl");
    fs::write(&file, format!("{line}\n")).expect("written");
    let mock = Running::start(&["--from", file.to_str().expect("a plain path")]);
    let mapping = json!({
        "request": { "urlPath": "/hello" },
        "response": { "body": "hello", "headers": {
            "Content-Length": "999", "Transfer-Encoding": "chunked", "Connection": "keep-alive", "X-Kept": "1",
        } },
    });
    let added = mock.api("POST /mock/api/wiremock", &mapping.to_string());
    assert_eq!(added.status, 200, "{added:?}");
    let got = mock.call("GET /hello", "anybody", "");
    assert_eq!((got.body.as_str(), got.field("x-kept")), ("hello", "1"));
    assert_eq!(got.field("content-length"), "5");
    // What a HEAD was to find out.
    let got = mock.call("HEAD /file", "payment", "");
    assert_eq!(
        (got.level(), got.field("content-length")),
        ("exact", "12345")
    );
    mock.stop();
}

#[test]
fn what_cannot_be_used_is_said() {
    for (arguments, wrong) in [
        (&["--from", "/nowhere.jsonl"][..], "there is no such file"),
        (
            &["--stubs", "/nowhere.json"],
            "--stubs: cannot read /nowhere.json",
        ),
        (&["--memory", "1k"], "--memory: at least 1MiB"),
        (&["--latency", "slow"], "'slow' is neither original"),
        (&["--pass-through", "stock"], "'stock' is not HOST:METHOD"),
        (
            &["--miss", "teapot"],
            "'teapot' does not begin with a status",
        ),
    ] {
        let output = Command::new(PROGRAM)
            .args(["mock", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(said.contains(wrong), "{said}");
    }
}
