//! To whom a plaintext goes: reads a request's `Recipient` and judges its attestation document with
//! the product's own verifier, under this KMS's root. What a document admits to is the key policy's
//! business (`policy.rs`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use strongroom_parent::attestation::{
    AttestationError, CertificateFacts, TrustAnchor, VerifiedDocument, check_fresh, verify,
};
use strongroom_protocol::document::{AttestationDocument, Payload};

use super::actions::Blob64;
use super::envelope::RecipientKey;
use super::error::KmsError;
use super::{Kms, lock};

/// The request's member.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WrittenRecipient {
    key_encryption_algorithm: Option<String>,
    attestation_document: Option<Blob64>,
}

/// A recipient, judged.
pub(super) enum Recipient {
    /// A genuine and fresh document with a key that can be encrypted to.
    Attested(Box<Payload>, RecipientKey),
    /// A document of another root, or of another time: it meets no condition. Where the policy asks for
    /// none, the call is refused with this error all the same.
    Unbelievable(KmsError),
}

impl Recipient {
    /// Judges a recipient at `now`. The root is read at every call: it may be made later than this KMS.
    ///
    /// # Errors
    /// The caller's: the document is damaged or has no RSA-2048 key; or ours: there is no root.
    pub(super) fn judge(written: &WrittenRecipient, kms: &Kms, now: SystemTime) -> Result<Self, KmsError> {
        if written.key_encryption_algorithm.as_deref() != Some("RSAES_OAEP_SHA_256") {
            return Err(invalid(
                "Value at 'recipient.keyEncryptionAlgorithm' failed to satisfy constraint: Member must satisfy enum \
                 value set: [RSAES_OAEP_SHA_256]",
            ));
        }
        let document = written.attestation_document.as_ref().map(Blob64::bytes).unwrap_or_default();
        if document.is_empty() || document.len() > MAX_DOCUMENT {
            return Err(invalid(
                "Value at 'recipient.attestationDocument' failed to satisfy constraint: Member must have length \
                 between 1 and 262144",
            ));
        }
        let believed = match unsigned(document) {
            Some(payload) if kms.believe_unsigned_documents => {
                check_fresh(&payload, now, MAX_AGE).map(|()| payload).map_err(refuse)
            }
            _ => read_root(&kms.attestation_root).and_then(|root| {
                let verified = kms.documents.verify(document, &root, now).map_err(refuse)?;
                verified.check_fresh(now, MAX_AGE).map_err(refuse)?;
                Ok(verified.payload)
            }),
        };
        match believed {
            Ok(payload) => {
                let key = payload
                    .public_key
                    .as_deref()
                    .and_then(RecipientKey::read)
                    .ok_or_else(|| invalid("The attestation document does not contain an RSA-2048 public key."))?;
                Ok(Self::Attested(Box::new(payload), key))
            }
            Err(Refusal::Damaged) => Err(invalid("The attestation document is malformed.")),
            Err(Refusal::Unbelievable) => {
                Ok(Self::Unbelievable(invalid("The attestation document could not be verified.")))
            }
            Err(Refusal::NoRoot) => Err(KmsError::Internal),
        }
    }

    /// What the policy may rely on.
    pub(super) fn document(&self) -> Option<&Payload> {
        match self {
            Self::Attested(payload, _) => Some(payload),
            Self::Unbelievable(_) => None,
        }
    }
}

/// KMS API reference, `RecipientInfo`.
const MAX_DOCUMENT: usize = 262_144;

/// What KMS demands is not documented; reports say between nothing and five minutes. The strictest.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// The attestation root, as it is written and as it is trusted.
struct Root {
    pem: Vec<u8>,
    anchor: TrustAnchor,
}

/// Documents that proved genuine: an enclave shows one over and over, and five P-384 signatures are most of a call's
/// time. The hour of a document and of its certificates is judged each time.
#[derive(Default)]
pub(super) struct KnownDocuments(Mutex<HashMap<[u8; 32], VerifiedDocument>>);

/// More than enclaves have in use.
const MAX_KNOWN_DOCUMENTS: usize = 256;

impl KnownDocuments {
    fn verify(&self, document: &[u8], root: &Root, now: SystemTime) -> Result<VerifiedDocument, AttestationError> {
        let name = Sha256::new().chain_update(Sha256::digest(&root.pem)).chain_update(document).finalize().into();
        if let Some(known) = lock(&self.0).get(&name)
            && are_valid(&known.certificates(), now)
        {
            return Ok(known.clone());
        }
        let verified = verify(document, &root.anchor, now)?;
        let mut known = lock(&self.0);
        if known.len() == MAX_KNOWN_DOCUMENTS {
            known.clear();
        }
        known.insert(name, verified.clone());
        Ok(verified)
    }
}

fn are_valid(certificates: &[CertificateFacts], now: SystemTime) -> bool {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(-1, |since| since.as_secs() as i64);
    certificates.iter().all(|certificate| (certificate.not_before..=certificate.not_after).contains(&now))
}

enum Refusal {
    /// It is not a document, or not as its enclave signed it.
    Damaged,
    /// It is somebody else's, or of another time.
    Unbelievable,
    NoRoot,
}

/// What a document says that does not even claim to be signed: QEMU's have no algorithm, and zeros for a signature.
fn unsigned(document: &[u8]) -> Option<Payload> {
    let document = AttestationDocument::parse(document).ok()?;
    let nobody = document.sign1.algorithm == UNSIGNED && document.sign1.signature.iter().all(|byte| *byte == 0);
    nobody.then_some(document.payload)
}

/// Where an algorithm would be named.
const UNSIGNED: i64 = -1;

fn read_root(path: &Path) -> Result<Root, Refusal> {
    let pem = std::fs::read(path).map_err(|error| {
        tracing::warn!(path = %path.display(), %error, "the attestation root cannot be read");
        Refusal::NoRoot
    })?;
    let anchor = TrustAnchor::from_pem(&pem).map_err(|_| Refusal::NoRoot)?;
    Ok(Root { pem, anchor })
}

fn refuse(error: AttestationError) -> Refusal {
    tracing::info!(%error, "refused an attestation document");
    match error {
        AttestationError::Document(_)
        | AttestationError::CoseAlgorithm(_)
        | AttestationError::MalformedCertificate(_)
        | AttestationError::DocumentSignature => Refusal::Damaged,
        _ => Refusal::Unbelievable,
    }
}

fn invalid(text: &str) -> KmsError {
    KmsError::Validation(text.to_owned())
}
