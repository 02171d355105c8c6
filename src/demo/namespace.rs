//! A user and network namespace of the demonstration's own, so that it may capture without root (Linux).

use std::fs;
use std::io;

/// Why there is no namespace to capture in.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(super) struct NamespaceError {
    step: &'static str,
    source: io::Error,
}

/// Moves this process into a new user namespace, where it may do everything to a new network namespace, and brings the
/// loopback interface up there. To be called before any other thread runs.
///
/// # Errors
/// Which step the system refuses.
#[cfg(target_os = "linux")]
pub(super) fn enter() -> Result<(), NamespaceError> {
    let failed = |step| move |source| NamespaceError { step, source };
    let (user, group) = ids();
    unshare().map_err(failed("a new user and network namespace"))?;
    fs::write("/proc/self/setgroups", "deny").map_err(failed("writing /proc/self/setgroups"))?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))
        .map_err(failed("writing /proc/self/uid_map"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
        .map_err(failed("writing /proc/self/gid_map"))?;
    bring_loopback_up().map_err(failed("bringing the new loopback interface up"))
}

/// Elsewhere there are no namespaces.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub(super) fn enter() -> Result<(), NamespaceError> {
    Err(NamespaceError {
        step: "a new network namespace",
        source: io::ErrorKind::Unsupported.into(),
    })
}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "system calls without a safe wrapper in the standard library"
)]
fn ids() -> (u32, u32) {
    // SAFETY: both calls take nothing and always succeed.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "system calls without a safe wrapper in the standard library"
)]
fn unshare() -> io::Result<()> {
    // SAFETY: the call takes flags alone; neither flag changes memory or open files.
    match unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "system calls without a safe wrapper in the standard library"
)]
fn bring_loopback_up() -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: an ifreq is plain numbers, for which zero is a value; the kernel reads and writes only inside it, and it
    // outlives both calls. The name ends in zeros.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
