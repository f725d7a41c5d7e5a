//! The test PKIs: a chain of the shape that the Nitro hypervisor issues, and the TLS authorities of
//! `tls`. All are honest; a test breaks a certificate by changing one field of one [`CertificateSpec`]
//! before it is issued. What a verifier thinks of the result is not decided here.

#![expect(clippy::expect_used, reason = "a harness that cannot issue its certificates has nothing to go on with")]

mod tls;

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, SignatureAlgorithm,
};
pub use tls::{TLS_ROOT_FILE, TlsAuthority, TlsPair, client_spec, server_spec};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// The file in an NSM's directory that holds the root which verifiers are given, as PEM.
pub const NITRO_ROOT_FILE: &str = "mock-nsm-root.pem";

const NITRO_ROOT_KEY_FILE: &str = "mock-nsm-root.key.pem";

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Signs the leaf of one enclave under a root of our own, and keeps that leaf until it expires.
pub struct NitroAuthority {
    root: Issued,
    chain: Option<NitroChain>,
}

impl NitroAuthority {
    /// An authority that lives as long as this value.
    #[must_use]
    pub fn new() -> Self {
        Self { root: Issued::new(&nitro_root(), None), chain: None }
    }

    /// The authority that lives in `directory`, made there on first use together with
    /// [`NITRO_ROOT_FILE`].
    ///
    /// # Errors
    /// The files cannot be read, written or understood.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let root = Issued::open(&nitro_root(), directory, NITRO_ROOT_FILE, NITRO_ROOT_KEY_FILE)?;
        Ok(Self { root, chain: None })
    }

    /// The root, as PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.root.pem.clone()
    }

    /// The chain that signs at `at`. As on Nitro, a leaf is used until it expires: it may have seconds
    /// left.
    pub fn chain_at(&mut self, at: SystemTime) -> &NitroChain {
        let root = &self.root;
        let current = self.chain.take().filter(|chain| chain.leaf_is_valid(at));
        self.chain.insert(current.unwrap_or_else(|| NitroChain::below(root, nitro_specs(at).get(1..).unwrap_or(&[]))))
    }
}

impl Default for NitroAuthority {
    fn default() -> Self {
        Self::new()
    }
}

/// An issued chain and the key of its leaf.
pub struct NitroChain {
    root_pem: String,
    cabundle: Vec<Vec<u8>>,
    leaf: Issued,
}

impl NitroChain {
    /// Issues a chain under a root of its own: `specs` from the root to the leaf, each signed by the
    /// one before.
    #[must_use]
    pub fn issue(specs: &[CertificateSpec]) -> Self {
        let (root, below) = specs.split_first().expect("a chain has a root");
        Self::below(&Issued::new(root, None), below)
    }

    /// The certificates from the root to the leaf's issuer, DER.
    #[must_use]
    pub fn cabundle(&self) -> &[Vec<u8>] {
        &self.cabundle
    }

    /// The root, as PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.root_pem.clone()
    }

    /// The leaf certificate, DER.
    #[must_use]
    pub fn leaf(&self) -> &[u8] {
        &self.leaf.der
    }

    /// The leaf's key.
    #[must_use]
    pub fn leaf_key(&self) -> &KeyPair {
        &self.leaf.key
    }

    fn below(root: &Issued, specs: &[CertificateSpec]) -> Self {
        let (leaf, intermediates) = specs.split_last().expect("a chain has a leaf");
        let mut cabundle = vec![root.der.clone()];
        let mut last: Option<Issued> = None;
        for spec in intermediates {
            let issued = Issued::new(spec, Some(last.as_ref().unwrap_or(root)));
            cabundle.push(issued.der.clone());
            last = Some(issued);
        }
        Self { root_pem: root.pem.clone(), cabundle, leaf: Issued::new(leaf, Some(last.as_ref().unwrap_or(root))) }
    }

    fn leaf_is_valid(&self, at: SystemTime) -> bool {
        let params = &self.leaf.params;
        params.not_before <= at && at <= params.not_after
    }
}

/// What one certificate says, and how it is signed. The fields that a broken chain gets wrong are
/// public.
#[derive(Clone)]
pub struct CertificateSpec {
    /// Subject, dates, constraints, usages and further extensions.
    pub params: CertificateParams,
    /// The type of the certificate's own key; it decides how the next certificate is signed.
    pub key: &'static SignatureAlgorithm,
    /// Names another issuer than the one that signs.
    pub issuer_name: Option<DistinguishedName>,
    /// Signed by a key that belongs to no certificate of the chain.
    pub signed_by_stranger: bool,
}

/// A chain as an enclave on Nitro gets it: root, three intermediates (region, zone, instance) and a
/// leaf whose three hours begin three seconds before `at`. P-384 throughout; lifetimes and path
/// lengths are those of AWS's chains.
#[must_use]
pub fn nitro_specs(at: SystemTime) -> Vec<CertificateSpec> {
    vec![
        nitro_root(),
        nitro_intermediate("region.strongroom.nitro-enclaves.test", (at - DAY, at + 19 * DAY), 2),
        nitro_intermediate("zonal.strongroom.nitro-enclaves.test", (at - DAY, at + 5 * DAY), 1),
        nitro_intermediate("i-0123456789abcdef0.strongroom.nitro-enclaves.test", (at - 12 * HOUR, at + 12 * HOUR), 0),
        nitro_leaf(at),
    ]
}

/// A distinguished name of AWS's form around `common_name`.
#[must_use]
pub fn nitro_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CountryName, "US");
    name.push(DnType::OrganizationName, "strongroom tests");
    name.push(DnType::CommonName, common_name);
    name
}

fn nitro_root() -> CertificateSpec {
    let mut spec = specification("strongroom.nitro-enclaves.test", (now() - DAY, now() + 30 * YEAR));
    spec.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    spec.params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    spec
}

fn nitro_intermediate(common_name: &str, validity: (SystemTime, SystemTime), path_length: u8) -> CertificateSpec {
    let mut spec = specification(common_name, validity);
    spec.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    spec.params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    spec.params.use_authority_key_identifier_extension = true;
    spec
}

fn nitro_leaf(at: SystemTime) -> CertificateSpec {
    let mut spec = specification(
        "i-0123456789abcdef0-enc0123456789abcdef.strongroom.test",
        (at - Duration::from_secs(3), at + 3 * HOUR),
    );
    spec.params.is_ca = IsCa::ExplicitNoCa;
    spec.params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment];
    spec
}

fn specification(common_name: &str, (not_before, not_after): (SystemTime, SystemTime)) -> CertificateSpec {
    let mut params = CertificateParams::default();
    params.distinguished_name = nitro_name(common_name);
    // Certificates count whole seconds.
    params.not_before = whole_seconds(not_before);
    params.not_after = whole_seconds(not_after);
    CertificateSpec { params, key: &PKCS_ECDSA_P384_SHA384, issuer_name: None, signed_by_stranger: false }
}

/// A certificate with its key, and the parameters from which it issues others.
struct Issued {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
    pem: String,
}

impl Issued {
    /// Issues `spec` under `issuer`, or under itself.
    fn new(spec: &CertificateSpec, issuer: Option<&Self>) -> Self {
        let key = KeyPair::generate_for(spec.key).expect("a key of a supported type");
        let (named, signing) = issuer.map_or((&spec.params, &key), |issuer| (&issuer.params, &issuer.key));
        let mut named = named.clone();
        if let Some(name) = &spec.issuer_name {
            named.distinguished_name = name.clone();
        }
        let stranger;
        let signing = if spec.signed_by_stranger {
            stranger = KeyPair::generate_for(signing.algorithm()).expect("a key of a supported type");
            &stranger
        } else {
            signing
        };
        let certificate =
            spec.params.signed_by(&key, &Issuer::from_params(&named, signing)).expect("parameters of a certificate");
        Self { params: spec.params.clone(), key, der: certificate.der().to_vec(), pem: certificate.pem() }
    }

    /// The self-signed certificate in `directory`, made from `spec` if it is not there yet.
    fn open(spec: &CertificateSpec, directory: &Path, certificate_file: &str, key_file: &str) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let (certificate_path, key_path) = (directory.join(certificate_file), directory.join(key_file));
        if certificate_path.exists() {
            let pem = std::fs::read_to_string(certificate_path)?;
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(io::Error::other)?.to_vec();
            let key = KeyPair::from_pem(&std::fs::read_to_string(key_path)?).map_err(io::Error::other)?;
            // Of these parameters only the name and the key identifier's method reach what is issued.
            return Ok(Self { params: spec.params.clone(), key, der, pem });
        }
        let issued = Self::new(spec, None);
        // The certificate last: where it is, its key is too.
        replace(&key_path, &issued.key.serialize_pem())?;
        replace(&certificate_path, &issued.pem)?;
        Ok(issued)
    }
}

/// Writes a file so that a reader sees all of it or nothing.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension(format!("tmp{}", std::process::id()));
    std::fs::write(&unfinished, text)?;
    std::fs::rename(&unfinished, path)
}

fn now() -> SystemTime {
    SystemTime::now()
}

fn whole_seconds(at: SystemTime) -> time::OffsetDateTime {
    time::OffsetDateTime::from(at).replace_nanosecond(0).expect("zero nanoseconds")
}
