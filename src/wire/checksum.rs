//! Whether a segment's checksum is right.

use std::net::IpAddr;

use etherparse::IpNumber;

/// What a TCP checksum (RFC 9293 §3.1) says of its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// It fits the segment. So does that of the pseudo header alone, which Linux leaves there for the network card to complete:
    /// a segment with such a one was never on a wire that could have damaged it.
    Right,
    /// It does not: the segment was damaged on its way, or whoever wrote it down left the checksum to something else.
    Wrong,
    /// Not all of the segment was captured.
    #[default]
    Unknown,
}

impl Checksum {
    /// What the checksum in `tcp` says: a whole segment from its header on. `ends` is [`of_address`] of both of its ends, added.
    #[inline]
    pub(super) fn of(ends: u64, tcp: &[u8]) -> Self {
        let Some(&[first, second]) = tcp.get(16..).and_then(|rest| rest.first_chunk()) else {
            return Self::Unknown;
        };
        let found = u16::from_le_bytes([first, second]);
        let number = |number: usize| u64::from((number as u32).swap_bytes());
        let ends = ends + number(IpNumber::TCP.0.into());
        let pseudo = ends + number(tcp.len());
        let is_right = found == folded(pseudo)
            || folded(pseudo + sum(tcp)) == u16::MAX
            // Of a segment that the card cuts up, the length may be left out.
            || found == folded(ends);
        if is_right { Self::Right } else { Self::Wrong }
    }
}

/// The sum of an address.
#[inline]
pub(super) fn of_address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u32::from_le_bytes(address.octets()).into(),
        IpAddr::V6(address) => sum(&address.octets()),
    }
}

/// A number that is the sum of the 16-bit words in `bytes` once it is [`folded`], their bytes swapped: ones' complement does not
/// care, and adds up words of any size (RFC 1071 §2).
#[inline]
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let words: u64 = words
        .iter()
        .map(|&word| u64::from(u32::from_le_bytes(word)))
        .sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words + u64::from(u32::from_le_bytes(last))
}

/// Down to 16 bits, with the carries added.
#[inline]
fn folded(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// The checksum word by word, as RFC 1071 §1 has it.
    fn plain(source: IpAddr, destination: IpAddr, tcp: &[u8]) -> u16 {
        let mut bytes = Vec::new();
        for address in [source, destination] {
            match address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        bytes.extend([0, 0, 0, 6]);
        bytes.extend((tcp.len() as u32).to_be_bytes());
        bytes.extend(tcp);
        let words = bytes.chunks(2);
        let words = words.map(|it| u32::from(it[0]) << 8 | u32::from(*it.get(1).unwrap_or(&0)));
        let sum = words.fold(0, |sum, word| {
            let sum = sum + word;
            (sum & 0xffff) + (sum >> 16)
        });
        !(sum as u16)
    }

    #[test]
    fn every_damaged_bit_shows_and_what_is_right_is_right() {
        let mut random = crate::random::below();
        let (a, b) = (
            Ipv4Addr::new(10, 0, 0, 1),
            Ipv4Addr::new(192, 168, 255, 254),
        );
        let (c, d) = (
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::LOCALHOST,
        );
        for (source, destination) in [(a.into(), b.into()), (IpAddr::V6(c), IpAddr::V6(d))] {
            for len in (20..200).chain([1480, 65_515]) {
                let mut tcp: Vec<u8> = (0..len).map(|_| random(256) as u8).collect();
                tcp[16..18].fill(0);
                let right = plain(source, destination, &tcp);
                let pseudo = !plain(source, destination, &vec![0; len]);
                let ends = of_address(source) + of_address(destination);
                let check = |tcp: &[u8]| Checksum::of(ends, tcp);
                tcp[16..18].copy_from_slice(&right.to_be_bytes());
                assert_eq!(check(&tcp), Checksum::Right, "{len}");
                let at = random(len as u64) as usize;
                tcp[at] ^= 1 << random(8);
                assert_eq!(check(&tcp), Checksum::Wrong, "{len} {at}");
                tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
                assert_eq!(check(&tcp), Checksum::Right, "{len}, left to the card");
            }
        }
        assert_eq!(Checksum::of(0, &[0; 17]), Checksum::Unknown);
    }
}
