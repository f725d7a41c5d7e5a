//! `strongroom key create`: one key, or thousands. Of thousands, a key that exists is as good as a new one if the
//! parent shows that it is what was asked; otherwise it is named.

use clap::Args;
use serde_json::json;
use strongroom_protocol::{Algorithm, KeyId, KmsKeyArn, Policy};

use super::bulk::{self, Done, Line, Pace, Trouble, Work};
use super::exit::{Failure, Outcome};
use super::policy::PolicyArguments;
use super::rewrap::is_same_key;
use super::{ALGORITHMS, output, words};
use crate::client::{NewKey, Parent};
use crate::http::KeyView;

/// Create a key, or many
///
/// The key is made in the enclave and its record is stored before the command ends. Its policy is bound to it
/// for ever: what it may sign, and for how long an opened key may stay in the enclave's memory. One key per
/// chain: a policy does not tell chains apart.
///
/// With --count and --prefix, many keys are created, in parallel: their ids are the prefix and six digits,
/// from --first on. A key that exists counts as there already if it has the algorithm, the policy and (if
/// named) the KMS key that are asked for; otherwise it is named at the end, and the exit code is 1. Ctrl-C
/// stops between two calls. The same command again creates what is missing, however the last run ended.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  strongroom key create hot-1 --algorithm secp256k1\n  \
                        strongroom key create btc-1 --algorithm secp256k1 --payloads digest --hold-seconds 60\n  \
                        strongroom key create seed-1 --algorithm bip32-secp256k1 --paths \"m/44'/60'/0'\" --hold-seconds 60\n  \
                        strongroom key create --count 5000 --prefix user- --algorithm ed25519"
)]
pub(super) struct Create {
    /// The new key's id: [A-Za-z0-9][A-Za-z0-9._-]{0,63}
    #[arg(required_unless_present = "count", conflicts_with_all = ["count", "prefix", "first"])]
    key_id: Option<KeyId>,
    /// Curve and key type; the last two are seeds, below which keys lie at paths
    #[arg(long, value_parser = words::<Algorithm>(&ALGORITHMS))]
    algorithm: Algorithm,
    /// The KMS key that wraps it [default: the first of the enclave's configuration]
    #[arg(long, value_name = "ARN")]
    kms_key_arn: Option<KmsKeyArn>,
    /// Create so many keys
    #[arg(long, help_heading = "Bulk", value_name = "N", requires = "prefix", value_parser = clap::value_parser!(u32).range(1..=MAX_NUMBER))]
    count: Option<u32>,
    /// What their ids begin with
    #[arg(long, help_heading = "Bulk", value_name = "P", requires = "count")]
    prefix: Option<String>,
    /// The number of the first one
    #[arg(long, help_heading = "Bulk", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=MAX_NUMBER))]
    first: u32,
    #[command(flatten)]
    policy: PolicyArguments,
    #[command(flatten)]
    pace: Pace,
}

/// Six digits.
const MAX_NUMBER: i64 = 999_999;

impl Create {
    pub(super) async fn run(self, parent: Parent, json: bool) -> Outcome {
        let Self { key_id, algorithm, kms_key_arn, count, prefix, first, policy, pace } = self;
        let policy = policy.policy(algorithm)?;
        if let Some(key_id) = key_id {
            let key = parent.create(&NewKey { key_id, algorithm, kms_key_arn, policy }).await?;
            return output::print(json, &key, output::card);
        }
        let ids = numbered(&prefix.unwrap_or_default(), first, count.unwrap_or_default())?;
        let tally = bulk::run(Creation { parent, algorithm, kms_key_arn, policy }, ids, &pace).await;
        let told = json!({
            "created": tally.changed,
            "already_there": tally.already_there,
            "failed": tally.failed,
            "left": tally.left(),
            "stopped": tally.stop.as_ref().map(|stop| &stop.reason),
        });
        output::print(json, &told, |_| {
            let (changed, there, failed, total) = (tally.changed, tally.already_there, tally.failed.len(), tally.total);
            format!("created {changed}, there already {there}, failed {failed}, of {total}\n")
        })?;
        tally.complain();
        Ok(tally.exit())
    }
}

/// `hot-000001`, `hot-000002`, …
fn numbered(prefix: &str, first: u32, count: u32) -> Result<Vec<KeyId>, Failure> {
    let end = first.saturating_add(count);
    if i64::from(end) > MAX_NUMBER + 1 {
        return Err(Failure::usage("--first and --count: the numbers have six digits, up to 999999"));
    }
    let id = |number| format!("{prefix}{number:06}").parse::<KeyId>();
    (first..end).map(|number| id(number).map_err(|error| Failure::usage(format!("--prefix: {error}")))).collect()
}

/// Creates keys that differ in nothing but their ids.
struct Creation {
    parent: Parent,
    algorithm: Algorithm,
    kms_key_arn: Option<KmsKeyArn>,
    policy: Policy,
}

impl Work for Creation {
    type Item = KeyId;

    const DONE: &'static str = "created";

    fn key_id(item: &KeyId) -> &KeyId {
        item
    }

    async fn perform(&self, key_id: &KeyId, line: &Line) -> Result<Done, Trouble> {
        let new = NewKey {
            key_id: key_id.clone(),
            algorithm: self.algorithm,
            kms_key_arn: self.kms_key_arn.clone(),
            policy: self.policy.clone(),
        };
        match line.change(|| self.parent.create(&new)).await {
            Ok(_) => Ok(Done::Changed),
            // It may be ours, of an earlier run or of a call whose answer was lost.
            Err(Trouble::Refused(error)) if error.slug() == "key-exists" => {
                let there = line.look(|| self.parent.key(key_id)).await?;
                match self.difference(key_id, &there) {
                    None => Ok(Done::AlreadyThere),
                    Some(difference) => Err(Trouble::Failed(format!("exists with {difference}"))),
                }
            }
            Err(trouble) => Err(trouble),
        }
    }
}

impl Creation {
    fn difference(&self, key_id: &KeyId, there: &KeyView) -> Option<&'static str> {
        if there.key_id != *key_id {
            Some("another id, says the parent")
        } else if there.algorithm != self.algorithm {
            Some("another algorithm")
        } else if there.policy != self.policy {
            Some("another policy")
        } else if self.kms_key_arn.as_ref().is_some_and(|arn| !is_same_key(arn, &there.kms_key_arn)) {
            Some("another KMS key")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_prefix_and_six_digits() {
        let ids = numbered("hot-", 9, 2).expect("valid");
        assert_eq!(ids.iter().map(KeyId::as_str).collect::<Vec<_>>(), ["hot-000009", "hot-000010"]);
        assert_eq!(numbered("", 0, 1).expect("valid").len(), 1);
        assert_eq!(numbered("a", 999_999, 1).expect("valid").len(), 1);
        for (prefix, first, count) in [("a", 999_999, 2), ("-a", 1, 1), ("a/", 1, 1), (&*"x".repeat(59), 1, 1)] {
            assert!(numbered(prefix, first, count).is_err(), "{prefix} {first} {count}");
        }
    }
}
