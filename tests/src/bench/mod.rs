//! `make bench`: what the appliance costs, measured from outside on real processes, in one report with a
//! section per topic. It measures and judges nothing: no figure makes it fail.

mod records;
mod report;
mod samples;

use std::io;
use std::path::Path;

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
