//! One direction of a connection, read into messages: bytes in, heads and bodies out.
//!
//! [`MessageReader`] is pushed into and polled. It never blocks, knows no socket and no clock, and serves captured
//! streams and the answers of a target alike. The caller decides each body's framing, because that needs the request
//! (RFC 9112 §6.3), which one direction alone does not know.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memchr;

use crate::http1::body::{Body, Framing, chunk_size, chunk_size_loose};
use crate::http1::head::{RequestHead, ResponseHead, head_length};
use crate::http1::recognise::{self, Recognised};

/// Which messages a direction carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Client to server.
    Requests,
    /// Server to client.
    Responses,
}

/// Bounds on what one message may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageLimits {
    /// Bytes of a head. A longer one is malformed.
    pub head: usize,
    /// Bytes of a body as on the wire. The rest of a longer one is counted and not kept.
    pub body: usize,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self {
            head: 1 << 20,
            body: 64 << 20,
        }
    }
}

/// What [`MessageReader::poll`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing more without more bytes.
    NeedInput,
    /// The head of a request. Call [`MessageReader::frame`] or [`MessageReader::stop`] before polling on.
    RequestHead(RequestHead),
    /// The head of a response. Call [`MessageReader::frame`] or [`MessageReader::stop`] before polling on.
    ResponseHead(ResponseHead),
    /// The body of the last head, and how it ended.
    Body(Body, BodyEnd),
    /// A message began, but its head never became whole: what there is of it, and why.
    Abandoned(Bytes, Abandoned),
    /// The bytes are not HTTP/1; what they look like. Bytes are skipped until [`MessageReader::resume`].
    NotHttp(Recognised),
}

/// How a body ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyEnd {
    /// As its framing says.
    Whole,
    /// Bytes of it are missing from the capture.
    Gap,
    /// It is longer than the bound.
    TooLarge,
    /// The chunk framing is broken.
    Malformed,
    /// The stream ended first.
    Cut,
}

/// Why a head never became whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abandoned {
    /// Bytes of it are missing from the capture.
    Gap,
    /// The stream ended first.
    Cut,
    /// It is longer than the bound.
    TooLarge,
    /// It is no HTTP head.
    Malformed,
}

/// Reads one direction of a connection into messages.
///
/// Invariant: `taken <= buffer.len()`, and the first `taken` bytes of `buffer` belong to the message in hand.
#[derive(Debug)]
pub struct MessageReader {
    side: Side,
    limits: MessageLimits,
    state: State,
    /// Of the body in hand.
    framing: Framing,
    buffer: BytesMut,
    taken: usize,
    /// Of the body in hand: bytes that were there but are not kept.
    skipped: u64,
    /// Of the body in hand: bytes that the capture lacks.
    missing: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Between messages.
    Start,
    /// In a head; how far it has been searched for its end.
    Head {
        searched: usize,
    },
    /// A head was handed out; the caller has not told the framing.
    AwaitFraming,
    /// In a body of known length; how much of it is to come.
    Length {
        left: u64,
    },
    Chunked(Chunk),
    UntilClose,
    /// Framing lost, or not HTTP: every byte is skipped.
    Lost,
}

/// Where in a chunked body (RFC 9112 §7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chunk {
    Size,
    Data { left: u64 },
    DataEnd,
    Trailers,
}

impl MessageReader {
    /// A reader at the start of a message.
    #[must_use]
    pub fn new(side: Side, limits: MessageLimits) -> Self {
        Self {
            side,
            limits,
            state: State::Start,
            framing: Framing::None,
            buffer: BytesMut::new(),
            taken: 0,
            skipped: 0,
            missing: 0,
        }
    }

    /// Whether the next byte begins a message.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.state == State::Start && self.buffer.is_empty()
    }

    /// Whether bytes are skipped because the framing was lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Whether a body is awaited of which nothing has come yet.
    #[must_use]
    pub fn awaits_first_body_byte(&self) -> bool {
        let fresh = matches!(
            self.state,
            State::Length { .. } | State::Chunked(Chunk::Size)
        );
        fresh && self.buffer.is_empty() && self.skipped == 0 && self.missing == 0
    }

    /// Whether the body in hand ends only with the stream.
    #[must_use]
    pub fn reads_until_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Whether a message has begun whose head is not whole.
    #[must_use]
    pub fn is_in_head(&self) -> bool {
        matches!(self.state, State::Start | State::Head { .. }) && !self.buffer.is_empty()
    }

    /// Bytes pushed that belong to no message handed out yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Takes those bytes back, to be pushed again later; only between messages.
    pub fn take_buffered(&mut self) -> Bytes {
        debug_assert_eq!(self.state, State::Start);
        std::mem::take(&mut self.buffer).freeze()
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// Changes the bound on bodies from here on, that of the one in hand included.
    pub fn limit_body(&mut self, bytes: usize) {
        self.limits.body = bytes;
    }

    /// Takes the next bytes of the stream. Poll until [`Step::NeedInput`] before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.state != State::Lost {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Goes on behind a head that [`strict_request`] or [`strict_response`] found between messages: `behind` is what was captured with it. Call
    /// [`MessageReader::frame`] or [`MessageReader::stop`] before polling on.
    pub(crate) fn take_up(&mut self, behind: &[u8]) {
        debug_assert!(self.is_between_messages());
        self.state = State::AwaitFraming;
        self.buffer.extend_from_slice(behind);
    }

    /// Notes that the next `len` bytes of the stream were not captured.
    pub fn gap(&mut self, len: u64) -> Step {
        match self.state {
            State::Start if self.buffer.is_empty() => self.lose(),
            State::Start | State::Head { .. } => return self.abandon(Abandoned::Gap),
            State::AwaitFraming | State::Lost => self.lose(),
            State::Length { left } => {
                self.missing += len.min(left);
                if len > left {
                    return self.finish_body_lost(BodyEnd::Gap);
                }
                self.state = State::Length { left: left - len };
            }
            State::Chunked(Chunk::Data { left }) if len <= left => {
                self.missing += len;
                self.state = State::Chunked(Chunk::Data { left: left - len });
            }
            State::Chunked(_) => {
                self.missing += len;
                return self.finish_body_lost(BodyEnd::Gap);
            }
            State::UntilClose => self.missing += len,
        }
        self.poll()
    }

    /// Notes that the stream has ended; `clean` when by FIN, so that a body that ends with the connection is whole.
    pub fn end(&mut self, clean: bool) -> Step {
        match self.state {
            State::Start if self.buffer.is_empty() => Step::NeedInput,
            State::Start | State::Head { .. } => self.abandon(Abandoned::Cut),
            State::AwaitFraming | State::Lost => Step::NeedInput,
            State::UntilClose if clean => self.finish_body(BodyEnd::Whole),
            State::Length { .. } | State::Chunked(_) | State::UntilClose => {
                self.finish_body_lost(BodyEnd::Cut)
            }
        }
    }

    /// Tells how the body of the head that was just handed out is framed.
    pub fn frame(&mut self, framing: Framing) {
        debug_assert_eq!(self.state, State::AwaitFraming);
        self.taken = 0;
        self.skipped = 0;
        self.missing = 0;
        self.framing = framing;
        self.state = match framing {
            Framing::None => State::Length { left: 0 },
            Framing::Length(left) => State::Length { left },
            Framing::Chunked => State::Chunked(Chunk::Size),
            Framing::UntilClose => State::UntilClose,
        };
    }

    /// Skips everything from here on: a tunnel, another protocol, or a message whose length nobody can know.
    pub fn stop(&mut self) {
        self.lose();
    }

    /// Starts again at the next byte pushed, which is believed to begin a message.
    pub fn resume(&mut self) {
        self.lose();
        self.state = State::Start;
    }

    /// Gives up a body of which no byte has come, because the next byte begins a message.
    pub fn skip_unsent_body(&mut self) {
        debug_assert!(self.awaits_first_body_byte());
        self.state = State::Start;
    }

    /// Ends the body in hand here, because the next byte begins another message: it runs until the connection closes, or
    /// nothing of it has come and nothing will, as in an answer to HEAD, or its end was not captured.
    pub fn end_body_here(&mut self) -> Step {
        if self.awaits_first_body_byte() {
            self.framing = Framing::None;
        } else if !self.reads_until_close() {
            return self.finish_body_lost(BodyEnd::Gap);
        }
        self.finish_body(BodyEnd::Whole)
    }

    /// The next thing that the bytes pushed so far hold.
    pub fn poll(&mut self) -> Step {
        loop {
            match self.state {
                State::Start => {
                    self.skip_empty_lines();
                    if self.buffer.is_empty() {
                        self.buffer = BytesMut::new();
                        return Step::NeedInput;
                    }
                    if let Some(step) = self.take_strict_head() {
                        return step;
                    }
                    let recognised = match self.side {
                        Side::Requests => recognise::request(&self.buffer),
                        Side::Responses => recognise::response(&self.buffer),
                    };
                    match recognised {
                        Recognised::Http => self.state = State::Head { searched: 0 },
                        Recognised::Unsure if self.buffer.len() < recognise::MAX_UNSURE => {
                            return Step::NeedInput;
                        }
                        other => {
                            self.lose();
                            return Step::NotHttp(other);
                        }
                    }
                }
                State::Head { mut searched } => {
                    let Some(length) = self.head_length(&mut searched) else {
                        if self.buffer.len() > self.limits.head {
                            return self.abandon(Abandoned::TooLarge);
                        }
                        self.state = State::Head { searched };
                        return Step::NeedInput;
                    };
                    if length > self.limits.head {
                        return self.abandon(Abandoned::TooLarge);
                    }
                    let bytes = self.split(length);
                    self.state = State::AwaitFraming;
                    let step = match self.side {
                        Side::Requests => RequestHead::parse(bytes.clone()).map(Step::RequestHead),
                        Side::Responses => {
                            ResponseHead::parse(bytes.clone()).map(Step::ResponseHead)
                        }
                    };
                    return step.unwrap_or_else(|_| {
                        self.lose();
                        Step::Abandoned(bytes, Abandoned::Malformed)
                    });
                }
                State::AwaitFraming => return Step::NeedInput,
                State::Length { left } => {
                    let here = self.take(left);
                    if here == left {
                        return self.finish_body(if self.missing > 0 {
                            BodyEnd::Gap
                        } else {
                            BodyEnd::Whole
                        });
                    }
                    self.state = State::Length { left: left - here };
                    return Step::NeedInput;
                }
                State::Chunked(chunk) => match self.poll_chunk(chunk) {
                    ChunkStep::Next(next) => self.state = State::Chunked(next),
                    ChunkStep::NeedInput => return Step::NeedInput,
                    ChunkStep::End => {
                        return self.finish_body(if self.missing > 0 {
                            BodyEnd::Gap
                        } else {
                            BodyEnd::Whole
                        });
                    }
                    ChunkStep::Malformed => return self.finish_body_lost(BodyEnd::Malformed),
                },
                State::UntilClose => {
                    self.take(u64::MAX);
                    return Step::NeedInput;
                }
                State::Lost => return Step::NeedInput,
            }
        }
    }

    /// The head that the buffer begins with, if it is whole and follows the grammar to the letter: most do.
    fn take_strict_head(&mut self) -> Option<Step> {
        let (length, step) = match self.side {
            Side::Requests => {
                let head = strict_request(self.limits, &self.buffer)?;
                (head.bytes().len(), Step::RequestHead(head))
            }
            Side::Responses => {
                let head = strict_response(self.limits, &self.buffer)?;
                (head.bytes().len(), Step::ResponseHead(head))
            }
        };
        if length == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.advance(length);
        }
        self.state = State::AwaitFraming;
        Some(step)
    }

    /// Gives up the head in hand.
    pub fn abandon(&mut self, why: Abandoned) -> Step {
        let mut bytes = std::mem::take(&mut self.buffer).freeze();
        // How much more has come by now says nothing about the message.
        bytes.truncate(self.limits.head);
        self.lose();
        Step::Abandoned(bytes, why)
    }

    fn poll_chunk(&mut self, chunk: Chunk) -> ChunkStep {
        match chunk {
            Chunk::Size => {
                let rest = &self.buffer[self.taken..];
                let Some(line_feed) = memchr(b'\n', rest) else {
                    return if rest.len() > MAX_CHUNK_LINE {
                        ChunkStep::Malformed
                    } else {
                        ChunkStep::NeedInput
                    };
                };
                if line_feed > MAX_CHUNK_LINE {
                    return ChunkStep::Malformed;
                }
                let size = match self.side {
                    Side::Requests => chunk_size(&rest[..line_feed]),
                    Side::Responses => chunk_size_loose(&rest[..line_feed]),
                };
                let Some(size) = size else {
                    return ChunkStep::Malformed;
                };
                self.taken += line_feed + 1;
                ChunkStep::Next(if size == 0 {
                    Chunk::Trailers
                } else {
                    Chunk::Data { left: size }
                })
            }
            Chunk::Data { left } => {
                let here = self.take(left);
                if here == left {
                    return ChunkStep::Next(Chunk::DataEnd);
                }
                self.state = State::Chunked(Chunk::Data { left: left - here });
                ChunkStep::NeedInput
            }
            Chunk::DataEnd => {
                let line_break = match &self.buffer[self.taken..] {
                    [b'\r', b'\n', ..] => 2,
                    [b'\n', ..] => 1,
                    [] | [b'\r'] => return ChunkStep::NeedInput,
                    _ => return ChunkStep::Malformed,
                };
                self.taken += line_break;
                ChunkStep::Next(Chunk::Size)
            }
            Chunk::Trailers => {
                let rest = &self.buffer[self.taken..];
                let Some(line_feed) = memchr(b'\n', rest) else {
                    return if rest.len() > self.limits.head {
                        ChunkStep::Malformed
                    } else {
                        ChunkStep::NeedInput
                    };
                };
                if line_feed > self.limits.head {
                    return ChunkStep::Malformed;
                }
                let is_empty = rest[..line_feed].iter().all(|&byte| byte == b'\r');
                self.taken += line_feed + 1;
                if is_empty {
                    ChunkStep::End
                } else {
                    ChunkStep::Next(Chunk::Trailers)
                }
            }
        }
    }

    /// Takes up to `wanted` bytes of the body in hand out of what has come; drops the ones beyond the bound.
    fn take(&mut self, wanted: u64) -> u64 {
        let here = usize::try_from(wanted)
            .unwrap_or(usize::MAX)
            .min(self.buffer.len() - self.taken);
        self.taken += here;
        if self.taken > self.limits.body {
            let keep_from = self.taken;
            self.skipped += keep_from as u64;
            self.buffer = BytesMut::from(&self.buffer[keep_from..]);
            self.taken = 0;
        }
        here as u64
    }

    fn finish_body(&mut self, end: BodyEnd) -> Step {
        let wire = self.split(self.taken);
        self.taken = 0;
        let end = if self.skipped > 0 && end == BodyEnd::Whole {
            BodyEnd::TooLarge
        } else {
            end
        };
        let end = if self.missing > 0 && end == BodyEnd::Whole {
            BodyEnd::Gap
        } else {
            end
        };
        let (wire, missing) = if self.skipped > 0 {
            (
                Bytes::new(),
                wire.len() as u64 + self.skipped + self.missing,
            )
        } else {
            (wire, self.missing)
        };
        self.state = State::Start;
        Step::Body(
            Body {
                framing: self.framing,
                wire,
                missing,
            },
            end,
        )
    }

    fn finish_body_lost(&mut self, end: BodyEnd) -> Step {
        // What has come of a body that is cut belongs to it, whatever its framing still waited for.
        self.taken = if end == BodyEnd::Cut {
            self.buffer.len()
        } else {
            self.taken
        };
        let step = self.finish_body(end);
        self.lose();
        step
    }

    fn head_length(&self, searched: &mut usize) -> Option<usize> {
        head_length(&self.buffer, searched)
    }

    /// RFC 9112 §2.2: a server ignores at least one empty line before a request line; clients see them too.
    fn skip_empty_lines(&mut self) {
        let empty = self
            .buffer
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        if empty > 0 {
            let _ = self.buffer.split_to(empty);
        }
    }

    fn split(&mut self, length: usize) -> Bytes {
        if length == self.buffer.len() {
            return std::mem::take(&mut self.buffer).freeze();
        }
        self.buffer.split_to(length).freeze()
    }

    fn lose(&mut self) {
        self.buffer = BytesMut::new();
        self.taken = 0;
        self.state = State::Lost;
    }
}

/// The head of a request that `bytes` begin with, if it is whole and follows the grammar to the letter. It is copied once, for
/// itself.
pub(crate) fn strict_request(limits: MessageLimits, bytes: &[u8]) -> Option<RequestHead> {
    let looked_at = &bytes[..bytes.len().min(MAX_AT_ONCE)];
    let (length, build) = RequestHead::find_strict(looked_at)?;
    let is_taken = length <= limits.head && recognise::believes_strict(looked_at);
    is_taken.then(|| build(Bytes::copy_from_slice(&looked_at[..length])))
}

/// The same of a response.
pub(crate) fn strict_response(limits: MessageLimits, bytes: &[u8]) -> Option<ResponseHead> {
    let looked_at = &bytes[..bytes.len().min(MAX_AT_ONCE)];
    let (length, build) = ResponseHead::find_strict(looked_at)?;
    (length <= limits.head).then(|| build(Bytes::copy_from_slice(&looked_at[..length])))
}

enum ChunkStep {
    Next(Chunk),
    NeedInput,
    End,
    Malformed,
}

/// How much is looked at for a whole head in one pass; longer ones are searched as they grow.
const MAX_AT_ONCE: usize = 8 << 10;

/// A chunk's first line, extensions included; longer ones are an attack (RFC 9112 §7.1.1: a recipient ought to
/// limit them).
const MAX_CHUNK_LINE: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::framing::{self, Length};

    /// Everything that a reader makes of `pieces`, pushed one after the other.
    fn read(side: Side, pieces: &[&[u8]]) -> Vec<String> {
        let mut reader = MessageReader::new(side, MessageLimits::default());
        let mut seen = Vec::new();
        let mut note = |reader: &mut MessageReader, mut step: Step| {
            loop {
                let framed = match &step {
                    Step::NeedInput => return,
                    Step::RequestHead(head) => {
                        seen.push(format!("{} {}", text(head.method()), text(head.target())));
                        Some(framing::of_request(head).0)
                    }
                    Step::ResponseHead(head) => {
                        seen.push(format!("{} {}", head.status(), text(head.reason())));
                        Some(framing::of_response(head, None).0)
                    }
                    Step::Body(body, end) => {
                        let content = text(&body.content());
                        seen.push(format!("{content:?} {end:?} missing {}", body.missing));
                        None
                    }
                    other => {
                        seen.push(format!("{other:?}"));
                        None
                    }
                };
                match framed {
                    Some(Length::Framed(framing)) => reader.frame(framing),
                    Some(_) => reader.stop(),
                    None => {}
                }
                step = reader.poll();
            }
        };
        for piece in pieces {
            reader.push(piece);
            let step = reader.poll();
            note(&mut reader, step);
        }
        let step = reader.end(true);
        note(&mut reader, step);
        seen
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    const REQUESTS: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\nGET /x HTTP/1.0\nHost: a\n\n",
        "POST /p HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\n\r\n",
        "PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0A  \r\n0123456789\r\n0\r\nT: v\r\n\r\nGET /3 HTTP/1.1\r\n\r\n",
        "BREW /pot HTTP/1.1\r\nA : b\r\nno colon\r\n folded\r\n: v\r\n\r\n",
        "POST /bad HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
        "POST /short HTTP/1.1\r\nContent-Length: 50\r\n\r\nabc",
        "GET /half HTTP/1.1\r\nHost",
        "EHLO mail.example\r\n",
        "\x16\x03\x01\x02\x00 GET / HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];

    const RESPONSES: &[&str] = &[
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 304\r\nContent-Length: 7\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.0 200 \r\n\r\nuntil the end",
        "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n3\nabc\n0\n\n",
        "HTTP/1.1 2000 x\r\n\r\n",
        "SSH-2.0-x\r\n",
    ];

    #[test]
    fn messages_do_not_depend_on_how_the_bytes_are_cut() {
        let all = REQUESTS.iter().map(|m| (Side::Requests, m));
        for (side, message) in all.chain(RESPONSES.iter().map(|m| (Side::Responses, m))) {
            let message = message.as_bytes();
            let whole = read(side, &[message]);
            for cut in 0..=message.len() {
                let (a, b) = message.split_at(cut);
                assert_eq!(
                    read(side, &[a, b]),
                    whole,
                    "{:?} cut at {cut}",
                    text(message)
                );
            }
            let bytes: Vec<&[u8]> = message.chunks(1).collect();
            assert_eq!(
                read(side, &bytes),
                whole,
                "{:?} byte by byte",
                text(message)
            );
        }
    }

    #[test]
    fn every_prefix_is_read_without_a_whole_message_too_many() {
        for message in REQUESTS {
            let message = message.as_bytes();
            let whole = read(Side::Requests, &[message]);
            for cut in 0..message.len() {
                let prefix = read(Side::Requests, &[&message[..cut]]);
                let finished =
                    |seen: &[String]| seen.iter().filter(|line| line.contains("Whole")).count();
                assert!(
                    finished(&prefix) <= finished(&whole),
                    "{:?} cut at {cut}",
                    text(message)
                );
            }
        }
    }

    #[test]
    fn bodies_are_what_their_framing_says() {
        assert_eq!(
            read(Side::Requests, &[REQUESTS[3].as_bytes()]),
            [
                "PUT /c",
                "\"hello0123456789\" Whole missing 0",
                "GET /3",
                "\"\" Whole missing 0"
            ]
        );
        assert_eq!(
            read(Side::Responses, &[RESPONSES[0].as_bytes()]),
            [
                "200 OK",
                "\"ok\" Whole missing 0",
                "304 ",
                "\"\" Whole missing 0"
            ]
        );
        assert_eq!(
            read(Side::Requests, &[REQUESTS[6].as_bytes()]),
            ["POST /short", "\"abc\" Cut missing 0"]
        );
    }

    #[test]
    fn a_gap_in_a_body_of_known_length_costs_that_message_only() {
        let mut reader = MessageReader::new(Side::Requests, MessageLimits::default());
        reader.push(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab");
        assert!(matches!(reader.poll(), Step::RequestHead(_)));
        reader.frame(Framing::Length(10));
        assert_eq!(reader.poll(), Step::NeedInput);
        assert_eq!(reader.gap(5), Step::NeedInput);
        reader.push(b"cdeGET / HTTP/1.1\r\n\r\n");
        let Step::Body(body, BodyEnd::Gap) = reader.poll() else {
            panic!("no body")
        };
        assert_eq!((&body.wire[..], body.missing), (&b"abcde"[..], 5));
        assert!(matches!(reader.poll(), Step::RequestHead(_)));
    }

    #[test]
    fn a_body_over_the_bound_is_counted_and_not_kept() {
        let limits = MessageLimits {
            head: 100,
            body: 10,
        };
        let mut reader = MessageReader::new(Side::Requests, limits);
        reader.push(b"POST / HTTP/1.1\r\n\r\n");
        assert!(matches!(reader.poll(), Step::RequestHead(_)));
        reader.frame(Framing::Length(100));
        for _ in 0..25 {
            reader.push(b"abcd");
            if let Step::Body(body, end) = reader.poll() {
                assert_eq!(
                    (end, body.missing, body.wire.len()),
                    (BodyEnd::TooLarge, 100, 0)
                );
                return;
            }
            assert!(reader.memory() < 1000);
        }
        panic!("the body never ended");
    }
}
