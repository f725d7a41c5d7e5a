//! A client that shares no code with the server: Python's ssl, which is OpenSSL.

use std::fs;

use serde_json::{Value, json};
use strongroom_tests::pki::{TLS_ROOT_FILE, TlsPair};
use strongroom_tests::scripts;

use super::{REQUIRED, address, keeper, pki};
use crate::scene::Scene;

async fn ask(scene: &Scene, pair: Option<&TlsPair>, version: &str) -> Value {
    let pki = pki(scene);
    // Under a name of its own: the scene is shared.
    let file = pki.directory().join(format!("python-{version}-{}.pem", pair.is_some()));
    let certificate = pair.map(|TlsPair { certificate, key }| {
        fs::write(&file, format!("{certificate}{key}")).expect("written");
        &file
    });
    let question = json!({
        "port": address(scene).port(),
        "name": "localhost",
        "version": version,
        "ca": pki.directory().join("servers").join(TLS_ROOT_FILE),
        "certificate": certificate,
        "path": "/v1/keys/python/sign",
        "body": { "payload": { "type": "message", "message": "0x6869" } },
    });
    let answer = scripts::run("tls_client.py", &question.to_string()).await.expect("an answer");
    serde_json::from_str(&answer).expect("JSON")
}

#[tokio::test]
async fn openssl_signs_with_a_client_certificate_known_by_its_first_dns_name() {
    let (scene, _) = REQUIRED.enter().await;
    keeper(&scene, &["python"]).await;
    let pair = pki(&scene).client(&["keeper.internal", "localhost"]);
    for version in ["TLSv1.3", "TLSv1.2"] {
        let answer = ask(&scene, Some(&pair), version).await;
        assert_eq!((&answer["version"], &answer["alpn"]), (&json!(version), &json!("http/1.1")), "{answer}");
        assert_eq!(answer["status"], 200, "{answer}");
        assert_eq!(answer["body"]["signature"].as_str().map(str::len), Some(2 + 128), "{answer}");
    }
    assert!(ask(&scene, None, "TLSv1.3").await["refused"].is_string());
}
