//! The command line: what commands there are, and which code does them. The commands that ask a parent are in
//! `key` and beside it, those that do not in `local`; what is printed is `output`'s, and the exit codes `exit`'s.

mod adopt;
mod attestation;
mod bulk;
mod change;
mod connection;
mod create;
mod doctor;
mod enclave;
mod exit;
mod expected;
mod export;
mod files;
mod image;
mod import;
mod key;
mod key_material;
mod kms_policy;
mod list;
mod local;
mod output;
mod policy;
mod recipient;
mod rewrap;
mod sign;
mod verify;

use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{CommandFactory as _, Parser, Subcommand};
use serde::de::DeserializeOwned;

use strongroom_runtime::harden;

use self::attestation::AttestationCommand;
use self::doctor::DoctorArguments;
use self::exit::{Exit, Failure};
use self::image::ImageCommand;
use self::key::KeyArguments;
use self::kms_policy::KmsPolicyCommand;
use self::local::{CheckArguments, ConfigFile, NewTokenArguments};
use self::recipient::NewRecipient;

/// A signing appliance whose keys live in an AWS Nitro Enclave.
///
/// As a daemon, this program never sees a key: it authenticates callers, keeps sealed key records, and carries
/// bytes between the enclave and KMS. The commands that custodians run on machines of their own do: `key
/// import`, `key open-export` and `recipient new`.
///
/// `strongroom serve` is the daemon; `strongroom key …` asks one, here or elsewhere.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, verbatim_doc_comment, arg_required_else_help = true, after_help = exit::help())]
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
    #[command(
        verbatim_doc_comment,
        after_help = "Example:\n  strongroom serve --config /etc/strongroom/strongroom.toml"
    )]
    Serve(ConfigFile),
    /// Look at configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make bearer tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make keys for recipients of exported keys
    #[command(subcommand)]
    Recipient(RecipientCommand),
    /// Make enclave images, and look into them
    #[command(subcommand)]
    Image(Box<ImageCommand>),
    Key(Box<KeyArguments>),
    /// Write and check the KMS key policy that admits enclaves
    #[command(subcommand)]
    KmsPolicy(Box<KmsPolicyCommand>),
    /// Fetch attestation documents, and verify them
    #[command(subcommand)]
    Attestation(Box<AttestationCommand>),
    Doctor(DoctorArguments),
    /// Print a completion script for a shell
    ///
    /// The script goes to standard output. Where a shell looks for it is the shell's matter; the
    /// examples are the usual places.
    #[command(
        verbatim_doc_comment,
        after_help = "Examples:\n  \
        strongroom completions bash > ~/.local/share/bash-completion/completions/strongroom\n  \
        strongroom completions zsh > \"${fpath[1]}/_strongroom\"\n  \
        strongroom completions fish > ~/.config/fish/completions/strongroom.fish"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check strongroom.toml, and the enclave's configuration and TLS files that it names
    ///
    /// Prints what would be served, and the PCR16 that the key policy has to pin: the measurement of
    /// the enclave's configuration, byte for byte. Exits with 1 if anything is wrong.
    #[command(
        verbatim_doc_comment,
        after_help = "Examples:\n  strongroom config check --config strongroom.toml\n  \
        strongroom config check --json | jq -r .pcr16"
    )]
    Check(CheckArguments),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token for a caller
    ///
    /// Prints the token, once: it is stored nowhere. Give it to the caller, and put the table below it
    /// into strongroom.toml, which holds only its hash. What the identity may do and with which keys
    /// is up to you; as printed it may do nothing.
    #[command(verbatim_doc_comment, after_help = "Example:\n  strongroom token new --name payments")]
    New(NewTokenArguments),
}

#[derive(Debug, Subcommand)]
enum RecipientCommand {
    /// Make a key to which enclaves can seal exported keys
    ///
    /// Run this on the recipient's machine, where `strongroom key open-export` will run. The private key
    /// (X25519, PEM) stays there; what is printed goes into the enclave's configuration, and is no secret.
    #[command(
        verbatim_doc_comment,
        after_help = "Example:\n  strongroom recipient new --name vault --key-file vault.pem"
    )]
    New(NewRecipient),
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    // Every command: some hold keys, most a token.
    if let Err(error) = harden() {
        return output::complain(Failure::new(Exit::Failed, error)).into();
    }
    let outcome = match Cli::parse().command {
        Command::Serve(ConfigFile { config }) => local::serve(&config),
        Command::Config(ConfigCommand::Check(arguments)) => local::check(&arguments),
        Command::Token(TokenCommand::New(arguments)) => local::new_token(&arguments),
        Command::Recipient(RecipientCommand::New(arguments)) => recipient::new(&arguments),
        Command::Image(command) => image::run(&command),
        Command::Key(arguments) => key::run(*arguments),
        Command::KmsPolicy(command) => kms_policy::run(&command),
        Command::Attestation(command) => attestation::run(*command),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "strongroom", &mut script);
            output::say(&String::from_utf8_lossy(&script));
            Ok(Exit::Done)
        }
    };
    outcome.unwrap_or_else(output::complain).into()
}

/// What runs a command that asks somebody.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(Exit::Failed, error))
}

/// The algorithms, as `--algorithm` has them.
const ALGORITHMS: [&str; 4] = ["secp256k1", "ed25519", "bip32-secp256k1", "slip10-ed25519"];

/// Parses one of these words of the API.
fn words<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words).try_map(|word| serde_json::from_value(serde_json::Value::String(word)))
}

/// Parses hex, `0x` optional; stays text.
fn hex_text(text: &str) -> Result<String, &'static str> {
    crate::http::from_hex(text).map(|bytes| format!("0x{}", hex::encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_first_line_and_every_leaf_an_example() {
        fn visit(command: &clap::Command) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name}");
            if command.get_subcommands().next().is_none() {
                let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(after.contains("strongroom "), "{name}");
                assert!(command.get_long_about().is_some(), "{name}");
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&Cli::command());
    }

    #[test]
    fn every_word_that_help_offers_is_a_word_of_the_api() {
        use clap::Parser as _;
        for line in [
            "key create a --algorithm secp256k1 --payloads message,digest --hold-seconds 1",
            "key create --count 5 --prefix a- --algorithm ed25519 --first 3 --jobs 2 --rate 5 --patience 1",
            "key list --state pending_deletion --limit 3 --json",
            "key sign a --message 00 --hash sha256d --scheme bip340",
            "key sign a --digest 0x00 --scheme ecdsa",
            "key rewrap --all --kms-key-arn arn:aws:kms:eu-central-1:111122223333:key/1 --prefix a",
            "key attest",
            "key attest a --nonce 0xAB",
            "key create a --algorithm ed25519 --exportable",
            "key import a --algorithm ed25519 --file f --format solana --pcrs p --enclave-config c --password-file w",
            "key adopt a --algorithm secp256k1 --secret-id s --expect-address 0xAB --pcrs p",
            "key adopt a --algorithm ed25519 --ciphertext-file - --expect-public-key 0xAB --hold-seconds 5 --pcrs p",
            "key export a --recipient vault --pcrs p --expect-address 0xAB",
            "key open-export f --recipient-key k --out - --expect-public-key 0xAB",
            "recipient new --name vault --key-file k --json",
            "image build --kernel k --command-line c --enclave e --configuration c --output o --pcrs p --arch aarch64",
            "image build --kernel k --command-line c --ramdisk a --ramdisk b --output o --name n --version 2",
            "image describe f --json",
            "kms-policy generate --administrator a --user b --provisioner c --admit p e --admit q f --deny-key k --lock",
            "kms-policy generate --administrator a --instance-role r --allow-own-tls-roots --output o",
            "kms-policy lint f --key-metadata m --json",
            "doctor --config c --json",
            "attestation get --nonce 0xAB --out - --url http://a --token t --json",
            "attestation verify f --pcrs p --enclave-config c --nonce 0xAB --at 2025-01-31T12:00:00Z --max-age 60",
            "attestation verify - --any-enclave --kind import-key --attestation-root r --json",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("strongroom").chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
        }
    }
}
