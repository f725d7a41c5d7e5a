//! The key record: a sealed secret and the public facts bound to it. This is the part that crosses
//! to the enclave; the parent stores it with notes of its own (`parent/src/key_store`).

use serde::{Deserialize, Serialize};

use crate::binding::Binding;
use crate::bytes::ByteString;
use crate::frame::{self, FrameError};
use crate::key::{Algorithm, KeyId, KmsKeyArn, Origin, PublicKey};
use crate::policy::{Policy, PolicyError};

/// Longest encoded record, in bytes.
pub(crate) const MAX_RECORD: usize = 16 * 1024;

/// A record as the parent presents it: encoded, not yet read. The enclave recognises a held key by
/// the SHA-256 of exactly these bytes.
pub type PresentedRecord = ByteString<MAX_RECORD>;

/// A sealed key and what is bound to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// The key's name.
    pub key_id: KeyId,
    /// Curve and key type.
    pub algorithm: Algorithm,
    /// The key's identity.
    pub public_key: PublicKey,
    /// Where the key came from.
    pub origin: Origin,
    /// What it may sign.
    pub policy: Policy,
    /// The KMS key that wraps `data_key`.
    pub kms_key_arn: KmsKeyArn,
    /// KMS's blob of the data key. At most 6144 bytes (KMS `CiphertextBlob`).
    pub data_key: ByteString<6144>,
    /// AES-256-GCM under the data key: 12-byte nonce ‖ sealed secret ‖ 16-byte tag.
    pub ciphertext: ByteString<256>,
}

/// Bytes that are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not the encoding of a record.
    #[error("not an encoded key record: {0}")]
    Encoding(#[from] FrameError),
    /// The public key has not the length of its algorithm.
    #[error("the public key does not fit the algorithm")]
    PublicKeyLength,
    /// No key of its algorithm can have its policy.
    #[error("the policy does not fit the algorithm: {0}")]
    Policy(#[from] PolicyError),
}

impl KeyRecord {
    /// The binding of what this record claims. Only opening it tells whether the claim holds.
    #[must_use]
    pub fn binding(&self) -> Binding {
        Binding::new(&self.key_id, self.algorithm, &self.public_key, self.origin, &self.policy)
    }

    /// The encoded form that is presented to the enclave.
    ///
    /// # Errors
    /// Only if the fields together exceed [`MAX_RECORD`].
    pub fn present(&self) -> Result<PresentedRecord, RecordError> {
        let bytes = frame::encode_item(self)?;
        PresentedRecord::try_from(bytes).map_err(|_| RecordError::Encoding(FrameError::TooLarge))
    }

    /// Reads a presented record.
    ///
    /// # Errors
    /// The presenter's: not a record, or a public key or a policy that does not fit its algorithm.
    pub fn read(presented: &PresentedRecord) -> Result<Self, RecordError> {
        let record: Self = frame::decode_item(presented)?;
        record.policy.check_fit(record.algorithm)?;
        if record.public_key.len() == record.algorithm.public_key_length() {
            Ok(record)
        } else {
            Err(RecordError::PublicKeyLength)
        }
    }
}
