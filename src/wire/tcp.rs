//! The TCP header.

use std::net::SocketAddr;

use etherparse::TcpHeaderSlice;
use etherparse::err::tcp::HeaderSliceError;

use super::checksum::of_address;
use super::decode::Walk;
use super::{Checksum, Segment, TcpFlags};
use crate::account::Reason;

impl<'a> Walk<'a, '_> {
    /// A TCP header (RFC 9293 §3.1) and its payload.
    #[inline]
    pub(super) fn tcp(mut self) -> Result<Segment<'a>, Reason> {
        let header = TcpHeaderSlice::from_slice(self.view.data).map_err(|error| match error {
            HeaderSliceError::Len(error) => self.view.missing(error.required_len),
            HeaderSliceError::Content(_) => Reason::MalformedPacket,
        })?;
        let checksum = match self.view.len == self.view.data.len() {
            true => {
                let ends = of_address(self.source) + of_address(self.destination);
                Checksum::of(ends, self.view.data)
            }
            false => Checksum::Unknown,
        };
        self.view.take(header.slice().len())?;
        let options = Options::read(header.options());
        let flags = TcpFlags(header.slice()[13]);
        Ok(Segment {
            time: self.time,
            path: self.path,
            source: SocketAddr::new(self.source, header.source_port()),
            destination: SocketAddr::new(self.destination, header.destination_port()),
            seq: header.sequence_number(),
            ack: header.acknowledgment_number(),
            flags,
            window: header.window_size(),
            urgent: flags.has(TcpFlags::URG).then(|| header.urgent_pointer()),
            timestamps: options.timestamps,
            signed: options.signed,
            checksum,
            payload: self.view.data,
            cut: u32::try_from(self.view.len - self.view.data.len()).unwrap_or(u32::MAX),
        })
    }
}

/// The options that matter to a receiver's decision whether to take a segment.
#[derive(Clone, Copy, Default)]
pub(super) struct Options {
    pub(super) timestamps: Option<(u32, u32)>,
    pub(super) signed: bool,
}

impl Options {
    /// Reads options up to the first that makes no sense, as receivers do. (etherparse's iterator ends at the first
    /// option that it does not know, such as TCP-MD5.)
    #[inline]
    pub(super) fn read(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        // By far the most common: two paddings and the timestamps.
        if let [1, 1, 8, 10, value @ ..] = bytes
            && let Some(value) = value.first_chunk()
            && value.len() + 4 == bytes.len()
        {
            options.timestamps = Some(timestamps(value));
            return options;
        }
        loop {
            bytes = match *bytes {
                [NOP, ref rest @ ..] => rest,
                [END, ..] | [] | [_] => return options,
                [kind, len, ..] => {
                    let Some((option, rest)) = bytes.split_at_checked(usize::from(len)) else {
                        return options;
                    };
                    match (kind, option) {
                        (_, [] | [_]) => return options,
                        (TIMESTAMPS, [_, _, value @ ..]) => {
                            if let Ok(value) = value.try_into() {
                                options.timestamps = Some(timestamps(value));
                            }
                        }
                        (MD5_SIGNATURE | AUTHENTICATION, _) => options.signed = true,
                        _ => {}
                    }
                    rest
                }
            };
        }
    }
}

/// TSval and TSecr (RFC 7323 §3.2).
fn timestamps(&[a, b, c, d, e, f, g, h]: &[u8; 8]) -> (u32, u32) {
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    )
}

const END: u8 = 0;
const NOP: u8 = 1;
/// RFC 7323 §3.
const TIMESTAMPS: u8 = 8;
/// RFC 2385 §3.
const MD5_SIGNATURE: u8 = 19;
/// RFC 5925 §2.2.
const AUTHENTICATION: u8 = 29;
