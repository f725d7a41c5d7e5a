//! `strongroom kms-policy lint` against policies that are wrong in one way each, and mock-kms about the same policies:
//! what one calls open, the other opens.

use std::collections::BTreeSet;
use std::fs;

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, RecipientInfo};
use serde_json::{Value, json};
use strongroom_protocol::Measurement;
use strongroom_tests::mock_kms::{Admitted, dedicated_key_policy};
use strongroom_tests::mock_nsm::{Machine, image_pcrs};
use strongroom_tests::pki::NitroAuthority;
use strongroom_tests::stack::test_directory;

use super::{linted, said, strongroom};
use crate::mock_kms::running::{ADMINISTRATOR, Enclave, MockKms, ROLE};

const CONFIGURATION: &[u8] = b"the admitted configuration";
const OTHER_CONFIGURATION: &[u8] = b"another configuration";

fn pcr0(machine: &Machine) -> [u8; 48] {
    image_pcrs(&machine.image)[0]
}

fn other_image() -> Machine {
    Machine { image: "another image".to_owned(), ..Machine::default() }
}

/// A good policy for the default machine with [`CONFIGURATION`].
fn good() -> Value {
    let admitted = Admitted::new(pcr0(&Machine::default()), Measurement::of(CONFIGURATION).pcr16).expect("measured");
    dedicated_key_policy(ADMINISTRATOR, ROLE, &[admitted])
}

/// The statement of the policy that has this Sid.
fn statement<'a>(policy: &'a mut Value, sid: &str) -> &'a mut Value {
    let statements = policy["Statement"].as_array_mut().expect("an array");
    statements.iter_mut().find(|statement| statement["Sid"] == sid).unwrap_or_else(|| panic!("no {sid}"))
}

fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut policy = good();
    change(&mut policy);
    policy
}

fn without(sids: &[&str], mut policy: Value) -> Value {
    let statements = policy["Statement"].as_array_mut().expect("an array");
    statements.retain(|statement| !sids.iter().any(|sid| statement["Sid"] == *sid));
    policy
}

fn and(statement: Value, mut policy: Value) -> Value {
    policy["Statement"].as_array_mut().expect("an array").push(statement);
    policy
}

const IMAGES: &str = "DenyOtherImages";
const CONFIGURATIONS: &str = "DenyOtherConfigurations";
const UNBOUND: &str = "DenyUnbound";
const UNGATED: &str = "DenyWhatAttestationCannotGate";
const PCR0: &str = "kms:RecipientAttestation:PCR0";
const PCR16: &str = "kms:RecipientAttestation:PCR16";

/// What is wrong, the policy, and what must be found: all that is open, and some of what else is wrong.
fn bad() -> Vec<(&'static str, Value, &'static [&'static str], &'static [&'static str])> {
    let zeros = "0".repeat(96);
    let allow = |action: Value, condition: Value| {
        let mut allow = json!({ "Sid": "Added", "Effect": "Allow", "Principal": { "AWS": ROLE }, "Action": action, "Resource": "*" });
        if !condition.is_null() {
            allow["Condition"] = condition;
        }
        allow
    };
    let uses = || json!(["kms:Decrypt", "kms:GenerateDataKey"]);
    let listed = |image: &[[u8; 48]], configuration: &[&[u8]]| {
        let images: Vec<String> = image.iter().map(hex::encode).collect();
        let configurations: Vec<String> =
            configuration.iter().map(|it| hex::encode(Measurement::of(it).pcr16)).collect();
        json!({ "StringEqualsIgnoreCase": { PCR0: images, PCR16: configurations } })
    };
    let (ours, other) = (pcr0(&Machine::default()), pcr0(&other_image()));
    let all_denies: &[&str] = &[IMAGES, CONFIGURATIONS, UNBOUND, UNGATED];
    vec![
        (
            "kms_default_policy",
            json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow",
                "Principal": { "AWS": "arn:aws:iam::111122223333:root" }, "Action": "kms:*", "Resource": "*" } }),
            &[
                "unattested-use",
                "any-image",
                "any-configuration",
                "debug-image",
                "unbound-use",
                "ungated-action",
                "create-grant",
                "replicate",
                "imported-key-material",
                "user-writes-policy",
            ],
            &["wildcard-action", "unconditioned-allow"],
        ),
        (
            "zero_pcr0_admitted",
            changed(|policy| {
                for sid in ["Admit0", IMAGES] {
                    for values in statement(policy, sid)["Condition"].as_object_mut().expect("an object").values_mut() {
                        values[PCR0] = json!(zeros);
                    }
                }
            }),
            &["debug-image"],
            &["zero-pcr"],
        ),
        (
            "zero_pcr0_beside_ours",
            changed(|policy| {
                for sid in ["Admit0", IMAGES] {
                    for values in statement(policy, sid)["Condition"].as_object_mut().expect("an object").values_mut() {
                        values[PCR0] = json!([hex::encode(ours), zeros]);
                    }
                }
            }),
            &["debug-image"],
            &["zero-pcr"],
        ),
        (
            "pcr0_missing",
            without(
                &[IMAGES],
                changed(|policy| {
                    let admit = statement(policy, "Admit0");
                    admit["Condition"]["StringEqualsIgnoreCase"].as_object_mut().expect("an object").remove(PCR0);
                }),
            ),
            &["any-image", "debug-image"],
            &["missing-pcr0"],
        ),
        (
            "pcr16_missing",
            without(
                &[CONFIGURATIONS],
                changed(|policy| {
                    let admit = statement(policy, "Admit0");
                    admit["Condition"]["StringEqualsIgnoreCase"].as_object_mut().expect("an object").remove(PCR16);
                }),
            ),
            &["any-configuration"],
            &["missing-pcr16"],
        ),
        (
            "pcr16_missing_and_denied",
            changed(|policy| {
                let admit = statement(policy, "Admit0");
                admit["Condition"]["StringEqualsIgnoreCase"].as_object_mut().expect("an object").remove(PCR16);
            }),
            &[],
            &["missing-pcr16"],
        ),
        (
            "kms_star_for_the_parent",
            and(allow(json!("kms:*"), Value::Null), good()),
            &["user-writes-policy"],
            &["wildcard-action", "unconditioned-allow"],
        ),
        (
            "all_but_a_few",
            and(
                json!({ "Sid": "Added", "Effect": "Allow", "Principal": { "AWS": ADMINISTRATOR },
            "NotAction": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": "*" }),
                good(),
            ),
            &[],
            &["wildcard-action"],
        ),
        (
            "grants",
            and(allow(json!("kms:CreateGrant"), Value::Null), without(&[UNGATED], good())),
            &["create-grant"],
            &["undenied"],
        ),
        (
            "replication",
            and(allow(json!("kms:ReplicateKey"), Value::Null), without(&[UNGATED], good())),
            &["replicate"],
            &[],
        ),
        (
            "policy_by_the_user",
            and(allow(json!("kms:PutKeyPolicy"), Value::Null), good()),
            &["user-writes-policy"],
            &[],
        ),
        ("unconditioned_and_denied", and(allow(uses(), Value::Null), good()), &[], &["unconditioned-allow"]),
        (
            "unconditioned_and_open",
            and(allow(uses(), Value::Null), without(&[IMAGES, CONFIGURATIONS, UNBOUND], good())),
            &["unattested-use", "any-image", "any-configuration", "debug-image", "unbound-use"],
            &["unconditioned-allow"],
        ),
        (
            "anybody",
            and(
                json!({ "Sid": "Added", "Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt",
            "Resource": "*" }),
                without(&[IMAGES, CONFIGURATIONS], good()),
            ),
            &["unattested-use", "any-image", "any-configuration", "debug-image", "user-writes-policy"],
            &["unconditioned-allow"],
        ),
        (
            "if_exists",
            changed(|policy| {
                let deny = without(&[IMAGES, CONFIGURATIONS], policy.clone());
                *policy = deny;
                let admit = statement(policy, "Admit0");
                let condition = admit["Condition"]["StringEqualsIgnoreCase"].take();
                admit["Condition"] = json!({ "StringEqualsIgnoreCaseIfExists": condition });
            }),
            &["unattested-use", "any-configuration"],
            &["missing-pcr0", "missing-pcr16"],
        ),
        (
            "any_image_by_pattern",
            changed(|policy| {
                let others = without(&[IMAGES], policy.clone());
                *policy = others;
                let admit = statement(policy, "Admit0");
                let mut condition = admit["Condition"].take();
                condition["StringEqualsIgnoreCase"].as_object_mut().expect("an object").remove(PCR0);
                condition["StringLike"] = json!({ PCR0: "*" });
                admit["Condition"] = condition;
            }),
            &["any-image", "debug-image"],
            &["missing-pcr0", "malformed-pcr"],
        ),
        (
            "denies_in_one_statement",
            changed(|policy| {
                let values = [(IMAGES, PCR0), (CONFIGURATIONS, PCR16)].map(|(sid, register)| {
                    statement(policy, sid)["Condition"]["StringNotEqualsIgnoreCase"][register].take()
                });
                let [image, configuration] = values;
                let mut deny = statement(policy, IMAGES).clone();
                deny["Condition"] = json!({ "StringNotEqualsIgnoreCase": { PCR0: image, PCR16: configuration } });
                *policy = and(deny, without(&[IMAGES, CONFIGURATIONS], policy.clone()));
            }),
            &[],
            &["anded-denies", "undenied"],
        ),
        (
            "cross_product",
            changed(|policy| {
                *policy = without(&["Admit0", IMAGES, CONFIGURATIONS], policy.clone());
                let pairs = listed(&[ours, other], &[CONFIGURATION, OTHER_CONFIGURATION]);
                *policy = and(allow(uses(), pairs), policy.clone());
            }),
            &["cross-product"],
            &["undenied"],
        ),
        (
            "imported_key_material",
            and(allow(json!("kms:ImportKeyMaterial"), Value::Null), without(&[UNGATED], good())),
            &["imported-key-material"],
            &[],
        ),
        (
            "condition_on_encrypt",
            and(allow(json!(["kms:Encrypt"]), listed(&[ours], &[CONFIGURATION])), good()),
            &[],
            &["never-matches"],
        ),
        (
            "encrypt",
            and(allow(json!("kms:Encrypt"), Value::Null), without(&[UNGATED], good())),
            &["ungated-action"],
            &["undenied"],
        ),
        (
            "encrypt_by_a_role_of_a_condition",
            and(
                json!({ "Sid": "Added", "Effect": "Allow", "Principal": "*",
            "Action": "kms:Encrypt", "Resource": "*", "Condition": { "StringEquals": { "aws:PrincipalArn": ROLE } } }),
                without(&[UNGATED], good()),
            ),
            &["ungated-action"],
            &[],
        ),
        (
            "use_in_another_context",
            and(
                allow(
                    json!("kms:Decrypt"),
                    json!({ "StringEquals":
            { "kms:EncryptionContext:app": "x" } }),
                ),
                without(&[IMAGES, CONFIGURATIONS, UNBOUND], good()),
            ),
            &["unattested-use", "any-image", "any-configuration", "debug-image", "unbound-use"],
            &["unconditioned-allow"],
        ),
        ("use_without_the_binding", without(&[UNBOUND], good()), &["unbound-use"], &[]),
        ("nothing_is_denied", without(all_denies, good()), &["unbound-use"], &["undenied"]),
        (
            "upper_case",
            changed(|policy| {
                let admit = statement(policy, "Admit0");
                let condition = admit["Condition"]["StringEqualsIgnoreCase"].take();
                let upper = condition
                    .to_string()
                    .to_uppercase()
                    .replace("KMS:RECIPIENTATTESTATION:", "kms:RecipientAttestation:");
                admit["Condition"] = json!({ "StringEquals": serde_json::from_str::<Value>(&upper).expect("JSON") });
            }),
            &[],
            &["malformed-pcr"],
        ),
        (
            "a_configuration_for_pcr16_itself",
            changed(|policy| {
                statement(policy, "Admit0")["Condition"]["StringEqualsIgnoreCase"][PCR16] = json!("ab".repeat(32));
            }),
            &[],
            &["malformed-pcr"],
        ),
        (
            "another_resource",
            changed(|policy| {
                statement(policy, IMAGES)["Resource"] = json!("arn:aws:kms:eu-central-1:111122223333:key/another");
            }),
            &[],
            &["other-resource", "undenied"],
        ),
        (
            "grants_for_whom_the_denies_exempt",
            {
                let mut policy = and(
                    json!({ "Sid": "Added", "Effect": "Allow", "Principal":
                { "AWS": "arn:aws:iam::111122223333:root" }, "Action": "kms:CreateGrant", "Resource": "*" }),
                    good(),
                );
                for sid in all_denies {
                    let exempt = json!({ "aws:PrincipalArn": "arn:aws:iam::111122223333:role/legacy-app" });
                    statement(&mut policy, sid)["Condition"]["StringNotEquals"] = exempt;
                }
                policy
            },
            &["create-grant"],
            &["undenied"],
        ),
        (
            "a_deny_that_a_context_turns_off",
            changed(|policy| {
                statement(policy, UNGATED)["Condition"] =
                    json!({ "StringNotEquals": { "kms:EncryptionContext:app": "x" } });
                *policy = and(allow(json!("kms:Encrypt"), Value::Null), policy.clone());
            }),
            &["ungated-action"],
            &[],
        ),
        (
            "a_deny_that_never_meets_an_enclave",
            changed(|policy| {
                statement(policy, UNGATED)["Condition"] =
                    json!({ "Null": { "kms:RecipientAttestation:PCR4": "true" } });
                *policy = and(allow(json!("kms:GenerateDataKeyPair"), Value::Null), policy.clone());
            }),
            &["ungated-action"],
            &[],
        ),
        (
            "policy_by_anybody_while_nothing_is_admitted",
            and(
                json!({ "Sid": "Added", "Effect": "Allow", "Principal": "*",
            "Action": "kms:PutKeyPolicy", "Resource": "*" }),
                dedicated_key_policy(ADMINISTRATOR, ROLE, &[]),
            ),
            &["user-writes-policy"],
            &[],
        ),
        (
            "policy_by_the_account_by_a_condition",
            changed(|policy| {
                for sid in ["Administer", "Admit0"] {
                    statement(policy, sid)["Principal"] = json!({ "AWS": "*" });
                    statement(policy, sid)["Condition"]["StringEquals"] =
                        json!({ "kms:CallerAccount": "111122223333" });
                }
            }),
            &["user-writes-policy"],
            &["user-stops-key"],
        ),
        (
            "policy_by_the_users_session",
            and(
                json!({ "Sid": "Added", "Effect": "Allow", "Principal": { "AWS":
            "arn:aws:sts::111122223333:assumed-role/strongroom-parent/i-0123456789abcdef0" }, "Action": "kms:PutKeyPolicy",
            "Resource": "*" }),
                good(),
            ),
            &["user-writes-policy"],
            &[],
        ),
        (
            "policy_by_a_user_with_more_conditions",
            and(
                allow(json!("kms:PutKeyPolicy"), Value::Null),
                changed(|policy| {
                    statement(policy, "Admit0")["Condition"]["Null"] =
                        json!({ "kms:RecipientAttestation:PCR3": "false" });
                }),
            ),
            &["user-writes-policy"],
            &[],
        ),
        (
            "the_host_can_delete_the_key",
            and(allow(json!("kms:ScheduleKeyDeletion"), Value::Null), good()),
            &[],
            &["user-stops-key"],
        ),
        (
            "a_service",
            and(
                json!({ "Sid": "Added", "Effect": "Allow", "Principal": { "Service": "logs.amazonaws.com" },
            "Action": "kms:Encrypt", "Resource": "*" }),
                changed(|policy| {
                    statement(policy, UNGATED)["Condition"] = json!({ "StringLike": { "aws:PrincipalArn": "*" } });
                }),
            ),
            &[],
            &["foreign-principal", "undenied"],
        ),
        (
            "not_understood",
            changed(|policy| {
                statement(policy, "Admit0")["Condition"] = json!({ "NumericEquals": { PCR0: "1" } });
            }),
            &[],
            &["not-understood"],
        ),
        ("no_policy", json!({ "Policy": "{" }), &[], &["not-understood"]),
    ]
}

#[tokio::test]
async fn every_bad_policy_fails_for_the_right_reason() {
    let folder = test_directory().expect("a folder");
    assert_eq!(linted(folder.path(), &good(), &[]).await, (Some(0), vec![]));
    for (name, policy, open, wrong) in bad() {
        let (code, findings) = linted(folder.path(), &policy, &[]).await;
        assert_eq!(code, Some(1), "{name}: {findings:#?}");
        let rules = |are_open| -> BTreeSet<&str> {
            let findings = findings.iter().filter(|finding| finding["open"] == are_open);
            findings.filter_map(|finding| finding["rule"].as_str()).collect()
        };
        assert_eq!(rules(true), open.iter().copied().collect(), "{name}: {findings:#?}");
        assert!(wrong.iter().all(|rule| rules(false).contains(rule)), "{name}: {wrong:?}: {findings:#?}");
        for finding in &findings {
            assert!(["why", "mend"].iter().all(|field| finding[field].as_str().is_some_and(|text| text.len() > 10)));
        }
    }
}

/// Calls over the wire that should be refused, by the rule of the linter that each is about.
struct Calls {
    kms: MockKms,
    client: Client,
    key: String,
    enclaves: Vec<(&'static str, Enclave)>,
}

impl Calls {
    async fn new() -> Self {
        let kms = MockKms::start().await;
        let key = kms.control.create_key(Some(good())).await.expect("a key");
        let debug = Machine { debug_mode: true, ..Machine::default() };
        let enclaves = vec![
            ("any-image", Enclave::boot(other_image(), CONFIGURATION)),
            ("any-configuration", Enclave::boot(Machine::default(), OTHER_CONFIGURATION)),
            ("any-configuration", Enclave::unconfigured(NitroAuthority::new(), Machine::default())),
            ("debug-image", Enclave::boot(debug, CONFIGURATION)),
            ("unbound-use", Enclave::boot(Machine::default(), CONFIGURATION)),
        ];
        Self { client: kms.client(), kms, key, enclaves }
    }

    /// Whether the key can be used so, by either action, with whatever context the policies here ask for.
    async fn uses(&self, recipient: Option<RecipientInfo>, bound: bool) -> bool {
        for more in [None, Some(("app", "x"))] {
            let mut context: std::collections::HashMap<String, String> = std::collections::HashMap::new();
            context.extend(bound.then(|| ("strongroom:binding".to_owned(), "00".to_owned())));
            context.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
            let request = self.client.generate_data_key().key_id(&self.key).key_spec(DataKeySpec::Aes256);
            let request = request.set_encryption_context(Some(context.clone())).set_recipient(recipient.clone());
            // A blob that cannot be opened is looked at once the policy has let the call through.
            let damaged = Blob::new([1; 80]);
            let decrypt = self.client.decrypt().key_id(&self.key).ciphertext_blob(damaged);
            let decrypt = decrypt.set_encryption_context(Some(context)).set_recipient(recipient.clone());
            let decrypted = decrypt.send().await.expect_err("damaged");
            let denied = aws_sdk_kms::error::ProvideErrorMetadata::code(&decrypted) == Some("AccessDeniedException");
            if request.send().await.is_ok() || !denied {
                return true;
            }
        }
        false
    }

    /// The rules that are broken here, of those that mock-kms has actions for.
    async fn open(&mut self, policy: &Value) -> BTreeSet<&'static str> {
        self.kms.control.put_policy(&self.key, policy).await.expect("a policy");
        let mut open = BTreeSet::new();
        if self.uses(None, true).await {
            open.insert("unattested-use");
        }
        for place in 0..self.enclaves.len() {
            let (rule, enclave) = &mut self.enclaves[place];
            let (rule, recipient) = (*rule, enclave.recipient());
            self.kms.trust(&self.enclaves[place].1.nsm);
            if self.uses(Some(recipient), rule != "unbound-use").await {
                open.insert(rule);
            }
        }
        for context in ["strongroom:binding", "app"] {
            let encrypt = self.client.encrypt().key_id(&self.key).plaintext(Blob::new("a key of my own"));
            if encrypt.encryption_context(context, "x").send().await.is_ok() {
                open.insert("ungated-action");
            }
        }
        open
    }
}

#[tokio::test]
async fn mock_kms_opens_what_lint_calls_open_and_nothing_else() {
    let mut calls = Calls::new().await;
    assert_eq!(calls.open(&good()).await, BTreeSet::new());
    for (name, policy, open, wrong) in bad() {
        // What nobody understands KMS would not take, and mock-kms does not.
        if wrong.contains(&"not-understood") {
            assert!(calls.kms.control.put_policy(&calls.key, &policy).await.is_err(), "{name}");
            continue;
        }
        // It is GenerateDataKeyPair that is open there, which mock-kms does not have.
        if name == "a_deny_that_never_meets_an_enclave" {
            continue;
        }
        let wire = ["unattested-use", "any-image", "any-configuration", "debug-image", "unbound-use", "ungated-action"];
        let mut expected: BTreeSet<&str> = open.iter().copied().filter(|rule| wire.contains(rule)).collect();
        if open.contains(&"cross-product") {
            // Over the wire the other image with our configuration shows it, and the other way round.
            expected.extend(["any-image", "any-configuration"]);
        }
        assert_eq!(calls.open(&policy).await, expected, "{name}");
    }
}

#[tokio::test]
async fn what_the_aws_cli_prints_is_read() {
    let folder = test_directory().expect("a folder");
    let printed = json!({ "Policy": good().to_string(), "PolicyName": "default" });
    assert_eq!(linted(folder.path(), &printed, &[]).await, (Some(0), vec![]));

    let metadata = |origin: &str, usage: &str| {
        json!({ "KeyMetadata": { "Origin": origin, "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": usage,
            "KeyManager": "CUSTOMER", "MultiRegion": false } })
    };
    for (origin, usage, rule) in [
        ("AWS_KMS", "ENCRYPT_DECRYPT", None),
        ("AWS_CLOUDHSM", "ENCRYPT_DECRYPT", None),
        ("EXTERNAL", "ENCRYPT_DECRYPT", Some("imported-key-material")),
        ("EXTERNAL_KEY_STORE", "ENCRYPT_DECRYPT", Some("imported-key-material")),
        ("AWS_KMS", "SIGN_VERIFY", Some("unfit-key")),
    ] {
        fs::write(folder.path().join("key.json"), metadata(origin, usage).to_string()).expect("written");
        let (_, findings) = linted(folder.path(), &printed, &["--key-metadata", "key.json"]).await;
        let found: Vec<&str> = findings.iter().filter_map(|finding| finding["rule"].as_str()).collect();
        assert_eq!(found, rule.into_iter().collect::<Vec<_>>(), "{origin} {usage}");
    }
}

/// Names of the policy's author go to a terminal.
#[tokio::test]
async fn findings_are_readable_and_hostile_files_harmless() {
    let folder = test_directory().expect("a folder");
    let write = |content: &[u8]| fs::write(folder.path().join("p.json"), content).expect("written");
    write(
        and(json!({ "Sid": "\u{1b}[2J", "Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*" }), good())
            .to_string()
            .as_bytes(),
    );
    let output = strongroom(folder.path(), &["kms-policy", "lint", "p.json"]).await;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("unconditioned-allow\n  why   ") || text.contains("unconditioned-allow  in"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");

    for (name, content, code) in [
        ("not_json", b"{".to_vec(), 2),
        ("deep", [b"[".repeat(50_000), b"]".repeat(50_000)].concat(), 2),
        ("too_long", vec![b' '; 300_000], 2),
        ("text", b"\"kms:*\"".to_vec(), 1),
        (
            "stars",
            json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow", "Principal": "*",
            "Action": "*".repeat(10_000) + "x", "Resource": "*" } })
            .to_string()
            .into_bytes(),
            1,
        ),
    ] {
        write(&content);
        let output = strongroom(folder.path(), &["kms-policy", "lint", "p.json"]).await;
        assert_eq!(output.status.code(), Some(code), "{name}: {}", said(&output));
    }
}
