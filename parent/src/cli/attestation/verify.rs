//! `strongroom attestation verify`, as a command: what it reads and what it prints. What is verified is `verify`'s matter.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use strongroom_protocol::document::{DocumentError, MAX_DOCUMENT};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::attestation::{AttestationError, DifferingPcr, Kind};
use crate::cli::enclave::EnclaveArguments;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::{files, output};
use crate::client::printable;
use crate::http::from_hex;
use crate::verify::{Demands, DocumentReport, MAX_AGE, Maker, Refused, measures};

/// Verify an attestation document
///
/// Asks nobody. Verifies the certificate chain up to AWS's root, the dates, the document's signature, that the enclave
/// is not in debug mode, that its configuration is measured, and that its registers are those of --pcrs; and says what
/// is in the document. With --nonce it must be made for that nonce: without, it may be a replay of one that is
/// not old enough yet.
///
/// A document is judged now, and may be five minutes old, unless --max-age says something else. With --at it is judged at
/// that time, for a document that was kept: as old as it was then, unless --max-age is there too. AWS's certificates
/// for an enclave last three hours.
///
/// A document that carries a public key is no evidence, and is refused as such: it was made for KMS or for a custodian, and
/// vouches for nothing else. Where one of those is what you have, --kind says so. FILE is COSE_Sign1, base64 of it, or the JSON of `attestation get
/// --json`, `key attest --json` and GET /v1/attestation.
///
/// Exits with 0 if the document is verified, 1 if it is refused, 2 if a file cannot be read or an option is wrong.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    mut_arg("pcrs", |pcrs| pcrs.required(false).required_unless_present("any_enclave").conflicts_with("any_enclave")),
    mut_arg("enclave_config", |configuration| configuration.conflicts_with("any_enclave")),
    after_help = "Examples:\n  strongroom attestation verify enclave.cose --pcrs pcrs.json --nonce 0x00c0ffee\n  \
                  strongroom attestation verify kept.cose --pcrs pcrs.json --at 2025-04-15T02:25:23Z\n  \
                  strongroom attestation verify unknown.cose --any-enclave"
)]
pub(in crate::cli) struct Verify {
    /// The document; `-` is standard input
    file: PathBuf,
    /// The nonce that it must be made for, in hex
    #[arg(long, value_name = "HEX", value_parser = nonce)]
    nonce: Option<Nonce>,
    /// The time at which it must be valid, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time_of)]
    at: Option<SystemTime>,
    /// How old it may be [default: 300; with --at: any age]
    #[arg(long, value_name = "SECONDS")]
    max_age: Option<u32>,
    /// What kind of document it must be [default: evidence; with --any-enclave: any]
    #[arg(long, value_enum)]
    kind: Option<KindArgument>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    enclave: EnclaveArguments,
    /// Instead of --pcrs: whichever enclave made it, but in debug mode. Says what is in a document, and proves nothing else
    #[arg(long, help_heading = "Enclave")]
    any_enclave: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KindArgument {
    /// Carries no key
    Evidence,
    /// Carries the RSA key to which KMS encrypts
    Recipient,
    /// Carries a key to which custodians seal
    ImportKey,
}

/// The verdict as JSON.
#[derive(Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
enum Verdict<'a> {
    Verified(&'a DocumentReport),
    /// True, and of whichever enclave.
    Genuine(&'a DocumentReport),
    Refused {
        reason: String,
        differing_pcrs: Vec<Differing>,
        /// What it says, if it is genuine all the same.
        genuine: Option<&'a DocumentReport>,
    },
}

#[derive(Serialize)]
struct Differing {
    pcr: String,
    expected: String,
    found: Option<String>,
}

impl Verify {
    pub(super) fn run(self) -> Outcome {
        let expected = if self.any_enclave { None } else { Some(self.enclave.read()?) };
        let root = if self.any_enclave { Some(self.enclave.read_root()?) } else { None };
        let maker = match (&expected, &root) {
            (Some(enclave), _) => Maker::Expected(enclave),
            (None, Some(root)) => Maker::Anybody(root),
            (None, None) => return Err(Failure::usage("--pcrs or --any-enclave")),
        };
        let any_age = if self.at.is_some() { Duration::MAX } else { MAX_AGE };
        let kind = self.kind.map(|kind| match kind {
            KindArgument::Evidence => Kind::Evidence,
            KindArgument::Recipient => Kind::Recipient,
            KindArgument::ImportKey => Kind::ImportKey,
        });
        let demands = Demands {
            maker,
            kind: kind.or((!self.any_enclave).then_some(Kind::Evidence)),
            nonce: self.nonce.as_ref().map(|nonce| &nonce.0[..]),
            at: self.at.unwrap_or_else(SystemTime::now),
            max_age: self.max_age.map_or(any_age, |seconds| Duration::from_secs(seconds.into())),
        };
        let file = files::read(&self.file, MAX_FILE)?;
        let judged = document(&file).map_err(Refused::from).and_then(|document| demands.judge(&document));
        match judged {
            Ok(report) if self.any_enclave => output::print(self.json, &Verdict::Genuine(&report), |_| {
                format!(
                    "GENUINE  a document of some enclave; WHOSE IT IS WAS NOT COMPARED with registers of yours\n\n{report}"
                )
            }),
            Ok(report) => output::print(self.json, &Verdict::Verified(&report), |_| verified(&report)),
            Err(refused) => self.refuse(&refused),
        }
    }

    fn refuse(&self, refused: &Refused) -> Outcome {
        if self.json {
            let differing_pcrs = refused.differing.iter().map(Differing::from).collect();
            let (reason, genuine) = (refused.to_string(), refused.genuine.as_deref());
            output::print(true, &Verdict::Refused { reason, differing_pcrs, genuine }, |_| String::new())?;
        }
        let mut said = format!("REFUSED  {}: {refused}\n", printable(&self.file.to_string_lossy()));
        for pcr in &refused.differing {
            let Differing { pcr: name, expected, found } = pcr.into();
            let found = found.unwrap_or_else(|| "none".to_owned());
            let meaning = measures(pcr.index);
            let _ = write!(said, "\n  {name}, {meaning}:\n    expected  {expected}\n    found     {found}\n");
        }
        if let Some(report) = &refused.genuine {
            let _ = write!(said, "\nIts certificates and its signature hold. It says:\n\n{report}");
        }
        output::note(&said);
        Ok(Exit::Failed)
    }
}

/// Longest file read: a document in base64, broken into lines, beside its registers.
const MAX_FILE: usize = 4 * MAX_DOCUMENT;

fn verified(report: &DocumentReport) -> String {
    let no_evidence = match report.kind {
        Kind::Evidence => "",
        _ => " It is NO EVIDENCE: it carries a key.",
    };
    let replay = if report.nonce_checked { "" } else { " It may be a replay: no nonce was named." };
    let root =
        if report.foreign_root { " AWS does NOT vouch for the enclave: the root that you named does." } else { "" };
    format!("VERIFIED  a document of the expected enclave.{no_evidence}{replay}{root}\n\n{report}")
}

/// The COSE_Sign1 in a file of any of its forms. None of them can be taken for another: bytes do not begin with text.
fn document(file: &[u8]) -> Result<Vec<u8>, AttestationError> {
    #[derive(Deserialize)]
    struct Evidence {
        document: String,
    }
    let Some(text) = std::str::from_utf8(file).ok().filter(|text| !text.trim().is_empty()) else {
        return Ok(file.to_vec());
    };
    let text = if text.trim_start().starts_with('{') {
        serde_json::from_str::<Evidence>(text).map_err(|_| DocumentError("JSON without a document"))?.document
    } else {
        text.to_owned()
    };
    let digits: String = text.split_ascii_whitespace().collect();
    Ok(STANDARD.decode(digits).map_err(|_| DocumentError("neither COSE_Sign1 nor base64"))?)
}

impl From<&DifferingPcr> for Differing {
    fn from(pcr: &DifferingPcr) -> Self {
        let DifferingPcr { index, expected, found } = pcr;
        Self { pcr: format!("PCR{index}"), expected: hex::encode(expected), found: found.map(hex::encode) }
    }
}

/// Of the bytes themselves, clap would make one argument each.
#[derive(Debug, Clone)]
struct Nonce(Vec<u8>);

fn nonce(text: &str) -> Result<Nonce, &'static str> {
    from_hex(text).map(Nonce)
}

fn time_of(text: &str) -> Result<SystemTime, time::error::Parse> {
    OffsetDateTime::parse(text, &Rfc3339).map(Into::into)
}
