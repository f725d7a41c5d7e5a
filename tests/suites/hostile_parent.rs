//! The parent is hostile and fails. Whoever owns it changes records, configuration, KMS and documents
//! as he likes; each file takes one of these from him. Every test names what he does, the error that
//! the caller sees, and that the next good request is served.

mod configuration;
mod documents;
pub(crate) mod kms_direct;
pub(crate) mod lying_parent;
mod minting;
mod records;
pub(crate) mod relay;
mod socket;
mod verification;
