//! Packet time.
//!
//! The core knows no clock: "now" is the capture time of the packet in hand, so that a file gives the same
//! result at any speed and tests need no sleeps.

pub(crate) mod rfc3339;

use std::fmt;
use std::time::Duration;

/// A moment in packet time: nanoseconds since 1970-01-01T00:00:00Z, as the capture recorded it.
///
/// Capture times may go backwards between packets; differences saturate at zero instead of wrapping.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The start of 1970, and the time of anything that was never captured.
    pub const ZERO: Self = Self(0);

    /// A moment `nanos` nanoseconds after the start of 1970.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// A moment from the two fields of a packet record; saturates instead of overflowing.
    #[must_use]
    pub const fn from_secs_nanos(secs: u64, nanos: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// Nanoseconds since the start of 1970.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970 and the nanoseconds beyond them.
    #[must_use]
    pub const fn as_secs_nanos(self) -> (u64, u32) {
        (self.0 / 1_000_000_000, (self.0 % 1_000_000_000) as u32)
    }

    /// The time from `earlier` to this moment; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment moved later by `by`; saturates.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// This moment moved earlier by `by`; saturates at [`Self::ZERO`].
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, nanos) = self.as_secs_nanos();
        write!(f, "{secs}.{nanos:09}")
    }
}
