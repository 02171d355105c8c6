//! Several sources as one, in the order of capture times.

use super::{CaptureError, PacketSource};
use crate::time::Timestamp;
use crate::wire::{LinkType, Packet};

/// Packets of several sources, merged by time; what one source gives keeps its order. One source passes through as is.
///
/// A source that fails ends there and the others go on; the first failure is reported at the end of all.
pub struct Merged<S> {
    sources: Vec<Waiting<S>>,
    /// The source whose packet was handed out last.
    current: Option<usize>,
    failed: Option<CaptureError>,
}

/// A source, and a copy of the packet that is its next.
struct Waiting<S> {
    source: S,
    next: Next,
    time: Timestamp,
    link: LinkType,
    wire_len: u32,
    data: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Unknown,
    Here,
    None,
}

impl<S: PacketSource> Merged<S> {
    /// Merges `sources`.
    #[must_use]
    pub fn new(sources: impl IntoIterator<Item = S>) -> Self {
        Self {
            sources: sources
                .into_iter()
                .map(|source| Waiting {
                    source,
                    next: Next::Unknown,
                    time: Timestamp::ZERO,
                    link: LinkType(0),
                    wire_len: 0,
                    data: Vec::new(),
                })
                .collect(),
            current: None,
            failed: None,
        }
    }

    /// The sources, in the order given.
    pub fn sources(&self) -> impl Iterator<Item = &S> {
        self.sources.iter().map(|waiting| &waiting.source)
    }
}

impl<S: PacketSource> PacketSource for Merged<S> {
    fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        if self.sources.len() == 1 {
            return self.sources[0].source.next_packet();
        }
        if let Some(handed_out) = self.current.take() {
            self.sources[handed_out].next = Next::Unknown;
        }
        for waiting in &mut self.sources {
            if waiting.next == Next::Unknown
                && let Err(error) = waiting.fill()
            {
                if self.failed.is_none() {
                    self.failed = Some(error);
                } else {
                    tracing::error!("{error}");
                }
            }
        }
        let earliest = self
            .sources
            .iter()
            .enumerate()
            .filter(|(_, waiting)| waiting.next == Next::Here)
            .min_by_key(|(_, waiting)| waiting.time)
            .map(|(index, _)| index);
        match earliest {
            Some(index) => {
                self.current = Some(index);
                Ok(Some(self.sources[index].packet()))
            }
            None => self.failed.take().map_or(Ok(None), Err),
        }
    }

    fn upcoming(&mut self) -> Option<Packet<'_>> {
        match &mut self.sources[..] {
            [only] => only.source.upcoming(),
            _ => None,
        }
    }
}

impl<S: PacketSource> Waiting<S> {
    fn fill(&mut self) -> Result<(), CaptureError> {
        self.next = Next::None;
        if let Some(packet) = self.source.next_packet()? {
            self.next = Next::Here;
            self.time = packet.time;
            self.link = packet.link;
            self.wire_len = packet.wire_len;
            self.data.clear();
            self.data.extend_from_slice(packet.data);
        }
        Ok(())
    }

    fn packet(&self) -> Packet<'_> {
        Packet {
            time: self.time,
            link: self.link,
            wire_len: self.wire_len,
            data: &self.data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets at these times; then an error, if there is one.
    struct Given(Vec<u64>, Option<CaptureError>);

    impl PacketSource for Given {
        fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
            if self.0.is_empty() {
                return self.1.take().map_or(Ok(None), Err);
            }
            Ok(Some(Packet {
                time: Timestamp::from_nanos(self.0.remove(0)),
                link: LinkType(1),
                wire_len: 0,
                data: &[],
            }))
        }
    }

    fn damaged() -> CaptureError {
        CaptureError::Empty {
            name: "b".to_owned(),
        }
    }

    fn times(mut merged: Merged<Given>) -> (Vec<u64>, bool) {
        let mut times = Vec::new();
        loop {
            match merged.next_packet() {
                Ok(Some(packet)) => times.push(packet.time.as_nanos()),
                Ok(None) => return (times, true),
                Err(_) => return (times, false),
            }
        }
    }

    #[test]
    fn merges_by_time_and_keeps_each_sources_order() {
        let sources = [vec![1, 5, 4, 9], vec![], vec![2, 3, 6]];
        let merged = Merged::new(sources.map(|times| Given(times, None)));
        assert_eq!(times(merged), (vec![1, 2, 3, 5, 4, 6, 9], true));
    }

    #[test]
    fn one_damaged_source_ends_alone() {
        let merged = Merged::new([Given(vec![1, 3], Some(damaged())), Given(vec![2, 9], None)]);
        assert_eq!(times(merged), (vec![1, 2, 3, 9], false));
    }
}
