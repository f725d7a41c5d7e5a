//! Keys that come from outside and keys that leave: imports, adoptions, exports. The parent passes sealed bytes on;
//! what may come in and go out is the enclave's decision, by its measured configuration. Checks before it may
//! only refuse.

use std::ops::ControlFlow;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use tracing::{info, warn};

use super::api::{
    AdoptKey, Evidence, Expected, ExportKey, ExportReply, ExportedKey, ImportKey, ImportKeyOffer, OfferImportKey,
};
use super::extract::{Managed, UnreadBody};
use super::keys::{check_enabled, check_new, settle, store_new};
use super::openapi::{AdoptProblems, ExportProblems, ImportProblems, OfferProblems};
use super::strict::Object;
use super::{App, Context};
use crate::auth::{Caller, Operation};
use crate::problem::{Kind, Problem};

/// Offers a key to which one key can be sealed for this enclave. Needs `manage`.
///
/// It serves once, within five minutes. `strongroom key import` does all of this, on the machine where the key is.
#[utoipa::path(
    post, path = "/v1/import-keys", tag = "custody", operation_id = "offerImportKey",
    security(("bearer" = []), ("client_certificate" = [])),
    request_body = OfferImportKey,
    responses((status = 201, description = "The import key and its document, made now", body = ImportKeyOffer), OfferProblems)
)]
pub(super) async fn offer(
    State(app): State<App>,
    context: Context,
    caller: Caller,
    body: UnreadBody,
) -> Result<(StatusCode, Json<ImportKeyOffer>), Problem> {
    caller.authorize(Operation::Manage)?;
    let (OfferImportKey { nonce }, _room) = body.json(&context).await?;
    let document = app.enclave.offer_import_key(nonce, context.deadline).await?;
    let offer = ImportKeyOffer::new(&document).ok_or(Kind::Internal)?;
    Ok((StatusCode::CREATED, Json(offer)))
}

/// Imports a key that was sealed to an import key. Needs `manage`.
///
/// Algorithm, policy and KMS key must be those that it was sealed for. The import key has served then, also if the
/// import fails.
#[utoipa::path(
    post, path = "/v1/keys/{key_id}/import", tag = "custody", operation_id = "importKey",
    security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The new key's name")),
    request_body = ImportKey,
    responses((status = 201, description = "The new key", body = super::KeyView), ImportProblems)
)]
pub(super) async fn import(
    State(app): State<App>,
    context: Context,
    Managed { key_id, request, .. }: Managed<ImportKey>,
) -> Result<Response, Problem> {
    let (import_key, description, sealed) = request.into_parts(key_id);
    check_new(&app, &description.key_id, description.algorithm, &description.policy).await?;
    let imported = app.enclave.import_key(import_key, description, sealed, context.deadline).await?;
    let response = store_new(&app, imported, context.deadline).await?;
    info!("a key is imported");
    Ok(response)
}

/// Takes over a private key that lies in hex under a KMS key, as AWS's samples leave it. Needs `manage`.
///
/// The old ciphertext is left alone, and keeps its old exposure. The key signs messages only.
#[utoipa::path(
    post, path = "/v1/keys/{key_id}/adopt", tag = "custody", operation_id = "adoptKey",
    security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The new key's name")),
    request_body = AdoptKey,
    responses((status = 201, description = "The new key", body = super::KeyView), AdoptProblems)
)]
pub(super) async fn adopt(
    State(app): State<App>,
    context: Context,
    Managed { key_id, request, .. }: Managed<AdoptKey>,
) -> Result<Response, Problem> {
    let description = request.description(key_id);
    check_new(&app, &description.key_id, description.algorithm, &description.policy).await?;
    description.check_adoptable().map_err(|wrong| Problem::invalid(wrong.to_string()))?;
    let AdoptKey { ciphertext, expected: Object(Expected(expected)), adopt_kms_key_arn, .. } = request;
    let adoption = app.enclave.adopt_key(description, adopt_kms_key_arn, ciphertext, expected, context.deadline);
    let response = store_new(&app, adoption.await?, context.deadline).await?;
    info!("a key is adopted");
    Ok(response)
}

/// Seals an exportable key to a recipient of the enclave's configuration. Needs `manage`.
///
/// The recipient has the key from then on: `strongroom key open-export`. The key stays where it is, too. The document
/// shows that the enclave sealed this key, and to whom; `strongroom key export` verifies it.
#[utoipa::path(
    post, path = "/v1/keys/{key_id}/export", tag = "custody", operation_id = "exportKey",
    security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The key's name")),
    request_body = ExportKey,
    responses((status = 200, description = "The sealed key", body = ExportReply), ExportProblems)
)]
pub(super) async fn export(
    State(app): State<App>,
    context: Context,
    Managed { key_id, request: ExportKey { recipient, nonce }, .. }: Managed<ExportKey>,
) -> Result<Json<ExportReply>, Problem> {
    let mut found = app.records.find(&key_id).await?;
    loop {
        check_enabled(&found.record)?;
        if !found.record.stored.record.policy.is_exportable() {
            return Err(Kind::NotExportable.into());
        }
        let presented = found.record.presented.clone();
        let outcome = app.enclave.export_key(presented, recipient.clone(), nonce.clone(), context.deadline).await;
        match settle(&app, found, outcome).await? {
            ControlFlow::Break(((sealed, document), known)) => {
                warn!(%recipient, "a key is exported: its recipient has it from now on");
                let export = ExportedKey::new(&known.stored.record, recipient, &sealed);
                let evidence = Evidence::new(&document).ok_or(Kind::Internal)?;
                return Ok(Json(ExportReply { export, evidence }));
            }
            ControlFlow::Continue(fresh) => found = fresh,
        }
    }
}
