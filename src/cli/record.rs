//! `shadowtap record`: live capture to a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::options::{
    self, ChooseFlags, LiveFlags, RecordingRedactFlags, RunFlags, Size, TapFlags,
};
use super::{Wrong, values};
use crate::admin::AdminConfig;
use crate::app::egress::{self, Called};
use crate::capture::live::LiveConfig;
use crate::compare::FieldPattern;
use crate::record::{Format, Rotation};
use crate::restraint::Limits;
use crate::tap::{TapConfig, WatchedEnd};
use crate::traffic::Choice;

/// Capture live and write to a file.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap record --port 8080 --out traffic.pcap\n  \
    shadowtap record --port 8080 --out traffic.gor.gz --force\n  \
    shadowtap record --port 8080 --out traffic.gor.gz --rotate-size 100MiB --rotate-every 1h --max-size 1GiB\n  \
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

    /// Go on in the next file before one becomes larger than this; see --max-size for how many are kept. Files are numbered:
    /// traffic.gor becomes traffic.00001.gor, traffic.00002.gor and so on, behind those that are there already.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = options::size,
        conflicts_with = "force",
        env = "SHADOWTAP_ROTATE_SIZE",
        help_heading = "Files"
    )]
    rotate_size: Option<Size>,

    /// Go on in the next file after so long, numbered as with --rotate-size.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = values::duration,
        conflicts_with = "force",
        env = "SHADOWTAP_ROTATE_EVERY",
        help_heading = "Files"
    )]
    rotate_every: Option<Duration>,

    /// The recording never becomes larger than this. With --rotate-size or --rotate-every the oldest numbered files are deleted, also
    /// those of earlier runs; without, recording ends.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = options::size,
        env = "SHADOWTAP_MAX_SIZE",
        help_heading = "Files"
    )]
    max_size: Option<Size>,

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
    /// When it goes on in another file, and how large it may become.
    pub rotation: Rotation,
    /// How long stopping may take.
    pub grace: Duration,
    /// Where the admin server listens.
    pub admin: Option<AdminConfig>,
}

impl Flags {
    pub(super) fn into_job(self) -> Result<Job, Wrong> {
        options::writable(&self.out)?;
        let limits = self.live.limits(&self.tap);
        let rotation = rotation(
            &self.out,
            self.rotate_size,
            self.rotate_every,
            self.max_size,
        )?;
        let mut live = self.live.into_config(self.port.clone(), &self.tap)?;
        if !self.egress.is_empty() {
            options::by_one_worker(&live, "--egress needs the order of all packets")?;
        }
        if Format::of_name(&self.out).is_some_and(|(format, _)| format == Format::Pcap) {
            options::by_one_worker(
                &live,
                "a .pcap recording holds the packets of one capture, in order",
            )?;
        }
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
            rotation,
            grace: self.run.grace,
            admin: self.run.admin()?,
        })
    }
}

/// When the recording goes on in another file.
fn rotation(
    out: &Path,
    size: Option<Size>,
    every: Option<Duration>,
    max: Option<Size>,
) -> Result<Rotation, Wrong> {
    let rotation = Rotation {
        size: size.map(|it| it.0),
        every,
        max: max.map(|it| it.0),
    };
    if rotation == Rotation::default() {
        return Ok(rotation);
    }
    let is_file = out.metadata().map_or(true, |it| it.is_file());
    if out.as_os_str() == "-" || !is_file {
        return Err(Wrong(
            "--rotate-size, --rotate-every and --max-size: --out must name a file".to_owned(),
        ));
    }
    for (flag, size) in [("--rotate-size", size), ("--max-size", max)] {
        if size.is_some_and(|size| size.0 < SMALLEST) {
            return Err(Wrong(format!("{flag}: at least {}", Size(SMALLEST))));
        }
    }
    if every.is_some_and(|every| every.is_zero()) {
        return Err(Wrong("--rotate-every: longer than 0s".to_owned()));
    }
    if let (Some(size), Some(max)) = (size, max)
        && size.0 > max.0 / 2
    {
        return Err(Wrong(format!(
            "--rotate-size: at most half of --max-size ({max}), so that one file is left when the oldest is deleted"
        )));
    }
    Ok(rotation)
}

/// Smaller files hold next to nothing.
const SMALLEST: u64 = 4 << 10;
