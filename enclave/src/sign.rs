//! The signature schemes: how opened bytes become a key that signs, and which scheme signs what. Decides nothing
//! about permission: [`sign`] demands the witnesses of `policy.rs`. How a signature is made and checked is each
//! scheme's own file.

mod bip340;
mod ecdsa;
mod ed25519;
mod public_point;
mod raw;
mod secp256k1;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use sha3::Keccak256;
use strongroom_protocol::{Curve, HashFunction, Payload, PublicKey, Scheme, Signature, addresses};

pub use self::raw::RawKey;
pub(crate) use self::secp256k1::{add_to_scalar, compressed_point};
use crate::policy::Authorized;
use crate::secret::Secret;

/// Signatures that are made together. More would gain a hundredth, and others have their turn after at most 4
/// milliseconds: of BIP-340, the slowest, these take that long.
pub(crate) const GROUP: usize = 48;

/// An opened key: the secret in the form that signs fastest, and its public key.
pub(crate) enum SigningKey {
    /// Signs by ECDSA and by BIP-340.
    Secp256k1(secp256k1::Key),
    /// Signs by RFC 8032.
    Ed25519(ed25519::Key),
}

/// Bytes that are no key of their algorithm: of another length, zero, or not below the order of secp256k1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a secret key of its algorithm")]
pub(crate) struct NotAKey;

/// Why no signature came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignError {
    /// The caller's: scheme, payload or hash do not fit the key's algorithm.
    #[error("the payload does not fit the key's algorithm")]
    PayloadInvalid,
    /// Ours: the signature did not verify, so it must not leave.
    #[error("the signature failed its check")]
    CheckFailed,
}

impl SigningKey {
    /// Makes the key of `secret`: a scalar (secp256k1), or a seed of RFC 8032 (ed25519). The caller wipes the
    /// stack: [`crate::secret::on_wiped_stack`].
    pub(crate) fn new(curve: Curve, secret: &Secret<32>) -> Result<Self, NotAKey> {
        match curve {
            Curve::Secp256k1 => secp256k1::Key::new(secret).map(Self::Secp256k1),
            Curve::Ed25519 => Ok(Self::Ed25519(ed25519::Key::new(secret))),
        }
    }

    /// The key's curve.
    pub(crate) const fn curve(&self) -> Curve {
        match self {
            Self::Secp256k1(_) => Curve::Secp256k1,
            Self::Ed25519(_) => Curve::Ed25519,
        }
    }

    /// The public key as the record has it.
    pub(crate) fn public_key(&self) -> PublicKey {
        let bytes: &[u8] = match self {
            Self::Secp256k1(key) => key.public_key(),
            Self::Ed25519(key) => key.public_key(),
        };
        PublicKey::try_from(bytes).unwrap_or_default()
    }

    /// Addresses by chain, for reading.
    pub(crate) fn addresses(&self) -> BTreeMap<String, String> {
        let (chain, address) = match self {
            Self::Secp256k1(key) => ("ethereum", addresses::ethereum(&key.coordinates())),
            Self::Ed25519(key) => ("solana", addresses::solana(key.public_key())),
        };
        BTreeMap::from([(chain.to_owned(), address)])
    }
}

/// Signs what was authorized, with whatever keys, and checks every signature before it is released. The results
/// are in the order of what they are for. Not more than [`GROUP`] at one time, for others want their turn.
pub(crate) fn sign(authorized: Vec<Authorized<'_>>) -> Vec<Result<Signature, SignError>> {
    let (mut ecdsa, mut bip340, mut ed25519) = (Together::default(), Together::default(), Together::default());
    let mut results: Vec<_> = Vec::with_capacity(authorized.len());
    for (place, authorized) in authorized.iter().enumerate() {
        let (key, scheme, payload) = authorized.parts();
        results.push(match (key, scheme, payload) {
            (SigningKey::Secp256k1(key), Scheme::Ecdsa, _) => {
                digest(payload).and_then(|digest| ecdsa.add(place, secp256k1::Item { key, digest, payload }))
            }
            (SigningKey::Secp256k1(key), Scheme::Bip340, _) => {
                digest(payload).and_then(|digest| bip340.add(place, secp256k1::Item { key, digest, payload }))
            }
            (SigningKey::Ed25519(key), Scheme::Ed25519, Payload::Message { message, hash: None }) => {
                ed25519.add(place, ed25519::Item { key, message })
            }
            (SigningKey::Secp256k1(_), Scheme::Ed25519, _) | (SigningKey::Ed25519(_), ..) => {
                Err(SignError::PayloadInvalid)
            }
        });
    }
    let places = ecdsa.places.into_iter().chain(bip340.places).chain(ed25519.places);
    let signed =
        [self::ecdsa::sign(&ecdsa.items), self::bip340::sign(&bip340.items), self::ed25519::sign(&ed25519.items)];
    for (place, signed) in places.zip(signed.into_iter().flatten()) {
        if let Some(result) = results.get_mut(place) {
            *result = signed;
        }
    }
    results
}

/// What is signed together, and the places of the results.
struct Together<Item> {
    places: Vec<usize>,
    items: Vec<Item>,
}

impl<Item> Together<Item> {
    /// The result until it is signed.
    fn add(&mut self, place: usize, item: Item) -> Result<Signature, SignError> {
        self.places.push(place);
        self.items.push(item);
        Err(SignError::CheckFailed)
    }
}

impl<Item> Default for Together<Item> {
    fn default() -> Self {
        Self { places: Vec::new(), items: Vec::new() }
    }
}

/// The 32 bytes that secp256k1 signs.
fn digest(payload: &Payload) -> Result<[u8; 32], SignError> {
    match payload {
        Payload::Digest(digest) => Ok(digest.0),
        Payload::Message { message, hash: Some(hash) } => Ok(match hash {
            HashFunction::Keccak256 => Keccak256::digest(&**message).into(),
            HashFunction::Sha256 => Sha256::digest(&**message).into(),
            HashFunction::Sha256d => Sha256::digest(Sha256::digest(&**message)).into(),
        }),
        Payload::Message { hash: None, .. } => Err(SignError::PayloadInvalid),
    }
}

#[cfg(test)]
mod tests;
