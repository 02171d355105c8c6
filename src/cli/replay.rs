//! `shadowtap replay`: files to a target.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum, builder::BoolishValueParser};

use super::options::{
    CompareFlags, CompareJob, FileFlags, ReplayFlags, RunFlags, SelectFlags, TapFlags, Without,
};
use super::{Wrong, values};
use crate::admin::AdminConfig;
use crate::app::playlist::Program;
use crate::middleware::Command;
use crate::replay::{ReplayConfig, Schedule, WhenFull};
use crate::traffic::slice::{Moment, Slice};
use crate::traffic::{Rate, Traffic};

/// Send the requests in captures and recordings to a target.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap replay traffic.pcap --port 8080 --to http://v2\n  \
    shadowtap replay monday.pcap.gz tuesday.gor --to http://v2:8080 --speed 2\n  \
    shadowtap replay - --to http://v2 --speed max # a capture on standard input\n  \
    shadowtap replay traffic.gor --to http://v2 --from 10m --until 20m --loop forever --duration 8h\n  \
    shadowtap replay traffic.gor --to http://v2 --only path:/api/** --except status:5xx --rate 500/s\n  \
    shadowtap replay traffic.pcap --port 8080 --to http://v2 --speed max --compare --junit out.xml --fail-on reject")]
pub struct Flags {
    #[command(flatten)]
    input: FileFlags,

    /// How fast: 1 is the original's pace, 2 twice as fast; 'max' as fast as the target takes them.
    #[arg(
        long,
        value_name = "FACTOR",
        default_value = "1",
        value_parser = speed,
        env = "SHADOWTAP_SPEED",
        help_heading = "Replay"
    )]
    speed: Speed,

    /// Cut pauses in the recording that are longer than this.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = values::duration,
        env = "SHADOWTAP_SKIP_IDLE",
        help_heading = "Replay"
    )]
    skip_idle: Option<Duration>,

    /// So many a second evenly, such as 500/s, whatever the pauses of the original.
    #[arg(
        long,
        value_name = "RATE",
        conflicts_with_all = ["speed", "skip_idle"],
        env = "SHADOWTAP_RATE",
        help_heading = "Replay"
    )]
    rate: Option<Rate>,

    /// Play the files so often, or 'forever'; each round begins right behind the one before.
    #[arg(
        long = "loop",
        value_name = "N",
        default_value = "1",
        value_parser = rounds,
        env = "SHADOWTAP_LOOP",
        help_heading = "Replay"
    )]
    rounds: Rounds,

    /// Stop after so long; what is under way then still has --grace.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = values::duration,
        env = "SHADOWTAP_DURATION",
        help_heading = "Replay"
    )]
    duration: Option<Duration>,

    /// Begin here: so long after the first request, such as 90s, or at a time such as 2026-11-24T08:30:00Z.
    #[arg(
        long,
        value_name = "MOMENT",
        value_parser = values::moment,
        env = "SHADOWTAP_FROM",
        help_heading = "Replay"
    )]
    from: Option<Moment>,

    /// End before this moment of the recording.
    #[arg(
        long,
        value_name = "MOMENT",
        value_parser = values::moment,
        env = "SHADOWTAP_UNTIL",
        help_heading = "Replay"
    )]
    until: Option<Moment>,

    #[command(flatten)]
    select: SelectFlags,

    #[command(flatten)]
    replay: ReplayFlags,

    /// Compare the answers with version 1's in the files, and print the verdict.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_COMPARE",
        help_heading = "Compare"
    )]
    compare: bool,

    /// Write the verdict as a JUnit report, one test for each endpoint.
    #[arg(
        long,
        value_name = "FILE",
        requires = "compare",
        env = "SHADOWTAP_JUNIT",
        help_heading = "Compare"
    )]
    junit: Option<PathBuf>,

    /// End with exit code 3 when version 2 is rejected; with 'continue', also with 4 when that is still open.
    #[arg(
        long,
        value_name = "VERDICT",
        value_enum,
        requires = "compare",
        env = "SHADOWTAP_FAIL_ON",
        help_heading = "Compare"
    )]
    fail_on: Option<FailOn>,

    #[command(flatten)]
    compare_flags: CompareFlags,

    #[command(flatten)]
    tap: TapFlags,

    /// Pass requests through this program before they are sent; it speaks GoReplay's middleware protocol.
    ///
    /// It is run without a shell, gets requests, version 1's answers and the targets' answers, a line each, and what it
    /// returns is sent. One that ends or stalls is started again. docs/goreplay.md says more.
    #[arg(
        long,
        value_name = "COMMAND",
        env = "SHADOWTAP_MIDDLEWARE",
        help_heading = "Replay"
    )]
    middleware: Option<Command>,

    #[command(flatten)]
    run: RunFlags,
}

/// What `replay` is to do.
#[derive(Debug)]
pub struct Job {
    /// What is read, which part of it, and how often.
    pub program: Program,
    /// When requests leave.
    pub schedule: Schedule,
    /// For how long.
    pub duration: Option<Duration>,
    /// Which requests are replayed, and how.
    pub traffic: Traffic,
    /// The program that requests pass through.
    pub middleware: Option<Command>,
    /// Where each request goes; at least one.
    pub targets: Vec<ReplayConfig>,
    /// What is compared, if anything is.
    pub compare: Option<CompareJob>,
    /// Where a report for CI goes.
    pub junit: Option<PathBuf>,
    /// Which verdicts are failures.
    pub fail_on: Option<FailOn>,
    /// How long stopping before the end may take.
    pub grace: Duration,
    /// Where the admin server listens.
    pub admin: Option<AdminConfig>,
}

impl Flags {
    pub(super) fn into_job(self) -> Result<Job, Wrong> {
        let schedule = match (self.rate, self.speed) {
            (Some(rate), _) => Schedule::Rate {
                per_second: rate.per_second(),
            },
            (None, Speed::Max) => Schedule::Immediately,
            (None, Speed::Times(speed)) => Schedule::Original {
                speed,
                skip_idle: self.skip_idle,
            },
        };
        if self.rounds != Rounds(Some(1))
            && let Some(once) = self.input.files.iter().find(|file| is_pipe(file))
        {
            let name = match once.as_os_str() == "-" {
                true => "standard input".into(),
                false => once.to_string_lossy(),
            };
            return Err(Wrong(format!(
                "--loop: {name} can be read once only; keep it in a file to play it again"
            )));
        }
        let slice = Slice::new(self.from, self.until);
        if slice.is_empty() {
            return Err(Wrong(
                "--from and --until: there is nothing between them; --until has to be later than --from".into(),
            ));
        }
        let budgets = self.tap.budgets();
        let traffic = self.select.into_traffic(&self.replay)?;
        let mut targets = self.replay.into_configs(WhenFull::Block, budgets)?;
        let admin = self.run.admin()?;
        let without = (!self.compare).then_some(Without::Unasked);
        let compare = self
            .compare_flags
            .into_job(without, &mut targets, admin.as_ref())?;
        Ok(Job {
            program: Program {
                files: self.input.files,
                tap: self.tap.into_config(self.input.port),
                slice,
                rounds: self.rounds.0,
            },
            schedule,
            duration: self.duration,
            traffic,
            middleware: self.middleware,
            targets,
            compare,
            junit: self.junit,
            fail_on: self.fail_on,
            grace: self.run.grace,
            admin,
        })
    }
}

/// Whether that is not there any more once it was read.
fn is_pipe(file: &Path) -> bool {
    file.as_os_str() == "-" || (file.exists() && !file.is_file() && !file.is_dir())
}

/// Which verdicts are failures.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum FailOn {
    /// Version 2 is rejected.
    Reject,
    /// Version 2 is rejected, or not promoted yet.
    Continue,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Speed {
    Max,
    Times(f64),
}

fn speed(text: &str) -> Result<Speed, String> {
    if text.eq_ignore_ascii_case("max") {
        return Ok(Speed::Max);
    }
    match text.strip_suffix('x').unwrap_or(text).parse::<f64>() {
        Ok(times) if times.is_finite() && times > 0.0 => Ok(Speed::Times(times)),
        _ => Err(format!(
            "'{text}' is neither 'max' nor a factor above 0, such as 0.5, 1 or 2"
        )),
    }
}

/// How often the files are played; `None` is for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rounds(Option<u64>);

impl std::fmt::Display for Rounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(rounds) => rounds.fmt(f),
            None => f.write_str("forever"),
        }
    }
}

fn rounds(text: &str) -> Result<Rounds, String> {
    if text.eq_ignore_ascii_case("forever") {
        return Ok(Rounds(None));
    }
    match text.parse() {
        Ok(rounds @ 1..) => Ok(Rounds(Some(rounds))),
        _ => Err(format!(
            "'{text}' is neither 'forever' nor a number from 1 on"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often() {
        assert_eq!(rounds("3"), Ok(Rounds(Some(3))));
        assert_eq!(rounds("forever"), Ok(Rounds(None)));
        for wrong in ["0", "-1", "", "1.5", "twice"] {
            assert!(rounds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn speeds() {
        assert_eq!(speed("max"), Ok(Speed::Max));
        assert_eq!(speed("2"), Ok(Speed::Times(2.0)));
        assert_eq!(speed("0.5x"), Ok(Speed::Times(0.5)));
        for wrong in ["0", "-1", "inf", "NaN", "fast", ""] {
            assert!(speed(wrong).is_err(), "{wrong}");
        }
    }
}
