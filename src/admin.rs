//! The admin server: `/metrics`, `/healthz`, `/readyz`; where answers are compared also `/verdict` and the dashboard.
//!
//! Readiness is owned, not set: whoever still has something to do before the program is ready holds a [`Latch`], and
//! drops it when that is done, or says with it what is wrong just now. There is no flag to forget.

mod dashboard;
mod host;
pub mod verdict;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::{OPENMETRICS, openmetrics};
use crate::sandbox::Sandbox;
use crate::serve::{self, Bounds, Protection};

/// What the program still waits for, before it is ready.
#[derive(Clone, Default)]
pub struct Readiness {
    awaited: Vec<watch::Receiver<Option<String>>>,
}

/// Held by whoever has something left to do before the program is ready; dropping it says that it is done.
#[derive(Debug)]
pub struct Latch {
    missing: watch::Sender<Option<String>>,
}

impl Latch {
    /// Says what is missing from now on; nothing, if it is `None`.
    pub fn say(&self, missing: Option<String>) {
        self.missing.send_replace(missing);
    }
}

impl Readiness {
    /// Makes one more thing that readiness waits for; `missing` says, for a person, what is missing until then.
    pub fn latch(&mut self, missing: impl Into<String>) -> Latch {
        self.latch_of(Some(missing.into()))
    }

    /// Makes a latch that waits for nothing yet, for whoever may have something to [say](Latch::say) later.
    pub fn silent_latch(&mut self) -> Latch {
        self.latch_of(None)
    }

    fn latch_of(&mut self, missing: Option<String>) -> Latch {
        let (missing, receiver) = watch::channel(missing);
        self.awaited.push(receiver);
        Latch { missing }
    }

    /// What is missing; nothing when the program is ready.
    pub fn missing(&self) -> impl Iterator<Item = String> {
        self.awaited
            .iter()
            .filter(|latch| latch.has_changed().is_ok())
            .filter_map(|latch| latch.borrow().clone())
    }
}

/// An admin server that has its socket already, so that a wrong address shows before anything else begins.
pub struct Admin {
    listener: TcpListener,
    protection: Protection,
}

/// Where the admin server listens, and for whom.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// The address.
    pub address: SocketAddr,
    /// What keeps others out.
    pub protection: Protection,
}

impl Admin {
    /// Takes the address.
    ///
    /// # Errors
    /// When it is not free or not of this machine.
    pub fn bind(config: &AdminConfig) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::from_std(serve::listen(config.address)?)?,
            protection: config.protection.clone(),
        })
    }

    /// The address that it listens on; tells the port where the user gave 0.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is ready; with a `source`, the verdict and the dashboard as well.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(
        self,
        registry: Registry,
        readiness: Readiness,
        source: Option<verdict::Source>,
        sandbox: Sandbox,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let shared = Arc::new(Shared {
            registry,
            readiness,
            sandbox,
        });
        let mut told = Router::new()
            .route("/metrics", get(metrics))
            .with_state(Arc::clone(&shared));
        let told_of_verdicts = source.is_some();
        if let Some(source) = source {
            told = told
                .merge(verdict::routes(source))
                .merge(dashboard::routes());
        }
        let has_token = self.protection.token.is_some();
        if let Some(token) = self.protection.token {
            told = told.layer(middleware::from_fn(move |request: Request, next: Next| {
                let admitted = token.admits(request.headers());
                async move {
                    if admitted {
                        next.run(request).await
                    } else {
                        serve::unauthorised()
                    }
                }
            }));
        }
        let place = if told_of_verdicts {
            WITH_VERDICT
        } else {
            PLACES
        };
        let nothing = move || async move { (StatusCode::NOT_FOUND, place) };
        let mut routes = told.merge(probes(shared)).fallback(nothing);
        let address = self.listener.local_addr()?.ip().to_canonical();
        // A page that is served under another name has no token: a browser keeps it for the name that it was given to.
        if address.is_loopback() && !has_token {
            routes = routes.layer(middleware::from_fn(host::only_for_this_machine));
        }
        let tls = self.protection.tls;
        serve::serve(self.listener, routes, Bounds::ADMIN, tls, stop).await
    }
}

/// What is said to whoever asks for something else.
const PLACES: &str = "there is nothing here; there are /metrics, /healthz and /readyz\n";

const WITH_VERDICT: &str =
    "there is nothing here; there are /, /verdict, /metrics, /healthz and /readyz\n";

struct Shared {
    registry: Registry,
    readiness: Readiness,
    sandbox: Sandbox,
}

/// What a kubelet asks, which knows no token.
fn probes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(shared)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    (
        [(header::CONTENT_TYPE, OPENMETRICS)],
        openmetrics(&shared.registry),
    )
        .into_response()
}

/// Alive; and what the process may still do, for whoever looks closer.
async fn healthz(State(shared): State<Arc<Shared>>) -> String {
    format!("ok\nsandbox: {}\n", shared.sandbox.words())
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let missing: Vec<_> = shared.readiness.missing().collect();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let body = format!("not ready: {}\n", missing.join("; "));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_latch_was_dropped() {
        let mut readiness = Readiness::default();
        assert_eq!(readiness.missing().count(), 0);
        let capture = readiness.latch("the capture is not open");
        let target = readiness.latch("no target has resolved");
        drop(capture);
        let seen = readiness.clone();
        assert_eq!(
            seen.missing().collect::<Vec<_>>(),
            ["no target has resolved"]
        );
        drop(target);
        assert_eq!(seen.missing().count(), 0);
        let mut readiness = seen;
        let pause = readiness.silent_latch();
        assert_eq!(readiness.missing().count(), 0);
        pause.say(Some("paused".to_owned()));
        assert_eq!(readiness.missing().collect::<Vec<_>>(), ["paused"]);
        pause.say(None);
        assert_eq!(readiness.missing().count(), 0);
    }
}
