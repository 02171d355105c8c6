//! `shadowtap gor`: GoReplay's command line, for set-ups that are there already.

mod arguments;
pub mod flags;
pub mod values;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::arguments::Given;
use self::flags::{FLAGS, Kind, Use};
use super::options::Budgets;
use super::values::listen_address;
use crate::capture::live::{ANY_INTERFACE, DEFAULT_BUFFER, DEFAULT_SNAPLEN, LiveConfig};
use crate::goreplay::{Limit, Modifier, Pair};
use crate::middleware::Command;
use crate::replay::{Deadlines, HostPolicy, ReplayConfig, Tls, WhenFull};
use crate::tap::{Answers, Limits, TapConfig, Watch, WatchedEnd};
use crate::wire::DecoderConfig;

/// Do what GoReplay does, with its flags: for set-ups that use it today.
///
/// A program file (or a link to one) that is called 'gor' does the same without the first word.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  \
    shadowtap gor --input-raw :8080 --output-http http://my-app-v2\n  \
    shadowtap gor --input-raw :8080 --output-file 'requests-%Y-%m-%d.gor.gz'\n  \
    shadowtap gor --input-file 'requests-*.gor|200%' --output-http http://staging\n\
    'shadowtap gor --help' lists every flag; docs/goreplay.md says what is the same and what differs."
)]
pub struct Flags {
    /// GoReplay's flags.
    #[arg(
        value_name = "FLAG",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    flags: Vec<String>,
}

/// What `gor` is to do.
#[derive(Debug)]
pub struct Job {
    /// Where messages come from; at least one.
    pub inputs: Vec<(Input, Option<Limit>)>,
    /// Where they go; at least one, unless files are only looked at.
    pub outputs: Vec<(Output, Option<Limit>)>,
    /// How they are dealt out.
    pub split: Split,
    /// Whether chunk framing and compression are taken off.
    pub prettify: bool,
    /// Filters and rewrites.
    pub modifier: Modifier,
    /// The program that messages pass through.
    pub middleware: Option<Command>,
    /// When to stop by itself.
    pub exit_after: Option<Duration>,
    /// Messages with more bytes are left out.
    pub most_bytes: usize,
    /// Whether files are only looked at.
    pub dry_run: bool,
    /// What is to be said at the start.
    pub notes: Vec<String>,
}

/// Where messages come from.
#[derive(Clone, Debug)]
pub enum Input {
    /// Live capture.
    Live(LiveConfig, Packets),
    /// A capture file.
    Capture(PathBuf, Packets),
    /// Files in GoReplay's format.
    Files(Files),
    /// Other instances, and what we prove ourselves with where they speak TLS.
    Tcp(SocketAddr, Option<Identity>),
    /// Anybody who sends HTTP requests.
    Http(SocketAddr),
}

/// A certificate and its key, in PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The certificate, and those that vouch for it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How packets become messages.
#[derive(Clone, Debug)]
pub struct Packets {
    /// How they are put together.
    pub tap: TapConfig,
    /// Whether answers are messages too.
    pub responses: bool,
    /// The field that gets the client's address.
    pub real_ip: Option<String>,
}

/// Files in GoReplay's format, read as one.
#[derive(Clone, PartialEq, Debug)]
pub struct Files {
    /// Names or patterns; those of one `--input-file` each.
    pub pattern: String,
    /// How many times as fast as the original.
    pub speed: f64,
    /// Whether they begin again at the end.
    pub looped: bool,
    /// Pauses are cut to this.
    pub max_wait: Option<Duration>,
    /// So many records of each file are put in order.
    pub read_depth: usize,
}

/// Where messages go.
#[derive(Clone, Debug)]
pub enum Output {
    /// To a target.
    Http(Box<HttpOutput>),
    /// To files.
    File(FileOutput),
    /// To the standard output.
    Stdout,
    /// Nowhere.
    Null,
    /// To another instance.
    Tcp(TcpOutput),
}

/// To a target.
#[derive(Clone, Debug)]
pub struct HttpOutput {
    /// How requests are sent.
    pub config: ReplayConfig,
    /// How many redirects of a request are followed.
    pub redirects: u32,
    /// Whether its answers are messages.
    pub track: bool,
    /// How often its queue is printed.
    pub stats: Option<Duration>,
}

/// To files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileOutput {
    /// The name, with places for the time and such.
    pub template: String,
    /// Whether one file is appended to, instead of numbered chunks.
    pub append: bool,
    /// How often is written out.
    pub flush: Duration,
    /// So many bytes has a chunk; 0 is no bound.
    pub size_limit: u64,
    /// So many records has a chunk; 0 is no bound.
    pub queue_limit: u64,
    /// So many bytes have all chunks.
    pub max_size: u64,
}

/// To another instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpOutput {
    /// `HOST:PORT`.
    pub address: String,
    /// Over so many connections.
    pub workers: usize,
    /// Whether an exchange stays on one.
    pub sticky: bool,
    /// Whether its queue is printed.
    pub stats: bool,
    /// TLS, if that is spoken.
    pub tls: Option<TcpTls>,
}

/// TLS to another instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpTls {
    /// Whether any certificate will do.
    pub skip_verify: bool,
}

/// How messages are dealt out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split {
    /// Each output gets all.
    Copy,
    /// In turn.
    InTurn,
    /// All of a captured connection to one output.
    BySession,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// To run; the number is what `--verbose` says.
    Run(Box<Job>, u64),
    /// For help.
    Help,
}

/// Reads the arguments behind `gor`.
///
/// # Errors
/// What is wrong, as a sentence for the user.
pub fn parse(arguments: &[String]) -> Result<Asked, String> {
    let Some(given) = Given::parse(arguments)? else {
        return Ok(Asked::Help);
    };
    let budgets = Budgets::of_environment()?;
    let mut inputs = raw_inputs(&given)?;
    share_memory(&mut inputs, most_bytes(&given), budgets);
    inputs.extend(file_inputs(&given)?);
    let identity = identity(&given)?;
    for name in ["input-tcp", "input-http"] {
        for text in given.all(name) {
            let (address, limit) = split_limit(name, text)?;
            let address = listen_address(address).map_err(|wrong| format!("--{name}: {wrong}"))?;
            let input = match name {
                "input-tcp" => Input::Tcp(address, identity.clone()),
                _ => Input::Http(address),
            };
            inputs.push((input, limit));
        }
    }
    let dry_run = given.is_on("input-file-dry-run");
    let is_live = inputs
        .iter()
        .any(|(input, _)| !matches!(input, Input::Capture(..) | Input::Files(_)));
    let mut outputs = outputs(&given, is_live)?;
    let targets = outputs
        .iter()
        .filter(|(output, _)| matches!(output, Output::Http(_)))
        .count();
    for (output, _) in &mut outputs {
        if let Output::Http(http) = output {
            http.config.queue_bytes = budgets.requests / targets.max(1);
            http.config.answer_bytes = budgets.answers / targets.max(1);
        }
    }
    if inputs.is_empty() {
        return Err(
            "there is no input; give --input-raw, --input-file, --input-tcp or --input-http"
                .to_owned(),
        );
    }
    if outputs.is_empty() && !dry_run {
        return Err("there is no output; give --output-http, --output-file, --output-tcp, --output-stdout or --output-null".to_owned());
    }
    if dry_run
        && !inputs
            .iter()
            .all(|(input, _)| matches!(input, Input::Files(_)))
    {
        return Err("--input-file-dry-run: only with --input-file, and no other input".to_owned());
    }
    let middleware = match given.last("middleware").filter(|it| !it.is_empty()) {
        None => None,
        Some(command) => Some(
            command
                .parse()
                .map_err(|why| format!("--middleware: {why}"))?,
        ),
    };
    let split = match (
        given.is_on("split-output"),
        given.is_on("recognize-tcp-sessions"),
    ) {
        (false, _) => Split::Copy,
        (true, false) => Split::InTurn,
        (true, true) => Split::BySession,
    };
    let job = Job {
        inputs,
        outputs,
        split,
        prettify: given.is_on("prettify-http"),
        modifier: modifier(&given)?,
        middleware,
        exit_after: given.duration("exit-after").filter(|it| !it.is_zero()),
        most_bytes: most_bytes(&given),
        dry_run,
        notes: given.notes(),
    };
    Ok(Asked::Run(
        Box::new(job),
        given.count("verbose").unwrap_or(0),
    ))
}

/// What `--input-tcp` proves itself with, if it is to speak TLS.
fn identity(given: &Given) -> Result<Option<Identity>, String> {
    if !given.is_on("input-tcp-secure") {
        return Ok(None);
    }
    let file = |name: &str| match given.last(name).filter(|it| !it.is_empty()) {
        Some(path) => Ok(PathBuf::from(path)),
        None => Err(format!("--input-tcp-secure needs --{name} as well")),
    };
    Ok(Some(Identity {
        certificate: file("input-tcp-certificate")?,
        key: file("input-tcp-certificate-key")?,
    }))
}

/// Gives each capture its share of the memory, and twice what the largest message takes at least: a buffer that grows is
/// there twice for a moment.
fn share_memory(inputs: &mut [(Input, Option<Limit>)], most_bytes: usize, budgets: Budgets) {
    let share = budgets.connections / inputs.len().max(1);
    let memory = share.max(most_bytes.saturating_mul(2));
    for (input, _) in inputs {
        let (Input::Live(_, packets) | Input::Capture(_, packets)) = input else {
            continue;
        };
        let limits = &mut packets.tap.limits;
        limits.memory = memory;
        limits.message.body = memory / 2;
    }
}

fn most_bytes(given: &Given) -> usize {
    let size = given.size("copy-buffer-size").filter(|&size| size > 0);
    size.map_or(DEFAULT_MOST_BYTES, |size| {
        usize::try_from(size).unwrap_or(usize::MAX)
    })
}

fn split_limit<'a>(name: &str, text: &'a str) -> Result<(&'a str, Option<Limit>), String> {
    Limit::split(text).map_err(|wrong| format!("--{name}: {wrong}"))
}

fn raw_inputs(given: &Given) -> Result<Vec<(Input, Option<Limit>)>, String> {
    let engine = given.last("input-raw-engine").unwrap_or("libpcap");
    let is_file = match engine {
        "" | "libpcap" | "raw_socket" | "af_packet" => false,
        "pcap_file" => true,
        "vxlan" => {
            return Err(
                "--input-raw-engine vxlan: there is no listener for VXLAN. Use instead: capture on the interface that \
                 the datagrams come in on; they are looked into by themselves"
                    .to_owned(),
            );
        }
        other => {
            return Err(format!(
                "--input-raw-engine: '{other}' is none of libpcap, pcap_file, raw_socket and af_packet"
            ));
        }
    };
    match given.last("input-raw-protocol").unwrap_or("http") {
        "" | "http" => {}
        other => {
            return Err(format!(
                "--input-raw-protocol {other}: only HTTP/1 is replayed. Use instead: shadowtap record --out traffic.pcap"
            ));
        }
    }
    let ignored: Vec<&str> = given.all("input-raw-ignore-interface").collect();
    let buffer = given.size("input-raw-buffer-size").filter(|&it| it > 0);
    let buffer = buffer.map_or(DEFAULT_BUFFER, |size| {
        u32::try_from(size.clamp(1 << 20, 2047 << 20)).unwrap_or(DEFAULT_BUFFER)
    });
    let mut inputs = Vec::new();
    for text in given.all("input-raw") {
        let wrong = |why: String| format!("--input-raw '{text}': {why}");
        let (address, limit) = split_limit("input-raw", text)?;
        let raw = RawAddress::parse(address, is_file).map_err(wrong)?;
        let responses = given.is_on("input-raw-track-response");
        let mut tap = TapConfig {
            answers: Answers::wanted(responses),
            watch: Watch {
                ends: raw.ends.clone(),
                ..Watch::default()
            },
            limits: Limits::default(),
            decoder: DecoderConfig::default(),
        };
        if let Some(port) = given.count("input-raw-vxlan-port") {
            let port = u16::try_from(port)
                .map_err(|_| format!("--input-raw-vxlan-port: {port} is no port"))?;
            tap.decoder.vxlan_ports = vec![port];
        }
        let packets = Packets {
            tap,
            responses,
            real_ip: given
                .last("input-raw-realip-header")
                .filter(|it| !it.is_empty())
                .map(str::to_owned),
        };
        let interfaces = match raw.from {
            From::File(path) => {
                inputs.push((Input::Capture(path, packets), limit));
                continue;
            }
            From::Interfaces(pattern) => interfaces(pattern.as_deref(), &ignored).map_err(wrong)?,
        };
        for interface in interfaces {
            let live = LiveConfig {
                interfaces: vec![interface],
                workers: NonZeroUsize::MIN,
                ends: raw.ends.clone(),
                filter: given
                    .last("input-raw-bpf-filter")
                    .filter(|it| !it.trim().is_empty())
                    .map(str::to_owned),
                buffer,
                snaplen: DEFAULT_SNAPLEN,
            };
            inputs.push((Input::Live(live, packets.clone()), limit));
        }
    }
    Ok(inputs)
}

/// The interfaces that a pattern names: none is all of them, and `eth*` all that begin so.
fn interfaces(pattern: Option<&str>, ignored: &[&str]) -> Result<Vec<String>, String> {
    let prefix = pattern.and_then(|pattern| pattern.strip_suffix('*'));
    match (pattern, prefix) {
        (None, _) if ignored.is_empty() => return Ok(vec![ANY_INTERFACE.to_owned()]),
        (Some(name), None) => return Ok(vec![name.to_owned()]),
        _ => {}
    }
    let known = if_addrs::get_if_addrs().map_err(|error| format!("listing interfaces: {error}"))?;
    let mut names: Vec<String> = known.into_iter().map(|it| it.name).collect();
    names.sort_unstable();
    names.dedup();
    let all = names.join(", ");
    names.retain(|name| !ignored.contains(&&name[..]) && name.starts_with(prefix.unwrap_or("")));
    if names.is_empty() {
        return Err(format!(
            "no interface is left to capture on; there are: {all}"
        ));
    }
    Ok(names)
}

/// `[HOST]:PORTS` in parts.
#[derive(Debug)]
struct RawAddress {
    from: From,
    ends: Vec<WatchedEnd>,
}

#[derive(Debug)]
enum From {
    /// All that match.
    Interfaces(Option<String>),
    File(PathBuf),
}

impl RawAddress {
    fn parse(text: &str, is_file: bool) -> Result<Self, String> {
        if text.starts_with("k8s://") {
            return Err(
                "pods are not looked up. Use instead: a sidecar in the pod, with --input-raw :PORT"
                    .to_owned(),
            );
        }
        let looks_like_file = |host: &str| {
            let host = host.to_ascii_lowercase();
            [".pcap", ".pcapng", ".pcap.gz", ".pcapng.gz"]
                .iter()
                .any(|it| host.ends_with(it))
        };
        let (host, ports) = match text.rsplit_once(':') {
            Some((host, ports)) if !ports.contains(['/', ']']) => (host, ports),
            _ => (text, ""),
        };
        let mut numbers = Vec::new();
        for port in ports
            .split(',')
            .map(str::trim)
            .filter(|port| !matches!(*port, "" | "0"))
        {
            let number: u16 = port.parse().map_err(|_| {
                format!("'{port}' is no port; expected [HOST]:PORT, or several ports with commas between")
            })?;
            numbers.push(number);
        }
        let on = |address: Option<IpAddr>| -> Vec<WatchedEnd> {
            numbers
                .iter()
                .map(|&port| WatchedEnd { address, port })
                .collect()
        };
        if is_file || looks_like_file(host) {
            return Ok(Self {
                from: From::File(PathBuf::from(host)),
                ends: on(None),
            });
        }
        let host = host
            .strip_prefix('[')
            .and_then(|it| it.strip_suffix(']'))
            .unwrap_or(host);
        let addresses: Vec<IpAddr> = match (host, host.parse::<IpAddr>()) {
            ("localhost", _) => vec![
                IpAddr::from([127, 0, 0, 1]),
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16]),
            ],
            (_, Ok(address)) if address.is_unspecified() => Vec::new(),
            (_, Ok(address)) => vec![address],
            ("", Err(_)) => Vec::new(),
            (interface, Err(_)) => {
                return Ok(Self {
                    from: From::Interfaces(Some(interface.to_owned())),
                    ends: on(None),
                });
            }
        };
        if !addresses.is_empty() && numbers.is_empty() {
            return Err("an address needs a port, such as 10.0.0.1:80".to_owned());
        }
        let ends = if addresses.is_empty() {
            on(None)
        } else {
            addresses
                .into_iter()
                .flat_map(|address| on(Some(address)))
                .collect()
        };
        Ok(Self {
            from: From::Interfaces(None),
            ends,
        })
    }
}

fn file_inputs(given: &Given) -> Result<Vec<(Input, Option<Limit>)>, String> {
    let mut inputs = Vec::new();
    for text in given.all("input-file") {
        let (pattern, limit) = split_limit("input-file", text)?;
        if pattern.starts_with("s3://") {
            return Err(format!(
                "--input-file {pattern}: S3 is not read. Use instead: a copy of the files"
            ));
        }
        let (speed, limit) = match limit {
            Some(Limit::Percent(percent)) if percent > 0.0 => (percent / 100.0, None),
            Some(Limit::Percent(_)) => {
                return Err(
                    "--input-file: a speed of 0% never ends; give more, such as |200%".to_owned(),
                );
            }
            other => (1.0, other),
        };
        let files = Files {
            pattern: pattern.to_owned(),
            speed,
            looped: given.is_on("input-file-loop"),
            max_wait: given
                .duration("input-file-max-wait")
                .filter(|it| !it.is_zero()),
            read_depth: given
                .count("input-file-read-depth")
                .and_then(|depth| usize::try_from(depth).ok())
                .unwrap_or(DEFAULT_READ_DEPTH)
                .max(1),
        };
        inputs.push((Input::Files(files), limit));
    }
    Ok(inputs)
}

fn outputs(given: &Given, is_live: bool) -> Result<Vec<(Output, Option<Limit>)>, String> {
    let mut outputs = Vec::new();
    for text in given.all("output-http") {
        let (url, limit) = split_limit("output-http", text)?;
        outputs.push((
            Output::Http(Box::new(http_output(given, url, is_live)?)),
            limit,
        ));
    }
    for text in given.all("output-file") {
        let (template, limit) = split_limit("output-file", text)?;
        if template.starts_with("s3://") {
            return Err(format!(
                "--output-file {template}: S3 is not written to. Use instead: a file, and a copy of it"
            ));
        }
        if template.is_empty() {
            return Err("--output-file needs a file name".to_owned());
        }
        let file = FileOutput {
            template: template.to_owned(),
            append: given.is_on("output-file-append"),
            flush: given
                .duration("output-file-flush-interval")
                .unwrap_or(Duration::from_secs(1)),
            size_limit: given.size("output-file-size-limit").unwrap_or(32 << 20),
            queue_limit: given.count("output-file-queue-limit").unwrap_or(256),
            max_size: given.size("output-file-max-size-limit").unwrap_or(1 << 40),
        };
        outputs.push((Output::File(file), limit));
    }
    for text in given.all("output-tcp") {
        let (address, limit) = split_limit("output-tcp", text)?;
        if address
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok())
            .is_none()
        {
            return Err(format!("--output-tcp: '{address}' is not HOST:PORT"));
        }
        let workers = given
            .count("output-tcp-workers")
            .unwrap_or(10)
            .clamp(1, 1024);
        let tcp = TcpOutput {
            address: address.to_owned(),
            workers: usize::try_from(workers).unwrap_or(1),
            sticky: given.is_on("output-tcp-sticky"),
            stats: given.is_on("stats") && given.is_on("output-tcp-stats"),
            tls: given.is_on("output-tcp-secure").then(|| TcpTls {
                skip_verify: given.is_on("output-tcp-skip-verify"),
            }),
        };
        outputs.push((Output::Tcp(tcp), limit));
    }
    if given.is_on("output-stdout") {
        outputs.push((Output::Stdout, None));
    }
    if given.is_on("output-null") {
        outputs.push((Output::Null, None));
    }
    Ok(outputs)
}

fn http_output(given: &Given, url: &str, is_live: bool) -> Result<HttpOutput, String> {
    let url = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let target = url
        .parse()
        .map_err(|wrong| format!("--output-http {url}: {wrong}"))?;
    let mut config = ReplayConfig::live(target);
    let sets_host = given
        .all("http-set-header")
        .filter_map(|text| Pair::header(text).ok())
        .any(|pair| pair.name().eq_ignore_ascii_case("host"));
    config.host = if given.is_on("http-original-host") || sets_host {
        HostPolicy::Keep
    } else {
        HostPolicy::Target
    };
    if let Some(timeout) = given
        .duration("output-http-timeout")
        .filter(|it| !it.is_zero())
    {
        config.deadlines.answer = timeout;
    } else {
        config.deadlines.answer = Duration::from_secs(5);
    }
    let answer = config.deadlines.answer;
    config.deadlines = Deadlines {
        connect: answer,
        first_byte: answer,
        answer,
        ..config.deadlines
    };
    let number = |name| given.count(name).and_then(|it| usize::try_from(it).ok());
    if let Some(workers) = number("output-http-workers").and_then(NonZeroUsize::new) {
        config.max_connections = workers;
    }
    if let Some(length) = number("output-http-queue-len").filter(|&it| it > 0) {
        config.queue_items = length;
    }
    if let Some(idle) = given
        .duration("output-http-worker-timeout")
        .filter(|it| !it.is_zero())
    {
        config.idle = idle;
    }
    if let Some(kept) = given
        .size("output-http-response-buffer")
        .filter(|&it| it > 0)
    {
        config.max_answer = usize::try_from(kept).unwrap_or(usize::MAX);
    }
    if given.is_on("output-http-skip-verify") {
        config.tls = Tls::AcceptInvalid;
    }
    config.max_body = most_bytes(given);
    config.when_full = if is_live {
        WhenFull::DropNewest
    } else {
        WhenFull::Block
    };
    let millis = given
        .count("output-http-stats-ms")
        .filter(|&it| it > 0)
        .unwrap_or(5000);
    Ok(HttpOutput {
        config,
        redirects: given.count("output-http-redirects").map_or(0, |it| {
            u32::try_from(it).unwrap_or(u32::MAX).min(MOST_REDIRECTS)
        }),
        track: given.is_on("output-http-track-response"),
        stats: (given.is_on("stats") && given.is_on("output-http-stats"))
            .then(|| Duration::from_millis(millis)),
    })
}

fn modifier(given: &Given) -> Result<Modifier, String> {
    fn rules<T, E: std::fmt::Display>(
        given: &Given,
        name: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, String> {
        given
            .all(name)
            .map(|text| parse(text).map_err(|wrong| format!("--{name} '{text}': {wrong}")))
            .collect()
    }
    Ok(Modifier {
        allow_method: given.all("http-allow-method").map(str::to_owned).collect(),
        set_header: rules(given, "http-set-header", Pair::header)?,
        set_param: rules(given, "http-set-param", Pair::parameter)?,
        allow_url: rules(given, "http-allow-url", str::parse)?,
        disallow_url: rules(given, "http-disallow-url", str::parse)?,
        allow_header: rules(given, "http-allow-header", str::parse)?,
        disallow_header: rules(given, "http-disallow-header", str::parse)?,
        basic_auth: rules(given, "http-basic-auth-filter", str::parse)?,
        header_limiter: rules(given, "http-header-limiter", str::parse)?,
        param_limiter: rules(given, "http-param-limiter", str::parse)?,
        rewrite_url: rules(given, "http-rewrite-url", str::parse)?,
        rewrite_header: rules(given, "http-rewrite-header", str::parse)?,
    })
}

/// The help page.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "Do what GoReplay does, with its flags, in Go's syntax: -flag VALUE, --flag VALUE or --flag=VALUE.\n\n\
         Usage: shadowtap gor --input-… --output-…\n\n\
         An address takes |10 (so many messages a second) or |10% (that share) behind it; --input-file takes |200%, a speed.\n\n",
    );
    for (title, take) in [
        ("Flags:", 0),
        ("Taken, with nothing to do:", 1),
        ("Refused, with the nearest other way:", 2),
    ] {
        text.push_str(title);
        text.push('\n');
        for flag in FLAGS {
            let value = match flag.kind {
                Kind::Bool => "",
                Kind::Text | Kind::List => " TEXT",
                Kind::Integer => " N",
                Kind::Duration => " TIME",
                Kind::Size => " SIZE",
            };
            let name = format!("--{}{value}", flag.name);
            let words = match flag.usage {
                Use::Same(words) if take == 0 => words.to_owned(),
                Use::Needless(words) if take == 1 => words.to_owned(),
                Use::Refused(why, instead) if take == 2 => format!("{why}; {instead}"),
                _ => continue,
            };
            text.push_str(&format!("  {name:<36} {words}\n"));
        }
        text.push('\n');
    }
    text.push_str("docs/goreplay.md says flag by flag what differs.\n");
    text
}

/// Messages with more bytes are left out unless --copy-buffer-size says otherwise: as many as `--max-body` allows.
const DEFAULT_MOST_BYTES: usize = 16 << 20;

/// GoReplay's default.
const DEFAULT_READ_DEPTH: usize = 100;

/// More redirects than any sane chain has.
const MOST_REDIRECTS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::values::watched_end;

    fn job(line: &str) -> Result<Job, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match parse(&words)? {
            Asked::Run(job, _) => Ok(*job),
            Asked::Help => Err("help".to_owned()),
        }
    }

    #[test]
    fn the_classic_sidecar() {
        let job = job("--input-raw :8080 --output-http http://my-app-v2").expect("right");
        let [(Input::Live(live, packets), None)] = &job.inputs[..] else {
            panic!("{:?}", job.inputs);
        };
        assert_eq!(live.interfaces, [ANY_INTERFACE]);
        assert_eq!(live.ends, [watched_end("8080").expect("a port")]);
        assert!(!packets.responses);
        let [(Output::Http(http), None)] = &job.outputs[..] else {
            panic!("{:?}", job.outputs);
        };
        assert_eq!(http.config.target.to_string(), "http://my-app-v2");
        assert_eq!(http.config.host, HostPolicy::Target);
        assert_eq!(http.config.when_full, WhenFull::DropNewest);
        assert_eq!(http.config.deadlines.answer, Duration::from_secs(5));
    }

    #[test]
    fn raw_addresses() {
        for (text, interface, ends) in [
            (":80", Some(None), &["80"][..]),
            (":80,8080", Some(None), &["80", "8080"]),
            (":0", Some(None), &[]),
            ("10.0.0.1:80", Some(None), &["10.0.0.1:80"]),
            ("0.0.0.0:80", Some(None), &["80"]),
            ("[::1]:80", Some(None), &["[::1]:80"]),
            ("eth0:80", Some(Some("eth0")), &["80"]),
            ("eth0", Some(Some("eth0")), &[]),
            ("localhost:80", Some(None), &["127.0.0.1:80", "[::1]:80"]),
            ("dir/x.pcap:80", None, &["80"]),
            ("x.pcapng", None, &[]),
        ] {
            let raw = RawAddress::parse(text, false).expect(text);
            let expected: Vec<_> = ends.iter().map(|it| watched_end(it).expect(it)).collect();
            assert_eq!(raw.ends, expected, "{text}");
            match (raw.from, interface) {
                (From::File(_), None) => {}
                (From::Interfaces(name), Some(expected)) => assert_eq!(name.as_deref(), expected),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(matches!(
            RawAddress::parse("x:80", true).expect("a file").from,
            From::File(_)
        ));
        for wrong in ["k8s://pod/x:80", ":x", "10.0.0.1", ":80,99999"] {
            assert!(RawAddress::parse(wrong, false).is_err(), "{wrong}");
        }
    }

    #[test]
    fn outputs_take_their_flags() {
        let job = job("--input-file x.gor|200% --output-http v2:81/base/|10% --output-http-workers 3 --output-http-timeout 7s \
            --output-http-redirects 2 --output-http-track-response --http-original-host --output-file o.gor --output-file-append \
            --output-tcp a:1|5 --output-stdout --output-null --split-output --stats --output-http-stats")
        .expect("right");
        let [(Input::Files(files), None)] = &job.inputs[..] else {
            panic!("{:?}", job.inputs);
        };
        assert!((files.speed - 2.0).abs() < 1e-9);
        assert_eq!(job.split, Split::InTurn);
        assert_eq!(job.outputs.len(), 5);
        let (Output::Http(http), Some(Limit::Percent(10.0))) = &job.outputs[0] else {
            panic!("{:?}", job.outputs);
        };
        assert_eq!(http.config.max_connections.get(), 3);
        assert_eq!(http.config.deadlines.connect, Duration::from_secs(7));
        assert_eq!(http.config.when_full, WhenFull::Block);
        assert_eq!((http.redirects, http.track), (2, true));
        assert_eq!(http.stats, Some(Duration::from_secs(5)));
        assert!(matches!(&job.outputs[1].0, Output::File(file) if file.append));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, words) in [
            ("--output-null", "there is no input"),
            ("--input-raw :80", "there is no output"),
            (
                "--input-raw :80|x --output-null",
                "--input-raw: 'x' behind '|'",
            ),
            (
                "--input-raw-engine vxlan --output-null",
                "no listener for VXLAN",
            ),
            ("--input-raw-engine ebpf --output-null", "'ebpf' is none of"),
            ("--input-raw-protocol binary --output-null", "only HTTP/1"),
            (
                "--input-raw k8s://pod/x:80 --output-null",
                "a sidecar in the pod",
            ),
            ("--input-file s3://x --output-null", "S3 is not read"),
            ("--input-file x|0% --output-null", "never ends"),
            ("--input-tcp x --output-null", "--input-tcp: 'x' is neither"),
            (
                "--input-raw :80 --output-http ftp://x",
                "--output-http ftp://x",
            ),
            ("--input-raw :80 --output-tcp x", "'x' is not HOST:PORT"),
            (
                "--input-raw :80 --output-null --http-rewrite-url /v1",
                "--http-rewrite-url '/v1': expected REGEX:TO",
            ),
            (
                "--input-raw :80 --output-null --http-header-limiter Header2:1",
                "--http-header-limiter 'Header2:1'",
            ),
            (
                "--input-raw :80 --output-null --http-allow-url (",
                "not a regular expression",
            ),
            (
                "--input-raw :80 --output-null --input-file-dry-run",
                "only with --input-file",
            ),
        ] {
            let error = job(line).expect_err(line);
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn the_help_has_every_flag() {
        let help = help();
        for flag in FLAGS {
            assert!(
                help.contains(&format!("  --{} ", flag.name))
                    || help.contains(&format!("  --{}\n", flag.name)),
                "{}",
                flag.name
            );
        }
    }
}
