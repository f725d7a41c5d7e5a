//! One connection with many requests in flight: ids, frames, replies in any order. It knows neither
//! what the requests mean nor how to get another connection.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use strongroom_protocol::frame::{self, FrameError, HEADER};
use strongroom_protocol::{ErrorCode, RequestFrame, Response, ResponseFrame};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use crate::transport::Stream;

/// A connection. Clones share it; it closes when told to, or by itself when anything is wrong with it.
#[derive(Clone)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Queued>,
}

/// Why a request brought no reply on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection closed before the request left.
    NotSent,
    /// The connection closed after the request may have left.
    Lost,
    /// Too many requests in flight, or too many bytes waiting to be sent.
    Busy,
    /// The deadline passed.
    Deadline,
    /// The request is larger than a frame.
    TooLarge,
    /// The enclave answered with an error.
    Refused(ErrorCode),
}

/// On whose behalf a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// A caller of this service. Bounded, together with all others.
    Caller,
    /// The supervisor: small requests, one at a time. Never refused for want of room, so that callers,
    /// however many, cannot make a living enclave look dead or keep credentials from it.
    Supervisor,
}

struct Shared {
    next_id: AtomicU64,
    /// The replies that are waited for, by request id; `None` once the connection is closed.
    ///
    /// A caller that gives up leaves its entry, so that its late reply is still recognised; a reply
    /// to any other id is the enclave's fault. The entry counts as in flight until then.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Reply>>>>,
    /// Bytes that the queue may still take from callers.
    room: Arc<Semaphore>,
    close: watch::Sender<bool>,
}

type Reply = Result<Response, Failure>;

/// A frame on its way to the writer.
struct Queued {
    id: u64,
    frame: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

/// Callers' requests in flight on one connection.
const MAX_IN_FLIGHT: usize = 4096;

/// Bytes of callers' requests waiting to be sent on one connection.
const MAX_QUEUED: usize = 64 * 1024 * 1024;

/// The writer gathers small frames up to about this many bytes, and then sends them together.
const GATHER: usize = 256 * 1024;

/// Bytes that one read makes room for.
const READ: usize = 64 * 1024;

impl Connection {
    /// Speaks over `stream` from now on.
    pub(super) fn open(stream: Stream) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            next_id: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
            room: Arc::new(Semaphore::new(MAX_QUEUED)),
            close: watch::Sender::new(false),
        });
        tokio::spawn(drive(stream, queued, Arc::clone(&shared)));
        Self { shared, queue }
    }

    /// Sends a request under a new id and waits for its reply.
    pub(super) async fn call(&self, sender: Sender, request: &mut RequestFrame, deadline: Instant) -> Reply {
        request.id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = frame::encode(request).map_err(|_| Failure::TooLarge)?;
        let room = match sender {
            Sender::Caller => Some(self.shared.room_for(&frame)?),
            Sender::Supervisor => None,
        };
        let reply = self.shared.expect_reply(sender, request.id)?;
        self.queue.send(Queued { id: request.id, frame, _room: room }).map_err(|_| Failure::NotSent)?;
        match timeout_at(deadline, reply).await {
            Ok(reply) => reply.unwrap_or(Err(Failure::Lost)),
            Err(_) => Err(Failure::Deadline),
        }
    }

    /// Whether requests can still be sent.
    pub(super) fn is_open(&self) -> bool {
        self.shared.waiting().is_some()
    }

    /// Returns once the connection is closed.
    pub(super) async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Closes the connection. Requests in flight fail.
    pub(super) fn close(&self) {
        self.shared.close.send_replace(true);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("open", &self.is_open()).finish_non_exhaustive()
    }
}

impl Shared {
    fn room_for(&self, frame: &[u8]) -> Result<OwnedSemaphorePermit, Failure> {
        let length = u32::try_from(frame.len()).map_err(|_| Failure::TooLarge)?;
        Arc::clone(&self.room).try_acquire_many_owned(length).map_err(|_| Failure::Busy)
    }

    fn expect_reply(&self, sender: Sender, id: u64) -> Result<oneshot::Receiver<Reply>, Failure> {
        let mut waiting = self.waiting();
        let waiting = waiting.as_mut().ok_or(Failure::NotSent)?;
        if sender == Sender::Caller && waiting.len() >= MAX_IN_FLIGHT {
            return Err(Failure::Busy);
        }
        let (sender, receiver) = oneshot::channel();
        waiting.insert(id, sender);
        Ok(receiver)
    }

    /// Hands a reply to whoever waits for it.
    fn complete(&self, ResponseFrame { id, result }: ResponseFrame) -> Result<(), Fault> {
        let waiting = self.waiting().as_mut().and_then(|waiting| waiting.remove(&id)).ok_or(Fault::UnknownId)?;
        // A caller that gave up does not care.
        let _ = waiting.send(result.map_err(Failure::Refused));
        Ok(())
    }

    fn fail_all(&self, not_sent: &HashSet<u64>) {
        let waiting = self.waiting().take().unwrap_or_default();
        for (id, caller) in waiting {
            let _ = caller.send(Err(if not_sent.contains(&id) { Failure::NotSent } else { Failure::Lost }));
        }
    }

    /// The map is whole between any two statements that hold the lock, so a poisoned one is as good.
    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Reply>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a reply to a request that was never made")]
    UnknownId,
    #[error("the enclave closed the connection")]
    Ended,
}

/// Reads and writes until either fails or the connection is closed, then fails what is in flight.
async fn drive(stream: Stream, mut queue: mpsc::UnboundedReceiver<Queued>, shared: Arc<Shared>) {
    let (reader, writer) = tokio::io::split(stream);
    let mut close = shared.close.subscribe();
    let fault = tokio::select! {
        fault = read_replies(reader, &shared) => Some(fault),
        outcome = write_requests(writer, &mut queue) => outcome.err().map(Fault::Io),
        _ = close.wait_for(|close| *close) => None,
    };
    match fault {
        Some(fault @ Fault::Frame(_) | fault @ Fault::UnknownId) => warn!(%fault, "the enclave broke the protocol"),
        Some(fault) => debug!(%fault, "the connection to the enclave ended"),
        None => debug!("the connection to the enclave was closed"),
    }
    queue.close();
    let mut not_sent = HashSet::new();
    while let Ok(queued) = queue.try_recv() {
        not_sent.insert(queued.id);
    }
    shared.fail_all(&not_sent);
}

async fn read_replies(mut reader: impl AsyncRead + Unpin, shared: &Shared) -> Fault {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return Fault::Ended,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
        if let Err(fault) = cut_frames(&mut buffer, shared) {
            return fault;
        }
    }
}

fn cut_frames(buffer: &mut BytesMut, shared: &Shared) -> Result<(), Fault> {
    while let Some(length) = frame::announced(buffer)? {
        if buffer.len() < HEADER + length {
            break;
        }
        let whole = buffer.split_to(HEADER + length);
        let item = whole.get(HEADER..).unwrap_or_default();
        shared.complete(frame::decode_item(item)?)?;
    }
    Ok(())
}

/// Sends all frames that are ready together. Ends when nobody can queue another.
async fn write_requests(
    mut writer: impl AsyncWrite + Unpin,
    queue: &mut mpsc::UnboundedReceiver<Queued>,
) -> io::Result<()> {
    let mut gathered = Vec::new();
    while let Some(first) = queue.recv().await {
        gathered.clear();
        gathered.extend_from_slice(&first.frame);
        while gathered.len() < GATHER {
            let Ok(next) = queue.try_recv() else { break };
            gathered.extend_from_slice(&next.frame);
        }
        writer.write_all(&gathered).await?;
        writer.flush().await?;
        gathered.shrink_to(GATHER);
    }
    Ok(())
}
