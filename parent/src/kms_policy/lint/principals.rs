//! Who can do what beside the use of the key. Judged by statements and not by calls: of two statements whose principals
//! may be the same one, conditions on the calls do not matter.

use super::super::USE;
use super::super::evaluate::{Actions, Effect, KeyPolicy, PrincipalPattern, Statement};
use super::calls::NEVER;
use super::{Finding, Rule, is_use, named};

/// What is wrong with whom the policy allows something.
pub(super) fn findings(policy: &KeyPolicy) -> Vec<Finding> {
    let users: Vec<Who> =
        named(policy, Effect::Allow).filter(|(_, allow)| is_use(allow)).flat_map(|(_, allow)| who(allow)).collect();
    let mut findings = Vec::new();
    for (name, allow) in named(policy, Effect::Allow) {
        let allows = |action: &str| allow.actions.include(action) && !is_locked(policy, action);
        let meets =
            || who(allow).iter().any(|one| one.is_anybody_of_an_account() || users.iter().any(|user| user.meets(one)));
        if allows(PUT_KEY_POLICY) && meets() {
            let why = "who uses the key, or anybody of the account, can change this policy".to_owned();
            findings.push(Finding { open: true, ..Finding::about(Rule::UserWritesPolicy, name.clone(), why) });
        }
        let stops = ["kms:DisableKey", "kms:ScheduleKeyDeletion"];
        if stops.into_iter().any(allows) && who(allow).iter().any(|one| users.iter().any(|user| user.meets(one))) {
            let why = "a host that was taken can take all keys with it".to_owned();
            findings.push(Finding::about(Rule::UserStopsKey, name.clone(), why));
        }
        let mut gated = USE.into_iter().chain(NEVER.map(|(_, action)| action)).chain([PUT_KEY_POLICY]);
        if allow.principals.iter().any(|one| matches!(one, PrincipalPattern::Elsewhere)) && gated.any(allows) {
            let why = "a service or an identity provider, which conditions on principals do not meet".to_owned();
            findings.push(Finding::about(Rule::ForeignPrincipal, name, why));
        }
    }
    findings
}

const PUT_KEY_POLICY: &str = "kms:PutKeyPolicy";

/// Whom a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Anyone,
    Account(String),
    /// A role, whatever its path and whichever its session; or a user.
    One {
        account: String,
        name: String,
    },
}

impl Who {
    fn of(arn: &str) -> Self {
        let account = arn.split(':').nth(4).unwrap_or_default().to_owned();
        let name = match arn.split_once(":assumed-role/") {
            Some((_, session)) => session.split('/').next(),
            None => arn.rsplit('/').next(),
        };
        Self::One { account, name: name.unwrap_or_default().to_owned() }
    }

    const fn is_anybody_of_an_account(&self) -> bool {
        matches!(self, Self::Anyone | Self::Account(_))
    }

    /// Whether somebody is both.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Anyone, _) | (_, Self::Anyone) => true,
            (Self::Account(account), Self::Account(of) | Self::One { account: of, .. })
            | (Self::One { account: of, .. }, Self::Account(account)) => account == of,
            (one @ Self::One { .. }, another @ Self::One { .. }) => one == another,
        }
    }
}

/// A statement's principals; those of its condition, if it names them one by one.
fn who(allow: &Statement) -> Vec<Who> {
    if let Some(named) = allow.conditions.iter().find_map(|condition| condition.principals()) {
        return named.iter().map(|arn| Who::of(arn)).collect();
    }
    let one = |principal: &PrincipalPattern| match principal {
        PrincipalPattern::Anyone => Some(Who::Anyone),
        PrincipalPattern::Account(account) => Some(Who::Account(account.clone())),
        PrincipalPattern::Arn(arn) => Some(Who::of(arn)),
        PrincipalPattern::Elsewhere => None,
    };
    allow.principals.iter().filter_map(one).collect()
}

/// Whether an action is denied to everybody, always.
fn is_locked(policy: &KeyPolicy, action: &str) -> bool {
    named(policy, Effect::Deny).any(|(_, deny)| {
        let everybody = deny.principals.iter().any(|one| matches!(one, PrincipalPattern::Anyone));
        let only = matches!(deny.actions, Actions::Only(_)) && deny.actions.include(action);
        everybody && only && deny.conditions.is_empty() && deny.is_about_its_key()
    })
}
