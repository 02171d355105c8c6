//! The short way for what most messages are: whole in one segment, with nothing in doubt about them or before them.
//!
//! It says what the careful way would; `tap::tests::the_short_way_says_what_the_careful_way_says` holds it to that.

use std::sync::Arc;

use bytes::Bytes;

use super::{Dialogue, Found};
use crate::account::Counter;
use crate::exchange::{Completeness, ExchangeId, Request, Response};
use crate::http1::framing::{self, Length};
use crate::http1::{Body, Framing, RequestHead, ResponseHead, Side, Step};
use crate::http1::{strict_request, strict_response};
use crate::tap::Sink;
use crate::tap::lane::{Chunk, Start};
use crate::tap::pairing::Method;

impl Dialogue {
    /// Reads the whole messages that a chunk begins with, when the direction is between two; what is left of it comes back.
    pub(super) fn whole_messages<'a>(
        &mut self,
        direction: usize,
        side: Side,
        mut chunk: Chunk<'a>,
        sink: &mut Sink<'_>,
    ) -> Option<Chunk<'a>> {
        #[cfg(test)]
        if crate::tap::tests::ALWAYS_CAREFUL.get() {
            return Some(chunk);
        }
        loop {
            let limits = sink.limits.message;
            let taken = match side {
                Side::Requests => match strict_request(limits, chunk.bytes) {
                    Some(head) => self.whole_request(direction, head, chunk, sink)?,
                    None => return Some(chunk),
                },
                Side::Responses => match strict_response(limits, chunk.bytes) {
                    Some(head) => self.whole_answer(direction, head, chunk, sink)?,
                    None => return Some(chunk),
                },
            };
            chunk.bytes = &chunk.bytes[taken..];
            chunk.offset += taken as u64;
            if chunk.bytes.is_empty() {
                return None;
            }
        }
    }

    /// Goes on the careful way behind the head that a chunk begins with.
    fn begun_message(
        &mut self,
        direction: usize,
        head: Step,
        behind: &[u8],
        chunk: Chunk<'_>,
        sink: &mut Sink<'_>,
    ) {
        let lane = &mut self.lanes[direction];
        let end = chunk.offset + chunk.bytes.len() as u64;
        let work = lane.work();
        work.first = Start {
            mark: chunk.mark,
            offset: chunk.offset,
        };
        work.last = chunk.mark;
        work.given = end;
        if let Some(reader) = lane.reader(sink.limits.message) {
            reader.take_up(behind);
        }
        self.follow(direction, head, Some(end), None, sink);
        self.note_loss(direction, false, sink);
        self.lanes[direction].tidy();
    }

    /// Hands out a request, if all of it is there; says how long it is. Otherwise it is gone on with the careful way.
    fn whole_request(
        &mut self,
        direction: usize,
        head: RequestHead,
        chunk: Chunk<'_>,
        sink: &mut Sink<'_>,
    ) -> Option<usize> {
        let lane = &self.lanes[direction];
        let behind = &chunk.bytes[head.bytes().len()..];
        let (length, doubts) = framing::of_request(&head);
        let method = Method::of(&head);
        let calm = !self.framing_in_doubt
            && !self.is_unproven()
            && !self.pairing.has_server_ended()
            && !lane.passed_over
            && !lane.foreign
            && !lane.is_doubtful()
            && !doubts.transfer_encoding
            && !method.may_tunnel();
        let Some(body) = whole_body(length, behind, sink.limits.message.body).filter(|_| calm)
        else {
            self.begun_message(direction, Step::RequestHead(head), behind, chunk, sink);
            return None;
        };
        self.found = Found::Http;
        sink.account.count(Counter::Requests);
        let id = ExchangeId(*sink.next_exchange);
        *sink.next_exchange += 1;
        let length = head.bytes().len() + body.wire.len();
        let start = Start {
            mark: chunk.mark,
            offset: chunk.offset,
        };
        let request = Arc::new(Request {
            id,
            connection: self.connection,
            endpoints: self.endpoints(direction),
            first_byte: chunk.mark.time,
            last_byte: chunk.mark.time,
            head,
            body,
            doubts,
            completeness: Completeness::Whole,
        });
        self.pairing.add_whole(request, start, method, sink);
        Some(length)
    }

    /// Hands out the answer to the oldest request, if all of it is there; says how long it is. Otherwise it is gone on with the
    /// careful way.
    fn whole_answer(
        &mut self,
        direction: usize,
        head: ResponseHead,
        chunk: Chunk<'_>,
        sink: &mut Sink<'_>,
    ) -> Option<usize> {
        let client = 1 - direction;
        let behind = &chunk.bytes[head.bytes().len()..];
        let asked = self.pairing.plainly_answers(chunk.offset);
        let calm = !self.lanes[direction].is_doubtful() && !head.is_interim();
        let whole = asked.filter(|_| calm).and_then(|(id, method)| {
            let (length, doubts) = framing::of_response(&head, method.name());
            let body = whole_body(length, behind, sink.limits.message.body)?;
            Some((id, doubts, body))
        });
        let Some((id, doubts, body)) = whole else {
            self.begun_message(direction, Step::ResponseHead(head), behind, chunk, sink);
            return None;
        };
        self.found = Found::Http;
        sink.account.count(Counter::Responses);
        sink.account.count(Counter::ResponsesWhole);
        self.lanes[direction].resynchronised = false;
        for lane in &mut self.lanes {
            lane.foreign = false;
        }
        let length = head.bytes().len() + body.wire.len();
        let response = Response {
            first_byte: chunk.mark.time,
            last_byte: chunk.mark.time,
            interim: self.take_interim(),
            head,
            body,
            doubts,
            completeness: Completeness::Whole,
        };
        self.pairing.answer_front(id, response, sink);
        if self.lanes[client].is_paused() && !self.pairing.awaits_tunnel() {
            self.resume(client, sink);
        }
        Some(length)
    }
}

/// The body that `bytes` begin with, if it is all there and not longer than is kept.
fn whole_body(length: Length, bytes: &[u8], limit: usize) -> Option<Body> {
    let Length::Framed(framing) = length else {
        return None;
    };
    let len = match framing {
        Framing::None => 0,
        Framing::Length(len) => usize::try_from(len).ok()?,
        Framing::Chunked | Framing::UntilClose => return None,
    };
    (len <= limit).then_some(())?;
    let wire = bytes.get(..len)?;
    Some(Body {
        framing,
        wire: Bytes::copy_from_slice(wire),
        missing: 0,
    })
}
