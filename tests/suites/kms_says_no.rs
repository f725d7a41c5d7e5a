//! KMS says no, or nothing, or nonsense: what the caller sees, how often it was tried, and that the
//! next good request is served.

mod credentials;

use std::time::{Duration, Instant};

use serde_json::json;
use strongroom_tests::api::Reply;
use strongroom_tests::mock_kms::envelope::Defect;
use strongroom_tests::mock_kms::{Admitted, Fault, FaultKind, KeyState, dedicated_key_policy};
use strongroom_tests::mock_nsm::image_pcrs;
use strongroom_tests::stack::{ADMINISTRATOR_ARN, IMAGE, PARENT_ARN, REGION};

use crate::scene::{Scene, assert_problem};

/// The enclave's attempts at one call.
const ATTEMPTS: usize = 4;

#[tokio::test]
async fn wrong_pcr0() {
    let it = Scene::planned(|plan| plan.admitted_image = Some("another image".to_owned())).await;
    denied_until_admitted(&it).await;
}

#[tokio::test]
async fn wrong_pcr16() {
    let it = Scene::planned(|plan| plan.admitted_pcr16 = Some([0x16; 48])).await;
    denied_until_admitted(&it).await;
}

async fn denied_until_admitted(it: &Scene) {
    assert_problem(&try_create(it, "a").await, 502, "kms-denied");
    assert_eq!(it.outcomes("a").await, ["GenerateDataKey AccessDeniedException"]);
    assert_eq!(it.api.get("/v1/keys/a").await.expect("a reply").status.as_u16(), 404);

    admit(it, image_pcrs(IMAGE)[0]).await;
    it.create("a").await;
    it.signs("a").await;
}

#[tokio::test]
async fn an_image_that_is_no_longer_admitted_opens_nothing() {
    let it = Scene::start().await;
    it.create("a").await;
    admit(&it, image_pcrs("the next image")[0]).await;
    assert_problem(&it.sign("a").await, 502, "kms-denied");
    admit(&it, image_pcrs(IMAGE)[0]).await;
    it.signs("a").await;
}

#[tokio::test]
async fn a_debug_image_performs_no_key_operation() {
    let mut it = Scene::start().await;
    it.create("a").await;
    let calls = it.calls().await;

    it.stack.plan.debug_mode = true;
    it.stack.restart_enclave().await.expect("restarted");
    crate::scene::eventually("the parent sees the debug image", async || {
        it.sign("a").await.problem() == "enclave-debug-mode"
    })
    .await;
    assert_problem(&it.sign("a").await, 502, "enclave-debug-mode");
    assert_problem(&try_create(&it, "b").await, 502, "enclave-debug-mode");
    let evidence = it.api.get("/v1/keys/a/attestation?nonce=01").await.expect("a reply");
    assert_problem(&evidence, 502, "enclave-debug-mode");
    assert_eq!(it.calls().await, calls, "KMS was not even asked");

    it.stack.plan.debug_mode = false;
    it.stack.restart_enclave().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    it.signs("a").await;
}

#[tokio::test]
async fn throttled_twice_is_retried_with_backoff_and_succeeds() {
    let it = Scene::start().await;
    it.create("a").await;
    it.set_fault(Fault::next(2, FaultKind::Throttle)).await;
    let calls = it.calls().await;
    it.signs("a").await;
    assert_eq!(
        it.outcomes_after(calls).await,
        ["Decrypt ThrottlingException", "Decrypt ThrottlingException", "Decrypt Success"]
    );
}

#[tokio::test]
async fn throttled_for_good() {
    let it = Scene::start().await;
    it.create("a").await;
    it.set_fault(Fault::always(FaultKind::Throttle)).await;
    let calls = it.calls().await;
    let reply = it.sign("a").await;
    assert_problem(&reply, 503, "kms-throttled");
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(it.outcomes_after(calls).await, ["Decrypt ThrottlingException"; ATTEMPTS]);
    assert_problem(&try_create(&it, "b").await, 503, "kms-throttled");
    it.clear_faults().await;
    it.signs("a").await;
}

#[tokio::test]
async fn slow_beyond_the_deadline() {
    times_out(FaultKind::Latency(60_000)).await;
}

#[tokio::test]
async fn no_answer_at_all() {
    times_out(FaultKind::Hang).await;
}

async fn times_out(fault: FaultKind) {
    let it = Scene::start().await;
    it.create("a").await;
    it.create_held("held", 600).await;
    it.signs("held").await;
    it.set_fault(Fault::always(fault)).await;
    let started = Instant::now();
    let waiting = it.sign("a");
    let meanwhile = async {
        // A key that is open does not wait for KMS.
        it.signs("held").await;
        assert!(started.elapsed() < Duration::from_secs(5), "others waited");
    };
    let (reply, ()) = tokio::join!(waiting, meanwhile);
    assert_problem(&reply, 504, "kms-timeout");
    assert!(started.elapsed() < Duration::from_secs(10), "within the parent's own deadline");
    it.clear_faults().await;
    it.signs("a").await;
}

#[tokio::test]
async fn one_lost_answer_is_asked_for_again() {
    let it = Scene::start().await;
    it.create("a").await;
    it.set_fault(Fault::next(1, FaultKind::Hang)).await;
    it.signs("a").await;
    assert_eq!(it.outcomes("a").await[2..], ["Decrypt Success"; 2]);
}

#[tokio::test]
async fn a_connection_cut_half_way_is_retried() {
    passes(FaultKind::CutReply).await;
}

#[tokio::test]
async fn connections_cut_half_way_for_good() {
    is_unavailable(FaultKind::CutReply, ATTEMPTS).await;
}

#[tokio::test]
async fn an_internal_error_is_retried() {
    passes(FaultKind::InternalError).await;
}

#[tokio::test]
async fn internal_errors_for_good() {
    is_unavailable(FaultKind::InternalError, ATTEMPTS).await;
}

#[tokio::test]
async fn a_body_that_is_garbage_is_no_answer() {
    // Not asked again: whoever answers so behind the right certificate will not do better a moment later.
    is_unavailable(FaultKind::GarbageBody, 1).await;
}

async fn passes(fault: FaultKind) {
    let it = Scene::start().await;
    it.create("a").await;
    it.set_fault(Fault::next(1, fault.clone()).on("Decrypt")).await;
    let calls = it.calls().await;
    it.signs("a").await;
    assert_eq!(it.calls().await, calls + 2);
    it.set_fault(Fault::next(1, fault).on("GenerateDataKey")).await;
    it.create("b").await;
    assert_eq!(it.calls().await, calls + 2 + 3);
}

async fn is_unavailable(fault: FaultKind, attempts: usize) {
    let it = Scene::start().await;
    it.create("a").await;
    it.set_fault(Fault::always(fault)).await;
    let calls = it.calls().await;
    let reply = it.sign("a").await;
    assert_problem(&reply, 503, "kms-unavailable");
    assert_eq!(reply.headers["retry-after"], "2");
    assert_eq!(it.outcomes_after(calls).await.len(), attempts);
    assert_problem(&try_create(&it, "b").await, 503, "kms-unavailable");
    it.clear_faults().await;
    it.signs("a").await;
    it.create("b").await;
}

#[tokio::test]
async fn a_reply_about_another_key_is_refused() {
    let other = format!("arn:aws:kms:{REGION}:111122223333:key/00000000-0000-4000-8000-000000000000");
    refuses_the_reply(FaultKind::WrongKeyId(other), "kms-reply-refused").await;
}

#[tokio::test]
async fn a_plaintext_beside_the_envelope_is_refused() {
    refuses_the_reply(FaultKind::PlaintextBeside, "kms-reply-refused").await;
}

#[tokio::test]
async fn a_plaintext_instead_of_the_envelope_is_refused() {
    refuses_the_reply(FaultKind::PlaintextInstead, "kms-reply-refused").await;
}

/// All that is wrong with them looks the same from outside.
#[tokio::test]
async fn malformed_envelopes_are_refused_with_one_indistinguishable_error() {
    let it = Scene::start().await;
    it.create("a").await;
    for defect in [
        Defect::Truncated,
        Defect::TrailingByte,
        Defect::ContentType,
        Defect::OaepHash,
        Defect::SecondRecipient,
        Defect::Padding,
    ] {
        it.set_fault(Fault::always(FaultKind::Envelope(defect))).await;
        for reply in [it.sign("a").await, try_create(&it, "b").await] {
            assert_problem(&reply, 502, "kms-reply-refused");
            assert_eq!(reply.body["detail"], reply.body["title"], "{defect:?}");
        }
        it.clear_faults().await;
        it.signs("a").await;
    }
}

/// A well-formed envelope around somebody else's data key: CMS has no signature, so only the box tells.
#[tokio::test]
async fn a_well_formed_envelope_around_another_data_key_opens_nothing() {
    refuses_the_reply(FaultKind::Envelope(Defect::Forged), "record-refused").await;
}

/// The same at creation alone: the record that would result opens for nobody, and is not released.
#[tokio::test]
async fn a_key_sealed_under_a_forged_data_key_is_never_released() {
    let it = Scene::start().await;
    it.set_fault(Fault::next(1, FaultKind::Envelope(Defect::Forged)).on("GenerateDataKey")).await;
    assert_problem(&try_create(&it, "a").await, 502, "record-refused");
    assert_eq!(it.api.get("/v1/keys/a").await.expect("a reply").status.as_u16(), 404);
    it.create("a").await;
    it.signs("a").await;
}

async fn refuses_the_reply(fault: FaultKind, slug: &str) {
    let it = Scene::start().await;
    it.create("a").await;
    it.set_fault(Fault::always(fault.clone()).on("Decrypt")).await;
    assert_problem(&it.sign("a").await, 502, slug);
    assert_problem(&try_create(&it, "b").await, 502, slug);
    it.clear_faults().await;
    if slug == "kms-reply-refused" {
        it.set_fault(Fault::always(fault).on("GenerateDataKey")).await;
        assert_problem(&try_create(&it, "b").await, 502, slug);
        it.clear_faults().await;
    }
    it.signs("a").await;
    it.create("b").await;
}

#[tokio::test]
async fn a_kms_key_that_is_disabled_or_pending_deletion() {
    let it = Scene::start().await;
    it.create("a").await;
    for (state, code) in [
        (KeyState::Disabled, "Decrypt DisabledException"),
        (KeyState::PendingDeletion, "Decrypt KMSInvalidStateException"),
    ] {
        it.stack.control.set_state(&it.stack.kms_key, state).await.expect("set");
        assert_problem(&it.sign("a").await, 502, "kms-key-unusable");
        assert_eq!(it.outcomes("a").await.last().map(String::as_str), Some(code));
        assert_problem(&try_create(&it, "b").await, 502, "kms-key-unusable");
        it.stack.control.set_state(&it.stack.kms_key, KeyState::Enabled).await.expect("set");
        it.signs("a").await;
    }
}

#[tokio::test]
async fn a_kms_key_that_does_not_exist() {
    let nowhere = format!("arn:aws:kms:{REGION}:111122223333:key/00000000-0000-4000-8000-000000000000");
    let mut it = Scene::start().await;
    it.stack.plan.configuration.insert("kms_keys".to_owned(), json!([it.stack.kms_key, nowhere]));
    it.stack.reconfigure().await.expect("reconfigured");
    it.restart().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    let create = json!({ "key_id": "a", "algorithm": "ed25519", "kms_key_arn": nowhere });
    assert_problem(&it.try_create(create).await, 502, "kms-key-unusable");
    it.create("a").await;
    it.signs("a").await;
}

#[tokio::test]
async fn kms_away_and_back_again() {
    let mut it = Scene::start().await;
    it.create("a").await;
    let id = it.stack.process_ids()[0].and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    rustix::process::kill_process(id.expect("a process"), rustix::process::Signal::KILL).expect("killed");
    assert_problem(&it.sign("a").await, 503, "kms-unavailable");
    it.stack.restart_kms().await.expect("restarted");
    it.signs("a").await;
}

async fn try_create(it: &Scene, key_id: &str) -> Reply {
    it.try_create(json!({ "key_id": key_id, "algorithm": "ed25519" })).await
}

/// Admits this image with the configuration that is in force.
async fn admit(it: &Scene, pcr0: [u8; 48]) {
    let configuration = std::fs::read(it.stack.directory().join("enclave.json")).expect("enclave.json");
    let pcr16 = strongroom_protocol::Measurement::of(&configuration).pcr16;
    let admitted = Admitted::new(pcr0, pcr16).expect("measured");
    let policy = dedicated_key_policy(ADMINISTRATOR_ARN, PARENT_ARN, &[admitted]);
    it.stack.control.put_policy(&it.stack.kms_key, &policy).await.expect("put");
}
