//! Endpoints: requests that the same code serves, `GET /orders/{id}` rather than each path alone.

use std::fmt;
use std::io::Write as _;
use std::str::FromStr;
use std::sync::Arc;

use ahash::AHashMap;
use memchr::memchr2;

use super::noise;
use crate::exchange::Request;
use crate::http1::path_begin;

/// Names endpoints, so many of them and no more.
#[derive(Debug)]
pub struct Endpoints {
    routes: Vec<Route>,
    /// By their bytes.
    known: AHashMap<Box<[u8]>, Arc<str>>,
    most: usize,
    other: Arc<str>,
    /// The name in hand: UTF-8, since it is made of that only.
    name: Vec<u8>,
}

impl Endpoints {
    /// Names at most `most` endpoints, those of `routes` as these have it; what comes after that is [`Self::OTHER`].
    #[must_use]
    pub fn new(routes: Vec<Route>, most: usize) -> Self {
        Self {
            routes,
            known: AHashMap::new(),
            most,
            other: Self::OTHER.into(),
            name: Vec::new(),
        }
    }

    /// The endpoint of what comes when there are too many.
    pub const OTHER: &str = "other";

    /// The endpoint of `request`.
    pub fn name(&mut self, request: &Request) -> Arc<str> {
        let target = request.head.target();
        let path = path_begin(target).map_or(target, |at| &target[at..]);
        let path = memchr2(b'?', b'#', path).map_or(path, |end| &path[..end]);
        self.name.clear();
        let method = request.head.method();
        push_printable(&mut self.name, method);
        self.name.push(b' ');
        match self.routes.iter().find(|route| route.matches(method, path)) {
            Some(route) => self.name.extend_from_slice(route.path.as_bytes()),
            None => push_template(&mut self.name, path),
        }
        if let Some(known) = self.known.get(&*self.name) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.most {
            return Arc::clone(&self.other);
        }
        let name: Arc<str> = String::from_utf8_lossy(&self.name).into();
        self.known.insert((*self.name).into(), Arc::clone(&name));
        name
    }
}

/// Appends a path with placeholders for what is an identifier in it.
fn push_template(out: &mut Vec<u8>, path: &[u8]) {
    if path.is_empty() {
        out.push(b'/');
    }
    let (mut begin, mut sorts, mut length) = (0, 0, 0);
    for at in 0..=path.len() {
        let byte = path.get(at);
        if let Some(&byte) = byte
            && byte != b'/'
        {
            sorts |= SORTS[usize::from(byte)];
            continue;
        }
        length += 1;
        if length > MOST_SEGMENTS {
            out.extend_from_slice("…".as_bytes());
            return;
        }
        let segment = &path[begin..at];
        // Most segments are a short word or a number.
        match sorts {
            WORDS | 0 if segment.len() < SHORTEST_DRAWN => out.extend_from_slice(segment),
            DIGITS => out.extend_from_slice(b"{id}"),
            _ => push_segment(out, segment),
        }
        out.extend(byte);
        (begin, sorts) = (at + 1, 0);
    }
}

/// Appends a segment that is neither a short word nor a number.
fn push_segment(out: &mut Vec<u8>, segment: &[u8]) {
    let Ok(text) = std::str::from_utf8(segment) else {
        return out.extend_from_slice(b"{id}");
    };
    match text.rsplit_once('.') {
        // 17.json
        Some((stem, extension))
            if (1..=5).contains(&extension.len())
                && !noise::is_identifier(extension)
                && !stem.contains('@')
                && placeholder(stem).is_some() =>
        {
            out.extend_from_slice(placeholder(stem).unwrap_or_default().as_bytes());
            out.push(b'.');
            push_printable(out, extension.as_bytes());
        }
        _ => match placeholder(text) {
            Some(placeholder) => out.extend_from_slice(placeholder.as_bytes()),
            None => push_printable(out, segment),
        },
    }
}

fn placeholder(segment: &str) -> Option<&'static str> {
    let bytes = bytes_of(segment.as_bytes());
    if matches!(bytes, WORDS | 0) && segment.len() < SHORTEST_DRAWN {
        None
    } else if bytes == DIGITS {
        Some("{id}")
    } else if noise::is_date(segment) {
        Some("{date}")
    } else if noise::is_identifier(segment)
        || is_numbered(segment, &['-', '_'])
        || is_drawn(segment)
        || segment.len() > LONGEST_SEGMENT
        || segment.contains('@')
        || segment.contains("%40")
    {
        Some("{id}")
    } else {
        None
    }
}

/// The sorts of bytes that a segment is made of, added up.
fn bytes_of(segment: &[u8]) -> u8 {
    let sort = |&byte: &u8| SORTS[usize::from(byte)];
    segment.iter().map(sort).fold(0, |all, sort| all | sort)
}

/// Bytes that words are made of.
const WORDS: u8 = 1;
const DIGITS: u8 = 2;
const OTHERS: u8 = 4;

const SORTS: [u8; 256] = {
    let (mut sorts, mut byte) = ([OTHERS; 256], 0);
    while byte < 256 {
        match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' => sorts[byte] = WORDS,
            b'0'..=b'9' => sorts[byte] = DIGITS,
            _ => {}
        }
        byte += 1;
    }
    sorts
};

/// Whether a text is a numbered thing, such as `ORD-10017`.
pub(super) fn is_numbered(text: &str, separators: &[char]) -> bool {
    text.rsplit_once(separators).is_some_and(|(name, number)| {
        number.len() >= 3
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && (1..=12).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphabetic())
    })
}

/// Whether a text is letters and digits that a machine has drawn, such as `cus_NffrFeUfNV2Hib`, rather than a name.
pub(super) fn is_drawn(text: &str) -> bool {
    let all_letters = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphabetic());
    let drawn = match text.split_once('_') {
        Some((name, drawn)) if name.len() <= 8 && all_letters(name) => drawn,
        _ => text,
    };
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if drawn.len() < SHORTEST_DRAWN || !drawn.bytes().all(is_part) {
        return false;
    }
    let sort = |byte: &u8| match byte {
        b'0'..=b'9' => Some(Sort::Digit),
        b'A'..=b'Z' => Some(Sort::Upper),
        b'a'..=b'z' => Some(Sort::Lower),
        _ => None,
    };
    let sorts: Vec<Sort> = drawn.as_bytes().iter().filter_map(sort).collect();
    let count = |sort| sorts.iter().filter(|&&it| it == sort).count();
    // From one letter to the next a drawn text changes between these far more often than words do.
    let changes = sorts.windows(2).filter(|pair| pair[0] != pair[1]).count();
    if count(Sort::Upper) > 0 && count(Sort::Lower) > 0 {
        count(Sort::Digit) > 0 && changes * 100 >= sorts.len() * 42
    } else {
        // Some write a title in this way, with hyphens.
        sorts.len() >= 20 && count(Sort::Digit) >= 3 && changes >= 5 && !drawn.contains('-')
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Digit,
    Upper,
    Lower,
}

/// Appends bytes from the wire so that they cannot act on a terminal.
fn push_printable(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.iter().all(u8::is_ascii_graphic) {
        out.extend_from_slice(bytes);
        return;
    }
    for &byte in bytes {
        if byte.is_ascii_graphic() {
            out.push(byte);
        } else {
            // Writing to memory cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// A template given by hand: `/shops/{shop}/items/{item}`, `GET /files/**`.
///
/// `{name}` and `*` are one segment, `**` at the end is the rest of the path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    method: Option<String>,
    path: String,
}

/// What is wrong with a template.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "'{0}' is not a route such as /shops/{{shop}}/items/{{item}}, 'GET /orders/*' or /files/**"
)]
pub struct RouteError(String);

impl FromStr for Route {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || RouteError(text.to_owned());
        let trimmed = text.trim();
        let (method, path) = match trimmed.split_once(' ') {
            Some((method, path)) => (Some(method.to_ascii_uppercase()), path.trim()),
            None => (None, trimmed),
        };
        let is_well_formed = |segment: &str| {
            !segment.contains(['{', '}'])
                || segment.starts_with('{') && segment.ends_with('}') && segment.len() > 2
        };
        let rest_is_last = path.strip_suffix("**").unwrap_or(path);
        if !path.starts_with('/')
            || path.contains([' ', '?', '#'])
            || rest_is_last.contains("**")
            || !path.split('/').all(is_well_formed)
        {
            return Err(wrong());
        }
        Ok(Self {
            method,
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(method) = &self.method {
            write!(f, "{method} ")?;
        }
        f.write_str(&self.path)
    }
}

impl Route {
    fn matches(&self, method: &[u8], path: &[u8]) -> bool {
        if self
            .method
            .as_ref()
            .is_some_and(|mine| mine.as_bytes() != method)
        {
            return false;
        }
        let mut segments = path.split(|&byte| byte == b'/');
        for mine in self.path.split('/') {
            if mine == "**" {
                return true;
            }
            let Some(segment) = segments.next() else {
                return false;
            };
            let is_any = mine == "*" || mine.starts_with('{');
            if !(is_any && !segment.is_empty() || mine.as_bytes() == segment) {
                return false;
            }
        }
        segments.next().is_none()
    }
}

/// Shorter texts are not taken for drawn ones.
const SHORTEST_DRAWN: usize = 14;

/// Longer segments are identifiers.
const LONGEST_SEGMENT: usize = 64;

/// Paths are named up to so many segments.
const MOST_SEGMENTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;
    use proptest::prelude::*;

    fn named(endpoints: &mut Endpoints, line: &str) -> String {
        endpoints
            .name(&request(&format!("{line} HTTP/1.1\r\n\r\n"), ""))
            .to_string()
    }

    #[test]
    fn identifiers_become_placeholders() {
        let mut endpoints = Endpoints::new(Vec::new(), 100);
        for (line, name) in [
            ("GET /", "GET /"),
            ("GET /orders/17", "GET /orders/{id}"),
            ("GET /orders/17?x=1", "GET /orders/{id}"),
            (
                "DELETE /orders/6b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1/items/3",
                "DELETE /orders/{id}/items/{id}",
            ),
            (
                "GET /files/d41d8cd98f00b204e9800998ecf8427e",
                "GET /files/{id}",
            ),
            ("GET /days/2026-11-22", "GET /days/{date}"),
            ("GET /u/01KAQH8Y6G0000000000000000", "GET /u/{id}"),
            ("GET /items/17.json", "GET /items/{id}.json"),
            ("GET /app.v2.js", "GET /app.v2.js"),
            ("GET /orders/ORD-10017", "GET /orders/{id}"),
            ("GET /customers/cus_NffrFeUfNV2Hib", "GET /customers/{id}"),
            ("GET /notes/V1StGXR8_Z5jdHi6B-myT", "GET /notes/{id}"),
            ("GET /boards/cjld2cjxh0000qzrmn831i7rn", "GET /boards/{id}"),
            ("GET /covid-19/oauth2/sha256", "GET /covid-19/oauth2/sha256"),
            (
                "GET /getUserProfileV2Details/export_all_of_it_2",
                "GET /getUserProfileV2Details/export_all_of_it_2",
            ),
            (
                "GET /blue-shoes-44/internationalization2024/a-2024-report-v2-final3",
                "GET /blue-shoes-44/internationalization2024/a-2024-report-v2-final3",
            ),
            ("GET /api/v2/users/a@example.com", "GET /api/v2/users/{id}"),
            ("GET http://shop:80/orders/17", "GET /orders/{id}"),
            ("GET http://shop", "GET /"),
            ("OPTIONS *", "OPTIONS *"),
            ("GET /a//b/", "GET /a//b/"),
        ] {
            assert_eq!(named(&mut endpoints, line), name);
        }
    }

    #[test]
    fn routes_by_hand() {
        let routes = ["/shops/{shop}/items/{item}", "get /files/**", "/x/*"]
            .map(|route| route.parse().unwrap())
            .to_vec();
        let mut endpoints = Endpoints::new(routes, 100);
        for (line, name) in [
            (
                "GET /shops/berlin/items/tea",
                "GET /shops/{shop}/items/{item}",
            ),
            (
                "PUT /shops/berlin/items/tea",
                "PUT /shops/{shop}/items/{item}",
            ),
            ("GET /shops/berlin/items", "GET /shops/berlin/items"),
            ("GET /files/a/b/c", "GET /files/**"),
            ("PUT /files/a/b/c", "PUT /files/a/b/c"),
            ("GET /x/y", "GET /x/*"),
            ("GET /x/", "GET /x/"),
        ] {
            assert_eq!(named(&mut endpoints, line), name);
        }
        for wrong in ["", "orders", "/a b", "/{a", "/**/b", "/a?b", "/{}"] {
            assert!(wrong.parse::<Route>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bounded() {
        let mut endpoints = Endpoints::new(Vec::new(), 3);
        for index in 0..10 {
            let name = named(
                &mut endpoints,
                &format!("GET /page-{}", char::from(b'a' + index)),
            );
            assert_eq!(name == Endpoints::OTHER, index >= 3, "{name}");
        }
        assert_eq!(named(&mut endpoints, "GET /page-a"), "GET /page-a");
    }

    proptest! {
        #[test]
        fn a_name_is_printable_and_short(path in "/[a-z0-9/{}%.@\u{e9}-]{0,300}") {
            let mut endpoints = Endpoints::new(Vec::new(), 3);
            let name = named(&mut endpoints, &format!("GET {}", path.replace(' ', "")));
            prop_assert!(name.chars().all(|c| c.is_ascii_graphic() || c == ' ' || c == '…'));
            prop_assert!(name.len() <= 5 + MOST_SEGMENTS * (LONGEST_SEGMENT + 2) * 3);
        }
    }
}
