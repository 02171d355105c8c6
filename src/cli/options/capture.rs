//! Where messages come from: the network and files, and how packets become messages.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::super::values;
use super::{Size, Wrong, size};
use crate::app::restraint::of_control_group;
use crate::capture::live::{
    ANY_INTERFACE, DEFAULT_BUFFER, DEFAULT_SNAPLEN, LEAST_BUFFER, LiveConfig,
};
use crate::http1::MessageLimits;
use crate::restraint::{Cores, Limits as OwnLimits};
use crate::tap::{Limits, TapConfig, Watch, WatchedEnd};
use crate::wire::DecoderConfig;

/// Where packets are captured.
#[derive(Args, Debug)]
#[command(next_help_heading = "Capture")]
pub struct LiveFlags {
    /// The network interface; 'any' is all of them, several are given by name. A connection that passes through several of
    /// those given by name is seen, and mirrored, more than once.
    #[arg(
        short,
        long,
        value_name = "NAME",
        default_value = ANY_INTERFACE,
        value_delimiter = ',',
        env = "SHADOWTAP_INTERFACE"
    )]
    interface: Vec<String>,

    /// How many threads capture on each interface; both directions of a connection always meet in one of them. One keeps up
    /// with more than 300,000 small packets a second; more of them pay only where more cores are free (Linux).
    #[arg(
        long,
        value_name = "N",
        default_value_t = NonZeroUsize::MIN,
        value_parser = workers,
        env = "SHADOWTAP_WORKERS"
    )]
    workers: NonZeroUsize,

    /// Narrow what is captured by a filter in tcpdump's language, such as 'net 10.0.0.0/8'.
    #[arg(long, value_name = "EXPRESSION", env = "SHADOWTAP_FILTER")]
    filter: Option<String>,

    /// The kernel's buffer for packets that were not read yet, for each interface and worker.
    ///
    /// 32 MiB last for 128 ms in which the program does not run, and longer when packets are few. Default: 32MiB, all of them
    /// together at most a quarter of --memory-limit and of what the container may use.
    #[arg(
        short = 'B',
        long,
        value_name = "SIZE",
        value_parser = size,
        env = "SHADOWTAP_BUFFER"
    )]
    buffer: Option<Size>,

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

    /// Above this share of a core, such as 50% or 500m, whole connections are left out, and counted.
    ///
    /// Without it, nine tenths of what the control group (the container) allows, if it allows less than the machine has.
    #[arg(long, value_name = "CORES", env = "SHADOWTAP_CPU_LIMIT")]
    cpu_limit: Option<Cores>,
}

impl LiveFlags {
    /// What the program may use.
    pub fn limits(&self, tap: &TapFlags) -> OwnLimits {
        let of_group = || {
            let cores = of_control_group().cpu?;
            Cores::new(cores.get() * 0.9)
        };
        OwnLimits {
            cpu: self.cpu_limit.or_else(of_group),
            memory: tap.most_resident(),
        }
    }

    /// The configuration for capturing `ends`.
    pub fn into_config(self, ends: Vec<WatchedEnd>, tap: &TapFlags) -> Result<LiveConfig, Wrong> {
        let handles = (self.interface.len() * self.workers.get()).max(1);
        let buffer = self
            .buffer
            .unwrap_or_else(|| usual_buffer(tap.most_resident(), handles));
        let buffer = i32::try_from(buffer.0)
            .ok()
            .and_then(|buffer| u32::try_from(buffer).ok())
            .filter(|&buffer| buffer >= LEAST_BUFFER)
            .ok_or_else(|| Wrong("--buffer: between 1MiB and 2047MiB".to_owned()))?;
        let mut interfaces: Vec<String> = Vec::new();
        for interface in self.interface {
            if interfaces.contains(&interface) {
                return Err(Wrong(format!("--interface: {interface} is there twice")));
            }
            interfaces.push(interface);
        }
        if interfaces.len() > 1 && interfaces.iter().any(|name| name == ANY_INTERFACE) {
            return Err(Wrong(format!(
                "--interface: {ANY_INTERFACE} is all interfaces, and stands alone"
            )));
        }
        Ok(LiveConfig {
            interfaces,
            workers: self.workers,
            ends,
            filter: self.filter.filter(|filter| !filter.trim().is_empty()),
            buffer,
            snaplen: self.snaplen,
        })
    }
}

/// Refuses more than one worker; `why` says who needs that.
pub fn by_one_worker(live: &LiveConfig, why: &str) -> Result<(), Wrong> {
    if live.workers.get() == 1 && live.interfaces.len() == 1 {
        return Ok(());
    }
    Err(Wrong(format!(
        "--workers: {why}: one worker on one interface, which may be '{ANY_INTERFACE}'"
    )))
}

/// Which files are read, and what in them is HTTP.
#[derive(Args, Debug)]
pub struct FileFlags {
    /// Files to read, merged by time: .pcap .pcapng .gor .jsonl .har, also gzipped; '-' is standard input.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Look for HTTP on this port only; several for several, ADDRESS:PORT for one address. Default: every TCP port.
    #[arg(
        short,
        long,
        value_name = "[ADDRESS:]PORT",
        value_delimiter = ',',
        value_parser = values::watched_end,
        env = "SHADOWTAP_PORT"
    )]
    pub port: Vec<WatchedEnd>,
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

    /// Memory for the whole program: connections being put together, requests that wait for targets, answers. What does
    /// not fit is given up and counted, the idlest connections first; live, whole connections are left out before that.
    ///
    /// Without it, 128MiB, or three quarters of what the control group (the container) allows if that is less.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = memory_limit,
        env = "SHADOWTAP_MEMORY_LIMIT"
    )]
    memory_limit: Option<Size>,

    /// How many captured connections are followed at a time.
    #[arg(
        long,
        value_name = "N",
        default_value_t = NonZeroUsize::new(Limits::default().connections).unwrap_or(NonZeroUsize::MIN),
        value_parser = values::count,
        env = "SHADOWTAP_MAX_FOLLOWED"
    )]
    max_followed: NonZeroUsize,

    /// UDP ports that carry VXLAN.
    #[arg(
        long,
        value_name = "PORT",
        value_delimiter = ',',
        default_values_t = DecoderConfig::default().vxlan_ports,
        value_parser = values::port,
        env = "SHADOWTAP_VXLAN_PORT"
    )]
    vxlan_port: Vec<u16>,
}

impl TapFlags {
    /// What the memory is for, where requests are replayed.
    pub fn budgets(&self) -> Budgets {
        Budgets::of(self.memory())
    }

    fn memory(&self) -> Size {
        self.memory_limit.unwrap_or_else(usual_memory)
    }

    /// What may be resident before connections are left out: what was asked for, and nine tenths of what the control group
    /// allows. Nobody said anything: then nothing is at stake.
    fn most_resident(&self) -> Option<u64> {
        let asked = self.memory_limit.map(|limit| limit.0);
        let allowed = of_control_group().memory.map(|limit| limit / 10 * 9);
        asked.into_iter().chain(allowed).min()
    }

    /// The configuration for watching `ends`, where requests are replayed.
    pub fn into_config(self, ends: Vec<WatchedEnd>) -> TapConfig {
        let memory = self.budgets().connections;
        self.with_memory(ends, memory)
    }

    /// The configuration for watching `ends`, where nothing is replayed.
    pub fn into_config_alone(self, ends: Vec<WatchedEnd>) -> TapConfig {
        let budgets = self.budgets();
        let memory = budgets.connections + budgets.requests + budgets.answers;
        self.with_memory(ends, memory)
    }

    fn with_memory(self, ends: Vec<WatchedEnd>, memory: usize) -> TapConfig {
        let bytes = |size: Size| usize::try_from(size.0).unwrap_or(usize::MAX);
        TapConfig {
            watch: Watch {
                ends,
                ..Watch::default()
            },
            limits: Limits {
                message: MessageLimits {
                    // A buffer that grows is there twice for a moment.
                    body: bytes(self.max_message).min(memory / 2),
                    ..MessageLimits::default()
                },
                memory,
                connections: self.max_followed.get(),
                ..Limits::default()
            },
            decoder: DecoderConfig {
                vxlan_ports: self.vxlan_port,
                ..DecoderConfig::default()
            },
            ..TapConfig::default()
        }
    }
}

/// Where nobody says how much there is.
const USUAL_MEMORY: u64 = 128 << 20;

/// Where a control group allows next to nothing.
const LEAST_MEMORY: u64 = 32 << 20;

/// What the memory of [`TapFlags`] is for; the rest of it is for the program itself, the capture's buffer, and what no
/// budget knows of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budgets {
    /// Connections being put together.
    pub connections: usize,
    /// Requests that wait for all targets or are under way to them.
    pub requests: usize,
    /// Answers that are not whole yet.
    pub answers: usize,
}

impl Budgets {
    /// Those of `SHADOWTAP_MEMORY_LIMIT`, for a command line whose flags are not ours.
    ///
    /// # Errors
    /// What is wrong with the variable.
    pub fn of_environment() -> Result<Self, String> {
        let text = std::env::var("SHADOWTAP_MEMORY_LIMIT").unwrap_or_default();
        let limit = match &text[..] {
            "" => Ok(usual_memory()),
            text => memory_limit(text),
        };
        limit
            .map(Self::of)
            .map_err(|why| format!("SHADOWTAP_MEMORY_LIMIT: {why}"))
    }

    fn of(limit: Size) -> Self {
        let limit = usize::try_from(limit.0).unwrap_or(usize::MAX);
        Self {
            connections: limit / 16 * 5,
            requests: limit / 16 * 4,
            answers: limit / 16,
        }
    }
}

/// What each of the kernel's buffers takes unless told otherwise.
fn usual_buffer(most_resident: Option<u64>, handles: usize) -> Size {
    let all = most_resident.map_or(u64::MAX, |most| most / 4);
    let each = all / u64::try_from(handles).unwrap_or(u64::MAX);
    Size(each.clamp(u64::from(LEAST_BUFFER), u64::from(DEFAULT_BUFFER)))
}

/// What the program may take unless told otherwise.
fn usual_memory() -> Size {
    let allowed = of_control_group().memory.unwrap_or(u64::MAX);
    Size((allowed / 4 * 3).clamp(LEAST_MEMORY, USUAL_MEMORY))
}

/// More than this share a packet socket's group with nobody's profit.
const MOST_WORKERS: usize = 64;

fn workers(text: &str) -> Result<NonZeroUsize, String> {
    let wanted = values::count(text)?;
    if wanted.get() > MOST_WORKERS {
        return Err(format!("at most {MOST_WORKERS}"));
    }
    Ok(wanted)
}

fn memory_limit(text: &str) -> Result<Size, String> {
    match size(text)? {
        limit if limit.0 < 64 << 20 => Err("the program needs 64MiB at least".to_owned()),
        limit => Ok(limit),
    }
}
