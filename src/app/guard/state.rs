//! What a guard concludes from addresses, marked requests and probes. It is told the time.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::replay::Gate;

/// How it can be told whether a target leads to version 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Means {
    /// By probes, before the first request goes to new addresses, and whenever there is a doubt.
    ProbeFirst,
    /// By probes, once there is a doubt.
    Probe,
    /// By its addresses alone: a doubt lasts until they change.
    Addresses,
}

/// Why replay to a target is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// Its address is version 1's own.
    OwnAddress(SocketAddr),
    /// A replay, perhaps through another target or from elsewhere, has arrived at version 1.
    Marked,
    /// A probe of this very target has arrived at version 1.
    Looped,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnAddress(address) => {
                write!(f, "its address {address} is version 1 itself")
            }
            Self::Marked => f.write_str(
                "a request that carries the mark of a replay has arrived at version 1; finding out whether it came this way",
            ),
            Self::Looped => f.write_str(
                "what is sent to it arrives at version 1. Is its Service selecting version 1's pods, as a preview \
                 Service does between two releases?",
            ),
        }
    }
}

/// Whether requests may go to one target.
#[derive(Debug)]
pub(super) struct Guard {
    means: Means,
    phase: Phase,
    /// A probe is under way.
    is_probing: bool,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The target has no address.
    Nowhere,
    /// Its addresses are new: probes are to show where they lead.
    Checking(Probes),
    /// Requests go there.
    Open {
        /// Nobody answered yet: when to try again.
        unchecked: Option<Instant>,
        /// Until then, marks alone are known to come from elsewhere.
        trusted_until: Option<Instant>,
    },
    /// No request goes there. Since when there has been no sign of a loop, and the probes since.
    Paused(Why, Instant, Probes),
}

/// Probes in a row that were answered, and did not arrive at version 1.
#[derive(Clone, Copy, Debug)]
struct Probes {
    next: Instant,
    answered: u32,
    last: Instant,
}

impl Probes {
    const fn from(now: Instant) -> Self {
        Self {
            next: now,
            answered: 0,
            last: now,
        }
    }

    /// Whether so many were answered, the last long enough ago to have been captured by now if it had come this way.
    fn show(&self, number: u32, now: Instant) -> bool {
        self.answered >= number && now.saturating_duration_since(self.last) >= SETTLE
    }
}

impl Guard {
    pub(super) const fn new(means: Means) -> Self {
        Self {
            means,
            phase: Phase::Nowhere,
            is_probing: false,
        }
    }

    pub(super) fn gate(&self) -> Gate {
        match self.phase {
            // What is sent nowhere fails with a reason of its own.
            Phase::Nowhere | Phase::Open { .. } => Gate::Open,
            Phase::Checking(_) => Gate::Hold,
            Phase::Paused(..) => Gate::Shut,
        }
    }

    pub(super) fn why(&self) -> Option<Why> {
        match self.phase {
            Phase::Paused(why, ..) => Some(why),
            _ => None,
        }
    }

    pub(super) fn own_address(&self) -> Option<SocketAddr> {
        match self.phase {
            Phase::Paused(Why::OwnAddress(address), ..) => Some(address),
            _ => None,
        }
    }

    /// The target has other addresses, or none; one of them is version 1's own, perhaps.
    pub(super) fn addresses(&mut self, now: Instant, any: bool, own: Option<SocketAddr>) {
        self.phase = match (own, any, self.means) {
            (Some(own), _, _) => Phase::Paused(Why::OwnAddress(own), now, Probes::from(now)),
            (None, false, _) => Phase::Nowhere,
            (None, true, Means::ProbeFirst) => Phase::Checking(Probes::from(now)),
            (None, true, Means::Probe | Means::Addresses) => OPEN,
        };
    }

    /// A marked request has arrived at version 1: a replay, or a probe of this very target.
    pub(super) fn marked(&mut self, now: Instant, is_probe: bool) {
        let why = if is_probe { Why::Looped } else { Why::Marked };
        match self.phase {
            Phase::Nowhere => {}
            Phase::Paused(Why::OwnAddress(_), ..) => {}
            Phase::Paused(..) | Phase::Open { .. } if is_probe => self.pause(why, now),
            Phase::Paused(..) => {}
            Phase::Open { trusted_until, .. } if trusted_until.is_some_and(|until| now < until) => {
            }
            Phase::Checking(_) | Phase::Open { .. } => self.pause(why, now),
        }
    }

    /// A probe has ended.
    pub(super) fn probed(&mut self, now: Instant, is_answered: bool) {
        self.is_probing = false;
        match (&mut self.phase, is_answered) {
            (Phase::Checking(probes) | Phase::Paused(_, _, probes), true) => {
                probes.answered += 1;
                probes.last = now;
            }
            // Nobody is there to get anything twice.
            (Phase::Checking(_), false) => {
                self.phase = Phase::Open {
                    unchecked: Some(now + UNCHECKED),
                    trusted_until: None,
                }
            }
            (Phase::Paused(_, _, probes), false) => probes.answered = 0,
            (
                Phase::Open {
                    unchecked: Some(next),
                    ..
                },
                false,
            ) => *next = now + UNCHECKED,
            (
                Phase::Open {
                    unchecked: Some(_), ..
                },
                true,
            ) => self.phase = Phase::Checking(Probes::from(now)),
            (Phase::Nowhere | Phase::Open { .. }, _) => {}
        }
    }

    /// Time has passed; whether a probe is to be sent now.
    pub(super) fn beat(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::Checking(probes) if probes.show(CHECK, now) => self.phase = OPEN,
            Phase::Paused(Why::Marked, _, probes) if probes.show(DOUBT, now) => {
                self.phase = Phase::Open {
                    unchecked: None,
                    trusted_until: Some(now + TRUST),
                }
            }
            Phase::Paused(Why::Looped, since, probes)
                if probes.show(DOUBT, now) && now.saturating_duration_since(since) >= QUIET =>
            {
                self.phase = OPEN;
            }
            _ => {}
        }
        if self.is_probing || self.means == Means::Addresses {
            return false;
        }
        let (next, pause) = match &mut self.phase {
            // Enough; it is still to show that none of them comes by.
            Phase::Checking(probes) if probes.answered >= CHECK => return false,
            Phase::Paused(Why::Marked, _, probes) if probes.answered >= DOUBT => return false,
            Phase::Checking(probes) => (&mut probes.next, QUICK),
            Phase::Paused(Why::Marked, _, probes) => (&mut probes.next, QUICK),
            Phase::Paused(Why::Looped, _, probes) => (&mut probes.next, SLOW),
            Phase::Open {
                unchecked: Some(next),
                ..
            } => (next, UNCHECKED),
            Phase::Nowhere | Phase::Open { .. } | Phase::Paused(Why::OwnAddress(_), ..) => {
                return false;
            }
        };
        if now < *next {
            return false;
        }
        *next = now + pause;
        self.is_probing = true;
        true
    }

    fn pause(&mut self, why: Why, now: Instant) {
        let mut probes = Probes::from(now);
        if why == Why::Looped {
            probes.next = now + SLOW;
        }
        self.phase = Phase::Paused(why, now, probes);
    }
}

const OPEN: Phase = Phase::Open {
    unchecked: None,
    trusted_until: None,
};

/// So many answered probes show that new addresses do not lead to version 1, and that a mark came from elsewhere.
const CHECK: u32 = 3;
const DOUBT: u32 = 5;

/// How long after its answer a probe has certainly been captured, had it come this way.
const SETTLE: Duration = Duration::from_millis(300);

/// How long there must be no sign of a loop before a target that was one is sent to again. Each of version 1's pods probes
/// once in [`SLOW`], and a Service spreads that over all of them.
const QUIET: Duration = Duration::from_secs(10);

/// The time between two probes, in a check and in a loop.
const QUICK: Duration = Duration::from_millis(100);
const SLOW: Duration = Duration::from_secs(1);

/// How soon a target that did not answer a check is checked again.
const UNCHECKED: Duration = Duration::from_secs(1);

/// How long marks are known to come from elsewhere, once probes have shown it.
const TRUST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    /// Beats ten times a second for so long; each probe ends in `answer`. How many were sent.
    fn run(guard: &mut Guard, now: &mut Instant, length: Duration, answer: bool) -> u32 {
        let end = *now + length;
        let mut probes = 0;
        while *now < end {
            *now += Duration::from_millis(100);
            if guard.beat(*now) {
                probes += 1;
                guard.probed(*now, answer);
            }
        }
        probes
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn new_addresses_are_held_until_probes_came_back_without_coming_by() {
        let mut now = Instant::now();
        let mut guard = Guard::new(Means::ProbeFirst);
        assert_eq!(guard.gate(), Gate::Open);
        guard.addresses(now, true, None);
        assert_eq!(guard.gate(), Gate::Hold);
        assert!(run(&mut guard, &mut now, SECOND, true) >= CHECK);
        assert_eq!(guard.gate(), Gate::Open);
        assert_eq!(run(&mut guard, &mut now, SECOND * 60, true), 0);
    }

    #[test]
    fn a_probe_that_comes_by_shuts_the_gate_until_none_has_for_a_while() {
        let mut now = Instant::now();
        let mut guard = Guard::new(Means::ProbeFirst);
        guard.addresses(now, true, None);
        assert!(guard.beat(now));
        guard.marked(now, true);
        guard.probed(now, true);
        assert_eq!(guard.why(), Some(Why::Looped));
        for _ in 0..20 {
            run(&mut guard, &mut now, QUIET - SECOND, true);
            guard.marked(now, true);
        }
        assert_eq!(guard.gate(), Gate::Shut);
        run(&mut guard, &mut now, QUIET + SECOND, true);
        assert_eq!(guard.gate(), Gate::Open);
    }

    #[test]
    fn a_loop_is_not_over_because_nobody_answers() {
        let mut now = Instant::now();
        let mut guard = Guard::new(Means::Probe);
        guard.addresses(now, true, None);
        guard.marked(now, true);
        assert!(run(&mut guard, &mut now, QUIET * 3, false) > 0);
        assert_eq!(guard.gate(), Gate::Shut);
    }

    #[test]
    fn a_mark_pauses_until_probes_show_that_it_came_from_elsewhere() {
        let mut now = Instant::now();
        let mut guard = Guard::new(Means::Probe);
        guard.addresses(now, true, None);
        assert_eq!(guard.gate(), Gate::Open);
        guard.marked(now, false);
        assert_eq!(guard.why(), Some(Why::Marked));
        run(&mut guard, &mut now, SECOND * 2, true);
        assert_eq!(guard.gate(), Gate::Open);
        // Anybody can send marks; they are not looked at again at once.
        guard.marked(now, false);
        assert_eq!(guard.gate(), Gate::Open);
        // A probe of this target is no rumour.
        guard.marked(now, true);
        assert_eq!(guard.why(), Some(Why::Looped));
        run(&mut guard, &mut now, TRUST + QUIET, true);
        guard.marked(now, false);
        assert_eq!(guard.why(), Some(Why::Marked));
    }

    #[test]
    fn a_target_that_nobody_serves_is_not_held_and_checked_once_somebody_does() {
        let mut now = Instant::now();
        let mut guard = Guard::new(Means::ProbeFirst);
        guard.addresses(now, true, None);
        run(&mut guard, &mut now, SECOND, false);
        assert_eq!(guard.gate(), Gate::Open);
        now += UNCHECKED;
        assert!(guard.beat(now));
        guard.probed(now, true);
        assert_eq!(guard.gate(), Gate::Hold);
    }

    #[test]
    fn the_own_address_shuts_the_gate_until_the_addresses_change() {
        let mut now = Instant::now();
        let own = SocketAddr::from(([10, 0, 0, 1], 80));
        for means in [Means::ProbeFirst, Means::Probe, Means::Addresses] {
            let mut guard = Guard::new(means);
            guard.addresses(now, true, Some(own));
            assert_eq!(guard.own_address(), Some(own));
            guard.marked(now, false);
            assert_eq!(run(&mut guard, &mut now, QUIET * 2, true), 0);
            assert_eq!(guard.gate(), Gate::Shut);
            guard.addresses(now, true, None);
            assert_ne!(guard.gate(), Gate::Shut);
            guard.addresses(now, false, None);
            assert_eq!(guard.gate(), Gate::Open);
        }
    }

    #[test]
    fn without_probes_a_mark_pauses_until_the_addresses_change() {
        let mut now = Instant::now();
        let mut guard = Guard::new(Means::Addresses);
        guard.addresses(now, true, None);
        guard.marked(now, false);
        assert_eq!(run(&mut guard, &mut now, QUIET * 20, true), 0);
        assert_eq!(guard.gate(), Gate::Shut);
        guard.addresses(now, true, None);
        assert_eq!(guard.gate(), Gate::Open);
    }
}
