//! The log: lines on standard error, for people or as JSON.

use std::io::IsTerminal;

use hearth_core::config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// Sets the process's log up. A second call (tests) changes nothing.
pub fn init(config: &Log) -> Result<(), String> {
    let filter = filter(config)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _already_set = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder
            .json()
            .with_current_span(true)
            .with_span_list(false)
            .try_init(),
    };
    Ok(())
}

/// Whether the configured filter can be read.
pub fn check(config: &Log) -> Result<(), String> {
    filter(config).map(drop)
}

fn filter(config: &Log) -> Result<EnvFilter, String> {
    EnvFilter::try_new(&config.filter).map_err(|error| format!("log.filter: {error}"))
}
