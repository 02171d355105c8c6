//! Answers to conditional requests (RFC 9110 §13). What a client asks with, it has from version 1; version 2 may call the same page
//! by another name, and then answers in full, once.

use crate::exchange::{Request, Response};
use crate::http1::Fields;

/// Whether version 1 left out what the client has, or gave the part that it lacks, and version 2 answered in full for no other
/// reason than that its validators are others.
pub(super) fn is_answered_in_full(request: &Request, v1: &Response, v2: &Response) -> bool {
    if v2.head.status() != 200 {
        return false;
    }
    let (asked, given) = (request.head.fields(), v2.head.fields());
    match v1.head.status() {
        // With a tag the date is passed over (§13.1.3).
        304 if asked.get("if-none-match").is_some() => is_other_tag("if-none-match", asked, given),
        304 => is_other_date("if-modified-since", asked, given),
        206 => is_other_tag("if-range", asked, given) || is_other_date("if-range", asked, given),
        _ => false,
    }
}

fn is_other_tag(name: &str, asked: Fields<'_>, given: Fields<'_>) -> bool {
    let Some(given) = given.get("etag").map(tag) else {
        return false;
    };
    let mut tags = asked.elements(name).peekable();
    tags.peek().is_some() && tags.all(|it| it.ends_with(b"\"") && tag(it) != given)
}

fn is_other_date(name: &str, asked: Fields<'_>, given: Fields<'_>) -> bool {
    match (asked.get(name), given.get("last-modified")) {
        (Some(asked), Some(given)) => {
            let (asked, given) = (asked.trim_ascii(), given.trim_ascii());
            !asked.ends_with(b"\"") && asked != given
        }
        _ => false,
    }
}

/// A tag as weak ones are compared (§8.8.3.2).
fn tag(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    value.strip_prefix(b"W/").unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, request};
    use super::super::{Rules, differences};

    fn fields(asked: &str, one: (u16, &str), two: (u16, &str)) -> Vec<String> {
        let request = request(&format!("GET /a HTTP/1.1\r\n{asked}\r\n\r\n"), "");
        let v1 = answer(one.0, one.1, b"");
        let v2 = answer(two.0, two.1, b"page");
        let found = differences(&request, &v1, &v2, &Rules::default()).expect("small");
        found.iter().map(|it| it.field.to_string()).collect()
    }

    #[test]
    fn validators_of_version_1_say_nothing_to_version_2() {
        for (asked, status, given) in [
            ("If-None-Match: \"one\"", 304, "ETag: \"two\"\r\n"),
            (
                "If-None-Match: W/\"one\", \"1\"",
                304,
                "ETag: W/\"two\"\r\n",
            ),
            (
                "If-None-Match: \"one\"\r\nIf-Modified-Since: Sat, 28 Nov 2026 17:00:00 GMT",
                304,
                "ETag: \"two\"\r\nLast-Modified: Sat, 28 Nov 2026 17:00:00 GMT\r\n",
            ),
            (
                "If-Modified-Since: Sat, 28 Nov 2026 17:00:00 GMT",
                304,
                "Last-Modified: Sat, 28 Nov 2026 18:00:00 GMT\r\n",
            ),
            (
                "Range: bytes=0-9\r\nIf-Range: \"one\"",
                206,
                "ETag: \"two\"\r\n",
            ),
            (
                "Range: bytes=0-9\r\nIf-Range: Sat, 28 Nov 2026 17:00:00 GMT",
                206,
                "Last-Modified: Sat, 28 Nov 2026 18:00:00 GMT\r\n",
            ),
        ] {
            let found = fields(asked, (status, ""), (200, given));
            assert!(found.is_empty(), "{asked}: {found:?}");
        }
    }

    #[test]
    fn what_version_2_should_have_known_is_a_difference() {
        let date = "Sat, 28 Nov 2026 17:00:00 GMT";
        let since = format!("If-Modified-Since: {date}");
        let modified = format!("Last-Modified: {date}\r\n");
        for (asked, one, two, given) in [
            // It has the page by that name.
            ("If-None-Match: \"one\"", 304, 200, "ETag: W/\"one\"\r\n"),
            (&since, 304, 200, &modified),
            ("If-None-Match: *", 304, 200, "ETag: \"two\"\r\n"),
            // It has no validators any more.
            ("If-None-Match: \"one\"", 304, 200, ""),
            (&since, 304, 200, ""),
            // Nobody asked for it.
            ("Range: bytes=0-9", 206, 200, "ETag: \"two\"\r\n"),
            ("X: y", 304, 200, "ETag: \"two\"\r\n"),
            ("If-None-Match: \"one\"", 304, 404, "ETag: \"two\"\r\n"),
            ("If-None-Match: \"one\"", 200, 304, "ETag: \"two\"\r\n"),
        ] {
            let found = fields(asked, (one, ""), (two, given));
            assert_eq!(found.first().map(String::as_str), Some("status"), "{asked}");
        }
    }
}
