//! `strongroom key import`: seals a custodian's key to an enclave that was verified here, and ends well only if the
//! enclave then vouches for exactly that key. Runs where the key is; what it asks passes through a parent that sees
//! sealed bytes only.

use std::path::{Path, PathBuf};

use clap::Args;
use strongroom_protocol::{Algorithm, ExpectedKey, ImportKeyId, KeyDescription, KeyId, KmsKeyArn, Origin, PublicKey};

use super::enclave::{EnclaveArguments, no_verdict, nothing_found_out};
use super::exit::{Exit, Failure, Outcome};
use super::expected::{ExpectedArguments, check_expected};
use super::key_material::KeyMaterial;
use super::key_material::formats::{Format, read};
use super::key_material::input::{self, PasswordArguments};
use super::key_material::sealing::seal;
use super::policy::PolicyArguments;
use super::{ALGORITHMS, output, words};
use crate::client::{AskError, KeyToImport, Parent, Problem};
use crate::http::KeyView;
use crate::verify::{ExpectedEnclave, Inquiry, OfferedKey, VerifyError};

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
/// password; Solana keypair file; BIP-39 mnemonic (English), which makes a seed. A wrong passphrase makes
/// another seed, and no error: say with --expect-public-key or --expect-address which key it must be.
///
/// Keep the file until the key is verified and has signed under the configuration of every day, not only
/// under the ceremony's. Then destroy it, or lock it away: whoever has it has the key.
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
    #[command(flatten)]
    expected: ExpectedArguments,
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
        let Self { key_id, algorithm, file, format, password, expected, kms_key_arn, policy, enclave } = self;
        let policy = policy.policy(algorithm)?;
        let enclave = enclave.read()?;
        let (material, public_key) = read_key(&file, format, algorithm, &password)?;
        if let Some(expected) = expected.parse()? {
            check_expected(&expected, algorithm, &public_key)
                .map_err(|wrong| Failure::usage(format!("{}: {wrong}", file.display())))?;
        }

        check_name_is_free(parent, &key_id).await?;
        // The import key comes last: it waits for minutes, and passwords are typed slowly.
        let import_key = match enclave.import_key(parent).await {
            Ok(import_key) => import_key,
            Err(VerifyError::Refused(refusal)) => {
                output::note(&format!("REFUSED  the import key: {refusal}\nNothing was sealed, and nothing was sent."));
                return Ok(Exit::Failed);
            }
            Err(error) => return Err(no_verdict(error)),
        };
        let description = KeyDescription { key_id, algorithm, policy, kms_key_arn };
        let key = sealed(&description, &import_key, &material)?;
        drop(material);
        let brought = Brought {
            description: &description,
            origin: Origin::Imported,
            expected: ExpectedKey::PublicKey(public_key),
        };
        brought.conclude(parent.import(&description.key_id, &key).await, &enclave, parent, json).await
    }
}

/// Before anything is sent: whether there is no key of this name, and whether the caller may look at one, which the end
/// of every import and adoption has to do.
pub(super) async fn check_name_is_free(parent: &Parent, key_id: &KeyId) -> Result<(), Failure> {
    match parent.key(key_id).await {
        Err(error) if error.slug() == "key-not-found" => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(Failure::new(Exit::Conflict, format!("there is a key {key_id} already; nothing was sent"))),
    }
}

/// The key in a file. Whatever is wrong with it ends here, before anything is asked.
fn read_key(
    file: &Path,
    format: Option<Format>,
    algorithm: Algorithm,
    password: &PasswordArguments,
) -> Result<(KeyMaterial, PublicKey), Failure> {
    let unusable = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", file.display()));
    let content = input::read_file(file)?;
    let format = match format {
        Some(format) => format,
        None => Format::recognise(&content).map_err(|error| unusable(&error))?,
    };
    let password = password.read(format, file)?;
    let material = read(&content, format, algorithm, password.as_ref()).map_err(|error| unusable(&error))?;
    if format == Format::Hex && algorithm.is_seed() {
        let length = material.expose().len();
        output::note(&format!(
            "{length} bytes are taken as a seed, below which keys are derived, and not as a private key."
        ));
    }
    let public_key = material.public_key(algorithm).map_err(|error| unusable(&error))?;
    Ok((material, public_key))
}

fn sealed(
    description: &KeyDescription,
    import_key: &OfferedKey,
    material: &KeyMaterial,
) -> Result<KeyToImport, Failure> {
    let id = ImportKeyId::of(&import_key.public_key);
    let info = description.import_info(&id, &import_key.nonce);
    let sealed = seal(&import_key.public_key, &info, material).map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(KeyToImport {
        import_key_id: format!("0x{}", hex::encode(*id.0)),
        algorithm: description.algorithm,
        policy: description.policy.clone(),
        kms_key_arn: description.kms_key_arn.clone(),
        encapsulated_key: format!("0x{}", hex::encode(*sealed.encapsulated_key)),
        ciphertext: format!("0x{}", hex::encode(&*sealed.ciphertext)),
    })
}

/// A key that was sent to an enclave, and as what: the enclave must vouch for exactly this in the end.
pub(super) struct Brought<'a> {
    pub(super) description: &'a KeyDescription,
    pub(super) origin: Origin,
    pub(super) expected: ExpectedKey,
}

impl Brought<'_> {
    /// The end of an import and of an adoption. `taken` is what the parent answered.
    pub(super) async fn conclude(
        &self,
        taken: Result<KeyView, AskError>,
        enclave: &ExpectedEnclave,
        parent: &Parent,
        json: bool,
    ) -> Outcome {
        match taken {
            Ok(_) => {}
            // A definite no: nothing was taken.
            Err(error @ AskError::Problem(Problem { status: 400..=499, .. })) => return Err(error.into()),
            Err(error) => {
                self.note_unknown();
                return Err(error.into());
            }
        }
        let key_id = &self.description.key_id;
        let inquiry = Inquiry { key_id, enclave, expected: Some(&self.expected) };
        let refusal = match inquiry.run(parent).await {
            Ok(report) if self.is(&report.key) => {
                return output::print(json, &report, ToString::to_string);
            }
            Ok(_) => "its algorithm, origin or policy is another one than was asked for".to_owned(),
            Err(VerifyError::Refused(refusal)) => refusal.to_string(),
            Err(error) => {
                self.note_unknown();
                return Err(nothing_found_out(error));
            }
        };
        output::note(&format!(
            "REFUSED  key {key_id}: {refusal}\n\
             The parent said that it took the key, and the enclave does not vouch for it. What was sent may be in use under \
             this name and policy all the same."
        ));
        Ok(Exit::Failed)
    }

    fn is(&self, key: &KeyView) -> bool {
        let KeyDescription { algorithm, policy, .. } = self.description;
        (key.algorithm, key.origin, &key.policy) == (*algorithm, self.origin, policy)
    }

    /// For whoever has to find out.
    fn note_unknown(&self) {
        let key_id = &self.description.key_id;
        let expect = match &self.expected {
            ExpectedKey::PublicKey(public_key) => format!("--expect-public-key 0x{}", hex::encode(&**public_key)),
            ExpectedKey::Address(address) => format!("--expect-address {}", String::from_utf8_lossy(address)),
        };
        output::note(&format!(
            "Whether the key was taken is not known. This tells:\n  strongroom key verify {key_id} {expect} --pcrs …"
        ));
    }
}
