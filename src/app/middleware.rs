//! The way of requests from the input to the engines, through the user's middleware where there is one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use anyhow::{Context as _, anyhow};
use bytes::{Bytes, BytesMut};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never};

use super::compare::Comparing;
use super::observer::{Observation, Observer};
use super::outlets::Outlets;
use crate::account::{Account, Counter};
use crate::exchange::{
    Completeness, ConnectionId, Doubts, Endpoints, Event, ExchangeId, Request, Response,
};
use crate::middleware::{Command, Inlet, Middleware, Outlet, Patience, Returned};
use crate::record::gor::{self, Kind, Record};
use crate::replay::{EngineHandle, Outcome};
use crate::time::Timestamp;
use crate::traffic::Traffic;

/// The record of a captured request.
#[must_use]
pub fn request_record(request: &Request) -> Record {
    Record {
        kind: Kind::Request,
        id: id_of(request.endpoints, request.id),
        time: request.first_byte,
        latency: Some(request.last_byte.since(request.first_byte)),
        payload: joined(request.head.bytes(), &request.body.wire),
        offset: 0,
    }
}

/// The record of version 1's answer to the request with that id.
#[must_use]
pub fn response_record(id: Bytes, response: &Response) -> Record {
    Record {
        kind: Kind::Response,
        id,
        time: response.first_byte,
        latency: Some(response.last_byte.since(response.first_byte)),
        payload: joined(response.head.bytes(), &response.body.wire),
        offset: 0,
    }
}

/// The record of a target's whole answer to `request`.
#[must_use]
pub fn replayed_record(id: Bytes, answer: &crate::replay::Answer) -> Record {
    let response = &answer.response;
    let total = answer.timings.total;
    let sent = Timestamp::from_nanos(
        response
            .last_byte
            .as_nanos()
            .saturating_sub(u64::try_from(total.as_nanos()).unwrap_or(u64::MAX)),
    );
    Record {
        kind: Kind::Replayed,
        id,
        time: sent,
        latency: Some(total),
        payload: joined(response.head.bytes(), &response.body.wire),
        offset: 0,
    }
}

/// The id that ties the messages of an exchange together.
#[must_use]
pub fn id_of(endpoints: Endpoints, exchange: ExchangeId) -> Bytes {
    Bytes::copy_from_slice(&gor::id(endpoints, gor::exchange_part(exchange)))
}

fn joined(head: &Bytes, body: &Bytes) -> Bytes {
    if body.is_empty() {
        return head.clone();
    }
    let mut all = BytesMut::with_capacity(head.len() + body.len());
    all.extend_from_slice(head);
    all.extend_from_slice(body);
    all.freeze()
}

/// What is known of a request beside its bytes, for when it comes back.
#[derive(Clone, Copy, Debug)]
struct Origin {
    /// How many requests had been given before it.
    number: u64,
    id: ExchangeId,
    connection: ConnectionId,
    endpoints: Endpoints,
    first_byte: Timestamp,
    last_byte: Timestamp,
    doubts: Doubts,
    status: Option<u16>,
}

/// Gives messages to the middleware of a mirror or a replay.
#[derive(Clone)]
pub(super) struct Bridge {
    inlet: Inlet<Option<Origin>>,
    /// The ids under which requests went in, for their answers.
    asked: Arc<Mutex<Asked>>,
    /// Requests given so far.
    given: Arc<AtomicU64>,
    closed: Sender<Close>,
    /// Replays that were settled, and their answers given.
    settled: Arc<AtomicU64>,
}

/// What comes out of the middleware, on a thread of its own, and how it ends.
pub(super) struct Passage {
    middleware: Middleware<Option<Origin>>,
    offering: JoinHandle<()>,
    /// What the middleware returned and has been offered to the engines, if it was for them.
    offered: Arc<AtomicU64>,
    settled: Arc<AtomicU64>,
}

/// What is offered to the engines.
pub(super) enum Passed {
    /// A request, the status of version 1's answer where that is known, and whether it was pipelined.
    Request(Arc<Request>, Option<u16>, bool),
    /// A captured connection has ended.
    Closed(ConnectionId),
}

/// A running middleware whose output nobody takes yet.
pub(super) struct Opened {
    middleware: Middleware<Option<Origin>>,
    outlet: Outlet<Option<Origin>>,
    closed: Receiver<Close>,
    settled: Arc<AtomicU64>,
}

/// The end of a captured connection.
struct Close {
    connection: ConnectionId,
    /// How many requests had been given before it.
    after: u64,
}

/// The ends of captured connections, as they are told.
struct Closes<'a> {
    told: &'a Receiver<Close>,
    /// Told, and still to come.
    next: Option<Close>,
}

impl<'a> Closes<'a> {
    fn new(told: &'a Receiver<Close>) -> Self {
        Self { told, next: None }
    }

    /// The next connection that had ended before the request with this number was given.
    fn before(&mut self, number: u64) -> Option<ConnectionId> {
        let close = self.next.take().or_else(|| self.told.try_recv().ok())?;
        if close.after <= number {
            return Some(close.connection);
        }
        self.next = Some(close);
        None
    }
}

/// Starts the middleware.
pub(super) fn open(command: &Command, patience: Patience) -> anyhow::Result<(Bridge, Opened)> {
    let (middleware, inlet, outlet) = Middleware::start(command.clone(), patience)?;
    let (closed_in, closed) = bounded(CLOSED_WAITING);
    let bridge = Bridge {
        inlet,
        asked: Arc::default(),
        given: Arc::default(),
        closed: closed_in,
        settled: Arc::default(),
    };
    let opened = Opened {
        middleware,
        outlet,
        closed,
        settled: Arc::clone(&bridge.settled),
    };
    Ok((bridge, opened))
}

impl Opened {
    /// What comes out goes to `offer`, on a thread of its own.
    pub(super) fn offer_to(
        self,
        offer: impl FnMut(Passed) + Send + 'static,
    ) -> anyhow::Result<Passage> {
        let Self {
            middleware,
            outlet,
            closed,
            settled,
        } = self;
        let offered = Arc::new(AtomicU64::new(0));
        let its = Arc::clone(&offered);
        let offering = thread::Builder::new()
            .name("offer".to_owned())
            .spawn(move || offer_returned(outlet, &closed, &its, offer))
            .context("starting a thread")?;
        Ok(Passage {
            middleware,
            offering,
            offered,
            settled,
        })
    }
}

fn offer_returned(
    mut outlet: Outlet<Option<Origin>>,
    closed: &Receiver<Close>,
    offered: &AtomicU64,
    mut offer: impl FnMut(Passed),
) {
    let mut made = 0;
    let mut closes = Closes::new(closed);
    while let Some(Returned { record, tag }) = outlet.take() {
        let origin = tag.flatten();
        // Requests that were given before a connection's end are to leave on it, and come back later than the end is told:
        // it is over once one has come back that was given after its end.
        if let Some(origin) = origin {
            while let Some(connection) = closes.before(origin.number) {
                offer(Passed::Closed(connection));
            }
        }
        if let Some(request) = request(&record, origin, &mut made) {
            let status = origin.and_then(|origin| origin.status);
            offer(Passed::Request(Arc::new(request), status, false));
        }
        offered.fetch_add(1, Ordering::Release);
    }
}

/// The request that came back.
fn request(record: &Record, origin: Option<Origin>, made: &mut u64) -> Option<Request> {
    // Beyond every number that a tap or a reader gives out.
    const MADE: u64 = 1 << 62;
    if record.kind != Kind::Request {
        return None;
    }
    let (head, body, doubts) = record.request()?;
    let origin = origin.unwrap_or_else(|| {
        let (connection, endpoints) = gor::connection_of(&record.id);
        *made += 1;
        Origin {
            number: 0,
            id: ExchangeId(*made | MADE),
            connection: ConnectionId(connection | MADE),
            endpoints,
            first_byte: record.time,
            last_byte: record.time.after(record.latency.unwrap_or_default()),
            doubts: Doubts::default(),
            status: None,
        }
    });
    Some(Request {
        id: origin.id,
        connection: origin.connection,
        endpoints: origin.endpoints,
        first_byte: origin.first_byte,
        last_byte: origin.last_byte,
        head,
        body,
        doubts: Doubts {
            retransmission: origin.doubts.retransmission,
            unproven: origin.doubts.unproven,
            after_close: origin.doubts.after_close,
            ..doubts
        },
        completeness: Completeness::Whole,
    })
}

impl Passed {
    /// Offers it to every engine as `traffic` has it.
    pub(super) fn offer(self, traffic: &Traffic, outlets: &mut Outlets) {
        match self {
            Self::Request(request, status, pipelined) => {
                outlets.offer(&request, status, pipelined, traffic);
            }
            Self::Closed(connection) => outlets.closed(connection),
        }
    }
}

/// Where the requests of an input go.
pub(super) enum Way {
    /// To the engines.
    Straight(Box<Outlets>, Box<Traffic>),
    /// Into the middleware; whoever compares hears of them before version 1's answers.
    Through(Bridge, Option<Comparing>),
}

impl Way {
    /// Sends something on its way.
    pub(super) fn pass(&mut self, passed: Passed) {
        match (self, passed) {
            (Self::Straight(outlets, traffic), passed) => passed.offer(traffic, outlets),
            (Self::Through(bridge, comparing), Passed::Request(it, status, _)) => {
                if let Some(comparing) = comparing {
                    comparing.expect(&it);
                }
                bridge.request(&it, status);
            }
            (Self::Through(bridge, _), Passed::Closed(connection)) => bridge.closed(connection),
        }
    }

    /// Hands over what is staged.
    pub(super) fn flush(&mut self) {
        if let Self::Straight(outlets, _) = self {
            outlets.flush();
        }
    }
}

impl Bridge {
    /// Gives a request; one that is not whole is not given, as it is not replayed.
    pub(super) fn request(&self, request: &Request, status: Option<u16>) {
        if !request.completeness.is_whole() {
            return;
        }
        let record = request_record(request);
        let origin = Origin {
            number: self.given.fetch_add(1, Ordering::Relaxed),
            id: request.id,
            connection: request.connection,
            endpoints: request.endpoints,
            first_byte: request.first_byte,
            last_byte: request.last_byte,
            doubts: request.doubts,
            status,
        };
        self.inlet.give(record, Some(origin));
    }

    /// A captured connection has ended; where that is forgotten, its target connection closes when it is idle.
    pub(super) fn closed(&self, connection: ConnectionId) {
        let after = self.given.load(Ordering::Relaxed);
        let _ = self.closed.try_send(Close { connection, after });
    }

    /// Gives the answers of version 1 and of the targets, as they are seen.
    pub(super) fn observer(&self, next: &Observer) -> Observer {
        let (bridge, next) = (self.clone(), Arc::clone(next));
        Arc::new(move |observation| {
            bridge.observe(observation);
            next(observation);
        })
    }

    /// Takes no more messages, and gives what is inside until `until`.
    pub(super) fn close(&self, until: Instant) {
        self.inlet.close(until);
    }

    fn observe(&self, observation: Observation<'_>) {
        match observation {
            Observation::Captured(Event::Request(request)) => {
                if request.completeness.is_whole() {
                    let name = id_of(request.endpoints, request.id);
                    self.asked(|asked| asked.insert(request.id, name));
                }
            }
            Observation::Captured(Event::Response { id, response }) => {
                let asked = self.asked(|asked| asked.take(*id));
                if let Some(name) = asked.filter(|_| response.completeness.is_whole()) {
                    self.inlet.give(response_record(name, response), None);
                }
            }
            Observation::Captured(Event::Unanswered { id, .. }) => {
                self.asked(|asked| asked.take(*id));
            }
            Observation::Captured(_) => {}
            Observation::Replayed(replay) => {
                if let Outcome::Answered(answer) = &replay.outcome
                    && answer.response.completeness.is_whole()
                {
                    let name = id_of(replay.request.endpoints, replay.request.id);
                    self.inlet.give(replayed_record(name, answer), None);
                }
                self.settled.fetch_add(1, Ordering::Release);
            }
        }
    }

    fn asked<R>(&self, with: impl FnOnce(&mut Asked) -> R) -> R {
        with(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The latest requests that may still be answered.
#[derive(Debug, Default)]
pub(super) struct Asked {
    names: AHashMap<ExchangeId, Bytes>,
    by_age: VecDeque<ExchangeId>,
}

impl Asked {
    pub(super) fn insert(&mut self, id: ExchangeId, name: Bytes) {
        if self.names.insert(id, name).is_none() {
            self.by_age.push_back(id);
        }
        while self.by_age.len() > MOST_ASKED
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.names.remove(&oldest);
        }
    }

    pub(super) fn take(&mut self, id: ExchangeId) -> Option<Bytes> {
        self.names.remove(&id)
    }
}

impl Passage {
    /// What was counted so far.
    pub(super) fn account(&self) -> Account {
        self.middleware.account()
    }

    /// Lets everything pass that was given, and the targets' answers to it, until `until`; then the middleware ends.
    pub(super) fn finish(
        self,
        engines: &[EngineHandle],
        until: Instant,
    ) -> (Account, anyhow::Result<()>) {
        self.middleware.settle(until);
        self.wait_until_offered(until);
        wait_for_answers(engines, &self.settled, until);
        self.middleware.close(until);
        let offered = self.offering.join();
        let (account, failure) = self.middleware.join();
        let outcome = match failure {
            _ if offered.is_err() => Err(anyhow!("the offering thread panicked")),
            Some(failure) => Err(anyhow!(failure)),
            None => Ok(()),
        };
        (account, outcome)
    }

    /// Waits until the engines have been offered what the middleware returned, or until `until`: only then do they tell
    /// which answers are still to come.
    fn wait_until_offered(&self, until: Instant) {
        let returned = || self.account().get(Counter::MiddlewareReturned);
        wait_while(until, || {
            !self.offering.is_finished() && self.offered.load(Ordering::Acquire) < returned()
        });
    }
}

/// Waits until as many replays are settled as were offered to the engines, or until `until`.
pub(super) fn wait_for_answers(engines: &[EngineHandle], settled: &AtomicU64, until: Instant) {
    let offered = || -> u64 {
        let offered = |engine: &EngineHandle| engine.account().get(Counter::ReplaysOffered);
        engines.iter().map(offered).sum()
    };
    wait_while(until, || offered() > settled.load(Ordering::Acquire));
}

/// Looks again and again while `condition` holds, until `until`.
fn wait_while(until: Instant, condition: impl Fn() -> bool) {
    while Instant::now() < until && condition() {
        let pause = never::<()>().recv_timeout(LOOK_EVERY);
        debug_assert_eq!(pause, Err(RecvTimeoutError::Timeout));
    }
}

/// How often is looked whether what is waited for has come.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Ends of connections that wait to be told to the engines.
const CLOSED_WAITING: usize = 4096;

/// Requests whose answers are given to the middleware when they come.
const MOST_ASKED: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_wait_for_a_later_request_and_are_found_whenever_they_are_told() {
        let (tell, told) = bounded(4);
        let mut closes = Closes::new(&told);
        assert_eq!(closes.before(0), None);
        for (connection, after) in [(1, 1), (2, 3)] {
            let connection = ConnectionId(connection);
            tell.send(Close { connection, after }).expect("room");
        }
        assert_eq!(closes.before(0), None);
        assert_eq!(closes.before(1), Some(ConnectionId(1)));
        assert_eq!(closes.before(1), None);
        assert_eq!(closes.before(3), Some(ConnectionId(2)));
        assert_eq!(closes.before(9), None);
    }
}
