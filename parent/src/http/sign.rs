//! Signing: one payload or many, one way down. The record is found, what the enclave would refuse anyway is refused,
//! and the rest goes to the enclave in one request, which decides everything that a signature's safety rests on.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use strongroom_protocol::{Algorithm, Curve, DerivationPath, ErrorCode, KeyId, Payload, Policy, Scheme, Signature};

use super::api::{BatchReply, BatchRequest, SignReply, SignRequest};
use super::extract::{KeyPath, UnreadBody};
use super::keys::{check_enabled, check_path, settle};
use super::openapi::{BatchProblems, SignProblems};
use super::strict::Word;
use super::{App, Context};
use crate::auth::{Caller, Operation};
use crate::problem::{Kind, Problem};
use crate::records::KnownRecord;

/// Longest body of a batch, in bytes: what a frame takes, in hex.
const MAX_BATCH_BODY: usize = 8 * 1024 * 1024;

/// What a payload of a batch takes beside its hex, in bytes: itself, its place in a frame, its result, and that in JSON.
const ROOM_PER_PAYLOAD: usize = 400;

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
    let (mut results, record) = sign(&app, &context, &key_id, scheme, path, vec![payload.0.into()]).await?;
    let signature = results.pop().unwrap_or_else(|| Err(Kind::Internal.into()))?;
    Ok(Json(SignReply::new(signature, &record.stored.record, &context.id)))
}

/// Signs up to 10,000 payloads with one key, for one unlock. Needs `sign`.
///
/// What is wrong with one payload is its own result, and the others are signed all the same. The body has at most 8 MiB.
#[utoipa::path(
    post, path = "/v1/keys/{key_id}/sign-batch", tag = "keys", operation_id = "signBatch",
    security(("bearer" = []), ("client_certificate" = [])),
    params(("key_id" = String, Path, description = "The key's name")),
    request_body = BatchRequest,
    responses((status = 200, description = "A result for each payload", body = BatchReply), BatchProblems)
)]
pub(super) async fn batch(
    State(app): State<App>,
    context: Context,
    caller: Caller,
    KeyPath(key_id): KeyPath,
    body: UnreadBody,
) -> Result<Response, Problem> {
    caller.authorize_key(Operation::Sign, &key_id)?;
    let (BatchRequest { payloads, scheme, path }, mut room) = body.up_to(MAX_BATCH_BODY).json(&context).await?;
    room.grow(ROOM_PER_PAYLOAD * payloads.len())?;
    let (results, record) = sign(&app, &context, &key_id, scheme, path, payloads).await?;
    // Written here, while there is room for it.
    Ok(Json(BatchReply::new(results, &record.stored.record, &context.id)).into_response())
}

/// One result per payload, in order, and the record of the key that signed.
async fn sign(
    app: &App,
    context: &Context,
    key_id: &KeyId,
    scheme: Option<Word<Scheme>>,
    path: Option<DerivationPath>,
    mut payloads: Vec<Payload>,
) -> Result<(Vec<Result<Signature, Problem>>, Arc<KnownRecord>), Problem> {
    let mut found = app.records.find(key_id).await?;
    loop {
        let scheme = admit(&found.record, scheme.map(|Word(scheme)| scheme), path.as_ref())?;
        let mut sifted = Sifted::new(payloads, &found.record);
        if sifted.admitted.is_empty() {
            return Ok((sifted.results(Vec::new()), found.record));
        }
        let presented = found.record.presented.clone();
        let outcome = app.enclave.sign(presented, scheme, path.clone(), &mut sifted.admitted, context.deadline).await;
        match settle(app, found, outcome).await? {
            ControlFlow::Break((signed, record)) => return Ok((sifted.results(signed), record)),
            ControlFlow::Continue(fresh) => (found, payloads) = (fresh, sifted.payloads()),
        }
    }
}

/// Refuses what the enclave would refuse anyway, before it costs a KMS call.
fn admit(known: &KnownRecord, scheme: Option<Scheme>, path: Option<&DerivationPath>) -> Result<Scheme, Problem> {
    check_enabled(known)?;
    let record = &known.stored.record;
    check_path(record, path)?;
    let scheme = scheme.unwrap_or(record.algorithm.default_scheme());
    check_scheme(record.algorithm, scheme)?;
    Ok(scheme)
}

/// A request's payloads: those that go to the enclave, and those that it would refuse anyway, with their places
/// among all.
struct Sifted {
    admitted: Vec<Payload>,
    refused: Vec<(usize, Payload, Problem)>,
}

impl Sifted {
    fn new(payloads: Vec<Payload>, known: &KnownRecord) -> Self {
        let record = &known.stored.record;
        let mut refused = Vec::new();
        let admit = |(place, payload)| {
            let checked = check_fit(record.algorithm, &payload).and_then(|()| check_policy(&record.policy, &payload));
            match checked {
                Ok(()) => Some(payload),
                Err(problem) => {
                    refused.push((place, payload, problem));
                    None
                }
            }
        };
        let admitted = payloads.into_iter().enumerate().filter_map(admit).collect();
        Self { admitted, refused }
    }

    /// The payloads as they were.
    fn payloads(self) -> Vec<Payload> {
        in_place(self.admitted, self.refused.into_iter().map(|(place, payload, _)| (place, payload)))
    }

    /// The results of all, where these are the results of the admitted.
    fn results(self, signed: Vec<Result<Signature, ErrorCode>>) -> Vec<Result<Signature, Problem>> {
        let signed = signed.into_iter().map(|result| result.map_err(Problem::from));
        in_place(signed, self.refused.into_iter().map(|(place, _, problem)| (place, Err(problem))))
    }
}

/// One list of two: `others`, in order, at their places, and the rest around them.
fn in_place<T>(rest: impl IntoIterator<Item = T>, others: impl IntoIterator<Item = (usize, T)>) -> Vec<T> {
    let mut rest = rest.into_iter();
    let mut all = Vec::with_capacity(rest.size_hint().0);
    for (place, other) in others {
        all.extend(rest.by_ref().take(place.saturating_sub(all.len())));
        all.push(other);
    }
    all.extend(rest);
    all
}

fn check_scheme(algorithm: Algorithm, scheme: Scheme) -> Result<(), Problem> {
    match (algorithm.curve(), scheme) {
        (Curve::Secp256k1, Scheme::Ecdsa | Scheme::Bip340) | (Curve::Ed25519, Scheme::Ed25519) => Ok(()),
        (Curve::Secp256k1, Scheme::Ed25519) => {
            Err(Problem::invalid("scheme: a secp256k1 key signs with ecdsa or bip340"))
        }
        (Curve::Ed25519, Scheme::Ecdsa | Scheme::Bip340) => {
            Err(Problem::invalid("scheme: an ed25519 key signs with ed25519"))
        }
    }
}

fn check_fit(algorithm: Algorithm, payload: &Payload) -> Result<(), Problem> {
    let wrong = match (algorithm.curve(), payload) {
        (Curve::Secp256k1, Payload::Message { hash: None, .. }) => "hash: required for a secp256k1 message",
        (Curve::Ed25519, Payload::Digest(_)) => "payload: an ed25519 key signs messages, not digests",
        (Curve::Ed25519, Payload::Message { hash: Some(_), .. }) => {
            "hash: must be absent for ed25519, which hashes by itself"
        }
        (Curve::Secp256k1, Payload::Digest(_) | Payload::Message { .. })
        | (Curve::Ed25519, Payload::Message { hash: None, .. }) => return Ok(()),
    };
    Err(Problem::invalid(wrong))
}

fn check_policy(policy: &Policy, payload: &Payload) -> Result<(), Problem> {
    if policy.allows(payload.kind()) { Ok(()) } else { Err(Kind::PolicyDenied.into()) }
}

#[cfg(test)]
mod tests {
    use super::in_place;

    #[test]
    fn what_was_apart_is_in_order_again() {
        for all in 0..7 {
            // Every way to take some out.
            for chosen in 0_u32..1 << all {
                let (others, rest): (Vec<_>, Vec<_>) = (0..all).partition(|place| chosen >> place & 1 == 1);
                let joined = in_place(rest, others.into_iter().map(|place| (place, place)));
                assert_eq!(joined, (0..all).collect::<Vec<_>>());
            }
        }
    }
}
