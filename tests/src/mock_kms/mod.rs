//! mock-kms: a KMS that is honest. It speaks KMS's wire protocol over TLS, verifies what KMS verifies
//! (signatures of requests, attestation documents under a root of its own, key policies, encryption
//! contexts) and says no the way KMS does. What it is not: durable like KMS, or a place for secrets.
//!
//! A process of its own (`src/bin/mock-kms.rs`); tests and the development stack steer it with
//! [`Control`]. One file, one concern: `server` (sockets and order), `sigv4` (who calls), `actions`
//! (what is done), `recipient` (to whom), `keys` (with what),
//! `envelope` (how it is wrapped), `error` (how it says no), `faults`, `log`, `control` and its `client`, `sdk` (a client of KMS itself).

mod actions;
mod client;
mod control;
pub mod envelope;
mod error;
mod faults;
mod keys;
mod log;
mod principal;
mod recipient;
mod sdk;
mod server;
mod sigv4;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use serde_json::Value;
use strongroom_parent::kms_policy::Plan;

use crate::pki::TlsAuthority;

pub use client::{Control, ControlError, Endpoint};
pub use control::KeyView;
pub use error::KmsError;
pub use faults::{Fault, FaultKind};
pub use keys::KeyState;
pub use log::{Attested, Call};
pub use principal::Principal;
pub use sdk::sdk_client;
pub use strongroom_parent::kms_policy::Admitted;

/// The policy that an operator would generate for a key that wraps signing keys.
///
/// # Panics
/// If the plan is none.
#[must_use]
#[expect(clippy::expect_used, reason = "the plans of tests are valid")]
pub fn dedicated_key_policy(administrator_arn: &str, user_arn: &str, admitted: &[Admitted]) -> Value {
    let (administrators, users) = (vec![administrator_arn.to_owned()], vec![user_arn.to_owned()]);
    let provisioners = users.clone();
    let plan = Plan { administrators, users, provisioners, admitted: admitted.to_vec(), ..Plan::default() };
    plan.policy().expect("a plan")
}

/// The name in the state directory of the TLS root that clients need, PEM.
pub const TLS_ROOT_FILE: &str = "tls-root.pem";

/// The name in the state directory of the file that says where to connect. See [`Endpoint`].
pub const ENDPOINT_FILE: &str = "endpoint.json";

/// The name in the state directory of the log, one [`Call`] per line.
pub const CALLS_FILE: &str = "calls.jsonl";

const KEYS_FILE: &str = "keys.json";

/// How a mock-kms is set up.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where KMS is served, over TLS. Port 0: any; see `endpoint.json`
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Where the control endpoint is served, over plain HTTP. Loopback only
    #[arg(long, default_value = "127.0.0.1:0")]
    pub control: SocketAddr,
    /// Keys, log, TLS authority and endpoint live here
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// The root of the attestation documents that are believed, PEM. Read at each use, so it may appear later
    #[arg(long, value_name = "FILE")]
    pub attestation_root: PathBuf,
    /// Believe attestation documents that nobody signed, as QEMU's nitro-enclave machine makes them: whoever can
    /// reach this KMS can then claim any PCR. For booting images without Nitro hardware
    #[arg(long)]
    pub dangerously_believe_unsigned_attestation_documents_of_qemu: bool,
    /// The name in the TLS certificate
    #[arg(long, default_value = "kms.eu-central-1.amazonaws.com")]
    pub host: String,
    /// The Region
    #[arg(long, default_value = "eu-central-1")]
    pub region: String,
    /// The account
    #[arg(long, default_value = "111122223333")]
    pub account: String,
    /// The access key id of the principal that exists from the start
    #[arg(long)]
    pub access_key_id: String,
    /// Its secret access key
    #[arg(long)]
    pub secret_access_key: String,
    /// Its ARN [default: the role `strongroom-parent` of the account, in the session `mock`]
    #[arg(long, value_name = "ARN")]
    pub principal_arn: Option<String>,
}

/// One account's KMS in one Region.
struct Kms {
    region: String,
    account: String,
    attestation_root: PathBuf,
    believe_unsigned_documents: bool,
    keys: Mutex<keys::KmsKeys>,
    principals: Mutex<principal::Principals>,
    faults: Mutex<faults::Faults>,
    log: Mutex<log::CallLog>,
    documents: recipient::KnownDocuments,
}

/// Runs a KMS until the process ends.
///
/// # Errors
/// The operator's: the state cannot be read or written, an address is taken, or the control endpoint
/// would leave the machine.
pub async fn run(options: Options) -> io::Result<()> {
    if !options.control.ip().is_loopback() {
        return Err(io::Error::other("the control endpoint listens on loopback only"));
    }
    std::fs::create_dir_all(&options.state)?;
    // What a former process left here would lead clients astray.
    match std::fs::remove_file(options.state.join(ENDPOINT_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let authority = TlsAuthority::open(&options.state)?;
    replace(&options.state, TLS_ROOT_FILE, authority.root_pem().as_bytes())?;
    let tls = tls_acceptor(&authority, &options.host)?;
    let kms = Arc::new(Kms::open(&options)?);
    if kms.believe_unsigned_documents {
        tracing::warn!("UNSIGNED ATTESTATION DOCUMENTS ARE BELIEVED: nothing here is attested by anybody");
    }

    let listener = TcpListener::bind(options.listen).await?;
    let control = TcpListener::bind(options.control).await?;
    let endpoint = Endpoint { kms: listener.local_addr()?, control: control.local_addr()? };
    replace(&options.state, ENDPOINT_FILE, &serde_json::to_vec(&endpoint)?)?;
    tracing::info!(kms = %endpoint.kms, control = %endpoint.control, "mock-kms serves");
    tokio::select! {
        error = server::serve(Arc::clone(&kms), listener, tls) => Err(error),
        ended = control::serve(kms, control) => ended,
    }
}

impl Kms {
    fn open(options: &Options) -> io::Result<Self> {
        let default_arn = || format!("arn:aws:sts::{}:assumed-role/strongroom-parent/mock", options.account);
        let mut principals = principal::Principals::default();
        principals.insert(Principal {
            access_key_id: options.access_key_id.clone(),
            secret_access_key: options.secret_access_key.clone(),
            session_token: None,
            arn: options.principal_arn.clone().unwrap_or_else(default_arn),
            expires_at_ms: None,
        });
        let keys = keys::KmsKeys::open(options.state.join(KEYS_FILE), &options.region, &options.account)?;
        Ok(Self {
            region: options.region.clone(),
            account: options.account.clone(),
            attestation_root: options.attestation_root.clone(),
            believe_unsigned_documents: options.dangerously_believe_unsigned_attestation_documents_of_qemu,
            keys: Mutex::new(keys),
            principals: Mutex::new(principals),
            faults: Mutex::default(),
            log: Mutex::new(log::CallLog::open(&options.state.join(CALLS_FILE))?),
            documents: recipient::KnownDocuments::default(),
        })
    }

    fn keys(&self) -> MutexGuard<'_, keys::KmsKeys> {
        lock(&self.keys)
    }

    fn principals(&self) -> MutexGuard<'_, principal::Principals> {
        lock(&self.principals)
    }

    fn faults(&self) -> MutexGuard<'_, faults::Faults> {
        lock(&self.faults)
    }

    fn log(&self) -> MutexGuard<'_, log::CallLog> {
        lock(&self.log)
    }
}

/// A panic elsewhere does not make the value worse than it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tls_acceptor(authority: &TlsAuthority, host: &str) -> io::Result<TlsAcceptor> {
    let (chain, key) = authority.issue(host);
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Writes a file so that a reader sees all of it or nothing.
fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.persist(directory.join(name))?;
    Ok(())
}
