//! Header fields of an answer: those that a client acts on.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::found::Found;
use super::noise::{self, Noise};
use super::{DifferenceKind, Rules};
use crate::exchange::Response;
use crate::http1::{FieldName, Fields};

/// Which header fields are compared.
#[derive(Clone, Debug)]
pub struct Headers {
    /// In lower case, by length: most lengths have no name, so that most fields are passed over at once.
    by_length: Vec<Vec<Box<str>>>,
    /// All but those that are noise or belong to one connection.
    all: bool,
}

impl Default for Headers {
    fn default() -> Self {
        Self::new([], false)
    }
}

impl Headers {
    /// The default ones and `more`; with `all`, all that mean something.
    #[must_use]
    pub fn new(more: impl IntoIterator<Item = FieldName>, all: bool) -> Self {
        let mut headers = Self {
            by_length: Vec::new(),
            all,
        };
        for name in DEFAULT {
            headers.insert(name);
        }
        for name in more {
            headers.insert(&name.as_str().to_ascii_lowercase());
        }
        headers
    }

    fn insert(&mut self, name: &str) {
        if self.by_length.len() <= name.len() {
            self.by_length.resize(name.len() + 1, Vec::new());
        }
        self.by_length[name.len()].push(name.into());
    }

    /// The name in lower case, if it is compared.
    fn compared<'a>(&'a self, name: &'a [u8]) -> Option<Cow<'a, str>> {
        let names = self.by_length.get(name.len()).into_iter().flatten();
        for known in names {
            if known.as_bytes().eq_ignore_ascii_case(name) {
                return Some(Cow::Borrowed(known));
            }
        }
        if !self.all
            || NOISE
                .iter()
                .any(|noise| noise.as_bytes().eq_ignore_ascii_case(name))
        {
            return None;
        }
        let name = std::str::from_utf8(name).ok()?;
        Some(Cow::Owned(name.to_ascii_lowercase()))
    }
}

/// Finds out how the compared fields of two answers differ.
pub(super) fn differences(
    v1: &Response,
    v2: &Response,
    noise: &Noise<'_>,
    rules: &Rules,
    found: &mut Found,
) {
    let (ones, twos) = (v1.head.fields(), v2.head.fields());
    if are_alike(ones, twos, rules) {
        return;
    }
    for (raw, value) in ones.iter() {
        let Some(name) = rules.headers.compared(raw) else {
            continue;
        };
        if name == "set-cookie" {
            continue;
        }
        // Equal single values are by far the most common.
        let mut others = twos.all(&name);
        if others.next() == Some(value) && others.next().is_none() && ones.all(&name).count() == 1 {
            continue;
        }
        one_name(&name, ones, twos, noise, rules, found);
    }
    for (raw, _) in twos.iter() {
        if let Some(name) = rules.headers.compared(raw)
            && name != "set-cookie"
            && ones.get(&name).is_none()
        {
            one_name(&name, ones, twos, noise, rules, found);
        }
    }
    cookies(v1, v2, rules, found);
}

/// What stands before each part of a `multipart/` body (RFC 2046 §5.1.1).
pub(super) fn boundary(fields: Fields<'_>) -> Option<Vec<u8>> {
    let mut parts = fields.get("content-type")?.split(|&byte| byte == b';');
    let media_type = parts.next()?.trim_ascii_start();
    let is_multipart = |it: &[u8]| it.eq_ignore_ascii_case(b"multipart/");
    if !media_type.get(..10).is_some_and(is_multipart) {
        return None;
    }
    let is_boundary = |name: &[u8]| name.eq_ignore_ascii_case(BOUNDARY);
    let value = parts.map(<[u8]>::trim_ascii).find_map(|part| {
        let (name, value) = part.split_at_checked(BOUNDARY.len())?;
        is_boundary(name).then_some(value)
    })?;
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    let value = value.strip_suffix(b"\"").unwrap_or(value);
    (!value.is_empty()).then(|| [b"--", value].concat())
}

const BOUNDARY: &[u8] = b"boundary=";

/// The fast way: the same names in the same order, and nothing else in what is compared.
fn are_alike(ones: Fields<'_>, twos: Fields<'_>, rules: &Rules) -> bool {
    let mut others = twos.iter();
    for (name, value) in ones.iter() {
        let Some((other, its)) = others.next() else {
            return false;
        };
        // Nearly always in the same case, and that is seen at once.
        let is_same = (name == other || name.eq_ignore_ascii_case(other))
            && (value == its || rules.headers.compared(name).is_none());
        if !is_same {
            return false;
        }
    }
    others.next().is_none()
}

fn one_name(
    name: &str,
    ones: Fields<'_>,
    twos: Fields<'_>,
    noise: &Noise<'_>,
    rules: &Rules,
    found: &mut Found,
) {
    let field = format!("header.{name}");
    match (value(name, ones), value(name, twos)) {
        (Some(one), None) => {
            found.add(&field, DifferenceKind::Missing, rules, || (Some(one), None))
        }
        (None, Some(two)) => found.add(&field, DifferenceKind::Extra, rules, || (None, Some(two))),
        (Some(one), Some(two)) if one != two && !noise.texts(name, &one, &two) => {
            found.add(&field, DifferenceKind::Value, rules, || {
                (Some(one), Some(two))
            });
        }
        _ => {}
    }
}

/// All values of a field in the form in which they are compared; `None` without such a field.
fn value(name: &str, fields: Fields<'_>) -> Option<String> {
    fields.get(name)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
    if name == "content-type" {
        // Type, subtype, parameter names and charsets have no case (RFC 9110 §8.3).
        let parts: Vec<String> = fields
            .all(name)
            .flat_map(|value| value.split(|&byte| byte == b';'))
            .map(|part| text(part).to_ascii_lowercase().replace('"', ""))
            // Each answer draws its own.
            .filter(|part| !part.starts_with("boundary="))
            .collect();
        return Some(parts.join("; "));
    }
    if UNORDERED.contains(&name) {
        let mut parts: Vec<String> = fields
            .elements(name)
            .map(|part| text(part).to_ascii_lowercase())
            .collect();
        parts.sort_unstable();
        return Some(parts.join(", "));
    }
    let parts: Vec<String> = fields.all(name).map(text).collect();
    let value = parts.join(", ");
    Some(if name == "content-security-policy" {
        without_nonces(&value)
    } else {
        value
    })
}

/// Without what a page's own scripts run by, which is drawn for each page (CSP Level 3 §2.3.1).
fn without_nonces(policy: &str) -> String {
    let mut out = String::with_capacity(policy.len());
    for (index, piece) in policy.split('\'').enumerate() {
        if index > 0 {
            out.push('\'');
        }
        out.push_str(match piece.strip_prefix("nonce-") {
            Some(nonce) if !nonce.is_empty() => "nonce-…",
            _ => piece,
        });
    }
    out
}

/// Cookies by their names. Their values are secrets and new for each session; what is compared is which there are, and
/// what browsers are told to do with them.
fn cookies(v1: &Response, v2: &Response, rules: &Rules, found: &mut Found) {
    let is_compared = rules.headers.compared(b"set-cookie").is_some();
    let sets = |response: &Response| response.head.fields().get("set-cookie").is_some();
    if !is_compared || !(sets(v1) || sets(v2)) {
        return;
    }
    let (ones, twos) = (attributes(v1), attributes(v2));
    for (name, one) in &ones {
        let field = || format!("header.set-cookie.{name}");
        match twos.get(name) {
            None => found.add(&field(), DifferenceKind::Missing, rules, || {
                (Some(one.join(", ")), None)
            }),
            Some(two) if one != two => {
                found.add(&field(), DifferenceKind::Value, rules, || {
                    (Some(one.join(", ")), Some(two.join(", ")))
                });
            }
            Some(_) => {}
        }
    }
    for (name, two) in &twos {
        if !ones.contains_key(name) {
            let field = format!("header.set-cookie.{name}");
            found.add(&field, DifferenceKind::Extra, rules, || {
                (None, Some(two.join(", ")))
            });
        }
    }
}

/// The attributes of the cookies of each name (RFC 6265 §4.1), sorted. Of when they end it says only whether that is past: then
/// the cookie is taken away.
fn attributes(response: &Response) -> BTreeMap<String, Vec<String>> {
    let mut cookies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for value in response.head.fields().all("set-cookie") {
        let value = String::from_utf8_lossy(value).into_owned();
        let mut parts = value.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let name = name.split('=').next().unwrap_or_default().trim().to_owned();
        let mut attributes = Vec::new();
        let mut max_age = None;
        let mut expires = None;
        for part in parts.filter(|part| !part.is_empty()) {
            let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
            let (attribute, value) = (attribute.trim().to_ascii_lowercase(), value.trim());
            match (&*attribute, value) {
                ("expires", date) => expires = noise::http_date(&date.replace('-', " ")),
                ("max-age", age) => {
                    max_age = age.parse::<i64>().ok();
                    attributes.push(format!("max-age={age}"));
                }
                ("path", path) => attributes.push(format!("path={path}")),
                (_, "") => attributes.push(attribute),
                (_, value) => {
                    attributes.push(format!("{attribute}={}", value.to_ascii_lowercase()));
                }
            }
        }
        let now = i128::from(response.first_byte.as_nanos());
        let is_over = match (max_age, expires) {
            (Some(age), _) => age <= 0,
            (None, Some(moment)) => moment <= now,
            (None, None) => false,
        };
        if is_over {
            attributes.retain(|it| !it.starts_with("max-age="));
            attributes.push("taken away".to_owned());
        }
        attributes.sort_unstable();
        cookies.entry(name).or_default().push(attributes.join("; "));
    }
    for of_one_name in cookies.values_mut() {
        of_one_name.sort_unstable();
    }
    cookies
}

/// What clients, browsers and caches act on.
const DEFAULT: [&str; 24] = [
    "accept-ranges",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "allow",
    "cache-control",
    "content-disposition",
    "content-language",
    "content-range",
    "content-security-policy",
    "content-type",
    "link",
    "location",
    "permissions-policy",
    "referrer-policy",
    "set-cookie",
    "strict-transport-security",
    "vary",
    "www-authenticate",
    "x-content-type-options",
    "x-frame-options",
];

/// Lists whose order and case mean nothing.
const UNORDERED: [&str; 6] = [
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-expose-headers",
    "allow",
    "cache-control",
    "vary",
];

/// What says how, when, by whom or under which number an answer was made, and what belongs to one connection.
const NOISE: [&str; 37] = [
    "age",
    "alt-svc",
    "cf-ray",
    "connection",
    "content-encoding",
    "content-length",
    "date",
    "etag",
    "expires",
    "keep-alive",
    "last-modified",
    "nel",
    "proxy-connection",
    "report-to",
    "server",
    "server-timing",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-amz-id-2",
    "x-amz-request-id",
    "x-amzn-requestid",
    "x-amzn-trace-id",
    "x-b3-parentspanid",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-cache",
    "x-correlation-id",
    "x-envoy-upstream-service-time",
    "x-process-time",
    "x-request-id",
    "x-response-time",
    "x-runtime",
    "x-served-by",
];

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, request};
    use super::*;
    use crate::traffic::body::is_json;

    fn diff_with(headers: Headers, v1: &str, v2: &str) -> Vec<String> {
        let rules = Rules {
            headers,
            ..Rules::default()
        };
        let request = request("GET /a HTTP/1.1\r\n\r\n", "");
        let (ones, twos) = (answer(200, v1, b""), answer(200, v2, b""));
        let mut found = Found::default();
        differences(
            &ones,
            &twos,
            &Noise::new(&request, &ones, &twos),
            &rules,
            &mut found,
        );
        found
            .into_differences()
            .into_iter()
            .map(|it| format!("{} {}", it.field, it.kind))
            .collect()
    }

    fn diff(v1: &str, v2: &str) -> Vec<String> {
        diff_with(Headers::default(), v1, v2)
    }

    #[test]
    fn what_clients_act_on() {
        assert_eq!(
            diff(
                "Content-Type: text/html\r\n",
                "content-type: application/json\r\n"
            ),
            ["header.content-type value"]
        );
        assert_eq!(diff("Location: /a\r\n", ""), ["header.location missing"]);
        assert_eq!(
            diff("", "Cache-Control: no-store\r\n"),
            ["header.cache-control extra"]
        );
        assert_eq!(
            diff("Link: </a>\r\nLink: </b>\r\n", "Link: </a>\r\n"),
            ["header.link value"]
        );
        assert!(
            diff(
                "Date: x\r\nServer: a\r\nX-Other: 1\r\nETag: 1\r\n",
                "Server: b\r\n"
            )
            .is_empty()
        );
    }

    #[test]
    fn forms_that_mean_the_same() {
        for (v1, v2) in [
            (
                "Content-Type: application/json; charset=utf-8",
                "content-type: Application/JSON;charset=\"UTF-8\"",
            ),
            ("Vary: Accept, Origin", "Vary: origin\r\nVary: accept"),
            (
                "Cache-Control: no-cache, no-store",
                "Cache-Control: no-store,no-cache",
            ),
            (
                "Set-Cookie: s=1; Path=/; HttpOnly; Expires=Sun, 22 Nov 2026 21:04:06 GMT",
                "Set-Cookie: s=2; httponly; path=/",
            ),
            (
                "Content-Security-Policy: script-src 'self' 'nonce-k3J9+/Qw==' https://a",
                "Content-Security-Policy: script-src 'self' 'nonce-Zk3/9=' https://a",
            ),
            (
                "Location: /o/6b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1",
                "Location: /o/7b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1",
            ),
        ] {
            let found = diff(&format!("{v1}\r\n"), &format!("{v2}\r\n"));
            assert!(found.is_empty(), "{v1} {v2}: {found:?}");
        }
    }

    #[test]
    fn cookies_by_name() {
        assert_eq!(
            diff(
                "Set-Cookie: a=1; Secure\r\nSet-Cookie: b=2\r\n",
                "Set-Cookie: a=9\r\nSet-Cookie: c=2\r\n"
            ),
            [
                "header.set-cookie.a value",
                "header.set-cookie.b missing",
                "header.set-cookie.c extra"
            ]
        );
    }

    #[test]
    fn policies() {
        for other in ["'nonce-'", "'unsafe-inline'", "'sha256-k3J9'"] {
            let policy = |it: &str| format!("Content-Security-Policy: script-src {it}\r\n");
            let found = diff(&policy("'nonce-k3J9'"), &policy(other));
            assert_eq!(found, ["header.content-security-policy value"], "{other}");
        }
    }

    #[test]
    fn what_browsers_do_with_cookies() {
        // The tests' answers are of the year 1970.
        for (v1, v2, is_same) in [
            ("a=1; Expires=Wed, 21 Oct 2099 07:28:00 GMT", "a=2", true),
            (
                "a=1; Max-Age=60; Expires=Wed, 21 Oct 2099 07:28:00 GMT",
                "a=2; max-age=60",
                true,
            ),
            (
                "a=1; Expires=Wed, 21 Oct 2099 07:28:00 GMT",
                "a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
                false,
            ),
            (
                "a=; Max-Age=0",
                "a=x; expires=Thu, 01-Jan-1970 00:00:00 GMT",
                true,
            ),
            ("a=1; Max-Age=60", "a=1; Max-Age=-1", false),
            ("a=1; Path=/Admin", "a=1; Path=/admin", false),
            (
                "a=1; SameSite=Lax; DOMAIN=A.example",
                "a=1; domain=a.EXAMPLE; samesite=LAX",
                true,
            ),
            (
                "a=1; Path=/\r\nSet-Cookie: a=1; Path=/x",
                "a=1; Path=/x",
                false,
            ),
            (
                "a=1; Path=/\r\nSet-Cookie: a=1; Path=/x",
                "a=1; Path=/x\r\nSet-Cookie: a=2; Path=/",
                true,
            ),
        ] {
            let found = diff(
                &format!("Set-Cookie: {v1}\r\n"),
                &format!("Set-Cookie: {v2}\r\n"),
            );
            let expected: &[&str] = if is_same {
                &[]
            } else {
                &["header.set-cookie.a value"]
            };
            assert_eq!(found, expected, "{v1} {v2}");
        }
        assert!(diff("", "").is_empty());
    }

    #[test]
    fn media_types() {
        let response = |value: &str| {
            super::super::tests::answer(200, &format!("Content-Type: {value}\r\n"), b"")
        };
        for (value, expected) in [
            ("application/json", true),
            ("application/problem+JSON ; charset=utf-8", true),
            ("application/jsonp", false),
            ("text/plain; x=json", false),
            ("", false),
        ] {
            assert_eq!(is_json(response(value).head.fields()), expected, "{value}");
        }
        for (value, expected) in [
            ("multipart/mixed; boundary=abc", Some("--abc")),
            (
                "Multipart/Form-Data;charset=x; Boundary=\"a b\"",
                Some("--a b"),
            ),
            ("multipart/mixed", None),
            ("multipart/mixed; boundary=", None),
            ("text/plain; boundary=abc", None),
        ] {
            let found = boundary(response(value).head.fields());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn more_by_name_and_all() {
        let more = Headers::new(["X-Other".parse().unwrap()], false);
        assert_eq!(
            diff_with(more, "x-other: 1\r\nx-more: 1\r\n", "x-other: 2\r\n"),
            ["header.x-other value"]
        );
        let all = Headers::new([], true);
        assert_eq!(
            diff_with(
                all,
                "X-More: 1\r\nDate: 1\r\nX-Request-Id: 1\r\n",
                "X-Request-Id: 2\r\n"
            ),
            ["header.x-more missing"]
        );
    }

    #[test]
    fn names_are_written_as_they_are_compared() {
        for name in DEFAULT.iter().chain(&UNORDERED).chain(&NOISE) {
            assert_eq!(*name, name.to_ascii_lowercase());
        }
        assert!(UNORDERED.iter().all(|name| DEFAULT.contains(name)));
        assert!(DEFAULT.iter().all(|name| !NOISE.contains(name)));
    }
}
