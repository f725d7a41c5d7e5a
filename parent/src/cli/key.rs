//! `strongroom key …`: the commands that ask a running parent, and what they have in common: one connection, one
//! runtime, one way to print. What each does is in the file of its name.

use clap::{Args, Subcommand};
use strongroom_protocol::KeyId;

use super::adopt::Adopt;
use super::change::{self, At, Delete, ScheduleDeletion};
use super::connection::Connection;
use super::create::Create;
use super::exit::Outcome;
use super::export::{Export, OpenExport};
use super::import::Import;
use super::list::List;
use super::output;
use super::rewrap::Rewrap;
use super::runtime;
use super::sign::{Attest, PublicKeyAt, Sign};
use super::verify::Verify;
use crate::client::Parent;

/// Create, list, change, use and verify keys of a running parent
///
/// Every command asks a parent over its REST API: the one on this machine, unless --url or STRONGROOM_URL
/// names another. A parent with identities wants a token (STRONGROOM_TOKEN, --token-file) or a client
/// certificate; what it permits is up to the identity: `read` for list, show, public-key, attest and verify, `sign` for
/// sign, `manage` for everything that creates, changes or exports keys. Commands over many keys read as well.
///
/// Results go to standard output, as text or, with --json, as JSON; everything else goes to standard error.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    arg_required_else_help = true,
    after_help = super::exit::help()
        + "\nExamples:\n  \
           strongroom key create hot-1 --algorithm secp256k1\n  \
           strongroom key verify hot-1 --pcrs pcrs.json\n  \
           strongroom key sign hot-1 --message 0x68656c6c6f --hash keccak256\n  \
           STRONGROOM_URL=https://strongroom.internal:8443 strongroom key list --ca ca.pem --token-file token"
)]
pub(super) struct KeyArguments {
    #[command(flatten)]
    connection: Connection,
    /// Print JSON
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    Create(Create),
    List(List),
    Show(Show),
    Sign(Sign),
    PublicKey(PublicKeyAt),
    /// Let a disabled key sign again
    ///
    /// Nothing changes if the key is enabled already. A key that is to be deleted is first kept by
    /// cancel-deletion, and then enabled.
    #[command(verbatim_doc_comment, after_help = "Example:\n  strongroom key enable hot-1")]
    Enable(At),
    /// Stop a key from signing
    ///
    /// The parent refuses to sign with it from now on; other parents on the same store notice within their
    /// cache's expiry (limits.cache_seconds). This is the parent's word, and the parent is not trusted: what
    /// stops a key for certain is a Deny on its encryption context in the KMS key's policy (SECURITY.md).
    #[command(
        verbatim_doc_comment,
        after_help = "Examples:\n  strongroom key disable hot-1\n  strongroom key disable hot-1 --generation 4"
    )]
    Disable(At),
    ScheduleDeletion(ScheduleDeletion),
    /// Keep a key that was to be deleted
    ///
    /// The key is disabled afterwards; `strongroom key enable` lets it sign again.
    #[command(verbatim_doc_comment, after_help = "Example:\n  strongroom key cancel-deletion hot-1")]
    CancelDeletion(At),
    Delete(Delete),
    Rewrap(Rewrap),
    Import(Import),
    Adopt(Adopt),
    Export(Export),
    OpenExport(OpenExport),
    Attest(Attest),
    Verify(Verify),
}

/// Show a key
///
/// Prints what the parent says of the key. Before you send anything to an address, verify the key:
/// `strongroom key verify`.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  strongroom key show hot-1\n  \
                        strongroom key show hot-1 --json | jq -r .addresses.ethereum"
)]
struct Show {
    /// The key
    key_id: KeyId,
}

/// Runs one command against its parent.
pub(super) fn run(KeyArguments { connection, json, command }: KeyArguments) -> Outcome {
    let parent = connection.parent();
    let runtime = runtime()?;
    runtime.block_on(async {
        match command {
            KeyCommand::Create(create) => create.run(parent?, json).await,
            KeyCommand::List(list) => list.run(&parent?, json).await,
            KeyCommand::Show(Show { key_id }) => show(&parent?, &key_id, json).await,
            KeyCommand::Sign(sign) => sign.run(&parent?, json).await,
            KeyCommand::PublicKey(at) => at.run(&parent?, json).await,
            KeyCommand::Enable(at) => change::enable(&parent?, &at, json).await,
            KeyCommand::Disable(at) => change::disable(&parent?, &at, json).await,
            KeyCommand::ScheduleDeletion(schedule) => schedule.run(&parent?, json).await,
            KeyCommand::CancelDeletion(at) => change::cancel_deletion(&parent?, &at, json).await,
            KeyCommand::Delete(delete) => delete.run(&parent?, json).await,
            KeyCommand::Rewrap(rewrap) => rewrap.run(parent?, json).await,
            KeyCommand::Import(import) => import.run(&parent?, json).await,
            KeyCommand::Adopt(adopt) => adopt.run(&parent?, json).await,
            KeyCommand::Export(export) => export.run(&parent?).await,
            KeyCommand::OpenExport(open) => open.run(json),
            KeyCommand::Attest(attest) => attest.run(&parent?, json).await,
            KeyCommand::Verify(verify) => verify.run(&parent?, json).await,
        }
    })
}

async fn show(parent: &Parent, key_id: &KeyId, json: bool) -> Outcome {
    output::print(json, &parent.key(key_id).await?, output::card)
}
