//! From captured frames to TCP segments: link layers, tunnels, IP fragments.
//!
//! A [`Decoder`] walks through each frame, layer by layer, to the innermost TCP header. What it knows:
//!
//! | layer | what is read |
//! |---|---|
//! | link types | Ethernet (1), BSD null and loop (0, 108), raw IP (12, 14, 101, 228, 229), Linux cooked (113, 276), PPP (9, 50, 51, 166, 204), Cisco HDLC (104, 205), frame relay (107, 206), IEEE 802.11 (105), radiotap (127), Prism and AVS (119, 163), PPI (192), NFLOG (239), PFLOG (117), ENC (109), PKTAP (258), IPNET (226), FDDI (10), token ring (6), ARCnet (7, 129), RFC 1483 ATM (100), fibre channel (122), FireWire (138), SLIP (8), MPLS (219), netANALYZER (240, 241), mPackets (274) |
//! | between link and IP | VLAN tags to any depth (0x8100, 0x88a8, 0x9100, 0x9200), 802.3 with LLC and SNAP, MPLS to any depth with IP or Ethernet inside, PPPoE, 802.1ah, E-TAG, VN-TAG, HSR, FabricPath, Cisco MetaData, NSH, MACsec without encryption |
//! | IP | options, extension headers, fragments, padding, total length 0 (TSO), jumbograms; the ends of a connection are those behind routing headers and the home address option |
//! | tunnels | IP in IP (4, 41), GRE 0 and 1 (IP, Ethernet, MPLS, PPP, WCCP, ERSPAN I to III, Aruba), EtherIP, MPLS in IP, Ethernet in IP, AH; in UDP: VXLAN, VXLAN-GPE, GENEVE, GTP-U, Teredo, AYIYA, L2TP 2, MPLS, GRE, GUE |
//!
//! What it does not read: encrypted payloads, compressed headers, PPP multilink, ARCnet frames in parts, and all but the first
//! frame of an 802.11 A-MSDU.

#[cfg(test)]
pub(crate) mod build;
mod checksum;
mod decode;
mod ethernet;
mod fragment;
mod ieee80211;
mod ip;
mod link;
mod plain;
mod ppp;
mod tcp;
#[cfg(test)]
mod tests;
mod tunnel;
mod view;

use std::net::SocketAddr;

pub use self::checksum::Checksum;
pub use self::decode::{Decoder, DecoderConfig};
pub(crate) use self::plain::ends as plain_ends;
use self::view::View;
use crate::time::Timestamp;

/// What libpcap, or a capture file, hands over: one frame.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When it was captured.
    pub time: Timestamp,
    /// The kind of its link-layer header.
    pub link: LinkType,
    /// Its length on the wire, in bytes; more than `data.len()` when the snap length cut it.
    pub wire_len: u32,
    /// The frame, from its link-layer header on.
    pub data: &'a [u8],
}

/// A link-layer header type, by its number in capture files (`LINKTYPE_*`, <https://www.tcpdump.org/linktypes.html>).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkType(pub u16);

/// One TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// When its (last) frame was captured.
    pub time: Timestamp,
    /// The VLANs and tunnels that it came through.
    pub path: Path,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// Sequence number of the first payload byte, or of SYN.
    pub seq: u32,
    /// Acknowledgement number; meaningful only with [`TcpFlags::ACK`].
    pub ack: u32,
    /// Flags.
    pub flags: TcpFlags,
    /// Window as sent, not scaled.
    pub window: u16,
    /// How many bytes before this offset of the payload are urgent: the urgent pointer, when URG is set.
    pub urgent: Option<u16>,
    /// The timestamp option: `(TSval, TSecr)`.
    pub timestamps: Option<(u32, u32)>,
    /// Whether a TCP-MD5 or TCP-AO option is there.
    pub signed: bool,
    /// What its checksum says.
    pub checksum: Checksum,
    /// The payload that was captured, without link-layer padding.
    pub payload: &'a [u8],
    /// Payload bytes behind `payload` that were on the wire but that the snap length cut off.
    pub cut: u32,
}

/// The VLAN tags and tunnel identifiers that a segment came through, folded into one number; 0 is none.
///
/// Only identifiers that are equal in both directions take part (VLAN ids, VNIs, GRE keys), no addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Path(pub u64);

impl Path {
    /// The path that goes on through `step`, whose identifier is `id`. An identifier of 0 is none.
    #[must_use]
    pub(crate) const fn through(self, step: Step, id: u32) -> Self {
        if id == 0 {
            return self;
        }
        // One round of a multiplicative hash: order matters, and equal steps give equal paths.
        let step = ((step as u64) << 32) | id as u64;
        let folded = (self.0.rotate_left(23) ^ step).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(folded ^ (folded >> 32))
    }
}

/// What a [`Path`] goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// An 802.1Q, 802.1ad or similar tag; its VLAN id.
    Vlan = 1,
    /// A provider backbone bridge (802.1ah); its service id.
    Backbone = 2,
    /// VXLAN or GENEVE; its network identifier.
    Network = 3,
    /// GRE with a key; the key.
    GreKey = 4,
}

/// TCP flags, in the bit positions of RFC 9293 §3.1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
