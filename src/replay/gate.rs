//! The gate before a target, for whoever knows that it must not be sent to now.

use tokio::sync::watch;

use crate::account::Reason;

/// Whether requests go to the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// They go.
    Open,
    /// They wait in the queue: somebody is finding out where the target's addresses lead.
    Hold,
    /// They are skipped as [`Reason::TargetIsVersion1`].
    Shut,
}

/// Waits until the gate is open or shut; tells whether a request may go.
pub(super) async fn pass(gate: &watch::Sender<Gate>) -> Result<(), Reason> {
    let state = *gate.borrow();
    let state = match state {
        Gate::Hold => {
            let mut changes = gate.subscribe();
            // It fails when the sender is gone, which this function borrows.
            let settled = changes.wait_for(|gate| *gate != Gate::Hold).await;
            settled.map_or(Gate::Shut, |gate| *gate)
        }
        settled => settled,
    };
    match state {
        Gate::Open | Gate::Hold => Ok(()),
        Gate::Shut => Err(Reason::TargetIsVersion1),
    }
}
