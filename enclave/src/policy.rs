//! The one decision about what may be signed, and with which key below a seed. A signature is made only over
//! what [`authorize`] let through, with a key that [`reach`] let the request have: [`Authorized`] has no other
//! maker and owns the payload that `sign.rs` reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use strongroom_protocol::{DerivationPath, Payload, Policy, PublicKey, Scheme};

use crate::derive::Underivable;
use crate::sign::SigningKey;
use crate::wrapping::{OpenedKey, OpenedSecret};

/// A key that the request may use, and the policy that was bound to it or to its seed, and opened with it. A clone
/// is the same key at the same place in memory, for another thread.
#[derive(Clone)]
pub(crate) struct Reached {
    key: Arc<SigningKey>,
    opened: Arc<OpenedKey>,
}

/// Proof that a policy allows a path below its seed.
pub(crate) struct AllowedPath<'a>(&'a DerivationPath);

/// Proof that the policy bound to `key` allows `payload`.
pub(crate) struct Authorized<'a> {
    key: &'a SigningKey,
    scheme: Scheme,
    payload: Payload,
}

/// Why a request has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutOfReach {
    /// A seed signs with the key at a path, never by itself.
    #[error("the key is a seed and no path is named")]
    PathRequired,
    /// The key derives no others.
    #[error("a path is named and the key is no seed")]
    PathSuperfluous,
    /// The bound policy does not allow the path.
    #[error("the key's policy does not allow this path")]
    Denied,
    /// Allowed, but there is no key.
    #[error("there is no key at this path: {0}")]
    Underivable(#[from] Underivable),
}

/// The policy does not allow the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key's policy does not allow this payload")]
pub(crate) struct Denied;

/// The opened key itself, or the one at an allowed `path` below the opened seed. Nothing is derived before its
/// path is allowed.
pub(crate) fn reach(opened: &Arc<OpenedKey>, path: Option<&DerivationPath>) -> Result<Reached, OutOfReach> {
    let key = match (&opened.secret, path) {
        (OpenedSecret::Key(key), None) => Arc::clone(key),
        (OpenedSecret::Seed(seed), Some(path)) => {
            let path = AllowedPath::new(&opened.policy, path).ok_or(OutOfReach::Denied)?;
            Arc::new(seed.derive(path)?)
        }
        (OpenedSecret::Key(_), Some(_)) => return Err(OutOfReach::PathSuperfluous),
        (OpenedSecret::Seed(_), None) => return Err(OutOfReach::PathRequired),
    };
    Ok(Reached { key, opened: Arc::clone(opened) })
}

/// Lets `payload` through if the policy allows its kind.
pub(crate) fn authorize<'a>(
    reached: &'a Reached,
    scheme: Option<Scheme>,
    payload: Payload,
) -> Result<Authorized<'a>, Denied> {
    if !reached.opened.policy.allows(payload.kind()) {
        return Err(Denied);
    }
    let key = &*reached.key;
    let scheme = scheme.unwrap_or(key.curve().default_scheme());
    Ok(Authorized { key, scheme, payload })
}

impl Reached {
    /// The key's own public key.
    pub(crate) fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    /// The key's own addresses.
    pub(crate) fn addresses(&self) -> BTreeMap<String, String> {
        self.key.addresses()
    }
}

impl<'a> AllowedPath<'a> {
    fn new(policy: &Policy, path: &'a DerivationPath) -> Option<Self> {
        policy.allows_path(path).then_some(Self(path))
    }

    /// What was allowed.
    pub(crate) const fn path(&self) -> &'a DerivationPath {
        self.0
    }
}

impl Authorized<'_> {
    /// What signing reads.
    pub(crate) const fn parts(&self) -> (&SigningKey, Scheme, &Payload) {
        (self.key, self.scheme, &self.payload)
    }
}
