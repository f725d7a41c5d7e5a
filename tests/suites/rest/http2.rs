//! HTTP/2, by nghttp2: many requests at one time on one connection, without TLS.

use serde_json::{Value, json};
use strongroom_tests::scripts;

use super::{OPEN, with_key};

async fn ask(question: Value) -> Vec<Value> {
    let answers = scripts::run_node("http2_client.cjs", &question.to_string()).await;
    serde_json::from_str(&answers.expect("answers")).expect("JSON")
}

#[tokio::test]
async fn many_requests_share_a_connection_and_each_has_its_own_answer() {
    let (scene, api) = OPEN.enter().await;
    with_key(&api, "http2", "secp256k1").await;
    let bodies: Vec<_> =
        (0..300).map(|n| json!({ "payload": { "type": "digest", "digest": format!("0x{n:064x}") } })).collect();
    let answers = ask(json!({ "url": scene.stack.url, "path": "/v1/keys/http2/sign", "bodies": bodies })).await;
    assert_eq!(answers.len(), bodies.len());
    for (answer, body) in answers.iter().zip(&bodies) {
        assert_eq!(answer["status"], 200, "{answer}");
        // Deterministic (RFC 6979): over HTTP/1.1 the same payload has the same signature.
        if body["payload"]["digest"].as_str().is_some_and(|digest| digest.ends_with('7')) {
            let alone = api.sign("http2", body.clone()).await.expect("a reply").body;
            assert_eq!(answer["body"]["signature"], alone["signature"]);
        }
    }
}

#[tokio::test]
async fn what_is_refused_over_http_1_1_is_refused_over_http_2() {
    let (scene, api) = OPEN.enter().await;
    with_key(&api, "http2", "secp256k1").await;
    let body = json!({ "payload": { "type": "digest", "digest": format!("0x{}", "11".repeat(32)) } });
    for (name, authority, path, body, status) in [
        ("localhost", "localhost:8080", "/v1/keys/http2/sign", &body, 200),
        // A page whose name points here (DNS rebinding).
        ("rebound", "example.org", "/v1/keys/http2/sign", &body, 403),
        ("another_key", "localhost", "/v1/keys/nobody/sign", &body, 404),
        ("unknown_field", "localhost", "/v1/keys/http2/sign", &json!({ "load": 1 }), 422),
    ] {
        let url = &scene.stack.url;
        let answers = ask(json!({ "url": url, "authority": authority, "path": path, "bodies": [body] })).await;
        assert_eq!(answers[0]["status"], status, "{name}: {}", answers[0]);
    }
}

/// Whatever is answered before its body is read.
#[tokio::test]
async fn a_connection_outlives_its_refusals() {
    let (scene, _) = OPEN.enter().await;
    let bodies = vec![json!({ "load": "x".repeat(1_000) }); 1_500];
    for (authority, path, status) in [
        ("example.org", "/v1/keys/http2/sign", 403),
        ("localhost", "/v1/keys/%C3%A4/sign", 422),
        ("localhost", "/nowhere", 404),
        ("localhost", "/v1/keys/http2", 405),
    ] {
        let url = &scene.stack.url;
        let answers = ask(json!({ "url": url, "authority": authority, "path": path, "bodies": bodies })).await;
        assert_eq!(answers.len(), bodies.len());
        assert!(answers.iter().all(|answer| answer["status"] == status), "{path}: {}", answers[0]);
    }
}
