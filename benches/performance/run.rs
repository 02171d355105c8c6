//! The order of things: which parts run, how often, and what is made of them.

use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::generate::Traffic;
use super::live::{Beside, Run, Stage};
use super::measure::{Rounds, command_cpu, monotonic, ratios};
use super::page::Page;
use super::peers::{self, Load};
use super::surroundings::{in_namespace, need, said};
use super::{counts, offline, saturation};

pub(super) fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| it != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<u32>().map_err(io::Error::other);
    match words[..] {
        [] => in_namespace(&["all"]),
        ["counts"] => in_namespace(&["counted"]),
        ["all"] => all(),
        ["counted"] => print_counts(),
        ["generate", file, connections, exchanges, body] => generate(
            Path::new(file),
            Traffic {
                connections: number(connections)?,
                exchanges: number(exchanges)?,
                body: number(body)? as usize,
            },
        ),
        ["floor", file] => {
            println!("{:?}", offline::floor(Path::new(file), 0));
            Ok(())
        }
        ["subject", file] => {
            println!("{:?}", offline::subject(Path::new(file), 0));
            Ok(())
        }
        ["serve", address] => peers::serve(address),
        ["load", address, connections, requests, rate, body, linger] => peers::load(
            address,
            Load {
                connections: number(connections)?,
                requests: number(requests)?,
                rate: number(rate)?,
                body: number(body)? as usize,
                linger: Duration::from_millis(number(linger)?.into()),
            },
        ),
        ["bare", address, connections, requests] => {
            peers::bare(address, number(connections)?, number(requests)?)
        }
        _ => {
            println!("nothing to do for: {}", words.join(" "));
            println!("without arguments everything runs; 'counts' counts instructions");
            Ok(())
        }
    }
}

fn generate(file: &Path, traffic: Traffic) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, std::fs::File::create(file)?);
    traffic.write(&mut out)?;
    io::Write::flush(&mut out)
}

fn print_counts() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    match counts::count(folder.path())? {
        Some((packet, request)) => println!(
            "instructions{}: {packet:.0} a packet read (small keep-alive exchanges), {request:.0} a request replayed",
            if cfg!(debug_assertions) {
                " of a build without optimisation"
            } else {
                ""
            }
        ),
        None if std::env::var_os("CI").is_some() => {
            return Err(io::Error::other(
                "valgrind is missing: instructions cannot be counted",
            ));
        }
        None => println!("valgrind is missing: instructions are not counted"),
    }
    Ok(())
}

fn all() -> io::Result<()> {
    need(&["tcpdump", "nsenter", "strip"])?;
    let folder = tempfile::tempdir()?;
    let mut page = Page::default();
    offline_rows(&mut page, folder.path())?;
    packets_by_connections(&mut page, folder.path())?;
    live_rows(&mut page)?;
    if let Some((packet, request)) = counts::count(folder.path())? {
        page.note(format!("Instructions (callgrind): {packet:.0} a packet read of small keep-alive exchanges, {request:.0} a request replayed, reading it from a file included."));
    }
    let program = PathBuf::from(env!("CARGO_BIN_EXE_shadowtap"));
    let stripped = folder.path().join("stripped");
    if Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(&program)
        .status()
        .is_ok_and(|it| it.success())
    {
        let size = std::fs::metadata(&stripped)?.len() as f64 / 1e6;
        page.row(
            "binary, stripped",
            "–",
            format!("{size:.1} MB"),
            Rounds(vec![size]),
            "< 12 MB",
        );
    }
    page.write(Path::new("docs/performance.md"), &machine())
}

pub(super) const ROUNDS: usize = 5;

fn offline_rows(page: &mut Page, folder: &Path) -> io::Result<()> {
    let small = Traffic {
        connections: 1000,
        exchanges: 200_000,
        body: 90,
    };
    let file = folder.join("small.pcap");
    generate(&file, small)?;
    let (mut floor, mut subject) = (Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        let pass = offline::floor(&file, 0);
        floor.0.push(pass.seconds / pass.packets as f64 * 1e6);
        let pass = offline::subject(&file, 0);
        assert!(
            pass.found >= 2 * u64::from(small.exchanges),
            "every message is found"
        );
        subject.0.push(pass.seconds / pass.packets as f64 * 1e6);
    }
    page.row(
        "offline, small keep-alive exchanges, 1,000 connections: µs a packet",
        format!("{:.2} (libpcap, etherparse, httparse)", floor.median()),
        format!("{:.2}", subject.median()),
        ratios(&subject, &floor),
        "≤ 2",
    );
    // Three packets an exchange.
    page.row(
        "the same: million exchanges a second on one core",
        format!("{:.2}", 1.0 / floor.median() / 3.0),
        format!("{:.2}", 1.0 / subject.median() / 3.0),
        Rounds(subject.0.iter().map(|it| 1.0 / it / 3.0).collect()),
        "≥ 1 where the floor allows",
    );
    two_workers(page, &file);
    std::fs::remove_file(&file)?;
    for (what, traffic) in [
        (
            "offline, bodies of 100 KB: CPU seconds",
            Traffic {
                connections: 10,
                exchanges: 3000,
                body: 100_000,
            },
        ),
        (
            "offline, bodies of 10 MB: CPU seconds",
            Traffic {
                connections: 4,
                exchanges: 30,
                body: 10_000_000,
            },
        ),
    ] {
        let file = folder.join("large.pcap");
        generate(&file, traffic)?;
        let (mut floor, mut subject) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            floor.0.push(command_cpu(
                Command::new("tcpdump")
                    .args(["-Z", "root", "-w", "/dev/null", "-r"])
                    .arg(&file),
            )?);
            subject.0.push(command_cpu(
                Command::new(std::env::current_exe()?)
                    .arg("subject")
                    .arg(&file),
            )?);
        }
        page.row(
            what,
            format!("{:.3} (tcpdump -r -w /dev/null)", floor.median()),
            format!("{:.3}", subject.median()),
            ratios(&subject, &floor),
            "≤ 2",
        );
        std::fs::remove_file(&file)?;
    }
    Ok(())
}

/// Capture workers share nothing, so two of them do twice as much as one in the same time, as far as the machine's cores do:
/// the floor, run twice at once, shows how far that is.
fn two_workers(page: &mut Page, file: &Path) {
    let gain = |read: fn(&Path, u64) -> offline::Pass| {
        let one = seconds_of(|| {
            read(file, 0);
        });
        let two = seconds_of(|| {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| read(file, 0));
                }
            });
        });
        2.0 * one / two
    };
    let (mut floor, mut subject) = (Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        floor.0.push(gain(offline::floor));
        subject.0.push(gain(offline::subject));
    }
    page.row(
        "two capture workers on two cores: packets a second, to one worker's",
        format!("{:.2} (the floor, twice at once)", floor.median()),
        "",
        subject,
        "≥ 1.8 where cores are free",
    );
}

fn seconds_of(work: impl FnOnce()) -> f64 {
    let start = monotonic();
    work();
    (monotonic() - start) as f64 / 1e9
}

fn packets_by_connections(page: &mut Page, folder: &Path) -> io::Result<()> {
    let mut figures = Vec::new();
    let mut files = Vec::new();
    for connections in [1, 1000, 100_000] {
        let traffic = Traffic {
            connections,
            exchanges: 200_000,
            body: 90,
        };
        let file = folder.join(format!("{connections}.pcap"));
        generate(&file, traffic)?;
        files.push((file, traffic.handshake_packets()));
        figures.push((Rounds::default(), Rounds::default()));
    }
    for _ in 0..ROUNDS {
        for ((file, skip), (floor, subject)) in files.iter().zip(&mut figures) {
            let pass = offline::floor(file, *skip);
            floor.0.push(pass.seconds / pass.packets as f64 * 1e6);
            let pass = offline::subject(file, *skip);
            subject.0.push(pass.seconds / pass.packets as f64 * 1e6);
        }
    }
    for (file, _) in &files {
        std::fs::remove_file(file)?;
    }
    let [one, thousand, many] = &figures[..] else {
        return Ok(());
    };
    for (what, figure) in [
        (
            "µs a packet at 1,000 live connections, to that at 1",
            thousand,
        ),
        (
            "µs a packet at 100,000 live connections, to that at 1",
            many,
        ),
    ] {
        page.row(
            what,
            format!("{:.2} (at 1)", one.1.median()),
            format!("{:.2}", figure.1.median()),
            ratios(&figure.1, &one.1),
            "≤ 1.5",
        );
    }
    Ok(())
}

fn live_rows(page: &mut Page) -> io::Result<()> {
    let stage = Stage::build()?;
    let full = Load {
        connections: 64,
        requests: 100_000,
        rate: 0,
        body: 0,
        linger: Duration::ZERO,
    };
    saturation::saturation(page, &stage, full)?;
    let median = |of: &dyn Fn(&Run) -> f64, runs: &[Run]| Rounds(runs.iter().map(of).collect());
    for (what, rate, requests, goal) in [
        ("lag at 10 requests a second: p50 in ms", 10, 50, "≤ 5"),
        (
            "lag at 1,000 requests a second: p50 in ms (p99 beside)",
            1000,
            4000,
            "p50 ≤ 1, p99 ≤ 5",
        ),
        (
            "lag at 20,000 requests a second: p50 in ms (p99 beside)",
            20_000,
            60_000,
            "–",
        ),
    ] {
        let load = Load {
            rate,
            requests,
            ..full
        };
        let runs: Vec<Run> = (0..3)
            .map(|_| stage.run(Beside::Shadowtap, load, &[]))
            .collect::<Result<_, _>>()?;
        let p99 = median(&|run| run.served.lag_p99 as f64 / 1e6, &runs);
        let reached = median(
            &|run| run.loaded.requests as f64 / run.loaded.seconds,
            &runs,
        );
        page.row(
            what,
            "–",
            format!("p99 {:.2} at {:.0}/s", p99.median(), reached.median()),
            median(&|run| run.served.lag_p50 as f64 / 1e6, &runs),
            goal,
        );
        if rate == 10 {
            page.row(
                "CPU at 10 requests a second: percent of a core",
                "–",
                "",
                median(&|run| run.share * 100.0, &runs),
                "near 0",
            );
        }
    }
    let to_first: Vec<f64> = (0..ROUNDS)
        .map(|_| stage.to_first())
        .collect::<Result<_, _>>()?;
    page.row(
        "from start to the first mirrored request: ms",
        "–",
        "",
        Rounds(to_first),
        "< 100",
    );
    let open = Load {
        connections: 10_000,
        requests: 20_000,
        // A rate that version 2 follows: what waits for it is another matter than what an open connection takes.
        rate: 5000,
        body: 0,
        linger: Duration::from_secs(2),
    };
    let run = stage.run(Beside::Shadowtap, open, &[])?;
    page.row(
        "peak memory with 10,000 open connections, small requests: MiB",
        "–",
        format!(
            "at {:.0} requests a second; 32 MiB are the kernel's buffer",
            run.loaded.requests as f64 / run.loaded.seconds
        ),
        Rounds(vec![run.memory]),
        "≤ 32",
    );
    match run.charged {
        Some(charged) => page.row(
            "the same, as a pod is charged for it (memory control group, at most): MiB",
            "–",
            "the kernel's buffer is not charged",
            Rounds(vec![charged]),
            "≤ 32",
        ),
        None => page.note(
            "No memory control group could be made: what a pod is charged for was not measured."
                .to_owned(),
        ),
    }
    let large = Load {
        connections: 1000,
        requests: 1000,
        rate: 0,
        body: 1_000_000,
        linger: Duration::from_secs(1),
    };
    let run = stage.run(Beside::Shadowtap, large, &[])?;
    page.row(
        "peak memory with 1,000 connections and bodies of 1 MB: MiB",
        "–",
        format!("{} of 1,000 reached version 2", run.served.requests),
        Rounds(vec![run.memory]),
        "≤ the limit",
    );
    Ok(())
}

/// Where and when, and with what.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    // Whoever builds in a hurry says so in the environment.
    let hurried = [
        option_env!("CARGO_PROFILE_BENCH_LTO"),
        option_env!("CARGO_PROFILE_RELEASE_LTO"),
    ];
    let build = if hurried.iter().any(Option::is_some) {
        "built with other link-time optimisation than a release; "
    } else {
        ""
    };
    format!(
        "{}; {build}Linux {}; {cores} cores, {}; load average at the end {}; {}; {}; shadowtap {}.",
        said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        said("uname", &["-r"]),
        model.trim_start_matches(['\t', ' ', ':']).trim_end(),
        load.split(' ').next().unwrap_or_default(),
        said("tcpdump", &["--version"]),
        said("rustc", &["--version"]),
        env!("CARGO_PKG_VERSION"),
    )
}
