//! An open connection to the target.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::super::arrival::{self, Arrived};
use super::super::round_trip::round_trip;
use super::super::shared::Shared;
use crate::http1::{MessageLimits, MessageReader, Side};

/// An open connection to the target, between two exchanges.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) reader: MessageReader,
    /// Whether it has carried an exchange.
    pub(super) used: bool,
    /// Its share of [`Shared::answer_bytes`].
    held: usize,
    /// What the kernel last said of the network, and after how many answers it is asked again.
    round_trip: Option<Duration>,
    ask_after: u32,
    /// How long what was read last had lain with the kernel.
    pub(super) unread: Duration,
    shared: Arc<Shared>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, shared: Arc<Shared>) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        if shared.config.notes_arrivals {
            arrival::note(&stream);
        }
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let limits = MessageLimits {
            body: shared.config.max_answer,
            ..MessageLimits::default()
        };
        Self {
            stream,
            reader: MessageReader::new(Side::Responses, limits),
            used: false,
            held: 0,
            round_trip: None,
            ask_after: 0,
            unread: Duration::ZERO,
            shared,
        }
    }

    /// Counts the bytes that the reader holds, and has it keep no more of this body if all readers hold too many.
    pub(super) fn bound_memory(&mut self) {
        let all = &self.shared.answer_bytes;
        let held = self.reader.memory();
        let before = if held >= self.held {
            all.fetch_add(held - self.held, Ordering::Relaxed)
        } else {
            all.fetch_sub(self.held - held, Ordering::Relaxed)
        };
        if held > self.held && before + (held - self.held) > self.shared.config.answer_bytes {
            self.reader.limit_body(0);
        }
        self.held = held;
    }

    /// The network's share in the time that an answer takes. It changes slowly, so not every answer pays for asking.
    pub(super) fn round_trip(&mut self) -> Option<Duration> {
        if self.ask_after == 0 {
            self.ask_after = ANSWERS_PER_ROUND_TRIP;
            self.round_trip = round_trip(&self.stream);
        }
        self.ask_after -= 1;
        self.round_trip
    }

    /// Makes it fit for another exchange.
    pub(super) fn reset(&mut self) {
        self.used = true;
        self.shared
            .answer_bytes
            .fetch_sub(std::mem::take(&mut self.held), Ordering::Relaxed);
        self.reader.limit_body(self.shared.config.max_answer);
    }

    /// Reads what is there and gives it to the reader; how much that was, and when it was read. It has been waited for
    /// since `since`.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        since: Option<Instant>,
    ) -> Poll<io::Result<(usize, Instant)>> {
        with_scratch(|scratch| {
            loop {
                ready!(self.stream.poll_read_ready(context))?;
                let now = Instant::now();
                let is_long = self.shared.config.notes_arrivals
                    && since.is_some_and(|since| now.saturating_duration_since(since) >= LONG);
                let receive = if is_long {
                    arrival::receive_noted
                } else {
                    arrival::receive
                };
                let mut arrived = None;
                let tried = self.stream.try_io(Interest::READABLE, || {
                    let bytes = arrived.insert(receive(&self.stream, scratch)?).bytes;
                    // That was everything: the runtime need not have the kernel asked once more before it waits.
                    if (1..scratch.len()).contains(&bytes) {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    Ok(())
                });
                if let Some(Arrived { bytes, unread }) = arrived {
                    self.unread = unread;
                    self.reader.push(&scratch[..bytes]);
                    return Poll::Ready(Ok((bytes, now)));
                }
                match tried {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                        return Poll::Ready(Err(error));
                    }
                    // It was only said to be readable.
                    _ => {}
                }
            }
        })
    }

    /// Whether the target has neither closed it nor sent bytes that nobody asked for, as far as the runtime has heard.
    pub(super) fn is_quiet(&self) -> bool {
        match self.stream.try_read(&mut [0]) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.shared
            .answer_bytes
            .fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// Room for what is read, which one thread's connections share.
fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_AT_ONCE].into_boxed_slice());
    }
    SCRATCH.with_borrow_mut(|scratch| work(scratch))
}

/// Bytes of an answer read with one call.
const READ_AT_ONCE: usize = 16 << 10;

/// The kernel is asked for the round trip once for so many answers.
const ANSWERS_PER_ROUND_TRIP: u32 = 16;

/// How long an answer may take of which it is not asked how long it had lain with the kernel: it was less, and no margin is.
const LONG: Duration = Duration::from_millis(1);
