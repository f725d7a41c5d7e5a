//! A real enclave image in a virtual machine: QEMU's `nitro-enclave`, with the kernel's own `/dev/nsm` driver, and
//! vhost-device-vsock between its vsock and Unix sockets. What QEMU's secure module signs is nothing: its documents
//! prove only that the image asks for them as it should.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha384};
use strongroom_parent::transport::Listener;
use strongroom_protocol::{Address, Cid};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use crate::process::{Process, START_TIMEOUT};
use crate::stack::PARENT_ARN;

/// Where the machine's vsock is, in a stack's folder.
pub const SOCKET: &str = "vm.vsock";
/// The EC2 instance that the machine believes to be on.
pub const INSTANCE_ID: &str = "i-0123456789abcdef0";
/// The machine's memory: what an operator would have to reserve.
pub const MEMORY: &str = "128M";
/// The enclave's CID.
const CID: u32 = 16;
const HEARTBEAT_PORT: u32 = 9000;
const HEARTBEAT: u8 = 0xB7;

/// An image and its measurements.
#[derive(Debug, Clone)]
pub struct Image {
    /// The EIF.
    pub eif: PathBuf,
    /// What it measures.
    pub measurements: Measurements,
}

/// PCR0-2, as the builder of an image printed them.
#[derive(Debug, Clone, Copy)]
pub struct Measurements(pub [[u8; 48]; 3]);

/// A machine that runs. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) qemu: Process,
    vsock: Process,
    /// From power-on to the heartbeat.
    pub(crate) boot_time: Duration,
}

impl Image {
    /// An image and the file that the builder wrote beside it.
    ///
    /// # Errors
    /// There is none, or the measurements are not three registers.
    pub fn open(eif: &Path, pcrs: &Path) -> io::Result<Self> {
        Ok(Self { measurements: Measurements::read(pcrs)?, eif: eif.canonicalize()? })
    }
}

impl Measurements {
    /// Reads `{"PCR0": "hex", …}`.
    ///
    /// # Errors
    /// The file is not there, or not that.
    pub fn read(pcrs: &Path) -> io::Result<Self> {
        let missing = |error: io::Error| io::Error::other(format!("{}: {error} (make image)", pcrs.display()));
        let written: Value = serde_json::from_slice(&fs::read(pcrs).map_err(missing)?)?;
        let register = |name: &str| {
            let mut pcr = [0; 48];
            let digits = written.get(name).and_then(Value::as_str).unwrap_or_default();
            hex::decode_to_slice(digits, &mut pcr).map(|()| pcr).map_err(io::Error::other)
        };
        Ok(Self([register("PCR0")?, register("PCR1")?, register("PCR2")?]))
    }
}

/// PCR3 and PCR4 of the machine: the role and the instance that it is told.
#[must_use]
pub fn host_pcrs() -> [[u8; 48]; 2] {
    // As AWS documents it: over the text itself, where other registers are over a digest.
    [PARENT_ARN, INSTANCE_ID].map(|text| Sha384::new().chain_update([0; 48]).chain_update(text).finalize().into())
}

impl Machine {
    /// Boots an image in `directory` and waits for its heartbeat, as nitro-cli does.
    pub(crate) async fn boot(image: &Image, directory: &Path) -> io::Result<Self> {
        let tools = tools()?;
        // What a former machine left there would be in the way.
        let heartbeat = format!("{SOCKET}_{HEARTBEAT_PORT}");
        for name in [SOCKET, "vhost.sock", &heartbeat] {
            let _ = fs::remove_file(directory.join(name));
        }
        let listener = UnixListener::bind(directory.join(&heartbeat))?;

        let mut vsock = Command::new(tools.join("vsock/vhost-device-vsock"));
        vsock.args(["--vm", &format!("guest-cid={CID},socket=vhost.sock,uds-path={SOCKET}")]).current_dir(directory);
        let mut vsock = Process::start("vsock", &mut vsock, directory)?;
        vsock.wait_for(|| directory.join("vhost.sock").exists().then_some(())).await?;

        let mut qemu = Command::from(enclave(image, "vhost.sock", "console.log")?);
        let started = Instant::now();
        let mut qemu = Process::start("enclave", qemu.current_dir(directory), directory)?;
        let ended = |text: &str| {
            let console = fs::read_to_string(directory.join("console.log")).unwrap_or_default();
            io::Error::other(format!("{text}\n{console}"))
        };
        tokio::select! {
            beat = timeout(START_TIMEOUT, async { answer_heartbeat(listener.accept().await?.0).await }) => {
                beat.map_err(|_| ended("no heartbeat in time"))??;
            }
            _ = qemu.child.wait() => return Err(ended("the machine ended")),
        }
        Ok(Self { qemu, vsock, boot_time: started.elapsed() })
    }

    /// Pulls the plug.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        self.qemu.kill().await?;
        self.vsock.kill().await
    }
}

/// QEMU, about to boot an image as an enclave: its vsock is at the socket of vhost-device-vsock, its console in the
/// file.
///
/// # Errors
/// Nobody says where QEMU is.
pub fn enclave(image: &Image, vsock: &str, console: &str) -> io::Result<std::process::Command> {
    let machine = format!(
        "nitro-enclave,vsock=vsock,id={INSTANCE_ID}-enc0123456789abcdef,parent-role={PARENT_ARN},parent-id={INSTANCE_ID}"
    );
    let mut qemu = qemu(vsock, console)?;
    qemu.args(["-M", &machine, "-m", MEMORY]).arg("-kernel").arg(&image.eif);
    Ok(qemu)
}

/// QEMU, but for the machine. Its end is QEMU's: nothing is booted twice.
///
/// # Errors
/// Nobody says where QEMU is.
pub fn qemu(vsock: &str, console: &str) -> io::Result<std::process::Command> {
    let folder = tools()?.join("qemu");
    let mut qemu = std::process::Command::new(folder.join("qemu-system-nitro"));
    qemu.arg("-L").arg(folder.join("fw"));
    qemu.args(["-accel", "tcg", "-cpu", "max", "-nographic", "-nodefaults", "-no-reboot"]);
    qemu.arg("-serial").arg(format!("file:{console}"));
    qemu.arg("-chardev").arg(format!("socket,id=vsock,path={vsock}"));
    Ok(qemu)
}

/// Waits for a heartbeat on this host's own vsock, for an enclave that somebody else boots.
///
/// # Errors
/// There is no vsock, or something else is said.
pub async fn hear_heartbeat() -> io::Result<()> {
    let listener = Listener::bind(&Address::Vsock { cid: Cid::Any, port: HEARTBEAT_PORT }).await?;
    answer_heartbeat(listener.accept().await?).await
}

/// Reads the one byte and sends it back.
async fn answer_heartbeat(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let byte = stream.read_u8().await?;
    if byte != HEARTBEAT {
        return Err(io::Error::other(format!("a heartbeat of {byte:#x}")));
    }
    stream.write_all(&[byte]).await
}

/// Where `tests/boot/install-tools` put QEMU and vhost-device-vsock.
///
/// # Errors
/// The variable that says so is not set.
pub fn tools() -> io::Result<PathBuf> {
    std::env::var_os("STRONGROOM_TOOLS")
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other("STRONGROOM_TOOLS does not say where QEMU is: make test-boot does"))
}
