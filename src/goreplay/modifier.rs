//! The `--http-…` filters and rewrites, in GoReplay's order.

use std::borrow::Cow;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use regex::bytes::Regex;

use super::fnv1a_32;
use super::place::{self, RequestLine};

/// Everything that the `--http-…` flags ask for, applied in the order of the members, as GoReplay does it.
#[derive(Clone, Debug, Default)]
pub struct Modifier {
    /// `--http-allow-method`: any of these.
    pub allow_method: Vec<String>,
    /// `--http-set-header`.
    pub set_header: Vec<Pair>,
    /// `--http-set-param`.
    pub set_param: Vec<Pair>,
    /// `--http-allow-url`: any of these matches path and query.
    pub allow_url: Vec<Pattern>,
    /// `--http-disallow-url`: none of these does.
    pub disallow_url: Vec<Pattern>,
    /// `--http-allow-header`: all of these.
    pub allow_header: Vec<FieldPattern>,
    /// `--http-disallow-header`: none of these.
    pub disallow_header: Vec<FieldPattern>,
    /// `--http-basic-auth-filter`: all of these.
    pub basic_auth: Vec<Pattern>,
    /// `--http-header-limiter`.
    pub header_limiter: Vec<Share>,
    /// `--http-param-limiter`.
    pub param_limiter: Vec<Share>,
    /// `--http-rewrite-url`: the first that matches.
    pub rewrite_url: Vec<UrlRewrite>,
    /// `--http-rewrite-header`: all of these.
    pub rewrite_header: Vec<FieldRewrite>,
}

/// What becomes of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes on, like this.
    Pass(Bytes),
    /// A filter leaves it out.
    Filtered,
    /// A limiter leaves it out.
    SampledOut,
}

impl Modifier {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        !self.filters()
            && self.set_header.is_empty()
            && self.set_param.is_empty()
            && self.rewrite_url.is_empty()
            && self.rewrite_header.is_empty()
    }

    fn filters(&self) -> bool {
        let Self {
            allow_method,
            allow_url,
            disallow_url,
            allow_header,
            disallow_header,
            basic_auth,
            header_limiter,
            param_limiter,
            ..
        } = self;
        !(allow_method.is_empty()
            && allow_url.is_empty()
            && disallow_url.is_empty()
            && allow_header.is_empty()
            && disallow_header.is_empty()
            && basic_auth.is_empty()
            && header_limiter.is_empty()
            && param_limiter.is_empty())
    }

    /// Applies everything to a request. What has no request line passes unchanged where nothing filters, and is filtered
    /// where something does.
    #[must_use]
    pub fn apply(&self, payload: &Bytes) -> Verdict {
        if self.is_nothing() {
            return Verdict::Pass(payload.clone());
        }
        let Some(line) = place::request_line(payload) else {
            return if self.filters() {
                Verdict::Filtered
            } else {
                Verdict::Pass(payload.clone())
            };
        };
        let method = &payload[line.method];
        if !self.allow_method.is_empty()
            && !self.allow_method.iter().any(|it| it.as_bytes() == method)
        {
            return Verdict::Filtered;
        }
        let mut bytes = Cow::Borrowed(&payload[..]);
        for Pair { name, value } in &self.set_header {
            place::set_field(bytes.to_mut(), name, value.as_bytes());
        }
        for Pair { name, value } in &self.set_param {
            place::set_parameter(bytes.to_mut(), name, value);
        }
        if !self.takes_target(&bytes) || !self.takes_fields(&bytes) {
            return Verdict::Filtered;
        }
        if !self.is_in_sample(&bytes) {
            return Verdict::SampledOut;
        }
        self.rewrite(&mut bytes);
        Verdict::Pass(match bytes {
            Cow::Borrowed(_) => payload.clone(),
            Cow::Owned(changed) => changed.into(),
        })
    }

    fn takes_target(&self, bytes: &[u8]) -> bool {
        let target = target(bytes);
        (self.allow_url.is_empty() || self.allow_url.iter().any(|it| it.0.is_match(target)))
            && !self.disallow_url.iter().any(|it| it.0.is_match(target))
    }

    fn takes_fields(&self, bytes: &[u8]) -> bool {
        let filled = |name| place::value(bytes, name).filter(|value| !value.is_empty());
        self.allow_header
            .iter()
            .all(|it| filled(&it.name).is_some_and(|value| it.regex.is_match(value)))
            && !self
                .disallow_header
                .iter()
                .any(|it| filled(&it.name).is_some_and(|value| it.regex.is_match(value)))
            && self.basic_auth.iter().all(|pattern| {
                let credentials = filled("Authorization")
                    .and_then(|value| value.strip_prefix(b"Basic "))
                    .and_then(|encoded| BASE64_STANDARD.decode(encoded.trim_ascii()).ok());
                credentials.is_none_or(|decoded| pattern.0.is_match(&decoded))
            })
    }

    fn is_in_sample(&self, bytes: &[u8]) -> bool {
        let target = target(bytes);
        let field =
            |share: &Share| place::value(bytes, &share.name).is_none_or(|value| share.takes(value));
        let parameter = |share: &Share| {
            let place = place::parameter(target, &share.name);
            place.is_none_or(|place| share.takes(&target[place]))
        };
        self.header_limiter.iter().all(field) && self.param_limiter.iter().all(parameter)
    }

    fn rewrite(&self, bytes: &mut Cow<'_, [u8]>) {
        let now = target(bytes);
        let changed = self
            .rewrite_url
            .iter()
            .find(|rule| rule.regex.is_match(now))
            .map(|rule| rule.regex.replace_all(now, rule.to.as_bytes()).into_owned());
        if let (Some(changed), Some(RequestLine { target, .. })) =
            (changed, place::request_line(bytes))
        {
            bytes.to_mut().splice(target, changed);
        }
        for rule in &self.rewrite_header {
            let Some(value) = place::value(bytes, &rule.name) else {
                // GoReplay stops at the first rule whose field is absent; the others have nothing to do with that.
                continue;
            };
            if rule.regex.is_match(value) {
                let changed = rule.regex.replace_all(value, rule.to.as_bytes());
                let changed = changed.into_owned();
                place::set_field(bytes.to_mut(), &rule.name, &changed);
            }
        }
    }
}

fn target(bytes: &[u8]) -> &[u8] {
    place::request_line(bytes).map_or(&[], |line| &bytes[line.target])
}

/// What is wrong with a rule as written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongRule(String);

fn compile(text: &str) -> Result<Regex, WrongRule> {
    Regex::new(text).map_err(|error| {
        let error = error.to_string();
        let last = error.lines().last().unwrap_or_default();
        let last = last.strip_prefix("error: ").unwrap_or(last);
        WrongRule(format!("'{text}' is not a regular expression: {last}"))
    })
}

/// `Name: value` or `name=value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    name: String,
    value: String,
}

impl Pair {
    /// Reads `Name: value`.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn header(text: &str) -> Result<Self, WrongRule> {
        let (name, value) = text
            .split_once(':')
            .ok_or_else(|| WrongRule("expected 'Name: value'".to_owned()))?;
        let pair = Self {
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
        };
        let is_line = |text: &str| !text.contains(['\r', '\n']);
        if pair.name.is_empty() || pair.name.contains(' ') || !is_line(text) {
            return Err(WrongRule("expected 'Name: value', on one line".to_owned()));
        }
        Ok(pair)
    }

    /// Reads `name=value`.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn parameter(text: &str) -> Result<Self, WrongRule> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !text.contains([' ', '\r', '\n', '#']) => {
                Ok(Self {
                    name: name.to_owned(),
                    value: value.to_owned(),
                })
            }
            _ => Err(WrongRule("expected name=value, percent-encoded".to_owned())),
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A regular expression.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl FromStr for Pattern {
    type Err = WrongRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        compile(text).map(Self)
    }
}

/// `Name:regex`.
#[derive(Clone, Debug)]
pub struct FieldPattern {
    name: String,
    regex: Regex,
}

impl FromStr for FieldPattern {
    type Err = WrongRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, regex) = text
            .split_once(':')
            .ok_or_else(|| WrongRule("expected 'Name: REGEX'".to_owned()))?;
        Ok(Self {
            name: name.trim().to_owned(),
            regex: compile(regex.trim())?,
        })
    }
}

/// `name:25%`, or in the old form `name:1/4`: which values are in the sample is told by their hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    name: String,
    percent: u32,
}

impl Share {
    /// Whether `value` is in the sample.
    #[must_use]
    pub fn takes(&self, value: &[u8]) -> bool {
        fnv1a_32(value) % 100 < self.percent
    }
}

impl FromStr for Share {
    type Err = WrongRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = || WrongRule("expected 'name:25%' or 'name:1/4'".to_owned());
        let (name, share) = text.split_once(':').ok_or_else(expected)?;
        let share = share.trim();
        let percent = if let Some(percent) = share.strip_suffix('%') {
            percent.parse().map_err(|_| expected())?
        } else {
            let (part, whole) = share.split_once('/').ok_or_else(expected)?;
            let part: u32 = part.parse().map_err(|_| expected())?;
            let whole: u32 = whole.parse().map_err(|_| expected())?;
            part.saturating_mul(100)
                .checked_div(whole)
                .ok_or_else(expected)?
        };
        if name.trim().is_empty() || percent > 100 {
            return Err(expected());
        }
        Ok(Self {
            name: name.trim().to_owned(),
            percent,
        })
    }
}

/// `REGEX:TO`, applied to path and query; `$1` in `TO` is what the first group matched.
#[derive(Clone, Debug)]
pub struct UrlRewrite {
    regex: Regex,
    to: String,
}

impl FromStr for UrlRewrite {
    type Err = WrongRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (regex, to) = text
            .split_once(':')
            .ok_or_else(|| WrongRule("expected REGEX:TO, such as '/v1/(.*):/v2/$1'".to_owned()))?;
        Ok(Self {
            regex: compile(regex)?,
            to: to.to_owned(),
        })
    }
}

/// `Name: REGEX,TO`.
#[derive(Clone, Debug)]
pub struct FieldRewrite {
    name: String,
    regex: Regex,
    to: String,
}

impl FromStr for FieldRewrite {
    type Err = WrongRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule = text.split_once(':').and_then(|(name, rule)| {
            let (regex, to) = rule.split_once(',')?;
            Some((name.trim(), regex.trim(), to.trim()))
        });
        let (name, regex, to) = rule.ok_or_else(|| {
            WrongRule(
                "expected 'Name: REGEX,TO', such as 'Host: (.*).example.com,$1.beta.example.com'"
                    .to_owned(),
            )
        })?;
        Ok(Self {
            name: name.to_owned(),
            regex: compile(regex)?,
            to: to.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: &str =
        "POST /post HTTP/1.1\r\nContent-Length: 7\r\nHost: www.w3.org\r\n\r\na=1&b=2";

    fn parsed<T: FromStr<Err = WrongRule>>(rules: &[&str]) -> Vec<T> {
        rules.iter().map(|rule| rule.parse().expect(rule)).collect()
    }

    fn apply(modifier: &Modifier, payload: &str) -> Option<String> {
        match modifier.apply(&Bytes::copy_from_slice(payload.as_bytes())) {
            Verdict::Pass(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Verdict::Filtered | Verdict::SampledOut => None,
        }
    }

    fn with_target(target: &str) -> String {
        POST.replace("/post", target)
    }

    #[test]
    fn nothing_asked_nothing_changed() {
        assert_eq!(apply(&Modifier::default(), POST).as_deref(), Some(POST));
        assert_eq!(
            apply(&Modifier::default(), "no http").as_deref(),
            Some("no http")
        );
    }

    #[test]
    fn headers_are_allowed() {
        for (rules, passes) in [
            (&["Host:^www.w3.org$"][..], true),
            (&["Host:^www.w4.org$"], false),
            (&["host: ^www.w3.org$"], true),
            (&["Host:w3", "Absent:."], false),
            (&["Host:w3", "Content-Length:^7$"], true),
        ] {
            let modifier = Modifier {
                allow_header: parsed(rules),
                ..Modifier::default()
            };
            assert_eq!(apply(&modifier, POST).is_some(), passes, "{rules:?}");
        }
    }

    #[test]
    fn headers_are_disallowed() {
        let w4 = POST.replace("w3", "w4");
        for (rules, payload, passes) in [
            (&["Host:^www.w3.org$"][..], &w4[..], true),
            (&["Host:^www.w4.org$"], &w4, false),
            (&["Host: www*"], &w4, false),
            (&["Absent:."], POST, true),
        ] {
            let modifier = Modifier {
                disallow_header: parsed(rules),
                ..Modifier::default()
            };
            assert_eq!(apply(&modifier, payload).is_some(), passes, "{rules:?}");
        }
    }

    #[test]
    fn basic_authentication_is_filtered() {
        let with = |authorization: &str| {
            POST.replace("Host:", &format!("Authorization: {authorization}\r\nHost:"))
        };
        let customer3 = with("Basic Y3VzdG9tZXIzOndlbGNvbWU=");
        let customer6 = with("Basic Y3VzdG9tZXI2OnJlc3RAMTIzXlRFU1Q=");
        let mickey = with("Basic bWlja2V5IG1vdXNlOmhhcHB5MTIz");
        for (rule, payload, passes) in [
            ("^customer[0-9].*", &customer3[..], true),
            ("^customer[0-9].*", &customer6, true),
            ("^(homer simpson|mickey mouse).*", &customer6, false),
            ("^(homer simpson|mickey mouse).*", &mickey, true),
            ("^customer", POST, true),
            ("^customer", &with("Bearer abc"), true),
        ] {
            let modifier = Modifier {
                basic_auth: parsed(&[rule]),
                ..Modifier::default()
            };
            assert_eq!(
                apply(&modifier, payload).is_some(),
                passes,
                "{rule} {payload}"
            );
        }
    }

    #[test]
    fn urls_are_rewritten() {
        let modifier = Modifier {
            rewrite_url: parsed(&[r"/v1/user/([^\/]+)/ping:/v2/user/$1/ping", "/v1:/never"]),
            ..Modifier::default()
        };
        for (target, expected) in [
            ("/v1/user/joe/ping", "/v2/user/joe/ping"),
            ("/v2/user/ping", "/v2/user/ping"),
        ] {
            let rewritten = apply(&modifier, &with_target(target));
            assert_eq!(rewritten, Some(with_target(expected)));
        }
        let unmatched = Modifier {
            rewrite_url: parsed(&[r"/v1/user/([^\/]+)/ping:/v2/user/$1/ping"]),
            ..Modifier::default()
        };
        let same = with_target("/v1/user/ping");
        assert_eq!(apply(&unmatched, &same), Some(same));
        assert!("/v1".parse::<UrlRewrite>().is_err());
    }

    #[test]
    fn headers_are_rewritten() {
        let modifier = Modifier {
            rewrite_header: parsed(&["Absent: a,b", "Host: (.*).w3.org,$1.beta.w3.org"]),
            ..Modifier::default()
        };
        let expected = POST.replace("www.w3.org", "www.beta.w3.org");
        assert_eq!(apply(&modifier, POST), Some(expected));
        assert!("Host: a".parse::<FieldRewrite>().is_err());
    }

    #[test]
    fn limiters_go_by_the_hash() {
        let header = Modifier {
            header_limiter: parsed(&["Header2:1/2"]),
            ..Modifier::default()
        };
        let with = |value: &str| POST.replace("Host:", &format!("Header2: {value}\r\nHost:"));
        assert!(apply(&header, POST).is_some());
        assert!(apply(&header, &with("3")).is_none());
        assert!(apply(&header, &with("1")).is_some());
        let parameter = Modifier {
            param_limiter: parsed(&["user_id:1/2"]),
            ..Modifier::default()
        };
        assert!(apply(&parameter, POST).is_some());
        assert!(apply(&parameter, &with_target("/post?user_id=3")).is_none());
        assert!(apply(&parameter, &with_target("/post?user_id=1")).is_some());
        for wrong in ["Header2:1", "Header2:101%", "Header2:1/0", ":5%", "Header2"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
        let share: Share = "X:25%".parse().expect("a share");
        let taken = (0..300)
            .filter(|it: &u32| share.takes(it.to_string().as_bytes()))
            .count();
        assert_eq!(taken, 78);
        assert_eq!((fnv1a_32(b"3") % 100, fnv1a_32(b"1") % 100), (82, 44));
    }

    #[test]
    fn headers_and_parameters_are_set() {
        let headers = ["Header1:1", "Host:localhost"];
        let modifier = Modifier {
            set_header: headers
                .iter()
                .map(|it| Pair::header(it).expect("a header"))
                .collect(),
            ..Modifier::default()
        };
        assert_eq!(
            apply(&modifier, POST).as_deref(),
            Some(
                "POST /post HTTP/1.1\r\nHeader1: 1\r\nContent-Length: 7\r\nHost: localhost\r\n\r\na=1&b=2"
            )
        );
        let modifier = Modifier {
            set_param: vec![Pair::parameter("api_key=1").expect("a parameter")],
            ..Modifier::default()
        };
        let set = apply(&modifier, &with_target("/post?api_key=1234&x=y"));
        assert_eq!(set, Some(with_target("/post?api_key=1&x=y")));
        assert!(Pair::header("Header1").is_err() && Pair::parameter("x").is_err());
    }

    #[test]
    fn urls_are_allowed_and_disallowed() {
        let allow = Modifier {
            allow_url: parsed(&["/v1/app", "/v1/api"]),
            ..Modifier::default()
        };
        let disallow = Modifier {
            disallow_url: parsed(&["/restricted1", "/some/restricted2"]),
            ..Modifier::default()
        };
        for (modifier, target, passes) in [
            (&allow, "/v1/app/test", true),
            (&allow, "/v1/api/test", true),
            (&allow, "/other", false),
            (&disallow, "/restricted1", false),
            (&disallow, "/some/restricted2", false),
            (&disallow, "/v1/app/test", true),
        ] {
            assert_eq!(
                apply(modifier, &with_target(target)).is_some(),
                passes,
                "{target}"
            );
        }
    }

    #[test]
    fn methods_are_allowed() {
        let modifier = Modifier {
            allow_method: vec!["GET".to_owned(), "HEAD".to_owned()],
            ..Modifier::default()
        };
        assert_eq!(apply(&modifier, POST), None);
        assert!(apply(&modifier, "GET / HTTP/1.1\r\n\r\n").is_some());
        assert_eq!(apply(&modifier, "get / HTTP/1.1\r\n\r\n"), None);
        assert_eq!(apply(&modifier, "\x16\x03\x01 no http"), None);
    }
}
