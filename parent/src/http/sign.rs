//! Signing. The record is found, what the enclave would refuse anyway is refused, and then the enclave is asked, which
//! decides everything that a signature's safety rests on.

use std::ops::ControlFlow;

use axum::Json;
use axum::extract::State;
use strongroom_protocol::{Algorithm, Curve, DerivationPath, Payload, Policy, Scheme};

use super::api::{SignReply, SignRequest};
use super::extract::{KeyPath, UnreadBody};
use super::keys::{check_enabled, check_path, settle};
use super::openapi::SignProblems;
use super::strict::Word;
use super::{App, Context};
use crate::auth::{Caller, Operation};
use crate::problem::{Kind, Problem};
use crate::records::KnownRecord;

/// Signs one payload. Needs `sign`.
#[utoipa::path(
    post, path = "/v1/keys/{key_id}/sign", tag = "keys", operation_id = "sign", security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The key's name")),
    request_body = SignRequest,
    responses((status = 200, description = "The signature", body = SignReply), SignProblems)
)]
pub(super) async fn one(
    State(app): State<App>,
    context: Context,
    caller: Caller,
    KeyPath(key_id): KeyPath,
    body: UnreadBody,
) -> Result<Json<SignReply>, Problem> {
    caller.authorize_key(Operation::Sign, &key_id)?;
    let (SignRequest { payload, scheme, path }, _room) = body.json(&context).await?;
    let mut payloads = vec![Payload::from(payload.0)];
    let mut found = app.records.find(&key_id).await?;
    loop {
        let scheme = admit(&found.record, scheme.map(|Word(scheme)| scheme), path.as_ref(), &payloads)?;
        let presented = found.record.presented.clone();
        let outcome = app.enclave.sign(presented, scheme, path.clone(), &mut payloads, context.deadline).await;
        match settle(&app, found, outcome).await? {
            ControlFlow::Break((signature, record)) => {
                return Ok(Json(SignReply::new(&signature, &record.stored.record, &context.id)));
            }
            ControlFlow::Continue(fresh) => found = fresh,
        }
    }
}

/// Refuses what the enclave would refuse anyway, before it costs a KMS call.
fn admit(
    known: &KnownRecord,
    scheme: Option<Scheme>,
    path: Option<&DerivationPath>,
    payloads: &[Payload],
) -> Result<Scheme, Problem> {
    check_enabled(known)?;
    let record = &known.stored.record;
    check_path(record, path)?;
    let scheme = scheme.unwrap_or(record.algorithm.default_scheme());
    for payload in payloads {
        check_fit(record.algorithm, scheme, payload)?;
        check_policy(&record.policy, payload)?;
    }
    Ok(scheme)
}

fn check_fit(algorithm: Algorithm, scheme: Scheme, payload: &Payload) -> Result<(), Problem> {
    let wrong = match (algorithm.curve(), scheme, payload) {
        (Curve::Secp256k1, Scheme::Ed25519, _) => "scheme: a secp256k1 key signs with ecdsa or bip340",
        (Curve::Ed25519, Scheme::Ecdsa | Scheme::Bip340, _) => "scheme: an ed25519 key signs with ed25519",
        (Curve::Ed25519, Scheme::Ed25519, Payload::Digest(_)) => "payload: an ed25519 key signs messages, not digests",
        (Curve::Secp256k1, _, Payload::Message { hash: None, .. }) => "hash: required for a secp256k1 message",
        (Curve::Ed25519, _, Payload::Message { hash: Some(_), .. }) => {
            "hash: must be absent for ed25519, which hashes by itself"
        }
        _ => return Ok(()),
    };
    Err(Problem::invalid(wrong))
}

fn check_policy(policy: &Policy, payload: &Payload) -> Result<(), Problem> {
    if policy.allows(payload.kind()) { Ok(()) } else { Err(Kind::PolicyDenied.into()) }
}
