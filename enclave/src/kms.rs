//! KMS from inside the enclave: two attested calls, over TLS that ends here, through a proxy that is
//! not trusted. With its submodules, the only code that names the KMS and TLS crates.
//!
//! Every call names a full key ARN and carries an attestation document; a reply counts only if it
//! names the same ARN, has no plaintext and an envelope for our own RSA key. `Encrypt` is never
//! called: attestation cannot gate it.

mod connector;
mod recipient;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, IdentityCache, Region, StalledStreamProtectionConfig};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::operation::generate_data_key::GenerateDataKeyError;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyEncryptionMechanism, RecipientInfo};
use strongroom_protocol::{Address, Configuration, Credentials, ErrorCode, KmsKeyArn};
use tokio::sync::{Semaphore, watch};
use zeroize::Zeroizing;

use crate::attest::{Nsm, NsmError};
use crate::cms::EnvelopeRefused;
use crate::secret::Secret;
use crate::transport::Peer;
use connector::Connector;
pub(crate) use connector::InvalidRoots;
use recipient::{Recipient, Recipients};

/// One attempt, with connecting.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// One operation with all its calls and their retries. Below the parent's own deadline (10 s unless it is
/// configured otherwise), so that the caller learns why.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);
/// Attempts of one call. Backoff starts at 50 ms, doubles, and is jittered by the SDK.
const MAX_ATTEMPTS: u32 = 4;
/// Calls in flight; more wait their turn within their deadline.
const MAX_IN_FLIGHT: usize = 64;

/// A KMS client for one measured configuration.
pub(crate) struct Kms {
    client: aws_sdk_kms::Client,
    credentials: CredentialStore,
    recipients: Arc<Recipients>,
    in_flight: Semaphore,
}

/// A new data key: in the clear, and as KMS's blob.
pub(crate) struct DataKey {
    /// AES-256.
    pub(crate) key: Secret<32>,
    /// What Decrypt takes.
    pub(crate) blob: Vec<u8>,
}

/// Why a call gave no data key, by blame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KmsError {
    #[error("the parent has sent no credentials")]
    CredentialsMissing,
    #[error("the credentials have expired or are not taken ({0})")]
    CredentialsRefused(String),
    #[error("KMS denies access")]
    Denied,
    #[error("the data key's blob is not one of this KMS key and encryption context")]
    BlobRefused,
    #[error("the KMS key cannot be used ({0})")]
    KeyUnusable(String),
    #[error("KMS throttles")]
    Throttled,
    #[error("KMS did not answer in time")]
    Timeout,
    #[error("KMS cannot be reached or failed: {0}")]
    Unavailable(String),
    #[error("KMS's reply is refused: {0}")]
    ReplyRefused(&'static str),
    #[error(transparent)]
    Nsm(#[from] NsmError),
}

impl From<KmsError> for ErrorCode {
    fn from(error: KmsError) -> Self {
        tracing::warn!(%error, "KMS call failed");
        match error {
            KmsError::CredentialsMissing => Self::CredentialsMissing,
            KmsError::CredentialsRefused(_) => Self::CredentialsRefused,
            KmsError::Denied => Self::KmsDenied,
            KmsError::BlobRefused => Self::RecordRefused,
            KmsError::KeyUnusable(_) => Self::KmsKeyUnusable,
            KmsError::Throttled => Self::KmsThrottled,
            KmsError::Timeout => Self::KmsTimeout,
            KmsError::Unavailable(_) => Self::KmsUnavailable,
            KmsError::ReplyRefused(_) => Self::KmsReplyRefused,
            KmsError::Nsm(_) => Self::AttestationFailed,
        }
    }
}

impl Kms {
    /// A client of the configuration's endpoint, reached through `proxy`.
    ///
    /// # Errors
    /// The configuration's author's: its TLS roots are no certificates.
    pub(crate) fn new(
        configuration: &Configuration,
        proxy: Address,
        parent: Peer,
        credentials: CredentialStore,
        nsm: Nsm,
        workers: usize,
    ) -> Result<Self, InvalidRoots> {
        let connector = Connector::new(proxy, parent, configuration.tls_roots.as_deref(), workers)?;
        let timeouts =
            TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).operation_timeout(DEADLINE).build();
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(configuration.region.clone()))
            .endpoint_url(format!("https://{}", configuration.kms_host))
            .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
            // The store itself is the cache; replaced credentials count at once.
            .identity_cache(IdentityCache::no_cache())
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(MAX_ATTEMPTS)
                    .with_initial_backoff(Duration::from_millis(50))
                    .with_max_backoff(Duration::from_secs(1)),
            )
            .timeout_config(timeouts)
            // Replies are read whole, within the attempt's deadline.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .http_client(connector.into_http_client())
            .build();
        Ok(Self {
            client: aws_sdk_kms::Client::from_conf(config),
            credentials,
            recipients: Recipients::new(nsm),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
        })
    }

    /// Starts the task that has a recipient ready before it is needed. After Configure: a document made
    /// before it would not show PCR16.
    pub(crate) fn keep_recipient_ready(&self) {
        tokio::spawn(Arc::clone(&self.recipients).keep_ready());
    }

    /// A new data key under `key`, bound to `context`: one attested `GenerateDataKey`.
    pub(crate) async fn generate_data_key(
        &self,
        key: &KmsKeyArn,
        context: HashMap<String, String>,
    ) -> Result<DataKey, KmsError> {
        self.attested(|recipient| {
            let call = self
                .client
                .generate_data_key()
                .key_id(key.as_str())
                .key_spec(DataKeySpec::Aes256)
                .set_encryption_context(Some(context.clone()))
                .recipient(recipient.info());
            async move {
                let reply = call.send().await.map_err(KmsError::from)?;
                let blob = reply.ciphertext_blob.ok_or(KmsError::ReplyRefused("no CiphertextBlob"))?;
                let content = released(&recipient, key, reply.key_id, reply.plaintext, reply.ciphertext_for_recipient)?;
                Ok(DataKey { key: data_key(&content)?, blob: blob.into_inner() })
            }
        })
        .await
    }

    /// Opens a data key's blob under `key` and `context`: one attested `Decrypt`.
    pub(crate) async fn decrypt(
        &self,
        key: &KmsKeyArn,
        blob: &[u8],
        context: HashMap<String, String>,
    ) -> Result<Secret<32>, KmsError> {
        data_key(&self.decrypt_content(key, blob, Some(context)).await?)
    }

    /// Opens what somebody encrypted under `key` without encryption context: one attested `Decrypt`. Whoever may
    /// `Encrypt` under that key chose the content.
    pub(crate) async fn decrypt_unbound(&self, key: &KmsKeyArn, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        self.decrypt_content(key, blob, None).await
    }

    async fn decrypt_content(
        &self,
        key: &KmsKeyArn,
        blob: &[u8],
        context: Option<HashMap<String, String>>,
    ) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        self.attested(|recipient| {
            let call = self
                .client
                .decrypt()
                .key_id(key.as_str())
                .ciphertext_blob(Blob::new(blob))
                .set_encryption_context(context.clone())
                .recipient(recipient.info());
            async move {
                let reply = call.send().await.map_err(KmsError::from)?;
                released(&recipient, key, reply.key_id, reply.plaintext, reply.ciphertext_for_recipient)
            }
        })
        .await
    }

    /// Makes one call with the recipient that is ready. A document is reused while it is fresh, but its
    /// leaf certificate may run out meanwhile: a denial is asked again, once, with a new document.
    async fn attested<T, F>(&self, call: impl Fn(Arc<Recipient>) -> F) -> Result<T, KmsError>
    where
        F: Future<Output = Result<T, KmsError>>,
    {
        self.credentials.check()?;
        let in_time = tokio::time::timeout(DEADLINE, async {
            let _permit = self.in_flight.acquire().await.map_err(|e| KmsError::Unavailable(e.to_string()))?;
            let recipient = self.recipients.current().await?;
            let reused = recipient.is_reused();
            match call(Arc::clone(&recipient)).await {
                Err(KmsError::Denied) if reused => call(self.recipients.newer_than(&recipient).await?).await,
                outcome => outcome,
            }
        });
        in_time.await.unwrap_or(Err(KmsError::Timeout))
    }
}

impl Recipient {
    fn info(&self) -> RecipientInfo {
        RecipientInfo::builder()
            .key_encryption_algorithm(KeyEncryptionMechanism::RsaesOaepSha256)
            .attestation_document(Blob::new(self.document()))
            .build()
    }
}

/// The content of a reply, if the reply is one that KMS gives to an attested call.
fn released(
    recipient: &Recipient,
    asked: &KmsKeyArn,
    answered: Option<String>,
    plaintext: Option<Blob>,
    envelope: Option<Blob>,
) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    if let Some(plaintext) = plaintext {
        // Wiped by the allocator when dropped. KMS sends null or an empty value beside an envelope.
        if !plaintext.into_inner().is_empty() {
            return Err(KmsError::ReplyRefused("it has Plaintext"));
        }
    }
    if answered.as_deref() != Some(asked.as_str()) {
        return Err(KmsError::ReplyRefused("another KeyId"));
    }
    let envelope = envelope.ok_or(KmsError::ReplyRefused("no CiphertextForRecipient"))?;
    let opened = recipient.key().open(envelope.as_ref());
    opened.map_err(|EnvelopeRefused| KmsError::ReplyRefused("its envelope does not open"))
}

fn data_key(content: &[u8]) -> Result<Secret<32>, KmsError> {
    let content: &[u8; 32] = content.try_into().map_err(|_| KmsError::ReplyRefused("not a data key of 32 bytes"))?;
    Ok(Secret::from(content))
}

impl From<SdkError<DecryptError>> for KmsError {
    fn from(error: SdkError<DecryptError>) -> Self {
        blame(&error)
    }
}

impl From<SdkError<GenerateDataKeyError>> for KmsError {
    fn from(error: SdkError<GenerateDataKeyError>) -> Self {
        blame(&error)
    }
}

/// Sorts KMS's errors by code: the SDK models only some of them as variants (KMS API Reference,
/// "Common Errors", Decrypt and GenerateDataKey "Errors").
fn blame<E: ProvideErrorMetadata>(error: &SdkError<E>) -> KmsError {
    match error {
        SdkError::TimeoutError(_) => return KmsError::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => return KmsError::Timeout,
        SdkError::DispatchFailure(failure) => return KmsError::Unavailable(format!("{failure:?}")),
        SdkError::ResponseError(_) => return KmsError::Unavailable("an unreadable reply".to_owned()),
        SdkError::ConstructionFailure(_) => return KmsError::Unavailable("the call was not made".to_owned()),
        _ => {}
    }
    let code = error.code().unwrap_or_default();
    match code {
        "AccessDeniedException" | "ValidationException" => KmsError::Denied,
        "InvalidCiphertextException" | "IncorrectKeyException" => KmsError::BlobRefused,
        "NotFoundException"
        | "DisabledException"
        | "KMSInvalidStateException"
        | "InvalidKeyUsageException"
        | "InvalidArnException"
        | "InvalidGrantTokenException" => KmsError::KeyUnusable(code.to_owned()),
        "ThrottlingException" | "LimitExceededException" | "RequestLimitExceeded" => KmsError::Throttled,
        "ExpiredTokenException"
        | "ExpiredToken"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "MissingAuthenticationTokenException" => KmsError::CredentialsRefused(code.to_owned()),
        _ => KmsError::Unavailable(code.to_owned()),
    }
}

/// The parent's credentials as the SDK takes them. Replaced whole; never printed.
#[derive(Clone)]
pub(crate) struct CredentialStore(watch::Sender<Option<Credentials>>);

impl CredentialStore {
    /// A store without credentials.
    pub(crate) fn empty() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Replaces what is there; the old secret is wiped.
    pub(crate) fn replace(&self, credentials: Credentials) {
        self.0.send_replace(Some(credentials));
    }

    /// Whether a call could be signed now.
    pub(crate) fn check(&self) -> Result<(), KmsError> {
        match &*self.0.borrow() {
            None => Err(KmsError::CredentialsMissing),
            Some(credentials) if expiry(credentials).is_some_and(|expiry| expiry <= SystemTime::now()) => {
                Err(KmsError::CredentialsRefused("expired".to_owned()))
            }
            Some(_) => Ok(()),
        }
    }
}

impl ProvideCredentials for CredentialStore {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let credentials = self.0.borrow().as_ref().map(|credentials| {
            aws_credential_types::Credentials::new(
                credentials.access_key_id.expose(),
                credentials.secret_access_key.expose(),
                credentials.session_token.as_ref().map(|token| token.expose().to_owned()),
                expiry(credentials),
                "parent",
            )
        });
        future::ProvideCredentials::ready(credentials.ok_or_else(|| CredentialsError::not_loaded("none sent")))
    }
}

impl std::fmt::Debug for CredentialStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CredentialStore")
    }
}

fn expiry(credentials: &Credentials) -> Option<SystemTime> {
    credentials.expires_at_ms.and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)))
}
