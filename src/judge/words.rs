//! The verdict in plain words.

use std::time::Duration;

use super::presence::{Absence, Presence};
use super::trial::ReferenceKind;
use super::verdict::{
    Decision, EndpointVerdict, Excess, FieldVerdict, InMoments, LatencyVerdict, Standing, Verdict,
};
use crate::compare::DifferenceKind;
use crate::mock::shadow::CALL;
use crate::report::{grouped, latency};
use crate::time::{Timestamp, rfc3339};

/// Writes the reasons: each endpoint's, and those of the whole.
pub(super) fn explain(verdict: &mut Verdict, least: u64) {
    let tolerances = verdict.tolerances;
    let allowed = percent(tolerances.max_difference);
    for endpoint in &mut verdict.endpoints {
        endpoint.reasons = of_endpoint(endpoint, least, &allowed);
    }
    verdict.reasons = of_all(verdict, least);
}

fn of_endpoint(endpoint: &EndpointVerdict, least: u64, allowed: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    let reference = copy(endpoint.noise);
    for field in endpoint.fields.iter().filter(|it| it.excess.beyond) {
        reasons.push(differs(field, endpoint.noise));
    }
    if endpoint.differences.beyond && reasons.is_empty() {
        let Excess {
            v2,
            reference: noise,
            of,
            ..
        } = endpoint.differences;
        reasons.push(format!(
            "{} of {} answers differ in one field or another in which {reference} does not; the other way round it is {}{}",
            grouped(v2),
            grouped(of),
            grouped(noise),
            endpoint
                .unreferenced
                .map(|others| format!(
                    "; where there is none of these, {} of {} differ",
                    grouped(others.v2),
                    grouped(others.of)
                ))
                .unwrap_or_default(),
        ));
    }
    if endpoint.errors.beyond {
        reasons.push(failed(endpoint));
    }
    if let Some(latency) = &endpoint.latency
        && (latency.slower.beyond || latency.beyond.iter().any(|it| it.beyond))
    {
        reasons.push(slower(latency));
    }
    for field in endpoint
        .fields
        .iter()
        .filter(|it| it.real && !it.excess.beyond)
    {
        reasons.push(format!(
            "{}: no noise, but not shown to be more than the {allowed} that are allowed",
            differs(field, endpoint.noise)
        ));
    }
    for field in endpoint
        .fields
        .iter()
        .filter(|field| field.noisy && !field.excess.beyond)
    {
        reasons.push(format!(
            "{} ({}) does not hold the promotion: version 1 differs from itself there{}, and these are too few to go by",
            field.field,
            field.kind,
            field
                .unreferenced
                .map(|it| format!(
                    " in {} of {} repeats",
                    grouped(it.reference),
                    grouped(it.reference_of)
                ))
                .unwrap_or_default(),
        ));
    }
    match (endpoint.standing, endpoint.needs) {
        (Standing::Uncovered, _) => reasons.push(format!(
            "not covered: {} of the {} requests that it takes when nothing differs",
            grouped(endpoint.requests),
            grouped(least),
        )),
        (Standing::Open, Some(needs)) => reasons.push(format!(
            "{} more requests to show that it is good enough",
            grouped(needs)
        )),
        (Standing::Open, None) => reasons.push(never(endpoint, allowed)),
        (Standing::Worse | Standing::Good, _) => {}
    }
    reasons
}

fn of_all(verdict: &Verdict, least: u64) -> Vec<String> {
    let mut reasons = Vec::new();
    let tolerances = &verdict.tolerances;
    let mut held = of_presence(&verdict.presence);
    if verdict.verdict != Decision::Reject {
        reasons.append(&mut held);
    }
    let mut incomplete = None;
    if verdict.completeness < tolerances.min_completeness {
        let mut lost: Vec<_> = verdict
            .lost
            .iter()
            .filter(|&(_, &count)| count > 0)
            .collect();
        lost.sort_by_key(|&(_, &count)| std::cmp::Reverse(count));
        let lost: Vec<_> = lost
            .iter()
            .take(5)
            .map(|(reason, count)| format!("{} {reason}", grouped(**count)))
            .collect();
        let why = if lost.is_empty() {
            "packets were dropped before they were captured, or left out to stay within --cpu-limit and --memory-limit".to_owned()
        } else {
            lost.join(", ")
        };
        incomplete = Some(format!(
            "only {} of {} was judged, and --min-completeness asks for {}: {why}",
            percent(verdict.completeness),
            if verdict.earlier > 0 {
                "the latest half of the traffic"
            } else {
                "the traffic"
            },
            percent(tolerances.min_completeness),
        ));
    }
    if verdict.verdict != Decision::Reject {
        reasons.extend(incomplete.take());
    }
    let of =
        |endpoint: &EndpointVerdict, reason: &String| format!("{}: {reason}", endpoint.endpoint);
    for endpoint in verdict
        .endpoints
        .iter()
        .filter(|it| it.standing == Standing::Worse)
    {
        reasons.extend(endpoint.reasons.iter().map(|reason| of(endpoint, reason)));
    }
    if verdict.errors.beyond {
        let Excess {
            v2, reference, of, ..
        } = verdict.errors;
        reasons.push(format!(
            "over all endpoints version 2 alone failed {} of {} requests, its reference alone {}: --max-errors allows {} more",
            grouped(v2),
            grouped(of),
            grouped(reference),
            percent(tolerances.max_errors),
        ));
    }
    if let Some(slow) = verdict.slow.filter(|slow| slow.beyond) {
        reasons.push(format!(
            "over all endpoints {} of {} answers of version 2 were beyond the p99 of its reference with the margin added, and \
             {} of its reference{}",
            grouped(slow.v2),
            grouped(slow.of),
            grouped(slow.reference),
            slow.moments.map(in_moments).unwrap_or_default(),
        ));
    }
    reasons.extend(incomplete);
    reasons.append(&mut held);
    if verdict.requests == 0 {
        reasons.push("nothing was judged yet".to_owned());
    }
    let open = verdict
        .endpoints
        .iter()
        .filter(|it| it.standing == Standing::Open);
    for endpoint in open {
        reasons.extend(endpoint.reasons.iter().map(|reason| of(endpoint, reason)));
    }
    let uncovered: Vec<_> = verdict
        .endpoints
        .iter()
        .filter(|it| it.standing == Standing::Uncovered)
        .map(|it| format!("{} ({})", it.endpoint, grouped(it.requests)))
        .collect();
    if !uncovered.is_empty() {
        let more = uncovered.len().saturating_sub(5);
        let mut names = uncovered[..uncovered.len().min(5)].join(", ");
        if more > 0 {
            names += &format!(" and {more} more");
        }
        let hold = if tolerances.allow_uncovered {
            "--allow-uncovered lets them pass"
        } else {
            "they hold the promotion, unless --allow-uncovered"
        };
        reasons.push(format!(
            "not covered, with fewer than {} requests: {names}; {hold}",
            grouped(least)
        ));
    }
    if verdict.verdict == Decision::Continue && verdict.requests > 0 {
        match verdict.needs {
            Some(0) => {}
            Some(needs) => reasons.push(format!(
                "{} more requests are needed, if they go like those so far",
                grouped(needs)
            )),
            None if is_hopeless(verdict) => reasons.push(
                "at this rate no number of requests shows that version 2 is good enough".to_owned(),
            ),
            None => reasons.push(
                "how many more requests are needed cannot be said yet: where there were few, something went wrong with one of them"
                    .to_owned(),
            ),
        }
    }
    if verdict.verdict == Decision::Promote {
        let is_timed = verdict.endpoints.iter().any(|it| it.latency.is_some());
        reasons.push(format!(
            "{} requests: no field of a covered endpoint differs, beyond noise, in {} of the answers or more, version 2 fails in less than \
             {} more, and {}",
            grouped(verdict.requests),
            percent(tolerances.max_difference),
            percent(tolerances.max_errors),
            if is_timed {
                "is not slower than the margin"
            } else {
                "how long it takes was not judged"
            },
        ));
        let good = verdict
            .endpoints
            .iter()
            .filter(|it| it.standing == Standing::Good);
        for endpoint in good {
            reasons.extend(endpoint.reasons.iter().map(|reason| of(endpoint, reason)));
        }
    }
    let without = verdict
        .endpoints
        .iter()
        .filter(|it| it.noise.is_none())
        .count();
    if without > 0 {
        reasons.push(format!(
            "no control at {} of {} endpoints, or none that answered, and too few repeats: version 2's differences were counted as \
             they are, so noise that no built-in class takes out looks like a difference; --control measures it",
            without,
            verdict.endpoints.len(),
        ));
    }
    reasons
}

/// That version 2 does not answer, and that the next one is held for it.
fn of_presence(presence: &Presence) -> Vec<String> {
    let mut reasons = Vec::new();
    let pods = presence.pods.max(1);
    if let Some(absence) = &presence.absence {
        reasons.push(absent(absence, pods));
    }
    let Presence {
        gone_after,
        missing,
        ..
    } = *presence;
    if missing > 0 {
        reasons.push(format!(
            "version 2 was gone after {} requests; {} more without that until it counts as one that stays",
            grouped(gone_after),
            grouped(missing)
        ));
    }
    reasons
}

fn absent(absence: &Absence, pods: u64) -> String {
    let since = Duration::from_millis(absence.since_millis);
    let since = rfc3339::format(Timestamp::ZERO.after(since));
    // Without the fractions of a second.
    let since = since.get(..19).unwrap_or_default().replace('T', " ");
    let place = match absence.pods {
        _ if pods == 1 => String::new(),
        at => format!(" {at} of {pods} sidecars"),
    };
    let why = match absence.refused {
        0 => "its name leads to version 1".to_owned(),
        1 => "a connection could not be made".to_owned(),
        refused => format!("{} connections could not be made", grouped(refused)),
    };
    if absence.had_answered {
        format!(
            "version 2 has not answered{place} since {since} UTC: {why}; counts begin anew when one answers"
        )
    } else {
        format!("version 2 has not answered{place} yet: {why} since {since} UTC")
    }
}

/// Whether more than a few requests say that it is never shown to be good enough.
fn is_hopeless(verdict: &Verdict) -> bool {
    let tolerances = &verdict.tolerances;
    verdict.errors.rate >= tolerances.max_errors
        || verdict
            .slow
            .is_some_and(|slow| slow.rate >= tolerances.max_slow / 5.0)
        || verdict
            .endpoints
            .iter()
            .any(|it| it.needs.is_none() && it.standing != Standing::Uncovered)
}

fn differs(field: &FieldVerdict, noise: Option<ReferenceKind>) -> String {
    let Excess {
        v2, reference, of, ..
    } = field.excess;
    let (v2, reference, of) = (grouped(v2), grouped(reference), grouped(of));
    let name = format!("{} ({})", field.field, field.kind);
    if let Some(call) = field.field.strip_prefix(CALL) {
        let what = match field.kind {
            DifferenceKind::Missing => format!("does not call {call} as often as version 1"),
            DifferenceKind::Extra => format!("calls {call} more often than version 1"),
            _ => format!("calls {call} with other content than version 1"),
        };
        return format!("version 2 {what} in {v2} of {of} requests");
    }
    match (noise, &field.unreferenced) {
        (Some(_), None) => format!(
            "{name} differs in {v2} of {of} answers of version 2 alone, and in {reference} of {} alone",
            copy(noise)
        ),
        (Some(_), Some(others)) => format!(
            "{name} differs in {v2} of {of} answers of version 2 alone, and in {reference} of {} alone; where there is none of \
             these, in {} of {}",
            copy(noise),
            grouped(others.v2),
            grouped(others.of),
        ),
        (None, Some(others)) => format!(
            "{name} differs in {} of {} answers, and version 1 from itself in {} of {} repeats",
            grouped(others.v2),
            grouped(others.of),
            grouped(others.reference),
            grouped(others.reference_of),
        ),
        (None, None) => format!("{name} differs in {v2} of {of} answers, without a control"),
    }
}

fn failed(endpoint: &EndpointVerdict) -> String {
    let control = match endpoint.failed.control {
        Some(control) => format!(", the control {}", grouped(control)),
        None => String::new(),
    };
    format!(
        "version 2 failed {} of {} requests, version 1 {}{control}",
        grouped(endpoint.failed.v2),
        grouped(endpoint.requests),
        grouped(endpoint.failed.v1),
    )
}

fn slower(took: &LatencyVerdict) -> String {
    let (name, reference) = match &took.control {
        Some(control) => ("the control", control),
        None => ("version 1", &took.v1),
    };
    let quantile = |index: usize, name: &str| {
        format!(
            "{name} {} against {}",
            time(took.v2[index]),
            time(reference[index])
        )
    };
    let all = took.beyond.iter().chain([&took.slower]);
    let clearest = all
        .filter(|it| it.beyond)
        .max_by(|a, b| a.evidence.total_cmp(&b.evidence));
    let between = match took.ratio_high {
        Some(high) => format!(", between {:.2} and {high:.2}", took.ratio_low),
        None => String::new(),
    };
    let when = clearest.and_then(|it| it.moments).map(in_moments);
    let when = when.unwrap_or_default();
    format!(
        "version 2 is slower than {name}: {}, {}, {}; the same request takes {:.2} times as long (median{between}){when}",
        quantile(0, "p50"),
        quantile(1, "p90"),
        quantile(2, "p99"),
        took.ratio,
    )
}

fn in_moments(moments: InMoments) -> String {
    format!(
        "; that is so at {} moments, and the other way round at {}",
        grouped(moments.v2),
        grouped(moments.reference)
    )
}

/// Why it will never be shown that an endpoint is good enough.
fn never(endpoint: &EndpointVerdict, allowed: &str) -> String {
    let worst = endpoint
        .fields
        .iter()
        .filter(|field| !field.noisy)
        .max_by(|a, b| a.excess.rate.total_cmp(&b.excess.rate));
    match worst {
        Some(field) if field.excess.rate > 0.0 => format!(
            "at this rate it is never shown that less than {allowed} differ: {}; --ignore '{}' leaves it out",
            differs(field, endpoint.noise),
            field.field,
        ),
        _ => "at this rate it is never shown that it is good enough".to_owned(),
    }
}

const fn copy(noise: Option<ReferenceKind>) -> &'static str {
    match noise {
        Some(ReferenceKind::Control) => "the control",
        Some(ReferenceKind::Repeat) => "version 1's own repeats",
        None => "version 1",
    }
}

/// A share as a person reads it.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = if percent.fract() == 0.0 {
        0
    } else if percent.abs() >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{percent:.digits$}");
    let text = if digits > 0 {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text} %")
}

fn time(micros: u64) -> String {
    latency(Duration::from_micros(micros))
}
