//! `strongroom key rewrap`: one key, or all that are not yet under a KMS key. A key is replaced only at the
//! generation that was looked at, so nobody's change is lost, and a run may end anywhere.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use strongroom_protocol::{KeyId, KmsKeyArn};
use tokio::time::{Instant, sleep};

use super::bulk::{self, Done, Line, Pace, Tally, Trouble, Work};
use super::exit::{Exit, Failure, Outcome};
use super::list::PAGE;
use super::output;
use crate::client::{AskError, Change, Parent, printable};

/// Wrap a key, or all keys, under another KMS key
///
/// The key stays the same, with its address, policy and binding: only what seals its record is new. The
/// enclave opens the new record once under the new KMS key before the old one is replaced. Needs the
/// operation `rewrap` and both KMS keys in the enclave's measured configuration.
///
/// With --all, every key that the identity may read and that is not under that KMS key yet is re-wrapped, in
/// parallel. Ctrl-C stops between two calls. The same command again does what is left, however the last run
/// ended. Damaged records and keys with which it did not work are named at the end, and the exit code is 1. It is
/// 0 only if no key that the identity may read is under another KMS key any more (with --prefix: none of those).
///
/// A rotation counts only once the old KMS key denies Decrypt: until then whoever kept an old record can
/// still have it opened.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  \
    strongroom key rewrap hot-1 --kms-key-arn arn:aws:kms:eu-central-1:111122223333:key/NEW\n  \
    strongroom key rewrap --all --prefix hot- --kms-key-arn arn:aws:kms:eu-central-1:111122223333:key/NEW"
)]
pub(super) struct Rewrap {
    /// The key
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    key_id: Option<KeyId>,
    /// The KMS key that is to wrap it
    #[arg(long, value_name = "ARN")]
    kms_key_arn: KmsKeyArn,
    /// Only if the key's generation is still this one
    #[arg(long, value_name = "N", conflicts_with = "all")]
    generation: Option<u64>,
    /// Re-wrap all keys that are not under that KMS key yet
    #[arg(long, help_heading = "Bulk")]
    all: bool,
    /// Only keys whose ids begin with this
    #[arg(long, help_heading = "Bulk", value_name = "P", requires = "all")]
    prefix: Option<String>,
    #[command(flatten)]
    pace: Pace,
}

/// The most keys that one run takes on: what it knows of each is kept in memory.
const MAX_KEYS: usize = 5_000_000;

/// So often a key may be changed by others between looking at it and re-wrapping it.
const MAX_LOSSES: usize = 8;

impl Rewrap {
    pub(super) async fn run(self, parent: Parent, json: bool) -> Outcome {
        let Self { key_id, kms_key_arn, generation, prefix, pace, .. } = self;
        let Some(key_id) = key_id else {
            return rewrap_all(parent, kms_key_arn, prefix.as_deref(), &pace, json).await;
        };
        let key = parent.change(&key_id, &Change::Rewrap { kms_key_arn }, generation).await?;
        output::print(json, &key, |key| format!("{}\n{ROTATION}\n", output::card(key)))
    }
}

const ROTATION: &str =
    "The rotation counts once the old KMS key denies Decrypt: old copies of records open until then.";

async fn rewrap_all(parent: Parent, target: KmsKeyArn, prefix: Option<&str>, pace: &Pace, json: bool) -> Outcome {
    let Survey { elsewhere, there, damaged } =
        Survey::of(&parent, &target, prefix.unwrap_or_default(), pace.patience()).await?;
    let change = Change::Rewrap { kms_key_arn: target.clone() };
    let work = Rewrapping { parent: parent.clone(), change, target: target.clone() };
    let mut tally = bulk::run(work, elsewhere, pace).await;
    tally.total += there;
    tally.already_there += there;
    // Looked at again, and at all keys: what was created meanwhile, or is beyond --prefix, counts too.
    let remaining = match tally.stop {
        None => Survey::of(&parent, &target, "", pace.patience()).await.ok().map(|survey| survey.elsewhere.len()),
        Some(_) => None,
    };
    let told = json!({
        "kms_key_arn": target,
        "rewrapped": tally.changed,
        "already_there": tally.already_there,
        "failed": tally.failed,
        "damaged": damaged,
        "left": tally.left(),
        "stopped": tally.stop.as_ref().map(|stop| &stop.reason),
        "still_under_other_kms_keys": remaining,
    });
    output::print(json, &told, |_| in_words(&tally, damaged.len(), remaining))?;
    tally.complain();
    for name in &damaged {
        output::note(&format!("damaged: {}: its stored record cannot be read", printable(name)));
    }
    Ok(match (tally.exit(), remaining) {
        (Exit::Done, _) if !damaged.is_empty() => Exit::Failed,
        // Done is what scripts take for "no key needs the old KMS key any more".
        (Exit::Done, Some(1..)) if prefix.is_none() => Exit::Failed,
        (Exit::Done, None) if prefix.is_none() => Exit::Unavailable,
        (exit, _) => exit,
    })
}

fn in_words(tally: &Tally, damaged: usize, remaining: Option<usize>) -> String {
    let (changed, there, failed, total) = (tally.changed, tally.already_there, tally.failed.len(), tally.total);
    let mut text = format!(
        "re-wrapped {changed}, under this KMS key already {there}, failed {failed}, of {total}; damaged {damaged}\n"
    );
    if let Some(remaining) = remaining {
        text +=
            &format!("\nKeys that still name another KMS key: {remaining}, of those that you may read.\n{ROTATION}\n");
    }
    text
}

/// What there is to be done.
struct Survey {
    /// Keys under other KMS keys.
    elsewhere: Vec<Seen>,
    /// How many are under the target.
    there: u64,
    /// Names of records that cannot be read.
    damaged: Vec<String>,
}

/// A key as it was when it was looked at.
struct Seen {
    key_id: KeyId,
    generation: u64,
}

impl Survey {
    async fn of(parent: &Parent, target: &KmsKeyArn, prefix: &str, patience: Duration) -> Result<Self, Failure> {
        let mut survey = Self { elsewhere: Vec::new(), there: 0, damaged: Vec::new() };
        let mut cursor = None;
        loop {
            let page = patiently(patience, || parent.page(PAGE, cursor.as_deref())).await?;
            survey.damaged.extend(page.damaged.into_iter().filter(|name| name.starts_with(prefix)));
            for key in page.keys.into_iter().filter(|key| key.key_id.as_str().starts_with(prefix)) {
                if is_same_key(&key.kms_key_arn, target) {
                    survey.there += 1;
                } else {
                    survey.elsewhere.push(Seen { key_id: key.key_id, generation: key.generation });
                }
            }
            if survey.elsewhere.len() + survey.damaged.len() > MAX_KEYS {
                let text = format!("more than {MAX_KEYS} keys: divide them by --prefix");
                return Err(Failure::new(Exit::Failed, text));
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(survey);
            }
        }
    }
}

/// Asks again, for this long, what may pass.
async fn patiently<T, F>(patience: Duration, ask: impl Fn() -> F) -> Result<T, AskError>
where
    F: Future<Output = Result<T, AskError>>,
{
    let started = Instant::now();
    loop {
        match ask().await {
            Err(error) if error.may_pass() && started.elapsed() < patience => {
                sleep(error.retry_after().unwrap_or(Duration::from_secs(1))).await;
            }
            answer => return answer,
        }
    }
}

/// A multi-Region key has an ARN in each Region, and the enclave writes its own Region's into the record.
pub(super) fn is_same_key(one: &KmsKeyArn, other: &KmsKeyArn) -> bool {
    one == other || one.is_replica_of(other)
}

struct Rewrapping {
    parent: Parent,
    change: Change,
    target: KmsKeyArn,
}

impl Work for Rewrapping {
    type Item = Seen;

    const DONE: &'static str = "re-wrapped";

    fn key_id(item: &Seen) -> &KeyId {
        &item.key_id
    }

    async fn perform(&self, Seen { key_id, generation }: &Seen, line: &Line) -> Result<Done, Trouble> {
        let mut generation = *generation;
        for _ in 0..MAX_LOSSES {
            match line.change(|| self.parent.change(key_id, &self.change, Some(generation))).await {
                Ok(_) => return Ok(Done::Changed),
                Err(Trouble::Refused(error)) if error.slug() == "generation-lost" => {}
                // Deleted since it was looked at: nothing is left to be re-wrapped.
                Err(Trouble::Refused(error)) if error.slug() == "key-not-found" => return Ok(Done::AlreadyThere),
                // The KMS key that the enclave does not know may be this record's, and no other's.
                Err(Trouble::Refused(error)) if error.slug() == "kms-key-not-configured" => {
                    return Err(Trouble::Failed(error.to_string()));
                }
                Err(trouble) => return Err(trouble),
            }
            // Somebody else changed it, or our own call did and its answer was lost.
            let now = line.look(|| self.parent.key(key_id)).await?;
            if is_same_key(&now.kms_key_arn, &self.target) {
                return Ok(Done::Changed);
            }
            generation = now.generation;
        }
        Err(Trouble::Failed(format!("was changed by others {MAX_LOSSES} times while it was to be re-wrapped")))
    }
}
