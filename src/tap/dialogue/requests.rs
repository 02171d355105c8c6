//! Requests that are read the careful way: from the head to the end of the body.

use super::{Dialogue, Found, UNKNOWN_BODY};
use crate::account::{Counter, Reason};
use crate::exchange::{Completeness, ExchangeId, Request};
use crate::http1::framing::{self, Length};
use crate::http1::{Body, MessageReader, RequestHead, recognise, whole_lines};
use crate::tap::Sink;
use crate::tap::lane::Chunk;
use crate::tap::pairing::Unfinished;

impl Dialogue {
    pub(super) fn request_head(
        &mut self,
        direction: usize,
        head: RequestHead,
        sink: &mut Sink<'_>,
    ) {
        let length = self.begin_request(direction, head, sink);
        let Some(reader) = self.lanes[direction].reading_mut() else {
            return;
        };
        if let Length::Framed(framing) = length {
            reader.frame(framing);
            return;
        }
        reader.stop();
        self.pairing.requests_may_be_lost();
        let malformed = Completeness::Incomplete(Reason::RequestMalformed);
        self.finish_request(Body::none(), malformed, sink);
    }

    pub(super) fn begin_request(
        &mut self,
        direction: usize,
        head: RequestHead,
        sink: &mut Sink<'_>,
    ) -> Length {
        self.found = Found::Http;
        sink.account.count(Counter::Requests);
        let (length, mut doubts) = framing::of_request(&head);
        doubts.transfer_encoding |= self.framing_in_doubt;
        self.framing_in_doubt |= doubts.transfer_encoding;
        doubts.after_close = self.pairing.has_server_ended();
        let id = ExchangeId(*sink.next_exchange);
        *sink.next_exchange += 1;
        let lane = &mut self.lanes[direction];
        let first = lane.work().first;
        let acked = first.mark.peer;
        if std::mem::take(&mut lane.passed_over) {
            self.unsettled().unproven_since = Some(acked);
        }
        if let Some(unsettled) = &mut self.unsettled {
            doubts.unproven = unsettled.unproven_since.is_some_and(|since| acked <= since);
            if !doubts.unproven {
                unsettled.unproven_since = None;
                self.tidy();
            }
        }
        let request = Unfinished {
            id,
            head,
            first,
            doubts,
        };
        let lane = &self.lanes[direction];
        self.pairing.begin(request, lane.foreign);
        length
    }

    /// A request whose head never became whole: shown as far as it goes, so that its answer finds it.
    pub(super) fn partial_request(
        &mut self,
        direction: usize,
        bytes: &[u8],
        reason: Reason,
        sink: &mut Sink<'_>,
    ) {
        let head = whole_lines(bytes).and_then(|lines| RequestHead::parse(lines).ok());
        let Some(head) = head else {
            self.pairing.requests_may_be_lost();
            sink.account.count(Counter::Requests);
            sink.account.drop(reason);
            return;
        };
        self.pairing.next_is_damaged();
        self.begin_request(direction, head, sink);
        self.finish_request(UNKNOWN_BODY, Completeness::Incomplete(reason), sink);
        self.pairing.requests_may_be_lost();
    }

    pub(super) fn finish_request(
        &mut self,
        body: Body,
        completeness: Completeness,
        sink: &mut Sink<'_>,
    ) {
        let Some(client) = self.client() else { return };
        let Some((unfinished, tunnel_awaited)) = self.pairing.take_unfinished() else {
            return;
        };
        let Unfinished {
            id,
            head,
            first,
            mut doubts,
        } = unfinished;
        let lane = &mut self.lanes[client];
        doubts.retransmission |= lane.take_doubt(first.offset);
        if body.has_odd_chunks() {
            doubts.transfer_encoding = true;
            self.framing_in_doubt = true;
        }
        if tunnel_awaited && completeness.is_whole() && !self.opaque && !self.draining {
            lane.work().begin_pause();
        }
        let last = lane.work().last;
        let request = Request {
            id,
            connection: self.connection,
            first_byte: first.mark.time,
            last_byte: last.time,
            endpoints: self.endpoints(client),
            head,
            body,
            doubts,
            completeness,
        };
        self.pairing.finish(request, sink);
    }

    /// The server has answered `Expect: 100-continue` finally, and the client sends something else than the body.
    pub(super) fn skip_unsent_body(&mut self, direction: usize, sink: &mut Sink<'_>) {
        if let Some(reader) = self.lanes[direction].reading_mut() {
            reader.skip_unsent_body();
        }
        let unsent = Completeness::Incomplete(Reason::RequestBodyNeverSent);
        self.finish_request(Body::none(), unsent, sink);
    }

    /// Whether the client sends the next request where the server was to ask for a body, although no answer was read: it has
    /// acknowledged one, so the capture lacks it, and it was a final one.
    pub(super) fn goes_on_without_body(&self, direction: usize, chunk: Chunk<'_>) -> bool {
        let reading = self.lanes[direction].reading();
        reading.is_some_and(MessageReader::awaits_first_body_byte)
            && chunk.boundary
            && self
                .unsettled
                .as_ref()
                .is_none_or(|it| it.interim.is_empty())
            && self
                .pairing
                .continue_acked()
                .is_some_and(|acked| chunk.mark.peer > acked)
            && recognise::request_in_midstream(chunk.bytes)
    }

    /// Whether what the client sends may be part of a body that was not captured.
    pub(super) fn is_unproven(&self) -> bool {
        self.unsettled
            .as_ref()
            .is_some_and(|it| it.unproven_since.is_some())
    }
}
