//! Statements that do not mean what they seem to.

use super::super::condition::Condition;
use super::super::evaluate::{Actions, Effect, KeyPolicy, Statement};
use super::{Finding, Rule, is_use, named};

/// What is wrong with the statements of a policy, one by one.
pub(super) fn broken(policy: &KeyPolicy) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, statement) in named(policy, Effect::Allow) {
        let mut find = |rule, why: String| findings.push(Finding::about(rule, name.clone(), why));
        if let Some(wildcard) = wildcard(&statement.actions) {
            find(Rule::WildcardAction, format!("{wildcard} is more than anybody can oversee, and grows with KMS"));
        }
        if is_use(statement) {
            let pins = |register| {
                statement
                    .conditions
                    .iter()
                    .any(|condition| condition.register() == Some(register) && condition.demands_equality())
            };
            if !statement.conditions.iter().any(|condition| condition.register().is_some()) {
                find(Rule::UnconditionedAllow, "it allows use of the key from anywhere".to_owned());
            } else {
                if !pins(0) {
                    find(
                        Rule::MissingPcr0,
                        "PCR16 and other registers say nothing unless the image is pinned".to_owned(),
                    );
                }
                if !pins(16) {
                    let why = "the image runs with any configuration, one with other KMS keys and TLS roots too";
                    find(Rule::MissingPcr16, why.to_owned());
                }
            }
        }
    }
    for effect in [Effect::Allow, Effect::Deny] {
        for (name, statement) in named(policy, effect) {
            if !statement.is_about_its_key() {
                let why = "it counts only if this is its key, and was left out of account here".to_owned();
                findings.push(Finding::about(Rule::OtherResource, name.clone(), why));
            }
            findings.extend(values(&name, statement));
            findings.extend(conditions(&name, statement));
        }
    }
    findings
}

/// Values that no register of an honest enclave has.
fn values(name: &str, statement: &Statement) -> Vec<Finding> {
    let mut findings = Vec::new();
    for condition in &statement.conditions {
        let Some(register) = condition.register() else { continue };
        for value in condition.values() {
            let digits = value.len() == 96 && value.bytes().all(|c| c.is_ascii_hexdigit());
            if digits && value.bytes().all(|c| c == b'0') {
                let why = format!("PCR{register} of zeros is listed");
                findings.push(Finding::about(Rule::ZeroPcr, name.to_owned(), why));
            } else if !condition.is_null_check()
                && (!digits || condition.heeds_case() && value.bytes().any(|c| c.is_ascii_uppercase()))
            {
                let why = format!("PCR{register} never is {value:?}");
                findings.push(Finding::about(Rule::MalformedPcr, name.to_owned(), why));
            }
        }
    }
    findings
}

fn conditions(name: &str, statement: &Statement) -> Vec<Finding> {
    let mut findings = Vec::new();
    let registers: Vec<&Condition> =
        statement.conditions.iter().filter(|condition| condition.register().is_some()).collect();
    let negated = registers.iter().filter(|condition| condition.is_negated()).count();
    if statement.effect == Effect::Deny && is_use(statement) && negated > 1 {
        let why = "conditions of one statement are ANDed: it denies only where all of these registers are wrong";
        findings.push(Finding::about(Rule::AndedDenies, name.to_owned(), why.to_owned()));
    }
    // A negated condition matches where there is no document: a Deny with it always applies, as it should.
    let dead = !registers.is_empty() && negated < registers.len();
    for action in ["kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKeyWithoutPlaintext"] {
        if dead && wildcard(&statement.actions).is_none() && statement.actions.include(action) {
            let effect = match statement.effect {
                Effect::Allow => "allows",
                Effect::Deny => "denies",
            };
            let why =
                format!("{action} takes no attestation document, so the condition never holds: this {effect} nothing");
            findings.push(Finding::about(Rule::NeverMatches, name.to_owned(), why));
        }
    }
    findings
}

/// What of a statement's actions says more than it names.
fn wildcard(actions: &Actions) -> Option<String> {
    match actions {
        Actions::Only(patterns) => {
            patterns.iter().map(|pattern| pattern.as_str()).find(|text| text.contains(['*', '?'])).map(str::to_owned)
        }
        Actions::AllBut(_) => Some("NotAction".to_owned()),
    }
}
