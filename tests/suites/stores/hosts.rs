//! Two hosts on one store, each with an enclave of its own: what one does, the other has.

use serde_json::json;
use strongroom_tests::api::Api;

use super::place::{Place, short_cache};
use crate::scene::{assert_problem, eventually};

async fn two_hosts_share_their_keys(it: Place) {
    let other = it.scene.stack.start_another_host().await.expect("another host");
    let other = Api::new(&other.url);
    let message = json!({ "payload": { "type": "message", "message": "0x6869" } });
    let created = it.scene.create("a").await.body;
    let signed = other.sign("a", message.clone()).await.expect("a reply");
    assert_eq!((signed.status.as_u16(), &signed.body["public_key"]), (200, &created["public_key"]), "{}", signed.body);
    it.scene.signs("a").await;

    for _ in 0..3 {
        let disabled = it.scene.api.post("/v1/keys/a/disable", json!({})).await.expect("a reply");
        assert_eq!(disabled.status.as_u16(), 200, "{}", disabled.body);
        assert_problem(&it.scene.sign("a").await, 403, "key-disabled");
        eventually("the other host stops", async || {
            other.sign("a", message.clone()).await.expect("a reply").problem() == "key-disabled"
        })
        .await;
        let enabled = other.post("/v1/keys/a/enable", json!({})).await.expect("a reply");
        assert_eq!(enabled.status.as_u16(), 200, "{}", enabled.body);
        assert_eq!(other.sign("a", message.clone()).await.expect("a reply").status.as_u16(), 200);
        eventually("the first host goes on", async || it.scene.sign("a").await.status.is_success()).await;
    }
}

#[tokio::test]
async fn two_hosts_share_their_keys_in_dynamodb() {
    two_hosts_share_their_keys(Place::dynamodb_planned("hosts", short_cache).await).await;
}

#[tokio::test]
async fn two_hosts_share_their_keys_in_secrets_manager() {
    two_hosts_share_their_keys(Place::secrets_manager_planned("hosts", short_cache).await).await;
}

#[tokio::test]
async fn two_parents_share_their_keys_in_a_folder() {
    two_hosts_share_their_keys(Place::directory_planned(|_| {}).await).await;
}
