//! A worker thread: a runtime of its own, and the slots of the captured connections that it serves.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use reqwest::Client;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::breaker::Permission;
use super::feeder::spread;
use super::gate;
use super::items::{Item, Items};
use super::outcome::Ticket;
use super::reqwest::ReqwestSender;
use super::resolver::keep_resolved;
use super::shared::Shared;
use super::wire::WireSender;
use super::{Answer, Outcome, Scheme, StartError, WhenFull};
use crate::account::Reason;
use crate::exchange::{ConnectionId, Request};

/// What a worker is told.
pub(super) enum Command {
    /// Send this.
    Replay(Ticket),
    /// That captured connection has ended.
    Closed(ConnectionId),
}

/// Sends requests one by one over a connection that it opens and opens again as needed.
pub(super) trait Sender: Send + 'static {
    /// Sends `request` and reads the answer; what is known of a failed attempt beside its reason is in the error. Meanwhile
    /// it may begin to send what was pipelined behind it.
    fn send(
        &mut self,
        ticket: &mut Ticket,
        items: &mut Items,
    ) -> impl Future<Output = Result<Box<Answer>, Failure>> + Send;

    /// The first request that was begun behind others and is not done; it is to be sent next.
    fn next_begun(&mut self) -> Option<Ticket>;

    /// Watches the connection while nothing is to be sent, and closes it when the target has.
    fn watch(&mut self, context: &mut Context<'_>);

    /// Closes the connection.
    fn hang_up(&mut self);
}

/// A failed attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    /// Whether a byte of an answer came.
    pub(super) answer_began: bool,
}

impl Failure {
    /// A failure before any byte of an answer.
    pub(super) const fn early(reason: Reason) -> Self {
        Self {
            reason,
            answer_began: false,
        }
    }
}

/// A worker before its thread runs.
pub(super) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    runtime: Runtime,
    /// For an `https` target.
    client: Option<Client>,
}

impl Worker {
    pub(super) fn new(index: usize, shared: Arc<Shared>) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let client = match shared.config.target.scheme() {
            Scheme::Http => None,
            Scheme::Https => Some(super::reqwest::client(&shared)?),
        };
        Ok(Self {
            index,
            shared,
            runtime,
            client,
        })
    }

    /// Serves until the engine is stopped and everything is settled.
    pub(super) fn run(self, commands: UnboundedReceiver<Vec<Command>>) {
        let Self {
            index,
            shared,
            runtime,
            client,
        } = self;
        runtime.block_on(async {
            let resolver = (index == 0).then(|| tokio::spawn(keep_resolved(Arc::clone(&shared))));
            Slots::new(index, shared, client).serve(commands).await;
            if let Some(resolver) = resolver {
                resolver.abort();
            }
        });
        // A lookup may hang in the system's resolver; nobody waits for it.
        runtime.shutdown_background();
    }
}

/// The slots of one worker, and which captured connection has which.
///
/// Invariant: `slots[i].mapped` is the number of connections in `mapping` that map to `i`.
struct Slots {
    shared: Arc<Shared>,
    client: Option<Client>,
    most: usize,
    slots: Vec<Slot>,
    mapping: AHashMap<ConnectionId, Mapped>,
    tasks: JoinSet<()>,
}

/// A queue to one target connection, served by one task.
struct Slot {
    queue: UnboundedSender<Item>,
    /// Captured connections that have it.
    mapped: usize,
    /// Items in the queue or being worked on.
    pending: Arc<AtomicUsize>,
}

struct Mapped {
    slot: usize,
    last_used: Instant,
}

impl Slots {
    fn new(index: usize, shared: Arc<Shared>, client: Option<Client>) -> Self {
        let config = &shared.config;
        let (all, workers) = (config.max_connections.get(), config.threads.get());
        Self {
            // The first workers take what does not divide evenly; each has at least one.
            most: (all / workers + usize::from(index < all % workers)).max(1),
            slots: Vec::new(),
            mapping: AHashMap::new(),
            tasks: JoinSet::new(),
            shared,
            client,
        }
    }

    async fn serve(mut self, mut commands: UnboundedReceiver<Vec<Command>>) {
        let mut stop = self.shared.stop.subscribe();
        let mut sweep = interval((self.shared.config.idle / 4).clamp(MIN_SWEEP, MAX_SWEEP));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                batch = commands.recv() => match batch {
                    Some(batch) => self.dispatch_all(batch),
                    None => break,
                },
                _ = stop.wait_for(Option::is_some) => break,
                _ = sweep.tick() => self.sweep(Instant::now()),
            }
        }
        commands.close();
        while let Some(batch) = commands.recv().await {
            self.dispatch_all(batch);
        }
        self.finish().await;
    }

    /// Lets every slot work off its queue, until the time to give up.
    async fn finish(mut self) {
        let mut stop = self.shared.stop.subscribe();
        self.slots.clear();
        loop {
            let deadline = *stop.borrow_and_update();
            let give_up = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = self.tasks.join_next() => if ended.is_none() { return },
                () = give_up => break,
                _ = stop.changed() => {}
            }
        }
        // What the tasks hold settles itself.
        self.tasks.shutdown().await;
    }

    fn dispatch_all(&mut self, batch: Vec<Command>) {
        let now = Instant::now();
        for command in batch {
            match command {
                Command::Replay(ticket) => {
                    let slot = self.slot_of(ticket.request.connection, now);
                    self.slots[slot].push(Item::Replay(ticket));
                }
                Command::Closed(connection) => {
                    if let Some(mapped) = self.mapping.remove(&connection) {
                        self.release(mapped.slot);
                    }
                }
            }
        }
    }

    /// The slot of `connection`: the one that it has, a free one, a new one, or one that it shares.
    fn slot_of(&mut self, connection: ConnectionId, now: Instant) -> usize {
        if let Some(mapped) = self.mapping.get_mut(&connection) {
            mapped.last_used = now;
            return mapped.slot;
        }
        let free = self.slots.iter().position(Slot::is_free);
        let slot = match free {
            Some(free) => free,
            None if self.slots.len() < self.most => {
                let slot = self.open_slot();
                self.slots.push(slot);
                self.slots.len() - 1
            }
            None => {
                usize::try_from((spread(connection.0) >> 32) % self.slots.len() as u64).unwrap_or(0)
            }
        };
        self.slots[slot].mapped += 1;
        self.mapping.insert(
            connection,
            Mapped {
                slot,
                last_used: now,
            },
        );
        slot
    }

    fn open_slot(&mut self) -> Slot {
        let (queue, items) = unbounded_channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let shared = Arc::clone(&self.shared);
        let items = Items::new(items, Arc::clone(&pending));
        match &self.client {
            None => {
                let sender = WireSender::new(Arc::clone(&shared));
                self.tasks.spawn(serve_slot(shared, items, sender));
            }
            Some(client) => {
                let sender = ReqwestSender::new(Arc::clone(&shared), client.clone());
                self.tasks.spawn(serve_slot(shared, items, sender));
            }
        }
        Slot {
            queue,
            mapped: 0,
            pending,
        }
    }

    fn release(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.mapped -= 1;
        if slot.mapped == 0 {
            slot.push(Item::HangUp);
        }
    }

    /// Forgets connections that have been silent for too long, and whose requests are done.
    fn sweep(&mut self, now: Instant) {
        let idle = self.shared.config.idle;
        let slots = &self.slots;
        let silent: Vec<ConnectionId> = self
            .mapping
            .iter()
            .filter(|(_, mapped)| now.saturating_duration_since(mapped.last_used) >= idle)
            .filter(|(_, mapped)| slots[mapped.slot].pending.load(Ordering::Relaxed) == 0)
            .map(|(&connection, _)| connection)
            .collect();
        for connection in silent {
            if let Some(mapped) = self.mapping.remove(&connection) {
                self.release(mapped.slot);
            }
        }
    }
}

impl Slot {
    fn push(&self, item: Item) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        // A task that is gone has panicked; its requests settle themselves.
        let _ = self.queue.send(item);
    }

    fn is_free(&self) -> bool {
        self.mapped == 0 && self.pending.load(Ordering::Relaxed) == 0
    }
}

/// Works off one slot's queue, in order.
async fn serve_slot<S: Sender>(shared: Arc<Shared>, mut items: Items, mut sender: S) {
    loop {
        let item = poll_fn(|context| {
            let item = items.poll_next(context);
            if item.is_pending() {
                sender.watch(context);
            }
            item
        });
        match item.await {
            Some(Item::Replay(ticket)) => {
                match admitted(&shared).await {
                    Ok(()) => replay(&shared, ticket, &mut sender, &mut items).await,
                    Err(reason) => ticket.settle(Outcome::Skipped(reason)),
                }
                while let Some(ticket) = sender.next_begun() {
                    items.done();
                    replay(&shared, ticket, &mut sender, &mut items).await;
                }
            }
            Some(Item::HangUp) => sender.hang_up(),
            None => return,
        }
        items.done();
    }
}

async fn replay<S: Sender>(shared: &Shared, mut ticket: Ticket, sender: &mut S, items: &mut Items) {
    let mut resends = shared.config.retry_safe;
    loop {
        let sent = sender.send(&mut ticket, items).await;
        let failure = match sent {
            Ok(answer) => {
                shared.with_breaker(super::breaker::Breaker::succeeded);
                return ticket.settle(Outcome::Answered(answer));
            }
            Err(failure) => failure,
        };
        if let Reason::FirstByteTimeout | Reason::AnswerTimeout = failure.reason {
            shared.note_late(failure.reason);
        }
        shared.with_breaker(|breaker| match failure.reason {
            Reason::ConnectFailed
            | Reason::ConnectTimeout
            | Reason::FirstByteTimeout
            | Reason::AnswerTimeout => breaker.failed(Instant::now()),
            _ => breaker.undecided(),
        });
        let may_resend = failure.reason == Reason::ConnectionLost && !failure.answer_began;
        if resends == 0 || !may_resend || !is_safe(&ticket.request) {
            return ticket.settle(Outcome::Failed(failure.reason));
        }
        resends -= 1;
    }
}

/// Why a request may not be sent, once that is decided.
async fn admitted(shared: &Shared) -> Result<(), Reason> {
    gate::pass(&shared.gate).await?;
    if may_send(shared).await {
        Ok(())
    } else {
        Err(Reason::BreakerOpen)
    }
}

/// Whether the breaker lets a request through, now or, when the source can wait, in a while.
async fn may_send(shared: &Shared) -> bool {
    let config = &shared.config;
    loop {
        match shared.may_send() {
            Permission::Go => return true,
            Permission::Refused {
                retry,
                since,
                answered,
            } if config.when_full == WhenFull::Block => {
                let patience = if answered {
                    config.patience
                } else {
                    config.patience.min(MISSING)
                };
                if since.elapsed() >= patience {
                    return false;
                }
                sleep_until(retry.into()).await;
            }
            Permission::Refused { .. } => return false,
        }
    }
}

/// RFC 9110 §9.2.1.
fn is_safe(request: &Request) -> bool {
    matches!(
        request.head.method(),
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE"
    )
}

/// How long a request from a file waits for a target that has never answered: it is more likely a wrong address than one that
/// is being started again.
const MISSING: Duration = Duration::from_secs(5);

/// The shortest and the longest time between two looks for silent connections.
const MIN_SWEEP: Duration = Duration::from_millis(100);
const MAX_SWEEP: Duration = Duration::from_secs(15);
