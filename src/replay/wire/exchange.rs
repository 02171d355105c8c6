//! One request and its answer on a connection.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use super::super::items::Items;
use super::super::outcome::Ticket;
use super::super::outgoing::{Edits, Outgoing};
use super::super::shared::{Shared, later};
use super::super::worker::Failure;
use super::super::{Answer, Pipelining, Timings};
use super::Begun;
use super::connection::Connection;
use crate::account::Reason;
use crate::exchange::{Completeness, Doubts, Response};
use crate::http1::framing::{self, Length};
use crate::http1::{Abandoned, Body, BodyEnd, Framing, RequestHead, ResponseHead, Step};

/// One request on its way out and its answer on its way in, at the same time: an answer may come before the request is
/// all written, and a target that answers early may never read the rest.
pub(super) struct Exchange<'a> {
    pub(super) shared: &'a Shared,
    pub(super) edits: &'a Edits,
    pub(super) ticket: &'a mut Ticket,
    pub(super) connection: &'a mut Connection,
    /// What is written behind it.
    pub(super) begun: &'a mut VecDeque<Begun>,
    pub(super) outgoing: Outgoing,
    /// Writing failed; an answer may be there all the same.
    pub(super) is_broken: bool,
    pub(super) first_written: Option<Instant>,
    pub(super) last_written: Option<Instant>,
    pub(super) answer_began: Option<Instant>,
    /// When bytes of the answer, or its end, last came.
    pub(super) read_at: Option<Instant>,
    /// When the target last took bytes.
    pub(super) progress: Instant,
    pub(super) interim: Vec<u16>,
    /// The final head, its body awaited.
    pub(super) head: Option<(ResponseHead, Doubts)>,
    /// The whole answer. It stays here, since it is large and would be moved at every return.
    pub(super) received: Option<Received>,
}

/// What an exchange waits for.
enum Event {
    /// So many bytes came, and are with the reader; none at the end.
    Read(io::Result<(usize, Instant)>),
    /// The socket takes bytes again.
    Writable,
    /// One more request may be begun.
    Pipelined(Ticket),
    /// The time is over.
    Passed,
}

/// A whole answer, but for its bookkeeping.
pub(super) struct Received {
    head: ResponseHead,
    doubts: Doubts,
    body: Body,
    end: BodyEnd,
    /// The connection is another protocol's now.
    is_tunnel: bool,
}

impl Exchange<'_> {
    /// Writes and reads until the answer is whole; the answer, and whether the connection may be kept.
    pub(super) async fn run(
        &mut self,
        items: &mut Items,
        alarm: &mut Alarm,
    ) -> Result<(Box<Answer>, bool), Failure> {
        if !self.connection.reader.is_between_messages() {
            // It came with the answer before.
            self.note_read(self.progress);
            self.poll()?;
            if let Some(received) = self.received.take() {
                return Ok(self.finish(received));
            }
        }
        self.write(self.progress);
        let mut reads = 0;
        loop {
            let (limit, late) = self.limit();
            let event = poll_fn(|context| self.poll_event(context, items, alarm, limit));
            match event.await {
                Event::Read(result) => {
                    self.read(result)?;
                    if let Some(received) = self.received.take() {
                        return Ok(self.finish(received));
                    }
                    reads += 1;
                    if reads % READS_AT_A_TIME == 0 {
                        // An answer without end must meet its deadline, and others want their turn.
                        tokio::task::yield_now().await;
                        if Instant::now() >= limit {
                            self.passed(late)?;
                        }
                    }
                }
                Event::Writable => {}
                Event::Pipelined(ticket) => self.begun.push_back(Begun {
                    outgoing: Outgoing::new(&ticket.request, self.edits),
                    ticket,
                    first_written: None,
                }),
                Event::Passed => self.passed(late)?,
            }
            if self.has_ready() && !self.is_broken {
                self.write(Instant::now());
            }
        }
    }

    fn poll_event(
        &mut self,
        context: &mut Context<'_>,
        items: &mut Items,
        alarm: &mut Alarm,
        limit: Instant,
    ) -> Poll<Event> {
        if let Poll::Ready(result) = self.connection.poll_read(context, self.last_written) {
            return Poll::Ready(Event::Read(result));
        }
        if self.has_ready() && !self.is_broken {
            let writable = self.connection.stream.poll_write_ready(context);
            if writable.is_ready() {
                return Poll::Ready(Event::Writable);
            }
        }
        if self.may_begin_another()
            && let Poll::Ready(ticket) =
                items.poll_pipelined(context, self.ticket.request.connection)
        {
            return Poll::Ready(Event::Pipelined(ticket));
        }
        ready!(alarm.poll_passed(context, limit));
        Poll::Ready(Event::Passed)
    }

    /// Whether one more request may be written before this one is answered.
    fn may_begin_another(&self) -> bool {
        self.shared.config.pipelining == Pipelining::Keep
            && !self.is_broken
            && self.outgoing.is_done()
            && self.begun.iter().all(|begun| begun.outgoing.is_done())
            && self.begun.len() < MOST_BEGUN
    }

    /// Whether something is to be written now.
    fn has_ready(&self) -> bool {
        if !self.outgoing.is_done() {
            return self.outgoing.has_ready();
        }
        let next = self.begun.iter().find(|begun| !begun.outgoing.is_done());
        next.is_some_and(|begun| begun.outgoing.has_ready())
    }

    /// Writes what the socket takes. `now` is before the first call: the target may have answered by the time it returns.
    fn write(&mut self, mut now: Instant) {
        while self.has_ready() && !self.is_broken {
            let is_own = !self.outgoing.is_done();
            let (outgoing, ticket, first_written) = if !is_own {
                let mut begun = self.begun.iter_mut();
                match begun.find(|begun| !begun.outgoing.is_done()) {
                    Some(begun) => (
                        &mut begun.outgoing,
                        &mut begun.ticket,
                        &mut begun.first_written,
                    ),
                    None => return,
                }
            } else {
                (
                    &mut self.outgoing,
                    &mut *self.ticket,
                    &mut self.first_written,
                )
            };
            let result = outgoing.write_to(&self.connection.stream, &ticket.request);
            match result {
                Ok(0) => self.is_broken = true,
                Ok(written) => {
                    if first_written.is_none() {
                        *first_written = Some(now);
                        ticket.note_sent(now.saturating_duration_since(ticket.due));
                    }
                    if is_own {
                        self.last_written = Some(now);
                    }
                    self.progress = now;
                    outgoing.advance(written, &ticket.request);
                    if !self.has_ready() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.is_broken = true,
            }
            now = Instant::now();
        }
    }

    /// Takes note of what was read, and of the answer if it is whole now.
    fn read(&mut self, result: io::Result<(usize, Instant)>) -> Result<(), Failure> {
        match result {
            Ok((1.., now)) => {
                self.note_read(now);
                self.poll()?;
                if self.received.is_none() {
                    self.connection.bound_memory();
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            ended => {
                self.read_at = Some(Instant::now());
                self.end(ended.is_ok())
            }
        }
    }

    fn note_read(&mut self, now: Instant) {
        self.read_at = Some(now);
        self.answer_began.get_or_insert(now);
    }

    /// Reads on in what has come.
    fn poll(&mut self) -> Result<(), Failure> {
        loop {
            match self.connection.reader.poll() {
                Step::NeedInput => return Ok(()),
                Step::ResponseHead(head) if head.is_interim() => {
                    if self.interim.len() == MOST_INTERIM {
                        return Err(self.failure(Reason::AnswerMalformed));
                    }
                    self.interim.push(head.status());
                    if head.status() == 100 {
                        self.outgoing.release();
                    }
                    self.progress = Instant::now();
                    self.connection.reader.frame(Framing::None);
                }
                Step::ResponseHead(head) => {
                    let method = self.ticket.request.head.method();
                    match framing::of_response(&head, Some(method)) {
                        (Length::Framed(framing), doubts) => {
                            self.connection.reader.frame(framing);
                            self.head = Some((head, doubts));
                        }
                        (Length::Tunnel, doubts) => {
                            self.received = Some(Received {
                                head,
                                doubts,
                                body: Body::none(),
                                end: BodyEnd::Whole,
                                is_tunnel: true,
                            });
                            return Ok(());
                        }
                        (Length::Invalid, _) => {
                            return Err(self.failure(Reason::AnswerMalformed));
                        }
                    }
                }
                Step::Body(body, end) => {
                    // Without a final head it is the empty body of an interim answer.
                    if let Some((head, doubts)) = self.head.take() {
                        return self.receive(head, doubts, body, end);
                    }
                }
                Step::RequestHead(_) | Step::Abandoned(..) | Step::NotHttp(_) => {
                    return Err(self.failure(Reason::AnswerMalformed));
                }
            }
        }
    }

    /// The target closed the connection, by FIN if `clean`.
    fn end(&mut self, clean: bool) -> Result<(), Failure> {
        let step = self.connection.reader.end(clean);
        match (step, self.head.take()) {
            (Step::Body(body, end), Some((head, doubts))) => self.receive(head, doubts, body, end),
            (Step::Abandoned(_, Abandoned::Cut), _) => Err(self.failure(Reason::AnswerCut)),
            _ if self.answer_began.is_some() && self.interim.is_empty() => {
                Err(self.failure(Reason::AnswerCut))
            }
            _ => Err(self.failure(Reason::ConnectionLost)),
        }
    }

    fn receive(
        &mut self,
        head: ResponseHead,
        doubts: Doubts,
        body: Body,
        end: BodyEnd,
    ) -> Result<(), Failure> {
        match end {
            BodyEnd::Whole | BodyEnd::TooLarge => {
                self.received = Some(Received {
                    head,
                    doubts,
                    body,
                    end,
                    is_tunnel: false,
                });
                Ok(())
            }
            BodyEnd::Malformed => Err(self.failure(Reason::AnswerMalformed)),
            BodyEnd::Cut | BodyEnd::Gap => Err(self.failure(Reason::AnswerCut)),
        }
    }

    /// The answer, and whether the connection may be kept.
    fn finish(&mut self, received: Received) -> (Box<Answer>, bool) {
        let now = self.read_at.unwrap_or_else(Instant::now);
        let round_trip = self.connection.round_trip();
        let began = self.answer_began.unwrap_or(now);
        // An answer to a request of which nothing was written yet: it was late already.
        let sent = self.first_written.unwrap_or(began);
        let keep = self.outgoing.is_done()
            && !received.is_tunnel
            && received.body.framing != Framing::UntilClose
            && (self.connection.reader.is_between_messages() || self.is_more_expected())
            && may_persist(&self.ticket.request.head, &received.head);
        let clock = &self.shared.clock;
        let answer = Box::new(Answer {
            response: Response {
                first_byte: clock.wall(began),
                last_byte: clock.wall(now),
                interim: std::mem::take(&mut self.interim),
                head: received.head,
                body: received.body,
                doubts: received.doubts,
                completeness: match received.end {
                    BodyEnd::Whole => Completeness::Whole,
                    _ => Completeness::Incomplete(Reason::ResponseTooLarge),
                },
            },
            timings: Timings {
                lateness: sent.saturating_duration_since(self.ticket.due),
                writing: self.last_written.map_or(Duration::ZERO, |last| {
                    last.min(began).saturating_duration_since(sent)
                }),
                first_byte: began.saturating_duration_since(sent),
                total: now.saturating_duration_since(sent),
                reused: self.connection.used,
                round_trip,
                unread: self.connection.unread,
            },
        });
        (answer, keep)
    }

    /// Whether bytes behind this answer may belong to the next.
    fn is_more_expected(&self) -> bool {
        let next = self.begun.front();
        next.is_some_and(|begun| begun.first_written.is_some())
    }

    /// Until when to wait now, and for what.
    fn limit(&self) -> (Instant, Late) {
        let deadlines = &self.shared.config.deadlines;
        let whole = later(
            self.first_written.unwrap_or(self.progress),
            deadlines.answer,
        );
        let next = if self.outgoing.is_held() && self.head.is_none() {
            (later(self.progress, deadlines.body_asked), Late::Continue)
        } else if self.answer_began.is_none() || self.head.is_none() && !self.interim.is_empty() {
            (later(self.progress, deadlines.first_byte), Late::FirstByte)
        } else {
            (whole, Late::Answer)
        };
        if next.0 <= whole {
            next
        } else {
            (whole, Late::Answer)
        }
    }

    fn passed(&mut self, late: Late) -> Result<(), Failure> {
        match late {
            Late::Continue => {
                self.outgoing.release();
                self.progress = Instant::now();
                Ok(())
            }
            Late::FirstByte => Err(self.failure(Reason::FirstByteTimeout)),
            Late::Answer => Err(self.failure(if self.answer_began.is_some() {
                Reason::AnswerTimeout
            } else {
                Reason::FirstByteTimeout
            })),
        }
    }

    fn failure(&self, reason: Reason) -> Failure {
        Failure {
            reason,
            answer_began: self.answer_began.is_some(),
        }
    }
}
/// A timer that is set again only when it would go off too late: deadlines mostly move away while it runs.
#[derive(Default)]
pub(super) struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Whether it is `limit`.
    fn poll_passed(&mut self, context: &mut Context<'_>, limit: Instant) -> Poll<()> {
        let limit = tokio::time::Instant::from_std(limit);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(limit)));
        if limit < timer.deadline() {
            timer.as_mut().reset(limit);
        }
        while timer.as_mut().poll(context).is_ready() {
            if tokio::time::Instant::now() >= limit {
                return Poll::Ready(());
            }
            timer.as_mut().reset(limit);
        }
        Poll::Pending
    }
}

/// What was waited for in vain.
#[derive(Clone, Copy)]
enum Late {
    /// `100 Continue`: the body is sent all the same.
    Continue,
    FirstByte,
    Answer,
}

/// Whether another request may follow on the connection (RFC 9112 §9.3, §9.6).
fn may_persist(request: &RequestHead, response: &ResponseHead) -> bool {
    let (mut closes, mut keeps) = (false, false);
    for option in response.fields().elements("connection") {
        closes |= option.eq_ignore_ascii_case(b"close");
        keeps |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    let is_old = || request.is_http10() || response.is_http10();
    !closes && !request.fields().has_token("connection", "close") && (keeps || !is_old())
}
/// So many requests are written before the one in hand is answered, at most.
const MOST_BEGUN: usize = 32;

/// More interim answers to one request than anybody sends.
const MOST_INTERIM: usize = 100;

/// Calls before other connections have their turn.
const READS_AT_A_TIME: u32 = 16;
