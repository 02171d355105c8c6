//! The pcapng format (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-05.html>).

use super::{Fault, Input, MAX_RECORD, Record, u16_at, u32_at};
use crate::time::Timestamp;
use crate::wire::LinkType;

/// Whether the file begins with a section header block.
pub(super) fn recognise(first: &[u8]) -> bool {
    first.starts_with(&SECTION_HEADER.to_be_bytes())
        && matches!(
            first.get(8..12),
            Some([0x1a, 0x2b, 0x3c, 0x4d] | [0x4d, 0x3c, 0x2b, 0x1a])
        )
}

/// Where in a pcapng file the reader is: in a section, with these interfaces.
#[derive(Default)]
pub(super) struct PcapNg {
    big_endian: bool,
    interfaces: Vec<Interface>,
    /// The time of the last packet, which a simple packet block, having none of its own, takes over.
    last: Timestamp,
}

/// An interface of the current section.
struct Interface {
    link: LinkType,
    /// 0 is no limit.
    snap_len: u32,
    resolution: Resolution,
    /// Seconds to be added to every time.
    offset: i64,
}

/// What a unit of a timestamp is.
#[derive(Clone, Copy)]
enum Resolution {
    /// 10 to the power of minus that many seconds.
    Decimal(u8),
    /// 2 to the power of minus that many seconds.
    Binary(u8),
}

impl PcapNg {
    /// The next block that holds a packet.
    #[inline]
    pub(super) fn next(&mut self, input: &mut Input) -> Result<Option<Record>, Fault> {
        loop {
            let header = input.fill(MIN_BLOCK)?;
            if header.len() < MIN_BLOCK {
                return if header.is_empty() {
                    Ok(None)
                } else {
                    Err(Fault::Ends("the header of a block"))
                };
            }
            // The same bytes in either byte order.
            let is_section = u32_at(header, 0, true) == SECTION_HEADER;
            if is_section {
                self.big_endian = match u32_at(header, 8, true) {
                    BYTE_ORDER => true,
                    order if order.swap_bytes() == BYTE_ORDER => false,
                    _ => {
                        return Err(Fault::Wrong(
                            "a section header without a byte order".to_owned(),
                        ));
                    }
                };
            }
            let big_endian = self.big_endian;
            let kind = u32_at(header, 0, big_endian);
            let len = u32_at(header, 4, big_endian) as usize;
            if !(MIN_BLOCK..=MAX_RECORD).contains(&len) {
                return Err(Fault::Wrong(format!("a block of {len} bytes cannot be")));
            }
            let block = input.fill(len)?;
            if block.len() < len {
                return Err(Fault::Ends("a block"));
            }
            let block = &block[..len];
            if u32_at(block, len - 4, big_endian) as usize != len {
                return Err(Fault::Wrong(
                    "the two lengths of a block disagree".to_owned(),
                ));
            }

            let body = &block[8..len - 4];
            let record = match kind {
                ENHANCED_PACKET => Some(self.packet(body, u32_at(body, 0, big_endian), len)?),
                PACKET => Some(self.packet(body, u32::from(u16_at(body, 0, big_endian)), len)?),
                SIMPLE_PACKET => Some(self.simple_packet(body, len)?),
                INTERFACE_DESCRIPTION => {
                    self.interface(body)?;
                    None
                }
                SECTION_HEADER => {
                    self.interfaces.clear();
                    None
                }
                // Names, statistics, secrets, and what others invented.
                _ => None,
            };
            if record.is_some() {
                return Ok(record);
            }
            input.take(len);
        }
    }

    /// An enhanced packet block, or the obsolete packet block, which differs in how it says the interface only.
    fn packet(&mut self, body: &[u8], interface: u32, block_len: usize) -> Result<Record, Fault> {
        let word = |at| u32_at(body, at, self.big_endian);
        let captured = word(12) as usize;
        if body.len() < 20 || captured > body.len() - 20 {
            return Err(Fault::Wrong("a packet is longer than its block".to_owned()));
        }
        let time = (u64::from(word(4)) << 32) | u64::from(word(8));
        let wire_len = word(16).max(word(12));
        let interface = self.get(interface)?;
        let (link, time) = (interface.link, interface.time(time));
        self.last = time;
        Ok(Record {
            time,
            link,
            wire_len,
            at: 8 + 20,
            len: captured,
            record_len: block_len,
        })
    }

    /// A simple packet block: no interface but the first, no time, and no captured length but what fits.
    fn simple_packet(&mut self, body: &[u8], block_len: usize) -> Result<Record, Fault> {
        if body.len() < 4 {
            return Err(Fault::Wrong(
                "a simple packet block without a length".to_owned(),
            ));
        }
        let wire_len = u32_at(body, 0, self.big_endian);
        let interface = self.get(0)?;
        let limit = match interface.snap_len {
            0 => wire_len,
            snap_len => wire_len.min(snap_len),
        };
        Ok(Record {
            time: self.last,
            link: interface.link,
            wire_len,
            at: 8 + 4,
            len: (limit as usize).min(body.len() - 4),
            record_len: block_len,
        })
    }

    fn interface(&mut self, body: &[u8]) -> Result<(), Fault> {
        if body.len() < 8 {
            return Err(Fault::Wrong(
                "an interface description block without a link type".to_owned(),
            ));
        }
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(Fault::Wrong(format!(
                "more than {MAX_INTERFACES} interfaces in a section"
            )));
        }
        let mut interface = Interface {
            link: LinkType(u16_at(body, 0, self.big_endian)),
            snap_len: u32_at(body, 4, self.big_endian),
            resolution: Resolution::Decimal(6),
            offset: 0,
        };
        let mut options = &body[8..];
        while let [_, _, _, _, rest @ ..] = options {
            let code = u16_at(options, 0, self.big_endian);
            let len = usize::from(u16_at(options, 2, self.big_endian));
            let Some(value) = rest.get(..len) else {
                break;
            };
            match (code, value) {
                (END_OF_OPTIONS, _) => break,
                (TIME_RESOLUTION, &[power]) => {
                    interface.resolution = if power & 0x80 == 0 {
                        Resolution::Decimal(power)
                    } else {
                        Resolution::Binary(power & 0x7f)
                    };
                }
                (TIME_OFFSET, value) => {
                    if let Ok(value) = value.try_into() {
                        interface.offset = if self.big_endian {
                            i64::from_be_bytes(value)
                        } else {
                            i64::from_le_bytes(value)
                        };
                    }
                }
                _ => {}
            }
            options = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        self.interfaces.push(interface);
        Ok(())
    }

    fn get(&self, interface: u32) -> Result<&Interface, Fault> {
        self.interfaces.get(interface as usize).ok_or_else(|| {
            Fault::Wrong(format!(
                "a packet of interface {interface}, which the section does not describe"
            ))
        })
    }
}

impl Interface {
    /// A timestamp in nanoseconds. Finer resolutions are cut, and times that nanoseconds since 1970 cannot say
    /// become the nearest that they can.
    fn time(&self, units: u64) -> Timestamp {
        let units = u128::from(units);
        let nanos = match self.resolution {
            Resolution::Decimal(power @ ..=9) => units * 10_u128.pow(9 - u32::from(power)),
            Resolution::Decimal(power) => 10_u128
                .checked_pow(u32::from(power) - 9)
                .map_or(0, |divisor| units / divisor),
            Resolution::Binary(power) => (units * 1_000_000_000) >> power,
        };
        let offset = i128::from(self.offset) * 1_000_000_000;
        let nanos = i128::try_from(nanos)
            .unwrap_or(i128::MAX)
            .saturating_add(offset);
        Timestamp::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Block types, section 4 of the draft; the obsolete packet block is its appendix A.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Options of an interface description block.
const END_OF_OPTIONS: u16 = 0;
const TIME_RESOLUTION: u16 = 9;
const TIME_OFFSET: u16 = 14;

/// The shortest block: type, length, length again.
const MIN_BLOCK: usize = 12;

/// The most interfaces of a section that are kept.
const MAX_INTERFACES: usize = 65_536;
