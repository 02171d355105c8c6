//! What is wrong with a recording that is read.

use std::fmt;

/// A piece of a recording that could not be used. Everything else is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    place: Place,
    what: String,
    /// Whether it should have been used.
    is_fault: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Offset(u64),
    Line(u64),
    Entry(u64),
}

impl Damage {
    /// Damage at a byte offset of the unpacked file.
    pub(super) fn at_offset(offset: u64, what: impl Into<String>) -> Self {
        Self {
            place: Place::Offset(offset),
            what: what.into(),
            is_fault: true,
        }
    }

    /// Damage in a line; the first is 1.
    pub(super) fn in_line(line: u64, what: impl Into<String>) -> Self {
        Self {
            place: Place::Line(line),
            what: what.into(),
            is_fault: true,
        }
    }

    /// Damage in an entry of a HAR file; the first is 1.
    pub(super) fn in_entry(entry: u64, what: impl Into<String>) -> Self {
        Self {
            place: Place::Entry(entry),
            what: what.into(),
            is_fault: true,
        }
    }

    /// Something that is to be said of what was read up to an entry of a HAR file, and no fault of anybody's.
    pub(super) fn notice_at_entry(entry: u64, what: impl Into<String>) -> Self {
        Self {
            is_fault: false,
            ..Self::in_entry(entry, what)
        }
    }

    /// Whether something could not be used that should have been.
    pub(super) const fn is_fault(&self) -> bool {
        self.is_fault
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Offset(at) => write!(f, "at byte {at}: {}", self.what),
            Place::Line(at) => write!(f, "line {at}: {}", self.what),
            Place::Entry(at) => write!(f, "entry {at}: {}", self.what),
        }
    }
}
