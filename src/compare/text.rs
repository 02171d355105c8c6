//! Bodies that are no JSON: text by lines, anything else by length and digest.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::found::Found;
use super::noise::Noise;
use super::{DifferenceKind, Rules, markup};

/// Finds out how one text differs from another, line by line.
pub(super) fn lines(v1: &str, v2: &str, noise: &Noise<'_>, rules: &Rules, found: &mut Found) {
    let was_sent = |value: &str| noise.was_sent(value);
    let is_same = |one: &str, two: &str| {
        if one == two || noise.texts("", one, two) {
            return true;
        }
        let one = markup::without_tokens(one, was_sent);
        let two = markup::without_tokens(two, was_sent);
        one == two || noise.texts("", &one, &two)
    };
    let ones: Vec<&str> = v1.lines().collect();
    let twos: Vec<&str> = v2.lines().collect();
    if ones.len() != twos.len() {
        // The first line at which they part.
        let at = ones
            .iter()
            .zip(&twos)
            .take_while(|(one, two)| is_same(one, two))
            .count();
        return found.add("body", DifferenceKind::Length, rules, || {
            (Some(line(&ones, at)), Some(line(&twos, at)))
        });
    }
    let differs = |(one, two): &(&&str, &&str)| !is_same(one, two);
    let Some((one, two)) = ones.iter().zip(&twos).find(differs) else {
        return;
    };
    let example = || (Some((*one).to_owned()), Some((*two).to_owned()));
    let (mut sorted_ones, mut sorted_twos) = (ones.clone(), twos.clone());
    sorted_ones.sort_unstable();
    sorted_twos.sort_unstable();
    let kind = if sorted_ones == sorted_twos {
        DifferenceKind::Order
    } else {
        DifferenceKind::Value
    };
    found.add("body", kind, rules, example);
}

/// Adds how bytes differ that are known to.
pub(super) fn bytes(v1: &[u8], v2: &[u8], rules: &Rules, found: &mut Found) {
    let kind = if v1.len() == v2.len() {
        DifferenceKind::Value
    } else {
        DifferenceKind::Length
    };
    found.add("body", kind, rules, || (Some(digest(v1)), Some(digest(v2))));
}

fn line(lines: &[&str], at: usize) -> String {
    match lines.get(at) {
        Some(line) => format!("{} lines; line {}: {line}", lines.len(), at + 1),
        None => format!("{} lines", lines.len()),
    }
}

/// What bytes are called that nobody can read.
pub(super) fn digest(bytes: &[u8]) -> String {
    let mut text = format!("{} bytes, SHA-256 ", bytes.len());
    for byte in Sha256::digest(bytes).iter().take(8) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer_at, request};
    use super::*;

    fn diff(v1: &str, v2: &str) -> Vec<(DifferenceKind, String, String)> {
        let request = request("GET /a HTTP/1.1\r\n\r\n", "");
        let (ones, twos) = (
            answer_at(1_795_381_446_000_000_000, ""),
            answer_at(1_795_381_446_000_000_000, ""),
        );
        let mut found = Found::default();
        lines(
            v1,
            v2,
            &Noise::new(&request, &ones, &twos),
            &Rules::default(),
            &mut found,
        );
        found
            .into_differences()
            .into_iter()
            .map(|it| (it.kind, it.v1.unwrap(), it.v2.unwrap()))
            .collect()
    }

    #[test]
    fn texts() {
        use DifferenceKind::*;
        let text = |kind, one: &str, two: &str| vec![(kind, one.to_owned(), two.to_owned())];
        assert_eq!(diff("a\nb\n", "a\nb"), []);
        assert_eq!(diff("a\r\nb", "a\nb"), []);
        assert_eq!(diff("a\nb\nc", "a\nx\ny"), text(Value, "b", "x"));
        assert_eq!(diff("a\nb", "b\na"), text(Order, "a", "b"));
        assert_eq!(
            diff("a\nb", "a"),
            text(Length, "2 lines; line 2: b", "1 lines")
        );
        assert_eq!(
            diff(
                "made 2026-11-22T21:04:06Z\nb",
                "made 2026-11-22T21:04:07Z\nb"
            ),
            []
        );
    }

    #[test]
    fn tokens_in_pages() {
        let page = |token: &str, price: &str| {
            format!("<p>{price}</p>\n<form><input name=\"csrf_token\" value=\"{token}\"></form>")
        };
        assert_eq!(
            diff(&page("k3J9aQ+/w==", "17"), &page("Zk3J/9aQ2L", "17")),
            []
        );
        assert_eq!(diff(&page("k3J9aQ", "17"), &page("Zk3J9a", "18")).len(), 1);
        assert_eq!(diff(&page("k3J9aQ", "17"), &page("", "17")).len(), 1);
    }

    #[test]
    fn binaries() {
        let diff = |v1: &[u8], v2: &[u8]| {
            let mut found = Found::default();
            bytes(v1, v2, &Rules::default(), &mut found);
            found.into_differences().remove(0)
        };
        assert_eq!(diff(b"\0a", b"\0b").kind, DifferenceKind::Value);
        let shorter = diff(b"\0a", b"\0");
        assert_eq!(shorter.kind, DifferenceKind::Length);
        assert_eq!(
            shorter.v2.as_deref(),
            Some("1 bytes, SHA-256 6e340b9cffb37a98")
        );
    }
}
