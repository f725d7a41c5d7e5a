//! `strongroom key export` and `key open-export`: a key on its way home. The first prints what the enclave sealed to a
//! recipient, once it is verified; the second runs on the recipient's machine, asks nobody, and is where the key is in
//! the clear.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use strongroom_protocol::{KeyId, RecipientName, export_info};
use zeroize::Zeroizing;

use super::enclave::{EnclaveArguments, no_verdict};
use super::exit::{Exit, Failure, Outcome};
use super::expected::{ExpectedArguments, check_expected};
use super::files;
use super::key_material::KeyMaterial;
use super::key_material::input;
use super::key_material::sealing::RecipientKey;
use super::output;
use crate::addresses;
use crate::client::Parent;
use crate::http::ExportedKey;
use crate::verify::VerifyError;

/// Export a key, sealed to a recipient of the enclave's configuration
///
/// Prints the sealed key, as JSON, for `strongroom key open-export` on the recipient's machine; nobody else can open
/// it. Only keys that were created exportable leave, only while the enclave's configuration lists the operation
/// `export`, and only to recipients that it names. The key stays where it is, too.
///
/// The export is verified before it is printed: an attestation document, checked here as `key verify` does, says that
/// the expected enclave sealed this key to this recipient in exactly these bytes. Which key has this id, only its
/// public key or an address tells: compare them, or say which one it must be.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:\n  strongroom key export hot-1 --recipient vault --pcrs pcrs.json \\\n      \
                  --expect-address 0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf > hot-1.export.json"
)]
pub(super) struct Export {
    /// The key
    key_id: KeyId,
    /// Who is to have it, by the name in the enclave's configuration
    #[arg(long, value_name = "NAME")]
    recipient: RecipientName,
    #[command(flatten)]
    expected: ExpectedArguments,
    #[command(flatten)]
    enclave: EnclaveArguments,
}

impl Export {
    pub(super) async fn run(self, parent: &Parent) -> Outcome {
        let Self { key_id, recipient, expected, enclave } = self;
        let (enclave, expected) = (enclave.read()?, expected.parse()?);
        let refused = |why: &dyn std::fmt::Display| {
            output::note(&format!("REFUSED  the export of {key_id}: {why}\nNothing was printed."));
            Ok(Exit::Failed)
        };
        let (export, public_key) = match enclave.export(parent, &key_id, &recipient).await {
            Ok(verified) => verified,
            Err(VerifyError::Refused(refusal)) => return refused(&refusal),
            Err(error) => return Err(no_verdict(error)),
        };
        if let Some(expected) = expected
            && let Err(wrong) = check_expected(&expected, export.algorithm, &public_key)
        {
            return refused(&wrong);
        }
        let public_key = format!("0x{}", hex::encode(&*public_key));
        output::note(&format!("VERIFIED  sealed to {recipient}: the key {key_id} with the public key {public_key}"));
        output::print(true, &export, |_| String::new())
    }
}

/// Open an exported key
///
/// Run this on the recipient's machine: it needs the recipient's private key, asks no parent, and the key is in the
/// clear afterwards. Anybody can seal something to a recipient, so you say which key it must be (--expect-address or
/// --expect-public-key, from your own records and not from the file): what the file opens to is the private key of
/// that one, or is refused.
///
/// The secret is written in hex: a key's 32 bytes, or a seed's 16 to 64 (of a mnemonic, its BIP-39 seed).
/// `strongroom key import` reads it again.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:\n  strongroom key open-export hot-1.export.json --recipient-key vault.pem --out hot-1.hex \\\n      \
                  --expect-address 0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
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
    #[command(flatten)]
    expected: ExpectedArguments,
}

impl OpenExport {
    pub(super) fn run(&self, json: bool) -> Outcome {
        if files::is_standard(&self.file) && files::is_standard(&self.recipient_key) {
            return Err(Failure::usage("the export and --recipient-key cannot both be standard input"));
        }
        let expected = self.expected.demand()?;
        let exported = self.read_export()?;
        let recipient = self.read_recipient()?;
        let (public_key, binding, sealed) = exported.parts().ok_or_else(|| self.damaged("a field is not valid"))?;
        let refused = |why: &dyn std::fmt::Display| {
            output::note(&format!("REFUSED  {}: {why}\nNothing was written.", self.file.display()));
            Ok(Exit::Failed)
        };
        if let Err(wrong) = check_expected(&expected, exported.algorithm, &public_key) {
            return refused(&wrong);
        }
        let material = match recipient.open(&export_info(&binding, &exported.recipient), &sealed) {
            Ok(material) => material,
            Err(error) => {
                let own = recipient.public_key().map(|key| hex::encode(*key)).unwrap_or_default();
                return refused(&format!(
                    "{error}. It says that it is for {}; the public key of the --recipient-key is 0x{own}",
                    exported.recipient
                ));
            }
        };
        // Whoever seals something to the recipient can say of it what they like. Only who has the key can seal it.
        if material.public_key(exported.algorithm).ok().as_ref() != Some(&public_key) {
            return refused(&"what it opens to is not the private key of its public key");
        }
        write_secret(&self.out, &material)?;
        let addresses = addresses::derive(exported.algorithm, &public_key).unwrap_or_default();
        let told = json!({
            "key_id": exported.key_id,
            "algorithm": exported.algorithm,
            "public_key": exported.public_key,
            "addresses": addresses,
            "policy": exported.policy,
            "out": self.out,
        });
        let text = || {
            let addresses = addresses.iter().map(|(chain, address)| ("address", format!("{chain} {address}")));
            let rows = [
                ("algorithm", exported.algorithm.to_string()),
                ("public key", format!("0x{}", hex::encode(&*public_key))),
                ("policy", exported.policy.canonical_json()),
            ];
            let rows = output::rows(rows.into_iter().chain(addresses));
            let place = if files::is_standard(&self.out) {
                "on standard output".to_owned()
            } else {
                format!("in {}", self.out.display())
            };
            format!(
                "OPENED  key {}\n\n{rows}\n  The secret is {place}, in hex. It had this policy in the enclave.",
                exported.key_id
            )
        };
        if files::is_standard(&self.out) {
            output::note(&text());
            return Ok(Exit::Done);
        }
        output::print(json, &told, |_| text() + "\n")
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
