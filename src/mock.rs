//! The mock: gives version 2 the answers that version 1 got from others, so that nobody is called twice.
//!
//! A [`Mock`] has no clock and no sockets. It is told what version 1 called and which exchanges are being replayed, is
//! asked for an answer to each call of version 2, and holds what both did against each other.
//!
//! # How an answer is found
//!
//! Stubs that a person wrote come first. Of what version 1 called, the first of these that there is:
//!
//! | | whose | how alike | when |
//! |---|---|---|---|
//! | 1 | the exchange that version 2 is shadowing | to the byte, then without noise | at once |
//! | 2 | that exchange | without noise and ids | once version 1 is done with it, or the wait is over |
//! | 3 | not known to be another exchange's | to the byte, then without noise | at once |
//! | 4 | that exchange, given before | as above | once version 1 is done with it, or the wait is over |
//! | 5 | anybody | to the byte, then without noise | likewise |
//! | 6 | not known to be another exchange's; anybody for a safe method | without noise and ids | likewise |
//!
//! Of several that are alike, the oldest that was not given yet: the third identical call gets the third answer.

pub mod call;
pub mod causality;
mod noise;
pub mod shadow;
mod store;
pub mod stub;
pub mod wiremock;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use self::call::{Call, Differing};
use self::causality::Owner;
pub use self::noise::Ignored;
use self::shadow::{ExchangeKey, Shadows};
use self::store::{Likeness, Store};
use self::stub::{Answer, Stub, StubId, Written};
use crate::account::{Account, Counter, Reason};
use crate::exchange::Exchange;
use crate::time::Timestamp;

/// How a [`Mock`] behaves.
#[derive(Clone, Debug)]
pub struct MockConfig {
    /// Bytes of stubs that are held; beyond them the oldest go.
    pub memory: usize,
    /// How long a call waits for version 1 to make its own.
    pub wait: Duration,
    /// Whether sidecars feed it, so that there is something to wait for.
    pub is_fed: bool,
    /// Names of values that are noise beside those that are known to be.
    pub ignored: Ignored,
}

impl Default for MockConfig {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            wait: Duration::from_secs(2),
            is_fed: true,
            ignored: Ignored::default(),
        }
    }
}

/// How a call was matched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Every byte is that of version 1's call, or a written stub fits.
    Exact,
    /// But for noise and ids.
    Normalised,
    /// One of several identical calls.
    Sequence,
    /// Not at all.
    Miss,
}

impl Level {
    /// What the field `Shadowtap-Mock` says.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Normalised => "normalised",
            Self::Sequence => "sequence",
            Self::Miss => "miss",
        }
    }
}

/// What a call of version 2 gets.
#[derive(Clone, Debug)]
pub enum Decision {
    /// This answer; none when version 1 got none either.
    Answer {
        /// The answer.
        answer: Option<Arc<Answer>>,
        /// How it was found.
        level: Level,
        /// The same in words.
        why: String,
    },
    /// Nothing yet: ask again when there is news, or after so long.
    Wait(Duration),
    /// There is none.
    Miss(Miss),
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Miss {
    /// In one sentence.
    pub why: String,
    /// The call of version 1 that was nearest, as `POST payment /charges`.
    pub nearest: Option<String>,
    /// In what they differ.
    pub differences: Vec<Differing>,
}

impl Miss {
    /// As the body of the answer.
    #[must_use]
    pub fn to_json(&self, call: &Call) -> Value {
        let differences: Vec<Value> = self
            .differences
            .iter()
            .map(|it| json!({ "place": it.place, "called": it.ours, "version_1": it.theirs }))
            .collect();
        json!({
            "error": "no answer is known for this call, and the provider is not asked",
            "call": { "method": call.method, "host": call.host, "path": call.path },
            "why": self.why,
            "nearest": self.nearest,
            "differences": differences,
        })
    }
}

/// How a call ended that got no answer here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// The real provider answered it.
    Passed,
    /// The real provider did not.
    NotPassed,
    /// The caller went away.
    CallerGone,
}

/// A call of version 2 that is being answered.
#[derive(Debug)]
pub struct Asked {
    /// The call.
    pub call: Arc<Call>,
    /// When it came.
    came: Timestamp,
    /// Whether the real provider may get it when nothing fits: then it does not wait, and is no miss.
    pub may_pass: bool,
    connection: Option<u64>,
    owner: Option<Owner<ExchangeKey>>,
    /// Whether its trace told the owner, and not time.
    is_certain: bool,
    looked_at: u64,
}

/// The stubs, the exchanges, and what was counted.
pub struct Mock {
    config: MockConfig,
    store: Store,
    shadows: Shadows,
    account: Account,
}

impl Mock {
    /// One that knows nothing.
    #[must_use]
    pub fn new(config: MockConfig) -> Self {
        Self {
            store: Store::new(config.memory),
            shadows: Shadows::new(config.wait),
            config,
            account: Account::new(),
        }
    }

    /// What values are noise.
    #[must_use]
    pub const fn ignored(&self) -> &Ignored {
        &self.config.ignored
    }

    /// What was counted; stubs that are still held are counted when the mock ends.
    #[must_use]
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// The account at the end: what is held leaves under a name as well.
    #[must_use]
    pub fn finish(self) -> Account {
        let mut account = self.account;
        account.drop_n(Reason::StubHeldAtEnd, self.store.len() as u64);
        account
    }

    /// What both versions did to others.
    #[must_use]
    pub const fn shadows(&self) -> &Shadows {
        &self.shadows
    }

    /// The same, to be told about.
    pub const fn shadows_mut(&mut self) -> &mut Shadows {
        &mut self.shadows
    }

    /// How many stubs are held, and their bytes.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.store.len(), self.store.bytes())
    }

    /// Version 1 made a call, in one of the given exchanges if any are known.
    pub fn learn(&mut self, exchange: Exchange, mut owners: Vec<ExchangeKey>) {
        self.account.count(Counter::StubsOffered);
        let Some(request) = exchange.request.as_ref() else {
            self.account.drop(Reason::StubWithoutRequest);
            return;
        };
        if !request.completeness.is_whole() {
            self.account.drop(Reason::StubWithoutRequest);
            return;
        }
        let call = Arc::new(Call::of_request(request, &self.config.ignored));
        if owners.is_empty()
            && let Some(trace) = &call.trace
            && self.shadows.knows_trace(trace)
        {
            owners = self.shadows.owner(Some(trace), None).candidates().to_vec();
        }
        let id = self.store.next_id();
        let slot = self.shadows.made(&owners, &call.endpoint, id);
        let stub = Stub {
            answer: Answer::of_exchange(&exchange).map(Arc::new),
            call,
            owners,
            used: 0,
            source: Arc::new(exchange),
        };
        let evicted = self.store.add(id, stub, slot);
        self.account.drop_n(Reason::StubEvicted, evicted);
    }

    /// Takes a stub that a person wrote.
    pub fn write(&mut self, written: Written) -> StubId {
        self.account.count(Counter::StubsOffered);
        let (id, evicted) = self.store.write(written);
        self.account.drop_n(Reason::StubEvicted, evicted);
        id
    }

    /// Takes a stub away; `false` if there is none of that name.
    pub fn remove(&mut self, id: StubId) -> bool {
        let removed = self.store.remove(id);
        self.account.drop_n(Reason::StubRemoved, u64::from(removed));
        removed
    }

    /// Takes all stubs away; how many there were.
    pub fn clear(&mut self) -> u64 {
        let removed = self.store.clear();
        self.account.drop_n(Reason::StubRemoved, removed);
        removed
    }

    /// The stubs that version 1's calls became, oldest first.
    pub fn stubs(&self) -> impl Iterator<Item = (StubId, &Stub)> {
        self.store.stubs()
    }

    /// The stubs that a person wrote, in the order in which they are tried.
    pub fn written(&self) -> impl Iterator<Item = (StubId, &Written)> {
        self.store.written()
    }

    /// A call of version 2 has come, on that connection.
    pub fn asked(&mut self, call: Call, connection: Option<u64>, now: Timestamp) -> Asked {
        self.account.count(Counter::MockCalls);
        Asked {
            call: Arc::new(call),
            came: now,
            may_pass: false,
            connection,
            owner: None,
            is_certain: false,
            looked_at: 0,
        }
    }

    /// Whether asking again may bring something else than the last time: cheap, for those who wait.
    #[must_use]
    pub fn has_news(&self, asked: &Asked) -> bool {
        let may_be_done = match &asked.owner {
            Some(Owner::Known(key)) => self.shadows.is_done(key),
            Some(Owner::OneOf(_) | Owner::Nobody) => false,
            None => true,
        };
        let is_certain_now = !asked.is_certain && self.has_known_trace(&asked.call);
        may_be_done || is_certain_now || self.store.latest(&asked.call.keys) > asked.looked_at
    }

    /// What the call gets. Each call that was [asked](Self::asked) is to be asked about until it gets something, or
    /// to be given up by [`Self::leave`].
    pub fn answer(
        &mut self,
        asked: &mut Asked,
        field: &dyn Fn(&str) -> Option<String>,
        now: Timestamp,
    ) -> Decision {
        let call = Arc::clone(&asked.call);
        if let Some((id, written)) = self.store.written_for(&call, field) {
            let (level, why) = (Level::Exact, format!("stub {}, written", id.0));
            let answer = Arc::clone(&written.answer);
            self.count(level);
            let owner = self.owner(asked, now);
            // A written answer stands for a call that version 1 may have made too; it is compared as any other.
            self.compare_unmatched(&owner, &call);
            return Decision::Answer {
                answer: Some(answer),
                level,
                why,
            };
        }
        asked.looked_at = self.store.newest();
        let owner = self.owner(asked, now);
        let waited = now.since(asked.came);
        // By time alone it may be another's, of whom the news are late.
        let is_certain = self.has_known_trace(&call);
        let is_last = !self.config.is_fed
            || waited >= self.config.wait
            || is_certain && matches!(&owner, Owner::Known(key) if self.shadows.is_done(key));
        // A call may be here before the news of the exchange that it belongs to.
        let is_settled = is_last || waited >= NEWS_WITHIN || !matches!(owner, Owner::Nobody);
        let found = if is_settled {
            self.find(&owner, &call, is_last)
        } else {
            None
        };
        match found {
            Some(found) => self.give(found, &owner, &call),
            None if asked.may_pass => Decision::Wait(Duration::ZERO),
            None if is_last => self.miss(&owner, &call),
            None => {
                let news = NEWS_WITHIN.saturating_sub(waited);
                let rest = self.config.wait.saturating_sub(waited);
                Decision::Wait(if news.is_zero() { rest } else { rest.min(news) })
            }
        }
    }

    /// The call ended outside.
    pub fn leave(&mut self, asked: &Asked, left: Left) {
        match left {
            Left::Passed => {
                self.account.count(Counter::MockAnswered);
                self.account.count(Counter::MockPassedThrough);
            }
            Left::NotPassed => self.account.drop(Reason::PassThroughFailed),
            Left::CallerGone => self.account.drop(Reason::MockCallerGone),
        }
        let owner = asked.owner.clone().unwrap_or(Owner::Nobody);
        self.compare_unmatched(&owner, &asked.call);
    }

    /// A call that is no call to a provider, such as CONNECT, was refused.
    pub fn refused(&mut self) {
        self.account.count(Counter::MockCalls);
        self.account.drop(Reason::MockRefused);
    }

    fn has_known_trace(&self, call: &Call) -> bool {
        let trace = call.trace.as_deref();
        trace.is_some_and(|trace| self.shadows.knows_trace(trace))
    }

    fn owner(&mut self, asked: &mut Asked, now: Timestamp) -> Owner<ExchangeKey> {
        let trace = asked.call.trace.as_deref();
        let owner = match trace {
            // The news of its exchange will tell for certain.
            Some(trace)
                if self.config.is_fed
                    && !self.shadows.knows_trace(trace)
                    && now.since(asked.came) < NEWS_WITHIN =>
            {
                Owner::Nobody
            }
            _ => self.shadows.owner(trace, asked.connection),
        };
        // Asked anew each time: the news of what had begun may be late, however late.
        asked.owner = match owner {
            Owner::Nobody if now.since(asked.came) < NEWS_WITHIN => None,
            ref owner => Some(owner.clone()),
        };
        asked.is_certain = self.has_known_trace(&asked.call);
        owner
    }

    fn find(&self, owner: &Owner<ExchangeKey>, call: &Call, is_last: bool) -> Option<Found> {
        use Likeness::{Exact, Masked, Plain};
        let store = &self.store;
        let own: Vec<StubId> = match owner.candidates() {
            [] => Vec::new(),
            several => {
                let mut own: Vec<StubId> = several
                    .iter()
                    .flat_map(|key| self.shadows.stubs(key))
                    .copied()
                    .collect();
                own.sort_unstable();
                own.dedup();
                own
            }
        };
        let is_known = !own.is_empty() || !matches!(owner, Owner::Nobody);
        for likeness in [Exact, Plain] {
            if let Some(id) = store.unused_of(&own, likeness, call) {
                return Some(Found::fresh(id, likeness));
            }
        }
        if is_last && let Some(id) = self.nearest_unused_of(&own, call) {
            return Some(Found::fresh(id, Masked));
        }
        // Without a known exchange, all that were not given yet are as good.
        for likeness in [Exact, Plain] {
            if let Some(id) = store.first_unused(likeness, call, is_known) {
                return Some(Found::fresh(id, likeness));
            }
        }
        if !is_last {
            return None;
        }
        for likeness in [Exact, Plain, Masked] {
            if let Some(id) = store.last_of(&own, likeness, call) {
                return Some(Found::again(id, likeness));
            }
        }
        for likeness in [Exact, Plain] {
            if let Some(id) = store.last(likeness, call, false) {
                return Some(Found::again(id, likeness));
            }
        }
        let only_free = is_known && !call.is_safe();
        let candidates: Vec<StubId> = store.group(Masked, call, only_free).collect();
        self.nearest_unused_of(&candidates, call)
            .map(|id| Found::fresh(id, Masked))
            .or_else(|| {
                let id = store.last(Masked, call, only_free)?;
                Some(Found::again(id, Masked))
            })
    }

    /// Of stubs that are alike but for ids, the one with the fewest other ids that was not given yet.
    fn nearest_unused_of(&self, stubs: &[StubId], call: &Call) -> Option<StubId> {
        let alike = stubs.iter().filter(|id| {
            self.store
                .get(**id)
                .is_some_and(|stub| stub.used == 0 && stub.call.keys.masked == call.keys.masked)
        });
        alike
            .take(MOST_COMPARED)
            .min_by_key(|id| self.distance(**id, call))
            .copied()
    }

    fn distance(&self, id: StubId, call: &Call) -> usize {
        self.store.get(id).map_or(usize::MAX, |stub| {
            let differences = call.differences(&stub.call, &self.config.ignored);
            differences.iter().filter(|it| it.matters).count()
        })
    }

    fn give(&mut self, found: Found, owner: &Owner<ExchangeKey>, call: &Arc<Call>) -> Decision {
        let Found {
            id,
            likeness,
            is_again,
        } = found;
        let place = self.store.place(id, call);
        let (slot, owners, its_call, answer, used) = {
            let Some((stub, slot)) = self.store.take(id) else {
                return self.miss(owner, call);
            };
            (
                slot.clone(),
                stub.owners.clone(),
                Arc::clone(&stub.call),
                stub.answer.clone(),
                stub.used,
            )
        };
        let is_foreign = !owner.candidates().is_empty()
            && !owners.is_empty()
            && !owners.iter().any(|it| owner.candidates().contains(it));
        let differences = call.differences(&its_call, &self.config.ignored);
        let changes: Vec<&Differing> = differences.iter().filter(|it| it.matters).collect();
        let change = (likeness == Likeness::Masked && !changes.is_empty()).then(|| told(&changes));
        let has_met = !is_again && !is_foreign && self.shadows.meet(&slot, change);
        if !has_met {
            let what = format!("{} once more", its_call.endpoint);
            let slot = (!is_foreign).then_some(&slot);
            self.shadows.extra(owner, slot, &call.endpoint, &what);
        }
        let level = match (likeness, place) {
            (Likeness::Exact | Likeness::Plain, Some((_, all))) if all > 1 || is_again => {
                Level::Sequence
            }
            (Likeness::Exact, _) => Level::Exact,
            (Likeness::Plain | Likeness::Masked, _) => Level::Normalised,
        };
        let mut why = format!("stub {}", id.0);
        if let Some((at, all)) = place.filter(|(_, all)| *all > 1) {
            why += &format!(", {at} of {all} identical calls");
        }
        if is_again {
            why += &format!(", given {used} times");
        }
        match likeness {
            Likeness::Exact => {}
            Likeness::Plain => why += ", alike but for form and noise",
            Likeness::Masked => why += &format!(", alike but for ids: {}", told(&changes)),
        }
        why += &match (owners.as_slice(), is_foreign) {
            ([], _) => String::new(),
            ([first, ..], true) => format!(", of another exchange ({first})"),
            ([one], false) => format!(", of exchange {one}"),
            (several, false) => format!(", of one of {} exchanges", several.len()),
        };
        self.count(level);
        Decision::Answer { answer, level, why }
    }

    fn miss(&mut self, owner: &Owner<ExchangeKey>, call: &Arc<Call>) -> Decision {
        self.account.drop(Reason::MockMiss);
        let nearest = self
            .store
            .near(call)
            .take(MOST_COMPARED)
            .min_by_key(|id| self.distance(*id, call))
            .and_then(|id| self.store.get(id));
        let miss = match nearest {
            Some(stub) => {
                let differences = call.differences(&stub.call, &self.config.ignored);
                let changes: Vec<&Differing> = differences.iter().collect();
                let why = if changes.is_empty() {
                    "version 1 made this call in another exchange, and not in the one that is being shadowed".to_owned()
                } else {
                    format!("the nearest call of version 1 differs: {}", told(&changes))
                };
                Miss {
                    why,
                    nearest: Some(stub.call.endpoint.to_string()),
                    differences,
                }
            }
            None => Miss {
                why: self.why_nothing_is_near(call),
                nearest: None,
                differences: Vec::new(),
            },
        };
        self.shadows.extra(owner, None, &call.endpoint, &miss.why);
        Decision::Miss(miss)
    }

    fn why_nothing_is_near(&self, call: &Call) -> String {
        if self.store.len() == 0 {
            return "nothing is known yet: no sidecar has fed a call, and no recording was given"
                .to_owned();
        }
        let hosts = self.store.hosts();
        if hosts.is_empty() {
            "no written stub fits, and version 1 has called nobody yet".to_owned()
        } else if hosts.contains(&call.host) {
            format!(
                "version 1 called {} otherwise: {}",
                call.host,
                self.store.endpoints_of(&call.host).join(", ")
            )
        } else {
            format!(
                "version 1 did not call {:?}; it called {}",
                call.host,
                hosts.into_iter().take(10).collect::<Vec<_>>().join(", ")
            )
        }
    }

    fn compare_unmatched(&mut self, owner: &Owner<ExchangeKey>, call: &Call) {
        let own: Vec<StubId> = owner
            .candidates()
            .iter()
            .flat_map(|key| self.shadows.stubs(key))
            .copied()
            .collect();
        for likeness in [Likeness::Exact, Likeness::Plain] {
            if let Some(id) = self.store.unused_of(&own, likeness, call)
                && let Some((_, slot)) = self.store.take(id)
            {
                let slot = slot.clone();
                self.shadows.meet(&slot, None);
                return;
            }
        }
        self.shadows
            .extra(owner, None, &call.endpoint, "not among version 1's calls");
    }

    const fn count(&mut self, level: Level) {
        self.account.count(Counter::MockAnswered);
        match level {
            Level::Exact => self.account.count(Counter::MockExact),
            Level::Normalised => self.account.count(Counter::MockNormalised),
            Level::Sequence => self.account.count(Counter::MockSequence),
            Level::Miss => {}
        }
    }
}

/// A stub that fits.
struct Found {
    id: StubId,
    likeness: Likeness,
    /// Whether all of its kind were given before.
    is_again: bool,
}

impl Found {
    const fn fresh(id: StubId, likeness: Likeness) -> Self {
        Self {
            id,
            likeness,
            is_again: false,
        }
    }

    const fn again(id: StubId, likeness: Likeness) -> Self {
        Self {
            id,
            likeness,
            is_again: true,
        }
    }
}

/// Differences in a few words.
fn told(differences: &[&Differing]) -> String {
    let shown: Vec<String> = differences
        .iter()
        .take(3)
        .map(|it| {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
            format!(
                "{} is {}, version 1 had {}",
                it.place,
                value(&it.ours),
                value(&it.theirs)
            )
        })
        .collect();
    match differences.len() {
        0 => "only in values that are made anew each time".to_owned(),
        n @ 4.. => format!("{}, and {} more", shown.join("; "), n - 3),
        _ => shown.join("; "),
    }
}

/// The news that an exchange is being replayed comes within this time, or not at all.
const NEWS_WITHIN: Duration = Duration::from_millis(100);

/// Stubs that are looked at one by one to find the nearest.
const MOST_COMPARED: usize = 256;

#[cfg(test)]
mod tests;
