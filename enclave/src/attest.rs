//! The Nitro Secure Module.

use aws_nitro_enclaves_nsm_api::api::{Request, Response};

/// A Nitro Secure Module at the level of its device: one request in, one response out. The one trait
/// of the project with two lives: `/dev/nsm`, and the tests' mock.
pub trait Attestor: Send + 'static {
    /// Processes one request, as the `ioctl` on `/dev/nsm` does.
    fn process(&mut self, request: Request) -> Response;
}
