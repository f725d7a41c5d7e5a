//! What parent and enclave run on: one thread per core, and local sockets between them. It knows nothing of messages,
//! keys or callers.

mod unix_socket;
mod workers;

pub use unix_socket::UnixSocket;
pub use workers::{Workers, worker_number};
