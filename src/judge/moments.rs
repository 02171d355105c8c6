//! Requests that were sent at the same moment, as one observation.
//!
//! What makes answers slow seldom hits one of them alone: while a process is stopped, or a processor is busy with something
//! else, everything that was sent meanwhile waits. Hundreds of answers say no more then than one does. So evidence that
//! *rejects* for latency counts moments: of all requests of a moment together it is asked whether more were slow at version 2 or
//! at the reference, and the answer is one pair. While both are treated alike, either is as likely, however many
//! requests there were and however much they have to do with each other. A moment with a single request is that request.
//!
//! A moment begins when a request is sent that is in none. It lasts a tenth of a second, or until everything that was sent in
//! this tenth was answered by both: so a stall of seconds is one moment as well.

use std::collections::VecDeque;
use std::time::Duration;

use super::tally::MomentTally;
use crate::time::Timestamp;

/// The moments of an endpoint that are not over yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments {
    /// In order. Invariant: none is before `closed`.
    open: VecDeque<Part>,
    /// The first tick that belongs to no moment that is over.
    closed: u64,
}

/// What was sent in one tick.
#[derive(Clone, Copy, Debug)]
struct Part {
    tick: u64,
    /// The tick in which the last answer to it came.
    until: u64,
    nets: Nets,
}

/// By test: in how many more requests it happened to version 2 only than to the reference only.
pub(super) type Nets = [i32; 4];

/// The number of a tenth of a second.
pub(super) fn tick(time: Timestamp) -> u64 {
    time.as_nanos() / TICK_NANOS
}

/// How many tenths of a second something goes on behind the one in which it began.
pub(super) fn ticks(sent: Timestamp, took: Duration) -> u64 {
    tick(sent.after(took)) - tick(sent)
}

const TICK_NANOS: u64 = 100_000_000;

/// Outcomes come in the order in which requests are over, and not in that in which they were sent. So long a moment is kept
/// open for those that come late; what comes still later belongs to the next one.
const LATE: u64 = 20;

/// No moment lasts longer, so that what is open stays bounded.
const LONGEST: u64 = 300;

impl Moments {
    /// Counts a request that was sent in `sent` and took `lasted` ticks at the slower of both.
    pub(super) fn add(&mut self, sent: u64, lasted: u64, nets: Nets) {
        let tick = sent.max(self.closed);
        let until = sent
            .saturating_add(lasted)
            .clamp(tick, tick.saturating_add(LONGEST));
        let behind = self.open.iter().rposition(|part| part.tick <= tick);
        if let Some(at) = behind
            && let Some(part) = self.open.get_mut(at)
            && part.tick == tick
        {
            part.until = part.until.max(until);
            for (mine, more) in part.nets.iter_mut().zip(nets) {
                *mine = mine.saturating_add(more);
            }
            return;
        }
        let part = Part { tick, until, nets };
        self.open.insert(behind.map_or(0, |at| at + 1), part);
    }

    /// Counts the moments that are over when something was sent in `newest`.
    pub(super) fn close(&mut self, newest: u64, tally: &mut MomentTally) {
        while let Some(&Part { until, .. }) = self.open.front() {
            if newest < until.saturating_add(LATE) {
                return;
            }
            let mut nets = Nets::default();
            while let Some(part) = self.open.front().filter(|part| part.tick <= until) {
                for (sum, more) in nets.iter_mut().zip(part.nets) {
                    *sum = sum.saturating_add(more);
                }
                self.open.pop_front();
            }
            self.closed = until.saturating_add(1);
            tally.count(nets);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Pairs;

    const fn pairs(v2: u64, reference: u64) -> Pairs {
        Pairs {
            v2,
            reference,
            both: 0,
        }
    }

    /// The moments, and to how many of them what happened.
    fn counted(requests: &[(u64, u64, i32)], newest: u64) -> (u64, Pairs) {
        let (mut moments, mut tally) = (Moments::default(), MomentTally::default());
        for &(sent, lasted, net) in requests {
            moments.add(sent, lasted, [net, 0, 0, 0]);
            moments.close(sent, &mut tally);
        }
        moments.close(newest, &mut tally);
        (tally.over, tally.slower)
    }

    #[test]
    fn a_burst_is_one_observation_and_the_majority_decides() {
        let burst = [(7, 0, 1), (7, 0, 1), (7, 0, -1), (7, 0, 1)];
        assert_eq!(counted(&burst, u64::MAX), (1, pairs(1, 0)));
        assert_eq!(
            counted(&[(7, 0, 1), (7, 0, -1)], u64::MAX),
            (1, pairs(0, 0))
        );
        assert_eq!(
            counted(&[(7, 0, 1), (8, 0, -1)], u64::MAX),
            (2, pairs(1, 1))
        );
    }

    #[test]
    fn a_moment_lasts_until_what_was_sent_in_it_is_answered() {
        let stall = [(7, 5, 1), (8, 4, 1), (11, 1, 1), (12, 0, 1), (13, 0, -1)];
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]] {
            let requests = order.map(|at| stall[at]);
            assert_eq!(counted(&requests, u64::MAX), (2, pairs(1, 1)), "{order:?}");
        }
        assert_eq!(
            counted(&[(7, 1_000_000, 1), (8, 0, 1)], 7 + LONGEST + LATE),
            (1, pairs(1, 0))
        );
    }

    #[test]
    fn a_moment_is_counted_once_it_is_over() {
        assert_eq!(counted(&[(7, 2, 1)], 8 + LATE), (0, pairs(0, 0)));
        assert_eq!(counted(&[(7, 2, 1)], 9 + LATE), (1, pairs(1, 0)));
    }

    #[test]
    fn what_comes_too_late_belongs_to_the_next_moment() {
        let late = [(7, 0, 1), (100, 0, -1), (7, 0, -1)];
        assert_eq!(counted(&late, u64::MAX), (3, pairs(1, 2)));
        let late = [(7, 0, 1), (100, 0, 1), (7, 95, -1), (9, 0, 1), (101, 0, 1)];
        assert_eq!(counted(&late, u64::MAX), (2, pairs(2, 0)));
    }

    #[test]
    fn what_is_open_is_bounded() {
        let (mut moments, mut tally) = (Moments::default(), MomentTally::default());
        for tick in 0..10_000u64 {
            moments.add(tick ^ 3, tick % 5_000, [1; 4]);
            moments.close(tick, &mut tally);
            let open = u64::try_from(moments.open.len()).expect("few");
            assert!(open <= LONGEST + LATE + 5, "{open}");
            assert!(moments.open.iter().is_sorted_by_key(|part| part.tick));
        }
        assert!(tally.over > 20, "{tally:?}");
    }
}
