//! What two ordered streams say to each other: bytes of both directions in, requests and their answers out.

mod answers;
mod incomplete;
mod requests;
mod whole;

use std::net::SocketAddr;
use std::ops::Range;

use bytes::Bytes;

use self::answers::Answer;
use self::incomplete::{OF_ANSWERS, OF_REQUESTS};
use super::ends::Ends;
use super::lane::{Chunk, Lane, Probed, Start};
use super::pairing::Pairing;
use super::receipts::Receipts;
use super::{Ending, Sink};
use crate::account::{Counter, Reason};
use crate::exchange::{Completeness, ConnectionId, Endpoints, Event};
use crate::http1::recognise::{self, Recognised};
use crate::http1::{Body, Framing, Side, Step};

/// The HTTP side of one connection. Directions are numbered as in the connection.
pub(super) struct Dialogue {
    connection: ConnectionId,
    ends: Ends,
    pairing: Pairing,
    lanes: [Lane; 2],
    /// The answer being read.
    answer: Option<Box<Answer>>,
    unsettled: Option<Box<Unsettled>>,
    /// The direction in which requests flow.
    client: Option<u8>,
    /// The connection is a tunnel, TLS, HTTP/2: nothing in it is read any more.
    opaque: bool,
    /// A request could be framed in two ways: so can everything behind it.
    framing_in_doubt: bool,
    found: Found,
    /// No answer decides any more about what follows a request: bytes that wait are read, and no more are made to wait.
    draining: bool,
    /// Of the server's stream.
    receipts: Receipts,
}

/// What is rarely there.
#[derive(Default)]
struct Unsettled {
    /// Statuses of interim answers that wait for their final one.
    interim: Vec<u16>,
    /// How far the server's stream was acknowledged by a request that was found behind unread bytes. It may be part of
    /// a body; a request after an answer to it is none.
    unproven_since: Option<u64>,
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

/// The body of a message whose head never became whole.
const UNKNOWN_BODY: Body = Body {
    framing: Framing::None,
    wire: Bytes::new(),
    missing: 1,
};

impl Dialogue {
    pub(super) fn new(
        connection: ConnectionId,
        ends: [SocketAddr; 2],
        client: Option<usize>,
    ) -> Self {
        Self {
            connection,
            ends: Ends::new(ends),
            pairing: Pairing::default(),
            lanes: Default::default(),
            answer: None,
            unsettled: None,
            client: client.map(|client| client as u8),
            opaque: false,
            framing_in_doubt: false,
            found: Found::Nothing,
            draining: false,
            receipts: Receipts::default(),
        }
    }

    pub(super) fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Both ends of the connection, each at the number of the direction that flows from it.
    #[inline]
    pub(super) fn ends(&self) -> &Ends {
        &self.ends
    }

    /// Whether nothing more is read from the connection.
    #[inline]
    pub(super) fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// The direction in which requests flow, once that is known.
    #[inline]
    pub(super) fn client(&self) -> Option<usize> {
        self.client.map(usize::from)
    }

    /// Notes that the beginning of a direction was not captured.
    pub(super) fn mark_midstream(&mut self, direction: usize) {
        self.lanes[direction].midstream = true;
    }

    /// Notes that a retransmission differed there: a message that is still to be read, or being read, is in doubt.
    pub(super) fn doubt(&mut self, direction: usize, range: Range<u64>) {
        self.lanes[direction].doubt(range);
    }

    /// Bytes of memory held.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        let unsettled = match &self.unsettled {
            Some(unsettled) => std::mem::size_of_val(&**unsettled),
            None => 0,
        };
        self.ends.memory()
            + self.lanes[0].memory()
            + self.lanes[1].memory()
            + self.pairing.memory()
            + unsettled
    }

    /// Takes the next bytes of a direction.
    pub(super) fn data(&mut self, direction: usize, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        if self.opaque || chunk.bytes.is_empty() {
            return;
        }
        let client = self.client();
        if client.is_none() {
            let receipts = &mut self.lanes[direction].work().receipts;
            receipts.note(chunk.offset, chunk.mark.peer);
        } else if client != Some(direction) {
            self.receipts.note(chunk.offset, chunk.mark.peer);
        }
        let lane = &self.lanes[direction];
        if lane.is_paused() {
            if self.goes_on(chunk) {
                self.drain(direction, sink);
                self.data(direction, chunk, sink);
            } else if !self.lanes[direction].work().pause(chunk) {
                self.become_opaque(Found::Other, sink);
            }
        } else if lane.side().is_none() {
            self.probe(direction, chunk, sink);
        } else if self.client() == Some(direction) {
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
        // Whatever waited is followed by a hole: it is read as far as it goes.
        self.drain(direction, sink);
        self.settle_probe(direction, sink);
        let lane = &mut self.lanes[direction];
        lane.take_probe();
        let was_lost = lane.is_lost();
        let Some(reader) = lane.reader(sink.limits.message) else {
            lane.foreign = false;
            lane.midstream = true;
            self.note_unread(direction);
            return;
        };
        let step = reader.gap(length);
        lane.work().given += length;
        self.follow(direction, step, None, None, sink);
        self.note_loss(direction, was_lost, sink);
    }

    /// Notes that a direction was reset: if it is the client's, nobody waits for an answer any more.
    pub(super) fn was_reset(&mut self, direction: usize) {
        if self.client() == Some(direction) {
            self.pairing.client_leaves();
        } else if self.client.is_some() {
            self.pairing.server_closes();
        }
    }

    /// Notes that a direction has ended.
    pub(super) fn end(&mut self, direction: usize, ending: Ending, sink: &mut Sink<'_>) {
        self.drain(direction, sink);
        self.settle_probe(direction, sink);
        let is_client = self.client() == Some(direction);
        let refused = is_client && self.pairing.body_is_refused();
        if !self.opaque
            && let Some(reader) = self.lanes[direction].reading_mut()
        {
            if refused && reader.awaits_first_body_byte() {
                self.skip_unsent_body(direction, sink);
            } else {
                let step = reader.end(ending == Ending::Fin);
                self.follow(direction, step, None, Some(ending), sink);
            }
        }
        if is_client && ending == Ending::Fin {
            self.pairing.client_closes();
        }
        if !is_client && self.client.is_some() {
            if ending == Ending::Fin {
                self.pairing.server_closes();
            }
            self.pairing.end_answers(sink);
        }
    }

    /// Ends both directions and lets go of everything.
    pub(super) fn close(&mut self, ending: Ending, sink: &mut Sink<'_>) {
        let first = self.client().unwrap_or(0);
        for direction in [first, 1 - first] {
            self.end(direction, ending, sink);
            self.lanes[direction].clear();
        }
        let [request, answer] = [OF_REQUESTS, OF_ANSWERS].map(|reasons| reasons.cut(Some(ending)));
        self.give_up_messages(request, answer, sink);
        for lane in &mut self.lanes {
            lane.finish();
        }
        self.pairing.end_answers(sink);
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
        let possible = self.client().map(|client| match client == direction {
            true => Side::Requests,
            false => Side::Responses,
        });
        // An answer begins where its request says, in however small a segment.
        if possible == Some(Side::Responses) && self.pairing.expects_answer_at(chunk.offset) {
            self.lanes[direction].midstream = false;
        }
        let side = match self.lanes[direction].probe(chunk, possible) {
            Probed::Side(side) => side,
            Probed::Unsure => return,
            Probed::Skipped => {
                self.note_unread(direction);
                return;
            }
            Probed::Other(recognised) => {
                self.not_http(recognised, sink);
                return;
            }
        };
        self.read_as(direction, side, sink);
    }

    /// Nothing comes that would tell more of a direction's first bytes: what begins as a request does is one.
    fn settle_probe(&mut self, direction: usize, sink: &mut Sink<'_>) {
        let is_server = self.client() == Some(1 - direction);
        if !is_server && self.lanes[direction].begins_request() {
            self.read_as(direction, Side::Requests, sink);
        }
    }

    /// Reads a direction as the messages of that side, from its first bytes on.
    fn read_as(&mut self, direction: usize, side: Side, sink: &mut Sink<'_>) {
        if self.client.is_none() {
            let client = match side {
                Side::Requests => direction,
                Side::Responses => 1 - direction,
            };
            self.client = Some(client as u8);
            self.receipts = self.lanes[1 - client].take_receipts();
        }
        self.found = Found::Http;
        let lane = &mut self.lanes[direction];
        lane.read_as(side);
        if let Some(probe) = lane.take_probe() {
            self.data(direction, probe.as_chunk(), sink);
        }
        self.lanes[direction].tidy();
        // What the other direction has kept back can be read now.
        let other = 1 - direction;
        if self.lanes[other].side().is_none()
            && let Some(probe) = self.lanes[other].take_probe()
        {
            self.probe(other, probe.as_chunk(), sink);
        }
    }

    fn request_bytes(&mut self, direction: usize, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        if self.goes_on_without_body(direction, chunk) {
            self.skip_unsent_body(direction, sink);
        }
        let Some(reader) = self.lanes[direction].reading_mut() else {
            self.push(direction, chunk, sink);
            return;
        };
        if reader.is_lost() {
            if !chunk.boundary || !recognise::request_in_midstream(chunk.bytes) {
                return;
            }
            reader.resume();
        } else if reader.awaits_first_body_byte() && self.pairing.body_is_refused() {
            // The body after all, or the next request? It may take some bytes to tell.
            let lane = &mut self.lanes[direction];
            let recognised = recognise::request_for_body(lane.work().hold(chunk));
            if recognised == Recognised::Unsure {
                return;
            }
            let Some(held) = lane.take_probe() else {
                return;
            };
            if recognised == Recognised::Http {
                self.skip_unsent_body(direction, sink);
            }
            self.push(direction, held.as_chunk(), sink);
            return;
        }
        self.push(direction, chunk, sink);
    }

    fn answer_bytes(&mut self, direction: usize, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        let Some(reader) = self.lanes[direction].reading() else {
            self.push(direction, chunk, sink);
            return;
        };
        let lost = reader.is_lost();
        // Whether there is a body depends on the request.
        let unsure = matches!(self.answer.as_deref(), Some(Answer::Final { id: None, .. }));
        if !lost && !unsure && !reader.reads_until_close() {
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
            .pairing
            .expected_answers(chunk.offset)
            .find(|&offset| offset < end && begins(offset));
        let at_boundary = lost && chunk.boundary && begins(chunk.offset);
        let Some(at) = expected.or(at_boundary.then_some(chunk.offset)) else {
            if !lost {
                self.push(direction, chunk, sink);
            }
            return;
        };
        let (before, after) = chunk.bytes.split_at((at - chunk.offset) as usize);
        if lost {
            if let Some(reader) = self.lanes[direction].reading_mut() {
                reader.resume();
            }
        } else {
            self.push(
                direction,
                Chunk {
                    bytes: before,
                    ..chunk
                },
                sink,
            );
            if self.answer.is_some()
                && let Some(reader) = self.lanes[direction].reading_mut()
            {
                let step = reader.end_body_here();
                self.follow(direction, step, None, None, sink);
            }
            if let Some(reader) = self.lanes[direction].reading_mut()
                && reader.is_lost()
            {
                reader.resume();
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

    #[inline]
    fn push(&mut self, direction: usize, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        if chunk.bytes.is_empty() {
            return;
        }
        let lane = &self.lanes[direction];
        let Some(side) = lane.side() else {
            return;
        };
        if !lane.is_between_messages() {
            self.push_part(direction, chunk, sink);
        } else if let Some(rest) = self.whole_messages(direction, side, chunk, sink) {
            self.lanes[direction].work().first = Start {
                mark: rest.mark,
                offset: rest.offset,
            };
            self.push_part(direction, rest, sink);
        }
    }

    /// Reads what is not a whole message.
    fn push_part(&mut self, direction: usize, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        let lane = &mut self.lanes[direction];
        let end = chunk.offset + chunk.bytes.len() as u64;
        let work = lane.work();
        work.last = chunk.mark;
        work.given = end;
        let Some(reader) = lane.reader(sink.limits.message) else {
            return;
        };
        let was_lost = reader.is_lost();
        reader.push(chunk.bytes);
        let step = reader.poll();
        self.follow(direction, step, Some(end), None, sink);
        self.note_loss(direction, was_lost, sink);
        self.lanes[direction].tidy();
    }

    /// Follows the reader's steps until it needs more. `end` is the stream offset behind what was pushed; `ending` is
    /// why nothing more will be.
    fn follow(
        &mut self,
        direction: usize,
        mut step: Step,
        end: Option<u64>,
        ending: Option<Ending>,
        sink: &mut Sink<'_>,
    ) {
        let is_client = self.client() == Some(direction);
        loop {
            match step {
                Step::NeedInput => return,
                Step::RequestHead(head) => self.request_head(direction, head, sink),
                Step::ResponseHead(head) => self.response_head(direction, head, sink),
                Step::Body(body, how) => {
                    if is_client {
                        self.finish_request(body, OF_REQUESTS.of_body(how, ending), sink);
                    } else {
                        self.finish_answer(body, OF_ANSWERS.of_body(how, ending), sink);
                    }
                    let lane = &mut self.lanes[direction];
                    if let (Some(end), Some(reader)) = (end, lane.reading()) {
                        // The next message begins where this one ended.
                        let rest = reader.buffered() as u64;
                        let work = lane.work();
                        work.first = Start {
                            mark: work.last,
                            offset: end - rest,
                        };
                        if rest > 0 && lane.pause_rest(end) {
                            return;
                        }
                    }
                }
                Step::Abandoned(bytes, why) if is_client => {
                    let reason = OF_REQUESTS.of_head(why, ending);
                    self.partial_request(direction, &bytes, reason, sink);
                }
                Step::Abandoned(bytes, why) => {
                    let reason = OF_ANSWERS.of_head(why, ending);
                    self.partial_response(direction, &bytes, reason, sink);
                }
                Step::NotHttp(recognised) => self.not_http(recognised, sink),
            }
            if self.opaque {
                return;
            }
            let Some(reader) = self.lanes[direction].reading_mut() else {
                return;
            };
            step = reader.poll();
        }
    }

    /// Whether the client goes on with HTTP behind CONNECT or Upgrade, although the answer was not read: it has
    /// acknowledged that answer, so the capture lacks it, and sends another request.
    fn goes_on(&self, chunk: Chunk<'_>) -> bool {
        chunk.boundary
            && self
                .pairing
                .tunnel_acked()
                .is_some_and(|acked| chunk.mark.peer > acked)
            && recognise::request_in_midstream(chunk.bytes)
    }

    /// Reads what waited as HTTP: no answer will say that it is something else.
    fn drain(&mut self, direction: usize, sink: &mut Sink<'_>) {
        self.draining = true;
        self.resume(direction, sink);
        self.draining = false;
    }

    /// Reads what waited for the answer to CONNECT or Upgrade.
    fn resume(&mut self, direction: usize, sink: &mut Sink<'_>) {
        for chunk in &self.lanes[direction].take_paused() {
            self.data(direction, chunk.as_chunk(), sink);
        }
    }

    /// After a step that may have lost the framing: remember what that means for the pairing.
    fn note_loss(&mut self, direction: usize, was_lost: bool, sink: &mut Sink<'_>) {
        let is_lost = self.lanes[direction].is_lost();
        if is_lost && !was_lost && !self.opaque {
            sink.account.count(Counter::Desynchronised);
            self.note_unread(direction);
        }
    }

    /// Bytes of a direction were passed over unread: messages may have been among them.
    fn note_unread(&mut self, direction: usize) {
        if self.client() != Some(1 - direction) {
            self.pairing.requests_may_be_lost();
            self.lanes[direction].passed_over = true;
        }
        if self.client() != Some(direction) {
            self.pairing.answers_may_be_lost();
            self.lanes[direction].resynchronised = true;
        }
    }

    fn not_http(&mut self, recognised: Recognised, sink: &mut Sink<'_>) {
        match recognised {
            Recognised::Tls => self.become_opaque(Found::Tls, sink),
            Recognised::Http2 => self.become_opaque(Found::Http2, sink),
            _ if self.found == Found::Nothing => self.found = Found::Other,
            _ => {}
        }
    }

    fn become_opaque(&mut self, found: Found, sink: &mut Sink<'_>) {
        self.opaque = true;
        if self.found != Found::Http {
            self.found = found;
        }
        for lane in &mut self.lanes {
            lane.clear();
        }
        self.give_up_messages(Reason::RequestMalformed, Reason::ResponseMalformed, sink);
        for lane in &mut self.lanes {
            lane.finish();
        }
    }

    /// Finishes what is still being read although nothing more will be.
    fn give_up_messages(&mut self, request: Reason, response: Reason, sink: &mut Sink<'_>) {
        self.finish_request(UNKNOWN_BODY, Completeness::Incomplete(request), sink);
        self.finish_answer(UNKNOWN_BODY, Completeness::Incomplete(response), sink);
    }

    fn endpoints(&self, client: usize) -> Endpoints {
        let ends = self.ends.get();
        Endpoints {
            client: ends[client],
            server: ends[1 - client],
        }
    }

    fn unsettled(&mut self) -> &mut Unsettled {
        self.unsettled.get_or_insert_default()
    }

    /// Lets go of what was unsettled when nothing is any more.
    fn tidy(&mut self) {
        let is_over = |it: &Unsettled| it.interim.is_empty() && it.unproven_since.is_none();
        if self.unsettled.as_deref().is_some_and(is_over) {
            self.unsettled = None;
        }
    }
}
