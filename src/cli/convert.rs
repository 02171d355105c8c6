//! `shadowtap convert`: files to a file.

use std::path::PathBuf;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::options::{self, TapFlags};
use super::{Wrong, values};
use crate::tap::{TapConfig, WatchedEnd};

/// Turn captures and recordings into a file of another kind.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap convert traffic.pcap --out traffic.gor\n  \
    shadowtap convert --port 8080 monday.pcap tuesday.pcap --out both.jsonl.gz\n  \
    shadowtap convert traffic.gor --out traffic.har --force")]
pub struct Flags {
    /// Files to read: .pcap .pcapng .gor .jsonl .har, also gzipped; '-' is standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// The file to write; its name says the format: .pcap .gor .jsonl .har, gzipped with .gz behind that. '-' is standard output,
    /// which gets JSON lines.
    #[arg(short, long, value_name = "FILE", env = "SHADOWTAP_OUT")]
    out: PathBuf,

    /// Write over a file that is there already.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_FORCE"
    )]
    force: bool,

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

    #[command(flatten)]
    tap: TapFlags,
}

/// What `convert` is to do.
#[derive(Debug)]
pub struct Job {
    /// What to read; at least one.
    pub files: Vec<PathBuf>,
    /// How packets become exchanges.
    pub tap: TapConfig,
    /// The file to write.
    pub out: PathBuf,
    /// Whether it may be there already.
    pub force: bool,
}

impl Flags {
    pub(super) fn into_job(self) -> Result<Job, Wrong> {
        options::writable(&self.out)?;
        Ok(Job {
            files: self.files,
            tap: self.tap.into_config(self.port),
            out: self.out,
            force: self.force,
        })
    }
}
