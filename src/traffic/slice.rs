//! Which part of a recording is meant.

use std::time::Duration;

use crate::time::Timestamp;

/// A moment in a recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// So long after the first request.
    After(Duration),
    /// That moment.
    At(Timestamp),
}

/// The part between two moments: the first belongs to it, the last does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slice {
    /// `None` is the beginning.
    pub from: Option<Moment>,
    /// `None` is the end.
    pub until: Option<Moment>,
    /// When the first request was captured, once that is known.
    begin: Option<Timestamp>,
}

/// Where a request lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Before the part that is meant.
    Before,
    /// In it.
    Inside,
    /// So long behind it.
    Behind(Duration),
}

impl Slice {
    /// The part between two moments.
    #[must_use]
    pub const fn new(from: Option<Moment>, until: Option<Moment>) -> Self {
        Self {
            from,
            until,
            begin: None,
        }
    }

    /// Whether there is nothing between the two moments, whatever the recording.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match (self.from, self.until) {
            (Some(Moment::After(from)), Some(Moment::After(until))) => from >= until,
            (Some(Moment::At(from)), Some(Moment::At(until))) => from >= until,
            _ => false,
        }
    }

    /// Where the request that was captured at `time` lies; the first that is asked for is the first of the recording.
    pub fn place(&mut self, time: Timestamp) -> Place {
        let begin = *self.begin.get_or_insert(time);
        let moment = |moment: Moment| match moment {
            Moment::After(offset) => begin.after(offset),
            Moment::At(time) => time,
        };
        match (self.from.map(moment), self.until.map(moment)) {
            (_, Some(until)) if time >= until => Place::Behind(time.since(until)),
            (Some(from), _) if time < from => Place::Before,
            _ => Place::Inside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_has_its_first_moment_and_not_its_last() {
        let seconds = |seconds| Timestamp::from_secs_nanos(seconds, 0);
        let after = |seconds| Some(Moment::After(Duration::from_secs(seconds)));
        let behind = |seconds| Place::Behind(Duration::from_secs(seconds));
        use Place::{Before, Inside};
        for (from, until, places) in [
            (None, None, [Inside; 5]),
            (after(1), None, [Before, Inside, Inside, Inside, Before]),
            (
                None,
                after(2),
                [Inside, Inside, behind(0), behind(1), Inside],
            ),
            (
                after(1),
                after(2),
                [Before, Inside, behind(0), behind(1), Before],
            ),
            (
                Some(Moment::At(seconds(102))),
                Some(Moment::At(seconds(103))),
                [Before, Before, Inside, behind(0), Before],
            ),
            (
                after(2),
                after(1),
                [Before, behind(0), behind(1), behind(2), Before],
            ),
        ] {
            let mut slice = Slice::new(from, until);
            let found = [100, 101, 102, 103, 99].map(|time| slice.place(seconds(time)));
            assert_eq!(found, places, "{from:?} {until:?}");
        }
    }

    #[test]
    fn a_part_that_ends_before_it_begins_is_empty() {
        let after = |seconds| Some(Moment::After(Duration::from_secs(seconds)));
        let at = |nanos| Some(Moment::At(Timestamp::from_nanos(nanos)));
        assert!(Slice::new(after(20), after(10)).is_empty());
        assert!(Slice::new(after(20), after(20)).is_empty());
        assert!(Slice::new(at(2), at(1)).is_empty());
        assert!(!Slice::new(after(10), after(20)).is_empty());
        assert!(!Slice::new(after(20), at(1)).is_empty());
        assert!(!Slice::new(after(20), None).is_empty());
    }
}
