//! What version 2 did to others, held against what version 1 did: calls as multisets, for each exchange and endpoint.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use serde::{Deserialize, Serialize};

use super::call::is_safe;
use super::causality::{Causes, Owner};
use super::stub::StubId;
use crate::compare::DifferenceKind;
use crate::time::Timestamp;

/// Names an exchange of version 1 among those of several sidecars.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ExchangeKey {
    /// The sidecar that saw it, and which run of it.
    pub sidecar: Arc<str>,
    /// Its name there.
    pub exchange: u64,
}

impl fmt::Display for ExchangeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} of {}", self.exchange, self.sidecar)
    }
}

/// The calls to one endpoint, version 2's against version 1's.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Effect {
    /// `POST payment /charges`.
    pub call: String,
    /// Calls that both made.
    pub same: u64,
    /// Calls that version 1 alone made.
    pub missing: u64,
    /// Calls that version 2 alone made.
    pub extra: u64,
    /// Calls that both made, with other content.
    pub changed: u64,
    /// What was changed, or what was called once too often, at the first such call.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub example: Option<String>,
}

impl Effect {
    /// Whether both versions did the same.
    #[must_use]
    pub const fn is_same(&self) -> bool {
        self.missing == 0 && self.extra == 0 && self.changed == 0
    }

    /// Adds what another exchange did.
    fn add(&mut self, other: &Self) {
        self.same += other.same;
        self.missing += other.missing;
        self.extra += other.extra;
        self.changed += other.changed;
        if self.example.is_none() {
            self.example.clone_from(&other.example);
        }
    }
}

/// The side effects of one exchange, final.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settled {
    /// Counts what was settled; a reader asks for what came after the last that it has.
    pub number: u64,
    /// The sidecar that saw the exchange.
    pub sidecar: String,
    /// The exchange's name there.
    pub exchange: u64,
    /// Its endpoint: `POST /orders`.
    pub endpoint: String,
    /// The calls that it led to, by endpoint; none when neither version made any.
    pub calls: Vec<Effect>,
}

impl Settled {
    /// What the judge is told of this exchange: the endpoint under which its calls are judged, and each called endpoint that
    /// differs, as a field. None when neither version called anybody with a method that changes something.
    #[must_use]
    pub fn as_trial(&self) -> Option<(String, DifferingCalls)> {
        let changing = || {
            self.calls.iter().filter(|effect| {
                let method = effect.call.split(' ').next().unwrap_or_default();
                !is_safe(method)
            })
        };
        changing().next()?;
        let differing = changing().flat_map(|effect| {
            let field: Arc<str> = format!("{CALL}{}", effect.call).into();
            [
                (effect.missing, DifferenceKind::Missing),
                (effect.extra, DifferenceKind::Extra),
                (effect.changed, DifferenceKind::Value),
            ]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(move |(_, kind)| (Arc::clone(&field), kind))
        });
        Some((format!("{}, its calls", self.endpoint), differing.collect()))
    }
}

/// Called endpoints that differ, each as a field, and in which way.
pub type DifferingCalls = Vec<(Arc<str>, DifferenceKind)>;

/// What is in front of a called endpoint where it stands as a field that differs.
pub const CALL: &str = "call ";

/// Where a call of version 1 waits for its counterpart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Slot {
    /// Not at all: nothing is known of the exchange.
    #[default]
    None,
    /// In its exchange.
    Own(ExchangeKey, usize),
    /// Beside several exchanges, one of which it belongs to.
    Shared(u64),
}

#[derive(Debug)]
struct Made {
    endpoint: Arc<str>,
    /// Whether version 2 made it too; what it changed in it.
    met: Option<Option<String>>,
}

impl Made {
    fn effect(&self, into: &mut BTreeMap<Arc<str>, Effect>) {
        let effect = into.entry(Arc::clone(&self.endpoint)).or_default();
        match &self.met {
            None => effect.missing += 1,
            Some(None) => effect.same += 1,
            Some(Some(change)) => {
                effect.changed += 1;
                effect.example.get_or_insert_with(|| change.clone());
            }
        }
    }
}

/// A call of version 2 that has no counterpart yet.
#[derive(Debug)]
struct Extra {
    endpoint: Arc<str>,
    what: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Replayed {
    Open,
    Answered,
    /// It failed, or was not sent: nothing can be said about it.
    Not,
}

#[derive(Debug)]
struct Shadow {
    endpoint: Arc<str>,
    is_done: bool,
    replay: Replayed,
    stubs: Vec<StubId>,
    made: Vec<Made>,
    extra: Vec<Extra>,
    is_settled: bool,
    /// Whether something that version 1 did in it was not seen: nothing can be said about it.
    is_spoilt: bool,
}

/// A call of which only several exchanges are known that it may belong to.
#[derive(Debug)]
enum Loose {
    Made(Made),
    Extra(Extra),
}

/// Every exchange that is being shadowed, what both versions called in it, and the sums.
#[derive(Debug)]
pub struct Shadows {
    exchanges: AHashMap<ExchangeKey, Shadow>,
    oldest: VecDeque<ExchangeKey>,
    replays: Causes<ExchangeKey>,
    /// Those of which both versions are done, in the order of when they are settled.
    due: VecDeque<(Timestamp, ExchangeKey)>,
    loose: BTreeMap<u64, (Vec<ExchangeKey>, Loose)>,
    next_loose: u64,
    settled: VecDeque<Settled>,
    numbers: u64,
    sums: BTreeMap<Arc<str>, Effect>,
    exchanges_settled: u64,
    exchanges_differing: u64,
    unattributed: u64,
    grace: Duration,
}

impl Shadows {
    /// Calls that come up to `grace` after both versions have answered still count.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self {
            exchanges: AHashMap::new(),
            oldest: VecDeque::new(),
            replays: Causes::default(),
            due: VecDeque::new(),
            loose: BTreeMap::new(),
            next_loose: 0,
            settled: VecDeque::new(),
            numbers: 0,
            sums: BTreeMap::new(),
            exchanges_settled: 0,
            exchanges_differing: 0,
            unattributed: 0,
            grace,
        }
    }

    /// Version 1 got a request, which is about to be replayed.
    pub fn begin(&mut self, key: ExchangeKey, endpoint: &str, trace: Option<Arc<str>>) {
        if self.exchanges.contains_key(&key) {
            return;
        }
        self.replays.begin(key.clone(), trace);
        self.oldest.push_back(key.clone());
        self.exchanges.insert(
            key,
            Shadow {
                endpoint: endpoint.into(),
                is_done: false,
                replay: Replayed::Open,
                stubs: Vec::new(),
                made: Vec::new(),
                extra: Vec::new(),
                is_settled: false,
                is_spoilt: false,
            },
        );
        if self.oldest.len() > MOST_EXCHANGES
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.replays.end(&oldest);
            self.exchanges.remove(&oldest);
        }
    }

    /// Version 1 has answered: it calls nobody for this exchange any more.
    pub fn done(&mut self, key: &ExchangeKey, now: Timestamp) {
        if let Some(shadow) = self.exchanges.get_mut(key) {
            shadow.is_done = true;
        }
        self.look_whether_over(key, now);
    }

    /// The replay is over; whether version 2 answered it.
    pub fn replayed(&mut self, key: &ExchangeKey, answered: bool, now: Timestamp) {
        self.replays.end(key);
        if let Some(shadow) = self.exchanges.get_mut(key) {
            // Of several targets that a request goes to, one answer is enough.
            match (answered, shadow.replay) {
                (true, _) => shadow.replay = Replayed::Answered,
                (false, Replayed::Answered) => {}
                (false, _) => shadow.replay = Replayed::Not,
            }
        }
        self.look_whether_over(key, now);
    }

    /// Something that version 1 did in these exchanges was not seen; with none given, in any of that sidecar's.
    pub fn spoil(&mut self, sidecar: &str, exchanges: &[ExchangeKey]) {
        for (key, shadow) in &mut self.exchanges {
            if exchanges.contains(key) || exchanges.is_empty() && *key.sidecar == *sidecar {
                shadow.is_spoilt = true;
            }
        }
    }

    fn look_whether_over(&mut self, key: &ExchangeKey, now: Timestamp) {
        let Some(shadow) = self.exchanges.get(key) else {
            return;
        };
        let is_over = match shadow.replay {
            Replayed::Answered => shadow.is_done,
            Replayed::Not => true,
            Replayed::Open => false,
        };
        if is_over && !shadow.is_settled {
            self.due.push_back((now.after(self.grace), key.clone()));
        }
    }

    /// Version 1 made a call; where it waits for its counterpart.
    pub fn made(&mut self, owners: &[ExchangeKey], endpoint: &Arc<str>, stub: StubId) -> Slot {
        let made = Made {
            endpoint: Arc::clone(endpoint),
            met: None,
        };
        for owner in owners {
            if let Some(shadow) = self.exchanges.get_mut(owner) {
                shadow.stubs.push(stub);
            }
        }
        match owners {
            [] => Slot::None,
            [one] => match self.exchanges.get_mut(one) {
                Some(shadow) if !shadow.is_settled => {
                    shadow.made.push(made);
                    Slot::Own(one.clone(), shadow.made.len() - 1)
                }
                _ => Slot::None,
            },
            several => match self.loosely(several, Loose::Made(made)) {
                Some(number) => Slot::Shared(number),
                None => Slot::None,
            },
        }
    }

    /// Version 2 made the call that waits at `slot`, with what it changed in it; `false` if somebody had before.
    pub fn meet(&mut self, slot: &Slot, change: Option<String>) -> bool {
        let made = match slot {
            Slot::None => None,
            Slot::Own(key, at) => self
                .exchanges
                .get_mut(key)
                .and_then(|shadow| shadow.made.get_mut(*at)),
            Slot::Shared(number) => match self.loose.get_mut(number) {
                Some((_, Loose::Made(made))) => Some(made),
                _ => None,
            },
        };
        match made {
            Some(made) if made.met.is_none() => {
                made.met = Some(change);
                true
            }
            _ => false,
        }
    }

    /// Version 2 made a call that version 1 did not make, or not as often; `slot` is that of the call that it repeats.
    pub fn extra(
        &mut self,
        owner: &Owner<ExchangeKey>,
        slot: Option<&Slot>,
        endpoint: &Arc<str>,
        what: &str,
    ) {
        let extra = Extra {
            endpoint: Arc::clone(endpoint),
            what: what.to_owned(),
        };
        let key = match (owner, slot) {
            (Owner::Known(key), _) => Some(key.clone()),
            (Owner::OneOf(several), Some(Slot::Own(key, _))) if several.contains(key) => {
                Some(key.clone())
            }
            (Owner::Nobody, Some(Slot::Own(key, _))) => Some(key.clone()),
            _ => None,
        };
        if let Some(shadow) = key.and_then(|key| self.exchanges.get_mut(&key))
            && !shadow.is_settled
        {
            shadow.extra.push(extra);
            return;
        }
        let several = match owner {
            Owner::OneOf(several) => several.as_slice(),
            _ => &[],
        };
        if self.loosely(several, Loose::Extra(extra)).is_none() {
            self.unattributed += 1;
        }
    }

    fn loosely(&mut self, owners: &[ExchangeKey], loose: Loose) -> Option<u64> {
        let known = |owner: &ExchangeKey| {
            let shadow = self.exchanges.get(owner);
            shadow.is_some_and(|shadow| !shadow.is_settled)
        };
        if owners.is_empty() || !owners.iter().all(known) {
            return None;
        }
        if self.loose.len() >= MOST_EXCHANGES {
            self.loose.pop_first();
        }
        self.next_loose += 1;
        self.loose.insert(self.next_loose, (owners.to_vec(), loose));
        Some(self.next_loose)
    }

    /// Whose a call of version 2 is.
    pub fn owner(&mut self, trace: Option<&str>, connection: Option<u64>) -> Owner<ExchangeKey> {
        self.replays.owner(trace, connection)
    }

    /// Whether a trace is that of a request that was replayed.
    #[must_use]
    pub fn knows_trace(&self, trace: &str) -> bool {
        self.replays.knows(trace)
    }

    /// Whether version 1 calls nobody for this exchange any more.
    #[must_use]
    pub fn is_done(&self, key: &ExchangeKey) -> bool {
        self.exchanges.get(key).is_none_or(|shadow| shadow.is_done)
    }

    /// The stubs made of version 1's calls in an exchange, in the order in which they came.
    #[must_use]
    pub fn stubs(&self, key: &ExchangeKey) -> &[StubId] {
        self.exchanges
            .get(key)
            .map_or(&[], |shadow| shadow.stubs.as_slice())
    }

    /// Settles what is due.
    pub fn settle(&mut self, now: Timestamp) {
        let mut any = false;
        while self.due.front().is_some_and(|(due, _)| *due <= now) {
            any = true;
            if let Some((_, key)) = self.due.pop_front() {
                self.settle_one(&key);
            }
        }
        if any {
            self.settle_loose();
        }
    }

    fn settle_one(&mut self, key: &ExchangeKey) {
        let Some(shadow) = self.exchanges.get_mut(key) else {
            return;
        };
        if shadow.replay == Replayed::Answered && !shadow.is_done {
            return; // Due again when it is done.
        }
        let is_settled = std::mem::replace(&mut shadow.is_settled, true);
        if is_settled || shadow.is_spoilt || shadow.replay != Replayed::Answered {
            return;
        }
        let mut effects: BTreeMap<Arc<str>, Effect> = BTreeMap::new();
        for made in shadow.made.drain(..) {
            made.effect(&mut effects);
        }
        for extra in shadow.extra.drain(..) {
            let effect = effects.entry(extra.endpoint).or_default();
            // A call of version 1's that is missing, and one of version 2's to the same endpoint, are one that changed.
            if effect.missing > 0 {
                effect.missing -= 1;
                effect.changed += 1;
            } else {
                effect.extra += 1;
            }
            effect.example.get_or_insert(extra.what);
        }
        let endpoint = shadow.endpoint.to_string();
        self.publish(key, endpoint, effects);
        self.exchanges_settled += 1;
    }

    /// Settles the calls of which every exchange that they may belong to is settled.
    fn settle_loose(&mut self) {
        let numbers: Vec<u64> = self
            .loose
            .iter()
            .filter(|(_, (owners, _))| {
                owners
                    .iter()
                    .all(|owner| self.exchanges.get(owner).is_none_or(|it| it.is_settled))
            })
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            let Some((owners, loose)) = self.loose.remove(&number) else {
                continue;
            };
            let replayed = |owner: &ExchangeKey| {
                let shadow = self.exchanges.get(owner);
                shadow.is_some_and(|it| it.replay == Replayed::Answered && !it.is_spoilt)
            };
            // If one of them was not replayed, the call may have been that one's.
            if !owners.iter().all(replayed) {
                self.unattributed += u64::from(matches!(loose, Loose::Extra(_)));
                continue;
            }
            let mut effects = BTreeMap::new();
            match loose {
                Loose::Made(made) => made.effect(&mut effects),
                Loose::Extra(extra) => {
                    let effect: &mut Effect = effects.entry(extra.endpoint).or_default();
                    effect.extra = 1;
                    effect.example = Some(extra.what);
                }
            }
            if let Some(shadow) = self.exchanges.get(&owners[0]) {
                let endpoint = shadow.endpoint.to_string();
                self.publish(&owners[0], endpoint, effects);
            }
        }
    }

    fn publish(
        &mut self,
        key: &ExchangeKey,
        endpoint: String,
        effects: BTreeMap<Arc<str>, Effect>,
    ) {
        self.exchanges_differing += u64::from(effects.values().any(|effect| !effect.is_same()));
        for (call, effect) in &effects {
            let known = self.sums.len() < MOST_ENDPOINTS || self.sums.contains_key(call);
            let call = if known {
                Arc::clone(call)
            } else {
                "other".into()
            };
            self.sums.entry(call).or_default().add(effect);
        }
        self.numbers += 1;
        self.settled.push_back(Settled {
            number: self.numbers,
            sidecar: key.sidecar.to_string(),
            exchange: key.exchange,
            endpoint,
            calls: effects
                .into_iter()
                .map(|(call, effect)| Effect {
                    call: call.to_string(),
                    ..effect
                })
                .collect(),
        });
        if self.settled.len() > MOST_SETTLED {
            self.settled.pop_front();
        }
    }

    /// What was settled behind that number, for one sidecar or for all; the oldest are forgotten.
    pub fn settled<'a>(
        &'a self,
        sidecar: Option<&'a str>,
        after: u64,
    ) -> impl Iterator<Item = &'a Settled> {
        self.settled.iter().filter(move |it| {
            it.number > after && sidecar.is_none_or(|sidecar| it.sidecar == sidecar)
        })
    }

    /// How many results of a sidecar's exchanges are still to come, as far as that is known.
    #[must_use]
    pub fn unsettled(&self, sidecar: &str) -> u64 {
        let is_its = |key: &ExchangeKey| *key.sidecar == *sidecar;
        let due = self.due.iter().filter(|(_, key)| is_its(key)).count();
        let loose = self.loose.values();
        let loose = loose.filter(|(owners, _)| owners.iter().any(is_its));
        (due + loose.count()) as u64
    }

    /// The sums by called endpoint.
    pub fn sums(&self) -> impl Iterator<Item = Effect> {
        self.sums.iter().map(|(call, effect)| Effect {
            call: call.to_string(),
            ..effect.clone()
        })
    }

    /// How many exchanges were settled, how many of them differ, and how many calls of version 2 could not be counted
    /// because nobody knows to which exchange they belong.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64, u64) {
        (
            self.exchanges_settled,
            self.exchanges_differing,
            self.unattributed,
        )
    }
}

/// Exchanges that are remembered; the oldest are forgotten, and nothing is said about them.
const MOST_EXCHANGES: usize = 1 << 16;

/// Results that wait to be read.
const MOST_SETTLED: usize = 1 << 14;

/// Called endpoints with sums of their own.
const MOST_ENDPOINTS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(exchange: u64) -> ExchangeKey {
        ExchangeKey {
            sidecar: "pod-1".into(),
            exchange,
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs_nanos(seconds, 0)
    }

    fn over(shadows: &mut Shadows, exchange: u64) {
        shadows.done(&key(exchange), at(1));
        shadows.replayed(&key(exchange), true, at(1));
    }

    fn told(shadows: &Shadows) -> Vec<(u64, [u64; 4])> {
        shadows
            .settled(None, 0)
            .flat_map(|it| {
                let exchange = it.exchange;
                it.calls
                    .iter()
                    .map(move |e| (exchange, [e.same, e.missing, e.extra, e.changed]))
            })
            .collect()
    }

    #[test]
    fn calls_of_one_exchange_are_a_multiset() {
        let charge: Arc<str> = "POST payment /charges".into();
        // Calls of version 1, how many of them version 2 made, how many it made beside them; same, missing, extra, changed.
        for (made, met, extra, wanted) in [
            (1, 1, 0, [1, 0, 0, 0]),
            (1, 1, 1, [1, 0, 1, 0]),
            (1, 0, 0, [0, 1, 0, 0]),
            (1, 0, 1, [0, 0, 0, 1]),
            (2, 1, 2, [1, 0, 1, 1]),
            (0, 0, 2, [0, 0, 2, 0]),
        ] {
            let mut shadows = Shadows::new(Duration::from_secs(2));
            shadows.begin(key(1), "POST /orders", None);
            let slots: Vec<_> = (0..made)
                .map(|stub| shadows.made(&[key(1)], &charge, StubId(stub)))
                .collect();
            for slot in &slots[..met] {
                assert!(shadows.meet(slot, None));
                assert!(!shadows.meet(slot, None), "a call is met once");
            }
            for _ in 0..extra {
                shadows.extra(&Owner::Known(key(1)), None, &charge, "again");
            }
            over(&mut shadows, 1);
            shadows.settle(at(2));
            assert_eq!(told(&shadows), [], "calls may still come");
            shadows.settle(at(3));
            assert_eq!(told(&shadows), [(1, wanted)]);
        }
    }

    #[test]
    fn the_judge_rejects_a_version_2_that_charges_twice_and_says_so() {
        use crate::judge::{
            Completeness, Decision, Judge, LatencyMargin, Tolerances, Trial, verdict,
        };
        for (calls, extra, rejected) in [
            (&["POST payment /charges"][..], 1, true),
            (&["POST payment /charges"], 0, false),
            // To ask twice changes nothing.
            (&["GET stock /items"], 1, false),
        ] {
            let mut judge = Judge::new(LatencyMargin::default());
            for number in 0..200 {
                let settled = Settled {
                    number,
                    sidecar: "pod-1".to_owned(),
                    exchange: number,
                    endpoint: "POST /orders".to_owned(),
                    calls: calls
                        .iter()
                        .map(|call| Effect {
                            call: (*call).to_owned(),
                            same: 1,
                            extra,
                            ..Effect::default()
                        })
                        .collect(),
                };
                let Some((endpoint, differing)) = settled.as_trial() else {
                    continue;
                };
                judge.add(&Trial {
                    endpoint: &endpoint,
                    differing: &differing,
                    v1_failed: false,
                    v2_failed: false,
                    latency: None,
                    reference: None,
                });
            }
            let said = verdict(
                judge.tally(),
                &Tolerances::default(),
                &Completeness::default(),
            );
            assert_eq!(said.verdict == Decision::Reject, rejected, "{said:?}");
            let reason = "POST /orders, its calls: version 2 calls POST payment /charges more often than version 1 in 200 of 200 requests";
            assert_eq!(
                said.reasons.iter().any(|it| it == reason),
                rejected,
                "{:?}",
                said.reasons
            );
        }
    }

    #[test]
    fn nothing_is_said_of_what_was_not_replayed() {
        let charge: Arc<str> = "POST payment /charges".into();
        let mut shadows = Shadows::new(Duration::ZERO);
        shadows.begin(key(1), "POST /orders", None);
        shadows.made(&[key(1)], &charge, StubId(1));
        shadows.done(&key(1), at(1));
        shadows.replayed(&key(1), false, at(1));
        assert_eq!(
            shadows.made(&[key(9)], &charge, StubId(2)),
            Slot::None,
            "an exchange of which nothing is known"
        );
        shadows.settle(at(9));
        assert_eq!(told(&shadows), []);
        assert_eq!(shadows.counts(), (0, 0, 0));
    }

    #[test]
    fn nothing_is_said_of_what_was_not_seen_whole() {
        let charge: Arc<str> = "POST payment /charges".into();
        for spoilt in [&[][..], &[key(1)], &[key(7)]] {
            let mut shadows = Shadows::new(Duration::ZERO);
            shadows.begin(key(1), "POST /orders", None);
            shadows.spoil("pod-2", &[]);
            shadows.spoil("pod-1", spoilt);
            shadows.extra(&Owner::Known(key(1)), None, &charge, "again");
            over(&mut shadows, 1);
            shadows.settle(at(2));
            let said = if spoilt == [key(7)] {
                vec![(1, [0, 0, 1, 0])]
            } else {
                vec![]
            };
            assert_eq!(told(&shadows), said);
        }
    }

    #[test]
    fn one_answer_of_several_targets_is_enough() {
        let charge: Arc<str> = "POST payment /charges".into();
        for order in [[true, false], [false, true]] {
            let mut shadows = Shadows::new(Duration::ZERO);
            shadows.begin(key(1), "POST /orders", None);
            shadows.made(&[key(1)], &charge, StubId(1));
            for answered in order {
                shadows.replayed(&key(1), answered, at(1));
            }
            shadows.settle(at(1));
            assert_eq!(told(&shadows), [], "version 1 is not done");
            shadows.done(&key(1), at(2));
            shadows.settle(at(2));
            assert_eq!(told(&shadows), [(1, [0, 1, 0, 0])]);
        }
    }

    #[test]
    fn a_call_of_one_of_several_exchanges_waits_for_all_of_them() {
        let charge: Arc<str> = "POST payment /charges".into();
        let mut shadows = Shadows::new(Duration::ZERO);
        shadows.begin(key(1), "POST /orders", None);
        shadows.begin(key(2), "POST /orders", None);
        let both = [key(1), key(2)];
        let met = shadows.made(&both, &charge, StubId(1));
        shadows.made(&both, &charge, StubId(2));
        shadows.meet(&met, None);
        shadows.extra(&Owner::OneOf(both.to_vec()), None, &charge, "again");
        over(&mut shadows, 1);
        shadows.settle(at(2));
        assert_eq!(told(&shadows), []);
        assert_eq!(shadows.unsettled("pod-1"), 3);
        over(&mut shadows, 2);
        shadows.settle(at(3));
        assert_eq!(shadows.unsettled("pod-1"), 0);
        assert_eq!(
            told(&shadows),
            [(1, [1, 0, 0, 0]), (1, [0, 1, 0, 0]), (1, [0, 0, 1, 0])]
        );
    }
}
