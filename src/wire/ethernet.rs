//! Ethernet and what comes between it and IP: tags, LLC, MPLS, PPPoE.

use etherparse::EtherType;

use super::decode::{Layer, Walk};
use super::link::plausible_ethernet;
use super::{Step, ip};
use crate::account::Reason;

impl Walk<'_, '_> {
    /// An Ethernet header.
    #[inline]
    pub(super) fn ethernet(&mut self) -> Result<Layer, Reason> {
        let header: &[u8; 14] = self.view.take_array()?;
        Ok(Layer::EtherType(u16::from_be_bytes([
            header[12], header[13],
        ])))
    }

    /// What an Ethernet type announces.
    #[inline]
    pub(super) fn ether_type(&mut self, ether_type: u16) -> Result<Layer, Reason> {
        match EtherType(ether_type) {
            EtherType::IPV4 => Ok(Layer::Ipv4),
            EtherType::IPV6 => Ok(Layer::Ipv6),
            EtherType::VLAN_TAGGED_FRAME
            | EtherType::PROVIDER_BRIDGING
            | EtherType::VLAN_DOUBLE_TAGGED_FRAME
            | QINQ_9200 => self.vlan(),
            other => self.rare_ether_type(other),
        }
    }

    fn rare_ether_type(&mut self, ether_type: EtherType) -> Result<Layer, Reason> {
        match ether_type {
            // A length (IEEE 802.3 §3.2.6), so IEEE 802.2 follows, and padding behind it.
            EtherType(len @ 1..=1500) => {
                self.view.limit(usize::from(len));
                Ok(Layer::Llc)
            }
            MPLS_UNICAST | MPLS_MULTICAST => Ok(Layer::Mpls),
            PPPOE_SESSION => self.pppoe(),
            TRANSPARENT_BRIDGING => self.tunnel(Layer::Ethernet),
            PPP => Ok(Layer::Ppp),
            BACKBONE_SERVICE => {
                // IEEE 802.1Q §9.7: flags and service id; then the customer's frame.
                let tag: &[u8; 4] = self.view.take_array()?;
                let id = u32::from_be_bytes(*tag) & 0x00ff_ffff;
                self.path = self.path.through(Step::Backbone, id);
                Ok(Layer::Ethernet)
            }
            // Port extenders: IEEE 802.1BR E-TAG, Cisco VN-TAG; their ids differ by direction.
            E_TAG => self.tag(6),
            VN_TAG => self.tag(4),
            // Cisco MetaData: version, length, and one option, which is a security group; High-availability Seamless Redundancy.
            CISCO_METADATA => self.tag(6),
            HSR => self.tag(4),
            // Cisco FabricPath: a tag, then the frame.
            FABRIC_PATH => self.after(2, Layer::Ethernet),
            MACSEC => self.macsec(),
            NSH => self.nsh(),
            _ => Err(Reason::NotIp),
        }
    }

    /// A VLAN tag (IEEE 802.1Q §9.6). Id 0 is a priority tag: no VLAN.
    fn vlan(&mut self) -> Result<Layer, Reason> {
        let &[control_high, control_low, type_high, type_low] = self.view.take_array()?;
        let id = u16::from_be_bytes([control_high, control_low]) & 0x0fff;
        self.path = self.path.through(Step::Vlan, u32::from(id));
        Ok(Layer::EtherType(u16::from_be_bytes([type_high, type_low])))
    }

    /// A tag of `len` bytes that do not matter, and an Ethernet type.
    fn tag(&mut self, len: usize) -> Result<Layer, Reason> {
        self.view.take(len)?;
        let ether_type = self.view.take_array()?;
        Ok(Layer::EtherType(u16::from_be_bytes(*ether_type)))
    }

    /// A MACsec tag (IEEE 802.1AE §9.3); the payload can be read when it is only authenticated.
    fn macsec(&mut self) -> Result<Layer, Reason> {
        let &[flags] = self.view.peek_array()?;
        let (has_channel, encrypted_or_changed) = (flags & 0x20 != 0, flags & 0x0c != 0);
        if encrypted_or_changed {
            return Err(Reason::NotIp);
        }
        self.tag(if has_channel { 14 } else { 6 })
    }

    /// A network service header (RFC 8300 §2); its length counts 4 bytes.
    pub(super) fn nsh(&mut self) -> Result<Layer, Reason> {
        let &[_, len, _, next] = self.view.peek_array()?;
        let len = usize::from(len & 0x3f) * 4;
        if len < 8 {
            return Err(Reason::MalformedPacket);
        }
        self.view.take(len)?;
        match next {
            1 => self.tunnel(Layer::Ipv4),
            2 => self.tunnel(Layer::Ipv6),
            3 => self.tunnel(Layer::Ethernet),
            5 => Ok(Layer::Mpls),
            _ => Err(Reason::NotIp),
        }
    }

    /// IEEE 802.2 LLC, with or without SNAP.
    pub(super) fn llc(&mut self) -> Result<Layer, Reason> {
        let &[destination, source, control] = self.view.take_array()?;
        match [destination, source, control] {
            [0xaa | 0xab, 0xaa | 0xab, 3] => {
                let &[a, b, c, type_0, type_1] = self.view.take_array()?;
                let protocol = u16::from_be_bytes([type_0, type_1]);
                match [a, b, c] {
                    // RFC 1042, and IEEE 802.1H for bridges.
                    [0, 0, 0] | [0, 0, 0xf8] => Ok(Layer::EtherType(protocol)),
                    // RFC 2684 §5.2: a bridged frame, behind two bytes of padding.
                    [0, 0x80, 0xc2] if matches!(protocol, 1 | 7) => self.after(2, Layer::Ethernet),
                    _ => Err(Reason::NotIp),
                }
            }
            // The service access point of IP.
            [6, 6, 3] => Ok(Layer::Ipv4),
            [0xfe, 0xfe, 3] => self.network_layer_protocol(),
            _ => Err(Reason::NotIp),
        }
    }

    /// A network layer protocol identifier (ISO/IEC TR 9577).
    pub(super) fn network_layer_protocol(&mut self) -> Result<Layer, Reason> {
        let &[identifier] = self.view.take_array()?;
        match identifier {
            0xcc => Ok(Layer::Ipv4),
            0x8e => Ok(Layer::Ipv6),
            0xcf => Ok(Layer::Ppp),
            // SNAP (RFC 2427 §4.1).
            0x80 => {
                let &[_, _, _, type_0, type_1] = self.view.take_array()?;
                Ok(Layer::EtherType(u16::from_be_bytes([type_0, type_1])))
            }
            _ => Err(Reason::NotIp),
        }
    }

    /// MPLS labels (RFC 3032 §2.1). Nothing says what follows the last one, so its first nibble must (RFC 4928).
    pub(super) fn mpls(&mut self) -> Result<Layer, Reason> {
        loop {
            let label: &[u8; 4] = self.view.take_array()?;
            if label[2] & 1 != 0 {
                break;
            }
        }
        let first = self.view.peek(1)?[0] >> 4;
        let mut behind_control_word = self.view;
        match first {
            4 | 6 if ip::plausible(self.view) || !plausible_ethernet(self.view) => Ok(Layer::Ip),
            // A control word (RFC 4385 §3), unless the frame begins right here.
            0 if behind_control_word.take(4).is_ok() && plausible_ethernet(behind_control_word) => {
                self.view = behind_control_word;
                self.tunnel(Layer::Ethernet)
            }
            _ if plausible_ethernet(self.view) => self.tunnel(Layer::Ethernet),
            _ => Err(Reason::NotIp),
        }
    }

    /// A PPPoE session header (RFC 2516 §4); its length leaves the padding out.
    pub(super) fn pppoe(&mut self) -> Result<Layer, Reason> {
        let &[version, code, _, _, len_0, len_1] = self.view.take_array()?;
        if version != 0x11 {
            return Err(Reason::MalformedPacket);
        }
        if code != 0 {
            return Err(Reason::NotIp);
        }
        self.view
            .limit(usize::from(u16::from_be_bytes([len_0, len_1])));
        Ok(Layer::Ppp)
    }
}

const QINQ_9200: EtherType = EtherType(0x9200);
const TRANSPARENT_BRIDGING: EtherType = EtherType(0x6558);
const MPLS_UNICAST: EtherType = EtherType(0x8847);
const MPLS_MULTICAST: EtherType = EtherType(0x8848);
const PPPOE_SESSION: EtherType = EtherType(0x8864);
const PPP: EtherType = EtherType(0x880b);
const BACKBONE_SERVICE: EtherType = EtherType(0x88e7);
const FABRIC_PATH: EtherType = EtherType(0x8903);
const CISCO_METADATA: EtherType = EtherType(0x8909);
const VN_TAG: EtherType = EtherType(0x8926);
const HSR: EtherType = EtherType(0x892f);
const E_TAG: EtherType = EtherType(0x893f);
const NSH: EtherType = EtherType(0x894f);
const MACSEC: EtherType = EtherType(0x88e5);
