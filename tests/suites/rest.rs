//! The REST interface in the hands of careless and hostile callers: every row of its table of problems,
//! by status and document. `input`: bodies, paths and queries; `batch`: many payloads in one body; `admission`: too many at one time; `changes`: of keys;
//! `identities`: who may what; `wire`: HTTP itself; `http2`: its second version; `openapi`: the contract that is served.

mod admission;
mod batch;
mod changes;
mod http2;
mod identities;
mod input;
mod openapi;
mod wire;

use serde_json::{Value, json};
use strongroom_tests::api::{Api, Reply};

use crate::shared::SharedScene;

/// A stack without identities, as `make dev` has it.
static OPEN: SharedScene = SharedScene::new(|_| {});

/// The reply is the problem document (RFC 9457) of this row, whole.
#[track_caller]
fn assert_problem(name: &str, reply: &Reply, status: u16, slug: &str) {
    assert_eq!((reply.status.as_u16(), reply.problem()), (status, slug), "{name}: {}", reply.body);
    let document = reply.body.as_object().expect("an object");
    let fields: Vec<&str> = document.keys().map(String::as_str).collect();
    assert_eq!(fields, ["detail", "instance", "status", "title", "type"], "{name}");
    assert_eq!(document["status"], status, "{name}");
    assert!(!reply.text("title").is_empty() && !reply.text("detail").is_empty(), "{name}");
    assert!(reply.text("detail").chars().count() <= 400, "{name}: the detail repeats its caller at length");
    assert_eq!(header(reply, "content-type"), "application/problem+json", "{name}");
    assert_eq!(header(reply, "x-request-id"), reply.text("instance"), "{name}");
    assert_eq!(header(reply, "cache-control"), "no-store", "{name}");
}

#[track_caller]
fn assert_ok(name: &str, reply: &Reply) {
    assert_eq!(reply.status.as_u16(), 200, "{name}: {}", reply.body);
    assert!(!header(reply, "x-request-id").is_empty(), "{name}");
}

fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
    reply.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Creates a key that may sign everything; that it exists already is as good.
async fn with_key(api: &Api, key_id: &str, algorithm: &str) -> Value {
    let policy = json!({ "payloads": ["digest", "message"], "hold_seconds": 60 });
    let create = json!({ "key_id": key_id, "algorithm": algorithm, "policy": policy });
    let created = api.post("/v1/keys", create).await.expect("a reply");
    assert!([201, 409].contains(&created.status.as_u16()), "{}", created.body);
    api.get(&format!("/v1/keys/{key_id}")).await.expect("a reply").body
}
