//! `strongroom serve`: puts the parts together, runs them until the process is told to stop, and lets
//! requests in flight finish. The only place that names all of them.

use std::net::SocketAddr;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use strongroom_runtime::Workers;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::auth::Identities;
use crate::config::Loaded;
use crate::credentials::CredentialFeed;
use crate::enclave_client::EnclaveClient;
use crate::http::{self, Admission, App, BodyRoom, Entrance, Parts, StoreReadiness};
use crate::key_store::KeyStore;
use crate::kms_proxy::{self, Remote};
use crate::records::Records;
use crate::tls::Acceptor;
use crate::transport::Listener;

/// More serve nobody: each has a connection to the enclave, which has 64 places.
const MAX_WORKERS: usize = 16;

/// Why the daemon did not start. The operator is to blame, or the machine.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address, as configured.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The directory store's folder cannot be used.
    #[error("cannot open the key store: {0}")]
    Store(std::io::Error),
    /// The configuration does not fit a message to the enclave.
    #[error("the enclave's configuration: {0}")]
    Configuration(#[from] strongroom_protocol::TooLong),
    /// The SDK was built without a provider chain.
    #[error("the AWS SDK has no credential provider chain")]
    NoProviderChain,
    /// The threads that serve callers cannot be started.
    #[error("cannot start the threads that serve callers: {0}")]
    Workers(std::io::Error),
    /// Signals cannot be received.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`], before it serves anything.
pub async fn serve(loaded: Loaded) -> Result<(), ServeError> {
    let stop = stop_signal().map_err(ServeError::Signals)?;
    // Taken even without TLS, so that a hangup means "read again" and never the end.
    let hangups = signal(SignalKind::hangup()).map_err(ServeError::Signals)?;
    let Loaded { config, enclave, enclave_bytes, tls } = loaded;

    if let Some(proxy) = &config.kms_proxy {
        let remote = proxy.remote.clone().unwrap_or_else(|| Remote::https(enclave.kms_host.clone()));
        let listener = Listener::bind(&proxy.listen).await.map_err(|e| cannot_listen(&proxy.listen, e))?;
        info!(listen = %proxy.listen, %remote, "the KMS proxy listens");
        tokio::spawn(kms_proxy::serve(listener, remote));
    }

    let aws = aws(&enclave.region).await;
    let credentials = CredentialFeed::new(aws.credentials_provider().ok_or(ServeError::NoProviderChain)?);
    tokio::spawn(credentials.clone().keep_fresh());
    let store = KeyStore::open(&config.store, &aws).map_err(ServeError::Store)?;
    let workers = Workers::start(MAX_WORKERS).map_err(ServeError::Workers)?;
    let address = config.enclave.address.clone();
    let enclave = EnclaveClient::start(address, enclave_bytes, credentials.clone(), workers.clone())?;

    let identities = config.identities();
    let listener = TcpListener::bind(config.listen).await.map_err(|e| cannot_listen(&config.listen, e))?;
    let address = listener.local_addr().map_err(|e| cannot_listen(&config.listen, e))?;
    let tls = tls.map(|material| Acceptor::start(material, hangups));
    greet(address, tls.is_some(), &identities);
    let app = App::new(Parts {
        admission: Admission::new(&config.limits, &identities),
        identities,
        enclave,
        records: Records::new(store, &config.limits),
        credentials,
        request_timeout: config.limits.request_timeout(),
        body_room: BodyRoom::default(),
        store_readiness: StoreReadiness::default(),
    });
    let connections = usize::try_from(config.limits.connections).unwrap_or(usize::MAX);
    // A request may use its whole time; then its reply still has to be written.
    let drain = config.limits.request_timeout() + Duration::from_secs(2);
    http::serve(Entrance { listener, tls, workers }, app.router(), connections, drain, stop).await;
    info!("stopped");
    Ok(())
}

fn greet(address: SocketAddr, tls: bool, identities: &Identities) {
    match identities {
        Identities::AnyLocalCaller => {
            warn!(%address, tls, "listening. No identities are configured: every process on this machine may do everything");
        }
        Identities::Known(identities) => info!(%address, tls, identities = identities.len(), "listening"),
    }
}

/// The SDK's default configuration, with deadlines, in the Region of `AWS_REGION` or otherwise the
/// enclave's.
pub(crate) async fn aws(region: &str) -> SdkConfig {
    let named = std::env::var("AWS_REGION").ok().filter(|region| !region.is_empty());
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_attempt_timeout(Duration::from_secs(3))
        .operation_timeout(Duration::from_secs(6))
        .build();
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(named.unwrap_or_else(|| region.to_owned())))
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard())
        .load()
        .await
}

/// Completes on SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn cannot_listen(address: &impl ToString, source: std::io::Error) -> ServeError {
    ServeError::Listen { address: address.to_string(), source }
}
