//! All that a verdict is made of, in one piece: what a pod tells, and what several pods tell together.

use serde::{Deserialize, Serialize};

use super::{Completeness, Mismatch, Tally, Tolerances, Verdict, verdict};

/// What was counted, how much of the traffic that is, and what is allowed.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Docket {
    /// Which run of which program counted it, so that nothing is added up twice; empty where nobody said it.
    #[serde(default)]
    pub instance: String,
    /// How much worse version 2 may be.
    pub tolerances: Tolerances,
    /// How much of the traffic was judged.
    pub completeness: Completeness,
    /// What was counted.
    pub tally: Tally,
}

impl Docket {
    /// The verdict.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        verdict(&self.tally, &self.tolerances, &self.completeness)
    }

    /// Adds what another pod counted. Of each tolerance the stricter one counts.
    ///
    /// # Errors
    /// When they counted differently; then nothing is added.
    pub fn merge(&mut self, other: &Self) -> Result<(), Mismatch> {
        self.tally.merge(&other.tally)?;
        self.completeness.merge(&other.completeness);
        self.tolerances = self.tolerances.stricter(other.tolerances);
        Ok(())
    }
}
