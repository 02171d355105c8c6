//! A request as it is written to the target: the captured bytes, and the few pieces put in their place.

use std::io::{self, IoSlice};
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::net::TcpStream;

use super::feeder::spread;
use super::{HostPolicy, ReplayConfig, TracePolicy};
use crate::exchange::{ExchangeId, Request};
use crate::http1::{empty_line_begin, host_name_len, path_begin, range_of};

/// What is changed in every request, made once.
#[derive(Debug)]
pub(super) struct Edits {
    base_path: Bytes,
    host: HostEdit,
    trace: TracePolicy,
    /// A whole field line.
    marker: Option<Bytes>,
}

#[derive(Debug)]
enum HostEdit {
    Keep,
    Suffix(Bytes),
    Set(Bytes),
}

impl Edits {
    pub(super) fn new(config: &ReplayConfig) -> Self {
        Self {
            base_path: Bytes::copy_from_slice(config.target.base_path().as_bytes()),
            host: match &config.host {
                HostPolicy::Keep => HostEdit::Keep,
                HostPolicy::Target => HostEdit::Set(Bytes::from(config.target.authority())),
                HostPolicy::Suffix(text) => {
                    HostEdit::Suffix(Bytes::copy_from_slice(text.as_str().as_bytes()))
                }
                HostPolicy::Set(text) => {
                    HostEdit::Set(Bytes::copy_from_slice(text.as_str().as_bytes()))
                }
            },
            trace: config.trace,
            marker: config
                .marker
                .as_ref()
                .map(|name| Bytes::from(format!("{name}: 1\r\n"))),
        }
    }

    /// What goes in the place of which bytes of a request's head; ranges in order, empty ones insert.
    fn of(&self, request: &Request) -> SmallVec<[(Range<usize>, Bytes); 4]> {
        let head = &request.head;
        let mut edits = SmallVec::new();
        if !self.base_path.is_empty()
            && let Some(at) = path_begin(head.target())
        {
            let at = range_of(head, head.target()).start + at;
            edits.push((at..at, self.base_path.clone()));
        }
        if !matches!(self.host, HostEdit::Keep) || self.trace != TracePolicy::Keep {
            let fields = head.fields();
            for ((name, value), line) in fields.iter().zip(fields.lines()) {
                edits.extend(self.of_field(request, name, value, line));
            }
        }
        if let Some(marker) = &self.marker {
            let at = empty_line_begin(head.bytes());
            edits.push((at..at, marker.clone()));
        }
        edits
    }

    fn of_field(
        &self,
        request: &Request,
        name: &[u8],
        value: &[u8],
        line: Range<usize>,
    ) -> Option<(Range<usize>, Bytes)> {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("host") {
            let place = range_of(&request.head, value);
            return match &self.host {
                HostEdit::Keep => None,
                HostEdit::Suffix(suffix) => {
                    let at = place.start + host_name_len(value);
                    Some((at..at, suffix.clone()))
                }
                HostEdit::Set(host) => Some((place, host.clone())),
            };
        }
        match self.trace {
            TracePolicy::Keep => None,
            TracePolicy::Drop => {
                (is("traceparent") || is("tracestate")).then(|| (line, Bytes::new()))
            }
            TracePolicy::Child if is("traceparent") => {
                let parent = range_of(&request.head, value.get(PARENT_ID)?);
                let child = child_of(value, request.id)?;
                Some((parent, Bytes::from(child)))
            }
            TracePolicy::Child => None,
        }
    }
}

/// The bytes of one request that are still to be written, as places in what was captured and what is put between them.
#[derive(Debug)]
pub(super) struct Outgoing {
    pieces: SmallVec<[Piece; 4]>,
    /// Pieces before this one are written.
    next: usize,
    /// So many bytes of this one are, too.
    begun: usize,
    /// Pieces from this one on wait for the target's `100 Continue`.
    held_from: usize,
}

#[derive(Debug)]
enum Piece {
    /// This part of the captured head.
    Head(Range<usize>),
    /// What is put between such parts.
    Edit(Bytes),
    /// The whole captured body.
    Body,
}

impl Piece {
    fn bytes<'a>(&'a self, request: &'a Request) -> &'a [u8] {
        match self {
            Self::Head(range) => &request.head.bytes()[range.clone()],
            Self::Edit(bytes) => bytes,
            Self::Body => &request.body.wire,
        }
    }
}

impl Outgoing {
    pub(super) fn new(request: &Request, edits: &Edits) -> Self {
        let mut pieces = SmallVec::new();
        let mut copied = 0;
        for (range, replacement) in edits.of(request) {
            debug_assert!(copied <= range.start);
            if copied < range.start {
                pieces.push(Piece::Head(copied..range.start));
            }
            copied = range.end;
            if !replacement.is_empty() {
                pieces.push(Piece::Edit(replacement));
            }
        }
        pieces.push(Piece::Head(copied..request.head.bytes().len()));
        let head_pieces = pieces.len();
        if !request.body.wire.is_empty() {
            pieces.push(Piece::Body);
        }
        // RFC 9110 §10.1.1; HTTP/1.0 has no such expectation.
        let waits =
            request.head.fields().has_token("expect", "100-continue") && !request.head.is_http10();
        Self {
            next: 0,
            begun: 0,
            held_from: if waits { head_pieces } else { pieces.len() },
            pieces,
        }
    }

    /// Whether everything is written.
    pub(super) fn is_done(&self) -> bool {
        self.next == self.pieces.len()
    }

    /// Whether something is to be written now.
    pub(super) fn has_ready(&self) -> bool {
        self.next < self.held_from
    }

    /// Whether the body waits for the target to ask for it, and everything before it is written.
    pub(super) fn is_held(&self) -> bool {
        self.next == self.held_from && self.next < self.pieces.len()
    }

    /// Lets the body go.
    pub(super) fn release(&mut self) {
        self.held_from = self.pieces.len();
    }

    /// What is to be written now, of the request that this was made of.
    fn ready<'a>(&'a self, request: &'a Request) -> impl Iterator<Item = &'a [u8]> {
        let mut begun = self.begun;
        self.pieces[self.next..self.held_from]
            .iter()
            .map(move |piece| &piece.bytes(request)[std::mem::take(&mut begun)..])
    }

    /// Writes what the socket takes with one call; pieces that are small together go as one, which costs the kernel less.
    pub(super) fn write_to(&self, stream: &TcpStream, request: &Request) -> io::Result<usize> {
        let all = self.ready(request).map(<[u8]>::len).sum::<usize>();
        if all > TOGETHER {
            let slices: SmallVec<[IoSlice<'_>; 8]> =
                self.ready(request).map(IoSlice::new).collect();
            return stream.try_write_vectored(&slices);
        }
        let mut together: SmallVec<[u8; TOGETHER]> = SmallVec::new();
        for piece in self.ready(request) {
            together.extend_from_slice(piece);
        }
        stream.try_write(&together)
    }

    /// `written` more bytes of `request` are written.
    pub(super) fn advance(&mut self, written: usize, request: &Request) {
        self.begun += written;
        while let Some(piece) = self.pieces.get(self.next) {
            let length = piece.bytes(request).len();
            if self.begun < length {
                return;
            }
            self.begun -= length;
            self.next += 1;
        }
    }
}

/// So many bytes are copied rather than written piece by piece.
const TOGETHER: usize = 2048;

/// A `Host` value with `suffix` behind the name.
pub(super) fn host_with_suffix(value: &[u8], suffix: &str) -> Vec<u8> {
    let (name, port) = value.split_at(host_name_len(value));
    [name, suffix.as_bytes(), port].concat()
}

/// The parent id of a request that a shadow sends on behalf of one with the given `traceparent`, 16 hexadecimal
/// digits; `None` if that is not of the form that W3C Trace Context §3.2.2 gives. The same request gets the same id.
pub(super) fn child_of(traceparent: &[u8], exchange: ExchangeId) -> Option<String> {
    let is_hex = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
    let parent = traceparent.get(PARENT_ID)?;
    let has_dashes = [2, 35, 52]
        .iter()
        .all(|&at| traceparent.get(at) == Some(&b'-'));
    if !has_dashes || !is_hex(&traceparent[3..35]) || !is_hex(parent) {
        return None;
    }
    let parent = u64::from_str_radix(std::str::from_utf8(parent).ok()?, 16).ok()?;
    // An id of zero is invalid.
    let child = spread(parent ^ spread(exchange.0)).max(1);
    Some(format!("{child:016x}"))
}

/// Where the parent id is in a `traceparent`.
pub(super) const PARENT_ID: Range<usize> = 36..52;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Completeness, ConnectionId, Doubts, Endpoints, ExchangeId};
    use crate::http1::{Body, Framing, RequestHead};
    use crate::time::Timestamp;
    use std::net::{Ipv4Addr, SocketAddr};

    fn request(head: &str, body: &str) -> Request {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Request {
            id: ExchangeId(1),
            connection: ConnectionId(1),
            endpoints: Endpoints {
                client: address,
                server: address,
            },
            first_byte: Timestamp::ZERO,
            last_byte: Timestamp::ZERO,
            head: RequestHead::parse(Bytes::copy_from_slice(head.as_bytes())).expect("a head"),
            body: Body {
                framing: Framing::None,
                wire: Bytes::copy_from_slice(body.as_bytes()),
                missing: 0,
            },
            doubts: Doubts::default(),
            completeness: Completeness::Whole,
        }
    }

    fn config(target: &str, host: &str, marker: bool) -> ReplayConfig {
        let mut config = ReplayConfig::live(target.parse().expect("a target"));
        config.host = host.parse().expect("a host policy");
        if !marker {
            config.marker = None;
        }
        config
    }

    /// What is written, `step` bytes at a time.
    fn written(request: &Request, config: &ReplayConfig, step: usize) -> String {
        let mut outgoing = Outgoing::new(request, &Edits::new(config));
        outgoing.release();
        let mut bytes = Vec::new();
        while !outgoing.is_done() {
            let ready = outgoing.ready(request).flatten().copied();
            let next: Vec<u8> = ready.take(step).collect();
            outgoing.advance(next.len(), request);
            bytes.extend(next);
        }
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn nothing_asked_nothing_changed() {
        let head = "gEt  /a/../b?c#d HTTP/1.1\nhOST:x\nX: 1\r\nx:  2 \r\n folded\r\nno colon\r\n\n";
        let config = config("http://v2", "keep", false);
        for step in [1, 7, 1000] {
            assert_eq!(
                written(&request(head, "body\0"), &config, step),
                format!("{head}body\0")
            );
        }
    }

    #[test]
    fn each_change_is_where_it_belongs() {
        let head = "POST /p HTTP/1.1\r\nHost:  a.example:8080\r\nX: 1\r\n\r\n";
        for (target, host, marker, expected) in [
            (
                "http://v2",
                "keep",
                true,
                "POST /p HTTP/1.1\r\nHost:  a.example:8080\r\nX: 1\r\nShadowtap: 1\r\n\r\nbody",
            ),
            (
                "http://v2/api/",
                "target",
                false,
                "POST /api/p HTTP/1.1\r\nHost:  v2\r\nX: 1\r\n\r\nbody",
            ),
            (
                "http://v2:81",
                "suffix:-shadow",
                false,
                "POST /p HTTP/1.1\r\nHost:  a.example-shadow:8080\r\nX: 1\r\n\r\nbody",
            ),
            (
                "http://v2/x",
                "other.example",
                true,
                "POST /x/p HTTP/1.1\r\nHost:  other.example\r\nX: 1\r\nShadowtap: 1\r\n\r\nbody",
            ),
        ] {
            let config = config(target, host, marker);
            for step in [1, 1000] {
                assert_eq!(written(&request(head, "body"), &config, step), expected);
            }
        }
    }

    #[test]
    fn a_trace_is_kept_dropped_or_continued() {
        const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let head =
            format!("GET / HTTP/1.1\r\nTraceParent: {TRACE}\r\ntracestate: a=b\r\nHost: a\r\n\r\n");
        let with = |trace| {
            let mut config = config("http://v2", "b", false);
            config.trace = trace;
            written(&request(&head, ""), &config, 1000)
        };
        assert_eq!(with(TracePolicy::Keep), head.replace(": a\r", ": b\r"));
        assert_eq!(with(TracePolicy::Drop), "GET / HTTP/1.1\r\nHost: b\r\n\r\n");
        let child = with(TracePolicy::Child);
        assert_eq!(child.len(), head.len());
        assert_ne!(child[..], head[..]);
        let digits = &child[head.find("b7ad").expect("the parent")..][..16];
        assert_eq!(
            child.replace(digits, "b7ad6b7169203331"),
            head.replace(": a\r", ": b\r")
        );
        assert_eq!(child, with(TracePolicy::Child), "the same every time");
        for wrong in [
            "",
            "00",
            &TRACE[..54].replace('b', "x"),
            &TRACE.replace('-', ":"),
        ] {
            assert_eq!(child_of(wrong.as_bytes(), ExchangeId(1)), None, "{wrong}");
        }
    }

    #[test]
    fn the_base_path_goes_before_paths_only() {
        for (target, expected) in [
            ("/", "/b/"),
            ("/x?y", "/b/x?y"),
            ("*", "*"),
            ("http://h/x", "http://h/b/x"),
            ("http://h", "http://h/b"),
            ("http://h?q", "http://h/b?q"),
            ("h:443", "h:443"),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\n\r\n");
            let config = config("http://v2/b", "keep", false);
            assert_eq!(
                written(&request(&head, ""), &config, 1000),
                format!("GET {expected} HTTP/1.1\r\n\r\n")
            );
        }
    }

    #[test]
    fn a_body_that_must_be_asked_for_is_held() {
        let head = "POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n";
        let request = request(head, "body");
        let mut outgoing =
            Outgoing::new(&request, &Edits::new(&config("http://v2", "keep", false)));
        outgoing.advance(head.len(), &request);
        assert!(outgoing.is_held() && !outgoing.has_ready() && !outgoing.is_done());
        outgoing.release();
        assert!(outgoing.has_ready());
        outgoing.advance(4, &request);
        assert!(outgoing.is_done());
    }
}
