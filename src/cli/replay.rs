//! `shadowtap replay`: files to a target.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::options::{ReplayFlags, RunFlags, SelectFlags, TapFlags};
use super::{Wrong, values};
use crate::replay::{ReplayConfig, Schedule, WhenFull};
use crate::tap::{TapConfig, WatchedEnd};
use crate::traffic::{Rate, Traffic};

/// Send the requests in captures and recordings to a target.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap replay traffic.pcap --port 8080 --to http://v2\n  \
    shadowtap replay monday.pcap.gz tuesday.gor --to http://v2:8080 --speed 2\n  \
    shadowtap replay - --to http://v2 --speed max # a capture on standard input\n  \
    shadowtap replay traffic.gor --to http://v2 --only path:/api/** --except status:5xx --rate 500/s")]
pub struct Flags {
    /// Files to read, merged by time: .pcap .pcapng .gor .jsonl .har, also gzipped; '-' is standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Take requests to this port only; several for several, ADDRESS:PORT for one address. Default: every TCP port.
    #[arg(
        short,
        long,
        value_name = "[ADDRESS:]PORT",
        value_delimiter = ',',
        value_parser = values::watched_end,
        env = "SHADOWTAP_PORT"
    )]
    port: Vec<WatchedEnd>,

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

    #[command(flatten)]
    select: SelectFlags,

    #[command(flatten)]
    replay: ReplayFlags,

    #[command(flatten)]
    tap: TapFlags,

    #[command(flatten)]
    run: RunFlags,
}

/// What `replay` is to do.
#[derive(Debug)]
pub struct Job {
    /// What to read; at least one.
    pub files: Vec<PathBuf>,
    /// How packets become requests.
    pub tap: TapConfig,
    /// Which requests are replayed, and how.
    pub traffic: Traffic,
    /// Where each request goes; at least one.
    pub targets: Vec<ReplayConfig>,
    /// How long stopping before the end may take.
    pub grace: Duration,
    /// Where the admin server listens.
    pub admin: Option<SocketAddr>,
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
        Ok(Job {
            files: self.files,
            tap: self.tap.into_config(self.port),
            traffic: self.select.into_traffic(&self.replay)?,
            targets: self.replay.into_configs(schedule, WhenFull::Block)?,
            grace: self.run.grace,
            admin: self.run.admin,
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
