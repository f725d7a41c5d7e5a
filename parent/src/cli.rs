//! The command line: parses arguments, calls what does the work, prints, and chooses the exit code. The
//! only place that writes to the terminal.

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Parser, Subcommand};
use reqwest::Url;
use strongroom_protocol::{KeyId, Measurement, SecretString};

use crate::auth::TokenHash;
use crate::config::{Config, Loaded};
use crate::verify::{Inquiry, VerifyError};
use crate::{logging, serve};

/// A signing appliance whose keys live in an AWS Nitro Enclave.
///
/// The keys never leave the enclave and this program never sees one. It authenticates callers, keeps
/// sealed key records, carries bytes between the enclave and KMS, and verifies attestation documents.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or SIGINT
    ///
    /// Connects to the enclave, configures it, hands it AWS credentials, carries its connections to
    /// KMS, and serves the REST API. Logs to standard error; RUST_LOG=debug says more. On SIGTERM it
    /// accepts nothing new, finishes the requests in flight and exits with 0.
    Serve(ConfigFile),
    /// Look at configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make bearer tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Find out about keys
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check strongroom.toml, and the enclave's configuration and TLS files that it names
    ///
    /// Prints what would be served, and the PCR16 that the key policy has to pin: the measurement of
    /// the enclave's configuration, byte for byte. Exits with 1 if anything is wrong.
    Check(ConfigFile),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// strongroom.toml; relative paths in it start from its own folder
    #[arg(long, value_name = "FILE", default_value = "/etc/strongroom/strongroom.toml")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token for a caller
    ///
    /// Prints the token, once: it is stored nowhere. Give it to the caller, and put the table below it
    /// into strongroom.toml, which holds only its hash. What the identity may do and with which keys
    /// is up to you; as printed it may do nothing.
    New {
        /// The identity's name in the log: 1 to 64 of [A-Za-z0-9._-]
        #[arg(long, value_parser = identity_name)]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Verify that a key lives in the enclave it should live in
    ///
    /// Asks a running parent for the key and for fresh evidence about it, and verifies the evidence
    /// here: AWS's certificate chain, the signature, freshness, the nonce, the enclave's PCRs, and that
    /// the enclave opened a key of exactly this id, algorithm, public key, origin and policy. The
    /// addresses are derived here from that public key. Do this before you send anything to a key's
    /// address: it is what finds a parent that shows you keys or addresses of its own.
    ///
    /// Exits with 0 if the key is verified, 1 if it is refused, 2 if nothing could be found out.
    Verify(VerifyArguments),
}

#[derive(Debug, Args)]
struct VerifyArguments {
    /// The key
    key_id: KeyId,
    /// The parent
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: Url,
    /// Expected registers, {"PCR0": "hex", …}: PCR0 (the image) and PCR16 (its configuration) at least
    #[arg(long, value_name = "FILE")]
    pcrs: PathBuf,
    /// For tests only: believe this root (PEM) instead of AWS's
    #[arg(long, value_name = "FILE")]
    attestation_root: Option<PathBuf>,
    /// A bearer token with the operation `read`; better given by the environment
    #[arg(long, env = "STRONGROOM_TOKEN", hide_env_values = true, value_parser = secret)]
    token: Option<SecretString>,
    /// Refuse the key unless its public key is this one (hex)
    #[arg(long, value_name = "HEX", value_parser = public_key)]
    expect_public_key: Option<PublicKeyBytes>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone)]
struct PublicKeyBytes(Vec<u8>);

const FAILED: u8 = 1;
const NOTHING_FOUND_OUT: u8 = 2;

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(ConfigFile { config }) => run_daemon(&config),
        Command::Config(ConfigCommand::Check(ConfigFile { config })) => check(&config),
        Command::Token(TokenCommand::New { name }) => new_token(&name),
        Command::Key(KeyCommand::Verify(arguments)) => verify(arguments),
    }
}

fn run_daemon(config: &std::path::Path) -> ExitCode {
    let loaded = match Config::load(config) {
        Ok(loaded) => loaded,
        Err(error) => return complain(FAILED, &error),
    };
    logging::start(loaded.config.log.format);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return complain(FAILED, &error),
    };
    match runtime.block_on(serve::serve(loaded)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(FAILED, &error),
    }
}

fn check(config: &std::path::Path) -> ExitCode {
    let Loaded { config, enclave, enclave_bytes, tls } = match Config::load(config) {
        Ok(loaded) => loaded,
        Err(error) => return complain(FAILED, &error),
    };
    let callers = match config.identities.len() {
        0 => "every process on this machine (no identities)".to_owned(),
        n => format!("{n} identities"),
    };
    let tls = tls.map_or_else(
        || "none: plain HTTP".to_owned(),
        |tls| format!("{}\n             client certificates: {}", tls.leaf, tls.clients),
    );
    say(&format!(
        "ok\n\n  listen     {listen}\n  TLS        {tls}\n  callers    {callers}\n  enclave    {address}\n  KMS        {host}, {keys} key(s)\n  PCR16      {pcr16}\n",
        listen = config.listen,
        address = config.enclave.address,
        host = enclave.kms_host,
        keys = enclave.kms_keys.len(),
        pcr16 = hex::encode(Measurement::of(&enclave_bytes).pcr16),
    ))
}

/// The prefix lets secret scanners find a token that was committed somewhere.
const TOKEN_PREFIX: &str = "srt_";

fn new_token(name: &str) -> ExitCode {
    let mut random = [0; 32];
    if let Err(error) = getrandom::fill(&mut random) {
        return complain(NOTHING_FOUND_OUT, &error);
    }
    let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = TokenHash::of(token.as_bytes());
    say(&format!(
        "The token, shown only this once:\n\n  {token}\n\nFor strongroom.toml:\n\n[[identities]]\nname = \"{name}\"\n\
         token_sha256 = \"{hash}\"\noperations = []  # \"read\", \"sign\", \"manage\"\nkeys = []        # patterns such as \"hot-*\"\n"
    ))
}

fn verify(arguments: VerifyArguments) -> ExitCode {
    if arguments.attestation_root.is_some() {
        let _ = writeln!(
            stderr(),
            "WARNING: --attestation-root replaces AWS's root. Whoever holds that root's key can make any key pass.\n\
             WARNING: this is for test enclaves. Do not send value to an address verified like this.\n"
        );
    }
    let inquiry = Inquiry {
        key_id: arguments.key_id,
        url: arguments.url,
        token: arguments.token,
        pcrs: arguments.pcrs,
        attestation_root: arguments.attestation_root,
        expect_public_key: arguments.expect_public_key.map(|PublicKeyBytes(bytes)| bytes),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(NOTHING_FOUND_OUT, &error),
    };
    match runtime.block_on(inquiry.run()) {
        Ok(report) if arguments.json => match serde_json::to_string_pretty(&report) {
            Ok(json) => say(&format!("{json}\n")),
            Err(error) => complain(NOTHING_FOUND_OUT, &error),
        },
        Ok(report) => say(&report.to_string()),
        Err(VerifyError::Refused(refusal)) => {
            let _ = writeln!(stderr(), "REFUSED  key {}: {refusal}", inquiry.key_id);
            ExitCode::from(FAILED)
        }
        Err(error) => complain(NOTHING_FOUND_OUT, &error),
    }
}

fn identity_name(text: &str) -> Result<String, &'static str> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("a name is 1 to 64 of [A-Za-z0-9._-]")
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a clap value parser")]
fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::new(text.to_owned()))
}

fn public_key(text: &str) -> Result<PublicKeyBytes, &'static str> {
    crate::http::from_hex(text).map(PublicKeyBytes)
}

/// A reader that went away (`| head`) is no failure of the command.
fn say(text: &str) -> ExitCode {
    let _ = stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn complain(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(stderr(), "strongroom: {error}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
