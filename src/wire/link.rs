//! What the capture file's link type announces.

use super::decode::{Layer, Walk};
use super::{LinkType, View};
use crate::account::Reason;

impl LinkType {
    /// BSD loopback: the address family in the byte order of the machine that captured.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// IPv4 or IPv6 without a link-layer header.
    pub const RAW: Self = Self(101);
    /// OpenBSD loopback: the address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux cooked capture, version 1.
    pub const LINUX_SLL: Self = Self(113);
    /// IPv4 without a link-layer header.
    pub const IPV4: Self = Self(228);
    /// IPv6 without a link-layer header.
    pub const IPV6: Self = Self(229);
    /// Linux cooked capture, version 2.
    pub const LINUX_SLL2: Self = Self(276);

    const TOKEN_RING: Self = Self(6);
    const ARCNET: Self = Self(7);
    const SLIP: Self = Self(8);
    const PPP: Self = Self(9);
    const FDDI: Self = Self(10);
    const PPP_HDLC: Self = Self(50);
    const PPP_ETHER: Self = Self(51);
    const ATM_RFC1483: Self = Self(100);
    const C_HDLC: Self = Self(104);
    const IEEE802_11: Self = Self(105);
    const FRAME_RELAY: Self = Self(107);
    const ENC: Self = Self(109);
    const PFLOG: Self = Self(117);
    const PRISM: Self = Self(119);
    const IP_OVER_FIBRE_CHANNEL: Self = Self(122);
    const RADIOTAP: Self = Self(127);
    const ARCNET_LINUX: Self = Self(129);
    const APPLE_IP_OVER_1394: Self = Self(138);
    const AVS: Self = Self(163);
    const PPP_PPPD: Self = Self(166);
    const PPI: Self = Self(192);
    const PPP_WITH_DIR: Self = Self(204);
    const C_HDLC_WITH_DIR: Self = Self(205);
    const FRAME_RELAY_WITH_DIR: Self = Self(206);
    const MPLS: Self = Self(219);
    const NFLOG: Self = Self(239);
    const NETANALYZER: Self = Self(240);
    const NETANALYZER_TRANSPARENT: Self = Self(241);
    const IPNET: Self = Self(226);
    const PKTAP: Self = Self(258);
    const MPACKET: Self = Self(274);
}

impl Walk<'_, '_> {
    /// What the link type announces (<https://www.tcpdump.org/linktypes.html>).
    #[inline]
    pub(super) fn link(&mut self, link: LinkType) -> Result<Layer, Reason> {
        match link {
            LinkType::ETHERNET => Ok(Layer::Ethernet),
            LinkType::LINUX_SLL => self.linux_cooked(),
            LinkType::LINUX_SLL2 => self.linux_cooked_v2(),
            // 12 and 14 are what raw IP is called on some systems.
            LinkType::RAW | LinkType(12 | 14) => Ok(Layer::Ip),
            LinkType::IPV4 => Ok(Layer::Ipv4),
            LinkType::IPV6 => Ok(Layer::Ipv6),
            LinkType::NULL | LinkType::LOOP => self.address_family(),
            _ => self.rare_link(link),
        }
    }

    fn rare_link(&mut self, link: LinkType) -> Result<Layer, Reason> {
        match link {
            LinkType::PPP | LinkType::PPP_HDLC => Ok(Layer::Ppp),
            LinkType::PPP_ETHER => self.pppoe(),
            // One byte says the direction; PPP_PPPD has it where PPP has its address byte.
            LinkType::PPP_WITH_DIR => self.after(1, Layer::Ppp),
            LinkType::PPP_PPPD => self.after(2, Layer::Ppp),
            LinkType::C_HDLC => self.cisco_hdlc(),
            LinkType::C_HDLC_WITH_DIR => {
                self.view.take(1)?;
                self.cisco_hdlc()
            }
            LinkType::FRAME_RELAY => self.frame_relay(),
            LinkType::FRAME_RELAY_WITH_DIR => {
                self.view.take(1)?;
                self.frame_relay()
            }
            LinkType::MPLS => Ok(Layer::Mpls),
            LinkType::ATM_RFC1483 => Ok(Layer::Llc),
            // Frame control, two addresses.
            LinkType::FDDI => self.after(13, Layer::Llc),
            LinkType::TOKEN_RING => self.token_ring(),
            LinkType::IP_OVER_FIBRE_CHANNEL => self.after(16, Layer::Llc),
            LinkType::APPLE_IP_OVER_1394 => {
                let header: &[u8; 18] = self.view.take_array()?;
                Ok(Layer::EtherType(u16::from_be_bytes([
                    header[16], header[17],
                ])))
            }
            LinkType::ARCNET => self.arcnet(0),
            // Source and destination, then an offset that BSD does not have.
            LinkType::ARCNET_LINUX => self.arcnet(2),
            // Direction and 15 bytes of the compressed header.
            LinkType::SLIP => self.after(16, Layer::Ip),
            LinkType::IEEE802_11 => Ok(Layer::Ieee80211),
            LinkType::RADIOTAP => self.radiotap(),
            LinkType::PRISM | LinkType::AVS => self.prism(),
            LinkType::PPI => self.ppi(),
            LinkType::ENC => {
                let header: &[u8; 12] = self.view.take_array()?;
                family(&header[..4])
            }
            LinkType::PFLOG => self.pflog(),
            LinkType::NFLOG => self.nflog(),
            LinkType::PKTAP => self.pktap(),
            LinkType::IPNET => self.after(24, Layer::Ip),
            LinkType::NETANALYZER => self.after(4, Layer::Ethernet),
            // A pseudo-header, or none; then preamble and start delimiter.
            LinkType::NETANALYZER_TRANSPARENT => self.after(12, Layer::Ethernet),
            LinkType::MPACKET => self.after(8, Layer::Ethernet),
            _ => Err(Reason::UnknownLinkType),
        }
    }

    /// What follows `n` bytes that do not matter.
    pub(super) fn after(&mut self, n: usize, layer: Layer) -> Result<Layer, Reason> {
        self.view.take(n)?;
        Ok(layer)
    }

    /// <https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html>
    fn linux_cooked(&mut self) -> Result<Layer, Reason> {
        let header: &[u8; 16] = self.view.take_array()?;
        let hardware = u16::from_be_bytes([header[2], header[3]]);
        let protocol = u16::from_be_bytes([header[14], header[15]]);
        self.cooked(hardware, protocol)
    }

    /// <https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html>
    fn linux_cooked_v2(&mut self) -> Result<Layer, Reason> {
        let header: &[u8; 20] = self.view.take_array()?;
        let hardware = u16::from_be_bytes([header[8], header[9]]);
        let protocol = u16::from_be_bytes([header[0], header[1]]);
        self.cooked(hardware, protocol)
    }

    /// What follows a cooked header: the hardware type may change what its protocol field means.
    fn cooked(&mut self, hardware: u16, protocol: u16) -> Result<Layer, Reason> {
        match (hardware, protocol) {
            (ARPHRD_NETLINK, _) => Err(Reason::NotIp),
            (ARPHRD_IEEE80211, _) => Ok(Layer::Ieee80211),
            (ARPHRD_IEEE80211_PRISM, _) => self.prism(),
            (ARPHRD_IEEE80211_RADIOTAP, _) => self.radiotap(),
            (_, LINUX_802_2) => Ok(Layer::Llc),
            // Novell's 802.3 and other pseudo-types below what could be a type.
            (_, 0..=0xff) => Err(Reason::NotIp),
            _ => Ok(Layer::EtherType(protocol)),
        }
    }

    /// An address family in either byte order.
    fn address_family(&mut self) -> Result<Layer, Reason> {
        family(self.view.take(4)?)
    }

    /// <https://www.tcpdump.org/linktypes/LINKTYPE_PFLOG.html>: the header's length counts no padding to 4 bytes.
    fn pflog(&mut self) -> Result<Layer, Reason> {
        let &[len, af] = self.view.peek_array()?;
        self.view
            .take(usize::from(len).next_multiple_of(4).max(4))?;
        family(&[0, 0, 0, af])
    }

    /// <https://www.tcpdump.org/linktypes/LINKTYPE_NFLOG.html>
    fn nflog(&mut self) -> Result<Layer, Reason> {
        let header: &[u8; 4] = self.view.take_array()?;
        let af = header[0];
        loop {
            let &[len_0, len_1, type_0, type_1] = self.view.peek_array()?;
            // In the byte order of the machine that captured; a length beyond the frame is in the other.
            let (mut len, mut kind) = (
                u16::from_le_bytes([len_0, len_1]),
                u16::from_le_bytes([type_0, type_1]),
            );
            if usize::from(len) > self.view.len || kind & 0x7fff > 0xff {
                (len, kind) = (len.swap_bytes(), kind.swap_bytes());
            }
            let len = usize::from(len);
            if len < 4 {
                return Err(Reason::MalformedPacket);
            }
            if kind & 0x7fff == NFULA_PAYLOAD {
                self.view.limit(len);
                self.view.take(4)?;
                return match af {
                    0 => Ok(Layer::Ip),
                    _ => family(&[0, 0, 0, af]),
                };
            }
            self.view.take(len.next_multiple_of(4))?;
        }
    }

    /// <https://www.tcpdump.org/linktypes/LINKTYPE_PKTAP.html>
    fn pktap(&mut self) -> Result<Layer, Reason> {
        let header: &[u8; 12] = self.view.peek_array()?;
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (len, link) = (word(0), word(8));
        if len < 12 {
            return Err(Reason::MalformedPacket);
        }
        self.view.take(len as usize)?;
        Ok(Layer::Link(LinkType(link as u16)))
    }

    /// IEEE 802.5: access and frame control, addresses, and a route when the source says so.
    fn token_ring(&mut self) -> Result<Layer, Reason> {
        let header: &[u8; 14] = self.view.take_array()?;
        if header[8] & 0x80 != 0 {
            let route = self.view.peek(1)?[0] & 0x1f;
            self.view.take(usize::from(route))?;
        }
        Ok(Layer::Llc)
    }

    /// ARCnet with RFC 1201 or RFC 1051 framing; `gap` bytes lie between the addresses and the type.
    fn arcnet(&mut self, gap: usize) -> Result<Layer, Reason> {
        self.view.take(2 + gap)?;
        let &[kind] = self.view.take_array()?;
        match kind {
            // RFC 1051: IP, ARP.
            240 => Ok(Layer::Ipv4),
            241 => Err(Reason::NotIp),
            // RFC 1201: IP, IPv6.
            212 | 196 => {
                let &[split, ..] = self.view.peek_array::<3>()?;
                if split == 0xff {
                    // An exception packet: a longer header, so that the length avoids 253 to 256.
                    self.view.take(4)?;
                }
                let &[split, ..] = self.view.take_array::<3>()?;
                match split {
                    0 => Ok(Layer::Ip),
                    // A part of a frame that was split.
                    _ => Err(Reason::NotIp),
                }
            }
            _ => Err(Reason::NotIp),
        }
    }
}

/// An address family, in either byte order, as the BSDs and Linux number them.
fn family(bytes: &[u8]) -> Result<Layer, Reason> {
    match *bytes {
        [0, 0, 0, 2] | [2, 0, 0, 0] => Ok(Layer::Ipv4),
        // Linux; NetBSD and OpenBSD; FreeBSD; macOS.
        [0, 0, 0, 10 | 24 | 28 | 30] | [10 | 24 | 28 | 30, 0, 0, 0] => Ok(Layer::Ipv6),
        _ => Err(Reason::NotIp),
    }
}

/// Whether an Ethernet frame with an IP packet in it may begin here: for payloads that no field announces.
pub(super) fn plausible_ethernet(view: View<'_>) -> bool {
    matches!(
        view.u16_at(12),
        Some(0x0800 | 0x86dd | 0x0806 | 0x8100 | 0x88a8 | 0x9100 | 0x8847 | 0x8864)
    )
}

/// Linux `if_arp.h`.
const ARPHRD_IEEE80211: u16 = 801;
const ARPHRD_IEEE80211_PRISM: u16 = 802;
const ARPHRD_IEEE80211_RADIOTAP: u16 = 803;
const ARPHRD_NETLINK: u16 = 824;

/// Linux `if_ether.h`: IEEE 802.2 follows.
const LINUX_802_2: u16 = 4;

/// Linux `nfnetlink_log.h`.
const NFULA_PAYLOAD: u16 = 9;
