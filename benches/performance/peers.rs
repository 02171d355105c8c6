//! The other processes of a live run: a server, a load generator and the bare loop. Each is this program again.

use std::io::{self, Read, Write};
use std::net::TcpStream as PlainStream;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::generate::answer;
use super::measure::monotonic;

/// What a load generator is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Keep-alive connections.
    pub(crate) connections: u32,
    /// Requests in all.
    pub(crate) requests: u32,
    /// Requests a second; 0 is as many as go.
    pub(crate) rate: u32,
    /// Bytes of each request's body.
    pub(crate) body: usize,
    /// How long the connections stay open behind the last answer.
    pub(crate) linger: Duration,
}

/// What a server saw, as it prints it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Served {
    pub(crate) requests: u64,
    /// When the first came.
    pub(crate) first: u64,
    /// From sending a request to version 1 until its replay was here, in nanoseconds.
    pub(crate) lag_p50: u64,
    pub(crate) lag_p99: u64,
}

/// What a load generator saw, as it prints it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    pub(crate) p99: u64,
}

/// Answers everything until standard input ends, then prints what it saw. A line on standard input makes it print the
/// number of requests so far.
pub(crate) fn serve(address: &str) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Seen {
        requests: 0,
        first: 0,
        lags: histogram()?,
    }));
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = tokio::net::TcpSocket::new_v4()?;
        listener.set_reuseaddr(true)?;
        listener.bind(address.parse().map_err(io::Error::other)?)?;
        let listener: TcpListener = listener.listen(8192)?;
        println!("ready");
        let (lines, mut asked) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        loop {
            tokio::select! {
                line = asked.recv() => {
                    let seen = seen.borrow();
                    println!("{} {} {} {}", seen.requests, seen.first,
                        seen.lags.value_at_quantile(0.5), seen.lags.value_at_quantile(0.99));
                    if line.is_none() {
                        return Ok(());
                    }
                }
                accepted = listener.accept() => {
                    let (stream, _) = accepted?;
                    let seen = std::rc::Rc::clone(&seen);
                    tokio::task::spawn_local(async move {
                        // A client that goes away ends its connection, nothing else.
                        let _ = converse(stream, &seen).await;
                    });
                }
            }
        }
    })
}

/// Of times from a microsecond to a minute.
fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1000, 60_000_000_000, 3).map_err(io::Error::other)
}

struct Seen {
    requests: u64,
    first: u64,
    lags: Histogram<u64>,
}

/// Answers one connection's requests.
async fn converse(mut stream: TcpStream, seen: &std::cell::RefCell<Seen>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let response = answer(
        7,
        b"{\"id\":7,\"name\":\"a thing\",\"price\":1234,\"tags\":[\"one\",\"two\"]}",
    );
    let mut buffer: Vec<u8> = Vec::with_capacity(4096);
    loop {
        let Some(head) = memchr::memmem::find(&buffer, b"\r\n\r\n").map(|at| at + 4) else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let now = monotonic();
        let body: usize = number(&buffer[..head], b"Content-Length: ").unwrap_or(0);
        let sent: Option<u64> = number(&buffer[..head], b"X-Sent: ");
        {
            let mut seen = seen.borrow_mut();
            seen.requests += 1;
            if seen.first == 0 {
                seen.first = now;
            }
            if let Some(sent) = sent {
                seen.lags.saturating_record(now.saturating_sub(sent));
            }
        }
        while buffer.len() < head + body {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.drain(..head + body);
        if buffer.is_empty() && body > 0 {
            buffer = Vec::with_capacity(4096);
        }
        stream.write_all(&response).await?;
    }
}

fn number<T: std::str::FromStr>(head: &[u8], name: &[u8]) -> Option<T> {
    let at = memchr::memmem::find(head, name)? + name.len();
    let digits = head[at..].split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Sends the load and prints what it saw.
pub(crate) fn load(address: &str, load: Load) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let times = local.block_on(&runtime, async {
        let mut streams = Vec::new();
        for _ in 0..load.connections {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let start = monotonic();
        let begin = tokio::time::Instant::now();
        let mut tasks = Vec::new();
        for (n, stream) in (0..).zip(streams) {
            let share =
                load.requests / load.connections + u32::from(n < load.requests % load.connections);
            tasks.push(tokio::task::spawn_local(client(
                stream, load, n, share, begin,
            )));
        }
        let mut times = histogram()?;
        let mut streams = Vec::new();
        for task in tasks {
            let (stream, own) = task.await.map_err(io::Error::other)??;
            for time in own {
                times.saturating_record(time);
            }
            streams.push(stream);
        }
        let seconds = (monotonic() - start) as f64 / 1e9;
        println!(
            "{} {seconds} {}",
            times.len(),
            times.value_at_quantile(0.99)
        );
        tokio::time::sleep(load.linger).await;
        Ok::<_, io::Error>(times)
    })?;
    drop(times);
    Ok(())
}

/// One connection's requests, each behind the answer to the one before, and not before it is due.
async fn client(
    mut stream: TcpStream,
    load: Load,
    n: u32,
    requests: u32,
    begin: tokio::time::Instant,
) -> io::Result<(TcpStream, Vec<u64>)> {
    let mut times = Vec::with_capacity(requests as usize);
    let mut buffer = vec![0; 4096];
    let body = vec![b'x'; load.body];
    for k in 0..requests {
        if load.rate > 0 {
            let at = f64::from(k) * f64::from(load.connections) + f64::from(n);
            tokio::time::sleep_until(begin + Duration::from_secs_f64(at / f64::from(load.rate)))
                .await;
        }
        let sent = monotonic();
        let mut request = format!(
            "{} /api/items/{k}?page=4&sort=name HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: bench/1.0\r\n\
             Accept: application/json\r\nX-Connection: {n}\r\nX-Sent: {sent}\r\n",
            if load.body > 0 { "POST" } else { "GET" }
        )
        .into_bytes();
        if load.body > 0 {
            write!(request, "Content-Length: {}\r\n", load.body)?;
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(&body);
        stream.write_all(&request).await?;
        // An answer is small and comes in one piece.
        if stream.read(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        times.push(monotonic() - sent);
    }
    Ok((stream, times))
}

/// The floor of replay: prepared requests on keep-alive sockets, one `write` and one `read` each.
pub(crate) fn bare(address: &str, connections: u32, requests: u32) -> io::Result<()> {
    let mut streams: Vec<PlainStream> = (0..connections)
        .map(|_| PlainStream::connect(address))
        .collect::<Result<_, _>>()?;
    for stream in &streams {
        stream.set_nodelay(true)?;
    }
    let request = super::generate::request(7);
    let mut buffer = [0; 16 << 10];
    for _ in 0..requests / connections {
        for stream in &mut streams {
            stream.write_all(&request)?;
        }
        for stream in &mut streams {
            if stream.read(&mut buffer)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    Ok(())
}
