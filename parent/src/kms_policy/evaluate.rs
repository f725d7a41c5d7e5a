//! What a key policy says about a call: reads IAM's policy JSON and evaluates it as IAM does ("Policy evaluation
//! logic"). A policy that uses anything this evaluator does not know is refused whole; nothing is ignored.
//!
//! Identity policies are not modelled: a statement that names the account (its number or its root)
//! delegates to them, and they are taken to allow everything.

use serde::Deserialize;
use serde_json::Value;

use super::condition::{Condition, ConditionError, Facts};

/// A key policy that was read whole.
#[derive(Debug, Clone)]
pub struct KeyPolicy {
    source: Value,
    statements: Vec<Statement>,
}

/// A policy that cannot be loaded. Its author is to blame, or this evaluator for knowing too little.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not a policy's JSON, or an element that a key policy does not have or that is not evaluated here.
    #[error("{0}")]
    Shape(String),
    /// A principal that is neither `*`, an account, nor an ARN without wildcards.
    #[error("principal {0:?} is not an account or the ARN of a user or role")]
    Principal(String),
    /// A condition.
    #[error(transparent)]
    Condition(#[from] ConditionError),
}

/// What a policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// An Allow applies and no Deny does.
    Allowed,
    /// No Allow applies.
    ImplicitlyDenied,
    /// A Deny applies; no Allow can outweigh it.
    ExplicitlyDenied,
}

impl KeyPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// Its author's: anything that is not known here, down to operators and condition keys.
    pub fn parse(source: &Value) -> Result<Self, PolicyError> {
        let written = WrittenPolicy::deserialize(source).map_err(|e| PolicyError::Shape(e.to_string()))?;
        if !matches!(written.version.as_str(), "2012-10-17" | "2008-10-17") {
            return Err(PolicyError::Shape(format!("unknown policy version {:?}", written.version)));
        }
        let statements = Vec::from(written.statement).into_iter().map(Statement::read).collect::<Result<_, _>>()?;
        Ok(Self { source: source.clone(), statements })
    }

    /// The policy as it was written.
    #[must_use]
    pub const fn source(&self) -> &Value {
        &self.source
    }

    /// Decides on `action` (`kms:Decrypt`) on the key `resource` (its ARN).
    #[must_use]
    pub fn decide(&self, action: &str, resource: &str, facts: &Facts<'_>) -> Decision {
        let applies = |effect| {
            let mut of_effect = self.statements.iter().filter(|statement| statement.effect == effect);
            of_effect.any(|statement| statement.applies(action, resource, facts))
        };
        if applies(Effect::Deny) {
            Decision::ExplicitlyDenied
        } else if applies(Effect::Allow) {
            Decision::Allowed
        } else {
            Decision::ImplicitlyDenied
        }
    }

    pub(super) fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// The same policy without the statements that `keep` does not want.
    pub(super) fn only(&self, keep: impl Fn(&Statement) -> bool) -> Self {
        let mut policy = self.clone();
        policy.statements.retain(keep);
        policy
    }

    /// The same policy with one more statement.
    pub(super) fn with(&self, statement: Statement) -> Self {
        let mut policy = self.clone();
        policy.statements.push(statement);
        policy
    }
}

/// A principal that proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// As CloudTrail and denials name it.
    pub arn: String,
}

impl Caller {
    /// The twelve digits of the ARN's account, or nothing if it is no ARN.
    #[must_use]
    pub fn account(&self) -> &str {
        self.arn.split(':').nth(4).unwrap_or_default()
    }

    /// `aws:PrincipalArn`: for a role session the ARN of the role. (The session's ARN does not have
    /// the role's path, so a role with a path is not recognised here.)
    #[must_use]
    pub fn principal_arn(&self) -> String {
        match self.arn.split_once(":assumed-role/") {
            Some((partition, session)) => {
                let role = session.split('/').next().unwrap_or_default();
                let partition = partition.split(':').nth(1).unwrap_or_default();
                format!("arn:{partition}:iam::{}:role/{role}", self.account())
            }
            None => self.arn.clone(),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Statement {
    /// Its `Sid`.
    pub(super) name: Option<String>,
    pub(super) effect: Effect,
    pub(super) principals: Vec<PrincipalPattern>,
    pub(super) actions: Actions,
    resources: Vec<Pattern>,
    pub(super) conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Effect {
    Allow,
    Deny,
}

#[derive(Debug, Clone)]
pub(super) enum PrincipalPattern {
    Anyone,
    /// The account's number or root: everyone in it whom an identity policy allows.
    Account(String),
    Arn(String),
    /// An AWS service or an identity provider: nobody who calls here.
    Elsewhere,
}

#[derive(Debug, Clone)]
pub(super) enum Actions {
    Only(Vec<Pattern>),
    AllBut(Vec<Pattern>),
}

/// A text with IAM's wildcards: `*` for any run, `?` for any one character.
#[derive(Debug, Clone)]
pub(super) struct Pattern(String);

impl Statement {
    fn read(written: WrittenStatement) -> Result<Self, PolicyError> {
        let actions = match (written.action, written.not_action) {
            (Some(actions), None) => Actions::Only(action_patterns(actions)),
            (None, Some(actions)) => Actions::AllBut(action_patterns(actions)),
            _ => return Err(PolicyError::Shape("a statement needs either Action or NotAction".to_owned())),
        };
        let conditions = written.condition.unwrap_or_default();
        let conditions = conditions.into_iter().flat_map(|(operator, keys)| {
            keys.into_iter().map(move |(key, values)| Condition::read(&operator, &key, Vec::from(values)))
        });
        Ok(Self {
            name: written.sid,
            effect: written.effect,
            principals: written.principal.patterns()?,
            actions,
            resources: Vec::from(written.resource).into_iter().map(Pattern::new).collect(),
            conditions: conditions.collect::<Result<_, _>>()?,
        })
    }

    /// Allows everything to everybody.
    pub(super) fn allow_all() -> Self {
        Self {
            name: None,
            effect: Effect::Allow,
            principals: vec![PrincipalPattern::Anyone],
            actions: Actions::Only(vec![Pattern::new("*".to_owned())]),
            resources: vec![Pattern::new("*".to_owned())],
            conditions: Vec::new(),
        }
    }

    pub(super) fn is_about_its_key(&self) -> bool {
        self.resources.iter().any(|pattern| pattern.as_str() == "*")
    }

    /// All elements must match; within each, any of its alternatives. Conditions are all ANDed.
    pub(super) fn applies(&self, action: &str, resource: &str, facts: &Facts<'_>) -> bool {
        self.principals.iter().any(|principal| principal.matches(facts))
            && self.actions.include(action)
            && self.resources.iter().any(|pattern| pattern.matches(resource))
            && self.conditions.iter().all(|condition| condition.holds(facts))
    }
}

impl PrincipalPattern {
    fn read(text: String) -> Result<Self, PolicyError> {
        if text == "*" {
            return Ok(Self::Anyone);
        }
        if text.len() == 12 && text.bytes().all(|c| c.is_ascii_digit()) {
            return Ok(Self::Account(text));
        }
        match text.split(':').collect::<Vec<_>>()[..] {
            // IAM refuses wildcards inside a principal.
            _ if text.contains(['*', '?']) => Err(PolicyError::Principal(text)),
            ["arn", partition, "iam", "", account, "root"] if partition.starts_with("aws") => {
                Ok(Self::Account(account.to_owned()))
            }
            ["arn", partition, "iam" | "sts", "", _, _] if partition.starts_with("aws") => Ok(Self::Arn(text)),
            _ => Err(PolicyError::Principal(text)),
        }
    }

    fn matches(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Account(account) => facts.caller.account() == account,
            Self::Arn(arn) => facts.caller.arn == *arn || facts.caller.principal_arn() == *arn,
            Self::Elsewhere => false,
        }
    }
}

impl Actions {
    pub(super) fn include(&self, action: &str) -> bool {
        let action = action.to_ascii_lowercase();
        match self {
            Self::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(&action)),
            Self::AllBut(patterns) => !patterns.iter().any(|pattern| pattern.matches(&action)),
        }
    }
}

impl Pattern {
    pub(super) const fn new(text: String) -> Self {
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut reached) = (0, 0);
        // Behind the last star, and what it may swallow next: to go back further never helps.
        let mut star: Option<(usize, usize)> = None;
        while let Some(found) = text.get(reached) {
            match (pattern.get(at), star) {
                (Some(b'*'), _) => {
                    at += 1;
                    star = Some((at, reached));
                }
                (Some(expected), _) if *expected == b'?' || expected == found => {
                    at += 1;
                    reached += 1;
                }
                (_, Some((behind, swallowed))) => {
                    star = Some((behind, swallowed + 1));
                    at = behind;
                    reached = swallowed + 1;
                }
                (_, None) => return false,
            }
        }
        pattern.iter().skip(at).all(|rest| *rest == b'*')
    }
}

/// The names of actions have no case.
fn action_patterns(actions: OneOrMany<String>) -> Vec<Pattern> {
    Vec::from(actions).into_iter().map(|action| Pattern::new(action.to_ascii_lowercase())).collect()
}

/// The JSON, element for element. What is not here (`NotPrincipal`, `NotResource`) is refused.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct WrittenPolicy {
    version: String,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: OneOrMany<WrittenStatement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct WrittenStatement {
    sid: Option<String>,
    effect: Effect,
    principal: WrittenPrincipal,
    action: Option<OneOrMany<String>>,
    not_action: Option<OneOrMany<String>>,
    resource: OneOrMany<String>,
    condition: Option<WrittenConditions>,
}

/// Operator → condition key → values.
type WrittenConditions = std::collections::BTreeMap<String, std::collections::BTreeMap<String, OneOrMany<Value>>>;

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenPrincipal {
    Text(String),
    Typed(TypedPrincipal),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedPrincipal {
    #[serde(rename = "AWS")]
    aws: Option<OneOrMany<String>>,
    #[serde(rename = "Service")]
    service: Option<OneOrMany<String>>,
    #[serde(rename = "Federated")]
    federated: Option<OneOrMany<String>>,
}

impl WrittenPrincipal {
    fn patterns(self) -> Result<Vec<PrincipalPattern>, PolicyError> {
        match self {
            Self::Text(text) if text == "*" => Ok(vec![PrincipalPattern::Anyone]),
            Self::Text(text) => Err(PolicyError::Principal(text)),
            Self::Typed(TypedPrincipal { aws: None, service: None, federated: None }) => {
                Err(PolicyError::Shape("a statement's Principal names nobody".to_owned()))
            }
            Self::Typed(TypedPrincipal { aws, service, federated }) => {
                let aws = aws.map(Vec::from).unwrap_or_default().into_iter().map(PrincipalPattern::read);
                let elsewhere = service.is_some() || federated.is_some();
                aws.chain(elsewhere.then_some(Ok(PrincipalPattern::Elsewhere))).collect()
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> From<OneOrMany<T>> for Vec<T> {
    fn from(written: OneOrMany<T>) -> Self {
        match written {
            OneOrMany::Many(items) => items,
            OneOrMany::One(item) => vec![item],
        }
    }
}
