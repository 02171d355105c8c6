//! IPv4 and IPv6.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, err};

use super::View;
use super::decode::{Layer, Walk};
use crate::account::Reason;

impl Walk<'_, '_> {
    /// IPv4 or IPv6, by the version field.
    #[inline]
    pub(super) fn ip(&mut self) -> Result<Layer, Reason> {
        match self.view.peek(1)?[0] >> 4 {
            4 => Ok(Layer::Ipv4),
            6 => Ok(Layer::Ipv6),
            _ => Err(Reason::MalformedPacket),
        }
    }

    /// An IPv4 header (RFC 791 §3.1).
    #[inline]
    pub(super) fn ipv4(&mut self) -> Result<Layer, Reason> {
        let header = Ipv4HeaderSlice::from_slice(self.view.data).map_err(|error| match error {
            err::ipv4::HeaderSliceError::Len(error) => self.view.missing(error.required_len),
            err::ipv4::HeaderSliceError::Content(_) => Reason::MalformedPacket,
        })?;
        let header_len = header.slice().len();
        // The total length is 0 in a segment that the interface has yet to split (TSO beyond 64 KiB).
        match usize::from(header.total_len()) {
            0 => {}
            total if total < header_len => return Err(Reason::MalformedPacket),
            total => self.view.set_len(total),
        }
        self.view.take(header_len)?;
        self.source = IpAddr::V4(header.source_addr());
        self.destination = IpAddr::V4(header.destination_addr());

        let protocol = header.protocol().0;
        if !header.is_fragmenting_payload() {
            return Ok(Layer::Protocol(protocol));
        }
        let more = header.more_fragments();
        if more {
            // Linux rounds the length of a middle fragment down to a multiple of 8.
            self.view.set_len(self.view.len & !7);
        }
        Ok(Layer::Fragment {
            id: u32::from(header.identification()),
            protocol,
            offset: usize::from(header.fragments_offset().value()) * 8,
            more,
        })
    }

    /// An IPv6 header (RFC 8200 §3); the extension headers follow as protocols.
    #[inline]
    pub(super) fn ipv6(&mut self) -> Result<Layer, Reason> {
        let header = Ipv6HeaderSlice::from_slice(self.view.data).map_err(|error| match error {
            err::ipv6::HeaderSliceError::Len(error) => self.view.missing(error.required_len),
            err::ipv6::HeaderSliceError::Content(_) => Reason::MalformedPacket,
        })?;
        self.view.take(header.slice().len())?;
        self.source = IpAddr::V6(header.source_addr());
        self.destination = IpAddr::V6(header.destination_addr());
        let next = header.next_header().0;
        match usize::from(header.payload_length()) {
            // A jumbogram (RFC 2675), or a segment that the interface has yet to split: then the frame says it.
            0 => {
                if next == IpNumber::IPV6_HEADER_HOP_BY_HOP.0
                    && let Some(len) = jumbo_payload(self.view)
                {
                    self.view.set_len(len);
                }
            }
            len => self.view.set_len(len),
        }
        Ok(Layer::Protocol(next))
    }

    /// An IPv6 extension header (RFC 8200 §4) whose length counts 8 bytes beyond the first 8.
    pub(super) fn extension(&mut self) -> Result<Layer, Reason> {
        let &[next, len] = self.view.peek_array()?;
        self.view.take((usize::from(len) + 1) * 8)?;
        Ok(Layer::Protocol(next))
    }

    /// A routing header (RFC 8200 §4.4). While segments are left, the address of the one that TCP runs to is in it:
    /// last in type 0, first in segment routing (RFC 8754 §2), the only one in Mobile IPv6's type 2 (RFC 6275 §6.4).
    pub(super) fn routing_header(&mut self) -> Result<Layer, Reason> {
        let &[next, len, kind, segments_left] = self.view.peek_array()?;
        let header = self.view.take((usize::from(len) + 1) * 8)?;
        let address = match kind {
            _ if segments_left == 0 => None,
            0 => header[8..].last_chunk::<16>(),
            2 | 4 => header[8..].first_chunk::<16>(),
            _ => None,
        };
        if let Some(&address) = address {
            self.destination = IpAddr::V6(address.into());
        }
        Ok(Layer::Protocol(next))
    }

    /// Destination options (RFC 8200 §4.6), among them a mobile node's home address (RFC 6275 §6.3): TCP runs from
    /// there, whatever the source address says.
    pub(super) fn destination_options(&mut self) -> Result<Layer, Reason> {
        let &[next, len] = self.view.peek_array()?;
        let mut options = &self.view.take((usize::from(len) + 1) * 8)?[2..];
        loop {
            options = match *options {
                [PAD_1, ref rest @ ..] => rest,
                [kind, len, ref rest @ ..] => {
                    let Some((value, rest)) = rest.split_at_checked(usize::from(len)) else {
                        break;
                    };
                    if kind == HOME_ADDRESS
                        && let Ok(address) = <[u8; 16]>::try_from(value)
                    {
                        self.source = IpAddr::V6(address.into());
                    }
                    rest
                }
                _ => break,
            };
        }
        Ok(Layer::Protocol(next))
    }

    /// An IPv6 fragment header (RFC 8200 §4.5).
    pub(super) fn fragment_header(&mut self) -> Result<Layer, Reason> {
        let header = Ipv6FragmentHeaderSlice::from_slice(self.view.data)
            .map_err(|error| self.view.missing(error.required_len))?;
        self.view.take(header.slice().len())?;
        let protocol = header.next_header().0;
        if !header.is_fragmenting_payload() {
            // An atomic fragment (RFC 6946): processed on its own.
            return Ok(Layer::Protocol(protocol));
        }
        Ok(Layer::Fragment {
            id: header.identification(),
            protocol,
            offset: usize::from(header.fragment_offset().value()) * 8,
            more: header.more_fragments(),
        })
    }

    /// An authentication header (RFC 4302 §2): its length counts 4 bytes beyond the first 8.
    pub(super) fn authentication_header(&mut self) -> Result<Layer, Reason> {
        let &[next, len] = self.view.peek_array()?;
        self.view.take((usize::from(len) + 2) * 4)?;
        Ok(Layer::Protocol(next))
    }
}

/// Whether `view` begins with an IP header that agrees with its length: for payloads that no field announces.
pub(super) fn plausible(view: View<'_>) -> bool {
    match view.data.first().map(|first| first >> 4) {
        Some(4) => {
            view.data[0] & 0xf >= 5
                && view
                    .u16_at(2)
                    .is_some_and(|total| total >= 20 && usize::from(total) <= view.len)
        }
        Some(6) => view
            .u16_at(4)
            .is_some_and(|payload| usize::from(payload) + 40 <= view.len),
        _ => false,
    }
}

/// Whether the IP packet that `view` begins with ends where the view does.
pub(super) fn fills(view: View<'_>) -> bool {
    let len = match view.data.first().map(|first| first >> 4) {
        Some(4) => view.u16_at(2).map(usize::from),
        Some(6) => view.u16_at(4).map(|payload| usize::from(payload) + 40),
        _ => None,
    };
    len == Some(view.len)
}

/// The jumbo payload option (RFC 2675 §2) of the hop-by-hop header that `view` begins with.
fn jumbo_payload(view: View<'_>) -> Option<usize> {
    let len = (usize::from(*view.data.get(1)?) + 1) * 8;
    let mut options = view.data.get(2..len)?;
    loop {
        options = match *options {
            [PAD_1, ref rest @ ..] => rest,
            [JUMBO_PAYLOAD, 4, a, b, c, d, ..] => {
                return usize::try_from(u32::from_be_bytes([a, b, c, d])).ok();
            }
            [_, len, ref rest @ ..] => rest.get(usize::from(len)..)?,
            _ => return None,
        };
    }
}

/// IPv6 options.
const PAD_1: u8 = 0;
const JUMBO_PAYLOAD: u8 = 0xc2;
const HOME_ADDRESS: u8 = 0xc9;
