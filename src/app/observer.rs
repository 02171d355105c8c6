//! Whoever looks on while traffic is captured and replayed.

use std::sync::Arc;

use crate::exchange::Event;
use crate::replay::Replay;

/// What somebody who looks on gets to see, on the threads where it happens.
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// What the capture found.
    Captured(&'a Event),
    /// What became of a replay.
    Replayed(&'a Replay),
}

/// Something that looks on.
pub type Observer = Arc<dyn Fn(Observation<'_>) + Send + Sync>;
