//! Filters and rewrites, and dealing messages out to the outputs.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use ahash::AHashSet;
use anyhow::anyhow;
use bytes::Bytes;
use crossbeam_channel::Receiver;

use super::files::FileWriter;
use super::http::HttpSender;
use super::tcp::TcpSender;
use super::{Common, Done, Intake, Tracked, seed};
use crate::account::{Account, Counter, Reason};
use crate::cli::gor::{Job, Output, Split};
use crate::goreplay::{Limiter, Modifier, Verdict, fnv1a_32};
use crate::record::gor::{Kind, Record};

/// Everything behind the middleware.
pub(super) struct Delivery {
    modifier: Modifier,
    /// Requests that were left out lately: their answers go the same way.
    left_out: LeftOut,
    outputs: Vec<Outlet>,
    split: Split,
    turn: usize,
    started: Instant,
    account: Account,
    failure: Option<anyhow::Error>,
    common: Arc<Common>,
}

struct Outlet {
    sender: Sender,
    limiter: Option<Limiter>,
}

enum Sender {
    Http(Box<HttpSender>),
    File(Box<FileWriter>),
    Stdout,
    Null,
    Tcp(TcpSender),
}

impl Delivery {
    pub(super) fn open(job: &Job, common: &Arc<Common>, is_live: bool) -> anyhow::Result<Self> {
        let mut outputs = Vec::new();
        for (output, limit) in &job.outputs {
            let sender = match output {
                Output::Http(http) => Sender::Http(Box::new(HttpSender::start(http, common)?)),
                Output::File(file) => Sender::File(Box::new(FileWriter::new(file))),
                Output::Stdout => Sender::Stdout,
                Output::Null => Sender::Null,
                Output::Tcp(tcp) => Sender::Tcp(TcpSender::start(tcp, is_live, common)?),
            };
            outputs.push(Outlet {
                sender,
                limiter: limit.map(|limit| Limiter::new(limit, seed())),
            });
        }
        Ok(Self {
            modifier: job.modifier.clone(),
            left_out: LeftOut::default(),
            outputs,
            split: job.split,
            turn: 0,
            started: Instant::now(),
            account: Account::new(),
            failure: None,
            common: Arc::clone(common),
        })
    }

    /// Counts a message that comes from the middleware: it enters once more.
    pub(super) fn count_message(&mut self) {
        self.account.count(Counter::Messages);
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Filters and changes a message, and gives it to the outputs whose turn it is.
    pub(super) fn deliver(&mut self, mut record: Record) {
        if record.kind == Kind::Request {
            match self.modifier.apply(&record.payload) {
                Verdict::Pass(payload) => record.payload = payload,
                verdict => {
                    self.account.drop(if verdict == Verdict::SampledOut {
                        Reason::MessageSampledOut
                    } else {
                        Reason::MessageFiltered
                    });
                    self.left_out.insert(record.id);
                    return;
                }
            }
        } else if self.left_out.has(&record.id) {
            self.account.drop(Reason::MessageFiltered);
            return;
        }
        self.account.count(Counter::MessagesEmitted);
        let count = self.outputs.len().max(1);
        let chosen = match self.split {
            Split::Copy => None,
            Split::InTurn => {
                self.turn = (self.turn + 1) % count;
                Some(self.turn)
            }
            Split::BySession => {
                let session = &record.id[..record.id.len().min(SESSION_DIGITS)];
                Some(fnv1a_32(session) as usize % count)
            }
        };
        let now = self.started.elapsed();
        for (index, outlet) in self.outputs.iter_mut().enumerate() {
            if chosen.is_some_and(|chosen| chosen != index) {
                continue;
            }
            let is_within = |limiter: &mut Option<Limiter>| {
                limiter.as_mut().is_none_or(|limiter| limiter.takes(now))
            };
            if let Sender::Http(http) = &mut outlet.sender {
                if record.kind == Kind::Request {
                    let is_within = is_within(&mut outlet.limiter);
                    if !http.send(&record, is_within) {
                        // No whole request: there is nothing to send. GoReplay drops it unsaid.
                        self.account.count(Counter::RecordsOffered);
                        self.account.drop(Reason::RecordIncomplete);
                    }
                }
                continue;
            }
            self.account.count(Counter::RecordsOffered);
            if !is_within(&mut outlet.limiter) {
                self.account.drop(Reason::RecordLimited);
                continue;
            }
            let written = match &mut outlet.sender {
                Sender::Http(_) => continue,
                Sender::Null => {
                    self.account.count(Counter::RecordsWritten);
                    continue;
                }
                Sender::File(file) => file.write(&record, &mut self.account),
                Sender::Stdout => write_out(&record, &mut self.account),
                Sender::Tcp(tcp) => {
                    tcp.send(&record, &mut self.account);
                    continue;
                }
            };
            if let Err(error) = written
                && self.failure.is_none()
            {
                self.failure = Some(error);
            }
        }
    }

    /// What is to be done now and then.
    pub(super) fn tick(&mut self) {
        for outlet in &mut self.outputs {
            let done = match &mut outlet.sender {
                Sender::Http(http) => {
                    http.tick();
                    Ok(())
                }
                Sender::File(file) => file.flush_if_due(),
                Sender::Tcp(tcp) => {
                    tcp.tick();
                    Ok(())
                }
                Sender::Stdout | Sender::Null => Ok(()),
            };
            if let Err(error) = done
                && self.failure.is_none()
            {
                self.failure = Some(error);
            }
        }
    }

    /// Ends every output; the targets first, since their last answers go to the others.
    pub(super) fn finish(mut self, tracked: &Receiver<Tracked>, intake: &mut Intake) -> Done {
        let mut targets = Vec::new();
        let mut others = Vec::new();
        for outlet in std::mem::take(&mut self.outputs) {
            match outlet.sender {
                Sender::Http(http) => {
                    for summary in http.finish(self.common.until()) {
                        self.account.merge(&summary.account);
                        targets.push(summary);
                    }
                }
                sender => others.push(Outlet {
                    sender,
                    limiter: outlet.limiter,
                }),
            }
        }
        self.outputs = others;
        for record in tracked.try_iter() {
            if let Some(record) = intake.take_tracked(record) {
                self.deliver(record);
            }
        }
        for outlet in std::mem::take(&mut self.outputs) {
            match outlet.sender {
                Sender::File(file) => {
                    if let Err(error) = file.finish() {
                        self.failure.get_or_insert(error);
                    }
                }
                Sender::Tcp(tcp) => self.account.merge(&tcp.finish()),
                Sender::Http(_) | Sender::Stdout | Sender::Null => {}
            }
        }
        Done {
            account: self.account,
            targets,
            outcome: self.failure.map_or(Ok(()), Err),
        }
    }
}

fn write_out(record: &Record, account: &mut Account) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    if !record.append(&mut bytes) {
        account.drop(Reason::RecordIncomplete);
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(&bytes).and_then(|()| out.flush()) {
        Ok(()) => account.count(Counter::RecordsWritten),
        Err(error) => {
            account.drop(Reason::WriteFailed);
            return Err(anyhow::Error::from(error).context("the standard output"));
        }
    }
    Ok(())
}

/// The ids of requests that were left out lately.
#[derive(Default)]
struct LeftOut {
    ids: AHashSet<Bytes>,
    by_age: VecDeque<Bytes>,
}

impl LeftOut {
    fn insert(&mut self, id: Bytes) {
        if self.ids.insert(id.clone()) {
            self.by_age.push_back(id);
        }
        if self.by_age.len() > MOST_LEFT_OUT
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    fn has(&self, id: &Bytes) -> bool {
        self.ids.contains(id)
    }
}

/// An error for the outputs of one file.
pub(super) fn file_error(
    path: &std::path::Path,
    what: &str,
    error: &std::io::Error,
) -> anyhow::Error {
    anyhow!("--output-file: {}: {what}: {error}", path.display())
}

/// Requests whose answers are left out with them.
const MOST_LEFT_OUT: usize = 1 << 16;

/// The digits of an id that messages of one connection share: ports and the client's address. GoReplay takes four more, which
/// are those of a number that grows, so that a long connection goes to two outputs there.
const SESSION_DIGITS: usize = 16;
