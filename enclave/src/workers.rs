//! The threads that serve the parent: one single-threaded runtime per core. A connection lives on one of them, and so
//! does a request from its first byte to its last: nothing on its path wakes another core, unless there is more to
//! sign than one core should.

use std::cell::Cell;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::time::sleep;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// The workers. Clones are the same ones.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    handles: Arc<[Handle]>,
    next: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts one per core, for the rest of the process.
    pub(crate) fn start() -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let handles = (0..cores).map(start).collect::<io::Result<_>>()?;
        Ok(Self { handles, next: Arc::default() })
    }

    /// As many as that, and all of them the runtime that this runs on.
    #[cfg(test)]
    pub(crate) fn here(count: usize) -> Self {
        Self { handles: vec![Handle::current(); count].into(), next: Arc::default() }
    }

    pub(crate) fn count(&self) -> usize {
        self.handles.len()
    }

    /// Runs `work` on each in turn.
    pub(crate) fn spawn_on_next(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(self.next.fetch_add(1, Ordering::Relaxed) % self.count().max(1), work);
    }

    /// Runs `work` on the worker of this number.
    pub(crate) fn spawn_on(&self, number: usize, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(handle) = self.handles.get(number) {
            handle.spawn(work);
        }
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
