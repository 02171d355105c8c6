//! The way of the answers to the thread that compares them.
//!
//! Whoever has an answer only puts it down: nobody is woken for it, and nobody waits, unless the traffic comes from a file.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;

use crate::exchange::{ExchangeId, NoAnswer, Request, Response};
use crate::replay::{Outcome, Replay, WhenFull};

/// What the thread that compares hears of.
pub(super) enum Seen {
    /// This request is being replayed to version 2: version 1's answer to it is wanted.
    Expected(std::sync::Arc<Request>),
    /// Version 1's answer.
    Version1(ExchangeId, Box<Response>),
    /// Version 1 has not answered.
    Unanswered(ExchangeId, NoAnswer),
    /// Version 1 has answered, and there was no room for the answer.
    Version1Lost(ExchangeId),
    /// What became of the replay to version 2.
    Version2(Replay),
    /// What became of the replay to the control.
    Control(Replay),
    /// Version 2 or the control has answered, and there was no room for the answer.
    Lost(Side, ExchangeId),
}

/// Where a replay went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Version2,
    Control,
}

impl Seen {
    /// About what it takes in memory.
    fn size(&self) -> usize {
        let message = |head: usize, body: usize| head + body + size_of::<Response>();
        size_of::<Self>()
            + match self {
                Self::Version1(_, response) => {
                    message(response.head.bytes().len(), response.body.wire.len())
                }
                Self::Version2(replay) | Self::Control(replay) => match &replay.outcome {
                    Outcome::Answered(answer) => message(
                        answer.response.head.bytes().len(),
                        answer.response.body.wire.len(),
                    ),
                    Outcome::Failed(_) | Outcome::Skipped(_) => 0,
                },
                Self::Expected(request) => {
                    message(request.head.bytes().len(), request.body.wire.len())
                }
                Self::Unanswered(..) | Self::Version1Lost(_) | Self::Lost(..) => 0,
            }
    }

    /// What is left of it when there is no room: that it was.
    fn without_content(self) -> Option<Self> {
        match self {
            // The answers to it will find no place, and are counted then.
            Self::Expected(_) => None,
            Self::Version1(id, _) => Some(Self::Version1Lost(id)),
            Self::Version2(Replay {
                request,
                outcome: Outcome::Answered(_),
            }) => Some(Self::Lost(Side::Version2, request.id)),
            Self::Control(Replay {
                request,
                outcome: Outcome::Answered(_),
            }) => Some(Self::Lost(Side::Control, request.id)),
            small => Some(small),
        }
    }
}

/// One producer's things, until the thread that compares takes them all at once.
pub(super) struct Inbox {
    things: Mutex<Things>,
    room: Condvar,
    when_full: WhenFull,
    most_bytes: usize,
    /// Has the thread look before it would.
    nudge: Sender<()>,
}

#[derive(Default)]
struct Things {
    seen: Vec<Seen>,
    bytes: usize,
    /// Nobody takes anything any more.
    is_closed: bool,
}

impl Inbox {
    pub(super) fn new(when_full: WhenFull, most_bytes: usize, nudge: Sender<()>) -> Self {
        Self {
            things: Mutex::default(),
            room: Condvar::new(),
            when_full,
            most_bytes,
            nudge,
        }
    }

    /// Puts it down. If there is no room: with [`WhenFull::Block`] waits for it, otherwise keeps only that it was.
    pub(super) fn put(&self, seen: Seen) {
        let size = seen.size();
        let mut things = self.lock();
        while things.bytes > self.most_bytes
            && self.when_full == WhenFull::Block
            && !things.is_closed
        {
            let _ = self.nudge.try_send(());
            things = self
                .room
                .wait(things)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let kept = if things.bytes > self.most_bytes {
            seen.without_content()
        } else {
            Some(seen)
        };
        if let Some(seen) = kept {
            let before = things.bytes;
            things.bytes += size;
            things.seen.push(seen);
            let half = self.most_bytes / 2;
            if before <= half && things.bytes > half {
                let _ = self.nudge.try_send(());
            }
        }
    }

    /// Takes everything; `into` is empty and gives its memory in return.
    pub(super) fn take(&self, into: &mut Vec<Seen>) {
        debug_assert!(into.is_empty());
        let mut things = self.lock();
        std::mem::swap(&mut things.seen, into);
        things.bytes = 0;
        drop(things);
        self.room.notify_all();
    }

    /// Lets whoever waits go on: what they put is taken by nobody.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.room.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Things> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
