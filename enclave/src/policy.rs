//! The one decision about what may be signed. A signature is made only over what [`authorize`] let
//! through: [`Authorized`] has no other maker and owns the payload that `sign.rs` reads.

use strongroom_protocol::{Payload, Scheme};

use crate::sign::SigningKey;
use crate::wrapping::OpenedKey;

/// Proof that the policy bound to `key` allows `payload`.
pub(crate) struct Authorized<'a> {
    key: &'a SigningKey,
    scheme: Scheme,
    payload: Payload,
}

/// The policy does not allow the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key's policy does not allow this payload")]
pub(crate) struct Denied;

/// Lets `payload` through if the policy that was bound to the key, and opened with it, allows its kind.
pub(crate) fn authorize(
    OpenedKey { signing_key: key, policy, .. }: &OpenedKey,
    scheme: Option<Scheme>,
    payload: Payload,
) -> Result<Authorized<'_>, Denied> {
    if !policy.allows(payload.kind()) {
        return Err(Denied);
    }
    let scheme = scheme.unwrap_or(key.algorithm().default_scheme());
    Ok(Authorized { key, scheme, payload })
}

impl<'a> Authorized<'a> {
    /// Consumed by signing.
    pub(crate) fn into_parts(self) -> (&'a SigningKey, Scheme, Payload) {
        (self.key, self.scheme, self.payload)
    }
}
