//! Messages out of lists of fields, for recordings that do not hold the bytes of the wire.

use bytes::Bytes;

use super::message::{self, Parsed};
use crate::account::Reason;
use crate::exchange::Completeness;
use crate::http1::framing::{self, Length};
use crate::http1::{Framing, HeadError, RequestHead, ResponseHead};

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
    let plain = RequestHead::parse(head(&bytes, &fields, None).into())?;
    let chunked = framing::of_request(&plain).0 == Length::Framed(Framing::Chunked);
    let mut parsed = message::request(whole(&bytes, fields, chunked, true))?;
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
    mut fields: Fields,
    method: Option<&[u8]>,
) -> Result<Parsed<ResponseHead>, HeadError> {
    if has_break(version) || has_break(reason) || (100..200).contains(&status) && status != 101 {
        return Err(HeadError::StartLine);
    }
    let bytes = [version, format!(" {status:03} ").as_bytes(), reason].concat();
    let plain = ResponseHead::parse(head(&bytes, &fields, None).into())?;
    let (length, _) = framing::of_response(&plain, method);
    let has_body = !matches!(length, Length::Framed(Framing::None) | Length::Tunnel);
    if !has_body {
        // What an archive shows of it belongs to another answer, or to the tunnel.
        fields.content = Content::Empty;
        fields.exact = true;
    }
    let unknown = matches!(fields.content, Content::Unknown);
    let chunked = length == Length::Framed(Framing::Chunked);
    // Without a length, the body of a response runs to the end.
    let (_, mut parsed) = message::response(whole(&bytes, fields, chunked, false), method)?;
    if unknown && parsed.completeness.is_whole() {
        parsed.completeness = Completeness::Incomplete(Reason::ResponseGap);
    }
    Ok(parsed)
}

/// A whole message: head and body, the fields made to say how long the body is unless they are exact.
fn whole(start_line: &[u8], fields: Fields, chunked: bool, add_length: bool) -> Bytes {
    let content = match &fields.content {
        Content::Known(content) => &content[..],
        Content::Empty => &[],
        Content::Unknown => return head(start_line, &fields, None).into(),
    };
    let tell = (!chunked && !fields.exact).then_some(Tell {
        length: content.len(),
        add: add_length && !content.is_empty(),
    });
    let mut bytes = head(start_line, &fields, tell);
    if !chunked {
        bytes.extend_from_slice(content);
        return bytes.into();
    }
    if !content.is_empty() {
        bytes.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes.into()
}

/// What `Content-Length` is to say.
#[derive(Clone, Copy)]
struct Tell {
    length: usize,
    /// Whether to add the field where it is not there.
    add: bool,
}

/// A head: start line, field lines, empty line.
fn head(start_line: &[u8], fields: &Fields, tell: Option<Tell>) -> Vec<u8> {
    let mut bytes = start_line.to_vec();
    bytes.extend_from_slice(b"\r\n");
    let mut told = false;
    for (name, value) in &fields.list {
        if name.is_empty() || name.contains(&b':') || has_break(name) {
            continue;
        }
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(b": ");
        let mut corrected = None;
        if name.eq_ignore_ascii_case(b"content-length") {
            told = true;
            corrected = tell
                .map(|tell| tell.length)
                .filter(|length| content_length(value) != Some(*length));
        }
        match corrected {
            Some(length) => bytes.extend_from_slice(length.to_string().as_bytes()),
            None => bytes.extend(
                value
                    .iter()
                    .map(|&byte| if is_break(byte) { b' ' } else { byte }),
            ),
        }
        bytes.extend_from_slice(b"\r\n");
    }
    if let Some(tell) = tell
        && tell.add
        && !told
    {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", tell.length).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
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
