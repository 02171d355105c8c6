//! `shadowtap convert`: files to a file.

use std::path::PathBuf;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::Wrong;
use super::options::{self, ChooseFlags, FileFlags, RecordingRedactFlags, TapFlags};
use crate::compare::FieldPattern;
use crate::tap::TapConfig;
use crate::traffic::Choice;

/// Turn captures and recordings into a file of another kind.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap convert traffic.pcap --out traffic.gor\n  \
    shadowtap convert --port 8080 monday.pcap tuesday.pcap --out both.jsonl.gz\n  \
    shadowtap convert traffic.gor --out traffic.har --force\n  \
    shadowtap convert traffic.pcap --out errors.har --only status:5xx\n  \
    shadowtap convert traffic.pcap --redact-recording --redact email --out to-share.jsonl")]
pub struct Flags {
    #[command(flatten)]
    input: FileFlags,

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

    #[command(flatten)]
    choose: ChooseFlags,

    #[command(flatten)]
    redact: RecordingRedactFlags,

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
    /// Which exchanges are written.
    pub choice: Choice,
    /// The fields that are written as tokens, beside those that always are; `None`: everything is written as it was.
    pub redact: Option<Vec<FieldPattern>>,
    /// The file to write.
    pub out: PathBuf,
    /// Whether it may be there already.
    pub force: bool,
}

impl Flags {
    pub(super) fn into_job(self) -> Result<Job, Wrong> {
        options::writable(&self.out)?;
        Ok(Job {
            files: self.input.files,
            tap: self.tap.into_config_alone(self.input.port),
            choice: self.choose.into_choice(),
            redact: self.redact.into_fields(&self.out)?,
            out: self.out,
            force: self.force,
        })
    }
}
