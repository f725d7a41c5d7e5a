//! `/openapi.json`: the contract, made from the handlers' own types, with the problems that each call
//! can have.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi, RefOr, Response};
use utoipa::{IntoResponses, Modify, OpenApi as _};
use utoipa_axum::router::OpenApiRouter;

use super::App;
use crate::problem::{self, Kind};

/// The description of this interface.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operation", operation_id = "openapi",
    responses((status = 200, description = "This document", content_type = "application/json"))
)]
pub(super) async fn document() -> impl IntoResponse {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let (_, api) = super::routes().split_for_parts();
        api.to_json().unwrap_or_default()
    });
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT.as_str())
}

/// A router that describes itself.
pub(super) fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "strongroom",
        description = "A signing appliance whose keys live in an AWS Nitro Enclave. Binary values are hex: `0x` \
                       optional on input, always `0x` and lower case on output. Unknown fields are errors. Every reply \
                       carries `x-request-id`; errors are RFC 9457 problem documents."
    ),
    components(schemas(problem::Document)),
    modifiers(&Proofs)
)]
struct Description;

/// How callers show who they are: by either, where identities are configured.
struct Proofs;

impl Modify for Proofs {
    fn modify(&self, api: &mut OpenApi) {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("bearer", bearer);
        let description = Some("Its first DNS name is the caller's.".to_owned());
        let certificate = SecurityScheme::MutualTls { description, deprecated: None, extensions: None };
        components.add_security_scheme("client_certificate", certificate);
    }
}

/// What every call under `/v1` can have.
const ANY: &[Kind] = &[
    Kind::Unauthorized,
    Kind::Forbidden,
    Kind::InvalidRequest,
    Kind::TooManyRequests,
    Kind::Overloaded,
    Kind::Internal,
];

const BODY: &[Kind] = &[Kind::MalformedJson, Kind::RequestTimeout, Kind::BodyTooLarge, Kind::UnsupportedMediaType];

const STORE: &[Kind] = &[Kind::StoreUnavailable, Kind::RecordDamaged];

const PATH: &[Kind] = &[Kind::PathRequired, Kind::PathDenied, Kind::PathInvalid];

const CHANGE: &[Kind] = &[Kind::KeyNotFound, Kind::GenerationLost];

const ENCLAVE: &[Kind] = &[
    Kind::EnclaveConfiguredOtherwise,
    Kind::EnclaveConfigurationRefused,
    Kind::EnclaveUnavailable,
    Kind::EnclaveBusy,
    Kind::AttestationFailed,
    Kind::Deadline,
];

const KMS: &[Kind] = &[
    Kind::OperationNotConfigured,
    Kind::KmsKeyNotConfigured,
    Kind::EnclaveDebugMode,
    Kind::RecordRefused,
    Kind::KmsDenied,
    Kind::KmsKeyUnusable,
    Kind::KmsReplyRefused,
    Kind::CredentialsUnavailable,
    Kind::KmsThrottled,
    Kind::KmsUnavailable,
    Kind::KmsTimeout,
];

macro_rules! problems_of_calls {
    ($($(#[$doc:meta])+ $name:ident = $($group:expr),+;)+) => {$(
        $(#[$doc])+
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                let groups: &[&[Kind]] = &[$($group),+];
                problem::api_responses(&groups.concat())
            }
        }
    )+};
}

problems_of_calls! {
    /// Of `POST /v1/keys`.
    CreateProblems = ANY, BODY, STORE, ENCLAVE, KMS, &[Kind::KeyExists];
    /// Of `GET /v1/keys`.
    ListProblems = ANY, &[Kind::StoreUnavailable];
    /// Of `GET /v1/keys/{key_id}`.
    ShowProblems = ANY, STORE, &[Kind::KeyNotFound];
    /// Of `POST /v1/keys/{key_id}/sign`.
    SignProblems = ANY, BODY, STORE, ENCLAVE, KMS, PATH, &[Kind::KeyNotFound, Kind::KeyDisabled, Kind::KeyPendingDeletion, Kind::PolicyDenied];
    /// Of `POST /v1/keys/{key_id}/sign-batch` as a whole; what is wrong with one payload is in its result.
    BatchProblems = ANY, BODY, STORE, ENCLAVE, KMS, PATH, &[Kind::KeyNotFound, Kind::KeyDisabled, Kind::KeyPendingDeletion];
    /// Of `GET /v1/keys/{key_id}/public-key`.
    DeriveProblems = ANY, STORE, ENCLAVE, KMS, PATH, &[Kind::KeyNotFound];
    /// Of changes of a key's state, and of its deletion.
    ChangeProblems = ANY, BODY, STORE, CHANGE, &[Kind::KeyStateConflict];
    /// Of `POST /v1/keys/{key_id}/rewrap`.
    RewrapProblems = ANY, BODY, STORE, CHANGE, ENCLAVE, KMS;
    /// Of `POST /v1/import-keys`.
    OfferProblems = ANY, BODY, ENCLAVE, &[Kind::OperationNotConfigured, Kind::EnclaveDebugMode, Kind::ImportKeysExhausted];
    /// Of `POST /v1/keys/{key_id}/import`.
    ImportProblems = ANY, BODY, STORE, ENCLAVE, KMS, &[Kind::KeyExists, Kind::ImportKeyUnknown, Kind::ImportRefused, Kind::KeyMaterialInvalid];
    /// Of `POST /v1/keys/{key_id}/adopt`.
    AdoptProblems = ANY, BODY, STORE, ENCLAVE, KMS, &[Kind::KeyExists, Kind::AdoptionRefused, Kind::KeyMaterialInvalid, Kind::KeyMismatch];
    /// Of `POST /v1/keys/{key_id}/export`.
    ExportProblems = ANY, BODY, STORE, ENCLAVE, KMS, &[Kind::KeyNotFound, Kind::KeyDisabled, Kind::KeyPendingDeletion, Kind::NotExportable, Kind::RecipientUnknown];
    /// Of `GET /v1/attestation`.
    EnclaveEvidenceProblems = ANY, ENCLAVE;
    /// Of `GET /v1/keys/{key_id}/attestation`.
    KeyEvidenceProblems = ANY, STORE, ENCLAVE, KMS, &[Kind::KeyNotFound];
}
