//! The walls of ARCHITECTURE.md: which crate may depend on what, which file may name what, and that no
//! mock is in a release binary.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use strongroom_tests::stack::binary;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

/// The crates that `package` is built with; `depth` 1: those that it names itself.
fn dependencies(package: &str, depth: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--package", package, "--depth", depth])
        .current_dir(repository())
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("text");
    tree.lines().skip(1).filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn assert_never(package: &str, forbidden: &[&str]) {
    let tree = dependencies(package, "100");
    assert!(tree.len() > 5, "{package}: the tree was read");
    for name in forbidden {
        assert!(!tree.contains(*name), "{package} is built with {name}");
    }
}

#[test]
fn protocol_names_these_crates_and_no_others() {
    let allowed = ["bs58", "hex", "serde", "serde_cbor", "serde_json", "sha2", "sha3", "thiserror", "zeroize"];
    assert_eq!(dependencies("strongroom-protocol", "1"), allowed.map(str::to_owned).into());
    assert_never("strongroom-protocol", &["tokio", "aws-lc-rs", "k256", "ed25519-dalek", "time"]);
}

#[test]
fn runtime_names_tokio_and_rustix_and_nothing_else() {
    assert_eq!(dependencies("strongroom-runtime", "1"), ["rustix", "tokio"].map(str::to_owned).into());
}

#[test]
fn enclave_names_these_crates_and_no_others() {
    let allowed = [
        "aws-credential-types",
        "aws-lc-rs",
        "aws-nitro-enclaves-nsm-api",
        "aws-sdk-kms",
        "aws-smithy-runtime-api",
        "aws-smithy-types",
        "bytes",
        "clap",
        "curve25519-dalek",
        "ed25519-dalek",
        "getrandom",
        "hex",
        "hpke",
        "http-body-util",
        "hyper",
        "hyper-util",
        "k256",
        "nix",
        "rfc6979",
        "sha2",
        "sha3",
        "strongroom-protocol",
        "strongroom-runtime",
        "thiserror",
        "tokio",
        "tokio-rustls",
        "tokio-vsock",
        "tower-service",
        "tracing",
        "tracing-subscriber",
        "wnaf",
        "zeroize",
        "zeroizing-alloc",
    ];
    assert_eq!(dependencies("strongroom-enclave", "1"), allowed.map(str::to_owned).into());
}

#[test]
fn enclave_is_never_built_with_the_parent_the_harness_or_a_second_tls_stack() {
    assert_never(
        "strongroom-enclave",
        &["strongroom-parent", "strongroom-tests", "axum", "toml", "rcgen", "ring", "openssl", "native-tls", "rsa"],
    );
}

#[test]
fn parent_is_never_built_with_the_enclave_the_nsm_or_a_second_tls_stack() {
    assert_never(
        "strongroom-parent",
        &[
            "strongroom-enclave",
            "strongroom-tests",
            "aws-nitro-enclaves-nsm-api",
            "ed25519-dalek",
            "secp256k1",
            "ring",
            "openssl",
        ],
    );
}

/// The files under `folder` that name one of `words` in their code.
fn naming(folder: &str, words: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in rust_files(&repository().join(folder)) {
        let text = fs::read_to_string(&path).expect("text");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        if code.into_iter().any(|line| words.iter().any(|word| line.contains(word))) {
            let name = path.strip_prefix(repository()).expect("inside");
            found.insert(name.to_string_lossy().into_owned());
        }
    }
    found
}

/// Every Rust file under `folder`; none if there is no such folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn assert_only(folder: &str, words: &[&str], owners: &[&str]) {
    let owners: BTreeSet<String> = owners.iter().map(|owner| (*owner).to_owned()).collect();
    assert_eq!(naming(folder, words), owners, "files that name {words:?}");
}

#[test]
fn each_dangerous_crate_has_one_owner_in_the_enclave() {
    // Not `Keccak256::`.
    let signatures = [
        " k256::",
        "&k256::",
        "(k256::",
        "<k256::",
        "ecdsa::hazmat",
        "25519_dalek",
        "schnorr::",
        "rfc6979::",
        "wnaf::",
    ];
    let mut owners = naming("enclave/src", &signatures);
    owners.retain(|file| !file.starts_with("enclave/src/sign/"));
    // The tests of derivation measure it in signatures of the bare crate.
    assert_eq!(owners, ["enclave/src/derive/tests.rs".to_owned()].into());
    assert_only("enclave/src", &["nsm_api"], &["enclave/src/attest.rs"]);
    assert_only("enclave/src", &[" ::hpke::"], &["enclave/src/hpke.rs"]);
    let kms = ["aws_sdk_kms", "rustls::ClientConfig", "rustls::{ClientConfig"];
    assert_only("enclave/src", &kms, &["enclave/src/kms.rs", "enclave/src/kms/connector.rs"]);
}

#[test]
fn key_material_of_custodians_is_in_one_module_of_the_parent() {
    let inside = |file: &str| format!("parent/src/cli/key_material/{file}");
    let [module, keystore, pem, mnemonic, tests, sealing] =
        ["mod.rs", "formats/keystore.rs", "formats/pem.rs", "formats/mnemonic.rs", "formats/tests.rs", "sealing.rs"]
            .map(inside);
    // Not `Keccak256::`.
    let curve = [" k256::", "&k256::", "(k256::"];
    assert_only("parent/src", &curve, &["parent/src/addresses.rs", &module, &tests]);
    let addresses = ["parent/src/verify.rs", "parent/src/cli/expected.rs", "parent/src/cli/export.rs", &keystore];
    assert_only("parent/src", &["addresses::derive"], &addresses);
    assert_only("parent/src", &["Ed25519KeyPair"], &[&module]);
    assert_only("parent/src", &["pkcs8::"], &[&pem, &sealing]);
    assert_only("parent/src", &["sec1::{"], &[&pem]);
    assert_only("parent/src", &["hpke::"], &[&sealing]);
    assert_only("parent/src", &["scrypt::"], &[&keystore]);
    assert_only("parent/src", &["bip39::"], &[&mnemonic]);
    assert_only("parent/src", &["rpassword::"], &[&inside("input.rs")]);
    // Of the commands, only those of custodians and recipients reach it.
    let mut naming = naming("parent/src", &["key_material::"]);
    naming.retain(|file| !file.starts_with("parent/src/cli/key_material/"));
    let commands = ["export", "import", "recipient"].map(|command| format!("parent/src/cli/{command}.rs"));
    assert_eq!(naming, commands.into());
}

/// `key_material` is a private module of `cli`, so that nothing outside `cli` could name it. And nothing that the daemon is
/// made of names `cli`.
#[test]
fn the_daemon_does_not_reach_key_material() {
    let cli = fs::read_to_string(repository().join("parent/src/cli/mod.rs")).expect("text");
    assert!(cli.lines().any(|line| line == "mod key_material;"), "private");
    let modules = modules_reached_from("serve");
    assert!(
        ["http", "records", "key_store", "enclave_client"].iter().all(|name| modules.contains(*name)),
        "{modules:?}"
    );
    // The only ways to `cli` but the crate's root, and what of `cli` starts the daemon.
    let outside = naming("parent/src", &["cli::", "super::cli"]);
    assert_eq!(
        outside.iter().filter(|file| !file.starts_with("parent/src/cli/")).collect::<Vec<_>>(),
        ["parent/src/main.rs"]
    );
    let local = fs::read_to_string(repository().join("parent/src/cli/local.rs")).expect("text");
    let uses: Vec<&str> = local.lines().filter(|line| line.contains("super::")).collect();
    assert_eq!(uses, ["use super::exit::{Exit, Failure, Outcome};", "use super::output;"]);
    assert!(!modules.contains("cli") && !modules.contains("addresses") && !modules.contains("verify"), "{modules:?}");
}

/// The modules of the parent's crate that a module names, and those that they name, and so on.
fn modules_reached_from(module: &str) -> BTreeSet<String> {
    let source = repository().join("parent/src");
    let (mut reached, mut next) = (BTreeSet::new(), vec![module.to_owned()]);
    while let Some(module) = next.pop() {
        let mut files = vec![source.join(format!("{module}.rs"))];
        files.extend(rust_files(&source.join(&module)));
        for file in files.iter().filter(|file| file.exists()) {
            let text = fs::read_to_string(file).expect("text");
            for name in text.split("crate::").skip(1) {
                let name: String = name.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if !name.is_empty() && reached.insert(name.clone()) {
                    next.push(name);
                }
            }
            assert!(!text.contains("use crate::{"), "{file:?}: one module per line, for this test");
        }
    }
    reached
}

/// KMS is the enclave's to ask. `doctor` asks it one thing, for a refusal, and the daemon does not reach `doctor`.
#[test]
fn one_module_of_the_parent_speaks_to_kms_and_only_to_be_refused() {
    let kms = ["aws_sdk_kms", "aws_smithy_http_client"];
    assert_only("parent/src", &kms, &["parent/src/doctor/kms.rs"]);
    assert_only("parent/src", &["doctor::"], &["parent/src/cli/doctor.rs", "parent/src/cli/mod.rs"]);
    assert!(!modules_reached_from("serve").contains("doctor"));
    // The SDK's code for an operation is linked only if it is called.
    let parent = fs::read(binary("strongroom")).expect("built");
    assert!(contains(&parent, b"TrentService.GenerateDataKey"));
    for operation in ["Decrypt", "Encrypt", "ReEncrypt", "PutKeyPolicy", "CreateGrant"] {
        assert!(!contains(&parent, format!("TrentService.{operation}").as_bytes()), "{operation}");
    }
    let call = fs::read_to_string(repository().join("parent/src/doctor/kms.rs")).expect("text");
    assert!(call.contains(".dry_run(true)") && !call.contains(".recipient("));
}

#[test]
fn tls_of_callers_is_made_in_one_module_of_the_parent() {
    assert_only("parent/src", &["rustls::"], &["parent/src/tls.rs", "parent/src/tls/material.rs"]);
}

#[test]
fn serde_cbor_is_named_by_the_codec_and_the_reader_of_signed_things_only() {
    let owners = ["protocol/src/cose.rs", "protocol/src/frame.rs"];
    assert_only("protocol/src", &["serde_cbor"], &owners);
    assert_only("enclave/src", &["serde_cbor"], &[]);
    assert_only("parent/src", &["serde_cbor"], &[]);
}

#[test]
fn no_code_is_unsafe() {
    for folder in ["protocol/src", "runtime/src", "enclave/src", "parent/src", "tests/src"] {
        assert_only(folder, &["unsafe {", "unsafe fn", "unsafe impl"], &[]);
    }
}

#[test]
fn encrypt_is_never_called() {
    assert_only("enclave/src", &[".encrypt(", ".re_encrypt("], &[]);
    // The SDK's code for an operation is linked only if it is called.
    let enclave = fs::read(binary("strongroom-enclave")).expect("built");
    assert!(contains(&enclave, b"TrentService.Decrypt") && contains(&enclave, b"TrentService.GenerateDataKey"));
    assert!(!contains(&enclave, b"TrentService.Encrypt") && !contains(&enclave, b"TrentService.ReEncrypt"));
}

#[test]
fn no_mock_is_in_a_release_binary() {
    // Words of the mock NSM and the test PKI. The control: dev-enclave, the same library with the mock, has them.
    let words: [&[u8]; 3] = [b"mock-nsm", b"nsm-dir", b"strongroom_tests"];
    let mocked = fs::read(binary("dev-enclave")).expect("built");
    for word in words {
        assert!(contains(&mocked, word), "the control has {}", String::from_utf8_lossy(word));
    }
    for name in ["strongroom-enclave", "strongroom"] {
        let release = fs::read(binary(name)).expect("built");
        for word in words {
            assert!(!contains(&release, word), "{name} has {}", String::from_utf8_lossy(word));
        }
    }
}

#[test]
fn the_release_enclave_runs_on_no_machine_without_a_secure_module() {
    if Path::new("/dev/nsm").exists() {
        return;
    }
    let output = Command::new(binary("strongroom-enclave")).output().expect("runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/dev/nsm cannot be opened"));
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
