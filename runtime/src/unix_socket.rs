//! Connected Unix sockets, for machines without vsock: tests, benchmarks, and VMMs that show their guests' vsock so.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// Read at one time. What a read has room for is zeroed before.
const MAX_READ: usize = 16 * 1024;

/// A Unix socket whose reader is woken when there is something to read, and at no other time.
///
/// Tokio's own waits for room to write, too, and the kernel says that there is room whenever the peer has read
/// something: each message would wake its sender once more, on another core. This one waits for room only while there
/// is none.
#[derive(Debug)]
pub struct UnixSocket {
    reading: AsyncFd<UnixStream>,
    /// The same socket, while there is no room.
    writing: Option<AsyncFd<UnixStream>>,
}

impl UnixSocket {
    /// Takes over a connected socket; it lives on the runtime that this is called on.
    ///
    /// # Errors
    /// The machine's.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { reading: register(stream, Interest::READABLE)?, writing: None })
    }

    /// The same, of a stream of Tokio's.
    ///
    /// # Errors
    /// The machine's.
    pub fn over(stream: tokio::net::UnixStream) -> io::Result<Self> {
        Self::new(stream.into_std()?)
    }

    fn socket(&self) -> &UnixStream {
        self.reading.get_ref()
    }
}

/// Waits for no more than `interest`.
#[expect(deprecated, reason = "what replaces it is unsafe, for descriptors that change; a UnixStream keeps its own")]
fn register(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(stream, interest)
}

impl AsyncRead for UnixSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buffer.initialize_unfilled_to(buffer.remaining().min(MAX_READ));
        loop {
            let mut ready = ready!(self.reading.poll_read_ready(cx))?;
            let Ok(read) = ready.try_io(|socket| socket.get_ref().read(room)) else { continue };
            let length = read?;
            // There was no more: the next byte is told of.
            if length != 0 && length < room.len() {
                ready.clear_ready();
            }
            buffer.advance(length);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for UnixSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                written => {
                    self.writing = None;
                    return Poll::Ready(written);
                }
            }
            let writing = match self.writing.take() {
                Some(writing) => writing,
                None => register(self.socket().try_clone()?, Interest::WRITABLE)?,
            };
            let ready = writing.poll_write_ready(cx).map_ok(|mut ready| ready.clear_ready());
            self.writing = Some(writing);
            ready!(ready)?;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn pair() -> (UnixSocket, UnixSocket) {
        let (one, other) = UnixStream::pair().expect("a pair");
        (UnixSocket::new(one).expect("registered"), UnixSocket::new(other).expect("registered"))
    }

    #[tokio::test]
    async fn all_arrives_however_little_room_there_is() {
        let (one, other) = pair();
        let sent: Vec<u8> = (0_u32..1_000_000).flat_map(u32::to_le_bytes).collect();
        let expected = sent.clone();
        let (mut reader, mut writer) = tokio::io::split(one);
        let writing = tokio::spawn(async move {
            writer.write_all(&sent).await?;
            writer.shutdown().await
        });
        // Echoed, so that both sides wait for room.
        let echoing = tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(other);
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await
        });
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.expect("read");
        assert!(received == expected);
        writing.await.expect("no panic").expect("written");
        echoing.await.expect("no panic").expect("echoed");
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_told_to_reader_and_writer() {
        let (mut one, other) = pair();
        drop(other);
        assert_eq!(one.read(&mut [0; 8]).await.expect("an end"), 0);
        assert_eq!(one.write(b"x").await.expect_err("nobody reads").kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn who_waits_for_room_is_told_of_the_peers_end() {
        let (mut one, other) = pair();
        let writing = tokio::spawn(async move { one.write_all(&vec![0; 10_000_000]).await });
        tokio::task::yield_now().await;
        drop(other);
        writing.await.expect("no panic").expect_err("nobody reads");
    }
}
