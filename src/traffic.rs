//! What of the traffic is replayed, how much of it, and changed how: pure functions of a request.
//!
//! ```text
//!  request ─► select: --only, --except, --safe-only ─► sample: --percent ─► rewrite ─► the engine of each target
//! ```
//!
//! Selecting and sampling look at the request as it was captured. `docs/filters.md` describes what may be written.

pub mod limit;
mod pattern;
pub mod rewrite;
pub mod sample;
pub mod select;
mod values;

use std::sync::Arc;

use crate::account::Reason;
use crate::exchange::Request;

pub use limit::{Rate, TokenBucket};
pub use pattern::RuleError;
pub use rewrite::Rewrite;
pub use sample::{Percent, Sample, SampleBy};
pub use select::{Rule, Selection};
pub use values::byte_size;

/// Everything that was asked about which requests are replayed, and how.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Which are.
    pub select: Selection,
    /// How much of that.
    pub sample: Sample,
    /// What is changed in it.
    pub rewrite: Rewrite,
}

impl Traffic {
    /// Why `request` is not replayed, if it is not. `status` is version 1's answer to it, where that is known.
    #[must_use]
    pub fn refusal(&self, request: &Request, status: Option<u16>) -> Option<Reason> {
        if !self.select.takes(request, status) {
            return Some(Reason::Filtered);
        }
        if !self.sample.takes(request) {
            return Some(Reason::SampledOut);
        }
        None
    }

    /// `request` as it is to be replayed.
    ///
    /// # Errors
    /// That the rewriting would not leave a request.
    pub fn rewritten(&self, request: &Arc<Request>) -> Result<Arc<Request>, Reason> {
        if self.rewrite.is_nothing() {
            return Ok(Arc::clone(request));
        }
        match self.rewrite.head(request) {
            Ok(None) => Ok(Arc::clone(request)),
            Ok(Some(head)) => Ok(Arc::new(Request {
                head,
                ..Request::clone(request)
            })),
            Err(_) => Err(Reason::NotRewritable),
        }
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
        assert_eq!(Traffic::default().refusal(&request, None), None);
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
        let refusal = |head: &str| traffic.refusal(&request(head, ""), None);
        assert_eq!(refusal("GET / HTTP/1.1\r\n\r\n"), Some(Reason::Filtered));
        assert_eq!(refusal("PUT / HTTP/1.1\r\n\r\n"), Some(Reason::SampledOut));
    }
}
