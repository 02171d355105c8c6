//! `mock`: an HTTP server in front of a [`Mock`].

mod api;
mod server;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use self::server::Server;
use super::Finished;
use super::input::Input;
use super::losses::LossWatch;
use super::signals::StopSignals;
use crate::account::{Account, Counter, Reason};
use crate::admin::Readiness;
use crate::cli::mock::Job;
use crate::exchange::Joiner;
use crate::metrics::Metrics;
use crate::mock::{Mock, wiremock};
use crate::progress::{Progress, Screen};
use crate::sandbox::{Needs, Sandbox};
use crate::serve;
use crate::tap::TapConfig;

/// Runs `shadowtap mock` until a signal.
///
/// # Errors
/// What keeps it from starting.
pub fn run(job: &Job, screen: &Screen, sandbox: &Sandbox) -> anyhow::Result<Finished> {
    super::runtime()?.block_on(mock(job, screen, sandbox))
}

async fn mock(job: &Job, screen: &Screen, sandbox: &Sandbox) -> anyhow::Result<Finished> {
    let mut signals = StopSignals::new().context("taking over signals")?;
    let mut readiness = Readiness::default();
    let loading = readiness.latch("the recordings are not read");
    let (mut metrics, registry) = Metrics::new(&[]);
    super::serve_admin(job.admin.as_ref(), registry, readiness, None, sandbox)?;
    let listener = serve::listen(job.listen)
        .and_then(TcpListener::from_std)
        .with_context(|| format!("--listen: cannot listen on {}", job.listen))?;
    sandbox.enter(&Needs::reading(&[&job.from[..], &job.stubs].concat()));
    let mut mock = Mock::new(job.config.clone());
    let loaded = load(&mut mock, job, screen)?;
    drop(loading);
    let (stubs, _) = mock.held();
    tracing::info!(address = %listener.local_addr()?, stubs, fed = job.config.is_fed, "answering");
    let server = Arc::new(Server::new(mock, job));
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(Arc::clone(&server).serve(listener, stopped));
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
        let mut account = server.beat();
        account.merge(&loaded);
        metrics.publish(&account);
        losses.look(&account);
        if progress.is_due() {
            progress.show(&account, None);
        }
        if serving.is_finished() {
            break;
        }
    }
    drop(progress);
    // Calls that wait for an answer get it, up to the grace period; then they are cut off.
    drop(stop);
    let aborted = serving.abort_handle();
    let outcome = tokio::select! {
        done = tokio::time::timeout(job.grace, serving) => match done {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(error).context("serving"),
            Err(_) => {
                aborted.abort();
                Ok(())
            }
        },
        signal = signals.recv() => super::stop_at_once(signal),
    };
    tokio::task::yield_now().await;
    let mut account = server.finish();
    account.merge(&loaded);
    metrics.publish(&account);
    Ok(Finished {
        account,
        targets: Vec::new(),
        printed: false,
        compared: None,
        outcome,
    })
}

/// Fills the mock from files.
fn load(mock: &mut Mock, job: &Job, screen: &Screen) -> anyhow::Result<Account> {
    for file in &job.stubs {
        let text =
            fs::read(file).with_context(|| format!("--stubs: cannot read {}", file.display()))?;
        let mappings = serde_json::from_slice(&text)
            .with_context(|| format!("--stubs: {} is not JSON", file.display()))?;
        let stubs = wiremock::read(&mappings)
            .map_err(|wrong| anyhow::anyhow!("--stubs: {}: {wrong}", file.display()))?;
        for stub in stubs {
            mock.write(stub);
        }
    }
    if job.from.is_empty() {
        return Ok(Account::new());
    }
    let mut input = Input::open(&job.from, TapConfig::default())?;
    let mut progress = Progress::files(screen, input.size());
    let mut joiner = Joiner::new(WAITING_REQUESTS);
    loop {
        match input.next_event() {
            Ok(Some(event)) => {
                if let Some(exchange) = joiner.push(event) {
                    mock.learn(exchange, Vec::new());
                }
            }
            Ok(None) => break,
            // Everything before the damage is worth having.
            Err(error) => tracing::warn!("--from: {error:#}"),
        }
        if progress.is_due() {
            progress.show(&input.account(), Some(input.position()));
        }
    }
    for exchange in joiner.finish() {
        mock.learn(exchange, Vec::new());
    }
    let account = input.finish();
    if mock.account().dropped(Reason::StubEvicted) > 0 {
        tracing::warn!(
            read = account.get(Counter::RequestsWhole),
            left_out = mock.account().dropped(Reason::StubEvicted),
            "the recordings are larger than the memory for stubs: the oldest are left out; --memory gives more"
        );
    }
    Ok(account)
}

/// Requests that may wait for their answers before they count as unanswered.
const WAITING_REQUESTS: usize = 1 << 16;
