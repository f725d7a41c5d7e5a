//! mock-kms, driven as a process by a plain `aws-sdk-kms` client over real sockets: it does what KMS
//! does and refuses as KMS refuses.

mod attested;
mod envelope;
mod faults;
pub(crate) mod running;
mod sigv4;

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use serde_json::json;
use strongroom_tests::mock_kms::{CALLS_FILE, KeyState};

use running::{ADMINISTRATOR, MockKms, SESSION, refusal};

/// A KMS with one key of KMS's default policy.
async fn with_key() -> (MockKms, Client, String) {
    let kms = MockKms::start().await;
    let key = kms.control.create_key(None).await.expect("a key");
    let client = kms.client();
    (kms, client, key)
}

async fn encrypted(client: &Client, key: &str) -> Blob {
    let reply = client.encrypt().key_id(key).plaintext(Blob::new("secret")).encryption_context("a", "b");
    reply.send().await.expect("encrypted").ciphertext_blob.expect("a blob")
}

#[tokio::test]
async fn what_is_encrypted_decrypts_with_or_without_the_keys_name() {
    let (_kms, client, key) = with_key().await;
    let blob = encrypted(&client, &key).await;
    let id = key.rsplit('/').next().expect("an id").to_owned();
    for name in [None, Some(key.clone()), Some(id)] {
        let request = client.decrypt().set_key_id(name).ciphertext_blob(blob.clone()).encryption_context("a", "b");
        let reply = request.send().await.expect("decrypted");
        assert_eq!(reply.key_id(), Some(key.as_str()));
        assert_eq!(reply.plaintext().expect("a plaintext").as_ref(), b"secret");
        assert_eq!(reply.ciphertext_for_recipient(), None);
    }
}

#[tokio::test]
async fn data_keys_are_of_the_asked_length_and_decrypt() {
    let (_kms, client, key) = with_key().await;
    let request = || client.generate_data_key().key_id(&key);
    for (request, length) in [
        (request().key_spec(DataKeySpec::Aes256), 32),
        (request().key_spec(DataKeySpec::Aes128), 16),
        (request().number_of_bytes(1024), 1024),
    ] {
        let reply = request.send().await.expect("generated");
        let plaintext = reply.plaintext.expect("a plaintext");
        assert_eq!((plaintext.as_ref().len(), reply.key_id.as_deref()), (length, Some(key.as_str())));
        let opened = client.decrypt().ciphertext_blob(reply.ciphertext_blob.expect("a blob")).send().await;
        assert_eq!(opened.expect("decrypted").plaintext, Some(plaintext));
    }
    for request in [
        request(),
        request().number_of_bytes(0),
        request().number_of_bytes(1025),
        request().number_of_bytes(32).key_spec(DataKeySpec::Aes256),
        request().key_spec(DataKeySpec::from("AES_192")),
    ] {
        assert_eq!(refusal(request.send().await).0, "ValidationException");
    }
}

#[tokio::test]
async fn random_bytes_and_descriptions() {
    let (kms, client, key) = with_key().await;
    let random = client.generate_random().number_of_bytes(33).send().await.expect("random");
    assert_eq!(random.plaintext().expect("bytes").as_ref().len(), 33);
    assert_eq!(refusal(client.generate_random().send().await).0, "ValidationException");

    kms.control.set_state(&key, KeyState::PendingDeletion).await.expect("set");
    let described = client.describe_key().key_id(&key).send().await.expect("described");
    let metadata = described.key_metadata().expect("metadata");
    assert_eq!((metadata.arn(), metadata.enabled()), (Some(key.as_str()), false));
    assert_eq!(metadata.key_state().map(|state| state.as_str()), Some("PendingDeletion"));
}

#[tokio::test]
async fn ciphertexts_open_only_as_they_were_sealed() {
    let (kms, client, key) = with_key().await;
    let other_key = kms.control.create_key(None).await.expect("a key");
    let blob = encrypted(&client, &key).await;
    let request = |blob: &Blob| client.decrypt().key_id(&key).ciphertext_blob(blob.clone());
    let damaged = |position: usize| {
        let mut bytes = blob.as_ref().to_vec();
        let position = position % bytes.len();
        bytes[position] ^= 1;
        Blob::new(bytes)
    };
    let foreign = Blob::new([&[1][..], &[9; 60]].concat());
    for (name, request, code) in [
        ("no_context", request(&blob), "InvalidCiphertextException"),
        ("other_value", request(&blob).encryption_context("a", "B"), "InvalidCiphertextException"),
        ("other_name", request(&blob).encryption_context("A", "b"), "InvalidCiphertextException"),
        (
            "one_pair_more",
            request(&blob).encryption_context("a", "b").encryption_context("c", "d"),
            "InvalidCiphertextException",
        ),
        ("damaged_version", request(&damaged(0)).encryption_context("a", "b"), "InvalidCiphertextException"),
        ("damaged_box", request(&damaged(40)).encryption_context("a", "b"), "InvalidCiphertextException"),
        ("damaged_tag", request(&damaged(usize::MAX)).encryption_context("a", "b"), "InvalidCiphertextException"),
        ("short", request(&Blob::new("x")).encryption_context("a", "b"), "InvalidCiphertextException"),
        ("other_key", request(&blob).encryption_context("a", "b").key_id(&other_key), "IncorrectKeyException"),
        ("foreign_blob", client.decrypt().ciphertext_blob(foreign), "AccessDeniedException"),
        ("empty", request(&Blob::new("")), "ValidationException"),
        ("too_long", request(&Blob::new(vec![1; 6145])), "ValidationException"),
        ("grant_token", request(&blob).encryption_context("a", "b").grant_tokens("x"), "InvalidGrantTokenException"),
        ("dry_run", request(&blob).encryption_context("a", "b").dry_run(true), "DryRunOperationException"),
    ] {
        let (found, message) = refusal(request.send().await);
        assert_eq!(found, code, "{name}");
        if code == "InvalidCiphertextException" {
            assert_eq!(message, "", "{name}: KMS says no more");
        }
    }
}

#[tokio::test]
async fn limits_of_plaintext_and_context() {
    let (_kms, client, key) = with_key().await;
    let encrypt = |length: usize| client.encrypt().key_id(&key).plaintext(Blob::new(vec![1; length]));
    assert!(encrypt(4096).send().await.is_ok());
    assert_eq!(refusal(encrypt(4097).send().await).0, "ValidationException");
    assert_eq!(refusal(encrypt(0).send().await).0, "ValidationException");
    assert!(encrypt(1).encryption_context("k", "v".repeat(8191)).send().await.is_ok());
    assert_eq!(refusal(encrypt(1).encryption_context("k", "v".repeat(8192)).send().await).0, "ValidationException");
    assert_eq!(refusal(encrypt(1).encryption_context("", "v").send().await).0, "ValidationException");
}

#[tokio::test]
async fn keys_that_are_not_there_or_not_usable() {
    let (kms, client, key) = with_key().await;
    let generate = |key: &str| client.generate_data_key().key_id(key).number_of_bytes(1).send();
    for name in [
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "alias/hot",
    ] {
        assert_eq!(refusal(generate(name).await).0, "NotFoundException", "{name}");
    }
    for (state, code) in
        [(KeyState::Disabled, "DisabledException"), (KeyState::PendingDeletion, "KMSInvalidStateException")]
    {
        kms.control.set_state(&key, state).await.expect("set");
        assert_eq!(refusal(generate(&key).await).0, code);
    }
    kms.control.set_state(&key, KeyState::Enabled).await.expect("set");
    assert!(generate(&key).await.is_ok());
}

#[tokio::test]
async fn a_multi_region_key_says_so_in_its_id_and_is_known_in_this_region_only() {
    let (mut kms, client, first) = with_key().await;
    let key = kms.control.create_multi_region_key(None).await.expect("a key");
    let id = key.rsplit('/').next().expect("an id");
    assert!(id.starts_with("mrk-") && id.len() == 36, "{id}");
    let blob = encrypted(&client, &key).await;
    for name in [None, Some(key.clone()), Some(id.to_owned())] {
        let request = client.decrypt().set_key_id(name).ciphertext_blob(blob.clone()).encryption_context("a", "b");
        assert_eq!(request.send().await.expect("decrypted").key_id(), Some(key.as_str()));
    }
    let sibling = key.replace("eu-central-1", "us-east-1");
    let request = client.decrypt().key_id(sibling).ciphertext_blob(blob).encryption_context("a", "b");
    assert_eq!(refusal(request.send().await).0, "NotFoundException");
    for (name, multi_region) in [(&first, false), (&key, true)] {
        let described = client.describe_key().key_id(name).send().await.expect("described");
        assert_eq!(described.key_metadata().and_then(|metadata| metadata.multi_region()), Some(multi_region));
    }
    kms.restart().await;
    let arns: Vec<_> = kms.control.keys().await.expect("keys").into_iter().map(|key| key.arn).collect();
    assert_eq!(arns, [first, key], "in the order in which they were made");
}

#[tokio::test]
async fn denials_say_who_what_which_and_why() {
    let (kms, client, key) = with_key().await;
    let generate = || client.generate_data_key().key_id(&key).number_of_bytes(1).send();
    let policy = |effect: &str, principal: &str| {
        json!({ "Version": "2012-10-17", "Statement": [{ "Effect": effect, "Principal": { "AWS": principal },
            "Action": "kms:*", "Resource": "*" }] })
    };
    let start = format!("User: {SESSION} is not authorized to perform: kms:GenerateDataKey on resource: {key} ");
    for (policy, reason) in [
        (policy("Allow", ADMINISTRATOR), "because no resource-based policy allows the kms:GenerateDataKey action"),
        (policy("Deny", "*"), "with an explicit deny in a resource-based policy"),
    ] {
        kms.control.put_policy(&key, &policy).await.expect("put");
        assert_eq!(refusal(generate().await), ("AccessDeniedException".to_owned(), format!("{start}{reason}")));
    }
    assert!(kms.control.put_policy(&key, &json!({ "Version": "2012-10-17" })).await.is_err());
    assert!(kms.control.put_policy("none", &policy("Allow", "*")).await.is_err());
    assert!(kms.control.create_key(Some(json!({}))).await.is_err());
}

#[tokio::test]
async fn keys_policies_and_log_survive_a_kill() {
    let (mut kms, client, key) = with_key().await;
    let blob = encrypted(&client, &key).await;
    let policy = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Principal": "*",
        "Action": "kms:Decrypt", "Resource": "*" }] });
    kms.control.put_policy(&key, &policy).await.expect("put");
    let (keys, tls_root) = (kms.control.keys().await.expect("keys"), kms.tls_root());
    // As if the process had been killed while it wrote a line.
    let log = kms.state.path().join(CALLS_FILE);
    let unfinished = std::fs::read_to_string(&log).expect("a log") + "{\"sequence\":2,";
    std::fs::write(&log, unfinished).expect("written");

    kms.restart().await;
    assert_eq!(kms.control.keys().await.expect("keys"), keys);
    assert_eq!(kms.tls_root(), tls_root);
    let client = kms.client();
    let opened = client.decrypt().ciphertext_blob(blob).encryption_context("a", "b").send().await;
    assert_eq!(opened.expect("decrypted").plaintext.expect("a plaintext").as_ref(), b"secret");
    assert_eq!(
        refusal(client.encrypt().key_id(&key).plaintext(Blob::new("x")).send().await).0,
        "AccessDeniedException"
    );
    let calls = kms.control.calls(0).await.expect("calls");
    let actions: Vec<_> =
        calls.iter().map(|call| (call.sequence, call.action.as_deref(), call.outcome.as_str())).collect();
    assert_eq!(
        actions,
        [
            (1, Some("Encrypt"), "Success"),
            (2, Some("Decrypt"), "Success"),
            (3, Some("Encrypt"), "AccessDeniedException"),
        ]
    );
}

#[tokio::test]
async fn the_log_tells_who_did_what_and_no_secret() {
    let (kms, client, key) = with_key().await;
    let blob = encrypted(&client, &key).await;
    refusal(client.decrypt().ciphertext_blob(blob).send().await);
    let data_key = client.generate_data_key().key_id(&key).number_of_bytes(32).send().await.expect("generated");
    let calls = kms.control.calls(1).await.expect("calls");
    assert_eq!(calls.len(), 2);
    let denied = &calls[0];
    assert_eq!(denied.outcome, "InvalidCiphertextException");
    assert_eq!(denied.principal.as_deref(), Some(SESSION));
    assert_eq!(denied.key_arn.as_deref(), Some(key.as_str()));
    assert_eq!(denied.attested, None);
    assert_eq!(kms.control.calls(0).await.expect("calls")[0].encryption_context["a"], "b");

    let log = std::fs::read(kms.state.path().join(CALLS_FILE)).expect("a log");
    let lines = String::from_utf8(log.clone()).expect("text");
    assert_eq!(lines.lines().count(), 3);
    let plaintext = data_key.plaintext.expect("a plaintext").into_inner();
    let contains = |needle: &[u8]| log.windows(needle.len()).any(|window| window == needle);
    assert!(!contains(hex::encode(&plaintext).as_bytes()) && !contains(b"secret"));
}
