//! TLS authorities: for the doubles that speak TLS, for the endpoint, and for its clients.

use std::io;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{CertificateSpec, DAY, Issued, YEAR, now, specification, whole_seconds};

/// The file in a TLS authority's directory that holds the root which its believers are given, as PEM.
pub const TLS_ROOT_FILE: &str = "mock-kms-tls-root.pem";

const TLS_ROOT_KEY_FILE: &str = "mock-kms-tls-root.key.pem";

/// Issues certificates of servers and clients.
pub struct TlsAuthority(Issued);

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct TlsPair {
    /// The certificate alone: whoever verifies it has the root.
    pub certificate: String,
    /// PKCS#8.
    pub key: String,
}

impl TlsAuthority {
    /// An authority that lives as long as this value.
    #[must_use]
    pub fn new() -> Self {
        Self(Issued::new(&tls_root(), None))
    }

    /// The authority that lives in `directory`, made there on first use together with
    /// [`TLS_ROOT_FILE`].
    ///
    /// # Errors
    /// The files cannot be read, written or understood.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Issued::open(&tls_root(), directory, TLS_ROOT_FILE, TLS_ROOT_KEY_FILE).map(Self)
    }

    /// The root, as PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.0.pem.clone()
    }

    /// A fresh key and a certificate chain (leaf only: clients have the root) for `host`, a DNS name or
    /// an IP address.
    #[must_use]
    pub fn issue(&self, host: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let leaf = Issued::new(&server_spec(&[host]), Some(&self.0));
        let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).expect("PKCS#8 of our own making");
        (vec![CertificateDer::from(leaf.der)], key)
    }

    /// A fresh key and a certificate that says what `spec` says.
    #[must_use]
    pub fn pair(&self, spec: &CertificateSpec) -> TlsPair {
        let leaf = Issued::new(spec, Some(&self.0));
        TlsPair { certificate: leaf.pem, key: leaf.key.serialize_pem() }
    }
}

impl Default for TlsAuthority {
    fn default() -> Self {
        Self::new()
    }
}

/// The certificate of a server with these names: DNS names or IP addresses, the first of them also as
/// the subject. ECDSA P-256, valid from yesterday, for 90 days.
#[must_use]
pub fn server_spec(names: &[&str]) -> CertificateSpec {
    leaf_spec(names, ExtendedKeyUsagePurpose::ServerAuth)
}

/// The certificate of a client with these names; like [`server_spec`].
#[must_use]
pub fn client_spec(names: &[&str]) -> CertificateSpec {
    leaf_spec(names, ExtendedKeyUsagePurpose::ClientAuth)
}

fn leaf_spec(names: &[&str], usage: ExtendedKeyUsagePurpose) -> CertificateSpec {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).expect("DNS names and addresses");
    if let Some(first) = names.into_iter().next() {
        params.distinguished_name.push(DnType::CommonName, first);
    }
    params.not_before = whole_seconds(now() - DAY);
    params.not_after = whole_seconds(now() + 90 * DAY);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    CertificateSpec { params, key: &PKCS_ECDSA_P256_SHA256, issuer_name: None, signed_by_stranger: false }
}

fn tls_root() -> CertificateSpec {
    let mut spec = specification("strongroom test TLS root", (now() - DAY, now() + 10 * YEAR));
    spec.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    spec.params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    spec.key = &PKCS_ECDSA_P256_SHA256;
    spec
}
