//! The states that the parent knows a key in, and the ways between them: those of KMS's own keys.
//! They stop honest callers. The enclave does not know them, so whoever owns the host can pass them by;
//! the hard stop for one key is a Deny in the KMS key's policy.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// Whether the parent lets a key sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It signs.
    Enabled,
    /// It does not.
    Disabled,
    /// It does not, and may be deleted once the waiting period is over. Nothing deletes it by itself.
    PendingDeletion {
        /// When the waiting period is over.
        deletion_date: OffsetDateTime,
    },
}

/// A state's word, as it stands in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// [`State::Enabled`].
    Enabled,
    /// [`State::Disabled`].
    Disabled,
    /// [`State::PendingDeletion`].
    PendingDeletion,
}

/// A change of state that somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateChange {
    /// Let it sign.
    Enable,
    /// Let it not sign.
    Disable,
    /// Begin the waiting period.
    ScheduleDeletion(WaitingPeriod),
    /// End the waiting period without deletion; the key stays disabled, as in KMS.
    CancelDeletion,
}

/// How long a key that is to be deleted can still be saved, in days: 7 to 30, as in KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u8")]
pub struct WaitingPeriod(u8);

/// Why a state does not change. The caller is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateConflict {
    /// Its deletion has to be cancelled first.
    #[error("The key is to be deleted; cancel that first.")]
    PendingDeletion,
    /// There is no deletion to cancel or to carry out.
    #[error("The key's deletion is not scheduled.")]
    NotPendingDeletion,
    /// The waiting period is not over.
    #[error("The waiting period before the key's deletion is not over.")]
    Waiting,
}

impl State {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> StateName {
        match self {
            Self::Enabled => StateName::Enabled,
            Self::Disabled => StateName::Disabled,
            Self::PendingDeletion { .. } => StateName::PendingDeletion,
        }
    }

    /// The state after a change that is asked for at `now`; the same state if there is nothing to change.
    ///
    /// # Errors
    /// [`StateConflict`]: this change is not possible in this state.
    pub fn after(self, change: StateChange, now: OffsetDateTime) -> Result<Self, StateConflict> {
        match (self, change) {
            (Self::PendingDeletion { .. }, StateChange::CancelDeletion) => Ok(Self::Disabled),
            (Self::PendingDeletion { .. }, _) => Err(StateConflict::PendingDeletion),
            (_, StateChange::Enable) => Ok(Self::Enabled),
            (_, StateChange::Disable) => Ok(Self::Disabled),
            (_, StateChange::ScheduleDeletion(period)) => Ok(Self::PendingDeletion { deletion_date: period.end(now) }),
            (_, StateChange::CancelDeletion) => Err(StateConflict::NotPendingDeletion),
        }
    }

    /// Whether the key may be deleted at `now`.
    ///
    /// # Errors
    /// [`StateConflict`]: its deletion is not scheduled, or its waiting period is not over.
    pub fn check_deletable(self, now: OffsetDateTime) -> Result<(), StateConflict> {
        match self {
            Self::PendingDeletion { deletion_date } if deletion_date <= now => Ok(()),
            Self::PendingDeletion { .. } => Err(StateConflict::Waiting),
            Self::Enabled | Self::Disabled => Err(StateConflict::NotPendingDeletion),
        }
    }
}

impl WaitingPeriod {
    /// The text form of a time has whole seconds; the period is not shortened by that.
    fn end(self, now: OffsetDateTime) -> OffsetDateTime {
        let end = now.saturating_add(Duration::days(self.0.into())).saturating_add(Duration::SECOND);
        end.replace_nanosecond(0).unwrap_or(end)
    }
}

impl Default for WaitingPeriod {
    /// KMS's default: 30 days.
    fn default() -> Self {
        Self(30)
    }
}

impl TryFrom<u8> for WaitingPeriod {
    type Error = &'static str;

    fn try_from(days: u8) -> Result<Self, Self::Error> {
        if (7..=30).contains(&days) { Ok(Self(days)) } else { Err("waiting_days: must be 7 to 30") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_change_as_those_of_kms_keys_do() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let schedule = StateChange::ScheduleDeletion(WaitingPeriod::try_from(7).expect("valid"));
        let pending = State::PendingDeletion { deletion_date: now + Duration::days(7) + Duration::SECOND };
        for (from, change, to) in [
            (State::Enabled, StateChange::Enable, Ok(State::Enabled)),
            (State::Enabled, StateChange::Disable, Ok(State::Disabled)),
            (State::Enabled, schedule, Ok(pending)),
            (State::Enabled, StateChange::CancelDeletion, Err(StateConflict::NotPendingDeletion)),
            (State::Disabled, StateChange::Enable, Ok(State::Enabled)),
            (State::Disabled, StateChange::Disable, Ok(State::Disabled)),
            (State::Disabled, schedule, Ok(pending)),
            (State::Disabled, StateChange::CancelDeletion, Err(StateConflict::NotPendingDeletion)),
            (pending, StateChange::Enable, Err(StateConflict::PendingDeletion)),
            (pending, StateChange::Disable, Err(StateConflict::PendingDeletion)),
            (pending, schedule, Err(StateConflict::PendingDeletion)),
            (pending, StateChange::CancelDeletion, Ok(State::Disabled)),
        ] {
            assert_eq!(from.after(change, now), to, "{from:?} {change:?}");
        }
    }

    #[test]
    fn only_what_has_waited_long_enough_is_deleted() {
        let deletion_date = OffsetDateTime::UNIX_EPOCH;
        let pending = State::PendingDeletion { deletion_date };
        assert_eq!(pending.check_deletable(deletion_date), Ok(()));
        assert_eq!(pending.check_deletable(deletion_date - Duration::SECOND), Err(StateConflict::Waiting));
        for state in [State::Enabled, State::Disabled] {
            assert_eq!(state.check_deletable(deletion_date), Err(StateConflict::NotPendingDeletion));
        }
    }

    #[test]
    fn a_waiting_period_is_seven_to_thirty_days() {
        assert!([0, 6, 31, 255].into_iter().all(|days| WaitingPeriod::try_from(days).is_err()));
        assert!([7, 30].into_iter().all(|days| WaitingPeriod::try_from(days).is_ok()));
    }
}
