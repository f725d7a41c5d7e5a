//! The parent carries the enclave's connections to KMS. He may carry them elsewhere, or cut them; what
//! he cannot do is answer in KMS's place.

use std::fs;

use serde_json::json;

use crate::scene::{Scene, assert_problem};

/// Points the proxy at another KMS, from the parent's next start on: same name, same keys if you like, but a TLS
/// root of its own.
pub(crate) fn redirect(it: &Scene, from: std::net::SocketAddr, to: std::net::SocketAddr) {
    let path = it.stack.directory().join("strongroom.toml");
    let toml = fs::read_to_string(&path).expect("strongroom.toml");
    let redirected = toml.replace(&format!("remote = \"{from}\""), &format!("remote = \"{to}\""));
    assert_ne!(redirected, toml);
    fs::write(&path, redirected).expect("written");
}

#[tokio::test]
async fn a_forged_envelope_from_a_fake_kms_under_another_tls_root() {
    let mut it = Scene::start().await;
    it.create("a").await;
    it.create_held("held", 600).await;
    it.signs("held").await;
    let fake = Scene::start().await;
    let (genuine, forger) = (it.stack.kms_address(), fake.stack.kms_address());

    redirect(&it, genuine, forger);
    it.stack.restart_parent().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    assert_problem(&it.sign("a").await, 503, "kms-unavailable");
    // At creation he would choose the data key.
    let create = json!({ "key_id": "b", "algorithm": "ed25519" });
    assert_problem(&it.try_create(create).await, 503, "kms-unavailable");
    assert_eq!(fake.calls().await, 0, "not one request reached it");
    it.signs("held").await;

    redirect(&it, forger, genuine);
    it.stack.restart_parent().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    it.signs("a").await;
    it.create("b").await;
}

#[tokio::test]
async fn a_relay_to_nowhere() {
    let mut it = Scene::start().await;
    it.create("a").await;
    let (genuine, nowhere) = (it.stack.kms_address(), "127.0.0.1:9".parse().expect("an address"));
    redirect(&it, genuine, nowhere);
    it.stack.restart_parent().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    assert_problem(&it.sign("a").await, 503, "kms-unavailable");
    redirect(&it, nowhere, genuine);
    it.stack.restart_parent().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    it.signs("a").await;
}
