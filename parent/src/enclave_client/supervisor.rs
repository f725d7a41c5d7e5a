//! Keeps the enclave connected and configured, for ever: dial, hello, configure, credentials, then
//! watch until a connection ends, and again. An enclave that was restarted is configured anew; one
//! that holds another configuration is reported until someone restarts it.

use std::sync::Arc;
use std::time::Duration;

use strongroom_protocol::{
    Address, ByteString, Credentials, ErrorCode, Health, MAX_CONFIGURATION, Request, RequestFrame, Response, VERSION,
};
use strongroom_runtime::Workers;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::connection::{Connection, Failure, Sender};
use super::lanes::Lanes;
use crate::credentials::CredentialFeed;

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
        /// The connections.
        lanes: Lanes,
        /// What the enclave says of itself.
        health: Health,
    },
}

impl Status {
    /// This worker's connection, if it can be used.
    pub(super) fn lane(&self) -> Option<&Connection> {
        match self {
            Self::Ready { lanes, .. } => Some(lanes.here()).filter(|connection| connection.is_open()),
            _ => None,
        }
    }
}

/// Tells when the credentials change.
type News = watch::Receiver<Option<Arc<Credentials>>>;

/// The task that owns the status.
pub(super) struct Supervisor {
    address: Address,
    configuration: ByteString<MAX_CONFIGURATION>,
    credentials: CredentialFeed,
    workers: Workers,
    status: watch::Sender<Status>,
}

/// How long an enclave may take for a hello. One that runs answers at once.
const HELLO_DEADLINE: Duration = Duration::from_secs(3);

/// How long each step of the handshake may take. Measuring includes a document from the NSM.
const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// How often the enclave is asked how it is, and how long it may take to say so. A connection whose
/// other end vanished is found out by this, on both sides: the enclave gives up who asks nothing for half a minute.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_DEADLINE: Duration = Duration::from_secs(5);

/// When credentials are pushed again that the enclave did not take.
const PUSH_AGAIN: Duration = Duration::from_secs(1);

/// How often it is said again that the enclave does not answer.
const REMINDER: Duration = Duration::from_secs(60);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Supervisor {
    pub(super) fn new(
        address: Address,
        configuration: ByteString<MAX_CONFIGURATION>,
        credentials: CredentialFeed,
        workers: Workers,
    ) -> (Self, watch::Receiver<Status>) {
        let (status, watched) = watch::channel(Status::Away { since: Instant::now() });
        (Self { address, configuration, credentials, workers, status }, watched)
    }

    /// Runs for ever.
    pub(super) async fn run(self) {
        info!(address = %self.address, "connecting to the enclave");
        let mut pause = FIRST_PAUSE;
        let mut told: Option<Instant> = None;
        loop {
            // Subscribed before the enclave gets what there is, so that nothing published later is missed.
            let news = self.credentials.changes();
            match self.connect().await {
                Ok((lanes, health)) => {
                    pause = FIRST_PAUSE;
                    told = None;
                    let owed = self.owes_credentials(&health);
                    self.announce(Status::Ready { lanes: lanes.clone(), health });
                    self.watch_over(&lanes, news, owed).await;
                    lanes.close();
                    self.announce(Status::Away { since: Instant::now() });
                }
                Err(status) => {
                    self.announce(status);
                    // Also if it was never there: a wrong address looks like this.
                    if matches!(*self.status.borrow(), Status::Away { .. })
                        && told.is_none_or(|at| at.elapsed() > REMINDER)
                    {
                        told = Some(Instant::now());
                        warn!(address = %self.address, "the enclave does not answer; it is tried again and again");
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            sleep(with_jitter(pause)).await;
        }
    }

    /// One attempt, from dialling to an enclave that is configured.
    async fn connect(&self) -> Result<(Lanes, Health), Status> {
        let lanes = Lanes::open(&self.address, &self.workers).await.map_err(|error| {
            debug!(%error, "the enclave cannot be reached");
            self.away()
        })?;
        let health = self.prepare(&lanes).await.inspect_err(|_| lanes.close())?;
        Ok((lanes, health))
    }

    async fn prepare(&self, lanes: &Lanes) -> Result<Health, Status> {
        if let Err(failure) = lanes.on_each(greet).await {
            return Err(match failure {
                None | Some(Failure::Refused(ErrorCode::UnsupportedVersion)) => Status::OtherVersion,
                Some(failure) => self.unprepared("hello", failure),
            });
        }
        let connection = lanes.first();
        let configure = Request::Configure { configuration: self.configuration.clone() };
        match ask(connection, configure, STEP_DEADLINE).await {
            Ok(Response::Configured) => {}
            Err(Failure::Refused(code)) if code != ErrorCode::Busy => return Err(Status::ConfigurationRefused(code)),
            Ok(_) => return Err(self.away()),
            Err(failure) => return Err(self.unprepared("configure", failure)),
        }
        push_credentials(connection, &self.credentials).await;
        match pulse(connection).await {
            Ok(Some(health)) => Ok(health),
            Ok(None) => Err(self.away()),
            Err(failure) => Err(self.unprepared("health", failure)),
        }
    }

    /// Away, though there was somebody to speak to.
    fn unprepared(&self, step: &str, failure: Failure) -> Status {
        info!(step, ?failure, "the enclave was reached and did not get ready");
        self.away()
    }

    /// Returns when one of the connections is of no more use. `owed`: the enclave has yet to take the current
    /// credentials.
    async fn watch_over(&self, lanes: &Lanes, mut news: News, mut owed: bool) {
        loop {
            tokio::select! {
                () = lanes.one_closed() => return,
                Ok(()) = news.changed() => owed = true,
                () = sleep(if owed { PUSH_AGAIN } else { PING_EVERY }) => {}
            }
            let asking = async {
                // First whether it lives, on all connections: credentials have a longer deadline.
                let pulses = lanes.on_each(|connection| async move { pulse(&connection).await }).await?;
                for health in pulses.into_iter().flatten() {
                    owed |= self.owes_credentials(&health);
                    self.update(health);
                }
                if owed {
                    owed = !push_credentials(lanes.first(), &self.credentials).await;
                    let health = pulse(lanes.first()).await?;
                    health.into_iter().for_each(|health| self.update(health));
                }
                Ok::<_, Failure>(())
            };
            tokio::select! {
                () = lanes.one_closed() => return,
                asked = asking => if asked.is_err() { return },
            }
        }
    }

    fn owes_credentials(&self, health: &Health) -> bool {
        !health.credentials && self.credentials.are_live()
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

/// Hands the enclave the current credentials, if any, and tells whether it has them now. That it does not
/// use expired ones shows in its health.
async fn push_credentials(connection: &Connection, credentials: &CredentialFeed) -> bool {
    let Some(current) = credentials.current() else { return true };
    let request = Request::SetCredentials((*current).clone());
    match ask(connection, request, STEP_DEADLINE).await {
        Ok(Response::CredentialsSet) => return true,
        Ok(_) => warn!("the enclave did not confirm its AWS credentials"),
        Err(Failure::Refused(code)) => warn!(%code, "the enclave refused its AWS credentials"),
        Err(_) => {}
    }
    false
}

/// Says hello. Fails with nothing where something else is answered.
async fn greet(connection: Connection) -> Result<(), Option<Failure>> {
    match ask(&connection, Request::Hello { version: VERSION }, HELLO_DEADLINE).await.map_err(Some)? {
        Response::Hello { version: VERSION } => Ok(()),
        _ => Err(None),
    }
}

/// How the enclave is; nothing if it has no time for the question, or does not like it: it lives. Fails if nothing
/// comes back, or nonsense.
async fn pulse(connection: &Connection) -> Result<Option<Health>, Failure> {
    match ask(connection, Request::Health, PING_DEADLINE).await {
        Ok(Response::Health(health)) => Ok(Some(health)),
        Err(Failure::Busy | Failure::Refused(_)) => Ok(None),
        Ok(_) => Err(Failure::Lost),
        Err(failure) => Err(failure),
    }
}

pub(super) async fn ask(connection: &Connection, request: Request, deadline: Duration) -> Result<Response, Failure> {
    connection.call(Sender::Supervisor, &mut RequestFrame { id: 0, request }, Instant::now() + deadline).await
}

/// Between half of the pause and all of it, so that many parents do not come back together.
fn with_jitter(pause: Duration) -> Duration {
    // Without randomness there is only no jitter.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    pause.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0 + 0.5)
}
