//! Where packets come from: capture files, and live capture.

#[cfg(target_os = "linux")]
mod fanout;
pub mod file;
mod interface;
pub mod live;
pub mod merge;
mod right;

use std::io;

use crate::wire::Packet;

/// Something that hands over one packet after the other.
pub trait PacketSource {
    /// The next packet; `None` when there will be no more.
    ///
    /// # Errors
    /// What went wrong, for a person to read. Packets handed over before it stay good; none follows.
    fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError>;

    /// A packet that will be handed over soon, where that is known without waiting; each is shown once at most, and in order. Whoever
    /// takes packets may look at what they will need meanwhile.
    fn upcoming(&mut self) -> Option<Packet<'_>> {
        None
    }
}

/// Why packets cannot be read, or no more of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The file does not open.
    #[error("cannot open {name}: {source}")]
    Open {
        /// The file.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// The file opened, but the system failed to read on.
    #[error("cannot read {name} beyond byte {offset}: {source}")]
    Read {
        /// The file.
        name: String,
        /// How many bytes were read, after decompression.
        offset: u64,
        /// What the system says.
        source: io::Error,
    },
    /// The file has no bytes.
    #[error("{name} is empty: not even the header of a capture file was written to it")]
    Empty {
        /// The file.
        name: String,
    },
    /// The file is something else.
    #[error(
        "{name} is not a capture file: {looks_like}; captures are pcap and pcapng, recordings .gor, .jsonl and .har, each gzipped or not"
    )]
    NotACapture {
        /// The file.
        name: String,
        /// What its first bytes are, and what to do with such a file.
        looks_like: String,
    },
    /// The file ends where more must follow: the disk was full, the capture was killed, or a copy was cut off.
    #[error(
        "{name} is cut off: it ends inside {inside} that begins at byte {offset}, of which {cut} bytes are there; {}",
        used(*packets)
    )]
    Truncated {
        /// The file.
        name: String,
        /// What is not whole.
        inside: &'static str,
        /// Where that begins, after decompression.
        offset: u64,
        /// How many bytes of it are there, after decompression.
        cut: u64,
        /// How many packets were handed over.
        packets: u64,
    },
    /// The file contradicts its own format.
    #[error("{name} is damaged at byte {offset}: {what}; {}", used(*packets))]
    Damaged {
        /// The file.
        name: String,
        /// What is wrong.
        what: String,
        /// Where, after decompression.
        offset: u64,
        /// How many packets were handed over.
        packets: u64,
    },
}

/// What a file that ends badly was good for.
fn used(packets: u64) -> String {
    match packets {
        0 => "there is no packet before that".to_owned(),
        1 => "the packet before that was used".to_owned(),
        n => format!("the {n} packets before that were used"),
    }
}
