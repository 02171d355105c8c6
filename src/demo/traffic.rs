//! Real HTTP/1.1 traffic for the demonstration: plain sockets, keep-alive, pipelining, chunked uploads,
//! `Expect: 100-continue`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::http1::framing::{Length, of_response};
use crate::http1::{MessageLimits, MessageReader, Side, Step};

/// What was sent, and answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sent {
    /// Requests that version 1 answered.
    pub(super) requests: u32,
    /// Connections that they went over.
    pub(super) connections: u32,
}

/// Sends `requests` requests to `server` over a few connections at a time and reads every answer; that takes `lasting` at least.
///
/// # Errors
/// When a connection fails or an answer is not HTTP.
pub(super) async fn drive(
    server: SocketAddr,
    requests: u32,
    lasting: Duration,
) -> io::Result<Sent> {
    let pause = lasting * CLIENTS / requests.max(1);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(drive_one(server, client, requests, pause));
    }
    let mut sent = Sent::default();
    while let Some(one) = clients.join_next().await {
        let one = one.map_err(io::Error::other)??;
        sent.requests += one.requests;
        sent.connections += one.connections;
    }
    Ok(sent)
}

/// Client number `client` sends every [`CLIENTS`]th request, and rests for `pause` after each.
async fn drive_one(
    server: SocketAddr,
    client: u32,
    requests: u32,
    pause: Duration,
) -> io::Result<Sent> {
    let mut sent = Sent::default();
    let mut connection = None;
    let mut number = client;
    while number < requests {
        // Now and then a client opens a new connection, as browsers and proxies do.
        if sent.requests.is_multiple_of(REQUESTS_PER_CONNECTION) {
            connection = None;
        }
        let open = match connection.take() {
            Some(open) => open,
            None => {
                sent.connections += 1;
                Connection::open(server).await?
            }
        };
        let kind = number / CLIENTS + client;
        connection = Some(open.send(kind, number).await?);
        sent.requests += 1;
        number += CLIENTS;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        // Two in the same breath: the second is on its way before the first was answered.
        if kind.is_multiple_of(PIPELINED_EVERY) && number + CLIENTS < requests {
            let open = connection.take();
            if let Some(mut open) = open {
                open.write(&request(0, number)).await?;
                open.write(&request(1, number)).await?;
                open.read_answer(b"GET").await?;
                open.read_answer(b"GET").await?;
                sent.requests += 2;
                number += CLIENTS * 2;
                connection = Some(open);
            }
        }
    }
    Ok(sent)
}

struct Connection {
    stream: TcpStream,
    reader: MessageReader,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            reader: MessageReader::new(Side::Responses, MessageLimits::default()),
            buffer: vec![0; 16 * 1024],
        })
    }

    /// Sends request number `number`, of a kind, and reads its answer.
    async fn send(mut self, kind: u32, number: u32) -> io::Result<Self> {
        let bytes = request(kind, number);
        let method: &[u8] = bytes.split(|&byte| byte == b' ').next().unwrap_or_default();
        let method = method.to_vec();
        let body = bytes
            .windows(EXPECT.len())
            .position(|window| window == EXPECT)
            .map(|at| at + EXPECT.len());
        match body {
            // The head alone; the body once the server has said that it wants it.
            Some(body) => {
                self.write(&bytes[..body]).await?;
                if self.read_answer(&method).await? == 100 {
                    self.write(&bytes[body..]).await?;
                    self.read_answer(&method).await?;
                }
            }
            None => {
                self.write(&bytes).await?;
                self.read_answer(&method).await?;
            }
        }
        Ok(self)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads one answer, interim or final; its status.
    async fn read_answer(&mut self, method: &[u8]) -> io::Result<u16> {
        let mut status = 0;
        loop {
            match self.reader.poll() {
                Step::ResponseHead(head) => {
                    status = head.status();
                    match of_response(&head, Some(method)).0 {
                        Length::Framed(framing) => self.reader.frame(framing),
                        Length::Tunnel | Length::Invalid => return Err(not_http()),
                    }
                }
                Step::Body(..) => return Ok(status),
                Step::NeedInput => {
                    let read = self.stream.read(&mut self.buffer).await?;
                    if read == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.reader.push(&self.buffer[..read]);
                }
                Step::RequestHead(_) | Step::Abandoned(..) | Step::NotHttp(_) => {
                    return Err(not_http());
                }
            }
        }
    }
}

fn not_http() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1.1")
}

/// The bytes of request number `number`.
fn request(kind: u32, number: u32) -> Vec<u8> {
    let item = number % 6 + 1;
    let fields = format!("Host: shop.example\r\nUser-Agent: demo\r\nX-Request-Id: {number}\r\n");
    let quantity = number % 9 + 1;
    match kind % 8 {
        0 => format!("GET /items HTTP/1.1\r\n{fields}\r\n").into_bytes(),
        1 | 4 => format!("GET /items/{item} HTTP/1.1\r\n{fields}\r\n").into_bytes(),
        2 => format!("GET /search?q=tea HTTP/1.1\r\n{fields}\r\n").into_bytes(),
        3 | 6 => {
            let body = format!("{{\"item\": {item}, \"quantity\": {quantity}}}");
            format!(
                "POST /orders HTTP/1.1\r\n{fields}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        }
        5 => format!("DELETE /carts/{number} HTTP/1.1\r\n{fields}\r\n").into_bytes(),
        _ if number.is_multiple_of(3) => expected_upload(&fields, number),
        _ => chunked_upload(&fields, number),
    }
}

/// An upload in chunks of growing size, larger than a segment.
fn chunked_upload(fields: &str, number: u32) -> Vec<u8> {
    let mut bytes = format!("POST /uploads HTTP/1.1\r\n{fields}Transfer-Encoding: chunked\r\n\r\n")
        .into_bytes();
    let byte = b'a' + u8::try_from(number % 26).unwrap_or(0);
    for size in [100, 1000, 20_000] {
        bytes.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        bytes.resize(bytes.len() + size, byte);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// An upload that asks first (RFC 9110 §10.1.1).
fn expected_upload(fields: &str, number: u32) -> Vec<u8> {
    let size = 5000 + usize::try_from(number % 1000).unwrap_or(0);
    let mut bytes =
        format!("POST /uploads HTTP/1.1\r\n{fields}Content-Length: {size}\r\n").into_bytes();
    bytes.extend_from_slice(EXPECT);
    bytes.resize(bytes.len() + size, b'e');
    bytes
}

/// The field that asks first, at the end of a head.
const EXPECT: &[u8] = b"Expect: 100-continue\r\n\r\n";

const CLIENTS: u32 = 16;
const REQUESTS_PER_CONNECTION: u32 = 40;
const PIPELINED_EVERY: u32 = 10;
