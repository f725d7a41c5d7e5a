//! `strongroom attestation`: documents as files. What a document can have wrong with it is `crate::attestation`'s matter;
//! here each is refused by the built program, with its reason and exit code.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA384};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use strongroom_protocol::{ByteArray, ImportKeyId, Subject};
use strongroom_tests::mock_nsm::{Framing, Pcr, Statement, cose_sign1, image_pcrs};
use strongroom_tests::pki::CertificateSpec;
use strongroom_tests::stack::test_directory;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{command, ended, said, strongroom};
use crate::attestation::broken_chain::{INSTANCE, LEAF, REGION, ROOT, ZONE, expire, postpone};
use crate::attestation::broken_document::replace_payload;
use crate::attestation::real::{BAD_SIGNATURE, GENUINE};
use crate::attestation::{CONFIGURATION, Forged};
use crate::shared::SharedScene;

const VERIFIED: Option<i32> = Some(0);
const REFUSED: Option<i32> = Some(1);
const USAGE: Option<i32> = Some(2);

/// The registers of [`Forged`]'s enclave.
fn registers() -> Value {
    json!({ "PCR0": hex::encode(image_pcrs("image")[0]), "PCR16": hex::encode(CONFIGURATION) })
}

/// A folder with the document, the root that it begins with and the registers that it should have.
fn kept(document: &[u8], root_pem: &str) -> TempDir {
    let folder = test_directory().expect("a folder");
    fs::write(folder.path().join("document"), document).expect("written");
    fs::write(folder.path().join("root.pem"), root_pem).expect("written");
    fs::write(folder.path().join("pcrs.json"), registers().to_string()).expect("written");
    folder
}

/// `attestation verify` of the document in this folder, under the root there.
async fn verify(folder: &Path, more: &[&str]) -> Output {
    const USUAL: [&str; 7] =
        ["attestation", "verify", "document", "--pcrs", "pcrs.json", "--attestation-root", "root.pem"];
    strongroom(folder, &[&USUAL, more].concat()).await
}

#[track_caller]
fn assert_refused(output: &Output, reason: &str) {
    assert_eq!(output.status.code(), REFUSED, "{}", said(output));
    let words = format!("REFUSED  document: {reason}");
    assert!(said(output).contains(&words), "{words:?} in: {}", said(output));
    assert!(output.stdout.is_empty(), "a refusal is no result");
}

/// Verifies what was forged, by hand where it cannot be signed as it should be.
async fn judged(forged: &Forged, more: &[&str]) -> Output {
    verify(kept(&forged.sign(), &forged.chain.root_pem()).path(), more).await
}

fn rfc3339(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).expect("a time")
}

mod broken_chain {
    use super::*;

    macro_rules! refused {
        ($($name:ident: $break_chain:expr => $reason:expr;)+) => {
            $(#[tokio::test]
            async fn $name() {
                assert_refused(&judged(&Forged::with($break_chain), &[]).await, $reason);
            })+
        };
    }

    refused! {
        root_expired: |specs| expire(&mut specs[ROOT]) => "certificate 0 has expired";
        intermediate_expired: |specs| expire(&mut specs[REGION]) => "certificate 1 has expired";
        leaf_expired: |specs| expire(&mut specs[LEAF]) => "certificate 4 has expired";
        intermediate_not_yet_valid: |specs| postpone(&mut specs[INSTANCE]) => "certificate 3 is not valid yet";
        leaf_not_yet_valid: |specs| postpone(&mut specs[LEAF]) => "certificate 4 is not valid yet";
        intermediate_without_basic_constraints: |specs| specs[ZONE].params.is_ca = IsCa::NoCa
            => "certificate 2 issues others and is not a CA";
        intermediate_without_key_usage: |specs| specs[ZONE].params.key_usages.clear()
            => "certificate 2 issues others without keyCertSign";
        leaf_without_key_usage: |specs| specs[LEAF].params.key_usages.clear()
            => "the leaf certificate is not for digital signatures";
        leaf_for_another_use: |specs| specs[LEAF].params.key_usages = vec![KeyUsagePurpose::KeyAgreement]
            => "the leaf certificate is not for digital signatures";
        leaf_with_ca_flag: |specs| specs[LEAF].params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))
            => "the leaf certificate is a CA";
        path_length_exceeded: |specs: &mut Vec<CertificateSpec>| {
            specs[ZONE].params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        } => "certificate 2 has more intermediates below it than its pathLenConstraint allows";
        signed_by_a_key_of_another_curve: |specs| specs[ZONE].key = &PKCS_ECDSA_P521_SHA384
            => "certificate 2 has no P-384 key";
        signed_by_a_stranger: |specs| specs[REGION].signed_by_stranger = true => "certificate 1 has a bad signature";
    }

    #[tokio::test]
    async fn another_root() {
        let forged = Forged::new();
        let folder = kept(&forged.sign(), &Forged::new().chain.root_pem());
        assert_refused(&verify(folder.path(), &[]).await, "the document comes from another root");
        let awss = ["attestation", "verify", "document", "--pcrs", "pcrs.json"];
        assert_refused(&strongroom(folder.path(), &awss).await, "the document comes from another root");
    }
}

mod broken_document {
    use super::*;

    async fn refused(document: &[u8], forged: &Forged, reason: &str) {
        let folder = kept(document, &forged.chain.root_pem());
        assert_refused(&verify(folder.path(), &[]).await, reason);
    }

    #[tokio::test]
    async fn truncated() {
        let forged = Forged::new();
        let document = forged.sign();
        for length in [0, 1, 100, document.len() - 97, document.len() - 1] {
            refused(&document[..length], &forged, "not an attestation document").await;
        }
    }

    #[tokio::test]
    async fn longer_than_any() {
        refused(&[&[0x84], &[0; 20_000][..]].concat(), &Forged::new(), "not an attestation document: too long").await;
    }

    #[tokio::test]
    async fn with_another_cose_algorithm() {
        let forged = Forged::new();
        let mut document = forged.sign();
        document[5] = 0x23;
        refused(&document, &forged, "the document is signed with COSE algorithm -36, not with ES384").await;
    }

    #[tokio::test]
    async fn re_encoded() {
        let forged = Forged::new();
        let [definite, indefinite] = [Framing::Definite, Framing::Indefinite].map(|it| forged.statement.encode(it));
        let document = cose_sign1(&indefinite, forged.chain.leaf_key());
        let folder = kept(&document, &forged.chain.root_pem());
        assert_eq!(verify(folder.path(), &[]).await.status.code(), VERIFIED);
        let document = replace_payload(&document, &indefinite, &definite);
        refused(&document, &forged, "the document has a bad signature").await;
    }

    #[tokio::test]
    async fn signed_by_a_stranger() {
        let forged = Forged::new();
        let stranger = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        let document = cose_sign1(&forged.statement.encode(Framing::Definite), &stranger);
        refused(&document, &forged, "the document has a bad signature").await;
    }

    #[tokio::test]
    async fn not_a_document_in_any_form() {
        let forged = Forged::new();
        let neither = "not an attestation document: neither COSE_Sign1 nor base64";
        refused(b"hello, world", &forged, neither).await;
        refused(br#"{"document": "!"}"#, &forged, neither).await;
        refused(br#"{"pcrs": {}}"#, &forged, "not an attestation document: JSON without a document").await;
        refused(b"aGVsbG8=", &forged, "not an attestation document: not a COSE_Sign1").await;
    }
}

mod claims {
    use super::*;

    async fn told(state: impl FnOnce(&mut Statement), more: &[&str]) -> Output {
        let mut forged = Forged::new();
        state(&mut forged.statement);
        judged(&forged, more).await
    }

    #[tokio::test]
    async fn the_truth_verifies_and_everything_in_it_is_told() {
        let subject = Subject::Enclave { configuration: Some([0xc0; 48]) };
        let made = |statement: &mut Statement| {
            statement.nonce = Some(b"mine".to_vec());
            statement.user_data = Some(subject.user_data());
            statement.pcrs.extend([(3, [0x33; 48]), (4, [0x44; 48]), (8, [0x88; 48])]);
        };
        let output = told(made, &["--nonce", "0x6d696e65"]).await;
        assert_eq!(output.status.code(), VERIFIED, "{}", said(&output));
        let text = String::from_utf8(output.stdout.clone()).expect("text");
        for words in [
            "VERIFIED  a document of the expected enclave. AWS does NOT vouch",
            "evidence",
            &format!("configuration with the SHA-384 {}", "c0".repeat(48)),
            "i-0123456789abcdef0-enc0123456789abcdef",
            "NOT AWS's",
            "0x6d696e65 (the one that you named)",
            &format!("PCR0  {}  the image", hex::encode(image_pcrs("image")[0])),
            &format!("PCR3  {}  IAM role", "33".repeat(48)),
            &format!("PCR4  {}  id of the parent instance", "44".repeat(48)),
            &format!("PCR8  {}  certificate", "88".repeat(48)),
            &format!("PCR16 {}  strongroom's configuration", hex::encode(CONFIGURATION)),
            "CN=strongroom.nitro-enclaves.test",
            "CN=i-0123456789abcdef0-enc0123456789abcdef.strongroom.test",
        ] {
            assert!(text.contains(words), "{words:?} in: {text}");
        }
        assert!(!text.contains("PCR5"), "zero: {text}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("WARNING: --attestation-root"));

        let output = told(made, &["--json"]).await;
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["verdict"], "verified");
        assert_eq!((&report["kind"], &report["foreign_root"]), (&json!("evidence"), &json!(true)));
        assert_eq!((&report["nonce"], &report["nonce_checked"]), (&json!("0x6d696e65"), &json!(false)));
        assert_eq!(report["pcrs"]["PCR16"], hex::encode(CONFIGURATION));
        assert_eq!(report["certificates"].as_array().map(Vec::len), Some(5));
    }

    #[tokio::test]
    async fn a_register_that_differs_is_shown_as_expected_and_as_found() {
        let [expected, found] = [image_pcrs("image")[0], [9; 48]];
        let differs = |statement: &mut Statement| statement.pcrs.extend([(0, found)]);
        let output = told(differs, &[]).await;
        assert_refused(&output, "PCR0 is not the expected one");
        let text = said(&output);
        let pair = format!("expected  {}\n    found     {}", hex::encode(expected), hex::encode(found));
        assert!(text.contains("PCR0, the image:") && text.contains(&pair), "{text}");
        assert!(!text.contains("PCR16, "), "as expected: {text}");

        let output = told(differs, &["--json"]).await;
        assert_eq!(output.status.code(), REFUSED);
        let verdict: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(verdict["verdict"], "refused");
        let differing = json!([{ "pcr": "PCR0", "expected": hex::encode(expected), "found": hex::encode(found) }]);
        assert_eq!(verdict["differing_pcrs"], differing);
        assert_eq!(verdict["genuine"]["kind"], "evidence");
    }

    #[tokio::test]
    async fn a_zero_pcr0() {
        let zero = |statement: &mut Statement| statement.pcrs.extend([(0, [0; 48])]);
        let debug = "the enclave runs in debug mode";
        assert_refused(&told(zero, &[]).await, debug);
        let forged = {
            let mut forged = Forged::new();
            zero(&mut forged.statement);
            kept(&forged.sign(), &forged.chain.root_pem())
        };
        let any = ["attestation", "verify", "document", "--any-enclave", "--attestation-root", "root.pem"];
        assert_refused(&strongroom(forged.path(), &any).await, debug);
    }

    #[tokio::test]
    async fn no_pcr16() {
        let zero: Pcr = [0; 48];
        for output in [
            told(|statement| statement.pcrs.retain(|index, _| *index != 16), &[]).await,
            told(|statement| statement.pcrs.extend([(16, zero)]), &[]).await,
        ] {
            assert_refused(&output, "the enclave has no configuration: PCR16 is not measured and locked");
        }
    }

    #[tokio::test]
    async fn another_nonce_or_none() {
        let nonce = ["--nonce", "6d696e65"];
        let other = "the nonce is not the expected one";
        assert_refused(&told(|statement| statement.nonce = Some(b"yours".to_vec()), &nonce).await, other);
        assert_refused(&told(|_| {}, &nonce).await, other);
    }

    #[tokio::test]
    async fn an_old_document_and_one_of_the_future() {
        let made = |seconds: i64| {
            move |statement: &mut Statement| {
                statement.timestamp = statement.timestamp.checked_add_signed(seconds * 1000).expect("a time");
            }
        };
        assert_refused(&told(made(-360), &[]).await, "the document is too old");
        assert_eq!(told(made(-360), &["--max-age", "600"]).await.status.code(), VERIFIED);
        assert_refused(&told(made(-20), &["--max-age", "10"]).await, "the document is too old");
        assert_refused(&told(made(120), &[]).await, "the document is dated in the future");
        // At a time that is named, any age will do, unless an age is named too.
        let now = rfc3339(SystemTime::now());
        assert_eq!(told(made(-36_000), &["--at", &now]).await.status.code(), VERIFIED);
        assert_refused(&told(made(-360), &["--at", &now, "--max-age", "300"]).await, "the document is too old");
    }

    #[tokio::test]
    async fn at_another_time_its_certificates_are_not_valid() {
        let forged = Forged::new();
        let [earlier, later] = [forged.at - Duration::from_secs(3600), forged.at + Duration::from_secs(4 * 3600)];
        assert_refused(&judged(&forged, &["--at", &rfc3339(earlier)]).await, "certificate 4 is not valid yet");
        assert_refused(&judged(&forged, &["--at", &rfc3339(later)]).await, "certificate 4 has expired");
    }

    #[tokio::test]
    async fn a_document_that_carries_a_key_is_what_it_is_and_no_evidence() {
        let import_key = [7; 32];
        let rsa = vec![0x30; 294];
        let import = ImportKeyId::of(&ByteArray(import_key)).user_data();
        let recipient = Subject::Recipient { public_key: Sha256::digest(&rsa).into() }.user_data();
        for (name, key, user_data, kind, words) in [
            ("import", import_key.to_vec(), Some(import.clone()), Some("import-key"), "an import key's"),
            ("recipient", rsa.clone(), Some(recipient), Some("recipient"), "a recipient's"),
            ("another_import_key", vec![8; 32], Some(import), None, "no kind of strongroom's"),
            ("of_no_kind", rsa, None, None, "no kind of strongroom's"),
        ] {
            let carries = |statement: &mut Statement| {
                statement.public_key = Some(key.clone());
                statement.user_data.clone_from(&user_data);
            };
            let output = told(carries, &[]).await;
            assert_refused(&output, "the document carries a public key and is no evidence");
            assert!(said(&output).contains(words), "{name}: {}", said(&output));
            for asked in ["import-key", "recipient"] {
                let output = told(carries, &["--kind", asked]).await;
                let expected = if kind == Some(asked) { VERIFIED } else { REFUSED };
                assert_eq!(output.status.code(), expected, "{name}: {}", said(&output));
                assert_eq!(said(&output).contains("NO EVIDENCE"), kind == Some(asked), "{name}: {}", said(&output));
            }
        }
        assert_refused(&told(|_| {}, &["--kind", "recipient"]).await, "the document is of another kind: evidence");
    }
}

/// The real documents of `tests/vectors/attestation`: AWS's own root, at their time.
mod genuine {
    use super::*;

    fn folder(document: &[u8]) -> TempDir {
        kept(document, "")
    }

    const ANY: [&str; 4] = ["attestation", "verify", "document", "--any-enclave"];

    #[tokio::test]
    async fn documents_verify_at_their_time_under_awss_root() {
        for vector in GENUINE {
            let folder = folder(vector.bytes);
            let output = strongroom(folder.path(), &[&ANY[..], &["--at", vector.made]].concat()).await;
            if vector.name.contains("debug") {
                assert_refused(&output, "the enclave runs in debug mode");
                continue;
            }
            let text = said(&output);
            assert_eq!(output.status.code(), VERIFIED, "{}: {text}", vector.name);
            for words in ["GENUINE", "NOT COMPARED", "AWS's Nitro root", "CN=aws.nitro-enclaves", "the image"] {
                assert!(text.contains(words), "{}: {words}: {text}", vector.name);
            }
            assert!(!text.contains("VERIFIED"), "{}: {text}", vector.name);
            // None of them is of strongroom.
            let pcrs = ["attestation", "verify", "document", "--pcrs", "pcrs.json", "--at", vector.made];
            assert_refused(&strongroom(folder.path(), &pcrs).await, "the enclave has no configuration");
        }
    }

    #[tokio::test]
    async fn documents_have_expired_by_now() {
        for vector in GENUINE {
            assert_refused(&strongroom(folder(vector.bytes).path(), &ANY).await, "certificate ");
        }
    }

    #[tokio::test]
    async fn a_bad_signature() {
        let arguments = [&ANY[..], &["--at", "2022-11-09T22:52:00.696Z"]].concat();
        let output = strongroom(folder(BAD_SIGNATURE).path(), &arguments).await;
        assert_refused(&output, "the document has a bad signature");
    }
}

#[tokio::test]
async fn wrong_usage_judges_nothing() {
    let forged = Forged::new();
    let folder = kept(&forged.sign(), &forged.chain.root_pem());
    fs::write(folder.path().join("too-little.json"), json!({ "PCR0": "ab".repeat(48) }).to_string()).expect("written");
    let verify = ["attestation", "verify", "document"];
    for more in [
        &[][..],
        &["--pcrs", "pcrs.json", "--any-enclave"],
        &["--enclave-config", "pcrs.json", "--any-enclave"],
        &["--pcrs", "missing.json"],
        &["--pcrs", "too-little.json"],
        &["--pcrs", "pcrs.json", "--attestation-root", "pcrs.json"],
        &["--pcrs", "pcrs.json", "--at", "yesterday"],
        &["--pcrs", "pcrs.json", "--nonce", "0xA"],
    ] {
        let output = strongroom(folder.path(), &[&verify[..], more].concat()).await;
        assert_eq!(output.status.code(), USAGE, "{more:?}: {}", said(&output));
    }
    let output = strongroom(folder.path(), &["attestation", "verify", "missing", "--any-enclave"]).await;
    assert_eq!(output.status.code(), USAGE, "{}", said(&output));
}

static STACK: SharedScene = SharedScene::new(|_| {});

/// What `get` said the nonce is.
fn nonce_of(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    told.split_once("nonce  ").expect("a nonce").1.trim().to_owned()
}

#[tokio::test]
async fn what_get_fetches_verify_verifies() {
    let (it, _) = STACK.enter().await;
    let (folder, url) = (it.stack.directory(), it.stack.url.as_str());
    let get = async |more: &[&str]| {
        let output = strongroom(folder, &[&["attestation", "get", "--url", url], more].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        output
    };
    let verify = async |file: &str, nonce: &str| {
        let root = ["--attestation-root", "mock-nsm-root.pem"];
        let arguments = ["attestation", "verify", file, "--pcrs", "pcrs.json", "--nonce", nonce];
        strongroom(folder, &[&arguments[..], &root].concat()).await
    };
    let to_file = get(&["--out", "got.cose"]).await;
    assert!(to_file.stdout.is_empty());
    let to_output = get(&[]).await;
    fs::write(folder.join("got-output.cose"), &to_output.stdout).expect("written");
    fs::write(folder.join("got.base64"), BASE64_STANDARD.encode(&to_output.stdout) + "\n").expect("written");
    let as_json = get(&["--json", "--nonce", "0x00C0FFEE", "--out", "got.json"]).await;
    for (file, nonce) in [
        ("got.cose", nonce_of(&to_file)),
        ("got-output.cose", nonce_of(&to_output)),
        ("got.base64", nonce_of(&to_output)),
        ("got.json", nonce_of(&as_json)),
    ] {
        let output = verify(file, &nonce).await;
        assert_eq!(output.status.code(), VERIFIED, "{file}: {}", said(&output));
        assert!(said(&output).contains("about       the enclave, and its configuration"), "{}", said(&output));
    }
    assert_eq!(nonce_of(&as_json), "0x00c0ffee");
    assert_ne!(nonce_of(&to_file), nonce_of(&to_output), "each is new");
    let replayed = verify("got.cose", &nonce_of(&to_output)).await;
    assert_eq!(replayed.status.code(), REFUSED, "{}", said(&replayed));
}

/// `pcrs.json` can be what nitro-cli printed; PCR16 then follows from the configuration.
#[tokio::test]
async fn what_nitro_cli_printed_is_expected_as_it_is() {
    let (it, _) = STACK.enter().await;
    it.create("measured").await;
    let folder = it.stack.directory();
    let pcrs: Value = serde_json::from_slice(&fs::read(folder.join("pcrs.json")).expect("a file")).expect("JSON");
    let printed = json!({ "Measurements": {
        "HashAlgorithm": "Sha384 { ... }", "PCR0": pcrs["PCR0"], "PCR1": pcrs["PCR1"], "PCR2": pcrs["PCR2"],
    } });
    fs::write(folder.join("nitro-cli.json"), printed.to_string()).expect("written");
    let (url, enclave) =
        (it.stack.url.as_str(), ["--pcrs", "nitro-cli.json", "--attestation-root", "mock-nsm-root.pem"]);
    let configuration = ["--enclave-config", "enclave.json"];
    let got = strongroom(folder, &["attestation", "get", "--url", url, "--out", "measured.cose"]).await;
    assert_eq!(got.status.code(), Some(0), "{}", said(&got));
    for arguments in [&["attestation", "verify", "measured.cose"][..], &["key", "verify", "measured", "--url", url]] {
        let output = strongroom(folder, &[arguments, &enclave, &configuration].concat()).await;
        assert_eq!(output.status.code(), VERIFIED, "{}", said(&output));
        let output = strongroom(folder, &[arguments, &enclave].concat()).await;
        assert_eq!(output.status.code(), USAGE, "no PCR16: {}", said(&output));
    }
}

#[tokio::test]
async fn get_says_who_did_not_answer() {
    let folder = test_directory().expect("a folder");
    let get = ["attestation", "get", "--url", "http://127.0.0.1:1", "--out", "document"];
    let output = strongroom(folder.path(), &get).await;
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(!folder.path().join("document").exists());
    let mut other = command(folder.path(), &["attestation", "get", "--nonce", "zz"]);
    assert_eq!(ended(&mut other).await.status.code(), USAGE);
}
