//! Looks at an enclave without becoming its parent: says hello and asks how it is. Configures nothing and hands it no
//! credentials, so that a parent that serves through it does not notice.

use strongroom_protocol::{Address, ErrorCode, Health, Request, Response, VERSION};

use super::connection::{Connection, Failure};
use super::supervisor::ask;
use crate::transport::dial;

/// Why an enclave did not say how it is.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody listens, or not in time.
    #[error("nothing answers at its address: {0}")]
    Unreachable(std::io::Error),
    /// The enclave's image speaks another version of the protocol.
    #[error("it speaks another version of the protocol")]
    OtherVersion,
    /// Somebody listens, who is no enclave of ours or has no time.
    #[error("what listens there does not answer as an enclave does")]
    NoAnswer,
}

/// How the enclave at this address is.
///
/// # Errors
/// The enclave's, or the operator's: it does not run, or is somebody else.
pub async fn probe(address: &Address, deadline: std::time::Duration) -> Result<Health, ProbeError> {
    let connection = Connection::open(dial(address).await.map_err(ProbeError::Unreachable)?);
    let asked = async {
        match ask(&connection, Request::Hello { version: VERSION }, deadline).await {
            Ok(Response::Hello { version: VERSION }) => {}
            Ok(Response::Hello { .. }) | Err(Failure::Refused(ErrorCode::UnsupportedVersion)) => {
                return Err(ProbeError::OtherVersion);
            }
            Ok(_) | Err(_) => return Err(ProbeError::NoAnswer),
        }
        match ask(&connection, Request::Health, deadline).await {
            Ok(Response::Health(health)) => Ok(health),
            Ok(_) | Err(_) => Err(ProbeError::NoAnswer),
        }
    };
    let health = asked.await;
    connection.close();
    health
}
