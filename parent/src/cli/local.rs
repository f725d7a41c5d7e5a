//! The commands that ask no parent: the daemon itself, the check of its configuration, and new tokens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use serde_json::json;
use strongroom_protocol::Measurement;

use super::exit::{Exit, Failure, Outcome};
use super::output;
use crate::auth::TokenHash;
use crate::config::{Config, Loaded};
use crate::{logging, serve};

#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// strongroom.toml; relative paths in it start from its own folder
    #[arg(long, value_name = "FILE", default_value = "/etc/strongroom/strongroom.toml")]
    pub(super) config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct NewTokenArguments {
    /// The identity's name in the log: 1 to 64 of [A-Za-z0-9._-]
    #[arg(long, value_parser = identity_name)]
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Serves until told to stop.
pub(super) fn serve(config: &Path) -> Outcome {
    let loaded = Config::load(config).map_err(failed)?;
    logging::start(loaded.config.log.format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(serve::serve(loaded)).map_err(failed)?;
    Ok(Exit::Done)
}

/// Reads both configurations and says what would be served.
pub(super) fn check(arguments: &CheckArguments) -> Outcome {
    let Loaded { config, enclave, enclave_bytes, tls } = Config::load(&arguments.file.config).map_err(failed)?;
    let callers = match config.identities.len() {
        0 => "every process on this machine (no identities)".to_owned(),
        n => format!("{n} identities"),
    };
    let tls_rows = match &tls {
        None => vec![("TLS", "none: plain HTTP".to_owned())],
        Some(tls) => vec![("TLS", tls.leaf.to_string()), ("", format!("client certificates: {}", tls.clients))],
    };
    let pcr16 = hex::encode(Measurement::of(&enclave_bytes).pcr16);
    let recipients: BTreeMap<_, _> = enclave
        .export_recipients
        .iter()
        .map(|recipient| (recipient.name.to_string(), format!("0x{}", hex::encode(*recipient.public_key))))
        .collect();
    let found = json!({
        "listen": config.listen,
        "tls": tls.map(|tls| {
            json!({ "certificate": tls.leaf.to_string(), "client_certificates": tls.clients.to_string() })
        }),
        "identities": config.identities.iter().map(|identity| &identity.name).collect::<Vec<_>>(),
        "enclave": config.enclave.address.to_string(),
        "kms_host": enclave.kms_host,
        "kms_keys": enclave.kms_keys,
        "operations": enclave.operations,
        "adopt_kms_keys": enclave.adopt_kms_keys,
        "export_recipients": recipients,
        "pcr16": &pcr16,
    });
    output::print(arguments.json, &found, |_| {
        let operations: Vec<String> = enclave.operations.iter().map(output::word).collect();
        let rows = [("listen", config.listen.to_string())].into_iter().chain(tls_rows).chain([
            ("callers", callers),
            ("enclave", config.enclave.address.to_string()),
            ("operations", operations.join(", ")),
            ("KMS", enclave.kms_host.clone()),
        ]);
        let keys = enclave.kms_keys.iter().map(|key| ("", key.to_string()));
        let old_keys = enclave.adopt_kms_keys.iter().map(|key| ("adopts from", key.to_string()));
        let recipients = recipients.iter().map(|(name, key)| ("exports to", format!("{name} {key}")));
        let rows = rows.chain(keys).chain(old_keys).chain(recipients).chain([("PCR16", pcr16)]);
        format!("ok\n\n{}", output::rows(rows))
    })
}

/// The prefix lets secret scanners find a token that was committed somewhere.
const TOKEN_PREFIX: &str = "srt_";

/// Makes a token and the table for it.
pub(super) fn new_token(NewTokenArguments { name, json }: &NewTokenArguments) -> Outcome {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(failed)?;
    let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = TokenHash::of(token.as_bytes());
    let made = json!({ "name": name, "token": token, "token_sha256": hash.to_string() });
    output::print(*json, &made, |_| {
        format!(
            "The token, shown only this once:\n\n  {token}\n\nFor strongroom.toml:\n\n[[identities]]\nname = \"{name}\"\n\
             token_sha256 = \"{hash}\"\noperations = []  # \"read\", \"sign\", \"manage\"\nkeys = []        # patterns such as \"hot-*\"\n"
        )
    })
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, error)
}

fn identity_name(text: &str) -> Result<String, &'static str> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("a name is 1 to 64 of [A-Za-z0-9._-]")
    }
}
