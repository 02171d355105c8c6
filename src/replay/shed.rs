//! Which captured connections get nothing replayed any more, because the target could not follow.

use std::time::{Duration, Instant};

use ahash::AHashMap;

use crate::exchange::ConnectionId;

/// The captured connections that are left out as wholes: what was left out of one may be what its later requests build
/// upon, so that none of them is sent any more until it has ended, or has been silent for so long that it counts as ended.
#[derive(Debug)]
pub struct Shed {
    /// When each was last heard of.
    connections: AHashMap<ConnectionId, Instant>,
    silence: Duration,
    /// With so many, those that have been silent are looked for.
    look_at: usize,
}

impl Shed {
    /// None so far; what is silent for `silence` counts as ended.
    #[must_use]
    pub fn new(silence: Duration) -> Self {
        Self {
            connections: AHashMap::new(),
            silence,
            look_at: LOOK_AT,
        }
    }

    /// From now on this one is left out.
    pub fn add(&mut self, connection: ConnectionId, now: Instant) {
        self.connections.insert(connection, now);
        if self.connections.len() >= self.look_at {
            let silence = self.silence;
            self.connections
                .retain(|_, last| now.saturating_duration_since(*last) < silence);
            self.look_at = (self.connections.len() * 2).max(LOOK_AT);
        }
    }

    /// Whether this one, which has just been heard of, is left out.
    pub fn has(&mut self, connection: ConnectionId, now: Instant) -> bool {
        if self.connections.is_empty() {
            return false;
        }
        let Some(last) = self.connections.get_mut(&connection) else {
            return false;
        };
        if now.saturating_duration_since(*last) >= self.silence {
            self.connections.remove(&connection);
            return false;
        }
        *last = now;
        true
    }

    /// It has ended.
    pub fn closed(&mut self, connection: ConnectionId) {
        if !self.connections.is_empty() {
            self.connections.remove(&connection);
        }
    }
}

/// Fewer are not worth a look for silent ones.
const LOOK_AT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_its_end_or_a_long_silence() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut shed = Shed::new(Duration::from_secs(60));
        let [one, two] = [1, 2].map(ConnectionId);
        assert!(!shed.has(one, start));
        shed.add(one, start);
        shed.add(two, start);
        // Each time it is heard of counts.
        assert!(shed.has(one, at(59)) && shed.has(one, at(118)));
        assert!(!shed.has(two, at(60)) && !shed.has(two, at(61)));
        shed.closed(one);
        assert!(!shed.has(one, at(119)));
    }

    #[test]
    fn those_whose_end_was_never_heard_of_are_forgotten() {
        let start = Instant::now();
        let mut shed = Shed::new(Duration::from_secs(60));
        for second in 0..100_000 {
            shed.add(ConnectionId(second), start + Duration::from_secs(second));
        }
        assert!(shed.connections.len() <= LOOK_AT);
    }
}
