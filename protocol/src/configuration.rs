//! The enclave's configuration: a JSON file that arrives byte for byte, is measured into PCR16 and
//! then locked. Both sides read it with this code: the enclave to obey it, the parent to check it.

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha384};

use crate::bytes::ByteArray;
use crate::custody::HpkePublicKey;
use crate::key::{KmsKeyArn, RecipientName};

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
    /// The KMS keys under which secrets may be that are adopted. Whoever may `Encrypt` under one of them can have
    /// a key of theirs adopted, so none of them wraps records.
    #[serde(default)]
    pub adopt_kms_keys: Vec<KmsKeyArn>,
    /// Who may receive exported keys.
    #[serde(default)]
    pub export_recipients: Vec<ExportRecipient>,
}

/// Somebody who may receive exported keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRecipient {
    /// By which callers name them.
    pub name: RecipientName,
    /// What exported keys are sealed to. In JSON: hex, `0x` optional.
    #[serde(deserialize_with = "hpke_public_key")]
    pub public_key: HpkePublicKey,
}

/// An operation that a configuration lists or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Make new keys.
    Generate,
    /// Sign.
    Sign,
    /// Put existing keys under another KMS key. A ceremony, as all that follow: not among the defaults.
    Rewrap,
    /// Take keys that custodians bring.
    Import,
    /// Take secrets over that lie under one of `adopt_kms_keys`.
    Adopt,
    /// Seal exportable keys to one of `export_recipients`.
    Export,
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

    /// The recipient of this name.
    #[must_use]
    pub fn export_recipient(&self, name: &RecipientName) -> Option<&ExportRecipient> {
        self.export_recipients.iter().find(|recipient| recipient.name == *name)
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
            return self.check_adoption().and_then(|()| self.check_export()).map_err(ConfigurationError::Value);
        };
        Err(ConfigurationError::Value(wrong))
    }

    fn check_adoption(&self) -> Result<(), &'static str> {
        let keys = &self.adopt_kms_keys;
        if self.allows(Operation::Adopt) == keys.is_empty() {
            Err("adopt_kms_keys: must name keys if `operations` lists adopt, and only then")
        } else if keys.len() > 100 || repeats(keys) {
            Err("adopt_kms_keys: must name at most 100 keys, each once")
        } else if keys.iter().any(|key| key.region() != self.region) {
            Err("adopt_kms_keys: every key must be of the Region that `region` names")
        } else if keys.iter().any(|key| self.kms_key_for(key).is_some()) {
            Err("adopt_kms_keys: a key that wraps records cannot be one of them")
        } else {
            Ok(())
        }
    }

    fn check_export(&self) -> Result<(), &'static str> {
        let recipients = &self.export_recipients;
        let (names, keys): (Vec<_>, Vec<_>) = recipients.iter().map(|r| (&r.name, r.public_key)).unzip();
        if self.allows(Operation::Export) == recipients.is_empty() {
            Err("export_recipients: must name recipients if `operations` lists export, and only then")
        } else if recipients.len() > 100 || repeats(&names) || repeats(&keys) {
            Err("export_recipients: must name at most 100 recipients, each name and each public key once")
        } else {
            Ok(())
        }
    }
}

fn hpke_public_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HpkePublicKey, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut key = [0; 32];
    let read = hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(&text), &mut key);
    read.map_err(|_| serde::de::Error::custom("public_key: must be 32 bytes in hex"))?;
    Ok(ByteArray(key))
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
        for ceremony in [Operation::Rewrap, Operation::Import, Operation::Adopt, Operation::Export] {
            assert!(!configuration.allows(ceremony), "a ceremony is asked for");
        }
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
            ("\"version\":1", "\"version\":1,\"operations\":[\"adopt\"]"),
            ("\"version\":1", "\"version\":1,\"operations\":[\"export\"]"),
        ] {
            let changed = MINIMAL.replace(from, to);
            assert_ne!(changed, MINIMAL, "{from}");
            assert!(Configuration::parse(changed.as_bytes()).is_err(), "{to}");
        }
        assert_eq!(Configuration::parse(&vec![b' '; MAX_CONFIGURATION + 1]), Err(ConfigurationError::TooLong));
    }

    #[test]
    fn what_keys_are_adopted_from_and_exported_to_is_named_and_wraps_nothing() {
        let adopt = |keys: &str| with(&format!(r#""operations":["adopt"],"adopt_kms_keys":[{keys}]"#));
        let key = |name: &str| format!(r#""arn:aws:kms:eu-central-1:111122223333:key/{name}""#);
        assert_eq!(adopt(&key("old")).expect("valid").adopt_kms_keys.len(), 1);
        assert!(adopt(&format!("{},{}", key("old"), key("older"))).is_ok());
        for (name, keys) in [
            ("none", String::new()),
            ("twice", format!("{0},{0}", key("old"))),
            ("one_that_wraps_records", key("1")),
            ("another_region", key("old").replace("eu-central-1", "us-east-1")),
            ("alias", key("old").replace("key/", "alias/")),
        ] {
            assert!(adopt(&keys).is_err(), "{name}");
        }
        assert!(with(&format!(r#""adopt_kms_keys":[{}]"#, key("old"))).is_err(), "without the operation");

        let export = |recipients: &str| with(&format!(r#""operations":["export"],"export_recipients":[{recipients}]"#));
        let recipient = |name: &str, byte: &str| format!(r#"{{"name":"{name}","public_key":"0x{}"}}"#, byte.repeat(32));
        let both = export(&format!("{},{}", recipient("a", "01"), recipient("b", "02"))).expect("valid");
        assert_eq!(both.export_recipient(&"b".parse().expect("valid")).expect("named").public_key.0, [2; 32]);
        assert_eq!(both.export_recipient(&"c".parse().expect("valid")), None);
        for (name, recipients) in [
            ("none", String::new()),
            ("name_twice", format!("{},{}", recipient("a", "01"), recipient("a", "02"))),
            ("key_twice", format!("{},{}", recipient("a", "01"), recipient("b", "01"))),
            ("no_name", recipient("", "01")),
            ("short_key", recipient("a", "01").replace("0x01", "0x")),
            ("unknown_field", recipient("a", "01").replace('}', r#","note":1}"#)),
        ] {
            assert!(export(&recipients).is_err(), "{name}");
        }
        assert!(with(&format!(r#""export_recipients":[{}]"#, recipient("a", "01"))).is_err(), "without the operation");
    }

    fn with(fields: &str) -> Result<Configuration, ConfigurationError> {
        Configuration::parse(MINIMAL.replace("\"version\":1", &format!("\"version\":1,{fields}")).as_bytes())
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
