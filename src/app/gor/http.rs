//! `--output-http`: an engine for the target, and one for each place that redirects lead to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use anyhow::Context as _;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::super::middleware::replayed_record;
use super::Common;
use crate::account::Reason;
use crate::cli::gor::HttpOutput;
use crate::exchange::{Completeness, ConnectionId, ExchangeId, Request};
use crate::goreplay::set_host;
use crate::http1::{Body, RequestHead};
use crate::record::gor::{Record, connection_of};
use crate::replay::{
    Budget, Engine, EngineHandle, Feeder, HostPolicy, Outcome, Permit, Replay, ReplayConfig, Target,
};
use crate::report::TargetSummary;

/// What is known of a request that is under way.
struct Sent {
    id: Bytes,
    redirects: u32,
}

/// What the engines of one output share.
struct Tracking {
    common: Arc<Common>,
    track: bool,
    most_redirects: u32,
    sent: Mutex<AHashMap<ExchangeId, Sent>>,
    /// Taken away when nothing more is to be followed.
    follow: Mutex<Option<Sender<Follow>>>,
    room_to_follow: Arc<Budget>,
}

/// A redirect that is to be followed.
struct Follow {
    request: Arc<Request>,
    status: u16,
    location: String,
    sent: Sent,
    _room: Permit,
}

pub(super) struct HttpSender {
    name: String,
    engine: Engine,
    handle: EngineHandle,
    feeder: Feeder,
    tracking: Arc<Tracking>,
    /// The host that a target in absolute form gets.
    host: Option<String>,
    requests: Arc<AtomicU64>,
    following: Option<JoinHandle<Vec<TargetSummary>>>,
    stats: Option<Stats>,
}

impl HttpSender {
    pub(super) fn start(config: &HttpOutput, common: &Arc<Common>) -> anyhow::Result<Self> {
        let name = config.config.target.to_string();
        let (follow, to_follow) = (config.redirects > 0)
            .then(|| bounded(MOST_TO_FOLLOW))
            .unzip();
        let tracking = Arc::new(Tracking {
            common: Arc::clone(common),
            track: config.track,
            most_redirects: config.redirects,
            sent: Mutex::default(),
            follow: Mutex::new(follow),
            room_to_follow: Budget::new(MOST_TO_FOLLOW, MOST_TO_FOLLOW_BYTES),
        });
        let engine = engine(config.config.clone(), &tracking)
            .with_context(|| format!("--output-http {name}"))?;
        let requests = Arc::new(AtomicU64::new(0));
        let following = match to_follow {
            None => None,
            Some(to_follow) => {
                let follower = Follower {
                    config: config.config.clone(),
                    tracking: Arc::clone(&tracking),
                    requests: Arc::clone(&requests),
                    engines: AHashMap::new(),
                };
                let thread = thread::Builder::new()
                    .name("follow".to_owned())
                    .spawn(move || follower.run(&to_follow))
                    .context("starting a thread")?;
                Some(thread)
            }
        };
        let host =
            (config.config.host == HostPolicy::Target).then(|| config.config.target.authority());
        Ok(Self {
            handle: engine.handle(),
            feeder: engine.feeder(),
            engine,
            tracking,
            host,
            requests,
            following,
            stats: config.stats.map(|every| Stats::new("output_http", every)),
            name,
        })
    }

    /// Sends the request that a record holds; `false` when it holds none.
    pub(super) fn send(&mut self, record: &Record, is_within_limit: bool) -> bool {
        let is_absolute = memchr::memmem::find(&record.payload, b" http").is_some();
        let rewritten = match &self.host {
            Some(host) if is_absolute => {
                let mut payload = record.payload.to_vec();
                set_host(&mut payload, host);
                Record {
                    payload: payload.into(),
                    ..record.clone()
                }
            }
            _ => record.clone(),
        };
        let Some((head, body, doubts)) = rewritten.request() else {
            return false;
        };
        let (connection, endpoints) = connection_of(&record.id);
        let id = ExchangeId(self.requests.fetch_add(1, Ordering::Relaxed));
        let request = Arc::new(Request {
            id,
            connection: ConnectionId(connection),
            endpoints,
            first_byte: record.time,
            last_byte: record.time.after(record.latency.unwrap_or_default()),
            head,
            body,
            doubts,
            completeness: Completeness::Whole,
        });
        self.tracking.common.offered.fetch_add(1, Ordering::AcqRel);
        if is_within_limit {
            let redirects = 0;
            self.tracking.remember(id, record.id.clone(), redirects);
            self.feeder.offer_due(request, Instant::now(), false);
        } else {
            self.feeder.skip(request, Reason::RateLimited);
        }
        self.feeder.flush();
        true
    }

    /// Prints the queue, if that is asked for and due.
    pub(super) fn tick(&mut self) {
        if let Some(stats) = &mut self.stats
            && stats.is_due()
        {
            stats.add(self.handle.condition().queued_items as u64);
        }
    }

    /// Ends the engine, and those of its redirects; how it went.
    pub(super) fn finish(self, until: Instant) -> Vec<TargetSummary> {
        drop(self.feeder);
        let snapshot = self
            .engine
            .drain(until.saturating_duration_since(Instant::now()));
        let mut summaries = vec![super::super::target_summary(self.name, snapshot)];
        // Nobody brings a redirect any more; those that wait are still followed.
        drop(lock(&self.tracking.follow).take());
        if let Some(following) = self.following {
            match following.join() {
                Ok(followed) => summaries.extend(followed),
                Err(_) => tracing::error!("the thread that follows redirects panicked"),
            }
        }
        summaries
    }
}

fn engine(config: ReplayConfig, tracking: &Arc<Tracking>) -> anyhow::Result<Engine> {
    let common = Arc::clone(&tracking.common);
    let tracking = Arc::clone(tracking);
    let engine = Engine::start(config, move |replay| tracking.settled(&replay))?;
    common.note_engine(engine.handle());
    Ok(engine)
}

impl Tracking {
    fn remember(&self, id: ExchangeId, record: Bytes, redirects: u32) {
        if self.track || self.most_redirects > 0 {
            let sent = Sent {
                id: record,
                redirects,
            };
            lock(&self.sent).insert(id, sent);
        }
    }

    /// On an engine's thread: what became of a request.
    fn settled(&self, replay: &Replay) {
        let sent = lock(&self.sent).remove(&replay.request.id);
        if let (Some(sent), Outcome::Answered(answer)) = (sent, &replay.outcome) {
            let head = &answer.response.head;
            let location = head
                .fields()
                .get("location")
                .and_then(|value| str::from_utf8(value).ok());
            let is_redirect = matches!(head.status(), 301 | 302 | 303 | 307 | 308);
            if let Some(location) = location
                && is_redirect
                && sent.redirects < self.most_redirects
            {
                let bytes = replay.request.head.bytes().len() + replay.request.body.wire.len();
                let redirect = self
                    .room_to_follow
                    .try_take(bytes, u32::MAX)
                    .map(|room| Follow {
                        request: Arc::clone(&replay.request),
                        status: head.status(),
                        location: location.to_owned(),
                        sent,
                        _room: room,
                    });
                // The one that it leads to is under way before this one is settled.
                let is_followed = redirect.is_ok_and(|redirect| {
                    lock(&self.follow)
                        .as_ref()
                        .is_some_and(|follow| follow.try_send(redirect).is_ok())
                });
                if is_followed {
                    return;
                }
                tracing::debug!("too many redirects wait to be followed");
            } else if self.track && answer.response.completeness.is_whole() {
                self.common.track(replayed_record(sent.id, answer));
            }
        }
        self.common.settled.fetch_add(1, Ordering::AcqRel);
    }
}

/// Sends what redirects ask for.
struct Follower {
    config: ReplayConfig,
    tracking: Arc<Tracking>,
    requests: Arc<AtomicU64>,
    engines: AHashMap<String, (Engine, Feeder)>,
}

impl Follower {
    fn run(mut self, redirects: &Receiver<Follow>) -> Vec<TargetSummary> {
        for redirect in redirects {
            if let Err(why) = self.follow(&redirect) {
                tracing::debug!(
                    location = redirect.location,
                    why,
                    "a redirect is not followed"
                );
            }
            self.tracking.common.settled.fetch_add(1, Ordering::AcqRel);
        }
        let until = self.tracking.common.until();
        self.engines
            .into_iter()
            .map(|(name, (engine, feeder))| {
                drop(feeder);
                let rest = until.saturating_duration_since(Instant::now());
                super::super::target_summary(format!("{name} (redirects)"), engine.drain(rest))
            })
            .collect()
    }

    /// Sends the request again to where the redirect leads.
    fn follow(&mut self, redirect: &Follow) -> Result<(), &'static str> {
        let own = origin(&self.config.target);
        let (place, path) = resolve(&own, redirect.request.head.target(), &redirect.location)
            .ok_or("it leads nowhere")?;
        let target: Target = place.parse().map_err(|_| "it leads nowhere")?;
        let is_elsewhere = place != own;
        let (head, body) = redirected(redirect, &path, is_elsewhere.then(|| target.authority()))
            .ok_or("it makes no request")?;
        if self.engines.len() >= MOST_PLACES && !self.engines.contains_key(&place) {
            return Err("redirects lead to too many places");
        }
        if !self.engines.contains_key(&place) {
            let config = ReplayConfig {
                target,
                ..self.config.clone()
            };
            let engine = engine(config, &self.tracking).map_err(|_| "no engine can be started")?;
            let feeder = engine.feeder();
            self.engines.insert(place.clone(), (engine, feeder));
        }
        let Some((_, feeder)) = self.engines.get_mut(&place) else {
            return Err("no engine can be started");
        };
        let id = ExchangeId(self.requests.fetch_add(1, Ordering::Relaxed));
        let request = Request {
            id,
            head,
            body,
            ..Request::clone(&redirect.request)
        };
        let Sent {
            id: record,
            redirects,
        } = &redirect.sent;
        self.tracking.remember(id, record.clone(), redirects + 1);
        self.tracking.common.offered.fetch_add(1, Ordering::AcqRel);
        feeder.offer_due(Arc::new(request), Instant::now(), false);
        feeder.flush();
        Ok(())
    }
}

/// The scheme, host and port of a target.
fn origin(target: &Target) -> String {
    format!("{}://{}", target.scheme().name(), target.authority())
}

/// Where `location` leads from a request of `target` to `own`: the place, and path and query there (RFC 3986 §5.2, as far as
/// servers use it).
fn resolve(own: &str, target: &[u8], location: &str) -> Option<(String, String)> {
    let location = location.split('#').next().unwrap_or_default();
    let is_absolute = location.starts_with("http://") || location.starts_with("https://");
    let (place, path) = if is_absolute || location.starts_with("//") {
        let scheme = own.split("//").next().unwrap_or_default();
        let whole = if is_absolute {
            location.to_owned()
        } else {
            format!("{scheme}{location}")
        };
        let host = whole.find("//")? + 2;
        let end = whole[host..]
            .find(['/', '?'])
            .map_or(whole.len(), |at| host + at);
        (whole[..end].to_owned(), whole[end..].to_owned())
    } else {
        let target = str::from_utf8(target).ok()?;
        let path = target.split('?').next().unwrap_or_default();
        let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
        let path = match location.as_bytes().first() {
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{path}{location}"),
            Some(_) => format!("{folder}{location}"),
            None => return None,
        };
        (own.to_owned(), path)
    };
    let path = if path.starts_with('/') {
        path
    } else {
        format!("/{path}")
    };
    path.bytes()
        .all(|byte| byte.is_ascii_graphic())
        .then_some((place, path))
}

/// The request that a redirect asks for: 301, 302 and 303 turn what is neither GET nor HEAD into a GET without a body, as Go's
/// client does, and what is for the first host alone does not go to another one.
fn redirected(
    redirect: &Follow,
    path: &str,
    other_host: Option<String>,
) -> Option<(RequestHead, Body)> {
    let head = &redirect.request.head;
    let method = head.method();
    let is_kept = matches!(redirect.status, 307 | 308) || matches!(method, b"GET" | b"HEAD");
    let mut bytes = if is_kept {
        method.to_vec()
    } else {
        b"GET".to_vec()
    };
    bytes.extend_from_slice(format!(" {path} ").as_bytes());
    bytes.extend_from_slice(head.version());
    bytes.extend_from_slice(b"\r\n");
    let fields = head.fields();
    for ((name, value), line) in fields.iter().zip(fields.lines()) {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if !is_kept
            && [
                "content-length",
                "transfer-encoding",
                "content-type",
                "expect",
                "trailer",
            ]
            .iter()
            .any(|it| is(it))
        {
            continue;
        }
        if let Some(host) = &other_host {
            if ["authorization", "cookie", "cookie2", "www-authenticate"]
                .iter()
                .any(|it| is(it))
            {
                continue;
            }
            if is("host") {
                bytes.extend_from_slice(format!("Host: {host}\r\n").as_bytes());
                continue;
            }
        }
        let _ = value;
        bytes.extend_from_slice(&head.bytes()[line]);
    }
    bytes.extend_from_slice(b"\r\n");
    let body = if is_kept {
        redirect.request.body.clone()
    } else {
        Body::none()
    };
    RequestHead::parse(bytes.into())
        .ok()
        .map(|head| (head, body))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a queue is, told now and then as GoReplay tells it.
pub(super) struct Stats {
    name: &'static str,
    every: Duration,
    told: Instant,
    started: Instant,
    latest: u64,
    sum: u64,
    max: u64,
    count: u64,
}

impl Stats {
    pub(super) fn new(name: &'static str, every: Duration) -> Self {
        eprintln!("{name}:latest,mean,max,count,count/second,gcount");
        Self {
            name,
            every,
            told: Instant::now(),
            started: Instant::now(),
            latest: 0,
            sum: 0,
            max: 0,
            count: 0,
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.told.elapsed() >= self.every
    }

    /// Takes a length, and prints the line.
    pub(super) fn add(&mut self, length: u64) {
        self.told = Instant::now();
        self.latest = length;
        self.sum += length;
        self.max = self.max.max(length);
        self.count += 1;
        let seconds = self.started.elapsed().as_secs().max(1);
        eprintln!(
            "{}:{},{},{},{},{},{}",
            self.name,
            self.latest,
            self.sum / self.count,
            self.max,
            self.count,
            self.count / seconds,
            1
        );
    }
}

/// Redirects that may wait to be followed, and the bytes of their requests.
const MOST_TO_FOLLOW: usize = 1000;
const MOST_TO_FOLLOW_BYTES: usize = 8 << 20;

/// Places that redirects may lead to.
const MOST_PLACES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved() {
        for (location, expected) in [
            ("/x?y", Some(("http://a:80", "/x?y"))),
            ("x", Some(("http://a:80", "/p/x"))),
            ("?z", Some(("http://a:80", "/p/q?z"))),
            ("http://b/x#f", Some(("http://b", "/x"))),
            ("https://b:8?x", Some(("https://b:8", "/?x"))),
            ("//c/d", Some(("http://c", "/d"))),
            ("", None),
            ("/a b", None),
        ] {
            let resolved = resolve("http://a:80", b"/p/q?r", location);
            let expected = expected.map(|(place, path)| (place.to_owned(), path.to_owned()));
            assert_eq!(resolved, expected, "{location}");
        }
    }
}
