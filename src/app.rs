//! Wires the stages of each verb together: the one place that knows them all.

pub mod compare;
pub mod convert;
pub mod egress;
pub mod feed;
pub mod gor;
mod guard;
pub mod inject;
pub mod input;
pub mod inspect;
pub mod live;
pub mod lookahead;
pub mod losses;
pub mod middleware;
pub mod mirror;
pub mod mock;
pub mod observer;
mod outlets;
pub mod playlist;
pub mod record;
pub mod replay;
pub mod restraint;
pub mod signals;
pub mod verdict;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use smallvec::SmallVec;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use self::signals::StopSignals;
use crate::account::{Account, Reason};
use crate::admin::verdict::Source;
use crate::admin::{Admin, AdminConfig, Readiness};
use crate::capture::live::{Live, LiveConfig};
use crate::cli::replay::FailOn;
use crate::cli::{Config, Job, LogFormat, Logging};
use crate::compare::FieldPattern;
use crate::exchange::{Exchange, Request};
use crate::judge::{Completeness, Decision, Verdict};
use crate::progress::Screen;
use crate::record::rfc3339;
use crate::record::{RecordError, Writer};
use crate::replay::Snapshot;
use crate::report::{self, TargetSummary};
use crate::sandbox::{Sandbox, SandboxMode};
use crate::time::Timestamp;
use crate::traffic::{Choice, Redactor, Traffic};

/// What a verb leaves behind.
#[derive(Debug)]
pub struct Finished {
    /// Everything that was counted.
    pub account: Account,
    /// How the replays to each target went.
    pub targets: Vec<TargetSummary>,
    /// Whether the account was printed already, as part of the data.
    pub printed: bool,
    /// What came of comparing, if that was done.
    pub compared: Option<Compared>,
    /// Whether it ended well; what was done before an error is in the account all the same.
    pub outcome: anyhow::Result<()>,
}

/// What came of comparing the answers.
pub struct Compared {
    /// The results.
    pub comparing: compare::Comparing,
    /// How much of the traffic they rest on.
    pub completeness: Completeness,
}

impl Compared {
    /// What the judge says.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.comparing.verdict(&self.completeness)
    }

    /// The same for a person, with examples.
    #[must_use]
    pub fn text(&self) -> String {
        report::verdict(&self.verdict(), |endpoint, field, kind| {
            self.comparing.shown(endpoint, field, kind)
        })
    }
}

impl std::fmt::Debug for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compared")
            .field("completeness", &self.completeness)
            .finish_non_exhaustive()
    }
}

/// Does what `config` says; the account is printed, errors are told to the user.
#[must_use]
pub fn run(config: Config, screen: &Screen) -> ExitCode {
    let logging = config.logging;
    if config.sandbox == SandboxMode::Off {
        tracing::warn!("--sandbox off: system calls and files are not restricted");
    }
    let sandbox = Sandbox::new(config.sandbox);
    let finished = match config.job {
        Job::Mirror(job) => mirror::run(job, screen, sandbox),
        Job::Inspect(job) => inspect::run(job, screen, &sandbox),
        Job::Inject(job) => return exit_code(inject::run(job)),
        Job::Demo(job) => return exit_code(crate::demo::run(job)),
        Job::Verdict(job) => {
            return verdict::run(&job).unwrap_or_else(|error| exit_code(Err(error)));
        }
        Job::Record(job) => record::run(&job, screen, &sandbox),
        Job::Replay(job) => return run_replay(job, screen, &logging, &sandbox),
        Job::Convert(job) => convert::run(job, screen, &sandbox),
        Job::Gor(job) => gor::run(*job, screen, &sandbox),
        Job::Mock(job) => mock::run(&job, screen, &sandbox),
    };
    exit_code(finished.and_then(|finished| conclude(finished, &logging)))
}

/// Runs `replay`, which may end with a verdict as its exit code.
fn run_replay(
    job: crate::cli::replay::Job,
    screen: &Screen,
    logging: &Logging,
    sandbox: &Sandbox,
) -> ExitCode {
    let (junit, fail_on) = (job.junit.clone(), job.fail_on);
    let finished = match replay::run(job, screen, sandbox) {
        Ok(finished) => finished,
        Err(error) => return exit_code(Err(error)),
    };
    let verdict = finished.compared.as_ref().map(Compared::verdict);
    let mut outcome = conclude(finished, logging);
    let Some(verdict) = verdict else {
        return exit_code(outcome);
    };
    if let Some(path) = junit {
        let report = report::junit(&verdict, fail_on == Some(FailOn::Continue));
        let written = std::fs::write(&path, report)
            .with_context(|| format!("--junit: cannot write {}", path.display()));
        outcome = outcome.and(written);
    }
    let failed = outcome.is_err();
    let code = exit_code(outcome);
    match (verdict.verdict, fail_on) {
        // Also when it was because no request was answered.
        (Decision::Reject, Some(_)) => ExitCode::from(3),
        _ if failed => code,
        (Decision::Continue, Some(FailOn::Continue)) => ExitCode::from(4),
        _ => code,
    }
}

/// Prints the account, holds it to its laws, and answers how it went.
fn conclude(finished: Finished, logging: &Logging) -> anyhow::Result<()> {
    let Finished {
        account,
        targets,
        printed,
        compared,
        outcome,
    } = finished;
    // Nobody may be reading any more.
    match logging.log_format {
        _ if printed => {}
        LogFormat::Text => {
            let mut text = report::account(&account, &targets);
            if let Some(compared) = &compared {
                text += &compared.text();
            }
            let _ = io::stderr().write_all(text.as_bytes());
        }
        LogFormat::Json => {
            let line = serde_json::json!({
                "timestamp": rfc3339::format(now_minus(Duration::ZERO)),
                "level": "INFO",
                "message": "the account",
                "account": report::account_json(&account, &targets),
                "verdict": compared.as_ref().map(Compared::verdict),
            });
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
    if let Err(imbalance) = account.check() {
        tracing::error!(%imbalance, "this is a bug in shadowtap; please report it with this account");
    }
    outcome
}

/// The wall clock, so long ago: what packet time is when packets are captured now.
fn now_minus(age: Duration) -> Timestamp {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(age);
    Timestamp::ZERO.after(since_1970)
}

fn exit_code(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has had enough: that is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", in_words(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes; a cause that the text before it has told already is not told again.
fn in_words(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |words, cause| {
        let cause = cause.to_string();
        if words.is_empty() {
            cause
        } else if words.contains(&cause) {
            words
        } else {
            format!("{words}: {cause}")
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// A runtime for the admin server, the signals and the beat; the work is done on other threads.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}

/// A client for plain HTTP that does as it is told: no proxies, no redirects, nothing sent twice.
pub(crate) fn http_client() -> reqwest::Result<reqwest::Client> {
    http_client_through(None)
}

/// The same, through a forward proxy if there is one.
pub(crate) fn http_client_through(proxy: Option<&str>) -> reqwest::Result<reqwest::Client> {
    // The error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder().no_proxy();
    if let Some(proxy) = proxy {
        builder = builder.proxy(reqwest::Proxy::http(proxy)?);
    }
    builder
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .tcp_nodelay(true)
        .http1_only()
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(30))
        .build()
}

/// Starts the admin server, if there is to be one. It serves until the runtime ends.
fn serve_admin(
    config: Option<&AdminConfig>,
    registry: Registry,
    readiness: Readiness,
    source: Option<Source>,
    sandbox: &Sandbox,
) -> anyhow::Result<()> {
    let Some(config) = config else {
        return Ok(());
    };
    let admin = Admin::bind(config)
        .with_context(|| format!("--admin: cannot listen on {}", config.address))?;
    tracing::info!(address = %admin.address()?, "serving /metrics, /healthz and /readyz");
    let sandbox = sandbox.clone();
    tokio::spawn(async move {
        let until_the_end = std::future::pending();
        if let Err(error) = admin
            .serve(registry, readiness, source, sandbox, until_the_end)
            .await
        {
            tracing::error!(%error, "the admin server has failed");
        }
    });
    Ok(())
}

fn say_what_is_captured(config: &LiveConfig, live: &[Live]) {
    let ends: Vec<String> = config.ends.iter().map(ToString::to_string).collect();
    tracing::info!(
        interface = config.interfaces.join(","),
        ports = if ends.is_empty() {
            "all".to_owned()
        } else {
            ends.join(",")
        },
        filter = config.filter,
        "capturing"
    );
    for live in live {
        tracing::debug!(filter = live.filter(), "the filter that the kernel runs");
    }
}

/// Waits for `work`; a second signal ends the process at once.
async fn unless_signalled<T>(work: JoinHandle<T>, signals: &mut StopSignals) -> anyhow::Result<T> {
    tokio::select! {
        done = work => Ok(done.context("stopping")?),
        signal = signals.recv() => stop_at_once(signal),
    }
}

fn stop_at_once(signal: &'static str) -> ! {
    tracing::warn!(
        signal,
        "stopping at once: what was under way is not accounted for"
    );
    std::process::exit(1)
}

/// The targets that a request is for, and how it goes to each, or why it does not.
type Routes = SmallVec<[(usize, Result<Arc<Request>, Reason>); 2]>;

/// Where `request`, which version 1 answered with `status`, goes, as `traffic` has it.
fn route(request: &Arc<Request>, status: Option<u16>, traffic: &Traffic, targets: usize) -> Routes {
    let dealt_to = traffic.dealt_to(request, targets);
    let mut rewritten = None;
    (0..targets)
        .filter(|&target| dealt_to.is_none_or(|dealt_to| dealt_to == target))
        .map(|target| match traffic.refusal(request, status, target) {
            None => {
                let rewritten = rewritten.get_or_insert_with(|| traffic.rewritten(request));
                (target, rewritten.clone())
            }
            Some(reason) => (target, Err(reason)),
        })
        .collect()
}

/// What leaves the secrets out of a recording, if `fields` says so; with a new key.
fn redactor(fields: Option<Vec<FieldPattern>>) -> anyhow::Result<Option<Redactor>> {
    fields
        .map(|fields| Ok(Redactor::new(compare::random_key()?, fields)))
        .transpose()
}

/// Writes `exchange`, if it is chosen: as it was, or as `redactor` shows it.
fn write_chosen(
    writer: &mut Writer,
    choice: &Choice,
    redactor: Option<&Redactor>,
    exchange: &Exchange,
) -> Result<(), RecordError> {
    match choice.refusal(exchange) {
        None => match redactor {
            Some(redactor) => writer.exchange(&redactor.exchange(exchange)),
            None => writer.exchange(exchange),
        },
        Some(reason) => {
            writer.leave_out(reason);
            Ok(())
        }
    }
}

fn target_summary(name: String, snapshot: Snapshot) -> TargetSummary {
    let quantile = |q| Duration::from_micros(snapshot.duration.value_at_quantile(q));
    TargetSummary {
        name,
        by_class: snapshot.by_class,
        late: (!snapshot.lateness.is_empty()).then(|| {
            let micros = |q| snapshot.lateness.value_at_quantile(q);
            [micros(0.5), micros(0.99), snapshot.lateness.max()].map(Duration::from_micros)
        }),
        took: (!snapshot.duration.is_empty()).then(|| (quantile(0.5), quantile(0.99))),
        account: snapshot.account,
    }
}
