//! Keeps the enclave connected and configured, for ever: dial, hello, configure, credentials, then
//! watch until the connection ends, and again. An enclave that was restarted is configured anew; one
//! that holds another configuration is reported until someone restarts it.

use std::time::Duration;

use strongroom_protocol::{Address, ByteString, ErrorCode, Health, Request, RequestFrame, Response, VERSION};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::connection::{Connection, Failure};
use crate::credentials::CredentialFeed;
use crate::transport::dial;

/// How the enclave is, as far as this side knows.
#[derive(Debug, Clone)]
pub enum Status {
    /// There is no connection.
    Away {
        /// Since then.
        since: Instant,
    },
    /// The enclave's image speaks another version of the protocol.
    OtherVersion,
    /// The enclave does not take the configuration, or holds another: this is what it said.
    ConfigurationRefused(ErrorCode),
    /// Connected and configured.
    Ready {
        /// The connection. More of them could stand here.
        connection: Connection,
        /// What the enclave says of itself.
        health: Health,
    },
}

/// The task that owns the status.
pub(super) struct Supervisor {
    address: Address,
    configuration: ByteString<MAX_CONFIGURATION>,
    credentials: CredentialFeed,
    status: watch::Sender<Status>,
}

/// The bound of `Request::Configure`.
const MAX_CONFIGURATION: usize = 64 * 1024;

/// How long each step of the handshake may take. Measuring includes a document from the NSM.
const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// How often the enclave is asked how it is, and how long it may take to say so. A connection whose
/// other end vanished is found out by this.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_DEADLINE: Duration = Duration::from_secs(5);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Supervisor {
    pub(super) fn new(
        address: Address,
        configuration: ByteString<MAX_CONFIGURATION>,
        credentials: CredentialFeed,
    ) -> (Self, watch::Receiver<Status>) {
        let (status, watched) = watch::channel(Status::Away { since: Instant::now() });
        (Self { address, configuration, credentials, status }, watched)
    }

    /// Runs for ever.
    pub(super) async fn run(self) {
        info!(address = %self.address, "connecting to the enclave");
        let mut pause = FIRST_PAUSE;
        loop {
            match self.connect().await {
                Ok((connection, health)) => {
                    pause = FIRST_PAUSE;
                    self.announce(Status::Ready { connection: connection.clone(), health });
                    self.watch_over(&connection).await;
                    connection.close();
                    self.announce(Status::Away { since: Instant::now() });
                }
                Err(status) => {
                    self.announce(status);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            sleep(with_jitter(pause)).await;
        }
    }

    /// One attempt, from dialling to a configured connection.
    async fn connect(&self) -> Result<(Connection, Health), Status> {
        let stream = dial(&self.address).await.map_err(|_| self.away())?;
        let connection = Connection::open(stream);
        let health = self.prepare(&connection).await.inspect_err(|_| connection.close())?;
        Ok((connection, health))
    }

    async fn prepare(&self, connection: &Connection) -> Result<Health, Status> {
        match ask(connection, Request::Hello { version: VERSION }, STEP_DEADLINE).await {
            Ok(Response::Hello { version: VERSION }) => {}
            Ok(_) | Err(Failure::Refused(ErrorCode::UnsupportedVersion)) => return Err(Status::OtherVersion),
            Err(_) => return Err(self.away()),
        }
        let configure = Request::Configure { configuration: self.configuration.clone() };
        match ask(connection, configure, STEP_DEADLINE).await {
            Ok(Response::Configured) => {}
            Err(Failure::Refused(code)) => return Err(Status::ConfigurationRefused(code)),
            Ok(_) | Err(_) => return Err(self.away()),
        }
        push_credentials(connection, &self.credentials).await;
        health(connection).await.ok_or_else(|| self.away())
    }

    /// Returns when the connection is of no more use.
    async fn watch_over(&self, connection: &Connection) {
        let mut credentials = self.credentials.changes();
        loop {
            tokio::select! {
                () = connection.closed() => return,
                Ok(()) = credentials.changed() => {
                    push_credentials(connection, &self.credentials).await;
                }
                () = sleep(PING_EVERY) => {}
            }
            match health(connection).await {
                Some(health) => self.update(health),
                None => return,
            }
        }
    }

    fn update(&self, new: Health) {
        self.status.send_if_modified(|status| match status {
            Status::Ready { health, .. } if *health != new => {
                *health = new;
                true
            }
            _ => false,
        });
    }

    /// Away since it was first found away.
    fn away(&self) -> Status {
        match &*self.status.borrow() {
            Status::Away { since } => Status::Away { since: *since },
            _ => Status::Away { since: Instant::now() },
        }
    }

    /// Publishes a status, and logs it if it is news.
    fn announce(&self, status: Status) {
        let news = std::mem::discriminant(&*self.status.borrow()) != std::mem::discriminant(&status);
        match &status {
            _ if !news => {}
            Status::Away { .. } => warn!(address = %self.address, "the enclave is away"),
            Status::OtherVersion => {
                warn!(address = %self.address, "the enclave speaks another version of the protocol")
            }
            Status::ConfigurationRefused(ErrorCode::ConfiguredOtherwise) => {
                warn!(address = %self.address, "the enclave holds another configuration: restart it");
            }
            Status::ConfigurationRefused(code) => {
                warn!(address = %self.address, %code, "the enclave refused its configuration");
            }
            Status::Ready { health, .. } => {
                info!(address = %self.address, debug_mode = health.debug_mode, "the enclave is connected and configured");
            }
        }
        self.status.send_replace(status);
    }
}

/// Asks the provider for new credentials and hands the enclave what there is then.
pub(super) async fn renew_credentials(connection: &Connection, credentials: &CredentialFeed) {
    credentials.renew().await;
    push_credentials(connection, credentials).await;
}

/// Hands the enclave the current credentials, if any. That it refuses expired ones shows in its health.
async fn push_credentials(connection: &Connection, credentials: &CredentialFeed) {
    let Some(current) = credentials.current() else { return };
    let request = Request::SetCredentials((*current).clone());
    match ask(connection, request, STEP_DEADLINE).await {
        Ok(Response::CredentialsSet) => {}
        Ok(_) => warn!("the enclave did not confirm its AWS credentials"),
        Err(Failure::Refused(code)) => warn!(%code, "the enclave refused its AWS credentials"),
        Err(_) => {}
    }
}

async fn health(connection: &Connection) -> Option<Health> {
    match ask(connection, Request::Health, PING_DEADLINE).await {
        Ok(Response::Health(health)) => Some(health),
        _ => None,
    }
}

async fn ask(connection: &Connection, request: Request, deadline: Duration) -> Result<Response, Failure> {
    connection.call(&mut RequestFrame { id: 0, request }, Instant::now() + deadline).await
}

/// Between half of the pause and all of it, so that many parents do not come back together.
fn with_jitter(pause: Duration) -> Duration {
    // Without randomness there is only no jitter.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    pause.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0 + 0.5)
}
