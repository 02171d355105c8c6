//! Values that differ between two answers by their nature, not because a version is wrong.
//!
//! Two values are noise when both are of the same class. Of classes that say a moment, the two moments must also lie as far
//! apart as the answers do, or less: two answers that each say "now" are noise, two birthdays are not. And what the client
//! itself had sent is never noise: a version that gives back another id than it was asked for is wrong.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use memchr::memmem;

use crate::exchange::{Request, Response};
use crate::time::{Timestamp, rfc3339};

/// What has to be known to tell noise from a difference.
pub(super) struct Noise<'a> {
    request: &'a Request,
    /// When each version answered, in nanoseconds since 1970.
    v1: i128,
    v2: i128,
}

impl<'a> Noise<'a> {
    pub(super) fn new(request: &'a Request, v1: &Response, v2: &Response) -> Self {
        let nanos = |time: Timestamp| i128::from(time.as_nanos());
        Self {
            request,
            v1: nanos(v1.first_byte),
            v2: nanos(v2.first_byte),
        }
    }

    /// Whether two different texts, of a field whose last name is `name`, are noise: as a whole, or because each piece in
    /// which they differ is.
    pub(super) fn texts(&self, name: &str, v1: &str, v2: &str) -> bool {
        if v1.len() > LONGEST || v2.len() > LONGEST || self.was_sent(v1) {
            return false;
        }
        if self.is_pair(v1, v2) || is_id_name(name) && are_alike(v1, v2) {
            return true;
        }
        let (mut ones, mut twos) = (pieces(v1), pieces(v2));
        let mut count = 0;
        loop {
            match (ones.next(), twos.next()) {
                // A text of one piece was looked at already.
                (None, None) => return count > 1,
                (Some(one), Some(two)) if one == two => {}
                (Some(one), Some(two)) if !self.was_sent(one) && self.is_pair(one, two) => {}
                _ => return false,
            }
            count += 1;
        }
    }

    /// Whether two different numbers, as JSON writes them, are noise.
    pub(super) fn numbers(&self, name: &str, v1: &str, v2: &str) -> bool {
        !self.was_sent(v1)
            && (self.are_moments_as_numbers(v1, v2) || is_id_name(name) && are_alike(v1, v2))
    }

    pub(super) fn was_sent(&self, value: &str) -> bool {
        let value = value.as_bytes();
        value.len() >= SHORTEST_SENT
            && (memmem::find(self.request.head.target(), value).is_some()
                || memmem::find(&self.request.body.wire, value).is_some())
    }

    fn is_pair(&self, v1: &str, v2: &str) -> bool {
        if is_unset(v1) || is_unset(v2) {
            return false;
        }
        if let (Some(one), Some(two)) = (Moment::of(v1), Moment::of(v2)) {
            return one.form == two.form && self.are_near(&one, &two);
        }
        is_uuid(v1) && is_uuid(v2)
            || is_jwt(v1) && is_jwt(v2)
            || is_trace_parent(v1) && is_trace_parent(v2)
            || self.are_moments_as_numbers(v1, v2)
    }

    /// Whether two moments lie as far apart as the answers, or less.
    fn are_near(&self, one: &Moment, two: &Moment) -> bool {
        if one.form == Form::Day {
            // A day says little: only today's is noise, and only around midnight.
            let is_today = |moment: &Moment, at: i128| (moment.nanos - at).abs() <= 2 * DAY;
            if !is_today(one, self.v1) || !is_today(two, self.v2) {
                return false;
            }
        }
        let lag = self.v2 - self.v1;
        let apart = two.nanos - one.nanos;
        let slack = SLACK + one.form.resolution();
        if one.form == Form::Clock {
            let apart = apart.rem_euclid(DAY);
            let lag = lag.rem_euclid(DAY);
            return apart <= lag + slack || apart >= DAY - slack;
        }
        apart >= lag.min(0) - slack && apart <= lag.max(0) + slack
    }

    /// Seconds, milli-, micro- or nanoseconds since 1970, or numbers that hold milliseconds above 22 bits of something else.
    fn are_moments_as_numbers(&self, v1: &str, v2: &str) -> bool {
        let (whole1, fraction1) = v1.split_once('.').unwrap_or((v1, ""));
        let (whole2, fraction2) = v2.split_once('.').unwrap_or((v2, ""));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if ![whole1, whole2, fraction1, fraction2]
            .into_iter()
            .all(all_digits)
            || whole1.len() > 19
            || whole2.len() > 19
        {
            return false;
        }
        let (Ok(one), Ok(two)) = (whole1.parse::<u64>(), whole2.parse::<u64>()) else {
            return false;
        };
        let unit: i128 = match (whole1.len(), whole2.len()) {
            (10, 10) => 1_000_000_000,
            (13, 13) => 1_000_000,
            (16, 16) => 1_000,
            (19, 19) => 1,
            _ => 0,
        };
        let moment = |number: u64, unit: i128| Moment {
            form: Form::Number,
            nanos: i128::from(number) * unit,
        };
        let is_plausible = |moment: &Moment, at: i128| (moment.nanos - at).abs() <= 10 * 366 * DAY;
        if unit > 0 {
            let (one, two) = (moment(one, unit), moment(two, unit));
            if is_plausible(&one, self.v1)
                && is_plausible(&two, self.v2)
                && self.are_near(&one, &two)
            {
                return true;
            }
        }
        // Snowflake identifiers: the moment they count from is everybody's own.
        let is_snowflake = |text: &str| (17..=19).contains(&text.len());
        fraction1.is_empty()
            && fraction2.is_empty()
            && is_snowflake(whole1)
            && is_snowflake(whole2)
            && self.are_near(&moment(one >> 22, 1_000_000), &moment(two >> 22, 1_000_000))
    }
}

/// The class of a value that is noise beside another one of its class, for putting values into an order-free form.
pub(super) fn class(text: &str) -> Option<&'static str> {
    if text.len() > LONGEST {
        None
    } else if Moment::of(text).is_some() {
        Some("moment")
    } else if is_uuid(text) {
        Some("uuid")
    } else if is_jwt(text) {
        Some("jwt")
    } else if is_trace_parent(text) {
        Some("trace")
    } else {
        None
    }
}

/// Whether a text is an identifier by its form alone: a number, a UUID, a ULID, an object id, a hash, a token.
pub(crate) fn is_identifier(text: &str) -> bool {
    let bytes = text.as_bytes();
    let all_hex = || bytes.iter().all(u8::is_ascii_hexdigit);
    let has_digit = || bytes.iter().any(u8::is_ascii_digit);
    match bytes.len() {
        0 => return false,
        _ if bytes.iter().all(u8::is_ascii_digit) => return true,
        16 | 24 | 32 | 40 | 64 | 96 | 128 if all_hex() && has_digit() => return true,
        8..=128 if all_hex() && bytes.iter().filter(|byte| byte.is_ascii_digit()).count() > 2 => {
            return true;
        }
        _ => {}
    }
    is_uuid(text) || ulid(text).is_some() || ksuid(text).is_some() || is_jwt(text)
}

/// Whether a text is a date, with or without a time of day.
pub(crate) fn is_date(text: &str) -> bool {
    Moment::of(text).is_some_and(|moment| matches!(moment.form, Form::Day | Form::Text(_)))
}

/// A moment that a text says.
struct Moment {
    form: Form,
    nanos: i128,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A day and a time; so many digits of a second.
    Text(Resolution),
    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    Http,
    Day,
    /// A time of day.
    Clock,
    Number,
    Ulid,
    Ksuid,
    ObjectId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Resolution {
    Second,
    Finer,
}

impl Form {
    const fn resolution(self) -> i128 {
        match self {
            Self::Day => DAY,
            _ => 1_000_000_000,
        }
    }
}

impl Moment {
    fn of(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (form, nanos) = match bytes {
            [_, _, _, _, b'-', _, _, b'-', _, _] => {
                (Form::Day, moment(&format!("{text}T00:00:00Z"))?)
            }
            [_, _, _, _, b'-', _, _, b'-', _, _, b'T' | b't' | b' ', ..] if bytes.len() <= 40 => {
                let form = Form::Text(if text.contains('.') {
                    Resolution::Finer
                } else {
                    Resolution::Second
                });
                // Without a zone it is somebody's local time, the same for both versions.
                let nanos = moment(text).or_else(|| moment(&format!("{text}Z")))?;
                (form, nanos)
            }
            [_, _, b':', _, _, b':', _, _, ..] if bytes.len() <= 18 => {
                (Form::Clock, moment(&format!("2000-01-01T{text}Z"))?)
            }
            _ if bytes.len() == 29 && text.ends_with(" GMT") => (Form::Http, http_date(text)?),
            _ if bytes.len() == 26 => (Form::Ulid, i128::from(ulid(text)?) * 1_000_000),
            _ if bytes.len() == 27 => (Form::Ksuid, i128::from(ksuid(text)?) * 1_000_000_000),
            _ if bytes.len() == 24 => {
                (Form::ObjectId, i128::from(object_id(text)?) * 1_000_000_000)
            }
            _ => return None,
        };
        Some(Self { form, nanos })
    }
}

fn moment(text: &str) -> Option<i128> {
    rfc3339::parse(text).map(|time| i128::from(time.as_nanos()))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
pub(super) fn http_date(text: &str) -> Option<i128> {
    let (_, rest) = text.split_once(", ")?;
    let mut parts = rest.split(' ');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let clock = parts.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    moment(&format!("{year}-{month:02}-{day}T{clock}Z"))
}

/// 8-4-4-4-12 hexadecimal digits (RFC 9562 §4).
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// The milliseconds in a ULID: 26 digits of Crockford's base 32, of which the first ten are the time.
fn ulid(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() != 26 || bytes[0] > b'7' {
        return None;
    }
    let digit = |byte: &u8| {
        CROCKFORD
            .iter()
            .position(|it| it.eq_ignore_ascii_case(byte))
    };
    bytes
        .iter()
        .all(|byte| digit(byte).is_some())
        .then_some(())?;
    bytes[..10]
        .iter()
        .try_fold(0, |time, byte| Some(time << 5 | digit(byte)? as u64))
}

/// The second in a KSUID: 27 digits of base 62, whose first four bytes are seconds since 2014.
fn ksuid(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() != 27 || !bytes.iter().any(u8::is_ascii_digit) {
        return None;
    }
    let mut number = [0u8; 20];
    for byte in bytes {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return None,
        };
        let mut carry = u16::from(digit);
        for place in number.iter_mut().rev() {
            carry += u16::from(*place) * 62;
            *place = (carry & 255) as u8;
            carry >>= 8;
        }
        if carry > 0 {
            return None;
        }
    }
    let (seconds, _) = number.split_first_chunk::<4>()?;
    Some(u64::from(u32::from_be_bytes(*seconds)) + 1_400_000_000)
}

/// The second in an object id as document stores make them: 24 hexadecimal digits, of which the first eight are the time.
fn object_id(text: &str) -> Option<u64> {
    let is_hex = text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(&text[..8], 16).ok())?
}

/// Three parts of base64url, the first of which begins a JSON object (RFC 7519 §3).
fn is_jwt(text: &str) -> bool {
    let mut parts = text.split('.');
    let (Some(head), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_base64 = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    head.starts_with("eyJ")
        && is_base64(head)
        && claims.starts_with("eyJ")
        && is_base64(claims)
        && is_base64(signature)
        && URL_SAFE_NO_PAD
            .decode(head)
            .is_ok_and(|head| head.starts_with(b"{\""))
}

/// W3C Trace Context: version, trace, parent, flags.
fn is_trace_parent(text: &str) -> bool {
    text.len() == 55
        && text.bytes().enumerate().all(|(at, byte)| match at {
            2 | 35 | 52 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Whether a field of this name holds something that is new for each request, whatever it looks like.
pub(super) fn is_id_name(name: &str) -> bool {
    let mut plain = [0; 24];
    let mut length = 0;
    for byte in name.bytes().filter(u8::is_ascii_alphanumeric) {
        if length == plain.len() {
            return false;
        }
        plain[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    let plain = &plain[..length];
    ID_NAMES
        .iter()
        .any(|known| plain.ends_with(known.as_bytes()))
}

/// Whether nobody has drawn it: nothing, or zeros alone, such as the nil UUID (RFC 9562 §5.9).
fn is_unset(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0' | b'-'))
}

/// Whether two identifiers were made in the same way, as far as one can see.
fn are_alike(v1: &str, v2: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    !is_unset(v1) && !is_unset(v2) && v1.len().abs_diff(v2.len()) <= 2 && is_hex(v1) == is_hex(v2)
}

/// The parts of a text between what separates values in URLs, lists and sentences.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| {
        c.is_ascii_whitespace()
            || matches!(
                c,
                '/' | '?'
                    | '&'
                    | '='
                    | ','
                    | ';'
                    | '"'
                    | '\''
                    | '<'
                    | '>'
                    | '('
                    | ')'
                    | '['
                    | ']'
                    | '{'
                    | '}'
                    | '|'
                    | '#'
            )
    })
}

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Ends of names, in lower case and without separators.
const ID_NAMES: [&str; 15] = [
    "requestid",
    "correlationid",
    "traceid",
    "spanid",
    "traceparent",
    "tracestate",
    "csrftoken",
    "xsrftoken",
    "csrf",
    "csrfmiddlewaretoken",
    "authenticitytoken",
    "requestverificationtoken",
    "nonce",
    "requestuuid",
    "eventid",
];

const DAY: i128 = 86_400 * 1_000_000_000;

/// How much farther apart two moments may be than the answers: something that both versions stored earlier was stored with
/// the delay of then, not of now.
const SLACK: i128 = 5_000_000_000;

/// Longer texts are no identifiers, and hold few that matter.
const LONGEST: usize = 4096;

/// A shorter value may stand in a request by accident.
const SHORTEST_SENT: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::tests::{answer_at, request};
    use super::*;
    use proptest::prelude::*;

    const V1: u64 = 1_795_381_446_000_000_000; // 2026-11-22T21:04:06Z

    fn is_noise(request: &Request, lag: u64, v1: &str, v2: &str) -> bool {
        let ones = answer_at(V1, "");
        let twos = answer_at(V1 + lag, "");
        Noise::new(request, &ones, &twos).texts("x", v1, v2)
    }

    #[test]
    fn values_of_one_class_are_noise() {
        let request = request("GET /a HTTP/1.1\r\n\r\n", "");
        for (v1, v2) in [
            ("2026-11-22T21:04:06Z", "2026-11-22T21:04:07Z"),
            (
                "2026-11-22T21:04:06.123+00:00",
                "2026-11-22T22:04:06.456789+01:00",
            ),
            ("2026-11-22 21:04:06", "2026-11-22 21:04:07"),
            ("2026-11-23T21:04:06Z", "2026-11-23T21:04:07Z"),
            ("2026-11-22", "2026-11-23"),
            ("21:04:06", "21:04:08.5"),
            ("23:59:59", "00:00:01"),
            (
                "Sun, 22 Nov 2026 21:04:06 GMT",
                "Sun, 22 Nov 2026 21:04:09 GMT",
            ),
            (
                "6b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1",
                "0fd4cbf0-1111-4a4e-8b8e-8b1bc1d9d9a2",
            ),
            ("01KAQH8Y6G0000000000000000", "01KAQH8Z6GZZZZZZZZZZZZZZZZ"),
            ("69222a26aaaaaaaaaaaaaaaa", "69222a28bbbbbbbbbbbbbbbb"),
            (
                "eyJhbGciOiJIUzI1NiJ9.eyJpYXQiOjF9.abc",
                "eyJhbGciOiJIUzI1NiJ9.eyJpYXQiOjJ9.def-_",
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "00-5bf92f3577b34da6a3ce929d0e0e4736-10f067aa0ba902b7-00",
            ),
            ("1795381446", "1795381448"),
            ("1795381446123", "1795381448000"),
            ("1300000000000000000", "1300000004194304000"),
            (
                "https://shop/orders/6b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1?at=2026-11-22",
                "https://shop/orders/7b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1?at=2026-11-22",
            ),
            (
                "made at 2026-11-22 21:04:06 by a",
                "made at 2026-11-22 21:04:07 by a",
            ),
        ] {
            assert!(is_noise(&request, 0, v1, v2), "{v1} {v2}");
        }
    }

    #[test]
    fn other_values_are_not() {
        let request = request("GET /a HTTP/1.1\r\n\r\n", "");
        for (v1, v2) in [
            ("1980-05-01", "1981-05-01"),
            ("2024-05-01T10:00:00Z", "2024-05-01T11:00:00Z"),
            ("2026-11-22T21:04:06Z", "now"),
            ("tea", "coffee"),
            ("10:00:00", "11:00:00"),
            ("6b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1", "nothing"),
            ("1795381446", "1695381446"),
            ("1234567890", "1234567891234"),
            ("1000000001", "1000000002"),
            ("a b", "a c"),
            ("", "x"),
            (
                "6b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1",
                "00000000-0000-0000-0000-000000000000",
            ),
            ("https://shop/a/1", "https://shop/a/2"),
        ] {
            assert!(!is_noise(&request, 0, v1, v2), "{v1} {v2}");
        }
    }

    #[test]
    fn a_recording_is_older_than_its_replay() {
        let request = request("GET /a HTTP/1.1\r\n\r\n", "");
        let year = 365 * 86_400 * 1_000_000_000;
        let (v1, v2) = ("2026-11-22T21:04:06Z", "2027-11-22T21:04:06Z");
        assert!(is_noise(&request, year, v1, v2));
        assert!(!is_noise(&request, 0, v1, v2));
    }

    #[test]
    fn what_was_asked_for_is_not_noise() {
        let (v1, v2) = (
            "6b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1",
            "0fd4cbf0-1111-4a4e-8b8e-8b1bc1d9d9a2",
        );
        let asked = request(&format!("GET /orders/{v1} HTTP/1.1\r\n\r\n"), "");
        assert!(!is_noise(&asked, 0, v1, v2));
        let sent = request("POST / HTTP/1.1\r\nContent-Length: 36\r\n\r\n", v1);
        assert!(!is_noise(&sent, 0, v1, v2));
    }

    #[test]
    fn names_make_noise() {
        let request = request("GET /a HTTP/1.1\r\n\r\n", "");
        let (ones, twos) = (answer_at(V1, ""), answer_at(V1, ""));
        let noise = Noise::new(&request, &ones, &twos);
        assert!(noise.texts("requestId", "a1b2", "99ff"));
        assert!(noise.texts("X-Correlation-ID", "k3jx", "zz9q"));
        assert!(noise.numbers("request_id", "17", "18"));
        assert!(!noise.texts("requestId", "a1b2", ""));
        assert!(!noise.texts("requestId", "a1b2", "0000"));
        assert!(!noise.numbers("eventId", "17", "0"));
        assert!(!noise.texts("name", "a1b2", "99ff"));
        assert!(!noise.numbers("count", "17", "18"));
    }

    #[test]
    fn identifiers_by_their_form() {
        for id in [
            "0",
            "17",
            "6b5cbf0e-5fd4-4a4e-8b8e-8b1bc1d9d9a1",
            "01KAQH8Y6G0000000000000000",
            "69222a26aaaaaaaaaaaaaaaa",
            "d41d8cd98f00b204e9800998ecf8427e",
            "deadbeef123",
            "0ujtsYcgvSTl8PAuAdqWYSMnLOv",
        ] {
            assert!(is_identifier(id), "{id}");
        }
        for word in [
            "", "orders", "v2", "feed", "deadbeef", "a1", "item-17", "defaced",
        ] {
            assert!(!is_identifier(word), "{word}");
        }
        assert_eq!(ksuid("0ujtsYcgvSTl8PAuAdqWYSMnLOv"), Some(1_507_608_047));
        assert!(is_date("2026-11-22") && is_date("2026-11-22T21:04:06Z") && !is_date("21:04:06"));
    }

    proptest! {
        #[test]
        fn nothing_panics(v1 in any::<String>(), v2 in any::<String>(), name in any::<String>()) {
            let request = request("GET /a HTTP/1.1\r\n\r\n", "");
            let (ones, twos) = (answer_at(V1, ""), answer_at(V1 + 5, ""));
            let noise = Noise::new(&request, &ones, &twos);
            let _ = noise.texts(&name, &v1, &v2);
            let _ = noise.numbers(&name, &v1, &v2);
            let _ = (class(&v1), is_identifier(&v1), is_date(&v2));
        }

        #[test]
        fn text_like_moments_does_not_panic(v1 in "[0-9:TZ. +-]{1,40}", v2 in "[0-9A-Fa-f:TZ. +,GMT-]{20,40}") {
            let request = request("GET /a HTTP/1.1\r\n\r\n", "");
            let (ones, twos) = (answer_at(V1, ""), answer_at(V1 + 5, ""));
            let _ = Noise::new(&request, &ones, &twos).texts("x", &v1, &v2);
        }
    }
}
