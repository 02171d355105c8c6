//! What the pipeline is about: requests, responses, and the exchanges they make.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ahash::AHashMap;

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
    /// `Content-Length` beside `Transfer-Encoding` (RFC 9112 §6.3 clause 3), a transfer coding that ends in
    /// something other than one plain `chunked`, or chunk lines that end in something other than CRLF.
    pub transfer_encoding: bool,
    /// Several or invalid `Content-Length`s (RFC 9112 §6.3 clause 5).
    pub content_length: bool,
    /// The head breaks the grammar in a way that servers read differently.
    pub head: bool,
    /// A retransmission held other bytes than the original.
    pub retransmission: bool,
    /// It was found behind bytes that were not captured, and nothing proves yet that it is not part of a body there.
    pub unproven: bool,
    /// Version 1 had ended its side of the connection before it came: no answer could follow, and its client sends it again
    /// elsewhere.
    pub after_close: bool,
}

impl Doubts {
    /// Whether there is any.
    #[must_use]
    pub const fn any(self) -> bool {
        self.transfer_encoding
            || self.content_length
            || self.head
            || self.retransmission
            || self.unproven
            || self.after_close
    }

    /// The names of those that are there.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (self.transfer_encoding, "transfer_encoding"),
            (self.content_length, "content_length"),
            (self.head, "head"),
            (self.retransmission, "retransmission"),
            (self.unproven, "unproven"),
            (self.after_close, "after_close"),
        ]
        .into_iter()
        .filter_map(|(there, name)| there.then_some(name))
    }

    /// Those of the given names; others are passed over.
    #[must_use]
    pub fn named(names: &[String]) -> Self {
        let has = |name: &str| names.iter().any(|it| it == name);
        Self {
            transfer_encoding: has("transfer_encoding"),
            content_length: has("content_length"),
            head: has("head"),
            retransmission: has("retransmission"),
            unproven: has("unproven"),
            after_close: has("after_close"),
        }
    }

    /// What is in either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            transfer_encoding: self.transfer_encoding || other.transfer_encoding,
            content_length: self.content_length || other.content_length,
            head: self.head || other.head,
            retransmission: self.retransmission || other.retransmission,
            unproven: self.unproven || other.unproven,
            after_close: self.after_close || other.after_close,
        }
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
        /// Why.
        why: NoAnswer,
    },
    /// A connection on which HTTP was seen has ended; nothing more comes of it.
    Closed {
        /// The connection.
        connection: ConnectionId,
    },
}

/// Why there is no answer to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoAnswer {
    /// The client reset the connection before the server had answered or closed; also after its FIN, as the kernel does for one
    /// that has gone.
    ClientLeft,
    /// The client closed its side, which says that it sends nothing more and not that it has gone (RFC 9293 §3.6), and the
    /// server closed or reset the connection without having answered.
    HalfClosed,
    /// The server closed, the capture ended, or nobody knows.
    Ended,
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

impl Exchange {
    /// The exchange's name; a response whose request was not seen has none.
    #[must_use]
    pub fn id(&self) -> Option<ExchangeId> {
        self.request.as_ref().map(|request| request.id)
    }
}

/// Joins [`Event`]s into whole [`Exchange`]s.
///
/// The order of what comes out depends only on the order of what goes in: an exchange leaves when its response comes, or
/// when it is known that none will.
///
/// Invariant: `by_age` and `by_id` hold the same requests.
#[derive(Debug)]
pub struct Joiner {
    /// Requests that wait for their response, oldest first; the key counts requests.
    by_age: BTreeMap<u64, Arc<Request>>,
    by_id: AHashMap<ExchangeId, u64>,
    requests: u64,
    limit: usize,
    late: u64,
}

impl Joiner {
    /// Holds at most `limit` requests (at least 1) back for their response; one more sends the oldest on without it.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            by_age: BTreeMap::new(),
            by_id: AHashMap::new(),
            requests: 0,
            limit: limit.max(1),
            late: 0,
        }
    }

    /// Takes one event in; hands out the exchange that it completed, or that it pushed out.
    pub fn push(&mut self, event: Event) -> Option<Exchange> {
        match event {
            Event::Request(request) => self.wait(request),
            Event::Response { id, response } => {
                let exchange = self.take(id, Some(response));
                self.late += u64::from(exchange.is_none());
                exchange
            }
            Event::Orphan {
                connection,
                endpoints,
                response,
            } => Some(Exchange {
                connection,
                endpoints,
                request: None,
                response: Some(response),
            }),
            Event::Unanswered { id, .. } => self.take(id, None),
            Event::Closed { .. } => None,
        }
    }

    /// Hands out what still waits, in the order of requests.
    pub fn finish(self) -> impl Iterator<Item = Exchange> {
        self.by_age
            .into_values()
            .map(|request| exchange(request, None))
    }

    /// How many requests wait for their response.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.by_age.len()
    }

    /// How many responses came after their request had been sent on without one, and so were left out.
    #[must_use]
    pub const fn late(&self) -> u64 {
        self.late
    }

    fn wait(&mut self, request: Arc<Request>) -> Option<Exchange> {
        let pushed_out = if self.by_age.len() < self.limit {
            None
        } else {
            self.by_age.pop_first().map(|(_, oldest)| oldest)
        };
        if let Some(oldest) = &pushed_out {
            self.by_id.remove(&oldest.id);
        }
        let clash = self.by_id.insert(request.id, self.requests);
        debug_assert!(clash.is_none(), "exchange ids are unique");
        self.by_age.insert(self.requests, request);
        self.requests += 1;
        pushed_out.map(|request| exchange(request, None))
    }

    fn take(&mut self, id: ExchangeId, response: Option<Response>) -> Option<Exchange> {
        let age = self.by_id.remove(&id)?;
        let request = self.by_age.remove(&age)?;
        Some(exchange(request, response))
    }
}

/// Tells which requests their clients pipelined: sent before the answer to the request before was whole.
#[derive(Debug, Default)]
pub struct Pipelines {
    /// Whether a request may have no answer because nobody recorded any: then a missing answer says nothing until
    /// there was one.
    answers_may_lack: bool,
    connections: AHashMap<ConnectionId, Dialogue>,
    /// The connection of each request that has no answer yet.
    open: AHashMap<ExchangeId, ConnectionId>,
}

#[derive(Debug, Default)]
struct Dialogue {
    /// Requests without an answer so far.
    open: usize,
    /// When the last answer was whole.
    answered: Timestamp,
}

impl Pipelines {
    /// For recordings, which may hold no answers at all.
    #[must_use]
    pub fn of_recordings() -> Self {
        Self {
            answers_may_lack: true,
            ..Self::default()
        }
    }

    /// Takes every event in; whether it is a request that was pipelined.
    pub fn push(&mut self, event: &Event) -> bool {
        match event {
            Event::Request(request) => {
                let dialogue = self.connections.entry(request.connection).or_default();
                let is_waited_for = dialogue.open > 0 && !self.answers_may_lack;
                let is_pipelined = is_waited_for || request.first_byte < dialogue.answered;
                dialogue.open += 1;
                self.open.insert(request.id, request.connection);
                return is_pipelined;
            }
            Event::Response { id, response } => {
                self.answers_may_lack = false;
                self.answered(*id, response.last_byte);
            }
            Event::Unanswered { id, .. } => self.answered(*id, Timestamp::ZERO),
            Event::Closed { connection } => {
                if let Some(dialogue) = self.connections.remove(connection)
                    && dialogue.open > 0
                {
                    self.open.retain(|_, open| open != connection);
                }
            }
            Event::Orphan { .. } => {}
        }
        false
    }

    fn answered(&mut self, id: ExchangeId, at: Timestamp) {
        if let Some(connection) = self.open.remove(&id)
            && let Some(dialogue) = self.connections.get_mut(&connection)
        {
            dialogue.open -= 1;
            dialogue.answered = dialogue.answered.max(at);
        }
    }
}

fn exchange(request: Arc<Request>, response: Option<Response>) -> Exchange {
    Exchange {
        connection: request.connection,
        endpoints: request.endpoints,
        request: Some(request),
        response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Framing;
    use bytes::Bytes;

    fn request(id: u64) -> Event {
        Event::Request(Arc::new(Request {
            id: ExchangeId(id),
            connection: ConnectionId(1),
            endpoints: ENDPOINTS,
            first_byte: Timestamp::ZERO,
            last_byte: Timestamp::ZERO,
            head: RequestHead::parse(Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")).unwrap(),
            body: Body::none(),
            doubts: Doubts::default(),
            completeness: Completeness::Whole,
        }))
    }

    fn response() -> Response {
        Response {
            first_byte: Timestamp::ZERO,
            last_byte: Timestamp::ZERO,
            interim: Vec::new(),
            head: ResponseHead::parse(Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\n")).unwrap(),
            body: Body {
                framing: Framing::UntilClose,
                wire: Bytes::new(),
                missing: 0,
            },
            doubts: Doubts::default(),
            completeness: Completeness::Whole,
        }
    }

    fn answer(id: u64) -> Event {
        Event::Response {
            id: ExchangeId(id),
            response: response(),
        }
    }

    const ENDPOINTS: Endpoints = Endpoints {
        client: SocketAddr::new(
            std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)),
            40000,
        ),
        server: SocketAddr::new(
            std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)),
            80,
        ),
    };

    fn shown(exchange: Option<Exchange>) -> Option<(Option<u64>, bool)> {
        exchange.map(|it| (it.id().map(|id| id.0), it.response.is_some()))
    }

    #[test]
    fn a_request_leaves_with_its_response() {
        let mut joiner = Joiner::new(8);
        assert_eq!(shown(joiner.push(request(1))), None);
        assert_eq!(shown(joiner.push(request(2))), None);
        assert_eq!(shown(joiner.push(answer(2))), Some((Some(2), true)));
        assert_eq!(shown(joiner.push(answer(1))), Some((Some(1), true)));
        assert_eq!(joiner.pending(), 0);
    }

    #[test]
    fn unanswered_requests_and_orphans_leave_alone() {
        let mut joiner = Joiner::new(8);
        joiner.push(request(1));
        let unanswered = Event::Unanswered {
            id: ExchangeId(1),
            why: NoAnswer::Ended,
        };
        assert_eq!(shown(joiner.push(unanswered)), Some((Some(1), false)));
        let orphan = Event::Orphan {
            connection: ConnectionId(1),
            endpoints: ENDPOINTS,
            response: response(),
        };
        assert_eq!(shown(joiner.push(orphan)), Some((None, true)));
    }

    #[test]
    fn over_the_bound_the_oldest_leaves_and_its_response_counts_as_late() {
        let mut joiner = Joiner::new(2);
        joiner.push(request(7));
        joiner.push(request(5));
        assert_eq!(shown(joiner.push(request(6))), Some((Some(7), false)));
        assert_eq!(shown(joiner.push(answer(7))), None);
        assert_eq!(joiner.late(), 1);
        assert_eq!(shown(joiner.push(answer(5))), Some((Some(5), true)));
    }

    #[test]
    fn a_request_before_the_answer_to_the_one_before_was_pipelined() {
        let at = Timestamp::from_nanos;
        let sent = |id, connection, first_byte| {
            let Event::Request(mut sent) = request(id) else {
                unreachable!("a request")
            };
            let inner = Arc::make_mut(&mut sent);
            inner.connection = ConnectionId(connection);
            inner.first_byte = at(first_byte);
            Event::Request(sent)
        };
        let answered = |id, last_byte| Event::Response {
            id: ExchangeId(id),
            response: Response {
                last_byte: at(last_byte),
                ..response()
            },
        };
        let mut pipelines = Pipelines::default();
        for (event, expected) in [
            (sent(1, 1, 10), false),
            (sent(2, 1, 11), true),
            (sent(3, 2, 11), false),
            (answered(1, 20), false),
            (sent(4, 1, 21), true),
            (answered(2, 30), false),
            (
                Event::Unanswered {
                    id: ExchangeId(4),
                    why: NoAnswer::ClientLeft,
                },
                false,
            ),
            (sent(5, 1, 30), false),
            (answered(5, 40), false),
            // A recording has the answer at once: times tell.
            (sent(6, 1, 39), true),
            (
                Event::Closed {
                    connection: ConnectionId(1),
                },
                false,
            ),
            (answered(6, 50), false),
            (sent(7, 1, 45), false),
        ] {
            assert_eq!(pipelines.push(&event), expected, "{event:?}");
        }

        // A recording of requests alone says nothing about answers; one with answers does.
        let mut pipelines = Pipelines::of_recordings();
        for (event, expected) in [
            (sent(1, 1, 10), false),
            (sent(2, 1, 11), false),
            (answered(1, 12), false),
            (sent(3, 1, 13), true),
        ] {
            assert_eq!(pipelines.push(&event), expected, "{event:?}");
        }
    }

    #[test]
    fn what_is_left_comes_out_in_the_order_of_requests() {
        let mut joiner = Joiner::new(8);
        for id in [9, 3, 5] {
            joiner.push(request(id));
        }
        let left: Vec<_> = joiner.finish().map(|it| it.id().unwrap().0).collect();
        assert_eq!(left, [9, 3, 5]);
    }
}
