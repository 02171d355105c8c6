//! Groups of flags that several verbs share.

mod capture;
mod compare;
mod judge;
mod replay;
mod traffic;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{Wrong, values};
use crate::admin::AdminConfig;
use crate::record::Format;
use crate::serve::{Protection, Tls, Token};

pub use capture::{Budgets, FileFlags, LiveFlags, TapFlags, by_one_worker};
pub use compare::{CompareFlags, CompareJob, RecordingRedactFlags, RedactFlags, Without};
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

    /// Serve /metrics, /healthz and /readyz here; where answers are compared also /verdict, and a dashboard at /. A port
    /// alone is one of this machine's loopback; 0.0.0.0:PORT lets others in.
    #[arg(
        long,
        value_name = "[ADDRESS:]PORT",
        value_parser = values::listen_locally,
        env = "SHADOWTAP_ADMIN"
    )]
    admin: Option<std::net::SocketAddr>,

    /// Let only those see more than /healthz and /readyz there who send the text of this file as a bearer token, or as the
    /// password of any user.
    #[arg(
        long,
        value_name = "FILE",
        requires = "admin",
        env = "SHADOWTAP_ADMIN_TOKEN_FILE"
    )]
    admin_token_file: Option<PathBuf>,

    /// Serve that over TLS, with the certificates in this PEM file.
    #[arg(
        long,
        value_name = "FILE",
        requires_all = ["admin", "admin_tls_key"],
        env = "SHADOWTAP_ADMIN_TLS_CERT"
    )]
    admin_tls_cert: Option<PathBuf>,

    /// The key of the first of those certificates, in a PEM file.
    #[arg(
        long,
        value_name = "FILE",
        requires = "admin_tls_cert",
        env = "SHADOWTAP_ADMIN_TLS_KEY"
    )]
    admin_tls_key: Option<PathBuf>,
}

impl RunFlags {
    /// The admin server, if there is to be one.
    pub fn admin(&self) -> Result<Option<AdminConfig>, Wrong> {
        let Some(address) = self.admin else {
            return Ok(None);
        };
        let token = self.admin_token_file.as_deref().map(Token::read);
        let token = token
            .transpose()
            .map_err(|wrong| Wrong(format!("--admin-token-file: {wrong}")))?;
        let pair = self
            .admin_tls_cert
            .as_ref()
            .zip(self.admin_tls_key.as_ref());
        let tls = pair
            .map(|(certificates, key)| Tls::read(certificates, key))
            .transpose()
            .map_err(|wrong| Wrong(format!("--admin-tls-cert, --admin-tls-key: {wrong}")))?;
        Ok(Some(AdminConfig {
            address,
            protection: Protection { token, tls },
        }))
    }
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

/// The first of these flags that was given.
fn first_given<const N: usize>(flags: [(&'static str, bool); N]) -> Option<&'static str> {
    flags
        .into_iter()
        .find_map(|(flag, is_given)| is_given.then_some(flag))
}
