//! The certificates of a document, from the given root to the leaf whose key signed it: AWS's rules for them, and those of
//! RFC 5280 that they rest on. Knows no clock.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use strongroom_protocol::document::Payload;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{BasicConstraints, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ECDSA_WITH_SHA384};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::{AlgorithmIdentifier, X509Version};

use super::{AttestationError, TrustAnchor};

/// Walks from the given root to the leaf and returns the leaf's key.
pub(super) fn verify_chain(payload: &Payload, root: &TrustAnchor, at: SystemTime) -> Result<P384Key, AttestationError> {
    // Trusted for being these bytes. A self-made root with the same name and key identifier is a stranger.
    if payload.cabundle.first().is_none_or(|first| **first != *root.0) {
        return Err(AttestationError::ForeignRoot);
    }
    let ders = payload.cabundle.iter().chain([&payload.certificate]);
    let chain = ders.enumerate().map(|(place, der)| Certificate::parse(place, der)).collect::<Result<Vec<_>, _>>()?;
    for certificate in &chain {
        certificate.check_dates(at)?;
    }
    for (issuer, subject) in chain.iter().zip(chain.iter().skip(1)) {
        // Neither the issuer itself nor the leaf counts (RFC 5280, section 4.2.1.9).
        issuer.check_may_issue(chain.len().saturating_sub(issuer.place + 2))?;
        issuer.check_issued(subject)?;
    }
    let leaf = chain.last().ok_or(AttestationError::ForeignRoot)?;
    leaf.check_may_sign_documents()?;
    leaf.key()
}

/// What people want to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whose it is. Its issuer's word, and not fit for terminals.
    pub subject: String,
    /// From when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when, included.
    pub not_after: i64,
}

/// A P-384 point, uncompressed (SEC 1, section 2.3.3).
pub(super) type P384Key = [u8; 97];

/// A certificate, taken apart.
pub(super) struct Certificate<'a> {
    place: usize,
    x509: X509Certificate<'a>,
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
}

impl<'a> Certificate<'a> {
    pub(super) fn parse(place: usize, der: &'a [u8]) -> Result<Self, AttestationError> {
        let malformed = AttestationError::MalformedCertificate(place);
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| malformed)?;
        if !rest.is_empty() || x509.version() != X509Version::V3 || x509.extensions_map().is_err() {
            return Err(malformed);
        }
        let (mut basic_constraints, mut key_usage) = (None, None);
        for extension in x509.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => basic_constraints = Some(constraints.clone()),
                ParsedExtension::KeyUsage(usage) => key_usage = Some(*usage),
                ParsedExtension::ParseError { .. } => return Err(malformed),
                // Anything else that is parsed is still not obeyed here: name constraints, for one.
                _ if extension.critical => return Err(AttestationError::CriticalExtension(place)),
                _ => {}
            }
        }
        Ok(Self { place, x509, basic_constraints, key_usage })
    }

    pub(super) fn facts(&self) -> CertificateFacts {
        let validity = self.x509.validity();
        CertificateFacts {
            subject: self.x509.subject().to_string(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        }
    }

    /// Both ends belong to the validity period (RFC 5280, section 4.1.2.5).
    fn check_dates(&self, at: SystemTime) -> Result<(), AttestationError> {
        let seconds =
            at.duration_since(UNIX_EPOCH).map_or(-1, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        let validity = self.x509.validity();
        if seconds < validity.not_before.timestamp() {
            return Err(AttestationError::NotYetValid(self.place));
        }
        if seconds > validity.not_after.timestamp() {
            return Err(AttestationError::Expired(self.place));
        }
        Ok(())
    }

    /// Whether this certificate may have issued one above `intermediates` others.
    fn check_may_issue(&self, intermediates: usize) -> Result<(), AttestationError> {
        let Some(BasicConstraints { ca: true, path_len_constraint }) = self.basic_constraints else {
            return Err(AttestationError::NotAnAuthority(self.place));
        };
        if !self.key_usage.as_ref().is_some_and(KeyUsage::key_cert_sign) {
            return Err(AttestationError::NoCertificateSigning(self.place));
        }
        match path_len_constraint.map(usize::try_from) {
            Some(Ok(limit)) if intermediates > limit => Err(AttestationError::PathLength(self.place)),
            _ => Ok(()),
        }
    }

    /// Whether this certificate's name and key issued `subject`.
    fn check_issued(&self, subject: &Self) -> Result<(), AttestationError> {
        let x509 = &subject.x509;
        if x509.issuer().as_raw() != self.x509.subject().as_raw() {
            return Err(AttestationError::IssuerName(subject.place));
        }
        if !is_ecdsa_with_sha384(&x509.signature_algorithm) || !is_ecdsa_with_sha384(&x509.tbs_certificate.signature) {
            return Err(AttestationError::SignatureAlgorithm(subject.place));
        }
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, self.key()?)
            .verify(x509.tbs_certificate.as_ref(), &x509.signature_value.data)
            .map_err(|_| AttestationError::CertificateSignature(subject.place))
    }

    fn check_may_sign_documents(&self) -> Result<(), AttestationError> {
        if self.basic_constraints.as_ref().is_some_and(|constraints| constraints.ca) {
            return Err(AttestationError::LeafIsAuthority);
        }
        if !self.key_usage.as_ref().is_some_and(KeyUsage::digital_signature) {
            return Err(AttestationError::LeafMayNotSign);
        }
        Ok(())
    }

    fn key(&self) -> Result<P384Key, AttestationError> {
        let key = self.x509.public_key();
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        match P384Key::try_from(&*key.subject_public_key.data) {
            Ok(point @ [4, ..])
                if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_NIST_EC_P384) =>
            {
                Ok(point)
            }
            _ => Err(AttestationError::KeyType(self.place)),
        }
    }
}

/// RFC 5758, section 3.2: the parameters are absent.
fn is_ecdsa_with_sha384(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA384 && algorithm.parameters.is_none()
}
