//! The shape of a Nitro attestation document: an untagged COSE_Sign1 (RFC 9052) around a CBOR map.
//! Reads it and checks its syntax and sizes; whether it is *true* is decided by
//! `parent/src/attestation.rs`. The enclave reads only documents that its own NSM just made.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::bytes::{ByteArray, ByteString};
use crate::scan::{self, Rules};

/// Longest document, in bytes (the NSM's payload limit plus the COSE frame).
pub const MAX_DOCUMENT: usize = 18 * 1024;

/// A document, read but not believed.
#[derive(Debug, Clone)]
pub struct AttestationDocument {
    /// The protected header, as it was signed.
    pub protected: Vec<u8>,
    /// The COSE algorithm that the protected header names; -35 is ES384.
    pub algorithm: i64,
    /// The payload's bytes, as they were signed. Never re-encoded.
    pub payload_bytes: Vec<u8>,
    /// The signature, r‖s.
    pub signature: Vec<u8>,
    /// The payload.
    pub payload: Payload,
}

/// What the NSM says. Sizes are the NSM's own limits.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// The enclave's id: `i-…-enc…`.
    pub module_id: String,
    /// The digest of the PCRs: `SHA384`.
    pub digest: String,
    /// When it was made, in milliseconds since 1970.
    pub timestamp: u64,
    /// The locked registers.
    pub pcrs: BTreeMap<u8, ByteArray<48>>,
    /// The leaf certificate, DER.
    pub certificate: ByteString<1024>,
    /// The certificates from the root to the leaf's issuer, DER.
    pub cabundle: Vec<ByteString<1024>>,
    /// A key of the enclave's, or nothing.
    pub public_key: Option<ByteString<1024>>,
    /// What the enclave says the document is about.
    pub user_data: Option<ByteString<512>>,
    /// The caller's nonce.
    pub nonce: Option<ByteString<512>>,
}

/// Bytes are not an attestation document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an attestation document: {0}")]
pub struct DocumentError(pub &'static str);

impl AttestationDocument {
    /// Reads a document.
    ///
    /// # Errors
    /// Its sender's: not COSE_Sign1, not this payload, or beyond the NSM's limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_DOCUMENT {
            return Err(DocumentError("too long"));
        }
        // COSE_Sign1 may carry tag 18; the NSM's does not.
        let bytes = bytes.strip_prefix(&[0xd2]).unwrap_or(bytes);
        let Sign1(protected, unprotected, payload_bytes, signature) = decode(bytes, "not a COSE_Sign1")?;
        if !unprotected.is_empty() {
            return Err(DocumentError("the unprotected header is not empty"));
        }
        let header: BTreeMap<i64, i64> = decode(&protected, "the protected header is not a map of integers")?;
        let algorithm = match header.first_key_value() {
            Some((1, algorithm)) if header.len() == 1 => *algorithm,
            _ => return Err(DocumentError("the protected header names more or less than an algorithm")),
        };
        let payload: Payload = decode(&payload_bytes, "the payload is not the NSM's")?;
        payload.check()?;
        Ok(Self {
            protected: protected.into_vec(),
            algorithm,
            payload_bytes: payload_bytes.into_vec(),
            signature: signature.into_vec(),
            payload,
        })
    }
}

impl Payload {
    /// A register, or `None` if the document does not have it.
    #[must_use]
    pub fn pcr(&self, index: u8) -> Option<&[u8; 48]> {
        self.pcrs.get(&index).map(|pcr| &pcr.0)
    }

    /// Whether PCR0 is absent or zero: a debug-mode enclave, whose measurements mean nothing.
    #[must_use]
    pub fn is_debug_mode(&self) -> bool {
        self.pcr(0).is_none_or(|pcr| *pcr == [0; 48])
    }

    fn check(&self) -> Result<(), DocumentError> {
        let wrong = if self.module_id.is_empty() || self.module_id.len() > 256 {
            "module_id"
        } else if self.digest != "SHA384" {
            "digest is not SHA384"
        } else if self.timestamp == 0 {
            "timestamp"
        } else if self.pcrs.is_empty() || self.pcrs.keys().any(|&index| index > 31) {
            "pcrs"
        } else if self.certificate.is_empty() {
            "certificate"
        } else if self.cabundle.is_empty() || self.cabundle.len() > 8 || self.cabundle.iter().any(|c| c.is_empty()) {
            "cabundle"
        } else {
            return Ok(());
        };
        Err(DocumentError(wrong))
    }
}

#[derive(Deserialize)]
struct Sign1(ByteString<64>, BTreeMap<i64, i64>, ByteString<16384>, ByteString<96>);

fn decode<T: DeserializeOwned>(bytes: &[u8], refusal: &'static str) -> Result<T, DocumentError> {
    const RULES: Rules = Rules { depth: 4, entries: 64, indefinite: true };
    scan::check(bytes, &RULES).map_err(|_| DocumentError(refusal))?;
    // Packed form stays enabled: without it serde_cbor refuses whole numbers as the keys of any map, the
    // registers' too. What it lets in besides, field numbers for names, no NSM signs.
    let mut deserializer = serde_cbor::Deserializer::from_slice(bytes);
    let value = T::deserialize(&mut deserializer).map_err(|_| DocumentError(refusal))?;
    deserializer.end().map_err(|_| DocumentError(refusal))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFINITE: &[u8] = include_bytes!("../../tests/vectors/attestation/veracruz.cose");
    const INDEFINITE: &[u8] = include_bytes!("../../tests/vectors/attestation/turnkey_indefinite_map.cose");

    #[test]
    fn real_documents_are_read() {
        for (document, first, nonce) in [(DEFINITE, 0xa9, Some(32)), (INDEFINITE, 0xbf, None)] {
            let document = AttestationDocument::parse(document).expect("real");
            assert_eq!(document.algorithm, -35);
            assert_eq!(document.protected, [0xa1, 0x01, 0x38, 0x22]);
            assert_eq!(document.payload_bytes[0], first);
            assert_eq!(document.signature.len(), 96);
            assert_eq!(document.payload.pcrs.keys().copied().collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
            assert_eq!(document.payload.cabundle.len(), 4);
            assert_eq!(document.payload.nonce.map(|nonce| nonce.len()), nonce);
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        let cut = |range: std::ops::Range<usize>, instead: &str| {
            let instead = hex::decode(instead).expect("hex");
            [&DEFINITE[..range.start], &instead, &DEFINITE[range.end..]].concat()
        };
        for (name, bad) in [
            ("empty", vec![]),
            ("too_long", vec![0; MAX_DOCUMENT + 1]),
            ("truncated", DEFINITE[..DEFINITE.len() - 1].to_vec()),
            ("trailing_byte", [DEFINITE, &[0]].concat()),
            ("another_tag", [&[0xd3], DEFINITE].concat()),
            ("five_elements", cut(0..1, "85")),
            ("no_protected_header", cut(1..6, "40")),
            ("two_protected_headers", cut(1..6, "46a20138220401")),
            ("protected_header_is_text", cut(1..6, "45a101613822")),
            ("unprotected_header", cut(6..7, "a10126")),
            ("payload_is_no_map", cut(7..10 + 4353, "4101")),
        ] {
            assert!(AttestationDocument::parse(&bad).is_err(), "{name}");
        }
    }

    #[test]
    fn payloads_with_other_fields_are_refused() {
        let payload = AttestationDocument::parse(DEFINITE).expect("real").payload_bytes;
        for (name, from, to) in [
            ("unknown", &b"\x69user_data"[..], &b"\x69user_date"[..]),
            ("twice", b"\x69user_data", b"\x65nonce"),
            ("number_beyond_the_fields", b"\x69user_data", b"\x09"),
        ] {
            let at = payload.windows(from.len()).position(|window| window == from).expect("in there");
            let changed = [&payload[..at], to, &payload[at + from.len()..]].concat();
            assert!(decode::<Payload>(&changed, "refused").is_err(), "{name}");
        }
        let ten = [&[0xaa], &payload[1..], b"\x65extra\xf6"].concat();
        assert!(decode::<Payload>(&ten, "refused").is_err());
        assert!(decode::<Payload>(&payload, "refused").is_ok());
    }
}
