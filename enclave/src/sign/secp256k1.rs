//! Keys of secp256k1, and what BIP-32 does with their scalars.

use std::sync::OnceLock;

use k256::elliptic_curve::PrimeField;
use k256::elliptic_curve::ops::Reduce;
use k256::elliptic_curve::sec1::ToSec1Point;
use k256::{FieldBytes, NonZeroScalar, ProjectivePoint, Scalar, schnorr};
use strongroom_protocol::Payload;

use super::NotAKey;
use super::public_point::PublicPoint;
use crate::secret::Secret;

/// What is to be signed.
pub(super) struct Item<'a> {
    pub(super) key: &'a Key,
    /// What signing reads.
    pub(super) digest: [u8; 32],
    /// What the check reads: if the digest changed between its two uses, in the nonce and in s, two signatures by
    /// one nonce would give the key away.
    pub(super) payload: &'a Payload,
}

/// A scalar and its point.
pub(crate) struct Key {
    /// Big-endian; never zero, below the order.
    scalar: Secret<32>,
    point: PublicPoint,
    /// Compressed SEC 1.
    public_key: [u8; 33],
    /// The form in which BIP-340 signs: of the two scalars the one whose point has an even y. Made for the first
    /// such signature, because it derives the public key anew. It wipes itself.
    schnorr: OnceLock<Box<schnorr::SigningKey>>,
}

impl Key {
    pub(super) fn new(secret: &Secret<32>) -> Result<Self, NotAKey> {
        let point = ProjectivePoint::mul_by_generator(&*nonzero_scalar(secret).ok_or(NotAKey)?);
        let public_key = compressed(&point)?;
        let scalar = Secret::from(secret.expose());
        Ok(Self { scalar, point: PublicPoint::new(point), public_key, schnorr: OnceLock::new() })
    }

    /// None if memory is no longer what it was. The caller wipes the stack.
    pub(super) fn scalar(&self) -> Option<NonZeroScalar> {
        nonzero_scalar(&self.scalar)
    }

    /// As [`Self::scalar`].
    pub(super) fn schnorr(&self) -> Option<&schnorr::SigningKey> {
        if let Some(key) = self.schnorr.get() {
            return Some(key);
        }
        let scalar = self.scalar()?;
        Some(self.schnorr.get_or_init(|| Box::new(scalar.into())))
    }

    pub(super) const fn point(&self) -> &PublicPoint {
        &self.point
    }

    pub(super) const fn public_key(&self) -> &[u8; 33] {
        &self.public_key
    }

    /// x‖y of the point.
    pub(super) fn coordinates(&self) -> [u8; 64] {
        let uncompressed = self.point.to_affine().to_sec1_point(false);
        uncompressed.as_bytes().last_chunk().copied().unwrap_or([0; 64])
    }
}

/// `(scalar + tweak) mod n`: a child key of BIP-32, from its parent's and the left half of I. An error where
/// BIP-32 has no key: the tweak is not below n, or the sum is zero. The caller wipes the stack.
pub(crate) fn add_to_scalar(scalar: &Secret<32>, tweak: &Secret<32>) -> Result<Secret<32>, NotAKey> {
    let tweak = Scalar::from_repr((*tweak.expose()).into()).into_option().ok_or(NotAKey)?;
    let sum = *nonzero_scalar(scalar).ok_or(NotAKey)? + tweak;
    let sum = NonZeroScalar::new(sum).into_option().ok_or(NotAKey)?;
    Ok(Secret::from(&sum.to_repr().into()))
}

/// `scalar`·G, as BIP-32 serializes it: compressed SEC 1. The caller wipes the stack.
pub(crate) fn compressed_point(scalar: &Secret<32>) -> Result<[u8; 33], NotAKey> {
    compressed(&ProjectivePoint::mul_by_generator(&*nonzero_scalar(scalar).ok_or(NotAKey)?))
}

/// An integer of 32 bytes, big-endian, modulo the order.
pub(super) fn reduced(bytes: &FieldBytes) -> Scalar {
    <Scalar as Reduce<FieldBytes>>::reduce(bytes)
}

fn compressed(point: &ProjectivePoint) -> Result<[u8; 33], NotAKey> {
    point.to_affine().to_sec1_point(true).as_bytes().try_into().map_err(|_| NotAKey)
}

fn nonzero_scalar(bytes: &Secret<32>) -> Option<NonZeroScalar> {
    NonZeroScalar::from_repr((*bytes.expose()).into()).into_option()
}
