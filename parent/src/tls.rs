//! TLS on the callers' side: which certificate a new connection is shown, and when changed files take its
//! place. What the files must hold is decided in `material`; who a client certificate speaks for, in
//! `peer` and `auth`.

mod material;
mod peer;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

use crate::config;
use material::{Contents, Fingerprint};
pub use material::{Leaf, Material, TlsError};
pub use peer::{ClientCertificate, DnsName};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often it is said again that a certificate is about to expire.
const REMINDER: Duration = Duration::from_secs(24 * 3600);

/// The name of HTTP/2 in the handshake (RFC 7301).
const HTTP2: &[u8] = b"h2";

/// The other side of a connection.
#[derive(Debug)]
pub struct Client {
    /// The certificate that it proved to own, if it showed one that has a DNS name.
    pub certificate: Option<ClientCertificate>,
    /// Whether HTTP/2 is spoken; otherwise HTTP/1.1.
    pub knows_http2: bool,
}

/// Makes TLS of new connections. Its clones follow the same files.
#[derive(Debug, Clone)]
pub struct Acceptor(watch::Receiver<Arc<ServerConfig>>);

impl Acceptor {
    /// Serves `material` and, as long as a clone of this lives, what the files are changed to. They are
    /// looked at all the time, and at once when `hangups` has a signal.
    #[must_use]
    pub fn start(material: Material, hangups: Signal) -> Self {
        announce(&material);
        let current = watch::Sender::new(Arc::clone(&material.config));
        let acceptor = Self(current.subscribe());
        tokio::spawn(follow(material, current, hangups));
        acceptor
    }

    /// Shakes hands: the connection, and what its client showed of itself. Sets no deadline.
    ///
    /// # Errors
    /// The client's, or the network's: no TLS, no common version, a certificate that nobody of
    /// `client_ca` issued or that is out of date, none where one is required.
    pub async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Client)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.0.borrow());
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let certificate = leaf.and_then(|leaf| ClientCertificate::of(leaf));
        let knows_http2 = session.alpn_protocol() == Some(HTTP2);
        Ok((stream, Client { certificate, knows_http2 }))
    }
}

/// Looks at the files for ever. Whatever they become, the last that could be used stays in service, and
/// connections keep what they were accepted with.
async fn follow(material: Material, current: watch::Sender<Arc<ServerConfig>>, mut hangups: Signal) {
    let Material { files, fingerprint, mut leaf, .. } = material;
    let files = Arc::new(files);
    let (mut tried, mut seen) = (fingerprint, fingerprint);
    let mut reminded = Instant::now();
    while !current.is_closed() {
        let asked = tokio::select! {
            () = sleep(LOOK) => false,
            Some(()) = hangups.recv() => true,
        };
        let Some((contents, found)) = look(&files).await else { continue };
        // Somebody may still be writing: a change counts once two looks in a row have found the same.
        let settled = seen == found;
        seen = found;
        if asked || (settled && found != tried) {
            tried = found;
            match contents.and_then(|contents| Material::new(&files, &contents)) {
                Ok(material) => {
                    announce(&material);
                    current.send_replace(material.config);
                    leaf = material.leaf;
                    reminded = Instant::now();
                }
                Err(error) => warn!(%error, "the TLS files cannot be used: the last good ones stay in service"),
            }
        }
        if reminded.elapsed() > REMINDER {
            reminded = Instant::now();
            warn_of_expiry(&leaf);
        }
    }
}

async fn look(files: &Arc<config::Tls>) -> Option<(Result<Contents, TlsError>, Fingerprint)> {
    let files = Arc::clone(files);
    spawn_blocking(move || {
        let contents = Contents::read(&files);
        let found = Fingerprint::of(&contents);
        (contents, found)
    })
    .await
    .ok()
}

fn announce(material: &Material) {
    let Material { leaf, clients, .. } = material;
    info!(certificate = %leaf, client_certificates = %clients, "TLS files loaded");
    warn_of_expiry(leaf);
}

fn warn_of_expiry(leaf: &Leaf) {
    if let Some(warning) = leaf.warning(OffsetDateTime::now_utc()) {
        warn!(certificate = %leaf, "{warning}");
    }
}
