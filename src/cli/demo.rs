//! `shadowtap demo`: the demonstration.

use clap::{ArgAction, Args, builder::BoolishValueParser};

/// Show the main job live on this machine: two versions of a sample application, real traffic, capture and mirroring.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    shadowtap demo\n  \
    shadowtap demo --requests 5000\n  \
    shadowtap demo --equal")]
pub struct Flags {
    /// How many requests the demonstration's clients send to version 1 [default: 2000; with --equal as many as the verdict takes,
    /// and 60000 at most].
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(50..=1_000_000),
        env = "SHADOWTAP_REQUESTS"
    )]
    requests: Option<u32>,

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
    /// How many requests are sent to version 1 before the verdict is asked for, and again as long as it is open.
    pub round: u32,
    /// No more are sent than this.
    pub most: u32,
    /// Whether version 2 is as good as version 1.
    pub equal: bool,
}

impl Flags {
    pub(super) const fn into_job(self) -> Job {
        let (round, most) = match self.requests {
            Some(requests) => (requests, requests),
            None if self.equal => (4_000, 60_000),
            None => (2_000, 2_000),
        };
        Job {
            round,
            most,
            equal: self.equal,
        }
    }
}
