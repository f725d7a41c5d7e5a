//! The parent's side of the enclave socket: typed calls with deadlines over multiplexed connections, one
//! for each worker, that a supervisor keeps up and configured. It believes the enclave's replies but not
//! their order or their number; what they mean to a caller is `problem`'s matter.

mod connection;
mod lanes;
mod probe;
mod supervisor;

use std::collections::BTreeMap;
use std::time::Duration;

use strongroom_protocol::document::MAX_DOCUMENT;
use strongroom_protocol::{
    Address, Algorithm, ByteString, Created, DerivationPath, ErrorCode, ExpectedKey, ImportKeyId, KeyDescription,
    KeyId, KeyRecord, KmsKeyArn, Nonce, Payload, Policy, PresentedRecord, PublicKey, RecipientName, Request,
    RequestFrame, Response, Scheme, SealedKey, Signature,
};
use strongroom_runtime::Workers;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::credentials::CredentialFeed;
use connection::{Connection, Failure, Sender};
pub use lanes::Lanes;
pub use probe::{ProbeError, probe};
pub use supervisor::Status;
use supervisor::Supervisor;

/// A handle to the enclave. Clones share the connections.
#[derive(Debug, Clone)]
pub struct EnclaveClient {
    status: watch::Receiver<Status>,
    credentials: CredentialFeed,
}

/// Why a call brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The enclave's or the way's: there is no connection.
    #[error("the enclave is not connected")]
    Unavailable,
    /// The connection broke after the request was sent: whether the enclave acted on it is not known.
    #[error("the connection to the enclave broke")]
    Lost,
    /// The operator's: the enclave's image speaks another version of the protocol.
    #[error("the enclave speaks another version")]
    OtherVersion,
    /// Too many requests are in flight on this side.
    #[error("too many requests in flight")]
    Busy,
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// The caller's: the request is larger than a frame. It was not sent.
    #[error("the request is too large for the enclave")]
    TooLarge,
    /// The enclave's or ours: the reply is not one to this request.
    #[error("the enclave's reply does not fit the request")]
    Unexpected,
    /// The enclave refused.
    #[error(transparent)]
    Refused(ErrorCode),
}

/// An attestation document as the enclave sent it.
pub type RawDocument = ByteString<MAX_DOCUMENT>;

/// How long a request may wait for a connection that has just been lost.
const PATIENCE: Duration = Duration::from_secs(3);

impl EnclaveClient {
    /// Keeps a connection per worker to the enclave at `address` from now on, and the enclave configured
    /// with exactly these bytes.
    ///
    /// # Errors
    /// The operator's: the configuration is longer than a message takes.
    pub fn start(
        address: Address,
        configuration: Vec<u8>,
        credentials: CredentialFeed,
        workers: Workers,
    ) -> Result<Self, strongroom_protocol::TooLong> {
        let (supervisor, status) = Supervisor::new(address, configuration.try_into()?, credentials.clone(), workers);
        tokio::spawn(supervisor.run());
        Ok(Self { status, credentials })
    }

    /// How the enclave is, as far as this side knows.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn generate_key(
        &self,
        key_id: KeyId,
        algorithm: Algorithm,
        policy: Policy,
        kms_key_arn: Option<KmsKeyArn>,
        deadline: Instant,
    ) -> Result<Created, CallError> {
        self.create(Request::GenerateKey { key_id, algorithm, policy, kms_key_arn }, deadline).await
    }

    /// Has a key offered to which a custodian can seal one key; the document names it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn offer_import_key(&self, nonce: Nonce, deadline: Instant) -> Result<RawDocument, CallError> {
        self.document(Request::OfferImportKey { nonce }, deadline).await
    }

    /// Passes on a key that a custodian has sealed to an import key.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn import_key(
        &self,
        import_key: ImportKeyId,
        description: KeyDescription,
        sealed: SealedKey,
        deadline: Instant,
    ) -> Result<Created, CallError> {
        self.create(Request::ImportKey { import_key, description: Box::new(description), sealed }, deadline).await
    }

    /// Has a secret taken over that lies under a KMS key, if it is the expected key.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn adopt_key(
        &self,
        description: KeyDescription,
        adopt_kms_key_arn: Option<KmsKeyArn>,
        ciphertext: ByteString<6144>,
        expected: ExpectedKey,
        deadline: Instant,
    ) -> Result<Created, CallError> {
        let description = Box::new(description);
        self.create(Request::AdoptKey { description, adopt_kms_key_arn, ciphertext, expected }, deadline).await
    }

    /// Has a key sealed to a recipient of the enclave's configuration, with evidence of it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn export_key(
        &self,
        record: PresentedRecord,
        recipient: RecipientName,
        nonce: Nonce,
        deadline: Instant,
    ) -> Result<(SealedKey, RawDocument), CallError> {
        match self.call(Request::ExportKey { record, recipient, nonce }, deadline).await? {
            Response::Exported { sealed, document } => Ok((sealed, document)),
            _ => Err(CallError::Unexpected),
        }
    }

    /// Signs each of the payloads, for one unlock of the key: one result per payload, in order. They can be
    /// megabytes, so they are lent to the request and not copied: when the answer is there, `payloads` is as before.
    ///
    /// # Errors
    /// [`CallError`]: none of them is signed, as far as is known.
    pub async fn sign(
        &self,
        record: PresentedRecord,
        scheme: Scheme,
        path: Option<DerivationPath>,
        payloads: &mut Vec<Payload>,
        deadline: Instant,
    ) -> Result<Vec<Result<Signature, ErrorCode>>, CallError> {
        let lent = std::mem::take(payloads);
        let mut frame = unnumbered(Request::Sign { record, scheme: Some(scheme), path, payloads: lent });
        let outcome = self.exchange(&mut frame, deadline).await;
        if let Request::Sign { payloads: back, .. } = frame.request {
            *payloads = back;
        }
        match outcome? {
            Response::Signed(results) if results.len() == payloads.len() => Ok(results),
            _ => Err(CallError::Unexpected),
        }
    }

    /// Puts a key under this KMS key and returns its new record, which the enclave has opened once.
    /// Nothing is stored by that: until the new record is, the old one is the key's.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn rewrap(
        &self,
        record: PresentedRecord,
        kms_key_arn: KmsKeyArn,
        deadline: Instant,
    ) -> Result<KeyRecord, CallError> {
        match self.call(Request::Rewrap { record, kms_key_arn }, deadline).await? {
            Response::Rewrapped(record) => Ok(*record),
            _ => Err(CallError::Unexpected),
        }
    }

    /// The public key at a path below a seed, and its addresses by chain.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn derive_public_key(
        &self,
        record: PresentedRecord,
        path: DerivationPath,
        deadline: Instant,
    ) -> Result<(PublicKey, BTreeMap<String, String>), CallError> {
        match self.call(Request::DerivePublicKey { record, path }, deadline).await? {
            Response::PublicKey { public_key, addresses } => Ok((public_key, addresses)),
            _ => Err(CallError::Unexpected),
        }
    }

    /// Opens a record and returns evidence over its binding.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn open_record(
        &self,
        record: PresentedRecord,
        nonce: Nonce,
        deadline: Instant,
    ) -> Result<RawDocument, CallError> {
        self.document(Request::OpenRecord { record, nonce }, deadline).await
    }

    /// Evidence about the enclave itself.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn attest(&self, nonce: Nonce, deadline: Instant) -> Result<RawDocument, CallError> {
        self.document(Request::Attest { nonce }, deadline).await
    }

    async fn create(&self, request: Request, deadline: Instant) -> Result<Created, CallError> {
        match self.call(request, deadline).await? {
            Response::Created(created) => Ok(*created),
            _ => Err(CallError::Unexpected),
        }
    }

    async fn document(&self, request: Request, deadline: Instant) -> Result<RawDocument, CallError> {
        match self.call(request, deadline).await? {
            Response::Document(document) => Ok(document),
            _ => Err(CallError::Unexpected),
        }
    }

    async fn call(&self, request: Request, deadline: Instant) -> Result<Response, CallError> {
        self.exchange(&mut unnumbered(request), deadline).await
    }

    /// Sends a request once. It is repeated only if it was certainly not sent, or if the enclave lacks
    /// credentials that work, and then once, with new ones.
    async fn exchange(&self, frame: &mut RequestFrame, deadline: Instant) -> Result<Response, CallError> {
        let mut renewed = false;
        loop {
            let connection = self.connection(deadline).await?;
            match connection.call(Sender::Caller, frame, deadline).await {
                Err(Failure::NotSent) => {}
                Err(Failure::Refused(ErrorCode::CredentialsMissing | ErrorCode::CredentialsRefused)) if !renewed => {
                    renewed = true;
                    let push = supervisor::renew_credentials(&connection, &self.credentials);
                    timeout_at(deadline, push).await.map_err(|_| CallError::Deadline)?;
                }
                outcome => return outcome.map_err(CallError::from),
            }
        }
    }

    /// This worker's connection, configured. Waits for one only while that may help.
    async fn connection(&self, deadline: Instant) -> Result<Connection, CallError> {
        if let Some(connection) = self.status.borrow().lane() {
            return Ok(connection.clone());
        }
        let mut status = self.status.clone();
        loop {
            let wait_until = {
                let known = status.borrow_and_update();
                if let Some(connection) = known.lane() {
                    return Ok(connection.clone());
                }
                match &*known {
                    // The supervisor is about to notice.
                    Status::Ready { .. } => Instant::now() + PATIENCE,
                    Status::Away { since } => *since + PATIENCE,
                    Status::OtherVersion => return Err(CallError::OtherVersion),
                    Status::ConfigurationRefused(code) => return Err(CallError::Refused(*code)),
                }
            };
            match timeout_at(wait_until.min(deadline), status.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(CallError::Unavailable),
            }
        }
    }
}

/// A request to which the connection will give its number.
const fn unnumbered(request: Request) -> RequestFrame {
    RequestFrame { id: 0, request }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent => Self::Unavailable,
            Failure::Lost => Self::Lost,
            Failure::Busy => Self::Busy,
            Failure::Deadline => Self::Deadline,
            Failure::TooLarge => Self::TooLarge,
            Failure::Refused(code) => Self::Refused(code),
        }
    }
}

#[cfg(test)]
mod tests;
