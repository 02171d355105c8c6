//! Live capture with libpcap.
//!
//! The buffer time-out decides between latency and cost: the kernel hands a block of packets over when the block is
//! full or that old. libpcap's immediate mode would give every packet a slot of the size of the snap length, so that
//! 32 MiB held 128 packets; it is not used. Measured on Linux 6.18 over veth, on two busy cores, at 1,000 requests a second: with
//! blocks of at most 5 ms the median request reached version 2 6.6 ms after it was sent to version 1, and cost 41 µs of CPU; with
//! blocks of 1 ms, 1.0 ms and 88 µs, since hardly two requests share a wake-up. At full load blocks fill and cost the same.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use pcap::{Active, BreakLoop, Capture, Precision};

#[cfg(target_os = "linux")]
use super::fanout::Group;
use super::interface::Missed;
pub use super::right::give_up_capabilities;
use super::right::with_right_to_capture;
use crate::account::{Account, Reason};
use crate::tap::WatchedEnd;
use crate::time::Timestamp;
use crate::wire::{LinkType, Packet};

/// What to capture, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveConfig {
    /// The names of network interfaces, or [`ANY_INTERFACE`]; at least one, each once.
    pub interfaces: Vec<String>,
    /// Among how many handles the packets of each interface are shared out.
    pub workers: NonZeroUsize,
    /// The server ends to watch; none means every TCP port.
    pub ends: Vec<WatchedEnd>,
    /// The user's own filter expression, in tcpdump's language; it narrows what `ends` gives.
    pub filter: Option<String>,
    /// The kernel's buffer for each handle, in bytes.
    pub buffer: u32,
    /// How many bytes of each packet are captured.
    pub snaplen: u32,
}

/// The interface name that means all of them (Linux).
pub const ANY_INTERFACE: &str = "any";

/// Where offloads build large segments, frames are longer than any MTU: this is libpcap's own upper bound.
pub const DEFAULT_SNAPLEN: u32 = 262_144;

/// 128 blocks of 256 KiB: at low rates, when time fills the blocks, 128 times `BLOCK_AGE` may pass before one is lost. That is
/// longer than the 100 ms for which Linux stops a container at most that has used up its CPU limit.
pub const DEFAULT_BUFFER: u32 = 32 << 20;

/// The smallest buffer that is of any use.
pub const LEAST_BUFFER: u32 = 1 << 20;

/// How old a block of packets gets before the kernel hands it over: what live capture adds to the latency at most, where
/// the kernel's timers have such small steps (before Linux 6.18 it takes one to two ticks of the kernel's clock instead,
/// 4 to 8 ms on many).
const BLOCK_AGE: Duration = Duration::from_millis(1);

/// An open capture handle.
pub struct Live {
    capture: Capture<Active>,
    interface: String,
    /// Set by [`Waker::wake`]: the crate does not tell a broken-off read from a failed one.
    woken: Arc<AtomicBool>,
    link: LinkType,
    filter: String,
    nanoseconds: bool,
    /// What was captured before is ignored: handles that share the packets of an interface were not all together yet.
    begin: Timestamp,
    lost: Lost,
    /// What the interface drops; with the first of the handles that share one.
    missed: Missed,
}

/// What one [`Live::read`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// Handed over that many packets.
    Packets(usize),
    /// Returned because of [`Waker::wake`]; packets may have been handed over before.
    Woken,
}

/// Makes a [`Live::read`] that blocks on another thread return.
pub struct Waker {
    handle: BreakLoop,
    woken: Arc<AtomicBool>,
}

/// Why live capture does not work.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The process may not capture.
    #[error(
        "no permission to capture on interface '{interface}': this needs the capability CAP_NET_RAW.\n  \
         On this machine: sudo setcap cap_net_raw+p \"$(command -v shadowtap)\", or run as root.\n  \
         In Kubernetes: securityContext.capabilities.add: [\"NET_RAW\"] on this container.\n  ({detail})"
    )]
    Permission {
        /// The interface.
        interface: String,
        /// libpcap's words.
        detail: String,
    },
    /// There is no such interface.
    #[error("--interface: there is no interface '{interface}' here; there are: {known}")]
    UnknownInterface {
        /// What was asked for.
        interface: String,
        /// The names of those that exist.
        known: String,
    },
    /// The interface exists but is down.
    #[error("--interface: '{interface}' is down; bring it up with: ip link set {interface} up")]
    InterfaceDown {
        /// The interface.
        interface: String,
    },
    /// The system does not give so much memory for the kernel's buffer.
    #[error(
        "--buffer: no memory for a capture buffer of this size on interface '{interface}'; try a smaller one ({detail})"
    )]
    Buffer {
        /// The interface.
        interface: String,
        /// libpcap's words.
        detail: String,
    },
    /// libpcap does not understand the user's filter.
    #[error(
        "--filter: '{filter}' is not a capture filter: {detail} (the language is tcpdump's: man pcap-filter)"
    )]
    Filter {
        /// The user's filter.
        filter: String,
        /// libpcap's words.
        detail: String,
    },
    /// The system does not share the packets out.
    #[error(
        "--workers: the packets of interface '{interface}' cannot be shared out among several workers here ({source}); \
         use --workers 1"
    )]
    Workers {
        /// The interface.
        interface: String,
        /// The system's words.
        source: io::Error,
    },
    /// Anything else that libpcap reports.
    #[error("capturing on interface '{interface}' failed: {detail}")]
    Failed {
        /// The interface.
        interface: String,
        /// libpcap's words.
        detail: String,
    },
}

impl Live {
    /// Opens every interface as often as there are workers, and sets the filter. All packets of a connection that come
    /// through one interface go to one of its handles.
    ///
    /// # Errors
    /// No permission, no such interface, a filter that does not compile, or what else libpcap reports.
    pub fn open(config: &LiveConfig) -> Result<Vec<Self>, LiveError> {
        let mut handles = Vec::new();
        for interface in &config.interfaces {
            let mut first = Self::open_one(config, interface)?;
            first.missed = Missed::of(interface);
            let group = match config.workers.get() {
                1 => None,
                _ => Some(first.found_group()?),
            };
            handles.push(first);
            for _ in 1..config.workers.get() {
                let next = Self::open_one(config, interface)?;
                if let Some(group) = group {
                    next.join(group)?;
                }
                handles.push(next);
            }
        }
        if config.workers.get() > 1 {
            // Until the last had joined, packets came to more than one of them, or to another one than they do now.
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let now = Timestamp::ZERO.after(since.unwrap_or_default());
            for handle in &mut handles {
                handle.begin = now;
            }
        }
        Ok(handles)
    }

    fn open_one(config: &LiveConfig, interface: &str) -> Result<Self, LiveError> {
        let open = || {
            Capture::from_device(interface).and_then(|inactive| {
                inactive
                    .snaplen(i32::try_from(config.snaplen).unwrap_or(i32::MAX))
                    .buffer_size(i32::try_from(config.buffer).unwrap_or(i32::MAX))
                    .timeout(i32::try_from(BLOCK_AGE.as_millis()).unwrap_or(i32::MAX))
                    .precision(precision())
                    .promisc(false)
                    .open()
            })
        };
        let mut capture =
            with_right_to_capture(open).map_err(|error| open_error(interface, &error))?;
        let link = capture.get_datalink();
        let filter = set_filter(&mut capture, config, interface)?;
        Ok(Self {
            link: LinkType(u16::try_from(link.0).unwrap_or(u16::MAX)),
            capture,
            interface: interface.to_owned(),
            woken: Arc::default(),
            filter,
            nanoseconds: precision() == Precision::Nano,
            begin: Timestamp::ZERO,
            lost: Lost::default(),
            missed: Missed::default(),
        })
    }

    #[cfg(target_os = "linux")]
    fn found_group(&self) -> Result<Group, LiveError> {
        Group::found(&self.capture).map_err(|source| self.not_shared_out(source))
    }

    #[cfg(target_os = "linux")]
    fn join(&self, group: Group) -> Result<(), LiveError> {
        group
            .join(&self.capture)
            .map_err(|source| self.not_shared_out(source))
    }

    #[cfg(not(target_os = "linux"))]
    fn found_group(&self) -> Result<(), LiveError> {
        Err(self.not_shared_out(io::ErrorKind::Unsupported.into()))
    }

    #[cfg(not(target_os = "linux"))]
    fn join(&self, (): ()) -> Result<(), LiveError> {
        self.found_group()
    }

    fn not_shared_out(&self, source: io::Error) -> LiveError {
        LiveError::Workers {
            interface: self.interface.clone(),
            source,
        }
    }

    /// The filter that the kernel runs, in tcpdump's language.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The kind of link-layer header that this interface gives.
    #[must_use]
    pub fn link(&self) -> LinkType {
        self.link
    }

    /// A handle for another thread to make [`Self::read`] return.
    ///
    /// On an idle Linux interface libpcap may block for ever, whatever time-out it was given.
    pub fn waker(&mut self) -> Waker {
        Waker {
            handle: self.capture.breakloop_handle(),
            woken: Arc::clone(&self.woken),
        }
    }

    /// Waits for a block of packets and hands each over; returns when the block is done.
    ///
    /// # Errors
    /// When the interface goes away or libpcap fails otherwise; nothing more will come.
    pub fn read(&mut self, mut on_packet: impl FnMut(&Packet<'_>)) -> Result<Read, LiveError> {
        let (link, nanoseconds, begin) = (self.link, self.nanoseconds, self.begin);
        let outcome = self.capture.dispatch(None, |packet| {
            let time = timestamp(packet.header, nanoseconds);
            if time < begin {
                return;
            }
            on_packet(&Packet {
                time,
                link,
                wire_len: packet.header.len,
                data: packet.data,
            });
        });
        match outcome {
            Ok(count) => Ok(Read::Packets(count)),
            // A failure that comes at the same time shows again at the next read.
            Err(_) if self.woken.swap(false, Ordering::AcqRel) => Ok(Read::Woken),
            Err(error) => Err(LiveError::Failed {
                interface: self.interface.clone(),
                detail: pcap_text(&error),
            }),
        }
    }

    /// What the kernel and the interface have dropped since the last call.
    pub fn losses(&mut self) -> Account {
        let mut account = Account::new();
        account.drop_n(Reason::InterfaceDropped, self.missed.new_ones());
        if let Ok(stat) = self.capture.stats() {
            self.lost.went_on(&stat, &mut account);
        }
        account
    }
}

impl Waker {
    /// Makes the present or next [`Live::read`] return [`Read::Woken`].
    pub fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.handle.breakloop();
    }
}

/// The addresses of this machine (of this network namespace): where a watched server may be.
///
/// # Errors
/// When the operating system does not tell.
pub fn local_addresses() -> io::Result<HashSet<IpAddr>> {
    Ok(if_addrs::get_if_addrs()?
        .into_iter()
        .map(|interface| interface.ip())
        .collect())
}

/// libpcap's running totals; they wrap.
#[derive(Clone, Copy, Default)]
struct Lost {
    kernel: u32,
    /// On Linux always 0: see [`Missed`].
    interface: u32,
}

impl Lost {
    /// Counts what was added to the totals since the last time.
    fn went_on(&mut self, now: &pcap::Stat, account: &mut Account) {
        let since = |now: u32, before: &mut u32| {
            u64::from(now.wrapping_sub(std::mem::replace(before, now)))
        };
        account.drop_n(
            Reason::KernelBufferFull,
            since(now.dropped, &mut self.kernel),
        );
        account.drop_n(
            Reason::InterfaceDropped,
            since(now.if_dropped, &mut self.interface),
        );
    }
}

/// Only Linux has nanoseconds everywhere; the crate does not tell whether a platform granted them.
const fn precision() -> Precision {
    if cfg!(target_os = "linux") {
        Precision::Nano
    } else {
        Precision::Micro
    }
}

fn timestamp(header: &pcap::PacketHeader, nanoseconds: bool) -> Timestamp {
    let secs = u64::try_from(header.ts.tv_sec).unwrap_or(0);
    let fraction = u64::try_from(header.ts.tv_usec).unwrap_or(0);
    Timestamp::from_secs_nanos(
        secs,
        if nanoseconds {
            fraction
        } else {
            fraction * 1000
        },
    )
}

fn open_error(interface: &str, error: &pcap::Error) -> LiveError {
    let interface = interface.to_owned();
    let detail = pcap_text(error);
    let lower = detail.to_ascii_lowercase();
    // The crate hands on libpcap's text alone, so the text is all there is to tell the cases apart.
    if lower.contains("permission") || lower.contains("not permitted") {
        return LiveError::Permission { interface, detail };
    }
    if lower.contains("is not up") || lower.contains("network is down") {
        return LiveError::InterfaceDown { interface };
    }
    if lower.contains("rx ring") || lower.contains("allocate memory") {
        return LiveError::Buffer { interface, detail };
    }
    let known = interface_names();
    if lower.contains("no such device") || !known.contains(&interface) {
        let known = known.join(", ");
        return LiveError::UnknownInterface { interface, known };
    }
    LiveError::Failed { interface, detail }
}

fn interface_names() -> Vec<String> {
    let mut names: Vec<String> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| interface.name)
        .collect();
    if let Ok(devices) = pcap::Device::list() {
        names.extend(
            devices
                .into_iter()
                .filter(|device| device.name == ANY_INTERFACE || device.flags.is_up())
                .map(|device| device.name),
        );
    }
    names.sort();
    names.dedup();
    names
}

/// Sets the most complete filter that libpcap compiles for this link type; answers its text.
fn set_filter(
    capture: &mut Capture<Active>,
    config: &LiveConfig,
    interface: &str,
) -> Result<String, LiveError> {
    let user = config.filter.as_deref();
    if let Some(filter) = user {
        capture
            .compile(filter, true)
            .map_err(|error| LiveError::Filter {
                filter: filter.to_owned(),
                detail: pcap_text(&error),
            })?;
    }
    let mut last = None;
    for vlan in [true, false] {
        let filter = filter_text(&config.ends, user, vlan);
        match capture.filter(&filter, true) {
            Ok(()) => return Ok(filter),
            Err(error) => last = Some(error),
        }
    }
    let detail = last.as_ref().map(pcap_text).unwrap_or_default();
    Err(match user {
        Some(filter) => LiveError::Filter {
            filter: filter.to_owned(),
            detail,
        },
        None => LiveError::Failed {
            interface: interface.to_owned(),
            detail,
        },
    })
}

fn pcap_text(error: &pcap::Error) -> String {
    match error {
        pcap::Error::PcapError(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The filter for both directions of the watched ends, in tcpdump's language.
///
/// Later fragments of a datagram have no ports, and behind IPv6 extension headers BPF cannot find them, so all of those
/// are let through. `vlan` moves the offsets of every term
/// behind it, so it comes last, with the user's filter repeated behind it.
fn filter_text(ends: &[WatchedEnd], user: Option<&str>, vlan: bool) -> String {
    let tcp = if ends.is_empty() {
        "tcp".to_owned()
    } else {
        let mut terms = String::new();
        for (index, end) in ends.iter().enumerate() {
            if index > 0 {
                terms.push_str(" or ");
            }
            // Writing to a string cannot fail.
            let _ = match end.address {
                None => write!(terms, "tcp port {}", end.port),
                Some(address) => write!(
                    terms,
                    "(host {} and tcp port {})",
                    address.to_canonical(),
                    end.port
                ),
            };
        }
        terms
    };
    let fragments = "(ip[9] = 6 and ip[6:2] & 0x1fff != 0) \
        or (ip6[6] = 0 or ip6[6] = 43 or ip6[6] = 44 or ip6[6] = 60)";
    let mut filter = match user {
        Some(user) => format!("({user}) and ({tcp} or {fragments})"),
        None => format!("{tcp} or {fragments}"),
    };
    if vlan {
        // A user's filter that speaks of VLANs itself has moved the offsets already.
        match user {
            None => filter = format!("{filter} or (vlan and ({tcp} or {fragments}))"),
            Some(user) if !user.contains("vlan") => {
                filter = format!("({filter}) or (vlan and ({user}) and ({tcp} or {fragments}))");
            }
            Some(_) => {}
        }
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap::Linktype;

    #[test]
    fn what_libpcap_counts_is_in_the_account_once() {
        let stat = |dropped, if_dropped| pcap::Stat {
            received: 0,
            dropped,
            if_dropped,
        };
        let mut lost = Lost::default();
        let mut account = Account::new();
        for stat in [
            stat(2, 1),
            stat(2, 1),
            stat(7, 2),
            stat(u32::MAX, 2),
            stat(3, 5),
        ] {
            lost.went_on(&stat, &mut account);
        }
        // 2 + 5, up to the end of the range, and 4 more.
        let kernel = u64::from(u32::MAX) + 4;
        assert_eq!(account.dropped(Reason::KernelBufferFull), kernel);
        assert_eq!(account.dropped(Reason::InterfaceDropped), 5);
        // Both lower the completeness: see `judge::Completeness`.
        assert_eq!(
            account.dropped_at(crate::account::Stage::Capture),
            kernel + 5
        );
    }

    fn end(text: &str) -> WatchedEnd {
        crate::cli::values::watched_end(text).unwrap()
    }

    /// An Ethernet frame with an IPv4 TCP segment, 20 bytes each, tagged once when `vlan`.
    fn frame(vlan: bool, source: u16, destination: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        if vlan {
            frame.extend([0x81, 0x00, 0x00, 0x05]);
        }
        frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(source.to_be_bytes());
        frame.extend(destination.to_be_bytes());
        frame.extend([0; 16]);
        frame
    }

    fn matches(filter: &str, frame: &[u8]) -> bool {
        let dead = Capture::dead(Linktype::ETHERNET).unwrap();
        dead.compile(filter, true).unwrap().filter(frame)
    }

    #[test]
    fn both_directions_of_watched_ports_with_and_without_vlan() {
        let filter = filter_text(&[end("8080"), end("10.0.0.2:9090")], None, true);
        for vlan in [false, true] {
            assert!(matches(&filter, &frame(vlan, 40_000, 8080)));
            assert!(matches(&filter, &frame(vlan, 8080, 40_000)));
            assert!(matches(&filter, &frame(vlan, 9090, 40_000)));
            assert!(!matches(&filter, &frame(vlan, 40_000, 8081)));
        }
        let elsewhere = filter_text(&[end("10.9.9.9:8080")], None, true);
        assert!(!matches(&elsewhere, &frame(false, 40_000, 8080)));
    }

    #[test]
    fn later_fragments_pass() {
        let filter = filter_text(&[end("8080")], None, true);
        let mut later = frame(false, 1, 2);
        later[14 + 6..14 + 8].copy_from_slice(&[0x00, 0xb9]);
        assert!(matches(&filter, &later));
    }

    #[test]
    fn the_users_filter_narrows() {
        let filter = filter_text(&[end("8080")], Some("src host 10.0.0.1"), true);
        for vlan in [false, true] {
            assert!(matches(&filter, &frame(vlan, 40_000, 8080)));
            assert!(!matches(&filter, &frame(vlan, 40_000, 8081)));
        }
        let filter = filter_text(&[end("8080")], Some("src host 10.0.0.9"), true);
        assert!(!matches(&filter, &frame(false, 40_000, 8080)));
        let filter = filter_text(&[end("8080")], Some("vlan 5"), true);
        assert!(matches(&filter, &frame(true, 40_000, 8080)));
        assert!(!matches(&filter, &frame(true, 40_000, 8081)));
        assert!(!matches(&filter, &frame(false, 40_000, 8080)));
    }

    #[test]
    fn no_port_means_every_tcp_port() {
        let filter = filter_text(&[], None, true);
        assert!(matches(&filter, &frame(false, 1, 2)));
        assert!(matches(&filter, &frame(true, 1, 2)));
    }

    #[test]
    fn the_machine_has_addresses() {
        assert!(!local_addresses().unwrap().is_empty());
    }
}
