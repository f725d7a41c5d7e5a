//! The suites: one binary, one module per promise.

mod attestation;
mod mock_kms;
mod mock_nsm;
