//! Reading exchange lines: our own, and those of others that hold the fields of the schema.

use std::io::{BufRead, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use crate::account::{Reason, Stage};
use crate::exchange::{
    Completeness, ConnectionId, Doubts, Endpoints, Exchange, ExchangeId, Request, Response,
};
use crate::http1::{Body, Framing, RequestHead, ResponseHead};
use crate::record::damage::Damage;
use crate::record::json::latin1_bytes;
use crate::record::message::{self, Parsed};
use crate::record::rebuild::{self, Content, Fields};
use crate::record::rfc3339;
use crate::time::Timestamp;

/// The exchanges of a JSON-lines stream, in file order, with the identifiers that the lines give them.
pub struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
    ended: bool,
    max_line: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads lines from `input`, which is not compressed any more.
    pub fn new(input: R) -> Self {
        Self {
            input,
            line: Vec::new(),
            number: 0,
            ended: false,
            max_line: MAX_LINE,
        }
    }

    /// The next exchange, or what is wrong with the next line; `None` at the end.
    pub fn next_exchange(&mut self) -> Option<Result<Exchange, Damage>> {
        while !self.ended {
            self.line.clear();
            let read = (&mut self.input)
                .take(self.max_line)
                .read_until(b'\n', &mut self.line);
            self.number += 1;
            match read {
                Ok(0) => return None,
                Ok(read) if read as u64 == self.max_line && !self.line.ends_with(b"\n") => {
                    self.line = Vec::new();
                    // An error comes again at the next line.
                    let _ = self.input.skip_until(b'\n');
                    let most = self.max_line >> 20;
                    let what = format!("a line longer than {most} MiB; left out");
                    return Some(Err(self.damage(what)));
                }
                Ok(_) if self.line.trim_ascii().is_empty() => continue,
                Ok(_) => {}
                Err(error) => {
                    self.ended = true;
                    let cut = self.line.len();
                    let what = format!(
                        "reading stopped: {error}; {cut} bytes of this line were there, and are left out"
                    );
                    return Some(Err(self.damage(what)));
                }
            }
            let result = serde_json::from_slice::<Line>(&self.line)
                .map_err(|error| {
                    if self.line.ends_with(b"\n") {
                        format!("not an exchange: {error}")
                    } else {
                        format!(
                            "the last line is cut ({} bytes of it are there); it is left out",
                            self.line.len()
                        )
                    }
                })
                .and_then(|line| line.exchange(self.number));
            return Some(result.map_err(|what| self.damage(what)));
        }
        None
    }

    fn damage(&self, what: String) -> Damage {
        Damage::in_line(self.number, what)
    }
}

/// A line, every field optional.
#[derive(Deserialize)]
struct Line {
    connection: Option<u64>,
    time: Option<String>,
    client: Option<String>,
    server: Option<String>,
    method: Option<String>,
    target: Option<String>,
    version: Option<String>,
    request_headers: Option<Vec<(String, String)>>,
    request_body_len: Option<u64>,
    request_body_b64: Option<String>,
    request_complete: Option<bool>,
    request_time_ns: Option<u64>,
    request_end_ns: Option<u64>,
    request_wire_b64: Option<String>,
    request_framing: Option<String>,
    request_framing_len: Option<u64>,
    request_missing: Option<u64>,
    request_incomplete: Option<String>,
    request_doubts: Option<Vec<String>>,
    status: Option<u16>,
    reason: Option<String>,
    response_version: Option<String>,
    response_headers: Option<Vec<(String, String)>>,
    response_body_len: Option<u64>,
    response_body_b64: Option<String>,
    response_complete: Option<bool>,
    response_time_ns: Option<u64>,
    response_end_ns: Option<u64>,
    response_wire_b64: Option<String>,
    response_framing: Option<String>,
    response_framing_len: Option<u64>,
    response_missing: Option<u64>,
    response_incomplete: Option<String>,
    response_doubts: Option<Vec<String>>,
    #[serde(default)]
    interim: Vec<u16>,
}

impl Line {
    fn exchange(mut self, number: u64) -> Result<Exchange, String> {
        let endpoints = Endpoints {
            client: address("client", self.client.as_deref())?,
            server: address("server", self.server.as_deref())?,
        };
        // Without connection numbers, the ends tell connections apart.
        let connection = ConnectionId(self.connection.unwrap_or_else(|| hash(&endpoints)));
        let began = self.time.as_deref().and_then(rfc3339::parse);
        let request = self
            .request(number, connection, endpoints, began)?
            .map(Arc::new);
        let method = request.as_ref().map(|request| request.head.method());
        let response = self.response(method, began)?;
        if request.is_none() && response.is_none() {
            return Err("neither a request nor a response".to_owned());
        }
        Ok(Exchange {
            connection,
            endpoints,
            request,
            response,
        })
    }

    fn request(
        &mut self,
        number: u64,
        connection: ConnectionId,
        endpoints: Endpoints,
        began: Option<Timestamp>,
    ) -> Result<Option<Request>, String> {
        let message = match (self.request_wire_b64.take(), self.method.take()) {
            (Some(wire), _) => {
                let wire = Wire {
                    bytes: decode("request_wire_b64", &wire)?,
                    framing: self.request_framing.take(),
                    length: self.request_framing_len,
                    missing: self.request_missing.unwrap_or(0),
                    complete: self.request_complete.unwrap_or(true),
                    incomplete: self.request_incomplete.take(),
                    doubts: self.request_doubts.take(),
                };
                let parsed = message::request(wire.bytes.clone())
                    .map_err(|error| format!("request_wire_b64: {error}"));
                wire.restore(parsed, Stage::Request, RequestHead::parse)?
            }
            (None, Some(method)) => {
                let fields = fields(
                    self.request_headers.take(),
                    self.request_body_b64.take(),
                    self.request_body_len,
                )?;
                let target = self.target.as_deref().unwrap_or("/");
                let version = self.version.as_deref().unwrap_or("HTTP/1.1");
                let mut parsed = rebuild::request(
                    &latin1_bytes(&method),
                    &latin1_bytes(target),
                    &latin1_bytes(version),
                    fields,
                )
                .map_err(|error| format!("the request makes no HTTP head: {error}"))?;
                if self.request_complete == Some(false) && parsed.completeness.is_whole() {
                    parsed.completeness = Completeness::Incomplete(Reason::RequestGap);
                }
                parsed
            }
            (None, None) => return Ok(None),
        };
        let first_byte = self.request_time_ns.map(Timestamp::from_nanos);
        let first_byte = first_byte.or(began).unwrap_or_default();
        Ok(Some(Request {
            id: ExchangeId(number),
            connection,
            endpoints,
            first_byte,
            last_byte: self
                .request_end_ns
                .map_or(first_byte, Timestamp::from_nanos),
            head: message.head,
            body: message.body,
            doubts: message.doubts,
            completeness: message.completeness,
        }))
    }

    fn response(
        &mut self,
        method: Option<&[u8]>,
        began: Option<Timestamp>,
    ) -> Result<Option<Response>, String> {
        let message = match (self.response_wire_b64.take(), self.status) {
            (Some(wire), _) => {
                let wire = Wire {
                    bytes: decode("response_wire_b64", &wire)?,
                    framing: self.response_framing.take(),
                    length: self.response_framing_len,
                    missing: self.response_missing.unwrap_or(0),
                    complete: self.response_complete.unwrap_or(true),
                    incomplete: self.response_incomplete.take(),
                    doubts: self.response_doubts.take(),
                };
                let parsed = message::response(wire.bytes.clone(), method)
                    .map(|(_, parsed)| parsed)
                    .map_err(|error| format!("response_wire_b64: {error}"));
                wire.restore(parsed, Stage::Response, ResponseHead::parse)?
            }
            (None, Some(status)) => {
                let fields = fields(
                    self.response_headers.take(),
                    self.response_body_b64.take(),
                    self.response_body_len,
                )?;
                let version = self.response_version.as_deref().unwrap_or("HTTP/1.1");
                let reason = self.reason.as_deref().unwrap_or("");
                let mut parsed = rebuild::response(
                    &latin1_bytes(version),
                    status,
                    &latin1_bytes(reason),
                    fields,
                    method,
                )
                .map_err(|error| format!("the response makes no HTTP head: {error}"))?;
                if self.response_complete == Some(false) && parsed.completeness.is_whole() {
                    parsed.completeness = Completeness::Incomplete(Reason::ResponseGap);
                }
                parsed
            }
            (None, None) => return Ok(None),
        };
        let first_byte = self.response_time_ns.map(Timestamp::from_nanos);
        let first_byte = first_byte.or(began).unwrap_or_default();
        Ok(Some(Response {
            first_byte,
            last_byte: self
                .response_end_ns
                .map_or(first_byte, Timestamp::from_nanos),
            interim: std::mem::take(&mut self.interim),
            head: message.head,
            body: message.body,
            doubts: message.doubts,
            completeness: message.completeness,
        }))
    }
}

/// What a line says about one message beside its bytes.
struct Wire {
    bytes: Bytes,
    framing: Option<String>,
    length: Option<u64>,
    missing: u64,
    complete: bool,
    incomplete: Option<String>,
    doubts: Option<Vec<String>>,
}

impl Wire {
    /// The message as it was when it was written; what the line leaves out is what the bytes say.
    fn restore<H, E>(
        self,
        parsed: Result<Parsed<H>, String>,
        stage: Stage,
        parse: impl Fn(Bytes) -> Result<H, E>,
    ) -> Result<Parsed<H>, String> {
        let Some(framing) = self.framing else {
            return parsed;
        };
        let (head, wire) =
            message::split_head(self.bytes).map_err(|error| format!("{stage}: {error}"))?;
        let head = parse(head).map_err(|_| format!("{stage}: no HTTP head"))?;
        let framing = match (framing.as_str(), self.length) {
            ("none", _) => Framing::None,
            ("length", Some(length)) => Framing::Length(length),
            ("chunked", _) => Framing::Chunked,
            ("until_close", _) => Framing::UntilClose,
            _ => return Err(format!("{stage}: unknown framing {framing:?}")),
        };
        let completeness = match self.incomplete {
            None if self.complete => Completeness::Whole,
            reason => Completeness::Incomplete(
                reason
                    .and_then(|name| reason_named(&name, stage))
                    .unwrap_or(match stage {
                        Stage::Request => Reason::RequestGap,
                        _ => Reason::ResponseGap,
                    }),
            ),
        };
        Ok(Parsed {
            head,
            body: Body {
                framing,
                wire,
                missing: self.missing,
            },
            doubts: Doubts::named(self.doubts.as_deref().unwrap_or_default()),
            completeness,
            excess: 0,
        })
    }
}

/// The reason of that name, if it is one of `stage`.
pub(in crate::record) fn reason_named(name: &str, stage: Stage) -> Option<Reason> {
    let found = Reason::ALL.iter().find(|reason| reason.name() == name)?;
    (found.stage() == stage).then_some(*found)
}

fn fields(
    headers: Option<Vec<(String, String)>>,
    body: Option<String>,
    length: Option<u64>,
) -> Result<Fields, String> {
    let list: Vec<_> = headers
        .unwrap_or_default()
        .into_iter()
        .map(|(name, value)| (latin1_bytes(&name), latin1_bytes(&value)))
        .collect();
    let content = match (body, length) {
        (Some(body), _) => Content::Known(
            STANDARD
                .decode(body)
                .map_err(|error| format!("the body is no base64: {error}"))?,
        ),
        (None, Some(0)) => Content::Empty,
        (None, Some(_)) => Content::Unknown,
        (None, None) => Content::of_unrecorded(&list),
    };
    Ok(Fields {
        list,
        content,
        exact: false,
    })
}

fn decode(key: &str, text: &str) -> Result<Bytes, String> {
    STANDARD
        .decode(text)
        .map(Bytes::from)
        .map_err(|error| format!("{key} is no base64: {error}"))
}

/// An address; one that the line does not give is the unspecified one.
fn address(key: &str, text: Option<&str>) -> Result<SocketAddr, String> {
    match text {
        None | Some("") => Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{key} is not ip:port: {text:?}")),
    }
}

fn hash(endpoints: &Endpoints) -> u64 {
    let text = format!("{} {}", endpoints.client, endpoints.server);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Longest line: room for an exchange of the two longest bodies that a capture keeps unless told otherwise, in base64.
const MAX_LINE: u64 = 192 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_line_that_is_too_long_the_next_is_read() {
        let line = "{\"method\":\"GET\"}\n";
        let long = " ".repeat(1 << 20);
        let file = format!("{line}{long}x\n{line}{}\n{line}{long}", &long[1..]);
        let mut lines = Lines::new(file.as_bytes());
        lines.max_line = 1 << 20;
        let read = std::iter::from_fn(|| lines.next_exchange());
        let said: Vec<_> = read
            .map(|it| it.err().map(|damage| damage.to_string()))
            .collect();
        let too_long = |line| Some(format!("line {line}: a line longer than 1 MiB; left out"));
        assert_eq!(said, [None, too_long(2), None, None, too_long(6)]);
    }
}
