//! The seal on a stored key: AES-256-GCM under a data key from an attested `GenerateDataKey`, with
//! the binding as additional data. Whatever opens was made by an admitted enclave for these facts.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use strongroom_protocol::Binding;

use crate::secret::{Secret, on_wiped_stack};

const TAG: usize = 16;
const KEY: usize = 32;

/// A box that does not open: changed, sealed for other facts, or under another data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed key does not open")]
pub(crate) struct SealBroken;

/// Seals a key's 32 secret bytes: nonce ‖ sealed bytes ‖ tag. A data key seals once, so `nonce` needs
/// only to be fresh.
pub(crate) fn seal(
    data_key: &Secret<32>,
    nonce: [u8; NONCE_LEN],
    binding: &Binding,
    secret: &Secret<KEY>,
) -> Result<Vec<u8>, SealBroken> {
    let mut sealed = vec![0; NONCE_LEN + KEY + TAG];
    let (head, rest) = sealed.split_at_mut_checked(NONCE_LEN).ok_or(SealBroken)?;
    let (body, tail) = rest.split_at_mut_checked(KEY).ok_or(SealBroken)?;
    head.copy_from_slice(&nonce);
    body.copy_from_slice(secret.expose());
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

/// Opens what [`seal`] made, straight into the secret's final place.
pub(crate) fn open(data_key: &Secret<32>, binding: &Binding, sealed: &[u8]) -> Result<Secret<KEY>, SealBroken> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealBroken)?;
    let (body, tag) = rest.split_last_chunk::<TAG>().ok_or(SealBroken)?;
    if body.len() != KEY {
        return Err(SealBroken);
    }
    Secret::fill(|secret| {
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

    fn secret(byte: u8) -> Secret<32> {
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
        let sealed = seal(&secret(1), [9; 12], &binding("a"), &secret(2)).expect("seals");
        assert_eq!(open(&secret(1), &binding("a"), &sealed).expect("opens").expose(), &[2; 32]);
        assert!(open(&secret(3), &binding("a"), &sealed).is_err(), "another data key");
        assert!(open(&secret(1), &binding("b"), &sealed).is_err(), "another binding");
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(open(&secret(1), &binding("a"), &changed).is_err(), "bit flipped at {position}");
        }
        for length in 0..sealed.len() {
            assert!(open(&secret(1), &binding("a"), &sealed[..length]).is_err(), "cut to {length}");
        }
    }
}
