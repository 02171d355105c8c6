//! `shadowtap demo`: the demonstration.

use clap::{ArgAction, Args, builder::BoolishValueParser};

/// Show the main job live on this machine: two versions of a sample application, real traffic, capture and mirroring.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap demo\n  \
    shadowtap demo --requests 5000\n  \
    shadowtap demo --equal")]
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

    /// Run a version 2 that is as good as version 1.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_EQUAL"
    )]
    equal: bool,
}

/// What `demo` is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Job {
    /// How many requests are sent to version 1.
    pub requests: u32,
    /// Whether version 2 is as good as version 1.
    pub equal: bool,
}

impl Flags {
    pub(super) const fn into_job(self) -> Job {
        Job {
            requests: self.requests,
            equal: self.equal,
        }
    }
}
