//! shadowtap runs beside version 1 of a service, watches the packets that already flow, rebuilds the HTTP/1 requests in
//! them, and sends each one to version 2 as well. Version 1's request path is never touched: nothing proxies it, nothing
//! waits for it.
//!
//! This page is the map; `docs/architecture.md` has the decisions and their measurements.
//!
//! # The way of the data
//!
//! ```text
//!             core: no clock, no sockets, no threads, no async
//!         ┌──────────────────────────────────────────────────────────────┐
//!  pcap   │  wire          tcp               http1                       │  bounded channel
//!  live ──┼► Packet ─────► Segment ────────► Request ──► Event ──────────┼──► forwarder ──► replay::Engine ──► version 2
//!  file   │  decode        reassemble        parse, pair                 │             └──► record::Writer
//!         └──────────────────────────────── tap ─────────────────────────┘             └──► report, metrics
//! ```
//!
//! # The words
//!
//! | word | meaning | type |
//! |---|---|---|
//! | packet | what libpcap or a capture file hands over: a frame, its capture time, its length on the wire | [`wire::Packet`] |
//! | segment | one TCP segment: addresses, sequence number, flags, payload | [`wire::Segment`] |
//! | connection | client and server address; the server end is the one that the user told us to watch | [`exchange::Endpoints`] |
//! | message | one HTTP request or response | [`exchange::Request`], [`exchange::Response`] |
//! | exchange | a request and the answer that version 1 gave to it | [`exchange::Exchange`] |
//! | event | what leaves a tap | [`exchange::Event`] |
//! | replay | a request sent to a target; its outcome is answered, failed or skipped | [`replay::Replay`] |
//! | target | where requests are replayed to | [`replay::Target`] |
//! | stub | a call that version 1 made, and the answer that a mock gives to it | [`mock::stub::Stub`] |
//! | account | what came in, what went on, and under which name everything else left | [`account::Account`] |
//!
//! # Threads and queues
//!
//! * `capture` owns the capture handle and a [`tap::Tap`], and runs every packet to completion: decode, reassemble, parse,
//!   pair. Nothing on this way is shared, locked or queued. With `--workers` or several interfaces there are several,
//!   `capture-N`; both directions of a connection always meet in one. See [`app::live`].
//! * `capture-waker` makes it look up ten times a second: libpcap may block for ever on an idle interface.
//! * The only queue out of it is a bounded channel of batches, one batch for each block of packets. Live, a full queue drops
//!   and counts; from a file there is no queue, and the reader waits.
//! * `forward` offers each request to every engine; `replay-N` are the engines' threads, which send
//!   ([`replay::Engine`]); `write` writes a recording.
//! * `feed` tells a mock what version 1 called, and asks for the side effects; it exists where `--to-mock` is given.
//! * The main thread runs signals, the admin server, and ten times a second the metrics and the progress line. Workers
//!   publish copies of their accounts to it; no counter is shared.
//! * Closing a channel is the shutdown message. There are no stop flags: capture ends when its [`app::live::Stop`] is
//!   dropped, the forwarder when the channel closes, the engines when they have drained or the grace period is over.
//!
//! # What holds everywhere
//!
//! * Hostile bytes are values, not errors: a gap, a lost framing, a malformed head. Nothing on the wire stops a worker.
//! * Time is an argument. The core knows packet time only, so that a file gives the same result at any speed.
//! * Whatever enters a stage leaves it through exactly one counted exit: `in = out + Σ dropped{reason}`,
//!   held by [`account::Account::check`] at the end of every run.
//! * What was not seen whole is never replayed.
//!
//! # Where a change goes
//!
//! | to change | go to |
//! |---|---|
//! | a link layer or tunnel | [`wire`] |
//! | what a receiving kernel would accept | [`tcp`] |
//! | framing or pairing of messages | [`http1`], [`tap`] |
//! | a reason for loss | [`account::Reason`]: the account, the metrics and the documentation follow |
//! | a flag | the verb's file in [`cli`]; every flag has its environment variable |
//! | how the stages of a verb are put together | [`app`] |
//! | which requests are replayed, and what is changed in them | [`traffic`] |
//! | how requests are sent | [`replay`] |
//! | what is counted of two answers, and when version 2 is ready | [`judge`] |
//! | how a mock finds its answers, and what counts as a side effect | [`mock`] |
//! | what is put into a Kubernetes manifest | [`inject`] |
//! | what a middleware is told, and how it is kept running | [`middleware`] |
//! | what a flag of GoReplay means | [`goreplay`] |
//! | a file format | [`record`] for messages, [`capture::file`] for packets |

// The core. Clocks, sockets, threads and files are denied here; clippy.toml says why.
#[deny(clippy::disallowed_types)]
pub mod account;
#[deny(clippy::disallowed_types)]
pub mod compare;
#[deny(clippy::disallowed_types)]
pub mod exchange;
#[deny(clippy::disallowed_types)]
pub mod goreplay;
#[deny(clippy::disallowed_types)]
pub mod http1;
#[deny(clippy::disallowed_types)]
pub mod judge;
#[deny(clippy::disallowed_types)]
pub mod mock;
#[deny(clippy::disallowed_types)]
pub mod restraint;
#[deny(clippy::disallowed_types)]
pub mod tap;
#[deny(clippy::disallowed_types)]
pub mod tcp;
#[deny(clippy::disallowed_types)]
pub mod time;
#[deny(clippy::disallowed_types)]
pub mod traffic;
#[deny(clippy::disallowed_types)]
pub mod wire;

#[cfg(test)]
mod random;

// The shell around it.
pub mod admin;
pub mod app;
pub mod capture;
pub mod cli;
pub mod demo;
pub mod inject;
pub mod metrics;
pub mod middleware;
pub mod progress;
pub mod record;
pub mod replay;
pub mod report;
pub mod sandbox;
pub mod serve;
