//! What of a connection waits until something else was seen; nearly always nothing, so it is not in the connection itself.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Connection;
use super::claim::Claim;
use super::kept::Kept;
use super::reset::Suspended;
use crate::tap::Sink;
use crate::tcp::{Mark, Out};

/// What waits.
#[derive(Default)]
pub(super) struct Undecided {
    /// Payload of a SYN, until it is known whether the server took it.
    pub(super) syn_payload: Option<SynPayload>,
    /// A reset was seen that the receiver may not have taken.
    pub(super) suspended: Option<Suspended>,
    /// For each sender, a segment whose acknowledgement is not believed yet.
    pub(super) claims: [Option<Claim>; 2],
    /// For each sender, segments whose checksum is wrong.
    pub(super) damaged: [VecDeque<Kept>; 2],
    /// Server bytes that acknowledge client bytes which the capture has not shown yet.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// For each direction, the stream offset of a byte that the urgent pointer takes out of the stream.
    pub(super) urgent: [Option<u64>; 2],
}

/// Payload that came with a SYN.
pub(super) struct SynPayload {
    /// Its direction.
    pub(super) sender: usize,
    /// The sequence number of its first byte.
    pub(super) seq: u32,
    pub(super) bytes: Bytes,
    pub(super) mark: Mark,
}

/// A part of the server's stream that waits, and where in it that is.
struct Waiting {
    out: Out,
    offset: u64,
}

impl Waiting {
    fn memory(&self) -> usize {
        let bytes = match &self.out {
            Out::Data(bytes, ..) => bytes.len(),
            _ => 0,
        };
        std::mem::size_of::<Self>() + bytes
    }
}

impl Undecided {
    /// Whether nothing waits any more.
    fn is_over(&self) -> bool {
        self.syn_payload.is_none()
            && self.suspended.is_none()
            && self.claims.iter().all(Option::is_none)
            && self.damaged.iter().all(VecDeque::is_empty)
            && self.waiting.is_empty()
            && self.urgent.iter().all(Option::is_none)
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        let claims = self.claims.iter().flatten();
        std::mem::size_of::<Self>()
            + self.suspended.as_ref().map_or(0, |it| it.bytes)
            + claims.map(Claim::memory).sum::<usize>()
            + self
                .damaged
                .iter()
                .flatten()
                .map(Kept::memory)
                .sum::<usize>()
            + self.waiting_bytes
    }
}

impl Connection {
    pub(super) fn undecided(&mut self) -> &mut Undecided {
        self.undecided.get_or_insert_default()
    }

    /// Lets go of what waited, when nothing does any more.
    #[inline]
    pub(super) fn tidy(&mut self) {
        if self.undecided.as_ref().is_some_and(|it| it.is_over()) {
            self.undecided = None;
        }
    }

    pub(super) fn suspended(&self) -> Option<&Suspended> {
        self.undecided.as_ref()?.suspended.as_ref()
    }

    /// The payload of a SYN of that direction.
    pub(super) fn syn_payload(&self, sender: usize) -> Option<&SynPayload> {
        let payload = self.undecided.as_ref()?.syn_payload.as_ref();
        payload.filter(|payload| payload.sender == sender)
    }

    pub(super) fn take_syn_payload(&mut self) -> Option<SynPayload> {
        self.undecided.as_mut()?.syn_payload.take()
    }

    pub(super) fn claim(&self, direction: usize) -> Option<&Claim> {
        self.undecided.as_ref()?.claims[direction].as_ref()
    }

    pub(super) fn take_claim_if(
        &mut self,
        direction: usize,
        condition: impl FnOnce(&mut Claim) -> bool,
    ) -> Option<Claim> {
        self.undecided.as_mut()?.claims[direction].take_if(condition)
    }

    /// Where the urgent byte of a direction is.
    pub(super) fn urgent(&self, direction: usize) -> Option<u64> {
        self.undecided.as_ref()?.urgent[direction]
    }

    /// Whether any of the server's bytes wait.
    pub(super) fn has_waiting(&self) -> bool {
        self.undecided
            .as_ref()
            .is_some_and(|it| !it.waiting.is_empty())
    }

    /// Keeps a part of the server's stream back.
    pub(super) fn wait(&mut self, out: Out, offset: u64) {
        let waiting = Waiting { out, offset };
        let undecided = self.undecided();
        undecided.waiting_bytes += waiting.memory();
        undecided.waiting.push_back(waiting);
    }

    /// Reads the server's bytes that were waiting for the client's, as far as they may go now.
    #[inline]
    pub(super) fn read_waiting(&mut self, sink: &mut Sink<'_>) {
        while self.has_waiting() {
            let Some(client) = self.client() else { break };
            let front = self.undecided().waiting.front();
            if let Some(Waiting {
                out: Out::Data(_, mark, _),
                ..
            }) = front
                && let mark = *mark
                && self.is_early(1 - client, mark)
            {
                return;
            }
            self.read_one_waiting(1 - client, sink);
        }
    }

    /// Reads all of them, once the client's stream has nothing left to give.
    pub(super) fn force_waiting(&mut self, sink: &mut Sink<'_>) {
        let client = self.client().unwrap_or(0);
        if self.streams[client].hole().is_some() && !self.streams[client].has_ended() {
            return;
        }
        while self.has_waiting() {
            self.read_one_waiting(1 - client, sink);
        }
    }

    fn read_one_waiting(&mut self, direction: usize, sink: &mut Sink<'_>) {
        let undecided = self.undecided();
        let Some(waiting) = undecided.waiting.pop_front() else {
            return;
        };
        undecided.waiting_bytes -= waiting.memory();
        let Waiting { out, offset } = waiting;
        self.hand_over_now(direction, out, offset, sink);
    }
}
