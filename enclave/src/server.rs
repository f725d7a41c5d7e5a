//! The enclave's socket: who may connect, how much of it, and what becomes of bad frames. Frames are
//! cut from whatever has arrived, requests run side by side, replies go out together in one flush.
//!
//! Garbage, oversize and stalled frames end their connection and nothing else.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use strongroom_protocol::frame::{self, FrameError, HEADER};
use strongroom_protocol::{ErrorCode, Request, RequestFrame, Response, ResponseFrame, VERSION};
use strongroom_runtime::Workers;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use crate::service::Service;
use crate::transport::{Accepted, ByteStream, Listener};

/// Connections at one time.
const MAX_CONNECTIONS: usize = 64;
/// Requests in flight on one connection. More are answered `Busy` at once.
const MAX_IN_FLIGHT: usize = 4096;
/// Bytes of requests in flight on one connection: what waits for KMS waits in memory.
const MAX_BYTES_IN_FLIGHT: usize = 32 * 1024 * 1024;
/// So many times as much is in flight over all connections: one peer that does not read its replies leaves the
/// others as much as it has taken.
const SHARES: usize = 2;
/// From connecting to a valid hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// From a frame's first byte to its last, and for each write.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// From a request to the next one's first byte; a parent asks every five seconds how the enclave is. Not every
/// end of a connection is told to the other side (vhost-device-vsock forgets some), and places are few.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Room made for reading at one time: memory follows what has arrived, not what was announced.
const READ_STEP: usize = 32 * 1024;
/// Replies gathered for one flush.
const MAX_GATHER: usize = 256;

/// Accepts connections for ever.
pub(crate) async fn serve(listener: Listener, service: Arc<Service>, workers: Workers) -> Infallible {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let in_flight = Arc::new(InFlight::shares(SHARES));
    loop {
        let accepted = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            tracing::warn!("too many connections: one was dropped");
            continue;
        };
        let (service, in_flight) = (Arc::clone(&service), Arc::clone(&in_flight));
        workers.next().spawn(async move {
            let peer = accepted.peer;
            if let Err(error) = Connection::run(accepted, service, in_flight, permit).await {
                tracing::info!(?peer, %error, "connection ended");
            }
        });
    }
}

/// Why a connection ended. The peer is to blame for all of it.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("no hello in time, or something else instead")]
    NoHello,
    #[error("it asks for nothing")]
    Idle,
    #[error("a frame was begun and not finished in time")]
    Stalled,
    #[error("it does not read its replies")]
    NotReading,
}

struct Connection {
    reader: ReadHalf<ByteStream>,
    buffer: BytesMut,
}

/// A reply on its way, and its request's place among those in flight.
type Reply = (ResponseFrame, Option<Place>);

/// How much is in flight, on one connection or over all.
struct InFlight {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// Room for one request and for its bytes until its reply is written, on its connection and among all.
type Place = [Permits; 2];
type Permits = [OwnedSemaphorePermit; 2];

/// Whether a request is served.
enum Admission {
    /// It is, and takes a place.
    Counted(Place),
    /// It is, without a place: a question about health is what tells a busy enclave from a dead one.
    Uncounted,
    /// There is no room.
    Refused,
}

impl InFlight {
    fn shares(shares: usize) -> Self {
        let semaphore = |share| Arc::new(Semaphore::new(shares * share));
        Self { requests: semaphore(MAX_IN_FLIGHT), bytes: semaphore(MAX_BYTES_IN_FLIGHT) }
    }

    /// Whether a request of `length` is served here, and among `all`.
    fn admit(&self, all: &Self, request: &Request, length: usize) -> Admission {
        if matches!(request, Request::Health) {
            return Admission::Uncounted;
        }
        let place = self.take(length).and_then(|own| Some([own, all.take(length)?]));
        place.map_or(Admission::Refused, Admission::Counted)
    }

    fn take(&self, length: usize) -> Option<Permits> {
        let length = u32::try_from(length).ok()?;
        let request = Arc::clone(&self.requests).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(length).ok()?;
        Some([request, bytes])
    }
}

impl Connection {
    /// Serves one connection until its end. It has its `permit` for as long as its socket is open: replies that are due
    /// are written even where nothing more is read.
    async fn run(
        accepted: Accepted,
        service: Arc<Service>,
        all: Arc<InFlight>,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), ConnectionError> {
        let peer = accepted.peer;
        let greeted = timeout(HELLO_TIMEOUT, async {
            let (reader, writer) = tokio::io::split(accepted.establish().await?);
            let mut connection = Self { reader, buffer: BytesMut::new() };
            let (hello, _) = connection.next(HELLO_TIMEOUT).await?.ok_or(ConnectionError::NoHello)?;
            Ok::<_, ConnectionError>((connection, writer, hello))
        });
        let (mut connection, mut writer, hello) = greeted.await.map_err(|_| ConnectionError::NoHello)??;
        greet(&mut writer, hello).await?;

        let in_flight = InFlight::shares(1);
        let (replies, queue) = mpsc::channel(MAX_GATHER);
        let mut writing = tokio::spawn(async move {
            let _permit = permit;
            write_replies(writer, queue).await
        });
        loop {
            let request = tokio::select! {
                request = connection.next(IDLE_TIMEOUT) => request?,
                written = &mut writing => return written.unwrap_or(Err(ConnectionError::NotReading)),
            };
            let Some((RequestFrame { id, request }, length)) = request else { return Ok(()) };
            let admission = in_flight.admit(&all, &request, length);
            let pending = |place| Pending(Some((id, replies.clone(), place)));
            let service = Arc::clone(&service);
            let answer = async move { service.handle(request, peer).await };
            // What is not counted is answered here, before the next request is read: a peer that does not
            // read its replies must not pile them up.
            match admission {
                Admission::Counted(place) => drop(tokio::spawn(pending(Some(place)).answer(answer))),
                Admission::Uncounted => pending(None).answer(answer).await,
                Admission::Refused => pending(None).answer(async { Err(ErrorCode::Busy) }).await,
            }
        }
    }

    /// The next request and its length on the wire; none at a clean end between frames. It begins within
    /// `patience`.
    async fn next(&mut self, patience: Duration) -> Result<Option<(RequestFrame, usize)>, ConnectionError> {
        if self.buffer.is_empty() && !timeout(patience, self.fill()).await.map_err(|_| ConnectionError::Idle)?? {
            return Ok(None);
        }
        let item = timeout(FRAME_TIMEOUT, self.rest_of_frame()).await.map_err(|_| ConnectionError::Stalled)??;
        Ok(Some((frame::decode_item(&item)?, item.len())))
    }

    async fn rest_of_frame(&mut self) -> Result<BytesMut, ConnectionError> {
        loop {
            if let Some(length) = frame::announced(&self.buffer)?
                && self.buffer.len() >= HEADER + length
            {
                self.buffer.advance(HEADER);
                return Ok(self.buffer.split_to(length));
            }
            if !self.fill().await? {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Reads what is ready; false at the end of the stream.
    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(READ_STEP);
        Ok(self.reader.read_buf(&mut self.buffer).await? != 0)
    }
}

/// Answers the first frame. Another version is told ours, as an error, and parts.
async fn greet(writer: &mut WriteHalf<ByteStream>, hello: RequestFrame) -> Result<(), ConnectionError> {
    let Request::Hello { version } = hello.request else { return Err(ConnectionError::NoHello) };
    let same = version == VERSION;
    let result = if same { Ok(Response::Hello { version: VERSION }) } else { Err(ErrorCode::UnsupportedVersion) };
    let frame = frame::encode(&ResponseFrame { id: hello.id, result })?;
    timeout(FRAME_TIMEOUT, writer.write_all(&frame)).await.map_err(|_| ConnectionError::NotReading)??;
    if same { Ok(()) } else { Err(ConnectionError::NoHello) }
}

/// Writes replies: all that are ready, then one flush.
async fn write_replies(
    mut writer: WriteHalf<ByteStream>,
    mut queue: mpsc::Receiver<Reply>,
) -> Result<(), ConnectionError> {
    let mut ready: Vec<Reply> = Vec::with_capacity(MAX_GATHER);
    let mut out = Vec::new();
    while queue.recv_many(&mut ready, MAX_GATHER).await != 0 {
        for (reply, _) in &ready {
            out.extend_from_slice(&frame::encode(reply)?);
        }
        let written = async {
            writer.write_all(&out).await?;
            writer.flush().await
        };
        timeout(FRAME_TIMEOUT, written).await.map_err(|_| ConnectionError::NotReading)??;
        ready.clear();
        out.clear();
    }
    Ok(())
}

/// A request that owes a reply. Dropped without one (its handler panicked), it answers `Internal`.
struct Pending(Option<(u64, mpsc::Sender<Reply>, Option<Place>)>);

impl Pending {
    async fn answer(mut self, handler: impl Future<Output = Result<Response, ErrorCode>>) {
        let result = handler.await;
        if let Some((id, replies, place)) = self.0.take() {
            // A connection that is gone meanwhile wants no reply.
            let _ = replies.send((ResponseFrame { id, result }, place)).await;
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((id, replies, place)) = self.0.take() {
            let reply = ResponseFrame { id, result: Err(ErrorCode::Internal) };
            tokio::spawn(async move { replies.send((reply, place)).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_protocol::ByteString;

    #[tokio::test]
    async fn a_peer_that_vanished_without_a_word_keeps_no_place() {
        let (peer, stream) = tokio::io::duplex(64);
        let (reader, _writer) = tokio::io::split(ByteStream::over(stream));
        let mut connection = Connection { reader, buffer: BytesMut::new() };
        let patience = Duration::from_millis(50);
        assert!(matches!(connection.next(patience).await, Err(ConnectionError::Idle)));
        drop(peer);
        assert!(matches!(connection.next(patience).await, Ok(None)), "an end in time is an end");
    }

    #[test]
    fn what_one_connection_takes_leaves_the_same_to_the_others() {
        let (all, first, second) = (InFlight::shares(SHARES), InFlight::shares(1), InFlight::shares(1));
        let admit = |own: &InFlight, length| match own.admit(
            &all,
            &Request::Configure { configuration: ByteString::default() },
            length,
        ) {
            Admission::Counted(place) => Some(place),
            Admission::Uncounted | Admission::Refused => None,
        };
        let taken: Vec<_> = std::iter::from_fn(|| admit(&first, 1)).collect();
        assert_eq!(taken.len(), MAX_IN_FLIGHT);
        assert!(admit(&second, MAX_BYTES_IN_FLIGHT - 1).is_some() && admit(&second, MAX_BYTES_IN_FLIGHT + 1).is_none());
        assert!(admit(&first, 1).is_none());
        drop(taken);
        assert!(admit(&first, 1).is_some());
    }
}
