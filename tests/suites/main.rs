//! The suites: one binary, one module per promise.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails loudly"
)]

mod attestation;
mod boot;
mod canary;
mod command_line;
mod custody;
mod derive;
mod frames;
mod hardening;
mod hostile_parent;
mod hybrid;
mod image;
mod independent;
mod killed;
mod kms_calls;
mod kms_policy;
mod kms_says_no;
mod lifecycle;
mod mock_kms;
mod mock_nsm;
mod paper;
mod residue;
mod rest;
mod rewrap;
mod scene;
mod seeds;
mod shared;
mod stores;
mod tls;
mod walls;
