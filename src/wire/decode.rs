//! The walk through a frame, layer by layer, to the innermost TCP segment.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::IpNumber;

use super::fragment::{Datagram, Evicted, Fragment, Key, Outcome, Reassembly};
use super::{LinkType, Packet, Path, Segment, View, plain};
use crate::account::{Account, Counter, Reason};
use crate::time::Timestamp;

/// What a [`Decoder`] should know about the network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecoderConfig {
    /// UDP ports that carry VXLAN.
    pub vxlan_ports: Vec<u16>,
    /// UDP ports that carry GENEVE.
    pub geneve_ports: Vec<u16>,
    /// UDP ports that carry GTP-U. On other ports it is recognised only when its header leaves no doubt.
    pub gtp_ports: Vec<u16>,
    /// How many bytes of IP fragments may wait for others, bookkeeping included.
    pub fragment_budget: usize,
    /// How many tunnels inside each other are followed.
    pub max_tunnels: u8,
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self {
            vxlan_ports: vec![4789, 8472],
            geneve_ports: vec![6081],
            gtp_ports: vec![2152],
            fragment_budget: 4 * 1024 * 1024,
            max_tunnels: 8,
        }
    }
}

/// Finds the TCP segment in each captured frame.
///
/// Every frame given is a [`Counter::Packets`] and leaves as a [`Counter::Segments`] or through exactly one
/// [`Reason`]. Fragments wait for their siblings: the frame that completes a datagram gives the segment, and the others
/// leave as [`Reason::FragmentMerged`]. A wrong TCP checksum is noted in the segment
/// and nothing else: a capture sees outgoing packets before the interface has filled it in.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    fragments: Reassembly,
    /// The payload of the datagram that the last segment came from, when it came in fragments.
    whole: Vec<u8>,
    unknown_link: Option<LinkType>,
}

impl Decoder {
    /// A decoder that has seen nothing yet.
    #[must_use]
    pub fn new(config: DecoderConfig) -> Self {
        Self {
            fragments: Reassembly::new(config.fragment_budget),
            config,
            whole: Vec::new(),
            unknown_link: None,
        }
    }

    /// The link type of frames that left as [`Reason::UnknownLinkType`], if any did; of several, the latest.
    #[must_use]
    pub fn unknown_link(&self) -> Option<LinkType> {
        self.unknown_link
    }

    /// The TCP segment in `packet`, or of the datagram that `packet` completes; `None` was counted in `account`.
    pub fn decode<'a>(
        &'a mut self,
        packet: &Packet<'a>,
        account: &mut Account,
    ) -> Option<Segment<'a>> {
        account.count(Counter::Packets);
        account.add(Counter::PacketBytes, u64::from(packet.wire_len));
        if let Some(segment) = plain::segment(packet) {
            account.count(Counter::Segments);
            return Some(segment);
        }
        self.walk(packet, account)
    }

    /// The segment in a frame of any kind.
    fn walk<'a>(&'a mut self, packet: &Packet<'a>, account: &mut Account) -> Option<Segment<'a>> {
        let view = View::new(packet.data, packet.wire_len as usize);
        let walk = Walk::new(&self.config, view, packet.time);
        match walk.run(Layer::Link(packet.link)) {
            Ok(Found::Segment(segment)) => {
                account.count(Counter::Segments);
                Some(segment)
            }
            Ok(Found::Fragment(fragment)) => self.reassemble(&fragment, packet.time, account),
            Err(reason) => {
                account.drop(reason);
                if reason == Reason::UnknownLinkType {
                    self.unknown_link = Some(packet.link);
                }
                None
            }
        }
    }

    /// Counts what still waits: no packet will come any more.
    pub fn finish(&mut self, account: &mut Account) {
        account.drop_n(Reason::FragmentIncomplete, self.fragments.finish());
    }

    /// Gives a fragment to its datagram, and walks on when that is whole: what it holds may be a fragment again.
    #[cold]
    fn reassemble<'a>(
        &'a mut self,
        fragment: &Fragment<'_>,
        time: Timestamp,
        account: &mut Account,
    ) -> Option<Segment<'a>> {
        let mut outcome = push(&mut self.fragments, fragment, time, account);
        let mut datagram = loop {
            let datagram = match outcome {
                Outcome::Held => return None,
                Outcome::Dropped(n, reason) => {
                    account.drop_n(reason, n);
                    return None;
                }
                Outcome::Whole(datagram) => datagram,
            };
            account.drop_n(Reason::FragmentMerged, datagram.fragments - 1);
            match Walk::resume(&self.config, &datagram, &datagram.payload, time) {
                Ok(Found::Segment(_)) => break datagram,
                Ok(Found::Fragment(inner)) => {
                    outcome = push(&mut self.fragments, &inner, time, account);
                }
                Err(reason) => {
                    account.drop(reason);
                    return None;
                }
            }
        };
        // The same walk once more, so that the segment borrows from where the payload stays.
        self.whole = std::mem::take(&mut datagram.payload);
        match Walk::resume(&self.config, &datagram, &self.whole, time) {
            Ok(Found::Segment(segment)) => {
                account.count(Counter::Segments);
                Some(segment)
            }
            Ok(Found::Fragment(_)) | Err(_) => {
                debug_assert!(false, "the same bytes gave a segment a moment ago");
                account.drop(Reason::MalformedPacket);
                None
            }
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(DecoderConfig::default())
    }
}

/// Pushes a fragment, and counts those that left because of it.
fn push(
    fragments: &mut Reassembly,
    fragment: &Fragment<'_>,
    time: Timestamp,
    account: &mut Account,
) -> Outcome {
    let mut evicted = Evicted::default();
    let outcome = fragments.push(fragment, time, &mut evicted);
    account.drop_n(Reason::FragmentIncomplete, evicted.incomplete);
    account.drop_n(Reason::FragmentOverBudget, evicted.over_budget);
    outcome
}

/// What a walk ends at, if not at a [`Reason`].
pub(super) enum Found<'a> {
    Segment(Segment<'a>),
    Fragment(Fragment<'a>),
}

/// What the bytes at hand are.
///
/// Each layer takes at least one byte off the view or hands over to one that does, so that a walk ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layer {
    Link(LinkType),
    Ethernet,
    /// What an Ethernet type announces.
    EtherType(u16),
    /// IEEE 802.2.
    Llc,
    Ieee80211,
    Ppp,
    Mpls,
    /// IPv4 or IPv6, by the first nibble.
    Ip,
    Ipv4,
    Ipv6,
    /// What an IP protocol number announces.
    Protocol(u8),
    /// A part of an IP payload.
    Fragment {
        id: u32,
        protocol: u8,
        offset: usize,
        more: bool,
    },
}

/// One way through a frame.
pub(super) struct Walk<'a, 'c> {
    pub(super) config: &'c DecoderConfig,
    /// What is left of the frame.
    pub(super) view: View<'a>,
    pub(super) time: Timestamp,
    pub(super) path: Path,
    tunnels: u8,
    /// The addresses of the innermost IP header so far.
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

impl<'a, 'c> Walk<'a, 'c> {
    fn new(config: &'c DecoderConfig, view: View<'a>, time: Timestamp) -> Self {
        Self {
            config,
            view,
            time,
            path: Path::default(),
            tunnels: 0,
            source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }

    /// Walks on where the fragments of `datagram` broke off.
    fn resume(
        config: &'c DecoderConfig,
        datagram: &Datagram,
        payload: &'a [u8],
        time: Timestamp,
    ) -> Result<Found<'a>, Reason> {
        let walk = Self {
            config,
            view: View::new(payload, datagram.len),
            time,
            path: datagram.key.path,
            tunnels: datagram.tunnels,
            source: datagram.key.source,
            destination: datagram.key.destination,
        };
        walk.run(Layer::Protocol(datagram.protocol))
    }

    #[inline]
    fn run(mut self, mut layer: Layer) -> Result<Found<'a>, Reason> {
        loop {
            layer = match layer {
                Layer::Link(link) => self.link(link)?,
                Layer::Ethernet => self.ethernet()?,
                Layer::EtherType(ether_type) => self.ether_type(ether_type)?,
                Layer::Llc => self.llc()?,
                Layer::Ieee80211 => self.ieee80211()?,
                Layer::Ppp => self.ppp()?,
                Layer::Mpls => self.mpls()?,
                Layer::Ip => self.ip()?,
                Layer::Ipv4 => self.ipv4()?,
                Layer::Ipv6 => self.ipv6()?,
                Layer::Protocol(TCP) => return self.tcp().map(Found::Segment),
                Layer::Protocol(protocol) => self.protocol(protocol)?,
                Layer::Fragment {
                    id,
                    protocol,
                    offset,
                    more,
                } => {
                    let key = Key {
                        source: self.source,
                        destination: self.destination,
                        id,
                        // IPv6 fragments are told apart without it (RFC 8200 section 4.5).
                        protocol: if self.source.is_ipv4() { protocol } else { 0 },
                        path: self.path,
                    };
                    return Ok(Found::Fragment(Fragment {
                        key,
                        protocol,
                        offset,
                        more,
                        view: self.view,
                        tunnels: self.tunnels,
                    }));
                }
            };
        }
    }

    /// Counts one more tunnel, and says what is in it.
    pub(super) fn tunnel(&mut self, inside: Layer) -> Result<Layer, Reason> {
        if self.tunnels >= self.config.max_tunnels {
            return Err(Reason::TunnelTooDeep);
        }
        self.tunnels += 1;
        Ok(inside)
    }
}

/// The IP protocol number of TCP.
const TCP: u8 = IpNumber::TCP.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames with any of the header's bytes changed, and cut anywhere: the short way says the same as the walk, or nothing.
    #[test]
    fn the_short_way_ends_where_the_walk_does() {
        let mut frame = vec![
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, // Ethernet
            0x45, 0, 0, 57, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
            1, 2, 3, 4, 0, 0, 0, 9, 0, 0, 0, 8, 0x80, 0x18, 1, 0, 0, 0, 0, 3, // TCP
            1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 6, b'h', b'e', b'l', b'l', b'o',
        ];
        let (mut taken, mut left) = (0, 0);
        let mut check = |frame: &[u8], wire_len: u32| {
            let packet = Packet {
                time: Timestamp::from_nanos(5),
                link: LinkType::ETHERNET,
                wire_len,
                data: frame,
            };
            let Some(short) = plain::segment(&packet) else {
                left += 1;
                return;
            };
            taken += 1;
            let mut decoder = Decoder::default();
            let long = decoder.walk(&packet, &mut Account::new());
            assert_eq!(format!("{:?}", Some(short)), format!("{long:?}"));
        };
        for padding in [0, 6] {
            frame.resize(frame.len() + padding, 0);
            for at in 0..frame.len() {
                check(&frame[..at], frame.len() as u32);
                for change in 0..=u8::MAX {
                    let mut changed = frame.clone();
                    changed[at] = change;
                    check(&changed, frame.len() as u32);
                    check(&changed, 20);
                }
            }
        }
        assert!(taken > 10_000 && left > 1_000, "{taken} {left}");
    }
}
