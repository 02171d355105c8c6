//! The way to the thread that compares, for what is not compared at once.
//!
//! Whoever has something only puts it down: nobody is woken for it, and nobody waits, unless the traffic comes from a file.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;

use super::table::Half;
use crate::replay::WhenFull;

/// Requests of which all is known, until the thread that compares takes them all at once.
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
    halves: Vec<Half>,
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

    /// Puts it down; whether there was room. If there is none: with [`WhenFull::Block`] waits for it.
    #[must_use]
    pub(super) fn put(&self, half: Half) -> bool {
        let mut things = self.lock();
        while things.bytes > self.most_bytes {
            if self.when_full != WhenFull::Block || things.is_closed {
                return false;
            }
            let _ = self.nudge.try_send(());
            things = self
                .room
                .wait(things)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let before = things.bytes;
        things.bytes += half.size();
        things.halves.push(half);
        let half = self.most_bytes / 2;
        if before <= half && things.bytes > half {
            let _ = self.nudge.try_send(());
        }
        true
    }

    /// Takes everything; `into` is empty and gives its memory in return.
    pub(super) fn take(&self, into: &mut Vec<Half>) {
        debug_assert!(into.is_empty());
        let mut things = self.lock();
        std::mem::swap(&mut things.halves, into);
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
