//! HTTP messages as bytes, and what a reader must find of them.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::net::Conversation;
use super::score::Line;

/// How a body is framed.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// There is none, and no field speaks of one.
    None,
    /// `Content-Length`.
    Length(Vec<u8>),
    /// `Transfer-Encoding: chunked`, in these chunks, with these trailers.
    Chunked(Vec<Vec<u8>>, Vec<(String, String)>),
    /// Up to the end of the connection.
    UntilClose(Vec<u8>),
    /// The fields as for this body, but no body: what HEAD gets.
    HeadOf(Vec<u8>),
}

/// A message: its bytes, and the fields of an exchange that it gives rise to.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The bytes as they are sent.
    pub(crate) wire: Vec<u8>,
    /// What must be found.
    pub(crate) truth: Line,
}

/// A request.
pub(crate) fn request(
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    content: &Content,
) -> Message {
    let mut fields = owned(fields);
    fields.insert(0, ("Host".to_owned(), "example.test".to_owned()));
    let (wire, mut truth) = message(
        "request",
        &format!("{method} {target} HTTP/1.1"),
        fields,
        content,
    );
    truth.insert("method".to_owned(), method.into());
    truth.insert("target".to_owned(), target.into());
    truth.insert("version".to_owned(), "HTTP/1.1".into());
    Message { wire, truth }
}

/// A final response.
pub(crate) fn response(status: u16, fields: &[(&str, &str)], content: &Content) -> Message {
    let (wire, mut truth) = message(
        "response",
        &format!("HTTP/1.1 {status} Reason"),
        owned(fields),
        content,
    );
    truth.insert("status".to_owned(), status.into());
    Message { wire, truth }
}

/// `GET target`.
pub(crate) fn get(target: &str) -> Message {
    request("GET", target, &[], &Content::None)
}

/// `POST target` with a body of known length.
pub(crate) fn post(target: &str, body: &[u8]) -> Message {
    request("POST", target, &[], &Content::Length(body.to_vec()))
}

/// A 200 with a body of known length.
pub(crate) fn ok(body: &[u8]) -> Message {
    response(200, &[], &Content::Length(body.to_vec()))
}

/// The exchange of `request` and its answer on `conversation`, which must be found.
pub(crate) fn exchange(
    conversation: &Conversation,
    request: &Message,
    response: Option<&Message>,
) -> Line {
    let mut line = request.truth.clone();
    line.insert("expect".to_owned(), "required".into());
    line.insert("client".to_owned(), conversation.client.to_string().into());
    line.insert("server".to_owned(), conversation.server.to_string().into());
    match response {
        Some(response) => line.extend(response.truth.clone()),
        None => {
            line.insert("status".to_owned(), Value::Null);
        }
    }
    line
}

/// The same, which may be found or not.
pub(crate) fn optional(mut line: Line) -> Line {
    line.insert("expect".to_owned(), "optional".into());
    line
}

/// The same, which must not be found: no receiver ever processed it.
pub(crate) fn forbidden(mut line: Line) -> Line {
    line.insert("expect".to_owned(), "forbidden".into());
    line
}

/// The same, with `side` (`request` or `response`) not whole and its body not scored.
pub(crate) fn incomplete(mut line: Line, side: &str) -> Line {
    line.insert(format!("{side}_complete"), false.into());
    line.remove(&format!("{side}_body_len"));
    line.remove(&format!("{side}_body_sha256"));
    line
}

/// The hash of a body as an exchange gives it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The chunked form of a body.
pub(crate) fn chunked(chunks: &[Vec<u8>], trailers: &[(String, String)]) -> Vec<u8> {
    let mut wire = Vec::new();
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn message(
    side: &str,
    first_line: &str,
    mut fields: Vec<(String, String)>,
    content: &Content,
) -> (Vec<u8>, Line) {
    let (body, wire_body) = match content {
        Content::None => (Vec::new(), Vec::new()),
        Content::Length(body) => {
            fields.push(("Content-Length".to_owned(), body.len().to_string()));
            (body.clone(), body.clone())
        }
        Content::Chunked(chunks, trailers) => {
            fields.push(("Transfer-Encoding".to_owned(), "chunked".to_owned()));
            (chunks.concat(), chunked(chunks, trailers))
        }
        Content::UntilClose(body) => (body.clone(), body.clone()),
        Content::HeadOf(body) => {
            fields.push(("Content-Length".to_owned(), body.len().to_string()));
            (Vec::new(), Vec::new())
        }
    };
    let mut wire = format!("{first_line}\r\n").into_bytes();
    for (name, value) in &fields {
        wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(&wire_body);
    let truth = json!({
        format!("{side}_headers"): fields,
        format!("{side}_body_len"): body.len(),
        format!("{side}_body_sha256"): sha256(&body),
        format!("{side}_complete"): true,
    });
    let Value::Object(truth) = truth else {
        unreachable!("written as an object")
    };
    (wire, truth)
}
