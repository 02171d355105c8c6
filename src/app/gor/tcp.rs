//! `--output-tcp`: records to another instance, over several connections.

use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, bounded, never};
use rustls::ClientConfig;

use super::Common;
use super::http::Stats;
use super::tls::{self, Outgoing};
use crate::account::{Account, Counter, Reason};
use crate::cli::gor::TcpOutput;
use crate::goreplay::fnv1a_32;
use crate::record::gor::Record;
use crate::replay::{Budget, Permit};

/// A record that waits, as it is sent.
struct Waiting {
    bytes: Vec<u8>,
    room: Permit,
}

pub(super) struct TcpSender {
    workers: Vec<(Sender<Waiting>, JoinHandle<Account>)>,
    /// For what waits in all of them.
    room: Arc<Budget>,
    turn: usize,
    sticky: bool,
    waits: bool,
    stats: Option<Stats>,
}

impl TcpSender {
    pub(super) fn start(
        config: &TcpOutput,
        is_live: bool,
        common: &Arc<Common>,
    ) -> anyhow::Result<Self> {
        let tls = config
            .tls
            .map(|it| tls::client(it.skip_verify))
            .transpose()?;
        let mut workers = Vec::new();
        for number in 0..config.workers {
            let (records_in, records) = bounded(MOST_WAITING);
            let worker = Worker {
                address: config.address.clone(),
                common: Arc::clone(common),
                stream: None,
                tls: tls.clone(),
                account: Account::new(),
                is_down: false,
            };
            let thread = thread::Builder::new()
                .name(format!("tcp-{number}"))
                .spawn(move || worker.run(&records))
                .context("starting a thread")?;
            workers.push((records_in, thread));
        }
        Ok(Self {
            room: Budget::new(
                config.workers.saturating_mul(MOST_WAITING),
                MOST_WAITING_BYTES,
            ),
            workers,
            turn: 0,
            sticky: config.sticky,
            waits: !is_live,
            stats: config.stats.then(|| Stats::new("output_tcp", STATS_EVERY)),
        })
    }

    /// Sends a record, which is counted as offered.
    pub(super) fn send(&mut self, record: &Record, account: &mut Account) {
        let mut bytes = Vec::with_capacity(record.payload.len() + 96);
        if !record.append(&mut bytes) {
            account.drop(Reason::RecordIncomplete);
            return;
        }
        let count = self.workers.len();
        let index = if self.sticky {
            fnv1a_32(&record.id) as usize % count
        } else {
            self.turn = (self.turn + 1) % count;
            self.turn
        };
        let (worker, _) = &self.workers[index];
        let room = if self.waits {
            self.room.take(bytes.len())
        } else {
            self.room.try_take(bytes.len(), u32::MAX)
        };
        let is_taken = room.is_ok_and(|room| {
            let waiting = Waiting { bytes, room };
            if self.waits {
                worker.send(waiting).is_ok()
            } else {
                worker.try_send(waiting).is_ok()
            }
        });
        if !is_taken {
            account.drop(Reason::RecordQueueFull);
        }
    }

    pub(super) fn tick(&mut self) {
        if let Some(stats) = &mut self.stats
            && stats.is_due()
        {
            let waiting: usize = self.workers.iter().map(|(worker, _)| worker.len()).sum();
            stats.add(waiting as u64);
        }
    }

    /// Sends what waits, and closes.
    pub(super) fn finish(self) -> Account {
        let mut account = Account::new();
        let (senders, threads): (Vec<_>, Vec<_>) = self.workers.into_iter().unzip();
        drop(senders);
        for thread in threads {
            match thread.join() {
                Ok(sent) => account.merge(&sent),
                Err(_) => tracing::error!("a thread of --output-tcp panicked"),
            }
        }
        account
    }
}

struct Worker {
    address: String,
    common: Arc<Common>,
    stream: Option<Outgoing>,
    tls: Option<Arc<ClientConfig>>,
    account: Account,
    is_down: bool,
}

impl Worker {
    fn run(mut self, records: &Receiver<Waiting>) -> Account {
        while let Ok(first) = records.recv() {
            let mut batch = first;
            let mut more = Vec::new();
            while batch.bytes.len() < BATCH
                && let Ok(next) = records.try_recv()
            {
                batch.bytes.extend_from_slice(&next.bytes);
                more.push(next.room);
            }
            self.write(&batch.bytes, 1 + more.len() as u64);
            drop((batch.room, more));
        }
        if let Some(stream) = self.stream {
            stream.finish();
        }
        self.account
    }

    /// Writes records that belong together. A connection that breaks meanwhile costs them: some may have arrived, and
    /// nothing is sent twice.
    fn write(&mut self, batch: &[u8], count: u64) {
        if self.stream.as_mut().is_some_and(Outgoing::is_closed) {
            self.stream = None;
        }
        while self.stream.is_none() {
            match self.connect() {
                Ok(stream) => {
                    if std::mem::take(&mut self.is_down) {
                        tracing::info!(address = self.address, "--output-tcp is connected again");
                    }
                    self.stream = Some(stream);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_down, true) {
                        tracing::warn!(address = self.address, %error, "--output-tcp cannot connect; trying on");
                    }
                    if self.common.gives_up(Instant::now()) {
                        self.account.drop_n(Reason::WriteFailed, count);
                        return;
                    }
                    let _ = never::<()>().recv_timeout(RETRY);
                }
            }
        }
        let written = self.stream.as_mut().map(|stream| stream.write_all(batch));
        match written {
            Some(Ok(())) => self.account.add(Counter::RecordsWritten, count),
            Some(Err(_)) | None => {
                self.stream = None;
                self.account.drop_n(Reason::WriteFailed, count);
            }
        }
    }

    fn connect(&self) -> std::io::Result<Outgoing> {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut last = ErrorKind::AddrNotAvailable.into();
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(WRITE))?;
                    // Nothing is read but while hands are shaken.
                    stream.set_read_timeout(Some(CONNECT))?;
                    return Outgoing::over(stream, self.tls.as_ref(), host);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Records that wait for one connection, and the bytes of those that wait for any.
const MOST_WAITING: usize = 1000;
const MOST_WAITING_BYTES: usize = 32 << 20;

/// Bytes that are written together.
const BATCH: usize = 64 << 10;

const CONNECT: Duration = Duration::from_secs(5);
const WRITE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(200);
const STATS_EVERY: Duration = Duration::from_secs(5);
