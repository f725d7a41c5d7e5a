//! What parent and enclave run on: a process that does not leak, one thread per core, and local sockets. It knows
//! nothing of messages, keys or callers.

mod hardening;
mod per_worker;
mod unix_socket;
mod workers;

pub use hardening::{Hardened, harden};
pub use per_worker::PerWorker;
pub use unix_socket::UnixSocket;
pub use workers::{Workers, worker_number};
