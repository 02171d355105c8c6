//! The second part of the demonstration: a cart that charges for its orders. Its version 2 must not charge a second time,
//! so it calls a mock in place of the payment provider.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::cart::{Cart, CartConfig, Provider};
use super::{GRACE, mirror_of};
use crate::account::{Account, Counter, Stage};
use crate::admin::Readiness;
use crate::app::egress::{self, EgressConfig};
use crate::app::mirror::{Latches, Mirror};
use crate::app::mock::Server;
use crate::app::{Finished, http_client};
use crate::cli::mock;
use crate::judge::{Decision, Standing};
use crate::metrics::Metrics;
use crate::mock::{Mock, MockConfig};
use crate::report::{self, grouped};
use crate::sandbox::{Sandbox, SandboxMode};

/// Buys `orders` times at version 1 and shows what the provider was asked to charge, and what version 2 did.
///
/// # Errors
/// When something that it started fails, or an order is paid for more than once.
pub(super) async fn show(orders: u32, is_equal: bool) -> anyhow::Result<()> {
    let provider = Provider::bind(anywhere(), false).await?;
    let (paying, charges) = (provider.address()?, provider.charges());
    tokio::spawn(provider.serve());
    let mock = start_mock().await?;
    let first = start_cart(paying, None, false).await?;
    let second = start_cart(paying, Some(format!("http://{}", mock.address)), !is_equal).await?;
    let told = if is_equal {
        "does the same as version 1"
    } else {
        "charges twice for each order; shadowtap is not told"
    };
    say!("\nNext, a cart that charges for its orders: its version 2 must not charge again\n");
    say!("  version 1   http://{first}   calls the payment provider, http://{paying}");
    say!("  version 2   http://{second}   {told}");
    say!(
        "  mock        http://{}   version 2's proxy: it answers as the provider answered version 1\n",
        mock.address
    );
    let target = format!("http://{second}");
    let mut job = mirror_of(first, std::slice::from_ref(&target))?;
    let ends = vec![paying.to_string().parse().map_err(anyhow::Error::msg)?];
    egress::widen(&mut job.live, &ends);
    job.egress = Some(EgressConfig {
        ends,
        to_mock: Some(format!("http://{}", mock.address).parse()?),
    });
    if let Some(compare) = &mut job.compare {
        compare.settings.untimed = true;
    }
    let (metrics, _registry) = Metrics::new(&[target]);
    let sandbox = Sandbox::new(SandboxMode::Off);
    let latches = Latches::new(&mut Readiness::default(), job.targets.len(), sandbox);
    let mirror = Mirror::start(&job, &metrics, latches).await?;
    buy(first, orders).await?;
    let deadline = Instant::now() + GRACE;
    while given_up_or_answered(&mirror.account(&metrics)) < u64::from(orders)
        && Instant::now() < deadline
    {
        tokio::time::sleep(LOOK).await;
    }
    let finished = tokio::task::spawn_blocking(move || mirror.stop(GRACE))
        .await
        .context("stopping the mirror")?;
    mock.stop().await?;
    conclude(
        u64::from(orders),
        charges().len() as u64,
        is_equal,
        finished,
    )
}

/// Says what came of it.
fn conclude(orders: u64, charged: u64, is_equal: bool, finished: Finished) -> anyhow::Result<()> {
    let Some(compared) = &finished.compared else {
        bail!("nothing was compared");
    };
    let verdict = compared.verdict();
    let account = &finished.account;
    let sum = |counter| grouped(account.get(counter));
    say!(
        "  provider    {} charges for {} orders, by its own books",
        grouped(charged),
        grouped(orders)
    );
    let answers = verdict
        .endpoints
        .iter()
        .find(|it| &*it.endpoint == ENDPOINT);
    let (judged, other) = answers.map_or((0, 0), |it| (it.requests, it.differences.v2));
    say!(
        "  version 2   answered {} of the orders, {} of them with another receipt than version 1",
        grouped(judged),
        grouped(other)
    );
    say!(
        "  its calls   {} that version 1 made too, {} missing, {} extra, {} changed\n",
        sum(Counter::SideEffectsSame),
        sum(Counter::SideEffectsMissing),
        sum(Counter::SideEffectsExtra),
        sum(Counter::SideEffectsChanged)
    );
    say!("The verdict on the cart: {}", verdict.verdict);
    if verdict.verdict == Decision::Continue {
        for reason in &verdict.reasons {
            say!("  {reason}");
        }
    }
    for endpoint in verdict
        .endpoints
        .iter()
        .filter(|it| it.standing == Standing::Worse)
    {
        for reason in &endpoint.reasons {
            say!("  {}: {reason}", endpoint.endpoint);
        }
    }
    finished.outcome?;
    account.check().context("this is a bug in shadowtap")?;
    let extra = if is_equal { 0 } else { orders };
    let seen = [charged, judged, account.get(Counter::SideEffectsSame)];
    if seen != [orders; 3] || account.get(Counter::SideEffectsExtra) != extra {
        say!("{}", report::account(account, &finished.targets).trim_end());
        bail!(
            "each of {orders} orders should have been charged once, answered by version 2, and compared"
        );
    }
    Ok(())
}

/// A running mock.
struct RunningMock {
    address: SocketAddr,
    server: Arc<Server>,
    stop: oneshot::Sender<()>,
}

impl RunningMock {
    async fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        // Its callers are done; connections that they keep open are of no interest.
        tokio::task::yield_now().await;
        let account = self.server.finish();
        account.check().context("this is a bug in the mock")?;
        Ok(())
    }
}

async fn start_mock() -> anyhow::Result<RunningMock> {
    let listener = TcpListener::bind(anywhere()).await?;
    let address = listener.local_addr()?;
    let job = mock::Job {
        listen: address,
        from: Vec::new(),
        stubs: Vec::new(),
        // A busy machine may take its time.
        config: MockConfig {
            wait: Duration::from_secs(5),
            ..MockConfig::default()
        },
        latency: mock::Latency::None,
        pass_through: Vec::new(),
        miss: None,
        grace: GRACE,
        admin: None,
    };
    let server = Arc::new(Server::new(Mock::new(job.config.clone()), &job));
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(Arc::clone(&server).serve(listener, stopped));
    Ok(RunningMock {
        address,
        server,
        stop,
    })
}

async fn start_cart(
    provider: SocketAddr,
    proxy: Option<String>,
    charges_twice: bool,
) -> anyhow::Result<SocketAddr> {
    let config = CartConfig {
        provider: format!("http://{provider}"),
        proxy,
        charges_twice,
        log: false,
    };
    let cart = Cart::bind(config, anywhere()).await?;
    let address = cart.address()?;
    tokio::spawn(cart.serve());
    Ok(address)
}

/// Sends version 1 the orders, a few at a time; each must be answered with 201.
async fn buy(cart: SocketAddr, orders: u32) -> anyhow::Result<()> {
    let client = http_client()?;
    let mut buyers = JoinSet::new();
    for buyer in 0..BUYERS {
        let client = client.clone();
        buyers.spawn(async move {
            for order in (1 + buyer..=orders).step_by(BUYERS as usize) {
                let answer = client
                    .post(format!("http://{cart}/orders"))
                    .header(
                        "traceparent",
                        format!("00-{order:032x}-00000000000000aa-01"),
                    )
                    .body(json!({ "order": order, "quantity": 2 }).to_string())
                    .send()
                    .await?;
                answer.error_for_status()?;
            }
            Ok::<(), reqwest::Error>(())
        });
    }
    while let Some(bought) = buyers.join_next().await {
        bought?.context("buying at version 1")?;
    }
    Ok(())
}

fn given_up_or_answered(account: &Account) -> u64 {
    account.get(Counter::ReplaysAnswered) + account.dropped_at(Stage::Replay)
}

/// A free port of the loopback interface.
const fn anywhere() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// What is bought at.
const ENDPOINT: &str = "POST /orders";

/// Orders on their way at a time.
const BUYERS: u32 = 8;

/// How often it is looked whether all has come in.
const LOOK: Duration = Duration::from_millis(20);
