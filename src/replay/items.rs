//! What one slot is to do, in order, with a look at what comes next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

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

    /// The next item; `None` at the end.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        match self.stash.take() {
            Some(item) => Poll::Ready(Some(item)),
            None => self.queue.poll_recv(context),
        }
    }

    /// The next item, if it is a request that was pipelined on `connection`; never ready if it is not.
    pub(super) fn poll_pipelined(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
    ) -> Poll<Ticket> {
        if self.stash.is_none() {
            self.stash = ready!(self.queue.poll_recv(context));
        }
        match self.stash.take() {
            Some(Item::Replay(ticket))
                if ticket.is_pipelined && ticket.request.connection == connection =>
            {
                Poll::Ready(ticket)
            }
            other => {
                self.stash = other;
                Poll::Pending
            }
        }
    }

    /// One item was worked off.
    pub(super) fn done(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }
}
