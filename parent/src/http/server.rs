//! Callers' connections: how many, how long they may dawdle, and how they end when the process is told
//! to. HTTP/1.1 or HTTP/2, inside TLS where there is a certificate; what is asked over them is the router's matter,
//! and who a client certificate speaks for, `auth`'s.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use strongroom_runtime::Workers;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;
use tracing::{Instrument as _, debug, debug_span, info, warn};

use crate::tls::{Acceptor, Client};

/// How long a caller may take to agree on TLS.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a connection may take for a request's head, and so also how long it may be idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// How long a caller may take to read a reply before another byte of it can be sent.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// The bytes that a request's head may have.
const MAX_HEAD: usize = 64 * 1024;
/// The same of a request over HTTP/2, where the fields come without their names' repetition.
const MAX_HEADERS: u32 = 16 * 1024;

/// Requests in flight on one HTTP/2 connection. More wait at the caller's.
const MAX_STREAMS: u32 = 256;

/// What an HTTP/2 caller may send of one body, and of all on its connection, before it is read: no connection
/// takes more memory than this beside the bodies that are counted.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How often an HTTP/2 caller is asked whether it still lives; it has [`HEAD_DEADLINE`] to say so.
const PING_EVERY: Duration = Duration::from_secs(10);

/// How long the workers may take for the rest.
const GRACE: Duration = Duration::from_secs(1);

/// Where callers come in: from a listener alone, over plain HTTP.
#[derive(Debug)]
pub struct Entrance {
    /// The socket.
    pub listener: TcpListener,
    /// Makes TLS of its connections.
    pub tls: Option<Acceptor>,
    /// Who serves them.
    pub workers: Workers,
}

impl From<TcpListener> for Entrance {
    fn from(listener: TcpListener) -> Self {
        Self { listener, tls: None, workers: Workers::here(1) }
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
    let Entrance { listener, tls, workers } = entrance.into();
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
                    let (tls, router, draining) = (tls.clone(), router.clone(), draining.subscribe());
                    let connection = async move {
                        // From the acceptor's runtime to the worker's.
                        if let Ok(stream) = stream.into_std().and_then(TcpStream::from_std) {
                            let knows_http2 = tls.is_none() && begins_http2(&stream, draining.clone()).await;
                            receive(stream, knows_http2, tls, router, draining, WRITE_DEADLINE).await;
                        }
                        drop(place);
                    };
                    connections.spawn_on(connection.instrument(debug_span!("connection", %caller)), workers.next());
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
    // What their workers have yet to do for those that were, above all their lines in the log.
    let settled = async {
        for worker in workers.all() {
            let _ = worker.spawn(yield_now()).await;
        }
    };
    let _ = timeout(GRACE, settled).await;
}

/// Whether the first thing that comes is the preface of HTTP/2 (RFC 9113 section 3.4): clients that speak it
/// without TLS know beforehand that the server does. No method of HTTP/1.1 begins like it.
async fn begins_http2(stream: &TcpStream, mut draining: watch::Receiver<bool>) -> bool {
    const PREFACE: &[u8] = b"PRI ";
    let look = async {
        let mut first = [0; PREFACE.len()];
        loop {
            match stream.peek(&mut first).await {
                Ok(length) if length == PREFACE.len() => return first == *PREFACE,
                Ok(length) if length > 0 && first.get(..length) == PREFACE.get(..length) => {
                    sleep(Duration::from_millis(10)).await;
                }
                Ok(_) | Err(_) => return false,
            }
        }
    };
    tokio::select! {
        seen = timeout(HEAD_DEADLINE, look) => seen.unwrap_or_default(),
        _ = draining.wait_for(|draining| *draining) => false,
    }
}

async fn receive<S>(
    stream: S,
    knows_http2: bool,
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
        return converse(stream, Client { certificate: None, knows_http2 }, router, draining).await;
    };
    let accepted = tokio::select! {
        accepted = timeout(HANDSHAKE_DEADLINE, tls.accept(stream)) => accepted,
        _ = draining.wait_for(|draining| *draining) => return,
    };
    match accepted {
        Ok(Ok((stream, client))) => converse(stream, client, router, draining).await,
        // Whoever reaches the port can do this as often as he likes: not for the operator's log.
        Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
        Err(_) => debug!("a TLS handshake took too long"),
    }
}

async fn converse<S>(stream: S, client: Client, router: Router, mut draining: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Client { certificate, knows_http2 } = client;
    let service = router.map_request(move |mut request: Request<Incoming>| {
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        request
    });
    let (stream, service) = (TokioIo::new(stream), TowerToHyperService::new(service));
    // How a connection ends is its caller's matter, also if it ends badly.
    macro_rules! until_drained {
        ($connection:expr) => {{
            let connection = $connection;
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = draining.wait_for(|draining| *draining) => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }};
    }
    if knows_http2 {
        until_drained!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(HEAD_DEADLINE)
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEADERS)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .serve_connection(stream, service)
        );
    } else {
        until_drained!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .max_buf_size(MAX_HEAD)
                .serve_connection(stream, service)
        );
    }
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
            receive(server, false, None, router, never_drained.subscribe(), write_deadline).await;
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
