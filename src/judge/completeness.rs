//! How much of the traffic the verdict rests on.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::account::Reason;

/// How many of the requests that were meant to be judged were judged, and why the others were not; of a run that goes on, in the
/// latest half of the traffic ([`Recent`]).
///
/// A request that was left aside by choice (a filter, a sample) is not part of it, and one that is still under way is not
/// lost.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Completeness {
    /// Requests of which both answers were compared.
    pub judged: u64,
    /// Requests that should have been judged and were not, by the name of the reason.
    pub lost: BTreeMap<String, u64>,
    /// Packets that were captured and looked into.
    pub packets: u64,
    /// Packets that the kernel or the interface dropped, and those of connections that were left out to stay within the
    /// limits on CPU and memory: nobody knows how many requests were in them.
    pub packets_lost: u64,
    /// Requests before these that are not in it any more: see [`Recent`].
    #[serde(default)]
    pub earlier: u64,
}

impl Completeness {
    /// The share of the traffic that was judged, from 0 to 1: the share of the packets that was seen, times the share of what
    /// was seen that was judged. 1 as long as there was nothing.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.share_without(|_| true)
    }

    /// The same, but for what was not sent because version 2 kept failing. That is version 2's own doing: it must not keep it
    /// from being rejected for what was sent.
    #[must_use]
    pub fn share_but_for_version_2(&self) -> f64 {
        self.share_without(|reason| reason != Reason::BreakerOpen.name())
    }

    /// Requests that were meant to be judged.
    fn meant(&self) -> u64 {
        self.lost
            .values()
            .fold(self.judged, |sum, &n| sum.saturating_add(n))
    }

    /// What came after `earlier`, which is how it was before.
    fn since(&self, earlier: &Self) -> Self {
        let before = |reason: &String| earlier.lost.get(reason).copied().unwrap_or_default();
        let lost = self
            .lost
            .iter()
            .map(|(reason, &n)| (reason.clone(), n.saturating_sub(before(reason))))
            .filter(|&(_, n)| n > 0);
        Self {
            judged: self.judged.saturating_sub(earlier.judged),
            lost: lost.collect(),
            packets: self.packets.saturating_sub(earlier.packets),
            packets_lost: self.packets_lost.saturating_sub(earlier.packets_lost),
            earlier: earlier.meant(),
        }
    }

    fn share_without(&self, counts: impl Fn(&str) -> bool) -> f64 {
        let lost = self
            .lost
            .iter()
            .filter(|(reason, _)| counts(reason))
            .fold(0, |sum: u64, (_, &n)| sum.saturating_add(n));
        part(self.judged, lost) * part(self.packets, self.packets_lost)
    }

    /// Adds another pod's.
    pub fn merge(&mut self, other: &Self) {
        self.judged = self.judged.saturating_add(other.judged);
        self.packets = self.packets.saturating_add(other.packets);
        self.packets_lost = self.packets_lost.saturating_add(other.packets_lost);
        self.earlier = self.earlier.saturating_add(other.earlier);
        for (reason, &count) in &other.lost {
            let mine = self.lost.entry(reason.clone()).or_default();
            *mine = mine.saturating_add(count);
        }
    }
}

/// The latest half of the traffic.
///
/// Whatever is lost once would count against a sidecar that runs for months for as long as it takes to outweigh it a
/// hundredfold: after an hour in which version 2 was down, for days. So a loss counts until as much traffic has come behind
/// it as there was up to it. What happens again and again is in every half, however long the run is.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// How it was at some points on the way, of which the first alone may be in the earlier half.
    points: VecDeque<Completeness>,
}

impl Recent {
    /// The latest half, or a little more, of what was counted since the start, which is never less than at the last call.
    pub fn of(&mut self, so_far: Completeness) -> Completeness {
        let meant = so_far.meant();
        while self
            .points
            .get(1)
            .is_some_and(|point| point.meant() <= meant / 2)
        {
            self.points.pop_front();
        }
        let recent = self
            .points
            .front()
            .filter(|point| point.meant() <= meant / 2)
            .map(|point| so_far.since(point));
        let last = self.points.back().map_or(0, Completeness::meant);
        if meant > last + last / POINTS {
            self.points.push_back(so_far.clone());
        }
        recent.unwrap_or(so_far)
    }
}

/// From one point to the next it grows by one in so many.
const POINTS: u64 = 32;

/// `kept` as a share of `kept + lost`.
#[expect(
    clippy::cast_precision_loss,
    reason = "a share needs no more than 52 bits"
)]
fn part(kept: u64, lost: u64) -> f64 {
    if lost == 0 {
        return 1.0;
    }
    kept as f64 / (kept as f64 + lost as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(judged: u64, lost: u64) -> Completeness {
        Completeness {
            judged,
            lost: BTreeMap::from([("breaker_open".to_owned(), lost)]),
            packets: 10 * judged,
            ..Completeness::default()
        }
    }

    #[test]
    fn an_outage_is_over_when_as_much_has_come_behind_it() {
        let mut recent = Recent::default();
        let mut shares = Vec::new();
        for step in 0..1_000 {
            // From the 100th to the 300th step version 2 is down.
            let lost = 10 * u64::clamp(step, 100, 300) - 1_000;
            let recent = recent.of(counted(10 * step - lost, lost));
            assert!(recent.meant() >= 5 * step, "{step}: at least the half");
            assert!(recent.meant() <= 6 * step + 10, "{step}: and little more");
            assert_eq!(recent.meant() + recent.earlier, 10 * step);
            shares.push(recent.share());
        }
        assert!(shares[..100].iter().all(|&share| share >= 1.0));
        assert!(shares[110..500].iter().all(|&share| share < 0.99));
        assert!(shares[640..].iter().all(|&share| share >= 1.0));
    }

    #[test]
    fn what_is_lost_again_and_again_is_never_over() {
        let mut recent = Recent::default();
        let (mut judged, mut lost) = (0, 0);
        for step in 0..20_000u64 {
            // Down for one minute in ten; the half is longer than ten from the twentieth on.
            if step % 600 < 60 {
                lost += 50;
            } else {
                judged += 50;
            }
            let share = recent.of(counted(judged, lost)).share();
            assert!(step < 1_200 || share < 0.99, "{step}: {share}");
        }
        assert!(recent.points.len() < 40, "{}", recent.points.len());
    }

    #[test]
    fn nothing_at_all_is_complete() {
        let mut recent = Recent::default();
        for _ in 0..3 {
            assert!(recent.of(Completeness::default()).share() >= 1.0);
        }
        assert!(recent.points.is_empty());
    }
}
