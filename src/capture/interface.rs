//! What the network interfaces themselves have dropped, before any capture could see it (Linux).
//!
//! libpcap reads the same counters for `ps_ifdrop`, but of promiscuous handles alone, and the ones here are not; of the
//! interface "any" it never does.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::live::ANY_INTERFACE;

/// The counters of one interface, or of all; none where the system has no such files.
///
/// They are opened once: later, the process may not open them any more.
#[derive(Default)]
pub(super) struct Missed {
    counters: Vec<Counter>,
}

struct Counter {
    file: File,
    last: u64,
}

/// No buffer of the interface was free; its own queue was full.
const COUNTERS: [&str; 2] = ["rx_missed_errors", "rx_fifo_errors"];

impl Missed {
    pub(super) fn of(interface: &str) -> Self {
        Self::within(Path::new("/sys/class/net"), interface)
    }

    fn within(folder: &Path, interface: &str) -> Self {
        let folders = match interface {
            ANY_INTERFACE => fs::read_dir(folder)
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect(),
            _ => vec![folder.join(interface)],
        };
        let files = folders.iter().flat_map(|interface| {
            COUNTERS.map(|counter| File::open(interface.join("statistics").join(counter)))
        });
        let counters = files.filter_map(|file| {
            let mut counter = Counter {
                file: file.ok()?,
                last: 0,
            };
            // What was dropped before the capture began is no loss of it.
            counter.new_ones();
            Some(counter)
        });
        Self {
            counters: counters.collect(),
        }
    }

    /// How many more packets than at the last call.
    pub(super) fn new_ones(&mut self) -> u64 {
        self.counters.iter_mut().map(Counter::new_ones).sum()
    }
}

impl Counter {
    fn new_ones(&mut self) -> u64 {
        let mut text = [0; 32];
        // An interface that is gone drops nothing more.
        let read = self.file.read_at(&mut text, 0).unwrap_or(0);
        let number = str::from_utf8(&text[..read]).map(|text| text.trim().parse());
        let Ok(Ok(now)) = number else {
            return 0;
        };
        now - std::mem::replace(&mut self.last, now).min(now)
    }
}

// No test makes a real interface drop: of those that Linux makes without hardware, none but tunnels with sequence numbers
// counts here (GRE), and not every kernel has them. `tests/completeness.rs` puts other files in the place of the system's.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_interfaces_drop_from_now_on() {
        let folder = tempfile::tempdir().expect("a directory");
        let set = |interface: &str, counter: &str, value: &str| {
            let statistics = folder.path().join(interface).join("statistics");
            fs::create_dir_all(&statistics).expect("created");
            fs::write(statistics.join(counter), value).expect("written");
        };
        set("eth0", "rx_missed_errors", "40\n");
        set("eth0", "rx_fifo_errors", "2\n");
        set("eth0", "rx_dropped", "7\n");
        set("eth1", "rx_missed_errors", "0\n");
        let mut one = Missed::within(folder.path(), "eth0");
        let mut any = Missed::within(folder.path(), ANY_INTERFACE);
        let mut unknown = Missed::within(folder.path(), "eth7");
        for missed in [&mut one, &mut any, &mut unknown] {
            assert_eq!(missed.new_ones(), 0);
        }
        set("eth0", "rx_missed_errors", "45\n");
        set("eth0", "rx_fifo_errors", "3\n");
        set("eth0", "rx_dropped", "8\n");
        set("eth1", "rx_missed_errors", "1\n");
        assert_eq!((one.new_ones(), any.new_ones()), (6, 7));
        assert_eq!((one.new_ones(), any.new_ones()), (0, 0));
        // Reset, and unreadable.
        set("eth0", "rx_missed_errors", "1\n");
        set("eth0", "rx_fifo_errors", "");
        assert_eq!(one.new_ones(), 0);
        set("eth0", "rx_missed_errors", "3\n");
        assert_eq!((one.new_ones(), unknown.new_ones()), (2, 0));
    }
}
