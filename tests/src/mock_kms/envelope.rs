//! How KMS wraps a plaintext to an attested enclave: CMS EnvelopedData (RFC 5652) in BER, byte for
//! byte as AWS encodes it, in both of its forms. On demand it makes envelopes that a reader must
//! refuse or must not believe; it does not decide who deserves one.

use std::fmt;

use aws_lc_rs::cipher::{
    AES_256, AES_256_KEY_LEN, DecryptionContext, EncryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The enclave's RSA key, as its attestation document has it.
pub struct RecipientKey {
    key: OaepPublicEncryptingKey,
    /// SHA-256 of the SubjectPublicKeyInfo, DER.
    identifier: [u8; 32],
}

/// How the encrypted content is encoded. KMS sends either; a reader must take both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Form A: constructed, of indefinite length, in pieces of 1000 bytes.
    Constructed,
    /// Form B: primitive.
    Primitive,
}

/// What is wrong with an envelope, on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Defect {
    /// Well-formed, to the right key, around bytes of somebody else's choice: CMS has no signature.
    Forged,
    /// Its last byte is missing.
    Truncated,
    /// One byte follows its end.
    TrailingByte,
    /// Its content type is not EnvelopedData.
    ContentType,
    /// RSA-OAEP with SHA-1, declared and done.
    OaepHash,
    /// It has a second recipient.
    SecondRecipient,
    /// The content's padding is not PKCS #7.
    Padding,
}

impl RecipientKey {
    /// Reads a key; `None` if it is not the SubjectPublicKeyInfo of an RSA-2048 key, DER.
    #[must_use]
    pub fn read(spki: &[u8]) -> Option<Self> {
        let key = PublicEncryptingKey::from_der(spki).ok().filter(|key| key.key_size_bits() == 2048)?;
        // The library tolerates bytes after the end and other encodings; the identifier would be of all of it.
        let canonical: PublicKeyX509Der<'_> = key.as_der().ok()?;
        if canonical.as_ref() != spki {
            return None;
        }
        let key = OaepPublicEncryptingKey::new(key).ok()?;
        Some(Self { key, identifier: Sha256::digest(spki).into() })
    }
}

impl fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientKey({})", hex::encode(self.identifier))
    }
}

impl Form {
    /// Either, as it comes.
    ///
    /// # Errors
    /// The random generator failed.
    pub fn random() -> Result<Self, Unspecified> {
        let mut coin = [0];
        rand::fill(&mut coin)?;
        Ok(if coin < [128] { Self::Constructed } else { Self::Primitive })
    }
}

/// Wraps `plaintext` to `recipient`.
///
/// # Errors
/// The cryptographic library failed.
pub fn seal(
    plaintext: &[u8],
    recipient: &RecipientKey,
    form: Form,
    defect: Option<Defect>,
) -> Result<Vec<u8>, Unspecified> {
    let mut content_key = [0; AES_256_KEY_LEN];
    rand::fill(&mut content_key)?;
    let (iv, ciphertext) = encrypt_content(plaintext, &content_key, defect)?;
    let mut recipients = recipient_info(recipient, &content_key, defect)?;
    if defect == Some(Defect::SecondRecipient) {
        recipients.extend(recipient_info(recipient, &content_key, defect)?);
    }
    let enveloped = indefinite(
        SEQUENCE,
        &[VERSION_2.to_vec(), tlv(SET, &recipients), encrypted_content_info(&iv, &ciphertext, form)].concat(),
    );
    let content_type = if defect == Some(Defect::ContentType) { ID_SIGNED_DATA } else { ID_ENVELOPED_DATA };
    let mut envelope =
        indefinite(SEQUENCE, &[tlv(OID, content_type), indefinite(CONTEXT_0_CONSTRUCTED, &enveloped)].concat());
    match defect {
        Some(Defect::Truncated) => envelope.truncate(envelope.len() - 1),
        Some(Defect::TrailingByte) => envelope.push(0),
        _ => {}
    }
    Ok(envelope)
}

/// KeyTransRecipientInfo, version 2: the recipient is named by its key's identifier.
fn recipient_info(
    recipient: &RecipientKey,
    content_key: &[u8],
    defect: Option<Defect>,
) -> Result<Vec<u8>, Unspecified> {
    let (algorithm, hash) = match defect {
        Some(Defect::OaepHash) => (&OAEP_SHA1_MGF1SHA1, ID_SHA1),
        _ => (&OAEP_SHA256_MGF1SHA256, ID_SHA256),
    };
    let mut buffer = vec![0; recipient.key.ciphertext_size()];
    let encrypted_key = recipient.key.encrypt(algorithm, content_key, &mut buffer, None)?;
    Ok(tlv(
        SEQUENCE,
        &[
            VERSION_2.to_vec(),
            tlv(CONTEXT_0, &recipient.identifier),
            oaep_identifier(hash),
            tlv(OCTET_STRING, encrypted_key),
        ]
        .concat(),
    ))
}

/// RSAES-OAEP (RFC 4055 section 4.1) with the same hash for the label and for MGF1, and no label.
fn oaep_identifier(hash: &[u8]) -> Vec<u8> {
    let hash = tlv(SEQUENCE, &[tlv(OID, hash), NULL.to_vec()].concat());
    let mgf1 = tlv(SEQUENCE, &[tlv(OID, ID_MGF1), hash.clone()].concat());
    let parameters = [tlv(CONTEXT_0_CONSTRUCTED, &hash), tlv(CONTEXT_1_CONSTRUCTED, &mgf1)].concat();
    tlv(SEQUENCE, &[tlv(OID, ID_RSAES_OAEP), tlv(SEQUENCE, &parameters)].concat())
}

fn encrypted_content_info(iv: &[u8], ciphertext: &[u8], form: Form) -> Vec<u8> {
    let algorithm = tlv(SEQUENCE, &[tlv(OID, ID_AES256_CBC), tlv(OCTET_STRING, iv)].concat());
    let content = match form {
        Form::Constructed => {
            let pieces: Vec<u8> = ciphertext.chunks(PIECE).flat_map(|piece| tlv(OCTET_STRING, piece)).collect();
            indefinite(CONTEXT_0_CONSTRUCTED, &pieces)
        }
        Form::Primitive => tlv(CONTEXT_0, ciphertext),
    };
    indefinite(SEQUENCE, &[tlv(OID, ID_DATA), algorithm, content].concat())
}

/// AES-256-CBC; returns the IV and the ciphertext.
fn encrypt_content(plaintext: &[u8], key: &[u8], defect: Option<Defect>) -> Result<(Vec<u8>, Vec<u8>), Unspecified> {
    let key = UnboundCipherKey::new(&AES_256, key)?;
    let mut content = plaintext.to_vec();
    let context = match defect {
        Some(Defect::Padding) => {
            // A last byte of zero is no PKCS #7 padding of any length.
            content.resize((content.len() / 16 + 1) * 16, 0);
            EncryptingKey::cbc(key)?.encrypt(&mut content)?
        }
        Some(Defect::Forged) => {
            rand::fill(&mut content)?;
            PaddedBlockEncryptingKey::cbc_pkcs7(key)?.encrypt(&mut content)?
        }
        _ => PaddedBlockEncryptingKey::cbc_pkcs7(key)?.encrypt(&mut content)?,
    };
    match context {
        DecryptionContext::Iv128(iv) => Ok((iv.as_ref().to_vec(), content)),
        _ => Err(Unspecified),
    }
}

/// A definite length, in as few bytes as possible (X.690 section 10.1).
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let big_endian = length.to_be_bytes();
    let significant: Vec<u8> = big_endian.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            // At most eight bytes of length.
            out.push(0x80 | significant.len() as u8);
            out.extend(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

/// An indefinite length, ended by two zero bytes (X.690 section 8.1.3.6).
fn indefinite(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, 0x80], content, &[0, 0]].concat()
}

/// KMS cuts the content of form A after this many bytes (measured on its envelopes).
const PIECE: usize = 1000;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const CONTEXT_0: u8 = 0x80;
const CONTEXT_0_CONSTRUCTED: u8 = 0xa0;
const CONTEXT_1_CONSTRUCTED: u8 = 0xa1;
const VERSION_2: &[u8] = &[0x02, 0x01, 0x02];
const NULL: &[u8] = &[0x05, 0x00];

/// 1.2.840.113549.1.7.1, RFC 5652 section 4.
const ID_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.7.2, RFC 5652 section 5.
const ID_SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// 1.2.840.113549.1.7.3, RFC 5652 section 6.
const ID_ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
/// 1.2.840.113549.1.1.7, RFC 4055 section 4.1.
const ID_RSAES_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07];
/// 1.2.840.113549.1.1.8, RFC 4055 section 2.2.
const ID_MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
/// 2.16.840.1.101.3.4.2.1, RFC 4055 section 2.1.
const ID_SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// 1.3.14.3.2.26, RFC 4055 section 2.1.
const ID_SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
/// 2.16.840.1.101.3.4.1.42, RFC 3565 section 4.1.
const ID_AES256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];
