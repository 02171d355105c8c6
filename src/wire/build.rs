//! Packets for tests: each function puts one layer around a payload.

use super::LinkType;

/// Client of the innermost connection.
pub(crate) const CLIENT: [u8; 4] = [10, 0, 0, 2];
/// Server of the innermost connection.
pub(crate) const SERVER: [u8; 4] = [10, 0, 0, 1];
/// Client of the innermost IPv6 connection: 2001:db8::2.
pub(crate) const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// Server of the innermost IPv6 connection: 2001:db8::1.
pub(crate) const SERVER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A TCP segment; `Tcp { payload, ..TCP }` changes what matters to a test.
#[derive(Clone, Copy)]
pub(crate) struct Tcp<'a> {
    pub(crate) source: u16,
    pub(crate) destination: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    /// A multiple of 4 bytes.
    pub(crate) options: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// A request from an ephemeral port to port 80.
pub(crate) const TCP: Tcp<'_> = Tcp {
    source: 40_000,
    destination: 80,
    seq: 1_000,
    ack: 2_000,
    flags: 0x18,
    window: 0xffff,
    urgent: 0,
    options: &[],
    payload: b"GET /path HTTP/1.1\r\nHost: example\r\n\r\n",
};

impl Tcp<'_> {
    /// The segment's bytes, without a checksum.
    pub(crate) fn build(&self) -> Vec<u8> {
        let data_offset = (20 + self.options.len()) / 4;
        cat(&[
            &self.source.to_be_bytes(),
            &self.destination.to_be_bytes(),
            &self.seq.to_be_bytes(),
            &self.ack.to_be_bytes(),
            &[(data_offset << 4) as u8, self.flags],
            &self.window.to_be_bytes(),
            &[0, 0],
            &self.urgent.to_be_bytes(),
            self.options,
            self.payload,
        ])
    }
}

/// The template segment in IPv4.
pub(crate) fn request() -> Vec<u8> {
    ipv4(6, &TCP.build())
}

/// The template segment in IPv6.
pub(crate) fn request6() -> Vec<u8> {
    ipv6(6, &TCP.build())
}

pub(crate) fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn short(n: usize) -> [u8; 2] {
    u16::try_from(n).expect("fits").to_be_bytes()
}

pub(crate) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    Ipv4 {
        protocol,
        payload,
        ..IPV4
    }
    .build()
}

/// An IPv4 packet; `total_len` replaces the right one when it is given.
#[derive(Clone, Copy)]
pub(crate) struct Ipv4<'a> {
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
    pub(crate) id: u16,
    /// In bytes.
    pub(crate) offset: usize,
    pub(crate) more: bool,
    pub(crate) protocol: u8,
    pub(crate) total_len: Option<u16>,
    /// A multiple of 4 bytes.
    pub(crate) options: &'a [u8],
    pub(crate) payload: &'a [u8],
}

pub(crate) const IPV4: Ipv4<'_> = Ipv4 {
    source: CLIENT,
    destination: SERVER,
    id: 7,
    offset: 0,
    more: false,
    protocol: 6,
    total_len: None,
    options: &[],
    payload: &[],
};

impl Ipv4<'_> {
    pub(crate) fn build(&self) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let total_len = match self.total_len {
            Some(len) => len.to_be_bytes(),
            None => short(header_len + self.payload.len()),
        };
        let fragment = (self.offset / 8) | if self.more { 0x2000 } else { 0 };
        cat(&[
            &[0x40 | (header_len / 4) as u8, 0],
            &total_len,
            &self.id.to_be_bytes(),
            &short(fragment),
            &[64, self.protocol, 0, 0],
            &self.source,
            &self.destination,
            self.options,
            self.payload,
        ])
    }
}

pub(crate) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    ipv6_between(CLIENT6, SERVER6, next, payload)
}

pub(crate) fn ipv6_between(from: [u8; 16], to: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    cat(&[
        &[0x60, 0, 0, 0],
        &short(payload.len()),
        &[next, 64],
        &from,
        &to,
        payload,
    ])
}

/// An IPv6 fragment header before its part of the payload.
pub(crate) fn fragment6(next: u8, id: u32, offset: usize, more: bool, part: &[u8]) -> Vec<u8> {
    let header = cat(&[
        &[next, 0],
        &short(offset | usize::from(more)),
        &id.to_be_bytes(),
    ]);
    ipv6(44, &cat(&[&header, part]))
}

pub(crate) fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    cat(&[
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2],
        &ether_type.to_be_bytes(),
        payload,
    ])
}

/// Tag control, and the type of what follows: the payload of a frame of type 0x8100.
pub(crate) fn vlan(id: u16, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    cat(&[&id.to_be_bytes(), &ether_type.to_be_bytes(), payload])
}

pub(crate) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    cat(&[
        &source.to_be_bytes(),
        &destination.to_be_bytes(),
        &short(8 + payload.len()),
        &[0, 0],
        payload,
    ])
}

/// One label, the last.
pub(crate) fn mpls(payload: &[u8]) -> Vec<u8> {
    cat(&[&[0, 0x01, 0x01, 64], payload])
}

pub(crate) fn pppoe(ppp: &[u8]) -> Vec<u8> {
    cat(&[&[0x11, 0, 0, 9], &short(ppp.len()), ppp])
}

pub(crate) fn snap(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    cat(&[
        &[0xaa, 0xaa, 3, 0, 0, 0],
        &ether_type.to_be_bytes(),
        payload,
    ])
}

/// A frame of each kind, with the template request inside.
pub(crate) fn every_kind() -> Vec<(&'static str, LinkType, Vec<u8>)> {
    let (v4, v6) = (request(), request6());
    let frame = ethernet(0x0800, &v4);
    let in_ip = |protocol, payload: &[u8]| ethernet(0x0800, &ipv4(protocol, payload));
    let in_udp = |port, payload: &[u8]| in_ip(17, &udp(50_000, port, payload));
    let llc = snap(0x0800, &v4);
    let wlan = cat(&[&[0x08, 0x01], &[0; 22], &llc]);
    let wlan_qos = cat(&[&[0x88, 0x02], &[0; 24], &llc]);
    let len = |bytes: &[u8]| u16::try_from(bytes.len()).expect("fits");
    let teredo = ipv6_between(
        [0x20, 1, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 9],
        SERVER6,
        41,
        &v6,
    );
    let amsdu = cat(&[
        &[0x88, 0x01],
        &[0; 22],
        &[0x80, 0],
        &[0; 12],
        &short(llc.len()),
        &llc,
    ]);
    let tcp = TCP.build();
    let ppp = cat(&[&[0, 0x21], &v4]);
    let gtp = |flags: u8, optional: &[u8]| {
        cat(&[
            &[flags, 0xff],
            &short(optional.len() + v4.len()),
            &[0, 0, 0, 5],
            optional,
            &v4,
        ])
    };
    let ethernet_link = LinkType::ETHERNET;
    vec![
        ("ethernet, IPv4", ethernet_link, frame.clone()),
        ("ethernet, IPv6", ethernet_link, ethernet(0x86dd, &v6)),
        (
            "ethernet padding",
            ethernet_link,
            cat(&[&frame, &[0xee; 9]]),
        ),
        (
            "IPv4 options",
            ethernet_link,
            ethernet(
                0x0800,
                &Ipv4 {
                    options: &[0x94, 4, 0, 0, 1, 1, 1, 0],
                    payload: &tcp,
                    ..IPV4
                }
                .build(),
            ),
        ),
        (
            "IPv4 total length 0",
            ethernet_link,
            ethernet(
                0x0800,
                &Ipv4 {
                    total_len: Some(0),
                    payload: &tcp,
                    ..IPV4
                }
                .build(),
            ),
        ),
        (
            "VLAN",
            ethernet_link,
            ethernet(0x8100, &vlan(10, 0x0800, &v4)),
        ),
        (
            "priority tag",
            ethernet_link,
            ethernet(0x8100, &vlan(0xe000, 0x0800, &v4)),
        ),
        (
            "QinQ in QinQ",
            ethernet_link,
            ethernet(
                0x88a8,
                &vlan(1, 0x9100, &vlan(2, 0x8100, &vlan(3, 0x86dd, &v6))),
            ),
        ),
        (
            "VLAN, LLC",
            ethernet_link,
            ethernet(0x8100, &vlan(10, len(&llc), &cat(&[&llc, &[0; 5]]))),
        ),
        (
            "802.3, SNAP",
            ethernet_link,
            ethernet(len(&llc), &cat(&[&llc, &[0; 5]])),
        ),
        (
            "802.3, LLC",
            ethernet_link,
            ethernet(len(&v4) + 3, &cat(&[&[6, 6, 3], &v4])),
        ),
        (
            "MPLS, two labels",
            ethernet_link,
            ethernet(0x8847, &cat(&[&[0, 1, 0, 64], &mpls(&v6)])),
        ),
        (
            "MPLS, Ethernet",
            ethernet_link,
            ethernet(0x8848, &mpls(&frame)),
        ),
        (
            "MPLS, control word, Ethernet",
            ethernet_link,
            ethernet(0x8847, &mpls(&cat(&[&[0; 4], &frame]))),
        ),
        (
            "MPLS, Ethernet to an address that looks like IPv4",
            ethernet_link,
            ethernet(
                0x8847,
                &mpls(&cat(&[&[0x45, 0, 0xff, 0xff, 0, 1], &frame[6..]])),
            ),
        ),
        (
            "PPPoE",
            ethernet_link,
            ethernet(0x8864, &cat(&[&pppoe(&ppp), &[0; 6]])),
        ),
        (
            "PPPoE, short protocol",
            ethernet_link,
            ethernet(0x8864, &pppoe(&cat(&[&[0x57], &v6]))),
        ),
        (
            "802.1ah",
            ethernet_link,
            ethernet(0x88e7, &cat(&[&[0, 0, 0, 9], &frame])),
        ),
        (
            "E-TAG",
            ethernet_link,
            ethernet(0x893f, &cat(&[&[0; 6], &[8, 0], &v4])),
        ),
        (
            "VN-TAG",
            ethernet_link,
            ethernet(0x8926, &cat(&[&[0; 4], &[8, 0], &v4])),
        ),
        (
            "Cisco MetaData",
            ethernet_link,
            ethernet(0x8909, &cat(&[&[1, 1, 0, 1, 0, 5], &[8, 0], &v4])),
        ),
        (
            "HSR",
            ethernet_link,
            ethernet(0x892f, &cat(&[&[0, 0x40, 0, 1], &[8, 0], &v4])),
        ),
        (
            "MACsec without encryption",
            ethernet_link,
            ethernet(0x88e5, &cat(&[&[0x20; 14], &[8, 0], &v4])),
        ),
        (
            "NSH",
            ethernet_link,
            ethernet(0x894f, &cat(&[&[0, 2, 1, 1], &[0; 4], &v4])),
        ),
        (
            "null, little endian",
            LinkType::NULL,
            cat(&[&[2, 0, 0, 0], &v4]),
        ),
        (
            "null, big endian",
            LinkType::NULL,
            cat(&[&[0, 0, 0, 2], &v4]),
        ),
        (
            "null, FreeBSD IPv6",
            LinkType::NULL,
            cat(&[&[28, 0, 0, 0], &v6]),
        ),
        (
            "loop, OpenBSD IPv6",
            LinkType::LOOP,
            cat(&[&[0, 0, 0, 24], &v6]),
        ),
        ("raw", LinkType::RAW, v4.clone()),
        ("raw, IPv6", LinkType(12), v6.clone()),
        ("IPv4", LinkType::IPV4, v4.clone()),
        ("IPv6", LinkType::IPV6, v6.clone()),
        (
            "cooked",
            LinkType::LINUX_SLL,
            cat(&[&[0, 4, 0, 1, 0, 6], &[0; 8], &[8, 0], &v4]),
        ),
        (
            "cooked, VLAN",
            LinkType::LINUX_SLL,
            cat(&[
                &[0, 4, 0, 1, 0, 6],
                &[0; 8],
                &[0x81, 0],
                &vlan(5, 0x86dd, &v6),
            ]),
        ),
        (
            "cooked, radiotap",
            LinkType::LINUX_SLL,
            cat(&[
                &[0, 4, 3, 35, 0, 6],
                &[0; 8],
                &[0, 4],
                &[0, 0, 8, 0],
                &[0; 4],
                &wlan,
            ]),
        ),
        (
            "cooked 2",
            LinkType::LINUX_SLL2,
            cat(&[&[0x86, 0xdd], &[0; 6], &[0, 1], &[0; 10], &v6]),
        ),
        ("PPP", LinkType(9), cat(&[&[0xff, 3], &ppp])),
        ("PPP, bare", LinkType(50), ppp.clone()),
        (
            "PPP, Cisco HDLC",
            LinkType(9),
            cat(&[&[0x0f, 0, 8, 0], &v4]),
        ),
        ("PPPoE link", LinkType(51), pppoe(&ppp)),
        (
            "Cisco HDLC",
            LinkType(104),
            cat(&[&[0x0f, 0, 0x86, 0xdd], &v6]),
        ),
        (
            "frame relay",
            LinkType(107),
            cat(&[&[0x18, 0x41, 3, 0xcc], &v4]),
        ),
        (
            "frame relay, SNAP",
            LinkType(107),
            cat(&[&[0x18, 0x41, 3, 0, 0x80, 0, 0, 0, 8, 0], &v4]),
        ),
        (
            "frame relay, Cisco",
            LinkType(107),
            cat(&[&[0x18, 0x41, 8, 0], &v4]),
        ),
        ("FDDI", LinkType(10), cat(&[&[0x50], &[0; 12], &llc])),
        ("token ring", LinkType(6), cat(&[&[0x10; 8], &[0; 6], &llc])),
        (
            "token ring, route",
            LinkType(6),
            cat(&[&[0x10; 8], &[0x80; 6], &[4, 0, 0, 0], &llc]),
        ),
        ("ATM", LinkType(100), llc.clone()),
        (
            "ATM, bridged",
            LinkType(100),
            cat(&[&[0xaa, 0xaa, 3, 0, 0x80, 0xc2, 0, 7, 0, 0], &frame]),
        ),
        ("ARCnet, RFC 1051", LinkType(7), cat(&[&[1, 2, 240], &v4])),
        (
            "ARCnet, RFC 1201",
            LinkType(129),
            cat(&[&[1, 2, 0, 0, 212, 0, 0, 1], &v4]),
        ),
        ("SLIP", LinkType(8), cat(&[&[0; 16], &v4])),
        ("802.11", LinkType(105), wlan.clone()),
        ("802.11, QoS", LinkType(105), wlan_qos.clone()),
        (
            "802.11, QoS, padded",
            LinkType(105),
            cat(&[&wlan_qos[..26], &[0, 0], &wlan_qos[26..]]),
        ),
        (
            "802.11, four addresses",
            LinkType(105),
            cat(&[&[0x08, 0x03], &[0; 28], &llc]),
        ),
        ("802.11, A-MSDU", LinkType(105), amsdu),
        (
            "radiotap",
            LinkType(127),
            cat(&[&[0, 0, 12, 0], &[0; 8], &wlan, &[0; 4]]),
        ),
        (
            "Prism",
            LinkType(119),
            cat(&[&[0, 0, 0, 0x44, 144, 0, 0, 0], &[0; 136], &wlan]),
        ),
        (
            "AVS",
            LinkType(163),
            cat(&[&[0x80, 0x21, 0x10, 1, 0, 0, 0, 64], &[0; 56], &wlan]),
        ),
        (
            "PPI",
            LinkType(192),
            cat(&[&[0, 0, 8, 0, 105, 0, 0, 0], &wlan]),
        ),
        (
            "NFLOG",
            LinkType(239),
            cat(&[
                &[2, 0, 0, 1],
                &[5, 0, 10, 0, 0, 0, 0, 0],
                &(len(&v4) + 4).to_le_bytes(),
                &[9, 0],
                &v4,
                &[0; 3],
            ]),
        ),
        ("PFLOG", LinkType(117), cat(&[&[61, 2], &[0; 62], &v4])),
        ("ENC", LinkType(109), cat(&[&[2, 0, 0, 0], &[0; 8], &v4])),
        (
            "PKTAP",
            LinkType(258),
            cat(&[&[12, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], &frame]),
        ),
        ("IPIP", ethernet_link, in_ip(4, &v4)),
        ("6in4", ethernet_link, in_ip(41, &v6)),
        ("4in6", ethernet_link, ethernet(0x86dd, &ipv6(4, &v4))),
        (
            "AH",
            ethernet_link,
            in_ip(51, &cat(&[&[6, 4], &[0; 22], &tcp])),
        ),
        (
            "hop-by-hop, destination, routing",
            ethernet_link,
            ethernet(
                0x86dd,
                &ipv6(
                    0,
                    &cat(&[
                        &[60, 0, 1, 4, 0, 0, 0, 0],
                        &[43, 0, 1, 4, 0, 0, 0, 0],
                        &[6, 0, 0, 0, 0, 0, 0, 0],
                        &tcp,
                    ]),
                ),
            ),
        ),
        (
            "segment routing, one left",
            ethernet_link,
            ethernet(
                0x86dd,
                &ipv6_between(
                    CLIENT6,
                    [9; 16],
                    43,
                    &cat(&[&[6, 2, 4, 1, 0, 0, 0, 0], &SERVER6, &tcp]),
                ),
            ),
        ),
        (
            "home address",
            ethernet_link,
            ethernet(
                0x86dd,
                &ipv6_between(
                    [9; 16],
                    SERVER6,
                    60,
                    &cat(&[&[6, 2, 1, 2, 0, 0, 0xc9, 16], &CLIENT6, &tcp]),
                ),
            ),
        ),
        (
            "jumbogram",
            ethernet_link,
            ethernet(0x86dd, &{
                let payload = cat(&[
                    &[6, 0, 0xc2, 4],
                    &(8 + tcp.len() as u32).to_be_bytes(),
                    &tcp,
                ]);
                let mut packet = ipv6(0, &payload);
                packet[4..6].fill(0);
                packet
            }),
        ),
        (
            "atomic fragment",
            ethernet_link,
            ethernet(0x86dd, &fragment6(6, 1, 0, false, &tcp)),
        ),
        ("GRE", ethernet_link, in_ip(47, &cat(&[&[0, 0, 8, 0], &v4]))),
        (
            "GRE, checksum, key, number",
            ethernet_link,
            in_ip(
                47,
                &cat(&[
                    &[0xb0, 0, 0x86, 0xdd, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1],
                    &v6,
                ]),
            ),
        ),
        (
            "GRE, source route",
            ethernet_link,
            in_ip(
                47,
                &cat(&[
                    &[0x40, 0, 8, 0, 0, 0, 0, 0],
                    &[8, 0, 0, 4, 1, 2, 3, 4],
                    &[0; 4],
                    &v4,
                ]),
            ),
        ),
        (
            "GRE, bridging",
            ethernet_link,
            in_ip(47, &cat(&[&[0, 0, 0x65, 0x58], &frame])),
        ),
        (
            "GRE, MPLS",
            ethernet_link,
            in_ip(47, &cat(&[&[0, 0, 0x88, 0x47], &mpls(&v4)])),
        ),
        (
            "GRE, WCCP 2",
            ethernet_link,
            in_ip(47, &cat(&[&[0, 0, 0x88, 0x3e, 0, 0, 0, 0], &v4])),
        ),
        (
            "GRE, PPTP",
            ethernet_link,
            in_ip(
                47,
                &cat(&[
                    &[0x30, 0x81, 0x88, 0x0b, 0, 9, 0, 1],
                    &[0, 0, 0, 1, 0, 0, 0, 1],
                    &[0xff, 3],
                    &ppp,
                ]),
            ),
        ),
        (
            "GRE, Aruba",
            ethernet_link,
            in_ip(47, &cat(&[&[0, 0, 0x82, 0], &wlan])),
        ),
        (
            "ERSPAN I",
            ethernet_link,
            in_ip(47, &cat(&[&[0, 0, 0x88, 0xbe], &frame])),
        ),
        (
            "ERSPAN II",
            ethernet_link,
            in_ip(
                47,
                &cat(&[&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1], &[0x10; 8], &frame]),
            ),
        ),
        (
            "ERSPAN III with platform header",
            ethernet_link,
            in_ip(
                47,
                &cat(&[
                    &[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1],
                    &[0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                    &[0; 8],
                    &frame,
                ]),
            ),
        ),
        (
            "EtherIP",
            ethernet_link,
            in_ip(97, &cat(&[&[0x30, 0], &frame])),
        ),
        ("MPLS in IP", ethernet_link, in_ip(137, &mpls(&v4))),
        (
            "Ethernet in IPv6",
            ethernet_link,
            ethernet(0x86dd, &ipv6(143, &frame)),
        ),
        (
            "VXLAN",
            ethernet_link,
            in_udp(4789, &cat(&[&[8, 0, 0, 0, 0, 0, 42, 0], &frame])),
        ),
        (
            "VXLAN on Linux's port",
            ethernet_link,
            in_udp(8472, &cat(&[&[8, 0, 0, 0, 0, 0, 42, 0], &frame])),
        ),
        (
            "VXLAN-GPE",
            ethernet_link,
            in_udp(4790, &cat(&[&[0x0c, 0, 0, 2, 0, 0, 42, 0], &v6])),
        ),
        (
            "GENEVE with an option",
            ethernet_link,
            in_udp(
                6081,
                &cat(&[&[1, 0, 0x65, 0x58, 0, 0, 42, 0], &[0; 4], &frame]),
            ),
        ),
        (
            "GENEVE, IPv4",
            ethernet_link,
            in_udp(6081, &cat(&[&[0, 0, 8, 0, 0, 0, 42, 0], &v4])),
        ),
        ("GTP-U", ethernet_link, in_udp(2152, &gtp(0x30, &[]))),
        (
            "GTP-U, extension header",
            ethernet_link,
            in_udp(2152, &gtp(0x34, &[0, 0, 0, 0x85, 1, 0, 9, 0])),
        ),
        (
            "GTP-U, number, other port",
            ethernet_link,
            in_udp(9999, &gtp(0x32, &[0, 1, 0, 0])),
        ),
        ("Teredo", ethernet_link, in_udp(3544, &v6)),
        (
            "Teredo, authentication, origin",
            ethernet_link,
            in_udp(3544, &cat(&[&[0, 1, 0, 0], &[0; 9], &[0, 0], &[0; 6], &v6])),
        ),
        (
            "Teredo between clients",
            ethernet_link,
            in_udp(5001, &teredo),
        ),
        (
            "AYIYA",
            ethernet_link,
            in_udp(
                5072,
                &cat(&[&[0x44, 0x52, 0x11, 41], &[0; 4], &[0; 16 + 20], &v6]),
            ),
        ),
        ("MPLS in UDP", ethernet_link, in_udp(6635, &mpls(&v4))),
        (
            "GRE in UDP",
            ethernet_link,
            in_udp(4754, &cat(&[&[0, 0, 8, 0], &v4])),
        ),
        (
            "GUE",
            ethernet_link,
            in_udp(6080, &cat(&[&[0, 4, 0, 0], &v4])),
        ),
        ("GUE, direct", ethernet_link, in_udp(6080, &v6)),
        (
            "L2TP",
            ethernet_link,
            in_udp(
                1701,
                &cat(&[
                    &[0x4a, 2, 0, 0],
                    &[0, 1, 0, 2],
                    &[0; 4],
                    &[0, 2, 0, 0],
                    &[0xff, 3],
                    &ppp,
                ]),
            ),
        ),
        (
            "GRE in IPv6 in VXLAN in IPIP",
            ethernet_link,
            in_ip(
                4,
                &ipv4(
                    17,
                    &udp(
                        50_000,
                        4789,
                        &cat(&[
                            &[8, 0, 0, 0, 0, 0, 42, 0],
                            &ethernet(0x86dd, &ipv6(47, &cat(&[&[0, 0, 8, 0], &v4]))),
                        ]),
                    ),
                ),
            ),
        ),
    ]
}
