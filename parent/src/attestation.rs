//! Decides whether an attestation document is true: made by a Nitro Secure Module under a given root,
//! at a given time, about the image, configuration, nonce and subject that the caller expects. The
//! only verifier of the project. It does no I/O and knows no clock; how a document is laid out is
//! `strongroom_protocol::document`'s matter.
//!
//! [`verify`] does what AWS's guide "Verifying the root of trust" asks for: syntax, certificate chain,
//! COSE signature. What AWS leaves to its customers are the `check_…` methods of its result.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use strongroom_protocol::cose::ES384;
use strongroom_protocol::document::{AttestationDocument, DocumentError, Payload};
use strongroom_protocol::{ByteArray, HpkePublicKey, ImportKeyId, Measurement};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{BasicConstraints, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ECDSA_WITH_SHA384};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::{AlgorithmIdentifier, X509Version};

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
        match expected.0.iter().find(|(index, pcr)| self.payload.pcr(**index) != Some(pcr)) {
            Some((index, _)) => Err(AttestationError::Pcr(*index)),
            None => Ok(()),
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

/// The registers that an admitted enclave has: PCR0 (the image) and PCR16 (its configuration), which
/// mean something only together, and any others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedPcrs(BTreeMap<u8, [u8; 48]>);

/// A file is not a list of expected registers. Its writer is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpectedPcrsError {
    /// Not a flat JSON object of texts.
    #[error("not a JSON object of the form {{\"PCR0\": \"hex\", …}}")]
    Json,
    /// A name that is not `PCR0` … `PCR31`.
    #[error("{0:?} is not the name of a register")]
    Name(String),
    /// A register twice.
    #[error("PCR{0} is named twice")]
    Repeated(u8),
    /// Not 48 bytes in hexadecimal.
    #[error("PCR{0} is not 48 bytes in hexadecimal")]
    Value(u8),
    /// PCR0 or PCR16 is missing.
    #[error("PCR{0} must be named")]
    Missing(u8),
    /// The file says another PCR16 than follows from the configuration.
    #[error("PCR16 is not that of the configuration")]
    Configuration,
    /// PCR0 or PCR16 is zero: that would admit debug mode, or an enclave without configuration.
    #[error("PCR{0} must not be zero")]
    Zero(u8),
}

impl ExpectedPcrs {
    /// Reads a `pcrs.json`: `{"PCR0": "96 hex digits", …, "PCR16": …}`, with or without `0x`.
    ///
    /// # Errors
    /// The file's writer's: unknown or repeated names, other values, no or zero PCR0 or PCR16.
    pub fn from_json(json: &[u8]) -> Result<Self, ExpectedPcrsError> {
        Self::read(json, None)
    }

    /// The same, with the PCR16 of a configuration's bytes. The file need not say it; if it does, it says the same.
    ///
    /// # Errors
    /// As of [`Self::from_json`]; or the two say different things.
    pub fn with_configuration(json: &[u8], configuration: &[u8]) -> Result<Self, ExpectedPcrsError> {
        Self::read(json, Some(Measurement::of(configuration).pcr16))
    }

    /// What a register has to be, if it is among them.
    #[must_use]
    pub fn get(&self, register: u8) -> Option<&[u8; 48]> {
        self.0.get(&register)
    }

    fn read(json: &[u8], pcr16: Option<[u8; 48]>) -> Result<Self, ExpectedPcrsError> {
        let Entries(entries) = serde_json::from_slice(json).map_err(|_| ExpectedPcrsError::Json)?;
        let mut pcrs = BTreeMap::new();
        for (name, value) in entries {
            let index = parse_name(&name).ok_or(ExpectedPcrsError::Name(name))?;
            let pcr = parse_pcr(&value).ok_or(ExpectedPcrsError::Value(index))?;
            if pcrs.insert(index, pcr).is_some() {
                return Err(ExpectedPcrsError::Repeated(index));
            }
        }
        if let Some(pcr16) = pcr16
            && *pcrs.entry(CONFIGURATION_PCR).or_insert(pcr16) != pcr16
        {
            return Err(ExpectedPcrsError::Configuration);
        }
        for index in [IMAGE_PCR, CONFIGURATION_PCR] {
            match pcrs.get(&index) {
                None => return Err(ExpectedPcrsError::Missing(index)),
                Some(&ZERO) => return Err(ExpectedPcrsError::Zero(index)),
                Some(_) => {}
            }
        }
        Ok(Self(pcrs))
    }
}

/// Walks from the given root to the leaf and returns the leaf's key.
fn verify_chain(payload: &Payload, root: &TrustAnchor, at: SystemTime) -> Result<P384Key, AttestationError> {
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

/// A P-384 point, uncompressed (SEC 1, section 2.3.3).
type P384Key = [u8; 97];

/// A certificate, taken apart.
struct Certificate<'a> {
    place: usize,
    x509: X509Certificate<'a>,
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
}

impl<'a> Certificate<'a> {
    fn parse(place: usize, der: &'a [u8]) -> Result<Self, AttestationError> {
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

/// `PCR0` … `PCR31`, in exactly this form.
fn parse_name(name: &str) -> Option<u8> {
    let index = name.strip_prefix("PCR")?.parse().ok().filter(|index| *index < 32)?;
    (name == format!("PCR{index}")).then_some(index)
}

fn parse_pcr(value: &str) -> Option<[u8; 48]> {
    let mut pcr = ZERO;
    hex::decode_to_slice(value.strip_prefix("0x").unwrap_or(value), &mut pcr).ok()?;
    Some(pcr)
}

/// A JSON object's entries as they stand, so that a repeated name is seen.
struct Entries(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

/// How far a document's clock may be ahead of ours.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

const IMAGE_PCR: u8 = 0;
const CONFIGURATION_PCR: u8 = 16;
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

    fn pcrs(entries: &[(&str, &str)]) -> Result<ExpectedPcrs, ExpectedPcrsError> {
        let entries: Vec<_> = entries.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        ExpectedPcrs::from_json(format!("{{{}}}", entries.join(",")).as_bytes())
    }

    #[test]
    fn expected_registers_are_read_with_and_without_prefix() {
        let (image, configuration) = ("ab".repeat(48), "CD".repeat(48));
        let plain = pcrs(&[("PCR0", &image), ("PCR16", &configuration)]).expect("valid");
        let prefixed =
            pcrs(&[("PCR16", &format!("0x{configuration}")), ("PCR0", &format!("0x{image}"))]).expect("valid");
        assert_eq!(plain, prefixed);
        assert_eq!(plain.0, BTreeMap::from([(0, [0xab; 48]), (16, [0xcd; 48])]));
    }

    #[test]
    fn other_files_are_no_expectation() {
        use ExpectedPcrsError as E;
        let (good, zero, short) = ("ab".repeat(48), "00".repeat(48), "ab".repeat(47));
        for (name, entries, error) in [
            ("empty", vec![], E::Missing(0)),
            ("no_image", vec![("PCR16", &good)], E::Missing(0)),
            ("no_configuration", vec![("PCR0", &good)], E::Missing(16)),
            ("zero_image", vec![("PCR0", &zero), ("PCR16", &good)], E::Zero(0)),
            ("zero_configuration", vec![("PCR0", &good), ("PCR16", &zero)], E::Zero(16)),
            ("twice", vec![("PCR0", &good), ("PCR0", &good), ("PCR16", &good)], E::Repeated(0)),
            ("short", vec![("PCR0", &short)], E::Value(0)),
            ("beyond_the_bank", vec![("PCR32", &good)], E::Name("PCR32".to_owned())),
            ("leading_zero", vec![("PCR00", &good)], E::Name("PCR00".to_owned())),
            ("signed", vec![("PCR+1", &good)], E::Name("PCR+1".to_owned())),
            ("lower_case", vec![("pcr0", &good)], E::Name("pcr0".to_owned())),
            ("hash_algorithm", vec![("HashAlgorithm", &good)], E::Name("HashAlgorithm".to_owned())),
        ] {
            let entries: Vec<_> = entries.into_iter().map(|(name, value)| (name, value.as_str())).collect();
            assert_eq!(pcrs(&entries), Err(error), "{name}");
        }
        for text in ["", "[]", "{\"PCR0\": 1}", "{\"Measurements\": {}}", "{} {}"] {
            assert_eq!(ExpectedPcrs::from_json(text.as_bytes()), Err(E::Json), "{text}");
        }
    }

    #[test]
    fn a_root_is_one_certificate() {
        for bad in [&b""[..], b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(TrustAnchor::from_pem(bad), Err(AttestationError::TrustAnchor));
        }
    }
}
