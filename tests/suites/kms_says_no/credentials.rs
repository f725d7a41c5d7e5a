//! The parent's AWS credentials end: it asks for new ones once and tries once more, and says so when
//! those are no better. They come from the instance metadata service, as on EC2.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use strongroom_tests::mock_imds::MockImds;
use strongroom_tests::mock_kms::Principal;

use crate::scene::{Scene, assert_problem};

/// A stack on an instance whose role has this session now.
async fn on_instance() -> (Scene, MockImds) {
    let imds = MockImds::start(session(1)).await.expect("IMDS");
    let it = Scene::unready(|plan| plan.parent_environment = imds.environment()).await;
    it.stack.control.add_principal(&session(1)).await.expect("added");
    it.stack.wait_ready().await.expect("ready");
    (it, imds)
}

fn session(number: u32) -> Principal {
    let end = SystemTime::now() + Duration::from_secs(3600);
    let end = end.duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    Principal {
        access_key_id: format!("ASIASTRONGROOMTEST{number:02}"),
        secret_access_key: format!("test-only/secret-of-session-{number}"),
        session_token: Some(format!("test-only-token-of-session-{number}")),
        arn: "arn:aws:sts::111122223333:assumed-role/strongroom-parent/i-0123456789abcdef0".to_owned(),
        expires_at_ms: Some(u64::try_from(end).expect("this era")),
    }
}

/// The provider's answers younger than a second are not asked for again.
async fn a_second_later() {
    tokio::time::sleep(Duration::from_millis(1100)).await;
}

#[tokio::test]
async fn expired_credentials_are_renewed_and_the_request_is_tried_once_more() {
    let (it, imds) = on_instance().await;
    it.create("a").await;
    imds.rotate(session(2));
    it.stack.control.add_principal(&session(2)).await.expect("added");
    it.stack.control.expire_principal(&session(1).access_key_id).await.expect("expired");
    a_second_later().await;
    let (asked, calls) = (imds.asked(), it.calls().await);
    it.signs("a").await;
    assert_eq!(imds.asked(), asked + 1);
    assert_eq!(it.outcomes_after(calls).await, ["Decrypt ExpiredTokenException", "Decrypt Success"]);
}

#[tokio::test]
async fn expired_credentials_whose_successors_are_no_better() {
    let (it, imds) = on_instance().await;
    it.create("a").await;
    it.stack.control.expire_principal(&session(1).access_key_id).await.expect("expired");
    a_second_later().await;
    let calls = it.calls().await;
    let reply = it.sign("a").await;
    assert_problem(&reply, 503, "credentials-unavailable");
    assert_eq!(reply.headers["retry-after"], "5");
    assert_eq!(it.outcomes_after(calls).await, ["Decrypt ExpiredTokenException"; 2]);

    imds.rotate(session(2));
    it.stack.control.add_principal(&session(2)).await.expect("added");
    a_second_later().await;
    it.signs("a").await;
}

#[tokio::test]
async fn credentials_that_aws_does_not_know() {
    let (it, imds) = on_instance().await;
    it.create("a").await;
    it.stack.control.remove_principal(&session(1).access_key_id).await.expect("removed");
    a_second_later().await;
    assert_problem(&it.sign("a").await, 503, "credentials-unavailable");
    imds.rotate(session(3));
    it.stack.control.add_principal(&session(3)).await.expect("added");
    a_second_later().await;
    it.signs("a").await;
}

#[tokio::test]
async fn no_credentials_at_all() {
    let it = Scene::unready(|plan| {
        let none = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        plan.parent_environment = none.map(|name| (name.to_owned(), String::new())).into();
    })
    .await;
    crate::scene::eventually("the enclave is configured", async || {
        it.api.get("/v1/attestation?nonce=01").await.is_ok_and(|reply| reply.status.is_success())
    })
    .await;
    let create = serde_json::json!({ "key_id": "a", "algorithm": "ed25519" });
    assert_problem(&it.try_create(create).await, 503, "credentials-unavailable");
    let ready = it.api.get("/readyz").await.expect("a reply");
    assert_eq!((ready.status.as_u16(), &ready.body["checks"]["credentials"]["ok"]), (503, &false.into()));
    assert_eq!(it.calls().await, 0, "KMS was not even asked");
}
