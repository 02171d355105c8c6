//! A target that keeps every request and answers as it is told.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Request line and fields, with the empty line.
    pub(crate) head: String,
    /// The body, without chunk framing.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// Method and target.
    pub(crate) fn line(&self) -> &str {
        let line = self.head.lines().next().expect("a request line");
        line.rsplit_once(' ').map_or(line, |(front, _)| front)
    }

    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A running target; its threads end with the test.
pub(crate) struct Target {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

/// An empty 200.
pub(crate) const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

impl Target {
    /// One that always answers with an empty 200.
    pub(crate) fn new() -> Self {
        Self::answering(|_| EMPTY.to_owned())
    }

    /// One that answers what `answer` says.
    pub(crate) fn answering(answer: impl Fn(&Seen) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (all, answer) = (Arc::clone(&seen), Arc::new(answer));
        let connections = Arc::<AtomicUsize>::default();
        let so_far = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                so_far.fetch_add(1, Ordering::Relaxed);
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                let stream = stream.expect("a stream");
                thread::spawn(move || serve(&stream, &all, &*answer));
            }
        });
        Self {
            address,
            seen,
            connections,
        }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    /// How many connections were opened so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Methods and targets of what came so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let seen = self.seen();
        seen.iter().map(|it| it.line().to_owned()).collect()
    }
}

fn serve(stream: &TcpStream, all: &Mutex<Vec<Seen>>, answer: &dyn Fn(&Seen) -> String) {
    let mut input = BufReader::new(stream);
    let mut output = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !input.read_line(&mut head).is_ok_and(|read| read > 0) {
                return;
            }
        }
        let mut seen = Seen {
            head,
            body: Vec::new(),
        };
        if seen.field("expect").is_some() {
            let _ = output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let Some(body) = body(&mut input, &seen) else {
            return;
        };
        seen.body = body;
        let bytes = answer(&seen);
        all.lock().expect("no panic").push(seen);
        if output.write_all(bytes.as_bytes()).is_err() {
            return;
        }
    }
}

fn body(input: &mut impl BufRead, seen: &Seen) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if seen.field("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            input.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; size];
            input.read_exact(&mut chunk).ok()?;
            body.extend(chunk);
            input.read_line(&mut String::new()).ok()?;
            if size == 0 {
                return Some(body);
            }
        }
    }
    let length: usize = seen.field("content-length").unwrap_or("0").parse().ok()?;
    body.resize(length, 0);
    input.read_exact(&mut body).ok()?;
    Some(body)
}
