//! Multi-Region KMS keys: a record that was wrapped in another Region opens here under the replica, and
//! nothing else that looks like it does.

use serde_json::json;
use strongroom_protocol::ErrorCode;
use strongroom_tests::stack::{KmsKeyKind, REGION};

use super::{ceremony, rewrap, sign, signs};
use crate::scene::{Scene, assert_problem};

/// The first KMS key is of this Region only, the second has replicas elsewhere.
async fn with_replica() -> Scene {
    Scene::planned(|plan| {
        ceremony(plan);
        plan.kms_keys = vec![KmsKeyKind::SingleRegion, KmsKeyKind::MultiRegion];
    })
    .await
}

/// The same KMS key, as the stack of another Region would write it.
fn elsewhere(kms_key: &str) -> String {
    let sibling = kms_key.replace(REGION, "us-east-1");
    assert_ne!(sibling, kms_key);
    sibling
}

#[tokio::test]
async fn a_record_of_another_region_opens_under_the_replica_here() {
    let it = with_replica().await;
    let replica = &it.stack.kms_keys[1];
    it.create_with(json!({ "key_id": "a", "algorithm": "ed25519", "kms_key_arn": replica })).await;
    let calls = it.calls_about("a").await.len();
    it.tamper("a", |record| record["kms_key_arn"] = elsewhere(replica).into());
    it.signs("a").await;
    assert_eq!(it.api.get("/v1/keys/a/attestation?nonce=01").await.expect("a reply").status.as_u16(), 200);
    for call in &it.calls_about("a").await[calls..] {
        assert_eq!((call.outcome.as_str(), call.key_arn.as_deref()), ("Success", Some(replica.as_str())));
    }
    signs(&it, &it.record("a")).await;
}

#[tokio::test]
async fn what_is_made_under_a_name_of_another_region_is_of_this_one() {
    let it = with_replica().await;
    let replica = &it.stack.kms_keys[1];
    let create = json!({ "key_id": "a", "algorithm": "ed25519", "kms_key_arn": elsewhere(replica) });
    assert_eq!(it.create_with(create).await.text("kms_key_arn"), replica);
    it.signs("a").await;

    it.create("b").await;
    let new = rewrap(&it, &it.record("b"), &elsewhere(replica)).await.expect("re-wrapped");
    assert_eq!(new.kms_key_arn.as_str(), replica);
    signs(&it, &new).await;
    // And back, from a record of another Region.
    it.tamper("a", |record| record["kms_key_arn"] = elsewhere(replica).into());
    let back = rewrap(&it, &it.record("a"), &it.stack.kms_keys[0]).await.expect("re-wrapped");
    assert_eq!(back.kms_key_arn.as_str(), it.stack.kms_keys[0]);
    signs(&it, &back).await;
}

#[tokio::test]
async fn other_keys_of_other_regions_accounts_and_ids_are_refused() {
    let it = with_replica().await;
    let (single, replica) = (&it.stack.kms_keys[0], &it.stack.kms_keys[1]);
    it.create_with(json!({ "key_id": "a", "algorithm": "ed25519", "kms_key_arn": replica })).await;
    let unlisted = it.stack.control.create_multi_region_key(None).await.expect("a key");
    let calls = it.calls().await;
    for kms_key in [
        elsewhere(single),
        elsewhere(single).replace("key/", "key/mrk-"),
        elsewhere(replica).replace("key/mrk-", "key/"),
        elsewhere(replica).replace("111122223333", "999999999999"),
        elsewhere(replica).replace("arn:aws:", "arn:aws-cn:"),
        elsewhere(replica) + "0",
        elsewhere(&unlisted),
        unlisted.clone(),
    ] {
        let original = it.tamper("a", |record| record["kms_key_arn"] = kms_key.as_str().into());
        assert_problem(&it.sign("a").await, 422, "kms-key-not-configured");
        assert_eq!(sign(&it, &it.record("a")).await.err(), Some(ErrorCode::KmsKeyNotConfigured), "{kms_key}");
        it.store("a", &original);
        let refused = rewrap(&it, &it.record("a"), &kms_key).await;
        assert_eq!(refused.err(), Some(ErrorCode::KmsKeyNotConfigured), "{kms_key}");
    }
    assert_eq!(it.calls().await, calls, "KMS was not even asked");
    it.signs("a").await;
}

/// Whatever ARN is written into a record, KMS knows whose blob it is.
#[tokio::test]
async fn a_record_of_another_key_relabelled_as_the_replicas() {
    let it = with_replica().await;
    it.create("a").await;
    let original = it.tamper("a", |record| record["kms_key_arn"] = elsewhere(&it.stack.kms_keys[1]).into());
    assert_problem(&it.sign("a").await, 502, "record-refused");
    assert_eq!(it.outcomes("a").await.last().map(String::as_str), Some("Decrypt IncorrectKeyException"));
    it.store("a", &original);
    it.signs("a").await;
}
