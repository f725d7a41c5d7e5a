//! `strongroom attestation get`: a document made now, as a file. It is not judged.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::json;

use super::nonce_or_random;
use crate::cli::connection::Connection;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::{files, hex_text, output, runtime};
use crate::client::AskError;

/// Fetch an attestation document of the enclave
///
/// Asks a parent for a document that its enclave makes now for a nonce, and writes it as it is: COSE_Sign1, in bytes;
/// with --json in base64, beside its nonce and its registers; in base64 too where standard output is a terminal. The
/// nonce is printed: give it to `strongroom attestation verify`, which tells a new document from an old one by it.
/// Nothing of the document is verified here.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  strongroom attestation get --out enclave.cose\n  \
                        strongroom attestation get --nonce 0x00c0ffee --json > enclave.json"
)]
pub(in crate::cli) struct Get {
    /// 1 to 512 bytes, in hex, that stand in the document [default: 32 random bytes]
    #[arg(long, value_name = "HEX", value_parser = hex_text)]
    nonce: Option<String>,
    /// Where the document goes, in place of what may be there; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// Write JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Get {
    pub(super) fn run(self) -> Outcome {
        let parent = self.connection.parent()?;
        let nonce = nonce_or_random(self.nonce)?;
        let runtime = runtime()?;
        let evidence = runtime.block_on(parent.attest(None, &nonce))?;
        let document = STANDARD.decode(&evidence.document).map_err(|_| AskError::Malformed("document"))?;
        let content = if self.json {
            let told = json!({ "nonce": nonce, "document": evidence.document, "pcrs": evidence.pcrs });
            (output::json(&told)? + "\n").into_bytes()
        } else if files::is_standard(&self.out) && std::io::stdout().is_terminal() {
            (STANDARD.encode(document) + "\n").into_bytes()
        } else {
            document
        };
        write(&self.out, &content)?;
        output::note(&format!("nonce  {nonce}"));
        Ok(Exit::Done)
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    if files::is_standard(path) {
        let mut stdout = std::io::stdout();
        let written = stdout.write_all(content).and_then(|()| stdout.flush());
        return written.map_err(|error| files::not_written(path, &error));
    }
    files::publish(path, content)
}
