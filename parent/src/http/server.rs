//! Callers' connections: how many, how long they may dawdle, and how they end when the process is told
//! to. HTTP/1.1; what is asked over them is the router's matter.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tracing::{info, warn};

/// How long a connection may take for a request's head, and so also how long it may be idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// How long a caller may take to read a reply before another byte of it can be sent.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// The bytes that a request's head may have.
const MAX_HEAD: usize = 64 * 1024;

/// Serves `router` until `stop` completes; then accepts nothing more, and returns once the requests in
/// flight have been answered or `drain` has passed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    drain: Duration,
    stop: impl Future<Output = ()>,
) {
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
                Ok((stream, _)) => {
                    // Replies are small and awaited; a failure only makes them slower.
                    let _ = stream.set_nodelay(true);
                    let connection = converse(stream, router.clone(), draining.subscribe(), WRITE_DEADLINE);
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

async fn converse<S>(stream: S, router: Router, mut draining: watch::Receiver<bool>, write_deadline: Duration)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    // Without it, a caller who never reads his replies would hold the connection for ever.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write_deadline));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
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
            converse(server, router, never_drained.subscribe(), write_deadline).await;
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
