//! The harness: honest doubles of what strongroom talks to. Nothing of ours depends on it.

pub mod api;
pub mod bench;
pub mod demo;
pub mod endpoint;
pub mod frames;
pub mod machine;
pub mod mock_imds;
pub mod mock_kms;
pub mod mock_nsm;
pub mod moto;
pub mod opened;
pub mod pki;
mod process;
pub mod scripts;
pub mod stack;
pub mod vmm;
