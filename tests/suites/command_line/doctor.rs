//! `strongroom doctor` on a host of the suites' own: what can be good is found good, and each thing that is broken is found,
//! with how to mend it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use serde_json::{Value, json};
use strongroom_tests::mock_imds::MockImds;
use strongroom_tests::mock_kms::Principal;
use strongroom_tests::stack::{
    ACCESS_KEY_ID, CONFIG_FILE, PARENT_ARN, Plan, REGION, SECRET_ACCESS_KEY, test_directory,
};
use tokio::process::Command;

use super::{command, ended, said};
use crate::scene::{Scene, eventually};
use crate::shared::SharedScene;

static STACK: SharedScene = SharedScene::new(|_| {});

/// `strongroom doctor --config …` in this folder, with the credentials that the stack's parent has.
fn doctor(folder: &Path, config: &str, more: &[&str]) -> Command {
    let mut command = command(folder, &[&["doctor", "--config", config], more].concat());
    command
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        .env("AWS_REGION", REGION)
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command
}

/// What was found, and the exit code.
struct Findings {
    code: Option<i32>,
    report: Value,
}

impl Findings {
    async fn of(command: &mut Command) -> Self {
        let output = ended(command.arg("--json")).await;
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        Self { code: output.status.code(), report }
    }

    /// In the stack's folder, with another configuration.
    async fn with(it: &Scene, name: &str, change: impl FnOnce(String) -> String) -> Self {
        let toml = fs::read_to_string(it.stack.directory().join(CONFIG_FILE)).expect("a file");
        fs::write(it.stack.directory().join(name), change(toml)).expect("written");
        Self::of(&mut doctor(it.stack.directory(), name, &[])).await
    }

    fn finding(&self, check: &str) -> &Value {
        let checks = self.report["checks"].as_array().expect("a list");
        checks.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("{check}: {}", self.report))
    }

    #[track_caller]
    fn assert(&self, check: &str, status: &str, words: &str) {
        let finding = self.finding(check);
        assert_eq!(finding["status"], status, "{finding}");
        assert!(finding["found"].as_str().is_some_and(|found| found.contains(words)), "{words}: {finding}");
        assert_eq!(finding["mend"].is_string(), matches!(status, "failed" | "warning"), "{finding}");
        if status == "failed" {
            assert_eq!((self.code, &self.report["healthy"]), (Some(1), &json!(false)));
        }
    }

    #[track_caller]
    fn assert_mend(&self, check: &str, words: &str) {
        let mend = &self.finding(check)["mend"];
        assert!(mend.as_str().is_some_and(|mend| mend.contains(words)), "{words}: {mend}");
    }
}

#[tokio::test]
async fn a_good_host_is_good_and_not_disturbed() {
    let it = Scene::start().await;
    it.create("a").await;
    let calls = it.calls().await;
    let found = Findings::of(&mut doctor(it.stack.directory(), CONFIG_FILE, &[])).await;
    for (check, status, words) in [
        ("configuration", "ok", CONFIG_FILE),
        ("Nitro", "skipped", "not on vsock"),
        ("parent", "ok", "ready at 127.0.0.1:"),
        ("enclave", "ok", "has a configuration"),
        ("way to KMS", "ok", "accepts connections"),
        ("clock", "ok", "s ahead of KMS's"),
        ("credentials", "ok", "from the environment"),
        ("metadata service", "skipped", "AWS_EC2_METADATA_DISABLED"),
        ("store", "ok", "can be written"),
        ("KMS keys", "ok", "unattested use is denied"),
    ] {
        found.assert(check, status, words);
    }
    assert_eq!((found.code, &found.report["healthy"]), (Some(0), &json!(true)));
    let mut outcomes = it.outcomes_after(calls).await;
    // What asks for the time is no operation of KMS's.
    outcomes.retain(|outcome| !outcome.starts_with(' '));
    assert_eq!(outcomes, ["GenerateDataKey AccessDeniedException"]);
    it.signs("a").await;

    let text = ended(&mut doctor(it.stack.directory(), CONFIG_FILE, &[])).await;
    assert_eq!(text.status.code(), Some(0), "{}", said(&text));
    assert!(said(&text).contains("0 failed, 0 to look at"), "{}", said(&text));
    for secret in [ACCESS_KEY_ID, SECRET_ACCESS_KEY] {
        assert!(!said(&text).contains(secret) && !found.report.to_string().contains(secret));
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read() {
    let folder = test_directory().expect("a folder");
    let found = Findings::of(&mut doctor(folder.path(), "missing.toml", &[])).await;
    found.assert("configuration", "failed", "missing.toml: cannot be read");
    found.assert_mend("configuration", "strongroom config check");
    found.assert("KMS keys", "skipped", "configuration");
    fs::write(folder.path().join("wrong.toml"), "lisen = 1").expect("written");
    let found = Findings::of(&mut doctor(folder.path(), "wrong.toml", &[])).await;
    found.assert("configuration", "failed", "line 1");
}

/// The finding about a KMS key, with a configuration that lists this one only.
async fn about_key(it: &Scene, name: &str, arn: &str) -> Findings {
    let folder = it.stack.directory();
    let mut enclave: Value =
        serde_json::from_slice(&fs::read(folder.join("enclave.json")).expect("a file")).expect("JSON");
    enclave["kms_keys"] = json!([arn]);
    fs::write(folder.join(format!("{name}.json")), enclave.to_string()).expect("written");
    Findings::with(it, &format!("{name}.toml"), |toml| toml.replace("enclave.json", &format!("{name}.json"))).await
}

#[tokio::test]
async fn a_kms_key_that_can_be_used_without_attestation() {
    let (it, _) = STACK.enter().await;
    let everything = json!({
        "Sid": "All", "Effect": "Allow", "Principal": { "AWS": PARENT_ARN }, "Action": "kms:*", "Resource": "*",
    });
    let open = json!({ "Version": "2012-10-17", "Statement": [everything] });
    let arn = it.stack.control.create_key(Some(open)).await.expect("a key");
    let found = about_key(&it, "open", &arn).await;
    found.assert("KMS keys", "failed", "WITHOUT ATTESTATION");
    found.assert_mend("KMS keys", "strongroom kms-policy lint");
}

#[tokio::test]
async fn a_kms_key_that_there_is_not() {
    let (it, _) = STACK.enter().await;
    let found = about_key(&it, "unknown", "arn:aws:kms:eu-central-1:111122223333:key/none").await;
    found.assert("KMS keys", "failed", "there is no such key");
    found.assert_mend("KMS keys", "aws kms describe-key");
}

#[tokio::test]
async fn credentials_that_kms_does_not_know_and_none() {
    let (it, _) = STACK.enter().await;
    let mut stranger = doctor(it.stack.directory(), CONFIG_FILE, &[]);
    let found = Findings::of(stranger.env("AWS_ACCESS_KEY_ID", "AKIASTRANGER00000001")).await;
    found.assert("credentials", "ok", "from the environment");
    found.assert("KMS keys", "failed", "KMS does not know these credentials");
    let mut nobody = doctor(it.stack.directory(), CONFIG_FILE, &[]);
    let found = Findings::of(nobody.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY")).await;
    found.assert("credentials", "failed", "no provider of the chain");
    found.assert_mend("credentials", "associate-iam-instance-profile");
    assert_eq!(found.finding("KMS keys")["status"], "failed");
}

#[tokio::test]
async fn kms_that_is_away() {
    let (it, _) = STACK.enter().await;
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("an address");
    let there = it.stack.kms_address().to_string();
    let found = Findings::with(&it, "away.toml", |toml| toml.replace(&there, &nobody.to_string())).await;
    found.assert("way to KMS", "failed", &nobody.to_string());
    found.assert_mend("way to KMS", "VPC endpoint");
    found.assert("KMS keys", "failed", "KMS was not reached");
    assert_ne!(found.finding("clock")["status"], "ok");
}

#[tokio::test]
async fn a_server_with_another_certificate_is_not_kms() {
    let (it, _) = STACK.enter().await;
    let folder = it.stack.directory();
    let enclave = fs::read_to_string(folder.join("enclave.json")).expect("a file");
    let other = enclave.replace("kms.eu-central-1.amazonaws.com", "kms.eu-west-1.amazonaws.com");
    fs::write(folder.join("other-host.json"), other).expect("written");
    let found = Findings::with(&it, "other-host.toml", |toml| toml.replace("enclave.json", "other-host.json")).await;
    found.assert("clock", "warning", "no TLS with KMS");
    found.assert("KMS keys", "failed", "KMS was not reached");
}

#[tokio::test]
async fn a_store_that_is_missing_or_no_folder() {
    let (it, _) = STACK.enter().await;
    let store = |path: &str| {
        let path = path.to_owned();
        move |toml: String| toml.replace("path = \"keys\"", &format!("path = \"{path}\""))
    };
    let found = Findings::with(&it, "no-store.toml", store("gone")).await;
    found.assert("store", "failed", "there is no such folder");
    found.assert_mend("store", "install -d -m 700");
    assert!(!it.stack.directory().join("gone").exists(), "looking makes nothing");
    let found = Findings::with(&it, "file-store.toml", store("enclave.json")).await;
    found.assert("store", "failed", "enclave.json");
    found.assert_mend("store", "chmod 700");
}

#[tokio::test]
async fn an_enclave_and_a_parent_that_do_not_run() {
    let (it, _) = STACK.enter().await;
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("an address");
    let found = Findings::with(&it, "nobody.toml", |toml| {
        let listen = it.stack.url.trim_start_matches("http://");
        toml.replace(listen, &nobody.to_string()).replace("unix:enclave.sock", "unix:no-enclave.sock")
    })
    .await;
    found.assert("parent", "skipped", "none listens");
    found.assert("enclave", "failed", "nothing answers");
    found.assert_mend("enclave", "nitro-cli run-enclave");
}

#[tokio::test]
async fn a_parent_that_is_not_ready_and_a_stranger_in_its_place() {
    let debug = Scene::unready(|plan: &mut Plan| plan.debug_mode = true).await;
    let answers =
        async || debug.api.get("/readyz").await.is_ok_and(|reply| reply.body["checks"]["configuration"]["ok"] == true);
    eventually("the parent knows its enclave", answers).await;
    let found = Findings::of(&mut doctor(debug.stack.directory(), CONFIG_FILE, &[])).await;
    found.assert("parent", "failed", "debug mode");
    found.assert("enclave", "failed", "debug mode");
    found.assert_mend("enclave", "without --debug-mode");

    let stranger = serve(Router::new()).await;
    let listen = debug.stack.url.trim_start_matches("http://");
    let found = Findings::with(&debug, "stranger.toml", |toml| toml.replace(listen, &stranger)).await;
    found.assert("parent", "failed", "is no parent");
}

#[tokio::test]
async fn the_metadata_service_must_want_tokens() {
    let (it, _) = STACK.enter().await;
    let end = SystemTime::now() + Duration::from_secs(3600);
    let end = end.duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let session = Principal {
        access_key_id: "ASIASTRONGROOMDEV001".to_owned(),
        secret_access_key: "imds-secret".to_owned(),
        session_token: Some("imds-session".to_owned()),
        arn: PARENT_ARN.to_owned(),
        expires_at_ms: Some(u64::try_from(end).expect("this era")),
    };
    let imds = MockImds::start(session).await.expect("IMDS");
    let mut modern = doctor(it.stack.directory(), CONFIG_FILE, &[]);
    let found = Findings::of(modern.envs(imds.environment())).await;
    found.assert("metadata service", "ok", "IMDSv2 only");
    found.assert("credentials", "ok", "from the instance's role (metadata service); they expire in 5");
    assert!(!found.report.to_string().contains("imds-se"), "{}", found.report);

    let old = serve(Router::new().fallback(async || "anything")).await;
    let mut ancient = doctor(it.stack.directory(), CONFIG_FILE, &[]);
    ancient.env("AWS_EC2_METADATA_DISABLED", "false").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{old}"));
    let found = Findings::of(&mut ancient).await;
    found.assert("metadata service", "warning", "IMDSv1 answers");
    found.assert_mend("metadata service", "--http-tokens required --http-put-response-hop-limit 1");
}

/// Serves on a port of its own; where.
async fn serve(routes: Router) -> String {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(axum::serve(listener, routes).into_future());
    address.to_string()
}

/// What an instance has, in a folder; the configuration's enclave is on vsock.
async fn on_instance(change: impl FnOnce(&Path)) -> Findings {
    let (it, _) = STACK.enter().await;
    let folder = test_directory().expect("a folder");
    let root = folder.path();
    let write = |path: &str, content: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    };
    write("dev/nitro_enclaves", "");
    write("dev/vsock", "");
    write("etc/nitro_enclaves/allocator.yaml", "---\n# MiB\nmemory_mib: 512 # of 1024\ncpu_count: 2\n");
    write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "256\n");
    write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "100\n");
    write("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n");
    write("bin/nitro-cli", "#!/bin/sh\necho 'Nitro CLI 1.4.2'\n");
    fs::set_permissions(root.join("bin/nitro-cli"), fs::Permissions::from_mode(0o755)).expect("executable");
    change(root);
    let toml = fs::read_to_string(it.stack.directory().join(CONFIG_FILE)).expect("a file");
    let toml = toml.replace("unix:enclave.sock", "vsock:16:5005");
    let toml = toml.replace("enclave.json", &it.stack.directory().join("enclave.json").to_string_lossy());
    fs::write(root.join(CONFIG_FILE), toml).expect("written");
    let mut command = doctor(root, CONFIG_FILE, &["--root", &root.to_string_lossy()]);
    let path = std::env::var("PATH").unwrap_or_default();
    Findings::of(command.env("PATH", format!("{}:{path}", root.join("bin").display()))).await
}

#[tokio::test]
async fn an_instance_that_has_what_an_enclave_needs() {
    let found = on_instance(|_| {}).await;
    for (check, words) in [
        ("nitro-cli", "Nitro CLI 1.4.2"),
        ("Nitro device", "dev/nitro_enclaves"),
        ("allocator", "memory_mib 512, cpu_count 2"),
        ("huge pages", "512 MiB are reserved, 200 MiB of them free"),
        ("vsock", "dev/vsock"),
    ] {
        found.assert(check, "ok", words);
    }
}

#[tokio::test]
async fn an_instance_that_misses_something() {
    const PAGES: &str = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    const ALLOCATOR: &str = "etc/nitro_enclaves/allocator.yaml";
    let removed = async |path: &str| on_instance(|root| fs::remove_file(root.join(path)).expect("removed")).await;
    let written =
        async |path: &str, text: &str| on_instance(|root| fs::write(root.join(path), text).expect("written")).await;

    let found = removed("dev/nitro_enclaves").await;
    found.assert("Nitro device", "failed", "dev/nitro_enclaves");
    found.assert_mend("Nitro device", "modprobe nitro_enclaves");
    let found = removed("dev/vsock").await;
    found.assert("vsock", "failed", "dev/vsock");
    let found = removed(ALLOCATOR).await;
    found.assert("allocator", "failed", "allocator.yaml");
    let found = written(ALLOCATOR, "memory_mib: 64\ncpu_count: 2\n").await;
    found.assert("allocator", "failed", "memory_mib 64");
    let found = written(ALLOCATOR, "memory_mib: 512\ncpu_count: 1\n").await;
    found.assert("allocator", "warning", "cpu_count 1");
    let found = written(PAGES, "0").await;
    found.assert("huge pages", "failed", "0 MiB are reserved");
    found.assert_mend("huge pages", "nitro-enclaves-allocator");
    let found = written(PAGES, "128").await;
    found.assert("huge pages", "warning", "allocator.yaml has 512 MiB");
    let found = written("bin/nitro-cli", "#!/bin/sh\nexit 3\n").await;
    found.assert("nitro-cli", "failed", "ended with");
    found.assert_mend("nitro-cli", "dnf install aws-nitro-enclaves-cli");
}

#[tokio::test]
async fn failures_and_their_mends_are_said_in_words() {
    let folder = test_directory().expect("a folder");
    let output: Output = ended(&mut doctor(folder.path(), "missing.toml", &[])).await;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("FAILED   configuration") && text.contains("mend: ") && text.contains("failed, "), "{text}");
}
