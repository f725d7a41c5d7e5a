//! HPKE (RFC 9180) on a custodian's machine: seals a key to an enclave's import key, and opens what an enclave sealed
//! to a recipient. The form is the enclave's (`enclave/src/hpke.rs`): base mode, DHKEM(X25519, HKDF-SHA256),
//! HKDF-SHA256, ChaCha20-Poly1305, empty `aad`.

use hpke::aead::{AeadTag, ChaCha20Poly1305};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{
    Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable, single_shot_open_inout_detached,
    single_shot_seal_inout_detached,
};
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::pem::PemLabel as _;
use pkcs8::{AlgorithmIdentifierRef, LineEnding, ObjectIdentifier, PrivateKeyInfoRef, SecretDocument};
use strongroom_protocol::{ByteArray, HpkePublicKey, SealedKey};
use zeroize::Zeroizing;

use super::KeyMaterial;

/// The private key of somebody who receives exported keys.
pub(in crate::cli) struct RecipientKey(KeyMaterial);

/// Why nothing was sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum SealError {
    /// The receiver's public key is none.
    #[error("nothing can be sealed to this public key")]
    PublicKey,
    /// It was sealed to another key, or for other facts than the ones that are said of it.
    #[error("it was sealed to another recipient, or something in it was changed")]
    Refused,
    /// The recipient's file.
    #[error("not the private key of a recipient: that is an X25519 key in PEM (PRIVATE KEY, PKCS#8), not encrypted")]
    RecipientKey,
}

/// Seals a key to `public_key` for `info`.
pub(in crate::cli) fn seal(
    public_key: &HpkePublicKey,
    info: &[u8],
    material: &KeyMaterial,
) -> Result<SealedKey, SealError> {
    let public_key = PublicKey::from_bytes(&**public_key).map_err(|_| SealError::PublicKey)?;
    let mut sealed = vec![0; material.expose().len()];
    let buffer = InOutBuf::new(material.expose(), &mut sealed).map_err(|_| SealError::PublicKey)?;
    let (enc, tag) = single_shot_seal_inout_detached::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public_key,
        info,
        buffer,
        &[],
    )
    .map_err(|_| SealError::PublicKey)?;
    sealed.extend_from_slice(&tag.to_bytes());
    let ciphertext = sealed.try_into().map_err(|_| SealError::Refused)?;
    Ok(SealedKey { encapsulated_key: ByteArray(enc.to_bytes().into()), ciphertext })
}

impl RecipientKey {
    /// A new one.
    ///
    /// # Errors
    /// This machine's: no randomness.
    pub(in crate::cli) fn generate() -> Result<Self, getrandom::Error> {
        KeyMaterial::fill(32, getrandom::fill).map(Self)
    }

    /// Reads the file that [`Self::to_pem`] or `openssl genpkey -algorithm X25519` wrote (RFC 8410).
    ///
    /// # Errors
    /// [`SealError::RecipientKey`].
    pub(in crate::cli) fn from_pem(pem: &str) -> Result<Self, SealError> {
        let (label, document) = SecretDocument::from_pem(pem).map_err(|_| SealError::RecipientKey)?;
        let info: PrivateKeyInfoRef<'_> = document.decode_msg().map_err(|_| SealError::RecipientKey)?;
        let key = match info.private_key.as_bytes() {
            [OCTET_STRING, 32, key @ ..] if key.len() == 32 => key,
            _ => return Err(SealError::RecipientKey),
        };
        if label != PrivateKeyInfoRef::PEM_LABEL || info.algorithm != X25519 {
            return Err(SealError::RecipientKey);
        }
        Ok(Self(KeyMaterial::from(key)))
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never: a key of this length always encodes.
    pub(in crate::cli) fn to_pem(&self) -> Result<Zeroizing<String>, pkcs8::Error> {
        let mut inner = Zeroizing::new(vec![OCTET_STRING, 32]);
        inner.extend_from_slice(self.0.expose());
        let info = PrivateKeyInfoRef::new(X25519, OctetStringRef::new(&inner)?);
        let document = SecretDocument::encode_msg(&info)?;
        Ok(document.to_pem(PrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)?)
    }

    /// What enclaves seal to: the `public_key` of a configuration's recipient.
    ///
    /// # Errors
    /// [`SealError::RecipientKey`].
    pub(in crate::cli) fn public_key(&self) -> Result<HpkePublicKey, SealError> {
        let public_key = X25519HkdfSha256::sk_to_pk(&self.private()?);
        Ok(ByteArray(public_key.to_bytes().into()))
    }

    /// Opens a key that was sealed to this recipient for `info`.
    ///
    /// # Errors
    /// [`SealError::Refused`].
    pub(in crate::cli) fn open(&self, info: &[u8], sealed: &SealedKey) -> Result<KeyMaterial, SealError> {
        self.open_with(info, &[], &*sealed.encapsulated_key, &sealed.ciphertext)
    }

    fn open_with(&self, info: &[u8], aad: &[u8], enc: &[u8], sealed: &[u8]) -> Result<KeyMaterial, SealError> {
        let private = self.private()?;
        let (body, tag) = sealed.split_last_chunk::<TAG>().ok_or(SealError::Refused)?;
        let opened = KeyMaterial::fill(body.len(), |opened| {
            opened.copy_from_slice(body);
            single_shot_open_inout_detached::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
                &OpModeR::Base,
                &private,
                &<X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(enc)?,
                info,
                InOutBuf::from(opened),
                aad,
                &AeadTag::from_bytes(tag)?,
            )
        });
        opened.map_err(|_: HpkeError| SealError::Refused)
    }

    fn private(&self) -> Result<PrivateKey, SealError> {
        PrivateKey::from_bytes(self.0.expose()).map_err(|_| SealError::RecipientKey)
    }
}

type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;

const TAG: usize = 16;

/// DER's tag: the key is an OCTET STRING within one (RFC 8410 section 7).
const OCTET_STRING: u8 = 4;

/// id-X25519, without parameters (RFC 8410 section 3).
const X25519: AlgorithmIdentifierRef<'static> =
    AlgorithmIdentifierRef { oid: ObjectIdentifier::new_unwrap("1.3.101.110"), parameters: None };

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// RFC 9180, appendix A.2: the recipient's key of this suite.
    const RFC_9180: &str = "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb";

    fn recipient(digits: &str) -> RecipientKey {
        RecipientKey(KeyMaterial::from(&hex::decode(digits).expect("hex")[..]))
    }

    fn material() -> KeyMaterial {
        let Ok(material) = KeyMaterial::fill(32, |bytes| {
            bytes.fill(5);
            Ok::<(), Infallible>(())
        });
        material
    }

    #[test]
    fn the_public_key_is_that_of_rfc_9180() {
        let public_key = "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a";
        assert_eq!(hex::encode(recipient(RFC_9180).public_key().expect("a key").0), public_key);
    }

    /// RFC 9180, appendix A.2.1: the first message to that key.
    #[test]
    fn the_message_of_rfc_9180_opens() {
        let bytes = |digits: &str| hex::decode(digits).expect("hex");
        let enc = bytes("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
        let sealed =
            bytes("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28");
        let opened = recipient(RFC_9180).open_with(b"Ode on a Grecian Urn", b"Count-0", &enc, &sealed).expect("opens");
        assert_eq!(opened.expose(), b"Beauty is truth, truth beauty");
    }

    #[test]
    fn what_is_sealed_opens_for_its_recipient_and_info_only() {
        let key = recipient(RFC_9180);
        let sealed = seal(&key.public_key().expect("a key"), b"info", &material()).expect("seals");
        assert_eq!(key.open(b"info", &sealed).expect("opens").expose(), [5; 32]);
        assert_eq!(key.open(b"Info", &sealed).err(), Some(SealError::Refused));
        assert_eq!(recipient(&"11".repeat(32)).open(b"info", &sealed).err(), Some(SealError::Refused));
        let another = seal(&key.public_key().expect("a key"), b"info", &material()).expect("seals");
        assert_ne!(sealed, another, "each seal has an ephemeral key of its own");
        assert_eq!(seal(&ByteArray([0; 32]), b"info", &material()), Err(SealError::PublicKey));
    }

    #[test]
    fn the_recipients_file_is_the_one_that_openssl_writes() {
        // openssl genpkey -algorithm X25519, with the key of RFC 9180.
        let der = hex::decode(format!("302e020100300506032b656e04220420{RFC_9180}")).expect("hex");
        let pem = recipient(RFC_9180).to_pem().expect("encodes");
        let (label, document) = SecretDocument::from_pem(&pem).expect("PEM");
        assert_eq!((label, document.as_bytes()), ("PRIVATE KEY", &der[..]));
        let read = RecipientKey::from_pem(&pem).expect("a recipient's");
        assert_eq!(read.public_key(), recipient(RFC_9180).public_key());
        let ed25519 = SecretDocument::try_from(&*[&der[..11], &[0x70], &der[12..]].concat()).expect("DER");
        let ed25519 = ed25519.to_pem("PRIVATE KEY", LineEnding::LF).expect("encodes");
        for (name, pem) in
            [("another_algorithm", &**ed25519), ("another_label", &pem.replace("PRIVATE", "PUBLIC")), ("no_pem", "")]
        {
            assert_eq!(RecipientKey::from_pem(pem).err(), Some(SealError::RecipientKey), "{name}");
        }
    }
}
