//! The replay engine against real sockets.

// What the tests share: targets that behave as told, and an engine with its outcomes.
pub(crate) mod bench;
// Queues, the schedule, stopping.
mod bounds;
// The law of conservation, over random traffic, faults and settings.
mod conserved;
// What reaches the target, and every legal answer.
mod faithful;
// Targets that are absent, slow, wrong or endless.
mod hostile;
// A target that moves to another address.
#[cfg(target_os = "linux")]
mod moves;
// Requests that do not wait for the answer to the one before.
mod pipelining;
// Targets behind TLS.
pub(crate) mod https;
