//! Joins both versions' answers to each request, compares them, and tells the judge.
//!
//! ```text
//!  forward ─ expected, version 1's answers ─► Table: join by id ┬─ the same body ───────────► Results: differences ─► Judge,
//!  replay-N ─ outcomes of version 2 ────────►                   │                              ▲              account, examples
//!  replay-N ─ outcomes of the control ──────►                   └─ others ─► Inbox ─► compare ─┘
//! ```
//!
//! Whoever brings the last answer to a request compares, if all answers have the same body of few bytes: they are in the caches
//! of this very processor, and the memory goes back to where it came from. All others are left to the thread `compare`, since nobody who
//! replays may wait until a tree was read; it takes what is in the inbox twenty times a second, so that nobody is woken for a
//! single answer. What waits for the other version's answer is bounded; what is pushed out, and whatever else cannot be judged,
//! is counted at the stage `compare`.

mod examples;
mod inbox;
mod presence;
mod repeats;
mod results;
mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, bounded};

pub use self::examples::{Example, ShownBody, ShownDifference, ShownRequest, ShownResponse};
use self::inbox::Inbox;
pub(super) use self::repeats::{Before, Repeats};
pub use self::results::NO_ANSWER;
use self::results::Results;
use self::table::{Half, Table};
use crate::account::{Account, Counter, Reason, Stage};
use crate::compare::{Difference, DifferenceKind, FieldPattern, Route, Rules};
use crate::exchange::{ExchangeId, NoAnswer, Request, Response};
use crate::judge::{self, Completeness, LatencyMargin, Tally, Tolerances, Trial, Verdict};
use crate::replay::{Replay, WhenFull};
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
    has_control: bool,
    table: Mutex<Table>,
    results: Mutex<Results>,
    inbox: Inbox,
    redactor: Redactor,
    /// For the examples.
    of_examples: Redactor,
    tolerances: Tolerances,
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
        let redactor = Redactor::new(random_key()?, settings.redact.clone());
        let (nudge, nudged) = bounded(1);
        let (open, closed) = bounded(0);
        let comparing = Comparing(Arc::new(Common {
            has_control,
            table: Mutex::new(Table::new(has_control)),
            results: Mutex::new(Results::new(&settings, has_control)),
            inbox: Inbox::new(when_full, INBOX_BYTES, nudge),
            of_examples: if settings.reveal {
                redactor.clone().revealing()
            } else {
                redactor.clone()
            },
            redactor,
            tolerances: settings.tolerances,
        }));
        let common = Arc::clone(&comparing.0);
        let thread = thread::Builder::new()
            .name("compare".to_owned())
            .spawn(move || run(&common, &nudged, &closed))
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
        self.0.table().expect(Arc::clone(request));
    }

    /// Version 1's answer, or why none will come.
    pub fn version1(&self, id: ExchangeId, response: Result<Response, NoAnswer>) {
        let complete = self.0.table().version1(id, response);
        self.0.settle(complete);
    }

    /// What became of the replay to version 2.
    pub fn version2(&self, replay: Replay) {
        let (complete, back) = {
            let mut table = self.0.table();
            let complete = table.version2(replay);
            (complete, table.take_back())
        };
        if let Some(known) = back {
            tracing::info!(
                gone_after = known.gone_after,
                held_for = known.missing,
                "version 2 was gone and is back: it is taken for another one, and its counts begin anew"
            );
            self.0.results().begin_anew();
        }
        self.0.settle(complete);
    }

    /// What became of the replay to the control.
    pub fn control(&self, replay: Replay) {
        let complete = self.0.table().control(replay);
        self.0.settle(complete);
    }

    /// How many requests were not sent because version 2 kept failing, while it was not there at all.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.0.table().unsent
    }

    /// What was compared and what was not.
    #[must_use]
    pub fn account(&self) -> Account {
        // Before what was offered, so that no more is judged than that.
        let mut account = self.0.results().account.clone();
        account.merge(&self.0.table().account);
        account
    }

    /// What the judge has counted.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = self.0.results().judge.tally().clone();
        tally.presence = self.0.table().presence.known();
        tally
    }

    /// What the judge has counted of the version 2 that is there now: nothing while there is none, so that nobody takes the
    /// last one's verdict for the next one's.
    #[must_use]
    pub fn tally_of_the_present(&self) -> Tally {
        let tally = self.tally();
        if tally.presence.is_gone() {
            Tally {
                presence: tally.presence,
                ..Tally::new(tally.margin)
            }
        } else {
            tally
        }
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
    /// Judges what is complete: here and now, if that costs little and nobody else is at it.
    fn settle(&self, complete: Option<Half>) {
        let Some(half) = complete else {
            return;
        };
        if half.is_plain()
            && let Ok(mut results) = self.results.try_lock()
        {
            return results.settle(half);
        }
        if !self.inbox.put(half) {
            self.table().account.drop(Reason::CompareOverBudget);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much of the traffic was judged, from the accounts of the capture, of the version that is judged, and of comparing.
/// With the capture's account comes how many replays it counts for a request that the full queue behind it did not take, and with
/// that of comparing how many requests were [unsent](Comparing::unsent).
pub(super) fn completeness(
    (captured, dropped): &(Account, u64),
    judged: Option<&Account>,
    (compared, unsent): (&Account, u64),
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
    // Nothing is missing of a version 2 that is not there.
    lost.retain(|reason, count: &mut u64| {
        if *reason == Reason::BreakerOpen.name() {
            *count = count.saturating_sub(unsent);
        }
        *count > 0
    });
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

fn run(common: &Common, nudged: &Receiver<()>, closed: &Receiver<()>) {
    let mut complete = Vec::new();
    loop {
        let is_last = crossbeam_channel::select! {
            recv(closed) -> _ => true,
            recv(nudged) -> _ => false,
            default(EVERY) => false,
        };
        common.inbox.take(&mut complete);
        let mut table = common.table();
        complete.extend(if is_last {
            table.expire_all()
        } else {
            table.expire(Instant::now())
        });
        drop(table);
        // The results are let go of now and then, for whoever wants to read them.
        let mut complete = complete.drain(..).peekable();
        while complete.peek().is_some() {
            let mut results = common.results();
            for half in complete.by_ref().take(AT_A_TIME) {
                results.settle(half);
            }
        }
        if is_last {
            common.results().judge.finish();
            common.inbox.close();
            return;
        }
    }
}

/// How often the inbox is emptied; it looks for a nudge when it is half full.
const EVERY: Duration = Duration::from_millis(50);

/// So much may wait in the inbox.
const INBOX_BYTES: usize = 64 << 20;

/// So many requests are worked off before others may read the results.
const AT_A_TIME: usize = 64;
