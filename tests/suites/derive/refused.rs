//! What a seed refuses: paths beyond its policy, paths that are none, policies that do not fit, records that were
//! changed. After each, the next good request is served.

use serde_cbor::Value;
use strongroom_protocol::{Algorithm, ErrorCode, KeyRecord, MAX_COMPONENTS, Policy, RequestFrame, frame};

use super::*;
use crate::frames::assert_dropped;

/// Both requests that take a path give the same answer.
async fn assert_refused(bench: &mut Bench, path: &str, code: ErrorCode) {
    assert_eq!(bench.sign(Some(path)).await.err(), Some(code), "signing at {path}");
    assert_eq!(bench.public_key(path).await.err(), Some(code), "the public key at {path}");
}

#[tokio::test]
async fn a_path_beyond_the_policy() {
    for hold_seconds in [0, 600] {
        let mut bench = Bench::new("bip32-secp256k1", &["m/44'/60'/0'", "m/7"], hold_seconds).await;
        for good in ["m/44'/60'/0'", "m/44'/60'/0'/0/5", "m/7", "m/7/1'"] {
            bench.sign(Some(good)).await.expect("signed");
            bench.public_key(good).await.expect("derived");
        }
        for bad in ["m", "m/44'", "m/44'/60'", "m/44'/60'/1'", "m/44'/60'/0", "m/44'/600'/0'", "m/70", "m/7'", "m/0/7"]
        {
            assert_refused(&mut bench, bad, ErrorCode::PathDenied).await;
        }
        bench.sign(Some("m/7")).await.expect("signed");
    }
}

#[tokio::test]
async fn a_seed_without_a_path_and_a_path_without_a_seed() {
    let mut bench = Bench::new("slip10-ed25519", &["m"], 0).await;
    assert_eq!(bench.sign(None).await.err(), Some(ErrorCode::PathRequired));
    bench.it.create("a").await;
    bench.record = bench.it.record("a");
    for path in ["m", "m/0'"] {
        assert_refused(&mut bench, path, ErrorCode::PathInvalid).await;
    }
    bench.sign(None).await.expect("signed");
}

#[tokio::test]
async fn a_step_of_ed25519_that_is_not_hardened() {
    let mut bench = Bench::new("slip10-ed25519", &["m/44'/501'"], 600).await;
    for bad in ["m/44'/501'/0", "m/44'/501'/0'/0", "m/44'/501'/0/0'"] {
        assert_refused(&mut bench, bad, ErrorCode::PathInvalid).await;
    }
    assert_refused(&mut bench, "m/44'/501", ErrorCode::PathDenied).await;
    bench.sign(Some("m/44'/501'/0'/0'")).await.expect("signed");
}

/// A frame with a longer path is none of the contract's: its sender is dropped.
#[tokio::test]
async fn a_path_that_is_too_deep() {
    let mut bench = Bench::new("bip32-secp256k1", &["m"], 0).await;
    let deepest = format!("m{}", "/1".repeat(MAX_COMPONENTS));
    bench.sign(Some(&deepest)).await.expect("signed");
    let record = bench.record.present().expect("encodes");
    let request = Request::DerivePublicKey { record, path: parse(&deepest) };
    let item = frame::encode_item(&RequestFrame { id: 9, request }).expect("encodes");
    let longer = deeper(serde_cbor::from_slice(&item).expect("CBOR"));
    assert_ne!(longer, serde_cbor::from_slice(&item).expect("CBOR"), "nothing was changed");
    let mut socket = bench.it.enclave().await;
    socket.send_item(&serde_cbor::to_vec(&longer).expect("CBOR")).await.expect("sent");
    assert_dropped(socket, "11 components").await;
    bench.sign(Some(&deepest)).await.expect("signed");
}

/// The same message, its path one component longer.
fn deeper(value: Value) -> Value {
    match value {
        Value::Array(components) if components.len() == MAX_COMPONENTS => {
            Value::Array(components.into_iter().chain([Value::Integer(1)]).collect())
        }
        Value::Map(fields) => Value::Map(fields.into_iter().map(|(name, value)| (name, deeper(value))).collect()),
        other => other,
    }
}

#[tokio::test]
async fn a_policy_that_does_not_fit_its_algorithm() {
    let it = Scene::start().await;
    let mut socket = it.enclave().await;
    let calls = it.calls().await;
    for (name, algorithm, prefixes) in [
        ("seed_without_paths", "bip32-secp256k1", &[][..]),
        ("ed25519_seed_without_paths", "slip10-ed25519", &[]),
        ("plain_key_with_paths", "secp256k1", &["m"]),
        ("ed25519_path_not_hardened", "slip10-ed25519", &["m/44'", "m/44'/501'/0"]),
    ] {
        let refused = generate(&mut socket, algorithm, policy(prefixes, 0)).await.err();
        assert_eq!(refused, Some(ErrorCode::PolicyInvalid), "{name}");
    }
    assert_eq!(it.calls().await, calls, "KMS was not asked");
    generate(&mut socket, "slip10-ed25519", policy(&["m/44'"], 0)).await.expect("generated");
}

/// Paths and exportability are bound, and so is what the sealed bytes are.
#[tokio::test]
async fn a_record_with_other_paths_another_algorithm_or_made_exportable() {
    let mut bench = Bench::new("bip32-secp256k1", &["m/44'/60'"], 600).await;
    bench.sign(Some("m/44'/60'/0'")).await.expect("signed");
    let good = bench.record.clone();
    let widened = |prefixes: &[&str]| KeyRecord { policy: policy(prefixes, 600), ..good.clone() };
    for (name, record) in [
        ("all_paths", widened(&["m"])),
        ("a_path_more", widened(&["m/44'/60'", "m/44'/0'"])),
        ("a_shorter_path", widened(&["m/44'"])),
        ("no_paths", KeyRecord { policy: Policy::default(), ..good.clone() }),
        ("exportable", KeyRecord { policy: good.policy.clone().with_exportable(true), ..good.clone() }),
        (
            "the_seed_as_a_plain_key",
            KeyRecord { algorithm: Algorithm::Secp256k1, policy: policy(&[], 600), ..good.clone() },
        ),
        ("the_other_curve", KeyRecord { algorithm: Algorithm::Slip10Ed25519, ..good.clone() }),
    ] {
        bench.record = record;
        let path = (name != "the_seed_as_a_plain_key").then_some("m/44'/60'/0'");
        assert_eq!(bench.sign(path).await.err(), Some(ErrorCode::RecordRefused), "{name}");
    }
    bench.record = good;
    bench.sign(Some("m/44'/60'/0'")).await.expect("signed");
}
