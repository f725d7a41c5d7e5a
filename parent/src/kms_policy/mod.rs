//! Key policies of KMS keys that wrap signing keys and do nothing else. [`generate`] writes one, [`lint`] finds what
//! is wrong with anybody's, [`evaluate`] knows what a policy says about a call. A signer is as safe as this policy:
//! it alone ties keys to an image and a configuration.

mod condition;
mod evaluate;
mod generate;
mod lint;

pub use condition::{ConditionError, Facts, Registers};
pub use evaluate::{Caller, Decision, KeyPolicy, PolicyError};
pub(crate) use generate::check_role;
pub use generate::{Admitted, Plan, PlanError};
pub use lint::{Finding, KeyMetadata, Rule, lint};

/// KMS takes no longer key policy (KMS guide, "Resource quotas"), in bytes.
pub const MAX_POLICY: usize = 32 * 1024;

/// What an enclave asks for. Both take an attestation document.
const USE: [&str; 2] = [DECRYPT, GENERATE_DATA_KEY];
const DECRYPT: &str = "kms:Decrypt";
const GENERATE_DATA_KEY: &str = "kms:GenerateDataKey";

/// What no signer asks for and attestation cannot gate, and ways past this policy: as a Deny names it.
const NEVER: [&str; 7] = [
    "kms:Encrypt",
    "kms:ReEncrypt*",
    "kms:GenerateDataKeyPair*",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:CreateGrant",
    "kms:ReplicateKey",
    "kms:ImportKeyMaterial",
];

/// The encryption context without which nothing of ours is sealed or opened.
const BINDING: &str = "strongroom:binding";
