//! How a public key is written as an address. Hashes and encodings only: whoever calls has the point
//! already. Addresses are for people; nothing of ours is decided by them.

use sha3::{Digest, Keccak256};

/// An Ethereum address in the casing of EIP-55: the last 20 bytes of Keccak-256 over x‖y of the
/// uncompressed point, each letter's case from Keccak-256 of the lower-case text.
#[must_use]
pub fn ethereum(uncompressed_xy: &[u8; 64]) -> String {
    let hash = Keccak256::digest(uncompressed_xy);
    let lower = hex::encode(hash.get(12..).unwrap_or_default());
    let casing = hex::encode(Keccak256::digest(&lower));
    let mixed = lower.chars().zip(casing.chars()).map(|(c, case)| if case >= '8' { c.to_ascii_uppercase() } else { c });
    format!("0x{}", mixed.collect::<String>())
}

/// A Solana address: base58 of the Ed25519 public key.
#[must_use]
pub fn solana(public_key: &[u8; 32]) -> String {
    bs58::encode(public_key).into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_addresses() {
        // The generator point is the public key of the secret key 1; its address is well known.
        let xy = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798\
                  483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
        let xy: [u8; 64] = hex::decode(xy).expect("hex").try_into().expect("64 bytes");
        assert_eq!(ethereum(&xy), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
        // Solana's system program is the all-zero key.
        assert_eq!(solana(&[0; 32]), "1".repeat(32));
    }
}
