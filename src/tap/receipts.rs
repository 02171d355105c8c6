//! How much of a stream its receiver had acknowledged, and when.

/// Where in a stream its sender acknowledged more of the opposite one: the latest times, in the connection itself and not on the
/// heap, because each answer notes one.
///
/// Invariant: along them, acknowledgements rise and positions do not fall; `next < MAX_OLDER`.
#[derive(Default)]
pub(super) struct Receipts {
    /// Position in the stream, and how much of the opposite one was acknowledged with it; zeros until there was one.
    newest: (u64, u64),
    /// How far each of the ones before it was behind the one after it; a ring.
    older: [(u32, u32); MAX_OLDER],
    /// Where in the ring the next one goes.
    next: u8,
    /// How many of the ring can be told from the newest one.
    known: u8,
}

/// How many advances of the acknowledgement are remembered beside the newest; only the latest few are ever asked for.
const MAX_OLDER: usize = 7;

impl Receipts {
    /// Notes what was acknowledged at a position; less than before is nothing new.
    #[inline]
    pub(super) fn note(&mut self, position: u64, acknowledged: u64) {
        let (at, known) = self.newest;
        if acknowledged <= known {
            return;
        }
        self.newest = (position, acknowledged);
        if known == 0 {
            return;
        }
        let behind = |now: u64, then: u64| u32::try_from(now.saturating_sub(then));
        // One so long ago that it cannot be told is forgotten, with those before it.
        let (Ok(position), Ok(acknowledged)) = (behind(position, at), behind(acknowledged, known))
        else {
            self.known = 0;
            return;
        };
        self.older[usize::from(self.next)] = (position, acknowledged);
        self.next = (self.next + 1) % MAX_OLDER as u8;
        self.known = (self.known + 1).min(MAX_OLDER as u8);
    }

    /// What was acknowledged last before a position.
    pub(super) fn before(&self, position: u64) -> u64 {
        let (mut at, mut acknowledged) = self.newest;
        let mut older = (1..=usize::from(self.known)).map(|back| {
            let place = usize::from(self.next) + MAX_OLDER - back;
            self.older[place % MAX_OLDER]
        });
        while at >= position {
            let Some((positions, acknowledgements)) = older.next() else {
                return 0;
            };
            at -= u64::from(positions);
            acknowledged -= u64::from(acknowledgements);
        }
        acknowledged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against all that was noted.
    #[test]
    fn the_latest_eight_are_known() {
        let mut random = crate::random::below();
        for _ in 0..200 {
            let mut receipts = Receipts::default();
            let mut all: Vec<(u64, u64)> = Vec::new();
            let (mut position, mut acknowledged) = (1 << 40, 1 << 40);
            for _ in 0..60 {
                position += random(3) * 700;
                acknowledged += random(3) * 300;
                receipts.note(position, acknowledged);
                if all.last().is_none_or(|&(_, known)| acknowledged > known) {
                    all.push((position, acknowledged));
                }
                let asked = position + 1 - random(8000);
                let latest = all.iter().rev().take(1 + MAX_OLDER);
                let expected = latest.clone().find(|&&(at, _)| at < asked);
                assert_eq!(receipts.before(asked), expected.map_or(0, |it| it.1));
            }
        }
    }

    #[test]
    fn what_cannot_be_told_any_more_is_forgotten() {
        let mut receipts = Receipts::default();
        receipts.note(10, 20);
        receipts.note(11, 30);
        receipts.note(11 + (5 << 32), 40);
        receipts.note(12 + (5 << 32), 50);
        assert_eq!(receipts.before(12 + (5 << 32)), 40);
        assert_eq!(receipts.before(11 + (5 << 32)), 0);
    }
}
