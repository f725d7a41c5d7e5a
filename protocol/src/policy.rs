//! What a key may sign and how long it may stay open. Part of the binding, so it never changes; the
//! decision itself is the enclave's (`enclave/src/policy.rs`).

use serde::{Deserialize, Serialize};

/// A key's bound policy. Denies what it does not list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Policy {
    payloads: Vec<PayloadKind>,
    hold_seconds: u32,
}

/// A kind of payload that a policy can allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadKind {
    // In alphabetical order: the canonical form sorts by it.
    /// A 32-byte digest made by the caller: a blind signature.
    Digest,
    /// A message that the enclave hashes. Blind too: it can be a transaction's pre-image.
    Message,
}

/// A policy that no key may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It allows nothing, so the key could never sign.
    #[error("policy: payloads must name at least one kind")]
    Empty,
    /// A payload kind stands twice.
    #[error("policy: a payload kind is named twice")]
    Repeated,
}

impl Policy {
    /// A policy that allows `payloads`, in any order, and holds the opened key for `hold_seconds`
    /// (0: open, sign, wipe).
    ///
    /// # Errors
    /// The caller's: no payload kind, or one named twice.
    pub fn new(mut payloads: Vec<PayloadKind>, hold_seconds: u32) -> Result<Self, PolicyError> {
        payloads.sort_unstable();
        if payloads.is_empty() {
            return Err(PolicyError::Empty);
        }
        if payloads.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(PolicyError::Repeated);
        }
        Ok(Self { payloads, hold_seconds })
    }

    /// Whether the policy allows this kind of payload.
    #[must_use]
    pub fn allows(&self, kind: PayloadKind) -> bool {
        self.payloads.contains(&kind)
    }

    /// How long an opened key may stay in the enclave's memory, in seconds from its Decrypt.
    #[must_use]
    pub const fn hold_seconds(&self) -> u32 {
        self.hold_seconds
    }

    /// The one text that enters the binding: fields in fixed order, kinds sorted, no white space.
    #[must_use]
    pub fn canonical_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Default for Policy {
    /// Messages only, never held: what a create request without a policy gets.
    fn default() -> Self {
        Self { payloads: vec![PayloadKind::Message], hold_seconds: 0 }
    }
}

/// The JSON and CBOR form. Field order is the canonical order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    payloads: Vec<PayloadKind>,
    #[serde(default)]
    hold_seconds: u32,
}

impl TryFrom<Written> for Policy {
    type Error = PolicyError;

    fn try_from(written: Written) -> Result<Self, PolicyError> {
        Self::new(written.payloads, written.hold_seconds)
    }
}

impl From<Policy> for Written {
    fn from(policy: Policy) -> Self {
        Self { payloads: policy.payloads, hold_seconds: policy.hold_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Policy, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn the_canonical_form_does_not_depend_on_how_the_policy_was_written() {
        let canonical = r#"{"payloads":["digest","message"],"hold_seconds":7}"#;
        for written in [canonical, r#"{"hold_seconds": 7, "payloads": ["message", "digest"]}"#] {
            assert_eq!(parse(written).expect("valid").canonical_json(), canonical);
        }
        assert_eq!(Policy::default().canonical_json(), r#"{"payloads":["message"],"hold_seconds":0}"#);
    }

    #[test]
    fn unknown_duplicate_and_empty_parts_are_refused() {
        for bad in [
            r#"{"payloads":[]}"#,
            r#"{"payloads":["message","message"]}"#,
            r#"{"payloads":["anything"]}"#,
            r#"{"payloads":["message"],"payloads":["digest"]}"#,
            r#"{"payloads":["message"],"hold_seconds":-1}"#,
            r#"{"payloads":["message"],"hold_seconds":4294967296}"#,
            r#"{"payloads":["message"],"exportable":true}"#,
            r#"{"hold_seconds":1}"#,
            "{}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
