//! The mock NSM behaves like the device: registers, locks, error codes, limits, documents.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use aws_nitro_enclaves_nsm_api::api::{Digest, ErrorCode, Request, Response};
use sha2::{Digest as _, Sha384};
use strongroom_enclave::Attestor;
use strongroom_parent::attestation::{AttestationError, TrustAnchor, VerifiedDocument, verify};
use strongroom_protocol::document::AttestationDocument;
use strongroom_tests::mock_nsm::{Machine, MockNsm, image_pcrs};
use strongroom_tests::pki::{NITRO_ROOT_FILE, NitroAuthority};

fn booted(machine: Machine) -> MockNsm {
    MockNsm::new(NitroAuthority::new(), machine)
}

fn attest(nsm: &mut MockNsm) -> Vec<u8> {
    match nsm.process(Request::Attestation { user_data: None, nonce: None, public_key: None }) {
        Response::Attestation { document } => document,
        other => panic!("{other:?}"),
    }
}

fn verified(nsm: &mut MockNsm) -> VerifiedDocument {
    let root = TrustAnchor::from_pem(nsm.root_pem().as_bytes()).expect("root");
    verify(&attest(nsm), &root, SystemTime::now()).expect("verifies")
}

fn pcr(nsm: &mut MockNsm, index: u16) -> (bool, Vec<u8>) {
    match nsm.process(Request::DescribePCR { index }) {
        Response::DescribePCR { lock, data } => (lock, data),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_booted_machine_has_sixteen_locked_registers() {
    let mut nsm = booted(Machine::default());
    for index in 0..32 {
        let (lock, value) = pcr(&mut nsm, index);
        assert_eq!(lock, index < 16, "PCR{index}");
        assert_eq!(value != [0; 48], index < 5, "PCR{index}");
    }
    let [image, kernel, application] = image_pcrs("strongroom-dev");
    assert_eq!(
        (pcr(&mut nsm, 0).1, pcr(&mut nsm, 1).1, pcr(&mut nsm, 2).1),
        (image.into(), kernel.into(), application.into())
    );
    let Response::DescribeNSM { module_id, max_pcrs, locked_pcrs, digest, .. } = nsm.process(Request::DescribeNSM)
    else {
        panic!("no description");
    };
    assert!(module_id.starts_with("i-") && module_id.contains("-enc"));
    assert_eq!((max_pcrs, locked_pcrs, digest), (32, BTreeSet::from_iter(0..16), Digest::SHA384));
}

#[test]
fn an_image_has_its_own_registers() {
    assert_eq!(image_pcrs("a"), image_pcrs("a"));
    let all: BTreeSet<_> = ["a", "b"].into_iter().flat_map(image_pcrs).collect();
    assert_eq!(all.len(), 6);
}

#[test]
fn extending_hashes_the_old_value_with_the_data() {
    let mut nsm = booted(Machine::default());
    let mut value = vec![0; 48];
    for data in [&b"first"[..], b"second"] {
        value = Sha384::digest([&value, data].concat()).to_vec();
        let Response::ExtendPCR { data } = nsm.process(Request::ExtendPCR { index: 16, data: data.to_vec() }) else {
            panic!("not extended");
        };
        assert_eq!(data, value);
    }
    assert_eq!(pcr(&mut nsm, 16), (false, value));
}

#[test]
fn locked_registers_are_read_only() {
    let mut nsm = booted(Machine::default());
    let read_only = |response| matches!(response, Response::Error(ErrorCode::ReadOnlyIndex));
    for index in [0, 15] {
        assert!(read_only(nsm.process(Request::ExtendPCR { index, data: vec![1] })), "PCR{index}");
        assert!(read_only(nsm.process(Request::LockPCR { index })), "PCR{index}");
    }
    assert!(matches!(nsm.process(Request::LockPCR { index: 16 }), Response::LockPCR));
    assert!(read_only(nsm.process(Request::ExtendPCR { index: 16, data: vec![1] })));
    assert!(read_only(nsm.process(Request::LockPCR { index: 16 })));
    assert!(matches!(nsm.process(Request::LockPCRs { range: 20 }), Response::LockPCRs));
    assert!(pcr(&mut nsm, 19).0 && !pcr(&mut nsm, 20).0);
    assert!(matches!(nsm.process(Request::LockPCRs { range: 32 }), Response::LockPCRs));
}

#[test]
fn registers_beyond_the_bank_do_not_exist() {
    let mut nsm = booted(Machine::default());
    for request in [
        Request::DescribePCR { index: 32 },
        Request::ExtendPCR { index: 32, data: vec![1] },
        Request::LockPCR { index: u16::MAX },
        Request::LockPCRs { range: 33 },
    ] {
        let response = nsm.process(request);
        assert!(matches!(response, Response::Error(ErrorCode::InvalidIndex)), "{response:?}");
    }
}

#[test]
fn random_bytes_come_in_lots_of_256_and_differ() {
    let mut nsm = booted(Machine::default());
    let mut draw = || match nsm.process(Request::GetRandom) {
        Response::GetRandom { random } => random,
        other => panic!("{other:?}"),
    };
    let (one, other) = (draw(), draw());
    assert_eq!((one.len(), other.len()), (256, 256));
    assert_ne!(one, other);
}

#[test]
fn documents_carry_locked_registers_only() {
    let mut nsm = booted(Machine::default());
    let indices = |document: VerifiedDocument| document.payload.pcrs.into_keys().collect::<Vec<_>>();
    assert!(matches!(nsm.process(Request::ExtendPCR { index: 16, data: vec![1] }), Response::ExtendPCR { .. }));
    assert_eq!(indices(verified(&mut nsm)), (0..16).collect::<Vec<_>>());
    assert!(matches!(nsm.process(Request::LockPCR { index: 16 }), Response::LockPCR));
    assert_eq!(indices(verified(&mut nsm)), (0..17).collect::<Vec<_>>());
}

#[test]
fn documents_return_what_the_request_gave_and_null_otherwise() {
    let mut nsm = booted(Machine::default());
    let nothing = verified(&mut nsm).payload;
    assert!(nothing.user_data.is_none() && nothing.nonce.is_none() && nothing.public_key.is_none());

    let request = Request::Attestation {
        user_data: Some(vec![1; 512].into()),
        nonce: Some(vec![2; 512].into()),
        public_key: Some(vec![3; 1024].into()),
    };
    let Response::Attestation { document } = nsm.process(request) else { panic!("no document") };
    let all = AttestationDocument::parse(&document).expect("parses").payload;
    assert_eq!(all.user_data.as_deref(), Some(&[1; 512][..]));
    assert_eq!(all.nonce.as_deref(), Some(&[2; 512][..]));
    assert_eq!(all.public_key.as_deref(), Some(&[3; 1024][..]));
}

#[test]
fn inputs_beyond_the_limits_are_too_large() {
    let mut nsm = booted(Machine::default());
    let attestation = |user_data: usize, nonce: usize, public_key: usize| Request::Attestation {
        user_data: Some(vec![0; user_data].into()),
        nonce: Some(vec![0; nonce].into()),
        public_key: Some(vec![0; public_key].into()),
    };
    for request in [
        attestation(513, 0, 1),
        attestation(0, 513, 1),
        attestation(0, 0, 1025),
        // The driver refuses this one before the module sees it.
        Request::ExtendPCR { index: 16, data: vec![0; 4097] },
    ] {
        let response = nsm.process(request);
        assert!(matches!(response, Response::Error(ErrorCode::InputTooLarge)), "{response:?}");
    }
    assert_eq!(pcr(&mut nsm, 16).1, [0; 48]);
}

#[test]
fn both_framings_occur_and_verify() {
    let mut nsm = booted(Machine::default());
    let root = TrustAnchor::from_pem(nsm.root_pem().as_bytes()).expect("root");
    let mut first_bytes = BTreeMap::<u8, u32>::new();
    for _ in 0..4 {
        let document = attest(&mut nsm);
        verify(&document, &root, SystemTime::now()).expect("verifies");
        let payload = AttestationDocument::parse(&document).expect("parses").sign1.payload;
        *first_bytes.entry(payload[0]).or_default() += 1;
    }
    assert_eq!(first_bytes, BTreeMap::from([(0xa9, 2), (0xbf, 2)]));
}

#[test]
fn debug_mode_zeroes_the_measurements_and_nothing_else() {
    let mut nsm = booted(Machine { debug_mode: true, ..Machine::default() });
    for index in 0..5 {
        assert_eq!(pcr(&mut nsm, index).1 == [0; 48], index < 3, "PCR{index}");
    }
    assert!(verified(&mut nsm).payload.is_debug_mode());
}

#[test]
fn a_leaf_is_used_until_it_expires() {
    let mut nsm = booted(Machine::default());
    let leaf = |nsm: &mut MockNsm| AttestationDocument::parse(&attest(nsm)).expect("parses").payload.certificate;
    let first = leaf(&mut nsm);
    nsm.set_clock_offset(3 * 3600 - 30);
    assert_eq!(leaf(&mut nsm), first);
    nsm.set_clock_offset(3 * 3600 + 30);
    assert_ne!(leaf(&mut nsm), first);
}

#[test]
fn the_clock_can_be_set() {
    let mut nsm = booted(Machine { clock_offset_seconds: -7200, ..Machine::default() });
    let root = TrustAnchor::from_pem(nsm.root_pem().as_bytes()).expect("root");
    let (document, now) = (attest(&mut nsm), SystemTime::now());
    let verified = verify(&document, &root, now).expect("the leaf has an hour left");
    assert_eq!(verified.check_fresh(now, Duration::from_secs(300)), Err(AttestationError::Stale));
    assert_eq!(verified.check_fresh(now - Duration::from_secs(7200), Duration::from_secs(300)), Ok(()));
}

#[test]
fn a_request_takes_the_latency() {
    let latency = Duration::from_millis(20);
    let mut nsm = booted(Machine { latency, ..Machine::default() });
    let start = Instant::now();
    let _ = nsm.process(Request::GetRandom);
    assert!(start.elapsed() >= latency);
}

#[test]
fn the_root_survives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = || MockNsm::new(NitroAuthority::open(directory.path()).expect("opens"), Machine::default());
    let document = attest(&mut machine());
    let root = std::fs::read(directory.path().join(NITRO_ROOT_FILE)).expect("written");
    let root = TrustAnchor::from_pem(&root).expect("PEM");
    for document in [document, attest(&mut machine())] {
        verify(&document, &root, SystemTime::now()).expect("verifies under the same root");
    }
}
