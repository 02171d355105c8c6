//! Which requests are replayed: rules about what a request is, in one small grammar.
//!
//! ```text
//! rule    = "method:" NAME,…                     | "client:" ADDRESS[/BITS],…
//!         | "path" pattern | "host" pattern      | "size:" [">" | ">=" | "<" | "<="] SIZE,…
//!         | field ":" NAME [value]               | "status:" CODE | FIRST-LAST | Nxx,…
//!         | "basic-auth" pattern
//! field   = "header" | "query" | "cookie"
//! pattern = ":" GLOB,… | "~" REGEX
//! value   = "=" GLOB,… | "~" REGEX
//! ```

use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::pattern::{Case, Pattern, RuleError, Segments};
use super::values::byte_size;
use crate::exchange::Request;
use crate::http1::{FieldName, Fields, RequestHead, host_name_len, path_begin};

/// Which requests are replayed.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// A request must match every one of these.
    pub only: Vec<Rule>,
    /// It must match none of these.
    pub except: Vec<Rule>,
    /// Only methods that change nothing (RFC 9110 §9.2.1): GET, HEAD, OPTIONS, TRACE.
    pub safe_only: bool,
}

impl Selection {
    /// Whether `request` is among them. `status` is version 1's answer to it; without one, no rule on it matches.
    #[must_use]
    pub fn takes(&self, request: &Request, status: Option<u16>) -> bool {
        if self.safe_only
            && !matches!(
                request.head.method(),
                b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE"
            )
        {
            return false;
        }
        self.only.iter().all(|rule| rule.matches(request, status))
            && !self.except.iter().any(|rule| rule.matches(request, status))
    }

    /// Whether everything is.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.only.is_empty() && self.except.is_empty() && !self.safe_only
    }

    /// The first rule that asks for the answer, if there is one.
    #[must_use]
    pub fn on_status(&self) -> Option<&Rule> {
        let mut rules = self.only.iter().chain(&self.except);
        rules.find(|rule| matches!(rule.test, Test::Status(_)))
    }
}

/// One rule, as it was written and as it works.
#[derive(Clone, Debug)]
pub struct Rule {
    text: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    /// One of these, without case.
    Method(Vec<String>),
    Path(Pattern),
    Host(Pattern),
    Header(FieldName, Option<Pattern>),
    Query(Vec<u8>, Option<Pattern>),
    Cookie(Vec<u8>, Option<Pattern>),
    /// `USER:PASSWORD`.
    BasicAuth(Pattern),
    Client(Vec<Network>),
    Size(Vec<(Comparison, u64)>),
    /// Inclusive ranges.
    Status(Vec<(u16, u16)>),
}

impl Rule {
    /// The rule as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `request`, which version 1 answered with `status`, is what the rule says.
    #[must_use]
    pub fn matches(&self, request: &Request, status: Option<u16>) -> bool {
        let head = &request.head;
        match &self.test {
            Test::Method(names) => names
                .iter()
                .any(|name| head.method().eq_ignore_ascii_case(name.as_bytes())),
            Test::Path(pattern) => pattern.is_match(path(head.target())),
            Test::Host(pattern) => host(head).is_some_and(|host| {
                pattern.is_match(host) || pattern.is_match(&host[..host_name_len(host)])
            }),
            Test::Header(name, pattern) => {
                let mut values = head.fields().all(name.as_str());
                values.any(|value| fits(pattern.as_ref(), value))
            }
            Test::Query(name, pattern) => pairs(query(head.target()), b'&')
                .any(|(key, value)| key == name && fits(pattern.as_ref(), value)),
            Test::Cookie(name, pattern) => cookies(head.fields())
                .any(|(key, value)| key == name && fits(pattern.as_ref(), value)),
            Test::BasicAuth(pattern) => head
                .fields()
                .all("authorization")
                .filter_map(basic_credentials)
                .any(|credentials| pattern.is_match(&credentials)),
            Test::Client(networks) => {
                let client = request.endpoints.client.ip();
                networks.iter().any(|network| network.contains(client))
            }
            Test::Size(bounds) => {
                let size = request.body.content().len() as u64;
                bounds.iter().any(|(comparison, bound)| match comparison {
                    Comparison::Below => size < *bound,
                    Comparison::AtMost => size <= *bound,
                    Comparison::Equal => size == *bound,
                    Comparison::AtLeast => size >= *bound,
                    Comparison::Above => size > *bound,
                })
            }
            Test::Status(ranges) => status.is_some_and(|status| {
                ranges
                    .iter()
                    .any(|&(first, last)| (first..=last).contains(&status))
            }),
        }
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = text
            .find([':', '~'])
            .ok_or_else(|| RuleError::new(EXPECTED))?;
        let (field, rest) = (&text[..at], &text[at + 1..]);
        let is_regex = text.as_bytes()[at] == b'~';
        let test = match (field, is_regex) {
            ("path", true) => Test::Path(Pattern::regex(rest)?),
            ("host", true) => Test::Host(Pattern::regex(rest)?),
            ("basic-auth", true) => Test::BasicAuth(Pattern::regex(rest)?),
            ("basic-auth", false) => {
                Test::BasicAuth(Pattern::globs(rest, Case::Exact, Segments::None)?)
            }
            ("path", false) => {
                let starts_with_path = |glob: &str| glob.starts_with(['/', '*', '?', '\\']);
                if !rest.split(',').all(starts_with_path) {
                    return Err(RuleError::new(
                        "a path begins with '/', so this would never match",
                    ));
                }
                Test::Path(Pattern::globs(rest, Case::Exact, Segments::BySlash)?)
            }
            ("host", false) => Test::Host(Pattern::globs(rest, Case::Ignored, Segments::None)?),
            ("method" | "header" | "query" | "cookie" | "client" | "size" | "status", true) => {
                return Err(RuleError(format!(
                    "'{field}' takes ':' here; a regular expression goes with path~, host~, and behind a name as in \
                     header:NAME~REGEX"
                )));
            }
            ("method", false) => Test::Method(each(rest, method)?),
            ("header", false) => {
                let (name, pattern) = named(rest)?;
                let name = name.parse::<FieldName>();
                let name = name.map_err(|error| RuleError(error.to_string()))?;
                Test::Header(name, pattern)
            }
            ("query", false) => {
                let (name, pattern) = named(rest)?;
                Test::Query(name.into(), pattern)
            }
            ("cookie", false) => {
                let (name, pattern) = named(rest)?;
                Test::Cookie(name.into(), pattern)
            }
            ("client", false) => Test::Client(each(rest, str::parse)?),
            ("size", false) => Test::Size(each(rest, size)?),
            ("status", false) => Test::Status(each(rest, status)?),
            _ => return Err(RuleError(format!("'{field}' is unknown; {EXPECTED}"))),
        };
        Ok(Self {
            text: text.to_owned(),
            test,
        })
    }
}

const EXPECTED: &str = "a rule is about method:, path:, path~, host:, host~, header:, query:, cookie:, basic-auth:, \
                        basic-auth~, client:, size: or status:";

/// Each of some alternatives between commas.
fn each<T>(text: &str, parse: impl Fn(&str) -> Result<T, RuleError>) -> Result<Vec<T>, RuleError> {
    text.split(',').map(parse).collect()
}

fn method(text: &str) -> Result<String, RuleError> {
    // A method is a token, as a field name is.
    match text.parse::<FieldName>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(RuleError(format!("{text:?} is not a method"))),
    }
}

/// `NAME`, `NAME=GLOB,…` or `NAME~REGEX`.
fn named(text: &str) -> Result<(&str, Option<Pattern>), RuleError> {
    let at = text.find(['=', '~']).unwrap_or(text.len());
    let (name, rest) = text.split_at(at);
    if name.is_empty() {
        return Err(RuleError::new("the name is missing"));
    }
    let pattern = match rest.split_at_checked(1) {
        None => None,
        Some(("~", regex)) => Some(Pattern::regex(regex)?),
        // What is empty can be asked for.
        Some((_, "")) => Some(Pattern::regex("^$")?),
        Some((_, globs)) => Some(Pattern::globs(globs, Case::Exact, Segments::None)?),
    };
    Ok((name, pattern))
}

fn fits(pattern: Option<&Pattern>, value: &[u8]) -> bool {
    pattern.is_none_or(|pattern| pattern.is_match(value))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comparison {
    Below,
    AtMost,
    Equal,
    AtLeast,
    Above,
}

fn size(text: &str) -> Result<(Comparison, u64), RuleError> {
    let (comparison, bound) = [
        ("<=", Comparison::AtMost),
        (">=", Comparison::AtLeast),
        ("<", Comparison::Below),
        (">", Comparison::Above),
    ]
    .into_iter()
    .find_map(|(sign, comparison)| Some((comparison, text.strip_prefix(sign)?)))
    .unwrap_or((Comparison::Equal, text));
    let bound = byte_size(bound.trim_start()).map_err(RuleError)?;
    Ok((comparison, bound))
}

/// `404`, `4xx` or `500-503`.
fn status(text: &str) -> Result<(u16, u16), RuleError> {
    let wrong = || {
        RuleError(format!(
            "{text:?} is not a status such as 404, 4xx or 500-503"
        ))
    };
    let code = |text: &str| match text.parse::<u16>() {
        Ok(code) if (100..=999).contains(&code) && text.len() == 3 => Ok(code),
        _ => Err(wrong()),
    };
    if let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
        let first = code(&format!("{class}00"))?;
        return Ok((first, first + 99));
    }
    match text.split_once('-') {
        Some((first, last)) => {
            let range = (code(first)?, code(last)?);
            if range.0 > range.1 {
                return Err(wrong());
            }
            Ok(range)
        }
        None => code(text).map(|code| (code, code)),
    }
}

/// The addresses that share the first `bits` bits of `address`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let differs = mine.to_bits() ^ other.to_bits();
                differs.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let differs = mine.to_bits() ^ other.to_bits();
                differs.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            RuleError(format!(
                "{text:?} is not an address such as 10.1.2.3 or 10.0.0.0/8"
            ))
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| wrong())?,
            None => most,
        };
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { address, bits })
    }
}

/// The path in a request target as sent, without the query; of a target without path, all of it.
pub(super) fn path(target: &[u8]) -> &[u8] {
    let Some(begin) = path_begin(target) else {
        return target;
    };
    let path = &target[begin..];
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#'));
    match &path[..end.unwrap_or(path.len())] {
        b"" => b"/",
        path => path,
    }
}

/// What is behind the `?` of a request target.
fn query(target: &[u8]) -> &[u8] {
    let mut parts = target.splitn(2, |&byte| byte == b'?');
    parts.next();
    let query = parts.next().unwrap_or_default();
    let end = memchr::memchr(b'#', query).unwrap_or(query.len());
    &query[..end]
}

/// The host that a request asks for: what an absolute-form target says overrides `Host` (RFC 9112 §3.2.2).
pub(super) fn host(head: &RequestHead) -> Option<&[u8]> {
    if let Some(authority) = authority(head.target()) {
        return Some(authority);
    }
    head.fields().get("host")
}

/// Host and port in an absolute-form target.
pub(super) fn authority(target: &[u8]) -> Option<&[u8]> {
    if target.first() == Some(&b'/') {
        return None;
    }
    let end = path_begin(target)?;
    let begin = memchr::memmem::find(target, b"://")? + 3;
    let authority = target.get(begin..end)?;
    let user = memchr::memrchr(b'@', authority).map_or(0, |at| at + 1);
    Some(&authority[user..])
}

/// `USER:PASSWORD` in an `Authorization` value of the scheme Basic (RFC 7617).
fn basic_credentials(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = value.split_at_checked(5)?;
    if !scheme.eq_ignore_ascii_case(b"basic") || !rest.starts_with(b" ") {
        return None;
    }
    STANDARD.decode(rest.trim_ascii()).ok()
}

/// Names and values of all cookies, as sent (RFC 6265 §4.2).
pub(super) fn cookies(fields: Fields<'_>) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields
        .all("cookie")
        .flat_map(|value| pairs(value, b';'))
        .map(|(name, value)| (name.trim_ascii(), value.trim_ascii()))
}

/// `NAME=VALUE` between separators; without `=` the value is empty.
pub(super) fn pairs(text: &[u8], separator: u8) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(move |&byte| byte == separator)
        .filter(|pair| !pair.is_empty())
        .map(|pair| match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        })
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;

    const POST: &str = "POST /a/b;v=1?x=1&y=&z&x=2 HTTP/1.1\r\nHost: Api.Example.com:8080\r\nX-A: one\r\nx-a: two, three\r\n\
                        Cookie: sid=abc; theme=dark\r\ncookie: sid=second\r\nAuthorization: basic  dXNlcjpwYSx3ZA==\r\nContent-Length: 10\r\n\r\n";

    #[test]
    fn each_rule_means_what_it_says() {
        let request = request(POST, "0123456789");
        for (rule, expected) in [
            ("method:POST", true),
            ("method:GET,post", true),
            ("method:GET", false),
            ("path:/a/*", true),
            ("path:/a", false),
            ("path:/a/b;v=1", true),
            ("path:/x,/a/**", true),
            ("path~^/a/[^/]{1,9}$", true),
            ("path~b;v", true),
            ("path~x=1", false),
            ("host:api.example.com", true),
            ("host:*.example.COM", true),
            ("host:api.example.com:8080", true),
            ("host:api.example.com:80", false),
            ("host:example.com", false),
            ("host~(?i)example", true),
            ("host~^example", false),
            ("header:x-a", true),
            ("header:X-B", false),
            ("header:X-A=one", true),
            ("header:X-A=two*", true),
            ("header:X-A=two", false),
            ("header:X-A=zero,one", true),
            ("header:X-A~thr[e]{2}$", true),
            ("header:X-A~^three", false),
            ("header:Host=Api*", true),
            ("header:Host=api*", false),
            ("query:x", true),
            ("query:x=2", true),
            ("query:x=3", false),
            ("query:y", true),
            ("query:y=", true),
            ("query:z=", true),
            ("query:x=", false),
            ("query:X", false),
            ("query:x~^[12]$", true),
            ("query:a", false),
            ("cookie:sid", true),
            ("cookie:sid=second", true),
            ("cookie:sid=other", false),
            ("cookie:theme~^da", true),
            ("cookie:SID", false),
            ("basic-auth:user:*", true),
            ("basic-auth:user:pa\\,wd", true),
            ("basic-auth:user", false),
            ("basic-auth:other:*,us?r:*", true),
            ("basic-auth~^user:pa,wd$", true),
            ("basic-auth~^User", false),
            ("client:10.1.2.3", true),
            ("client:10.1.2.4", false),
            ("client:10.0.0.0/8", true),
            ("client:11.0.0.0/8", false),
            ("client:0.0.0.0/0", true),
            ("client:::/0", false),
            ("client:::1,10.1.0.0/16", true),
            ("size:10", true),
            ("size:>9", true),
            ("size:>10", false),
            ("size:>=10", true),
            ("size:<10", false),
            ("size:<=10", true),
            ("size:<1KiB", true),
            ("size:>1MiB,<11", true),
            ("status:200", true),
            ("status:2xx", true),
            ("status:300,100-204", true),
            ("status:3xx,404", false),
        ] {
            let parsed: Rule = rule.parse().expect(rule);
            assert_eq!(parsed.matches(&request, Some(200)), expected, "{rule}");
            assert_eq!(parsed.text(), rule);
            if rule.starts_with("status") {
                assert!(!parsed.matches(&request, None), "{rule}");
            }
        }
    }

    #[test]
    fn requests_of_every_form() {
        for (head, rule, expected) in [
            (
                "GET http://u@h.example:1/p?q HTTP/1.1\r\nHost: other",
                "host:h.example",
                true,
            ),
            (
                "GET http://h.example/p HTTP/1.1\r\nHost: other",
                "host:other",
                false,
            ),
            ("GET http://h.example/p?q=1 HTTP/1.1", "path:/p", true),
            ("GET http://h.example?q=1 HTTP/1.1", "path:/", true),
            ("GET http://h.example?q=1 HTTP/1.1", "query:q=1", true),
            ("OPTIONS * HTTP/1.1\r\nHost: a", "path:**", true),
            ("OPTIONS * HTTP/1.1\r\nHost: a", "path:/**", false),
            ("GET / HTTP/1.0", "host:*", false),
            ("GET / HTTP/1.0", "host~", false),
            (
                "GET / HTTP/1.1\r\nAuthorization: Bearer eDp5",
                "basic-auth:*",
                false,
            ),
            (
                "GET / HTTP/1.1\r\nAuthorization: Basic eDp5",
                "basic-auth:x:y",
                true,
            ),
            (
                "GET / HTTP/1.1\r\nAuthorization: Basic ???",
                "basic-auth:*",
                false,
            ),
            ("GET /?a=1#b=2 HTTP/1.1", "query:b", false),
            ("GET /?u=http://x/y HTTP/1.1\r\nHost: a", "host:a", true),
            ("GET / HTTP/1.1\r\nHost: [::1]:80", "host:[::1]", true),
            ("GET / HTTP/1.1\r\nX:", "header:X=", true),
        ] {
            let Ok(rule) = rule.parse::<Rule>() else {
                assert!(!expected, "{rule}");
                continue;
            };
            let request = request(&format!("{head}\r\n\r\n"), "");
            assert_eq!(
                rule.matches(&request, None),
                expected,
                "{head} {}",
                rule.text()
            );
        }
    }

    #[test]
    fn the_size_of_a_chunked_body_is_that_of_its_content() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let request = request(head, "3;a=b\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        let rule: Rule = "size:5".parse().expect("a rule");
        assert!(rule.matches(&request, None));
    }

    #[test]
    fn networks() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.1.2.3/32", "10.1.2.4", false),
            ("10.1.2.3/31", "10.1.2.2", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::1", "::1", true),
            ("::/0", "2001:db8::1", true),
        ] {
            let network: Network = network.parse().expect(network);
            let address = address.parse().expect(address);
            assert_eq!(network.contains(address), expected, "{network:?} {address}");
        }
    }

    #[test]
    fn every_only_and_no_except() {
        let rules = |texts: &[&str]| -> Vec<Rule> {
            texts.iter().map(|text| text.parse().expect(text)).collect()
        };
        for (only, except, safe_only, expected) in [
            (&[][..], &[][..], false, true),
            (&["method:POST", "path:/a/**"], &[], false, true),
            (&["method:POST", "path:/b/**"], &[], false, false),
            (&["method:POST"], &["path:/a/**"], false, false),
            (&[], &["path:/b", "query:x"], false, false),
            (&[], &["path:/b", "query:w"], false, true),
            (&[], &[], true, false),
        ] {
            let selection = Selection {
                only: rules(only),
                except: rules(except),
                safe_only,
            };
            let takes = selection.takes(&request(POST, ""), None);
            assert_eq!(takes, expected, "{only:?} {except:?}");
        }
        let selection = Selection {
            except: rules(&["path:/", "status:5xx"]),
            ..Selection::default()
        };
        assert_eq!(selection.on_status().map(Rule::text), Some("status:5xx"));
        assert!(!selection.is_everything());
    }

    #[test]
    fn wrong_rules_say_what_is_wrong() {
        for (rule, words) in [
            ("", "about method:"),
            ("GET", "about method:"),
            ("verb:GET", "'verb' is unknown"),
            ("method~GET", "takes ':'"),
            ("method:", "not a method"),
            ("method:GET,", "not a method"),
            ("path:admin", "begins with '/'"),
            ("path:", "begins with '/'"),
            ("path~", "empty"),
            ("path~(", "not a regular expression"),
            ("host:", "nothing to match"),
            ("header:", "name is missing"),
            ("header:a b", "not a header name"),
            ("header:=x", "name is missing"),
            ("header:X~[", "not a regular expression"),
            ("query:=x", "name is missing"),
            ("client:10.0.0.0/33", "not an address"),
            ("client:localhost", "not an address"),
            ("client:::1/129", "not an address"),
            ("size:big", "number of bytes"),
            ("size:=5", "number of bytes"),
            ("status:ok", "not a status"),
            ("status:20", "not a status"),
            ("status:0xx", "not a status"),
            ("status:500-400", "not a status"),
        ] {
            let error = rule.parse::<Rule>().expect_err(rule).to_string();
            assert!(error.contains(words), "{rule}: {error}");
        }
    }
}
