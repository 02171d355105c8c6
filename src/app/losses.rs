//! Says in the log what is being lost while it happens, at most once in a while for each reason.

use std::time::{Duration, Instant};

use crate::account::{Account, Reason};

/// Compares accounts over time and warns of new losses; what leaves as it should is not mentioned.
pub struct LossWatch {
    told: Account,
    last: Instant,
}

impl LossWatch {
    /// Nothing was lost yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            told: Account::new(),
            last: Instant::now(),
        }
    }

    /// Looks at the account as it is now.
    pub fn look(&mut self, account: &Account) {
        if self.last.elapsed() < EVERY {
            return;
        }
        self.last = Instant::now();
        let new = account.since(&self.told);
        for &reason in Reason::ALL {
            let count = new.dropped(reason);
            if count > 0 && !reason.intentional() {
                tracing::warn!(
                    count,
                    stage = reason.stage().name(),
                    reason = reason.name(),
                    "lost: {}",
                    reason.meaning()
                );
            }
        }
        let marked = new.dropped(Reason::Marked);
        if marked > 0 {
            tracing::warn!(
                count = marked,
                "requests that are replays already have arrived here: either this is version 2, or somebody mirrors to \
                 version 1, and it does things twice; look at what the target's Service selects"
            );
        }
        self.told = account.clone();
    }
}

impl Default for LossWatch {
    fn default() -> Self {
        Self::new()
    }
}

/// How often losses are told.
const EVERY: Duration = Duration::from_secs(10);
