//! Point-to-point links: PPP, Cisco HDLC, frame relay.

use super::decode::{Layer, Walk};
use crate::account::Reason;

impl Walk<'_, '_> {
    /// PPP, with or without address and control bytes (RFC 1661 §2, RFC 1662 §3.1); Cisco HDLC in its place.
    pub(super) fn ppp(&mut self) -> Result<Layer, Reason> {
        match *self.view.peek_array()? {
            [0xff, 0x03] => {
                self.view.take(2)?;
            }
            [0x0f | 0x8f, 0] => return self.cisco_hdlc(),
            _ => {}
        }
        // A protocol number's last byte is odd and its first even; a first that is odd is alone (RFC 1661 §6.5).
        let &[first] = self.view.take_array()?;
        let protocol = if first & 1 == 1 {
            u16::from(first)
        } else {
            let &[second] = self.view.take_array()?;
            u16::from_be_bytes([first, second])
        };
        match protocol {
            0x0021 => Ok(Layer::Ipv4),
            0x0057 => Ok(Layer::Ipv6),
            0x0281 | 0x0283 => Ok(Layer::Mpls),
            // A bridged frame (RFC 3518 §4.1) without its check sequence: flags and the kind of MAC.
            0x0031 => self.after(2, Layer::Ethernet),
            _ => Err(Reason::NotIp),
        }
    }

    /// Cisco HDLC: address, control, Ethernet type.
    pub(super) fn cisco_hdlc(&mut self) -> Result<Layer, Reason> {
        let &[_, _, type_0, type_1] = self.view.take_array()?;
        Ok(Layer::EtherType(u16::from_be_bytes([type_0, type_1])))
    }

    /// Frame relay (RFC 2427 §3): an address whose last byte is odd, then either Cisco's Ethernet type or control,
    /// padding and a network layer protocol identifier.
    pub(super) fn frame_relay(&mut self) -> Result<Layer, Reason> {
        while self.view.take(1)?[0] & 1 == 0 {}
        match *self.view.peek_array()? {
            [3, 0] => self.view.take(2)?,
            [3, _] => self.view.take(1)?,
            ether_type => {
                self.view.take(2)?;
                return Ok(Layer::EtherType(u16::from_be_bytes(ether_type)));
            }
        };
        self.network_layer_protocol()
    }
}
