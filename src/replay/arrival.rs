//! When bytes from the target came in, as the kernel noted it.

use std::io::{self, Read as _};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// Bytes that were read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Arrived {
    /// How many; none at the end of the stream.
    pub(super) bytes: usize,
    /// How long the last of them had lain with the kernel; zero where the system does not tell.
    pub(super) unread: Duration,
}

/// Reads what is there, without a look at when it came: that costs a little for each read.
///
/// # Errors
/// As recv(2); `WouldBlock` when nothing is there.
pub(super) fn receive(stream: &TcpStream, into: &mut [u8]) -> io::Result<Arrived> {
    Ok(Arrived {
        bytes: (&*SockRef::from(stream)).read(into)?,
        unread: Duration::ZERO,
    })
}

/// Has the kernel note when bytes come in on a connection (socket(7), `SO_TIMESTAMPNS`).
#[cfg(target_os = "linux")]
pub(super) fn note(stream: &TcpStream) {
    use nix::sys::socket::{setsockopt, sockopt::ReceiveTimestampns};

    if let Err(error) = setsockopt(stream, ReceiveTimestampns, &true) {
        tracing::debug!(%error, "SO_TIMESTAMPNS");
    }
}

/// Reads what is there.
///
/// # Errors
/// As recvmsg(2); `WouldBlock` when nothing is there.
#[cfg(target_os = "linux")]
pub(super) fn receive_noted(stream: &TcpStream, into: &mut [u8]) -> io::Result<Arrived> {
    use std::io::IoSliceMut;
    use std::os::fd::AsRawFd as _;
    use std::time::{SystemTime, UNIX_EPOCH};

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

    let mut notes = Notes([0; 64]);
    let mut parts = [IoSliceMut::new(into)];
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut notes.0),
        MsgFlags::empty(),
    )?;
    let noted = message.cmsgs()?.find_map(|note| match note {
        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
        _ => None,
    });
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).ok();
    // The clock may have been set back meanwhile.
    let unread = noted.and_then(|at| now()?.checked_sub(at));
    Ok(Arrived {
        bytes: message.bytes,
        unread: unread.unwrap_or_default(),
    })
}

/// Room for the kernel's note, 32 bytes, which begins where a number may (cmsg(3)).
#[cfg(target_os = "linux")]
#[repr(align(8))]
struct Notes([u8; 64]);

/// Has the kernel note when bytes come in on a connection, where it can.
#[cfg(not(target_os = "linux"))]
pub(super) fn note(_stream: &TcpStream) {}

/// Reads what is there.
///
/// # Errors
/// As recv(2); `WouldBlock` when nothing is there.
#[cfg(not(target_os = "linux"))]
pub(super) fn receive_noted(stream: &TcpStream, into: &mut [u8]) -> io::Result<Arrived> {
    receive(stream, into)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::Instant;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_lies_unread_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        note(&stream);
        let (mut server, _) = listener.accept().await.unwrap();
        let error = receive_noted(&stream, &mut [0; 9]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        // The kernel begins to take notes some time after it was asked to.
        for tries in 0.. {
            assert!(tries < 10_000, "there are no notes");
            server.write_all(b"x").await.unwrap();
            stream.peek(&mut [0; 9]).await.unwrap();
            if receive_noted(&stream, &mut [0; 9]).unwrap().unread > Duration::ZERO {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The clock of the notes is one that may be set a little faster or slower.
        let (lain, slack) = (Duration::from_millis(60), Duration::from_millis(5));
        for text in [&b"x"[..], b"yz"] {
            let before = Instant::now();
            server.write_all(text).await.unwrap();
            stream.peek(&mut [0; 9]).await.unwrap();
            tokio::time::sleep(lain).await;
            let arrived = receive_noted(&stream, &mut [0; 9]).unwrap();
            assert_eq!(arrived.bytes, text.len());
            assert!(arrived.unread + slack >= lain, "{arrived:?}");
            assert!(arrived.unread <= before.elapsed() + slack, "{arrived:?}");
        }
        drop(server);
        assert_eq!(receive_noted(&stream, &mut [0; 9]).unwrap().bytes, 0);
    }
}
