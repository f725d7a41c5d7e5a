//! The connections to the enclave: one for each worker, living on it. They stand and fall together.

use std::io;
use std::sync::Arc;

use strongroom_protocol::Address;
use strongroom_runtime::{Workers, worker_number};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::connection::Connection;
use crate::transport::dial;

/// One connection per worker. Clones share them.
#[derive(Debug, Clone)]
pub struct Lanes {
    first: Connection,
    more: Arc<[Connection]>,
}

impl Lanes {
    /// Connects each worker to `address`, side by side.
    ///
    /// # Errors
    /// The other side's: nobody listens, or not for so many.
    pub(super) async fn open(address: &Address, workers: &Workers) -> io::Result<Self> {
        let dial_on = |worker: &Handle| {
            let address = address.clone();
            worker.spawn(async move { dial(&address).await.map(Connection::open) })
        };
        let dialling: Vec<_> = workers.all().map(dial_on).collect();
        let mut connections = Vec::with_capacity(dialling.len());
        for dialled in dialling {
            connections.push(dialled.await.map_err(io::Error::other)??);
        }
        let mut connections = connections.into_iter();
        let first = connections.next().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Self { first, more: connections.collect() })
    }

    /// The one that the supervisor configures the enclave over.
    pub(super) const fn first(&self) -> &Connection {
        &self.first
    }

    /// That of the worker that this runs on; elsewhere the first.
    pub(super) fn here(&self) -> &Connection {
        worker_number().checked_sub(1).and_then(|number| self.more.get(number)).unwrap_or(&self.first)
    }

    /// What `ask` brings on each of them, side by side, in the order of their answers; or the first error.
    pub(super) async fn on_each<T, E, F>(&self, ask: impl Fn(Connection) -> F) -> Result<Vec<T>, E>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let mut asked: JoinSet<_> = self.all().cloned().map(ask).collect();
        let mut answers = Vec::new();
        // A task that panics has no answer.
        while let Some(answer) = asked.join_next().await {
            if let Ok(answer) = answer {
                answers.push(answer?);
            }
        }
        Ok(answers)
    }

    /// All of them.
    fn all(&self) -> impl Iterator<Item = &Connection> {
        std::iter::once(&self.first).chain(self.more.iter())
    }

    /// Returns once one of them is closed.
    pub(super) async fn one_closed(&self) {
        let closed = |connection: Connection| async move { connection.closed().await };
        self.all().cloned().map(closed).collect::<JoinSet<()>>().join_next().await;
    }

    /// Closes all. Requests in flight fail.
    pub(super) fn close(&self) {
        self.all().for_each(Connection::close);
    }
}
