//! The sender for `https` targets: TLS and, where the target prefers it, HTTP/2.
//!
//! reqwest understands requests instead of copying them, so less is kept than by the `wire` sender:
//! * its URL type resolves `/a/../b` to `/b` and percent-encodes what may not stand in a URL; a target that is not a path
//!   (`*`) becomes `/`;
//! * field names are sent in lower case and repeated ones together; fields that concern one connection only (RFC 9110
//!   §7.6.1) and `Expect` are left out;
//! * a request without `Accept` gets `accept: */*`, which means the same (RFC 9110 §12.5.1);
//! * chunk layout, chunk extensions and trailers are lost: the content is sent with its length;
//! * target connections are pooled, not one for each captured connection; connecting is part of the measured time.
//!
//! HTTP/2 has a single authority, the target's own, so it is offered only where
//! [`HostPolicy::Target`](super::HostPolicy::Target) makes that the `Host` as well.

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body as RequestBody, Certificate, Client, Method, Url, Version};
use tokio::time::{timeout, timeout_at};

use super::items::Items;
use super::outcome::Ticket;
use super::outgoing::{PARENT_ID, child_of, host_with_suffix};
use super::shared::{Shared, later};
use super::worker::{Failure, Sender};
use super::{Answer, HostPolicy, ReplayConfig, StartError, TargetState, Timings, Tls, TracePolicy};
use crate::account::Reason;
use crate::exchange::{Completeness, Doubts, Request, Response};
use crate::http1::path_begin;
use crate::http1::{Body, Framing, ResponseHead, unfold};

/// Makes the client that the slots of one worker share.
pub(super) fn client(shared: &Arc<Shared>) -> Result<Client, StartError> {
    // The error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = &shared.config;
    let fail = |error: reqwest::Error| StartError::Tls(with_causes(&error));
    let mut builder = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .tcp_nodelay(true)
        .connect_timeout(config.deadlines.connect)
        .pool_idle_timeout(config.idle)
        .pool_max_idle_per_host(config.max_connections.get())
        .dns_resolver(KnownAddresses(Arc::clone(shared)));
    if config.host != HostPolicy::Target {
        builder = builder.http1_only();
    }
    builder = match &config.tls {
        Tls::System => builder,
        Tls::Authorities(pem) => {
            builder.tls_certs_only(Certificate::from_pem_bundle(pem).map_err(fail)?)
        }
        Tls::AcceptInvalid => builder.tls_danger_accept_invalid_certs(true),
    };
    builder.build().map_err(fail)
}

/// Sends through a client whose connections are pooled.
pub(super) struct ReqwestSender {
    shared: Arc<Shared>,
    client: Client,
}

impl ReqwestSender {
    pub(super) fn new(shared: Arc<Shared>, client: Client) -> Self {
        Self { shared, client }
    }

    /// The reason in a failed call to the client.
    fn reason(&self, error: &reqwest::Error) -> Reason {
        match error {
            _ if error.is_connect() && !self.shared.target.borrow().is_resolved() => {
                Reason::ResolveFailed
            }
            _ if error.is_connect() && error.is_timeout() => Reason::ConnectTimeout,
            _ if error.is_connect() => Reason::ConnectFailed,
            _ => Reason::ConnectionLost,
        }
    }
}

impl Sender for ReqwestSender {
    async fn send(
        &mut self,
        ticket: &mut Ticket,
        _items: &mut Items,
    ) -> Result<Box<Answer>, Failure> {
        let config = &self.shared.config;
        let deadlines = config.deadlines;
        let Some(request) = build(&ticket.request, config) else {
            // Only a request that the parser had doubts about gets here.
            return Err(Failure::early(Reason::Ambiguous));
        };
        let sent = Instant::now();
        let lateness = sent.saturating_duration_since(ticket.due);
        // When the client writes the first byte it does not say; from here on it may have.
        ticket.note_sent(lateness);
        let head = timeout(
            deadlines.connect.saturating_add(deadlines.first_byte),
            self.client.execute(request),
        );
        let mut response = match head.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let reason = self.reason(&error);
                if error.is_connect() {
                    self.shared.note_trouble(with_causes(&error));
                } else {
                    tracing::debug!(error = with_causes(&error), "not answered");
                }
                return Err(Failure::early(reason));
            }
            Err(_) => return Err(Failure::early(Reason::FirstByteTimeout)),
        };
        let began = Instant::now();
        let failure = |reason| Failure {
            reason,
            answer_began: true,
        };
        let head = head_of(&response).ok_or(failure(Reason::AnswerMalformed))?;
        let mut content = BytesMut::new();
        let mut length = 0;
        loop {
            let limit = later(sent, deadlines.answer);
            let chunk = match timeout_at(limit.into(), response.chunk()).await {
                Ok(Ok(Some(chunk))) if Instant::now() < limit => chunk,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    tracing::debug!(error = with_causes(&error), "answer cut");
                    return Err(failure(Reason::AnswerCut));
                }
                Ok(Ok(Some(_))) | Err(_) => return Err(failure(Reason::AnswerTimeout)),
            };
            length += chunk.len();
            if length <= config.max_answer {
                content.extend_from_slice(&chunk);
            } else {
                content = BytesMut::new();
            }
        }
        let ended = Instant::now();
        let is_whole = length <= config.max_answer;
        let clock = &self.shared.clock;
        Ok(Box::new(Answer {
            response: Response {
                first_byte: clock.wall(began),
                last_byte: clock.wall(ended),
                interim: Vec::new(),
                head,
                body: Body {
                    framing: if length == 0 {
                        Framing::None
                    } else {
                        Framing::Length(length as u64)
                    },
                    wire: content.freeze(),
                    missing: if is_whole { 0 } else { length as u64 },
                },
                doubts: Doubts::default(),
                completeness: if is_whole {
                    Completeness::Whole
                } else {
                    Completeness::Incomplete(Reason::ResponseTooLarge)
                },
            },
            timings: Timings {
                lateness,
                writing: Duration::ZERO,
                first_byte: began.saturating_duration_since(sent),
                total: ended.saturating_duration_since(sent),
                reused: false,
                round_trip: None,
                unread: Duration::ZERO,
            },
        }))
    }

    fn next_begun(&mut self) -> Option<Ticket> {
        None
    }

    fn watch(&mut self, _context: &mut Context<'_>) {}

    fn hang_up(&mut self) {}
}

/// Hands reqwest the addresses that the engine's own resolver keeps.
struct KnownAddresses(Arc<Shared>);

impl reqwest::dns::Resolve for KnownAddresses {
    fn resolve(&self, _name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let mut state = self.0.target.subscribe();
        Box::pin(async move {
            let state = state
                .wait_for(|state| *state != TargetState::Asking)
                .await?
                .clone();
            match state {
                TargetState::Resolved(addresses) => {
                    Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
                }
                TargetState::Unresolved(error) => Err(error.into()),
                TargetState::Asking => Err(io::Error::from(io::ErrorKind::NotFound).into()),
            }
        })
    }
}

/// The request as reqwest takes it; `None` if its method or URL is beyond reqwest.
fn build(request: &Request, config: &ReplayConfig) -> Option<reqwest::Request> {
    let head = &request.head;
    let method = Method::from_bytes(head.method()).ok()?;
    let mut built = reqwest::Request::new(method, url(head.target(), config)?);
    if head.is_http10() && config.host != HostPolicy::Target {
        *built.version_mut() = Version::HTTP_10;
    }
    *built.headers_mut() = fields(request, config);
    if request.body.framing != Framing::None {
        let content = match request.body.framing {
            Framing::Chunked => Bytes::from(request.body.content().into_owned()),
            _ => request.body.wire.clone(),
        };
        *built.body_mut() = Some(RequestBody::from(content));
    }
    Some(built)
}

fn url(target: &[u8], config: &ReplayConfig) -> Option<Url> {
    let path = path_begin(target).map_or(&[][..], |at| &target[at..]);
    let base = &config.target;
    let mut text = format!(
        "{}://{}{}",
        base.scheme().name(),
        base.authority(),
        base.base_path()
    );
    for &byte in path {
        // A `#` would begin a fragment, which is never sent.
        if byte.is_ascii_graphic() && byte != b'#' {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").ok()?;
        }
    }
    Url::parse(&text).ok()
}

fn fields(request: &Request, config: &ReplayConfig) -> HeaderMap {
    let fields = request.head.fields();
    let mut map = HeaderMap::with_capacity(fields.len() + 1);
    for (name, value) in fields.iter() {
        let is = |other: &&str| name.eq_ignore_ascii_case(other.as_bytes());
        let named_by_connection = || {
            fields
                .elements("connection")
                .any(|option| option.eq_ignore_ascii_case(name))
        };
        if NOT_FORWARDED.iter().any(is) || named_by_connection() {
            continue;
        }
        let is_trace = is(&"traceparent") || is(&"tracestate");
        if is_trace && config.trace == TracePolicy::Drop {
            continue;
        }
        let value = if is(&"traceparent") && config.trace == TracePolicy::Child {
            let mut value = value.to_vec();
            if let Some(child) = child_of(&value, request.id) {
                value.splice(PARENT_ID, child.into_bytes());
            }
            value
        } else if is(&"host") {
            match &config.host {
                HostPolicy::Keep => value.to_vec(),
                HostPolicy::Suffix(suffix) => host_with_suffix(value, suffix.as_str()),
                HostPolicy::Set(host) => host.as_str().as_bytes().to_vec(),
                // The client writes it from the URL.
                HostPolicy::Target => continue,
            }
        } else {
            unfold(value).into_owned()
        };
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_maybe_shared(Bytes::from(value)),
        ) {
            map.append(name, value);
        }
    }
    if let Some(marker) = &config.marker
        && let Ok(name) = HeaderName::from_bytes(marker.as_str().as_bytes())
    {
        map.append(name, HeaderValue::from_static("1"));
    }
    map
}

/// The head as HTTP/1 would have it, without the framing that reqwest has undone.
fn head_of(response: &reqwest::Response) -> Option<ResponseHead> {
    let status = response.status();
    let version = match response.version() {
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("{version} {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in response.headers() {
        if name != "transfer-encoding" {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes.extend_from_slice(b"\r\n");
    ResponseHead::parse(Bytes::from(bytes)).ok()
}

/// An error and what caused it, in one line: reqwest's own text rarely says.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    // What the usual command for a self-made certificate gives; the library's word for it says little.
    if text.contains("CaUsedAsEndEntity") {
        text += "; the server shows the certificate of an authority as its own: give it one that this authority signed, or \
                 use --tls-insecure";
    }
    text
}

/// Fields that concern one connection only, and those that the client writes itself.
const NOT_FORWARDED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
