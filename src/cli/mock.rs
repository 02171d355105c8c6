//! `shadowtap mock`: the answers that version 1 got, for version 2.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::options::{RunFlags, Size, size};
use super::{Wrong, values};
use crate::admin::AdminConfig;
use crate::mock::call::plain_host;
use crate::mock::{Ignored, MockConfig};

/// Answer version 2's outgoing calls with what version 1 got, so that nobody is charged twice.
///
/// Answers come from recordings of version 1's calls, from sidecars that watch them live ('mirror --learn-egress'), or
/// from stubs that a person wrote. Point version 2 at the mock by name (hostAliases, a Service), or set HTTP_PROXY: the
/// mock is a forward proxy too. TLS cannot be read: let version 2 call its providers by http:// through HTTP_PROXY.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap mock --listen :9900\n  \
    shadowtap mock --listen :9900 --from calls.jsonl\n  \
    shadowtap mock --listen :9900 --from calls.pcap,more.har --feed --latency original\n  \
    shadowtap mock --listen :9900 --pass-through stock:GET --miss '404:{}'")]
pub struct Flags {
    /// Where version 2's calls, the sidecars' feeds and the interface /mock/api come in.
    #[arg(
        short,
        long,
        value_name = "[ADDRESS:]PORT",
        required = true,
        value_parser = values::listen_address,
        env = "SHADOWTAP_LISTEN"
    )]
    listen: SocketAddr,

    /// Recordings of version 1's outgoing calls: .gor .jsonl .har .pcap.
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        env = "SHADOWTAP_FROM"
    )]
    from: Vec<PathBuf>,

    /// Stubs that a person wrote: files of WireMock's mappings, in JSON.
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        env = "SHADOWTAP_STUBS"
    )]
    stubs: Vec<PathBuf>,

    /// Wait for what sidecars feed ('mirror --to-mock') beside recordings; without any recording it does so anyway.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_FEED"
    )]
    feed: bool,

    /// How long a call waits for version 1 to make its own.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "2s",
        value_parser = values::duration,
        env = "SHADOWTAP_WAIT"
    )]
    wait: Duration,

    /// How long answers take: 'original', as long as version 1's provider took; 'none', no longer than needed; or a time.
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "none",
        env = "SHADOWTAP_LATENCY"
    )]
    latency: Latency,

    /// Calls without an answer that the real provider may get, by host and method, such as stock:GET; all others never
    /// leave the mock.
    #[arg(
        long,
        value_name = "HOST:METHOD",
        value_delimiter = ',',
        env = "SHADOWTAP_PASS_THROUGH"
    )]
    pass_through: Vec<PassThrough>,

    /// What a call without an answer gets: a status, and a body behind a colon. Default: 502, and why, in JSON.
    #[arg(long, value_name = "STATUS[:BODY]", env = "SHADOWTAP_MISS")]
    miss: Option<MissAnswer>,

    /// Names of JSON members and query parameters that mean nothing, beside times, nonces and the like.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        env = "SHADOWTAP_IGNORE"
    )]
    ignore: Vec<String>,

    /// Memory for stubs; beyond it the oldest go, and that is counted.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = Size(MockConfig::default().memory as u64),
        value_parser = size,
        env = "SHADOWTAP_MEMORY"
    )]
    memory: Size,

    #[command(flatten)]
    run: RunFlags,
}

/// What `mock` is to do.
#[derive(Debug)]
pub struct Job {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The recordings.
    pub from: Vec<PathBuf>,
    /// Files of stubs.
    pub stubs: Vec<PathBuf>,
    /// How it matches.
    pub config: MockConfig,
    /// How long answers take.
    pub latency: Latency,
    /// What may go to the real provider.
    pub pass_through: Vec<PassThrough>,
    /// What a miss gets.
    pub miss: Option<MissAnswer>,
    /// How long stopping may take.
    pub grace: Duration,
    /// Where the admin server listens.
    pub admin: Option<AdminConfig>,
}

/// How long answers take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Latency {
    /// As long as version 1's provider took.
    Original,
    /// No longer than needed.
    None,
    /// So long.
    Fixed(Duration),
}

impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "original" => Ok(Self::Original),
            "none" => Ok(Self::None),
            _ => values::duration(text).map(Self::Fixed).map_err(|_| {
                format!("'{text}' is neither original, none, nor a time such as 50ms")
            }),
        }
    }
}

/// Calls that may go to the real provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassThrough {
    /// The host, as calls are told apart by it.
    pub host: String,
    /// The method.
    pub method: String,
}

impl FromStr for PassThrough {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = || format!("'{text}' is not HOST:METHOD, such as stock:GET");
        let (host, method) = text.rsplit_once(':').ok_or_else(expected)?;
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        if host.is_empty() || !is_method {
            return Err(expected());
        }
        Ok(Self {
            host: plain_host(host),
            method: method.to_owned(),
        })
    }
}

/// What a call without an answer gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MissAnswer {
    /// The status.
    pub status: u16,
    /// The body, in place of why there is no answer.
    pub body: Option<Bytes>,
}

impl FromStr for MissAnswer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (status, body) = match text.split_once(':') {
            Some((status, body)) => (status, Some(Bytes::copy_from_slice(body.as_bytes()))),
            None => (text, None),
        };
        let status = status
            .parse()
            .ok()
            .filter(|status| (200..=599).contains(status))
            .ok_or_else(|| format!("'{text}' does not begin with a status from 200 to 599"))?;
        Ok(Self { status, body })
    }
}

impl Flags {
    pub(super) fn into_job(self) -> Result<Job, Wrong> {
        let memory = usize::try_from(self.memory.0).unwrap_or(usize::MAX);
        if memory < 1 << 20 {
            return Err(Wrong("--memory: at least 1MiB".to_owned()));
        }
        Ok(Job {
            listen: self.listen,
            config: MockConfig {
                memory,
                wait: self.wait,
                is_fed: self.feed || self.from.is_empty(),
                ignored: Ignored(self.ignore),
            },
            from: self.from,
            stubs: self.stubs,
            latency: self.latency,
            pass_through: self.pass_through,
            miss: self.miss,
            grace: self.run.grace,
            admin: self.run.admin()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_flags() {
        assert_eq!("original".parse(), Ok(Latency::Original));
        assert_eq!(
            "50ms".parse(),
            Ok(Latency::Fixed(Duration::from_millis(50)))
        );
        assert!("slow".parse::<Latency>().is_err());
        let through = |host: &str, method: &str| PassThrough {
            host: host.to_owned(),
            method: method.to_owned(),
        };
        assert_eq!("Stock:GET".parse(), Ok(through("stock", "GET")));
        assert_eq!("stock:8080:GET".parse(), Ok(through("stock:8080", "GET")));
        for wrong in ["stock", "stock:", ":GET", "stock:80", "stock:get"] {
            assert!(wrong.parse::<PassThrough>().is_err(), "{wrong}");
        }
        let miss = "404:{}".parse::<MissAnswer>().unwrap();
        assert_eq!((miss.status, miss.body.as_deref()), (404, Some(&b"{}"[..])));
        assert_eq!("503".parse::<MissAnswer>().unwrap().body, None);
        for wrong in ["", "x", "99", "1000:x"] {
            assert!(wrong.parse::<MissAnswer>().is_err(), "{wrong}");
        }
    }
}
