//! The process around [`strongroom_tests::mock_kms`]: command line, logs, signals.

use std::process::ExitCode;

use clap::Parser;
use strongroom_tests::mock_kms;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A KMS for tests and the development stack: it verifies what KMS verifies and says no as KMS does
#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    options: mock_kms::Options,
    /// How much to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: tracing::Level,
}

#[tokio::main]
async fn main() -> ExitCode {
    let CommandLine { options, log_level } = CommandLine::parse();
    // Lines of our own only: at their lowest levels HTTP crates print requests and replies.
    let filter = EnvFilter::new(format!("warn,strongroom_tests={log_level}"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    tokio::select! {
        ended = mock_kms::run(options) => match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "mock-kms cannot serve");
                ExitCode::FAILURE
            }
        },
        () = told_to_stop() => ExitCode::SUCCESS,
    }
}

/// Ctrl-C or SIGTERM. Nothing is lost: every change is on disk before it is answered.
async fn told_to_stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
