//! Attestation documents in the parent's hands: those that he is given open nothing at KMS, and he is
//! not given those that would.

use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use aws_nitro_enclaves_nsm_api::api::{Request as NsmRequest, Response as NsmResponse};
use aws_sdk_kms::operation::decrypt::builders::DecryptFluentBuilder;
use aws_sdk_kms::primitives::Blob;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use strongroom_enclave::Attestor;
use strongroom_tests::mock_nsm::{Machine, MockNsm};
use strongroom_tests::pki::NitroAuthority;

use super::kms_direct::as_parent;
use super::lying_parent::measured;
use crate::mock_kms::running::{recipient, refusal, spki};
use crate::scene::{Scene, assert_problem};

/// Asks KMS for key `a`'s data key, with everything right but perhaps the document.
fn decrypt(it: &Scene, document: Vec<u8>) -> DecryptFluentBuilder {
    let record = it.record("a");
    let request = as_parent(&it.stack).decrypt().key_id(&it.stack.kms_key);
    request
        .ciphertext_blob(Blob::new(record.data_key.to_vec()))
        .set_encryption_context(Some(record.binding().encryption_context(&record.key_id)))
        .recipient(recipient(document))
}

/// A module of the stack's own root, image and configuration: what a leak from the enclave would give.
fn twin(it: &Scene) -> MockNsm {
    let authority = NitroAuthority::open(&it.stack.directory().join("nsm")).expect("the root");
    measured(authority, Machine::default(), Some(&it.stack.directory().join("enclave.json")))
}

fn document(nsm: &mut MockNsm, public_key: Option<Vec<u8>>) -> Vec<u8> {
    let public_key = public_key.map(Into::into);
    match nsm.process(NsmRequest::Attestation { user_data: None, nonce: None, public_key }) {
        NsmResponse::Attestation { document } => document,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_old_document_sent_straight_to_kms() {
    let it = Scene::start().await;
    it.create("a").await;
    let mut nsm = twin(&it);
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("a key");
    for (offset, allowed) in [(0, true), (-290, true), (-310, false), (-3600, false)] {
        nsm.set_clock_offset(offset);
        let reply = decrypt(&it, document(&mut nsm, Some(spki(&key)))).send().await;
        if allowed {
            assert!(reply.expect("released").ciphertext_for_recipient.is_some(), "{offset} s: all else is right");
        } else {
            assert_eq!(refusal(reply).0, "AccessDeniedException", "{offset} s");
        }
    }
    it.signs("a").await;
}

#[tokio::test]
async fn an_evidence_document_sent_straight_to_kms() {
    let it = Scene::start().await;
    it.create("a").await;
    for path in ["/v1/attestation?nonce=0x01", "/v1/keys/a/attestation?nonce=0x01"] {
        let evidence = it.api.get(path).await.expect("a reply");
        let document = BASE64_STANDARD.decode(evidence.text("document")).expect("base64");
        let (code, text) = refusal(decrypt(&it, document).send().await);
        assert_eq!(code, "ValidationException", "{text}");
        assert!(text.contains("does not contain an RSA-2048 public key"), "{text}");
    }
    it.signs("a").await;
}

/// An import document carries a key, and KMS encrypts nothing to it: it is an X25519 key.
#[tokio::test]
async fn an_import_document_sent_straight_to_kms() {
    let it = Scene::planned(|plan| {
        plan.configuration.insert("operations".to_owned(), json!(["generate", "sign", "import"]));
    })
    .await;
    it.create("a").await;
    let offer = it.api.post("/v1/import-keys", json!({ "nonce": "0x01" })).await.expect("a reply");
    assert_eq!(offer.status.as_u16(), 201, "{}", offer.body);
    let document = BASE64_STANDARD.decode(offer.text("document")).expect("base64");
    let (code, text) = refusal(decrypt(&it, document).send().await);
    assert_eq!(code, "ValidationException", "{text}");
    assert!(text.contains("does not contain an RSA-2048 public key"), "{text}");
    it.signs("a").await;
}

/// The nonce is all that he chooses: a key of his own in its place is not a recipient.
#[tokio::test]
async fn a_key_smuggled_as_a_nonce_into_a_document_for_kms() {
    let it = Scene::start().await;
    it.create("a").await;
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("a key");
    let evidence = it.api.get(&format!("/v1/attestation?nonce={}", hex::encode(spki(&key)))).await.expect("a reply");
    assert_eq!(evidence.status.as_u16(), 200, "{}", evidence.body);
    let document = BASE64_STANDARD.decode(evidence.text("document")).expect("base64");
    assert_eq!(refusal(decrypt(&it, document).send().await).0, "ValidationException");
    it.signs("a").await;
}

#[tokio::test]
async fn a_document_of_another_root_image_or_configuration_sent_straight_to_kms() {
    let it = Scene::start().await;
    it.create("a").await;
    let own_root = || NitroAuthority::open(&it.stack.directory().join("nsm")).expect("the root");
    let configuration = it.stack.directory().join("enclave.json");
    let other_image = Machine { image: "another image".to_owned(), ..Machine::default() };
    let debug = Machine { debug_mode: true, ..Machine::default() };
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("a key");
    for (name, mut nsm) in [
        ("another_root", measured(NitroAuthority::new(), Machine::default(), Some(&configuration))),
        ("another_image", measured(own_root(), other_image, Some(&configuration))),
        ("debug_image", measured(own_root(), debug, Some(&configuration))),
        (
            "another_configuration",
            measured(own_root(), Machine::default(), Some(&it.stack.directory().join("pcrs.json"))),
        ),
        ("no_configuration", measured(own_root(), Machine::default(), None)),
    ] {
        let document = document(&mut nsm, Some(spki(&key)));
        assert_eq!(refusal(decrypt(&it, document).send().await).0, "AccessDeniedException", "{name}");
    }
    it.signs("a").await;
}

#[tokio::test]
async fn a_public_key_or_user_data_smuggled_into_a_rest_request() {
    let it = Scene::start().await;
    it.create("a").await;
    for path in ["/v1/attestation", "/v1/keys/a/attestation"] {
        for smuggled in ["public_key=0x30", "user_data=0x30", "nonce=0x02", "certificate=0x30"] {
            let reply = it.api.get(&format!("{path}?nonce=0x01&{smuggled}")).await.expect("a reply");
            assert_problem(&reply, 422, "invalid-request");
        }
    }
    let create = serde_json::json!({ "key_id": "b", "algorithm": "ed25519", "public_key": "0x30" });
    assert_problem(&it.try_create(create).await, 422, "invalid-request");
    it.signs("a").await;
}
