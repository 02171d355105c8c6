//! Shares the packets of one interface out among several capture handles (Linux): all packets of a connection, in both
//! directions, go to the same one.

use std::io;

use pcap::{Active, Capture};

/// Handles on one interface among which the kernel shares out its packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Group(u16);

impl Group {
    /// A new group with this handle in it. The kernel chooses a number that no other program uses.
    pub(super) fn found(capture: &Capture<Active>) -> io::Result<Self> {
        join(capture, 0, libc::PACKET_FANOUT_FLAG_UNIQUEID)?;
        Ok(Self(number_of(capture)?))
    }

    /// Lets one more handle in.
    pub(super) fn join(self, capture: &Capture<Active>) -> io::Result<()> {
        join(capture, self.0, 0)
    }
}

/// The hash is the kernel's own over addresses and ports, the same for both directions (since Linux 4.6); IP fragments are
/// put together first, as only the first of them has ports.
#[expect(
    unsafe_code,
    reason = "PACKET_FANOUT has no safe wrapper in the standard library, in rustix or in pcap"
)]
fn join(capture: &Capture<Active>, group: u16, flags: libc::c_uint) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    let how = libc::PACKET_FANOUT_HASH | libc::PACKET_FANOUT_FLAG_DEFRAG | flags;
    let argument: libc::c_uint = how << 16 | libc::c_uint::from(group);
    let length = libc::socklen_t::try_from(size_of_val(&argument)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open as long as `capture` is borrowed; the kernel reads `length` bytes of `argument`, which
    // outlives the call.
    let result = unsafe {
        libc::setsockopt(
            capture.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw const argument).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The number of the group that a handle is in.
#[expect(
    unsafe_code,
    reason = "PACKET_FANOUT has no safe wrapper in the standard library, in rustix or in pcap"
)]
fn number_of(capture: &Capture<Active>) -> io::Result<u16> {
    use std::os::fd::AsRawFd as _;

    let mut argument: libc::c_uint = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&argument)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open as long as `capture` is borrowed; the kernel writes at most `length` bytes into
    // `argument`, and how many it wrote into `length`; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            capture.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw mut argument).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // The number is the lower half; above it is how packets are shared out.
    u16::try_from(argument & 0xffff).map_err(io::Error::other)
}
