//! Requests and replies as a caller of the REST interface writes and reads them. Read leniently: a newer parent may
//! say more.

use serde::{Deserialize, Serialize};
use strongroom_protocol::{Algorithm, DerivationPath, ExpectedKey, HashFunction, KeyId, KmsKeyArn, Policy, Scheme};

use crate::http::KeyView;

/// A key to be created.
#[derive(Debug, Clone, Serialize)]
pub struct NewKey {
    /// Its name.
    pub key_id: KeyId,
    /// Curve and key type.
    pub algorithm: Algorithm,
    /// The KMS key that wraps it; absent: the enclave configuration's first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_arn: Option<KmsKeyArn>,
    /// What it may sign.
    pub policy: Policy,
}

/// A key that is sealed to an import key.
#[derive(Debug, Serialize)]
pub struct KeyToImport {
    /// The import key's name, hex.
    pub import_key_id: String,
    /// Curve and key type.
    pub algorithm: Algorithm,
    /// What it may sign.
    pub policy: Policy,
    /// The KMS key that wraps it; absent: the enclave configuration's first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_arn: Option<KmsKeyArn>,
    /// HPKE's `enc`, hex.
    pub encapsulated_key: String,
    /// HPKE's ciphertext, hex.
    pub ciphertext: String,
}

/// A private key that lies under a KMS key.
#[derive(Debug, Serialize)]
pub struct KeyToAdopt {
    /// Curve and key type.
    pub algorithm: Algorithm,
    /// KMS's `CiphertextBlob`, standard base64.
    pub ciphertext: String,
    /// The key that must come out.
    pub expected: ExpectedIdentity,
    /// The KMS key under which it lies; absent: the first of the enclave configuration's `adopt_kms_keys`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopt_kms_key_arn: Option<KmsKeyArn>,
    /// The KMS key that will wrap it; absent: the enclave configuration's first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_arn: Option<KmsKeyArn>,
    /// What it may sign.
    pub policy: Policy,
}

/// By what a key is recognised.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpectedIdentity {
    /// Hex.
    PublicKey(String),
    /// Of one of its chains.
    Address(String),
}

impl From<&ExpectedKey> for ExpectedIdentity {
    fn from(expected: &ExpectedKey) -> Self {
        match expected {
            ExpectedKey::PublicKey(public_key) => Self::PublicKey(format!("0x{}", hex::encode(&**public_key))),
            ExpectedKey::Address(address) => Self::Address(String::from_utf8_lossy(address).into_owned()),
        }
    }
}

/// A change of a key, which answers with the key's new view.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Change {
    /// It signs.
    Enable {},
    /// It does not sign.
    Disable {},
    /// It signs no more, and can be deleted after a waiting period.
    ScheduleDeletion {
        /// 7 to 30; absent: 30.
        #[serde(skip_serializing_if = "Option::is_none")]
        waiting_days: Option<u8>,
    },
    /// It is disabled and stays.
    CancelDeletion {},
    /// It is wrapped under this KMS key.
    Rewrap {
        /// One of the enclave's configuration.
        kms_key_arn: KmsKeyArn,
    },
}

/// What is to be signed, and how.
#[derive(Debug, Serialize)]
pub struct ToSign {
    /// The payload.
    pub payload: SignPayload,
    /// Absent: the algorithm's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The key below a seed that signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<DerivationPath>,
}

/// A payload; its bytes in hex.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SignPayload {
    /// 32 bytes that the caller hashed.
    Digest {
        /// Hex.
        digest: String,
    },
    /// A message that the enclave hashes.
    Message {
        /// Hex.
        message: String,
        /// For secp256k1 only.
        #[serde(skip_serializing_if = "Option::is_none")]
        hash: Option<HashFunction>,
    },
}

/// A signature, as the parent passes it on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signed {
    /// 64 bytes, hex.
    pub signature: String,
    /// 0 or 1; ECDSA only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_id: Option<u8>,
    /// The key that signed, hex; absent below a seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// As in the parent's log.
    pub request_id: String,
}

/// Some keys.
#[derive(Debug, Clone, Deserialize)]
pub struct Page {
    /// In the store's order.
    pub keys: Vec<KeyView>,
    /// Names of records on this page that cannot be read.
    #[serde(default)]
    pub damaged: Vec<String>,
    /// Where to go on; absent at the end.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_changes_have_the_contracts_fields_and_no_others() {
        let body = |change: &Change| serde_json::to_value(change).expect("encodes");
        assert_eq!(body(&Change::Enable {}), serde_json::json!({}));
        assert_eq!(body(&Change::ScheduleDeletion { waiting_days: None }), serde_json::json!({}));
        assert_eq!(body(&Change::ScheduleDeletion { waiting_days: Some(7) }), serde_json::json!({ "waiting_days": 7 }));
    }
}
