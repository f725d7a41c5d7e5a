//! Writes the key policy for a KMS key that wraps signing keys and does nothing else. What admits an enclave to such a
//! key is the pair of its image (PCR0) and its configuration (PCR16).
//!
//! Each rule forecloses one way around attestation:
//! * One Allow per pair: lists in one statement would admit every image with every configuration.
//! * One Deny per register: conditions of one statement are ANDed, so a joint Deny would fire only
//!   when both are wrong. Denies, because a conditional Allow is no gate beside another Allow.
//! * `Encrypt` and its kin are denied to everyone: attestation cannot gate them, and whoever may
//!   encrypt can mint a record around a key of his own.
//! * No grants, replicas and imported key material: they admit past this policy, or make another key of this one.
//! * Nothing without the binding in the encryption context: only sealed records open.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use strongroom_protocol::KeyId;

use super::{BINDING, DECRYPT, GENERATE_DATA_KEY, MAX_POLICY, NEVER, USE};

/// Who may do what with the key, from where.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// ARNs of those who may change the policy and the key's state, and never use the key.
    pub administrators: Vec<String>,
    /// ARNs of those who may open records: parents that sign.
    pub users: Vec<String>,
    /// ARNs of those who may also make them: parents that create keys.
    pub provisioners: Vec<String>,
    /// From where. Nothing: nobody can use the key.
    pub admitted: Vec<Admitted>,
    /// Registers that every admitted enclave must have besides: 3 (the instance's role), 8 (the image's signer).
    pub pins: BTreeMap<u8, [u8; 48]>,
    /// Keys that nobody can use any more, wherever their records are.
    pub denied_keys: Vec<KeyId>,
    /// Whether nobody can ever change the policy again.
    pub locked: bool,
}

/// An image and a configuration that together may use the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Admitted {
    pcr0: [u8; 48],
    pcr16: [u8; 48],
}

/// A plan whose policy would be no gate, or no policy. Its author is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A register is zero, so it admits what was never measured: any debug-mode enclave (PCR0), or one that took no
    /// configuration (PCR16).
    #[error("PCR{0} is zero: that admits an enclave that was not measured")]
    Unmeasured(u8),
    /// Not somebody's ARN.
    #[error("{0:?} is not the ARN of an IAM role or user (arn:aws:iam::ACCOUNT:role/NAME)")]
    Principal(String),
    /// Nobody could ever admit or revoke anything.
    #[error("nobody administers the key")]
    NoAdministrator,
    /// Whoever can change the policy and call KMS as a parent can open records outside of any enclave.
    #[error("{0} both administers the key and uses it: the two must be apart")]
    NotApart(String),
    /// A key that nobody could ever use.
    #[error("nothing is admitted, and with the lock nothing ever could be")]
    LockedOut,
    /// More than KMS takes.
    #[error("the policy has {0} bytes; KMS takes {MAX_POLICY}")]
    TooLong(usize),
}

impl Admitted {
    /// Admits the image `pcr0` with the configuration `pcr16` (SHA-384 each).
    ///
    /// # Errors
    /// The author's: a register is zero.
    pub fn new(pcr0: [u8; 48], pcr16: [u8; 48]) -> Result<Self, PlanError> {
        match (pcr0, pcr16) {
            (pcr0, _) if pcr0 == [0; 48] => Err(PlanError::Unmeasured(0)),
            (_, pcr16) if pcr16 == [0; 48] => Err(PlanError::Unmeasured(16)),
            (pcr0, pcr16) => Ok(Self { pcr0, pcr16 }),
        }
    }
}

impl Plan {
    /// The plan's policy.
    ///
    /// # Errors
    /// The author's.
    pub fn policy(&self) -> Result<Value, PlanError> {
        self.check()?;
        // As KMS normalises it: sorted, and nothing twice.
        let admitted: BTreeSet<Admitted> = self.admitted.iter().copied().collect();
        let provisioners: BTreeSet<&String> = self.provisioners.iter().collect();
        let users: BTreeSet<&String> = self.users.iter().chain(&self.provisioners).collect();

        let mut statements = vec![self.administration()];
        for (number, pair) in admitted.iter().enumerate() {
            let condition = self.condition(pair);
            let mut admit = |sid: &str, who: &BTreeSet<&String>, actions: &[&str]| {
                if !who.is_empty() {
                    statements.push(json!({
                        "Sid": format!("Admit{number}{sid}"), "Effect": "Allow", "Principal": { "AWS": who },
                        "Action": actions, "Resource": "*", "Condition": { "StringEqualsIgnoreCase": condition },
                    }));
                }
            };
            if users == provisioners {
                admit("", &users, &USE);
            } else {
                admit("", &users, &[DECRYPT]);
                admit("Provision", &provisioners, &[GENERATE_DATA_KEY]);
            }
        }
        statements.push(deny_others("DenyOtherImages", 0, admitted.iter().map(|pair| pair.pcr0)));
        statements.push(deny_others("DenyOtherConfigurations", 16, admitted.iter().map(|pair| pair.pcr16)));
        statements.extend(
            self.pins.iter().map(|(register, pcr)| deny_others(&format!("DenyOtherPCR{register}"), *register, [*pcr])),
        );
        statements.push(deny("DenyUnbound", &USE, json!({ "Null": { context(BINDING): "true" } })));
        statements.push(deny("DenyWhatAttestationCannotGate", &NEVER, Value::Null));
        if !self.denied_keys.is_empty() {
            let keys: BTreeSet<&str> = self.denied_keys.iter().map(KeyId::as_str).collect();
            let condition = json!({ "StringEquals": { context("strongroom:key_id"): keys } });
            statements.push(deny("DenyKeys", &USE, condition));
        }
        if self.locked {
            statements.push(deny("Lock", &[PUT_KEY_POLICY], Value::Null));
        }
        let policy = json!({ "Version": "2012-10-17", "Statement": statements });
        match policy.to_string().len() {
            length if length > MAX_POLICY => Err(PlanError::TooLong(length)),
            _ => Ok(policy),
        }
    }

    fn check(&self) -> Result<(), PlanError> {
        if self.administrators.is_empty() {
            return Err(PlanError::NoAdministrator);
        }
        let everybody = [&self.administrators, &self.users, &self.provisioners].into_iter().flatten();
        if let Some(other) = everybody.into_iter().find(|arn| !is_principal(arn)) {
            return Err(PlanError::Principal(other.clone()));
        }
        if let Some(both) = self.users.iter().chain(&self.provisioners).find(|arn| self.administrators.contains(arn)) {
            return Err(PlanError::NotApart(both.clone()));
        }
        if self.locked && self.admitted.is_empty() {
            return Err(PlanError::LockedOut);
        }
        match self.pins.iter().find(|(_, pcr)| **pcr == [0; 48]) {
            Some((register, _)) => Err(PlanError::Unmeasured(*register)),
            None => Ok(()),
        }
    }

    fn administration(&self) -> Value {
        let mut actions = vec![
            "kms:DescribeKey",
            "kms:GetKeyPolicy",
            "kms:EnableKey",
            "kms:DisableKey",
            "kms:GetKeyRotationStatus",
            "kms:EnableKeyRotation",
            "kms:TagResource",
            "kms:UntagResource",
            "kms:ListResourceTags",
            "kms:ScheduleKeyDeletion",
            "kms:CancelKeyDeletion",
        ];
        if !self.locked {
            actions.push(PUT_KEY_POLICY);
        }
        let administrators: BTreeSet<&String> = self.administrators.iter().collect();
        json!({
            "Sid": "Administer", "Effect": "Allow", "Principal": { "AWS": administrators }, "Action": actions, "Resource": "*",
        })
    }

    fn condition(&self, pair: &Admitted) -> Map<String, Value> {
        let pair = [(0, pair.pcr0), (16, pair.pcr16)];
        let registers: BTreeMap<u8, [u8; 48]> = self.pins.iter().map(|(n, pcr)| (*n, *pcr)).chain(pair).collect();
        registers.iter().map(|(number, pcr)| (register(*number), hex::encode(pcr).into())).collect()
    }
}

const PUT_KEY_POLICY: &str = "kms:PutKeyPolicy";

fn register(number: u8) -> String {
    format!("kms:RecipientAttestation:PCR{number}")
}

fn context(name: &str) -> String {
    format!("kms:EncryptionContext:{name}")
}

/// Negated operators match a missing key, so this also denies every call without a document.
fn deny_others(sid: &str, number: u8, admitted: impl IntoIterator<Item = [u8; 48]>) -> Value {
    let values: BTreeSet<String> = admitted.into_iter().map(hex::encode).collect();
    // IAM refuses an empty list of values; with nothing admitted the Deny has no condition.
    let condition = match values.is_empty() {
        true => Value::Null,
        false => json!({ "StringNotEqualsIgnoreCase": { register(number): values } }),
    };
    deny(sid, &USE, condition)
}

fn deny(sid: &str, actions: &[&str], condition: Value) -> Value {
    let mut statement = json!({ "Sid": sid, "Effect": "Deny", "Principal": "*", "Action": actions, "Resource": "*" });
    if let (false, Some(statement)) = (condition.is_null(), statement.as_object_mut()) {
        statement.insert("Condition".to_owned(), condition);
    }
    statement
}

/// A role by its ARN.
///
/// # Errors
/// Whoever wrote it: it is none.
pub(crate) fn check_role(arn: &str) -> Result<(), PlanError> {
    if is_principal(arn) && arn.contains(":role/") { Ok(()) } else { Err(PlanError::Principal(arn.to_owned())) }
}

/// A role or user by its ARN, which KMS looks up: no wildcard, no account, no session.
fn is_principal(arn: &str) -> bool {
    let name =
        |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"+=,.@-_/".contains(&c));
    match arn.splitn(6, ':').collect::<Vec<_>>()[..] {
        ["arn", partition, "iam", "", account, resource] => {
            partition.starts_with("aws")
                && account.len() == 12
                && account.bytes().all(|c| c.is_ascii_digit())
                && resource.split_once('/').is_some_and(|(kind, rest)| matches!(kind, "role" | "user") && name(rest))
        }
        _ => false,
    }
}
