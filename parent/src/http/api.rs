//! Requests and replies as they are on the wire. Binary values are hex: `0x` optional and any case on
//! input, `0x` and lower case on output. Unknown fields are errors.

mod custody;
mod signing;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use strongroom_protocol::document::{self, AttestationDocument};
use strongroom_protocol::{Algorithm, DerivationPath, KeyId, KmsKeyArn, Origin, PayloadKind, Policy, PolicyError};
use utoipa::ToSchema;

use super::schema;
use super::strict::{Object, Word};
use crate::key_state::{StateName, WaitingPeriod};
use crate::stored_record::StoredRecord;
pub(super) use custody::{AdoptKey, Expected, ExportKey, ImportKey, OfferImportKey};
pub use custody::{ExportReply, ExportedKey, ImportKeyOffer};
pub(super) use signing::{BatchReply, BatchRequest, SignReply, SignRequest};

/// `POST /v1/keys`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateKey {
    /// The key's name.
    #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", example = "hot-1")]
    pub(super) key_id: KeyId,
    #[schema(value_type = schema::Algorithm)]
    pub(super) algorithm: Word<Algorithm>,
    /// The KMS key that wraps the new key; absent: the enclave configuration's first.
    #[schema(value_type = Option<String>)]
    pub(super) kms_key_arn: Option<KmsKeyArn>,
    /// Absent: messages only, never held open.
    #[schema(value_type = Option<schema::Policy>)]
    pub(super) policy: Option<Object<NewPolicy>>,
}

/// A policy as callers write it. Its kinds are words; what makes a policy valid is the contract's matter.
#[derive(Debug, Deserialize)]
#[serde(try_from = "WrittenPolicy")]
pub(super) struct NewPolicy(pub(super) Policy);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPolicy {
    payloads: Vec<Word<PayloadKind>>,
    #[serde(default)]
    hold_seconds: u32,
    #[serde(default)]
    paths: Vec<DerivationPath>,
    #[serde(default)]
    exportable: bool,
}

impl TryFrom<WrittenPolicy> for NewPolicy {
    type Error = PolicyError;

    fn try_from(written: WrittenPolicy) -> Result<Self, PolicyError> {
        let payloads = written.payloads.into_iter().map(|Word(kind)| kind).collect();
        let policy = Policy::new(payloads, written.hold_seconds)?.with_paths(written.paths)?;
        Ok(Self(policy.with_exportable(written.exportable)))
    }
}

/// Changes of a key's state that take nothing else.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeKey {
    /// The generation that is meant; if the key has another one by now, nothing is changed.
    #[schema(minimum = 1)]
    pub(super) generation: Option<u64>,
}

/// `POST /v1/keys/{key_id}/schedule-deletion`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleDeletion {
    /// How long the deletion can be cancelled, in days.
    #[serde(default)]
    #[schema(value_type = u8, required = false, minimum = 7, maximum = 30, default = 30)]
    pub(super) waiting_days: WaitingPeriod,
    /// The generation that is meant; if the key has another one by now, nothing is changed.
    #[schema(minimum = 1)]
    pub(super) generation: Option<u64>,
}

/// `POST /v1/keys/{key_id}/rewrap`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RewrapKey {
    /// The KMS key that is to wrap the key, one of the enclave's configuration.
    #[schema(value_type = String)]
    pub(super) kms_key_arn: KmsKeyArn,
    /// The generation that is meant; if the key has another one by now, nothing is changed.
    #[schema(minimum = 1)]
    pub(super) generation: Option<u64>,
}

/// The public key at a path below a seed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DerivedKey {
    /// Where it lies.
    #[schema(value_type = String)]
    pub path: DerivationPath,
    /// Compressed SEC 1 (33 bytes) or RFC 8032 (32 bytes), hex.
    pub public_key: String,
    /// By chain.
    pub addresses: BTreeMap<String, String>,
}

/// A key, as callers see it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Its name.
    #[schema(value_type = String)]
    pub key_id: KeyId,
    /// Curve and key type.
    #[schema(value_type = schema::Algorithm)]
    pub algorithm: Algorithm,
    /// Its identity: compressed SEC 1 (33 bytes) or RFC 8032 (32 bytes), hex. A seed's is its master key's.
    pub public_key: String,
    /// Where it came from.
    #[schema(value_type = schema::Origin)]
    pub origin: Origin,
    /// What it may sign.
    #[schema(value_type = schema::Policy)]
    pub policy: Policy,
    /// The KMS key that wraps it.
    #[schema(value_type = String)]
    pub kms_key_arn: KmsKeyArn,
    /// Whether the parent lets it sign.
    #[schema(value_type = schema::State)]
    pub state: StateName,
    /// When the waiting period of a key that is to be deleted is over: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_date: Option<String>,
    /// Counts the record's versions, from 1.
    pub generation: u64,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// By chain. Use one only after `strongroom key verify` accepted the key.
    pub addresses: BTreeMap<String, String>,
}

impl From<&StoredRecord> for KeyView {
    fn from(stored: &StoredRecord) -> Self {
        let record = &stored.record;
        Self {
            key_id: record.key_id.clone(),
            algorithm: record.algorithm,
            public_key: to_hex(&record.public_key),
            origin: record.origin,
            policy: record.policy.clone(),
            kms_key_arn: record.kms_key_arn.clone(),
            state: stored.state.name(),
            deletion_date: stored.deletion_date_text(),
            generation: stored.generation,
            created_at: stored.created_at_text(),
            addresses: stored.addresses.clone(),
        }
    }
}

/// Some keys.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyPage {
    pub(super) keys: Vec<KeyView>,
    /// Keys whose stored records are damaged: they are not among `keys`, and sign nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Option<Vec<String>>)]
    pub(super) damaged: Vec<KeyId>,
    /// Where to go on; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}

/// An attestation document, made for this request.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// COSE_Sign1, in standard base64. Believe it only once it is verified.
    pub document: String,
    /// The registers in it, hex, for reading: `{"PCR0": "0x…"}`.
    pub pcrs: BTreeMap<String, String>,
}

impl Evidence {
    /// `None`: what the enclave sent is not a document.
    pub(super) fn new(document: &[u8]) -> Option<Self> {
        AttestationDocument::parse(document).ok().map(|parsed| Self::of(document, &parsed.payload))
    }

    /// The document and what was read from it.
    fn of(document: &[u8], payload: &document::Payload) -> Self {
        use base64::Engine as _;
        Self {
            document: base64::engine::general_purpose::STANDARD.encode(document),
            pcrs: payload.pcrs.iter().map(|(index, pcr)| (format!("PCR{index}"), to_hex(&**pcr))).collect(),
        }
    }
}

/// `0x` and lower-case digits.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// Digits in any case, with or without `0x`.
pub(crate) fn from_hex(text: &str) -> Result<Vec<u8>, &'static str> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let mut bytes = vec![0; digits.len() / 2];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| "not an even number of hex digits")?;
    Ok(bytes)
}

/// Bytes in hex, as many as a `T` has; `length` says how many those are. They are decoded from where they stand: a body
/// can be megabytes of them. None of the errors repeats the text.
fn hex_bytes<'de, T, D>(deserializer: D, field: &'static str, length: &'static str) -> Result<T, D::Error>
where
    T: TryFrom<Vec<u8>>,
    D: Deserializer<'de>,
{
    struct Digits<T> {
        field: &'static str,
        length: &'static str,
        bytes: PhantomData<T>,
    }

    impl<T: TryFrom<Vec<u8>>> Visitor<'_> for Digits<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            let Self { field, length, .. } = self;
            let bytes = from_hex(text).map_err(|wrong| E::custom(format_args!("{field}: {wrong}")))?;
            let found = bytes.len();
            bytes.try_into().map_err(|_| E::custom(format_args!("{field}: must have {length}, not {found}")))
        }
    }

    deserializer.deserialize_str(Digits { field, length, bytes: PhantomData })
}
