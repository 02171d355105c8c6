//! What two ordered streams say to each other: requests, and the answers that belong to them.
//!
//! Answers are paired with requests by position, and the positions are checked against TCP's own testimony: a
//! request's first segment acknowledges `k` bytes of the server's stream, so its answer cannot begin before `k`, and
//! begins exactly there when the client waited for the answer before. Where bytes are missing and the position alone
//! proves nothing, only that exact match pairs.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::account::{Account, Counter, Reason};
use crate::exchange::{
    Completeness, ConnectionId, Doubts, Endpoints, Event, ExchangeId, Request, Response,
};
use crate::http1::framing::{self, Length};
use crate::http1::recognise::{self, Recognised};
use crate::http1::{
    Abandoned, Body, BodyEnd, MessageLimits, MessageReader, RequestHead, ResponseHead, Side, Step,
    whole_lines,
};
use crate::tcp::Mark;

/// Where a dialogue puts what it finds.
pub(super) struct Sink<'a> {
    pub(super) events: &'a mut VecDeque<Event>,
    pub(super) account: &'a mut Account,
    pub(super) next_exchange: &'a mut u64,
}

/// Why a stream or connection came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    Fin,
    Reset,
    Replaced,
    Idle,
    Evicted,
    CaptureEnded,
}

/// Bytes of one direction, in order.
#[derive(Clone, Copy)]
pub(super) struct Chunk<'a> {
    pub(super) bytes: &'a [u8],
    /// Stream offset of the first byte.
    pub(super) offset: u64,
    pub(super) mark: Mark,
    /// Whether the first byte began a TCP segment.
    pub(super) boundary: bool,
}

/// The HTTP side of one connection.
pub(super) struct Dialogue {
    connection: ConnectionId,
    ends: [SocketAddr; 2],
    limits: MessageLimits,
    /// The direction in which requests flow.
    client: Option<usize>,
    /// The connection is a tunnel, TLS, HTTP/2: nothing in it is read any more.
    opaque: bool,
    lanes: [Lane; 2],
    pending: VecDeque<Pending>,
    /// The answer being read.
    answer: Option<Answer>,
    /// Statuses of interim answers that wait for their final one.
    interim: Vec<u16>,
    /// An answer may have been lost unseen: only an exact match of positions pairs.
    uncertain: bool,
    /// A request may have been lost unseen before the next one.
    request_lost: bool,
    server_ended: bool,
    conflict: bool,
    /// A request could be framed in two ways: so can everything behind it.
    framing_in_doubt: bool,
    found: Found,
}

/// What a connection turned out to carry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Http,
    Tls,
    Http2,
    Other,
}

/// One direction.
struct Lane {
    reader: Option<MessageReader>,
    /// First bytes, while it is not clear what they are.
    probe: Vec<u8>,
    /// What is being read began here.
    first: Start,
    last: Mark,
    /// The capture began inside the stream: only a message at the start of a segment is believed.
    midstream: bool,
    /// Server side: an answer was found by its looks alone, behind bytes that were not read.
    resynchronised: bool,
    /// The stream's first bytes were not HTTP: a message found later needs the other side's confirmation.
    foreign: bool,
    /// Client side: bytes that wait until it is known whether a tunnel begins.
    paused: Option<Vec<OwnedChunk>>,
}

#[derive(Clone, Copy, Default)]
struct Start {
    mark: Mark,
    offset: u64,
}

struct OwnedChunk {
    bytes: Bytes,
    offset: u64,
    mark: Mark,
    boundary: bool,
}

/// A request that has begun and whose answer has not ended.
struct Pending {
    id: ExchangeId,
    /// How far the server's stream was acknowledged when the request began.
    acked: u64,
    method: Method,
    expects_continue: bool,
    /// A request may have been lost between the one before and this one.
    after_loss: bool,
    /// Believed only once the server has answered in HTTP.
    tentative: bool,
    /// An answer was chosen for it.
    answered: bool,
    progress: Progress,
    response: Option<Response>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "one box for each request would cost more than the space"
)]
enum Progress {
    Reading {
        head: RequestHead,
        first: Start,
        doubts: Doubts,
    },
    /// Whole, or known to stay incomplete, but not yet believed.
    Held(Arc<Request>),
    Done,
}

/// What the framing of an answer needs to know of the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Head,
    Connect,
    /// Any other; the flag tells whether the request offers an upgrade.
    Other {
        upgrade: bool,
    },
}

impl Method {
    fn of(head: &RequestHead) -> Self {
        match head.method() {
            b"HEAD" => Self::Head,
            b"CONNECT" => Self::Connect,
            _ => Self::Other {
                upgrade: head.fields().get("upgrade").is_some(),
            },
        }
    }

    fn name(self) -> Option<&'static [u8]> {
        match self {
            Self::Head => Some(b"HEAD"),
            Self::Connect => Some(b"CONNECT"),
            Self::Other { .. } => None,
        }
    }

    /// Whether what follows the request depends on the answer.
    fn may_tunnel(self) -> bool {
        matches!(self, Self::Connect | Self::Other { upgrade: true })
    }
}

/// An answer being read.
struct Answer {
    /// The request it belongs to; `None`: one that was not seen.
    id: Option<ExchangeId>,
    kind: AnswerKind,
    head: ResponseHead,
    first: Start,
    doubts: Doubts,
    interim: Vec<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AnswerKind {
    Interim,
    Final,
}

/// The body of a message whose head never became whole.
const UNKNOWN_BODY: Body = Body {
    framing: crate::http1::Framing::None,
    wire: Bytes::new(),
    missing: 1,
};

/// Bytes that wait for the answer to CONNECT or Upgrade; more of them is no handshake.
const MAX_PAUSED: usize = 256 << 10;

impl Dialogue {
    pub(super) fn new(
        connection: ConnectionId,
        ends: [SocketAddr; 2],
        client: Option<usize>,
        limits: MessageLimits,
    ) -> Self {
        let lane = || Lane {
            reader: None,
            probe: Vec::new(),
            first: Start::default(),
            last: Mark::default(),
            midstream: false,
            resynchronised: false,
            foreign: false,
            paused: None,
        };
        Self {
            connection,
            ends,
            limits,
            client,
            opaque: false,
            lanes: [lane(), lane()],
            pending: VecDeque::new(),
            answer: None,
            interim: Vec::new(),
            uncertain: false,
            request_lost: false,
            server_ended: false,
            conflict: false,
            framing_in_doubt: false,
            found: Found::Nothing,
        }
    }

    /// Whether nothing more is read from the connection.
    pub(super) fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// The direction in which requests flow, once that is known.
    pub(super) fn client(&self) -> Option<usize> {
        self.client
    }

    /// Notes that the beginning of a direction was not captured.
    pub(super) fn mark_midstream(&mut self, direction: usize) {
        self.lanes[direction].midstream = true;
    }

    /// Notes that a retransmission differed: what is being read is in doubt.
    pub(super) fn mark_conflict(&mut self) {
        self.conflict = true;
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        let lane = |lane: &Lane| {
            let paused = lane
                .paused
                .iter()
                .flatten()
                .map(|chunk| chunk.bytes.len())
                .sum::<usize>();
            lane.reader.as_ref().map_or(0, MessageReader::memory) + lane.probe.capacity() + paused
        };
        let held = self.pending.iter().map(|pending| {
            let body = pending
                .response
                .as_ref()
                .map_or(0, |response| response.body.wire.len());
            std::mem::size_of::<Pending>() + body
        });
        lane(&self.lanes[0]) + lane(&self.lanes[1]) + held.sum::<usize>()
    }

    /// Takes the next bytes of a direction.
    pub(super) fn data(&mut self, direction: usize, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        if self.opaque || chunk.bytes.is_empty() {
            return;
        }
        if let Some(paused) = &mut self.lanes[direction].paused {
            let held: usize = paused.iter().map(|chunk| chunk.bytes.len()).sum();
            if held + chunk.bytes.len() > MAX_PAUSED {
                self.become_opaque(Found::Other);
                return;
            }
            let bytes = Bytes::copy_from_slice(chunk.bytes);
            let Chunk {
                offset,
                mark,
                boundary,
                ..
            } = chunk;
            paused.push(OwnedChunk {
                bytes,
                offset,
                mark,
                boundary,
            });
            return;
        }
        if self.lanes[direction].reader.is_none() {
            self.probe(direction, chunk, sink);
            return;
        }
        if self.client == Some(direction) {
            self.request_bytes(direction, chunk, sink);
        } else {
            self.answer_bytes(direction, chunk, sink);
        }
    }

    /// Notes that the next `length` bytes of a direction are missing.
    pub(super) fn gap(&mut self, direction: usize, length: u64, sink: &mut Sink<'_>) {
        sink.account.count(Counter::Gaps);
        sink.account.add(Counter::GapBytes, length);
        if self.opaque {
            return;
        }
        let lane = &mut self.lanes[direction];
        lane.probe = Vec::new();
        if let Some(paused) = &mut lane.paused {
            // Whatever waited is followed by a hole: read it as far as it goes, then lose the framing.
            let chunks = std::mem::take(paused);
            lane.paused = None;
            for chunk in chunks {
                self.replay_paused(direction, &chunk, sink);
            }
        }
        let lane = &mut self.lanes[direction];
        let Some(reader) = &mut lane.reader else {
            lane.foreign = false;
            lane.midstream = true;
            self.note_unread(direction);
            return;
        };
        let was_lost = reader.is_lost();
        let step = reader.gap(length);
        self.run(direction, step, sink);
        self.note_loss(direction, was_lost, sink);
    }

    /// Notes that a direction has ended.
    pub(super) fn end(&mut self, direction: usize, ending: Ending, sink: &mut Sink<'_>) {
        let is_client = self.client == Some(direction);
        if let Some(chunks) = self.lanes[direction].paused.take() {
            for chunk in chunks {
                self.replay_paused(direction, &chunk, sink);
            }
        }
        let refused = is_client && self.body_is_refused();
        if !self.opaque
            && let Some(reader) = &mut self.lanes[direction].reader
        {
            if refused && reader.awaits_first_body_byte() {
                reader.skip_unsent_body();
                self.finish_request(
                    Body::none(),
                    Completeness::Incomplete(Reason::RequestBodyNeverSent),
                    sink,
                );
            } else {
                let step = reader.end(ending == Ending::Fin);
                self.run_ending(direction, step, ending, sink);
            }
        }
        if !is_client && self.client.is_some() {
            self.server_ended = true;
            self.flush_unanswered(sink);
        }
    }

    /// Ends both directions and lets go of everything.
    pub(super) fn close(&mut self, ending: Ending, sink: &mut Sink<'_>) {
        let first = self.client.unwrap_or(0);
        for direction in [first, 1 - first] {
            self.end(direction, ending, sink);
            self.lanes[direction].reader = None;
            self.lanes[direction].probe = Vec::new();
        }
        self.server_ended = true;
        self.flush_unanswered(sink);
        sink.account.count(match self.found {
            Found::Http => Counter::ConnectionsHttp1,
            Found::Tls => Counter::ConnectionsTls,
            Found::Http2 => Counter::ConnectionsHttp2,
            Found::Other => Counter::ConnectionsOther,
            Found::Nothing => Counter::ConnectionsSilent,
        });
        if self.found == Found::Http {
            sink.events.push_back(Event::Closed {
                connection: self.connection,
            });
        }
    }

    /// Looks at the first bytes of a direction.
    fn probe(&mut self, direction: usize, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        let lane = &mut self.lanes[direction];
        if lane.foreign {
            // The stream did not begin with HTTP; a message may still begin with a segment.
            if !chunk.boundary {
                return;
            }
            lane.probe.clear();
        }
        if lane.midstream && lane.probe.is_empty() {
            let begins = recognise::request_in_midstream(chunk.bytes)
                || recognise::response(chunk.bytes) == Recognised::Http
                || is_encrypted(chunk.bytes);
            if !chunk.boundary || !begins {
                self.note_unread(direction);
                return;
            }
        }
        if lane.probe.is_empty() {
            lane.first = Start {
                mark: chunk.mark,
                offset: chunk.offset,
            };
        }
        lane.probe.extend_from_slice(chunk.bytes);
        let request = match self.client {
            Some(client) if client != direction => Recognised::Other,
            _ => recognise::request(&lane.probe),
        };
        let response = match self.client {
            Some(client) if client == direction => Recognised::Other,
            _ => recognise::response(&lane.probe),
        };
        let side = match (request, response) {
            (Recognised::Http, _) => Side::Requests,
            (_, Recognised::Http) => Side::Responses,
            (Recognised::Tls, _) | (_, Recognised::Tls) => {
                self.become_opaque(Found::Tls);
                return;
            }
            (Recognised::Http2, _) | (_, Recognised::Http2) => {
                self.become_opaque(Found::Http2);
                return;
            }
            (Recognised::Unsure, _) | (_, Recognised::Unsure)
                if lane.probe.len() < recognise::MAX_UNSURE =>
            {
                return;
            }
            _ => {
                lane.probe = Vec::new();
                lane.foreign = true;
                if self.found == Found::Nothing {
                    self.found = Found::Other;
                }
                return;
            }
        };
        let client = if side == Side::Requests {
            direction
        } else {
            1 - direction
        };
        self.client = Some(client);
        self.found = Found::Http;
        let probe = std::mem::take(&mut self.lanes[direction].probe);
        let first = self.lanes[direction].first;
        self.lanes[direction].reader = Some(MessageReader::new(side, self.limits));
        let chunk = Chunk {
            bytes: &probe,
            offset: first.offset,
            mark: first.mark,
            boundary: true,
        };
        self.data(direction, chunk, sink);
        self.lanes[direction].last = chunk.mark;
        // What the other direction has kept back can be read now.
        let other = 1 - direction;
        let kept = std::mem::take(&mut self.lanes[other].probe);
        if !kept.is_empty() {
            let first = self.lanes[other].first;
            let chunk = Chunk {
                bytes: &kept,
                offset: first.offset,
                mark: first.mark,
                boundary: true,
            };
            self.probe(other, chunk, sink);
        }
    }

    fn request_bytes(&mut self, direction: usize, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        let Some(reader) = &mut self.lanes[direction].reader else {
            return;
        };
        if reader.is_lost() {
            if !chunk.boundary || !recognise::request_in_midstream(chunk.bytes) {
                return;
            }
            reader.resume();
        } else if reader.awaits_first_body_byte()
            && recognise::request(chunk.bytes) == Recognised::Http
            && self.body_is_refused()
        {
            if let Some(reader) = &mut self.lanes[direction].reader {
                reader.skip_unsent_body();
            }
            self.finish_request(
                Body::none(),
                Completeness::Incomplete(Reason::RequestBodyNeverSent),
                sink,
            );
        }
        self.push(direction, chunk, sink);
    }

    fn answer_bytes(&mut self, direction: usize, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        let Some(reader) = &mut self.lanes[direction].reader else {
            return;
        };
        let lost = reader.is_lost();
        if !lost && !reader.reads_until_close() {
            self.push(direction, chunk, sink);
            return;
        }
        // Where a request says that its answer begins, and HTTP is there, an answer begins.
        let end = chunk.offset + chunk.bytes.len() as u64;
        let begins = |offset: u64| {
            let rest = &chunk.bytes[(offset - chunk.offset) as usize..];
            recognise::response(rest) == Recognised::Http
        };
        let expected = self
            .pending
            .iter()
            .filter(|pending| !pending.answered)
            .map(|pending| pending.acked)
            .find(|&acked| acked >= chunk.offset && acked < end && begins(acked));
        let at_boundary = lost && chunk.boundary && begins(chunk.offset);
        let Some(at) = expected.or(at_boundary.then_some(chunk.offset)) else {
            if !lost {
                self.push(direction, chunk, sink);
            }
            return;
        };
        let (before, after) = chunk.bytes.split_at((at - chunk.offset) as usize);
        if lost {
            reader.resume();
        } else {
            self.push(
                direction,
                Chunk {
                    bytes: before,
                    ..chunk
                },
                sink,
            );
            if let Some(reader) = &mut self.lanes[direction].reader {
                let step = reader.end_body_here();
                self.run(direction, step, sink);
            }
        }
        let rest = Chunk {
            bytes: after,
            offset: at,
            boundary: true,
            ..chunk
        };
        self.push(direction, rest, sink);
    }

    fn push(&mut self, direction: usize, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        let lane = &mut self.lanes[direction];
        let Some(reader) = &mut lane.reader else {
            return;
        };
        if chunk.bytes.is_empty() {
            return;
        }
        lane.last = chunk.mark;
        if reader.is_between_messages() {
            lane.first = Start {
                mark: chunk.mark,
                offset: chunk.offset,
            };
        }
        let was_lost = reader.is_lost();
        reader.push(chunk.bytes);
        let step = reader.poll();
        // A message that begins inside this chunk begins where the reader says so.
        let end = chunk.offset + chunk.bytes.len() as u64;
        self.run_until(direction, step, Some(end), None, sink);
        self.note_loss(direction, was_lost, sink);
    }

    fn run(&mut self, direction: usize, step: Step, sink: &mut Sink<'_>) {
        self.run_until(direction, step, None, None, sink);
    }

    fn run_ending(&mut self, direction: usize, step: Step, ending: Ending, sink: &mut Sink<'_>) {
        self.run_until(direction, step, None, Some(ending), sink);
    }

    /// Follows the reader's steps until it needs more. `end` is the stream offset behind what was pushed.
    fn run_until(
        &mut self,
        direction: usize,
        mut step: Step,
        end: Option<u64>,
        ending: Option<Ending>,
        sink: &mut Sink<'_>,
    ) {
        loop {
            match step {
                Step::NeedInput => return,
                Step::RequestHead(head) => self.request_head(direction, head, sink),
                Step::ResponseHead(head) => self.response_head(direction, head, sink),
                Step::Body(body, how) => {
                    let is_client = self.client == Some(direction);
                    if is_client {
                        let completeness = request_completeness(how, ending);
                        self.finish_request(body, completeness, sink);
                    } else {
                        let completeness = response_completeness(how, ending);
                        self.finish_answer(body, completeness, sink);
                    }
                    if self.opaque {
                        return;
                    }
                    let lane = &mut self.lanes[direction];
                    if let (Some(end), Some(reader)) = (end, &lane.reader) {
                        let rest = reader.buffered() as u64;
                        lane.first = Start {
                            mark: lane.last,
                            offset: end - rest,
                        };
                        if rest > 0 && self.pause_if_tunnel(direction, end, sink) {
                            return;
                        }
                    }
                }
                Step::Abandoned(bytes, why) => {
                    if self.client == Some(direction) {
                        let reason = match why {
                            Abandoned::Gap => Reason::RequestGap,
                            Abandoned::TooLarge => Reason::RequestTooLarge,
                            Abandoned::Malformed => Reason::RequestMalformed,
                            Abandoned::Cut => request_cut(ending),
                        };
                        self.partial_request(direction, &bytes, reason, sink);
                    } else {
                        let reason = match why {
                            Abandoned::Gap => Reason::ResponseGap,
                            Abandoned::TooLarge => Reason::ResponseTooLarge,
                            Abandoned::Malformed => Reason::ResponseMalformed,
                            Abandoned::Cut => response_cut(ending),
                        };
                        self.partial_response(direction, &bytes, reason, sink);
                    }
                }
                Step::NotHttp(recognised) => {
                    if matches!(recognised, Recognised::Tls | Recognised::Http2) {
                        self.become_opaque(if recognised == Recognised::Tls {
                            Found::Tls
                        } else {
                            Found::Http2
                        });
                    }
                }
            }
            let Some(reader) = &mut self.lanes[direction].reader else {
                return;
            };
            if self.opaque {
                return;
            }
            step = reader.poll();
        }
    }

    /// After a request that may open a tunnel, what follows waits for the answer.
    fn pause_if_tunnel(&mut self, direction: usize, end: u64, sink: &mut Sink<'_>) -> bool {
        let Some(paused) = &mut self.lanes[direction].paused else {
            return false;
        };
        let _ = sink;
        let lane_last = self.lanes[direction].last;
        let Some(reader) = &mut self.lanes[direction].reader else {
            return false;
        };
        let bytes = reader.take_buffered();
        let offset = end - bytes.len() as u64;
        paused.push(OwnedChunk {
            bytes,
            offset,
            mark: lane_last,
            boundary: false,
        });
        true
    }

    fn replay_paused(&mut self, direction: usize, chunk: &OwnedChunk, sink: &mut Sink<'_>) {
        let OwnedChunk {
            bytes,
            offset,
            mark,
            boundary,
        } = chunk;
        let chunk = Chunk {
            bytes,
            offset: *offset,
            mark: *mark,
            boundary: *boundary,
        };
        self.data(direction, chunk, sink);
    }

    fn request_head(&mut self, direction: usize, head: RequestHead, sink: &mut Sink<'_>) {
        self.found = Found::Http;
        sink.account.count(Counter::Requests);
        let (length, mut doubts) = framing::of_request(&head);
        doubts.transfer_encoding |= self.framing_in_doubt;
        self.framing_in_doubt |= doubts.transfer_encoding;
        let lane = &self.lanes[direction];
        let first = lane.first;
        let tentative = lane.foreign;
        let id = ExchangeId(*sink.next_exchange);
        *sink.next_exchange += 1;
        let expects_continue = head.fields().has_token("expect", "100-continue");
        self.pending.push_back(Pending {
            id,
            acked: first.mark.peer,
            method: Method::of(&head),
            expects_continue,
            after_loss: std::mem::take(&mut self.request_lost),
            tentative,
            answered: false,
            progress: Progress::Reading {
                head,
                first,
                doubts,
            },
            response: None,
        });
        if let Some(reader) = &mut self.lanes[direction].reader {
            if reader.is_lost() {
                return; // the head was cut; the caller finishes the request
            }
            if let Length::Framed(framing) = length {
                reader.frame(framing);
                return;
            }
            reader.stop();
        }
        self.request_lost = true;
        self.finish_request(
            Body::none(),
            Completeness::Incomplete(Reason::RequestMalformed),
            sink,
        );
    }

    /// A request whose head never became whole: shown as far as it goes, so that its answer finds it.
    fn partial_request(
        &mut self,
        direction: usize,
        bytes: &[u8],
        reason: Reason,
        sink: &mut Sink<'_>,
    ) {
        self.request_lost = true;
        let head = whole_lines(bytes).and_then(|lines| RequestHead::parse(lines).ok());
        let Some(head) = head else {
            sink.account.count(Counter::Requests);
            sink.account.drop(reason);
            return;
        };
        self.request_head(direction, head, sink);
        self.finish_request(UNKNOWN_BODY, Completeness::Incomplete(reason), sink);
    }

    /// A response whose head never became whole.
    fn partial_response(
        &mut self,
        direction: usize,
        bytes: &[u8],
        reason: Reason,
        sink: &mut Sink<'_>,
    ) {
        let head = whole_lines(bytes).and_then(|lines| ResponseHead::parse(lines).ok());
        let Some(head) = head.filter(|head| !head.is_interim()) else {
            sink.account.count(Counter::Responses);
            sink.account.drop(reason);
            return;
        };
        self.response_head(direction, head, sink);
        self.finish_answer(UNKNOWN_BODY, Completeness::Incomplete(reason), sink);
    }

    fn finish_request(&mut self, body: Body, completeness: Completeness, sink: &mut Sink<'_>) {
        let Some(client) = self.client else { return };
        let endpoints = self.endpoints(client);
        let last_byte = self.lanes[client].last.time;
        let conflict = std::mem::take(&mut self.conflict);
        let Some(index) = self
            .pending
            .iter()
            .rposition(|pending| matches!(pending.progress, Progress::Reading { .. }))
        else {
            return;
        };
        let pending = &mut self.pending[index];
        let Progress::Reading {
            head,
            first,
            mut doubts,
        } = std::mem::replace(&mut pending.progress, Progress::Done)
        else {
            return;
        };
        doubts.retransmission |= conflict;
        if pending.method.may_tunnel() && completeness.is_whole() && !pending.answered {
            self.lanes[client].paused.get_or_insert_default();
        }
        let request = Arc::new(Request {
            id: pending.id,
            connection: self.connection,
            endpoints,
            first_byte: first.mark.time,
            last_byte,
            head,
            body,
            doubts,
            completeness,
        });
        if pending.tentative {
            pending.progress = Progress::Held(request);
        } else {
            emit_request(request, sink);
        }
        self.flush_answered(sink);
        if self.server_ended {
            self.flush_unanswered(sink);
        }
    }

    fn response_head(&mut self, direction: usize, head: ResponseHead, sink: &mut Sink<'_>) {
        self.found = Found::Http;
        let first = self.lanes[direction].first;
        if !head.is_interim() {
            self.answers_unfinished_head(1 - direction, sink);
        }
        let index = self.choose(first.offset, sink);
        if head.is_interim() {
            if index.is_some() {
                self.interim.push(head.status());
            }
            self.answer = Some(Answer {
                id: None,
                kind: AnswerKind::Interim,
                head,
                first,
                doubts: Doubts::default(),
                interim: Vec::new(),
            });
            if let Some(reader) = &mut self.lanes[direction].reader {
                reader.frame(crate::http1::Framing::None);
            }
            return;
        }
        sink.account.count(Counter::Responses);
        let method = index.map(|index| self.pending[index].method);
        let (length, mut doubts) = framing::of_response(&head, method.and_then(Method::name));
        doubts.retransmission |= std::mem::take(&mut self.conflict);
        let id = index.map(|index| {
            let pending = &mut self.pending[index];
            pending.answered = true;
            pending.tentative = false;
            pending.id
        });
        self.confirm_held(sink);
        let interim = if id.is_some() {
            std::mem::take(&mut self.interim)
        } else {
            Vec::new()
        };
        self.answer = Some(Answer {
            id,
            kind: AnswerKind::Final,
            head,
            first,
            doubts,
            interim,
        });
        let Some(reader) = &mut self.lanes[direction].reader else {
            return;
        };
        if reader.is_lost() {
            return; // the head was cut; the caller finishes the response
        }
        if let Length::Framed(framing) = length {
            reader.frame(framing);
            return;
        }
        reader.stop();
        self.finish_answer(Body::none(), Completeness::Whole, sink);
        self.flush_answered(sink);
        self.become_opaque(Found::Http);
    }

    fn finish_answer(&mut self, body: Body, completeness: Completeness, sink: &mut Sink<'_>) {
        let Some(client) = self.client else { return };
        let Some(answer) = self.answer.take() else {
            return;
        };
        if answer.kind == AnswerKind::Interim {
            return;
        }
        let response = Response {
            first_byte: answer.first.mark.time,
            last_byte: self.lanes[1 - client].last.time,
            interim: answer.interim,
            head: answer.head,
            body,
            doubts: answer.doubts,
            completeness,
        };
        match (answer.id, completeness) {
            (None, _) => sink.account.drop(Reason::ResponseWithoutRequest),
            (Some(_), Completeness::Whole) => sink.account.count(Counter::ResponsesWhole),
            (Some(_), Completeness::Incomplete(reason)) => sink.account.drop(reason),
        }
        match answer
            .id
            .and_then(|id| self.pending.iter_mut().find(|pending| pending.id == id))
        {
            Some(pending) => pending.response = Some(response),
            // Behind unread bytes, what looks like an answer may be part of a body: counted, not reported.
            None if self.lanes[1 - client].resynchronised => {}
            None => sink.events.push_back(Event::Orphan {
                connection: self.connection,
                endpoints: self.endpoints(client),
                response,
            }),
        }
        self.flush_answered(sink);
        let tunnel_awaited = self
            .pending
            .iter()
            .any(|pending| pending.method.may_tunnel() && !pending.answered);
        if !tunnel_awaited && let Some(chunks) = self.lanes[client].paused.take() {
            for chunk in chunks {
                self.replay_paused(client, &chunk, sink);
            }
        }
    }

    /// A final answer while nothing but an unfinished head waits for one: the server has seen enough of it.
    fn answers_unfinished_head(&mut self, client: usize, sink: &mut Sink<'_>) {
        if self.pending.iter().any(|pending| !pending.answered) {
            return;
        }
        if let Some(reader) = &mut self.lanes[client].reader {
            if reader.is_in_head() {
                let step = reader.abandon(Abandoned::Malformed);
                self.run(client, step, sink);
            }
        } else if !self.lanes[client].probe.is_empty() {
            let probe = std::mem::take(&mut self.lanes[client].probe);
            let mut reader = MessageReader::new(Side::Requests, self.limits);
            reader.stop();
            self.lanes[client].reader = Some(reader);
            self.lanes[client].last = self.lanes[client].first.mark;
            self.partial_request(client, &probe, Reason::RequestMalformed, sink);
        }
    }

    /// The request that an answer at `offset` belongs to; the ones passed over stay without an answer.
    fn choose(&mut self, offset: u64, sink: &mut Sink<'_>) -> Option<usize> {
        let front = self.pending.iter().position(|pending| !pending.answered)?;
        let exact = self
            .pending
            .iter()
            .skip(front)
            .position(|pending| pending.acked == offset);
        let exact = exact.map(|index| index + front);
        let pending = &self.pending[front];
        if !self.uncertain {
            let believable =
                pending.acked <= offset && (!pending.after_loss || exact == Some(front));
            return believable.then_some(front);
        }
        let exact = exact?;
        self.uncertain = false;
        for lane in &mut self.lanes {
            lane.resynchronised = false;
        }
        for pending in self.pending.range_mut(front..exact) {
            pending.answered = true; // by an answer that the capture lacks
        }
        for index in (front..exact).rev() {
            if matches!(self.pending[index].progress, Progress::Done) {
                let id = self.pending[index].id;
                self.pending.remove(index);
                sink.events.push_back(Event::Unanswered { id });
            }
        }
        let id = self
            .pending
            .iter()
            .position(|pending| !pending.answered && pending.acked == offset);
        debug_assert!(id.is_some());
        id
    }

    /// The server has answered in HTTP: requests that waited for that are believed.
    fn confirm_held(&mut self, sink: &mut Sink<'_>) {
        for lane in &mut self.lanes {
            lane.foreign = false;
        }
        for pending in &mut self.pending {
            pending.tentative = false;
            if let Progress::Held(request) = &pending.progress {
                let request = Arc::clone(request);
                pending.progress = Progress::Done;
                emit_request(request, sink);
            }
        }
    }

    /// Hands out the answers whose requests have been handed out.
    fn flush_answered(&mut self, sink: &mut Sink<'_>) {
        while let Some(front) = self.pending.front_mut() {
            if !matches!(front.progress, Progress::Done) {
                return;
            }
            let Some(response) = front.response.take() else {
                return;
            };
            let id = front.id;
            self.pending.pop_front();
            sink.events.push_back(Event::Response { id, response });
        }
    }

    /// No more answers will come.
    fn flush_unanswered(&mut self, sink: &mut Sink<'_>) {
        self.flush_answered(sink);
        while let Some(front) = self.pending.front_mut() {
            if let Progress::Reading { .. } = front.progress {
                return;
            }
            let Some(pending) = self.pending.pop_front() else {
                return;
            };
            match (pending.progress, pending.response) {
                (Progress::Held(_), _) => sink.account.drop(Reason::RequestUnconfirmed),
                (_, Some(response)) => {
                    sink.events.push_back(Event::Response {
                        id: pending.id,
                        response,
                    });
                }
                (_, None) => sink.events.push_back(Event::Unanswered { id: pending.id }),
            }
        }
    }

    /// Whether the server has answered finally, instead of asking for the body with 100.
    fn body_is_refused(&self) -> bool {
        self.pending
            .back()
            .is_some_and(|pending| pending.expects_continue && pending.answered)
    }

    /// After a step that may have lost the framing: remember what that means for the pairing.
    fn note_loss(&mut self, direction: usize, was_lost: bool, sink: &mut Sink<'_>) {
        let is_lost = self.lanes[direction]
            .reader
            .as_ref()
            .is_some_and(MessageReader::is_lost);
        if !is_lost || was_lost || self.opaque {
            return;
        }
        sink.account.count(Counter::Desynchronised);
        self.note_unread(direction);
    }

    /// Bytes of a direction were passed over unread: messages may have been among them.
    fn note_unread(&mut self, direction: usize) {
        if self.client != Some(1 - direction) {
            self.request_lost = true;
        }
        if self.client != Some(direction) {
            self.uncertain = true;
            self.lanes[direction].resynchronised = true;
        }
    }

    fn become_opaque(&mut self, found: Found) {
        self.opaque = true;
        if self.found != Found::Http {
            self.found = found;
        }
        for lane in &mut self.lanes {
            lane.reader = None;
            lane.probe = Vec::new();
            lane.paused = None;
        }
    }

    fn endpoints(&self, client: usize) -> Endpoints {
        Endpoints {
            client: self.ends[client],
            server: self.ends[1 - client],
        }
    }
}

fn emit_request(request: Arc<Request>, sink: &mut Sink<'_>) {
    match request.completeness {
        Completeness::Whole => sink.account.count(Counter::RequestsWhole),
        Completeness::Incomplete(reason) => sink.account.drop(reason),
    }
    sink.events.push_back(Event::Request(request));
}

/// Whether bytes are recognised as something that is never read.
fn is_encrypted(bytes: &[u8]) -> bool {
    matches!(
        recognise::request(bytes),
        Recognised::Tls | Recognised::Http2
    )
}

fn request_completeness(how: BodyEnd, ending: Option<Ending>) -> Completeness {
    Completeness::Incomplete(match how {
        BodyEnd::Whole => return Completeness::Whole,
        BodyEnd::Gap => Reason::RequestGap,
        BodyEnd::TooLarge => Reason::RequestTooLarge,
        BodyEnd::Malformed => Reason::RequestMalformed,
        BodyEnd::Cut => request_cut(ending),
    })
}

fn response_completeness(how: BodyEnd, ending: Option<Ending>) -> Completeness {
    Completeness::Incomplete(match how {
        BodyEnd::Whole => return Completeness::Whole,
        BodyEnd::Gap => Reason::ResponseGap,
        BodyEnd::TooLarge => Reason::ResponseTooLarge,
        BodyEnd::Malformed => Reason::ResponseMalformed,
        BodyEnd::Cut => response_cut(ending),
    })
}

fn request_cut(ending: Option<Ending>) -> Reason {
    match ending {
        None | Some(Ending::Fin | Ending::Reset) => Reason::RequestCutByClose,
        Some(Ending::CaptureEnded) => Reason::RequestCutByCaptureEnd,
        Some(Ending::Replaced | Ending::Idle | Ending::Evicted) => Reason::RequestAbandoned,
    }
}

fn response_cut(ending: Option<Ending>) -> Reason {
    match ending {
        None | Some(Ending::Fin | Ending::Reset) => Reason::ResponseCutByClose,
        Some(Ending::CaptureEnded) => Reason::ResponseCutByCaptureEnd,
        Some(Ending::Replaced | Ending::Idle | Ending::Evicted) => Reason::ResponseAbandoned,
    }
}
