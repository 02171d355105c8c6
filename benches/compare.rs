//! What comparing costs: the processor time of each request that is mirrored and compared, against mirrored alone.
//!
//! Both in one run and in turns, so that neither has the quieter machine: version 1's messages are parsed, an engine sends the
//! requests over loopback to a server in another process, and version 1's and version 2's answers are compared or
//! not. Only this process's own time counts, not the server's.
//!
//! `cargo bench --bench compare`; the goal is a ratio of at most 1.25.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use shadowtap::account::Counter;
use shadowtap::app::compare::{Comparer, Settings};
use shadowtap::exchange::{
    Completeness, ConnectionId, Doubts, Endpoints, ExchangeId, Request, Response,
};
use shadowtap::http1::{Body, Framing, RequestHead, ResponseHead};
use shadowtap::replay::{Engine, ReplayConfig, WhenFull};
use shadowtap::time::Timestamp;

fn main() {
    if std::env::args().any(|argument| argument == SERVE) {
        return serve();
    }
    // As with other benchmarks, `cargo test` only makes sure that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut server = Command::new(std::env::current_exe().expect("this program has a path"))
        .arg(SERVE)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts");
    let mut line = String::new();
    let output = server.stdout.take().expect("piped above");
    BufReader::new(output)
        .read_line(&mut line)
        .expect("the server says where it is");
    let address: SocketAddr = line.trim().parse().expect("an address");
    let mut costs = [0.0, 0.0];
    for round in 0..ROUNDS + 1 {
        for (index, compared) in [false, true].into_iter().enumerate() {
            let cost = run(address, compared);
            // The first round warms up.
            if round > 0 {
                costs[index] += cost;
            }
        }
    }
    server.kill().expect("it runs");
    let _ = server.wait();
    let [alone, compared] = costs.map(|cost| cost / f64::from(ROUNDS));
    println!("mirroring alone     {alone:.2} µs of processor time for each request");
    println!("mirroring, compared {compared:.2} µs");
    println!(
        "ratio               {:.3} (goal: at most 1.25)",
        compared / alone
    );
}

/// Microseconds of processor time for each request.
fn run(address: SocketAddr, compared: bool) -> f64 {
    let target = format!("http://{address}").parse().expect("a target");
    let comparer = compared
        .then(|| Comparer::start(Settings::default(), false, WhenFull::Block).expect("a thread"));
    let comparing = comparer.as_ref().map(Comparer::comparing);
    let config = ReplayConfig {
        when_full: WhenFull::Block,
        ..ReplayConfig::live(target)
    };
    let answered = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&answered);
    let sink = comparing.clone();
    let engine = Engine::start(config, move |replay| {
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(comparing) = &sink {
            comparing.version2(replay);
        }
    })
    .expect("an engine");
    let mut feeder = engine.feeder();
    let before = processor_time();
    for number in 0..REQUESTS {
        // Version 1's traffic is parsed in both cases, as the tap does it.
        let (request, response) = exchange(number);
        if let Some(comparing) = &comparing {
            comparing.expect(&request);
        }
        feeder.offer(Arc::clone(&request));
        match &comparing {
            Some(comparing) => comparing.version1(request.id, Ok(response)),
            None => drop(response),
        }
    }
    drop(feeder);
    let snapshot = engine.finish();
    if let Some(comparer) = comparer {
        let account = comparer.finish().account();
        assert_eq!(
            account.get(Counter::ComparesJudged),
            REQUESTS,
            "{account:?}"
        );
    }
    let spent = processor_time() - before;
    assert_eq!(snapshot.account.get(Counter::ReplaysAnswered), REQUESTS);
    spent.as_secs_f64() * 1e6 / REQUESTS as f64
}

/// A request and version 1's answer: the answer's date differs from version 2's, its body does in one of 50.
fn exchange(number: u64) -> (Arc<Request>, Response) {
    let now = Timestamp::from_nanos(1_795_381_446_000_000_000 + number * 100_000);
    let head = format!(
        "GET /orders/{number} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\nAccept: application/json\r\n\
         X-Request-Id: {number}\r\n\r\n"
    );
    let request = Request {
        id: ExchangeId(number),
        connection: ConnectionId(number % 16),
        endpoints: Endpoints {
            client: ([10, 0, 0, 1], 4000).into(),
            server: ([10, 0, 0, 2], 80).into(),
        },
        first_byte: now,
        last_byte: now,
        head: RequestHead::parse(Bytes::from(head)).expect("a head"),
        body: Body::none(),
        doubts: Doubts::default(),
        completeness: Completeness::Whole,
    };
    let bytes = answer(number, 0);
    let head_length = bytes.len() - BODY_LENGTH;
    let bytes = Bytes::from(bytes);
    let response = Response {
        first_byte: now.after(Duration::from_millis(1)),
        last_byte: now.after(Duration::from_millis(1)),
        interim: Vec::new(),
        head: ResponseHead::parse(bytes.slice(..head_length)).expect("a head"),
        body: Body {
            framing: Framing::Length(BODY_LENGTH as u64),
            wire: bytes.slice(head_length..),
            missing: 0,
        },
        doubts: Doubts::default(),
        completeness: Completeness::Whole,
    };
    (Arc::new(request), response)
}

/// What a version answers, of about a kilobyte; `version` 1 is wrong in one of 50.
fn answer(number: u64, version: u64) -> Vec<u8> {
    let total = if number.is_multiple_of(50) {
        version
    } else {
        0
    };
    let mut body = format!("{{\"id\":{number:010},\"total\":{total:04},\"items\":[");
    while body.len() < BODY_LENGTH - 80 {
        body.push_str("{\"name\":\"tea, green\",\"cents\":499,\"tags\":[\"a\",\"b\"]},");
    }
    body.push_str("{\"name\":\"");
    while body.len() < BODY_LENGTH - 4 {
        body.push('x');
    }
    body.push_str("\"}]}");
    assert_eq!(body.len(), BODY_LENGTH);
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n\
         Date: Sun, 22 Nov 2026 21:04:{:02} GMT\r\nContent-Length: {BODY_LENGTH}\r\n\r\n{body}",
        number % 60
    )
    .into_bytes()
}

/// Version 2: reads requests, answers each at once.
fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    std::io::stdout().flush().expect("somebody reads");
    for stream in listener.incoming() {
        let stream = stream.expect("a stream");
        thread::spawn(move || answer_all(stream));
    }
}

fn answer_all(mut stream: TcpStream) {
    let mut buffer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        buffer.extend_from_slice(&piece[..read]);
        while let Some(end) = buffer.windows(4).position(|it| it == b"\r\n\r\n") {
            let line = String::from_utf8_lossy(&buffer[..end]);
            let path = line.split(' ').nth(1).unwrap_or_default();
            let number = path.rsplit('/').next().and_then(|it| it.parse().ok());
            let answer = answer(number.expect("a number"), 1);
            buffer.drain(..end + 4);
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    }
}

/// What this process has taken of all processors so far, in its own code and in the kernel's.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    // Fields 14 and 15 of proc(5), in hundredths of a second: user and system time of all threads, ended ones included.
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Makes this program the server.
const SERVE: &str = "--serve-answers";

const BODY_LENGTH: usize = 1000;
const REQUESTS: u64 = 100_000;
const ROUNDS: u32 = 5;
