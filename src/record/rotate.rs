//! A recording in several files: when the next one begins, what it is called, and which ones are deleted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::info;

use super::RecordError;

/// When a recording goes on in the next file, and how large all of them may be together.
///
/// By default it is one file of any length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rotation {
    /// A file that would become larger than this, in bytes, is closed, and the next one begun. A record that is larger alone
    /// gets a file alone.
    pub size: Option<u64>,
    /// A file that has been open for so long is closed.
    pub every: Option<Duration>,
    /// All files together never become larger than this, in bytes: the oldest ones are deleted, or, where there is only one file,
    /// the recording ends.
    pub max: Option<u64>,
}

impl Rotation {
    /// Whether there is more than one file.
    #[must_use]
    pub const fn is_rotating(&self) -> bool {
        self.size.is_some() || self.every.is_some()
    }

    /// How large one file may become.
    pub(super) fn limit(&self) -> u64 {
        let of_max = match self.max {
            // Files that end by their time alone are kept small enough for the deletion of one not to be that of everything.
            Some(max) if self.is_rotating() => (max / SHARES).max(1),
            Some(max) => max,
            None => u64::MAX,
        };
        match self.size {
            Some(size) => size.min(self.max.unwrap_or(u64::MAX)),
            None => of_max,
        }
    }
}

/// The files of a rotated recording: `traffic.gor` becomes `traffic.00001.gor`, `traffic.00002.gor` and so on.
///
/// Files that are there already are those of earlier runs: they are the oldest, and numbers go on behind theirs.
#[derive(Debug)]
pub(super) struct Files {
    rotation: Rotation,
    folder: PathBuf,
    /// What is before the number, and what behind it.
    name: (String, String),
    number: u64,
    /// Closed files and their sizes, the oldest first.
    closed: Vec<(PathBuf, u64)>,
}

impl Files {
    pub(super) fn new(path: &Path, rotation: Rotation) -> Result<Self, RecordError> {
        let whole = path.file_name().unwrap_or_default().to_string_lossy();
        let lower = whole.to_ascii_lowercase();
        let plain = lower.strip_suffix(".gz").unwrap_or(&lower);
        let dot = plain.rfind('.').unwrap_or(plain.len());
        let name = (format!("{}.", &whole[..dot]), whole[dot..].to_owned());
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut found = Vec::new();
        let failed = |source| RecordError::Create {
            path: path.to_owned(),
            source,
        };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let number = entry.file_name().to_str().and_then(|it| {
                let digits = it.strip_prefix(&name.0)?.strip_suffix(&name.1)?;
                let digits = (digits.len() >= DIGITS).then_some(digits)?;
                digits.bytes().all(|it| it.is_ascii_digit()).then_some(())?;
                digits.parse::<u64>().ok()
            });
            let metadata = entry.metadata().map_err(failed)?;
            if let Some(number) = number.filter(|_| metadata.is_file()) {
                found.push((number, entry.path(), metadata.len()));
            }
        }
        found.sort_unstable();
        Ok(Self {
            rotation,
            folder,
            name,
            number: found.last().map_or(0, |&(number, ..)| number),
            closed: found
                .into_iter()
                .map(|(_, path, size)| (path, size))
                .collect(),
        })
    }

    /// The name of the next file, in which `needed` bytes must find room; the oldest files are deleted for it.
    pub(super) fn next(&mut self, needed: u64) -> Result<PathBuf, RecordError> {
        self.make_room(needed.max(self.rotation.limit()))?;
        self.number = self.number.saturating_add(1);
        let name = format!(
            "{}{:0width$}{}",
            self.name.0,
            self.number,
            self.name.1,
            width = DIGITS
        );
        Ok(self.folder.join(name))
    }

    /// Takes a file that is closed now.
    pub(super) fn closed(&mut self, path: PathBuf, size: u64) {
        self.closed.push((path, size));
    }

    fn make_room(&mut self, needed: u64) -> Result<(), RecordError> {
        let Some(max) = self.rotation.max else {
            return Ok(());
        };
        let mut total: u64 = self.closed.iter().map(|&(_, size)| size).sum();
        let mut gone = 0;
        for (path, size) in &self.closed {
            if total.saturating_add(needed) <= max {
                break;
            }
            match fs::remove_file(path) {
                Ok(()) => {
                    info!(file = %path.display(), bytes = size, "deleted the oldest file of the recording, for --max-size");
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => {
                    let path = path.clone();
                    self.closed.drain(..gone);
                    return Err(RecordError::Delete { path, source });
                }
            }
            total -= size;
            gone += 1;
        }
        self.closed.drain(..gone);
        Ok(())
    }
}

/// Digits of a file's number, at least; file names sort as the numbers do.
const DIGITS: usize = 5;

/// Into how many files the whole is divided where sizes of files are not given.
const SHARES: u64 = 10;
