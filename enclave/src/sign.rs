//! The signature schemes: how opened bytes become a key that signs, and how a signature is made and
//! checked. Decides nothing about permission: [`sign`] demands the witness of `policy.rs`.

use std::collections::BTreeMap;

use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use k256::ecdsa::RecoveryId;
use k256::elliptic_curve::PrimeField;
use k256::elliptic_curve::ops::{Invert, MulByGeneratorVartime, Reduce};
use k256::elliptic_curve::point::AffineCoordinates;
use k256::elliptic_curve::scalar::IsHigh;
use k256::elliptic_curve::sec1::ToSec1Point;
use k256::{FieldBytes, NonZeroScalar, ProjectivePoint, Scalar, Secp256k1, schnorr};
use sha2::{Digest, Sha256, Sha512};
use sha3::Keccak256;
use strongroom_protocol::{ByteArray, Curve, HashFunction, Payload, PublicKey, Scheme, Signature, addresses};

use crate::policy::Authorized;
use crate::secret::{Secret, on_wiped_stack};

/// An opened key: the secret in the form that signs fastest, and its public key.
pub(crate) enum SigningKey {
    /// The scalar, big-endian.
    Secp256k1 {
        /// Never zero, below the order.
        scalar: Secret<32>,
        /// scalar·G.
        point: ProjectivePoint,
        /// Compressed SEC 1.
        public_key: [u8; 33],
    },
    /// SHA-512 of the seed (RFC 8032 section 5.1.5).
    Ed25519 {
        /// Scalar and prefix.
        expanded: Secret<64>,
        /// A.
        public_key: ed25519_dalek::VerifyingKey,
    },
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
    /// stack: [`on_wiped_stack`].
    pub(crate) fn new(curve: Curve, secret: &Secret<32>) -> Result<Self, NotAKey> {
        match curve {
            Curve::Secp256k1 => Self::secp256k1(secret),
            Curve::Ed25519 => Ok(Self::ed25519(secret)),
        }
    }

    fn secp256k1(secret: &Secret<32>) -> Result<Self, NotAKey> {
        let point = ProjectivePoint::mul_by_generator(&*nonzero_scalar(secret).ok_or(NotAKey)?);
        let public_key = compressed(&point)?;
        Ok(Self::Secp256k1 { scalar: Secret::from(secret.expose()), point, public_key })
    }

    fn ed25519(seed: &Secret<32>) -> Self {
        let Ok(expanded) = Secret::fill(|expanded: &mut [u8; 64]| {
            Sha512::new().chain_update(seed.expose()).finalize_into(expanded.into());
            Ok::<(), std::convert::Infallible>(())
        });
        let public_key = ed25519_dalek::VerifyingKey::from(&ExpandedSecretKey::from_bytes(expanded.expose()));
        Self::Ed25519 { expanded, public_key }
    }

    /// The key's curve.
    pub(crate) const fn curve(&self) -> Curve {
        match self {
            Self::Secp256k1 { .. } => Curve::Secp256k1,
            Self::Ed25519 { .. } => Curve::Ed25519,
        }
    }

    /// The public key as the record has it.
    pub(crate) fn public_key(&self) -> PublicKey {
        let bytes: &[u8] = match self {
            Self::Secp256k1 { public_key, .. } => public_key,
            Self::Ed25519 { public_key, .. } => public_key.as_bytes(),
        };
        PublicKey::try_from(bytes).unwrap_or_default()
    }

    /// Addresses by chain, for reading.
    pub(crate) fn addresses(&self) -> BTreeMap<String, String> {
        let (chain, address) = match self {
            Self::Secp256k1 { point, .. } => {
                let uncompressed = point.to_affine().to_sec1_point(false);
                let xy = uncompressed.as_bytes().last_chunk();
                ("ethereum", xy.map(addresses::ethereum).unwrap_or_default())
            }
            Self::Ed25519 { public_key, .. } => ("solana", addresses::solana(public_key.as_bytes())),
        };
        BTreeMap::from([(chain.to_owned(), address)])
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

fn compressed(point: &ProjectivePoint) -> Result<[u8; 33], NotAKey> {
    point.to_affine().to_sec1_point(true).as_bytes().try_into().map_err(|_| NotAKey)
}

/// Signs what was authorized and checks the signature before it is released.
pub(crate) fn sign(authorized: Authorized<'_>) -> Result<Signature, SignError> {
    let (key, scheme, payload) = authorized.into_parts();
    match (key, scheme) {
        (SigningKey::Secp256k1 { scalar, point, .. }, Scheme::Ecdsa) => {
            let digest = digest(&payload)?;
            on_wiped_stack(|| sign_ecdsa(scalar, point, &digest))
        }
        (SigningKey::Secp256k1 { scalar, .. }, Scheme::Bip340) => {
            let digest = digest(&payload)?;
            let mut auxiliary = [0; 32];
            // Fresh randomness only hardens the nonce (BIP-340, "Default Signing"); it does not make it.
            getrandom::fill(&mut auxiliary).map_err(|_| SignError::CheckFailed)?;
            on_wiped_stack(|| sign_bip340(scalar, &digest, &auxiliary))
        }
        (SigningKey::Ed25519 { expanded, public_key }, Scheme::Ed25519) => match payload {
            Payload::Message { message, hash: None } => on_wiped_stack(|| sign_ed25519(expanded, public_key, &message)),
            Payload::Message { .. } | Payload::Digest(_) => Err(SignError::PayloadInvalid),
        },
        (SigningKey::Secp256k1 { .. }, Scheme::Ed25519)
        | (SigningKey::Ed25519 { .. }, Scheme::Ecdsa | Scheme::Bip340) => Err(SignError::PayloadInvalid),
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

fn sign_ecdsa(scalar: &Secret<32>, point: &ProjectivePoint, digest: &[u8; 32]) -> Result<Signature, SignError> {
    let scalar = nonzero_scalar(scalar).ok_or(SignError::CheckFailed)?;
    let (signature, recovery_id) = ecdsa::hazmat::sign_prehashed_rfc6979::<Secp256k1, Sha256>(&scalar, digest, &[]);
    if !ecdsa_holds(point, digest, &signature, recovery_id) {
        return Err(SignError::CheckFailed);
    }
    // A reduced x (ids 2 and 3) has a probability of 2^-128 and no consumer that expects it.
    if recovery_id.is_x_reduced() {
        return Err(SignError::CheckFailed);
    }
    Ok(Signature { bytes: ByteArray(signature.to_bytes().into()), recovery_id: Some(u8::from(recovery_id.is_y_odd())) })
}

/// Verifies r‖s *and* the recovery id, for the price of a verification: both follow from the point
/// R' = (z/s)·G + (r/s)·Q (SEC 1 sections 4.1.4 and 4.1.6).
fn ecdsa_holds(
    point: &ProjectivePoint,
    digest: &[u8; 32],
    signature: &k256::ecdsa::Signature,
    recovery_id: RecoveryId,
) -> bool {
    let (r, s) = signature.split_scalars();
    if s.is_high().into() {
        return false;
    }
    let z = <Scalar as Reduce<FieldBytes>>::reduce(&FieldBytes::from(*digest));
    let s_inverse = *Invert::invert_vartime(&s);
    let ephemeral =
        ProjectivePoint::mul_by_generator_and_mul_add_vartime(&(z * s_inverse), &(*r * s_inverse), point).to_affine();
    <Scalar as Reduce<FieldBytes>>::reduce(&ephemeral.x()) == *r
        && bool::from(ephemeral.y_is_odd()) == recovery_id.is_y_odd()
}

fn sign_bip340(scalar: &Secret<32>, message: &[u8; 32], auxiliary: &[u8; 32]) -> Result<Signature, SignError> {
    let key = schnorr::SigningKey::from(nonzero_scalar(scalar).ok_or(SignError::CheckFailed)?);
    let signature = key.sign_raw(message, auxiliary).map_err(|_| SignError::CheckFailed)?;
    key.verifying_key().verify_raw(message, &signature).map_err(|_| SignError::CheckFailed)?;
    Ok(Signature { bytes: ByteArray(signature.to_bytes()), recovery_id: None })
}

fn sign_ed25519(
    expanded: &Secret<64>,
    public_key: &ed25519_dalek::VerifyingKey,
    message: &[u8],
) -> Result<Signature, SignError> {
    let signature = raw_sign::<Sha512>(&ExpandedSecretKey::from_bytes(expanded.expose()), message, public_key);
    public_key.verify_strict(message, &signature).map_err(|_| SignError::CheckFailed)?;
    Ok(Signature { bytes: ByteArray(signature.to_bytes()), recovery_id: None })
}

fn nonzero_scalar(bytes: &Secret<32>) -> Option<NonZeroScalar> {
    NonZeroScalar::from_repr((*bytes.expose()).into()).into_option()
}

#[cfg(test)]
mod tests;
