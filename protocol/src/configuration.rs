//! The enclave's configuration: a JSON file that arrives byte for byte, is measured into PCR16 and
//! then locked. Both sides read it with this code: the enclave to obey it, the parent to check it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha384};

use crate::key::KmsKeyArn;

/// Longest configuration, in bytes.
pub const MAX_CONFIGURATION: usize = 64 * 1024;

/// What the enclave may do, for whom, and with which KMS keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// The version of this format: 1.
    pub version: u32,
    /// The AWS Region of `kms_host` and `kms_keys`.
    pub region: String,
    /// The KMS endpoint's host name, for example `kms.eu-central-1.amazonaws.com`. TLS demands a
    /// certificate for this name.
    pub kms_host: String,
    /// The KMS keys that may wrap records. The first is the default for new ones.
    pub kms_keys: Vec<KmsKeyArn>,
    /// The operations that the enclave serves.
    #[serde(default = "default_operations")]
    pub operations: Vec<Operation>,
    /// TLS roots for `kms_host`, as PEM. Absent: Amazon's, compiled into the enclave.
    #[serde(default)]
    pub tls_roots: Option<String>,
    /// Caps every policy's `hold_seconds`.
    #[serde(default = "default_max_hold_seconds")]
    pub max_hold_seconds: u32,
    /// Keys held open at one time.
    #[serde(default = "default_max_held_keys")]
    pub max_held_keys: u32,
}

/// An operation that a configuration lists or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Make new keys.
    Generate,
    /// Sign.
    Sign,
    /// Put existing keys under another KMS key. A ceremony: not among the defaults.
    Rewrap,
}

/// A configuration that no enclave takes. The text is for the parent's own check; across the
/// socket goes only a code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// Longer than [`MAX_CONFIGURATION`].
    #[error("longer than {MAX_CONFIGURATION} bytes")]
    TooLong,
    /// Not JSON of this shape. Unknown and duplicate fields are errors.
    #[error("{0}")]
    Json(String),
    /// A field's value is not possible.
    #[error("{0}")]
    Value(&'static str),
}

/// What PCR16 holds once a configuration is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurement {
    /// SHA-384 of the configuration's bytes: what PCR16 is extended by.
    pub digest: [u8; 48],
    /// PCR16 afterwards: SHA-384(48 zero bytes ‖ `digest`).
    pub pcr16: [u8; 48],
}

impl Configuration {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Its author's: too long, not this JSON, or a value that cannot be.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigurationError> {
        if bytes.len() > MAX_CONFIGURATION {
            return Err(ConfigurationError::TooLong);
        }
        let configuration: Self = serde_json::from_slice(bytes).map_err(|e| ConfigurationError::Json(e.to_string()))?;
        configuration.check()?;
        Ok(configuration)
    }

    /// Whether the configuration lists this operation.
    #[must_use]
    pub fn allows(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
    }

    /// The configured key that stands for the KMS key of this name: that key itself, or its replica in
    /// this Region if it is a multi-Region key. What KMS is asked for, and must answer, is the result.
    ///
    /// A record's `kms_key_arn` is not bound and whoever stores the record can write another one there.
    /// That widens nothing: whatever it says, KMS is asked with one of the configured keys, and opens with
    /// it only what was wrapped by the same key material.
    #[must_use]
    pub fn kms_key_for(&self, named: &KmsKeyArn) -> Option<&KmsKeyArn> {
        self.kms_keys.iter().find(|key| *key == named || key.is_replica_of(named))
    }

    fn check(&self) -> Result<(), ConfigurationError> {
        let host = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-');
        let wrong = if self.version != 1 {
            "version: this enclave reads version 1"
        } else if self.region.is_empty() {
            "region: must be named"
        } else if self.kms_host.is_empty() || self.kms_host.len() > 253 || !self.kms_host.bytes().all(host) {
            "kms_host: must be a host name in lower case, without scheme and port"
        } else if self.kms_keys.is_empty() || self.kms_keys.len() > 100 {
            "kms_keys: must name 1 to 100 keys"
        } else if self.kms_keys.iter().any(|key| key.region() != self.region) {
            "kms_keys: every key must be of the Region that `region` names"
        } else if repeats(&self.kms_keys) {
            "kms_keys: a key is named twice"
        } else if repeats(&self.operations) {
            "operations: an operation is named twice"
        } else {
            return Ok(());
        };
        Err(ConfigurationError::Value(wrong))
    }
}

impl Measurement {
    /// The measurement of a configuration's bytes.
    #[must_use]
    pub fn of(configuration: &[u8]) -> Self {
        let digest: [u8; 48] = Sha384::digest(configuration).into();
        let pcr16 = Sha384::new().chain_update([0; 48]).chain_update(digest).finalize().into();
        Self { digest, pcr16 }
    }
}

fn repeats<T: PartialEq>(items: &[T]) -> bool {
    items.iter().enumerate().any(|(i, item)| items.iter().skip(i + 1).any(|other| other == item))
}

fn default_operations() -> Vec<Operation> {
    vec![Operation::Generate, Operation::Sign]
}

const fn default_max_hold_seconds() -> u32 {
    3600
}

const fn default_max_held_keys() -> u32 {
    10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"{"version":1,"region":"eu-central-1","kms_host":"kms.eu-central-1.amazonaws.com",
        "kms_keys":["arn:aws:kms:eu-central-1:111122223333:key/1"]}"#;

    #[test]
    fn a_minimal_configuration_has_safe_defaults() {
        let configuration = Configuration::parse(MINIMAL.as_bytes()).expect("valid");
        assert!(configuration.allows(Operation::Generate) && configuration.allows(Operation::Sign));
        assert!(!configuration.allows(Operation::Rewrap), "a ceremony is asked for");
        assert_eq!(configuration.tls_roots, None);
    }

    #[test]
    fn a_multi_region_key_of_another_region_is_its_replica_here_and_no_other_key_is() {
        let with_replica = MINIMAL.replace("key/1\"", "key/1\",\"arn:aws:kms:eu-central-1:111122223333:key/mrk-2\"");
        let configuration = Configuration::parse(with_replica.as_bytes()).expect("valid");
        for (named, meant) in [
            ("arn:aws:kms:eu-central-1:111122223333:key/1", Some("key/1")),
            ("arn:aws:kms:eu-central-1:111122223333:key/mrk-2", Some("key/mrk-2")),
            ("arn:aws:kms:us-east-1:111122223333:key/mrk-2", Some("key/mrk-2")),
            ("arn:aws:kms:us-east-1:111122223333:key/1", None),
            ("arn:aws:kms:us-east-1:111122223333:key/2", None),
            ("arn:aws:kms:us-east-1:111122223333:key/mrk-1", None),
            ("arn:aws:kms:us-east-1:111122223333:key/mrk-22", None),
            ("arn:aws:kms:us-east-1:999999999999:key/mrk-2", None),
            ("arn:aws:kms:eu-central-1:999999999999:key/mrk-2", None),
            ("arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-2", None),
        ] {
            let found = configuration.kms_key_for(&named.parse().expect("an ARN"));
            let expected = meant.map(|key| format!("arn:aws:kms:eu-central-1:111122223333:{key}"));
            assert_eq!(found.map(|key| key.as_str().to_owned()), expected, "{named}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"version\":1", "\"version\":1,\"version\":1"),
            ("\"version\":1", "\"version\":1,\"debug\":true"),
            ("\"version\":1", "\"version\":1,\"operations\":[\"sign\",\"sign\"]"),
            ("\"version\":1", "\"version\":1,\"operations\":[\"anything\"]"),
            ("\"region\":\"eu-central-1\"", "\"region\":\"us-east-1\""),
            ("\"region\":\"eu-central-1\"", "\"region\":\"\""),
            ("kms.eu-central-1.amazonaws.com", "https://kms.eu-central-1.amazonaws.com"),
            ("kms.eu-central-1.amazonaws.com", ""),
            ("\"arn:aws:kms:eu-central-1:111122223333:key/1\"", ""),
            ("key/1\"]", "alias/hot\"]"),
        ] {
            let changed = MINIMAL.replace(from, to);
            assert_ne!(changed, MINIMAL, "{from}");
            assert!(Configuration::parse(changed.as_bytes()).is_err(), "{to}");
        }
        assert_eq!(Configuration::parse(&vec![b' '; MAX_CONFIGURATION + 1]), Err(ConfigurationError::TooLong));
    }

    #[test]
    fn pcr16_is_one_extension_of_a_zero_register() {
        // printf abc | sha384sum; (head -c48 /dev/zero; printf abc | openssl sha384 -binary) | sha384sum
        let measurement = Measurement::of(b"abc");
        assert!(hex::encode(measurement.digest).starts_with("cb00753f45a35e8bb5a03d699ac65007"));
        assert_eq!(
            hex::encode(measurement.pcr16),
            "93732e3733514a841c982cfa75ea76ab55fe011acb9cd980ef4523913c65be1b0998e04d77f8c174f81a82151619ca40"
        );
    }
}
