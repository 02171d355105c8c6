//! Version 1's outgoing calls, watched beside its requests and told to a mock.
//!
//! ```text
//!                     forward thread                     feed thread
//!  capture ─► events ─► Learner: whose call is it? ──news──► Feed: batches, POST /mock/feed ──► mock
//!                         └► version 1's requests go on to the engines         └► side effects, settled by the mock
//! ```

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ahash::{AHashMap, AHashSet};
use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::{mpsc, watch};

use super::compare::Comparing;
use super::feed::{News, Taken};
use super::live::{self, Batch};
use super::observer::{Observation, Observer};
use crate::account::{Account, Counter, Reason};
use crate::capture::live::LiveConfig;
use crate::compare::Endpoints;
use crate::exchange::{Event, ExchangeId, Joiner};
use crate::judge::{
    self, Completeness, Decision, Judge, LatencyMargin, Tally, Tolerances, Trial, Verdict,
};
use crate::mock::call::trace_id;
use crate::mock::causality::{Causes, Owner};
use crate::mock::shadow::Settled;
use crate::replay::{Outcome, Replay, Target};
use crate::tap::WatchedEnd;

/// What is watched of version 1's outgoing calls.
#[derive(Clone, Debug)]
pub struct EgressConfig {
    /// Whom it calls; at least one.
    pub ends: Vec<Called>,
    /// The mock that is told.
    pub to_mock: Option<Target>,
}

/// Somebody whom version 1 calls: `payment:80`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Called(Target);

impl FromStr for Called {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains("://") || text.contains('/') {
            return Err(format!(
                "'{text}' is not HOST:PORT, such as payment:80; TLS cannot be read"
            ));
        }
        let target: Target = format!("http://{text}")
            .parse()
            .map_err(|error| format!("'{text}' is not HOST:PORT: {error}"))?;
        Ok(Self(target))
    }
}

impl fmt::Display for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.host(), self.0.port())
    }
}

/// The addresses of those whom version 1 calls.
#[derive(Clone)]
pub struct Addresses {
    /// As they are now, and were when last asked for.
    pub now: watch::Receiver<HashSet<SocketAddr>>,
    /// All that there ever were: what goes there is no request to version 1.
    ever: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl Addresses {
    /// Asks for the addresses, and goes on asking every half minute; needs a tokio runtime that goes on running.
    pub async fn resolve(ends: &[Called]) -> Self {
        let ever = Arc::new(Mutex::new(HashSet::new()));
        let first = ask(ends, &ever).await;
        let (publish, now) = watch::channel(first.clone());
        let ends = ends.to_vec();
        let all = Arc::clone(&ever);
        tokio::spawn(async move {
            let mut before = first;
            loop {
                let pause = if before.is_empty() { RETRY } else { FRESH };
                tokio::time::sleep(pause).await;
                let found = ask(&ends, &all).await;
                // A connection may outlive the name's change.
                let both: HashSet<SocketAddr> = found.union(&before).copied().collect();
                let changed = publish.send_if_modified(|now| {
                    let is_new = *now != both;
                    now.clone_from(&both);
                    is_new
                });
                if changed {
                    tracing::info!(addresses = ?both, "outgoing calls to these are watched");
                }
                if !found.is_empty() {
                    before = found;
                }
            }
        });
        Self { now, ever }
    }

    fn were_ever(&self, address: SocketAddr) -> bool {
        let ever = self.ever.lock().unwrap_or_else(PoisonError::into_inner);
        ever.contains(&address)
    }
}

async fn ask(ends: &[Called], ever: &Mutex<HashSet<SocketAddr>>) -> HashSet<SocketAddr> {
    let mut found = HashSet::new();
    for end in ends {
        match end.0.resolve_once(PATIENCE).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => tracing::warn!("--learn-egress {end}: {}; asking again", error.cause),
        }
    }
    let mut ever = ever.lock().unwrap_or_else(PoisonError::into_inner);
    ever.extend(&found);
    found
}

/// Makes the kernel's filter let the calls through; which of them are watched is told by their addresses.
pub fn widen(live: &mut LiveConfig, ends: &[Called]) {
    // Without ports, everything is captured anyway.
    if live.ends.is_empty() {
        return;
    }
    for end in ends {
        let end = WatchedEnd {
            address: None,
            port: end.0.port(),
        };
        if !live.ends.contains(&end) {
            live.ends.push(end);
        }
    }
}

/// What a mirror does about version 1's outgoing calls.
pub struct Egress {
    addresses: Addresses,
    feed: Option<Feed>,
    publish: Option<watch::Sender<Account>>,
    learnt: watch::Receiver<Account>,
}

impl Egress {
    /// Asks for the addresses of those whom version 1 calls, and starts to tell the mock; needs a tokio runtime that
    /// goes on running.
    ///
    /// # Errors
    /// When the system gives no thread, or no HTTP client.
    pub async fn start(
        config: &EgressConfig,
        comparing: Option<Comparing>,
    ) -> anyhow::Result<Self> {
        let feed = config.to_mock.as_ref();
        let feed = feed.map(|mock| Feed::start(mock, comparing)).transpose()?;
        let (publish, learnt) = watch::channel(Account::new());
        Ok(Self {
            addresses: Addresses::resolve(&config.ends).await,
            feed,
            publish: Some(publish),
            learnt,
        })
    }

    /// The addresses, for the capture.
    #[must_use]
    pub fn called(&self) -> live::Called {
        self.addresses.now.clone()
    }

    /// An observer that tells the mock of replays too.
    #[must_use]
    pub fn observer(&self, observer: &Observer) -> Observer {
        let observer = Arc::clone(observer);
        let Some(feed) = self.feed.as_ref().map(Feed::handle) else {
            return observer;
        };
        Arc::new(move |observation| {
            if let Observation::Replayed(replay) = observation {
                feed.replayed(replay);
            }
            observer(observation);
        })
    }

    /// What looks for calls in what was captured; `capture` tells what was lost. There is one.
    pub fn calls(&mut self, capture: watch::Receiver<Account>) -> Option<Calls> {
        let handle = self.feed.as_ref().map(Feed::handle);
        Some(Calls {
            learner: Learner::new(self.addresses.clone(), handle),
            capture,
            publish: self.publish.take()?,
        })
    }

    /// What was counted so far.
    #[must_use]
    pub fn account(&self) -> Account {
        let mut account = self.learnt.borrow().clone();
        if let Some(feed) = &self.feed {
            account.merge(&feed.handle.account());
        }
        account
    }

    /// Tells the mock what waits, until `deadline`; the account.
    #[must_use]
    pub fn stop(self, deadline: Instant) -> Account {
        let mut account = self.learnt.borrow().clone();
        if let Some(feed) = self.feed {
            let shared = Arc::clone(&feed.handle.shared);
            account.merge(&feed.stop(deadline));
            let tally = shared.with(|state| state.judge.tally().clone());
            if tally.requests() > 0 {
                let verdict = verdict_of(&tally);
                tracing::info!(
                    verdict = %verdict.verdict,
                    "the side effects of version 2: {}",
                    verdict.reasons.join("; ")
                );
            }
        }
        account
    }
}

/// The verdict over side effects alone. What was not seen of them is not in the tally.
fn verdict_of(tally: &Tally) -> Verdict {
    judge::verdict(tally, &Tolerances::default(), &Completeness::default())
}

/// Takes version 1's outgoing calls out of what was captured.
pub struct Calls {
    learner: Learner,
    capture: watch::Receiver<Account>,
    publish: watch::Sender<Account>,
}

impl Calls {
    /// Takes the events of outgoing calls out of a batch: these are never replayed.
    pub fn take_from(&mut self, batch: &mut Batch) {
        self.learner.note_losses(&self.capture.borrow());
        batch.retain(|event| !self.learner.captured(event));
        self.publish.send_replace(self.learner.account().clone());
    }

    /// The capture has ended.
    pub fn finish(mut self) {
        self.learner.finish();
        self.publish.send_replace(self.learner.account().clone());
    }
}

/// Finds version 1's outgoing calls among the events of a capture, and tells whose they are.
pub struct Learner {
    addresses: Addresses,
    joiner: Joiner,
    calls: AHashMap<ExchangeId, Vec<u64>>,
    open: AHashSet<ExchangeId>,
    endpoints: Endpoints,
    causes: Causes<u64>,
    feed: Option<FeedHandle>,
    account: Account,
    /// What the capture had lost when last asked.
    lost: u64,
}

impl Learner {
    /// One that has seen nothing; without a feed it only counts.
    #[must_use]
    pub fn new(addresses: Addresses, feed: Option<FeedHandle>) -> Self {
        Self {
            addresses,
            joiner: Joiner::new(WAITING_CALLS),
            calls: AHashMap::new(),
            open: AHashSet::new(),
            endpoints: Endpoints::new(Vec::new(), MOST_ENDPOINTS),
            causes: Causes::default(),
            feed,
            account: Account::new(),
            lost: 0,
        }
    }

    /// Holds the capture's account against what it was: what was not captured may have been a call.
    pub fn note_losses(&mut self, capture: &Account) {
        let lost = [
            Reason::KernelBufferFull,
            Reason::InterfaceDropped,
            Reason::QueueFull,
            Reason::ConnectionShed,
        ];
        let lost = lost.iter().map(|reason| capture.dropped(*reason)).sum();
        if std::mem::replace(&mut self.lost, lost) != lost {
            self.tell(News::Lost { of: Vec::new() });
        }
    }

    /// What was counted beside what the feed counts.
    #[must_use]
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// Looks at an event; `true` if it is of an outgoing call, and so none of version 1's requests.
    pub fn captured(&mut self, event: &Event) -> bool {
        match event {
            Event::Request(request) if self.addresses.were_ever(request.endpoints.server) => {
                let trace = trace_id(request.head.fields());
                let connection = Some(request.connection.0);
                let owners = match self.causes.owner(trace.as_deref(), connection) {
                    Owner::Known(one) => vec![one],
                    Owner::OneOf(several) => several,
                    Owner::Nobody => Vec::new(),
                };
                self.calls.insert(request.id, owners);
                let pushed_out = self.joiner.push(event.clone());
                self.made(pushed_out);
                true
            }
            Event::Request(request) => {
                if request.completeness.is_whole() {
                    let trace = trace_id(request.head.fields());
                    self.causes.begin(request.id.0, trace.clone());
                    self.open.insert(request.id);
                    let endpoint = self.endpoints.name(request).to_string();
                    self.tell(News::Begin {
                        exchange: request.id.0,
                        endpoint,
                        trace: trace.as_deref().map(str::to_owned),
                    });
                }
                false
            }
            Event::Response { id, .. } | Event::Unanswered { id, .. } => {
                if self.calls.contains_key(id) {
                    let exchange = self.joiner.push(event.clone());
                    self.made(exchange);
                    return true;
                }
                if self.open.remove(id) {
                    self.causes.end(&id.0);
                    self.tell(News::Done { exchange: id.0 });
                }
                false
            }
            Event::Orphan { endpoints, .. } => {
                let is_call = self.addresses.were_ever(endpoints.server);
                if is_call {
                    self.account.count(Counter::EgressCalls);
                    self.account.drop(Reason::EgressIncomplete);
                    self.tell(News::Lost { of: Vec::new() });
                }
                is_call
            }
            Event::Closed { .. } => false,
        }
    }

    /// Tells what still waits for its answer.
    pub fn finish(&mut self) {
        let joiner = std::mem::replace(&mut self.joiner, Joiner::new(1));
        for exchange in joiner.finish() {
            self.made(Some(exchange));
        }
    }

    fn made(&mut self, exchange: Option<crate::exchange::Exchange>) {
        let Some(exchange) = exchange else { return };
        let Some(request) = &exchange.request else {
            return;
        };
        let of = self.calls.remove(&request.id).unwrap_or_default();
        self.account.count(Counter::EgressCalls);
        if !request.completeness.is_whole() {
            self.account.drop(Reason::EgressIncomplete);
            if !of.is_empty() {
                self.tell(News::Lost { of });
            }
            return;
        }
        let Some(feed) = &self.feed else {
            self.account.drop(Reason::NoMock);
            return;
        };
        let news = News::Call {
            exchange: Box::new(exchange),
            of,
        };
        if !feed.tell(news) {
            self.account.drop(Reason::EgressQueueFull);
        }
    }

    fn tell(&self, news: News) {
        if let Some(feed) = &self.feed {
            feed.tell(news);
        }
    }
}

/// A way to tell the mock something.
#[derive(Clone)]
pub struct FeedHandle {
    news: mpsc::Sender<News>,
    shared: Arc<Shared>,
}

impl FeedHandle {
    /// Tells; `false` if the queue is full. That news were lost is told before the next that find room.
    pub fn tell(&self, news: News) -> bool {
        let lost = News::Lost { of: Vec::new() };
        self.shared.with(|state| {
            if state.has_lost && self.news.try_send(lost).is_ok() {
                state.has_lost = false;
            }
            let was_told = !state.has_lost && self.news.try_send(news).is_ok();
            state.has_lost |= !was_told;
            was_told
        })
    }

    /// Tells what became of a replay.
    pub fn replayed(&self, replay: &Replay) {
        self.tell(News::Replayed {
            exchange: replay.request.id.0,
            answered: matches!(replay.outcome, Outcome::Answered(_)),
        });
    }

    /// What the feed has counted.
    #[must_use]
    pub fn account(&self) -> Account {
        self.shared.with(|state| state.account.clone())
    }
}

struct State {
    account: Account,
    judge: Judge,
    /// Whether news found no room, and nothing has been told since.
    has_lost: bool,
}

struct Shared(Mutex<State>);

impl Shared {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The thread that tells a mock.
pub struct Feed {
    thread: JoinHandle<()>,
    handle: FeedHandle,
    deadline: Sender<Instant>,
}

impl Feed {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread, or no HTTP client.
    pub fn start(mock: &Target, comparing: Option<Comparing>) -> anyhow::Result<Self> {
        let (send, news) = mpsc::channel(QUEUED_NEWS);
        let (deadline, stop_by) = bounded(1);
        let shared = Arc::new(Shared(Mutex::new(State {
            account: Account::new(),
            judge: Judge::new(LatencyMargin::default()),
            has_lost: false,
        })));
        let mut feeding = Feeding {
            url: format!("{}/mock/feed?sidecar={}", mock, sidecar_name()),
            client: super::http_client().context("--to-mock")?,
            news,
            stop_by,
            shared: Arc::clone(&shared),
            comparing,
            has_warned: false,
            run: String::new(),
            after: 0,
            unsettled: 0,
            has_lost: false,
            is_reached: true,
        };
        let runtime = super::runtime()?;
        let thread = thread::Builder::new()
            .name("feed".to_owned())
            .spawn(move || runtime.block_on(feeding.run()))
            .context("starting a thread")?;
        Ok(Self {
            thread,
            handle: FeedHandle { news: send, shared },
            deadline,
        })
    }

    /// A way to tell it something; nothing is told any more once [`Self::stop`] is called.
    #[must_use]
    pub fn handle(&self) -> FeedHandle {
        self.handle.clone()
    }

    /// Tells what waits and asks for what is not settled, until `deadline`; the account.
    pub fn stop(self, deadline: Instant) -> Account {
        let Self {
            thread,
            handle,
            deadline: send,
        } = self;
        let _ = send.send(deadline);
        let shared = handle.shared;
        if thread.join().is_err() {
            tracing::error!("the feed thread panicked");
        }
        shared.with(|state| state.account.clone())
    }
}

/// What the feed's thread owns.
struct Feeding {
    url: String,
    client: reqwest::Client,
    news: mpsc::Receiver<News>,
    stop_by: Receiver<Instant>,
    shared: Arc<Shared>,
    /// The judge of version 2's answers, who is told as well.
    comparing: Option<Comparing>,
    /// Whether it was said that version 2 is rejected.
    has_warned: bool,
    /// The mock's run that answered last.
    run: String,
    /// The last result that came.
    after: u64,
    /// Results that the mock has not told yet.
    unsettled: u64,
    /// Whether a batch was lost that the mock was not told of.
    has_lost: bool,
    is_reached: bool,
}

impl Feeding {
    async fn run(&mut self) {
        loop {
            let mut batch = Vec::new();
            let mut calls = 0;
            let mut is_closed = false;
            let first = tokio::time::timeout(HEARTBEAT, self.news.recv()).await;
            if self.has_lost {
                News::Lost { of: Vec::new() }.append(&mut batch);
            } else if first.is_err() && self.shared.with(|it| std::mem::take(&mut it.has_lost)) {
                // Nothing else has found its way in since.
                News::Lost { of: Vec::new() }.append(&mut batch);
            }
            match first {
                // Whoever had something to tell has told it by then.
                Err(_) => is_closed = !self.stop_by.is_empty(),
                Ok(None) => is_closed = true,
                Ok(mut next) => {
                    while let Some(news) = next {
                        calls += u64::from(matches!(news, News::Call { .. }));
                        news.append(&mut batch);
                        next = if batch.len() < MOST_AT_ONCE {
                            self.news.try_recv().ok()
                        } else {
                            None
                        };
                    }
                }
            }
            let is_heartbeat = batch.is_empty();
            if self.post(batch).await {
                self.has_lost = false;
                self.shared
                    .with(|state| state.account.add(Counter::EgressFed, calls));
            } else {
                self.has_lost |= !is_heartbeat;
                self.shared
                    .with(|state| state.account.drop_n(Reason::MockUnreachable, calls));
            }
            if is_closed {
                break;
            }
        }
        // The mock settles an exchange a while after both versions are done with it.
        let deadline = self.stop_by.try_recv().unwrap_or_else(|_| Instant::now());
        while self.unsettled > 0 && self.is_reached && Instant::now() < deadline {
            tokio::time::sleep(HEARTBEAT).await;
            self.post(Vec::new()).await;
        }
    }

    /// Posts a batch; tries again as long as the mock cannot have got it.
    async fn post(&mut self, batch: Vec<u8>) -> bool {
        let mut pause = Duration::from_millis(50);
        let began = Instant::now();
        loop {
            let url = format!("{}&after={}", self.url, self.after);
            let sent = self.client.post(url).body(batch.clone()).send().await;
            let outcome = match sent {
                Ok(answer) if answer.status().is_success() => answer.bytes().await,
                Ok(answer) => {
                    self.say(&format!("it answered {}", answer.status()));
                    return false;
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(answer) => {
                    match serde_json::from_slice::<Taken>(&answer) {
                        Ok(taken) => self.taken(taken),
                        Err(error) => {
                            self.say(&format!("its answer is not a mock's: {error}"));
                            return false;
                        }
                    }
                    if !self.is_reached {
                        tracing::info!("the mock is reached again");
                    }
                    self.is_reached = true;
                    return true;
                }
                Err(error) if error.is_connect() && began.elapsed() < PATIENCE => {
                    self.say(&format!("{:#}", anyhow::Error::from(error)));
                    let is_stopping = !self.stop_by.is_empty();
                    if batch.is_empty() || is_stopping {
                        return false;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY);
                }
                Err(error) => {
                    self.say(&format!("{:#}", anyhow::Error::from(error)));
                    return false;
                }
            }
        }
    }

    /// Says once that the mock cannot be told.
    fn say(&mut self, why: &str) {
        if std::mem::replace(&mut self.is_reached, false) {
            tracing::warn!("the mock cannot be told what version 1 called: {why}; trying again");
        }
    }

    fn taken(&mut self, taken: Taken) {
        if let Some(wrong) = &taken.wrong {
            tracing::warn!("the mock refused {} pieces of news: {wrong}", taken.refused);
        }
        if self.run != taken.run {
            if !self.run.is_empty() {
                tracing::warn!("the mock has started anew and has forgotten what it was told");
                self.after = 0;
                self.run = taken.run;
                return;
            }
            self.run = taken.run;
        }
        self.unsettled = taken.unsettled;
        for settled in &taken.settled {
            self.after = self.after.max(settled.number);
            self.shared.with(|state| {
                for call in &settled.calls {
                    let account = &mut state.account;
                    account.add(Counter::SideEffectsSame, call.same);
                    account.add(Counter::SideEffectsMissing, call.missing);
                    account.add(Counter::SideEffectsExtra, call.extra);
                    account.add(Counter::SideEffectsChanged, call.changed);
                }
            });
            self.judge(settled);
        }
        if !taken.settled.is_empty() && !self.has_warned {
            let tally = self.shared.with(|state| state.judge.tally().clone());
            let verdict = verdict_of(&tally);
            if verdict.verdict == Decision::Reject {
                self.has_warned = true;
                tracing::warn!(
                    "version 2 is rejected for its side effects: {}",
                    verdict.reasons.join("; ")
                );
            }
        }
    }

    /// Tells the judge of one exchange's side effects.
    fn judge(&self, settled: &Settled) {
        let Some((endpoint, differing)) = settled.as_trial() else {
            return;
        };
        let trial = Trial {
            endpoint: &endpoint,
            differing: &differing,
            v1_failed: false,
            v2_failed: false,
            latency: None,
            reference: None,
        };
        if let Some(comparing) = &self.comparing {
            comparing.judge(&trial);
        }
        self.shared.with(|state| state.judge.add(&trial));
    }
}

/// The name of this run of this sidecar: the host's, and something that no other run has.
fn sidecar_name() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    let host: String = host
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        .take(63)
        .collect();
    let host = if host.is_empty() {
        "sidecar".to_owned()
    } else {
        host
    };
    let now = super::now_minus(Duration::ZERO).as_nanos();
    format!("{host}-{:x}-{now:x}", std::process::id())
}

/// How long addresses are used before they are asked for again.
const FRESH: Duration = Duration::from_secs(30);

/// How soon they are after a failure, and how often the mock is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a name may take to resolve, and a mock to come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the mock is asked for side effects when there are no news.
const HEARTBEAT: Duration = Duration::from_millis(200);

/// Calls that may wait for their answers.
const WAITING_CALLS: usize = 1 << 14;

/// Endpoints of version 1 with names of their own.
const MOST_ENDPOINTS: usize = 1000;

/// News that may wait.
const QUEUED_NEWS: usize = 1 << 14;

/// Bytes of news that are told at once.
const MOST_AT_ONCE: usize = 1 << 20;
