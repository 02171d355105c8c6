//! Reading HTTP archives: our own, and those of browsers and proxies.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{CREATOR, target_in};
use crate::account::{Reason, Stage};
use crate::exchange::{
    Completeness, ConnectionId, Doubts, Endpoints, Exchange, ExchangeId, Request, Response,
};
use crate::http1::{RequestHead, ResponseHead};
use crate::record::damage::Damage;
use crate::record::json::latin1_bytes;
use crate::record::jsonl::reason_named;
use crate::record::message::{self, Parsed};
use crate::record::rebuild::{self, Content, Fields};
use crate::record::rfc3339;
use crate::time::Timestamp;

/// Reads all entries of an archive, which is not compressed any more. Of a damaged one, those before the damage; an archive
/// is held in memory as a whole, so what lies behind [`MAX_ARCHIVE`] is damage too.
pub(in crate::record) fn read_entries(input: impl Read) -> Vec<Result<Exchange, Damage>> {
    read_at_most(MAX_ARCHIVE, input)
}

fn read_at_most(limit: u64, input: impl Read) -> Vec<Result<Exchange, Damage>> {
    let mut archive = Archive::default();
    let mut input = Limited {
        input,
        left: limit,
        is_too_long: false,
    };
    let read = Cell::new(0);
    let mut json = serde_json::Deserializer::from_reader(Counted {
        input: BufReader::new(&mut input),
        read: &read,
    });
    let seed = LogSeed {
        archive: &mut archive,
        read: &read,
    };
    let result = seed.deserialize(&mut json).and_then(|()| json.end());
    drop(json);
    let mut connections = Connections::default();
    let own = archive.creator == CREATOR;
    let entries = archive.entries;
    let time_of = |entry: &Result<Entry, String>| entry.as_ref().ok().and_then(Entry::started);
    let mut time = entries.iter().find_map(time_of);
    let is_dated = time.is_some();
    let (mut undated, mut others, mut other) = (0, 0, None);
    let count = entries.len() as u64;
    let mut exchanges = Vec::with_capacity(entries.len());
    for (entry, number) in entries.into_iter().zip(1..) {
        match time_of(&entry) {
            None if entry.is_ok() => undated += 1,
            found => time = found.or(time),
        }
        if let Ok(Entry { request, .. }) = &entry
            && !own
            && !request.is_http()
        {
            others += 1;
            other.get_or_insert_with(|| request.url.chars().take(40).collect::<String>());
            continue;
        }
        let started = time.unwrap_or_default();
        exchanges.push(
            entry
                .and_then(|entry| entry.exchange(number, started, own, &mut connections))
                .map_err(|what| Damage::in_entry(number, what)),
        );
    }
    if let Some(url) = other {
        let what = format!(
            "{others} of the archive's {count} entries are no HTTP requests, the first of them for {url:?}; they are left out"
        );
        exchanges.push(Err(Damage::notice_at_entry(count, what)));
    }
    if is_dated && undated > 0 {
        let what = format!(
            "{undated} of the archive's {count} entries have no time that can be read; each is given that of the entry before it"
        );
        exchanges.push(Err(Damage::notice_at_entry(count, what)));
    }
    if let Err(error) = result {
        let number = count + 1;
        let what = if input.is_too_long {
            format!(
                "the archive is longer than {} MiB (unpacked), and no more of one is read; split it, or record or convert to \
                 .jsonl or .gor, which may be of any length",
                limit >> 20
            )
        } else if error.is_eof() || error.is_io() {
            format!(
                "the archive is cut here: {error}; {} bytes behind the last whole entry are left out",
                read.get() - archive.whole
            )
        } else {
            format!("not an HTTP archive from here on: {error}")
        };
        exchanges.push(Err(Damage::in_entry(number, what)));
    }
    exchanges
}

/// Fails, rather than ends, behind so many bytes.
struct Limited<R> {
    input: R,
    left: u64,
    is_too_long: bool,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.is_too_long = self.input.read(&mut [0])? > 0;
            return if self.is_too_long {
                Err(io::Error::from(io::ErrorKind::FileTooLarge))
            } else {
                Ok(0)
            };
        }
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.input.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

#[derive(Default)]
struct Archive {
    creator: String,
    /// Each, or what is wrong with it.
    entries: Vec<Result<Entry, String>>,
    /// Bytes up to the end of the last of them.
    whole: u64,
}

/// Counts what is taken.
struct Counted<'a, R> {
    input: R,
    read: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    started_date_time: String,
    #[serde(default)]
    time: Option<f64>,
    request: HarRequest,
    #[serde(default)]
    response: Option<HarResponse>,
    #[serde(default)]
    timings: Timings,
    #[serde(default, rename = "serverIPAddress")]
    server_ip_address: Option<String>,
    #[serde(default)]
    connection: Option<Text>,
    #[serde(default, rename = "_client")]
    client: Option<String>,
    #[serde(default, rename = "_server")]
    server: Option<String>,
    #[serde(default, rename = "_interim")]
    interim: Vec<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HarRequest {
    method: String,
    #[serde(default)]
    url: String,
    #[serde(default, rename = "_target")]
    target: Option<String>,
    #[serde(default, rename = "_doubts")]
    doubts: Vec<String>,
    #[serde(default, rename = "_bytes")]
    bytes: Option<String>,
    #[serde(default)]
    http_version: Option<String>,
    #[serde(default)]
    headers: Vec<Pair>,
    #[serde(default)]
    post_data: Option<PostData>,
    #[serde(default)]
    body_size: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostData {
    #[serde(default)]
    mime_type: String,
    text: Option<String>,
    encoding: Option<String>,
    #[serde(default)]
    params: Vec<Param>,
}

#[derive(Deserialize)]
struct Param {
    name: String,
    #[serde(default)]
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HarResponse {
    #[serde(default)]
    status: f64,
    #[serde(default)]
    status_text: Option<String>,
    #[serde(default)]
    http_version: Option<String>,
    #[serde(default)]
    headers: Vec<Pair>,
    #[serde(default)]
    content: HarContent,
    #[serde(default, rename = "_doubts")]
    doubts: Vec<String>,
    #[serde(default, rename = "_bytes")]
    bytes: Option<String>,
    #[serde(default, rename = "_error")]
    error: Option<String>,
}

#[derive(Deserialize, Default)]
struct HarContent {
    size: Option<f64>,
    text: Option<String>,
    encoding: Option<String>,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    #[serde(default)]
    value: String,
}

/// Phases in milliseconds; -1 is "does not apply".
#[derive(Deserialize, Default)]
struct Timings {
    send: Option<f64>,
    wait: Option<f64>,
    receive: Option<f64>,
}

/// A string, or a number that some tools write in its place.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    String(String),
    Number(u64),
}

impl Entry {
    fn started(&self) -> Option<Timestamp> {
        rfc3339::parse(&self.started_date_time)
    }

    fn exchange(
        self,
        number: u64,
        started: Timestamp,
        own: bool,
        connections: &mut Connections,
    ) -> Result<Exchange, String> {
        let endpoints = self.endpoints();
        let connection = connections.id(self.connection.as_ref(), endpoints);
        let sent = later(started, self.timings.send);
        let answered = later(sent, self.timings.wait);
        let received = match (self.timings.wait, self.timings.receive, self.time) {
            (None, None, Some(total)) => later(started, Some(total)),
            (_, receive, _) => later(answered, receive),
        };

        let method = latin1_bytes(&self.request.method);
        let parsed = self.request.parsed(own, &method)?;
        let request = Arc::new(Request {
            id: ExchangeId(number),
            connection,
            endpoints,
            first_byte: started,
            last_byte: sent,
            head: parsed.head,
            body: parsed.body,
            doubts: parsed.doubts,
            completeness: parsed.completeness,
        });
        let response = match self.response {
            Some(response) if response.status > 0.0 => {
                let interim = self.interim;
                let times = (answered, received);
                Some(response.response(own, &method, times, interim)?)
            }
            _ => None,
        };
        Ok(Exchange {
            connection,
            endpoints,
            request: Some(request),
            response,
        })
    }

    fn endpoints(&self) -> Endpoints {
        let unknown = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let written = |text: &Option<String>| text.as_deref().and_then(|it| it.parse().ok());
        let server = written(&self.server).unwrap_or_else(|| {
            let ip = self.server_ip_address.as_deref();
            let ip = ip.and_then(|ip| ip.trim_matches(['[', ']']).parse().ok());
            SocketAddr::new(
                ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                port_in(&self.request.url),
            )
        });
        Endpoints {
            client: written(&self.client).unwrap_or(unknown),
            server,
        }
    }
}

impl HarRequest {
    /// Whether the URL is one that HTTP asks for: browsers list `data:`, `blob:`, `wss:` and their like too.
    fn is_http(&self) -> bool {
        if self.method == "CONNECT" || self.target.is_some() || self.bytes.is_some() {
            return true;
        }
        let has_host = || {
            self.headers.iter().any(|pair| {
                let name = pair.name.as_bytes();
                (is(name, "host") || name == b":authority") && !pair.value.trim().is_empty()
            })
        };
        if self.url.starts_with('/') || self.url == "*" {
            return has_host();
        }
        let scheme = self.url.split_once("://").map_or("", |(scheme, _)| scheme);
        let is_http = is(scheme.as_bytes(), "http") || is(scheme.as_bytes(), "https");
        is_http && (!authority_in(self.url.as_bytes()).is_empty() || has_host())
    }

    fn parsed(mut self, own: bool, method: &[u8]) -> Result<Parsed<RequestHead>, String> {
        let doubts = Doubts::named(&self.doubts);
        let parsed = match self.bytes.take() {
            Some(bytes) => message::request(exact(bytes)?),
            None => {
                let target = self.target_bytes();
                let version = plain_version(self.http_version.as_deref(), own).to_owned();
                let fields = self.fields(own)?;
                rebuild::request(method, &target, version.as_bytes(), fields)
            }
        };
        let mut parsed =
            parsed.map_err(|error| format!("the request makes no HTTP head: {error}"))?;
        parsed.doubts = parsed.doubts.and(doubts);
        Ok(parsed)
    }

    fn target_bytes(&self) -> Vec<u8> {
        if let Some(target) = &self.target {
            return latin1_bytes(target);
        }
        let url = latin1_bytes(&self.url);
        let end = url
            .iter()
            .position(|&byte| byte == b'#')
            .unwrap_or(url.len());
        let url = &url[..end];
        if self.method == "CONNECT" {
            return authority_in(url).to_vec();
        }
        if url.starts_with(b"/") {
            return url.to_vec();
        }
        let target = target_in(url);
        // `http://host?query` asks for `/?query`.
        match url.iter().position(|&byte| byte == b'?') {
            Some(at) if target == b"/" && at > 0 => [b"/", &url[at..]].concat(),
            _ => target.to_vec(),
        }
    }

    fn fields(self, own: bool) -> Result<Fields, String> {
        let mut list = pairs(self.headers, own);
        if !own && !list.iter().any(|(name, _)| is(name, "host")) {
            let authority = list.iter().find(|(name, _)| name == b":authority");
            let host = authority.map_or_else(
                || authority_in(&latin1_bytes(&self.url)).to_vec(),
                |(_, value)| value.clone(),
            );
            list.insert(0, (b"Host".to_vec(), host));
        }
        let content = match self.post_data {
            Some(data) => match data.text {
                Some(text) => decode(text, data.encoding.as_deref())?,
                None if data.params.is_empty() => Content::of_unrecorded(&list),
                // The boundary and the files are not there.
                None if data.is_multipart(&list) => Content::Unknown,
                None => Content::Known(form(&data.params)),
            },
            None if own => Content::Empty,
            None if self.body_size.is_some_and(|size| size > 0.0) => Content::Unknown,
            None => Content::of_unrecorded(&list),
        };
        Ok(Fields {
            list,
            content,
            exact: own,
        })
    }
}

impl PostData {
    fn is_multipart(&self, list: &[(Vec<u8>, Vec<u8>)]) -> bool {
        let field = list.iter().find(|(name, _)| is(name, "content-type"));
        let kind = field.map_or(self.mime_type.as_bytes(), |(_, value)| value);
        let kind = kind.trim_ascii_start();
        kind.get(..10).is_some_and(|kind| is(kind, "multipart/"))
    }
}

impl HarResponse {
    fn parsed(mut self, own: bool, method: &[u8]) -> Result<Parsed<ResponseHead>, String> {
        let wrong = |error| format!("the response makes no HTTP head: {error}");
        if let Some(bytes) = self.bytes.take() {
            let (_, parsed) = message::response(exact(bytes)?, Some(method)).map_err(wrong)?;
            return Ok(parsed);
        }
        let mut list = pairs(self.headers, own);
        if !own {
            // Archives hold the decoded text, beside the fields of the encoded one.
            list.retain(|(name, _)| !is(name, "content-encoding"));
        }
        let content = match self.content.text {
            _ if self.error.is_some() => Content::Unknown,
            Some(text) => decode(text, self.content.encoding.as_deref())?,
            None if self.content.size.is_some_and(|size| size > 0.0) => Content::Unknown,
            None if own => Content::Empty,
            None => Content::of_unrecorded(&list),
        };
        let version = plain_version(self.http_version.as_deref(), own);
        let reason = latin1_bytes(self.status_text.as_deref().unwrap_or(""));
        rebuild::response(
            version.as_bytes(),
            self.status as u16,
            &reason,
            Fields {
                list,
                content,
                exact: own,
            },
            Some(method),
        )
        .map_err(wrong)
    }

    fn response(
        self,
        own: bool,
        method: &[u8],
        (first_byte, last_byte): (Timestamp, Timestamp),
        interim: Vec<u16>,
    ) -> Result<Response, String> {
        let doubts = Doubts::named(&self.doubts);
        let error = self.error.clone();
        let mut parsed = self.parsed(own, method)?;
        parsed.doubts = parsed.doubts.and(doubts);
        if let Some(error) = error {
            let reason = reason_named(&error, Stage::Response);
            parsed.completeness =
                Completeness::Incomplete(reason.unwrap_or(Reason::ResponseCutByClose));
        }
        Ok(Response {
            first_byte,
            last_byte,
            interim,
            head: parsed.head,
            body: parsed.body,
            doubts: parsed.doubts,
            completeness: parsed.completeness,
        })
    }
}

/// Numbers for connections: those that the entries give, or one for each pair of ends.
#[derive(Default)]
struct Connections {
    known: ahash::AHashMap<String, u64>,
}

impl Connections {
    fn id(&mut self, given: Option<&Text>, endpoints: Endpoints) -> ConnectionId {
        let key = match given {
            Some(Text::Number(number)) => number.to_string(),
            Some(Text::String(text)) if !text.is_empty() => text.clone(),
            _ => format!("{} {}", endpoints.client, endpoints.server),
        };
        let next = self.known.len() as u64;
        ConnectionId(*self.known.entry(key).or_insert(next))
    }
}

/// The fields of a message. Some tools join the values of a repeated one with line feeds.
fn pairs(headers: Vec<Pair>, own: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = Vec::with_capacity(headers.len());
    for pair in headers {
        let name = latin1_bytes(&pair.name);
        if own || !pair.value.contains('\n') {
            list.push((name, latin1_bytes(&pair.value)));
            continue;
        }
        let values = pair.value.lines().map(str::trim);
        let values = values.filter(|value| !value.is_empty());
        list.extend(values.map(|value| (name.clone(), latin1_bytes(value))));
    }
    list
}

/// The bytes of a whole message.
fn exact(base64: String) -> Result<Bytes, String> {
    match STANDARD.decode(base64) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(format!("a message's _bytes are no base64: {error}")),
    }
}

fn decode(mut text: String, encoding: Option<&str>) -> Result<Content, String> {
    match encoding {
        Some("base64") => {
            text.retain(|letter| !letter.is_ascii_whitespace());
            STANDARD
                .decode(text)
                .map(Content::Known)
                .map_err(|error| format!("a body is no base64: {error}"))
        }
        _ => Ok(Content::Known(text.into_bytes())),
    }
}

/// Form parameters as a browser sends them (`application/x-www-form-urlencoded`).
fn form(params: &[Param]) -> Vec<u8> {
    let pairs: Vec<String> = params
        .iter()
        .map(|it| {
            let value = it.value.as_deref().unwrap_or("");
            format!("{}={}", form_encoded(&it.name), form_encoded(value))
        })
        .collect();
    pairs.join("&").into_bytes()
}

/// Some browsers record parameters encoded, others decoded: what may stand in a form stays as it is.
fn form_encoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let may_stand = |(at, &byte): (usize, &u8)| match byte {
        b'%' => bytes
            .get(at + 1..at + 3)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
        _ => byte.is_ascii_graphic() && !matches!(byte, b'&' | b'='),
    };
    if bytes.iter().enumerate().all(may_stand) {
        return text.to_owned();
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for &byte in bytes {
        match byte {
            b' ' => encoded.push('+'),
            b'*' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// HTTP/2 and 3 are replayed as HTTP/1.1, and so is what others write in odd ways; in our own, an empty version is HTTP/0.9's.
fn plain_version(version: Option<&str>, own: bool) -> &str {
    match version {
        Some(text) if own => text,
        Some(text) if is(text.trim().as_bytes(), "HTTP/1.0") => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn later(time: Timestamp, millis: Option<f64>) -> Timestamp {
    let nanos = millis.unwrap_or(0.0).max(0.0) * 1e6;
    time.after(std::time::Duration::from_nanos(nanos.round() as u64))
}

fn is(name: &[u8], known: &str) -> bool {
    name.eq_ignore_ascii_case(known.as_bytes())
}

fn authority_in(url: &[u8]) -> &[u8] {
    let start = memchr::memmem::find(url, b"://").map_or(0, |at| at + 3);
    let rest = &url[start..];
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let authority = &rest[..end.unwrap_or(rest.len())];
    match authority.iter().rposition(|&byte| byte == b'@') {
        Some(at) => &authority[at + 1..],
        None => authority,
    }
}

fn port_in(url: &str) -> u16 {
    let authority = authority_in(url.as_bytes());
    let digits = authority
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (host, port) = authority.split_at(authority.len() - digits);
    let default = if url.starts_with("https:") || url.starts_with("wss:") {
        443
    } else {
        80
    };
    if !host.ends_with(b":") {
        return default;
    }
    str::from_utf8(port)
        .ok()
        .and_then(|port| port.parse().ok())
        .unwrap_or(default)
}

/// Reads the outermost object, whose `log` holds everything.
struct LogSeed<'a> {
    archive: &'a mut Archive,
    read: &'a Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for LogSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(ObjectVisitor {
            archive: self.archive,
            read: self.read,
            in_log: false,
        })
    }
}

struct ObjectVisitor<'a> {
    archive: &'a mut Archive,
    read: &'a Cell<u64>,
    in_log: bool,
}

impl<'de> DeserializeSeed<'de> for ObjectVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with \"log\" in it")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match (self.in_log, key.as_str()) {
                (false, "log") => map.next_value_seed(ObjectVisitor {
                    archive: self.archive,
                    read: self.read,
                    in_log: true,
                })?,
                (true, "creator") => {
                    let creator = map.next_value::<Value>()?;
                    let name = creator.get("name").and_then(Value::as_str);
                    self.archive.creator = name.unwrap_or_default().to_owned();
                }
                (true, "entries") => map.next_value_seed(EntriesSeed {
                    archive: self.archive,
                    read: self.read,
                })?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Reads entries one by one, so that those before and behind an odd one are kept.
struct EntriesSeed<'a> {
    archive: &'a mut Archive,
    read: &'a Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for EntriesSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for EntriesSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(mut entry) = seq.next_element::<Value>()? {
            drop_nulls(&mut entry);
            let entry = serde_json::from_value(entry);
            let entry = entry.map_err(|error| format!("not an entry: {error}; skipped"));
            self.archive.entries.push(entry);
            self.archive.whole = self.read.get();
        }
        Ok(())
    }
}

/// A member that is null is one that is not there.
fn drop_nulls(json: &mut Value) {
    match json {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Longest archive, unpacked.
pub(in crate::record) const MAX_ARCHIVE: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_archive_that_is_too_long_the_first_entries_are_read() {
        let entry = r#"{"request":{"method":"GET","url":"http://a/"}}"#;
        let start = format!(r#"{{"log":{{"entries":[{entry},{entry},"#);
        let endless = io::repeat(b' ');
        let mut entries = read_at_most(1 << 20, start.as_bytes().chain(endless));
        let said = entries.pop().unwrap().unwrap_err().to_string();
        assert!(entries.len() == 2 && entries.iter().all(Result::is_ok));
        assert!(
            said.starts_with("entry 3: the archive is longer than 1 MiB (unpacked)"),
            "{said}"
        );
        assert!(said.contains("convert to .jsonl or .gor"), "{said}");

        let whole = format!(r#"{{"log":{{"entries":[{entry}]}}}}"#);
        let exactly = read_at_most(whole.len() as u64, whole.as_bytes());
        assert!(exactly.len() == 1 && exactly[0].is_ok());
    }

    fn read(entries: &str) -> Vec<Result<Exchange, Damage>> {
        read_entries(format!(r#"{{"log":{{"creator":null,"entries":[{entries}]}}}}"#).as_bytes())
    }

    fn request(entry: &str) -> Arc<Request> {
        let mut entries = read(entry);
        assert_eq!(entries.len(), 1, "{entry}");
        entries.pop().unwrap().unwrap().request.unwrap()
    }

    #[test]
    fn versions_are_read_however_they_are_written() {
        for (written, meant) in [
            ("http/1.1", "HTTP/1.1"),
            (" HTTP/1.1 ", "HTTP/1.1"),
            ("", "HTTP/1.1"),
            ("h2", "HTTP/1.1"),
            ("http/1.0", "HTTP/1.0"),
        ] {
            let request = request(&format!(
                r#"{{"request":{{"method":"GET","url":"http://a/","httpVersion":"{written}"}}}}"#
            ));
            assert_eq!(request.head.version(), meant.as_bytes(), "{written:?}");
            assert!(!request.doubts.any(), "{written:?}");
        }
    }

    #[test]
    fn what_is_no_http_is_left_out() {
        for url in [
            "data:text/plain,http://a/",
            "blob:http://a/1",
            "about:blank",
            "chrome-extension://a/b",
            "file:///etc/hosts",
            "wss://a/",
            "/path",
            "",
        ] {
            let entries = read(&format!(
                r#"{{"request":{{"method":"GET","url":"{url}"}}}}"#
            ));
            let [Err(said)] = &entries[..] else {
                panic!("{url} is left out");
            };
            assert!(
                said.to_string().contains("no HTTP request"),
                "{url}: {said}"
            );
            assert!(!said.is_fault(), "{url}");
        }
        let host = r#""headers":[{"name":"host","value":"a"}]"#;
        let relative = request(&format!(
            r#"{{"request":{{"method":"GET","url":"/x?to=http://b/c",{host}}}}}"#
        ));
        assert_eq!(relative.head.target(), b"/x?to=http://b/c");
    }

    #[test]
    fn an_odd_entry_is_skipped_alone_and_null_is_absent() {
        let entries = read(
            r#"{"request":{"method":"GET","url":"http://a/1","headers":null,"postData":null}},
               {"request":{"method":"GET","url":"http://a/2","bodySize":"12"}}, 7,
               {"request":{"method":"GET","url":"http://a/4"}}"#,
        );
        assert!(entries.len() == 4 && entries[0].is_ok() && entries[3].is_ok());
        let said = entries[1].as_ref().unwrap_err().to_string();
        assert!(said.starts_with("entry 2: not an entry:"), "{said}");
        assert!(entries[2].is_err());
    }

    #[test]
    fn an_entry_without_a_time_has_that_of_the_one_before() {
        let entry = r#""request":{"method":"GET","url":"http://a/"}"#;
        let entries = read(&format!(
            r#"{{{entry}}},{{"startedDateTime":"2026-01-01T00:00:00Z",{entry}}},{{"startedDateTime":"soon",{entry}}}"#
        ));
        let time = rfc3339::parse("2026-01-01T00:00:00Z").unwrap();
        for exchange in &entries[..3] {
            let request = exchange.as_ref().unwrap().request.as_ref().unwrap();
            assert_eq!(request.first_byte, time);
        }
        let said = entries[3].as_ref().unwrap_err().to_string();
        assert!(entries.len() == 4 && said.contains("2 of the archive's 3 entries"));
    }

    #[test]
    fn forms_are_encoded_once_and_files_are_not_made_up() {
        let body = |kind: &str, params: &str| {
            request(&format!(
                r#"{{"request":{{"method":"POST","url":"http://a/","postData":{{"mimeType":"{kind}","params":[{params}]}}}}}}"#
            ))
        };
        let form = body(
            "application/x-www-form-urlencoded",
            r#"{"name":"a b","value":"1&2=3%"},{"name":"c","value":"x+%26"},{"name":"d","value":null}"#,
        );
        assert_eq!(&form.body.content()[..], b"a+b=1%262%3D3%25&c=x+%26&d=");
        assert!(form.completeness.is_whole());
        let files = body("multipart/form-data", r#"{"name":"a","value":"b"}"#);
        assert_eq!(
            files.completeness,
            Completeness::Incomplete(Reason::RequestGap)
        );
    }

    #[test]
    fn joined_fields_and_broken_base64_are_read() {
        let mut entries = read(
            r#"{"request":{"method":"GET","url":"http://a/"},"response":{"status":200,
                "headers":[{"name":"set-cookie","value":"a=1\nb=2"}],
                "content":{"text":"aGVs\r\nbG8=\n","encoding":"base64"}}}"#,
        );
        let response = entries.pop().unwrap().unwrap().response.unwrap();
        let cookies: Vec<_> = response.head.fields().iter().collect();
        assert_eq!(
            cookies,
            [(&b"set-cookie"[..], &b"a=1"[..]), (b"set-cookie", b"b=2")]
        );
        assert_eq!(&response.body.content()[..], b"hello");
    }
}
