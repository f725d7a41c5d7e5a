//! `strongroom doctor`, as a command: what is printed. What is looked at is `doctor`'s matter.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::exit::{Exit, Outcome};
use super::local::ConfigFile;
use super::{output, runtime};
use crate::doctor::{Patient, Report, Status};

/// Look at a host, and say what the daemon would miss
///
/// Checks the configuration, the Nitro device, memory and vsock, whether the enclave and the parent answer, the way to
/// KMS, the clock, AWS credentials and where they come from, the store, and that the key policies let nobody use the KMS keys without
/// attestation (by a dry run, which makes nothing). Says of each what is missing and how to mend it. Changes nothing,
/// and does not disturb a daemon that runs. Run it as the daemon's user and with its environment.
///
/// Exits with 0 if nothing failed and 1 if something did; a warning is no failure.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  sudo -u strongroom strongroom doctor\n  \
                  strongroom doctor --config strongroom.toml --json | jq '.checks[] | select(.status == \"failed\")'"
)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where /dev, /etc and /sys are looked for, for tests
    #[arg(long, hide = true, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Looks at everything and says what was found.
pub(super) fn run(arguments: DoctorArguments) -> Outcome {
    let DoctorArguments { file, json, root } = arguments;
    let runtime = runtime()?;
    let report = runtime.block_on(Patient { config: file.config, root }.examine());
    // A name that does not resolve may keep a thread of its own; nobody waits for it.
    runtime.shutdown_timeout(Duration::ZERO);
    output::print(json, &report, text)?;
    Ok(if report.healthy { Exit::Done } else { Exit::Failed })
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.checks {
        let status = match finding.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failed => "FAILED",
            Status::Skipped => "skipped",
        };
        let _ = writeln!(text, "{status:<9}{:<18}{}", finding.check, finding.found);
        if let Some(mend) = &finding.mend {
            let _ = writeln!(text, "{:27}mend: {mend}", "");
        }
    }
    let count = |status| report.checks.iter().filter(|finding| finding.status == status).count();
    let _ = writeln!(text, "\n{} failed, {} to look at", count(Status::Failed), count(Status::Warning));
    text
}
