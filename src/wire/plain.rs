//! The short way through the frames that most captures are made of: Ethernet, IPv4 without options, TCP, all captured.
//!
//! Whatever is not that is left to the walk; what both take, they read alike.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use etherparse::{EtherType, IpNumber};

use super::checksum::of_address;
use super::tcp::Options;
use super::{Checksum, LinkType, Packet, Path, Segment, TcpFlags};

/// The segment in `packet`, if it is of that kind.
#[inline]
pub(super) fn segment<'a>(packet: &Packet<'a>) -> Option<Segment<'a>> {
    let headers = headers(packet)?;
    let u16_at = |at| u16_at(headers, at);
    let u32_at = |at| u32_at(headers, at);
    let total_len = usize::from(u16_at(IP + 2));
    let header_len = usize::from(headers[TCP + 12] >> 4) * 4;
    let options_at = TCP + 20;
    let payload_at = TCP + header_len;
    let end = IP + total_len;
    let options = packet.data.get(options_at..payload_at)?;
    let payload = packet.data.get(payload_at..end)?;
    let tcp = packet.data.get(TCP..end)?;
    let options = Options::read(options);
    let flags = TcpFlags(headers[TCP + 13]);
    let (source, destination) = ends_in(headers);
    Some(Segment {
        time: packet.time,
        path: Path::default(),
        source,
        destination,
        seq: u32_at(TCP + 4),
        ack: u32_at(TCP + 8),
        flags,
        window: u16_at(TCP + 14),
        urgent: flags.has(TcpFlags::URG).then(|| u16_at(TCP + 18)),
        timestamps: options.timestamps,
        signed: options.signed,
        checksum: Checksum::of(of_address(source.ip()) + of_address(destination.ip()), tcp),
        payload,
        cut: 0,
    })
}

/// The ends of the segment in `packet`, source first, if it is of that kind.
#[inline]
pub(crate) fn ends(packet: &Packet<'_>) -> Option<(SocketAddr, SocketAddr)> {
    headers(packet).map(ends_in)
}

/// The headers of such a packet.
#[inline]
fn headers<'a>(packet: &Packet<'a>) -> Option<&'a [u8; HEADERS]> {
    let headers = packet.data.first_chunk::<HEADERS>()?;
    let is_plain = packet.link == LinkType::ETHERNET
        && u16_at(headers, 12) == EtherType::IPV4.0
        && headers[IP] == 0x45
        && headers[IP + 9] == IpNumber::TCP.0
        // Neither more fragments nor an offset.
        && u16_at(headers, IP + 6) & 0x3fff == 0;
    is_plain.then_some(headers)
}

#[inline]
fn ends_in(headers: &[u8; HEADERS]) -> (SocketAddr, SocketAddr) {
    let end = |address, port| {
        let address = Ipv4Addr::from_bits(u32_at(headers, address));
        SocketAddr::V4(SocketAddrV4::new(address, u16_at(headers, port)))
    };
    (end(IP + 12, TCP), end(IP + 16, TCP + 2))
}

#[inline]
fn u16_at(headers: &[u8; HEADERS], at: usize) -> u16 {
    u16::from_be_bytes([headers[at], headers[at + 1]])
}

#[inline]
fn u32_at(headers: &[u8; HEADERS], at: usize) -> u32 {
    u32::from_be_bytes([
        headers[at],
        headers[at + 1],
        headers[at + 2],
        headers[at + 3],
    ])
}

/// Where the IP header is.
const IP: usize = 14;
/// Where the TCP header is.
const TCP: usize = IP + 20;
/// How long the headers are, TCP options aside.
const HEADERS: usize = TCP + 20;
