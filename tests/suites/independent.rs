//! Signatures made through REST, verified by other people's libraries in another language
//! (`tests/verify_signatures.py`). Nothing here judges a signature itself.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use strongroom_tests::api::Api;
use strongroom_tests::scripts;

use crate::scene::Scene;
use crate::shared::SharedScene;

static SCENE: SharedScene = SharedScene::new(|_| {});

/// Signatures of each kind: enough that one of the two recovery ids is missing once in 2^47 runs.
const MANY: usize = 48;

const HASHES: [&str; 3] = ["keccak256", "sha256", "sha256d"];

/// A key whose signatures are collected as cases for the script.
struct Signer {
    api: Api,
    key: Value,
    cases: Vec<Value>,
    _scene: Arc<Scene>,
}

impl Signer {
    /// A new key that may sign everything; it is held, so that many signatures cost one unlock.
    async fn create(key_id: &str, algorithm: &str) -> Self {
        let (scene, api) = SCENE.enter().await;
        let policy = json!({ "payloads": ["digest", "message"], "hold_seconds": 60 });
        let body = json!({ "key_id": key_id, "algorithm": algorithm, "policy": policy });
        let reply = api.post("/v1/keys", body).await.expect("a reply");
        assert_eq!(reply.status.as_u16(), 201, "{}", reply.body);
        Self { api, key: reply.body, cases: Vec::new(), _scene: scene }
    }

    /// Signs a payload and keeps what an independent verifier needs.
    async fn sign(&mut self, scheme: &str, payload: Value) -> &mut Map<String, Value> {
        let key_id = self.key["key_id"].as_str().expect("an id");
        let reply = self.api.sign(key_id, json!({ "payload": payload, "scheme": scheme })).await.expect("a reply");
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.body);
        assert_eq!(reply.body["public_key"], self.key["public_key"]);
        self.keep(scheme, payload, &reply.body);
        self.cases.last_mut().and_then(Value::as_object_mut).expect("an object")
    }

    /// Signs payloads together and keeps as much of each.
    async fn sign_batch(&mut self, scheme: &str, payloads: Vec<Value>) {
        let key_id = self.key["key_id"].as_str().expect("an id");
        let body = json!({ "payloads": payloads, "scheme": scheme });
        let reply = self.api.sign_batch(key_id, body).await.expect("a reply");
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.body);
        assert_eq!(reply.body["public_key"], self.key["public_key"]);
        let results = reply.body["results"].as_array().expect("results");
        assert_eq!(results.len(), payloads.len());
        for (payload, result) in payloads.into_iter().zip(results) {
            self.keep(scheme, payload, result);
        }
    }

    fn keep(&mut self, scheme: &str, payload: Value, signed: &Value) {
        let addresses = self.key["addresses"].as_object().expect("addresses");
        let mut case = payload;
        case["scheme"] = scheme.into();
        case["public_key"] = self.key["public_key"].clone();
        case["address"] = addresses.values().next().cloned().unwrap_or_default();
        case["signature"] = signed["signature"].clone();
        if let Some(recovery_id) = signed.get("recovery_id") {
            case["recovery_id"] = recovery_id.clone();
        }
        self.cases.push(case);
    }

    async fn assert_all_verify(&self) {
        assert!(!self.cases.is_empty());
        for (case, verdict) in self.cases.iter().zip(verdicts(&self.cases).await) {
            assert_eq!(verdict, "verified", "{}", shortened(case));
        }
    }
}

/// What the libraries say, case by case.
async fn verdicts(cases: &[Value]) -> Vec<String> {
    let input: String = cases.iter().map(|case| format!("{case}\n")).collect();
    let output = scripts::run("verify_signatures.py", &input).await.expect("the script runs");
    let verdicts: Vec<String> = output.lines().map(str::to_owned).collect();
    assert_eq!(verdicts.len(), cases.len(), "one verdict per case");
    verdicts
}

fn hashed(message: &[u8], hash: &str) -> Value {
    json!({ "type": "message", "message": to_hex(message), "hash": hash })
}

fn message(message: &[u8]) -> Value {
    json!({ "type": "message", "message": to_hex(message) })
}

fn digest() -> Value {
    json!({ "type": "digest", "digest": to_hex(&random(32)) })
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    bytes
}

fn to_hex(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

fn shortened(case: &Value) -> String {
    case.to_string().chars().take(600).collect()
}

#[tokio::test]
async fn ecdsa_verifies_and_recovers_the_key_for_every_hash_and_for_digests() {
    let mut signer = Signer::create("ecdsa", "secp256k1").await;
    for n in 0..MANY {
        for hash in HASHES {
            signer.sign("ecdsa", hashed(&random(n), hash)).await;
        }
        signer.sign("ecdsa", digest()).await;
    }
    for recovery_id in [0, 1] {
        let seen = signer.cases.iter().any(|case| case["recovery_id"] == recovery_id);
        assert!(seen, "recovery id {recovery_id} never occurred");
    }
    signer.assert_all_verify().await;
}

#[tokio::test]
async fn keys_with_either_parity_verify() {
    // Half of all public keys have an odd y, which BIP-340 has to negate away.
    let mut parities = std::collections::BTreeSet::new();
    for n in 0..64 {
        let mut signer = Signer::create(&format!("parity-{n}"), "secp256k1").await;
        parities.insert(signer.key["public_key"].as_str().expect("hex")[..4].to_owned());
        signer.sign("ecdsa", digest()).await;
        signer.sign("bip340", digest()).await;
        if n < 2 || parities.len() == 2 {
            signer.assert_all_verify().await;
        }
        if parities.len() == 2 {
            return;
        }
    }
    panic!("64 keys of one parity: {parities:?}");
}

#[tokio::test]
async fn bip340_verifies_for_every_hash_and_for_digests() {
    let mut signer = Signer::create("bip340", "secp256k1").await;
    for n in 0..MANY / 4 {
        for hash in HASHES {
            signer.sign("bip340", hashed(&random(n), hash)).await;
        }
        signer.sign("bip340", digest()).await;
    }
    signer.assert_all_verify().await;
}

#[tokio::test]
async fn ed25519_verifies() {
    let mut signer = Signer::create("ed25519", "ed25519").await;
    for n in 0..MANY {
        signer.sign("ed25519", message(&random(n))).await;
    }
    signer.assert_all_verify().await;
}

#[tokio::test]
async fn what_is_signed_together_verifies_payload_by_payload() {
    let mut secp256k1 = Signer::create("batch-secp256k1", "secp256k1").await;
    let mut ed25519 = Signer::create("batch-ed25519", "ed25519").await;
    for scheme in ["ecdsa", "bip340"] {
        let mixed = (0..MANY).flat_map(|n| HASHES.map(|hash| hashed(&random(n), hash)).into_iter().chain([digest()]));
        secp256k1.sign_batch(scheme, mixed.collect()).await;
    }
    ed25519.sign_batch("ed25519", (0..MANY).map(|n| message(&random(n))).collect()).await;
    secp256k1.assert_all_verify().await;
    ed25519.assert_all_verify().await;
}

#[tokio::test]
async fn the_shortest_and_the_longest_messages_verify() {
    // A body has at most 2 MiB, and a message takes two digits per byte: this much of 1 MiB is left.
    let longest = random(1024 * 1024 - 128);
    let mut secp256k1 = Signer::create("lengths-secp256k1", "secp256k1").await;
    let mut ed25519 = Signer::create("lengths-ed25519", "ed25519").await;
    for bytes in [&[][..], &longest] {
        for hash in HASHES {
            secp256k1.sign("ecdsa", hashed(bytes, hash)).await;
        }
        secp256k1.sign("bip340", hashed(bytes, "sha256")).await;
        ed25519.sign("ed25519", message(bytes)).await;
    }
    secp256k1.assert_all_verify().await;
    ed25519.assert_all_verify().await;
}

#[tokio::test]
async fn an_ethereum_wallet_recovers_the_keys_address_from_a_personal_message() {
    let mut signer = Signer::create("eip191", "secp256k1").await;
    for text in ["", "strongroom", "grüße"] {
        // EIP-191, version 0x45: the prefix, the length in decimal digits, the text.
        let wrapped = format!("\u{19}Ethereum Signed Message:\n{}{text}", text.len());
        signer.sign("ecdsa", hashed(wrapped.as_bytes(), "keccak256")).await.insert("eip191".to_owned(), text.into());
    }
    signer.assert_all_verify().await;
}

#[tokio::test]
async fn a_key_that_is_not_held_makes_the_same_signatures() {
    let (_scene, api) = SCENE.enter().await;
    let body = json!({ "key_id": "not-held", "algorithm": "secp256k1" });
    let key = api.post("/v1/keys", body).await.expect("a reply").body;
    let sign = json!({ "payload": hashed(b"the same", "sha256") });
    let first = api.sign("not-held", sign.clone()).await.expect("a reply").body;
    let second = api.sign("not-held", sign).await.expect("a reply").body;
    // RFC 6979: deterministic.
    assert_eq!(first["signature"], second["signature"]);
    let mut case = hashed(b"the same", "sha256");
    case["scheme"] = "ecdsa".into();
    case["public_key"] = key["public_key"].clone();
    case["signature"] = first["signature"].clone();
    case["recovery_id"] = first["recovery_id"].clone();
    assert_eq!(verdicts(&[case]).await, ["verified"]);
}

/// The control: the script says no to whatever is changed.
#[tokio::test]
async fn whatever_is_changed_is_refused_by_the_same_script() {
    let mut secp256k1 = Signer::create("control-secp256k1", "secp256k1").await;
    let mut ed25519 = Signer::create("control-ed25519", "ed25519").await;
    secp256k1.sign("ecdsa", hashed(b"control", "keccak256")).await;
    secp256k1.sign("bip340", hashed(b"control", "sha256")).await;
    ed25519.sign("ed25519", message(b"control")).await;
    let other = Signer::create("control-other", "secp256k1").await.key;

    let genuine: Vec<Value> = secp256k1.cases.iter().chain(&ed25519.cases).cloned().collect();
    let mut changed = Vec::new();
    for case in &genuine {
        for position in [3, 64, 127, 129] {
            changed.push(with(case, "signature", flip_digit(&case["signature"], position)));
        }
        changed.push(with(case, "message", to_hex(b"contro1").into()));
    }
    let [ecdsa, bip340, ed25519] = <[Value; 3]>::try_from(genuine.clone()).expect("three");
    changed.push(with(&ecdsa, "recovery_id", (1 - ecdsa["recovery_id"].as_u64().expect("a number")).into()));
    changed.push(with(&ecdsa, "public_key", other["public_key"].clone()));
    changed.push(with(&ecdsa, "address", other["addresses"]["ethereum"].clone()));
    changed.push(with(&ecdsa, "hash", "sha256".into()));
    changed.push(with(&ecdsa, "eip191", "another text".into()));
    changed.push(with(&bip340, "public_key", other["public_key"].clone()));
    changed.push(with(&bip340, "recovery_id", 0.into()));
    changed.push(with(&ed25519, "address", "11111111111111111111111111111111".into()));

    assert_eq!(verdicts(&genuine).await, ["verified"; 3]);
    for (case, verdict) in changed.iter().zip(verdicts(&changed).await) {
        assert!(verdict.starts_with("refused: "), "{}", shortened(case));
    }
}

fn with(case: &Value, field: &str, value: Value) -> Value {
    let mut changed = case.clone();
    changed[field] = value;
    changed
}

fn flip_digit(hex: &Value, position: usize) -> Value {
    let mut text = hex.as_str().expect("hex").to_owned();
    let other = if &text[position..=position] == "0" { "1" } else { "0" };
    text.replace_range(position..=position, other);
    text.into()
}
