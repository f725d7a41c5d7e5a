//! The TLS of a stack's REST endpoint: who issues to whom, and the files that the parent reads. What a
//! test rotates or breaks, it rotates or breaks here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::api::tls_client;
use crate::pki::{TlsAuthority, TlsPair, client_spec, server_spec};

/// The server's certificate, in [`Pki::directory`].
pub const CERTIFICATE_FILE: &str = "server.pem";
/// Its key.
pub const KEY_FILE: &str = "server.key";
/// The authorities of client certificates.
pub const CLIENT_CA_FILE: &str = "clients.pem";

const FOLDER: &str = "tls";

/// What the endpoint asks of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// No certificate.
    Nothing,
    /// A certificate, if they have one.
    Optional,
    /// A certificate.
    Required,
}

/// Both authorities of a stack's endpoint, and its files.
pub struct Pki {
    /// Issues to the parent; callers believe it.
    pub servers: TlsAuthority,
    /// Issues to callers; the parent believes it.
    pub clients: TlsAuthority,
    directory: PathBuf,
}

impl Pki {
    /// The PKI of the stack in `directory`. On first use it is made, and its files are put into place.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let directory = directory.join(FOLDER);
        let servers = TlsAuthority::open(&directory.join("servers"))?;
        let clients = TlsAuthority::open(&directory.join("clients"))?;
        let pki = Self { servers, clients, directory };
        if !pki.directory.join(CERTIFICATE_FILE).exists() {
            pki.believe(&pki.clients.root_pem())?;
            pki.install(&pki.server())?;
        }
        Ok(pki)
    }

    /// Where the files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A new certificate for the endpoint.
    #[must_use]
    pub fn server(&self) -> TlsPair {
        self.servers.pair(&server_spec(&["localhost", "127.0.0.1"]))
    }

    /// A certificate for a caller with these DNS names.
    #[must_use]
    pub fn client(&self, names: &[&str]) -> TlsPair {
        self.clients.pair(&client_spec(names))
    }

    /// Puts a pair into place, the key first: for a moment the two do not fit.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn install(&self, pair: &TlsPair) -> io::Result<()> {
        self.replace(KEY_FILE, &pair.key)?;
        self.replace(CERTIFICATE_FILE, &pair.certificate)
    }

    /// Makes the parent believe these authorities (PEM) of client certificates, and no others.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn believe(&self, roots: &str) -> io::Result<()> {
        self.replace(CLIENT_CA_FILE, roots)
    }

    fn replace(&self, file: &str, text: &str) -> io::Result<()> {
        let new = self.directory.join(format!("{file}.new"));
        fs::write(&new, text)?;
        fs::rename(new, self.directory.join(file))
    }

    pub(crate) fn stranger(&self) -> io::Result<reqwest::Client> {
        let pair = self.client(&["stranger.test"]);
        tls_client(&self.servers.root_pem(), Some(&pair))?.build().map_err(io::Error::other)
    }

    pub(crate) fn toml(demand: Demand) -> String {
        let clients = match demand {
            Demand::Nothing => String::new(),
            Demand::Optional => {
                format!("client_ca = \"{FOLDER}/{CLIENT_CA_FILE}\"\nclient_certificates = \"optional\"\n")
            }
            // By default.
            Demand::Required => format!("client_ca = \"{FOLDER}/{CLIENT_CA_FILE}\"\n"),
        };
        format!("[tls]\ncertificate = \"{FOLDER}/{CERTIFICATE_FILE}\"\nkey = \"{FOLDER}/{KEY_FILE}\"\n{clients}")
    }
}
