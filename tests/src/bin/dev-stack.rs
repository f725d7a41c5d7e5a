//! `make dev` and `make demo`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program's printing is its purpose")]

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::{Map, Value, json};
use strongroom_tests::demo;
use strongroom_tests::machine::{Measurements, hear_heartbeat};
use strongroom_tests::stack::{EnclaveKind, Foreign, Plan, binary};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// Before a process that has ended is started again.
const REVIVAL: Duration = Duration::from_millis(500);

/// The appliance on one machine, with a mock NSM and a mock KMS
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs the stack in the foreground until Ctrl-C or SIGTERM
    Dev {
        /// Where the parent listens
        #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Where everything lives; an existing folder keeps its keys
        #[arg(long, env = "DEV_DIR", default_value = "target/dev")]
        directory: PathBuf,
    },
    /// Shows the main job from end to end and exits
    Demo {
        /// Where everything lives; made anew
        #[arg(long, default_value = "target/demo")]
        directory: PathBuf,
        /// The enclave that somebody else boots from an image, for example vsock:16:5005, after this has said that it
        /// waits for it. Its documents are believed unsigned
        #[arg(long, value_name = "ADDRESS", requires = "pcrs")]
        booted_enclave: Option<String>,
        /// What that image measures
        #[arg(long, value_name = "FILE")]
        pcrs: Option<PathBuf>,
        #[command(flatten)]
        foreign: Option<Foreign>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        What::Dev { listen, directory } => develop(listen, directory).await,
        What::Demo { directory, booted_enclave, pcrs, foreign } => {
            demonstrate(Plan { foreign, ..Plan::new(directory) }, booted_enclave.zip(pcrs)).await
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dev-stack: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The enclave's operations, ceremonies among them so that they can be tried, and a recipient of exports whose
/// private key is in the folder.
async fn ceremonies(directory: &Path) -> io::Result<Map<String, Value>> {
    let (key, recipient) = (directory.join("vault.pem"), directory.join("vault.json"));
    std::fs::create_dir_all(directory)?;
    if !recipient.exists() {
        let mut new = Command::new(binary("strongroom"));
        let made = new.args(["recipient", "new", "--json", "--name", "vault", "--key-file"]).arg(key).output().await?;
        if !made.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&made.stderr)));
        }
        std::fs::write(&recipient, made.stdout)?;
    }
    let recipient: Value = serde_json::from_slice(&std::fs::read(recipient)?)?;
    let mut configuration = Map::new();
    configuration.insert("operations".to_owned(), json!(["generate", "sign", "rewrap", "import", "export"]));
    configuration.insert("export_recipients".to_owned(), json!([recipient]));
    Ok(configuration)
}

async fn demonstrate(mut plan: Plan, booted: Option<(String, PathBuf)>) -> io::Result<()> {
    if let Some((address, pcrs)) = booted {
        plan.enclave = EnclaveKind::Elsewhere(Measurements::read(&pcrs)?);
        plan.enclave_address = address;
        plan.kms_proxy_address = "vsock:ANY:8000".to_owned();
        println!("waiting for the enclave's heartbeat");
        hear_heartbeat().await?;
    }
    demo::run(plan).await
}

async fn develop(listen: SocketAddr, directory: PathBuf) -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let configuration = ceremonies(&directory).await?;
    let mut stack = tokio::select! {
        stack = Plan { listen, configuration, ..Plan::new(directory) }.start() => stack?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    println!("keys and logs in {}", stack.directory().display());
    println!("ready {}", stack.url);
    loop {
        tokio::select! {
            // As nitro-cli's and systemd's restarts do on a host: whoever is killed comes back.
            name = stack.ended() => {
                println!("{name} has ended (see {name}.log); starting it again");
                sleep(REVIVAL).await;
                stack.revive(name).await?;
            }
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    println!("stopping");
    stack.stop().await
}
