//! Schnorr signatures of BIP-340 over 32 bytes, one or many at one time: many share the wiping of the stack, and
//! nothing else.

use k256::elliptic_curve::point::AffineCoordinates;
use k256::elliptic_curve::{CurveAffine, PrimeField};
use k256::{ProjectivePoint, Scalar};
use sha2::{Digest, Sha256};
use strongroom_protocol::{ByteArray, Signature};

use super::public_point::sum;
use super::secp256k1::{Item, Key, reduced};
use super::{SignError, digest};
use crate::secret::on_wiped_stack;

pub(super) fn sign(items: &[Item<'_>]) -> Vec<Result<Signature, SignError>> {
    if items.is_empty() {
        return Vec::new();
    }
    let mut auxiliary = vec![[0; 32]; items.len()];
    // Fresh randomness only hardens the nonce (BIP-340, "Default Signing"); it does not make it.
    if getrandom::fill(auxiliary.as_flattened_mut()).is_err() {
        return items.iter().map(|_| Err(SignError::CheckFailed)).collect();
    }
    let made: Vec<_> = on_wiped_stack(|| {
        items.iter().zip(&auxiliary).map(|(item, auxiliary)| make(item.key, &item.digest, auxiliary)).collect()
    });
    items.iter().zip(made).map(|(item, made)| release(item, made.ok_or(SignError::CheckFailed)?)).collect()
}

/// The signature, if it holds for the payload as it is now.
fn release(item: &Item<'_>, made: [u8; 64]) -> Result<Signature, SignError> {
    if !holds(item.key, &digest(item.payload)?, &made) {
        return Err(SignError::CheckFailed);
    }
    Ok(Signature { bytes: ByteArray(made), recovery_id: None })
}

/// None with a probability of 2^-255. The caller wipes the stack.
pub(super) fn make(key: &Key, message: &[u8; 32], auxiliary: &[u8; 32]) -> Option<[u8; 64]> {
    key.schnorr()?.sign_raw(message, auxiliary).ok().map(|signature| signature.to_bytes())
}

/// "Verification" of BIP-340: s·G - e·P has an even y and the x that is r. Twice, by tables and without, as ECDSA does.
pub(super) fn holds(key: &Key, message: &[u8; 32], signature: &[u8; 64]) -> bool {
    let ([r, s], []) = signature.as_chunks::<32>() else { return false };
    let Some(s) = Scalar::from_repr((*s).into()).into_option() else { return false };
    let [parity, x @ ..] = key.public_key();
    let e = reduced(&challenge(r, x, message).into());
    // P is the point whose y is even: the key's, or its negative (SEC 1: an odd y is 3).
    let scalar = if *parity == 3 { e } else { -e };
    let is_r = |point: ProjectivePoint| {
        let point = point.to_affine();
        !bool::from(point.y_is_odd()) && *point.x() == *r && !bool::from(point.is_identity())
    };
    is_r(sum(s, &[(key.point(), scalar)])) || is_r(key.point().plain_sum(&s, &scalar))
}

/// The hash that BIP-340 tags "BIP0340/challenge".
fn challenge(r: &[u8; 32], x: &[u8; 32], message: &[u8; 32]) -> [u8; 32] {
    let tag = Sha256::digest(b"BIP0340/challenge");
    let hash = Sha256::new().chain_update(tag).chain_update(tag);
    hash.chain_update(r).chain_update(x).chain_update(message).finalize().into()
}
