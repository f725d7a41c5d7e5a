//! Published key files and those of other programs; what each error stands for; what no damage may do.

use serde::Deserialize;
use serde_json::{Value, json};

use k256::elliptic_curve::sec1::ToSec1Point as _;

use super::*;

/// Of the vectors of the Web3 Secret Storage Definition, and of the PEM files that openssl made of it.
const SECRET: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
const PASSWORD: &str = "testpassword";
/// Of RFC 8410 section 10.3.
const ED25519_SEED: &str = "d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842";

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::Secp256k1, Algorithm::Ed25519, Algorithm::Bip32Secp256k1, Algorithm::Slip10Ed25519];
const ABOUT: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

fn file(name: &str) -> String {
    let path = format!("{}/../tests/vectors/key_files/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).expect(&path)
}

/// The secret that was read, in hex.
fn read_with(
    content: impl AsRef<[u8]>,
    format: Format,
    algorithm: Algorithm,
    password: Option<&str>,
) -> Result<String, FormatError> {
    let password = password.map(|password| SecretString::new(password.to_owned()));
    read(content.as_ref(), format, algorithm, password.as_ref()).map(|material| hex::encode(material.expose()))
}

fn read_plain(content: impl AsRef<[u8]>, format: Format, algorithm: Algorithm) -> Result<String, FormatError> {
    read_with(content, format, algorithm, None)
}

fn open(keystore: &Value) -> Result<String, FormatError> {
    read_with(keystore.to_string(), Format::Keystore, Algorithm::Secp256k1, Some(PASSWORD))
}

/// A keystore whose password costs nothing, with `value` at `pointer`.
fn keystore_with(kdf: &str, pointer: &str, value: Value) -> Value {
    let mut keystore = serde_json::from_str(&file(&format!("keystore_cheap_{kdf}.json"))).expect("JSON");
    *Value::pointer_mut(&mut keystore, pointer).expect(pointer) = value;
    keystore
}

#[test]
fn formats_are_recognised() {
    let scalar = format!("  0x{SECRET}\n");
    for (content, format) in [
        (SECRET, Format::Hex),
        (&scalar, Format::Hex),
        ("00", Format::Hex),
        (&file("secp256k1_sec1_after_parameters.pem"), Format::Pem),
        (&format!("Bag Attributes: <none>\n{}", file("secp256k1_pkcs8.pem")), Format::Pem),
        (&file("certificate.pem"), Format::Pem),
        (&file("keystore_scrypt.json"), Format::Keystore),
        ("\n {}", Format::Keystore),
        (&file("solana.json"), Format::Solana),
        (ABOUT, Format::Mnemonic),
        ("dead\nbeef", Format::Mnemonic),
        ("abaisser abandon abdiquer été", Format::Mnemonic),
    ] {
        assert_eq!(Format::recognise(content.as_bytes()), Ok(format), "{content}");
    }
}

#[test]
fn what_is_none_of_the_formats_is_not_guessed() {
    for content in ["", " \n", "0x", "word", "xprv9s21ZrQH143K3", "two words1", "0xgg", "\"text\"", "00 11"] {
        assert_eq!(Format::recognise(content.as_bytes()), Err(FormatError::Unrecognised), "{content:?}");
    }
    assert_eq!(Format::recognise(&[0xff; 32]), Err(FormatError::NotText));
    assert_eq!(read_plain([0xff; 32], Format::Hex, Algorithm::Ed25519), Err(FormatError::NotText));
}

#[test]
fn the_names_of_the_formats_are_the_documented_ones() {
    let names: Vec<_> = Format::value_variants()
        .iter()
        .filter_map(|format| Some(format.to_possible_value()?.get_name().to_owned()))
        .collect();
    assert_eq!(names, ["hex", "pem", "keystore", "solana", "mnemonic"]);
    for error in [FormatError::NotText, FormatError::Unrecognised] {
        assert!(names.iter().all(|name| error.to_string().contains(name)), "{error}");
    }
}

#[test]
fn hex_is_a_key_or_a_seed() {
    for text in [SECRET.to_owned(), format!("0x{SECRET}"), format!(" {}\r\n", SECRET.to_uppercase())] {
        for algorithm in ALGORITHMS {
            assert_eq!(read_plain(&text, Format::Hex, algorithm), Ok(SECRET.to_owned()), "{algorithm}");
        }
    }
    for length in [16, 17, 64] {
        let seed = "5a".repeat(length);
        assert_eq!(read_plain(&seed, Format::Hex, Algorithm::Bip32Secp256k1), Ok(seed.clone()), "{length}");
    }
}

#[test]
fn hex_of_another_length_is_refused() {
    for (algorithm, digits) in [
        (Algorithm::Secp256k1, 62),
        (Algorithm::Secp256k1, 63),
        (Algorithm::Ed25519, 66),
        (Algorithm::Bip32Secp256k1, 30),
        (Algorithm::Slip10Ed25519, 33),
        (Algorithm::Slip10Ed25519, 130),
    ] {
        let error = read_plain("1".repeat(digits), Format::Hex, algorithm).expect_err("refused");
        assert_eq!(error, FormatError::HexLength { digits, algorithm });
    }
    let plain = FormatError::HexLength { digits: 62, algorithm: Algorithm::Secp256k1 };
    assert_eq!(plain.to_string(), "62 hex digits: secp256k1 has 64");
    let seed = FormatError::HexLength { digits: 33, algorithm: Algorithm::Slip10Ed25519 };
    assert_eq!(seed.to_string(), "33 hex digits: slip10-ed25519 has 32 to 128, two for each byte");
}

#[test]
fn what_is_not_hex_is_refused() {
    for text in ["", "0x", "0x0x00", &format!("{SECRET}g"), &SECRET.replace('7', " "), "ünf"] {
        assert_eq!(read_plain(text, Format::Hex, Algorithm::Ed25519), Err(FormatError::NotHex), "{text}");
    }
}

#[test]
fn scalars_out_of_range_are_no_keys() {
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    for scalar in [order, &"00".repeat(32)] {
        assert_eq!(read_plain(scalar, Format::Hex, Algorithm::Secp256k1), Err(FormatError::NotAKey(NotAKey)));
        assert_eq!(read_plain(scalar, Format::Hex, Algorithm::Ed25519), Ok(scalar.to_owned()), "any 32 bytes are one");
    }
}

#[test]
fn a_format_does_not_hold_what_it_cannot() {
    let fits = [
        (Format::Hex, [true, true, true, true]),
        (Format::Pem, [true, true, false, false]),
        (Format::Keystore, [true, false, false, false]),
        (Format::Solana, [false, true, false, false]),
        (Format::Mnemonic, [false, false, true, true]),
    ];
    for (format, fits) in fits {
        for (algorithm, fits) in ALGORITHMS.into_iter().zip(fits) {
            let refused = read_plain("", format, algorithm) == Err(FormatError::OtherAlgorithm(format));
            assert_ne!(refused, fits, "{format:?} of {algorithm}");
        }
    }
    let mnemonic = FormatError::OtherAlgorithm(Format::Mnemonic).to_string();
    assert_eq!(mnemonic, "a mnemonic is a seed: --algorithm bip32-secp256k1 or slip10-ed25519");
}

#[test]
fn a_password_is_for_those_who_have_one() {
    for (format, algorithm, content) in [
        (Format::Hex, Algorithm::Secp256k1, SECRET),
        (Format::Pem, Algorithm::Secp256k1, &file("secp256k1_sec1.pem")),
        (Format::Solana, Algorithm::Ed25519, &file("solana.json")),
    ] {
        assert!(!format.takes_password() && !format.needs_password());
        assert!(read_plain(content, format, algorithm).is_ok(), "{format:?}");
        let refused = read_with(content, format, algorithm, Some(""));
        assert_eq!(refused, Err(FormatError::PasswordNotTaken), "{format:?}");
    }
    let keystore = file("keystore_cheap_scrypt.json");
    assert!(Format::Keystore.needs_password() && Format::Keystore.takes_password());
    let refused = read_plain(keystore, Format::Keystore, Algorithm::Secp256k1);
    assert_eq!(refused, Err(FormatError::PasswordMissing));
    assert!(!Format::Mnemonic.needs_password() && Format::Mnemonic.takes_password());
}

#[test]
fn pem_files_of_openssl_and_of_rfc_8410() {
    for (name, algorithm, secret) in [
        ("secp256k1_sec1.pem", Algorithm::Secp256k1, SECRET),
        ("secp256k1_sec1_after_parameters.pem", Algorithm::Secp256k1, SECRET),
        ("secp256k1_sec1_without_public_key.pem", Algorithm::Secp256k1, SECRET),
        ("secp256k1_sec1_compressed_point.pem", Algorithm::Secp256k1, SECRET),
        ("secp256k1_pkcs8.pem", Algorithm::Secp256k1, SECRET),
        ("ed25519_pkcs8_v1.pem", Algorithm::Ed25519, ED25519_SEED),
        ("ed25519_pkcs8_v2.pem", Algorithm::Ed25519, ED25519_SEED),
    ] {
        let text = file(name);
        assert_eq!(read_plain(&text, Format::Pem, algorithm), Ok(secret.to_owned()), "{name}");
        assert_eq!(
            read_plain(text.replace('\n', "\r\n"), Format::Pem, algorithm),
            Ok(secret.to_owned()),
            "{name}: CRLF"
        );
        let beside = format!("Bag Attributes: <none>\n{text}\n{}", file("certificate.pem"));
        assert_eq!(read_plain(beside, Format::Pem, algorithm), Ok(secret.to_owned()), "{name}: with others");
    }
}

#[test]
fn pem_files_that_are_refused() {
    let (secp256k1, ed25519) = (Algorithm::Secp256k1, Algorithm::Ed25519);
    let pkcs8 = file("secp256k1_pkcs8.pem");
    for (name, text, algorithm, error) in [
        ("public_key", file("public_key.pem"), secp256k1, PemError::NoPrivateKey),
        ("certificate", file("certificate.pem"), ed25519, PemError::NoPrivateKey),
        ("no_block", "text".to_owned(), secp256k1, PemError::NoPrivateKey),
        ("encrypted_pkcs8", file("encrypted_pkcs8.pem"), secp256k1, PemError::Encrypted),
        ("encrypted_sec1", file("encrypted_sec1.pem"), secp256k1, PemError::Encrypted),
        ("two_keys", pkcs8.repeat(2), secp256k1, PemError::Several),
        ("two_kinds", pkcs8.clone() + &file("encrypted_sec1.pem"), secp256k1, PemError::Several),
        ("p256_sec1", file("p256_sec1.pem"), secp256k1, PemError::OtherCurve(secp256k1)),
        ("p256_pkcs8", file("p256_pkcs8.pem"), secp256k1, PemError::OtherCurve(secp256k1)),
        ("rsa_pkcs8", file("rsa_pkcs8.pem"), ed25519, PemError::OtherCurve(ed25519)),
        ("rsa_pkcs1", file("rsa_pkcs1.pem"), secp256k1, PemError::OtherLabel),
        ("secp256k1_for_ed25519", pkcs8.clone(), ed25519, PemError::OtherCurve(ed25519)),
        ("ed25519_for_secp256k1", file("ed25519_pkcs8_v1.pem"), secp256k1, PemError::OtherCurve(secp256k1)),
        ("explicit_parameters", file("explicit_parameters.pem"), secp256k1, PemError::Damaged),
        ("other_label", pkcs8.replace("PRIVATE", "EC PRIVATE"), secp256k1, PemError::Damaged),
        ("no_end", pkcs8.replace("-----END", ""), secp256k1, PemError::Damaged),
        ("not_base64", pkcs8.replace("MIGE", "M-GE"), secp256k1, PemError::Damaged),
        ("empty", pem("PRIVATE KEY", ""), secp256k1, PemError::Damaged),
        ("bytes_after_the_key", pem("PRIVATE KEY", &format!("{V1}{ED25519_SEED}00")), ed25519, PemError::Damaged),
        ("short_seed", pem("PRIVATE KEY", &ed25519_of_length(31)), ed25519, PemError::Length),
        ("long_seed", pem("PRIVATE KEY", &ed25519_of_length(33)), ed25519, PemError::Length),
        ("short_scalar", pem("EC PRIVATE KEY", &secp256k1_of_length(31)), secp256k1, PemError::Length),
        ("no_curve", pem("EC PRIVATE KEY", &format!("30250201010420{SECRET}")), secp256k1, PemError::CurveNotNamed),
    ] {
        let refused = read_plain(text, Format::Pem, algorithm);
        assert_eq!(refused, Err(FormatError::Pem(error)), "{name}");
    }
}

#[test]
fn a_public_key_that_is_not_the_keys_is_refused() {
    let of = |scalar: &str| {
        let key = k256::SecretKey::from_slice(&hex::decode(scalar).expect("hex")).expect("a key");
        hex::encode(key.public_key().to_sec1_point(true).as_bytes())
    };
    let sec1 = |public_key: &str| {
        pem("EC PRIVATE KEY", &format!("30540201010420{SECRET}a00706052b8104000aa124032200{public_key}"))
    };
    let v2 = |public_key: &str| {
        pem("PRIVATE KEY", &format!("3051020101300506032b657004220420{ED25519_SEED}812100{public_key}"))
    };
    let own = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
    let read_sec1 = |text| read_plain(text, Format::Pem, Algorithm::Secp256k1);
    assert_eq!(read_sec1(sec1(&of(SECRET))), Ok(SECRET.to_owned()));
    assert_eq!(read_sec1(sec1(&of(ED25519_SEED))), Err(FormatError::OtherPublicKey));
    assert_eq!(read_sec1(sec1(&"00".repeat(33))), Err(FormatError::OtherPublicKey), "no point");
    let read_v2 = |text| read_plain(text, Format::Pem, Algorithm::Ed25519);
    assert_eq!(read_v2(v2(own)), Ok(ED25519_SEED.to_owned()));
    assert_eq!(read_v2(v2(&own.replace("19bf", "19be"))), Err(FormatError::OtherPublicKey));
}

/// PKCS#8 version 1 of an ed25519 key, up to the seed.
const V1: &str = "302e020100300506032b657004220420";

fn ed25519_of_length(length: usize) -> String {
    let seed = "01".repeat(length);
    format!("30{:02x}020100300506032b657004{:02x}04{length:02x}{seed}", length + 14, length + 2)
}

fn secp256k1_of_length(length: usize) -> String {
    let scalar = "01".repeat(length);
    format!("30{:02x}02010104{length:02x}{scalar}a00706052b8104000a", length + 14)
}

fn pem(label: &str, der: &str) -> String {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD.encode(hex::decode(der).expect("hex"));
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("text")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn keystores_of_the_definition() {
    for name in ["pbkdf2", "scrypt", "cheap_pbkdf2", "cheap_scrypt"] {
        let text = file(&format!("keystore_{name}.json"));
        let opened = |text, password| read_with(text, Format::Keystore, Algorithm::Secp256k1, Some(password));
        assert_eq!(opened(text.replace("\"crypto\"", "\"Crypto\""), PASSWORD), Ok(SECRET.to_owned()), "{name}");
    }
}

#[test]
fn a_keystores_address_may_be_written_in_any_way_and_must_be_the_keys() {
    let address = "008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b";
    for written in [address.to_owned(), format!("0x{address}"), address.to_lowercase()] {
        assert_eq!(open(&keystore_with("scrypt", "/address", json!(written))), Ok(SECRET.to_owned()));
    }
    assert_eq!(open(&keystore_with("scrypt", "/address", Value::Null)), Ok(SECRET.to_owned()));
    for other in ["", "0x", &address.replace("008A", "008B")] {
        let refused = open(&keystore_with("scrypt", "/address", json!(other)));
        assert_eq!(refused, Err(KeystoreError::OtherAddress.into()), "{other}");
    }
}

/// Two blocks of half a gibibyte would be allowed, and sixteen more are asked for.
fn huge_blocks() -> Value {
    json!({ "dklen": 32, "n": 2, "r": 1 << 22, "p": 16, "salt": "00" })
}

#[test]
fn keystores_that_are_refused() {
    use KeystoreError::{Cipher, Kdf, Malformed, TooExpensive, Version};
    for (name, kdf, pointer, value, error) in [
        ("version_1", "scrypt", "/version", json!(1), Version),
        ("version_as_text", "scrypt", "/version", json!("3"), Version),
        ("version_4", "scrypt", "/version", json!(4), Version),
        ("cipher_cbc", "scrypt", "/crypto/cipher", json!("aes-128-cbc"), Cipher),
        ("kdf_argon2", "scrypt", "/crypto/kdf", json!("argon2id"), Kdf),
        ("kdf_of_the_other_parameters", "scrypt", "/crypto/kdf", json!("pbkdf2"), Malformed),
        ("prf_sha512", "pbkdf2", "/crypto/kdfparams/prf", json!("hmac-sha512"), Kdf),
        ("scrypt_dklen_64", "scrypt", "/crypto/kdfparams/dklen", json!(64), Kdf),
        ("pbkdf2_dklen_16", "pbkdf2", "/crypto/kdfparams/dklen", json!(16), Kdf),
        ("scrypt_memory", "scrypt", "/crypto/kdfparams/n", json!(1 << 21), TooExpensive),
        ("scrypt_memory_beyond_64_bits", "scrypt", "/crypto/kdfparams/n", json!(1_u64 << 63), TooExpensive),
        ("scrypt_r", "scrypt", "/crypto/kdfparams/r", json!(u32::MAX), TooExpensive),
        ("scrypt_p", "scrypt", "/crypto/kdfparams/p", json!(17), TooExpensive),
        ("scrypt_r_with_small_n", "scrypt", "/crypto/kdfparams", huge_blocks(), TooExpensive),
        ("scrypt_n_no_power_of_two", "scrypt", "/crypto/kdfparams/n", json!(3), Malformed),
        ("scrypt_n_one", "scrypt", "/crypto/kdfparams/n", json!(1), Malformed),
        ("scrypt_n_zero", "scrypt", "/crypto/kdfparams/n", json!(0), Malformed),
        ("scrypt_r_zero", "scrypt", "/crypto/kdfparams/r", json!(0), Malformed),
        ("scrypt_p_zero", "scrypt", "/crypto/kdfparams/p", json!(0), Malformed),
        ("scrypt_p_negative", "scrypt", "/crypto/kdfparams/p", json!(-1), Malformed),
        ("pbkdf2_rounds", "pbkdf2", "/crypto/kdfparams/c", json!(10_000_001), TooExpensive),
        ("pbkdf2_no_rounds", "pbkdf2", "/crypto/kdfparams/c", json!(0), Malformed),
        ("salt_not_hex", "pbkdf2", "/crypto/kdfparams/salt", json!("xy"), Malformed),
        ("iv_short", "scrypt", "/crypto/cipherparams/iv", json!("00"), Malformed),
        ("ciphertext_short", "scrypt", "/crypto/ciphertext", json!("00".repeat(31)), Malformed),
        ("ciphertext_long", "scrypt", "/crypto/ciphertext", json!("00".repeat(33)), Malformed),
        ("mac_short", "scrypt", "/crypto/mac", json!("00".repeat(31)), Malformed),
        ("mac_missing", "scrypt", "/crypto/mac", Value::Null, Malformed),
        ("crypto_missing", "scrypt", "/crypto", Value::Null, Malformed),
    ] {
        assert_eq!(open(&keystore_with(kdf, pointer, value)), Err(error.into()), "{name}");
    }
    for (name, text) in [
        ("not_json", "{"),
        ("another_json", "{}"),
        ("twice_crypto", r#"{"version": 3, "crypto": {}, "Crypto": {}}"#),
        ("no_object", "[3]"),
    ] {
        let refused = read_with(text, Format::Keystore, Algorithm::Secp256k1, Some(PASSWORD));
        assert_eq!(refused, Err(Malformed.into()), "{name}");
    }
}

#[test]
fn another_password_opens_no_keystore() {
    for kdf in ["scrypt", "pbkdf2"] {
        let text = file(&format!("keystore_cheap_{kdf}.json"));
        for password in ["", "testpassword\n", "Testpassword"] {
            let refused = read_with(&text, Format::Keystore, Algorithm::Secp256k1, Some(password));
            assert_eq!(refused, Err(KeystoreError::WrongPassword.into()), "{password:?}");
        }
    }
}

#[test]
fn every_change_of_what_the_password_protects_shows() {
    for kdf in ["scrypt", "pbkdf2"] {
        for pointer in ["/crypto/ciphertext", "/crypto/mac", "/crypto/kdfparams/salt"] {
            let original = keystore_with(kdf, "/version", json!(3));
            let bytes = hex::decode(original.pointer(pointer).and_then(Value::as_str).expect("text")).expect("hex");
            for index in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[index] ^= 1;
                let refused = open(&keystore_with(kdf, pointer, json!(hex::encode(changed))));
                assert_eq!(refused, Err(KeystoreError::WrongPassword.into()), "{kdf}, {pointer}, byte {index}");
            }
        }
    }
}

/// The check value does not cover the initialization vector: only the address does.
#[test]
fn a_changed_initialization_vector_shows_in_the_address() {
    let refused = open(&keystore_with("scrypt", "/crypto/cipherparams/iv", json!("00".repeat(16))));
    assert_eq!(refused, Err(KeystoreError::OtherAddress.into()));
}

#[test]
fn keypair_files_of_solana() {
    let seed: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
    let text = file("solana.json");
    assert_eq!(read_plain(&text, Format::Solana, Algorithm::Ed25519), Ok(seed));
    let numbers: Vec<u16> = serde_json::from_str(&text).expect("numbers");
    for place in 0..64 {
        let mut changed = numbers.clone();
        changed[place] ^= 1;
        let refused = read_plain(json!(changed).to_string(), Format::Solana, Algorithm::Ed25519);
        assert_eq!(refused, Err(FormatError::OtherPublicKey), "byte {place}");
    }
    let mut too_large = numbers.clone();
    too_large[0] = 256;
    for (name, text) in [
        ("seed_alone", json!(numbers[..32])),
        ("63_bytes", json!(numbers[..63])),
        ("65_bytes", json!([numbers.as_slice(), &[0]].concat())),
        ("too_large", json!(too_large)),
        ("text", json!(hex::encode([0; 64]))),
        ("nested", json!([numbers])),
        ("object", json!({})),
    ] {
        let refused = read_plain(text.to_string(), Format::Solana, Algorithm::Ed25519);
        assert_eq!(refused, Err(FormatError::NotSolana), "{name}");
    }
}

#[derive(Deserialize)]
struct Mnemonics {
    passphrase: String,
    vectors: Vec<MnemonicVector>,
}

#[derive(Deserialize)]
struct MnemonicVector {
    mnemonic: String,
    seed: String,
    public_key: String,
}

#[test]
fn published_mnemonics() {
    let json = include_str!("../../../../../tests/vectors/bip39.json");
    let Mnemonics { passphrase, vectors } = serde_json::from_str(json).expect("vectors parse");
    assert_eq!(vectors.len(), 24);
    for v in vectors {
        for algorithm in [Algorithm::Bip32Secp256k1, Algorithm::Slip10Ed25519] {
            let seed = read_with(&v.mnemonic, Format::Mnemonic, algorithm, Some(&passphrase));
            assert_eq!(seed, Ok(v.seed.clone()), "{}", v.mnemonic);
        }
        let passphrase = SecretString::new(passphrase.clone());
        let seed = read(v.mnemonic.as_bytes(), Format::Mnemonic, Algorithm::Bip32Secp256k1, Some(&passphrase));
        let public_key = seed.and_then(|seed| Ok(seed.public_key(Algorithm::Bip32Secp256k1)?)).expect("a seed");
        assert_eq!(hex::encode(&*public_key), v.public_key, "{}: the master key", v.mnemonic);
    }
}

#[test]
fn no_passphrase_is_the_empty_one() {
    let seed = "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc19a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4";
    for (text, passphrase) in
        [(ABOUT.to_owned(), None), (ABOUT.to_owned(), Some("")), (format!("\n{}\n", ABOUT.replace(' ', " \n ")), None)]
    {
        let read = read_with(text, Format::Mnemonic, Algorithm::Bip32Secp256k1, passphrase);
        assert_eq!(read, Ok(seed.to_owned()), "{passphrase:?}");
    }
}

/// As typed on one keyboard and on another: both are NFKD's "A\u{30a}ngstro\u{308}m fi メートル".
#[test]
fn a_passphrase_is_normalized() {
    let seed = "0dbf04f39886234964176de6dc7bfe3e03d5dad34de18bb6fd8238e7582c59ea0e7ce6ee4b59145b327393e10157159f964f7d1d3d16e2d2c4670b5298275944";
    for passphrase in
        ["\u{c5}ngstr\u{f6}m \u{fb01} \u{334d}", "A\u{30a}ngstro\u{308}m fi \u{30e1}\u{30fc}\u{30c8}\u{30eb}"]
    {
        let read = read_with(ABOUT, Format::Mnemonic, Algorithm::Bip32Secp256k1, Some(passphrase));
        assert_eq!(read, Ok(seed.to_owned()), "{passphrase}");
    }
}

#[test]
fn words_that_are_no_mnemonic_are_refused() {
    use MnemonicError::{Checksum, UnknownWord, WordCount};
    for (name, words, error) in [
        ("none", String::new(), WordCount(0)),
        ("eleven", "abandon ".repeat(11), WordCount(11)),
        ("thirteen", format!("{ABOUT} about"), WordCount(13)),
        ("twenty_seven", "abandon ".repeat(27), WordCount(27)),
        ("unknown_first", ABOUT.replacen("abandon", "abandoned", 1), UnknownWord(1)),
        ("unknown_last", ABOUT.replace("about", "aboot"), UnknownWord(12)),
        ("capital", ABOUT.replacen('a', "A", 1), UnknownWord(1)),
        ("french", format!("abaisser {}", "abandon ".repeat(11)), UnknownWord(1)),
        ("wrong_word", ABOUT.replace("about", "abandon"), Checksum),
        ("wrong_order", format!("about {}", "abandon ".repeat(11)), Checksum),
    ] {
        let refused = read_plain(words, Format::Mnemonic, Algorithm::Bip32Secp256k1);
        assert_eq!(refused, Err(error.into()), "{name}");
    }
}

/// Whatever is cut off, there is an error and no key.
#[test]
fn a_truncated_file_is_refused() {
    let (secp256k1, ed25519, seed) = (Algorithm::Secp256k1, Algorithm::Ed25519, Algorithm::Bip32Secp256k1);
    for (format, algorithm, content) in [
        (Format::Hex, secp256k1, SECRET.to_owned()),
        (Format::Pem, secp256k1, file("secp256k1_sec1_after_parameters.pem")),
        (Format::Pem, secp256k1, file("secp256k1_pkcs8.pem")),
        (Format::Pem, ed25519, file("ed25519_pkcs8_v2.pem")),
        (Format::Keystore, secp256k1, file("keystore_cheap_scrypt.json")),
        (Format::Solana, ed25519, file("solana.json")),
        (Format::Mnemonic, seed, ABOUT.to_owned()),
    ] {
        let password = format.needs_password().then_some(PASSWORD);
        let content = content.trim_end();
        assert!(read_with(content, format, algorithm, password).is_ok(), "{format:?}");
        for length in 0..content.len() {
            let cut = &content[..length];
            assert!(read_with(cut, format, algorithm, password).is_err(), "{format:?}: {length} bytes");
        }
    }
}

/// Single bits of the files of all formats, read as every format: there is an answer.
#[test]
fn damage_never_panics() {
    let files = ["secp256k1_sec1.pem", "secp256k1_pkcs8.pem", "ed25519_pkcs8_v2.pem", "p256_sec1.pem", "solana.json"];
    for content in files.map(file).into_iter().chain([SECRET.to_owned(), ABOUT.to_owned()]) {
        for place in 0..content.len() {
            let mut changed = content.clone().into_bytes();
            changed[place] ^= 1 << (place % 8);
            let _ = Format::recognise(&changed);
            for format in [Format::Hex, Format::Pem, Format::Solana, Format::Mnemonic] {
                for algorithm in ALGORITHMS {
                    let _ = read_plain(&changed, format, algorithm);
                }
            }
        }
    }
}

/// An error holds nothing that could be the file's: numbers and names of ours.
#[test]
fn errors_have_no_place_for_a_text() {
    fn is_plain<T: Copy + 'static>() {}
    is_plain::<FormatError>();
}
