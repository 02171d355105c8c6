//! Link layers and tunnels around an IP packet, and IP fragments.

use std::net::{IpAddr, Ipv4Addr};

use super::net::{Checksum, Side, packet};
use super::rng::Rng;

/// What a frame looks like around its IP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrap {
    /// Ethernet, short frames padded with rubbish.
    Ethernet,
    /// 802.1Q.
    Vlan(u16),
    /// 802.1ad around 802.1Q.
    QinQ(u16, u16),
    /// Ethernet with so many MPLS labels.
    Mpls(u8),
    /// PPPoE on Ethernet.
    PppOe,
    /// 802.3 with LLC and SNAP.
    Snap,
    /// Linux cooked, version 1.
    Sll,
    /// Linux cooked, version 2.
    Sll2,
    /// BSD loopback, family in the byte order of the writer.
    Null,
    /// OpenBSD loopback.
    Loop,
    /// No link layer (LINKTYPE_RAW).
    Raw,
    /// No link layer, IPv4 or IPv6 told by the link type.
    RawByFamily,
    /// PPP with address and control.
    Ppp,
    /// 802.11 data frame behind radiotap.
    Wifi,
    /// VXLAN on port 4789.
    Vxlan,
    /// GENEVE with options.
    Geneve,
    /// GRE with the IP packet inside.
    Gre,
    /// GRE with checksum, key and sequence number, Ethernet inside.
    GreKeyEthernet,
    /// ERSPAN type II.
    Erspan,
    /// GTP-U.
    GtpU,
    /// In IPv4.
    InIpv4,
    /// In IPv6.
    InIpv6,
    /// VXLAN in GRE in 802.1Q.
    VxlanInGreInVlan,
    /// Ethernet, the packet in fragments of this many bytes (a multiple of 8), shuffled.
    Fragments(usize),
}

/// Every wrap worth trying.
pub(crate) const WRAPS: &[Wrap] = &[
    Wrap::Ethernet,
    Wrap::Vlan(5),
    Wrap::QinQ(100, 5),
    Wrap::Mpls(1),
    Wrap::Mpls(3),
    Wrap::PppOe,
    Wrap::Snap,
    Wrap::Sll,
    Wrap::Sll2,
    Wrap::Null,
    Wrap::Loop,
    Wrap::Raw,
    Wrap::RawByFamily,
    Wrap::Ppp,
    Wrap::Wifi,
    Wrap::Vxlan,
    Wrap::Geneve,
    Wrap::Gre,
    Wrap::GreKeyEthernet,
    Wrap::Erspan,
    Wrap::GtpU,
    Wrap::InIpv4,
    Wrap::InIpv6,
    Wrap::VxlanInGreInVlan,
    Wrap::Fragments(8),
    Wrap::Fragments(64),
    Wrap::Fragments(576),
];

impl Wrap {
    /// The `LINKTYPE_` number of a file with such frames.
    pub(crate) fn link_type(self, v6: bool) -> u16 {
        match self {
            Self::Sll => 113,
            Self::Sll2 => 276,
            Self::Null => 0,
            Self::Loop => 108,
            Self::Raw => 101,
            Self::RawByFamily if v6 => 229,
            Self::RawByFamily => 228,
            Self::Ppp => 9,
            Self::Wifi => 127,
            _ => 1,
        }
    }

    /// The frames that carry `ip` from `from`; `id` tells its fragments from those of other packets.
    pub(crate) fn frames(self, ip: &[u8], from: Side, id: u16, rng: &mut Rng) -> Vec<Vec<u8>> {
        let v6 = ip[0] >> 4 == 6;
        let ether_type: u16 = if v6 { 0x86dd } else { 0x0800 };
        let inner = || ethernet(from, ether_type, ip);
        let frame = match self {
            Self::Ethernet => {
                let mut frame = inner();
                if frame.len() < 60 {
                    frame.resize(60, 0xaa);
                }
                frame
            }
            Self::Vlan(id) => ethernet(from, 0x8100, &vlan(id, ether_type, ip)),
            Self::QinQ(outer, id) => ethernet(
                from,
                0x88a8,
                &vlan(outer, 0x8100, &vlan(id, ether_type, ip)),
            ),
            Self::Mpls(labels) => ethernet(from, 0x8847, &mpls(labels, ip)),
            Self::PppOe => {
                let length = u16::try_from(ip.len() + 2).expect("a packet").to_be_bytes();
                let protocol = if v6 { 0x57 } else { 0x21 };
                let header = [0x11, 0, 0, 0x77, length[0], length[1], 0, protocol];
                ethernet(from, 0x8864, &[&header, ip].concat())
            }
            Self::Snap => {
                let length = u16::try_from(ip.len() + 8).expect("a packet");
                let kind = ether_type.to_be_bytes();
                let header = [0xaa, 0xaa, 0x03, 0, 0, 0, kind[0], kind[1]];
                ethernet(from, length, &[&header, ip].concat())
            }
            Self::Sll => {
                let kind = ether_type.to_be_bytes();
                let way = if from == Side::Client { 0 } else { 4 };
                [
                    &[0, way, 0, 1, 0, 6, 2, 0, 0, 0, 0, 2, 0, 0, kind[0], kind[1]],
                    ip,
                ]
                .concat()
            }
            Self::Sll2 => {
                let kind = ether_type.to_be_bytes();
                let way = if from == Side::Client { 0 } else { 4 };
                let header = [
                    kind[0], kind[1], 0, 0, 0, 0, 0, 3, 0, 1, way, 6, 2, 0, 0, 0, 0, 2, 0, 0,
                ];
                [&header, ip].concat()
            }
            Self::Null => [&(if v6 { 30_u32 } else { 2 }).to_le_bytes(), ip].concat(),
            Self::Loop => [&(if v6 { 24_u32 } else { 2 }).to_be_bytes(), ip].concat(),
            Self::Raw | Self::RawByFamily => ip.to_vec(),
            Self::Ppp => [&[0xff, 0x03, 0x00, if v6 { 0x57 } else { 0x21 }], ip].concat(),
            Self::Wifi => {
                let kind = ether_type.to_be_bytes();
                // Radiotap without fields; a data frame from a station to its access point, then LLC and SNAP.
                let mut frame = vec![0, 0, 8, 0, 0, 0, 0, 0, 0x08, 0x01, 0, 0];
                frame.extend_from_slice(&CLIENT_MAC);
                frame.extend_from_slice(&SERVER_MAC);
                frame.extend_from_slice(&CLIENT_MAC);
                frame.extend_from_slice(&[0, 0, 0xaa, 0xaa, 0x03, 0, 0, 0, kind[0], kind[1]]);
                frame.extend_from_slice(ip);
                frame
            }
            Self::Vxlan => udp_tunnel(from, 4789, &[0x08, 0, 0, 0, 0, 0, 0x64, 0], &inner()),
            Self::Geneve => {
                let header = [
                    2, 0, 0x65, 0x58, 0, 0, 0x64, 0, 1, 2, 0x80, 1, b'a', b'b', b'c', b'd',
                ];
                udp_tunnel(from, 6081, &header, &inner())
            }
            Self::Gre => {
                let kind = ether_type.to_be_bytes();
                outer(from, 47, &[&[0, 0, kind[0], kind[1]], ip].concat())
            }
            Self::GreKeyEthernet => {
                let header = [0xb0, 0, 0x65, 0x58, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1];
                let mut bytes = [&header[..], &inner()].concat();
                let mut sum = Checksum::default();
                sum.bytes(&bytes);
                bytes[4..6].copy_from_slice(&sum.finish().to_be_bytes());
                outer(from, 47, &bytes)
            }
            Self::Erspan => {
                let header = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 5, 0, 1, 0, 0, 0, 0];
                outer(from, 47, &[&header[..], &inner()].concat())
            }
            Self::GtpU => {
                let length = u16::try_from(ip.len()).expect("a packet").to_be_bytes();
                udp_tunnel(
                    from,
                    2152,
                    &[0x30, 0xff, length[0], length[1], 0, 0, 0x12, 0x34],
                    ip,
                )
            }
            Self::InIpv4 => outer(from, if v6 { 41 } else { 4 }, ip),
            Self::InIpv6 => {
                let (source, destination) = ends(
                    from,
                    IpAddr::from([0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1]),
                    IpAddr::from([0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 2]),
                );
                ethernet(
                    from,
                    0x86dd,
                    &packet(source, destination, if v6 { 41 } else { 4 }, ip),
                )
            }
            Self::VxlanInGreInVlan => {
                let vxlan = udp_tunnel(from, 4789, &[0x08, 0, 0, 0, 0, 0, 0x64, 0], &inner());
                let gre = outer(from, 47, &[&[0, 0, 0x65, 0x58][..], &vxlan].concat());
                ethernet(from, 0x8100, &vlan(7, 0x0800, &gre[14..]))
            }
            Self::Fragments(size) => {
                let mut fragments = fragments(ip, size, id);
                rng.shuffle(&mut fragments);
                return fragments
                    .iter()
                    .map(|ip| ethernet(from, ether_type, ip))
                    .collect();
            }
        };
        vec![frame]
    }
}

/// `ip` in fragments of `size` payload bytes with the identification `id`, in order; whole when it is no larger.
pub(crate) fn fragments(ip: &[u8], size: usize, id: u16) -> Vec<Vec<u8>> {
    let v6 = ip[0] >> 4 == 6;
    let header = if v6 { 40 } else { 20 };
    let payload = &ip[header..];
    if payload.len() <= size {
        return vec![ip.to_vec()];
    }
    let [id0, id1] = id.to_be_bytes();
    let last = (payload.len() - 1) / size;
    payload
        .chunks(size)
        .enumerate()
        .map(|(n, piece)| {
            let more = n < last;
            let offset = u16::try_from(n * size).expect("in a packet");
            let mut out = ip[..header].to_vec();
            if v6 {
                let length = u16::try_from(8 + piece.len()).expect("in a packet");
                out[4..6].copy_from_slice(&length.to_be_bytes());
                out[6] = 44;
                let field = (offset | u16::from(more)).to_be_bytes();
                out.extend_from_slice(&[ip[6], 0, field[0], field[1], 0, 0, id0, id1]);
            } else {
                let length = u16::try_from(header + piece.len()).expect("in a packet");
                out[2..4].copy_from_slice(&length.to_be_bytes());
                out[4..6].copy_from_slice(&[id0, id1]);
                let field = (offset / 8) | if more { 0x2000 } else { 0 };
                out[6..8].copy_from_slice(&field.to_be_bytes());
                out[10..12].fill(0);
                let mut sum = Checksum::default();
                sum.bytes(&out);
                let sum = sum.finish().to_be_bytes();
                out[10..12].copy_from_slice(&sum);
            }
            out.extend_from_slice(piece);
            out
        })
        .collect()
}

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn ends<T>(from: Side, client: T, server: T) -> (T, T) {
    match from {
        Side::Client => (client, server),
        Side::Server => (server, client),
    }
}

/// An Ethernet frame.
pub(crate) fn ethernet(from: Side, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = ends(from, CLIENT_MAC, SERVER_MAC);
    [
        &destination[..],
        &source,
        &ether_type.to_be_bytes(),
        payload,
    ]
    .concat()
}

fn vlan(id: u16, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &ether_type.to_be_bytes(), payload].concat()
}

fn mpls(labels: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for label in 1..=labels {
        let bottom = u32::from(label == labels);
        let entry = ((u32::from(label) * 100) << 12) | (bottom << 8) | 64;
        out.extend_from_slice(&entry.to_be_bytes());
    }
    out.extend_from_slice(payload);
    out
}

/// An Ethernet frame with an IPv4 packet between the ends of a tunnel.
fn outer(from: Side, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = ends(
        from,
        Ipv4Addr::new(192, 0, 2, 1),
        Ipv4Addr::new(192, 0, 2, 2),
    );
    ethernet(
        from,
        0x0800,
        &packet(source.into(), destination.into(), protocol, payload),
    )
}

fn udp_tunnel(from: Side, port: u16, header: &[u8], inner: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + header.len() + inner.len()).expect("a packet");
    let udp = [
        &50_000_u16.to_be_bytes()[..],
        &port.to_be_bytes(),
        &length.to_be_bytes(),
        &[0, 0],
        header,
        inner,
    ]
    .concat();
    outer(from, 17, &udp)
}
