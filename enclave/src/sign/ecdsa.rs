//! ECDSA over secp256k1 (SEC 1 section 4.1; nonces of RFC 6979; low s), for one or many at one time, of one key or of
//! many: together they share the two inversions that each needs, and the check.
//!
//! What is made is, byte for byte, what `ecdsa::hazmat` makes of each alone.

use k256::ecdsa::Signature as RawSignature;
use k256::elliptic_curve::ff::BatchInverter;
use k256::elliptic_curve::point::AffineCoordinates;
use k256::elliptic_curve::scalar::IsHigh;
use k256::elliptic_curve::{BatchNormalize, Curve, PrimeField};
use k256::{AffinePoint, FieldBytes, ProjectivePoint, Scalar, Secp256k1, U256};
use rfc6979::KGenerator;
use sha2::Sha256;
use strongroom_protocol::{ByteArray, Signature};
use wnaf::array::typenum::U5;
use wnaf::{WnafBase, WnafScalar};
use zeroize::Zeroizing;

use super::public_point::{PublicPoint, sum};
use super::secp256k1::{Item, reduced};
use super::{SignError, digest};
use crate::secret::on_wiped_stack;

/// Signs all, releases those that hold.
pub(super) fn sign(items: &[Item<'_>]) -> Vec<Result<Signature, SignError>> {
    if items.is_empty() {
        return Vec::new();
    }
    let made = on_wiped_stack(|| make(items));
    release(items, &made)
}

/// A signature, and the y of the point that it claims to come from: the rest of that point is in it.
#[derive(Clone)]
struct Made {
    signature: Signature,
    y: FieldBytes,
}

/// None where there is no signature: r or s is zero, or r is not x (recovery ids 2 and 3), which has a probability of
/// 2^-127 and no consumer that expects it. All that knows a nonce is on the stack, which the caller wipes, or wipes
/// itself.
fn make(items: &[Item<'_>]) -> Vec<Option<Made>> {
    let mut nonces: Zeroizing<Vec<Scalar>> = Zeroizing::new(items.iter().map(nonce).collect());
    // The z of these tells about the nonce what the affine points do not.
    let points: Zeroizing<Vec<_>> = Zeroizing::new(nonces.iter().map(ProjectivePoint::mul_by_generator).collect());
    let points = ProjectivePoint::batch_normalize(points.as_slice());
    let mut scratch = Zeroizing::new(vec![Scalar::ZERO; nonces.len()]);
    BatchInverter::invert_with_external_scratch(&mut nonces, &mut scratch);
    items.iter().zip(nonces.iter()).zip(&points).map(|((item, inverse), point)| finish(item, inverse, point)).collect()
}

/// Zero, which no signature comes from, if memory is no longer what it was.
fn nonce(item: &Item<'_>) -> Scalar {
    let Some(scalar) = item.key.scalar() else { return Scalar::ZERO };
    let scalar = Zeroizing::new(scalar.to_repr());
    let mut nonce = Zeroizing::new(FieldBytes::default());
    KGenerator::<Sha256, U256>::new(&scalar, &item.digest, &[], &Secp256k1::ORDER).fill_next_k(&mut nonce);
    Scalar::from_repr(*nonce).into_option().unwrap_or(Scalar::ZERO)
}

/// s = k⁻¹(z + r·d), the lower of s and -s, and with -s the point is the other one.
fn finish(item: &Item<'_>, inverse: &Scalar, point: &AffinePoint) -> Option<Made> {
    let r = reduced(&point.x());
    let s = inverse * &(reduced(&item.digest.into()) + r * *item.key.scalar()?);
    if r.to_repr() != point.x() {
        return None;
    }
    let point = if s.is_high().into() { -*point } else { *point };
    let bytes = RawSignature::from_scalars(r, s).ok()?.normalize_s().to_bytes();
    let signature = Signature { bytes: ByteArray(bytes.into()), recovery_id: Some(point.y_is_odd().unwrap_u8()) };
    Some(Made { signature, y: point.y() })
}

/// The signatures that hold: all by one equation if they do, or each by its own.
fn release(items: &[Item<'_>], made: &[Option<Made>]) -> Vec<Result<Signature, SignError>> {
    let claims: Vec<_> = items.iter().zip(made).map(|(item, made)| Claim::read(item, made.as_ref()?)).collect();
    let readable: Vec<&Claim<'_>> = claims.iter().flatten().collect();
    let together = all_hold(&readable);
    let released = made.iter().zip(&claims).map(|(made, claim)| {
        let holds = claim.as_ref().is_some_and(|claim| together || claim.holds());
        made.as_ref().filter(|_| holds).map(|made| made.signature).ok_or(SignError::CheckFailed)
    });
    released.collect()
}

/// What a signature and its recovery id say: that s⁻¹·z·G + s⁻¹·r·Q is the point R whose x is r and whose y is odd or
/// even (SEC 1 sections 4.1.4 and 4.1.6). Read from the bytes that would be released and from what was asked for.
struct Claim<'a> {
    key: &'a PublicPoint,
    z: Scalar,
    r: Scalar,
    s: Scalar,
    point: AffinePoint,
}

impl<'a> Claim<'a> {
    /// None if that cannot be true: r or s is out of range, s is high, R is not on the curve, or the recovery id is
    /// that of -R.
    fn read(item: &Item<'a>, made: &Made) -> Option<Self> {
        let raw = RawSignature::from_slice(&*made.signature.bytes).ok()?;
        let (r, s) = raw.split_scalars();
        let point = AffinePoint::from_coordinates(&r.to_repr(), &made.y).into_option()?;
        let same_y = made.signature.recovery_id == Some(point.y_is_odd().unwrap_u8());
        let z = reduced(&digest(item.payload).ok()?.into());
        let claim = Self { key: item.key.point(), z, r: *r, s: *s, point };
        (same_y && !bool::from(s.is_high())).then_some(claim)
    }

    /// By k256 alone, without any table of ours.
    fn holds(&self) -> bool {
        self.s.invert_vartime().into_option().is_some_and(|inverse| {
            self.key.plain_sum(&(self.z * inverse), &(self.r * inverse)).eq_affine(&self.point).into()
        })
    }
}

/// Whether Σ a·(s⁻¹·z·G + s⁻¹·r·Q) = Σ a·R for coefficients a that nobody could know when the signatures were made: if
/// one of them is not what it claims, this holds with a probability of 2^-128. The coefficient of a single one is 1.
/// False tells nothing yet.
fn all_hold(claims: &[&Claim<'_>]) -> bool {
    let mut coefficients = vec![[0; 16]; claims.len()];
    if let [only] = coefficients.as_mut_slice() {
        *only = 1_u128.to_le_bytes();
    } else if getrandom::fill(coefficients.as_flattened_mut()).is_err() {
        return false;
    }
    let mut inverses: Vec<Scalar> = claims.iter().map(|claim| claim.s).collect();
    let mut scratch = vec![Scalar::ZERO; claims.len()];
    BatchInverter::invert_with_external_scratch(&mut inverses, &mut scratch);

    let mut generator = Scalar::ZERO;
    let mut keys: Vec<(&PublicPoint, Scalar)> = Vec::new();
    for ((claim, inverse), coefficient) in claims.iter().zip(&inverses).zip(&coefficients) {
        let factor = Scalar::from(u128::from_le_bytes(*coefficient)) * inverse;
        generator += factor * claim.z;
        let scalar = factor * claim.r;
        match keys.iter_mut().find(|(key, _)| std::ptr::eq(*key, claim.key)) {
            Some((_, sum)) => *sum += scalar,
            None => keys.push((claim.key, scalar)),
        }
    }
    let left = sum(generator, &keys);
    match claims {
        [only] => left.eq_affine(&only.point).into(),
        many => left == weighted(many, &coefficients),
    }
}

/// Σ a·R.
fn weighted(claims: &[&Claim<'_>], coefficients: &[[u8; 16]]) -> ProjectivePoint {
    let terms = claims.iter().zip(coefficients).map(|(claim, coefficient)| {
        let base = WnafBase::<ProjectivePoint, U5>::new(&claim.point.into());
        (base, WnafScalar::from_le_bytes(coefficient))
    });
    let terms: Vec<_> = terms.collect();
    WnafBase::multiscalar_mul(terms.iter().map(|(base, scalar)| (base, scalar)))
}

#[cfg(test)]
mod tests;
