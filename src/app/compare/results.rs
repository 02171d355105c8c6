//! What has come of comparing so far, and how a request gets into it.

use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use super::examples::{Examples, Pair};
use super::repeats::Before;
use super::table::Half;
use crate::account::{Account, Counter, Reason};
use crate::compare::{self, Difference, DifferenceKind, Endpoints, Rules};
use crate::exchange::{NoAnswer, Request, Response};
use crate::judge::{Judge, Latency, Reference, ReferenceKind, Trial};
use crate::replay::{Answer, Outcome};

/// The judge, the account and the examples, and everything that judging a request takes.
pub(super) struct Results {
    pub(super) judge: Judge,
    /// What was judged, and why what was not.
    pub(super) account: Account,
    pub(super) examples: Examples,
    rules: Rules,
    endpoints: Endpoints,
    has_control: bool,
    untimed: bool,
}

impl Results {
    pub(super) fn new(settings: &Settings, has_control: bool) -> Self {
        Self {
            judge: Judge::new(settings.margin),
            account: Account::new(),
            examples: Examples::default(),
            rules: settings.rules.clone(),
            endpoints: Endpoints::new(settings.routes.clone(), MOST_ENDPOINTS),
            has_control,
            untimed: settings.untimed,
        }
    }

    /// Forgets what was found of the version 2 so far.
    pub(super) fn begin_anew(&mut self) {
        self.judge.clear();
        self.examples = Examples::default();
    }

    /// Judges a request of which all is known, or counts why it cannot be judged.
    pub(super) fn settle(&mut self, half: Half) {
        if let Err(reason) = self.judge(half) {
            self.account.drop(reason);
        } else {
            self.account.count(Counter::ComparesJudged);
        }
    }

    fn judge(&mut self, half: Half) -> Result<(), Reason> {
        let request = half.request;
        let v1 = match half.v1 {
            Some(Ok(response)) => response,
            Some(Err(NoAnswer::ClientLeft)) => {
                return Err(Reason::Version1ClientLeft);
            }
            Some(Err(NoAnswer::HalfClosed)) => {
                return Err(Reason::Version1HalfClosed);
            }
            Some(Err(NoAnswer::Ended)) => return Err(Reason::Version1Unanswered),
            None => return Err(Reason::Version1NotSeen),
        };
        if !v1.completeness.is_whole() {
            return Err(Reason::Version1Incomplete);
        }
        if v1.doubts.any() || request.doubts.any() {
            return Err(Reason::Version1Ambiguous);
        }
        let v2 = match half.v2 {
            Some(Outcome::Answered(answer)) if answer.response.completeness.is_whole() => {
                Some(answer)
            }
            Some(Outcome::Answered(_)) => return Err(Reason::Version2TooLarge),
            Some(Outcome::Failed(Reason::ResolveFailed)) => return Err(Reason::NoVersion2),
            Some(Outcome::Failed(Reason::StoppedUnanswered)) => {
                return Err(Reason::Version2NotReached);
            }
            Some(Outcome::Failed(_)) => None,
            Some(Outcome::Skipped(_)) | None => return Err(Reason::Version2NotReached),
        };
        let mut differences = match &v2 {
            Some(answer) => compare::differences(&request, &v1, &answer.response, &self.rules)?,
            None => Vec::new(),
        };
        let reference = if self.has_control {
            control(&request, &v1, half.control, &self.rules)
        } else {
            half.before
                .and_then(|before| repeat(&request, &before, &v1, &self.rules))
        };
        let v1_failed = is_failure(v1.head.status());
        let v2_failed = v2
            .as_ref()
            .is_none_or(|answer| is_failure(answer.response.head.status()));
        let latency = match &v2 {
            Some(answer) if !self.untimed && !v1_failed && !v2_failed => {
                took(&request, &v1, answer)
            }
            _ => None,
        };
        let endpoint = self.endpoints.name(&request);
        let differing = pairs(&differences);
        self.judge.add(&Trial {
            endpoint: &endpoint,
            differing: &differing,
            v1_failed,
            v2_failed,
            latency,
            reference: reference.as_ref().map(|known| Reference {
                kind: known.kind,
                differing: &known.differing,
                failed: known.failed,
                latency: known.latency,
            }),
        });
        if v2.is_none() {
            differences.push(no_answer());
        }
        if !differences.is_empty() {
            let pair = Pair {
                request,
                v1: Arc::new(v1),
                v2: v2.map(|answer| Arc::new(answer.response)),
                differences,
            };
            self.examples.keep(&endpoint, pair);
        }
        Ok(())
    }
}

/// How version 1 differs from itself on one request.
struct Known {
    kind: ReferenceKind,
    differing: Vec<(Arc<str>, DifferenceKind)>,
    failed: bool,
    latency: Option<Duration>,
}

fn control(
    request: &Request,
    v1: &Response,
    control: Option<Outcome>,
    rules: &Rules,
) -> Option<Known> {
    match control? {
        Outcome::Answered(answer) => {
            let response = &answer.response;
            if !response.completeness.is_whole() {
                return None;
            }
            let differences = compare::differences(request, v1, response, rules).ok()?;
            let is_failed = is_failure(response.head.status());
            Some(Known {
                kind: ReferenceKind::Control,
                differing: pairs(&differences),
                failed: is_failed,
                latency: (!is_failed).then(|| answer.timings.service()),
            })
        }
        Outcome::Failed(Reason::ResolveFailed | Reason::StoppedUnanswered)
        | Outcome::Skipped(_) => None,
        Outcome::Failed(_) => Some(Known {
            kind: ReferenceKind::Control,
            differing: Vec::new(),
            failed: true,
            latency: None,
        }),
    }
}

/// A repeat came before, as version 1 does.
fn repeat(request: &Request, before: &Before, v1: &Response, rules: &Rules) -> Option<Known> {
    let differences = match before {
        Before::Same(_) => Vec::new(),
        Before::Other(before) => compare::differences(request, before, v1, rules).ok()?,
    };
    Some(Known {
        kind: ReferenceKind::Repeat,
        differing: pairs(&differences),
        failed: is_failure(before.status()),
        latency: None,
    })
}

fn pairs(differences: &[Difference]) -> Vec<(Arc<str>, DifferenceKind)> {
    differences
        .iter()
        .map(|difference| (Arc::clone(&difference.field), difference.kind))
        .collect()
}

/// What stands in the examples of a request that version 2 did not answer.
fn no_answer() -> Difference {
    Difference {
        field: NO_ANSWER.into(),
        named: None,
        kind: DifferenceKind::Missing,
        v1: None,
        v2: None,
    }
}

/// The field that examples have for a request that version 2 did not answer.
pub const NO_ANSWER: &str = "answer";

/// How long both took; version 1 from the last byte of the request to the last byte of the answer. `None` where the input has
/// no times.
fn took(request: &Request, v1: &Response, v2: &Answer) -> Option<Latency> {
    let took = v1.last_byte.since(request.last_byte);
    (!took.is_zero()).then(|| Latency {
        v1: took,
        v2: v2.timings.service(),
        sent: v2.response.last_byte.before(v2.timings.total),
    })
}

fn is_failure(status: u16) -> bool {
    status >= 500
}

/// So many endpoints are told apart.
const MOST_ENDPOINTS: usize = 127;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::table::Table;
    use super::super::table::tests::{captured, replayed};
    use super::*;
    use crate::compare::tests::answer;
    use crate::exchange::ExchangeId;

    /// One request: its path, and the bodies of version 1, version 2 and the control.
    type Asked = (u8, [u8; 3], bool);

    fn asked() -> impl Strategy<Value = Vec<Asked>> {
        let body = || prop_oneof![4 => Just(0u8), 1 => 0u8..4];
        let one = (0u8..4, [body(), body(), body()], any::<bool>());
        prop::collection::vec(one, 0..60)
    }

    /// What comes of it, and how many were plain.
    fn judged(all: &[Asked], has_control: bool) -> (Results, usize) {
        let mut results = Results::new(&Settings::default(), has_control);
        let mut table = Table::new(has_control);
        let mut plain = 0;
        for (index, &(path, bodies, is_first)) in (0..).zip(all) {
            let (request, v1) = captured(index, path, bodies[0]);
            let id = ExchangeId(index);
            table.expect(Arc::clone(&request));
            let mut complete = Vec::new();
            if is_first {
                complete.extend(table.version1(id, Ok(v1.clone())));
            }
            complete.extend(table.version2(replayed(&request, bodies[1])));
            if has_control {
                complete.extend(table.control(replayed(&request, bodies[2])));
            }
            if !is_first {
                complete.extend(table.version1(id, Ok(v1)));
            }
            assert_eq!(complete.len(), 1);
            for half in complete {
                plain += usize::from(half.is_plain());
                results.settle(half);
            }
        }
        results.judge.finish();
        (results, plain)
    }

    proptest! {
        #[test]
        fn who_answers_first_makes_no_difference(all in asked(), has_control in any::<bool>()) {
            let (any, some) = judged(&all, has_control);
            let first: Vec<Asked> = all.iter().map(|asked| (asked.0, asked.1, true)).collect();
            let (first, same) = judged(&first, has_control);
            prop_assert_eq!(any.judge.tally(), first.judge.tally());
            prop_assert_eq!(any.account, first.account);
            prop_assert_eq!(any.examples.counts(), first.examples.counts());
            let plain = |asked: &&Asked| asked.1[0] == asked.1[1] && (!has_control || asked.1[0] == asked.1[2]);
            let plain = all.iter().filter(plain).count();
            prop_assert!(some == same && some <= plain);
            prop_assert!(!has_control || some == plain);
        }
    }

    #[test]
    fn answers_with_other_heads_are_plain_too() {
        let mut results = Results::new(&Settings::default(), false);
        let mut table = Table::new(false);
        for (id, fields) in [
            (0, ""),
            (1, "X-Request-Id: 7f3a\r\n"),
            (2, "Content-Type: text/html\r\n"),
        ] {
            let (request, v1) = captured(id, 0, 0);
            let mut replay = replayed(&request, 0);
            if let Outcome::Answered(v2) = &mut replay.outcome {
                v2.response.head = answer(200, fields, &v1.body.wire).head;
            }
            table.expect(Arc::clone(&request));
            assert!(table.version2(replay).is_none());
            let half = table.version1(request.id, Ok(v1)).expect("complete");
            assert!(half.is_plain());
            results.settle(half);
        }
        let endpoint = &results.judge.tally().endpoints["GET /a"];
        assert_eq!((endpoint.requests, endpoint.repeated), (3, 2));
        let fields: Vec<&str> = endpoint.fields.keys().map(|(name, _)| &**name).collect();
        assert_eq!(fields, ["header.content-type"]);
    }

    #[test]
    fn what_version_1_answered_in_another_way_before_is_not_plain() {
        let all = [(1, [0; 3], true), (2, [0; 3], false), (1, [1; 3], true)];
        let (results, plain) = judged(&all, false);
        assert_eq!(plain, 2, "all but the third");
        assert_eq!(results.account.get(Counter::ComparesJudged), 3);
        let endpoints = &results.judge.tally().endpoints;
        let repeated: Vec<u64> = endpoints
            .values()
            .map(|endpoint| endpoint.repeated)
            .collect();
        assert_eq!(repeated, [1, 0]);
    }
}
