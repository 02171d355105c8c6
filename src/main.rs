//! The program: parse, start logging, run, exit code.

use std::process::ExitCode;

use shadowtap::app;
use shadowtap::cli::{Config, Job, LogFormat, Logging};
use shadowtap::progress::Screen;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let config = match Config::parse(std::env::args_os()) {
        Ok(config) => config,
        Err(error) => error.exit(),
    };
    let screen = Screen::new(config.logging.progress);
    // The demonstration speaks for itself.
    let level = if matches!(config.job, Job::Demo(_)) {
        "warn"
    } else {
        "info"
    };
    start_logging(&config.logging, level, &screen);
    app::run(config, &screen)
}

fn start_logging(logging: &Logging, level: &str, screen: &Screen) {
    let filter = match &logging.log_level {
        Some(chosen) => EnvFilter::new(chosen),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level)),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // When nobody reads the log any more, saying so there would end the program.
        .log_internal_errors(false)
        .with_writer(screen.clone());
    match logging.log_format {
        LogFormat::Text => lines
            .with_target(false)
            .with_ansi(screen.is_terminal())
            .init(),
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).init(),
    }
}
