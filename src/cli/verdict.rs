//! `shadowtap verdict`: the verdict of one sidecar, or of several together.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::options::ToleranceFlags;
use super::{Wrong, values};
use crate::replay::Target;
use crate::serve::read_secret;

/// Ask running sidecars for what they have counted, and say whether version 2 is ready.
///
/// Every address behind a name is asked, so the name of a headless Service stands for all of its pods.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap verdict http://pod-a:9900 http://pod-b:9900\n  \
    shadowtap verdict http://my-app-shadowtap.shop.svc:9900 # a headless Service: all of its pods\n  \
    shadowtap verdict http://127.0.0.1:9900 --wait 30m --json | jq .data.reasons\n\n\
    Exit codes: 0 promote, 3 reject, 4 continue; 1 when nobody answered, 2 for wrong usage.")]
pub struct Flags {
    /// The admin servers of the sidecars, as in http://HOST:PORT.
    #[arg(value_name = "URL", required = true)]
    urls: Vec<Target>,

    /// Ask again until there is a verdict other than to continue, or this time is over.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = values::duration,
        env = "SHADOWTAP_WAIT"
    )]
    wait: Option<Duration>,

    /// How long a sidecar may take to answer.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        value_parser = values::duration,
        env = "SHADOWTAP_TIMEOUT"
    )]
    timeout: Duration,

    /// Send the text of this file as the token that the sidecars ask for.
    #[arg(long, value_name = "FILE", env = "SHADOWTAP_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,

    /// Print the verdict as JSON, like GET /verdict.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_JSON"
    )]
    json: bool,

    #[command(flatten)]
    tolerances: ToleranceFlags,
}

/// What `verdict` is to do.
#[derive(Debug)]
pub struct Job {
    /// Whom to ask; at least one.
    pub urls: Vec<Target>,
    /// How long to ask again.
    pub wait: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// What the sidecars ask for.
    pub token: Option<String>,
    /// Whether JSON is printed.
    pub json: bool,
    /// What is allowed; the rest is as the sidecars have it.
    pub tolerances: ToleranceFlags,
}

impl Flags {
    pub(super) fn into_job(self) -> Result<Job, Wrong> {
        let token = self.admin_token_file.map(|file| read_secret(&file));
        Ok(Job {
            urls: self.urls,
            wait: self.wait.unwrap_or_default(),
            timeout: self.timeout,
            token: token
                .transpose()
                .map_err(|wrong| Wrong(format!("--admin-token-file: {wrong}")))?,
            json: self.json,
            tolerances: self.tolerances,
        })
    }
}
