//! `strongroom key adopt`: has the enclave take over a private key that AWS's samples left in Secrets Manager. No key
//! is in the clear here: the secret is fetched as ciphertext and passed on as it is.

use std::path::PathBuf;

use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::error::DisplayErrorContext;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use strongroom_protocol::{Algorithm, KeyDescription, KeyId, KmsKeyArn, Origin, PayloadKind, Policy};

use super::enclave::{EnclaveArguments, no_verdict};
use super::exit::{Exit, Failure, Outcome};
use super::expected::ExpectedArguments;
use super::files;
use super::import::{Brought, check_name_is_free};
use super::{output, words};
use crate::client::{ExpectedIdentity, KeyToAdopt, Parent, printable};
use crate::verify::VerifyError;

/// Adopt a private key that lies under a KMS key, as AWS's samples leave it
///
/// The secret is the base64 of a KMS ciphertext of a private key in hex, encrypted without encryption context.
/// The enclave opens it by an attested Decrypt, refuses it unless it is the key that you expect, binds it, and
/// seals it anew; this command ends well only if the enclave then vouches for that key. Its configuration must
/// list the operation `adopt`, and the KMS key of the secret under `adopt_kms_keys`.
///
/// The old secret is left alone, and keeps its old exposure: whoever could read it under that KMS key can
/// still. Adopt keys to go on using them now, and move what they hold to keys that were made in the enclave.
/// An adopted key signs messages only, and never leaves.
///
/// --secret-id is fetched with the AWS credentials of this command's environment.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  \
        strongroom key adopt old-1 --algorithm secp256k1 --secret-id eth1/key \\\n      \
        --expect-address 0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf --pcrs pcrs.json\n  \
        strongroom key adopt old-1 --algorithm secp256k1 --ciphertext-file secret.b64 --expect-public-key 0x02… --pcrs pcrs.json"
)]
pub(super) struct Adopt {
    /// The new key's id: [A-Za-z0-9][A-Za-z0-9._-]{0,63}
    key_id: KeyId,
    /// Curve and key type
    #[arg(long, value_parser = words::<Algorithm>(&["secp256k1", "ed25519"]))]
    algorithm: Algorithm,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    expected: ExpectedArguments,
    /// The KMS key of the secret [default: the first of the configuration's `adopt_kms_keys`]
    #[arg(long, value_name = "ARN")]
    adopt_kms_key_arn: Option<KmsKeyArn>,
    /// The KMS key that will wrap it [default: the first of the enclave's configuration]
    #[arg(long, value_name = "ARN")]
    kms_key_arn: Option<KmsKeyArn>,
    /// How long an opened key may stay in the enclave's memory; 0: never beyond one signature
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    hold_seconds: u32,
    #[command(flatten)]
    enclave: EnclaveArguments,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The secret in AWS Secrets Manager, by name or ARN
    #[arg(long, value_name = "NAME")]
    secret_id: Option<String>,
    /// A file with what the secret says; `-` is standard input
    #[arg(long, value_name = "FILE")]
    ciphertext_file: Option<PathBuf>,
}

/// Longest ciphertext read, in bytes: 6144 of KMS's in base64, and lines.
const MAX_CIPHERTEXT: usize = 16 * 1024;

impl Adopt {
    pub(super) async fn run(self, parent: &Parent, json: bool) -> Outcome {
        let Self { key_id, algorithm, source, expected, adopt_kms_key_arn, kms_key_arn, hold_seconds, enclave } = self;
        let enclave = enclave.read()?;
        let expected = expected.demand()?;
        let policy = Policy::new(vec![PayloadKind::Message], hold_seconds).map_err(Failure::usage)?;
        let description = KeyDescription { key_id, algorithm, policy, kms_key_arn };
        let ciphertext = source.ciphertext().await?;
        check_name_is_free(parent, &description.key_id).await?;
        // No key is sealed to it, but one would be made in it.
        match enclave.check(parent).await {
            Ok(()) => {}
            Err(VerifyError::Refused(refusal)) => {
                output::note(&format!("REFUSED  the enclave: {refusal}\nNothing was sent."));
                return Ok(Exit::Failed);
            }
            Err(error) => return Err(no_verdict(error)),
        }
        let key = KeyToAdopt {
            algorithm,
            ciphertext,
            expected: ExpectedIdentity::from(&expected),
            adopt_kms_key_arn,
            kms_key_arn: description.kms_key_arn.clone(),
            policy: description.policy.clone(),
        };
        let brought = Brought { description: &description, origin: Origin::Adopted, expected };
        brought.conclude(parent.adopt(&description.key_id, &key).await, &enclave, parent, json).await
    }
}

impl Source {
    /// Standard base64, as it was found.
    async fn ciphertext(self) -> Result<String, Failure> {
        let (place, text) = match (self.secret_id, self.ciphertext_file) {
            (Some(name), _) => (format!("the secret {name}"), secret(&name).await?.into_bytes()),
            (None, Some(path)) => (path.display().to_string(), files::read(&path, MAX_CIPHERTEXT)?.to_vec()),
            (None, None) => return Err(Failure::usage("nothing to adopt")),
        };
        // `base64` breaks lines.
        let text: Vec<u8> = text.into_iter().filter(|c| !c.is_ascii_whitespace()).collect();
        let ciphertext = STANDARD.decode(&text).ok().filter(|ciphertext| !ciphertext.is_empty());
        let ciphertext = ciphertext.ok_or_else(|| Failure::usage(format!("{place}: not base64 of a ciphertext")))?;
        Ok(STANDARD.encode(ciphertext))
    }
}

/// What Secrets Manager keeps under this name.
async fn secret(name: &str) -> Result<String, Failure> {
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let secret = aws_sdk_secretsmanager::Client::new(&aws).get_secret_value().secret_id(name).send().await;
    let secret = secret.map_err(|error| {
        // An answer stands until somebody changes something; none may come later.
        let exit = if error.as_service_error().is_some() { Exit::Failed } else { Exit::Unavailable };
        let reason = printable(&DisplayErrorContext(error).to_string());
        Failure::new(exit, format!("the secret cannot be fetched from Secrets Manager: {reason}"))
    })?;
    match (secret.secret_string, secret.secret_binary) {
        (Some(text), _) => Ok(text),
        (None, Some(binary)) => Ok(STANDARD.encode(binary)),
        (None, None) => Err(Failure::new(Exit::Failed, "the secret is empty")),
    }
}
