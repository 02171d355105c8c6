//! Files as they are played: a part of them, once or again and again.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::input::{Input, RECORDED};
use super::lookahead::{Ahead, Lookahead};
use super::observer::{Observation, Observer};
use crate::account::Account;
use crate::exchange::{ConnectionId, Event, ExchangeId, NoAnswer, Request, Response};
use crate::tap::TapConfig;
use crate::time::Timestamp;
use crate::traffic::slice::{Place, Slice};

/// What comes next.
pub enum Played {
    /// A request.
    Request(Next),
    /// A request that is not in the part to be played.
    Outside(Arc<Request>),
    /// A connection has ended.
    Closed(ConnectionId),
    /// Version 1's answer to a request that came before, or that there is none; only for who asked for it.
    Answer(ExchangeId, Result<Response, NoAnswer>),
}

/// A request that is to be played.
pub struct Next {
    /// The request.
    pub request: Arc<Request>,
    /// The status of version 1's answer to it, if that is asked for and known.
    pub status: Option<u16>,
    /// Its place in the schedule.
    pub place: Timestamp,
    /// Whether its client did not wait for the answer to the request before.
    pub pipelined: bool,
}

/// What is played.
#[derive(Debug)]
pub struct Program {
    /// At least one.
    pub files: Vec<PathBuf>,
    /// How packets become requests.
    pub tap: TapConfig,
    /// Which part of them.
    pub slice: Slice,
    /// How often; `None` is for ever.
    pub rounds: Option<u64>,
}

/// Reads the files of a program. The first request of a round has its place right behind the last of the round before, and
/// no exchange or connection has the name of one in another round.
pub struct Playlist {
    program: Program,
    answers: bool,
    hands_on: bool,
    input: Input,
    ahead: Lookahead,
    /// Who else looks at what is read.
    observer: Option<Observer>,
    /// Connections of this round that have not ended, as the file names them.
    open: BTreeSet<ConnectionId>,
    /// Connections of a round that is over, by their names here, handed out before anything else is read.
    ended: VecDeque<ConnectionId>,
    /// The first and the last place of a request in this round.
    span: Option<(Timestamp, Timestamp)>,
    /// The greatest number in a name of this round.
    greatest: u64,
    /// What is added to the numbers, and to the times.
    shift: (u64, Duration),
    /// Of the rounds that are over.
    account: Account,
    position: u64,
    /// Rounds that have begun.
    begun: u64,
}

impl Playlist {
    /// Opens the files; with `answers`, requests come with the status of theirs. With `hands_on`, the answers come as well.
    ///
    /// # Errors
    /// The first that does not open, or cannot be read as what it is.
    pub fn open(
        program: Program,
        answers: bool,
        hands_on: bool,
        observer: Option<Observer>,
    ) -> anyhow::Result<Self> {
        let input = Input::open(&program.files, program.tap.clone())?;
        Ok(Self {
            ahead: Lookahead::new(&input, answers, hands_on, observer.clone()),
            input,
            program,
            answers,
            hands_on,
            observer,
            open: BTreeSet::new(),
            ended: VecDeque::new(),
            span: None,
            greatest: 0,
            shift: (0, Duration::ZERO),
            account: Account::new(),
            position: 0,
            begun: 1,
        })
    }

    /// What comes next; `None` at the end.
    ///
    /// # Errors
    /// As [`Input::next_event`]; call again for what is left.
    pub fn next_played(&mut self) -> anyhow::Result<Option<Played>> {
        loop {
            if let Some(connection) = self.ended.pop_front() {
                return Ok(Some(Played::Closed(connection)));
            }
            match self.ahead.next(&mut self.input)? {
                Some(Ahead::Request(request, status, pipelined)) => {
                    match self.program.slice.place(request.last_byte) {
                        Place::Inside => return Ok(Some(self.request(request, status, pipelined))),
                        Place::Behind(by) if by > READ_ON => {
                            if !self.next_round()? && self.ended.is_empty() {
                                return Ok(None);
                            }
                        }
                        Place::Before | Place::Behind(_) => {
                            return Ok(Some(Played::Outside(self.named(request))));
                        }
                    }
                }
                Some(Ahead::Answer(id, response)) => {
                    let id = ExchangeId(id.0 + self.shift.0);
                    return Ok(Some(Played::Answer(id, response)));
                }
                Some(Ahead::Closed(connection)) if self.open.remove(&connection) => {
                    return Ok(Some(Played::Closed(self.renamed(connection))));
                }
                Some(Ahead::Closed(_)) => {}
                None => {
                    if !self.next_round()? && self.ended.is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn request(&mut self, request: Arc<Request>, status: Option<u16>, pipelined: bool) -> Played {
        let place = request.last_byte.after(self.shift.1);
        let (first, last) = self.span.get_or_insert((place, place));
        *first = (*first).min(place);
        *last = (*last).max(place);
        self.open.insert(request.connection);
        Played::Request(Next {
            request: self.named(request),
            status,
            place,
            pipelined,
        })
    }

    /// `request` under the names that it has in this round. One outside the part to be played has its own too: whoever
    /// hears that it was skipped must not take it for another.
    fn named(&mut self, mut request: Arc<Request>) -> Arc<Request> {
        let numbers = (request.id.0 | request.connection.0) & !RECORDED;
        self.greatest = self.greatest.max(numbers);
        if self.shift.0 > 0 {
            let connection = self.renamed(request.connection);
            let inner = Arc::make_mut(&mut request);
            inner.id = ExchangeId(inner.id.0 + self.shift.0);
            inner.connection = connection;
        }
        request
    }

    fn renamed(&self, connection: ConnectionId) -> ConnectionId {
        ConnectionId(connection.0 + self.shift.0)
    }

    /// Begins the files again, if they are to be played again and there was something to play.
    fn next_round(&mut self) -> anyhow::Result<bool> {
        let open: BTreeSet<ConnectionId> = std::mem::take(&mut self.open);
        let names: Vec<_> = open.into_iter().map(|it| self.renamed(it)).collect();
        self.ended.extend(names);
        let Some((first, last)) = self.span else {
            return Ok(false);
        };
        if self
            .program
            .rounds
            .is_some_and(|rounds| self.begun >= rounds)
        {
            return Ok(false);
        }
        let again = Input::open(&self.program.files, self.program.tap.clone())?;
        let over = std::mem::replace(&mut self.input, again);
        self.position += over.position();
        self.account.merge(&over.finish());
        self.shift.0 += self.greatest + 1;
        let shift = self.shift.0;
        let shifted = self.observer.clone().map(|next| shifted(next, shift));
        self.ahead = Lookahead::new(&self.input, self.answers, self.hands_on, shifted);
        self.shift.1 += last.since(first);
        self.span = None;
        self.greatest = 0;
        self.begun += 1;
        Ok(true)
    }

    /// What was counted so far.
    #[must_use]
    pub fn account(&self) -> Account {
        let mut account = self.account.clone();
        account.merge(&self.input.account());
        account
    }

    /// Ends reading here; everything that was counted.
    #[must_use]
    pub fn finish(self) -> Account {
        let mut account = self.account;
        account.merge(&self.input.finish());
        account
    }

    /// How many bytes there are to read in all, when that is known.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        Some(self.input.size()?.saturating_mul(self.program.rounds?))
    }

    /// How many bytes were read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position + self.input.position()
    }
}

/// Looks on at the names that a later round has.
fn shifted(next: Observer, by: u64) -> Observer {
    let exchange = move |id: ExchangeId| ExchangeId(id.0 + by);
    Arc::new(move |observation| {
        let Observation::Captured(event) = observation else {
            return next(observation);
        };
        let event = match event.clone() {
            Event::Request(mut request) => {
                let inner = Arc::make_mut(&mut request);
                inner.id = exchange(inner.id);
                Event::Request(request)
            }
            Event::Response { id, response } => Event::Response {
                id: exchange(id),
                response,
            },
            Event::Unanswered { id, why } => Event::Unanswered {
                id: exchange(id),
                why,
            },
            other => other,
        };
        next(Observation::Captured(&event));
    })
}

/// Reading ends so far behind the last moment that is to be played: a recording is not always in order.
const READ_ON: Duration = Duration::from_secs(60);
