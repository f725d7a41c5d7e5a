//! The options by which a new key's policy is written.

use clap::Args;
use strongroom_protocol::{Algorithm, DerivationPath, PayloadKind, Policy};

use super::exit::Failure;
use super::words;

#[derive(Debug, Args)]
pub(super) struct PolicyArguments {
    /// What it may sign, separated by commas; `digest` is for secp256k1
    #[arg(
        long,
        help_heading = HEADING,
        value_name = "KINDS",
        value_delimiter = ',',
        default_value = "message",
        value_parser = words::<PayloadKind>(&["message", "digest"])
    )]
    payloads: Vec<PayloadKind>,
    /// How long an opened key may stay in the enclave's memory; 0: never beyond one signature
    #[arg(long, help_heading = HEADING, value_name = "SECONDS", default_value_t = 0)]
    hold_seconds: u32,
    /// Where below a seed keys may be used, separated by commas: at these paths and at all that lead on from them
    #[arg(long, help_heading = HEADING, value_name = "PATHS", value_delimiter = ',')]
    paths: Vec<DerivationPath>,
    /// Let it leave the enclave, sealed to a recipient of the enclave's configuration
    #[arg(long, help_heading = HEADING)]
    exportable: bool,
}

const HEADING: &str = "Policy, bound to the key for ever";

impl PolicyArguments {
    /// The policy of a key of this algorithm.
    pub(super) fn policy(self, algorithm: Algorithm) -> Result<Policy, Failure> {
        let policy = Policy::new(self.payloads, self.hold_seconds).map_err(Failure::usage)?;
        let policy = policy.with_paths(self.paths).map_err(Failure::usage)?.with_exportable(self.exportable);
        policy.check_fit(algorithm).map_err(Failure::usage)?;
        Ok(policy)
    }
}
