//! strongroom's parent: the daemon on the EC2 host and the command line. It authenticates callers,
//! keeps the key records, carries bytes between the enclave and KMS, and checks attestation documents
//! offline. It holds no key and decides nothing that a signature's safety rests on: the enclave does
//! not believe it.
//!
//! The way of a request: [`http`] → [`auth`] → [`records`] → [`enclave_client`], and what goes wrong on
//! it becomes a reply in [`problem`].

mod addresses;
pub mod attestation;
pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod credentials;
pub mod doctor;
pub mod enclave_client;
pub mod http;
pub mod image;
pub mod key_state;
pub mod key_store;
pub mod kms_policy;
pub mod kms_proxy;
pub mod logging;
pub mod problem;
pub mod records;
pub mod serve;
pub mod stored_record;
pub mod tls;
pub mod transport;
pub mod verify;
