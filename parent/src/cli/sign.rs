//! `strongroom key sign` and `key attest`: one signature, one document. Neither is judged here: who needs to know
//! whether an enclave made it verifies it (`key verify`).

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use strongroom_protocol::{DerivationPath, HashFunction, KeyId, MAX_MESSAGE, Scheme};

use super::attestation::nonce_or_random;
use super::exit::{Failure, Outcome};
use super::{files, hex_text, output, words};
use crate::client::{Parent, SignPayload, ToSign, printable};

/// Sign one message or digest
///
/// A message is hashed in the enclave; for a secp256k1 key --hash says how. A digest is 32 bytes that you
/// hashed, for secp256k1 keys whose policy allows digests. The signature is 64 bytes: r and s (ecdsa, low s,
/// with a recovery id), BIP-340, or Ed25519.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  strongroom key sign hot-1 --message 0x68656c6c6f --hash keccak256\n  \
                        strongroom key sign sol-1 --message-file transaction.bin --json | jq -r .signature\n  \
                        printf hello | strongroom key sign sol-1 --message-file -"
)]
pub(super) struct Sign {
    /// The key
    key_id: KeyId,
    #[command(flatten)]
    payload: PayloadArguments,
    /// How the enclave hashes the message: required for secp256k1, refused for ed25519
    #[arg(long, conflicts_with = "digest", value_parser = words::<HashFunction>(&["keccak256", "sha256", "sha256d"]))]
    hash: Option<HashFunction>,
    /// The signature scheme [default: ecdsa for secp256k1, ed25519 for ed25519]
    #[arg(long, value_parser = words::<Scheme>(&["ecdsa", "bip340", "ed25519"]))]
    scheme: Option<Scheme>,
    /// The key below a seed that signs, such as m/44'/60'/0'/0/5: required for seed keys, refused for others
    #[arg(long)]
    path: Option<DerivationPath>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PayloadArguments {
    /// The message, in hex
    #[arg(long, value_name = "HEX", value_parser = hex_text)]
    message: Option<String>,
    /// A file with the message, byte for byte; `-` is standard input
    #[arg(long, value_name = "FILE")]
    message_file: Option<PathBuf>,
    /// 32 bytes that you hashed, in hex
    #[arg(long, value_name = "HEX", value_parser = hex_text)]
    digest: Option<String>,
}

/// Derive the public key at a path below a seed
///
/// The enclave derives it, and its addresses, if the seed's policy allows the path. What is printed is the
/// parent's word: before anything is sent to an address, let the key at that path sign something, and verify
/// the signature with the public key.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:\n  strongroom key public-key seed-1 --path \"m/44'/60'/0'/0/5\""
)]
pub(super) struct PublicKeyAt {
    /// The seed
    key_id: KeyId,
    /// Where the key lies, such as m/44'/60'/0'/0/5
    #[arg(long)]
    path: DerivationPath,
}

impl PublicKeyAt {
    pub(super) async fn run(self, parent: &Parent, json: bool) -> Outcome {
        let derived = parent.public_key(&self.key_id, &self.path).await?;
        output::print(json, &derived, |derived| {
            let addresses = derived.addresses.iter().map(|(chain, address)| format!("{chain} {address}"));
            let addresses: Vec<_> = addresses.map(|address| ("address", printable(&address))).collect();
            let path = ("path", derived.path.to_string());
            output::rows([path, ("public key", printable(&derived.public_key))].into_iter().chain(addresses))
        })
    }
}

/// Fetch an attestation document
///
/// With a key: the enclave opens the key's record and vouches for what it opened. Without: for the enclave
/// alone. Prints the document (a COSE_Sign1 in base64), the nonce that it was made for and the registers in
/// it. Nothing of it is verified: `strongroom key verify` does that.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  strongroom key attest\n  \
                        strongroom key attest hot-1 --nonce 0x00c0ffee --json | jq -r .document | base64 -d"
)]
pub(super) struct Attest {
    /// The key; absent: the enclave alone
    key_id: Option<KeyId>,
    /// 1 to 512 bytes, in hex, that stand in the document [default: 32 random bytes]
    #[arg(long, value_name = "HEX", value_parser = hex_text)]
    nonce: Option<String>,
}

impl Sign {
    pub(super) async fn run(self, parent: &Parent, json: bool) -> Outcome {
        let Self { key_id, payload, hash, scheme, path } = self;
        let payload = match (payload.message, payload.message_file, payload.digest) {
            (Some(message), ..) => SignPayload::Message { message, hash },
            (_, Some(path), _) => SignPayload::Message { message: read_message(&path)?, hash },
            (.., Some(digest)) => SignPayload::Digest { digest },
            (None, None, None) => return Err(Failure::usage("nothing to sign")),
        };
        let signed = parent.sign(&key_id, &ToSign { payload, scheme, path }).await?;
        output::print(json, &signed, |signed| {
            let recovery_id = signed.recovery_id.map(|id| ("recovery id", id.to_string()));
            let rows = [("signature", printable(&signed.signature))]
                .into_iter()
                .chain(recovery_id)
                .chain(signed.public_key.as_ref().map(|public_key| ("public key", printable(public_key))))
                .chain([("request", printable(&signed.request_id))]);
            output::rows(rows)
        })
    }
}

fn read_message(path: &Path) -> Result<String, Failure> {
    Ok(format!("0x{}", hex::encode(files::read(path, MAX_MESSAGE)?)))
}

impl Attest {
    pub(super) async fn run(self, parent: &Parent, json: bool) -> Outcome {
        let nonce = nonce_or_random(self.nonce)?;
        let evidence = parent.attest(self.key_id.as_ref(), &nonce).await?;
        let told = json!({ "nonce": nonce, "document": evidence.document, "pcrs": evidence.pcrs });
        output::print(json, &told, |_| {
            // PCR2 before PCR10.
            let mut pcrs: Vec<_> = evidence.pcrs.iter().collect();
            pcrs.sort_by_key(|(name, _)| (name.len(), *name));
            let pcrs: Vec<_> = pcrs.into_iter().map(|(name, pcr)| (printable(name), printable(pcr))).collect();
            let pcrs = output::rows(pcrs.iter().map(|(name, pcr)| (name.as_str(), pcr.clone())));
            let nonce = output::rows([("nonce", nonce.clone())]);
            format!("{nonce}{pcrs}\n{}\n", printable(&evidence.document))
        })
    }
}
