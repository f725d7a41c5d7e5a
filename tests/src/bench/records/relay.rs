//! A way to moto that counts the calls that come along, by operation.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// The way, which the parent takes for the server.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    calls: Arc<Calls>,
}

/// How often each operation was called.
type Calls = Mutex<BTreeMap<String, u32>>;

/// Longest head of a request: the SDK's are below 2 KiB.
const MAX_HEAD: u64 = 16 * 1024;

impl Relay {
    pub(super) async fn open(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let calls = Arc::<Calls>::default();
        let counter = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                tokio::spawn(async move { pass(client, server, &counter).await });
            }
        });
        Ok(Self { address, calls })
    }

    /// The calls of one operation until now.
    pub(super) fn calls(&self, operation: &str) -> u32 {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.get(operation).copied().unwrap_or_default()
    }
}

/// One connection, which is one call: moto's server hangs up after each answer.
async fn pass(mut client: TcpStream, server: SocketAddr, calls: &Calls) -> io::Result<()> {
    let mut head = Vec::new();
    let mut limited = (&mut client).take(MAX_HEAD);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if limited.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head);
    let target = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-amz-target").then(|| value.trim().rsplit('.').next())?
    });
    let operation = target.unwrap_or("another").to_owned();
    *calls.lock().unwrap_or_else(PoisonError::into_inner).entry(operation).or_default() += 1;
    let mut server = TcpStream::connect(server).await?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    server.write_all(&head).await?;
    copy_bidirectional(&mut client, &mut server).await.map(|_| ())
}
