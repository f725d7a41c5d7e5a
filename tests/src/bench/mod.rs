//! `make bench`: what the appliance costs, measured from outside on real processes, in one report with a
//! section per topic. It measures and judges nothing: no time makes it fail, only what answers wrongly.

mod load;
mod records;
mod report;
mod samples;
mod seeds;
mod speed;

use std::fs;
use std::io;
use std::path::Path;

use clap::ValueEnum;
use reqwest::StatusCode;

use crate::api::Reply;
use report::Report;

/// What there is a section on.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Topic {
    /// How fast it signs, against what signing costs.
    Speed,
    /// What the number of records costs.
    Records,
    /// What many addresses of one seed cost.
    Seeds,
}

/// Runs all sections, or `only` one, prints the report, and writes it to `report.md` and `report.json` in
/// `directory`.
///
/// # Errors
/// A process does not start, or does not do what is to be measured.
pub async fn run(directory: &Path, only: Option<Topic>) -> io::Result<()> {
    let mut report = Report::new()?;
    for topic in only.as_ref().map_or(Topic::value_variants(), std::slice::from_ref) {
        report.sections.push(match topic {
            Topic::Speed => speed::section(directory, &mut report.ratios).await?,
            Topic::Records => records::section().await?,
            Topic::Seeds => seeds::section().await?,
        });
    }
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
