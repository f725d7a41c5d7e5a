//! Addresses of the two byte streams: enclave socket and KMS proxy. Parsed here once; each side
//! dials and listens for itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a byte stream leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// `vsock:CID:PORT`, with `ANY` and `PARENT` for a CID.
    Vsock {
        /// The machine.
        cid: Cid,
        /// The port.
        port: u32,
    },
    /// `unix:/path`: local runs.
    Unix(PathBuf),
    /// `unix-hybrid:/path:PORT`: a VMM that exposes guest vsock as Unix sockets, as Firecracker and
    /// vhost-device-vsock do. Towards the guest: connect to `/path`, say `CONNECT PORT\n`, read
    /// `OK …\n`. From the guest: the host listens on `/path_PORT`.
    UnixHybrid {
        /// The VMM's socket.
        path: PathBuf,
        /// The guest's or host's vsock port.
        port: u32,
    },
}

/// A vsock context id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cid {
    /// `ANY`: listen on every one of this machine's.
    Any,
    /// `PARENT`: the one that Configure came from. No boot parameter decides trust.
    Parent,
    /// This one.
    Number(u32),
}

/// A text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address: vsock:CID:PORT, unix:/path or unix-hybrid:/path:PORT (paths under 100 characters)")]
pub struct AddressError;

impl Address {
    /// The socket on which a hybrid VMM's host side listens for its guest: `/path_PORT`.
    #[must_use]
    pub fn hybrid_host_path(path: &Path, port: u32) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("_{port}"));
        PathBuf::from(name)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once(':').ok_or(AddressError)?;
        match scheme {
            "vsock" => {
                let (cid, port) = rest.split_once(':').ok_or(AddressError)?;
                let cid = match cid {
                    "ANY" => Cid::Any,
                    "PARENT" => Cid::Parent,
                    number => Cid::Number(number.parse().map_err(|_| AddressError)?),
                };
                Ok(Self::Vsock { cid, port: port.parse().map_err(|_| AddressError)? })
            }
            "unix" => path(rest).map(Self::Unix),
            "unix-hybrid" => {
                let (socket, port) = rest.rsplit_once(':').ok_or(AddressError)?;
                Ok(Self::UnixHybrid { path: path(socket)?, port: port.parse().map_err(|_| AddressError)? })
            }
            _ => Err(AddressError),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid: Cid::Any, port } => write!(f, "vsock:ANY:{port}"),
            Self::Vsock { cid: Cid::Parent, port } => write!(f, "vsock:PARENT:{port}"),
            Self::Vsock { cid: Cid::Number(cid), port } => write!(f, "vsock:{cid}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::UnixHybrid { path, port } => write!(f, "unix-hybrid:{}:{port}", path.display()),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

/// A Unix socket's path has to fit `sun_path`: 108 bytes on Linux, of which `_PORT` may take some.
fn path(text: &str) -> Result<PathBuf, AddressError> {
    if text.is_empty() || text.len() >= 100 || text.contains('\0') {
        return Err(AddressError);
    }
    Ok(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_their_text() {
        for text in [
            "vsock:ANY:5005",
            "vsock:PARENT:8000",
            "vsock:16:5005",
            "unix:/run/e.sock",
            "unix-hybrid:/run/vm.vsock:5005",
        ] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "5005",
            "vsock",
            "vsock:5005",
            "vsock:any:5005",
            "vsock:3:",
            "vsock:3:x",
            "vsock:-1:5",
            "vsock:3:4:5",
            "unix:",
            "unix-hybrid:/run/vm.vsock",
            "unix-hybrid::1",
            "tcp:127.0.0.1:80",
            &format!("unix:/{}", "x".repeat(99)),
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
