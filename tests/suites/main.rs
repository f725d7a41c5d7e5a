//! The suites: one binary, one module per promise.

mod attestation;
mod hostile_parent;
mod kms_calls;
mod kms_says_no;
mod mock_kms;
mod mock_nsm;
mod scene;
