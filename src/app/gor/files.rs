//! `--output-file`: records in files whose names tell the time, in chunks.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use ahash::AHashMap;
use anyhow::bail;
use chrono::{Datelike as _, Local, Timelike as _};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::deliver::file_error;
use super::seed;
use crate::account::{Account, Counter, Reason};
use crate::cli::gor::FileOutput;
use crate::goreplay::{Chunks, Moment, Template, index_of, with_index};
use crate::record::gor::{Kind, Record};

pub(super) struct FileWriter {
    config: FileOutput,
    template: Template,
    current: Option<Open>,
    /// The number of the chunk of each name that this run has written to.
    known: AHashMap<String, u64>,
    /// Bytes in all chunks.
    total: u64,
    flushed: Instant,
    /// Nothing more can be written.
    failed: bool,
}

struct Open {
    /// The name that the template gave.
    name: String,
    path: PathBuf,
    sink: Sink,
    chunk: Chunks,
}

enum Sink {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl Sink {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut file) => file.flush(),
            Self::Gzip(encoder) => encoder.finish()?.flush(),
        }
    }
}

impl FileWriter {
    pub(super) fn new(config: &FileOutput) -> Self {
        const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
        let mut number = seed();
        let instance: String = (0..8)
            .map(|_| {
                let letter = LETTERS[usize::try_from(number % 26).unwrap_or(0)];
                number /= 26;
                char::from(letter)
            })
            .collect();
        Self {
            template: Template::new(&config.template, &instance),
            config: config.clone(),
            current: None,
            known: AHashMap::new(),
            total: 0,
            flushed: Instant::now(),
            failed: false,
        }
    }

    /// Writes a record to the file whose turn it is.
    pub(super) fn write(&mut self, record: &Record, account: &mut Account) -> anyhow::Result<()> {
        let mut bytes = Vec::with_capacity(record.payload.len() + 96);
        if !record.append(&mut bytes) {
            account.drop(Reason::RecordIncomplete);
            return Ok(());
        }
        let written = if self.failed {
            Err(None)
        } else {
            self.write_bytes(record, &bytes).map_err(Some)
        };
        match written {
            Ok(()) => account.count(Counter::RecordsWritten),
            Err(error) => {
                self.failed = true;
                account.drop(Reason::WriteFailed);
                if let Some(error) = error {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn write_bytes(&mut self, record: &Record, bytes: &[u8]) -> anyhow::Result<()> {
        if self.total >= self.config.max_size {
            bail!(
                "--output-file: {} bytes are written, as many as --output-file-max-size-limit allows",
                self.total
            );
        }
        let kind = match record.kind {
            Kind::Request => 1,
            Kind::Response => 2,
            Kind::Replayed => 3,
        };
        let name = self.template.name(&now(), &record.id, kind);
        self.turn_to(name)?;
        if let Some(open) = &mut self.current {
            open.sink
                .write_all(bytes)
                .map_err(|error| file_error(&open.path, "writing", &error))?;
            open.chunk.add(bytes.len() as u64);
        }
        self.total += bytes.len() as u64;
        Ok(())
    }

    /// Makes the file of that name the one that is written to.
    fn turn_to(&mut self, name: String) -> anyhow::Result<()> {
        let (records, bytes) = (self.config.queue_limit, self.config.size_limit);
        let is_same = self.current.as_ref().is_some_and(|open| open.name == name);
        let is_full = self
            .current
            .as_ref()
            .is_some_and(|open| !self.config.append && open.chunk.is_full(records, bytes));
        if is_same && !is_full {
            return Ok(());
        }
        if let Some(open) = self.current.take() {
            open.sink
                .finish()
                .map_err(|error| file_error(&open.path, "writing", &error))?;
        }
        let path = if self.config.append {
            PathBuf::from(&name)
        } else {
            let index = match self.known.get(&name) {
                Some(&index) if is_same => index + 1,
                Some(&index) => index,
                None => next_index(Path::new(&name))
                    .map_err(|error| file_error(Path::new(&name), "looking for chunks", &error))?,
            };
            if self.known.len() >= MOST_KNOWN {
                self.known.clear();
            }
            self.known.insert(name.clone(), index);
            with_index(Path::new(&name), index)
        };
        // Whatever is in it stays.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|error| file_error(&path, "cannot open the file", &error))?;
        let file = BufWriter::with_capacity(BUFFER, file);
        let sink = if self.template.is_gzipped() {
            Sink::Gzip(GzEncoder::new(file, Compression::default()))
        } else {
            Sink::Plain(file)
        };
        self.current = Some(Open {
            name,
            path,
            sink,
            chunk: Chunks::default(),
        });
        Ok(())
    }

    /// Brings everything to the file, as often as is asked for.
    pub(super) fn flush_if_due(&mut self) -> anyhow::Result<()> {
        if self.flushed.elapsed() < self.config.flush || self.failed {
            return Ok(());
        }
        self.flushed = Instant::now();
        let Some(open) = &mut self.current else {
            return Ok(());
        };
        let flushed = open.sink.flush();
        flushed.map_err(|error| file_error(&open.path, "writing", &error))?;
        // The bound is one on what lies on the disk, and that is less where it is packed.
        if let (Sink::Gzip(_), Ok(file)) = (&open.sink, std::fs::metadata(&open.path)) {
            open.chunk.measured(file.len());
        }
        Ok(())
    }

    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.current {
            Some(open) => open
                .sink
                .finish()
                .map_err(|error| file_error(&open.path, "writing", &error)),
            None => Ok(()),
        }
    }
}

/// The number behind that of the last chunk that is there.
fn next_index(name: &Path) -> io::Result<u64> {
    let folder = match name.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Some(file) = name.file_name().map(Path::new) else {
        return Ok(0);
    };
    let mut next = 0;
    for entry in folder.read_dir()? {
        let there = entry?.file_name();
        if let Some(index) = index_of(Path::new(&there))
            && with_index(file, index) == Path::new(&there)
        {
            next = next.max(index + 1);
        }
    }
    Ok(next)
}

fn now() -> Moment {
    let now = Local::now();
    Moment {
        year: now.year(),
        month: now.month(),
        day: now.day(),
        hour: now.hour(),
        minute: now.minute(),
        second: now.second(),
        nanosecond: now.nanosecond() % 1_000_000_000,
    }
}

/// Names whose chunk is remembered.
const MOST_KNOWN: usize = 10_000;

/// Bytes that are written together.
const BUFFER: usize = 64 << 10;
