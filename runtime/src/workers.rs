//! One single-threaded runtime per core. A connection lives on one of them, and so does a request from its first byte
//! to its last: nothing on its path wakes another core.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::time::sleep;

use crate::per_worker::PerWorker;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// The workers of a process. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Workers {
    handles: PerWorker<Handle>,
    next: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts one per core, but at most `most`, for the rest of the process.
    ///
    /// # Errors
    /// The machine's: no thread, or no descriptors.
    pub fn start(most: usize) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let handles = (0..cores.min(most).max(1)).map(start).collect::<io::Result<Vec<_>>>()?;
        let handles = PerWorker::of(handles).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { handles, next: Arc::default() })
    }

    /// As many as that (one at least), and all of them the runtime that this runs on.
    #[must_use]
    pub fn here(count: usize) -> Self {
        Self { handles: PerWorker::make(count, |_| Handle::current()), next: Arc::default() }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.handles.count()
    }

    /// Each in turn.
    #[must_use]
    pub fn next(&self) -> &Handle {
        self.get(self.next.fetch_add(1, Ordering::Relaxed) % self.count())
    }

    /// The worker of this number; of a number that none has, the first.
    #[must_use]
    pub fn get(&self, number: usize) -> &Handle {
        self.handles.get(number)
    }

    /// All of them, in the order of their numbers.
    pub fn all(&self) -> impl Iterator<Item = &Handle> {
        self.handles.all()
    }
}

/// The number of the worker that this runs on; elsewhere, that of the first.
#[must_use]
pub fn worker_number() -> usize {
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
