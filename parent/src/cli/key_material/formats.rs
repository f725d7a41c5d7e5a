//! The files that custodians' keys are in: which formats there are, how one is recognised, which algorithms each can
//! hold, and who takes a password. How each is read is the matter of the file of its name; hex is read here.
//!
//! An error says what is wrong and never shows any of the file.

mod keystore;
mod mnemonic;
mod pem;
mod solana;

use clap::ValueEnum;
use strongroom_protocol::{Algorithm, SecretString};

use self::keystore::KeystoreError;
use self::mnemonic::MnemonicError;
use self::pem::PemError;
use super::{KeyMaterial, NotAKey};

/// What a key file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// Hex digits: the key's 32 bytes, or a seed's 16 to 64
    Hex,
    /// A key that openssl wrote: EC PRIVATE KEY or PRIVATE KEY, not encrypted
    Pem,
    /// An Ethereum keystore (version 3), with its password
    Keystore,
    /// A keypair file of the Solana tools: 64 numbers
    Solana,
    /// A mnemonic of 12 to 24 English words (BIP-39), with its passphrase, if it has one
    Mnemonic,
}

/// Why no key was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum FormatError {
    /// The file is binary, or not UTF-8.
    #[error("not a text: the formats are hex, pem, keystore, solana and mnemonic")]
    NotText,
    /// Nothing tells what it is.
    #[error("not recognised: --format says whether it is hex, pem, keystore, solana or mnemonic")]
    Unrecognised,
    /// The format never holds a key of the algorithm.
    #[error("{}: --algorithm {}", .0.holds().0, names(.0.holds().1))]
    OtherAlgorithm(Format),
    /// A keystore opens with its password only.
    #[error("a keystore needs its password")]
    PasswordMissing,
    /// Whoever gives a password believes that the file is encrypted.
    #[error("a password was given, and this format has none: keystores do, and a mnemonic may have a passphrase")]
    PasswordNotTaken,
    /// Something else than digits among them.
    #[error("not hexadecimal: 0x is optional, then there are digits and nothing else")]
    NotHex,
    /// Too few digits, too many, or half a byte.
    #[error("{digits} hex digits: {algorithm} has {}", digits_of(*algorithm))]
    HexLength {
        /// How many there are.
        digits: usize,
        /// What they were to be.
        algorithm: Algorithm,
    },
    /// What was read is no key.
    #[error(transparent)]
    NotAKey(#[from] NotAKey),
    /// The file also holds a public key: one of both is damaged, or was changed.
    #[error("the public key in the file is not the private key's")]
    OtherPublicKey,
    /// The PEM's.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The keystore's.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The Solana file's.
    #[error("not a Solana keypair file: that is a JSON array of 64 bytes")]
    NotSolana,
    /// The mnemonic's.
    #[error(transparent)]
    Mnemonic(#[from] MnemonicError),
}

impl Format {
    /// Tells the format from the content.
    ///
    /// # Errors
    /// It looks like none of them.
    pub(in crate::cli) fn recognise(content: &[u8]) -> Result<Self, FormatError> {
        let text = text(content)?;
        if text.contains(pem::BEGIN) {
            Ok(Self::Pem)
        } else if text.starts_with('{') {
            Ok(Self::Keystore)
        } else if text.starts_with('[') {
            Ok(Self::Solana)
        } else if is_hex(text) {
            Ok(Self::Hex)
        } else if are_words(text) {
            Ok(Self::Mnemonic)
        } else {
            Err(FormatError::Unrecognised)
        }
    }

    /// Whether nothing is read without a password.
    pub(in crate::cli) const fn needs_password(self) -> bool {
        matches!(self, Self::Keystore)
    }

    /// Whether a password can be given: a keystore's, or the passphrase of a mnemonic.
    pub(in crate::cli) const fn takes_password(self) -> bool {
        matches!(self, Self::Keystore | Self::Mnemonic)
    }

    /// What a file of this format is, and of which algorithms.
    const fn holds(self) -> (&'static str, &'static [Algorithm]) {
        use Algorithm::{Bip32Secp256k1, Ed25519, Secp256k1, Slip10Ed25519};
        match self {
            Self::Hex => ("hex is a key or a seed", &[Secp256k1, Ed25519, Bip32Secp256k1, Slip10Ed25519]),
            Self::Pem => ("a PEM file holds a key, never a seed", &[Secp256k1, Ed25519]),
            Self::Keystore => ("a keystore holds an Ethereum key", &[Secp256k1]),
            Self::Solana => ("a Solana keypair file holds an ed25519 key", &[Ed25519]),
            Self::Mnemonic => ("a mnemonic is a seed", &[Bip32Secp256k1, Slip10Ed25519]),
        }
    }
}

/// Reads the key or seed in `content`, and makes sure that it is one of `algorithm`. The password is a keystore's or
/// the passphrase of a mnemonic. What `content` is in is the caller's to wipe.
///
/// # Errors
/// The file is damaged or holds something else, the password is wrong, or the arguments do not fit together.
pub(in crate::cli) fn read(
    content: &[u8],
    format: Format,
    algorithm: Algorithm,
    password: Option<&SecretString>,
) -> Result<KeyMaterial, FormatError> {
    if !format.holds().1.contains(&algorithm) {
        return Err(FormatError::OtherAlgorithm(format));
    }
    if password.is_some() && !format.takes_password() {
        return Err(FormatError::PasswordNotTaken);
    }
    let text = text(content)?;
    let material = match format {
        Format::Hex => read_hex(text, algorithm)?,
        Format::Pem => pem::read(text, algorithm)?,
        Format::Keystore => keystore::read(text, password.ok_or(FormatError::PasswordMissing)?)?,
        Format::Solana => solana::read(text)?,
        Format::Mnemonic => mnemonic::read(text, password)?,
    };
    material.public_key(algorithm)?;
    Ok(material)
}

fn text(content: &[u8]) -> Result<&str, FormatError> {
    str::from_utf8(content).map(str::trim).map_err(|_| FormatError::NotText)
}

fn is_hex(text: &str) -> bool {
    let digits = digits(text);
    !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_hexdigit())
}

/// Several words of letters, of whatever language: which one it is shows when they are looked up.
fn are_words(text: &str) -> bool {
    text.split_whitespace().count() > 1 && text.chars().all(|c| c.is_alphabetic() || c.is_whitespace())
}

fn read_hex(text: &str, algorithm: Algorithm) -> Result<KeyMaterial, FormatError> {
    if !is_hex(text) {
        return Err(FormatError::NotHex);
    }
    let digits = digits(text);
    let length = digits.len() / 2;
    if !digits.len().is_multiple_of(2) || !algorithm.secret_lengths().contains(&length) {
        return Err(FormatError::HexLength { digits: digits.len(), algorithm });
    }
    KeyMaterial::fill(length, |material| hex::decode_to_slice(digits, material).map_err(|_| FormatError::NotHex))
}

fn digits(text: &str) -> &str {
    text.strip_prefix("0x").unwrap_or(text)
}

fn digits_of(algorithm: Algorithm) -> String {
    let (least, most) = algorithm.secret_lengths().into_inner();
    if least == most { format!("{}", 2 * most) } else { format!("{} to {}, two for each byte", 2 * least, 2 * most) }
}

fn names(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|algorithm| algorithm.as_str()).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests;
