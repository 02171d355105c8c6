//! The `wire` sender: captured bytes on plain TCP, answers read by the parser that reads captured answers.

mod connection;
mod exchange;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

use self::connection::Connection;
use self::exchange::{Alarm, Exchange};
use super::items::Items;
use super::outcome::Ticket;
use super::outgoing::{Edits, Outgoing};
use super::shared::{Shared, later};
use super::worker::{Failure, Sender};
use super::{Answer, TargetState};
use crate::account::Reason;

/// Sends over one connection at a time, kept between requests when the protocol allows it.
pub(super) struct WireSender {
    shared: Arc<Shared>,
    edits: Edits,
    connection: Option<Connection>,
    /// Requests that were pipelined behind the one in hand, in order.
    begun: VecDeque<Begun>,
    /// How far the request that is sent next has come already.
    resumed: Option<(Outgoing, Option<Instant>)>,
    alarm: Alarm,
}

/// A request that is being written before its turn to be answered.
struct Begun {
    ticket: Ticket,
    outgoing: Outgoing,
    first_written: Option<Instant>,
}

impl WireSender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            edits: Edits::new(&shared.config),
            connection: None,
            begun: VecDeque::new(),
            resumed: None,
            alarm: Alarm::default(),
            shared,
        }
    }

    /// Opens a connection to the first address that accepts one. The time left is shared out among the addresses, so
    /// that one that says nothing does not use up the turn of the next.
    async fn connect(&self) -> Result<Connection, Reason> {
        let deadline = later(Instant::now(), self.shared.config.deadlines.connect);
        let addresses = self.addresses(deadline).await?;
        let mut failure = (Reason::ConnectFailed, String::new());
        for (tried, &address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let waiting = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            failure = match timeout(left / waiting, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(Connection::new(stream, Arc::clone(&self.shared))),
                Ok(Err(error)) => {
                    if error.kind() == io::ErrorKind::AddrNotAvailable {
                        self.shared.note_out_of_ports();
                    }
                    (Reason::ConnectFailed, format!("{address}: {error}"))
                }
                Err(_) => (
                    Reason::ConnectTimeout,
                    format!("{address}: no connection in time"),
                ),
            };
        }
        self.shared.note_trouble(failure.1);
        Err(failure.0)
    }

    /// The target's addresses, waiting for the resolver's first answer only.
    async fn addresses(&self, deadline: Instant) -> Result<Vec<SocketAddr>, Reason> {
        let mut state = self.shared.target.subscribe();
        let known = state.wait_for(|state| *state != TargetState::Asking);
        match timeout_at(deadline.into(), known).await {
            Ok(Ok(state)) => match &*state {
                TargetState::Resolved(addresses) => Ok(addresses.clone()),
                TargetState::Asking | TargetState::Unresolved(_) => Err(Reason::ResolveFailed),
            },
            Ok(Err(_)) | Err(_) => Err(Reason::ResolveFailed),
        }
    }
}

impl Sender for WireSender {
    async fn send(
        &mut self,
        ticket: &mut Ticket,
        items: &mut Items,
    ) -> Result<Box<Answer>, Failure> {
        let (outgoing, first_written) = match self.resumed.take() {
            Some(resumed) => resumed,
            None => (Outgoing::new(&ticket.request, &self.edits), None),
        };
        let mut connection = match self.connection.take() {
            // The answer may be there already.
            Some(connection) if first_written.is_some() => connection,
            None if first_written.is_some() => return Err(Failure::early(Reason::ConnectionLost)),
            Some(connection) if connection.is_quiet() => connection,
            stale => {
                drop(stale);
                self.connect().await.map_err(Failure::early)?
            }
        };
        let mut exchange = Exchange {
            shared: &self.shared,
            edits: &self.edits,
            outgoing,
            ticket,
            connection: &mut connection,
            begun: &mut self.begun,
            is_broken: false,
            first_written,
            last_written: None,
            answer_began: None,
            read_at: None,
            progress: Instant::now(),
            interim: Vec::new(),
            head: None,
            received: None,
        };
        let (answer, keep) = exchange.run(items, &mut self.alarm).await?;
        if keep {
            connection.reset();
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    fn next_begun(&mut self) -> Option<Ticket> {
        let next = self.begun.pop_front()?;
        self.resumed = Some((next.outgoing, next.first_written));
        Some(next.ticket)
    }

    fn watch(&mut self, context: &mut Context<'_>) {
        while let Some(connection) = &self.connection {
            match connection.stream.poll_read_ready(context) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if connection.is_quiet() => {}
                // Whatever comes now, a close or bytes that nobody asked for, is the end of it.
                Poll::Ready(_) => self.hang_up(),
            }
        }
    }

    fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.shared.out_of_ports.load(Ordering::Relaxed)
            && let Err(error) = SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO))
        {
            tracing::debug!(%error, "SO_LINGER");
        }
    }
}
