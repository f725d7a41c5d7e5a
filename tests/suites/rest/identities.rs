//! Who may do what: tokens, operations and patterns; and that a refusal tells nothing about keys.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use strongroom_tests::api::{Api, Reply};
use strongroom_tests::stack::Plan;

use super::wire::Wire;
use super::{assert_ok, assert_problem, header};
use crate::scene::Scene;
use crate::shared::SharedScene;

static GUARDED: SharedScene = SharedScene::new(guard);

/// name, operations, patterns
const IDENTITIES: [(&str, &str, &str); 6] = [
    ("everything", r#""read", "sign", "manage""#, r#""*""#),
    ("reader", r#""read""#, r#""*""#),
    ("hot-reader", r#""read""#, r#""hot-*""#),
    ("hot-signer", r#""sign""#, r#""hot-*", "warm""#),
    ("hot-manager", r#""manage""#, r#""hot-*""#),
    ("nobody", "", r#""*""#),
];

fn guard(plan: &mut Plan) {
    for (name, operations, keys) in IDENTITIES {
        let hash = hex::encode(Sha256::digest(token(name)));
        plan.parent_toml += &format!(
            "[[identities]]\nname = \"{name}\"\ntoken_sha256 = \"{hash}\"\noperations = [{operations}]\nkeys = [{keys}]\n"
        );
    }
}

fn token(name: &str) -> String {
    format!("srt_token-of-{name}")
}

/// Callers on the shared stack, with the keys `hot-1`, `warm` and `cold` in it.
async fn enter() -> (Arc<Scene>, Api) {
    let (scene, api) = GUARDED.enter().await;
    let everything = api.with_token(&token("everything"));
    for key_id in ["hot-1", "warm", "cold"] {
        let created = everything.post("/v1/keys", json!({ "key_id": key_id, "algorithm": "ed25519" })).await;
        assert!([201, 409].contains(&created.expect("a reply").status.as_u16()));
    }
    (scene, api)
}

async fn sign(api: &Api, key_id: &str) -> Reply {
    api.sign(key_id, json!({ "payload": { "type": "message", "message": "00" } })).await.expect("a reply")
}

#[tokio::test]
async fn without_a_known_token_nothing_under_v1_is_served() {
    let (_scene, api) = enter().await;
    for name in [None, Some("srt_unknown"), Some("x"), Some("srt_token-of-nobod"), Some("srt_token-of-nobody\u{20}x")] {
        let caller = name.map_or_else(|| api.clone(), |token| api.with_token(token));
        for path in [
            "/v1/keys",
            "/v1/keys/hot-1",
            "/v1/keys/unknown",
            "/v1/keys/..a",
            "/v1/keys/hot-1/attestation",
            "/v1/attestation",
        ] {
            let reply = caller.get(path).await.expect("a reply");
            assert_problem(path, &reply, 401, "unauthorized");
            assert!(header(&reply, "www-authenticate").starts_with("Bearer"), "{path}");
        }
        assert_problem("sign", &sign(&caller, "hot-1").await, 401, "unauthorized");
        for path in ["/v1/keys", "/v1/import-keys", "/v1/keys/a/import", "/v1/keys/a/adopt", "/v1/keys/hot-1/export"] {
            let reply = caller.post(path, json!("not even an object")).await.expect("a reply");
            assert_problem(path, &reply, 401, "unauthorized");
        }
    }
}

/// Whoever may not manage a key neither brings one under its name nor takes it away, and is told before the body is
/// looked at.
#[tokio::test]
async fn custody_is_for_those_who_may_manage_the_key() {
    let (_scene, api) = enter().await;
    let post = async |name: &str, path: &str| {
        api.with_token(&token(name)).post(path, json!("not even an object")).await.expect("a reply")
    };
    for call in ["import", "adopt", "export"] {
        for (name, key_id) in [
            ("reader", "hot-1"),
            ("hot-signer", "hot-1"),
            ("hot-manager", "cold"),
            ("hot-manager", "unknown"),
            ("nobody", "hot-1"),
        ] {
            let reply = post(name, &format!("/v1/keys/{key_id}/{call}")).await;
            assert_problem(&format!("{name} {call} {key_id}"), &reply, 403, "forbidden");
        }
        for name in ["hot-manager", "everything"] {
            let reply = post(name, &format!("/v1/keys/hot-1/{call}")).await;
            assert_problem(&format!("{name} {call}"), &reply, 422, "invalid-request");
        }
    }
    for name in ["reader", "hot-signer", "nobody"] {
        assert_problem(name, &post(name, "/v1/import-keys").await, 403, "forbidden");
    }
    assert_problem("hot-manager", &post("hot-manager", "/v1/import-keys").await, 422, "invalid-request");
}

#[tokio::test]
async fn other_schemes_and_hashes_are_no_tokens() {
    let (scene, _) = enter().await;
    let wire = Wire::of(&scene.stack.url);
    let hash = hex::encode(Sha256::digest(token("everything")));
    let good = token("everything");
    for line in [
        "authorization: ".to_owned(),
        "authorization: Bearer".to_owned(),
        "authorization: Bearer ".to_owned(),
        format!("authorization: {good}"),
        format!("authorization: Basic {good}"),
        format!("authorization: Bearer {hash}"),
        format!("authorization: Bearer \"{good}\""),
        format!("authorization: Bearer {good}, Bearer {good}"),
        format!("x-api-key: {good}"),
        format!("cookie: token={good}"),
    ] {
        assert_problem(&line, &wire.call_with("GET", "/v1/keys", &[&line]).await, 401, "unauthorized");
    }
    let in_query = wire.call("GET", &format!("/v1/keys?access_token={good}")).await;
    assert_problem("query", &in_query, 401, "unauthorized");
    for line in [format!("authorization: Bearer {good}"), format!("AUTHORIZATION: bearer   {good}")] {
        assert_ok(&line, &wire.call_with("GET", "/v1/keys", &[&line]).await);
    }
}

#[tokio::test]
async fn two_authorizations_are_none() {
    let (scene, _) = enter().await;
    let wire = Wire::of(&scene.stack.url);
    let line = |name: &str| format!("authorization: Bearer {}", token(name));
    // Whichever of them a proxy in front has looked at.
    for (first, second) in [("everything", "nobody"), ("nobody", "everything"), ("everything", "everything")] {
        let reply = wire.call_with("GET", "/v1/keys", &[&line(first), &line(second)]).await;
        assert_problem(first, &reply, 401, "unauthorized");
    }
}

#[tokio::test]
async fn probes_and_the_contract_need_no_token() {
    let (_scene, api) = enter().await;
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_ok(path, &api.get(path).await.expect("a reply"));
    }
}

#[tokio::test]
async fn an_identity_performs_its_operations_and_no_others() {
    let (_scene, api) = enter().await;
    let create = json!({ "key_id": "hot-1", "algorithm": "ed25519" });
    for (name, reads, signs, manages) in [
        ("everything", 200, 200, 409),
        ("reader", 200, 403, 403),
        ("hot-reader", 200, 403, 403),
        ("hot-signer", 403, 200, 403),
        ("hot-manager", 403, 403, 409),
        ("nobody", 403, 403, 403),
    ] {
        let caller = api.with_token(&token(name));
        for path in ["/v1/keys", "/v1/keys/hot-1", "/v1/attestation?nonce=00", "/v1/keys/hot-1/attestation?nonce=00"] {
            let reply = caller.get(path).await.expect("a reply");
            assert_eq!(reply.status.as_u16(), reads, "{name} {path}: {}", reply.body);
            if reads == 403 {
                assert_problem(path, &reply, 403, "forbidden");
            }
        }
        assert_eq!(sign(&caller, "hot-1").await.status.as_u16(), signs, "{name} signs");
        let batch = json!({ "payloads": [{ "type": "message", "message": "00" }] });
        let batch = caller.sign_batch("hot-1", batch).await.expect("a reply");
        assert_eq!(batch.status.as_u16(), signs, "{name} signs a batch");
        let created = caller.post("/v1/keys", create.clone()).await.expect("a reply");
        assert_eq!(created.status.as_u16(), manages, "{name} creates: {}", created.body);
    }
}

#[tokio::test]
async fn outside_its_patterns_a_caller_does_not_learn_which_keys_exist() {
    let (_scene, api) = enter().await;
    let reader = api.with_token(&token("hot-reader"));
    let signer = api.with_token(&token("hot-signer"));
    let manager = api.with_token(&token("hot-manager"));
    let mut refusals = Vec::new();
    for key_id in ["cold", "unknown", "Hot-1", "xhot-1", "hot"] {
        refusals.push(reader.get(&format!("/v1/keys/{key_id}")).await.expect("a reply"));
        refusals.push(reader.get(&format!("/v1/keys/{key_id}/attestation?nonce=00")).await.expect("a reply"));
        refusals.push(sign(&signer, key_id).await);
        let create = json!({ "key_id": key_id, "algorithm": "ed25519" });
        refusals.push(manager.post("/v1/keys", create).await.expect("a reply"));
    }
    let told = |reply: &Reply| {
        let mut body = reply.body.clone();
        body["instance"] = Value::Null;
        body
    };
    for refusal in &refusals {
        assert_problem("outside", refusal, 403, "forbidden");
        assert_eq!(told(refusal), told(&refusals[0]));
    }
    assert_ok("the second pattern", &sign(&signer, "warm").await);
    assert_problem("inside", &reader.get("/v1/keys/hot-unknown").await.expect("a reply"), 404, "key-not-found");
}

#[tokio::test]
async fn who_may_not_is_told_before_the_body_is_looked_at() {
    let (_scene, api) = enter().await;
    let reader = api.with_token(&token("reader"));
    for path in ["/v1/keys", "/v1/keys/hot-1/sign", "/v1/keys/hot-1/sign-batch"] {
        let request = reader.request(reqwest::Method::POST, path).body("neither JSON nor said to be");
        assert_problem(path, &Reply::to(request).await.expect("a reply"), 403, "forbidden");
    }
}

#[tokio::test]
async fn a_list_shows_the_callers_own_keys_only() {
    let (_scene, api) = enter().await;
    for (name, seen, hidden) in
        [("reader", vec!["hot-1", "warm", "cold"], vec![]), ("hot-reader", vec!["hot-1"], vec!["warm", "cold"])]
    {
        let caller = api.with_token(&token(name));
        for query in ["", "?limit=1", "?limit=2"] {
            let ids = list(&caller, query).await;
            assert!(seen.iter().all(|id| ids.iter().any(|found| found == id)), "{name}{query}: {ids:?}");
            assert!(!hidden.iter().any(|id| ids.iter().any(|found| found == id)), "{name}{query}: {ids:?}");
        }
    }
}

/// Every page, and no cursor that names a key which is not shown.
async fn list(caller: &Api, query: &str) -> Vec<String> {
    let (mut ids, mut path) = (Vec::new(), format!("/v1/keys{query}"));
    loop {
        let page = caller.get(&path).await.expect("a reply");
        assert_ok(&path, &page);
        ids.extend(
            page.body["keys"]
                .as_array()
                .expect("keys")
                .iter()
                .map(|key| key["key_id"].as_str().expect("id").to_owned()),
        );
        match page.body.get("next_cursor").and_then(Value::as_str) {
            Some(cursor) => {
                assert!(ids.iter().any(|id| id == cursor), "the cursor {cursor} names another's key");
                path = format!("/v1/keys?limit=1&cursor={cursor}");
            }
            None => return ids,
        }
    }
}
