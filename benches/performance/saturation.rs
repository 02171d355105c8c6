//! As fast as the load generator goes: what it costs, what is lost, and what is left to version 1.

use std::io;
use std::process::Command;

use super::live::{Beside, Run, Stage};
use super::measure::{Rounds, ratios};
use super::page::Page;
use super::peers::Load;
use super::run::ROUNDS;

/// As fast as the load generator goes, and half as fast, with nobody, tcpdump and shadowtap beside version 1.
pub(super) fn saturation(page: &mut Page, stage: &Stage, full: Load) -> io::Result<()> {
    let per_100k = |run: &Run| run.cpu.total * 1e5 / run.loaded.requests as f64;
    let throughput = |run: &Run| run.loaded.requests as f64 / run.loaded.seconds;
    let has_gor = Command::new("gor").arg("version").output().is_ok();
    let beside = [
        Beside::Nobody,
        Beside::Tcpdump,
        Beside::Shadowtap,
        Beside::Gor,
    ];
    let beside = &beside[..if has_gor { 4 } else { 3 }];
    let mut bare = Rounds::default();
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); beside.len()];
    let mut halves = runs.clone();
    let mut captured = Vec::new();
    let alone = |who: Beside| -> &[&str] {
        match who {
            Beside::Shadowtap => &["--no-compare"],
            _ => &[],
        }
    };
    for _ in 0..ROUNDS {
        bare.0
            .push(stage.bare(full.connections, full.requests)?.total);
        for (who, runs) in beside.iter().zip(&mut runs) {
            runs.push(stage.run(*who, full, alone(*who))?);
        }
        captured.push(stage.run(Beside::Capturing, full, &[])?);
    }
    let of = |figure: &dyn Fn(&Run) -> f64, runs: &[Run]| Rounds(runs.iter().map(figure).collect());
    let half = of(&throughput, &runs[0]).median() / 2.0;
    for _ in 0..ROUNDS {
        for (who, runs) in beside.iter().zip(&mut halves) {
            let load = Load {
                rate: half as u32,
                requests: full.requests / 2,
                ..full
            };
            runs.push(stage.run(*who, load, alone(*who))?);
        }
    }
    let tcpdump = of(&per_100k, &runs[1]);
    let floor = Rounds(
        bare.0
            .iter()
            .zip(&tcpdump.0)
            .map(|(bare, tcpdump)| bare + tcpdump)
            .collect(),
    );
    let subject = of(&per_replay, &runs[2]);
    let kernel = of(
        &|run| run.cpu.kernel * 1e5 / run.served.requests.max(1) as f64,
        &runs[2],
    );
    page.row(
        "live: CPU seconds for 100,000 requests captured and replayed",
        format!(
            "{:.2} ({:.2} bare loop, {:.2} tcpdump)",
            floor.median(),
            bare.median(),
            tcpdump.median()
        ),
        format!(
            "{:.2} ({:.2} of it the kernel's)",
            subject.median(),
            kernel.median()
        ),
        ratios(&subject, &floor),
        "≤ 1.4",
    );
    comparing(page, stage, full)?;
    let complete = |run: &Run| run.served.requests as f64 * 100.0 / run.loaded.requests as f64;
    page.row(
        "completeness at the highest rate: percent of the requests at version 2",
        "100",
        format!(
            "at {:.0} requests a second",
            of(&throughput, &runs[2]).median()
        ),
        of(&complete, &runs[2]),
        "100",
    );
    let [alone, dumped, mirrored] = [0, 1, 2].map(|at| of(&throughput, &runs[at]));
    page.row(
        "version 1's throughput at saturation, to that with tcpdump beside it",
        format!(
            "{:.0} a second ({:.0} alone)",
            dumped.median(),
            alone.median()
        ),
        format!(
            "{:.0} a second, version 2 on the same cores",
            mirrored.median()
        ),
        ratios(&mirrored, &dumped),
        "≥ 0.98",
    );
    let captured = of(&throughput, &captured);
    page.row(
        "the same while shadowtap captures and sends nothing",
        format!("{:.0} a second", dumped.median()),
        format!("{:.0} a second", captured.median()),
        ratios(&captured, &dumped),
        "≥ 0.98",
    );
    let p99 = |run: &Run| run.loaded.p99 as f64 / 1e6;
    let [alone, dumped, mirrored] = [0, 1, 2].map(|at| of(&p99, &halves[at]));
    page.row(
        "version 1's p99 at half of that, to that with tcpdump beside it",
        format!("{:.2} ms ({:.2} alone)", dumped.median(), alone.median()),
        format!("{:.2} ms, version 2 on the same cores", mirrored.median()),
        ratios(&mirrored, &dumped),
        "≤ 1.02",
    );
    if has_gor {
        let (ours, theirs) = (&runs[2], &runs[3]);
        page.row(
            "GoReplay: its CPU for 100,000 requests, to shadowtap's",
            format!("{:.2} s", of(&per_100k, theirs).median()),
            format!("{:.2} s", of(&per_100k, ours).median()),
            ratios(&of(&per_100k, theirs), &of(&per_100k, ours)),
            "≥ 10",
        );
        page.row(
            "GoReplay: its peak memory, to shadowtap's",
            format!("{:.0} MiB", of(&|it| it.memory, theirs).median()),
            format!("{:.0} MiB", of(&|it| it.memory, ours).median()),
            ratios(&of(&|it| it.memory, theirs), &of(&|it| it.memory, ours)),
            "≥ 10",
        );
        page.row(
            "GoReplay: completeness in percent",
            "100",
            "",
            of(&complete, theirs),
            "–",
        );
        page.row(
            "GoReplay: p50 of its lag in ms",
            "–",
            "",
            of(&|it| it.served.lag_p50 as f64 / 1e6, theirs),
            "–",
        );
        page.row(
            "GoReplay: version 1's p99 at half the load, to that with tcpdump",
            "–",
            "",
            ratios(&of(&p99, &halves[3]), &dumped),
            "–",
        );
    } else {
        page.note(
            "There was no `gor` on the PATH: nothing was compared with GoReplay in this run."
                .to_owned(),
        );
    }
    Ok(())
}

/// A request that was shed was not sent: a run that sheds looks cheaper than it is.
fn per_replay(run: &Run) -> f64 {
    run.cpu.total * 1e5 / run.served.requests.max(1) as f64
}

/// What comparing costs on top of mirroring alone, in pairs of which either comes first in turn: as fast as it goes, where the
/// replays fall behind and answers wait for each other, and at a rate that version 2 follows.
fn comparing(page: &mut Page, stage: &Stage, full: Load) -> io::Result<()> {
    for (what, rate, requests) in [
        (
            "the same with compare, to that without",
            full.rate,
            full.requests,
        ),
        (
            "the same at 20,000 requests a second: with compare, to that without",
            20_000,
            60_000,
        ),
    ] {
        let load = Load {
            rate,
            requests,
            ..full
        };
        let (mut with, mut without) = (Rounds::default(), Rounds::default());
        for round in 0..PAIRS {
            let mut compare = || -> io::Result<()> {
                with.0
                    .push(per_replay(&stage.run(Beside::Shadowtap, load, &[])?));
                Ok(())
            };
            if round % 2 == 0 {
                compare()?;
            }
            let run = stage.run(Beside::Shadowtap, load, &["--no-compare"])?;
            without.0.push(per_replay(&run));
            if round % 2 == 1 {
                compare()?;
            }
        }
        page.row(
            what,
            format!("{:.2}", without.median()),
            format!("{:.2}", with.median()),
            ratios(&with, &without),
            "≤ 1.25",
        );
    }
    Ok(())
}

/// Of two runs whose difference is smaller than what the machine does to either.
const PAIRS: usize = 15;
