//! The document verifier against real documents, the mock's documents, and chains that are broken in
//! one place each.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CidrSubnet, CustomExtension, DistinguishedName, DnType, GeneralSubtree, IsCa, KeyPair,
    KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA384,
};
use strongroom_parent::attestation::{
    AttestationError, CLOCK_TOLERANCE, ExpectedPcrs, TrustAnchor, VerifiedDocument, verify,
};
use strongroom_protocol::document::{AttestationDocument, DocumentError};
use strongroom_tests::mock_nsm::{Framing, Pcr, Statement, cose_sign1, image_pcrs};
use strongroom_tests::pki::{CertificateSpec, NitroChain, nitro_name, nitro_specs};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The real documents, as `tests/vectors/attestation/README.md` lists them.
pub(crate) mod real {
    use super::*;

    pub(crate) struct Vector {
        pub(crate) name: &'static str,
        pub(crate) bytes: &'static [u8],
        pub(crate) made: &'static str,
        leaf_from: &'static str,
        leaf_until: &'static str,
        public_key: Option<usize>,
        user_data: Option<usize>,
        nonce: Option<usize>,
        pcrs_not_zero: &'static [u8],
    }

    macro_rules! vector {
        ($name:literal, $made:literal, $from:literal .. $until:literal, $key:expr, $data:expr, $nonce:expr, $pcrs:expr) => {
            Vector {
                name: $name,
                bytes: include_bytes!(concat!("../vectors/attestation/", $name, ".cose")),
                made: $made,
                leaf_from: $from,
                leaf_until: $until,
                public_key: $key,
                user_data: $data,
                nonce: $nonce,
                pcrs_not_zero: &$pcrs,
            }
        };
    }

    #[rustfmt::skip]
    pub(crate) const GENUINE: [Vector; 8] = [
        vector!("nautilus_weather", "2025-04-15T02:25:23.696Z", "2025-04-15T02:17:47Z" .. "2025-04-15T05:17:50Z", Some(32), None, None, [0, 1, 2, 3, 4]),
        vector!("base_nitro_validator", "2024-11-30T16:22:48.387Z", "2024-11-30T16:22:45Z" .. "2024-11-30T19:22:48Z", Some(65), None, None, [0, 1, 2, 3, 4]),
        vector!("evervault_debug_mode", "2022-10-12T13:50:06.081Z", "2022-10-12T13:49:51Z" .. "2022-10-12T16:49:54Z", Some(19), Some(13), None, [3, 4]),
        vector!("evervault_user_data_nonce_pcr8", "2023-01-18T13:07:19.280Z", "2023-01-18T13:07:13Z" .. "2023-01-18T16:07:16Z", None, Some(120), Some(256), [0, 1, 2, 3, 4, 8]),
        vector!("evervault_debug_mode_2", "2023-09-18T15:03:30.860Z", "2023-09-18T14:37:09Z" .. "2023-09-18T17:37:12Z", None, Some(91), Some(256), [3, 4]),
        vector!("marlin", "2024-08-07T06:38:09.640Z", "2024-08-07T06:38:06Z" .. "2024-08-07T09:38:09Z", Some(64), None, None, [0, 1, 2, 4]),
        vector!("turnkey_indefinite_map", "2025-09-16T21:24:01.438Z", "2025-09-16T21:23:57Z" .. "2025-09-17T00:24:00Z", Some(130), Some(32), None, [0, 1, 2, 3, 4]),
        vector!("veracruz", "2022-11-09T22:52:00.696Z", "2022-11-09T22:51:57Z" .. "2022-11-10T01:52:00Z", None, Some(32), Some(32), [0, 1, 2, 4]),
    ];
    pub(crate) const BAD_SIGNATURE: &[u8] = include_bytes!("../vectors/attestation/veracruz_bad_signature.cose");
    const FOREIGN_ROOT: &[u8] = include_bytes!("../vectors/attestation/foreign_root_pcr16.cose");

    fn at(time: &str) -> SystemTime {
        OffsetDateTime::parse(time, &Rfc3339).expect("a time").into()
    }

    #[test]
    fn genuine_documents_verify_at_their_time() {
        for vector in GENUINE {
            let verified = verify(vector.bytes, &TrustAnchor::aws(), at(vector.made)).expect(vector.name);
            let payload = &verified.payload;
            let length = |field: Option<&[u8]>| field.map(<[u8]>::len);
            assert_eq!(length(payload.public_key.as_deref()), vector.public_key, "{}", vector.name);
            assert_eq!(length(payload.user_data.as_deref()), vector.user_data, "{}", vector.name);
            assert_eq!(length(payload.nonce.as_deref()), vector.nonce, "{}", vector.name);
            let not_zero: Vec<u8> =
                payload.pcrs.iter().filter(|(_, pcr)| pcr.0 != [0; 48]).map(|(index, _)| *index).collect();
            assert_eq!(not_zero, vector.pcrs_not_zero, "{}", vector.name);
            assert_eq!(payload.is_debug_mode(), vector.name.contains("debug"), "{}", vector.name);
            assert_eq!(UNIX_EPOCH + Duration::from_millis(payload.timestamp), at(vector.made), "{}", vector.name);
            assert_eq!(verified.check_evidence_only().is_ok(), vector.public_key.is_none(), "{}", vector.name);
        }
    }

    #[test]
    fn genuine_documents_fail_outside_their_leafs_dates() {
        let second = Duration::from_secs(1);
        for vector in GENUINE {
            let verify = |time| verify(vector.bytes, &TrustAnchor::aws(), time).map(drop);
            let (from, until) = (at(vector.leaf_from), at(vector.leaf_until));
            assert_eq!(verify(from), Ok(()), "{}", vector.name);
            assert_eq!(verify(until), Ok(()), "{}", vector.name);
            assert_eq!(verify(from - second), Err(AttestationError::NotYetValid(4)), "{}", vector.name);
            assert_eq!(verify(until + second), Err(AttestationError::Expired(4)), "{}", vector.name);
        }
    }

    #[test]
    fn a_document_with_a_bad_signature_is_refused() {
        let refusal = verify(BAD_SIGNATURE, &TrustAnchor::aws(), at("2022-11-09T22:52:00.696Z")).map(drop);
        assert_eq!(refusal, Err(AttestationError::DocumentSignature));
    }

    #[test]
    fn a_document_of_a_foreign_root_verifies_under_that_root_only() {
        let time = at("2025-04-30T14:07:23.865Z");
        assert_eq!(verify(FOREIGN_ROOT, &TrustAnchor::aws(), time).map(drop), Err(AttestationError::ForeignRoot));

        let document = AttestationDocument::parse(FOREIGN_ROOT).expect("parses");
        let root = TrustAnchor::from_pem(pem(&document.payload.cabundle[0]).as_bytes()).expect("a root");
        let verified = verify(FOREIGN_ROOT, &root, time).expect("verifies under its own root");
        assert!(verified.payload.pcr(16).is_some());
    }

    #[test]
    fn a_bundle_that_only_adds_the_right_root_is_refused() {
        // AWS's root in front of a foreign chain: the root is the given one, and issued nothing of this.
        let mut mine = Forged::new();
        mine.statement.cabundle.insert(0, aws_root());
        let refusal = verify(&mine.sign(), &TrustAnchor::aws(), mine.at).map(drop);
        assert_eq!(refusal, Err(AttestationError::IssuerName(1)));
    }

    #[test]
    fn a_root_with_the_name_of_awss_is_a_stranger() {
        let forged = Forged::with(|specs| {
            let mut name = DistinguishedName::new();
            name.push(DnType::CountryName, "US");
            name.push(DnType::OrganizationName, "Amazon");
            name.push(DnType::OrganizationalUnitName, "AWS");
            name.push(DnType::CommonName, "aws.nitro-enclaves");
            specs[0].params.distinguished_name = name;
        });
        assert_eq!(forged.verify().map(drop), Ok(()));
        let refusal = verify(&forged.sign(), &TrustAnchor::aws(), forged.at).map(drop);
        assert_eq!(refusal, Err(AttestationError::ForeignRoot));
    }

    fn aws_root() -> Vec<u8> {
        AttestationDocument::parse(GENUINE[0].bytes).expect("parses").payload.cabundle[0].to_vec()
    }
}

/// Chains of the mock's shape with one thing wrong, each refused with the reason's name.
pub(crate) mod broken_chain {
    use super::*;

    macro_rules! refused {
        ($($name:ident: $break_chain:expr => $error:expr;)+) => {
            $(#[test]
            fn $name() {
                assert_eq!(Forged::with($break_chain).verify().map(drop), Err($error));
            })+
        };
    }

    pub(crate) const ROOT: usize = 0;
    pub(crate) const REGION: usize = 1;
    pub(crate) const ZONE: usize = 2;
    pub(crate) const INSTANCE: usize = 3;
    pub(crate) const LEAF: usize = 4;

    refused! {
        root_expired: |specs| expire(&mut specs[ROOT]) => AttestationError::Expired(ROOT);
        intermediate_expired: |specs| expire(&mut specs[REGION]) => AttestationError::Expired(REGION);
        leaf_expired: |specs| expire(&mut specs[LEAF]) => AttestationError::Expired(LEAF);
        root_not_yet_valid: |specs| postpone(&mut specs[ROOT]) => AttestationError::NotYetValid(ROOT);
        intermediate_not_yet_valid: |specs| postpone(&mut specs[INSTANCE]) => AttestationError::NotYetValid(INSTANCE);
        leaf_not_yet_valid: |specs| postpone(&mut specs[LEAF]) => AttestationError::NotYetValid(LEAF);

        root_without_ca_flag: |specs| specs[ROOT].params.is_ca = IsCa::ExplicitNoCa
            => AttestationError::NotAnAuthority(ROOT);
        intermediate_without_ca_flag: |specs| specs[ZONE].params.is_ca = IsCa::ExplicitNoCa
            => AttestationError::NotAnAuthority(ZONE);
        intermediate_without_basic_constraints: |specs| specs[ZONE].params.is_ca = IsCa::NoCa
            => AttestationError::NotAnAuthority(ZONE);
        leaf_that_issued_another_leaf: |specs| {
            for spec in &mut specs[REGION..LEAF] {
                spec.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            let mut leaf = specs[LEAF].clone();
            leaf.params.distinguished_name = nitro_name("another leaf");
            specs.push(leaf);
        } => AttestationError::NotAnAuthority(LEAF);

        root_without_key_cert_sign: |specs| specs[ROOT].params.key_usages = vec![KeyUsagePurpose::DigitalSignature]
            => AttestationError::NoCertificateSigning(ROOT);
        intermediate_without_key_cert_sign: |specs| specs[ZONE].params.key_usages = vec![KeyUsagePurpose::CrlSign]
            => AttestationError::NoCertificateSigning(ZONE);
        intermediate_without_key_usage: |specs| specs[ZONE].params.key_usages.clear()
            => AttestationError::NoCertificateSigning(ZONE);

        path_length_of_the_root_exceeded: |specs| {
            specs[ROOT].params.is_ca = IsCa::Ca(BasicConstraints::Constrained(2));
        } => AttestationError::PathLength(ROOT);
        path_length_of_an_intermediate_exceeded: |specs| {
            specs[ZONE].params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        } => AttestationError::PathLength(ZONE);
        intermediate_below_the_last_one: |specs| {
            let mut fourth = specs[INSTANCE].clone();
            fourth.params.distinguished_name = nitro_name("a fourth intermediate");
            specs.insert(LEAF, fourth);
        } => AttestationError::PathLength(REGION);

        signed_with_sha256: |specs| specs[ZONE].key = &PKCS_ECDSA_P256_SHA256
            => AttestationError::SignatureAlgorithm(INSTANCE);
        signed_by_a_key_of_another_curve: |specs| specs[ZONE].key = &PKCS_ECDSA_P521_SHA384
            => AttestationError::KeyType(ZONE);
        leaf_with_a_key_of_another_curve: |specs| specs[LEAF].key = &PKCS_ECDSA_P256_SHA256
            => AttestationError::KeyType(LEAF);

        intermediate_names_a_foreign_issuer: |specs| specs[ZONE].issuer_name = Some(nitro_name("somebody else"))
            => AttestationError::IssuerName(ZONE);
        leaf_names_a_foreign_issuer: |specs| specs[LEAF].issuer_name = Some(nitro_name("somebody else"))
            => AttestationError::IssuerName(LEAF);
        intermediate_signed_by_a_stranger: |specs| specs[REGION].signed_by_stranger = true
            => AttestationError::CertificateSignature(REGION);
        leaf_signed_by_a_stranger: |specs| specs[LEAF].signed_by_stranger = true
            => AttestationError::CertificateSignature(LEAF);

        leaf_with_ca_flag: |specs| specs[LEAF].params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))
            => AttestationError::LeafIsAuthority;
        leaf_without_digital_signature: |specs| specs[LEAF].params.key_usages = vec![KeyUsagePurpose::KeyAgreement]
            => AttestationError::LeafMayNotSign;
        leaf_without_key_usage: |specs| specs[LEAF].params.key_usages.clear()
            => AttestationError::LeafMayNotSign;

        unknown_critical_extension: |specs| {
            let mut extension = CustomExtension::from_oid_content(&[2, 999, 1], vec![5, 0]);
            extension.set_criticality(true);
            specs[LEAF].params.custom_extensions.push(extension);
        } => AttestationError::CriticalExtension(LEAF);
        name_constraints_that_nobody_obeys: |specs| {
            let nobody = GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [255; 4]));
            specs[REGION].params.name_constraints =
                Some(NameConstraints { permitted_subtrees: vec![nobody], excluded_subtrees: vec![] });
        } => AttestationError::CriticalExtension(REGION);
    }

    #[test]
    fn chains_of_the_real_shapes_verify() {
        assert_eq!(Forged::new().verify().map(drop), Ok(()));
        let two_intermediates = Forged::with(|specs| drop(specs.remove(REGION)));
        assert_eq!(two_intermediates.verify().map(drop), Ok(()));
        let uncritical = Forged::with(|specs| {
            specs[LEAF].params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 999, 1], vec![5, 0]));
        });
        assert_eq!(uncritical.verify().map(drop), Ok(()));
    }

    #[test]
    fn bundles_that_were_tampered_with_are_refused() {
        let refusal = |tamper: fn(&mut Vec<Vec<u8>>)| {
            let mut forged = Forged::new();
            tamper(&mut forged.statement.cabundle);
            forged.verify().map(drop).expect_err("tampered")
        };
        assert_eq!(refusal(|bundle| bundle.swap(REGION, ZONE)), AttestationError::IssuerName(REGION));
        assert_eq!(refusal(|bundle| drop(bundle.remove(ZONE))), AttestationError::IssuerName(ZONE));
        assert_eq!(refusal(|bundle| drop(bundle.remove(ROOT))), AttestationError::ForeignRoot);
        assert_eq!(refusal(|bundle| bundle.reverse()), AttestationError::ForeignRoot);
        assert_eq!(refusal(|bundle| bundle.truncate(1)), AttestationError::IssuerName(1));
        assert_eq!(refusal(|bundle| bundle[ROOT].push(0)), AttestationError::ForeignRoot);
        assert_eq!(refusal(|bundle| bundle[ZONE].push(0)), AttestationError::MalformedCertificate(ZONE));
        assert_eq!(refusal(|bundle| bundle[ZONE].truncate(100)), AttestationError::MalformedCertificate(ZONE));
        assert_eq!(refusal(|bundle| bundle.clear()), AttestationError::Document(DocumentError("cabundle")));
        assert_eq!(
            refusal(|bundle| (0..8).for_each(|_| bundle.push(bundle[ZONE].clone()))),
            AttestationError::Document(DocumentError("cabundle"))
        );
    }

    #[test]
    fn the_two_names_of_a_signatures_algorithm_must_agree() {
        // The outer one is not covered by the signature: ecdsa-with-SHA384 becomes ecdsa-with-SHA512.
        const SHA384: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
        let mut forged = Forged::new();
        let leaf = &mut forged.statement.certificate;
        let outer = leaf.windows(SHA384.len()).rposition(|bytes| bytes == SHA384).expect("named");
        leaf[outer + SHA384.len() - 1] = 0x04;
        assert_eq!(forged.verify().map(drop), Err(AttestationError::SignatureAlgorithm(LEAF)));
    }

    pub(crate) fn expire(spec: &mut CertificateSpec) {
        spec.params.not_before = OffsetDateTime::now_utc() - Duration::from_secs(7200);
        spec.params.not_after = OffsetDateTime::now_utc() - Duration::from_secs(60);
    }

    pub(crate) fn postpone(spec: &mut CertificateSpec) {
        spec.params.not_before = OffsetDateTime::now_utc() + Duration::from_secs(60);
        spec.params.not_after = OffsetDateTime::now_utc() + Duration::from_secs(7200);
    }
}

/// Documents whose chain is right and whose bytes or signature are not.
pub(crate) mod broken_document {
    use super::*;

    #[test]
    fn mocks_are_refused_under_awss_root() {
        let forged = Forged::new();
        assert_eq!(forged.verify().map(drop), Ok(()));
        let refusal = verify(&forged.sign(), &TrustAnchor::aws(), forged.at).map(drop);
        assert_eq!(refusal, Err(AttestationError::ForeignRoot));
    }

    #[test]
    fn truncated_documents_are_refused() {
        let forged = Forged::new();
        let document = forged.sign();
        for length in 0..document.len() {
            let refusal = verify(&document[..length], &forged.root(), forged.at).map(drop);
            assert!(matches!(refusal, Err(AttestationError::Document(_))), "{length}: {refusal:?}");
        }
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let forged = Forged::new();
        let document = [forged.sign(), vec![0]].concat();
        let refusal = verify(&document, &forged.root(), forged.at).map(drop);
        assert!(matches!(refusal, Err(AttestationError::Document(_))), "{refusal:?}");

        let mut payload = forged.statement.encode(Framing::Definite);
        payload.push(0xf6);
        let document = cose_sign1(&payload, forged.chain.leaf_key());
        let refusal = verify(&document, &forged.root(), forged.at).map(drop);
        assert!(matches!(refusal, Err(AttestationError::Document(_))), "{refusal:?}");
    }

    #[test]
    fn cose_sign1_may_be_tagged() {
        let forged = Forged::new();
        let tagged = [vec![0xd2], forged.sign()].concat();
        assert_eq!(verify(&tagged, &forged.root(), forged.at).map(drop), Ok(()));
        let twice = [vec![0xd2, 0xd2], forged.sign()].concat();
        assert!(verify(&twice, &forged.root(), forged.at).is_err());
    }

    #[test]
    fn a_payload_in_another_encoding_is_another_payload() {
        let forged = Forged::new();
        let (definite, indefinite) =
            (forged.statement.encode(Framing::Definite), forged.statement.encode(Framing::Indefinite));
        let document = cose_sign1(&indefinite, forged.chain.leaf_key());
        assert_eq!(verify(&document, &forged.root(), forged.at).map(drop), Ok(()));
        let reencoded = replace_payload(&document, &indefinite, &definite);
        let refusal = verify(&reencoded, &forged.root(), forged.at).map(drop);
        assert_eq!(refusal, Err(AttestationError::DocumentSignature));
    }

    #[test]
    fn another_algorithm_is_refused() {
        let forged = Forged::new();
        let mut document = forged.sign();
        assert_eq!(document[2..6], [0xa1, 0x01, 0x38, 0x22]);
        document[5] = 0x23;
        let refusal = verify(&document, &forged.root(), forged.at).map(drop);
        assert_eq!(refusal, Err(AttestationError::CoseAlgorithm(-36)));
    }

    #[test]
    fn a_document_signed_by_a_stranger_is_refused() {
        let forged = Forged { key: Some(p384_key()), ..Forged::new() };
        assert_eq!(forged.verify().map(drop), Err(AttestationError::DocumentSignature));
    }

    #[test]
    fn a_document_with_the_leaf_of_another_chain_is_refused() {
        let mut forged = Forged::new();
        forged.statement.certificate = Forged::new().chain.leaf().to_vec();
        // The names agree; the key that signed the leaf is another.
        assert_eq!(forged.verify().map(drop), Err(AttestationError::CertificateSignature(4)));
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let forged = Forged::new();
        let (document, root) = (forged.sign(), forged.root());
        for place in (0..document.len()).step_by(5) {
            let mut flipped = document.clone();
            flipped[place] ^= 1 << (place % 8);
            assert!(verify(&flipped, &root, forged.at).is_err(), "byte {place}");
        }
    }

    #[test]
    fn statements_beyond_the_modules_limits_are_refused() {
        type Exaggerate = fn(&mut Statement);
        let exaggerations: [(&str, Exaggerate); 9] = [
            ("user_data", |statement| statement.user_data = Some(vec![0; 513])),
            ("nonce", |statement| statement.nonce = Some(vec![0; 513])),
            ("public_key", |statement| statement.public_key = Some(vec![0; 1025])),
            ("certificate", |statement| statement.certificate = vec![0; 1025]),
            ("no_certificate", |statement| statement.certificate.clear()),
            ("pcr_beyond_the_bank", |statement| statement.pcrs.extend([(32, [1; 48])])),
            ("no_pcrs", |statement| statement.pcrs.clear()),
            ("digest", |statement| statement.digest = "SHA256".to_owned()),
            ("timestamp", |statement| statement.timestamp = 0),
        ];
        for (name, exaggerate) in exaggerations {
            let mut forged = Forged::new();
            exaggerate(&mut forged.statement);
            let refusal = forged.verify().map(drop);
            assert!(matches!(refusal, Err(AttestationError::Document(_))), "{name}: {refusal:?}");
        }
    }

    pub(crate) fn replace_payload(document: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
        let at = document.windows(old.len()).position(|bytes| bytes == old).expect("in there");
        let length = u16::try_from(new.len()).expect("a payload").to_be_bytes();
        [&document[..at - 2], &length, new, &document[at + old.len()..]].concat()
    }
}

/// What a verified document says is compared with what was expected.
mod claims {
    use super::*;

    #[test]
    fn the_expected_registers_pass() {
        assert_eq!(verified(|_| {}).check_pcrs(&expected(&[])), Ok(()));
        let [_, kernel, _] = image_pcrs("image");
        assert_eq!(verified(|_| {}).check_pcrs(&expected(&[(1, kernel)])), Ok(()));
    }

    #[test]
    fn the_first_register_that_differs_is_named() {
        let refusal = |more: &[(u8, Pcr)]| verified(|_| {}).check_pcrs(&expected(more)).expect_err("differs");
        assert_eq!(refusal(&[(2, [9; 48]), (8, [9; 48])]), AttestationError::Pcr(2));
        assert_eq!(refusal(&[(0, image_pcrs("another image")[0])]), AttestationError::Pcr(0));
        assert_eq!(refusal(&[(16, [9; 48])]), AttestationError::Pcr(16));
        assert_eq!(refusal(&[(17, [9; 48])]), AttestationError::Pcr(17));
    }

    #[test]
    fn debug_mode_is_refused_whatever_is_expected() {
        let zero = verified(|statement| statement.pcrs.extend([(0, [0; 48])]));
        let absent = verified(|statement| statement.pcrs.retain(|index, _| *index != 0));
        for document in [zero, absent] {
            assert_eq!(document.check_pcrs(&expected(&[])), Err(AttestationError::DebugMode));
        }
    }

    #[test]
    fn an_enclave_without_configuration_is_refused_whatever_is_expected() {
        let absent = verified(|statement| statement.pcrs.retain(|index, _| *index != 16));
        let zero = verified(|statement| statement.pcrs.extend([(16, [0; 48])]));
        for document in [absent, zero] {
            assert_eq!(document.check_pcrs(&expected(&[])), Err(AttestationError::NotConfigured));
        }
    }

    #[test]
    fn the_nonce_must_be_the_callers() {
        let document = verified(|statement| statement.nonce = Some(b"mine".to_vec()));
        assert_eq!(document.check_nonce(b"mine"), Ok(()));
        for other in [&b"yours"[..], b"min", b"mine ", b""] {
            assert_eq!(document.check_nonce(other), Err(AttestationError::Nonce));
        }
        assert_eq!(verified(|_| {}).check_nonce(b""), Err(AttestationError::Nonce));
    }

    #[test]
    fn the_user_data_must_be_the_expected_one() {
        let document = verified(|statement| statement.user_data = Some(b"strongroom-key-v1".to_vec()));
        assert_eq!(document.check_user_data(b"strongroom-key-v1"), Ok(()));
        assert_eq!(document.check_user_data(b"strongroom-key-v2"), Err(AttestationError::UserData));
        assert_eq!(verified(|_| {}).check_user_data(b""), Err(AttestationError::UserData));
    }

    #[test]
    fn evidence_carries_no_key() {
        assert_eq!(verified(|_| {}).check_evidence_only(), Ok(()));
        for key in [vec![], vec![4; 65]] {
            let document = verified(|statement| statement.public_key = Some(key));
            assert_eq!(document.check_evidence_only(), Err(AttestationError::NotEvidence));
        }
    }

    #[test]
    fn a_document_is_fresh_for_a_while() {
        let document = verified(|_| {});
        let made = UNIX_EPOCH + Duration::from_millis(document.payload.timestamp);
        let (second, age) = (Duration::from_secs(1), Duration::from_secs(300));
        assert_eq!(document.check_fresh(made, age), Ok(()));
        assert_eq!(document.check_fresh(made + age, age), Ok(()));
        assert_eq!(document.check_fresh(made + age + second, age), Err(AttestationError::Stale));
        assert_eq!(document.check_fresh(made - CLOCK_TOLERANCE, age), Ok(()));
        assert_eq!(document.check_fresh(made - CLOCK_TOLERANCE - second, age), Err(AttestationError::FromTheFuture));
        let never = verified(|statement| statement.timestamp = u64::MAX);
        assert_eq!(never.check_fresh(made, age), Err(AttestationError::FromTheFuture));
    }

    fn verified(state: impl FnOnce(&mut Statement)) -> VerifiedDocument {
        let mut forged = Forged::new();
        state(&mut forged.statement);
        forged.verify().expect("verifies")
    }

    /// The registers of [`Forged`], with these instead or besides.
    fn expected(others: &[(u8, Pcr)]) -> ExpectedPcrs {
        let mut pcrs = BTreeMap::from([(0, image_pcrs("image")[0]), (16, CONFIGURATION)]);
        pcrs.extend(others.iter().copied());
        let json: BTreeMap<_, _> = pcrs.iter().map(|(index, pcr)| (format!("PCR{index}"), hex::encode(pcr))).collect();
        ExpectedPcrs::from_json(&serde_json::to_vec(&json).expect("JSON")).expect("registers")
    }
}

/// A document under construction: a chain that may be broken, and a statement that may be anything.
pub(crate) struct Forged {
    pub(crate) chain: NitroChain,
    pub(crate) statement: Statement,
    pub(crate) at: SystemTime,
    /// Signs instead of the leaf's.
    key: Option<KeyPair>,
}

impl Forged {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(break_chain: impl FnOnce(&mut Vec<CertificateSpec>)) -> Self {
        let at = SystemTime::now();
        let mut specs = nitro_specs(at);
        break_chain(&mut specs);
        let chain = NitroChain::issue(&specs);
        let [image, kernel, application] = image_pcrs("image");
        let mut pcrs: BTreeMap<u8, Pcr> = (0..16).map(|index| (index, [0; 48])).collect();
        pcrs.extend([(0, image), (1, kernel), (2, application), (16, CONFIGURATION)]);
        let statement = Statement::new("i-0123456789abcdef0-enc0123456789abcdef", at, pcrs, &chain);
        // A leaf of another curve cannot make an ES384 signature; the verifier does not get that far.
        let key = (chain.leaf_key().algorithm() != &PKCS_ECDSA_P384_SHA384).then(p384_key);
        Self { chain, statement, at, key }
    }

    pub(crate) fn sign(&self) -> Vec<u8> {
        let key = self.key.as_ref().unwrap_or(self.chain.leaf_key());
        cose_sign1(&self.statement.encode(Framing::Definite), key)
    }

    fn root(&self) -> TrustAnchor {
        TrustAnchor::from_pem(self.chain.root_pem().as_bytes()).expect("a root")
    }

    fn verify(&self) -> Result<VerifiedDocument, AttestationError> {
        verify(&self.sign(), &self.root(), self.at)
    }
}

pub(crate) const CONFIGURATION: Pcr = [0x16; 48];

fn p384_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key")
}

/// PEM (RFC 7468) of a certificate.
fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}
