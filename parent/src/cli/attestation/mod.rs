//! `strongroom attestation …`: documents of an enclave as files. `get` asks a parent, `verify` asks nobody.

mod get;
mod verify;

use clap::Subcommand;

use self::get::Get;
use self::verify::Verify;
use super::exit::{Exit, Failure, Outcome};

#[derive(Debug, Subcommand)]
pub(super) enum AttestationCommand {
    Get(Get),
    Verify(Verify),
}

/// Runs the command.
pub(super) fn run(command: AttestationCommand) -> Outcome {
    match command {
        AttestationCommand::Get(get) => get.run(),
        AttestationCommand::Verify(verify) => verify.run(),
    }
}

/// The nonce that was given, or a new one of 32 random bytes; hex.
pub(super) fn nonce_or_random(given: Option<String>) -> Result<String, Failure> {
    if let Some(nonce) = given {
        return Ok(nonce);
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(format!("0x{}", hex::encode(random)))
}
