//! The pipeline of one capture worker: packets in, requests and responses out.
//!
//! A [`Tap`] decodes, reassembles, parses and pairs without handing anything to anybody in between. It has no clock:
//! time is the capture time of the packets that it is given.

mod connection;
mod connections;
mod dialogue;
mod ends;
mod lane;
mod pairing;
mod receipts;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::account::Account;
use crate::exchange::{Event, ExchangeId, Response};
use crate::http1::MessageLimits;
use crate::restraint::Share;
use crate::tcp::{Spare, StreamLimits};
use crate::time::Timestamp;
use crate::wire::{self, Decoder, DecoderConfig, LinkType, Packet};
use connections::Connections;

/// What a [`Tap`] looks at, and how much it may hold.
#[derive(Clone, Debug, Default)]
pub struct TapConfig {
    /// Which connections carry requests.
    pub watch: Watch,
    /// Bounds.
    pub limits: Limits,
    /// How frames are decoded.
    pub decoder: DecoderConfig,
    /// What becomes of answers.
    pub answers: Answers,
}

/// What becomes of the answers to requests that were read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Answers {
    /// They leave, each behind its request.
    #[default]
    HandedOut,
    /// They are followed and counted, and let go where they were read: for who wants requests alone.
    Counted,
}

impl Answers {
    /// As somebody wants them or not.
    #[must_use]
    pub const fn wanted(yes: bool) -> Self {
        if yes { Self::HandedOut } else { Self::Counted }
    }
}

/// Which connections carry requests.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Server ends; none means every TCP connection, with the client told by what it sends.
    pub ends: Vec<WatchedEnd>,
    /// When given, a watched server end must also have one of these addresses: so that a pod which calls another one
    /// on the watched port number is not taken for its server.
    pub local: Option<HashSet<IpAddr>>,
    /// Server ends elsewhere, which this machine calls.
    pub called: Arc<HashSet<SocketAddr>>,
}

/// A server end to watch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WatchedEnd {
    /// Its address; `None` is any.
    pub address: Option<IpAddr>,
    /// Its TCP port.
    pub port: u16,
}

impl fmt::Display for WatchedEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => SocketAddr::new(address, self.port).fmt(f),
            None => self.port.fmt(f),
        }
    }
}

impl Watch {
    /// Whether one of two ends is to be watched.
    fn covers(&self, ends: [SocketAddr; 2]) -> bool {
        self.ends.is_empty() || ends.into_iter().any(|end| self.is_server(end))
    }

    /// Which of two ends is the client, where the ports tell it.
    fn client(&self, ends: [SocketAddr; 2]) -> Option<usize> {
        match ends.map(|end| self.is_server(end)) {
            [false, true] => Some(0),
            [true, false] => Some(1),
            _ => None,
        }
    }

    fn is_server(&self, end: SocketAddr) -> bool {
        let is_watched = self.ends.iter().any(|watched| {
            watched.port == end.port() && watched.address.is_none_or(|address| address == end.ip())
        });
        let is_local = || {
            let local = self.local.as_ref();
            local.is_none_or(|local| local.contains(&end.ip()))
        };
        is_watched && is_local() || self.called.contains(&end)
    }
}

/// Bounds of a [`Tap`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Of one message.
    pub message: MessageLimits,
    /// Of one direction of a connection.
    pub stream: StreamLimits,
    /// Connections known at a time; the idlest go first.
    pub connections: usize,
    /// Bytes held in all; the idlest connections that hold any go first.
    pub memory: usize,
    /// How long a connection may be silent. A closed or half-open one is forgotten after a minute.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: MessageLimits::default(),
            stream: StreamLimits::default(),
            connections: 1 << 20,
            memory: 192 << 20,
            idle: Duration::from_secs(3 * 3600),
        }
    }
}

/// Where a connection puts what it finds, and what bounds it.
struct Sink<'a> {
    limits: &'a Limits,
    spare: &'a mut Spare,
    events: &'a mut VecDeque<Event>,
    account: &'a mut Account,
    next_exchange: &'a mut u64,
    answers: Answers,
}

impl Sink<'_> {
    /// The answer to an earlier request.
    fn answer(&mut self, id: ExchangeId, response: Response) {
        if self.answers == Answers::HandedOut {
            self.events.push_back(Event::Response { id, response });
        }
    }
}

/// Why a stream or connection came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Fin,
    Reset,
    Replaced,
    Idle,
    Evicted,
    OverLimit,
    CaptureEnded,
}

/// From packets to requests and responses.
///
/// ```text
/// packet() ─► Decoder ─► Segment ─► Connections ─► Connection { Stream × 2, Dialogue { MessageReader × 2 } } ─► poll()
/// ```
pub struct Tap {
    decoder: Decoder,
    connections: Connections,
}

impl Tap {
    /// A pipeline that has seen nothing.
    #[must_use]
    pub fn new(config: TapConfig) -> Self {
        let mut connections = Connections::new(config.watch, config.limits);
        connections.answers = config.answers;
        Self {
            decoder: Decoder::new(config.decoder),
            connections,
        }
    }

    /// Numbers exchanges and connections from `first` on, so that several pipelines have no number in common.
    pub fn number_from(&mut self, first: u64) {
        self.connections.number_from(first);
    }

    /// Replaces the local addresses (see [`Watch::local`]); connections already known stay as they are.
    pub fn set_local(&mut self, local: HashSet<IpAddr>) {
        self.connections.watch.local = Some(local);
    }

    /// Replaces the server ends elsewhere (see [`Watch::called`]); connections already known stay as they are.
    pub fn set_called(&mut self, called: HashSet<SocketAddr>) {
        self.connections.watch.called = Arc::new(called);
    }

    /// Follows only this share of the connections from now on. Those beyond it that are known already end here; when the
    /// share grows again, they are met again at their next message.
    pub fn keep(&mut self, share: Share) {
        self.connections.keep(share);
    }

    /// What was counted so far.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.connections.account
    }

    /// Bytes held for connections, bookkeeping included.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.connections.memory
    }

    /// The link type of packets that nothing was read of because it is unknown, if there were any.
    #[must_use]
    pub fn unknown_link(&self) -> Option<LinkType> {
        self.decoder.unknown_link()
    }

    /// The next thing found.
    pub fn poll(&mut self) -> Option<Event> {
        self.connections.events.pop_front()
    }

    /// Whether it pays to show packets to [`Self::expect`]. Where there are many connections, the one that a packet belongs to is not in
    /// a cache, and can be fetched while other packets are worked on.
    #[must_use]
    #[inline]
    pub fn looks_ahead(&self) -> bool {
        self.connections.are_many()
    }

    /// Gets ready for a packet that will be taken soon; changes nothing that anybody sees.
    #[inline]
    pub fn expect(&mut self, packet: &Packet<'_>) {
        if let Some(ends) = wire::plain_ends(packet) {
            self.connections.fetch(ends);
        }
    }

    /// Takes one packet.
    pub fn packet(&mut self, packet: &Packet<'_>) {
        self.idle(packet.time);
        // Not moved out of where it is: it is large.
        if let Some(segment) = &self.decoder.decode(packet, &mut self.connections.account) {
            self.connections.segment(segment);
        }
    }

    /// Lets time pass without a packet: holes that were proved lost are given up when their grace is over.
    pub fn idle(&mut self, now: Timestamp) {
        self.connections.idle(now);
    }

    /// Ends the capture: everything still open is finished as far as it goes, in the order in which it began.
    pub fn finish(&mut self) {
        self.decoder.finish(&mut self.connections.account);
        self.connections.finish();
    }
}
