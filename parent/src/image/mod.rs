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

#[cfg(test)]
mod tests;
