//! `make bench`: what the appliance costs, measured from outside on real processes, in one report with a
//! section per topic. It measures and judges nothing: no figure makes it fail.

mod records;
mod report;
mod samples;

use std::fs;
use std::io;
use std::path::Path;

use reqwest::StatusCode;

use crate::api::Reply;
use report::Report;

/// Runs all sections, prints the report, and writes it to `report.md` and `report.json` in `directory`.
///
/// # Errors
/// A process does not start, or does not do what is to be measured.
pub async fn run(directory: &Path) -> io::Result<()> {
    let mut report = Report::new()?;
    report.sections.push(records::section().await?);
    report.publish(directory)
}

/// The reply, if its status is the one without which there is nothing to measure.
fn expect(status: StatusCode, reply: Reply) -> io::Result<Reply> {
    if reply.status == status { Ok(reply) } else { Err(io::Error::other(format!("{}: {}", reply.status, reply.body))) }
}

/// What a process has in memory (RSS), in MiB.
fn memory_mib(process: Option<u32>) -> io::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.unwrap_or_default()))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    let kib: f64 = kib.and_then(|kib| kib.parse().ok()).ok_or_else(|| io::Error::other("no VmRSS"))?;
    Ok(kib / 1024.0)
}
