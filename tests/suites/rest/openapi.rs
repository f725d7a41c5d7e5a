//! `/openapi.json`: valid by its standard, every documented call answers, and replies have the documented
//! status, media type and form. Judged in Python (`tests/check_openapi.py`).

use serde_json::{Value, json};
use strongroom_tests::api::{Api, Reply};
use strongroom_tests::scripts;

use super::{OPEN, assert_ok, header, with_key};
use crate::custody;
use crate::scene::Scene;

async fn complaints(document: &Value, replies: &[Value]) -> String {
    let input = json!({ "document": document, "replies": replies });
    scripts::run("check_openapi.py", &input.to_string()).await.expect("the script runs")
}

/// A reply as the script takes it.
fn judged(method: &str, path: &str, reply: &Reply) -> Value {
    let media_type = header(reply, "content-type").split(';').next().unwrap_or_default();
    json!({
        "method": method, "path": path, "status": reply.status.as_u16(), "media_type": media_type, "body": reply.body,
    })
}

#[tokio::test]
async fn every_documented_call_answers_in_the_documented_form() {
    let (scene, api) = OPEN.enter().await;
    with_key(&api, "contract", "secp256k1").await;
    with_key(&api, "contract-2", "ed25519").await;
    let contract = api.get("/openapi.json").await.expect("a reply");
    assert_ok("openapi.json", &contract);
    let document = contract.body.clone();

    let mut replies = vec![judged("get", "/openapi.json", &contract)];
    for (documented, path) in [
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
        ("/v1/keys", "/v1/keys"),
        ("/v1/keys", "/v1/keys?limit=1"),
        ("/v1/keys", "/v1/keys?limit=0"),
        ("/v1/keys/{key_id}", "/v1/keys/contract"),
        ("/v1/keys/{key_id}", "/v1/keys/contract-2"),
        ("/v1/keys/{key_id}", "/v1/keys/unknown"),
        ("/v1/keys/{key_id}", "/v1/keys/..a"),
        ("/v1/attestation", "/v1/attestation?nonce=0x00"),
        ("/v1/attestation", "/v1/attestation"),
        ("/v1/keys/{key_id}/attestation", "/v1/keys/contract/attestation?nonce=0x00"),
        ("/v1/keys/{key_id}/attestation", "/v1/keys/unknown/attestation?nonce=0x00"),
    ] {
        replies.push(judged("get", documented, &api.get(path).await.expect("a reply")));
    }
    for body in [
        json!({ "key_id": "contract-3", "algorithm": "ed25519" }),
        json!({ "key_id": "contract", "algorithm": "ed25519" }),
        json!({ "key_id": "contract-4" }),
    ] {
        replies.push(judged("post", "/v1/keys", &api.post("/v1/keys", body).await.expect("a reply")));
    }
    let message = json!({ "type": "message", "message": "00", "hash": "sha256" });
    for (key_id, scheme) in
        [("contract", "ecdsa"), ("contract", "bip340"), ("contract-2", "ecdsa"), ("unknown", "ecdsa")]
    {
        let reply = api.sign(key_id, json!({ "payload": message, "scheme": scheme })).await.expect("a reply");
        replies.push(judged("post", "/v1/keys/{key_id}/sign", &reply));
    }
    for (key_id, payloads, path) in [
        ("contract", json!([message, { "type": "message", "message": "00" }]), None),
        ("contract-2", json!([message, { "type": "message", "message": "00" }]), None),
        ("contract", json!([]), None),
        ("contract", json!([message]), Some("m/0")),
        ("unknown", json!([message]), None),
    ] {
        let body = json!({ "payloads": payloads, "path": path });
        let reply = api.sign_batch(key_id, body).await.expect("a reply");
        replies.push(judged("post", "/v1/keys/{key_id}/sign-batch", &reply));
    }
    replies.extend(changes(&scene, &api).await);
    replies.extend(seeds(&api).await);
    replies.extend(custody::replies().await.iter().map(|(path, reply)| judged("post", path, reply)));
    assert_eq!(complaints(&document, &replies).await, "");

    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("operations").keys() {
            let called = replies.iter().any(|reply| reply["path"] == *path && reply["method"] == *method);
            assert!(called, "no call here was {method} {path}");
        }
    }
}

/// A seed, and keys below it.
async fn seeds(api: &Api) -> Vec<Value> {
    let policy = json!({ "payloads": ["message"], "paths": ["m/44'"] });
    let create = json!({ "key_id": "contract-6", "algorithm": "slip10-ed25519", "policy": policy });
    let mut replies = vec![judged("post", "/v1/keys", &api.post("/v1/keys", create).await.expect("a reply"))];
    for path in ["m/44h/501h", "m/45h", "m/44h/0", "44h"] {
        let url = format!("/v1/keys/contract-6/public-key?path={path}");
        replies.push(judged("get", "/v1/keys/{key_id}/public-key", &api.get(&url).await.expect("a reply")));
        let body = json!({ "payload": { "type": "message", "message": "00" }, "path": path });
        let reply = api.sign("contract-6", body).await.expect("a reply");
        replies.push(judged("post", "/v1/keys/{key_id}/sign", &reply));
    }
    replies
}

/// Every change of a key that there is, and some that are refused.
async fn changes(scene: &Scene, api: &Api) -> Vec<Value> {
    with_key(api, "contract-5", "ed25519").await;
    let mut replies = Vec::new();
    for (name, body) in [
        ("enable", json!({ "generation": 7 })),
        ("disable", json!({})),
        ("enable", json!({ "generation": 2 })),
        ("rewrap", json!({ "kms_key_arn": scene.stack.kms_key })),
        ("cancel-deletion", json!({})),
        ("schedule-deletion", json!({ "waiting_days": 31 })),
        ("schedule-deletion", json!({ "waiting_days": 7 })),
        ("sign", json!({ "payload": { "type": "message", "message": "00" } })),
        ("cancel-deletion", json!({})),
        ("schedule-deletion", json!({})),
    ] {
        let reply = api.post(&format!("/v1/keys/contract-5/{name}"), body).await.expect("a reply");
        replies.push(judged("post", &format!("/v1/keys/{{key_id}}/{name}"), &reply));
    }
    let delete = async || {
        let reply = api.delete("/v1/keys/contract-5").await.expect("a reply");
        judged("delete", "/v1/keys/{key_id}", &reply)
    };
    replies.push(delete().await);
    scene.tamper("contract-5", |record| record["deletion_date"] = "2020-01-01T00:00:00Z".into());
    replies.push(judged("get", "/v1/keys", &api.get("/v1/keys").await.expect("a reply")));
    replies.push(delete().await);
    assert_eq!(replies.last().map(|reply| reply["status"] == 204), Some(true));
    replies
}

/// The control: the script complains.
#[tokio::test]
async fn what_is_not_documented_is_complained_about() {
    let (_scene, api) = OPEN.enter().await;
    let document = api.get("/openapi.json").await.expect("a reply").body;
    let mut alive = json!({
        "method": "get", "path": "/healthz", "status": 200, "media_type": "application/json", "body": { "status": "alive" },
    });
    assert_eq!(complaints(&document, &[alive.clone()]).await, "");
    for (field, value) in
        [("body", json!({})), ("status", json!(418)), ("path", json!("/metrics")), ("media_type", json!("text/html"))]
    {
        let genuine = std::mem::replace(&mut alive[field], value);
        assert!(!complaints(&document, &[alive.clone()]).await.is_empty(), "{field}");
        alive[field] = genuine;
    }
    let mut broken = document;
    broken["paths"]["/healthz"]["get"]["responses"] = json!([]);
    assert!(complaints(&broken, &[]).await.contains("not OpenAPI 3.1"));
}
