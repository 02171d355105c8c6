//! Bytes of a file, as many at a time as a record needs.

use std::io::{self, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::gunzip::Gunzip;

/// A buffer in front of a reader.
///
/// Invariant: `start <= end <= buffer.len()`; `buffer[start..end]` was read and not yet taken.
pub(super) struct Input {
    reader: Box<dyn Read + Send>,
    gzipped: bool,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// How many bytes were taken.
    offset: u64,
}

/// Why bytes cannot be had.
pub(super) enum Trouble {
    /// The system failed.
    Io(io::Error),
    /// The compressed data contradicts itself.
    Gzip(String),
    /// The compressed data ends before it says that it does.
    GzipCut,
}

impl Input {
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        Self {
            reader,
            gzipped: false,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            offset: 0,
        }
    }

    /// The same bytes, decompressed from the first on.
    pub(super) fn gunzip(self) -> Self {
        let first = self.buffered().to_vec();
        let compressed = BufReader::with_capacity(BUFFER, Cursor::new(first).chain(self.reader));
        Self {
            gzipped: true,
            ..Self::new(Box::new(Gunzip::new(compressed)))
        }
    }

    /// Where the next byte is in the file, after decompression.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What was read and not yet taken.
    #[inline]
    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Reads until at least `n` bytes are buffered; fewer mean that the file has no more.
    #[inline]
    pub(super) fn fill(&mut self, n: usize) -> Result<&[u8], Trouble> {
        if self.end - self.start < n {
            self.read_more(n)?;
        }
        Ok(self.buffered())
    }

    /// Takes the first `n` buffered bytes off.
    #[inline]
    pub(super) fn take(&mut self, n: usize) -> &[u8] {
        let from = self.start;
        self.start = (from + n).min(self.end);
        self.offset += (self.start - from) as u64;
        &self.buffer[from..self.start]
    }

    #[cold]
    fn read_more(&mut self, n: usize) -> Result<(), Trouble> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < n {
            if self.end == self.buffer.len() {
                // Grows with what is really there, not with what a damaged length promises.
                let double = self.buffer.len() * 2;
                self.buffer
                    .resize(double.min(n.next_multiple_of(BUFFER)), 0);
            }
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(match error.kind() {
                        io::ErrorKind::InvalidData if self.gzipped => {
                            Trouble::Gzip(error.to_string())
                        }
                        io::ErrorKind::UnexpectedEof if self.gzipped => Trouble::GzipCut,
                        _ => Trouble::Io(error),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Counts what passes.
pub(super) struct Counted {
    reader: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Counted {
    pub(super) fn new(reader: Box<dyn Read + Send>, count: Arc<AtomicU64>) -> Self {
        Self { reader, count }
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

const BUFFER: usize = 256 * 1024;
