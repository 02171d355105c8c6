//! What is inside the middleware: which messages were given to it and have not come back.

use std::collections::BTreeMap;

use ahash::AHashMap;
use bytes::Bytes;

use crate::record::gor::Kind;

/// What tells messages apart, as far as the middleware is concerned.
pub(super) type Key = (Kind, Bytes);

/// Messages inside, the oldest first, each with what is to be known of it when it comes back.
///
/// Invariant: `by_key` and `by_age` hold the same messages.
#[derive(Debug)]
pub(super) struct Pending<T> {
    by_key: AHashMap<Key, (u64, T)>,
    by_age: BTreeMap<u64, Key>,
    given: u64,
    requests: usize,
}

impl<T> Pending<T> {
    pub(super) fn new() -> Self {
        Self {
            by_key: AHashMap::new(),
            by_age: BTreeMap::new(),
            given: 0,
            requests: 0,
        }
    }

    /// Keeps a message in mind; answers how many older ones that pushed out: of the same name, or beyond the bound.
    pub(super) fn insert(&mut self, key: Key, tag: T) -> u64 {
        let mut pushed_out = u64::from(self.remove(&key).is_some());
        if self.by_age.len() >= MOST
            && let Some((_, oldest)) = self.by_age.first_key_value()
        {
            let oldest = oldest.clone();
            pushed_out += u64::from(self.remove(&oldest).is_some());
        }
        self.given += 1;
        self.requests += usize::from(key.0 == Kind::Request);
        self.by_age.insert(self.given, key.clone());
        self.by_key.insert(key, (self.given, tag));
        pushed_out
    }

    /// Takes a message that came back.
    pub(super) fn remove(&mut self, key: &Key) -> Option<T> {
        let (age, tag) = self.by_key.remove(key)?;
        self.by_age.remove(&age);
        self.requests -= usize::from(key.0 == Kind::Request);
        Some(tag)
    }

    /// How many requests are inside.
    pub(super) const fn requests(&self) -> usize {
        self.requests
    }

    /// Forgets all; how many there were.
    pub(super) fn clear(&mut self) -> u64 {
        let count = self.by_age.len() as u64;
        self.by_key.clear();
        self.by_age.clear();
        self.requests = 0;
        count
    }
}

/// A message that is not back when so many newer ones were given is taken for filtered.
const MOST: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_leaves_once() {
        let key = |n: u32| (Kind::Request, Bytes::from(n.to_string()));
        let mut pending = Pending::new();
        assert_eq!(pending.insert(key(1), 'a'), 0);
        assert_eq!(pending.insert(key(1), 'b'), 1, "the same name again");
        assert_eq!(pending.requests(), 1);
        assert_eq!(pending.remove(&key(1)), Some('b'));
        assert_eq!(pending.remove(&key(1)), None);
        let most = u32::try_from(MOST).expect("it is small");
        let pushed: u64 = (0..most + 5).map(|n| pending.insert(key(n), 'c')).sum();
        assert_eq!(pushed, 5);
        assert_eq!(pending.remove(&key(4)), None);
        assert_eq!(pending.remove(&key(5)), Some('c'));
        assert_eq!(pending.clear(), u64::from(most) - 1);
        assert_eq!(pending.requests(), 0);
    }
}
