//! The SDK's way out: HTTP/1.1 over TLS over a byte stream to the proxy. The proxy sees only
//! ciphertext; the server must have a certificate for the KMS host from a pinned root.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use aws_sdk_kms::config::http::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse as RawResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, Limited};
use hyper::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use strongroom_protocol::Address;
use strongroom_runtime::PerWorker;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tower_service::Service;

use crate::transport::{ByteStream, Peer, dial};

/// Amazon's roots, under which every AWS endpoint's certificate stands
/// (<https://www.amazontrust.com/repository/>).
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// Connecting: vsock has no deadline of its own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections are kept this long; KMS closes them after about a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Idle connections kept, of all workers together.
const MAX_IDLE: usize = 64;
/// Longest reply: an envelope of 6144 bytes in base64, and JSON around it.
const MAX_REPLY: usize = 64 * 1024;

/// The configuration's TLS roots are no certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tls_roots are not certificates in PEM")]
pub(crate) struct InvalidRoots;

/// A pooled HTTPS client over the proxy, for each worker one: a connection lives on the worker that opened it, and a
/// call on another would wake that one at every step.
#[derive(Clone)]
pub(crate) struct Connector(PerWorker<Client<Dialer, SdkBody>>);

impl Connector {
    /// Trusts `roots` (PEM), or Amazon's.
    pub(crate) fn new(proxy: Address, parent: Peer, roots: Option<&str>, workers: usize) -> Result<Self, InvalidRoots> {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots.map_or(AMAZON_ROOTS, str::as_bytes)) {
            store.add(root.map_err(|_| InvalidRoots)?).map_err(|_| InvalidRoots)?;
        }
        if store.is_empty() {
            return Err(InvalidRoots);
        }
        // Named, so that no crate of the tree can bring another one in.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| InvalidRoots)?
            .with_root_certificates(store)
            .with_no_client_auth();
        let dialer = Dialer { proxy: Arc::new(proxy), parent, tls: TlsConnector::from(Arc::new(tls)) };
        let client = |_| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(MAX_IDLE.div_ceil(workers.max(1)))
                .build(dialer.clone())
        };
        Ok(Self(PerWorker::make(workers, client)))
    }

    /// The client in the form that the SDK takes.
    pub(crate) fn into_http_client(self) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(self);
        http_client_fn(move |_, _| connector.clone())
    }

    async fn send(self, request: HttpRequest) -> Result<RawResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?;
        let (head, body) = self.0.here().request(request).await.map_err(|e| ConnectorError::io(e.into()))?.into_parts();
        let body = Limited::new(body, MAX_REPLY).collect().await.map_err(ConnectorError::io)?.to_bytes();
        let response = hyper::Response::from_parts(head, SdkBody::from(body));
        HttpResponse::try_from(response).map_err(|e| ConnectorError::other(e.into(), None))
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().send(request))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// Opens a TLS connection through the proxy.
#[derive(Clone)]
struct Dialer {
    proxy: Arc<Address>,
    parent: Peer,
    tls: TlsConnector,
}

impl Dialer {
    async fn connect(self, uri: Uri) -> io::Result<KmsStream> {
        let host = uri.host().unwrap_or_default().to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = dial(&self.proxy, self.parent).await?;
        Ok(KmsStream(TokioIo::new(self.tls.connect(name, stream).await?)))
    }
}

impl Service<Uri> for Dialer {
    type Response = KmsStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<KmsStream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.clone().connect(uri);
        Box::pin(async move {
            tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| io::ErrorKind::TimedOut)?
        })
    }
}

/// A connection to KMS, for hyper.
struct KmsStream(TokioIo<TlsStream<ByteStream>>);

impl Connection for KmsStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for KmsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for KmsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn amazons_roots_are_compiled_in_and_others_must_be_certificates() {
        let proxy: Address = "unix:/nowhere".parse().expect("valid");
        let connector = |roots| Connector::new(proxy.clone(), Peer { cid: None }, roots, 2);
        assert!(connector(None).is_ok());
        assert_eq!(connector(Some("")).err(), Some(InvalidRoots));
        assert_eq!(connector(Some("not PEM")).err(), Some(InvalidRoots));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(connector(Some(broken)).err(), Some(InvalidRoots));
    }

    #[test]
    fn the_roots_are_those_that_amazon_publishes() {
        use sha2::{Digest, Sha256};
        let fingerprints: Vec<String> = CertificateDer::pem_slice_iter(AMAZON_ROOTS)
            .map(|root| hex::encode(Sha256::digest(root.expect("PEM"))))
            .collect();
        assert_eq!(
            fingerprints,
            [
                "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
                "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
                "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
                "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
                "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
            ]
        );
    }
}
