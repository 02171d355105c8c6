//! Groups of flags that several verbs share.

mod capture;
mod compare;
mod judge;
mod replay;
mod traffic;

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::{Wrong, values};
use crate::record::Format;

pub use capture::{Budgets, FileFlags, LiveFlags, TapFlags};
pub use compare::{CompareFlags, CompareJob, RecordingRedactFlags, RedactFlags};
pub use judge::{MarginFlags, ToleranceFlags};
pub use replay::ReplayFlags;
pub use traffic::{ChooseFlags, RewriteFlags, SelectFlags};

/// How a program that captures live stops, and who may ask how it is.
#[derive(Args, Debug)]
#[command(next_help_heading = "Running")]
pub struct RunFlags {
    /// How long what was captured may still take when the program stops.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        value_parser = values::duration,
        env = "SHADOWTAP_GRACE"
    )]
    pub grace: Duration,

    /// Serve /metrics, /healthz and /readyz here; where answers are compared also /verdict, and a dashboard at /.
    #[arg(
        long,
        value_name = "[ADDRESS:]PORT",
        value_parser = values::listen_address,
        env = "SHADOWTAP_ADMIN"
    )]
    pub admin: Option<std::net::SocketAddr>,
}

/// Whether the name of a file to be written says a format that can be written.
pub fn writable(out: &Path) -> Result<(), Wrong> {
    let format = Format::of_name(out).map(|(format, _)| format);
    if out.as_os_str() == "-" || format.is_some_and(|format| format != Format::PcapNg) {
        return Ok(());
    }
    Err(Wrong(format!(
        "--out: '{}' does not say which format to write; end it in .pcap, .gor, .jsonl or .har, and in .gz behind that to compress",
        out.display()
    )))
}

/// A number of bytes, as a flag shows and takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(pub u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >= 1 << shift && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Parses a [`Size`].
pub fn size(text: &str) -> Result<Size, String> {
    values::byte_size(text).map(Size)
}
