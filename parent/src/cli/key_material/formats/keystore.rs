//! Ethereum keystores: version 3 of the Web3 Secret Storage Definition, with both of its key derivations.
//!
//! The file is whoever's sent it: what it asks of this machine's memory and time is bounded before any of it is spent.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{AES_128, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use hex::FromHex;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha3::{Digest as _, Keccak256};
use strongroom_protocol::{Algorithm, SecretString};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::super::KeyMaterial;
use super::FormatError;
use crate::addresses;

/// Why a keystore gave no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum KeystoreError {
    /// No JSON, or a field is missing, or is not what the definition says.
    #[error("the keystore is damaged, or JSON of another kind")]
    Malformed,
    /// Version 1, or one for other keys (EIP-2335 is version 4).
    #[error("the keystore is of another version than 3")]
    Version,
    /// Every writer uses the definition's one.
    #[error("the keystore's cipher is not aes-128-ctr")]
    Cipher,
    /// The definition's two are all that writers use.
    #[error(
        "the keystore's password is not used as by scrypt or by pbkdf2 with hmac-sha256, for a key of 32 bytes (kdf, prf, dklen)"
    )]
    Kdf,
    /// More than any wallet writes.
    #[error(
        "the keystore asks for too much: scrypt with up to 1 GiB and p up to 16, pbkdf2 with up to 10,000,000 rounds"
    )]
    TooExpensive,
    /// It cannot be told from a change of the ciphertext.
    #[error("wrong password (or the keystore was changed)")]
    WrongPassword,
    /// It names another account than the key's.
    #[error("the address in the keystore is not the key's")]
    OtherAddress,
}

/// Opens the keystore. If it names an address, it must be the key's.
pub(super) fn read(text: &str, password: &SecretString) -> Result<KeyMaterial, FormatError> {
    let keystore = Keystore::parse(text)?;
    let key = keystore.crypto.open(password)?;
    if let Some(address) = keystore.address
        && !is_address_of(&address, &key)?
    {
        return Err(KeystoreError::OtherAddress.into());
    }
    Ok(key)
}

fn is_address_of(address: &str, key: &KeyMaterial) -> Result<bool, FormatError> {
    let algorithm = Algorithm::Secp256k1;
    let own = addresses::derive(algorithm, &key.public_key(algorithm)?).unwrap_or_default();
    // Written with 0x or without, and in any case.
    let digits = |text: &str| text.strip_prefix("0x").unwrap_or(text).to_ascii_lowercase();
    Ok(own.values().any(|own| digits(own) == digits(address)))
}

#[derive(Deserialize)]
struct Version {
    version: Value,
}

#[derive(Deserialize)]
struct Keystore {
    /// Some writers begin it with a capital.
    #[serde(alias = "Crypto")]
    crypto: Crypto,
    address: Option<String>,
}

#[derive(Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParameters,
    #[serde(deserialize_with = "from_hex")]
    ciphertext: [u8; 32],
    kdf: String,
    kdfparams: Value,
    #[serde(deserialize_with = "from_hex")]
    mac: [u8; 32],
}

#[derive(Deserialize)]
struct CipherParameters {
    #[serde(deserialize_with = "from_hex")]
    iv: [u8; 16],
}

impl Keystore {
    /// The version comes first: others may differ in everything else.
    fn parse(text: &str) -> Result<Self, KeystoreError> {
        let Version { version } = serde_json::from_str(text).map_err(|_| KeystoreError::Malformed)?;
        if version != 3 {
            return Err(KeystoreError::Version);
        }
        serde_json::from_str(text).map_err(|_| KeystoreError::Malformed)
    }
}

impl Crypto {
    /// The derived key's left half decrypts, the right one authenticates the ciphertext.
    fn open(self, password: &SecretString) -> Result<KeyMaterial, KeystoreError> {
        if self.cipher != "aes-128-ctr" {
            return Err(KeystoreError::Cipher);
        }
        let derived = Kdf::parse(&self.kdf, self.kdfparams)?.derive(password)?;
        let (key, mac_key) = derived.split_at(16);
        let mac = Keccak256::new().chain_update(mac_key).chain_update(self.ciphertext).finalize();
        if !bool::from(mac.as_slice().ct_eq(&self.mac)) {
            return Err(KeystoreError::WrongPassword);
        }
        let failed = |_| KeystoreError::Malformed;
        let key = UnboundCipherKey::new(&AES_128, key).and_then(DecryptingKey::ctr).map_err(failed)?;
        let iv = DecryptionContext::Iv128(self.cipherparams.iv.into());
        KeyMaterial::fill(self.ciphertext.len(), |plaintext| {
            plaintext.copy_from_slice(&self.ciphertext);
            key.decrypt(plaintext, iv).map(|_| ()).map_err(failed)
        })
    }
}

/// How the password becomes a key, within bounds.
enum Kdf {
    Scrypt { parameters: scrypt::Params, salt: Vec<u8> },
    Pbkdf2 { rounds: NonZeroU32, salt: Vec<u8> },
}

#[derive(Deserialize)]
struct ScryptParameters {
    dklen: u64,
    n: u64,
    r: u32,
    p: u32,
    #[serde(deserialize_with = "from_hex")]
    salt: Vec<u8>,
}

#[derive(Deserialize)]
struct Pbkdf2Parameters {
    dklen: u64,
    c: u32,
    prf: String,
    #[serde(deserialize_with = "from_hex")]
    salt: Vec<u8>,
}

/// Wallets write 256 MiB at most (n = 262,144, r = 8, p = 1).
const MAX_SCRYPT_MEMORY: u64 = 1 << 30;
const MAX_SCRYPT_P: u32 = 16;
/// The definition's example has 262,144.
const MAX_PBKDF2_ROUNDS: u32 = 10_000_000;
/// 16 bytes for the cipher, 16 for the check.
const DERIVED_LENGTH: u64 = 32;

impl Kdf {
    fn parse(name: &str, parameters: Value) -> Result<Self, KeystoreError> {
        match name {
            "scrypt" => Self::scrypt(fields(parameters)?),
            "pbkdf2" => Self::pbkdf2(fields(parameters)?),
            _ => Err(KeystoreError::Kdf),
        }
    }

    fn scrypt(ScryptParameters { dklen, n, r, p, salt }: ScryptParameters) -> Result<Self, KeystoreError> {
        if dklen != DERIVED_LENGTH {
            return Err(KeystoreError::Kdf);
        }
        // RFC 7914 section 6: V has N blocks of 128·r bytes, B has p of them, and one or two are on the way.
        let blocks = n.saturating_add(p.into()).saturating_add(2);
        let memory = blocks.saturating_mul(128).saturating_mul(r.into());
        if memory > MAX_SCRYPT_MEMORY || p > MAX_SCRYPT_P {
            return Err(KeystoreError::TooExpensive);
        }
        let log_n = n.checked_ilog2().filter(|log| *log > 0 && n.is_power_of_two());
        let log_n = log_n.and_then(|log| u8::try_from(log).ok()).ok_or(KeystoreError::Malformed)?;
        let parameters = scrypt::Params::new(log_n, r, p).map_err(|_| KeystoreError::Malformed)?;
        Ok(Self::Scrypt { parameters, salt })
    }

    fn pbkdf2(Pbkdf2Parameters { dklen, c, prf, salt }: Pbkdf2Parameters) -> Result<Self, KeystoreError> {
        if dklen != DERIVED_LENGTH || prf != "hmac-sha256" {
            return Err(KeystoreError::Kdf);
        }
        if c > MAX_PBKDF2_ROUNDS {
            return Err(KeystoreError::TooExpensive);
        }
        Ok(Self::Pbkdf2 { rounds: NonZeroU32::new(c).ok_or(KeystoreError::Malformed)?, salt })
    }

    /// The password enters byte for byte: the definition knows no normalization.
    fn derive(&self, password: &SecretString) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
        let password = password.expose().as_bytes();
        let mut derived = Zeroizing::new([0; 32]);
        match self {
            Self::Scrypt { parameters, salt } => {
                scrypt::scrypt(password, salt, parameters, &mut *derived).map_err(|_| KeystoreError::Malformed)?
            }
            Self::Pbkdf2 { rounds, salt } => {
                pbkdf2::derive(PBKDF2_HMAC_SHA256, *rounds, salt, password, &mut *derived);
            }
        }
        Ok(derived)
    }
}

fn fields<T: DeserializeOwned>(parameters: Value) -> Result<T, KeystoreError> {
    serde_json::from_value(parameters).map_err(|_| KeystoreError::Malformed)
}

fn from_hex<'de, D: Deserializer<'de>, T: FromHex>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    T::from_hex(&text).map_err(|_| D::Error::custom("not hex of this length"))
}
