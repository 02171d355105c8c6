//! What an engine is told once, legal by construction.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use super::{BreakerConfig, Target, WhenFull};
use crate::http1::FieldName;
use crate::traffic::{Bandwidth, Rate};

/// Everything that an [`Engine`](super::Engine) is told.
#[derive(Clone, Debug)]
pub struct ReplayConfig {
    /// Where requests go.
    pub target: Target,
    /// What the target is told about the host.
    pub host: HostPolicy,
    /// What becomes of a request's place in a distributed trace.
    pub trace: TracePolicy,
    /// The field that marks a replay, so that it is never taken for original traffic; `None` marks nothing.
    pub marker: Option<FieldName>,
    /// Whether requests that can be read in more than one way are sent all the same.
    pub replay_ambiguous: bool,
    /// Requests with larger bodies, in bytes on the wire, are skipped.
    pub max_body: usize,
    /// So many bytes of an answer's body are kept; the rest is read and counted as missing.
    pub max_answer: usize,
    /// So many bytes of answers that are not whole yet are kept in all, so that many large and slow ones at a time do not
    /// fill the memory; beyond it a body is treated as one over [`Self::max_answer`].
    pub answer_bytes: usize,
    /// Whether the kernel takes notes of when answers come, for [`Timings::unread`](super::Timings::unread); it costs some two percent more
    /// for each request, and only who judges how long answers take needs it.
    pub notes_arrivals: bool,
    /// So many connections to the target at most; beyond it captured connections share them.
    pub max_connections: NonZeroUsize,
    /// A captured connection that is silent for so long gives its target connection up.
    pub idle: Duration,
    /// How long the target may take.
    pub deadlines: Deadlines,
    /// So many requests may wait or be under way.
    pub queue_items: usize,
    /// So many bytes of requests may wait or be under way, bookkeeping included.
    pub queue_bytes: usize,
    /// What happens beyond that.
    pub when_full: WhenFull,
    /// Requests beyond so many a second are skipped; `None` for no limit.
    pub limit: Option<Rate>,
    /// So many bytes of requests a second at most; live what is beyond it is skipped, a file waits. `None` for no limit.
    pub bandwidth: Option<Bandwidth>,
    /// When the target is left alone.
    pub breaker: BreakerConfig,
    /// With [`WhenFull::Block`]: how long a request waits for an open breaker before it is skipped; 5 s at most while the
    /// target has never answered.
    pub patience: Duration,
    /// Whether requests that their client pipelined are written without waiting for the answer to the one before.
    pub pipelining: Pipelining,
    /// How often a request with a safe method (RFC 9110 §9.2.1) is sent again when its connection broke before any byte
    /// of an answer came. 0 sends nothing twice.
    pub retry_safe: u32,
    /// Whether requests wait ([`Gate::Hold`](super::Gate::Hold)) when the target has new addresses, until somebody who has
    /// looked where they lead lets them go.
    pub hold_new_addresses: bool,
    /// How many threads send.
    pub threads: NonZeroUsize,
    /// Whom an `https` target must convince.
    pub tls: Tls,
}

impl ReplayConfig {
    /// For live traffic: at once, and what does not fit is dropped.
    #[must_use]
    pub fn live(target: Target) -> Self {
        Self {
            target,
            host: HostPolicy::Keep,
            trace: TracePolicy::Keep,
            marker: Some(FieldName::marker()),
            replay_ambiguous: false,
            max_body: 16 << 20,
            max_answer: 1 << 20,
            answer_bytes: 32 << 20,
            notes_arrivals: false,
            max_connections: NonZeroUsize::new(256).unwrap_or(NonZeroUsize::MIN),
            idle: Duration::from_secs(60),
            deadlines: Deadlines::default(),
            // The bytes are the bound: a moment in which the target does not get the CPU must not cost connections.
            queue_items: 100_000,
            queue_bytes: 64 << 20,
            when_full: WhenFull::DropNewest,
            limit: None,
            bandwidth: None,
            breaker: BreakerConfig::default(),
            patience: Duration::from_secs(30),
            pipelining: Pipelining::OneByOne,
            retry_safe: 0,
            hold_new_addresses: false,
            threads: NonZeroUsize::MIN,
            tls: Tls::default(),
        }
    }

    /// For traffic from a file: the reader waits when the queue is full.
    #[must_use]
    pub fn file(target: Target) -> Self {
        Self {
            when_full: WhenFull::Block,
            queue_items: 10_000,
            ..Self::live(target)
        }
    }
}

/// What becomes of requests that were sent before the answer to the one before (RFC 9112 §9.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pipelining {
    /// They wait for it.
    OneByOne,
    /// They do not wait here either; an `https` target gets them one by one all the same.
    Keep,
}

impl FromStr for Pipelining {
    type Err = ConfigError;

    /// `keep` or `off`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "keep" => Ok(Self::Keep),
            "off" => Ok(Self::OneByOne),
            _ => Err(ConfigError::Pipelining(text.to_owned())),
        }
    }
}

/// How long a target may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadlines {
    /// To resolve and to accept a connection.
    pub connect: Duration,
    /// To take the next bytes of the request, and then to begin the answer.
    pub first_byte: Duration,
    /// From the first byte of the request to the last of the answer.
    pub answer: Duration,
    /// To ask for the body of a request that waits for it (`Expect: 100-continue`); then the body is sent unasked
    /// (RFC 9110 §10.1.1).
    pub body_asked: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            first_byte: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            body_asked: Duration::from_secs(1),
        }
    }
}

/// What the `Host` field of a replay says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostPolicy {
    /// What was captured, to the byte.
    Keep,
    /// The target's host and port.
    Target,
    /// What was captured, with this behind the name and before the port, as in `app-shadow:8080`.
    Suffix(HostText),
    /// This.
    Set(HostText),
}

/// What becomes of `traceparent` and `tracestate` (W3C Trace Context).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TracePolicy {
    /// They are sent as captured: the target's spans join version 1's.
    Keep,
    /// They are left out: the target begins a trace of its own.
    Drop,
    /// The trace stays, with a parent id of the replay's own, so that the two versions' spans can be told apart.
    Child,
}

impl FromStr for TracePolicy {
    type Err = ConfigError;

    /// `keep`, `drop` or `child`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "keep" => Ok(Self::Keep),
            "drop" => Ok(Self::Drop),
            "child" => Ok(Self::Child),
            _ => Err(ConfigError::Trace(text.to_owned())),
        }
    }
}

/// Text that may stand in a `Host` field: printable ASCII without blanks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostText(String);

impl HostText {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostText {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::Host(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for HostPolicy {
    type Err = ConfigError;

    /// `keep`, `target`, `suffix:TEXT` or a host name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "keep" => Ok(Self::Keep),
            "target" => Ok(Self::Target),
            _ => match text.strip_prefix("suffix:") {
                Some(suffix) => suffix.parse().map(Self::Suffix),
                None => text.parse().map(Self::Set),
            },
        }
    }
}

/// Whom an `https` target must convince of its identity.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Tls {
    /// The system's certificate authorities.
    #[default]
    System,
    /// These authorities only, in PEM form.
    Authorities(Vec<u8>),
    /// Nobody: any certificate will do.
    AcceptInvalid,
}

/// What is wrong with a setting as written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not a way to pipeline.
    #[error("{0:?} is neither keep nor off")]
    Pipelining(String),
    /// Not a trace policy.
    #[error("{0:?} is not keep, drop or child")]
    Trace(String),
    /// Not a host.
    #[error("{0:?} is not keep, target, suffix:TEXT or a host name")]
    Host(String),
}
