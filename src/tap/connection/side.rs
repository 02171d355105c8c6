//! What is known of one end as a sender.

/// One end of a connection. Whether a number is known is told by a flag beside it: so it takes half a line of the cache.
#[derive(Default)]
pub(super) struct SideState {
    /// How far it has sent, as its segments and two agreeing acknowledgements show.
    pub(super) sent: u64,
    isn: u32,
    last_ack: u32,
    recent_timestamp: u32,
    has_isn: bool,
    has_acked: bool,
    has_timestamp: bool,
    /// Whether any segment of this direction was captured.
    pub(super) seen: bool,
    /// Whether its checksums say something, once that is known.
    pub(super) checksums: Option<bool>,
    /// Whether its segments are signed (RFC 2385), once that is known.
    pub(super) signed: Option<bool>,
}

impl SideState {
    /// The sequence number of its SYN.
    pub(super) fn isn(&self) -> Option<u32> {
        self.has_isn.then_some(self.isn)
    }

    pub(super) fn set_isn(&mut self, isn: u32) {
        (self.has_isn, self.isn) = (true, isn);
    }

    /// The acknowledgement number that it sent last.
    pub(super) fn last_ack(&self) -> Option<u32> {
        self.has_acked.then_some(self.last_ack)
    }

    #[inline]
    pub(super) fn acknowledges(&mut self, ack: u32) {
        (self.has_acked, self.last_ack) = (true, ack);
    }

    /// How much newer a timestamp is than the one that PAWS compares with.
    #[inline]
    pub(super) fn newer_by(&self, timestamp: u32) -> Option<i32> {
        let newer_by = timestamp.wrapping_sub(self.recent_timestamp).cast_signed();
        self.has_timestamp.then_some(newer_by)
    }

    /// Compares with that timestamp from here on.
    #[inline]
    pub(super) fn set_timestamp(&mut self, timestamp: u32) {
        (self.has_timestamp, self.recent_timestamp) = (true, timestamp);
    }
}
