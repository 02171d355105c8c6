//! `shadowtap record`: live capture to a file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::options::{self, ChooseFlags, LiveFlags, RecordingRedactFlags, RunFlags, TapFlags};
use super::{Wrong, values};
use crate::admin::AdminConfig;
use crate::app::egress::{self, Called};
use crate::capture::live::LiveConfig;
use crate::compare::FieldPattern;
use crate::restraint::Limits;
use crate::tap::{TapConfig, WatchedEnd};
use crate::traffic::Choice;

/// Capture live and write to a file.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap record --port 8080 --out traffic.pcap\n  \
    shadowtap record --port 8080 --out traffic.gor.gz --force\n  \
    shadowtap record --port 8080 --out errors.jsonl --only status:5xx --except path:/health\n  \
    shadowtap record --port 8080 --egress payment:80,10.0.0.7:9000 --out calls.jsonl\n  \
    shadowtap record --port 8080 --redact-recording --redact email --out traffic.jsonl\n  \
    shadowtap record -i eth0 --filter 'tcp' --port 80 --out traffic.jsonl")]
pub struct Flags {
    /// The port to capture; several for several, ADDRESS:PORT for one address. Default: every TCP port.
    #[arg(
        short,
        long,
        value_name = "[ADDRESS:]PORT",
        value_delimiter = ',',
        value_parser = values::watched_end,
        env = "SHADOWTAP_PORT",
        help_heading = "Capture"
    )]
    port: Vec<WatchedEnd>,

    /// The file to write; its name says the format: .pcap .gor .jsonl .har, gzipped with .gz behind that. '-' is standard output,
    /// which gets JSON lines.
    #[arg(short, long, value_name = "FILE", env = "SHADOWTAP_OUT")]
    out: PathBuf,

    /// Version 1's outgoing calls to these are recorded as well, for 'shadowtap mock --from'.
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        requires = "port",
        env = "SHADOWTAP_EGRESS"
    )]
    egress: Vec<Called>,

    /// Write over a file that is there already.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_FORCE"
    )]
    force: bool,

    #[command(flatten)]
    live: LiveFlags,

    #[command(flatten)]
    choose: ChooseFlags,

    #[command(flatten)]
    redact: RecordingRedactFlags,

    #[command(flatten)]
    tap: TapFlags,

    #[command(flatten)]
    run: RunFlags,
}

/// What `record` is to do.
#[derive(Debug)]
pub struct Job {
    /// Where packets come from.
    pub live: LiveConfig,
    /// How they become exchanges.
    pub tap: TapConfig,
    /// Which exchanges are written.
    pub choice: Choice,
    /// The fields that are written as tokens, beside those that always are; `None`: everything is written as it was.
    pub redact: Option<Vec<FieldPattern>>,
    /// Whom version 1 calls, as far as that is recorded too.
    pub egress: Vec<Called>,
    /// The file to write.
    pub out: PathBuf,
    /// Whether it may be there already.
    pub force: bool,
    /// What the program may use.
    pub limits: Limits,
    /// How long stopping may take.
    pub grace: Duration,
    /// Where the admin server listens.
    pub admin: Option<AdminConfig>,
}

impl Flags {
    pub(super) fn into_job(self) -> Result<Job, Wrong> {
        options::writable(&self.out)?;
        let limits = self.live.limits(&self.tap);
        let mut live = self.live.into_config(self.port.clone())?;
        egress::widen(&mut live, &self.egress);
        Ok(Job {
            live,
            egress: self.egress,
            tap: self.tap.into_config_alone(self.port),
            choice: self.choose.into_choice(),
            redact: self.redact.into_fields(&self.out)?,
            out: self.out,
            force: self.force,
            limits,
            grace: self.run.grace,
            admin: self.run.into_admin()?,
        })
    }
}
