//! What callers send to change a key.

use reqwest::Method;
use serde_json::json;
use strongroom_tests::api::Reply;

use super::{OPEN, assert_ok, assert_problem, with_key};

#[tokio::test]
async fn what_is_no_change_changes_nothing() {
    let (_scene, api) = OPEN.enter().await;
    with_key(&api, "unchanged", "ed25519").await;
    let before = api.get("/v1/keys/unchanged").await.expect("a reply").body;
    for (name, call, body, status, slug) in [
        ("malformed", "disable", "{", 400, "malformed-json"),
        ("trailing_text", "disable", "{} {}", 400, "malformed-json"),
        ("null", "disable", "null", 422, "invalid-request"),
        ("array", "disable", "[1]", 422, "invalid-request"),
        ("unknown_field", "disable", r#"{"state":"disabled"}"#, 422, "invalid-request"),
        ("duplicate_field", "disable", r#"{"generation":1,"generation":1}"#, 422, "invalid-request"),
        ("generation_is_text", "disable", r#"{"generation":"1"}"#, 422, "invalid-request"),
        ("generation_below_one", "disable", r#"{"generation":-1}"#, 422, "invalid-request"),
        ("generation_that_never_was", "disable", r#"{"generation":0}"#, 409, "generation-lost"),
        ("days_are_text", "schedule-deletion", r#"{"waiting_days":"7"}"#, 422, "invalid-request"),
        ("days_are_a_fraction", "schedule-deletion", r#"{"waiting_days":7.5}"#, 422, "invalid-request"),
        ("days_are_null", "schedule-deletion", r#"{"waiting_days":null}"#, 422, "invalid-request"),
        ("no_kms_key", "rewrap", "{}", 422, "invalid-request"),
        ("kms_alias", "rewrap", r#"{"kms_key_arn":"alias/new"}"#, 422, "invalid-request"),
        ("no_body_for_rewrap", "rewrap", "", 400, "malformed-json"),
    ] {
        let request = api.request(Method::POST, &format!("/v1/keys/unchanged/{call}"));
        let request = request.header("content-type", "application/json").body(body);
        assert_problem(name, &Reply::to(request).await.expect("a reply"), status, slug);
    }
    for query in ["generation=x", "generation=-1", "force=true", "generation=1&generation=1"] {
        let reply = api.delete(&format!("/v1/keys/unchanged?{query}")).await.expect("a reply");
        assert_problem(query, &reply, 422, "invalid-request");
    }
    assert_eq!(api.get("/v1/keys/unchanged").await.expect("a reply").body, before);
}

#[tokio::test]
async fn a_change_that_takes_nothing_needs_no_body() {
    let (_scene, api) = OPEN.enter().await;
    with_key(&api, "bodiless", "ed25519").await;
    for call in ["disable", "enable", "schedule-deletion", "cancel-deletion"] {
        let reply = Reply::to(api.request(Method::POST, &format!("/v1/keys/bodiless/{call}"))).await.expect("a reply");
        assert_ok(call, &reply);
    }
    let typed = api.request(Method::POST, "/v1/keys/bodiless/enable").header("content-type", "application/json");
    assert_ok("typed and empty", &Reply::to(typed).await.expect("a reply"));
    let untyped = api.request(Method::POST, "/v1/keys/bodiless/disable").body("{}");
    assert_problem("untyped", &Reply::to(untyped).await.expect("a reply"), 415, "unsupported-media-type");
    let long = json!({ "generation": 1, "x": "y".repeat(3 * 1024 * 1024) });
    let long = api.post("/v1/keys/bodiless/disable", long).await.expect("a reply");
    assert_problem("long", &long, 413, "body-too-large");
}
