//! A peer that does not read until every buffer on the way is full: it is dropped at a deadline, takes bounded
//! memory until then, and others are served on.

mod remote;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use strongroom_protocol::{Nonce, Request};
use strongroom_tests::stack::Plan;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::{BEFORE_LONG, PROMPTLY, greeted, signal_enclave, vmm};
use crate::hostile_parent::relay::redirect;
use crate::scene::{Scene, eventually};
use remote::Remote;

/// Both wait for a deadline of ten seconds, so they do it side by side.
#[tokio::test]
async fn who_does_not_read_is_dropped_at_the_deadline_in_either_direction() {
    tokio::join!(a_host_that_does_not_read(), an_enclave_that_does_not_read());
}

/// It is dropped, and takes nothing from others.
async fn a_host_that_does_not_read() {
    let it = Scene::planned(Plan::in_a_vm).await;
    it.create("a").await;
    let mut deaf = greeted(&it).await;
    let request = || Request::Attest { nonce: Nonce::try_from(vec![1; 16]).expect("short") };
    let until_full = async { while timeout(Duration::from_millis(500), deaf.send(request())).await.is_ok() {} };
    timeout(Duration::from_secs(10), until_full).await.expect("the enclave reads for ever");

    let started = Instant::now();
    greeted(&it).await.ask(Request::Health).await.expect("a reply").expect("health");
    it.signs("a").await;
    assert!(started.elapsed() < PROMPTLY, "others waited");
    // Not before it has given up: whoever reads again in time is served on. What is read then is what is on the way, and
    // an end.
    let log = it.stack.directory().join("enclave.log");
    let given_up = || std::fs::read_to_string(&log).expect("a log").contains("it does not read its replies");
    let waiting = async {
        while !given_up() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(BEFORE_LONG, waiting).await.expect("the enclave waits for ever");
    let end = async { while let Ok(Some(_)) = deaf.reply().await {} };
    timeout(PROMPTLY, end).await.expect("it was not dropped");
    it.signs("a").await;
}

/// It costs its callers their deadline, and no more.
async fn an_enclave_that_does_not_read() {
    let it = Scene::planned(Plan::in_a_vm).await;
    it.create("a").await;
    signal_enclave(&it, Signal::STOP);
    // More than the way to the enclave takes.
    let message = format!("0x{}", "07".repeat(1_000_000));
    let body = json!({ "payload": { "type": "message", "message": message } });
    let started = Instant::now();
    let calls = tokio::join!(it.api.sign("a", body.clone()), it.api.sign("a", body.clone()), it.sign("a"));
    for reply in [calls.0, calls.1, Ok(calls.2)] {
        let reply = reply.expect("a reply");
        let outcome = (reply.status.as_u16(), reply.problem());
        assert!([(503, "enclave-unavailable"), (504, "deadline")].contains(&outcome), "{}", reply.body);
    }
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    let not_ready = async || it.api.get("/readyz").await.expect("a reply").status.as_u16() == 503;
    eventually("the parent says that the enclave does not answer", not_ready).await;

    signal_enclave(&it, Signal::CONT);
    let continued = Instant::now();
    it.stack.wait_ready().await.expect("ready");
    let ready = continued.elapsed();
    it.signs("a").await;
    let signed = continued.elapsed();
    assert!(signed < BEFORE_LONG, "ready after {ready:?}, signed after {signed:?}\n{}", it.stack.log_ends());
}

#[tokio::test]
async fn on_the_way_to_kms_who_does_not_read_holds_up_nobody_else() {
    let mut it = Scene::planned(Plan::in_a_vm).await;
    let remote = Remote::start(it.stack.kms_address()).await;
    redirect(&it, it.stack.kms_address(), remote.address);
    it.restart_parent().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");

    let mut connections = Vec::new();
    for _ in 0..4 {
        // KMS does not read what the guest says; and the guest not what KMS says.
        let mut unheard = vmm(&it).call_kms_proxy().await.expect("connected");
        let poured = pour(&mut unheard, remote::DEAF).await;
        assert!(poured < 32 * 1024 * 1024, "{poured} bytes are on the way");
        let mut deaf = vmm(&it).call_kms_proxy().await.expect("connected");
        deaf.write_all(&[remote::ENDLESS]).await.expect("written");
        connections.push((unheard, deaf));
    }
    eventually("KMS waits for the guest", async || remote.waiting() == 4).await;

    let started = Instant::now();
    it.create("a").await;
    it.signs("a").await;
    assert!(started.elapsed() < PROMPTLY, "others waited");

    drop(connections);
    eventually("KMS learns that the guest has gone", async || remote.waiting() == 0).await;
    it.signs("a").await;
}

/// Writes until nothing more goes in, and returns how much did.
async fn pour(stream: &mut UnixStream, byte: u8) -> usize {
    let mut poured = 0;
    while let Ok(length) = timeout(Duration::from_millis(200), stream.write(&[byte; 16 * 1024])).await {
        poured += length.expect("written");
    }
    poured
}
