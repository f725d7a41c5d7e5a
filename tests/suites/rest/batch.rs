//! Many payloads in one request: a result for each, in order, whatever becomes of the others. That the signatures are
//! good is the suite `independent`'s matter, that they cost one unlock `kms_calls`'s.

use reqwest::Method;
use secp256k1::{Message, PublicKey, ecdsa};
use serde_json::{Value, json};
use strongroom_tests::api::{Api, Reply};

use super::{OPEN, assert_ok, assert_problem, with_key};

/// As many as a batch may have.
const MOST: u32 = 10_000;

const MEBIBYTE: usize = 1024 * 1024;

/// A digest that is another for each number.
fn digest(n: u32) -> [u8; 32] {
    let mut digest = [0x5a; 32];
    digest[..4].copy_from_slice(&n.to_be_bytes());
    digest
}

fn digests(count: u32) -> Value {
    (0..count).map(|n| json!({ "type": "digest", "digest": hex::encode(digest(n)) })).collect()
}

async fn batch(api: &Api, key_id: &str, payloads: Value) -> Reply {
    api.sign_batch(key_id, json!({ "payloads": payloads })).await.expect("a reply")
}

async fn batch_raw(api: &Api, key_id: &str, body: String) -> Reply {
    let request = api.request(Method::POST, &format!("/v1/keys/{key_id}/sign-batch"));
    Reply::to(request.header("content-type", "application/json").body(body)).await.expect("a reply")
}

#[track_caller]
fn results(reply: &Reply) -> &[Value] {
    assert_ok("batch", reply);
    reply.body["results"].as_array().expect("results")
}

/// The slug of a payload that was not signed; empty if it was.
fn slug(result: &Value) -> &str {
    result["error"]["type"].as_str().and_then(|kind| kind.strip_prefix("urn:strongroom:problem:")).unwrap_or_default()
}

#[tokio::test]
async fn ten_thousand_digests_have_their_signatures_in_order() {
    let (_scene, api) = OPEN.enter().await;
    let key = with_key(&api, "batch-most", "secp256k1").await;
    let reply = batch(&api, "batch-most", digests(MOST)).await;
    assert_eq!(reply.body["public_key"], key["public_key"]);
    let results = results(&reply);
    assert_eq!(results.len(), MOST as usize);
    let bytes = |value: &Value| hex::decode(value.as_str().expect("hex").strip_prefix("0x").expect("0x")).expect("hex");
    let public_key = PublicKey::from_slice(&bytes(&key["public_key"])).expect("a point");
    for (n, result) in (0..MOST).zip(results) {
        let signature = ecdsa::Signature::from_compact(&bytes(&result["signature"])).expect("a signature");
        ecdsa::verify(&signature, Message::from_digest(digest(n)), &public_key).expect("the signature of this digest");
        assert!([json!(0), json!(1)].contains(&result["recovery_id"]), "{result}");
    }
}

#[tokio::test]
async fn a_batch_has_one_to_ten_thousand_payloads() {
    let (_scene, api) = OPEN.enter().await;
    with_key(&api, "batch-number", "secp256k1").await;
    for (name, payloads) in [
        ("none", json!([])),
        ("one_too_many", digests(MOST + 1)),
        ("many_too_many", digests(5 * MOST)),
        ("an_object", json!({ "type": "digest", "digest": hex::encode(digest(0)) })),
        ("null", Value::Null),
    ] {
        assert_problem(name, &batch(&api, "batch-number", payloads).await, 422, "invalid-request");
    }
    assert_eq!(results(&batch(&api, "batch-number", digests(1)).await).len(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_one_payload_leaves_the_others_their_signatures_and_places() {
    let (_scene, api) = OPEN.enter().await;
    with_key(&api, "batch-mixed", "secp256k1").await;
    with_key(&api, "batch-mixed-ed25519", "ed25519").await;
    let create = json!({ "key_id": "batch-messages", "algorithm": "secp256k1" });
    assert_eq!(api.post("/v1/keys", create).await.expect("a reply").status.as_u16(), 201, "messages only");

    let message = |n: u32| json!({ "type": "message", "message": format!("{n:08x}") });
    let hashed = |n: u32| json!({ "type": "message", "message": format!("{n:08x}"), "hash": "keccak256" });
    let digest = |n: u32| json!({ "type": "digest", "digest": hex::encode(digest(n)) });
    for (key_id, payloads, slugs) in [
        (
            "batch-mixed",
            vec![message(0), hashed(1), digest(2), message(3), message(4), digest(5)],
            ["invalid-request", "", "", "invalid-request", "invalid-request", ""],
        ),
        (
            "batch-mixed-ed25519",
            vec![message(0), hashed(1), digest(2), message(3), message(4), digest(5)],
            ["", "invalid-request", "invalid-request", "", "", "invalid-request"],
        ),
        (
            "batch-messages",
            vec![message(0), hashed(1), digest(2), hashed(3), hashed(4), digest(5)],
            ["invalid-request", "", "policy-denied", "", "", "policy-denied"],
        ),
        ("batch-messages", (0..6).map(digest).collect(), ["policy-denied"; 6]),
    ] {
        let reply = batch(&api, key_id, payloads.clone().into()).await;
        let results = results(&reply);
        assert_eq!(results.iter().map(slug).collect::<Vec<_>>(), slugs, "{key_id}: {}", reply.body);
        // The same as alone: every scheme here is deterministic.
        for (result, payload) in results.iter().zip(payloads) {
            let alone = api.sign(key_id, json!({ "payload": payload })).await.expect("a reply");
            if slug(result).is_empty() {
                assert_eq!(result["signature"], alone.body["signature"], "{key_id}");
                assert_eq!(result.get("recovery_id"), alone.body.get("recovery_id"), "{key_id}");
            } else {
                for member in ["type", "title", "status", "detail"] {
                    assert_eq!(result["error"][member], alone.body[member], "{key_id} {member}");
                }
                assert_eq!(result["error"]["instance"], reply.body["request_id"], "{key_id}");
                assert_eq!(result.as_object().map(serde_json::Map::len), Some(1), "{key_id}: {result}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_request_is_no_result() {
    let (scene, api) = OPEN.enter().await;
    with_key(&api, "batch-whole", "secp256k1").await;
    with_key(&api, "batch-off", "secp256k1").await;
    scene.tamper("batch-off", |record| record["state"] = "disabled".into());
    let payload = json!({ "type": "message", "message": "00", "hash": "sha256" });
    for (name, key_id, body, status, slug) in [
        ("unknown_key", "unknown", json!({ "payloads": [payload] }), 404, "key-not-found"),
        ("disabled_key", "batch-off", json!({ "payloads": [payload] }), 403, "key-disabled"),
        ("scheme", "batch-whole", json!({ "payloads": [payload], "scheme": "ed25519" }), 422, "invalid-request"),
        ("unknown_scheme", "batch-whole", json!({ "payloads": [payload], "scheme": "p256" }), 422, "invalid-request"),
        ("path", "batch-whole", json!({ "payloads": [payload], "path": "m/0" }), 422, "path-invalid"),
        ("single", "batch-whole", json!({ "payload": payload }), 422, "invalid-request"),
        ("both", "batch-whole", json!({ "payload": payload, "payloads": [payload] }), 422, "invalid-request"),
        (
            "a_path_each",
            "batch-whole",
            json!({ "payloads": [{ "payload": payload, "path": "m" }] }),
            422,
            "invalid-request",
        ),
    ] {
        let reply = api.sign_batch(key_id, body).await.expect("a reply");
        assert_problem(name, &reply, status, slug);
    }
    // One that is no payload: nothing is signed, and its place is told.
    let payloads = json!([payload, payload, { "type": "digest", "digest": "00" }, payload]);
    let reply = batch(&api, "batch-whole", payloads).await;
    assert_problem("short_digest", &reply, 422, "invalid-request");
    assert!(reply.text("detail").starts_with("payloads[2]: digest: must have 32 bytes, not 1"), "{}", reply.body);
    let twice = r#"{"payloads":[{"type":"message","message":"00","hash":"sha256"}],"payloads":[]}"#;
    assert_problem("twice", &batch_raw(&api, "batch-whole", twice.to_owned()).await, 422, "invalid-request");
}

#[tokio::test]
async fn a_batch_has_eight_mebibytes_and_other_bodies_have_not() {
    let (_scene, api) = OPEN.enter().await;
    with_key(&api, "batch-large", "ed25519").await;
    // Seven messages of half a mebibyte, and white space up to the limit.
    let message = format!(r#"{{"type":"message","message":"{}"}}"#, "5a".repeat(MEBIBYTE / 2));
    let mut body = format!(r#"{{"payloads":[{}]}}"#, [message.as_str(); 7].join(","));
    body.extend(std::iter::repeat_n(' ', 8 * MEBIBYTE - body.len()));
    let reply = batch_raw(&api, "batch-large", body.clone()).await;
    assert!(results(&reply).len() == 7 && results(&reply).iter().all(|result| slug(result).is_empty()));
    let request = api.request(Method::POST, "/v1/keys/batch-large/sign");
    let single = Reply::to(request.header("content-type", "application/json").body(" ".repeat(2 * MEBIBYTE + 1))).await;
    assert_problem("single", &single.expect("a reply"), 413, "body-too-large");
    body.push(' ');
    assert_problem("one_byte_more", &batch_raw(&api, "batch-large", body.clone()).await, 413, "body-too-large");
    body.extend(std::iter::repeat_n(' ', MEBIBYTE - 1));
    assert_problem("a_mebibyte_more", &batch_raw(&api, "batch-large", body).await, 413, "body-too-large");
    assert_ok("afterwards", &batch(&api, "batch-large", json!([{ "type": "message", "message": "" }])).await);
}

/// Ten thousand messages that fill a body, and are then a little more than the enclave takes in one frame.
#[tokio::test]
async fn more_than_a_frame_takes_is_too_large_and_said_to_be() {
    let (_scene, api) = OPEN.enter().await;
    with_key(&api, "batch-frame", "ed25519").await;
    let body = |length: usize| {
        let message = format!(r#"{{"type":"message","message":"{}"}}"#, "5a".repeat(length));
        format!(r#"{{"payloads":[{}]}}"#, vec![message.as_str(); MOST as usize].join(","))
    };
    assert!(body(402).len() < 8 * MEBIBYTE);
    let reply = batch_raw(&api, "batch-frame", body(402)).await;
    assert_problem("frame", &reply, 413, "body-too-large");
    assert!(reply.text("detail").contains("4194304"), "{}", reply.body);
    let reply = batch_raw(&api, "batch-frame", body(390)).await;
    assert_eq!(results(&reply).len(), MOST as usize);
}
