//! `strongroom recipient …`: who may receive exported keys, before an enclave's configuration can name them.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use strongroom_protocol::RecipientName;

use super::exit::{Exit, Failure, Outcome};
use super::files::{self, write_private};
use super::key_material::sealing::RecipientKey;
use super::output;

#[derive(Debug, Args)]
pub(super) struct NewRecipient {
    /// The recipient's name in the enclave's configuration: [A-Za-z0-9][A-Za-z0-9._-]{0,63}
    #[arg(long)]
    name: RecipientName,
    /// Where the private key is written: a new file that only you can read
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Makes a recipient's key and prints what the configuration says of them.
pub(super) fn new(NewRecipient { name, key_file, json }: &NewRecipient) -> Outcome {
    if files::is_standard(key_file) {
        return Err(Failure::usage("--key-file: must be a file; standard output gets what is no secret"));
    }
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, error);
    let key = RecipientKey::generate().map_err(|error| failed(&error))?;
    let public_key = key.public_key().map_err(|error| failed(&error))?;
    write_private(key_file, key.to_pem().map_err(|error| failed(&error))?.as_bytes())?;
    let recipient = json!({ "name": name, "public_key": format!("0x{}", hex::encode(*public_key)) });
    output::print(*json, &recipient, |recipient| {
        format!(
            "The private key is in {}: whoever has it can open every key that is exported to {name}.\n\nFor the \
             enclave's configuration, of a ceremony that lists the operation \"export\":\n\n  \"export_recipients\": [{recipient}]\n",
            key_file.display()
        )
    })
}
