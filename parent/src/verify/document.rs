//! Whether a document that somebody has kept is true, and about the enclave that is meant (`strongroom attestation verify`);
//! and what it says, for people. Asks nobody.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use strongroom_protocol::Subject;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ExpectedEnclave;
use crate::attestation::{
    AttestationError, CONFIGURATION_PCR, DifferingPcr, Kind, TrustAnchor, VerifiedDocument, verify,
};
use crate::client::printable;

/// What is demanded of a document.
#[derive(Debug)]
pub struct Demands<'a> {
    /// Who must have made it.
    pub maker: Maker<'a>,
    /// What kind of document it must be; `None`: any.
    pub kind: Option<Kind>,
    /// The nonce that it must be made for; `None`: any, so that it may be a replay.
    pub nonce: Option<&'a [u8]>,
    /// The time at which it must be valid.
    pub at: SystemTime,
    /// How old it may be then.
    pub max_age: Duration,
}

/// Who must have made a document.
#[derive(Debug, Clone, Copy)]
pub enum Maker<'a> {
    /// This enclave.
    Expected(&'a ExpectedEnclave),
    /// Any enclave under this root that is not in debug mode.
    Anybody(&'a TrustAnchor),
}

/// What a genuine document says.
#[derive(Debug, Clone, Serialize)]
pub struct DocumentReport {
    /// Its kind.
    pub kind: Kind,
    /// What its user data says that it is about, if that is something of ours.
    pub about: Option<String>,
    /// The enclave that made it.
    pub module_id: String,
    /// When, by the enclave's clock (RFC 3339).
    pub made_at: String,
    /// The time at which it was judged.
    pub judged_at: String,
    /// How old it was then, in milliseconds; negative: it is of later.
    pub age_ms: i64,
    /// Whether a root other than AWS's vouches for the enclave.
    pub foreign_root: bool,
    /// Its registers, hex.
    pub pcrs: BTreeMap<String, String>,
    /// Its nonce, hex.
    pub nonce: Option<String>,
    /// Whether that is the one that was demanded.
    pub nonce_checked: bool,
    /// Its user data, hex.
    pub user_data: Option<String>,
    /// The key that it carries, hex.
    pub public_key: Option<String>,
    /// Who vouches for it, from the root to the enclave.
    pub certificates: Vec<CertificateReport>,
}

/// A certificate, for people.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateReport {
    /// Whose it is.
    pub subject: String,
    /// From when (RFC 3339).
    pub not_before: String,
    /// Until when.
    pub not_after: String,
}

/// A document that was refused. Its sender is to blame.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// Why.
    pub reason: AttestationError,
    /// The registers that are not as expected, once they can be believed at all.
    pub differing: Vec<DifferingPcr>,
    /// What it says, if it is genuine all the same: certificates and signature hold.
    pub genuine: Option<Box<DocumentReport>>,
}

impl Demands<'_> {
    /// Verifies a document, COSE.
    ///
    /// # Errors
    /// [`Refused`]: its sender's, or the caller's for demanding something else.
    pub fn judge(&self, document: &[u8]) -> Result<DocumentReport, Refused> {
        let document = verify(document, self.root(), self.at).map_err(Refused::from)?;
        let report = self.report(&document);
        match self.check(&document) {
            Ok(()) => Ok(report),
            Err(reason) => {
                let differing = match self.maker {
                    Maker::Expected(enclave) => document.differing_pcrs(&enclave.pcrs),
                    Maker::Anybody(_) => Vec::new(),
                };
                Err(Refused { reason, differing, genuine: Some(Box::new(report)) })
            }
        }
    }

    fn root(&self) -> &TrustAnchor {
        match self.maker {
            Maker::Expected(enclave) => &enclave.root,
            Maker::Anybody(root) => root,
        }
    }

    fn check(&self, document: &VerifiedDocument) -> Result<(), AttestationError> {
        match self.maker {
            Maker::Expected(enclave) => document.check_pcrs(&enclave.pcrs)?,
            Maker::Anybody(_) if document.payload.is_debug_mode() => return Err(AttestationError::DebugMode),
            Maker::Anybody(_) => {}
        }
        self.kind.map_or(Ok(()), |kind| document.check_kind(kind))?;
        self.nonce.map_or(Ok(()), |nonce| document.check_nonce(nonce))?;
        document.check_fresh(self.at, self.max_age)
    }

    fn report(&self, document: &VerifiedDocument) -> DocumentReport {
        let payload = &document.payload;
        let hex = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
        let made = i128::from(payload.timestamp);
        let at = self.at.duration_since(UNIX_EPOCH).map_or(0, |since| i128::try_from(since.as_millis()).unwrap_or(0));
        DocumentReport {
            kind: document.kind(),
            about: payload.user_data.as_deref().and_then(Subject::parse).map(about),
            module_id: printable(&payload.module_id),
            made_at: moment(made),
            judged_at: moment(at),
            age_ms: i64::try_from(at - made).unwrap_or(i64::MIN),
            foreign_root: !self.root().is_aws(),
            pcrs: payload.pcrs.iter().map(|(i, pcr)| (format!("PCR{i}"), hex::encode(**pcr))).collect(),
            nonce: payload.nonce.as_deref().map(hex),
            nonce_checked: self.nonce.is_some_and(|nonce| document.check_nonce(nonce).is_ok()),
            user_data: payload.user_data.as_deref().map(hex),
            public_key: payload.public_key.as_deref().map(hex),
            certificates: document
                .certificates()
                .iter()
                .map(|certificate| CertificateReport {
                    subject: printable(&certificate.subject),
                    not_before: moment(i128::from(certificate.not_before) * 1000),
                    not_after: moment(i128::from(certificate.not_after) * 1000),
                })
                .collect(),
        }
    }
}

impl From<AttestationError> for Refused {
    /// Of a document of which nothing is believed.
    fn from(reason: AttestationError) -> Self {
        Self { reason, differing: Vec::new(), genuine: None }
    }
}

impl fmt::Display for DocumentReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = || "none".to_owned();
        writeln!(f, "  kind        {}", self.kind)?;
        let about = match (&self.about, &self.user_data) {
            (Some(about), _) => about,
            (None, Some(_)) => "something that is not strongroom's",
            (None, None) => "nothing: it has no user data",
        };
        writeln!(f, "  about       {about}")?;
        writeln!(f, "  module      {}", self.module_id)?;
        writeln!(f, "  made        {}", self.made_at)?;
        writeln!(f, "  judged at   {}, when it was {} old", self.judged_at, span(self.age_ms))?;
        let root = if self.foreign_root { "NOT AWS's: the one that you named" } else { "AWS's Nitro root" };
        writeln!(f, "  root        {root}")?;
        let nonce = match (&self.nonce, self.nonce_checked) {
            (Some(nonce), true) => format!("{nonce} (the one that you named)"),
            (Some(nonce), false) => format!("{nonce} (NOT COMPARED with one of yours)"),
            (None, _) => none(),
        };
        writeln!(f, "  nonce       {nonce}")?;
        writeln!(f, "  user data   {}", self.user_data.clone().unwrap_or_else(none))?;
        writeln!(f, "  public key  {}", self.public_key.clone().unwrap_or_else(none))?;
        writeln!(f, "\n  Registers, but for those that are zero:")?;
        for (name, meaning) in (0..32).map(|index| (format!("PCR{index}"), measures(index))) {
            let zero = |pcr: &&String| pcr.bytes().any(|digit| digit != b'0');
            if let Some(pcr) = self.pcrs.get(&name).filter(zero) {
                writeln!(f, "  {name:<6}{pcr}  {meaning}")?;
            }
        }
        writeln!(f, "\n  Certificates, from the root to the enclave:")?;
        for CertificateReport { subject, not_before, not_after } in &self.certificates {
            writeln!(f, "  {not_before} to {not_after}  {subject}")?;
        }
        Ok(())
    }
}

/// What a register measures: AWS's guide "Cryptographic attestation", and PCR16, which is ours.
#[must_use]
pub const fn measures(index: u8) -> &'static str {
    match index {
        0 => "the image",
        1 => "kernel and boot ramdisk",
        2 => "application",
        3 => "IAM role of the parent instance",
        4 => "id of the parent instance",
        8 => "certificate that signed the image",
        CONFIGURATION_PCR => "strongroom's configuration",
        _ => "something that strongroom does not use",
    }
}

fn about(subject: Subject) -> String {
    match subject {
        Subject::Enclave { configuration: None } => "the enclave, before it had a configuration".to_owned(),
        Subject::Enclave { configuration: Some(digest) } => {
            format!("the enclave, and its configuration with the SHA-384 {}", hex::encode(digest))
        }
        Subject::Key { binding } => format!(
            "a key that the enclave opened, whose binding has the SHA-256 {} (`strongroom key verify` tells which)",
            hex::encode(binding)
        ),
        Subject::Export { export } => format!(
            "a key that the enclave sealed to a recipient; with the export, they have the SHA-256 {}",
            hex::encode(export)
        ),
        Subject::ImportKey { id } => format!("the import key {}", hex::encode(id)),
        Subject::Recipient { public_key } => {
            format!("the enclave's RSA key with the SHA-256 {}", hex::encode(public_key))
        }
    }
}

/// RFC 3339, of milliseconds since 1970.
fn moment(milliseconds: i128) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(milliseconds.saturating_mul(1_000_000))
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| "a time beyond the calendar".to_owned())
}

fn span(milliseconds: i64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        ..0 => format!("minus {} s", seconds.unsigned_abs()),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}
