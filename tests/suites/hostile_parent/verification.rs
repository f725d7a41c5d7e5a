//! `strongroom key verify`: what a custodian runs before an address is used, and what finds a parent
//! that shows keys of its own. The liar here has everything but the measured enclave.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use strongroom_protocol::key_user_data;
use strongroom_tests::mock_nsm::{Machine, MockNsm};
use strongroom_tests::pki::{NITRO_ROOT_FILE, NitroAuthority};
use strongroom_tests::stack::binary;
use tokio::process::Command;

use super::lying_parent::{Lie, LyingParent, measured};
use crate::scene::Scene;

/// Exit codes of `key verify`.
const VERIFIED: i32 = 0;
const REFUSED: i32 = 1;
const USAGE: i32 = 2;

/// Verifies key `a` at this URL with the custodian's own files; the exit code and what was printed.
async fn verify(custodian: &Scene, url: &str, pcrs: &Path) -> (i32, String) {
    let output = Command::new(binary("strongroom"))
        .args(["key", "verify", "a", "--url", url, "--pcrs"])
        .arg(pcrs)
        .arg("--attestation-root")
        .arg(custodian.stack.directory().join(NITRO_ROOT_FILE))
        .output()
        .await
        .expect("strongroom runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().expect("a code"), String::from_utf8_lossy(&said).into_owned())
}

fn pcrs(it: &Scene) -> PathBuf {
    it.stack.directory().join("pcrs.json")
}

#[track_caller]
fn assert_said((code, said): &(i32, String), expected: i32, words: &str) {
    assert_eq!(*code, expected, "{said}");
    assert!(said.contains(words), "expected {words:?} in: {said}");
}

/// The attacker runs the genuine image on genuine machines (the same NSM root), with a KMS, TLS roots
/// and a configuration of his own. Everything on it works, but for the custodian.
#[tokio::test]
async fn a_key_made_under_an_attackers_configuration() {
    let custodian = Scene::start().await;
    custodian.create("a").await;
    let attacker = Scene::planned(|plan| {
        let (from, to) = (custodian.stack.directory().join("nsm"), plan.directory.join("nsm"));
        std::fs::create_dir_all(&to).expect("a folder");
        for file in std::fs::read_dir(from).expect("the root's folder") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
        }
    })
    .await;
    attacker.create("a").await;
    attacker.signs("a").await;
    assert_eq!(verify(&attacker, &attacker.stack.url, &pcrs(&attacker)).await.0, VERIFIED, "by his own measure");

    let found = verify(&custodian, &attacker.stack.url, &pcrs(&custodian)).await;
    assert_said(&found, REFUSED, "REFUSED  key a");
    assert_said(&found, REFUSED, "PCR16");
    assert_said(&verify(&custodian, &custodian.stack.url, &pcrs(&custodian)).await, VERIFIED, "VERIFIED  key a");
}

/// The honest key and the measured machine, for lies that differ from the truth in one thing.
struct Truth {
    it: Scene,
    view: Value,
    user_data: Vec<u8>,
}

impl Truth {
    async fn of_key_a() -> Self {
        let it = Scene::start().await;
        it.create("a").await;
        let view = it.api.get("/v1/keys/a").await.expect("a reply").body;
        let user_data = key_user_data(&it.record("a").binding());
        Self { it, view, user_data }
    }

    fn root(&self) -> NitroAuthority {
        NitroAuthority::open(&self.it.stack.directory().join("nsm")).expect("the root")
    }

    fn configuration(&self) -> PathBuf {
        self.it.stack.directory().join("enclave.json")
    }

    fn nsm(&self, machine: Machine) -> MockNsm {
        measured(self.root(), machine, Some(&self.configuration()))
    }

    /// The truth, to be made a lie.
    fn told(&self) -> Lie {
        let nsm = self.nsm(Machine::default());
        Lie { view: self.view.clone(), nsm, user_data: Some(self.user_data.clone()), public_key: None, nonce: None }
    }

    async fn verify(&self, lie: Lie) -> (i32, String) {
        let parent = LyingParent::start("a", lie).await;
        verify(&self.it, &parent.url, &pcrs(&self.it)).await
    }

    /// What the custodian is told about this lie; the honest parent still verifies afterwards.
    async fn refuses(&self, change: impl FnOnce(&mut Lie), words: &str) {
        let mut lie = self.told();
        change(&mut lie);
        assert_said(&self.verify(lie).await, REFUSED, words);
        assert_said(&verify(&self.it, &self.it.stack.url, &pcrs(&self.it)).await, VERIFIED, "VERIFIED  key a");
    }
}

/// The liar is a faithful double of an honest parent: told unchanged, the truth verifies.
#[tokio::test]
async fn the_truth_verifies() {
    let truth = Truth::of_key_a().await;
    assert_said(&truth.verify(truth.told()).await, VERIFIED, "VERIFIED  key a");
}

#[tokio::test]
async fn a_document_of_a_debug_image() {
    let truth = Truth::of_key_a().await;
    let debug = Machine { debug_mode: true, ..Machine::default() };
    truth.refuses(|lie| lie.nsm = truth.nsm(debug), "debug mode").await;
}

#[tokio::test]
async fn a_document_of_another_image() {
    let truth = Truth::of_key_a().await;
    let other = Machine { image: "another image".to_owned(), ..Machine::default() };
    truth.refuses(|lie| lie.nsm = truth.nsm(other), "PCR0 is not the expected one").await;
}

#[tokio::test]
async fn a_document_of_an_enclave_that_was_never_configured() {
    let truth = Truth::of_key_a().await;
    truth.refuses(|lie| lie.nsm = measured(truth.root(), Machine::default(), None), "PCR16 is not measured").await;
}

#[tokio::test]
async fn a_document_of_another_root() {
    let truth = Truth::of_key_a().await;
    let nsm = measured(NitroAuthority::new(), Machine::default(), Some(&truth.configuration()));
    truth.refuses(|lie| lie.nsm = nsm, "another root").await;
}

#[tokio::test]
async fn a_replayed_document() {
    let truth = Truth::of_key_a().await;
    truth.refuses(|lie| lie.nonce = Some(vec![7; 32]), "nonce").await;
}

#[tokio::test]
async fn an_old_document() {
    let truth = Truth::of_key_a().await;
    let old = Machine { clock_offset_seconds: -301, ..Machine::default() };
    truth.refuses(|lie| lie.nsm = truth.nsm(old), "too old").await;
}

#[tokio::test]
async fn a_document_with_a_public_key() {
    let truth = Truth::of_key_a().await;
    truth.refuses(|lie| lie.public_key = Some(vec![0x30; 294]), "carries a public key").await;
}

#[tokio::test]
async fn a_document_about_the_enclave_and_not_about_the_key() {
    let truth = Truth::of_key_a().await;
    truth.refuses(|lie| lie.user_data = Some(b"strongroom-enclave-v1".to_vec()), "user data is not").await;
    truth.refuses(|lie| lie.user_data = None, "user data is not").await;
}

/// The document is genuine; what the parent shows beside it is not what the enclave opened.
#[tokio::test]
async fn a_view_with_anything_bound_changed() {
    let truth = Truth::of_key_a().await;
    for (field, value) in [
        ("policy", json!({ "payloads": ["message"], "hold_seconds": 1 })),
        ("public_key", format!("0x{}", "11".repeat(32)).into()),
        ("origin", "imported".into()),
    ] {
        truth.refuses(|lie| lie.view[field] = value, "user data is not").await;
    }
    truth.refuses(|lie| lie.view["key_id"] = "b".into(), "another key").await;
    truth.refuses(|lie| lie.view["algorithm"] = "secp256k1".into(), "public_key").await;
}

#[tokio::test]
async fn expected_registers_without_pcr16_verify_nothing() {
    let truth = Truth::of_key_a().await;
    let registers: Value = serde_json::from_slice(&std::fs::read(pcrs(&truth.it)).expect("pcrs.json")).expect("JSON");
    for missing in ["PCR16", "PCR0"] {
        let mut registers = registers.clone();
        registers.as_object_mut().expect("an object").remove(missing);
        let path = truth.it.stack.directory().join("too-little.json");
        std::fs::write(&path, registers.to_string()).expect("written");
        assert_said(&verify(&truth.it, &truth.it.stack.url, &path).await, USAGE, missing);
    }
    let mut zero = registers;
    zero["PCR0"] = "00".repeat(48).into();
    let path = truth.it.stack.directory().join("zero.json");
    std::fs::write(&path, zero.to_string()).expect("written");
    assert_said(&verify(&truth.it, &truth.it.stack.url, &path).await, USAGE, "PCR0");
}

/// The record behind the honest parent was changed: the enclave does not open it, and that is a verdict.
#[tokio::test]
async fn a_key_whose_record_was_changed() {
    let truth = Truth::of_key_a().await;
    let original = truth.it.tamper("a", |record| record["policy"]["hold_seconds"] = 60.into());
    let found = verify(&truth.it, &truth.it.stack.url, &pcrs(&truth.it)).await;
    assert_said(&found, REFUSED, "record-refused");
    truth.it.store("a", &original);
    assert_said(&verify(&truth.it, &truth.it.stack.url, &pcrs(&truth.it)).await, VERIFIED, "VERIFIED  key a");
}
