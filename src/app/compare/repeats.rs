//! The same safe request twice within seconds: version 1 compared with itself, for nothing.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use ahash::RandomState;
use bytes::Bytes;

use crate::exchange::{Completeness, Doubts, Request, Response};
use crate::http1::{Body, Framing, ResponseHead};
use crate::time::Timestamp;

/// Version 1's last answers to safe requests, a bounded number of them.
///
/// Nearly all of them are never looked at again. So their bytes are copied into one ring, and nothing else of them is kept:
/// answers that live for seconds would have each new one take memory that no cache holds. They are found by chains, out of
/// which nothing has to be taken: what is gone ends a chain.
///
/// Invariant: `kept` has the answers whose bytes are in `ring`, in this order, and nothing else is in it. Answers and bytes are
/// numbered from the first that was ever kept; of these, `gone` answers and `gone_bytes` bytes are no longer there. `latest` has
/// the number of the latest answer of each chain.
pub(in crate::app) struct Repeats {
    hashes: RandomState,
    latest: Box<[u32]>,
    kept: VecDeque<Kept>,
    /// Around again after 2³².
    gone: u32,
    ring: VecDeque<u8>,
    gone_bytes: u64,
}

/// An answer in the ring: its head, then its body as it was on the wire.
struct Kept {
    key: u64,
    /// The number of the one before it in its chain.
    older: u32,
    begin: u64,
    head: usize,
    body: usize,
    /// When the request was there.
    asked: Timestamp,
    first_byte: Timestamp,
    last_byte: Timestamp,
    framing: Framing,
}

/// What version 1 answered to the same request within the last seconds.
#[derive(Debug)]
pub(in crate::app) enum Before {
    /// The same, byte for byte.
    Same(u16),
    /// Something else.
    Other(Box<Response>),
}

impl Before {
    /// The status code.
    pub(in crate::app) fn status(&self) -> u16 {
        match self {
            Self::Same(status) => *status,
            Self::Other(response) => response.head.status(),
        }
    }
}

impl Repeats {
    pub(in crate::app) fn new() -> Self {
        Self {
            hashes: RandomState::new(),
            latest: vec![0; CHAINS].into(),
            kept: VecDeque::new(),
            gone: 0,
            ring: VecDeque::new(),
            gone_bytes: 0,
        }
    }

    /// Version 1's answer to the same request within the last seconds, if there is one; `response`, the whole answer to this
    /// one, takes its place.
    pub(in crate::app) fn exchange(
        &mut self,
        request: &Request,
        response: &Response,
    ) -> Option<Before> {
        if !matches!(request.head.method(), b"GET" | b"HEAD") {
            return None;
        }
        let key = self.key(request);
        let asked = request.last_byte;
        let before = self
            .last(key)
            .and_then(|kept| self.before(kept, asked, response));
        self.keep(key, asked, response);
        before
    }

    /// The latest answer to such a request that is still there.
    fn last(&self, key: u64) -> Option<&Kept> {
        let mut place = self.place(self.latest[chain(key)])?;
        loop {
            let kept = &self.kept[place];
            if kept.key == key {
                return Some(kept);
            }
            place = self.place(kept.older).filter(|&older| older < place)?;
        }
    }

    /// Where the answer of that number is among those that are left.
    fn place(&self, number: u32) -> Option<usize> {
        let place = number.wrapping_sub(self.gone) as usize;
        (place < self.kept.len()).then_some(place)
    }

    fn before(&self, kept: &Kept, asked: Timestamp, response: &Response) -> Option<Before> {
        if asked.since(kept.asked).max(kept.asked.since(asked)) > WITHIN {
            return None;
        }
        let begin = usize::try_from(kept.begin.checked_sub(self.gone_bytes)?).ok()?;
        let body = begin + kept.head;
        let (head, body) = (self.bytes(begin..body), self.bytes(body..body + kept.body));
        let is = |[one, two]: [&[u8]; 2], bytes: &[u8]| {
            one.len() + two.len() == bytes.len() && bytes.starts_with(one) && bytes.ends_with(two)
        };
        if kept.framing == response.body.framing
            && is(head, response.head.bytes())
            && is(body, &response.body.wire)
        {
            return Some(Before::Same(response.head.status()));
        }
        Some(Before::Other(Box::new(Response {
            first_byte: kept.first_byte,
            last_byte: kept.last_byte,
            interim: Vec::new(),
            // It was one before.
            head: ResponseHead::parse(Bytes::from(head.concat())).ok()?,
            body: Body {
                framing: kept.framing,
                wire: Bytes::from(body.concat()),
                missing: 0,
            },
            doubts: Doubts::default(),
            completeness: Completeness::Whole,
        })))
    }

    /// What is in the ring there, in two pieces.
    fn bytes(&self, range: std::ops::Range<usize>) -> [&[u8]; 2] {
        let (one, two) = self.ring.as_slices();
        let of = |slice: &'_ [u8], from: usize| {
            let at = |place: usize| place.saturating_sub(from).min(slice.len());
            at(range.start)..at(range.end)
        };
        [&one[of(one, 0)], &two[of(two, one.len())]]
    }

    fn keep(&mut self, key: u64, asked: Timestamp, response: &Response) {
        let (head, body) = (response.head.bytes(), &response.body.wire);
        let number = self.gone.wrapping_add(self.kept.len() as u32);
        let older = std::mem::replace(&mut self.latest[chain(key)], number);
        self.kept.push_back(Kept {
            key,
            older,
            begin: self.gone_bytes + self.ring.len() as u64,
            head: head.len(),
            body: body.len(),
            asked,
            first_byte: response.first_byte,
            last_byte: response.last_byte,
            framing: response.body.framing,
        });
        self.ring.extend(&head[..]);
        self.ring.extend(&body[..]);
        while self.kept.len() > MOST || self.ring.len() > MOST_BYTES {
            let Some(kept) = self.kept.pop_front() else {
                break;
            };
            let size = kept.head + kept.body;
            self.ring.drain(..size);
            self.gone_bytes += size as u64;
            self.gone = self.gone.wrapping_add(1);
        }
    }

    /// What makes two requests the same: request line, body, and every field line that an application may answer to, as sent.
    fn key(&self, request: &Request) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        let (head, fields) = (request.head.bytes(), request.head.fields());
        let mut from = 0;
        for ((name, _), line) in fields.iter().zip(fields.lines()) {
            if is_never_the_same(name) {
                hasher.write(&head[from..line.start]);
                from = line.end;
            }
        }
        hasher.write(&head[from..]);
        hasher.write(&request.body.wire);
        hasher.finish()
    }
}

/// The chain that it is in.
const fn chain(key: u64) -> usize {
    key as usize % CHAINS
}

fn is_never_the_same(name: &[u8]) -> bool {
    let letters = LETTERS.get(name.len()).copied().unwrap_or_default();
    if letters & letter(name) == 0 {
        return false;
    }
    let mut lower = [0; LETTERS.len()];
    let lower = &mut lower[..name.len()];
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    NEVER_THE_SAME.iter().any(|other| other.as_bytes() == lower)
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

/// By length: a bit for each letter that a name of that length begins with.
const LETTERS: [u32; 32] = {
    let (mut letters, mut at) = ([0; 32], 0);
    while at < NEVER_THE_SAME.len() {
        let name = NEVER_THE_SAME[at].as_bytes();
        letters[name.len()] |= letter(name);
        at += 1;
    }
    letters
};

/// A bit for the letter that a name begins with, the same for both cases.
const fn letter(name: &[u8]) -> u32 {
    match name {
        [first, ..] => 1 << (*first & 31),
        [] => 0,
    }
}

/// Later, the answer may rightly be another one.
const WITHIN: Duration = Duration::from_secs(5);

/// So many answers are kept, of so many bytes in all.
const MOST: usize = 4096;
const MOST_BYTES: usize = 16 << 20;

/// So many chains: few have more than one answer.
const CHAINS: usize = 4 * MOST;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::{answer, request};

    fn at(seconds: u64, head: &str) -> Request {
        let mut request = request(head, "");
        request.last_byte = Timestamp::from_secs_nanos(seconds, 0);
        request
    }

    fn are_equal(one: &Response, two: &Response) -> bool {
        one.head == two.head && one.body == two.body && one.first_byte == two.first_byte
    }

    #[test]
    fn the_same_within_seconds() {
        let mut repeats = Repeats::new();
        let first = answer(200, "", b"1");
        let second = answer(404, "X: y\r\n", b"22");
        let head = "GET /a HTTP/1.1\r\nAccept: x\r\nX-Request-Id: 1\r\n\r\n";
        let again = "GET /a HTTP/1.1\r\nAccept: x\r\nX-Request-Id: 2\r\n\r\n";
        assert!(repeats.exchange(&at(10, head), &first).is_none());
        let mut is = |request: Request, response: &Response, wanted: &Response| match repeats
            .exchange(&request, response)
        {
            Some(Before::Other(found)) => are_equal(&found, wanted),
            Some(Before::Same(status)) => {
                are_equal(response, wanted) && status == wanted.head.status()
            }
            None => false,
        };
        assert!(is(at(12, again), &second, &first));
        assert!(is(at(13, head), &first, &second));
        assert!(is(at(14, head), &first, &first));
        assert!(is(at(12, head), &second, &first));
        assert!(
            repeats.exchange(&at(30, head), &first).is_none(),
            "too late"
        );
    }

    #[test]
    fn what_is_kept_is_what_was_answered_last() {
        let mut repeats = Repeats::new();
        let mut last = std::collections::BTreeMap::new();
        let body = |index: usize| vec![b'a' + (index % 3) as u8; 40_000 + index % 7];
        for index in 0..3_000 {
            let (target, response) = (index * index % 83, answer(200, "", &body(index)));
            let request = at(1, &format!("GET /{target} HTTP/1.1\r\n\r\n"));
            let found = repeats.exchange(&request, &response);
            let wanted: Option<Response> = last.insert(target, response.clone());
            match (found, wanted) {
                (Some(Before::Same(_)), Some(wanted)) => assert!(are_equal(&response, &wanted)),
                (Some(Before::Other(found)), Some(wanted)) => assert!(are_equal(&found, &wanted)),
                (found, wanted) => assert!(found.is_none() && wanted.is_none(), "{index}"),
            }
        }
        assert!(repeats.gone > 0 && repeats.ring.len() <= MOST_BYTES);
    }

    #[test]
    fn many_answers_share_the_chains() {
        let mut repeats = Repeats::new();
        // Numbers go around once in it.
        repeats.gone = u32::MAX - 5_000;
        let mut all: Vec<(u64, u8)> = Vec::new();
        let mut target: u64 = 1;
        for index in 0..40_000_u32 {
            target = target
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let (target, status) = (target >> 51, (index % 3) as u8);
            let request = at(1, &format!("GET /{target} HTTP/1.1\r\n\r\n"));
            let response = answer(200 + u16::from(status), "", b"");
            let before = repeats.exchange(&request, &response);
            let found = before.map(|before| before.status());
            let latest = all.iter().rev().take(MOST);
            let wanted = latest.into_iter().find(|(it, _)| *it == target);
            let wanted = wanted.map(|&(_, status)| 200 + u16::from(status));
            assert_eq!(found, wanted, "{index}");
            all.push((target, status));
        }
        assert!(repeats.gone < u32::MAX - 5_000, "around");
    }

    #[test]
    fn who_asks_is_passed_over_however_it_is_spelled() {
        for name in NEVER_THE_SAME {
            assert!(is_never_the_same(name.as_bytes()), "{name}");
            assert!(is_never_the_same(name.to_ascii_uppercase().as_bytes()));
            assert!(!is_never_the_same(format!("{name}s").as_bytes()));
        }
        let long = "x".repeat(300);
        for other in ["", "cookie", "accept", "x-request-ix", "\u{e9}", &long] {
            assert!(!is_never_the_same(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn others_are_not_the_same() {
        let mut repeats = Repeats::new();
        let response = answer(200, "", b"1");
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
        let response = answer(200, "", &[b'x'; 10_000]);
        for index in 0..20_000 {
            repeats.exchange(&at(1, &format!("GET /{index} HTTP/1.1\r\n\r\n")), &response);
        }
        assert!(repeats.kept.len() <= MOST && repeats.ring.len() <= MOST_BYTES);
        let bytes: usize = repeats.kept.iter().map(|it| it.head + it.body).sum();
        assert_eq!(repeats.ring.len(), bytes);
    }
}
