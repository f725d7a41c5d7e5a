//! `strongroom key export` and `key open-export`: a key on its way home. The first passes on what the enclave sealed to
//! a recipient; the second runs on the recipient's machine, asks nobody, and is where the key is in the clear.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use strongroom_protocol::{KeyId, RecipientName, export_info};
use zeroize::Zeroizing;

use super::exit::{Exit, Failure, Outcome};
use super::files;
use super::key_material::KeyMaterial;
use super::key_material::input;
use super::key_material::sealing::RecipientKey;
use super::output;
use crate::addresses;
use crate::client::Parent;
use crate::http::{ExportedKey, from_hex};

/// Export a key, sealed to a recipient of the enclave's configuration
///
/// Prints the sealed key, as JSON, for `strongroom key open-export` on the recipient's machine; nobody else can open
/// it. Only keys that were created exportable leave, only while the enclave's configuration lists the operation
/// `export`, and only to recipients that it names. Enclave and parent log it. The key stays where it is, too.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:\n  strongroom key export hot-1 --recipient vault > hot-1.export.json"
)]
pub(super) struct Export {
    /// The key
    key_id: KeyId,
    /// Who is to have it, by the name in the enclave's configuration
    #[arg(long, value_name = "NAME")]
    recipient: RecipientName,
}

impl Export {
    pub(super) async fn run(self, parent: &Parent) -> Outcome {
        let exported = parent.export(&self.key_id, &self.recipient).await?;
        output::print(true, &exported, |_| String::new())
    }
}

/// Open an exported key
///
/// Run this on the recipient's machine: it needs the recipient's private key, asks no parent, and the key is in the
/// clear afterwards. The file proves itself: what it opens to is the private key of the public key that it names, or
/// is refused. Compare that public key, or an address, with what you know of the key (--expect-public-key).
///
/// The secret is written in hex: a key's 32 bytes, or a seed's 16 to 64 (of a mnemonic, its BIP-39 seed).
/// `strongroom key import` reads it again.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:\n  strongroom key open-export hot-1.export.json --recipient-key vault.pem --out hot-1.hex"
)]
pub(super) struct OpenExport {
    /// What `strongroom key export` printed; `-` is standard input
    file: PathBuf,
    /// The recipient's private key: X25519 in PEM, as `strongroom recipient new` or openssl writes it
    #[arg(long, value_name = "FILE")]
    recipient_key: PathBuf,
    /// Where the secret is written: a new file that only you can read; `-` is standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Refuse the key unless its public key is this one (hex)
    #[arg(long, value_name = "HEX", value_parser = from_hex)]
    expect_public_key: Option<PublicKeyBytes>,
}

type PublicKeyBytes = Vec<u8>;

impl OpenExport {
    pub(super) fn run(&self, json: bool) -> Outcome {
        let exported = self.read_export()?;
        let recipient = self.read_recipient()?;
        let (public_key, binding, sealed) = exported.parts().ok_or_else(|| self.damaged("a field is not valid"))?;
        let refused = |why: &dyn std::fmt::Display| {
            output::note(&format!("REFUSED  {}: {why}\nNothing was written.", self.file.display()));
            Ok(Exit::Failed)
        };
        if self.expect_public_key.as_ref().is_some_and(|expected| **expected != *public_key) {
            return refused(&"its public key is not the expected one");
        }
        let material = match recipient.open(&export_info(&binding, &exported.recipient), &sealed) {
            Ok(material) => material,
            Err(error) => return refused(&error),
        };
        // Anybody can seal something to the recipient. Only who has the key can seal this key.
        if material.public_key(exported.algorithm).ok().as_ref() != Some(&public_key) {
            return refused(&"what it opens to is not the private key of its public key");
        }
        write_secret(&self.out, &material)?;
        if files::is_standard(&self.out) {
            return Ok(Exit::Done);
        }
        let addresses = addresses::derive(exported.algorithm, &public_key).unwrap_or_default();
        let told = json!({
            "key_id": exported.key_id,
            "algorithm": exported.algorithm,
            "public_key": exported.public_key,
            "addresses": addresses,
            "out": self.out,
        });
        output::print(json, &told, |_| {
            let rows = [
                ("algorithm", exported.algorithm.to_string()),
                ("public key", format!("0x{}", hex::encode(&*public_key))),
            ];
            let addresses = addresses.iter().map(|(chain, address)| ("address", format!("{chain} {address}")));
            let rows = output::rows(rows.into_iter().chain(addresses));
            format!("OPENED  key {}\n\n{rows}\n  The secret is in {}, in hex.\n", exported.key_id, self.out.display())
        })
    }

    fn read_export(&self) -> Result<ExportedKey, Failure> {
        let content = input::read_file(&self.file)?;
        let exported: ExportedKey =
            serde_json::from_slice(&content).map_err(|_| self.damaged("not what `strongroom key export` prints"))?;
        match exported.version {
            ExportedKey::VERSION => Ok(exported),
            _ => Err(self.damaged("of a version that this program does not read")),
        }
    }

    fn read_recipient(&self) -> Result<RecipientKey, Failure> {
        let content = input::read_file(&self.recipient_key)?;
        let key = RecipientKey::from_pem(std::str::from_utf8(&content).unwrap_or_default());
        key.map_err(|error| Failure::usage(format!("{}: {error}", self.recipient_key.display())))
    }

    fn damaged(&self, what: &str) -> Failure {
        Failure::usage(format!("{}: {what}", self.file.display()))
    }
}

/// Writes hex and an end of line.
fn write_secret(path: &Path, material: &KeyMaterial) -> Result<(), Failure> {
    let mut text = Zeroizing::new(vec![b'\n'; material.expose().len() * 2 + 1]);
    if let Some((_, digits)) = text.split_last_mut() {
        hex::encode_to_slice(material.expose(), digits).map_err(|error| Failure::new(Exit::Failed, error))?;
    }
    files::write_private(path, &text)
}
