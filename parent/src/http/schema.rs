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
    /// A seed of secp256k1 keys (BIP-32).
    #[schema(rename = "bip32-secp256k1")]
    Bip32Secp256k1,
    /// A seed of ed25519 keys (SLIP-10): hardened paths only.
    #[schema(rename = "slip10-ed25519")]
    Slip10Ed25519,
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
    /// For seed keys, which need at least one: the paths at which, and below which, keys may be used.
    #[schema(required = false, max_items = 32, example = json!(["m/44'/60'/0'"]))]
    paths: Vec<String>,
    /// Whether the key may leave the enclave, sealed to a recipient of the measured configuration.
    #[schema(required = false, default = false)]
    exportable: bool,
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
