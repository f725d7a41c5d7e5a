//! How often KMS is asked, and with what: read in mock-kms's log, which sees every call. Creation is one
//! attested `GenerateDataKey` and one attested `Decrypt`, an unlock one `Decrypt`, a held key none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom_protocol::{ErrorCode, Health, Payload, Request, Response};
use strongroom_tests::frames::EnclaveSocket;
use strongroom_tests::mock_kms::{Call, Fault, FaultKind, KeyState};

use crate::scene::{Scene, assert_problem, eventually};

const CREATION: [&str; 2] = ["GenerateDataKey Success", "Decrypt Success"];

#[tokio::test]
async fn creation_is_one_attested_generate_data_key_and_one_attested_decrypt() {
    let it = Scene::start().await;
    it.create("a").await;
    assert_eq!(it.outcomes("a").await, CREATION);

    let pcrs = std::fs::read(it.stack.directory().join("pcrs.json")).expect("pcrs.json");
    let pcrs: BTreeMap<String, String> = serde_json::from_slice(&pcrs).expect("registers");
    let record = it.record("a");
    let context: BTreeMap<String, String> = record.binding().encryption_context(&record.key_id).into_iter().collect();
    assert_eq!(context.len(), 3);
    for call in it.calls_about("a").await {
        assert_eq!(call.encryption_context, context, "exactly the three pairs");
        assert_eq!(call.key_arn.as_deref(), Some(it.stack.kms_key.as_str()));
        let attested = call.attested.expect("a document").pcrs;
        assert_eq!((&attested["PCR0"], &attested["PCR16"]), (&pcrs["PCR0"], &pcrs["PCR16"]));
    }
}

#[tokio::test]
async fn a_key_that_is_not_held_costs_one_decrypt_per_signature() {
    let it = Scene::start().await;
    it.create("a").await;
    for unlocks in 1..=3 {
        it.signs("a").await;
        assert_eq!(it.outcomes("a").await[CREATION.len()..], vec!["Decrypt Success"; unlocks]);
    }
}

#[tokio::test]
async fn a_batch_over_rest_costs_one_decrypt() {
    let it = Scene::start().await;
    it.create("a").await;
    let payloads: Vec<Value> = (0..100).map(|n| json!({ "type": "message", "message": format!("{n:02x}") })).collect();
    let reply = it.api.sign_batch("a", json!({ "payloads": payloads })).await.expect("a reply");
    let results = reply.body["results"].as_array().expect("results");
    assert!(results.len() == 100 && results.iter().all(|result| result["signature"].is_string()), "{}", reply.body);
    assert_eq!(it.outcomes("a").await[CREATION.len()..], ["Decrypt Success"]);
    // What the parent refuses by itself costs none.
    let digests = json!({ "payloads": [{ "type": "digest", "digest": "11".repeat(32) }] });
    assert_eq!(it.api.sign_batch("a", digests).await.expect("a reply").status.as_u16(), 200);
    assert_eq!(it.outcomes("a").await.len(), CREATION.len() + 1);
}

#[tokio::test]
async fn a_batch_costs_one_decrypt() {
    let it = Scene::start().await;
    it.create("a").await;
    let payload = Payload::Message { message: vec![1].try_into().expect("short"), hash: None };
    let record = it.record("a").present().expect("encodes");
    let sign = Request::Sign { record, scheme: None, path: None, payloads: vec![payload; 100] };
    match it.enclave().await.ask(sign).await.expect("a reply") {
        Ok(Response::Signed(signatures)) => assert!(signatures.len() == 100 && signatures.iter().all(Result::is_ok)),
        other => panic!("{other:?}"),
    }
    assert_eq!(it.outcomes("a").await[CREATION.len()..], ["Decrypt Success"]);
}

#[tokio::test]
async fn a_keys_evidence_costs_one_decrypt_and_the_enclaves_none() {
    let it = Scene::start().await;
    it.create("a").await;
    let before = it.calls().await;
    assert_eq!(it.api.get("/v1/attestation?nonce=0x01").await.expect("a reply").status.as_u16(), 200);
    assert_eq!(it.calls().await, before);
    assert_eq!(it.api.get("/v1/keys/a/attestation?nonce=0x01").await.expect("a reply").status.as_u16(), 200);
    assert_eq!(it.outcomes("a").await[CREATION.len()..], ["Decrypt Success"]);
}

#[tokio::test]
async fn a_held_key_is_wiped_when_its_time_is_over_and_then_costs_one_decrypt_again() {
    let it = Scene::start().await;
    it.create_held("a", 1).await;
    it.signs("a").await;
    assert_eq!(it.outcomes("a").await[CREATION.len()..], ["Decrypt Success"]);
    nothing_is_held(&it).await;
    it.signs("a").await;
    assert_eq!(it.outcomes("a").await[CREATION.len()..], ["Decrypt Success", "Decrypt Success"]);
}

#[tokio::test]
async fn a_held_key_costs_no_call_whatever_is_asked_of_it() {
    let it = Scene::start().await;
    it.create_held("a", 60).await;
    for _ in 0..20 {
        it.signs("a").await;
    }
    let evidence = it.api.get("/v1/keys/a/attestation?nonce=0x01").await.expect("a reply");
    assert_eq!(evidence.status.as_u16(), 200);
    assert_eq!(it.outcomes("a").await[CREATION.len()..], ["Decrypt Success"]);
    assert_eq!(health(&it).await.held_keys, 1);
}

#[tokio::test]
async fn holding_is_never_extended_by_use() {
    let it = Scene::start().await;
    it.create_held("a", 1).await;
    it.signs("a").await;
    let unlocked = Instant::now();
    // Used all the time, it is opened anew all the same.
    while it.outcomes("a").await.len() == CREATION.len() + 1 {
        it.signs("a").await;
        assert!(unlocked.elapsed() < Duration::from_secs(5), "use keeps the key open");
    }
}

#[tokio::test]
async fn revocation_in_kms_takes_effect_after_the_hold_time() {
    let it = Scene::start().await;
    it.create_held("a", 1).await;
    it.signs("a").await;
    it.stack.control.set_state(&it.stack.kms_key, KeyState::Disabled).await.expect("set");
    let revoked = Instant::now();
    let refused = loop {
        let reply = it.sign("a").await;
        if !reply.status.is_success() {
            break reply;
        }
        assert!(revoked.elapsed() < Duration::from_secs(5), "use keeps the key open");
    };
    assert_problem(&refused, 502, "kms-key-unusable");
    it.stack.control.set_state(&it.stack.kms_key, KeyState::Enabled).await.expect("set");
    it.signs("a").await;
}

#[tokio::test]
async fn the_configuration_caps_every_policys_hold_time() {
    let it = Scene::planned(|plan| {
        plan.configuration.insert("max_hold_seconds".to_owned(), 1.into());
    })
    .await;
    it.create_held("a", 3600).await;
    it.signs("a").await;
    nothing_is_held(&it).await;
    it.signs("a").await;
    assert_eq!(it.outcomes("a").await[CREATION.len()..], ["Decrypt Success", "Decrypt Success"]);
}

#[tokio::test]
async fn a_configuration_without_hold_time_holds_nothing() {
    let it = Scene::planned(|plan| {
        plan.configuration.insert("max_hold_seconds".to_owned(), 0.into());
    })
    .await;
    it.create_held("a", 3600).await;
    it.signs("a").await;
    assert_eq!(health(&it).await.held_keys, 0);
    it.signs("a").await;
    assert_eq!(it.outcomes("a").await[CREATION.len()..], ["Decrypt Success", "Decrypt Success"]);
}

#[tokio::test]
async fn held_keys_are_bounded_in_number_and_the_first_to_end_goes() {
    let it = Scene::planned(|plan| {
        plan.configuration.insert("max_held_keys".to_owned(), 2.into());
    })
    .await;
    for (key_id, seconds) in [("long", 600), ("short", 300), ("longer", 900)] {
        it.create_held(key_id, seconds).await;
        it.signs(key_id).await;
    }
    assert_eq!(health(&it).await.held_keys, 2);
    for (key_id, decrypts) in [("long", 1), ("longer", 1), ("short", 2)] {
        it.signs(key_id).await;
        assert_eq!(it.outcomes(key_id).await.len(), CREATION.len() + decrypts, "{key_id}");
    }
    assert_eq!(health(&it).await.held_keys, 2);
}

#[tokio::test]
async fn a_hundred_requests_for_one_cold_key_share_one_decrypt() {
    let it = Scene::start().await;
    it.create("a").await;
    // Long enough for all to arrive while it lasts.
    it.set_fault(Fault::next(1, FaultKind::Latency(1000)).on("Decrypt")).await;
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let api = it.api.clone();
            let body = json!({ "payload": { "type": "message", "message": "0x6869" } });
            tokio::spawn(async move { api.sign("a", body).await.expect("a reply") })
        })
        .collect();
    let mut signatures = std::collections::BTreeSet::new();
    for request in requests {
        let reply = request.await.expect("no panic");
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.body);
        signatures.insert(reply.text("signature").to_owned());
    }
    assert_eq!(signatures.len(), 1, "RFC 8032 signatures are deterministic");
    assert_eq!(it.outcomes("a").await[CREATION.len()..], ["Decrypt Success"]);
}

#[tokio::test]
async fn a_failed_unlock_is_shared_and_not_remembered() {
    let it = Scene::start().await;
    it.create("a").await;
    it.set_fault(Fault::next(1, FaultKind::Latency(300)).on("Decrypt")).await;
    it.stack.control.set_state(&it.stack.kms_key, KeyState::Disabled).await.expect("set");
    let record = it.record("a").present().expect("encodes");
    let mut socket = it.enclave().await;
    for _ in 0..10 {
        socket.send(sign_request(&record)).await.expect("sent");
    }
    for _ in 0..10 {
        let reply = socket.reply().await.expect("a frame").expect("open");
        assert_eq!(reply.result.err(), Some(ErrorCode::KmsKeyUnusable));
    }
    assert_eq!(it.outcomes("a").await[CREATION.len()..], ["Decrypt DisabledException"]);

    it.stack.control.set_state(&it.stack.kms_key, KeyState::Enabled).await.expect("set");
    it.signs("a").await;
}

#[tokio::test]
async fn nothing_but_the_two_attested_calls_is_ever_made() {
    let it = Scene::start().await;
    let policy = json!({ "payloads": ["message", "digest"], "hold_seconds": 60 });
    it.create_with(json!({ "key_id": "evm", "algorithm": "secp256k1", "policy": policy })).await;
    it.create("solana").await;
    it.signs("solana").await;
    let digest: Value = json!({ "payload": { "type": "digest", "digest": "11".repeat(32) }, "scheme": "bip340" });
    assert_eq!(it.api.sign("evm", digest).await.expect("a reply").status.as_u16(), 200);
    it.tamper("solana", |record| record["policy"]["hold_seconds"] = 9.into());
    assert_problem(&it.sign("solana").await, 502, "record-refused");

    let calls = it.stack.control.calls(0).await.expect("the log");
    let gated = |call: &Call| matches!(call.action.as_deref(), Some("GenerateDataKey" | "Decrypt"));
    assert!(calls.len() >= 7 && calls.iter().all(gated), "{calls:?}");
    assert!(calls.iter().all(|call| call.attested.is_some()), "{calls:?}");
}

fn sign_request(record: &strongroom_protocol::PresentedRecord) -> Request {
    let payload = Payload::Message { message: vec![1].try_into().expect("short"), hash: None };
    Request::Sign { record: record.clone(), scheme: None, path: None, payloads: vec![payload] }
}

async fn health(it: &Scene) -> Health {
    ask_health(&mut it.enclave().await).await
}

async fn ask_health(socket: &mut EnclaveSocket) -> Health {
    match socket.ask(Request::Health).await.expect("a reply") {
        Ok(Response::Health(health)) => health,
        other => panic!("{other:?}"),
    }
}

/// Waits until every held key has been wiped, asked for or not.
async fn nothing_is_held(it: &Scene) {
    eventually("no key is held", async || health(it).await.held_keys == 0).await;
}
