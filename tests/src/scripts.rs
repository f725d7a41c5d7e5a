//! Libraries of other languages: the Python environment that `make test` installs into `target/python`, and the
//! packages of Node.js in `target/node`. Verifiers of signatures and emulators of AWS come from there.

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
    let mut command = Command::new(program("python"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
    piped(command, input).await
}

/// The same for a script of Node.js, with the packages that `make test` installs into `target/node`.
///
/// # Errors
/// As of [`run`].
pub async fn run_node(script: &str, input: &str) -> io::Result<String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("node");
    command.arg(tests.join(script)).env("NODE_PATH", tests.join("../target/node/node_modules"));
    piped(command, input).await
}

async fn piped(mut command: Command, input: &str) -> io::Result<String> {
    let missing = |error| io::Error::other(format!("{error}; `make test` installs what the scripts need"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(missing)?;
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
