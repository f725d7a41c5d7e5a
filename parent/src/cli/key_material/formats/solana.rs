//! Keypair files as Solana's tools write them: a JSON array of 64 bytes, the seed of RFC 8032 and then the public key.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use strongroom_protocol::Algorithm;
use zeroize::Zeroizing;

use super::super::KeyMaterial;
use super::FormatError;

/// Reads the seed, and checks that the public key is its own.
pub(super) fn read(text: &str) -> Result<KeyMaterial, FormatError> {
    let Keypair(bytes) = serde_json::from_str(text).map_err(|_| FormatError::NotSolana)?;
    let (seed, public_key) = bytes.split_at(32);
    let seed = KeyMaterial::from(seed);
    if *seed.public_key(Algorithm::Ed25519)? != *public_key {
        return Err(FormatError::OtherPublicKey);
    }
    Ok(seed)
}

/// 64 bytes, read one by one to where they are wiped.
struct Keypair(Zeroizing<[u8; 64]>);

impl<'de> Deserialize<'de> for Keypair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;

        impl<'de> Visitor<'de> for Numbers {
            type Value = Keypair;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 bytes")
            }

            /// A 65th element is serde_json's to refuse.
            fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Keypair, A::Error> {
                let mut bytes = Zeroizing::new([0; 64]);
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = numbers.next_element()?.ok_or_else(|| A::Error::invalid_length(index, &self))?;
                }
                Ok(Keypair(bytes))
            }
        }

        deserializer.deserialize_seq(Numbers)
    }
}
