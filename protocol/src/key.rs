//! What names and describes a key: its id, algorithm, origin, public key, the schemes it signs with
//! and the KMS key that wraps it. Every type here is valid once it exists.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::bytes::ByteString;

/// A key's name: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`. Only a name: the public key is the identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

/// A text is not the name that its type demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct InvalidName(pub(crate) &'static str);

impl KeyId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for KeyId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        if is_name(&text) { Ok(Self(text)) } else { Err(InvalidName("key id: [A-Za-z0-9][A-Za-z0-9._-]{0,63}")) }
    }
}

/// The name of somebody who may receive exported keys: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecipientName(String);

impl RecipientName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RecipientName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        if is_name(&text) { Ok(Self(text)) } else { Err(InvalidName("recipient: [A-Za-z0-9][A-Za-z0-9._-]{0,63}")) }
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    let bytes = text.as_bytes();
    bytes.len() <= 64 && bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.iter().all(allowed)
}

/// The full ARN of a KMS key: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`. Never an alias, which its
/// owner can point elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KmsKeyArn(String);

impl KmsKeyArn {
    /// The ARN as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The Region that the ARN names.
    #[must_use]
    pub fn region(&self) -> &str {
        self.0.split(':').nth(REGION).unwrap_or_default()
    }

    /// Whether both name the same multi-Region key, in whatever Regions: its primary and its replicas
    /// have one key id, which begins with `mrk-`, and the same key material (KMS developer guide,
    /// "Multi-Region keys in AWS KMS").
    #[must_use]
    pub fn is_replica_of(&self, other: &Self) -> bool {
        self.0.contains(":key/mrk-") && self.all_but_region().eq(other.all_but_region())
    }

    fn all_but_region(&self) -> impl Iterator<Item = &str> {
        self.0.split(':').enumerate().filter(|(place, _)| *place != REGION).map(|(_, part)| part)
    }
}

impl TryFrom<String> for KmsKeyArn {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        const WRONG: InvalidName = InvalidName("KMS key ARN: arn:PARTITION:kms:REGION:ACCOUNT:key/ID");
        let dashed = |s: &str| !s.is_empty() && s.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        let mut parts = text.split(':');
        let mut part = || parts.next().unwrap_or_default();
        let (arn, partition, service, region, account) = (part(), part(), part(), part(), part());
        let id = part().strip_prefix("key/").unwrap_or_default();
        let valid = text.len() <= 256
            && arn == "arn"
            && partition.starts_with("aws")
            && dashed(partition)
            && service == "kms"
            && dashed(region)
            && account.len() == 12
            && account.bytes().all(|c| c.is_ascii_digit())
            && dashed(id)
            && parts.next().is_none();
        if valid { Ok(Self(text)) } else { Err(WRONG) }
    }
}

/// The curve and key type: a key that signs, or a seed below which such keys lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// SEC 2 secp256k1: ECDSA and BIP-340.
    Secp256k1,
    /// RFC 8032 Ed25519.
    Ed25519,
    /// A seed of secp256k1 keys (BIP-32).
    #[serde(rename = "bip32-secp256k1")]
    Bip32Secp256k1,
    /// A seed of ed25519 keys (SLIP-10): hardened steps only.
    #[serde(rename = "slip10-ed25519")]
    Slip10Ed25519,
}

/// The curve of the keys that sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// SEC 2 secp256k1.
    Secp256k1,
    /// RFC 8032 edwards25519.
    Ed25519,
}

impl Algorithm {
    /// The name in the API, the record and the binding.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secp256k1 => "secp256k1",
            Self::Ed25519 => "ed25519",
            Self::Bip32Secp256k1 => "bip32-secp256k1",
            Self::Slip10Ed25519 => "slip10-ed25519",
        }
    }

    /// Whether keys are derived from it. Such a key signs with the key at a path, never by itself.
    #[must_use]
    pub const fn is_seed(self) -> bool {
        matches!(self, Self::Bip32Secp256k1 | Self::Slip10Ed25519)
    }

    /// The curve of the key, or of the keys below the seed.
    #[must_use]
    pub const fn curve(self) -> Curve {
        match self {
            Self::Secp256k1 | Self::Bip32Secp256k1 => Curve::Secp256k1,
            Self::Ed25519 | Self::Slip10Ed25519 => Curve::Ed25519,
        }
    }

    /// Length of a public key, in bytes: compressed SEC 1, or RFC 8032 section 5.1.5. A seed's is that of its
    /// master key.
    #[must_use]
    pub const fn public_key_length(self) -> usize {
        match self.curve() {
            Curve::Secp256k1 => 33,
            Curve::Ed25519 => 32,
        }
    }

    /// How many secret bytes a record of this algorithm seals: a scalar, a seed of RFC 8032, or 128 to 512
    /// bits for derivation (BIP-32, "Master key generation").
    #[must_use]
    pub const fn secret_lengths(self) -> RangeInclusive<usize> {
        if self.is_seed() { 16..=64 } else { 32..=32 }
    }

    /// The scheme of a sign request that names none.
    #[must_use]
    pub const fn default_scheme(self) -> Scheme {
        self.curve().default_scheme()
    }
}

impl Curve {
    /// The scheme of a sign request that names none.
    #[must_use]
    pub const fn default_scheme(self) -> Scheme {
        match self {
            Self::Secp256k1 => Scheme::Ecdsa,
            Self::Ed25519 => Scheme::Ed25519,
        }
    }
}

/// How a signature is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// ECDSA over secp256k1, RFC 6979 nonces, low S: r‖s and a recovery id.
    Ecdsa,
    /// Schnorr signatures for secp256k1 (BIP-340).
    Bip340,
    /// PureEdDSA (RFC 8032).
    Ed25519,
}

impl Scheme {
    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ecdsa => "ecdsa",
            Self::Bip340 => "bip340",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// Where a key came from. Part of the binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Made in an enclave; never existed elsewhere.
    Generated,
    /// Brought by a custodian, end to end encrypted.
    Imported,
    /// Taken over from an unbound KMS ciphertext, which keeps its old exposure.
    Adopted,
}

impl Origin {
    /// The name in the record and the binding.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Imported => "imported",
            Self::Adopted => "adopted",
        }
    }
}

/// A public key as bytes, a seed's that of its master key: 33 for secp256k1 (compressed SEC 1), 32 for ed25519. Whether they are a
/// point on the curve, only the enclave knows.
pub type PublicKey = ByteString<33>;

macro_rules! text {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
text!(KeyId, KmsKeyArn, RecipientName, Algorithm, Scheme, Origin);

macro_rules! from_text {
    ($($type:ty),*) => {$(
        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
    )*};
}
from_text!(KeyId, KmsKeyArn, RecipientName);

/// The Region's place in an ARN.
const REGION: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_ids_are_the_documented_names_and_no_others() {
        for good in ["a", "0", "hot-1", "A.b_c-d", &"x".repeat(64)] {
            assert!(good.parse::<KeyId>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "_a", "a/b", "a b", "ä", "a\0", "..", &"x".repeat(65)] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn replicas_differ_in_their_region_and_in_nothing_else() {
        let arn = |text: &str| text.parse::<KmsKeyArn>().expect("valid");
        let here = arn("arn:aws:kms:eu-central-1:111122223333:key/mrk-1234");
        assert!(here.is_replica_of(&here));
        assert!(here.is_replica_of(&arn("arn:aws:kms:us-east-1:111122223333:key/mrk-1234")));
        for other in [
            "arn:aws:kms:us-east-1:999999999999:key/mrk-1234",
            "arn:aws-cn:kms:us-east-1:111122223333:key/mrk-1234",
            "arn:aws:kms:us-east-1:111122223333:key/mrk-12345",
            "arn:aws:kms:us-east-1:111122223333:key/1234",
        ] {
            assert!(!here.is_replica_of(&arn(other)) && !arn(other).is_replica_of(&here), "{other}");
        }
        let single = |region: &str| arn(&format!("arn:aws:kms:{region}:111122223333:key/1234-mrk-1"));
        assert!(!single("eu-central-1").is_replica_of(&single("us-east-1")), "single-Region keys have no replicas");
    }

    #[test]
    fn only_full_key_arns_are_kms_keys() {
        let good = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        assert_eq!(good.parse::<KmsKeyArn>().expect("valid").region(), "eu-central-1");
        assert!("arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-12".parse::<KmsKeyArn>().is_ok());
        for bad in [
            "",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:eu-central-1:111122223333:alias/hot",
            "arn:aws:s3:eu-central-1:111122223333:key/1",
            "arn:aws:kms::111122223333:key/1",
            "arn:aws:kms:eu-central-1:1111:key/1",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:key/1:2",
            "arn:aws:kms:eu-central-1:111122223333:key/1\n",
        ] {
            assert!(bad.parse::<KmsKeyArn>().is_err(), "{bad}");
        }
    }
}
