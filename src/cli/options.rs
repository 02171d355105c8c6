//! Groups of flags that several verbs share.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::{Wrong, values};
use crate::capture::live::{ANY_INTERFACE, DEFAULT_BUFFER, DEFAULT_SNAPLEN, LiveConfig};
use crate::http1::MessageLimits;
use crate::record::Format;
use crate::replay::{
    Deadlines, FieldName, HostPolicy, ReplayConfig, Schedule, Target, Tls, TracePolicy, WhenFull,
};
use crate::tap::{Limits, TapConfig, Watch, WatchedEnd};
use crate::traffic::rewrite::{
    self, Field, HostSubstitution, PathSubstitution, QueryName, QueryPair,
};
use crate::traffic::{Percent, Rate, Rewrite, Rule, Sample, SampleBy, Selection, Traffic};
use crate::wire::DecoderConfig;

/// Where packets are captured.
#[derive(Args, Debug)]
#[command(next_help_heading = "Capture")]
pub struct LiveFlags {
    /// The network interface; 'any' is all of them.
    #[arg(
        short,
        long,
        value_name = "NAME",
        default_value = ANY_INTERFACE,
        env = "SHADOWTAP_INTERFACE"
    )]
    interface: String,

    /// Narrow what is captured by a filter in tcpdump's language, such as 'net 10.0.0.0/8'.
    #[arg(long, value_name = "EXPRESSION", env = "SHADOWTAP_FILTER")]
    filter: Option<String>,

    /// The kernel's buffer for packets that were not read yet.
    #[arg(
        short = 'B',
        long,
        value_name = "SIZE",
        default_value_t = Size(u64::from(DEFAULT_BUFFER)),
        value_parser = size,
        env = "SHADOWTAP_BUFFER"
    )]
    buffer: Size,

    /// How many bytes of each packet are captured; large segments are longer than any MTU.
    #[arg(
        short,
        long,
        value_name = "BYTES",
        default_value_t = DEFAULT_SNAPLEN,
        value_parser = clap::value_parser!(u32).range(64..=262_144),
        env = "SHADOWTAP_SNAPLEN"
    )]
    snaplen: u32,
}

impl LiveFlags {
    /// The configuration for capturing `ends`.
    pub fn into_config(self, ends: Vec<WatchedEnd>) -> Result<LiveConfig, Wrong> {
        let buffer = i32::try_from(self.buffer.0)
            .ok()
            .and_then(|buffer| u32::try_from(buffer).ok())
            .filter(|&buffer| buffer >= 1 << 20)
            .ok_or_else(|| Wrong("--buffer: between 1MiB and 2047MiB".to_owned()))?;
        Ok(LiveConfig {
            interface: self.interface,
            ends,
            filter: self.filter.filter(|filter| !filter.trim().is_empty()),
            buffer,
            snaplen: self.snaplen,
        })
    }
}

/// Bounds on what is held in memory, and what the decoder should know.
#[derive(Args, Debug)]
#[command(next_help_heading = "Reassembly")]
pub struct TapFlags {
    /// The largest message body that is kept; a request with a longer one is counted and not replayed.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = Size(Limits::default().message.body as u64),
        value_parser = size,
        env = "SHADOWTAP_MAX_MESSAGE"
    )]
    max_message: Size,

    /// Memory for the connections being put together; beyond it the idlest is given up, and that is counted.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = Size(Limits::default().memory as u64),
        value_parser = size,
        env = "SHADOWTAP_MEMORY"
    )]
    memory: Size,

    /// How many connections are followed at a time.
    #[arg(
        long,
        value_name = "N",
        default_value_t = NonZeroUsize::new(Limits::default().connections).unwrap_or(NonZeroUsize::MIN),
        env = "SHADOWTAP_MAX_CONNECTIONS"
    )]
    max_connections: NonZeroUsize,

    /// UDP ports that carry VXLAN.
    #[arg(
        long,
        value_name = "PORT",
        value_delimiter = ',',
        default_values_t = DecoderConfig::default().vxlan_ports,
        env = "SHADOWTAP_VXLAN_PORT"
    )]
    vxlan_port: Vec<u16>,
}

impl TapFlags {
    /// The configuration for watching `ends`.
    pub fn into_config(self, ends: Vec<WatchedEnd>) -> TapConfig {
        let bytes = |size: Size| usize::try_from(size.0).unwrap_or(usize::MAX);
        TapConfig {
            watch: Watch { ends, local: None },
            limits: Limits {
                message: MessageLimits {
                    body: bytes(self.max_message),
                    ..MessageLimits::default()
                },
                memory: bytes(self.memory),
                connections: self.max_connections.get(),
                ..Limits::default()
            },
            decoder: DecoderConfig {
                vxlan_ports: self.vxlan_port,
                ..DecoderConfig::default()
            },
        }
    }
}

/// Where requests are sent, and how.
#[derive(Args, Debug)]
#[command(next_help_heading = "Replay")]
pub struct ReplayFlags {
    /// Where requests are sent: http://HOST[:PORT][/BASE-PATH], or https; several for several targets.
    #[arg(
        long,
        value_name = "URL",
        required = true,
        value_delimiter = ',',
        env = "SHADOWTAP_TO"
    )]
    to: Vec<Target>,

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

    /// So many connections to a target at most.
    #[arg(
        long,
        value_name = "N",
        default_value = "256",
        env = "SHADOWTAP_TARGET_CONNECTIONS"
    )]
    target_connections: NonZeroUsize,

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

    /// So many requests may wait or be under way, for each target.
    #[arg(
        long,
        value_name = "N",
        default_value = "10000",
        env = "SHADOWTAP_QUEUE"
    )]
    queue: NonZeroUsize,

    /// So many bytes of requests may wait or be under way, for each target.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "64MiB",
        value_parser = size,
        env = "SHADOWTAP_QUEUE_BYTES"
    )]
    queue_bytes: Size,

    /// How often a request with a safe method is sent again when its connection broke before any answer.
    #[arg(
        long,
        value_name = "N",
        default_value = "0",
        env = "SHADOWTAP_RETRY_SAFE"
    )]
    retry_safe: u32,

    /// How many threads send to each target.
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
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
    /// One configuration for each target.
    pub fn into_configs(
        self,
        schedule: Schedule,
        when_full: WhenFull,
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
        let mut targets = self.to.clone();
        targets.dedup();
        Ok(targets
            .into_iter()
            .map(|target| ReplayConfig {
                host: self.host.clone(),
                trace: self.trace,
                limit: self.limit,
                marker: self.marker.0.clone(),
                replay_ambiguous: self.replay_ambiguous,
                max_body: bytes(self.max_body),
                max_connections: self.target_connections,
                deadlines: Deadlines {
                    connect: self.connect_timeout,
                    first_byte: self.first_byte_timeout,
                    answer: self.answer_timeout,
                    ..Deadlines::default()
                },
                queue_items: self.queue.get(),
                queue_bytes: bytes(self.queue_bytes),
                when_full,
                schedule,
                retry_safe: self.retry_safe,
                threads: self.replay_threads,
                tls: tls.clone(),
                ..ReplayConfig::live(target)
            })
            .collect())
    }
}

/// Which requests are replayed; `docs/filters.md` describes the rules.
#[derive(Args, Debug)]
#[command(next_help_heading = "Which requests")]
pub struct SelectFlags {
    /// Take requests that match this rule only; of several, all must match.
    ///
    /// method:GET,HEAD  path:/api/**  path~REGEX  host:*.example.com  header:NAME  header:NAME=VALUE  query:NAME=VALUE
    /// cookie:NAME=VALUE  client:10.0.0.0/8  size:>1MiB  status:2xx. A comma separates alternatives, '*' is anything
    /// (in a path, within a segment; '**' across them), '~' instead of ':' or '=' begins a regular expression.
    #[arg(
        long,
        value_name = "RULE",
        value_delimiter = '\n',
        env = "SHADOWTAP_ONLY"
    )]
    only: Vec<Rule>,

    /// Leave out requests that match this rule, or any of several.
    #[arg(
        long,
        value_name = "RULE",
        value_delimiter = '\n',
        env = "SHADOWTAP_EXCEPT"
    )]
    except: Vec<Rule>,

    /// Take requests with safe methods only: GET, HEAD, OPTIONS, TRACE.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_SAFE_ONLY"
    )]
    safe_only: bool,

    /// Take so many percent of them.
    #[arg(
        long,
        value_name = "SHARE",
        default_value = "100",
        hide_default_value = true,
        env = "SHADOWTAP_PERCENT"
    )]
    percent: Percent,

    /// What a sample takes whole: request, connection, client, header:NAME or cookie:NAME.
    #[arg(
        long,
        value_name = "KEY",
        default_value = "connection",
        env = "SHADOWTAP_SAMPLE_BY"
    )]
    sample_by: SampleBy,

    #[command(flatten)]
    rewrite: RewriteFlags,
}

impl SelectFlags {
    /// The rules, where version 1's answer to a request is known before it is replayed.
    pub fn into_traffic(self, replay: &ReplayFlags) -> Result<Traffic, Wrong> {
        self.rewrite.check_marker(replay.marker.0.as_ref())?;
        Ok(Traffic {
            select: Selection {
                only: self.only,
                except: self.except,
                safe_only: self.safe_only,
            },
            sample: Sample {
                percent: self.percent,
                by: self.sample_by,
            },
            rewrite: self.rewrite.into_rewrite(),
        })
    }

    /// The rules, where it is not.
    pub fn into_live_traffic(self, replay: &ReplayFlags) -> Result<Traffic, Wrong> {
        let traffic = self.into_traffic(replay)?;
        match traffic.select.on_status() {
            None => Ok(traffic),
            Some(rule) => Err(Wrong(format!(
                "'{}': live, a request is sent before version 1 has answered it, so that its status is not known; \
                 record the traffic and use this rule with replay",
                rule.text()
            ))),
        }
    }
}

/// What is changed in requests before they are sent; `docs/filters.md` says how.
#[derive(Args, Debug)]
#[command(next_help_heading = "What is changed in them")]
pub struct RewriteFlags {
    /// Set this field: the first of that name keeps its place, others of that name are taken out.
    #[arg(
        long,
        value_name = "NAME: VALUE",
        value_delimiter = '\n',
        env = "SHADOWTAP_SET_HEADER"
    )]
    set_header: Vec<Field>,

    /// Add this field behind all others.
    #[arg(
        long,
        value_name = "NAME: VALUE",
        value_delimiter = '\n',
        env = "SHADOWTAP_ADD_HEADER"
    )]
    add_header: Vec<Field>,

    /// Take out all fields of this name.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = '\n',
        value_parser = rewrite::changeable,
        env = "SHADOWTAP_REMOVE_HEADER"
    )]
    remove_header: Vec<FieldName>,

    /// Replace what matches in the path; $1 is what the first group matched.
    #[arg(
        long,
        value_name = "REGEX=>TEXT",
        value_delimiter = '\n',
        env = "SHADOWTAP_REWRITE_PATH"
    )]
    rewrite_path: Vec<PathSubstitution>,

    /// Replace what matches in the host, before --host is applied.
    #[arg(
        long,
        value_name = "REGEX=>TEXT",
        value_delimiter = '\n',
        env = "SHADOWTAP_REWRITE_HOST"
    )]
    rewrite_host: Vec<HostSubstitution>,

    /// Set this query parameter.
    #[arg(
        long,
        value_name = "NAME=VALUE",
        value_delimiter = '\n',
        env = "SHADOWTAP_SET_QUERY"
    )]
    set_query: Vec<QueryPair>,

    /// Take this query parameter out.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = '\n',
        env = "SHADOWTAP_REMOVE_QUERY"
    )]
    remove_query: Vec<QueryName>,
}

impl RewriteFlags {
    fn into_rewrite(self) -> Rewrite {
        Rewrite {
            path: self.rewrite_path,
            remove_query: self.remove_query,
            set_query: self.set_query,
            host: self.rewrite_host,
            remove_header: self.remove_header,
            set_header: self.set_header,
            add_header: self.add_header,
        }
    }

    /// The marker is what keeps replays from being replayed: only its own flag changes it.
    fn check_marker(&self, marker: Option<&FieldName>) -> Result<(), Wrong> {
        let fields = self.set_header.iter().chain(&self.add_header);
        let mut names = self.remove_header.iter().chain(fields.map(Field::name));
        match marker {
            Some(marker) if names.any(|name| marker.is(name.as_str().as_bytes())) => Err(Wrong(
                format!("{marker} marks what is sent; --marker changes it, not a rule"),
            )),
            _ => Ok(()),
        }
    }
}

/// How a program that captures live stops, and who may ask how it is.
#[derive(Args, Debug)]
#[command(next_help_heading = "Running")]
pub struct RunFlags {
    /// How long what was captured may still take when the program stops.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        value_parser = values::duration,
        env = "SHADOWTAP_GRACE"
    )]
    pub grace: Duration,

    /// Serve /metrics, /healthz and /readyz here.
    #[arg(
        long,
        value_name = "[ADDRESS:]PORT",
        value_parser = values::listen_address,
        env = "SHADOWTAP_ADMIN"
    )]
    pub admin: Option<std::net::SocketAddr>,
}

/// Whether the name of a file to be written says a format that can be written.
pub fn writable(out: &Path) -> Result<(), Wrong> {
    let format = Format::of_name(out).map(|(format, _)| format);
    if out.as_os_str() == "-" || format.is_some_and(|format| format != Format::PcapNg) {
        return Ok(());
    }
    Err(Wrong(format!(
        "--out: '{}' does not say which format to write; end it in .pcap, .gor, .jsonl or .har, and in .gz behind that to compress",
        out.display()
    )))
}

/// A number of bytes, as a flag shows and takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(pub u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >= 1 << shift && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Parses a [`Size`].
pub fn size(text: &str) -> Result<Size, String> {
    values::byte_size(text).map(Size)
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
