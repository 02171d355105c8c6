//! A bound on what waits, in items and in bytes: for a target, and between the stages of `gor`.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What happens to a request when the queue to the target is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenFull {
    /// Whoever offers it waits until there is room. For files, which can wait.
    Block,
    /// It is skipped as [`Reason::QueueFull`](crate::account::Reason::QueueFull). For live traffic, which cannot.
    DropNewest,
}

/// How much may wait: for a target, or under way to it.
///
/// Invariant: `items` and `bytes` are the sums over all permits that exist.
#[derive(Debug)]
pub(crate) struct Budget {
    max_items: usize,
    max_bytes: usize,
    state: Mutex<State>,
    /// Somebody gave a permit back, or nothing more is let in.
    room: Condvar,
    /// Nothing more is let in.
    closed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    items: usize,
    bytes: usize,
    /// Nothing more is let in.
    closed: bool,
    /// How many wait for room.
    waiting: usize,
}

/// An item's share of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

/// Why there is no permit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// No room.
    Full,
    /// Hardly any room: who asks is one of those that make way for the others.
    Crowded,
    /// Nothing more is let in.
    Closed,
}

impl Budget {
    pub(crate) fn new(max_items: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max_items: max_items.max(1),
            max_bytes,
            state: Mutex::new(State::default()),
            room: Condvar::new(),
            closed: Condvar::new(),
        })
    }

    /// A permit for one request of `bytes` bytes, if there is room. While the last quarter of the room is filled, those with
    /// low numbers are refused, the more the fuller it is, so that who asks with the same number again gets the same answer;
    /// `u32::MAX` never is.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: usize, number: u32) -> Result<Permit, Refusal> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refusal::Closed);
        }
        if !self.has_room(&state, bytes) {
            return Err(Refusal::Full);
        }
        if number < self.crowd(&state) {
            return Err(Refusal::Crowded);
        }
        state.items += 1;
        state.bytes += bytes;
        Ok(Permit {
            budget: Arc::clone(self),
            bytes,
        })
    }

    /// A permit for one request of `bytes` bytes, waiting for room. One that is larger than the whole budget waits
    /// until it is alone. Who had to wait is woken once a good part of the budget is free, not for every permit.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Permit, Refusal> {
        let mut state = self.lock();
        let mut has_waited = false;
        while !state.closed && state.items > 0 {
            if self.has_room(&state, bytes) && (!has_waited || self.is_low(&state)) {
                break;
            }
            has_waited = true;
            state.waiting += 1;
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        if state.closed {
            return Err(Refusal::Closed);
        }
        state.items += 1;
        state.bytes += bytes;
        Ok(Permit {
            budget: Arc::clone(self),
            bytes,
        })
    }

    /// Waits until `due`; returns early, with `false`, when the budget is closed.
    pub(crate) fn wait_until(&self, due: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if state.closed {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self
                .closed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Lets nothing more in, and wakes those that wait.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
        self.closed.notify_all();
    }

    /// How many requests, and how many bytes of them, hold permits.
    pub(crate) fn used(&self) -> (usize, usize) {
        let state = self.lock();
        (state.items, state.bytes)
    }

    fn has_room(&self, state: &State, bytes: usize) -> bool {
        state.items < self.max_items && state.bytes.saturating_add(bytes) <= self.max_bytes
    }

    /// Which numbers make way: none until three quarters of the budget are used, all when nothing is left.
    fn crowd(&self, state: &State) -> u32 {
        let of = |used: usize, most: usize| {
            let last = most / 4;
            match used.saturating_sub(most - last) {
                0 => 0,
                over => {
                    u32::try_from(((over as u64) << 32) / last.max(1) as u64).unwrap_or(u32::MAX)
                }
            }
        };
        of(state.items, self.max_items).max(of(state.bytes, self.max_bytes))
    }

    /// Whether a quarter of the budget is free.
    fn is_low(&self, state: &State) -> bool {
        state.items <= self.max_items - self.max_items.div_ceil(4)
            && state.bytes <= self.max_bytes - self.max_bytes / 4
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        debug_assert!(state.items > 0 && state.bytes >= self.bytes);
        state.items = state.items.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(self.bytes);
        if state.waiting > 0 && self.budget.is_low(&state) {
            drop(state);
            self.budget.room.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn bounds_items_and_bytes() {
        let budget = Budget::new(2, 100);
        let first = budget.try_take(60, u32::MAX).expect("room");
        assert_eq!(budget.try_take(41, u32::MAX).err(), Some(Refusal::Full));
        let second = budget.try_take(40, u32::MAX).expect("room");
        assert_eq!(budget.try_take(0, u32::MAX).err(), Some(Refusal::Full));
        drop(first);
        assert_eq!(budget.used(), (1, 40));
        drop(second);
        assert_eq!(budget.used(), (0, 0));
    }

    #[test]
    fn the_fuller_it_is_the_more_make_way() {
        let budget = Budget::new(100, 1000);
        let share = |number: u32| u32::MAX / 100 * number;
        let mut held = Vec::new();
        for items in 0..100 {
            for number in 0..100 {
                let refused = budget.try_take(1, share(number)).err();
                let makes_way = items > 75 && number <= (items - 75) * 4;
                let is_border = items > 75 && number == (items - 75) * 4;
                let expected = makes_way.then_some(Refusal::Crowded);
                assert!(refused == expected || is_border, "{items} {number}");
            }
            held.push(budget.try_take(1, u32::MAX).expect("room"));
        }
        assert_eq!(budget.try_take(1, u32::MAX).err(), Some(Refusal::Full));
        drop(held);
        let half = budget.try_take(874, 0).expect("room");
        assert_eq!(budget.try_take(1, share(49)).err(), Some(Refusal::Crowded));
        assert!(budget.try_take(1, share(51)).is_ok());
        drop(half);
    }

    #[test]
    fn what_is_larger_than_everything_goes_alone() {
        let budget = Budget::new(10, 100);
        assert_eq!(budget.try_take(101, 0).err(), Some(Refusal::Full));
        let small = budget.try_take(1, 0).expect("room");
        thread::scope(|scope| {
            let large = scope.spawn(|| budget.take(1000));
            drop(small);
            assert!(large.join().expect("no panic").is_ok());
        });
    }

    #[test]
    fn closing_wakes_those_that_wait() {
        let budget = Budget::new(1, 100);
        let held = budget.try_take(1, 0).expect("room");
        thread::scope(|scope| {
            let taker = scope.spawn(|| budget.take(1).err());
            let sleeper =
                scope.spawn(|| budget.wait_until(Instant::now() + Duration::from_secs(3600)));
            budget.close();
            assert_eq!(taker.join().expect("no panic"), Some(Refusal::Closed));
            assert!(!sleeper.join().expect("no panic"));
        });
        drop(held);
    }
}
