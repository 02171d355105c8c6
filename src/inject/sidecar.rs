//! What is put into a manifest: the sidecar's container, and a volume that keeps the service account's token out of it.

use std::fmt::Write as _;

use super::yaml::{Node, Value};
use crate::replay::Target;
use crate::tap::WatchedEnd;

/// The name of the container.
pub const NAME: &str = "shadowtap";

/// The name of the volume that lies where the service account's token would be: the sidecar asks the cluster for nothing.
pub const NO_TOKEN: &str = "shadowtap-no-token";

/// The image, if no other is named: to be pushed under this name, or to be loaded onto the nodes.
pub const DEFAULT_IMAGE: &str = "shadowtap:0.1.0";

/// The port of `/metrics`, `/healthz` and `/readyz`, if no other is given.
pub const DEFAULT_ADMIN: u16 = 9471;

/// The sidecar as it is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sidecar {
    /// How it lives in the pod.
    pub kind: Kind,
    /// Whom it runs as.
    pub user: User,
    /// The image.
    pub image: String,
    /// Where version 1 listens; empty for the port that its container names.
    pub watched: Vec<WatchedEnd>,
    /// Where requests go.
    pub targets: Vec<Target>,
    /// The port of `/metrics`, `/healthz` and `/readyz`.
    pub admin: u16,
    /// More flags of `mirror`.
    pub more: Vec<String>,
}

/// How a sidecar lives in its pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An init container that is always restarted: it starts before and ends after the others, and jobs can end
    /// (Kubernetes 1.29 or later).
    Native,
    /// One more container.
    Classic,
}

impl Kind {
    /// The list of containers that it is in, and the one that it is not in.
    pub(super) const fn lists(self) -> (&'static str, &'static str) {
        match self {
            Self::Native => ("initContainers", "containers"),
            Self::Classic => ("containers", "initContainers"),
        }
    }
}

/// Whom a sidecar runs as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum User {
    /// User 0 with no capability but NET_RAW, which needs no file capability and no privilege escalation.
    Root,
    /// User 65532, who gets NET_RAW from the file capability of the program; the kernel takes that for an escalation.
    NonRoot,
}

impl Sidecar {
    /// The flags of the program, when it watches `watched`.
    #[must_use]
    pub fn arguments(&self, watched: &[WatchedEnd]) -> Vec<String> {
        let mut arguments = vec![
            "mirror".to_owned(),
            format!("--port={}", joined(watched)),
            format!("--to={}", joined(&self.targets)),
            format!("--admin=0.0.0.0:{}", self.admin),
        ];
        arguments.extend(self.more.iter().cloned());
        arguments
    }

    pub(super) fn container(&self, watched: &[WatchedEnd]) -> Piece {
        let probe = |period: u16, failures: u16| {
            let get = map([("path", text("/healthz")), ("port", number(self.admin))]);
            map([
                ("httpGet", get),
                ("periodSeconds", number(period)),
                ("failureThreshold", number(failures)),
            ])
        };
        let arguments = self.arguments(watched);
        let mut fields = vec![
            ("name", text(NAME)),
            ("image", text(&self.image)),
            ("args", list(arguments.iter().map(|flag| text(flag)))),
        ];
        if self.kind == Kind::Native {
            fields.push(("restartPolicy", text("Always")));
        }
        let port = map([("name", text(NAME)), ("containerPort", number(self.admin))]);
        let (user, is_root) = match self.user {
            User::Root => (0, true),
            User::NonRoot => (65532, false),
        };
        let capabilities = map([
            ("drop", list([text("ALL")])),
            ("add", list([text("NET_RAW")])),
        ]);
        let security = map([
            ("runAsUser", number(user)),
            ("runAsNonRoot", flag(!is_root)),
            ("allowPrivilegeEscalation", flag(!is_root)),
            ("readOnlyRootFilesystem", flag(true)),
            ("capabilities", capabilities),
            ("seccompProfile", map([("type", text("RuntimeDefault"))])),
        ]);
        let resources = map([
            (
                "requests",
                map([("cpu", text("50m")), ("memory", text("64Mi"))]),
            ),
            ("limits", map([("memory", text("512Mi"))])),
        ]);
        let mount = map([
            ("name", text(NO_TOKEN)),
            (
                "mountPath",
                text("/var/run/secrets/kubernetes.io/serviceaccount"),
            ),
            ("readOnly", flag(true)),
        ]);
        fields.extend([
            ("ports", list([port])),
            ("startupProbe", probe(1, 30)),
            ("livenessProbe", probe(10, 6)),
            ("resources", resources),
            ("securityContext", security),
            ("volumeMounts", list([mount])),
        ]);
        Piece::Map(fields)
    }
}

/// Whether a container of that name is the sidecar, and not one of the application that happens to be called so: by its
/// image, by what it runs, or by the volume that only the sidecar has.
pub(super) fn is_one(container: &Node) -> bool {
    let is_image = |image: &str| {
        let name = image.rsplit('/').next().unwrap_or(image);
        name.split([':', '@']).next() == Some(NAME)
    };
    let texts = |field: &str| container.get(field).map_or(&[][..], Node::items);
    let mut words = ["command", "args"]
        .into_iter()
        .flat_map(texts)
        .filter_map(Node::text);
    container
        .get("image")
        .and_then(Node::text)
        .is_some_and(is_image)
        || words.any(|word| word == "mirror")
        || container.item("volumeMounts", NO_TOKEN).is_some()
}

/// The volume.
pub(super) fn no_token() -> Piece {
    map([
        ("name", text(NO_TOKEN)),
        ("emptyDir", Piece::Map(Vec::new())),
    ])
}

/// A piece of a manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    Text(String),
    /// A number or truth value.
    Plain(String),
    List(Vec<Self>),
    Map(Vec<(&'static str, Self)>),
}

impl Piece {
    /// Whether `node` says all of it; the cluster adds what it takes for granted.
    pub(super) fn is_in(&self, node: &Node) -> bool {
        match (self, &node.value) {
            (Self::Text(text) | Self::Plain(text), Value::Scalar(found, _)) => text == found,
            (Self::List(pieces), Value::List(items)) => {
                pieces.len() == items.len()
                    && pieces
                        .iter()
                        .zip(items)
                        .all(|(piece, item)| piece.is_in(item))
            }
            (Self::Map(fields), Value::Map(_)) => fields
                .iter()
                .all(|(key, piece)| node.get(key).is_some_and(|value| piece.is_in(value))),
            _ => false,
        }
    }

    /// As JSON, in one line.
    pub(super) fn json(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Plain(text) => text.clone(),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(Self::json).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Map(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(key, value)| format!("\"{key}\": {}", value.json()))
                    .collect();
                format!("{{{}}}", fields.join(", "))
            }
        }
    }

    /// As YAML in block style, each line but the first indented by so many blanks; no newline at the end.
    pub(super) fn block(&self, indent: usize) -> String {
        let blanks = " ".repeat(indent);
        match self {
            Self::Text(text) if is_plain(text) => text.clone(),
            Self::Text(_) | Self::Plain(_) => self.json(),
            Self::List(items) if items.is_empty() => "[]".to_owned(),
            Self::Map(fields) if fields.is_empty() => "{}".to_owned(),
            Self::List(items) => {
                let items: Vec<_> = items
                    .iter()
                    .map(|item| format!("- {}", item.block(indent + 2)))
                    .collect();
                items.join(&format!("\n{blanks}"))
            }
            Self::Map(fields) => {
                let mut lines = String::new();
                for (index, (key, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        lines += "\n";
                        lines += &blanks;
                    }
                    // Writing to a string cannot fail.
                    let _ = match value {
                        Self::Map(inner) if !inner.is_empty() => {
                            write!(lines, "{key}:\n{blanks}  {}", value.block(indent + 2))
                        }
                        Self::List(inner) if !inner.is_empty() => {
                            write!(lines, "{key}:\n{blanks}{}", value.block(indent))
                        }
                        _ => write!(lines, "{key}: {}", value.block(indent)),
                    };
                }
                lines
            }
        }
    }
}

/// `1,2,3`.
pub(super) fn joined(parts: &[impl ToString]) -> String {
    let parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
    parts.join(",")
}

/// Whether text stands for itself in YAML without quotes, and could be nothing but text.
fn is_plain(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:=@+".contains(&byte);
    let begins = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'/' || text.starts_with("--");
    let means_more = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    text.bytes().all(is_word)
        && text.as_bytes().first().is_some_and(begins)
        && text != "--"
        && text != "---"
        && !text.ends_with(':')
        && !means_more.contains(&&*text.to_ascii_lowercase())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

fn number(number: u16) -> Piece {
    Piece::Plain(number.to_string())
}

fn flag(flag: bool) -> Piece {
    Piece::Plain(flag.to_string())
}

fn list(items: impl IntoIterator<Item = Piece>) -> Piece {
    Piece::List(items.into_iter().collect())
}

fn map<const N: usize>(fields: [(&'static str, Piece); N]) -> Piece {
    Piece::Map(fields.into())
}
