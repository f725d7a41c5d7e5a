//! The messages that cross the socket. A request goes down in a frame with an id; its reply comes
//! back with the same id, in any order.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::bytes::{ByteArray, ByteString};
use crate::configuration::MAX_CONFIGURATION;
use crate::custody::{ExpectedKey, ImportKeyId, KeyDescription, SealedKey};
use crate::document::MAX_DOCUMENT;
use crate::error::ErrorCode;
use crate::key::{Algorithm, KeyId, KmsKeyArn, PublicKey, RecipientName, Scheme};
use crate::path::DerivationPath;
use crate::policy::{PayloadKind, Policy};
use crate::record::{KeyRecord, PresentedRecord};

/// The longest message that one payload carries, in bytes.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// The longest nonce of an attestation request, in bytes (the limit of the Nitro Secure Module).
pub const MAX_NONCE: usize = 512;

/// A caller's nonce: the only thing in an attestation document that a caller chooses.
pub type Nonce = ByteString<MAX_NONCE>;

/// A request and the number by which its reply is recognised.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestFrame {
    /// Chosen by the parent; unique among its requests in flight on this connection.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// What the parent asks of the enclave.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Request {
    /// First on every connection.
    Hello {
        /// The version that the parent speaks.
        version: u16,
    },
    /// Measures the configuration into PCR16, once. The same bytes again are accepted.
    Configure {
        /// The configuration file, byte for byte.
        configuration: ByteString<MAX_CONFIGURATION>,
    },
    /// Replaces the credentials with which the enclave signs its KMS calls.
    SetCredentials(Credentials),
    /// Makes a key and returns its record.
    GenerateKey {
        /// The key's name.
        key_id: KeyId,
        /// Its algorithm.
        algorithm: Algorithm,
        /// Its policy, bound for ever.
        policy: Policy,
        /// The KMS key that wraps it; absent: the configuration's first.
        kms_key_arn: Option<KmsKeyArn>,
    },
    /// Opens a record and returns evidence over its binding.
    OpenRecord {
        /// The record, as the store has it.
        record: PresentedRecord,
        /// In the document, verbatim.
        nonce: Nonce,
    },
    /// Signs one or many payloads with one key.
    Sign {
        /// The record, as the store has it.
        record: PresentedRecord,
        /// Absent: the algorithm's default.
        scheme: Option<Scheme>,
        /// Which key below a seed signs; absent for every other key.
        path: Option<DerivationPath>,
        /// Signed in this order, each on its own.
        payloads: Vec<Payload>,
    },
    /// The public key at a path below a seed. Under the same policy as signing with it.
    DerivePublicKey {
        /// The seed's record, as the store has it.
        record: PresentedRecord,
        /// Which key.
        path: DerivationPath,
    },
    /// Puts an existing key under another KMS key, or under a new data key of the same one.
    Rewrap {
        /// The record, as the store has it.
        record: PresentedRecord,
        /// The KMS key that is to wrap it.
        kms_key_arn: KmsKeyArn,
    },
    /// Offers a key to which a custodian can seal one key for this enclave.
    OfferImportKey {
        /// In the document about the import key, verbatim.
        nonce: Nonce,
    },
    /// Takes a key that a custodian has sealed to an import key, which serves once, whatever the outcome.
    ImportKey {
        /// The import key.
        import_key: ImportKeyId,
        /// What the custodian says of the key, and sealed it for.
        description: Box<KeyDescription>,
        /// The key.
        sealed: SealedKey,
    },
    /// Takes over a key whose private key lies, in hex, under a KMS key of `adopt_kms_keys` and without
    /// encryption context.
    AdoptKey {
        /// What it will be: no seed, messages only, not exportable.
        description: Box<KeyDescription>,
        /// The KMS key under which it lies; absent: the first of `adopt_kms_keys`.
        adopt_kms_key_arn: Option<KmsKeyArn>,
        /// KMS's `CiphertextBlob`.
        ciphertext: ByteString<6144>,
        /// The key that must come out.
        expected: ExpectedKey,
    },
    /// Seals an exportable key to a recipient of the measured configuration.
    ExportKey {
        /// The record, as the store has it.
        record: PresentedRecord,
        /// The recipient.
        recipient: RecipientName,
        /// In the evidence about the export, verbatim.
        nonce: Nonce,
    },
    /// Evidence about the enclave itself.
    Attest {
        /// In the document, verbatim.
        nonce: Nonce,
    },
    /// How the enclave is.
    Health,
}

/// A reply and the request that it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseFrame {
    /// The request's id.
    pub id: u64,
    /// The outcome.
    pub result: Result<Response, ErrorCode>,
}

/// What the enclave answers, by request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Response {
    /// To [`Request::Hello`].
    Hello {
        /// The version that the enclave speaks.
        version: u16,
    },
    /// To [`Request::Configure`]: PCR16 holds these bytes and is locked.
    Configured,
    /// To [`Request::SetCredentials`].
    CredentialsSet,
    /// To [`Request::GenerateKey`], [`Request::ImportKey`] and [`Request::AdoptKey`].
    Created(Box<Created>),
    /// To [`Request::OpenRecord`], [`Request::OfferImportKey`] and [`Request::Attest`]: a COSE_Sign1 attestation
    /// document.
    Document(ByteString<MAX_DOCUMENT>),
    /// To [`Request::Sign`]: one result per payload, in order.
    Signed(Vec<Result<Signature, ErrorCode>>),
    /// To [`Request::DerivePublicKey`].
    PublicKey {
        /// The derived key's own.
        public_key: PublicKey,
        /// Addresses by chain, made from it.
        addresses: BTreeMap<String, String>,
    },
    /// To [`Request::Rewrap`]: the same key, opened once by the enclave under its new KMS key. Only
    /// `kms_key_arn`, `data_key` and `ciphertext` differ from the record that was presented.
    Rewrapped(Box<KeyRecord>),
    /// To [`Request::ExportKey`].
    Exported {
        /// The key, sealed for [`crate::export_info`] of its binding and the recipient.
        sealed: SealedKey,
        /// Evidence that it is: `user_data` is [`crate::export_user_data`].
        document: ByteString<MAX_DOCUMENT>,
    },
    /// To [`Request::Health`].
    Health(Health),
}

/// A new key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Created {
    /// The record, opened once by the enclave as a later caller would.
    pub record: KeyRecord,
    /// Addresses by chain, for reading; not believed by the enclave. A seed has none of its own.
    pub addresses: BTreeMap<String, String>,
}

/// What one signature is made over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Payload {
    /// A 32-byte digest made by the caller (secp256k1 only).
    Digest(ByteArray<32>),
    /// A message that the enclave hashes.
    Message {
        /// At most [`MAX_MESSAGE`] bytes.
        message: ByteString<MAX_MESSAGE>,
        /// Required for secp256k1, absent for ed25519.
        hash: Option<HashFunction>,
    },
}

impl Payload {
    /// The kind that a policy allows or denies.
    #[must_use]
    pub const fn kind(&self) -> PayloadKind {
        match self {
            Self::Digest(_) => PayloadKind::Digest,
            Self::Message { .. } => PayloadKind::Message,
        }
    }
}

/// How a message becomes the 32 bytes that secp256k1 signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashFunction {
    /// Keccak-256, as Ethereum uses it.
    Keccak256,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-256 twice, as Bitcoin uses it.
    Sha256d,
}

/// A checked signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// r‖s (ECDSA), r‖s of BIP-340, or R‖S of RFC 8032.
    pub bytes: ByteArray<64>,
    /// 0 or 1; ECDSA only.
    pub recovery_id: Option<u8>,
}

/// How the enclave is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// PCR16 is measured and locked.
    pub configured: bool,
    /// Credentials are set and not expired.
    pub credentials: bool,
    /// PCR0 is zero: key operations are refused.
    pub debug_mode: bool,
    /// Keys held open at this moment.
    pub held_keys: u32,
}

/// AWS credentials on their way from the parent's provider chain. They are the parent's own;
/// attestation is what gates KMS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// `AKIA…` or `ASIA…`; names the credentials, opens nothing.
    pub access_key_id: SecretString,
    /// Signs the requests.
    pub secret_access_key: SecretString,
    /// Of temporary credentials.
    pub session_token: Option<SecretString>,
    /// When they expire, in milliseconds since 1970; absent: never.
    pub expires_at_ms: Option<u64>,
}

/// A text that is wiped when dropped and prints as nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretString(Zeroizing<String>);

impl SecretString {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The one way to look inside.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
