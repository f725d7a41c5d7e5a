//! The released image on the real driver: `make test-boot` builds it and runs these, which `cargo test` leaves out.
//! What QEMU cannot show (signed documents, debug mode) is the mock NSM's matter in the other suites.

#![allow(clippy::print_stdout, reason = "what a boot takes is shown, not judged")]

mod contents;
mod hybrid;
mod machines;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use strongroom_protocol::{Measurement, Payload, Request, Response};
use strongroom_tests::demo;
use strongroom_tests::frames::EnclaveSocket;
use strongroom_tests::machine::{self, Image};
use strongroom_tests::stack::{EnclaveKind, Plan, binary, test_directory};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::scene::{Scene, assert_problem, eventually};

/// What `make image` has built.
fn image_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image")
}

fn released() -> Image {
    let folder = image_folder();
    Image::open(&folder.join("strongroom-enclave-x86_64.eif"), &folder.join("pcrs.json")).expect("make image")
}

/// The stack in front of a machine that boots `image`.
fn in_machine(plan: &mut Plan, image: Image) {
    plan.enclave = EnclaveKind::Machine(image);
    plan.enclave_address = format!("unix-hybrid:{}:5005", machine::SOCKET);
    plan.kms_proxy_address = format!("unix-hybrid:{}:8000", machine::SOCKET);
}

async fn booted() -> Scene {
    Scene::planned(|plan| in_machine(plan, released())).await
}

async fn pcrs(it: &Scene) -> Value {
    it.api.get("/v1/attestation?nonce=0x01").await.expect("a reply").body["pcrs"].clone()
}

fn written(pcr: &[u8; 48]) -> Value {
    format!("0x{}", hex::encode(pcr)).into()
}

#[tokio::test]
#[ignore = "boots a machine: make test-boot"]
async fn the_main_job_runs_on_the_released_image() {
    let directory = test_directory().expect("a folder");
    let mut plan = Plan::new(directory.path());
    in_machine(&mut plan, released());
    demo::run(plan).await.expect("the demo passes");
}

#[tokio::test]
#[ignore = "boots a machine: make test-boot"]
async fn documents_of_the_real_driver_measure_what_was_built_and_configured() {
    let it = booted().await;
    let seconds = it.stack.boot_time().expect("a machine").as_secs_f64();
    println!("from power-on to the heartbeat: {seconds:.2} s, in {} of memory", machine::MEMORY);
    let pcrs = pcrs(&it).await;
    let image = released().measurements.0;
    let host = machine::host_pcrs();
    let configuration = std::fs::read(it.stack.directory().join("enclave.json")).expect("a configuration");
    let expected = [
        ("PCR0", image[0]),
        ("PCR1", image[1]),
        ("PCR2", image[2]),
        ("PCR3", host[0]),
        ("PCR4", host[1]),
        ("PCR16", Measurement::of(&configuration).pcr16),
    ];
    for (name, pcr) in expected {
        assert_eq!(pcrs[name], written(&pcr), "{name}");
    }
}

#[tokio::test]
#[ignore = "boots a machine: make test-boot"]
async fn keys_of_every_algorithm_are_made_and_large_requests_and_replies_cross_vsock() {
    let it = booted().await;
    for (algorithm, paths) in
        [("secp256k1", None), ("ed25519", None), ("bip32-secp256k1", Some("m/44'")), ("slip10-ed25519", Some("m/44'"))]
    {
        let mut policy = json!({ "payloads": ["message"] });
        if let Some(prefix) = paths {
            policy["paths"] = json!([prefix]);
        }
        it.create_with(json!({ "key_id": algorithm, "algorithm": algorithm, "policy": policy })).await;
    }
    it.create_held("held", 600).await;
    it.signs("held").await;
    // A request and its reply of several hundred kilobytes, where one write of a guest must not be over 32 KiB.
    let mut stream = UnixStream::connect(it.stack.directory().join(machine::SOCKET)).await.expect("connected");
    stream.write_all(b"CONNECT 5005\n").await.expect("sent");
    while stream.read_u8().await.expect("an OK") != b'\n' {}
    let mut socket = EnclaveSocket::over(stream).greet().await.expect("a greeting");
    let payload = Payload::Message { message: vec![0x5a; 100].try_into().expect("short"), hash: None };
    let record = it.record("held").present().expect("a record");
    let sign = Request::Sign { record, scheme: None, path: None, payloads: vec![payload; 5_000] };
    let Ok(Response::Signed(signatures)) = socket.ask(sign).await.expect("a reply") else { panic!("not signed") };
    assert_eq!(signatures.iter().filter(|signature| signature.is_ok()).count(), 5_000);
}

#[tokio::test]
#[ignore = "boots a machine: make test-boot"]
async fn a_killed_machine_is_booted_again_and_service_resumes() {
    let mut it = booted().await;
    it.create("a").await;
    for _ in 0..2 {
        it.stack.restart_enclave().await.expect("boots again");
        it.stack.wait_ready().await.expect("ready again");
        it.signs("a").await;
    }
}

#[tokio::test]
#[ignore = "boots a machine: make test-boot"]
async fn another_configuration_is_measured_and_kms_says_no() {
    assert_denied(|plan| plan.admitted_pcr16 = Some(Measurement::of(b"another").pcr16)).await;
}

#[tokio::test]
#[ignore = "boots a machine: make test-boot"]
async fn another_image_is_measured_and_kms_says_no() {
    assert_denied(|plan| plan.admitted_image = Some("another".to_owned())).await;
}

/// The machine boots, and KMS does not admit it.
async fn assert_denied(admit_another: impl FnOnce(&mut Plan)) {
    let it = Scene::planned(|plan| {
        in_machine(plan, released());
        admit_another(plan);
    })
    .await;
    let create = json!({ "key_id": "a", "algorithm": "ed25519" });
    assert_problem(&it.try_create(create).await, 502, "kms-denied");
}

/// One image for one configuration: made of the released one's kernel and binary, and of the configuration.
#[tokio::test]
#[ignore = "boots a machine: make test-boot"]
async fn an_image_with_a_pin_takes_its_configuration_and_no_other() {
    let mut it = booted().await;
    let folder = it.stack.directory().to_owned();
    let command_line = std::fs::read_to_string(image_folder().join("../../image/kernel.command-line")).expect("text");
    let build = Command::new(binary("strongroom"))
        .args(["image", "build", "--command-line", &command_line, "--kernel"])
        .arg(image_folder().join("bzImage"))
        .arg("--enclave")
        .arg(image_folder().join("../x86_64-unknown-linux-musl/image/strongroom-enclave"))
        .arg("--configuration")
        .arg(folder.join("enclave.json"))
        .arg("--output")
        .arg(folder.join("pinned.eif"))
        .arg("--pcrs")
        .arg(folder.join("pinned.json"))
        .output()
        .expect("runs");
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let pinned = Image::open(&folder.join("pinned.eif"), &folder.join("pinned.json")).expect("an image");
    assert_ne!(pinned.measurements.0[0], released().measurements.0[0], "the pin is measured");

    it.stack.plan.enclave = EnclaveKind::Machine(pinned);
    it.stack.restart_enclave().await.expect("boots");
    it.stack.wait_ready().await.expect("its configuration is taken");

    let mut other: Value =
        serde_json::from_slice(&std::fs::read(folder.join("enclave.json")).expect("read")).expect("JSON");
    other["max_hold_seconds"] = 7.into();
    std::fs::write(folder.join("enclave.json"), other.to_string()).expect("written");
    it.restart().await.expect("restarted");
    eventually("it says why", async || {
        let body = it.api.get("/readyz").await.expect("a reply").body.to_string();
        body.contains("accepts one configuration only")
    })
    .await;
    let log = std::fs::read_to_string(folder.join("console.log")).expect("a console");
    assert!(log.contains("the image accepts another one only"), "{log}");
}
