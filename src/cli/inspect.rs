//! `shadowtap inspect`: what is in a file.

use std::path::PathBuf;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::options::TapFlags;
use super::{Wrong, values};
use crate::tap::{TapConfig, WatchedEnd};

/// Show what is in a capture or a recording: a table of exchanges, totals, losses by reason.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap inspect traffic.pcap\n  \
    shadowtap inspect --port 8080 monday.pcap.gz tuesday.pcapng\n  \
    shadowtap inspect --json traffic.pcap | jq .target\n  \
    shadowtap inspect - # a capture on standard input")]
pub struct Flags {
    /// Files to read: .pcap .pcapng .gor .jsonl .har, also gzipped; '-' is standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Look for HTTP on this port only; several for several, ADDRESS:PORT for one address. Default: every TCP port.
    #[arg(
        short,
        long,
        value_name = "[ADDRESS:]PORT",
        value_delimiter = ',',
        value_parser = values::watched_end,
        env = "SHADOWTAP_PORT"
    )]
    port: Vec<WatchedEnd>,

    /// One JSON line for each exchange; the account goes to standard error.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_JSON"
    )]
    json: bool,

    #[command(flatten)]
    tap: TapFlags,
}

/// What `inspect` is to do.
#[derive(Debug)]
pub struct Job {
    /// What to read; at least one.
    pub files: Vec<PathBuf>,
    /// How packets become exchanges.
    pub tap: TapConfig,
    /// What is printed for each exchange.
    pub output: Output,
}

/// What is printed for each exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// A line of a table.
    Table,
    /// A JSON line.
    Json,
}

impl Flags {
    pub(super) fn into_job(self) -> Result<Job, Wrong> {
        Ok(Job {
            files: self.files,
            tap: self.tap.into_config(self.port),
            output: if self.json {
                Output::Json
            } else {
                Output::Table
            },
        })
    }
}
