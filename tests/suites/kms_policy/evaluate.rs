//! The evaluator of key policies, row by row, without a socket.

use serde_json::{Value, json};
use strongroom_parent::kms_policy::Decision::{self, Allowed, ExplicitlyDenied, ImplicitlyDenied};
use strongroom_parent::kms_policy::{Admitted, Caller, Facts, KeyPolicy, PlanError, Registers};
use strongroom_protocol::ByteArray;
use strongroom_tests::mock_kms::dedicated_key_policy;

use crate::mock_kms::running::{ADMINISTRATOR, ROLE, SESSION};

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1";

fn document(pcr0: u8, pcr16: Option<u8>) -> Registers {
    let mut pcrs = Registers::from([(0, ByteArray([pcr0; 48])), (1, ByteArray([0xee; 48]))]);
    pcrs.extend(pcr16.map(|byte| (16, ByteArray([byte; 48]))));
    pcrs
}

fn decide(
    policy: &Value,
    caller: &str,
    action: &str,
    document: Option<&Registers>,
    context: &[(&str, &str)],
) -> Decision {
    let policy = KeyPolicy::parse(policy).unwrap_or_else(|e| panic!("{e}: {policy}"));
    let encryption_context = context.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let caller = Caller { arn: caller.to_owned() };
    policy.decide(action, KEY, &Facts { caller: &caller, encryption_context: &encryption_context, registers: document })
}

/// One Allow for everybody, changed by `change`, on `kms:Decrypt` by the parent with PCR0 = 11…
/// and a context.
fn allow_with(change: Value) -> Decision {
    let mut statement = json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*" });
    for (element, value) in change.as_object().expect("an object") {
        statement[element] = value.clone();
        if value.is_null() {
            statement.as_object_mut().expect("an object").remove(element);
        }
    }
    let policy = json!({ "Version": "2012-10-17", "Statement": statement });
    decide(&policy, SESSION, "kms:Decrypt", Some(&document(0x11, Some(0x22))), &[("App", "a"), ("Tier", "b")])
}

fn condition(operator: &str, key: &str, values: Value) -> bool {
    allow_with(json!({ "Condition": { operator: { key: values } } })) == Allowed
}

#[test]
fn principals() {
    for (name, principal, expected) in [
        ("anyone", json!("*"), Allowed),
        ("anyone_typed", json!({ "AWS": "*" }), Allowed),
        ("role_of_the_session", json!({ "AWS": ROLE }), Allowed),
        ("the_session_itself", json!({ "AWS": SESSION }), Allowed),
        ("one_of_a_list", json!({ "AWS": [ADMINISTRATOR, ROLE] }), Allowed),
        ("account_root", json!({ "AWS": "arn:aws:iam::111122223333:root" }), Allowed),
        ("account_number", json!({ "AWS": "111122223333" }), Allowed),
        ("other_role", json!({ "AWS": ADMINISTRATOR }), ImplicitlyDenied),
        ("role_of_longer_name", json!({ "AWS": format!("{ROLE}2") }), ImplicitlyDenied),
        ("other_account", json!({ "AWS": "444455556666" }), ImplicitlyDenied),
        ("other_accounts_root", json!({ "AWS": "arn:aws:iam::444455556666:root" }), ImplicitlyDenied),
        ("service", json!({ "Service": "ec2.amazonaws.com" }), ImplicitlyDenied),
    ] {
        assert_eq!(allow_with(json!({ "Principal": principal })), expected, "{name}");
    }
}

#[test]
fn actions_and_resources() {
    for (name, change, expected) in [
        ("exact", json!({ "Action": "kms:Decrypt" }), Allowed),
        ("without_case", json!({ "Action": "KMS:decrypt" }), Allowed),
        ("all", json!({ "Action": "kms:*" }), Allowed),
        ("star", json!({ "Action": "*" }), Allowed),
        ("prefix", json!({ "Action": ["kms:Gen*", "kms:De*"] }), Allowed),
        ("one_character", json!({ "Action": "kms:Decryp?" }), Allowed),
        ("another", json!({ "Action": "kms:Encrypt" }), ImplicitlyDenied),
        ("shorter", json!({ "Action": "kms:Decryp" }), ImplicitlyDenied),
        ("all_but_another", json!({ "Action": null, "NotAction": "kms:Encrypt" }), Allowed),
        ("all_but_this", json!({ "Action": null, "NotAction": ["kms:Encrypt", "kms:De*"] }), ImplicitlyDenied),
        ("this_key", json!({ "Resource": KEY }), Allowed),
        ("another_key", json!({ "Resource": [format!("{KEY}2")] }), ImplicitlyDenied),
    ] {
        assert_eq!(allow_with(change), expected, "{name}");
    }
}

#[test]
fn string_operators() {
    let eleven = "11".repeat(48);
    let upper = "AB".repeat(48);
    for (name, operator, key, values, holds) in [
        ("equal", "StringEquals", "kms:RecipientAttestation:PCR0", json!(eleven), true),
        ("image_is_pcr0", "StringEquals", "kms:RecipientAttestation:ImageSha384", json!(eleven), true),
        ("key_without_case", "StringEquals", "KMS:recipientattestation:pcr0", json!(eleven), true),
        ("one_of_a_list", "StringEquals", "kms:RecipientAttestation:PCR0", json!([upper, eleven]), true),
        ("none_of_a_list", "StringEquals", "kms:RecipientAttestation:PCR0", json!([upper, "x"]), false),
        ("missing_register", "StringEquals", "kms:RecipientAttestation:PCR3", json!(eleven), false),
        ("case_matters", "StringEquals", "kms:EncryptionContext:App", json!("A"), false),
        ("case_ignored", "StringEqualsIgnoreCase", "kms:EncryptionContext:App", json!("A"), true),
        ("context_name_without_case", "StringEquals", "kms:EncryptionContext:APP", json!("a"), true),
        ("not_equal_to_another", "StringNotEquals", "kms:EncryptionContext:App", json!("b"), true),
        ("not_equal_to_itself", "StringNotEquals", "kms:EncryptionContext:App", json!(["b", "a"]), false),
        ("negation_matches_missing", "StringNotEquals", "kms:EncryptionContext:None", json!("a"), true),
        ("negation_ignoring_case", "StringNotEqualsIgnoreCase", "kms:EncryptionContext:App", json!("A"), false),
        ("like", "StringLike", "aws:PrincipalArn", json!("arn:aws:iam::*:role/strong?oom-*"), true),
        ("not_like", "StringLike", "aws:PrincipalArn", json!("arn:aws:iam::*:user/*"), false),
        ("equals_knows_no_wildcard", "StringEquals", "aws:PrincipalArn", json!("*"), false),
        ("principal_arn_is_the_role", "StringEquals", "aws:PrincipalArn", json!(ROLE), true),
        ("account", "StringEquals", "kms:CallerAccount", json!("111122223333"), true),
        ("if_exists_and_it_does", "StringEqualsIfExists", "kms:EncryptionContext:App", json!("b"), false),
        ("if_exists_and_it_does_not", "StringEqualsIfExists", "kms:EncryptionContext:None", json!("b"), true),
    ] {
        assert_eq!(condition(operator, key, values), holds, "{name}");
    }
}

#[test]
fn null_and_bool() {
    let app = "kms:EncryptionContext:App";
    let none = "kms:EncryptionContext:None";
    for (name, operator, key, values, holds) in [
        ("null_of_present", "Null", app, json!("true"), false),
        ("null_of_missing", "Null", none, json!("true"), true),
        ("not_null_of_present", "Null", app, json!("false"), true),
        ("not_null_of_missing", "Null", none, json!(false), false),
        ("null_of_missing_register", "Null", "kms:RecipientAttestation:PCR8", json!(true), true),
        ("bool", "Bool", "aws:SecureTransport", json!("true"), true),
        ("bool_of_the_other", "Bool", "aws:SecureTransport", json!(false), false),
        ("bool_if_exists", "BoolIfExists", none, json!(true), true),
    ] {
        assert_eq!(condition(operator, key, values), holds, "{name}");
    }
}

#[test]
fn sets() {
    let keys = "kms:EncryptionContextKeys";
    let none = "kms:EncryptionContext:None";
    for (name, operator, key, values, holds) in [
        ("all_within", "ForAllValues:StringEquals", keys, json!(["App", "Tier", "More"]), true),
        ("one_outside", "ForAllValues:StringEquals", keys, json!(["App"]), false),
        ("case_of_context_keys", "ForAllValues:StringEquals", keys, json!(["app", "tier"]), false),
        ("all_of_nothing", "ForAllValues:StringEquals", none, json!("x"), true),
        ("any_within", "ForAnyValue:StringEquals", keys, json!("Tier"), true),
        ("none_within", "ForAnyValue:StringEquals", keys, json!("More"), false),
        ("any_of_nothing", "ForAnyValue:StringEquals", none, json!("x"), false),
        ("any_outside", "ForAnyValue:StringNotEquals", keys, json!("App"), true),
        ("none_outside", "ForAnyValue:StringNotEquals", keys, json!(["App", "Tier"]), false),
        ("any_outside_of_nothing", "ForAnyValue:StringNotEquals", none, json!("x"), false),
        ("any_of_nothing_if_exists", "ForAnyValue:StringEqualsIfExists", none, json!("x"), true),
    ] {
        assert_eq!(condition(operator, key, values), holds, "{name}");
    }
}

#[test]
fn operators_and_keys_are_anded_and_a_deny_outweighs() {
    let both = |first: &str, second: &str| {
        allow_with(json!({ "Condition": { "StringEquals": { "kms:EncryptionContext:App": first },
            "StringLike": { "kms:EncryptionContext:Tier": second } } }))
    };
    assert_eq!(both("a", "b"), Allowed);
    assert_eq!(both("a", "x"), ImplicitlyDenied);
    assert_eq!(both("x", "b"), ImplicitlyDenied);

    let allow = json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*" });
    let deny = json!({ "Effect": "Deny", "Principal": "*", "Action": "kms:Encrypt", "Resource": "*" });
    for statements in [json!([allow, deny]), json!([deny, allow])] {
        let policy = json!({ "Version": "2012-10-17", "Id": "x", "Statement": statements });
        assert_eq!(decide(&policy, SESSION, "kms:Encrypt", None, &[]), ExplicitlyDenied);
        assert_eq!(decide(&policy, SESSION, "kms:Decrypt", None, &[]), Allowed);
    }
    let nothing = json!({ "Version": "2012-10-17", "Statement": [] });
    assert_eq!(decide(&nothing, SESSION, "kms:Decrypt", None, &[]), ImplicitlyDenied);
}

#[test]
fn what_is_not_known_is_refused_and_never_ignored() {
    let statement = |change: (&str, Value)| {
        let mut statement = json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*" });
        statement[change.0] = change.1;
        json!({ "Version": "2012-10-17", "Statement": [statement] })
    };
    let condition =
        |operator: &str, key: &str, value: Value| statement(("Condition", json!({ operator: { key: value } })));
    let app = "kms:EncryptionContext:App";
    for (name, policy) in [
        ("operator", condition("NumericEquals", app, json!("1"))),
        ("operator_of_other_case", condition("stringequals", app, json!("1"))),
        ("arn_operator", condition("ArnLike", "aws:PrincipalArn", json!("*"))),
        ("null_if_exists", condition("NullIfExists", app, json!("true"))),
        ("null_of_a_set", condition("ForAllValues:Null", app, json!("true"))),
        ("quantifier", condition("ForSomeValues:StringEquals", app, json!("1"))),
        ("condition_key", condition("StringEquals", "kms:ViaService", json!("s3.amazonaws.com"))),
        ("register_32", condition("StringEquals", "kms:RecipientAttestation:PCR32", json!("00"))),
        ("register_00", condition("StringEquals", "kms:RecipientAttestation:PCR00", json!("00"))),
        ("policy_variable", condition("StringEquals", app, json!("${aws:username}"))),
        ("number", condition("StringEquals", app, json!(1))),
        ("no_value", condition("StringEquals", app, json!([]))),
        ("not_principal", statement(("NotPrincipal", json!("*")))),
        ("not_resource", statement(("NotResource", json!("*")))),
        ("both_actions", statement(("NotAction", json!("kms:Encrypt")))),
        ("effect", statement(("Effect", json!("Maybe")))),
        ("wildcard_principal", statement(("Principal", json!({ "AWS": "arn:aws:iam::111122223333:role/*" })))),
        ("principal_without_type", statement(("Principal", json!(ROLE)))),
        ("principal_of_nobody", statement(("Principal", json!({})))),
        ("principal_type", statement(("Principal", json!({ "CanonicalUser": "1" })))),
        ("no_version", json!({ "Statement": [] })),
        ("version", json!({ "Version": "2030-01-01", "Statement": [] })),
        ("element", json!({ "Version": "2012-10-17", "Statement": [], "Comment": "" })),
    ] {
        assert!(KeyPolicy::parse(&policy).is_err(), "{name}");
    }
}

#[test]
fn the_dedicated_policy_admits_pairs_and_nothing_else() {
    let admitted = [(0x11, 0x22), (0x33, 0x44)].map(|(a, b)| Admitted::new([a; 48], [b; 48]).expect("measured"));
    let policy = dedicated_key_policy(ADMINISTRATOR, ROLE, &admitted);
    let bound: &[(&str, &str)] = &[("strongroom:v", "1"), ("strongroom:key_id", "k"), ("strongroom:binding", "00")];
    let unbound: &[(&str, &str)] = &[("strongroom:v", "1"), ("strongroom:key_id", "k")];
    let of = |pcr0, pcr16| Some(document(pcr0, pcr16));
    for (name, caller, document, context, expected) in [
        ("first_pair", SESSION, of(0x11, Some(0x22)), bound, Allowed),
        ("second_pair", SESSION, of(0x33, Some(0x44)), bound, Allowed),
        ("image_with_the_others_configuration", SESSION, of(0x11, Some(0x44)), bound, ImplicitlyDenied),
        ("other_image", SESSION, of(0x55, Some(0x22)), bound, ExplicitlyDenied),
        ("other_configuration", SESSION, of(0x11, Some(0x55)), bound, ExplicitlyDenied),
        ("not_configured", SESSION, of(0x11, None), bound, ExplicitlyDenied),
        ("debug_mode", SESSION, of(0, Some(0x22)), bound, ExplicitlyDenied),
        ("no_document", SESSION, None, bound, ExplicitlyDenied),
        ("no_binding", SESSION, of(0x11, Some(0x22)), unbound, ExplicitlyDenied),
        ("another_caller", ADMINISTRATOR, of(0x11, Some(0x22)), bound, ImplicitlyDenied),
    ] {
        for action in ["kms:Decrypt", "kms:GenerateDataKey"] {
            assert_eq!(decide(&policy, caller, action, document.as_ref(), context), expected, "{name}, {action}");
        }
    }
    for action in [
        "kms:Encrypt",
        "kms:ReEncryptFrom",
        "kms:ReEncryptTo",
        "kms:GenerateDataKeyPair",
        "kms:GenerateDataKeyPairWithoutPlaintext",
        "kms:GenerateDataKeyWithoutPlaintext",
        "kms:CreateGrant",
        "kms:ReplicateKey",
    ] {
        for caller in [SESSION, ADMINISTRATOR] {
            let decision = decide(&policy, caller, action, of(0x11, Some(0x22)).as_ref(), bound);
            assert_eq!(decision, ExplicitlyDenied, "{action} by {caller}");
        }
    }
    assert_eq!(decide(&policy, ADMINISTRATOR, "kms:PutKeyPolicy", None, &[]), Allowed);
    assert_eq!(decide(&policy, SESSION, "kms:PutKeyPolicy", None, &[]), ImplicitlyDenied);
}

#[test]
fn the_dedicated_policy_never_admits_what_was_not_measured() {
    assert_eq!(Admitted::new([0; 48], [1; 48]), Err(PlanError::Unmeasured(0)));
    assert_eq!(Admitted::new([1; 48], [0; 48]), Err(PlanError::Unmeasured(16)));
    let policy = dedicated_key_policy(ADMINISTRATOR, ROLE, &[]);
    let decision = decide(&policy, SESSION, "kms:Decrypt", Some(&document(0, Some(0))), &[("strongroom:binding", "")]);
    assert_eq!(decision, ExplicitlyDenied);
}
