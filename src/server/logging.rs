//! The log: lines on standard error, for people or as JSON.

use std::io::IsTerminal;

use hearth_core::config::{Log, LogFormat};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Decides which lines are written.
type Filter = Box<dyn Layer<Registry> + Send + Sync>;

/// Sets the process's log up. A second call (tests) changes nothing.
pub fn init(config: &Log) -> Result<(), String> {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match config.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().with_current_span(true).with_span_list(false).boxed(),
    };
    let _already_set = tracing_subscriber::registry()
        .with(filter(config)?)
        .with(lines)
        .try_init();
    Ok(())
}

/// Whether the configured filter can be read.
pub fn check(config: &Log) -> Result<(), String> {
    filter(config).map(drop)
}

fn filter(config: &Log) -> Result<Filter, String> {
    let any = EnvFilter::try_new(&config.filter).map_err(|error| format!("log.filter: {error}"))?;
    Ok(match plain(&config.filter) {
        Some(plain) => plain.boxed(),
        None => any.boxed(),
    })
}

/// The filter, where it goes by modules and levels alone, as nearly all do. One that may go by what is in a span takes locks that
/// all threads share, each time that a request goes on.
fn plain(filter: &str) -> Option<Targets> {
    let is_plain =
        |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || "[]{}".contains(c));
    filter.split(',').all(is_plain).then(|| filter.parse().ok())?
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_plain_filter_leaves_out_what_it_should() {
        let plain = plain("warn,hearth_rooms=debug").expect("a plain filter");
        for (target, level, written) in [
            ("hearth_rooms::input", Level::DEBUG, true),
            ("hearth_rooms", Level::TRACE, false),
            ("hyper", Level::WARN, true),
            ("hyper", Level::INFO, false),
        ] {
            assert_eq!(plain.would_enable(target, &level), written, "{target} {level}");
        }
    }

    #[test]
    fn filters_that_go_by_modules_alone() {
        for filter in ["info", "warn,hearth_rooms=debug", "off", "hearth::access=debug,3"] {
            assert!(plain(filter).is_some(), "{filter}");
            assert!(EnvFilter::try_new(filter).is_ok(), "{filter}");
        }
        for filter in [
            "",
            "info,",
            "info, warn",
            "[request]=debug",
            "hearth[request{id=1}]=trace",
        ] {
            assert!(plain(filter).is_none(), "{filter}");
        }
    }
}
