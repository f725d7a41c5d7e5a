//! The envelope against an oracle: the `cms` crate reads it, aws-lc-rs opens it.

use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::der::{Decode, Encode};
use cms::enveloped_data::{EnvelopedData, RecipientIdentifier, RecipientInfo};
use sha2::{Digest, Sha256};
use strongroom_tests::mock_kms::envelope::{Defect, Form, RecipientKey, seal};

use super::running::spki;

/// Opens an envelope as a reader without suspicions would.
///
/// # Errors
/// What a reader that knows nothing but CMS finds wrong.
pub(super) fn open(envelope: &[u8], key: &PrivateDecryptingKey) -> Result<Vec<u8>, String> {
    let info = ContentInfo::from_ber(envelope).map_err(|e| e.to_string())?;
    if info.content_type.to_string() != "1.2.840.113549.1.7.3" {
        return Err("not EnvelopedData".to_owned());
    }
    let data = EnvelopedData::from_ber(&info.content.to_der().expect("DER")).map_err(|e| e.to_string())?;
    assert_eq!(data.version, CmsVersion::V2);
    let [RecipientInfo::Ktri(recipient)] = data.recip_infos.0.as_slice() else {
        return Err("not one recipient".to_owned());
    };
    assert_eq!(recipient.version, CmsVersion::V2);
    let RecipientIdentifier::SubjectKeyIdentifier(identifier) = &recipient.rid else { panic!("{:?}", recipient.rid) };
    assert_eq!(identifier.0.as_bytes(), Sha256::digest(spki(key)).as_slice());
    assert_eq!(recipient.key_enc_alg.oid.to_string(), "1.2.840.113549.1.1.7");
    let content = &data.encrypted_content;
    assert_eq!(content.content_type.to_string(), "1.2.840.113549.1.7.1");
    assert_eq!(content.content_enc_alg.oid.to_string(), "2.16.840.1.101.3.4.1.42");

    let oaep = OaepPrivateDecryptingKey::new(key.clone()).expect("an OAEP key");
    let mut content_key = vec![0; oaep.min_output_size()];
    let content_key = oaep
        .decrypt(&OAEP_SHA256_MGF1SHA256, recipient.enc_key.as_bytes(), &mut content_key, None)
        .map_err(|_| "RSA-OAEP".to_owned())?;
    let iv = content.content_enc_alg.parameters.as_ref().expect("an IV").value();
    let iv: [u8; 16] = iv.try_into().expect("16 bytes");
    let mut bytes = content.encrypted_content.as_ref().expect("content").as_bytes().to_vec();
    let aes = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, content_key).expect("a key"));
    let opened = aes.expect("a key").decrypt(&mut bytes, DecryptionContext::Iv128(FixedLength::from(iv)));
    opened.map(|plaintext| plaintext.to_vec()).map_err(|_| "padding".to_owned())
}

struct Recipient {
    private: PrivateDecryptingKey,
    public: RecipientKey,
}

fn recipient() -> Recipient {
    let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("a key");
    let public = RecipientKey::read(&spki(&private)).expect("RSA-2048");
    Recipient { private, public }
}

#[test]
fn both_forms_open_in_an_independent_reader() {
    let recipient = recipient();
    for form in [Form::Constructed, Form::Primitive] {
        for length in [0, 1, 15, 16, 32, 999, 1000, 1001, 4096] {
            let plaintext = vec![7; length];
            let envelope = seal(&plaintext, &recipient.public, form, None).expect("sealed");
            assert_eq!(open(&envelope, &recipient.private).as_ref(), Ok(&plaintext), "{form:?} of {length}");
        }
    }
}

#[test]
fn sizes_are_those_of_genuine_envelopes() {
    let recipient = recipient();
    let size = |length| seal(&vec![7; length], &recipient.public, Form::Constructed, None).expect("sealed").len();
    assert_eq!((size(32), size(4096)), (493, 4573));
}

/// Apart from key identifier, encrypted key, IV and content, a genuine envelope of form A and ours are
/// the same bytes.
#[test]
fn the_encoding_is_that_of_a_genuine_envelope() {
    let genuine = include_bytes!("../../vectors/kms/mbedtls_decrypt.ber");
    let ours = seal(&[7; 32], &recipient().public, Form::Constructed, None).expect("sealed");
    assert_eq!(ours.len(), genuine.len());
    let variable = [0x21..0x41, 0x83..0x183, 0x19f..0x1af, 0x1b3..0x1e3];
    for (offset, (ours, genuine)) in ours.iter().zip(genuine).enumerate() {
        assert!(ours == genuine || variable.iter().any(|range| range.contains(&offset)), "offset {offset:#x}");
    }
}

#[test]
fn every_defect_is_what_its_name_says() {
    let recipient = recipient();
    let opened = |defect| {
        let envelope = seal(&[7; 32], &recipient.public, Form::Primitive, Some(defect)).expect("sealed");
        open(&envelope, &recipient.private)
    };
    let forged = opened(Defect::Forged).expect("a forgery opens: CMS has no signature");
    assert_eq!(forged.len(), 32);
    assert_ne!(forged, [7; 32]);
    assert!(opened(Defect::Truncated).is_err());
    assert!(opened(Defect::TrailingByte).is_err());
    assert_eq!(opened(Defect::ContentType), Err("not EnvelopedData".to_owned()));
    assert_eq!(opened(Defect::OaepHash), Err("RSA-OAEP".to_owned()));
    assert_eq!(opened(Defect::SecondRecipient), Err("not one recipient".to_owned()));
    assert_eq!(opened(Defect::Padding), Err("padding".to_owned()));
}

#[test]
fn only_rsa_2048_is_encrypted_to() {
    let longer = PrivateDecryptingKey::generate(KeySize::Rsa3072).expect("a key");
    assert!(RecipientKey::read(&spki(&longer)).is_none());
    assert!(RecipientKey::read(b"").is_none());
    let mut trailing = spki(&recipient().private);
    trailing.push(0);
    assert!(RecipientKey::read(&trailing).is_none());
}
