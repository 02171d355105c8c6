//! Version 2's answers against version 1's, by endpoint, for a person to look at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use hdrhistogram::Histogram;

use crate::exchange::{Event, ExchangeId, Response};
use crate::replay::{Outcome, Replay};
use crate::report::printable;

/// Joins the answers of both versions and sums up how they agree.
#[derive(Default)]
pub(super) struct Comparison {
    half: AHashMap<ExchangeId, Half>,
    endpoints: BTreeMap<String, Endpoint>,
    compared: u64,
}

/// What is known of an exchange of which something is still to come.
#[derive(Default)]
struct Half {
    endpoint: String,
    asked: crate::time::Timestamp,
    first: Option<Seen>,
    second: Option<Seen>,
}

/// One version's answer.
struct Seen {
    status: u16,
    body: Bytes,
    took: Duration,
}

struct Endpoint {
    requests: u64,
    same_status: u64,
    same_body: u64,
    took: [Histogram<u64>; 2],
    /// The first pair of answers that differ.
    example: Option<(String, String)>,
}

impl Comparison {
    /// Takes in what the capture found.
    pub(super) fn captured(&mut self, event: &Event) {
        match event {
            Event::Request(request) => {
                let half = self.half.entry(request.id).or_default();
                half.endpoint = endpoint(request.head.method(), request.head.target());
                half.asked = request.first_byte;
            }
            Event::Response { id, response } => {
                let Some(half) = self.half.get_mut(id) else {
                    return;
                };
                let took = response.last_byte.since(half.asked);
                half.first = Some(Seen::of(response, took));
                self.settle(*id);
            }
            Event::Orphan { .. } | Event::Unanswered { .. } | Event::Closed { .. } => {}
        }
    }

    /// Takes in what became of a replay.
    pub(super) fn replayed(&mut self, replay: &Replay) {
        let Outcome::Answered(answer) = &replay.outcome else {
            return;
        };
        let request = &replay.request;
        let half = self.half.entry(request.id).or_default();
        half.endpoint = endpoint(request.head.method(), request.head.target());
        half.asked = request.first_byte;
        half.second = Some(Seen::of(&answer.response, answer.timings.total));
        self.settle(request.id);
    }

    /// How many pairs of answers there were.
    #[must_use]
    pub(super) const fn compared(&self) -> u64 {
        self.compared
    }

    /// The table of endpoints, and what is different in plain words.
    #[must_use]
    pub(super) fn table(&self) -> String {
        let width = self.endpoints.keys().map(String::len).max().unwrap_or(8);
        let mut text = format!(
            "  {:width$}  requests  same status  same body   v1 median   v2 median\n",
            "endpoint"
        );
        let mut differences = String::new();
        // Writing to a string cannot fail.
        for (name, endpoint) in &self.endpoints {
            let [first, second] = endpoint.medians();
            let _ = writeln!(
                text,
                "  {name:width$}  {:>8}  {:>11}  {:>9}  {:>10}  {:>10}{}",
                endpoint.requests,
                endpoint.same_status,
                endpoint.same_body,
                milliseconds(first),
                milliseconds(second),
                if endpoint.differs() { "   <-" } else { "" },
            );
            if let Some((first, second)) = &endpoint.example {
                let _ = write!(
                    differences,
                    "  {name}: {} of {} answers differ, such as\n    version 1  {first}\n    version 2  {second}\n",
                    endpoint.requests - endpoint.same_body.min(endpoint.same_status),
                    endpoint.requests
                );
            }
            if endpoint.is_slower() {
                let _ = writeln!(
                    differences,
                    "  {name}: version 2 takes {} where version 1 takes {}",
                    milliseconds(second),
                    milliseconds(first)
                );
            }
        }
        if !differences.is_empty() {
            text.push_str("\nWhat is different:\n");
            text.push_str(&differences);
        }
        text
    }

    fn settle(&mut self, id: ExchangeId) {
        let Some(Half {
            first: Some(_),
            second: Some(_),
            ..
        }) = self.half.get(&id)
        else {
            return;
        };
        let Some(Half {
            endpoint,
            first: Some(first),
            second: Some(second),
            ..
        }) = self.half.remove(&id)
        else {
            return;
        };
        self.compared += 1;
        self.endpoints
            .entry(endpoint)
            .or_insert_with(Endpoint::new)
            .add(&first, &second);
    }
}

impl Seen {
    fn of(response: &Response, took: Duration) -> Self {
        Self {
            status: response.head.status(),
            body: Bytes::copy_from_slice(&response.body.content()),
            took,
        }
    }

    fn shown(&self) -> String {
        let body = &self.body[..self.body.len().min(100)];
        format!("{} {}", self.status, printable(body.trim_ascii()))
    }
}

impl Endpoint {
    fn new() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, 60_000_000, 3)
                .unwrap_or_else(|_| unreachable!("constant bounds"))
        };
        Self {
            requests: 0,
            same_status: 0,
            same_body: 0,
            took: [histogram(), histogram()],
            example: None,
        }
    }

    fn add(&mut self, first: &Seen, second: &Seen) {
        self.requests += 1;
        let (same_status, same_body) = (first.status == second.status, first.body == second.body);
        self.same_status += u64::from(same_status);
        self.same_body += u64::from(same_body);
        for (histogram, seen) in self.took.iter_mut().zip([first, second]) {
            histogram.saturating_record(u64::try_from(seen.took.as_micros()).unwrap_or(u64::MAX));
        }
        if !(same_status && same_body) && self.example.is_none() {
            self.example = Some((first.shown(), second.shown()));
        }
    }

    fn medians(&self) -> [u64; 2] {
        [0, 1].map(|version: usize| self.took[version].value_at_quantile(0.5))
    }

    /// Ten times as slow, and by more than what scheduling on a busy machine explains.
    fn is_slower(&self) -> bool {
        let [first, second] = self.medians();
        second > first.saturating_mul(10) && second > first + 10_000
    }

    fn differs(&self) -> bool {
        self.example.is_some() || self.is_slower()
    }
}

/// Method and path, numbers in the path and the query left out.
fn endpoint(method: &[u8], target: &[u8]) -> String {
    let path = target
        .split(|&byte| byte == b'?')
        .next()
        .unwrap_or_default();
    let parts: Vec<String> = path
        .split(|&byte| byte == b'/')
        .map(|part| {
            if !part.is_empty() && part.iter().all(u8::is_ascii_digit) {
                "{id}".to_owned()
            } else {
                printable(part)
            }
        })
        .collect();
    format!("{} {}", printable(method), parts.join("/"))
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_leave_numbers_and_queries_out() {
        assert_eq!(endpoint(b"GET", b"/items/17?x=1"), "GET /items/{id}");
        assert_eq!(endpoint(b"GET", b"/"), "GET /");
        assert_eq!(endpoint(b"GET", b"/a\x1b[2J"), "GET /a\\x1b[2J");
    }

    #[test]
    fn medians_read_well() {
        assert_eq!(milliseconds(41_239), "41.23 ms");
        assert_eq!(milliseconds(90), "0.09 ms");
    }
}
