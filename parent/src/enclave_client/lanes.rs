//! The connections to the enclave: one for each worker, living on it. They stand and fall together.

use std::io;

use strongroom_protocol::Address;
use strongroom_runtime::{PerWorker, Workers};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::connection::Connection;
use crate::transport::dial;

/// One connection per worker. Clones share them.
#[derive(Debug, Clone)]
pub struct Lanes(PerWorker<Connection>);

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
        Ok(Self(PerWorker::of(connections).ok_or(io::ErrorKind::NotConnected)?))
    }

    /// The one that the supervisor configures the enclave over.
    pub(super) fn first(&self) -> &Connection {
        self.0.get(0)
    }

    /// That of the worker that this runs on; elsewhere the first.
    pub(super) fn here(&self) -> &Connection {
        self.0.here()
    }

    /// What `ask` brings on each of them, side by side, in the order of their answers; or the first error.
    pub(super) async fn on_each<T, E, F>(&self, ask: impl Fn(Connection) -> F) -> Result<Vec<T>, E>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let mut asked: JoinSet<_> = self.0.all().cloned().map(ask).collect();
        let mut answers = Vec::new();
        // A task that panics has no answer.
        while let Some(answer) = asked.join_next().await {
            if let Ok(answer) = answer {
                answers.push(answer?);
            }
        }
        Ok(answers)
    }

    /// Returns once one of them is closed.
    pub(super) async fn one_closed(&self) {
        let closed = |connection: Connection| async move { connection.closed().await };
        self.0.all().cloned().map(closed).collect::<JoinSet<()>>().join_next().await;
    }

    /// Closes all. Requests in flight fail.
    pub(super) fn close(&self) {
        self.0.all().for_each(Connection::close);
    }
}
