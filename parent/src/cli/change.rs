//! Changes of one key's state, and its deletion. What a state means and which change it allows is the parent's
//! decision; here one key is changed once, as it was asked.

use std::io::{BufRead as _, IsTerminal as _, Write as _, stderr, stdin};

use clap::Args;
use serde_json::json;
use strongroom_protocol::KeyId;

use super::exit::{Exit, Failure, Outcome};
use super::output;
use crate::client::{Change, Parent};
use crate::http::KeyView;

/// A key, at one generation of its record.
#[derive(Debug, Args)]
pub(super) struct At {
    /// The key
    key_id: KeyId,
    /// Only if the key's generation is still this one
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
}

/// Let a key be deleted after a waiting period
///
/// The key stops signing at once and can be deleted, by `strongroom key delete`, once the waiting period is
/// over. Nothing is deleted by itself, and cancel-deletion keeps the key at any time before.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = "Example:\n  strongroom key schedule-deletion hot-1 --waiting-days 7")]
pub(super) struct ScheduleDeletion {
    #[command(flatten)]
    at: At,
    /// The waiting period, 7 to 30 [default: 30]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u8).range(7..=30))]
    waiting_days: Option<u8>,
}

/// Delete a key for good, after its waiting period
///
/// Removes the key's record. Without another copy of the record nobody can ever sign with this key again,
/// and what its addresses hold is lost. Asks for the key's id to be typed; scripts say --yes.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  strongroom key delete hot-1\n  strongroom key delete hot-1 --generation 5 --yes"
)]
pub(super) struct Delete {
    #[command(flatten)]
    at: At,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn enable(parent: &Parent, at: &At, json: bool) -> Outcome {
    change(parent, at, &Change::Enable {}, json, |key| format!("{} signs", now(key))).await
}

pub(super) async fn disable(parent: &Parent, at: &At, json: bool) -> Outcome {
    change(parent, at, &Change::Disable {}, json, |key| format!("{} does not sign", now(key))).await
}

pub(super) async fn cancel_deletion(parent: &Parent, at: &At, json: bool) -> Outcome {
    let text = |key: &KeyView| format!("{} stays; `strongroom key enable` lets it sign", now(key));
    change(parent, at, &Change::CancelDeletion {}, json, text).await
}

impl ScheduleDeletion {
    pub(super) async fn run(&self, parent: &Parent, json: bool) -> Outcome {
        let change_to = Change::ScheduleDeletion { waiting_days: self.waiting_days };
        let text =
            |key: &KeyView| format!("{} does not sign and can be deleted later:\n\n{}", now(key), output::card(key));
        change(parent, &self.at, &change_to, json, text).await
    }
}

async fn change(
    parent: &Parent,
    At { key_id, generation }: &At,
    change: &Change,
    json: bool,
    text: impl FnOnce(&KeyView) -> String,
) -> Outcome {
    let key = parent.change(key_id, change, *generation).await?;
    output::print(json, &key, |key| text(key).trim_end().to_owned() + "\n")
}

/// `hot-1, disabled (generation 3),`
fn now(key: &KeyView) -> String {
    format!("{}, {} (generation {}),", key.key_id, output::word(&key.state), key.generation)
}

impl Delete {
    pub(super) async fn run(&self, parent: &Parent, json: bool) -> Outcome {
        let At { key_id, generation } = &self.at;
        if !self.yes {
            confirm(key_id)?;
        }
        parent.delete(key_id, *generation).await?;
        let deleted = json!({ "key_id": key_id, "deleted": true });
        output::print(json, &deleted, |_| format!("{key_id} is deleted\n"))
    }
}

/// Has the key's id typed by somebody who sits there.
fn confirm(key_id: &KeyId) -> Result<(), Failure> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Failure::usage("to delete a key without being asked, say --yes"));
    }
    let _ = write!(stderr(), "This deletes the key for good. Type its id to go on: ");
    let mut typed = String::new();
    let read = stdin().lock().read_line(&mut typed);
    if read.is_ok() && typed.trim() == key_id.as_str() {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, "that is not the key's id; nothing is deleted"))
    }
}
