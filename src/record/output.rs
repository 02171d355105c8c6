//! The file behind a recording: created with care, written in whole records, readable whatever happens.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::RecordError;

/// A file, or the standard output, that takes whole records.
///
/// Records are collected and written together. When a write fails, a plain file is cut back to the end of the last record that
/// fitted; of a gzipped one, everything up to the last flush can be unpacked.
pub(super) struct Output {
    path: PathBuf,
    sink: Sink,
    /// Records that are not written yet.
    pending: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    /// How much of `pending` is the beginning of the file, which belongs to no record.
    preamble: usize,
    /// What closes the file; written at every flush, and over again by the next records.
    footer: &'static [u8],
    /// Records given to a compressor or a stream, which may not have brought them to the file yet.
    under_way: u64,
    /// When everything was last brought to the file.
    flushed: Instant,
    /// When it was created.
    created: Instant,
    /// How many bytes it may become.
    limit: u64,
    /// Whether it has a record.
    is_begun: bool,
    /// What others did to the file, found when it was last flushed.
    disturbed: Option<Disturbed>,
    failed: Option<(io::ErrorKind, String)>,
}

/// What others did to a file that is being written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Disturbed {
    /// It was removed or renamed.
    Gone,
    /// Another file has its name now.
    Replaced,
    /// It is shorter than what was written.
    Cut,
}

/// What became of a record that was offered.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// There was none.
    Nothing,
    /// It will be written.
    Record,
    /// With it, the file would become larger than it may.
    Full(Vec<u8>),
}

enum Sink {
    File {
        file: File,
        /// Bytes of whole records in it.
        written: u64,
        /// Whether what the file held before is still to be thrown away.
        truncate: bool,
        is_regular: bool,
    },
    Gzip {
        encoder: GzEncoder<Fresh>,
        /// Bytes given to the compressor since everything was last brought to the file.
        inside: u64,
    },
    Stream(io::Stdout),
}

/// A file whose old content goes with the first write.
struct Fresh {
    file: File,
    truncate: bool,
    written: u64,
}

impl Write for Fresh {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.truncate) {
            self.file.set_len(0)?;
        }
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// How many records a write has brought to the file, or has lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Progress {
    pub(super) written: u64,
    pub(super) lost: u64,
}

impl Output {
    /// Creates the file; one that exists is refused without `force`, and with it keeps its content until the first write.
    ///
    /// Devices and pipes have no content to lose.
    pub(super) fn create(
        path: &Path,
        force: bool,
        gzip: bool,
        footer: &'static [u8],
    ) -> Result<Self, RecordError> {
        let refused = |source: io::Error| {
            let path = path.to_owned();
            if source.kind() == io::ErrorKind::AlreadyExists {
                RecordError::Exists { path }
            } else {
                RecordError::Create { path, source }
            }
        };
        let is_special = path
            .metadata()
            .is_ok_and(|it| !it.is_file() && !it.is_dir());
        let mut options = OpenOptions::new();
        options.write(true);
        if force || is_special {
            options.create(true).truncate(false);
        } else {
            options.create_new(true);
        }
        let file = options.open(path).map_err(refused)?;
        let is_regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let sink = if gzip {
            let file = Fresh {
                file,
                truncate: is_regular,
                written: 0,
            };
            Sink::Gzip {
                encoder: GzEncoder::new(file, Compression::fast()),
                inside: 0,
            }
        } else {
            Sink::File {
                file,
                written: 0,
                truncate: is_regular,
                is_regular,
            }
        };
        Ok(Self::new(path, sink, footer))
    }

    /// The standard output.
    pub(super) fn stdout() -> Self {
        Self::new(Path::new("-"), Sink::Stream(io::stdout()), b"")
    }

    fn new(path: &Path, sink: Sink, footer: &'static [u8]) -> Self {
        Self {
            path: path.to_owned(),
            sink,
            pending: Vec::with_capacity(BATCH + 4096),
            ends: Vec::new(),
            preamble: 0,
            footer,
            under_way: 0,
            flushed: Instant::now(),
            created: Instant::now(),
            limit: u64::MAX,
            is_begun: false,
            disturbed: None,
            failed: None,
        }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the file become no larger than so many bytes.
    pub(super) fn limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Whether it has a record.
    pub(super) const fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// How long the file has been open.
    pub(super) fn age(&self) -> Duration {
        self.created.elapsed()
    }

    /// What others did to the file, found when it was last flushed. It is told once.
    pub(super) fn disturbed(&mut self) -> Option<Disturbed> {
        self.disturbed.take()
    }

    /// The most bytes that the file has when everything taken so far is in it and it is closed.
    pub(super) fn size(&self) -> u64 {
        let pending = (self.pending.len() + self.footer.len()) as u64;
        match &self.sink {
            Sink::File { written, .. } => written + pending,
            Sink::Gzip { encoder, inside } => {
                let inside = inside + pending;
                let whole = encoder.get_ref().written;
                // What cannot be compressed is stored, in blocks with a few bytes of their own.
                let overhead = if inside == 0 { 64 } else { inside / 64 + 512 };
                whole + inside + overhead
            }
            Sink::Stream(_) => 0,
        }
    }

    /// The bytes in the file now.
    pub(super) fn written(&self) -> u64 {
        match &self.sink {
            Sink::File { written, .. } => written + self.footer.len() as u64,
            Sink::Gzip { encoder, .. } => encoder.get_ref().written,
            Sink::Stream(_) => 0,
        }
    }

    /// Takes what begins the file, before the first record.
    pub(super) fn preamble(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        self.preamble = self.pending.len();
    }

    /// Takes a record, whole when `append` returns true, and writes when enough have come or time has passed.
    ///
    /// The result is of the writing.
    pub(super) fn record(
        &mut self,
        append: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> (Taken, Progress, Result<(), RecordError>) {
        if self.failed.is_some() {
            let lost = Progress {
                written: 0,
                lost: 1,
            };
            return (Taken::Record, lost, Err(self.failure()));
        }
        let start = self.pending.len();
        if !append(&mut self.pending) {
            self.pending.truncate(start);
            return (Taken::Nothing, Progress::default(), Ok(()));
        }
        if self.size() > self.limit {
            let record = self.pending.split_off(start);
            return self.near_the_limit(record);
        }
        let (progress, result) = self.taken();
        (Taken::Record, progress, result)
    }

    /// A record with which the file may become too large: that of a compressed one is not known before it is written.
    fn near_the_limit(&mut self, record: Vec<u8>) -> (Taken, Progress, Result<(), RecordError>) {
        let mut progress = Progress::default();
        if let Sink::Gzip { encoder, .. } = &self.sink {
            let left = self.limit.saturating_sub(encoder.get_ref().written);
            if left > record.len() as u64 + NOT_WORTH_IT {
                let (flushed, result) = self.flush();
                progress = flushed;
                if let Err(error) = result {
                    progress.lost += 1;
                    return (Taken::Record, progress, Err(error));
                }
            }
        }
        let start = self.pending.len();
        self.pending.extend_from_slice(&record);
        if self.size() > self.limit {
            self.pending.truncate(start);
            return (Taken::Full(record), progress, Ok(()));
        }
        let (more, result) = self.taken();
        progress.written += more.written;
        progress.lost += more.lost;
        (Taken::Record, progress, result)
    }

    /// Counts what was appended as a record, and writes when that is due.
    fn taken(&mut self) -> (Progress, Result<(), RecordError>) {
        self.is_begun = true;
        self.ends.push(self.pending.len());
        if self.flushed.elapsed() >= FLUSH_AFTER {
            self.flush()
        } else if self.pending.len() >= BATCH {
            match self.look() {
                Some(Disturbed::Cut) => self.flush(),
                _ => self.write_out(),
            }
        } else {
            (Progress::default(), Ok(()))
        }
    }

    /// Brings everything taken so far to the file, in a form that can be read now.
    pub(super) fn flush(&mut self) -> (Progress, Result<(), RecordError>) {
        // Before more is written: that would fill the place of what somebody cut off.
        self.disturbed = self.look();
        if self.disturbed == Some(Disturbed::Cut) {
            // Whoever goes on begins the file anew, and what is written now would go with the rest.
            return (self.give_up(), Ok(()));
        }
        let (mut progress, result) = self.write_out();
        self.flushed = Instant::now();
        let result = result.and_then(|()| {
            let flushed = match &mut self.sink {
                Sink::File { file, .. } => close_for_now(file, self.footer),
                // A sync flush: everything so far can be unpacked.
                Sink::Gzip { encoder, inside } => encoder.flush().inspect(|()| *inside = 0),
                Sink::Stream(stream) => stream.flush(),
            };
            flushed.map_err(|error| self.fail(&error))
        });
        let under_way = std::mem::take(&mut self.under_way);
        match result {
            Ok(()) => progress.written += under_way,
            Err(_) => progress.lost += under_way,
        }
        (progress, result)
    }

    /// Lets go of what was taken and is not in the file yet.
    fn give_up(&mut self) -> Progress {
        let lost = self.ends.len() as u64 + std::mem::take(&mut self.under_way);
        self.pending.clear();
        self.ends.clear();
        self.preamble = 0;
        Progress { written: 0, lost }
    }

    /// What others did to the file.
    fn look(&self) -> Option<Disturbed> {
        let (file, written) = match &self.sink {
            Sink::File {
                file,
                written,
                is_regular: true,
                ..
            } => (file, *written),
            Sink::Gzip { encoder, .. } => (&encoder.get_ref().file, encoder.get_ref().written),
            _ => return None,
        };
        let own = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        if own.len() < written {
            return Some(Disturbed::Cut);
        }
        match self.path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Disturbed::Gone),
            Ok(named) if (named.dev(), named.ino()) != (own.dev(), own.ino()) => {
                Some(Disturbed::Replaced)
            }
            _ => None,
        }
    }

    /// Flushes and closes; nothing more is to be taken.
    pub(super) fn finish(&mut self) -> (Progress, Result<(), RecordError>) {
        let (progress, result) = self.flush();
        let result = result.and_then(|()| {
            let Sink::Gzip { encoder, .. } = &mut self.sink else {
                return Ok(());
            };
            let finished = encoder
                .write_all(self.footer)
                .and_then(|()| encoder.try_finish())
                .and_then(|()| encoder.get_mut().flush());
            finished.map_err(|error| self.fail(&error))
        });
        (progress, result)
    }

    /// Writes the records taken so far, without making them durable.
    fn write_out(&mut self) -> (Progress, Result<(), RecordError>) {
        if self.failed.is_some() {
            let under_way = std::mem::take(&mut self.under_way);
            let lost = self.give_up();
            self.under_way = under_way;
            return (lost, Err(self.failure()));
        }
        let count = self.ends.len() as u64;
        let mut reached = 0;
        let result = match &mut self.sink {
            Sink::File {
                file,
                written,
                truncate,
                is_regular,
            } => {
                let mut result = if std::mem::take(truncate) {
                    file.set_len(0)
                } else {
                    Ok(())
                };
                if result.is_ok() {
                    (reached, result) = write_counted(file, &self.pending);
                }
                if result.is_err() {
                    reached = whole_records(self.preamble, &self.ends, reached);
                    if *is_regular {
                        // Best effort: on failure the tail stays torn, which readers report and survive.
                        let end = *written + reached as u64;
                        let footer: &[u8] = if end == 0 { b"" } else { self.footer };
                        let _ = file
                            .set_len(end)
                            .and_then(|()| file.seek(SeekFrom::Start(end)))
                            .and_then(|_| file.write_all(footer));
                    }
                }
                *written += reached as u64;
                result
            }
            Sink::Gzip { encoder, inside } => {
                *inside += self.pending.len() as u64;
                encoder.write_all(&self.pending)
            }
            Sink::Stream(stream) => stream.write_all(&self.pending),
        };
        let progress = match &result {
            Ok(()) if !matches!(self.sink, Sink::File { .. }) => {
                self.under_way += count;
                Progress::default()
            }
            Ok(()) => Progress {
                written: count,
                lost: 0,
            },
            Err(_) => {
                let written = self.ends.iter().filter(|&&end| end <= reached).count() as u64;
                Progress {
                    written,
                    lost: count - written,
                }
            }
        };
        self.pending.clear();
        self.ends.clear();
        self.preamble = 0;
        (progress, result.map_err(|error| self.fail(&error)))
    }

    fn fail(&mut self, error: &io::Error) -> RecordError {
        self.failed = Some((error.kind(), error.to_string()));
        self.failure()
    }

    fn failure(&self) -> RecordError {
        let (kind, text) = self
            .failed
            .clone()
            .unwrap_or((io::ErrorKind::Other, String::new()));
        RecordError::Write {
            path: self.path.clone(),
            source: io::Error::new(kind, text),
        }
    }
}

/// Writes a footer and goes back to before it.
fn close_for_now(file: &mut File, footer: &[u8]) -> io::Result<()> {
    if footer.is_empty() {
        return Ok(());
    }
    file.write_all(footer)?;
    match i64::try_from(footer.len()) {
        Ok(len) => file.seek(SeekFrom::Current(-len)).map(|_| ()),
        Err(_) => Ok(()),
    }
}

/// Writes all of `bytes`; tells how many were written when not all were.
fn write_counted(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut at = 0;
    while at < bytes.len() {
        match file.write(&bytes[at..]) {
            Ok(0) => return (at, Err(io::ErrorKind::WriteZero.into())),
            Ok(written) => at += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (at, Err(error)),
        }
    }
    (at, Ok(()))
}

/// How far the last record reaches that lies within `reached` bytes.
fn whole_records(preamble: usize, ends: &[usize], reached: usize) -> usize {
    let ends = std::iter::once(&preamble).chain(ends);
    ends.copied()
        .take_while(|&end| end <= reached)
        .last()
        .unwrap_or(0)
}

/// Records are in the file, in a form that can be read, when one comes this long after the last flush.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// Bytes that are written together.
const BATCH: usize = 64 << 10;

/// With less room than this behind a record, a compressed file is full.
const NOT_WORTH_IT: u64 = 4 << 10;
