//! The verdict for programs and for the dashboard.
//!
//! `/verdict` answers 200 whatever the verdict is, also before anything was judged: Argo Rollouts takes anything else for a
//! failed measurement. Flagger's webhooks know 200 and "not yet", so each decision has a path of its own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use reqwest::Url;
use serde::Serialize;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::account::{Account, Counter, Reason, Stage};
use crate::app::compare::Comparing;
use crate::compare::DifferenceKind;
use crate::judge::{Buckets, Completeness, Decision, Docket, Tolerances, Verdict};

/// What the admin server knows of both versions.
#[derive(Clone, Debug)]
pub struct Source {
    /// How much worse version 2 may be.
    pub tolerances: Tolerances,
    /// Version 2, as the user wrote it.
    pub target: Option<String>,
    /// Whether examples show credentials as they were captured.
    pub reveals: bool,
    /// What was found so far; nothing before the program has begun.
    pub findings: watch::Receiver<Option<Findings>>,
}

/// What was found so far.
#[derive(Clone)]
pub struct Findings {
    /// The answers of both; `None` where they are not compared.
    pub comparing: Option<Comparing>,
    /// How much of the traffic was judged.
    pub completeness: Completeness,
    /// Everything that was counted.
    pub account: Account,
}

impl std::fmt::Debug for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Findings")
            .field("completeness", &self.completeness)
            .finish_non_exhaustive()
    }
}

/// The routes.
pub(super) fn routes(source: Source) -> Router {
    Router::new()
        .route("/verdict", get(verdict))
        .route("/flagger/confirm-promotion", post(confirm_promotion))
        .route("/flagger/rollback", post(rollback))
        .route("/api/tally", get(tally))
        .route("/api/latency", get(latency))
        .route("/api/examples", get(examples))
        .route("/api/events", get(events))
        .with_state(Arc::new(Desk {
            source,
            instance: format!("{:016x}", RandomState::new().hash_one("instance")),
            latest: Mutex::new(None),
            watchers: Arc::new(Semaphore::new(MOST_WATCHERS)),
        }))
}

/// So many may look at the dashboard at a time.
const MOST_WATCHERS: usize = 16;

/// How often the dashboard gets something new.
const EVERY: Duration = Duration::from_secs(1);

struct Desk {
    source: Source,
    /// Tells this run of the program from all others.
    instance: String,
    /// What all who look at the dashboard get, computed once for all of them.
    latest: Mutex<Option<(Instant, Bytes)>>,
    watchers: Arc<Semaphore>,
}

impl Desk {
    /// The latest findings, and everything that a verdict is made of.
    fn docket(&self) -> Docket {
        let findings = self.source.findings.borrow().clone();
        let (instance, tolerances) = (self.instance.clone(), self.source.tolerances);
        match findings {
            None => Docket {
                instance,
                tolerances,
                ..Docket::default()
            },
            Some(findings) => Docket {
                instance,
                tolerances,
                completeness: findings.completeness,
                tally: findings
                    .comparing
                    .map(|it| it.tally_of_the_present())
                    .unwrap_or_default(),
            },
        }
    }

    /// The verdict; on a thread of its own, since many endpoints take their time.
    async fn verdict(self: &Arc<Self>) -> Verdict {
        let desk = Arc::clone(self);
        let weighed = tokio::task::spawn_blocking(move || desk.docket().verdict()).await;
        let mut verdict = weighed.unwrap_or_else(|_| Docket::default().verdict());
        let findings = self.source.findings.borrow();
        if findings.as_ref().is_some_and(|it| it.comparing.is_none()) {
            verdict.reasons = vec!["the answers are not compared here".to_owned()];
        }
        verdict
    }

    fn comparing(&self) -> Option<Comparing> {
        self.source.findings.borrow().as_ref()?.comparing.clone()
    }

    /// One event for the dashboard.
    async fn event(self: &Arc<Self>) -> Bytes {
        let mut latest = self.latest.lock().await;
        if let Some((at, event)) = &*latest
            && at.elapsed() < EVERY / 2
        {
            return event.clone();
        }
        let verdict = self.verdict().await;
        let account = self
            .source
            .findings
            .borrow()
            .as_ref()
            .map(|it| it.account.clone());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let event = Event {
            at: now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
            version: env!("CARGO_PKG_VERSION"),
            target: self.source.target.as_deref(),
            reveals: self.source.reveals,
            live: Live::of(&account.unwrap_or_default()),
            verdict,
        };
        let json = serde_json::to_string(&event).unwrap_or_default();
        let event = Bytes::from(format!("data: {json}\n\n"));
        *latest = Some((Instant::now(), event.clone()));
        event
    }
}

/// What `/verdict` says.
#[derive(Serialize)]
struct Data<'a> {
    data: &'a Verdict,
    summary: Summary<'a>,
}

/// The verdict without the endpoints. Argo keeps what it measures in its AnalysisRun, ten times over, and a cluster stores no object
/// that is larger than a megabyte and a half: that is less than a few hundred endpoints and fields take.
#[derive(Serialize)]
struct Summary<'a> {
    ok: bool,
    verdict: Decision,
    completeness: f64,
    requests: u64,
    needs: Option<u64>,
    reasons: Vec<Cow<'a, str>>,
}

impl<'a> Summary<'a> {
    fn of(verdict: &'a Verdict) -> Self {
        let short = |reason: &'a String| match reason.char_indices().nth(LONGEST_REASON) {
            Some((end, _)) => Cow::Owned(format!("{}…", &reason[..end])),
            None => Cow::Borrowed(reason.as_str()),
        };
        Self {
            ok: verdict.ok,
            verdict: verdict.verdict,
            completeness: verdict.completeness,
            requests: verdict.requests,
            needs: verdict.needs,
            reasons: verdict
                .reasons
                .iter()
                .take(MOST_REASONS)
                .map(short)
                .collect(),
        }
    }
}

/// A summary has so many reasons.
const MOST_REASONS: usize = 5;

/// Each of so many characters.
const LONGEST_REASON: usize = 300;

async fn verdict(State(desk): State<Arc<Desk>>) -> Response {
    let verdict = desk.verdict().await;
    json(&Data {
        data: &verdict,
        summary: Summary::of(&verdict),
    })
}

async fn tally(State(desk): State<Arc<Desk>>) -> Response {
    json(&desk.docket())
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn confirm_promotion(State(desk): State<Arc<Desk>>) -> Response {
    webhook(&desk.verdict().await, Decision::Promote)
}

async fn rollback(State(desk): State<Arc<Desk>>) -> Response {
    webhook(&desk.verdict().await, Decision::Reject)
}

/// Flagger copies the text into an event of the canary.
fn webhook(verdict: &Verdict, wanted: Decision) -> Response {
    let status = if verdict.verdict == wanted {
        StatusCode::OK
    } else {
        StatusCode::CONFLICT
    };
    let reason = verdict.reasons.first().map_or("", String::as_str);
    (status, format!("{}: {reason}\n", verdict.verdict)).into_response()
}

/// A parameter of a query; empty where it is missing.
fn parameter(query: Option<&str>, name: &str) -> String {
    let url = Url::parse(&format!("http://localhost/?{}", query.unwrap_or_default()));
    let pair = url.ok().and_then(|url| {
        let found = url.query_pairs().find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    });
    pair.unwrap_or_default()
}

/// Latencies of an endpoint: pairs of microseconds and how many answers took at most that and more than the pair before.
#[derive(Serialize, Default)]
struct Latencies {
    v1: Vec<(u64, u64)>,
    v2: Vec<(u64, u64)>,
    control: Vec<(u64, u64)>,
}

async fn latency(State(desk): State<Arc<Desk>>, RawQuery(query): RawQuery) -> Response {
    let endpoint = parameter(query.as_deref(), "endpoint");
    let pairs = |buckets: &Buckets| buckets.iter().collect();
    let tally = desk.docket().tally;
    json(&match tally.endpoints.get(endpoint.as_str()) {
        None => Latencies::default(),
        Some(endpoint) => Latencies {
            v1: pairs(&endpoint.latency.v1),
            v2: pairs(&endpoint.latency.v2),
            control: pairs(&endpoint.latency.control),
        },
    })
}

async fn examples(State(desk): State<Arc<Desk>>, RawQuery(query): RawQuery) -> Response {
    let query = query.as_deref();
    let kind = parameter(query, "kind");
    let kind = DifferenceKind::ALL.into_iter().find(|it| it.name() == kind);
    let found = desk.comparing().zip(kind).map(|(comparing, kind)| {
        let (endpoint, field) = (parameter(query, "endpoint"), parameter(query, "field"));
        comparing.examples(&endpoint, &field, kind)
    });
    json(&found.unwrap_or_default())
}

/// What the dashboard gets once a second.
#[derive(Serialize)]
struct Event<'a> {
    /// When this was so, in milliseconds since 1970.
    at: u64,
    version: &'a str,
    target: Option<&'a str>,
    reveals: bool,
    live: Live,
    verdict: Verdict,
}

/// Sums of the account.
#[derive(Serialize)]
struct Live {
    seen: u64,
    replayed: u64,
    judged: u64,
    lost: u64,
    aside: u64,
    packets_lost: u64,
    reasons: BTreeMap<&'static str, u64>,
}

impl Live {
    fn of(account: &Account) -> Self {
        let (mut lost, mut aside) = (0, 0);
        let mut reasons = BTreeMap::new();
        for &reason in Reason::ALL {
            let count = account.dropped(reason);
            let of_requests = matches!(
                reason.stage(),
                Stage::Request | Stage::Replay | Stage::Compare
            );
            if count == 0 || !of_requests {
                continue;
            }
            if reason.intentional() {
                aside += count;
            } else {
                lost += count;
            }
            reasons.insert(reason.name(), count);
        }
        Self {
            seen: account.get(Counter::Requests),
            replayed: account.get(Counter::ReplaysAnswered),
            judged: account.get(Counter::ComparesJudged),
            lost,
            aside,
            packets_lost: account.dropped_at(Stage::Capture),
            reasons,
        }
    }
}

async fn events(State(desk): State<Arc<Desk>>) -> Response {
    let Ok(permit) = Arc::clone(&desk.watchers).try_acquire_owned() else {
        let text = "too many look at this already\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = sender.closed() => return,
                _ = beat.tick() => {}
            }
            if sender.send(desk.event().await).await.is_err() {
                return;
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let body = Body::new(Events {
        receiver,
        _permit: permit,
    });
    (headers, body).into_response()
}

/// A body that goes on until whoever reads it has gone.
struct Events {
    receiver: mpsc::Receiver<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        self.receiver
            .poll_recv(context)
            .map(|event| event.map(|event| Ok(http_body::Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_fits_into_an_analysis_run() {
        let verdict = Verdict {
            reasons: vec!["ü".repeat(1000); 1000],
            ..Docket::default().verdict()
        };
        let summary = serde_json::to_string(&Summary::of(&verdict)).expect("JSON");
        assert!(summary.len() < 10_000, "{}", summary.len());
        let whole = serde_json::to_value(&verdict).expect("JSON");
        let summary = serde_json::to_value(Summary::of(&verdict)).expect("JSON");
        for field in ["ok", "verdict", "completeness", "requests", "needs"] {
            assert_eq!(summary[field], whole[field], "{field}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let query = Some("endpoint=GET+%2Fa%2F%7Bid%7D&field=body.x");
        assert_eq!(parameter(query, "endpoint"), "GET /a/{id}");
        assert_eq!(parameter(query, "field"), "body.x");
        assert_eq!(parameter(query, "kind"), "");
        assert_eq!(parameter(None, "kind"), "");
    }
}
