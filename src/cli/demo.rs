//! `shadowtap demo`: the demonstration.

use clap::Args;

/// Show the main job live on this machine: two versions of a sample application, real traffic, capture and mirroring.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap demo\n  \
    shadowtap demo --requests 5000")]
pub struct Flags {
    /// How many requests the demonstration's clients send to version 1.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(50..=1_000_000),
        env = "SHADOWTAP_REQUESTS"
    )]
    requests: u32,
}

/// What `demo` is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Job {
    /// How many requests are sent to version 1.
    pub requests: u32,
}

impl Flags {
    pub(super) const fn into_job(self) -> Job {
        Job {
            requests: self.requests,
        }
    }
}
