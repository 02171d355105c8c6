//! The stubs, bounded in bytes, and what they are found by.

use std::collections::{BTreeMap, BTreeSet};

use ahash::AHashMap;

use super::call::{Call, Digest, Keys};
use super::shadow::Slot;
use super::stub::{Stub, StubId, Written};

/// How alike two calls are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Likeness {
    Exact,
    Plain,
    Masked,
}

impl Likeness {
    const fn of(self, keys: &Keys) -> Digest {
        match self {
            Self::Exact => keys.exact,
            Self::Plain => keys.plain,
            Self::Masked => keys.masked,
        }
    }
}

/// Stubs that are alike.
#[derive(Debug, Default)]
struct Group {
    all: BTreeSet<StubId>,
    /// Those that were not given yet.
    unused: BTreeSet<StubId>,
    /// Those that belong to no known exchange, and were not given yet.
    free: BTreeSet<StubId>,
    /// The latest that ever came.
    latest: u64,
}

/// Invariant: every stub is in one group of each kind, and in no other.
#[derive(Debug)]
pub(super) struct Store {
    stubs: BTreeMap<StubId, (Stub, Slot, usize)>,
    groups: [AHashMap<Digest, Group>; 3],
    endpoints: AHashMap<Digest, BTreeSet<StubId>>,
    written: BTreeMap<StubId, (Written, usize)>,
    states: AHashMap<String, String>,
    bytes: usize,
    limit: usize,
    last: u64,
}

impl Store {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            stubs: BTreeMap::new(),
            groups: Default::default(),
            endpoints: AHashMap::new(),
            written: BTreeMap::new(),
            states: AHashMap::new(),
            bytes: 0,
            limit,
            last: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.stubs.len() + self.written.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn newest(&self) -> u64 {
        self.last
    }

    pub(super) const fn next_id(&mut self) -> StubId {
        self.last += 1;
        StubId(self.last)
    }

    /// Takes a stub; how many others had to go, itself included where it is larger than everything.
    pub(super) fn add(&mut self, id: StubId, stub: Stub, slot: Slot) -> u64 {
        let size = size(&stub);
        let keys = stub.call.keys;
        let is_free = stub.owners.is_empty();
        for likeness in ALL {
            let group = self.groups[likeness as usize]
                .entry(likeness.of(&keys))
                .or_default();
            group.all.insert(id);
            group.unused.insert(id);
            if is_free {
                group.free.insert(id);
            }
            group.latest = id.0;
        }
        self.endpoints.entry(keys.endpoint).or_default().insert(id);
        self.stubs.insert(id, (stub, slot, size));
        self.bytes += size;
        self.make_room()
    }

    pub(super) fn write(&mut self, written: Written) -> (StubId, u64) {
        let id = self.next_id();
        let size = size_of::<Written>() + written.answer.size() + written.source.to_string().len();
        self.bytes += size;
        self.written.insert(id, (written, size));
        (id, self.make_room())
    }

    fn make_room(&mut self) -> u64 {
        let mut evicted = 0;
        while self.bytes > self.limit {
            // What a person wrote stays longest.
            let oldest = self.stubs.first_key_value().map(|(id, _)| *id);
            let Some(oldest) = oldest.or_else(|| self.written.keys().next().copied()) else {
                break;
            };
            self.remove(oldest);
            evicted += 1;
        }
        evicted
    }

    pub(super) fn remove(&mut self, id: StubId) -> bool {
        if let Some((_, size)) = self.written.remove(&id) {
            self.bytes -= size;
            return true;
        }
        let Some((stub, _, size)) = self.stubs.remove(&id) else {
            return false;
        };
        self.bytes -= size;
        let keys = stub.call.keys;
        for likeness in ALL {
            let groups = &mut self.groups[likeness as usize];
            let key = likeness.of(&keys);
            if let Some(group) = groups.get_mut(&key) {
                group.all.remove(&id);
                group.unused.remove(&id);
                group.free.remove(&id);
                if group.all.is_empty() {
                    groups.remove(&key);
                }
            }
        }
        if let Some(endpoint) = self.endpoints.get_mut(&keys.endpoint) {
            endpoint.remove(&id);
            if endpoint.is_empty() {
                self.endpoints.remove(&keys.endpoint);
            }
        }
        true
    }

    pub(super) fn clear(&mut self) -> u64 {
        let held = self.len() as u64;
        *self = Self {
            last: self.last,
            ..Self::new(self.limit)
        };
        held
    }

    pub(super) fn get(&self, id: StubId) -> Option<&Stub> {
        self.stubs.get(&id).map(|(stub, _, _)| stub)
    }

    /// The stub is given once more.
    pub(super) fn take(&mut self, id: StubId) -> Option<(&Stub, &Slot)> {
        let (stub, slot, _) = self.stubs.get_mut(&id)?;
        stub.used += 1;
        let keys = stub.call.keys;
        for likeness in ALL {
            if let Some(group) = self.groups[likeness as usize].get_mut(&likeness.of(&keys)) {
                group.unused.remove(&id);
                group.free.remove(&id);
            }
        }
        Some((stub, slot))
    }

    /// The number of the latest stub that is alike in any way.
    pub(super) fn latest(&self, keys: &Keys) -> u64 {
        self.groups[Likeness::Masked as usize]
            .get(&keys.masked)
            .map_or(0, |group| group.latest)
    }

    fn alike(&self, likeness: Likeness, call: &Call) -> Option<&Group> {
        self.groups[likeness as usize].get(&likeness.of(&call.keys))
    }

    /// The first of `own` that is alike and was not given yet.
    pub(super) fn unused_of(
        &self,
        own: &[StubId],
        likeness: Likeness,
        call: &Call,
    ) -> Option<StubId> {
        let group = self.alike(likeness, call)?;
        own.iter().copied().find(|id| group.unused.contains(id))
    }

    /// The last of `own` that is alike.
    pub(super) fn last_of(
        &self,
        own: &[StubId],
        likeness: Likeness,
        call: &Call,
    ) -> Option<StubId> {
        let group = self.alike(likeness, call)?;
        own.iter().rev().copied().find(|id| group.all.contains(id))
    }

    /// The first that is alike and was not given yet; of no known exchange if `only_free`.
    pub(super) fn first_unused(
        &self,
        likeness: Likeness,
        call: &Call,
        only_free: bool,
    ) -> Option<StubId> {
        let group = self.alike(likeness, call)?;
        let ids = if only_free {
            &group.free
        } else {
            &group.unused
        };
        ids.first().copied()
    }

    /// The last that is alike.
    pub(super) fn last(&self, likeness: Likeness, call: &Call, only_free: bool) -> Option<StubId> {
        self.group(likeness, call, only_free).last()
    }

    /// All that are alike, oldest first.
    pub(super) fn group(
        &self,
        likeness: Likeness,
        call: &Call,
        only_free: bool,
    ) -> impl DoubleEndedIterator<Item = StubId> {
        let ids = self.alike(likeness, call).map(|group| &group.all);
        let is_free = move |id: &StubId| {
            !only_free || self.get(*id).is_some_and(|stub| stub.owners.is_empty())
        };
        ids.into_iter().flatten().copied().filter(is_free)
    }

    /// Where a stub stands among those with the same bytes, and how many these are; only of its own exchange if it
    /// has one.
    pub(super) fn place(&self, id: StubId, call: &Call) -> Option<(usize, usize)> {
        let stub = self.get(id)?;
        let group = self.alike(Likeness::Plain, call)?;
        let owner = stub.owners.first();
        let alike: Vec<StubId> = group
            .all
            .iter()
            .copied()
            .filter(|it| self.get(*it).is_some_and(|it| it.owners.first() == owner))
            .take(MOST_PLACES)
            .collect();
        let at = alike.iter().position(|it| *it == id)?;
        Some((at + 1, alike.len()))
    }

    /// Stubs of the same endpoint, latest first; of the same host where there is none.
    pub(super) fn near(&self, call: &Call) -> impl Iterator<Item = StubId> {
        let same = self.endpoints.get(&call.keys.endpoint);
        same.into_iter().flatten().rev().copied()
    }

    pub(super) fn hosts(&self) -> BTreeSet<String> {
        let some = self.endpoints.values().filter_map(|ids| ids.first());
        some.filter_map(|id| self.get(*id))
            .map(|stub| stub.call.host.clone())
            .collect()
    }

    /// Up to ten endpoints of a host, as `POST /charges`.
    pub(super) fn endpoints_of(&self, host: &str) -> Vec<String> {
        let some = self.endpoints.values().filter_map(|ids| ids.first());
        let mut endpoints: Vec<String> = some
            .filter_map(|id| self.get(*id))
            .filter(|stub| stub.call.host == host)
            .map(|stub| stub.call.endpoint.to_string())
            .collect();
        endpoints.sort();
        endpoints.truncate(10);
        endpoints
    }

    pub(super) fn stubs(&self) -> impl Iterator<Item = (StubId, &Stub)> {
        self.stubs.iter().map(|(id, (stub, _, _))| (*id, stub))
    }

    pub(super) fn written(&self) -> impl Iterator<Item = (StubId, &Written)> {
        let mut all: Vec<_> = self.written.iter().map(|(id, (it, _))| (*id, it)).collect();
        all.sort_by_key(|(id, it)| (it.priority, std::cmp::Reverse(*id)));
        all.into_iter()
    }

    /// The written stub that answers, which moves its scenario on.
    pub(super) fn written_for(
        &mut self,
        call: &Call,
        field: &dyn Fn(&str) -> Option<String>,
    ) -> Option<(StubId, &Written)> {
        if self.written.is_empty() {
            return None;
        }
        let state = |name: &str| self.states.get(name).map_or(STARTED, String::as_str);
        let (id, scenario) = self
            .written()
            .find(|(_, it)| {
                it.scenario.as_ref().is_none_or(|step| {
                    step.required
                        .as_ref()
                        .is_none_or(|required| required == state(&step.name))
                }) && it.pattern.fits(call, field)
            })
            .map(|(id, it)| (id, it.scenario.clone()))?;
        if let Some(step) = scenario
            && let Some(next) = step.next
        {
            self.states.insert(step.name, next);
        }
        let (written, _) = self.written.get_mut(&id)?;
        written.used += 1;
        Some((id, written))
    }
}

/// The state in which a scenario begins.
pub(super) const STARTED: &str = "Started";

const ALL: [Likeness; 3] = [Likeness::Exact, Likeness::Plain, Likeness::Masked];

/// Identical calls that are counted to say which of them a stub is.
const MOST_PLACES: usize = 1000;

/// About what a stub takes in memory.
fn size(stub: &Stub) -> usize {
    let answer = stub.answer.as_ref().map_or(0, |answer| answer.size());
    let request = stub.source.request.as_ref();
    let request = request.map_or(0, |it| it.head.bytes().len() + it.body.wire.len());
    let response = stub.source.response.as_ref();
    let response = response.map_or(0, |it| it.head.bytes().len() + it.body.wire.len());
    // Eight entries in sets and maps.
    size_of::<Stub>() + stub.call.size() + answer + request + response + 8 * 64
}
