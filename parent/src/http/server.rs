//! Callers' connections: how many, how long they may dawdle, and how they end when the process is told
//! to. HTTP/1.1, inside TLS where there is a certificate; what is asked over them is the router's matter,
//! and who a client certificate speaks for, `auth`'s.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;
use tracing::{Instrument as _, debug, debug_span, info, warn};

use crate::tls::{Acceptor, ClientCertificate};

/// How long a caller may take to agree on TLS.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a connection may take for a request's head, and so also how long it may be idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// How long a caller may take to read a reply before another byte of it can be sent.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// The bytes that a request's head may have.
const MAX_HEAD: usize = 64 * 1024;

/// Where callers come in: from a listener alone, over plain HTTP.
#[derive(Debug)]
pub struct Entrance {
    /// The socket.
    pub listener: TcpListener,
    /// Makes TLS of its connections.
    pub tls: Option<Acceptor>,
}

impl From<TcpListener> for Entrance {
    fn from(listener: TcpListener) -> Self {
        Self { listener, tls: None }
    }
}

/// Serves `router` until `stop` completes; then accepts nothing more, and returns once the requests in
/// flight have been answered or `drain` has passed.
pub async fn serve(
    entrance: impl Into<Entrance>,
    router: Router,
    max_connections: usize,
    drain: Duration,
    stop: impl Future<Output = ()>,
) {
    let Entrance { listener, tls } = entrance.into();
    let places = Arc::new(Semaphore::new(max_connections));
    let draining = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        tokio::select! {
            (place, accepted) = accept => match accepted {
                Ok((stream, caller)) => {
                    // Replies are small and awaited; a failure only makes them slower.
                    let _ = stream.set_nodelay(true);
                    let draining = draining.subscribe();
                    let connection = receive(stream, tls.clone(), router.clone(), draining, WRITE_DEADLINE)
                        .instrument(debug_span!("connection", %caller));
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "a connection cannot be accepted");
                    // For want of file descriptors most likely: let some close.
                    sleep(Duration::from_millis(50)).await;
                }
            },
            () = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    info!(connections = connections.len(), "draining");
    draining.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    if timeout(drain, finished).await.is_err() {
        warn!(connections = connections.len(), "some requests were not finished in time");
    }
}

async fn receive<S>(
    stream: S,
    tls: Option<Acceptor>,
    router: Router,
    mut draining: watch::Receiver<bool>,
    write_deadline: Duration,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    // Without it, a caller who never reads his replies would hold the connection for ever. Below TLS: every
    // byte that leaves counts, not every record.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write_deadline));
    let stream = Box::pin(stream);
    let Some(tls) = tls else {
        return converse(stream, None, router, draining).await;
    };
    let accepted = tokio::select! {
        accepted = timeout(HANDSHAKE_DEADLINE, tls.accept(stream)) => accepted,
        _ = draining.wait_for(|draining| *draining) => return,
    };
    match accepted {
        Ok(Ok((stream, certificate))) => converse(stream, certificate, router, draining).await,
        // Whoever reaches the port can do this as often as he likes: not for the operator's log.
        Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
        Err(_) => debug!("a TLS handshake took too long"),
    }
}

async fn converse<S>(
    stream: S,
    certificate: Option<ClientCertificate>,
    router: Router,
    mut draining: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(move |mut request: Request<Incoming>| {
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    // How a connection ends is its caller's matter, also if it ends badly.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = draining.wait_for(|draining| *draining) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    const REPLY: usize = 64 * 1024;

    fn serving(write_deadline: Duration) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<()>) {
        let router = Router::new().route("/", get(async || "x".repeat(REPLY)));
        let (client, server) = duplex(1024);
        let connection = async move {
            let never_drained = watch::Sender::new(false);
            receive(server, None, router, never_drained.subscribe(), write_deadline).await;
        };
        (client, tokio::spawn(connection))
    }

    #[tokio::test]
    async fn a_caller_who_reads_no_reply_is_not_kept() {
        let (mut client, connection) = serving(Duration::from_millis(50));
        client.write_all(REQUEST).await.expect("written");
        timeout(Duration::from_secs(5), connection).await.expect("it ends").expect("no panic");
    }

    #[tokio::test]
    async fn a_caller_who_reads_slowly_gets_his_whole_reply() {
        let (mut client, _connection) = serving(Duration::from_millis(300));
        client.write_all(REQUEST).await.expect("written");
        let mut read = 0;
        while read < REPLY {
            sleep(Duration::from_millis(10)).await;
            let length = client.read(&mut [0; 1024]).await.expect("served");
            assert!(length > 0, "ended after {read} bytes");
            read += length;
        }
    }
}
