//! The contract's closed sets as OpenAPI sees them. The types themselves live in the protocol crate,
//! which the enclave shares and which therefore knows no OpenAPI; a test holds the two together.

#![expect(dead_code, reason = "only described")]

use utoipa::ToSchema;

/// Curve and key type.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Algorithm {
    Secp256k1,
    Ed25519,
}

/// How a signature is made. Default: `ecdsa` for secp256k1, `ed25519` for ed25519.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Scheme {
    /// r‖s, 64 bytes, low S, RFC 6979, with `recovery_id`.
    Ecdsa,
    /// BIP-340.
    Bip340,
    /// RFC 8032, PureEdDSA.
    Ed25519,
}

/// How a secp256k1 message becomes 32 bytes.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum HashFunction {
    Keccak256,
    Sha256,
    Sha256d,
}

/// Where a key came from.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Origin {
    Generated,
    Imported,
    Adopted,
}

/// What a key may sign. Bound to the key for ever.
#[derive(ToSchema)]
pub(super) struct Policy {
    /// Kinds of payload; `digest` and `message` are both blind signatures.
    #[schema(min_items = 1)]
    payloads: Vec<PayloadKind>,
    /// How long the enclave may keep the opened key, in seconds.
    #[schema(required = false, default = 0)]
    hold_seconds: u32,
}

/// A kind of payload.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum PayloadKind {
    Digest,
    Message,
}

/// Whether the parent lets a key sign.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum State {
    Enabled,
    Disabled,
    PendingDeletion,
}
