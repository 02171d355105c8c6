//! From `.gor` records to events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;

use super::{Kind, Record, connection_of};
use crate::exchange::{ConnectionId, Event, ExchangeId, NoAnswer, Request, Response};
use crate::record::damage::Damage;
use crate::record::message::{self, Parsed};
use crate::record::reader::Ids;

/// Ties each answer to the latest request of its id.
///
/// Invariant: `open` and `by_age` hold the same exchanges.
#[derive(Debug, Default)]
pub(crate) struct Pairing {
    open: AHashMap<Bytes, Open>,
    by_age: BTreeMap<ExchangeId, Bytes>,
}

#[derive(Debug)]
struct Open {
    id: ExchangeId,
    method: Bytes,
}

impl Pairing {
    /// Takes the next record, in the order of time; gives the events that it makes.
    ///
    /// # Errors
    /// When the payload is no HTTP message.
    pub(crate) fn push(
        &mut self,
        record: Record,
        ids: &mut Ids,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Damage> {
        match record.kind {
            Kind::Request => self.request(record, ids, events),
            Kind::Response => self.response(record, ids, events),
            Kind::Replayed => Ok(()),
        }
    }

    /// The end: no more answers will come.
    pub(crate) fn finish(&mut self, events: &mut VecDeque<Event>) {
        self.open.clear();
        let open = std::mem::take(&mut self.by_age).into_keys();
        events.extend(open.map(unanswered));
    }

    fn request(
        &mut self,
        record: Record,
        ids: &mut Ids,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Damage> {
        let Parsed {
            head,
            body,
            doubts,
            completeness,
            excess,
        } = message::request(record.payload.clone())
            .map_err(|error| damage(&record, format_args!("no HTTP request: {error}")))?;
        let (connection, endpoints) = connection_of(&record.id);
        let id = ids.exchange();
        let method = head.bytes().slice_ref(head.method());
        let last_byte = record.time.after(record.latency.unwrap_or_default());
        if let Some(older) = self.open.insert(record.id.clone(), Open { id, method }) {
            self.by_age.remove(&older.id);
            events.push_back(unanswered(older.id));
        }
        self.by_age.insert(id, record.id.clone());
        if self.by_age.len() > MAX_OPEN
            && let Some((oldest, key)) = self.by_age.pop_first()
        {
            self.open.remove(&key);
            events.push_back(unanswered(oldest));
        }
        events.push_back(Event::Request(Arc::new(Request {
            id,
            connection: ids.gor_connection(connection, record.time),
            endpoints,
            first_byte: record.time,
            last_byte,
            head,
            body,
            doubts,
            completeness,
        })));
        check_excess(&record, excess)
    }

    fn response(
        &mut self,
        record: Record,
        ids: &mut Ids,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Damage> {
        let open = self.open.remove(&record.id);
        if let Some(open) = &open {
            self.by_age.remove(&open.id);
        }
        let method = open.as_ref().map(|open| &open.method[..]);
        let (interim, parsed) = match message::response(record.payload.clone(), method) {
            Ok(parsed) => parsed,
            Err(error) => {
                events.extend(open.map(|open| unanswered(open.id)));
                return Err(damage(&record, format_args!("no HTTP response: {error}")));
            }
        };
        let response = Response {
            first_byte: record.time,
            last_byte: record.time.after(record.latency.unwrap_or_default()),
            interim,
            head: parsed.head,
            body: parsed.body,
            doubts: parsed.doubts,
            completeness: parsed.completeness,
        };
        events.push_back(match open {
            Some(open) => Event::Response {
                id: open.id,
                response,
            },
            None => {
                let (connection, endpoints) = connection_of(&record.id);
                let connection: ConnectionId = ids.gor_connection(connection, record.time);
                Event::Orphan {
                    connection,
                    endpoints,
                    response,
                }
            }
        });
        check_excess(&record, parsed.excess)
    }
}

const fn unanswered(id: ExchangeId) -> Event {
    Event::Unanswered {
        id,
        why: NoAnswer::Ended,
    }
}

fn check_excess(record: &Record, excess: usize) -> Result<(), Damage> {
    if excess == 0 {
        return Ok(());
    }
    Err(damage(
        record,
        format_args!("{excess} bytes behind the end of the message; left out"),
    ))
}

fn damage(record: &Record, what: std::fmt::Arguments<'_>) -> Damage {
    Damage::at_offset(record.offset, what.to_string())
}

/// Requests that wait for their answer. GoReplay records no answers unless told to.
const MAX_OPEN: usize = 20_000;
