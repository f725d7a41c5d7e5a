//! What the KMS proxy leads to here: KMS itself for whoever speaks TLS; for a first byte that no TLS record
//! has, a peer that reads nothing, or one that writes without end.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Asks for a peer that reads nothing.
pub(super) const DEAF: u8 = 0xd0;
/// Asks for a peer that writes without end.
pub(super) const ENDLESS: u8 = 0xe0;

/// Ends when dropped.
pub(super) struct Remote {
    pub(super) address: SocketAddr,
    waiting: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

impl Remote {
    pub(super) async fn start(kms: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut server = JoinSet::new();
        let of_all = Arc::clone(&waiting);
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                connections.spawn(serve(stream, kms, Arc::clone(&of_all)));
            }
        });
        Self { address, waiting, _server: server }
    }

    /// How many of those that write without end wait for their peer to read.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, kms: SocketAddr, waiting: Arc<AtomicUsize>) {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first == [DEAF] => std::future::pending().await,
        Ok(1) if first == [ENDLESS] => {
            while timeout(Duration::from_millis(200), stream.write_all(&[0; 16 * 1024])).await.is_ok() {}
            waiting.fetch_add(1, Ordering::Relaxed);
            while stream.write_all(&[0; 16 * 1024]).await.is_ok() {}
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
        _ => {
            let mut kms = TcpStream::connect(kms).await.expect("connected");
            let _ = copy_bidirectional(&mut stream, &mut kms).await;
        }
    }
}
