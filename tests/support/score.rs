//! Scores exchanges that were found against the exchanges that are there.
//!
//! Truth lines have the fields of an exchange and `expect`: `required`, `optional` (either way is right) or `forbidden`
//! (no receiver ever processed it). `variants` are acceptable alternatives, the preferred one first. A field that the
//! truth lacks is not scored.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value};

/// An exchange, found or true: the fields of one JSON line.
pub(crate) type Line = Map<String, Value>;

/// What the comparison of one capture's exchanges came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Score {
    /// How many exchanges must be found.
    pub(crate) required: usize,
    /// How many of those were.
    pub(crate) found: usize,
    /// How many may be found.
    pub(crate) optional: usize,
    /// How many of those were.
    pub(crate) optional_found: usize,
    /// How many were reported in all.
    pub(crate) reported: usize,
    /// How many were reported that are not there, duplicates included.
    pub(crate) invented: usize,
    /// How many were reported that no receiver processed.
    pub(crate) forbidden: usize,
    /// Each thing that is wrong, in words.
    pub(crate) faults: Vec<String>,
    /// The policies of the variants that were matched although it is known that Linux does something else.
    pub(crate) other_policies: Vec<String>,
}

impl Score {
    /// Adds another capture's score.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.required += other.required;
        self.found += other.found;
        self.optional += other.optional;
        self.optional_found += other.optional_found;
        self.reported += other.reported;
        self.invented += other.invented;
        self.forbidden += other.forbidden;
        self.faults.extend(other.faults.iter().cloned());
        self.other_policies
            .extend(other.other_policies.iter().cloned());
    }

    /// Whether everything is right.
    pub(crate) fn perfect(&self) -> bool {
        self.faults.is_empty()
    }

    /// The share of the required exchanges that was found.
    pub(crate) fn recall(&self) -> f64 {
        ratio(self.found, self.required)
    }

    /// The share of the reported exchanges that is there.
    pub(crate) fn precision(&self) -> f64 {
        let good = self.found + self.optional_found;
        ratio(good, good + self.invented + self.forbidden)
    }
}

/// Scores the exchanges found in one capture.
pub(crate) fn score(truth: &[Line], found: &[Line]) -> Score {
    let alternatives: Vec<Vec<Line>> = truth.iter().map(alternatives).collect();
    let mut by_key: HashMap<Key, (Vec<usize>, Vec<usize>)> = HashMap::new();
    for (t, alternatives) in alternatives.iter().enumerate() {
        let mut keys: Vec<Key> = alternatives.iter().map(key).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            by_key.entry(key).or_default().0.push(t);
        }
    }
    for (f, line) in found.iter().enumerate() {
        by_key.entry(key(line)).or_default().1.push(f);
    }

    // Every possible match with its worth: the best ones are taken first, ties in the order of the capture.
    let mut matches = Vec::new();
    for (key_of_group, (truths, founds)) in &by_key {
        for (rank_f, &f) in founds.iter().enumerate() {
            for (rank_t, &t) in truths.iter().enumerate() {
                let best = (0..alternatives[t].len())
                    .filter(|&a| key(&alternatives[t][a]) == *key_of_group)
                    .map(|a| (worth(&verdicts(&alternatives[t][a], &found[f])), Reverse(a)))
                    .max();
                if let Some((worth, Reverse(a))) = best {
                    let expectation = match expect(&truth[t]) {
                        "required" => 1000,
                        "optional" => 500,
                        _ => 0,
                    };
                    let distance = rank_f.abs_diff(rank_t);
                    matches.push((Reverse(expectation + worth), distance, t, f, a));
                }
            }
        }
    }
    matches.sort_unstable();

    let mut matched_truth: Vec<Option<(usize, usize)>> = vec![None; truth.len()];
    let mut matched_found = vec![false; found.len()];
    for (_, _, t, f, a) in matches {
        if matched_truth[t].is_none() && !matched_found[f] {
            matched_truth[t] = Some((f, a));
            matched_found[f] = true;
        }
    }

    let mut result = Score {
        reported: found.len(),
        ..Score::default()
    };
    for (t, line) in truth.iter().enumerate() {
        let expect = expect(line);
        result.required += usize::from(expect == "required");
        result.optional += usize::from(expect == "optional");
        let Some((f, a)) = matched_truth[t] else {
            if expect == "required" {
                result.faults.push(format!("missed {}", name(line)));
            }
            continue;
        };
        match expect {
            "required" => result.found += 1,
            "optional" => result.optional_found += 1,
            _ => {
                result.forbidden += 1;
                result
                    .faults
                    .push(format!("reported what was never served: {}", name(line)));
                continue;
            }
        }
        let policy = |a: usize| {
            let policy = alternatives[t][a].get("policy");
            policy.map_or_else(String::new, Value::to_string)
        };
        // Where it is known what the receiving kernel does, nothing else will do.
        let known = (0..alternatives[t].len()).any(|a| policy(a).contains("linux"));
        if known && !policy(a).contains("linux") {
            result.other_policies.push(policy(a));
        }
        for (field, verdict) in verdicts(&alternatives[t][a], &found[f]) {
            if verdict != Verdict::Right && verdict != Verdict::Absent {
                result
                    .faults
                    .push(format!("{field} {verdict:?} of {}", name(line)));
            }
        }
    }
    let mut allowed: HashMap<usize, u64> = HashMap::new();
    for (f, line) in found.iter().enumerate() {
        if matched_found[f] {
            continue;
        }
        let same = by_key
            .get(&key(line))
            .map_or(&[][..], |(truths, _)| truths)
            .iter()
            .copied()
            .filter(|&t| matched_truth[t].is_some());
        let mut tolerated = false;
        let mut duplicate = false;
        for t in same {
            duplicate = true;
            let spare = truth[t]
                .get("max_count")
                .and_then(Value::as_u64)
                .unwrap_or(1)
                - 1;
            let used = allowed.entry(t).or_default();
            if *used < spare {
                *used += 1;
                tolerated = true;
                break;
            }
        }
        if !tolerated {
            result.invented += 1;
            let what = if duplicate {
                "reported again"
            } else {
                "invented"
            };
            result.faults.push(format!("{what} {}", name(line)));
        }
    }
    result
}

/// Parses JSON lines; panics on a line that is none, since the program promised them.
pub(crate) fn lines(text: &str) -> Vec<Line> {
    text.lines()
        .map(|line| match serde_json::from_str(line) {
            Ok(Value::Object(object)) => object,
            other => panic!("not a JSON object: {line:?}: {other:?}"),
        })
        .collect()
}

/// How a field of a found exchange stands to the truth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// As it is.
    Right,
    /// Something else.
    Wrong,
    /// Not said.
    Absent,
    /// The body with its chunk framing left on.
    RawFraming,
    /// The body with its content coding taken off.
    Decoded,
    /// The right header fields in another order.
    Unordered,
    /// The header fields with the trailers behind them.
    WithTrailers,
    /// No response where there is one.
    MissingResponse,
    /// Called complete although it is not.
    FalselyComplete,
    /// Called incomplete although it is whole.
    FalselyIncomplete,
}

impl Verdict {
    fn worth(self) -> i64 {
        match self {
            Self::Right => 10,
            Self::WithTrailers => 9,
            Self::Unordered => 8,
            Self::RawFraming | Self::Decoded => 5,
            Self::Absent => 0,
            Self::MissingResponse | Self::FalselyIncomplete => -5,
            Self::Wrong | Self::FalselyComplete => -10,
        }
    }
}

fn worth(verdicts: &[(&str, Verdict)]) -> i64 {
    verdicts
        .iter()
        .map(|(field, verdict)| {
            let weight = match *field {
                "pairing" => 6,
                "request_body" | "response_body" => 3,
                _ => 1,
            };
            verdict.worth() * weight
        })
        .sum()
}

fn verdicts(truth: &Line, found: &Line) -> Vec<(&'static str, Verdict)> {
    let right = |same: bool| {
        if same { Verdict::Right } else { Verdict::Wrong }
    };
    let mut verdicts = Vec::new();
    let response_optional = truth.get("response_optional").is_some_and(is_true);
    let status = present(found, "status");
    if truth.contains_key("status") && !response_optional && present(truth, "method").is_some() {
        let verdict = if status == present(truth, "status") {
            Verdict::Right
        } else if status.is_none() {
            Verdict::MissingResponse
        } else {
            Verdict::Wrong
        };
        verdicts.push(("pairing", verdict));
    }
    if let (Some(Value::String(truth)), Some(Value::String(found))) =
        (present(truth, "version"), present(found, "version"))
    {
        let bare = |version: &str| version.to_ascii_uppercase().replace("HTTP/", "");
        verdicts.push(("version", right(bare(truth) == bare(found))));
    }
    for side in [&REQUEST, &RESPONSE] {
        if side.body == "response_body" && (status.is_none() || response_optional) {
            continue;
        }
        if let (Some(truth_fields), Some(found_fields)) =
            (fields(truth, side.headers), fields(found, side.headers))
        {
            let with_trailers = || {
                fields(truth, side.trailers).is_some_and(|trailers| {
                    [truth_fields.clone(), trailers].concat() == found_fields
                })
            };
            let sorted = |fields: &[(String, String)]| {
                let mut fields = fields.to_vec();
                fields.sort();
                fields
            };
            let verdict = if truth_fields == found_fields {
                Verdict::Right
            } else if with_trailers() {
                Verdict::WithTrailers
            } else if sorted(&truth_fields) == sorted(&found_fields) {
                Verdict::Unordered
            } else {
                Verdict::Wrong
            };
            verdicts.push((side.headers, verdict));
        }
        if let Some(truth_hash) = present(truth, side.hash) {
            let verdict = match present(found, side.hash) {
                None => Verdict::Absent,
                hash if hash == Some(truth_hash) => Verdict::Right,
                hash if hash == present(truth, side.raw_hash) => Verdict::RawFraming,
                hash if hash == present(truth, side.decoded_hash) => Verdict::Decoded,
                Some(_) => Verdict::Wrong,
            };
            verdicts.push((side.body, verdict));
            if let (Some(truth), Some(found)) =
                (present(truth, side.length), present(found, side.length))
            {
                verdicts.push((side.length, right(truth == found)));
            }
        }
        if let (Some(truth), Some(found)) =
            (present(truth, side.complete), present(found, side.complete))
        {
            let verdict = match (is_true(truth), is_true(found)) {
                (false, true) => Verdict::FalselyComplete,
                (true, false) => Verdict::FalselyIncomplete,
                _ => Verdict::Right,
            };
            verdicts.push((side.complete, verdict));
        }
    }
    if let (Some(truth), Some(found)) = (present(truth, "interim"), present(found, "interim")) {
        verdicts.push(("interim", right(truth == found)));
    }
    verdicts
}

/// The names of one side's fields.
struct Side {
    headers: &'static str,
    trailers: &'static str,
    body: &'static str,
    length: &'static str,
    hash: &'static str,
    raw_hash: &'static str,
    decoded_hash: &'static str,
    complete: &'static str,
}

const REQUEST: Side = Side {
    headers: "request_headers",
    trailers: "request_trailers",
    body: "request_body",
    length: "request_body_len",
    hash: "request_body_sha256",
    raw_hash: "request_body_raw_sha256",
    decoded_hash: "request_body_decoded_sha256",
    complete: "request_complete",
};

const RESPONSE: Side = Side {
    headers: "response_headers",
    trailers: "response_trailers",
    body: "response_body",
    length: "response_body_len",
    hash: "response_body_sha256",
    raw_hash: "response_body_raw_sha256",
    decoded_hash: "response_body_decoded_sha256",
    complete: "response_complete",
};

/// What two lines must share to be the same exchange: the ends, and the request line or else the status.
type Key = (String, String, String, String);

fn key(line: &Line) -> Key {
    let text = |name| match line.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let (first, second) = if present(line, "method").is_none() {
        (String::new(), text("status"))
    } else {
        (text("method"), text("target"))
    };
    (end(&text("client")), end(&text("server")), first, second)
}

/// An address in one spelling, IPv4 inside IPv6 as IPv4.
fn end(text: &str) -> String {
    match text.parse::<SocketAddr>() {
        Ok(address) => {
            let ip = match address.ip() {
                IpAddr::V6(ip) => ip.to_canonical(),
                ip @ IpAddr::V4(_) => ip,
            };
            SocketAddr::new(ip, address.port()).to_string()
        }
        Err(_) => text.to_owned(),
    }
}

/// The truth and its variants, each as a full line, the preferred one first.
fn alternatives(truth: &Line) -> Vec<Line> {
    let variants = truth.get("variants").and_then(Value::as_array);
    match variants {
        Some(variants) if !variants.is_empty() => variants
            .iter()
            .filter_map(Value::as_object)
            .map(|variant| {
                let mut line = truth.clone();
                line.extend(variant.clone());
                line
            })
            .collect(),
        _ => vec![truth.clone()],
    }
}

fn expect(truth: &Line) -> &str {
    truth
        .get("expect")
        .and_then(Value::as_str)
        .unwrap_or("required")
}

fn present<'a>(line: &'a Line, name: &str) -> Option<&'a Value> {
    line.get(name).filter(|value| !value.is_null())
}

fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true)
}

/// Header fields with names in lower case, folds read as one blank and outer blanks gone.
fn fields(line: &Line, name: &str) -> Option<Vec<(String, String)>> {
    let fields = present(line, name)?.as_array()?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(
        fields
            .iter()
            .filter_map(Value::as_array)
            .map(|pair| {
                let name = text(pair.first()).trim().to_lowercase();
                (name, unfolded(&text(pair.get(1))))
            })
            .collect(),
    )
}

fn unfolded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '\r' && c != '\n' {
            out.push(c);
            continue;
        }
        let mut breaks = String::from(c);
        while let Some(c) = rest.next_if(|c| matches!(c, '\r' | '\n')) {
            breaks.push(c);
        }
        if rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {
            while rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
            out.push(' ');
        } else {
            out.push_str(&breaks);
        }
    }
    out.trim_matches([' ', '\t', '\r', '\n']).to_owned()
}

fn name(line: &Line) -> String {
    let short = |name| {
        let text = match line.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => "-".to_owned(),
        };
        text.chars().take(80).collect::<String>()
    };
    format!(
        "{} {} -> {} ({} to {})",
        short("method"),
        short("target"),
        short("status"),
        short("client"),
        short("server")
    )
}

#[expect(clippy::cast_precision_loss, reason = "counts of exchanges")]
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        1.0
    } else {
        part as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(value: Value) -> Line {
        value.as_object().expect("an object").clone()
    }

    fn truth() -> Line {
        line(serde_json::json!({
            "expect": "required", "client": "10.0.0.2:4000", "server": "10.0.0.1:80",
            "method": "GET", "target": "/a", "version": "HTTP/1.1", "request_headers": [["Host", "x"]],
            "request_body_len": 0, "request_body_sha256": "00", "request_complete": true,
            "status": 200, "response_headers": [["A", "1"], ["B", "2"]],
            "response_body_len": 3, "response_body_sha256": "11", "response_complete": true, "interim": [100],
        }))
    }

    fn changed(name: &str, value: Value) -> Line {
        let mut line = truth();
        line.remove("expect");
        line.insert(name.to_owned(), value);
        line
    }

    #[test]
    fn an_equal_line_is_perfect_whatever_the_spelling() {
        for found in [
            changed("version", "1.1".into()),
            changed("request_headers", serde_json::json!([["HOST", " x"]])),
            changed("client", "[::ffff:10.0.0.2]:4000".into()),
        ] {
            let score = score(&[truth()], &[found]);
            assert!(score.perfect(), "{score:?}");
            assert_eq!((score.found, score.invented), (1, 0));
        }
    }

    #[test]
    fn every_wrong_field_is_a_fault() {
        for (name, value) in [
            ("status", 404.into()),
            ("status", Value::Null),
            ("version", "HTTP/1.0".into()),
            ("request_headers", serde_json::json!([])),
            (
                "response_headers",
                serde_json::json!([["B", "2"], ["A", "1"]]),
            ),
            ("request_body_sha256", "22".into()),
            ("response_body_sha256", "22".into()),
            ("response_body_len", 4.into()),
            ("request_complete", false.into()),
            ("response_complete", false.into()),
            ("interim", serde_json::json!([])),
        ] {
            let score = score(&[truth()], &[changed(name, value)]);
            assert!(!score.perfect(), "{name}");
            assert_eq!(score.found, 1, "{name}");
        }
    }

    #[test]
    fn missed_invented_repeated_and_forbidden_are_faults() {
        let found = || changed("version", "HTTP/1.1".into());
        assert_eq!(score(&[truth()], &[]).faults.len(), 1);
        assert_eq!(score(&[], &[found()]).invented, 1);
        assert_eq!(score(&[truth()], &[found(), found()]).invented, 1);
        let mut forbidden = truth();
        forbidden.insert("expect".to_owned(), "forbidden".into());
        assert_eq!(score(&[forbidden], &[found()]).forbidden, 1);
        let mut twice = truth();
        twice.insert("max_count".to_owned(), 2.into());
        assert!(score(&[twice], &[found(), found()]).perfect());
    }

    #[test]
    fn any_variant_will_do_and_the_policy_is_told() {
        let mut truth = truth();
        truth.insert(
            "variants".to_owned(),
            serde_json::json!([{"policy": "linux", "target": "/a"}, {"policy": "naive", "target": "/b"}]),
        );
        let score = score(&[truth], &[changed("target", "/b".into())]);
        assert!(score.perfect(), "{score:?}");
        assert_eq!(score.other_policies, ["\"naive\""]);
    }
}
