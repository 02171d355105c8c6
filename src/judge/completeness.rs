//! How much of the traffic the verdict rests on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::account::Reason;

/// How many of the requests that were meant to be judged were judged, and why the others were not.
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
        for (reason, &count) in &other.lost {
            let mine = self.lost.entry(reason.clone()).or_default();
            *mine = mine.saturating_add(count);
        }
    }
}

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
