//! Integration tests: one binary, one module for each theme.

// A cart, its payment provider and a mock, live in network namespaces.
#[cfg(target_os = "linux")]
mod cart;
// The program while it runs: the admin server, and what signals do.
mod admin;
// A recording in, a verdict out: comparing and judging through the program.
mod compare;
// What a running mirror says of its own completeness.
#[cfg(target_os = "linux")]
mod completeness;
// Captures with the truth about what is in them: every exchange found, none invented, every field right.
mod conformance;
// The command line as a user meets it: exit codes, what errors say, which way output goes.
mod cli;
// What was captured stays text, wherever it comes out.
#[cfg(unix)]
mod escaping;
// Live, in network namespaces, with real servers and clients.
#[cfg(target_os = "linux")]
mod e2e;
// What the fuzzer found.
mod findings;
// Capture files beside their golden output, and what must hold for every capture however it is read.
mod fixtures;
// The judge: what it says of runs that were made up, and of simulated ones.
mod judge;
// The Kubernetes manifests, and what is made of others.
mod kubernetes;
// GoReplay's command line: its black-box cases, and what its documentation promises.
mod gor;
// Scripts for GoReplay's middleware, and bad ones.
mod middleware;
// Pods in miniature: the walk-through on Kubernetes, request by request.
#[cfg(target_os = "linux")]
mod pod;
// The mock through the program.
mod mock;
// Recordings, written and read back.
mod record;
// The replay engine against real sockets: what the target gets to the byte, what becomes of each request.
mod replay;
// The verdict and the dashboard that the admin server gives.
mod dashboard;
// What the process cannot do any more once it has begun.
#[cfg(target_os = "linux")]
mod sandbox;
// Filters, samples and limits through the program.
mod traffic;
// Frames of every kind in files of every kind, down to the TCP segments.
mod wire;
// The peak of memory with many open connections and a target that stalls.
#[cfg(target_os = "linux")]
mod memory;
// The core has no clock, sockets, threads or files, and its lints say so.
mod purity;
// Lost packets and hostile traffic.
mod trust;
// What holds for any traffic.
mod properties;
// What they share: building captures, scoring, running the program.
mod support;
