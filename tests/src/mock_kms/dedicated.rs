//! The key policy for a KMS key that wraps signing keys and does nothing else. Decides what admits
//! an enclave to such a key: the pair of its image (PCR0) and its configuration (PCR16).
//!
//! Each rule forecloses one way around attestation:
//! * One Allow per pair: lists in one statement would admit every image with every configuration.
//! * One Deny per register: conditions of one statement are ANDed, so a joint Deny would fire only
//!   when both are wrong. Denies, because a conditional Allow is no gate beside another Allow.
//! * `Encrypt` and its kin are denied to everyone: attestation cannot gate them, and whoever may
//!   encrypt can mint a record around a key of his own.
//! * No grants and no replicas: they admit past this policy.
//! * Nothing without the binding in the encryption context: only sealed records open.

use serde_json::{Value, json};

/// An image and a configuration that together may use the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    pcr0: [u8; 48],
    pcr16: [u8; 48],
}

/// A register is zero, so it admits what was never measured: any debug-mode enclave (PCR0), or one
/// that took no configuration (PCR16). The policy's author is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("PCR{0} is zero: that admits an enclave that was not measured")]
pub struct Unmeasured(pub u8);

impl Admitted {
    /// Admits the image `pcr0` with the configuration `pcr16` (SHA-384 each).
    ///
    /// # Errors
    /// The author's: a register is zero.
    pub fn new(pcr0: [u8; 48], pcr16: [u8; 48]) -> Result<Self, Unmeasured> {
        match (pcr0, pcr16) {
            (pcr0, _) if pcr0 == [0; 48] => Err(Unmeasured(0)),
            (_, pcr16) if pcr16 == [0; 48] => Err(Unmeasured(16)),
            (pcr0, pcr16) => Ok(Self { pcr0, pcr16 }),
        }
    }
}

/// The policy under which `user_arn` (the parent's role) may use the key from `admitted` enclaves
/// only, and `administrator_arn` may change the policy and the key's state but not use the key. With
/// nothing admitted, nobody can use it.
#[must_use]
pub fn dedicated_key_policy(administrator_arn: &str, user_arn: &str, admitted: &[Admitted]) -> Value {
    let mut statements = vec![administration(administrator_arn)];
    statements.extend(admitted.iter().enumerate().map(|(n, pair)| admission(n, user_arn, pair)));
    statements.push(deny_other("DenyOtherImages", PCR0, admitted.iter().map(|pair| pair.pcr0)));
    statements.push(deny_other("DenyOtherConfigurations", PCR16, admitted.iter().map(|pair| pair.pcr16)));
    statements.push(deny_unbound());
    statements.push(deny_ungated());
    json!({ "Version": "2012-10-17", "Statement": statements })
}

const PCR0: &str = "kms:RecipientAttestation:PCR0";
const PCR16: &str = "kms:RecipientAttestation:PCR16";
const BINDING: &str = "kms:EncryptionContext:strongroom:binding";

/// The actions that an enclave uses. Both take an attestation document.
const USE: [&str; 2] = ["kms:Decrypt", "kms:GenerateDataKey"];

fn administration(administrator_arn: &str) -> Value {
    json!({
        "Sid": "Administer",
        "Effect": "Allow",
        "Principal": { "AWS": administrator_arn },
        "Action": [
            "kms:DescribeKey", "kms:GetKeyPolicy", "kms:PutKeyPolicy", "kms:EnableKey", "kms:DisableKey",
            "kms:GetKeyRotationStatus", "kms:EnableKeyRotation", "kms:TagResource", "kms:UntagResource",
            "kms:ListResourceTags", "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion",
        ],
        "Resource": "*",
    })
}

fn admission(number: usize, user_arn: &str, pair: &Admitted) -> Value {
    json!({
        "Sid": format!("Admit{number}"),
        "Effect": "Allow",
        "Principal": { "AWS": user_arn },
        "Action": USE,
        "Resource": "*",
        "Condition": {
            "StringEqualsIgnoreCase": { PCR0: hex::encode(pair.pcr0), PCR16: hex::encode(pair.pcr16) },
        },
    })
}

/// Negated operators match a missing key, so this also denies every call without a document.
fn deny_other(sid: &str, register: &str, admitted: impl Iterator<Item = [u8; 48]>) -> Value {
    let mut values: Vec<String> = admitted.map(hex::encode).collect();
    values.sort_unstable();
    values.dedup();
    let mut statement = deny(sid, &USE);
    // IAM refuses an empty list of values; with nothing admitted the Deny has no condition.
    if let (false, Some(statement)) = (values.is_empty(), statement.as_object_mut()) {
        statement.insert("Condition".to_owned(), json!({ "StringNotEqualsIgnoreCase": { register: values } }));
    }
    statement
}

fn deny_unbound() -> Value {
    let mut statement = deny("DenyUnbound", &USE);
    if let Some(statement) = statement.as_object_mut() {
        statement.insert("Condition".to_owned(), json!({ "Null": { BINDING: "true" } }));
    }
    statement
}

fn deny_ungated() -> Value {
    deny(
        "DenyWhatAttestationCannotGate",
        &[
            "kms:Encrypt",
            "kms:ReEncrypt*",
            "kms:GenerateDataKeyPair*",
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:CreateGrant",
            "kms:ReplicateKey",
        ],
    )
}

fn deny(sid: &str, actions: &[&str]) -> Value {
    json!({ "Sid": sid, "Effect": "Deny", "Principal": "*", "Action": actions, "Resource": "*" })
}
