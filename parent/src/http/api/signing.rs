//! Signing on the wire.

use serde::{Deserialize, Deserializer, Serialize};
use strongroom_protocol::{
    ByteArray, ByteString, DerivationPath, HashFunction, KeyRecord, MAX_MESSAGE, Payload, Scheme, Signature,
};
use utoipa::ToSchema;

use super::{hex_bytes, to_hex};
use crate::http::schema;
use crate::http::strict::{Object, Word};

/// `POST /v1/keys/{key_id}/sign`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SignRequest {
    #[schema(value_type = SignPayload)]
    pub(in crate::http) payload: Object<SignPayload>,
    #[schema(value_type = Option<schema::Scheme>)]
    pub(in crate::http) scheme: Option<Word<Scheme>>,
    /// The key below a seed that signs: required for seed keys, refused for others.
    #[schema(value_type = Option<String>, example = "m/44'/60'/0'/0/5")]
    pub(in crate::http) path: Option<DerivationPath>,
}

/// What is signed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::http) enum SignPayload {
    /// 32 bytes that the caller hashed (secp256k1 only).
    Digest {
        /// 32 bytes, hex.
        #[serde(deserialize_with = "digest")]
        #[schema(value_type = String, pattern = "^(0[xX])?[0-9a-fA-F]{64}$")]
        digest: ByteArray<32>,
    },
    /// A message that the enclave hashes.
    Message {
        /// Hex. Somewhat less than 1 MiB: twice as many digits, in a body of at most 2 MiB.
        #[serde(deserialize_with = "message")]
        #[schema(value_type = String, pattern = "^(0[xX])?([0-9a-fA-F]{2})*$")]
        message: ByteString<MAX_MESSAGE>,
        /// Required for secp256k1, refused for ed25519.
        #[schema(value_type = Option<schema::HashFunction>)]
        hash: Option<Word<HashFunction>>,
    },
}

impl From<SignPayload> for Payload {
    fn from(payload: SignPayload) -> Self {
        match payload {
            SignPayload::Digest { digest } => Self::Digest(digest),
            SignPayload::Message { message, hash } => Self::Message { message, hash: hash.map(|Word(hash)| hash) },
        }
    }
}

/// A signature.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct SignReply {
    /// 64 bytes, hex.
    pub(in crate::http) signature: String,
    /// 0 or 1; ECDSA only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) recovery_id: Option<u8>,
    /// The key that signed, hex. Absent below a seed: `GET …/public-key?path=` tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) public_key: Option<String>,
    /// As in `x-request-id`.
    pub(in crate::http) request_id: String,
}

impl SignReply {
    pub(in crate::http) fn new(signature: &Signature, record: &KeyRecord, request_id: &str) -> Self {
        Self {
            signature: to_hex(&*signature.bytes),
            recovery_id: signature.recovery_id,
            public_key: (!record.algorithm.is_seed()).then(|| to_hex(&record.public_key)),
            request_id: request_id.to_owned(),
        }
    }
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteArray<32>, D::Error> {
    hex_bytes(deserializer, "digest", "32 bytes").map(ByteArray)
}

fn message<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteString<MAX_MESSAGE>, D::Error> {
    hex_bytes(deserializer, "message", "at most a mebibyte")
}
