//! A double of a VMM that shows its guest's vsock as Unix sockets: between the parent and a dev-enclave it
//! relays what vhost-device-vsock 0.3.0 relays, and loses, forgets and stalls what that one does.
//!
//! What it has from there, by the name of the file:
//! * `vhu_vsock_thread.rs`, `read_local_stream_port`: the line `CONNECT port` must be there whole with the first
//!   byte, or the connection is closed; what comes in the same read behind it is lost. The word in any case,
//!   any white space. `OK` names the guest's port (Firecracker's names one of the host's).
//! * `thread_backend.rs`, `handle_new_guest_conn`: a call to a host port that nobody serves gets no RST
//!   (`enq_rst` is empty), so that the guest's connect runs into its own two seconds. A call to a guest's port
//!   that nobody serves is closed without `OK`.
//! * `vsock_conn.rs`, `recv_pkt`: a host that has ended in one direction has ended in both: SHUTDOWN with both
//!   flags. But a host that closes with bytes unread (ECONNRESET here) is never told of: the guest may write
//!   another 64 KiB, which vanish, and then waits for ever.
//! * `vsock_conn.rs`, `send_pkt`: a guest's SHUTDOWN of one direction is not passed on; of both ends the
//!   connection, with eight seconds (Linux, `VSOCK_CLOSE_TIMEOUT`) for a host that has yet to read.
//! * `main.rs`, `vsock_conn.rs`: 64 KiB of credit for the guest; towards it, pieces of at most 4 KiB (Linux,
//!   `VIRTIO_VSOCK_DEFAULT_RX_BUF_SIZE`).
//!
//! What it cannot show, because its guest's vsock is Unix sockets, too: how long a guest's single write was (one
//! of more than 32 KiB comes in several descriptors and vanishes; unit tests beside both writers watch
//! theirs), and a guest that waits for credit before the kernel's own buffer is full. Nor does it die, as the
//! real one does, of a host that is gone before its `OK`.

use std::fs::{self, File};
use std::future::pending;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The VMM's socket in a stack's folder, to which the host's programs connect. Beside it are those on which
/// they listen.
pub const SOCKET: &str = "vm.vsock";
/// The guest's port that the enclave serves.
pub const ENCLAVE_PORT: u32 = 5005;
/// The host's port that the KMS proxy serves: the one that this VMM's guest can call.
pub const KMS_PROXY_PORT: u32 = 8000;

/// One piece towards the guest.
const GUEST_BUFFER: usize = 4 * 1024;
/// What the guest may have written that the host has not taken: `DEFAULT_TX_BUFFER_SIZE`.
const CREDIT: usize = 64 * 1024;
/// Until the guest's connect gives up: `VSOCK_DEFAULT_CONNECT_TIMEOUT`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Until the guest forgets a connection that it has closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);
/// How much of the host is read in search of the first line's end: a `BufReader`'s buffer.
const LINE_BUFFER: usize = 8 * 1024;

/// A running VMM. Dropped, it takes its connections along.
#[derive(Debug)]
pub struct Vmm {
    machine: Machine,
    _listeners: JoinSet<()>,
}

/// The folder with everybody's sockets, and the word that ends all connections.
#[derive(Debug, Clone)]
struct Machine {
    folder: Arc<File>,
    reset: watch::Sender<()>,
}

impl Vmm {
    /// Starts in `directory`, in which the host's programs and the guest's have their sockets.
    ///
    /// # Errors
    /// The sockets cannot be made there.
    pub fn start(directory: &Path) -> io::Result<Self> {
        let machine = Machine { folder: Arc::new(File::open(directory)?), reset: watch::Sender::new(()) };
        let (from_host, from_guest) = (machine.listen(SOCKET)?, machine.listen(&host_port(KMS_PROXY_PORT))?);
        let mut listeners = JoinSet::new();
        let it = machine.clone();
        listeners.spawn(accept(from_host, machine.reset.clone(), move |host| it.clone().call_from_host(host)));
        let it = machine.clone();
        listeners.spawn(accept(from_guest, machine.reset.clone(), move |guest| it.clone().call_from_guest(guest)));
        Ok(Self { machine, _listeners: listeners })
    }

    /// Ends all connections at once, as a reset of the device does.
    pub fn reset(&self) {
        self.machine.reset.send_replace(());
    }

    /// Connects as a program on the host does, and says nothing yet.
    ///
    /// # Errors
    /// The VMM is gone.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        self.machine.connect(SOCKET).await
    }

    /// Calls a port of the guest as a program on the host does.
    ///
    /// # Errors
    /// Nobody serves the port.
    pub async fn call_guest(&self, port: u32) -> io::Result<UnixStream> {
        let mut stream = self.connect().await?;
        stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
        let expected = format!("OK {port}\n");
        let mut said = vec![0; expected.len()];
        stream.read_exact(&mut said).await?;
        if said == expected.as_bytes() { Ok(stream) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Calls the KMS proxy's port as a program in the guest does. On real vsock this would fail after two
    /// seconds if nobody served it; here the stream ends then.
    ///
    /// # Errors
    /// The VMM is gone.
    pub async fn call_kms_proxy(&self) -> io::Result<UnixStream> {
        self.machine.connect(&host_port(KMS_PROXY_PORT)).await
    }
}

/// The socket on which a program in the guest serves `port`, in the VMM's folder.
#[must_use]
pub fn guest_port(port: u32) -> String {
    format!("guest_{port}")
}

/// The socket to which a program in the guest connects for the host's `port`, in the VMM's folder.
#[must_use]
pub fn host_port(port: u32) -> String {
    format!("host_{port}")
}

impl Machine {
    async fn call_from_host(self, host: UnixStream) {
        let Ok(()) = host.readable().await else { return };
        let Some(port) = first_line(&host) else { return };
        let Ok(guest) = self.connect(&guest_port(port)).await else { return };
        if write_all(&host, format!("OK {port}\n").as_bytes()).await.is_ok() {
            relay(&host, &guest).await;
        }
    }

    async fn call_from_guest(self, guest: UnixStream) {
        match self.connect(&format!("{SOCKET}_{KMS_PROXY_PORT}")).await {
            Ok(host) => relay(&host, &guest).await,
            Err(_) => sleep(CONNECT_TIMEOUT).await,
        }
    }

    async fn connect(&self, socket: &str) -> io::Result<UnixStream> {
        UnixStream::connect(self.path(socket)).await
    }

    fn listen(&self, socket: &str) -> io::Result<UnixListener> {
        let path = self.path(socket);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => UnixListener::bind(path),
        }
    }

    /// A socket's path has at most 107 bytes (unix(7)); the way through the folder's descriptor is short.
    fn path(&self, socket: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{socket}", self.folder.as_raw_fd()))
    }
}

/// Serves every connection until it ends or all are ended.
async fn accept<F>(listener: UnixListener, reset: watch::Sender<()>, serve: impl Fn(UnixStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (served, mut reset) = (serve(stream), reset.subscribe());
                    connections.spawn(async move {
                        tokio::select! {
                            () = served => {}
                            _ = reset.changed() => {}
                        }
                    });
                }
                // Out of descriptors, most likely: let some close.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The port that the host asks for, from what it has said so far.
fn first_line(host: &UnixStream) -> Option<u32> {
    let mut line = Vec::new();
    let mut buffer = [0; LINE_BUFFER];
    while !line.contains(&b'\n') {
        let length = host.try_read(&mut buffer).ok()?;
        if length == 0 {
            break;
        }
        line.extend_from_slice(buffer.get(..length)?);
    }
    let mut words = std::str::from_utf8(line.split(|byte| *byte == b'\n').next()?).ok()?.split_whitespace();
    words.next().filter(|word| word.eq_ignore_ascii_case("connect"))?;
    words.next()?.parse().ok()
}

/// Carries one connection until one side has ended it. The other finds its own closed then.
async fn relay(host: &UnixStream, guest: &UnixStream) {
    let guest_ends = async {
        let mut outward = pin!(outward(guest, host));
        tokio::select! {
            () = &mut outward => hung_up(guest).await,
            () = hung_up(guest) => drop(timeout(CLOSE_TIMEOUT, outward).await),
        }
    };
    tokio::select! {
        () = inward(host, guest) => {}
        () = guest_ends => {}
    }
}

/// From the host to the guest, until the host has ended.
async fn inward(host: &UnixStream, guest: &UnixStream) {
    let mut buffer = [0; GUEST_BUFFER];
    while let Ok(length) = read(host, &mut buffer).await {
        let Some(piece) = buffer.get(..length).filter(|piece| !piece.is_empty()) else { return };
        if write_all(guest, piece).await.is_err() {
            break;
        }
    }
    // A guest that is gone shows elsewhere. A host that is gone like this, nowhere.
    pending().await
}

/// From the guest to the host, until the guest has nothing more to say.
async fn outward(guest: &UnixStream, host: &UnixStream) {
    let mut buffer = vec![0; CREDIT];
    let mut unread = 0;
    loop {
        let Some(room) = buffer.get_mut(unread..).filter(|room| !room.is_empty()) else { return pending().await };
        let length = match read(guest, room).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        // Once the host is gone, what it did not take gives no credit back.
        let piece = room.get(..length).unwrap_or_default();
        if unread != 0 || write_all(host, piece).await.is_err() {
            unread += length;
        }
    }
}

/// Returns once the peer has closed both directions.
async fn hung_up(stream: &UnixStream) {
    // Readiness has no event for this alone: a stream that is writable is ready at once.
    while stream.ready(Interest::WRITABLE).await.is_ok_and(|ready| !ready.is_write_closed()) {
        sleep(Duration::from_millis(10)).await;
    }
}

async fn read(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}

async fn write_all(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
