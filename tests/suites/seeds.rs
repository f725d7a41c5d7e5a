//! Seeds over REST: keys at paths below one sealed seed sign under the public keys that are shown for them,
//! where the bound policy allows it and nowhere else.

use std::collections::BTreeSet;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use secp256k1::{Message, PublicKey, ecdsa};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use strongroom_tests::api::Reply;
use strongroom_tests::stack::KmsKeyKind;

use crate::scene::{Scene, assert_problem};

const BIP32: &str = "bip32-secp256k1";
const SLIP10: &str = "slip10-ed25519";

async fn seed(it: &Scene, key_id: &str, algorithm: &str, paths: &[&str], hold_seconds: u32) -> Value {
    let policy = json!({ "payloads": ["message"], "paths": paths, "hold_seconds": hold_seconds });
    it.create_with(json!({ "key_id": key_id, "algorithm": algorithm, "policy": policy })).await.body
}

async fn derived(it: &Scene, key_id: &str, path: &str) -> Reply {
    let path = path.replace('\'', "%27");
    it.api.get(&format!("/v1/keys/{key_id}/public-key?path={path}")).await.expect("a reply")
}

async fn sign(it: &Scene, key_id: &str, path: Option<&str>, hash: Option<&str>) -> Reply {
    let mut payload = json!({ "type": "message", "message": "0x6869" });
    if let Some(hash) = hash {
        payload["hash"] = hash.into();
    }
    it.api.sign(key_id, json!({ "payload": payload, "path": path })).await.expect("a reply")
}

/// The key at this path signs, and what it signs holds under the public key that is shown for the path.
async fn signs_at(it: &Scene, key_id: &str, algorithm: &str, path: &str) -> Vec<u8> {
    let shown = derived(it, key_id, path).await;
    assert_eq!(shown.status.as_u16(), 200, "{path}: {}", shown.body);
    let public_key = shown.bytes("public_key").expect("hex");
    let signed = sign(it, key_id, Some(path), (algorithm == BIP32).then_some("sha256")).await;
    assert_eq!(signed.status.as_u16(), 200, "{path}: {}", signed.body);
    let signature = signed.bytes("signature").expect("hex");
    if algorithm == BIP32 {
        let message = Message::from_digest(Sha256::digest(b"hi").into());
        let signature = ecdsa::Signature::from_compact(&signature).expect("a signature");
        let public_key = PublicKey::from_slice(&public_key).expect("a point");
        ecdsa::verify(&signature, message, &public_key).expect("it verifies");
        assert!(shown.body["addresses"]["ethereum"].as_str().is_some_and(|address| address.starts_with("0x")));
    } else {
        UnparsedPublicKey::new(&ED25519, &public_key).verify(b"hi", &signature).expect("it verifies");
        assert!(shown.body["addresses"]["solana"].is_string());
    }
    public_key
}

#[tokio::test]
async fn keys_below_a_seed_sign_under_their_own_public_keys_also_after_a_restart() {
    let mut it = Scene::start().await;
    for (algorithm, paths, others) in [
        (BIP32, ["m/44'/60'/0'/0/0", "m/44'/60'/0'/0/1", "m/44'/60'/0'"], "m/44'/60'/1'"),
        (SLIP10, ["m/44'/501'/0'/0'", "m/44'/501'/0'/1'", "m/44'/501'/0'"], "m/44'/501'/1'"),
    ] {
        let prefix = paths[2];
        let view = seed(&it, algorithm, algorithm, &[prefix], 0).await;
        assert_eq!((&view["addresses"], &view["policy"]["paths"]), (&json!({}), &json!([prefix])));
        let mut seen = BTreeSet::from([view["public_key"].as_str().expect("hex").to_owned()]);
        for path in paths {
            let public_key = signs_at(&it, algorithm, algorithm, path).await;
            assert!(seen.insert(format!("0x{}", hex::encode(&public_key))), "{path}: each path has a key of its own");
            assert_eq!(
                derived(&it, algorithm, &path.replace('\'', "h")).await.bytes("public_key").ok(),
                Some(public_key)
            );
        }
        assert_problem(&derived(&it, algorithm, others).await, 403, "path-denied");
        it.restart().await.expect("restarted");
        it.stack.wait_ready().await.expect("ready");
        let again = signs_at(&it, algorithm, algorithm, paths[0]).await;
        assert!(seen.contains(&format!("0x{}", hex::encode(again))), "the same seed");
    }
}

#[tokio::test]
async fn a_batch_is_signed_by_the_key_at_its_path() {
    let it = Scene::start().await;
    for (algorithm, hash) in [(BIP32, Some("sha256")), (SLIP10, None)] {
        let path = "m/44'/60'/0'";
        seed(&it, algorithm, algorithm, &[path], 0).await;
        let mut payload = json!({ "type": "message", "message": "0x6869" });
        if let Some(hash) = hash {
            payload["hash"] = hash.into();
        }
        let ask = async |path: Option<&str>| {
            let body = json!({ "payloads": [payload, payload], "path": path });
            it.api.sign_batch(algorithm, body).await.expect("a reply")
        };
        let batch = ask(Some(path)).await;
        assert_eq!(batch.status.as_u16(), 200, "{}", batch.body);
        assert!(batch.body.get("public_key").is_none(), "the seed's own key signed nothing");
        // Both schemes are deterministic; that the single signature verifies is shown above.
        let single = sign(&it, algorithm, Some(path), hash).await;
        for result in batch.body["results"].as_array().expect("results") {
            assert_eq!(result["signature"], single.body["signature"]);
        }
        assert_problem(&ask(None).await, 422, "path-required");
        assert_problem(&ask(Some("m/44'/60'/1'")).await, 403, "path-denied");
    }
}

#[tokio::test]
async fn where_no_key_may_be_used_none_is() {
    let it = Scene::start().await;
    seed(&it, "b", BIP32, &["m/44'/60'", "m/7"], 0).await;
    seed(&it, "s", SLIP10, &["m/44'"], 0).await;
    it.create("plain").await;
    let calls = it.calls().await;
    let long = format!("m/44'/60'{}", "/0".repeat(9));
    for (name, key_id, path, status, slug) in [
        ("master", "b", Some("m"), 403, "path-denied"),
        ("above_the_prefix", "b", Some("m/44'"), 403, "path-denied"),
        ("beside_the_prefix", "b", Some("m/44'/600'/0"), 403, "path-denied"),
        ("not_hardened_as_the_prefix_is", "b", Some("m/44'/60/0"), 403, "path-denied"),
        ("no_path", "b", None, 422, "path-required"),
        ("ed25519_step_that_is_not_hardened", "s", Some("m/44'/0"), 422, "path-invalid"),
        ("path_of_a_plain_key", "plain", Some("m/44'"), 422, "path-invalid"),
        ("no_m", "b", Some("44'/60'"), 422, "invalid-request"),
        ("empty_component", "b", Some("m/44'//0"), 422, "invalid-request"),
        ("index_of_2_to_the_31", "b", Some("m/7/2147483648"), 422, "invalid-request"),
        ("leading_zero", "b", Some("m/7/01"), 422, "invalid-request"),
        ("negative", "b", Some("m/7/-1"), 422, "invalid-request"),
        ("eleven_deep", "b", Some(&long), 422, "invalid-request"),
    ] {
        let hash = (key_id == "b").then_some("sha256");
        let reply = sign(&it, key_id, path, hash).await;
        assert_eq!((reply.status.as_u16(), reply.problem()), (status, slug), "{name}: {}", reply.body);
        if let Some(path) = path {
            assert_problem(&derived(&it, key_id, path).await, status, slug);
        }
    }
    assert_eq!(it.calls().await, calls, "KMS was not asked");
}

#[tokio::test]
async fn a_policy_that_does_not_fit_its_algorithm_makes_no_key() {
    let it = Scene::start().await;
    let many: Vec<String> = (0..33).map(|n| format!("m/{n}")).collect();
    for (name, algorithm, paths) in [
        ("seed_without_paths", BIP32, json!([])),
        ("plain_key_with_paths", "secp256k1", json!(["m/0"])),
        ("ed25519_path_that_is_not_hardened", SLIP10, json!(["m/44'/0"])),
        ("path_twice", BIP32, json!(["m/0'", "m/0h"])),
        ("no_path_at_all", BIP32, json!(["44'"])),
        ("too_many", BIP32, json!(many)),
        ("numbers", BIP32, json!([[44]])),
    ] {
        let policy = json!({ "payloads": ["message"], "paths": paths });
        let reply = it.try_create(json!({ "key_id": "a", "algorithm": algorithm, "policy": policy })).await;
        assert_eq!((reply.status.as_u16(), reply.problem()), (422, "invalid-request"), "{name}: {}", reply.body);
    }
    let without = it.try_create(json!({ "key_id": "a", "algorithm": BIP32 })).await;
    assert_problem(&without, 422, "invalid-request");
    assert_problem(&it.api.get("/v1/keys/a").await.expect("a reply"), 404, "key-not-found");
}

#[tokio::test]
async fn a_held_seed_gives_many_addresses_for_one_kms_call() {
    let it = Scene::start().await;
    seed(&it, "held", BIP32, &["m/44'/60'/0'"], 60).await;
    let calls = it.calls().await;
    let mut addresses = BTreeSet::new();
    for n in 0..200 {
        let reply = derived(&it, "held", &format!("m/44'/60'/0'/0/{n}")).await;
        addresses.insert(reply.body["addresses"]["ethereum"].as_str().expect("an address").to_owned());
    }
    signs_at(&it, "held", BIP32, "m/44'/60'/0'/0/7").await;
    assert_eq!(addresses.len(), 200);
    assert_eq!(it.outcomes_after(calls).await, ["Decrypt Success"]);
}

#[tokio::test]
async fn a_seed_stays_the_same_under_another_kms_key() {
    let it = Scene::planned(|plan| {
        plan.kms_keys = vec![KmsKeyKind::SingleRegion; 2];
        plan.configuration.insert("operations".to_owned(), json!(["generate", "sign", "rewrap"]));
    })
    .await;
    seed(&it, "a", SLIP10, &["m"], 0).await;
    let before = signs_at(&it, "a", SLIP10, "m/44'/501'").await;
    let rewrap = it.api.post("/v1/keys/a/rewrap", json!({ "kms_key_arn": it.stack.kms_keys[1] })).await;
    assert_eq!(rewrap.expect("a reply").status.as_u16(), 200);
    assert_eq!(signs_at(&it, "a", SLIP10, "m/44'/501'").await, before);
}

#[tokio::test]
async fn wider_paths_in_the_stored_policy_open_nothing() {
    let it = Scene::start().await;
    seed(&it, "a", BIP32, &["m/44'/60'/0'"], 60).await;
    signs_at(&it, "a", BIP32, "m/44'/60'/0'/0/0").await;
    it.tamper("a", |record| record["policy"]["paths"] = json!(["m"]));
    assert_problem(&sign(&it, "a", Some("m/44'/60'/1'"), Some("sha256")).await, 502, "record-refused");
    assert_problem(&derived(&it, "a", "m/44'/60'/1'").await, 502, "record-refused");
}
