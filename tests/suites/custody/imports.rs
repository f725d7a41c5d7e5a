//! Imports as the enclave sees them. The custodian here is another language's HPKE, which writes out by itself what a
//! key is sealed for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use strongroom_protocol::document::AttestationDocument;
use strongroom_tests::api::Reply;
use strongroom_tests::mock_kms::{Fault, FaultKind};

use super::{asked, importing, stored};
use crate::scene::{Scene, assert_problem};

const NONCE: &str = "00c0ffee";
const POLICY: &str = r#"{"payloads":["digest","message"],"hold_seconds":7}"#;

/// The secret key 1 of secp256k1: its public key is the generator.
const ONE: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const GENERATOR: &str = "0x0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

/// An import key, as the enclave's document names it.
struct Offer {
    id: String,
    public_key: String,
    payload: strongroom_protocol::document::Payload,
}

async fn offer(it: &Scene) -> Offer {
    let reply = it.api.post("/v1/import-keys", json!({ "nonce": NONCE })).await.expect("a reply");
    assert_eq!(reply.status.as_u16(), 201, "{}", reply.body);
    let document = STANDARD.decode(reply.text("document")).expect("base64");
    let payload = AttestationDocument::parse(&document).expect("a document").payload;
    let public_key = hex::encode(&**payload.public_key.as_ref().expect("a key"));
    Offer { id: reply.text("import_key_id").to_owned(), public_key, payload }
}

/// A secp256k1 key that was sealed for these facts: the body of an import.
async fn sealed(it: &Scene, offer: &Offer, secret: &str) -> Value {
    let text = |text: &str| hex::encode(text);
    let info = [
        offer.id.trim_start_matches("0x").to_owned(),
        NONCE.to_owned(),
        text("imported"),
        text("secp256k1"),
        text(POLICY),
        text(&it.stack.kms_key),
    ];
    let question = json!({ "seal": secret, "public_key": offer.public_key, "info": info });
    let sealed = asked("hpke_keys.py", &[question]).await.remove(0);
    json!({
        "import_key_id": offer.id,
        "algorithm": "secp256k1",
        "policy": serde_json::from_str::<Value>(POLICY).expect("JSON"),
        "kms_key_arn": it.stack.kms_key,
        "encapsulated_key": sealed["encapsulated_key"],
        "ciphertext": sealed["ciphertext"],
    })
}

async fn import(it: &Scene, key_id: &str, body: &Value) -> Reply {
    it.api.post(&format!("/v1/keys/{key_id}/import"), body.clone()).await.expect("a reply")
}

/// For the description of the interface: what it says of these calls.
pub(super) async fn replies() -> Vec<(&'static str, Reply)> {
    let it = importing().await;
    let mut replies = Vec::new();
    for nonce in [NONCE, ""] {
        let reply = it.api.post("/v1/import-keys", json!({ "nonce": nonce })).await.expect("a reply");
        replies.push(("/v1/import-keys", reply));
    }
    let body = sealed(&it, &offer(&it).await, ONE).await;
    for key_id in ["imported", "imported", "another"] {
        replies.push(("/v1/keys/{key_id}/import", import(&it, key_id, &body).await));
    }
    replies
}

#[tokio::test]
async fn a_key_sealed_by_another_implementation_is_imported_as_it_was_described() {
    let it = importing().await;
    let offer = offer(&it).await;
    assert_eq!(offer.payload.nonce.as_ref().map(|nonce| hex::encode(&**nonce)).as_deref(), Some(NONCE));
    let id: [u8; 32] = Sha256::digest(hex::decode(&offer.public_key).expect("hex")).into();
    let user_data = [&b"strongroom-import-v1"[..], &id].concat();
    assert_eq!(offer.payload.user_data.as_deref(), Some(&user_data[..]));
    assert!(offer.payload.pcr(16).is_some(), "only a configured enclave offers");

    let calls = it.calls().await;
    let body = sealed(&it, &offer, ONE).await;
    let reply = import(&it, "imported", &body).await;
    assert_eq!(reply.status.as_u16(), 201, "{}", reply.body);
    assert_eq!(it.outcomes_after(calls).await, ["GenerateDataKey Success", "Decrypt Success"]);
    assert_eq!(reply.text("public_key"), GENERATOR);
    assert_eq!(reply.text("origin"), "imported");
    assert_eq!(reply.body["policy"], body["policy"]);
    assert_eq!(reply.body["addresses"]["ethereum"], "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
    let payload = json!({ "type": "digest", "digest": "0x".to_owned() + &"11".repeat(32) });
    let signed = it.api.sign("imported", json!({ "payload": payload })).await.expect("a reply");
    assert_eq!(signed.status.as_u16(), 200, "{}", signed.body);
}

#[tokio::test]
async fn an_import_key_serves_once() {
    let it = importing().await;
    let offer = offer(&it).await;
    let body = sealed(&it, &offer, ONE).await;
    assert_eq!(import(&it, "imported", &body).await.status.as_u16(), 201);
    assert_problem(&import(&it, "imported", &body).await, 409, "key-exists");
    std::fs::remove_file(it.stack.directory().join("keys/imported.json")).expect("removed");
    assert_problem(&import(&it, "imported", &body).await, 409, "import-key-unknown");
    assert_eq!(stored(&it), [""; 0]);
}

#[tokio::test]
async fn a_key_that_exists_costs_no_import_key() {
    let it = importing().await;
    it.create("imported").await;
    let offer = offer(&it).await;
    let body = sealed(&it, &offer, ONE).await;
    assert_problem(&import(&it, "imported", &body).await, 409, "key-exists");
    std::fs::remove_file(it.stack.directory().join("keys/imported.json")).expect("removed");
    assert_eq!(import(&it, "imported", &body).await.status.as_u16(), 201);
}

/// Whoever carries the sealed key cannot make something else of it.
#[tokio::test]
async fn what_is_said_of_a_sealed_key_cannot_be_changed() {
    let it = importing().await;
    let another = offer(&it).await;
    for (name, key_id, change) in [
        ("another_id", "another", json!({})),
        ("another_algorithm", "imported", json!({ "algorithm": "ed25519" })),
        ("longer_hold", "imported", json!({ "policy": { "payloads": ["digest", "message"], "hold_seconds": 8 } })),
        ("fewer_payloads", "imported", json!({ "policy": { "payloads": ["message"], "hold_seconds": 7 } })),
        (
            "exportable",
            "imported",
            json!({ "policy": { "payloads": ["digest", "message"], "hold_seconds": 7, "exportable": true } }),
        ),
        ("no_kms_key_named", "imported", json!({ "kms_key_arn": null })),
        ("another_import_key", "imported", json!({ "import_key_id": another.id })),
        ("another_ephemeral_key", "imported", json!({ "encapsulated_key": another.public_key })),
        ("ephemeral_key_of_small_order", "imported", json!({ "encapsulated_key": "00".repeat(32) })),
        ("another_ciphertext", "imported", json!({ "ciphertext": "00".repeat(48) })),
    ] {
        let offer = offer(&it).await;
        let mut body = sealed(&it, &offer, ONE).await;
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        assert_problem(&import(&it, key_id, &body).await, 422, "import-refused");
        assert_eq!(stored(&it), [""; 0], "{name}");
    }
}

/// An import key is the enclave's that offered it, and dies with it.
#[tokio::test]
async fn an_import_key_of_another_enclave_or_boot_is_unknown() {
    let mut it = importing().await;
    let other = importing().await;
    let offer = offer(&it).await;
    let body = sealed(&it, &offer, ONE).await;
    let swapped = other.api.post("/v1/keys/imported/import", body.clone()).await.expect("a reply");
    assert_problem(&swapped, 409, "import-key-unknown");
    it.stack.restart_enclave().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    assert_problem(&import(&it, "imported", &body).await, 409, "import-key-unknown");
    assert_eq!((stored(&it), stored(&other)), (vec![], vec![]));
}

#[tokio::test]
async fn what_is_no_key_is_refused_and_nothing_is_written() {
    let it = importing().await;
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let (zeros, long, short) = ("00".repeat(32), "01".repeat(64), "01".repeat(31));
    for (name, secret) in [("zero", &*zeros), ("the_order", order), ("too_long", &long), ("too_short", &short)] {
        let offer = offer(&it).await;
        let calls = it.calls().await;
        let body = sealed(&it, &offer, secret).await;
        assert_problem(&import(&it, "imported", &body).await, 422, "key-material-invalid");
        assert_eq!(it.calls().await, calls, "{name}: KMS was not asked");
    }
    assert_eq!(stored(&it), [""; 0]);
}

#[tokio::test]
async fn requests_of_another_form_are_refused() {
    let it = importing().await;
    let offer = offer(&it).await;
    let good = sealed(&it, &offer, ONE).await;
    for (name, change) in [
        ("unknown_field", json!({ "note": 1 })),
        ("id_too_short", json!({ "import_key_id": "00" })),
        ("ephemeral_key_too_long", json!({ "encapsulated_key": "00".repeat(33) })),
        ("ciphertext_too_short", json!({ "ciphertext": "00".repeat(31) })),
        ("ciphertext_too_long", json!({ "ciphertext": "00".repeat(81) })),
        ("ciphertext_no_hex", json!({ "ciphertext": "xy" })),
        ("policy_that_does_not_fit", json!({ "policy": { "payloads": ["message"], "paths": ["m/0"] } })),
        ("no_algorithm", json!({ "algorithm": null })),
    ] {
        let mut body = good.clone();
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        let reply = import(&it, "imported", &body).await;
        assert_eq!((reply.status.as_u16(), reply.problem()), (422, "invalid-request"), "{name}: {}", reply.body);
    }
    for body in [json!({}), json!({ "nonce": "" }), json!({ "nonce": "00".repeat(513) })] {
        assert_problem(&it.api.post("/v1/import-keys", body).await.expect("a reply"), 422, "invalid-request");
    }
    assert_eq!(import(&it, "imported", &good).await.status.as_u16(), 201, "none of this cost the import key");
}

#[tokio::test]
async fn an_enclave_that_does_not_list_the_operation_offers_and_imports_nothing() {
    let it = Scene::start().await;
    let offer = it.api.post("/v1/import-keys", json!({ "nonce": NONCE })).await.expect("a reply");
    assert_problem(&offer, 403, "operation-not-configured");
    let body = json!({
        "import_key_id": "00".repeat(32), "algorithm": "ed25519", "encapsulated_key": "00".repeat(32),
        "ciphertext": "00".repeat(48),
    });
    assert_problem(&import(&it, "imported", &body).await, 403, "operation-not-configured");
}

/// Import keys that wait are somebody's: more are refused, and none is driven out.
#[tokio::test]
async fn import_keys_are_bounded_and_those_that_wait_still_serve() {
    let it = importing().await;
    let first = offer(&it).await;
    for _ in 1..256 {
        offer(&it).await;
    }
    let refused = it.api.post("/v1/import-keys", json!({ "nonce": NONCE })).await.expect("a reply");
    assert_problem(&refused, 503, "import-keys-exhausted");
    assert!(refused.headers.contains_key("retry-after"));
    let body = sealed(&it, &first, ONE).await;
    assert_eq!(import(&it, "imported", &body).await.status.as_u16(), 201);
    offer(&it).await;
}

/// The clock is the enclave's own, and nothing from outside moves it. `custody::tests` has the same in no time.
#[tokio::test]
#[ignore = "takes five minutes"]
async fn an_import_key_expires() {
    let it = importing().await;
    let body = sealed(&it, &offer(&it).await, ONE).await;
    tokio::time::sleep(std::time::Duration::from_secs(301)).await;
    assert_problem(&import(&it, "imported", &body).await, 409, "import-key-unknown");
    assert_eq!(stored(&it), [""; 0]);
}

#[tokio::test]
async fn an_import_that_kms_stops_writes_nothing_and_its_import_key_has_served() {
    let it = importing().await;
    let offer = offer(&it).await;
    let body = sealed(&it, &offer, ONE).await;
    it.set_fault(Fault::always(FaultKind::Throttle)).await;
    assert_problem(&import(&it, "imported", &body).await, 503, "kms-throttled");
    it.clear_faults().await;
    assert_problem(&import(&it, "imported", &body).await, 409, "import-key-unknown");
    assert_eq!(stored(&it), [""; 0]);
}
