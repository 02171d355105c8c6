//! Answers that are read the careful way: from the head to the end of the body, and what they say of what the client still sends.

use super::{Dialogue, Found, UNKNOWN_BODY};
use crate::account::{Counter, Reason};
use crate::exchange::{Completeness, Doubts, Event, ExchangeId, Response};
use crate::http1::framing::{self, Length};
use crate::http1::{Abandoned, Body, Framing, ResponseHead, Side, whole_lines};
use crate::tap::Sink;
use crate::tap::lane::{Start, is_empty_line};
use crate::tap::pairing::Method;

/// An answer being read.
pub(super) enum Answer {
    Interim,
    Final {
        /// The request it belongs to; `None`: one that was not seen.
        id: Option<ExchangeId>,
        head: ResponseHead,
        first: Start,
        doubts: Doubts,
        interim: Vec<u16>,
    },
}

impl Dialogue {
    pub(super) fn response_head(
        &mut self,
        direction: usize,
        head: ResponseHead,
        sink: &mut Sink<'_>,
    ) {
        if head.is_interim() {
            self.found = Found::Http;
            let offset = self.lanes[direction].work().first.offset;
            let received = || self.receipts.before(offset);
            if self.pairing.choose(offset, received, sink).is_some() {
                self.unsettled().interim.push(head.status());
            }
            self.answer = Some(Box::new(Answer::Interim));
            if let Some(reader) = self.lanes[direction].reading_mut() {
                reader.frame(Framing::None);
            }
            return;
        }
        let length = self.begin_answer(direction, head, sink);
        let Some(reader) = self.lanes[direction].reading_mut() else {
            return;
        };
        if let Length::Framed(framing) = length {
            reader.frame(framing);
            return;
        }
        reader.stop();
        self.finish_answer(Body::none(), Completeness::Whole, sink);
        self.become_opaque(Found::Http, sink);
    }

    pub(super) fn begin_answer(
        &mut self,
        direction: usize,
        head: ResponseHead,
        sink: &mut Sink<'_>,
    ) -> Length {
        self.found = Found::Http;
        sink.account.count(Counter::Responses);
        self.answers_unfinished_head(1 - direction, sink);
        let first = self.lanes[direction].work().first;
        let received = || self.receipts.before(first.offset);
        let id = self.pairing.choose(first.offset, received, sink);
        let method = self.pairing.begin_answer(id, sink);
        let (length, doubts) = framing::of_response(&head, method.and_then(Method::name));
        let mut interim = Vec::new();
        if id.is_some() {
            interim = self.take_interim();
            self.lanes[direction].resynchronised = false;
        }
        for lane in &mut self.lanes {
            lane.foreign = false;
        }
        self.answer = Some(Box::new(Answer::Final {
            id,
            head,
            first,
            doubts,
            interim,
        }));
        length
    }

    /// A response whose head never became whole.
    pub(super) fn partial_response(
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
        self.begin_answer(direction, head, sink);
        self.finish_answer(UNKNOWN_BODY, Completeness::Incomplete(reason), sink);
    }

    pub(super) fn finish_answer(
        &mut self,
        body: Body,
        completeness: Completeness,
        sink: &mut Sink<'_>,
    ) {
        let Some(client) = self.client() else { return };
        let Some(Answer::Final {
            id,
            head,
            first,
            mut doubts,
            interim,
        }) = self.answer.take().map(|answer| *answer)
        else {
            return;
        };
        let lane = &mut self.lanes[1 - client];
        doubts.retransmission |= lane.take_doubt(first.offset);
        let response = Response {
            first_byte: first.mark.time,
            last_byte: lane.work().last.time,
            interim,
            head,
            body,
            doubts,
            completeness,
        };
        match (id, completeness) {
            (None, _) => sink.account.drop(Reason::ResponseWithoutRequest),
            (Some(_), Completeness::Whole) => sink.account.count(Counter::ResponsesWhole),
            (Some(_), Completeness::Incomplete(reason)) => sink.account.drop(reason),
        }
        match id {
            Some(id) => self.pairing.finish_answer(id, response, sink),
            // Behind unread bytes, what looks like an answer may be part of a body: counted, not reported.
            None if lane.resynchronised => {}
            None => sink.events.push_back(Event::Orphan {
                connection: self.connection,
                endpoints: self.endpoints(client),
                response,
            }),
        }
        if !self.pairing.awaits_tunnel() {
            self.resume(client, sink);
        }
    }

    /// A final answer while nothing but an unfinished head waits for one: the server has seen enough of it.
    pub(super) fn answers_unfinished_head(&mut self, client: usize, sink: &mut Sink<'_>) {
        if self.pairing.awaits_answer() {
            return;
        }
        let lane = &mut self.lanes[client];
        if lane.side().is_some() {
            if let Some(reader) = lane.reading_mut()
                && reader.is_in_head()
            {
                let step = reader.abandon(Abandoned::Malformed);
                self.follow(client, step, None, None, sink);
            }
        } else if let Some(probe) = lane.take_probe()
            && !is_empty_line(probe.as_chunk().bytes)
        {
            lane.read_as(Side::Requests);
            if let Some(reader) = lane.reader(sink.limits.message) {
                reader.stop();
            }
            let work = lane.work();
            work.last = work.first.mark;
            let bytes = probe.as_chunk().bytes;
            self.partial_request(client, bytes, Reason::RequestMalformed, sink);
        }
    }

    /// Takes the statuses of the interim answers.
    pub(super) fn take_interim(&mut self) -> Vec<u16> {
        let Some(unsettled) = &mut self.unsettled else {
            return Vec::new();
        };
        let interim = std::mem::take(&mut unsettled.interim);
        self.tidy();
        interim
    }
}
