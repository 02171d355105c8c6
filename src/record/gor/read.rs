//! Splitting a `.gor` stream into records.

use std::io::Read;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::{memchr, memmem};

use super::{Kind, Record};
use crate::record::damage::Damage;
use crate::record::message::Growing;
use crate::time::Timestamp;

/// The records of a `.gor` stream, in file order.
///
/// A separator ends a record when the end of the file or a header line follows it, or when the message before it is whole; so a
/// body may hold the separator. A record that the end of the file cuts is damage, never a record.
pub struct Records<R> {
    input: R,
    buffer: BytesMut,
    /// Offset of `buffer` in the stream.
    offset: u64,
    ended: bool,
    /// Why reading ended early.
    trouble: Option<String>,
    /// Whether the next record may be long in coming.
    is_live: bool,
    separator: memmem::Finder<'static>,
}

impl<R: Read> Records<R> {
    /// Reads records from `input`, which is not compressed any more.
    pub fn new(input: R) -> Self {
        Self {
            input,
            buffer: BytesMut::new(),
            offset: 0,
            ended: false,
            trouble: None,
            is_live: false,
            separator: memmem::Finder::new(MONKEYS),
        }
    }

    /// Reads records from a connection: one whose message is whole is handed out without waiting for the next.
    pub fn live(input: R) -> Self {
        Self {
            is_live: true,
            ..Self::new(input)
        }
    }

    /// The next record, or the next piece of the stream that is none; `None` at the end.
    pub fn next_record(&mut self) -> Option<Result<Record, Damage>> {
        let (line_len, header_len) = loop {
            self.skip_line_breaks();
            // However much has come by now, no line longer than that is looked at.
            let line = &self.buffer[..self.buffer.len().min(MAX_HEADER)];
            match memchr(b'\n', line) {
                Some(line_feed) => break (line_feed, line_feed + 1),
                None if line.len() == MAX_HEADER => break (0, MAX_HEADER),
                None if self.fill() => {}
                None => return self.torn(),
            }
        };
        let Some(header) = parse_header(&self.buffer[..line_len]) else {
            let line = &self.buffer[..header_len - 1];
            let shown = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
            let damage = self.damage(format!("not a record header: {shown:?}; skipped"));
            self.skip_record();
            return Some(Err(damage));
        };
        let id = Bytes::copy_from_slice(header.id);
        let (kind, time, latency) = (header.kind, header.time, header.latency);
        let Some(end) = self.find_end(header_len, kind) else {
            if self.buffer.len() >= MAX_RECORD {
                let damage = self.damage(format!(
                    "a record longer than {} MiB; skipped",
                    MAX_RECORD >> 20
                ));
                self.skip_record();
                return Some(Err(damage));
            }
            return self.torn();
        };
        let offset = self.offset;
        self.consume(header_len);
        let payload = self.take_payload(end - header_len);
        self.consume(MONKEYS.len().min(self.buffer.len()));
        if self.buffer.first() == Some(&b'\n') {
            self.consume(1);
        }
        Some(Ok(Record {
            kind,
            id,
            time,
            latency,
            payload,
            offset,
        }))
    }

    /// A large payload is copied: the buffer has grown to twice its size, and would be kept as long as the record.
    fn take_payload(&mut self, length: usize) -> Bytes {
        if length < LARGE {
            self.offset += length as u64;
            return self.buffer.split_to(length).freeze();
        }
        let payload = Bytes::copy_from_slice(&self.buffer[..length]);
        self.consume(length);
        payload
    }

    /// Where the separator of the record at hand begins; `None` when the stream ends first or the record is too long.
    fn find_end(&mut self, payload: usize, kind: Kind) -> Option<usize> {
        let mut from = payload;
        let mut message = Growing::new(kind == Kind::Request);
        loop {
            let Some(at) = self.separator.find(&self.buffer[from..]) else {
                // The separator may have begun in the last bytes.
                from = from.max((self.buffer.len() + 1).saturating_sub(MONKEYS.len()));
                if self.buffer.len() >= MAX_RECORD || !self.fill() {
                    return None;
                }
                continue;
            };
            let at = from + at;
            if at + MONKEYS.len() > MAX_RECORD {
                return None;
            }
            if self.ends_record(payload, at, &mut message) {
                return Some(at);
            }
            from = at + 1;
        }
    }

    /// Whether the monkeys at `at` end the record whose payload begins at `payload` and is that `message`.
    ///
    /// [`is_end`] is the same for a record that is there as a whole.
    fn ends_record(&mut self, payload: usize, at: usize, message: &mut Growing) -> bool {
        let after = at + MONKEYS.len();
        let end = loop {
            if self.is_live && self.buffer.len() == after + 1 {
                let line_feed = self.buffer[after] == b'\n';
                if line_feed && !message.needs_more(&self.buffer[payload..at]) {
                    return true;
                }
            }
            match self.buffer.get(after) {
                Some(b'\n') => {
                    let line = &self.buffer[after + 1..];
                    let line = &line[..line.len().min(MAX_HEADER)];
                    match memchr(b'\n', line) {
                        Some(line_feed) => break after + 1 + line_feed,
                        None if line.len() == MAX_HEADER => break after + 1 + MAX_HEADER,
                        None => {}
                    }
                }
                Some(_) => return false,
                None => {}
            }
            if !self.fill() {
                break self.buffer.len();
            }
        };
        let next_line = self.buffer.get(after + 1..end).unwrap_or_default();
        if parse_header(next_line).is_some() {
            return true;
        }
        // At the end of the stream the next header may be cut, and with it the record that it began.
        if self.ended && end == self.buffer.len() {
            return next_line.first().is_none_or(u8::is_ascii_digit);
        }
        !message.needs_more(&self.buffer[payload..at])
    }

    /// What is left when the stream ends inside a record.
    fn torn(&mut self) -> Option<Result<Record, Damage>> {
        let trouble = self.trouble.take();
        if self.buffer.is_empty() {
            return trouble.map(|trouble| Err(self.damage(trouble)));
        }
        let what = format!(
            "the last record is cut ({} bytes of it are there); it is left out{}",
            self.buffer.len(),
            trouble.map(|it| format!(": {it}")).unwrap_or_default()
        );
        let damage = self.damage(what);
        self.consume(self.buffer.len());
        Some(Err(damage))
    }

    /// Skips to behind the next separator.
    fn skip_record(&mut self) {
        loop {
            if let Some(at) = self.separator.find(&self.buffer) {
                self.consume(at + MONKEYS.len());
                return;
            }
            let keep = MONKEYS.len() - 1;
            self.consume(self.buffer.len().saturating_sub(keep));
            if !self.fill() {
                self.consume(self.buffer.len());
                return;
            }
        }
    }

    fn skip_line_breaks(&mut self) {
        let breaks = self
            .buffer
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        self.consume(breaks);
    }

    fn consume(&mut self, count: usize) {
        self.buffer.advance(count);
        self.offset += count as u64;
    }

    fn damage(&self, what: String) -> Damage {
        Damage::at_offset(self.offset, what)
    }

    /// Reads more; `false` at the end of the stream.
    fn fill(&mut self) -> bool {
        while !self.ended {
            let len = self.buffer.len();
            self.buffer.resize(len + READ_SIZE, 0);
            let read = self.input.read(&mut self.buffer[len..]);
            self.buffer
                .truncate(len + read.as_ref().map_or(0, |&read| read));
            match read {
                Ok(0) => self.ended = true,
                Ok(_) => return true,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = true;
                    self.trouble = Some(format!("reading stopped: {error}"));
                }
            }
        }
        false
    }
}

/// Whether a reader takes the monkeys at `at` for the end of a record of that `message`, which is not the last.
pub(super) fn is_end(record: &[u8], at: usize, message: &mut Growing) -> bool {
    let Some(next_line) = record[at + MONKEYS.len()..].strip_prefix(b"\n") else {
        return false;
    };
    let next_line = &next_line[..next_line.len().min(MAX_HEADER)];
    let line_feed = memchr(b'\n', next_line).unwrap_or(next_line.len());
    parse_header(&next_line[..line_feed]).is_some() || !message.needs_more(&record[..at])
}

/// A header line.
pub(super) struct Header<'a> {
    pub(super) kind: Kind,
    pub(super) id: &'a [u8],
    pub(super) time: Timestamp,
    pub(super) latency: Option<Duration>,
}

/// Reads a header line without its line feed; the fourth field may be absent.
pub(super) fn parse_header(line: &[u8]) -> Option<Header<'_>> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut fields = line.split(|&byte| byte == b' ');
    let kind = match fields.next()? {
        b"1" => Kind::Request,
        b"2" => Kind::Response,
        b"3" => Kind::Replayed,
        _ => return None,
    };
    let id = fields.next().filter(|id| !id.is_empty())?;
    let nanos = number(fields.next()?)?;
    let latency = match fields.next() {
        Some(field) => Some(number(field)?),
        None => None,
    };
    Some(Header {
        kind,
        id,
        time: Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(0)),
        latency: latency
            .and_then(|nanos| u64::try_from(nanos).ok())
            .map(Duration::from_nanos),
    })
}

fn number(field: &[u8]) -> Option<i128> {
    let plain = field.strip_prefix(b"-").unwrap_or(field);
    if plain.is_empty() || plain.len() > 20 || !plain.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(field).ok()?.parse().ok()
}

/// The separator without its last line feed, which may be missing at the end of a file.
pub(super) const MONKEYS: &[u8] = "\n🐵🙈🙉".as_bytes();

/// Longest header line.
const MAX_HEADER: usize = 512;

/// Longest record, with its separator: room for the longest body that a capture keeps unless told otherwise, and its head.
pub(super) const MAX_RECORD: usize = 66 << 20;

const READ_SIZE: usize = 64 << 10;

/// A payload that is as long as this has a buffer of its own.
const LARGE: usize = 64 << 10;
