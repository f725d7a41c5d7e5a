//! `make bench`.

#![allow(clippy::print_stderr, reason = "this program's printing is its purpose")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use strongroom_tests::bench::{self, Topic};

/// Measures the appliance on this machine, with a mock NSM, a mock KMS and moto
#[derive(Parser)]
struct Arguments {
    /// Where report.md and report.json are written
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
    /// The one section to measure; otherwise all are
    #[arg(long)]
    only: Option<Topic>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { directory, only } = Arguments::parse();
    match bench::run(&directory, only).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
