//! Where messages come from: a thread for each input, which ends when the input does or when it is stopped.

use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use rustls::ServerConfig;

use super::{Inbox, tls};
use crate::account::{Account, Counter, Reason};
use crate::admin::Readiness;
use crate::app::input::Input as CaptureFiles;
use crate::app::live::{self, Packets as WithPackets, WhenDropped, Workers};
use crate::app::middleware::{Asked, id_of, request_record, response_record};
use crate::app::{Finished, now_minus, say_what_is_captured};
use crate::capture::live::{Live, LiveError, give_up_capabilities};
use crate::cli::gor::{Files, Input, Job, Packets};
use crate::exchange::{Endpoints, Event, ExchangeId};
use crate::http1::framing::{self, Length};
use crate::http1::{BodyEnd, MessageLimits, MessageReader, RequestHead, Side, Step};
use crate::record::gor::{Kind, Record, Records};
use crate::record::{Format, Input as Recording};

/// Inputs that are open, and what is told to each.
pub(super) struct Opened {
    live: Vec<(usize, Vec<Live>, Packets)>,
    others: Vec<(usize, Other)>,
}

enum Other {
    Capture(Box<CaptureFiles>, Packets),
    Files(Files, Vec<PathBuf>),
    Listening(TcpListener, Speaks),
}

/// What is received.
#[derive(Clone)]
enum Speaks {
    Gor(Option<Arc<ServerConfig>>),
    Http,
}

/// The threads of the inputs.
pub(super) struct Running {
    captures: Vec<Workers>,
    threads: Vec<JoinHandle<(Account, anyhow::Result<()>)>>,
}

/// Held as long as inputs are to go on.
pub(super) struct StopInputs {
    captures: Vec<live::Stop>,
    open: Option<Sender<()>>,
}

impl StopInputs {
    pub(super) fn stop(&mut self) {
        self.captures.clear();
        self.open = None;
    }
}

/// Opens every input; then the right to capture is given up.
pub(super) fn open(job: &Job) -> anyhow::Result<Opened> {
    let mut opened = Opened {
        live: Vec::new(),
        others: Vec::new(),
    };
    for (index, (input, _)) in job.inputs.iter().enumerate() {
        let other = match input {
            Input::Live(config, packets) => {
                let live = Live::open(config).map_err(in_gors_words)?;
                say_what_is_captured(config, &live);
                opened.live.push((index, live, packets.clone()));
                continue;
            }
            Input::Capture(path, packets) => {
                let files = CaptureFiles::open(std::slice::from_ref(path), packets.tap.clone())?;
                Other::Capture(Box::new(files), packets.clone())
            }
            Input::Files(files) => Other::Files(files.clone(), matching(&files.pattern)?),
            Input::Tcp(address, identity) => {
                let tls = identity
                    .as_ref()
                    .map(|it| tls::server(&it.certificate, &it.key))
                    .transpose()?;
                Other::Listening(listen("--input-tcp", *address)?, Speaks::Gor(tls))
            }
            Input::Http(address) => {
                Other::Listening(listen("--input-http", *address)?, Speaks::Http)
            }
        };
        opened.others.push((index, other));
    }
    if !opened.live.is_empty() {
        give_up_capabilities();
    }
    Ok(opened)
}

/// The error with the flag that is meant here in the place of our own.
fn in_gors_words(error: LiveError) -> anyhow::Error {
    let (ours, meant) = match &error {
        LiveError::UnknownInterface { .. } | LiveError::InterfaceDown { .. } => {
            ("--interface:", "--input-raw:")
        }
        LiveError::Buffer { .. } => ("--buffer:", "--input-raw-buffer-size:"),
        LiveError::Filter { .. } => ("--filter:", "--input-raw-bpf-filter:"),
        _ => return error.into(),
    };
    match error.to_string().strip_prefix(ours) {
        Some(what) => anyhow!("{meant}{what}"),
        None => error.into(),
    }
}

fn listen(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = crate::serve::listen(address)
        .with_context(|| format!("{flag}: cannot listen on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "{flag} listens");
    Ok(listener)
}

/// The files that a pattern names, in order.
fn matching(pattern: &str) -> anyhow::Result<Vec<PathBuf>> {
    if Path::new(pattern).is_file() {
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let found =
        glob::glob(pattern).with_context(|| format!("--input-file {pattern}: no pattern"))?;
    let files: Vec<PathBuf> = found
        .filter_map(Result::ok)
        .filter(|path| path.is_file())
        .collect();
    if files.is_empty() && Path::new(pattern).is_dir() {
        bail!("--input-file {pattern}: this is a folder; name the files in it: '{pattern}/*.gor'");
    }
    if files.is_empty() {
        bail!("--input-file {pattern}: there is no such file");
    }
    Ok(files)
}

/// Starts a thread for each input.
pub(super) fn start(opened: Opened, items: &Inbox) -> anyhow::Result<(Running, StopInputs)> {
    let (open, stopped) = bounded(0);
    let mut running = Running {
        captures: Vec::new(),
        threads: Vec::new(),
    };
    let mut stop = StopInputs {
        captures: Vec::new(),
        open: Some(open),
    };
    let mut readiness = Readiness::default();
    for (input, live, packets) in opened.live {
        let ready = readiness.latch("the capture is not open");
        let (worker, its) = live::start(
            live,
            &packets.tap,
            WithPackets::Passing,
            WhenDropped::Messages,
            None,
            None,
            ready,
        )?;
        let batches = worker.batches.clone();
        let mut messages = Messages::new(&packets);
        let to = items.clone();
        running.spawn("raw", move || {
            for batch in batches {
                for event in batch {
                    if let Some(record) = messages.of(event)
                        && !to.put(input, record)
                    {
                        return (Account::new(), Ok(()));
                    }
                }
            }
            (Account::new(), Ok(()))
        })?;
        running.captures.push(worker);
        stop.captures.push(its);
    }
    for (input, other) in opened.others {
        let (to, stopped) = (items.clone(), stopped.clone());
        match other {
            Other::Capture(files, packets) => {
                running.spawn("pcap", move || {
                    read_capture(*files, &packets, input, &to, &stopped)
                })?;
            }
            Other::Files(files, paths) => {
                running.spawn("file", move || {
                    read_files(&files, &paths, input, &to, &stopped)
                })?;
            }
            Other::Listening(listener, speaks) => {
                running.spawn("listen", move || {
                    accept(&listener, &speaks, input, &to, &stopped)
                })?;
            }
        }
    }
    Ok((running, stop))
}

impl Running {
    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce() -> (Account, anyhow::Result<()>) + Send + 'static,
    ) -> anyhow::Result<()> {
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .context("starting a thread")?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits for the end of all; what they counted, and the first thing that went wrong.
    pub(super) fn join(self) -> (Account, anyhow::Result<()>) {
        let mut account = Account::new();
        let mut outcome = Ok(());
        for worker in self.captures {
            let (captured, ended) = worker.join();
            account.merge(&captured);
            outcome = outcome.and(ended);
        }
        for thread in self.threads {
            let (counted, ended) = thread
                .join()
                .unwrap_or_else(|_| (Account::new(), Err(anyhow!("an input's thread panicked"))));
            account.merge(&counted);
            outcome = outcome.and(ended);
        }
        (account, outcome)
    }
}

/// Turns what a tap finds into messages.
struct Messages {
    responses: bool,
    real_ip: Option<String>,
    asked: Asked,
}

impl Messages {
    fn new(packets: &Packets) -> Self {
        Self {
            responses: packets.responses,
            real_ip: packets.real_ip.clone(),
            asked: Asked::default(),
        }
    }

    fn of(&mut self, event: Event) -> Option<Record> {
        match event {
            Event::Request(request) if request.completeness.is_whole() => {
                let mut record = request_record(&request);
                if self.responses {
                    self.asked.insert(request.id, record.id.clone());
                }
                if let Some(field) = &self.real_ip {
                    let client = request.endpoints.client.ip().to_canonical().to_string();
                    record.payload = crate::goreplay::with_field(&record.payload, field, &client);
                }
                Some(record)
            }
            Event::Response { id, response }
                if self.responses && response.completeness.is_whole() =>
            {
                Some(response_record(self.asked.take(id)?, &response))
            }
            _ => None,
        }
    }
}

fn is_stopped(stopped: &Receiver<()>) -> bool {
    stopped
        .try_recv()
        .is_err_and(|error| error.is_disconnected())
}

fn read_capture(
    mut files: CaptureFiles,
    packets: &Packets,
    input: usize,
    to: &Inbox,
    stopped: &Receiver<()>,
) -> (Account, anyhow::Result<()>) {
    let mut messages = Messages::new(packets);
    let mut outcome = Ok(());
    loop {
        match files.next_event() {
            Ok(Some(event)) => {
                if is_stopped(stopped) {
                    break;
                }
                if let Some(record) = messages.of(event)
                    && !to.put(input, record)
                {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => outcome = Err(error),
        }
    }
    (files.finish(), outcome)
}

/// Records of several files in order of time.
struct Merged {
    files: Vec<Source>,
    depth: usize,
    /// So many bytes of each file are put in order at most.
    most_bytes: usize,
}

struct Source {
    path: PathBuf,
    records: Option<Records<Box<dyn Read + Send>>>,
    ahead: BinaryHeap<Ahead>,
    ahead_bytes: usize,
    taken: u64,
}

/// The greatest is the earliest; of the same time, requests come before answers.
#[derive(PartialEq, Eq)]
struct Ahead {
    key: std::cmp::Reverse<(crate::time::Timestamp, Kind, u64)>,
    record: Record,
}

impl Ord for Ahead {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl PartialOrd for Ahead {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Merged {
    fn open(paths: &[PathBuf], depth: usize) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        for path in paths {
            let recording = Recording::open(path)?;
            if recording.format() != Format::Gor {
                let path = path.display();
                let way = match recording.format() {
                    Format::Pcap | Format::PcapNg => format!("--input-raw {path}:PORT reads that"),
                    _ => "'shadowtap replay' reads that".to_owned(),
                };
                let format = recording.format();
                bail!("--input-file {path}: this is not GoReplay's format but {format}; {way}");
            }
            files.push(Source {
                path: path.clone(),
                records: Some(Records::new(recording.into_content()?)),
                ahead: BinaryHeap::new(),
                ahead_bytes: 0,
                taken: 0,
            });
        }
        let most_bytes = MOST_AHEAD_BYTES / files.len().max(1);
        Ok(Self {
            files,
            depth,
            most_bytes,
        })
    }

    fn next(&mut self, account: &mut Account) -> Option<Record> {
        for source in &mut self.files {
            source.fill(self.depth, self.most_bytes, account);
        }
        let earliest = self
            .files
            .iter_mut()
            .filter(|source| !source.ahead.is_empty())
            .max_by(|a, b| {
                let key = |source: &Source| source.ahead.peek().map(|it| (it.key.0.0, it.key.0.1));
                // The greatest is the earliest; an earlier file before a later one.
                key(b).cmp(&key(a)).then(std::cmp::Ordering::Greater)
            })?;
        let record = earliest.ahead.pop()?.record;
        earliest.ahead_bytes -= record.payload.len();
        Some(record)
    }
}

impl Source {
    fn fill(&mut self, depth: usize, most_bytes: usize, account: &mut Account) {
        while self.ahead.len() < depth
            && (self.ahead.is_empty() || self.ahead_bytes < most_bytes)
            && let Some(records) = &mut self.records
        {
            match records.next_record() {
                Some(Ok(record)) => {
                    self.taken += 1;
                    self.ahead_bytes += record.payload.len();
                    self.ahead.push(Ahead {
                        key: std::cmp::Reverse((record.time, record.kind, self.taken)),
                        record,
                    });
                }
                Some(Err(damage)) => {
                    tracing::warn!("{}: {damage}", self.path.display());
                    account.count(Counter::Messages);
                    account.drop(Reason::MessageMalformed);
                }
                None => self.records = None,
            }
        }
    }
}

fn read_files(
    files: &Files,
    paths: &[PathBuf],
    input: usize,
    to: &Inbox,
    stopped: &Receiver<()>,
) -> (Account, anyhow::Result<()>) {
    let mut account = Account::new();
    loop {
        let mut merged = match Merged::open(paths, files.read_depth) {
            Ok(merged) => merged,
            Err(error) => return (account, Err(error)),
        };
        let mut began = None;
        let mut latest = None;
        let mut offset = Duration::ZERO;
        while let Some(record) = merged.next(&mut account) {
            let started = *began.get_or_insert_with(Instant::now);
            let pause = latest.map_or(Duration::ZERO, |latest| record.time.since(latest));
            offset += files.max_wait.map_or(pause, |most| pause.min(most));
            latest = latest.max(Some(record.time));
            let due = started + offset.div_f64(files.speed.max(1e-6));
            let ended = if due > Instant::now() {
                stopped
                    .recv_deadline(due)
                    .is_err_and(|error| error.is_disconnected())
            } else {
                is_stopped(stopped)
            };
            if ended || !to.put(input, record) {
                return (account, Ok(()));
            }
        }
        if !files.looped || began.is_none() {
            return (account, Ok(()));
        }
    }
}

/// What is in the files, without sending anything.
pub(super) fn dry_run(job: &Job) -> anyhow::Result<Finished> {
    let mut account = Account::new();
    for (input, _) in &job.inputs {
        let Input::Files(files) = input else { continue };
        let paths = matching(&files.pattern)?;
        let mut merged = Merged::open(&paths, files.read_depth)?;
        let (mut records, mut bytes, mut disordered) = (0u64, 0u64, 0u64);
        let mut latest: Option<crate::time::Timestamp> = None;
        let (mut first_wait, mut shortest, mut longest) = (None, Duration::MAX, Duration::ZERO);
        let mut offset = Duration::ZERO;
        while let Some(record) = merged.next(&mut account) {
            records += 1;
            bytes += record.payload.len() as u64;
            if let Some(latest) = latest {
                disordered += u64::from(record.time < latest);
                let pause = record.time.since(latest);
                let wait = files.max_wait.map_or(pause, |most| pause.min(most));
                first_wait.get_or_insert(wait);
                shortest = shortest.min(wait);
                longest = longest.max(wait);
                offset += wait;
            }
            latest = latest.max(Some(record.time));
        }
        let shortest = if first_wait.is_some() {
            shortest
        } else {
            Duration::ZERO
        };
        let text = format!(
            "{}: {} files\nRecords: {records}\nBytes: {bytes}\nFirst wait: {:?}\nShortest wait: {shortest:?}\n\
             Longest wait: {longest:?}\nExpected duration: {:?}\nOut of order: {disordered}\n",
            files.pattern,
            paths.len(),
            first_wait.unwrap_or_default(),
            offset.div_f64(files.speed.max(1e-6)),
        );
        std::io::stdout().write_all(text.as_bytes())?;
    }
    Ok(Finished {
        account,
        targets: Vec::new(),
        printed: true,
        compared: None,
        outcome: Ok(()),
    })
}

/// Accepts connections until it is stopped; then they are closed.
fn accept(
    listener: &TcpListener,
    speaks: &Speaks,
    input: usize,
    to: &Inbox,
    stopped: &Receiver<()>,
) -> (Account, anyhow::Result<()>) {
    let account = Arc::new(Mutex::new(Account::new()));
    let mut open: Vec<(TcpStream, JoinHandle<()>)> = Vec::new();
    let mut number = 0u64;
    loop {
        match listener.accept() {
            Ok((stream, client)) => {
                open.retain(|(_, thread)| !thread.is_finished());
                let ready = stream
                    .set_nonblocking(false)
                    .and_then(|()| stream.try_clone());
                let Ok(ours) = ready else { continue };
                if open.len() >= MOST_CONNECTIONS {
                    tracing::warn!(%client, "too many connections; this one is closed");
                    continue;
                }
                number += 1 << 32;
                let received = Received {
                    stream,
                    client,
                    input,
                    to: to.clone(),
                    account: Arc::clone(&account),
                    number,
                };
                let speaks = speaks.clone();
                let thread = thread::Builder::new()
                    .name("receive".to_owned())
                    .spawn(move || received.serve(&speaks));
                match thread {
                    Ok(thread) => open.push((ours, thread)),
                    Err(error) => tracing::warn!(%error, "a thread could not be started"),
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let pause = stopped.recv_timeout(ACCEPT_EVERY);
                if pause.is_err_and(|error| error.is_disconnected()) {
                    break;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                let pause = stopped.recv_timeout(ACCEPT_EVERY);
                if pause.is_err_and(|error| error.is_disconnected()) {
                    break;
                }
            }
        }
    }
    for (stream, thread) in open {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
        if thread.join().is_err() {
            tracing::error!("a receiving thread panicked");
        }
    }
    let account = account
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    (account, Ok(()))
}

/// A connection that messages come over.
struct Received {
    stream: TcpStream,
    client: SocketAddr,
    input: usize,
    to: Inbox,
    account: Arc<Mutex<Account>>,
    number: u64,
}

impl Received {
    fn serve(mut self, speaks: &Speaks) {
        let served = match speaks {
            Speaks::Gor(tls) => self.records(tls.as_ref()),
            Speaks::Http => self.requests().map_err(Into::into),
        };
        if let Err(error) = served {
            tracing::debug!(client = %self.client, %error, "a connection has broken");
        }
    }

    fn count(&self, reason: Reason) {
        let mut guard = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let account: &mut Account = &mut guard;
        account.count(Counter::Messages);
        account.drop(reason);
    }

    fn records(&mut self, tls: Option<&Arc<ServerConfig>>) -> anyhow::Result<()> {
        let mut records = Records::live(tls::incoming(tls, self.stream.try_clone()?)?);
        while let Some(record) = records.next_record() {
            match record {
                Ok(record) => {
                    let record = Record {
                        offset: 0,
                        ..record
                    };
                    if !self.to.put(self.input, record) {
                        return Ok(());
                    }
                }
                Err(damage) => {
                    tracing::warn!(client = %self.client, "{damage}");
                    self.count(Reason::MessageMalformed);
                }
            }
        }
        Ok(())
    }

    fn requests(&mut self) -> std::io::Result<()> {
        let mut reader = MessageReader::new(Side::Requests, MessageLimits::default());
        let mut buffer = vec![0; 16 << 10];
        let mut head: Option<RequestHead> = None;
        let server = self.stream.local_addr()?;
        loop {
            match reader.poll() {
                Step::NeedInput => {
                    let read = self.stream.read(&mut buffer)?;
                    if read == 0 {
                        return Ok(());
                    }
                    reader.push(&buffer[..read]);
                }
                Step::RequestHead(whole) => {
                    let Length::Framed(framing) = framing::of_request(&whole).0 else {
                        return self.refuse(Reason::MessageMalformed, "400 Bad Request");
                    };
                    if whole.fields().has_token("expect", "100-continue") {
                        self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                    }
                    reader.frame(framing);
                    head = Some(whole);
                }
                Step::Body(body, BodyEnd::Whole) => {
                    let Some(head) = head.take() else {
                        return Ok(());
                    };
                    let closes = head.is_http10() || head.fields().has_token("connection", "close");
                    self.number += 1;
                    let endpoints = Endpoints {
                        client: self.client,
                        server,
                    };
                    let record = Record {
                        kind: Kind::Request,
                        id: id_of(
                            endpoints,
                            ExchangeId((self.number >> 32).wrapping_add(self.number)),
                        ),
                        time: now_minus(Duration::ZERO),
                        latency: None,
                        payload: [&head.bytes()[..], &body.wire].concat().into(),
                        offset: 0,
                    };
                    let input = self.input;
                    if !self.to.put(input, record) {
                        return Ok(());
                    }
                    self.stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
                    if closes {
                        return Ok(());
                    }
                }
                Step::Body(_, BodyEnd::TooLarge) => {
                    return self.refuse(Reason::MessageTooLarge, "413 Content Too Large");
                }
                Step::Body(..) | Step::Abandoned(..) | Step::NotHttp(_) | Step::ResponseHead(_) => {
                    return self.refuse(Reason::MessageMalformed, "400 Bad Request");
                }
            }
        }
    }

    fn refuse(&mut self, reason: Reason, status: &str) -> std::io::Result<()> {
        self.count(reason);
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        self.stream.write_all(answer.as_bytes())
    }
}

/// Bytes of all files that are put in order.
const MOST_AHEAD_BYTES: usize = 8 << 20;

/// Connections that may be open at a time.
const MOST_CONNECTIONS: usize = 1024;

/// How often is looked for a new connection.
const ACCEPT_EVERY: Duration = Duration::from_millis(20);
