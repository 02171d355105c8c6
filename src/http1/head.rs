//! Message heads: parsed once, kept as the bytes they were, order, case and duplicates included.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use memchr::{memchr, memchr2};

use super::strict;

/// The head of a request: request line, field lines and the empty line, as they were on the wire (RFC 9112 §3, §5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestHead {
    bytes: Bytes,
    method: Span,
    target: Span,
    version: Span,
    fields: FieldSpans,
    grammar: Grammar,
}

/// The head of a response: status line, field lines and the empty line, as they were on the wire (RFC 9112 §4, §5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResponseHead {
    bytes: Bytes,
    version: Span,
    status: u16,
    reason: Span,
    fields: FieldSpans,
    grammar: Grammar,
}

/// Why bytes are not a message head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeadError {
    /// The first line is neither a request line nor a status line.
    #[error("the first line is not an HTTP/1 start line")]
    StartLine,
    /// The empty line that ends a head is not there.
    #[error("the head does not end in an empty line")]
    Unfinished,
    /// More than 4 GiB, or more field lines than any server takes.
    #[error("the head is too large")]
    TooLarge,
}

impl RequestHead {
    /// Parses a whole head: `bytes` begins with the request line and ends with the empty line.
    ///
    /// Forms that RFC 9112 forbids but that servers accept are accepted: bare LF, blanks around the parts of the
    /// request line, field lines without a colon (skipped). [`Self::is_strict`] tells them apart.
    ///
    /// # Errors
    /// When the first line is not a request line, or the empty line is missing.
    pub fn parse(bytes: Bytes) -> Result<Self, HeadError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(HeadError::TooLarge);
        }
        if let Some((length, build)) = Self::find_strict(&bytes)
            && length == bytes.len()
        {
            return Ok(build(bytes));
        }
        let (line, rest) = first_line(&bytes)?;
        let line = &bytes[line];
        let (method, target, version) = split_request_line(line).ok_or(HeadError::StartLine)?;
        let mut grammar = Grammar::Loose;
        let single_blanks = line
            .iter()
            .filter(|byte| byte.is_ascii_whitespace())
            .count()
            == 2;
        if !single_blanks || !matches!(version.of_bytes(line), b"HTTP/1.0" | b"HTTP/1.1") {
            grammar = Grammar::Odd;
        }
        let fields = parse_fields(&bytes, rest, &mut grammar)?;
        Ok(Self {
            method,
            target,
            version,
            fields,
            grammar,
            bytes,
        })
    }

    /// The fast way, for heads that follow the grammar to the letter: finds the one that `bytes` begins with. Its length,
    /// and what makes a head of just those bytes.
    pub(crate) fn find_strict(bytes: &[u8]) -> Option<(usize, impl FnOnce(Bytes) -> Self + use<>)> {
        let found = strict::request(bytes)?;
        let build = move |bytes: Bytes| Self {
            bytes,
            method: found.method,
            target: found.target,
            version: found.version,
            fields: found.fields,
            grammar: Grammar::Strict,
        };
        Some((found.length, build))
    }

    /// The head as it was on the wire, from the request line to the empty line.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The method, such as `GET`; any token (RFC 9110 §9.1).
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.method.of_bytes(&self.bytes)
    }

    /// The request target as sent (RFC 9112 §3.2).
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.target.of_bytes(&self.bytes)
    }

    /// The protocol version as sent, such as `HTTP/1.1`; empty when the request line has none.
    #[must_use]
    pub fn version(&self) -> &[u8] {
        self.version.of_bytes(&self.bytes)
    }

    /// Whether the version is older than HTTP/1.1, so that connections close by default.
    #[must_use]
    pub fn is_http10(&self) -> bool {
        is_http10(self.version())
    }

    /// The field lines, in wire order.
    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        Fields {
            bytes: &self.bytes,
            spans: &self.fields.spans,
            marks: self.fields.marks,
        }
    }

    /// Whether the head follows the grammar of RFC 9112 to the letter.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.grammar == Grammar::Strict
    }

    /// Whether it breaks the grammar in a way that servers read differently, so that two of them may disagree
    /// about what it says: a field line without a colon, blanks before the colon, control bytes, a target with
    /// blanks. Bare LF and folded values alone are not.
    #[must_use]
    pub fn is_odd(&self) -> bool {
        self.grammar == Grammar::Odd
    }
}

impl ResponseHead {
    /// Parses a whole head: `bytes` begins with the status line and ends with the empty line.
    ///
    /// # Errors
    /// When the first line is not a status line, or the empty line is missing.
    pub fn parse(bytes: Bytes) -> Result<Self, HeadError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(HeadError::TooLarge);
        }
        if let Some((length, build)) = Self::find_strict(&bytes)
            && length == bytes.len()
        {
            return Ok(build(bytes));
        }
        let (line, rest) = first_line(&bytes)?;
        let (version, status, reason) =
            split_status_line(&bytes[line.clone()]).ok_or(HeadError::StartLine)?;
        let mut grammar = Grammar::Loose;
        let fields = parse_fields(&bytes, rest, &mut grammar)?;
        Ok(Self {
            version,
            status,
            reason,
            fields,
            grammar,
            bytes,
        })
    }

    /// The fast way, for heads that follow the grammar to the letter: finds the one that `bytes` begins with. Its length,
    /// and what makes a head of just those bytes.
    pub(crate) fn find_strict(bytes: &[u8]) -> Option<(usize, impl FnOnce(Bytes) -> Self + use<>)> {
        let found = strict::response(bytes)?;
        let build = move |bytes: Bytes| Self {
            bytes,
            version: found.version,
            status: found.status,
            reason: found.reason,
            fields: found.fields,
            grammar: Grammar::Strict,
        };
        Some((found.length, build))
    }

    /// The head as it was on the wire, from the status line to the empty line.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The protocol version as sent, such as `HTTP/1.1`.
    #[must_use]
    pub fn version(&self) -> &[u8] {
        self.version.of_bytes(&self.bytes)
    }

    /// The status code: three digits as sent, so 0 to 999.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase as sent; may be empty.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        self.reason.of_bytes(&self.bytes)
    }

    /// Whether this is an interim answer: 1xx but for 101, which is final (RFC 9110 §15.2).
    #[must_use]
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Whether the version is older than HTTP/1.1, so that connections close by default.
    #[must_use]
    pub fn is_http10(&self) -> bool {
        is_http10(self.version())
    }

    /// The field lines, in wire order.
    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        Fields {
            bytes: &self.bytes,
            spans: &self.fields.spans,
            marks: self.fields.marks,
        }
    }

    /// Whether the head follows the grammar of RFC 9112 to the letter.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.grammar == Grammar::Strict
    }

    /// Whether it breaks the grammar in a way that servers read differently, so that two of them may disagree
    /// about what it says: a field line without a colon, blanks before the colon, control bytes, a target with
    /// blanks. Bare LF and folded values alone are not.
    #[must_use]
    pub fn is_odd(&self) -> bool {
        self.grammar == Grammar::Odd
    }
}

/// The field lines of a head, in wire order, repeated names repeated.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    spans: &'a [FieldSpan],
    marks: NameMarks,
}

impl<'a> Fields<'a> {
    /// Name and value of each line as sent, the blanks around both taken off; a folded value keeps its folds.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.spans.iter().map(move |field| {
            (
                field.name.of_bytes(self.bytes),
                field.value.of_bytes(self.bytes),
            )
        })
    }

    /// The value of the first line called `name` (compared without case).
    #[must_use]
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The values of all lines called `name` (compared without case), in wire order.
    pub fn all(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.called(name)
            .map(move |field| field.value.of_bytes(self.bytes))
    }

    /// The comma-separated elements of all lines called `name`, blanks and empty elements taken off
    /// (RFC 9110 §5.6.1).
    pub fn elements(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(trim_blanks)
            .filter(|element| !element.is_empty())
    }

    /// Like [`Self::all`], but only lines whose name is spelled as RFC 9112 §5.1 demands: servers ignore the others, or
    /// refuse the message, so they frame nothing.
    pub(crate) fn framing(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.called(name)
            .filter(|field| field.exact)
            .map(move |field| field.value.of_bytes(self.bytes))
    }

    /// Whether it is plain at first sight that no line is called `name`.
    #[inline]
    pub(crate) fn lack(self, name: &str) -> bool {
        !self.marks.has(name.as_bytes())
    }

    /// The lines called `name`.
    #[inline]
    fn called(self, name: &str) -> impl Iterator<Item = &'a FieldSpan> {
        let spans = if self.lack(name) { &[] } else { self.spans };
        // Nearly all differ in length.
        let as_long = spans
            .iter()
            .filter(move |field| field.name.len() == name.len());
        as_long.filter(move |field| {
            let (found, name) = (field.name.of_bytes(self.bytes), name.as_bytes());
            // Nearly all are spelled as the standard spells them.
            found == name || found.eq_ignore_ascii_case(name)
        })
    }

    /// Whether an element of `name` equals `token` without case, such as `close` in `Connection`.
    #[must_use]
    pub fn has_token(self, name: &str, token: &str) -> bool {
        self.elements(name)
            .any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The byte ranges, within the head, of each whole field line: from its name to the end of its line break.
    pub fn lines(self) -> impl Iterator<Item = Range<usize>> {
        self.spans
            .iter()
            .map(|field| field.name.start as usize..field.line_end as usize)
    }

    /// How many field lines there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.spans.len()
    }

    /// Whether there is no field line.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.spans.is_empty()
    }
}

/// What there is of a head that never became whole: its whole lines, closed by an empty line so that it can be read.
///
/// `None` when not even the first line is whole. The first line may end in a bare CR: nothing more will come that
/// could turn that into something else.
#[must_use]
pub fn whole_lines(bytes: &[u8]) -> Option<Bytes> {
    let lines = match (memchr::memrchr(b'\n', bytes), memchr(b'\r', bytes)) {
        (Some(line_feed), _) => &bytes[..=line_feed],
        (None, Some(carriage_return)) => &bytes[..carriage_return],
        // A status line has said enough once its code is there.
        (None, None) => {
            let (_, code, _) = split_status_line(bytes)?;
            debug_assert!(code < 1000);
            bytes
        }
    };
    let mut closed = Vec::with_capacity(lines.len() + 4);
    closed.extend_from_slice(lines);
    if !lines.ends_with(b"\n") {
        closed.extend_from_slice(b"\r\n");
    }
    closed.extend_from_slice(b"\r\n");
    Some(Bytes::from(closed))
}

/// A field value with each fold (RFC 9112 §5.2) read as one blank.
#[must_use]
pub fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr2(b'\r', b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = memchr2(b'\r', b'\n', rest) {
        plain.extend_from_slice(rest[..at].trim_ascii_end());
        rest = rest[at..].trim_ascii_start();
        plain.push(b' ');
    }
    plain.extend_from_slice(rest);
    Cow::Owned(plain)
}

/// Takes off the blanks around a part of a field value (RFC 9110 §5.6.3), and what folds leave.
pub(crate) fn trim_blanks(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..]
    | [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = bytes
    {
        bytes = rest;
    }
    bytes
}

/// The length of the head that `bytes` begins with, empty line included; `None` while it is not whole.
///
/// `from` is where an earlier call on a shorter prefix stopped looking; it is moved on.
#[must_use]
pub fn head_length(bytes: &[u8], from: &mut usize) -> Option<usize> {
    let mut at = *from;
    while let Some(offset) = memchr(b'\n', &bytes[at..]) {
        let after = at + offset + 1;
        match bytes.get(after) {
            Some(b'\n') => return Some(after + 1),
            Some(b'\r') => match bytes.get(after + 1) {
                Some(b'\n') => return Some(after + 2),
                Some(_) => {}
                None => {
                    *from = at + offset;
                    return None;
                }
            },
            Some(_) => {}
            None => {
                *from = at + offset;
                return None;
            }
        }
        at = after;
    }
    *from = bytes.len();
    None
}

/// Splits a request line into method, target and version; the version is empty in the HTTP/0.9 form.
fn split_request_line(line: &[u8]) -> Option<(Span, Span, Span)> {
    let is_blank = |&byte: &u8| is_word_blank(byte);
    let method_end = line.iter().position(is_blank)?;
    if method_end == 0 || !line[..method_end].iter().all(|&byte| is_token_byte(byte)) {
        return None;
    }
    let target_start = method_end + line[method_end..].iter().position(|byte| !is_blank(byte))?;
    let line_end = line.iter().rposition(|byte| !is_blank(byte))? + 1;
    // The version is the last word; a target with blanks in it (RFC 9112 §3: invalid) is everything between. With
    // two words only, the second is the target, whatever it looks like.
    let last_word = line[..line_end]
        .iter()
        .rposition(is_blank)
        .map_or(0, |at| at + 1);
    let has_version = last_word > target_start && is_version_shaped(&line[last_word..line_end]);
    if !has_version {
        return Some((
            Span::new(0, method_end),
            Span::new(target_start, line_end),
            Span::new(line_end, line_end),
        ));
    }
    let target_end = line[..last_word]
        .iter()
        .rposition(|byte| !is_blank(byte))
        .map_or(0, |at| at + 1);
    Some((
        Span::new(0, method_end),
        Span::new(target_start, target_end),
        Span::new(last_word, line_end),
    ))
}

/// Splits a status line into version, status code and reason phrase.
fn split_status_line(line: &[u8]) -> Option<(Span, u16, Span)> {
    let is_blank = |&byte: &u8| is_word_blank(byte);
    let version_end = line.iter().position(is_blank).unwrap_or(line.len());
    if !is_version_shaped(&line[..version_end]) && !line[..version_end].eq_ignore_ascii_case(b"ICY")
    {
        return None;
    }
    let code_start = version_end
        + line[version_end..]
            .iter()
            .position(|byte| !is_blank(byte))?;
    let digits = line[code_start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if digits != 3 {
        return None;
    }
    let code = line[code_start..code_start + 3]
        .iter()
        .fold(0u16, |code, digit| code * 10 + u16::from(digit - b'0'));
    let code_end = code_start + 3;
    let reason_start = match line.get(code_end) {
        None => code_end,
        Some(byte) if is_blank(byte) => code_end + 1,
        Some(_) => return None,
    };
    let reason_end = line.len()
        - line[reason_start..]
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\r')
            .count();
    Some((
        Span::new(0, version_end),
        code,
        Span::new(reason_start, reason_end),
    ))
}

/// What may stand between the words of a first line, for those that are not strict (RFC 9112 §3, §4).
fn is_word_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
}

/// `HTTP/` and something that begins like a number, in any case: what both RFC 9112 §2.3 and sloppy peers write.
fn is_version_shaped(word: &[u8]) -> bool {
    word.len() >= 6 && word[..5].eq_ignore_ascii_case(b"HTTP/") && word[5].is_ascii_digit()
}

fn is_http10(version: &[u8]) -> bool {
    // Anything that is not HTTP/1.1 or later in the 1.x line is treated as the more careful one.
    !(version.len() == 8 && version[..7].eq_ignore_ascii_case(b"HTTP/1.") && version[7] != b'0')
}

/// A byte of a token (RFC 9110 §5.6.2).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}

/// The first line without its line break, and where the next one begins.
fn first_line(bytes: &[u8]) -> Result<(Range<usize>, usize), HeadError> {
    let line_feed = memchr(b'\n', bytes).ok_or(HeadError::Unfinished)?;
    let end = if line_feed > 0 && bytes[line_feed - 1] == b'\r' {
        line_feed - 1
    } else {
        line_feed
    };
    Ok((0..end, line_feed + 1))
}

/// Reads field lines leniently from `at` to the empty line, which must be the end of `bytes`.
fn parse_fields(
    bytes: &[u8],
    mut at: usize,
    grammar: &mut Grammar,
) -> Result<FieldSpans, HeadError> {
    let mut fields = Vec::new();
    loop {
        let line_end = at + memchr(b'\n', &bytes[at..]).ok_or(HeadError::Unfinished)?;
        let line = Span::new(at, line_end).trimmed_end(bytes);
        let after = line_end + 1;
        if line_end > at && memchr(b'\r', &bytes[at..line_end - 1]).is_some() {
            *grammar = Grammar::Odd; // a bare CR, which some end a line at (RFC 9112 §2.2)
        }
        let is_fold = matches!(bytes[at], b' ' | b'\t');
        if line.is_empty() && !is_fold {
            return Ok(FieldSpans::new(fields.into(), bytes));
        }
        if is_fold && let Some(last) = fields.last_mut() {
            if !line.is_empty() {
                last.value = Span {
                    start: last.value.start,
                    end: line.end,
                }
                .trimmed(bytes);
            }
            last.line_end = narrow(after);
        } else if let Some(colon) = memchr(b':', line.of_bytes(bytes)) {
            let colon_at = line.start + narrow(colon);
            let name = Span {
                start: line.start,
                end: colon_at,
            }
            .trimmed(bytes);
            let value = Span {
                start: colon_at + 1,
                end: line.end,
            }
            .trimmed(bytes);
            let is_clean = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
            let name_bytes = name.of_bytes(bytes);
            let exact = !name.is_empty()
                && name.start == line.start
                && name.end == colon_at
                && name_bytes.iter().all(|&byte| is_token_byte(byte));
            if !exact || !value.of_bytes(bytes).iter().all(is_clean) {
                *grammar = Grammar::Odd;
            }
            fields.push(FieldSpan {
                name,
                value,
                line_end: narrow(after),
                exact,
            });
        } else {
            *grammar = Grammar::Odd;
        }
        at = after;
        if at >= bytes.len() {
            return Err(HeadError::Unfinished);
        }
    }
}

/// How closely a head follows RFC 9112.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Grammar {
    /// To the letter.
    Strict,
    /// Bare LF, folds: forbidden, but read alike by all who read it.
    Loose,
    /// In ways that recipients read differently.
    Odd,
}

/// The places of a head's field lines. On the heap, because a head is moved more often than it is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FieldSpans {
    pub(super) spans: Box<[FieldSpan]>,
    pub(super) marks: NameMarks,
}

impl FieldSpans {
    fn new(spans: Box<[FieldSpan]>, bytes: &[u8]) -> Self {
        let marks = spans.iter().fold(NameMarks::default(), |marks, field| {
            marks.with(field.name.of_bytes(bytes))
        });
        Self { spans, marks }
    }
}

/// A mark for each name, made of its length and first letter: most questions for a name are answered by that there is no such mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct NameMarks(u64);

impl NameMarks {
    #[inline]
    pub(super) const fn with(self, name: &[u8]) -> Self {
        Self(self.0 | Self::mark(name))
    }

    #[inline]
    const fn has(self, name: &[u8]) -> bool {
        self.0 & Self::mark(name) != 0
    }

    #[inline]
    const fn mark(name: &[u8]) -> u64 {
        match name {
            [first, ..] => 1 << ((name.len() * 5 + (*first | 0x20) as usize) % 64),
            [] => 1,
        }
    }
}

/// Where a field line's parts are within the head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FieldSpan {
    pub(super) name: Span,
    pub(super) value: Span,
    pub(super) line_end: u32,
    /// The name is a token and ends at the colon, as RFC 9112 §5.1 demands.
    pub(super) exact: bool,
}

/// A byte range within a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self {
            start: narrow(start),
            end: narrow(end),
        }
    }

    pub(super) fn of_bytes(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }

    fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }

    fn trimmed_end(self, bytes: &[u8]) -> Self {
        let kept = self
            .of_bytes(bytes)
            .iter()
            .rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
        Self {
            start: self.start,
            end: self.start + kept.map_or(0, |at| narrow(at) + 1),
        }
    }

    fn trimmed(self, bytes: &[u8]) -> Self {
        let end = self.trimmed_end(bytes);
        let skipped = end
            .of_bytes(bytes)
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
            .count();
        Self {
            start: end.start + narrow(skipped),
            end: end.end,
        }
    }
}

/// Offsets within a head fit: its length was checked against `u32::MAX` once.
pub(super) fn narrow(offset: usize) -> u32 {
    debug_assert!(u32::try_from(offset).is_ok());
    offset as u32
}
