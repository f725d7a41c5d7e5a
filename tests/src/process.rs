//! The processes of a stack: each with its log, and gone with whoever started it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// From starting a process to its first sign of life.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A child with a log file and a pid file named after it.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    pub(crate) child: Child,
    directory: PathBuf,
}

impl Process {
    pub(crate) fn start(name: &'static str, command: &mut Command, directory: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(directory.join(format!("{name}.log")))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| io::Error::other(format!("{:?}: {error}", command.as_std().get_program())))?;
        if let Some(id) = child.id() {
            fs::write(directory.join(format!("{name}.pid")), format!("{id}\n"))?;
        }
        Ok(Self { name, child, directory: directory.to_owned() })
    }

    /// Waits for a sign of life.
    pub(crate) async fn wait_for<T>(&mut self, sign: impl Fn() -> Option<T>) -> io::Result<T> {
        let started = Instant::now();
        loop {
            if let Some(sign) = sign() {
                return Ok(sign);
            }
            if self.child.try_wait()?.is_some() || started.elapsed() > START_TIMEOUT {
                return Err(io::Error::other(format!("{} did not start\n{}", self.name, self.log_end())));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            Some(_) => Ok(()),
            None => self.child.kill().await,
        }
    }

    /// Its status, unless it had to be killed.
    pub(crate) async fn terminate(&mut self) -> io::Result<Option<ExitStatus>> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            kill_process(id, Signal::TERM)?;
        }
        let status = match timeout(Duration::from_secs(30), self.child.wait()).await {
            Ok(status) => Some(status?),
            Err(_) => {
                self.kill().await?;
                None
            }
        };
        let _ = fs::remove_file(self.directory.join(format!("{}.pid", self.name)));
        Ok(status)
    }

    pub(crate) fn log_end(&self) -> String {
        let log = fs::read_to_string(self.directory.join(format!("{}.log", self.name))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

/// A binary of the workspace, beside the one that runs (test binaries run in `deps/`).
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    target_directory().join(name)
}

/// A new folder for one test, under the target directory; nothing is written elsewhere.
///
/// # Errors
/// It cannot be made.
pub fn test_directory() -> io::Result<tempfile::TempDir> {
    let parent = target_directory().join("../tmp");
    fs::create_dir_all(&parent)?;
    tempfile::tempdir_in(parent)
}

fn target_directory() -> PathBuf {
    let running = std::env::current_exe().unwrap_or_default();
    let folder = running.parent().unwrap_or(Path::new(".")).to_owned();
    if folder.ends_with("deps") { folder.parent().unwrap_or(Path::new(".")).to_owned() } else { folder }
}
