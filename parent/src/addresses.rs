//! The addresses that belong to a public key, derived and not believed. For `key verify` alone: the
//! daemon shows the addresses that are stored, and this is what finds them out if they are not the key's.

use std::collections::BTreeMap;

use k256::elliptic_curve::sec1::ToSec1Point as _;
use strongroom_protocol::{Algorithm, Curve, PublicKey, addresses};

/// Addresses by chain, with the chains that a key of this algorithm has and no others. `None`: the bytes
/// are not a public key of the algorithm.
pub(crate) fn derive(algorithm: Algorithm, public_key: &PublicKey) -> Option<BTreeMap<String, String>> {
    let (chain, address) = match algorithm.curve() {
        Curve::Secp256k1 => ("ethereum", addresses::ethereum(&uncompressed(public_key)?)),
        Curve::Ed25519 => ("solana", addresses::solana((**public_key).try_into().ok()?)),
    };
    // A seed's public key is its master key's, which is not paid to.
    let own = (!algorithm.is_seed()).then_some((chain.to_owned(), address));
    Some(own.into_iter().collect())
}

/// x‖y of a compressed point (SEC 1 section 2.3.4).
fn uncompressed(public_key: &[u8]) -> Option<[u8; 64]> {
    let [2 | 3, x @ ..] = public_key else { return None };
    let point = k256::PublicKey::from_sec1_bytes(public_key).ok().filter(|_| x.len() == 32)?.to_sec1_point(false);
    point.as_bytes().strip_prefix(&[4])?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived(algorithm: Algorithm, public_key: &str) -> Option<(String, String)> {
        let public_key = PublicKey::try_from(hex::decode(public_key).expect("hex")).expect("short");
        derive(algorithm, &public_key).and_then(|addresses| addresses.into_iter().next())
    }

    #[test]
    fn published_addresses() {
        // The generator point: the public key of the secret key 1. Solana's system program: all zero.
        let generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let ethereum = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf".to_owned();
        assert_eq!(derived(Algorithm::Secp256k1, generator), Some(("ethereum".to_owned(), ethereum)));
        let solana = ("solana".to_owned(), "1".repeat(32));
        assert_eq!(derived(Algorithm::Ed25519, &"00".repeat(32)), Some(solana));
    }

    #[test]
    fn a_seed_has_no_address_of_its_own() {
        let generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let master = PublicKey::try_from(hex::decode(generator).expect("hex")).expect("short");
        assert_eq!(derive(Algorithm::Bip32Secp256k1, &master), Some(BTreeMap::new()));
        assert_eq!(derive(Algorithm::Slip10Ed25519, &vec![0; 32].try_into().expect("short")), Some(BTreeMap::new()));
    }

    #[test]
    fn what_is_no_public_key_has_no_address() {
        for (name, algorithm, bytes) in [
            ("empty", Algorithm::Secp256k1, String::new()),
            ("no_point_has_this_x", Algorithm::Secp256k1, format!("02{}05", "00".repeat(31))),
            ("x_beyond_the_field", Algorithm::Secp256k1, format!("02{}", "ff".repeat(32))),
            ("compact_form", Algorithm::Secp256k1, format!("05{}01", "00".repeat(31))),
            ("identity", Algorithm::Secp256k1, "00".to_owned()),
            ("short", Algorithm::Secp256k1, format!("02{}", "00".repeat(31))),
            ("ed25519_short", Algorithm::Ed25519, "00".repeat(31)),
            ("ed25519_long", Algorithm::Ed25519, "00".repeat(33)),
        ] {
            assert_eq!(derived(algorithm, &bytes), None, "{name}");
        }
    }
}
