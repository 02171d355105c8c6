//! When each request is due.

use std::time::{Duration, Instant};

use super::shared::later;
use crate::time::Timestamp;

/// When requests leave.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Schedule {
    /// At once: each as soon as it is offered. Live, that is when its last byte was captured; from a file it is as fast
    /// as the target takes them.
    Immediately,
    /// With the pauses of the original, divided by `speed`: 1 is the original's pace, 2 twice as fast.
    ///
    /// The schedule is open: each request is due at its captured offset whatever became of those before it, and what
    /// leaves later than that is measured as late.
    Original {
        /// How many times as fast as the original; above zero.
        speed: f64,
        /// Pauses in the recording that are longer are cut to this length, in captured time.
        skip_idle: Option<Duration>,
    },
    /// Evenly, whatever the pauses of the original: the schedule is open all the same.
    Rate {
        /// How many a second; above zero.
        per_second: f64,
    },
}

/// Turns capture times into due times. All targets of a replay go by one, so that they have one beginning.
///
/// Invariant: due times never go backwards by more than capture times do, and the first one is the moment it was asked.
#[derive(Debug)]
pub struct Pacer {
    schedule: Schedule,
    origin: Option<Origin>,
}

#[derive(Clone, Copy, Debug)]
struct Origin {
    captured: Timestamp,
    started: Instant,
    /// The latest capture time so far, and how much captured time was cut out up to it.
    latest: Timestamp,
    cut: Duration,
    /// How many were asked for.
    asked: u64,
}

impl Pacer {
    /// One that begins with the first request.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            origin: None,
        }
    }

    /// When a request that was captured at `captured` is due; `now` is the moment of asking.
    pub fn due(&mut self, captured: Timestamp, now: Instant) -> Instant {
        if self.schedule == Schedule::Immediately {
            return now;
        }
        let origin = self.origin.get_or_insert(Origin {
            captured,
            started: now,
            latest: captured,
            cut: Duration::ZERO,
            asked: 0,
        });
        let seconds = match self.schedule {
            Schedule::Immediately => 0.0,
            Schedule::Original { speed, skip_idle } => {
                let pause = captured.since(origin.latest);
                origin.latest = origin.latest.max(captured);
                if let Some(longest) = skip_idle {
                    origin.cut += pause.saturating_sub(longest);
                }
                let offset = captured.since(origin.captured).saturating_sub(origin.cut);
                offset.as_secs_f64() / speed.max(f64::MIN_POSITIVE)
            }
            Schedule::Rate { per_second } => {
                origin.asked as f64 / per_second.max(f64::MIN_POSITIVE)
            }
        };
        origin.asked += 1;
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(FAR);
        later(origin.started, wait.min(FAR))
    }
}

/// Further away than any recording is long, yet within what `Instant` can add.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_000_000_000_000 + millis * 1_000_000)
    }

    fn offsets(schedule: Schedule, captured: &[u64]) -> Vec<u128> {
        let start = Instant::now();
        let mut pacer = Pacer::new(schedule);
        captured
            .iter()
            .map(|&millis| {
                // Asking late must not move the schedule.
                let now = start + Duration::from_millis(if millis == captured[0] { 0 } else { 77 });
                pacer.due(at(millis), now).duration_since(start).as_millis()
            })
            .collect()
    }

    #[test]
    fn offsets_are_divided_by_speed() {
        let original = |speed| Schedule::Original {
            speed,
            skip_idle: None,
        };
        assert_eq!(
            offsets(original(1.0), &[0, 10, 250, 240]),
            [0, 10, 250, 240]
        );
        assert_eq!(
            offsets(original(2.0), &[100, 300, 1100, 50]),
            [0, 100, 500, 0]
        );
        assert_eq!(offsets(original(0.5), &[0, 10]), [0, 20]);
    }

    #[test]
    fn long_pauses_are_cut() {
        let schedule = Schedule::Original {
            speed: 2.0,
            skip_idle: Some(Duration::from_millis(1000)),
        };
        assert_eq!(
            offsets(schedule, &[0, 500, 60_500, 60_700, 120_700]),
            [0, 250, 750, 850, 1350]
        );
    }

    #[test]
    fn a_rate_has_nothing_to_do_with_the_original() {
        let schedule = Schedule::Rate { per_second: 500.0 };
        assert_eq!(offsets(schedule, &[0, 9000, 50, 1]), [0, 2, 4, 6]);
    }

    #[test]
    fn at_once_means_when_asked() {
        assert_eq!(offsets(Schedule::Immediately, &[0, 9000]), [0, 77]);
    }

    #[test]
    fn absurd_speeds_do_not_panic() {
        let schedule = Schedule::Original {
            speed: 1e-300,
            skip_idle: None,
        };
        let _ = offsets(schedule, &[0, 10]);
    }
}
