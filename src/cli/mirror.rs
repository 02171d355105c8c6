//! `shadowtap mirror`: live capture to a target.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::options::{
    CompareFlags, CompareJob, LiveFlags, ReplayFlags, RunFlags, SelectFlags, TapFlags,
};
use super::{Wrong, values};
use crate::capture::live::LiveConfig;
use crate::middleware::Command;
use crate::replay::{ReplayConfig, WhenFull};
use crate::tap::{TapConfig, WatchedEnd};
use crate::traffic::Traffic;

/// Capture live and send each request to another version as well.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap mirror --port 8080 --to http://my-app-v2\n  \
    shadowtap mirror -i eth0 --port 10.0.0.5:8080 --to http://v2:8080 --admin 127.0.0.1:9100\n  \
    shadowtap mirror --port 80,8080 --to https://staging.example.com --host target\n  \
    shadowtap mirror --port 80 --to http://v2 --safe-only --except path:/admin/** --percent 10\n  \
    shadowtap mirror --port 80 --to http://v2 --control http://v1-b --ignore body.took --route /shops/{shop}")]
pub struct Flags {
    /// The port that version 1 listens on, on this machine; several for several, ADDRESS:PORT for one address.
    #[arg(
        short,
        long,
        value_name = "[ADDRESS:]PORT",
        required = true,
        value_delimiter = ',',
        value_parser = values::watched_end,
        env = "SHADOWTAP_PORT",
        help_heading = "Capture"
    )]
    port: Vec<WatchedEnd>,

    #[command(flatten)]
    live: LiveFlags,

    #[command(flatten)]
    tap: TapFlags,

    #[command(flatten)]
    select: SelectFlags,

    #[command(flatten)]
    replay: ReplayFlags,

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

    /// Do not compare the answers: only send the requests.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_NO_COMPARE",
        help_heading = "Compare"
    )]
    no_compare: bool,

    #[command(flatten)]
    compare: CompareFlags,

    #[command(flatten)]
    run: RunFlags,
}

/// What `mirror` is to do.
#[derive(Debug)]
pub struct Job {
    /// Where packets come from.
    pub live: LiveConfig,
    /// How they become requests.
    pub tap: TapConfig,
    /// Which requests are replayed, and how.
    pub traffic: Traffic,
    /// The program that requests pass through.
    pub middleware: Option<Command>,
    /// Where each request goes; at least one.
    pub targets: Vec<ReplayConfig>,
    /// What is compared, if anything is.
    pub compare: Option<CompareJob>,
    /// How long stopping may take.
    pub grace: Duration,
    /// Where the admin server listens.
    pub admin: Option<SocketAddr>,
}

impl Flags {
    pub(super) fn into_job(self) -> Result<Job, Wrong> {
        let budgets = self.tap.budgets();
        let traffic = self.select.into_live_traffic(&self.replay)?;
        let mut targets = self.replay.into_configs(WhenFull::DropNewest, budgets)?;
        let compare = self.compare.into_job(!self.no_compare, &mut targets)?;
        Ok(Job {
            live: self.live.into_config(self.port.clone())?,
            tap: self.tap.into_config(self.port),
            traffic,
            middleware: self.middleware,
            targets,
            compare,
            grace: self.run.grace,
            admin: self.run.admin,
        })
    }
}
