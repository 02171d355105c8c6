//! `shadowtap mirror`: live capture to a target.

use std::time::Duration;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::options::{
    self, CompareFlags, CompareJob, LiveFlags, ReplayFlags, RunFlags, SelectFlags, TapFlags,
    Without,
};
use super::{Wrong, values};
use crate::admin::AdminConfig;
use crate::app::egress::{self, Called, EgressConfig};
use crate::capture::live::LiveConfig;
use crate::middleware::Command;
use crate::replay::{ReplayConfig, Scheme, Target, WhenFull};
use crate::restraint::Limits;
use crate::tap::{TapConfig, WatchedEnd};
use crate::traffic::Traffic;

/// Capture live and send each request to another version as well.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap mirror --port 8080 --to http://my-app-v2\n  \
    shadowtap mirror -i eth0 --port 10.0.0.5:8080 --to http://v2:8080 --admin 127.0.0.1:9100\n  \
    shadowtap mirror --port 80,8080 --to https://staging.example.com --host target\n  \
    shadowtap mirror --port 80 --to http://v2 --learn-egress payment:80 --to-mock http://mock:9900\n  \
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
    egress: EgressFlags,

    #[command(flatten)]
    run: RunFlags,
}

/// Version 1's outgoing calls.
#[derive(Args, Debug)]
#[command(next_help_heading = "Outgoing calls")]
struct EgressFlags {
    /// Watch version 1's outgoing calls to these, and learn what they are answered; see 'shadowtap mock'.
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        env = "SHADOWTAP_LEARN_EGRESS"
    )]
    learn_egress: Vec<Called>,

    /// The mock that is told of the calls and of the replays, so that it gives version 2 the same answers. How long version 2
    /// takes is not judged then: it waits there until version 1 has made its own calls.
    #[arg(
        long,
        value_name = "URL",
        requires = "learn_egress",
        env = "SHADOWTAP_TO_MOCK"
    )]
    to_mock: Option<Target>,
}

impl EgressFlags {
    fn into_config(self) -> Result<Option<EgressConfig>, Wrong> {
        if let Some(mock) = &self.to_mock
            && mock.scheme() != Scheme::Http
        {
            return Err(Wrong(format!(
                "--to-mock {mock}: a mock is told over http://, not https://"
            )));
        }
        Ok((!self.learn_egress.is_empty()).then_some(EgressConfig {
            ends: self.learn_egress,
            to_mock: self.to_mock,
        }))
    }
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
    /// What is learnt of version 1's outgoing calls.
    pub egress: Option<EgressConfig>,
    /// What the program may use.
    pub limits: Limits,
    /// How long stopping may take.
    pub grace: Duration,
    /// Where the admin server listens.
    pub admin: Option<AdminConfig>,
}

impl Flags {
    pub(super) fn into_job(self) -> Result<Job, Wrong> {
        let budgets = self.tap.budgets();
        let traffic = self.select.into_live_traffic(&self.replay)?;
        let mut targets = self.replay.into_configs(WhenFull::DropNewest, budgets)?;
        let admin = self.run.admin()?;
        let without = self.no_compare.then_some(Without::SwitchedOff);
        let mut compare = self
            .compare
            .into_job(without, &mut targets, admin.as_ref())?;
        let egress = self.egress.into_config()?;
        if let (Some(compare), Some(_)) = (
            &mut compare,
            egress.as_ref().and_then(|egress| egress.to_mock.as_ref()),
        ) {
            compare.settings.untimed = true;
        }
        let limits = self.live.limits(&self.tap);
        let mut live = self.live.into_config(self.port.clone(), &self.tap)?;
        if let Some(egress) = &egress {
            options::by_one_worker(&live, "--learn-egress needs the order of all packets")?;
            egress::widen(&mut live, &egress.ends);
        }
        Ok(Job {
            live,
            egress,
            tap: self.tap.into_config(self.port),
            traffic,
            middleware: self.middleware,
            targets,
            compare,
            limits,
            grace: self.run.grace,
            admin,
        })
    }
}
