//! Keys: create, list, show, derive. Who may is asked first, so that nobody learns which keys exist; then
//! the store, and then the enclave, which decides everything that a signature's safety rests on. Checks
//! before it may only refuse.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use strongroom_protocol::{Algorithm, Created, Curve, DerivationPath, ErrorCode, KeyId, KeyRecord, Policy};
use tokio::time::Instant;
use tracing::{Span, info, warn};

use super::api::{CreateKey, DerivedKey, KeyPage, KeyView, to_hex};
use super::extract::{KeyPath, PageParams, PageQuery, PathParams, PathQuery, UnreadBody};
use super::openapi::{CreateProblems, DeriveProblems, ListProblems, ShowProblems};
use super::strict::Object;
use super::{App, Context};
use crate::auth::{Caller, Operation};
use crate::enclave_client::CallError;
use crate::key_state::State as KeyState;
use crate::key_store::StoreError;
use crate::problem::{Kind, Problem};
use crate::records::{Found, KnownRecord};

/// Creates a key in the enclave. Needs `manage`.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", operation_id = "createKey", security(("bearer" = []), ("client_certificate" = [])),
    request_body = CreateKey,
    responses((status = 201, description = "The new key", body = KeyView), CreateProblems)
)]
pub(super) async fn create(
    State(app): State<App>,
    context: Context,
    caller: Caller,
    body: UnreadBody,
) -> Result<Response, Problem> {
    caller.authorize(Operation::Manage)?;
    let (CreateKey { key_id, algorithm, kms_key_arn, policy }, _room) = body.json(&context).await?;
    Span::current().record("key_id", key_id.as_str());
    caller.authorize_key(Operation::Manage, &key_id)?;
    let policy = policy.map(|Object(policy)| policy.0).unwrap_or_default();
    check_new(&app, &key_id, algorithm.0, &policy).await?;
    let generated = app.enclave.generate_key(key_id, algorithm.0, policy, kms_key_arn, context.deadline).await?;
    store_new(&app, generated, context.deadline).await
}

/// Refuses a new key that would be refused anyway, before the enclave is asked, or an import key has served for it.
pub(super) async fn check_new(app: &App, key_id: &KeyId, algorithm: Algorithm, policy: &Policy) -> Result<(), Problem> {
    if app.records.exists(key_id).await? {
        return Err(Kind::KeyExists.into());
    }
    policy.check_fit(algorithm).map_err(|wrong| Problem::invalid(wrong.to_string()))
}

/// Stores a key that the enclave has just made, unless another took its name meanwhile: 201 with its view and place.
pub(super) async fn store_new(app: &App, new: Created, deadline: Instant) -> Result<Response, Problem> {
    let stored = app.records.create(new, deadline).await.inspect_err(|error| match error {
        StoreError::Exists => info!("the key was created by another request meanwhile; this one is dropped unused"),
        StoreError::TooLate => info!("the key came too late for its caller; it is dropped unused"),
        _ => {}
    });
    let known = stored?;
    let mut response = (StatusCode::CREATED, Json(KeyView::from(&known.stored))).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/keys/{}", known.stored.key_id())) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Lists the keys that the caller may read. Needs `read`.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", operation_id = "listKeys", security(("bearer" = []), ("client_certificate" = [])),
    params(PageParams),
    responses((status = 200, description = "Some keys", body = KeyPage), ListProblems)
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    PageQuery { limit, cursor }: PageQuery,
) -> Result<Json<KeyPage>, Problem> {
    caller.authorize(Operation::Read)?;
    let page = app.records.list(cursor, limit, &move |key_id: &KeyId| caller.reaches(key_id)).await?;
    let keys = page.records.iter().map(KeyView::from).collect();
    Ok(Json(KeyPage { keys, damaged: page.damaged, next_cursor: page.next }))
}

/// Shows a key. Needs `read`.
#[utoipa::path(
    get, path = "/v1/keys/{key_id}", tag = "keys", operation_id = "getKey", security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The key's name")),
    responses((status = 200, description = "The key", body = KeyView), ShowProblems)
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    KeyPath(key_id): KeyPath,
) -> Result<Json<KeyView>, Problem> {
    caller.authorize_key(Operation::Read, &key_id)?;
    Ok(Json(KeyView::from(&app.records.show(&key_id).await?.stored)))
}

/// Derives the public key at a path below a seed, in the enclave. Needs `read`.
///
/// This is the parent's word: before anything is sent to one of the addresses, let the key at the path sign
/// something, and verify that with the public key.
#[utoipa::path(
    get, path = "/v1/keys/{key_id}/public-key", tag = "keys", operation_id = "derivePublicKey",
    security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The seed's name"), PathParams),
    responses((status = 200, description = "The public key", body = DerivedKey), DeriveProblems)
)]
pub(super) async fn public_key(
    State(app): State<App>,
    context: Context,
    caller: Caller,
    KeyPath(key_id): KeyPath,
    PathQuery(path): PathQuery,
) -> Result<Json<DerivedKey>, Problem> {
    caller.authorize_key(Operation::Read, &key_id)?;
    let mut found = app.records.find(&key_id).await?;
    loop {
        check_path(&found.record.stored.record, Some(&path))?;
        let presented = found.record.presented.clone();
        let outcome = app.enclave.derive_public_key(presented, path.clone(), context.deadline).await;
        match settle(&app, found, outcome).await? {
            ControlFlow::Break(((public_key, addresses), _)) => {
                return Ok(Json(DerivedKey { path, public_key: to_hex(&public_key), addresses }));
            }
            ControlFlow::Continue(fresh) => found = fresh,
        }
    }
}

/// What follows from the enclave's answer to a record. One that it accepts is kept, and the answer is
/// the result. If it refuses a cached one, the store may have another by now, which is presented then.
pub(super) async fn settle<T>(
    app: &App,
    found: Found,
    outcome: Result<T, CallError>,
) -> Result<ControlFlow<(T, Arc<KnownRecord>), Found>, Problem> {
    let error = match outcome {
        Ok(answer) => {
            let record = Arc::clone(&found.record);
            app.records.accepted(found);
            return Ok(ControlFlow::Break((answer, record)));
        }
        Err(error) => error,
    };
    if may_be_outdated(error) {
        app.records.refused(&found);
    }
    if found.cached && may_be_outdated(error) {
        match app.records.find_afresh(found.record.stored.key_id()).await {
            Ok(fresh) if fresh.record.presented != found.record.presented => return Ok(ControlFlow::Continue(fresh)),
            Err(StoreError::NotFound) => return Err(Kind::KeyNotFound.into()),
            // Nothing else to present: the refusal stands.
            Ok(_) | Err(_) => {}
        }
    }
    if error == CallError::Refused(ErrorCode::RecordRefused) {
        warn!("the enclave refused the record: something in it was changed");
    }
    Err(error.into())
}

/// Whether another record of the key could fare better: one that was changed, or re-wrapped under
/// another KMS key.
const fn may_be_outdated(error: CallError) -> bool {
    matches!(
        error,
        CallError::Refused(
            ErrorCode::RecordRefused
                | ErrorCode::KmsDenied
                | ErrorCode::KmsKeyUnusable
                | ErrorCode::KmsKeyNotConfigured
        )
    )
}

/// Whether the key may be used at all, as far as the parents' word goes.
pub(super) fn check_enabled(known: &KnownRecord) -> Result<(), Problem> {
    match known.stored.state {
        KeyState::Enabled => Ok(()),
        KeyState::Disabled => Err(Kind::KeyDisabled.into()),
        KeyState::PendingDeletion { .. } => Err(Kind::KeyPendingDeletion.into()),
    }
}

/// Whether the record is one of a key, and the path one of a seed that its policy allows.
pub(super) fn check_path(record: &KeyRecord, path: Option<&DerivationPath>) -> Result<(), Problem> {
    match (record.algorithm.is_seed(), path) {
        (false, None) => Ok(()),
        (false, Some(_)) => Err(Problem::new(Kind::PathInvalid, "path: this key is no seed")),
        (true, None) => Err(Kind::PathRequired.into()),
        (true, Some(path)) if !record.policy.allows_path(path) => Err(Kind::PathDenied.into()),
        (true, Some(path)) if record.algorithm.curve() == Curve::Ed25519 && !path.is_hardened() => {
            Err(Problem::new(Kind::PathInvalid, "path: SLIP-10 derives ed25519 keys by hardened steps only"))
        }
        (true, Some(_)) => Ok(()),
    }
}
