//! What shadowtap costs, as ratios to what the kernel and the plainest loops cost in the same run.
//!
//! `make bench` runs everything and writes `docs/performance.md`. With words behind it, this program is one of its own parts:
//! a server, a load generator, the bare loop, or one pass over a file.

#[cfg(target_os = "linux")]
mod counts;
#[cfg(target_os = "linux")]
mod generate;
#[cfg(target_os = "linux")]
mod live;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod offline;
#[cfg(target_os = "linux")]
mod page;
#[cfg(target_os = "linux")]
mod peers;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod saturation;
#[cfg(target_os = "linux")]
#[path = "../support/surroundings.rs"]
mod surroundings;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    surroundings::concluded(run::main())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the benchmark needs Linux: packet sockets and network namespaces");
}
