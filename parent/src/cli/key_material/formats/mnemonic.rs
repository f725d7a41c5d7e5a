//! Mnemonics (BIP-39), of the English list alone: the seed of 64 bytes that the words and a passphrase make.

use std::borrow::Cow;

use bip39::{Language, Mnemonic};
use strongroom_protocol::SecretString;
use zeroize::Zeroizing;

use super::super::KeyMaterial;

/// Why words are no mnemonic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum MnemonicError {
    /// Some are missing, or there is something else in the file.
    #[error("a mnemonic has 12, 15, 18, 21 or 24 words, not {0}")]
    WordCount(usize),
    /// Its place, counted from 1: the word itself is secret.
    #[error("word {0} is not in the English list of BIP-39, the only one that is read (in small letters)")]
    UnknownWord(usize),
    /// A word is another one of the list, or in another place.
    #[error("the words are not a mnemonic together (checksum): one of them is wrong, or their order")]
    Checksum,
}

/// Reads the words. Any passphrase makes a seed: nothing tells whether it is the right one but the public key.
pub(super) fn read(text: &str, passphrase: Option<&SecretString>) -> Result<KeyMaterial, MnemonicError> {
    // The list is ASCII, so there is nothing to normalize.
    let mnemonic = Mnemonic::parse_in_normalized(Language::English, text).map_err(|error| match error {
        bip39::Error::BadWordCount(count) => MnemonicError::WordCount(count),
        bip39::Error::UnknownWord(index) => MnemonicError::UnknownWord(index + 1),
        _ => MnemonicError::Checksum,
    })?;
    let passphrase = normalized(passphrase.map_or("", SecretString::expose));
    let seed = Zeroizing::new(mnemonic.to_seed_normalized(&passphrase));
    Ok(KeyMaterial::from(seed.as_slice()))
}

/// In NFKD (BIP-39, "From mnemonic to seed"). A text of ours, because bip39's own would not be wiped.
fn normalized(passphrase: &str) -> Zeroizing<String> {
    let mut text = Cow::Borrowed(passphrase);
    Mnemonic::normalize_utf8_cow(&mut text);
    Zeroizing::new(text.into_owned())
}
