//! The pipeline without the program around it: the bytes of a capture file in, lines and the account out.

use std::fmt::Write as _;
use std::io::{Cursor, Read};

use shadowtap::account::Account;
use shadowtap::capture::PacketSource;
use shadowtap::capture::file::FileSource;
use shadowtap::exchange::{Event, Joiner};
use shadowtap::record::jsonl::{Detail, append_exchange};
use shadowtap::tap::{Answers, Tap, TapConfig};

use super::score::{Line, lines};

/// What is in a capture.
#[derive(Debug)]
pub(crate) struct Found {
    /// One line for each exchange, as `inspect --json` prints it.
    pub(crate) text: String,
    /// The account.
    pub(crate) account: Account,
    /// What was wrong with the file, if anything.
    pub(crate) damage: Option<String>,
}

impl Found {
    /// The lines, parsed.
    pub(crate) fn lines(&self) -> Vec<Line> {
        lines(&self.text)
    }

    /// The lines in an order that does not depend on that of the packets.
    pub(crate) fn sorted(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = self.text.lines().collect();
        lines.sort_unstable();
        lines
    }
}

/// Reads a whole capture file.
pub(crate) fn read(file: &[u8]) -> Found {
    read_from(Box::new(Cursor::new(file.to_vec())))
}

/// Reads a whole capture file, one byte at a time.
pub(crate) fn read_byte_by_byte(file: &[u8]) -> Found {
    read_from(Box::new(OneByte(Cursor::new(file.to_vec()))))
}

/// What a tap hands out of a whole capture file but for the answers to requests, and what it has counted of all.
pub(crate) fn without_answers(file: &[u8], answers: Answers) -> (String, Account) {
    let mut tap = Tap::new(TapConfig {
        answers,
        ..TapConfig::default()
    });
    let mut said = String::new();
    let say = |tap: &mut Tap, said: &mut String| {
        for event in std::iter::from_fn(|| tap.poll()) {
            match event {
                Event::Response { .. } => assert_eq!(answers, Answers::HandedOut),
                other => drop(writeln!(said, "{other:?}")),
            }
        }
    };
    if let Ok(mut source) = FileSource::from_reader(Box::new(Cursor::new(file.to_vec())), "memory")
    {
        while let Ok(Some(packet)) = source.next_packet() {
            tap.packet(&packet);
            say(&mut tap, &mut said);
        }
    }
    tap.finish();
    say(&mut tap, &mut said);
    (said, tap.account().clone())
}

/// Reads a capture to its end or its damage.
pub(crate) fn read_from(reader: Box<dyn Read + Send>) -> Found {
    let mut tap = Tap::new(TapConfig::default());
    let mut joiner = Joiner::new(1 << 20);
    let mut text = Vec::new();
    let damage = match FileSource::from_reader(reader, "memory") {
        Ok(mut source) => loop {
            match source.next_packet() {
                Ok(Some(packet)) => tap.packet(&packet),
                Ok(None) => break None,
                Err(damage) => break Some(damage.to_string()),
            }
            drain(&mut tap, &mut joiner, &mut text);
        },
        Err(damage) => Some(damage.to_string()),
    };
    tap.finish();
    drain(&mut tap, &mut joiner, &mut text);
    for exchange in joiner.finish() {
        append_exchange(&mut text, &exchange, Detail::Inspect);
    }
    let account = tap.account().clone();
    assert_eq!(account.check(), Ok(()), "{account:?}");
    Found {
        text: String::from_utf8(text).expect("JSON is UTF-8"),
        account,
        damage,
    }
}

fn drain(tap: &mut Tap, joiner: &mut Joiner, text: &mut Vec<u8>) {
    while let Some(event) = tap.poll() {
        if let Some(exchange) = joiner.push(event) {
            append_exchange(text, &exchange, Detail::Inspect);
        }
    }
}

/// Gives one byte at a time, as the slowest of pipes does.
struct OneByte(Cursor<Vec<u8>>);

impl Read for OneByte {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let one = buffer.len().min(1);
        self.0.read(&mut buffer[..one])
    }
}
