//! Re-wrap: an existing key under another KMS key, asked of the enclave itself. What changes and what
//! cannot, what KMS is asked, and that nothing comes back when anything on the way says no.

mod multi_region;

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use strongroom_protocol::{
    ErrorCode, HashFunction, KeyRecord, Origin, Payload, PayloadKind, Policy, PublicKey, Request, Response, Signature,
};
use strongroom_tests::mock_kms::envelope::Defect;
use strongroom_tests::mock_kms::{Fault, FaultKind, KeyState};
use strongroom_tests::stack::{KmsKeyKind, Plan, REGION};

use crate::scene::Scene;

/// The calls of a re-wrap that succeeds, and which of the two KMS keys each is about.
const REWRAP: [(&str, usize); 3] = [("Decrypt Success", 0), ("GenerateDataKey Success", 1), ("Decrypt Success", 1)];

/// A ceremony: two KMS keys, and the operation listed.
fn ceremony(plan: &mut Plan) {
    plan.kms_keys = vec![KmsKeyKind::SingleRegion; 2];
    plan.configuration.insert("operations".to_owned(), json!(["generate", "sign", "rewrap"]));
}

/// The scene of most: key `a` under the first KMS key.
async fn with_key() -> (Scene, KeyRecord) {
    let it = Scene::planned(ceremony).await;
    it.create("a").await;
    let record = it.record("a");
    assert_eq!(record.kms_key_arn.as_str(), it.stack.kms_keys[0]);
    (it, record)
}

async fn rewrap(it: &Scene, record: &KeyRecord, kms_key: &str) -> Result<KeyRecord, ErrorCode> {
    let record = record.present().expect("encodes");
    let request = Request::Rewrap { record, kms_key_arn: kms_key.parse().expect("an ARN") };
    match it.enclave().await.ask(request).await.expect("a reply")? {
        Response::Rewrapped(record) => Ok(*record),
        other => panic!("{other:?}"),
    }
}

async fn sign(it: &Scene, record: &KeyRecord) -> Result<Signature, ErrorCode> {
    let hash = (record.public_key.len() == 33).then_some(HashFunction::Sha256);
    let payload = Payload::Message { message: b"hi".to_vec().try_into().expect("short"), hash };
    let record = record.present().expect("encodes");
    let request = Request::Sign { record, scheme: None, path: None, payloads: vec![payload] };
    match it.enclave().await.ask(request).await.expect("a reply")? {
        Response::Signed(results) => results[0],
        other => panic!("{other:?}"),
    }
}

/// The key signs, under the public key that its record names.
async fn signs(it: &Scene, record: &KeyRecord) {
    let signature = sign(it, record).await.expect("signed");
    UnparsedPublicKey::new(&ED25519, &record.public_key[..]).verify(b"hi", &signature.bytes.0).expect("it verifies");
}

/// What KMS was asked after the first `calls` calls: outcome and KMS key, in the order asked.
async fn asked(it: &Scene, calls: u64) -> Vec<(String, usize)> {
    let calls = it.stack.control.calls(calls).await.expect("the log");
    let place = |arn: Option<String>| it.stack.kms_keys.iter().position(|key| Some(key) == arn.as_ref());
    let told = |action: Option<String>, outcome: String| format!("{} {outcome}", action.unwrap_or_default());
    calls.into_iter().map(|c| (told(c.action, c.outcome), place(c.key_arn).unwrap_or(usize::MAX))).collect()
}

/// Adds a statement to a KMS key's policy that denies this action to everyone.
async fn deny(it: &Scene, kms_key: &str, action: &str) {
    let keys = it.stack.control.keys().await.expect("the keys");
    let mut policy = keys.into_iter().find(|key| key.arn == kms_key).expect("a key").policy;
    let denial = json!({ "Effect": "Deny", "Principal": "*", "Action": format!("kms:{action}"), "Resource": "*" });
    policy["Statement"].as_array_mut().expect("statements").push(denial);
    it.stack.control.put_policy(kms_key, &policy).await.expect("put");
}

#[tokio::test]
async fn only_the_wrapping_changes_and_the_key_signs_as_before() {
    let it = Scene::planned(ceremony).await;
    let policy = json!({ "payloads": ["digest", "message"], "hold_seconds": 7 });
    for algorithm in ["ed25519", "secp256k1"] {
        it.create_with(json!({ "key_id": algorithm, "algorithm": algorithm, "policy": policy })).await;
        let old = it.record(algorithm);
        let new = rewrap(&it, &old, &it.stack.kms_keys[1]).await.expect("re-wrapped");
        assert_eq!(new.kms_key_arn.as_str(), it.stack.kms_keys[1]);
        assert_ne!((&new.data_key, &new.ciphertext[..12]), (&old.data_key, &old.ciphertext[..12]), "a fresh nonce");
        let KeyRecord { kms_key_arn, data_key, ciphertext, .. } = new.clone();
        assert_eq!(KeyRecord { kms_key_arn, data_key, ciphertext, ..old.clone() }, new, "nothing else changed");
        assert_eq!(new.binding(), old.binding());
        // RFC 6979 and RFC 8032: the same key makes the same signature.
        assert_eq!(sign(&it, &new).await.expect("signed"), sign(&it, &old).await.expect("signed"));
    }
    let old = it.record("ed25519");
    signs(&it, &rewrap(&it, &old, &it.stack.kms_keys[1]).await.expect("re-wrapped")).await;
}

#[tokio::test]
async fn it_is_exactly_three_attested_calls_with_one_encryption_context() {
    let (it, old) = with_key().await;
    let calls = it.calls().await;
    rewrap(&it, &old, &it.stack.kms_keys[1]).await.expect("re-wrapped");
    assert_eq!(asked(&it, calls).await, REWRAP.map(|(call, key)| (call.to_owned(), key)));
    let context: BTreeMap<String, String> = old.binding().encryption_context(&old.key_id).into_iter().collect();
    for call in it.stack.control.calls(calls).await.expect("the log") {
        assert_eq!(call.encryption_context, context);
        assert!(call.attested.is_some());
    }
}

/// A held key is opened all the same, and the new record is not held by having been made.
#[tokio::test]
async fn nothing_is_held_and_nothing_that_is_held_is_used() {
    let it = Scene::planned(ceremony).await;
    it.create_held("a", 600).await;
    let old = it.record("a");
    for held in [0, 1] {
        let calls = it.calls().await;
        let new = rewrap(&it, &old, &it.stack.kms_keys[1]).await.expect("re-wrapped");
        assert_eq!(asked(&it, calls).await.len(), REWRAP.len());
        match it.enclave().await.ask(Request::Health).await.expect("a reply") {
            Ok(Response::Health(health)) => assert_eq!(health.held_keys, held),
            other => panic!("{other:?}"),
        }
        assert_ne!(new, old);
        signs(&it, &old).await;
    }
}

#[tokio::test]
async fn the_same_kms_key_gives_a_new_data_key() {
    let (it, old) = with_key().await;
    let new = rewrap(&it, &old, &it.stack.kms_keys[0]).await.expect("re-wrapped");
    assert_eq!(new.kms_key_arn, old.kms_key_arn);
    assert!(new.data_key != old.data_key && new.ciphertext != old.ciphertext);
    // Neither fits the other's.
    for mixed in [
        KeyRecord { data_key: new.data_key.clone(), ..old.clone() },
        KeyRecord { ciphertext: new.ciphertext.clone(), ..old.clone() },
    ] {
        assert_eq!(sign(&it, &mixed).await.err(), Some(ErrorCode::RecordRefused));
    }
    signs(&it, &new).await;
    signs(&it, &old).await;
}

/// Whoever kept the old record can use it until the old KMS key says no: only then has the key moved.
#[tokio::test]
async fn the_old_record_opens_until_the_old_kms_key_denies_decrypt() {
    let (it, old) = with_key().await;
    let new = rewrap(&it, &old, &it.stack.kms_keys[1]).await.expect("re-wrapped");
    signs(&it, &old).await;
    signs(&it, &new).await;

    deny(&it, &it.stack.kms_keys[0], "Decrypt").await;
    assert_eq!(sign(&it, &old).await.err(), Some(ErrorCode::KmsDenied));
    assert_eq!(rewrap(&it, &old, &it.stack.kms_keys[1]).await.err(), Some(ErrorCode::KmsDenied));
    signs(&it, &new).await;
}

#[tokio::test]
async fn an_operation_that_the_configuration_does_not_list() {
    let it = Scene::planned(|plan| plan.kms_keys = vec![KmsKeyKind::SingleRegion; 2]).await;
    it.create("a").await;
    let calls = it.calls().await;
    let refused = rewrap(&it, &it.record("a"), &it.stack.kms_keys[1]).await;
    assert_eq!(refused.err(), Some(ErrorCode::OperationNotConfigured));
    assert_eq!(it.calls().await, calls, "KMS was not even asked");
    it.signs("a").await;
}

#[tokio::test]
async fn a_kms_key_that_the_configuration_does_not_list() {
    let (it, old) = with_key().await;
    let other = it.stack.control.create_key(None).await.expect("a key");
    let calls = it.calls().await;
    for kms_key in
        [other.clone(), format!("arn:aws:kms:{REGION}:999999999999:key/1"), other.replace(REGION, "us-east-1")]
    {
        assert_eq!(rewrap(&it, &old, &kms_key).await.err(), Some(ErrorCode::KmsKeyNotConfigured), "{kms_key}");
    }
    let from_there = KeyRecord { kms_key_arn: other.parse().expect("an ARN"), ..old.clone() };
    let refused = rewrap(&it, &from_there, &it.stack.kms_keys[1]).await;
    assert_eq!(refused.err(), Some(ErrorCode::KmsKeyNotConfigured), "of the record that is presented");
    assert_eq!(it.calls().await, calls, "KMS was not even asked");
    signs(&it, &rewrap(&it, &old, &it.stack.kms_keys[1]).await.expect("re-wrapped")).await;
}

/// It is no way to another policy, origin, name or public key, nor to a key that KMS did not seal.
#[tokio::test]
async fn a_tampered_record_is_refused_and_no_data_key_is_made_for_it() {
    let (it, old) = with_key().await;
    it.create("b").await;
    let b = it.record("b");
    let wider = Policy::new(vec![PayloadKind::Digest, PayloadKind::Message], 0).expect("a policy");
    let held = Policy::new(vec![PayloadKind::Message], 600).expect("a policy");
    let calls = it.calls().await;
    for (name, record) in [
        ("wider_policy", KeyRecord { policy: wider, ..old.clone() }),
        ("longer_hold", KeyRecord { policy: held, ..old.clone() }),
        ("another_origin", KeyRecord { origin: Origin::Imported, ..old.clone() }),
        ("another_name", KeyRecord { key_id: b.key_id.clone(), ..old.clone() }),
        ("another_public_key", KeyRecord { public_key: b.public_key.clone(), ..old.clone() }),
        ("no_public_key", KeyRecord { public_key: PublicKey::default(), ..old.clone() }),
        ("another_data_key", KeyRecord { data_key: b.data_key.clone(), ..old.clone() }),
        ("another_ciphertext", KeyRecord { ciphertext: b.ciphertext.clone(), ..old.clone() }),
        ("another_kms_key", KeyRecord { kms_key_arn: it.stack.kms_keys[1].parse().expect("an ARN"), ..old.clone() }),
    ] {
        let refused = rewrap(&it, &record, &it.stack.kms_keys[1]).await;
        assert_eq!(refused.err(), Some(ErrorCode::RecordRefused), "{name}");
    }
    let asked = asked(&it, calls).await;
    assert!(asked.iter().all(|(call, _)| call.starts_with("Decrypt")), "{asked:?}");
    signs(&it, &rewrap(&it, &old, &it.stack.kms_keys[1]).await.expect("re-wrapped")).await;
}

/// Also where it could be wrapped and not be opened again: such a record is never given out.
#[tokio::test]
async fn a_new_kms_key_whose_policy_denies() {
    for (action, last) in
        [("GenerateDataKey", "GenerateDataKey AccessDeniedException"), ("Decrypt", "Decrypt AccessDeniedException")]
    {
        let (it, old) = with_key().await;
        deny(&it, &it.stack.kms_keys[1], action).await;
        let calls = it.calls().await;
        assert_eq!(rewrap(&it, &old, &it.stack.kms_keys[1]).await.err(), Some(ErrorCode::KmsDenied));
        let asked = asked(&it, calls).await;
        assert_eq!(asked.first(), Some(&("Decrypt Success".to_owned(), 0)));
        assert_eq!(asked.last(), Some(&(last.to_owned(), 1)));
        signs(&it, &old).await;
    }
}

#[tokio::test]
async fn a_new_kms_key_that_is_disabled() {
    let (it, old) = with_key().await;
    it.stack.control.set_state(&it.stack.kms_keys[1], KeyState::Disabled).await.expect("set");
    assert_eq!(rewrap(&it, &old, &it.stack.kms_keys[1]).await.err(), Some(ErrorCode::KmsKeyUnusable));
    signs(&it, &old).await;
}

/// The three calls: of which action, and after how many of that action.
const CALLS: [(&str, u32); 3] = [("Decrypt", 0), ("GenerateDataKey", 0), ("Decrypt", 1)];

#[tokio::test]
async fn kms_failing_at_each_of_the_three_calls() {
    let (it, old) = with_key().await;
    let other = format!("arn:aws:kms:{REGION}:111122223333:key/00000000-0000-4000-8000-000000000000");
    for (kind, code) in [
        (FaultKind::Throttle, ErrorCode::KmsThrottled),
        (FaultKind::InternalError, ErrorCode::KmsUnavailable),
        (FaultKind::CutReply, ErrorCode::KmsUnavailable),
        (FaultKind::WrongKeyId(other), ErrorCode::KmsReplyRefused),
        (FaultKind::PlaintextBeside, ErrorCode::KmsReplyRefused),
        (FaultKind::PlaintextInstead, ErrorCode::KmsReplyRefused),
        (FaultKind::Envelope(Defect::Padding), ErrorCode::KmsReplyRefused),
        // Well-formed, around somebody else's data key: what it seals or should open does not open.
        (FaultKind::Envelope(Defect::Forged), ErrorCode::RecordRefused),
    ] {
        for (action, after) in CALLS {
            it.set_fault(Fault::always(kind.clone()).on(action).after(after)).await;
            let refused = rewrap(&it, &old, &it.stack.kms_keys[1]).await;
            assert_eq!(refused.err(), Some(code), "{kind:?} at {action} after {after}");
            it.clear_faults().await;
        }
    }
    signs(&it, &rewrap(&it, &old, &it.stack.kms_keys[1]).await.expect("re-wrapped")).await;
}

/// The deadline is one for all three: a call that is not answered leaves no time for the next.
#[tokio::test]
async fn kms_silent_at_each_of_the_three_calls() {
    let silent = |(action, after)| async move {
        let (it, old) = with_key().await;
        it.set_fault(Fault::always(FaultKind::Hang).on(action).after(after)).await;
        let refused = rewrap(&it, &old, &it.stack.kms_keys[1]).await;
        assert_eq!(refused.err(), Some(ErrorCode::KmsTimeout), "{action} after {after}");
        it.clear_faults().await;
        signs(&it, &old).await;
    };
    let [first, second, third] = CALLS.map(silent);
    tokio::join!(first, second, third);
}

/// Rotation as an operator does it: the parent stores the new record and serves the key from it.
#[tokio::test]
async fn a_stored_record_replaced_by_its_rewrapped_one() {
    let (it, old) = with_key().await;
    let new = rewrap(&it, &old, &it.stack.kms_keys[1]).await.expect("re-wrapped");
    it.tamper("a", |record| {
        record["kms_key_arn"] = new.kms_key_arn.as_str().into();
        record["data_key"] = STANDARD.encode(&new.data_key[..]).into();
        record["ciphertext"] = STANDARD.encode(&new.ciphertext[..]).into();
    });
    deny(&it, &it.stack.kms_keys[0], "Decrypt").await;
    it.signs("a").await;
    let view = it.api.get("/v1/keys/a").await.expect("a reply");
    assert_eq!(view.text("kms_key_arn"), it.stack.kms_keys[1]);
}
