//! What is made of captures with losses and of floods, without a network: the tests hold the same to be right, here are the figures.

use std::fmt::Write as _;
use std::io;
use std::process::Command;

use shadowtap::tap::TapConfig;

use super::support::flood::{KINDS, peaceful, play};
use super::support::lossy::{Lost, Recovered, lose};

/// The share of requests that are found of what a capture has missed.
pub(super) fn missed() -> io::Result<String> {
    let mut text = "| missed by the capture | exchanges | replayed | theoretical best | marked as unproven | judged | theoretical best | marked as unproven | false |\n\
                    |---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for (name, one_in) in [("0.1 %", 1000), ("1 %", 100), ("5 %", 20)] {
        let mut sum = Recovered::default();
        for seed in 0..20 {
            let found = lose(Lost::AfterCapture, one_in, seed);
            sum.sent += found.sent;
            sum.best += found.best;
            sum.replayed += found.replayed;
            sum.best_judged += found.best_judged;
            sum.judged += found.judged;
            sum.unproven += found.unproven;
            sum.unproven_judged += found.unproven_judged;
            sum.false_requests += found.false_requests;
            sum.false_answers += found.false_answers;
        }
        let share = |part: usize| part as f64 / sum.sent as f64 * 100.0;
        let line = format!(
            "| {name} | {} | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {} |",
            sum.sent,
            share(sum.replayed),
            share(sum.best),
            share(sum.unproven),
            share(sum.judged),
            share(sum.best_judged),
            share(sum.unproven_judged),
            sum.false_requests + sum.false_answers
        );
        println!("{line}");
        let _ = writeln!(text, "{line}");
        if sum.false_requests + sum.false_answers > 0 {
            return Err(io::Error::other(format!(
                "something false was found:\n{text}"
            )));
        }
    }
    Ok(text)
}

/// The floods, each in a process of its own.
pub(super) fn floods() -> io::Result<String> {
    let mut text = "| flood | packets | held at most, MiB (bound: 192) | process at most, MiB | CPU a packet, ns | honest exchanges found |\n\
                    |---|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for number in 0..KINDS.len() + PEACEFUL.len() {
        let said = Command::new(std::env::current_exe()?)
            .args(["flood", &number.to_string()])
            .output()?;
        let line = String::from_utf8_lossy(&said.stdout).into_owned();
        print!("{line}");
        text += &line;
        if !said.status.success() {
            let why = String::from_utf8_lossy(&said.stderr).into_owned();
            return Err(io::Error::other(why));
        }
    }
    Ok(text)
}

/// Connections with nothing hostile on them, for comparison.
const PEACEFUL: [u32; 3] = [1, 1000, 100_000];

/// Plays one and prints its line.
pub(super) fn flood(number: usize) -> io::Result<()> {
    let before = cpu();
    let config = TapConfig::default();
    let (name, flooded) = match KINDS.get(number) {
        Some(&(name, amount, kind)) => (name.to_owned(), play(kind, amount, config)),
        None => {
            let packets = 2_000_000;
            let (name, flooded) = match number - KINDS.len() {
                0 => (
                    "1",
                    play(|it, n| peaceful(it, PEACEFUL[0], n), packets, config),
                ),
                1 => (
                    "1,000",
                    play(|it, n| peaceful(it, PEACEFUL[1], n), packets, config),
                ),
                _ => (
                    "100,000",
                    play(|it, n| peaceful(it, PEACEFUL[2], n), packets, config),
                ),
            };
            (
                format!("none: keep-alive exchanges on {name} connections"),
                flooded,
            )
        }
    };
    let time = cpu() - before;
    let mib = f64::from(1 << 20);
    println!(
        "| {name} | {} | {:.1} | {:.0} | {:.0} | {} of {} |",
        flooded.packets,
        flooded.held as f64 / mib,
        peak(),
        time / flooded.packets as f64 * 1e9,
        flooded.found[0].min(flooded.found[1]),
        flooded.honest
    );
    let limit = config_limit();
    if flooded.held > limit || flooded.found != [flooded.honest; 2] {
        return Err(io::Error::other(format!("{name}: {flooded:?}")));
    }
    flooded
        .account
        .check()
        .map_err(|error| io::Error::other(format!("{name}: {error:?}")))
}

fn config_limit() -> usize {
    TapConfig::default().limits.memory
}

/// CPU seconds of this process.
pub(super) fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|it| it.parse().ok());
    nanos.map_or(f64::NAN, |nanos: f64| nanos / 1e9)
}

/// The most memory of this process, in MiB.
pub(super) fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.map_or(f64::NAN, |kib: f64| kib / 1024.0)
}
