//! The sample application as a program: what the demonstration and the Kubernetes manifests run as version 1 and 2.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use shadowtap::app::signals::StopSignals;
use shadowtap::cli::values;
use shadowtap::demo::cart::{Cart, CartConfig, Provider};
use shadowtap::demo::sample::{Sample, SampleConfig};
use shadowtap::serve;
use tokio::net::TcpListener;

/// A small shop with a JSON interface, as something to mirror. Its front page says `Host: <hostname>, Version: <version>`.
#[derive(Parser)]
#[command(name = "sample-app", version)]
struct Args {
    /// What the front page says the version is.
    #[arg(long, env = "VERSION", default_value = "v1", value_name = "TEXT")]
    app_version: String,

    /// Where the application listens.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080", value_parser = values::listen_address)]
    listen: SocketAddr,

    /// Where the probes listen: /live and /ready.
    #[arg(long, env = "PROBES", default_value = "0.0.0.0:8086", value_parser = values::listen_address)]
    probes: SocketAddr,

    /// Where metrics listen: /metrics.
    #[arg(long, env = "METRICS", default_value = "0.0.0.0:9101", value_parser = values::listen_address)]
    metrics: SocketAddr,

    /// Add orders up wrongly (POST /orders).
    #[arg(long, env = "WRONG", value_parser = clap::builder::BoolishValueParser::new())]
    wrong: bool,

    /// What it is: the shop, a cart that charges for its orders at a payment provider, or that provider.
    #[arg(long, env = "ROLE", value_enum, default_value_t = Role::Shop)]
    role: Role,

    /// The payment provider that the cart calls.
    #[arg(
        long,
        env = "PROVIDER",
        default_value = "http://payment:9000",
        value_name = "URL"
    )]
    provider: String,

    /// The forward proxy through which the cart calls it.
    #[arg(long, env = "HTTP_PROXY", value_name = "URL")]
    proxy: Option<String>,

    /// Let the cart charge twice for each order.
    #[arg(long, env = "CHARGE_TWICE", value_parser = clap::builder::BoolishValueParser::new())]
    charge_twice: bool,

    /// Let GET /search take longer than it should.
    #[arg(long, env = "SLOW", default_value = "0s", value_parser = values::duration, value_name = "TIME")]
    slow: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Shop,
    Cart,
    Provider,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample-app: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            match args.role {
                Role::Shop => {}
                Role::Cart => return run_cart(args).await,
                Role::Provider => return run_provider(args).await,
            }
            let config = SampleConfig {
                version: args.app_version,
                wrong: args.wrong,
                slow: args.slow,
                log: true,
            };
            let sample = Sample::bind(config, args.listen)
                .with_context(|| format!("--listen {}", args.listen))?;
            let probes = serve::listen(args.probes)
                .and_then(TcpListener::from_std)
                .with_context(|| format!("--probes {}", args.probes))?;
            let metrics = serve::listen(args.metrics)
                .and_then(TcpListener::from_std)
                .with_context(|| format!("--metrics {}", args.metrics))?;
            let _ = writeln!(
                std::io::stdout(),
                "application on {}, probes on {}, metrics on {}",
                sample.address()?,
                probes.local_addr()?,
                metrics.local_addr()?
            );
            let mut signals = StopSignals::new()?;
            let metrics_routes = sample.metrics();
            tokio::select! {
                ended = sample.serve() => ended?,
                ended = async { axum::serve(probes, Sample::probes()).await } => ended?,
                ended = async { axum::serve(metrics, metrics_routes).await } => ended?,
                _ = signals.recv() => {}
            }
            Ok(())
        })
}

async fn run_cart(args: Args) -> anyhow::Result<()> {
    let config = CartConfig {
        provider: args.provider,
        proxy: args.proxy.filter(|proxy| !proxy.is_empty()),
        charges_twice: args.charge_twice,
        log: true,
    };
    let cart = Cart::bind(config, args.listen)
        .await
        .with_context(|| format!("--listen {}", args.listen))?;
    until_stopped("cart", cart.address()?, cart.serve()).await
}

async fn run_provider(args: Args) -> anyhow::Result<()> {
    let provider = Provider::bind(args.listen, true)
        .await
        .with_context(|| format!("--listen {}", args.listen))?;
    until_stopped("provider", provider.address()?, provider.serve()).await
}

async fn until_stopped(
    what: &str,
    address: SocketAddr,
    serve: impl Future<Output = std::io::Result<()>>,
) -> anyhow::Result<()> {
    let _ = writeln!(std::io::stdout(), "{what} on {address}");
    let mut signals = StopSignals::new()?;
    tokio::select! {
        ended = serve => ended?,
        _ = signals.recv() => {}
    }
    Ok(())
}
