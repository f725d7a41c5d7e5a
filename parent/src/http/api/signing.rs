//! Signing on the wire.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use strongroom_protocol::frame::MAX_ENTRIES;
use strongroom_protocol::{
    ByteArray, ByteString, DerivationPath, HashFunction, KeyRecord, MAX_MESSAGE, Payload, Scheme, Signature,
};
use utoipa::ToSchema;

use super::{hex_bytes, to_hex};
use crate::http::schema;
use crate::http::strict::{Object, Word};
use crate::problem::{Document, Problem};

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

/// `POST /v1/keys/{key_id}/sign-batch`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct BatchRequest {
    /// Each is signed on its own.
    #[serde(deserialize_with = "payloads")]
    #[schema(value_type = Vec<SignPayload>, min_items = 1, max_items = 10_000)]
    pub(in crate::http) payloads: Vec<Payload>,
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
        /// Hex. At most 1 MiB; in `sign` somewhat less: twice as many digits, in a body of at most 2 MiB.
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
    #[schema(value_type = String)]
    signature: SignatureHex,
    /// 0 or 1; ECDSA only.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_id: Option<u8>,
    /// The key that signed, hex. Absent below a seed: `GET …/public-key?path=` tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    /// As in `x-request-id`.
    request_id: String,
}

impl SignReply {
    pub(in crate::http) fn new(signature: Signature, record: &KeyRecord, request_id: &str) -> Self {
        Self {
            signature: SignatureHex(signature.bytes),
            recovery_id: signature.recovery_id,
            public_key: signer(record),
            request_id: request_id.to_owned(),
        }
    }
}

/// Signatures.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct BatchReply {
    /// One per payload, in the order of the payloads.
    #[schema(value_type = Vec<SignResult>)]
    results: Results,
    /// The key that signed, hex. Absent below a seed: `GET …/public-key?path=` tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    /// As in `x-request-id`.
    request_id: String,
}

impl BatchReply {
    pub(in crate::http) fn new(results: Vec<Result<Signature, Problem>>, record: &KeyRecord, request_id: &str) -> Self {
        Self {
            results: Results { results, request_id: request_id.to_owned() },
            public_key: signer(record),
            request_id: request_id.to_owned(),
        }
    }
}

/// Results that get their form one by one, while they are written.
#[derive(Debug)]
struct Results {
    results: Vec<Result<Signature, Problem>>,
    request_id: String,
}

impl Serialize for Results {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.results.iter().map(|result| match result {
            Ok(Signature { bytes, recovery_id }) => {
                SignResult::Signed { signature: SignatureHex(*bytes), recovery_id: *recovery_id }
            }
            Err(problem) => SignResult::Refused { error: problem.document(&self.request_id) },
        }))
    }
}

/// What became of one payload.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum SignResult {
    /// It is signed.
    Signed {
        /// 64 bytes, hex.
        #[schema(value_type = String)]
        signature: SignatureHex,
        /// 0 or 1; ECDSA only.
        #[serde(skip_serializing_if = "Option::is_none")]
        recovery_id: Option<u8>,
    },
    /// It is not signed.
    Refused {
        /// What `sign` would have answered.
        error: Document,
    },
}

/// A signature that is written from a buffer on the stack: ten thousand of them make one reply.
#[derive(Debug)]
struct SignatureHex(ByteArray<64>);

impl Serialize for SignatureHex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [b'0'; 2 + 2 * 64];
        let [_, x, digits @ ..] = &mut text;
        *x = b'x';
        hex::encode_to_slice(*self.0, digits).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }
}

/// The public key of signatures, which below a seed the record does not have.
fn signer(record: &KeyRecord) -> Option<String> {
    (!record.algorithm.is_seed()).then(|| to_hex(&record.public_key))
}

/// At least one payload and no more than a frame takes, each read into what the enclave is given.
fn payloads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Payload>, D::Error> {
    struct Payloads;

    impl<'de> Visitor<'de> for Payloads {
        type Value = Vec<Payload>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of payloads")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Vec<Payload>, A::Error> {
            let mut payloads = Vec::new();
            loop {
                let index = payloads.len();
                let payload = array.next_element::<Object<SignPayload>>();
                match payload.map_err(|wrong| A::Error::custom(format_args!("payloads[{index}]: {wrong}")))? {
                    Some(_) if index == MAX_ENTRIES => {
                        return Err(A::Error::custom(format_args!("payloads: more than {MAX_ENTRIES}")));
                    }
                    Some(Object(payload)) => payloads.push(payload.into()),
                    None if payloads.is_empty() => return Err(A::Error::custom("payloads: must have at least one")),
                    None => return Ok(payloads),
                }
            }
        }
    }

    deserializer.deserialize_seq(Payloads)
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteArray<32>, D::Error> {
    hex_bytes(deserializer, "digest", "32 bytes").map(ByteArray)
}

fn message<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteString<MAX_MESSAGE>, D::Error> {
    hex_bytes(deserializer, "message", "at most a mebibyte")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_has_its_prefix_and_lower_case_digits() {
        let bytes: [u8; 64] = std::array::from_fn(|n| 0xff - n as u8);
        let json = serde_json::to_value(SignatureHex(ByteArray(bytes))).expect("encodes");
        assert_eq!(json, to_hex(&bytes));
    }
}
