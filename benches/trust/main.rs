//! What shadowtap does to the service that it watches when things go wrong, and what hostile or lost traffic does to it.
//!
//! `make trust` runs everything and writes `docs/trust.md`; `make soak` runs for half an hour and writes `docs/soak.md`. With words
//! behind it, this program is one of its own parts.

#[cfg(target_os = "linux")]
mod bombs;
#[cfg(target_os = "linux")]
mod chart;
#[cfg(target_os = "linux")]
mod experiment;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod offline;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod serve;
#[cfg(target_os = "linux")]
mod soak;
#[cfg(target_os = "linux")]
mod stage;
#[cfg(target_os = "linux")]
#[path = "../support/surroundings.rs"]
mod surroundings;
// What the tests play too.
#[cfg(target_os = "linux")]
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/support"]
mod support {
    pub(crate) mod flood;
    pub(crate) mod lossy;
    pub(crate) mod net;
    pub(crate) mod rng;
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    surroundings::concluded(run::main())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the experiments need Linux: packet sockets and network namespaces");
}
