//! The replay engine: whole requests go in, each is sent to the target, and each comes out with what became of it.
//!
//! ```text
//!  Feeder::offer ─► refuse? ─► wait until due ─► room? ─► worker thread ─► slot: one target connection ─► sink(Replay)
//!   (caller's thread)                                     (tokio, current thread)  requests one by one
//! ```
//!
//! * One [`Engine`] serves one target. An app with several targets starts several and offers each request to all.
//! * Each captured connection has a target connection of its own while there are no more of them than
//!   [`ReplayConfig::max_connections`]; beyond that they share. Requests of one captured connection reach the target in
//!   order, each after the answer to the one before, unless it was [pipelined](Pipelining) and is to be so again.
//! * Every request that is offered is settled exactly once, as [`Answered`](Outcome::Answered),
//!   [`Failed`](Outcome::Failed) or [`Skipped`](Outcome::Skipped), also when the engine is stopped, so that the stage
//!   `replay` of the [`Account`] balances.
//! * Live, what the target cannot follow is left out by whole captured connections ([`Shed`]), so that the others are whole.
//! * Nothing is sent twice, unless [`ReplayConfig::retry_safe`] says so. A kept connection that the target closed is
//!   noticed before the next request is written to it.
//! * Offering a batch costs each worker thread one wake-up: stage it with [`Feeder::offer`] and [`Feeder::closed`],
//!   then [`Feeder::flush`].

mod arrival;
mod breaker;
mod budget;
mod config;
mod feeder;
mod gate;
mod items;
mod outcome;
mod outgoing;
mod reqwest;
mod resolver;
mod round_trip;
mod schedule;
mod shared;
mod shed;
mod target;
mod wire;
mod worker;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub use breaker::{BreakerConfig, BreakerState};
pub use budget::WhenFull;
pub(crate) use budget::{Budget, Permit};
pub use config::{
    ConfigError, Deadlines, HostPolicy, HostText, Pipelining, ReplayConfig, Tls, TracePolicy,
};
pub use feeder::Feeder;
pub use gate::Gate;
pub use outcome::{Answer, Condition, Outcome, Replay, Snapshot, Timings};
pub use schedule::{Pacer, Schedule};
pub use shed::Shed;
pub use target::{Host, ResolveError, Scheme, Target, TargetError, TargetState};

use crate::account::Account;
pub use crate::http1::FieldName;
use shared::{Shared, later};
use worker::Command;

/// Sends requests to one target on threads of its own.
///
/// Dropping it stops it at once: what waits is skipped as [`Reason::Stopped`](crate::account::Reason::Stopped), what was
/// sent fails as [`Reason::StoppedUnanswered`](crate::account::Reason::StoppedUnanswered).
pub struct Engine {
    shared: Arc<Shared>,
    inboxes: Vec<mpsc::UnboundedSender<Vec<Command>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts the threads.
    ///
    /// Each outcome goes to `sink`, on the thread that decided it: the one that offers for requests that are refused at
    /// the door, an engine thread for the others. While `sink` blocks, that thread sends nothing; it must not offer
    /// requests itself.
    ///
    /// # Errors
    /// When a thread cannot be started, or the TLS settings of an `https` target cannot be used.
    pub fn start(
        config: ReplayConfig,
        sink: impl Fn(Replay) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let threads = config.threads.get();
        let mut engine = Self {
            shared: Arc::new(Shared::new(config, Box::new(sink))),
            inboxes: Vec::new(),
            threads: Vec::new(),
        };
        for index in 0..threads {
            let (inbox, commands) = mpsc::unbounded_channel();
            let worker = worker::Worker::new(index, Arc::clone(&engine.shared))?;
            let thread = std::thread::Builder::new()
                .name(format!("replay-{index}"))
                .spawn(move || worker.run(commands))
                .map_err(StartError::Thread)?;
            engine.inboxes.push(inbox);
            engine.threads.push(thread);
        }
        Ok(engine)
    }

    /// A way to offer requests; a thread that offers has one of its own.
    #[must_use]
    pub fn feeder(&self) -> Feeder {
        Feeder::new(Arc::clone(&self.shared), self.inboxes.clone())
    }

    /// A way to watch and to stop the engine from anywhere.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        EngineHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Takes no more requests, sends what waits until `grace` is over, and returns the balanced account. What was not
    /// sent by then is skipped as [`Reason::Stopped`](crate::account::Reason::Stopped); what was sent and not answered
    /// fails as [`Reason::StoppedUnanswered`](crate::account::Reason::StoppedUnanswered).
    ///
    /// Flush every [`Feeder`] before: what one still holds is settled, as stopped, only when it lets go.
    #[must_use]
    pub fn drain(mut self, grace: Duration) -> Snapshot {
        self.handle().stop(grace);
        self.join();
        self.shared.snapshot()
    }

    /// Takes no more requests, sends all that waits however long that takes (each is bounded by its deadlines), and
    /// returns the balanced account. [`EngineHandle::stop`] cuts it short.
    #[must_use]
    pub fn finish(self) -> Snapshot {
        self.drain(Duration::MAX)
    }

    fn join(&mut self) {
        self.inboxes.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a replay thread panicked");
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.handle().stop(Duration::ZERO);
        self.join();
    }
}

/// Watches and stops an [`Engine`].
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
}

impl EngineHandle {
    /// What has happened so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// How it is now, without the cost of a whole snapshot.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.shared.condition()
    }

    /// What was counted so far, without the cost of a whole snapshot.
    #[must_use]
    pub fn account(&self) -> Account {
        self.shared.account()
    }

    /// What is known of the target's addresses, without the cost of a whole snapshot.
    #[must_use]
    pub fn target_state(&self) -> TargetState {
        self.shared.target.borrow().clone()
    }

    /// Whether requests go to the target.
    #[must_use]
    pub fn gate(&self) -> Gate {
        *self.shared.gate.borrow()
    }

    /// Lets requests go to the target, wait, or be skipped, from now on; what is under way is not called back.
    pub fn set_gate(&self, gate: Gate) {
        self.shared.set_gate(gate);
    }

    /// Takes no more requests (an offer that waits returns, its request skipped), and gives up on those under way after
    /// `grace`, or earlier if an earlier call said so. Returns at once; [`Engine::drain`] waits.
    pub fn stop(&self, grace: Duration) {
        self.shared.stop_by(later(Instant::now(), grace));
    }
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system refused a thread or its event queue.
    #[error("a replay thread could not be started: {0}")]
    Thread(#[source] io::Error),
    /// TLS could not be set up.
    #[error("TLS could not be set up for the target: {0}")]
    Tls(String),
}
