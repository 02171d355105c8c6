//! An open-loop load: requests are due at a constant rate whatever the service does, and latency is measured from when a request was
//! due, so that waiting for a free connection is part of it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::stage::{V1, pause};

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Requests a second.
    pub(super) rate: u64,
    /// For how long.
    pub(super) time: Duration,
    /// Connections at a time.
    pub(super) connections: usize,
    /// After how many requests, on average, a connection is closed and another opened; 0 is never.
    pub(super) churn: u64,
}

/// What came of it.
pub(super) struct Loaded {
    /// Requests that were sent.
    pub(super) sent: u64,
    /// Requests that were answered with 200.
    pub(super) answered: u64,
    /// From the first request's time to the last answer.
    pub(super) seconds: f64,
    /// From when a request was due to the end of its answer, in nanoseconds.
    pub(super) latency: Histogram<u64>,
}

/// Counters that others may read while the load runs.
#[derive(Default, Debug)]
pub(super) struct Counts {
    next: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) connections: AtomicU64,
}

impl Load {
    /// Sends all of it.
    pub(super) fn run(self, counts: &Counts) -> io::Result<Loaded> {
        let total = (self.rate as f64 * self.time.as_secs_f64()) as u64;
        let begin = Instant::now() + Duration::from_millis(50);
        let mut latency = histogram()?;
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..self.connections as u64)
                .map(|seed| scope.spawn(move || self.client(seed, total, begin, counts)))
                .collect();
            for client in clients {
                let own = client
                    .join()
                    .map_err(|_| io::Error::other("a client panicked"))??;
                latency.add(own).map_err(io::Error::other)?;
            }
            Ok::<_, io::Error>(())
        })?;
        Ok(Loaded {
            sent: counts.sent.load(Ordering::Relaxed),
            answered: counts.answered.load(Ordering::Relaxed),
            seconds: begin.elapsed().as_secs_f64(),
            latency,
        })
    }

    fn client(
        self,
        seed: u64,
        total: u64,
        begin: Instant,
        counts: &Counts,
    ) -> io::Result<Histogram<u64>> {
        let mut latency = histogram()?;
        let mut stream: Option<TcpStream> = None;
        let mut buffer = vec![0; 64 << 10];
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        loop {
            let number = counts.next.fetch_add(1, Ordering::Relaxed);
            if number >= total {
                return Ok(latency);
            }
            let due = begin + Duration::from_secs_f64(number as f64 / self.rate as f64);
            pause(due.saturating_duration_since(Instant::now()));
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let ends = self.churn > 0 && random.is_multiple_of(self.churn);
            let says_so = ends && random & (1 << 40) != 0;
            counts.sent.fetch_add(1, Ordering::Relaxed);
            // An answer that does not come is counted by its absence.
            let answered = match &mut stream {
                Some(stream) => ask(stream, number, says_so, &mut buffer),
                none => connect(counts)
                    .and_then(|it| ask(none.insert(it), number, says_so, &mut buffer)),
            };
            let time = Instant::now().saturating_duration_since(due);
            latency.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            match answered {
                Ok(true) => {
                    counts.answered.fetch_add(1, Ordering::Relaxed);
                    if ends {
                        stream = None;
                    }
                }
                _ => stream = None,
            }
        }
    }
}

fn connect(counts: &Counts) -> io::Result<TcpStream> {
    counts.connections.fetch_add(1, Ordering::Relaxed);
    let stream = TcpStream::connect(V1)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// One request, every tenth with a body; whether its answer is a whole 200.
fn ask(stream: &mut TcpStream, number: u64, last: bool, buffer: &mut [u8]) -> io::Result<bool> {
    let close = if last { "Connection: close\r\n" } else { "" };
    let fields = format!(
        "Host: shop.example.com\r\nUser-Agent: trust/1.0\r\nAccept: application/json\r\nX-Id: {number}\r\n{close}"
    );
    let request = if number % 10 == 9 {
        let body = format!("{{\"order\":{number},\"note\":\"{}\"}}", "x".repeat(500));
        format!(
            "POST /api/orders/{number} HTTP/1.1\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    } else {
        format!("GET /api/items/{number}?page=4&sort=name HTTP/1.1\r\n{fields}\r\n")
    };
    stream.write_all(request.as_bytes())?;
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(false);
        }
        filled += read;
        if let Some(length) = length_of(&buffer[..filled])
            && filled >= length
        {
            return Ok(buffer.starts_with(b"HTTP/1.1 200"));
        }
    }
}

/// The length of a message with `Content-Length`, once its head is there.
pub(super) fn length_of(bytes: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let body = memchr::memmem::find(&bytes[..head], b"Content-Length: ").map_or(0, |at| {
        let digits = bytes[at + 16..head]
            .iter()
            .take_while(|it| it.is_ascii_digit());
        digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
    });
    Some(head + body)
}

fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1000, 60_000_000_000, 3).map_err(io::Error::other)
}
