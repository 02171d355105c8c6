//! What GoReplay's flags mean: filters, rewrites, samples and limits on messages, and the names of its files. Pure functions
//! of bytes; [`crate::app::gor`] puts them to work.
//!
//! `docs/goreplay.md` says flag by flag what is the same and what differs.

mod limit;
mod modifier;
mod names;
mod place;
mod prettify;

pub use limit::{Limit, Limiter, WrongLimit};
pub use modifier::{Modifier, Pair, Share, Verdict, WrongRule};
pub use names::{Chunks, Moment, Template, index_of, with_index};
pub use place::{set_host, with_field};
pub use prettify::prettify;

/// FNV-1a, 32 bit: what GoReplay samples and deals out by.
#[must_use]
pub fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
