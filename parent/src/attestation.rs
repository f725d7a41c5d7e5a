//! Decides whether an attestation document is true: made by a Nitro Secure Module under a given root,
//! at a given time, about the image, configuration, nonce and subject that the caller expects. The
//! only verifier of the project. It does no I/O and knows no clock; how a document is laid out is
//! `strongroom_protocol::document`'s matter.
//!
//! [`verify`] does what AWS's guide "Verifying the root of trust" asks for: syntax, certificate chain,
//! COSE signature. What AWS leaves to its customers are the `check_…` methods of its result.

mod chain;
mod expected_pcrs;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use strongroom_protocol::cose::ES384;
use strongroom_protocol::document::{AttestationDocument, DocumentError, Payload};
use strongroom_protocol::{ByteArray, HpkePublicKey, ImportKeyId, Subject};

pub use self::chain::CertificateFacts;
use self::chain::{Certificate, verify_chain};
pub use self::expected_pcrs::{ExpectedPcrs, ExpectedPcrsError};

/// Verifies a document: syntax and sizes, its certificates up to `root` at the time `at`, and its
/// signature. Nothing is believed of what it says before that, and nothing is yet compared with what
/// the caller expects.
///
/// # Errors
/// The document's sender is to blame, or the caller for the wrong root or time.
pub fn verify(document: &[u8], root: &TrustAnchor, at: SystemTime) -> Result<VerifiedDocument, AttestationError> {
    let document = AttestationDocument::parse(document)?;
    if document.sign1.algorithm != ES384 {
        return Err(AttestationError::CoseAlgorithm(document.sign1.algorithm));
    }
    let leaf_key = verify_chain(&document.payload, root, at)?;
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, leaf_key)
        .verify(&document.sign1.signed_structure(), &document.sign1.signature)
        .map_err(|_| AttestationError::DocumentSignature)?;
    Ok(VerifiedDocument { payload: document.payload, _verified: Verified })
}

/// Why a document is refused, one variant per reason. Certificates are counted from the root, which is
/// 0; the last is the leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// The root that was given to us is not one certificate in PEM: whoever gave it is to blame.
    #[error("the attestation root is not one certificate in PEM")]
    TrustAnchor,

    /// Not a document at all.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Signed with something other than ES384.
    #[error("the document is signed with COSE algorithm {0}, not with ES384")]
    CoseAlgorithm(i64),
    /// The chain begins at another root than the given one.
    #[error("the document comes from another root")]
    ForeignRoot,
    /// Not an X.509 v3 certificate, bytes after its end, or an extension twice.
    #[error("certificate {0} is malformed")]
    MalformedCertificate(usize),
    /// A critical extension that this verifier does not know (RFC 5280, section 4.2).
    #[error("certificate {0} has an unknown critical extension")]
    CriticalExtension(usize),
    /// Begins later.
    #[error("certificate {0} is not valid yet")]
    NotYetValid(usize),
    /// Ended before.
    #[error("certificate {0} has expired")]
    Expired(usize),
    /// Names another issuer than the certificate before it.
    #[error("certificate {0} names another issuer")]
    IssuerName(usize),
    /// Not signed with ecdsa-with-SHA384.
    #[error("certificate {0} is not signed with ecdsa-with-SHA384")]
    SignatureAlgorithm(usize),
    /// Its key is not a P-384 key.
    #[error("certificate {0} has no P-384 key")]
    KeyType(usize),
    /// The certificate before it did not sign it.
    #[error("certificate {0} has a bad signature")]
    CertificateSignature(usize),
    /// Issues, but its basicConstraints do not say that it is a CA.
    #[error("certificate {0} issues others and is not a CA")]
    NotAnAuthority(usize),
    /// Issues, but its keyUsage lacks keyCertSign.
    #[error("certificate {0} issues others without keyCertSign")]
    NoCertificateSigning(usize),
    /// More intermediates follow than its pathLenConstraint allows.
    #[error("certificate {0} has more intermediates below it than its pathLenConstraint allows")]
    PathLength(usize),
    /// The leaf is a CA.
    #[error("the leaf certificate is a CA")]
    LeafIsAuthority,
    /// The leaf's keyUsage lacks digitalSignature.
    #[error("the leaf certificate is not for digital signatures")]
    LeafMayNotSign,
    /// The leaf's key did not sign this document.
    #[error("the document has a bad signature")]
    DocumentSignature,

    /// PCR0 is absent or zero.
    #[error("the enclave runs in debug mode: its measurements mean nothing")]
    DebugMode,
    /// PCR16 is absent or zero.
    #[error("the enclave has no configuration: PCR16 is not measured and locked")]
    NotConfigured,
    /// The first register that differs, or that the document lacks.
    #[error("PCR{0} is not the expected one")]
    Pcr(u8),
    /// Another nonce, or none.
    #[error("the nonce is not the expected one")]
    Nonce,
    /// About something else.
    #[error("the user data is not the expected one")]
    UserData,
    /// Carries no key that it names as an import key.
    #[error("the document is not about an import key")]
    NotAnImportKey,
    /// A document of this kind, where another was asked for.
    #[error("the document is of another kind: {0}")]
    Kind(Kind),
    /// Carries a key: no evidence document of ours does.
    #[error("the document carries a public key and is no evidence")]
    NotEvidence,
    /// Older than the caller accepts.
    #[error("the document is too old")]
    Stale,
    /// Dated later than now.
    #[error("the document is dated in the future")]
    FromTheFuture,
}

/// A root certificate: what a chain must begin with, byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustAnchor(CertificateDer<'static>);

impl TrustAnchor {
    /// AWS's root of all Nitro enclaves, compiled in: CN `aws.nitro-enclaves`, from
    /// `https://aws-nitro-enclaves.amazonaws.com/AWS_NitroEnclaves_Root-G1.zip`; a test holds it to the
    /// fingerprint that AWS publishes.
    #[must_use]
    pub fn aws() -> Self {
        Self(CertificateDer::from_slice(include_bytes!("../roots/aws_nitro_enclaves_root_g1.der")))
    }

    /// Whether this is AWS's root.
    #[must_use]
    pub fn is_aws(&self) -> bool {
        *self == Self::aws()
    }

    /// Another root, for doubles and for tests.
    ///
    /// # Errors
    /// The giver's: not exactly one certificate in PEM (RFC 7468).
    pub fn from_pem(pem: &[u8]) -> Result<Self, AttestationError> {
        let mut certificates = CertificateDer::pem_slice_iter(pem);
        match (certificates.next(), certificates.next()) {
            (Some(Ok(der)), None) if Certificate::parse(0, &der).is_ok() => Ok(Self(der)),
            _ => Err(AttestationError::TrustAnchor),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Evidence => "evidence",
            Self::Recipient => "a recipient's, with the RSA key to which KMS encrypts",
            Self::ImportKey => "an import key's, with a key to which a custodian seals",
            Self::Unknown => "it carries a key of no kind of strongroom's",
        })
    }
}

impl fmt::Debug for TrustAnchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustAnchor({})", hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.0)))
    }
}

/// A document whose chain and signature hold. Only [`verify`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedDocument {
    /// What the NSM said.
    pub payload: Payload,
    _verified: Verified,
}

/// A register that is not as expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DifferingPcr {
    /// Which.
    pub index: u8,
    /// What it should be.
    pub expected: [u8; 48],
    /// What it is, if the document has it.
    pub found: Option<[u8; 48]>,
}

/// The kinds of document that our enclaves make, and all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Carries no key: the enclave vouches for something.
    Evidence,
    /// Carries the enclave's RSA key, for KMS.
    Recipient,
    /// Carries a key that a custodian can seal a key to.
    ImportKey,
    /// Carries a key that it does not name as one of ours.
    Unknown,
}

/// Keeps others from making a [`VerifiedDocument`].
#[derive(Debug, Clone)]
struct Verified;

impl VerifiedDocument {
    /// Whether the enclave is the expected one. Refuses debug mode and an enclave that is not
    /// configured even before it compares.
    ///
    /// # Errors
    /// The enclave's: debug mode, no PCR16, or the first register that differs.
    pub fn check_pcrs(&self, expected: &ExpectedPcrs) -> Result<(), AttestationError> {
        if self.payload.is_debug_mode() {
            return Err(AttestationError::DebugMode);
        }
        if self.payload.pcr(CONFIGURATION_PCR).is_none_or(|pcr| *pcr == ZERO) {
            return Err(AttestationError::NotConfigured);
        }
        self.differing_pcrs(expected).first().map_or(Ok(()), |pcr| Err(AttestationError::Pcr(pcr.index)))
    }

    /// The registers that are not as expected, in order.
    #[must_use]
    pub fn differing_pcrs(&self, expected: &ExpectedPcrs) -> Vec<DifferingPcr> {
        let found = |index| self.payload.pcr(index).copied();
        let all = expected.0.iter().map(|(&index, &pcr)| DifferingPcr { index, expected: pcr, found: found(index) });
        all.filter(|pcr| pcr.found != Some(pcr.expected)).collect()
    }

    /// The certificates that vouch for the document, from the root to the leaf.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateFacts> {
        let ders = self.payload.cabundle.iter().chain([&self.payload.certificate]);
        // `verify` has read each of them.
        ders.enumerate().filter_map(|(place, der)| Some(Certificate::parse(place, der).ok()?.facts())).collect()
    }

    /// What kind of document it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let subject = self.payload.user_data.as_deref().and_then(Subject::parse);
        match (&self.payload.public_key, subject) {
            (None, _) => Kind::Evidence,
            (Some(_), Some(Subject::ImportKey { .. })) if self.import_key().is_ok() => Kind::ImportKey,
            (Some(key), Some(Subject::Recipient { public_key })) if public_key == *Sha256::digest(&key[..]) => {
                Kind::Recipient
            }
            (Some(_), _) => Kind::Unknown,
        }
    }

    /// Whether it is a document of this kind.
    ///
    /// # Errors
    /// The sender's: a document of another kind.
    pub fn check_kind(&self, expected: Kind) -> Result<(), AttestationError> {
        match self.kind() {
            kind if kind == expected => Ok(()),
            _ if expected == Kind::Evidence => Err(AttestationError::NotEvidence),
            kind => Err(AttestationError::Kind(kind)),
        }
    }

    /// Whether the document was made for this nonce.
    ///
    /// # Errors
    /// The sender's: a document for another nonce, or a replayed one.
    pub fn check_nonce(&self, nonce: &[u8]) -> Result<(), AttestationError> {
        if self.payload.nonce.as_deref() == Some(nonce) { Ok(()) } else { Err(AttestationError::Nonce) }
    }

    /// Whether the document is about this subject: a domain tag and a digest.
    ///
    /// # Errors
    /// The sender's: a document about something else.
    pub fn check_user_data(&self, expected: &[u8]) -> Result<(), AttestationError> {
        if self.payload.user_data.as_deref() == Some(expected) { Ok(()) } else { Err(AttestationError::UserData) }
    }

    /// [`check_fresh`].
    ///
    /// # Errors
    /// Its.
    pub fn check_fresh(&self, at: SystemTime, max_age: Duration) -> Result<(), AttestationError> {
        check_fresh(&self.payload, at, max_age)
    }

    /// Whether the document is evidence and nothing else: it carries no key that somebody could
    /// encrypt to.
    ///
    /// # Errors
    /// The sender's: a document with a public key.
    pub fn check_evidence_only(&self) -> Result<(), AttestationError> {
        if self.payload.public_key.is_none() { Ok(()) } else { Err(AttestationError::NotEvidence) }
    }

    /// The import key that the document is about: its `public_key`, which its `user_data` names as one. A document of
    /// another kind names no key like that, whatever key it carries.
    ///
    /// # Errors
    /// The sender's: a document of another kind.
    pub fn import_key(&self) -> Result<HpkePublicKey, AttestationError> {
        let public_key = self.payload.public_key.as_ref().and_then(|key| <[u8; 32]>::try_from(&key[..]).ok());
        let public_key = ByteArray(public_key.ok_or(AttestationError::NotAnImportKey)?);
        let user_data = ImportKeyId::of(&public_key).user_data();
        self.check_user_data(&user_data).map_err(|_| AttestationError::NotAnImportKey)?;
        Ok(public_key)
    }
}

/// Whether what a document says was said at most `max_age` before `at`. The two clocks may differ by
/// [`CLOCK_TOLERANCE`].
///
/// # Errors
/// The sender's for an old document; either clock's for one from the future.
pub fn check_fresh(payload: &Payload, at: SystemTime, max_age: Duration) -> Result<(), AttestationError> {
    let made =
        UNIX_EPOCH.checked_add(Duration::from_millis(payload.timestamp)).ok_or(AttestationError::FromTheFuture)?;
    match at.duration_since(made) {
        Ok(age) if age <= max_age => Ok(()),
        Ok(_) => Err(AttestationError::Stale),
        Err(ahead) if ahead.duration() <= CLOCK_TOLERANCE => Ok(()),
        Err(_) => Err(AttestationError::FromTheFuture),
    }
}

/// How far a document's clock may be ahead of ours.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

const IMAGE_PCR: u8 = 0;
/// The register that a configuration is measured into.
pub const CONFIGURATION_PCR: u8 = 16;
const ZERO: [u8; 48] = [0; 48];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_root_has_the_fingerprint_that_aws_publishes() {
        assert_eq!(
            format!("{:?}", TrustAnchor::aws()),
            "TrustAnchor(641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b)"
        );
        assert!(Certificate::parse(0, &TrustAnchor::aws().0).is_ok());
    }

    #[test]
    fn a_root_is_one_certificate() {
        for bad in [&b""[..], b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(TrustAnchor::from_pem(bad), Err(AttestationError::TrustAnchor));
        }
    }
}
