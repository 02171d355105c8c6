//! What of the traffic is replayed, how much of it, and changed how: pure functions of a request.
//!
//! ```text
//!  request ─► split ─► select: --only, --except, --safe-only ─► sample: --percent ─► rewrite ─► the engine
//!            └─ for each target ────────────────────────────────────────────────┘            └─ of each target
//! ```
//!
//! Selecting and sampling look at the request as it was captured. `docs/filters.md` describes what may be written.

pub mod body;
pub mod limit;
mod pattern;
pub mod redact;
pub mod rewrite;
pub mod sample;
pub mod select;
pub mod share;
pub mod slice;
mod values;

use std::sync::Arc;

use crate::account::Reason;
use crate::exchange::{Exchange, Request};

pub use limit::{Bandwidth, Rate, TokenBucket};
pub use pattern::RuleError;
pub use redact::Redactor;
pub use rewrite::Rewrite;
pub use sample::{Percent, Sample, SampleBy};
pub use select::{Rule, Selection};
pub use share::Share;
pub use values::byte_size;

/// Which exchanges are kept, where nothing is sent.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// By what their requests are.
    pub select: Selection,
    /// How much of that.
    pub sample: Sample,
}

impl Choice {
    /// Whether everything is kept.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.select.is_everything() && self.sample.is_everything()
    }

    /// Why `exchange` is not kept, if it is not. An answer whose request was not seen is kept only with everything else.
    #[must_use]
    pub fn refusal(&self, exchange: &Exchange) -> Option<Reason> {
        if self.is_everything() {
            return None;
        }
        let status = exchange.response.as_ref().map(|it| it.head.status());
        match &exchange.request {
            Some(request) if self.select.takes(request, status) => {
                (!self.sample.takes(request)).then_some(Reason::RecordSampledOut)
            }
            _ => Some(Reason::RecordFiltered),
        }
    }
}

/// Everything that was asked about which requests are replayed, and how.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Which are.
    pub select: Selection,
    /// How much of that.
    pub sample: Sample,
    /// What is changed in it.
    pub rewrite: Rewrite,
    /// What each target gets of it, in the order of the targets; one that is not here gets everything.
    pub shares: Vec<Share>,
    /// Whether each request goes to one of the targets, and not to all: what [`Sample::by`] keeps together goes to one.
    pub split: bool,
}

impl Traffic {
    /// Which of so many targets `request` is for; `None` when it is for all of them.
    #[must_use]
    pub fn dealt_to(&self, request: &Request, targets: usize) -> Option<usize> {
        (self.split && targets > 0).then(|| self.sample.by.deal(request, targets))
    }

    /// Why `request` is not replayed to that target, if it is not. `status` is version 1's answer to it, where that is
    /// known.
    #[must_use]
    pub fn refusal(&self, request: &Request, status: Option<u16>, target: usize) -> Option<Reason> {
        let share = self.shares.get(target);
        let takes = |selection: &Selection| selection.takes(request, status);
        if !takes(&self.select) || !share.is_none_or(|share| takes(&share.select)) {
            return Some(Reason::Filtered);
        }
        let percent = share.and_then(|share| share.percent);
        if !self
            .sample
            .by
            .takes(request, percent.unwrap_or(self.sample.percent))
        {
            return Some(Reason::SampledOut);
        }
        None
    }

    /// The first rule that asks for version 1's answer, if there is one.
    #[must_use]
    pub fn on_status(&self) -> Option<&Rule> {
        let shares = self.shares.iter().find_map(Share::on_status);
        self.select.on_status().or(shares)
    }

    /// `request` as it is to be replayed.
    ///
    /// # Errors
    /// Why what the user wants changed in it cannot be.
    pub fn rewritten(&self, request: &Arc<Request>) -> Result<Arc<Request>, Reason> {
        if self.rewrite.is_nothing() {
            return Ok(Arc::clone(request));
        }
        Ok(match self.rewrite.apply(request)? {
            Some(changed) => Arc::new(changed),
            None => Arc::clone(request),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::exchange::{Completeness, ConnectionId, Doubts, Endpoints, ExchangeId};
    use crate::http1::{Body, Framing, RequestHead};
    use crate::time::Timestamp;
    use bytes::Bytes;

    /// A request from 10.1.2.3:4000, framed as its head says.
    pub(crate) fn request(head: &str, body: &str) -> Request {
        let head = RequestHead::parse(Bytes::copy_from_slice(head.as_bytes())).expect("a head");
        let framing = if head.fields().get("transfer-encoding").is_some() {
            Framing::Chunked
        } else if head.fields().get("content-length").is_some() {
            Framing::Length(body.len() as u64)
        } else {
            Framing::None
        };
        Request {
            id: ExchangeId(1),
            connection: ConnectionId(1),
            endpoints: Endpoints {
                client: ([10, 1, 2, 3], 4000).into(),
                server: ([10, 0, 0, 1], 80).into(),
            },
            first_byte: Timestamp::ZERO,
            last_byte: Timestamp::ZERO,
            head,
            body: Body {
                framing,
                wire: Bytes::copy_from_slice(body.as_bytes()),
                missing: 0,
            },
            doubts: Doubts::default(),
            completeness: Completeness::Whole,
        }
    }

    #[test]
    fn nothing_asked_everything_replayed() {
        let request = request("GET / HTTP/1.1\r\n\r\n", "");
        assert_eq!(Traffic::default().refusal(&request, None, 0), None);
    }

    #[test]
    fn what_is_filtered_is_not_sampled() {
        let traffic = Traffic {
            select: Selection {
                except: vec!["method:GET".parse().expect("a rule")],
                ..Selection::default()
            },
            sample: Sample {
                percent: "0".parse().expect("a percentage"),
                by: SampleBy::Request,
            },
            ..Traffic::default()
        };
        let refusal = |head: &str| traffic.refusal(&request(head, ""), None, 0);
        assert_eq!(refusal("GET / HTTP/1.1\r\n\r\n"), Some(Reason::Filtered));
        assert_eq!(refusal("PUT / HTTP/1.1\r\n\r\n"), Some(Reason::SampledOut));
    }

    #[test]
    fn each_target_has_its_own_rules_beside_those_for_all() {
        let traffic = Traffic {
            select: Selection {
                except: vec!["path:/no".parse().expect("a rule")],
                ..Selection::default()
            },
            sample: Sample {
                percent: "0".parse().expect("a percentage"),
                ..Sample::default()
            },
            shares: vec![
                "only=method:PUT percent=100".parse().expect("a share"),
                "percent=100 except=status:5xx".parse().expect("a share"),
            ],
            ..Traffic::default()
        };
        assert!(traffic.on_status().is_some());
        for (line, expected) in [
            (
                "GET /",
                [Some(Reason::Filtered), None, Some(Reason::SampledOut)],
            ),
            ("PUT /", [None, None, Some(Reason::SampledOut)]),
            ("PUT /no", [Some(Reason::Filtered); 3]),
        ] {
            let request = request(&format!("{line} HTTP/1.1\r\n\r\n"), "");
            for (target, expected) in expected.into_iter().enumerate() {
                assert_eq!(
                    traffic.refusal(&request, Some(200), target),
                    expected,
                    "{line} {target}"
                );
            }
        }
    }

    #[test]
    fn a_session_is_dealt_to_one_target_evenly_and_whatever_the_percentage() {
        let traffic = Traffic {
            split: true,
            ..Traffic::default()
        };
        let mut dealt = [0; 3];
        let mut both = 0;
        for port in 0..3000 {
            let mut request = request("GET / HTTP/1.1\r\n\r\n", "");
            request.endpoints.client.set_port(10_000 + port);
            let target = traffic.dealt_to(&request, 3).expect("dealt");
            dealt[target] += 1;
            request.first_byte = Timestamp::from_nanos(7);
            assert_eq!(traffic.dealt_to(&request, 3), Some(target));
            let half = "50".parse().expect("a percentage");
            both += usize::from(target == 0 && traffic.sample.by.takes(&request, half));
        }
        assert!(
            dealt.iter().all(|&count| (900..1100).contains(&count)),
            "{dealt:?}"
        );
        assert!((430..570).contains(&both), "half of a third: {both}");
        assert_eq!(
            Traffic::default().dealt_to(&request("GET / HTTP/1.1\r\n\r\n", ""), 3),
            None
        );
    }

    #[test]
    fn exchanges_are_chosen_by_their_requests_and_answers() {
        let asked = Arc::new(request("GET /a HTTP/1.1\r\n\r\n", ""));
        let with = |request| Exchange {
            connection: asked.connection,
            endpoints: asked.endpoints,
            request,
            response: None,
        };
        let (whole, orphan) = (with(Some(Arc::clone(&asked))), with(None));
        let choice = |rule: &str, percent: &str| Choice {
            select: Selection {
                only: vec![rule.parse().expect(rule)],
                ..Selection::default()
            },
            sample: Sample {
                percent: percent.parse().expect(percent),
                ..Sample::default()
            },
        };
        assert_eq!(Choice::default().refusal(&orphan), None);
        for (rule, percent, expected) in [
            ("path:/a", "100", None),
            ("path:/b", "100", Some(Reason::RecordFiltered)),
            ("status:2xx", "100", Some(Reason::RecordFiltered)),
            ("path:/a", "0", Some(Reason::RecordSampledOut)),
        ] {
            let choice = choice(rule, percent);
            assert_eq!(choice.refusal(&whole), expected, "{rule} {percent}");
            assert_eq!(choice.refusal(&orphan), Some(Reason::RecordFiltered));
        }
    }
}
