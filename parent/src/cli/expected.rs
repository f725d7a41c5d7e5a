//! The options by which whoever runs a command says which key they mean: by what they know of it from elsewhere.

use clap::Args;
use strongroom_protocol::{Algorithm, ExpectedKey, PublicKey};

use super::exit::Failure;
use crate::addresses;
use crate::http::from_hex;

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct ExpectedArguments {
    /// Refuse the key unless this is one of its addresses
    #[arg(long, value_name = "ADDRESS")]
    expect_address: Option<String>,
    /// Refuse the key unless this is its public key, hex: 33 bytes (secp256k1, compressed) or 32 (ed25519)
    #[arg(long, value_name = "HEX")]
    expect_public_key: Option<String>,
}

impl ExpectedArguments {
    /// What is known of the key, if anything is.
    pub(super) fn parse(&self) -> Result<Option<ExpectedKey>, Failure> {
        match (&self.expect_address, &self.expect_public_key) {
            (Some(address), _) => {
                let ethereum = address.strip_prefix("0x").is_some_and(|digits| digits.len() == 40);
                let solana = (32..=44).contains(&address.len()) && !address.starts_with("0x");
                let well_formed = (ethereum || solana) && address.bytes().all(|c| c.is_ascii_alphanumeric());
                let bytes = address.as_bytes().try_into().ok().filter(|_| well_formed);
                let wrong = || Failure::usage("--expect-address: 0x and 40 digits (Ethereum), or base58 (Solana)");
                bytes.map(ExpectedKey::Address).ok_or_else(wrong).map(Some)
            }
            (None, Some(public_key)) => {
                let lengths = [Algorithm::Secp256k1, Algorithm::Ed25519].map(Algorithm::public_key_length);
                let bytes = from_hex(public_key).ok().filter(|bytes| lengths.contains(&bytes.len()));
                let bytes = bytes.and_then(|bytes| PublicKey::try_from(bytes).ok());
                let wrong = || Failure::usage("--expect-public-key: 33 bytes in hex, or 32 for ed25519");
                bytes.map(ExpectedKey::PublicKey).ok_or_else(wrong).map(Some)
            }
            (None, None) => Ok(None),
        }
    }

    /// What is known of the key; a command that must not believe anybody needs it.
    pub(super) fn demand(&self) -> Result<ExpectedKey, Failure> {
        let missing = || Failure::usage("--expect-address or --expect-public-key: which key must it be?");
        self.parse()?.ok_or_else(missing)
    }
}

/// Whether a key that is here is the one that is meant.
pub(super) fn check_expected(
    expected: &ExpectedKey,
    algorithm: Algorithm,
    public_key: &PublicKey,
) -> Result<(), &'static str> {
    let addresses = addresses::derive(algorithm, public_key).unwrap_or_default();
    if expected.is(public_key, &addresses) { Ok(()) } else { Err("this is not the expected key") }
}
