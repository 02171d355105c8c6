//! The demonstration: the main job in the open, on this machine, with nothing else installed.
//!
//! Two versions of the sample application run on loopback, clients send version 1 real traffic, and a mirror as
//! `shadowtap mirror` runs it captures that live and sends it to version 2. Nothing in it is simulated, and every
//! number that is printed was measured.

/// `println!` that fails instead of panicking when nobody reads any more.
macro_rules! say {
    ($($what:tt)*) => { writeln!(io::stdout(), $($what)*)? };
}

pub mod cart;
mod checkout;
mod namespace;
pub mod sample;
mod traffic;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::sample::{Sample, SampleConfig};
use self::traffic::Sent;
use crate::account::{Counter, Stage};
use crate::admin::Readiness;
use crate::app::Finished;
use crate::app::compare::Settings;
use crate::app::mirror::{Latches, Mirror};
use crate::capture::live::{DEFAULT_BUFFER, DEFAULT_SNAPLEN, Live, LiveConfig, LiveError};
use crate::cli::demo::Job;
use crate::cli::mirror;
use crate::cli::options::CompareJob;
use crate::judge::{Decision, LatencyMargin, Standing};
use crate::metrics::Metrics;
use crate::replay::{ReplayConfig, Target};
use crate::report;
use crate::restraint::Limits;
use crate::sandbox::{Sandbox, SandboxMode};
use crate::tap::{TapConfig, Watch, WatchedEnd};

/// Runs `shadowtap demo`. Must be called before any other thread runs: it may have to enter a namespace.
///
/// # Errors
/// When this machine does not let it capture, or something that it started fails.
pub fn run(job: Job) -> anyhow::Result<()> {
    let place = find_a_place()?;
    apart(|| demonstrate(job, place))?;
    let orders = if job.equal && job.round < job.most {
        ENOUGH_ORDERS
    } else {
        (job.round / 5).clamp(50, MOST_ORDERS)
    };
    apart(|| checkout::show(orders, job.equal))
}

/// Runs a part of the demonstration on a thread of its own: a mirror gives up the right to capture for the thread that
/// starts it.
fn apart<F: Future<Output = anyhow::Result<()>>>(
    part: impl FnOnce() -> F + Send,
) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let part = scope.spawn(|| crate::app::runtime()?.block_on(part()));
        part.join()
            .unwrap_or_else(|_| bail!("a part of the demonstration panicked"))
    })
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
    let [first] = start([version("v1")]).await?;
    let candidate = SampleConfig {
        wrong: !job.equal,
        slow: if job.equal { Duration::ZERO } else { SLOW },
        ..version("v2")
    };
    // They share a thread: what the machine itself does to latencies, it does to both.
    let [second, control] = start([candidate, version("v1")]).await?;
    say!("shadowtap demo: two versions of a small shop, real traffic, live capture\n");
    say!("  version 1   http://{first}");
    let told = if job.equal {
        "does the same as version 1"
    } else {
        "adds up POST /orders wrongly, GET /search is slow"
    };
    say!("  version 2   http://{second}   {told}; shadowtap is not told");
    say!(
        "  control     http://{control}   a second copy of version 1, to tell noise from differences"
    );
    say!(
        "  capture     interface {LOOPBACK}, {}\n",
        match place {
            Place::Here => "with the rights of this user",
            Place::OwnNamespace => "in a user and network namespace of its own, without root",
        }
    );
    let names = [second, control].map(|address| format!("http://{address}"));
    let mut mirror_job = mirror_of(first, &names)?;
    if let Some(compare) = &mut mirror_job.compare {
        compare.has_control = true;
    }
    let (metrics, _registry) = Metrics::new(&names);
    // Versions, load and mirror are one process here.
    let sandbox = Sandbox::new(SandboxMode::Off);
    let latches = Latches::new(&mut Readiness::default(), mirror_job.targets.len(), sandbox);
    let mirror = Mirror::start(&mirror_job, &metrics, latches).await?;

    // What is slow at the same moment counts once, so a few thousand requests in half a second would show nothing.
    let lasting = if job.equal { Duration::ZERO } else { LASTING };
    let mut sent = Sent::default();
    let mut took = Duration::ZERO;
    loop {
        let began = Instant::now();
        let round = job.round.min(job.most - sent.requests);
        let more = traffic::drive(first, round, lasting)
            .await
            .context("sending traffic to version 1")?;
        took += began.elapsed();
        sent.requests += more.requests;
        sent.connections += more.connections;
        settle(&mirror, &metrics, sent.requests.into()).await;
        // It may be asked at any time: that is what it promises.
        let is_open = mirror
            .verdict()
            .is_some_and(|verdict| verdict.verdict == Decision::Continue);
        if !is_open || sent.requests >= job.most {
            break;
        }
    }
    say!(
        "{} requests over {} connections in {}: keep-alive, pipelining, chunked uploads, 100-continue\n",
        report::grouped(u64::from(sent.requests)),
        sent.connections,
        report::latency(took)
    );
    let finished = tokio::task::spawn_blocking(move || mirror.stop(GRACE))
        .await
        .context("stopping the mirror")?;
    conclude(u64::from(sent.requests), job.equal, finished)
}

/// A mirror of what comes to `first`, on the loopback interface.
fn mirror_of(first: SocketAddr, targets: &[String]) -> anyhow::Result<mirror::Job> {
    let ends = vec![WatchedEnd {
        address: Some(first.ip()),
        port: first.port(),
    }];
    let targets = targets
        .iter()
        .map(|name| Ok(ReplayConfig::live(name.parse::<Target>()?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(mirror::Job {
        live: live_config(ends.clone()),
        tap: TapConfig {
            watch: Watch {
                ends,
                ..Watch::default()
            },
            ..TapConfig::default()
        },
        traffic: crate::traffic::Traffic::default(),
        middleware: None,
        egress: None,
        targets,
        compare: Some(CompareJob {
            settings: Settings {
                // Load, capture, mirror and three servers share this machine: a stall of milliseconds is nobody's fault.
                margin: LatencyMargin::default().with_floor(SLOW / 3),
                ..Settings::default()
            },
            has_control: false,
        }),
        limits: Limits::default(),
        grace: GRACE,
        admin: None,
    })
}

/// Prints what came of it.
fn conclude(sent: u64, is_equal: bool, finished: Finished) -> anyhow::Result<()> {
    let Some(compared) = &finished.compared else {
        bail!("nothing was compared");
    };
    let verdict = compared.verdict();
    say!("{}", compared.text());
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
    let answered = finished
        .targets
        .first()
        .map_or(0, |target| target.account.get(Counter::ReplaysAnswered));
    let judged = finished.account.get(Counter::ComparesJudged);
    if [seen, answered, judged] != [sent; 3] {
        bail!(
            "of {sent} requests that version 1 answered, {seen} were captured, {answered} answered by version 2 and \
             {judged} compared; the account above says where the others went"
        );
    }
    say!(
        "\n{} requests sent, captured, mirrored and compared: nothing lost.",
        report::grouped(sent)
    );
    let expected = if is_equal {
        Decision::Promote
    } else {
        Decision::Reject
    };
    let worse: Vec<&str> = verdict
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.standing == Standing::Worse)
        .map(|endpoint| &*endpoint.endpoint)
        .collect();
    say!(
        "The verdict is {}{}.",
        verdict.verdict,
        match worse.as_slice() {
            [] => String::new(),
            worse => format!(", for {}", worse.join(" and ")),
        }
    );
    if verdict.verdict != expected {
        say!(
            "It should be {expected}: more requests decide it (--requests), and a busy machine makes latencies uneven."
        );
    }
    Ok(())
}

/// The sample application as it should be.
fn version(name: &str) -> SampleConfig {
    SampleConfig {
        version: name.to_owned(),
        wrong: false,
        slow: Duration::ZERO,
        log: false,
    }
}

/// Starts versions of the sample application on free ports of the loopback interface, on one thread of their own.
async fn start<const N: usize>(versions: [SampleConfig; N]) -> anyhow::Result<[SocketAddr; N]> {
    let (tell, told) = oneshot::channel();
    let serve = async move {
        let mut samples = Vec::new();
        let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
        for (config, address) in versions.into_iter().zip(&mut addresses) {
            let sample = Sample::bind(config, *address)?;
            *address = sample.address()?;
            samples.push(sample);
        }
        // Whoever asked is gone only when the demonstration is over.
        let _ = tell.send(addresses);
        let mut serving: JoinSet<_> = samples.into_iter().map(Sample::serve).collect();
        while let Some(served) = serving.join_next().await {
            served.map_err(io::Error::other)??;
        }
        Ok::<_, io::Error>(())
    };
    let runtime = crate::app::runtime()?;
    thread::Builder::new()
        .name("sample".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(serve) {
                tracing::error!(%error, "the sample application has failed");
            }
        })
        .context("starting a thread")?;
    told.await.context("starting the sample application")
}

/// Waits until so many requests were replayed to both targets and judged, or given up.
async fn settle(mirror: &Mirror, metrics: &Metrics, requests: u64) {
    let deadline = Instant::now() + GRACE;
    loop {
        let account = mirror.account(metrics);
        let replayed = account.get(Counter::ReplaysAnswered) + account.dropped_at(Stage::Replay);
        let judged = account.get(Counter::ComparesJudged) + account.dropped_at(Stage::Compare);
        if (replayed >= 2 * requests && judged >= requests) || Instant::now() >= deadline {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn live_config(ends: Vec<WatchedEnd>) -> LiveConfig {
    LiveConfig {
        interfaces: vec![LOOPBACK.to_owned()],
        workers: NonZeroUsize::MIN,
        ends,
        filter: None,
        // Versions, load and mirror take turns here: what comes meanwhile waits.
        buffer: 4 * DEFAULT_BUFFER,
        snaplen: DEFAULT_SNAPLEN,
    }
}

/// The loopback interface.
const LOOPBACK: &str = if cfg!(target_os = "linux") {
    "lo"
} else {
    "lo0"
};

/// How long version 2's slow endpoint sleeps.
const SLOW: Duration = Duration::from_millis(40);

/// How long the traffic takes at least that is to show what is slow.
const LASTING: Duration = Duration::from_secs(5);

/// The most orders that are bought at the cart, and those that it takes to show that nothing is wrong with it.
const MOST_ORDERS: u32 = 400;
const ENOUGH_ORDERS: u32 = 1_200;

/// How long the mirror may take to finish; it takes far less unless the machine is very busy.
const GRACE: Duration = Duration::from_secs(10);
