//! `mirror`: capture workers → bounded channel → forwarder → one engine for each target.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::Receiver;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::compare::{Comparer, Comparing, completeness};
use super::egress::{Calls, Egress};
use super::guard::{self, Guards};
use super::live::{self, Batch, Packets, Stop, WhenDropped, Workers};
use super::losses::LossWatch;
use super::middleware::{self, Passage, Passed, Way};
use super::observer::{Observation, Observer};
use super::outlets::Outlets;
use super::restraint::Restraint;
use super::signals::StopSignals;
use super::{Compared, Finished, runtime, target_summary};
use crate::account::Account;
use crate::admin::verdict::{Findings, Source};
use crate::admin::{Latch, Readiness};
use crate::capture::live::{Live, give_up_capabilities};
use crate::cli::mirror::Job;
use crate::cli::options::CompareJob;
use crate::exchange::{Event, Pipelines};
use crate::judge::{Recent, Verdict};
use crate::metrics::{Metrics, ReplayOutcome, TargetMetrics};
use crate::middleware::Patience;
use crate::progress::{Progress, Screen};
use crate::replay::{
    Engine, EngineHandle, Host, Outcome, Pipelining, Replay, ReplayConfig, Scheme, WhenFull,
};
use crate::report::TargetSummary;
use crate::sandbox::{Needs, Sandbox};
use crate::tap::{Answers, TapConfig};

/// A running mirror.
pub struct Mirror {
    workers: Workers,
    stop: Stop,
    forwarder: JoinHandle<()>,
    passage: Option<Passage>,
    engines: Vec<(String, Engine)>,
    handles: Vec<EngineHandle>,
    comparer: Option<Comparer>,
    recent: Mutex<Recent>,
    /// What the capture counts for each request in a batch that nobody took.
    dropped: u64,
    guards: Arc<Guards>,
    egress: Option<Egress>,
    /// Dropped when a target has resolved.
    resolving: Option<Latch>,
}

impl Mirror {
    /// Opens the capture and starts to mirror. Returns once packets are captured.
    ///
    /// # Errors
    /// When the capture does not open, or the targets' settings cannot be used.
    pub async fn start(job: &Job, metrics: &Metrics, readiness: Latches) -> anyhow::Result<Self> {
        guard::refuse_own_addresses(&job.targets, &job.tap.watch)?;
        let live = Live::open(&job.live)?;
        give_up_capabilities();
        readiness.sandbox.enter(&Needs {
            programs: job.middleware.is_some(),
            ..Needs::default()
        });
        let (bridge, opened) = job
            .middleware
            .as_ref()
            .map(|command| middleware::open(command, Patience::None))
            .transpose()?
            .unzip();
        let nobody: Observer = Arc::new(|_| {});
        let observer = match &bridge {
            Some(bridge) => bridge.observer(&nobody),
            None => nobody,
        };
        let comparer = start_comparer(job.compare.as_ref(), WhenFull::DropNewest)?;
        let comparing = comparer.as_ref().map(Comparer::comparing);
        if job.compare.as_ref().is_some_and(|it| it.settings.untimed) {
            tracing::info!(
                "how long version 2 takes is not judged: behind a mock it waits until version 1 has made its own calls"
            );
        }
        let mut egress = match &job.egress {
            Some(config) => Some(Egress::start(config, comparing).await?),
            None => None,
        };
        let observer = match &egress {
            Some(egress) => egress.observer(&observer),
            None => observer,
        };
        let configs: Vec<_> = job.targets.iter().map(guarded).collect();
        let engines = start_engines(&configs, metrics, &observer, comparer.as_ref())?;
        super::say_what_is_captured(&job.live, &live);
        let handles: Vec<_> = engines.iter().map(|(_, engine)| engine.handle()).collect();
        let guards = Guards::new(&configs, &handles, readiness.pauses, &job.tap.watch);
        let mut outlets = outlets(&engines, comparer.as_ref(), bridge.is_none());
        let traffic = job.traffic.clone();
        let comparing = comparer.as_ref().map(Comparer::comparing);
        let (way, passage) = match (bridge, opened) {
            (Some(bridge), Some(opened)) => {
                let passage = opened.offer_to(move |passed| {
                    passed.offer(&traffic, &mut outlets);
                    outlets.flush();
                })?;
                (Way::Through(bridge, comparing.clone()), Some(passage))
            }
            _ => (Way::Straight(Box::new(outlets), Box::new(traffic)), None),
        };
        let dropped = match passage {
            None if !job.traffic.split => engines.len() as u64,
            _ => 1,
        };
        let when_dropped = match passage {
            Some(_) => WhenDropped::Middleware,
            None => WhenDropped::Replays(dropped),
        };
        let called = egress.as_ref().map(Egress::called);
        let keeps_pipelines = configs.iter().any(|it| it.pipelining == Pipelining::Keep);
        let tap = TapConfig {
            answers: Answers::wanted(
                comparer.is_some() || passage.is_some() || egress.is_some() || keeps_pipelines,
            ),
            ..job.tap.clone()
        };
        let (workers, stop) = live::start(
            live,
            &tap,
            Packets::Passing,
            when_dropped,
            called,
            Restraint::new(job.limits),
            readiness.capture,
        )?;
        let batches = workers.batches.clone();
        let counted = workers.first_account();
        let calls = egress.as_mut().and_then(|egress| egress.calls(counted));
        let looker = Arc::clone(&guards);
        let pipelines = keeps_pipelines.then(Pipelines::default);
        let forwarder = thread::Builder::new()
            .name("forward".to_owned())
            .spawn(move || {
                let comparing = comparing.as_ref();
                forward(
                    &batches, way, calls, &looker, &observer, comparing, pipelines,
                );
            })
            .context("starting a thread")?;
        Ok(Self {
            workers,
            stop,
            forwarder,
            passage,
            engines,
            handles,
            comparer,
            recent: Mutex::default(),
            dropped,
            guards,
            egress,
            resolving: Some(readiness.target),
        })
    }

    /// What was counted so far, by the capture and by the replays; how the targets are now goes into `metrics`.
    pub fn account(&self, metrics: &Metrics) -> Account {
        let mut account = self.captured();
        for (handle, metrics) in self.handles.iter().zip(metrics.targets()) {
            metrics.publish(&handle.condition());
            account.merge(&handle.account());
        }
        if let Some(comparer) = &self.comparer {
            account.merge(&comparer.comparing().account());
        }
        if let Some(egress) = &self.egress {
            account.merge(&egress.account());
        }
        account
    }

    /// What was counted before the replays: by the capture and by the middleware.
    fn captured(&self) -> Account {
        let mut account = self.workers.account();
        if let Some(passage) = &self.passage {
            account.merge(&passage.account());
        }
        account
    }

    /// What there is to see of both versions; `account` is what was counted so far.
    fn findings(&self, account: Account) -> Findings {
        let captured = (self.captured(), self.dropped);
        let judged = self.handles.first().map(EngineHandle::account);
        let mut findings = findings(self.comparer.as_ref(), &captured, judged.as_ref(), account);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        findings.completeness = recent.of(findings.completeness);
        findings
    }

    /// What the judge says so far; `None` where the answers are not compared.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let findings = self.findings(Account::new());
        Some(findings.comparing?.verdict(&findings.completeness))
    }

    /// Whether the capture still runs; it ends by itself only when it fails.
    #[must_use]
    pub fn is_capturing(&self) -> bool {
        !self.forwarder.is_finished()
    }

    /// Lets go of the latch on the targets once one of them has an address.
    pub fn note_resolved_targets(&mut self) {
        let resolved = |handle: &EngineHandle| handle.target_state().is_resolved();
        if self.resolving.is_some() && self.handles.iter().any(resolved) {
            self.resolving = None;
        }
    }

    /// Looks whether a target has become version 1 itself: to be called some ten times a second.
    pub fn guard(&self, metrics: &Metrics) {
        self.guards.beat(metrics.targets());
    }

    /// Stops capturing, gives the replays of what was captured until `grace` is over, and sums up.
    #[must_use]
    pub fn stop(self, grace: Duration) -> Finished {
        let deadline = Instant::now() + grace;
        drop(self.stop);
        let (mut account, mut outcome) = self.workers.join();
        if self.forwarder.join().is_err() {
            tracing::error!("the forwarding thread panicked");
        }
        if let Some(passage) = self.passage {
            let (passed, ended) = passage.finish(&self.handles, deadline);
            account.merge(&passed);
            outcome = outcome.and(ended);
        }
        let captured = (account.clone(), self.dropped);
        let mut targets = Vec::new();
        for (name, engine) in self.engines {
            let snapshot = engine.drain(deadline.saturating_duration_since(Instant::now()));
            account.merge(&snapshot.account);
            targets.push(target_summary(name, snapshot));
        }
        // Side effects are judged too.
        if let Some(egress) = self.egress {
            account.merge(&egress.stop(deadline));
        }
        let mut compared = finish_comparing(self.comparer, &captured, &targets, &mut account);
        if let Some(compared) = &mut compared {
            let mut recent = self
                .recent
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner);
            let all = std::mem::take(&mut compared.completeness);
            compared.completeness = recent.of(all);
        }
        Finished {
            account,
            targets,
            printed: false,
            compared,
            outcome,
        }
    }
}

/// Requests to a name wait until it is known where that leads; an address says it by itself.
fn guarded(config: &ReplayConfig) -> ReplayConfig {
    let is_name = matches!(config.target.host(), Host::Name(_));
    let is_probed = config.target.scheme() == Scheme::Http && config.marker.is_some();
    ReplayConfig {
        hold_new_addresses: is_name && is_probed,
        ..config.clone()
    }
}

/// What readiness waits for while a mirror starts.
pub struct Latches {
    capture: Latch,
    target: Latch,
    pauses: Vec<Latch>,
    /// Entered when the capture is open.
    sandbox: Sandbox,
}

impl Latches {
    /// Makes the latches of a mirror to so many targets.
    pub fn new(readiness: &mut Readiness, targets: usize, sandbox: Sandbox) -> Self {
        Self {
            capture: readiness.latch("the capture is not open"),
            target: readiness.latch("no target has resolved"),
            pauses: guard::pause_latches(readiness, targets),
            sandbox,
        }
    }
}

/// Runs `shadowtap mirror` until a signal or the end of the capture.
///
/// # Errors
/// What keeps it from starting.
pub fn run(job: Job, screen: &Screen, sandbox: Sandbox) -> anyhow::Result<Finished> {
    let names: Vec<String> = job
        .targets
        .iter()
        .map(|config| config.target.to_string())
        .collect();
    let (metrics, registry) = Metrics::new(&names);
    runtime()?.block_on(mirror(job, screen, sandbox, metrics, registry))
}

async fn mirror(
    job: Job,
    screen: &Screen,
    sandbox: Sandbox,
    mut metrics: Metrics,
    registry: Registry,
) -> anyhow::Result<Finished> {
    let mut signals = StopSignals::new().context("taking over signals")?;
    let mut readiness = Readiness::default();
    let latches = Latches::new(&mut readiness, job.targets.len(), sandbox.clone());
    let (publish, source) = source(job.compare.as_ref(), &job.targets);
    super::serve_admin(
        job.admin.as_ref(),
        registry,
        readiness,
        Some(source),
        &sandbox,
    )?;
    let mut mirror = Mirror::start(&job, &metrics, latches).await?;
    metrics.capturing(true);
    let mut progress = Progress::live(screen);
    let mut losses = LossWatch::new();
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            signal = signals.recv() => {
                tracing::info!(signal, grace = ?job.grace, "stopping; the same signal again stops at once");
                break;
            }
            _ = beat.tick() => {}
        }
        if !mirror.is_capturing() {
            break;
        }
        mirror.note_resolved_targets();
        mirror.guard(&metrics);
        let account = mirror.account(&metrics);
        metrics.publish(&account);
        if job.compare.is_some() || job.admin.is_some() {
            publish.send_replace(Some(mirror.findings(account.clone())));
        }
        losses.look(&account);
        if progress.is_due() {
            progress.show(&account, None);
        }
    }
    drop(progress);
    metrics.capturing(false);
    let grace = job.grace;
    let stopping = tokio::task::spawn_blocking(move || mirror.stop(grace));
    let finished = super::unless_signalled(stopping, &mut signals).await?;
    metrics.publish(&finished.account);
    Ok(finished)
}

/// Where the admin server learns what there is to see, and where it is told.
pub(super) fn source(
    job: Option<&CompareJob>,
    targets: &[ReplayConfig],
) -> (watch::Sender<Option<Findings>>, Source) {
    let (publish, findings) = watch::channel(None);
    let source = Source {
        tolerances: job.map(|job| job.settings.tolerances).unwrap_or_default(),
        target: targets.first().map(|config| config.target.to_string()),
        reveals: job.is_some_and(|job| job.settings.reveal),
        findings,
    };
    (publish, source)
}

/// What there is to see so far; see [`completeness`].
pub(super) fn findings(
    comparer: Option<&Comparer>,
    captured: &(Account, u64),
    judged: Option<&Account>,
    account: Account,
) -> Findings {
    let comparing = comparer.map(Comparer::comparing);
    let compared = comparing.as_ref().map(Comparing::account);
    let unsent = comparing.as_ref().map_or(0, Comparing::unsent);
    Findings {
        completeness: completeness(captured, judged, (&compared.unwrap_or_default(), unsent)),
        comparing,
        account,
    }
}

/// Starts to compare, if that is asked for.
pub(super) fn start_comparer(
    job: Option<&CompareJob>,
    when_full: WhenFull,
) -> anyhow::Result<Option<Comparer>> {
    job.map(|job| Comparer::start(job.settings.clone(), job.has_control, when_full))
        .transpose()
}

/// Starts the engines of all targets; their outcomes go to the metrics and to `observer`, those of the first target and of the
/// control also to whoever compares.
pub(super) fn start_engines(
    configs: &[ReplayConfig],
    metrics: &Metrics,
    observer: &Observer,
    comparer: Option<&Comparer>,
) -> anyhow::Result<Vec<(String, Engine)>> {
    let control = comparer
        .filter(|comparer| comparer.has_control())
        .map(|_| configs.len() - 1);
    let mut engines = Vec::new();
    for (index, (config, metrics)) in configs.iter().zip(metrics.targets()).enumerate() {
        let name = config.target.to_string();
        let is_control = control == Some(index);
        let comparing = comparer
            .filter(|_| index == 0 || is_control)
            .map(Comparer::comparing);
        let (metrics, observer) = (metrics.clone(), Arc::clone(observer));
        let config = ReplayConfig {
            notes_arrivals: comparing.is_some(),
            ..config.clone()
        };
        let engine = Engine::start(config, move |replay| {
            count(&metrics, &replay);
            observer(Observation::Replayed(&replay));
            match &comparing {
                Some(comparing) if is_control => comparing.control(replay),
                Some(comparing) => comparing.version2(replay),
                None => {}
            }
        })
        .with_context(|| {
            let flag = if is_control { "--control" } else { "--to" };
            format!("{flag} {name}")
        })?;
        engines.push((name, engine));
    }
    Ok(engines)
}

fn count(metrics: &TargetMetrics, replay: &Replay) {
    let (outcome, timings) = match &replay.outcome {
        Outcome::Answered(answer) => (
            ReplayOutcome::Answered(answer.response.head.status()),
            Some(&answer.timings),
        ),
        Outcome::Failed(_) => (ReplayOutcome::Failed, None),
        Outcome::Skipped(_) => (ReplayOutcome::Skipped, None),
    };
    metrics.replayed(outcome, timings);
}

/// The ways to all of them. Without `expects`, somebody else says which requests are awaited.
pub(super) fn outlets(
    engines: &[(String, Engine)],
    comparer: Option<&Comparer>,
    expects: bool,
) -> Outlets {
    let feeders = engines.iter().map(|(_, engine)| engine.feeder()).collect();
    let has_control = comparer.is_some_and(Comparer::has_control);
    let comparing = comparer.filter(|_| expects).map(Comparer::comparing);
    Outlets::new(feeders, has_control, comparing)
}

/// Compares what is left, and adds to the account what was compared. `captured` is the account without the replays, and how
/// many of them it counts for a request in a batch that nobody took.
pub(super) fn finish_comparing(
    comparer: Option<Comparer>,
    captured: &(Account, u64),
    targets: &[TargetSummary],
    account: &mut Account,
) -> Option<Compared> {
    let comparer = comparer?;
    let comparing = comparer.finish();
    let compared = comparing.account();
    account.merge(&compared);
    let judged = targets.first().map(|target| &target.account);
    Some(Compared {
        completeness: completeness(captured, judged, (&compared, comparing.unsent())),
        comparing,
    })
}

/// Sends what the capture found on its way, a batch at a time, until the capture ends.
fn forward(
    batches: &Receiver<Batch>,
    mut way: Way,
    mut calls: Option<Calls>,
    guards: &Guards,
    observer: &Observer,
    comparing: Option<&Comparing>,
    mut pipelines: Option<Pipelines>,
) {
    for mut batch in batches {
        if let Some(calls) = &mut calls {
            calls.take_from(&mut batch);
        }
        for event in batch {
            observer(Observation::Captured(&event));
            let pipelined = pipelines.as_mut().is_some_and(|it| it.push(&event));
            match event {
                Event::Request(request) => {
                    guards.look(&request);
                    way.pass(Passed::Request(request, None, pipelined));
                }
                Event::Closed { connection } => way.pass(Passed::Closed(connection)),
                Event::Response { id, response } => {
                    if let Some(comparing) = comparing {
                        comparing.version1(id, Ok(response));
                    }
                }
                Event::Unanswered { id, why } => {
                    if let Some(comparing) = comparing {
                        comparing.version1(id, Err(why));
                    }
                }
                Event::Orphan { .. } => {}
            }
        }
        way.flush();
    }
    if let Some(calls) = calls {
        calls.finish();
    }
}
