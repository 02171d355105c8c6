//! Writing recordings.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use super::output::{Disturbed, Output, Progress, Taken};
use super::pcap::{self, Synthesis};
use super::rotate::{Files, Rotation};
use super::{Format, RecordError, gor, har, jsonl};
use crate::account::{Account, Counter, Reason};
use crate::exchange::{Exchange, Request};
use crate::time::Timestamp;
use crate::wire::{LinkType, Packet};

/// How to create a recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Replace a file that exists.
    pub force: bool,
    /// The format, when the name does not say it (the standard output: `.jsonl` unless told).
    pub format: Option<Format>,
    /// The snap length that a `.pcap` file names; 0 is the longest that readers take, 262144.
    pub snap_length: u32,
    /// When it goes on in another file, and how large it may become. Not for the standard output.
    pub rotation: Rotation,
}

/// Writes one recording.
///
/// Exchanges or messages that were offered end in exactly one of `records_written` and a reason of the record stage.
pub struct Writer {
    output: Output,
    format: Writing,
    rotation: Rotation,
    /// Where there is more than one.
    files: Option<Files>,
    gzip: bool,
    account: Account,
}

/// A format that is being written.
enum Writing {
    Pcap {
        /// The link type of the file, told by the first packet.
        link: Option<LinkType>,
        /// Whether it gets captured packets, rather than made-up ones for messages.
        captured: bool,
        snap_length: u32,
        synthesis: Synthesis,
    },
    Gor {
        orphans: u32,
    },
    Jsonl,
    Har {
        /// Bytes of it so far.
        size: usize,
        empty: bool,
    },
}

impl Writer {
    /// Creates the file at `path`, in the format that its name says; `-` is the standard output.
    ///
    /// # Errors
    /// When the name says no format, the file exists and `force` is not given, or it cannot be created.
    pub fn create(path: &Path, options: Options) -> Result<Self, RecordError> {
        let is_stdout = path.as_os_str() == "-";
        let named = Format::of_name(path);
        let format = match options.format.or(named.map(|(format, _)| format)) {
            Some(Format::PcapNg) | None if !is_stdout => {
                return Err(RecordError::NoFormat {
                    path: path.to_owned(),
                });
            }
            Some(format) => format,
            None => Format::Jsonl,
        };
        let gzip = named.is_some_and(|(_, gzip)| gzip)
            || path
                .extension()
                .is_some_and(|it| it.eq_ignore_ascii_case("gz"));
        let mut files = None;
        let output = if is_stdout {
            if !matches!(format, Format::Gor | Format::Jsonl) {
                return Err(RecordError::NotAStream { format });
            }
            Output::stdout()
        } else if options.rotation.is_rotating() {
            let files = files.insert(Files::new(path, options.rotation)?);
            Output::create(&files.next(0)?, false, gzip, footer(format))?
        } else {
            Output::create(path, options.force, gzip, footer(format))?
        };
        let format = match format {
            Format::Pcap | Format::PcapNg => Writing::Pcap {
                link: None,
                captured: false,
                snap_length: match options.snap_length {
                    0 => pcap::MAX_SNAP_LENGTH,
                    length => length,
                },
                synthesis: Synthesis::default(),
            },
            Format::Gor => Writing::Gor { orphans: 0 },
            Format::Jsonl => Writing::Jsonl,
            Format::Har => Writing::Har {
                size: 0,
                empty: true,
            },
        };
        let mut writer = Self {
            output,
            format,
            rotation: options.rotation,
            files,
            gzip,
            account: Account::new(),
        };
        writer.begin_file();
        Ok(writer)
    }

    /// Writes what comes before the first record of a file.
    fn begin_file(&mut self) {
        self.output.limit(self.rotation.limit());
        match &mut self.format {
            Writing::Pcap {
                link: Some(link),
                snap_length,
                ..
            } => self
                .output
                .preamble(&pcap::file_header(*link, *snap_length)),
            Writing::Har { size, empty } => {
                let header = har::header();
                self.output.preamble(&header);
                (*size, *empty) = (header.len() + har::FOOTER.len(), true);
            }
            Writing::Pcap { link: None, .. } | Writing::Gor { .. } | Writing::Jsonl => {}
        }
    }

    /// Refuses to write to a file that is to be read as well, whatever names lead to it, standard input (`-`) too: it would be
    /// lost.
    ///
    /// # Errors
    /// When `path` is one of `inputs`.
    pub fn check_apart(path: &Path, inputs: &[PathBuf]) -> Result<(), RecordError> {
        // Devices and pipes can be both; what is not there yet is none of them.
        let identity = |path: &Path| {
            let file = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some((file.dev(), file.ino()))
        };
        let Some(own) = identity(path) else {
            return Ok(());
        };
        let is_own = |input: &PathBuf| {
            let input = if input.as_os_str() == "-" {
                Path::new("/dev/stdin")
            } else {
                input
            };
            identity(input) == Some(own)
        };
        if inputs.iter().any(is_own) {
            return Err(RecordError::IsInput {
                path: path.to_owned(),
            });
        }
        Ok(())
    }

    /// The file that is being written.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.output.path()
    }

    /// What it writes.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self.format {
            Writing::Pcap { .. } => Format::Pcap,
            Writing::Gor { .. } => Format::Gor,
            Writing::Jsonl => Format::Jsonl,
            Writing::Har { .. } => Format::Har,
        }
    }

    /// Records an exchange: as messages in `.gor`, as made-up packets in `.pcap`.
    ///
    /// Of a message that is not whole, `.gor`, `.har` and `.pcap` cannot say so: it is left out and counted.
    ///
    /// # Errors
    /// When writing failed, now or before.
    pub fn exchange(&mut self, exchange: &Exchange) -> Result<(), RecordError> {
        match &mut self.format {
            Writing::Gor { .. } => return self.gor_exchange(exchange),
            Writing::Pcap { .. } => return self.pcap_exchange(exchange),
            Writing::Jsonl => {}
            Writing::Har { .. } => {
                self.account.count(Counter::RecordsOffered);
                return self.har_entry(exchange);
            }
        }
        self.record(|out| {
            jsonl::append_exchange(out, exchange, jsonl::Detail::Recording);
            true
        })
    }

    /// Records the answer of a target to `request`, which is in the recording too. Only `.gor` can hold it; others count nothing.
    ///
    /// # Errors
    /// When writing failed, now or before.
    pub fn replayed(
        &mut self,
        request: &Request,
        sent: Timestamp,
        latency: Duration,
        head: &[u8],
        body: &[u8],
    ) -> Result<(), RecordError> {
        if !matches!(self.format, Writing::Gor { .. }) {
            return Ok(());
        }
        let id = gor::id(request.endpoints, gor::exchange_part(request.id));
        self.record(|out| {
            gor::append_record(out, gor::Kind::Replayed, &id, sent, latency, [head, body])
        })
    }

    /// Records a captured packet in a `.pcap` file, as a record of its own; others hold none and take none.
    ///
    /// # Errors
    /// When writing failed, or the packet's link type is not that of the packets before.
    pub fn packet(&mut self, packet: &Packet<'_>) -> Result<(), RecordError> {
        let Writing::Pcap { captured, .. } = &mut self.format else {
            return Ok(());
        };
        *captured = true;
        self.account.count(Counter::RecordsOffered);
        let result = self.write_packet(packet);
        if let Err(RecordError::LinkTypes { .. }) = &result {
            self.account.drop(Reason::WriteFailed);
        }
        result
    }

    fn write_packet(&mut self, packet: &Packet<'_>) -> Result<(), RecordError> {
        let Writing::Pcap {
            link, snap_length, ..
        } = &mut self.format
        else {
            return Ok(());
        };
        match *link {
            None => {
                *link = Some(packet.link);
                let header = pcap::file_header(packet.link, *snap_length);
                self.output.preamble(&header);
            }
            Some(link) if link != packet.link => {
                return Err(RecordError::LinkTypes {
                    path: self.output.path().to_owned(),
                });
            }
            Some(_) => {}
        }
        let (_, result) = self.put(|out| {
            pcap::append_packet(out, packet);
            true
        });
        result
    }

    /// Closes the file and begins the next one if it has been open for as long as files are to be.
    ///
    /// # Errors
    /// When writing failed, now or before.
    pub fn turn_if_due(&mut self) -> Result<(), RecordError> {
        if let Some(disturbed) = self.output.disturbed() {
            return self.go_on(disturbed);
        }
        match self.rotation.every {
            Some(every) if self.output.is_begun() && self.output.age() >= every => self.turn(0),
            _ => Ok(()),
        }
    }

    /// Goes on after somebody did something to the file.
    fn go_on(&mut self, disturbed: Disturbed) -> Result<(), RecordError> {
        let path = self.output.path().to_owned();
        let file = path.display();
        match disturbed {
            Disturbed::Gone => {
                warn!(%file, "the recording was removed or renamed; it goes on in a new file");
            }
            Disturbed::Cut => {
                warn!(%file, "somebody cut the recording short; what was in it is lost, and it begins anew");
            }
            Disturbed::Replaced if self.files.is_none() => {
                warn!(%file, "another file has the name of the recording now; it goes on in the old one, wherever that is");
                return Ok(());
            }
            Disturbed::Replaced => {
                warn!(%file, "another file has the name of the recording now; it goes on in the next one");
            }
        }
        self.close()?;
        let path = match &mut self.files {
            Some(files) => files.next(0)?,
            None => path,
        };
        let force = disturbed == Disturbed::Cut && self.files.is_none();
        self.open(&path, force)
    }

    /// Closes the file and begins the next one, in which `needed` bytes must find room.
    fn turn(&mut self, needed: u64) -> Result<(), RecordError> {
        self.close()?;
        let (path, size) = (self.output.path().to_owned(), self.output.written());
        let Some(files) = &mut self.files else {
            return Ok(());
        };
        files.closed(path, size);
        let next = files.next(needed)?;
        self.open(&next, false)
    }

    fn close(&mut self) -> Result<(), RecordError> {
        let (progress, result) = self.output.finish();
        self.count(progress);
        result
    }

    fn open(&mut self, path: &Path, force: bool) -> Result<(), RecordError> {
        self.output = Output::create(path, force, self.gzip, footer(self.format()))?;
        self.begin_file();
        Ok(())
    }

    /// Puts a record that does not fit into the file where it fits.
    fn put_elsewhere(&mut self, mut record: Vec<u8>) -> Result<(), RecordError> {
        if self.files.is_none() {
            self.lose(Reason::RecordingFull);
            return Err(RecordError::Full {
                path: self.output.path().to_owned(),
                size: self.rotation.limit(),
            });
        }
        if let Writing::Har { empty: false, .. } = &self.format {
            record.remove(0); // the comma
        }
        // With what is around it in a file.
        let needed = record.len() as u64 + record.len() as u64 / 64 + 1024;
        if self.rotation.max.is_some_and(|max| needed > max) {
            self.lose(Reason::RecordingFull);
            return Ok(());
        }
        if self.output.is_begun()
            && let Err(error) = self.turn(needed)
        {
            self.lose(Reason::WriteFailed);
            return Err(error);
        }
        self.output.limit(self.rotation.limit().max(needed));
        let (taken, progress, result) = self.output.record(|out| {
            out.append(&mut record);
            true
        });
        self.output.limit(self.rotation.limit());
        debug_assert_eq!(taken, Taken::Record, "there is room for {needed} bytes");
        self.count(progress);
        result
    }

    /// Offers bytes to the file, or to the next one if they do not fit, and tells whether `append` had any.
    fn put(
        &mut self,
        append: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> (bool, Result<(), RecordError>) {
        if let Err(error) = self.turn_if_due() {
            self.lose(Reason::WriteFailed);
            return (true, Err(error));
        }
        self.put_now(append)
    }

    /// The same, without a look at the clock and at the file.
    fn put_now(
        &mut self,
        append: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> (bool, Result<(), RecordError>) {
        let (taken, progress, result) = self.output.record(append);
        self.count(progress);
        match taken {
            Taken::Nothing => (false, result),
            Taken::Record => (true, result),
            Taken::Full(record) => (true, result.and_then(|()| self.put_elsewhere(record))),
        }
    }

    /// Counts a record, unless it is a packet that was made up for a message.
    fn lose(&mut self, reason: Reason) {
        if !made_up(&self.format) {
            self.account.drop(reason);
        }
    }

    /// Brings everything to the file, in a form that can be read now.
    ///
    /// # Errors
    /// When writing failed, now or before.
    pub fn flush(&mut self) -> Result<(), RecordError> {
        let (progress, result) = self.output.flush();
        self.count(progress);
        result
    }

    /// Counts a record that was not to be written.
    pub fn leave_out(&mut self, reason: Reason) {
        self.account.count(Counter::RecordsOffered);
        self.account.drop(reason);
    }

    /// Closes the recording, and gives the account of its records.
    pub fn finish(mut self) -> (Account, Result<(), RecordError>) {
        let ended = self.end_connections();
        let Self {
            mut output,
            format: writing,
            mut account,
            ..
        } = self;
        if let Writing::Pcap {
            link: None,
            snap_length,
            ..
        } = &writing
        {
            output.preamble(&pcap::file_header(pcap::ETHERNET, *snap_length));
        }
        let (progress, result) = output.finish();
        if output.disturbed() == Some(Disturbed::Gone) {
            let file = output.path().display();
            warn!(%file, "the recording was removed or renamed while it was written");
        }
        count(&mut account, progress, &writing);
        (account, ended.and(result))
    }

    /// What happened to the records so far; those that still wait to be written are offered, and not yet written.
    #[must_use]
    pub const fn account(&self) -> &Account {
        &self.account
    }

    fn har_entry(&mut self, exchange: &Exchange) -> Result<(), RecordError> {
        // Before it is known whether this is the first entry of its file.
        if let Err(error) = self.turn_if_due() {
            self.lose(Reason::WriteFailed);
            return Err(error);
        }
        let Writing::Har { size, empty } = &self.format else {
            return Ok(());
        };
        let (size, comma) = (*size, !*empty);
        let mut longer = size;
        let (taken, result) = self.put_now(|out| {
            let start = out.len();
            if comma {
                out.push(b',');
            }
            let can_say = har::append_entry(out, exchange);
            longer = size + out.len() - start;
            can_say && longer as u64 <= har::MAX_ARCHIVE
        });
        if taken {
            // It may be that of the next file already.
            if let Writing::Har {
                size: of_file,
                empty,
            } = &mut self.format
            {
                *of_file += longer - size;
                *empty = false;
            }
            return result;
        }
        let is_too_long = longer as u64 > har::MAX_ARCHIVE;
        if is_too_long && comma && self.files.is_some() {
            if let Err(error) = self.turn(0) {
                self.account.drop(Reason::WriteFailed);
                return Err(error);
            }
            return self.har_entry(exchange);
        }
        if longer as u64 <= har::MAX_ARCHIVE {
            self.account.drop(Reason::RecordIncomplete);
            return result;
        }
        self.account.drop(Reason::WriteFailed);
        Err(RecordError::ArchiveFull {
            path: self.output.path().to_owned(),
        })
    }

    fn gor_exchange(&mut self, exchange: &Exchange) -> Result<(), RecordError> {
        let mut number = exchange.id().map(gor::exchange_part);
        let mut result = Ok(());
        if let Some(request) = &exchange.request {
            let id = gor::id(exchange.endpoints, gor::exchange_part(request.id));
            let latency = request.last_byte.since(request.first_byte);
            let parts = [&request.head.bytes()[..], &request.body.wire];
            let whole = request.completeness.is_whole();
            result = self.record(|out| {
                whole
                    && gor::append_record(
                        out,
                        gor::Kind::Request,
                        &id,
                        request.first_byte,
                        latency,
                        parts,
                    )
            });
        }
        let Some(response) = &exchange.response else {
            return result;
        };
        if number.is_none()
            && let Writing::Gor { orphans } = &mut self.format
        {
            // Counted down from the top, so that no request has the same id.
            *orphans = orphans.wrapping_add(1);
            number = Some(orphans.wrapping_neg());
        }
        let id = gor::id(exchange.endpoints, number.unwrap_or_default());
        let latency = response.last_byte.since(response.first_byte);
        let parts = [&response.head.bytes()[..], &response.body.wire];
        let whole = response.completeness.is_whole();
        result.and(self.record(|out| {
            whole
                && gor::append_record(
                    out,
                    gor::Kind::Response,
                    &id,
                    response.first_byte,
                    latency,
                    parts,
                )
        }))
    }

    fn pcap_exchange(&mut self, exchange: &Exchange) -> Result<(), RecordError> {
        let Writing::Pcap { synthesis, .. } = &mut self.format else {
            return Ok(());
        };
        let mut packets = Vec::new();
        let done = synthesis.exchange(exchange, &mut packets);
        let result = self.packets(&packets);
        for (there, done) in [
            (exchange.request.is_some(), done.request),
            (exchange.response.is_some(), done.response),
        ] {
            self.account.add(Counter::RecordsOffered, u64::from(there));
            match (there, done, &result) {
                (false, ..) => {}
                (true, false, _) => self.account.drop(Reason::RecordIncomplete),
                (true, true, Ok(())) => self.account.count(Counter::RecordsWritten),
                (true, true, Err(RecordError::Full { .. })) => {
                    self.account.drop(Reason::RecordingFull);
                }
                (true, true, Err(_)) => self.account.drop(Reason::WriteFailed),
            }
        }
        result
    }

    fn end_connections(&mut self) -> Result<(), RecordError> {
        let Writing::Pcap { synthesis, .. } = &mut self.format else {
            return Ok(());
        };
        let mut packets = Vec::new();
        synthesis.finish(&mut packets);
        self.packets(&packets)
    }

    fn packets(&mut self, packets: &[pcap::Made]) -> Result<(), RecordError> {
        packets
            .iter()
            .try_for_each(|made| self.write_packet(&made.packet()))
    }

    /// Offers one record to the output; one that `append` refuses is not whole.
    fn record(&mut self, append: impl FnOnce(&mut Vec<u8>) -> bool) -> Result<(), RecordError> {
        let (taken, result) = self.offer(append);
        if !taken {
            self.account.drop(Reason::RecordIncomplete);
        }
        result
    }

    /// Offers one record to the output, and tells whether `append` had something to write.
    fn offer(
        &mut self,
        append: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> (bool, Result<(), RecordError>) {
        self.account.count(Counter::RecordsOffered);
        self.put(append)
    }

    fn count(&mut self, progress: Progress) {
        count(&mut self.account, progress, &self.format);
    }
}

/// Counts what a write has brought to the file. Packets made up for messages are no records: the messages are.
fn count(account: &mut Account, progress: Progress, format: &Writing) {
    if !made_up(format) {
        account.add(Counter::RecordsWritten, progress.written);
        account.drop_n(Reason::WriteFailed, progress.lost);
    }
}

/// Whether packets are written for messages.
const fn made_up(format: &Writing) -> bool {
    matches!(
        format,
        Writing::Pcap {
            captured: false,
            ..
        }
    )
}

/// What closes a file of that format.
const fn footer(format: Format) -> &'static [u8] {
    match format {
        Format::Har => har::FOOTER,
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_grows_no_longer_than_one_that_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.har");
        let mut writer = Writer::create(&path, Options::default()).unwrap();
        let request = crate::traffic::tests::request("GET / HTTP/1.1\r\n\r\n", "");
        let exchange = Exchange {
            connection: request.connection,
            endpoints: request.endpoints,
            request: Some(request.into()),
            response: None,
        };
        writer.exchange(&exchange).unwrap();
        writer.format = Writing::Har {
            size: har::MAX_ARCHIVE as usize - 10,
            empty: false,
        };
        let refused = writer.exchange(&exchange).unwrap_err();
        assert!(matches!(refused, RecordError::ArchiveFull { .. }));
        assert!(refused.to_string().contains("a.har"), "{refused}");
        let (account, result) = writer.finish();
        result.unwrap();
        account.check().unwrap();
        assert_eq!(account.get(Counter::RecordsWritten), 1);
        assert_eq!(account.dropped(Reason::WriteFailed), 1);
        let back = har::read_entries(std::fs::File::open(&path).unwrap());
        assert_eq!(back.len(), 1);
    }
}
