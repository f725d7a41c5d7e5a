//! The shape of a Nitro attestation document: an untagged COSE_Sign1 (RFC 9052) around a CBOR map.
//! Reads it and checks its syntax and sizes; whether it is *true* is decided by
//! `parent/src/attestation.rs`. The enclave reads only documents that its own NSM just made.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::bytes::{ByteArray, ByteString};
use crate::cose::{Malformed, Rules, Sign1, decode};

/// Longest document, in bytes (the NSM's payload limit plus the COSE frame).
pub const MAX_DOCUMENT: usize = 18 * 1024;

/// A document, read but not believed.
#[derive(Debug, Clone)]
pub struct AttestationDocument {
    /// What was signed, and the signature.
    pub sign1: Sign1,
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
        let sign1 = Sign1::parse(bytes)?;
        let payload = Payload::parse(&sign1.payload)?;
        Ok(Self { sign1, payload })
    }
}

impl Payload {
    fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        const RULES: Rules = Rules { depth: 4, entries: 64, indefinite: true };
        let payload: Self = decode(bytes, &RULES).ok_or(DocumentError("the payload is not the NSM's"))?;
        payload.check()?;
        Ok(payload)
    }

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

impl From<Malformed> for DocumentError {
    fn from(Malformed(why): Malformed) -> Self {
        Self(why)
    }
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
            assert_eq!(document.sign1.algorithm, -35);
            assert_eq!(document.sign1.protected, [0xa1, 0x01, 0x38, 0x22]);
            assert_eq!(document.sign1.payload[0], first);
            assert_eq!(document.sign1.signature.len(), 96);
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
        let payload = AttestationDocument::parse(DEFINITE).expect("real").sign1.payload;
        for (name, from, to) in [
            ("unknown", &b"\x69user_data"[..], &b"\x69user_date"[..]),
            ("twice", b"\x69user_data", b"\x65nonce"),
            ("number_beyond_the_fields", b"\x69user_data", b"\x09"),
        ] {
            let at = payload.windows(from.len()).position(|window| window == from).expect("in there");
            let changed = [&payload[..at], to, &payload[at + from.len()..]].concat();
            assert!(Payload::parse(&changed).is_err(), "{name}");
        }
        let ten = [&[0xaa], &payload[1..], b"\x65extra\xf6"].concat();
        assert!(Payload::parse(&ten).is_err());
        assert!(Payload::parse(&payload).is_ok());
    }
}
