//! How long the network itself takes, as the kernel has measured it on a connection.

use std::time::Duration;

use tokio::net::TcpStream;

/// The round trip of a connection without what the target takes to answer; `None` where the system does not tell.
///
/// The kernel keeps a smoothed round trip and the least one of the last minutes, and this is the smaller of the two. While
/// requests and answers take turns, the acknowledgement of a request may travel with its answer, so that the smoothed one
/// holds the target's own time as well; the least one, in the end that of the handshake, does not.
#[cfg(target_os = "linux")]
pub(super) fn round_trip(stream: &TcpStream) -> Option<Duration> {
    let info = Info::of(stream)?;
    let smoothed = info.number(SMOOTHED).filter(|&micros| micros > 0)?;
    // A kernel without it, and one that has not measured yet, say 0 or the highest number.
    let least = info.number(LEAST).filter(|&micros| micros > 0);
    let micros = least.map_or(smoothed, |least| least.min(smoothed));
    Some(Duration::from_micros(micros.into()))
}

/// What the kernel tells of a connection.
#[cfg(target_os = "linux")]
struct Info {
    bytes: [u8; SIZE],
    written: usize,
}

#[cfg(target_os = "linux")]
impl Info {
    #[expect(
        unsafe_code,
        reason = "TCP_INFO has no safe wrapper in the standard library or in socket2"
    )]
    fn of(stream: &TcpStream) -> Option<Self> {
        use std::os::fd::AsRawFd as _;

        let mut bytes = [0u8; SIZE];
        let mut length = libc::socklen_t::try_from(SIZE).ok()?;
        // SAFETY: the descriptor is open as long as `stream` is borrowed; the kernel writes at most `length` bytes into
        // `bytes`, and how many it wrote into `length`; both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                bytes.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let written = usize::try_from(length).unwrap_or(0).min(SIZE);
        (result == 0).then_some(Self { bytes, written })
    }

    /// `None` where the kernel is too old to have it.
    fn number(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes[..self.written].get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }
}

/// The round trip of a connection without what the target takes to answer; `None` where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub(super) fn round_trip(_stream: &TcpStream) -> Option<Duration> {
    None
}

/// Where the kernel puts `tcpi_rtt` and `tcpi_min_rtt`, in microseconds, in its
/// `struct tcp_info` (linux/tcp.h). Fields are only ever added at its end.
#[cfg(target_os = "linux")]
const SMOOTHED: usize = 68;
#[cfg(target_os = "linux")]
const LEAST: usize = 148;

/// As much of it as is asked for.
#[cfg(target_os = "linux")]
const SIZE: usize = 152;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_targets_own_time_is_not_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(30)).await;
                stream.write_all(&byte).await.unwrap();
            }
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..5 {
            stream.write_all(b"x").await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
        }
        let measured = round_trip(&stream).expect("Linux tells");
        assert!(measured < Duration::from_millis(30), "{measured:?}");
        drop(stream);
        serve.await.unwrap();
    }
}
