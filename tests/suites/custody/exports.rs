//! Exports: sealed to a recipient of the measured configuration, opened on the recipient's machine and by another
//! language's HPKE; and the recovery drill of the docs, from a lost enclave to a signature.

use std::os::unix::fs::PermissionsExt as _;

use axum::http::StatusCode;
use serde_json::{Value, json};
use strongroom_protocol::{Algorithm, Binding, ErrorCode, Origin, Request};
use strongroom_tests::api::Reply;
use strongroom_tests::opened;
use strongroom_tests::pki::NITRO_ROOT_FILE;
use strongroom_tests::stack::Plan;

use super::files::{import, write};
use super::parents::{Act, Between};
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
    let body = json!({ "recipient": recipient, "nonce": "00c0ffee" });
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

/// `strongroom key export`, which verifies what it prints.
async fn export_command(it: &Scene, url: &str, key_id: &str, arguments: &[&str]) -> (i32, String, String) {
    let enclave = ["--pcrs", "pcrs.json", "--attestation-root", NITRO_ROOT_FILE, "--url", url];
    let output =
        ended(&mut command(it.stack.directory(), &[&["key", "export", key_id], arguments, &enclave].concat())).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
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
        let public_key = view["public_key"].as_str().expect("text");
        let expected = ["--recipient", "vault", "--expect-public-key", public_key];
        let (code, printed, told) = export_command(&it, &it.stack.url, &key_id, &expected).await;
        assert_eq!(code, 0, "{told}");
        assert!(told.contains("VERIFIED  sealed to vault") && told.contains(public_key), "{told}");
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
        let open = [
            "key",
            "open-export",
            &export,
            "--recipient-key",
            &key_file,
            "--out",
            out,
            "--expect-public-key",
            public_key,
        ];
        let (code, told) = strongroom(&it, &open).await;
        assert_eq!(code, 0, "{told}");
        assert!(told.contains("OPENED") && told.contains(public_key), "{told}");
        for (_, address) in view["addresses"].as_object().expect("addresses") {
            assert!(told.contains(address.as_str().expect("text")), "{told}");
        }
        assert_eq!(std::fs::read_to_string(out).expect("the secret").trim(), opened["secret"]);
        assert_eq!(std::fs::metadata(out).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_is_secret_of(out, algorithm, public_key).await;
        let (code, told) = strongroom(&it, &open).await;
        assert_eq!(code, 2, "no file is overwritten: {told}");
        assert!(told.contains("is there already"), "{told}");
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
    for (key_id, recipient, code, words) in [
        ("stays", "vault", 6, "not-exportable"),
        ("leaves", "stranger", 1, "recipient-unknown"),
        ("nobody", "vault", 4, "key-not-found"),
    ] {
        let (status, printed, told) = export_command(&it, &it.stack.url, key_id, &["--recipient", recipient]).await;
        assert_eq!(printed, "", "{told}");
        assert!(told.contains(words), "{told}");
        assert_eq!(status, code, "{told}");
    }
    for (change, slug) in [("disable", "key-disabled"), ("schedule-deletion", "key-pending-deletion")] {
        it.api.post(&format!("/v1/keys/leaves/{change}"), json!({})).await.expect("a reply");
        assert_problem(&export(&it, "leaves", "vault").await, 403, slug);
    }

    // Past the parent's own check, the enclave says no: what counts is the policy that was bound.
    let request = Request::ExportKey {
        record: it.record("stays").present().expect("encodes"),
        recipient: "vault".parse().expect("a name"),
        nonce: vec![1].try_into().expect("short"),
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
    let view = create(&it, "a", "ed25519", true).await;
    let other = create(&it, "b", "ed25519", true).await;
    let exported = export(&it, "a", "vault").await.body["export"].clone();
    let public_key = view["public_key"].as_str().expect("text");
    let out = it.stack.directory().join("a.hex");
    let open = async |export: &Value, key_file: &str, expected: &[&str]| {
        let file = write(&it, "export.json", &export.to_string());
        let open = ["key", "open-export", &file, "--recipient-key", key_file, "--out", out.to_str().expect("text")];
        strongroom(&it, &[&open[..], expected].concat()).await
    };
    let expected = ["--expect-public-key", public_key];
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
        (
            "another_public_key",
            changed("public_key", other["public_key"].clone()),
            &key_file,
            1,
            "not the expected key",
        ),
        ("another_ciphertext", changed("ciphertext", "00".repeat(48).into()), &key_file, 1, "changed"),
        ("another_version", changed("version", 2.into()), &key_file, 2, "version"),
        ("no_hex", changed("encapsulated_key", "x".into()), &key_file, 2, "not valid"),
        ("unknown_field", changed("note", 1.into()), &key_file, 2, "not what"),
    ] {
        let (status, told) = open(&export, key_file, &expected).await;
        assert_eq!(status, code, "{name}: {told}");
        assert!(told.contains(words), "{name}: {told}");
        assert!(!out.exists(), "{name}");
    }
    let (status, told) = open(&exported, &key_file, &[]).await;
    assert_eq!(status, 2, "who does not say which key it must be has not asked: {told}");
    let (status, told) = open(&exported, &out.with_extension("nowhere").to_string_lossy(), &expected).await;
    assert_eq!(status, 2, "{told}");

    // Anybody can seal something to the recipient: another secret as this key, or a whole key of theirs under its name.
    let (status, told) = open(&forged(&it, &exported, &recipient).await, &key_file, &expected).await;
    assert_eq!(status, 1, "{told}");
    assert!(told.contains("not the private key of its public key") && !out.exists(), "{told}");
    let (status, told) = open(&minted(&exported, &recipient).await, &key_file, &expected).await;
    assert_eq!(status, 1, "{told}");
    assert!(told.contains("not the expected key") && !out.exists(), "{told}");
}

/// A consistent export of a key that somebody made at home.
async fn minted(exported: &Value, recipient: &Value) -> Value {
    let secret = "11".repeat(32);
    let facts = asked("key_files.py", &[json!({ "algorithm": "ed25519", "secret": secret })]).await.remove(0);
    let public_key = hex::decode(facts["public_key"].as_str().expect("text")).expect("hex");
    let policy = serde_json::from_value(exported["policy"].clone()).expect("a policy");
    let key_id = "a".parse().expect("an id");
    let binding = Binding::new(&key_id, Algorithm::Ed25519, &public_key, Origin::Generated, &policy);
    let mut minted = sealed_as(&secret, &binding, exported, recipient).await;
    minted["public_key"] = format!("0x{}", hex::encode(&public_key)).into();
    minted
}

async fn sealed_as(secret: &str, binding: &Binding, exported: &Value, recipient: &Value) -> Value {
    let question = json!({
        "seal": secret, "public_key": recipient["public_key"], "domain": "strongroom-export-seal-v1",
        "info": [hex::encode(binding.as_aad()), hex::encode("vault")],
    });
    let sealed = asked("hpke_keys.py", &[question]).await.remove(0);
    let mut export = exported.clone();
    export["encapsulated_key"] = sealed["encapsulated_key"].clone();
    export["ciphertext"] = sealed["ciphertext"].clone();
    export
}

/// The same export, around another secret.
async fn forged(it: &Scene, exported: &Value, recipient: &Value) -> Value {
    sealed_as(&"22".repeat(32), &it.record("a").binding(), exported, recipient).await
}

/// A parent that answers an export with something else is found out before anything is kept as a backup.
#[tokio::test]
async fn an_export_that_the_enclave_did_not_make_is_not_printed() {
    let (it, recipient) = exporting().await;
    create(&it, "a", "ed25519", true).await;
    create(&it, "b", "ed25519", true).await;
    let honest = export(&it, "a", "vault").await.body;
    let mint = minted(&honest["export"], &recipient).await;
    let mut cases = vec![("an_earlier_one", honest.clone(), "nonce")];
    let mut case = |name, change: &dyn Fn(&mut Value), words| {
        let mut reply = honest.clone();
        change(&mut reply["export"]);
        cases.push((name, reply, words));
    };
    case("a_minted_one", &|export| *export = mint.clone(), "user data");
    case("another_name", &|export| export["key_id"] = "b".into(), "user data");
    case("another_policy", &|export| export["policy"]["hold_seconds"] = 60.into(), "user data");
    case("other_bytes", &|export| export["ciphertext"] = "00".repeat(48).into(), "user data");
    for (name, reply, words) in cases {
        // With a document for the right nonce, wherever that is not what is wrong.
        let honest_url = (name != "an_earlier_one").then(|| it.stack.url.clone());
        let between = Between::start(&it, move |_, path, _| match (path.ends_with("/export"), &honest_url) {
            (false, _) => Act::Pass,
            (true, None) => Act::Answer(StatusCode::OK, reply.clone()),
            (true, Some(_)) => Act::Replace("export", reply["export"].clone()),
        })
        .await;
        let (code, printed, told) = export_command(&it, &between.url, "a", &["--recipient", "vault"]).await;
        assert_eq!((code, &*printed), (1, ""), "{name}: {told}");
        assert!(told.contains("REFUSED  the export of a") && told.contains(words), "{name}: {told}");
    }
    // The genuine export of another key of the same enclave.
    let between = Between::start(&it, |_, path, _| match path {
        "/v1/keys/a/export" => Act::Redirect("/v1/keys/b/export"),
        _ => Act::Pass,
    })
    .await;
    let (code, printed, told) = export_command(&it, &between.url, "a", &["--recipient", "vault"]).await;
    assert_eq!((code, &*printed), (1, ""), "{told}");
    assert!(told.contains("another key than the one asked for"), "{told}");
    let wrong = ["--recipient", "vault", "--expect-public-key", &"11".repeat(32)];
    let (code, printed, told) = export_command(&it, &it.stack.url, "a", &wrong).await;
    assert_eq!((code, &*printed), (1, ""), "{told}");
    assert!(told.contains("not the expected key"), "{told}");
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
        plan.log_level = "trace".to_owned();
        plan.configuration.insert("export_recipients".to_owned(), json!([recipient]));
    };
    let lost = Scene::planned(ceremony).await;
    let view = create(&lost, "hot-1", "secp256k1", true).await;
    let (code, export, told) = export_command(&lost, &lost.stack.url, "hot-1", &["--recipient", "vault"]).await;
    assert_eq!(code, 0, "{told}");
    let logs = lost.stack.directory().to_owned();
    let (found, read) = needles(&lost).found_under(&logs);
    assert!(found.is_empty() && read > 10_000, "{found:?}");
    drop(lost);

    std::fs::write(path("hot-1.export.json"), export).expect("written");
    let address = view["addresses"]["ethereum"].as_str().expect("text");
    let open = ["key", "open-export", "hot-1.export.json", "--recipient-key", &vault, "--out", &secret];
    at_home(&[&open[..], &["--expect-address", address]].concat()).await;
    let new = super::importing().await;
    let output = import(
        &new,
        &new.stack.url,
        &["hot-1", "--algorithm", "secp256k1", "--file", &secret, "--expect-address", address],
    )
    .await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["key"]["public_key"], view["public_key"]);
    assert_eq!(report["key"]["addresses"], view["addresses"]);
    assert_eq!(stored(&new), ["hot-1"]);
}
