//! Whether a host has what the daemon needs (`strongroom doctor`): looked at from outside, one thing after the other, each
//! with what is missing and how to mend it. Changes nothing, and says no secret. The daemon does not reach this module.

mod clock;
mod credentials;
mod enclave;
mod host;
mod kms;
mod store;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use crate::client::printable;
use crate::config::{Config, Loaded};
use crate::serve;

/// What is looked at.
#[derive(Debug)]
pub struct Patient {
    /// strongroom.toml.
    pub config: PathBuf,
    /// Where `/dev`, `/etc` and `/sys` are looked for: `/`, but for tests.
    pub root: PathBuf,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether nothing failed.
    pub healthy: bool,
    /// One finding per thing that was looked at, in order.
    pub checks: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What.
    pub check: &'static str,
    /// How it is.
    pub status: Status,
    /// What was seen.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// The daemon can serve; somebody should look at it.
    Warning,
    /// The daemon cannot serve, or a promise does not hold.
    Failed,
    /// Does not apply, or cannot be found out.
    Skipped,
}

/// How long one thing is looked at.
const DEADLINE: Duration = Duration::from_secs(5);

impl Patient {
    /// Looks at everything.
    pub async fn examine(&self) -> Report {
        let checks = match Config::load(&self.config) {
            Ok(loaded) => self.examine_with(&loaded).await,
            Err(error) => {
                let mend = "mend the file, or name another: strongroom config check --config FILE";
                let mut checks = vec![Finding::failed("configuration", error, mend)];
                checks.extend(host::examine(&self.root).await);
                let rest = [
                    "parent",
                    "enclave",
                    "way to KMS",
                    "clock",
                    "credentials",
                    "metadata service",
                    "store",
                    "KMS keys",
                ];
                checks.extend(rest.map(|check| Finding::skipped(check, "not looked at without a configuration")));
                checks
            }
        };
        let healthy = checks.iter().all(|finding| finding.status != Status::Failed);
        Report { healthy, checks }
    }

    async fn examine_with(&self, loaded: &Loaded) -> Vec<Finding> {
        let mut checks = vec![Finding::ok("configuration", self.config.display())];
        if host::concerns(&loaded.config.enclave.address) {
            checks.extend(host::examine(&self.root).await);
        } else {
            checks.push(Finding::skipped("Nitro", "the enclave's address is not on vsock"));
        }
        let aws = serve::aws(&loaded.enclave.region).await;
        let (parent, enclave, way, clock, credentials, metadata, store, keys) = tokio::join!(
            bounded("parent", enclave::parent(&loaded.config)),
            bounded("enclave", enclave::enclave(&loaded.config.enclave.address)),
            bounded("way to KMS", clock::way(loaded)),
            bounded("clock", clock::clock(loaded)),
            bounded("credentials", credentials::provider_chain(&aws)),
            bounded("metadata service", credentials::metadata_service()),
            bounded("store", store::store(&loaded.config.store, &aws)),
            kms::keys(loaded, &aws),
        );
        checks.extend([parent, enclave, way, clock, credentials, metadata, store]);
        checks.extend(keys);
        checks
    }
}

impl Finding {
    fn ok(check: &'static str, found: impl ToString) -> Self {
        Self { check, status: Status::Ok, found: printable(&found.to_string()), mend: None }
    }

    fn skipped(check: &'static str, found: impl ToString) -> Self {
        Self { status: Status::Skipped, ..Self::ok(check, found) }
    }

    fn warning(check: &'static str, found: impl ToString, mend: impl ToString) -> Self {
        Self { status: Status::Warning, mend: Some(printable(&mend.to_string())), ..Self::ok(check, found) }
    }

    fn failed(check: &'static str, found: impl ToString, mend: impl ToString) -> Self {
        Self { status: Status::Failed, ..Self::warning(check, found, mend) }
    }
}

/// The finding, or that there was none in time.
async fn bounded(check: &'static str, finding: impl Future<Output = Finding>) -> Finding {
    timeout(DEADLINE, finding).await.unwrap_or_else(|_| {
        Finding::failed(
            check,
            format!("no answer in {} s", DEADLINE.as_secs()),
            "is the network there, and not filtered?",
        )
    })
}

/// A path below the root that is looked at.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
