//! What the tests share: targets that behave as told, and an engine with its outcomes.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shadowtap::account::{Counter, Reason};
use shadowtap::exchange::{Completeness, ConnectionId, Doubts, Endpoints, ExchangeId, Request};
use shadowtap::http1::{Body, Framing, RequestHead, framing, head_length};
use shadowtap::replay::{
    Answer, Engine, Feeder, Outcome, Pacer, Replay, ReplayConfig, Schedule, Snapshot,
};
use shadowtap::time::Timestamp;

pub(super) fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

pub(super) fn answered(replay: Replay) -> Answer {
    match replay.outcome {
        Outcome::Answered(answer) => *answer,
        other => panic!("{other:?}"),
    }
}

pub(super) fn failed(replay: &Replay) -> Reason {
    match replay.outcome {
        Outcome::Failed(reason) => reason,
        ref other => panic!("{other:?}"),
    }
}

pub(super) fn skipped(replay: &Replay) -> Reason {
    match replay.outcome {
        Outcome::Skipped(reason) => reason,
        ref other => panic!("{other:?}"),
    }
}

/// Waits until `condition` holds, looking again and again.
pub(super) fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "it never came to be");
        thread::park_timeout(Duration::from_millis(1));
    }
}

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a [`Target`] does once it has read a request.
pub(super) enum Act {
    /// Writes these bytes.
    Answer(Vec<u8>),
    /// Writes these bytes, then closes.
    AnswerAndClose(Vec<u8>),
    /// Closes with RST.
    Reset,
    /// Leaves the rest of the exchange to this.
    Drive(Box<dyn FnOnce(&mut TcpStream) + Send>),
    /// Says nothing until the client is gone.
    Hang,
    /// Answers without end.
    Endless,
}

/// A request as a target read it.
pub(super) struct Seen<'a> {
    pub(super) target: &'a str,
}

/// A raw TCP server that keeps the exact bytes of each connection.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Target {
    pub(super) fn start(act: impl Fn(&Seen<'_>) -> Act + Send + Sync + 'static) -> Self {
        Self::on(listener(), act)
    }

    pub(super) fn on(
        listener: TcpListener,
        act: impl Fn(&Seen<'_>) -> Act + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let (all, act) = (Arc::clone(&seen), Arc::new(act));
        thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                all.lock().expect("no panic").push(Vec::new());
                let (all, act, stream) = (
                    Arc::clone(&all),
                    Arc::clone(&act),
                    stream.expect("a stream"),
                );
                thread::spawn(move || serve(index, stream, &all, &*act));
            }
        });
        Self { address, seen }
    }

    pub(super) fn config(&self) -> ReplayConfig {
        live(self.address)
    }

    /// The request targets on each connection that carried any.
    pub(super) fn targets(&self) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for bytes in self.connections() {
            let mut rest = &bytes[..];
            let mut targets = Vec::new();
            while let Some(length) = request_length(rest) {
                let line = String::from_utf8_lossy(&rest[..length]).into_owned();
                targets.push(line.split_whitespace().nth(1).expect("a target").to_owned());
                rest = &rest[length..];
            }
            all.push(targets);
        }
        all
    }

    /// What came on each connection, in the order in which they were opened.
    pub(super) fn connections(&self) -> Vec<Vec<u8>> {
        self.seen.lock().expect("no panic").clone()
    }
}

pub(super) fn serve(
    index: usize,
    mut stream: TcpStream,
    all: &Mutex<Vec<Vec<u8>>>,
    act: &(dyn Fn(&Seen<'_>) -> Act + Send + Sync),
) {
    let mut unread = Vec::new();
    loop {
        let length = loop {
            if let Some(length) = request_length(&unread) {
                break length;
            }
            let mut chunk = [0; 65536];
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(len) => {
                    unread.extend_from_slice(&chunk[..len]);
                    all.lock().expect("no panic")[index].extend_from_slice(&chunk[..len]);
                }
            }
        };
        let message: Vec<u8> = unread.drain(..length).collect();
        let line = String::from_utf8_lossy(&message).into_owned();
        let seen = Seen {
            target: line.split_whitespace().nth(1).unwrap_or_default(),
        };
        match act(&seen) {
            Act::Answer(bytes) => {
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
            Act::AnswerAndClose(bytes) => {
                let _ = stream.write_all(&bytes);
                return;
            }
            Act::Reset => {
                let socket = socket2::Socket::from(stream);
                let _ = socket.set_linger(Some(Duration::ZERO));
                return;
            }
            Act::Drive(drive) => drive(&mut stream),
            Act::Endless => {
                let mut bytes: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
                while stream.write_all(bytes).is_ok() {
                    bytes = &[b'x'; 1000];
                }
                return;
            }
            Act::Hang => {
                let _ = io::copy(&mut stream, &mut io::sink());
                return;
            }
        }
    }
}

/// The length of the request that `bytes` begins with, once it is whole.
pub(super) fn request_length(bytes: &[u8]) -> Option<usize> {
    let head_len = head_length(bytes, &mut 0)?;
    let head = RequestHead::parse(Bytes::copy_from_slice(&bytes[..head_len])).expect("a head");
    let body = &bytes[head_len..];
    let body_len = match framing::of_request(&head).0 {
        framing::Length::Framed(Framing::Length(length)) => usize::try_from(length).expect("small"),
        framing::Length::Framed(Framing::Chunked) => {
            let end = body
                .windows(5)
                .position(|window| window == b"\n0\r\n" as &[u8] || window == b"\n0\r\nT")?;
            end + body[end..]
                .windows(4)
                .position(|window| window == b"\r\n\r\n")?
                + 4
        }
        _ => 0,
    };
    (body.len() >= body_len).then_some(head_len + body_len)
}

/// An engine, and what came of each request that it was offered.
pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) feeder: Feeder,
    pub(super) outcomes: mpsc::Receiver<Replay>,
    pub(super) offered: u64,
    /// Behind how many requests which connection was closed.
    pub(super) closings: Vec<(u64, u64)>,
    pub(super) pacer: Pacer,
}

impl Bench {
    pub(super) fn start(mut config: ReplayConfig, change: impl FnOnce(&mut ReplayConfig)) -> Self {
        change(&mut config);
        let (sender, outcomes) = mpsc::channel();
        let engine = Engine::start(config, move |replay| {
            let _ = sender.send(replay);
        })
        .expect("an engine");
        Self {
            feeder: engine.feeder(),
            engine,
            outcomes,
            offered: 0,
            closings: Vec::new(),
            pacer: Pacer::new(Schedule::Immediately),
        }
    }

    pub(super) fn offer(&mut self, connection: u64, message: &[u8]) {
        self.offer_as(connection, message, |_| {});
    }

    pub(super) fn offer_as(
        &mut self,
        connection: u64,
        message: &[u8],
        change: impl FnOnce(&mut Request),
    ) {
        self.offered += 1;
        let mut request = request(self.offered, connection, message);
        change(&mut request);
        let due = self.pacer.due(request.last_byte, Instant::now());
        self.feeder.offer_due(Arc::new(request), due, false);
        self.feeder.flush();
    }

    /// Offers a request that its client sent before the answer to the one before.
    pub(super) fn offer_pipelined(&mut self, connection: u64, message: &[u8]) {
        self.offered += 1;
        let request = Arc::new(request(self.offered, connection, message));
        self.feeder.offer_due(request, Instant::now(), true);
        self.feeder.flush();
    }

    pub(super) fn closed(&mut self, connection: u64) {
        self.closings.push((self.offered, connection));
        self.feeder.closed(ConnectionId(connection));
        self.feeder.flush();
    }

    /// The next outcome.
    pub(super) fn next(&self) -> Replay {
        self.outcomes.recv_timeout(LONG).expect("an outcome")
    }

    pub(super) fn finish(self) -> End {
        let snapshot = self.engine.finish();
        End::of(snapshot, &self.outcomes)
    }

    pub(super) fn drain(self, grace: Duration) -> End {
        let snapshot = self.engine.drain(grace);
        End::of(snapshot, &self.outcomes)
    }
}

/// How a bench ended.
pub(super) struct End {
    pub(super) snapshot: Snapshot,
    pub(super) answered: u64,
    /// Those that nobody asked for yet.
    pub(super) outcomes: Vec<Replay>,
}

impl End {
    pub(super) fn of(snapshot: Snapshot, outcomes: &mpsc::Receiver<Replay>) -> Self {
        snapshot.account.check().expect("a balanced account");
        assert_eq!(snapshot.in_flight(), 0);
        assert_eq!((snapshot.queued_items, snapshot.queued_bytes), (0, 0));
        assert_eq!(snapshot.connections, 0);
        let outcomes: Vec<Replay> = outcomes.try_iter().collect();
        Self {
            answered: snapshot.account.get(Counter::ReplaysAnswered),
            snapshot,
            outcomes,
        }
    }

    pub(super) fn all_answered(&self, expected: usize) {
        let not: Vec<String> = self
            .outcomes
            .iter()
            .filter(|replay| !matches!(replay.outcome, Outcome::Answered(_)))
            .map(|replay| {
                format!(
                    "{:?}: {:?}",
                    text(replay.request.head.target()),
                    replay.outcome
                )
            })
            .collect();
        assert_eq!(not.len(), 0, "{not:?}");
        assert_eq!(self.answered, expected as u64);
    }
}

pub(super) fn live(address: SocketAddr) -> ReplayConfig {
    ReplayConfig::live(format!("http://{address}").parse().expect("a target"))
}

/// A port that nobody else gets and that refuses connections until it is told to listen.
pub(super) fn closed_port() -> (socket2::Socket, SocketAddr) {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address.as_socket().expect("IPv4"))
}

pub(super) fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port")
}

pub(super) fn request(id: u64, connection: u64, message: &[u8]) -> Request {
    let head_len = head_length(message, &mut 0).expect("a head");
    let message = Bytes::copy_from_slice(message);
    let head = RequestHead::parse(message.slice(..head_len)).expect("a head");
    let framing = match framing::of_request(&head).0 {
        framing::Length::Framed(framing) => framing,
        other => panic!("{other:?}"),
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    Request {
        id: ExchangeId(id),
        connection: ConnectionId(connection),
        endpoints: Endpoints {
            client: address,
            server: address,
        },
        first_byte: Timestamp::ZERO,
        last_byte: Timestamp::ZERO,
        body: Body {
            framing,
            wire: message.slice(head_len..),
            missing: 0,
        },
        head,
        doubts: Doubts::default(),
        completeness: Completeness::Whole,
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);
