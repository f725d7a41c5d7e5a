//! Callers' connections: how many, how long they may dawdle, and how they end when the process is told
//! to. HTTP/1.1; what is asked over them is the router's matter.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// How long a connection may take for a request's head, and so also how long it may be idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

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
                    let connection = converse(stream, router.clone(), draining.subscribe());
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

async fn converse(stream: TcpStream, router: Router, mut draining: watch::Receiver<bool>) {
    // Replies are small and awaited; a failure only makes them slower.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    // How a connection ends is its caller's matter, also if it ends badly.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = draining.wait_for(|draining| *draining) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
