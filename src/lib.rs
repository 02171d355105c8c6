//! shadowtap: passive shadow deployments.

#[deny(clippy::disallowed_types)]
pub mod account;
#[deny(clippy::disallowed_types)]
pub mod exchange;
#[deny(clippy::disallowed_types)]
pub mod http1;
#[deny(clippy::disallowed_types)]
pub mod tap;
#[deny(clippy::disallowed_types)]
pub mod tcp;
#[deny(clippy::disallowed_types)]
pub mod time;
#[deny(clippy::disallowed_types)]
pub mod wire;

pub mod admin;
pub mod app;
pub mod capture;
pub mod cli;
pub mod demo;
pub mod metrics;
pub mod progress;
pub mod record;
pub mod replay;
pub mod report;
