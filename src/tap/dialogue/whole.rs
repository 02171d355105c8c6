//! The short way for what most messages are: whole in one segment, with nothing in doubt about them or before them.
//!
//! It says what the careful way would; `tap::tests::the_short_way_says_what_the_careful_way_says` holds it to that.

use bytes::Bytes;

use super::{Dialogue, Found};
use crate::account::Counter;
use crate::exchange::{Completeness, ExchangeId, Request, Response};
use crate::http1::framing::{self, Length};
use crate::http1::{Body, Framing, RequestHead, ResponseHead, Side, Step, strict_head};
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
            let Some((head_len, step)) = strict_head(side, limits, chunk.bytes) else {
                return Some(chunk);
            };
            let behind = &chunk.bytes[head_len..];
            let outcome = match step {
                Step::RequestHead(head) => self
                    .whole_request(direction, head, behind, chunk, sink)
                    .map_err(|head| Step::RequestHead(*head)),
                Step::ResponseHead(head) => self
                    .whole_answer(direction, head, behind, chunk, sink)
                    .map_err(|head| Step::ResponseHead(*head)),
                _ => return Some(chunk),
            };
            let taken = match outcome {
                Ok(body_len) => head_len + body_len,
                Err(step) => {
                    self.begun_message(direction, step, behind, chunk, sink);
                    return None;
                }
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

    /// Hands out a request, if all of it is there; says how long its body is. Otherwise the head comes back.
    fn whole_request(
        &mut self,
        direction: usize,
        head: RequestHead,
        behind: &[u8],
        chunk: Chunk<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<usize, Box<RequestHead>> {
        let lane = &self.lanes[direction];
        let (length, doubts) = framing::of_request(&head);
        let method = Method::of(&head);
        let calm = !self.framing_in_doubt
            && !self.is_unproven()
            && !lane.passed_over
            && !lane.foreign
            && !lane.is_doubtful()
            && !doubts.transfer_encoding
            && !method.may_tunnel();
        let Some(body) = whole_body(length, behind, sink.limits.message.body).filter(|_| calm)
        else {
            return Err(Box::new(head));
        };
        self.found = Found::Http;
        sink.account.count(Counter::Requests);
        let id = ExchangeId(*sink.next_exchange);
        *sink.next_exchange += 1;
        let body_len = body.wire.len();
        let start = Start {
            mark: chunk.mark,
            offset: chunk.offset,
        };
        let request = Request {
            id,
            connection: self.connection,
            endpoints: self.endpoints(direction),
            first_byte: chunk.mark.time,
            last_byte: chunk.mark.time,
            head,
            body,
            doubts,
            completeness: Completeness::Whole,
        };
        self.pairing.add_whole(request, start, method, sink);
        Ok(body_len)
    }

    /// Hands out the answer to the oldest request, if all of it is there; says how long its body is. Otherwise the head comes
    /// back.
    fn whole_answer(
        &mut self,
        direction: usize,
        head: ResponseHead,
        behind: &[u8],
        chunk: Chunk<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<usize, Box<ResponseHead>> {
        let client = 1 - direction;
        let asked = self.pairing.plainly_answers(chunk.offset);
        let calm = !self.lanes[direction].is_doubtful() && !head.is_interim();
        let Some((id, method)) = asked.filter(|_| calm) else {
            return Err(Box::new(head));
        };
        let (length, doubts) = framing::of_response(&head, method.name());
        let Some(body) = whole_body(length, behind, sink.limits.message.body) else {
            return Err(Box::new(head));
        };
        self.found = Found::Http;
        sink.account.count(Counter::Responses);
        sink.account.count(Counter::ResponsesWhole);
        self.lanes[direction].resynchronised = false;
        for lane in &mut self.lanes {
            lane.foreign = false;
        }
        let body_len = body.wire.len();
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
        Ok(body_len)
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
