//! What is wrong with a key policy. Two kinds of findings: calls that the policy lets through and should not (each was
//! put to the evaluator, so [`Finding::open`] is a fact), and statements that do not mean what they seem to, or that
//! only stand as long as nobody adds another Allow.
//!
//! Against what must never be, a Deny counts only if it is whole: for everybody, and conditioned by nothing but one wrong
//! register or the missing binding. Whoever it exempts, and whatever else it asks for that a caller chooses, is a way
//! around it that trying some calls may miss.

mod calls;
mod principals;
mod rules;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evaluate::{Effect, KeyPolicy, Statement};
use super::{MAX_POLICY, USE};

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub rule: Rule,
    /// Whether a call gets through by it, as the policy stands.
    pub open: bool,
    /// The statements in question: their `Sid`, or their place from 1.
    pub statements: Vec<String>,
    /// What it is about, and what follows from it.
    pub why: String,
    /// What to do.
    pub mend: &'static str,
}

macro_rules! rules {
    ($($(#[$documentation:meta])* $rule:ident => $mend:literal,)*) => {
        /// What can be wrong with a key policy.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Rule {
            $($(#[$documentation])* $rule,)*
        }

        impl Rule {
            /// What to do about it.
            #[must_use]
            pub const fn mend(self) -> &'static str {
                match self { $(Self::$rule => $mend,)* }
            }
        }
    };
}

rules! {
    /// Not a policy, or it uses what is not judged here.
    NotUnderstood => "remove the element, or have KMS judge it; it is not judged here",
    /// Longer than KMS takes.
    TooLong => "remove pairs of images and configurations that are out of service",
    /// The key can be used without an enclave.
    UnattestedUse => "deny use unless PCR0 and PCR16 are admitted, one Deny per register",
    /// Any image gets in.
    AnyImage => "pin kms:RecipientAttestation:PCR0 in the Allow, and deny other values",
    /// Any configuration gets in.
    AnyConfiguration => "pin kms:RecipientAttestation:PCR16 in the Allow, and deny other values",
    /// A debug-mode enclave gets in, whose memory its host reads.
    DebugImage => "remove the zero register, and pin a measured PCR0",
    /// Each image gets in with the configurations of all others.
    CrossProduct => "write one Allow per pair of image and configuration",
    /// Use without the binding, of records that are not ours.
    UnboundUse => "deny use where kms:EncryptionContext:strongroom:binding is missing (Null)",
    /// Use of the key that attestation cannot gate.
    UngatedAction => "deny Encrypt, ReEncrypt*, GenerateDataKeyPair* and GenerateDataKeyWithoutPlaintext to *",
    /// Somebody can hand on use of the key, without conditions.
    CreateGrant => "deny kms:CreateGrant to *",
    /// A replica has a policy of its own.
    Replicate => "deny kms:ReplicateKey to *; lift that for the hour in which you replicate",
    /// Somebody outside of KMS has the key, or can bring one.
    ImportedKeyMaterial => "use a key whose material KMS made (Origin AWS_KMS), and deny kms:ImportKeyMaterial to *",
    /// Who uses the key can admit himself from anywhere.
    UserWritesPolicy => "allow kms:PutKeyPolicy to an administrator's role only, which nothing on the host can assume",
    /// Who uses the key can stop or destroy it.
    UserStopsKey => "allow kms:DisableKey and kms:ScheduleKeyDeletion to an administrator's role only",
    /// An AWS service or an identity provider.
    ForeignPrincipal => "remove it: no service has to do with this key",
    /// Actions by wildcard or exception.
    WildcardAction => "name the actions: kms:Decrypt and kms:GenerateDataKey for parents",
    /// An Allow of use without a condition on attestation, whatever else stops it.
    UnconditionedAllow => "give it conditions on PCR0 and PCR16, or remove it",
    /// An Allow of use that does not pin PCR0.
    MissingPcr0 => "add kms:RecipientAttestation:PCR0 to its StringEqualsIgnoreCase",
    /// An Allow of use that does not pin PCR16.
    MissingPcr16 => "add kms:RecipientAttestation:PCR16 to its StringEqualsIgnoreCase",
    /// A zero register is listed.
    ZeroPcr => "remove the zero value: it is that of an enclave in debug mode, or without configuration",
    /// A listed value that no register has.
    MalformedPcr => "use 96 lower-case hexadecimal digits with StringEqualsIgnoreCase",
    /// A Deny that fires only if several registers are wrong at once.
    AndedDenies => "write one Deny per register",
    /// A condition on attestation where there is never a document.
    NeverMatches => "use no condition on attestation for actions that take no document; deny them to *",
    /// A statement about some key by its ARN, which need not be this one.
    OtherResource => "write \"Resource\": \"*\", which in a key policy is its own key",
    /// Only the absence of another Allow protects.
    Undenied => "add the Deny, so that no later Allow opens it: `strongroom kms-policy generate` writes all of them",
    /// Not a key that can wrap records.
    UnfitKey => "use a customer managed key of type SYMMETRIC_DEFAULT for ENCRYPT_DECRYPT",
}

/// What `aws kms describe-key` says of a key.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyMetadata {
    #[serde(default)]
    origin: String,
    #[serde(default)]
    key_spec: String,
    #[serde(default)]
    key_usage: String,
    #[serde(default)]
    key_manager: String,
}

/// What is wrong with a policy, and with its key if something is known of it. Nothing: nothing was found.
#[must_use]
pub fn lint(policy: &Value, key: Option<&KeyMetadata>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if policy.to_string().len() > MAX_POLICY {
        findings.push(Finding::about_all(Rule::TooLong, format!("KMS takes {MAX_POLICY} bytes")));
    }
    match KeyPolicy::parse(policy) {
        Ok(policy) => {
            findings.extend(calls::open(&policy));
            findings.extend(principals::findings(&policy));
            findings.extend(rules::broken(&policy));
        }
        Err(error) => findings.push(Finding::about_all(Rule::NotUnderstood, error.to_string())),
    }
    findings.extend(key.into_iter().flat_map(KeyMetadata::findings));
    findings
}

impl Finding {
    fn about_all(rule: Rule, why: String) -> Self {
        Self { rule, open: false, statements: Vec::new(), why, mend: rule.mend() }
    }

    fn about(rule: Rule, statement: String, why: String) -> Self {
        Self { statements: vec![statement], ..Self::about_all(rule, why) }
    }
}

impl KeyMetadata {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !matches!(self.origin.as_str(), "AWS_KMS" | "AWS_CLOUDHSM") {
            let why = format!("the key's Origin is {:?}: its material is somewhere else, too", self.origin);
            findings.push(Finding { open: true, ..Finding::about_all(Rule::ImportedKeyMaterial, why) });
        }
        let fit = [&self.key_spec, &self.key_usage, &self.key_manager];
        if fit != ["SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "CUSTOMER"] {
            findings
                .push(Finding::about_all(Rule::UnfitKey, format!("the key is {}", fit.map(String::as_str).join(", "))));
        }
        findings
    }
}

/// The statements of one effect, with what they are called.
fn named(policy: &KeyPolicy, effect: Effect) -> impl Iterator<Item = (String, &Statement)> {
    policy.statements().iter().enumerate().filter(move |(_, statement)| statement.effect == effect).map(
        |(place, statement)| {
            let name = statement.name.clone().unwrap_or_else(|| format!("statement {}", place + 1));
            (name, statement)
        },
    )
}

/// Whether a statement is about the use of the key.
fn is_use(statement: &Statement) -> bool {
    USE.iter().any(|action| statement.actions.include(action))
}
