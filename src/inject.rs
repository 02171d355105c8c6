//! `inject`: adds the sidecar to Kubernetes manifests, and takes it out again.
//!
//! A manifest is edited as text: `inject/yaml.rs` says where its nodes are, and pieces are put in or cut out there. So
//! comments, order and layout of everything else stay to the byte, in YAML of block and flow style and in JSON, which is
//! YAML too. What is put in is described in [`sidecar`].

mod check;
mod edit;
pub mod sidecar;
mod yaml;

use std::fmt;

use self::edit::Edits;
pub use self::sidecar::{Kind, Sidecar};
use self::yaml::{Node, Value};
use crate::tap::WatchedEnd;

/// What is to be done to the workloads in a manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The sidecar is added, or brought up to date.
    Add(Sidecar),
    /// It is taken out.
    Remove,
}

/// A manifest after the change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Injected {
    /// Its text.
    pub text: String,
    /// Each workload in it that was to be changed, in order, and what became of it.
    pub workloads: Vec<(String, Done)>,
}

/// What became of a workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    /// The sidecar was added.
    Added,
    /// The sidecar was there, and is now as was asked for.
    Updated,
    /// The sidecar was taken out.
    Removed,
    /// Nothing was to be done.
    Unchanged,
    /// It runs only while a Helm release is installed, changed or tested, and was not named.
    HelmHook,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "the sidecar is added",
            Self::Updated => "the sidecar is brought up to date",
            Self::Removed => "the sidecar is taken out",
            Self::Unchanged => "nothing is to be done",
            Self::HelmHook => {
                "left as it is, since it is a Helm hook, which serves nobody; --workload NAME adds the sidecar all the same"
            }
        })
    }
}

/// Why a manifest cannot be changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InjectError {
    /// It is not YAML.
    #[error("line {line}: not YAML: {detail}")]
    NotYaml {
        /// The line, from 1.
        line: usize,
        /// What the parser said.
        detail: String,
    },
    /// A workload is not of the form that Kubernetes gives it.
    #[error("{workload}: {field} is {found}, not {wanted}")]
    Shape {
        /// Which workload.
        workload: String,
        /// Which field.
        field: String,
        /// What was found.
        found: &'static str,
        /// What was expected.
        wanted: &'static str,
    },
    /// Which port is to be watched cannot be told.
    #[error(
        "{workload}: {detail}; say which port version 1 listens on: --port PORT, or leave this one out by naming the others: \
         --workload NAME"
    )]
    Port {
        /// Which workload.
        workload: String,
        /// What is in the way.
        detail: String,
    },
    /// The sidecar's own port is taken.
    #[error(
        "{workload}: its container '{container}' has port {port} already; give the sidecar another: --admin PORT"
    )]
    AdminPort {
        /// Which workload.
        workload: String,
        /// Which container.
        container: String,
        /// The port.
        port: u16,
    },
    /// A container of somebody else's has the sidecar's name.
    #[error(
        "{workload}: it has a container called '{name}' that is not the sidecar: neither its image nor its arguments are, and it \
         would be lost; rename it, or name the other workloads: --workload NAME",
        name = sidecar::NAME
    )]
    NameTaken {
        /// Which workload.
        workload: String,
    },
    /// The pod has no network of its own.
    #[error(
        "{workload}: the pod has hostNetwork, where the sidecar would see the traffic of the whole node; run 'shadowtap mirror' \
         on the node instead, or name the other workloads: --workload NAME"
    )]
    HostNetwork {
        /// Which workload.
        workload: String,
    },
    /// The text cannot be edited without leaving something else behind.
    #[error(
        "it is laid out in a way that cannot be changed in place; write it plainly first: kubectl apply --dry-run=client -o yaml -f FILE"
    )]
    Layout,
    /// The sidecar would keep a job from ending.
    #[error(
        "{workload}: a job ends when all of its containers have ended, which a classic sidecar does not; leave --classic out \
         (Kubernetes 1.29 or later)"
    )]
    ClassicJob {
        /// Which workload.
        workload: String,
    },
}

/// Changes the workloads in `manifest`, YAML of any number of documents or JSON; those named in `only`, or all if it is empty.
///
/// # Errors
/// What is wrong with the manifest.
pub fn inject(manifest: &str, change: &Change, only: &[String]) -> Result<Injected, InjectError> {
    let documents = yaml::parse(manifest)?;
    let mut found = Vec::new();
    for document in &documents {
        find_workloads(document, only, &mut found);
    }
    let mut edits = Edits::new(manifest);
    let mut dones = Vec::new();
    for workload in &found {
        dones.push(match change {
            Change::Add(_) if workload.is_hook => Done::HelmHook,
            _ => workload.apply(change, &mut edits)?,
        });
    }
    let text = edits.apply();
    let list = match change {
        Change::Remove => None,
        Change::Add(sidecar) => Some(sidecar.kind.lists().0),
    };
    if text != manifest && !check::is_as_meant(&documents, &found, &text, only, list) {
        return Err(InjectError::Layout);
    }
    // What cannot be taken out again is not put in.
    if list.is_some() {
        inject(&text, &Change::Remove, only).map_err(|_| InjectError::Layout)?;
    }
    let names = found.into_iter().map(|workload| workload.name);
    Ok(Injected {
        text,
        workloads: names.zip(dones).collect(),
    })
}

/// A workload, and where its pod's specification is.
struct Workload<'a> {
    /// `Deployment my-app`.
    name: String,
    kind: &'a str,
    spec: Option<&'a Node>,
    /// Whether it is a Helm hook that nobody named.
    is_hook: bool,
}

fn find_workloads<'a>(node: &'a Node, only: &[String], found: &mut Vec<Workload<'a>>) {
    let Some(kind) = node.get("kind").and_then(Node::text) else {
        return;
    };
    if kind.ends_with("List")
        && let Some(Value::List(items)) = node.get("items").map(|items| &items.value)
    {
        for item in items {
            find_workloads(item, only, found);
        }
        return;
    }
    // Others have kinds of the same names, such as Volcano's Job.
    let group = node.get("apiVersion").and_then(Node::text);
    let group = group.map(|version| version.rsplit_once('/').map_or("", |(group, _)| group));
    if group.is_some_and(|group| !matches!(group, "" | "apps" | "batch" | "argoproj.io")) {
        return;
    }
    let path: &[&str] = match kind {
        "Pod" => &["spec"],
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job"
        | "Rollout" => &["spec", "template", "spec"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ => return,
    };
    let name = node.at(&["metadata", "name"]).and_then(Node::text);
    if !only.is_empty() && !only.iter().any(|only| Some(only.as_str()) == name) {
        return;
    }
    // As far as an alias, of which it is said that it is one.
    let spec = path.iter().try_fold(node, |node, key| match node.value {
        Value::Alias => Some(node),
        _ => node.get(key),
    });
    // An Argo Rollout may refer to the template of a Deployment.
    if kind == "Rollout" && spec.is_none() {
        return;
    }
    found.push(Workload {
        name: format!("{kind} {}", name.unwrap_or("without a name")),
        kind,
        spec,
        is_hook: only.is_empty()
            && node
                .at(&["metadata", "annotations", "helm.sh/hook"])
                .is_some(),
    });
}

impl Workload<'_> {
    fn apply(&self, change: &Change, edits: &mut Edits<'_>) -> Result<Done, InjectError> {
        let spec = self
            .spec
            .ok_or_else(|| self.shape("the pod's spec", None, "a mapping"))?;
        let Value::Map(_) = spec.value else {
            return Err(self.shape("the pod's spec", Some(spec), "a mapping"));
        };
        self.list(spec, "containers")?
            .filter(|containers| !containers.is_empty())
            .ok_or_else(|| {
                let merged = || spec.get("<<");
                let found = spec.get("containers").or_else(merged);
                self.shape("containers", found, "a list of containers")
            })?;
        for list in ["initContainers", "volumes"] {
            self.list(spec, list)?;
        }
        let named = ["initContainers", "containers"].map(|list| spec.item(list, sidecar::NAME));
        let had = named.iter().any(Option::is_some);
        if named.iter().flatten().any(|(_, it)| !sidecar::is_one(it)) {
            let workload = self.name.clone();
            return Err(InjectError::NameTaken { workload });
        }
        let before = edits.len();
        match change {
            Change::Remove => {
                edits.remove(spec, &check::OURS);
            }
            Change::Add(sidecar) => {
                if sidecar.kind == Kind::Classic && matches!(self.kind, "Job" | "CronJob") {
                    let workload = self.name.clone();
                    return Err(InjectError::ClassicJob { workload });
                }
                if spec.get("hostNetwork").is_some_and(Node::is_true) {
                    let workload = self.name.clone();
                    return Err(InjectError::HostNetwork { workload });
                }
                let (list, other) = sidecar.kind.lists();
                let watched = match sidecar.watched.is_empty() {
                    true => vec![self.port(spec)?],
                    false => sidecar.watched.clone(),
                };
                self.check_admin_port(spec, sidecar.admin)?;
                edits.remove(spec, &[(other, sidecar::NAME)]);
                edits.ensure(spec, list, sidecar::NAME, &sidecar.container(&watched));
                edits.ensure(spec, "volumes", sidecar::NO_TOKEN, &sidecar::no_token());
            }
        }
        Ok(match (had, edits.len() > before, change) {
            (_, false, _) => Done::Unchanged,
            (_, true, Change::Remove) => Done::Removed,
            (true, true, Change::Add(_)) => Done::Updated,
            (false, true, Change::Add(_)) => Done::Added,
        })
    }

    /// A field that is a list, if it is there and not null.
    fn list<'n>(&self, spec: &'n Node, field: &str) -> Result<Option<&'n [Node]>, InjectError> {
        match spec.get(field) {
            None => Ok(None),
            Some(node) if node.is_null() => Ok(None),
            Some(node) => match &node.value {
                Value::List(items) => Ok(Some(items)),
                _ => Err(self.shape(field, Some(node), "a list")),
            },
        }
    }

    /// The ports of the containers, the sidecar's aside: container, port's name, number.
    fn ports(spec: &Node) -> Vec<(&str, Option<&str>, u16)> {
        let mut ports = Vec::new();
        for list in ["containers", "initContainers"] {
            for container in spec.get(list).map_or(&[][..], Node::items) {
                let name = container.get("name").and_then(Node::text).unwrap_or("");
                if name == sidecar::NAME {
                    continue;
                }
                for port in container.get("ports").map_or(&[][..], Node::items) {
                    let text = |field: &str| port.get(field).and_then(Node::text);
                    if let Some(number) = text("containerPort").and_then(|it| it.parse().ok())
                        && text("protocol").is_none_or(|protocol| protocol == "TCP")
                    {
                        ports.push((name, text("name"), number));
                    }
                }
            }
        }
        ports
    }

    /// The port to watch: the only one, or the only one that is called http or web. A name that only begins like that may be
    /// that of metrics.
    fn port(&self, spec: &Node) -> Result<WatchedEnd, InjectError> {
        let ports = Self::ports(spec);
        let numbers = |is_meant: fn(Option<&str>) -> bool| {
            let meant = ports.iter().filter(|port| is_meant(port.1));
            let mut numbers: Vec<u16> = meant.map(|port| port.2).collect();
            // One port may be opened to the node under several names.
            numbers.sort_unstable();
            numbers.dedup();
            numbers
        };
        let all = numbers(|_| true);
        let http = numbers(|name| matches!(name, Some("http" | "web")));
        match (&*all, &*http) {
            (&[port], _) | (_, &[port]) => Ok(WatchedEnd {
                address: None,
                port,
            }),
            _ => Err(InjectError::Port {
                workload: self.name.clone(),
                detail: if all.is_empty() {
                    "its containers name no port".to_owned()
                } else {
                    format!("its containers name the ports {}", sidecar::joined(&all))
                },
            }),
        }
    }

    fn check_admin_port(&self, spec: &Node, admin: u16) -> Result<(), InjectError> {
        match Self::ports(spec).into_iter().find(|port| port.2 == admin) {
            None => Ok(()),
            Some((container, _, port)) => Err(InjectError::AdminPort {
                workload: self.name.clone(),
                container: container.to_owned(),
                port,
            }),
        }
    }

    fn shape(&self, field: &str, found: Option<&Node>, wanted: &'static str) -> InjectError {
        InjectError::Shape {
            workload: self.name.clone(),
            field: field.to_owned(),
            found: found.map_or("missing", Node::kind),
            wanted,
        }
    }
}

#[cfg(test)]
mod tests;
