//! What the log contains. Every line of ours is free of tokens, payloads and credentials at every level.
//! Other people's crates are not ours to promise that of (an HTTP client's `trace` prints headers), so
//! they are capped at warnings here, whatever `RUST_LOG` says.

use serde::Deserialize;
use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};

/// How a log line is written, to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object per line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Starts logging for the rest of the process. The level is `info`, or what `RUST_LOG` says of our own
/// targets. A second call changes nothing.
pub fn start(format: Format) {
    let level = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let ours = filter_fn(|metadata| *metadata.level() <= Level::WARN || metadata.target().starts_with("strongroom"));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let layer = match format {
        Format::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        Format::Text => lines.boxed(),
    };
    // Fails only if a test or an embedding program has started a log of its own.
    let _ = Registry::default().with(layer.with_filter(level.and(ours))).try_init();
}
