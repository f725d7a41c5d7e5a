//! Whether a policy statement's condition holds: operators and condition keys, as the IAM guide
//! ("IAM JSON policy elements: Condition operators") and the KMS guide ("Condition keys for AWS KMS")
//! define them. Knows only what it can judge and refuses the rest.

use std::collections::BTreeMap;

use serde_json::Value;
use strongroom_protocol::ByteArray;

use super::evaluate::{Caller, Pattern};

/// What is known about a call.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Who calls.
    pub caller: &'a Caller,
    /// The call's encryption context.
    pub encryption_context: &'a BTreeMap<String, String>,
    /// The registers of the call's attestation document, if it has a genuine and fresh one.
    pub registers: Option<&'a Registers>,
}

/// The locked registers of an attestation document, as `Payload::pcrs` has them.
pub type Registers = BTreeMap<u8, ByteArray<48>>;

/// A condition that cannot be judged here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// An operator outside the list in [`Operator::read`].
    #[error("condition operator {0:?} is not known here")]
    UnknownOperator(String),
    /// A condition key outside the list in [`ConditionKey::read`].
    #[error("condition key {0:?} is not known here")]
    UnknownKey(String),
    /// A value that is no text or boolean, or a policy variable (`${…}`).
    #[error("condition value {0} is not a text without variables")]
    Value(String),
    /// No value at all.
    #[error("condition on {0:?} lists no value")]
    NoValue(String),
}

/// One operator on one key; holds if any of its values does (or, negated, if none does).
#[derive(Debug, Clone)]
pub(super) struct Condition {
    operator: Operator,
    key: ConditionKey,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    /// `"true"`: the key must be missing; `"false"`: it must be there.
    Null,
    Compare {
        quantifier: Quantifier,
        comparison: Comparison,
        negated: bool,
        if_exists: bool,
    },
}

/// What a key with several values must satisfy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    /// No prefix: a positive operator wants one match, a negated one wants none.
    Plain,
    ForAllValues,
    ForAnyValue,
}

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Equals,
    EqualsIgnoreCase,
    Like,
}

#[derive(Debug, Clone)]
enum ConditionKey {
    /// `kms:RecipientAttestation:PCRn`; `ImageSha384` is PCR0.
    Register(u8),
    /// `kms:EncryptionContext:NAME`. The NAME has no case here, unlike in the context itself (KMS guide).
    EncryptionContext(String),
    EncryptionContextKeys,
    PrincipalArn,
    PrincipalAccount,
    /// Always `true`: nothing but TLS is served.
    SecureTransport,
}

impl Condition {
    pub(super) fn read(operator: &str, key: &str, values: Vec<Value>) -> Result<Self, ConditionError> {
        if values.is_empty() {
            return Err(ConditionError::NoValue(key.to_owned()));
        }
        let values = values.into_iter().map(|value| match value {
            Value::String(text) if !text.contains("${") => Ok(text),
            Value::Bool(flag) => Ok(flag.to_string()),
            other => Err(ConditionError::Value(other.to_string())),
        });
        Ok(Self {
            operator: Operator::read(operator)?,
            key: ConditionKey::read(key)?,
            values: values.collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        let found = self.key.values(facts);
        match self.operator {
            Operator::Null => {
                self.values.iter().any(|missing| missing.eq_ignore_ascii_case("true") == found.is_empty())
            }
            Operator::Compare { if_exists: true, .. } if found.is_empty() => true,
            Operator::Compare { quantifier, comparison, negated, .. } => {
                let satisfies =
                    |value: &String| self.values.iter().any(|wanted| comparison.matches(wanted, value)) != negated;
                match quantifier {
                    // `all` of nothing is true and `any` of nothing is false. That is IAM's rule for a missing
                    // key, in every row: a negated plain operator matches it, ForAnyValue never does.
                    Quantifier::ForAllValues => found.iter().all(satisfies),
                    Quantifier::Plain if negated => found.iter().all(satisfies),
                    Quantifier::ForAnyValue | Quantifier::Plain => found.iter().any(satisfies),
                }
            }
        }
    }
}

impl Condition {
    /// The register that it is about.
    pub(super) fn register(&self) -> Option<u8> {
        match self.key {
            ConditionKey::Register(index) => Some(index),
            _ => None,
        }
    }

    /// Whether it is that this name is missing in the encryption context.
    pub(super) fn wants_no(&self, name: &str) -> bool {
        let missing = self.values.iter().all(|value| value.eq_ignore_ascii_case("true"));
        matches!(&self.key, ConditionKey::EncryptionContext(of) if of == name) && self.is_null_check() && missing
    }

    /// The only principals for whom it holds, if it names them.
    pub(super) fn principals(&self) -> Option<&[String]> {
        (self.demands_equality() && self.is_about_principal()).then_some(&self.values)
    }

    /// The encryption context whose value it compares.
    pub(super) fn context(&self) -> Option<&str> {
        match (&self.key, self.operator) {
            (ConditionKey::EncryptionContext(name), Operator::Compare { .. }) => Some(name),
            _ => None,
        }
    }

    pub(super) const fn is_about_principal(&self) -> bool {
        matches!(self.key, ConditionKey::PrincipalArn)
    }

    pub(super) fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether it holds for the listed values, as they are.
    pub(super) const fn lists_values(&self) -> bool {
        matches!(
            self.operator,
            Operator::Compare { comparison: Comparison::Equals | Comparison::EqualsIgnoreCase, negated: false, .. }
        )
    }

    /// Whether it holds for listed values only, and never where there is none.
    pub(super) const fn demands_equality(&self) -> bool {
        matches!(
            self.operator,
            Operator::Compare {
                quantifier: Quantifier::Plain | Quantifier::ForAnyValue,
                comparison: Comparison::Equals | Comparison::EqualsIgnoreCase,
                negated: false,
                if_exists: false,
            }
        )
    }

    pub(super) const fn is_negated(&self) -> bool {
        matches!(self.operator, Operator::Compare { negated: true, .. })
    }

    pub(super) const fn heeds_case(&self) -> bool {
        matches!(self.operator, Operator::Compare { comparison: Comparison::Equals | Comparison::Like, .. })
    }

    pub(super) const fn is_null_check(&self) -> bool {
        matches!(self.operator, Operator::Null)
    }
}

impl Operator {
    fn read(text: &str) -> Result<Self, ConditionError> {
        if text == "Null" {
            return Ok(Self::Null);
        }
        let (quantifier, rest) = match text.split_once(':') {
            None => (Quantifier::Plain, text),
            Some(("ForAllValues", rest)) => (Quantifier::ForAllValues, rest),
            Some(("ForAnyValue", rest)) => (Quantifier::ForAnyValue, rest),
            Some(_) => return Err(ConditionError::UnknownOperator(text.to_owned())),
        };
        let (rest, if_exists) = rest.strip_suffix("IfExists").map_or((rest, false), |rest| (rest, true));
        let (comparison, negated) = match rest {
            "StringEquals" => (Comparison::Equals, false),
            "StringNotEquals" => (Comparison::Equals, true),
            "StringEqualsIgnoreCase" | "Bool" => (Comparison::EqualsIgnoreCase, false),
            "StringNotEqualsIgnoreCase" => (Comparison::EqualsIgnoreCase, true),
            "StringLike" => (Comparison::Like, false),
            "StringNotLike" => (Comparison::Like, true),
            _ => return Err(ConditionError::UnknownOperator(text.to_owned())),
        };
        Ok(Self::Compare { quantifier, comparison, negated, if_exists })
    }
}

impl Comparison {
    fn matches(self, wanted: &str, found: &str) -> bool {
        match self {
            Self::Equals => wanted == found,
            Self::EqualsIgnoreCase => wanted.to_lowercase() == found.to_lowercase(),
            Self::Like => Pattern::new(wanted.to_owned()).matches(found),
        }
    }
}

impl ConditionKey {
    /// The names of condition keys have no case.
    fn read(text: &str) -> Result<Self, ConditionError> {
        let lower = text.to_ascii_lowercase();
        let unknown = || ConditionError::UnknownKey(text.to_owned());
        if let Some(name) = lower.strip_prefix("kms:encryptioncontext:") {
            return Ok(Self::EncryptionContext(name.to_owned()));
        }
        if let Some(number) = lower.strip_prefix("kms:recipientattestation:pcr") {
            let index: u8 = number.parse().map_err(|_| unknown())?;
            return if index < 32 && number == index.to_string() { Ok(Self::Register(index)) } else { Err(unknown()) };
        }
        match lower.as_str() {
            "kms:recipientattestation:imagesha384" => Ok(Self::Register(0)),
            "kms:encryptioncontextkeys" => Ok(Self::EncryptionContextKeys),
            "aws:principalarn" => Ok(Self::PrincipalArn),
            "aws:principalaccount" | "kms:calleraccount" => Ok(Self::PrincipalAccount),
            "aws:securetransport" => Ok(Self::SecureTransport),
            _ => Err(unknown()),
        }
    }

    /// The key's values in this call; none if it is missing.
    fn values(&self, facts: &Facts<'_>) -> Vec<String> {
        let context = facts.encryption_context;
        match self {
            Self::Register(index) => {
                facts.registers.and_then(|pcrs| pcrs.get(index)).map(|pcr| hex::encode(pcr.0)).into_iter().collect()
            }
            Self::EncryptionContext(name) => {
                let named = context.iter().filter(|(found, _)| found.to_ascii_lowercase() == *name);
                named.map(|(_, value)| value.clone()).collect()
            }
            Self::EncryptionContextKeys => context.keys().cloned().collect(),
            Self::PrincipalArn => vec![facts.caller.principal_arn()],
            Self::PrincipalAccount => vec![facts.caller.account().to_owned()],
            Self::SecureTransport => vec!["true".to_owned()],
        }
    }
}
