//! Published vectors at the crypto layer, what does not fit, and that no faulty signature leaves.

use std::sync::Arc;

use serde::Deserialize;
use strongroom_protocol::{Algorithm, Binding, ByteArray, ByteString, Origin, PayloadKind, Policy};

use super::*;
use crate::policy::{authorize, reach};
use crate::secret::KeyMaterial;
use crate::wrapping::{OpenedKey, OpenedSecret};

#[derive(Deserialize)]
struct Vectors<T> {
    vectors: Vec<T>,
}

fn vectors<T: serde::de::DeserializeOwned>(json: &str) -> Vec<T> {
    serde_json::from_str::<Vectors<T>>(json).expect("vectors parse").vectors
}

fn secret(bytes: &[u8]) -> KeyMaterial {
    KeyMaterial::fill(bytes.len(), |secret| {
        secret.copy_from_slice(bytes);
        Ok::<(), ()>(())
    })
    .expect("filled")
}

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text).expect("hex")
}

fn message(bytes: &[u8], hash: Option<HashFunction>) -> Payload {
    Payload::Message { message: ByteString::try_from(bytes).expect("short"), hash }
}

/// A key as an opened record has it.
fn opened(algorithm: Algorithm, secret: &KeyMaterial, payloads: &[PayloadKind]) -> Arc<OpenedKey> {
    let secret = OpenedSecret::new(algorithm, secret).expect("a key");
    let policy = Policy::new(payloads.to_vec(), 0).expect("valid");
    let key_id = "test".parse().expect("valid");
    let binding = Binding::new(&key_id, algorithm, &secret.public_key(), Origin::Generated, &policy);
    Arc::new(OpenedKey { secret, policy, binding })
}

fn permissive(algorithm: Algorithm, secret: &KeyMaterial) -> Arc<OpenedKey> {
    opened(algorithm, secret, &[PayloadKind::Message, PayloadKind::Digest])
}

fn sign_with(key: &Arc<OpenedKey>, scheme: Option<Scheme>, payload: Payload) -> Result<Signature, SignError> {
    let reached = reach(key, None).expect("no seed");
    let mut signed = sign(vec![authorize(&reached, scheme, payload).expect("allowed")]);
    assert_eq!(signed.len(), 1);
    signed.remove(0)
}

#[test]
fn rfc6979_vectors() {
    #[derive(Deserialize)]
    struct V {
        secret_key: String,
        message: String,
        signature: String,
    }
    for v in vectors::<V>(include_str!("../../../tests/vectors/rfc6979_secp256k1.json")) {
        let key = permissive(Algorithm::Secp256k1, &secret(&unhex(&v.secret_key)));
        let payload = message(v.message.as_bytes(), Some(HashFunction::Sha256));
        let signature = sign_with(&key, None, payload).expect("signs");
        assert_eq!(hex::encode(*signature.bytes), v.signature, "{}", v.message);
        let digest = Payload::Digest(ByteArray(Sha256::digest(&v.message).into()));
        assert_eq!(sign_with(&key, Some(Scheme::Ecdsa), digest), Ok(signature));
    }
}

#[test]
fn rfc8032_vectors() {
    #[derive(Deserialize)]
    struct V {
        name: String,
        secret_key: String,
        public_key: String,
        message: String,
        signature: String,
    }
    for v in vectors::<V>(include_str!("../../../tests/vectors/rfc8032.json")) {
        let key = permissive(Algorithm::Ed25519, &secret(&unhex(&v.secret_key)));
        assert_eq!(hex::encode(&*key.secret.public_key()), v.public_key, "{}", v.name);
        let signature = sign_with(&key, None, message(&unhex(&v.message), None)).expect("signs");
        assert_eq!(hex::encode(*signature.bytes), v.signature, "{}", v.name);
    }
}

#[test]
fn bip340_vectors() {
    #[derive(Deserialize)]
    struct V {
        index: u32,
        secret_key: String,
        public_key: String,
        aux_rand: String,
        message: String,
        signature: String,
    }
    for v in vectors::<V>(include_str!("../../../tests/vectors/bip340.json")) {
        let key = permissive(Algorithm::Secp256k1, &secret(&unhex(&v.secret_key)));
        assert_eq!(hex::encode(&key.secret.public_key()[1..]), v.public_key, "{}", v.index);
        let (digest, auxiliary) = (unhex(&v.message), unhex(&v.aux_rand));
        let message = digest.clone().try_into().expect("32 bytes");
        let signature = bip340::make(secp256k1(&key), &message, &auxiliary.try_into().expect("32 bytes"));
        assert_eq!(signature.map(hex::encode).as_ref(), Some(&v.signature), "{}", v.index);
        let payload = Payload::Digest(ByteArray(digest.try_into().expect("32 bytes")));
        assert!(sign_with(&key, Some(Scheme::Bip340), payload).is_ok(), "with fresh randomness");
    }
}

#[test]
fn hashes_are_the_ones_that_are_named() {
    // "abc": FIPS 180-4 appendix; Keccak team's test vector; SHA-256 of the first.
    for (hash, expected) in [
        (HashFunction::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (HashFunction::Keccak256, "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
        (HashFunction::Sha256d, "4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358"),
    ] {
        assert_eq!(hex::encode(digest(&message(b"abc", Some(hash))).expect("hashed")), expected);
    }
}

#[test]
fn addresses_are_the_published_ones() {
    // The first of Hardhat's and Anvil's published test accounts (EIP-55).
    let key = unhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
    let key = OpenedSecret::new(Algorithm::Secp256k1, &secret(&key)).expect("a key");
    assert_eq!(key.addresses()["ethereum"], "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
    // An all-zero public key is Solana's system program; base58 of RFC 8032's TEST 1 key.
    let key = unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let key = OpenedSecret::new(Algorithm::Ed25519, &secret(&key)).expect("a key");
    assert_eq!(key.addresses()["solana"], "FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z");
}

#[test]
fn zero_and_out_of_range_scalars_are_no_keys() {
    let order = unhex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
    for bytes in [[0; 32].as_slice(), &order, &[0xff; 32]] {
        assert_eq!(OpenedSecret::new(Algorithm::Secp256k1, &secret(bytes)).err(), Some(NotAKey));
    }
}

/// BIP-32's rule: an index that has no key is an error, and nobody takes the next one instead.
#[test]
fn a_child_scalar_is_the_sum_or_nothing() {
    let scalar = |hex: &str| {
        let bytes: [u8; 32] = unhex(hex).try_into().expect("32 bytes");
        Secret::from(&bytes)
    };
    let sum = |a: &str, b: &str| add_to_scalar(&scalar(a), &scalar(b)).map(|sum| hex::encode(sum.expose()));
    let (zero, one, two) = (&"00".repeat(32), &format!("{:064x}", 1), &format!("{:064x}", 2));
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let last = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140";
    assert_eq!(sum(one, one), Ok(two.clone()));
    assert_eq!(sum(two, last), Ok(one.clone()), "modulo the order");
    assert_eq!(sum(one, zero), Ok(one.clone()), "a zero tweak is valid");
    for (name, parent, tweak) in [
        ("tweak_is_the_order", one.as_str(), order),
        ("tweak_beyond_the_order", one, &"ff".repeat(32)),
        ("sum_is_zero", one, last),
        ("sum_is_zero_too", last, one),
        ("parent_is_no_key", zero, one),
    ] {
        assert_eq!(sum(parent, tweak), Err(NotAKey), "{name}");
    }
}

#[test]
fn a_plain_key_has_32_secret_bytes() {
    for algorithm in [Algorithm::Secp256k1, Algorithm::Ed25519] {
        for length in (0..=80).filter(|length| *length != 32) {
            assert_eq!(OpenedSecret::new(algorithm, &secret(&vec![1; length])).err(), Some(NotAKey), "{length}");
        }
    }
}

#[test]
fn what_does_not_fit_the_algorithm_is_refused() {
    let secp256k1 = permissive(Algorithm::Secp256k1, &secret(&[1; 32]));
    let ed25519 = permissive(Algorithm::Ed25519, &secret(&[1; 32]));
    let digest = || Payload::Digest(ByteArray([1; 32]));
    for (name, key, scheme, payload) in [
        ("digest_for_ed25519", &ed25519, None, digest()),
        ("hash_for_ed25519", &ed25519, None, message(b"m", Some(HashFunction::Sha256))),
        ("no_hash_for_secp256k1", &secp256k1, None, message(b"m", None)),
        ("ecdsa_with_ed25519", &ed25519, Some(Scheme::Ecdsa), message(b"m", None)),
        ("bip340_with_ed25519", &ed25519, Some(Scheme::Bip340), message(b"m", None)),
        ("ed25519_with_secp256k1", &secp256k1, Some(Scheme::Ed25519), digest()),
    ] {
        assert_eq!(sign_with(key, scheme, payload).err(), Some(SignError::PayloadInvalid), "{name}");
    }
}

#[test]
fn a_policy_denies_what_it_does_not_list() {
    let secp256k1 = |payloads: &[PayloadKind]| opened(Algorithm::Secp256k1, &secret(&[1; 32]), payloads);
    let (messages, digests) = (secp256k1(&[PayloadKind::Message]), secp256k1(&[PayloadKind::Digest]));
    let digest = || Payload::Digest(ByteArray([1; 32]));
    let hashed = || message(b"m", Some(HashFunction::Sha256));
    let allowed = |key: &Arc<OpenedKey>, payload| authorize(&reach(key, None).expect("no seed"), None, payload).is_ok();
    assert!(allowed(&messages, hashed()) && allowed(&digests, digest()));
    assert!(!allowed(&messages, digest()) && !allowed(&digests, hashed()));
}

#[test]
fn every_flipped_bit_of_a_bip340_signature_is_caught() {
    // Of both parities of the public key.
    for byte in [1, 2, 3, 4, 5, 6, 7] {
        let key = permissive(Algorithm::Secp256k1, &secret(&[byte; 32]));
        let (key, message) = (secp256k1(&key), [9; 32]);
        let signature = bip340::make(key, &message, &[5; 32]).expect("signs");
        assert!(bip340::holds(key, &message, &signature));
        assert!(!bip340::holds(key, &[8; 32], &signature), "another message");
        for bit in 0..512 {
            let mut faulty = signature;
            faulty[bit / 8] ^= 1 << (bit % 8);
            assert!(!bip340::holds(key, &message, &faulty), "bit {bit}");
        }
    }
}

/// Whatever they are for, and whether or not they can be signed, results are where their payloads were.
#[test]
fn a_mixed_group_keeps_its_order() {
    let keys = [Algorithm::Secp256k1, Algorithm::Ed25519, Algorithm::Secp256k1];
    let keys: Vec<_> = (1..).zip(keys).map(|(byte, algorithm)| permissive(algorithm, &secret(&[byte; 32]))).collect();
    let reached: Vec<_> = keys.iter().map(|key| reach(key, None).expect("no seed")).collect();
    let items: Vec<_> = (0..GROUP)
        .map(|place| {
            let payload = match place % 5 {
                0 => Payload::Digest(ByteArray([place.try_into().expect("small"); 32])),
                1 => message(&[place.try_into().expect("small")], None),
                _ => message(&[place.try_into().expect("small")], Some(HashFunction::Keccak256)),
            };
            (place % 3, payload)
        })
        .collect();
    let authorized =
        items.iter().map(|(key, payload)| authorize(&reached[*key], None, payload.clone()).expect("allowed"));
    let together = sign(authorized.collect());
    assert_eq!(together.len(), GROUP);
    for ((key, payload), together) in items.into_iter().zip(together) {
        assert_eq!(together, sign_with(&keys[key], None, payload));
    }
}

fn secp256k1(key: &OpenedKey) -> &secp256k1::Key {
    match &key.secret {
        OpenedSecret::Key(key) => match &**key {
            SigningKey::Secp256k1(key) => key,
            SigningKey::Ed25519(_) => panic!("secp256k1"),
        },
        OpenedSecret::Seed(_) => panic!("a key"),
    }
}
