//! Whether a key lives where it is said to live (`strongroom key verify`), whether an import key is one of the enclave
//! that it should be, and whether an export is the key that it is said to be: found out without trusting the parent that
//! is asked. Fetches fresh documents and verifies them here. Until a key has passed, its address is only what a parent
//! claims.

mod document;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use strongroom_protocol::{
    Binding, ExpectedKey, HpkePublicKey, KeyId, PublicKey, RecipientName, export_info, export_user_data, key_user_data,
};

use crate::addresses;
use crate::attestation::{AttestationError, ExpectedPcrs, ExpectedPcrsError, TrustAnchor, VerifiedDocument, verify};
use crate::client::{AskError, Parent};
use crate::http::{Evidence, ExportReply, ExportedKey, KeyView};
use crate::key_state::StateName;
pub use document::{CertificateReport, Demands, DocumentReport, Maker, Refused, measures};

/// What an enclave must be to be believed.
#[derive(Debug)]
pub struct ExpectedEnclave {
    pcrs: ExpectedPcrs,
    root: TrustAnchor,
}

/// What is to be verified, and against what.
#[derive(Debug)]
pub struct Inquiry<'a> {
    /// The key.
    pub key_id: &'a KeyId,
    /// The enclave that must hold it.
    pub enclave: &'a ExpectedEnclave,
    /// What the caller knows of the key already, if anything.
    pub expected: Option<&'a ExpectedKey>,
}

/// An import key of a verified enclave.
#[derive(Debug)]
pub struct OfferedKey {
    /// What a key can be sealed to.
    pub public_key: HpkePublicKey,
    /// The nonce for which it was offered.
    pub nonce: [u8; 32],
}

/// What was verified.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The key, as the parent showed it. What of it the evidence covers: id, algorithm, public key,
    /// origin and policy. The addresses were derived here from the public key. The rest is the parent's word.
    pub key: KeyView,
    /// The enclave that vouched.
    pub module_id: String,
    /// How old its document was, in milliseconds.
    pub document_age_ms: u64,
    /// Its registers, hex.
    pub pcrs: std::collections::BTreeMap<String, String>,
    /// Whether a root other than AWS's vouched for the enclave.
    pub foreign_root: bool,
}

/// Why nothing was verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The caller's: a file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The caller's: the expected registers say too little.
    #[error("{path}: {source}")]
    Pcrs {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ExpectedPcrsError,
    },
    /// The caller's: not a root certificate.
    #[error("{path}: {source}")]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: AttestationError,
    },
    /// This machine's: no randomness for the nonce.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The parent cannot be reached, or answered with a problem that says nothing about the key.
    #[error("{0}")]
    Parent(AskError),
    /// Refused: the evidence does not show what was to be shown.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

/// Why a key did not pass.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The document is not true, or not about what was asked.
    #[error(transparent)]
    Attestation(#[from] AttestationError),
    /// The parent showed another key than the one asked for.
    #[error("the parent showed another key than the one asked for")]
    OtherKey,
    /// It has neither the public key nor the address that was expected.
    #[error("it is not the expected key: its public key is {0}")]
    Unexpected(String),
    /// The export is to somebody else.
    #[error("the parent showed an export to another recipient than the one asked for")]
    OtherRecipient,
    /// The addresses are not exactly those of the attested public key: another key's, one too few, or
    /// one of a chain that the key has no address on.
    #[error("the addresses that the parent shows are not those of the key's public key")]
    Address,
    /// The enclave's record of the key was refused: it was changed, or is another enclave's.
    #[error("the enclave or KMS refused the key's record ({0})")]
    Record(String),
    /// The reply is not a key view or evidence.
    #[error("the parent's reply is malformed: {0}")]
    Malformed(&'static str),
}

/// How old a document may be. It is made for the nonce, so this bounds clock errors, not replay.
pub const MAX_AGE: Duration = Duration::from_secs(300);

impl ExpectedEnclave {
    /// Reads what an enclave must be.
    ///
    /// * `pcrs`: the registers, PCR0 and PCR16 at least;
    /// * `configuration`: the enclave's configuration, from which PCR16 follows;
    /// * `attestation_root`: the root of the attestation's certificates, PEM; absent: AWS's.
    ///
    /// # Errors
    /// The caller's: [`VerifyError::File`], [`VerifyError::Pcrs`], [`VerifyError::Root`].
    pub fn read(
        pcrs: &Path,
        configuration: Option<&Path>,
        attestation_root: Option<&Path>,
    ) -> Result<Self, VerifyError> {
        let json = read(pcrs)?;
        let expected = match configuration {
            None => ExpectedPcrs::from_json(&json),
            Some(path) => ExpectedPcrs::with_configuration(&json, &read(path)?),
        };
        let expected = expected.map_err(|source| VerifyError::Pcrs { path: pcrs.to_owned(), source })?;
        Ok(Self { pcrs: expected, root: read_root(attestation_root)? })
    }

    /// Asks the parent for evidence about its enclave, and verifies that it is this one.
    ///
    /// # Errors
    /// [`VerifyError::Refused`]: it is not. Any other: nothing could be found out.
    pub async fn check(&self, parent: &Parent) -> Result<(), VerifyError> {
        let nonce = nonce()?;
        let evidence = parent.attest(None, &hex::encode(nonce)).await.map_err(VerifyError::Parent)?;
        let document = self.judge(&evidence, &nonce, SystemTime::now())?;
        Ok(document.check_evidence_only().map_err(Refusal::from)?)
    }

    /// Asks the parent for an import key, and verifies that it is this enclave's.
    ///
    /// # Errors
    /// [`VerifyError::Refused`]: it is not. Any other: nothing could be found out.
    pub async fn import_key(&self, parent: &Parent) -> Result<OfferedKey, VerifyError> {
        let nonce = nonce()?;
        // Whatever is wrong, it is no verdict on a key.
        let offer = parent.offer_import_key(&hex::encode(nonce)).await.map_err(VerifyError::Parent)?;
        let document = self.judge(&offer.evidence, &nonce, SystemTime::now())?;
        let public_key = document.import_key().map_err(Refusal::from)?;
        Ok(OfferedKey { public_key, nonce })
    }

    /// Has the parent export a key, and verifies that this enclave sealed that key to that recipient, in the bytes that
    /// the parent shows. Returns also the key's public key.
    ///
    /// # Errors
    /// [`VerifyError::Refused`]: it did not. Any other: nothing could be found out.
    pub async fn export(
        &self,
        parent: &Parent,
        key_id: &KeyId,
        recipient: &RecipientName,
    ) -> Result<(ExportedKey, PublicKey), VerifyError> {
        let nonce = nonce()?;
        let ExportReply { export, evidence } = parent.export(key_id, recipient, &hex::encode(nonce)).await?;
        let document = self.judge(&evidence, &nonce, SystemTime::now())?;
        document.check_evidence_only().map_err(Refusal::from)?;
        let (public_key, binding, sealed) = export.parts().ok_or(Refusal::Malformed("export"))?;
        let user_data = export_user_data(&export_info(&binding, &export.recipient), &sealed);
        document.check_user_data(&user_data).map_err(Refusal::from)?;
        if export.key_id != *key_id {
            return Err(Refusal::OtherKey.into());
        }
        if export.recipient != *recipient {
            return Err(Refusal::OtherRecipient.into());
        }
        Ok((export, public_key))
    }

    /// Whether a document is true, fresh, made for this nonce, and of this enclave. What it is about is another
    /// question. Nothing here talks to anyone.
    fn judge(&self, evidence: &Evidence, nonce: &[u8], now: SystemTime) -> Result<VerifiedDocument, Refusal> {
        let document = STANDARD.decode(&evidence.document).map_err(|_| Refusal::Malformed("document"))?;
        let document = verify(&document, &self.root, now)?;
        document.check_fresh(now, MAX_AGE)?;
        document.check_nonce(nonce)?;
        document.check_pcrs(&self.pcrs)?;
        Ok(document)
    }
}

impl Inquiry<'_> {
    /// Asks the parent, and verifies what it says.
    ///
    /// # Errors
    /// [`VerifyError::Refused`]: the key did not pass. Any other: nothing could be found out.
    pub async fn run(&self, parent: &Parent) -> Result<Report, VerifyError> {
        let nonce = nonce()?;
        let key = parent.key(self.key_id).await?;
        let evidence = parent.attest(Some(self.key_id), &hex::encode(nonce)).await?;
        let now = SystemTime::now();
        let document = self.judge(&key, &evidence, &nonce, now)?;
        Ok(self.report(key, &document, now))
    }

    /// Every check that the evidence has to pass. Nothing here talks to anyone.
    fn judge(
        &self,
        key: &KeyView,
        evidence: &Evidence,
        nonce: &[u8],
        now: SystemTime,
    ) -> Result<VerifiedDocument, Refusal> {
        if key.key_id != *self.key_id {
            return Err(Refusal::OtherKey);
        }
        let public_key = key.public_key.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
        let public_key = public_key
            .filter(|bytes| bytes.len() == key.algorithm.public_key_length())
            .and_then(|bytes| PublicKey::try_from(bytes).ok())
            .ok_or(Refusal::Malformed("public_key"))?;
        let document = self.enclave.judge(evidence, nonce, now)?;
        document.check_evidence_only()?;
        // Made from what the parent showed: if any of it is not what the enclave opened, they differ.
        let binding = Binding::new(&key.key_id, key.algorithm, &public_key, key.origin, &key.policy);
        document.check_user_data(&key_user_data(&binding))?;
        check_addresses(key, &public_key)?;
        match self.expected {
            Some(expected) if !expected.is(&public_key, &key.addresses) => {
                Err(Refusal::Unexpected(format!("0x{}", hex::encode(&*public_key))))
            }
            _ => Ok(document),
        }
    }

    fn report(&self, key: KeyView, document: &VerifiedDocument, now: SystemTime) -> Report {
        let payload = &document.payload;
        let made = SystemTime::UNIX_EPOCH + Duration::from_millis(payload.timestamp);
        let age = now.duration_since(made).unwrap_or_default();
        Report {
            key,
            module_id: payload.module_id.clone(),
            document_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            pcrs: payload.pcrs.iter().map(|(i, pcr)| (format!("PCR{i}"), hex::encode(**pcr))).collect(),
            foreign_root: !self.enclave.root.is_aws(),
        }
    }
}

impl From<AskError> for VerifyError {
    /// A refused record, like a reply that is none, is a verdict on the key; any other problem says nothing about it.
    fn from(error: AskError) -> Self {
        match error {
            AskError::Malformed(what) => Refusal::Malformed(what).into(),
            error if matches!(error.slug(), "record-refused" | "kms-denied") => {
                Refusal::Record(error.slug().to_owned()).into()
            }
            error => Self::Parent(error),
        }
    }
}

/// Addresses are in no evidence, and an address is where the value goes: what the parent shows has to be
/// what the attested public key gives.
fn check_addresses(key: &KeyView, public_key: &PublicKey) -> Result<(), Refusal> {
    match addresses::derive(key.algorithm, public_key) {
        Some(derived) if derived == key.addresses => Ok(()),
        _ => Err(Refusal::Address),
    }
}

fn nonce() -> Result<[u8; 32], VerifyError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce)?;
    Ok(nonce)
}

/// The root of the attestation's certificates, PEM; absent: AWS's.
///
/// # Errors
/// The caller's: [`VerifyError::File`], [`VerifyError::Root`].
pub fn read_root(path: Option<&Path>) -> Result<TrustAnchor, VerifyError> {
    let Some(path) = path else { return Ok(TrustAnchor::aws()) };
    TrustAnchor::from_pem(&read(path)?).map_err(|source| VerifyError::Root { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, VerifyError> {
    std::fs::read(path).map_err(|source| VerifyError::File { path: path.to_owned(), source })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyView { key_id, algorithm, public_key, origin, policy, addresses, .. } = &self.key;
        let vouched = if self.foreign_root { "the root that you named (NOT AWS's)" } else { "AWS's Nitro root" };
        writeln!(f, "VERIFIED  key {key_id}")?;
        writeln!(f)?;
        writeln!(f, "  algorithm   {algorithm}")?;
        writeln!(f, "  public key  {public_key}")?;
        writeln!(f, "  origin      {origin}")?;
        writeln!(f, "  policy      {}", policy.canonical_json())?;
        for (chain, address) in addresses {
            writeln!(f, "  address     {chain} {address}")?;
        }
        if self.key.state != StateName::Enabled {
            let word = if self.key.state == StateName::Disabled { "disabled" } else { "to be deleted" };
            writeln!(f, "  state       {word}, says the parent: it signs nothing now")?;
        }
        writeln!(f)?;
        writeln!(f, "  The enclave {} holds this key under this policy;", self.module_id.escape_debug())?;
        writeln!(
            f,
            "  it said so {} ms ago, to a nonce made for this question, and {vouched} vouches for it.",
            self.document_age_ms
        )?;
        for (index, pcr) in self.pcrs.iter().filter(|(index, _)| matches!(index.as_str(), "PCR0" | "PCR16")) {
            writeln!(f, "  {index:<6} {pcr}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored_record::tests::sample;
    use strongroom_protocol::Algorithm;

    fn told(algorithm: Algorithm, public_key: &str, addresses: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut key = KeyView::from(&sample("a"));
        key.algorithm = algorithm;
        key.addresses = addresses.iter().map(|(chain, address)| ((*chain).to_owned(), (*address).to_owned())).collect();
        check_addresses(&key, &PublicKey::try_from(hex::decode(public_key).expect("hex")).expect("short"))
    }

    #[test]
    fn addresses_that_are_not_the_attested_keys_are_refused() {
        const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        const ITS_OWN: &str = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf";
        const ANOTHERS: &str = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF";
        let zero = "1".repeat(32);
        assert!(told(Algorithm::Secp256k1, KEY, &[("ethereum", ITS_OWN)]).is_ok());
        assert!(told(Algorithm::Ed25519, &"00".repeat(32), &[("solana", &zero)]).is_ok());
        for (name, addresses) in [
            ("another_keys", &[("ethereum", ANOTHERS)][..]),
            ("missing", &[]),
            ("unknown_chain_instead", &[("bitcoin", ITS_OWN)]),
            ("unknown_chain_beside", &[("ethereum", ITS_OWN), ("bitcoin", ANOTHERS)]),
            ("chain_of_another_algorithm", &[("ethereum", ITS_OWN), ("solana", &zero)]),
            ("checksum_of_eip_55_broken", &[("ethereum", &ITS_OWN.to_lowercase())]),
        ] {
            assert!(matches!(told(Algorithm::Secp256k1, KEY, addresses), Err(Refusal::Address)), "{name}");
        }
        let no_point = format!("02{}05", "00".repeat(31));
        assert!(matches!(told(Algorithm::Secp256k1, &no_point, &[]), Err(Refusal::Address)), "no_point");
    }
}
