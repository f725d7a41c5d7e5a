//! The connections to the enclave: one for each worker, living on it. They stand and fall together.

use std::io;
use std::sync::Arc;

use strongroom_protocol::Address;
use strongroom_runtime::{Workers, worker_number};
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
    /// Connects each worker to `address`, one after another.
    ///
    /// # Errors
    /// The other side's: nobody listens, or not for so many.
    pub(super) async fn open(address: &Address, workers: &Workers) -> io::Result<Self> {
        let mut connections = Vec::new();
        for worker in workers.all() {
            let address = address.clone();
            let dialled = worker.spawn(async move { dial(&address).await.map(Connection::open) }).await;
            connections.push(dialled.map_err(io::Error::other)??);
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

    /// What `ask` brings on each of them, side by side, in the order of their answers.
    pub(super) async fn on_each<T: Send + 'static, F>(&self, ask: impl Fn(Connection) -> F) -> Vec<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.all().cloned().map(ask).collect::<JoinSet<T>>().join_all().await
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
