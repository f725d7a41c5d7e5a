//! `strongroom key import`: seals a custodian's key to an enclave that was verified here, and ends well only if the
//! enclave then vouches for exactly that key. Runs where the key is; what it asks passes through a parent that sees
//! sealed bytes only.

use std::path::PathBuf;

use clap::Args;
use strongroom_protocol::{Algorithm, ImportKeyId, KeyDescription, KeyId, KmsKeyArn, Origin};

use super::enclave::{EnclaveArguments, nothing_found_out};
use super::exit::{Exit, Failure, Outcome};
use super::key_material::formats::{Format, read};
use super::key_material::input::{self, PasswordArguments};
use super::key_material::sealing::seal;
use super::policy::PolicyArguments;
use super::{ALGORITHMS, output, words};
use crate::client::{KeyToImport, Parent};
use crate::verify::{Inquiry, Refusal, Report, VerifyError};

/// Import a key that you have, end to end encrypted
///
/// Run this on the machine where the key is, the custodian's, and not on the parent's host: the key is in
/// the clear here, and only here.
///
/// The enclave offers an import key in an attestation document, which is verified on this machine: AWS's
/// certificate chain, freshness, and that image and configuration (PCR0 and PCR16) are the expected ones. The
/// key is sealed to it together with its id, algorithm and policy (HPKE, RFC 9180), so that the parent in
/// between can neither read it nor make something else of it. The command succeeds only if the enclave then
/// vouches for this very key and policy. Its configuration must list the operation `import`.
///
/// The format is recognised: hex; PEM as openssl writes it (SEC1, PKCS#8); Ethereum keystore (V3), with its
/// password; Solana keypair file; BIP-39 mnemonic (English), which makes a seed. Destroy the file, or lock it
/// away, once you have verified the key and seen it sign: whoever has it has the key.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  \
        strongroom key import hot-1 --algorithm secp256k1 --file key.json --pcrs pcrs.json --url https://strongroom.internal:8443\n  \
        strongroom key import seed-1 --algorithm bip32-secp256k1 --paths \"m/44'/60'/0'\" --file words.txt \\\n      \
        --pcrs pcrs.json --enclave-config enclave.json\n  \
        openssl pkey -in encrypted.pem | strongroom key import sol-1 --algorithm ed25519 --file - --pcrs pcrs.json"
)]
pub(super) struct Import {
    /// The new key's id: [A-Za-z0-9][A-Za-z0-9._-]{0,63}
    key_id: KeyId,
    /// Curve and key type; the last two are seeds, below which keys lie at paths
    #[arg(long, value_parser = words::<Algorithm>(&ALGORITHMS))]
    algorithm: Algorithm,
    /// The file with the key; `-` is standard input
    #[arg(long)]
    file: PathBuf,
    /// What the file is [default: recognised]
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    password: PasswordArguments,
    /// The KMS key that wraps it [default: the first of the enclave's configuration]
    #[arg(long, value_name = "ARN")]
    kms_key_arn: Option<KmsKeyArn>,
    #[command(flatten)]
    policy: PolicyArguments,
    #[command(flatten)]
    enclave: EnclaveArguments,
}

impl Import {
    pub(super) async fn run(self, parent: &Parent, json: bool) -> Outcome {
        let Self { key_id, algorithm, file, format, password, kms_key_arn, policy, enclave } = self;
        let policy = policy.policy(algorithm)?;
        let enclave = enclave.read()?;
        let unreadable = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", file.display()));
        let content = input::read_file(&file)?;
        let format = match format {
            Some(format) => format,
            None => Format::recognise(&content).map_err(|error| unreadable(&error))?,
        };
        let password = password.read(format, &file)?;
        let material = read(&content, format, algorithm, password.as_ref()).map_err(|error| unreadable(&error))?;
        drop((content, password));
        let public_key = material.public_key(algorithm).map_err(|error| unreadable(&error))?;

        // The import key comes last: it waits for minutes, and passwords are typed slowly.
        let import_key = match enclave.import_key(parent).await {
            Ok(import_key) => import_key,
            Err(VerifyError::Refused(refusal)) => {
                output::note(&format!("REFUSED  the import key: {refusal}\nNothing was sealed, and nothing was sent."));
                return Ok(Exit::Failed);
            }
            Err(error) => return Err(nothing_found_out(error)),
        };
        let description = KeyDescription { key_id, algorithm, policy, kms_key_arn };
        let id = ImportKeyId::of(&import_key.public_key);
        let sealed = seal(&import_key.public_key, &description.import_info(&id, &import_key.nonce), &material);
        let sealed = sealed.map_err(|error| Failure::new(Exit::Failed, error))?;
        drop(material);
        let KeyDescription { key_id, algorithm, policy, kms_key_arn } = description;
        let key = KeyToImport {
            import_key_id: format!("0x{}", hex::encode(*id.0)),
            algorithm,
            policy: policy.clone(),
            kms_key_arn,
            encapsulated_key: format!("0x{}", hex::encode(*sealed.encapsulated_key)),
            ciphertext: format!("0x{}", hex::encode(&*sealed.ciphertext)),
        };
        parent.import(&key_id, &key).await?;
        let inquiry = Inquiry { key_id: &key_id, enclave: &enclave, expect_public_key: Some(&public_key) };
        conclude(&inquiry, parent, json, |report| {
            let key = &report.key;
            (key.algorithm, key.origin, &key.policy) == (algorithm, Origin::Imported, &policy)
        })
        .await
    }
}

/// The end of an import and of an adoption: what the enclave vouches for now must be what was brought.
pub(super) async fn conclude(
    inquiry: &Inquiry<'_>,
    parent: &Parent,
    json: bool,
    is_what_was_brought: impl FnOnce(&Report) -> bool,
) -> Outcome {
    let Inquiry { key_id, .. } = inquiry;
    let refusal = match inquiry.run(parent).await {
        Ok(report) if is_what_was_brought(&report) => return output::print(json, &report, ToString::to_string),
        Ok(_) => Refusal::OtherKey,
        Err(VerifyError::Refused(refusal)) => refusal,
        Err(error) => {
            output::note(&format!(
                "The parent has taken the key {key_id}. Whether it is what was brought is not known:"
            ));
            return Err(nothing_found_out(error));
        }
    };
    output::note(&format!(
        "REFUSED  key {key_id}: {refusal}\nWhat the parent has stored under this name is not what was brought."
    ));
    Ok(Exit::Failed)
}
