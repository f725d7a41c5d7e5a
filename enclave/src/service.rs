//! What the enclave does for each request, and in which state: before and after its configuration is
//! measured. Decides the order of steps; each step's own decision is made where it belongs.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use strongroom_protocol::{
    Address, Configuration, ConfigurationPin, Created, ErrorCode, Health, KeyDescription, Measurement, Nonce,
    Operation, Origin, Request, Response, VERSION,
};
use strongroom_runtime::Workers;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::attest::{Nsm, NsmError};
use crate::custody::{Custody, check_recipients};
use crate::keyring::{Keyring, Limits};
use crate::kms::{CredentialStore, DEADLINE, Kms};
use crate::policy::{OutOfReach, reach};
use crate::secret::KeyMaterial;
use crate::signing::Signing;
use crate::transport::Peer;
use crate::wrapping::Wrapping;

/// The enclave's one state.
pub(crate) struct Service {
    nsm: Nsm,
    kms_proxy: Address,
    debug_mode: bool,
    /// The image's.
    pin: Option<ConfigurationPin>,
    credentials: CredentialStore,
    signing: Signing,
    /// How many workers ask KMS.
    workers: usize,
    configured: OnceLock<Configured>,
    /// One Configure at a time; whether measuring has failed for good.
    configuring: Mutex<Measuring>,
}

/// PCR16's part in Configure.
enum Measuring {
    /// Nothing was extended yet.
    Open,
    /// Something went wrong after the extend, or before us: only a reboot helps.
    Failed,
}

/// What exists once a configuration is measured and locked.
struct Configured {
    configuration: Arc<Configuration>,
    measurement: Measurement,
    wrapping: Arc<Wrapping>,
    keyring: Arc<Keyring>,
    custody: Custody,
}

impl Service {
    /// A service that waits for its configuration.
    ///
    /// # Errors
    /// The secure module does not work: there is no point in going on.
    pub(crate) async fn new(
        nsm: Nsm,
        kms_proxy: Address,
        pin: Option<ConfigurationPin>,
        workers: Workers,
    ) -> Result<Self, NsmError> {
        let debug_mode = nsm.is_debug_mode().await?;
        if debug_mode {
            tracing::error!("PCR0 is zero (debug mode): every key operation will be refused");
        }
        Ok(Self {
            nsm,
            kms_proxy,
            debug_mode,
            pin,
            credentials: CredentialStore::empty(),
            workers: workers.count(),
            signing: Signing::new(workers),
            configured: OnceLock::new(),
            configuring: Mutex::new(Measuring::Open),
        })
    }

    /// Serves one request of `peer`.
    ///
    /// # Errors
    /// The code says who is to blame.
    pub(crate) async fn handle(&self, request: Request, peer: Peer) -> Result<Response, ErrorCode> {
        match request {
            Request::Hello { version: VERSION } => Ok(Response::Hello { version: VERSION }),
            Request::Hello { .. } => Err(ErrorCode::UnsupportedVersion),
            Request::Health => Ok(Response::Health(self.health())),
            Request::Attest { nonce } => self.attest(nonce).await,
            Request::Configure { configuration } => Box::pin(self.configure(&configuration, peer)).await,
            Request::SetCredentials(credentials) => {
                self.configured.get().ok_or(ErrorCode::NotConfigured)?;
                self.credentials.replace(credentials);
                Ok(Response::CredentialsSet)
            }
            Request::GenerateKey { key_id, algorithm, policy, kms_key_arn } => {
                let configured = self.serving(Some(Operation::Generate))?;
                let description = KeyDescription { key_id, algorithm, policy, kms_key_arn };
                created(in_time(self.generate(configured, description)).await?)
            }
            Request::OfferImportKey { nonce } => {
                reply_document(self.serving(Some(Operation::Import))?.custody.offer(nonce).await?)
            }
            Request::ImportKey { import_key, description, sealed } => {
                let custody = &self.serving(Some(Operation::Import))?.custody;
                created(in_time(custody.import(&import_key, *description, &sealed)).await?)
            }
            Request::AdoptKey { description, adopt_kms_key_arn, ciphertext, expected } => {
                let custody = &self.serving(Some(Operation::Adopt))?.custody;
                let adoption = custody.adopt(*description, adopt_kms_key_arn.as_ref(), &ciphertext, &expected);
                created(in_time(adoption).await?)
            }
            Request::ExportKey { record, recipient, nonce } => {
                let custody = &self.serving(Some(Operation::Export))?.custody;
                let (sealed, document) = in_time(custody.export(&record, &recipient, nonce)).await?;
                let document = document.try_into().map_err(|_| ErrorCode::AttestationFailed)?;
                Ok(Response::Exported { sealed, document })
            }
            Request::Rewrap { record, kms_key_arn } => {
                let wrapping = &self.serving(Some(Operation::Rewrap))?.wrapping;
                let rewrapped = in_time(wrapping.rewrap(&record, &kms_key_arn)).await?;
                Ok(Response::Rewrapped(Box::new(rewrapped)))
            }
            Request::OpenRecord { record, nonce } => {
                let key = self.serving(None)?.keyring.open(&record).await?;
                let document = self.nsm.key_evidence(&key.binding, nonce).await?;
                reply_document(document)
            }
            Request::Sign { record, scheme, path, payloads } => {
                let key = self.serving(Some(Operation::Sign))?.keyring.open(&record).await?;
                let reached = reach(&key, path.as_ref()).map_err(out_of_reach)?;
                Ok(Response::Signed(self.signing.sign(reached, scheme, payloads).await))
            }
            Request::DerivePublicKey { record, path } => {
                let key = self.serving(None)?.keyring.open(&record).await?;
                let reached = reach(&key, Some(&path)).map_err(out_of_reach)?;
                Ok(Response::PublicKey { public_key: reached.public_key(), addresses: reached.addresses() })
            }
        }
    }

    /// The configured part, if this key operation is served at all.
    fn serving(&self, operation: Option<Operation>) -> Result<&Configured, ErrorCode> {
        let configured = self.configured.get().ok_or(ErrorCode::NotConfigured)?;
        if self.debug_mode {
            return Err(ErrorCode::DebugMode);
        }
        match operation {
            Some(operation) if !configured.configuration.allows(operation) => Err(ErrorCode::OperationNotConfigured),
            _ => Ok(configured),
        }
    }

    fn health(&self) -> Health {
        let configured = self.configured.get();
        Health {
            configured: configured.is_some(),
            credentials: self.credentials.check().is_ok(),
            debug_mode: self.debug_mode,
            held_keys: configured.map_or(0, |configured| configured.keyring.held_keys()),
        }
    }

    async fn attest(&self, nonce: Nonce) -> Result<Response, ErrorCode> {
        let measurement = self.configured.get().map(|configured| &configured.measurement);
        reply_document(self.nsm.enclave_evidence(measurement, nonce).await?)
    }

    /// Validates, measures, locks; once. The same bytes again are accepted: the parent restarted.
    async fn configure(&self, bytes: &[u8], peer: Peer) -> Result<Response, ErrorCode> {
        let mut measuring = self.configuring.lock().await;
        let measurement = Measurement::of(bytes);
        if let Some(configured) = self.configured.get() {
            let same = configured.measurement == measurement;
            return if same { Ok(Response::Configured) } else { Err(ErrorCode::ConfiguredOtherwise) };
        }
        if matches!(*measuring, Measuring::Failed) {
            return Err(ErrorCode::ConfigurationFailed);
        }
        if self.pin.is_some_and(|pin| !pin.accepts(&measurement)) {
            tracing::error!("configuration refused: the image accepts another one only");
            return Err(ErrorCode::ConfigurationNotAccepted);
        }
        let configuration = Configuration::parse(bytes).map_err(|error| {
            tracing::error!(%error, "configuration refused");
            ErrorCode::ConfigurationInvalid
        })?;
        let (proxy, credentials, nsm) = (self.kms_proxy.clone(), self.credentials.clone(), self.nsm.clone());
        let kms = Kms::new(&configuration, proxy, peer, credentials, nsm, self.workers);
        let kms = kms.map_err(|error| {
            tracing::error!(%error, "configuration refused");
            ErrorCode::ConfigurationInvalid
        })?;
        check_recipients(&configuration).map_err(|error| {
            tracing::error!(%error, "configuration refused: export_recipients");
            ErrorCode::ConfigurationInvalid
        })?;
        if !self.nsm.can_measure().await? {
            tracing::error!("PCR16 was used before us: final until reboot");
            *measuring = Measuring::Failed;
            return Err(ErrorCode::ConfigurationFailed);
        }

        // From here on nothing is taken back. A task that dies in between leaves it failed.
        *measuring = Measuring::Failed;
        self.nsm.measure(&measurement).await.map_err(|error| {
            tracing::error!(%error, "the configuration was not measured: final until reboot");
            ErrorCode::ConfigurationFailed
        })?;
        kms.keep_recipient_ready();
        let limits = Limits {
            max_hold: Duration::from_secs(u64::from(configuration.max_hold_seconds)),
            max_held: usize::try_from(configuration.max_held_keys).unwrap_or(usize::MAX),
        };
        let configuration = Arc::new(configuration);
        let wrapping = Arc::new(Wrapping::new(kms, Arc::clone(&configuration)));
        let keyring = Keyring::start(Arc::clone(&wrapping), limits);
        let custody = Custody::start(self.nsm.clone(), Arc::clone(&configuration), Arc::clone(&wrapping));
        tracing::info!(pcr16 = hex::encode(measurement.pcr16), "configuration measured and locked");
        let configured = Configured { configuration, measurement, wrapping, keyring, custody };
        self.configured.set(configured).map_err(|_| ErrorCode::Internal)?;
        Ok(Response::Configured)
    }

    /// Makes a key and its record.
    async fn generate(&self, configured: &Configured, description: KeyDescription) -> Result<Created, ErrorCode> {
        // A seed has 32 bytes too: the length that BIP-32 advises, twice the security of either curve, and what
        // every wallet takes. The 64 of a BIP-39 seed are 16 to 32 of entropy, stretched. A scalar out of range
        // has a probability of 2^-128; the caller may ask again.
        let material = KeyMaterial::from(&self.nsm.new_secret().await?);
        configured.wrapping.create(description, Origin::Generated, material).await
    }
}

/// Several calls of KMS in the time of one operation. Boxed: such operations are rare and large, and their
/// room would be that of every request in flight.
fn in_time<T>(work: impl Future<Output = Result<T, ErrorCode>>) -> impl Future<Output = Result<T, ErrorCode>> {
    let in_time = timeout(DEADLINE, Box::pin(work));
    async { in_time.await.unwrap_or(Err(ErrorCode::KmsTimeout)) }
}

fn out_of_reach(error: OutOfReach) -> ErrorCode {
    match error {
        OutOfReach::PathRequired => ErrorCode::PathRequired,
        OutOfReach::Denied => ErrorCode::PathDenied,
        OutOfReach::PathSuperfluous | OutOfReach::Underivable(_) => ErrorCode::PathInvalid,
    }
}

fn created(created: Created) -> Result<Response, ErrorCode> {
    Ok(Response::Created(Box::new(created)))
}

fn reply_document(document: Vec<u8>) -> Result<Response, ErrorCode> {
    document.try_into().map(Response::Document).map_err(|_| ErrorCode::AttestationFailed)
}
