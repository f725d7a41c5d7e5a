//! A raw client of the enclave's socket, as a hostile parent would have one: whole requests where they
//! help, single bytes where they hurt. It checks nothing; what the enclave makes of it is the suites'
//! matter.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use bytes::{Buf, BytesMut};
use strongroom_protocol::frame::{self, HEADER};
use strongroom_protocol::{ErrorCode, Request, RequestFrame, Response, ResponseFrame, VERSION};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// The name of the enclave's socket in a stack's folder.
pub const ENCLAVE_SOCKET: &str = "enclave.sock";

/// One connection to an enclave.
#[derive(Debug)]
pub struct EnclaveSocket {
    stream: UnixStream,
    buffer: BytesMut,
    next_id: u64,
}

impl EnclaveSocket {
    /// Connects to the enclave whose socket is in `directory`, and says nothing.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(directory: &Path) -> io::Result<Self> {
        // A socket's path has at most 107 bytes (unix(7)); the way through the folder's descriptor is short.
        let directory = File::open(directory)?;
        let path = format!("/proc/self/fd/{}/{ENCLAVE_SOCKET}", directory.as_raw_fd());
        UnixStream::connect(path).await.map(Self::over)
    }

    /// A connection that was made elsewhere, over which nothing was said yet.
    #[must_use]
    pub fn over(stream: UnixStream) -> Self {
        Self { stream, buffer: BytesMut::new(), next_id: 1 }
    }

    /// Connects and says hello in this version's words.
    ///
    /// # Errors
    /// Nobody listens there, or it does not say hello back.
    pub async fn greeted(directory: &Path) -> io::Result<Self> {
        Self::connect(directory).await?.greet().await
    }

    /// Says hello in this version's words.
    ///
    /// # Errors
    /// The connection ends, or the enclave does not say hello back.
    pub async fn greet(mut self) -> io::Result<Self> {
        match self.ask(Request::Hello { version: VERSION }).await? {
            Ok(Response::Hello { version: VERSION }) => Ok(self),
            other => Err(io::Error::other(format!("not a hello: {other:?}"))),
        }
    }

    /// Sends a request and returns its reply. One at a time.
    ///
    /// # Errors
    /// The connection ends first, or the reply is of another request.
    pub async fn ask(&mut self, request: Request) -> io::Result<Result<Response, ErrorCode>> {
        let id = self.send(request).await?;
        match self.reply().await? {
            Some(reply) if reply.id == id => Ok(reply.result),
            Some(reply) => Err(io::Error::other(format!("a reply to request {} instead of {id}", reply.id))),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Sends a request without waiting for its reply. Returns its id.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, request: Request) -> io::Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let frame = frame::encode(&RequestFrame { id, request }).map_err(io::Error::other)?;
        self.send_bytes(&frame).await?;
        Ok(id)
    }

    /// Sends one CBOR item, whatever it is, behind its length.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_item(&mut self, item: &[u8]) -> io::Result<()> {
        let length = u32::try_from(item.len()).map_err(io::Error::other)?;
        self.send_bytes(&[&length.to_be_bytes(), item].concat()).await
    }

    /// Sends these bytes and no others.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Says that nothing more comes, and goes on reading.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn half_close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// The next reply, of whatever request; `None` once the enclave has closed the connection.
    ///
    /// # Errors
    /// What arrives is no reply, or breaks off.
    pub async fn reply(&mut self) -> io::Result<Option<ResponseFrame>> {
        loop {
            if let Some(length) = frame::announced(&self.buffer).map_err(io::Error::other)?
                && self.buffer.len() >= HEADER + length
            {
                self.buffer.advance(HEADER);
                let item = self.buffer.split_to(length);
                return frame::decode_item(&item).map(Some).map_err(io::Error::other);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                // Closed with bytes of ours unread: a reset instead of an end (unix(7)).
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && self.buffer.is_empty() => {
                    return Ok(None);
                }
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
