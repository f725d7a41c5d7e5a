//! No secret in any output. The whole stack talks as much as it can and is used and misused in every way
//! that the other suites know; then all that it has said, answered and written is searched for key
//! bytes, data keys, credentials and tokens.

pub(crate) mod needles;

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secp256k1::SecretKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};
use strongroom_protocol::{Curve, KeyRecord, Request, Response};
use strongroom_tests::api::Api;
use strongroom_tests::mock_kms::envelope::Defect;
use strongroom_tests::mock_kms::{Fault, FaultKind, Principal};
use strongroom_tests::opened;
use strongroom_tests::stack::{PARENT_ARN, Plan};

use crate::scene::eventually;
use crate::stores::place::Place;
use needles::{Needles, forms};

const ACCESS_KEY_ID: &str = "ASIACANARYCANARY0001";
const SECRET_ACCESS_KEY: &str = "CanarySecretKeyQm7RtZ9Kx2Lw4Vb6Np8Hs0Jd";
const SESSION_TOKEN: &str = "CanarySessionTokenXf3Wc5Ty7Gu9Ia1Ol2Pe4Rk6Sm8Dn0Bq";
const TOKEN: &str = "srt_CanaryBearerTokenUv2Xy4Za6Bc8De0Fg";
const WRONG_TOKEN: &str = "srt_CanaryWrongTokenHj3Kl5Mn7Pq9Rs1Tu";

/// As much as everybody can be made to say.
fn talkative(plan: &mut Plan) {
    plan.log_level = "trace".to_owned();
    plan.configuration.insert("operations".to_owned(), json!(["generate", "sign", "rewrap"]));
    let hash = hex::encode(Sha256::digest(TOKEN));
    plan.parent_toml += &format!(
        "[[identities]]\nname = \"canary\"\ntoken_sha256 = \"{hash}\"\noperations = [\"read\", \"sign\", \"manage\"]\nkeys = [\"*\"]\n"
    );
    let third_parties = "trace,aws_config=trace,aws_sdk_dynamodb=trace,aws_sigv4=trace,aws_smithy_runtime=trace,\
                         aws_smithy_http_client=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,axum=trace";
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
        ("AWS_SESSION_TOKEN", SESSION_TOKEN),
        ("RUST_LOG", third_parties),
        ("RUST_BACKTRACE", "full"),
        ("RUST_LIB_BACKTRACE", "1"),
        ("AWS_LOG", "trace"),
        ("SMITHY_LOG", "trace"),
    ] {
        plan.parent_environment.push((name.to_owned(), value.to_owned()));
    }
}

#[tokio::test]
async fn with_the_directory_store_no_secret_is_in_any_output() {
    assert_silent(Place::directory_planned(talkative).await).await;
}

#[tokio::test]
async fn with_an_aws_store_no_secret_is_in_any_output() {
    assert_silent(Place::dynamodb_planned("canary", talkative).await).await;
}

async fn assert_silent(mut it: Place) {
    let mut said = Vec::new();
    admit(&it).await;
    use_everything(&it, &mut said).await;
    let mut rewrapped = Vec::new();
    for (key_id, _) in KEYS {
        rewrapped.push(rewrap(&it, key_id, &mut said).await);
    }
    misuse_everything(&it, &mut said).await;

    let needles = needles(&it, &rewrapped).await;
    for process in it.scene.stack.process_ids().into_iter().flatten().skip(1) {
        said.extend(fs::read(format!("/proc/{process}/cmdline")).expect("a running process"));
    }
    assert!(it.scene.stack.stop_parent().await.expect("it ends").success());

    assert_eq!(needles.found_in(&said), [""; 0], "in replies or on a command line");
    let (found, read) = needles.found_under(it.scene.stack.directory());
    assert_eq!(found, [""; 0]);
    assert!(read > 20_000, "only {read} bytes were there to search");
    for (log, line) in [("parent.log", "/v1/keys/{key_id}/sign"), ("enclave.log", "configuration measured and locked")]
    {
        let log = fs::read_to_string(it.scene.stack.directory().join(log)).expect("a log");
        assert!(log.contains(line), "nothing was logged: {log}");
    }
}

/// mock-kms learns the credentials, which the parent has had from the start.
async fn admit(it: &Place) {
    let principal = Principal {
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret_access_key: SECRET_ACCESS_KEY.to_owned(),
        session_token: Some(SESSION_TOKEN.to_owned()),
        arn: PARENT_ARN.to_owned(),
        expires_at_ms: None,
    };
    it.scene.stack.control.add_principal(&principal).await.expect("added");
}

const KEYS: [(&str, &str); 2] = [("evm", "secp256k1"), ("solana", "ed25519")];

async fn use_everything(it: &Place, said: &mut Vec<u8>) {
    let api = it.scene.api.with_token(TOKEN);
    for (key_id, algorithm) in KEYS {
        let policy = json!({ "payloads": ["digest", "message"], "hold_seconds": 0 });
        let create = json!({ "key_id": key_id, "algorithm": algorithm, "policy": policy });
        assert_eq!(post(&api, "/v1/keys", &create, said).await, 201);
        for path in [format!("/v1/keys/{key_id}"), format!("/v1/keys/{key_id}/attestation?nonce=00")] {
            assert_eq!(get(&api, &path, said).await, 200);
        }
        for body in signatures(algorithm) {
            assert_eq!(post(&api, &format!("/v1/keys/{key_id}/sign"), &body, said).await, 200);
        }
    }
    for path in ["/v1/keys", "/v1/attestation?nonce=00", "/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(get(&api, path, said).await, 200);
    }
}

/// A key's secret under another data key; asked of the enclave itself, whose reply is searched too.
async fn rewrap(it: &Place, key_id: &str, said: &mut Vec<u8>) -> KeyRecord {
    let record = it.record(key_id).await;
    let (presented, kms_key_arn) = (record.present().expect("encodes"), record.kms_key_arn);
    let request = Request::Rewrap { record: presented, kms_key_arn };
    match it.scene.enclave().await.ask(request).await.expect("a reply") {
        Ok(Response::Rewrapped(record)) => {
            said.extend(record.present().expect("encodes").into_vec());
            *record
        }
        other => panic!("{other:?}"),
    }
}

fn signatures(algorithm: &str) -> Vec<Value> {
    let hashed = json!({ "type": "message", "message": "00", "hash": "keccak256" });
    match algorithm {
        "secp256k1" => ["ecdsa", "bip340"].map(|scheme| json!({ "payload": hashed, "scheme": scheme })).to_vec(),
        _ => vec![json!({ "payload": { "type": "message", "message": "00" } })],
    }
}

/// Errors are where programs talk most.
async fn misuse_everything(it: &Place, said: &mut Vec<u8>) {
    let (api, control) = (it.scene.api.with_token(TOKEN), &it.scene.stack.control);
    assert_eq!(get(&it.scene.api.with_token(WRONG_TOKEN), "/v1/keys", said).await, 401);

    let sign = &signatures("ed25519")[0];
    for (kind, status) in [
        (FaultKind::PlaintextBeside, 502),
        (FaultKind::PlaintextInstead, 502),
        (FaultKind::Envelope(Defect::Padding), 502),
        (FaultKind::GarbageBody, 0),
        (FaultKind::CutReply, 0),
        (FaultKind::InternalError, 503),
        (FaultKind::Throttle, 503),
    ] {
        control.set_fault(&Fault::always(kind.clone())).await.expect("set");
        let got = post(&api, "/v1/keys/solana/sign", sign, said).await;
        assert!(if status == 0 { got >= 500 } else { got == status }, "{kind:?}: {got}");
        control.clear_faults().await.expect("cleared");
    }
    // The directory store sees this at once; DynamoDB's records are known for a minute.
    let original = it.tamper("solana", |record| record["policy"]["hold_seconds"] = 9.into()).await;
    assert!([200, 502].contains(&post(&api, "/v1/keys/solana/sign", sign, said).await));
    it.write("solana", &original.replace("ed25519", "damaged")).await;
    assert!([200, 502].contains(&get(&api, "/v1/keys/solana", said).await));
    it.write("solana", &original).await;

    control.expire_principal(ACCESS_KEY_ID).await.expect("expired");
    assert_eq!(post(&api, "/v1/keys/evm/sign", &signatures("secp256k1")[0], said).await, 503);
    admit(it).await;
    eventually("new credentials are taken", async || {
        let reply = api.sign("evm", signatures("secp256k1")[0].clone()).await.expect("a reply");
        reply.status.as_u16() == 200
    })
    .await;
}

async fn get(api: &Api, path: &str, said: &mut Vec<u8>) -> u16 {
    keep(api.get(path).await.expect("a reply"), said)
}

async fn post(api: &Api, path: &str, body: &Value, said: &mut Vec<u8>) -> u16 {
    keep(api.post(path, body.clone()).await.expect("a reply"), said)
}

fn keep(reply: strongroom_tests::api::Reply, said: &mut Vec<u8>) -> u16 {
    for (name, value) in &reply.headers {
        said.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
    }
    said.extend(reply.body.to_string().into_bytes());
    said.push(b'\n');
    reply.status.as_u16()
}

/// Everything secret that there is, key bytes included: whoever owns mock-kms can open a record.
async fn needles(it: &Place, rewrapped: &[KeyRecord]) -> Needles {
    let mut needles = Needles::default();
    for (name, secret) in [
        ("the secret access key", SECRET_ACCESS_KEY),
        ("the session token", SESSION_TOKEN),
        ("the bearer token", TOKEN),
        ("the wrong bearer token", WRONG_TOKEN),
    ] {
        needles.add(name, secret.as_bytes());
    }
    let stack = &it.scene.stack;
    for (key_id, _) in KEYS {
        let record = it.record(key_id).await;
        let data_key = opened::data_key(stack, &record).expect("it opens");
        let secret = opened::secret(stack, &record).expect("it opens");
        needles.add(&format!("the data key of {key_id}"), &data_key);
        needles.add(&format!("the key {key_id}"), &secret);
        match record.algorithm.curve() {
            // RFC 8032 section 5.1.5: the scalar and the prefix, of which either suffices to forge.
            Curve::Ed25519 => {
                let mut expanded: [u8; 64] = Sha512::digest(&secret).into();
                needles.add(&format!("the expansion of {key_id}"), &expanded);
                expanded[0] &= 248;
                expanded[31] = expanded[31] & 127 | 64;
                needles.add(&format!("the scalar of {key_id}"), &expanded[..32]);
            }
            // BIP-340 signs with the negated scalar where y is odd.
            Curve::Secp256k1 => {
                let secret = SecretKey::from_secret_bytes(secret.try_into().expect("32 bytes")).expect("a scalar");
                needles.add(&format!("the negated key {key_id}"), &secret.negate().to_secret_bytes());
            }
        }
    }
    for record in rewrapped {
        let data_key = opened::data_key(stack, record).expect("it opens");
        needles.add(&format!("the second data key of {}", record.key_id), &data_key);
    }
    needles
}

/// The control: whatever is planted is found, wherever it stands.
#[test]
fn a_planted_secret_is_found_in_every_form() {
    let secret: Vec<u8> = (0..40_u8).map(|n| n.wrapping_mul(83) ^ 0x5a).collect();
    let mut needles = Needles::default();
    needles.add("planted", &secret);
    assert_eq!(needles.found_in(&[0x5a; 1000]), [""; 0]);
    for (form, text) in forms(&secret) {
        for before in ["", "x", "key=", "\0\u{7f}\n"] {
            let planted = [before.as_bytes(), &text, b"..."].concat();
            assert!(!needles.found_in(&planted).is_empty(), "{form} after {before:?}");
        }
    }
    // Base64 of something longer, at each alignment; and a part of the secret only.
    for before in 0..6 {
        let longer = STANDARD.encode([&vec![0xee; before], &secret[..], b"tail"].concat());
        assert!(!needles.found_in(longer.as_bytes()).is_empty(), "after {before} bytes");
    }
    assert!(!needles.found_in(&secret[..16]).is_empty() && !needles.found_in(&secret[24..]).is_empty());

    let folder = strongroom_tests::stack::test_directory().expect("a folder");
    fs::create_dir(folder.path().join("deep")).expect("made");
    fs::write(folder.path().join("deep/log"), format!("secret: {secret:?}")).expect("written");
    let (found, _) = needles.found_under(folder.path());
    assert!(!found.is_empty() && found.iter().all(|place| place.contains("deep/log")), "{found:?}");
}
