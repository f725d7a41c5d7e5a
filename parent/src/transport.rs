//! Byte streams by [`Address`]: dialling the enclave, listening for it. Vsock on Nitro, Unix sockets for
//! local runs, and Unix sockets in front of guest vsock for VMMs that work that way. What travels
//! over them is not its matter.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use strongroom_protocol::{Address, Cid};
use strongroom_runtime::UnixSocket;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// A connected stream of any kind; writes go out in pieces of at most 16 KiB.
pub struct Stream(Box<dyn ByteStream>);

trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Largest single write: vsock back ends have trouble with larger ones.
const MAX_WRITE: usize = 16 * 1024;

/// How long a connection may take to be there. Vsock's own connect has no deadline.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Longest greeting of a hybrid VMM: `OK 4294967295\n`, with room.
const MAX_GREETING: usize = 32;

/// Connects to `address`.
///
/// # Errors
/// The other side's: nobody listens, or it takes longer than two seconds.
pub async fn dial(address: &Address) -> io::Result<Stream> {
    timeout(CONNECT_DEADLINE, connect(address)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn connect(address: &Address) -> io::Result<Stream> {
    match address {
        Address::Vsock { cid: Cid::Number(cid), port } => {
            VsockStream::connect(VsockAddr::new(*cid, *port)).await.map(Stream::over)
        }
        Address::Vsock { cid: Cid::Any | Cid::Parent, .. } => Err(io::ErrorKind::AddrNotAvailable.into()),
        Address::Unix(path) => Stream::over_unix(UnixStream::connect(path).await?),
        Address::UnixHybrid { path, port } => Stream::over_unix(connect_hybrid(path, *port).await?),
    }
}

/// Firecracker's and vhost-device-vsock's handshake: `CONNECT port\n` is answered with `OK port\n`, and
/// then the guest's bytes follow. Read byte by byte, so that none of those is swallowed.
async fn connect_hybrid(path: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut greeting = Vec::with_capacity(MAX_GREETING);
    while greeting.last() != Some(&b'\n') {
        if greeting.len() == MAX_GREETING {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the VMM's greeting does not end"));
        }
        match stream.read_u8().await {
            Ok(byte) => greeting.push(byte),
            // How both say that nobody in the guest serves the port.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    if greeting.starts_with(b"OK ") && greeting.ends_with(b"\n") {
        Ok(stream)
    } else {
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the VMM did not connect to the guest's port"))
    }
}

/// Accepts connections on an [`Address`].
#[derive(Debug)]
pub enum Listener {
    /// On vsock.
    Vsock(VsockListener),
    /// On a Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Listens on `address`. For a hybrid VMM that is the socket on which the guest's calls to the
    /// host's port arrive.
    ///
    /// # Errors
    /// The operator's: the address is taken, or cannot be listened on.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Vsock { cid, port } => {
                let cid = match cid {
                    Cid::Any => VMADDR_CID_ANY,
                    Cid::Number(cid) => *cid,
                    Cid::Parent => return Err(io::ErrorKind::AddrNotAvailable.into()),
                };
                VsockListener::bind(VsockAddr::new(cid, *port)).map(Self::Vsock)
            }
            Address::Unix(path) => bind_unix(path).await,
            Address::UnixHybrid { path, port } => bind_unix(&Address::hybrid_host_path(path, *port)).await,
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// This machine's, for want of resources mostly; the listener stays usable.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Vsock(listener) => listener.accept().await.map(|(stream, _)| Stream::over(stream)),
            Self::Unix(listener) => Stream::over_unix(listener.accept().await?.0),
        }
    }
}

/// A socket file outlives its process. One that nobody listens on any more is removed; one that
/// answers is another process's, and stays.
async fn bind_unix(path: &Path) -> io::Result<Listener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !is_abandoned_socket(path).await {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path).map(Listener::Unix)
        }
        bound => bound.map(Listener::Unix),
    }
}

/// Connecting to a file that is no socket, or to a link, is refused in the same words: only the file
/// itself tells.
async fn is_abandoned_socket(path: &Path) -> bool {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        && UnixStream::connect(path).await.is_err_and(refused)
}

impl Stream {
    fn over(stream: impl ByteStream + 'static) -> Self {
        Self(Box::new(stream))
    }

    fn over_unix(stream: UnixStream) -> io::Result<Self> {
        UnixSocket::over(stream).map(Self::over)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, buf.get(..MAX_WRITE).unwrap_or(buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSlice;
    use std::sync::{Arc, Mutex};

    /// Takes whatever it is given, and remembers in which pieces.
    #[derive(Clone, Default)]
    struct Pieces(Arc<Mutex<Vec<Vec<u8>>>>);

    impl AsyncRead for Pieces {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Pieces {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.0.lock().expect("not poisoned").push(buf.to_vec());
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn writes_go_out_in_pieces_of_at_most_16_kib() {
        let pieces = Pieces::default();
        let mut stream = Stream::over(pieces.clone());
        let bytes: Vec<u8> = (0..100_000).map(|n| (n % 251) as u8).collect();
        stream.write_all(&bytes).await.expect("written");
        let mut taken = std::mem::take(&mut *pieces.0.lock().expect("not poisoned"));
        assert!(taken.iter().all(|piece| piece.len() <= 16 * 1024));
        assert_eq!(taken.concat(), bytes);

        let slices = [IoSlice::new(&bytes), IoSlice::new(&bytes)];
        let length = stream.write_vectored(&slices).await.expect("written");
        taken = std::mem::take(&mut *pieces.0.lock().expect("not poisoned"));
        assert!(length <= 16 * 1024 && taken.iter().all(|piece| piece.len() <= 16 * 1024));
        assert_eq!(taken.concat(), bytes[..length]);
    }

    #[tokio::test]
    async fn a_stale_socket_file_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().expect("folder");
        let address = Address::Unix(folder.path().join("s"));
        drop(Listener::bind(&address).await.expect("bound"));
        let living = Listener::bind(&address).await.expect("the stale file is replaced");
        assert_eq!(Listener::bind(&address).await.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        drop(living);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let folder = tempfile::tempdir().expect("folder");
        let (file, link) = (folder.path().join("notes"), folder.path().join("link"));
        std::fs::write(&file, "not ours").expect("written");
        let stale = folder.path().join("stale");
        drop(Listener::bind(&Address::Unix(stale.clone())).await.expect("bound"));
        std::os::unix::fs::symlink(&stale, &link).expect("linked");
        for path in [&file, &link] {
            let taken = Listener::bind(&Address::Unix(path.clone())).await.expect_err("taken");
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        }
        assert_eq!(std::fs::read(&file).expect("still there"), b"not ours");
        assert!(link.is_symlink() && stale.exists());
    }

    #[tokio::test]
    async fn the_hybrid_handshake_swallows_no_byte_of_the_guest() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("vm");
        let listener = UnixListener::bind(&path).expect("bound");
        let vmm = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut line = [0; 13];
            stream.read_exact(&mut line).await.expect("read");
            assert_eq!(&line, b"CONNECT 5005\n");
            stream.write_all(b"OK 1073741824\nhello").await.expect("written");
        });
        let mut stream = dial(&Address::UnixHybrid { path, port: 5005 }).await.expect("connected");
        let mut hello = String::new();
        stream.read_to_string(&mut hello).await.expect("read");
        assert_eq!(hello, "hello");
        vmm.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_hybrid_vmm_that_refuses_or_babbles_is_an_error() {
        for greeting in ["NO\n", "OK", "", &"x".repeat(100)] {
            let folder = tempfile::tempdir().expect("folder");
            let path = folder.path().join("vm");
            let listener = UnixListener::bind(&path).expect("bound");
            let vmm = async {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                stream.read_exact(&mut [0; 13]).await.expect("read");
                stream.write_all(greeting.as_bytes()).await.expect("written");
            };
            let address = Address::UnixHybrid { path, port: 5005 };
            let (dialled, ()) = tokio::join!(dial(&address), vmm);
            let error = dialled.err().expect("no stream");
            let expected =
                if greeting.len() == 100 { io::ErrorKind::InvalidData } else { io::ErrorKind::ConnectionRefused };
            assert_eq!(error.kind(), expected, "{greeting}");
        }
    }
}
