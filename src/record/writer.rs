//! Writing recordings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::output::{Output, Progress};
use super::pcap::{self, Synthesis};
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
}

/// Writes one recording.
///
/// Exchanges or messages that were offered end in exactly one of `records_written` and a reason of the record stage.
pub struct Writer {
    output: Output,
    format: Writing,
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
        let footer = if format == Format::Har {
            har::FOOTER
        } else {
            b""
        };
        let mut output = if is_stdout {
            if !matches!(format, Format::Gor | Format::Jsonl) {
                return Err(RecordError::NotAStream { format });
            }
            Output::stdout()
        } else {
            let gzip = named.is_some_and(|(_, gzip)| gzip)
                || path
                    .extension()
                    .is_some_and(|it| it.eq_ignore_ascii_case("gz"));
            Output::create(path, options.force, gzip, footer)?
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
            Format::Har => {
                let header = har::header();
                output.preamble(&header);
                let size = header.len() + har::FOOTER.len();
                Writing::Har { size, empty: true }
            }
        };
        Ok(Self {
            output,
            format,
            account: Account::new(),
        })
    }

    /// Refuses to write to a file that is to be read as well, whatever names lead to it: it would be lost.
    ///
    /// # Errors
    /// When `path` is one of `inputs`.
    pub fn check_apart(path: &Path, inputs: &[PathBuf]) -> Result<(), RecordError> {
        let Ok(real) = path.canonicalize() else {
            return Ok(()); // It is not there yet.
        };
        // Devices and pipes can be both.
        let is_file = real.is_file();
        let same = |input: &PathBuf| input.canonicalize().is_ok_and(|input| input == real);
        match inputs.iter().find(|input| is_file && same(input)) {
            Some(_) => Err(RecordError::IsInput {
                path: path.to_owned(),
            }),
            None => Ok(()),
        }
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
            Writing::Har { .. } => return self.har_exchange(exchange),
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
        let (_, progress, result) = self.output.record(|out| {
            pcap::append_packet(out, packet);
            true
        });
        self.count(progress);
        result
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
        count(&mut account, progress, &writing);
        (account, ended.and(result))
    }

    /// What happened to the records so far; those that still wait to be written are offered, and not yet written.
    #[must_use]
    pub const fn account(&self) -> &Account {
        &self.account
    }

    fn har_exchange(&mut self, exchange: &Exchange) -> Result<(), RecordError> {
        let Writing::Har { size, empty } = &self.format else {
            return Ok(());
        };
        let (size, comma) = (*size, !*empty);
        let mut longer = size;
        let (taken, result) = self.offer(|out| {
            let start = out.len();
            if comma {
                out.push(b',');
            }
            let can_say = har::append_entry(out, exchange);
            longer = size + out.len() - start;
            can_say && longer as u64 <= har::MAX_ARCHIVE
        });
        if taken {
            let empty = false;
            self.format = Writing::Har {
                size: longer,
                empty,
            };
            return result;
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
        let (taken, progress, result) = self.output.record(append);
        self.count(progress);
        (taken, result)
    }

    fn count(&mut self, progress: Progress) {
        count(&mut self.account, progress, &self.format);
    }
}

/// Counts what a write has brought to the file. Packets made up for messages are no records: the messages are.
fn count(account: &mut Account, progress: Progress, format: &Writing) {
    let made_up = matches!(
        format,
        Writing::Pcap {
            captured: false,
            ..
        }
    );
    if !made_up {
        account.add(Counter::RecordsWritten, progress.written);
        account.drop_n(Reason::WriteFailed, progress.lost);
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
