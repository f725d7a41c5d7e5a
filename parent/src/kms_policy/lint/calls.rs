//! Calls that nobody should get through, put to the evaluator: first as the policy stands, then as if somebody added an
//! Allow of everything.

use std::collections::{BTreeMap, BTreeSet};

use strongroom_protocol::ByteArray;

use super::super::condition::{Facts, Registers};
use super::super::evaluate::{Caller, Decision, Effect, KeyPolicy, PrincipalPattern, Statement};
use super::super::{BINDING, DECRYPT, GENERATE_DATA_KEY};
use super::{Finding, Rule, is_use, named};

/// What gets through, and what would if there were another Allow.
pub(super) fn open(policy: &KeyPolicy) -> Vec<Finding> {
    let mut found: BTreeMap<Rule, Opening> = BTreeMap::new();
    let calls = calls(policy);
    for call in &calls {
        if allowed(policy, call) {
            let opening = found.entry(call.rule).or_default();
            opening.callers.insert(call.caller.clone());
            opening.actions.insert(call.action);
            let allowing =
                |statement: &Statement| call.put_to(|resource, facts| statement.applies(call.action, resource, facts));
            opening.statements.extend(
                named(policy, Effect::Allow).filter(|(_, statement)| allowing(statement)).map(|(name, _)| name),
            );
        }
    }
    let mut findings: Vec<Finding> = found.iter().map(|(rule, opening)| opening.finding(*rule)).collect();
    findings.extend(crossed(policy));

    let whole = policy.only(|statement| statement.effect == Effect::Allow || is_whole(statement));
    let opened = whole.with(Statement::allow_all());
    let undenied: BTreeSet<Rule> = calls
        .iter()
        .filter(|call| !found.contains_key(&call.rule) && allowed(&opened, call))
        .map(|call| call.rule)
        .collect();
    findings.extend(undenied.into_iter().map(|rule| {
        Finding::about_all(
            Rule::Undenied,
            format!("no Deny for everybody stops {} once there is another Allow", what(rule)),
        )
    }));
    findings
}

/// Whether nobody gets around a Deny.
fn is_whole(deny: &Statement) -> bool {
    deny.principals.iter().any(|principal| matches!(principal, PrincipalPattern::Anyone))
        && deny.is_about_its_key()
        && deny.conditions.len() <= 1
        && deny
            .conditions
            .iter()
            .all(|condition| condition.register().is_some() && condition.is_negated() || condition.wants_no(BINDING))
}

/// A call that should be refused, and what is wrong if it is not.
struct Call {
    rule: Rule,
    caller: String,
    action: &'static str,
    registers: Option<Registers>,
    encryption_context: Context,
}

type Context = BTreeMap<String, String>;

#[derive(Default)]
struct Opening {
    callers: BTreeSet<String>,
    actions: BTreeSet<&'static str>,
    statements: BTreeSet<String>,
}

impl Call {
    fn put_to<T>(&self, judge: impl FnOnce(&str, &Facts<'_>) -> T) -> T {
        let caller = Caller { arn: self.caller.clone() };
        let (encryption_context, registers) = (&self.encryption_context, self.registers.as_ref());
        let facts = Facts { caller: &caller, encryption_context, registers };
        judge(ANY_KEY, &facts)
    }
}

impl Opening {
    fn finding(&self, rule: Rule) -> Finding {
        let list = |texts: &mut dyn Iterator<Item = &str>| texts.collect::<Vec<_>>().join(", ");
        let callers = list(&mut self.callers.iter().map(|arn| if arn == STRANGER { "anybody" } else { arn.as_str() }));
        let actions = list(&mut self.actions.iter().copied());
        let why = format!("{}: {actions} by {callers}", what(rule));
        Finding { open: true, statements: self.statements.iter().cloned().collect(), ..Finding::about_all(rule, why) }
    }
}

fn allowed(policy: &KeyPolicy, call: &Call) -> bool {
    call.put_to(|resource, facts| policy.decide(call.action, resource, facts)) == Decision::Allowed
}

/// What the rules of calls are about.
const fn what(rule: Rule) -> &'static str {
    match rule {
        Rule::UnattestedUse => "use without an enclave",
        Rule::AnyImage => "use by another image",
        Rule::AnyConfiguration => "use by another configuration",
        Rule::DebugImage => "use by an enclave in debug mode",
        Rule::UnboundUse => "use without the binding",
        Rule::UngatedAction => "what attestation cannot gate",
        Rule::CreateGrant => "grants",
        Rule::Replicate => "replication",
        _ => "imported key material",
    }
}

/// All calls that should be refused, by everybody whom the policy names, with the encryption contexts that it asks for.
fn calls(policy: &KeyPolicy) -> Vec<Call> {
    let enclaves = enclaves(policy);
    let contexts = contexts(policy);
    let mut calls = Vec::new();
    for (caller, unbound) in callers(policy).iter().flat_map(|caller| contexts.iter().map(move |it| (caller, it))) {
        let mut bound = unbound.clone();
        bound.insert(BINDING.to_owned(), "00".repeat(32));
        let mut call = |rule, action, registers: Option<&Registers>, context: &Context| {
            let (caller, registers, encryption_context) = (caller.clone(), registers.cloned(), context.clone());
            calls.push(Call { rule, caller, action, registers, encryption_context });
        };
        for action in [DECRYPT, GENERATE_DATA_KEY] {
            call(Rule::UnattestedUse, action, None, &bound);
            for enclave in &enclaves {
                call(Rule::AnyImage, action, Some(&with(enclave, 0, Some(OTHER))), &bound);
                call(Rule::AnyConfiguration, action, Some(&with(enclave, 16, Some(OTHER))), &bound);
                call(Rule::AnyConfiguration, action, Some(&with(enclave, 16, None)), &bound);
                call(Rule::DebugImage, action, Some(&with(enclave, 0, Some([0; 48]))), &bound);
                call(Rule::UnboundUse, action, Some(enclave), unbound);
            }
        }
        let anywhere: Vec<Option<&Registers>> = enclaves.iter().map(Some).chain([None]).collect();
        for (rule, action) in NEVER {
            anywhere.iter().for_each(|enclave| call(rule, action, *enclave, &bound));
            call(rule, action, None, unbound);
        }
    }
    calls
}

/// Everybody whom a statement names, asks for or exempts, and a stranger.
fn callers(policy: &KeyPolicy) -> BTreeSet<String> {
    let asked = |statement: &Statement| -> Vec<String> {
        let conditions = statement.conditions.iter().filter(|condition| condition.is_about_principal());
        conditions.flat_map(|condition| condition.values().iter().map(|value| literal(value))).collect()
    };
    let named = policy.statements().iter().flat_map(|statement| {
        statement.principals.iter().filter_map(somebody).chain(asked(statement)).collect::<Vec<_>>()
    });
    named.chain([STRANGER.to_owned()]).collect()
}

/// No encryption context, and the one that statements name: whoever calls can have it.
fn contexts(policy: &KeyPolicy) -> BTreeSet<Context> {
    let asked = policy
        .statements()
        .iter()
        .flat_map(|statement| &statement.conditions)
        .filter_map(|condition| Some((condition.context()?.to_owned(), literal(condition.values().first()?))));
    let asked = asked.filter(|(name, _)| name != BINDING).collect();
    BTreeSet::from([Context::new(), asked])
}

/// A text that a pattern matches.
fn literal(pattern: &str) -> String {
    pattern.replace('*', "").replace('?', "x")
}

/// `super::NEVER`, as calls have it.
pub(super) const NEVER: [(Rule, &str); 9] = [
    (Rule::UngatedAction, "kms:Encrypt"),
    (Rule::UngatedAction, "kms:ReEncryptFrom"),
    (Rule::UngatedAction, "kms:ReEncryptTo"),
    (Rule::UngatedAction, "kms:GenerateDataKeyPair"),
    (Rule::UngatedAction, "kms:GenerateDataKeyPairWithoutPlaintext"),
    (Rule::UngatedAction, "kms:GenerateDataKeyWithoutPlaintext"),
    (Rule::CreateGrant, "kms:CreateGrant"),
    (Rule::Replicate, "kms:ReplicateKey"),
    (Rule::ImportedKeyMaterial, "kms:ImportKeyMaterial"),
];

/// Somebody whom a statement names.
fn somebody(principal: &PrincipalPattern) -> Option<String> {
    match principal {
        PrincipalPattern::Anyone => Some(STRANGER.to_owned()),
        PrincipalPattern::Account(account) => {
            Some(format!("arn:aws:iam::{account}:role/whom-an-identity-policy-allows"))
        }
        PrincipalPattern::Arn(arn) => Some(arn.clone()),
        PrincipalPattern::Elsewhere => None,
    }
}

/// Enclaves that the Allows of use mean: of each, the combinations of the first two values for each register.
fn enclaves(policy: &KeyPolicy) -> Vec<Registers> {
    let any = || Registers::from([0, 1, 2, 3, 4, 16].map(|register| (register, ByteArray(OTHER))));
    let mut enclaves = vec![any()];
    for (_, allow) in named(policy, Effect::Allow).filter(|(_, allow)| is_use(allow)) {
        let mut combined = vec![any()];
        for (register, values) in demanded(allow) {
            combined = combined
                .iter()
                .flat_map(|enclave| values.iter().take(2).map(move |value| with(enclave, register, Some(*value))))
                .take(MOST_ENCLAVES)
                .collect();
        }
        enclaves.extend(combined);
    }
    enclaves
}

/// Of one statement. A policy has room for some sixty statements with two registers each.
const MOST_ENCLAVES: usize = 16;

/// The registers that a statement lists values for.
fn demanded(allow: &Statement) -> BTreeMap<u8, Vec<[u8; 48]>> {
    let mut demanded: BTreeMap<u8, Vec<[u8; 48]>> = BTreeMap::new();
    for condition in allow.conditions.iter().filter(|condition| condition.lists_values()) {
        let values = condition.values().iter().filter_map(|value| <[u8; 48]>::try_from(hex::decode(value).ok()?).ok());
        if let Some(register) = condition.register() {
            demanded.entry(register).or_default().extend(values);
        }
    }
    demanded.retain(|_, values| !values.is_empty());
    demanded
}

/// Statements that list several images and several configurations.
fn crossed(policy: &KeyPolicy) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, allow) in named(policy, Effect::Allow).filter(|(_, allow)| is_use(allow)) {
        let demanded = demanded(allow);
        let several = |register| demanded.get(&register).is_some_and(|values| values.len() > 1);
        if several(0) && several(16) {
            let why = "each of its images gets in with each of its configurations".to_owned();
            findings.push(Finding { open: true, ..Finding::about(Rule::CrossProduct, name, why) });
        }
    }
    findings
}

fn with(enclave: &Registers, register: u8, pcr: Option<[u8; 48]>) -> Registers {
    let mut enclave = enclave.clone();
    match pcr {
        Some(pcr) => enclave.insert(register, ByteArray(pcr)),
        None => enclave.remove(&register),
    };
    enclave
}

/// A register of an enclave that no policy means.
const OTHER: [u8; 48] = *b"another image or configuration than is admitted.";

/// Nobody whom a policy names.
const STRANGER: &str = "arn:aws:iam::000000000000:user/anybody";

/// A key policy is about its own key; a statement that names another one is about none.
const ANY_KEY: &str = "*";
