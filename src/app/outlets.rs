//! The ways out: every engine that a request may go to, and who compares.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Instant;

use super::Routes;
use super::compare::Comparing;
use crate::account::Reason;
use crate::exchange::{ConnectionId, Request};
use crate::replay::Feeder;
use crate::traffic::Traffic;

/// The feeders of all engines, as one thread uses them.
pub(super) struct Outlets {
    /// One for each `--to`; the first is the one that is judged.
    feeders: Vec<Feeder>,
    /// Gets what the first gets, in random order with it.
    control: Option<Feeder>,
    comparing: Option<Comparing>,
    coins: Coins,
}

impl Outlets {
    /// With `has_control` the last feeder is the control's.
    pub(super) fn new(
        mut feeders: Vec<Feeder>,
        has_control: bool,
        comparing: Option<Comparing>,
    ) -> Self {
        let control = if has_control { feeders.pop() } else { None };
        Self {
            feeders,
            control,
            comparing,
            coins: Coins::new(),
        }
    }

    /// How many targets there are, beside the control.
    pub(super) fn targets(&self) -> usize {
        self.feeders.len()
    }

    /// Offers `request`, which version 1 answered with `status`, to leave now, to every engine that it is for.
    pub(super) fn offer(
        &mut self,
        request: &Arc<Request>,
        status: Option<u16>,
        pipelined: bool,
        traffic: &Traffic,
    ) {
        let routes = super::route(request, status, traffic, self.targets());
        self.offer_due(request, routes, Instant::now(), pipelined);
    }

    /// Offers `request` along its routes, to leave when it is due.
    pub(super) fn offer_due(
        &mut self,
        request: &Arc<Request>,
        routes: Routes,
        due: Instant,
        pipelined: bool,
    ) {
        for (target, route) in routes {
            match route {
                Ok(rewritten) if target == 0 => {
                    self.offer_judged(request, rewritten, due, pipelined)
                }
                Ok(rewritten) => self.feeders[target].offer_due(rewritten, due, pipelined),
                Err(reason) => self.feeders[target].skip(Arc::clone(request), reason),
            }
        }
    }

    /// Counts `request` as offered to every target and skipped.
    pub(super) fn skip(&mut self, request: &Arc<Request>, reason: Reason) {
        for feeder in &mut self.feeders {
            feeder.skip(Arc::clone(request), reason);
        }
    }

    /// To the version that is judged, and to the control; who comes first, a coin decides each time, since whoever comes
    /// second may find caches warm that the other has filled.
    fn offer_judged(
        &mut self,
        captured: &Arc<Request>,
        rewritten: Arc<Request>,
        due: Instant,
        pipelined: bool,
    ) {
        if let Some(comparing) = &self.comparing {
            comparing.expect(captured);
        }
        let judged = &mut self.feeders[0];
        let Some(control) = &mut self.control else {
            return judged.offer_due(rewritten, due, pipelined);
        };
        let mut order = [judged, control];
        if self.coins.toss() {
            order.reverse();
        }
        for feeder in order {
            feeder.offer_due(Arc::clone(&rewritten), due, pipelined);
            feeder.flush();
        }
    }

    /// A captured connection has ended.
    pub(super) fn closed(&mut self, connection: ConnectionId) {
        for feeder in self.feeders.iter_mut().chain(&mut self.control) {
            feeder.closed(connection);
        }
    }

    /// Hands over what is staged.
    pub(super) fn flush(&mut self) {
        for feeder in self.feeders.iter_mut().chain(&mut self.control) {
            feeder.flush();
        }
    }
}

/// Coin tosses, other ones in each run (xorshift64*).
struct Coins(u64);

impl Coins {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0) | 1)
    }

    fn toss(&mut self) -> bool {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 63 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coins_fall_on_both_sides() {
        let mut coins = Coins::new();
        let heads = (0..10_000).filter(|_| coins.toss()).count();
        assert!((4600..5400).contains(&heads), "{heads}");
    }
}
