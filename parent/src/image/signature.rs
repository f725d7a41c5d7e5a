//! Who signed an enclave image: the signature section, and whether its signature is over this image. The section is CBOR:
//! an array with one map, of `signing_certificate` (PEM) and `signature` (a COSE_Sign1), both as arrays of numbers; what is
//! signed is a map of `register_index` and `register_value`. Whether the certificate is anybody's to trust, or has
//! expired, is not decided here: PCR8 names it, and a key policy the PCR8 that it admits.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, EcdsaVerificationAlgorithm,
    UnparsedPublicKey,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use strongroom_protocol::cose::{ES256, ES384, ES512, Malformed, Rules, Sign1, decode};
use time::format_description::well_known::Rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521};
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use super::measurements::Pcr;

/// The signature of an image.
#[derive(Debug, Clone)]
pub struct ImageSignature {
    /// PCR8 of an enclave that boots the image.
    pub pcr8: Pcr,
    /// Whose the certificate is. Whoever wrote the file chose the words.
    pub subject: String,
    /// Who issued it. Likewise.
    pub issuer: String,
    /// From when on it is valid, RFC 3339.
    pub not_before: String,
    /// Until when.
    pub not_after: String,
    /// Whether the certificate's key signed this image.
    pub verdict: Result<(), SignatureError>,
}

/// Why a signature is none of this image. Whoever wrote the file is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The section is something else.
    #[error("the signature section is not what nitro-cli writes")]
    Section,
    /// It has to be one.
    #[error("the signature section has {0} signatures, not one")]
    Count(usize),
    /// Not one that can be read.
    #[error("the signing certificate is not X.509 in PEM")]
    Certificate,
    /// Not an elliptic curve that COSE signs with.
    #[error("the signing certificate's key is not on P-256, P-384 or P-521")]
    KeyType,
    /// The signature is something else.
    #[error("the signature is malformed: {0}")]
    Cose(#[from] Malformed),
    /// The curve of the certificate's key goes with another algorithm.
    #[error("the signature's COSE algorithm {0} is not that of the signing certificate's key")]
    Algorithm(i64),
    /// Another key signed, or something else was signed.
    #[error("the signature is wrong: it is not the signing certificate's")]
    Forged,
    /// What is signed is not a register's value.
    #[error("the signature is right, but not over a register")]
    Payload,
    /// What is signed is another register.
    #[error("the signature is right, but over PCR{0}, not PCR0")]
    OtherRegister(i64),
    /// What is signed is another image.
    #[error("the signature is right, but over another image, whose PCR0 is {0}")]
    OtherImage(Pcr),
}

impl ImageSignature {
    /// Reads a signature section and compares it with the image's PCR0.
    ///
    /// # Errors
    /// Whoever wrote the file: there is no certificate to speak of.
    pub fn read(section: &[u8], pcr0: &Pcr) -> Result<Self, SignatureError> {
        let signatures: Vec<PcrSignature> = decode(section, &SECTION).ok_or(SignatureError::Section)?;
        let [PcrSignature { signing_certificate: pem, signature }] = &signatures[..] else {
            return Err(SignatureError::Count(signatures.len()));
        };
        // nitro-cli takes the first, and measures it. Readers differ in what they pass over, so there is nothing else.
        let mut certificates = CertificateDer::pem_slice_iter(pem);
        let (Some(Ok(der)), None, 1) = (certificates.next(), certificates.next(), count(pem, b"-----BEGIN ")) else {
            return Err(SignatureError::Certificate);
        };
        let Ok(([], certificate)) = X509Certificate::from_der(&der) else {
            return Err(SignatureError::Certificate);
        };
        let validity = certificate.validity();
        Ok(Self {
            pcr8: Pcr::of_certificate(&der),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before: date(&validity.not_before),
            not_after: date(&validity.not_after),
            verdict: check(&certificate, signature, pcr0),
        })
    }
}

fn count(text: &[u8], word: &[u8]) -> usize {
    text.windows(word.len()).filter(|window| *window == word).count()
}

/// Whether the certificate's key signed this PCR0.
fn check(certificate: &X509Certificate<'_>, signature: &[u8], pcr0: &Pcr) -> Result<(), SignatureError> {
    let (algorithm, verification) = algorithm(certificate)?;
    let sign1 = Sign1::parse(signature)?;
    if sign1.algorithm != algorithm {
        return Err(SignatureError::Algorithm(sign1.algorithm));
    }
    UnparsedPublicKey::new(verification, &certificate.public_key().subject_public_key.data)
        .verify(&sign1.signed_structure(), &sign1.signature)
        .map_err(|_| SignatureError::Forged)?;
    let PcrInfo { register_index, register_value } = decode(&sign1.payload, &PAYLOAD).ok_or(SignatureError::Payload)?;
    let value = <[u8; 48]>::try_from(register_value).map_err(|_| SignatureError::Payload)?;
    if register_index != 0 {
        return Err(SignatureError::OtherRegister(register_index));
    }
    if value != pcr0.0 {
        return Err(SignatureError::OtherImage(Pcr(value)));
    }
    Ok(())
}

/// The COSE algorithm of a certificate's key (RFC 9053, section 2.1; AWS keeps to the curves named there).
fn algorithm(certificate: &X509Certificate<'_>) -> Result<(i64, &'static EcdsaVerificationAlgorithm), SignatureError> {
    let key = &certificate.public_key().algorithm;
    let curve = key.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    match curve.filter(|_| key.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY) {
        Some(curve) if curve == OID_EC_P256 => Ok((ES256, &ECDSA_P256_SHA256_FIXED)),
        Some(curve) if curve == OID_NIST_EC_P384 => Ok((ES384, &ECDSA_P384_SHA384_FIXED)),
        Some(curve) if curve == OID_NIST_EC_P521 => Ok((ES512, &ECDSA_P521_SHA512_FIXED)),
        _ => Err(SignatureError::KeyType),
    }
}

fn date(time: &ASN1Time) -> String {
    time.to_datetime().format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

#[derive(Deserialize)]
struct PcrSignature {
    signing_certificate: Vec<u8>,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct PcrInfo {
    register_index: i64,
    register_value: Vec<u8>,
}

/// An array of maps of arrays, the longest of which is a certificate.
const SECTION: Rules = Rules { depth: 3, entries: 64 * 1024, indefinite: false };
/// A map with an array of 48 numbers.
const PAYLOAD: Rules = Rules { depth: 2, entries: 64, indefinite: false };
