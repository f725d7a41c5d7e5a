//! What a key may sign, where below a seed, how long it may stay open, and whether it may leave. Part of
//! the binding, so it never changes; the decision itself is the enclave's (`enclave/src/policy.rs`).

use serde::{Deserialize, Serialize};

use crate::key::{Algorithm, Curve};
use crate::path::DerivationPath;

/// Most path prefixes of a policy.
pub const MAX_PATHS: usize = 32;

/// A key's bound policy. Denies what it does not list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Policy {
    payloads: Vec<PayloadKind>,
    hold_seconds: u32,
    paths: Vec<DerivationPath>,
    exportable: bool,
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
    /// More than [`MAX_PATHS`].
    #[error("policy: paths must name at most {MAX_PATHS} prefixes")]
    TooManyPaths,
    /// A path stands twice.
    #[error("policy: a path is named twice")]
    RepeatedPath,
    /// ed25519 signs messages only: a key that may sign nothing but digests could never sign.
    #[error("policy: payloads must name \"message\" for ed25519, which signs no digests")]
    NothingToSign,
    /// A seed whose keys nobody could reach.
    #[error("policy: paths must name at least one prefix for a seed key")]
    PathsMissing,
    /// A key that derives no others has no paths.
    #[error("policy: paths are for seed keys only")]
    PathsSuperfluous,
    /// SLIP-10 derives ed25519 keys by hardened steps only.
    #[error("policy: every component of a path must be hardened for slip10-ed25519")]
    NotHardened,
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
        Ok(Self { payloads, hold_seconds, paths: Vec::new(), exportable: false })
    }

    /// The same policy for a seed: it signs with the keys at these paths and at all that lead on from them.
    ///
    /// # Errors
    /// The caller's: too many paths, or one named twice. Whether there may be any, [`Self::check_fit`] tells.
    pub fn with_paths(self, mut paths: Vec<DerivationPath>) -> Result<Self, PolicyError> {
        paths.sort_unstable();
        if paths.len() > MAX_PATHS {
            return Err(PolicyError::TooManyPaths);
        }
        if paths.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(PolicyError::RepeatedPath);
        }
        Ok(Self { paths, ..self })
    }

    /// The same policy for a key that may or may not leave the enclave, sealed to a recipient of the measured
    /// configuration.
    #[must_use]
    pub fn with_exportable(self, exportable: bool) -> Self {
        Self { exportable, ..self }
    }

    /// Whether a key of this algorithm can have this policy.
    ///
    /// # Errors
    /// Whoever made the policy: no payload that the algorithm signs, a seed without paths, paths without a
    /// seed, or paths that SLIP-10 cannot go.
    pub fn check_fit(&self, algorithm: Algorithm) -> Result<(), PolicyError> {
        if algorithm.curve() == Curve::Ed25519 && !self.allows(PayloadKind::Message) {
            return Err(PolicyError::NothingToSign);
        }
        match (algorithm.is_seed(), self.paths.is_empty()) {
            (true, true) => Err(PolicyError::PathsMissing),
            (false, false) => Err(PolicyError::PathsSuperfluous),
            (false, true) => Ok(()),
            (true, false) => match algorithm.curve() {
                Curve::Ed25519 if !self.paths.iter().all(DerivationPath::is_hardened) => Err(PolicyError::NotHardened),
                Curve::Ed25519 | Curve::Secp256k1 => Ok(()),
            },
        }
    }

    /// Whether the policy allows this kind of payload.
    #[must_use]
    pub fn allows(&self, kind: PayloadKind) -> bool {
        self.payloads.contains(&kind)
    }

    /// Whether the policy allows the key at this path below a seed: whole components, compared as integers.
    #[must_use]
    pub fn allows_path(&self, path: &DerivationPath) -> bool {
        self.paths.iter().any(|prefix| path.starts_with(prefix))
    }

    /// The path prefixes of a seed, in canonical order; none for any other key.
    #[must_use]
    pub fn paths(&self) -> &[DerivationPath] {
        &self.paths
    }

    /// Whether the key may leave the enclave, sealed to a recipient of the measured configuration.
    #[must_use]
    pub const fn is_exportable(&self) -> bool {
        self.exportable
    }

    /// How long an opened key may stay in the enclave's memory, in seconds from its Decrypt.
    #[must_use]
    pub const fn hold_seconds(&self) -> u32 {
        self.hold_seconds
    }

    /// The one text that enters the binding: fields in fixed order, kinds and paths sorted, no white space.
    /// No paths and not exportable are left out: such bindings are as they were before either existed.
    #[must_use]
    pub fn canonical_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Default for Policy {
    /// Messages only, never held: what a create request without a policy gets.
    fn default() -> Self {
        Self { payloads: vec![PayloadKind::Message], hold_seconds: 0, paths: Vec::new(), exportable: false }
    }
}

/// The JSON and CBOR form. Field order is the canonical order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    payloads: Vec<PayloadKind>,
    #[serde(default)]
    hold_seconds: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    paths: Vec<DerivationPath>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    exportable: bool,
}

impl TryFrom<Written> for Policy {
    type Error = PolicyError;

    fn try_from(written: Written) -> Result<Self, PolicyError> {
        let Written { payloads, hold_seconds, paths, exportable } = written;
        Ok(Self::new(payloads, hold_seconds)?.with_paths(paths)?.with_exportable(exportable))
    }
}

impl From<Policy> for Written {
    fn from(policy: Policy) -> Self {
        let Policy { payloads, hold_seconds, paths, exportable } = policy;
        Self { payloads, hold_seconds, paths, exportable }
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
    fn the_canonical_form_has_paths_as_integers_sort_and_leaves_defaults_out() {
        let written =
            r#"{"exportable":true,"paths":["m/44h/60'","m/44'/0H/10","m/44'/0'/9","m"],"payloads":["message"]}"#;
        let canonical = r#"{"payloads":["message"],"hold_seconds":0,"paths":["m","m/44'/0'/9","m/44'/0'/10","m/44'/60'"],"exportable":true}"#;
        assert_eq!(parse(written).expect("valid").canonical_json(), canonical);
        assert_eq!(parse(canonical).expect("valid"), parse(written).expect("valid"));
        let defaults = parse(r#"{"payloads":["message"],"paths":[],"exportable":false}"#).expect("valid");
        assert_eq!((&defaults, defaults.canonical_json()), (&Policy::default(), Policy::default().canonical_json()));
    }

    #[test]
    fn paths_are_bounded_and_fit_the_algorithm() {
        let paths = |texts: &[&str]| {
            let paths = texts.iter().map(|text| text.parse().expect("a path")).collect();
            Policy::default().with_paths(paths).expect("valid")
        };
        let many = |count: u32| (0..count).map(|i| vec![i].try_into().expect("short")).collect();
        assert!(Policy::default().with_paths(many(32)).is_ok());
        assert_eq!(Policy::default().with_paths(many(33)), Err(PolicyError::TooManyPaths));
        for (name, algorithm, texts, fit) in [
            ("plain", Algorithm::Ed25519, &[][..], Ok(())),
            ("seed", Algorithm::Bip32Secp256k1, &["m/0"], Ok(())),
            ("every_path", Algorithm::Slip10Ed25519, &["m"], Ok(())),
            ("hardened", Algorithm::Slip10Ed25519, &["m/44'/501'"], Ok(())),
            ("plain_with_paths", Algorithm::Secp256k1, &["m/0"], Err(PolicyError::PathsSuperfluous)),
            ("seed_without", Algorithm::Bip32Secp256k1, &[], Err(PolicyError::PathsMissing)),
            ("ed25519_seed_without", Algorithm::Slip10Ed25519, &[], Err(PolicyError::PathsMissing)),
            ("not_hardened", Algorithm::Slip10Ed25519, &["m/44'", "m/44'/501'/0"], Err(PolicyError::NotHardened)),
        ] {
            assert_eq!(paths(texts).check_fit(algorithm), fit, "{name}");
        }
    }

    #[test]
    fn a_key_that_could_never_sign_is_no_key() {
        let digests = Policy::new(vec![PayloadKind::Digest], 0).expect("valid");
        assert_eq!(digests.check_fit(Algorithm::Ed25519), Err(PolicyError::NothingToSign));
        assert_eq!(digests.check_fit(Algorithm::Secp256k1), Ok(()));
        let both = Policy::new(vec![PayloadKind::Digest, PayloadKind::Message], 0).expect("valid");
        assert_eq!(both.check_fit(Algorithm::Ed25519), Ok(()));
    }

    #[test]
    fn a_path_is_allowed_below_a_prefix_and_nowhere_else() {
        let paths = vec!["m/44'/60'".parse().expect("a path"), "m/7".parse().expect("a path")];
        let policy = Policy::default().with_paths(paths).expect("valid");
        for (path, allowed) in [
            ("m/44'/60'", true),
            ("m/44'/60'/0'/0/5", true),
            ("m/7/8'", true),
            ("m", false),
            ("m/44'", false),
            ("m/44'/600'", false),
            ("m/44'/6'", false),
            ("m/44'/60", false),
            ("m/7'", false),
            ("m/0/7", false),
        ] {
            assert_eq!(policy.allows_path(&path.parse().expect("a path")), allowed, "{path}");
        }
        assert!(!Policy::default().allows_path(&"m".parse().expect("a path")), "no prefix, no path");
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
            r#"{"payloads":["message"],"exportable":1}"#,
            r#"{"payloads":["message"],"exportable":true,"exportable":true}"#,
            r#"{"payloads":["message"],"paths":["m/0","m/0"]}"#,
            r#"{"payloads":["message"],"paths":["m/0'","m/0h"]}"#,
            r#"{"payloads":["message"],"paths":["44'"]}"#,
            r#"{"payloads":["message"],"paths":[[0]]}"#,
            r#"{"payloads":["message"],"recipients":[]}"#,
            r#"{"hold_seconds":1}"#,
            "{}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
