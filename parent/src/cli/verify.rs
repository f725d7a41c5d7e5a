//! `strongroom key verify`, as a command: its arguments and what is printed. What is verified is `verify`'s matter.

use clap::Args;
use strongroom_protocol::KeyId;

use super::enclave::{EnclaveArguments, nothing_found_out};
use super::exit::{Exit, Outcome};
use super::expected::ExpectedArguments;
use super::output;
use crate::client::Parent;
use crate::verify::{Inquiry, VerifyError};

/// Verify that a key lives in the enclave it should live in
///
/// Asks a running parent for the key and for fresh evidence about it, and verifies the evidence
/// here: AWS's certificate chain, the signature, freshness, the nonce, the enclave's PCRs, and that
/// the enclave opened a key of exactly this id, algorithm, public key, origin and policy. The
/// addresses are derived here from that public key. Do this before you send anything to a key's
/// address: it is what finds a parent that shows you keys or addresses of its own.
///
/// Exits with 0 if the key is verified, 1 if it is refused, 3 if nothing could be found out, 4 if
/// there is no such key and 6 if the parent does not permit it.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = "Example:\n  strongroom key verify hot-1 --pcrs pcrs.json")]
pub(super) struct Verify {
    /// The key
    key_id: KeyId,
    #[command(flatten)]
    enclave: EnclaveArguments,
    #[command(flatten)]
    expected: ExpectedArguments,
}

impl Verify {
    pub(super) async fn run(self, parent: &Parent, json: bool) -> Outcome {
        let enclave = self.enclave.read()?;
        let expected = self.expected.parse()?;
        let inquiry = Inquiry { key_id: &self.key_id, enclave: &enclave, expected: expected.as_ref() };
        match inquiry.run(parent).await {
            Ok(report) => output::print(json, &report, ToString::to_string),
            Err(VerifyError::Refused(refusal)) => {
                output::note(&format!("REFUSED  key {}: {refusal}", self.key_id));
                Ok(Exit::Failed)
            }
            Err(error) => Err(nothing_found_out(error)),
        }
    }
}
