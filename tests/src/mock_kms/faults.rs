//! What goes wrong on demand: which calls, how often, and how. The faults are carried out where they
//! belong: refusals and delays in `server.rs`, false replies in `actions.rs`.

use serde::{Deserialize, Serialize};

use super::envelope::Defect;

/// Something that shall go wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// The action that it happens to (`Decrypt`); absent: every action.
    #[serde(default)]
    pub action: Option<String>,
    /// How many of those calls go well before.
    #[serde(default)]
    pub after: u32,
    /// How many calls it happens to; absent: all, until cleared.
    #[serde(default)]
    pub calls: Option<u32>,
}

/// The ways in which KMS, or somebody in its place, fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// `ThrottlingException`.
    Throttle,
    /// HTTP 500, `KMSInternalException`.
    InternalError,
    /// The answer takes this much longer, in milliseconds.
    Latency(u64),
    /// The call is carried out and never answered.
    Hang,
    /// The connection ends half-way through the reply.
    CutReply,
    /// HTTP 200 with a body that is not JSON.
    GarbageBody,
    /// The reply names another key: this ARN.
    WrongKeyId(String),
    /// The reply has `Plaintext` although the caller asked for an envelope. It has the envelope too.
    PlaintextBeside,
    /// The reply has `Plaintext` in place of the envelope, as some emulators answer.
    PlaintextInstead,
    /// The envelope has this defect.
    Envelope(Defect),
}

impl Fault {
    /// Of every call, until cleared.
    #[must_use]
    pub const fn always(kind: FaultKind) -> Self {
        Self { kind, action: None, after: 0, calls: None }
    }

    /// Of the next `calls` calls.
    #[must_use]
    pub const fn next(calls: u32, kind: FaultKind) -> Self {
        Self { kind, action: None, after: 0, calls: Some(calls) }
    }

    /// The same, but the first `calls` calls go well.
    #[must_use]
    pub const fn after(mut self, calls: u32) -> Self {
        self.after = calls;
        self
    }

    /// The same, of one action only.
    #[must_use]
    pub fn on(mut self, action: &str) -> Self {
        self.action = Some(action.to_owned());
        self
    }
}

/// All faults that are set.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn set(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn all(&self) -> &[Fault] {
        &self.0
    }

    /// The faults of this call. Counts it.
    pub(super) fn take(&mut self, action: &str) -> Vec<FaultKind> {
        let mut taken = Vec::new();
        self.0.retain_mut(|fault| {
            if fault.action.as_deref().is_some_and(|of| of != action) {
                return true;
            }
            if let Some(left) = fault.after.checked_sub(1) {
                fault.after = left;
                return true;
            }
            taken.push(fault.kind.clone());
            fault.calls = fault.calls.map(|left| left.saturating_sub(1));
            fault.calls != Some(0)
        });
        taken
    }
}
