//! What IP carries beside TCP: extension headers and tunnels.

use etherparse::{IpNumber, UdpHeaderSlice};

use super::decode::{Layer, Walk};
use super::{Step, View, ip};
use crate::account::Reason;

impl Walk<'_, '_> {
    /// What an IP protocol number announces.
    pub(super) fn protocol(&mut self, protocol: u8) -> Result<Layer, Reason> {
        match IpNumber(protocol) {
            IpNumber::UDP => self.udp(),
            IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::MOBILITY_HEADER
            | IpNumber::HIP
            | IpNumber::SHIM6 => self.extension(),
            IpNumber::IPV6_ROUTE_HEADER => self.routing_header(),
            IpNumber::IPV6_DESTINATION_OPTIONS => self.destination_options(),
            IpNumber::IPV6_FRAGMENTATION_HEADER => self.fragment_header(),
            IpNumber::AUTHENTICATION_HEADER => self.authentication_header(),
            IpNumber::IPV4 => self.tunnel(Layer::Ipv4),
            IpNumber::IPV6 => self.tunnel(Layer::Ipv6),
            IpNumber::GRE => self.gre(),
            // EtherIP (RFC 3378): version 3, and the frame.
            IpNumber::ETHER_IP => {
                let &[version, _] = self.view.take_array()?;
                match version >> 4 {
                    3 => self.tunnel(Layer::Ethernet),
                    _ => Err(Reason::MalformedPacket),
                }
            }
            IpNumber::MPLS_IN_IP => self.tunnel(Layer::Mpls),
            // RFC 8986 §10.1.
            ETHERNET_IN_IP => self.tunnel(Layer::Ethernet),
            NSH => self.nsh(),
            _ => Err(Reason::NotTcp),
        }
    }

    /// GRE (RFC 2784, RFC 2890; version 1 is RFC 2637).
    fn gre(&mut self) -> Result<Layer, Reason> {
        let &[flags, version, type_0, type_1] = self.view.take_array()?;
        let protocol = u16::from_be_bytes([type_0, type_1]);
        let (checksum, routing, keyed, numbered) = (
            flags & 0x80 != 0,
            flags & 0x40 != 0,
            flags & 0x20 != 0,
            flags & 0x10 != 0,
        );
        match version & 7 {
            0 => {}
            1 => {
                // Payload length and call id, which differs by direction; then the numbers that are there.
                self.view.take(4)?;
                if numbered {
                    self.view.take(4)?;
                }
                if version & 0x80 != 0 {
                    self.view.take(4)?;
                }
                return match self.view.len {
                    // An acknowledgement alone.
                    0 => Err(Reason::NotTcp),
                    _ => self.tunnel(Layer::Ppp),
                };
            }
            _ => return Err(Reason::MalformedPacket),
        }
        if checksum || routing {
            self.view.take(4)?;
        }
        if keyed {
            let key = u32::from_be_bytes(*self.view.take_array()?);
            // NVGRE (RFC 7637 §3.2) keeps a hash of the flow in the last byte, which differs by direction.
            let key = match protocol {
                BRIDGING if key > 0xff => key >> 8,
                _ => key,
            };
            self.path = self.path.through(Step::GreKey, key);
        }
        if numbered {
            self.view.take(4)?;
        }
        if routing {
            // Source routes (RFC 1701): family, offset, length; an empty one ends the list.
            loop {
                let &[family_0, family_1, _, len] = self.view.take_array()?;
                if [family_0, family_1, len] == [0, 0, 0] {
                    break;
                }
                self.view.take(usize::from(len))?;
            }
        }
        match protocol {
            // ERSPAN I has no header of its own, II has 8 bytes; GRE's sequence number tells them apart.
            ERSPAN => {
                if numbered {
                    self.view.take(8)?;
                }
                self.tunnel(Layer::Ethernet)
            }
            ERSPAN_3 => self.erspan3(),
            ARUBA_FIRST..=ARUBA_LAST => self.tunnel(Layer::Ieee80211),
            // WCCP version 2 puts 4 bytes before the packet, version 1 does not.
            WCCP => {
                if self.view.peek(1)?[0] >> 4 != 4 {
                    self.view.take(4)?;
                }
                self.tunnel(Layer::Ipv4)
            }
            // The tunnel is counted there.
            BRIDGING => Ok(Layer::EtherType(protocol)),
            0 => Err(Reason::NotTcp),
            _ => {
                let inside = Layer::EtherType(protocol);
                self.tunnel(inside)
            }
        }
    }

    /// ERSPAN III (draft-foschiano-erspan-03 §4.2).
    fn erspan3(&mut self) -> Result<Layer, Reason> {
        let header: &[u8; 12] = self.view.take_array()?;
        let (frame_type, platform_specific) = ((header[10] >> 2) & 0x1f, header[11] & 1 != 0);
        if platform_specific {
            self.view.take(8)?;
        }
        match frame_type {
            0 => self.tunnel(Layer::Ethernet),
            2 => self.tunnel(Layer::Ip),
            _ => Err(Reason::NotTcp),
        }
    }

    /// UDP: only what is a tunnel matters.
    fn udp(&mut self) -> Result<Layer, Reason> {
        let header = UdpHeaderSlice::from_slice(self.view.data)
            .map_err(|error| self.view.missing(error.required_len))?;
        let (source, destination) = (header.source_port(), header.destination_port());
        match usize::from(header.length()) {
            0 => {}
            len if len < 8 => return Err(Reason::MalformedPacket),
            len => self.view.limit(len),
        }
        self.view.take(8)?;

        let config = self.config;
        if config.vxlan_ports.contains(&destination) || destination == VXLAN_GPE_PORT {
            return self.vxlan();
        }
        if config.geneve_ports.contains(&destination) {
            return self.geneve();
        }
        let either = |port| source == port || destination == port;
        if (config.gtp_ports.iter().any(|&port| either(port)) || gtp_without_doubt(self.view))
            && let Some(layer) = self.gtp()?
        {
            return Ok(layer);
        }
        match (source, destination) {
            (_, MPLS_PORT) => self.tunnel(Layer::Mpls),
            (_, GUE_PORT) => self.gue(),
            (_, GRE_PORT) => self.gre(),
            (AYIYA_PORT, _) | (_, AYIYA_PORT) => self.ayiya(),
            (L2TP_PORT, _) | (_, L2TP_PORT) => self.l2tp(),
            _ => self.teredo(either(TEREDO_PORT)),
        }
    }

    /// VXLAN (RFC 7348 §5) and its generic protocol extension (draft-ietf-nvo3-vxlan-gpe).
    fn vxlan(&mut self) -> Result<Layer, Reason> {
        let &[flags, _, _, next, a, b, c, _] = self.view.take_array()?;
        if flags & 0x08 == 0 {
            return Err(Reason::NotTcp);
        }
        self.path = self
            .path
            .through(Step::Network, u32::from_be_bytes([0, a, b, c]));
        let generic = flags & 0x04 != 0;
        match next {
            _ if !generic => self.tunnel(Layer::Ethernet),
            1 => self.tunnel(Layer::Ipv4),
            2 => self.tunnel(Layer::Ipv6),
            3 => self.tunnel(Layer::Ethernet),
            4 => self.nsh(),
            5 => self.tunnel(Layer::Mpls),
            _ => Err(Reason::NotTcp),
        }
    }

    /// GENEVE (RFC 8926 §3.4); the options' length counts 4 bytes.
    fn geneve(&mut self) -> Result<Layer, Reason> {
        let &[version, _, type_0, type_1, a, b, c, _] = self.view.take_array()?;
        if version >> 6 != 0 {
            return Err(Reason::NotTcp);
        }
        self.view.take(usize::from(version & 0x3f) * 4)?;
        self.path = self
            .path
            .through(Step::Network, u32::from_be_bytes([0, a, b, c]));
        match u16::from_be_bytes([type_0, type_1]) {
            // The tunnel is counted there.
            BRIDGING => Ok(Layer::EtherType(BRIDGING)),
            protocol => self.tunnel(Layer::EtherType(protocol)),
        }
    }

    /// GTP-U version 1 (3GPP TS 29.281 §5.1); `None` when it is something else. The tunnel endpoint id differs by
    /// direction.
    fn gtp(&mut self) -> Result<Option<Layer>, Reason> {
        let mut view = self.view;
        let &[flags, kind, ..] = view.take_array::<8>()?;
        if flags & 0xf0 != 0x30 || kind != 0xff {
            return Ok(None);
        }
        if flags & 7 != 0 {
            let &[_, _, _, mut next] = view.take_array()?;
            while next != 0 {
                let len = usize::from(view.peek(1)?[0]) * 4;
                let Some(&last) = view.take(len)?.last() else {
                    return Err(Reason::MalformedPacket);
                };
                next = last;
            }
        }
        match view.peek(1)?[0] >> 4 {
            4 | 6 => {
                self.view = view;
                self.tunnel(Layer::Ip).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Generic UDP encapsulation (draft-ietf-intarea-gue §3.1, §4).
    fn gue(&mut self) -> Result<Layer, Reason> {
        let &[first, protocol, ..] = self.view.peek_array::<4>()?;
        let (version, control, len) = (first >> 6, first & 0x20 != 0, first & 0x1f);
        match version {
            0 if !control => {
                self.view.take(4 + usize::from(len) * 4)?;
                self.tunnel(Layer::Protocol(protocol))
            }
            1 if ip::plausible(self.view) => self.tunnel(Layer::Ip),
            _ => Err(Reason::NotTcp),
        }
    }

    /// AYIYA (draft-massar-v6ops-ayiya-02 §4): identity and signature say their length in the header.
    fn ayiya(&mut self) -> Result<Layer, Reason> {
        let &[identity, signature, operation, next, ..] = self.view.take_array::<8>()?;
        let len = (1 << (identity >> 4)) + usize::from(signature >> 4) * 4;
        if operation & 0x0f != 1 {
            return Err(Reason::NotTcp);
        }
        self.view.take(len)?;
        match IpNumber(next) {
            IpNumber::IPV4 | IpNumber::IPV6 => Ok(Layer::Protocol(next)),
            _ => Err(Reason::NotTcp),
        }
    }

    /// L2TP version 2 (RFC 2661 §3.1), data messages.
    fn l2tp(&mut self) -> Result<Layer, Reason> {
        let &[flags, version] = self.view.take_array()?;
        let control = flags & 0x80 != 0;
        if control || version & 0x0f != 2 {
            return Err(Reason::NotTcp);
        }
        let (has_length, numbered, has_offset) =
            (flags & 0x40 != 0, flags & 0x08 != 0, flags & 0x02 != 0);
        if has_length {
            self.view.take(2)?;
        }
        // Tunnel and session, which differ by direction.
        self.view.take(4)?;
        if numbered {
            self.view.take(4)?;
        }
        if has_offset {
            let offset = u16::from_be_bytes(*self.view.take_array()?);
            self.view.take(usize::from(offset))?;
        }
        self.tunnel(Layer::Ppp)
    }

    /// Teredo (RFC 4380 §5.1.1): an IPv6 packet, behind an authentication or an origin indication on its own port.
    fn teredo(&mut self, own_port: bool) -> Result<Layer, Reason> {
        let mut view = self.view;
        if own_port && let Some([0, 1, id_len, authentication_len]) = view.data.first_chunk() {
            view.take(4 + usize::from(*id_len) + usize::from(*authentication_len) + 9)?;
        }
        if own_port && view.data.starts_with(&[0, 0]) {
            view.take(8)?;
        }
        let whole = |payload: u16| {
            let len = usize::from(payload) + 40;
            len == view.len || own_port && len < view.len
        };
        if view.data.first().is_some_and(|first| first >> 4 == 6)
            && view.u16_at(4).is_some_and(whole)
            // Between two clients neither port is the server's, but both addresses say Teredo.
            && (own_port || teredo_address(view, 8) || teredo_address(view, 24))
        {
            self.view = view;
            return self.tunnel(Layer::Ipv6);
        }
        Err(Reason::NotTcp)
    }
}

/// Whether a UDP payload is GTP-U on whatever port: header, length and the IP packet inside all agree.
fn gtp_without_doubt(mut view: View<'_>) -> bool {
    let len = view.len;
    let Ok(&[flags, 0xff, len_0, len_1, ..]) = view.take_array::<8>() else {
        return false;
    };
    if flags & 0xf8 != 0x30 || usize::from(u16::from_be_bytes([len_0, len_1])) + 8 != len {
        return false;
    }
    // With an extension the length is evidence enough; without one the packet must fill it.
    flags & 7 != 0 || (ip::plausible(view) && ip::fills(view))
}

/// Whether the address at `at` of an IPv6 header has the Teredo prefix 2001::/32.
fn teredo_address(view: View<'_>, at: usize) -> bool {
    view.u16_at(at) == Some(0x2001) && view.u16_at(at + 2) == Some(0)
}

const ETHERNET_IN_IP: IpNumber = IpNumber(143);
const NSH: IpNumber = IpNumber(145);

/// GRE protocol types that are no Ethernet types.
const BRIDGING: u16 = 0x6558;
const WCCP: u16 = 0x883e;
const ERSPAN: u16 = 0x88be;
const ERSPAN_3: u16 = 0x22eb;
const ARUBA_FIRST: u16 = 0x8200;
const ARUBA_LAST: u16 = 0x820f;

const L2TP_PORT: u16 = 1701;
const TEREDO_PORT: u16 = 3544;
/// RFC 8086.
const GRE_PORT: u16 = 4754;
const VXLAN_GPE_PORT: u16 = 4790;
const AYIYA_PORT: u16 = 5072;
const GUE_PORT: u16 = 6080;
const MPLS_PORT: u16 = 6635;
