//! The sample application as a program: what the demonstration and the Kubernetes manifests run as version 1 and 2.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use shadowtap::app::signals::StopSignals;
use shadowtap::cli::values;
use shadowtap::demo::sample::{Sample, SampleConfig};
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

    /// Let GET /search take longer than it should.
    #[arg(long, env = "SLOW", default_value = "0s", value_parser = values::duration, value_name = "TIME")]
    slow: Duration,
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
            let config = SampleConfig {
                version: args.app_version,
                wrong: args.wrong,
                slow: args.slow,
                log: true,
            };
            let sample = Sample::bind(config, args.listen)
                .await
                .with_context(|| format!("--listen {}", args.listen))?;
            let probes = TcpListener::bind(args.probes)
                .await
                .with_context(|| format!("--probes {}", args.probes))?;
            let metrics = TcpListener::bind(args.metrics)
                .await
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
