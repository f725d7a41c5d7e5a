//! The binding: everything that the enclave believes about a key, in one byte string. It is the AAD
//! of the sealed secret, and its SHA-256 stands in the KMS encryption context.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::key::{Algorithm, KeyId, Origin};
use crate::policy::Policy;
use crate::subject::Subject;

/// A domain tag, then key id, algorithm, public key, origin and canonical policy, each behind its
/// length in four big-endian bytes. Golden vectors: `tests/vectors/binding.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding(Vec<u8>);

const DOMAIN: &[u8] = b"strongroom-binding-v1";

impl Binding {
    /// Binds these facts to each other.
    #[must_use]
    pub fn new(key_id: &KeyId, algorithm: Algorithm, public_key: &[u8], origin: Origin, policy: &Policy) -> Self {
        let policy = policy.canonical_json();
        let parts: [&[u8]; 5] = [
            key_id.as_str().as_bytes(),
            algorithm.as_str().as_bytes(),
            public_key,
            origin.as_str().as_bytes(),
            policy.as_bytes(),
        ];
        Self(length_prefixed(DOMAIN, &parts))
    }

    /// The bytes that AES-256-GCM authenticates beside the secret.
    #[must_use]
    pub fn as_aad(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the binding.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }

    /// The KMS encryption context of every call about this key: exactly these three pairs.
    #[must_use]
    pub fn encryption_context(&self, key_id: &KeyId) -> HashMap<String, String> {
        HashMap::from([
            ("strongroom:v".to_owned(), "1".to_owned()),
            ("strongroom:key_id".to_owned(), key_id.as_str().to_owned()),
            ("strongroom:binding".to_owned(), hex::encode(self.digest())),
        ])
    }
}

/// A domain tag, then each part behind its length in four big-endian bytes: no two lists of parts are the same
/// bytes.
pub(crate) fn length_prefixed(domain: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = domain.to_vec();
    for part in parts {
        // Every part is bounded far below 4 GiB by its type; a saturated length would only fail to open.
        bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// The `user_data` of a key's evidence document: `strongroom-key-v1` ‖ SHA-256(binding).
#[must_use]
pub fn key_user_data(binding: &Binding) -> Vec<u8> {
    Subject::Key { binding: binding.digest() }.user_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        name: String,
        key_id: KeyId,
        algorithm: Algorithm,
        public_key: String,
        origin: Origin,
        policy: Policy,
        binding: String,
        digest: String,
    }

    #[test]
    fn golden_vectors() {
        let golden: Vec<Golden> =
            serde_json::from_str(include_str!("../../tests/vectors/binding.json")).expect("vectors parse");
        assert_eq!(golden.len(), 6);
        for v in golden {
            let public_key = hex::decode(&v.public_key).expect("hex");
            let binding = Binding::new(&v.key_id, v.algorithm, &public_key, v.origin, &v.policy);
            assert_eq!(hex::encode(binding.as_aad()), v.binding, "{}", v.name);
            assert_eq!(hex::encode(binding.digest()), v.digest, "{}", v.name);
        }
    }

    #[test]
    fn the_encryption_context_is_exactly_three_pairs() {
        let key_id: KeyId = "hot-1".parse().expect("valid");
        let binding = Binding::new(&key_id, Algorithm::Ed25519, &[7; 32], Origin::Generated, &Policy::default());
        let context = binding.encryption_context(&key_id);
        assert_eq!(context.len(), 3);
        assert_eq!(context["strongroom:v"], "1");
        assert_eq!(context["strongroom:key_id"], "hot-1");
        assert_eq!(context["strongroom:binding"], hex::encode(binding.digest()));
    }
}
