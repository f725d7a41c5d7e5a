//! strongroom's trusted computing base: opens keys by attested KMS calls, signs, wipes.
//!
//! A library so that `strongroom-enclave` (real hardware) and the tests' `dev-enclave` are the same
//! code but for the [`Attestor`] that they hand in. A request comes in by `server`, is served by
//! `service`, which asks `keyring` for the key (`wrapping` opens its record), `policy` for permission (`derive` makes keys
//! below a seed) and `signing` for the signature, which `sign` makes. What custodians bring and take home passes `custody`.

mod attest;
mod boot;
mod cms;
mod custody;
mod derive;
mod hpke;
mod keyring;
mod kms;
mod policy;
mod seal;
mod secret;
mod server;
mod service;
mod sign;
mod signing;
mod transport;
mod wrapping;

use std::alloc::System;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use strongroom_protocol::Address;
use tracing_subscriber::EnvFilter;
use zeroizing_alloc::ZeroAlloc;

use attest::Nsm;
pub use attest::{Attestor, NsmDevice, NsmError};
pub use boot::{Image, ImageError, read_pin};
use service::Service;
pub use sign::RawKey;
use strongroom_runtime::{Hardened, Workers, harden};
use transport::Listener;

/// Every freed allocation is zeroed first, whoever made it. Here and not in the binaries, so that none
/// can be without it.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// Where the enclave listens and how it reaches KMS. Nothing here decides trust.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where the parent connects to: vsock:CID:PORT, unix:/path or unix-hybrid:/path:PORT.
    #[arg(long, value_name = "ADDRESS", default_value = "vsock:ANY:5005")]
    listen: Address,
    /// The byte proxy to KMS. PARENT is the CID that the configuration came from.
    #[arg(long, value_name = "ADDRESS", default_value = "vsock:PARENT:8000")]
    kms_proxy: Address,
    /// How much to log: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: tracing::Level,
}

/// Why the enclave did not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot listen on {0}: {1}")]
    Listen(Address, std::io::Error),
    #[error("the secure module does not work: {0}")]
    Nsm(#[from] NsmError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Serves until killed. Returns only if it cannot start.
#[must_use]
pub fn run(options: &Options, attestor: Box<dyn Attestor>, image: &Image) -> ExitCode {
    start_logging(options.log_level);
    let Err(error) = start(options, attestor, image);
    tracing::error!(%error, "the enclave cannot start");
    ExitCode::FAILURE
}

fn start(
    options: &Options,
    attestor: Box<dyn Attestor>,
    image: &Image,
) -> Result<std::convert::Infallible, StartError> {
    let Hardened { memory_locked } = harden()?;
    tracing::info!(memory_locked, "no core dumps, no reading by other processes, no new privileges");
    let workers = Workers::start(usize::MAX)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let nsm = Nsm::start(attestor)?;
        let service = Arc::new(Service::new(nsm, options.kms_proxy.clone(), image.pin, workers.clone()).await?);
        let listener =
            Listener::bind(&options.listen).map_err(|error| StartError::Listen(options.listen.clone(), error))?;
        tracing::info!(listen = %options.listen, kms_proxy = %options.kms_proxy, "serving");
        if image.first_process {
            tokio::spawn(boot::heartbeat());
        }
        match server::serve(listener, service, workers).await {}
    })
}

/// Lines about our own decisions only: at their lowest levels the SDK and HTTP crates print requests
/// with their headers, so they stay at warnings whatever is asked for.
fn start_logging(level: tracing::Level) {
    let filter = EnvFilter::new(format!("warn,strongroom_enclave={level}"));
    // Fails only where a subscriber exists already; then its owner decides.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
    // A panic's message may quote what it tripped over: only its place is told.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, thread = std::thread::current().name(), "panicked");
    }));
}
