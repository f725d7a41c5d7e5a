//! The options by which a command knows the enclave that it believes.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, Failure};
use super::output;
use crate::attestation::TrustAnchor;
use crate::verify::{ExpectedEnclave, VerifyError, read_root};

#[derive(Debug, Args)]
pub(super) struct EnclaveArguments {
    /// Expected registers, {"PCR0": "hex", …} or what nitro-cli printed: PCR0 (the image), and PCR16 unless
    /// --enclave-config is there
    #[arg(long, help_heading = HEADING, value_name = "FILE", required = true)]
    pcrs: Option<PathBuf>,
    /// The enclave's configuration, byte for byte: PCR16 follows from it
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    enclave_config: Option<PathBuf>,
    /// For tests only: believe this root (PEM) instead of AWS's
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    attestation_root: Option<PathBuf>,
}

const HEADING: &str = "Enclave";

impl EnclaveArguments {
    /// The enclave that these options describe.
    pub(super) fn read(&self) -> Result<ExpectedEnclave, Failure> {
        self.warn();
        let pcrs = self.pcrs.as_deref().ok_or_else(|| Failure::usage("--pcrs: which enclave must it be?"))?;
        let (configuration, root) = (self.enclave_config.as_deref(), self.attestation_root.as_deref());
        ExpectedEnclave::read(pcrs, configuration, root).map_err(Failure::usage)
    }

    /// The root of these options, for a command that need not know the enclave.
    pub(super) fn read_root(&self) -> Result<TrustAnchor, Failure> {
        self.warn();
        read_root(self.attestation_root.as_deref()).map_err(Failure::usage)
    }

    fn warn(&self) {
        if self.attestation_root.is_some() {
            output::note(
                "WARNING: --attestation-root replaces AWS's root. Whoever holds that root's key can make any enclave pass.\n\
                 WARNING: this is for test enclaves. Trust nothing of value to one that was verified like this.\n",
            );
        }
    }
}

/// Why there is no verdict. A verdict is the caller's to print.
pub(super) fn no_verdict(error: VerifyError) -> Failure {
    match error {
        VerifyError::Parent(error) => Failure::from(error),
        VerifyError::File { .. } | VerifyError::Pcrs { .. } | VerifyError::Root { .. } => Failure::usage(error),
        VerifyError::Random(_) | VerifyError::Refused(_) => Failure::new(Exit::Failed, error),
    }
}

/// The same for commands whose 1 is the verdict that a key did not pass, so that what is none has another code.
pub(super) fn nothing_found_out(error: VerifyError) -> Failure {
    let failure = no_verdict(error);
    match failure.exit {
        Exit::Failed => Failure { exit: Exit::Unavailable, ..failure },
        _ => failure,
    }
}
