//! The demonstration: the main job in the open, on this machine, with nothing else installed.
//!
//! Two versions of the sample application run on loopback, clients send version 1 real traffic, and a mirror as
//! `shadowtap mirror` runs it captures that live and sends it to version 2. Nothing in it is simulated, and every
//! number that is printed was measured.

mod compare;
mod namespace;
pub mod sample;
mod traffic;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crossbeam_channel::{Receiver, unbounded};
use tokio::sync::oneshot;

use self::compare::Comparison;
use self::sample::{Sample, SampleConfig};
use crate::account::{Account, Counter, Stage};
use crate::admin::Readiness;
use crate::app::Finished;
use crate::app::mirror::{Latches, Mirror, Observation, Observer};
use crate::capture::live::{DEFAULT_BUFFER, DEFAULT_SNAPLEN, Live, LiveConfig, LiveError};
use crate::cli::demo::Job;
use crate::cli::mirror;
use crate::exchange::Event;
use crate::metrics::Metrics;
use crate::replay::{Replay, ReplayConfig, Target};
use crate::report;
use crate::tap::{TapConfig, Watch, WatchedEnd};

/// `println!` that fails instead of panicking when nobody reads any more.
macro_rules! say {
    ($($what:tt)*) => { writeln!(io::stdout(), $($what)*)? };
}

/// Runs `shadowtap demo`. Must be called before any other thread runs: it may have to enter a namespace.
///
/// # Errors
/// When this machine does not let it capture, or something that it started fails.
pub fn run(job: Job) -> anyhow::Result<()> {
    let place = find_a_place()?;
    crate::app::runtime()?.block_on(demonstrate(job, place))
}

/// Where the demonstration may capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Here,
    OwnNamespace,
}

/// Stays where it is if it may capture here, or else enters a namespace of its own.
fn find_a_place() -> anyhow::Result<Place> {
    match Live::open(&live_config(Vec::new())) {
        Ok(_) => return Ok(Place::Here),
        Err(LiveError::Permission { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if let Err(error) = namespace::enter() {
        bail!(
            "the demonstration captures live, and this user may not do that here; it tried to enter a user and network \
             namespace of its own, and that failed too ({error}).\n  \
             Any one of these helps:\n  \
             - sudo setcap cap_net_raw+p \"$(command -v shadowtap)\", then shadowtap demo again\n  \
             - sudo shadowtap demo\n  \
             - allow user namespaces: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), \
             kernel.unprivileged_userns_clone=1 (Debian), user.max_user_namespaces=10000\n  \
             - in a container: run it with --cap-add NET_RAW"
        );
    }
    Live::open(&live_config(Vec::new())).context("capturing in a namespace of its own")?;
    Ok(Place::OwnNamespace)
}

async fn demonstrate(job: Job, place: Place) -> anyhow::Result<()> {
    let first = start_version("v1", false, Duration::ZERO).await?;
    let second = start_version("v2", true, SLOW).await?;
    say!("shadowtap demo: two versions of a small shop, real traffic, live capture\n");
    say!("  version 1   http://{first}");
    say!(
        "  version 2   http://{second}   adds up POST /orders wrongly, GET /search is slow; shadowtap is not told"
    );
    say!(
        "  capture     interface {LOOPBACK}, {}\n",
        match place {
            Place::Here => "with the rights of this user",
            Place::OwnNamespace => "in a user and network namespace of its own, without root",
        }
    );
    let ends = vec![WatchedEnd {
        address: Some(first.ip()),
        port: first.port(),
    }];
    let target: Target = format!("http://{second}").parse()?;
    let mirror_job = mirror::Job {
        live: live_config(ends.clone()),
        tap: TapConfig {
            watch: Watch { ends, local: None },
            ..TapConfig::default()
        },
        traffic: crate::traffic::Traffic::default(),
        middleware: None,
        targets: vec![ReplayConfig::live(target)],
        grace: GRACE,
        admin: None,
    };
    let (metrics, _registry) = Metrics::new(&[format!("http://{second}")]);
    let (observer, seen) = observer();
    let latches = Latches::new(&mut Readiness::default(), mirror_job.targets.len());
    let mirror = Mirror::start(&mirror_job, &metrics, latches, &observer).await?;
    drop(observer);
    let (compared, comparison) = oneshot::channel();
    thread::Builder::new()
        .name("compare".to_owned())
        .spawn(move || compared.send(compare_all(&seen)))
        .context("starting a thread")?;

    let began = Instant::now();
    let sent = traffic::drive(first, job.requests)
        .await
        .context("sending traffic to version 1")?;
    let took = began.elapsed();
    say!(
        "{} requests over {} connections in {}: keep-alive, pipelining, chunked uploads, 100-continue\n",
        report::grouped(u64::from(sent.requests)),
        sent.connections,
        report::latency(took)
    );
    let deadline = Instant::now() + GRACE;
    while settled(&mirror.account(&metrics)) < u64::from(sent.requests) && Instant::now() < deadline
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let finished = tokio::task::spawn_blocking(move || mirror.stop(GRACE))
        .await
        .context("stopping the mirror")?;
    let comparison = comparison.await.context("comparing the answers")?;
    conclude(u64::from(sent.requests), &comparison, finished)
}

/// Prints what came of it.
fn conclude(sent: u64, comparison: &Comparison, finished: Finished) -> anyhow::Result<()> {
    say!(
        "Version 2's answers against version 1's\n\n{}",
        comparison.table()
    );
    say!(
        "{}",
        report::account(&finished.account, &finished.targets).trim_end()
    );
    finished.outcome?;
    finished
        .account
        .check()
        .context("this is a bug in shadowtap")?;
    let seen = finished.account.get(Counter::RequestsWhole);
    let answered = finished.account.get(Counter::ReplaysAnswered);
    let compared = comparison.compared();
    if [seen, answered, compared] != [sent; 3] {
        bail!(
            "of {sent} requests that version 1 answered, {seen} were captured, {answered} answered by version 2 and \
             {compared} compared; the account above says where the others went"
        );
    }
    say!(
        "\n{} requests sent, captured, mirrored and compared: nothing lost.",
        report::grouped(sent)
    );
    Ok(())
}

/// Starts a version of the sample application on a free port of the loopback interface, on a thread of its own.
async fn start_version(
    version: &'static str,
    wrong: bool,
    slow: Duration,
) -> anyhow::Result<SocketAddr> {
    let config = SampleConfig {
        version: version.to_owned(),
        wrong,
        slow,
        log: false,
    };
    let (tell, address) = oneshot::channel();
    let serve = async move {
        let sample = match Sample::bind(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await {
            Ok(sample) => sample,
            Err(error) => {
                let _ = tell.send(Err(error));
                return;
            }
        };
        let _ = tell.send(sample.address());
        if let Err(error) = sample.serve().await {
            tracing::error!(version, %error, "the sample application has failed");
        }
    };
    let runtime = crate::app::runtime()?;
    thread::Builder::new()
        .name(format!("sample-{version}"))
        .spawn(move || runtime.block_on(serve))
        .context("starting a thread")?;
    address
        .await
        .map_err(anyhow::Error::from)
        .and_then(|address| Ok(address?))
        .with_context(|| format!("starting {version} of the sample application"))
}

fn live_config(ends: Vec<WatchedEnd>) -> LiveConfig {
    LiveConfig {
        interface: LOOPBACK.to_owned(),
        ends,
        filter: None,
        buffer: DEFAULT_BUFFER,
        snaplen: DEFAULT_SNAPLEN,
    }
}

/// What the mirror's threads hand to the comparison.
enum Seen {
    Captured(Box<Event>),
    Replayed(Box<Replay>),
}

fn observer() -> (Observer, Receiver<Seen>) {
    let (send, seen) = unbounded();
    let observer = Arc::new(move |observation: Observation<'_>| {
        let seen = match observation {
            Observation::Captured(event) => Seen::Captured(Box::new(event.clone())),
            Observation::Replayed(replay) => Seen::Replayed(Box::new(replay.clone())),
        };
        // The comparison ends last.
        let _ = send.send(seen);
    });
    (observer, seen)
}

fn compare_all(seen: &Receiver<Seen>) -> Comparison {
    let mut comparison = Comparison::default();
    for seen in seen {
        match seen {
            Seen::Captured(event) => comparison.captured(&event),
            Seen::Replayed(replay) => comparison.replayed(&replay),
        }
    }
    comparison
}

/// Replays that were answered or given up.
fn settled(account: &Account) -> u64 {
    account.get(Counter::ReplaysAnswered) + account.dropped_at(Stage::Replay)
}

/// The loopback interface.
const LOOPBACK: &str = if cfg!(target_os = "linux") {
    "lo"
} else {
    "lo0"
};

/// How long version 2's slow endpoint sleeps.
const SLOW: Duration = Duration::from_millis(40);

/// How long the mirror may take to finish; it takes far less unless the machine is very busy.
const GRACE: Duration = Duration::from_secs(10);
