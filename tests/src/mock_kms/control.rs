//! The control endpoint, for tests and the development stack: JSON over plain HTTP on loopback. Does
//! what the AWS console and IAM would do, and sets faults. Whoever reaches it rules this KMS.

use std::io;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use strongroom_parent::kms_policy::{KeyPolicy, PolicyError};

use super::Kms;
use super::faults::Fault;
use super::keys::{KeyState, KmsKey, KmsKeys};
use super::log::Call;
use super::principal::Principal;

/// `POST /keys`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateKey {
    /// Absent: KMS's default, which leaves everything to the account's identity policies.
    #[serde(default)]
    pub(super) policy: Option<Value>,
    /// A multi-Region key, whose id begins with `mrk-`.
    #[serde(default)]
    pub(super) multi_region: bool,
}

/// `PUT /keys/{id}/state`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetState {
    pub(super) state: KeyState,
}

/// A KMS key, as the control endpoint shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyView {
    /// The key's ARN.
    pub arn: String,
    /// Its state.
    pub state: KeyState,
    /// Its policy, as it was written.
    pub policy: Value,
}

impl From<&KmsKey> for KeyView {
    fn from(key: &KmsKey) -> Self {
        Self { arn: key.arn.clone(), state: key.state, policy: key.policy.source().clone() }
    }
}

/// Serves until the process ends.
pub(super) async fn serve(kms: Arc<Kms>, listener: TcpListener) -> io::Result<()> {
    let routes = Router::new()
        .route("/keys", get(list_keys).post(create_key))
        .route("/keys/{id}/policy", put(put_policy))
        .route("/keys/{id}/state", put(set_state))
        .route("/principals", post(add_principal))
        .route("/principals/{access_key_id}", delete(remove_principal))
        .route("/principals/{access_key_id}/expire", post(expire_principal))
        .route("/faults", get(list_faults).post(set_fault).delete(clear_faults))
        .route("/calls", get(list_calls))
        .with_state(kms);
    axum::serve(listener, routes).await
}

async fn list_keys(State(kms): State<Arc<Kms>>) -> Json<Vec<KeyView>> {
    Json(kms.keys().all().map(KeyView::from).collect())
}

async fn create_key(
    State(kms): State<Arc<Kms>>,
    Json(request): Json<CreateKey>,
) -> Result<(StatusCode, Json<KeyView>), Refused> {
    let policy = request.policy.unwrap_or_else(|| KmsKeys::default_policy(&kms.account));
    let key = kms.keys().create(KeyPolicy::parse(&policy)?, request.multi_region)?;
    Ok((StatusCode::CREATED, Json(KeyView::from(&key))))
}

/// `id` is the key's id, not its ARN, whose slash would be another path.
async fn put_policy(
    State(kms): State<Arc<Kms>>,
    Path(id): Path<String>,
    Json(policy): Json<Value>,
) -> Result<StatusCode, Refused> {
    let policy = KeyPolicy::parse(&policy)?;
    found(kms.keys().change(&id, |key| key.policy = policy)?)
}

async fn set_state(
    State(kms): State<Arc<Kms>>,
    Path(id): Path<String>,
    Json(request): Json<SetState>,
) -> Result<StatusCode, Refused> {
    found(kms.keys().change(&id, |key| key.state = request.state)?)
}

async fn add_principal(State(kms): State<Arc<Kms>>, Json(principal): Json<Principal>) -> StatusCode {
    kms.principals().insert(principal);
    StatusCode::NO_CONTENT
}

async fn remove_principal(
    State(kms): State<Arc<Kms>>,
    Path(access_key_id): Path<String>,
) -> Result<StatusCode, Refused> {
    found(kms.principals().remove(&access_key_id).is_some())
}

async fn expire_principal(
    State(kms): State<Arc<Kms>>,
    Path(access_key_id): Path<String>,
) -> Result<StatusCode, Refused> {
    found(kms.principals().expire(&access_key_id))
}

async fn list_faults(State(kms): State<Arc<Kms>>) -> Json<Vec<Fault>> {
    Json(kms.faults().all().to_vec())
}

async fn set_fault(State(kms): State<Arc<Kms>>, Json(fault): Json<Fault>) -> StatusCode {
    kms.faults().set(fault);
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(kms): State<Arc<Kms>>) -> StatusCode {
    kms.faults().clear();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    #[serde(default)]
    since: u64,
}

async fn list_calls(State(kms): State<Arc<Kms>>, Query(Since { since }): Query<Since>) -> Json<Vec<Call>> {
    Json(kms.log().since(since))
}

fn found(found: bool) -> Result<StatusCode, Refused> {
    if found { Ok(StatusCode::NO_CONTENT) } else { Err(Refused::NotFound) }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no such key or principal")]
    NotFound,
    #[error("policy refused: {0}")]
    Policy(#[from] PolicyError),
    #[error("the state cannot be written: {0}")]
    State(#[from] io::Error),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Policy(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::State(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "error": self.to_string() }))).into_response()
    }
}
