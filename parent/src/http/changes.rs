//! Changes of a key that exists: its state, the KMS key that wraps it, its end. Each is made to exactly
//! the record that was read, or not at all; of two at one time, one is told that it lost.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use strongroom_protocol::KeyId;
use time::OffsetDateTime;
use tracing::{error, info};

use super::api::{ChangeKey, KeyView, RewrapKey, ScheduleDeletion};
use super::extract::{Changed, GenerationParams, GenerationQuery, KeyPath, Managed};
use super::openapi::{ChangeProblems, RewrapProblems};
use super::{App, Context};
use crate::auth::{Caller, Operation};
use crate::key_state::StateChange;
use crate::key_store::StoreError;
use crate::problem::{Kind, Problem};

/// Lets a key sign. Needs `manage`.
#[utoipa::path(
    post, path = "/v1/keys/{key_id}/enable", tag = "keys", operation_id = "enableKey", security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The key's name")),
    request_body = Option<ChangeKey>,
    responses((status = 200, description = "The key, enabled", body = KeyView), ChangeProblems)
)]
pub(super) async fn enable(
    State(app): State<App>,
    Changed(Managed { key_id, request, .. }): Changed<ChangeKey>,
) -> Result<Json<KeyView>, Problem> {
    change_state(&app, &key_id, request.generation, StateChange::Enable).await
}

/// Lets a key not sign. Needs `manage`.
///
/// Parents that have the key's record cached notice within their `cache_seconds`. The state is the
/// parents'; the hard stop for one key is a Deny in the KMS key's policy.
#[utoipa::path(
    post, path = "/v1/keys/{key_id}/disable", tag = "keys", operation_id = "disableKey", security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The key's name")),
    request_body = Option<ChangeKey>,
    responses((status = 200, description = "The key, disabled", body = KeyView), ChangeProblems)
)]
pub(super) async fn disable(
    State(app): State<App>,
    Changed(Managed { key_id, request, .. }): Changed<ChangeKey>,
) -> Result<Json<KeyView>, Problem> {
    change_state(&app, &key_id, request.generation, StateChange::Disable).await
}

/// Begins the waiting period before a key can be deleted; it does not sign meanwhile. Needs `manage`.
///
/// Nothing is deleted by itself when the period is over.
#[utoipa::path(
    post, path = "/v1/keys/{key_id}/schedule-deletion", tag = "keys", operation_id = "scheduleKeyDeletion",
    security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The key's name")),
    request_body = Option<ScheduleDeletion>,
    responses((status = 200, description = "The key and its deletion date", body = KeyView), ChangeProblems)
)]
pub(super) async fn schedule_deletion(
    State(app): State<App>,
    Changed(Managed { key_id, request, .. }): Changed<ScheduleDeletion>,
) -> Result<Json<KeyView>, Problem> {
    change_state(&app, &key_id, request.generation, StateChange::ScheduleDeletion(request.waiting_days)).await
}

/// Ends the waiting period without deletion; the key stays disabled. Needs `manage`.
#[utoipa::path(
    post, path = "/v1/keys/{key_id}/cancel-deletion", tag = "keys", operation_id = "cancelKeyDeletion",
    security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The key's name")),
    request_body = Option<ChangeKey>,
    responses((status = 200, description = "The key, disabled", body = KeyView), ChangeProblems)
)]
pub(super) async fn cancel_deletion(
    State(app): State<App>,
    Changed(Managed { key_id, request, .. }): Changed<ChangeKey>,
) -> Result<Json<KeyView>, Problem> {
    change_state(&app, &key_id, request.generation, StateChange::CancelDeletion).await
}

/// Deletes a key whose waiting period is over. Needs `manage`.
#[utoipa::path(
    delete, path = "/v1/keys/{key_id}", tag = "keys", operation_id = "deleteKey", security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The key's name"), GenerationParams),
    responses((status = 204, description = "The key is deleted"), ChangeProblems)
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    KeyPath(key_id): KeyPath,
    GenerationQuery(generation): GenerationQuery,
) -> Result<StatusCode, Problem> {
    caller.authorize_key(Operation::Manage, &key_id)?;
    let known = match app.records.find_to_change(&key_id, generation).await {
        Err(StoreError::NotFound) => {
            app.records.finish_deletion(&key_id).await?;
            return Err(Kind::KeyNotFound.into());
        }
        found => found?,
    };
    known.stored.state.check_deletable(OffsetDateTime::now_utc())?;
    app.records.delete(&known).await?;
    info!(generation = known.stored.generation, "the key is deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Wraps a key under another KMS key of the enclave's configuration. Needs `manage`.
///
/// The key, its policy and its binding stay the same. The enclave opens the new record once before it
/// takes the old one's place. A rotation counts once the old KMS key denies `Decrypt`: copies of the old
/// record open as long as it does not.
#[utoipa::path(
    post, path = "/v1/keys/{key_id}/rewrap", tag = "keys", operation_id = "rewrapKey", security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The key's name")),
    request_body = RewrapKey,
    responses((status = 200, description = "The key under the other KMS key", body = KeyView), RewrapProblems)
)]
pub(super) async fn rewrap(
    State(app): State<App>,
    context: Context,
    Managed { key_id, request: RewrapKey { kms_key_arn, generation }, .. }: Managed<RewrapKey>,
) -> Result<Json<KeyView>, Problem> {
    let known = app.records.find_to_change(&key_id, generation).await?;
    let record = app.enclave.rewrap(known.presented.clone(), kms_key_arn, context.deadline).await?;
    // The old record is the only one there is. It gives way to none but the same key's.
    if record.key_id != key_id || record.binding() != known.stored.record.binding() {
        error!("the enclave re-wrapped another key; the record stays as it is");
        return Err(Kind::Internal.into());
    }
    let known = app.records.change_record(&known, record, context.deadline).await?;
    info!(generation = known.stored.generation, kms_key_arn = %known.stored.record.kms_key_arn, "the key is re-wrapped");
    Ok(Json(KeyView::from(&known.stored)))
}

async fn change_state(
    app: &App,
    key_id: &KeyId,
    generation: Option<u64>,
    change: StateChange,
) -> Result<Json<KeyView>, Problem> {
    let known = app.records.find_to_change(key_id, generation).await?;
    let state = known.stored.state.after(change, OffsetDateTime::now_utc())?;
    if state == known.stored.state {
        return Ok(Json(KeyView::from(&known.stored)));
    }
    let known = app.records.change_state(&known, state).await?;
    info!(generation = known.stored.generation, state = ?state.name(), "the key's state is changed");
    Ok(Json(KeyView::from(&known.stored)))
}
