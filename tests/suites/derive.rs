//! Seeds and the keys below them, asked of the enclave itself: they are the keys that other libraries derive,
//! they sign where the policy says, and neither seed nor chain code is in any output.

mod refused;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use strongroom_protocol::{
    Created, DerivationPath, ErrorCode, HashFunction, KeyRecord, Payload, PayloadKind, Policy, PublicKey, Request,
    Response, Scheme, Signature,
};
use strongroom_tests::frames::EnclaveSocket;
use strongroom_tests::{opened, scripts};

use crate::canary::needles::Needles;
use crate::scene::Scene;

/// Paths that wallets use, and the corners of what a path can be.
const SECP256K1: [&str; 8] = [
    "m",
    "m/0",
    "m/2147483647'",
    "m/2147483647",
    "m/44'/60'/0'/0/0",
    "m/44'/60'/0'/0/2147483647",
    "m/84'/0'/0'/1/7",
    "m/1/2'/3/4'/5/6'/7/8'/9/10'",
];
const ED25519: [&str; 5] =
    ["m", "m/0'", "m/44'/501'/0'/0'", "m/44'/501'/2147483647'/0'", "m/1'/2'/3'/4'/5'/6'/7'/8'/9'/10'"];

/// A connection of our own and the record of a seed.
struct Bench {
    it: Scene,
    socket: EnclaveSocket,
    record: KeyRecord,
}

impl Bench {
    /// A stack of its own with a seed that signs everything below these prefixes.
    async fn new(algorithm: &str, prefixes: &[&str], hold_seconds: u32) -> Self {
        Self::on(Scene::start().await, algorithm, prefixes, hold_seconds).await
    }

    async fn on(it: Scene, algorithm: &str, prefixes: &[&str], hold_seconds: u32) -> Self {
        let mut socket = it.enclave().await;
        let generated = generate(&mut socket, algorithm, policy(prefixes, hold_seconds)).await.expect("generated");
        assert_eq!(generated.addresses, BTreeMap::new(), "a seed has no address of its own");
        Self { it, socket, record: generated.record }
    }

    async fn sign(&mut self, path: Option<&str>) -> Result<Signature, ErrorCode> {
        let scheme = self.record.algorithm.default_scheme();
        self.sign_with(path, scheme, message(scheme)).await
    }

    async fn sign_with(
        &mut self,
        path: Option<&str>,
        scheme: Scheme,
        payload: Payload,
    ) -> Result<Signature, ErrorCode> {
        let record = self.record.present().expect("encodes");
        let request = Request::Sign { record, scheme: Some(scheme), path: path.map(parse), payloads: vec![payload] };
        match self.socket.ask(request).await.expect("a reply")? {
            Response::Signed(results) => results[0],
            other => panic!("{other:?}"),
        }
    }

    async fn public_key(&mut self, path: &str) -> Result<(PublicKey, BTreeMap<String, String>), ErrorCode> {
        let record = self.record.present().expect("encodes");
        match self.socket.ask(Request::DerivePublicKey { record, path: parse(path) }).await.expect("a reply")? {
            Response::PublicKey { public_key, addresses } => Ok((public_key, addresses)),
            other => panic!("{other:?}"),
        }
    }

    /// The seed, which only the test can open.
    fn secret(&self) -> Vec<u8> {
        opened::secret(&self.it.stack, &self.record).expect("it opens")
    }

    /// What other libraries derive at these paths.
    async fn oracle(&self, paths: &[&str]) -> Vec<Value> {
        let seed = hex::encode(self.secret());
        let case = |path: &&str| json!({ "algorithm": self.record.algorithm, "seed": seed, "path": path });
        let input: String = paths.iter().map(|path| format!("{}\n", case(path))).collect();
        let output = scripts::run("derive_keys.py", &input).await.expect("the script runs");
        let answers: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(answers.len(), paths.len());
        answers
    }
}

async fn generate(socket: &mut EnclaveSocket, algorithm: &str, policy: Policy) -> Result<Created, ErrorCode> {
    let algorithm = serde_json::from_value(algorithm.into()).expect("an algorithm");
    let key_id = "seed".parse().expect("an id");
    match socket.ask(Request::GenerateKey { key_id, algorithm, policy, kms_key_arn: None }).await.expect("a reply")? {
        Response::Created(generated) => Ok(*generated),
        other => panic!("{other:?}"),
    }
}

fn policy(prefixes: &[&str], hold_seconds: u32) -> Policy {
    let policy = Policy::new(vec![PayloadKind::Digest, PayloadKind::Message], hold_seconds).expect("a policy");
    policy.with_paths(prefixes.iter().map(|prefix| parse(prefix)).collect()).expect("a policy")
}

fn parse(path: &str) -> DerivationPath {
    path.parse().expect("a path")
}

fn message(scheme: Scheme) -> Payload {
    let hash = (scheme != Scheme::Ed25519).then_some(HashFunction::Keccak256);
    Payload::Message { message: b"derived".to_vec().try_into().expect("short"), hash }
}

/// Public key, address and every scheme's signature agree with other libraries.
async fn assert_the_keys_are_everybodys(algorithm: &str, paths: &[&str], chain: &str, schemes: &[Scheme]) {
    let mut bench = Bench::new(algorithm, &["m"], 60).await;
    let mut signatures = String::new();
    let answers = bench.oracle(paths).await;
    assert_eq!(answers[0]["public_key"], hex::encode(&*bench.record.public_key), "m is the master key");
    for (path, answer) in paths.iter().zip(answers) {
        let (public_key, addresses) = bench.public_key(path).await.expect("derived");
        assert_eq!(hex::encode(&*public_key), answer["public_key"], "{path}");
        assert_eq!(json!(addresses), json!({ chain: answer["address"] }), "{path}");
        for scheme in schemes {
            let signature = bench.sign_with(Some(path), *scheme, message(*scheme)).await.expect("signed");
            let mut case = json!({
                "scheme": scheme,
                "public_key": format!("0x{}", hex::encode(&*public_key)),
                "signature": format!("0x{}", hex::encode(*signature.bytes)),
                "message": format!("0x{}", hex::encode(b"derived")),
                "hash": "keccak256",
                "address": answer["address"],
            });
            if let Some(recovery_id) = signature.recovery_id {
                case["recovery_id"] = recovery_id.into();
            }
            signatures += &format!("{case}\n");
        }
    }
    let verdicts = scripts::run("verify_signatures.py", &signatures).await.expect("the script runs");
    assert_eq!(verdicts.lines().collect::<Vec<_>>(), vec!["verified"; paths.len() * schemes.len()]);
}

#[tokio::test]
async fn secp256k1_keys_are_those_that_other_libraries_derive_and_they_sign() {
    let schemes = [Scheme::Ecdsa, Scheme::Bip340];
    assert_the_keys_are_everybodys("bip32-secp256k1", &SECP256K1, "ethereum", &schemes).await;
}

#[tokio::test]
async fn ed25519_keys_are_those_that_other_libraries_derive_and_they_sign() {
    assert_the_keys_are_everybodys("slip10-ed25519", &ED25519, "solana", &[Scheme::Ed25519]).await;
}

/// 32 bytes are sealed, and every seed is another.
#[tokio::test]
async fn a_generated_seed_has_32_bytes_of_its_own() {
    for algorithm in ["bip32-secp256k1", "slip10-ed25519"] {
        let mut bench = Bench::new(algorithm, &["m"], 0).await;
        let first = bench.secret();
        bench.record = generate(&mut bench.socket, algorithm, policy(&["m"], 0)).await.expect("generated").record;
        let second = bench.secret();
        assert_eq!((first.len(), second.len()), (32, 32));
        assert_ne!(first, second);
    }
}

/// One unlock, then no call of KMS, however many keys are asked for.
#[tokio::test]
async fn a_held_seed_costs_one_call_for_many_addresses() {
    let mut bench = Bench::new("bip32-secp256k1", &["m/44'/60'/0'"], 600).await;
    let calls = bench.it.calls().await;
    let mut seen = std::collections::BTreeSet::new();
    for index in 0..500 {
        for chain in 0..2 {
            let (public_key, _) = bench.public_key(&format!("m/44'/60'/0'/{chain}/{index}")).await.expect("derived");
            seen.insert(public_key.to_vec());
        }
    }
    bench.sign(Some("m/44'/60'/0'/0/499")).await.expect("signed");
    assert_eq!(seen.len(), 1000, "each path has a key of its own");
    assert_eq!(bench.it.outcomes_after(calls).await, ["Decrypt Success"]);
}

/// Not held: each request is one unlock, also one with many payloads.
#[tokio::test]
async fn a_seed_that_is_not_held_costs_one_call_per_request() {
    let mut bench = Bench::new("bip32-secp256k1", &["m"], 0).await;
    let calls = bench.it.calls().await;
    bench.public_key("m/0").await.expect("derived");
    let record = bench.record.present().expect("encodes");
    let payloads = vec![message(Scheme::Ecdsa); 100];
    let request = Request::Sign { record, scheme: None, path: Some(parse("m/0")), payloads };
    match bench.socket.ask(request).await.expect("a reply") {
        Ok(Response::Signed(results)) => assert!(results.len() == 100 && results.iter().all(Result::is_ok)),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.it.outcomes_after(calls).await, ["Decrypt Success"; 2]);
}

#[tokio::test]
async fn a_re_wrapped_seed_derives_the_same_keys() {
    let operations = json!(["generate", "sign", "rewrap"]);
    let it = Scene::planned(|plan| {
        plan.configuration.insert("operations".to_owned(), operations);
    })
    .await;
    let mut bench = Bench::on(it, "slip10-ed25519", &["m/44'"], 0).await;
    let before = bench.sign(Some("m/44'/1'")).await.expect("signed");
    let record = bench.record.present().expect("encodes");
    let request = Request::Rewrap { record, kms_key_arn: bench.record.kms_key_arn.clone() };
    bench.record = match bench.socket.ask(request).await.expect("a reply") {
        Ok(Response::Rewrapped(record)) => *record,
        other => panic!("{other:?}"),
    };
    assert_eq!(bench.sign(Some("m/44'/1'")).await, Ok(before));
}

/// Deriving a public key is no signature: like opening a record it needs no operation, and the policy binds it.
#[tokio::test]
async fn where_signing_is_not_configured_public_keys_are_derived_all_the_same() {
    let it = Scene::planned(|plan| {
        plan.configuration.insert("operations".to_owned(), json!(["generate"]));
    })
    .await;
    let mut bench = Bench::on(it, "bip32-secp256k1", &["m/0"], 0).await;
    assert!(bench.public_key("m/0/1").await.is_ok());
    assert_eq!(bench.public_key("m/1").await.err(), Some(ErrorCode::PathDenied));
    assert_eq!(bench.sign(Some("m/0/1")).await.err(), Some(ErrorCode::OperationNotConfigured));
}

/// Everything that lies on the way to a key is as secret as the seed.
#[tokio::test]
async fn no_seed_no_chain_code_and_no_derived_key_is_in_any_output() {
    for (algorithm, paths) in [("bip32-secp256k1", &SECP256K1[..]), ("slip10-ed25519", &ED25519[..])] {
        let it = Scene::planned(|plan| plan.log_level = "trace".to_owned()).await;
        let mut bench = Bench::on(it, algorithm, &["m"], 60).await;
        let mut needles = Needles::default();
        needles.add("the seed", &bench.secret());
        for (path, answer) in paths.iter().zip(bench.oracle(paths).await) {
            for secret in answer["secrets"].as_array().expect("secrets") {
                needles.add(path, &hex::decode(secret.as_str().expect("text")).expect("hex"));
            }
        }
        let mut said = bench.record.present().expect("encodes").into_vec();
        for path in paths {
            let (public_key, addresses) = bench.public_key(path).await.expect("derived");
            said.extend([&public_key[..], format!("{addresses:?}").as_bytes()].concat());
            said.extend(*bench.sign(Some(path)).await.expect("signed").bytes);
            assert_eq!(bench.sign(None).await.err(), Some(ErrorCode::PathRequired));
        }
        assert_eq!(needles.found_in(&said), [""; 0], "in replies");
        let directory = bench.it.stack.directory();
        assert_eq!(needles.found_under(directory).0, [""; 0]);
        let log = std::fs::read_to_string(directory.join("enclave.log")).expect("a log");
        assert!(log.contains("configuration measured and locked"), "nothing was logged: {log}");
    }
}
