//! Libraries of another language: the Python environment that `make test` installs into
//! `target/python`. Verifiers of signatures and emulators of AWS come from there.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A program of the environment, for example `python`.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin").join(name)
}

/// Runs a script of `tests/` on this input and returns what it printed.
///
/// # Errors
/// The environment is missing, or the script failed; then the text is what it complained about.
pub async fn run(script: &str, input: &str) -> io::Result<String> {
    let mut child = Command::new(program("python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| io::Error::other(format!("target/python: {error}; `make test` installs it")))?;
    let stdin = child.stdin.take();
    let write = async {
        match stdin {
            Some(mut stdin) => stdin.write_all(input.as_bytes()).await,
            None => Ok(()),
        }
    };
    // Side by side: it answers while it reads.
    let (written, output) = tokio::join!(write, child.wait_with_output());
    let output = output?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    written?;
    String::from_utf8(output.stdout).map_err(io::Error::other)
}
