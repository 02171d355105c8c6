//! `replay`: files → reader thread → one engine for each target.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crossbeam_channel::{Receiver, bounded};
use tokio::sync::watch;

use super::input::Input;
use super::lookahead::{Ahead, Lookahead};
use super::losses::LossWatch;
use super::mirror::{Observer, start_engine};
use super::signals::StopSignals;
use super::{Finished, stop_at_once};
use crate::account::{Account, Counter, Reason, Stage};
use crate::admin::Readiness;
use crate::cli::replay::Job;
use crate::metrics::Metrics;
use crate::progress::{Progress, Screen};
use crate::replay::{Engine, EngineHandle, Feeder, TargetState};
use crate::traffic::Traffic;

/// Runs `shadowtap replay` to the end of the files, or until a signal.
///
/// # Errors
/// When a file does not open, or a target does not resolve.
pub fn run(job: Job, screen: &Screen) -> anyhow::Result<Finished> {
    super::runtime()?.block_on(replay(job, screen))
}

async fn replay(job: Job, screen: &Screen) -> anyhow::Result<Finished> {
    let mut signals = StopSignals::new().context("taking over signals")?;
    let names: Vec<String> = job
        .targets
        .iter()
        .map(|config| config.target.to_string())
        .collect();
    let (mut metrics, registry) = Metrics::new(&names);
    let mut readiness = Readiness::default();
    let resolving = readiness.latch("no target has resolved");
    super::serve_admin(job.admin, registry, readiness).await?;
    let input = Input::open(&job.files, job.tap)?;
    let nobody: Observer = Arc::new(|_| {});
    let mut engines = Vec::new();
    for (config, metrics) in job.targets.into_iter().zip(metrics.targets()) {
        let name = config.target.to_string();
        let engine = start_engine(config, metrics.clone(), Arc::clone(&nobody))
            .with_context(|| format!("--to {name}"))?;
        engines.push((name, engine));
    }
    for (name, engine) in &engines {
        tokio::select! {
            resolved = resolve(name, engine) => resolved?,
            signal = signals.recv() => bail!("{signal} before the first request"),
        }
    }
    drop(resolving);

    let traffic = job.traffic;
    let mut progress = Progress::files(screen, input.size());
    let feeders = engines.iter().map(|(_, engine)| engine.feeder()).collect();
    let handles: Vec<_> = engines.iter().map(|(_, engine)| engine.handle()).collect();
    let (read, so_far) = watch::channel((Account::new(), 0));
    let (open, stopped) = bounded(0);
    let mut open = Some(open);
    let reader = thread::Builder::new()
        .name("read".to_owned())
        .spawn(move || feed(input, feeders, &traffic, &stopped, &read))
        .context("starting a thread")?;
    let mut losses = LossWatch::new();
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    // The end of the files is no reason to hurry; a signal is.
    let mut grace = None;
    while !reader.is_finished() {
        tokio::select! {
            signal = signals.recv() => {
                stop(signal, &handles, job.grace, &mut grace);
                drop(open.take());
            }
            _ = beat.tick() => {}
        }
        let (mut account, position) = so_far.borrow().clone();
        for (handle, metrics) in handles.iter().zip(metrics.targets()) {
            let snapshot = handle.snapshot();
            metrics.publish(&snapshot);
            account.merge(&snapshot.account);
        }
        metrics.publish(&account);
        losses.look(&account);
        if progress.is_due() {
            progress.show(&account, Some(position));
        }
    }
    let mut stopping = tokio::task::spawn_blocking(move || {
        let (mut account, outcome) = match reader.join() {
            Ok(done) => done,
            Err(_) => (
                Account::new(),
                Err(anyhow::anyhow!("the reading thread panicked")),
            ),
        };
        let mut targets = Vec::new();
        for (name, engine) in engines {
            let snapshot = match grace {
                Some(deadline) => engine.drain(deadline.saturating_duration_since(Instant::now())),
                None => engine.finish(),
            };
            account.merge(&snapshot.account);
            targets.push(super::target_summary(name, snapshot));
        }
        let outcome = outcome.and_then(|()| answered_at_all(&account));
        Finished {
            account,
            targets,
            printed: false,
            outcome,
        }
    });
    // All is offered; what is under way may still be stopped.
    let finished = loop {
        tokio::select! {
            done = &mut stopping => break done.context("stopping")?,
            signal = signals.recv() => stop(signal, &handles, job.grace, &mut grace),
        }
    };
    drop(progress);
    metrics.publish(&finished.account);
    Ok(finished)
}

/// A replay that found nothing to send is worth a word; one that nobody answered has failed.
fn answered_at_all(account: &Account) -> anyhow::Result<()> {
    let offered = account.get(Counter::ReplaysOffered);
    let by_choice: u64 = Reason::ALL
        .iter()
        .filter(|reason| reason.stage() == Stage::Replay && reason.intentional())
        .map(|&reason| account.dropped(reason))
        .sum();
    if offered == 0 {
        tracing::warn!(
            "there was no whole request to send; 'shadowtap inspect' shows what is in the files"
        );
    } else if account.get(Counter::ReplaysAnswered) == 0 && offered > by_choice {
        bail!("none of the {} requests was answered", offered - by_choice);
    }
    Ok(())
}

/// At the first signal, lets the engines go on for `grace`; at the second, ends the process.
fn stop(
    signal: &'static str,
    handles: &[EngineHandle],
    grace: Duration,
    deadline: &mut Option<Instant>,
) {
    if deadline.is_some() {
        stop_at_once(signal);
    }
    tracing::info!(
        signal,
        ?grace,
        "stopping; the same signal again stops at once"
    );
    *deadline = Some(Instant::now() + grace);
    for handle in handles {
        handle.stop(grace);
    }
}

/// Waits until the target has an address.
async fn resolve(name: &str, engine: &Engine) -> anyhow::Result<()> {
    loop {
        match engine.handle().target_state() {
            TargetState::Resolved(_) => return Ok(()),
            TargetState::Unresolved(error) => bail!("--to {name}: {error}"),
            TargetState::Asking => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Offers every request of `input` to every engine as `traffic` has it, when it is due, until the end or until `stopped` closes.
fn feed(
    mut input: Input,
    mut feeders: Vec<Feeder>,
    traffic: &Traffic,
    stopped: &Receiver<()>,
    publish: &watch::Sender<(Account, u64)>,
) -> (Account, anyhow::Result<()>) {
    let mut outcome = Ok(());
    let mut published = Instant::now();
    let mut ahead = Lookahead::new(traffic.on_status().is_some());
    loop {
        match ahead.next(&mut input) {
            Ok(Some(Ahead::Request(request, status))) => {
                if stopped
                    .try_recv()
                    .is_err_and(|error| error.is_disconnected())
                {
                    break;
                }
                super::offer(&request, status, request.last_byte, traffic, &mut feeders);
            }
            Ok(Some(Ahead::Closed(connection))) => {
                for feeder in &mut feeders {
                    feeder.closed(connection);
                }
            }
            Ok(None) => break,
            Err(error) => outcome = Err(error),
        }
        if published.elapsed() >= PUBLISH_EVERY {
            published = Instant::now();
            publish.send_replace((input.account(), input.position()));
        }
    }
    for feeder in &mut feeders {
        feeder.flush();
    }
    (input.finish(), outcome)
}

/// How often the account is renewed for those who watch.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
