//! The threads that serve callers: one single-threaded runtime per core. A request stays on one of them from
//! its first byte to its last, the way to the enclave included, so that nothing on its path wakes another
//! core. What is not a caller's (the supervisor, the KMS proxy, credentials) runs elsewhere.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// More serve nobody: each has a connection to the enclave, which has 64 places.
const MAX_WORKERS: usize = 16;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// The workers of a process. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Workers {
    first: Handle,
    more: Arc<[Handle]>,
    next: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts one per core, for the rest of the process.
    ///
    /// # Errors
    /// The machine's: no thread, or no descriptors.
    pub fn start() -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let first = start(0)?;
        let more = (1..cores.min(MAX_WORKERS)).map(start).collect::<io::Result<_>>()?;
        Ok(Self { first, more, next: Arc::default() })
    }

    /// The runtime that this runs on, alone.
    #[must_use]
    pub fn here() -> Self {
        Self { first: Handle::current(), more: Arc::default(), next: Arc::default() }
    }

    /// Runs `work` on one of them.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.next().spawn(work)
    }

    /// Each in turn.
    pub(crate) fn next(&self) -> &Handle {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.more.get(turn % (self.more.len() + 1)).unwrap_or(&self.first)
    }

    /// All of them, in the order of [`number`].
    pub(crate) fn all(&self) -> impl Iterator<Item = &Handle> {
        std::iter::once(&self.first).chain(self.more.iter())
    }
}

/// The number of the worker that this runs on; elsewhere, that of the first.
pub(crate) fn number() -> usize {
    NUMBER.get()
}

fn start(number: usize) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        NUMBER.set(number);
        runtime.block_on(tick());
    })?;
    Ok(handle)
}

/// For ever. The runtime's next timer is then never far away, and a request's deadline never before it: a timer that
/// comes first interrupts the wait for events, which costs each request two system calls.
async fn tick() {
    loop {
        sleep(Duration::from_secs(1)).await;
    }
}
