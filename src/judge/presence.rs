//! Whether version 2 answers, and whether one that came back has stayed for long enough.

use serde::{Deserialize, Serialize};

/// What is known of version 2's being there; what several pods know adds up.
///
/// One that crashes again and again is another program each time that it comes back, with counts of its own, and might be
/// promoted between two crashes. So one that follows another which is gone is held, until it has answered for longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Presence {
    /// Of one that does not answer.
    pub absence: Option<Absence>,
    /// Requests that a version 2 had answered when it was gone; zero where none is held for that.
    pub gone_after: u64,
    /// Requests that the next one still has to answer without being gone.
    pub missing: u64,
    /// How many pods know this; older ones do not.
    pub pods: u64,
}

/// A version 2 that does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Absence {
    /// Since when, in milliseconds since 1970.
    pub since_millis: u64,
    /// Connections since then that could not be made; zero where its name led to version 1.
    pub refused: u64,
    /// Whether it had answered before.
    pub had_answered: bool,
    /// At how many pods.
    pub pods: u64,
}

impl Presence {
    /// Whether there was a version 2 that is there no longer.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.absence.is_some_and(|it| it.had_answered)
    }

    /// Whether a promotion has to wait.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.absence.is_some() || self.missing > 0
    }

    /// Adds what another pod knows.
    pub(super) fn merge(&mut self, other: &Self) {
        self.pods = self.pods.saturating_add(other.pods);
        self.gone_after = self.gone_after.saturating_add(other.gone_after);
        self.missing = self.missing.saturating_add(other.missing);
        self.absence = match (self.absence, other.absence) {
            (Some(mine), Some(theirs)) => Some(Absence {
                since_millis: mine.since_millis.min(theirs.since_millis),
                refused: mine.refused.saturating_add(theirs.refused),
                had_answered: mine.had_answered || theirs.had_answered,
                pods: mine.pods.saturating_add(theirs.pods),
            }),
            (mine, theirs) => mine.or(theirs),
        };
    }
}
