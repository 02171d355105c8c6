//! Which answer belongs to which request.
//!
//! Answers are paired with requests by position, and the positions are checked against TCP's own testimony: a
//! request's first segment acknowledges `acked` bytes of the server's stream, so its answer cannot begin before that
//! offset, and begins exactly there when the client waited for the answer before. Where bytes are missing and the
//! position alone proves nothing, only that exact match pairs, and only when no lost request can have been sent beside.

mod queue;

use std::num::NonZeroU64;
use std::sync::Arc;

use self::queue::Queue;

use super::Sink;
use super::lane::Start;
use crate::account::{Counter, Reason};
use crate::exchange::{Completeness, Doubts, Event, ExchangeId, NoAnswer, Request, Response};
use crate::http1::RequestHead;

/// The requests of one connection whose exchange is not over, oldest first.
///
/// A client may pipeline without end, so nothing here walks the whole queue for one message.
#[derive(Default)]
pub(super) struct Pairing {
    /// In the order of their ids.
    queue: Queue<Pending>,
    /// How many of them are believed only once the server has answered in HTTP.
    tentative: u32,
    /// How many of them await an answer that decides what follows on the connection.
    tunnels: u32,
    /// Bytes of the answers that wait for their requests.
    held: usize,
    /// An answer may have been lost unseen: only an exact match of positions pairs.
    uncertain: bool,
    /// A request may have been lost unseen before the next one.
    request_lost: bool,
    /// The next request is not whole: it may hold others that were lost.
    damaged: bool,
    /// No answer will come any more.
    server_ended: bool,
    /// The client's side was closed before the server's.
    client_closed: bool,
    /// The client reset the connection before the server's side had ended.
    client_left: bool,
    /// The server itself closed or reset the connection.
    server_closed: bool,
}

struct Pending {
    id: ExchangeId,
    /// Where in the client's stream it begins.
    begins: u64,
    /// How far the server's stream was acknowledged when the request began.
    acked: u64,
    /// The highest `acked` up to this request: never less than that of a request before it.
    acked_so_far: u64,
    /// Where the last request up to this one begins before which one may have been lost.
    begins_after_loss: Option<NonZeroU64>,
    method: Method,
    expects_continue: bool,
    /// A request may have been lost between the one before and this one.
    after_loss: bool,
    /// Not whole: other requests may have been lost in it.
    damaged: bool,
    /// Believed only once the server has answered in HTTP.
    tentative: bool,
    progress: Progress,
    answer: Answer,
}

enum Progress {
    Reading(Box<Unfinished>),
    /// Not yet believed.
    Held(Arc<Request>),
    /// Handed out.
    Done,
}

enum Answer {
    Awaited,
    /// Found, and being read.
    Reading,
    /// It waits for its request, or for an earlier one.
    Read(Box<Response>),
    /// The capture lacks it.
    Lost,
}

/// A request whose last byte has not been read.
pub(super) struct Unfinished {
    pub(super) id: ExchangeId,
    pub(super) head: RequestHead,
    pub(super) first: Start,
    pub(super) doubts: Doubts,
}

/// What the framing of an answer needs to know of the request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Head,
    Connect,
    /// Any other.
    Other {
        /// Whether the request offers another protocol.
        upgrade: bool,
    },
}

impl Method {
    pub(super) fn of(head: &RequestHead) -> Self {
        match head.method() {
            b"HEAD" => Self::Head,
            b"CONNECT" => Self::Connect,
            _ => Self::Other {
                upgrade: head.fields().get("upgrade").is_some(),
            },
        }
    }

    /// The method's name where framing depends on it.
    pub(super) fn name(self) -> Option<&'static [u8]> {
        match self {
            Self::Head => Some(b"HEAD"),
            Self::Connect => Some(b"CONNECT"),
            Self::Other { .. } => None,
        }
    }

    /// Whether what follows the request depends on the answer.
    pub(super) fn may_tunnel(self) -> bool {
        matches!(self, Self::Connect | Self::Other { upgrade: true })
    }
}

impl Pairing {
    /// A request has begun.
    pub(super) fn begin(&mut self, request: Unfinished, tentative: bool) {
        let method = Method::of(&request.head);
        self.tentative += u32::from(tentative);
        self.tunnels += u32::from(method.may_tunnel());
        let expects_continue = request.head.fields().has_token("expect", "100-continue");
        let (id, first) = (request.id, request.first);
        self.enter(id, first, method, expects_continue);
        if let Some(pending) = self.queue.back_mut() {
            pending.tentative = tentative;
            pending.progress = Progress::Reading(Box::new(request));
        }
    }

    /// Puts a request at the end of the queue, as one that was handed out and is believed.
    fn enter(&mut self, id: ExchangeId, first: Start, method: Method, expects_continue: bool) {
        let (begins, acked) = (first.offset, first.mark.peer);
        let after_loss = std::mem::take(&mut self.request_lost);
        let before = self.queue.back();
        self.queue.push_back(Pending {
            id,
            begins,
            acked,
            acked_so_far: before.map_or(acked, |before| before.acked_so_far.max(acked)),
            begins_after_loss: match after_loss {
                true => NonZeroU64::new(begins),
                false => before.and_then(|before| before.begins_after_loss),
            },
            method,
            expects_continue,
            after_loss,
            damaged: std::mem::take(&mut self.damaged),
            tentative: false,
            progress: Progress::Done,
            answer: Answer::Awaited,
        });
    }

    /// A request that is whole and believed, and on whose answer nothing depends: hands it out.
    pub(super) fn add_whole(
        &mut self,
        request: Arc<Request>,
        first: Start,
        method: Method,
        sink: &mut Sink<'_>,
    ) {
        debug_assert!(!method.may_tunnel());
        let expects_continue = request.head.fields().has_token("expect", "100-continue");
        self.enter(request.id, first, method, expects_continue);
        hand_out(request, sink);
        self.flush(sink);
    }

    /// The oldest request, if an answer that begins at `offset` of the server's stream belongs to it beyond doubt, and nothing
    /// depends on that answer.
    pub(super) fn plainly_answers(&self, offset: u64) -> Option<(ExchangeId, Method)> {
        let front = self.queue.front()?;
        let plain = !self.uncertain
            && self.tentative == 0
            && front.awaits_answer()
            && matches!(front.progress, Progress::Done)
            && !front.after_loss
            && !front.damaged
            && !front.method.may_tunnel()
            && front.acked <= offset;
        plain.then_some((front.id, front.method))
    }

    /// The answer to the oldest request, which [`Self::plainly_answers`] has named.
    pub(super) fn answer_front(&mut self, id: ExchangeId, response: Response, sink: &mut Sink<'_>) {
        debug_assert!(self.queue.front().is_some_and(|front| front.id == id));
        self.queue.pop_front();
        sink.answer(id, response);
        self.flush(sink);
    }

    /// Takes the request that is being read, to make it one that was read. The flag tells whether what follows it on
    /// the connection depends on an answer that has not come.
    pub(super) fn take_unfinished(&mut self) -> Option<(Unfinished, bool)> {
        let pending = self
            .queue
            .iter_mut()
            .rev()
            .find(|pending| pending.is_unfinished())?;
        let depends = pending.method.may_tunnel() && matches!(pending.answer, Answer::Awaited);
        match std::mem::replace(&mut pending.progress, Progress::Done) {
            Progress::Reading(request) => Some((*request, depends)),
            _ => None,
        }
    }

    /// A request was read, as far as it goes: hands it out, or holds it until it is believed.
    pub(super) fn finish(&mut self, request: Request, sink: &mut Sink<'_>) {
        let pending = self.find(request.id);
        let request = Arc::new(request);
        match pending {
            Some(pending) if pending.tentative => pending.progress = Progress::Held(request),
            _ => hand_out(request, sink),
        }
        self.flush(sink);
    }

    /// Finds the request that an answer beginning at `offset` of the server's stream belongs to, without taking it;
    /// requests that it passes over have lost theirs. `received` is how much of the client's stream the server had
    /// acknowledged with the bytes before the answer.
    pub(super) fn choose(
        &mut self,
        offset: u64,
        received: impl FnOnce() -> u64,
        sink: &mut Sink<'_>,
    ) -> Option<ExchangeId> {
        let Some(front) = self.queue.iter().position(Pending::awaits_answer) else {
            // Its request was lost, or comes later, where the capture is late with the client's packets. Either way the
            // next request need not belong to the next answer.
            self.uncertain = true;
            return None;
        };
        let first = self.queue.get(front)?;
        if !self.uncertain && !first.after_loss && !first.damaged {
            return (first.acked <= offset).then_some(first.id);
        }
        let (exact, _) = self.expected(offset).find(|&(_, acked)| acked == offset)?;
        // A request that was lost before this one, but sent together with it, is answered first. It was sent earlier when
        // the server had received it before it wrote what the client has acknowledged here.
        let chosen = self.queue.get(exact)?;
        let lost_before = chosen.begins_after_loss.map(NonZeroU64::get);
        let is_between = |&begins: &u64| begins >= first.begins;
        if lost_before
            .filter(is_between)
            .is_some_and(|begins| begins > received())
        {
            return None;
        }
        self.uncertain = false;
        let id = chosen.id;
        for index in front..exact {
            self.set_answer(index, Answer::Lost);
        }
        self.flush(sink);
        Some(id)
    }

    /// Notes that the final answer to a request has begun; returns the request's method.
    ///
    /// The server speaks HTTP: requests that waited for that proof are believed.
    pub(super) fn begin_answer(
        &mut self,
        id: Option<ExchangeId>,
        sink: &mut Sink<'_>,
    ) -> Option<Method> {
        if self.tentative > 0 {
            self.tentative = 0;
            for pending in self.queue.iter_mut() {
                pending.tentative = false;
                if let Progress::Held(request) = &pending.progress {
                    hand_out(Arc::clone(request), sink);
                    pending.progress = Progress::Done;
                }
            }
        }
        let index = self.place_of(id?)?;
        self.set_answer(index, Answer::Reading);
        Some(self.queue.get(index)?.method)
    }

    /// The final answer to a request was read, as far as it goes.
    pub(super) fn finish_answer(
        &mut self,
        id: ExchangeId,
        response: Response,
        sink: &mut Sink<'_>,
    ) {
        match self.place_of(id) {
            // As usual: the oldest request, read and handed out. Nothing has to wait for anything.
            Some(0) if self.is_front_answerable() => {
                self.leave_front();
                sink.answer(id, response);
            }
            Some(index) => {
                self.held += size(&response);
                self.set_answer(index, Answer::Read(Box::new(response)));
            }
            None => {}
        }
        self.flush(sink);
    }

    /// Offsets of the server's stream, from `from` on, at which an awaited answer is known to begin, if its client waited
    /// for it.
    pub(super) fn expected_answers(&self, from: u64) -> impl Iterator<Item = u64> {
        self.expected(from)
            .map(|(_, acked)| acked)
            .filter(move |&acked| acked >= from)
    }

    /// Whether an awaited answer is known to begin at `offset`, if its client waited for it.
    pub(super) fn expects_answer_at(&self, offset: u64) -> bool {
        self.expected_answers(offset).any(|at| at == offset)
    }

    /// The first few requests that await an answer which may be known to begin at `from` or later: their places, and where.
    fn expected(&self, from: u64) -> impl Iterator<Item = (usize, u64)> {
        let first = self
            .queue
            .partition_point(|pending| pending.acked_so_far < from);
        self.queue
            .iter_from(first)
            .take(MAX_EXPECTED)
            .enumerate()
            .filter(|(_, pending)| pending.awaits_answer())
            .map(move |(n, pending)| (first + n, pending.acked))
    }

    /// Whether any request awaits its answer.
    pub(super) fn awaits_answer(&self) -> bool {
        self.queue.iter().any(Pending::awaits_answer)
    }

    /// Whether the answer to CONNECT or Upgrade is awaited.
    pub(super) fn awaits_tunnel(&self) -> bool {
        self.tunnels > 0
    }

    /// Whether the server has answered finally, instead of asking for the body with 100.
    pub(super) fn body_is_refused(&self) -> bool {
        self.queue.back().is_some_and(|pending| {
            pending.expects_continue
                && pending.is_unfinished()
                && matches!(pending.answer, Answer::Reading | Answer::Read(_))
        })
    }

    /// How far the server's stream was acknowledged when the last request began, if it is to be answered before its body is sent.
    pub(super) fn continue_acked(&self) -> Option<u64> {
        let last = self.queue.back()?;
        let asks = last.expects_continue && last.is_unfinished() && last.awaits_answer();
        asks.then_some(last.acked)
    }

    /// How far the server's stream was acknowledged when the last request began, if its answer decides what follows it.
    pub(super) fn tunnel_acked(&self) -> Option<u64> {
        let last = self.queue.back()?;
        (last.awaits_answer() && last.method.may_tunnel()).then_some(last.acked)
    }

    /// Requests may have been among bytes that were not read.
    pub(super) fn requests_may_be_lost(&mut self) {
        self.request_lost = true;
    }

    /// The head of the next request is damaged.
    pub(super) fn next_is_damaged(&mut self) {
        self.damaged = true;
    }

    /// Answers may have been among bytes that were not read.
    pub(super) fn answers_may_be_lost(&mut self) {
        self.uncertain = true;
    }

    /// The client sends nothing more; it may still wait for answers (RFC 9293 §3.6).
    pub(super) fn client_closes(&mut self) {
        self.client_closed |= !self.server_ended;
    }

    /// The client has no use for answers any more.
    pub(super) fn client_leaves(&mut self) {
        self.client_left |= !self.server_ended;
    }

    /// The server sends nothing more, of its own accord.
    pub(super) fn server_closes(&mut self) {
        self.server_closed |= !self.server_ended;
    }

    /// Whether no answer will come any more.
    #[inline]
    pub(super) fn has_server_ended(&self) -> bool {
        self.server_ended
    }

    /// No answer will come any more.
    pub(super) fn end_answers(&mut self, sink: &mut Sink<'_>) {
        self.server_ended = true;
        self.flush(sink);
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.queue.memory() + self.held
    }

    /// Where in the queue a request is.
    fn place_of(&self, id: ExchangeId) -> Option<usize> {
        let place = self.queue.partition_point(|pending| pending.id < id);
        let found = self.queue.get(place)?;
        (found.id == id).then_some(place)
    }

    fn find(&mut self, id: ExchangeId) -> Option<&mut Pending> {
        let index = self.place_of(id)?;
        self.queue.get_mut(index)
    }

    fn set_answer(&mut self, index: usize, answer: Answer) {
        let Some(pending) = self.queue.get_mut(index) else {
            return;
        };
        let decided = pending.awaits_answer() && pending.method.may_tunnel();
        self.tunnels -= u32::from(decided);
        pending.answer = answer;
    }

    /// Whether the oldest request was handed out and its answer is being read.
    fn is_front_answerable(&self) -> bool {
        self.queue.front().is_some_and(|front| {
            let (progress, answer) = (&front.progress, &front.answer);
            matches!((progress, answer), (Progress::Done, Answer::Reading))
        })
    }

    /// Forgets the oldest request, of which nothing is held.
    fn leave_front(&mut self) {
        if let Some(front) = self.queue.pop_front() {
            self.tentative -= u32::from(front.tentative);
        }
    }

    /// Hands out, in the order of the requests, what is over.
    fn flush(&mut self, sink: &mut Sink<'_>) {
        while let Some(front) = self.queue.front() {
            match (&front.progress, &front.answer) {
                (Progress::Reading(_), _) => return,
                (Progress::Held(_), _) if !self.server_ended => return,
                (Progress::Done, Answer::Awaited | Answer::Reading) if !self.server_ended => return,
                _ => {}
            }
            self.tunnels -= u32::from(front.awaits_answer() && front.method.may_tunnel());
            self.tentative -= u32::from(front.tentative);
            let Some(Pending {
                id,
                progress,
                answer,
                ..
            }) = self.queue.pop_front()
            else {
                return;
            };
            match (progress, answer) {
                (Progress::Held(_), _) => sink.account.drop(Reason::RequestUnconfirmed),
                (_, Answer::Read(response)) => {
                    self.held -= size(&response);
                    let response = *response;
                    sink.answer(id, response);
                }
                _ => sink.events.push_back(Event::Unanswered {
                    id,
                    why: match (self.client_left, self.client_closed && self.server_closed) {
                        (true, _) => NoAnswer::ClientLeft,
                        (false, true) => NoAnswer::HalfClosed,
                        (false, false) => NoAnswer::Ended,
                    },
                }),
            }
        }
    }
}

/// How many requests are looked at for the one whose answer begins at some offset. A client that waits for its answers
/// has one of them at a time.
const MAX_EXPECTED: usize = 64;

impl Pending {
    fn awaits_answer(&self) -> bool {
        matches!(self.answer, Answer::Awaited)
    }

    fn is_unfinished(&self) -> bool {
        matches!(self.progress, Progress::Reading(_))
    }
}

/// Bytes that a response holds.
fn size(response: &Response) -> usize {
    response.body.wire.len() + response.head.bytes().len()
}

fn hand_out(request: Arc<Request>, sink: &mut Sink<'_>) {
    match request.completeness {
        Completeness::Whole => sink.account.count(Counter::RequestsWhole),
        Completeness::Incomplete(reason) => sink.account.drop(reason),
    }
    sink.events.push_back(Event::Request(request));
}
