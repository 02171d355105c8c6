//! The long run: a constant load with connections that come and go, a target that is killed again and again, and a recording in
//! rotation. Nothing may grow, and the counters of both ends must agree.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::chart::{Panel, draw};
use super::experiment::target;
use super::load::{Counts, Load, Loaded};
use super::run::machine;
use super::serve::served;
use super::stage::{Metrics, Process, Stage, V2, pause, program, wait_for};

/// Runs for so long, writes `docs/soak.md` and the curves, and fails when something is not as it must be.
pub(super) fn run(time: Duration) -> io::Result<()> {
    let stage = Stage::build()?;
    let count = stage.folder.path().join("served");
    let folder = stage.folder.path().join("recording");
    fs::create_dir(&folder)?;
    let out = folder.join("traffic.gor").display().to_string();
    let every = (time / 30).max(Duration::from_secs(1));
    let mut v2 = Some(target(&count)?);
    let mirror = stage.sidecar(
        "mirror",
        MIRROR,
        &["mirror", "--to", &format!("http://{V2}")],
    )?;
    let record = stage.sidecar(
        "record",
        RECORD,
        &[
            "record",
            "--out",
            &out,
            "--rotate-size",
            "64MiB",
            "--rotate-every",
            &format!("{}s", every.as_secs()),
            "--max-size",
            "256MiB",
        ],
    )?;
    let load = Load {
        rate: RATE,
        time,
        connections: 64,
        churn: 50,
    };
    let counts = Counts::default();
    let begin = Instant::now();
    let restarts = (1..10).map(|n| time * n / 10).collect::<Vec<_>>();
    let mut seen = Seen {
        restarts: Vec::new(),
        samples: Vec::new(),
    };
    let loaded = std::thread::scope(|scope| {
        let counts = &counts;
        let running = scope.spawn(move || load.run(counts));
        let mut due = restarts.iter().copied();
        let mut restart = due.next();
        let mut back = None;
        let step = (time / 360).max(Duration::from_millis(250));
        let mut next = Duration::ZERO;
        while !running.is_finished() {
            let now = begin.elapsed();
            if restart.is_some_and(|at| now >= at) {
                restart = due.next();
                v2 = None; // SIGKILL
                seen.restarts.push(now.as_secs_f64());
                back = Some(now + DOWN.min(time / 20));
            }
            if back.is_some_and(|at| now >= at) {
                back = None;
                v2 = Some(target(&count)?);
            }
            if now >= next {
                next += step;
                seen.samples
                    .push(sample(now, &mirror, &record, counts, &folder));
            }
            pause(Duration::from_millis(50));
        }
        running
            .join()
            .map_err(|_| io::Error::other("the load panicked"))?
    })?;
    if v2.is_none() {
        v2 = Some(target(&count)?);
    }
    // What is under way ends; then the counters stand still.
    let answered = loaded.answered as f64;
    let at_rest =
        |admin: u16, name: &str| wait_for(name, || Metrics::of(admin).sum(name) >= answered);
    let _ = at_rest(MIRROR, "shadowtap_requests_total");
    let _ = at_rest(RECORD, "shadowtap_requests_total");
    let _ = wait_for("the last replays", || {
        let now = Metrics::of(MIRROR);
        now.sum("shadowtap_replays_offered_total") <= replays(&now).iter().sum()
    });
    pause(Duration::from_secs(2));
    let (mirrored, recorded) = (Metrics::of(MIRROR), Metrics::of(RECORD));
    let cpu = [mirror.cpu(), record.cpu()];
    let stopped = [mirror.stop(), record.stop()];
    drop(v2);
    let facts = Facts {
        time,
        loaded: &loaded,
        connections: counts.connections.load(Ordering::Relaxed),
        served: served(&count),
        mirrored: &mirrored,
        recorded: &recorded,
        cpu,
        left: left_over(&folder)?,
        balanced: ["mirror", "record"].map(|name| balanced(&stage.said(name))),
    };
    let (page, mut failed) = page(&facts, &seen);
    failed.extend(
        stopped
            .into_iter()
            .filter_map(Result::err)
            .map(|it| it.to_string()),
    );
    println!("{page}");
    if time >= Duration::from_secs(600) {
        fs::write("docs/soak.md", &page)?;
        fs::write("docs/images/soak.svg", curves(&seen))?;
        println!("written: docs/soak.md, docs/images/soak.svg");
    } else {
        let path = std::env::temp_dir().join("shadowtap-soak.svg");
        fs::write(&path, curves(&seen))?;
        println!(
            "shorter than ten minutes: only {} is written",
            path.display()
        );
    }
    if failed.is_empty() {
        return Ok(());
    }
    for name in ["mirror", "record"] {
        println!("{name} said:\n{}", stage.said(name));
    }
    Err(io::Error::other(format!(
        "not as it must be: {}",
        failed.join("; ")
    )))
}

const MIRROR: u16 = 9471;
const RECORD: u16 = 9472;
const RATE: u64 = 2000;
const MAX: u64 = 256 << 20;
/// How long the target is away each time.
const DOWN: Duration = Duration::from_secs(5);

struct Seen {
    restarts: Vec<f64>,
    samples: Vec<Sample>,
}

struct Sample {
    at: f64,
    memory: [f64; 2],
    descriptors: [f64; 2],
    /// Requests that version 1 has answered, and that the sidecars have not counted yet.
    behind: [f64; 2],
    recording: u64,
}

struct Facts<'a> {
    time: Duration,
    loaded: &'a Loaded,
    connections: u64,
    served: u64,
    mirrored: &'a Metrics,
    recorded: &'a Metrics,
    cpu: [f64; 2],
    left: Left,
    balanced: [bool; 2],
}

/// What is left of the recording.
struct Left {
    files: usize,
    last: u64,
    bytes: u64,
    requests: u64,
    readable: bool,
}

fn sample(
    now: Duration,
    mirror: &Process,
    record: &Process,
    counts: &Counts,
    folder: &Path,
) -> Sample {
    let behind = |admin| {
        let answered = counts.answered.load(Ordering::Relaxed) as f64;
        (answered - Metrics::of(admin).sum("shadowtap_requests_total")).max(0.0)
    };
    Sample {
        at: now.as_secs_f64(),
        memory: [mirror.memory(), record.memory()],
        descriptors: [mirror.descriptors(), record.descriptors()],
        behind: [behind(MIRROR), behind(RECORD)],
        recording: files(folder).iter().map(|it| it.1).sum(),
    }
}

fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .filter_map(|it| {
            let it = it.ok()?;
            Some((it.path(), it.metadata().ok()?.len()))
        })
        .collect();
    files.sort();
    files
}

fn replays(metrics: &Metrics) -> [f64; 3] {
    let address = format!("http://{V2}");
    ["answered", "failed", "skipped"].map(|outcome| {
        metrics.sum(&format!(
            "shadowtap_replays_total{{target=\"{address}\",outcome=\"{outcome}\"}}"
        ))
    })
}

/// Whether the printed account adds up; it says so when it does not.
fn balanced(said: &str) -> bool {
    said.contains("The account") && !said.contains("this is a bug")
}

fn left_over(folder: &Path) -> io::Result<Left> {
    let files = files(folder);
    let mut left = Left {
        files: files.len(),
        last: 0,
        bytes: files.iter().map(|it| it.1).sum(),
        requests: 0,
        readable: true,
    };
    for (path, _) in &files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = name.split('.').nth(1).and_then(|it| it.parse().ok());
        left.last = left.last.max(number.unwrap_or(0));
        let said = Command::new(program())
            .args(["inspect", "--json", "--log-level", "warn"])
            .arg(path)
            .output()?;
        let requests = memchr::memmem::find_iter(&said.stdout, b"\"method\":\"").count();
        left.requests += requests as u64;
        left.readable &=
            said.status.success() && !String::from_utf8_lossy(&said.stderr).contains("WARN");
    }
    Ok(left)
}

/// The page, and what is not as it must be.
fn page(facts: &Facts<'_>, seen: &Seen) -> (String, Vec<String>) {
    let mut failed = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            failed.push(what.to_owned());
        }
        if holds { "yes" } else { "**no**" }
    };
    let minutes = facts.time.as_secs_f64() / 60.0;
    // Five minutes, or a sixth of a short run.
    let part = (facts.time.as_secs_f64() / 6.0).min(300.0);
    let mean = |first: bool, of: &dyn Fn(&Sample) -> f64| {
        let end = facts.time.as_secs_f64();
        let inside = |it: &&Sample| {
            if first {
                it.at < part
            } else {
                it.at >= end - part
            }
        };
        let values: Vec<f64> = seen.samples.iter().filter(inside).map(of).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let (mirrored, recorded) = (facts.mirrored, facts.recorded);
    let loaded = facts.loaded;
    let [answered, failures, skipped] = replays(mirrored);
    let requests = mirrored.sum("shadowtap_requests_total");
    let whole = mirrored.sum("shadowtap_requests_whole_total");
    let offered = mirrored.sum("shadowtap_replays_offered_total");
    let written = recorded.sum("shadowtap_records_written_total");
    let lost = |metrics: &Metrics| metrics.sum("shadowtap_dropped_total{stage=\"capture\"");
    let mut text = format!(
        "# The long run\n\n`make soak` writes this page: {minutes:.1} minutes at {RATE} requests a second, open loop, 64 connections of which \
         each is closed after 50 requests on average ({} connections in all), version 2 killed (SIGKILL) {} times and \
         back after {} seconds, `mirror` and `record --rotate-size 64MiB --max-size 256MiB` beside version 1 (nginx), everything on one machine.\n\n{}\n\n",
        facts.connections,
        seen.restarts.len(),
        DOWN.min(facts.time / 20).as_secs(),
        machine()
    );
    text += "| | first | last | flat |\n|---|---:|---:|---|\n";
    type Figure = fn(&Sample) -> f64;
    let rows: [(&str, Figure, f64); 4] = [
        ("memory of `mirror`, MiB", |it| it.memory[0], 4.0),
        ("memory of `record`, MiB", |it| it.memory[1], 4.0),
        ("open files of `mirror`", |it| it.descriptors[0], 8.0),
        ("open files of `record`", |it| it.descriptors[1], 8.0),
    ];
    for (name, of, slack) in rows {
        let (first, last) = (mean(true, &of), mean(false, &of));
        let flat = must(
            last <= first * 1.05 + slack,
            &format!("{name}: {first:.1}, then {last:.1}"),
        );
        let _ = writeln!(text, "| {name} | {first:.1} | {last:.1} | {flat} |");
    }
    let _ = write!(
        text,
        "\nMeans of the first and the last {} seconds. CPU: `mirror` {:.1} %, `record` {:.1} % of one core. ",
        part.round(),
        facts.cpu[0] / loaded.seconds * 100.0,
        facts.cpu[1] / loaded.seconds * 100.0,
    );
    let quantile = |q: f64| loaded.latency.value_at_quantile(q) as f64 / 1e6;
    let _ = writeln!(
        text,
        "Latency of version 1, from when a request was due: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms.\n",
        quantile(0.5),
        quantile(0.99),
        quantile(0.999)
    );
    text += "| counted | | | agree |\n|---|---:|---:|---|\n";
    let mut row = |one: &str, left: f64, other: &str, right: f64, holds: bool| {
        let holds = must(holds, &format!("{one} {left}, {other} {right}"));
        let _ = writeln!(text, "| {one}; {other} | {left} | {right} | {holds} |");
    };
    let (sent, got) = (loaded.sent as f64, loaded.answered as f64);
    row(
        "requests sent by the client",
        sent,
        "answered by version 1",
        got,
        sent == got,
    );
    row(
        "answered by version 1",
        got,
        "seen by `mirror`",
        requests,
        got == requests,
    );
    row(
        "seen by `mirror`",
        requests,
        "whole, and so replayed",
        whole,
        requests == whole,
    );
    row(
        "offered to the target",
        offered,
        "answered + failed + skipped",
        answered + failures + skipped,
        offered == answered + failures + skipped,
    );
    let served = facts.served as f64;
    row(
        "replays answered",
        answered,
        "served by version 2, in all its lives (between that and answered + failed)",
        served,
        served >= answered && served <= answered + failures,
    );
    row(
        "messages seen by `record` (requests and answers)",
        got * 2.0,
        "written",
        written,
        written == got * 2.0,
    );
    row(
        "packets lost by the kernel: `mirror`",
        lost(mirrored),
        "`record`",
        lost(recorded),
        lost(mirrored) == 0.0 && lost(recorded) == 0.0,
    );
    let most = seen
        .samples
        .iter()
        .map(|it| it.recording)
        .max()
        .unwrap_or(0);
    row(
        "largest recording at any time, bytes",
        most.max(facts.left.bytes) as f64,
        "bound",
        MAX as f64,
        most.max(facts.left.bytes) <= MAX,
    );
    let left = &facts.left;
    let readable = must(left.readable, "the recording is readable");
    let accounts = must(facts.balanced == [true, true], "the accounts add up");
    let _ = writeln!(
        text,
        "\nOf {} files that were written, {} are left, with {} requests in {} bytes; every one is readable to its end: {readable}. \
         The accounts that both programs print add up: {accounts}. Replays: {answered} answered, {failures} failed, {skipped} skipped, \
         the latter two while the target was away, and right behind packets that were lost.\n\n![memory, open files and counters over the run](images/soak.svg)\n",
        left.last, left.files, left.requests, left.bytes
    );
    (text, failed)
}

fn curves(seen: &Seen) -> String {
    let curve = |name: &str, of: &dyn Fn(&Sample) -> f64| {
        let points = seen.samples.iter().map(|it| (it.at, of(it))).collect();
        (name.to_owned(), points)
    };
    let panel = |title: &str, curves| Panel {
        title: title.to_owned(),
        curves,
    };
    let mib = f64::from(1 << 20);
    draw(
        "The long run: dashed lines are where version 2 was killed",
        &[
            panel(
                "memory (RSS), MiB",
                vec![
                    curve("mirror", &|it| it.memory[0]),
                    curve("record", &|it| it.memory[1]),
                ],
            ),
            panel(
                "open files",
                vec![
                    curve("mirror", &|it| it.descriptors[0]),
                    curve("record", &|it| it.descriptors[1]),
                ],
            ),
            panel(
                "requests that version 1 has answered and the sidecar has not counted yet",
                vec![
                    curve("mirror", &|it| it.behind[0]),
                    curve("record", &|it| it.behind[1]),
                ],
            ),
            panel(
                "all files of the recording, MiB",
                vec![curve("record", &|it| it.recording as f64 / mib)],
            ),
        ],
        &seen.restarts,
    )
}
