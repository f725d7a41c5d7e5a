//! COSE_Sign1 (RFC 9052, section 4.2), the form in which AWS signs: attestation documents and enclave images. Reads
//! its shape; whether the signature holds, and whose it is, is not decided here. [`decode`] is how CBOR that is no
//! frame is read: bounds first.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::bytes::ByteString;
use crate::scan;
pub use crate::scan::Rules;

/// ES256: ECDSA on P-256 with SHA-256 (RFC 9053, section 2.1).
pub const ES256: i64 = -7;
/// ES384: ECDSA on P-384 with SHA-384.
pub const ES384: i64 = -35;
/// ES512: ECDSA on P-521 with SHA-512.
pub const ES512: i64 = -36;

/// A signed payload, read but not believed.
#[derive(Debug, Clone)]
pub struct Sign1 {
    /// The protected header, as it was signed.
    pub protected: Vec<u8>,
    /// The COSE algorithm that the protected header names.
    pub algorithm: i64,
    /// The payload, as it was signed. Never re-encoded.
    pub payload: Vec<u8>,
    /// The signature, r‖s.
    pub signature: Vec<u8>,
}

/// Bytes are not what they should be. Their sender is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl Sign1 {
    /// Reads a COSE_Sign1, tagged or not, whose headers say nothing but the algorithm.
    ///
    /// # Errors
    /// Its sender's.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        const RULES: Rules = Rules { depth: 4, entries: 64, indefinite: true };
        // Tag 18; AWS's have none.
        let bytes = bytes.strip_prefix(&[0xd2]).unwrap_or(bytes);
        let Parts(protected, unprotected, payload, signature) =
            decode(bytes, &RULES).ok_or(Malformed("not a COSE_Sign1"))?;
        if !unprotected.is_empty() {
            return Err(Malformed("the unprotected header is not empty"));
        }
        let header: BTreeMap<i64, i64> =
            decode(&protected, &RULES).ok_or(Malformed("the protected header is not a map of integers"))?;
        let algorithm = match header.first_key_value() {
            // One pair, written once: of a name that is there twice, readers take this one or that.
            Some((1, algorithm)) if protected.first() == Some(&0xa1) => *algorithm,
            _ => return Err(Malformed("the protected header names more or less than an algorithm")),
        };
        let [protected, payload, signature] = [protected.into_vec(), payload.into_vec(), signature.into_vec()];
        Ok(Self { protected, algorithm, payload, signature })
    }

    /// What was signed: `["Signature1", protected, h'', payload]` (RFC 9052, section 4.4) around the original bytes.
    /// Re-encoding the payload would make two documents out of one.
    #[must_use]
    pub fn signed_structure(&self) -> Vec<u8> {
        let mut bytes = b"\x84\x6aSignature1".to_vec();
        for part in [&self.protected[..], &[], &self.payload] {
            match (u8::try_from(part.len()), u16::try_from(part.len())) {
                (Ok(length @ 0..=23), _) => bytes.push(0x40 | length),
                (Ok(length), _) => bytes.extend([0x58, length]),
                (_, Ok(length)) => bytes.extend([&[0x59][..], &length.to_be_bytes()].concat()),
                // Longer ones are not parsed; a saturated length would only fail to verify.
                _ => bytes.extend([0x59, 0xff, 0xff]),
            }
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// Reads exactly one item of CBOR, once it is known to keep to `rules`.
#[must_use]
pub fn decode<T: DeserializeOwned>(bytes: &[u8], rules: &Rules) -> Option<T> {
    scan::check(bytes, rules).ok()?;
    // Packed form stays enabled: without it serde_cbor refuses whole numbers as the keys of any map, those of
    // headers and registers too. What it lets in besides, field numbers for names, AWS does not sign.
    let mut deserializer = serde_cbor::Deserializer::from_slice(bytes);
    let value = T::deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(value)
}

/// An attestation document's payload is the longest that there is, an ES512 signature likewise.
#[derive(Deserialize)]
struct Parts(ByteString<64>, BTreeMap<i64, i64>, ByteString<16384>, ByteString<132>);
