//! IEEE 802.11 data frames, and the headers that capture programs put before them.

use super::LinkType;
use super::decode::{Layer, Walk};
use crate::account::Reason;

impl Walk<'_, '_> {
    /// A MAC header (IEEE 802.11 §9.2.3) of a data frame that is not encrypted.
    pub(super) fn ieee80211(&mut self) -> Result<Layer, Reason> {
        let &[control, flags] = self.view.peek_array()?;
        let data = control & 0x0c == 0x08;
        let (no_data, quality_of_service) = (control & 0x40 != 0, control & 0x80 != 0);
        let four_addresses = flags & 0x03 == 0x03;
        let (encrypted, high_throughput) = (flags & 0x40 != 0, flags & 0x80 != 0);
        if !data || no_data || encrypted || control & 3 != 0 {
            return Err(Reason::NotIp);
        }
        let mut len = 24;
        if four_addresses {
            len += 6;
        }
        let mut aggregated = false;
        if quality_of_service {
            aggregated = self.view.peek(len + 2)?[len] & 0x80 != 0;
            len += 2;
            if high_throughput {
                len += 4;
            }
        }
        self.view.take(len)?;
        if aggregated {
            // The first of several frames (A-MSDU, §9.3.2.2): two addresses and a length.
            let header: &[u8; 14] = self.view.take_array()?;
            self.view
                .limit(usize::from(u16::from_be_bytes([header[12], header[13]])));
        } else if !len.is_multiple_of(4)
            && let Ok([_, _, 0xaa, 0xaa, 3, ..]) = self.view.peek(5)
        {
            // Some interfaces pad the header to 4 bytes.
            self.view.take(2)?;
        }
        Ok(Layer::Llc)
    }

    /// <https://www.radiotap.org>
    pub(super) fn radiotap(&mut self) -> Result<Layer, Reason> {
        let &[_, _, len_0, len_1] = self.view.peek_array()?;
        let len = usize::from(u16::from_le_bytes([len_0, len_1]));
        if len < 8 {
            return Err(Reason::MalformedPacket);
        }
        self.after(len, Layer::Ieee80211)
    }

    /// <https://www.tcpdump.org/linktypes/LINKTYPE_IEEE802_11_PRISM.html>, in whose place an AVS header may stand.
    pub(super) fn prism(&mut self) -> Result<Layer, Reason> {
        let &[magic_0, magic_1, magic_2, _, a, b, c, d] = self.view.peek_array()?;
        let big_endian = u32::from_be_bytes([a, b, c, d]);
        let len = if [magic_0, magic_1, magic_2] == AVS_MAGIC {
            big_endian
        } else {
            // In the byte order of the machine that captured: the one that is small.
            big_endian.min(big_endian.swap_bytes())
        };
        if len < 8 {
            return Err(Reason::MalformedPacket);
        }
        self.after(len as usize, Layer::Ieee80211)
    }

    /// Per-packet information (<https://www.tcpdump.org/linktypes/LINKTYPE_PPI.html>).
    pub(super) fn ppi(&mut self) -> Result<Layer, Reason> {
        let &[_, _, len_0, len_1, a, b, c, d] = self.view.peek_array()?;
        let len = usize::from(u16::from_le_bytes([len_0, len_1]));
        if len < 8 {
            return Err(Reason::MalformedPacket);
        }
        let link = LinkType(u32::from_le_bytes([a, b, c, d]) as u16);
        self.after(len, Layer::Link(link))
    }
}

/// The AVS magic number without its version.
const AVS_MAGIC: [u8; 3] = [0x80, 0x21, 0x10];
