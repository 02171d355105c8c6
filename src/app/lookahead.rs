//! Requests of a file together with version 1's answers, in the order of the requests.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;

use super::input::Input;
use super::observer::{Observation, Observer};
use crate::exchange::{ConnectionId, Event, ExchangeId, NoAnswer, Pipelines, Request, Response};

/// What is replayed, and what version 1 answered to it, if that is known.
pub enum Ahead {
    /// A request, the status of its answer, and whether it was pipelined.
    Request(Arc<Request>, Option<u16>, bool),
    /// Version 1's answer to a request that came before, or that none will come; only for who asked for it.
    Answer(ExchangeId, Result<Response, NoAnswer>),
    /// A connection has ended.
    Closed(ConnectionId),
}

/// Reads ahead of a request up to its answer, if answers are asked for at all.
///
/// Invariant: `waiting` holds the place, counted from the first event ever, of each request in `queue` whose answer is not
/// known yet; `left` is how many events have left the queue.
pub struct Lookahead {
    answers: bool,
    hands_on: bool,
    /// Who else looks at what is read.
    observer: Option<Observer>,
    pipelines: Pipelines,
    queue: VecDeque<Ahead>,
    waiting: AHashMap<ExchangeId, usize>,
    left: usize,
    ended: bool,
}

impl Lookahead {
    /// For `input`. With `answers`, requests wait for theirs; without, they leave as they come. With `hands_on`, the answers
    /// leave too.
    #[must_use]
    pub fn new(input: &Input, answers: bool, hands_on: bool, observer: Option<Observer>) -> Self {
        Self {
            answers,
            hands_on,
            observer,
            pipelines: if input.has_recordings() {
                Pipelines::of_recordings()
            } else {
                Pipelines::default()
            },
            queue: VecDeque::new(),
            waiting: AHashMap::new(),
            left: 0,
            ended: false,
        }
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// As [`Input::next_event`].
    pub fn next(&mut self, input: &mut Input) -> anyhow::Result<Option<Ahead>> {
        loop {
            if let Some(ahead) = self.take() {
                return Ok(Some(ahead));
            }
            match input.next_event()? {
                Some(event) => {
                    if let Some(observer) = &self.observer {
                        observer(Observation::Captured(&event));
                    }
                    self.push(event);
                }
                None if self.ended => return Ok(None),
                None => self.ended = true,
            }
        }
    }

    /// The oldest, unless it has to wait.
    fn take(&mut self) -> Option<Ahead> {
        if let Ahead::Request(request, ..) = self.queue.front()?
            && self.waiting.contains_key(&request.id)
        {
            if !self.ended && self.queue.len() <= MOST_WAITING {
                return None;
            }
            self.waiting.remove(&request.id);
        }
        self.left += 1;
        self.queue.pop_front()
    }

    fn push(&mut self, event: Event) {
        let pipelined = self.pipelines.push(&event);
        match event {
            Event::Request(request) => {
                if self.answers {
                    self.waiting
                        .insert(request.id, self.left + self.queue.len());
                }
                self.queue
                    .push_back(Ahead::Request(request, None, pipelined));
            }
            Event::Response { id, response } => {
                if let Some(place) = self.waiting.remove(&id)
                    && let Some(Ahead::Request(_, status, _)) =
                        self.queue.get_mut(place - self.left)
                {
                    *status = Some(response.head.status());
                }
                if self.hands_on {
                    self.queue.push_back(Ahead::Answer(id, Ok(response)));
                }
            }
            Event::Unanswered { id, why } => {
                self.waiting.remove(&id);
                if self.hands_on {
                    self.queue.push_back(Ahead::Answer(id, Err(why)));
                }
            }
            Event::Closed { connection } => self.queue.push_back(Ahead::Closed(connection)),
            Event::Orphan { .. } => {}
        }
    }
}

/// More requests than this wait for no answer: the oldest goes without.
const MOST_WAITING: usize = 1 << 16;
