//! The commands that ask no parent: the daemon itself, the check of its configuration, new tokens, completions.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Output};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use strongroom_protocol::Measurement;
use strongroom_tests::api::{Api, Reply};
use strongroom_tests::stack::{CONFIG_FILE, test_directory};

use super::{said, strongroom};
use crate::scene::{Scene, eventually};

const ENCLAVE: &str = include_str!("../../../enclave.example.json");
const EXAMPLE: &str = include_str!("../../../strongroom.example.toml");

const MINIMAL: &str = "[enclave]\naddress = \"unix:enclave.sock\"\nconfiguration = \"enclave.json\"\n\
                       [store]\ntype = \"directory\"\npath = \"keys\"\n";

/// `config check` of this file beside the example of an enclave's configuration.
async fn check(toml: &str) -> Output {
    let folder = test_directory().expect("a folder");
    fs::write(folder.path().join(CONFIG_FILE), toml).expect("written");
    fs::write(folder.path().join("enclave.json"), ENCLAVE).expect("written");
    strongroom(folder.path(), &["config", "check", "--config", CONFIG_FILE]).await
}

#[tokio::test]
async fn config_check_accepts_the_examples_and_prints_pcr16() {
    for toml in [&EXAMPLE.replace("/etc/strongroom/enclave.json", "enclave.json"), MINIMAL] {
        let output = check(toml).await;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains(&hex::encode(Measurement::of(ENCLAVE.as_bytes()).pcr16)), "{}", said(&output));
    }
}

/// Whoever admits a ceremony's PCR16 sees what it is that they admit.
#[tokio::test]
async fn config_check_names_operations_kms_keys_and_recipients() {
    let folder = test_directory().expect("a folder");
    let (old, key) = ("arn:aws:kms:eu-central-1:111122223333:key/old", "0x".to_owned() + &"ab".repeat(32));
    let mut enclave: Value = serde_json::from_str(ENCLAVE).expect("JSON");
    enclave["operations"] = json!(["sign", "adopt", "export"]);
    enclave["adopt_kms_keys"] = json!([old]);
    enclave["export_recipients"] = json!([{ "name": "vault", "public_key": key }]);
    fs::write(folder.path().join(CONFIG_FILE), MINIMAL).expect("written");
    fs::write(folder.path().join("enclave.json"), enclave.to_string()).expect("written");
    let check = ["config", "check", "--config", CONFIG_FILE];
    let text = said(&strongroom(folder.path(), &check).await);
    let kms_key = enclave["kms_keys"][0].as_str().expect("text");
    for words in ["sign, adopt, export", kms_key, "adopts from", old, "exports to", &format!("vault {key}")] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let output = strongroom(folder.path(), &[&check[..], &["--json"]].concat()).await;
    let checked: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(checked["export_recipients"], json!({ "vault": key }));
    assert_eq!(checked["adopt_kms_keys"], json!([old]));
    assert_eq!(checked["operations"], enclave["operations"]);
}

#[tokio::test]
async fn config_check_and_token_new_speak_json() {
    let folder = test_directory().expect("a folder");
    fs::write(folder.path().join(CONFIG_FILE), MINIMAL).expect("written");
    fs::write(folder.path().join("enclave.json"), ENCLAVE).expect("written");
    let output = strongroom(folder.path(), &["config", "check", "--config", CONFIG_FILE, "--json"]).await;
    let checked: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(checked["pcr16"], hex::encode(Measurement::of(ENCLAVE.as_bytes()).pcr16));
    assert_eq!(checked["identities"], json!([]));

    let output = strongroom(folder.path(), &["token", "new", "--name", "ci", "--json"]).await;
    let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let token = made["token"].as_str().expect("a token");
    assert!(token.starts_with("srt_"), "{token}");
    assert_eq!(made["token_sha256"], hex::encode(Sha256::digest(token)));
}

#[tokio::test]
async fn completions_are_scripts_that_their_shells_read() {
    let folder = test_directory().expect("a folder");
    for (shell, reader) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let output = strongroom(folder.path(), &["completions", shell]).await;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let script = String::from_utf8(output.stdout).expect("text");
        for word in ["schedule-deletion", "rewrap", "token-file", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        let path = folder.path().join(shell);
        fs::write(&path, script).expect("written");
        // bash is everywhere; of the other two, the shell that is not installed cannot be asked.
        match Command::new(reader).arg("-n").arg(&path).output() {
            Ok(read) => assert!(read.status.success(), "{shell}: {}", said(&read)),
            Err(_) => assert_ne!(shell, "bash", "bash is there"),
        }
    }
    assert_eq!(strongroom(folder.path(), &["completions", "cobol"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn config_check_names_what_is_wrong_and_fails() {
    let hash = "ab".repeat(32);
    for (name, toml, told) in [
        ("empty", String::new(), "enclave"),
        ("not_toml", "listen =".to_owned(), "line 1"),
        ("unknown_field", format!("lisen = \"127.0.0.1:1\"\n{MINIMAL}"), "lisen"),
        ("unfinished_table", format!("{MINIMAL}[tls]\ncertificate = \"x\"\n"), "tls"),
        ("unknown_table", format!("{MINIMAL}[tsl]\ncertificate = \"x\"\n"), "tsl"),
        ("unknown_limit", format!("{MINIMAL}[limits]\nrequest_timeout = 5\n"), "request_timeout"),
        ("beyond_loopback", format!("listen = \"0.0.0.0:8080\"\n{MINIMAL}"), "loopback"),
        ("beyond_loopback_v6", format!("listen = \"[::]:8080\"\n{MINIMAL}"), "loopback"),
        ("no_such_file", MINIMAL.replace("enclave.json", "missing.json"), "missing.json"),
        (
            "unknown_operation",
            format!("{MINIMAL}[[identities]]\nname = \"a\"\ntoken_sha256 = \"{hash}\"\noperations = [\"root\"]\n"),
            "root",
        ),
        (
            "a_token_for_its_hash",
            format!("{MINIMAL}[[identities]]\nname = \"a\"\ntoken_sha256 = \"srt_x\"\n"),
            "token new",
        ),
    ] {
        let output = check(&toml).await;
        assert_eq!(output.status.code(), Some(1), "{name}: {}", said(&output));
        assert!(said(&output).contains(told), "{name}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{name}: complaints go to standard error");
    }
}

#[tokio::test]
async fn beyond_the_loopback_interface_serve_refuses_to_start() {
    let folder = test_directory().expect("a folder");
    fs::write(folder.path().join("enclave.json"), ENCLAVE).expect("written");
    let identities = format!("[[identities]]\nname = \"a\"\ntoken_sha256 = \"{}\"\n", "ab".repeat(32));
    for rest in ["", &identities] {
        fs::write(folder.path().join(CONFIG_FILE), format!("listen = \"0.0.0.0:0\"\n{MINIMAL}{rest}"))
            .expect("written");
        let output = strongroom(folder.path(), &["serve", "--config", CONFIG_FILE]).await;
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("loopback"), "{}", said(&output));
    }
}

#[tokio::test]
async fn what_serve_cannot_use_it_names_before_it_serves() {
    let folder = test_directory().expect("a folder");
    fs::write(folder.path().join("enclave.json"), ENCLAVE).expect("written");
    fs::write(folder.path().join("file"), "not a folder").expect("written");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("an address");
    let listener = TcpListener::bind(taken).expect("the same port");
    for (toml, told) in [
        (format!("listen = \"{taken}\"\n{MINIMAL}"), taken.to_string()),
        (format!("listen = \"127.0.0.1:0\"\n{}", MINIMAL.replace("\"keys\"", "\"file\"")), "key store".to_owned()),
        (
            format!("listen = \"127.0.0.1:0\"\n{MINIMAL}[kms_proxy]\nlisten = \"unix:missing/proxy.sock\"\n"),
            "proxy.sock".to_owned(),
        ),
    ] {
        fs::write(folder.path().join(CONFIG_FILE), toml).expect("written");
        let output = strongroom(folder.path(), &["serve", "--config", CONFIG_FILE]).await;
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(&told), "{told}: {}", said(&output));
    }
    drop(listener);
}

#[tokio::test]
async fn a_new_token_works_as_the_identity_that_is_printed_with_it() {
    let folder = test_directory().expect("a folder");
    let output = strongroom(folder.path(), &["token", "new", "--name", "ci"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let printed = String::from_utf8(output.stdout).expect("text");
    let token = printed.lines().map(str::trim).find(|line| line.starts_with("srt_")).expect("a token").to_owned();
    let table = &printed[printed.find("[[identities]]").expect("a table")..];
    assert!(!table.contains(&token), "the table has only its hash");

    // As printed, the identity may do nothing.
    let (as_printed, widened) = (
        table.to_owned(),
        table.replace("operations = []", "operations = [\"read\", \"manage\"]").replace("keys = []", "keys = [\"*\"]"),
    );
    for (toml, expected) in [(as_printed, 403), (widened, 201)] {
        let it = Scene::planned(|plan| plan.parent_toml = toml).await;
        assert_eq!(create(&it.api.with_token(&token), "a").await.status.as_u16(), expected);
        assert_eq!(create(&it.api.with_token("srt_another"), "a").await.status.as_u16(), 401);
    }

    let again = strongroom(folder.path(), &["token", "new", "--name", "ci"]).await;
    assert!(!said(&again).contains(&token), "each token is new");
}

#[tokio::test]
async fn a_log_level_that_makes_no_sense_does_not_silence_the_daemon() {
    let it = Scene::planned(|plan| plan.parent_environment.push(("RUST_LOG".to_owned(), "=,nonsense=loud".to_owned())))
        .await;
    it.create("a").await;
    let log = it.stack.directory().join("parent.log");
    eventually("requests are logged", async || fs::read_to_string(&log).expect("a log").contains("/v1/keys")).await;
}

async fn create(api: &Api, key_id: &str) -> Reply {
    api.post("/v1/keys", json!({ "key_id": key_id, "algorithm": "ed25519" })).await.expect("a reply")
}
