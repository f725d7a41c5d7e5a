//! States, deletion and re-wrap by the command line, against a whole appliance.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use strongroom_tests::mock_kms::dedicated_key_policy;
use strongroom_tests::stack::{ADMINISTRATOR_ARN, KmsKeyKind, PARENT_ARN};

use super::{Key, said};
use crate::lifecycle::signal;
use crate::scene::{Scene, eventually};
use crate::shared::SharedScene;

static OPEN: SharedScene = SharedScene::new(|_| {});

const SIGN: [&str; 2] = ["--message", "00"];

#[tokio::test]
async fn a_disabled_key_signs_nothing_until_it_is_enabled() {
    let (it, _) = OPEN.enter().await;
    let key = Key::of(&it.stack.url);
    key.expect(0, &["create", "a", "--algorithm", "ed25519"]).await;
    let disabled = key.json(0, &["disable", "a"]).await;
    assert_eq!((&disabled["state"], &disabled["generation"]), (&json!("disabled"), &json!(2)));
    assert_eq!(key.json(0, &["disable", "a"]).await, disabled, "again changes nothing");
    let refused = key.run(&[&["sign", "a"], &SIGN[..]].concat()).await;
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(said(&refused).contains("key-disabled"), "{}", said(&refused));
    let listed = key.expect(0, &["list", "--state", "disabled"]).await;
    assert!(listed.lines().any(|row| row.starts_with("a ")), "{listed}");

    key.expect(5, &["enable", "a", "--generation", "1"]).await;
    let text = key.expect(0, &["enable", "a", "--generation", "2"]).await;
    assert!(text.contains("enabled (generation 3)"), "{text}");
    key.expect(0, &[&["sign", "a"], &SIGN[..]].concat()).await;
}

#[tokio::test]
async fn a_deletion_waits_can_be_cancelled_and_is_then_for_good() {
    let it = Scene::start().await;
    let key = Key::of(&it.stack.url);
    key.expect(0, &["create", "a", "--algorithm", "ed25519"]).await;
    key.expect(5, &["delete", "a", "--yes"]).await;
    key.expect(5, &["cancel-deletion", "a"]).await;

    let text = key.expect(0, &["schedule-deletion", "a", "--waiting-days", "7"]).await;
    let pending = key.json(0, &["show", "a"]).await;
    assert_eq!(pending["state"], "pending_deletion");
    let date = pending["deletion_date"].as_str().expect("a date");
    assert!(text.contains(date), "{text}");
    let listed = key.expect(0, &["list", "--state", "pending_deletion"]).await;
    assert!(listed.contains("pending_deletion"), "{listed}");
    let refused = key.run(&[&["sign", "a"], &SIGN[..]].concat()).await;
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(said(&refused).contains("key-pending-deletion"), "{}", said(&refused));
    for conflict in [&["schedule-deletion", "a"][..], &["enable", "a"], &["disable", "a"], &["delete", "a", "--yes"]] {
        key.expect(5, conflict).await;
    }

    let kept = key.json(0, &["cancel-deletion", "a"]).await;
    assert_eq!((&kept["state"], kept.get("deletion_date")), (&json!("disabled"), None));

    key.expect(0, &["schedule-deletion", "a"]).await;
    it.tamper("a", |record| record["deletion_date"] = "2020-01-01T00:00:00Z".into());
    key.expect(2, &["delete", "a"]).await;
    key.expect(0, &["delete", "a", "--yes"]).await;
    key.expect(4, &["show", "a"]).await;
}

/// A stack whose configuration lists re-wrap and a second KMS key, which is returned.
async fn two_kms_keys() -> (Scene, String) {
    let it = Scene::planned(|plan| {
        plan.kms_keys = vec![KmsKeyKind::SingleRegion; 2];
        plan.configuration.insert("operations".to_owned(), json!(["generate", "sign", "rewrap"]));
    })
    .await;
    let second = it.stack.kms_keys[1].clone();
    (it, second)
}

#[tokio::test]
async fn one_key_and_then_all_are_rewrapped_and_sign_as_before() {
    let (it, second) = two_kms_keys().await;
    let key = Key::of(&it.stack.url);
    key.expect(0, &["create", "--count", "12", "--prefix", "k-", "--algorithm", "ed25519"]).await;
    let before = key.json(0, &["show", "k-000001"]).await;
    let after = key.json(0, &["rewrap", "k-000001", "--kms-key-arn", &second, "--generation", "1"]).await;
    for field in ["public_key", "policy", "origin", "addresses", "created_at"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!((&after["kms_key_arn"], &after["generation"]), (&json!(second), &json!(2)));
    key.expect(5, &["rewrap", "k-000001", "--kms-key-arn", &second, "--generation", "1"]).await;
    key.expect(1, &["rewrap", "k-000001", "--kms-key-arn", &format!("{second}0")]).await;

    key.expect(0, &["disable", "k-000002"]).await;
    let all = key.json(0, &["rewrap", "--all", "--kms-key-arn", &second]).await;
    assert_eq!((&all["rewrapped"], &all["already_there"]), (&json!(11), &json!(1)));
    assert_eq!(all["still_under_other_kms_keys"], 0);
    let again = key.expect(0, &["rewrap", "--all", "--kms-key-arn", &second]).await;
    assert!(again.contains("re-wrapped 0"), "{again}");

    // The rotation is done once the old KMS key denies Decrypt, and then nothing needs it any more.
    let nobody = dedicated_key_policy(ADMINISTRATOR_ARN, PARENT_ARN, &[]);
    it.stack.control.put_policy(&it.stack.kms_key, &nobody).await.expect("denied");
    for key_id in ["k-000001", "k-000003", "k-000012"] {
        key.expect(0, &[&["sign", key_id], &SIGN[..]].concat()).await;
    }
    let state: Value = key.json(0, &["show", "k-000002"]).await;
    assert_eq!(state["state"], "disabled", "re-wrap changes no state");
}

#[tokio::test]
async fn a_damaged_record_is_named_and_keeps_no_other_from_being_rewrapped() {
    let (it, second) = two_kms_keys().await;
    let key = Key::of(&it.stack.url);
    key.expect(0, &["create", "--count", "5", "--prefix", "k-", "--algorithm", "ed25519"]).await;
    std::fs::write(it.stack.directory().join("keys/k-000003.json"), "{").expect("written");
    let listed = key.run(&["list"]).await;
    assert_eq!(listed.status.code(), Some(1), "{}", said(&listed));
    assert!(said(&listed).contains("damaged: k-000003"), "{}", said(&listed));
    let all = key.json(1, &["rewrap", "--all", "--kms-key-arn", &second]).await;
    assert_eq!((&all["rewrapped"], &all["damaged"]), (&json!(4), &json!(["k-000003"])));
    key.expect(0, &[&["sign", "k-000005"], &SIGN[..]].concat()).await;
}

/// Killed twice and interrupted once, each time in the middle: every key is under one of the two KMS keys and signs.
#[tokio::test]
async fn a_rewrap_of_all_keys_that_ends_anywhere_is_gone_on_with() {
    let (it, second) = two_kms_keys().await;
    let key = Key::of(&it.stack.url);
    key.expect(0, &["create", "--count", "60", "--prefix", "k-", "--algorithm", "ed25519"]).await;
    let rewrapped = || {
        let ids = (1..=60).map(|number| format!("k-{number:06}"));
        ids.filter(|key_id| it.stored(key_id)["kms_key_arn"] == second.as_str()).count()
    };
    let all = ["rewrap", "--all", "--kms-key-arn", &second];
    for with in [Signal::KILL, Signal::INT, Signal::KILL] {
        let before = rewrapped();
        let mut command = key.command(&[&all[..], &["--rate", "20"]].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        eventually("some keys are re-wrapped", async || rewrapped() >= before + 4).await;
        signal(child.id(), with);
        child.wait().await.expect("it ends");
        assert!(rewrapped() < 60, "it was stopped before its end");
        for key_id in ["k-000001", "k-000030", "k-000060"] {
            it.signs(key_id).await;
        }
    }
    let last = key.json(0, &all).await;
    assert_eq!(
        (&last["failed"], &last["left"], &last["still_under_other_kms_keys"]),
        (&json!([]), &json!(0), &json!(0))
    );
    assert_eq!(rewrapped(), 60);
    for number in 1..=60 {
        let key_id = format!("k-{number:06}");
        assert_eq!(it.stored(&key_id)["generation"], 2, "{key_id} was re-wrapped once");
        it.signs(&key_id).await;
    }
}
