//! Attested calls against the policy for dedicated keys: which document opens what, and what KMS says
//! to all others.

use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyEncryptionMechanism, RecipientInfo};
use strongroom_protocol::Measurement;
use strongroom_protocol::cose::Sign1;
use strongroom_tests::mock_kms::{Admitted, dedicated_key_policy};
use strongroom_tests::mock_nsm::{Machine, image_pcrs};

use super::envelope;
use super::running::{ADMINISTRATOR, Enclave, MockKms, ROLE, recipient, refusal, spki};

const CONFIGURATION: &[u8] = b"the admitted configuration";

/// A KMS whose one key admits one image with one configuration, and the enclave that has both.
struct Admission {
    kms: MockKms,
    client: Client,
    key: String,
    enclave: Enclave,
}

impl Admission {
    async fn new() -> Self {
        Self::to(MockKms::start().await).await
    }

    async fn to(kms: MockKms) -> Self {
        let enclave = Enclave::boot(Machine::default(), CONFIGURATION);
        let [image, ..] = image_pcrs(&Machine::default().image);
        let admitted = Admitted::new(image, Measurement::of(CONFIGURATION).pcr16).expect("measured");
        let policy = dedicated_key_policy(ADMINISTRATOR, ROLE, &[admitted]);
        let key = kms.control.create_key(Some(policy)).await.expect("a key");
        kms.trust(&enclave.nsm);
        Self { client: kms.client(), kms, key, enclave }
    }

    /// Asks for a data key under a binding; the refusal's code and text.
    async fn refused(&self, recipient: Option<RecipientInfo>) -> (String, String) {
        let request = self.client.generate_data_key().key_id(&self.key).key_spec(DataKeySpec::Aes256);
        refusal(request.encryption_context("strongroom:binding", "00").set_recipient(recipient).send().await)
    }

    async fn denied(&self, name: &str, recipient: Option<RecipientInfo>) {
        let (code, text) = self.refused(recipient).await;
        assert_eq!(code, "AccessDeniedException", "{name}: {text}");
        assert!(text.ends_with("with an explicit deny in a resource-based policy"), "{name}: {text}");
    }

    async fn invalid(&self, name: &str, document: Vec<u8>) {
        let (code, text) = self.refused(Some(recipient(document))).await;
        assert_eq!(code, "ValidationException", "{name}: {text}");
    }
}

#[tokio::test]
async fn the_admitted_enclave_gets_envelopes_and_never_a_plaintext() {
    let mut it = Admission::new().await;
    let mut forms = std::collections::BTreeSet::new();
    for _ in 0..32 {
        let request = it.client.generate_data_key().key_id(&it.key).key_spec(DataKeySpec::Aes256);
        let request = request.encryption_context("strongroom:binding", "00").recipient(it.enclave.recipient());
        let generated = request.send().await.expect("generated");
        assert_eq!(generated.plaintext(), None);
        let data_key = generated.ciphertext_for_recipient.expect("an envelope").into_inner();
        forms.insert(data_key.len());
        let data_key = envelope::open(&data_key, &it.enclave.key).expect("opens");
        assert_eq!(data_key.len(), 32);

        let request = it.client.decrypt().key_id(&it.key).ciphertext_blob(generated.ciphertext_blob.expect("a blob"));
        let request = request.encryption_context("strongroom:binding", "00").recipient(it.enclave.recipient());
        let decrypted = request.send().await.expect("decrypted");
        assert_eq!((decrypted.plaintext(), decrypted.key_id()), (None, Some(it.key.as_str())));
        let envelope = decrypted.ciphertext_for_recipient.expect("an envelope").into_inner();
        assert_eq!(envelope::open(&envelope, &it.enclave.key), Ok(data_key));
    }
    assert_eq!(forms.len(), 2, "both forms occur");

    let call = &it.kms.control.calls(0).await.expect("calls")[0];
    let attested = call.attested.as_ref().expect("attested");
    assert!(attested.module_id.starts_with("i-"));
    assert_eq!(attested.pcrs["PCR16"], hex::encode(Measurement::of(CONFIGURATION).pcr16));
    assert_eq!(attested.pcrs["PCR0"], hex::encode(image_pcrs(&Machine::default().image)[0]));
    assert_eq!(attested.pcrs.keys().collect::<Vec<_>>(), ["PCR0", "PCR1", "PCR16", "PCR2", "PCR3", "PCR4", "PCR8"]);
}

#[tokio::test]
async fn other_enclaves_are_denied() {
    let it = Admission::new().await;
    let other_image = Machine { image: "another image".to_owned(), ..Machine::default() };
    let debug = Machine { debug_mode: true, ..Machine::default() };
    for (name, machine, configuration) in [
        ("wrong_pcr0", other_image, CONFIGURATION),
        ("wrong_pcr16", Machine::default(), b"another configuration".as_slice()),
        ("debug_mode", debug, CONFIGURATION),
    ] {
        let mut other = Enclave::boot(machine, configuration);
        it.kms.trust(&other.nsm);
        it.denied(name, Some(other.recipient())).await;
    }
    it.denied("no_document", None).await;
}

#[tokio::test]
async fn documents_of_another_root_or_time_are_denied() {
    let mut it = Admission::new().await;
    let mut stranger = Enclave::boot(Machine::default(), CONFIGURATION);
    it.denied("another_root", Some(stranger.recipient())).await;
    for (name, minutes) in [("six_minutes_old", -6), ("six_minutes_early", 6)] {
        it.enclave.nsm.set_clock_offset(minutes * 60);
        let recipient = it.enclave.recipient();
        it.denied(name, Some(recipient)).await;
    }
    it.enclave.nsm.set_clock_offset(-4 * 60);
    let recipient = it.enclave.recipient();
    let request = it.client.generate_data_key().key_id(&it.key).number_of_bytes(1).recipient(recipient);
    assert!(request.encryption_context("strongroom:binding", "00").send().await.is_ok(), "four minutes old");
}

/// Whatever the policy says, nothing is encrypted to a key that no genuine document names.
#[tokio::test]
async fn unsigned_documents_are_believed_where_that_is_asked_for_and_clocks_may_differ_a_little() {
    let mut doubted = Admission::new().await;
    let document = unsigned(&doubted.enclave.document(Some(spki(&doubted.enclave.key))));
    doubted.invalid("not asked for", document).await;

    let kms = MockKms::start_with(&["--dangerously-believe-unsigned-attestation-documents-of-qemu"]).await;
    let mut it = Admission::to(kms).await;
    // A guest's clock starts at a whole second: documents of the machine beside it are from its future.
    for (seconds, believed) in [(0, true), (2, true), (-200, true), (90, false), (-360, false)] {
        it.enclave.nsm.set_clock_offset(seconds);
        let recipient = recipient(unsigned(&it.enclave.document(Some(spki(&it.enclave.key)))));
        if believed {
            let request = it.client.generate_data_key().key_id(&it.key).key_spec(DataKeySpec::Aes256);
            let request = request.encryption_context("strongroom:binding", "00").recipient(recipient);
            let generated = request.send().await;
            assert_eq!(generated.unwrap_or_else(|error| panic!("{seconds}: {error:?}")).plaintext(), None);
        } else {
            it.denied(&format!("{seconds} s"), Some(recipient)).await;
        }
    }
    it.enclave.nsm.set_clock_offset(0);
    it.denied("an altered configuration", {
        let mut other = Enclave::boot(Machine::default(), b"another configuration");
        Some(recipient(unsigned(&other.document(Some(spki(&other.key))))))
    })
    .await;
}

/// A document as QEMU makes it: no algorithm is named, the signature is zeros.
fn unsigned(document: &[u8]) -> Vec<u8> {
    let payload = Sign1::parse(document).expect("a document").payload;
    let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
    [b"\x84\x43\xa1\x01\x20\xa0\x59", &length[..], &payload, b"\x58\x60", &[0; 96]].concat()
}

#[tokio::test]
async fn an_unbelievable_document_gets_nothing_even_where_no_condition_asks_for_one() {
    let it = Admission::new().await;
    let open_key = it.kms.control.create_key(None).await.expect("a key");
    let mut stranger = Enclave::boot(Machine::default(), CONFIGURATION);
    let request = it.client.generate_data_key().key_id(open_key).number_of_bytes(1).recipient(stranger.recipient());
    assert_eq!(refusal(request.send().await).0, "ValidationException");
    let request = it.client.generate_random().number_of_bytes(1).recipient(stranger.recipient());
    assert_eq!(refusal(request.send().await).0, "ValidationException");
}

#[tokio::test]
async fn damaged_documents_and_unfit_keys_are_invalid() {
    let mut it = Admission::new().await;
    let public_key = spki(&it.enclave.key);
    let genuine = it.enclave.document(Some(public_key.clone()));
    let mut bad_signature = genuine.clone();
    *bad_signature.last_mut().expect("not empty") ^= 1;
    let mut other_key = genuine.clone();
    let at = other_key.windows(public_key.len()).position(|window| window == public_key).expect("the key is there");
    other_key[at + 40] ^= 1;
    let rsa_3072 = PrivateDecryptingKey::generate(KeySize::Rsa3072).expect("a key");
    for (name, document) in [
        ("empty", Vec::new()),
        ("garbage", b"garbage".to_vec()),
        ("truncated", genuine[..genuine.len() - 1].to_vec()),
        ("trailing_byte", [&genuine[..], &[0]].concat()),
        ("bad_signature", bad_signature),
        ("public_key_replaced", other_key),
        ("no_public_key", it.enclave.document(None)),
        ("no_rsa_key", it.enclave.document(Some(vec![4; 65]))),
        ("rsa_3072", it.enclave.document(Some(spki(&rsa_3072)))),
    ] {
        it.invalid(name, document).await;
    }
    let other_mechanism = RecipientInfo::builder()
        .key_encryption_algorithm(KeyEncryptionMechanism::from("RSAES_OAEP_SHA_1"))
        .attestation_document(Blob::new(genuine))
        .build();
    assert_eq!(it.refused(Some(other_mechanism)).await.0, "ValidationException");
}

#[tokio::test]
async fn what_attestation_cannot_gate_is_denied_to_everyone() {
    let mut it = Admission::new().await;
    let encrypt = it.client.encrypt().key_id(&it.key).plaintext(Blob::new("minted"));
    let (code, text) = refusal(encrypt.encryption_context("strongroom:binding", "00").send().await);
    assert_eq!(code, "AccessDeniedException");
    assert!(
        text.contains("perform: kms:Encrypt") && text.ends_with("with an explicit deny in a resource-based policy")
    );

    let unbound = it.client.generate_data_key().key_id(&it.key).number_of_bytes(1).recipient(it.enclave.recipient());
    assert_eq!(refusal(unbound.send().await).0, "AccessDeniedException");
}

#[tokio::test]
async fn without_a_root_kms_is_to_blame_until_there_is_one() {
    let kms = MockKms::start().await;
    let mut enclave = Enclave::boot(Machine::default(), CONFIGURATION);
    let client = kms.client();
    let request = client.generate_random().number_of_bytes(1).recipient(enclave.recipient());
    assert_eq!(refusal(request.clone().send().await).0, "KMSInternalException");
    kms.trust(&enclave.nsm);
    assert!(request.send().await.is_ok());
}
