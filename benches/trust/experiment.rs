//! Version 1 under a constant load, without a sidecar and with one in every kind of trouble.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::load::{Counts, Load, Loaded};
use super::serve::served;
use super::stage::{Metrics, Process, Stage, V2, must, pause, program, wait_for};

/// What is beside version 1, and what happens to it a quarter into the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    Nobody,
    Mirror,
    DeadTarget,
    Stopped,
    Killed,
    OutOfMemory,
    DiskFull,
}

impl Trouble {
    const ALL: [Self; 7] = [
        Self::Nobody,
        Self::Mirror,
        Self::DeadTarget,
        Self::Stopped,
        Self::Killed,
        Self::OutOfMemory,
        Self::DiskFull,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "without a sidecar",
            Self::Mirror => "with `mirror`",
            Self::DeadTarget => "its target is dead",
            Self::Stopped => "it is stalled (SIGSTOP)",
            Self::Killed => "it is killed (SIGKILL)",
            Self::OutOfMemory => "it is out of memory (cgroup)",
            Self::DiskFull => "`record`, its disk is full",
        }
    }
}

/// One round of one kind.
struct Round {
    sent: u64,
    answered: u64,
    seconds: f64,
    /// p50, p99 and p99.9 in milliseconds.
    latency: [f64; 3],
    /// What happened to the sidecar.
    happened: String,
}

/// The section of the page; fails when version 1 did not answer a request.
pub(super) fn run(time: Duration, rounds: usize) -> io::Result<String> {
    let stage = Stage::build()?;
    let load = Load {
        rate: 2000,
        time,
        connections: 64,
        churn: 50,
    };
    // So that the first measured one is as warm as the others.
    load_for(load, Duration::from_secs(2))?;
    let mut results: Vec<Vec<Round>> = Trouble::ALL.map(|_| Vec::new()).into();
    for number in 0..rounds {
        for (of, trouble) in results.iter_mut().zip(Trouble::ALL) {
            let round = one(&stage, trouble, load)?;
            println!(
                "round {}: {}: {} of {} answered, {:?} ms; {}",
                number + 1,
                trouble.name(),
                round.answered,
                round.sent,
                round.latency,
                round.happened
            );
            of.push(round);
        }
    }
    let mut text = format!(
        "## Version 1 beside a sidecar in trouble\n\nnginx answers {} requests a second on 64 connections, each closed after 50 requests on average. The load is \
         open-loop: a request is due at its time whatever came of those before it, and latency counts from that time. {rounds} rounds of {} seconds of each, \
         in turn; latencies are the medians of the rounds, in milliseconds, and behind each its change against the first row. The trouble begins a \
         quarter into the round.\n\n\
         | | answered | a second | p50 | p99 | p99.9 | what happened |\n|---|---:|---:|---:|---:|---:|---|\n",
        load.rate,
        time.as_secs()
    );
    let median = |of: &[Round], value: &dyn Fn(&Round) -> f64| {
        let mut values: Vec<f64> = of.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let base: [f64; 3] = [0, 1, 2].map(|at| median(&results[0], &|it| it.latency[at]));
    let mut unanswered = 0;
    for (of, trouble) in results.iter().zip(Trouble::ALL) {
        let sent: u64 = of.iter().map(|it| it.sent).sum();
        let answered: u64 = of.iter().map(|it| it.answered).sum();
        unanswered += sent - answered;
        let cell = |at: usize| {
            let value = median(of, &|it| it.latency[at]);
            match trouble {
                Trouble::Nobody => format!("{value:.2}"),
                _ => format!("{value:.2} ({:+.2})", value - base[at]),
            }
        };
        let _ = writeln!(
            text,
            "| {} | {answered} of {sent} | {:.0} | {} | {} | {} | {} |",
            trouble.name(),
            median(of, &|it| it.answered as f64 / it.seconds),
            cell(0),
            cell(1),
            cell(2),
            of.last().map_or("", |it| &it.happened)
        );
    }
    let range = |at: usize| {
        let values = results[0].iter().map(|it| it.latency[at]);
        values.fold((f64::MAX, 0.0_f64), |(low, high), it| {
            (low.min(it), high.max(it))
        })
    };
    let (low, high) = range(2);
    let _ = writeln!(
        text,
        "\nClient, nginx, the sidecar and version 2 share the cores of this machine with whatever else runs on it: without any sidecar, p99.9 was between \
         {low:.2} and {high:.2} ms from round to round.\n"
    );
    if unanswered > 0 {
        return Err(io::Error::other(format!(
            "version 1 left {unanswered} requests unanswered:\n{text}"
        )));
    }
    Ok(text)
}

const ADMIN: u16 = 9471;

fn one(stage: &Stage, trouble: Trouble, load: Load) -> io::Result<Round> {
    let count = stage.folder.path().join("served");
    let _ = fs::remove_file(&count);
    let to = format!("http://{V2}");
    let mirror = ["mirror", "--to", &to];
    let v2 = match trouble {
        Trouble::DeadTarget => None,
        _ => Some(target(&count)?),
    };
    let name = format!("{trouble:?}");
    let mut memory = None;
    let sidecar = match trouble {
        Trouble::Nobody => None,
        Trouble::DiskFull => Some(on_a_small_disk(stage, &name)?),
        Trouble::OutOfMemory => {
            let sidecar = stage.sidecar(&name, ADMIN, &mirror)?;
            memory = Limit::set(&sidecar);
            // What cannot be sent is what the memory fills with.
            if let Some(v2) = &v2 {
                v2.signal("STOP")?;
            }
            Some(sidecar)
        }
        _ => Some(stage.sidecar(&name, ADMIN, &mirror)?),
    };
    let loaded = std::thread::scope(|scope| {
        let running = scope.spawn(move || load.run(&Counts::default()));
        pause(load.time / 4);
        let done = match (&sidecar, trouble) {
            (Some(sidecar), Trouble::Stopped) => sidecar.signal("STOP"),
            (Some(sidecar), Trouble::Killed) => sidecar.signal("KILL"),
            _ => Ok(()),
        };
        let loaded = running
            .join()
            .map_err(|_| io::Error::other("the load panicked"))?;
        done.and(loaded)
    })?;
    let happened = match sidecar {
        None => String::new(),
        Some(sidecar) => ending(stage, trouble, sidecar, &loaded, &count, memory.as_ref())?,
    };
    drop(v2);
    drop(memory);
    Ok(Round {
        sent: loaded.sent,
        answered: loaded.answered,
        seconds: loaded.seconds,
        latency: [0.5, 0.99, 0.999].map(|q| loaded.latency.value_at_quantile(q) as f64 / 1e6),
        happened,
    })
}

/// What happened to the sidecar; it is ended.
fn ending(
    stage: &Stage,
    trouble: Trouble,
    mut sidecar: Process,
    loaded: &Loaded,
    count: &Path,
    memory: Option<&Limit>,
) -> io::Result<String> {
    let said = |name: &str| stage.said(name);
    let name = format!("{trouble:?}");
    Ok(match trouble {
        Trouble::Nobody => String::new(),
        Trouble::Mirror => {
            let all = wait_for("the last replays", || served(count) >= loaded.answered);
            sidecar.stop()?;
            all?;
            format!("version 2 got {} of {}", served(count), loaded.answered)
        }
        Trouble::DeadTarget => {
            let failed = Metrics::of(ADMIN);
            let replays = failed.sum("shadowtap_replays_total");
            sidecar.stop()?;
            format!("{replays} replays were given up, by name")
        }
        Trouble::Stopped => {
            sidecar.signal("CONT")?;
            wait_for("the sidecar", || {
                Metrics::of(ADMIN).sum("shadowtap_requests_total") > 0.0
            })?;
            sidecar.stop()?;
            format!(
                "woken at the end; version 2 got {} of {}, the account names the rest",
                served(count),
                loaded.answered
            )
        }
        Trouble::Killed => {
            wait_for("the end of the sidecar", || sidecar.has_ended())?;
            format!("version 2 got {} until then", served(count))
        }
        Trouble::OutOfMemory => match memory {
            None => {
                sidecar.signal("KILL")?;
                "**not measured**: no memory cgroup can be written here".to_owned()
            }
            Some(limit) if sidecar.has_ended() => {
                format!(
                    "killed by the kernel, {:.0} MiB above what it had without traffic ({} kills in its cgroup)",
                    limit.bytes as f64 / f64::from(1 << 20),
                    limit.kills()
                )
            }
            Some(limit) => {
                sidecar.signal("KILL")?;
                format!(
                    "**it lived**, within {:.0} MiB more than it had",
                    limit.bytes as f64 / f64::from(1 << 20)
                )
            }
        },
        Trouble::DiskFull => {
            wait_for("the end of the recording", || sidecar.has_ended())?;
            let said = said(&name);
            let why = said
                .lines()
                .find_map(|line| line.split_once("writing failed: "))
                .map_or("**it does not say why**", |(_, why)| why);
            format!("it ended: {}", why.split(';').next().unwrap_or(why))
        }
    })
}

fn load_for(load: Load, time: Duration) -> io::Result<()> {
    Load { time, ..load }.run(&Counts::default()).map(drop)
}

pub(super) fn target(count: &Path) -> io::Result<Process> {
    let child = Command::new(std::env::current_exe()?)
        .args(["serve", V2])
        .arg(count)
        .stdin(Stdio::null())
        .spawn()?;
    let target = Process(child);
    wait_for("version 2", || std::net::TcpStream::connect(V2).is_ok())?;
    Ok(target)
}

/// A recording onto a file system of a megabyte.
fn on_a_small_disk(stage: &Stage, name: &str) -> io::Result<Process> {
    let disk = stage.folder.path().join("disk");
    fs::create_dir_all(&disk)?;
    let file = disk.join("traffic.gor");
    let program = program();
    let script = format!(
        "mount -t tmpfs -o size=1m none {} && exec \"$@\"",
        disk.display()
    );
    let log = fs::File::create(stage.folder.path().join(format!("{name}.log")))?;
    let child = stage
        .there("unshare")
        .args(["-m", "sh", "-c", &script, "sh", &program, "record"])
        .args(["-i", "front", "--port", "8080", "--progress", "off"])
        .args(["--admin", &format!("10.77.0.2:{ADMIN}"), "--out"])
        .arg(&file)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let mut process = Process(child);
    let mut ended = false;
    wait_for("the recording", || {
        ended = process.has_ended();
        ended || !Metrics::of(ADMIN).is_empty()
    })?;
    if ended {
        return Err(io::Error::other(stage.said(name)));
    }
    Ok(process)
}

/// How many bytes the sidecar may still take when its memory is limited.
const MORE: u64 = 2 << 20;

/// A memory limit on a process, which ends with this.
struct Limit {
    group: PathBuf,
    is_v2: bool,
    bytes: u64,
}

impl Limit {
    /// So much more than the process has now; none where no memory cgroup can be written.
    fn set(process: &Process) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let is_v2 = fs::read_to_string(root.join("cgroup.controllers"))
            .is_ok_and(|it| it.contains("memory"));
        let parent = if is_v2 {
            root.into()
        } else {
            root.join("memory")
        };
        let group = parent.join(format!("shadowtap-trust-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let limit = Self {
            group,
            is_v2,
            bytes: MORE,
        };
        let pid = process.0.id().to_string();
        // What the process had before it came is charged elsewhere: only what it takes from now on counts.
        let file = if is_v2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        fs::write(limit.group.join(file), MORE.to_string()).ok()?;
        fs::write(limit.group.join("cgroup.procs"), pid).ok()?;
        Some(limit)
    }

    fn kills(&self) -> u64 {
        let file = if self.is_v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = fs::read_to_string(self.group.join(file)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|it| it.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Best effort: it can go only when the process is gone.
        let _ = wait_for("the cgroup", || fs::remove_dir(&self.group).is_ok());
    }
}

/// Requests of which packets are lost on the way to version 1 and back, so that TCP repairs them.
pub(super) fn repaired(time: Duration) -> io::Result<String> {
    let stage = Stage::build()?;
    let mut text = "| lost on the way, each way | sent | answered | replayed, each once | p99 of version 1, ms |\n|---|---:|---:|---:|---:|\n".to_owned();
    for (name, thousandths) in [("0.1 %", 1), ("1 %", 10), ("5 %", 50)] {
        let rules = format!(
            "table inet loss {{ chain out {{ type filter hook output priority 0; numgen random mod 1000 < {thousandths} tcp dport 8080 drop; }}; \
             chain in {{ type filter hook input priority 0; numgen random mod 1000 < {thousandths} tcp sport 8080 drop; }}; }}"
        );
        let count = stage.folder.path().join(format!("served-{thousandths}"));
        let v2 = target(&count)?;
        let sidecar = stage.sidecar(
            "repaired",
            ADMIN,
            &["mirror", "--to", &format!("http://{V2}")],
        )?;
        must(Command::new("nft").arg(&rules))?;
        let load = Load {
            rate: 500,
            time,
            connections: 64,
            churn: 50,
        };
        let loaded = load.run(&Counts::default())?;
        must(Command::new("nft").args(["delete", "table", "inet", "loss"]))?;
        let _ = wait_for("the last replays", || served(&count) >= loaded.answered);
        pause(Duration::from_millis(500));
        sidecar.stop()?;
        drop(v2);
        let served = served(&count);
        let line = format!(
            "| {name} | {} | {} | {served} | {:.1} |",
            loaded.sent,
            loaded.answered,
            loaded.latency.value_at_quantile(0.99) as f64 / 1e6
        );
        println!("{line}");
        let _ = writeln!(text, "{line}");
        if loaded.answered != loaded.sent || served != loaded.answered {
            return Err(io::Error::other(format!("not all were replayed:\n{text}")));
        }
    }
    Ok(text)
}
