//! What the files of `[tls]` must hold: one chain with its key, and the authorities of client certificates.
//! They are read and checked together, so that a pair that does not fit is never served. There is no
//! revocation (CRL, OCSP): whom a valid certificate speaks for is `auth`'s.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::HTTP2;
use crate::config::{self, ClientCertificates};

/// Longest file: thousands of authorities.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Before a certificate expires, it is warned of for so long.
const NOTICE: Duration = Duration::days(14);

/// Files that can be served, checked.
#[derive(Clone)]
pub struct Material {
    /// The server's own certificate.
    pub leaf: Leaf,
    /// From whom client certificates are taken.
    pub clients: Clients,
    pub(super) files: config::Tls,
    pub(super) config: Arc<ServerConfig>,
    pub(super) fingerprint: Fingerprint,
}

/// What is said of the server's own certificate.
#[derive(Debug, Clone)]
pub struct Leaf {
    subject: String,
    names: Vec<String>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// What is said of client certificates.
#[derive(Debug, Clone)]
pub struct Clients(Option<(ClientCertificates, Vec<String>)>);

/// Files that cannot be served. The operator is to blame, or it is the middle of a rotation.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {mend}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong and how to mend it. Nothing of a key.
        mend: String,
    },
}

/// The files, as one look found them.
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Whether two looks have found the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Material {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// The operator's; the text names the file and the mend.
    pub fn load(files: &config::Tls) -> Result<Self, TlsError> {
        Self::new(files, &Contents::read(files)?)
    }

    pub(super) fn new(files: &config::Tls, contents: &Contents) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates(&files.certificate, &contents.certificate)?;
        let leaf = Leaf::of(&files.certificate, &chain)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| content(&files.certificate, error))?;
        let (builder, clients) = match (&files.client_ca, &contents.client_ca) {
            (Some(path), Some(pem)) => {
                let (roots, subjects) = authorities(path, pem)?;
                let demand = files.client_certificates.unwrap_or_default();
                let verifier = verifier(roots, demand, provider).map_err(|error| content(path, error))?;
                (builder.with_client_cert_verifier(verifier), Clients(Some((demand, subjects))))
            }
            _ => (builder.with_no_client_auth(), Clients(None)),
        };
        let key = private_key(&files.key, &contents.key)?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| refused(files, &error))?;
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        // Every connection proves itself anew: of a resumed one, nobody looks at the dates or the authority of
        // its client certificate again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let fingerprint = contents.fingerprint();
        Ok(Self { leaf, clients, files: files.clone(), config: Arc::new(config), fingerprint })
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("leaf", &self.leaf).field("clients", &self.clients).finish_non_exhaustive()
    }
}

impl Leaf {
    fn of(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Self, TlsError> {
        let missing = "no certificate in it: PEM is needed, the server's own certificate first, then its issuers";
        let leaf = chain.first().ok_or_else(|| content(path, missing))?;
        let (_, certificate) = X509Certificate::from_der(leaf)
            .map_err(|error| content(path, format!("its first certificate cannot be read: {error}")))?;
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
        Ok(Self {
            subject: certificate.subject().to_string(),
            names: names.filter_map(host_name).collect(),
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
        })
    }

    /// What is wrong with the certificate's dates at `now`, or soon will be.
    #[must_use]
    pub fn warning(&self, now: OffsetDateTime) -> Option<&'static str> {
        if self.not_after < now {
            Some("the TLS certificate has expired: callers refuse it")
        } else if now < self.not_before {
            Some("the TLS certificate is not valid yet: callers refuse it")
        } else if self.not_after - now < NOTICE {
            Some("the TLS certificate expires in less than 14 days")
        } else {
            None
        }
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not_after = self.not_after.format(&Rfc3339).unwrap_or_default();
        write!(f, "{:?} for {}, valid until {not_after}", self.subject, self.names.join(", "))
    }
}

impl fmt::Display for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("not asked for"),
            Some((demand, authorities)) => write!(f, "{demand}, from {authorities:?}"),
        }
    }
}

impl Contents {
    pub(super) fn read(files: &config::Tls) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for file in [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten() {
            hash.update(file.len().to_be_bytes());
            hash.update(file);
        }
        Fingerprint(hash.finalize().into())
    }
}

impl Fingerprint {
    /// Of files that cannot be read: of the reason.
    pub(super) fn of(contents: &Result<Contents, TlsError>) -> Self {
        match contents {
            Ok(contents) => contents.fingerprint(),
            Err(error) => Self(Sha256::digest(error.to_string()).into()),
        }
    }
}

fn verifier(
    roots: RootCertStore,
    demand: ClientCertificates,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>, impl fmt::Display> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    match demand {
        ClientCertificates::Required => builder.build(),
        ClientCertificates::Optional => builder.allow_unauthenticated().build(),
    }
}

/// The roots of client certificates, and their subjects.
fn authorities(path: &Path, pem: &[u8]) -> Result<(RootCertStore, Vec<String>), TlsError> {
    let certificates = certificates(path, pem)?;
    if certificates.is_empty() {
        return Err(content(path, "no certificate in it: PEM is needed, of the authorities that issue to callers"));
    }
    let (mut roots, mut subjects) = (RootCertStore::empty(), Vec::new());
    for (certificate, number) in certificates.into_iter().zip(1_u32..) {
        let unusable = |error: &dyn fmt::Display| content(path, format!("certificate {number} in it: {error}"));
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|error| unusable(&error))?;
        subjects.push(parsed.subject().to_string());
        roots.add(certificate.clone()).map_err(|error| unusable(&error))?;
    }
    Ok((roots, subjects))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| content(path, not_whole(&error)))
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            content(path, "no private key in it: PEM is needed, in PKCS#8, SEC1 or PKCS#1, not encrypted")
        }
        error => content(path, not_whole(&error)),
    })
}

/// Not in the parser's words, which may quote the file.
fn not_whole(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "not whole PEM: an END line is missing",
        pem::Error::IllegalSectionStart { .. } => "not PEM: a BEGIN line is broken",
        _ => "not PEM: what stands between BEGIN and END is not base64",
    }
}

/// Chain and key as TLS takes them, or not.
fn refused(files: &config::Tls, error: &Error) -> TlsError {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => content(
            &files.key,
            format!(
                "not the key of the first certificate in {}: put the server's own certificate first there, or give its key here",
                files.certificate.display()
            ),
        ),
        Error::InvalidCertificate(error) => {
            content(&files.certificate, format!("its first certificate cannot be used: {error}"))
        }
        _ => content(
            &files.key,
            "the key cannot be used: RSA (2048 bits or more), ECDSA (P-256, P-384) or Ed25519 is needed",
        ),
    }
}

fn host_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(std::net::IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from))
            .map(|address| address.to_string())
            .ok(),
        _ => None,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 > MAX_FILE => Err(content(path, format!("longer than {MAX_FILE} bytes"))),
        Ok(_) => Ok(bytes),
        Err(source) => Err(TlsError::Unreadable { path: path.to_owned(), source }),
    }
}

fn content(path: &Path, mend: impl fmt::Display) -> TlsError {
    TlsError::Content { path: path.to_owned(), mend: mend.to_string() }
}
