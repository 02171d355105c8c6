//! `shadowtap inspect`: what is in a file.

use std::path::PathBuf;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::Wrong;
use super::options::{ChooseFlags, FileFlags, TapFlags};
use crate::tap::TapConfig;
use crate::traffic::Choice;

/// Show what is in a capture or a recording: a table of exchanges, totals, a table of endpoints with where version 1 differs from
/// itself, losses by reason.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap inspect traffic.pcap\n  \
    shadowtap inspect --port 8080 monday.pcap.gz tuesday.pcapng\n  \
    shadowtap inspect traffic.pcap --only status:5xx --except path:/health\n  \
    shadowtap inspect --json traffic.pcap | jq .target\n  \
    shadowtap inspect - # a capture on standard input")]
pub struct Flags {
    #[command(flatten)]
    input: FileFlags,

    /// One JSON line for each exchange; the account goes to standard error.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_JSON"
    )]
    json: bool,

    #[command(flatten)]
    choose: ChooseFlags,

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
    /// Which exchanges are shown.
    pub choice: Choice,
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
            files: self.input.files,
            tap: self.tap.into_config_alone(self.input.port),
            choice: self.choose.into_choice(),
            output: if self.json {
                Output::Json
            } else {
                Output::Table
            },
        })
    }
}
