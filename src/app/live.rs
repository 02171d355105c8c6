//! The capture workers: each is one thread that owns a capture handle and a flow table, and runs every packet to completion.
//!
//! What leaves them are batches of events through one bounded channel, one batch for each block of packets, so that a
//! wake-up is paid once a block. The channel closes when the last worker ends. They end when everybody who holds their
//! [`Stop`] has dropped it, or when one of them fails.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::watch;

use super::restraint::Restraint;
use crate::account::{Account, Counter, Reason};
use crate::admin::Latch;
use crate::capture::live::{Live, LiveError, Read, Waker, local_addresses};
use crate::exchange::Event;
use crate::replay::Shed;
use crate::restraint::Share;
use crate::tap::{Tap, TapConfig};
use crate::time::Timestamp;
use crate::wire::{LinkType, Packet};

/// The events of one block of packets.
pub type Batch = Vec<Event>;

/// The packets of one block, copied, for a recording of packets.
#[derive(Default)]
pub struct Block {
    data: Vec<u8>,
    packets: Vec<(Timestamp, LinkType, u32, usize)>,
}

impl Block {
    /// The packets, in the order of capture.
    pub fn packets(&self) -> impl Iterator<Item = Packet<'_>> {
        let mut start = 0;
        self.packets
            .iter()
            .map(move |&(time, link, wire_len, end)| {
                let data = &self.data[start..end];
                start = end;
                Packet {
                    time,
                    link,
                    wire_len,
                    data,
                }
            })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.packets.len() as u64
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn push(&mut self, packet: &Packet<'_>) {
        self.data.extend_from_slice(packet.data);
        self.packets
            .push((packet.time, packet.link, packet.wire_len, self.data.len()));
    }
}

/// The server ends elsewhere whose connections are followed too, as they are now; see
/// [`Watch::called`](crate::tap::Watch::called).
pub type Called = watch::Receiver<HashSet<SocketAddr>>;

/// What is done with each packet beside finding the HTTP in it.
#[derive(Clone)]
pub enum Packets {
    /// Nothing.
    Passing,
    /// A copy goes into a recording.
    Copied(Sender<Block>),
}

/// A channel for [`Packets::Copied`], bounded.
#[must_use]
pub fn blocks() -> (Sender<Block>, Receiver<Block>) {
    bounded(QUEUED_BLOCKS)
}

/// Held by whoever wants the capture to go on.
pub struct Stop {
    _open: Sender<()>,
}

/// Capture workers that run: one for each handle.
pub struct Workers {
    /// What they found.
    pub batches: Receiver<Batch>,
    running: Vec<Running>,
}

struct Running {
    /// Its account so far, renewed about ten times a second.
    account: watch::Receiver<Account>,
    thread: JoinHandle<Result<Account, LiveError>>,
}

/// What is counted for each request in a batch that the full queue did not take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenDropped {
    /// A replay to each of so many targets, skipped for [`Reason::QueueFull`]; what follows on the same connections is left
    /// out too, for [`Reason::ConnectionShed`].
    Replays(u64),
    /// A message that the middleware was not given, for [`Reason::MiddlewareQueueFull`].
    Middleware,
    /// A message of a GoReplay pipeline, for [`Reason::MessageQueueFull`].
    Messages,
    /// An exchange that was not recorded, for [`Reason::RecordQueueFull`].
    Records,
    /// Nothing: the packets are recorded, not the events.
    Nothing,
}

/// Starts a capture worker on each open handle; what the taps may hold is shared out among them, and `restraint` says which
/// connections all of them leave out. `ready` is dropped once all are capturing.
///
/// # Errors
/// When the system gives no thread, or does not tell which addresses are local.
pub fn start(
    handles: Vec<Live>,
    config: &TapConfig,
    packets: Packets,
    when_dropped: WhenDropped,
    called: Option<Called>,
    mut restraint: Option<Restraint>,
    ready: Latch,
) -> anyhow::Result<(Workers, Stop)> {
    let local = local_addresses().context("listing local addresses")?;
    let (open, stopped) = bounded(0);
    let (working, ended) = bounded::<()>(0);
    let (all_well, one_failed) = bounded::<()>(0);
    let all_well = Arc::new(Mutex::new(Some(all_well)));
    let (batches_in, batches) = bounded(QUEUED_BATCHES);
    let (shares, share) = watch::channel(Share::ALL);
    let ready = Arc::new(ready);
    let config = config_of_one(config, handles.len());
    let (mut captures, mut accounts, mut wakers) = (Vec::new(), Vec::new(), Vec::new());
    for (number, mut live) in (0..).zip(handles) {
        let mut tap = Tap::new(config.clone());
        tap.number_from(number * NUMBERS_EACH);
        tap.set_local(local.clone());
        if let Some(called) = &called {
            tap.set_called(called.borrow().clone());
        }
        let (published, account) = watch::channel(Account::new());
        accounts.push(account);
        wakers.push(live.waker());
        captures.push(Capture {
            live,
            tap,
            packets: packets.clone(),
            when_dropped,
            called: called.clone(),
            restraint: restraint
                .take()
                .map(|restraint| (restraint, shares.clone())),
            share: share.clone(),
            stopped: [stopped.clone(), one_failed.clone()],
            all_well: Arc::clone(&all_well),
            batches: batches_in.clone(),
            published,
            own: Account::new(),
            gathered: Batch::new(),
            gathered_bytes: 0,
            shed: Shed::new(SILENCE),
            handed_over: false,
            latest: Timestamp::ZERO,
            quiet_since: None,
            _working: working.clone(),
        });
    }
    drop(working);
    thread::Builder::new()
        .name("capture-waker".to_owned())
        .spawn(move || wake_regularly(&wakers, &[stopped, one_failed], &ended))
        .context("starting a thread")?;
    let is_alone = captures.len() == 1;
    let mut running = Vec::new();
    for ((number, capture), account) in (0..).zip(captures).zip(accounts) {
        let ready = Arc::clone(&ready);
        let name = match is_alone {
            true => "capture".to_owned(),
            false => format!("capture-{number}"),
        };
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || capture.run(ready))
            .context("starting a thread")?;
        running.push(Running { account, thread });
    }
    Ok((Workers { batches, running }, Stop { _open: open }))
}

/// What each of several taps may hold, so that all together hold what one would.
fn config_of_one(config: &TapConfig, taps: usize) -> TapConfig {
    let mut config = config.clone();
    let limits = &mut config.limits;
    limits.memory /= taps.max(1);
    limits.connections = (limits.connections / taps.max(1)).max(1);
    limits.message.body = limits.message.body.min(limits.memory / 2);
    config
}

impl Workers {
    /// What was counted so far, by all together.
    #[must_use]
    pub fn account(&self) -> Account {
        let mut account = Account::new();
        for worker in &self.running {
            account.merge(&worker.account.borrow());
        }
        account
    }

    /// The account of the first, for who needs all packets in order and so has one worker only.
    #[must_use]
    pub fn first_account(&self) -> watch::Receiver<Account> {
        match self.running.first() {
            Some(worker) => worker.account.clone(),
            None => watch::channel(Account::new()).1,
        }
    }

    /// Waits for the end of all; their final account.
    ///
    /// # Errors
    /// What ended the first that failed, if that was not their [`Stop`].
    pub fn join(self) -> (Account, anyhow::Result<()>) {
        let (mut all, mut outcome) = (Account::new(), Ok(()));
        for worker in self.running {
            let last = worker.account;
            let ended = match worker.thread.join() {
                Ok(Ok(account)) => {
                    all.merge(&account);
                    continue;
                }
                Ok(Err(error)) => error.into(),
                Err(_) => anyhow::anyhow!("a capture worker panicked"),
            };
            all.merge(&last.borrow());
            outcome = outcome.and(Err(ended));
        }
        (all, outcome)
    }
}

/// Makes the workers look up from their packets ten times a second, and more often once they are to stop: on an idle
/// interface libpcap may block for ever.
fn wake_regularly(wakers: &[Waker], stopped: &[Receiver<()>; 2], ended: &Receiver<()>) {
    let wake = || wakers.iter().for_each(Waker::wake);
    loop {
        crossbeam_channel::select! {
            recv(stopped[0]) -> _ => break,
            recv(stopped[1]) -> _ => break,
            recv(ended) -> _ => return,
            default(BEAT) => wake(),
        }
    }
    wake();
    // After each pause of this length, the kernel has handed over what was captured before it.
    while ended
        .recv_timeout(HANDED_OVER)
        .is_err_and(|error| error.is_timeout())
    {
        wake();
    }
}

struct Capture {
    live: Live,
    tap: Tap,
    packets: Packets,
    when_dropped: WhenDropped,
    called: Option<Called>,
    /// In the first worker only: what all of them are to leave out.
    restraint: Option<(Restraint, watch::Sender<Share>)>,
    share: watch::Receiver<Share>,
    /// Closed when it is to end: because nobody wants it to go on, or because another worker has failed.
    stopped: [Receiver<()>; 2],
    /// Taken out by a worker that fails.
    all_well: Arc<Mutex<Option<Sender<()>>>>,
    batches: Sender<Batch>,
    published: watch::Sender<Account>,
    /// What this file counts itself, beside the tap's account.
    own: Account,
    /// Events that the queue had no room for yet, and their bytes.
    gathered: Batch,
    gathered_bytes: usize,
    /// Connections whose replays are left out.
    shed: Shed,
    /// Whether the last read brought a packet, and the latest capture time of all.
    handed_over: bool,
    latest: Timestamp,
    /// When the read before the last one was without packets: the time before which nothing is still to come.
    quiet_since: Option<Timestamp>,
    _working: Sender<()>,
}

impl Capture {
    fn run(mut self, ready: Arc<Latch>) -> Result<Account, LiveError> {
        self.refresh();
        drop(ready);
        let mut last_beat = Instant::now();
        let mut beats = 0u32;
        let mut stop_at = None;
        let failed = loop {
            let read = match self.read() {
                Ok(read) => read,
                Err(error) => break Some(error),
            };
            let all_seen = self.pass_time();
            self.hand_over();
            // What the kernel had captured before the stop is still taken.
            if stop_at.is_some_and(|stop_at| all_seen || self.latest >= stop_at) {
                break None;
            }
            if read == Read::Woken && stop_at.is_none() && self.is_stopped() {
                stop_at = Some(super::now_minus(Duration::ZERO));
                self.quiet_since = None;
            }
            if last_beat.elapsed() >= BEAT {
                last_beat = Instant::now();
                beats = beats.wrapping_add(1);
                if beats.is_multiple_of(10) {
                    self.refresh();
                    self.hold_back();
                }
                self.publish();
            }
        };
        self.tap.finish();
        self.hand_over_the_rest();
        self.refresh();
        self.publish();
        match failed {
            Some(error) => {
                // What the others see alone is not what was asked for.
                self.all_well
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                Err(error)
            }
            None => Ok(self.account()),
        }
    }

    /// Lets time pass for the tap when the kernel has nothing to hand over.
    ///
    /// A read may be broken off before it looked for packets, so one without any says nothing; after two in a row, what
    /// was captured before the first of them has been seen. Answers whether that is so.
    fn pass_time(&mut self) -> bool {
        if std::mem::take(&mut self.handed_over) {
            self.quiet_since = None;
            return false;
        }
        let before = self.quiet_since.replace(super::now_minus(HANDED_OVER));
        if let Some(quiet_since) = before {
            self.tap.idle(quiet_since);
        }
        before.is_some()
    }

    fn is_stopped(&self) -> bool {
        let is_closed = |channel: &Receiver<()>| {
            let received = channel.try_recv();
            received.is_err_and(|error| error.is_disconnected())
        };
        self.stopped.iter().any(is_closed)
    }

    /// Reads one block of packets.
    fn read(&mut self) -> Result<Read, LiveError> {
        let Packets::Copied(blocks) = &self.packets else {
            return self.live.read(|packet| {
                self.handed_over = true;
                self.latest = self.latest.max(packet.time);
                self.tap.packet(packet);
            });
        };
        let mut block = Block::default();
        let read = self.live.read(|packet| {
            self.handed_over = true;
            self.latest = self.latest.max(packet.time);
            self.tap.packet(packet);
            block.push(packet);
        });
        if !block.is_empty()
            && let Err(refused) = blocks.try_send(block)
        {
            let reason = match refused {
                TrySendError::Full(_) => Reason::RecordQueueFull,
                TrySendError::Disconnected(_) => Reason::WriteFailed,
            };
            let dropped = refused.into_inner().len();
            self.own.add(Counter::RecordsOffered, dropped);
            self.own.drop_n(reason, dropped);
        }
        read
    }

    /// Hands over what the tap has found. If the queue is full, that waits for the next time, up to a bound; beyond it,
    /// what has gathered is dropped and counted.
    fn hand_over(&mut self) {
        while let Some(event) = self.tap.poll() {
            if self.leave_out(&event) {
                continue;
            }
            self.gathered_bytes += size(&event);
            self.gathered.push(event);
        }
        if self.gathered.is_empty() {
            return;
        }
        match self.batches.try_send(std::mem::take(&mut self.gathered)) {
            Ok(()) => self.gathered_bytes = 0,
            Err(TrySendError::Full(batch)) if self.gathered_bytes <= MOST_GATHERED => {
                self.gathered = batch;
            }
            Err(TrySendError::Full(batch)) => {
                count_dropped(&mut self.own, &batch, self.when_dropped);
                self.shed(batch);
            }
            Err(TrySendError::Disconnected(batch)) => {
                self.gathered_bytes = 0;
                count_dropped(&mut self.own, &batch, self.when_dropped);
            }
        }
    }

    /// Leaves out, from now on, every connection of which `batch` holds a request; keeps that connections have ended.
    fn shed(&mut self, mut batch: Batch) {
        let now = Instant::now();
        batch.retain(|event| {
            match event {
                Event::Request(request) => self.shed.add(request.connection, now),
                Event::Closed { connection } => self.shed.closed(*connection),
                _ => {}
            }
            matches!(event, Event::Closed { .. })
        });
        self.gathered_bytes = batch.iter().map(size).sum();
        if self.gathered_bytes > MOST_GATHERED / 2 {
            // Those who take them have stood still for long; they forget silent connections by themselves.
            (batch, self.gathered_bytes) = (Batch::new(), 0);
        }
        self.gathered = batch;
    }

    /// Counts `event` as left out if it is a request of a connection that is.
    fn leave_out(&mut self, event: &Event) -> bool {
        let WhenDropped::Replays(targets) = self.when_dropped else {
            return false;
        };
        match event {
            Event::Request(request) if self.shed.has(request.connection, Instant::now()) => {
                if request.completeness.is_whole() {
                    self.own.add(Counter::ReplaysOffered, targets);
                    self.own.drop_n(Reason::ConnectionShed, targets);
                }
                true
            }
            Event::Closed { connection } => {
                self.shed.closed(*connection);
                false
            }
            _ => false,
        }
    }

    /// Hands over everything at the end of the capture: nothing else is to be done, so this can wait.
    fn hand_over_the_rest(&mut self) {
        let rest = std::iter::from_fn(|| self.tap.poll());
        let mut batch = std::mem::take(&mut self.gathered);
        batch.extend(rest);
        if !batch.is_empty()
            && let Err(refused) = self.batches.send(batch)
        {
            count_dropped(&mut self.own, &refused.into_inner(), self.when_dropped);
        }
    }

    /// Asks the kernel what it lost, and which addresses are local now.
    fn refresh(&mut self) {
        self.own.merge(&self.live.losses());
        if let Some(called) = &mut self.called {
            let called = called.borrow_and_update();
            if called.has_changed() {
                self.tap.set_called(called.clone());
            }
        }
        match local_addresses() {
            Ok(addresses) => self.tap.set_local(addresses),
            Err(error) => tracing::warn!(%error, "the local addresses cannot be listed"),
        }
    }

    /// Leaves connections out where the program uses more than it may.
    fn hold_back(&mut self) {
        if let Some((restraint, shares)) = &mut self.restraint
            && let Some(share) = restraint.look()
        {
            shares.send_replace(share);
        }
        if self.share.has_changed().unwrap_or(false) {
            self.tap.keep(*self.share.borrow_and_update());
        }
    }

    fn publish(&self) {
        self.published.send_replace(self.account());
    }

    fn account(&self) -> Account {
        let mut account = self.tap.account().clone();
        account.merge(&self.own);
        account
    }
}

fn count_dropped(account: &mut Account, batch: &Batch, when_dropped: WhenDropped) {
    for event in batch {
        let Event::Request(request) = event else {
            continue;
        };
        match when_dropped {
            WhenDropped::Replays(targets) if request.completeness.is_whole() => {
                account.add(Counter::ReplaysOffered, targets);
                account.drop_n(Reason::QueueFull, targets);
            }
            WhenDropped::Middleware if request.completeness.is_whole() => {
                account.count(Counter::MiddlewareOffered);
                account.drop(Reason::MiddlewareQueueFull);
            }
            WhenDropped::Messages if request.completeness.is_whole() => {
                account.count(Counter::Messages);
                account.drop(Reason::MessageQueueFull);
            }
            WhenDropped::Replays(_)
            | WhenDropped::Middleware
            | WhenDropped::Messages
            | WhenDropped::Nothing => {}
            WhenDropped::Records => {
                account.count(Counter::RecordsOffered);
                account.drop(Reason::RecordQueueFull);
            }
        }
    }
}

/// About what an event takes in memory.
fn size(event: &Event) -> usize {
    let messages = match event {
        Event::Request(request) => request.head.bytes().len() + request.body.wire.len(),
        Event::Response { response, .. } | Event::Orphan { response, .. } => {
            response.head.bytes().len() + response.body.wire.len()
        }
        Event::Unanswered { .. } | Event::Closed { .. } => 0,
    };
    messages + size_of::<Event>()
}

/// How often the worker publishes its account at least, and looks whether it is to stop.
const BEAT: Duration = Duration::from_millis(100);

/// Batches that may wait. One holds about what a block of packets held, at most 256 KiB on average.
const QUEUED_BATCHES: usize = 64;

/// A connection that was left out counts as ended once it has been silent for so long.
const SILENCE: Duration = Duration::from_secs(60);

/// How many exchanges and connections one worker may number before it comes to those of the next.
const NUMBERS_EACH: u64 = 1 << 48;

/// After so long the kernel has handed over what was captured, whatever steps its timers have.
const HANDED_OVER: Duration = Duration::from_millis(20);

/// Bytes of events that may wait for room in the queue.
const MOST_GATHERED: usize = 32 << 20;

/// Blocks of packets that may wait to be written; most are far smaller than the kernel's 256 KiB.
const QUEUED_BLOCKS: usize = 256;
