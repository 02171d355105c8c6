//! Where requests are sent, and how.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::super::values;
use super::{Budgets, Size, Wrong, size};
use crate::replay::{
    Deadlines, FieldName, HostPolicy, Pipelining, ReplayConfig, Target, TargetError, Tls,
    TracePolicy, WhenFull,
};
use crate::traffic::{Bandwidth, Rate, RuleError, Share};

/// Where requests are sent, and how.
#[derive(Args, Debug)]
#[command(next_help_heading = "Replay")]
pub struct ReplayFlags {
    /// Where requests are sent: http://HOST[:PORT][/BASE-PATH], or https; several for several targets.
    ///
    /// Each target gets everything, unless options behind a blank say otherwise: 'http://v2 percent=10 only=path:/api/**'.
    /// only=RULE and except=RULE count beside --only and --except, percent=P and limit=RATE in the place of --percent and
    /// --limit. Commas separate targets without options.
    #[arg(
        long,
        value_name = "URL",
        required = true,
        value_delimiter = '\n',
        value_parser = targets,
        env = "SHADOWTAP_TO"
    )]
    to: Vec<Aims>,

    /// Send each request to one of the targets and not to all: what --sample-by keeps whole goes to one.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_SPLIT"
    )]
    split: bool,

    /// The Host field of what is sent: 'keep' what was captured, 'target', 'suffix:TEXT', or a name.
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "keep",
        env = "SHADOWTAP_HOST"
    )]
    host: HostPolicy,

    /// What becomes of a request's place in a distributed trace (traceparent, tracestate): 'keep', 'drop', or 'child', a
    /// span of the replay's own.
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "keep",
        env = "SHADOWTAP_TRACE"
    )]
    trace: TracePolicy,

    /// The header that marks what is sent, so that it is never taken for original traffic; 'none' marks nothing.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "Shadowtap",
        value_parser = marker,
        env = "SHADOWTAP_MARKER"
    )]
    marker: Marker,

    /// Send requests too that two servers may read differently.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_REPLAY_AMBIGUOUS"
    )]
    replay_ambiguous: bool,

    /// Requests with larger bodies are not sent.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "16MiB",
        value_parser = size,
        env = "SHADOWTAP_MAX_BODY"
    )]
    max_body: Size,

    /// So many requests reach a target a second, such as 200/s; those beyond it are counted and not sent.
    #[arg(long, value_name = "RATE", env = "SHADOWTAP_LIMIT")]
    limit: Option<Rate>,

    /// So many bytes of requests reach a target a second, such as 10MB/s. Live, what is beyond it is counted and not sent; a
    /// file waits.
    #[arg(long, value_name = "BYTES/s", env = "SHADOWTAP_MAX_BANDWIDTH")]
    max_bandwidth: Option<Bandwidth>,

    /// So many connections to a target at most: one for each captured connection, beyond that they share.
    #[arg(
        long,
        alias = "target-connections",
        value_name = "N",
        default_value = "256",
        value_parser = values::count,
        env = "SHADOWTAP_MAX_CONNECTIONS"
    )]
    max_connections: NonZeroUsize,

    /// How long a target may take to accept a connection.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1s",
        value_parser = values::duration,
        env = "SHADOWTAP_CONNECT_TIMEOUT"
    )]
    connect_timeout: Duration,

    /// How long it may take until its answer begins.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        value_parser = values::duration,
        env = "SHADOWTAP_FIRST_BYTE_TIMEOUT"
    )]
    first_byte_timeout: Duration,

    /// How long it may take in all.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        value_parser = values::duration,
        env = "SHADOWTAP_ANSWER_TIMEOUT"
    )]
    answer_timeout: Duration,

    /// So many requests may wait or be under way, for each target. Default: 100000 live, as far as --memory-limit goes, and 10000
    /// from a file.
    #[arg(long, value_name = "N", value_parser = values::count, env = "SHADOWTAP_QUEUE")]
    queue: Option<NonZeroUsize>,

    /// How often a request with a safe method is sent again when its connection broke before any answer.
    #[arg(
        long,
        value_name = "N",
        default_value = "0",
        env = "SHADOWTAP_RETRY_SAFE"
    )]
    retry_safe: u32,

    /// Requests that a client sent before the answer to the one before: 'keep' sends them so too, 'off' one by one.
    #[arg(
        long,
        value_name = "HOW",
        default_value = "off",
        env = "SHADOWTAP_PIPELINING"
    )]
    pipelining: Pipelining,

    /// How many threads send to each target.
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        value_parser = values::count,
        env = "SHADOWTAP_REPLAY_THREADS"
    )]
    replay_threads: NonZeroUsize,

    /// Trust only the certificate authorities in this PEM file.
    #[arg(long, value_name = "FILE", env = "SHADOWTAP_TLS_CA")]
    tls_ca: Option<PathBuf>,

    /// Take any certificate of an https target.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        conflicts_with = "tls_ca",
        env = "SHADOWTAP_TLS_INSECURE"
    )]
    tls_insecure: bool,
}

impl ReplayFlags {
    fn aims(&self) -> impl Iterator<Item = &Aim> {
        self.to.iter().flat_map(|aims| &aims.0)
    }

    /// What each target gets, in the order of the configurations.
    pub(super) fn shares(&self) -> Vec<Share> {
        self.aims().map(|aim| aim.share.clone()).collect()
    }

    /// Whether each request goes to one of the targets.
    pub(super) const fn split(&self) -> bool {
        self.split
    }

    /// The field that marks what is sent.
    pub(super) const fn marker(&self) -> Option<&FieldName> {
        self.marker.0.as_ref()
    }

    /// One configuration for each target; they share the budgets.
    pub fn into_configs(
        self,
        when_full: WhenFull,
        budgets: Budgets,
    ) -> Result<Vec<ReplayConfig>, Wrong> {
        let tls = match (&self.tls_ca, self.tls_insecure) {
            (Some(file), _) => Tls::Authorities(
                std::fs::read(file)
                    .map_err(|error| Wrong(format!("--tls-ca: {}: {error}", file.display())))?,
            ),
            (None, true) => Tls::AcceptInvalid,
            (None, false) => Tls::System,
        };
        let bytes = |size: Size| usize::try_from(size.0).unwrap_or(usize::MAX);
        let aims: Vec<Aim> = self.aims().cloned().collect();
        for (index, aim) in aims.iter().enumerate() {
            if aims[..index].iter().any(|it| it.target == aim.target) {
                return Err(Wrong(format!("--to: {} is there twice", aim.target)));
            }
        }
        let targets = aims.len().max(1);
        Ok(aims
            .into_iter()
            .map(|Aim { target, share }| {
                let defaults = match when_full {
                    WhenFull::Block => ReplayConfig::file(target),
                    WhenFull::DropNewest => ReplayConfig::live(target),
                };
                ReplayConfig {
                    host: self.host.clone(),
                    trace: self.trace,
                    limit: share.limit.or(self.limit),
                    bandwidth: self.max_bandwidth,
                    marker: self.marker.0.clone(),
                    replay_ambiguous: self.replay_ambiguous,
                    max_body: bytes(self.max_body),
                    max_connections: self.max_connections,
                    deadlines: Deadlines {
                        connect: self.connect_timeout,
                        first_byte: self.first_byte_timeout,
                        answer: self.answer_timeout,
                        ..Deadlines::default()
                    },
                    queue_items: self.queue.map_or(defaults.queue_items, NonZeroUsize::get),
                    queue_bytes: budgets.requests / targets,
                    answer_bytes: budgets.answers / targets,
                    when_full,
                    pipelining: self.pipelining,
                    retry_safe: self.retry_safe,
                    threads: self.replay_threads,
                    tls: tls.clone(),
                    ..defaults
                }
            })
            .collect())
    }
}

#[derive(Clone, Debug)]
struct Marker(Option<FieldName>);

fn marker(text: &str) -> Result<Marker, String> {
    if text == "none" {
        return Ok(Marker(None));
    }
    text.parse()
        .map(|name| Marker(Some(name)))
        .map_err(|error: crate::http1::FieldNameError| error.to_string())
}

/// A target and what it gets.
#[derive(Clone, Debug)]
struct Aim {
    target: Target,
    share: Share,
}

/// The targets in one value of the flag.
#[derive(Clone, Debug)]
struct Aims(Vec<Aim>);

fn targets(text: &str) -> Result<Aims, String> {
    let target = |url: &str| url.parse().map_err(|error: TargetError| error.to_string());
    match text.trim().split_once(char::is_whitespace) {
        Some((url, options)) if !url.ends_with(',') => {
            let share = options
                .parse()
                .map_err(|error: RuleError| error.to_string())?;
            let target = target(url)?;
            Ok(Aims(vec![Aim { target, share }]))
        }
        _ => {
            let aim = |url: &str| {
                let share = Share::default();
                target(url).map(|target| Aim { target, share })
            };
            text.split(',').map(aim).collect::<Result<_, _>>().map(Aims)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_what_each_gets() {
        let of = |text: &str| -> Vec<String> {
            let aims = targets(text).expect(text).0;
            let only = |aim: &Aim| aim.share.select.only.len();
            aims.iter()
                .map(|aim| format!("{} {}", aim.target, only(aim)))
                .collect()
        };
        assert_eq!(of("http://a,http://b:81"), ["http://a 0", "http://b:81 0"]);
        assert_eq!(of(" http://a, http://b "), ["http://a 0", "http://b 0"]);
        assert_eq!(
            of("http://a/x;only=1 only=path:/b,/c only=header:Origin=http://a,http://b"),
            ["http://a/x;only=1 2"]
        );
        assert_eq!(of("http://a percent=5"), ["http://a 0"]);
        for (wrong, words) in [
            ("http://a,", "no scheme"),
            ("http://a http://b", "is not one of only=RULE"),
            ("http://a percent=101", "percent=101: expected"),
            ("a limit=5", "http://a"),
        ] {
            let error = targets(wrong).expect_err(wrong);
            assert!(error.contains(words), "{wrong}: {error}");
        }
    }
}
