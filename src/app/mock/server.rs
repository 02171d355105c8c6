//! The server: calls of version 2, as requests to a host or to a forward proxy.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::handler::HandlerWithoutStateExt as _;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::api;
use crate::account::{Account, Reason};
use crate::cli::mock::{Job, Latency, MissAnswer, PassThrough};
use crate::mock::call::{Call, trace_id};
use crate::mock::stub::Answer;
use crate::mock::{Asked, Decision, Left, Level, Mock};
use crate::serve::{self, Bounds};
use crate::time::Timestamp;

/// What every connection shares.
pub struct Server {
    mock: Mutex<Mock>,
    /// Renewed with all news that calls may wait for.
    news: watch::Sender<u64>,
    began: Instant,
    latency: Latency,
    pass_through: Vec<PassThrough>,
    client: Option<reqwest::Client>,
    miss: Option<MissAnswer>,
    /// Names this run.
    pub(super) run: String,
}

impl Server {
    /// Serves `mock` as `job` has it.
    #[must_use]
    pub fn new(mock: Mock, job: &Job) -> Self {
        let client = if job.pass_through.is_empty() {
            None
        } else {
            crate::app::http_client()
                .inspect_err(|error| tracing::error!(%error, "--pass-through cannot be used"))
                .ok()
        };
        Self {
            mock: Mutex::new(mock),
            news: watch::channel(0).0,
            began: Instant::now(),
            latency: job.latency,
            pass_through: job.pass_through.clone(),
            client,
            miss: job.miss.clone(),
            run: format!("{:016x}", crate::app::now_minus(Duration::ZERO).as_nanos()),
        }
    }

    /// Serves until `stopped` is ready and every call has its answer.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        stopped: oneshot::Receiver<()>,
    ) -> anyhow::Result<()> {
        let handler = move |ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request| {
            let server = Arc::clone(&self);
            async move { server.handle(peer, request).await }
        };
        let stopped = async {
            let _ = stopped.await;
        };
        serve::serve(
            listener,
            handler.into_service(),
            Bounds::MOCK,
            None,
            stopped,
        )
        .await
        .context("serving")
    }

    /// Settles what is due; the account so far.
    pub fn beat(&self) -> Account {
        let now = self.now();
        let mut mock = self.mock();
        mock.shadows_mut().settle(now);
        let mut account = mock.account().clone();
        drop(mock);
        self.add_effects(&mut account);
        account
    }

    /// The account at the end.
    pub fn finish(&self) -> Account {
        let mut account = self.beat();
        let held = self.mock().held().0 as u64;
        account.drop_n(Reason::StubHeldAtEnd, held);
        account
    }

    fn add_effects(&self, account: &mut Account) {
        use crate::account::Counter::{
            SideEffectsChanged, SideEffectsExtra, SideEffectsMissing, SideEffectsSame,
        };
        for sum in self.mock().shadows().sums() {
            account.add(SideEffectsSame, sum.same);
            account.add(SideEffectsMissing, sum.missing);
            account.add(SideEffectsExtra, sum.extra);
            account.add(SideEffectsChanged, sum.changed);
        }
    }

    pub(super) fn mock(&self) -> MutexGuard<'_, Mock> {
        self.mock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::ZERO.after(self.began.elapsed())
    }

    pub(super) fn tell(&self) {
        self.news.send_modify(|news| *news += 1);
    }

    async fn handle(self: Arc<Self>, peer: SocketAddr, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let is_for_us = parts.uri.authority().is_none() && parts.uri.path().starts_with("/mock/");
        if parts.method == Method::CONNECT {
            self.mock().refused();
            return json_answer(
                StatusCode::NOT_IMPLEMENTED,
                &json!({
                    "error": "CONNECT is refused: it would carry TLS, which a mock cannot read",
                    "instead": "let version 2 call its provider by http://, with HTTP_PROXY set to this mock",
                }),
            );
        }
        let body = match to_bytes(body, MOST_BYTES).await {
            Ok(body) => body,
            Err(error) => {
                if !is_for_us {
                    self.mock().refused();
                }
                let error = json!({ "error": format!("the body cannot be read: {error}") });
                return json_answer(StatusCode::BAD_REQUEST, &error);
            }
        };
        if is_for_us {
            return api::handle(&self, &parts, body);
        }
        self.call(peer, parts, body).await
    }

    async fn call(&self, peer: SocketAddr, parts: Parts, body: Bytes) -> Response {
        if parts.headers.contains_key(PASSED) {
            self.mock().refused();
            let error = json!({ "error": "a call that was let through came back: the provider's name leads to the mock" });
            return json_answer(StatusCode::LOOP_DETECTED, &error);
        }
        let came = Instant::now();
        let fields = Fields(&parts.headers);
        let host = fields.get("host").unwrap_or_default();
        let trace = crate::http1::RequestHead::parse(fields.trace_head())
            .ok()
            .and_then(|head| trace_id(head.fields()));
        let target = parts.uri.to_string();
        let connection = {
            let mut hash = DefaultHasher::new();
            peer.hash(&mut hash);
            hash.finish()
        };
        let mut asked = {
            let mut mock = self.mock();
            let call = Call::new(
                parts.method.as_str(),
                &host,
                &target,
                body.clone(),
                trace,
                mock.ignored(),
            );
            mock.asked(call, Some(connection), self.now())
        };
        asked.may_pass = self.may_pass(&asked.call);
        let may_pass = asked.may_pass;
        let mut under_way = UnderWay {
            server: self,
            asked: Some(asked),
        };
        let mut news = self.news.subscribe();
        loop {
            let Some(asked) = under_way.asked.as_mut() else {
                unreachable!("taken only when it is answered")
            };
            let decision = {
                let mut mock = self.mock();
                // What has come so far is looked at now.
                news.borrow_and_update();
                mock.answer(asked, &|name| fields.get(name), self.now())
            };
            match decision {
                Decision::Answer { answer, level, why } => {
                    under_way.asked = None;
                    return self.answer(answer.as_deref(), level, &why, came).await;
                }
                Decision::Wait(_) if may_pass => {
                    return self.pass_through(under_way, &parts, body).await;
                }
                Decision::Miss(miss) => {
                    let why = miss.to_json(&asked.call);
                    under_way.asked = None;
                    return self.miss(&why, &miss.why);
                }
                Decision::Wait(at_most) => {
                    let until = tokio::time::Instant::now() + at_most;
                    loop {
                        tokio::select! {
                            () = tokio::time::sleep_until(until) => break,
                            changed = news.changed() => {
                                if changed.is_err() || self.mock().has_news(asked) {
                                    break;
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    async fn answer(
        &self,
        answer: Option<&Answer>,
        level: Level,
        why: &str,
        came: Instant,
    ) -> Response {
        let Some(answer) = answer else {
            let error = json!({
                "error": "version 1 made this call and got no answer",
                "why": why,
            });
            return marked(
                json_answer(StatusCode::GATEWAY_TIMEOUT, &error),
                level.name(),
                why,
            );
        };
        let takes = match self.latency {
            Latency::None => Duration::ZERO,
            Latency::Original => answer.took,
            Latency::Fixed(takes) => takes,
        };
        tokio::time::sleep_until((came + takes).into()).await;
        let mut response = Response::new(Body::from(answer.body.clone()));
        *response.status_mut() =
            StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
        for (name, value) in &answer.fields {
            if let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_bytes(value),
            ) {
                response.headers_mut().append(name, value);
            }
        }
        marked(response, level.name(), why)
    }

    fn miss(&self, why: &Value, short: &str) -> Response {
        let response = match &self.miss {
            None => json_answer(StatusCode::BAD_GATEWAY, why),
            Some(configured) => {
                let status =
                    StatusCode::from_u16(configured.status).unwrap_or(StatusCode::BAD_GATEWAY);
                match &configured.body {
                    None => json_answer(status, why),
                    Some(body) => {
                        let mut response = Response::new(Body::from(body.clone()));
                        *response.status_mut() = status;
                        response
                    }
                }
            }
        };
        marked(response, Level::Miss.name(), short)
    }

    fn may_pass(&self, call: &Call) -> bool {
        self.pass_through
            .iter()
            .any(|it| it.host == call.host && it.method == call.method)
    }

    async fn pass_through(
        &self,
        mut under_way: UnderWay<'_>,
        parts: &Parts,
        body: Bytes,
    ) -> Response {
        let host = under_way
            .asked
            .as_ref()
            .map(|asked| asked.call.host.clone());
        let passed = self
            .ask_provider(&host.unwrap_or_default(), parts, body)
            .await;
        if let Some(asked) = under_way.asked.take() {
            let left = if passed.is_ok() {
                Left::Passed
            } else {
                Left::NotPassed
            };
            self.mock().leave(&asked, left);
        }
        match passed {
            Ok(response) => marked(response, "pass-through", "let through by --pass-through"),
            Err(error) => json_answer(
                StatusCode::BAD_GATEWAY,
                &json!({ "error": "the provider, which the call was let through to, did not answer", "why": error }),
            ),
        }
    }

    async fn ask_provider(
        &self,
        host: &str,
        parts: &Parts,
        body: Bytes,
    ) -> Result<Response, String> {
        let client = self.client.as_ref().ok_or("there is no client")?;
        let path = parts.uri.path_and_query().map_or("/", |it| it.as_str());
        let mut request = client
            .request(parts.method.clone(), format!("http://{host}{path}"))
            .header(PASSED, "1")
            .body(body);
        for (name, value) in &parts.headers {
            if !is_of_connection(name) && *name != header::HOST {
                request = request.header(name, value);
            }
        }
        let with_causes = |error: reqwest::Error| format!("{:#}", anyhow::Error::from(error));
        let answer = request.send().await.map_err(with_causes)?;
        let status = answer.status();
        let headers = answer.headers().clone();
        let body = answer.bytes().await.map_err(with_causes)?;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        for (name, value) in &headers {
            if !is_of_connection(name) {
                response.headers_mut().append(name, value.clone());
            }
        }
        Ok(response)
    }
}

/// A call that has no answer yet; it is counted also when its caller goes away.
struct UnderWay<'a> {
    server: &'a Server,
    asked: Option<Asked>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.server.mock().leave(&asked, Left::CallerGone);
        }
    }
}

/// The fields of a call.
struct Fields<'a>(&'a HeaderMap);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let value = self.0.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// A head with the fields that tell a trace.
    fn trace_head(&self) -> Bytes {
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        for name in ["traceparent", "x-b3-traceid", "b3", "x-request-id"] {
            if let Some(value) = self.0.get(name) {
                head.extend_from_slice(name.as_bytes());
                head.extend_from_slice(b": ");
                head.extend_from_slice(value.as_bytes());
                head.extend_from_slice(b"\r\n");
            }
        }
        head.extend_from_slice(b"\r\n");
        head.into()
    }
}

fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "content-length"
    )
}

fn marked(mut response: Response, level: &'static str, why: &str) -> Response {
    let headers = response.headers_mut();
    headers.insert(
        HeaderName::from_static("shadowtap-mock"),
        HeaderValue::from_static(level),
    );
    let why = crate::report::printable(why.as_bytes());
    if let Ok(why) = HeaderValue::from_str(&why) {
        headers.insert(HeaderName::from_static("shadowtap-mock-why"), why);
    }
    response
}

pub(super) fn json_answer(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(format!("{value:#}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// Marks a call that was let through, so that it is known when it comes back.
const PASSED: HeaderName = HeaderName::from_static("shadowtap-mock-passed");

/// The largest body of a call or a feed.
const MOST_BYTES: usize = 64 << 20;
