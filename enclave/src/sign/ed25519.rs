//! Ed25519 (RFC 8032).

use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature as RawSignature, Verifier, VerifyingKey};
use sha2::{Digest, Sha512};
use strongroom_protocol::{ByteArray, Payload, Signature};

use super::SignError;
use crate::secret::{Secret, on_wiped_stack};

/// SHA-512 of the seed (RFC 8032 section 5.1.5), and A.
pub(crate) struct Key {
    /// Scalar and prefix.
    expanded: Secret<64>,
    public_key: VerifyingKey,
}

impl Key {
    pub(super) fn new(seed: &Secret<32>) -> Self {
        let Ok(expanded) = Secret::fill(|expanded: &mut [u8; 64]| {
            Sha512::new().chain_update(seed.expose()).finalize_into(expanded.into());
            Ok::<(), std::convert::Infallible>(())
        });
        let public_key = VerifyingKey::from(&ExpandedSecretKey::from_bytes(expanded.expose()));
        Self { expanded, public_key }
    }

    pub(super) fn public_key(&self) -> &[u8; 32] {
        self.public_key.as_bytes()
    }
}

pub(super) fn sign(key: &Key, payload: &Payload) -> Result<Signature, SignError> {
    let Payload::Message { message, hash: None } = payload else { return Err(SignError::PayloadInvalid) };
    let signature = on_wiped_stack(|| {
        raw_sign::<Sha512>(&ExpandedSecretKey::from_bytes(key.expanded.expose()), message, &key.public_key)
    });
    if !holds(&key.public_key, message, &signature) {
        return Err(SignError::CheckFailed);
    }
    Ok(Signature { bytes: ByteArray(signature.to_bytes()), recovery_id: None })
}

/// Verifies, as strictly as it takes for a key of ours: A has the full order, and R is recomputed and compared by its
/// bytes, so that of the points of small order only the neutral element could be R: that of a nonce of zero.
fn holds(public_key: &VerifyingKey, message: &[u8], signature: &RawSignature) -> bool {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    *signature.r_bytes() != neutral && public_key.verify(message, signature).is_ok()
}
