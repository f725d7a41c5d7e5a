//! Adoption: a secret as AWS's samples leave it, a base64 KMS ciphertext of a private key in hex without encryption
//! context, becomes a key of the enclave's. Only that, only where the configuration says so, and only the expected key.

use aws_sdk_kms::primitives::Blob;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use strongroom_protocol::Measurement;
use strongroom_tests::api::Reply;
use strongroom_tests::mock_kms::{Fault, FaultKind};
use strongroom_tests::mock_nsm::image_pcrs;
use strongroom_tests::moto::Moto;
use strongroom_tests::pki::NITRO_ROOT_FILE;
use strongroom_tests::stack::{IMAGE, PARENT_ARN, REGION};

use super::files::write;
use super::parents::keeping;
use super::{asked, stored};
use crate::canary::needles::Needles;
use crate::command_line::{command, ended, said};
use crate::hostile_parent::kms_direct::as_parent;
use crate::scene::{Scene, assert_problem};

/// What the sample's secret holds in the test of all the way: a key that is found if anybody writes it down.
const SECRET: &str = "5b2c6f1e8d3a497084f6e1d2c3b4a5968778695a4b3c2d1e0f1029384756abcd";

/// The secret key 1 of secp256k1.
const ONE: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const ADDRESS: &str = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf";
const PUBLIC_KEY: &str = "0x0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

/// An enclave that adopts from a KMS key: whoever fills in secrets may encrypt, as with AWS's samples, and this image
/// with this configuration may decrypt. The samples pin the image only; docs/custody.md says what PCR16 is for.
struct Adopting {
    it: Scene,
    old_key: String,
}

impl Adopting {
    async fn start() -> Self {
        let mut it = Scene::planned(|plan| plan.log_level = "trace".to_owned()).await;
        let nobody = json!({ "Version": "2012-10-17", "Statement": [] });
        let old_key = it.stack.control.create_key(Some(nobody)).await.expect("a KMS key");
        let configuration = &mut it.stack.plan.configuration;
        configuration.insert("operations".to_owned(), json!(["generate", "sign", "adopt"]));
        configuration.insert("adopt_kms_keys".to_owned(), json!([old_key]));
        it.stack.reconfigure().await.expect("reconfigured");
        let adopting = Self { it, old_key };
        adopting.admit().await;
        adopting.restarted().await
    }

    async fn restarted(mut self) -> Self {
        self.it.restart().await.expect("restarted");
        self.it.stack.wait_ready().await.expect("ready");
        self
    }

    /// Lets this image, with the configuration as it is now, decrypt what lies under the old key.
    async fn admit(&self) {
        let configuration = std::fs::read(self.it.stack.directory().join("enclave.json")).expect("a configuration");
        let allow = |action: &str, condition: Value| {
            let mut statement =
                json!({ "Effect": "Allow", "Principal": { "AWS": PARENT_ARN }, "Action": action, "Resource": "*" });
            if !condition.is_null() {
                statement["Condition"] = condition;
            }
            statement
        };
        let measured = json!({
            "StringEqualsIgnoreCase": {
                "kms:RecipientAttestation:PCR0": hex::encode(image_pcrs(IMAGE)[0]),
                "kms:RecipientAttestation:PCR16": hex::encode(Measurement::of(&configuration).pcr16),
            },
        });
        let policy = json!({
            "Version": "2012-10-17",
            "Statement": [allow("kms:Encrypt", Value::Null), allow("kms:Decrypt", measured)],
        });
        self.it.stack.control.put_policy(&self.old_key, &policy).await.expect("put");
    }

    /// What a sample's secret says.
    async fn secret(&self, plaintext: &str) -> String {
        let encrypt = as_parent(&self.it.stack).encrypt().key_id(&self.old_key).plaintext(Blob::new(plaintext));
        STANDARD.encode(encrypt.send().await.expect("encrypted").ciphertext_blob.expect("a blob"))
    }

    async fn adopt(&self, body: Value) -> Reply {
        self.it.api.post("/v1/keys/adopted/adopt", body).await.expect("a reply")
    }

    async fn command(&self, environment: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
        let enclave = ["--pcrs", "pcrs.json", "--attestation-root", NITRO_ROOT_FILE];
        let url: &[&str] = if arguments.contains(&"--url") { &[] } else { &["--url", &self.it.stack.url] };
        let arguments = [&["key", "adopt", "adopted", "--algorithm", "secp256k1"], arguments, &enclave, url].concat();
        let mut command = command(self.it.stack.directory(), &arguments);
        command.envs(environment.iter().copied());
        let output = ended(&mut command).await;
        (output.status.code().expect("a code"), said(&output))
    }
}

fn body(ciphertext: &str) -> Value {
    json!({ "algorithm": "secp256k1", "ciphertext": ciphertext, "expected": { "address": ADDRESS } })
}

/// For the description of the interface.
pub(super) async fn replies() -> impl Iterator<Item = Reply> {
    let adopting = Adopting::start().await;
    let secret = adopting.secret(ONE).await;
    let mut other = body(&secret);
    other["expected"] = json!({ "public_key": PUBLIC_KEY.replace('7', "8") });
    let mut replies = Vec::new();
    for body in [other, body("AAAA"), body(&secret), body(&secret), json!({})] {
        replies.push(adopting.adopt(body).await);
    }
    replies.into_iter()
}

/// One command, from Secrets Manager to a verified key; the old secret stays as it is.
#[tokio::test]
async fn a_secret_of_awss_samples_is_adopted_by_one_command_and_left_alone() {
    let adopting = Adopting::start().await;
    let moto = Moto::start().await.expect("moto");
    let secrets = moto.secrets_manager();
    let secret = adopting.secret(SECRET).await;
    let facts = asked("key_files.py", &[json!({ "algorithm": "secp256k1", "secret": SECRET })]).await.remove(0);
    let address = facts["address"].as_str().expect("text");
    secrets.create_secret().name("eth1/key").secret_string(&secret).send().await.expect("created");
    let endpoint = format!("http://{}", moto.address());
    let aws = [
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &*endpoint),
        ("AWS_ACCESS_KEY_ID", "AKIAOPERATOR00000001"),
        ("AWS_SECRET_ACCESS_KEY", "test-only/operator"),
        ("AWS_REGION", REGION),
    ];
    let calls = adopting.it.calls().await;
    let (code, told) =
        adopting.command(&aws, &["--secret-id", "eth1/key", "--expect-address", &address.to_lowercase()]).await;
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("VERIFIED  key adopted") && told.contains(address) && told.contains("adopted"), "{told}");
    let outcomes = adopting.it.outcomes_after(calls).await;
    assert_eq!(
        outcomes[..3],
        ["Decrypt Success", "GenerateDataKey Success", "Decrypt Success"],
        "adopted, sealed, opened"
    );
    let call = &adopting.it.stack.control.calls(calls).await.expect("the log")[0];
    assert_eq!(call.key_arn.as_deref(), Some(&*adopting.old_key));
    assert!(call.encryption_context.is_empty() && call.attested.is_some());

    let kept = secrets.get_secret_value().secret_id("eth1/key").send().await.expect("there");
    assert_eq!(kept.secret_string.as_deref(), Some(&*secret));
    let record = adopting.it.stored("adopted");
    assert_eq!(
        (&record["origin"], &record["public_key"]),
        (&json!("adopted"), &json!(format!("0x{}", facts["public_key"].as_str().expect("text"))))
    );
    let payload = json!({ "type": "message", "message": "0x00", "hash": "keccak256" });
    let signed = adopting.it.api.sign("adopted", json!({ "payload": payload })).await.expect("a reply");
    assert_eq!(signed.status.as_u16(), 200, "{}", signed.body);
    let blind = json!({ "payload": { "type": "digest", "digest": "00".repeat(32) } });
    assert_problem(&adopting.it.api.sign("adopted", blind).await.expect("a reply"), 403, "policy-denied");

    let mut needles = Needles::default();
    needles.add("the adopted key", &hex::decode(SECRET).expect("hex"));
    let (found, read) = needles.found_under(adopting.it.stack.directory());
    assert!(found.is_empty() && read > 10_000, "{found:?}");

    let (code, told) = adopting.command(&aws, &["--secret-id", "nowhere", "--expect-address", ADDRESS]).await;
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("the secret cannot be fetched"), "{told}");
}

#[tokio::test]
async fn a_key_is_recognised_by_its_public_key_or_address_in_every_form_that_samples_use() {
    let adopting = Adopting::start().await;
    for (plaintext, expected) in [
        (ONE.to_owned(), ["--expect-public-key", PUBLIC_KEY]),
        (format!("0x{ONE}"), ["--expect-address", ADDRESS]),
        (format!("{ONE}\n"), ["--expect-address", ADDRESS]),
    ] {
        let file = write(&adopting.it, "secret.b64", &adopting.secret(&plaintext).await);
        let (code, told) = adopting.command(&[], &[&["--ciphertext-file", &file][..], &expected].concat()).await;
        assert_eq!(code, 0, "{plaintext:?}: {told}");
        std::fs::remove_file(adopting.it.stack.directory().join("keys/adopted.json")).expect("removed");
    }
    // RFC 8032's first key, for the other curve.
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let public_key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let reply = adopting
        .adopt(json!({
            "algorithm": "ed25519", "ciphertext": adopting.secret(seed).await, "expected": { "public_key": public_key },
            "adopt_kms_key_arn": adopting.old_key, "policy": { "payloads": ["message"], "hold_seconds": 5 },
        }))
        .await;
    assert_eq!(reply.status.as_u16(), 201, "{}", reply.body);
    assert_eq!(reply.text("public_key"), format!("0x{public_key}"));
}

#[tokio::test]
async fn what_is_not_the_expected_key_is_refused_and_nothing_is_written() {
    let adopting = Adopting::start().await;
    let it = &adopting.it;
    let good = adopting.secret(ONE).await;
    let two = format!("{}2", &ONE[..63]);
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let mut damaged = STANDARD.decode(&good).expect("base64");
    *damaged.last_mut().expect("bytes") ^= 1;
    it.create("sealed").await;
    for (name, ciphertext, slug) in [
        ("another_key", adopting.secret(&two).await, "key-mismatch"),
        ("zero", adopting.secret(&"0".repeat(64)).await, "key-material-invalid"),
        ("out_of_range", adopting.secret(order).await, "key-material-invalid"),
        ("no_hex", adopting.secret("correct horse battery staple").await, "adoption-refused"),
        ("too_short", adopting.secret(&ONE[2..]).await, "adoption-refused"),
        ("raw_bytes", adopting.secret(&"\u{1}".repeat(32)).await, "adoption-refused"),
        ("damaged_ciphertext", STANDARD.encode(damaged), "adoption-refused"),
        ("no_ciphertext", STANDARD.encode("nonsense"), "adoption-refused"),
        // A record's own data key: wrapped by another KMS key, and bound.
        ("a_records_data_key", STANDARD.encode(&*it.record("sealed").data_key), "adoption-refused"),
    ] {
        let reply = adopting.adopt(body(&ciphertext)).await;
        assert_eq!((reply.status.as_u16(), reply.problem()), (422, slug), "{name}: {}", reply.body);
        assert_eq!(stored(it), ["sealed"], "{name}");
    }
    let file = write(it, "secret.b64", &good);
    let another = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF";
    let (code, told) = adopting.command(&[], &["--ciphertext-file", &file, "--expect-address", another]).await;
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("key-mismatch"), "{told}");
}

#[tokio::test]
async fn adopted_keys_sign_messages_only_and_are_no_seeds() {
    let adopting = Adopting::start().await;
    let secret = adopting.secret(ONE).await;
    let calls = adopting.it.calls().await;
    for (name, change) in [
        ("digests", json!({ "policy": { "payloads": ["message", "digest"] } })),
        ("exportable", json!({ "policy": { "payloads": ["message"], "exportable": true } })),
        ("seed", json!({ "algorithm": "bip32-secp256k1", "policy": { "payloads": ["message"], "paths": ["m"] } })),
        ("nothing_expected", json!({ "expected": {} })),
        ("two_expectations", json!({ "expected": { "address": ADDRESS, "public_key": PUBLIC_KEY } })),
        ("no_base64", json!({ "ciphertext": "%" })),
        ("empty", json!({ "ciphertext": "" })),
    ] {
        let mut body = body(&secret);
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        let reply = adopting.adopt(body).await;
        assert_eq!((reply.status.as_u16(), reply.problem()), (422, "invalid-request"), "{name}: {}", reply.body);
    }
    assert_eq!(adopting.it.calls().await, calls, "KMS was not asked");
}

/// The parent's checks are a courtesy: the enclave refuses by itself.
#[tokio::test]
async fn the_enclave_itself_refuses_wider_policies_and_other_kms_keys() {
    use strongroom_protocol::{Algorithm, ErrorCode, ExpectedKey, KeyDescription, PayloadKind, Policy, Request};
    let adopting = Adopting::start().await;
    let ciphertext = STANDARD.decode(adopting.secret(ONE).await).expect("base64");
    let mut socket = adopting.it.enclave().await;
    let policy = |kinds: &[PayloadKind]| Policy::new(kinds.to_vec(), 0).expect("a policy");
    let messages = policy(&[PayloadKind::Message]);
    let seed = messages.clone().with_paths(vec!["m".parse().expect("a path")]).expect("a policy");
    for (name, algorithm, policy, adopt_key, code) in [
        (
            "digests",
            Algorithm::Secp256k1,
            policy(&[PayloadKind::Message, PayloadKind::Digest]),
            None,
            ErrorCode::PolicyInvalid,
        ),
        ("exportable", Algorithm::Secp256k1, messages.clone().with_exportable(true), None, ErrorCode::PolicyInvalid),
        ("seed", Algorithm::Bip32Secp256k1, seed, None, ErrorCode::PolicyInvalid),
        (
            "key_of_records",
            Algorithm::Secp256k1,
            messages,
            Some(&adopting.it.stack.kms_key),
            ErrorCode::KmsKeyNotConfigured,
        ),
    ] {
        let request = Request::AdoptKey {
            description: Box::new(KeyDescription {
                key_id: "adopted".parse().expect("an id"),
                algorithm,
                policy,
                kms_key_arn: None,
            }),
            adopt_kms_key_arn: adopt_key.map(|arn| arn.parse().expect("an ARN")),
            ciphertext: ciphertext.clone().try_into().expect("short"),
            expected: ExpectedKey::Address(ADDRESS.as_bytes().try_into().expect("short")),
        };
        assert_eq!(socket.ask(request).await.expect("a reply").err(), Some(code), "{name}");
    }
}

#[tokio::test]
async fn adoption_is_a_ceremony_of_the_configuration_and_of_the_kms_key() {
    let adopting = Adopting::start().await;
    let secret = adopting.secret(ONE).await;
    let mut another = body(&secret);
    another["adopt_kms_key_arn"] = adopting.it.stack.kms_key.clone().into();
    assert_problem(&adopting.adopt(another).await, 422, "kms-key-not-configured");
    let usual = Scene::start().await;
    let reply = usual.api.post("/v1/keys/adopted/adopt", body(&secret)).await.expect("a reply");
    assert_problem(&reply, 403, "operation-not-configured");
    // The same image under a configuration of the parent's own, which could name KMS keys of the parent's own for the
    // new record: the old key's policy does not admit its PCR16.
    let mut adopting = adopting;
    adopting.it.stack.plan.configuration.insert("max_held_keys".to_owned(), json!(1));
    adopting.it.stack.reconfigure().await.expect("reconfigured");
    let adopting = adopting.restarted().await;
    assert_problem(&adopting.adopt(body(&secret)).await, 502, "kms-denied");
    assert_eq!(stored(&adopting.it), [""; 0]);
    adopting.admit().await;
    assert_eq!(adopting.adopt(body(&secret)).await.status.as_u16(), 201, "the control: nothing else was wrong");
}

/// The parent says "adopted" and has another key under the name, or hands on another secret than it was given.
#[tokio::test]
async fn a_parent_that_keeps_another_key_is_found_out() {
    let adopting = Adopting::start().await;
    let it = &adopting.it;
    it.create_with(json!({ "key_id": "adopted", "algorithm": "secp256k1" })).await;
    let between = keeping(it, "adopted", "adopt").await;
    let file = write(it, "secret.b64", &adopting.secret(ONE).await);
    let (code, told) =
        adopting.command(&[], &["--ciphertext-file", &file, "--expect-address", ADDRESS, "--url", &between.url]).await;
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("REFUSED  key adopted") && told.contains("not the expected key"), "{told}");
}

/// Nothing is sent to an enclave that is not the expected one, and none of a name that is taken.
#[tokio::test]
async fn adoption_asks_first_who_is_there() {
    let adopting = Adopting::start().await;
    let it = &adopting.it;
    let file = write(it, "secret.b64", &adopting.secret(ONE).await);
    let pcrs = std::fs::read_to_string(it.stack.directory().join("pcrs.json")).expect("pcrs.json");
    let mut other: Value = serde_json::from_str(&pcrs).expect("JSON");
    other["PCR16"] = "22".repeat(48).into();
    write(it, "pcrs.json", &other.to_string());
    let calls = it.calls().await;
    let arguments = ["--ciphertext-file", &*file, "--expect-address", ADDRESS];
    let (code, told) = adopting.command(&[], &arguments).await;
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("REFUSED  the enclave: PCR16") && told.contains("Nothing was sent"), "{told}");
    assert_eq!((it.calls().await, stored(it)), (calls, vec![]));
    write(it, "pcrs.json", &pcrs);
    it.create("adopted").await;
    let (code, told) = adopting.command(&[], &arguments).await;
    assert_eq!(code, 5, "{told}");
    for (name, content, expected, words) in
        [("no_base64", "%", ADDRESS, "not base64"), ("no_address", "AAAA", "0x7E5F", "--expect-address")]
    {
        let file = write(it, "bad.b64", content);
        let (code, told) = adopting.command(&[], &["--ciphertext-file", &file, "--expect-address", expected]).await;
        assert_eq!(code, 2, "{name}: {told}");
        assert!(told.contains(words), "{name}: {told}");
    }
}

/// KMS's reply is judged as for every other call: plaintext where an envelope was asked for is no reply.
#[tokio::test]
async fn a_plaintext_reply_is_refused() {
    let adopting = Adopting::start().await;
    let secret = adopting.secret(ONE).await;
    for kind in [FaultKind::PlaintextInstead, FaultKind::PlaintextBeside] {
        adopting.it.set_fault(Fault::always(kind)).await;
        assert_problem(&adopting.adopt(body(&secret)).await, 502, "kms-reply-refused");
        adopting.it.clear_faults().await;
    }
    assert_eq!(stored(&adopting.it), [""; 0]);
}
