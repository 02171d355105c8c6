//! The door: what is offered is refused, held until due, or handed to the worker of its connection.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::budget::{Permit, Refusal};
use super::outcome::Ticket;
use super::shared::Shared;
use super::shed::Shed;
use super::worker::Command;
use super::{Outcome, WhenFull};
use crate::account::Reason;
use crate::exchange::{ConnectionId, Request};

/// Offers requests to an [`Engine`](super::Engine).
///
/// With [`WhenFull::DropNewest`] what is offered is staged until [`Self::flush`], until an offer has to wait, or until a
/// good many have gathered: live, requests come in batches. With [`WhenFull::Block`] it is handed over at once: a file
/// may be a pipe, and nobody knows when its next request comes.
pub struct Feeder {
    shared: Arc<Shared>,
    inboxes: Vec<UnboundedSender<Vec<Command>>>,
    /// For each inbox, what it is handed next.
    staged: Vec<Vec<Command>>,
    /// Captured connections that are left out.
    shed: Shed,
}

impl Feeder {
    pub(super) fn new(shared: Arc<Shared>, inboxes: Vec<UnboundedSender<Vec<Command>>>) -> Self {
        let staged = inboxes.iter().map(|_| Vec::new()).collect();
        Self {
            shed: Shed::new(shared.config.idle),
            shared,
            inboxes,
            staged,
        }
    }

    /// Offers a request that is due now.
    ///
    /// With [`WhenFull::Block`] this waits for room. Requests that are not whole are ignored: they left at the stage
    /// `request` and were never offered.
    pub fn offer(&mut self, request: Arc<Request>) {
        self.offer_due(request, Instant::now(), false);
    }

    /// Offers a request that is due at some moment, as a [`Pacer`](super::Pacer) has it: waits until then, and goes on as
    /// [`Self::offer`]. `pipelined` says that its client did not wait for the answer to the request before
    /// ([`Pipelines`](crate::exchange::Pipelines)).
    pub fn offer_due(&mut self, request: Arc<Request>, due: Instant, pipelined: bool) {
        if !request.completeness.is_whole() {
            return;
        }
        let now = Instant::now();
        let connection = request.connection;
        let refusal = match self.refusal(&request) {
            None if self.shed.has(connection, now) => Some(Reason::ConnectionShed),
            refusal => refusal,
        };
        let mut ticket = Ticket::offered(request, due, Arc::clone(&self.shared));
        ticket.is_pipelined = pipelined;
        if let Some(reason) = refusal {
            return ticket.settle(Outcome::Skipped(reason));
        }
        if due > now {
            self.flush();
            if !self.shared.budget.wait_until(due) {
                return ticket.settle(Outcome::Skipped(Reason::Stopped));
            }
        }
        if !self.shared.is_within_limit(due.max(now)) {
            return ticket.settle(Outcome::Skipped(Reason::RateLimited));
        }
        if let Err(reason) = self.pass_bandwidth(due.max(now), &ticket.request) {
            return ticket.settle(Outcome::Skipped(reason));
        }
        match self.permit(cost(&ticket.request), connection) {
            Ok(permit) => ticket.admit(permit),
            Err(Refusal::Closed) => return ticket.settle(Outcome::Skipped(Reason::Stopped)),
            Err(refusal) => {
                self.shed.add(connection, now);
                return ticket.settle(Outcome::Skipped(match refusal {
                    Refusal::Full => Reason::QueueFull,
                    Refusal::Crowded | Refusal::Closed => Reason::ConnectionShed,
                }));
            }
        }
        self.stage(connection, Command::Replay(ticket));
    }

    /// A place in the queue: at once or not at all, or once there is room.
    fn permit(&mut self, bytes: usize, connection: ConnectionId) -> Result<Permit, Refusal> {
        let budget = Arc::clone(&self.shared.budget);
        if self.shared.config.when_full == WhenFull::DropNewest {
            let number = spread(connection.0 ^ CHOICE) >> 32;
            return budget.try_take(bytes, u32::try_from(number).unwrap_or(u32::MAX));
        }
        match budget.try_take(bytes, u32::MAX) {
            Err(Refusal::Full | Refusal::Crowded) => {
                self.flush();
                budget.take(bytes)
            }
            taken => taken,
        }
    }

    /// Takes the bytes of `request` from those that may be sent; a file waits for them.
    fn pass_bandwidth(&mut self, mut now: Instant, request: &Request) -> Result<(), Reason> {
        let bytes = request.head.bytes().len() + request.body.wire.len();
        while let Err(until) = self.shared.is_within_bandwidth(now, bytes) {
            match self.shared.config.when_full {
                WhenFull::DropNewest => return Err(Reason::BandwidthLimited),
                WhenFull::Block => {
                    self.flush();
                    if !self.shared.budget.wait_until(until) {
                        return Err(Reason::Stopped);
                    }
                    now = until.max(Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Counts a request as offered and skipped for `reason`: a choice that was made before the engine, such as
    /// [`Reason::Filtered`].
    pub fn skip(&mut self, request: Arc<Request>, reason: Reason) {
        if request.completeness.is_whole() {
            Ticket::offered(request, Instant::now(), Arc::clone(&self.shared))
                .settle(Outcome::Skipped(reason));
        }
    }

    /// A captured connection has ended: its target connection is closed once its requests are done.
    pub fn closed(&mut self, connection: ConnectionId) {
        self.shed.closed(connection);
        self.stage(connection, Command::Closed(connection));
    }

    /// Hands over what is staged.
    pub fn flush(&mut self) {
        for (inbox, staged) in self.inboxes.iter().zip(&mut self.staged) {
            if !staged.is_empty() {
                // A worker that is gone has stopped: its requests settle themselves as they are dropped.
                let _ = inbox.send(std::mem::take(staged));
            }
        }
    }

    fn stage(&mut self, connection: ConnectionId, command: Command) {
        let index = usize::try_from(spread(connection.0) % self.inboxes.len() as u64).unwrap_or(0);
        let staged = &mut self.staged[index];
        staged.push(command);
        if staged.len() >= MOST_STAGED || self.shared.config.when_full == WhenFull::Block {
            let _ = self.inboxes[index].send(std::mem::take(staged));
        }
    }

    /// Why `request` is not sent, as far as the request itself tells.
    fn refusal(&self, request: &Request) -> Option<Reason> {
        let config = &self.shared.config;
        let marked = |name: &str| request.head.fields().get(name).is_some();
        if config
            .marker
            .as_ref()
            .is_some_and(|name| marked(name.as_str()))
        {
            Some(Reason::Marked)
        } else if request.doubts.any() && !config.replay_ambiguous {
            Some(Reason::Ambiguous)
        } else if request.head.method() == b"CONNECT" {
            Some(Reason::TunnelRequest)
        } else if request.body.wire.len() > config.max_body {
            Some(Reason::BodyTooLarge)
        } else {
            None
        }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A number whose every bit depends on every bit of `number` (the step of SplitMix64).
pub(super) fn spread(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What a waiting request costs in bytes.
fn cost(request: &Request) -> usize {
    request.head.bytes().len() + request.body.wire.len() + BOOKKEEPING
}

/// About what a request takes beside its bytes: the request, its ticket, its place in two queues.
const BOOKKEEPING: usize = 640;

/// Makes the choice of connections that are left out another one than that of the thread which sends.
const CHOICE: u64 = 0x5eed;

/// Handed over even if nobody asks for it.
const MOST_STAGED: usize = 256;
