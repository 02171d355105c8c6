//! A running line for a person at a terminal; a log line now and then for everybody else.

use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

use crate::account::{Account, Counter, Stage};
use crate::cli::ProgressMode;

/// Standard error, as log lines and running lines share it: a log line pushes the running lines down.
#[derive(Clone)]
pub struct Screen {
    lines: MultiProgress,
    mode: ProgressMode,
}

impl Screen {
    /// Standard error.
    #[must_use]
    pub fn new(mode: ProgressMode) -> Self {
        Self {
            lines: MultiProgress::new(),
            mode,
        }
    }

    /// Whether a person sees it.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Shows how far the program is.
pub struct Progress {
    shown: Shown,
    last: Instant,
    before: Account,
}

enum Shown {
    Line(ProgressBar),
    Log,
    Nothing,
}

impl Progress {
    /// For live capture: rates.
    #[must_use]
    pub fn live(screen: &Screen) -> Self {
        Self::new(screen, || {
            let bar = ProgressBar::new_spinner();
            bar.set_style(style("{spinner:.green} {elapsed}  {msg}"));
            bar
        })
    }

    /// For files: a bar by bytes, when it is known how many there are.
    #[must_use]
    pub fn files(screen: &Screen, bytes: Option<u64>) -> Self {
        Self::new(screen, || match bytes {
            Some(bytes) => {
                let bar = ProgressBar::new(bytes);
                bar.set_style(style(
                    "{bar:30.green} {percent:>3} %  {binary_bytes}/{binary_total_bytes}  {msg}",
                ));
                bar
            }
            None => {
                let bar = ProgressBar::new_spinner();
                bar.set_style(style("{spinner:.green} {elapsed}  {msg}"));
                bar
            }
        })
    }

    /// Nothing at all.
    #[must_use]
    pub fn none() -> Self {
        Self {
            shown: Shown::Nothing,
            last: Instant::now(),
            before: Account::new(),
        }
    }

    /// Whether it is time for [`Self::show`] again: making an account costs something.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let every = match self.shown {
            Shown::Line(_) => Duration::from_millis(250),
            Shown::Log => Duration::from_secs(10),
            Shown::Nothing => return false,
        };
        self.last.elapsed() >= every
    }

    /// Shows `account`, and how many bytes of the files were read.
    pub fn show(&mut self, account: &Account, bytes: Option<u64>) {
        let elapsed = self.last.elapsed();
        self.last = Instant::now();
        match &self.shown {
            Shown::Line(bar) => {
                if let Some(bytes) = bytes {
                    bar.set_position(bytes);
                }
                bar.set_message(line(&account.since(&self.before), account, elapsed));
                bar.tick();
            }
            Shown::Log => tracing::info!(
                packets = account.get(Counter::Packets),
                requests = account.get(Counter::Requests),
                replayed = account.get(Counter::ReplaysAnswered),
                not_replayed = account.dropped_at(Stage::Replay),
                recorded = account.get(Counter::RecordsWritten),
                lost = account.dropped_at(Stage::Capture),
                "so far"
            ),
            Shown::Nothing => {}
        }
        self.before = account.clone();
    }

    /// Takes the running line away.
    pub fn finish(&self) {
        if let Shown::Line(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    fn new(screen: &Screen, bar: impl FnOnce() -> ProgressBar) -> Self {
        let shown = match screen.mode {
            ProgressMode::Auto if screen.is_terminal() => Shown::Line(screen.lines.add(bar())),
            ProgressMode::Auto | ProgressMode::Plain => Shown::Log,
            ProgressMode::Off => Shown::Nothing,
        };
        Self {
            shown,
            last: Instant::now(),
            before: Account::new(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn line(new: &Account, all: &Account, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-3);
    let rate = |counter| {
        // Rates are shown to a person: the precision of a float is enough.
        #[expect(clippy::cast_precision_loss, reason = "shown to a person")]
        let new = new.get(counter) as f64;
        new / seconds
    };
    let mut text = format!(
        "{:.0} packets/s, {:.0} requests/s, {} requests",
        rate(Counter::Packets),
        rate(Counter::Requests),
        all.get(Counter::Requests)
    );
    if all.get(Counter::ReplaysOffered) > 0 {
        text += &format!(
            ", {} answered, {} not",
            all.get(Counter::ReplaysAnswered),
            all.dropped_at(Stage::Replay)
        );
    }
    if all.get(Counter::RecordsOffered) > 0 {
        text += &format!(", {} recorded", all.get(Counter::RecordsWritten));
    }
    let lost = all.dropped_at(Stage::Capture);
    if lost > 0 {
        text += &format!(", {lost} packets LOST");
    }
    text
}
