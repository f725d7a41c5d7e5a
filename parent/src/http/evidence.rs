//! Attestation documents for callers: of the enclave, and of a key in it. They are passed on, not
//! judged: a caller who needs them verifies them himself (`strongroom key verify`).

use std::ops::ControlFlow;

use axum::Json;
use axum::extract::State;

use super::api::Evidence;
use super::extract::{KeyPath, NonceParams, NonceQuery};
use super::keys::settle;
use super::openapi::{EnclaveEvidenceProblems, KeyEvidenceProblems};
use super::{App, Context};
use crate::auth::{Caller, Operation};
use crate::problem::{Kind, Problem};

/// Attests the enclave. Needs `read`.
#[utoipa::path(
    get, path = "/v1/attestation", tag = "attestation", operation_id = "attestEnclave", security(("bearer" = []), ("client_certificate" = [])),
    params(NonceParams),
    responses((status = 200, description = "A document made now", body = Evidence), EnclaveEvidenceProblems)
)]
pub(super) async fn of_enclave(
    State(app): State<App>,
    context: Context,
    caller: Caller,
    NonceQuery(nonce): NonceQuery,
) -> Result<Json<Evidence>, Problem> {
    caller.authorize(Operation::Read)?;
    let document = app.enclave.attest(nonce, context.deadline).await?;
    evidence(&document)
}

/// Attests a key, after opening its record in the enclave. Needs `read`.
#[utoipa::path(
    get, path = "/v1/keys/{key_id}/attestation", tag = "attestation", operation_id = "attestKey",
    security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The key's name"), NonceParams),
    responses(
        (status = 200, description = "A document made now; `user_data` is over the key's binding", body = Evidence),
        KeyEvidenceProblems
    )
)]
pub(super) async fn of_key(
    State(app): State<App>,
    context: Context,
    caller: Caller,
    KeyPath(key_id): KeyPath,
    NonceQuery(nonce): NonceQuery,
) -> Result<Json<Evidence>, Problem> {
    caller.authorize_key(Operation::Read, &key_id)?;
    let mut found = app.records.find(&key_id).await?;
    loop {
        let outcome = app.enclave.open_record(found.record.presented.clone(), nonce.clone(), context.deadline).await;
        match settle(&app, found, outcome).await? {
            ControlFlow::Break((document, _)) => return evidence(&document),
            ControlFlow::Continue(fresh) => found = fresh,
        }
    }
}

fn evidence(document: &[u8]) -> Result<Json<Evidence>, Problem> {
    Evidence::new(document).map(Json).ok_or_else(|| Kind::Internal.into())
}
