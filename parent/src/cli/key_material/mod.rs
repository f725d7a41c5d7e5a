//! Private key material on a custodian's machine: what holds it, and the public key that strongroom gives it. The
//! one place of this crate with either. Commands that custodians run reach it, and the daemon never does.
//!
//! Which files keys are read from is `formats`'s matter.

pub(super) mod formats;
pub(super) mod input;
pub(super) mod sealing;

use aws_lc_rs::hmac::{self, HMAC_SHA512};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use k256::elliptic_curve::sec1::ToSec1Point as _;
use strongroom_protocol::{Algorithm, Curve, PublicKey};
use zeroize::Zeroizing;

/// The bytes that a record seals: a scalar (secp256k1, big-endian), a seed of RFC 8032 (ed25519), or a seed that
/// keys are derived from. At one place in memory for all their life, wiped on drop, silent: no `Clone`, no
/// `Serialize`, no `Debug`.
pub(super) struct KeyMaterial(Zeroizing<Box<[u8]>>);

/// Bytes that are no key of their algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a private key of its algorithm: of another length, zero, or not below the order of the curve")]
pub(super) struct NotAKey;

impl KeyMaterial {
    /// Lets `fill` write `length` bytes straight to where they will stay. The caller has bounded `length`.
    ///
    /// # Errors
    /// Those of `fill`; what it had written is wiped.
    pub(super) fn fill<E>(length: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut material = Self(Zeroizing::new(vec![0; length].into_boxed_slice()));
        fill(&mut material.0)?;
        Ok(material)
    }

    /// The one way to look inside. The caller must not copy what it sees.
    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The public key of a record that seals this: of the key, or of a seed's master key. The enclave derives the
    /// same (`OpenedSecret` there) and refuses a record that says another.
    ///
    /// # Errors
    /// The material is no key of the algorithm.
    pub(super) fn public_key(&self, algorithm: Algorithm) -> Result<PublicKey, NotAKey> {
        if !algorithm.secret_lengths().contains(&self.0.len()) {
            return Err(NotAKey);
        }
        let curve = algorithm.curve();
        if algorithm.is_seed() {
            public_key(curve, &*master_key(curve, self.expose())?)
        } else {
            public_key(curve, self.expose().try_into().map_err(|_| NotAKey)?)
        }
    }
}

impl From<&[u8]> for KeyMaterial {
    /// A copy. The original's place is the caller's to wipe.
    fn from(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }
}

fn public_key(curve: Curve, secret: &[u8; 32]) -> Result<PublicKey, NotAKey> {
    match curve {
        Curve::Secp256k1 => {
            let key = k256::SecretKey::from_slice(secret).map_err(|_| NotAKey)?;
            compressed(&key.public_key()).ok_or(NotAKey)
        }
        Curve::Ed25519 => {
            let key = Ed25519KeyPair::from_seed_unchecked(secret).map_err(|_| NotAKey)?;
            PublicKey::try_from(key.public_key().as_ref()).map_err(|_| NotAKey)
        }
    }
}

/// The left half of I (BIP-32 and SLIP-10, "Master key generation").
fn master_key(curve: Curve, seed: &[u8]) -> Result<Zeroizing<[u8; 32]>, NotAKey> {
    let domain: &[u8] = match curve {
        Curve::Secp256k1 => b"Bitcoin seed",
        Curve::Ed25519 => b"ed25519 seed",
    };
    let mac = hmac::sign(&hmac::Key::new(HMAC_SHA512, domain), seed);
    mac.as_ref().first_chunk().map(|key| Zeroizing::new(*key)).ok_or(NotAKey)
}

/// A secp256k1 point of any form of SEC 1 section 2.3.3, as records have it. `None`: no point of the curve.
fn compressed_point(sec1: &[u8]) -> Option<PublicKey> {
    compressed(&k256::PublicKey::from_sec1_bytes(sec1).ok()?)
}

fn compressed(point: &k256::PublicKey) -> Option<PublicKey> {
    point.to_sec1_point(true).as_bytes().try_into().ok()
}

#[cfg(test)]
mod tests;
