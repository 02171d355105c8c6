//! What the pipeline is about: requests, responses, and the exchanges they make.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::account::Reason;
use crate::http1::{Body, RequestHead, ResponseHead};
use crate::time::Timestamp;

/// Names one exchange: a request and the answer to it. Unique within a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ExchangeId(pub u64);

/// Names one TCP connection. Unique within a run, even when addresses and ports come again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The two ends of a connection; the client is the end that sends requests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Endpoints {
    /// Sends requests.
    pub client: SocketAddr,
    /// Answers them.
    pub server: SocketAddr,
}

/// Whether every byte of a message was seen, in an order that left no doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completeness {
    /// From the first byte to the last.
    Whole,
    /// Not; the reason is one of the request's or response's stage.
    Incomplete(Reason),
}

impl Completeness {
    /// Whether the message is whole.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        matches!(self, Self::Whole)
    }
}

/// What makes a message readable in more than one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Doubts {
    /// `Content-Length` beside `Transfer-Encoding` (RFC 9112 §6.3 clause 3), or a transfer coding that ends in
    /// something other than one plain `chunked`.
    pub transfer_encoding: bool,
    /// Several or invalid `Content-Length`s (RFC 9112 §6.3 clause 5).
    pub content_length: bool,
    /// The head breaks the grammar in a way that servers read differently.
    pub head: bool,
    /// A retransmission held other bytes than the original.
    pub retransmission: bool,
}

impl Doubts {
    /// Whether there is any.
    #[must_use]
    pub const fn any(self) -> bool {
        self.transfer_encoding || self.content_length || self.head || self.retransmission
    }
}

/// One HTTP request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The exchange that it begins.
    pub id: ExchangeId,
    /// The connection that it came on.
    pub connection: ConnectionId,
    /// The ends of that connection.
    pub endpoints: Endpoints,
    /// When its first byte was captured.
    pub first_byte: Timestamp,
    /// When its last byte was captured.
    pub last_byte: Timestamp,
    /// Request line and fields.
    pub head: RequestHead,
    /// Body.
    pub body: Body,
    /// What makes it ambiguous.
    pub doubts: Doubts,
    /// Whether it is whole. Anything less is never replayed and never judged.
    pub completeness: Completeness,
}

/// One final HTTP response.
#[derive(Clone, Debug)]
pub struct Response {
    /// When its first byte was captured.
    pub first_byte: Timestamp,
    /// When its last byte was captured.
    pub last_byte: Timestamp,
    /// Status codes of the interim answers (1xx) before it.
    pub interim: Vec<u16>,
    /// Status line and fields.
    pub head: ResponseHead,
    /// Body.
    pub body: Body,
    /// What makes it ambiguous.
    pub doubts: Doubts,
    /// Whether it is whole. Anything less is never judged.
    pub completeness: Completeness,
}

/// What leaves a capture worker.
#[derive(Clone, Debug)]
pub enum Event {
    /// A request; it leaves the moment its last byte was seen, or when it is known that it never will be.
    Request(Arc<Request>),
    /// The final response to an earlier request.
    Response {
        /// The exchange of that request.
        id: ExchangeId,
        /// The response.
        response: Response,
    },
    /// A response whose request was not seen.
    Orphan {
        /// The connection that it came on.
        connection: ConnectionId,
        /// The ends of that connection.
        endpoints: Endpoints,
        /// The response.
        response: Response,
    },
    /// No response to that request will come any more.
    Unanswered {
        /// The exchange of that request.
        id: ExchangeId,
    },
    /// A connection on which HTTP was seen has ended; nothing more comes of it.
    Closed {
        /// The connection.
        connection: ConnectionId,
    },
}

/// A request and the answer that version 1 gave to it; either may be missing, not both.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The connection.
    pub connection: ConnectionId,
    /// Its ends.
    pub endpoints: Endpoints,
    /// The request, unless only its response was seen.
    pub request: Option<Arc<Request>>,
    /// The final response, if one was seen.
    pub response: Option<Response>,
}
