//! What the tests share.

use std::fmt::Display;

// Generated captures, by class, each with what must be found in it.
pub(crate) mod cases;
// The captures under fixtures/conformance.
pub(crate) mod corpus;
// Writers of capture files: pcap and pcapng, every flavour.
pub(crate) mod files;
// What the fuzz targets do.
pub(crate) mod fuzz;
// Link layers, tunnels, fragments.
pub(crate) mod frames;
// Hostile traffic.
pub(crate) mod flood;
// HTTP messages and what a reader must find of them.
pub(crate) mod http;
// Pods, Services and names in network namespaces.
#[cfg(target_os = "linux")]
pub(crate) mod cluster;
// The pipeline without the program around it.
pub(crate) mod inside;
// Traffic with losses.
pub(crate) mod lossy;
// TCP conversations, packet by packet.
pub(crate) mod net;
// Why a capture is read differently from its truth.
pub(crate) mod notes;
// Programs of other people.
pub(crate) mod peers;
// Numbers that look random and are the same every time.
pub(crate) mod rng;
// Runs the program.
pub(crate) mod run;
// Traffic made up at random.
pub(crate) mod scenario;
// Holds what was found against what is there.
pub(crate) mod score;
// Network namespaces with a client and both versions in them.
/// Simulated runs of two versions before the judge.
pub(crate) mod runs;
#[cfg(target_os = "linux")]
pub(crate) mod stage;
// A target that keeps what it gets.
pub(crate) mod target;

/// What a test says that cannot run on this machine, before it returns. In CI, where everything is to be had, it fails.
#[track_caller]
pub(crate) fn cannot_run(why: impl Display) {
    assert!(std::env::var_os("CI").is_none(), "cannot run here: {why}");
    eprintln!("skipped: {why}");
}
