//! A parent on paper: it keeps the REST contract for keys that are nothing but views, without an enclave. What an
//! honest parent seldom does, it does at will: others change a key first, answers are lost, records are damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(super) const OLD_ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/old";
pub(super) const NEW_ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/new";

/// What the parent has and does.
#[derive(Debug, Default)]
pub(super) struct Paper {
    /// By id.
    pub(super) keys: BTreeMap<String, Value>,
    /// Records that cannot be read.
    pub(super) damaged: Vec<String>,
    /// Method, path with query, body.
    pub(super) asked: Vec<(Method, String, Value)>,
    /// Keys that others change just before the next change of ours arrives.
    pub(super) contended: BTreeSet<String>,
    /// Keys whose next change is carried out and answered with 504.
    pub(super) answers_lost: BTreeSet<String>,
    /// Keys whose every change is refused, with this status and slug.
    pub(super) refused: BTreeMap<String, (u16, &'static str)>,
    /// Each change takes this long, in milliseconds.
    pub(super) change_takes: u64,
}

/// A running one. Ends when dropped.
#[derive(Debug)]
pub(super) struct PaperParent {
    pub(super) url: String,
    paper: Arc<Mutex<Paper>>,
    server: JoinHandle<std::io::Result<()>>,
}

impl PaperParent {
    pub(super) async fn start(paper: Paper) -> Self {
        let paper = Arc::new(Mutex::new(paper));
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&paper));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        Self { url, paper, server: tokio::spawn(axum::serve(listener, routes).into_future()) }
    }

    pub(super) fn paper(&self) -> MutexGuard<'_, Paper> {
        self.paper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many keys this KMS key wraps.
    pub(super) fn under(&self, arn: &str) -> usize {
        self.paper().keys.values().filter(|view| view["kms_key_arn"] == arn).count()
    }
}

impl Drop for PaperParent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A key under the old KMS key.
pub(super) fn view(key_id: &str) -> Value {
    json!({
        "key_id": key_id, "algorithm": "ed25519", "public_key": format!("0x{}", "11".repeat(32)),
        "origin": "generated", "policy": { "payloads": ["message"], "hold_seconds": 0 }, "kms_key_arn": OLD_ARN,
        "state": "enabled", "generation": 1, "created_at": "2026-01-02T03:04:05Z",
        "addresses": { "solana": "1".repeat(32) },
    })
}

/// The keys `k-000` to `k-…`.
pub(super) fn keys(count: usize) -> BTreeMap<String, Value> {
    (0..count).map(|n| format!("k-{n:03}")).map(|key_id| (key_id.clone(), view(&key_id))).collect()
}

/// A problem document.
pub(super) fn problem(status: u16, slug: &str, detail: &str) -> Response {
    let kind = format!("urn:strongroom:problem:{slug}");
    let document = json!({ "type": kind, "title": slug, "status": status, "detail": detail, "instance": "1" });
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [(header::CONTENT_TYPE, "application/problem+json")], document.to_string()).into_response()
}

async fn answer(State(paper): State<Arc<Mutex<Paper>>>, method: Method, uri: Uri, body: Bytes) -> Response {
    let change_takes = {
        let mut paper = paper.lock().unwrap_or_else(PoisonError::into_inner);
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        paper.asked.push((method.clone(), uri.to_string(), body));
        if method == Method::POST { paper.change_takes } else { 0 }
    };
    tokio::time::sleep(std::time::Duration::from_millis(change_takes)).await;
    let path: Vec<&str> = uri.path().trim_start_matches("/v1/").split('/').collect();
    let mut paper = paper.lock().unwrap_or_else(PoisonError::into_inner);
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match (&method, &path[..]) {
        (&Method::GET, ["keys"]) => paper.list(uri.query().unwrap_or_default()),
        (_, ["keys", key_id, rest @ ..]) if paper.keys.contains_key(*key_id) => match (&method, rest) {
            (&Method::GET, []) => Json(paper.keys[*key_id].clone()).into_response(),
            (&Method::DELETE, []) => {
                paper.keys.remove(*key_id);
                StatusCode::NO_CONTENT.into_response()
            }
            (&Method::POST, [change]) => paper.change(key_id, change, &body),
            _ => problem(405, "method-not-allowed", "no"),
        },
        _ => problem(404, "key-not-found", "There is no such key"),
    }
}

impl Paper {
    fn list(&self, query: &str) -> Response {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        let limit: usize = value("limit").and_then(|limit| limit.parse().ok()).unwrap_or(100).min(50);
        let from = value("cursor").unwrap_or_default();
        let mut keys: Vec<&Value> = self.keys.range(from.to_owned()..).map(|(_, view)| view).take(limit + 1).collect();
        let next = if keys.len() > limit { keys.pop().map(|view| view["key_id"].clone()) } else { None };
        let mut page = json!({ "keys": keys });
        if let Some(next) = next {
            page["next_cursor"] = next;
        }
        if from.is_empty() && !self.damaged.is_empty() {
            page["damaged"] = json!(self.damaged);
        }
        Json(page).into_response()
    }

    fn change(&mut self, key_id: &str, change: &str, body: &Value) -> Response {
        let contended = self.contended.remove(key_id);
        let lost = self.answers_lost.remove(key_id);
        if let Some((status, slug)) = self.refused.get(key_id) {
            return problem(*status, slug, "so it is");
        }
        let Some(view) = self.keys.get_mut(key_id) else { return problem(404, "key-not-found", "no") };
        let generation = view["generation"].as_u64().expect("a number") + u64::from(contended);
        view["generation"] = generation.into();
        if body.get("generation").is_some_and(|given| *given != generation) {
            return problem(409, "generation-lost", "The key was changed meanwhile");
        }
        match change {
            "rewrap" => view["kms_key_arn"] = body["kms_key_arn"].clone(),
            "enable" => view["state"] = "enabled".into(),
            "disable" => view["state"] = "disabled".into(),
            _ => return problem(409, "key-state-conflict", "The key's state does not allow this"),
        }
        view["generation"] = (generation + 1).into();
        if lost { problem(504, "deadline", "too late") } else { Json(view.clone()).into_response() }
    }
}
