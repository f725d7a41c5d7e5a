//! How KMS says no: the error codes and texts of its wire protocol. Decides what a caller reads;
//! when an error is due, the module that finds it decides.

use hyper::StatusCode;
use serde_json::{Value, json};

/// A refusal, as KMS words it. Sources of codes and texts: the KMS API reference ("Common errors"
/// and each action's "Errors"), the IAM guide on SigV4 troubleshooting, and replies of the service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    /// The request carries no `Authorization` header.
    #[error("Missing Authentication Token")]
    MissingAuthenticationToken,
    /// The `Authorization` header lacks a part.
    #[error("{0}")]
    IncompleteSignature(String),
    /// No principal has this access key id, or the session token is not its own.
    #[error("The security token included in the request is invalid.")]
    UnrecognizedClient,
    /// The signature is of another secret, request, scope or time.
    #[error("{0}")]
    InvalidSignature(String),
    /// The principal's session is over.
    #[error("The security token included in the request is expired")]
    ExpiredToken,
    /// No such action.
    #[error("")]
    UnknownOperation,
    /// The body is not the action's JSON.
    #[error("{0}")]
    Serialization(String),
    /// A member is outside its constraints.
    #[error("{0}")]
    Validation(String),
    /// The key policy does not allow the call.
    #[error("{0}")]
    AccessDenied(String),
    /// No such key.
    #[error("{0}")]
    NotFound(String),
    /// The key is disabled. Holds its ARN.
    #[error("{0} is disabled.")]
    Disabled(String),
    /// The key's state forbids the call. Holds its ARN.
    #[error("{0} is pending deletion.")]
    InvalidState(String),
    /// The blob is damaged, of another key, or of another encryption context. KMS says no more.
    #[error("")]
    InvalidCiphertext,
    /// The request names another key than the blob does.
    #[error("The key ID in the request does not identify a CMK that can perform this operation.")]
    IncorrectKey,
    /// There are no grants here.
    #[error("The grant token is not valid.")]
    InvalidGrantToken,
    /// The call would have succeeded, but `DryRun` was set.
    #[error("The request would have succeeded, but the DryRun option is set.")]
    DryRunOperation,
    /// Too many calls (on demand).
    #[error("Rate exceeded")]
    Throttling,
    /// KMS failed (on demand, or truly).
    #[error("An internal error occurred.")]
    Internal,
}

impl KmsError {
    /// The name by which clients recognise it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            Self::IncompleteSignature(_) => "IncompleteSignatureException",
            Self::UnrecognizedClient => "UnrecognizedClientException",
            Self::InvalidSignature(_) => "InvalidSignatureException",
            Self::ExpiredToken => "ExpiredTokenException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::Serialization(_) => "SerializationException",
            Self::Validation(_) => "ValidationException",
            Self::AccessDenied(_) => "AccessDeniedException",
            Self::NotFound(_) => "NotFoundException",
            Self::Disabled(_) => "DisabledException",
            Self::InvalidState(_) => "KMSInvalidStateException",
            Self::InvalidCiphertext => "InvalidCiphertextException",
            Self::IncorrectKey => "IncorrectKeyException",
            Self::InvalidGrantToken => "InvalidGrantTokenException",
            Self::DryRunOperation => "DryRunOperationException",
            Self::Throttling => "ThrottlingException",
            Self::Internal => "KMSInternalException",
        }
    }

    /// 500 if KMS is to blame, else 400: throttling too.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The reply's JSON. KMS writes `Message` for denials and `message` elsewhere; clients take both.
    #[must_use]
    pub fn body(&self) -> Value {
        match (self, self.to_string()) {
            (_, text) if text.is_empty() => json!({ "__type": self.code() }),
            (Self::AccessDenied(_), text) => json!({ "__type": self.code(), "Message": text }),
            (_, text) => json!({ "__type": self.code(), "message": text }),
        }
    }
}
