//! The verdict for a person: what it is and why, both versions side by side, and what differs with one example each.

use std::fmt::Write as _;
use std::time::Duration;

use super::{grouped, latency, printable_text};
use crate::compare::DifferenceKind;
use crate::judge::{EndpointVerdict, FieldVerdict, ReferenceKind, Standing, Verdict};

/// What both versions have at the first place in which a field differs, in short.
pub type Shown = (Option<String>, Option<String>);

/// The verdict and its reasons, a table of endpoints with failures and latencies of both versions, and the fields that
/// differ; `example` gives what the latest such answers had there.
#[must_use]
pub fn verdict(
    verdict: &Verdict,
    example: impl Fn(&str, &str, DifferenceKind) -> Option<Shown>,
) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "The verdict: {}", verdict.verdict);
    for reason in &verdict.reasons {
        let _ = writeln!(text, "  {}", printable_text(reason));
    }
    let _ = writeln!(
        text,
        "  {} requests judged, {:.2}% of what was to be; noise measured with {}",
        grouped(verdict.requests),
        verdict.completeness * 100.0,
        noise(&verdict.noise),
    );
    if verdict.endpoints.is_empty() {
        return text;
    }
    push_table(&mut text, &verdict.endpoints);
    let more = verdict.endpoints.len().saturating_sub(MOST_ENDPOINTS);
    if more > 0 {
        let _ = writeln!(text, "  and {more} endpoints more, which are less worrying");
    }
    let mut differences = String::new();
    for endpoint in &verdict.endpoints {
        push_differences(&mut differences, endpoint, &example);
    }
    if !differences.is_empty() {
        text.push_str("Where version 2 answers otherwise\n");
        text.push_str(&differences);
    }
    text
}

fn noise(kinds: &[ReferenceKind]) -> &'static str {
    match (
        kinds.contains(&ReferenceKind::Control),
        kinds.contains(&ReferenceKind::Repeat),
    ) {
        (true, _) => "the control",
        (false, true) => "repeats of the same request to version 1",
        (false, false) => "nothing but what values look like (no control, no repeats)",
    }
}

fn push_table(text: &mut String, endpoints: &[EndpointVerdict]) {
    let listed = endpoints.iter().take(MOST_ENDPOINTS);
    let widths = listed.map(|it| it.endpoint.chars().count());
    let width = widths.max().unwrap_or(0).clamp(8, WIDEST);
    let _ = writeln!(
        text,
        "  {:width$}  {:9}  {:>9}  {:>15}  {:>19}  {:>19}",
        "", "", "", "failed", "median", "p99"
    );
    let _ = writeln!(
        text,
        "  {:width$}  {:9}  {:>9}  {:>7} {:>7}  {:>9} {:>9}  {:>9} {:>9}",
        "endpoint", "is", "requests", "v1", "v2", "v1", "v2", "v1", "v2"
    );
    for it in endpoints.iter().take(MOST_ENDPOINTS) {
        let took = |version: fn(&crate::judge::LatencyVerdict) -> [u64; 3], at: usize| {
            it.latency.as_ref().map_or_else(
                || "-".to_owned(),
                |latencies| latency(Duration::from_micros(version(latencies)[at])),
            )
        };
        let _ = writeln!(
            text,
            "  {:width$}  {:9}  {:>9}  {:>7} {:>7}  {:>9} {:>9}  {:>9} {:>9}",
            cut(&it.endpoint),
            standing(it.standing),
            grouped(it.requests),
            share(it.failed.v1, it.requests),
            share(it.failed.v2, it.requests),
            took(|it| it.v1, 0),
            took(|it| it.v2, 0),
            took(|it| it.v1, 2),
            took(|it| it.v2, 2),
        );
    }
}

fn push_differences(
    text: &mut String,
    endpoint: &EndpointVerdict,
    example: impl Fn(&str, &str, DifferenceKind) -> Option<Shown>,
) {
    let fields: Vec<_> = differing(endpoint).collect();
    if fields.is_empty() && endpoint.failed.v2 == 0 {
        return;
    }
    let _ = writeln!(text, "  {}", endpoint.endpoint);
    if endpoint.failed.v2 > 0 {
        let _ = writeln!(
            text,
            "    no whole answer, or 5xx: in {} of {} requests",
            grouped(endpoint.failed.v2),
            grouped(endpoint.requests)
        );
        let (field, kind) = STATUS;
        if let Some((v1, v2)) = example(&endpoint.endpoint, field, kind) {
            let _ = writeln!(text, "      version 1  {}", shown(v1.as_deref()));
            let _ = writeln!(text, "      version 2  {}", shown(v2.as_deref()));
        }
    }
    for it in fields.iter().take(MOST_FIELDS) {
        let _ = write!(
            text,
            "    {} ({}): in {} of {} answers",
            it.field,
            it.kind,
            grouped(it.excess.v2),
            grouped(it.excess.of)
        );
        if endpoint.noise.is_some() {
            let _ = write!(
                text,
                ", the other way round in {}",
                grouped(it.excess.reference)
            );
        }
        if let Some(others) = &it.unreferenced
            && !it.noisy
        {
            let _ = write!(
                text,
                "; without such a reference in {} of {}",
                grouped(others.v2),
                grouped(others.of)
            );
        }
        let _ = writeln!(
            text,
            "; evidence 10^{:.1}{}",
            it.excess.evidence,
            match (it.excess.beyond, it.noisy) {
                (true, _) => ", more than is allowed",
                (false, true) => ", does not count: version 1 differs from itself there",
                (false, false) => "",
            }
        );
        if let Some((v1, v2)) = example(&endpoint.endpoint, &it.field, it.kind) {
            let _ = writeln!(text, "      version 1  {}", shown(v1.as_deref()));
            let _ = writeln!(text, "      version 2  {}", shown(v2.as_deref()));
        }
    }
    if fields.len() > MOST_FIELDS {
        let _ = writeln!(text, "    and {} fields more", fields.len() - MOST_FIELDS);
    }
}

/// The fields in which version 2 was seen to differ.
fn differing(endpoint: &EndpointVerdict) -> impl Iterator<Item = &FieldVerdict> {
    let alone = |it: &FieldVerdict| it.unreferenced.map_or(0, |others| others.v2);
    let fields = endpoint.fields.iter();
    fields.filter(move |it| it.excess.v2 + alone(it) > 0)
}

/// Endpoint, field and kind of each difference that [`verdict`] asks an example of, up to a bound.
pub(crate) fn named(verdict: &Verdict) -> Vec<(&str, &str, DifferenceKind)> {
    let mut named = Vec::new();
    for endpoint in &verdict.endpoints {
        let failed = (endpoint.failed.v2 > 0).then_some(STATUS);
        let fields = differing(endpoint).take(MOST_FIELDS);
        let all = failed
            .into_iter()
            .chain(fields.map(|it| (&*it.field, it.kind)));
        named.extend(all.map(|(field, kind)| (&*endpoint.endpoint, field, kind)));
    }
    named.truncate(MOST_EXAMPLES);
    named
}

/// As what an answer of another status is an example.
const STATUS: (&str, DifferenceKind) = ("status", DifferenceKind::Value);

const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Worse => "worse",
        Standing::Open => "open",
        Standing::Uncovered => "uncovered",
        Standing::Good => "good",
    }
}

/// A value of an answer, as a person may see it.
pub(super) fn shown(value: Option<&str>) -> String {
    value.map_or_else(|| "nothing".to_owned(), printable_text)
}

pub(super) fn share(part: u64, of: u64) -> String {
    if part == 0 || of == 0 {
        return "-".to_owned();
    }
    // In hundredths of a percent.
    let share = (u128::from(part) * 10_000) / u128::from(of);
    match share {
        0 => "<0.01%".to_owned(),
        _ => format!("{}.{:02}%", share / 100, share % 100),
    }
}

pub(super) fn cut(name: &str) -> String {
    if name.chars().count() <= WIDEST {
        return name.to_owned();
    }
    name.chars().take(WIDEST - 1).chain(['…']).collect()
}

/// Longer names of endpoints are cut in the table.
pub(super) const WIDEST: usize = 48;

/// So many endpoints are listed.
pub(super) const MOST_ENDPOINTS: usize = 40;

/// So many fields of an endpoint are listed.
pub(super) const MOST_FIELDS: usize = 10;

/// So many examples are asked for where that takes a request each.
const MOST_EXAMPLES: usize = 50;

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::judge::{Completeness, Judge, Latency, LatencyMargin, Tolerances, Trial};
    use crate::time::Timestamp;

    /// Of a version 2 that is wrong at POST /orders and fails GET /items now and then.
    pub(in crate::report) fn rejected() -> Verdict {
        let mut judge = Judge::new(LatencyMargin::default());
        let differing: [(Arc<str>, DifferenceKind); 1] =
            [("body.total_cents".into(), DifferenceKind::Value)];
        for index in 0..100 {
            let trial = |endpoint, differing, v2_failed: bool| Trial {
                endpoint,
                differing,
                v1_failed: false,
                v2_failed,
                latency: (!v2_failed).then_some(Latency {
                    v1: Duration::from_millis(1),
                    v2: Duration::from_millis(2),
                    sent: Timestamp::from_secs_nanos(index, 0),
                }),
                reference: None,
            };
            judge.add(&trial("POST /orders", &differing, false));
            judge.add(&trial("GET /items", &[], index % 5 == 0));
        }
        let completeness = Completeness {
            judged: 200,
            ..Completeness::default()
        };
        crate::judge::verdict(judge.tally(), &Tolerances::default(), &completeness)
    }

    #[test]
    fn the_verdict_as_a_person_sees_it() {
        let example = |endpoint: &str, field: &str, kind| {
            if (endpoint, field) == ("GET /items", "status") {
                return Some((Some("200".to_owned()), Some("503".to_owned())));
            }
            assert_eq!(
                (endpoint, field, kind),
                ("POST /orders", "body.total_cents", DifferenceKind::Value)
            );
            Some((Some("5938".to_owned()), None))
        };
        let text = verdict(&rejected(), example);
        assert!(text.starts_with("The verdict: reject\n"), "{text}");
        let line = |with: &str| {
            text.lines()
                .find(|line| line.starts_with(with))
                .unwrap_or_else(|| panic!("{with} is not in\n{text}"))
        };
        assert!(line("  200 requests judged, 100.00%").contains("no control"));
        assert!(line("  GET /items ").contains("20.00%"), "{text}");
        assert!(line("  POST /orders  ").contains(" ms"), "{text}");
        assert!(
            line("    body.total_cents (value): in 100 of 100 answers; evidence 10^")
                .contains("more than is allowed"),
            "{text}"
        );
        let failed = "    no whole answer, or 5xx: in 20 of 100 requests\n      version 1  200\n      version 2  503\n";
        assert!(text.contains(failed), "{text}");
        let differs = "      version 1  5938\n      version 2  nothing\n";
        assert!(text.contains(differs), "{text}");
        let verdict = rejected();
        let named = named(&verdict);
        assert!(named.contains(&("GET /items", "status", DifferenceKind::Value)));
        assert_eq!(named.len(), 2, "{named:?}");
    }
}
