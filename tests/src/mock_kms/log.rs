//! What was asked and how it ended, like CloudTrail: one JSON line per call. Never key material, never
//! plaintexts. Decides nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use strongroom_protocol::document::Payload;

use super::faults::FaultKind;

/// One call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Counts up from 1, across restarts.
    pub sequence: u64,
    /// RFC 3339, UTC.
    pub time: String,
    /// The `x-amzn-RequestId` of the reply.
    pub request_id: String,
    /// The action (`Decrypt`); absent if there is none of the requested name.
    pub action: Option<String>,
    /// The ARN of the KMS key; absent if it was not found out.
    pub key_arn: Option<String>,
    /// The caller's ARN; absent if the request was not authentic.
    pub principal: Option<String>,
    /// The encryption context.
    pub encryption_context: BTreeMap<String, String>,
    /// What the attestation document says, if it is genuine and fresh.
    pub attested: Option<Attested>,
    /// `Success`, or the error's code.
    pub outcome: String,
    /// From the request to the reply, in microseconds, delays on demand included.
    #[serde(default)]
    pub handled_us: u64,
    /// The faults that were set for this call.
    pub faults: Vec<FaultKind>,
}

/// CloudTrail's `additionalEventData.recipient`, and PCR16.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attested {
    /// The enclave's id.
    pub module_id: String,
    /// `PCR0`-`PCR4`, `PCR8` and `PCR16`, as far as the document has them, lower-case hex.
    pub pcrs: BTreeMap<String, String>,
}

impl From<&Payload> for Attested {
    fn from(document: &Payload) -> Self {
        let registers = [0, 1, 2, 3, 4, 8, 16].into_iter();
        let pcrs = registers.filter_map(|n| Some((format!("PCR{n}"), hex::encode(document.pcr(n)?)))).collect();
        Self { module_id: document.module_id.clone(), pcrs }
    }
}

/// The log, in memory and in a file.
pub(super) struct CallLog {
    file: File,
    calls: Vec<Call>,
}

impl CallLog {
    /// Continues the log in `path`. A last line that a killed process left unfinished is dropped.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        let calls = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        file.set_len(text.len() as u64)?;
        Ok(Self { file, calls })
    }

    /// Appends a call and numbers it.
    pub(super) fn append(&mut self, mut call: Call, started: Instant) -> io::Result<()> {
        let until_now = || u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        call.sequence = self.calls.len() as u64 + 1;
        call.handled_us = until_now();
        let mut line = serde_json::to_vec(&call)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        // What the file does not say of itself: the writing.
        call.handled_us = until_now();
        self.calls.push(call);
        Ok(())
    }

    /// The calls after the one of this number.
    pub(super) fn since(&self, sequence: u64) -> Vec<Call> {
        self.calls.iter().filter(|call| call.sequence > sequence).cloned().collect()
    }
}
