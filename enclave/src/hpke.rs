//! HPKE (RFC 9180) in the one form that keys travel in: base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
//! ChaCha20-Poly1305, empty `aad`. The only code that names the `hpke` crate; what a key is sealed for is
//! `strongroom_protocol::custody`'s matter, and who may have one sealed `custody.rs`'s.

use std::convert::Infallible;

use ::hpke::aead::{AeadTag, ChaCha20Poly1305};
use ::hpke::inout::InOutBuf;
use ::hpke::kdf::HkdfSha256;
use ::hpke::kem::X25519HkdfSha256;
use ::hpke::rand_core::{TryCryptoRng, TryRng};
use ::hpke::{
    Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable, single_shot_open_inout_detached,
    single_shot_seal_inout_detached_with_rng,
};
use sha2::{Digest, Sha256};
use strongroom_protocol::{ByteArray, HpkePublicKey, SealedKey};

use crate::secret::{KeyMaterial, Secret, on_wiped_stack};

/// A key pair that others seal to, as the secret that it is derived from (RFC 9180 section 7.1.3).
pub(crate) struct KeyPair(Secret<32>);

/// What was sealed does not open, or is not of this form. One error for all reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed key does not open")]
pub(crate) struct SealRefused;

/// Not a public key that anything can be sealed to: a point of small order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an X25519 public key of a recipient")]
pub(crate) struct InvalidRecipient;

impl KeyPair {
    /// The pair that follows from this entropy.
    pub(crate) const fn new(entropy: Secret<32>) -> Self {
        Self(entropy)
    }

    /// What others seal to.
    pub(crate) fn public_key(&self) -> HpkePublicKey {
        on_wiped_stack(|| {
            let (_, public) = X25519HkdfSha256::derive_keypair(self.0.expose());
            ByteArray(public.to_bytes().into())
        })
    }

    /// Opens a key that was sealed to this pair for `info`, straight into its final place.
    pub(crate) fn open(&self, info: &[u8], sealed: &SealedKey) -> Result<KeyMaterial, SealRefused> {
        self.open_with(info, &[], &*sealed.encapsulated_key, &sealed.ciphertext)
    }

    fn open_with(&self, info: &[u8], aad: &[u8], enc: &[u8], sealed: &[u8]) -> Result<KeyMaterial, SealRefused> {
        let (body, tag) = sealed.split_last_chunk::<TAG>().ok_or(SealRefused)?;
        KeyMaterial::fill(body.len(), |opened| {
            opened.copy_from_slice(body);
            on_wiped_stack(|| {
                let (private, _) = X25519HkdfSha256::derive_keypair(self.0.expose());
                single_shot_open_inout_detached::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
                    &OpModeR::Base,
                    &private,
                    &<X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(enc)?,
                    info,
                    InOutBuf::from(opened),
                    aad,
                    &AeadTag::from_bytes(tag)?,
                )
            })
        })
        .map_err(|_: HpkeError| SealRefused)
    }
}

/// Seals a key to `recipient` for `info`. `entropy` makes the ephemeral key and serves once.
pub(crate) fn seal(
    recipient: &HpkePublicKey,
    info: &[u8],
    material: &KeyMaterial,
    entropy: Secret<32>,
) -> Result<SealedKey, InvalidRecipient> {
    let material = material.expose();
    let mut sealed = vec![0; material.len()];
    let (enc, tag) = on_wiped_stack(|| {
        single_shot_seal_inout_detached_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &<X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&**recipient)?,
            info,
            InOutBuf::new(material, &mut sealed).map_err(|_| HpkeError::SealError)?,
            &[],
            &mut Expanded { entropy, blocks: 0 },
        )
    })
    .map_err(|_| InvalidRecipient)?;
    sealed.extend_from_slice(&tag.to_bytes());
    let ciphertext = sealed.try_into().map_err(|_| InvalidRecipient)?;
    Ok(SealedKey { encapsulated_key: ByteArray(enc.to_bytes().into()), ciphertext })
}

/// Whether anything can be sealed to this public key.
pub(crate) fn check_recipient(recipient: &HpkePublicKey) -> Result<(), InvalidRecipient> {
    let Ok(nothing) = KeyMaterial::fill(1, |_| Ok::<(), Infallible>(()));
    seal(recipient, &[], &nothing, Secret::from(&[0; 32])).map(|_| ())
}

const TAG: usize = 16;

/// Random bytes for one ephemeral key: SHA-256 over the entropy and a block number. The crate wants a generator
/// that cannot fail, and takes 32 bytes of it.
struct Expanded {
    entropy: Secret<32>,
    blocks: u64,
}

impl TryRng for Expanded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(32) {
            let block = Sha256::new()
                .chain_update(b"strongroom-ephemeral-v1")
                .chain_update(self.entropy.expose())
                .chain_update(self.blocks.to_be_bytes())
                .finalize();
            self.blocks = self.blocks.wrapping_add(1);
            chunk.iter_mut().zip(block).for_each(|(byte, random)| *byte = random);
        }
        Ok(())
    }
}

impl TryCryptoRng for Expanded {}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(digits: &str) -> [u8; N] {
        hex::decode(digits).expect("hex").try_into().expect("the length")
    }

    fn pair(byte: u8) -> KeyPair {
        KeyPair::new(Secret::from(&[byte; 32]))
    }

    fn material(length: usize) -> KeyMaterial {
        let Ok(material) = KeyMaterial::fill(length, |bytes| {
            bytes.fill(5);
            Ok::<(), Infallible>(())
        });
        material
    }

    /// RFC 9180, appendix A.2.1: this suite in base mode, the recipient's key pair and the first message.
    #[test]
    fn rfc_9180_vectors() {
        let entropy = bytes("1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df");
        let pair = KeyPair::new(Secret::from(&entropy));
        let public = bytes("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
        assert_eq!(pair.public_key(), ByteArray(public));
        let info = hex::decode("4f6465206f6e2061204772656369616e2055726e").expect("hex");
        let enc: [u8; 32] = bytes("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
        let sealed: [u8; 45] =
            bytes("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28");
        let opened = pair.open_with(&info, b"Count-0", &enc, &sealed).expect("opens");
        assert_eq!(opened.expose(), b"Beauty is truth, truth beauty");
    }

    #[test]
    fn a_sealed_key_opens_for_its_pair_and_info_only() {
        for length in [16, 32, 64] {
            let sealed =
                seal(&pair(1).public_key(), b"info", &material(length), Secret::from(&[9; 32])).expect("seals");
            assert_eq!(pair(1).open(b"info", &sealed).expect("opens").expose(), vec![5; length]);
            assert!(pair(2).open(b"info", &sealed).is_err(), "another pair");
            assert!(pair(1).open(b"Info", &sealed).is_err(), "another info");
            for position in 0..sealed.ciphertext.len() {
                let mut ciphertext = sealed.ciphertext.to_vec();
                ciphertext[position] ^= 1;
                let changed = SealedKey { ciphertext: ciphertext.try_into().expect("short"), ..sealed.clone() };
                assert!(pair(1).open(b"info", &changed).is_err(), "bit flipped at {position}");
            }
            for cut in 0..sealed.ciphertext.len() {
                let ciphertext = sealed.ciphertext[..cut].try_into().expect("short");
                let changed = SealedKey { ciphertext, ..sealed.clone() };
                assert!(pair(1).open(b"info", &changed).is_err(), "cut to {cut}");
            }
        }
    }

    #[test]
    fn every_seal_has_an_ephemeral_key_of_its_own() {
        let seal =
            |entropy: u8| seal(&pair(1).public_key(), b"", &material(32), Secret::from(&[entropy; 32])).expect("seals");
        assert_ne!(seal(1).encapsulated_key, seal(2).encapsulated_key);
        assert_ne!(seal(1).ciphertext, seal(2).ciphertext);
    }

    /// RFC 7748 section 6.1 and RFC 9180 section 7.1.4: the shared secret would be zero, whoever computes it.
    #[test]
    fn nothing_is_sealed_to_or_opened_from_points_of_small_order() {
        let eight = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
        for (name, point) in [("zero", [0; 32]), ("of_order_eight", bytes(eight))] {
            let point = ByteArray(point);
            assert_eq!(check_recipient(&point), Err(InvalidRecipient), "{name}");
            let sealed = SealedKey { encapsulated_key: point, ciphertext: vec![0; 48].try_into().expect("short") };
            assert!(pair(1).open(b"", &sealed).is_err(), "{name}");
        }
        assert_eq!(check_recipient(&pair(1).public_key()), Ok(()));
    }
}
