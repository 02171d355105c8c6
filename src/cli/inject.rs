//! `shadowtap inject`: the sidecar into Kubernetes manifests.

use std::path::PathBuf;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::{Config, Wrong, values};
use crate::inject::Change;
use crate::inject::sidecar::{DEFAULT_ADMIN, DEFAULT_IMAGE, Kind, Sidecar, User};
use crate::replay::Target;
use crate::tap::WatchedEnd;
use crate::traffic::Percent;

/// Add the sidecar to Kubernetes manifests, or take it out again.
///
/// Reads manifests (YAML of any number of documents, or JSON) and prints them with the sidecar in the pods of Deployments,
/// StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs, Rollouts and Pods, also in a List. Everything else stays as it
/// is, to the byte. A second run changes nothing; one with other flags brings the sidecar up to date.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap inject --to http://my-app-v2 app.yaml | kubectl apply -f -\n  \
    kubectl get deploy my-app -o yaml | shadowtap inject --to http://my-app-v2 --percent 10 - | kubectl apply -f -\n  \
    shadowtap inject --port 8080 --to http://my-app-v2 --workload my-app-v1 all.yaml -- --safe-only\n  \
    shadowtap inject --remove app.yaml")]
pub struct Flags {
    /// Manifests to read; '-' is standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Where requests are sent: http://SERVICE[:PORT], or https; several for several targets.
    #[arg(
        long,
        value_name = "URL",
        required_unless_present = "remove",
        value_delimiter = ',',
        env = "SHADOWTAP_TO"
    )]
    to: Vec<Target>,

    /// The port that version 1 listens on, ADDRESS:PORT behind a mesh's proxy. Default: the one that the
    /// containers name, of several the one called http or web.
    #[arg(
        short,
        long,
        value_name = "[ADDRESS:]PORT",
        value_delimiter = ',',
        value_parser = values::watched_end,
        env = "SHADOWTAP_PORT"
    )]
    port: Vec<WatchedEnd>,

    /// Mirror so many percent of the connections.
    #[arg(long, value_name = "SHARE", value_parser = percent, env = "SHADOWTAP_PERCENT")]
    percent: Option<String>,

    /// The sidecar's image.
    #[arg(long, value_name = "IMAGE", default_value = DEFAULT_IMAGE, env = "SHADOWTAP_IMAGE")]
    image: String,

    /// The port of the sidecar's /metrics, /healthz and /readyz.
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = DEFAULT_ADMIN,
        value_parser = clap::value_parser!(u16).range(1..),
        env = "SHADOWTAP_ADMIN"
    )]
    admin: u16,

    /// Change only the workload of this name; several for several. Default: every workload in the manifests.
    #[arg(
        short,
        long,
        value_name = "NAME",
        value_delimiter = ',',
        env = "SHADOWTAP_WORKLOAD"
    )]
    workload: Vec<String>,

    /// An ordinary container, for clusters before Kubernetes 1.29, which know no native sidecars.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_CLASSIC"
    )]
    classic: bool,

    /// User 65532 instead of user 0, for clusters that demand it; this needs allowPrivilegeEscalation.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_NON_ROOT"
    )]
    non_root: bool,

    /// Take the sidecar out.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_REMOVE"
    )]
    remove: bool,

    /// More flags for 'shadowtap mirror' in the sidecar, behind '--'.
    #[arg(value_name = "FLAG", last = true)]
    more: Vec<String>,
}

/// What `inject` is to do.
#[derive(Debug)]
pub struct Job {
    /// What to read; at least one.
    pub files: Vec<PathBuf>,
    /// What to do.
    pub change: Change,
    /// The workloads to do it to; empty for all.
    pub only: Vec<String>,
}

impl Flags {
    pub(super) fn into_job(self) -> Result<Job, Wrong> {
        let mut more: Vec<String> = Vec::new();
        more.extend(self.percent.map(|percent| format!("--percent={percent}")));
        more.extend(self.more);
        let sidecar = Sidecar {
            kind: if self.classic {
                Kind::Classic
            } else {
                Kind::Native
            },
            user: if self.non_root {
                User::NonRoot
            } else {
                User::Root
            },
            image: self.image,
            watched: self.port,
            targets: self.to,
            admin: self.admin,
            more,
        };
        let change = if self.remove {
            Change::Remove
        } else {
            check(&sidecar)?;
            Change::Add(sidecar)
        };
        Ok(Job {
            files: self.files,
            change,
            only: self.workload,
        })
    }
}

/// Holds the sidecar's flags to what `mirror` takes: better said here than by a pod that does not start.
fn check(sidecar: &Sidecar) -> Result<(), Wrong> {
    let any = [WatchedEnd {
        address: None,
        port: 80,
    }];
    let watched = match sidecar.watched.is_empty() {
        true => &any[..],
        false => &sidecar.watched,
    };
    let line = std::iter::once("shadowtap".to_owned()).chain(sidecar.arguments(watched));
    match Config::parse(line) {
        Ok(_) => Ok(()),
        Err(error) => {
            let error = error.to_string();
            let error = error.lines().next().unwrap_or_default();
            Err(Wrong(format!(
                "the sidecar would not start: {}",
                error.trim_start_matches("error: ")
            )))
        }
    }
}

/// A share, as it was written.
fn percent(text: &str) -> Result<String, String> {
    match text.parse::<Percent>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
