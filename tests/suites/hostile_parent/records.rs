//! Records changed at rest or on their way: nothing that is bound to a key can be exchanged for
//! something else, whether the key is cold, held, or just being opened.

use serde_json::{Value, json};
use strongroom_protocol::{
    Algorithm, ByteArray, ErrorCode, KeyRecord, Origin, Payload, PayloadKind, Policy, PresentedRecord, PublicKey,
    Request, Response,
};
use strongroom_tests::mock_kms::{Fault, FaultKind};

use crate::scene::{Scene, assert_problem};

/// Changes key `a`'s record, and shows that it neither signs nor is attested; put back, it does.
async fn refused(it: &Scene, change: impl FnOnce(&mut Value)) {
    let original = it.tamper("a", change);
    assert_problem(&it.sign("a").await, 502, "record-refused");
    let evidence = it.api.get("/v1/keys/a/attestation?nonce=01").await.expect("a reply");
    assert_problem(&evidence, 502, "record-refused");
    it.store("a", &original);
    it.signs("a").await;
}

async fn two_keys() -> (Scene, Value) {
    let it = Scene::start().await;
    it.create("a").await;
    it.create("b").await;
    let b = it.stored("b");
    (it, b)
}

#[tokio::test]
async fn a_data_key_swapped_with_another_keys() {
    let (it, b) = two_keys().await;
    refused(&it, |record| record["data_key"] = b["data_key"].clone()).await;
    assert!(it.outcomes("a").await.contains(&"Decrypt InvalidCiphertextException".to_owned()), "KMS refused it");
}

#[tokio::test]
async fn a_ciphertext_swapped_with_another_keys() {
    let (it, b) = two_keys().await;
    let unlocks = it.outcomes("a").await.len();
    refused(&it, |record| record["ciphertext"] = b["ciphertext"].clone()).await;
    let seen = it.outcomes("a").await.split_off(unlocks);
    assert_eq!(seen, ["Decrypt Success"; 3], "KMS saw nothing wrong: the enclave's own seal refused it");
}

#[tokio::test]
async fn data_key_and_ciphertext_both_of_another_key() {
    let (it, b) = two_keys().await;
    refused(&it, |record| {
        record["data_key"] = b["data_key"].clone();
        record["ciphertext"] = b["ciphertext"].clone();
    })
    .await;
}

#[tokio::test]
async fn a_public_key_replaced() {
    let (it, b) = two_keys().await;
    refused(&it, |record| record["public_key"] = b["public_key"].clone()).await;
}

#[tokio::test]
async fn a_whole_record_under_another_keys_name() {
    let (it, b) = two_keys().await;
    refused(&it, |record| {
        *record = b;
        record["key_id"] = "a".into();
    })
    .await;
}

#[tokio::test]
async fn a_record_relabelled_with_another_origin() {
    let (it, _) = two_keys().await;
    refused(&it, |record| record["origin"] = "imported".into()).await;
}

#[tokio::test]
async fn a_record_relabelled_with_another_algorithm() {
    let (it, _) = two_keys().await;
    let original = it.tamper("a", |record| {
        record["algorithm"] = "secp256k1".into();
        record["public_key"] = format!("0x02{}", "11".repeat(32)).into();
    });
    // Asked as the algorithm demands that the record now claims.
    let payload = json!({ "type": "message", "message": "0x6869", "hash": "sha256" });
    for scheme in ["ecdsa", "bip340"] {
        let sign = json!({ "payload": payload, "scheme": scheme });
        assert_problem(&it.api.sign("a", sign).await.expect("a reply"), 502, "record-refused");
    }
    it.store("a", &original);
    it.signs("a").await;

    // A public key of the wrong length is not even a record: the one that was accepted before goes on.
    let original = it.tamper("a", |record| record["algorithm"] = "secp256k1".into());
    assert_problem(&it.api.get("/v1/keys/a").await.expect("a reply"), 502, "record-damaged");
    it.signs("a").await;
    it.store("a", &original);
    it.signs("a").await;
}

#[tokio::test]
async fn a_policy_widened_while_the_key_is_cold() {
    let (it, _) = two_keys().await;
    refused(&it, |record| record["policy"]["hold_seconds"] = 3600.into()).await;
    refused(&it, |record| record["policy"]["payloads"] = json!(["digest", "message"])).await;
}

/// One bit anywhere in the two sealed fields.
#[tokio::test]
async fn a_bit_flipped_in_what_is_sealed() {
    let (it, _) = two_keys().await;
    for field in ["data_key", "ciphertext"] {
        let flipped = |record: &mut Value| {
            let text = record[field].as_str().expect("base64").to_owned();
            let last = text.trim_end_matches('=').len() - 2;
            let other = if text.as_bytes()[last] == b'A' { "B" } else { "A" };
            record[field] = format!("{}{other}{}", &text[..last], &text[last + 1..]).into();
        };
        refused(&it, flipped).await;
    }
}

/// The addresses are the parent's to show and nothing believes them: they may lie and change nothing.
#[tokio::test]
async fn addresses_and_notes_are_not_believed_by_the_enclave() {
    let it = Scene::start().await;
    it.create("a").await;
    it.tamper("a", |record| record["addresses"]["solana"] = "11111111111111111111111111111111".into());
    it.signs("a").await;
}

/// A secp256k1 key that signs messages only, and its record as an attacker would have it.
struct Widening {
    it: Scene,
    bound: KeyRecord,
    widened: KeyRecord,
}

impl Widening {
    async fn of_a_key_held_for(seconds: u32) -> Self {
        let it = Scene::start().await;
        let policy = json!({ "payloads": ["message"], "hold_seconds": seconds });
        it.create_with(json!({ "key_id": "a", "algorithm": "secp256k1", "policy": policy })).await;
        let bound = it.record("a");
        let policy = Policy::new(vec![PayloadKind::Digest, PayloadKind::Message], seconds).expect("a policy");
        let widened = KeyRecord { policy, ..bound.clone() };
        Self { it, bound, widened }
    }

    async fn sign_message(&self) -> u16 {
        let payload = json!({ "type": "message", "message": "0x01", "hash": "keccak256" });
        self.it.api.sign("a", json!({ "payload": payload })).await.expect("a reply").status.as_u16()
    }

    async fn sign_digest(&self) -> strongroom_tests::api::Reply {
        let payload = json!({ "type": "digest", "digest": "22".repeat(32) });
        self.it.api.sign("a", json!({ "payload": payload })).await.expect("a reply")
    }
}

fn digest(record: &KeyRecord) -> Request {
    let payloads = vec![Payload::Digest(ByteArray([0x22; 32]))];
    Request::Sign { record: present(record), scheme: None, path: None, payloads }
}

fn present(record: &KeyRecord) -> PresentedRecord {
    record.present().expect("encodes")
}

#[tokio::test]
async fn a_policy_widened_while_the_key_is_held() {
    let it = Widening::of_a_key_held_for(600).await;
    assert_eq!(it.sign_message().await, 200);
    let unlocks = it.it.outcomes("a").await.len();

    // The parent's own check, which only saves a call, is passed with the widened record.
    assert_problem(&it.sign_digest().await, 403, "policy-denied");
    let original = it.it.tamper("a", |record| record["policy"]["payloads"] = json!(["digest", "message"]));
    assert_problem(&it.sign_digest().await, 502, "record-refused");
    assert_eq!(
        it.it.outcomes("a").await[unlocks..],
        ["Decrypt InvalidCiphertextException"],
        "the held key was not used"
    );

    it.it.store("a", &original);
    assert_eq!(it.sign_message().await, 200);
    assert_eq!(it.it.outcomes("a").await.len(), unlocks + 1, "it is held as before");
}

/// Without the parent's check in between: the bound policy denies, however the payload is presented.
#[tokio::test]
async fn a_payload_beyond_the_policy_of_a_held_key() {
    let it = Widening::of_a_key_held_for(600).await;
    assert_eq!(it.sign_message().await, 200);
    let mut socket = it.it.enclave().await;
    match socket.ask(digest(&it.bound)).await.expect("a reply") {
        Ok(Response::Signed(results)) => assert_eq!(results, [Err(ErrorCode::PayloadDenied)]),
        other => panic!("{other:?}"),
    }
    assert_eq!(socket.ask(digest(&it.widened)).await.expect("a reply").err(), Some(ErrorCode::RecordRefused));
    assert_eq!(it.sign_message().await, 200);
}

#[tokio::test]
async fn a_widened_record_joining_an_unlock_in_flight() {
    let it = Widening::of_a_key_held_for(600).await;
    it.it.set_fault(Fault::next(2, FaultKind::Latency(500)).on("Decrypt")).await;
    let mut socket = it.it.enclave().await;
    // On one connection, one behind the other: the unlock of the first lasts half a second.
    let good = socket.send(digest(&it.bound)).await.expect("sent");
    let widened = socket.send(digest(&it.widened)).await.expect("sent");
    let joined = socket.send(digest(&it.bound)).await.expect("sent");
    for _ in 0..3 {
        let reply = socket.reply().await.expect("a frame").expect("open");
        match reply.result {
            Ok(Response::Signed(results)) if reply.id == good || reply.id == joined => {
                assert_eq!(results, [Err(ErrorCode::PayloadDenied)]);
            }
            Err(code) if reply.id == widened => assert_eq!(code, ErrorCode::RecordRefused),
            other => panic!("{}: {other:?}", reply.id),
        }
    }
    let mut seen = it.it.outcomes("a").await.split_off(2);
    seen.sort_unstable();
    assert_eq!(seen, ["Decrypt InvalidCiphertextException", "Decrypt Success"], "an unlock each, and one joined");
    assert_eq!(it.sign_message().await, 200);
}

/// The record is recognised by all of its bytes: another encoding of the same facts is another record.
#[tokio::test]
async fn a_held_key_is_not_found_by_its_name() {
    let it = Scene::start().await;
    it.create_held("a", 600).await;
    it.create("b").await;
    it.signs("a").await;
    let (a, b) = (it.record("a"), it.record("b"));
    let mut socket = it.enclave().await;
    for (name, record) in [
        ("nothing_sealed", KeyRecord { data_key: vec![1].try_into().expect("short"), ..a.clone() }),
        ("no_ciphertext", KeyRecord { ciphertext: vec![].try_into().expect("short"), ..a.clone() }),
        ("sealed_parts_of_another", KeyRecord { data_key: b.data_key, ciphertext: b.ciphertext, ..a.clone() }),
        ("another_origin", KeyRecord { origin: Origin::Adopted, ..a.clone() }),
        ("another_name", KeyRecord { key_id: "b".parse().expect("an id"), ..a.clone() }),
    ] {
        assert_eq!(
            socket.ask(message(&record)).await.expect("a reply").err(),
            Some(ErrorCode::RecordRefused),
            "{name}"
        );
    }
    assert!(matches!(socket.ask(message(&a)).await.expect("a reply"), Ok(Response::Signed(_))));
}

#[tokio::test]
async fn what_is_no_record_is_refused_like_a_changed_one() {
    let it = Scene::start().await;
    it.create("a").await;
    let a = it.record("a");
    let good = present(&a);
    let mut socket = it.enclave().await;
    let wrong_length = KeyRecord { algorithm: Algorithm::Secp256k1, ..a.clone() };
    let no_point = KeyRecord { public_key: PublicKey::try_from(vec![0xff; 32]).expect("short"), ..a.clone() };
    for (name, bytes) in [
        ("empty", vec![]),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("trailing_byte", [&good[..], &[0]].concat()),
        ("not_cbor", vec![0xff; 100]),
        ("public_key_of_another_length", present(&wrong_length).into_vec()),
        ("public_key_off_the_curve", present(&no_point).into_vec()),
    ] {
        let record = PresentedRecord::try_from(bytes).expect("short");
        let payloads = vec![Payload::Digest(ByteArray([1; 32]))];
        let reply = socket.ask(Request::Sign { record, scheme: None, path: None, payloads }).await.expect("a reply");
        assert_eq!(reply.err(), Some(ErrorCode::RecordRefused), "{name}");
    }
    it.signs("a").await;
}

fn message(record: &KeyRecord) -> Request {
    let payload = Payload::Message { message: vec![1].try_into().expect("short"), hash: None };
    Request::Sign { record: present(record), scheme: None, path: None, payloads: vec![payload] }
}
