//! Messages out of lists of fields, for recordings that do not hold the bytes of the wire.

use bytes::Bytes;

use super::message::{self, Parsed};
use crate::account::Reason;
use crate::exchange::Completeness;
use crate::http1::{HeadError, RequestHead, ResponseHead};

/// A message as a list of fields.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// Name and value, in order. Pseudo fields of HTTP/2 (`:method` …) are dropped.
    pub(super) list: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) content: Content,
    /// Whether the fields are those of the wire, and so stay as they are. Otherwise they are made to say how long the
    /// body is.
    pub(super) exact: bool,
}

/// The content of a message, without chunk framing.
#[derive(Debug, Default)]
pub(super) enum Content {
    /// There is none.
    #[default]
    Empty,
    /// All of it.
    Known(Vec<u8>),
    /// There was some, but the recording does not hold it.
    Unknown,
}

impl Content {
    /// Of a recording that says nothing about the body: unknown when the fields announce one.
    pub(super) fn of_unrecorded(list: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let announced = list.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case(b"transfer-encoding")
                || name.eq_ignore_ascii_case(b"content-length") && content_length(value) != Some(0)
        });
        if announced {
            Self::Unknown
        } else {
            Self::Empty
        }
    }
}

/// Puts a request together.
///
/// # Errors
/// When the parts do not make a head.
pub(super) fn request(
    method: &[u8],
    target: &[u8],
    version: &[u8],
    fields: Fields,
) -> Result<Parsed<RequestHead>, HeadError> {
    if has_break(method) || has_break(target) || has_break(version) {
        return Err(HeadError::StartLine);
    }
    let mut bytes = [method, b" ", target].concat();
    if !version.is_empty() {
        bytes.push(b' ');
        bytes.extend_from_slice(version);
    }
    let unknown = matches!(fields.content, Content::Unknown);
    append(&mut bytes, fields, true, true);
    let mut parsed = message::request(bytes.into())?;
    if unknown && parsed.completeness.is_whole() {
        parsed.completeness = Completeness::Incomplete(Reason::RequestGap);
    }
    Ok(parsed)
}

/// Puts a response to a request with that method together.
///
/// # Errors
/// When the parts do not make a head.
pub(super) fn response(
    version: &[u8],
    status: u16,
    reason: &[u8],
    fields: Fields,
    method: Option<&[u8]>,
) -> Result<Parsed<ResponseHead>, HeadError> {
    if has_break(version) || has_break(reason) || (100..200).contains(&status) && status != 101 {
        return Err(HeadError::StartLine);
    }
    let mut bytes = [version, format!(" {status:03} ").as_bytes(), reason].concat();
    let has_body = method != Some(b"HEAD") && !matches!(status, 101 | 204 | 304);
    let unknown = has_body && matches!(fields.content, Content::Unknown);
    // Without a length, the body of a response runs to the end.
    append(&mut bytes, fields, has_body, false);
    let (_, mut parsed) = message::response(Bytes::from(bytes), method)?;
    if unknown && parsed.completeness.is_whole() {
        parsed.completeness = Completeness::Incomplete(Reason::ResponseGap);
    }
    Ok(parsed)
}

/// Appends field lines and body behind a start line.
fn append(bytes: &mut Vec<u8>, fields: Fields, has_body: bool, add_length: bool) {
    let is = |name: &[u8], known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    let chunked = fields.list.iter().any(|(name, value)| {
        is(name, "transfer-encoding") && value.to_ascii_lowercase().ends_with(b"chunked")
    });
    let content = match fields.content {
        Content::Known(content) if has_body => Some(content),
        Content::Empty if has_body => Some(Vec::new()),
        _ => None,
    };
    let length = content.as_ref().filter(|_| !chunked && !fields.exact);
    let length = length.map(Vec::len);
    let mut told = false;
    bytes.extend_from_slice(b"\r\n");
    for (name, value) in fields.list {
        if name.is_empty() || name.starts_with(b":") || name.contains(&b':') || has_break(&name) {
            continue;
        }
        bytes.extend_from_slice(&name);
        bytes.extend_from_slice(b": ");
        let told_length = if is(&name, "content-length") {
            told = true;
            length.filter(|length| content_length(&value) != Some(*length))
        } else {
            None
        };
        match told_length {
            Some(length) => bytes.extend_from_slice(length.to_string().as_bytes()),
            None => bytes.extend(
                value
                    .iter()
                    .map(|&byte| if is_break(byte) { b' ' } else { byte }),
            ),
        }
        bytes.extend_from_slice(b"\r\n");
    }
    if let Some(length) = length
        && length > 0
        && add_length
        && !told
    {
        bytes.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    let Some(content) = content else {
        return;
    };
    if !chunked {
        bytes.extend_from_slice(&content);
        return;
    }
    if !content.is_empty() {
        bytes.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
        bytes.extend_from_slice(&content);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
}

fn content_length(value: &[u8]) -> Option<usize> {
    str::from_utf8(value).ok()?.trim().parse().ok()
}

const fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

fn has_break(bytes: &[u8]) -> bool {
    bytes.iter().any(|&byte| is_break(byte))
}
