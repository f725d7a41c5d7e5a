//! What the image decides, because it is measured with it, and what the first process of an image owes it: `/dev`
//! and `/proc`, a sign of life, and an end. In an image by nitro-cli AWS's init does that, and we are not the first.

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use strongroom_protocol::{ConfigurationPin, PinError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_vsock::{VsockAddr, VsockStream};

/// Where a parent may be: Nitro's parent instance, and the host of other VMMs.
const PARENT_CIDS: [u32; 2] = [3, 2];
/// Where nitro-cli waits for the sign of life, and what it wants to hear and to see coming back.
const HEARTBEAT_PORT: u32 = 9000;
const HEARTBEAT: u8 = 0xB7;
/// How long each parent may take, in one round after the other. Some VMMs do not answer for a port that nobody
/// serves, and nitro-cli's has been waiting since before we started.
const ROUNDS: [Duration; 4] =
    [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];

/// What this process is in its image.
#[derive(Debug, Clone, Copy, Default)]
pub struct Image {
    /// The only configuration that is accepted; none: any, and PCR16 tells which.
    pub pin: Option<ConfigurationPin>,
    /// Whether this is PID 1. No parent and no command line says so, and none can say otherwise.
    pub first_process: bool,
}

/// Why an image does not work.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The kernel's.
    #[error("{0} cannot be mounted: {1}")]
    Mount(&'static str, nix::Error),
    /// There is a pin, and it cannot be read.
    #[error("{path} cannot be read: {0}", path = ConfigurationPin::PATH)]
    Unreadable(#[source] io::Error),
    /// There is a pin, and it is none.
    #[error("{path}: {0}", path = ConfigurationPin::PATH)]
    Pin(#[from] PinError),
}

impl Image {
    /// Finds out, and mounts what the first process has to.
    ///
    /// # Errors
    /// The image is not as it was meant to be: it must not run.
    pub fn start() -> Result<Self, ImageError> {
        let first_process = std::process::id() == 1;
        if first_process {
            // /dev: the secure module's device. /proc: the number of CPUs. Nothing here needs /sys.
            for (kind, place) in [("devtmpfs", "/dev"), ("proc", "/proc")] {
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
                mount(Some(kind), place, Some(kind), flags, None::<&str>)
                    .map_err(|error| ImageError::Mount(place, error))?;
            }
        }
        Ok(Self { pin: read_pin(Path::new(ConfigurationPin::PATH))?, first_process })
    }

    /// Ends the machine, if this process is its first: the kernel would panic.
    pub fn end(&self) {
        if self.first_process {
            // Returns only if it is not permitted; then the panic does it.
            let _ = reboot(RebootMode::RB_AUTOBOOT);
        }
    }
}

/// Reads the file of a pin, if there is one.
///
/// # Errors
/// There is one, and it is none.
pub fn read_pin(path: &Path) -> Result<Option<ConfigurationPin>, ImageError> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(ConfigurationPin::parse(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ImageError::Unreadable(error)),
    }
}

/// Tells whoever started the machine that it serves. Who hears it is trusted no more than others.
pub(crate) async fn heartbeat() {
    for patience in ROUNDS {
        for cid in PARENT_CIDS {
            match timeout(patience, beat(cid)).await {
                Ok(Ok(())) => {
                    tracing::info!(cid, "heartbeat");
                    return;
                }
                Ok(Err(error)) => tracing::debug!(cid, %error, "no heartbeat"),
                Err(_) => tracing::debug!(cid, "no heartbeat in time"),
            }
        }
        tokio::time::sleep(patience).await;
    }
    tracing::warn!("nobody waits for a heartbeat");
}

async fn beat(cid: u32) -> io::Result<()> {
    let mut stream = VsockStream::connect(VsockAddr::new(cid, HEARTBEAT_PORT)).await?;
    stream.write_all(&[HEARTBEAT]).await?;
    if stream.read_u8().await? == HEARTBEAT { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
