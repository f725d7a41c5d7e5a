//! The seal on a stored key: AES-256-GCM under a data key from an attested `GenerateDataKey`, with
//! the binding as additional data. Whatever opens was made by an admitted enclave for these facts.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use strongroom_protocol::Binding;

use crate::secret::{KeyMaterial, Secret, on_wiped_stack};

const TAG: usize = 16;

/// A box that does not open: changed, sealed for other facts, or under another data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed key does not open")]
pub(crate) struct SealBroken;

/// Seals a key's secret bytes: nonce ‖ sealed bytes ‖ tag. A data key seals once, so `nonce` needs only
/// to be fresh.
pub(crate) fn seal(
    data_key: &Secret<32>,
    nonce: [u8; NONCE_LEN],
    binding: &Binding,
    secret: &KeyMaterial,
) -> Result<Vec<u8>, SealBroken> {
    let secret = secret.expose();
    let mut sealed = vec![0; NONCE_LEN + secret.len() + TAG];
    let (head, rest) = sealed.split_at_mut_checked(NONCE_LEN).ok_or(SealBroken)?;
    let (body, tail) = rest.split_at_mut_checked(secret.len()).ok_or(SealBroken)?;
    head.copy_from_slice(&nonce);
    body.copy_from_slice(secret);
    on_wiped_stack(|| {
        let tag = key(data_key)?.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(binding.as_aad()),
            body,
        )?;
        tail.copy_from_slice(tag.as_ref());
        Ok(())
    })
    .map_err(|Unspecified| SealBroken)?;
    Ok(sealed)
}

/// Opens what [`seal`] made, straight into the secret's final place. `sealed` is bounded by the record.
pub(crate) fn open(data_key: &Secret<32>, binding: &Binding, sealed: &[u8]) -> Result<KeyMaterial, SealBroken> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealBroken)?;
    let (body, tag) = rest.split_last_chunk::<TAG>().ok_or(SealBroken)?;
    KeyMaterial::fill(body.len(), |secret| {
        on_wiped_stack(|| {
            key(data_key)?.open_separate_gather(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(binding.as_aad()),
                body,
                tag,
                secret,
            )
        })
    })
    .map_err(|Unspecified| SealBroken)
}

fn key(data_key: &Secret<32>) -> Result<LessSafeKey, Unspecified> {
    UnboundKey::new(&AES_256_GCM, data_key.expose()).map(LessSafeKey::new)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use strongroom_protocol::{Algorithm, Origin, Policy};

    use super::*;

    fn data_key(byte: u8) -> Secret<32> {
        let Ok(secret) = Secret::fill(|bytes| {
            bytes.fill(byte);
            Ok::<(), Infallible>(())
        });
        secret
    }

    fn binding(name: &str) -> Binding {
        let key_id = name.parse().expect("valid");
        Binding::new(&key_id, Algorithm::Ed25519, &[1; 32], Origin::Generated, &Policy::default())
    }

    #[test]
    fn a_seal_opens_for_its_binding_and_data_key_only() {
        let secret = KeyMaterial::from(&data_key(2));
        let sealed = seal(&data_key(1), [9; 12], &binding("a"), &secret).expect("seals");
        assert_eq!(open(&data_key(1), &binding("a"), &sealed).expect("opens").expose(), &[2; 32]);
        assert!(open(&data_key(3), &binding("a"), &sealed).is_err(), "another data key");
        assert!(open(&data_key(1), &binding("b"), &sealed).is_err(), "another binding");
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(open(&data_key(1), &binding("a"), &changed).is_err(), "bit flipped at {position}");
        }
        for length in 0..sealed.len() {
            assert!(open(&data_key(1), &binding("a"), &sealed[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_secret_comes_out_as_long_as_it_went_in() {
        for length in 16..=64 {
            let Ok(secret) = KeyMaterial::fill(length, |bytes| {
                bytes.fill(5);
                Ok::<(), Infallible>(())
            });
            let sealed = seal(&data_key(1), [9; 12], &binding("a"), &secret).expect("seals");
            assert_eq!(sealed.len(), 12 + length + 16);
            assert_eq!(open(&data_key(1), &binding("a"), &sealed).expect("opens").expose(), vec![5; length]);
        }
    }

    /// Made by another implementation (Python's `cryptography`): records that exist open as before.
    #[test]
    fn the_form_of_a_sealed_plain_key_is_fixed() {
        let sealed = hex::decode("090909090909090909090909c60d25cccc3204c37d56484dacdf87159bc57cf8369d36e4355a324bec55fdffc6750881fe0f450a6343cd8aa562167a").expect("hex");
        assert_eq!(open(&data_key(1), &binding("a"), &sealed).expect("opens").expose(), &[2; 32]);
        let secret = KeyMaterial::from(&data_key(2));
        assert_eq!(seal(&data_key(1), [9; 12], &binding("a"), &secret).expect("seals"), sealed);
    }
}
