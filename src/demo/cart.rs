//! A cart that charges for its orders at a payment provider, and the provider: something that must not be called twice.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How a version of the cart behaves.
#[derive(Clone, Debug)]
pub struct CartConfig {
    /// The payment provider, as `http://payment:9000`.
    pub provider: String,
    /// A forward proxy for calls to it, as `HTTP_PROXY` has it.
    pub proxy: Option<String>,
    /// Whether it charges twice for each order: the mistake of a version 2.
    pub charges_twice: bool,
    /// Whether each order is printed.
    pub log: bool,
}

/// A cart: `POST /orders` with `{"order": NUMBER, "quantity": NUMBER}`.
pub struct Cart {
    listener: TcpListener,
    app: Arc<CartApp>,
}

struct CartApp {
    config: CartConfig,
    client: reqwest::Client,
    charges: AtomicU64,
}

impl Cart {
    /// Takes the address.
    ///
    /// # Errors
    /// When it is not free, or the proxy is no URL.
    pub async fn bind(config: CartConfig, address: SocketAddr) -> anyhow::Result<Self> {
        let client = crate::app::http_client_through(config.proxy.as_deref())?;
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            app: Arc::new(CartApp {
                config,
                client,
                charges: AtomicU64::new(0),
            }),
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the task is dropped.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(self) -> io::Result<()> {
        let routes = Router::new()
            .route("/orders", post(order))
            .with_state(self.app);
        axum::serve(self.listener, routes).await
    }
}

#[derive(Deserialize)]
struct Order {
    order: u64,
    quantity: u64,
}

async fn order(State(app): State<Arc<CartApp>>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(order) = serde_json::from_slice::<Order>(&body) else {
        let error = json!({ "error": "an order is {\"order\": NUMBER, \"quantity\": NUMBER}" });
        return answer(StatusCode::BAD_REQUEST, &error);
    };
    let amount = order.quantity.saturating_mul(499);
    let mut outcome = app.charge(order.order, amount, &headers).await;
    if app.config.charges_twice && outcome.is_ok() {
        outcome = app.charge(order.order, amount, &headers).await;
    }
    let (status, value) = match outcome {
        Ok(receipt) => (
            StatusCode::CREATED,
            json!({ "order": order.order, "total_cents": amount, "receipt": receipt }),
        ),
        Err(error) => (StatusCode::BAD_GATEWAY, json!({ "error": error })),
    };
    if app.config.log {
        // Nobody may be reading any more.
        let _ = writeln!(io::stdout(), "{} {value}", status.as_u16());
    }
    answer(status, &value)
}

impl CartApp {
    /// Charges for an order; the receipt.
    async fn charge(&self, order: u64, amount: u64, headers: &HeaderMap) -> Result<Value, String> {
        // Of this program's run alone: another version, and the next run, make others.
        let number = self.charges.fetch_add(1, Ordering::Relaxed);
        let key = format!("{:08x}-{number:08x}", std::process::id());
        let mut call = self
            .client
            .post(format!("{}/charges", self.config.provider))
            .header(header::CONTENT_TYPE, "application/json")
            .body(
                json!({ "order_id": order, "amount_cents": amount, "idempotency_key": key })
                    .to_string(),
            );
        if let Some(trace) = headers.get("traceparent") {
            call = call.header("traceparent", trace);
        }
        let failed = |error: reqwest::Error| format!("{:#}", anyhow::Error::from(error));
        let got = call.send().await.map_err(failed)?;
        let status = got.status();
        let body = got.bytes().await.map_err(failed)?;
        if status != StatusCode::CREATED {
            return Err(format!("the provider answered {status}"));
        }
        let value: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok(value["receipt"].clone())
    }
}

/// A payment provider: `POST /charges` charges, `GET /charges` lists all charges that there were.
pub struct Provider {
    listener: TcpListener,
    app: Arc<ProviderApp>,
}

#[derive(Default)]
struct ProviderApp {
    charges: Mutex<Vec<Charge>>,
    log: bool,
}

/// What the provider was asked to charge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Charge {
    /// For which order.
    pub order_id: u64,
    /// How much.
    pub amount_cents: u64,
}

impl Provider {
    /// Takes the address; `log` prints each charge.
    ///
    /// # Errors
    /// When it is not free.
    pub async fn bind(address: SocketAddr, log: bool) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            app: Arc::new(ProviderApp {
                charges: Mutex::default(),
                log,
            }),
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Reads its log while it serves.
    pub fn charges(&self) -> impl Fn() -> Vec<Charge> + Send + use<> {
        let app = Arc::clone(&self.app);
        move || app.charges().clone()
    }

    /// Serves until the task is dropped.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(self) -> io::Result<()> {
        let routes = Router::new()
            .route("/charges", post(charge))
            .route("/charges", get(charges))
            .with_state(self.app);
        axum::serve(self.listener, routes).await
    }
}

impl ProviderApp {
    fn charges(&self) -> std::sync::MutexGuard<'_, Vec<Charge>> {
        self.charges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn charge(State(app): State<Arc<ProviderApp>>, body: Bytes) -> Response {
    let Ok(charge) = serde_json::from_slice::<Charge>(&body) else {
        let error =
            json!({ "error": "a charge is {\"order_id\": NUMBER, \"amount_cents\": NUMBER}" });
        return answer(StatusCode::BAD_REQUEST, &error);
    };
    if app.log {
        // Nobody may be reading any more.
        let _ = writeln!(
            io::stdout(),
            "charge {} {}",
            charge.order_id,
            charge.amount_cents
        );
    }
    let number = {
        let mut charges = app.charges();
        charges.push(charge.clone());
        charges.len()
    };
    // Every charge has a receipt of its own, so that one can tell which was given.
    let receipt = format!("R-{number}-{}", charge.order_id);
    answer(
        StatusCode::CREATED,
        &json!({ "receipt": receipt, "charged_cents": charge.amount_cents }),
    )
}

async fn charges(State(app): State<Arc<ProviderApp>>) -> Response {
    answer(StatusCode::OK, &json!(*app.charges()))
}

fn answer(status: StatusCode, value: &Value) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        format!("{value}\n"),
    )
        .into_response()
}
