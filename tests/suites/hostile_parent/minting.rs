//! Records minted around a key of the attacker's own. With `Encrypt` it would be easy, which is why the
//! key policy denies `Encrypt` to everyone; the last test shows what happens where it does not.

use std::collections::HashMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use strongroom_protocol::{Algorithm, Binding, Origin, Policy};

use super::kms_direct::{as_administrator, as_parent};
use crate::mock_kms::running::refusal;
use crate::scene::{Scene, assert_problem};

/// A secret, a data key and everything that the binding asks for: all known to the attacker.
struct Forgery {
    secret: [u8; 32],
    data_key: [u8; 32],
    public_key: Vec<u8>,
    binding: Binding,
}

impl Forgery {
    fn of_key(key_id: &str) -> Self {
        let secret = [0x66; 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&secret).expect("a key");
        let public_key = pair.public_key().as_ref().to_vec();
        let key_id = key_id.parse().expect("an id");
        let binding = Binding::new(&key_id, Algorithm::Ed25519, &public_key, Origin::Generated, &Policy::default());
        Self { secret, data_key: [0x77; 32], public_key, binding }
    }

    fn context(&self, key_id: &str) -> HashMap<String, String> {
        self.binding.encryption_context(&key_id.parse().expect("an id"))
    }

    /// Has KMS wrap the data key, as an enclave never does.
    async fn encrypt(&self, client: &Client, kms_key: &str, key_id: &str) -> Vec<u8> {
        let request = client.encrypt().key_id(kms_key).plaintext(Blob::new(self.data_key));
        let reply = request.set_encryption_context(Some(self.context(key_id))).send().await.expect("encrypted");
        reply.ciphertext_blob.expect("a blob").into_inner()
    }

    /// The sealed secret, exactly as the enclave seals.
    fn seal(&self) -> Vec<u8> {
        let nonce = [9; 12];
        let mut sealed = self.secret.to_vec();
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.data_key).expect("a key"));
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(self.binding.as_aad()),
            &mut sealed,
        )
        .expect("sealed");
        [&nonce[..], &sealed].concat()
    }

    /// Puts the forgery in place of a key's record.
    fn plant(&self, it: &Scene, key_id: &str, kms_key: &str, data_key: &[u8]) -> Value {
        it.tamper(key_id, |record| {
            record["public_key"] = format!("0x{}", hex::encode(&self.public_key)).into();
            record["kms_key_arn"] = kms_key.into();
            record["data_key"] = BASE64_STANDARD.encode(data_key).into();
            record["ciphertext"] = BASE64_STANDARD.encode(self.seal()).into();
        })
    }
}

#[tokio::test]
async fn encrypt_under_the_dedicated_policy_is_denied_to_everyone() {
    let it = Scene::start().await;
    it.create("a").await;
    let forgery = Forgery::of_key("a");
    for client in [as_parent(&it.stack), as_administrator(&it.stack).await] {
        let request = client.encrypt().key_id(&it.stack.kms_key).plaintext(Blob::new(forgery.data_key));
        let (code, text) = refusal(request.set_encryption_context(Some(forgery.context("a"))).send().await);
        assert_eq!(code, "AccessDeniedException");
        assert!(text.ends_with("with an explicit deny in a resource-based policy"), "{text}");
    }
    it.signs("a").await;
}

/// Nor do the two calls that the policy allows help him: they ask for a document, and give an envelope.
#[tokio::test]
async fn a_data_key_without_a_document_is_denied_to_everyone() {
    let it = Scene::start().await;
    it.create("a").await;
    let forgery = Forgery::of_key("a");
    let stored = it.record("a");
    for client in [as_parent(&it.stack), as_administrator(&it.stack).await] {
        let generate = client.generate_data_key().key_id(&it.stack.kms_key).number_of_bytes(32);
        let generate = generate.set_encryption_context(Some(forgery.context("a")));
        assert_eq!(refusal(generate.send().await).0, "AccessDeniedException");
        let decrypt = client.decrypt().ciphertext_blob(Blob::new(stored.data_key.to_vec()));
        let decrypt = decrypt.set_encryption_context(Some(stored.binding().encryption_context(&stored.key_id)));
        assert_eq!(refusal(decrypt.send().await).0, "AccessDeniedException");
    }
    it.signs("a").await;
}

#[tokio::test]
async fn a_record_minted_with_encrypt_under_a_kms_key_of_the_attackers_own() {
    let it = Scene::start().await;
    it.create("a").await;
    let permissive = it.stack.control.create_key(None).await.expect("a key");
    let forgery = Forgery::of_key("a");
    let blob = forgery.encrypt(&as_parent(&it.stack), &permissive, "a").await;

    // Under its true name, the configuration does not list it.
    let original = forgery.plant(&it, "a", &permissive, &blob);
    assert_problem(&it.sign("a").await, 422, "kms-key-not-configured");
    it.store("a", &original);
    it.signs("a").await;

    // Under the configured key's name, KMS knows whose blob it is.
    forgery.plant(&it, "a", &it.stack.kms_key, &blob);
    assert_problem(&it.sign("a").await, 502, "record-refused");
    assert_eq!(it.outcomes("a").await.last().map(String::as_str), Some("Decrypt IncorrectKeyException"));
    it.store("a", &original);
    it.signs("a").await;
}

/// The limit, shown and not hidden: security is that of the weakest KMS key that the configuration
/// lists. One whose policy lets somebody `Encrypt` lets him mint, and the enclave cannot tell.
#[tokio::test]
async fn where_a_listed_kms_key_allows_encrypt_a_minted_record_opens() {
    let mut it = Scene::start().await;
    let permissive = it.stack.control.create_key(None).await.expect("a key");
    it.stack.plan.configuration.insert("kms_keys".to_owned(), json!([permissive]));
    it.stack.reconfigure().await.expect("reconfigured");
    // `reconfigure` made the first key it found a dedicated one; this is what an administrator must not do.
    let allow_all = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Principal": { "AWS": strongroom_tests::stack::PARENT_ARN }, "Action": "kms:*", "Resource": "*" },
    ] });
    it.stack.control.put_policy(&permissive, &allow_all).await.expect("put");
    it.restart().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    it.create("a").await;

    let forgery = Forgery::of_key("a");
    let blob = forgery.encrypt(&as_parent(&it.stack), &permissive, "a").await;
    forgery.plant(&it, "a", &permissive, &blob);
    let signed = it.sign("a").await;
    assert_eq!(signed.status.as_u16(), 200, "{}", signed.body);
    let signature = signed.bytes("signature").expect("hex");
    UnparsedPublicKey::new(&ED25519, &forgery.public_key).verify(b"hi", &signature).expect("the attacker's key signed");
}
