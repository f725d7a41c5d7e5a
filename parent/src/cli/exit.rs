//! The exit codes: what scripts decide by. One table, which `--help` prints and the code obeys.

use std::process::ExitCode;

use crate::client::{AccessError, AskError, Problem};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Unavailable = 3,
    NoSuchKey = 4,
    Conflict = 5,
    NotPermitted = 6,
}

const TABLE: [(Exit, &str); 7] = [
    (Exit::Done, "done"),
    (Exit::Failed, "refused, or failed, or done for some keys only"),
    (Exit::Usage, "wrong usage: nothing was asked"),
    (Exit::Unavailable, "not available, try again: unreachable, 429, 503, too late"),
    (Exit::NoSuchKey, "no such key"),
    (
        Exit::Conflict,
        "conflict: the key exists, its generation is another one, its state (disabled, …) does not allow it, an import key has served",
    ),
    (
        Exit::NotPermitted,
        "not permitted: by the token or certificate, the key's policy or the enclave's configuration (401, 403)",
    ),
];

/// The table for `--help`.
pub(super) fn help() -> String {
    let rows = TABLE.map(|(exit, meaning)| format!("  {}  {meaning}\n", exit as u8));
    format!("Exit codes:\n{}", rows.concat())
}

/// Why a command did not do what it was asked, for people, and what to try, if there is something.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) text: String,
    pub(super) hint: Option<&'static str>,
}

/// How a command ends: it has printed what there is to print, or this is to be said.
pub(super) type Outcome = Result<Exit, Failure>;

impl Exit {
    /// The row of what a parent answered.
    pub(super) fn of(error: &AskError) -> Self {
        match error {
            AskError::Unreachable(_) => Self::Unavailable,
            AskError::Malformed(_) => Self::Failed,
            AskError::Problem(Problem { status, slug, .. }) => match (*status, slug.as_str()) {
                (403, "key-disabled" | "key-pending-deletion") => Self::Conflict,
                (401 | 403, _) => Self::NotPermitted,
                // There are other things than keys that may not be found.
                (404, "key-not-found") => Self::NoSuchKey,
                (409, _) => Self::Conflict,
                // What else is wrong there is the parent's own word, and waiting does not mend it.
                _ if error.may_pass() => Self::Unavailable,
                _ => Self::Failed,
            },
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Failure {
    pub(super) fn new(exit: Exit, text: impl std::fmt::Display) -> Self {
        Self { exit, text: text.to_string(), hint: None }
    }

    pub(super) fn usage(text: impl std::fmt::Display) -> Self {
        Self::new(Exit::Usage, text)
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        let hint = match (&error, Exit::of(&error)) {
            (AskError::Unreachable(_), _) => Some("is a parent running there? --url or STRONGROOM_URL names another"),
            (AskError::Problem(Problem { status: 401, .. }), _) => {
                Some("give a token by STRONGROOM_TOKEN, --token-file or --token")
            }
            (_, Exit::NoSuchKey) => Some("`strongroom key list` shows the keys that there are"),
            (AskError::Problem(Problem { slug, .. }), _) => match slug.as_str() {
                "generation-lost" => Some("somebody else changed the key: look at it again and decide again"),
                "key-state-conflict" => Some("`strongroom key show` tells its state"),
                "key-disabled" => Some("`strongroom key enable` lets it sign again"),
                "key-pending-deletion" => Some("`strongroom key cancel-deletion` keeps it"),
                "not-found" | "method-not-allowed" => Some("an older parent may not have this call"),
                "operation-not-configured" => Some(
                    "ceremonies need a configuration that lists them, and that KMS admits: docs/custody.md, docs/operations.md",
                ),
                "kms-denied" => Some(
                    "does the KMS key's policy admit this image with this configuration? `strongroom config check` prints PCR16",
                ),
                _ => None,
            },
            _ => None,
        };
        Self { hint, ..Self::new(Exit::of(&error), error) }
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        let hint = match error {
            AccessError::TokenInTheClear => Some("--insecure-token-over-http sends it anyway"),
            _ => None,
        };
        Self { hint, ..Self::usage(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, slug: &str) -> Exit {
        let slug = slug.to_owned();
        Exit::of(&AskError::Problem(Problem { status, slug, detail: String::new(), retry_after: None }))
    }

    #[test]
    fn every_status_of_the_parent_has_its_row() {
        for kind in crate::problem::Kind::ALL {
            let expected = match kind.status().as_u16() {
                403 if kind.slug().starts_with("key-") => Exit::Conflict,
                401 | 403 => Exit::NotPermitted,
                409 => Exit::Conflict,
                404 if kind.slug() == "key-not-found" => Exit::NoSuchKey,
                408 | 429 | 503 | 504 => Exit::Unavailable,
                _ => Exit::Failed,
            };
            assert_eq!(answered(kind.status().as_u16(), kind.slug()), expected, "{}", kind.slug());
        }
        assert_eq!(Exit::of(&AskError::Unreachable(String::new())), Exit::Unavailable);
        assert_eq!(Exit::of(&AskError::Malformed("")), Exit::Failed);
        assert_eq!(answered(301, ""), Exit::Failed);
        assert_eq!(answered(502, ""), Exit::Unavailable, "a proxy's");
    }

    #[test]
    fn help_names_each_code_once_and_in_order() {
        let help = help();
        let codes: Vec<&str> = help.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(codes, ["0", "1", "2", "3", "4", "5", "6"]);
    }
}
