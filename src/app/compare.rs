//! Joins both versions' answers to each request, compares them, and tells the judge.
//!
//! ```text
//!  forward ─ expected, version 1's answers ─► Inbox ─┐
//!  replay-N ─ outcomes of version 2 ────────► Inbox ─┼─► compare: join by id ─► differences ─► Judge, account, examples
//!  replay-N ─ outcomes of the control ──────► Inbox ─┘
//! ```
//!
//! The thread `compare` takes what is in the inboxes twenty times a second, so that nobody is woken for a single answer. What
//! waits for the other version's answer is bounded; what is pushed out, and whatever else cannot be judged, is counted at
//! the stage `compare`.

mod examples;
mod inbox;
mod repeats;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, bounded};

pub use self::examples::{Example, ShownBody, ShownDifference, ShownRequest, ShownResponse};
use self::examples::{Examples, Pair};
use self::inbox::{Inbox, Seen, Side};
pub(super) use self::repeats::Repeats;
use crate::account::{Account, Counter, Reason, Stage};
use crate::compare::{self, Difference, DifferenceKind, Endpoints, FieldPattern, Route, Rules};
use crate::exchange::{ExchangeId, NoAnswer, Request, Response};
use crate::judge::{
    self, Completeness, Judge, Latency, LatencyMargin, Reference, ReferenceKind, Tally, Tolerances,
    Trial, Verdict,
};
use crate::replay::{Answer, Outcome, Replay, WhenFull};
use crate::report::{Shown, is_failure as is_failure_to_answer};
use crate::traffic::Redactor;

/// What is compared, and how it is shown.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What is compared.
    pub rules: Rules,
    /// Endpoints by hand.
    pub routes: Vec<Route>,
    /// Fields that are shown as tokens, beside those that always are.
    pub redact: Vec<FieldPattern>,
    /// Whether examples show those that always are as they were captured.
    pub reveal: bool,
    /// Up to where version 2 does not count as slower.
    pub margin: LatencyMargin,
    /// How much worse version 2 may be.
    pub tolerances: Tolerances,
    /// Whether how long answers take is left out: behind a mock, version 2 waits until version 1 has made its calls.
    pub untimed: bool,
}

/// Where answers are put down, and where the results are read.
#[derive(Clone)]
pub struct Comparing(Arc<Common>);

struct Common {
    captured: Inbox,
    version2: Inbox,
    control: Inbox,
    has_control: bool,
    results: Mutex<Results>,
    redactor: Redactor,
    /// For the examples.
    of_examples: Redactor,
    tolerances: Tolerances,
}

/// What has come of it so far.
struct Results {
    judge: Judge,
    account: Account,
    examples: Examples,
}

/// The running comparison.
pub struct Comparer {
    comparing: Comparing,
    open: Sender<()>,
    thread: JoinHandle<()>,
}

impl Comparer {
    /// Starts the thread. With [`WhenFull::Block`] whoever has an answer waits when this falls behind; otherwise what there is
    /// no room for is counted and not compared.
    ///
    /// # Errors
    /// When the system gives no thread or no random key.
    pub fn start(
        settings: Settings,
        has_control: bool,
        when_full: WhenFull,
    ) -> anyhow::Result<Self> {
        if settings.reveal {
            tracing::warn!(
                "--reveal: the dashboard's examples show credentials as they were captured"
            );
        }
        let redactor = Redactor::new(random_key()?, settings.redact);
        let (nudge, nudged) = bounded(1);
        let (open, closed) = bounded(0);
        let inbox = || Inbox::new(when_full, INBOX_BYTES, nudge.clone());
        let comparing = Comparing(Arc::new(Common {
            captured: inbox(),
            version2: inbox(),
            control: inbox(),
            has_control,
            results: Mutex::new(Results {
                judge: Judge::new(settings.margin),
                account: Account::new(),
                examples: Examples::default(),
            }),
            of_examples: if settings.reveal {
                redactor.clone().revealing()
            } else {
                redactor.clone()
            },
            redactor,
            tolerances: settings.tolerances,
        }));
        let mut join = Join::new(settings.rules, settings.routes, has_control);
        join.untimed = settings.untimed;
        let common = Arc::clone(&comparing.0);
        let thread = thread::Builder::new()
            .name("compare".to_owned())
            .spawn(move || run(&common, join, &nudged, &closed))
            .context("starting a thread")?;
        Ok(Self {
            comparing,
            open,
            thread,
        })
    }

    /// Where answers are put down, and where the results are read.
    #[must_use]
    pub fn comparing(&self) -> Comparing {
        self.comparing.clone()
    }

    /// Whether there is a control.
    #[must_use]
    pub fn has_control(&self) -> bool {
        self.comparing.0.has_control
    }

    /// Compares what is left and ends. Whoever puts answers down must have ended before.
    #[must_use]
    pub fn finish(self) -> Comparing {
        drop(self.open);
        if self.thread.join().is_err() {
            tracing::error!("the comparing thread panicked");
        }
        self.comparing
    }
}

impl Comparing {
    /// `request`, as it was captured, is about to be replayed to version 2.
    pub fn expect(&self, request: &Arc<Request>) {
        // What is not whole is never replayed.
        if !request.completeness.is_whole() {
            return;
        }
        self.0.captured.put(Seen::Expected(Arc::clone(request)));
    }

    /// Version 1's answer, or why none will come.
    pub fn version1(&self, id: ExchangeId, response: Result<Box<Response>, NoAnswer>) {
        self.0.captured.put(match response {
            Ok(response) => Seen::Version1(id, response),
            Err(why) => Seen::Unanswered(id, why),
        });
    }

    /// What became of the replay to version 2.
    pub fn version2(&self, replay: Replay) {
        self.0.version2.put(Seen::Version2(replay));
    }

    /// What became of the replay to the control.
    pub fn control(&self, replay: Replay) {
        self.0.control.put(Seen::Control(replay));
    }

    /// What was compared and what was not.
    #[must_use]
    pub fn account(&self) -> Account {
        self.0.results().account.clone()
    }

    /// What the judge has counted.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.0.results().judge.tally().clone()
    }

    /// Tells the judge of something that was compared elsewhere, such as side effects.
    pub fn judge(&self, trial: &Trial<'_>) {
        self.0.results().judge.add(trial);
    }

    /// What the judge says, where so much of the traffic was judged.
    #[must_use]
    pub fn verdict(&self, completeness: &Completeness) -> Verdict {
        judge::verdict(&self.tally(), &self.0.tolerances, completeness)
    }

    /// What the latest answers that differ in this field and way have there, as it may be shown.
    #[must_use]
    pub fn shown(&self, endpoint: &str, field: &str, kind: DifferenceKind) -> Option<Shown> {
        let pairs = self.0.results().examples.of(endpoint, field, kind);
        let differences = &pairs.first()?.differences;
        let is_it = |it: &&Difference| &*it.field == field && it.kind == kind;
        let difference = self.0.redactor.difference(differences.iter().find(is_it)?);
        Some((difference.v1, difference.v2))
    }

    /// The latest pairs of answers that differ in this field and way, the latest first, as they may be shown.
    #[must_use]
    pub fn examples(&self, endpoint: &str, field: &str, kind: DifferenceKind) -> Vec<Example> {
        let pairs = self.0.results().examples.of(endpoint, field, kind);
        pairs
            .iter()
            .map(|pair| Example::of(pair, &self.0.of_examples))
            .collect()
    }
}

impl Common {
    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much of the traffic was judged, from the accounts of the capture, of the version that is judged, and of comparing.
/// With the capture's account comes how many replays it counts for a request that the full queue behind it did not take.
pub(super) fn completeness(
    (captured, dropped): &(Account, u64),
    judged: Option<&Account>,
    compared: &Account,
) -> Completeness {
    let mut lost = BTreeMap::new();
    let mut note = |account: &Account, stage: Stage, share: u64| {
        for &reason in Reason::ALL {
            // What was tried and failed is judged; what could not be is counted when comparing.
            // Nothing is missing from what was to be judged while there was no version 2, as between two releases.
            let is_meant = reason.stage() == stage
                && !reason.intentional()
                && reason != Reason::TargetIsVersion1
                && !(stage == Stage::Replay && is_failure_to_answer(reason));
            let count = account.dropped(reason) / share.max(1);
            if is_meant && count > 0 {
                *lost.entry(reason.name().to_owned()).or_default() += count;
            }
        }
    };
    note(captured, Stage::Request, 1);
    note(captured, Stage::Middleware, 1);
    note(captured, Stage::Replay, *dropped);
    if let Some(judged) = judged {
        note(judged, Stage::Replay, 1);
    }
    note(compared, Stage::Compare, 1);
    // Captured, but not looked into.
    let shed = captured.dropped(Reason::SegmentOverLimit);
    Completeness {
        judged: compared.get(Counter::ComparesJudged),
        lost,
        packets: captured.get(Counter::Packets).saturating_sub(shed),
        packets_lost: captured.dropped_at(Stage::Capture) + shed,
        earlier: 0,
    }
}

/// A key for tokens that nobody else knows, new for each run.
pub(crate) fn random_key() -> anyhow::Result<[u8; 32]> {
    let mut key = [0; 32];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut key)
        .map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(key)
}

fn run(common: &Common, mut join: Join, nudged: &Receiver<()>, closed: &Receiver<()>) {
    let mut inboxes = [Vec::new(), Vec::new(), Vec::new()];
    loop {
        let is_last = crossbeam_channel::select! {
            recv(closed) -> _ => true,
            recv(nudged) -> _ => false,
            default(EVERY) => false,
        };
        // Version 2's first: whatever an outcome in it belongs to was put down in the captured one before.
        common.control.take(&mut inboxes[2]);
        common.version2.take(&mut inboxes[1]);
        common.captured.take(&mut inboxes[0]);
        let now = Instant::now();
        for inbox in &mut inboxes {
            // The results are let go of now and then, for whoever wants to read them.
            let mut seen = inbox.drain(..).peekable();
            while seen.peek().is_some() {
                let mut results = common.results();
                for seen in seen.by_ref().take(AT_A_TIME) {
                    join.take(seen, now, &mut results);
                }
            }
        }
        join.expire(now, is_last, &mut common.results());
        if is_last {
            common.results().judge.finish();
            for inbox in [&common.captured, &common.version2, &common.control] {
                inbox.close();
            }
            return;
        }
    }
}

/// What is known of a request of which something is still to come.
struct Half {
    request: Arc<Request>,
    v1: Option<Version1>,
    v2: Option<Outcome>,
    control: Option<Control>,
    size: usize,
    since: Instant,
}

enum Version1 {
    Answered(Box<Response>),
    Unanswered(NoAnswer),
    /// There was no room for the answer.
    Lost,
}

enum Control {
    Outcome(Outcome),
    Lost,
}

/// The table of requests that wait for an answer, and everything that judging them takes.
///
/// Invariant: `bytes` is the sum of the sizes in `halves`; every id in `halves` is in `order`.
struct Join {
    rules: Rules,
    endpoints: Endpoints,
    has_control: bool,
    untimed: bool,
    halves: AHashMap<ExchangeId, Half>,
    order: VecDeque<(ExchangeId, Instant)>,
    bytes: usize,
    repeats: Repeats,
}

impl Join {
    fn new(rules: Rules, routes: Vec<Route>, has_control: bool) -> Self {
        Self {
            rules,
            endpoints: Endpoints::new(routes, MOST_ENDPOINTS),
            has_control,
            untimed: false,
            halves: AHashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            repeats: Repeats::new(),
        }
    }

    fn take(&mut self, seen: Seen, now: Instant, results: &mut Results) {
        let id = match seen {
            Seen::Expected(request) => return self.expect(request, now, results),
            Seen::Version1(id, response) => {
                let size = size_of_answer(&response);
                self.note(id, size, |half| {
                    half.v1 = Some(Version1::Answered(response))
                });
                id
            }
            Seen::Unanswered(id, why) => {
                self.note(id, 0, |half| half.v1 = Some(Version1::Unanswered(why)));
                id
            }
            Seen::Version1Lost(id) => {
                self.note(id, 0, |half| half.v1 = Some(Version1::Lost));
                id
            }
            Seen::Version2(Replay { request, outcome }) => {
                let id = request.id;
                if let Outcome::Skipped(_) = outcome {
                    // It was never replayed: nothing to judge, and the stage before has counted it.
                    self.remove(id);
                    return;
                }
                results.account.count(Counter::ComparesOffered);
                let size = size_of_outcome(&outcome);
                if !self.note(id, size, |half| half.v2 = Some(outcome)) {
                    results.account.drop(Reason::CompareOverBudget);
                }
                id
            }
            Seen::Control(Replay { request, outcome }) => {
                let size = size_of_outcome(&outcome);
                let control = Some(Control::Outcome(outcome));
                self.note(request.id, size, |half| half.control = control);
                request.id
            }
            Seen::Lost(Side::Version2, id) => {
                results.account.count(Counter::ComparesOffered);
                results.account.drop(Reason::CompareOverBudget);
                self.remove(id);
                return;
            }
            Seen::Lost(Side::Control, id) => {
                self.note(id, 0, |half| half.control = Some(Control::Lost));
                id
            }
        };
        let is_complete = self.halves.get(&id).is_some_and(|half| {
            half.v1.is_some() && half.v2.is_some() && (!self.has_control || half.control.is_some())
        });
        if is_complete && let Some(half) = self.remove(id) {
            self.settle(half, results);
        }
        self.bound(results);
    }

    fn expect(&mut self, request: Arc<Request>, now: Instant, results: &mut Results) {
        let id = request.id;
        // A recording that is played again has the same requests again.
        if let Some(before) = self.remove(id) {
            give_up(&before, Reason::Version1NotSeen, results);
        }
        let size = size_of::<Half>() + request.head.bytes().len() + request.body.wire.len();
        self.bytes += size;
        self.order.push_back((id, now));
        self.halves.insert(
            id,
            Half {
                request,
                v1: None,
                v2: None,
                control: None,
                size,
                since: now,
            },
        );
        self.bound(results);
    }

    /// Whether there is such a request.
    fn note(&mut self, id: ExchangeId, size: usize, change: impl FnOnce(&mut Half)) -> bool {
        let Some(half) = self.halves.get_mut(&id) else {
            return false;
        };
        half.size += size;
        self.bytes += size;
        change(half);
        true
    }

    fn remove(&mut self, id: ExchangeId) -> Option<Half> {
        let half = self.halves.remove(&id)?;
        self.bytes -= half.size;
        Some(half)
    }

    /// Pushes the oldest out until the rest keeps the bounds.
    fn bound(&mut self, results: &mut Results) {
        while self.halves.len() > MOST_WAITING || self.bytes > WAITING_BYTES {
            let Some((id, since)) = self.order.pop_front() else {
                return;
            };
            if self.halves.get(&id).is_some_and(|half| half.since == since)
                && let Some(half) = self.remove(id)
            {
                give_up(&half, Reason::CompareOverBudget, results);
            }
        }
    }

    /// Gives up on what has waited for too long; at the end, on all.
    fn expire(&mut self, now: Instant, is_last: bool, results: &mut Results) {
        // One that waits for long must not keep the places of all that came behind it.
        if self.order.len() > 2 * self.halves.len() + MOST_WAITING {
            let halves = &self.halves;
            self.order
                .retain(|(id, since)| halves.get(id).is_some_and(|half| half.since == *since));
        }
        while let Some(&(id, since)) = self.order.front() {
            let half = self.halves.get(&id).filter(|half| half.since == since);
            let is_over = is_last || now.saturating_duration_since(since) >= LONGEST_WAIT;
            if half.is_some() && !is_over {
                return;
            }
            let is_waiting = half.is_some();
            self.order.pop_front();
            if !is_waiting {
                continue;
            }
            let Some(half) = self.remove(id) else {
                continue;
            };
            if half.v1.is_some() && half.v2.is_some() {
                // Only the control has said nothing.
                self.settle(half, results);
            } else {
                give_up(&half, Reason::Version1NotSeen, results);
            }
        }
    }

    /// Judges a request of which all is known, or counts why it cannot be judged.
    fn settle(&mut self, half: Half, results: &mut Results) {
        if let Err(reason) = self.judge(half, results) {
            results.account.drop(reason);
        } else {
            results.account.count(Counter::ComparesJudged);
        }
    }

    fn judge(&mut self, half: Half, results: &mut Results) -> Result<(), Reason> {
        let request = half.request;
        let v1 = match half.v1 {
            Some(Version1::Answered(response)) => response,
            Some(Version1::Unanswered(NoAnswer::ClientLeft)) => {
                return Err(Reason::Version1ClientLeft);
            }
            Some(Version1::Unanswered(NoAnswer::HalfClosed)) => {
                return Err(Reason::Version1HalfClosed);
            }
            Some(Version1::Unanswered(NoAnswer::Ended)) => return Err(Reason::Version1Unanswered),
            Some(Version1::Lost) => return Err(Reason::CompareOverBudget),
            None => return Err(Reason::Version1NotSeen),
        };
        if !v1.completeness.is_whole() {
            return Err(Reason::Version1Incomplete);
        }
        if v1.doubts.any() || request.doubts.any() {
            return Err(Reason::Version1Ambiguous);
        }
        let v2 = match half.v2 {
            Some(Outcome::Answered(answer)) if answer.response.completeness.is_whole() => {
                Some(answer)
            }
            Some(Outcome::Answered(_)) => return Err(Reason::Version2TooLarge),
            Some(Outcome::Failed(Reason::ResolveFailed)) => return Err(Reason::NoVersion2),
            Some(Outcome::Failed(Reason::StoppedUnanswered)) => {
                return Err(Reason::Version2NotReached);
            }
            Some(Outcome::Failed(_)) => None,
            Some(Outcome::Skipped(_)) | None => return Err(Reason::Version2NotReached),
        };
        let v1: Arc<Response> = Arc::from(v1);
        let (differences, v2_response, v2_took) = match v2 {
            Some(answer) => {
                let Answer { response, timings } = *answer;
                let differences = compare::differences(&request, &v1, &response, &self.rules)?;
                let sent = response.last_byte.before(timings.total);
                (differences, Some(response), Some((timings.service(), sent)))
            }
            None => (Vec::new(), None, None),
        };
        let reference = if self.has_control {
            control(&request, &v1, half.control, &self.rules)
        } else {
            // A control says more, and says it of every request.
            let repeat = self.repeats.exchange(&request, &v1);
            repeat.and_then(|before| {
                // It came before, as version 1 does.
                let differences = compare::differences(&request, &before, &v1, &self.rules).ok()?;
                Some(Known {
                    kind: ReferenceKind::Repeat,
                    differing: pairs(&differences),
                    failed: is_failure(before.head.status()),
                    latency: None,
                })
            })
        };
        let v1_failed = is_failure(v1.head.status());
        let v2_failed = v2_response
            .as_ref()
            .is_none_or(|response| is_failure(response.head.status()));
        let latency = match v2_took {
            Some((v2, sent)) if !self.untimed && !v1_failed && !v2_failed => {
                took(&request, &v1).map(|v1| Latency { v1, v2, sent })
            }
            _ => None,
        };
        let endpoint = self.endpoints.name(&request);
        let differing = pairs(&differences);
        results.judge.add(&Trial {
            endpoint: &endpoint,
            differing: &differing,
            v1_failed,
            v2_failed,
            latency,
            reference: reference.as_ref().map(|known| Reference {
                kind: known.kind,
                differing: &known.differing,
                failed: known.failed,
                latency: known.latency,
            }),
        });
        let mut differences = differences;
        if v2_response.is_none() {
            differences.push(no_answer());
        }
        if !differences.is_empty() {
            let pair = Pair {
                request,
                v1,
                v2: v2_response.map(Arc::new),
                differences,
            };
            results.examples.keep(&endpoint, pair);
        }
        Ok(())
    }
}

/// How version 1 differs from itself on one request.
struct Known {
    kind: ReferenceKind,
    differing: Vec<(Arc<str>, DifferenceKind)>,
    failed: bool,
    latency: Option<Duration>,
}

fn control(
    request: &Request,
    v1: &Response,
    control: Option<Control>,
    rules: &Rules,
) -> Option<Known> {
    let failed = |failed| {
        Some(Known {
            kind: ReferenceKind::Control,
            differing: Vec::new(),
            failed,
            latency: None,
        })
    };
    match control? {
        Control::Outcome(Outcome::Answered(answer)) => {
            let response = &answer.response;
            if !response.completeness.is_whole() {
                return None;
            }
            let differences = compare::differences(request, v1, response, rules).ok()?;
            let is_failed = is_failure(response.head.status());
            Some(Known {
                kind: ReferenceKind::Control,
                differing: pairs(&differences),
                failed: is_failed,
                latency: (!is_failed).then(|| answer.timings.service()),
            })
        }
        Control::Outcome(Outcome::Failed(Reason::ResolveFailed | Reason::StoppedUnanswered)) => {
            None
        }
        Control::Outcome(Outcome::Failed(_)) => failed(true),
        Control::Outcome(Outcome::Skipped(_)) | Control::Lost => None,
    }
}

fn pairs(differences: &[Difference]) -> Vec<(Arc<str>, DifferenceKind)> {
    differences
        .iter()
        .map(|difference| (Arc::clone(&difference.field), difference.kind))
        .collect()
}

/// What stands in the examples of a request that version 2 did not answer.
fn no_answer() -> Difference {
    Difference {
        field: NO_ANSWER.into(),
        kind: DifferenceKind::Missing,
        v1: None,
        v2: None,
    }
}

/// The field that examples have for a request that version 2 did not answer.
pub const NO_ANSWER: &str = "answer";

/// Version 1's time from the last byte of the request to the last byte of the answer; `None` where the input has no times.
fn took(request: &Request, response: &Response) -> Option<Duration> {
    let took = response.last_byte.since(request.last_byte);
    (!took.is_zero()).then_some(took)
}

fn is_failure(status: u16) -> bool {
    status >= 500
}

/// Counts a request that will not be judged, if it was ever replayed.
fn give_up(half: &Half, reason: Reason, results: &mut Results) {
    if half.v2.is_some() {
        results.account.drop(reason);
    }
}

fn size_of_answer(response: &Response) -> usize {
    size_of::<Response>() + response.head.bytes().len() + response.body.wire.len()
}

fn size_of_outcome(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Answered(answer) => size_of_answer(&answer.response),
        Outcome::Failed(_) | Outcome::Skipped(_) => 0,
    }
}

/// How often the inboxes are emptied; each looks for a nudge when it is half full.
const EVERY: Duration = Duration::from_millis(50);

/// So much may wait in each inbox.
const INBOX_BYTES: usize = 32 << 20;

/// So many answers are worked off before others may read the results.
const AT_A_TIME: usize = 64;

/// So many requests may wait for an answer, of so many bytes in all, and for so long.
const MOST_WAITING: usize = 1 << 16;
const WAITING_BYTES: usize = 64 << 20;
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// So many endpoints are told apart.
const MOST_ENDPOINTS: usize = 127;
