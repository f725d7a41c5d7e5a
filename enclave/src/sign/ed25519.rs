//! Ed25519 (RFC 8032), for one or many at one time, of one key or of many: each is made alone, together they are
//! checked.

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use curve25519_dalek::{EdwardsPoint, Scalar};
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature as RawSignature, Verifier, VerifyingKey};
use sha2::{Digest, Sha512};
use strongroom_protocol::{ByteArray, Signature};

use super::SignError;
use crate::secret::{Secret, on_wiped_stack};

/// SHA-512 of the seed (RFC 8032 section 5.1.5), and A.
pub(crate) struct Key {
    /// Scalar and prefix.
    expanded: Secret<64>,
    public_key: VerifyingKey,
}

/// What is to be signed.
pub(super) struct Item<'a> {
    pub(super) key: &'a Key,
    pub(super) message: &'a [u8],
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

/// Signs all, releases those that hold.
pub(super) fn sign(items: &[Item<'_>]) -> Vec<Result<Signature, SignError>> {
    if items.is_empty() {
        return Vec::new();
    }
    let made: Vec<_> = on_wiped_stack(|| items.iter().map(make).collect());
    release(items, &made)
}

fn make(Item { key, message }: &Item<'_>) -> RawSignature {
    raw_sign::<Sha512>(&ExpandedSecretKey::from_bytes(key.expanded.expose()), message, &key.public_key)
}

/// The signatures that hold: all by one equation if they do, or each by its own.
fn release(items: &[Item<'_>], made: &[RawSignature]) -> Vec<Result<Signature, SignError>> {
    let together = items.len() > 1 && all_hold(items, made) == Some(true);
    let released = items.iter().zip(made).map(|(item, made)| {
        let holds = !is_of_nonce_zero(made) && (together || item.key.public_key.verify(item.message, made).is_ok());
        let signature = Signature { bytes: ByteArray(made.to_bytes()), recovery_id: None };
        if holds { Ok(signature) } else { Err(SignError::CheckFailed) }
    });
    released.collect()
}

/// R is the neutral element. Everything else that makes verification strict is so by itself where the key is ours: A
/// has the full order, and so has every other R that comes from it and S.
fn is_of_nonce_zero(signature: &RawSignature) -> bool {
    let [first, rest @ ..] = signature.r_bytes();
    *first == 1 && rest.iter().all(|byte| *byte == 0)
}

/// Whether Σ a·(S·B - h·A - R) is neutral, for coefficients a that nobody could know when the signatures were made. If
/// one of them is not what it claims, this holds with a probability of 2^-128, or of one half at most if all that is
/// wrong is a point of small order in its R: there are seven, of which no fault knows. What is not true tells nothing
/// yet.
fn all_hold(items: &[Item<'_>], made: &[RawSignature]) -> Option<bool> {
    let mut coefficients = vec![[0; 16]; made.len()];
    getrandom::fill(coefficients.as_flattened_mut()).ok()?;
    let (mut scalars, mut points) = (Vec::with_capacity(made.len() + 2), Vec::with_capacity(made.len() + 2));
    let mut base = Scalar::ZERO;
    let mut keys: Vec<(&Key, Scalar)> = Vec::new();
    for ((Item { key, message }, made), coefficient) in items.iter().zip(made).zip(&coefficients) {
        let coefficient = Scalar::from(u128::from_le_bytes(*coefficient));
        let hash = Sha512::new().chain_update(made.r_bytes()).chain_update(key.public_key()).chain_update(message);
        let scalar = coefficient * Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        match keys.iter_mut().find(|(other, _)| std::ptr::eq(*other, *key)) {
            Some((_, sum)) => *sum += scalar,
            None => keys.push((key, scalar)),
        }
        base -= coefficient * Scalar::from_canonical_bytes(*made.s_bytes()).into_option()?;
        scalars.push(coefficient);
        points.push(CompressedEdwardsY(*made.r_bytes()).decompress()?);
    }
    for (key, scalar) in keys {
        scalars.push(scalar);
        points.push(key.public_key.to_edwards());
    }
    scalars.push(base);
    points.push(ED25519_BASEPOINT_POINT);
    Some(EdwardsPoint::vartime_multiscalar_mul(&scalars, &points).is_identity())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<Key> {
        (1..=3).map(|byte| Key::new(&Secret::from(&[byte; 32]))).collect()
    }

    /// Messages of many lengths, of one key after the other.
    fn items<'a>(keys: &'a [Key], messages: &'a [Vec<u8>]) -> Vec<Item<'a>> {
        messages.iter().zip(keys.iter().cycle()).map(|(message, key)| Item { key, message }).collect()
    }

    fn messages(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|length| vec![7; length]).collect()
    }

    #[test]
    fn groups_of_every_size_hold_and_are_what_each_is_alone() {
        let keys = keys();
        for size in (0..=66).chain([256]) {
            let messages = messages(size);
            let items = items(&keys, &messages);
            let made: Vec<_> = items.iter().map(make).collect();
            assert_eq!(all_hold(&items, &made), Some(true), "{size}");
            let alone = items.iter().map(|item| sign(&[Item { ..*item }]).remove(0));
            assert_eq!(sign(&items), alone.collect::<Vec<_>>(), "{size}");
            assert!(items.iter().zip(&made).all(|(i, made)| i.key.public_key.verify_strict(i.message, made).is_ok()));
        }
    }

    #[test]
    fn every_flipped_bit_is_caught_alone_and_in_a_group_and_spoils_no_other() {
        let keys = keys();
        for size in [1, 2, 5] {
            let messages = messages(size);
            let items = items(&keys, &messages);
            let made: Vec<_> = items.iter().map(make).collect();
            for bit in 0..512 {
                let mut bytes = made[size / 2].to_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let mut faulty = made.clone();
                faulty[size / 2] = RawSignature::from_bytes(&bytes);
                assert_ne!(all_hold(&items, &faulty), Some(true), "bit {bit} of {size}");
                let refused: Vec<_> = release(&items, &faulty).iter().map(Result::is_err).collect();
                assert_eq!(refused, (0..size).map(|at| at == size / 2).collect::<Vec<_>>(), "bit {bit} of {size}");
            }
        }
    }

    #[test]
    fn what_is_signed_by_another_key_or_over_another_message_is_refused() {
        let (keys, messages) = (keys(), messages(9));
        let items = items(&keys, &messages);
        let mut made: Vec<_> = items.iter().map(make).collect();
        made.swap(0, 3);
        made[4] = make(&Item { key: &keys[2], message: items[4].message });
        let refused: Vec<_> = release(&items, &made).iter().map(Result::is_err).collect();
        assert_eq!(refused, [true, false, false, true, true, false, false, false, false]);
    }

    /// S = h·a: valid, and the key to anybody who divides.
    #[test]
    fn a_nonce_of_zero_is_not_released() {
        let keys = keys();
        let item = Item { key: &keys[0], message: b"m" };
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let hash = Sha512::new().chain_update(&bytes[..32]).chain_update(item.key.public_key()).chain_update(b"m");
        let secret = ExpandedSecretKey::from_bytes(item.key.expanded.expose()).scalar;
        let s = Scalar::from_bytes_mod_order_wide(&hash.finalize().into()) * secret;
        bytes[32..].copy_from_slice(s.as_bytes());
        let signature = RawSignature::from_bytes(&bytes);
        assert!(item.key.public_key.verify(b"m", &signature).is_ok(), "it verifies");
        assert_eq!(release(&[item], &[signature]), [Err(SignError::CheckFailed)]);
    }
}
