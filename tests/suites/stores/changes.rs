//! Changes of keys that exist, on each store: states, deletion, re-wrap. What each does, what it refuses,
//! and that it is there after a restart.

use serde_json::{Value, json};
use strongroom_tests::api::Reply;
use strongroom_tests::stack::KmsKeyKind;

use super::on_each_store;
use super::place::Place;
use crate::scene::{Scene, assert_problem};

on_each_store!(
    a_disabled_key_signs_nothing_until_it_is_enabled,
    a_key_is_deleted_only_after_its_waiting_period,
    a_deletion_can_be_cancelled,
    a_change_of_another_generation_is_refused,
    a_damaged_record_is_not_changed,
);

async fn change(it: &Scene, key_id: &str, change: &str, body: Value) -> Reply {
    it.api.post(&format!("/v1/keys/{key_id}/{change}"), body).await.expect("a reply")
}

/// A change that succeeds: the key's state and generation afterwards, in the reply and in the store.
async fn changed(it: &Scene, key_id: &str, name: &str) -> (String, u64) {
    let reply = change(it, key_id, name, json!({})).await;
    assert_eq!(reply.status.as_u16(), 200, "{name}: {}", reply.body);
    let shown = it.api.get(&format!("/v1/keys/{key_id}")).await.expect("a reply");
    assert_eq!(shown.body, reply.body, "{name}");
    (reply.text("state").to_owned(), reply.body["generation"].as_u64().expect("a generation"))
}

async fn a_disabled_key_signs_nothing_until_it_is_enabled(mut it: Place) {
    let public_key = it.scene.create("a").await.body["public_key"].clone();
    it.scene.create("b").await;
    it.scene.signs("a").await;
    assert_eq!(changed(&it.scene, "a", "disable").await, ("disabled".to_owned(), 2));
    assert_problem(&it.scene.sign("a").await, 403, "key-disabled");
    assert_eq!(changed(&it.scene, "a", "disable").await, ("disabled".to_owned(), 2), "nothing to change");
    it.scene.signs("b").await;
    it.scene.restart_parent().await.expect("restarted");
    assert_problem(&it.scene.sign("a").await, 403, "key-disabled");
    assert_eq!(changed(&it.scene, "a", "enable").await, ("enabled".to_owned(), 3));
    assert_eq!(changed(&it.scene, "a", "enable").await, ("enabled".to_owned(), 3), "nothing to change");
    assert_eq!(it.scene.sign("a").await.body["public_key"], public_key);
}

async fn a_key_is_deleted_only_after_its_waiting_period(mut it: Place) {
    it.scene.create("a").await;
    it.scene.create("b").await;
    assert_problem(&it.scene.api.delete("/v1/keys/a").await.expect("a reply"), 409, "key-state-conflict");
    for days in [6, 31, 256, -1] {
        let reply = change(&it.scene, "a", "schedule-deletion", json!({ "waiting_days": days })).await;
        assert_problem(&reply, 422, "invalid-request");
    }
    let pending = change(&it.scene, "a", "schedule-deletion", json!({ "waiting_days": 7 })).await;
    assert_eq!((pending.status.as_u16(), pending.text("state")), (200, "pending_deletion"), "{}", pending.body);
    let date =
        time::OffsetDateTime::parse(pending.text("deletion_date"), &time::format_description::well_known::Rfc3339);
    let waiting = date.expect("a date") - time::OffsetDateTime::now_utc();
    assert!(
        (time::Duration::days(7) - time::Duration::minutes(5)..=time::Duration::days(7) + time::Duration::SECOND)
            .contains(&waiting)
    );
    assert_problem(&it.scene.sign("a").await, 403, "key-pending-deletion");
    for name in ["enable", "disable", "schedule-deletion"] {
        assert_problem(&change(&it.scene, "a", name, json!({})).await, 409, "key-state-conflict");
    }
    assert_problem(&it.scene.api.delete("/v1/keys/a").await.expect("a reply"), 409, "key-state-conflict");

    it.tamper("a", |record| record["deletion_date"] = "2020-01-01T00:00:00Z".into()).await;
    it.scene.restart_parent().await.expect("restarted");
    let wrong = it.scene.api.delete("/v1/keys/a?generation=1").await.expect("a reply");
    assert_problem(&wrong, 409, "generation-lost");
    let deleted = it.scene.api.delete("/v1/keys/a?generation=2").await.expect("a reply");
    assert_eq!(deleted.status.as_u16(), 204, "{}", deleted.body);
    for reply in [
        it.scene.sign("a").await,
        it.scene.api.get("/v1/keys/a").await.expect("a reply"),
        it.scene.api.delete("/v1/keys/a").await.expect("a reply"),
        change(&it.scene, "a", "enable", json!({})).await,
    ] {
        assert_problem(&reply, 404, "key-not-found");
    }
    assert_eq!(super::list(&it.scene.api, 100).await, ["b"]);
    it.scene.signs("b").await;
    // Secrets Manager keeps the name until its own recovery window is over; elsewhere it is free.
    let again = it.scene.try_create(json!({ "key_id": "a", "algorithm": "ed25519" })).await;
    match again.status.as_u16() {
        201 => it.scene.signs("a").await,
        _ => assert_problem(&again, 409, "key-exists"),
    }
}

async fn a_deletion_can_be_cancelled(it: Place) {
    it.scene.create("a").await;
    assert_problem(&change(&it.scene, "a", "cancel-deletion", json!({})).await, 409, "key-state-conflict");
    assert_eq!(changed(&it.scene, "a", "schedule-deletion").await, ("pending_deletion".to_owned(), 2));
    assert_eq!(changed(&it.scene, "a", "cancel-deletion").await, ("disabled".to_owned(), 3));
    assert_problem(&it.scene.sign("a").await, 403, "key-disabled");
    assert_eq!(changed(&it.scene, "a", "enable").await, ("enabled".to_owned(), 4));
    it.scene.signs("a").await;
}

async fn a_change_of_another_generation_is_refused(it: Place) {
    it.scene.create("a").await;
    changed(&it.scene, "a", "disable").await;
    let stored = it.read("a").await;
    for generation in [1, 3, u64::MAX] {
        for name in ["enable", "disable", "schedule-deletion", "cancel-deletion"] {
            let reply = change(&it.scene, "a", name, json!({ "generation": generation })).await;
            assert_problem(&reply, 409, "generation-lost");
        }
    }
    assert_eq!(it.read("a").await, stored);
    let meant = change(&it.scene, "a", "enable", json!({ "generation": 2 })).await;
    assert_eq!((meant.status.as_u16(), meant.body["generation"].as_u64()), (200, Some(3)));
}

async fn a_damaged_record_is_not_changed(it: Place) {
    it.scene.create("a").await;
    let stored = it.read("a").await;
    it.write("a", "damaged").await;
    for name in ["enable", "disable", "schedule-deletion", "cancel-deletion"] {
        assert_problem(&change(&it.scene, "a", name, json!({})).await, 502, "record-damaged");
    }
    assert_problem(&it.scene.api.delete("/v1/keys/a").await.expect("a reply"), 502, "record-damaged");
    assert_eq!(it.read("a").await, "damaged");
    it.write("a", &stored).await;
    it.scene.signs("a").await;
}

#[tokio::test]
async fn a_change_needs_manage_and_a_known_key() {
    let it = Scene::planned(|plan| {
        let hash = strongroom_parent::auth::TokenHash::of(b"srt_signer");
        plan.parent_toml = format!(
            "[[identities]]\nname = \"signer\"\ntoken_sha256 = \"{hash}\"\noperations = [\"read\", \"sign\"]\nkeys = [\"*\"]\n"
        );
    })
    .await;
    let signer = it.api.with_token("srt_signer");
    for name in ["enable", "disable", "schedule-deletion", "cancel-deletion", "rewrap"] {
        let path = format!("/v1/keys/a/{name}");
        assert_problem(&it.api.post(&path, json!({})).await.expect("a reply"), 401, "unauthorized");
        assert_problem(&signer.post(&path, json!({})).await.expect("a reply"), 403, "forbidden");
    }
    assert_problem(&it.api.delete("/v1/keys/a").await.expect("a reply"), 401, "unauthorized");
    assert_problem(&signer.delete("/v1/keys/a").await.expect("a reply"), 403, "forbidden");
}

/// A stack that may re-wrap from its first KMS key to its second.
async fn ceremony() -> Scene {
    Scene::planned(|plan| {
        plan.kms_keys = vec![KmsKeyKind::SingleRegion; 2];
        plan.configuration.insert("operations".to_owned(), json!(["generate", "sign", "rewrap"]));
    })
    .await
}

async fn rewrap(it: &Scene, key_id: &str, kms_key: &str) -> Reply {
    change(it, key_id, "rewrap", json!({ "kms_key_arn": kms_key })).await
}

#[tokio::test]
async fn a_rewrapped_key_signs_once_the_old_kms_key_is_gone() {
    let it = ceremony().await;
    let other = it.stack.start_another_host().await.expect("another host");
    let other = strongroom_tests::api::Api::new(&other.url);
    let created = it.create("a").await.body;
    changed(&it, "a", "disable").await;
    changed(&it, "a", "enable").await;
    it.signs("a").await;
    let message = json!({ "payload": { "type": "message", "message": "0x6869" } });
    assert_eq!(other.sign("a", message.clone()).await.expect("a reply").status.as_u16(), 200);

    let rewrapped = rewrap(&it, "a", &it.stack.kms_keys[1]).await;
    assert_eq!(rewrapped.status.as_u16(), 200, "{}", rewrapped.body);
    let mut expected = created;
    expected["kms_key_arn"] = it.stack.kms_keys[1].clone().into();
    expected["generation"] = 4.into();
    assert_eq!(rewrapped.body, expected, "nothing else changes");
    it.stack
        .control
        .set_state(&it.stack.kms_keys[0], strongroom_tests::mock_kms::KeyState::Disabled)
        .await
        .expect("disabled");
    it.signs("a").await;
    // The other host has the old record cached, learns that it does not open, and reads the new one. What it did not
    // send keeps its place meanwhile.
    let digest = json!({ "type": "digest", "digest": "11".repeat(32) });
    let payloads = json!([digest, message["payload"], digest, message["payload"]]);
    let signed = other.sign_batch("a", json!({ "payloads": payloads })).await.expect("a reply");
    assert_eq!(signed.status.as_u16(), 200, "{}", signed.body);
    let results = signed.body["results"].as_array().expect("results");
    let places: Vec<bool> = results.iter().map(|result| result["signature"].is_string()).collect();
    assert_eq!(places, [false, true, false, true], "{}", signed.body);
}

#[tokio::test]
async fn a_rewrap_that_fails_leaves_the_record_as_it_is() {
    let it = ceremony().await;
    it.create("a").await;
    let stored = it.stored("a");
    let foreign = it.stack.kms_key.replace("111122223333", "444455556666");
    assert_problem(&rewrap(&it, "a", &foreign).await, 422, "kms-key-not-configured");
    assert_problem(&rewrap(&it, "a", "alias/other").await, 422, "invalid-request");
    assert_problem(&change(&it, "a", "rewrap", json!({})).await, 422, "invalid-request");
    assert_problem(&rewrap(&it, "b", &it.stack.kms_keys[1]).await, 404, "key-not-found");
    let disabled = strongroom_tests::mock_kms::KeyState::Disabled;
    it.stack.control.set_state(&it.stack.kms_keys[1], disabled).await.expect("disabled");
    assert_problem(&rewrap(&it, "a", &it.stack.kms_keys[1]).await, 502, "kms-key-unusable");
    let original = it.tamper("a", |record| record["policy"]["hold_seconds"] = 1.into());
    assert_problem(&rewrap(&it, "a", &it.stack.kms_keys[0]).await, 502, "record-refused");
    it.store("a", &original);
    assert_eq!(it.stored("a"), stored);
    it.signs("a").await;
}

#[tokio::test]
async fn an_enclave_without_the_operation_rewraps_nothing() {
    let it = Scene::planned(|plan| plan.kms_keys = vec![KmsKeyKind::SingleRegion; 2]).await;
    it.create("a").await;
    assert_problem(&rewrap(&it, "a", &it.stack.kms_keys[1]).await, 403, "operation-not-configured");
    it.signs("a").await;
}
