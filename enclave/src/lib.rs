//! strongroom's trusted computing base: opens keys by attested KMS calls, signs, wipes.
//!
//! A library so that `strongroom-enclave` (real hardware) and the tests' `dev-enclave` are the same
//! code but for the [`Attestor`] that they hand in.

mod attest;

pub use attest::Attestor;
