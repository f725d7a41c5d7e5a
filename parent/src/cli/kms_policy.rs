//! `strongroom kms-policy …`: the arguments, and what is printed. What a policy has to say is `crate::kms_policy`'s matter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha384};
use strongroom_protocol::{Configuration, KeyId, MAX_CONFIGURATION};

use super::exit::{Exit, Failure, Outcome};
use super::{files, output};
use crate::attestation::ExpectedPcrs;
use crate::client::printable;
use crate::kms_policy::{Admitted, Finding, KeyMetadata, MAX_POLICY, Plan, PlanError, check_role, lint};

#[derive(Debug, Subcommand)]
pub(super) enum KmsPolicyCommand {
    Generate(Generate),
    Lint(Lint),
}

/// Write the key policy of a KMS key that wraps signing keys
///
/// The key opens for the admitted pairs of an image and a configuration, and for nothing else; without
/// --admit for nobody, which is how a key begins, because its ARN stands in the configuration that is
/// measured. During a roll-out, admit the old pair and the new one. Administrators change the policy and
/// never use the key; users sign; provisioners create, import and re-wrap keys, too.
///
/// `aws kms put-key-policy --key-id ARN --policy file://policy.json` puts it into effect. KMS checks that
/// whoever does that can do it again, so be the administrator then (and with --lock say
/// --bypass-policy-lockout-safety-check: that nobody can is what it is for).
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  strongroom kms-policy generate --administrator arn:aws:iam::111122223333:role/key-administrator \\\n    \
    --user arn:aws:iam::111122223333:role/strongroom-parent --admit pcrs.json enclave.json --output policy.json\n  \
    strongroom kms-policy generate --administrator arn:aws:iam::111122223333:role/key-administrator   # use denied"
)]
pub(super) struct Generate {
    /// Who may change the policy and the key's state; again for more
    #[arg(long, value_name = "ARN", required = true)]
    administrator: Vec<String>,
    /// Who may sign: the parents' role
    #[arg(long, value_name = "ARN")]
    user: Vec<String>,
    /// Who may also create keys; without it every user may
    #[arg(long, value_name = "ARN")]
    provisioner: Vec<String>,
    /// Admit this image (pcrs.json) with this configuration (enclave.json, byte for byte); again for more
    #[arg(long, num_args = 2, value_names = ["PCRS", "ENCLAVE_CONFIG"])]
    admit: Vec<PathBuf>,
    /// Admit enclaves on instances with this role only (PCR3)
    #[arg(long, value_name = "ARN")]
    instance_role: Option<String>,
    /// Admit images signed with this certificate only (PCR8)
    #[arg(long, value_name = "HEX", value_parser = pcr)]
    pcr8: Option<Pcr>,
    /// Let nobody use this key any more, wherever its record is; again for more
    #[arg(long, value_name = "KEY_ID")]
    deny_key: Vec<KeyId>,
    /// Let nobody ever change the policy again, administrators neither. There is no way back
    #[arg(long)]
    lock: bool,
    /// Admit configurations with TLS roots of their own: whoever holds those roots' keys is KMS for the enclave
    #[arg(long)]
    allow_own_tls_roots: bool,
    /// Where the policy is written; without it, to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Find what is wrong with a key policy
///
/// Takes the policy's JSON, or what `aws kms get-key-policy --output json` prints. Puts the calls that
/// nobody should get through to the policy (without an enclave, from another image or configuration, in
/// debug mode, without the binding, Encrypt, grants, …), says which statements open them, and which do
/// not mean what they seem to. What is not understood is a finding, too.
///
/// Exits with 0 if nothing was found, and with 1 if something was.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  strongroom kms-policy lint policy.json\n  \
    aws kms get-key-policy --key-id alias/strongroom --output json | strongroom kms-policy lint - --key-metadata key.json"
)]
pub(super) struct Lint {
    /// The policy; `-` is standard input
    #[arg(value_name = "FILE")]
    policy: PathBuf,
    /// What `aws kms describe-key` prints of its key: finds imported key material, too
    #[arg(long, value_name = "FILE")]
    key_metadata: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

type Pcr = [u8; 48];

/// Runs the command.
pub(super) fn run(command: &KmsPolicyCommand) -> Outcome {
    match command {
        KmsPolicyCommand::Generate(arguments) => arguments.run(),
        KmsPolicyCommand::Lint(arguments) => arguments.run(),
    }
}

impl Generate {
    fn run(&self) -> Outcome {
        // The options come in pairs, by clap.
        let pairs = self.admit.chunks_exact(2).filter_map(|pair| <&[PathBuf; 2]>::try_from(pair).ok());
        self.instance_role.as_deref().map(check_role).transpose()?;
        let role = self.instance_role.as_ref().map(|arn| (3, measured_role(arn)));
        let provisioners = if self.provisioner.is_empty() { &self.user } else { &self.provisioner };
        let plan = Plan {
            administrators: self.administrator.clone(),
            users: self.user.clone(),
            provisioners: provisioners.clone(),
            admitted: pairs
                .map(|[pcrs, configuration]| self.admitted(pcrs, configuration))
                .collect::<Result<_, _>>()?,
            pins: role.into_iter().chain(self.pcr8.map(|pcr| (8, pcr))).collect::<BTreeMap<_, _>>(),
            denied_keys: self.deny_key.clone(),
            locked: self.lock,
        };
        if plan.admitted.is_empty() {
            output::note("nothing is admitted: this policy denies every use of the key");
        } else if plan.users.is_empty() && plan.provisioners.is_empty() {
            return Err(Failure::usage("--user: who may sign with what is admitted?"));
        }
        let policy = plan.policy()?;
        // KMS counts white space, too.
        let policy = match output::json(&policy)? {
            long if long.len() >= MAX_POLICY => output::json_line(&policy)?,
            indented => indented + "\n",
        };
        match self.output.as_deref() {
            None => drop(output::say(&policy)),
            Some(path) => files::publish(path, policy.as_bytes())?,
        }
        Ok(Exit::Done)
    }

    fn admitted(&self, pcrs: &Path, configuration: &Path) -> Result<Admitted, Failure> {
        let wrong = |path: &Path, text: String| Failure::usage(format!("{}: {text}", path.display()));
        let bytes = files::read(configuration, MAX_CONFIGURATION)?;
        let parsed = Configuration::parse(&bytes).map_err(|error| wrong(configuration, error.to_string()))?;
        if parsed.tls_roots.is_some() {
            let names = configuration.display();
            if !self.allow_own_tls_roots {
                let text = "it brings TLS roots of its own; --allow-own-tls-roots admits it all the same";
                return Err(wrong(configuration, text.to_owned()));
            }
            output::note(&format!(
                "WARNING: {names} brings TLS roots of its own. Whoever holds their keys can be KMS for the enclave:\n\
                 WARNING: choose the keys that it creates, and be shown what it seals. Admit it for nothing of value."
            ));
        }
        let pcrs_json = files::read(pcrs, MAX_PCRS)?;
        let expected =
            ExpectedPcrs::with_configuration(&pcrs_json, &bytes).map_err(|error| wrong(pcrs, error.to_string()))?;
        // Both are there, or it would not have been read.
        let [pcr0, pcr16] = [0, 16].map(|register| expected.get(register).copied().unwrap_or([0; 48]));
        Ok(Admitted::new(pcr0, pcr16)?)
    }
}

/// A few registers.
const MAX_PCRS: usize = 64 * 1024;

/// More than KMS takes as a policy, and what the AWS CLI puts around it.
const MAX_FILE: usize = 256 * 1024;

/// PCR3, as the Nitro hypervisor extends it (Nitro Enclaves guide, "Where to get an enclave's measurements").
fn measured_role(arn: &str) -> Pcr {
    Sha384::new().chain_update([0; 48]).chain_update(arn).finalize().into()
}

fn pcr(text: &str) -> Result<Pcr, &'static str> {
    hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or("not 48 bytes in hexadecimal")
}

#[derive(Serialize)]
struct Report {
    findings: Vec<Finding>,
}

impl Lint {
    fn run(&self) -> Outcome {
        let policy = policy(read_json(&self.policy)?);
        let key = self.key_metadata.as_deref().map(|path| metadata(path, read_json(path)?)).transpose()?;
        let report = Report { findings: lint(&policy, key.as_ref()) };
        output::print(self.json, &report, Report::text)?;
        Ok(if report.findings.is_empty() { Exit::Done } else { Exit::Failed })
    }
}

fn read_json(path: &Path) -> Result<Value, Failure> {
    serde_json::from_slice(&files::read(path, MAX_FILE)?)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// The policy itself, out of what the AWS CLI prints.
fn policy(printed: Value) -> Value {
    match printed.get("Policy") {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or(printed),
        _ => printed,
    }
}

fn metadata(path: &Path, mut printed: Value) -> Result<KeyMetadata, Failure> {
    let inner = printed.get_mut("KeyMetadata").map(Value::take).unwrap_or(printed);
    serde_json::from_value(inner).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

impl Report {
    fn text(&self) -> String {
        if self.findings.is_empty() {
            return "nothing found\n".to_owned();
        }
        let finding = |finding: &Finding| {
            let open = if finding.open { "OPEN  " } else { "" };
            let statements = match finding.statements.is_empty() {
                true => String::new(),
                false => format!("  in {}", finding.statements.join(", ")),
            };
            let (rule, why) = (output::word(&finding.rule), &finding.why);
            let why = printable(why);
            format!("{open}{rule}{}\n  why   {why}\n  mend  {}\n", printable(&statements), finding.mend)
        };
        self.findings.iter().map(finding).collect::<Vec<_>>().join("\n")
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::usage(error)
    }
}
