//! The way to a parent: whom a caller is for it, and whom it has to be. Decides to whom a token may go.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Certificate, Identity, Url};
use strongroom_protocol::SecretString;

/// The way to a parent.
#[derive(Debug)]
pub struct Access {
    /// Its address, such as `https://strongroom.internal:8443`.
    pub url: Url,
    /// A bearer token for it.
    pub token: Option<SecretString>,
    /// Certificates (PEM) of the only authorities that are believed; absent: the system's.
    pub ca: Option<PathBuf>,
    /// A client certificate with its chain, and its key: PEM, in two files or twice the same.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// How long one call may take.
    pub timeout: Duration,
    /// Whether a token may go over plain HTTP to another machine.
    pub token_in_the_clear: bool,
}

/// Why nobody was asked. The caller is to blame.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Not a base URL.
    #[error("--url: must be an address such as https://strongroom.internal:8443, without user, query or fragment")]
    Url,
    /// Whoever carries the request could take the token.
    #[error("a token over plain http to another machine can be read on the way: use https")]
    TokenInTheClear,
    /// No token has such characters.
    #[error("the token is not one: spaces, line breaks and non-ASCII characters are in none")]
    Token,
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file has not what it should have.
    #[error("{path}: {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
    },
    /// TLS options for an address that is not reached by TLS.
    #[error("--ca and --client-certificate say nothing over plain http: use https")]
    TlsOverHttp,
    /// The certificates do not work.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Longest file of certificates read, in bytes.
const MAX_PEM: u64 = 1024 * 1024;

impl Access {
    /// Whether whoever carries the requests could read them: plain HTTP that leaves this machine.
    fn is_in_the_clear(&self) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let loopback = host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback());
        self.url.scheme() == "http" && !loopback
    }

    /// Whether a parent may be asked like this.
    pub(super) fn check(&self) -> Result<(), AccessError> {
        let url = &self.url;
        let bare = url.username().is_empty() && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || !bare || url.query().is_some() || url.fragment().is_some() {
            return Err(AccessError::Url);
        }
        if url.scheme() == "http" && (self.ca.is_some() || self.client_certificate.is_some()) {
            return Err(AccessError::TlsOverHttp);
        }
        let Some(token) = &self.token else { return Ok(()) };
        if token.expose().is_empty() || !token.expose().bytes().all(|c| c.is_ascii_graphic()) {
            return Err(AccessError::Token);
        }
        if self.is_in_the_clear() && !self.token_in_the_clear {
            return Err(AccessError::TokenInTheClear);
        }
        Ok(())
    }

    /// The authorities to believe, if they are named.
    pub(super) fn authorities(&self) -> Result<Option<Vec<Certificate>>, AccessError> {
        let Some(path) = &self.ca else { return Ok(None) };
        let what = "has no certificate (PEM)";
        let authorities = Certificate::from_pem_bundle(&read_pem(path)?).ok().filter(|found| !found.is_empty());
        authorities.map(Some).ok_or_else(|| AccessError::Content { path: path.clone(), what })
    }

    /// The certificate to show, if there is one.
    pub(super) fn identity(&self) -> Result<Option<Identity>, AccessError> {
        self.client_certificate.as_ref().map(|(certificate, key)| client_identity(certificate, key)).transpose()
    }
}

fn client_identity(certificate: &Path, key: &Path) -> Result<Identity, AccessError> {
    let what = "with its key, has no client certificate (PEM; the key PKCS#8, SEC1 or PKCS#1)";
    let mut pem = read_pem(certificate)?;
    if certificate != key {
        pem.push(b'\n');
        pem.extend(read_pem(key)?);
    }
    Identity::from_pem(&pem).map_err(|_| AccessError::Content { path: certificate.to_owned(), what })
}

fn read_pem(path: &Path) -> Result<Vec<u8>, AccessError> {
    use io::Read as _;
    let mut pem = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_PEM).read_to_end(&mut pem))
        .map_err(|source| AccessError::File { path: path.to_owned(), source })?;
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(url: &str, token: Option<&str>) -> Access {
        Access {
            url: url.parse().expect("a URL"),
            token: token.map(|token| SecretString::new(token.to_owned())),
            ca: None,
            client_certificate: None,
            timeout: Duration::from_secs(1),
            token_in_the_clear: false,
        }
    }

    #[test]
    fn a_token_leaves_this_machine_by_tls_only() {
        for url in ["http://127.0.0.1:1", "http://localhost", "http://[::1]:1", "https://parent.internal"] {
            assert!(access(url, Some("srt_x")).check().is_ok(), "{url}");
        }
        for url in ["http://parent.internal", "http://10.0.0.1", "http://localhost.example", "http://127.0.0.1.nip.io"]
        {
            let mut access = access(url, Some("srt_x"));
            assert!(matches!(access.check(), Err(AccessError::TokenInTheClear)), "{url}");
            access.token_in_the_clear = true;
            assert!(access.check().is_ok(), "{url}, told so");
            access.token = None;
            assert!(access.check().is_ok(), "{url}, without a token");
        }
    }

    #[test]
    fn what_is_no_address_or_no_token_is_refused() {
        for url in
            ["ftp://a", "file:///tmp", "http://user@a", "http://user:x@a", "http://a?b=c", "http://a#b", "data:x"]
        {
            assert!(matches!(access(url, None).check(), Err(AccessError::Url)), "{url}");
        }
        for token in ["", "a b", "a\n", "a\r\nx: y", "ä"] {
            assert!(matches!(access("https://a", Some(token)).check(), Err(AccessError::Token)), "{token:?}");
        }
    }
}
