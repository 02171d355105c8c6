//! Capture files: pcap and pcapng, gzipped or not, from a path or a pipe.

mod gunzip;
mod input;
mod pcap;
mod pcapng;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::input::{Input, Trouble};
use super::{CaptureError, PacketSource};
use crate::time::Timestamp;
use crate::wire::{LinkType, Packet};

/// Reads the packets of one capture file, in the order of the file.
///
/// Memory is bounded by the longest record. The same bytes give the same packets, however the reader cuts them.
pub struct FileSource {
    name: String,
    input: Input,
    format: Format,
    /// How many packets were handed over.
    packets: u64,
    /// How far what was shown as upcoming reaches, in packets and in buffered bytes.
    shown: (usize, usize),
    /// Whether the end or an error was reached.
    ended: bool,
    /// How many bytes were read from the file itself.
    consumed: Arc<AtomicU64>,
    size: Option<u64>,
}

enum Format {
    Pcap(pcap::Pcap),
    PcapNg(pcapng::PcapNg),
}

/// One packet, before its bytes are lent out: they are the last `len` bytes that were taken off the input.
struct Record {
    time: Timestamp,
    link: LinkType,
    wire_len: u32,
    /// Where its bytes are in [`Input::buffered`].
    at: usize,
    len: usize,
    /// How long the whole record is, from the start of [`Input::buffered`].
    record_len: usize,
}

impl FileSource {
    /// Opens the file at `path`; `-` is the standard input.
    ///
    /// # Errors
    /// When it does not open, or is not a capture file.
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        if path.as_os_str() == "-" {
            return Self::start(Box::new(io::stdin()), "standard input".to_owned(), None);
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| CaptureError::Open {
            name: name.clone(),
            source,
        })?;
        let size = file
            .metadata()
            .ok()
            .filter(std::fs::Metadata::is_file)
            .map(|metadata| metadata.len());
        Self::start(Box::new(file), name, size)
    }

    /// Reads a capture from `reader`; `name` is what messages call it.
    ///
    /// # Errors
    /// When it does not begin like a capture file.
    pub fn from_reader(
        reader: Box<dyn Read + Send>,
        name: impl Into<String>,
    ) -> Result<Self, CaptureError> {
        Self::start(reader, name.into(), None)
    }

    /// How many bytes of the file were read, before decompression, and how many it has, if that is known.
    #[must_use]
    pub fn progress(&self) -> (u64, Option<u64>) {
        (self.consumed.load(Ordering::Relaxed), self.size)
    }

    /// What messages call the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn start(
        reader: Box<dyn Read + Send>,
        name: String,
        size: Option<u64>,
    ) -> Result<Self, CaptureError> {
        let consumed = Arc::new(AtomicU64::new(0));
        let counted = input::Counted::new(reader, Arc::clone(&consumed));
        let mut input = Input::new(Box::new(counted));
        begin(&mut input, &name)?;
        let gzipped = input.buffered().starts_with(&[0x1f, 0x8b]);
        if gzipped {
            input = input.gunzip();
            begin(&mut input, &name)?;
        }
        if input.buffered().is_empty() {
            return Err(CaptureError::Empty { name });
        }

        let format = if let Some(pcap) = pcap::Pcap::recognise(input.buffered()) {
            Format::Pcap(pcap)
        } else if pcapng::recognise(input.buffered()) {
            Format::PcapNg(pcapng::PcapNg::default())
        } else {
            let what = looks_like(input.buffered());
            return Err(CaptureError::NotACapture {
                name,
                looks_like: if gzipped {
                    format!("decompressed, {what}")
                } else {
                    what
                },
            });
        };
        let mut source = Self {
            name,
            input,
            format,
            packets: 0,
            shown: (0, 0),
            ended: false,
            consumed,
            size,
        };
        if let Format::Pcap(pcap) = &mut source.format {
            pcap.read_header(&mut source.input)
                .map_err(|fault| source.error(fault))?;
        }
        Ok(source)
    }

    #[cold]
    fn error(&self, fault: Fault) -> CaptureError {
        let name = self.name.clone();
        let offset = self.input.offset();
        let packets = self.packets;
        let cut = self.input.buffered().len() as u64;
        match fault {
            Fault::Ends(inside) => CaptureError::Truncated {
                name,
                inside,
                offset,
                cut,
                packets,
            },
            Fault::Wrong(what) => CaptureError::Damaged {
                name,
                what,
                offset,
                packets,
            },
            Fault::Trouble(Trouble::Gzip(what)) => CaptureError::Damaged {
                name,
                what,
                offset,
                packets,
            },
            Fault::Trouble(Trouble::GzipCut) => CaptureError::Truncated {
                name,
                inside: "the gzip data of a record",
                offset,
                cut,
                packets,
            },
            Fault::Trouble(Trouble::Io(source)) => CaptureError::Read {
                name,
                offset,
                source,
            },
        }
    }
}

impl PacketSource for FileSource {
    fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        if self.ended {
            return Ok(None);
        }
        let next = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.input),
            Format::PcapNg(pcapng) => pcapng.next(&mut self.input),
        };
        match next {
            Ok(Some(record)) => {
                self.packets += 1;
                let (packets, bytes) = self.shown;
                self.shown = match packets {
                    0 => (0, 0),
                    _ => (packets - 1, bytes.saturating_sub(record.record_len)),
                };
                Ok(Some(Packet {
                    time: record.time,
                    link: record.link,
                    wire_len: record.wire_len,
                    data: &self.input.take(record.record_len)[record.at..record.at + record.len],
                }))
            }
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(fault) => {
                self.ended = true;
                Err(self.error(fault))
            }
        }
    }

    fn upcoming(&mut self) -> Option<Packet<'_>> {
        let (packets, bytes) = self.shown;
        let Format::Pcap(pcap) = &self.format else {
            return None;
        };
        if packets >= AHEAD {
            return None;
        }
        let rest = self.input.buffered().get(bytes..)?;
        let record = pcap.buffered(rest)?;
        self.shown = (packets + 1, bytes + record.record_len);
        Some(Packet {
            time: record.time,
            link: record.link,
            wire_len: record.wire_len,
            data: &rest[record.at..record.at + record.len],
        })
    }
}

/// How many packets are shown before they are handed over: as many as are worked on while the memory answers.
const AHEAD: usize = 12;

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSource")
            .field("name", &self.name)
            .field("packets", &self.packets)
            .finish_non_exhaustive()
    }
}

/// Why no more packets come, before it is known in which file.
enum Fault {
    /// The bytes end inside that.
    Ends(&'static str),
    /// The bytes contradict the format.
    Wrong(String),
    /// The bytes cannot be had.
    Trouble(Trouble),
}

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Reads as many bytes as tell what the file is.
fn begin(input: &mut Input, name: &str) -> Result<(), CaptureError> {
    let Err(trouble) = input.fill(MAGIC).map(|_| ()) else {
        return Ok(());
    };
    Err(match trouble {
        Trouble::Io(source) => CaptureError::Read {
            name: name.to_owned(),
            offset: input.offset(),
            source,
        },
        Trouble::Gzip(_) | Trouble::GzipCut => CaptureError::NotACapture {
            name: name.to_owned(),
            looks_like: "it begins like gzip, but does not decompress".to_owned(),
        },
    })
}

/// An integer in the byte order of the file.
fn u32_at(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let Some(bytes) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
        return 0;
    };
    if big_endian {
        u32::from_be_bytes(*bytes)
    } else {
        u32::from_le_bytes(*bytes)
    }
}

/// An integer in the byte order of the file.
fn u16_at(bytes: &[u8], at: usize, big_endian: bool) -> u16 {
    let Some(bytes) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
        return 0;
    };
    if big_endian {
        u16::from_be_bytes(*bytes)
    } else {
        u16::from_le_bytes(*bytes)
    }
}

/// What a file is that begins with `first` and is no capture, and what to do with it.
fn looks_like(first: &[u8]) -> String {
    let is = |magic: &[u8]| first.starts_with(magic);
    let text = match first {
        _ if is(b"\x28\xb5\x2f\xfd") => "it is compressed with zstd; decompress it first",
        _ if is(b"\xfd7zXZ\0") => "it is compressed with xz; decompress it first",
        _ if is(b"BZh") => "it is compressed with bzip2; decompress it first",
        _ if is(b"\x04\x22\x4d\x18") => "it is compressed with lz4; decompress it first",
        _ if is(b"PK\x03\x04") => "it is a zip archive; unpack it first",
        _ if is(b"\x1f\x8b") => "it is compressed with gzip a second time; decompress it first",
        _ if is(b"snoop\0\0\0") => "it is a snoop capture; convert it to pcap with editcap",
        _ if is(b"GMBU") || is(b"RTSS") => {
            "it is a Network Monitor capture; convert it to pcap with editcap"
        }
        [b'1'..=b'3', b' ', ..] => {
            "it looks like a recording of HTTP messages (.gor); give it a name that ends in .gor"
        }
        [b'{' | b'[', ..] => {
            "it looks like JSON; give it a name that ends in .jsonl or .har, whichever it is"
        }
        _ => {
            let shown = &first[..first.len().min(8)];
            let hex: Vec<String> = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            return format!("it begins with the bytes {}", hex.join(" "));
        }
    };
    text.to_owned()
}

/// How many bytes tell what a file is.
const MAGIC: usize = 12;

/// The longest record or block that is believed.
const MAX_RECORD: usize = 64 * 1024 * 1024;
