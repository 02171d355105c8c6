//! `gor`: inputs → intake → (middleware) → delivery → outputs, as GoReplay puts them together.
//!
//! ```text
//!  input threads ─► bounded channel ─► "emit": limits, prettify ─► delivery: filters, rewrites ─► outputs
//!                                            └► middleware ─► "deliver": the same delivery
//!  targets' answers (--output-http-track-response) ─► bounded channel ─► "emit"
//! ```

mod deliver;
mod files;
mod http;
mod inputs;
mod tcp;
mod tls;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use crossbeam_channel::{Receiver, Sender, bounded, never, select};

use self::deliver::Delivery;
use super::Finished;
use super::signals::StopSignals;
use crate::account::{Account, Counter, Reason};
use crate::cli::gor::{Input, Job};
use crate::goreplay::{Limiter, prettify};
use crate::middleware::{Inlet, Middleware, Patience};
use crate::progress::Screen;
use crate::record::gor::Record;
use crate::replay::{Budget, EngineHandle, Permit};
use crate::report::TargetSummary;
use crate::sandbox::{Needs, Sandbox};

/// A message from an input, by its number.
struct Item {
    input: usize,
    record: Record,
    /// Its share of the room for those that wait.
    _room: Permit,
}

/// Where inputs put their messages.
#[derive(Clone)]
struct Inbox {
    items: Sender<Item>,
    room: Arc<Budget>,
}

impl Inbox {
    /// Waits for room, and puts a message there; `false` when nobody takes any more.
    fn put(&self, input: usize, record: Record) -> bool {
        let Ok(room) = self.room.take(size(&record)) else {
            return false;
        };
        let item = Item {
            input,
            record,
            _room: room,
        };
        self.items.send(item).is_ok()
    }
}

/// A target's answer, as a message.
struct Tracked {
    record: Record,
    _room: Permit,
}

/// What a message that waits takes.
fn size(record: &Record) -> usize {
    record.payload.len() + record.id.len() + BOOKKEEPING
}

/// What the threads of a run have in common.
struct Common {
    /// When to give up, once that is known.
    until: OnceLock<Instant>,
    /// When the inputs ended, once they have.
    ended: OnceLock<Instant>,
    /// Replays offered to engines, and those settled.
    offered: AtomicU64,
    settled: AtomicU64,
    engines: Mutex<Vec<EngineHandle>>,
    /// What is counted away from the thread that counts.
    elsewhere: Mutex<Account>,
    /// Answers of targets that are messages.
    tracked: Sender<Tracked>,
    room_tracked: Arc<Budget>,
}

impl Common {
    fn until(&self) -> Instant {
        self.until
            .get()
            .copied()
            .unwrap_or_else(|| Instant::now() + FAR)
    }

    /// Whether whoever cannot go on at `now` has to give up: the time is over, or the inputs have ended long ago.
    fn gives_up(&self, now: Instant) -> bool {
        let ended = self.ended.get();
        self.until.get().is_some_and(|until| now >= *until)
            || ended.is_some_and(|ended| now >= *ended + GRACE)
    }

    fn count(&self, with: impl FnOnce(&mut Account)) {
        with(
            &mut self
                .elsewhere
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn note_engine(&self, handle: EngineHandle) {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.push(handle);
    }

    /// Takes a target's answer as a message, or counts that there is no room for it.
    fn track(&self, record: Record) {
        let room = self.room_tracked.try_take(size(&record), u32::MAX).ok();
        let is_taken = room.is_some_and(|room| {
            let tracked = Tracked {
                record,
                _room: room,
            };
            self.tracked.try_send(tracked).is_ok()
        });
        if !is_taken {
            self.count(|account| {
                account.count(Counter::Messages);
                account.drop(Reason::MessageQueueFull);
            });
        }
    }

    fn in_flight(&self) -> u64 {
        let settled = self.settled.load(Ordering::Acquire);
        self.offered.load(Ordering::Acquire).saturating_sub(settled)
    }
}

/// What the threads leave behind.
struct Done {
    account: Account,
    targets: Vec<TargetSummary>,
    outcome: anyhow::Result<()>,
}

/// Runs `shadowtap gor` until its inputs end, or until a signal or `--exit-after`.
///
/// # Errors
/// What keeps it from starting.
pub fn run(job: Job, screen: &Screen, sandbox: &Sandbox) -> anyhow::Result<Finished> {
    for note in &job.notes {
        tracing::info!("{note}");
    }
    if job.dry_run {
        return inputs::dry_run(&job);
    }
    super::runtime()?.block_on(run_until_stopped(job, screen, sandbox))
}

async fn run_until_stopped(
    job: Job,
    _screen: &Screen,
    sandbox: &Sandbox,
) -> anyhow::Result<Finished> {
    let mut signals = StopSignals::new().context("taking over signals")?;
    let exit_after = job.exit_after;
    let is_live = job
        .inputs
        .iter()
        .any(|(input, _)| !matches!(input, Input::Capture(..) | Input::Files(_)));
    let (tracked_in, tracked) = bounded(MOST_TRACKED);
    let common = Arc::new(Common {
        until: OnceLock::new(),
        ended: OnceLock::new(),
        offered: AtomicU64::new(0),
        settled: AtomicU64::new(0),
        engines: Mutex::default(),
        elsewhere: Mutex::default(),
        tracked: tracked_in,
        room_tracked: Budget::new(MOST_TRACKED, MOST_TRACKED_BYTES),
    });
    let (items_in, items) = bounded(MOST_ITEMS);
    let inbox = Inbox {
        items: items_in,
        room: Budget::new(MOST_ITEMS, MOST_ITEM_BYTES),
    };
    let room = Arc::clone(&inbox.room);
    // The right to capture goes with the first step: what is started later does not have it.
    let opened = inputs::open(&job)?;
    // Its files go by patterns that only time fills in.
    sandbox.enter_quietly(&Needs {
        all_files: true,
        programs: job.middleware.is_some(),
        ..Needs::default()
    });
    let delivery = Delivery::open(&job, &common, is_live)?;
    let middleware = job
        .middleware
        .clone()
        .map(|command| {
            let patience = if is_live {
                Patience::None
            } else {
                Patience::Waits
            };
            Middleware::<()>::start(command, patience)
        })
        .transpose()?;
    let (running, mut stop) = inputs::start(opened, &inbox)?;
    drop(inbox);
    let intake = Intake::new(&job);
    let inlet = middleware.as_ref().map(|(_, inlet, _)| inlet.clone());
    let its = Arc::clone(&common);
    let emitting = thread::Builder::new()
        .name("emit".to_owned())
        .spawn(move || {
            // However that ends, nobody waits for room that nobody makes.
            let _closed = ClosedAtTheEnd(room);
            emit(&items, &tracked, intake, delivery, middleware, &its)
        })
        .context("starting a thread")?;

    let end = exit_after.map(|after| Instant::now() + after);
    let mut beat = tokio::time::interval(Duration::from_millis(50));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            signal = signals.recv() => {
                if is_stopping {
                    super::stop_at_once(signal);
                }
                tracing::info!(signal, "stopping; the same signal again stops at once");
                is_stopping = true;
                stop.stop();
                give_up_by(Instant::now() + GRACE, &common, inlet.as_ref(), is_live);
            }
            _ = beat.tick() => {}
        }
        if !is_stopping && end.is_some_and(|end| Instant::now() >= end) {
            is_stopping = true;
            stop.stop();
            give_up_by(Instant::now() + GRACE, &common, inlet.as_ref(), is_live);
        }
        if emitting.is_finished() {
            break;
        }
    }
    stop.stop();
    let (mut account, captured) = running.join();
    let mut done = emitting
        .join()
        .map_err(|_| anyhow!("the emitting thread panicked"))?;
    account.merge(&done.account);
    let elsewhere = common
        .elsewhere
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    account.merge(&elsewhere);
    done.outcome = done.outcome.and(captured);
    Ok(Finished {
        account,
        targets: done.targets,
        printed: false,
        compared: None,
        outcome: done.outcome,
    })
}

/// Sets the time by which everything has to be over.
fn give_up_by(until: Instant, common: &Common, inlet: Option<&Inlet<()>>, is_live: bool) {
    // It may have been said before.
    let _ = common.until.set(until);
    let engines = common
        .engines
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if !is_live {
        // Whoever reads a file may be waiting for room.
        for engine in &*engines {
            engine.stop(until.saturating_duration_since(Instant::now()));
        }
        if let Some(inlet) = inlet {
            inlet.close(until);
        }
    }
}

/// What is done with a message before the middleware.
struct Intake {
    limits: Vec<Option<Limiter>>,
    prettify: bool,
    most_bytes: usize,
    started: Instant,
    account: Account,
}

impl Intake {
    fn new(job: &Job) -> Self {
        let limiter = |limit| Limiter::new(limit, seed());
        Self {
            limits: job
                .inputs
                .iter()
                .map(|(_, limit)| limit.map(limiter))
                .collect(),
            prettify: job.prettify,
            most_bytes: job.most_bytes,
            started: Instant::now(),
            account: Account::new(),
        }
    }

    fn take(&mut self, item: Item) -> Option<Record> {
        self.account.count(Counter::Messages);
        if let Some(Some(limiter)) = self.limits.get_mut(item.input)
            && !limiter.takes(self.started.elapsed())
        {
            self.account.drop(Reason::MessageLimited);
            return None;
        }
        self.shape(item.record)
    }

    fn take_tracked(&mut self, Tracked { record, .. }: Tracked) -> Option<Record> {
        self.account.count(Counter::Messages);
        self.shape(record)
    }

    fn shape(&mut self, mut record: Record) -> Option<Record> {
        if record.payload.len() > self.most_bytes {
            self.account.drop(Reason::MessageTooLarge);
            return None;
        }
        if self.prettify {
            record.payload = prettify(&record.payload);
        }
        Some(record)
    }
}

/// Where messages go behind the intake.
enum Way {
    Straight(Box<Delivery>),
    Through(Inlet<()>),
}

impl Way {
    fn pass(&mut self, record: Record, account: &mut Account) {
        match self {
            Self::Straight(delivery) => delivery.deliver(record),
            Self::Through(inlet) => {
                // What becomes of it is counted at its own stage, and what comes back enters again.
                account.count(Counter::MessagesEmitted);
                inlet.give(record, ());
            }
        }
    }

    fn tick(&mut self) {
        if let Self::Straight(delivery) = self {
            delivery.tick();
        }
    }
}

fn emit(
    items: &Receiver<Item>,
    tracked: &Receiver<Tracked>,
    mut intake: Intake,
    delivery: Delivery,
    middleware: Option<(Middleware<()>, Inlet<()>, crate::middleware::Outlet<()>)>,
    common: &Common,
) -> Done {
    let mut own = Account::new();
    let (mut way, passage) = match middleware {
        None => (Way::Straight(Box::new(delivery)), None),
        Some((middleware, inlet, outlet)) => {
            let delivering = thread::Builder::new()
                .name("deliver".to_owned())
                .spawn(move || deliver_returned(outlet, delivery));
            match delivering {
                Ok(delivering) => (Way::Through(inlet), Some((middleware, delivering))),
                Err(error) => {
                    return Done {
                        account: intake.account,
                        targets: Vec::new(),
                        outcome: Err(anyhow!("starting a thread: {error}")),
                    };
                }
            }
        }
    };
    let mut ticked = Instant::now();
    loop {
        select! {
            recv(items) -> item => match item {
                Ok(item) => if let Some(record) = intake.take(item) {
                    way.pass(record, &mut own);
                },
                Err(_) => break,
            },
            recv(tracked) -> record => if let Some(record) = record.ok().and_then(|it| intake.take_tracked(it)) {
                way.pass(record, &mut own);
            },
            default(TICK) => way.tick(),
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            way.tick();
        }
        if let Way::Straight(delivery) = &way
            && delivery.has_failed()
        {
            break;
        }
    }
    let _ = common.ended.set(Instant::now());
    // What is under way: requests inside the middleware, and at the targets, whose answers are messages again.
    let mut quiet = 0;
    while quiet < 3 && Instant::now() < common.until() {
        let is_settled = passage
            .as_ref()
            .is_none_or(|(middleware, _)| middleware.settle(Instant::now() + TICK));
        let mut any = false;
        for record in tracked.try_iter() {
            any = true;
            if let Some(record) = intake.take_tracked(record) {
                way.pass(record, &mut own);
            }
        }
        way.tick();
        quiet = if any || !is_settled || common.in_flight() > 0 {
            0
        } else {
            quiet + 1
        };
        if !any {
            let _ = never::<()>().recv_timeout(Duration::from_millis(10));
        }
    }
    let mut outcome = Ok(());
    let delivery = match (way, passage) {
        (Way::Straight(delivery), _) => Ok(*delivery),
        (Way::Through(_), Some((middleware, delivering))) => {
            middleware.close(common.until());
            let delivery = delivering
                .join()
                .map_err(|_| anyhow!("the delivering thread panicked"));
            let (account, failure) = middleware.join();
            own.merge(&account);
            if let Some(failure) = failure {
                outcome = Err(anyhow!(failure));
            }
            delivery
        }
        (Way::Through(_), None) => Err(anyhow!("the delivering thread is gone")),
    };
    let mut done = match delivery {
        Ok(delivery) => delivery.finish(tracked, &mut intake),
        Err(error) => Done {
            account: Account::new(),
            targets: Vec::new(),
            outcome: Err(error),
        },
    };
    // What the inputs still bring after an output has failed.
    for item in items.try_iter() {
        drop(item);
        own.count(Counter::Messages);
        own.drop(Reason::MessageQueueFull);
    }
    done.account.merge(&intake.account);
    done.account.merge(&own);
    done.outcome = outcome.and(done.outcome);
    done
}

/// Delivers what the middleware returns, until it has ended.
fn deliver_returned(mut outlet: crate::middleware::Outlet<()>, mut delivery: Delivery) -> Delivery {
    while let Some(returned) = outlet.take() {
        delivery.count_message();
        delivery.deliver(returned.record);
        delivery.tick();
    }
    delivery
}

/// A number that is another one in each run.
fn seed() -> u64 {
    super::now_minus(Duration::ZERO).as_nanos()
}

/// Closes a budget when it is dropped.
struct ClosedAtTheEnd(Arc<Budget>);

impl Drop for ClosedAtTheEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Messages from the inputs that may wait, and their bytes.
const MOST_ITEMS: usize = 1024;
const MOST_ITEM_BYTES: usize = 8 << 20;

/// Answers of targets that may wait, and their bytes.
const MOST_TRACKED: usize = 10_000;
const MOST_TRACKED_BYTES: usize = 8 << 20;

/// About what a waiting message takes beside its bytes.
const BOOKKEEPING: usize = 256;

/// How often outputs are looked after when nothing comes.
const TICK: Duration = Duration::from_millis(100);

/// How long what is under way may take after a signal.
const GRACE: Duration = Duration::from_secs(5);

/// As good as never.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
