//! What one slot is to do, in order, with a look at what comes next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::UnboundedReceiver;

use super::outcome::Ticket;
use crate::exchange::ConnectionId;

/// What a slot is told.
pub(super) enum Item {
    /// Send this.
    Replay(Ticket),
    /// Close the connection.
    HangUp,
}

/// The queue of one slot.
pub(super) struct Items {
    queue: UnboundedReceiver<Item>,
    /// Taken from the queue, and not yet its turn.
    stash: Option<Item>,
    /// Items in the queue or being worked on.
    pending: Arc<AtomicUsize>,
}

impl Items {
    pub(super) const fn new(queue: UnboundedReceiver<Item>, pending: Arc<AtomicUsize>) -> Self {
        Self {
            queue,
            stash: None,
            pending,
        }
    }

    /// The next item; `None` at the end. Nothing is lost when nobody waits for it any more.
    pub(super) async fn next(&mut self) -> Option<Item> {
        match self.stash.take() {
            Some(item) => Some(item),
            None => self.queue.recv().await,
        }
    }

    /// The next item, if it is a request that was pipelined on `connection`; waits for ever if it is not. Nothing is lost
    /// when nobody waits for it any more.
    pub(super) async fn next_pipelined(&mut self, connection: ConnectionId) -> Ticket {
        if self.stash.is_none() {
            self.stash = self.queue.recv().await;
        }
        match self.stash.take() {
            Some(Item::Replay(ticket))
                if ticket.is_pipelined && ticket.request.connection == connection =>
            {
                ticket
            }
            other => {
                self.stash = other;
                std::future::pending().await
            }
        }
    }

    /// One item was worked off.
    pub(super) fn done(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }
}
