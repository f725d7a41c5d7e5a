//! The options by which every `key` command finds its parent. Where a token comes from is decided here: the command
//! line wins over the environment.

use std::env::VarError;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::Url;
use strongroom_protocol::SecretString;

use super::exit::Failure;
use crate::client::{Access, Parent};

#[derive(Debug, Args)]
pub(super) struct Connection {
    /// Its address
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "URL",
        env = "STRONGROOM_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    url: Url,
    /// A bearer token for it [env: STRONGROOM_TOKEN]
    ///
    /// Other users of this machine can see command lines: the environment and --token-file keep it better.
    #[arg(long, global = true, help_heading = HEADING, value_parser = secret)]
    token: Option<SecretString>,
    /// A file with the bearer token in it, and nothing else
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Believe the certificate authorities in this file (PEM), and no others
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Show this certificate with its chain (PEM) instead of a token
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE")]
    client_certificate: Option<PathBuf>,
    /// The client certificate's key (PEM); absent: it is in the same file
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE")]
    client_key: Option<PathBuf>,
    /// How long one call may take
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=600)
    )]
    timeout: u32,
    /// Send the token over plain http to another machine, where whoever carries it can take it
    #[arg(long, global = true, help_heading = HEADING)]
    insecure_token_over_http: bool,
}

const HEADING: &str = "Parent";

const TOKEN_VARIABLE: &str = "STRONGROOM_TOKEN";

/// Longest token file read, in bytes.
const MAX_TOKEN: u64 = 64 * 1024;

impl Connection {
    /// The parent that these options name.
    pub(super) fn parent(self) -> Result<Parent, Failure> {
        let token = self.token()?;
        let client_certificate = match (self.client_certificate, self.client_key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(both), None) => Some((both.clone(), both)),
            (None, Some(_)) => return Err(Failure::usage("--client-key is of no use without --client-certificate")),
            (None, None) => None,
        };
        Ok(Parent::new(Access {
            url: self.url,
            token,
            ca: self.ca,
            client_certificate,
            timeout: Duration::from_secs(self.timeout.into()),
            token_in_the_clear: self.insecure_token_over_http,
        })?)
    }

    fn token(&self) -> Result<Option<SecretString>, Failure> {
        match (&self.token, &self.token_file) {
            (Some(_), Some(_)) => Err(Failure::usage("--token or --token-file, not both")),
            (Some(token), None) => Ok(Some(SecretString::new(token.expose().to_owned()))),
            (None, Some(path)) => read_token(path).map(Some),
            // An empty variable is how shells spell none.
            (None, None) => match std::env::var(TOKEN_VARIABLE) {
                Ok(token) if !token.is_empty() => Ok(Some(SecretString::new(token))),
                Ok(_) | Err(VarError::NotPresent) => Ok(None),
                Err(VarError::NotUnicode(_)) => Err(Failure::usage(format!("{TOKEN_VARIABLE} is not text"))),
            },
        }
    }
}

fn read_token(path: &Path) -> Result<SecretString, Failure> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text))
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let file = SecretString::new(text);
    Ok(SecretString::new(file.expose().trim().to_owned()))
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a clap value parser")]
fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::new(text.to_owned()))
}
