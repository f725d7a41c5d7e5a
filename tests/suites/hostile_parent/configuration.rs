//! The parent chooses the configuration once, and with it PCR16. What he cannot do is change it, widen
//! it, or use what it does not list.

use serde_json::{Value, json};
use strongroom_protocol::document::AttestationDocument;
use strongroom_protocol::{ByteString, Configuration, ConfigurationPin, ErrorCode, Measurement, Request, Response};
use strongroom_tests::frames::EnclaveSocket;
use strongroom_tests::mock_kms::{Admitted, dedicated_key_policy};
use strongroom_tests::mock_nsm::image_pcrs;
use strongroom_tests::stack::{ADMINISTRATOR_ARN, IMAGE, PARENT_ARN, REGION};

use crate::scene::{Scene, assert_problem, eventually};

/// Admits the configurations in these files, and nothing else, to a KMS key.
async fn admit(it: &Scene, kms_key: &str, configurations: &[&[u8]]) {
    let image = image_pcrs(IMAGE)[0];
    let admitted: Vec<_> = configurations
        .iter()
        .map(|bytes| Admitted::new(image, Measurement::of(bytes).pcr16).expect("measured"))
        .collect();
    let policy = dedicated_key_policy(ADMINISTRATOR_ARN, PARENT_ARN, &admitted);
    it.stack.control.put_policy(kms_key, &policy).await.expect("put");
}

fn configuration(it: &Scene) -> Vec<u8> {
    std::fs::read(it.stack.directory().join("enclave.json")).expect("enclave.json")
}

/// Writes a configuration as an attacker would: past whoever admits them.
fn replace_configuration(it: &Scene, bytes: &[u8]) {
    Configuration::parse(bytes).expect("a configuration");
    std::fs::write(it.stack.directory().join("enclave.json"), bytes).expect("written");
}

fn with(bytes: &[u8], field: &str, value: Value) -> Vec<u8> {
    let mut configuration: Value = serde_json::from_slice(bytes).expect("JSON");
    configuration[field] = value;
    serde_json::to_vec(&configuration).expect("JSON")
}

#[tokio::test]
async fn a_create_request_with_a_kms_key_outside_the_configuration() {
    let it = Scene::start().await;
    let other = it.stack.control.create_key(None).await.expect("a key");
    for arn in [other, format!("arn:aws:kms:{REGION}:999999999999:key/00000000-0000-4000-8000-000000000000")] {
        let create = json!({ "key_id": "a", "algorithm": "ed25519", "kms_key_arn": arn });
        assert_problem(&it.try_create(create).await, 422, "kms-key-not-configured");
    }
    let create = json!({ "key_id": "a", "algorithm": "ed25519", "kms_key_arn": it.stack.kms_key });
    it.create_with(create).await;
    it.signs("a").await;
}

#[tokio::test]
async fn a_stored_record_with_a_kms_key_outside_the_configuration() {
    let it = Scene::start().await;
    it.create("a").await;
    let other = it.stack.control.create_key(None).await.expect("a key");
    let calls = it.outcomes("a").await.len();
    let original = it.tamper("a", |record| record["kms_key_arn"] = other.into());
    assert_problem(&it.sign("a").await, 422, "kms-key-not-configured");
    assert_eq!(it.outcomes("a").await.len(), calls, "KMS was not even asked");
    it.store("a", &original);
    it.signs("a").await;
}

/// Both keys are configured: then it is KMS that knows whose blob it is.
#[tokio::test]
async fn a_stored_record_with_another_configured_kms_key() {
    let mut it = Scene::start().await;
    let (first, second) = (it.stack.kms_key.clone(), it.stack.control.create_key(None).await.expect("a key"));
    it.stack.plan.configuration.insert("kms_keys".to_owned(), json!([first, second]));
    it.stack.reconfigure().await.expect("reconfigured");
    for key in [&first, &second] {
        admit(&it, key, &[&configuration(&it)]).await;
    }
    it.restart().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");

    it.create("a").await;
    let original = it.tamper("a", |record| record["kms_key_arn"] = second.into());
    assert_problem(&it.sign("a").await, 502, "record-refused");
    assert_eq!(it.outcomes("a").await.last().map(String::as_str), Some("Decrypt IncorrectKeyException"));
    it.store("a", &original);
    it.signs("a").await;
}

#[tokio::test]
async fn operations_outside_the_configuration() {
    let mut it = Scene::start().await;
    it.create("a").await;
    for (operation, creates, signs) in [("sign", 403, 200), ("generate", 201, 403)] {
        it.stack.plan.configuration.insert("operations".to_owned(), json!([operation]));
        it.stack.reconfigure().await.expect("reconfigured");
        it.restart().await.expect("restarted");
        it.stack.wait_ready().await.expect("ready");

        let created = it.try_create(json!({ "key_id": operation, "algorithm": "ed25519" })).await;
        let signed = it.sign("a").await;
        assert_eq!((created.status.as_u16(), signed.status.as_u16()), (creates, signs), "{operation}");
        for refused in [created, signed].iter().filter(|reply| !reply.status.is_success()) {
            assert_problem(refused, 403, "operation-not-configured");
        }
        // Evidence is no operation: what the enclave holds can always be asked.
        assert_eq!(it.api.get("/v1/keys/a/attestation?nonce=01").await.expect("a reply").status.as_u16(), 200);
    }
}

#[tokio::test]
async fn a_configuration_changed_after_boot() {
    let mut it = Scene::start().await;
    it.create("a").await;
    let bytes = configuration(&it);
    for changed in [
        with(&bytes, "max_hold_seconds", 7.into()),
        // The same JSON in other bytes is another configuration.
        [&bytes[..], b"\n"].concat(),
    ] {
        replace_configuration(&it, &changed);
        it.restart_parent().await.expect("restarted");
        eventually("the enclave has been asked", async || it.sign("a").await.problem() != "enclave-unavailable").await;
        assert_problem(&it.sign("a").await, 503, "enclave-configured-otherwise");
        let create = json!({ "key_id": "b", "algorithm": "ed25519" });
        assert_problem(&it.try_create(create).await, 503, "enclave-configured-otherwise");
        let ready = it.api.get("/readyz").await.expect("a reply");
        let reason = "the enclave holds another configuration: restart it";
        assert_eq!((ready.status.as_u16(), &ready.body["checks"]["configuration"]["reason"]), (503, &reason.into()));
    }
    replace_configuration(&it, &bytes);
    it.restart_parent().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    it.signs("a").await;
}

/// He may reboot the enclave with a configuration of his own. KMS then refuses the keys that exist.
#[tokio::test]
async fn existing_keys_under_an_attackers_configuration() {
    let mut it = Scene::start().await;
    it.create("a").await;
    let bytes = configuration(&it);
    replace_configuration(&it, &with(&bytes, "max_hold_seconds", 86_400.into()));
    it.restart().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    assert_problem(&it.sign("a").await, 502, "kms-denied");

    replace_configuration(&it, &bytes);
    it.restart().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    it.signs("a").await;
}

#[tokio::test]
async fn an_enclave_that_was_restarted_is_configured_again() {
    let mut it = Scene::start().await;
    it.create("a").await;
    it.create_held("held", 600).await;
    it.signs("held").await;
    for _ in 0..2 {
        it.stack.restart_enclave().await.expect("restarted");
        // No restart of the parent, and no waiting by the caller.
        it.signs("a").await;
        it.signs("held").await;
    }
}

/// Somebody in the machine was faster: whatever PCR16 is extended by from now on, it is not a measurement.
#[tokio::test]
async fn a_pcr16_that_was_used_before_configure() {
    for (how, shown) in [("extended", None), ("locked", Some(true)), ("extended-and-locked", Some(false))] {
        let mut it = Scene::unready(|plan| {
            plan.enclave_arguments = ["--dangerous-pcr16-used-before-configure", how].map(str::to_owned).into();
        })
        .await;
        let mut socket = it.enclave().await;
        let before = evidence(&mut socket).await;
        assert_eq!(before.pcr16.map(|pcr16| pcr16 == [0; 48]), shown, "{how}");

        // The honest configuration, as often as he likes: refused before anything is extended.
        let configuration = ByteString::try_from(configuration(&it)).expect("short");
        for _ in 0..2 {
            let configure = Request::Configure { configuration: configuration.clone() };
            assert_eq!(socket.ask(configure).await.expect("a reply").err(), Some(ErrorCode::ConfigurationFailed));
        }
        match socket.ask(Request::Health).await.expect("a reply") {
            Ok(Response::Health(health)) => assert!(!health.configured, "{how}"),
            other => panic!("{other:?}"),
        }
        // No verifier takes it for a configured enclave: it neither says so nor shows the register.
        let after = evidence(&mut socket).await;
        assert_eq!((after.user_data, after.pcr16), (b"strongroom-enclave-v1".to_vec(), before.pcr16), "{how}");
        assert_ne!(after.pcr16, Some(Measurement::of(&configuration).pcr16));
        let create = || it.try_create(json!({ "key_id": "a", "algorithm": "ed25519" }));
        eventually("the parent listens", async || it.api.get("/healthz").await.is_ok()).await;
        eventually("the enclave has been asked", async || create().await.problem() != "enclave-unavailable").await;
        assert_problem(&create().await, 503, "enclave-configuration-refused");
        assert_eq!(it.calls().await, 0, "KMS was not even asked");

        it.stack.plan.enclave_arguments.clear();
        it.stack.restart_enclave().await.expect("restarted");
        it.stack.wait_ready().await.expect("ready after a reboot");
        it.create("a").await;
        it.signs("a").await;
    }
}

/// Refused before anything is measured: the right one is taken without a reboot.
#[tokio::test]
async fn an_image_with_a_pin_takes_its_configuration_and_no_other() {
    let mut it = Scene::start().await;
    it.create("a").await;
    let own = configuration(&it);
    let pin = ConfigurationPin::of(&Measurement::of(&own)).to_text();
    std::fs::write(it.stack.directory().join("pin"), pin).expect("written");
    it.stack.plan.enclave_arguments = ["--configuration-pin", "pin"].map(str::to_owned).into();
    replace_configuration(&it, &with(&own, "max_hold_seconds", json!(7)));
    it.restart().await.expect("restarted");
    eventually("the parent says why", async || {
        let ready = it.api.get("/readyz").await.expect("a reply");
        ready.status.as_u16() == 503 && ready.body.to_string().contains("accepts one configuration only")
    })
    .await;
    assert_problem(&it.sign("a").await, 503, "enclave-configuration-refused");
    assert_eq!(evidence(&mut it.enclave().await).await.pcr16, None, "nothing was measured");

    replace_configuration(&it, &own);
    it.restart_parent().await.expect("restarted");
    it.stack.wait_ready().await.expect("its own is taken");
    it.signs("a").await;
}

/// What an enclave says of itself.
struct SelfPortrait {
    user_data: Vec<u8>,
    pcr16: Option<[u8; 48]>,
}

async fn evidence(socket: &mut EnclaveSocket) -> SelfPortrait {
    let nonce = ByteString::try_from(vec![1]).expect("short");
    match socket.ask(Request::Attest { nonce }).await.expect("a reply") {
        Ok(Response::Document(document)) => {
            let payload = AttestationDocument::parse(&document).expect("a document").payload;
            let pcr16 = payload.pcr(16).copied();
            SelfPortrait { user_data: payload.user_data.expect("user data").to_vec(), pcr16 }
        }
        other => panic!("{other:?}"),
    }
}
