//! Recordings: the formats that exchanges and packets are written to and read back from.
//!
//! | extension | holds | written | read |
//! |---|---|---|---|
//! | `.pcap` | packets | [`Writer`] | [`crate::capture`] |
//! | `.gor` | messages, as GoReplay writes them | [`Writer`] | [`Reader`] |
//! | `.jsonl` | exchanges, losslessly | [`Writer`] | [`Reader`] |
//! | `.har` | exchanges, for browsers and their tools | [`Writer`] | [`Reader`] |
//!
//! Each may be gzipped (`.gz` behind the extension). `docs/formats.md` describes them.

mod damage;
pub mod gor;
mod har;
mod input;
mod json;
pub mod jsonl;
mod message;
mod output;
pub mod pcap;
mod reader;
mod rebuild;
mod rotate;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

use crate::exchange::Exchange;

pub use self::damage::Damage;
pub use self::input::{Format, Input, detect};
pub use self::reader::Reader;
pub use self::rotate::Rotation;
pub use self::writer::{Options, Writer};
pub(crate) use crate::time::rfc3339;

/// An HTTP archive of those exchanges, as a whole; what an archive cannot say is left out of it.
#[must_use]
pub fn har_archive<'a>(exchanges: impl Iterator<Item = &'a Exchange>) -> Vec<u8> {
    let mut archive = har::header();
    let mut is_first = true;
    for exchange in exchanges {
        let before = archive.len();
        if !is_first {
            archive.push(b',');
        }
        if har::append_entry(&mut archive, exchange) {
            is_first = false;
        } else {
            archive.truncate(before);
        }
    }
    archive.extend_from_slice(har::FOOTER);
    archive
}

/// What is wrong with a recording as a whole.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file to be written is there already.
    #[error("{}: the file exists already; give --force to replace it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file to be written is one of those to be read.
    #[error("{}: this file is read, so it cannot be written; give another name", path.display())]
    IsInput {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be created.
    #[error("{}: cannot create the file: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing failed; what was written before is readable.
    #[error(
        "{}: writing failed: {source}; what was written before is readable",
        output_name(path)
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The recording is as large as it may become. That is how it was meant to end.
    #[error(
        "{}: the recording is as large as --max-size allows ({size} bytes)",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// How many bytes it may have.
        size: u64,
    },
    /// The oldest file of a recording cannot be deleted, so that there is no room for the next one.
    #[error(
        "{}: cannot delete the oldest file of the recording, as --max-size asks for: {source}",
        path.display()
    )]
    Delete {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An HTTP archive has become as long as one may be that is to be read again.
    #[error(
        "{}: an HTTP archive longer than 256 MiB is not read as a whole, so no more is written to it; use .jsonl or .gor, which may \
         be of any length",
        path.display()
    )]
    ArchiveFull {
        /// The file.
        path: PathBuf,
    },
    /// The file's name does not say in which format to write.
    #[error(
        "{}: the name does not say which format to write; end it in .pcap, .gor, .jsonl or .har, and in .gz behind that to compress",
        path.display()
    )]
    NoFormat {
        /// The file.
        path: PathBuf,
    },
    /// The format cannot be written to a stream.
    #[error(
        "{format} cannot be written to the standard output; give a file name, or write .jsonl or .gor"
    )]
    NotAStream {
        /// The format.
        format: Format,
    },
    /// The file cannot be opened or read.
    #[error("{}: cannot read the file: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds none of the known formats.
    #[error("{}: not a recording (.pcap, .pcapng, .gor, .jsonl or .har): {found}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What its first bytes look like.
        found: String,
    },
    /// A packet's link type differs from the first packet's; a pcap file holds one.
    #[error(
        "{}: a .pcap file holds packets of one link type, and this capture has several; write .jsonl, and make a .pcap of \
         that if you need one",
        path.display()
    )]
    LinkTypes {
        /// The file.
        path: PathBuf,
    },
}

/// How people call what is written to.
fn output_name(path: &Path) -> String {
    if path.as_os_str() == "-" {
        "standard output".to_owned()
    } else {
        path.display().to_string()
    }
}
