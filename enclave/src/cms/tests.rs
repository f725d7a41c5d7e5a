//! KMS's own envelopes open; everything else is refused with one error.

use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::*;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/kms");

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{VECTORS}/{name}")).expect(name)
}

fn key(name: &str) -> RecipientKey {
    let der = PrivatePkcs8KeyDer::from_pem_slice(&vector(name)).expect("PEM");
    let private = PrivateDecryptingKey::from_pkcs8(der.secret_pkcs8_der()).expect("PKCS#8");
    RecipientKey::new(private).expect("RSA-2048")
}

fn plaintext(name: &str) -> Vec<u8> {
    hex::decode(String::from_utf8(vector(name)).expect("text").trim()).expect("hex")
}

#[test]
fn kms_envelopes_open_with_their_keys() {
    for name in ["hello_world", "mbedtls_decrypt"] {
        let opened = key(&format!("{name}.key.pem")).open(&vector(&format!("{name}.ber"))).expect(name);
        assert_eq!(*opened, plaintext(&format!("{name}.plaintext.hex")), "{name}");
    }
}

#[test]
fn kms_envelopes_of_both_forms_parse() {
    for (name, content) in [
        ("hello_world.ber", 16),
        ("mbedtls_decrypt.ber", 48),
        ("awssdkc_input_ber.ber", 48),
        ("awssdkc_input_ber_w_ctx.ber", 16),
        ("rustcrypto_kms_cfr_1.ber", 16),
        ("rustcrypto_kms_cfr_4.ber", 4112),
    ] {
        assert_eq!(Envelope::parse(&vector(name)).expect(name).content.len(), content, "{name}");
    }
}

#[test]
fn localstacks_form_is_not_kmss() {
    let refused = key("localstack_cfr.key.pem").open(&vector("localstack_cfr.der"));
    assert_eq!(refused.err(), Some(EnvelopeRefused));
}

/// `find` replaced by `replace`, once; lengths must stay equal.
fn patched(envelope: &[u8], find: &[u8], replace: &[u8]) -> Vec<u8> {
    assert_eq!(find.len(), replace.len());
    let at = envelope.windows(find.len()).position(|w| w == find).expect("the part is there");
    let mut changed = envelope.to_vec();
    changed[at..at + replace.len()].copy_from_slice(replace);
    changed
}

#[test]
fn malformed_envelopes_are_refused_with_one_error() {
    let key = key("mbedtls_decrypt.key.pem");
    let good = vector("mbedtls_decrypt.ber");
    assert!(key.open(&good).is_ok());

    let recipient_start = good.windows(2).position(|w| w == [0x30, 0x82]).expect("recipient");
    let recipient = &good[recipient_start..recipient_start + 4 + 0x167];
    let mut second_recipient = good.clone();
    second_recipient.splice(recipient_start..recipient_start, recipient.iter().copied());
    let set_length = u16::try_from(2 * recipient.len()).expect("fits").to_be_bytes();
    second_recipient[recipient_start - 2..recipient_start].copy_from_slice(&set_length);

    let mut bad_padding = good.clone();
    let last_block = good.len() - 12 - 1;
    bad_padding[last_block - 16] ^= 0x01;

    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("trailing_byte", [&good[..], &[0]].concat()),
        ("wrong_oid_enveloped_data", patched(&good, ID_ENVELOPED_DATA, ID_DATA)),
        ("wrong_oid_data", patched(&good, ID_DATA, ID_ENVELOPED_DATA)),
        ("wrong_oid_cipher_aes256_gcm", patched(&good, AES256_CBC, &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 0x2e])),
        ("wrong_oaep_hash_sha384", patched(&good, &[0x65, 3, 4, 2, 1, 5, 0, 0xa1], &[0x65, 3, 4, 2, 2, 5, 0, 0xa1])),
        ("wrong_mgf_hash_sha384", patched(&good, &[0x65, 3, 4, 2, 1, 5, 0, 4], &[0x65, 3, 4, 2, 2, 5, 0, 4])),
        ("wrong_version", patched(&good, &[2, 1, 2, 0x31], &[2, 1, 0, 0x31])),
        ("wrong_recipient_version", patched(&good, &[2, 1, 2, 0x80], &[2, 1, 0, 0x80])),
        ("wrong_key_identifier", {
            let mut changed = good.clone();
            changed[recipient_start + 10] ^= 1;
            changed
        }),
        ("second_recipient", second_recipient),
        ("encrypted_key_changed", {
            let mut changed = good.clone();
            changed[recipient_start + 200] ^= 1;
            changed
        }),
        ("bad_padding", bad_padding),
        ("oversize", [&good[..], &vec![0; MAX_ENVELOPE]].concat()),
    ];
    cases.extend((1..good.len()).map(|length| ("truncated", good[..length].to_vec())));
    for (name, envelope) in cases {
        assert_eq!(key.open(&envelope).err(), Some(EnvelopeRefused), "{name}");
    }
}

#[test]
fn an_envelope_for_another_key_is_refused() {
    let refused = key("hello_world.key.pem").open(&vector("mbedtls_decrypt.ber"));
    assert_eq!(refused.err(), Some(EnvelopeRefused));
}
