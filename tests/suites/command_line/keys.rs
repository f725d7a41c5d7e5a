//! One key at a time, against a whole appliance: text for people, JSON for scripts, and the exit codes.

use std::net::{Ipv4Addr, TcpListener};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use strongroom_protocol::document::AttestationDocument;
use strongroom_tests::stack::{Plan, test_directory};
use tokio::io::AsyncWriteExt as _;

use super::{Key, ended, said, strongroom};
use crate::scene::Scene;
use crate::shared::SharedScene;

static OPEN: SharedScene = SharedScene::new(|_| {});

static GUARDED: SharedScene = SharedScene::new(guard);

const READER: &str = "srt_reader";

fn guard(plan: &mut Plan) {
    let hash = hex::encode(Sha256::digest(READER));
    plan.parent_toml += &format!(
        "[[identities]]\nname = \"reader\"\ntoken_sha256 = \"{hash}\"\noperations = [\"read\"]\nkeys = [\"*\"]\n"
    );
}

#[tokio::test]
async fn a_created_key_is_shown_as_text_and_as_json() {
    let (it, api) = OPEN.enter().await;
    let key = Key::of(&it.stack.url);
    let card = key.expect(0, &["create", "card", "--algorithm", "secp256k1"]).await;
    let view = api.get("/v1/keys/card").await.expect("a reply").body;
    for fact in ["public_key", "state", "kms_key_arn", "created_at"] {
        assert!(card.contains(view[fact].as_str().expect("text")), "{fact}: {card}");
    }
    assert!(card.contains(view["addresses"]["ethereum"].as_str().expect("an address")), "{card}");
    assert_eq!(key.expect(0, &["show", "card"]).await, card);
    assert_eq!(key.json(0, &["show", "card"]).await, view);

    let created = key
        .json(
            0,
            &["create", "policy", "--algorithm", "secp256k1", "--payloads", "digest,message", "--hold-seconds", "7"],
        )
        .await;
    assert_eq!(created["policy"], json!({ "payloads": ["digest", "message"], "hold_seconds": 7 }));
    let arn = it.stack.kms_key.as_str();
    let created = key.json(0, &["create", "named", "--algorithm", "ed25519", "--kms-key-arn", arn]).await;
    assert_eq!(created["kms_key_arn"], arn);
}

#[tokio::test]
async fn a_list_has_every_key_once_as_a_table_and_as_json_lines() {
    let it = Scene::start().await;
    let key = Key::of(&it.stack.url);
    assert_eq!(key.expect(0, &["list"]).await, "", "the table of no keys has no titles");
    for key_id in ["a", "b", "a-much-longer-name"] {
        it.create(key_id).await;
    }
    let table = key.expect(0, &["list"]).await;
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 4, "{table}");
    let columns = |title| rows[0].find(title).expect("a title");
    for row in &rows[1..] {
        assert_eq!(row[columns("STATE")..].split(' ').next(), Some("enabled"), "{table}");
        assert_eq!(row[columns("ALGORITHM")..].split(' ').next(), Some("ed25519"), "{table}");
    }

    let lines = key.expect(0, &["list", "--json"]).await;
    let views: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut ids: Vec<&str> = views.iter().map(|view| view["key_id"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "a-much-longer-name", "b"]);
    assert_eq!(key.json(0, &["show", views[0]["key_id"].as_str().expect("an id")]).await, views[0]);

    let count = async |arguments: &[&str]| key.expect(0, arguments).await.lines().count();
    assert_eq!(count(&["list", "--json", "--limit", "2"]).await, 2);
    assert_eq!(count(&["list", "--json", "--state", "enabled"]).await, 3);
    assert_eq!(count(&["list", "--json", "--state", "disabled"]).await, 0);
    assert_eq!(count(&["list", "--json", "--kms-key-arn", &it.stack.kms_key]).await, 3);
    let other = format!("{}0", it.stack.kms_key);
    assert_eq!(count(&["list", "--json", "--kms-key-arn", &other]).await, 0);
}

#[tokio::test]
async fn signatures_are_those_of_the_rest_interface() {
    let (it, api) = OPEN.enter().await;
    let key = Key::of(&it.stack.url);
    for (key_id, algorithm) in [("sign-k", "secp256k1"), ("sign-e", "ed25519")] {
        let payloads = if algorithm == "ed25519" { "message" } else { "message,digest" };
        key.expect(0, &["create", key_id, "--algorithm", algorithm, "--payloads", payloads]).await;
    }
    let folder = test_directory().expect("a folder");
    let file = folder.path().join("message");
    std::fs::write(&file, b"hello\n").expect("written");
    let file = file.to_str().expect("text");
    let hello = "0x68656c6c6f0a";
    let digest = hex::encode([7; 32]);
    // The schemes are deterministic, so the same request gives the same signature (but for BIP-340's nonce).
    for (key_id, arguments, request) in [
        (
            "sign-k",
            &["--message", hello, "--hash", "keccak256"][..],
            json!({ "payload": { "type": "message", "message": hello, "hash": "keccak256" } }),
        ),
        (
            "sign-k",
            &["--message-file", file, "--hash", "sha256d"],
            json!({ "payload": { "type": "message", "message": hello, "hash": "sha256d" } }),
        ),
        ("sign-k", &["--digest", &digest], json!({ "payload": { "type": "digest", "digest": digest } })),
        ("sign-e", &["--message", "68656C6C6f0A"], json!({ "payload": { "type": "message", "message": hello } })),
        ("sign-e", &["--message", ""], json!({ "payload": { "type": "message", "message": "" } })),
    ] {
        let expected = api.sign(key_id, request).await.expect("a reply").body;
        let arguments = [&["sign", key_id], arguments].concat();
        let signed = key.json(0, &arguments).await;
        for field in ["signature", "recovery_id", "public_key"] {
            assert_eq!(signed[field], expected[field], "{arguments:?}: {field}");
        }
        let text = key.expect(0, &arguments).await;
        assert!(text.contains(expected["signature"].as_str().expect("a signature")), "{text}");
    }
    key.json(0, &["sign", "sign-k", "--digest", &digest, "--scheme", "bip340"]).await;

    let mut piped = key.command(&["sign", "sign-e", "--message-file", "-", "--json"]);
    let mut piped =
        piped.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("it runs");
    piped.stdin.take().expect("piped").write_all(b"hello\n").await.expect("written");
    let output = piped.wait_with_output().await.expect("it ends");
    let signed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let message = json!({ "payload": { "type": "message", "message": hello } });
    assert_eq!(signed["signature"], api.sign("sign-e", message).await.expect("a reply").body["signature"]);
}

#[tokio::test]
async fn an_attestation_is_made_for_the_nonce_that_is_printed() {
    let (it, api) = OPEN.enter().await;
    let key = Key::of(&it.stack.url);
    assert_eq!(api.get("/v1/keys/none").await.expect("a reply").status.as_u16(), 404);
    key.expect(0, &["create", "attested", "--algorithm", "ed25519"]).await;
    for (arguments, nonce) in [
        (&["attest"][..], None),
        (&["attest", "attested"], None),
        (&["attest", "--nonce", "0xC0ffee"], Some("0xc0ffee")),
    ] {
        let told = key.json(0, arguments).await;
        let document = BASE64_STANDARD.decode(told["document"].as_str().expect("a document")).expect("base64");
        let payload = AttestationDocument::parse(&document).expect("a document").payload;
        let in_it = format!("0x{}", hex::encode(&**payload.nonce.as_ref().expect("a nonce")));
        assert_eq!(told["nonce"], in_it, "{arguments:?}");
        assert!(nonce.is_none_or(|nonce| nonce == in_it) && in_it.len() > 4, "{arguments:?}");
        assert!(told["pcrs"]["PCR16"].as_str().is_some_and(|pcr| pcr.len() == 98), "{told}");
    }
    let text = key.expect(0, &["attest", "attested"]).await;
    assert!(text.contains("PCR16") && text.contains("nonce"), "{text}");
}

#[tokio::test]
async fn exit_codes_tell_usage_from_failure_from_refusal() {
    let it = Scene::start().await;
    it.create("a").await;
    let directory = it.stack.directory();
    let url = it.stack.url.as_str();
    let verify = |key_id, url| {
        ["key", "verify", key_id, "--url", url, "--pcrs", "pcrs.json", "--attestation-root", "mock-nsm-root.pem"]
    };
    std::fs::write(
        directory.join("other-pcrs.json"),
        format!("{{\"PCR0\":\"{}\",\"PCR16\":\"{}\"}}", "ab".repeat(48), "cd".repeat(48)),
    )
    .expect("written");
    let refused = verify("a", url).map(|argument| if argument == "pcrs.json" { "other-pcrs.json" } else { argument });
    let nobody =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a port");
    let nobody = format!("http://{nobody}");
    let other_arn = format!("{}0", it.stack.kms_key);
    for (name, arguments, code) in [
        ("version", &["--version"][..], 0),
        ("help", &["--help"], 0),
        ("nothing", &[], 2),
        ("unknown_command", &["sign"], 2),
        ("unknown_option", &["serve", "--insecure"], 2),
        ("token_without_name", &["token", "new"], 2),
        ("name_outside_the_grammar", &["token", "new", "--name", "a b"], 2),
        ("key_id_outside_the_grammar", &["key", "verify", "../a", "--pcrs", "pcrs.json"], 2),
        ("no_configuration", &["serve", "--config", "missing.toml"], 1),
        ("no_configuration_to_check", &["config", "check", "--config", "missing.toml"], 1),
        ("verified", &verify("a", url), 0),
        ("other_registers", &refused, 1),
        ("verify_unknown_key", &verify("unknown", url), 4),
        ("verify_nobody_there", &verify("a", &nobody), 3),
        ("shown", &["key", "show", "a", "--url", url], 0),
        ("nobody_there", &["key", "show", "a", "--url", &nobody], 3),
        ("unknown_key", &["key", "show", "unknown", "--url", url], 4),
        ("sign_with_unknown_key", &["key", "sign", "unknown", "--message", "00", "--url", url], 4),
        ("attest_unknown_key", &["key", "attest", "unknown", "--url", url], 4),
        ("key_exists", &["key", "create", "a", "--algorithm", "ed25519", "--url", url], 5),
        ("invalid_for_the_key", &["key", "sign", "a", "--message", "00", "--hash", "sha256", "--url", url], 1),
        (
            "kms_key_not_configured",
            &["key", "create", "b", "--algorithm", "ed25519", "--kms-key-arn", &other_arn, "--url", url],
            1,
        ),
        ("no_algorithm", &["key", "create", "b", "--url", url], 2),
        ("two_payloads", &["key", "sign", "a", "--message", "00", "--digest", "00", "--url", url], 2),
        ("no_payload", &["key", "sign", "a", "--url", url], 2),
        ("hash_of_a_digest", &["key", "sign", "a", "--digest", "00", "--hash", "sha256", "--url", url], 2),
        ("no_hex", &["key", "sign", "a", "--message", "0", "--url", url], 2),
        ("no_such_file", &["key", "sign", "a", "--message-file", "missing", "--url", url], 2),
        ("count_without_prefix", &["key", "create", "--count", "2", "--algorithm", "ed25519", "--url", url], 2),
        ("id_and_count", &["key", "create", "b", "--count", "2", "--prefix", "b", "--algorithm", "ed25519"], 2),
        ("all_and_id", &["key", "rewrap", "a", "--all", "--kms-key-arn", &other_arn, "--url", url], 2),
        ("delete_without_a_terminal", &["key", "delete", "a", "--url", url], 2),
        ("no_address", &["key", "list", "--url", "ftp://127.0.0.1"], 2),
        ("token_in_the_clear", &["key", "list", "--url", "http://parent.invalid", "--token", "srt_x"], 2),
        ("tls_over_http", &["key", "list", "--url", url, "--ca", "mock-nsm-root.pem"], 2),
        ("no_such_ca", &["key", "list", "--url", "https://127.0.0.1:1", "--ca", "missing"], 2),
        ("ca_without_certificate", &["key", "list", "--url", "https://127.0.0.1:1", "--ca", "pcrs.json"], 2),
        ("certificate_without_key", &["key", "list", "--url", "https://a", "--client-key", "missing"], 2),
        ("two_tokens", &["key", "list", "--url", url, "--token", "a", "--token-file", "pcrs.json"], 2),
        ("no_such_token_file", &["key", "list", "--url", url, "--token-file", "missing"], 2),
    ] {
        let output = strongroom(directory, arguments).await;
        assert_eq!(output.status.code(), Some(code), "{name}: {}", said(&output));
        assert!(code == 0 || output.stdout.is_empty(), "{name}: complaints go to standard error: {}", said(&output));
    }
    let help = strongroom(directory, &["--help"]).await;
    assert!(said(&help).contains("Exit codes:"), "{}", said(&help));
}

#[tokio::test]
async fn a_token_comes_from_the_command_line_a_file_or_the_environment_in_this_order() {
    let (it, _) = GUARDED.enter().await;
    let nobody = Key::of(&it.stack.url);
    let reader = Key { token: Some(READER.to_owned()), ..nobody.clone() };
    let wrong = Key { token: Some("srt_wrong".to_owned()), ..nobody.clone() };
    let folder = test_directory().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{READER}\n")).expect("written");
    let file = file.to_str().expect("text");

    nobody.expect(6, &["list"]).await;
    wrong.expect(6, &["list"]).await;
    reader.expect(0, &["list"]).await;
    nobody.expect(0, &["list", "--token-file", file]).await;
    wrong.expect(0, &["list", "--token-file", file]).await;
    wrong.expect(0, &["list", "--token", READER]).await;
    reader.expect(6, &["list", "--token", "srt_wrong"]).await;
    let empty = Key { token: Some(String::new()), ..nobody.clone() };
    empty.expect(0, &["list", "--token-file", file]).await;

    // It may read, and nothing else.
    reader.expect(6, &["create", "a", "--algorithm", "ed25519"]).await;
    reader.expect(6, &["sign", "a", "--message", "00"]).await;
    reader.expect(4, &["show", "a"]).await;
    reader.expect(6, &["create", "--count", "50", "--prefix", "b-", "--algorithm", "ed25519"]).await;
    let told = said(&ended(&mut reader.command(&["create", "a", "--algorithm", "ed25519"])).await);
    assert!(!told.contains(READER), "a token is never printed: {told}");
}
