//! Keys on their way into an enclave and out of it: what an import or an export is sealed for, and by what an
//! adopted key is recognised. The seal itself is HPKE (RFC 9180) and made elsewhere: this crate has no cipher.
//!
//! HPKE's `info` holds everything that the two ends must agree on. Whoever carries the sealed key between them can
//! change none of it: with another `info` it does not open.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::binding::{Binding, length_prefixed};
use crate::bytes::{ByteArray, ByteString};
use crate::key::{Algorithm, KeyId, KmsKeyArn, PublicKey, RecipientName};
use crate::policy::{PayloadKind, Policy};
use crate::subject::{self, Subject};

/// A public key of DHKEM(X25519, HKDF-SHA256) (RFC 9180 section 7.1).
pub type HpkePublicKey = ByteArray<32>;

/// What a key may be as long as: the longest seed.
const MAX_KEY_MATERIAL: usize = 64;

/// The tag of ChaCha20-Poly1305 (RFC 8439).
const TAG: usize = 16;

/// A key, sealed by HPKE in base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, empty `aad`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedKey {
    /// `enc`: the sender's ephemeral public key.
    pub encapsulated_key: HpkePublicKey,
    /// The sealed secret bytes and their tag.
    pub ciphertext: ByteString<{ MAX_KEY_MATERIAL + TAG }>,
}

/// The name of an import key: SHA-256 of its public key. An enclave's document about the key says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImportKeyId(pub ByteArray<32>);

impl ImportKeyId {
    /// The name of this import key.
    #[must_use]
    pub fn of(public_key: &HpkePublicKey) -> Self {
        Self(ByteArray(Sha256::digest(**public_key).into()))
    }

    /// The `user_data` of the import key's document: `strongroom-import-v1` ‖ the name.
    #[must_use]
    pub fn user_data(&self) -> Vec<u8> {
        Subject::ImportKey { id: *self.0 }.user_data()
    }
}

/// What a new key will be. Of one that is imported, an enclave knows no other description than the one that the
/// custodian sealed it for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDescription {
    /// The key's name.
    pub key_id: KeyId,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its policy, bound for ever.
    pub policy: Policy,
    /// The KMS key that wraps it; absent: the configuration's first.
    pub kms_key_arn: Option<KmsKeyArn>,
}

/// An adopted key may do the least that a key can. Whoever described it is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdoptable {
    /// It derives others.
    #[error("algorithm: a seed cannot be adopted")]
    Seed,
    /// It may do more than sign messages.
    #[error("policy: an adopted key signs messages only, and is not exportable")]
    Policy,
}

impl KeyDescription {
    /// Whether a key may be adopted as this: its secret was exposed before, and nobody had bound it to anything.
    ///
    /// # Errors
    /// [`NotAdoptable`].
    pub fn check_adoptable(&self) -> Result<(), NotAdoptable> {
        if self.algorithm.is_seed() {
            Err(NotAdoptable::Seed)
        } else if self.policy.allows(PayloadKind::Digest) || self.policy.is_exportable() {
            Err(NotAdoptable::Policy)
        } else {
            Ok(())
        }
    }

    /// HPKE's `info` of an import: a domain tag, then import key, nonce of its document, key id, algorithm,
    /// canonical policy and KMS key ARN (empty if absent), each behind its length in four big-endian bytes.
    #[must_use]
    pub fn import_info(&self, import_key: &ImportKeyId, nonce: &[u8]) -> Vec<u8> {
        let policy = self.policy.canonical_json();
        let kms_key_arn = self.kms_key_arn.as_ref().map_or("", KmsKeyArn::as_str);
        let parts: [&[u8]; 6] = [
            &*import_key.0,
            nonce,
            self.key_id.as_str().as_bytes(),
            self.algorithm.as_str().as_bytes(),
            policy.as_bytes(),
            kms_key_arn.as_bytes(),
        ];
        length_prefixed(IMPORT_SEAL_DOMAIN, &parts)
    }
}

/// HPKE's `info` of an export: a domain tag, then the binding and the recipient's name, each behind its length.
#[must_use]
pub fn export_info(binding: &Binding, recipient: &RecipientName) -> Vec<u8> {
    length_prefixed(EXPORT_SEAL_DOMAIN, &[binding.as_aad(), recipient.as_str().as_bytes()])
}

/// The `user_data` of the evidence about an export: `strongroom-export-v1` ‖ SHA-256 of `info` and of the sealed key,
/// each part behind its length. Who finds it in a document of an enclave knows that the enclave sealed the key of
/// this binding, to this recipient of its configuration, in exactly these bytes: they need not be opened to be believed.
#[must_use]
pub fn export_user_data(info: &[u8], sealed: &SealedKey) -> Vec<u8> {
    let export = length_prefixed(subject::EXPORT, &[info, &*sealed.encapsulated_key, &sealed.ciphertext]);
    Subject::Export { export: Sha256::digest(export).into() }.user_data()
}

/// By what an operator recognises a key whose secret is about to be adopted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ExpectedKey {
    /// The whole public key, as a record has it.
    PublicKey(PublicKey),
    /// One of the key's addresses, as text.
    Address(ByteString<64>),
}

impl ExpectedKey {
    /// Whether it is the key with this public key and these addresses by chain. The case of an Ethereum address is
    /// a checksum (EIP-55) and no part of it; that of others counts.
    #[must_use]
    pub fn is(&self, public_key: &PublicKey, addresses: &BTreeMap<String, String>) -> bool {
        match self {
            Self::PublicKey(expected) => expected == public_key,
            Self::Address(expected) => addresses.iter().any(|(chain, address)| match chain.as_str() {
                "ethereum" => address.as_bytes().eq_ignore_ascii_case(expected),
                _ => address.as_bytes() == &**expected,
            }),
        }
    }
}

const IMPORT_SEAL_DOMAIN: &[u8] = b"strongroom-import-seal-v1";
const EXPORT_SEAL_DOMAIN: &[u8] = b"strongroom-export-seal-v1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Origin;

    fn description() -> KeyDescription {
        KeyDescription {
            key_id: "hot-1".parse().expect("valid"),
            algorithm: Algorithm::Secp256k1,
            policy: Policy::default(),
            kms_key_arn: None,
        }
    }

    /// Written out by hand, so that neither end can drift from what custodians sealed with.
    #[test]
    fn the_info_of_an_import_is_fixed() {
        let import_key = ImportKeyId::of(&ByteArray([7; 32]));
        let arn = "arn:aws:kms:eu-central-1:111122223333:key/1";
        let described = KeyDescription { kms_key_arn: Some(arn.parse().expect("valid")), ..description() };
        let mut expected = b"strongroom-import-seal-v1".to_vec();
        expected.extend([0, 0, 0, 32]);
        // printf '\7%.0s' {1..32} | sha256sum
        expected.extend(hex::decode("4bb06f8e4e3a7715d201d573d0aa423762e55dabd61a2c02278fa56cc6d294e0").expect("hex"));
        expected.extend(b"\0\0\0\x05nonce\0\0\0\x05hot-1\0\0\0\x09secp256k1");
        expected.extend(b"\0\0\0\x29{\"payloads\":[\"message\"],\"hold_seconds\":0}");
        expected.extend(b"\0\0\0\x2b");
        expected.extend(arn.as_bytes());
        assert_eq!(described.import_info(&import_key, b"nonce"), expected);
        assert!(description().import_info(&import_key, b"nonce").ends_with(b"}\0\0\0\0"), "no KMS key is named");
        assert_eq!(import_key.user_data(), [&b"strongroom-import-v1"[..], &*import_key.0].concat());
    }

    #[test]
    fn the_info_of_an_export_is_fixed() {
        let public_key = PublicKey::try_from(vec![2; 33]).expect("short");
        let key_id = "hot-1".parse().expect("valid");
        let policy = Policy::default().with_exportable(true);
        let binding = Binding::new(&key_id, Algorithm::Secp256k1, &public_key, Origin::Generated, &policy);
        let length = u32::try_from(binding.as_aad().len()).expect("short").to_be_bytes();
        let expected = [&b"strongroom-export-seal-v1"[..], &length, binding.as_aad(), b"\0\0\0\x05vault"].concat();
        assert_eq!(export_info(&binding, &"vault".parse().expect("valid")), expected);
    }

    #[test]
    fn a_key_is_recognised_by_public_key_or_address_and_by_nothing_else() {
        let public_key = PublicKey::try_from(vec![2; 33]).expect("short");
        let checksummed = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf";
        let solana = "So11111111111111111111111111111111111111112";
        let addresses = |chain: &str, address: &str| BTreeMap::from([(chain.to_owned(), address.to_owned())]);
        let address = |text: &str| ExpectedKey::Address(text.as_bytes().try_into().expect("short"));
        let ethereum = addresses("ethereum", checksummed);
        assert!(ExpectedKey::PublicKey(public_key.clone()).is(&public_key, &ethereum));
        assert!(!ExpectedKey::PublicKey(vec![3; 33].try_into().expect("short")).is(&public_key, &ethereum));
        assert!(address(checksummed).is(&public_key, &ethereum));
        assert!(address(&checksummed.to_lowercase()).is(&public_key, &ethereum));
        assert!(!address(&checksummed.replace('7', "8")).is(&public_key, &ethereum));
        assert!(!address("").is(&public_key, &ethereum) && !address("").is(&public_key, &BTreeMap::new()));
        let solanas = addresses("solana", solana);
        assert!(address(solana).is(&public_key, &solanas));
        assert!(!address(&solana.to_lowercase()).is(&public_key, &solanas), "base58 has two cases");
    }
}
