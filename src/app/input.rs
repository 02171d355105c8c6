//! Files of any kind that can be read, as one stream of events.

use std::path::PathBuf;

use crate::account::Account;
use crate::capture::PacketSource;
use crate::capture::file::FileSource;
use crate::capture::merge::Merged;
use crate::exchange::Event;
use crate::tap::{Tap, TapConfig};

/// Everything that some files hold, in order of time.
pub struct Input {
    packets: Merged<FileSource>,
    tap: Tap,
    reading: bool,
    size: Option<u64>,
}

impl Input {
    /// Opens all files.
    ///
    /// # Errors
    /// The first that does not open, or cannot be read as what it is.
    pub fn open(files: &[PathBuf], tap: TapConfig) -> anyhow::Result<Self> {
        let sources = files
            .iter()
            .map(FileSource::open)
            .collect::<Result<Vec<_>, _>>()?;
        let size = sources
            .iter()
            .map(|source| source.progress().1)
            .sum::<Option<u64>>();
        Ok(Self {
            packets: Merged::new(sources),
            tap: Tap::new(tap),
            reading: true,
            size,
        })
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// That a file is damaged. Everything before the damage came first; call again for what is left.
    pub fn next_event(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(event) = self.tap.poll() {
                return Ok(Some(event));
            }
            if !self.reading {
                return Ok(None);
            }
            match self.packets.next_packet() {
                Ok(Some(packet)) => self.tap.packet(&packet),
                ended => {
                    self.reading = false;
                    self.tap.finish();
                    ended?;
                }
            }
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn account(&self) -> Account {
        self.tap.account().clone()
    }

    /// How many bytes all files have, when that is known.
    #[must_use]
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// How many bytes of the files were read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.packets
            .sources()
            .map(|source| source.progress().0)
            .sum()
    }
}
