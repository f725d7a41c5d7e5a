//! Published vectors of BIP-32 and SLIP-10, the paths that wallets use, and what is not derived.

use serde::Deserialize;
use strongroom_protocol::{Algorithm, Binding, DerivationPath, Origin, Policy};

use super::*;
use crate::policy::{OutOfReach, reach};
use crate::wrapping::{OpenedKey, OpenedSecret};

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
    chain_code: String,
    secret_key: String,
    public_key: String,
}

/// BIP-39 seed of "test test test test test test test test test test test junk": the development mnemonic of
/// Hardhat and Foundry, whose addresses their manuals list.
const JUNK: &str = "9dfc3c64c2f8bede1533b6a79f8570e5943e0b8fd1cf77107adf7b72cef42185d564a3aee24cab43f80e3c4538087d70fc824eabbad596a23c97b6ee8322ccc0";

/// BIP-39 seed of "abandon … about" (BIP-39's first vector, with an empty passphrase).
const ABOUT: &str = "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc19a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4";

fn material(hex: &str) -> KeyMaterial {
    let bytes = hex::decode(hex).expect("hex");
    KeyMaterial::fill(bytes.len(), |material| {
        material.copy_from_slice(&bytes);
        Ok::<(), ()>(())
    })
    .expect("filled")
}

/// A seed as an opened record has it, with these path prefixes.
fn opened(algorithm: Algorithm, seed: &str, prefixes: &[&str]) -> Arc<OpenedKey> {
    let secret = OpenedSecret::new(algorithm, &material(seed)).expect("a key");
    let policy = Policy::default().with_paths(prefixes.iter().map(|prefix| path(prefix)).collect()).expect("valid");
    let key_id = "test".parse().expect("valid");
    let binding = Binding::new(&key_id, algorithm, &secret.public_key(), Origin::Imported, &policy);
    Arc::new(OpenedKey { secret, policy, binding })
}

fn path(text: &str) -> DerivationPath {
    text.parse().expect(text)
}

/// The public key and the one address of the key at a path.
fn derived(key: &Arc<OpenedKey>, at: &str) -> Result<(String, String), OutOfReach> {
    let reached = reach(key, Some(&path(at)))?;
    let address = reached.addresses().into_values().next().expect("one address");
    Ok((hex::encode(&*reached.public_key()), address))
}

#[test]
fn published_vectors() {
    let json = include_str!("../../../tests/vectors/derivation.json");
    let vectors = serde_json::from_str::<Vectors>(json).expect("vectors parse").vectors;
    assert_eq!(vectors.len(), 29);
    for v in vectors {
        let (algorithm, curve) = match v.curve.as_str() {
            "secp256k1" => (Algorithm::Bip32Secp256k1, Curve::Secp256k1),
            "ed25519" => (Algorithm::Slip10Ed25519, Curve::Ed25519),
            other => panic!("{other}"),
        };
        let name = format!("{}, {}", v.source, v.path);
        let seed = Seed::new(curve, &material(&v.seed)).expect("a seed");
        let level = seed.level(path(&v.path).components()).expect("a key");
        assert_eq!(hex::encode(level.key.expose()), v.secret_key, "{name}");
        assert_eq!(hex::encode(level.chain_code.expose()), v.chain_code, "{name}");
        let (public_key, _) = derived(&opened(algorithm, &v.seed, &["m"]), &v.path).expect("a key");
        assert_eq!(public_key, v.public_key, "{name}");
        if v.path == "m" {
            assert_eq!(hex::encode(&**seed.public_key()), v.public_key, "{name}: the master public key");
        }
    }
}

#[test]
fn wallets_addresses() {
    let ethereum = opened(Algorithm::Bip32Secp256k1, JUNK, &["m/44'/60'/0'"]);
    for (index, address) in [
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    ]
    .iter()
    .enumerate()
    {
        let (_, derived) = derived(&ethereum, &format!("m/44'/60'/0'/0/{index}")).expect("a key");
        assert_eq!(derived, *address);
    }
    let solana = opened(Algorithm::Slip10Ed25519, ABOUT, &["m/44'/501'"]);
    let (_, derived) = derived(&solana, "m/44'/501'/0'/0'").expect("a key");
    assert_eq!(derived, "HAgk14JpMQLgt6rVgv7cBQFJWFto5Dqxi472uT3DKpqk");
}

/// Whatever was asked before, the key at a path is the same.
#[test]
fn the_last_parent_changes_nothing_but_the_work() {
    let used = opened(Algorithm::Bip32Secp256k1, JUNK, &["m"]);
    let paths = ["m", "m/0", "m/0/0", "m/0'/0", "m/0/0'", "m/44'/60'/0'/0/0", "m/44'/60'/0'/0/1", "m/44'/60'/0'/1/0"];
    for first in paths {
        for second in paths {
            let fresh = opened(Algorithm::Bip32Secp256k1, JUNK, &["m"]);
            derived(&used, first).expect("a key");
            assert_eq!(derived(&used, second), derived(&fresh, second), "{second} after {first}");
        }
    }
}

#[test]
fn children_of_one_parent_cost_one_step_each() {
    let seed = Seed::new(Curve::Secp256k1, &material(JUNK)).expect("a seed");
    let parent = seed.level(path("m/44'/60'/0'/0").components()).expect("a key");
    let again = seed.level(path("m/44'/60'/0'/0").components()).expect("a key");
    assert!(Arc::ptr_eq(&parent, &again));
    assert!(parent.point.get().is_none(), "no public key before somebody asks for a child");
    seed.level(path("m/44'/60'/0'/1").components()).expect("a key");
    assert_eq!(Arc::strong_count(&parent), 2, "no more than one parent is kept");
}

/// A hardened step needs no public key, any other that of its parent and no other.
#[test]
fn no_public_key_is_made_that_nobody_asked_for() {
    let seed = Seed::new(Curve::Secp256k1, &material(JUNK)).expect("a seed");
    let hardened = seed.level(path("m/44'").components()).expect("a key");
    hardened.child(Curve::Secp256k1, HARDENED).expect("a key");
    assert!(hardened.point.get().is_none());
    hardened.child(Curve::Secp256k1, 0).expect("a key");
    assert!(hardened.point.get().is_some());
    assert_eq!(seed.master.point.get().map(<[u8; 33]>::as_slice), Some(&**seed.public_key()), "it is the record's");
}

#[test]
fn seeds_have_16_to_64_bytes() {
    for algorithm in [Algorithm::Bip32Secp256k1, Algorithm::Slip10Ed25519] {
        for length in 0..=80 {
            let made = OpenedSecret::new(algorithm, &material(&"07".repeat(length)));
            assert_eq!(made.is_ok(), (16..=64).contains(&length), "{algorithm}: {length}");
        }
    }
}

#[test]
fn what_a_path_must_be() {
    let plain = OpenedSecret::new(Algorithm::Secp256k1, &material(&"01".repeat(32))).expect("a key");
    let seed = opened(Algorithm::Bip32Secp256k1, JUNK, &["m/44'/60'"]);
    let solana = opened(Algorithm::Slip10Ed25519, ABOUT, &["m/44'/501'"]);
    let plain = Arc::new(OpenedKey { secret: plain, policy: Policy::default(), binding: seed.binding.clone() });
    let refused = |key: &Arc<OpenedKey>, at: Option<&str>| reach(key, at.map(path).as_ref()).err();
    for (name, key, at, outcome) in [
        ("plain_without", &plain, None, None),
        ("plain_with", &plain, Some("m"), Some(OutOfReach::PathSuperfluous)),
        ("seed_without", &seed, None, Some(OutOfReach::PathRequired)),
        ("seed_below_its_prefix", &seed, Some("m/44'/60'/7'"), None),
        ("seed_above_its_prefix", &seed, Some("m/44'"), Some(OutOfReach::Denied)),
        ("seed_beside_its_prefix", &seed, Some("m/44'/600'/7'"), Some(OutOfReach::Denied)),
        ("master_key", &seed, Some("m"), Some(OutOfReach::Denied)),
        ("hardened", &solana, Some("m/44'/501'/0'"), None),
        ("not_hardened", &solana, Some("m/44'/501'/0"), Some(OutOfReach::Underivable(Underivable::NotHardened))),
        (
            "not_hardened_in_between",
            &solana,
            Some("m/44'/501'/0/0'"),
            Some(OutOfReach::Underivable(Underivable::NotHardened)),
        ),
        ("not_hardened_and_not_allowed", &solana, Some("m/44'/60'/0"), Some(OutOfReach::Denied)),
    ] {
        assert_eq!(refused(key, at), outcome, "{name}");
    }
}

/// Prints what derivation costs in raw signatures: `cargo test --release -- --ignored --nocapture price`.
#[test]
#[ignore = "measures and asserts nothing"]
#[expect(clippy::print_stdout, reason = "its purpose")]
fn price_of_a_path_in_raw_signatures() {
    use std::hint::black_box;
    use std::time::Instant;

    use k256::ecdsa::{SigningKey as RawKey, signature::hazmat::PrehashSigner};

    /// The fastest of many rounds, each shorter than a slice of the scheduler's: whatever else runs on the
    /// machine only adds.
    fn microseconds(mut work: impl FnMut(u32)) -> f64 {
        let mut round = |first: u32| {
            let start = Instant::now();
            (first..first + 10).for_each(&mut work);
            start.elapsed().as_secs_f64() * 1e6 / 10.0
        };
        (0..1000).map(|n| round(10 * n)).fold(f64::INFINITY, f64::min)
    }

    let seed = Seed::new(Curve::Secp256k1, &material(JUNK)).expect("a seed");
    let raw = RawKey::from_slice(&[7; 32]).expect("a key");
    let signature = microseconds(|i| {
        let digest = [u8::try_from(i % 251).unwrap_or(0); 32];
        black_box(PrehashSigner::<k256::ecdsa::Signature>::sign_prehash(&raw, &digest).expect("signs"));
    });
    let child = |steps: &[u32]| {
        let level = seed.level(&steps[..4]).expect("a key");
        level.child(Curve::Secp256k1, steps[4]).expect("a key")
    };
    let (h, steps) = (HARDENED, |i| [HARDENED | 44, HARDENED | 60, HARDENED, 0, i]);
    let whole = microseconds(|i| {
        *seed.last.lock().unwrap() = None;
        black_box(child(&steps(i)));
    });
    let hardened = microseconds(|i| {
        *seed.last.lock().unwrap() = None;
        black_box(child(&[h | 44, h | 60, h, h, h | i]));
    });
    let held = microseconds(|i| {
        black_box(child(&steps(i)));
    });
    let point = microseconds(|_| {
        black_box(compressed_point(black_box(&seed.master.key)).expect("a point"));
    });
    let wipe = microseconds(|_| on_wiped_stack(|| black_box(())));
    let public = opened(Algorithm::Bip32Secp256k1, JUNK, &["m"]);
    let address = microseconds(|i| {
        let at = steps(i).to_vec().try_into().expect("short");
        black_box(reach(&public, Some(&at)).expect("a key").public_key());
    });
    for (name, cost) in [
        ("one raw signature", signature),
        ("one public key", point),
        ("m/44'/60'/0'/0/i from the master key", whole),
        ("the same depth, all hardened", hardened),
        ("m/44'/60'/0'/0/i, its parent being the last", held),
        ("the same with its public key and the wipe", address),
        ("the wipe of the stack alone", wipe),
    ] {
        println!("{name:<46} {cost:8.2} us {:6.2} signatures", cost / signature);
    }
}
