//! A key as the store has it: the record that the enclave opens, and the parent's own notes beside it.
//! The JSON is strict: what is not exactly a record of version 1 is damaged. Whether the enclave
//! accepts the record is the enclave's decision.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use strongroom_protocol::{Algorithm, ByteString, KeyId, KeyRecord, KmsKeyArn, Origin, Policy, PublicKey};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::key_state::{State, StateName};

/// A stored key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// What is presented to the enclave.
    pub record: KeyRecord,
    /// Addresses by chain, for reading.
    pub addresses: BTreeMap<String, String>,
    /// Whether the parent lets the key sign. The enclave does not know it.
    pub state: State,
    /// Counts the record's versions, from 1.
    pub generation: u64,
    /// When the key was created.
    pub created_at: OffsetDateTime,
}

/// Longest stored record, in bytes: an encoded record of at most 16 KiB in base64, and notes.
pub const MAX_STORED: usize = 64 * 1024;

/// What is wrong with a stored record. Whoever wrote to the store is to blame.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// Longer than [`MAX_STORED`].
    #[error("longer than {MAX_STORED} bytes")]
    TooLong,
    /// Not this JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A record of a version that this program does not read.
    #[error("version {0} is not known")]
    Version(u32),
    /// It is stored under the name of another key.
    #[error("the record is of another key")]
    OtherKey,
    /// A field's value cannot be.
    #[error("{0} is not valid")]
    Field(&'static str),
}

impl StoredRecord {
    /// A new key's record, created at `now`.
    #[must_use]
    pub fn new(record: KeyRecord, addresses: BTreeMap<String, String>, now: OffsetDateTime) -> Self {
        // The text form has whole seconds, and a record must equal what is read back.
        let created_at = now.replace_nanosecond(0).unwrap_or(now);
        Self { record, addresses, state: State::Enabled, generation: 1, created_at }
    }

    /// The key's name.
    #[must_use]
    pub const fn key_id(&self) -> &KeyId {
        &self.record.key_id
    }

    /// Reads what is stored under the name `key_id`.
    ///
    /// # Errors
    /// [`Damage`]: it is not a record of that key.
    pub fn from_json(key_id: &KeyId, json: &[u8]) -> Result<Self, Damage> {
        if json.len() > MAX_STORED {
            return Err(Damage::TooLong);
        }
        let written: Written = serde_json::from_slice(json)?;
        let stored = Self::try_from(written)?;
        if stored.key_id() == key_id { Ok(stored) } else { Err(Damage::OtherKey) }
    }

    /// The stored form: indented JSON, for people with an editor.
    ///
    /// # Errors
    /// Never for a record that was read or created; the codec's signature says otherwise.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&Written::from(self))
    }

    /// The key's next version, with this record and this state. `None` after 2^64 - 1 versions.
    #[must_use]
    pub fn next(&self, record: KeyRecord, state: State) -> Option<Self> {
        let generation = self.generation.checked_add(1)?;
        Some(Self { record, state, generation, addresses: self.addresses.clone(), created_at: self.created_at })
    }

    /// When the key was created, in RFC 3339, UTC.
    #[must_use]
    pub fn created_at_text(&self) -> String {
        to_text(self.created_at)
    }

    /// When the waiting period of a key that is to be deleted is over, in RFC 3339, UTC.
    #[must_use]
    pub fn deletion_date_text(&self) -> Option<String> {
        match self.state {
            State::PendingDeletion { deletion_date } => Some(to_text(deletion_date)),
            State::Enabled | State::Disabled => None,
        }
    }
}

/// The JSON form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    key_id: KeyId,
    algorithm: Algorithm,
    public_key: String,
    origin: Origin,
    policy: Policy,
    kms_key_arn: KmsKeyArn,
    data_key: String,
    ciphertext: String,
    #[serde(deserialize_with = "without_duplicates")]
    addresses: BTreeMap<String, String>,
    state: StateName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletion_date: Option<String>,
    generation: u64,
    created_at: String,
}

const VERSION: u32 = 1;

impl TryFrom<Written> for StoredRecord {
    type Error = Damage;

    fn try_from(written: Written) -> Result<Self, Damage> {
        if written.version != VERSION {
            return Err(Damage::Version(written.version));
        }
        let public_key = written.public_key.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
        let public_key = public_key
            .filter(|bytes| bytes.len() == written.algorithm.public_key_length())
            .and_then(|bytes| PublicKey::try_from(bytes).ok())
            .ok_or(Damage::Field("public_key"))?;
        if written.generation == 0 {
            return Err(Damage::Field("generation"));
        }
        let created_at = from_text(&written.created_at).ok_or(Damage::Field("created_at"))?;
        let state = match (written.state, written.deletion_date) {
            (StateName::Enabled, None) => State::Enabled,
            (StateName::Disabled, None) => State::Disabled,
            (StateName::PendingDeletion, Some(date)) => {
                State::PendingDeletion { deletion_date: from_text(&date).ok_or(Damage::Field("deletion_date"))? }
            }
            _ => return Err(Damage::Field("deletion_date")),
        };
        let record = KeyRecord {
            key_id: written.key_id,
            algorithm: written.algorithm,
            public_key,
            origin: written.origin,
            policy: written.policy,
            kms_key_arn: written.kms_key_arn,
            data_key: from_base64(&written.data_key, "data_key")?,
            ciphertext: from_base64(&written.ciphertext, "ciphertext")?,
        };
        Ok(Self { record, addresses: written.addresses, state, generation: written.generation, created_at })
    }
}

impl From<&StoredRecord> for Written {
    fn from(stored: &StoredRecord) -> Self {
        let record = &stored.record;
        Self {
            version: VERSION,
            key_id: record.key_id.clone(),
            algorithm: record.algorithm,
            public_key: format!("0x{}", hex::encode(&*record.public_key)),
            origin: record.origin,
            policy: record.policy.clone(),
            kms_key_arn: record.kms_key_arn.clone(),
            data_key: STANDARD.encode(&*record.data_key),
            ciphertext: STANDARD.encode(&*record.ciphertext),
            addresses: stored.addresses.clone(),
            state: stored.state.name(),
            deletion_date: stored.deletion_date_text(),
            generation: stored.generation,
            created_at: stored.created_at_text(),
        }
    }
}

fn to_text(time: OffsetDateTime) -> String {
    // Every year that Rfc3339 parses it also formats.
    time.to_offset(time::UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}

fn from_text(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

fn from_base64<const MAX: usize>(text: &str, field: &'static str) -> Result<ByteString<MAX>, Damage> {
    let bytes = STANDARD.decode(text).map_err(|_| Damage::Field(field))?;
    ByteString::try_from(bytes).map_err(|_| Damage::Field(field))
}

/// serde lets the last of two equal map keys win; here the second is an error.
fn without_duplicates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Unique;

    impl<'de> Visitor<'de> for Unique {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of addresses by chain")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut addresses = BTreeMap::new();
            while let Some((chain, address)) = map.next_entry::<String, String>()? {
                if addresses.insert(chain, address).is_some() {
                    return Err(A::Error::custom("an address stands twice"));
                }
            }
            Ok(addresses)
        }
    }

    deserializer.deserialize_map(Unique)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(key_id: &str) -> StoredRecord {
        let record = KeyRecord {
            key_id: key_id.parse().expect("id"),
            algorithm: Algorithm::Ed25519,
            public_key: PublicKey::try_from(vec![7; 32]).expect("short"),
            origin: Origin::Generated,
            policy: Policy::default(),
            kms_key_arn: "arn:aws:kms:eu-central-1:111122223333:key/1".parse().expect("arn"),
            data_key: ByteString::try_from(vec![1; 184]).expect("short"),
            ciphertext: ByteString::try_from(vec![2; 60]).expect("short"),
        };
        let addresses = BTreeMap::from([("solana".to_owned(), "11111".to_owned())]);
        StoredRecord::new(record, addresses, OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn a_record_survives_the_store() {
        let stored = sample("hot-1");
        let json = stored.to_json().expect("encodes");
        assert!(json.contains("\"created_at\": \"1970-01-01T00:00:00Z\""), "{json}");
        assert_eq!(StoredRecord::from_json(stored.key_id(), json.as_bytes()).expect("reads"), stored);
    }

    #[test]
    fn the_next_version_differs_in_record_state_and_generation_only() {
        let stored = sample("hot-1");
        let deletion_date = OffsetDateTime::UNIX_EPOCH;
        let mut record = stored.record.clone();
        record.kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/2".parse().expect("arn");
        let next = stored.next(record.clone(), State::PendingDeletion { deletion_date }).expect("a generation");
        assert_eq!(next.generation, 2);
        assert_eq!((&next.record, next.created_at, &next.addresses), (&record, stored.created_at, &stored.addresses));
        let json = next.to_json().expect("encodes");
        assert_eq!(StoredRecord::from_json(stored.key_id(), json.as_bytes()).expect("reads"), next);
        assert_eq!(StoredRecord { generation: u64::MAX, ..stored.clone() }.next(record, stored.state), None);
    }

    #[test]
    fn what_is_not_exactly_a_record_is_damaged() {
        let stored = sample("hot-1");
        let json = stored.to_json().expect("encodes");
        for (name, from, to) in [
            ("unknown_field", "\"version\": 1,", "\"version\": 1, \"note\": 1,"),
            ("duplicate_field", "\"version\": 1,", "\"version\": 1, \"version\": 1,"),
            ("duplicate_address", "\"solana\": \"11111\"", "\"solana\": \"11111\", \"solana\": \"2\""),
            ("other_version", "\"version\": 1", "\"version\": 2"),
            ("other_key", "hot-1", "hot-2"),
            ("not_hex", "0x0707", "0xzz07"),
            ("no_0x", "0x07", "07"),
            ("length_of_another_algorithm", "ed25519", "secp256k1"),
            ("not_base64", "AQEB", "!QEB"),
            ("generation", "\"generation\": 1", "\"generation\": 0"),
            ("time", "1970-01-01T", "1970-01-01 at "),
            ("state", "enabled", "maybe"),
            ("deletion_date_of_an_enabled_key", "\"state\"", "\"deletion_date\": \"1970-01-01T00:00:00Z\", \"state\""),
            ("no_deletion_date", "enabled", "pending_deletion"),
            ("missing_field", "\"origin\": \"generated\",", ""),
            ("trailing", "\n}", "\n}}"),
        ] {
            let changed = json.replacen(from, to, 1);
            assert_ne!(changed, json, "{name}");
            assert!(StoredRecord::from_json(stored.key_id(), changed.as_bytes()).is_err(), "{name}");
        }
    }
}
