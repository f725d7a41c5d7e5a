//! Exports: sealed to a recipient of the measured configuration, opened on the recipient's machine and by another
//! language's HPKE; and the recovery drill of the docs, from a lost enclave to a signature.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use strongroom_protocol::{ErrorCode, Request};
use strongroom_tests::api::Reply;
use strongroom_tests::opened;
use strongroom_tests::stack::Plan;

use super::files::{import, write};
use super::{asked, listing, stored};
use crate::canary::needles::Needles;
use crate::command_line::{command, ended, said};
use crate::scene::{Scene, assert_problem};

/// A recipient whose key another library made, and an enclave that exports to them.
async fn exporting() -> (Scene, Value) {
    let recipient = asked("hpke_keys.py", &[json!({ "recipient": "vault" })]).await.remove(0);
    let recipients = json!([{ "name": "vault", "public_key": recipient["public_key"] }]);
    let it = Scene::planned(|plan| {
        listing(&["generate", "sign", "export"])(plan);
        plan.configuration.insert("export_recipients".to_owned(), recipients);
    })
    .await;
    (it, recipient)
}

async fn create(it: &Scene, key_id: &str, algorithm: &str, exportable: bool) -> Value {
    let mut policy = json!({ "payloads": ["message"], "exportable": exportable });
    if algorithm.contains('-') {
        policy["paths"] = json!(["m/44'"]);
    }
    it.create_with(json!({ "key_id": key_id, "algorithm": algorithm, "policy": policy })).await.body
}

async fn export(it: &Scene, key_id: &str, recipient: &str) -> Reply {
    let body = json!({ "recipient": recipient });
    it.api.post(&format!("/v1/keys/{key_id}/export"), body).await.expect("a reply")
}

/// For the description of the interface.
pub(super) async fn replies() -> impl Iterator<Item = Reply> {
    let (it, _) = exporting().await;
    create(&it, "leaves", "secp256k1", true).await;
    create(&it, "stays", "secp256k1", false).await;
    let mut replies = Vec::new();
    for (key_id, recipient) in [("leaves", "vault"), ("leaves", "stranger"), ("stays", "vault"), ("nobody", "vault")] {
        replies.push(export(&it, key_id, recipient).await);
    }
    replies.into_iter()
}

/// `strongroom …` on the recipient's machine.
async fn strongroom(it: &Scene, arguments: &[&str]) -> (i32, String) {
    let output = ended(&mut command(it.stack.directory(), arguments)).await;
    (output.status.code().expect("a code"), said(&output))
}

/// The secret in this file is the private key of this public key: other libraries say so.
async fn assert_is_secret_of(file: &str, algorithm: &str, public_key: &str) {
    let secret = std::fs::read_to_string(file).expect("the secret");
    let secret = secret.trim();
    let question = json!({ "algorithm": algorithm, "secret": secret });
    let facts = asked("key_files.py", &[question]).await.remove(0);
    assert_eq!(format!("0x{}", facts["public_key"].as_str().expect("text")), public_key);
}

#[tokio::test]
async fn an_exported_key_is_opened_by_its_recipient_and_is_the_key() {
    let (it, recipient) = exporting().await;
    let key_file = write(&it, "vault.pem", recipient["private_key"].as_str().expect("text"));
    for (n, algorithm) in ["secp256k1", "ed25519", "bip32-secp256k1", "slip10-ed25519"].into_iter().enumerate() {
        let key_id = format!("key-{n}");
        let view = create(&it, &key_id, algorithm, true).await;
        let calls = it.calls().await;
        let (code, printed) =
            strongroom(&it, &["key", "export", &key_id, "--recipient", "vault", "--url", &it.stack.url]).await;
        assert_eq!(code, 0, "{printed}");
        assert_eq!(it.outcomes_after(calls).await, ["Decrypt Success"]);
        let exported: Value = serde_json::from_str(&printed).expect("JSON");
        assert_eq!(exported["public_key"], view["public_key"]);

        // Another implementation opens it, with what it makes of the binding by itself.
        let record = it.record(&key_id);
        let question = json!({
            "open": exported["ciphertext"].as_str().expect("text").trim_start_matches("0x"),
            "encapsulated_key": exported["encapsulated_key"].as_str().expect("text").trim_start_matches("0x"),
            "private_key": recipient["private_key"], "binding": hex::encode(record.binding().as_aad()), "recipient": "vault",
        });
        let opened = asked("hpke_keys.py", &[question]).await.remove(0);

        let (export, out) = (write(&it, "export.json", &printed), it.stack.directory().join(format!("{key_id}.hex")));
        let out = out.to_str().expect("text");
        let public_key = view["public_key"].as_str().expect("text");
        let open = ["key", "open-export", &export, "--recipient-key", &key_file, "--out", out];
        let (code, told) = strongroom(&it, &[&open[..], &["--expect-public-key", public_key]].concat()).await;
        assert_eq!(code, 0, "{told}");
        assert!(told.contains("OPENED") && told.contains(public_key), "{told}");
        for (_, address) in view["addresses"].as_object().expect("addresses") {
            assert!(told.contains(address.as_str().expect("text")), "{told}");
        }
        assert_eq!(std::fs::read_to_string(out).expect("the secret").trim(), opened["secret"]);
        assert_eq!(std::fs::metadata(out).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_is_secret_of(out, algorithm, public_key).await;
        let (code, told) = strongroom(&it, &open).await;
        assert_eq!(code, 1, "no file is overwritten: {told}");
    }
    let logs = ["parent.log", "enclave.log"]
        .map(|log| std::fs::read_to_string(it.stack.directory().join(log)).expect("a log"));
    assert!(logs.iter().all(|log| log.matches("a key is exported").count() == 4), "{logs:?}");
}

#[tokio::test]
async fn only_exportable_keys_leave_and_only_to_recipients_that_are_named() {
    let (it, _) = exporting().await;
    create(&it, "stays", "ed25519", false).await;
    create(&it, "leaves", "ed25519", true).await;
    let calls = it.calls().await;
    assert_problem(&export(&it, "stays", "vault").await, 403, "not-exportable");
    assert_problem(&export(&it, "nobody", "vault").await, 404, "key-not-found");
    assert_problem(&export(&it, "leaves", "-").await, 422, "invalid-request");
    assert_problem(&export(&it, "leaves", "stranger").await, 422, "recipient-unknown");
    assert_eq!(it.calls().await, calls, "KMS was not asked");
    let (code, told) =
        strongroom(&it, &["key", "export", "stays", "--recipient", "vault", "--url", &it.stack.url]).await;
    assert_eq!(code, 6, "{told}");
    assert!(told.contains("not-exportable"), "{told}");

    // Past the parent's own check, the enclave says no: what counts is the policy that was bound.
    let request = Request::ExportKey {
        record: it.record("stays").present().expect("encodes"),
        recipient: "vault".parse().expect("a name"),
    };
    assert_eq!(it.enclave().await.ask(request).await.expect("a reply").err(), Some(ErrorCode::NotExportable));
    it.tamper("stays", |record| record["policy"]["exportable"] = true.into());
    assert_problem(&export(&it, "stays", "vault").await, 502, "record-refused");

    // Another configuration, without the operation or the recipient: another enclave.
    let usual = Scene::start().await;
    create(&usual, "leaves", "ed25519", true).await;
    assert_problem(&export(&usual, "leaves", "vault").await, 403, "operation-not-configured");
}

/// The recipient believes the file because of what it opens to, and nothing else.
#[tokio::test]
async fn an_export_that_was_changed_or_is_anothers_is_not_opened() {
    let (it, recipient) = exporting().await;
    let key_file = write(&it, "vault.pem", recipient["private_key"].as_str().expect("text"));
    let stranger = asked("hpke_keys.py", &[json!({ "recipient": "vault" })]).await.remove(0);
    let stranger = write(&it, "stranger.pem", stranger["private_key"].as_str().expect("text"));
    create(&it, "a", "ed25519", true).await;
    let other = create(&it, "b", "ed25519", true).await;
    let exported = export(&it, "a", "vault").await.body;
    let out = it.stack.directory().join("a.hex");
    let open = async |export: &Value, key_file: &str, more: &[&str]| {
        let file = write(&it, "export.json", &export.to_string());
        let open = ["key", "open-export", &file, "--recipient-key", key_file, "--out", out.to_str().expect("text")];
        strongroom(&it, &[&open[..], more].concat()).await
    };
    let changed = |field: &str, value: Value| {
        let mut changed = exported.clone();
        changed[field] = value;
        changed
    };
    let wider = json!({ "payloads": ["message"], "exportable": true, "hold_seconds": 60 });
    for (name, export, key_file, code, words) in [
        ("another_recipient", exported.clone(), &stranger, 1, "sealed to another recipient"),
        ("another_name", changed("key_id", "c".into()), &key_file, 1, "changed"),
        ("another_origin", changed("origin", "imported".into()), &key_file, 1, "changed"),
        ("another_policy", changed("policy", wider), &key_file, 1, "changed"),
        ("another_public_key", changed("public_key", other["public_key"].clone()), &key_file, 1, "changed"),
        ("another_ciphertext", changed("ciphertext", "00".repeat(48).into()), &key_file, 1, "changed"),
        ("another_version", changed("version", 2.into()), &key_file, 2, "version"),
        ("no_hex", changed("encapsulated_key", "x".into()), &key_file, 2, "not valid"),
        ("unknown_field", changed("note", 1.into()), &key_file, 2, "not what"),
    ] {
        let (status, told) = open(&export, key_file, &[]).await;
        assert_eq!(status, code, "{name}: {told}");
        assert!(told.contains(words), "{name}: {told}");
        assert!(!out.exists(), "{name}");
    }
    let expected = ["--expect-public-key", other["public_key"].as_str().expect("text")];
    let (status, told) = open(&exported, &key_file, &expected).await;
    assert_eq!(status, 1, "{told}");
    let (status, told) = open(&exported, &out.with_extension("nowhere").to_string_lossy(), &[]).await;
    assert_eq!(status, 2, "{told}");

    // Anybody can seal a key of theirs to the recipient, for whatever they say of it.
    let forged = forged(&it, &exported, &recipient).await;
    let (status, told) = open(&forged, &key_file, &[]).await;
    assert_eq!(status, 1, "{told}");
    assert!(told.contains("not the private key of its public key") && !out.exists(), "{told}");
}

/// The same export, around another secret.
async fn forged(it: &Scene, exported: &Value, recipient: &Value) -> Value {
    let binding = it.record("a").binding();
    let question = json!({
        "seal": "11".repeat(32), "public_key": recipient["public_key"], "domain": "strongroom-export-v1",
        "info": [hex::encode(binding.as_aad()), hex::encode("vault")],
    });
    let sealed = asked("hpke_keys.py", &[question]).await.remove(0);
    let mut forged = exported.clone();
    forged["encapsulated_key"] = sealed["encapsulated_key"].clone();
    forged["ciphertext"] = sealed["ciphertext"].clone();
    forged
}

/// What an export must leave nowhere but with its recipient.
fn needles(it: &Scene) -> Needles {
    let mut needles = Needles::default();
    needles.add("the exported key", &opened::secret(&it.stack, &it.record("hot-1")).expect("it opens"));
    needles
}

/// docs/custody.md's drill: a key is made, exported, taken home; everything of AWS is lost; the key is imported into a
/// new enclave under new KMS keys, and is the same key.
#[tokio::test]
async fn the_recovery_drill_brings_a_key_back() {
    let home = strongroom_tests::stack::test_directory().expect("a folder");
    let path = |name: &str| home.path().join(name).to_str().expect("text").to_owned();
    let (vault, secret) = (path("vault.pem"), path("hot-1.hex"));
    let at_home = async |arguments: &[&str]| {
        let output = ended(&mut command(home.path(), arguments)).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    let recipient = at_home(&["recipient", "new", "--name", "vault", "--key-file", &vault, "--json"]).await;
    let recipient: Value = serde_json::from_str(&recipient).expect("JSON");
    assert_eq!(std::fs::metadata(&vault).expect("a file").permissions().mode() & 0o777, 0o600);

    let ceremony = move |plan: &mut Plan| {
        listing(&["generate", "sign", "export"])(plan);
        plan.configuration.insert("export_recipients".to_owned(), json!([recipient]));
    };
    let lost = Scene::planned(ceremony).await;
    let view = create(&lost, "hot-1", "secp256k1", true).await;
    let export = export(&lost, "hot-1", "vault").await;
    assert_eq!(export.status.as_u16(), 200, "{}", export.body);
    let logs = lost.stack.directory().to_owned();
    let (found, read) = needles(&lost).found_under(&logs);
    assert!(found.is_empty() && read > 10_000, "{found:?}");
    drop(lost);

    std::fs::write(path("hot-1.export.json"), export.body.to_string()).expect("written");
    at_home(&["key", "open-export", "hot-1.export.json", "--recipient-key", &vault, "--out", &secret]).await;
    let new = super::importing().await;
    let output = import(&new, &new.stack.url, &["hot-1", "--algorithm", "secp256k1", "--file", &secret]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["key"]["public_key"], view["public_key"]);
    assert_eq!(report["key"]["addresses"], view["addresses"]);
    assert_eq!(stored(&new), ["hot-1"]);
}
