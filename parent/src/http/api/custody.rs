//! Imports, adoptions and exports on the wire.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use strongroom_protocol::document::AttestationDocument;
use strongroom_protocol::{
    Algorithm, Binding, ByteArray, ByteString, ExpectedKey, HpkePublicKey, ImportKeyId, KeyDescription, KeyId,
    KeyRecord, KmsKeyArn, Nonce, Origin, Policy, PublicKey, RecipientName, SealedKey,
};
use utoipa::ToSchema;

use super::{Evidence, NewPolicy, from_hex, hex_bytes, to_hex};
use crate::http::schema;
use crate::http::strict::{Object, Word};

/// `POST /v1/import-keys`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct OfferImportKey {
    /// 1 to 512 bytes, hex. Stands in the document, verbatim, and is part of what the key is sealed for.
    #[serde(deserialize_with = "nonce")]
    #[schema(value_type = String, pattern = "^(0[xX])?([0-9a-fA-F]{2}){1,512}$")]
    pub(in crate::http) nonce: Nonce,
}

/// A key of the enclave's to which one key can be sealed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ImportKeyOffer {
    /// SHA-256 of the import key, hex.
    pub import_key_id: String,
    /// The document that shows the import key to be the enclave's: its `public_key` is the import key, and its
    /// `user_data` is `strongroom-import-v1` and the id. Verify it before anything is sealed.
    #[serde(flatten)]
    pub evidence: Evidence,
}

impl ImportKeyOffer {
    /// `None`: what the enclave sent is not a document about an import key.
    pub(in crate::http) fn new(document: &[u8]) -> Option<Self> {
        let payload = AttestationDocument::parse(document).ok()?.payload;
        let public_key: [u8; 32] = payload.public_key.as_ref()?[..].try_into().ok()?;
        let ImportKeyId(id) = ImportKeyId::of(&ByteArray(public_key));
        Some(Self { import_key_id: to_hex(&*id), evidence: Evidence::of(document, &payload) })
    }
}

/// `POST /v1/keys/{key_id}/import`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ImportKey {
    /// Of an import key that has not served yet: 32 bytes, hex.
    #[serde(deserialize_with = "import_key_id")]
    #[schema(value_type = String, pattern = "^(0[xX])?[0-9a-fA-F]{64}$")]
    pub(in crate::http) import_key_id: ImportKeyId,
    #[schema(value_type = schema::Algorithm)]
    algorithm: Word<Algorithm>,
    /// The KMS key that wraps the key; absent: the enclave configuration's first.
    #[schema(value_type = Option<String>)]
    kms_key_arn: Option<KmsKeyArn>,
    /// Absent: messages only, never held open.
    #[schema(value_type = Option<schema::Policy>)]
    policy: Option<Object<NewPolicy>>,
    /// HPKE's `enc`: 32 bytes, hex.
    #[serde(deserialize_with = "encapsulated_key")]
    #[schema(value_type = String, pattern = "^(0[xX])?[0-9a-fA-F]{64}$")]
    encapsulated_key: HpkePublicKey,
    /// HPKE's ciphertext, hex: 16 bytes more than the secret.
    #[serde(deserialize_with = "sealed")]
    #[schema(value_type = String, pattern = "^(0[xX])?([0-9a-fA-F]{2}){32,80}$")]
    ciphertext: ByteString<80>,
}

impl ImportKey {
    /// What is said of the key, and the key.
    pub(in crate::http) fn into_parts(self, key_id: KeyId) -> (ImportKeyId, KeyDescription, SealedKey) {
        let Self { import_key_id, algorithm: Word(algorithm), kms_key_arn, policy, encapsulated_key, ciphertext } =
            self;
        let policy = policy.map(|Object(NewPolicy(policy))| policy).unwrap_or_default();
        let description = KeyDescription { key_id, algorithm, policy, kms_key_arn };
        (import_key_id, description, SealedKey { encapsulated_key, ciphertext })
    }
}

/// `POST /v1/keys/{key_id}/adopt`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct AdoptKey {
    /// Not a seed.
    #[schema(value_type = schema::Algorithm)]
    algorithm: Word<Algorithm>,
    /// KMS's `CiphertextBlob` of the private key in hex, encrypted without encryption context; standard base64, as
    /// AWS's samples keep it.
    #[serde(deserialize_with = "kms_ciphertext")]
    #[schema(value_type = String, content_encoding = "base64")]
    pub(in crate::http) ciphertext: ByteString<6144>,
    #[schema(value_type = WrittenExpected)]
    pub(in crate::http) expected: Object<Expected>,
    /// The KMS key under which the secret lies; absent: the first of the enclave configuration's `adopt_kms_keys`.
    #[schema(value_type = Option<String>)]
    pub(in crate::http) adopt_kms_key_arn: Option<KmsKeyArn>,
    /// The KMS key that will wrap the key; absent: the enclave configuration's first.
    #[schema(value_type = Option<String>)]
    kms_key_arn: Option<KmsKeyArn>,
    /// Absent: messages only, never held open. An adopted key signs messages only, and is not exportable.
    #[schema(value_type = Option<schema::Policy>)]
    policy: Option<Object<NewPolicy>>,
}

/// By what the key is recognised: exactly one of the two.
#[derive(Debug, Deserialize)]
#[serde(try_from = "WrittenExpected")]
pub(in crate::http) struct Expected(pub(in crate::http) ExpectedKey);

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ExpectedKey)]
pub(in crate::http) struct WrittenExpected {
    /// The public key as a key view has it, hex.
    public_key: Option<String>,
    /// One of the key's addresses.
    address: Option<String>,
}

impl TryFrom<WrittenExpected> for Expected {
    type Error = &'static str;

    fn try_from(written: WrittenExpected) -> Result<Self, &'static str> {
        let expected = match (written.public_key, written.address) {
            (Some(public_key), None) => {
                let public_key = from_hex(&public_key).ok().and_then(|bytes| PublicKey::try_from(bytes).ok());
                ExpectedKey::PublicKey(public_key.ok_or("expected: public_key must be a public key in hex")?)
            }
            (None, Some(address)) => {
                let address = address.into_bytes().try_into();
                ExpectedKey::Address(address.map_err(|_| "expected: address is too long")?)
            }
            _ => return Err("expected: name either public_key or address"),
        };
        Ok(Self(expected))
    }
}

impl AdoptKey {
    /// What the key will be.
    pub(in crate::http) fn description(&self, key_id: KeyId) -> KeyDescription {
        let policy = self.policy.as_ref().map(|Object(NewPolicy(policy))| policy.clone()).unwrap_or_default();
        KeyDescription { key_id, algorithm: self.algorithm.0, policy, kms_key_arn: self.kms_key_arn.clone() }
    }
}

/// `POST /v1/keys/{key_id}/export`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ExportKey {
    /// One of the enclave configuration's `export_recipients`.
    #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub(in crate::http) recipient: RecipientName,
    /// 1 to 512 bytes, hex. Stands in the document, verbatim.
    #[serde(deserialize_with = "nonce")]
    #[schema(value_type = String, pattern = "^(0[xX])?([0-9a-fA-F]{2}){1,512}$")]
    pub(in crate::http) nonce: Nonce,
}

/// An exported key, and what shows it to be one.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ExportReply {
    /// What its recipient opens.
    pub export: ExportedKey,
    /// `user_data` is `strongroom-export-v1` and a digest over the binding, the recipient and the sealed bytes.
    #[serde(flatten)]
    pub evidence: Evidence,
}

/// An exported key: sealed to its recipient, and what is bound to it. The recipient opens it with
/// `strongroom key open-export`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportedKey {
    /// Of this form: 1.
    pub version: u32,
    /// Its name.
    #[schema(value_type = String)]
    pub key_id: KeyId,
    /// Curve and key type.
    #[schema(value_type = schema::Algorithm)]
    pub algorithm: Algorithm,
    /// Its identity, hex.
    pub public_key: String,
    /// Where it came from.
    #[schema(value_type = schema::Origin)]
    pub origin: Origin,
    /// What it may sign in the enclave.
    #[schema(value_type = schema::Policy)]
    pub policy: Policy,
    /// Who can open it.
    #[schema(value_type = String)]
    pub recipient: RecipientName,
    /// HPKE's `enc`: 32 bytes, hex.
    pub encapsulated_key: String,
    /// HPKE's ciphertext, hex.
    pub ciphertext: String,
}

impl ExportedKey {
    /// The form's version.
    pub const VERSION: u32 = 1;

    pub(in crate::http) fn new(record: &KeyRecord, recipient: RecipientName, sealed: &SealedKey) -> Self {
        Self {
            version: Self::VERSION,
            key_id: record.key_id.clone(),
            algorithm: record.algorithm,
            public_key: to_hex(&record.public_key),
            origin: record.origin,
            policy: record.policy.clone(),
            recipient,
            encapsulated_key: to_hex(&*sealed.encapsulated_key),
            ciphertext: to_hex(&sealed.ciphertext),
        }
    }

    /// The public key, the binding and the sealed key that this form says. `None`: it says none.
    #[must_use]
    pub fn parts(&self) -> Option<(PublicKey, Binding, SealedKey)> {
        let public_key = PublicKey::try_from(from_hex(&self.public_key).ok()?).ok()?;
        let binding = Binding::new(&self.key_id, self.algorithm, &public_key, self.origin, &self.policy);
        let encapsulated_key: [u8; 32] = from_hex(&self.encapsulated_key).ok()?.try_into().ok()?;
        let ciphertext = from_hex(&self.ciphertext).ok()?.try_into().ok()?;
        let encapsulated_key = ByteArray(encapsulated_key);
        Some((public_key, binding, SealedKey { encapsulated_key, ciphertext }))
    }
}

fn nonce<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Nonce, D::Error> {
    let nonce: Nonce = hex_bytes(deserializer, "nonce", "1 to 512 bytes")?;
    if nonce.is_empty() { Err(serde::de::Error::custom("nonce: must not be empty")) } else { Ok(nonce) }
}

fn import_key_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ImportKeyId, D::Error> {
    let id: [u8; 32] = hex_bytes(deserializer, "import_key_id", "32 bytes")?;
    Ok(ImportKeyId(ByteArray(id)))
}

fn encapsulated_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HpkePublicKey, D::Error> {
    hex_bytes(deserializer, "encapsulated_key", "32 bytes").map(ByteArray)
}

fn sealed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteString<80>, D::Error> {
    let sealed: ByteString<80> = hex_bytes(deserializer, "ciphertext", "32 to 80 bytes")?;
    // The shortest seed and a tag. What is shorter would only cost an import key.
    if sealed.len() < 32 { Err(serde::de::Error::custom("ciphertext: must have 32 to 80 bytes")) } else { Ok(sealed) }
}

fn kms_ciphertext<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteString<6144>, D::Error> {
    let bytes = STANDARD.decode(String::deserialize(deserializer)?.trim()).ok();
    let bytes = bytes.filter(|bytes| !bytes.is_empty()).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| serde::de::Error::custom("ciphertext: must be 1 to 6144 bytes in standard base64"))
}
