//! The sample application: a small shop with a JSON interface, as something to mirror.
//!
//! Its front page answers like the well-known Kubernetes example, `Host: <hostname>, Version: <version>`. A version can
//! be told to be wrong in one place ([`SampleConfig::wrong`]) and slow in another ([`SampleConfig::slow`]), so that
//! there is something to find.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::metrics::{OPENMETRICS, openmetrics};
use crate::serve;

/// How a version of the sample application behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SampleConfig {
    /// What its front page says.
    pub version: String,
    /// Whether `POST /orders` adds the order up wrongly.
    pub wrong: bool,
    /// How much longer `GET /search` takes than it should.
    pub slow: Duration,
    /// Whether each request is printed.
    pub log: bool,
}

/// A running or soon running sample application.
pub struct Sample {
    listener: TcpListener,
    app: Arc<App>,
}

impl Sample {
    /// Takes the address of the application itself.
    ///
    /// # Errors
    /// When it is not free.
    pub fn bind(config: SampleConfig, address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::from_std(serve::listen(address)?)?,
            app: Arc::new(App::new(config)),
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves the application until the task is dropped.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(self) -> io::Result<()> {
        // A second answer would wait for the client to acknowledge the first, and clients take 40 ms for that.
        let listener = self.listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY");
            }
        });
        axum::serve(listener, routes(self.app)).await
    }

    /// The routes for the probes, `/live` and `/ready`: Kubernetes asks for them on a port of their own.
    pub fn probes() -> Router {
        Router::new()
            .route("/live", get(|| async { "live\n" }))
            .route("/ready", get(|| async { "ready\n" }))
    }

    /// The route for metrics, `/metrics`, likewise.
    pub fn metrics(&self) -> Router {
        Router::new()
            .route(
                "/metrics",
                get(async |State(app): State<Arc<App>>| {
                    (
                        [(header::CONTENT_TYPE, OPENMETRICS)],
                        openmetrics(&app.registry),
                    )
                }),
            )
            .with_state(Arc::clone(&self.app))
    }
}

struct App {
    config: SampleConfig,
    hostname: String,
    requests: Counter,
    registry: Registry,
}

impl App {
    fn new(config: SampleConfig) -> Self {
        let requests = Counter::default();
        let mut registry = Registry::with_prefix("sample");
        registry.register("requests", "Requests answered", requests.clone());
        Self {
            config,
            hostname: hostname(),
            requests,
            registry,
        }
    }
}

/// The name of the pod, in Kubernetes.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .map(|name| name.trim().to_owned())
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| "localhost".to_owned())
}

fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/items", get(items))
        .route("/items/{id}", get(item))
        .route("/search", get(search))
        .route("/orders", post(order))
        .route("/carts/{id}", axum::routing::delete(empty_cart))
        .route("/uploads", post(upload))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), count))
        .with_state(app)
}

async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let line = app
        .config
        .log
        .then(|| format!("{} {}", request.method(), request.uri()));
    let response = next.run(request).await;
    app.requests.inc();
    if let Some(line) = line {
        // A log that nobody reads must not stop the application.
        let _ = writeln!(io::stdout(), "{line} {}", response.status().as_u16());
    }
    response
}

async fn front(State(app): State<Arc<App>>) -> String {
    format!("Host: {}, Version: {}\n", app.hostname, app.config.version)
}

async fn items() -> Response {
    let all: Vec<Value> = ITEMS.iter().map(describe).collect();
    json_answer(StatusCode::OK, &json!({ "items": all }))
}

async fn item(Path(id): Path<u64>) -> Response {
    match ITEMS.iter().find(|item| item.id == id) {
        Some(item) => json_answer(StatusCode::OK, &describe(item)),
        None => json_answer(StatusCode::NOT_FOUND, &json!({ "error": "no such item" })),
    }
}

async fn search(State(app): State<Arc<App>>, request: Request) -> Response {
    if !app.config.slow.is_zero() {
        tokio::time::sleep(app.config.slow).await;
    }
    let wanted = request
        .uri()
        .query()
        .and_then(|query| query.strip_prefix("q="))
        .unwrap_or_default();
    let found: Vec<Value> = ITEMS
        .iter()
        .filter(|item| item.name.contains(wanted))
        .map(describe)
        .collect();
    json_answer(StatusCode::OK, &json!({ "query": wanted, "found": found }))
}

#[derive(Deserialize)]
struct Order {
    item: u64,
    quantity: u64,
}

async fn order(State(app): State<Arc<App>>, body: Bytes) -> Response {
    let Ok(order) = serde_json::from_slice::<Order>(&body) else {
        let error = json!({ "error": "an order is {\"item\": NUMBER, \"quantity\": NUMBER}" });
        return json_answer(StatusCode::BAD_REQUEST, &error);
    };
    let Some(item) = ITEMS.iter().find(|item| item.id == order.item) else {
        return json_answer(
            StatusCode::UNPROCESSABLE_ENTITY,
            &json!({ "error": "no such item" }),
        );
    };
    let net = item.cents.saturating_mul(order.quantity);
    // The mistake of version 2: the tax is rounded down before the quantity is counted.
    let tax = if app.config.wrong {
        (item.cents / 100 * 19 / 100 * 100).saturating_mul(order.quantity)
    } else {
        net.saturating_mul(19) / 100
    };
    json_answer(
        StatusCode::CREATED,
        &json!({
            "item": item.name,
            "quantity": order.quantity,
            "net_cents": net,
            "total_cents": net.saturating_add(tax),
        }),
    )
}

async fn empty_cart(Path(_id): Path<u64>) -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Answers chunk by chunk, without saying the length beforehand.
async fn upload(body: Bytes) -> Response {
    let sum = body
        .iter()
        .fold(0u32, |sum, &byte| sum.rotate_left(5) ^ u32::from(byte));
    let parts = [
        format!("{{\"bytes\":{},", body.len()),
        format!("\"checksum\":\"{sum:08x}\"}}"),
    ];
    let stream = Body::new(Chunks(parts.map(Bytes::from).into_iter()));
    (
        StatusCode::OK,
        [(header::CONTENT_TYPE, "application/json")],
        stream,
    )
        .into_response()
}

/// A body of unknown length, so that it is sent chunked.
struct Chunks(std::array::IntoIter<Bytes, 2>);

impl axum::body::HttpBody for Chunks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.next().map(|part| Ok(http_body::Frame::data(part))))
    }
}

fn json_answer(status: StatusCode, value: &Value) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        format!("{value}\n"),
    )
        .into_response()
}

fn describe(item: &Item) -> Value {
    json!({ "id": item.id, "name": item.name, "cents": item.cents })
}

struct Item {
    id: u64,
    name: &'static str,
    cents: u64,
}

const ITEMS: [Item; 6] = [
    Item {
        id: 1,
        name: "tea, green",
        cents: 499,
    },
    Item {
        id: 2,
        name: "tea, black",
        cents: 450,
    },
    Item {
        id: 3,
        name: "coffee, whole beans",
        cents: 1290,
    },
    Item {
        id: 4,
        name: "mug",
        cents: 895,
    },
    Item {
        id: 5,
        name: "teapot",
        cents: 3450,
    },
    Item {
        id: 6,
        name: "kettle",
        cents: 4999,
    },
];
