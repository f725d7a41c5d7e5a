//! Whether the parent lives, and whether it can serve: configured, credentials live, enclave answering,
//! store reachable. Needs no token and says nothing that a caller could use.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde::Serialize;
use strongroom_protocol::{ErrorCode, Health};
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::App;
use crate::enclave_client::Status;
use crate::records::Records;

/// Alive.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    /// Always `alive`.
    status: &'static str,
}

/// Whether the service can be used.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// Whether all checks are.
    ready: bool,
    /// `enclave`, `configuration`, `credentials` and `store`.
    checks: BTreeMap<&'static str, Check>,
}

/// One reason to be ready or not.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Check {
    ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// The store's last answer, kept for a second so that probes cost it little.
#[derive(Debug, Default)]
pub struct StoreReadiness(Mutex<Option<(Instant, bool)>>);

const STORE_ANSWER_LIVES: Duration = Duration::from_secs(1);

/// Whether the process answers.
#[utoipa::path(
    get, path = "/healthz", tag = "operation", operation_id = "healthz",
    responses((status = 200, description = "The process answers", body = Alive))
)]
pub(super) async fn healthz() -> Json<Alive> {
    Json(Alive { status: "alive" })
}

/// Whether signatures can be had.
#[utoipa::path(
    get, path = "/readyz", tag = "operation", operation_id = "readyz",
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready, and why", body = Readiness)
    )
)]
pub(super) async fn readyz(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let store = app.store_readiness.ask(&app.records).await;
    let status = app.enclave.status();
    let checks = BTreeMap::from([
        ("enclave", Check::unless(enclave_trouble(&status))),
        ("configuration", Check::unless(configuration_trouble(&status))),
        ("credentials", Check::unless(credentials_trouble(&status, app.credentials.are_live()))),
        ("store", Check::unless((!store).then_some("the key store does not answer"))),
    ]);
    let ready = checks.values().all(|check| check.ok);
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Readiness { ready, checks }))
}

fn enclave_trouble(status: &Status) -> Option<&'static str> {
    match status {
        Status::Away { .. } => Some("the enclave does not answer"),
        Status::OtherVersion => Some("the enclave speaks another version of the protocol"),
        Status::Ready { health: Health { debug_mode: true, .. }, .. } => {
            Some("the enclave runs in debug mode and performs no key operation")
        }
        Status::ConfigurationRefused(_) | Status::Ready { .. } => None,
    }
}

fn configuration_trouble(status: &Status) -> Option<&'static str> {
    match status {
        Status::Away { .. } | Status::OtherVersion => Some("not known while the enclave does not answer"),
        Status::ConfigurationRefused(ErrorCode::ConfiguredOtherwise) => {
            Some("the enclave holds another configuration: restart it")
        }
        Status::ConfigurationRefused(ErrorCode::ConfigurationNotAccepted) => {
            Some("the enclave's image accepts one configuration only, and this is another")
        }
        Status::ConfigurationRefused(_) => Some("the enclave refused its configuration"),
        Status::Ready { health, .. } if !health.configured => Some("the enclave is not configured"),
        Status::Ready { .. } => None,
    }
}

fn credentials_trouble(status: &Status, live: bool) -> Option<&'static str> {
    match status {
        _ if !live => Some("the provider chain has no AWS credentials that are valid"),
        Status::Ready { health, .. } if !health.credentials => {
            Some("the enclave has no AWS credentials that are valid")
        }
        _ => None,
    }
}

impl Check {
    fn unless(trouble: Option<&'static str>) -> Self {
        Self { ok: trouble.is_none(), reason: trouble }
    }
}

impl StoreReadiness {
    async fn ask(&self, records: &Records) -> bool {
        let mut last = self.0.lock().await;
        if let Some((at, ready)) = *last
            && at.elapsed() < STORE_ANSWER_LIVES
        {
            return ready;
        }
        let ready = records.ready().await.is_ok();
        *last = Some((Instant::now(), ready));
        ready
    }
}

/// Whether a probe asks: it is answered however many requests are served, for it is asked of a busy parent too.
pub(super) fn is_probe(uri: &Uri) -> bool {
    matches!(uri.path(), "/healthz" | "/readyz")
}
