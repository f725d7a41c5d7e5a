//! KMS keys: their policies, states and backing keys, kept in a file, and the blobs that backing keys
//! seal. Decides which key a name means and which blob is whose; not who may use it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::NamedTempFile;
use time::OffsetDateTime;

use strongroom_parent::kms_policy::{KeyPolicy, PolicyError};

use super::error::KmsError;

/// A KMS key's state, as `DescribeKey` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyState {
    /// Usable.
    Enabled,
    /// Not usable until enabled.
    Disabled,
    /// Not usable; to be deleted, and never deleted here.
    PendingDeletion,
}

/// All KMS keys of one account and Region.
pub(super) struct KmsKeys {
    file: PathBuf,
    /// `arn:aws:kms:REGION:ACCOUNT:key/`
    arn_prefix: String,
    /// The oldest first.
    keys: Vec<KmsKey>,
}

/// A symmetric KMS key.
#[derive(Clone)]
pub(super) struct KmsKey {
    pub(super) arn: String,
    pub(super) state: KeyState,
    pub(super) policy: KeyPolicy,
    /// Seconds since 1970.
    pub(super) created_at: i64,
    pub(super) id: KeyId,
    backing_key: [u8; 32],
}

/// A KMS key's id: a UUID, or that of a multi-Region key: `mrk-` and 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyId {
    bytes: [u8; 16],
    pub(super) multi_region: bool,
}

/// A blob, read as far as anybody can: the key that it names, and what that key sealed.
pub(super) struct Blob<'a> {
    key: [u8; 16],
    header: &'a [u8],
    nonce: [u8; NONCE_LEN],
    sealed: &'a [u8],
}

impl KmsKeys {
    /// The keys in `file`, none if it does not exist.
    pub(super) fn open(file: PathBuf, region: &str, account: &str) -> io::Result<Self> {
        let mut keys = Self { file, arn_prefix: format!("arn:aws:kms:{region}:{account}:key/"), keys: Vec::new() };
        if keys.file.exists() {
            let written: Vec<WrittenKey> = serde_json::from_slice(&fs::read(&keys.file)?)?;
            for key in written {
                let key = key.read(&keys.arn_prefix).ok_or_else(|| io::Error::other("a damaged key in the state"))?;
                keys.keys.push(key);
            }
        }
        Ok(keys)
    }

    /// The policy of a key created without one: the account decides, as KMS's own default.
    pub(super) fn default_policy(account: &str) -> Value {
        serde_json::json!({ "Version": "2012-10-17", "Statement": [{
            "Sid": "Enable IAM User Permissions", "Effect": "Allow",
            "Principal": { "AWS": format!("arn:aws:iam::{account}:root") }, "Action": "kms:*", "Resource": "*",
        }] })
    }

    /// Makes a key. A multi-Region one has its id, and no replicas.
    pub(super) fn create(&mut self, policy: KeyPolicy, multi_region: bool) -> io::Result<KmsKey> {
        let (mut backing_key, bytes) = ([0; 32], random_uuid_bytes().map_err(io::Error::other)?);
        let id = KeyId { bytes, multi_region };
        rand::fill(&mut backing_key).map_err(io::Error::other)?;
        let created_at = OffsetDateTime::now_utc().unix_timestamp();
        let arn = format!("{}{id}", self.arn_prefix);
        let key = KmsKey { arn, state: KeyState::Enabled, policy, created_at, id, backing_key };
        self.keys.push(key.clone());
        self.save()?;
        Ok(key)
    }

    /// Changes a key; `false` if there is none of this id or ARN.
    pub(super) fn change(&mut self, name: &str, change: impl FnOnce(&mut KmsKey)) -> io::Result<bool> {
        let id = name.strip_prefix(&self.arn_prefix).unwrap_or(name);
        let Some(key) = self.keys.iter_mut().find(|key| key.id.to_string() == id) else { return Ok(false) };
        change(key);
        self.save()?;
        Ok(true)
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &KmsKey> {
        self.keys.iter()
    }

    /// The key of an id or ARN.
    ///
    /// # Errors
    /// The caller's: there is none, or it is an alias (there are none here).
    pub(super) fn find(&self, name: &str) -> Result<&KmsKey, KmsError> {
        let id = name.strip_prefix(&self.arn_prefix).unwrap_or(name);
        self.keys.iter().find(|key| key.id.to_string() == id).ok_or_else(|| {
            KmsError::NotFound(match name {
                alias if alias.contains("alias/") => format!("Alias {alias} is not found."),
                arn if arn.starts_with("arn:") => format!("Key '{arn}' does not exist"),
                id => format!("Key '{}{id}' does not exist", self.arn_prefix),
            })
        })
    }

    /// The key that a blob names.
    ///
    /// # Errors
    /// The caller's: the key does not exist here. KMS does not say whether it exists elsewhere.
    pub(super) fn of_blob(&self, blob: &Blob<'_>) -> Result<&KmsKey, KmsError> {
        self.keys.iter().find(|key| key.id.bytes == blob.key).ok_or_else(|| {
            KmsError::AccessDenied(
                "The ciphertext refers to a customer master key that does not exist, does not exist in this region, \
                 or you are not allowed to access."
                    .to_owned(),
            )
        })
    }

    /// Writes the whole file anew, so that a reader sees the old one or the new one.
    fn save(&self) -> io::Result<()> {
        let directory = self.file.parent().unwrap_or(Path::new("."));
        let written: Vec<WrittenKey> = self.keys.iter().map(WrittenKey::from).collect();
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec_pretty(&written)?)?;
        file.as_file().sync_all()?;
        file.persist(&self.file)?;
        fs::File::open(directory)?.sync_all()
    }
}

impl KmsKey {
    /// # Errors
    /// The key's state forbids its use.
    pub(super) fn check_usable(&self) -> Result<(), KmsError> {
        match self.state {
            KeyState::Enabled => Ok(()),
            KeyState::Disabled => Err(KmsError::Disabled(self.arn.clone())),
            KeyState::PendingDeletion => Err(KmsError::InvalidState(self.arn.clone())),
        }
    }

    /// Seals `plaintext` with this encryption context: version, key id, nonce, AES-256-GCM box.
    pub(super) fn seal(
        &self,
        plaintext: &[u8],
        encryption_context: &BTreeMap<String, String>,
    ) -> Result<Vec<u8>, Unspecified> {
        let header = [&[BLOB_VERSION], &self.id.bytes[..]].concat();
        let mut sealed = plaintext.to_vec();
        let aad = Aad::from(associated_data(&header, encryption_context));
        let nonce =
            RandomizedNonceKey::new(&AES_256_GCM, &self.backing_key)?.seal_in_place_append_tag(aad, &mut sealed)?;
        Ok([&header, &nonce.as_ref()[..], &sealed].concat())
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// The caller's: another key's blob, a damaged one, or another encryption context.
    pub(super) fn open(
        &self,
        blob: &Blob<'_>,
        encryption_context: &BTreeMap<String, String>,
    ) -> Result<Vec<u8>, KmsError> {
        if blob.key != self.id.bytes {
            return Err(KmsError::IncorrectKey);
        }
        let aad = Aad::from(associated_data(blob.header, encryption_context));
        let mut sealed = blob.sealed.to_vec();
        RandomizedNonceKey::new(&AES_256_GCM, &self.backing_key)
            .and_then(|key| Ok(key.open_in_place(Nonce::assume_unique_for_key(blob.nonce), aad, &mut sealed)?.to_vec()))
            .map_err(|_| KmsError::InvalidCiphertext)
    }
}

impl<'a> Blob<'a> {
    /// # Errors
    /// The caller's: not a blob of this KMS.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, KmsError> {
        let read = || {
            let (header, rest) = bytes.split_at_checked(HEADER_LEN)?;
            let (nonce, sealed) = rest.split_first_chunk()?;
            let key = header.strip_prefix(&[BLOB_VERSION])?.try_into().ok()?;
            Some(Self { key, header, nonce: *nonce, sealed })
        };
        read().ok_or(KmsError::InvalidCiphertext)
    }
}

impl KeyId {
    fn parse(text: &str) -> Option<Self> {
        let (multi_region, digits) = text.strip_prefix("mrk-").map_or((false, text), |digits| (true, digits));
        let bytes = hex::decode(digits.replace('-', "")).ok()?;
        let id = Self { bytes: bytes.try_into().ok()?, multi_region };
        (id.to_string() == text).then_some(id)
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.multi_region { write!(f, "mrk-{}", hex::encode(self.bytes)) } else { f.write_str(&uuid(self.bytes)) }
    }
}

/// A random UUID, as text: request ids.
pub(super) fn random_uuid() -> String {
    random_uuid_bytes().map(uuid).unwrap_or_default()
}

/// Version 4 (RFC 9562 section 5.4).
fn random_uuid_bytes() -> Result<[u8; 16], Unspecified> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(bytes)
}

fn uuid(bytes: [u8; 16]) -> String {
    let digits = |(position, byte)| match position {
        4 | 6 | 8 | 10 => format!("-{byte:02x}"),
        _ => format!("{byte:02x}"),
    };
    bytes.into_iter().enumerate().map(digits).collect()
}

const BLOB_VERSION: u8 = 1;
const HEADER_LEN: usize = 1 + 16;

/// The blob's header and the context's pairs in the order of their keys, each text behind its length.
fn associated_data(header: &[u8], encryption_context: &BTreeMap<String, String>) -> Vec<u8> {
    let mut data = header.to_vec();
    for text in encryption_context.iter().flat_map(|(key, value)| [key, value]) {
        data.extend((text.len() as u64).to_be_bytes());
        data.extend(text.as_bytes());
    }
    data
}

/// A key in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    id: String,
    state: KeyState,
    created_at: i64,
    policy: Value,
    backing_key: String,
}

impl WrittenKey {
    fn read(self, arn_prefix: &str) -> Option<KmsKey> {
        let policy: Result<KeyPolicy, PolicyError> = KeyPolicy::parse(&self.policy);
        Some(KmsKey {
            arn: format!("{arn_prefix}{}", self.id),
            state: self.state,
            policy: policy.ok()?,
            created_at: self.created_at,
            id: KeyId::parse(&self.id)?,
            backing_key: BASE64_STANDARD.decode(&self.backing_key).ok()?.try_into().ok()?,
        })
    }
}

impl From<&KmsKey> for WrittenKey {
    fn from(key: &KmsKey) -> Self {
        Self {
            id: key.id.to_string(),
            state: key.state,
            created_at: key.created_at,
            policy: key.policy.source().clone(),
            backing_key: BASE64_STANDARD.encode(key.backing_key),
        }
    }
}
