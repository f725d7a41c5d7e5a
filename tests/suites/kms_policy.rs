//! Key policies: what the evaluator makes of them, what `strongroom kms-policy generate` writes, what `lint` finds, and
//! that mock-kms, asked over the wire, agrees with it.

mod evaluate;
mod generate;
mod lint;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::command_line::{said, strongroom};
use crate::mock_kms::running::{ADMINISTRATOR, ROLE};

const ENCLAVE: &str = include_str!("../../enclave.example.json");

/// A role that may create keys.
const PROVISIONER: &str = "arn:aws:iam::111122223333:role/provisioner";

/// `pcrs.json` of an image whose PCR0 is this byte 48 times.
fn write_image(directory: &Path, name: &str, pcr0: u8) {
    let pcrs = json!({ "PCR0": hex::encode([pcr0; 48]), "PCR1": hex::encode([1; 48]), "PCR2": hex::encode([2; 48]) });
    fs::write(directory.join(name), pcrs.to_string()).expect("written");
}

/// What `kms-policy generate` prints with these options besides the administrator and the user.
async fn generated(directory: &Path, options: &[&str]) -> Value {
    let roles = ["--administrator", ADMINISTRATOR, "--user", ROLE];
    let output = strongroom(directory, &[&["kms-policy", "generate"], &roles[..], options].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{options:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
}

/// What `kms-policy lint` says of a policy: its exit code, and the findings.
async fn linted(directory: &Path, policy: &Value, options: &[&str]) -> (Option<i32>, Vec<Value>) {
    fs::write(directory.join("policy-to-lint.json"), policy.to_string()).expect("written");
    let arguments = [&["kms-policy", "lint", "policy-to-lint.json", "--json"], options].concat();
    let output = strongroom(directory, &arguments).await;
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    (output.status.code(), report["findings"].as_array().expect("an array").clone())
}
