//! Too many requests at one time: of one caller, and of all. They are refused at once, and leave others their places.

use std::time::Duration;

use reqwest::StatusCode;
use sha2::{Digest as _, Sha256};
use strongroom_tests::scripts;
use strongroom_tests::stack::Plan;
use tokio::time::{Instant, sleep};

use super::wire::{Conversation, Wire};
use super::{assert_problem, header};
use crate::scene::Scene;

/// Four places, of which nobody has more than three; a request holds one until it times out.
fn few_places(plan: &mut Plan) {
    plan.parent_toml += "[limits]\nrequests = 4\nrequests_per_identity = 3\nrequest_timeout_seconds = 60\n";
    for name in ["greedy", "modest"] {
        let hash = hex::encode(Sha256::digest(name));
        let rights = "operations = [\"read\", \"sign\"]\nkeys = [\"*\"]\n";
        plan.parent_toml += &format!("[[identities]]\nname = \"{name}\"\ntoken_sha256 = \"{hash}\"\n{rights}");
    }
}

/// A request whose body does not come.
async fn begin(wire: &Wire, token: &str) -> Conversation {
    let mut conversation = wire.open().await;
    let head = format!(
        "POST /v1/keys/a/sign HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n"
    );
    conversation.say(head.as_bytes()).await;
    // Until it has its place; how long that takes is nobody's promise, but a second is plenty.
    sleep(Duration::from_millis(300)).await;
    conversation
}

#[tokio::test]
async fn who_asks_too_much_is_refused_at_once_and_others_are_served() {
    let scene = Scene::planned(few_places).await;
    let wire = Wire::of(&scene.stack.url);
    let api = scene.stack.caller().expect("a caller");
    let (greedy, modest) = (api.with_token("greedy"), api.with_token("modest"));
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(begin(&wire, "greedy").await);
    }
    let started = Instant::now();
    let refused = greedy.get("/v1/keys/a").await.expect("a reply");
    assert_problem("its own places are taken", &refused, 429, "too-many-requests");
    assert_eq!(header(&refused, "retry-after"), "1");
    assert!(started.elapsed() < Duration::from_secs(10), "it did not wait for a place");
    assert_eq!(modest.get("/v1/keys/a").await.expect("a reply").status, StatusCode::NOT_FOUND, "served");

    held.push(begin(&wire, "modest").await);
    let refused = modest.get("/v1/keys/a").await.expect("a reply");
    assert_problem("everybody's places are taken", &refused, 503, "overloaded");
    assert_eq!(header(&refused, "retry-after"), "1");
    assert_eq!(api.get("/healthz").await.expect("a reply").status, StatusCode::OK, "probes are answered");
    assert_eq!(api.get("/readyz").await.expect("a reply").status, StatusCode::OK, "probes are answered");

    // Over HTTP/2 the connection outlives its refusals.
    let bodies = vec![serde_json::json!({ "load": "x".repeat(100) }); 3_000];
    let question = serde_json::json!({ "url": scene.stack.url, "path": "/v1/keys/a/sign", "bodies": bodies });
    let answers = scripts::run_node("http2_client.cjs", &question.to_string()).await.expect("answers");
    let answers: Vec<serde_json::Value> = serde_json::from_str(&answers).expect("JSON");
    assert!(answers.len() == 3_000 && answers.iter().all(|answer| answer["status"] == 503), "{:?}", answers.first());

    // A body that is none frees the place.
    for mut conversation in held {
        conversation.say(b"{}").await;
        assert_eq!(conversation.reply().await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(greedy.get("/v1/keys/a").await.expect("a reply").status, StatusCode::NOT_FOUND, "served again");
}
