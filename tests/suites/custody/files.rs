//! `strongroom key import` from every format: the key that comes in is the one that other libraries say is in the
//! file, it signs, and what is no such key never leaves the custodian's machine.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use strongroom_tests::pki::NITRO_ROOT_FILE;
use strongroom_tests::scripts;

use super::{asked, importing, stored};
use crate::command_line::{command, ended, said};
use crate::scene::Scene;

/// `strongroom key import` on the custodian's machine, against the stack's enclave.
pub(super) async fn import(it: &Scene, url: &str, arguments: &[&str]) -> Output {
    let directory = it.stack.directory();
    let enclave = ["--pcrs", "pcrs.json", "--attestation-root", NITRO_ROOT_FILE, "--url", url, "--json"];
    ended(&mut command(directory, &[&["key", "import"], arguments, &enclave].concat())).await
}

/// What the enclave vouches for at the end of an import that succeeds.
async fn imported(it: &Scene, arguments: &[&str]) -> Value {
    let output = import(it, &it.stack.url, arguments).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

pub(super) fn write(it: &Scene, name: &str, content: &str) -> String {
    let path = it.stack.directory().join(name);
    std::fs::write(&path, content).expect("written");
    path.to_str().expect("text").to_owned()
}

/// Files of this format, made by other libraries with new keys, and what is in them.
async fn made(it: &Scene, questions: &[Value]) -> Vec<(String, Value)> {
    let answers = asked("key_files.py", questions).await;
    let files = answers.into_iter().enumerate();
    files.map(|(n, made)| (write(it, &format!("key-{n}"), made["content"].as_str().expect("text")), made)).collect()
}

/// One signature of each, for the script that verifies: with the key itself, or with the one at `path`.
async fn signature(it: &Scene, key_id: &str, algorithm: &str, path: Option<&str>, made: &Value) -> Value {
    let message = format!("0x{}", hex::encode(key_id));
    let mut payload = json!({ "type": "message", "message": message });
    if algorithm.ends_with("secp256k1") {
        payload["hash"] = "keccak256".into();
    }
    let mut body = json!({ "payload": payload });
    if let Some(path) = path {
        body["path"] = path.into();
    }
    let signed = it.api.sign(key_id, body).await.expect("a reply");
    assert_eq!(signed.status.as_u16(), 200, "{key_id}: {}", signed.body);
    let mut case = json!({
        "scheme": if algorithm.ends_with("secp256k1") { "ecdsa" } else { "ed25519" },
        "public_key": format!("0x{}", made["public_key"].as_str().expect("text")),
        "signature": signed.text("signature"),
        "message": message,
        "address": made["address"],
    });
    if algorithm.ends_with("secp256k1") {
        case["hash"] = "keccak256".into();
        case["recovery_id"] = signed.body["recovery_id"].clone();
    }
    case
}

async fn verified(cases: Vec<Value>) {
    let verdicts = asked_lines("verify_signatures.py", &cases).await;
    assert_eq!(verdicts, vec!["verified"; cases.len()]);
}

async fn asked_lines(script: &str, questions: &[Value]) -> Vec<String> {
    let input: String = questions.iter().map(|question| format!("{question}\n")).collect();
    scripts::run(script, &input).await.expect("the script runs").lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_key_of_every_format_is_imported_and_signs() {
    let it = importing().await;
    let formats = [
        ("hex", "secp256k1", None),
        ("hex", "ed25519", None),
        ("pem-sec1", "secp256k1", None),
        ("pem-pkcs8", "secp256k1", None),
        ("pem-pkcs8", "ed25519", None),
        ("keystore-scrypt", "secp256k1", Some("correct horse")),
        ("keystore-pbkdf2", "secp256k1", Some("päßword")),
        ("solana", "ed25519", None),
    ];
    let questions: Vec<Value> = formats
        .iter()
        .map(|(format, algorithm, password)| json!({ "format": format, "algorithm": algorithm, "password": password }))
        .collect();
    let mut cases = Vec::new();
    for (n, ((_, algorithm, password), (file, made))) in formats.iter().zip(made(&it, &questions).await).enumerate() {
        let key_id = format!("imported-{n}");
        let mut arguments = vec![&*key_id, "--algorithm", algorithm, "--file", &file];
        let password_file = password.map(|password| write(&it, "password", &format!("{password}\n")));
        if let Some(password_file) = &password_file {
            arguments.extend(["--password-file", password_file]);
        }
        let report = imported(&it, &arguments).await;
        let chain = if *algorithm == "ed25519" { "solana" } else { "ethereum" };
        assert_eq!(report["key"]["public_key"], format!("0x{}", made["public_key"].as_str().expect("text")), "{n}");
        assert_eq!(report["key"]["addresses"], json!({ chain: made["address"] }), "{n}");
        assert_eq!(report["key"]["origin"], "imported");
        cases.push(signature(&it, &key_id, algorithm, None, &made).await);
    }
    verified(cases).await;
}

/// A mnemonic, and a seed in hex, are the wallets that other libraries make of them, on both curves.
#[tokio::test]
async fn a_seed_is_imported_and_is_the_wallet_of_its_mnemonic() {
    let it = importing().await;
    let seeds = [
        ("mnemonic", "bip32-secp256k1", None, "m/44'/60'/0'/0/5"),
        ("mnemonic", "bip32-secp256k1", Some("päss phrase"), "m/84'/0'/0'/1/7"),
        ("mnemonic", "slip10-ed25519", None, "m/44'/501'/0'/0'"),
        ("hex", "bip32-secp256k1", None, "m/0"),
        ("hex", "slip10-ed25519", None, "m/44'/501'/1'"),
    ];
    let questions: Vec<Value> = seeds
        .iter()
        .map(|(format, algorithm, passphrase, _)| json!({ "format": format, "algorithm": algorithm, "password": passphrase }))
        .collect();
    let (mut cases, mut wallets) = (Vec::new(), Vec::new());
    for (n, ((format, algorithm, passphrase, path), (file, made))) in
        seeds.iter().zip(made(&it, &questions).await).enumerate()
    {
        let key_id = format!("seed-{n}");
        let mut arguments =
            vec![&*key_id, "--algorithm", algorithm, "--file", &file, "--paths", "m", "--hold-seconds", "60"];
        let passphrase_file = passphrase.map(|passphrase| write(&it, "passphrase", passphrase));
        if let Some(passphrase_file) = &passphrase_file {
            arguments.extend(["--password-file", passphrase_file]);
        }
        let report = imported(&it, &arguments).await;
        assert_eq!(report["key"]["public_key"], format!("0x{}", made["public_key"].as_str().expect("text")), "{n}");
        assert_eq!(report["key"]["addresses"], json!({}), "a seed has none of its own");
        assert_eq!(report["key"]["policy"], json!({ "payloads": ["message"], "hold_seconds": 60, "paths": ["m"] }));

        let question = json!({ "algorithm": algorithm, "seed": made["secret"], "path": path });
        let derived = asked("derive_keys.py", &[question]).await.remove(0);
        let told = it.api.get(&format!("/v1/keys/{key_id}/public-key?path={path}")).await.expect("a reply");
        assert_eq!(told.body["public_key"], format!("0x{}", derived["public_key"].as_str().expect("text")), "{n}");
        cases.push(signature(&it, &key_id, algorithm, Some(path), &derived).await);
        if *format == "mnemonic" && *algorithm == "bip32-secp256k1" {
            let question = json!({ "mnemonic": made["content"], "passphrase": passphrase, "path": path });
            wallets.push((question, told.body["public_key"].clone()));
        }
    }
    verified(cases).await;
    let input: String = wallets.iter().map(|(question, _)| format!("{question}\n")).collect();
    let output = scripts::run_node("wallet_keys.cjs", &input).await.expect("the script runs");
    assert_eq!(output.lines().count(), wallets.len());
    for (line, (question, public_key)) in output.lines().zip(wallets) {
        let wallet: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(public_key, format!("0x{}", wallet["public_key"].as_str().expect("text")), "{question}");
    }
}

#[tokio::test]
async fn a_key_can_come_by_standard_input_and_under_a_named_kms_key_and_policy() {
    let it = importing().await;
    let (file, made) = made(&it, &[json!({ "format": "hex", "algorithm": "secp256k1" })]).await.remove(0);
    let arguments = [
        "key",
        "import",
        "a",
        "--algorithm",
        "secp256k1",
        "--file",
        "-",
        "--format",
        "hex",
        "--kms-key-arn",
        &it.stack.kms_key,
        "--payloads",
        "digest,message",
        "--exportable",
        "--pcrs",
        "image.json",
        "--enclave-config",
        "enclave.json",
        "--attestation-root",
        NITRO_ROOT_FILE,
        "--url",
        &it.stack.url,
    ];
    // The measurement of the image alone: PCR16 follows from the configuration.
    let pcrs = std::fs::read(it.stack.directory().join("pcrs.json")).expect("pcrs.json");
    let pcrs: Value = serde_json::from_slice(&pcrs).expect("JSON");
    write(&it, "image.json", &json!({ "PCR0": pcrs["PCR0"] }).to_string());
    let mut command = command(it.stack.directory(), &arguments);
    command.stdin(std::fs::File::open(file).expect("the file"));
    let output = ended(&mut command).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("VERIFIED  key a") && text.contains(made["public_key"].as_str().expect("text")), "{text}");
    let policy = json!({ "payloads": ["digest", "message"], "hold_seconds": 0, "exportable": true });
    assert_eq!(it.stored("a")["policy"], policy);
}

/// Everything that a custodian can get wrong is said in a sentence, and nothing is asked, let alone written.
#[tokio::test]
async fn bad_input_is_named_and_never_leaves_the_machine() {
    let it = importing().await;
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/key_files");
    let vector = |name: &str| vectors.join(name).to_str().expect("text").to_owned();
    let keystore = vector("keystore_cheap_scrypt.json");
    let (wrong, right) = (write(&it, "wrong", "not it"), write(&it, "right", "testpassword"));
    let twelve = ["abandon"; 12].join(" ");
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let text = |name: &str, content: &str| write(&it, name, content);
    let (zero, order, short) = (text("zero", &"00".repeat(32)), text("order", order), text("short", "abcd"));
    let (checksum, word) = (text("checksum", &twelve), text("word", &twelve.replacen("abandon", "abandun", 1)));
    let (binary, prose) = (it.stack.directory().join("binary"), text("prose", "this is no key: 42"));
    std::fs::write(&binary, [0xff; 32]).expect("written");
    let binary = binary.to_str().expect("text");
    let (good, empty) = (text("good", &"11".repeat(32)), text("empty", "\n"));
    let words = text("words", &format!("{}about", "abandon ".repeat(11)));
    for (name, algorithm, arguments, words) in [
        ("wrong_password", "secp256k1", vec!["--file", &keystore, "--password-file", &wrong], "password"),
        ("password_missing", "secp256k1", vec!["--file", &keystore], "--password-file"),
        ("password_of_nothing", "secp256k1", vec!["--file", &good, "--password-file", &right], "password"),
        ("bad_checksum_word", "bip32-secp256k1", vec!["--file", &checksum, "--paths", "m"], "checksum"),
        ("unknown_word", "bip32-secp256k1", vec!["--file", &word, "--paths", "m"], "word 1"),
        ("mnemonic_for_a_plain_key", "secp256k1", vec!["--file", &checksum], "bip32-secp256k1"),
        ("zero_scalar", "secp256k1", vec!["--file", &zero], "zero"),
        ("scalar_out_of_range", "secp256k1", vec!["--file", &order], "order"),
        ("short", "secp256k1", vec!["--file", &short], "64"),
        ("wrong_curve", "secp256k1", vec!["--file", &vector("p256_pkcs8.pem")], "secp256k1"),
        ("other_algorithm", "ed25519", vec!["--file", &vector("secp256k1_pkcs8.pem")], "ed25519"),
        ("keystore_for_ed25519", "ed25519", vec!["--file", &keystore, "--password-file", &right], "secp256k1"),
        ("encrypted_pem", "secp256k1", vec!["--file", &vector("encrypted_pkcs8.pem")], "openssl pkey"),
        ("public_key", "secp256k1", vec!["--file", &vector("public_key.pem")], "public key"),
        ("binary", "secp256k1", vec!["--file", binary], "not a text"),
        ("no_format", "secp256k1", vec!["--file", &prose], "--format"),
        ("format_that_it_is_not", "secp256k1", vec!["--file", &good, "--format", "pem"], "PEM"),
        (
            "empty_password",
            "bip32-secp256k1",
            vec!["--file", &words, "--paths", "m", "--password-file", &empty],
            "no password",
        ),
        (
            "another_key_than_expected",
            "secp256k1",
            vec!["--file", &good, "--expect-address", OTHER],
            "not the expected key",
        ),
        ("two_files_on_one_input", "secp256k1", vec!["--file", "-", "--password-file", "-"], "standard input"),
        ("no_such_file", "secp256k1", vec!["--file", "nowhere"], "nowhere"),
        ("seed_without_paths", "bip32-secp256k1", vec!["--file", &good], "paths"),
        ("paths_for_a_plain_key", "secp256k1", vec!["--file", &good, "--paths", "m/0"], "paths"),
        ("path_of_ed25519_not_hardened", "slip10-ed25519", vec!["--file", &good, "--paths", "m/44'/0"], "hardened"),
    ] {
        // Nobody listens there: whoever asked would say so.
        let arguments = [&["a", "--algorithm", algorithm][..], &arguments].concat();
        let output = import(&it, "http://127.0.0.1:9", &arguments).await;
        let told = said(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {told}");
        assert!(told.contains(words), "{name}: {told}");
        assert!(!told.contains("abandun") && !told.contains(&"11".repeat(16)), "{name}: {told}");
    }
    assert_eq!(stored(&it), [""; 0]);
    imported(&it, &["a", "--algorithm", "secp256k1", "--file", &good]).await;
    let again = import(&it, &it.stack.url, &["a", "--algorithm", "secp256k1", "--file", &good]).await;
    assert_eq!(again.status.code(), Some(5), "it exists: {}", said(&again));
}

/// A password is typed at the terminal, which never shows it, and shows everything again however the command ends.
#[tokio::test]
async fn a_password_is_asked_for_and_not_shown() {
    let it = importing().await;
    let keystore = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/key_files/keystore_cheap_scrypt.json");
    let program = strongroom_tests::stack::binary("strongroom");
    let arguments = ["key", "import", "typed", "--algorithm", "secp256k1", "--pcrs", "pcrs.json", "--file"];
    let mut command: Vec<&str> = vec![program.to_str().expect("text")];
    command.extend(arguments);
    command.extend([keystore.to_str().expect("text"), "--attestation-root", NITRO_ROOT_FILE, "--url", &it.stack.url]);
    let question = |typed: &str| json!({ "command": command, "directory": it.stack.directory(), "after": "Password of", "type": typed });
    let typed = ["testpassword\r", "wrong\r", "\r", "testpass\u{3}", "\u{4}"].map(question);
    let answers = asked("terminal.py", &typed).await;
    for (answer, (name, code, words)) in answers.iter().zip([
        ("right", 0, "VERIFIED  key typed"),
        ("wrong", 2, "wrong password"),
        ("nothing", 2, "no password was given"),
        ("interrupted", 2, "no password was given: interrupted"),
        ("end_of_file", 2, "no password was given"),
    ]) {
        let told = answer["output"].as_str().expect("text");
        assert_eq!(answer["code"], code, "{name}: {told}");
        assert!(told.contains(words) && !told.contains("testpass"), "{name}: {told}");
        assert_eq!(answer["echo"], true, "{name}");
    }
    assert_eq!(stored(&it), ["typed"]);
}

/// An address of nobody here.
const OTHER: &str = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF";

/// Paths, at the command line: what the policy does not allow, and what ed25519 cannot do.
#[tokio::test]
async fn paths_that_cannot_be_are_named_by_the_command_line() {
    let it = importing().await;
    let (file, _) = made(&it, &[json!({ "format": "mnemonic", "algorithm": "slip10-ed25519" })]).await.remove(0);
    imported(&it, &["s", "--algorithm", "slip10-ed25519", "--file", &file, "--paths", "m/44'/501'"]).await;
    for (path, code, words) in
        [("m/44'/60'", 6, "path-denied"), ("m/44'/501'/0", 1, "hardened steps only"), ("44'", 2, "path:")]
    {
        for arguments in [&["sign", "s", "--message", "00"][..], &["public-key", "s"]] {
            let arguments = [&["key"], arguments, &["--path", path, "--url", &it.stack.url]].concat();
            let output = ended(&mut command(it.stack.directory(), &arguments)).await;
            let told = said(&output);
            assert_eq!(output.status.code(), Some(code), "{path}: {told}");
            assert!(told.contains(words), "{path}: {told}");
        }
    }
}

/// PCR16 is always demanded.
#[tokio::test]
async fn without_pcr16_nothing_is_imported() {
    let it = importing().await;
    let good = write(&it, "good", &"11".repeat(32));
    write(&it, "image.json", &json!({ "PCR0": "22".repeat(48) }).to_string());
    write(&it, "other.json", r#"{"another":"configuration"}"#);
    let directory: PathBuf = it.stack.directory().to_owned();
    for (name, enclave, words) in [
        ("pcrs_without_pcr16", &["--pcrs", "image.json"][..], "PCR16 must be named"),
        (
            "another_configuration",
            &["--pcrs", "pcrs.json", "--enclave-config", "other.json"],
            "not that of the configuration",
        ),
        ("no_pcrs", &["--enclave-config", "enclave.json"], "--pcrs"),
    ] {
        let import = ["key", "import", "a", "--algorithm", "ed25519", "--file", &good, "--url", &it.stack.url];
        let output = ended(&mut command(&directory, &[&import[..], enclave].concat())).await;
        let told = said(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {told}");
        assert!(told.contains(words), "{name}: {told}");
    }
    assert_eq!(stored(&it), [""; 0]);
}
