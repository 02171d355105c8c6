//! Opening recordings to be read: what they are is told by their content first, by their name second.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::RecordError;
use super::gor::SEPARATOR;

/// A recording format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Packets, in libpcap's format.
    Pcap,
    /// Packets, in the format of Wireshark; only read.
    PcapNg,
    /// Messages, in GoReplay's format.
    Gor,
    /// Exchanges, one JSON object a line.
    Jsonl,
    /// Exchanges, as an HTTP archive.
    Har,
}

impl Format {
    /// The format that a file name asks for, and whether gzipped.
    #[must_use]
    pub fn of_name(name: &Path) -> Option<(Self, bool)> {
        let name = name.file_name()?.to_str()?.to_ascii_lowercase();
        let (name, gzip) = match name.strip_suffix(".gz") {
            Some(name) => (name, true),
            None => (&name[..], false),
        };
        let format = match name.rsplit_once('.')?.1 {
            "pcap" | "cap" => Self::Pcap,
            "pcapng" => Self::PcapNg,
            "gor" => Self::Gor,
            "jsonl" | "ndjson" => Self::Jsonl,
            "har" => Self::Har,
            _ => return None,
        };
        Some((format, gzip))
    }

    /// Whether it holds packets rather than messages.
    #[must_use]
    pub const fn holds_packets(self) -> bool {
        matches!(self, Self::Pcap | Self::PcapNg)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcap => ".pcap",
            Self::PcapNg => ".pcapng",
            Self::Gor => ".gor",
            Self::Jsonl => ".jsonl",
            Self::Har => ".har",
        })
    }
}

/// The format of a file whose (unpacked) content begins with `first` and that is called `name`.
#[must_use]
pub fn detect(first: &[u8], name: &Path) -> Option<Format> {
    match first.get(..4) {
        Some([0xa1, 0xb2, 0xc3, 0xd4] | [0xd4, 0xc3, 0xb2, 0xa1])
        | Some([0xa1, 0xb2, 0x3c, 0x4d] | [0x4d, 0x3c, 0xb2, 0xa1])
        | Some([0xa1, 0xb2, 0xcd, 0x34] | [0x34, 0xcd, 0xb2, 0xa1]) => return Some(Format::Pcap),
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => return Some(Format::PcapNg),
        _ => {}
    }
    let text = first.trim_ascii_start();
    if let Some(members) = text.strip_prefix(b"{") {
        let by_name = Format::of_name(name).map(|(format, _)| format);
        let is_har =
            members.trim_ascii_start().starts_with(b"\"log\"") || by_name == Some(Format::Har);
        return Some(if is_har { Format::Har } else { Format::Jsonl });
    }
    let is_gor =
        matches!(text, [b'1'..=b'3', b' ', ..]) || text.starts_with(SEPARATOR.trim_ascii());
    if is_gor {
        return Some(Format::Gor);
    }
    // An empty file, or one whose beginning is damaged, is what its name says.
    Format::of_name(name)
        .map(|(format, _)| format)
        .filter(|format| {
            matches!(format, Format::Gor | Format::Jsonl | Format::Har)
                && (text.is_empty() || *format != Format::Har)
        })
}

/// A recording that was recognised.
pub struct Input {
    path: PathBuf,
    format: Format,
    progress: Progress,
    /// A plain file is closed until its content is asked for, so that any number of them can be given.
    open: Option<Box<dyn Read + Send>>,
}

impl Input {
    /// Opens `path`; `-` is the standard input. Gzip is recognised by content, several members too.
    ///
    /// # Errors
    /// When it cannot be opened, or holds none of the known formats.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        if path.as_os_str() == "-" {
            return Self::from_reader(Box::new(io::stdin()), Path::new("standard input"));
        }
        let file = File::open(path).map_err(|source| unreadable(path, source))?;
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file);
        let size = metadata.map(|metadata| metadata.len());
        let mut input = Self::recognise(Box::new(file), path, size)?;
        if size.is_some() {
            input.open = None;
        }
        Ok(input)
    }

    /// Recognises what `raw` holds; `path` is its name.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_reader(raw: Box<dyn Read + Send>, path: &Path) -> Result<Self, RecordError> {
        Self::recognise(raw, path, None)
    }

    fn recognise(
        raw: Box<dyn Read + Send>,
        path: &Path,
        size: Option<u64>,
    ) -> Result<Self, RecordError> {
        let progress = Progress {
            read: Arc::default(),
            size,
        };
        let (first, content) =
            unpacked(raw, &progress).map_err(|source| unreadable(path, source))?;
        match detect(&first, path) {
            Some(format) => Ok(Self {
                path: path.to_owned(),
                format,
                progress,
                open: Some(content),
            }),
            None => Err(RecordError::Unknown {
                path: path.to_owned(),
                found: if first.is_empty() {
                    "it is empty".to_owned()
                } else {
                    let shown = &first[..first.len().min(16)];
                    format!("it begins with \"{}\"", shown.escape_ascii())
                },
            }),
        }
    }

    /// The name it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Its content from the first byte on, unpacked.
    ///
    /// # Errors
    /// When a file cannot be opened any more.
    pub fn into_content(mut self) -> Result<Box<dyn Read + Send>, RecordError> {
        self.content()
    }

    /// Its content from the first byte on; of a plain file, as often as asked for.
    pub(super) fn content(&mut self) -> Result<Box<dyn Read + Send>, RecordError> {
        if let Some(content) = self.open.take() {
            return Ok(content);
        }
        self.progress.read.store(0, Ordering::Relaxed);
        let content =
            File::open(&self.path).and_then(|file| unpacked(Box::new(file), &self.progress));
        match content {
            Ok((_, content)) => Ok(content),
            Err(source) => Err(unreadable(&self.path, source)),
        }
    }

    /// Whether [`Self::content`] can be had more than once.
    pub(crate) fn is_plain_file(&self) -> bool {
        self.open.is_none()
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }
}

fn unreadable(path: &Path, source: io::Error) -> RecordError {
    RecordError::Open {
        path: path.to_owned(),
        source,
    }
}

/// The first bytes, and everything, unpacked and counted.
fn unpacked(
    raw: Box<dyn Read + Send>,
    progress: &Progress,
) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let (first, raw) = peek(Box::new(Counted {
        raw,
        read: Arc::clone(&progress.read),
    }))?;
    if first.starts_with(&[0x1f, 0x8b]) {
        return peek(Box::new(MultiGzDecoder::new(BufReader::new(raw))));
    }
    Ok((first, raw))
}

/// How far a file was read.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    read: Arc<AtomicU64>,
    size: Option<u64>,
}

impl Progress {
    /// Bytes read, and bytes in all if that is known; before decompression.
    pub(super) fn get(&self) -> (u64, Option<u64>) {
        (self.read.load(Ordering::Relaxed), self.size)
    }
}

/// Counts what is read.
struct Counted {
    raw: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.raw.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// The first bytes, and a reader that gives them once more.
fn peek(mut reader: Box<dyn Read + Send>) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let mut first = Vec::with_capacity(PEEK as usize);
    // A file that breaks off this early is still shown as far as it goes: the error comes again at the next read.
    match reader.by_ref().take(PEEK).read_to_end(&mut first) {
        Err(error) if first.is_empty() => return Err(error),
        _ => {}
    }
    // A byte order mark belongs to no format.
    if first.starts_with(b"\xef\xbb\xbf") {
        first.drain(..3);
    }
    let again = Cursor::new(first.clone()).chain(reader);
    Ok((first, Box::new(again)))
}

/// Enough to tell every format.
const PEEK: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_not_read() {
        let file = b"\xef\xbb\xbf{\"method\":\"GET\"}\n";
        let input = Input::from_reader(Box::new(&file[..]), Path::new("a")).unwrap();
        assert_eq!(input.format(), Format::Jsonl);
        let mut content = Vec::new();
        let mut all = input.into_content().unwrap();
        all.read_to_end(&mut content).unwrap();
        assert_eq!(content, &file[3..]);
    }
}
