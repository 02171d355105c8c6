//! Whether version 2 is there at all. Between two releases a cluster keeps its name, and nobody listens behind it; while a new one
//! starts, nobody listens yet. That says nothing about any version.

use crate::account::Reason;
use crate::replay::Outcome;

/// Whether version 2 is there, from what became of the requests to it.
#[derive(Default)]
pub(super) struct Presence {
    is_there: bool,
    was_there: bool,
    /// So many connections in a row that could not be made.
    refused: u32,
}

/// What an outcome says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// It counts.
    There,
    /// It counts, and is the first of a version 2 that was gone: of another one, as far as anybody can know.
    Back,
    /// Nobody was there.
    Absent,
}

impl Presence {
    /// Whether it was there, and is no longer.
    pub(super) const fn is_gone(&self) -> bool {
        self.was_there && !self.is_there
    }

    pub(super) fn note(&mut self, outcome: &Outcome) -> Seen {
        match outcome {
            Outcome::Answered(_) => {
                let is_back = self.is_gone();
                *self = Self {
                    is_there: true,
                    was_there: true,
                    refused: 0,
                };
                return if is_back { Seen::Back } else { Seen::There };
            }
            Outcome::Failed(Reason::ConnectFailed | Reason::ConnectTimeout) => {
                self.refused = self.refused.saturating_add(1);
                self.is_there &= self.refused < GONE;
            }
            // Whatever else has failed had a connection.
            Outcome::Failed(_) => {
                self.refused = 0;
                return Seen::There;
            }
            Outcome::Skipped(Reason::TargetIsVersion1) => self.is_there = false,
            Outcome::Skipped(_) => {}
        }
        if self.is_there {
            Seen::There
        } else {
            Seen::Absent
        }
    }
}

/// So many connections that cannot be made are no outage any more. The breaker spreads them over the better part of a minute.
const GONE: u32 = 16;

#[cfg(test)]
mod tests {
    use super::super::table::tests::{captured, replayed};
    use super::*;

    #[test]
    fn nobody_is_there_before_the_first_answer_and_after_many_refusals() {
        let answered = replayed(&captured(1, 0, 0).0, 0).outcome;
        let refused = Outcome::Failed(Reason::ConnectFailed);
        let skipped = Outcome::Skipped(Reason::BreakerOpen);
        let mut presence = Presence::default();
        for outcome in [&refused, &skipped, &refused] {
            assert_eq!(presence.note(outcome), Seen::Absent);
        }
        assert_eq!(presence.note(&answered), Seen::There);
        // An outage is its own doing.
        for _ in 1..GONE {
            assert_eq!(presence.note(&refused), Seen::There);
            assert_eq!(presence.note(&skipped), Seen::There);
        }
        assert_eq!(presence.note(&answered), Seen::There);
        for _ in 1..GONE {
            presence.note(&refused);
        }
        // Somebody is there.
        let broken = Outcome::Failed(Reason::ConnectionLost);
        assert_eq!(presence.note(&broken), Seen::There);
        for _ in 0..GONE {
            presence.note(&refused);
        }
        assert_eq!(presence.note(&skipped), Seen::Absent);
        assert_eq!(presence.note(&refused), Seen::Absent);
        assert!(presence.is_gone());
        assert_eq!(presence.note(&answered), Seen::Back);
        assert!(!presence.is_gone());
        assert_eq!(presence.note(&answered), Seen::There);
    }

    #[test]
    fn a_name_that_led_to_version_1_leads_to_another_version_2() {
        let answered = replayed(&captured(1, 0, 0).0, 0).outcome;
        let paused = Outcome::Skipped(Reason::TargetIsVersion1);
        let mut presence = Presence::default();
        presence.note(&paused);
        assert_eq!(presence.note(&answered), Seen::There);
        presence.note(&paused);
        let refused = Outcome::Failed(Reason::ConnectTimeout);
        assert_eq!(presence.note(&refused), Seen::Absent);
        assert_eq!(presence.note(&answered), Seen::Back);
    }
}
