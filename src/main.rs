//! The program: parse, start logging, run, exit code.

use std::process::ExitCode;

use shadowtap::app;
use shadowtap::cli::{Config, LogFormat, Logging};
use shadowtap::progress::Screen;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let config = match Config::parse(std::env::args_os()) {
        Ok(config) => config,
        Err(error) => error.exit(),
    };
    let screen = Screen::new(config.logging.progress);
    start_logging(&config.logging, &screen);
    app::run(config, &screen)
}

fn start_logging(logging: &Logging, screen: &Screen) {
    let filter = match &logging.log_level {
        Some(level) => EnvFilter::new(level),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(screen.clone());
    match logging.log_format {
        LogFormat::Text => lines
            .with_target(false)
            .with_ansi(screen.is_terminal())
            .init(),
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).init(),
    }
}
