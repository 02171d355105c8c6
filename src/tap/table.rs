//! Where the connections are, and which ones have a segment's ends.

use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;

use smallvec::SmallVec;

use super::connection::Connection;

/// Connections by their ends. A 4-tuple may have several lives side by side.
///
/// There may be many, each far from the cache, so a search touches none but those that it finds: the chains and the hashes
/// lie beside each other, 24 to 32 bytes for each connection.
///
/// Invariant: each connection is in exactly one chain, the one that its hash names, and newer ones come first in it.
pub(super) struct Table {
    /// The first place of each chain; a power of two of them, at least twice as many as connections,
    /// so that few places are looked at in vain.
    chains: Vec<u32>,
    places: Vec<Place>,
    /// Places that hold nothing.
    vacant: Vec<u32>,
    keys: Keys,
}

/// The keys of the hashes of ends: strangers choose the ends, and cannot choose them so that all hashes are alike.
#[derive(Clone)]
pub(super) struct Keys(ahash::RandomState);

impl Keys {
    /// In as few words as there are, because every segment pays for it.
    #[inline]
    pub(super) fn hash(&self, ends: [&SocketAddr; 2]) -> u64 {
        let mut hasher = self.0.build_hasher();
        for end in ends {
            match end {
                SocketAddr::V4(end) => {
                    hasher.write_u64(u64::from(end.ip().to_bits()) << 16 | u64::from(end.port()));
                }
                SocketAddr::V6(end) => {
                    hasher.write_u128(end.ip().to_bits());
                    hasher.write_u16(end.port());
                }
            }
        }
        hasher.finish()
    }
}

struct Place {
    connection: Option<Box<Connection>>,
    /// Of its ends.
    hash: u32,
    /// The next place of the chain.
    next: u32,
}

/// Places of one 4-tuple's lives, oldest first.
pub(super) type Lives = SmallVec<[u32; 2]>;

impl Table {
    pub(super) fn new() -> Self {
        Self {
            chains: vec![NONE; 256],
            places: Vec::new(),
            vacant: Vec::new(),
            keys: Keys(ahash::RandomState::new()),
        }
    }

    /// What hashes ends.
    pub(super) fn keys(&self) -> Keys {
        self.keys.clone()
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    #[inline]
    pub(super) fn get(&self, place: u32) -> Option<&Connection> {
        self.places.get(place as usize)?.connection.as_deref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Connection> {
        self.places
            .get_mut(place as usize)?
            .connection
            .as_deref_mut()
    }

    /// Every connection, with its place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection)> {
        (0..)
            .zip(&self.places)
            .filter_map(|(at, place)| Some((at, place.connection.as_deref()?)))
    }

    /// The place of the connection with these ends, if there is just one: as nearly always.
    #[inline]
    pub(super) fn only(&self, ends: [&SocketAddr; 2]) -> Option<u32> {
        let hash = self.keys.hash(ends) as u32;
        let mut found = None;
        let mut at = self.chains[self.chain_of(hash)];
        while let Some(place) = self.places.get(at as usize) {
            if place.hash == hash
                && let Some(connection) = &place.connection
                && connection.ends().are(ends)
                && found.replace(at).is_some()
            {
                return None;
            }
            at = place.next;
        }
        found
    }

    /// The lives of the 4-tuple with these ends.
    #[inline]
    pub(super) fn lives(&self, ends: [&SocketAddr; 2]) -> Lives {
        let hash = self.keys.hash(ends) as u32;
        let mut lives = Lives::new();
        let mut at = self.chains[self.chain_of(hash)];
        while let Some(place) = self.places.get(at as usize) {
            if place.hash == hash
                && let Some(connection) = &place.connection
                && connection.ends().are(ends)
            {
                lives.insert(0, at);
            }
            at = place.next;
        }
        lives
    }

    /// Asks the memory for the connections with these ends, without waiting for it. Where a connection lies is known once its place
    /// is here, and where that is once its chain is: so each call goes a step further for the ends of four and of eight calls before.
    /// They should come a dozen calls before they are needed.
    #[inline]
    pub(super) fn fetch(&self, ends: [&SocketAddr; 2], upcoming: &mut Upcoming) {
        let hash = self.keys.hash(ends) as u32;
        let first = |hash| &self.chains[self.chain_of(hash)];
        prefetch(first(hash));
        let [before, long_before] = upcoming.push(hash);
        if let Some(place) = self.places.get(*first(before) as usize) {
            prefetch(place);
        }
        let mut at = *first(long_before);
        while let Some(place) = self.places.get(at as usize) {
            if place.hash == long_before
                && let Some(connection) = &place.connection
            {
                prefetch(&**connection);
            }
            at = place.next;
        }
    }

    /// Adds the newest life of its 4-tuple; says where it is.
    pub(super) fn insert(&mut self, connection: Box<Connection>) -> u32 {
        if self.len() * 2 >= self.chains.len() {
            self.grow();
        }
        let hash = self.keys.hash(connection.ends().get().each_ref()) as u32;
        let place = Place {
            connection: Some(connection),
            hash,
            next: NONE,
        };
        let at = match self.vacant.pop() {
            Some(at) => {
                self.places[at as usize] = place;
                at
            }
            None => {
                self.places.push(place);
                (self.places.len() - 1) as u32
            }
        };
        self.link(at);
        at
    }

    /// Takes the connection out of that place.
    pub(super) fn remove(&mut self, place: u32) -> Option<Box<Connection>> {
        let Place {
            connection,
            hash,
            next,
        } = self.places.get_mut(place as usize)?;
        let connection = connection.take()?;
        let (hash, next) = (*hash, *next);
        let chain = self.chain_of(hash);
        if self.chains[chain] == place {
            self.chains[chain] = next;
        } else {
            let mut at = self.chains[chain];
            while let Some(before) = self.places.get_mut(at as usize) {
                if before.next == place {
                    before.next = next;
                    break;
                }
                at = before.next;
            }
        }
        self.vacant.push(place);
        Some(connection)
    }

    /// Puts a place at the head of its chain.
    fn link(&mut self, at: u32) {
        let chain = self.chain_of(self.places[at as usize].hash);
        self.places[at as usize].next = std::mem::replace(&mut self.chains[chain], at);
    }

    /// Makes twice as many chains.
    fn grow(&mut self) {
        let mut order: Vec<u32> = Vec::with_capacity(self.places.len());
        for &first in &self.chains {
            let begin = order.len();
            let mut at = first;
            while let Some(place) = self.places.get(at as usize) {
                order.push(at);
                at = place.next;
            }
            // The oldest is put in first.
            order[begin..].reverse();
        }
        self.chains = vec![NONE; self.chains.len() * 2];
        for at in order {
            self.link(at);
        }
    }

    #[inline]
    fn chain_of(&self, hash: u32) -> usize {
        hash as usize & (self.chains.len() - 1)
    }
}

/// Hashes of ends that will be needed soon.
#[derive(Default)]
pub(super) struct Upcoming {
    latest: [u32; 8],
    next: usize,
}

impl Upcoming {
    /// Notes one; hands out the ones that were noted four and eight calls before.
    #[inline]
    fn push(&mut self, hash: u32) -> [u32; 2] {
        let at = self.next;
        self.next = (at + 1) % 8;
        let long_before = std::mem::replace(&mut self.latest[at], hash);
        [self.latest[(at + 4) % 8], long_before]
    }
}

/// Asks the memory for a value; elsewhere than on x86-64 that is left to the processor.
#[inline]
#[cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "an instruction without a safe wrapper")
)]
fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..size_of::<T>()).step_by(64).chain([size_of::<T>() - 1]) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = std::ptr::from_ref(value).cast::<i8>().wrapping_add(at);
        // SAFETY: it reads nothing that the program sees, and fails at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// No place.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::exchange::ConnectionId;
    use crate::tap::Limits;
    use crate::wire::Path;

    /// Random insertions and removals, against a map from ends to lives in the order in which they came.
    #[test]
    fn lives_are_found_as_a_map_finds_them() {
        let mut random = crate::random::below();
        let ends = |n: u64| {
            [80, 1000 + n as u16].map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
        };
        let mut table = Table::new();
        let mut oracle: HashMap<u64, Vec<u32>> = HashMap::new();
        for id in 0..20_000 {
            let tuple = random(300);
            let lives = oracle.entry(tuple).or_default();
            // More come than go, and then the other way round.
            let growing = id % 4000 < 2500;
            if lives.len() < 8 && (random(3) > 0) == growing {
                let id = ConnectionId(id);
                let connection =
                    Connection::new(id, ends(tuple), Path(0), None, true, &Limits::default());
                let place = table.insert(Box::new(connection));
                assert_eq!(table.get(place).map(Connection::id), Some(id));
                lives.push(place);
            } else if !lives.is_empty() {
                let place = lives.remove(random(lives.len() as u64) as usize);
                let removed = table.remove(place).map(|it| it.ends().get());
                assert_eq!(removed, Some(ends(tuple)));
                assert!(table.get(place).is_none());
            }
            assert_eq!(table.lives(ends(tuple).each_ref())[..], oracle[&tuple][..]);
            let only = match oracle[&tuple][..] {
                [only] => Some(only),
                _ => None,
            };
            assert_eq!(table.only(ends(tuple).each_ref()), only);
            let known: usize = oracle.values().map(Vec::len).sum();
            assert_eq!(table.len(), known);
        }
        for (&tuple, lives) in &oracle {
            assert_eq!(table.lives(ends(tuple).each_ref())[..], lives[..]);
        }
        assert_eq!(table.iter().count(), table.len());
    }
}
