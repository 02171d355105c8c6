//! The middleware: a program of the user's that requests pass through before they are sent, in GoReplay's protocol.
//!
//! ```text
//!  give ─► bounded queue ─► thread "middleware" ─► child's stdin     child's stdout ─► bounded queue ─► Outlet::take
//! ```
//!
//! * Requests, version 1's answers and the targets' answers are given to it; what it returns goes on, and what it keeps is
//!   filtered out. It may change messages, return them late, or make new ones.
//! * It never holds anybody up who does not want to wait: [`Patience::None`] refuses when the queue is full.
//! * One that ends is started again, after a pause that doubles up to [`LONGEST_PAUSE`]; one that does not read what waits
//!   for it within [`STALL`] is ended first. What was inside is counted as lost with it.
//! * Each message is counted exactly once: `offered + added = returned + Σ dropped` at the stage `middleware`.

mod child;
mod pending;
pub mod protocol;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use self::pending::Pending;
use crate::account::{Account, Counter, Reason};
use crate::record::gor::{Kind, Record};

/// What happens when the queue to the middleware is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// The message is dropped and counted: live traffic does not wait.
    None,
    /// Whoever gives it waits: a file can.
    Waits,
}

/// A command line, split at blanks as GoReplay splits it: no shell reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    program: String,
    arguments: Vec<String>,
}

impl std::str::FromStr for Command {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split_whitespace().map(str::to_owned);
        Ok(Self {
            program: words.next().ok_or("the command is empty")?,
            arguments: words.collect(),
        })
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.program)?;
        self.arguments
            .iter()
            .try_for_each(|argument| write!(f, " {argument}"))
    }
}

/// What came back.
#[derive(Debug)]
pub struct Returned<T> {
    /// The message.
    pub record: Record,
    /// What was given along with it; `None` of one that the middleware made, or returned again or too late.
    pub tag: Option<T>,
}

/// Where messages are given to the middleware. Cheap to clone.
pub struct Inlet<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Inlet<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

/// What the middleware returns, in that order.
pub struct Outlet<T> {
    returned: mpsc::Receiver<Waiting<T>>,
}

/// What came back and was not taken yet, and its share of the room for that.
type Waiting<T> = (Returned<T>, OwnedSemaphorePermit);

impl<T> Outlet<T> {
    /// The next one; `None` once the middleware has ended for good. Not for threads of an async runtime.
    pub fn take(&mut self) -> Option<Returned<T>> {
        self.returned.blocking_recv().map(|(returned, _)| returned)
    }
}

/// The running middleware.
pub struct Middleware<T> {
    shared: Arc<Shared<T>>,
    thread: JoinHandle<()>,
}

struct Shared<T> {
    patience: Patience,
    /// One that has not read for so long has stalled.
    stall: Duration,
    state: Mutex<State<T>>,
    /// There is room in the queue, or nobody will take from it.
    room: Condvar,
    /// There is something in the queue, or it is closed.
    filled: Notify,
    /// For what was returned and not taken yet, in KiB.
    room_returned: Arc<Semaphore>,
}

struct State<T> {
    queue: VecDeque<Record>,
    queued_bytes: usize,
    pending: Pending<T>,
    account: Account,
    phase: Phase,
    /// Why it was given up.
    failure: Option<String>,
    /// Nobody takes what it has returned.
    is_held_up: bool,
    /// When the middleware last gave a sign of life, or was given something.
    stirred: Instant,
}

impl<T> State<T> {
    /// Whether nothing is to be expected of it any more.
    fn is_quiet(&self, now: Instant) -> bool {
        self.queue.is_empty() && !self.is_held_up && now >= self.stirred + QUIET
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Running,
    /// It has ended, and is started again after a pause.
    Down,
    /// Nothing more is given to it; what is inside may come until then.
    Closing(Instant),
    /// For good.
    Ended,
}

impl<T: Send + 'static> Middleware<T> {
    /// Starts the command.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        command: Command,
        patience: Patience,
    ) -> Result<(Self, Inlet<T>, Outlet<T>), StartError> {
        Self::start_with(command, patience, STALL)
    }

    fn start_with(
        command: Command,
        patience: Patience,
        stall: Duration,
    ) -> Result<(Self, Inlet<T>, Outlet<T>), StartError> {
        let shared = Arc::new(Shared {
            patience,
            stall,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                queued_bytes: 0,
                pending: Pending::new(),
                account: Account::new(),
                phase: Phase::Running,
                failure: None,
                is_held_up: false,
                stirred: Instant::now(),
            }),
            room: Condvar::new(),
            filled: Notify::new(),
            room_returned: Arc::new(Semaphore::new(MOST_RETURNED_KIB as usize)),
        });
        let (sink, returned) = mpsc::channel(MOST_RETURNED);
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let its = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("middleware".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => runtime.block_on(child::supervise(&its, &command, &tell, &sink)),
                    Err(error) => {
                        // Whoever starts it waits for the word.
                        let _ = tell.send(Err(StartError::Thread(error)));
                    }
                }
                its.end();
            })
            .map_err(StartError::Thread)?;
        // A wrong command is said at once.
        told.recv().map_err(|_| {
            StartError::Thread(std::io::Error::other("the middleware's thread has ended"))
        })??;
        let inlet = Inlet {
            shared: Arc::clone(&shared),
        };
        Ok((Self { shared, thread }, inlet, Outlet { returned }))
    }

    /// What was counted so far.
    #[must_use]
    pub fn account(&self) -> Account {
        self.shared.lock().account.clone()
    }

    /// Waits until no request is inside or the middleware has been quiet for a while; `false` when `until` came first.
    pub fn settle(&self, until: Instant) -> bool {
        let mut state = self.shared.lock();
        loop {
            let now = Instant::now();
            let is_done = state.pending.requests() == 0 && state.queue.is_empty();
            let is_running = matches!(state.phase, Phase::Running | Phase::Down);
            if is_done || !is_running || state.is_quiet(now) {
                return true;
            }
            if now >= until {
                return false;
            }
            let waited = self.shared.room.wait_timeout(state, LOOK_EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Closes the child's standard input, so that it can end; what it still returns comes out of the [`Outlet`], which
    /// somebody must empty. One that does not end once it is quiet, or by `until`, is ended.
    pub fn close(&self, until: Instant) {
        self.shared.close(until);
    }

    /// Waits for the end after [`Self::close`]; the balanced account, and why it was given up, if it was.
    #[must_use]
    pub fn join(self) -> (Account, Option<String>) {
        if self.thread.join().is_err() {
            tracing::error!("the middleware's thread panicked");
            self.shared.end();
        }
        let state = self.shared.lock();
        let account = state.account.clone();
        let in_vain = account.get(Counter::MiddlewareReturned) == 0
            && account.dropped(Reason::MiddlewareDied) > 0;
        let failure = state.failure.clone().or_else(|| {
            in_vain.then(|| "--middleware: it has ended without returning anything".to_owned())
        });
        (account, failure)
    }
}

impl<T> Inlet<T> {
    /// As [`Middleware::close`].
    pub fn close(&self, until: Instant) {
        self.shared.close(until);
    }

    /// Gives a message to the middleware, or counts why not. `tag` comes back with it.
    pub fn give(&self, record: Record, tag: T) {
        let bytes = record.payload.len() + BOOKKEEPING;
        let mut state = self.shared.lock();
        state.account.count(Counter::MiddlewareOffered);
        loop {
            let refusal = match state.phase {
                Phase::Closing(_) | Phase::Ended => Reason::MiddlewareDown,
                Phase::Down if self.shared.patience == Patience::None => Reason::MiddlewareDown,
                Phase::Running | Phase::Down => {
                    let has_room = state.queue.is_empty()
                        || state.queue.len() < MOST_QUEUED
                            && state.queued_bytes + bytes <= MOST_QUEUED_BYTES;
                    if has_room {
                        break;
                    }
                    Reason::MiddlewareQueueFull
                }
            };
            if self.shared.patience == Patience::None || refusal == Reason::MiddlewareDown {
                state.account.drop(refusal);
                return;
            }
            let waited = self.shared.room.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if state.queue.is_empty() && state.pending.requests() == 0 {
            state.stirred = Instant::now();
        }
        let key = (record.kind, record.id.clone());
        let pushed_out = state.pending.insert(key, tag);
        state.account.drop_n(Reason::MiddlewareFiltered, pushed_out);
        state.queued_bytes += bytes;
        state.queue.push_back(record);
        drop(state);
        self.shared.filled.notify_one();
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic elsewhere leaves counters at worst one short, never unreadable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, until: Instant) {
        {
            let mut state = self.lock();
            state.phase = match state.phase {
                Phase::Running | Phase::Down => {
                    state.stirred = Instant::now();
                    Phase::Closing(until)
                }
                Phase::Closing(earlier) => Phase::Closing(earlier.min(until)),
                Phase::Ended => Phase::Ended,
            };
        }
        self.filled.notify_one();
        self.room.notify_all();
    }

    /// Takes what waits, up to a bound, as lines; `None` when there is nothing and nothing will come.
    fn take(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let mut lines = Vec::new();
        while lines.len() < BATCH
            && let Some(record) = state.queue.pop_front()
        {
            state.queued_bytes -= record.payload.len() + BOOKKEEPING;
            protocol::encode(&record, &mut lines);
        }
        if !lines.is_empty() {
            state.stirred = Instant::now();
            self.room.notify_all();
        } else if matches!(state.phase, Phase::Closing(_)) {
            return None;
        }
        Some(lines)
    }

    /// Counts a line that the middleware wrote; what it holds, if that can be used.
    fn returned(&self, line: &[u8]) -> Option<Returned<T>> {
        if line.trim_ascii().is_empty() {
            return None;
        }
        let decoded = protocol::decode(line);
        let is_usable = decoded
            .as_ref()
            .is_ok_and(|record| record.kind != Kind::Request || record.request().is_some());
        let mut state = self.lock();
        state.stirred = Instant::now();
        let tag = match &decoded {
            Ok(record) => state.pending.remove(&(record.kind, record.id.clone())),
            Err(error) => {
                tracing::debug!(%error, "the middleware wrote something else");
                None
            }
        };
        if tag.is_none() {
            state.account.count(Counter::MiddlewareAdded);
        }
        if state.pending.requests() == 0 {
            self.room.notify_all();
        }
        match decoded {
            Ok(record) if is_usable => {
                state.account.count(Counter::MiddlewareReturned);
                Some(Returned { record, tag })
            }
            _ => {
                state.account.drop(Reason::MiddlewareMalformed);
                None
            }
        }
    }

    /// The end: what is inside stays there.
    fn end(&self) {
        let mut state = self.lock();
        state.phase = Phase::Ended;
        // What still waits was never given to it.
        let waiting = state.queue.len() as u64;
        let inside = state.pending.clear().saturating_sub(waiting);
        state.queue.clear();
        state.queued_bytes = 0;
        state.account.drop_n(Reason::MiddlewareDown, waiting);
        state.account.drop_n(Reason::MiddlewareFiltered, inside);
        self.room.notify_all();
    }

    /// The child has died: what was inside is lost, what waits in the queue is not.
    fn died(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::Down;
        }
        let waiting: Vec<pending::Key> = state
            .queue
            .iter()
            .map(|record| (record.kind, record.id.clone()))
            .collect();
        let mut kept = Vec::new();
        for key in waiting {
            if let Some(tag) = state.pending.remove(&key) {
                kept.push((key, tag));
            }
        }
        let lost = state.pending.clear();
        state.account.drop_n(Reason::MiddlewareDied, lost);
        for (key, tag) in kept {
            state.pending.insert(key, tag);
        }
        self.room.notify_all();
    }
}

/// Why the middleware did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command cannot be run.
    #[error(
        "--middleware: '{}' cannot be started: {source}; it is run without a shell, so give the program's path and its arguments",
        command
    )]
    Command {
        /// As it was given.
        command: Command,
        /// Why.
        source: std::io::Error,
    },
    /// The system refused a thread or its event queue.
    #[error("the middleware's thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// Messages that may wait to be given.
const MOST_QUEUED: usize = 10_000;

/// Their bytes.
const MOST_QUEUED_BYTES: usize = 16 << 20;

/// Messages that came back and were not taken yet, and their KiB.
const MOST_RETURNED: usize = 256;
const MOST_RETURNED_KIB: u32 = 8 << 10;

/// About what a waiting message takes beside its payload.
const BOOKKEEPING: usize = 256;

/// Bytes of lines that are written together.
const BATCH: usize = 64 << 10;

/// One that has not read what waits for it for so long has stalled.
pub const STALL: Duration = Duration::from_secs(10);

/// One that was quiet for so long has no more to say.
const QUIET: Duration = Duration::from_secs(2);

/// How often is looked whether it is quiet.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The pause before it is started again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause before it is started again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use bytes::Bytes;

    fn record(number: usize, payload: &[u8]) -> Record {
        Record {
            kind: Kind::Request,
            id: Bytes::from(number.to_string()),
            time: Timestamp::ZERO,
            latency: None,
            payload: Bytes::copy_from_slice(payload),
            offset: 0,
        }
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

    #[test]
    fn commands_are_split_at_blanks() {
        let command: Command = " python3  a.py\t--x 'y z' ".parse().expect("a command");
        assert_eq!(command.to_string(), "python3 a.py --x 'y z'");
        assert_eq!(command.arguments, ["a.py", "--x", "'y", "z'"]);
        assert!(" ".parse::<Command>().is_err());
    }

    #[test]
    fn one_that_does_not_read_holds_nobody_up_and_is_started_again() {
        let command = "sleep 3600".parse().expect("a command");
        let stall = Duration::from_millis(200);
        let (middleware, inlet, mut outlet) =
            Middleware::<usize>::start_with(command, Patience::None, stall).expect("started");
        // Far more than the pipe and the queue hold.
        let large = vec![b'x'; 100_000];
        for number in 0..1000 {
            inlet.give(record(number, &large), number);
        }
        let full = middleware.account().dropped(Reason::MiddlewareQueueFull);
        assert!(full > 500, "{full}");
        let deadline = far();
        while middleware.account().get(Counter::MiddlewareStarts) < 3 {
            assert!(Instant::now() < deadline, "it was never started again");
            let _ = crossbeam_channel::never::<()>().recv_timeout(Duration::from_millis(10));
        }
        middleware.close(Instant::now());
        assert!(outlet.take().is_none());
        let (account, failure) = middleware.join();
        assert_eq!(account.check(), Ok(()), "{account:?}");
        assert!(account.dropped(Reason::MiddlewareDied) > 0, "{account:?}");
        assert!(failure.is_some());
    }

    #[test]
    fn what_is_given_comes_back_with_its_tag() {
        let command = "cat".parse().expect("a command");
        let (middleware, inlet, mut outlet) =
            Middleware::start(command, Patience::Waits).expect("started");
        let taking = std::thread::spawn(move || {
            let mut all = Vec::new();
            while let Some(Returned { record, tag }) = outlet.take() {
                assert_eq!(record.payload, GET);
                all.push(tag);
            }
            all
        });
        for number in 0..20_000 {
            inlet.give(record(number, GET), number);
        }
        middleware.settle(far());
        middleware.close(far());
        let all = taking.join().expect("no panic");
        assert!(all.into_iter().eq((0..20_000).map(Some)));
        let (account, _) = middleware.join();
        assert_eq!(account.check(), Ok(()), "{account:?}");
        assert_eq!(account.get(Counter::MiddlewareReturned), 20_000);
        // Too late.
        inlet.give(record(1, GET), 1);
    }
}
