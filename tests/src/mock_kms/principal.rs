//! Who exists: principals with their keys, as IAM and STS would know them. Decides neither what a
//! signature is worth (`sigv4.rs`) nor what a principal may do (its key's policy).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A principal and the credentials that it signs with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// `AKIA…` or `ASIA…`.
    pub access_key_id: String,
    /// Signs its requests.
    pub secret_access_key: String,
    /// Of temporary credentials; then every request must carry it.
    #[serde(default)]
    pub session_token: Option<String>,
    /// `arn:aws:iam::…:user/…`, `arn:aws:iam::…:role/…` or `arn:aws:sts::…:assumed-role/ROLE/SESSION`.
    pub arn: String,
    /// When the session ends, in milliseconds since 1970; absent: never.
    #[serde(default)]
    pub expires_at_ms: Option<u64>,
}

/// All principals, by access key id.
#[derive(Default)]
pub(super) struct Principals(BTreeMap<String, Principal>);

impl Principal {
    /// Whether the session is over.
    #[must_use]
    pub fn is_expired(&self, at: SystemTime) -> bool {
        self.expires_at_ms.is_some_and(|end| UNIX_EPOCH + Duration::from_millis(end) <= at)
    }
}

impl Principals {
    pub(super) fn insert(&mut self, principal: Principal) {
        self.0.insert(principal.access_key_id.clone(), principal);
    }

    pub(super) fn remove(&mut self, access_key_id: &str) -> Option<Principal> {
        self.0.remove(access_key_id)
    }

    pub(super) fn find(&self, access_key_id: &str) -> Option<&Principal> {
        self.0.get(access_key_id)
    }

    /// Ends a session now; `false` if there is no such principal.
    pub(super) fn expire(&mut self, access_key_id: &str) -> bool {
        match self.0.get_mut(access_key_id) {
            Some(principal) => {
                principal.expires_at_ms = Some(0);
                true
            }
            None => false,
        }
    }
}
