//! Keys below a seed: BIP-32 for secp256k1, SLIP-10 for ed25519. Private derivation only. Decides nothing
//! about permission: [`Seed::derive`] demands the witness of `policy.rs`; curve arithmetic is `sign.rs`'s.
//!
//! No public key is made that nobody asked for: a hardened step needs none, any other that of its parent.
//! Seeds, keys and chain codes leave this module only as a [`SigningKey`].

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aws_lc_rs::hmac::{Context, HMAC_SHA512, Key};
use strongroom_protocol::{Curve, HARDENED, PublicKey};

use crate::policy::AllowedPath;
use crate::secret::{KeyMaterial, Secret, on_wiped_stack};
use crate::sign::{NotAKey, SigningKey, add_to_scalar, compressed_point};

/// A seed, opened: its master key, and the last parent whose children were asked for.
pub(crate) struct Seed {
    curve: Curve,
    master: Arc<Level>,
    public_key: PublicKey,
    /// Many addresses are children of one parent (BIP-44: `m/44'/60'/0'/0`). While the seed is held, each
    /// costs one step. One parent and no more: it is wiped when another takes its place, and with the seed.
    last: Mutex<Option<(Vec<u32>, Arc<Level>)>>,
}

/// Why there is no key at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Underivable {
    /// The caller's: SLIP-10 has no such step for ed25519.
    #[error("a step that is not hardened")]
    NotHardened,
    /// Nobody's: the index is one of the invalid ones (BIP-32, "Private parent key → private child key"),
    /// which nobody has ever seen. To take the next one instead is the caller's to decide, for BIP-32 and
    /// SLIP-10 take different ones.
    #[error("an index without a valid key")]
    NoKey(#[from] NotAKey),
}

impl Seed {
    /// Makes the master key of `seed`. The algorithm's bounds of its length are the caller's to check.
    ///
    /// # Errors
    /// The seed is one of the invalid ones (BIP-32, "Master key generation").
    pub(crate) fn new(curve: Curve, seed: &KeyMaterial) -> Result<Self, NotAKey> {
        on_wiped_stack(|| {
            let master = Level::split(Context::with_key(&Key::new(HMAC_SHA512, domain(curve))), &[seed.expose()])?;
            let public_key = master.signing_key(curve)?.public_key();
            if let Ok(point) = public_key[..].try_into() {
                // secp256k1: the children of the master key need it, and it is there already.
                let _ = master.point.set(point);
            }
            Ok(Self { curve, master: Arc::new(master), public_key, last: Mutex::default() })
        })
    }

    /// The master public key: the seed's identity.
    pub(crate) const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The key at `path`.
    pub(crate) fn derive(&self, path: AllowedPath<'_>) -> Result<SigningKey, Underivable> {
        let path = path.path();
        if self.curve == Curve::Ed25519 && !path.is_hardened() {
            return Err(Underivable::NotHardened);
        }
        on_wiped_stack(|| {
            let key = match path.components().split_last() {
                None => self.master.signing_key(self.curve),
                Some((index, above)) => self.level(above)?.child(self.curve, *index)?.signing_key(self.curve),
            };
            Ok(key?)
        })
    }

    /// What lies at `steps` below the master key.
    fn level(&self, steps: &[u32]) -> Result<Arc<Level>, NotAKey> {
        if let Some((path, level)) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && path == steps
        {
            return Ok(Arc::clone(level));
        }
        let mut level = Arc::clone(&self.master);
        for index in steps {
            level = Arc::new(level.child(self.curve, *index)?);
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((steps.to_vec(), Arc::clone(&level)));
        Ok(level)
    }
}

/// A private key and its chain code: an extended private key (BIP-32).
struct Level {
    key: Secret<32>,
    chain_code: Secret<32>,
    /// Of the key, compressed (secp256k1 only). Made when the first child asks.
    point: OnceLock<[u8; 33]>,
}

impl Level {
    /// I = HMAC-SHA512 of `parts`, split into a key and a chain code.
    fn split(mut mac: Context, parts: &[&[u8]]) -> Result<Self, NotAKey> {
        parts.iter().for_each(|part| mac.update(part));
        let mac = mac.sign();
        let ([key, chain_code], []) = mac.as_ref().as_chunks::<32>() else { return Err(NotAKey) };
        Ok(Self { key: Secret::from(key), chain_code: Secret::from(chain_code), point: OnceLock::new() })
    }

    /// CKDpriv of BIP-32 and of SLIP-10. For ed25519 `index` is hardened.
    fn child(&self, curve: Curve, index: u32) -> Result<Self, NotAKey> {
        let mac = Context::with_key(&Key::new(HMAC_SHA512, self.chain_code.expose()));
        let place = index.to_be_bytes();
        let child = if index >= HARDENED {
            Self::split(mac, &[&[0], self.key.expose(), &place])?
        } else {
            Self::split(mac, &[self.point()?, &place])?
        };
        match curve {
            Curve::Secp256k1 => Ok(Self { key: add_to_scalar(&self.key, &child.key)?, ..child }),
            Curve::Ed25519 => Ok(child),
        }
    }

    fn point(&self) -> Result<&[u8; 33], NotAKey> {
        if let Some(point) = self.point.get() {
            return Ok(point);
        }
        let point = compressed_point(&self.key)?;
        Ok(self.point.get_or_init(|| point))
    }

    fn signing_key(&self, curve: Curve) -> Result<SigningKey, NotAKey> {
        SigningKey::new(curve, &self.key)
    }
}

/// The HMAC key that makes a master key (BIP-32 and SLIP-10, "Master key generation").
const fn domain(curve: Curve) -> &'static [u8] {
    match curve {
        Curve::Secp256k1 => b"Bitcoin seed",
        Curve::Ed25519 => b"ed25519 seed",
    }
}

#[cfg(test)]
mod tests;
