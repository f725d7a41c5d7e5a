//! `strongroom kms-policy generate`, from outside.

use std::fs;

use serde_json::{Value, json};
use strongroom_parent::kms_policy::Decision::{self, Allowed, ExplicitlyDenied, ImplicitlyDenied};
use strongroom_parent::kms_policy::{Caller, Facts, KeyPolicy, Registers};
use strongroom_protocol::{ByteArray, Measurement};
use strongroom_tests::mock_kms::{Admitted, dedicated_key_policy};
use strongroom_tests::stack::test_directory;
use tempfile::TempDir;

use super::{ENCLAVE, PROVISIONER, generated, linted, said, strongroom, write_image};
use crate::mock_kms::running::{ADMINISTRATOR, ROLE};

/// Two images and two configurations.
fn files() -> TempDir {
    let folder = test_directory().expect("a folder");
    write_image(folder.path(), "old.json", 0x11);
    write_image(folder.path(), "new.json", 0x33);
    fs::write(folder.path().join("enclave.json"), ENCLAVE).expect("written");
    fs::write(folder.path().join("ceremony.json"), ENCLAVE.replace("\"sign\"", "\"sign\", \"rewrap\""))
        .expect("written");
    folder
}

fn enclave(pcr0: u8, configuration: &str) -> Registers {
    Registers::from([
        (0, ByteArray([pcr0; 48])),
        (16, ByteArray(Measurement::of(configuration.as_bytes()).pcr16)),
        (3, ByteArray([3; 48])),
    ])
}

fn decide(policy: &Value, arn: &str, action: &str, registers: Option<&Registers>) -> Decision {
    let encryption_context =
        ["key_id", "binding"].map(|name| (format!("strongroom:{name}"), "hot-1".to_owned())).into();
    let caller = Caller { arn: arn.to_owned() };
    let facts = Facts { caller: &caller, encryption_context: &encryption_context, registers };
    KeyPolicy::parse(policy).expect("a policy").decide(action, "*", &facts)
}

const DECRYPT: &str = "kms:Decrypt";
const GENERATE: &str = "kms:GenerateDataKey";

#[tokio::test]
async fn every_generated_policy_passes_the_linter() {
    let folder = files();
    let pcr8 = "08".repeat(48);
    let both = ["--admit", "old.json", "enclave.json", "--admit", "new.json", "ceremony.json"];
    for options in [
        &[][..],
        &["--admit", "old.json", "enclave.json"],
        &both,
        &[&both[..], &["--admit", "new.json", "enclave.json", "--lock"]].concat(),
        &[&both[..], &["--provisioner", PROVISIONER, "--user", "arn:aws:iam::111122223333:role/second"]].concat(),
        &[&both[..], &["--instance-role", ROLE, "--pcr8", &pcr8]].concat(),
        &[&both[..], &["--deny-key", "hot-1", "--deny-key", "hot-2"]].concat(),
    ] {
        let policy = generated(folder.path(), options).await;
        assert_eq!(linted(folder.path(), &policy, &[]).await, (Some(0), vec![]), "{options:?}: {policy:#}");
    }
}

/// The policy of all other suites is this command's.
#[tokio::test]
async fn the_command_writes_what_mock_kms_evaluates_in_all_suites() {
    let folder = files();
    let policy = generated(folder.path(), &["--admit", "old.json", "enclave.json"]).await;
    let admitted = Admitted::new([0x11; 48], Measurement::of(ENCLAVE.as_bytes()).pcr16).expect("measured");
    assert_eq!(policy, dedicated_key_policy(ADMINISTRATOR, ROLE, &[admitted]));
}

#[tokio::test]
async fn use_provision_and_administration_are_apart() {
    let folder = files();
    let policy = generated(folder.path(), &["--provisioner", PROVISIONER, "--admit", "old.json", "enclave.json"]).await;
    let admitted = enclave(0x11, ENCLAVE);
    for (arn, action, expected) in [
        (ROLE, DECRYPT, Allowed),
        (ROLE, GENERATE, ImplicitlyDenied),
        (PROVISIONER, DECRYPT, Allowed),
        (PROVISIONER, GENERATE, Allowed),
        (ADMINISTRATOR, DECRYPT, ImplicitlyDenied),
        (ADMINISTRATOR, "kms:PutKeyPolicy", Allowed),
        (ROLE, "kms:PutKeyPolicy", ImplicitlyDenied),
        (PROVISIONER, "kms:PutKeyPolicy", ImplicitlyDenied),
        (ADMINISTRATOR, "kms:CreateGrant", ExplicitlyDenied),
        (ADMINISTRATOR, "kms:ImportKeyMaterial", ExplicitlyDenied),
    ] {
        assert_eq!(decide(&policy, arn, action, Some(&admitted)), expected, "{arn}: {action}");
    }
}

#[tokio::test]
async fn a_roll_out_admits_pairs_and_not_their_product() {
    let folder = files();
    let both = ["--admit", "old.json", "enclave.json", "--admit", "new.json", "ceremony.json"];
    let policy = generated(folder.path(), &both).await;
    let ceremony = ENCLAVE.replace("\"sign\"", "\"sign\", \"rewrap\"");
    for (pcr0, configuration, expected) in [
        (0x11, ENCLAVE, Allowed),
        (0x33, &ceremony, Allowed),
        (0x11, &ceremony, ImplicitlyDenied),
        (0x33, ENCLAVE, ImplicitlyDenied),
        (0x44, ENCLAVE, ExplicitlyDenied),
        (0x11, "{}", ExplicitlyDenied),
    ] {
        assert_eq!(
            decide(&policy, ROLE, DECRYPT, Some(&enclave(pcr0, configuration))),
            expected,
            "{pcr0} {configuration}"
        );
    }
}

#[tokio::test]
async fn pins_denied_keys_and_the_lock_hold() {
    let folder = files();
    let admit = ["--admit", "old.json", "enclave.json"];
    let with = async |options: &[&str]| generated(folder.path(), &[&admit[..], options].concat()).await;
    let admitted = enclave(0x11, ENCLAVE);

    // Nitro Enclaves guide: PCR3 = SHA384(48 zero bytes, the role's ARN); by Python's hashlib for this ARN.
    let pcr3 = hex::decode(PCR3_OF_ROLE).expect("hex").try_into().expect("48 bytes");
    let pinned = with(&["--instance-role", ROLE]).await;
    assert_eq!(decide(&pinned, ROLE, DECRYPT, Some(&admitted)), ExplicitlyDenied);
    let mut on_the_role = admitted.clone();
    on_the_role.insert(3, ByteArray(pcr3));
    assert_eq!(decide(&pinned, ROLE, DECRYPT, Some(&on_the_role)), Allowed);

    let denied = with(&["--deny-key", "hot-1"]).await;
    assert_eq!(decide(&denied, ROLE, DECRYPT, Some(&admitted)), ExplicitlyDenied);
    let another = with(&["--deny-key", "hot-2"]).await;
    assert_eq!(decide(&another, ROLE, DECRYPT, Some(&admitted)), Allowed);

    let locked = with(&["--lock"]).await;
    assert_eq!(decide(&locked, ROLE, DECRYPT, Some(&admitted)), Allowed);
    for arn in [ADMINISTRATOR, ROLE] {
        assert_eq!(decide(&locked, arn, "kms:PutKeyPolicy", None), ExplicitlyDenied);
    }
}

const PCR3_OF_ROLE: &str =
    "80730bd195d3206c6f6f9ba3cb3e765fe262e2aa8be0e0bb1c04cb2ac6060bbb5705390ccd9bb58bccdcdc7a6219a676";

#[tokio::test]
async fn plans_that_are_no_gate_are_refused() {
    let folder = files();
    let path = folder.path();
    write_image(path, "debug.json", 0);
    let own_roots = json!({ "tls_roots": include_str!("../../vectors/attestation/aws_nitro_root_g1.pem") });
    let mut configuration: Value = serde_json::from_str(ENCLAVE).expect("JSON");
    configuration.as_object_mut().expect("an object").extend(own_roots.as_object().expect("an object").clone());
    fs::write(path.join("own-roots.json"), configuration.to_string()).expect("written");

    let roles = ["--administrator", ADMINISTRATOR, "--user", ROLE];
    let admit = |pcrs, configuration| ["--admit", pcrs, configuration];
    let many: Vec<&str> = (0..64).flat_map(|_| admit("old.json", "enclave.json")).collect();
    for n in 0..64u8 {
        write_image(path, &format!("image-{n}.json"), n + 1);
    }
    let images: Vec<String> = (0..64).map(|n| format!("image-{n}.json")).collect();
    let too_many: Vec<&str> = images.iter().flat_map(|image| admit(image, "enclave.json")).collect();
    for (name, options, told) in [
        ("debug_mode", [&roles[..], &admit("debug.json", "enclave.json")].concat(), "must not be zero"),
        ("own_roots", [&roles[..], &admit("old.json", "own-roots.json")].concat(), "TLS roots of its own"),
        ("no_configuration", [&roles[..], &admit("old.json", "old.json")].concat(), "old.json"),
        ("nobody", [&roles[..2], &admit("old.json", "enclave.json")].concat(), "--user"),
        ("not_apart", vec!["--administrator", ROLE, "--user", ROLE], "must be apart"),
        ("account", vec!["--administrator", "arn:aws:iam::111122223333:root"], "not the ARN of an IAM role"),
        ("wildcard", vec!["--administrator", "arn:aws:iam::111122223333:role/*"], "not the ARN of an IAM role"),
        ("locked_out", [&roles[..], &["--lock"]].concat(), "nothing is admitted"),
        ("no_role", [&roles[..], &["--instance-role", "nonsense"]].concat(), "not the ARN of an IAM role"),
        ("half_a_pair", [&roles[..], &["--admit", "old.json"]].concat(), "2 values required"),
        ("pcr8", [&roles[..], &["--pcr8", "00"]].concat(), "48 bytes"),
        ("zero_pcr8", [&roles[..], &["--pcr8", &"00".repeat(48)]].concat(), "PCR8 is zero"),
        ("too_long", [&roles[..], &too_many].concat(), "KMS takes 32768"),
    ] {
        let output = strongroom(path, &[&["kms-policy", "generate"], &options[..]].concat()).await;
        assert_eq!(output.status.code(), Some(2), "{name}: {}", said(&output));
        assert!(said(&output).contains(told), "{name}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{name}: {}", said(&output));
    }
    // One pair sixty-four times is one pair.
    let statements = generated(path, &many).await["Statement"].as_array().expect("an array").len();
    assert_eq!(statements, 6);

    let loud =
        [&roles[..], &admit("old.json", "own-roots.json"), &["--allow-own-tls-roots", "--output", "p.json"]].concat();
    let output = strongroom(path, &[&["kms-policy", "generate"], &loud[..]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("WARNING"), "{}", said(&output));
    let written: Value = serde_json::from_slice(&fs::read(path.join("p.json")).expect("written")).expect("JSON");
    assert_eq!(linted(path, &written, &[]).await, (Some(0), vec![]));
}
