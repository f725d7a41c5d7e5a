//! A signature and its check, and nothing around them: no policy, no group, no socket. What `make bench` measures the
//! appliance against; the appliance itself does not use it.

use strongroom_protocol::{Curve, Payload, Scheme, Signature};

use super::{SigningKey, bip340, digest, ecdsa, ed25519, secp256k1};
use crate::secret::{Secret, on_wiped_stack};

/// A key whose secret the caller has anyway.
pub struct RawKey(SigningKey);

impl RawKey {
    /// The key of a scalar or a seed; `None` where that is none.
    #[must_use]
    pub fn new(curve: Curve, secret: &[u8; 32]) -> Option<Self> {
        on_wiped_stack(|| SigningKey::new(curve, &Secret::from(secret))).ok().map(Self)
    }

    /// Signs and checks; `None` where `payload` does not fit.
    #[must_use]
    pub fn sign(&self, scheme: Scheme, payload: &Payload) -> Option<Signature> {
        let signed = match (&self.0, scheme, payload) {
            (SigningKey::Secp256k1(_), Scheme::Ecdsa, _) => {
                return self.sign_together(std::slice::from_ref(payload))?.pop();
            }
            (SigningKey::Secp256k1(key), Scheme::Bip340, _) => {
                bip340::sign(&[secp256k1::Item { key, digest: digest(payload).ok()?, payload }]).pop()?
            }
            (SigningKey::Ed25519(key), Scheme::Ed25519, Payload::Message { message, hash: None }) => {
                ed25519::sign(&[ed25519::Item { key, message }]).pop()?
            }
            _ => return None,
        };
        signed.ok()
    }

    /// ECDSA of all, as a group; `None` where the key or one of `payloads` does not fit.
    #[must_use]
    pub fn sign_together(&self, payloads: &[Payload]) -> Option<Vec<Signature>> {
        let SigningKey::Secp256k1(key) = &self.0 else { return None };
        let item = |payload| Some(secp256k1::Item { key, digest: digest(payload).ok()?, payload });
        let items: Vec<_> = payloads.iter().map(item).collect::<Option<_>>()?;
        ecdsa::sign(&items).into_iter().map(Result::ok).collect()
    }
}
