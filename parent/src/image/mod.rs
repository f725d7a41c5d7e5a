//! Enclave image files (EIF): what an enclave boots, and what PCR0 to PCR2 measure. [`build`] writes one, the same
//! inputs always giving the same bytes; [`describe`] reads anybody's. Prints nothing, asks no clock, and knows no configuration: whoever calls
//! says what time it is in the metadata and what is pinned.
//!
//! The format's only specification is AWS's library `aws-nitro-enclaves-image-format`.

pub mod build;
pub mod describe;
pub mod format;
pub mod measurements;
pub mod metadata;
pub mod ramdisk;
pub mod signature;

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens a file, and says how long it is; `None`: it is something else. To open a pipe would wait for its writer.
pub(crate) fn open_file(path: &Path) -> io::Result<Option<(File, u64)>> {
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata.len())))
}

#[cfg(test)]
mod tests;
