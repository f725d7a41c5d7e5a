//! How custodians' secrets get into a command: files, standard input, a terminal. Never the command line, which other
//! users of the machine can see.

use std::io::{IsTerminal as _, stdin};
use std::path::{Path, PathBuf};

use clap::Args;
use strongroom_protocol::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::formats::Format;
use crate::cli::exit::{Exit, Failure};
use crate::cli::files;

/// Longest key file read, in bytes.
const MAX_FILE: usize = 64 * 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct PasswordArguments {
    /// A file with the keystore's password, or the mnemonic's passphrase [default: a keystore's is asked for]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordArguments {
    /// The password of `file`, if its format takes one and there is one.
    ///
    /// # Errors
    /// The caller's: the password cannot be read, or there is nobody to ask.
    pub(in crate::cli) fn read(&self, format: Format, file: &Path) -> Result<Option<SecretString>, Failure> {
        if let Some(path) = &self.password_file {
            if files::is_standard(path) && files::is_standard(file) {
                return Err(Failure::usage("--file and --password-file cannot both be standard input"));
            }
            return password_of_file(path).map(Some);
        }
        if !format.needs_password() {
            return Ok(None);
        }
        if !stdin().is_terminal() {
            return Err(Failure::usage(
                "a keystore needs its password, and standard input is no terminal: --password-file names the file that it is in",
            ));
        }
        ask(&format!("Password of {}: ", file.display())).map(Some)
    }
}

/// Asks at the terminal, which shows nothing of the answer.
fn ask(prompt: &str) -> Result<SecretString, Failure> {
    // Ctrl-C must not end this process while the terminal shows nothing. So it is caught, and counts from the next
    // wait on.
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| Failure::new(Exit::Failed, error))?;
    let answer = rpassword::prompt_password(prompt);
    tokio::spawn(async move {
        interrupts.recv().await;
        std::process::exit(INTERRUPTED);
    });
    match answer {
        Ok(password) if !password.is_empty() => Ok(SecretString::new(password)),
        Ok(_) => Err(Failure::usage("no password was given")),
        Err(error) => Err(Failure::usage(format!("no password was given: {error}"))),
    }
}

/// What shells make of SIGINT.
const INTERRUPTED: i32 = 128 + 2;

/// The content of a file with a key or a password; `-` is standard input.
///
/// # Errors
/// The caller's: it cannot be read, or is longer than either.
pub(in crate::cli) fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if files::is_standard(path) && stdin().is_terminal() {
        return Err(Failure::usage("standard input is a terminal, which would show what is typed"));
    }
    let content = files::read(path, MAX_FILE)?;
    if content.is_empty() {
        let name = if files::is_standard(path) { "standard input".to_owned() } else { path.display().to_string() };
        return Err(Failure::usage(format!("{name}: is empty")));
    }
    Ok(content)
}

/// One end of line behind the password is the file's, not the password's.
fn password_of_file(path: &Path) -> Result<SecretString, Failure> {
    let content = read_file(path)?;
    let text = std::str::from_utf8(&content);
    let text = text.map_err(|_| Failure::usage(format!("{}: not a text", path.display())))?;
    let password = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    // An empty passphrase is none, and makes another seed than the one that somebody has in mind here.
    if password.is_empty() {
        return Err(Failure::usage(format!("{}: there is no password in it", path.display())));
    }
    Ok(SecretString::new(password.to_owned()))
}
