//! The command line `strongroom`, as scripts and people use it: what it prints, as text and as JSON, and with which
//! exit code. `keys`, `bulk`: against a whole appliance; `changes`: of keys; `answers`: whatever a parent may
//! answer; `paper`: what is asked, and of a parent that others use at the same time; `tls`: whom it believes;
//! `local`: without a parent; `attestation`: documents as files; `doctor`: a host
//! that misses something.

mod answers;
mod attestation;
mod bulk;
mod changes;
mod doctor;
mod keys;
mod local;
mod paper;
mod paper_parent;
mod tls;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use strongroom_tests::stack::binary;
use tokio::process::Command;
use tokio::time::timeout;

/// `strongroom` in `directory`, with nothing from the environment of whoever runs the tests.
pub(crate) fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("strongroom"));
    command.current_dir(directory).args(arguments).kill_on_drop(true);
    for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "STRONGROOM_TOKEN", "STRONGROOM_URL"] {
        command.env_remove(variable);
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true").stdin(std::process::Stdio::null());
    command
}

/// Runs `strongroom` in `directory`; it must end by itself.
pub(crate) async fn strongroom(directory: &Path, arguments: &[&str]) -> Output {
    ended(&mut command(directory, arguments)).await
}

pub(crate) async fn ended(command: &mut Command) -> Output {
    timeout(Duration::from_secs(60), command.output()).await.expect("it ends").expect("it runs")
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// `strongroom key …` against one parent.
#[derive(Debug, Clone)]
struct Key {
    url: String,
    token: Option<String>,
}

impl Key {
    fn of(url: &str) -> Self {
        Self { url: url.to_owned(), token: None }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(Path::new("."), &[&["key"], arguments].concat());
        command.env("STRONGROOM_URL", &self.url);
        if let Some(token) = &self.token {
            command.env("STRONGROOM_TOKEN", token);
        }
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        ended(&mut self.command(arguments)).await
    }

    /// Runs a command that ends with this code; what it printed to standard output.
    #[track_caller]
    fn expect(&self, code: i32, arguments: &[&str]) -> impl Future<Output = String> {
        let (caller, arguments) = (std::panic::Location::caller(), arguments.iter().map(ToString::to_string));
        let (key, arguments): (Self, Vec<String>) = (self.clone(), arguments.collect());
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = key.run(&arguments).await;
            assert_eq!(output.status.code(), Some(code), "{caller}: {arguments:?}: {}", said(&output));
            String::from_utf8(output.stdout).expect("text")
        }
    }

    /// The same with `--json`.
    async fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let printed = self.expect(code, &[arguments, &["--json"]].concat()).await;
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
    }
}
