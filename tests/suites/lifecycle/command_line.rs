//! The command line `strongroom`: what it says and with which exit code.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use strongroom_protocol::Measurement;
use strongroom_tests::stack::{CONFIG_FILE, binary, test_directory};
use tokio::process::Command;
use tokio::time::timeout;

use super::create;
use crate::scene::{Scene, eventually};

const ENCLAVE: &str = include_str!("../../../enclave.example.json");
const EXAMPLE: &str = include_str!("../../../strongroom.example.toml");

const MINIMAL: &str = "[enclave]\naddress = \"unix:enclave.sock\"\nconfiguration = \"enclave.json\"\n\
                       [store]\ntype = \"directory\"\npath = \"keys\"\n";

/// Runs `strongroom` in `directory`; it must end by itself.
async fn strongroom(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("strongroom"));
    command.current_dir(directory).args(arguments).kill_on_drop(true);
    for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "STRONGROOM_TOKEN"] {
        command.env_remove(variable);
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    timeout(Duration::from_secs(20), command.output()).await.expect("it ends").expect("it runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

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
async fn exit_codes_tell_usage_from_failure_from_refusal() {
    let it = Scene::start().await;
    it.create("a").await;
    let directory = it.stack.directory();
    let url = it.stack.url.as_str();
    let verify = |key_id, url| {
        ["key", "verify", key_id, "--url", url, "--pcrs", "pcrs.json", "--attestation-root", "mock-nsm-root.pem"]
    };
    fs::write(
        directory.join("other-pcrs.json"),
        format!("{{\"PCR0\":\"{}\",\"PCR16\":\"{}\"}}", "ab".repeat(48), "cd".repeat(48)),
    )
    .expect("written");
    let refused = verify("a", url).map(|argument| if argument == "pcrs.json" { "other-pcrs.json" } else { argument });
    let nobody =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a port");
    let nobody = format!("http://{nobody}");
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
        ("unknown_key", &verify("unknown", url), 2),
        ("nobody_there", &verify("a", &nobody), 2),
    ] {
        let output = strongroom(directory, arguments).await;
        assert_eq!(output.status.code(), Some(code), "{name}: {}", said(&output));
    }
}

#[tokio::test]
async fn a_log_level_that_makes_no_sense_does_not_silence_the_daemon() {
    let it = Scene::planned(|plan| plan.parent_environment.push(("RUST_LOG".to_owned(), "=,nonsense=loud".to_owned())))
        .await;
    it.create("a").await;
    let log = it.stack.directory().join("parent.log");
    eventually("requests are logged", async || fs::read_to_string(&log).expect("a log").contains("/v1/keys")).await;
}
