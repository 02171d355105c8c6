//! The same safe request twice within seconds: version 1 compared with itself, for nothing.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use ahash::{AHashMap, RandomState};

use crate::exchange::{Request, Response};
use crate::time::Timestamp;

/// Version 1's last answers to safe requests, a bounded number of them.
pub(in crate::app) struct Repeats {
    hashes: RandomState,
    last: AHashMap<u64, (Timestamp, Arc<Response>)>,
    /// Oldest first, with what each takes in memory.
    order: VecDeque<(u64, Timestamp, usize)>,
    bytes: usize,
}

impl Repeats {
    pub(in crate::app) fn new() -> Self {
        Self {
            hashes: RandomState::new(),
            last: AHashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Version 1's answer to the same request within the last seconds, if there is one; `response`, the answer to this one,
    /// takes its place.
    pub(in crate::app) fn exchange(
        &mut self,
        request: &Request,
        response: &Arc<Response>,
    ) -> Option<Arc<Response>> {
        if !matches!(request.head.method(), b"GET" | b"HEAD") {
            return None;
        }
        let key = self.key(request);
        let now = request.last_byte;
        let before = self.last.insert(key, (now, Arc::clone(response)));
        let size = response.head.bytes().len() + response.body.wire.len() + BOOKKEEPING;
        self.order.push_back((key, now, size));
        self.bytes += size;
        while self.order.len() > MOST || self.bytes > MOST_BYTES {
            let Some((key, time, size)) = self.order.pop_front() else {
                break;
            };
            self.bytes -= size;
            // A later answer to the same request has an entry of its own.
            if self.last.get(&key).is_some_and(|(then, _)| *then == time) {
                self.last.remove(&key);
            }
        }
        let (then, response) = before?;
        (now.since(then).max(then.since(now)) <= WITHIN).then_some(response)
    }

    /// What makes two requests the same: method, target, body, and every field that an application may answer to.
    fn key(&self, request: &Request) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        request.head.method().hash(&mut hasher);
        request.head.target().hash(&mut hasher);
        request.body.wire.hash(&mut hasher);
        for (name, value) in request.head.fields().iter() {
            let is = |other: &&str| name.eq_ignore_ascii_case(other.as_bytes());
            if !NEVER_THE_SAME.iter().any(is) {
                let mut lower = [0; LONGEST_NAME];
                for part in name.chunks(LONGEST_NAME) {
                    let lower = &mut lower[..part.len()];
                    lower.copy_from_slice(part);
                    lower.make_ascii_lowercase();
                    hasher.write(lower);
                }
                value.hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

/// What says who asks, on which way and under which number, and not what for.
const NEVER_THE_SAME: [&str; 18] = [
    "b3",
    "baggage",
    "connection",
    "date",
    "forwarded",
    "traceparent",
    "tracestate",
    "user-agent",
    "via",
    "x-amzn-trace-id",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-correlation-id",
    "x-forwarded-for",
    "x-forwarded-port",
    "x-request-id",
];

/// Names are hashed in pieces of so many bytes; few have more than one.
const LONGEST_NAME: usize = 32;

/// Later, the answer may rightly be another one.
const WITHIN: Duration = Duration::from_secs(5);

/// So many answers are kept, of so many bytes in all.
const MOST: usize = 4096;
const MOST_BYTES: usize = 16 << 20;
const BOOKKEEPING: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::{answer, request};

    fn at(seconds: u64, head: &str) -> Request {
        let mut request = request(head, "");
        request.last_byte = Timestamp::from_secs_nanos(seconds, 0);
        request
    }

    #[test]
    fn the_same_within_seconds() {
        let mut repeats = Repeats::new();
        let first = Arc::new(answer(200, "", b"1"));
        let second = Arc::new(answer(200, "", b"2"));
        let head = "GET /a HTTP/1.1\r\nAccept: x\r\nX-Request-Id: 1\r\n\r\n";
        let again = "GET /a HTTP/1.1\r\nAccept: x\r\nX-Request-Id: 2\r\n\r\n";
        assert!(repeats.exchange(&at(10, head), &first).is_none());
        let found = repeats.exchange(&at(12, again), &second).expect("a repeat");
        assert!(Arc::ptr_eq(&found, &first));
        let found = repeats
            .exchange(&at(13, head), &first)
            .expect("the last one");
        assert!(Arc::ptr_eq(&found, &second));
        assert!(
            repeats.exchange(&at(30, head), &first).is_none(),
            "too late"
        );
    }

    #[test]
    fn others_are_not_the_same() {
        let mut repeats = Repeats::new();
        let response = Arc::new(answer(200, "", b"1"));
        repeats.exchange(&at(1, "GET /a HTTP/1.1\r\nCookie: a=1\r\n\r\n"), &response);
        for other in [
            "GET /a HTTP/1.1\r\nCookie: a=2\r\n\r\n",
            "GET /b HTTP/1.1\r\nCookie: a=1\r\n\r\n",
            "HEAD /a HTTP/1.1\r\nCookie: a=1\r\n\r\n",
            "POST /a HTTP/1.1\r\nCookie: a=1\r\n\r\n",
            "POST /a HTTP/1.1\r\nCookie: a=1\r\n\r\n",
        ] {
            assert!(
                repeats.exchange(&at(1, other), &response).is_none(),
                "{other}"
            );
        }
    }

    #[test]
    fn bounded() {
        let mut repeats = Repeats::new();
        let response = Arc::new(answer(200, "", &[b'x'; 10_000]));
        for index in 0..20_000 {
            repeats.exchange(&at(1, &format!("GET /{index} HTTP/1.1\r\n\r\n")), &response);
        }
        assert!(repeats.last.len() <= MOST && repeats.bytes <= MOST_BYTES);
        assert_eq!(repeats.last.len(), repeats.order.len());
    }
}
