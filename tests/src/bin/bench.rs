//! `make bench`.

#![allow(clippy::print_stderr, reason = "this program's printing is its purpose")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use strongroom_tests::bench;

/// Measures the appliance on this machine, with a mock NSM, a mock KMS and moto
#[derive(Parser)]
struct Arguments {
    /// Where report.md and report.json are written
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match bench::run(&Arguments::parse().directory).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
