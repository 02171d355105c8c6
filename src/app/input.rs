//! Files of any kind that can be read, as one stream of events.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use tracing::warn;

use crate::account::Account;
use crate::capture::file::FileSource;
use crate::capture::merge::Merged;
use crate::capture::{CaptureError, PacketSource};
use crate::exchange::{ConnectionId, Event, ExchangeId};
use crate::record::{Format, Input as Recording, Reader, RecordError};
use crate::tap::{Tap, TapConfig};
use crate::time::Timestamp;
use crate::wire::LinkType;

/// Everything that some files hold, captures and recordings, in order of time.
pub struct Input {
    packets: Option<Packets>,
    messages: Option<Messages>,
    /// Whether there are both, so that identifiers must be kept apart.
    mixed: bool,
    size: Option<u64>,
}

/// Capture files on their way through a tap.
struct Packets {
    source: Merged<FileSource>,
    tap: Tap,
    next: Option<Event>,
    reading: bool,
    /// How many packets the snap length cut.
    cut: u64,
}

/// Recordings of messages.
struct Messages {
    reader: Reader,
    next: Option<Event>,
    /// Whether damage was reported.
    reported: bool,
}

impl Input {
    /// Opens all files.
    ///
    /// # Errors
    /// The first that does not open, or cannot be read as what it is.
    pub fn open(files: &[PathBuf], tap: TapConfig) -> anyhow::Result<Self> {
        let stdin = files.iter().filter(|file| file.as_os_str() == "-").count();
        if stdin > 1 {
            bail!("'-' can be given once: there is one standard input");
        }
        let mut captures = Vec::new();
        let mut recordings = Vec::new();
        for file in files {
            match open(file)? {
                Opened::Capture(source) => captures.push(source),
                Opened::Recording(input) => recordings.push(input),
            }
        }
        let mixed = !captures.is_empty() && !recordings.is_empty();
        let messages = if recordings.is_empty() {
            None
        } else {
            Some(Messages {
                reader: Reader::new(recordings)?,
                next: None,
                reported: false,
            })
        };
        let recorded = messages.as_ref().map(|it| it.reader.progress().1);
        let size = captures
            .iter()
            .map(|source| source.progress().1)
            .chain(recorded)
            .sum();
        Ok(Self {
            packets: (!captures.is_empty()).then(|| Packets {
                source: Merged::new(captures),
                tap: Tap::new(tap),
                next: None,
                reading: true,
                cut: 0,
            }),
            messages,
            mixed,
            size,
        })
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// That a file is damaged. Everything before the damage came first; call again for what is left.
    pub fn next_event(&mut self) -> anyhow::Result<Option<Event>> {
        if let Some(packets) = &mut self.packets {
            packets.fill()?;
        }
        if let Some(messages) = &mut self.messages {
            messages.fill()?;
        }
        let captured = self
            .packets
            .as_ref()
            .and_then(|packets| packets.next.as_ref());
        let recorded = self
            .messages
            .as_ref()
            .and_then(|messages| messages.next.as_ref());
        let take_recorded = match (captured, recorded) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(captured), Some(recorded)) => time_of(recorded) < time_of(captured),
        };
        if take_recorded {
            let mixed = self.mixed;
            return Ok(self.messages.as_mut().and_then(|messages| {
                let event = messages.next.take()?;
                Some(if mixed { renamed(event) } else { event })
            }));
        }
        Ok(self
            .packets
            .as_mut()
            .and_then(|packets| packets.next.take()))
    }

    /// What was counted so far.
    #[must_use]
    pub fn account(&self) -> Account {
        let mut account = Account::new();
        if let Some(packets) = &self.packets {
            account.merge(packets.tap.account());
        }
        if let Some(messages) = &self.messages {
            account.merge(messages.reader.account());
        }
        account
    }

    /// Ends reading here; everything that was counted.
    #[must_use]
    pub fn finish(mut self) -> Account {
        if let Some(packets) = &mut self.packets
            && packets.reading
        {
            packets.tap.finish();
        }
        self.account()
    }

    /// Whether there are recordings of messages among the files.
    #[must_use]
    pub const fn has_recordings(&self) -> bool {
        self.messages.is_some()
    }

    /// How many bytes all files have, when that is known.
    #[must_use]
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// How many bytes of the files were read.
    #[must_use]
    pub fn position(&self) -> u64 {
        let captured = self.packets.iter().flat_map(|packets| {
            let sources = packets.source.sources();
            sources.map(|source| source.progress().0)
        });
        let recorded = self.messages.iter().map(|it| it.reader.progress().0);
        captured.chain(recorded).sum()
    }

    /// The packets themselves, if there is nothing but capture files.
    ///
    /// # Errors
    /// This input as it was, if there are recordings too.
    pub fn into_packets(self) -> Result<(Merged<FileSource>, Tap), Box<Self>> {
        match self {
            Self {
                packets: Some(packets),
                messages: None,
                ..
            } => Ok((packets.source, packets.tap)),
            other => Err(Box::new(other)),
        }
    }
}

impl Packets {
    /// Reads on until there is an event or nothing more.
    fn fill(&mut self) -> Result<(), CaptureError> {
        while self.next.is_none() {
            self.next = self.tap.poll();
            if self.next.is_some() || !self.reading {
                return Ok(());
            }
            while self.tap.looks_ahead()
                && let Some(packet) = self.source.upcoming()
            {
                self.tap.expect(&packet);
            }
            match self.source.next_packet() {
                Ok(Some(packet)) => {
                    self.cut += u64::from((packet.data.len() as u64) < u64::from(packet.wire_len));
                    self.tap.packet(&packet);
                }
                ended => {
                    let ended = ended.map(drop);
                    self.reading = false;
                    self.tap.finish();
                    self.warn();
                    ended?;
                }
            }
        }
        Ok(())
    }

    /// Says what is wrong with the captures themselves.
    fn warn(&self) {
        if let Some(LinkType(number)) = self.tap.unknown_link() {
            warn!(
                "packets of link type {number} cannot be read; https://www.tcpdump.org/linktypes.html says what that is"
            );
        }
        if self.cut > 0 {
            warn!(
                "{} of the packets were cut short when they were captured, and what they carried is missing; capture with a larger snap length (tcpdump: -s 0)",
                self.cut
            );
        }
    }
}

impl Messages {
    /// Reads on until there is an event or nothing more; then says once what could not be used.
    fn fill(&mut self) -> anyhow::Result<()> {
        if self.next.is_none() {
            self.next = self.reader.next();
        }
        let damaged = self.reader.damaged();
        if self.next.is_none() && damaged > 0 && !self.reported {
            self.reported = true;
            if damaged == 1 {
                bail!("a piece of the recordings could not be used; it is named above");
            }
            bail!(
                "{damaged} pieces of the recordings could not be used; the first of them are named above"
            );
        }
        Ok(())
    }
}

enum Opened {
    Capture(FileSource),
    Recording(Recording),
}

fn open(file: &Path) -> anyhow::Result<Opened> {
    match Recording::open(file) {
        Ok(input) if !input.format().holds_packets() => Ok(Opened::Recording(input)),
        // Opened once more, the capture reader knows how far it is in the file.
        Ok(input) if input.is_plain_file() => Ok(Opened::Capture(FileSource::open(file)?)),
        // A pipe can be opened once.
        Ok(input) => {
            let name = input.path().display().to_string();
            let source = FileSource::from_reader(input.into_content()?, name)?;
            Ok(Opened::Capture(source))
        }
        // The capture reader knows more about what a file is that is none.
        Err(RecordError::Unknown { .. }) if file.is_file() && !is_named_as_messages(file) => {
            Ok(Opened::Capture(FileSource::open(file)?))
        }
        Err(RecordError::Open { path, source }) if source.kind() == io::ErrorKind::NotFound => {
            bail!("{}: there is no such file", path.display())
        }
        Err(RecordError::Open { path, source }) if source.kind() == io::ErrorKind::IsADirectory => {
            let path = path.display();
            bail!("{path}: this is a folder; give the files in it, such as {path}/*.pcap")
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the name says that the file is a recording of messages.
fn is_named_as_messages(file: &Path) -> bool {
    Format::of_name(file).is_some_and(|(format, _)| !format.holds_packets())
}

/// When an event happened, as far as order needs it; an event without a time comes as soon as it can.
fn time_of(event: &Event) -> Timestamp {
    match event {
        Event::Request(request) => request.last_byte,
        Event::Response { response, .. } | Event::Orphan { response, .. } => response.last_byte,
        Event::Unanswered { .. } | Event::Closed { .. } => Timestamp::ZERO,
    }
}

/// Set in identifiers of recordings, where there are captures too.
pub(super) const RECORDED: u64 = 1 << 63;

/// The event with identifiers that no tap gives out.
fn renamed(event: Event) -> Event {
    let exchange = |id: ExchangeId| ExchangeId(id.0 | RECORDED);
    let rename = |connection: ConnectionId| ConnectionId(connection.0 | RECORDED);
    match event {
        Event::Request(mut request) => {
            let inner = Arc::make_mut(&mut request);
            inner.id = exchange(inner.id);
            inner.connection = rename(inner.connection);
            Event::Request(request)
        }
        Event::Response { id, response } => Event::Response {
            id: exchange(id),
            response,
        },
        Event::Orphan {
            connection,
            endpoints,
            response,
        } => Event::Orphan {
            connection: rename(connection),
            endpoints,
            response,
        },
        Event::Unanswered { id, why } => Event::Unanswered {
            id: exchange(id),
            why,
        },
        Event::Closed { connection } => Event::Closed {
            connection: rename(connection),
        },
    }
}
