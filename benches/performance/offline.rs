//! Capture files: the floors and what shadowtap takes for the same file.

use std::path::Path;

use shadowtap::capture::PacketSource;
use shadowtap::capture::file::FileSource;
use shadowtap::tap::{Tap, TapConfig};

use super::measure::thread_cpu;

/// What one pass over a file took, behind the first packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    /// Packets that were timed.
    pub(crate) packets: u64,
    /// Heads or messages that were found in all.
    pub(crate) found: u64,
    /// CPU seconds.
    pub(crate) seconds: f64,
}

/// libpcap reads, etherparse and httparse look at every segment, and nothing is kept.
pub(crate) fn floor(file: &Path, skip: u64) -> Pass {
    let mut capture = pcap::Capture::from_file(file).expect("a capture file");
    let mut pass = Pass {
        packets: 0,
        found: 0,
        seconds: 0.0,
    };
    let mut all = 0;
    let mut start = thread_cpu();
    while let Ok(packet) = capture.next_packet() {
        all += 1;
        if all == skip {
            start = thread_cpu();
        }
        let Ok(sliced) = etherparse::SlicedPacket::from_ethernet(packet.data) else {
            continue;
        };
        let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else {
            continue;
        };
        let payload = tcp.payload();
        if payload.is_empty() {
            continue;
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let complete = if payload.starts_with(b"HTTP/") {
            httparse::Response::new(&mut headers)
                .parse(payload)
                .is_ok_and(|it| it.is_complete())
        } else {
            httparse::Request::new(&mut headers)
                .parse(payload)
                .is_ok_and(|it| it.is_complete())
        };
        pass.found += u64::from(complete);
    }
    pass.seconds = thread_cpu() - start;
    pass.packets = all - skip;
    pass
}

/// shadowtap's library: packets in, requests and responses out.
pub(crate) fn subject(file: &Path, skip: u64) -> Pass {
    let mut source = FileSource::open(file).expect("a capture file");
    let mut tap = Tap::new(TapConfig::default());
    let mut pass = Pass {
        packets: 0,
        found: 0,
        seconds: 0.0,
    };
    let mut all = 0;
    let mut start = thread_cpu();
    loop {
        // As `app::input` does.
        while tap.looks_ahead()
            && let Some(packet) = source.upcoming()
        {
            tap.expect(&packet);
        }
        let Some(packet) = source.next_packet().expect("no damage") else {
            break;
        };
        all += 1;
        if all == skip {
            start = thread_cpu();
        }
        tap.packet(&packet);
        while tap.poll().is_some() {
            pass.found += 1;
        }
    }
    pass.seconds = thread_cpu() - start;
    pass.packets = all - skip;
    pass
}
