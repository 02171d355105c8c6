//! Keeps a target's addresses fresh.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::shared::Shared;
use super::{Gate, Host, ResolveError, TargetState};

/// Asks the resolver at once, every half minute, and when connections fail, until the engine has stopped.
pub(super) async fn keep_resolved(shared: Arc<Shared>) {
    loop {
        let asked = Instant::now();
        let answer = shared.config.target.resolve_once(PATIENCE).await;
        let pause = if answer.is_ok() { FRESH } else { RETRY };
        publish(&shared, answer);
        // Failing connections ask for more, but not more often than this.
        sleep_until(asked + RETRY).await;
        tokio::select! {
            () = shared.ask_again.notified() => {}
            () = sleep_until(asked + pause) => {}
        }
    }
}

fn publish(shared: &Shared, answer: Result<Vec<SocketAddr>, ResolveError>) {
    let target = &shared.config.target;
    shared.target.send_if_modified(|state| {
        let next = match answer {
            Ok(addresses) => TargetState::Resolved(addresses),
            // Old addresses are worth more than none.
            Err(error) if state.is_resolved() => {
                tracing::debug!(%target, %error, "keeping the old addresses");
                return false;
            }
            Err(error) => TargetState::Unresolved(error),
        };
        if *state == next {
            return false;
        }
        if shared.config.hold_new_addresses {
            // Before anybody sees the addresses: none of them gets a request unlooked at.
            match (&*state, &next) {
                (TargetState::Resolved(old), TargetState::Resolved(new)) if is_same(old, new) => {}
                (_, TargetState::Resolved(_)) => shared.set_gate(Gate::Hold),
                (_, TargetState::Unresolved(_)) => shared.set_gate(Gate::Open),
                (_, TargetState::Asking) => {}
            }
        }
        match &next {
            TargetState::Resolved(_) if matches!(target.host(), Host::Address(_)) => {}
            TargetState::Resolved(addresses) => {
                tracing::info!(%target, ?addresses, "target resolved");
            }
            TargetState::Unresolved(error) => tracing::warn!(%target, "{error}; asking again"),
            TargetState::Asking => {}
        }
        *state = next;
        true
    });
}

/// Whether both hold the same addresses; resolvers turn their order round.
fn is_same(one: &[SocketAddr], other: &[SocketAddr]) -> bool {
    let sorted = |addresses: &[SocketAddr]| {
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    };
    sorted(one) == sorted(other)
}

/// How long addresses are used before the resolver is asked again.
const FRESH: Duration = Duration::from_secs(30);

/// How soon it is asked again after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
