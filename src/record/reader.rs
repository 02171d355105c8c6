//! Reading recordings back into the events that a capture gives.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use tracing::warn;

use super::damage::Damage;
use super::gor::{Kind, Pairing, Record, Records};
use super::input::{Format, Input};
use super::jsonl::Lines;
use super::{RecordError, har};
use crate::account::{Account, Counter, Reason};
use crate::exchange::{Completeness, ConnectionId, Event, Exchange, ExchangeId, NoAnswer};
use crate::time::Timestamp;

/// Reads recordings of messages (`.gor`, `.jsonl`, `.har`), several as if they were one, in the order of time.
///
/// Order is restored over 512 records of each file; of the same time, a request comes before a response, and an
/// earlier file before a later one. Identifiers are given anew, so that they are unique over all files. What cannot be used
/// is skipped, reported, and counted; everything else is read.
pub struct Reader {
    sources: Vec<Source>,
    /// Those that are being read.
    open: Vec<usize>,
    /// Those whose turn has not come, and where it does; the earliest is last.
    waiting: Vec<((Timestamp, u8), usize)>,
    pairing: Pairing,
    ids: Ids,
    events: VecDeque<Event>,
    damage: Vec<(PathBuf, Damage)>,
    damaged: u64,
    account: Account,
    ended: bool,
}

impl Reader {
    /// Reads the given files; `-` is the standard input.
    ///
    /// # Errors
    /// When one cannot be opened, is none of the known formats, or holds packets.
    pub fn open(paths: &[PathBuf]) -> Result<Self, RecordError> {
        let inputs: Result<Vec<_>, _> = paths.iter().map(|path| Input::open(path)).collect();
        Self::new(inputs?)
    }

    /// Reads inputs that are open already.
    ///
    /// # Errors
    /// When one holds packets: those are for [`crate::capture`].
    pub fn new(inputs: Vec<Input>) -> Result<Self, RecordError> {
        let sources: Result<Vec<_>, _> = inputs.into_iter().map(Source::new).collect();
        let mut sources = sources?;
        let looks_ahead = sources.len() > MAX_OPEN;
        let mut waiting: Vec<_> = sources
            .iter_mut()
            .zip(0..)
            .map(|(source, at)| {
                let from = if looks_ahead {
                    source.look_ahead()
                } else {
                    BEGINNING
                };
                (from, at)
            })
            .collect();
        waiting.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self {
            sources,
            open: Vec::new(),
            waiting,
            pairing: Pairing::default(),
            ids: Ids::default(),
            events: VecDeque::new(),
            damage: Vec::new(),
            damaged: 0,
            account: Account::new(),
            ended: false,
        })
    }

    /// What could not be used, the first hundred of it, by file.
    #[must_use]
    pub fn damage(&self) -> &[(PathBuf, Damage)] {
        &self.damage
    }

    /// How many pieces could not be used.
    #[must_use]
    pub const fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The requests and responses handed out so far, and why those that are not whole are not.
    #[must_use]
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// How many bytes of the files were read, before decompression, and how many they have, if that is known.
    #[must_use]
    pub fn progress(&self) -> (u64, Option<u64>) {
        let each = || {
            self.sources
                .iter()
                .map(|source| source.input.progress().get())
        };
        (
            each().map(|(read, _)| read).sum(),
            each().map(|(_, size)| size).sum(),
        )
    }

    fn count(&mut self, event: &Event) {
        let (began, whole, completeness) = match event {
            Event::Request(request) => (
                Counter::Requests,
                Counter::RequestsWhole,
                request.completeness,
            ),
            Event::Response { response, .. } => (
                Counter::Responses,
                Counter::ResponsesWhole,
                response.completeness,
            ),
            Event::Orphan { .. } => (
                Counter::Responses,
                Counter::ResponsesWhole,
                Completeness::Incomplete(Reason::ResponseWithoutRequest),
            ),
            Event::Unanswered { .. } | Event::Closed { .. } => return,
        };
        self.account.count(began);
        match completeness {
            Completeness::Whole => self.account.count(whole),
            Completeness::Incomplete(reason) => self.account.drop(reason),
        }
    }

    /// The open source whose next entry is the earliest; opens those whose turn has come.
    fn earliest(&mut self) -> Option<usize> {
        loop {
            let mut earliest: Option<((Timestamp, u8), usize)> = None;
            self.open.retain(|&at| {
                let source = &mut self.sources[at];
                while let Some(damage) = source.fill() {
                    let path = source.input.path().to_owned();
                    note(&mut self.damage, &mut self.damaged, path, damage);
                }
                let key = source.queue.peek().map(|first| (first.key, at));
                earliest = match (earliest, key) {
                    (Some(earliest), Some(key)) => Some(earliest.min(key)),
                    (earliest, key) => earliest.or(key),
                };
                key.is_some()
            });
            match self.waiting.last() {
                Some(&waits) if earliest.is_none_or(|earliest| waits < earliest) => {
                    self.waiting.pop();
                    self.sources[waits.1].start();
                    self.open.push(waits.1);
                }
                _ => return earliest.map(|(_, at)| at),
            }
        }
    }

    /// Makes events of the next entry; `false` when there is none.
    fn advance(&mut self) -> bool {
        let Some(at) = self.earliest() else {
            return false;
        };
        let source = &mut self.sources[at];
        let Some(entry) = source.queue.pop() else {
            return false;
        };
        source.held -= entry.entry.size();
        let (now, _) = entry.key;
        self.ids.sweep(now, &mut self.events);
        match entry.entry {
            Entry::Record(record) => {
                if let Err(damage) = self.pairing.push(record, &mut self.ids, &mut self.events) {
                    let path = source.input.path().to_owned();
                    note(&mut self.damage, &mut self.damaged, path, damage);
                }
            }
            Entry::Exchange(exchange) => {
                self.ids
                    .exchange_events(at, *exchange, now, &mut self.events);
            }
        }
        true
    }
}

impl Iterator for Reader {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                self.count(&event);
                return Some(event);
            }
            if self.ended {
                return None;
            }
            if !self.advance() {
                self.ended = true;
                self.pairing.finish(&mut self.events);
                self.ids.finish(&mut self.events);
            }
        }
    }
}

fn note(list: &mut Vec<(PathBuf, Damage)>, count: &mut u64, path: PathBuf, damage: Damage) {
    if list.len() < MAX_NOTED {
        warn!("{}: {damage}", path.display());
    }
    if damage.is_fault() {
        *count += 1;
        if list.len() < MAX_NOTED {
            list.push((path, damage));
        }
    }
}

/// One file, read ahead.
struct Source {
    input: Input,
    entries: Entries,
    /// The earliest is on top.
    queue: BinaryHeap<Queued>,
    /// Bytes in the queue.
    held: usize,
    taken: u64,
    /// Id and time of the last `.gor` request.
    request: (Bytes, Timestamp),
}

enum Entries {
    /// Not opened yet, or at its end.
    Closed,
    Gor(Box<Records<Box<dyn Read + Send>>>),
    Jsonl(Lines<BufReader<Box<dyn Read + Send>>>),
    Har(std::vec::IntoIter<Result<Exchange, Damage>>),
    Failed(Option<Damage>),
}

impl Source {
    fn new(input: Input) -> Result<Self, RecordError> {
        if input.format().holds_packets() {
            return Err(RecordError::Unknown {
                path: input.path().to_owned(),
                found: "it holds packets".to_owned(),
            });
        }
        Ok(Self {
            input,
            entries: Entries::Closed,
            queue: BinaryHeap::new(),
            held: 0,
            taken: 0,
            request: (Bytes::new(), Timestamp::ZERO),
        })
    }

    /// Opens the file.
    fn start(&mut self) {
        self.request = (Bytes::new(), Timestamp::ZERO);
        self.entries = match self.input.content() {
            Ok(content) => match self.input.format() {
                Format::Gor => Entries::Gor(Box::new(Records::new(content))),
                Format::Jsonl => Entries::Jsonl(Lines::new(BufReader::new(content))),
                _ => Entries::Har(har::read_entries(content).into_iter()),
            },
            Err(error) => Entries::Failed(Some(Damage::at_offset(0, error.to_string()))),
        };
    }

    /// Looks where the file begins and closes it again, so that it need not be open before its turn.
    fn look_ahead(&mut self) -> (Timestamp, u8) {
        if !self.input.is_plain_file() {
            return BEGINNING;
        }
        self.start();
        // Damage is reported when the file is read in earnest.
        while self.fill().is_some() {}
        let from = self.queue.peek().map_or(BEGINNING, |first| first.key);
        self.queue.clear();
        self.held = 0;
        self.taken = 0;
        self.entries = Entries::Closed;
        from
    }

    /// A capture with several queues may date an answer before its request; written behind it, it stays behind it.
    fn keep_behind_request(&mut self, entry: &mut Queued) {
        let Entry::Record(record) = &entry.entry else {
            return;
        };
        match record.kind {
            Kind::Request => self.request = (record.id.clone(), record.time),
            Kind::Response if record.id == self.request.0 => {
                entry.key.0 = entry.key.0.max(self.request.1);
            }
            Kind::Response | Kind::Replayed => {}
        }
    }

    /// Reads ahead; stops at damage.
    fn fill(&mut self) -> Option<Damage> {
        while self.queue.is_empty() || self.queue.len() < READ_AHEAD && self.held < READ_AHEAD_BYTES
        {
            let whole = |exchange| Entry::Exchange(Box::new(exchange));
            let next = match &mut self.entries {
                Entries::Closed => return None,
                Entries::Gor(records) => records.next_record().map(|it| it.map(Entry::Record)),
                Entries::Jsonl(lines) => lines.next_exchange().map(|it| it.map(whole)),
                Entries::Har(entries) => entries.next().map(|it| it.map(whole)),
                Entries::Failed(damage) => damage.take().map(Err),
            };
            match next {
                None => self.entries = Entries::Closed,
                Some(Err(damage)) => return Some(damage),
                Some(Ok(entry)) => {
                    self.held += entry.size();
                    self.taken += 1;
                    let mut queued = Queued {
                        key: entry.key(),
                        number: self.taken,
                        entry,
                    };
                    self.keep_behind_request(&mut queued);
                    self.queue.push(queued);
                }
            }
        }
        None
    }
}

enum Entry {
    Record(Record),
    Exchange(Box<Exchange>),
}

impl Entry {
    /// What the order goes by: time, then requests before responses.
    fn key(&self) -> (Timestamp, u8) {
        match self {
            Self::Record(record) => (
                record.time,
                match record.kind {
                    Kind::Request => 0,
                    Kind::Response => 1,
                    Kind::Replayed => 2,
                },
            ),
            Self::Exchange(exchange) => match (&exchange.request, &exchange.response) {
                (Some(request), _) => (request.first_byte, 0),
                (None, Some(response)) => (response.first_byte, 1),
                (None, None) => (Timestamp::ZERO, 1),
            },
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Record(record) => record.payload.len(),
            Self::Exchange(exchange) => {
                let request = exchange.request.as_ref();
                request.map_or(0, |it| it.body.wire.len())
                    + exchange
                        .response
                        .as_ref()
                        .map_or(0, |it| it.body.wire.len())
            }
        }
    }
}

/// An entry in the heap; the greatest is the earliest.
struct Queued {
    key: (Timestamp, u8),
    number: u64,
    entry: Entry,
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.key, other.number).cmp(&(self.key, self.number))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Queued {}

/// Hands out identifiers, and says when a connection is over: recordings do not, so when it was idle for long.
#[derive(Debug, Default)]
pub(super) struct Ids {
    exchanges: u64,
    connections: AHashMap<(Option<usize>, u64), Known>,
    named: u64,
    /// When idle connections were last looked for.
    swept: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    id: ConnectionId,
    used: Timestamp,
}

impl Ids {
    pub(super) fn exchange(&mut self) -> ExchangeId {
        self.exchanges += 1;
        ExchangeId(self.exchanges)
    }

    /// The connection that all `.gor` ids with that number share, in whatever file.
    pub(super) fn gor_connection(&mut self, number: u64, now: Timestamp) -> ConnectionId {
        self.connection((None, number), now)
    }

    fn connection(&mut self, key: (Option<usize>, u64), now: Timestamp) -> ConnectionId {
        let known = self.connections.entry(key).or_insert_with(|| {
            self.named += 1;
            Known {
                id: ConnectionId(self.named),
                used: now,
            }
        });
        known.used = known.used.max(now);
        known.id
    }

    /// Closes what was idle for long at `now`.
    fn sweep(&mut self, now: Timestamp, events: &mut VecDeque<Event>) {
        if now.since(self.swept) < IDLE {
            return;
        }
        self.swept = now;
        self.close(|known| now.since(known.used) >= IDLE, events);
    }

    /// Closes everything.
    fn finish(&mut self, events: &mut VecDeque<Event>) {
        self.close(|_| true, events);
    }

    fn close(&mut self, is_over: impl Fn(Known) -> bool, events: &mut VecDeque<Event>) {
        let mut over = Vec::new();
        self.connections.retain(|_, &mut known| {
            let is_over = is_over(known);
            if is_over {
                over.push(known.id);
            }
            !is_over
        });
        // The map has no order of its own, and the same files are to give the same events.
        over.sort_unstable();
        events.extend(
            over.into_iter()
                .map(|connection| Event::Closed { connection }),
        );
    }

    /// Names an exchange of the file at that place anew, and takes it apart.
    fn exchange_events(
        &mut self,
        file: usize,
        exchange: Exchange,
        now: Timestamp,
        events: &mut VecDeque<Event>,
    ) {
        let connection = self.connection((Some(file), exchange.connection.0), now);
        let Some(request) = exchange.request else {
            events.extend(exchange.response.map(|response| Event::Orphan {
                connection,
                endpoints: exchange.endpoints,
                response,
            }));
            return;
        };
        let id = self.exchange();
        let mut request = Arc::unwrap_or_clone(request);
        request.id = id;
        request.connection = connection;
        events.push_back(Event::Request(Arc::new(request)));
        events.push_back(match exchange.response {
            Some(response) => Event::Response { id, response },
            None => Event::Unanswered {
                id,
                why: NoAnswer::Ended,
            },
        });
    }
}

/// How long a connection is idle before it is taken to be over; also how often that is looked for.
const IDLE: Duration = Duration::from_secs(300);

/// Entries of each file over which order is restored.
const READ_AHEAD: usize = 512;

/// Bytes of entries over which order is restored.
const READ_AHEAD_BYTES: usize = 32 << 20;

/// Files that are opened at once; of more, each is opened when its turn comes.
const MAX_OPEN: usize = 64;

/// Before everything.
const BEGINNING: (Timestamp, u8) = (Timestamp::ZERO, 0);

/// Damage that is listed; more is only counted.
const MAX_NOTED: usize = 100;
