//! Public keys of published secrets, and what is no key.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    source: String,
    curve: String,
    seed: String,
    path: String,
    secret_key: String,
    public_key: String,
}

fn public_key(algorithm: Algorithm, secret: &str) -> Result<String, NotAKey> {
    let material = KeyMaterial::from(hex::decode(secret).expect("hex").as_slice());
    material.public_key(algorithm).map(|public_key| hex::encode(&*public_key))
}

/// The vectors that the enclave derives by.
#[test]
fn published_keys_and_master_keys() {
    let json = include_str!("../../../../tests/vectors/derivation.json");
    let vectors = serde_json::from_str::<Vectors>(json).expect("vectors parse").vectors;
    let mut seeds = 0;
    for Vector { source, curve, seed, path, secret_key, public_key: expected } in vectors {
        let (key, seed_of_keys) = match curve.as_str() {
            "secp256k1" => (Algorithm::Secp256k1, Algorithm::Bip32Secp256k1),
            "ed25519" => (Algorithm::Ed25519, Algorithm::Slip10Ed25519),
            other => panic!("{other}"),
        };
        assert_eq!(public_key(key, &secret_key), Ok(expected.clone()), "{source}, {path}");
        if path == "m" {
            seeds += 1;
            assert_eq!(public_key(seed_of_keys, &seed), Ok(expected), "{source}");
        }
    }
    assert!(seeds >= 6, "of both curves");
}

#[test]
fn the_last_scalar_is_a_key_and_the_order_is_none() {
    let (last, order) = (
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140",
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
    );
    // -G: the generator's x, and the other y.
    let negated = "0379be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    assert_eq!(public_key(Algorithm::Secp256k1, last), Ok(negated.to_owned()));
    for (name, secret) in [("order", order), ("zero", &"00".repeat(32)), ("above", &"ff".repeat(32))] {
        assert_eq!(public_key(Algorithm::Secp256k1, secret), Err(NotAKey), "{name}");
    }
}

#[test]
fn other_lengths_are_no_keys() {
    for algorithm in [Algorithm::Secp256k1, Algorithm::Ed25519] {
        for length in [0, 1, 16, 31, 33, 64] {
            assert_eq!(public_key(algorithm, &"01".repeat(length)), Err(NotAKey), "{algorithm}, {length}");
        }
    }
    for algorithm in [Algorithm::Bip32Secp256k1, Algorithm::Slip10Ed25519] {
        for length in [0, 15, 65] {
            assert_eq!(public_key(algorithm, &"01".repeat(length)), Err(NotAKey), "{algorithm}, {length}");
        }
        for length in [16, 17, 32, 64] {
            assert!(public_key(algorithm, &"01".repeat(length)).is_ok(), "{algorithm}, {length}");
        }
    }
}

#[test]
fn a_point_is_the_same_in_every_form() {
    let generator = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let y = "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
    let point = |text: String| compressed_point(&hex::decode(text).expect("hex")).map(|point| hex::encode(&*point));
    let expected = Some(format!("02{generator}"));
    assert_eq!(point(format!("02{generator}")), expected);
    assert_eq!(point(format!("04{generator}{y}")), expected);
    assert_eq!(point(format!("04{generator}{generator}")), None, "not on the curve");
    assert_eq!(point("00".to_owned()), None, "the identity");
}
