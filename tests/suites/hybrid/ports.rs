//! A port that nobody serves, in the guest and on the host: the other side says so in bounded time, and goes
//! on as soon as somebody does.

use std::time::Instant;

use rustix::process::Signal;
use strongroom_tests::api::Api;
use strongroom_tests::stack::Plan;
use strongroom_tests::vmm::ENCLAVE_PORT;
use tokio::time::{Duration, sleep};

use super::{BEFORE_LONG, PROMPTLY, signal_enclave, signal_process, vmm};
use crate::scene::{Scene, assert_problem};

#[tokio::test]
async fn a_guest_port_that_nobody_serves_is_an_enclave_that_does_not_answer() {
    let mut it = Scene::planned(Plan::in_a_vm).await;
    it.create("a").await;
    signal_enclave(&it, Signal::KILL);
    // It never saw an enclave either.
    it.restart_parent().await.expect("restarted");
    assert!(vmm(&it).call_guest(ENCLAVE_PORT).await.is_err(), "the VMM lives and says no");
    let reply = it.api.get("/readyz").await.expect("a reply");
    assert_eq!(reply.status.as_u16(), 503);
    assert_eq!(reply.body["checks"]["enclave"]["reason"], "the enclave does not answer");

    it.stack.restart_enclave().await.expect("restarted");
    let started = Instant::now();
    it.stack.wait_ready().await.expect("ready");
    assert!(started.elapsed() < BEFORE_LONG, "ready after {:?}\n{}", started.elapsed(), it.stack.log_ends());
    it.signs("a").await;
}

#[tokio::test]
async fn a_host_port_that_nobody_serves_is_kms_that_does_not_answer() {
    let mut it = Scene::planned(Plan::in_a_vm).await;
    it.create("a").await;
    it.create_held("held", 600).await;
    it.signs("held").await;
    // The KMS proxy goes with its parent; the other parent has none.
    let other = it.stack.start_another_parent().await.expect("ready");
    let [_, _, parent] = it.stack.process_ids();
    signal_process(parent, Signal::KILL);
    it.api = Api::new(&other.url);

    let started = Instant::now();
    let meanwhile = async {
        // What needs no KMS is served, and does not wait.
        sleep(Duration::from_millis(500)).await;
        it.signs("held").await;
        assert!(started.elapsed() < PROMPTLY, "others waited");
    };
    let (reply, ()) = tokio::join!(it.sign("a"), meanwhile);
    assert_problem(&reply, 504, "kms-timeout");
    assert!(started.elapsed() < Duration::from_secs(10), "within the parent's own deadline");

    it.stack.restart_parent().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    let started = Instant::now();
    it.signs("a").await;
    assert!(started.elapsed() < PROMPTLY, "{:?}", started.elapsed());
}

#[tokio::test]
async fn connections_that_kms_has_closed_are_made_anew() {
    let mut it = Scene::planned(Plan::in_a_vm).await;
    it.create("a").await;
    for _ in 0..3 {
        it.stack.restart_kms().await.expect("restarted");
        let started = Instant::now();
        it.signs("a").await;
        assert!(started.elapsed() < PROMPTLY, "{:?}", started.elapsed());
    }
}
