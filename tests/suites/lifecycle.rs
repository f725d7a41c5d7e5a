//! Processes come and go: the enclave is killed, KMS and the parent restart, the parent drains; the dev
//! stack keeps what it promises.

mod dev_stack;

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use strongroom_tests::api::{Api, Reply};
use strongroom_tests::mock_kms::{Endpoint, Fault, FaultKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::scene::{Scene, assert_problem, eventually};

/// Sends a signal to a process of ours.
pub(crate) fn signal(process: Option<u32>, signal: Signal) {
    let process = process.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).expect("a process");
    kill_process(process, signal).expect("it is there");
}

/// The names of the checks that `/readyz` finds wanting, with their reasons.
async fn unready(api: &Api) -> Vec<(String, String)> {
    let Ok(reply) = api.get("/readyz").await else { return vec![("parent".to_owned(), "away".to_owned())] };
    let checks = reply.body["checks"].as_object().expect("checks");
    let bad = checks.iter().filter(|(_, check)| check["ok"] == false);
    let bad: Vec<_> =
        bad.map(|(name, check)| (name.clone(), check["reason"].as_str().unwrap_or_default().to_owned())).collect();
    assert_eq!(
        (reply.status.as_u16(), reply.body["ready"].clone()),
        if bad.is_empty() { (200, true.into()) } else { (503, false.into()) }
    );
    bad
}

fn names(checks: &[(String, String)]) -> Vec<&str> {
    checks.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn a_killed_enclave_is_missed_and_its_successor_is_configured() {
    let mut it = Scene::start().await;
    it.create("a").await;
    it.create_held("held", 3600).await;
    it.signs("held").await;
    let [_, enclave, _] = it.stack.process_ids();
    signal(enclave, Signal::KILL);

    eventually("/readyz names the enclave", async || names(&unready(&it.api).await).contains(&"enclave")).await;
    let bad = unready(&it.api).await;
    assert!(bad.iter().all(|(_, reason)| !reason.is_empty()), "{bad:?}");
    let started = Instant::now();
    let reply = it.sign("a").await;
    assert_problem(&reply, 503, "enclave-unavailable");
    assert!(reply.headers.contains_key("retry-after"));
    assert!(started.elapsed() < Duration::from_secs(5), "the caller waited {:?}", started.elapsed());
    // Without the enclave, what the parent itself knows is still there.
    assert_eq!(it.api.get("/v1/keys/a").await.expect("a reply").status.as_u16(), 200);

    it.stack.restart_enclave().await.expect("restarted");
    let started = Instant::now();
    eventually("the successor signs", async || it.sign("a").await.status.is_success()).await;
    assert!(started.elapsed() < Duration::from_secs(8), "it took {:?}", started.elapsed());
    it.signs("held").await;
    eventually("it is ready", async || unready(&it.api).await.is_empty()).await;
}

#[tokio::test]
async fn a_request_that_arrives_while_the_enclave_restarts_waits_for_it() {
    let mut it = Scene::start().await;
    it.create("a").await;
    // Killed and booted again in one go: well under the time that a request waits for a connection.
    it.stack.restart_enclave().await.expect("restarted");
    it.signs("a").await;
}

#[tokio::test]
async fn a_restarted_kms_is_found_again() {
    let mut it = Scene::start().await;
    it.create("a").await;
    it.stack.restart_kms().await.expect("restarted");
    it.signs("a").await;
    it.create("b").await;
    it.signs("b").await;
}

#[tokio::test]
async fn a_restarted_parent_with_the_same_configuration_is_accepted() {
    let mut it = Scene::start().await;
    it.create("a").await;
    for _ in 0..2 {
        it.restart_parent().await.expect("restarted");
        it.stack.wait_ready().await.expect("ready");
        it.signs("a").await;
    }
}

#[tokio::test]
async fn a_parent_with_another_configuration_is_told_to_restart_the_enclave() {
    let mut it = Scene::start().await;
    it.create("a").await;
    let path = it.stack.directory().join("enclave.json");
    let original = std::fs::read(&path).expect("the configuration");
    // One more space: another measurement.
    std::fs::write(&path, [&original[..], b" "].concat()).expect("written");
    it.restart_parent().await.expect("restarted");
    eventually("/readyz says what to do", async || {
        unready(&it.api).await.iter().any(|(name, reason)| name == "configuration" && reason.contains("restart it"))
    })
    .await;
    let reply = it.sign("a").await;
    assert_problem(&reply, 503, "enclave-configured-otherwise");
    assert!(!reply.headers.contains_key("retry-after"), "it does not pass by itself");

    std::fs::write(&path, original).expect("written");
    it.restart_parent().await.expect("restarted");
    it.signs("a").await;
}

#[tokio::test]
async fn without_credentials_the_parent_is_alive_and_not_ready() {
    let it = Scene::unready(|plan| {
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            plan.parent_environment.push((name.to_owned(), String::new()));
        }
    })
    .await;
    eventually("only credentials are missing", async || names(&unready(&it.api).await) == ["credentials"]).await;
    assert_eq!(it.api.get("/healthz").await.expect("a reply").status.as_u16(), 200);
    let reply = it.try_create(json!({ "key_id": "a", "algorithm": "ed25519" })).await;
    assert_problem(&reply, 503, "credentials-unavailable");
    assert!(reply.headers.contains_key("retry-after"));
    let evidence = it.api.get("/v1/attestation?nonce=00").await.expect("a reply");
    assert_eq!(evidence.status.as_u16(), 200, "evidence needs no credentials: {}", evidence.body);
}

#[tokio::test]
async fn on_sigterm_requests_in_flight_finish_and_new_ones_are_refused() {
    let mut it = Scene::start().await;
    it.create("a").await;
    let idle = connect(&it.stack.url).await;
    it.set_fault(Fault::next(1, FaultKind::Latency(1500)).on("Decrypt")).await;
    let (api, sign) = (Api::new(&it.stack.url), json!({ "payload": { "type": "message", "message": "00" } }));
    let slow = tokio::spawn(async move { api.sign("a", sign).await });
    // A fault is taken off the list when its call has arrived.
    eventually("the slow request is in flight", async || faults(&it).await.is_empty()).await;

    let address = it.stack.url.trim_start_matches("http://").to_owned();
    let [_, _, parent] = it.stack.process_ids();
    signal(parent, Signal::TERM);
    eventually("nothing new is accepted", async || TcpStream::connect(&address).await.is_err()).await;
    assert!(!slow.is_finished(), "the request is still in flight");
    let reply = slow.await.expect("no panic").expect("a reply");
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.body);

    let started = Instant::now();
    let status = it.stack.stop_parent().await.expect("it ended");
    assert_eq!(status.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(3), "an idle connection held it up");
    drop(idle);
}

async fn faults(it: &Scene) -> Vec<Value> {
    let endpoint = Endpoint::read(&it.stack.directory().join("kms")).expect("an endpoint");
    let url = format!("http://{}/faults", endpoint.control);
    reqwest::get(url).await.expect("a reply").json().await.expect("faults")
}

/// A connection that has been served once and is kept.
async fn connect(url: &str) -> TcpStream {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.expect("connected");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).await.expect("a reply");
    assert_eq!(&reply, b"HTTP/1.1 200");
    stream
}

/// For the module below: a key that can be created, shown or not.
async fn create(api: &Api, key_id: &str) -> Reply {
    api.post("/v1/keys", json!({ "key_id": key_id, "algorithm": "ed25519" })).await.expect("a reply")
}
