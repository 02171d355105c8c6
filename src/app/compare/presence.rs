//! Whether version 2 is there at all. Between two releases a cluster keeps its name, and nobody listens behind it; while a new one
//! starts, nobody listens yet. That says nothing about any version, unless it happens again and again.

use crate::account::Reason;
use crate::judge::{self, Absence};
use crate::replay::Outcome;
use crate::time::Timestamp;

/// Whether version 2 is there, from what became of the requests to it, and for how long one has stayed.
#[derive(Default)]
pub(super) struct Presence {
    is_there: bool,
    was_there: bool,
    /// So many connections in a row that could not be made; of one that is gone, all since then.
    refused: u32,
    /// Since when nothing was answered.
    since: Option<Timestamp>,
    /// Requests that the one which is there has answered.
    answered: u64,
    hold: Hold,
}

/// What is asked of a version 2 that came after one which was gone.
#[derive(Clone, Copy, Default)]
struct Hold {
    /// Requests that the other one had answered.
    gone_after: u64,
    /// Requests that it has to answer.
    asked: u64,
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
    const fn is_gone(&self) -> bool {
        self.was_there && !self.is_there
    }

    /// What the judge has to know of it.
    pub(super) fn known(&self) -> judge::Presence {
        let since = self.since.filter(|_| !self.is_there);
        judge::Presence {
            absence: since.map(|since| Absence {
                since_millis: since.as_nanos() / 1_000_000,
                refused: self.refused.into(),
                had_answered: self.was_there,
                pods: 1,
            }),
            gone_after: self.hold.gone_after,
            missing: self.hold.asked.saturating_sub(self.answered),
            pods: 1,
        }
    }

    /// `now` is asked for where something could not be reached.
    pub(super) fn note(&mut self, outcome: &Outcome, now: impl FnOnce() -> Timestamp) -> Seen {
        match outcome {
            Outcome::Answered(_) => {
                let is_back = self.is_gone();
                self.answer();
                return if is_back { Seen::Back } else { Seen::There };
            }
            Outcome::Failed(
                Reason::ResolveFailed | Reason::ConnectFailed | Reason::ConnectTimeout,
            ) => {
                self.since.get_or_insert_with(now);
                self.refused = self.refused.saturating_add(1);
                if self.is_there && self.refused >= GONE {
                    let answered = self.leave();
                    self.hold = self.hold.and(answered);
                }
            }
            // Whatever else has failed had a connection.
            Outcome::Failed(_) => {
                if !self.is_gone() {
                    self.refused = 0;
                    self.since = None;
                }
                return Seen::There;
            }
            // It has not crashed.
            Outcome::Skipped(Reason::TargetIsVersion1) => {
                if self.is_there {
                    self.leave();
                    self.refused = 0;
                    self.since = None;
                }
                self.since.get_or_insert_with(now);
            }
            Outcome::Skipped(_) => {}
        }
        if self.is_there {
            Seen::There
        } else {
            Seen::Absent
        }
    }

    fn answer(&mut self) {
        self.is_there = true;
        self.was_there = true;
        self.refused = 0;
        self.since = None;
        self.answered = self.answered.saturating_add(1);
        if self.answered >= self.hold.asked {
            self.hold = Hold::default();
        }
    }

    /// It is gone; how many requests it had answered.
    fn leave(&mut self) -> u64 {
        self.is_there = false;
        std::mem::take(&mut self.answered)
    }
}

impl Hold {
    /// With one that was gone after so many requests. One that goes even sooner than that before it takes nothing from what is asked.
    fn and(self, gone_after: u64) -> Self {
        let asked = gone_after.saturating_mul(TIMES_AS_MANY).min(MOST_ASKED);
        if asked < self.asked {
            return self;
        }
        Self { gone_after, asked }
    }
}

/// So many connections that cannot be made are no outage any more. The breaker spreads them over the better part of a minute.
const GONE: u32 = 16;

/// One that stays has answered so many times as many requests as the one that was gone, and this many are always enough.
const TIMES_AS_MANY: u64 = 10;
const MOST_ASKED: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::super::table::tests::{captured, replayed};
    use super::*;

    const REFUSED: Outcome = Outcome::Failed(Reason::ConnectFailed);
    const LOST: Outcome = Outcome::Failed(Reason::ConnectionLost);
    const UNSENT: Outcome = Outcome::Skipped(Reason::BreakerOpen);
    const PAUSED: Outcome = Outcome::Skipped(Reason::TargetIsVersion1);

    fn answered() -> Outcome {
        replayed(&captured(1, 0, 0).0, 0).outcome
    }

    impl Presence {
        fn see(&mut self, outcome: &Outcome) -> Seen {
            self.note(outcome, || Timestamp::from_secs_nanos(7, 0))
        }

        fn see_times(&mut self, times: u64, outcome: &Outcome) {
            for _ in 0..times {
                self.see(outcome);
            }
        }

        /// For how many requests a promotion is held, and after how many another one was gone.
        fn held(&self) -> (u64, u64) {
            let known = self.known();
            (known.missing, known.gone_after)
        }
    }

    #[test]
    fn nobody_is_there_before_the_first_answer_and_after_many_refusals() {
        let mut presence = Presence::default();
        for outcome in [&REFUSED, &UNSENT, &REFUSED] {
            assert_eq!(presence.see(outcome), Seen::Absent);
        }
        assert_eq!(presence.see(&answered()), Seen::There);
        // An outage is its own doing.
        for _ in 1..GONE {
            assert_eq!(presence.see(&REFUSED), Seen::There);
            assert_eq!(presence.see(&UNSENT), Seen::There);
        }
        assert_eq!(presence.see(&answered()), Seen::There);
        presence.see_times(u64::from(GONE) - 1, &REFUSED);
        // Somebody is there.
        assert_eq!(presence.see(&LOST), Seen::There);
        presence.see_times(GONE.into(), &REFUSED);
        assert_eq!(presence.see(&UNSENT), Seen::Absent);
        assert_eq!(presence.see(&REFUSED), Seen::Absent);
        assert!(presence.known().is_gone());
        assert_eq!(presence.see(&answered()), Seen::Back);
        assert!(!presence.known().is_gone());
        assert_eq!(presence.see(&answered()), Seen::There);
    }

    #[test]
    fn a_name_that_led_to_version_1_leads_to_another_version_2() {
        let mut presence = Presence::default();
        presence.see(&PAUSED);
        assert_eq!(presence.see(&answered()), Seen::There);
        presence.see(&REFUSED);
        presence.see(&PAUSED);
        let absence = presence.known().absence.expect("gone");
        assert_eq!((absence.refused, absence.had_answered), (0, true));
        let refused = Outcome::Failed(Reason::ConnectTimeout);
        assert_eq!(presence.see(&refused), Seen::Absent);
        assert_eq!(presence.see(&answered()), Seen::Back);
        assert_eq!(presence.held(), (0, 0), "it has not crashed");
    }

    #[test]
    fn one_that_came_back_has_to_stay_for_ten_times_as_long() {
        let mut presence = Presence::default();
        presence.see_times(GONE.into(), &REFUSED);
        presence.see_times(30, &answered());
        assert_eq!(presence.held(), (0, 0), "before it there was none");
        presence.see_times(GONE.into(), &REFUSED);
        assert_eq!(presence.held(), (300, 30));
        presence.see_times(299, &answered());
        assert_eq!(presence.held(), (1, 30));
        presence.see_times(1, &answered());
        assert_eq!(presence.held(), (0, 0));
        // What came before is forgotten.
        presence.see_times(5_000, &answered());
        presence.see_times(GONE.into(), &REFUSED);
        assert_eq!(presence.held(), (10_000, 5_300));
        presence.see_times(9_999, &answered());
        assert_eq!(presence.held(), (1, 5_300));
        // One that fails in another way is there, and judged for it.
        presence.see_times(100, &LOST);
        assert_eq!(presence.held(), (1, 5_300));
        presence.see(&answered());
        assert_eq!(presence.held(), (0, 0));
    }

    #[test]
    fn one_that_goes_sooner_than_the_one_before_it_owes_no_less() {
        let mut presence = Presence::default();
        presence.see_times(500, &answered());
        presence.see_times(GONE.into(), &REFUSED);
        presence.see_times(3, &answered());
        assert_eq!(presence.held(), (4_997, 500));
        presence.see_times(GONE.into(), &REFUSED);
        assert_eq!(presence.held(), (5_000, 500));
        presence.see_times(600, &answered());
        // Later than that, and it owes more.
        presence.see_times(GONE.into(), &REFUSED);
        assert_eq!(presence.held(), (6_000, 600));
        // A pause in between forgives nothing.
        presence.see_times(10, &answered());
        presence.see(&PAUSED);
        assert_eq!(presence.held(), (6_000, 600));
    }

    #[test]
    fn since_when_it_does_not_answer_and_how_often_it_was_asked() {
        let mut presence = Presence::default();
        assert_eq!(presence.known().absence, None, "nobody has asked");
        let at = |seconds| move || Timestamp::from_secs_nanos(seconds, 0);
        presence.note(&REFUSED, at(7));
        presence.note(&REFUSED, at(8));
        presence.note(&UNSENT, at(9));
        let mut absence = Absence {
            since_millis: 7_000,
            refused: 2,
            had_answered: false,
            pods: 1,
        };
        assert_eq!(presence.known().absence, Some(absence));
        presence.note(&LOST, at(10));
        assert_eq!(presence.known().absence, None, "it is there, and fails");
        presence.note(&answered(), at(11));
        for second in 20..20 + u64::from(GONE) {
            assert_eq!(presence.known().absence, None);
            presence.note(&REFUSED, at(second));
        }
        presence.note(&LOST, at(40));
        absence = Absence {
            since_millis: 20_000,
            refused: u64::from(GONE),
            had_answered: true,
            ..absence
        };
        assert_eq!(presence.known().absence, Some(absence));
        presence.note(&answered(), at(41));
        assert_eq!(presence.known().absence, None);
    }
}
