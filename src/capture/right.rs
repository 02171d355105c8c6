//! The right to capture: CAP_NET_RAW, in force only while a handle is opened, and given up with every other capability
//! once nothing more is opened (Linux).
//!
//! A program file with the capability permitted (`setcap cap_net_raw+p`) runs everywhere, also where it may not capture:
//! a container without the capability could not even start one that has it effective (`+ep`). So the capability is raised
//! here, where it is needed, and lowered again.

/// Does `open` with the right to capture, as far as this process has it.
#[cfg(target_os = "linux")]
pub(super) fn with_right_to_capture<T>(open: impl FnOnce() -> T) -> T {
    use caps::{CapSet, Capability::CAP_NET_RAW};

    let is_in_force = caps::has_cap(None, CapSet::Effective, CAP_NET_RAW).unwrap_or(true);
    // Where it is not permitted, opening says so in better words.
    let raised = !is_in_force && caps::raise(None, CapSet::Effective, CAP_NET_RAW).is_ok();
    let opened = open();
    if raised && let Err(error) = caps::drop(None, CapSet::Effective, CAP_NET_RAW) {
        tracing::warn!(%error, "CAP_NET_RAW stays in force");
    }
    opened
}

/// Gives every capability up for good, for this thread and those that it starts from now on, and says so.
///
/// A capture that is open needs none: it stays open while interfaces come and go, `any` sees new ones by itself, and one
/// whose interface is gone ends the program, so that whoever runs it starts it again with fresh rights.
#[cfg(target_os = "linux")]
pub fn give_up_capabilities() {
    use caps::CapSet;

    let sets = [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ];
    let given_up = sets
        .into_iter()
        .map(|set| caps::clear(None, set))
        .collect::<Result<Vec<()>, _>>();
    match given_up {
        Ok(_) => tracing::info!("the capture is open; every capability is given up"),
        Err(error) => tracing::warn!(%error, "not every capability can be given up"),
    }
}

/// Elsewhere there is nothing to give up.
#[cfg(not(target_os = "linux"))]
pub fn give_up_capabilities() {}

/// Does `open`; elsewhere the right is that of the user.
#[cfg(not(target_os = "linux"))]
pub(super) fn with_right_to_capture<T>(open: impl FnOnce() -> T) -> T {
    open()
}
