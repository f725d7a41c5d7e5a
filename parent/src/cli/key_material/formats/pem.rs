//! Private keys in PEM (RFC 7468) as openssl writes them: `EC PRIVATE KEY` (SEC 1 appendix C.4, RFC 5915) and
//! `PRIVATE KEY` (PKCS#8: RFC 5208, RFC 5958; for ed25519 RFC 8410). Encrypted ones are openssl's to decrypt.

use pkcs8::der::Decode as _;
use pkcs8::der::asn1::{BitStringRef, OctetStringRef};
use pkcs8::der::pem::Decoder;
use pkcs8::{ObjectIdentifier, PrivateKeyInfoRef};
use sec1::{EcParameters, EcPrivateKey};
use strongroom_protocol::{Algorithm, Curve, PublicKey};
use zeroize::Zeroizing;

use super::super::{KeyMaterial, compressed_point};
use super::FormatError;

/// How a block begins.
pub(super) const BEGIN: &str = "-----BEGIN ";

/// Why a PEM file gave no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum PemError {
    /// Neither text nor DER is what its standard says.
    #[error("the PEM block is damaged, or in a form that openssl does not write")]
    Damaged,
    /// Nothing in it is secret.
    #[error("the PEM file has no private key: public keys, certificates and parameters are none")]
    NoPrivateKey,
    /// Which one is meant?
    #[error("the PEM file has more than one private key")]
    Several,
    /// RFC 5958 section 3, or the encryption of RFC 1421 that older openssl wrote.
    #[error("the key in the PEM file is encrypted: `openssl pkey -in FILE` decrypts it")]
    Encrypted,
    /// RSA, OpenSSH, and whatever else has a label of its own.
    #[error(
        "the PEM block is of a kind that is not read: it is EC PRIVATE KEY or PRIVATE KEY (as `openssl pkey` writes)"
    )]
    OtherLabel,
    /// P-256, RSA, the other curve of ours.
    #[error("the key in the PEM file is of another curve or kind than {0}")]
    OtherCurve(Algorithm),
    /// 32 bytes may be a key of several curves.
    #[error("the PEM block does not name its curve")]
    CurveNotNamed,
    /// Both curves' have 32 bytes.
    #[error("the private key in the PEM file is not 32 bytes long")]
    Length,
}

/// Reads the one private key in `text`. Where its public key stands beside it, it must be the key's.
pub(super) fn read(text: &str, algorithm: Algorithm) -> Result<KeyMaterial, FormatError> {
    let block = private_key(text)?;
    let der = block.decode()?;
    let key = match block.label {
        "EC PRIVATE KEY" => PrivateKey::from_sec1(&der)?,
        "PRIVATE KEY" => PrivateKey::from_pkcs8(&der)?,
        _ => return Err(PemError::OtherLabel.into()),
    };
    if key.curve != Some(algorithm.curve()) {
        return Err(PemError::OtherCurve(algorithm).into());
    }
    if key.secret.len() != 32 {
        return Err(PemError::Length.into());
    }
    let material = KeyMaterial::from(key.secret);
    let public_key = material.public_key(algorithm)?;
    let same = |encoded: &[u8]| as_in_records(algorithm.curve(), encoded).is_some_and(|other| other == public_key);
    if !key.public_keys.into_iter().flatten().all(same) {
        return Err(FormatError::OtherPublicKey);
    }
    Ok(material)
}

/// What the structures of both standards say of a key.
struct PrivateKey<'a> {
    /// `None`: another one, or no curve at all.
    curve: Option<Curve>,
    secret: &'a [u8],
    /// PKCS#8 has a place for it, and SEC 1 inside of PKCS#8 another.
    public_keys: [Option<&'a [u8]>; 2],
}

impl<'a> PrivateKey<'a> {
    fn from_sec1(der: &'a [u8]) -> Result<Self, PemError> {
        let key = EcPrivateKey::try_from(der).map_err(|_| PemError::Damaged)?;
        let named = key.parameters.and_then(EcParameters::named_curve).ok_or(PemError::CurveNotNamed)?;
        Ok(Self { curve: curve(named), secret: key.private_key, public_keys: [key.public_key, None] })
    }

    fn from_pkcs8(der: &'a [u8]) -> Result<Self, PemError> {
        let info = PrivateKeyInfoRef::try_from(der).map_err(|_| PemError::Damaged)?;
        let private_key: &'a [u8] = info.private_key.as_bytes();
        let public_key = info.public_key.as_ref().map(whole_bytes).transpose()?;
        match info.algorithm.oid {
            ED25519 => {
                let seed = <&OctetStringRef>::from_der(private_key).map_err(|_| PemError::Damaged)?;
                Ok(Self { curve: Some(Curve::Ed25519), secret: seed.as_bytes(), public_keys: [public_key, None] })
            }
            EC_PUBLIC_KEY => {
                let named = info.algorithm.parameters_oid().map_err(|_| PemError::CurveNotNamed)?;
                let key = EcPrivateKey::try_from(private_key).map_err(|_| PemError::Damaged)?;
                if key.parameters.and_then(EcParameters::named_curve).is_some_and(|inner| inner != named) {
                    return Err(PemError::Damaged);
                }
                Ok(Self { curve: curve(named), secret: key.private_key, public_keys: [public_key, key.public_key] })
            }
            _ => Ok(Self { curve: None, secret: &[], public_keys: [None, None] }),
        }
    }
}

/// id-Ed25519 (RFC 8410 section 3).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// id-ecPublicKey (RFC 5480 section 2.1.1).
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// secp256k1 (SEC 2 section A.2.1).
const SECP256K1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.10");

fn curve(named: ObjectIdentifier) -> Option<Curve> {
    (named == SECP256K1).then_some(Curve::Secp256k1)
}

fn whole_bytes<'a>(bits: &BitStringRef<'a>) -> Result<&'a [u8], PemError> {
    bits.as_bytes().ok_or(PemError::Damaged)
}

fn as_in_records(curve: Curve, public_key: &[u8]) -> Option<PublicKey> {
    match curve {
        Curve::Secp256k1 => compressed_point(public_key),
        Curve::Ed25519 => public_key.try_into().ok(),
    }
}

/// A block of a PEM file, from its `-----BEGIN` to its end.
#[derive(Clone, Copy)]
struct Block<'a> {
    label: &'a str,
    text: &'a str,
}

impl<'a> Block<'a> {
    /// The block that `text` begins with.
    fn at_start(text: &'a str) -> Option<Self> {
        let (label, _) = text.strip_prefix(BEGIN)?.split_once("-----")?;
        let end = format!("-----END {label}-----");
        let length = text.find(&end)? + end.len();
        Some(Self { label, text: text.get(..length)? })
    }

    fn is_private_key(&self) -> bool {
        self.label.ends_with("PRIVATE KEY")
    }

    fn is_encrypted(&self) -> bool {
        self.label.starts_with("ENCRYPTED ") || self.text.contains("\nProc-Type: 4,ENCRYPTED")
    }

    fn decode(&self) -> Result<Zeroizing<Vec<u8>>, PemError> {
        let mut decoder = Decoder::new_detect_wrap(self.text.as_bytes()).map_err(|_| PemError::Damaged)?;
        // Of its whole length from the beginning: a vector that grows leaves copies behind.
        let mut der = Zeroizing::new(vec![0; decoder.remaining_len()]);
        decoder.decode(&mut der).map_err(|_| PemError::Damaged)?;
        Ok(der)
    }
}

/// The one block with a private key. Others may stand beside it: `openssl ecparam -genkey` writes the curve's
/// parameters, `openssl pkcs12` certificates; and text between them means nothing (RFC 7468 section 2).
fn private_key(text: &str) -> Result<Block<'_>, PemError> {
    let starts = text.match_indices(BEGIN).filter_map(|(start, _)| text.get(start..));
    let blocks = starts.map(Block::at_start).collect::<Option<Vec<_>>>().ok_or(PemError::Damaged)?;
    let mut private_keys = blocks.into_iter().filter(Block::is_private_key);
    let block = private_keys.next().ok_or(PemError::NoPrivateKey)?;
    if private_keys.next().is_some() {
        return Err(PemError::Several);
    }
    if block.is_encrypted() { Err(PemError::Encrypted) } else { Ok(block) }
}
