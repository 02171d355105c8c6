//! What is changed in a request before it is replayed. Bytes that nobody asked to change stay as they are: fields keep
//! their order, case and duplicates.

use std::borrow::Cow;
use std::ops::Range;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use regex::bytes::Regex;

use super::body::{BodyRewrite, Unreadable};
use super::pattern::{RuleError, compile};
use super::select::authority;
use crate::account::Reason;
use crate::exchange::Request;
use crate::http1::{
    Body, FieldName, Framing, HeadError, RequestHead, empty_line_begin, path_begin, range_of,
};

/// What is changed, applied in the order of the members.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// In the path.
    pub path: Vec<PathSubstitution>,
    /// Query parameters that are taken out.
    pub remove_query: Vec<QueryName>,
    /// Query parameters that are set: the first of that name keeps its place, others of that name are taken out.
    pub set_query: Vec<QueryPair>,
    /// In the host: `Host`, and an absolute-form target.
    pub host: Vec<HostSubstitution>,
    /// Fields that are taken out.
    pub remove_header: Vec<FieldName>,
    /// Fields that are set: the first of that name keeps its place, others of that name are taken out.
    pub set_header: Vec<Field>,
    /// Fields that are added behind all others.
    pub add_header: Vec<Field>,
    /// In the body.
    pub body: BodyRewrite,
}

impl Rewrite {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.path.is_empty()
            && self.remove_query.is_empty()
            && self.set_query.is_empty()
            && self.host.is_empty()
            && self.remove_header.is_empty()
            && self.set_header.is_empty()
            && self.add_header.is_empty()
            && self.body.is_nothing()
    }

    /// The request as it is to be sent; `None` when it stays as it is.
    ///
    /// # Errors
    /// Why it cannot be sent.
    pub fn apply(&self, request: &Request) -> Result<Option<Request>, Reason> {
        let body = self
            .body
            .body(request)
            .map_err(|Unreadable| Reason::BodyNotRewritable)?;
        let head = self
            .head(request, body.as_ref())
            .map_err(|_| Reason::NotRewritable)?;
        if head.is_none() && body.is_none() {
            return Ok(None);
        }
        Ok(Some(Request {
            head: head.unwrap_or_else(|| request.head.clone()),
            body: body.unwrap_or_else(|| request.body.clone()),
            ..request.clone()
        }))
    }

    /// The head as it is to be sent before a `body` that was changed, if it was; `None` when it stays as it is.
    ///
    /// # Errors
    /// When what comes out is no head, as when more fields were added than any server takes.
    fn head(
        &self,
        request: &Request,
        body: Option<&Body>,
    ) -> Result<Option<RequestHead>, HeadError> {
        let head = &request.head;
        let new_length = body.and_then(|body| match body.framing {
            Framing::Length(length) => Some(length.to_string().into_bytes()),
            _ => None,
        });
        let mut edits = Vec::new();
        let target = head.target();
        if let Cow::Owned(changed) = self.target(target) {
            edits.push((range_of(head, target), changed));
        }
        let mut set = vec![false; self.set_header.len()];
        let fields = head.fields();
        for ((name, value), line) in fields.iter().zip(fields.lines()) {
            if self.remove_header.iter().any(|removed| removed.is(name)) {
                edits.push((line, Vec::new()));
                continue;
            }
            // Of several that set one field, the last counts.
            if let Some(index) = self.set_header.iter().rposition(|it| it.name.is(name)) {
                if std::mem::replace(&mut set[index], true) {
                    edits.push((line, Vec::new()));
                } else {
                    let place = range_of(head, value);
                    edits.push((place, self.set_header[index].value.clone().into_bytes()));
                }
                continue;
            }
            if let Some(length) = &new_length
                && name.eq_ignore_ascii_case(b"content-length")
            {
                edits.push((range_of(head, value), length.clone()));
            }
            if name.eq_ignore_ascii_case(b"host")
                && let Cow::Owned(changed) = substitute(self.host.iter().map(|it| &it.0), value)
            {
                edits.push((range_of(head, value), changed));
            }
        }
        let mut added = Vec::new();
        for (index, field) in self.set_header.iter().enumerate() {
            let is_last = !self.set_header[index + 1..]
                .iter()
                .any(|later| later.name.is(field.name.as_str().as_bytes()));
            if !set[index] && is_last {
                field.write(&mut added);
            }
        }
        for field in &self.add_header {
            field.write(&mut added);
        }
        if !added.is_empty() {
            let at = empty_line_begin(head.bytes());
            edits.push((at..at, added));
        }
        if edits.is_empty() {
            return Ok(None);
        }
        RequestHead::parse(edited(head.bytes(), &edits)).map(Some)
    }

    fn target<'a>(&self, target: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(begin) = path_begin(target) else {
            return Cow::Borrowed(target);
        };
        let (front, rest) = target.split_at(begin);
        let end = |what: &[u8]| rest.iter().position(|byte| what.contains(byte));
        let path_end = end(b"?#").unwrap_or(rest.len());
        let query_end = end(b"#").unwrap_or(rest.len());
        let (path, query) = (&rest[..path_end], &rest[path_end..query_end]);
        let front = match authority(target) {
            Some(host) => match substitute(self.host.iter().map(|it| &it.0), host) {
                Cow::Owned(changed) => {
                    Cow::Owned([&front[..front.len() - host.len()], &changed].concat())
                }
                Cow::Borrowed(_) => Cow::Borrowed(front),
            },
            None => Cow::Borrowed(front),
        };
        let whole_path: &[u8] = if path.is_empty() { b"/" } else { path };
        let path = match substitute(self.path.iter().map(|it| &it.0), whole_path) {
            Cow::Owned(changed) if changed.first() != Some(&b'/') => {
                Cow::Owned([b"/", &changed[..]].concat())
            }
            Cow::Owned(changed) => Cow::Owned(changed),
            Cow::Borrowed(_) => Cow::Borrowed(path),
        };
        let query = self.query(query);
        if let (Cow::Borrowed(_), Cow::Borrowed(_), Cow::Borrowed(_)) = (&front, &path, &query) {
            return Cow::Borrowed(target);
        }
        Cow::Owned([&front[..], &path, &query, &rest[query_end..]].concat())
    }

    /// `query` begins with `?` unless it is empty.
    fn query<'a>(&self, query: &'a [u8]) -> Cow<'a, [u8]> {
        if self.remove_query.is_empty() && self.set_query.is_empty() {
            return Cow::Borrowed(query);
        }
        let name_of = |pair: &[u8]| -> usize {
            let end = pair.iter().position(|&byte| byte == b'=');
            end.unwrap_or(pair.len())
        };
        let mut pairs: Vec<&[u8]> = match query.split_first() {
            Some((_, pairs)) => pairs.split(|&byte| byte == b'&').collect(),
            None => Vec::new(),
        };
        for removed in &self.remove_query {
            pairs.retain(|pair| &pair[..name_of(pair)] != removed.0.as_bytes());
        }
        for QueryPair { text, name } in &self.set_query {
            let is_it = |pair: &[u8]| pair[..name_of(pair)] == text.as_bytes()[..*name];
            match pairs.iter().position(|pair| is_it(pair)) {
                Some(first) => {
                    pairs[first] = text.as_bytes();
                    let mut index = 0;
                    pairs.retain(|pair| {
                        index += 1;
                        index <= first + 1 || !is_it(pair)
                    });
                }
                None => pairs.push(text.as_bytes()),
            }
        }
        let joined = pairs.join(&b'&');
        if query.get(1..).unwrap_or_default() == joined {
            return Cow::Borrowed(query);
        }
        if pairs.is_empty() {
            return Cow::Owned(Vec::new());
        }
        Cow::Owned([b"?", &joined[..]].concat())
    }
}

fn edited(bytes: &[u8], edits: &[(Range<usize>, Vec<u8>)]) -> Bytes {
    let mut all = BytesMut::with_capacity(bytes.len() + 256);
    let mut copied = 0;
    for (range, replacement) in edits {
        debug_assert!(copied <= range.start);
        all.extend_from_slice(&bytes[copied..range.start]);
        all.extend_from_slice(replacement);
        copied = range.end;
    }
    all.extend_from_slice(&bytes[copied..]);
    all.freeze()
}

/// Owned if something has changed.
pub(super) fn substitute<'a>(
    all: impl Iterator<Item = &'a Substitution>,
    text: &[u8],
) -> Cow<'_, [u8]> {
    let mut now = Cow::Borrowed(text);
    for Substitution { regex, to } in all {
        if let Cow::Owned(changed) = regex.replace_all(&now, to.as_bytes()) {
            now = Cow::Owned(changed);
        }
    }
    if *now == *text {
        return Cow::Borrowed(text);
    }
    now
}

/// `REGEX=>TEXT`: each match is replaced; `$1` or `${name}` in the text is what a group matched, `$$` is `$`.
#[derive(Clone, Debug)]
pub(super) struct Substitution {
    regex: Regex,
    to: String,
}

impl Substitution {
    /// Parses one whose text has only characters that may stand where it goes.
    pub(super) fn parse(text: &str, may_stand: impl Fn(char) -> bool) -> Result<Self, RuleError> {
        let (from, to) = text
            .split_once("=>")
            .ok_or_else(|| RuleError::new("expected REGEX=>TEXT"))?;
        if from.is_empty() {
            return Err(RuleError::new("the regular expression is empty"));
        }
        if let Some(wrong) = to.chars().find(|&c| !may_stand(c)) {
            return Err(RuleError(format!(
                "{wrong:?} cannot stand here; write it percent-encoded"
            )));
        }
        let regex = compile(from)?;
        for group in groups(to) {
            let exists = match group.parse::<usize>() {
                Ok(number) => number < regex.captures_len(),
                Err(_) => regex.capture_names().flatten().any(|name| name == group),
            };
            if !exists {
                return Err(RuleError(format!(
                    "the regular expression has no group '{group}'; '${{1}}x' is the first group and an x, '$$' is a '$'"
                )));
            }
        }
        Ok(Self {
            regex,
            to: to.to_owned(),
        })
    }
}

/// Whether a character is printable ASCII and none of `forbidden`.
fn graphic_but(forbidden: &str) -> impl Fn(char) -> bool {
    move |c| c.is_ascii_graphic() && !forbidden.contains(c)
}

/// The groups that a replacement speaks of, as the regex crate reads it.
fn groups(text: &str) -> Vec<&str> {
    let mut groups = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            rest = behind;
        } else if let Some((group, behind)) =
            rest.strip_prefix('{').and_then(|it| it.split_once('}'))
        {
            groups.push(group);
            rest = behind;
        } else {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            if end > 0 {
                groups.push(&rest[..end]);
            }
        }
    }
    groups
}

/// A substitution in a path.
#[derive(Clone, Debug)]
pub struct PathSubstitution(Substitution);

impl FromStr for PathSubstitution {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Substitution::parse(text, graphic_but("?#")).map(Self)
    }
}

/// A substitution in a host, port included.
#[derive(Clone, Debug)]
pub struct HostSubstitution(Substitution);

impl FromStr for HostSubstitution {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Substitution::parse(text, graphic_but("/?#@")).map(Self)
    }
}

/// The name of a query parameter, as it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryName(String);

impl FromStr for QueryName {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.contains('=') || !may_stand_in_query(text) {
            return Err(RuleError::new(
                "expected a name, percent-encoded as it is sent",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// `NAME=VALUE`, as it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryPair {
    text: String,
    /// The length of the name.
    name: usize,
}

impl FromStr for QueryPair {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.find('=') {
            Some(name) if name > 0 && may_stand_in_query(text) => Ok(Self {
                text: text.to_owned(),
                name,
            }),
            _ => Err(RuleError::new(
                "expected NAME=VALUE, both percent-encoded as they are sent",
            )),
        }
    }
}

fn may_stand_in_query(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'&' && byte != b'#')
}

/// `NAME: VALUE`; not one that frames the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    name: FieldName,
    value: String,
}

impl Field {
    /// `Authorization` by name and password (RFC 7617).
    ///
    /// # Errors
    /// When there is no colon between them.
    pub fn basic_auth(user_and_password: &str) -> Result<Self, RuleError> {
        if !user_and_password.contains(':') {
            return Err(RuleError::new("expected USER:PASSWORD"));
        }
        format!(
            "Authorization: Basic {}",
            STANDARD.encode(user_and_password)
        )
        .parse()
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &FieldName {
        &self.name
    }

    fn write(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(format!("{}: {}\r\n", self.name, self.value).as_bytes());
    }
}

impl FromStr for Field {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text
            .split_once(':')
            .ok_or_else(|| RuleError::new("expected 'NAME: VALUE'"))?;
        let name = changeable(name)?;
        let value = value.trim();
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(RuleError::new("a value has no control characters"));
        }
        Ok(Self {
            name,
            value: value.to_owned(),
        })
    }
}

/// The name of a field that may be changed without making another message of it.
///
/// # Errors
/// That it is no name, or frames the message.
pub fn changeable(name: &str) -> Result<FieldName, RuleError> {
    let name: FieldName = name
        .parse()
        .map_err(|error: crate::http1::FieldNameError| RuleError(error.to_string()))?;
    for framing in ["content-length", "transfer-encoding"] {
        if name.is(framing.as_bytes()) {
            return Err(RuleError(format!(
                "{name} says where the body ends, so it stays as it is"
            )));
        }
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;

    fn all<T: FromStr<Err = RuleError>>(texts: &[&str]) -> Vec<T> {
        texts.iter().map(|text| text.parse().expect(text)).collect()
    }

    fn rewritten(rewrite: &Rewrite, head: &str) -> String {
        let request = request(head, "");
        let changed = rewrite.apply(&request).expect("a request");
        let head = &changed.as_ref().unwrap_or(&request).head;
        String::from_utf8(head.bytes().to_vec()).expect("text")
    }

    #[test]
    fn targets() {
        for (path, remove, set, target, expected) in [
            (
                &["^/v1/=>/v2/"][..],
                &[][..],
                &[][..],
                "/v1/v1/x?a=/v1/",
                "/v2/v1/x?a=/v1/",
            ),
            (
                &["/(\\w+)/(\\w+)=>/$2/${1}s"],
                &[],
                &[],
                "/a/b?c",
                "/b/as?c",
            ),
            (&["^/a=>"], &[], &[], "/a?x", "/?x"),
            (&["^/a/=>"], &[], &[], "/a/b", "/b"),
            (&["a=>b", "b=>$$"], &[], &[], "/a", "/$"),
            (&["^/$=>/root"], &[], &[], "http://h?q", "http://h/root?q"),
            (&["^/x=>/y"], &[], &[], "http://h?q", "http://h?q"),
            (&[".*=>/y"], &[], &["a=1"], "*", "*"),
            (&[".*=>/y"], &[], &["a=1"], "h:443", "h:443"),
            (&[], &["a"], &[], "/?a=1&b=2&a=3&a", "/?b=2"),
            (&[], &["a"], &[], "/?a=1", "/"),
            (&[], &["a"], &[], "/?b=1&&c", "/?b=1&&c"),
            (&[], &["a"], &[], "/", "/"),
            (&[], &[], &["a=9"], "/", "/?a=9"),
            (&[], &[], &["a=9"], "/?", "/?&a=9"),
            (&[], &[], &["a=9"], "/?b&a=1&c&a=2#f?a", "/?b&a=9&c#f?a"),
            (&[], &[], &["a=1"], "/?a=1", "/?a=1"),
            (&[], &["a"], &["a=1"], "/?a=2&b", "/?b&a=1"),
        ] {
            let rewrite = Rewrite {
                path: all(path),
                remove_query: all(remove),
                set_query: all(set),
                ..Rewrite::default()
            };
            let head = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut expected = head(expected);
            if target == "/?" {
                // An empty query has one empty pair.
                expected = head("/?&a=9");
            }
            assert_eq!(rewritten(&rewrite, &head(target)), expected);
        }
    }

    #[test]
    fn hosts() {
        let rewrite = Rewrite {
            host: all(&["^([^.]+)\\.example=>$1.test"]),
            ..Rewrite::default()
        };
        for (head, expected) in [
            (
                "GET / HTTP/1.1\r\nhOST:  a.example:81 \r\n\r\n",
                "GET / HTTP/1.1\r\nhOST:  a.test:81 \r\n\r\n",
            ),
            ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"),
            (
                "GET http://u@a.example/x HTTP/1.1\r\nHost: other\r\n\r\n",
                "GET http://u@a.test/x HTTP/1.1\r\nHost: other\r\n\r\n",
            ),
        ] {
            assert_eq!(rewritten(&rewrite, head), expected);
        }
    }

    #[test]
    fn fields_keep_order_case_and_duplicates() {
        let rewrite = Rewrite {
            remove_header: vec![changeable("x-gone").expect("a name")],
            set_header: all(&["x-set: early", "X-SET: new", "X-New: 1", "x-gone: back"]),
            add_header: all(&["X-Dup: 3", "X-Empty:"]),
            ..Rewrite::default()
        };
        let head = "gEt  /a HTTP/1.1\nx-Dup:1\r\nX-Gone: 1\r\n folded\r\nx-Set:   old \r\nX-DUP: 2\r\nX-SET: too\r\nX-GONE: 2\n\r\n";
        let expected = "gEt  /a HTTP/1.1\nx-Dup:1\r\nx-Set:   new \r\nX-DUP: 2\r\nX-New: 1\r\nx-gone: back\r\nX-Dup: 3\r\nX-Empty: \r\n\r\n";
        assert_eq!(rewritten(&rewrite, head), expected);
    }

    #[test]
    fn the_length_follows_the_body_and_nothing_else_does() {
        let rewrite = Rewrite {
            body: BodyRewrite {
                text: vec!["b=>longer".parse().expect("a rule")],
                ..BodyRewrite::default()
            },
            set_header: all(&["X-Set: 1"]),
            ..Rewrite::default()
        };
        let head = "POST / HTTP/1.1\r\ncontent-LENGTH:  3 \r\nX-Set: 0\r\n\r\n";
        let changed = rewrite.apply(&request(head, "abc")).expect("a request");
        let changed = changed.expect("changed");
        assert_eq!(
            changed.head.bytes()[..],
            *b"POST / HTTP/1.1\r\ncontent-LENGTH:  8 \r\nX-Set: 1\r\n\r\n"
        );
        assert_eq!(changed.body.wire[..], *b"alongerc");
        assert_eq!(changed.body.framing, Framing::Length(8));
        let unread = request(&head.replace("X-Set", "Content-Encoding"), "abc");
        assert_eq!(
            rewrite.apply(&unread).err(),
            Some(Reason::BodyNotRewritable)
        );
    }

    #[test]
    fn basic_auth() {
        let field = Field::basic_auth("Aladdin:open sesame").expect("a field");
        let rewrite = Rewrite {
            set_header: vec![field],
            ..Rewrite::default()
        };
        let head = "GET / HTTP/1.1\r\nauthorization: Bearer x\r\n\r\n";
        assert_eq!(
            rewritten(&rewrite, head),
            "GET / HTTP/1.1\r\nauthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
        assert!(Field::basic_auth("nobody").is_err());
    }

    #[test]
    fn nothing_asked_nothing_changed() {
        let rewrite = Rewrite::default();
        assert!(rewrite.is_nothing());
        let request = request("GET /?& HTTP/1.1\r\nX:  1\r\n\r\n", "");
        assert!(matches!(rewrite.apply(&request), Ok(None)));
    }

    #[test]
    fn wrong_rules_say_what_is_wrong() {
        let path = |text: &str| text.parse::<PathSubstitution>().err();
        for (text, words) in [
            ("/a", "REGEX=>TEXT"),
            ("=>/a", "empty"),
            ("(=>/a", "not a regular expression"),
            ("/a=>/b?c", "'?'"),
            ("/a=>/b c", "' '"),
            ("/(a)=>/$2", "no group '2'"),
            ("/(a)=>/$1x", "no group '1x'"),
            ("/(?<n>a)=>/${m}", "no group 'm'"),
        ] {
            let error = path(text).expect(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(path("/(?<n>a)=>/${n}$1$0$$").is_none());
        for wrong in [
            "X",
            ": v",
            "a b: v",
            "X: a\rb",
            "Content-Length: 1",
            "transfer-encoding: x",
        ] {
            assert!(wrong.parse::<Field>().is_err(), "{wrong}");
        }
        for wrong in ["", "a", "=v", "a=b c", "a=b&c=d", "a=#"] {
            assert!(wrong.parse::<QueryPair>().is_err(), "{wrong}");
        }
        for wrong in ["", "a=b", "a b"] {
            assert!(wrong.parse::<QueryName>().is_err(), "{wrong}");
        }
    }
}
