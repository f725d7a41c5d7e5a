//! Everything that goes wrong on demand, as a client sees it.

use std::time::{Duration, Instant};

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use strongroom_tests::mock_kms::envelope::Defect;
use strongroom_tests::mock_kms::{Fault, FaultKind};
use strongroom_tests::mock_nsm::Machine;

use super::envelope;
use super::running::{Enclave, MockKms, refusal};
use super::with_key;

#[tokio::test]
async fn refusals_last_as_long_as_asked() {
    let (kms, client, key) = with_key().await;
    let generate = || client.generate_data_key().key_id(&key).number_of_bytes(1).send();
    let random = || client.generate_random().number_of_bytes(1).send();

    kms.control.set_fault(&Fault::next(2, FaultKind::Throttle).on("GenerateDataKey")).await.expect("set");
    assert!(random().await.is_ok(), "another action");
    assert_eq!(refusal(generate().await).0, "ThrottlingException");
    assert_eq!(refusal(generate().await).0, "ThrottlingException");
    assert!(generate().await.is_ok(), "the third call");

    kms.control.set_fault(&Fault::next(1, FaultKind::Throttle).on("GenerateRandom").after(2)).await.expect("set");
    for well in [true, true, false, true] {
        assert!(generate().await.is_ok(), "another action, which does not count");
        assert_eq!(random().await.is_ok(), well);
    }

    kms.control.set_fault(&Fault::always(FaultKind::InternalError)).await.expect("set");
    for _ in 0..3 {
        assert_eq!(refusal(random().await).0, "KMSInternalException");
    }
    kms.control.clear_faults().await.expect("cleared");
    assert!(random().await.is_ok());
}

#[tokio::test]
async fn internal_errors_are_500_and_throttling_is_400() {
    let (kms, client, _) = with_key().await;
    for (kind, status) in [(FaultKind::Throttle, 400), (FaultKind::InternalError, 500)] {
        kms.control.set_fault(&Fault::next(1, kind)).await.expect("set");
        let error = client.generate_random().number_of_bytes(1).send().await.expect_err("refused");
        assert_eq!(error.raw_response().expect("a response").status().as_u16(), status);
    }
}

#[tokio::test]
async fn latency_and_hanging() {
    let (kms, client, _) = with_key().await;
    let random = || client.generate_random().number_of_bytes(1).send();
    kms.control.set_fault(&Fault::next(1, FaultKind::Latency(300))).await.expect("set");
    let start = Instant::now();
    assert!(random().await.is_ok());
    assert!(start.elapsed() >= Duration::from_millis(300));

    kms.control.set_fault(&Fault::next(1, FaultKind::Hang)).await.expect("set");
    assert!(matches!(random().await, Err(SdkError::TimeoutError(_))));
    assert!(random().await.is_ok(), "others are served");
}

#[tokio::test]
async fn replies_that_break_off_or_are_no_replies() {
    let (kms, client, _) = with_key().await;
    let random = || client.generate_random().number_of_bytes(1024).send();
    kms.control.set_fault(&Fault::next(1, FaultKind::CutReply)).await.expect("set");
    let error = random().await.expect_err("half a reply");
    assert_eq!(error.code(), None, "{error:?}");
    assert!(!matches!(error, SdkError::TimeoutError(_)), "the end must be seen, not waited for: {error:?}");

    kms.control.set_fault(&Fault::next(1, FaultKind::GarbageBody)).await.expect("set");
    let error = random().await.expect_err("garbage");
    assert!(matches!(error, SdkError::ServiceError(_)) && error.code().is_none(), "{error:?}");
    assert!(random().await.is_ok());
}

#[tokio::test]
async fn replies_that_lie() {
    let (kms, client, key) = with_key().await;
    let mut enclave = Enclave::boot(Machine::default(), b"configuration");
    kms.trust(&enclave.nsm);
    let mut generate = async || {
        let request = client.generate_data_key().key_id(&key).key_spec(DataKeySpec::Aes256);
        request.recipient(enclave.recipient()).send().await.expect("answered")
    };
    let wrong = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-4000-8000-000000000000";
    kms.control.set_fault(&Fault::next(1, FaultKind::WrongKeyId(wrong.to_owned()))).await.expect("set");
    assert_eq!(generate().await.key_id(), Some(wrong));

    kms.control.set_fault(&Fault::next(1, FaultKind::PlaintextBeside)).await.expect("set");
    let reply = generate().await;
    assert!(reply.ciphertext_for_recipient().is_some());
    assert_eq!(reply.plaintext().expect("a plaintext").as_ref().len(), 32);

    kms.control.set_fault(&Fault::next(1, FaultKind::PlaintextInstead)).await.expect("set");
    let reply = generate().await;
    assert_eq!((reply.ciphertext_for_recipient(), reply.plaintext().map(|it| it.as_ref().len())), (None, Some(32)));
}

#[tokio::test]
async fn envelopes_with_defects() {
    let (kms, client, _) = with_key().await;
    let mut enclave = Enclave::boot(Machine::default(), b"configuration");
    kms.trust(&enclave.nsm);
    for (defect, opens) in [
        (Defect::Forged, true),
        (Defect::Truncated, false),
        (Defect::TrailingByte, false),
        (Defect::ContentType, false),
        (Defect::OaepHash, false),
        (Defect::SecondRecipient, false),
        (Defect::Padding, false),
    ] {
        kms.control.set_fault(&Fault::next(1, FaultKind::Envelope(defect))).await.expect("set");
        let reply = client.generate_random().number_of_bytes(32).recipient(enclave.recipient()).send().await;
        let envelope = reply.expect("answered").ciphertext_for_recipient.expect("an envelope").into_inner();
        assert_eq!(envelope::open(&envelope, &enclave.key).is_ok(), opens, "{defect:?}");
    }
    let calls = kms.control.calls(0).await.expect("calls");
    assert!(calls.iter().all(|call| call.outcome == "Success" && call.faults.len() == 1));
}

#[tokio::test]
async fn a_forgery_opens_to_other_bytes() {
    let (kms, client, key) = with_key().await;
    let mut enclave = Enclave::boot(Machine::default(), b"configuration");
    kms.trust(&enclave.nsm);
    let sealed = client.encrypt().key_id(&key).plaintext(Blob::new("a data key")).send().await.expect("encrypted");
    kms.control.set_fault(&Fault::always(FaultKind::Envelope(Defect::Forged)).on("Decrypt")).await.expect("set");
    let blob = sealed.ciphertext_blob.expect("a blob");
    let reply = client.decrypt().ciphertext_blob(blob).recipient(enclave.recipient()).send().await.expect("answered");
    let opened = envelope::open(reply.ciphertext_for_recipient.expect("an envelope").as_ref(), &enclave.key);
    assert_ne!(opened.expect("opens"), b"a data key");
}

#[tokio::test]
async fn unset_faults_change_nothing() {
    let kms = MockKms::start().await;
    kms.control.set_fault(&Fault::always(FaultKind::Throttle).on("Decrypt")).await.expect("set");
    assert!(kms.client().generate_random().number_of_bytes(1).send().await.is_ok());
    assert_eq!(kms.control.calls(0).await.expect("calls")[0].faults, []);
}
