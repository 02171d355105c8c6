//! `replay`: files → reader thread → one engine for each target.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crossbeam_channel::{Receiver, bounded};
use tokio::sync::watch;

use super::compare::{Comparer, Comparing};
use super::losses::LossWatch;
use super::middleware::{self, Bridge};
use super::mirror::{findings, finish_comparing, outlets, source, start_comparer, start_engines};
use super::observer::Observer;
use super::outlets::Outlets;
use super::playlist::{Played, Playlist};
use super::signals::StopSignals;
use super::{Finished, stop_at_once};
use crate::account::{Account, Counter, Reason, Stage};
use crate::admin::Readiness;
use crate::cli::replay::Job;
use crate::metrics::Metrics;
use crate::middleware::Patience;
use crate::progress::{Progress, Screen};
use crate::record::Writer;
use crate::replay::{Engine, EngineHandle, Pacer, Schedule, TargetState, WhenFull};
use crate::sandbox::{Needs, Sandbox};
use crate::time::Timestamp;
use crate::traffic::Traffic;

/// Runs `shadowtap replay` to the end of the files, or until a signal.
///
/// # Errors
/// When a file does not open, or a target does not resolve.
pub fn run(job: Job, screen: &Screen, sandbox: &Sandbox) -> anyhow::Result<Finished> {
    super::runtime()?.block_on(replay(job, screen, sandbox))
}

async fn replay(job: Job, screen: &Screen, sandbox: &Sandbox) -> anyhow::Result<Finished> {
    let mut signals = StopSignals::new().context("taking over signals")?;
    let names: Vec<String> = job
        .targets
        .iter()
        .map(|config| config.target.to_string())
        .collect();
    let (mut metrics, registry) = Metrics::new(&names);
    let mut readiness = Readiness::default();
    let resolving = readiness.latch("no target has resolved");
    let (publish, source) = source(job.compare.as_ref(), &job.targets);
    super::serve_admin(
        job.admin.as_ref(),
        registry,
        readiness,
        Some(source),
        sandbox,
    )?;
    let mut needs = Needs::reading(&job.program.files);
    if let Some(junit) = &job.junit {
        Writer::check_apart(junit, &job.program.files).context("--junit")?;
        // What cannot be written is said now, and not when everything has been sent.
        let created = std::fs::File::options()
            .append(true)
            .create(true)
            .open(junit);
        created.with_context(|| format!("--junit: cannot write {}", junit.display()))?;
        needs = needs.writing(junit);
    }
    needs.programs = job.middleware.is_some();
    sandbox.enter(&needs);
    let traffic = job.traffic;
    let nobody: Observer = Arc::new(|_| {});
    let (bridge, opened) = job
        .middleware
        .as_ref()
        .map(|command| middleware::open(command, Patience::Waits))
        .transpose()?
        .unzip();
    let observer = match &bridge {
        Some(bridge) => bridge.observer(&nobody),
        None => nobody,
    };
    let watching = bridge.as_ref().map(|_| Arc::clone(&observer));
    let answers = traffic.on_status().is_some();
    let playlist = Playlist::open(job.program, answers, job.compare.is_some(), watching)?;
    let comparer = start_comparer(job.compare.as_ref(), WhenFull::Block)?;
    let engines = start_engines(&job.targets, &metrics, &observer, comparer.as_ref())?;
    for (name, engine) in &engines {
        tokio::select! {
            resolved = resolve(name, engine) => resolved?,
            signal = signals.recv() => bail!("{signal} before the first request"),
        }
    }
    drop(resolving);

    let mut progress = Progress::files(screen, playlist.size());
    let straight = outlets(&engines, comparer.as_ref(), bridge.is_none());
    let handles: Vec<_> = engines.iter().map(|(_, engine)| engine.handle()).collect();
    let inside = bridge.clone();
    let passage = match opened {
        Some(opened) => {
            let its = traffic.clone();
            let mut outlets = outlets(&engines, comparer.as_ref(), false);
            Some(opened.offer_to(move |passed| {
                passed.offer(&its, &mut outlets);
                outlets.flush();
            })?)
        }
        None => None,
    };
    let comparing = comparer.as_ref().map(Comparer::comparing);
    let (read, so_far) = watch::channel((Account::new(), 0));
    let (open, stopped) = bounded(0);
    let mut open = Some(open);
    let reader = thread::Builder::new()
        .name("read".to_owned())
        .spawn(move || {
            let course = Course {
                pacer: Pacer::new(job.schedule),
                keeps_pauses: matches!(job.schedule, Schedule::Original { .. }),
                lasts: job.duration,
                ends: None,
            };
            feed(
                playlist,
                straight,
                &traffic,
                course,
                bridge.as_ref(),
                comparing.as_ref(),
                &stopped,
                &read,
            )
        })
        .context("starting a thread")?;
    let mut losses = LossWatch::new();
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    // The end of the files is no reason to hurry; a signal is.
    let mut grace = None;
    while !reader.is_finished() {
        tokio::select! {
            signal = signals.recv() => {
                stop(signal, &handles, inside.as_ref(), job.grace, &mut grace);
                drop(open.take());
            }
            _ = beat.tick() => {}
        }
        let (mut captured, position) = so_far.borrow().clone();
        if let Some(passage) = &passage {
            captured.merge(&passage.account());
        }
        let (mut account, mut judged) = (captured.clone(), None);
        for (handle, metrics) in handles.iter().zip(metrics.targets()) {
            metrics.publish(&handle.condition());
            let replayed = handle.account();
            account.merge(&replayed);
            judged.get_or_insert(replayed);
        }
        if let Some(comparer) = &comparer {
            account.merge(&comparer.comparing().account());
        }
        metrics.publish(&account);
        if job.admin.is_some() {
            let captured = (captured, 1);
            let so_far = findings(
                comparer.as_ref(),
                &captured,
                judged.as_ref(),
                account.clone(),
            );
            publish.send_replace(Some(so_far));
        }
        losses.look(&account);
        if progress.is_due() {
            progress.show(&account, Some(position));
        }
    }
    let watched = handles.clone();
    let mut stopping = tokio::task::spawn_blocking(move || {
        let (mut account, ended, mut outcome) = match reader.join() {
            Ok(done) => done,
            Err(_) => (
                Account::new(),
                Ended::OfItself,
                Err(anyhow::anyhow!("the reading thread panicked")),
            ),
        };
        if ended == Ended::TimeIsUp && grace.is_none() {
            grace = Some(Instant::now() + job.grace);
        }
        if let Some(passage) = passage {
            let far = Instant::now() + FAR;
            let (passed, ended) = passage.finish(&watched, grace.unwrap_or(far));
            account.merge(&passed);
            outcome = outcome.and(ended);
        }
        let captured = (account.clone(), 1);
        let mut targets = Vec::new();
        for (name, engine) in engines {
            let snapshot = match grace {
                Some(deadline) => engine.drain(deadline.saturating_duration_since(Instant::now())),
                None => engine.finish(),
            };
            account.merge(&snapshot.account);
            targets.push(super::target_summary(name, snapshot));
        }
        let compared = finish_comparing(comparer, &captured, &targets, &mut account);
        let outcome = outcome.and_then(|()| answered_at_all(&account));
        Finished {
            account,
            targets,
            printed: false,
            compared,
            outcome,
        }
    });
    // All is offered; what is under way may still be stopped.
    let finished = loop {
        tokio::select! {
            done = &mut stopping => break done.context("stopping")?,
            signal = signals.recv() => {
                stop(signal, &handles, inside.as_ref(), job.grace, &mut grace);
            }
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
    inside: Option<&Bridge>,
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
    if let Some(bridge) = inside {
        bridge.close(Instant::now() + grace);
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

/// When requests leave, and until when.
struct Course {
    pacer: Pacer,
    /// Whether pauses are those of the recording.
    keeps_pauses: bool,
    /// How long requests are offered, from the first one on.
    lasts: Option<Duration>,
    /// When that is over, once it has begun.
    ends: Option<Instant>,
}

impl Course {
    /// When a request with this place in the schedule is due; `None` when that is too late.
    fn due(&mut self, captured: Timestamp) -> Option<Instant> {
        let now = Instant::now();
        if self.ends.is_none() {
            self.ends = self.lasts.and_then(|lasts| now.checked_add(lasts));
        }
        let due = self.pacer.due(captured, now);
        if self.ends.is_some_and(|ends| due.max(now) >= ends) {
            return None;
        }
        let pause = due.saturating_duration_since(now);
        if self.keeps_pauses && pause >= LONG_PAUSE {
            tracing::info!(
                pause = ?Duration::from_secs(pause.as_secs()),
                "the recording has a long pause here, and it is kept; --skip-idle 5s cuts such pauses to 5 seconds"
            );
        }
        Some(due)
    }
}

/// Why no more requests are offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    /// There are no more, or somebody has stopped it.
    OfItself,
    /// They were offered for as long as they should be.
    TimeIsUp,
}

/// Offers every request of `playlist` to every engine as `traffic` has it, when it is due, until the end, until time is up,
/// or until `stopped` closes.
#[expect(
    clippy::too_many_arguments,
    reason = "everything that the reading thread works with"
)]
fn feed(
    mut playlist: Playlist,
    mut outlets: Outlets,
    traffic: &Traffic,
    mut course: Course,
    bridge: Option<&Bridge>,
    comparing: Option<&Comparing>,
    stopped: &Receiver<()>,
    publish: &watch::Sender<(Account, u64)>,
) -> (Account, Ended, anyhow::Result<()>) {
    let mut outcome = Ok(());
    let mut ended = Ended::OfItself;
    let mut published = Instant::now();
    let mut outside = 0_u64;
    let mut inside = 0_u64;
    loop {
        let is_stopped = || {
            stopped
                .try_recv()
                .is_err_and(|error| error.is_disconnected())
        };
        match playlist.next_played() {
            Ok(Some(_)) if is_stopped() => break,
            Ok(Some(Played::Request(next))) => {
                let request = next.request;
                inside += 1;
                // The middleware is to see each request when it is due, and the answers to those before it.
                if let Some(bridge) = bridge {
                    match course.due(next.place) {
                        None => {
                            ended = Ended::TimeIsUp;
                            break;
                        }
                        Some(due) if is_stopped_before(stopped, due) => break,
                        Some(_) => {
                            if let Some(comparing) = comparing {
                                comparing.expect(&request);
                            }
                            bridge.request(&request, next.status);
                        }
                    }
                    continue;
                }
                let routes = super::route(&request, next.status, traffic, outlets.targets());
                let leaves = routes.iter().any(|(_, route)| route.is_ok());
                let due = if leaves && request.completeness.is_whole() {
                    course.due(next.place)
                } else {
                    Some(Instant::now())
                };
                let Some(due) = due else {
                    ended = Ended::TimeIsUp;
                    break;
                };
                outlets.offer_due(&request, routes, due, next.pipelined);
            }
            Ok(Some(Played::Outside(request))) => {
                outside += 1;
                outlets.skip(&request, Reason::OutsideSlice);
            }
            Ok(Some(Played::Closed(connection))) => {
                if let Some(bridge) = bridge {
                    bridge.closed(connection);
                }
                outlets.closed(connection);
            }
            Ok(Some(Played::Answer(id, response))) => {
                if let Some(comparing) = comparing {
                    comparing.version1(id, response);
                }
            }
            Ok(None) => break,
            Err(error) => outcome = Err(error),
        }
        if published.elapsed() >= PUBLISH_EVERY {
            published = Instant::now();
            publish.send_replace((playlist.account(), playlist.position()));
        }
    }
    if inside == 0 && outside > 0 {
        tracing::warn!("all {outside} requests lie before --from or behind --until");
    }
    outlets.flush();
    (playlist.finish(), ended, outcome)
}

/// A wait that somebody who looks on should hear about.
const LONG_PAUSE: Duration = Duration::from_secs(60);
/// Waits until `due`; whether `stopped` has closed before.
fn is_stopped_before(stopped: &Receiver<()>, due: Instant) -> bool {
    due > Instant::now()
        && stopped
            .recv_deadline(due)
            .is_err_and(|error| error.is_disconnected())
}

/// As good as never.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How often the account is renewed for those who watch.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
