//! The two ramdisks of an image that boots straight into the enclave's binary: cpio archives as the kernel unpacks
//! them (Documentation/driver-api/early-userspace/buffer-format.rst), in gzip. Nothing of when, where or by whom
//! they are made is in them, so that the same binary always gives the same bytes.

use std::io::{self, Write as _};

use cpio::newc::{Builder, ModeFileType, trailer};
use flate2::Compression;
use flate2::write::GzEncoder;
use strongroom_protocol::ConfigurationPin;

use super::build::{BuildError, Input};

/// The first ramdisk: what kernel and PID 1 need before PID 1 has mounted anything. The kernel opens the console for
/// PID 1; where there is none, Rust's runtime takes /dev/null in its place, so that no socket becomes a log.
///
/// # Errors
/// None that can be blamed on anybody: it writes to memory.
pub fn skeleton() -> io::Result<Vec<u8>> {
    let mut ramdisk = Ramdisk::new();
    ramdisk.empty("dev", ModeFileType::Directory, 0o755, (0, 0))?;
    ramdisk.empty("dev/console", ModeFileType::Char, 0o600, CONSOLE)?;
    ramdisk.empty("dev/null", ModeFileType::Char, 0o666, NULL)?;
    ramdisk.empty("proc", ModeFileType::Directory, 0o755, (0, 0))?;
    ramdisk.finish()
}

/// The second ramdisk: the binary as `/init` and, if there is one, the pin of the only configuration that it shall
/// accept.
///
/// # Errors
/// The binary cannot be read, or is longer than a cpio archive can hold (4 GiB).
pub fn enclave(binary: Input, pin: Option<ConfigurationPin>) -> Result<Vec<u8>, BuildError> {
    let mut ramdisk = Ramdisk::new();
    if let Some(pin) = pin {
        let name = ConfigurationPin::PATH.trim_start_matches('/');
        ramdisk.file(name, 0o444, Input::from_bytes("the pin", pin.to_text().into_bytes()))?;
    }
    ramdisk.file("init", 0o755, binary)?;
    ramdisk.finish().map_err(BuildError::Output)
}

/// Major and minor of /dev/console and /dev/null (Documentation/admin-guide/devices.txt).
const CONSOLE: (u32, u32) = (5, 1);
const NULL: (u32, u32) = (1, 3);

/// A ramdisk being written. Entries are added in the order of their names.
struct Ramdisk {
    gzip: GzEncoder<Vec<u8>>,
    entries: u32,
}

impl Ramdisk {
    /// The gzip header names no file and no time (RFC 1952, section 2.3.1): the encoder's default.
    fn new() -> Self {
        Self { gzip: GzEncoder::new(Vec::new(), Compression::best()), entries: 0 }
    }

    /// Owner, group and time stay zero. Inode numbers only have to differ.
    fn entry(&mut self, name: &str, kind: ModeFileType, permissions: u32) -> Builder {
        self.entries += 1;
        Builder::new(name).ino(self.entries).mode(permissions).set_mode_file_type(kind)
    }

    fn empty(&mut self, name: &str, kind: ModeFileType, permissions: u32, device: (u32, u32)) -> io::Result<()> {
        let entry = self.entry(name, kind, permissions).rdev_major(device.0).rdev_minor(device.1);
        entry.write(&mut self.gzip, 0).finish()?;
        Ok(())
    }

    fn file(&mut self, name: &str, permissions: u32, content: Input) -> Result<(), BuildError> {
        let size = u32::try_from(content.size()).map_err(|_| BuildError::TooLong(content.name().to_owned()))?;
        let mut entry = self.entry(name, ModeFileType::Regular, permissions).write(&mut self.gzip, size);
        content.copy(&mut |bytes| entry.write_all(bytes))?;
        entry.finish().map_err(BuildError::Output)?;
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        trailer(&mut self.gzip)?;
        self.gzip.finish()
    }
}
