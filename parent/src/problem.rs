//! What the caller learns when something goes wrong: one table from every error to a slug, a status and
//! a title, in the form of RFC 9457. The detail is text of ours about the caller's own input; nothing
//! that the enclave, KMS or a store said is passed on.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use strongroom_protocol::ErrorCode;
use strongroom_protocol::frame::MAX_FRAME;
use utoipa::ToSchema;
use utoipa::openapi::{Content, RefOr, Response as ApiResponse, ResponseBuilder, schema::Ref};

use crate::enclave_client::CallError;
use crate::key_state::StateConflict;
use crate::key_store::StoreError;

/// The media type of RFC 9457.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Something that went wrong, as the caller is told. It becomes a reply; the request's id is filled in
/// where the reply leaves (`http`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its row in the table.
    pub kind: Kind,
    detail: Option<Cow<'static, str>>,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    slug: &'static str,
    status: u16,
    title: &'static str,
    /// In seconds, for what passes by itself.
    retry_after: Option<u32>,
}

macro_rules! problems {
    ($($(#[$doc:meta])+ $kind:ident = $slug:literal, $status:literal, $title:literal $(, retry $after:literal)?;)+) => {
        /// Every kind of problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])+ $kind,)+
        }

        impl Kind {
            /// The whole table, in order.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            const fn row(self) -> Row {
                match self {
                    $(Self::$kind => Row {
                        slug: $slug,
                        status: $status,
                        title: $title,
                        retry_after: problems!(@after $($after)?),
                    },)+
                }
            }
        }
    };
    (@after) => { None };
    (@after $after:literal) => { Some($after) };
}

problems! {
    /// The body is not JSON.
    MalformedJson = "malformed-json", 400, "The body is not well-formed JSON";
    /// No token or client certificate, or none that is configured.
    Unauthorized = "unauthorized", 401, "A valid bearer token or client certificate is required";
    /// The identity lacks the operation or the key.
    Forbidden = "forbidden", 403, "The caller may not do this";
    /// The key's bound policy does not allow the payload.
    PolicyDenied = "policy-denied", 403, "The key's policy does not allow this payload";
    /// The key's bound policy does not allow the path.
    PathDenied = "path-denied", 403, "The key's policy does not allow this path";
    /// The key's state is not `enabled`.
    KeyDisabled = "key-disabled", 403, "The key is disabled";
    /// The key's state is `pending_deletion`.
    KeyPendingDeletion = "key-pending-deletion", 403, "The key is to be deleted";
    /// The enclave's measured configuration does not list the operation.
    OperationNotConfigured = "operation-not-configured", 403, "The enclave's configuration does not allow this operation";
    /// The key's bound policy does not let it leave the enclave.
    NotExportable = "not-exportable", 403, "The key's policy does not let it leave the enclave";
    /// No such route.
    NotFound = "not-found", 404, "There is nothing at this address";
    /// No such key.
    KeyNotFound = "key-not-found", 404, "There is no such key";
    /// The route has no such method.
    MethodNotAllowed = "method-not-allowed", 405, "The method is not allowed here";
    /// The caller did not finish its request in time.
    RequestTimeout = "request-timeout", 408, "The request took too long to arrive";
    /// A key of that name exists.
    KeyExists = "key-exists", 409, "A key with this id exists";
    /// The record is not of the generation that the caller means, or another change came first.
    GenerationLost = "generation-lost", 409, "The key was changed meanwhile";
    /// The change does not follow from the key's state.
    KeyStateConflict = "key-state-conflict", 409, "The key's state does not allow this change";
    /// The import key is not one that waits.
    ImportKeyUnknown = "import-key-unknown", 409, "The import key has served, has expired, or is not this enclave's";
    /// The body is beyond the limit.
    BodyTooLarge = "body-too-large", 413, "The body is too large";
    /// The body does not say that it is JSON.
    UnsupportedMediaType = "unsupported-media-type", 415, "The body must be application/json";
    /// Well-formed, but not a request of this API.
    InvalidRequest = "invalid-request", 422, "The request is not valid";
    /// A seed signs with the key at a path.
    PathRequired = "path-required", 422, "A seed key needs a path";
    /// No key lies at the path.
    PathInvalid = "path-invalid", 422, "There is no key at this path";
    /// The KMS key is not one of the enclave's configuration.
    KmsKeyNotConfigured = "kms-key-not-configured", 422, "The KMS key is not in the enclave's configuration";
    /// The sealed key does not open for what is said of it.
    ImportRefused = "import-refused", 422, "The sealed key does not open as what it is said to be";
    /// What was brought opens and is no key.
    KeyMaterialInvalid = "key-material-invalid", 422, "What was brought is no secret key of this algorithm";
    /// What was to be adopted is another key.
    KeyMismatch = "key-mismatch", 422, "The key is not the expected one";
    /// What was to be adopted is no ciphertext of KMS's, or no private key.
    AdoptionRefused = "adoption-refused", 422, "The ciphertext does not open, or is not that of a private key in hex";
    /// The caller has too many requests in flight.
    TooManyRequests = "too-many-requests", 429, "The caller has too many requests in flight", retry 1;
    /// The configuration names no such recipient.
    RecipientUnknown = "recipient-unknown", 422, "The enclave's configuration names no such recipient";
    /// The enclave does not believe the record: something in it was changed.
    RecordRefused = "record-refused", 502, "The enclave refused the key's record";
    /// What is stored is not a record.
    RecordDamaged = "record-damaged", 502, "The key's stored record is damaged";
    /// KMS denies access.
    KmsDenied = "kms-denied", 502, "KMS denied the enclave access to the key";
    /// The KMS key is missing, disabled or of the wrong type.
    KmsKeyUnusable = "kms-key-unusable", 502, "The KMS key cannot be used";
    /// KMS answered something that KMS does not answer.
    KmsReplyRefused = "kms-reply-refused", 502, "The enclave refused the reply of KMS";
    /// The enclave runs in debug mode.
    EnclaveDebugMode = "enclave-debug-mode", 502, "The enclave runs in debug mode and performs no key operation";
    /// The enclave has measured other bytes.
    EnclaveConfiguredOtherwise = "enclave-configured-otherwise", 503, "The enclave holds another configuration: restart it";
    /// The enclave does not take the configuration.
    EnclaveConfigurationRefused = "enclave-configuration-refused", 503, "The enclave refused its configuration";
    /// The enclave does not answer.
    EnclaveUnavailable = "enclave-unavailable", 503, "The enclave is not available", retry 1;
    /// All places for requests, or all memory for their bodies, are taken.
    Overloaded = "overloaded", 503, "Too many requests are in flight", retry 1;
    /// Too many requests in flight.
    EnclaveBusy = "enclave-busy", 503, "The enclave has too many requests in flight", retry 1;
    /// As many import keys wait as may.
    ImportKeysExhausted = "import-keys-exhausted", 503, "Too many import keys wait to be used", retry 30;
    /// The Nitro Secure Module failed.
    AttestationFailed = "attestation-failed", 503, "The enclave could not attest itself", retry 1;
    /// The parent has no AWS credentials that work.
    CredentialsUnavailable = "credentials-unavailable", 503, "AWS credentials are not available", retry 5;
    /// KMS throttles.
    KmsThrottled = "kms-throttled", 503, "KMS throttles requests", retry 1;
    /// KMS is away.
    KmsUnavailable = "kms-unavailable", 503, "KMS is not available", retry 2;
    /// The store is away.
    StoreUnavailable = "store-unavailable", 503, "The key store is not available", retry 2;
    /// KMS did not answer in time.
    KmsTimeout = "kms-timeout", 504, "KMS did not answer in time";
    /// The request's deadline passed.
    Deadline = "deadline", 504, "The request was not finished in time";
    /// A fault of ours.
    Internal = "internal", 500, "Internal error";
}

impl Kind {
    /// What stands behind `urn:strongroom:problem:`.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        self.row().slug
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl Problem {
    /// A problem with a sentence about the caller's own input.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: Some(detail.into()) }
    }

    /// 422: the request is well-formed but not valid.
    #[must_use]
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidRequest, detail)
    }

    /// The document for the reply to the request with this id.
    #[must_use]
    pub fn document(&self, request_id: &str) -> Document {
        let row = self.kind.row();
        Document {
            kind: format!("urn:strongroom:problem:{}", row.slug),
            title: row.title.to_owned(),
            status: row.status,
            detail: self.detail.as_deref().unwrap_or(row.title).to_owned(),
            instance: request_id.to_owned(),
        }
    }
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self { kind, detail: None }
    }
}

impl From<ErrorCode> for Problem {
    fn from(code: ErrorCode) -> Self {
        // No wildcard: a new code must find its row.
        Self::from(match code {
            ErrorCode::UnsupportedVersion | ErrorCode::NotConfigured => Kind::EnclaveUnavailable,
            ErrorCode::Busy => Kind::EnclaveBusy,
            ErrorCode::Internal => Kind::Internal,
            ErrorCode::ConfiguredOtherwise => Kind::EnclaveConfiguredOtherwise,
            ErrorCode::ConfigurationInvalid | ErrorCode::ConfigurationFailed | ErrorCode::ConfigurationNotAccepted => {
                Kind::EnclaveConfigurationRefused
            }
            ErrorCode::DebugMode => Kind::EnclaveDebugMode,
            ErrorCode::OperationNotConfigured => Kind::OperationNotConfigured,
            ErrorCode::KmsKeyNotConfigured => Kind::KmsKeyNotConfigured,
            ErrorCode::CredentialsMissing | ErrorCode::CredentialsRefused => Kind::CredentialsUnavailable,
            ErrorCode::PayloadInvalid | ErrorCode::PolicyInvalid => Kind::InvalidRequest,
            ErrorCode::PathRequired => Kind::PathRequired,
            ErrorCode::PathDenied => Kind::PathDenied,
            ErrorCode::PathInvalid => Kind::PathInvalid,
            ErrorCode::PayloadDenied => Kind::PolicyDenied,
            ErrorCode::ImportKeyUnknown => Kind::ImportKeyUnknown,
            ErrorCode::ImportRefused => Kind::ImportRefused,
            ErrorCode::KeyMaterialInvalid => Kind::KeyMaterialInvalid,
            ErrorCode::KeyMismatch => Kind::KeyMismatch,
            ErrorCode::AdoptionRefused => Kind::AdoptionRefused,
            ErrorCode::NotExportable => Kind::NotExportable,
            ErrorCode::RecipientUnknown => Kind::RecipientUnknown,
            ErrorCode::ImportKeysExhausted => Kind::ImportKeysExhausted,
            ErrorCode::RecordRefused => Kind::RecordRefused,
            ErrorCode::KmsDenied => Kind::KmsDenied,
            ErrorCode::KmsKeyUnusable => Kind::KmsKeyUnusable,
            ErrorCode::KmsThrottled => Kind::KmsThrottled,
            ErrorCode::KmsUnavailable => Kind::KmsUnavailable,
            ErrorCode::KmsTimeout => Kind::KmsTimeout,
            ErrorCode::KmsReplyRefused => Kind::KmsReplyRefused,
            ErrorCode::AttestationFailed => Kind::AttestationFailed,
        })
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unavailable | CallError::Lost | CallError::OtherVersion => Kind::EnclaveUnavailable.into(),
            CallError::Busy => Kind::EnclaveBusy.into(),
            CallError::Deadline => Kind::Deadline.into(),
            CallError::TooLarge => Self::new(
                Kind::BodyTooLarge,
                format!("The enclave takes at most {MAX_FRAME} bytes in one request, and this one holds more."),
            ),
            CallError::Unexpected => Kind::Internal.into(),
            CallError::Refused(code) => code.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Kind::KeyNotFound.into(),
            StoreError::Exists => Kind::KeyExists.into(),
            StoreError::GenerationLost => Kind::GenerationLost.into(),
            StoreError::Damaged(key_id) => {
                Self::new(Kind::RecordDamaged, format!("The record stored for the key {key_id} cannot be read."))
            }
            StoreError::Cursor => Self::invalid("cursor: not one that this server gave out"),
            StoreError::Unavailable => Kind::StoreUnavailable.into(),
            StoreError::TooLate => Kind::Deadline.into(),
            StoreError::TooLarge => Kind::Internal.into(),
        }
    }
}

impl From<StateConflict> for Problem {
    fn from(conflict: StateConflict) -> Self {
        Self::new(Kind::KeyStateConflict, conflict.to_string())
    }
}

impl IntoResponse for Problem {
    /// A reply without a body: what fills it needs the request's id, and finds the problem in the
    /// reply's extensions.
    fn into_response(self) -> Response<Body> {
        let row = self.kind.row();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = row.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"strongroom\""));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// An RFC 9457 problem document.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document {
    /// `urn:strongroom:problem:SLUG`: what programs decide by.
    #[serde(rename = "type")]
    #[schema(example = "urn:strongroom:problem:key-not-found")]
    pub kind: String,
    /// The same for every problem of a type.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// About this occurrence, for people.
    pub detail: String,
    /// The request's id, as in `x-request-id` and the log.
    pub instance: String,
}

/// The OpenAPI responses of these problems: one per status, its slugs in the description.
#[must_use]
pub fn api_responses(kinds: &[Kind]) -> BTreeMap<String, RefOr<ApiResponse>> {
    let mut slugs: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for kind in kinds {
        slugs.entry(kind.row().status).or_default().push(kind.slug());
    }
    let content = || Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
    slugs
        .into_iter()
        .map(|(status, slugs)| {
            let response = ResponseBuilder::new().description(slugs.join(", ")).content(MEDIA_TYPE, content());
            (status.to_string(), RefOr::T(response.build()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn slugs_are_unique_and_statuses_are_errors() {
        let slugs: HashSet<_> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| kind.status().as_u16() >= 400));
    }

    #[test]
    fn a_tampered_record_is_never_our_own_fault() {
        for code in [ErrorCode::RecordRefused, ErrorCode::KmsDenied, ErrorCode::KmsReplyRefused] {
            assert_eq!(Problem::from(code).kind.status(), StatusCode::BAD_GATEWAY);
        }
    }

    #[test]
    fn what_passes_by_itself_says_when_to_come_back() {
        assert!(Problem::from(ErrorCode::KmsThrottled).into_response().headers().contains_key(header::RETRY_AFTER));
        let configured = Problem::from(ErrorCode::ConfiguredOtherwise).into_response();
        assert!(!configured.headers().contains_key(header::RETRY_AFTER));
    }
}
