//! Byte streams from the enclave's side: where the parent connects to, and how the KMS proxy is
//! reached. Decides nothing about what flows.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use strongroom_protocol::{Address, Cid};
use strongroom_runtime::UnixSocket;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// Longest single write. A guest's write of more than 32 KiB stalls for ever on vhost-device-vsock.
const MAX_WRITE: usize = 16 * 1024;

/// The first line on a hybrid socket: `CONNECT ` and a port.
const MAX_CONNECT_LINE: usize = 32;

/// A connected stream; writes go out in pieces of at most 16 KiB.
pub(crate) struct ByteStream(Box<dyn Stream>);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Who connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The vsock context id; none on Unix sockets.
    pub(crate) cid: Option<u32>,
}

/// A bound address.
pub(crate) enum Listener {
    /// AF_VSOCK.
    Vsock(VsockListener),
    /// A Unix socket, and the port of the VMM's protocol if it speaks one.
    Unix(UnixListener, Option<u32>),
}

/// A connection that was accepted, and is no runtime's yet. On a hybrid socket [`Accepted::establish`] has still to
/// read the peer's first line, which must not hold up the next connection.
pub(crate) struct Accepted {
    socket: Socket,
    /// Who connected.
    pub(crate) peer: Peer,
}

impl Listener {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is in use or not possible here.
    pub(crate) fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Vsock { cid, port } => {
                let cid = match cid {
                    Cid::Any => VMADDR_CID_ANY,
                    Cid::Number(cid) => *cid,
                    Cid::Parent => return Err(io::Error::other("PARENT is no address to listen on")),
                };
                VsockListener::bind(VsockAddr::new(cid, *port)).map(Self::Vsock)
            }
            Address::Unix(path) => bind_unix(path).map(|listener| Self::Unix(listener, None)),
            Address::UnixHybrid { path, port } => bind_unix(path).map(|listener| Self::Unix(listener, Some(*port))),
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// Of this one connection, or of a lack of descriptors.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Vsock(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(Accepted { socket: Socket::Vsock(stream.into()), peer: Peer { cid: Some(address.cid()) } })
            }
            Self::Unix(listener, hybrid_port) => {
                let (stream, _) = listener.accept().await?;
                let socket = Socket::Unix(stream.into_std()?, *hybrid_port);
                Ok(Accepted { socket, peer: Peer { cid: None } })
            }
        }
    }
}

enum Socket {
    Vsock(OwnedFd),
    /// And the port of the VMM's protocol if it speaks one.
    Unix(StdUnixStream, Option<u32>),
}

impl Accepted {
    /// The stream, on this runtime, once the peer of a hybrid socket has said `CONNECT PORT\n` and was told `OK …\n`.
    ///
    /// # Errors
    /// The peer's: something else was said, or another port asked for.
    pub(crate) async fn establish(self) -> io::Result<ByteStream> {
        let (mut stream, port) = match self.socket {
            Socket::Vsock(socket) => return Ok(ByteStream::over(VsockStream::from(socket))),
            Socket::Unix(socket, None) => return UnixSocket::new(socket).map(ByteStream::over),
            Socket::Unix(socket, Some(port)) => (UnixStream::from_std(socket)?, port),
        };
        let mut line = Vec::with_capacity(MAX_CONNECT_LINE);
        while line.last() != Some(&b'\n') {
            if line.len() == MAX_CONNECT_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            line.push(stream.read_u8().await?);
        }
        if line != format!("CONNECT {port}\n").as_bytes() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.write_all(format!("OK {port}\n").as_bytes()).await?;
        UnixSocket::over(stream).map(ByteStream::over)
    }
}

/// Connects. `parent` is what `PARENT` stands for: the CID that Configure came from.
///
/// # Errors
/// Nobody listens there, or the address is not possible here.
pub(crate) async fn dial(address: &Address, parent: Peer) -> io::Result<ByteStream> {
    match address {
        Address::Vsock { cid, port } => {
            let cid = match cid {
                Cid::Number(cid) => *cid,
                Cid::Parent => parent.cid.ok_or_else(|| {
                    io::Error::other("PARENT stands for nobody where Configure did not come over vsock")
                })?,
                Cid::Any => return Err(io::Error::other("ANY is no address to connect to")),
            };
            VsockStream::connect(VsockAddr::new(cid, *port)).await.map(ByteStream::over)
        }
        Address::Unix(path) => UnixSocket::over(UnixStream::connect(path).await?).map(ByteStream::over),
        Address::UnixHybrid { path, port } => {
            let stream = UnixStream::connect(Address::hybrid_host_path(path, *port)).await?;
            UnixSocket::over(stream).map(ByteStream::over)
        }
    }
}

/// Binds a Unix socket, replacing one that a dead process left behind.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_dead_socket(path)? => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        outcome => outcome,
    }
}

/// Whether `path` is a socket that nobody listens on. A file of another kind refuses connections too.
fn is_dead_socket(path: &Path) -> io::Result<bool> {
    let refused =
        StdUnixStream::connect(path).err().map(|error| error.kind()) == Some(io::ErrorKind::ConnectionRefused);
    Ok(refused && std::fs::symlink_metadata(path)?.file_type().is_socket())
}

impl ByteStream {
    /// Over any connected stream.
    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(stream))
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ByteStream {
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
        let mut stream = ByteStream::over(pieces.clone());
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
    async fn a_dead_socket_is_replaced_and_a_file_is_not() {
        let folder = std::env::temp_dir().join(format!("strongroom-transport-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (socket, file) = (folder.join("socket"), folder.join("file"));
        let address = |path: &Path| Address::Unix(path.to_owned());
        let listening = Listener::bind(&address(&socket)).expect("binds");
        assert!(Listener::bind(&address(&socket)).is_err(), "somebody listens");
        drop(listening);
        assert!(Listener::bind(&address(&socket)).is_ok(), "nobody listens any more");
        std::fs::write(&file, "precious").expect("written");
        assert!(Listener::bind(&address(&file)).is_err());
        assert_eq!(std::fs::read(&file).expect("still there"), b"precious");
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
