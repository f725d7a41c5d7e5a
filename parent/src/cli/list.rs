//! `strongroom key list`: all pages, each printed as it comes, so that thousands of keys are neither waited for nor
//! kept.

use clap::{Args, ValueEnum};
use strongroom_protocol::KmsKeyArn;

use super::exit::{Exit, Failure, Outcome};
use super::output;
use crate::client::{Parent, printable};
use crate::http::KeyView;

/// List keys
///
/// Goes through all keys that the identity may read. People get a table, in the store's order; with --json
/// there is one key per line (JSON Lines), each as `key show` prints it. Keys whose stored record is damaged
/// are named on standard error: the others are listed all the same, and the exit code is 1.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  strongroom key list --state disabled\n  \
                        strongroom key list --json | jq -r '[.key_id, .addresses[]] | @tsv'"
)]
pub(super) struct List {
    /// Stop after this many keys
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only keys in this state
    #[arg(long)]
    state: Option<StateFilter>,
    /// Only keys that this KMS key wraps
    #[arg(long, value_name = "ARN")]
    kms_key_arn: Option<KmsKeyArn>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum StateFilter {
    Enabled,
    Disabled,
    PendingDeletion,
}

/// Keys asked for at a time.
pub(super) const PAGE: usize = 500;

impl List {
    pub(super) async fn run(&self, parent: &Parent, json: bool) -> Outcome {
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut table = Table::default();
        let mut exit = Exit::Done;
        let mut cursor = None;
        loop {
            let page = parent.page(self.page_size(left), cursor.as_deref()).await?;
            for name in &page.damaged {
                output::note(&format!("damaged: {}: its stored record cannot be read", printable(name)));
                exit = Exit::Failed;
            }
            let mut keys: Vec<KeyView> = page.keys.into_iter().filter(|key| self.wants(key)).collect();
            keys.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left = left.saturating_sub(keys.len() as u64);
            let text = if json { lines(&keys)? } else { table.page(&keys) };
            cursor = page.next_cursor;
            // A reader that went away needs no more pages.
            if !output::say(&text) || left == 0 || cursor.is_none() {
                break;
            }
        }
        if !json && table.is_empty() {
            output::note("no keys");
        }
        Ok(exit)
    }

    fn page_size(&self, left: u64) -> usize {
        let filtered = self.state.is_some() || self.kms_key_arn.is_some();
        if filtered { PAGE } else { usize::try_from(left).unwrap_or(PAGE).min(PAGE) }
    }

    fn wants(&self, key: &KeyView) -> bool {
        let state = match self.state {
            None => None,
            Some(StateFilter::Enabled) => Some("enabled"),
            Some(StateFilter::Disabled) => Some("disabled"),
            Some(StateFilter::PendingDeletion) => Some("pending_deletion"),
        };
        state.is_none_or(|state| state == output::word(&key.state))
            && self.kms_key_arn.as_ref().is_none_or(|arn| *arn == key.kms_key_arn)
    }
}

fn lines(keys: &[KeyView]) -> Result<String, Failure> {
    keys.iter().map(|key| output::json_line(key).map(|line| line + "\n")).collect()
}

/// A table whose columns only grow: what is printed cannot be aligned anew.
#[derive(Debug, Default)]
struct Table {
    widths: [usize; 5],
    started: bool,
}

const TITLES: [&str; 6] = ["KEY ID", "STATE", "ALGORITHM", "GENERATION", "CREATED", "ADDRESS"];

impl Table {
    const fn is_empty(&self) -> bool {
        !self.started
    }

    /// The rows of these keys, after the titles if they are the first.
    fn page(&mut self, keys: &[KeyView]) -> String {
        let mut rows: Vec<[String; 6]> = keys.iter().map(row).collect();
        if !self.started && !rows.is_empty() {
            self.started = true;
            rows.insert(0, TITLES.map(str::to_owned));
        }
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[String; 6]) -> String {
        // The last column is as wide as it is.
        let widths = self.widths.iter().copied().chain([0]);
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        format!("{}\n", line.trim_end())
    }
}

fn row(key: &KeyView) -> [String; 6] {
    let addresses: Vec<&str> = key.addresses.values().map(String::as_str).collect();
    [
        key.key_id.to_string(),
        output::word(&key.state),
        key.algorithm.to_string(),
        key.generation.to_string(),
        printable(&key.created_at),
        printable(&addresses.join(" ")),
    ]
}
